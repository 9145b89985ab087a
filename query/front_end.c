/* SPDX-License-Identifier: Apache-2.0
 *
 * front_end.c - splits a look-up over queriers: see trace_asking.h.
 *
 *   ids  00000000-... [ querier 0 ][ querier 1 ][ querier 2 ] ...-ffffffff
 *
 * Block ids are random, so equal ranges are equal work. Queriers are in the order of their
 * addresses: the same one is asked for the same blocks, and has their filters in memory.
 */
#include "query/trace_asking.h"

#include "base/clock.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>

/* Range i of n: its first and last id, as UUIDs. Ranges end where the next begins, less one. */
static void range_of(size_t i, size_t n, char first[37], char last[37])
{
	uint64_t step = UINT64_MAX / n, from = step * i;
	uint64_t to = i + 1 == n ? UINT64_MAX : step * (i + 1) - 1;

	snprintf(first, 37, "%08x-%04x-%04x-0000-000000000000", (unsigned)(from >> 32),
		 (unsigned)(from >> 16 & 0xffff), (unsigned)(from & 0xffff));
	snprintf(last, 37, "%08x-%04x-%04x-ffff-ffffffffffff", (unsigned)(to >> 32),
		 (unsigned)(to >> 16 & 0xffff), (unsigned)(to & 0xffff));
}

/* The path of range i; the list of blocks must be as young as what live answers reach back to. */
static void path_of(struct trace_asking *a, size_t i, size_t n, char out[PEER_PATH])
{
	char first[37], last[37], query[PEER_PATH / 2 + 64], age[48] = "";

	range_of(i, n, first, last);
	if (a->live_since_ns > 0)
		snprintf(age, sizeof(age), "&maxListAge=%llu",
			 (unsigned long long)((clock_mono_ns() - a->live_since_ns) / NS_PER_MS));
	snprintf(query, sizeof(query), "mode=blocks&blockStart=%s&blockEnd=%s%s", first, last, age);
	trace_ask_path(a, query, out);
}

/* Calls that failed go to the next querier; what is then left is missing. */
struct round {
	struct peer_list queriers;
	struct peer_call *calls;
	size_t n;
};

static int take_round(struct trace_asking *a, struct peers *p, struct round *r, size_t n,
		      bool is_last, struct err *err)
{
	size_t left = 0;
	int ret = 0;

	for (size_t i = 0; i < n; i++) {
		struct peer_call *c = &r->calls[i];

		if (ret == 0)
			ret = trace_take(a, p, c, err);
		peer_call_fini(c);
		if (c->err.kind == ERR_NONE)
			continue;
		if (is_last)
			trace_by_id_incomplete(a->trace, "%s", c->err.msg);
		r->calls[left++] = *c;
	}
	r->n = left;
	return ret;
}

static size_t index_of(const struct peer_list *l, const struct peer *peer)
{
	size_t i = 0;

	while (i < l->n && l->v[i] != peer)
		i++;
	assert(i < l->n);
	return i;
}

/* Each call that failed goes to the next querier of which no call did; to the next one where none
 * is left. */
static void turn_to_others(struct round *r)
{
	const struct peer_list *all = &r->queriers;
	bool *has_failed = xcalloc(all->n, sizeof(*has_failed));

	for (size_t i = 0; i < r->n; i++)
		has_failed[index_of(all, r->calls[i].peer)] = true;
	for (size_t i = 0; i < r->n; i++) {
		struct peer_call *c = &r->calls[i];
		size_t first = (index_of(all, c->peer) + 1) % all->n, at = first;

		while (has_failed[at] && (at + 1) % all->n != first)
			at = (at + 1) % all->n;
		c->peer = all->v[has_failed[at] ? first : at];
		c->body = (struct buf)BUF_INIT;
		c->is_patient = true;
	}
	free(has_failed);
}

/* Where all are slow (a cold start, a bucket that stumbled), hurry gives no answers at all. */
static void be_patient(struct round *r)
{
	for (size_t i = 0; i < r->queriers.n; i++)
		if (!peer_is_slow(r->queriers.v[i]))
			return;
	for (size_t i = 0; i < r->n; i++)
		r->calls[i].is_patient = true;
}

/* r->n calls, and those that fail once more elsewhere. */
static int ask(struct trace_asking *a, struct peers *p, struct round *r, struct err *err)
{
	bool is_alone = r->queriers.n < 2;
	int ret;

	be_patient(r);
	trace_ask(a, p, r->calls, r->n, false);
	ret = take_round(a, p, r, r->n, is_alone, err);
	if (ret < 0 || is_alone || r->n == 0)
		return ret;
	turn_to_others(r);
	trace_ask(a, p, r->calls, r->n, false);
	return take_round(a, p, r, r->n, true, err);
}

static int begin(struct trace_asking *a, struct peers *p, struct round *r)
{
	*r = (struct round){ .n = 0 };
	peers_snapshot(p, &r->queriers);
	r->calls = xcalloc(r->queriers.n + 1, sizeof(*r->calls));
	if (r->queriers.n == 0)
		trace_by_id_incomplete(a->trace, "%s", r->queriers.missing);
	return r->queriers.n > 0;
}

static void end(struct round *r)
{
	free(r->calls);
	peer_list_fini(&r->queriers);
}

int front_end_ask_blocks(struct trace_asking *a, struct peers *queriers, struct err *err)
{
	struct round r;
	int ret = 0;

	if (begin(a, queriers, &r)) {
		for (r.n = 0; r.n < r.queriers.n; r.n++) {
			r.calls[r.n].peer = r.queriers.v[r.n];
			path_of(a, r.n, r.queriers.n, r.calls[r.n].path);
		}
		ret = ask(a, queriers, &r, err);
	}
	end(&r);
	return ret;
}

int front_end_ask_live(struct trace_asking *a, struct peers *queriers, struct err *err)
{
	struct round r;
	int ret = 0;

	if (begin(a, queriers, &r)) {
		/* Any of them; the trace's id spreads the work. */
		r.calls[0].peer = r.queriers.v[a->request->id[15] % r.queriers.n];
		trace_ask_path(a, "mode=ingesters", r.calls[0].path);
		r.n = 1;
		ret = ask(a, queriers, &r, err);
	}
	end(&r);
	return ret;
}
