/* SPDX-License-Identifier: Apache-2.0
 *
 * span_notes.h - where every run of spans of a section lies, and the order of their trace ids.
 *
 *   a run    [head span][head span]..   spans of one trace and scope that lie in a row
 *   keys[]   {trace id, note}   24 bytes a run, sorted by span_notes_sort
 *   notes[]  {request, offset, length, scope, checksum}   20 bytes a run, in the order they came
 *
 * A head is the tag and length that an encoder writes before a span. A span with another one is a
 * run of its own, without the head (SPAN_RUN_BARE).
 *
 * DESIGN: an in-place radix sort from the first byte on ("American flag"), insertion for what is
 * short. A plain qsort costs five times as much, a radix with a second array half as much memory
 * again. Bytes that all ids share (64-bit Zipkin ids are zero in front) cost one look at each id.
 * OWNERSHIP: owns its arrays. THREADS: one at a time. LIMITS: 44 bytes a run.
 */
#ifndef EXPORTERS_BLOCKS_SPAN_NOTES_H
#define EXPORTERS_BLOCKS_SPAN_NOTES_H

#include "base/base.h"
#include "wire/span.h"

struct span_key {
	uint64_t hi, lo; /* the trace id, big-endian */
	uint32_t note;
	uint32_t len; /* the note's bytes, beside it: notes are far apart once keys are sorted */
};

struct span_note {
	uint32_t request;  /* number of the request, as they came */
	uint32_t off, len; /* of the run in it; len with SPAN_RUN_BARE */
	uint32_t scope;    /* in the builder's head table */
	uint32_t check;    /* of the bytes: they are read again later */
};

/* In a run's length: it is one span's bytes without a head. Requests are shorter. */
#define SPAN_RUN_BARE UINT32_C(0x80000000)

enum { SPAN_NOTE_BYTES = sizeof(struct span_key) + sizeof(struct span_note) };

struct span_notes {
	struct span_key *keys;
	struct span_note *notes;
	size_t n, cap;
};

/* Behind the last of the spans [i, n) that make one run with span i. */
uint32_t span_run_end(const struct span_ref *spans, uint32_t i, uint32_t n);
/* The bytes of the run of spans [i, end), and its len with the flag. */
const uint8_t *span_run_bytes(const struct span_ref *spans, uint32_t i, uint32_t end,
			      uint32_t *len);

/* Room for n runs in all. */
void span_notes_reserve(struct span_notes *s, size_t n);
/* hi, lo: the trace id, big-endian. */
void span_notes_add(struct span_notes *s, uint64_t hi, uint64_t lo, const struct span_note *note);
void span_notes_sort(struct span_notes *s);
/* End of the run of equal trace ids that starts at key i. */
size_t span_notes_trace_end(const struct span_notes *s, size_t i);
size_t span_notes_memory(const struct span_notes *s);
void span_notes_fini(struct span_notes *s);

#endif
