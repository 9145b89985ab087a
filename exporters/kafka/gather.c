/* SPDX-License-Identifier: Apache-2.0
 *
 * gather.c - see gather.h.
 */
#include "exporters/kafka/gather.h"

#include "base/clock.h"
#include "base/mem.h"
#include "wire/otlp_encode.h"

#include <stdio.h>
#include <stdlib.h>

/* Of a record batch with one record (Kafka protocol, record batch version 2): the batch's head 61;
 * of the record its length, attributes, timestamp, offset, lengths of key and value, number of
 * headers: at most 31; of a header two lengths: at most 10. */
enum { BATCH_HEAD_BYTES = 61, RECORD_HEAD_BYTES = 31, HEADER_HEAD_BYTES = 10, SIZE_MIN = 4096 };

/* ---- routes ---- */

static size_t overhead(const struct gather *g, const char *tenant)
{
	return BATCH_HEAD_BYTES + RECORD_HEAD_BYTES + (g->o.by_trace ? TRACE_KEY_BYTES : 0) +
	       g->o.header_bytes + HEADER_HEAD_BYTES + strlen("tenant") + strlen(tenant);
}

static void size_route(struct route *r)
{
	uint32_t n = r->topic->n_partitions;

	if (n <= r->n_at)
		return;
	r->at = xrealloc(r->at, n * sizeof(*r->at));
	memset(r->at + r->n_at, 0, (n - r->n_at) * sizeof(*r->at));
	r->n_at = n;
}

/* "topic\0tenant": no topic has a NUL in it. */
static struct bytes route_key(char out[512], const struct topic *topic, const char *tenant)
{
	int n = snprintf(out, 512, "%s%c%s", topic->name, '\0', tenant);

	return (struct bytes){ (const uint8_t *)out, (size_t)n };
}

static void route_free(struct route *r)
{
	free(r->at);
	free(r);
}

static bool is_idle(const struct route *r)
{
	return r->n_records == 0 && r->hold == NULL;
}

/* Tenants come and go. */
static void forget_idle_routes(struct gather *g)
{
	struct bytes key;
	size_t pos = 0;
	void *value;

	while (map_next(&g->routes, &pos, &key, &value))
		if (is_idle(value)) {
			map_remove(&g->routes, key);
			route_free(value);
		}
}

struct route *gather_route(struct gather *g, struct topic *topic, const char *tenant)
{
	char key[512];
	struct route *r = map_find(&g->routes, route_key(key, topic, tenant));

	if (r == NULL) {
		if (g->routes.n >= ROUTES_IDLE_MAX)
			forget_idle_routes(g);
		r = xcalloc(1, sizeof(*r));
		r->topic = topic;
		r->overhead = overhead(g, tenant);
		snprintf(r->tenant, sizeof(r->tenant), "%s", tenant);
		map_set(&g->routes, route_key(key, topic, tenant), r);
	}
	size_route(r);
	return r;
}

size_t gather_limit(const struct gather *g, const struct route *r)
{
	uint64_t max = MIN(g->o.max_bytes, r->topic->max_bytes);

	return max > r->overhead ? (size_t)(max - r->overhead) : 0;
}

/* ---- records on their way out ---- */

static void add_ready(struct gather *g, struct record *rec)
{
	*(g->last_ready ? &g->last_ready->next : &g->ready) = rec;
	g->last_ready = rec;
}

struct record *gather_next(struct gather *g)
{
	struct record *rec = g->ready;

	if (rec == NULL)
		return NULL;
	g->ready = rec->next;
	if (g->ready == NULL)
		g->last_ready = NULL;
	rec->next = NULL;
	return rec;
}

/* A record of some spans of a batch, without company. */
static struct record *alone(struct gather *g, struct route *route, int32_t partition,
			    const struct batch *b, const uint32_t *pick, uint32_t n)
{
	size_t size = otlp_encoded_size(&b->tables, pick, n);
	struct record *rec = record_new(g->o.pool, route, partition, size);

	record_append(rec, b, &b->tables, pick, n, size);
	return rec;
}

/* ---- requests that are held, into records ---- */

/* What stands together: spans of one partition, or of one trace. */
struct cutting {
	struct gather *g;
	struct route *route;
	struct hold *hold;
	size_t limit, max; /* of a record's value; of one that could be cut */
};

/* Unknown fields of the request itself go with the first of its runs that goes. */
static void take_extras(const struct cutting *c, struct otlp_run *r)
{
	struct held_batch *from = &c->hold->batches[r->source];

	if (!from->extras)
		return;
	r->extras = true;
	from->extras = false;
}

static void leave_extras(const struct cutting *c, struct otlp_run *r)
{
	c->hold->batches[r->source].extras |= r->extras;
	r->extras = false;
}

static void out(const struct cutting *c, struct otlp_run *const *v, size_t n, size_t size)
{
	struct record *rec = hold_record(c->hold, c->g->o.pool, c->route, v, n, size);

	rec->due_ns = c->route->due_ns;
	if (c->g->o.by_trace) {
		rec->has_key = true;
		memcpy(rec->trace_id, v[0]->t->spans[v[0]->first].trace_id, 16);
	}
	add_ready(c->g, rec);
}

/* A run that passes the limit alone: its halves, or its span. */
static void out_large(const struct cutting *c, struct otlp_run *r, size_t size)
{
	struct otlp_join_size without = { 0 };
	struct otlp_run rest, *halves[] = { r, &rest };

	leave_extras(c, r);
	if (r->n == 1) {
		if (otlp_join_add_size(&c->hold->join, &without, r) <= c->limit)
			out(c, &r, 1, otlp_join_add_size(&c->hold->join, &without, r));
		else
			c->g->o.too_large(c->g->o.arg, c->route, c->hold->batches[r->source].b,
					  r->first, size);
		return;
	}
	otlp_run_halve(r, &rest);
	for (size_t i = 0; i < COUNT_OF(halves); i++) {
		struct otlp_join_size s = { 0 };

		take_extras(c, halves[i]);
		size = otlp_join_add_size(&c->hold->join, &s, halves[i]);
		if (size > c->limit)
			out_large(c, halves[i], size);
		else
			out(c, &halves[i], 1, size);
	}
}

/* How large a record of v should become so that all are much the same. */
static size_t even_size(const struct cutting *c, struct otlp_run *const *v, size_t n)
{
	struct otlp_join_size s = { 0 };
	size_t all = 0;

	for (size_t i = 0; i < n; i++)
		all = otlp_join_add_size(&c->hold->join, &s, v[i]);
	return all <= c->max ? all : all / (all / (c->max - c->max / 8) + 1);
}

/* Runs that stand together, as few records. */
static void cut(const struct cutting *c, struct otlp_run *const *v, size_t n)
{
	size_t first = 0, size = 0, grown, goal = even_size(c, v, n);
	struct otlp_join_size s = { 0 }, with;

	for (size_t i = 0; i < n; i++) {
		take_extras(c, v[i]);
		with = s;
		grown = otlp_join_add_size(&c->hold->join, &with, v[i]);
		if (i > first && (grown > c->max || size >= goal)) {
			out(c, v + first, i - first, size);
			first = i;
			with = (struct otlp_join_size){ 0 };
			grown = otlp_join_add_size(&c->hold->join, &with, v[i]);
		}
		s = with;
		size = grown;
		if (size > c->limit) {
			out_large(c, v[i], size);
			first = i + 1;
			s = (struct otlp_join_size){ 0 };
		}
	}
	if (first < n)
		out(c, v + first, n - first, size);
}

static bool stand_together(const struct gather *g, const struct otlp_run *a,
			   const struct otlp_run *b)
{
	return a->group == b->group &&
	       (!g->o.by_trace ||
		memcmp(a->t->spans[a->first].trace_id, b->t->spans[b->first].trace_id, 16) == 0);
}

static void unlink_holding(struct gather *g, struct route *r)
{
	*(r->prev ? &r->prev->next : &g->oldest) = r->next;
	*(r->next ? &r->next->prev : &g->newest) = r->prev;
	r->next = r->prev = NULL;
}

/* Its memory serves the next one. */
static void put_away(struct gather *g, struct hold *h)
{
	hold_clear(h);
	if (g->spare == NULL) {
		g->spare = h;
	} else {
		hold_fini(h);
		free(h);
	}
}

/* What a route holds is ready. */
static void seal(struct gather *g, struct route *route)
{
	struct hold *h = route->hold;
	struct cutting c = { g, route, h, gather_limit(g, route), 0 };
	struct otlp_run *const *v = hold_sort(h, route->n_at, g->o.by_trace);

	c.max = MIN(c.limit, (size_t)RECORD_MAX_BYTES);
	unlink_holding(g, route);
	route->hold = NULL;
	g->n_pinned -= h->n_pinned;
	for (size_t i = 0, end; i < h->n_runs; i = end) {
		for (end = i + 1; end < h->n_runs && stand_together(g, v[i], v[end]);)
			end++;
		cut(&c, v + i, end - i);
	}
	for (size_t i = 0; i < h->n_batches; i++)
		if (h->batches[i].partition >= 0)
			route->at[h->batches[i].partition].n_records--;
	put_away(g, h);
}

static void set_timer(struct gather *g)
{
	uint64_t now = clock_mono_ns();

	if (g->oldest == NULL || loop_timer_is_active(&g->timer))
		return;
	loop_timer_start(g->o.loop, &g->timer,
			 g->oldest->due_ns > now ? (g->oldest->due_ns - now) / NS_PER_MS + 1 : 0);
}

static void seal_due(void *arg)
{
	struct gather *g = arg;
	uint64_t now = clock_mono_ns();

	while (g->oldest != NULL && g->oldest->due_ns <= now)
		seal(g, g->oldest);
	set_timer(g);
	g->o.ready(g->o.arg);
}

void gather_flush(struct gather *g)
{
	while (g->oldest != NULL)
		seal(g, g->oldest);
}

void gather_halve(struct gather *g, struct record *rec)
{
	struct record whole = *rec; /* where it goes, and its key */
	struct batch *b = record_to_batch(rec);
	uint32_t n = b->tables.n_spans, half = n / 2;

	g->pick = xgrow(g->pick, &g->cap_pick, n, sizeof(*g->pick));
	for (uint32_t i = 0; i < n; i++)
		g->pick[i] = i;
	for (uint32_t first = 0; first < n; first += half, half = n - half) {
		rec = alone(g, whole.route, whole.partition, b, g->pick + first, half);
		rec->has_key = whole.has_key;
		memcpy(rec->trace_id, whole.trace_id, 16);
		b->tables.n_extras = 0;
		add_ready(g, rec);
	}
	batch_unref(b);
}

/* ---- spans coming in ---- */

static struct hold *open_hold(struct gather *g, struct route *r)
{
	if (r->hold != NULL)
		return r->hold;
	r->hold = g->spare ? g->spare : xcalloc(1, sizeof(*r->hold));
	g->spare = NULL;
	r->due_ns = clock_mono_ns() + g->o.linger_ns;
	r->prev = g->newest;
	*(g->newest ? &g->newest->next : &g->oldest) = r;
	g->newest = r;
	return r->hold;
}

/* The partition of a whole request. */
static uint32_t one_partition(struct gather *g, struct route *r)
{
	uint32_t n = r->topic->n_partitions, best;

	if (g->o.spread == SPREAD_ROUND_ROBIN)
		return r->turn++ % n;
	best = r->turn++ % n;
	for (uint32_t p = 0; p < n; p++)
		if (r->at[p].n_records < r->at[best].n_records)
			best = p;
	return best;
}

struct choice {
	enum hasher hasher;
	uint32_t n_partitions;
};

static uint32_t choose(void *arg, const uint8_t trace_id[16])
{
	const struct choice *c = arg;

	return partitioner_choose(c->hasher, trace_id, c->n_partitions);
}

/* How much of a route is held at most: then most partitions have a record of good size. */
static size_t enough(const struct gather *g, const struct route *r)
{
	size_t n = (size_t)r->topic->n_partitions * RECORD_TARGET_BYTES;

	return g->hold_max > 0 ? MIN(n, g->hold_max) : n;
}

void gather_add(struct gather *g, struct route *route, struct batch *b, const uint32_t *pick,
		uint32_t n, bool extras)
{
	struct choice choice = { g->o.hasher, route->topic->n_partitions };
	struct hold *h = open_hold(g, route);
	struct hold_spread s = { .partition = -1,
				 .choose = choose,
				 .arg = &choice,
				 .run_bytes = (uint32_t)MIN(gather_limit(g, route) / 4,
							    (size_t)RUN_MAX_BYTES),
				 .by_trace = g->o.by_trace };

	if (g->o.spread != SPREAD_BY_TRACE) {
		s.partition = (int32_t)one_partition(g, route);
		route->at[s.partition].n_records++;
	}
	g->n_pinned -= h->n_pinned;
	hold_add(h, b, pick, n, extras, &s);
	g->n_pinned += h->n_pinned;
	if (h->n_bytes >= enough(g, route))
		seal(g, route);
	set_timer(g);
}

/* ---- life ---- */

void gather_init(struct gather *g, const struct gather_settings *o)
{
	*g = (struct gather){ .o = *o };
	g->timer = (struct loop_timer){ .fn = seal_due, .arg = g };
}

void gather_fini(struct gather *g)
{
	size_t pos = 0;
	struct bytes key;
	void *route;

	assert(g->oldest == NULL && g->ready == NULL);
	if (g->timer.slot != 0)
		loop_timer_stop(g->o.loop, &g->timer);
	while (map_next(&g->routes, &pos, &key, &route))
		route_free(route);
	map_fini(&g->routes);
	if (g->spare != NULL)
		hold_fini(g->spare);
	free(g->spare);
	free(g->pick);
	*g = (struct gather){ 0 };
}
