/* SPDX-License-Identifier: Apache-2.0
 *
 * trace_places.h - where the pieces of a trace may be, and asking all of them.
 *
 *   live data   one's own (the store's live sources, blocks published a moment ago), and that of
 *               the builders, each asked for what it holds
 *   blocks      one's own store's; in a front end the queriers', each for a range of block ids
 *
 * Live data is asked first. Each live answer says how far back it reaches (peers.h); blocks are
 * then asked of a list that is no older, so that a section that becomes a block meanwhile is seen
 * at least once, however seldom anybody polls. What cannot be asked makes the answer incomplete.
 * THREADS: blocks; any thread. SPEC: docs/decisions/041.
 */
#ifndef QUERY_TRACE_PLACES_H
#define QUERY_TRACE_PLACES_H

#include "query/peers.h"
#include "query/trace_by_id.h"

enum { TRACE_TENANTS = 16, TRACE_TENANT_SIZE = 151 };

struct trace_places {
	struct store *store;    /* NULL: none, a front end */
	struct peers *builders; /* NULL: none are configured */
	struct peers *queriers; /* not NULL: a front end */
};

struct trace_request {
	uint8_t id[16];
	char tenants[TRACE_TENANTS][TRACE_TENANT_SIZE];
	size_t n_tenants;
	struct store_scope scope; /* store_scope_all, or what another node wants of us */
	bool is_internal;         /* it comes from a front end or a query node: no queriers */
	bool is_leaf;             /* from one that asks the builders itself */
};

/* Ask every place. *live_since_ns: how far back the live answers reach (clock_mono_ns); 0: nothing
 * said. Stops early with UNAVAILABLE when *is_gone (may be NULL). Errors as trace_by_id_find. */
int trace_places_find(const struct trace_places *p, const struct trace_request *r,
		      struct trace_by_id *t, uint64_t *live_since_ns, const _Atomic bool *is_gone,
		      struct err *err);

#endif
