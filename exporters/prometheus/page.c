/* SPDX-License-Identifier: Apache-2.0
 *
 * page.c - see page.h.
 *
 * What OpenMetrics forbids is left out of it and stays on the text page: _sum and _count of a
 * histogram with negative buckets or without a sum that counts up, negative quantiles.
 */
#include "exporters/prometheus/page.h"

#include "base/clock.h"
#include "exporters/prometheus/number.h"
#include "exporters/prometheus/text.h"

#include <math.h>
#include <stdlib.h>

enum { SLICE_LINES = 1000, SLICE_ROOM = 256 * 1024 };

struct page {
	const struct page_options *o;
	struct buf *out;
	bool is_open;
	uint64_t now_ns;
	/* of the family at hand */
	const struct family *f;
	struct bytes name, base; /* in the page's characters */
	bool is_quoted;          /* the name needs quotes, so it goes between the braces */
	bool has_head;
	uint32_t n_lines;
};

/* One sample's place in its family. */
struct sample {
	const struct series *s;
	const char *suffix;              /* "_bucket" */
	const char *label, *label_value; /* le, quantile; NULL: none */
};

/* ---- head ---- */

static void put_name(struct page *p, struct bytes name)
{
	if (p->is_quoted) {
		buf_add_char(p->out, '"');
		text_put_escaped(p->out, name, true);
		buf_add_char(p->out, '"');
	} else {
		buf_add_bytes(p->out, name);
	}
}

static void put_meta(struct page *p, const char *what)
{
	buf_add_str(p->out, what);
	put_name(p, p->is_open ? p->base : p->name);
	buf_add_char(p->out, ' ');
}

static const char *type_name(const struct page *p)
{
	static const char *const names[] = { [FAMILY_GAUGE] = "gauge",
					     [FAMILY_COUNTER] = "counter",
					     [FAMILY_HISTOGRAM] = "histogram",
					     [FAMILY_SUMMARY] = "summary",
					     [FAMILY_INFO] = "info" };

	return p->f->kind == FAMILY_INFO && !p->is_open ? "gauge" : names[p->f->kind];
}

/* Before the family's first sample. */
static void put_head(struct page *p)
{
	if (p->has_head)
		return;
	p->has_head = true;
	if (p->is_open) {
		put_meta(p, "# TYPE ");
		buf_add_str(p->out, type_name(p));
		buf_add_char(p->out, '\n');
		if (p->f->unit.n > 0 && p->f->kind != FAMILY_INFO) {
			put_meta(p, "# UNIT ");
			buf_add_bytes(p->out, p->f->unit);
			buf_add_char(p->out, '\n');
		}
	}
	put_meta(p, "# HELP ");
	text_put_escaped(p->out, p->f->help, p->is_open);
	buf_add_char(p->out, '\n');
	if (!p->is_open) {
		put_meta(p, "# TYPE ");
		buf_add_str(p->out, type_name(p));
		buf_add_char(p->out, '\n');
	}
}

/* ---- samples ---- */

static void put_braces(struct page *p, const struct sample *at, struct bytes labels)
{
	bool is_first = !p->is_quoted;

	buf_add_char(p->out, '{');
	if (p->is_quoted) {
		buf_add_char(p->out, '"');
		text_put_escaped(p->out,
				 p->f->kind == FAMILY_COUNTER && p->is_open ? p->base : p->name,
				 true);
		buf_add_str(p->out, at->suffix);
		buf_add_char(p->out, '"');
	}
	if (labels.n > 0) {
		if (!is_first)
			buf_add_char(p->out, ',');
		buf_add_bytes(p->out, labels);
		is_first = false;
	}
	if (at->label != NULL) {
		if (!is_first)
			buf_add_char(p->out, ',');
		buf_add_str(p->out, at->label);
		buf_add(p->out, "=\"", 2);
		buf_add_str(p->out, at->label_value);
		buf_add_char(p->out, '"');
	}
	buf_add_char(p->out, '}');
}

/* name{labels} and a space. */
static void begin(struct page *p, const struct sample *at)
{
	struct bytes labels = p->o->form.is_utf8 ? series_labels(at->s) : series_escaped(at->s);

	put_head(p);
	if (!p->is_quoted) {
		buf_add_bytes(p->out,
			      p->f->kind == FAMILY_COUNTER && p->is_open ? p->base : p->name);
		buf_add_str(p->out, at->suffix);
	}
	if (p->is_quoted || labels.n > 0 || at->label != NULL)
		put_braces(p, at, labels);
	buf_add_char(p->out, ' ');
}

static void put_time(struct page *p, const struct series *s)
{
	uint64_t ms = s->time_ns / NS_PER_MS;

	if (!p->o->timestamps || ms == 0)
		return;
	buf_add_char(p->out, ' ');
	if (p->is_open)
		number_put_seconds(p->out, ms);
	else
		number_put_u64(p->out, ms);
}

static void put_exemplar(struct page *p, const struct exemplar *x)
{
	if (x == NULL)
		return;
	buf_add(p->out, " # {", 4);
	buf_add(p->out, x->labels, x->n_labels);
	buf_add(p->out, "} ", 2);
	number_put(p->out, x->value);
	buf_add_char(p->out, ' ');
	number_put_seconds(p->out, x->time_ms);
}

static void end(struct page *p, const struct series *s, const struct exemplar *x)
{
	put_time(p, s);
	put_exemplar(p, x);
	buf_add_char(p->out, '\n');
	p->n_lines++;
}

static void line_u64(struct page *p, const struct sample *at, uint64_t v, const struct exemplar *x)
{
	begin(p, at);
	number_put_u64(p->out, v);
	end(p, at->s, x);
}

static void line_double(struct page *p, const struct sample *at, double v)
{
	begin(p, at);
	number_put(p->out, v);
	end(p, at->s, NULL);
}

/* ---- kinds ---- */

/* What the slot of a bucket shows: up_to: or the nearest below. */
static const struct exemplar *exemplar_of(struct page *p, const struct series *s, int32_t key,
					  bool up_to)
{
	if (!p->is_open || s->exemplars == NULL)
		return NULL;
	return up_to ? exemplars_show_up_to(s->exemplars, key, p->o->is_scrape, p->now_ns)
		     : exemplars_show(s->exemplars, key, p->o->is_scrape, p->now_ns);
}

static void put_number(struct page *p, const struct series *s)
{
	struct sample at = { .s = s, .suffix = "" };
	bool is_total = p->is_open && p->f->kind == FAMILY_COUNTER;

	if (is_total)
		at.suffix = "_total";
	begin(p, &at);
	number_put_metric(p->out, &s->number);
	if (p->f->kind == FAMILY_INFO) /* no time: it says what is, not when */
		buf_add_char(p->out, '\n');
	else
		end(p, s, is_total ? exemplar_of(p, s, 0, false) : NULL);
}

static void put_explicit(struct page *p, const struct series *s)
{
	const struct explicit_buckets *b = s->distribution->buckets;
	const struct layout *l = b->layout;
	struct sample at = { s, "_bucket", "le", NULL };
	uint64_t sum = 0;

	for (uint32_t i = 0; i < l->n; i++) {
		sum += b->counts[i];
		at.label_value = l->le[p->is_open][i];
		line_u64(p, &at, sum, exemplar_of(p, s, (int32_t)i, false));
	}
	at.label_value = "+Inf";
	line_u64(p, &at, s->distribution->count, exemplar_of(p, s, (int32_t)l->n, false));
}

static void bucket_line(struct page *p, const struct series *s, double bound, uint64_t sum,
			const struct exemplar *x)
{
	char le[NUMBER_BOUND_MAX];
	struct sample at = { s, "_bucket", "le", le };

	number_bound(bound, p->is_open, le);
	line_u64(p, &at, sum, x);
}

/* Values of a negative octave lie in [-2^(i+1), -2^i). */
static uint64_t put_negative(struct page *p, const struct series *s, const struct octaves *o)
{
	uint64_t sum = 0;

	for (uint32_t i = o->n; i-- > 0;) {
		sum += o->counts[i];
		bucket_line(p, s, -ldexp(1, o->lo + (int32_t)i), sum, NULL);
	}
	return sum;
}

static void put_exponential(struct page *p, const struct series *s)
{
	const struct exponential_buckets *e = s->distribution->exponential;
	const struct octaves *o = &e->positive;
	double first = o->n > 0 ? ldexp(1, o->lo + 1) : INFINITY;
	uint64_t sum = put_negative(p, s, &e->negative) + e->zero_count;
	uint32_t i;

	if (e->zero_threshold >= 0 && e->zero_threshold < first)
		bucket_line(p, s, e->zero_threshold, sum, NULL);
	for (i = 0; i < o->n && o->lo + (int32_t)i < OCTAVE_HIGHEST; i++) {
		int32_t octave = o->lo + (int32_t)i;

		sum += o->counts[i];
		bucket_line(p, s, ldexp(1, octave + 1), sum, exemplar_of(p, s, octave, i == 0));
	}
	bucket_line(p, s, INFINITY, s->distribution->count,
		    exemplar_of(p, s, OCTAVE_HIGHEST, o->n == 0));
}

static bool has_negative(const struct distribution *d)
{
	return (d->buckets != NULL && d->buckets->layout->has_negative) ||
	       (d->exponential != NULL && d->exponential->negative.n > 0);
}

static void put_histogram(struct page *p, const struct series *s)
{
	const struct distribution *d = s->distribution;
	struct sample at = { .s = s, .suffix = "_sum" };
	bool has_sum = d->has_sum, has_count = true;

	if (d->buckets != NULL)
		put_explicit(p, s);
	else
		put_exponential(p, s);
	if (p->is_open)
		has_sum = has_count = has_sum && d->sum >= 0 && !has_negative(d);
	if (has_sum)
		line_double(p, &at, d->sum);
	at.suffix = "_count";
	if (has_count)
		line_u64(p, &at, d->count, NULL);
}

static void put_summary(struct page *p, const struct series *s)
{
	const struct distribution *d = s->distribution;
	const struct quantiles *q = d->quantiles;
	char text[NUMBER_BOUND_MAX];
	struct sample at = { s, "", "quantile", text };

	for (uint32_t i = 0; i < q->n; i++) {
		if (p->is_open && q->v[i][1] < 0)
			continue;
		number_bound(q->v[i][0], p->is_open, text);
		line_double(p, &at, q->v[i][1]);
	}
	at = (struct sample){ .s = s, .suffix = "_sum" };
	if (!p->is_open || d->sum >= 0)
		line_double(p, &at, d->sum);
	at.suffix = "_count";
	line_u64(p, &at, d->count, NULL);
}

static void put_series(struct page *p, const struct series *s)
{
	if (s->is_gone || (p->o->expire_ns > 0 && p->now_ns > s->seen_ns &&
			   p->now_ns - s->seen_ns > p->o->expire_ns))
		return;
	if (s->distribution == NULL)
		put_number(p, s);
	else if (s->distribution->quantiles != NULL)
		put_summary(p, s);
	else
		put_histogram(p, s);
}

/* ---- families ---- */

/* A slice of a shard's members from *at on. Lock held. */
static void put_slice(struct page *p, const struct member_list *m, uint32_t *at)
{
	p->n_lines = 0;
	while (*at < m->n && p->n_lines < SLICE_LINES)
		put_series(p, m->v[(*at)++]);
}

static void put_family(struct store *st, struct page *p, struct family *f)
{
	uint32_t at[STORE_SHARDS] = { 0 };
	bool more = true;

	p->f = f;
	p->has_head = false;
	p->is_quoted = p->o->form.is_utf8 && f->escaped.p != f->name.p;
	p->name = p->is_quoted ? f->name : f->escaped;
	p->base = p->is_quoted ? f->base : f->escaped_base;
	while (more && !p->out->overflow) {
		more = false;
		for (unsigned i = 0; i < STORE_SHARDS; i++) {
			/* Or it would grow, and move, under the lock. */
			if (buf_reserve(p->out, SLICE_ROOM) == NULL)
				return;
			pthread_mutex_lock(&st->shards[i].lock);
			put_slice(p, &f->members[i], &at[i]);
			more |= at[i] < f->members[i].n;
			pthread_mutex_unlock(&st->shards[i].lock);
		}
	}
}

void page_write(struct store *s, const struct page_options *o, struct buf *out)
{
	struct page p = { .o = o, .out = out, .is_open = page_form_is_open(&o->form) };
	struct family **families;
	size_t n;

	p.now_ns = clock_mono_ns();
	families = family_table_list(&s->families, &n);
	for (size_t i = 0; i < n && !out->overflow; i++)
		put_family(s, &p, families[i]);
	free(families);
	if (p.is_open)
		buf_add_str(out, "# EOF\n");
}
