/* SPDX-License-Identifier: Apache-2.0
 *
 * file.h - one segment of the log: its bytes, and walking over them when some are
 * damaged.
 *
 * Pure encoding and decoding, and struct segment_scan, the one loop that readers, recovery and
 * fsck share. A scan belongs to one thread.
 * SPEC: docs/formats/segment-log.md "A segment", "Reading".
 */
#ifndef PIPELINE_SEGMENT_FILE_H
#define PIPELINE_SEGMENT_FILE_H

#include "base/base.h"
#include "base/budget.h"

#include <sys/types.h>
#include <sys/uio.h>

enum {
	SEGMENT_HEADER_SIZE = 64,
	SEGMENT_FRAME_SIZE = 24,	/* a record's header */
	SEGMENT_ID_SIZE = 16,
};

#define SEGMENT_PAYLOAD_MAX (64 * MIB)

/* The system calls that change a file, so that tests can make the n-th one fail. */
struct segment_io {
	ssize_t (*pwritev)(int fd, const struct iovec *iov, int n, off_t off);
	int (*fdatasync)(int fd);
	int (*fallocate)(int fd, int mode, off_t off, off_t len);
	int (*ftruncate)(int fd, off_t len);
};
extern const struct segment_io segment_io_real;

struct segment_header {
	uint8_t id[SEGMENT_ID_SIZE];
	uint64_t number;
	uint64_t base;		/* no lower LSN in here */
	uint64_t prev_end;	/* the segment before holds LSNs below this only */
};

void segment_header_encode(const struct segment_header *h, uint8_t out[SEGMENT_HEADER_SIZE]);
/* 0, or -1 when the bytes are no header of this version. */
int segment_header_decode(const uint8_t in[SEGMENT_HEADER_SIZE], struct segment_header *h);
/* Initial value of the header CRC of every record in this segment. */
uint32_t segment_salt(const uint8_t id[SEGMENT_ID_SIZE], uint64_t number);

/* Bytes a record of this payload takes. */
uint64_t segment_record_size(uint64_t length);
void segment_frame_encode(uint32_t salt, uint32_t length, uint64_t lsn, uint32_t payload_crc,
			  uint8_t out[SEGMENT_FRAME_SIZE]);
void segment_end_encode(uint32_t salt, uint64_t end, uint8_t out[SEGMENT_FRAME_SIZE]);

struct segment_frame {
	bool is_end;
	uint32_t length;
	uint64_t lsn;
	uint32_t payload_crc;
};
/* 0, or -1 when the 24 bytes are no record header of this segment. */
int segment_frame_decode(uint32_t salt, const uint8_t in[SEGMENT_FRAME_SIZE],
			 struct segment_frame *f);

/* A walk over the records of one file. Set by segment_scan_init; limit and end may be raised
 * between calls while the file grows. */
struct segment_scan {
	int fd;			/* borrowed */
	uint32_t salt;
	uint64_t offset;	/* of the next byte to look at */
	uint64_t limit;		/* bytes of the file that may be looked at */
	uint64_t want;		/* the next LSN */
	uint64_t end;		/* LSNs below this are in here; UINT64_MAX: not known */
	bool is_ended;		/* the end record was met; an unknown `end` is now from it */
	uint64_t tail_bytes;	/* set with 0: from offset to the last byte that is not zero */
	uint64_t io_errors;	/* pages that could not be read */
	bool is_spotty;		/* the window has such pages, as zeros */
	/* the window [window_off, window_off + window_n) of the file */
	uint8_t *window;
	size_t window_cap, window_n;
	uint64_t window_off;
	uint64_t ahead_to;	/* below: the disk was asked to read it */
	struct budget *budget;	/* charged with window_cap; may be NULL */
};

struct segment_scan_record {
	uint64_t lsn;
	uint64_t offset;	/* of the frame */
	struct bytes payload;	/* valid until the next call */
};

void segment_scan_init(struct segment_scan *s, int fd, uint32_t salt, uint64_t limit, uint64_t want,
		       uint64_t end, struct budget *budget);
/* 1: *rec. 0: no more. -1: the records [*lost_from, s->want) are damaged and skipped; go on. */
int segment_scan_next(struct segment_scan *s, struct segment_scan_record *rec, uint64_t *lost_from);
/* Go over to another file, keeping the window's memory. */
void segment_scan_reset(struct segment_scan *s, int fd, uint32_t salt, uint64_t limit,
			uint64_t want, uint64_t end);
/* Stand again where a copy of the scan, made before the last call, stood, and ask the disk anew. */
void segment_scan_back(struct segment_scan *s, const struct segment_scan *before);
/* Nothing to read for a while: give back what a large record took. What was read is void. */
void segment_scan_rest(struct segment_scan *s);
void segment_scan_fini(struct segment_scan *s);

#endif
