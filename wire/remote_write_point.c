/* SPDX-License-Identifier: Apache-2.0
 *
 * remote_write_point.c - one data point as series: samples, buckets, native histograms, exemplars.
 *
 * Labels are made once per point; its series differ by __name__ and le or quantile, which are put
 * into the finished set. A native histogram that does not add up is dropped here, because
 * Prometheus would refuse the whole request for it.
 */
#include "wire/remote_write_private.h"

#include "base/mem.h"
#include "base/str.h"

#include <math.h>
#include <stdlib.h>

enum { SERIES_EXEMPLAR = 3, SERIES_HISTOGRAM = 4 };
enum { EXEMPLAR_VALUE = 2, EXEMPLAR_TIME = 3 };
/* prompb Histogram. */
enum {
	HISTOGRAM_COUNT = 1,
	HISTOGRAM_SUM = 3,
	HISTOGRAM_SCHEMA = 4,
	HISTOGRAM_ZERO_THRESHOLD = 5,
	HISTOGRAM_ZERO_COUNT = 6,
	HISTOGRAM_NEGATIVE_SPANS = 8,
	HISTOGRAM_NEGATIVE_DELTAS = 9,
	HISTOGRAM_POSITIVE_SPANS = 11,
	HISTOGRAM_POSITIVE_DELTAS = 12,
	HISTOGRAM_TIME = 15,
};

/* Of native histograms; smaller gaps between buckets are filled with zeros, which costs less than
 * a new span. */
enum { SCHEMA_MIN = -4, SCHEMA_MAX = 8, GAP_MAX = 2 };
#define ZERO_THRESHOLD_DEFAULT 1e-128

/* OpenMetrics: of names and values together. */
enum { EXEMPLAR_RUNES_MAX = 128 };

/* A bucket's bound and its text, which is kept: most points have the bounds of the one before. */
struct remote_write_bound {
	double value;
	uint8_t n; /* 0: no text yet */
	char text[PROMETHEUS_BOUND_MAX];
};

/* An exemplar of the point at hand. */
struct remote_write_exemplar {
	struct metric_exemplar x;
	double value;
	int64_t time_ms;
	uint32_t bucket; /* index of the bound; n_bounds: +Inf */
};

/* ---- exemplars ---- */

static uint32_t bucket_of(const struct remote_write *w, double value)
{
	uint32_t lo = 0, hi = w->n_bounds;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (value <= w->bounds[mid].value)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

static int compare_exemplars(const void *va, const void *vb)
{
	const struct remote_write_exemplar *a = va, *b = vb;

	if (a->bucket != b->bucket)
		return a->bucket < b->bucket ? -1 : 1;
	if (a->time_ms != b->time_ms)
		return a->time_ms < b->time_ms ? -1 : 1;
	return (a->value > b->value) - (a->value < b->value);
}

/* Those of the point, by bucket and time. w->bounds are set. */
static void gather_exemplars(struct remote_write *w, const struct metric_point *p, int64_t time_ms)
{
	struct bytes it = p->message;
	struct metric_exemplar x;

	w->n_exemplars = 0;
	while (p->n_exemplars > 0 && metric_exemplar_next(p, &it, &x)) {
		double value = metric_number_double(&x.number);

		if (!x.has_value || isnan(value))
			continue;
		if (w->n_exemplars == w->exemplars_room) {
			w->exemplars_room = w->exemplars_room ? 2 * w->exemplars_room : 32;
			w->exemplars =
				xrealloc(w->exemplars, w->exemplars_room * sizeof(*w->exemplars));
		}
		w->exemplars[w->n_exemplars++] = (struct remote_write_exemplar){
			.x = x,
			.value = value,
			.time_ms = x.time_ns ? (int64_t)(x.time_ns / 1000000) : time_ms,
			.bucket = bucket_of(w, value),
		};
	}
	if (w->n_exemplars > 1)
		qsort(w->exemplars, w->n_exemplars, sizeof(*w->exemplars), compare_exemplars);
}

static size_t runes(const struct prometheus_labels *l)
{
	size_t n = 0;

	for (uint32_t i = 0; i < l->n; i++) {
		for (size_t k = 0; k < l->v[i].name.n; k++)
			n += (l->v[i].name.p[k] & 0xc0) != 0x80;
		for (size_t k = 0; k < l->v[i].value.n; k++)
			n += (l->v[i].value.p[k] & 0xc0) != 0x80;
	}
	return n;
}

static void add_ids(struct prometheus_labels *l, const struct metric_exemplar *x, char trace[33],
		    char span[17])
{
	if (x->trace_id.n == 16) {
		str_hex(x->trace_id.p, 16, trace);
		prometheus_labels_add(l, BYTES_LIT("trace_id"),
				      (struct bytes){ (uint8_t *)trace, 32 });
	}
	if (x->span_id.n == 8) {
		str_hex(x->span_id.p, 8, span);
		prometheus_labels_add(l, BYTES_LIT("span_id"),
				      (struct bytes){ (uint8_t *)span, 16 });
	}
}

/* Append one to w->tail. What was filtered off the point goes with it if there is room. */
static void put_exemplar(struct remote_write *w, const struct remote_write_exemplar *e)
{
	struct prometheus_labels *l = &w->exemplar_labels;
	char trace[33], span[17];
	size_t mark, n;
	uint8_t *p;

	prometheus_labels_reset(l);
	prometheus_labels_add_attributes(l, &w->o.naming, e->x.message, METRIC_EXEMPLAR_ATTRIBUTES);
	add_ids(l, &e->x, trace, span);
	prometheus_labels_finish(l);
	if (runes(l) > EXEMPLAR_RUNES_MAX) {
		prometheus_labels_reset(l);
		add_ids(l, &e->x, trace, span);
		prometheus_labels_finish(l);
	}
	mark = pb_begin(&w->tail, SERIES_EXEMPLAR);
	n = remote_write_labels_size(l);
	p = buf_reserve(&w->tail, n + 1);
	remote_write_put_labels(p, l);
	w->tail.n += n;
	pb_put_double(&w->tail, EXEMPLAR_VALUE, e->value);
	pb_put_uint(&w->tail, EXEMPLAR_TIME, (uint64_t)e->time_ms);
	pb_end(&w->tail, mark);
}

/* Append those of one bucket to w->tail. *next walks over all. */
static void put_exemplars_of(struct remote_write *w, uint32_t bucket, uint32_t *next)
{
	for (; *next < w->n_exemplars && w->exemplars[*next].bucket == bucket; (*next)++)
		put_exemplar(w, &w->exemplars[*next]);
}

/* ---- samples ---- */

static void put_name(struct remote_write *w, struct bytes name)
{
	prometheus_labels_put(&w->labels, BYTES_LIT("__name__"), name);
}

static void put_sample(struct remote_write *w, struct bytes name, const struct series_value *v,
		       double value, struct buf *out)
{
	put_name(w, name);
	buf_reset(&w->tail);
	remote_write_sample(w, v, value);
	remote_write_series(w, out);
}

static void number_point(struct remote_write *w, const struct metric_point *p,
			 const struct series_value *v, struct buf *out)
{
	uint32_t next = 0;

	put_name(w, w->name);
	buf_reset(&w->tail);
	remote_write_sample(w, v, metric_number_double(&p->number));
	if (w->kind == PROMETHEUS_COUNTER && !v->is_stale) {
		w->n_bounds = 0;
		gather_exemplars(w, p, v->time_ms);
		put_exemplars_of(w, 0, &next);
	}
	remote_write_series(w, out);
}

static void count_and_sum(struct remote_write *w, const struct metric_point *p,
			  const struct series_value *v, struct buf *out)
{
	put_sample(w, w->name_count, v, (double)p->count, out);
	if (p->has_sum || w->kind == PROMETHEUS_SUMMARY)
		put_sample(w, w->name_sum, v, p->sum, out);
}

static void summary_point(struct remote_write *w, const struct metric_point *p,
			  const struct series_value *v, struct buf *out)
{
	struct bytes it = p->message;
	char text[PROMETHEUS_BOUND_MAX];
	double quantile, value;

	count_and_sum(w, p, v, out);
	while (metric_quantile_next(p, &it, &quantile, &value)) {
		size_t n = prometheus_bound_text(quantile, text);

		prometheus_labels_put(&w->labels, BYTES_LIT("quantile"),
				      (struct bytes){ (uint8_t *)text, n });
		put_sample(w, w->name, v, value, out);
	}
}

/* ---- histograms with bounds ---- */

static void set_bound(struct remote_write_bound *b, double value)
{
	if (b->n > 0 && memcmp(&b->value, &value, sizeof(value)) == 0)
		return;
	b->value = value;
	b->n = (uint8_t)prometheus_bound_text(value, b->text);
}

static void read_bounds(struct remote_write *w, const struct metric_point *p)
{
	struct metric_list l = p->bounds;
	double bound;

	if (l.left > w->bounds_room) {
		w->bounds = xrealloc(w->bounds, l.left * sizeof(*w->bounds));
		memset(w->bounds + w->bounds_room, 0,
		       (l.left - w->bounds_room) * sizeof(*w->bounds));
		w->bounds_room = l.left;
	}
	for (w->n_bounds = 0; metric_list_next_double(&l, &bound);)
		set_bound(&w->bounds[w->n_bounds++], bound);
	/* Another bound of +Inf would be the last bucket twice. */
	if (w->n_bounds > 0 && isinf(w->bounds[w->n_bounds - 1].value))
		w->n_bounds--;
}

static void put_bucket(struct remote_write *w, uint32_t i, const struct series_value *v,
		       uint64_t count, uint32_t *next, struct buf *out)
{
	struct bytes le = BYTES_LIT("+Inf");

	if (i < w->n_bounds)
		le = (struct bytes){ (uint8_t *)w->bounds[i].text, w->bounds[i].n };
	prometheus_labels_put(&w->labels, BYTES_LIT("le"), le);
	buf_reset(&w->tail);
	remote_write_sample(w, v, (double)count);
	put_exemplars_of(w, i, next);
	remote_write_series(w, out);
}

static void histogram_point(struct remote_write *w, const struct metric_point *p,
			    const struct series_value *v, struct buf *out)
{
	struct metric_list counts = p->counts;
	uint64_t n = 0, sum = 0;
	uint32_t next = 0;

	read_bounds(w, p);
	w->n_exemplars = 0;
	if (!v->is_stale)
		gather_exemplars(w, p, v->time_ms);
	count_and_sum(w, p, v, out);
	put_name(w, w->name_bucket);
	for (uint32_t i = 0; i < w->n_bounds && metric_list_next_u64(&counts, &n); i++) {
		sum += n;
		put_bucket(w, i, v, sum, &next, out);
		if (out->overflow)
			return;
	}
	put_bucket(w, w->n_bounds, v, p->count, &next, out);
}

/* ---- native histograms ---- */

/* Where the buckets of one sign go: BucketSpan fields into the histogram, deltas aside. */
struct native {
	struct buf *spans, *deltas;
	uint32_t span_field;
	int64_t next;    /* index behind the last bucket written */
	int64_t before;  /* its count */
	int64_t offset;  /* of the span that is open */
	uint32_t length; /* its buckets; 0: none is open */
	uint64_t total;
};

static void end_span(struct native *h)
{
	size_t mark;

	if (h->length == 0)
		return;
	mark = pb_begin(h->spans, h->span_field);
	pb_put_uint(h->spans, 1, pb_zigzag(h->offset));
	pb_put_uint(h->spans, 2, h->length);
	pb_end(h->spans, mark);
	h->length = 0;
}

static void put_count(struct native *h, uint64_t count)
{
	pb_put_varint(h->deltas, pb_zigzag((int64_t)count - h->before));
	h->before = (int64_t)count;
	h->length++;
	h->next++;
}

/* Buckets come in ascending order; empty ones are not told. */
static void put_native_bucket(struct native *h, int64_t index, uint64_t count)
{
	bool is_first = h->total == 0;

	if (count == 0)
		return;
	if (is_first || index - h->next > GAP_MAX) {
		end_span(h);
		h->offset = is_first ? index : index - h->next;
		h->next = index;
	}
	while (h->next < index)
		put_count(h, 0);
	put_count(h, count);
	h->total += count;
}

/* One sign's buckets, 2^shift of them merged into one; returns how much they hold. Prometheus
 * counts buckets by their upper bounds, OTLP by the lower ones: hence + 1. */
static uint64_t put_native_buckets(const struct metric_buckets *b, int shift, struct native *h)
{
	struct metric_list l = b->counts;
	int64_t index = b->offset, merged = (index >> shift) + 1;
	uint64_t count, sum = 0;

	for (; metric_list_next_u64(&l, &count); index++) {
		int64_t to = (index >> shift) + 1;

		if (to != merged) {
			put_native_bucket(h, merged, sum);
			merged = to;
			sum = 0;
		}
		sum += count;
	}
	put_native_bucket(h, merged, sum);
	end_span(h);
	return h->total;
}

/* Field `number` with what `deltas` holds, packed. */
static void put_packed(struct buf *out, uint32_t number, struct buf *deltas)
{
	if (deltas->n > 0)
		pb_put_bytes(out, number, buf_bytes(deltas));
	buf_reset(deltas);
}

static uint64_t put_signs(struct remote_write *w, const struct metric_point *p, int shift)
{
	struct native negative = { .spans = &w->tail,
				   .deltas = &w->scratch,
				   .span_field = HISTOGRAM_NEGATIVE_SPANS };
	struct native positive = { .spans = &w->tail,
				   .deltas = &w->scratch,
				   .span_field = HISTOGRAM_POSITIVE_SPANS };
	uint64_t total;

	buf_reset(&w->scratch);
	total = put_native_buckets(&p->negative, shift, &negative);
	put_packed(&w->tail, HISTOGRAM_NEGATIVE_DELTAS, &w->scratch);
	total += put_native_buckets(&p->positive, shift, &positive);
	put_packed(&w->tail, HISTOGRAM_POSITIVE_DELTAS, &w->scratch);
	return total;
}

/* Append the Histogram to w->tail. False: its buckets do not add up to its count. */
static bool put_native(struct remote_write *w, const struct metric_point *p,
		       const struct series_value *v)
{
	int schema = MIN(p->scale, (int32_t)SCHEMA_MAX);
	size_t mark = pb_begin(&w->tail, SERIES_HISTOGRAM);
	uint64_t total = p->zero_count;

	pb_put_uint(&w->tail, HISTOGRAM_COUNT, v->is_stale ? STALE_NAN : p->count);
	if (v->is_stale)
		pb_put_fixed64(&w->tail, HISTOGRAM_SUM, STALE_NAN);
	else
		pb_put_double(&w->tail, HISTOGRAM_SUM, p->has_sum ? p->sum : 0);
	pb_put_uint(&w->tail, HISTOGRAM_SCHEMA, pb_zigzag(schema));
	pb_put_double(&w->tail, HISTOGRAM_ZERO_THRESHOLD,
		      p->zero_threshold > 0 ? p->zero_threshold : ZERO_THRESHOLD_DEFAULT);
	pb_put_uint(&w->tail, HISTOGRAM_ZERO_COUNT, v->is_stale ? 0 : p->zero_count);
	if (!v->is_stale)
		total += put_signs(w, p, p->scale - schema);
	pb_put_uint(&w->tail, HISTOGRAM_TIME, (uint64_t)v->time_ms);
	pb_end(&w->tail, mark);
	/* A NaN was counted, but is in no bucket. */
	return v->is_stale || total == p->count || (p->has_sum && isnan(p->sum));
}

static bool exponential_point(struct remote_write *w, const struct metric *m,
			      const struct metric_point *p, const struct series_value *v,
			      struct buf *out)
{
	uint32_t next = 0;

	if (p->scale < SCHEMA_MIN && !v->is_stale) {
		remote_write_drop(w, m, REMOTE_WRITE_SCALE,
				  "its scale is below -4, the coarsest that Prometheus has");
		return false;
	}
	put_name(w, w->name);
	buf_reset(&w->tail);
	if (!put_native(w, p, v)) {
		remote_write_drop(w, m, REMOTE_WRITE_FAULTY, "buckets do not add up to the count");
		return false;
	}
	w->n_bounds = 0;
	w->n_exemplars = 0;
	if (!v->is_stale)
		gather_exemplars(w, p, v->time_ms);
	put_exemplars_of(w, 0, &next);
	remote_write_series(w, out);
	return true;
}

bool remote_write_point(struct remote_write *w, const struct metrics_reader *r,
			const struct metric_point *p, int64_t time_ms, struct buf *out)
{
	const struct series_value v = { .time_ms = time_ms,
					.is_stale = p->flags & METRIC_NO_RECORDED_VALUE };

	remote_write_labels(w, r, p);
	switch (r->metric.kind) {
	case METRIC_HISTOGRAM:
		histogram_point(w, p, &v, out);
		return true;
	case METRIC_EXPONENTIAL_HISTOGRAM:
		return exponential_point(w, &r->metric, p, &v, out);
	case METRIC_SUMMARY:
		summary_point(w, p, &v, out);
		return true;
	default:
		number_point(w, p, &v, out);
		return true;
	}
}
