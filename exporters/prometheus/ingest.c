/* SPDX-License-Identifier: Apache-2.0
 *
 * ingest.c - see ingest.h.
 *
 * DESIGN: points go in chunks: family, labels as text, hash and buckets of each without a lock but
 * the families' short one per metric; then store_apply. The `life` lock is held for a chunk, not
 * for a batch, so that the sweep and those behind it never wait for a large one.
 * LIMITS: LABELS_MAX of text a series, EXEMPLARS_MAX a point.
 */
#include "exporters/prometheus/ingest.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "exporters/prometheus/text.h"
#include "wire/prometheus_labels.h"

#include <math.h>

enum {
	CHUNK_POINTS = 512,
	CHUNK_BYTES = 4 * 1024 * 1024, /* of text and lists; then the chunk is done */
	LABELS_MAX = 64 * 1024,
	EXEMPLARS_MAX = 256,
	FAMILY_ROOM = 4096,
};

struct work {
	struct store *store;
	const struct ingest_options *o;
	const char *tenant;
	struct ingest_result *result;
	struct metrics_reader r;
	struct series_point *points; /* CHUNK_POINTS and one */
	uint8_t *why;
	uint32_t *items; /* of points */
	size_t n;
	/* of the chunk */
	struct arena arena;
	/* of the resource, the metric */
	struct arena resource_arena;
	struct prometheus_target target;
	uint32_t resource_no, metric_no, last_bad_item;
	struct family *family;
	enum dropped family_fault; /* DROPPED_MAX: none */
	struct buf name, unit, text;
	struct prometheus_labels labels;
	uint64_t wall_ms;
};

/* ---- what is lost ---- */

static void lose(struct work *w, uint32_t item, enum dropped d, const char *why)
{
	struct bytes name = w->r.metric.name;
	struct ingest_result *res = w->result;

	res->n_dropped[d]++;
	if (d == DROPPED_OLD || item == w->last_bad_item)
		return;
	w->last_bad_item = item;
	if (res->n_bad_items++ == 0)
		err_set(&res->why, d == DROPPED_MEMORY ? ERR_EXHAUSTED : ERR_INVALID,
			"metric %.*s: %s", (int)MIN(name.n, (size_t)80),
			name.n > 0 ? (const char *)name.p : "", why);
}

static const char *explain(enum dropped d)
{
	static const char *const texts[DROPPED_MAX] = {
		[DROPPED_CONFLICT] = "another metric has its name in Prometheus: rename one or "
				     "give them types that agree",
		[DROPPED_MEMORY] = "no memory for another series: raise memory_limiter's limit or "
				   "drop attributes",
		[DROPPED_NAME] = "nothing is left of its name in Prometheus",
		[DROPPED_LABELS] = "its labels are longer than 64 KiB",
		[DROPPED_TEMPORALITY] = "its temporality is neither delta nor cumulative",
	};

	return texts[d];
}

/* ---- names ---- */

static enum family_kind family_kind(enum prometheus_kind kind)
{
	switch (kind) {
	case PROMETHEUS_COUNTER:
		return FAMILY_COUNTER;
	case PROMETHEUS_HISTOGRAM:
		return FAMILY_HISTOGRAM;
	case PROMETHEUS_SUMMARY:
		return FAMILY_SUMMARY;
	default:
		return FAMILY_GAUGE;
	}
}

static bool has_temporality(const struct metric *m)
{
	return m->kind == METRIC_GAUGE || m->kind == METRIC_SUMMARY ||
	       m->temporality == TEMPORALITY_DELTA || m->temporality == TEMPORALITY_CUMULATIVE;
}

static struct family *find_family(struct work *w, const struct family_head *head,
				  enum dropped *fault)
{
	const struct family *other;
	struct family *f = family_table_find(&w->store->families, head,
					     store_has_room(w->store, FAMILY_ROOM), &other);

	*fault = f != NULL ? DROPPED_MAX : other != NULL ? DROPPED_CONFLICT : DROPPED_MEMORY;
	return f;
}

/* The family of the metric at hand, once per metric and chunk. */
static void enter_metric(struct work *w)
{
	const struct metric *m = &w->r.metric;
	enum prometheus_kind kind = prometheus_kind_of(m);
	struct family_head head = { .kind = family_kind(kind) };

	w->metric_no = m->no;
	w->family = NULL;
	w->family_fault = DROPPED_TEMPORALITY;
	if (!has_temporality(m))
		return;
	buf_reset(&w->name);
	buf_reset(&w->unit);
	w->family_fault = DROPPED_NAME;
	if (prometheus_metric_name(&w->o->naming, m->name, m->unit, kind, &w->name) < 0)
		return;
	prometheus_unit_name(m->unit, kind, &w->unit);
	head.name = buf_bytes(&w->name);
	head.unit = buf_bytes(&w->unit);
	/* A metric without a word of help is a lint of promtool: its own name says more. */
	head.help = m->description.n > 0 ? m->description : m->name;
	w->family = find_family(w, &head, &w->family_fault);
}

/* ---- labels ---- */

static void add_own_labels(struct work *w, struct prometheus_labels *l)
{
	const struct strmap *c = &w->o->const_labels;

	for (size_t i = 0; i < c->n; i++)
		prometheus_labels_add_external(l, bytes_str(c->items[i].name),
					       bytes_str(c->items[i].value));
	if (w->tenant != NULL)
		prometheus_labels_add(l, BYTES_LIT("tenant"), bytes_str(w->tenant));
}

static void point_labels(struct work *w, const struct prometheus_naming *n,
			 const struct metric_point *p)
{
	struct prometheus_labels *l = &w->labels;

	prometheus_labels_reset(l);
	prometheus_labels_add_attributes(l, n, p->message, p->attribute_field);
	if (w->o->resource_labels)
		prometheus_labels_add_attributes(l, n, w->r.resource.message,
						 METRIC_RESOURCE_ATTRIBUTES);
	prometheus_labels_add_target(l, &w->target);
	if (!w->o->without_scope)
		prometheus_labels_add_scope(l, n, w->r.scope.message, w->r.scope.schema_url);
	add_own_labels(w, l);
	prometheus_labels_finish(l);
	/* Lines of one point differ by these: theirs count. */
	if (w->family->kind == FAMILY_HISTOGRAM)
		prometheus_labels_put(l, BYTES_LIT("le"), BYTES_EMPTY);
	if (w->family->kind == FAMILY_SUMMARY)
		prometheus_labels_put(l, BYTES_LIT("quantile"), BYTES_EMPTY);
}

/* The finished set as it stands between the braces, in the chunk's arena; when that is longer than
 * LABELS_MAX only its length says so. *is_legal: no name needs quotes. */
static struct bytes labels_text(struct work *w, bool *is_legal)
{
	const struct prometheus_labels *l = &w->labels;

	*is_legal = true;
	buf_reset(&w->text);
	for (uint32_t i = 0; i < l->n; i++) {
		if (w->text.n + l->v[i].name.n + l->v[i].value.n > LABELS_MAX)
			return (struct bytes){ NULL, LABELS_MAX + 1 };
		if (i > 0)
			buf_add_char(&w->text, ',');
		*is_legal &= text_put_label(&w->text, l->v[i].name, l->v[i].value);
	}
	return (struct bytes){ arena_dup(&w->arena, w->text.p, w->text.n), w->text.n };
}

/* The hash. False: they are too long. */
static bool settle_labels(struct work *w, struct series_point *at)
{
	if (at->labels.n + at->escaped.n > LABELS_MAX)
		return false;
	at->hash = store_hash(w->store, at->family, at->labels);
	return true;
}

/* Labels and hash. False: too long. */
static bool name_point(struct work *w, struct series_point *at)
{
	struct prometheus_naming legal = w->o->naming;
	bool is_legal;

	point_labels(w, &w->o->naming, &at->p);
	at->labels = labels_text(w, &is_legal);
	if (!is_legal) {
		legal.is_utf8 = false;
		point_labels(w, &legal, &at->p);
		at->escaped = labels_text(w, &is_legal);
	}
	return settle_labels(w, at);
}

/* ---- values ---- */

static void take_buckets(struct work *w, struct series_point *at)
{
	struct metric_list counts = at->p.counts, bounds = at->p.bounds;
	uint64_t *c = arena_zalloc(&w->arena, (counts.left + 1) * sizeof(*c));
	double *b = arena_alloc(&w->arena, (bounds.left + 1) * sizeof(*b));
	uint32_t n = 0;

	at->bounds = b;
	at->counts = counts.left > 0 ? c : NULL;
	while (metric_list_next_u64(&counts, c))
		c++;
	while (metric_list_next_double(&bounds, b + n))
		n++;
	/* The page has a bucket of +Inf of its own. */
	if (n > 0 && isinf(b[n - 1]) && b[n - 1] > 0) {
		n--;
		((uint64_t *)(uintptr_t)at->counts)[n] += at->counts[n + 1];
	}
	at->n_bounds = n;
}

/* The bucket of a value: bounds are inclusive above. */
static int32_t bucket_of(const struct series_point *at, double v)
{
	uint32_t lo = 0, hi = at->n_bounds;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (at->bounds[mid] < v)
			lo = mid + 1;
		else
			hi = mid;
	}
	return (int32_t)lo;
}

static bool exemplar_key(const struct series_point *at, double v, int32_t *key)
{
	*key = 0;
	if (isnan(v))
		return false;
	if (at->kind == METRIC_HISTOGRAM)
		*key = bucket_of(at, v);
	if (at->kind == METRIC_EXPONENTIAL_HISTOGRAM && v > 0)
		*key = octave_of(v);
	return at->kind != METRIC_EXPONENTIAL_HISTOGRAM || v > 0;
}

/* ids, then what of the filtered attributes is within 128 code points. */
static struct bytes exemplar_labels(struct work *w, const struct metric_exemplar *x)
{
	struct prometheus_naming legal = { .is_utf8 = false };
	struct prometheus_labels *l = &w->labels;
	size_t points = 0;
	char hex[33];

	buf_reset(&w->text);
	if (x->trace_id.n > 0) {
		str_hex(x->trace_id.p, 16, hex);
		points += text_put_exemplar_label(&w->text, BYTES_LIT("trace_id"), bytes_str(hex));
	}
	if (x->span_id.n > 0) {
		str_hex(x->span_id.p, 8, hex);
		points += text_put_exemplar_label(&w->text, BYTES_LIT("span_id"), bytes_str(hex));
	}
	prometheus_labels_reset(l);
	prometheus_labels_add_attributes(l, &legal, x->message, METRIC_EXEMPLAR_ATTRIBUTES);
	prometheus_labels_finish(l);
	for (uint32_t i = 0; i < l->n; i++) {
		struct bytes name = l->v[i].name, value = l->v[i].value;
		size_t more = text_code_points(name) + text_code_points(value);

		if (points + more > EXEMPLAR_CODE_POINTS || bytes_eq_str(name, "trace_id") ||
		    bytes_eq_str(name, "span_id"))
			continue;
		points += text_put_exemplar_label(&w->text, name, value);
	}
	return (struct bytes){ arena_dup(&w->arena, w->text.p, w->text.n), w->text.n };
}

static bool shows_exemplars(const struct family *f)
{
	return f->kind == FAMILY_COUNTER || f->kind == FAMILY_HISTOGRAM;
}

static void take_exemplars(struct work *w, struct series_point *at)
{
	uint32_t max = MIN(at->p.n_exemplars, (uint32_t)EXEMPLARS_MAX);
	struct bytes it = at->p.message;
	struct exemplar_offer *v;
	struct metric_exemplar x;
	uint32_t n = 0;

	if (max == 0 || !shows_exemplars(at->family))
		return;
	v = arena_alloc(&w->arena, max * sizeof(*v));
	while (n < max && metric_exemplar_next(&at->p, &it, &x)) {
		uint64_t time_ns = x.time_ns != 0 ? x.time_ns : at->p.time_ns;

		v[n].value = metric_number_double(&x.number);
		if (!exemplar_key(at, v[n].value, &v[n].key))
			continue;
		v[n].time_ms = time_ns != 0 ? time_ns / NS_PER_MS : w->wall_ms;
		v[n].labels = exemplar_labels(w, &x);
		n++;
	}
	at->exemplars = v;
	at->n_exemplars = n;
}

/* ---- chunks ---- */

static void flush(struct work *w)
{
	store_apply(w->store, w->points, w->n, w->why);
	for (size_t i = 0; i < w->n; i++) {
		if (w->why[i] < DROPPED_MAX)
			lose(w, w->items[i], (enum dropped)w->why[i],
			     explain((enum dropped)w->why[i]));
		else
			w->result->n_taken += w->points[i].family->kind != FAMILY_INFO;
	}
	w->n = 0;
	arena_reset(&w->arena);
}

/* The next place of the chunk, cleared. */
static struct series_point *next_point(struct work *w)
{
	struct series_point *at = &w->points[w->n];

	w->items[w->n] = w->r.item;
	*at = (struct series_point){ .family = w->family, .kind = w->r.metric.kind };
	return at;
}

static void add_target_info(struct work *w)
{
	const struct family_head head = { .kind = FAMILY_INFO,
					  .name = BYTES_LIT("target_info"),
					  .help = BYTES_LIT("Target metadata") };
	struct prometheus_labels *l = &w->labels;
	struct series_point *at;
	enum dropped fault;
	bool is_legal;

	prometheus_labels_reset(l);
	if (!prometheus_labels_add_target_info(l, &w->o->naming, w->r.resource.message, &w->target))
		return;
	at = next_point(w);
	at->family = find_family(w, &head, &fault);
	if (at->family == NULL)
		return;
	add_own_labels(w, l);
	prometheus_labels_finish(l);
	at->labels = labels_text(w, &is_legal);
	if (!is_legal) {
		struct prometheus_naming legal = w->o->naming;

		legal.is_utf8 = false;
		prometheus_labels_reset(l);
		prometheus_labels_add_target_info(l, &legal, w->r.resource.message, &w->target);
		add_own_labels(w, l);
		prometheus_labels_finish(l);
		at->escaped = labels_text(w, &is_legal);
	}
	at->kind = METRIC_GAUGE;
	at->p.number = (struct metric_number){ .is_int = true, { .i = 1 } };
	w->n += settle_labels(w, at);
}

static void enter_resource(struct work *w)
{
	w->resource_no = w->r.resource.no;
	arena_reset(&w->resource_arena);
	w->target = prometheus_target(w->r.resource.message, &w->resource_arena);
	add_target_info(w);
}

/* A counter cannot be below zero, nor be no number. */
static const char *counter_fault(const struct metric *m, const struct metric_point *p)
{
	double v = metric_number_double(&p->number);

	if (!m->is_monotonic || m->kind != METRIC_SUM || (p->flags & METRIC_NO_RECORDED_VALUE))
		return NULL;
	return v >= 0 ? NULL : "a monotonic sum is negative or no number";
}

/* Find or make its family; false: the point is lost, and said so. A faulty one makes no family, or
 * it would keep the name from others. */
static bool has_family(struct work *w, const struct metric_point *p)
{
	const char *fault = p->fault != NULL ? p->fault : counter_fault(&w->r.metric, p);

	if (fault != NULL) {
		lose(w, w->r.item, DROPPED_FAULTY, fault);
		return false;
	}
	if (w->r.metric.no != w->metric_no)
		enter_metric(w);
	if (w->family == NULL)
		lose(w, w->r.item, w->family_fault, explain(w->family_fault));
	return w->family != NULL;
}

static void add_point(struct work *w, const struct metric_point *p)
{
	struct series_point *at;

	if (!has_family(w, p))
		return;
	at = next_point(w);
	at->p = *p;
	if (!name_point(w, at)) {
		lose(w, w->r.item, DROPPED_LABELS, explain(DROPPED_LABELS));
		return;
	}
	at->is_delta = at->kind != METRIC_GAUGE && at->kind != METRIC_SUMMARY &&
		       w->r.metric.temporality == TEMPORALITY_DELTA;
	if (!(p->flags & METRIC_NO_RECORDED_VALUE)) {
		if (at->kind == METRIC_HISTOGRAM)
			take_buckets(w, at);
		take_exemplars(w, at);
	}
	w->n++;
}

/* Points until the chunk is full; false at the end. */
static bool fill(struct work *w)
{
	struct metric_point p;

	while (w->n < CHUNK_POINTS && w->arena.bytes < CHUNK_BYTES) {
		if (metrics_next(&w->r, &p) <= 0)
			return false;
		if (w->r.resource.no != w->resource_no)
			enter_resource(w);
		add_point(w, &p);
	}
	return true;
}

static void work_fini(struct work *w)
{
	free(w->points);
	free(w->why);
	free(w->items);
	arena_fini(&w->arena);
	arena_fini(&w->resource_arena);
	buf_fini(&w->name);
	buf_fini(&w->unit);
	buf_fini(&w->text);
	prometheus_labels_fini(&w->labels);
}

void ingest(struct store *s, const struct ingest_options *o, const struct span_tables *tables,
	    const char *tenant, struct ingest_result *result)
{
	struct work w = { .store = s,
			  .o = o,
			  .tenant = tenant,
			  .result = result,
			  .resource_no = UINT32_MAX,
			  .metric_no = UINT32_MAX,
			  .last_bad_item = UINT32_MAX,
			  .labels = PROMETHEUS_LABELS_INIT,
			  .wall_ms = clock_wall_ns() / NS_PER_MS };
	bool more = true;

	*result = (struct ingest_result){ 0 };
	w.points = xmalloc((CHUNK_POINTS + 2) * sizeof(*w.points));
	w.why = xmalloc(CHUNK_POINTS + 2);
	w.items = xmalloc((CHUNK_POINTS + 2) * sizeof(*w.items));
	metrics_reader_items(&w.r, tables);
	while (more) {
		w.metric_no = UINT32_MAX; /* the family may go when `life` is let go */
		pthread_rwlock_rdlock(&s->life);
		more = fill(&w);
		flush(&w);
		pthread_rwlock_unlock(&s->life);
	}
	for (unsigned i = 0; i < DROPPED_MAX; i++)
		atomic_fetch_add_explicit(&s->dropped[i], result->n_dropped[i],
					  memory_order_relaxed);
	work_fini(&w);
}
