/* SPDX-License-Identifier: Apache-2.0
 *
 * trace_places.c - see trace_places.h. The queriers of a front end: front_end.c.
 */
#include "query/trace_places.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "query/trace_asking.h"

#include <stdio.h>

/* ---- what is sent ---- */

/* "a|b|c" */
static void join_tenants(const struct trace_request *r, struct buf *out)
{
	for (size_t i = 0; i < r->n_tenants; i++) {
		if (i > 0)
			buf_add_char(out, '|');
		buf_add_str(out, r->tenants[i]);
	}
}

void trace_ask(const struct trace_asking *a, struct peers *p, struct peer_call *calls, size_t n,
	       bool is_leaf)
{
	struct buf tenants = BUF_INIT;
	struct http_header headers[2];
	size_t n_headers = 0;

	join_tenants(a->request, &tenants);
	headers[n_headers++] = (struct http_header){ "X-Scope-OrgID", buf_cstr(&tenants) };
	if (is_leaf)
		headers[n_headers++] = (struct http_header){ PEER_LEAF_HEADER, "1" };
	peers_call(p, calls, n, headers, n_headers);
	buf_fini(&tenants);
}

void trace_ask_path(const struct trace_asking *a, const char *query, char out[PEER_PATH])
{
	char hex[33];

	str_hex(a->request->id, 16, hex);
	snprintf(out, PEER_PATH, "/querier/api/traces/%s?%s", hex, query);
}

/* ---- what is answered ---- */

/* The list of blocks must be younger than what this answer reaches back to. */
static void note_reach(struct trace_asking *a, const struct peer_call *c)
{
	uint64_t age_ns;

	if (c->live_ms == PEER_LIVE_UNSAID)
		return;
	age_ns = MIN(c->live_ms, UINT64_MAX / NS_PER_MS - 1) * NS_PER_MS;
	a->live_since_ns = MAX(a->live_since_ns, c->answered_ns - MIN(age_ns, c->answered_ns));
}

int trace_take(struct trace_asking *a, struct peers *p, struct peer_call *c, struct err *err)
{
	struct trace_by_id *t = a->trace;
	struct tempo_answer answer;

	if (c->err.kind == ERR_NONE &&
	    tempo_answer_parse(buf_bytes(&c->body), a->request->id, &answer, &c->err) < 0)
		err_wrap(&c->err, "%s %.100s", peers_what(p), c->peer->address);
	if (c->err.kind != ERR_NONE)
		return 0;
	note_reach(a, c);
	t->inspected_bytes += answer.inspected_bytes;
	if (answer.is_partial && !t->keep_what_fits &&
	    str_has_prefix(answer.message, TRACE_TOO_LARGE_TEXT))
		return err_set(err, ERR_TOO_LARGE, "%s", answer.message);
	if (answer.is_partial)
		trace_by_id_incomplete(t, "%s %.100s: %.130s", peers_what(p), c->peer->address,
				       answer.message);
	return trace_by_id_add(t, answer.trace, err);
}

/* ---- builders ---- */

static int take_all(struct trace_asking *a, struct peers *p, struct peer_call *calls, size_t n,
		    struct err *err)
{
	int ret = 0;

	for (size_t i = 0; i < n; i++) {
		if (ret == 0)
			ret = trace_take(a, p, &calls[i], err);
		if (calls[i].err.kind != ERR_NONE)
			trace_by_id_incomplete(a->trace, "%s", calls[i].err.msg);
		peer_call_fini(&calls[i]);
	}
	return ret;
}

static int ask_builders(struct trace_asking *a, struct peers *builders, struct err *err)
{
	struct peer_list list;
	struct peer_call *calls;
	int ret;

	peers_snapshot(builders, &list);
	a->live_since_ns = MAX(a->live_since_ns, list.left_ns);
	calls = xcalloc(list.n + 1, sizeof(*calls));
	for (size_t i = 0; i < list.n; i++) {
		calls[i].peer = list.v[i];
		trace_ask_path(a, "mode=ingesters", calls[i].path);
	}
	if (list.missing[0] != '\0')
		trace_by_id_incomplete(a->trace, "%s", list.missing);
	trace_ask(a, builders, calls, list.n, true);
	ret = take_all(a, builders, calls, list.n, err);
	free(calls);
	peer_list_fini(&list);
	return ret;
}

/* ---- one's own store ---- */

static int ask_store(struct trace_asking *a, struct store *s, const struct store_scope *scope,
		     struct err *err)
{
	const struct trace_request *r = a->request;

	for (size_t i = 0; i < r->n_tenants; i++) {
		uint64_t since_ns = 0;

		if (a->is_gone != NULL && atomic_load(a->is_gone))
			return err_set(err, ERR_UNAVAILABLE, "nobody waits for the answer");
		if (trace_by_id_find_in(s, scope, r->tenants[i], r->id, a->trace, &since_ns, err) <
		    0)
			return -1;
		if (scope->live)
			a->live_since_ns = MAX(a->live_since_ns, since_ns);
	}
	return 0;
}

/* ---- all ---- */

static int ask_live(struct trace_asking *a, const struct trace_places *p, struct err *err)
{
	if (p->builders != NULL && !a->request->is_leaf)
		return ask_builders(a, p->builders, err);
	/* A front end that knows no builders: its queriers may. */
	if (p->queriers != NULL && p->builders == NULL && !a->request->is_internal)
		return front_end_ask_live(a, p->queriers, err);
	return 0;
}

int trace_places_find(const struct trace_places *p, const struct trace_request *r,
		      struct trace_by_id *t, uint64_t *live_since_ns, const _Atomic bool *is_gone,
		      struct err *err)
{
	struct trace_asking a = { .request = r, .trace = t, .is_gone = is_gone };
	bool is_front_end = p->queriers != NULL && !r->is_internal;
	struct store_scope own = r->scope;
	int ret = 0;

	if (r->scope.live)
		ret = ask_live(&a, p, err);
	own.is_gone = is_gone;
	own.blocks = r->scope.blocks && !is_front_end;
	own.listed_since_ns = MAX(own.listed_since_ns, a.live_since_ns);
	if (ret == 0 && p->store != NULL && (own.live || own.blocks))
		ret = ask_store(&a, p->store, &own, err);
	if (ret == 0 && r->scope.blocks && is_front_end)
		ret = front_end_ask_blocks(&a, p->queriers, err);
	*live_since_ns = a.live_since_ns;
	return ret;
}
