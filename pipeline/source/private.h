/* SPDX-License-Identifier: Apache-2.0
 *
 * private.h - what source.c and sink.c share. No other file includes it.
 */
#ifndef PIPELINE_SOURCE_PRIVATE_H
#define PIPELINE_SOURCE_PRIVATE_H

#include "pipeline/source/source.h"

struct source {
	_Atomic uint32_t refs; /* the receiver, and each range */
	char *name;
	uint32_t partition, n_partitions;
	struct transport_counters *count;
	struct budget *budget;
	_Atomic uint64_t low_watermark;
	pthread_mutex_t lock; /* all below */
	struct source_sink *sinks[SOURCE_SINKS_MAX];
	struct source_range *head, *tail; /* by offset */
	struct source_range *newest;      /* added last; NULL: gone */
	struct source_range *hint;        /* where source_place looked last */
	uint32_t n_under_way, n_refused;  /* ranges */
	uint32_t n_awaited;               /* of the refused ones: source_rewind spoke of them */
	uint64_t committable;
	uint64_t whole_to; /* offsets below must have come for source_is_whole */
	bool has_caught_up;
	bool is_closed;
	struct err why; /* of the last refusal */
};

/* Lock held: let go of what is done with at the head. */
void source_trim(struct source *s);

#endif
