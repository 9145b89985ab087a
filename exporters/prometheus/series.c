/* SPDX-License-Identifier: Apache-2.0
 *
 * series.c - see series.h.
 */
#include "exporters/prometheus/series.h"

#include "base/mem.h"

enum { SHARED_BOUNDS = 64, QUANTILES_MAX = 64 };

static size_t explicit_bytes(uint32_t n_bounds)
{
	return sizeof(struct explicit_buckets) + ((size_t)n_bounds + 1) * sizeof(uint64_t);
}

/* With the layout, when it is too large to be shared for nothing. */
static size_t buckets_bytes(uint32_t n_bounds)
{
	return explicit_bytes(n_bounds) + (n_bounds > SHARED_BOUNDS ? layout_bytes(n_bounds) : 0);
}

static void distribution_reset(struct distribution *d)
{
	if (d->buckets != NULL)
		layout_unref(d->buckets->layout);
	free(d->buckets);
	free(d->exponential);
	free(d->quantiles);
	*d = (struct distribution){ 0 };
}

struct series *series_new(const struct series_point *at)
{
	struct series *s = xcalloc(1, sizeof(*s) + at->labels.n + at->escaped.n);

	s->family = at->family;
	s->hash = at->hash;
	s->n_labels = (uint32_t)at->labels.n;
	s->n_escaped = (uint32_t)at->escaped.n;
	if (at->labels.n > 0)
		memcpy(s->text, at->labels.p, at->labels.n);
	if (at->escaped.n > 0)
		memcpy(s->text + at->labels.n, at->escaped.p, at->escaped.n);
	return s;
}

void series_free(struct series *s)
{
	if (s->distribution != NULL)
		distribution_reset(s->distribution);
	free(s->distribution);
	if (s->exemplars != NULL)
		exemplars_fini(s->exemplars);
	free(s->exemplars);
	free(s);
}

size_t series_bytes(const struct series *s)
{
	const struct distribution *d = s->distribution;
	size_t n = sizeof(*s) + s->n_labels + s->n_escaped + 2 * sizeof(struct series *);

	if (s->exemplars != NULL)
		n += sizeof(*s->exemplars) + s->exemplars->bytes;
	if (d == NULL)
		return n;
	n += sizeof(*d);
	if (d->buckets != NULL)
		n += buckets_bytes(d->buckets->layout->n);
	if (d->exponential != NULL)
		n += sizeof(*d->exponential);
	if (d->quantiles != NULL)
		n += sizeof(*d->quantiles) + d->quantiles->n * sizeof(d->quantiles->v[0]);
	return n;
}

size_t series_bytes_of(const struct series_point *at)
{
	size_t n =
		sizeof(struct series) + at->labels.n + at->escaped.n + 2 * sizeof(struct series *);

	if (at->kind == METRIC_HISTOGRAM)
		n += sizeof(struct distribution) + buckets_bytes(at->n_bounds);
	if (at->kind == METRIC_EXPONENTIAL_HISTOGRAM)
		n += sizeof(struct distribution) + sizeof(struct exponential_buckets);
	for (uint32_t i = 0; i < at->n_exemplars; i++)
		n += sizeof(struct exemplar) + sizeof(struct exemplar_slot) +
		     at->exemplars[i].labels.n;
	return n;
}

/* ---- values ---- */

static void add_number(struct metric_number *to, const struct metric_number *n)
{
	int64_t sum;

	if (to->is_int && n->is_int && !__builtin_add_overflow(to->i, n->i, &sum)) {
		to->i = sum;
		return;
	}
	to->d = metric_number_double(to) + metric_number_double(n);
	to->is_int = false;
}

static void set_buckets(struct distribution *d, const struct series_point *at, bool add)
{
	struct explicit_buckets *b = d->buckets;

	if (b == NULL) {
		b = xcalloc(1, explicit_bytes(at->n_bounds));
		b->layout = family_layout(at->family, at->bounds, at->n_bounds);
		d->buckets = b;
	}
	for (uint32_t i = 0; i <= at->n_bounds; i++)
		b->counts[i] = (add ? b->counts[i] : 0) + (at->counts ? at->counts[i] : 0);
}

static void set_exponential(struct distribution *d, const struct metric_point *p, bool add)
{
	struct exponential_buckets *e = d->exponential;

	if (e == NULL)
		e = d->exponential = xcalloc(1, sizeof(*e));
	if (!add)
		*e = (struct exponential_buckets){ 0 };
	e->zero_count += p->zero_count;
	e->zero_threshold = MAX(e->zero_threshold, p->zero_threshold);
	octaves_add_buckets(&e->positive, &p->positive, p->scale);
	octaves_add_buckets(&e->negative, &p->negative, p->scale);
}

/* Quantiles outside 0..1 are not shown, and of one quantile the first. */
static void set_quantiles(struct distribution *d, const struct metric_point *p)
{
	struct bytes it = p->message;
	double q, v;
	uint32_t n = 0;

	while (metric_quantile_next(p, &it, &q, &v) && n < QUANTILES_MAX)
		n++;
	free(d->quantiles);
	d->quantiles = xcalloc(1, sizeof(*d->quantiles) + n * sizeof(d->quantiles->v[0]));
	it = p->message;
	for (uint32_t i = 0, k; i < n && metric_quantile_next(p, &it, &q, &v); i++) {
		struct quantiles *to = d->quantiles;

		for (k = 0; k < to->n && to->v[k][0] != q;)
			k++;
		if (k < to->n || !(q >= 0 && q <= 1))
			continue;
		to->v[to->n][0] = q;
		to->v[to->n++][1] = v;
	}
}

/* May the delta be added to what is there? With other bounds the series begins anew. */
static bool may_add(const struct distribution *d, const struct series_point *at)
{
	if (at->kind == METRIC_HISTOGRAM)
		return d->buckets != NULL &&
		       layout_is(d->buckets->layout, at->bounds, at->n_bounds);
	return d->exponential != NULL;
}

static void set_distribution(struct series *s, const struct series_point *at)
{
	struct distribution *d = s->distribution;
	bool add, same;

	if (d == NULL)
		d = s->distribution = xcalloc(1, sizeof(*d));
	same = at->kind == METRIC_SUMMARY || may_add(d, at);
	add = same && at->is_delta;
	if (!same) {
		distribution_reset(d);
		/* Theirs are other buckets. */
		if (s->exemplars != NULL)
			exemplars_fini(s->exemplars);
	}
	d->count = at->p.count + (add ? d->count : 0);
	d->sum = at->p.sum + (add ? d->sum : 0);
	d->has_sum = at->p.has_sum && (!add || d->has_sum);
	if (at->kind == METRIC_HISTOGRAM)
		set_buckets(d, at, add);
	else if (at->kind == METRIC_EXPONENTIAL_HISTOGRAM)
		set_exponential(d, &at->p, add);
	else
		set_quantiles(d, &at->p);
}

static void set_value(struct series *s, const struct series_point *at)
{
	if (at->kind != METRIC_GAUGE && at->kind != METRIC_SUM)
		set_distribution(s, at);
	else if (at->is_delta)
		add_number(&s->number, &at->p.number);
	else
		s->number = at->p.number;
}

/* It ended and came back: a delta has nothing to be added to. */
static void begin_anew(struct series *s)
{
	s->is_gone = false;
	s->time_ns = 0;
	s->number = (struct metric_number){ .is_int = true };
	if (s->distribution != NULL)
		distribution_reset(s->distribution);
}

int series_apply(struct series *s, const struct series_point *at, uint64_t now_ns)
{
	uint64_t time = at->p.time_ns;

	if (at->p.flags & METRIC_NO_RECORDED_VALUE) {
		s->is_gone = true;
		return 0;
	}
	/* A delta of the same time is one that was sent again. */
	if (!s->is_gone && time != 0 && (at->is_delta ? time <= s->time_ns : time < s->time_ns))
		return -1;
	if (s->is_gone || s->seen_ns == 0)
		begin_anew(s);
	set_value(s, at);
	s->seen_ns = now_ns;
	s->time_ns = MAX(time, s->time_ns);
	if (at->n_exemplars > 0 && s->exemplars == NULL)
		s->exemplars = xcalloc(1, sizeof(*s->exemplars));
	for (uint32_t i = 0; i < at->n_exemplars; i++)
		exemplars_offer(s->exemplars, &at->exemplars[i], now_ns);
	return 0;
}
