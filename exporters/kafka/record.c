/* SPDX-License-Identifier: Apache-2.0
 *
 * record.c - see record.h.
 */
#include "exporters/kafka/record.h"

#include "base/mem.h"
#include "exporters/kafka/gather.h"
#include "wire/otlp_encode.h"

enum { IDLE_MAX = 256 };

/* ---- life ---- */

static void count(struct record *rec, int by)
{
	struct route *route = rec->route;

	route->n_records += (size_t)by;
	if (rec->partition >= 0 && (uint32_t)rec->partition < route->n_at)
		route->at[rec->partition].n_records += (uint32_t)by;
}

struct record *record_new(struct record_pool *pool, struct route *route, int32_t partition,
			  size_t n)
{
	struct record *rec = pool->idle;

	if (rec != NULL) {
		pool->idle = rec->next;
		pool->n_idle--;
	} else {
		rec = xcalloc(1, sizeof(*rec));
	}
	rec->pool = pool;
	rec->next = rec->prev = NULL;
	rec->route = route;
	rec->partition = partition;
	rec->n_points = 0;
	rec->otlp = rcbuf_new_forced(pool->budget, n);
	count(rec, 1);
	pool->n_records++;
	pool->n_bytes += rec->otlp->cap;
	return rec;
}

static void drop_encoded(struct record *rec)
{
	rec->pool->n_bytes -= rec->encoded.cap;
	budget_release(rec->pool->budget, rec->encoded.cap);
	buf_fini(&rec->encoded);
}

static void record_free(struct record *rec)
{
	struct record_pool *pool = rec->pool;
	struct span_debt debt = rec->debt;

	drop_encoded(rec);
	free(rec->reason);
	rec->reason = NULL;
	count(rec, -1);
	pool->n_records--;
	pool->n_bytes -= rec->otlp->cap;
	rcbuf_unref(rec->otlp);
	if (pool->n_idle < IDLE_MAX) {
		*rec = (struct record){ .next = pool->idle, .debt = debt };
		pool->idle = rec;
		pool->n_idle++;
	} else {
		span_debt_fini(&rec->debt);
		free(rec);
	}
}

void record_pool_fini(struct record_pool *pool)
{
	struct record *rec;

	assert(pool->n_records == 0 && pool->n_bytes == 0);
	while ((rec = pool->idle) != NULL) {
		pool->idle = rec->next;
		span_debt_fini(&rec->debt);
		free(rec);
	}
	pool->n_idle = 0;
}

/* ---- spans ---- */

/* Room for `more` bytes; what is there is copied when the buffer is too small. */
static void make_room(struct record *rec, size_t more)
{
	struct rcbuf *old = rec->otlp, *grown;

	if (old->n + more <= old->cap)
		return;
	grown = rcbuf_new_forced(rec->pool->budget, old->n + more);
	memcpy(grown->p, old->p, old->n);
	grown->n = old->n;
	rec->pool->n_bytes += grown->cap - old->cap;
	rec->otlp = grown;
	rcbuf_unref(old);
}

void record_append(struct record *rec, const struct batch *b, const struct span_tables *t,
		   const uint32_t *pick, uint32_t n, size_t size)
{
	uint8_t *end;

	make_room(rec, size);
	end = otlp_write(t, pick, n, rec->otlp->p + rec->otlp->n);
	assert(end == rec->otlp->p + rec->otlp->n + size);
	(void)end;
	rec->otlp->n += size;
	for (uint32_t i = 0; b->signal == OTLP_METRICS && i < n; i++)
		rec->n_points += b->tables.spans[pick ? pick[i] : i].n_points;
	span_debt_take(&rec->debt, b, pick, n);
}

struct batch *record_to_batch(struct record *rec)
{
	struct otlp_result result = { 0 };
	struct err err = ERR_INIT;
	struct batch *b = batch_from_request(rec->pool->signal, rcbuf_ref(rec->otlp),
					     rec->route->tenant, NULL, &result, &err);

	/* It was an index of these very bytes that let them in. */
	assert(b != NULL && result.rejects.n == 0);
	span_debt_to_batch(&rec->debt, b);
	record_free(rec);
	return b;
}

void record_settle(struct record *rec, enum verdict v, enum drop_reason reason,
		   const struct err *err)
{
	span_debt_settle(&rec->debt, v, reason, err);
	record_free(rec);
}

/* ---- what is sent ---- */

struct bytes record_value(const struct record *rec)
{
	if (rec->encoded.n > 0)
		return (struct bytes){ rec->encoded.p, rec->encoded.n };
	return (struct bytes){ rec->otlp->p, rec->otlp->n };
}

int record_encode(struct record *rec, kafka_encode_fn encode, size_t max_bytes, struct err *err)
{
	struct bytes otlp = { rec->otlp->p, rec->otlp->n };
	int ret;

	drop_encoded(rec);
	ret = encode(rec->pool->signal, otlp, max_bytes, &rec->encoded, err);
	rec->pool->n_bytes += rec->encoded.cap;
	budget_force(rec->pool->budget, rec->encoded.cap);
	return ret;
}
