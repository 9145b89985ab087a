/* SPDX-License-Identifier: Apache-2.0
 *
 * metrics_fixture.h - OTLP metrics as text, a line a point, and copied by the writer: what the
 * unit test and the fuzzer of wire/otlp_metrics.h share.
 */
#ifndef TESTS_UNIT_METRICS_FIXTURE_H
#define TESTS_UNIT_METRICS_FIXTURE_H

#include "base/buf.h"
#include "base/mem.h"
#include "wire/otlp_metrics.h"

#include <inttypes.h>

static inline void dump_number(const struct metric_number *n, struct buf *out)
{
	if (n->is_int)
		buf_printf(out, "%" PRId64, n->i);
	else
		buf_printf(out, "%a", n->d);
}

static inline void dump_attributes(struct bytes message, uint8_t field, struct buf *out)
{
	struct metric_attributes it = { message, field };
	struct any_value v;
	struct bytes key;

	buf_add_char(out, '{');
	while (metric_attribute_next(&it, &key, &v)) {
		buf_add_bytes(out, key);
		buf_printf(out, "=%d:", v.kind);
		any_value_text(&v, out);
		buf_add_char(out, ' ');
	}
	buf_add_char(out, '}');
}

static inline void dump_u64(struct metric_list l, struct buf *out)
{
	uint64_t v;

	while (metric_list_next_u64(&l, &v))
		buf_printf(out, "%" PRIu64 " ", v);
}

static inline void dump_exemplars(const struct metric_point *p, struct buf *out)
{
	struct bytes it = p->message;
	struct metric_exemplar x;

	while (metric_exemplar_next(p, &it, &x)) {
		buf_printf(out, " #%" PRIu64 " ", x.time_ns);
		dump_number(&x.number, out);
		for (size_t i = 0; i < x.trace_id.n; i++)
			buf_printf(out, "%s%02x", i == 0 ? " t" : "", x.trace_id.p[i]);
		for (size_t i = 0; i < x.span_id.n; i++)
			buf_printf(out, "%s%02x", i == 0 ? " s" : "", x.span_id.p[i]);
		dump_attributes(x.message, METRIC_EXEMPLAR_ATTRIBUTES, out);
	}
}

static inline void dump_values(const struct metric_point *p, enum metric_kind kind, struct buf *out)
{
	struct metric_list bounds = p->bounds;
	struct bytes it = p->message;
	double q, v;

	if (kind == METRIC_GAUGE || kind == METRIC_SUM) {
		if (p->has_value)
			dump_number(&p->number, out);
		return;
	}
	buf_printf(out, "n=%" PRIu64, p->count);
	if (p->has_sum)
		buf_printf(out, " sum=%a", p->sum);
	if (p->has_min && p->has_max)
		buf_printf(out, " min=%a max=%a", p->min, p->max);
	buf_add_str(out, " [");
	dump_u64(p->counts, out);
	buf_add_char(out, '|');
	while (metric_list_next_double(&bounds, &v))
		buf_printf(out, "%a ", v);
	buf_printf(out, "] %d %" PRIu64 " %a + %d ", p->scale, p->zero_count, p->zero_threshold,
		   p->positive.counts.left > 0 ? p->positive.offset : 0);
	dump_u64(p->positive.counts, out);
	buf_printf(out, "- %d ", p->negative.counts.left > 0 ? p->negative.offset : 0);
	dump_u64(p->negative.counts, out);
	while (metric_quantile_next(p, &it, &q, &v))
		buf_printf(out, "q%a=%a ", q, v);
}

/* One line: where the point stands and what it holds; a faulty one only names its fault. */
static inline void dump_point(const struct metrics_reader *r, const struct metric_point *p,
			      struct buf *out)
{
	dump_attributes(r->resource.message, METRIC_RESOURCE_ATTRIBUTES, out);
	buf_add_bytes(out, r->resource.schema_url);
	buf_add_char(out, '/');
	buf_add_bytes(out, r->scope.name);
	buf_add_char(out, '@');
	buf_add_bytes(out, r->scope.version);
	buf_add_char(out, '/');
	buf_add_bytes(out, r->metric.name);
	buf_add_char(out, ',');
	buf_add_bytes(out, r->metric.description);
	buf_add_char(out, ',');
	buf_add_bytes(out, r->metric.unit);
	buf_printf(out, " %d %d%s ", r->metric.kind, r->metric.temporality,
		   r->metric.is_monotonic ? "m" : "");
	if (p->fault != NULL) {
		buf_printf(out, "!%s\n", p->fault);
		return;
	}
	dump_attributes(p->message, p->attribute_field, out);
	buf_printf(out, " %" PRIu64 "..%" PRIu64 " f%u ", p->start_ns, p->time_ns, p->flags);
	dump_values(p, r->metric.kind, out);
	dump_exemplars(p, out);
	buf_add_char(out, '\n');
}

/* Every point that has no fault, or all of them. Returns what the walk ended with. */
static inline int dump_metrics(struct metrics_reader *r, bool with_faulty, struct buf *out)
{
	struct metric_point p;
	int got;

	while ((got = metrics_next(r, &p)) > 0)
		if (with_faulty || p.fault == NULL)
			dump_point(r, &p, out);
	return got;
}

/* ---- through the writer ---- */

static inline size_t take_u64(struct metric_list l, uint64_t **v)
{
	size_t n = 0;

	*v = xmalloc((l.left + 1) * sizeof(**v));
	while (metric_list_next_u64(&l, &(*v)[n]))
		n++;
	return n;
}

static inline void copy_buckets(struct metrics_writer *w, const struct metric_point *p)
{
	struct metric_list bounds = p->bounds;
	double *b = xmalloc((bounds.left + 1) * sizeof(*b));
	uint64_t *v;
	size_t n = 0;

	if (take_u64(p->counts, &v) > 0) {
		while (metric_list_next_double(&bounds, &b[n]))
			n++;
		metrics_point_buckets(w, b, v, n);
	}
	free(v);
	free(b);
}

static inline void copy_exponential(struct metrics_writer *w, const struct metric_point *p)
{
	uint64_t *v;
	size_t n;

	metrics_point_scale(w, p->scale, p->zero_count, p->zero_threshold);
	n = take_u64(p->positive.counts, &v);
	metrics_point_positive(w, n > 0 ? p->positive.offset : 0, v, n);
	free(v);
	n = take_u64(p->negative.counts, &v);
	metrics_point_negative(w, n > 0 ? p->negative.offset : 0, v, n);
	free(v);
}

static inline void copy_values(struct metrics_writer *w, const struct metric_point *p)
{
	struct bytes it = p->message;
	double q, v;

	if (w->kind == METRIC_GAUGE || w->kind == METRIC_SUM) {
		if (p->has_value && p->number.is_int)
			metrics_point_int(w, p->number.i);
		else if (p->has_value)
			metrics_point_double(w, p->number.d);
		return;
	}
	metrics_point_count(w, p->count);
	if (p->has_sum)
		metrics_point_sum(w, p->sum);
	if (p->has_min && p->has_max)
		metrics_point_min_max(w, p->min, p->max);
	if (w->kind == METRIC_HISTOGRAM)
		copy_buckets(w, p);
	if (w->kind == METRIC_EXPONENTIAL_HISTOGRAM)
		copy_exponential(w, p);
	while (metric_quantile_next(p, &it, &q, &v))
		metrics_point_quantile(w, q, v);
}

/* The KeyValues of a message, as fields 1. */
static inline void copy_pairs(struct bytes message, uint8_t field, struct buf *out)
{
	struct metric_attributes it = { message, field };
	struct any_value v;
	struct bytes key;

	buf_reset(out);
	while (metric_attribute_next(&it, &key, &v)) {
		struct buf any = BUF_INIT;

		any_value_put(&any, &v);
		any_pair_put(out, 1, key, buf_bytes(&any));
		buf_fini(&any);
	}
}

static inline void copy_point(struct metrics_writer *w, const struct metric_point *p)
{
	struct bytes it = p->message;
	struct metric_exemplar x;
	struct buf pairs = BUF_INIT;

	metrics_point_begin(w);
	metrics_point_times(w, p->start_ns, p->time_ns);
	metrics_point_flags(w, p->flags);
	copy_pairs(p->message, p->attribute_field, &pairs);
	metrics_point_attributes(w, buf_bytes(&pairs));
	copy_values(w, p);
	while (metric_exemplar_next(p, &it, &x)) {
		copy_pairs(x.message, METRIC_EXEMPLAR_ATTRIBUTES, &pairs);
		metrics_point_exemplar(w, &x, buf_bytes(&pairs));
	}
	metrics_point_end(w);
	buf_fini(&pairs);
}

/* Every point that has no fault. Returns what the walk ended with. */
static inline int copy_metrics(struct metrics_reader *r, struct metrics_writer *w)
{
	uint32_t resource = UINT32_MAX, scope = UINT32_MAX, metric = UINT32_MAX;
	struct metric_point p;
	struct buf pairs = BUF_INIT;
	int got;

	while ((got = metrics_next(r, &p)) > 0) {
		if (p.fault != NULL)
			continue;
		if (r->resource.no != resource) {
			copy_pairs(r->resource.message, METRIC_RESOURCE_ATTRIBUTES, &pairs);
			metrics_write_resource(w, buf_bytes(&pairs), r->resource.schema_url);
		}
		if (r->scope.no != scope)
			metrics_write_scope(w, r->scope.name, r->scope.version);
		if (r->metric.no != metric)
			metrics_write_metric(w, &r->metric);
		resource = r->resource.no;
		scope = r->scope.no;
		metric = r->metric.no;
		copy_point(w, &p);
	}
	metrics_writer_finish(w);
	buf_fini(&pairs);
	return got;
}

#endif
