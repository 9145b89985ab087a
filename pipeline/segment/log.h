/* SPDX-License-Identifier: Apache-2.0
 *
 * log.h - an append-only log of opaque records on local disk, the one thing Spanmill
 * writes locally.
 *
 *   segment_log_append --queue--> writer thread: few pwritev, ONE fdatasync, done() in LSN order
 *   segment_log_read: one old record by position        segment_reader: all, in LSN order
 *   segment_log_free_to: what lies below an LSN is not needed; whole segments are unlinked
 *
 * It is the block builder's write-ahead log (done() is the group fsync behind the client's
 * answer), the persistent sending_queue of exporters and, without sync, scratch space.
 *
 * LSN: every record has a u64 log sequence number from 1 upwards, +1 per record, never given to
 * two visible records, also across restarts. It skips ahead only after a failed write or a torn
 * tail; the skip is no loss.
 * LIMITS: record 64 MiB (and max_bytes / 4); queue max_pending_bytes; disk max_bytes. Over one
 * of the last two, or on a full disk, an append fails with a retryable error and nothing is
 * torn; freeing needs no free space.
 * SPEC: docs/formats/segment-log.md; DESIGN section 6.
 */
#ifndef PIPELINE_SEGMENT_LOG_H
#define PIPELINE_SEGMENT_LOG_H

#include "base/base.h"
#include "base/budget.h"
#include "base/buf.h"
#include "base/err.h"

#include <sys/uio.h>

#define SEGMENT_RECORD_MAX (64 * MIB)
#define SEGMENT_BYTES_DEFAULT (64 * MIB)
#define SEGMENT_PENDING_DEFAULT (64 * MIB)

struct segment_io;	/* pipeline/segment/file.h: system calls, replaced by fault tests only */
struct segment_log;

/* Zero in a number means its default. Borrowed during segment_log_open only, but for budget and
 * io. */
struct segment_log_options {
	const char *dir;		/* created (one level) when missing; one owner at a time */
	uint64_t segment_bytes;		/* 64 MiB; at most max_bytes / 4; 64 KiB to 1 GiB */
	uint64_t max_bytes;		/* on disk; 0: no limit but the disk's */
	uint64_t max_pending_bytes;	/* queued, not yet written: 64 MiB */
	uint64_t leave_free;	/* of the file system: as many bytes as the log has in use, at most
				 * these, for what its records become before they can be freed */
	bool sync;			/* done() means durable; false: in the page cache */
	bool verify;			/* open reads every segment, not only the last */
	struct budget *budget;		/* charged with the buffers of readers; may be NULL */
	const struct segment_io *io;	/* NULL: the real system calls */
};

/* Where a record lies: what an index keeps in RAM. Stays valid until the record is freed, also
 * across restarts. */
struct segment_position {
	uint64_t segment;	/* number of the segment, never reused */
	uint32_t offset;	/* of the record's header in the file */
	uint32_t length;	/* of the payload */
};

/* What segment_log_open found. */
struct segment_log_found {
	uint64_t first_lsn;		/* lowest LSN still wanted; next_lsn when empty */
	uint64_t next_lsn;		/* what the next record gets, at least */
	uint64_t records, bytes;	/* wanted records, and bytes of their segments */
	uint64_t lost;			/* records known to be damaged, by LSN gaps */
	uint64_t torn_bytes;		/* no whole record, at the end of the last segment */
	uint32_t segments;		/* files in use */
	uint32_t quarantined;		/* files moved away now */
};

/* One append, owned by the caller and untouched by him from segment_log_append to done(). */
struct segment_append {
	/* in */
	const struct iovec *iov;	/* the payload's pieces, borrowed until done() */
	uint32_t n_iov;
	/* Exactly once, on the writer thread, no lock held; may free a, append, free_to and read;
	 * may not flush or close. */
	void (*done)(struct segment_append *a);
	void *owner;			/* the caller's */
	/* out, valid in done() */
	struct err err;		/* ERR_NONE: durable (with sync); else it is not in the log */
	uint64_t lsn;
	struct segment_position position;
	/* private */
	struct segment_append *next;
	struct iovec one;
	uint32_t length, payload_crc;
	uint8_t header[24];
};

struct segment_log_stats {
	uint64_t bytes_on_disk;		/* of segment files, with what is preallocated */
	uint64_t max_bytes;
	uint64_t records_held;		/* durable, not freed, not known lost */
	uint64_t first_lsn, next_lsn;
	uint64_t pending_records, pending_bytes;
	uint64_t appended, failed;	/* through done(), since open */
	uint64_t lost, quarantined;	/* records; files */
	uint64_t fsyncs, fsync_ns_last, fsync_ns_max;
	uint32_t segments;
};

/* Take the directory, recover, start the writer. `found` may be NULL. NULL on error: directory
 * not usable, or locked by another owner (kind EXISTS, the message names its pid). Damage is not
 * an error: it is skipped, counted, logged. */
struct segment_log *segment_log_open(const struct segment_log_options *o,
				     struct segment_log_found *found, struct err *err);
/* Flush, stop the writer, seal the last segment. Readers must be closed before. NULL is fine. */
void segment_log_close(struct segment_log *log);

/* The random id of this log as text (a UUID), lives as long as the log. Any thread. */
const char *segment_log_id(const struct segment_log *log);

/* Make `a` carry one contiguous payload. */
void segment_append_bytes(struct segment_append *a, struct bytes payload);
/* Queue one record. Any thread; never waits for I/O, never allocates. 0: done() will be called.
 * -1: refused at once, done() will not be called: EXHAUSTED "log full: ..." or "disk full: ...",
 * TOO_LARGE, INTERNAL after close began. */
int segment_log_append(struct segment_log *log, struct segment_append *a, struct err *err);
/* Wait until everything appended before the call has had its done(). -1: something failed during
 * the wait (*err is the last failure); what failed before it was told to its done() only. */
int segment_log_flush(struct segment_log *log, struct err *err);

/* Append the payload of one record to *out. Any thread. -1: NOT_FOUND (freed), CORRUPT, IO; *out
 * is then as before. */
int segment_log_read(struct segment_log *log, const struct segment_position *at, struct buf *out,
		     struct err *err);
/* The same into memory of at->length bytes. */
int segment_log_read_into(struct segment_log *log, const struct segment_position *at, void *out,
			  struct err *err);

/* Records below lsn are not needed any more. Any thread; unlinks on the caller's thread, needs
 * no free space. An lsn below an earlier one is ignored, one above the next LSN is taken as
 * that. Survives kill -9; after a power cut some freed records may come back. */
void segment_log_free_to(struct segment_log *log, uint64_t lsn);

/* No record below this LSN from now on: others (commits) know of higher ones than the log does,
 * whose cursor was lost. Before the first append only. */
void segment_log_skip_to(struct segment_log *log, uint64_t lsn);
/* True as soon as a record with this LSN or a higher one is durable; false after timeout_ms. Any
 * thread. */
bool segment_log_wait(struct segment_log *log, uint64_t lsn, uint32_t timeout_ms);
/* True, with the reason, while appends fail: the last one did, and the disk is still full or it was
 * not long ago. Any thread. */
bool segment_log_is_failing(struct segment_log *log, char *why, size_t why_size);
void segment_log_stats(struct segment_log *log, struct segment_log_stats *out);

#endif
