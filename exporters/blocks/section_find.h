/* SPDX-License-Identifier: Apache-2.0
 *
 * section_find.h - look-ups in live sections, shared by the log's and the streams' look-up.
 *
 * First collect positions, under the lock of whoever owns the sections; then read the records
 * without it and give the trace's spans of each.
 */
#ifndef EXPORTERS_BLOCKS_SECTION_FIND_H
#define EXPORTERS_BLOCKS_SECTION_FIND_H

#include "blocks/store.h"
#include "exporters/blocks/live_section.h"

struct section_positions {
	struct segment_position *v; /* free() */
	size_t n, cap;
};

/* Add where the trace is, for s and the sections behind it, oldest first. */
void section_find_collect(const struct live_section *s, const char *tenant, const uint8_t id[16],
			  struct section_positions *out);
/* The trace's spans of one request as one piece of TracesData; none when it has none. */
int section_find_give(struct bytes otlp, const uint8_t id[16], store_piece_fn *piece, void *arg,
		      struct err *err);

#endif
