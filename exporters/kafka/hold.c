/* SPDX-License-Identifier: Apache-2.0
 *
 * hold.c - see hold.h.
 */
#include "exporters/kafka/hold.h"

#include "base/mem.h"
#include "wire/otlp_encode.h"

#include <stdlib.h>

/* A request that keeps more than SPARSE times what is taken of it is copied out, unless it is
 * small: then the copy would keep as much. */
enum { SPARSE = 4, SPARSE_MIN_BYTES = 32 * 1024 };

/* ---- coming in ---- */

/* What b keeps in memory. A buffer that others keep too counts in part. */
static size_t pinned(const struct batch *b)
{
	size_t n = b->index_bytes;

	for (uint32_t i = 0; i < b->n_sources; i++)
		n += b->sources[i]->charged / MAX(atomic_load(&b->sources[i]->refs), 1u);
	return n;
}

/* Asked once per scope of the batch. */
static uint32_t scope_number(struct hold *h, const struct batch *b, uint32_t scope)
{
	if (h->scopes[scope] == 0)
		h->scopes[scope] = 1 + otlp_join_scope(&h->join, &b->tables, scope);
	return h->scopes[scope] - 1;
}

static struct otlp_run *start_run(struct hold *h, const struct batch *b, uint32_t i,
				  uint32_t partition)
{
	struct otlp_run *r;

	h->runs = xgrow(h->runs, &h->cap_runs, h->n_runs + 1, sizeof(*h->runs));
	r = &h->runs[h->n_runs++];
	otlp_run_start(r, &b->tables, i);
	r->scope = scope_number(h, b, b->tables.spans[i].scope);
	r->source = (uint32_t)h->n_batches;
	r->group = partition;
	return r;
}

/* Returns the bytes of the runs. Spans of one trace often stand side by side. */
static size_t add_runs(struct hold *h, const struct batch *b, const uint32_t *pick, uint32_t n,
		       const struct hold_spread *s)
{
	const struct span_ref *last = NULL, *sp;
	uint32_t partition = (uint32_t)s->partition, i;
	struct otlp_run *r = NULL;
	size_t bytes = 0;
	bool is_same;

	h->scopes = xgrow(h->scopes, &h->cap_scopes, b->tables.n_scopes, sizeof(*h->scopes));
	memset(h->scopes, 0, b->tables.n_scopes * sizeof(*h->scopes));
	for (uint32_t k = 0; k < n; k++, last = sp) {
		i = pick ? pick[k] : k;
		sp = &b->tables.spans[i];
		is_same = last != NULL && memcmp(last->trace_id, sp->trace_id, 16) == 0;
		if (!is_same && s->partition < 0)
			partition = s->choose(s->arg, sp->trace_id);
		if (r != NULL && r->group == partition && (is_same || !s->by_trace) &&
		    otlp_run_extend(r, i, s->run_bytes))
			continue;
		bytes += r ? r->bytes : 0;
		r = start_run(h, b, i, partition);
	}
	return bytes + (r ? r->bytes : 0);
}

/* The same spans, and their duty, in a buffer of their own. */
static struct batch *copied_out(const struct batch *b, const uint32_t *pick, uint32_t n,
				bool extras)
{
	struct span_tables t = b->tables;
	struct otlp_result result = { 0 };
	struct span_debt debt = { 0 };
	struct rcbuf *buf;
	struct batch *copy;

	if (!extras)
		t.n_extras = 0;
	buf = rcbuf_new_forced(b->budget, otlp_encoded_size(&t, pick, n));
	buf->n = (size_t)(otlp_write(&t, pick, n, buf->p) - buf->p);
	span_debt_take(&debt, b, pick, n);
	copy = batch_from_request(b->signal, buf, b->tenant, NULL, &result, NULL);
	/* It was an index of these very bytes that let them in. */
	assert(copy != NULL && result.rejects.n == 0);
	span_debt_to_batch(&debt, copy);
	span_debt_fini(&debt);
	return copy;
}

void hold_add(struct hold *h, struct batch *b, const uint32_t *pick, uint32_t n, bool extras,
	      const struct hold_spread *s)
{
	size_t first = h->n_runs, bytes = add_runs(h, b, pick, n, s), keeps = pinned(b);

	if (n == 0)
		return;
	if (keeps > SPARSE_MIN_BYTES && bytes < keeps / SPARSE) {
		b = copied_out(b, pick, n, extras);
		h->n_runs = first;
		bytes = add_runs(h, b, NULL, n, s);
		keeps = pinned(b);
	} else {
		batch_ref(b);
	}
	h->n_bytes += bytes;
	h->n_pinned += keeps;
	h->batches = xgrow(h->batches, &h->cap_batches, h->n_batches + 1, sizeof(*h->batches));
	h->batches[h->n_batches++] =
		(struct held_batch){ b, s->partition, extras && b->tables.n_extras > 0 };
}

/* ---- going out ---- */

enum key { KEY_SCOPE, KEY_RESOURCE, KEY_PARTITION };

static uint32_t key_of(const struct hold *h, const struct otlp_run *r, enum key key)
{
	return key == KEY_SCOPE      ? r->scope
	       : key == KEY_RESOURCE ? otlp_join_resource(&h->join, r->scope)
				     : r->group;
}

/* A stable counting sort from order[] to other[], which then change places. */
static void sort_by(struct hold *h, enum key key, size_t n_keys)
{
	struct otlp_run **sorted = h->other;
	uint32_t sum = 0, here;

	if (n_keys < 2)
		return;
	h->count = xgrow(h->count, &h->cap_count, n_keys, sizeof(*h->count));
	memset(h->count, 0, n_keys * sizeof(*h->count));
	for (size_t i = 0; i < h->n_runs; i++)
		h->count[key_of(h, h->order[i], key)]++;
	for (size_t k = 0; k < n_keys; k++) {
		here = h->count[k];
		h->count[k] = sum;
		sum += here;
	}
	for (size_t i = 0; i < h->n_runs; i++)
		sorted[h->count[key_of(h, h->order[i], key)]++] = h->order[i];
	h->other = h->order;
	h->order = sorted;
}

static int compare(uint64_t a, uint64_t b)
{
	return (a > b) - (a < b);
}

/* By partition, trace id and what hold_sort says. Runs lie in the order they came in. */
static int by_trace_id(const void *a, const void *b, void *arg)
{
	const struct otlp_run *r = *(const struct otlp_run *const *)a,
			      *q = *(const struct otlp_run *const *)b;
	const struct hold *h = arg;
	int d = compare(r->group, q->group);

	d = d ? d : memcmp(r->t->spans[r->first].trace_id, q->t->spans[q->first].trace_id, 16);
	d = d ? d : compare(key_of(h, r, KEY_RESOURCE), key_of(h, q, KEY_RESOURCE));
	d = d ? d : compare(r->scope, q->scope);
	return d ? d : compare((uintptr_t)r, (uintptr_t)q);
}

struct otlp_run *const *hold_sort(struct hold *h, uint32_t n_partitions, bool by_trace)
{
	size_t cap = h->cap_order;

	h->order = xgrow(h->order, &h->cap_order, h->n_runs, sizeof(*h->order));
	h->other = xgrow(h->other, &cap, h->n_runs, sizeof(*h->other));
	for (size_t i = 0; i < h->n_runs; i++)
		h->order[i] = &h->runs[i];
	if (by_trace) {
		qsort_r(h->order, h->n_runs, sizeof(*h->order), by_trace_id, h);
	} else {
		sort_by(h, KEY_SCOPE, h->join.n_scopes);
		sort_by(h, KEY_RESOURCE, h->join.n_resources);
		sort_by(h, KEY_PARTITION, n_partitions);
	}
	return h->order;
}

static uint32_t points_of(const struct otlp_run *r)
{
	uint32_t n = 0;

	for (uint32_t i = r->first; i < r->first + r->n; i++)
		n += r->t->spans[i].n_points;
	return n;
}

struct record *hold_record(const struct hold *h, struct record_pool *pool, struct route *route,
			   struct otlp_run *const *v, size_t n, size_t size)
{
	struct record *rec = record_new(pool, route, (int32_t)v[0]->group, size);
	uint8_t *end = otlp_join_write(&h->join, v, n, rec->otlp->p);

	assert(end == rec->otlp->p + size);
	(void)end;
	rec->otlp->n = size;
	for (size_t i = 0; pool->signal == OTLP_METRICS && i < n; i++)
		rec->n_points += points_of(v[i]);
	for (size_t i = 0; i < n; i++)
		span_debt_take_run(&rec->debt, h->batches[v[i]->source].b, v[i]->origin,
				   v[i]->ordinal, v[i]->n);
	return rec;
}

void hold_clear(struct hold *h)
{
	for (size_t i = 0; i < h->n_batches; i++)
		batch_unref(h->batches[i].b);
	otlp_join_fini(&h->join);
	h->n_runs = h->n_batches = h->n_bytes = h->n_pinned = 0;
}

void hold_fini(struct hold *h)
{
	hold_clear(h);
	free(h->runs);
	free(h->batches);
	free(h->order);
	free(h->other);
	free(h->count);
	free(h->scopes);
}
