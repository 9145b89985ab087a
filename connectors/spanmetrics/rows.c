/* SPDX-License-Identifier: Apache-2.0
 *
 * rows.c - see rows.h.
 */
#include "connectors/spanmetrics/rows.h"

#include "base/clock.h"
#include "base/mem.h"

#include <math.h>

/* Rows that spans only competed for, and that were never counted, leave after a while. */
#define UNCOUNTED_NS (300 * NS_PER_S)

void rows_begin(struct rows *r, struct span_resource *resource)
{
	r->resource = resource;
	r->shard = 0;
	r->at = NULL;
}

static bool is_delta(const struct rows *r)
{
	return r->conf->temporality == TEMPORALITY_DELTA;
}

/* Is this family a histogram's? Its sums are in the unit; those of machines in seconds. */
static double ns_per_unit(const struct rows *r, const struct series *s)
{
	return series_family(s) == FAMILY_HOST_LATENCY ? (double)NS_PER_S
						       : r->st->families.ns_per_unit;
}

static bool has_passed(const struct rows *r, uint64_t since_ns, int64_t expiration_ns)
{
	return expiration_ns > 0 && since_ns < r->now_ns &&
	       r->now_ns - since_ns > (uint64_t)expiration_ns;
}

/* Nothing has come to it, or to its resource, for so long that it is to be forgotten. */
static bool is_expired(const struct rows *r, const struct series *s)
{
	/* A batch may be counted under the time at which it came: what it brought is sent first. */
	if (is_delta(r) && s->last_ns < r->last_flush_ns && s->calls < 0.5)
		return true;
	return has_passed(r, s->last_ns, r->conf->series_expiration_ns) ||
	       has_passed(r, atomic_load(&r->resource->last_ns), r->conf->metrics_expiration_ns) ||
	       (!s->is_counted && has_passed(r, s->last_ns, (int64_t)UNCOUNTED_NS));
}

/* ---- numbers ---- */

static uint64_t *add_counts(struct rows *r, struct row_copy *to, uint32_t n)
{
	to->counts = (uint32_t)r->n_counts;
	to->n_counts = n;
	r->counts = xgrow(r->counts, &r->counts_cap, r->n_counts + n + 1, sizeof(*r->counts));
	r->n_counts += n;
	return r->counts + to->counts;
}

static uint64_t total(const uint64_t *v, uint32_t n)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < n; i++)
		sum += v[i];
	return sum;
}

static void take_out(double *counts, const uint64_t *sent, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		counts[i] -= (double)sent[i];
}

static void copy_explicit(struct rows *r, struct series *s, struct row_copy *to)
{
	uint64_t *counts = add_counts(r, to, s->n_buckets);

	histogram_round(s->buckets, s->n_buckets, counts);
	to->count = total(counts, s->n_buckets);
	if (is_delta(r))
		take_out(s->buckets, counts, s->n_buckets);
}

/* Zeros first, then the buckets: one running total. */
static void copy_exponential(struct rows *r, struct series *s, struct row_copy *to)
{
	struct exponential *e = s->exponential;
	uint64_t *counts = add_counts(r, to, e->n + 1);

	histogram_round_from(e->zero_count, e->counts, e->n, counts);
	to->is_exponential = true;
	to->zero_count = counts[0];
	to->scale = e->scale;
	to->offset = e->offset;
	to->count = total(counts, e->n + 1);
	/* Buckets are scaled anew in every interval; what rounding left goes to the zeros. */
	if (is_delta(r)) {
		exponential_reset(e);
		e->zero_count = s->calls - (double)to->count;
	}
}

static void copy_numbers(struct rows *r, struct series *s, struct row_copy *to)
{
	if (s->n_buckets > 0)
		copy_explicit(r, s, to);
	else if (s->exponential != NULL)
		copy_exponential(r, s, to);
	else
		to->count = s->calls > 0 ? (uint64_t)llround(s->calls) : 0;
	to->sum = s->sum_ns / ns_per_unit(r, s);
	to->size_bytes = (uint64_t)llround(s->size_bytes);
	to->start_ns = s->start_ns;
	if (!is_delta(r))
		return;
	s->calls -= (double)to->count;
	s->sum_ns = 0;
	s->size_bytes = 0;
	s->start_ns = r->now_ns;
}

/* ---- exemplars ---- */

static void add_exemplar(void *arg, const struct exemplar *x)
{
	struct rows *r = arg;
	struct row_copy *to = &r->v[r->n];
	uint64_t max = r->conf->exemplars_per_point;

	if (max > 0 && to->n_exemplars >= max)
		return;
	r->exemplars =
		xgrow(r->exemplars, &r->exemplars_cap, r->n_exemplars + 1, sizeof(*r->exemplars));
	r->exemplars[r->n_exemplars++] = *x;
	to->n_exemplars++;
}

static void copy_exemplars(struct rows *r, struct series *s, struct row_copy *to)
{
	struct exemplar x;

	to->exemplars = (uint32_t)r->n_exemplars;
	if (s->slots == NULL)
		return;
	to->has_best = slots_best(s->slots, r->now_ns, &to->best);
	if (s->exponential != NULL)
		slots_each(s->slots, r->now_ns, add_exemplar, r);
	for (uint32_t b = 0; b < s->n_buckets; b++)
		if (slots_exposed(s->slots, b, r->now_ns, &x))
			add_exemplar(r, &x);
}

/* ---- the walk ---- */

/* One row, lock held. */
static void copy_row(struct rows *r, struct series *s)
{
	struct row_copy *to = &r->v[r->n];

	*to = (struct row_copy){ .row = s };
	copy_numbers(r, s, to);
	copy_exemplars(r, s, to);
	r->n_bytes += 2 * (s->n_attributes + 64) + to->n_counts * 10 +
		      (s->n_buckets > 0 ? s->n_buckets * 8 : 0) + (to->n_exemplars + 1) * 64;
	r->n++;
}

/* Some rows of the shard at hand; its list ends at NULL. */
static void copy_some(struct rows *r)
{
	struct series_shard *sh = &r->st->series.shards[r->shard];

	/* Before the lock: room for what is copied under it. */
	r->v = xgrow(r->v, &r->cap, r->n + ROWS_AT_ONCE, sizeof(*r->v));
	r->counts = xgrow(r->counts, &r->counts_cap,
			  r->n_counts + ROWS_AT_ONCE * (r->conf->n_bounds + 1), sizeof(*r->counts));
	pthread_mutex_lock(&sh->lock);
	if (r->at == NULL)
		r->at = &r->resource->rows[r->shard];
	for (unsigned i = 0; i < ROWS_AT_ONCE && *r->at != NULL; i++) {
		struct series *s = *r->at;

		if (is_expired(r, s)) {
			series_remove(&r->st->series, r->at);
			continue;
		}
		if (s->is_counted)
			copy_row(r, s);
		r->at = &s->next_of_resource;
	}
	if (*r->at == NULL) {
		r->at = NULL;
		r->shard++;
	}
	pthread_mutex_unlock(&sh->lock);
}

bool rows_copy(struct rows *r)
{
	r->n = r->n_counts = r->n_exemplars = r->n_bytes = 0;
	while (r->shard < SERIES_SHARDS && r->n + ROWS_AT_ONCE <= ROWS_MAX &&
	       r->n_bytes < ROWS_MAX_BYTES)
		copy_some(r);
	return r->n > 0 || r->shard < SERIES_SHARDS;
}

void rows_fini(struct rows *r)
{
	free(r->v);
	free(r->counts);
	free(r->exemplars);
}

/* ---- writing ---- */

static void write_exemplar(struct rows *r, struct metrics_writer *w, const struct exemplar *x,
			   double ns_unit)
{
	struct metric_exemplar out = {
		.time_ns = x->time_ns,
		.has_value = true,
		.number = { .d = (double)x->value_ns / ns_unit },
		.trace_id = { x->trace_id, sizeof(x->trace_id) },
		.span_id = { x->span_id, sizeof(x->span_id) },
	};

	(void)r;
	metrics_point_exemplar(w, &out, BYTES_EMPTY);
}

static void begin_point(struct rows *r, struct metrics_writer *w, const struct row_copy *c)
{
	metrics_point_begin(w);
	metrics_point_times(w, c->start_ns, r->now_ns);
	metrics_point_attributes(w, series_attributes(c->row));
}

static void write_sum(struct rows *r, struct metrics_writer *w, const struct row_copy *c,
		      enum span_metric m)
{
	begin_point(r, w, c);
	metrics_point_int(w, (int64_t)(m == SPAN_METRIC_SIZE ? c->size_bytes : c->count));
	if (m == SPAN_METRIC_CALLS && c->has_best)
		write_exemplar(r, w, &c->best, r->st->families.ns_per_unit);
	metrics_point_end(w);
}

static void write_histogram(struct rows *r, struct metrics_writer *w, const struct row_copy *c)
{
	const uint64_t *counts = r->counts + c->counts;

	begin_point(r, w, c);
	metrics_point_count(w, c->count);
	metrics_point_sum(w, c->sum);
	if (c->is_exponential) {
		metrics_point_scale(w, c->scale, c->zero_count, 0);
		if (c->n_counts > 1)
			metrics_point_positive(w, c->offset, counts + 1, c->n_counts - 1);
	} else if (c->n_counts > 0) {
		metrics_point_buckets(w, r->st->bounds, counts, r->conf->n_bounds);
	}
	for (uint32_t i = 0; i < c->n_exemplars; i++)
		write_exemplar(r, w, &r->exemplars[c->exemplars + i], ns_per_unit(r, c->row));
	metrics_point_end(w);
}

static bool has_metric(const struct row_copy *c, enum span_metric m)
{
	switch (series_family(c->row)) {
	case FAMILY_SPANS:
		return m == SPAN_METRIC_CALLS || m == SPAN_METRIC_SIZE ||
		       (m == SPAN_METRIC_DURATION && (c->n_counts > 0 || c->is_exponential));
	case FAMILY_DURATION:
		return m == SPAN_METRIC_DURATION;
	case FAMILY_EVENTS:
		return m == SPAN_METRIC_EVENTS;
	case FAMILY_HOST_CALLS:
		return m == SPAN_METRIC_HOST_CALLS;
	case FAMILY_HOST_LATENCY:
		return m == SPAN_METRIC_HOST_LATENCY;
	default:
		return false;
	}
}

static void begin_metric(struct rows *r, struct metrics_writer *w, enum span_metric m)
{
	const struct family_metric *f = &r->st->families.metrics[m];
	bool is_histogram = m == SPAN_METRIC_DURATION || m == SPAN_METRIC_HOST_LATENCY;
	bool is_exponential = m == SPAN_METRIC_DURATION && r->conf->exponential_on;

	metrics_write_metric(w,
			     &(struct metric){ .name = bytes_str(f->name),
					       .unit = bytes_str(f->unit),
					       .kind = is_exponential ? METRIC_EXPONENTIAL_HISTOGRAM
						       : is_histogram ? METRIC_HISTOGRAM
								      : METRIC_SUM,
					       .temporality = (uint8_t)r->conf->temporality,
					       .is_monotonic = !is_histogram });
}

static void write_metric(struct rows *r, struct metrics_writer *w, enum span_metric m)
{
	bool begun = false;

	if (r->st->families.metrics[m].name == NULL)
		return;
	for (size_t i = 0; i < r->n; i++) {
		const struct row_copy *c = &r->v[i];

		if (!has_metric(c, m) || (is_delta(r) && c->count == 0))
			continue;
		if (!begun)
			begin_metric(r, w, m);
		begun = true;
		if (w->kind == METRIC_SUM)
			write_sum(r, w, c, m);
		else
			write_histogram(r, w, c);
	}
}

void rows_write(struct rows *r, struct metrics_writer *w)
{
	if (r->n == 0)
		return;
	metrics_write_resource(w, r->resource->message, BYTES_EMPTY);
	metrics_write_scope(w, BYTES_LIT("spanmetricsconnector"), BYTES_EMPTY);
	for (int m = 0; m < SPAN_METRIC_MAX; m++)
		write_metric(r, w, (enum span_metric)m);
}
