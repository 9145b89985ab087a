/* SPDX-License-Identifier: Apache-2.0
 *
 * check.h - offline check of a segment log: what `spanmill fsck` prints. Changes nothing.
 *
 * SPEC: docs/formats/segment-log.md. One thread; takes the owner's lock for its time, so that no
 * process starts to write meanwhile.
 */
#ifndef PIPELINE_SEGMENT_CHECK_H
#define PIPELINE_SEGMENT_CHECK_H

#include "base/err.h"

enum segment_check_verdict {
	SEGMENT_GOOD,
	SEGMENT_DAMAGED,	/* some records are lost */
	SEGMENT_TORN,		/* cut inside a write, normal after a crash */
	SEGMENT_NO_HEADER,	/* but its records can be read */
	SEGMENT_FOREIGN,	/* of another log, or renamed */
	SEGMENT_UNREADABLE,	/* no header and no record */
};

/* One segment, for one line of output. Valid during the call. */
struct segment_check_line {
	const char *name;	/* of the file */
	enum segment_check_verdict verdict;
	uint64_t base, end;	/* LSNs [base, end) */
	uint64_t records, lost, torn_bytes, bytes;
	uint64_t first_lost;	/* LSN; 0: none */
};

struct segment_check_report {
	char id[37];		/* "" when not known */
	bool id_damaged;	/* no segment agrees with the file `id`: they are believed */
	uint64_t low_water;	/* records below are freed; 0: no cursor */
	uint64_t segments, unreadable;
	uint64_t records;	/* good ones, freed or not */
	uint64_t lost;		/* that are not freed, as far as their neighbours tell */
	uint64_t torn_bytes, bytes;
	uint64_t next_lsn;
};

const char *segment_check_verdict_name(enum segment_check_verdict v);
/* Called for each good record that is not freed, in order; the payload is valid during the call. */
typedef void segment_check_record(void *arg, uint64_t lsn, struct bytes payload);

/* 0 and *out also when there is damage. -1: no such folder, or in use by a live process (kind
 * EXISTS). `line` (may be NULL) is called once per segment, in order, `record` may be NULL too. */
int segment_check(const char *dir, void (*line)(void *arg, const struct segment_check_line *l),
		  segment_check_record *record, void *arg, struct segment_check_report *out,
		  struct err *err);

/* Of a log that nobody owns, without reading more than its last segment: records that are not freed
 * (damaged ones, too), and the bytes of its files. -1: it cannot be opened, or is in use. */
int segment_check_brief(const char *dir, uint64_t *n_records, uint64_t *n_bytes, struct err *err);

#endif
