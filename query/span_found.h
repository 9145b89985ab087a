/* SPDX-License-Identifier: Apache-2.0
 *
 * span_found.h - the query API as a struct span_lookup: the look-up of GET /api/traces/<id>, on the
 * caller's thread, judged for one span.
 */
#ifndef QUERY_SPAN_FOUND_H
#define QUERY_SPAN_FOUND_H

#include "pipeline/span/lookup.h"
#include "query/api.h"

struct span_found_lookup {
	struct span_lookup lookup; /* first */
	struct query_api *api;
};

/* `api` must outlive all calls. */
void span_found_init(struct span_found_lookup *l, struct query_api *api);

#endif
