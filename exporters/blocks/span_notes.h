/* SPDX-License-Identifier: Apache-2.0
 *
 * span_notes.h - where every span of a section lies, and the order of their trace ids.
 *
 *   keys[]   {trace id, note}   24 bytes a span, sorted by span_notes_sort
 *   notes[]  {request, offset, length, scope, checksum}   20 bytes a span, in the order they came
 *
 * DESIGN: an in-place radix sort from the first byte on ("American flag"), insertion for what is
 * short. A plain qsort costs five times as much, a radix with a second array half as much memory
 * again. Bytes that all ids share (64-bit Zipkin ids are zero in front) cost one look at each id.
 * OWNERSHIP: owns its arrays. THREADS: one at a time. LIMITS: 44 bytes a span.
 */
#ifndef EXPORTERS_BLOCKS_SPAN_NOTES_H
#define EXPORTERS_BLOCKS_SPAN_NOTES_H

#include "base/base.h"

struct span_key {
	uint64_t hi, lo; /* the trace id, big-endian */
	uint32_t note;
	uint32_t len; /* the note's, beside it: notes are far apart once keys are sorted */
};

struct span_note {
	uint32_t request;  /* number of the request, as they came */
	uint32_t off, len; /* of the Span message in it */
	uint32_t scope;    /* in the builder's head table */
	uint32_t check;    /* of the bytes: they are read again later */
};

enum { SPAN_NOTE_BYTES = sizeof(struct span_key) + sizeof(struct span_note) };

struct span_notes {
	struct span_key *keys;
	struct span_note *notes;
	size_t n, cap;
};

/* Room for n spans in all. */
void span_notes_reserve(struct span_notes *s, size_t n);
/* hi, lo: the trace id, big-endian. */
void span_notes_add(struct span_notes *s, uint64_t hi, uint64_t lo, const struct span_note *note);
void span_notes_sort(struct span_notes *s);
/* End of the run of equal trace ids that starts at key i. */
size_t span_notes_trace_end(const struct span_notes *s, size_t i);
size_t span_notes_memory(const struct span_notes *s);
void span_notes_fini(struct span_notes *s);

#endif
