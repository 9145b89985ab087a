/* SPDX-License-Identifier: Apache-2.0
 *
 * remote_write.c - see remote_write.h: the walk, names, labels, target_info, metadata. How a point
 * becomes series: remote_write_point.c.
 */
#include "wire/remote_write_private.h"

#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>

/* WriteRequest, TimeSeries, Label, Sample, MetricMetadata. */
enum { REQUEST_SERIES = 1, REQUEST_METADATA = 3 };
enum { SERIES_LABEL = 1, SERIES_SAMPLE = 2 };
enum { LABEL_NAME = 1, LABEL_VALUE = 2 };
enum { METADATA_TYPE = 1, METADATA_NAME = 2, METADATA_HELP = 4, METADATA_UNIT = 5 };

enum { TARGETS_MAX = 65536 };

/* What is known of a job and instance. */
struct remote_write_target {
	struct bytes resource; /* in the batch at hand */
	struct prometheus_target target;
	int64_t latest_ms; /* of its points in the request at hand */
	int64_t taken_ms;  /* of its sample that was taken last; INT64_MIN: none */
	bool is_touched;
};

const char *remote_write_drop_name(enum remote_write_drop why)
{
	static const char *const names[] = {
		[REMOTE_WRITE_DELTA] = "delta",         [REMOTE_WRITE_FAULTY] = "faulty",
		[REMOTE_WRITE_NAMELESS] = "no_name",    [REMOTE_WRITE_SCALE] = "scale",
		[REMOTE_WRITE_TOO_LARGE] = "too_large",
	};

	return names[why];
}

void remote_write_drop(struct remote_write *w, const struct metric *m, enum remote_write_drop why,
		       const char *what)
{
	if (w->first_dropped[0] == '\0')
		snprintf(w->first_dropped, sizeof(w->first_dropped), "%.*s: %s",
			 (int)MIN(m->name.n, (size_t)80), m->name.n ? (const char *)m->name.p : "",
			 what);
	w->dropped[why]++;
}

/* ---- series ---- */

static size_t label_size(const struct prometheus_label *l)
{
	return 2 + pb_varint_size(l->name.n) + l->name.n + pb_varint_size(l->value.n) + l->value.n;
}

static uint8_t *put_bytes(uint8_t *p, uint8_t tag, struct bytes s)
{
	*p++ = tag;
	p += pb_varint_write(p, s.n);
	if (s.n > 0)
		memcpy(p, s.p, s.n);
	return p + s.n;
}

uint8_t *remote_write_put_labels(uint8_t *p, const struct prometheus_labels *l)
{
	for (uint32_t i = 0; i < l->n; i++) {
		*p++ = SERIES_LABEL << 3 | PB_LEN;
		p += pb_varint_write(p, label_size(&l->v[i]));
		p = put_bytes(p, LABEL_NAME << 3 | PB_LEN, l->v[i].name);
		p = put_bytes(p, LABEL_VALUE << 3 | PB_LEN, l->v[i].value);
	}
	return p;
}

size_t remote_write_labels_size(const struct prometheus_labels *l)
{
	size_t n = 0;

	for (uint32_t i = 0; i < l->n; i++) {
		size_t label = label_size(&l->v[i]);

		n += 1 + pb_varint_size(label) + label;
	}
	return n;
}

void remote_write_series(struct remote_write *w, struct buf *out)
{
	size_t n = remote_write_labels_size(&w->labels) + w->tail.n;
	uint8_t *start = buf_reserve(out, 1 + pb_varint_size(n) + n), *p = start;

	if (p == NULL)
		return;
	*p++ = REQUEST_SERIES << 3 | PB_LEN;
	p += pb_varint_write(p, n);
	p = remote_write_put_labels(p, &w->labels);
	if (w->tail.n > 0)
		memcpy(p, w->tail.p, w->tail.n);
	out->n += (size_t)(p - start) + w->tail.n;
}

void remote_write_sample(struct remote_write *w, const struct series_value *v, double value)
{
	size_t mark = pb_begin(&w->tail, SERIES_SAMPLE);

	if (v->is_stale)
		pb_put_fixed64(&w->tail, 1, STALE_NAN);
	else
		pb_put_double(&w->tail, 1, value);
	pb_put_uint(&w->tail, 2, (uint64_t)v->time_ms);
	pb_end(&w->tail, mark);
}

/* ---- what a metric and its resource are called ---- */

static struct bytes suffixed(struct remote_write *w, const char *suffix)
{
	size_t n = strlen(suffix);
	uint8_t *p = arena_alloc(&w->of_metric, w->name.n + n);

	memcpy(p, w->name.p, w->name.n);
	memcpy(p + w->name.n, suffix, n);
	return (struct bytes){ p, w->name.n + n };
}

/* w->name is empty when nothing is left of it. */
static void enter_metric(struct remote_write *w, const struct metric *m)
{
	arena_reset(&w->of_metric);
	w->kind = prometheus_kind_of(m);
	w->name = BYTES_EMPTY;
	buf_reset(&w->scratch);
	if (prometheus_metric_name(&w->o.naming, m->name, m->unit, w->kind, &w->scratch) < 0)
		return;
	w->name = (struct bytes){ arena_dup(&w->of_metric, w->scratch.p, w->scratch.n),
				  w->scratch.n };
	if (w->kind != PROMETHEUS_HISTOGRAM && w->kind != PROMETHEUS_SUMMARY)
		return;
	w->name_bucket = suffixed(w, "_bucket");
	w->name_count = suffixed(w, "_count");
	w->name_sum = suffixed(w, "_sum");
}

static void describe(struct remote_write *w, const struct metric *m, struct buf *out)
{
	static const uint8_t types[] = {
		[PROMETHEUS_UNKNOWN] = 0, [PROMETHEUS_COUNTER] = 1,   [PROMETHEUS_GAUGE] = 2,
		[PROMETHEUS_UP_DOWN] = 2, [PROMETHEUS_HISTOGRAM] = 3, [PROMETHEUS_SUMMARY] = 5,
	};
	size_t mark;

	if (!w->o.metadata || w->name.n == 0 || map_find(&w->described, w->name) != NULL)
		return;
	map_set(&w->described, w->name, w);
	mark = pb_begin(out, REQUEST_METADATA);
	pb_put_uint(out, METADATA_TYPE, types[w->kind]);
	pb_put_bytes(out, METADATA_NAME, w->name);
	buf_reset(&w->scratch);
	prometheus_put_text(m->description, &w->scratch);
	pb_put_bytes(out, METADATA_HELP, buf_bytes(&w->scratch));
	buf_reset(&w->scratch);
	prometheus_unit_name(m->unit, w->kind, &w->scratch);
	pb_put_bytes(out, METADATA_UNIT, buf_bytes(&w->scratch));
	pb_end(out, mark);
}

/* The labels that all series of a point share. */
void remote_write_labels(struct remote_write *w, const struct metrics_reader *r,
			 const struct metric_point *p)
{
	struct prometheus_labels *l = &w->labels;
	const struct prometheus_naming *n = &w->o.naming;

	prometheus_labels_reset(l);
	prometheus_labels_add_attributes(l, n, p->message, p->attribute_field);
	if (w->o.resource_labels) /* of one key both have, the resource's counts */
		prometheus_labels_add_attributes(l, n, r->resource.message,
						 METRIC_RESOURCE_ATTRIBUTES);
	if (w->o.scope_labels)
		prometheus_labels_add_scope(l, n, r->scope.message, r->scope.schema_url);
	prometheus_labels_add_target(l, &w->target);
	for (size_t i = 0; i < w->o.n_external; i++)
		prometheus_labels_add_external(l, w->o.external[i].name, w->o.external[i].value);
	prometheus_labels_finish(l);
}

/* ---- target_info ---- */

static void forget_targets(struct remote_write *w)
{
	size_t pos = 0;
	struct bytes key;
	void *t;

	while (map_next(&w->targets, &pos, &key, &t))
		free(t);
	map_fini(&w->targets);
	w->targets = (struct map)MAP_INIT;
	w->n_touched = 0;
}

static struct remote_write_target *target_of(struct remote_write *w)
{
	struct remote_write_target *t;

	buf_reset(&w->scratch);
	buf_add_bytes(&w->scratch, w->target.job);
	buf_add_char(&w->scratch, '\0');
	buf_add_bytes(&w->scratch, w->target.instance);
	t = map_find(&w->targets, buf_bytes(&w->scratch));
	if (t == NULL) {
		t = xcalloc(1, sizeof(*t));
		t->taken_ms = INT64_MIN;
		map_set(&w->targets, buf_bytes(&w->scratch), t);
	}
	return t;
}

/* Note that a resource has a point of that time in the request at hand. */
static void touch(struct remote_write *w, struct remote_write_target *t, struct bytes resource,
		  int64_t time_ms)
{
	if (!t->is_touched) {
		if (w->n_touched == w->touched_room) {
			w->touched_room = w->touched_room ? 2 * w->touched_room : 16;
			w->touched = xrealloc(
				w->touched, w->touched_room * sizeof(struct remote_write_target *));
		}
		w->touched[w->n_touched++] = t;
		t->is_touched = true;
		t->latest_ms = INT64_MIN;
	}
	t->resource = resource;
	t->latest_ms = MAX(t->latest_ms, time_ms);
}

static void untouch(struct remote_write *w)
{
	for (uint32_t i = 0; i < w->n_touched; i++)
		w->touched[i]->is_touched = false;
	w->n_touched = 0;
	if (w->targets.n > TARGETS_MAX)
		forget_targets(w);
}

static void put_target_info(struct remote_write *w, const struct remote_write_target *t,
			    struct buf *out)
{
	struct arena *arena = &w->of_resource;
	struct prometheus_target target = prometheus_target(t->resource, arena);
	const struct series_value v = { .time_ms = t->latest_ms };

	prometheus_labels_reset(&w->labels);
	if (!prometheus_labels_add_target_info(&w->labels, &w->o.naming, t->resource, &target))
		return;
	for (size_t i = 0; i < w->o.n_external; i++)
		prometheus_labels_add_external(&w->labels, w->o.external[i].name,
					       w->o.external[i].value);
	prometheus_labels_add(&w->labels, BYTES_LIT("__name__"), BYTES_LIT("target_info"));
	prometheus_labels_finish(&w->labels);
	buf_reset(&w->tail);
	remote_write_sample(w, &v, 1);
	remote_write_series(w, out);
}

static void put_target_infos(struct remote_write *w, struct buf *out)
{
	for (uint32_t i = 0; i < w->n_touched; i++)
		if (w->touched[i]->latest_ms > w->touched[i]->taken_ms)
			put_target_info(w, w->touched[i], out);
}

void remote_write_taken(struct remote_write *w)
{
	for (uint32_t i = 0; i < w->n_touched; i++)
		w->touched[i]->taken_ms = MAX(w->touched[i]->taken_ms, w->touched[i]->latest_ms);
}

/* ---- the walk ---- */

struct walk {
	struct metrics_reader reader;
	uint32_t resource, metric; /* that were entered; UINT32_MAX: none */
	struct remote_write_target *target;
};

static void enter(struct remote_write *w, struct walk *k)
{
	const struct metrics_reader *r = &k->reader;

	if (k->resource != r->resource.no) {
		arena_reset(&w->of_resource);
		w->target = prometheus_target(r->resource.message, &w->of_resource);
		k->target = w->o.target_info ? target_of(w) : NULL;
		k->resource = r->resource.no;
	}
	if (k->metric != r->metric.no) {
		enter_metric(w, &r->metric);
		k->metric = r->metric.no;
	}
}

/* Can it be told? Else it is dropped. */
static bool is_good(struct remote_write *w, const struct metric *m, const struct metric_point *p)
{
	bool has_temporality = m->kind == METRIC_SUM || m->kind == METRIC_HISTOGRAM ||
			       m->kind == METRIC_EXPONENTIAL_HISTOGRAM;

	if (has_temporality && m->temporality != TEMPORALITY_CUMULATIVE)
		remote_write_drop(w, m, REMOTE_WRITE_DELTA,
				  m->temporality == TEMPORALITY_DELTA ? "delta temporality"
								      : "no temporality");
	else if (p->fault != NULL)
		remote_write_drop(w, m, REMOTE_WRITE_FAULTY, p->fault);
	else if (w->name.n == 0)
		remote_write_drop(w, m, REMOTE_WRITE_NAMELESS, "no name is left of it");
	else
		return true;
	return false;
}

/* Append a point's series. False: there is no room for them in this request. */
static bool add_point(struct remote_write *w, struct walk *k, const struct metric_point *p,
		      int64_t now_ms, struct buf *out)
{
	const struct metrics_reader *r = &k->reader;
	int64_t time_ms = p->time_ns ? (int64_t)(p->time_ns / 1000000) : now_ms;
	size_t before = out->n;

	enter(w, k);
	if (!is_good(w, &r->metric, p))
		return true;
	describe(w, &r->metric, out);
	if (!remote_write_point(w, r, p, time_ms, out))
		return true;
	if (out->overflow) {
		out->overflow = false;
		out->n = before;
		if (w->n_points > 0)
			return false;
		remote_write_drop(w, &r->metric, REMOTE_WRITE_TOO_LARGE,
				  "one point is larger than two requests");
		return true;
	}
	w->n_points++;
	if (k->target != NULL)
		touch(w, k->target, r->resource.message, time_ms);
	return true;
}

static void begin(struct remote_write *w)
{
	untouch(w);
	map_fini(&w->described);
	w->described = (struct map)MAP_INIT;
	w->n_points = 0;
	w->first_dropped[0] = '\0';
	memset(w->dropped, 0, sizeof(w->dropped));
}

static bool is_full(const struct remote_write *w, size_t n_bytes)
{
	return (w->o.max_bytes > 0 && n_bytes >= w->o.max_bytes) ||
	       (w->o.max_points > 0 && w->n_points >= w->o.max_points);
}

int remote_write_encode(struct remote_write *w, const struct span_tables *tables, uint64_t *at,
			int64_t now_ms, struct buf *out)
{
	struct walk k = { .resource = UINT32_MAX, .metric = UINT32_MAX };
	size_t start = out->n, room = w->o.max_bytes;
	struct metric_point p;
	uint64_t i = 0;
	int more = 0;

	begin(w);
	out->max = room > 0 ? start + 2 * room + 65536 : 0;
	metrics_reader_items(&k.reader, tables);
	while (!more && metrics_next(&k.reader, &p) > 0) {
		if (i++ < *at)
			continue;
		if (!add_point(w, &k, &p, now_ms, out)) {
			i--;
			more = 1;
		} else if (is_full(w, out->n - start)) {
			more = metrics_next(&k.reader, &p) > 0;
			break;
		}
	}
	*at = i;
	out->max = 0;
	put_target_infos(w, out);
	return more;
}

/* ---- life ---- */

void remote_write_init(struct remote_write *w, const struct remote_write_options *o)
{
	*w = (struct remote_write){
		.o = *o,
		.labels = PROMETHEUS_LABELS_INIT,
		.exemplar_labels = PROMETHEUS_LABELS_INIT,
	};
}

void remote_write_fini(struct remote_write *w)
{
	forget_targets(w);
	map_fini(&w->described);
	prometheus_labels_fini(&w->labels);
	prometheus_labels_fini(&w->exemplar_labels);
	arena_fini(&w->of_resource);
	arena_fini(&w->of_metric);
	buf_fini(&w->tail);
	buf_fini(&w->scratch);
	free(w->exemplars);
	free(w->bounds);
	free(w->touched);
	*w = (struct remote_write){ .n_points = 0 };
}
