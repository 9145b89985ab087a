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

enum { FETCH_BYTES = 1024 };

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

/* Tenants come and go. */
static void forget_idle_routes(struct gather *g)
{
	struct bytes key;
	size_t pos = 0;
	void *value;

	while (map_next(&g->routes, &pos, &key, &value))
		if (((struct route *)value)->n_records == 0) {
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

static void unlink_open(struct gather *g, struct record *rec)
{
	*(rec->prev ? &rec->prev->next : &g->oldest) = rec->next;
	*(rec->next ? &rec->next->prev : &g->newest) = rec->prev;
	rec->next = rec->prev = NULL;
}

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

static int by_trace_id(const void *a, const void *b, void *arg)
{
	const struct span_ref *spans = arg;
	const uint32_t *i = a, *j = b;
	int d = memcmp(spans[*i].trace_id, spans[*j].trace_id, 16);

	return d != 0 ? d : (*i > *j) - (*i < *j);
}

/* One record per trace. Takes rec. */
static void out_by_trace(struct gather *g, struct record *rec)
{
	struct route *route = rec->route;
	int32_t partition = rec->partition;
	struct batch *b = record_to_batch(rec);
	const struct span_ref *spans = b->tables.spans;
	uint32_t n = b->tables.n_spans, end;

	g->pick = xgrow(g->pick, &g->cap_pick, n, sizeof(*g->pick));
	for (uint32_t i = 0; i < n; i++)
		g->pick[i] = i;
	qsort_r(g->pick, n, sizeof(*g->pick), by_trace_id, b->tables.spans);
	for (uint32_t i = 0; i < n; i = end) {
		const uint8_t *id = spans[g->pick[i]].trace_id;

		for (end = i + 1; end < n; end++)
			if (memcmp(spans[g->pick[end]].trace_id, id, 16) != 0)
				break;
		rec = alone(g, route, partition, b, g->pick + i, end - i);
		rec->has_key = true;
		memcpy(rec->trace_id, id, 16);
		add_ready(g, rec);
		b->tables.n_extras = 0; /* they went with the first */
	}
	batch_unref(b);
}

static void seal(struct gather *g, struct record *rec)
{
	struct accumulator *at = &rec->route->at[rec->partition];

	unlink_open(g, rec);
	at->rec = NULL;
	at->hint = (uint32_t)MIN(rec->otlp->n, (size_t)RECORD_TARGET_BYTES);
	if (g->o.by_trace)
		out_by_trace(g, rec);
	else
		add_ready(g, rec);
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

static struct record *open_record(struct gather *g, struct route *route, uint32_t partition,
				  size_t size)
{
	struct accumulator *at = &route->at[partition];
	size_t room = MAX(size, (size_t)SIZE_MIN);

	/* As large as the last one, and a little: most are then never moved. */
	room = MAX(room, MIN((size_t)at->hint + at->hint / 8, (size_t)RECORD_TARGET_BYTES));
	at->rec = record_new(g->o.pool, route, (int32_t)partition, room);
	at->rec->due_ns = clock_mono_ns() + g->o.linger_ns;
	at->rec->prev = g->newest;
	*(g->newest ? &g->newest->next : &g->oldest) = at->rec;
	g->newest = at->rec;
	return at->rec;
}

/* The tables of what is being added, and where to. */
struct adding {
	struct gather *g;
	struct route *route;
	struct batch *b;
	struct span_tables tables; /* without extras once they are out */
	size_t limit;
};

/* Spans of one partition. */
static void add_group(struct adding *a, uint32_t partition, const uint32_t *pick, uint32_t n)
{
	struct gather *g = a->g;
	size_t size = otlp_encoded_size(&a->tables, pick, n);
	struct record *rec = a->route->at[partition].rec;

	if (size > a->limit && n > 1) {
		add_group(a, partition, pick, n / 2);
		add_group(a, partition, pick + n / 2, n - n / 2);
		return;
	}
	if (size > a->limit) {
		g->o.too_large(g->o.arg, a->route, a->b, pick[0], size);
		return;
	}
	if (rec != NULL && rec->otlp->n + size > MIN(a->limit, (size_t)RECORD_TARGET_BYTES)) {
		seal(g, rec);
		rec = NULL;
	}
	if (rec == NULL)
		rec = open_record(g, a->route, partition, size);
	record_append(rec, a->b, &a->tables, pick, n, size);
	a->tables.n_extras = 0;
	if (rec->otlp->n >= RECORD_TARGET_BYTES)
		seal(g, rec);
}

/* Everything to one partition. */
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

/* partition[i] of every span; spans of one trace often stand side by side. */
static void choose_partitions(struct gather *g, struct route *r, const struct batch *b,
			      const uint32_t *pick, uint32_t n)
{
	const struct span_ref *spans = b->tables.spans, *last = NULL;
	uint32_t p = 0;

	if (g->o.spread != SPREAD_BY_TRACE)
		p = one_partition(g, r);
	for (uint32_t i = 0; i < n; i++) {
		const struct span_ref *sp = &spans[pick ? pick[i] : i];

		if (g->o.spread == SPREAD_BY_TRACE &&
		    (last == NULL || memcmp(last->trace_id, sp->trace_id, 16) != 0))
			p = partitioner_choose(g->o.hasher, sp->trace_id, r->topic->n_partitions);
		last = sp;
		g->partition[i] = p;
	}
}

/* order[]: the spans by partition, in the order they came; start[p]: behind those of p. */
static void sort_by_partition(struct gather *g, uint32_t n_partitions, const uint32_t *pick,
			      uint32_t n)
{
	uint32_t sum = 0, here;

	memset(g->start, 0, n_partitions * sizeof(*g->start));
	for (uint32_t i = 0; i < n; i++)
		g->start[g->partition[i]]++;
	for (uint32_t p = 0; p < n_partitions; p++) {
		here = g->start[p];
		g->start[p] = sum;
		sum += here;
	}
	for (uint32_t i = 0; i < n; i++)
		g->order[g->start[g->partition[i]]++] = pick ? pick[i] : i;
}

/* The end of the record that partition p's spans will be copied behind, and the spans: with many
 * partitions nothing of it is in the cache, and all would be waited for in turn. */
static void fetch_ahead(const struct adding *a, uint32_t p, uint32_t first)
{
	const struct gather *g = a->g;
	const struct record *rec = a->route->at[p].rec;
	const uint8_t *to;

	if (g->start[p] == first || rec == NULL)
		return;
	to = rec->otlp->p + rec->otlp->n;
	for (size_t i = 0; i < FETCH_BYTES; i += 64)
		__builtin_prefetch(to + i, 1);
}

void gather_add(struct gather *g, struct route *route, struct batch *b, const uint32_t *pick,
		uint32_t n, bool extras)
{
	uint32_t np = route->topic->n_partitions, first = 0;
	struct adding a = { g, route, b, b->tables, gather_limit(g, route) };

	if (!extras)
		a.tables.n_extras = 0;
	g->partition = xgrow(g->partition, &g->cap_partition, n, sizeof(*g->partition));
	g->order = xgrow(g->order, &g->cap_order, n, sizeof(*g->order));
	g->start = xgrow(g->start, &g->cap_start, np, sizeof(*g->start));
	choose_partitions(g, route, b, pick, n);
	sort_by_partition(g, np, pick, n);
	for (uint32_t p = 0; p < np; p++) {
		if (p + 1 < np)
			fetch_ahead(&a, p + 1, g->start[p]);
		if (g->start[p] > first)
			add_group(&a, p, g->order + first, g->start[p] - first);
		first = g->start[p];
	}
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
	free(g->partition);
	free(g->order);
	free(g->start);
	free(g->pick);
	*g = (struct gather){ 0 };
}
