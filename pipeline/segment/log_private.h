/* SPDX-License-Identifier: Apache-2.0
 *
 * log_private.h - what log.c, writer.c, recover.c and
 * reader.c share. No other file includes it.
 *
 * THREADS: `lock` guards all that the middle block says and is never held across a system call.
 * `free_lock` is taken before it, by those who unlink. The last block is the writer thread's
 * alone.
 */
#ifndef PIPELINE_SEGMENT_LOG_PRIVATE_H
#define PIPELINE_SEGMENT_LOG_PRIVATE_H

#include "pipeline/segment/dir.h"
#include "pipeline/segment/log.h"

#include <pthread.h>

enum { SEGMENT_IOV_MAX = 1024 };

/* One file. The last one may be the one being written. */
struct segment {
	uint64_t number;
	uint64_t base, end;	/* its durable records have LSNs in [base, end) */
	uint64_t bytes;		/* of the file that may be read: up to the last durable record */
	uint64_t size;		/* of the file, with what is preallocated */
	uint64_t lost;		/* records found damaged */
	uint64_t lost_upto;	/* damage below this LSN is counted already */
	bool is_damaged;	/* goes to quarantine instead of being unlinked */
};

struct segment_log {
	/* set by open, constant */
	struct segment_dir dir;
	const struct segment_io *io;
	struct budget *budget;
	uint64_t segment_bytes, max_bytes, max_pending_bytes, record_max, leave_free;
	bool sync;
	pthread_t thread;
	bool has_thread;
	pthread_mutex_t free_lock;

	/* guarded by lock */
	pthread_mutex_t lock;
	pthread_cond_t work;		/* the queue is not empty, or stopping */
	pthread_cond_t progress;	/* something is durable, or completed */
	unsigned waiters;
	struct segment_append *head, **tail;
	uint64_t pending_bytes, pending_records;
	uint64_t queued, completed;	/* appends, since open */
	bool stopping;
	struct segment *segs;		/* ascending */
	size_t n_segs, cap_segs;
	uint64_t disk_bytes;		/* sum of size */
	uint64_t next_lsn, low_water;
	uint64_t full_until_ns;		/* the disk was full: refuse so long */
	struct err last_error;
	uint64_t failed_ns;		/* monotonic, of the last failure; 0 after a success */
	uint64_t appended, failed, lost, quarantined, fsyncs, fsync_ns_last, fsync_ns_max;

	/* the writer's */
	int fd;			/* of the last segment; -1: the next record opens a new one */
	uint32_t salt;
	uint64_t capacity;		/* of the file, for records */
	uint64_t next_number;
	struct iovec iov[SEGMENT_IOV_MAX];
	int n_iov;
	uint64_t iov_offset;		/* in the file, of the first piece gathered */
};

/* log.c. Caller holds lock: the segment with this number, or NULL; the last one, or
 * NULL. */
struct segment *segment_log_find(struct segment_log *log, uint64_t number);
struct segment *segment_log_newest(struct segment_log *log);
struct segment *segment_log_push(struct segment_log *log, const struct segment *seg);
/* Caller holds lock: bytes on disk that appends have to fit beside. */
uint64_t segment_log_used(const struct segment_log *log);
/* Unlink what is wholly below the low water. Takes free_lock unless the caller has it. */
void segment_log_collect(struct segment_log *log);
/* Count [from, to) of a segment as damaged, once. Takes lock. */
void segment_log_count_lost(struct segment_log *log, uint64_t number, uint64_t from, uint64_t to);
/* A descriptor for the segment of a record, after checking that its place lies in what is durable.
 * -1: NOT_FOUND when it was freed. */
int segment_log_open_at(struct segment_log *log, const struct segment_position *at,
			struct err *err);
/* writer.c */
void *segment_writer_main(void *log);
void segment_writer_seal(struct segment_log *log);
/* recover.c: fill segs, next_lsn, low_water, next_number from the folder. */
int segment_recover(struct segment_log *log, bool verify, struct segment_log_found *found,
		    struct err *err);

#endif
