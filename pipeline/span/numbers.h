/* SPDX-License-Identifier: Apache-2.0
 *
 * numbers.h - so that a span which several logs hold counts once after a restart too.
 *
 * While a process runs, origin.marks says which log was first to hold a span. They die with it. So
 * the spans of a request that is fanned out get numbers (origin_number), unique with the process's
 * epoch; a log writes the numbers of a record's spans behind it, and what logs find at start is
 * counted by whoever meets a number first.
 *
 *   trailer: [u64 epoch LE] then stretches of numbers: [zigzag varint first - end of the last]
 *            [varint how many]
 *
 * The set of numbers met is kept while somebody counts (begin .. end): one interval per stretch
 * that is not next to another. Requests come in order, so these stay few.
 * THREADS: any.
 * LIMITS: a trailer of 65,535 bytes; 256 Ki intervals (4 MiB). What is over one of the two counts
 * as if no other log had it: rather too high than too low.
 * SPEC: docs/formats/batch-record.md; docs/decisions/022.
 */
#ifndef PIPELINE_SPAN_NUMBERS_H
#define PIPELINE_SPAN_NUMBERS_H

#include "base/arena.h"
#include "base/base.h"

struct batch;

/* The trailer for a record of b, in the arena; empty when none of its spans was fanned out. */
struct bytes span_numbers_encode(const struct batch *b, struct arena *arena);

/* From here to the matching _end what is met is remembered. They nest. */
void span_numbers_begin(void);
void span_numbers_end(void);
/* Of a record of n_spans: those that nobody has counted since _begin. A damaged trailer counts as
 * none. */
uint32_t span_numbers_count(struct bytes trailer, uint32_t n_spans);

#endif
