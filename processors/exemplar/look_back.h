/* SPDX-License-Identifier: Apache-2.0
 *
 * look_back.h - the other way in: traces that the exemplars of applications' own metrics name.
 *
 *   metrics come: ids --> named (the last ones, max_age) --> spans that come later are kept
 *                  '----> passed (batches, max_age, max_bytes) --> spans of these traces that a
 *                         sampler of this process dropped: taken out, and sent again
 *
 * The instances of one processor id in pipelines of traces and of metrics share one look_back, from
 * the start of the first to the shutdown of the last.
 *
 * Passed batches are held, not copied: their bytes stay in the budget. They go when they are old,
 * when they are more than max_bytes, and when the budget gets low.
 * OWNERSHIP: counted by instances. THREADS: any; one lock, taken once per batch and only while
 * there is something to look for. LIMITS: 65,536 ids; max_bytes.
 */
#ifndef PROCESSORS_EXEMPLAR_LOOK_BACK_H
#define PROCESSORS_EXEMPLAR_LOOK_BACK_H

#include "pipeline/component.h"

struct look_back;

struct look_back_limits {
	int64_t max_age_ns;
	uint64_t max_bytes; /* 0: nothing is held */
};

/* The one of this processor id; `c` is an instance. The limits of the last who came count. */
struct look_back *look_back_open(struct component *c, const struct look_back_limits *limits);
/* Lets go of what c passed. Afterwards nothing is emitted through c, nor is it touched. */
void look_back_close(struct look_back *l, struct component *c);
/* c ends: nothing more is emitted through it. */
void look_back_drain(struct look_back *l, struct component *c);

/* Is there a metrics side, so that passed spans may be asked for? */
bool look_back_is_fed(const struct look_back *l);
/* Is any trace named? Without a lock. */
bool look_back_has_names(const struct look_back *l);
/* keep[i] = 1 for spans of traces that are named. */
void look_back_mark(struct look_back *l, const struct batch *b, uint8_t *keep);
/* Traces pass through c: remember them. `ratio`: the least that samplers of the process keep; only
 * what they drop is of interest. Borrows b. */
void look_back_pass(struct look_back *l, struct component *c, struct batch *b, double ratio);
/* A batch of metrics: name the traces of its exemplars, and send their spans again. Borrows b. */
void look_back_name(struct look_back *l, const struct batch *b);

/* For metrics: ids named now, bytes held, spans sent again so far. */
struct look_back_stats {
	uint64_t n_named, n_bytes, n_again;
};
/* False: another instance than c tells. */
bool look_back_stats(struct look_back *l, const struct component *c, struct look_back_stats *out);

#endif
