/* SPDX-License-Identifier: Apache-2.0
 *
 * dead_letter.h - spans that no topic takes: to the dead letter topic, or a line in a file.
 *
 * A dead letter is a record of one span with the headers `topic` and `reason`; it counts as
 * delivered once the broker or the disk has it. Without a dead letter configured the span is
 * dropped for good, and said so.
 *
 * THREADS: the exporter's loop; lines are written and synced on a pool thread, one at a time.
 * SPEC: docs/formats/kafka-record.md "Dead letters".
 */
#ifndef EXPORTERS_KAFKA_DEAD_LETTER_H
#define EXPORTERS_KAFKA_DEAD_LETTER_H

#include "exporters/kafka/record.h"
#include "net/loop_work.h"

struct kafka_state;

/* The file and what waits to be written to it. */
struct dead_letter {
	struct record *first, *last;
	struct loop_job job;
	struct loop_timer again;
	_Atomic bool is_writing;
	struct err err; /* of the write under way */
};

/* Span i of b, `size` bytes alone (0: nobody counted), more than `limit`. Takes over its duty. */
void dead_letter_put(struct kafka_state *st, struct route *route, const struct batch *b, uint32_t i,
		     size_t size, size_t limit);
/* The dead letter topic does not take it either. Takes rec. */
void dead_letter_refused(struct kafka_state *st, struct record *rec, const struct err *err);
/* What is not being written is given back as "try again". */
void dead_letter_abort(struct kafka_state *st);

#endif
