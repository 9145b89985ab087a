/* SPDX-License-Identifier: Apache-2.0
 *
 * otlp_metrics_write.c - the writer of otlp_metrics.h.
 *
 * DESIGN: levels are opened with one byte for their length and closed by pb_end, which moves what
 * is in them when the length needs more: a point is moved once by itself and once per level around
 * it, which for a request of 1 MiB are four moves of 1 MiB, some 0.1 us a point. Counting lengths
 * first would need every caller to say everything twice.
 */
#include "wire/otlp_metrics.h"

#include "wire/pb.h"

/* Fields by kind; 0: the kind has none. */
struct point_fields {
	uint8_t attribute, exemplar, flags, min, max;
};

static const struct point_fields fields[] = {
	[METRIC_GAUGE] = { 7, 5, 8, 0, 0 },
	[METRIC_SUM] = { 7, 5, 8, 0, 0 },
	[METRIC_HISTOGRAM] = { 9, 8, 10, 11, 12 },
	[METRIC_EXPONENTIAL_HISTOGRAM] = { 1, 11, 10, 12, 13 },
	[METRIC_SUMMARY] = { 7, 0, 8, 0, 0 },
};

static void close_level(struct metrics_writer *w, size_t *mark)
{
	if (*mark != 0)
		pb_end(w->out, *mark);
	*mark = 0;
}

static void close_metric(struct metrics_writer *w)
{
	close_level(w, &w->point);
	close_level(w, &w->data);
	close_level(w, &w->metric);
}

static void close_scope(struct metrics_writer *w)
{
	close_metric(w);
	close_level(w, &w->scope);
}

static void close_resource(struct metrics_writer *w)
{
	close_scope(w);
	close_level(w, &w->resource);
}

static void put_text(struct buf *b, uint32_t number, struct bytes v)
{
	if (v.n > 0)
		pb_put_bytes(b, number, v);
}

/* KeyValue fields of any number, as fields `number`. */
static void put_attributes(struct buf *b, uint8_t number, struct bytes attributes)
{
	struct pb_field f = { 0 };

	while (pb_next(&attributes, &f) > 0)
		if (f.wire == PB_LEN)
			pb_put_bytes(b, number, f.data);
}

void metrics_writer_init(struct metrics_writer *w, struct buf *out)
{
	*w = (struct metrics_writer){ .out = out };
}

void metrics_write_resource(struct metrics_writer *w, struct bytes attributes,
			    struct bytes schema_url)
{
	size_t message;

	close_resource(w);
	w->resource = pb_begin(w->out, 1);
	message = pb_begin(w->out, 1);
	put_attributes(w->out, METRIC_RESOURCE_ATTRIBUTES, attributes);
	pb_end(w->out, message);
	put_text(w->out, 3, schema_url);
}

void metrics_write_scope(struct metrics_writer *w, struct bytes name, struct bytes version)
{
	size_t message;

	close_scope(w);
	w->scope = pb_begin(w->out, 2);
	message = pb_begin(w->out, 1);
	put_text(w->out, 1, name);
	put_text(w->out, 2, version);
	pb_end(w->out, message);
}

void metrics_write_metric(struct metrics_writer *w, const struct metric *m)
{
	close_metric(w);
	w->metric = pb_begin(w->out, 2);
	put_text(w->out, 1, m->name);
	put_text(w->out, 2, m->description);
	put_text(w->out, 3, m->unit);
	w->kind = m->kind;
	w->attribute_field = fields[m->kind].attribute;
	w->exemplar_field = fields[m->kind].exemplar;
	if (m->kind == METRIC_NONE)
		return;
	w->data = pb_begin(w->out, m->kind);
	if (m->temporality != TEMPORALITY_UNSPECIFIED)
		pb_put_uint(w->out, 2, m->temporality);
	if (m->is_monotonic)
		pb_put_uint(w->out, 3, 1);
}

void metrics_writer_finish(struct metrics_writer *w)
{
	close_resource(w);
}

void metrics_point_begin(struct metrics_writer *w)
{
	assert(w->out->overflow || (w->data != 0 && w->point == 0));
	w->point = pb_begin(w->out, 1);
}

void metrics_point_times(struct metrics_writer *w, uint64_t start_ns, uint64_t time_ns)
{
	if (start_ns != 0)
		pb_put_fixed64(w->out, 2, start_ns);
	if (time_ns != 0)
		pb_put_fixed64(w->out, 3, time_ns);
}

void metrics_point_flags(struct metrics_writer *w, uint32_t flags)
{
	if (flags != 0)
		pb_put_uint(w->out, fields[w->kind].flags, flags);
}

void metrics_point_attributes(struct metrics_writer *w, struct bytes attributes)
{
	put_attributes(w->out, w->attribute_field, attributes);
}

void metrics_point_int(struct metrics_writer *w, int64_t v)
{
	pb_put_fixed64(w->out, 6, (uint64_t)v);
}

void metrics_point_double(struct metrics_writer *w, double v)
{
	pb_put_double(w->out, 4, v);
}

void metrics_point_count(struct metrics_writer *w, uint64_t count)
{
	pb_put_fixed64(w->out, 4, count);
}

void metrics_point_sum(struct metrics_writer *w, double sum)
{
	pb_put_double(w->out, 5, sum);
}

void metrics_point_min_max(struct metrics_writer *w, double min, double max)
{
	pb_put_double(w->out, fields[w->kind].min, min);
	pb_put_double(w->out, fields[w->kind].max, max);
}

/* A packed field of n times eight bytes. */
static uint8_t *put_packed(struct metrics_writer *w, uint32_t number, size_t n)
{
	uint8_t *to;

	pb_put_tag(w->out, number, PB_LEN);
	pb_put_varint(w->out, 8 * n);
	to = buf_reserve(w->out, 8 * n);
	if (to != NULL)
		w->out->n += 8 * n;
	return to;
}

void metrics_point_buckets(struct metrics_writer *w, const double *bounds, const uint64_t *counts,
			   size_t n_bounds)
{
	uint64_t bits;
	uint8_t *to;

	if (counts == NULL)
		return;
	to = put_packed(w, 6, n_bounds + 1);
	for (size_t i = 0; to != NULL && i <= n_bounds; i++)
		store_le64(to + 8 * i, counts[i]);
	if (n_bounds == 0)
		return;
	to = put_packed(w, 7, n_bounds);
	for (size_t i = 0; to != NULL && i < n_bounds; i++) {
		memcpy(&bits, &bounds[i], sizeof(bits));
		store_le64(to + 8 * i, bits);
	}
}

void metrics_point_scale(struct metrics_writer *w, int32_t scale, uint64_t zero_count,
			 double zero_threshold)
{
	if (scale != 0)
		pb_put_uint(w->out, 6, (uint32_t)pb_zigzag(scale));
	if (zero_count != 0)
		pb_put_fixed64(w->out, 7, zero_count);
	if (zero_threshold != 0)
		pb_put_double(w->out, 14, zero_threshold);
}

static void put_buckets(struct metrics_writer *w, uint32_t number, int32_t offset,
			const uint64_t *counts, size_t n)
{
	size_t message, list;

	message = pb_begin(w->out, number);
	if (offset != 0)
		pb_put_uint(w->out, 1, (uint32_t)pb_zigzag(offset));
	if (n > 0) {
		list = pb_begin(w->out, 2);
		for (size_t i = 0; i < n; i++)
			pb_put_varint(w->out, counts[i]);
		pb_end(w->out, list);
	}
	pb_end(w->out, message);
}

void metrics_point_positive(struct metrics_writer *w, int32_t offset, const uint64_t *counts,
			    size_t n)
{
	put_buckets(w, 8, offset, counts, n);
}

void metrics_point_negative(struct metrics_writer *w, int32_t offset, const uint64_t *counts,
			    size_t n)
{
	put_buckets(w, 9, offset, counts, n);
}

void metrics_point_quantile(struct metrics_writer *w, double quantile, double value)
{
	size_t message = pb_begin(w->out, 6);

	pb_put_double(w->out, 1, quantile);
	pb_put_double(w->out, 2, value);
	pb_end(w->out, message);
}

void metrics_point_exemplar(struct metrics_writer *w, const struct metric_exemplar *x,
			    struct bytes attributes)
{
	size_t message = pb_begin(w->out, w->exemplar_field);

	if (x->time_ns != 0)
		pb_put_fixed64(w->out, 2, x->time_ns);
	if (x->number.is_int)
		pb_put_fixed64(w->out, 6, (uint64_t)x->number.i);
	else
		pb_put_double(w->out, 3, x->number.d);
	put_text(w->out, 4, x->span_id);
	put_text(w->out, 5, x->trace_id);
	put_attributes(w->out, METRIC_EXEMPLAR_ATTRIBUTES, attributes);
	pb_end(w->out, message);
}

void metrics_point_end(struct metrics_writer *w)
{
	close_level(w, &w->point);
	w->n_points++;
}
