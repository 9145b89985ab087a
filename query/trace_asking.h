/* SPDX-License-Identifier: Apache-2.0
 *
 * trace_asking.h - what trace_places.c and front_end.c share; for them only.
 */
#ifndef QUERY_TRACE_ASKING_H
#define QUERY_TRACE_ASKING_H

#include "query/tempo_answer.h"
#include "query/trace_places.h"

/* A look-up at other nodes, under way. */
struct trace_asking {
	const struct trace_request *request;
	struct trace_by_id *trace;
	uint64_t live_since_ns; /* the latest that a live answer said; 0: none did */
	const _Atomic bool *is_gone;
};

/* "/querier/api/traces/<id>?<query>" */
void trace_ask_path(const struct trace_asking *a, const char *query, char out[PEER_PATH]);
/* Send all and wait, as peers_call; for these tenants. */
void trace_ask(const struct trace_asking *a, struct peers *p, struct peer_call *calls, size_t n,
	       bool is_leaf);
/* Take in what was answered. What is no answer is left in c->err, for the caller to say or to ask
 * somebody else. -1 as trace_by_id_find. */
int trace_take(struct trace_asking *a, struct peers *p, struct peer_call *c, struct err *err);

/* Live data, by one of the queriers and its builders. */
int front_end_ask_live(struct trace_asking *a, struct peers *queriers, struct err *err);
/* All blocks, each querier a range of their ids; a range that fails is asked of another querier
 * once. */
int front_end_ask_blocks(struct trace_asking *a, struct peers *queriers, struct err *err);

#endif
