/* SPDX-License-Identifier: Apache-2.0
 *
 * record.c - see record.h.
 */
#include "connectors/spanmetrics/record.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "connectors/spanmetrics/slots.h"
#include "wire/otlp_attr.h"
#include "wire/otlp_index.h"
#include "wire/span_wish.h"

/* Observations at a time: what a span with a million events needs is no more than others. */
enum { RUN = 1024 };
enum { WEED_AT = 16 };

/* What the spans of one resource of the batch have in common, and what its machine gets of them. */
struct resource_facts {
	bool is_counted;
	double calls[STATUS_ERROR + 1], sum_ns;
	bool has_calls[STATUS_ERROR + 1];
};

/* Labels that a scope gives to its spans. */
struct scope_facts {
	struct bytes extra, attributes;
};

static uint64_t mix(uint64_t h)
{
	h ^= h >> 32;
	h *= UINT64_C(0xd6e8feb86659fd93);
	return h ^ h >> 29;
}

static void hash_key(struct series_key *k)
{
	uint64_t h = k->resource->hash ^ k->facets * UINT64_C(0x9e3779b97f4a7c15);

	h = mix(h ^ hash_xxh3(k->name.p, k->name.n));
	if (k->extra.n > 0)
		h = mix(h ^ hash_xxh3(k->extra.p, k->extra.n));
	k->hash = mix(h);
}

static bool is_overflow(const struct series_key *k)
{
	return k->facets >> 24 & SERIES_OVERFLOW;
}

static void apply(struct recording *r);

/* ---- pass 1: what resources and scopes say, once per batch ---- */

static struct bytes head_of(const struct batch *b, uint32_t head, uint32_t n, struct arena *arena)
{
	const struct bytes *v = b->tables.heads + head;
	size_t n_bytes = 0, at = 0;
	uint8_t *p;

	if (n == 1)
		return v[0];
	for (uint32_t i = 0; i < n; i++)
		n_bytes += v[i].n;
	p = arena_alloc(arena, n_bytes);
	for (uint32_t i = 0; i < n; at += v[i++].n)
		memcpy(p + at, v[i].p, v[i].n);
	return (struct bytes){ p, n_bytes };
}

/* What a resource has of the dimensions, or their defaults. Spans of one lie side by side, so it is
 * read once, and kept for one only. */
static const struct dimension_values *of_resource(struct recording *r, uint32_t i)
{
	const struct dimension_plan *plan = &r->st->plan;
	const struct resource_ref *ref = &r->b->tables.resources[i];
	uint64_t missing = plan->spans | plan->duration | plan->events;
	struct pb_field field = { 0 };
	struct bytes head;

	if (r->values_of == i + 1)
		return &r->values;
	r->values_of = i + 1;
	r->values.found = 0;
	r->resource_globs.n = 0;
	head = head_of(r->b, ref->head, ref->n_head, &r->arena);
	while (pb_next(&head, &field) > 0)
		if (field.number == 1 && field.wire == PB_LEN) {
			dimensions_find(plan, field.data, 1, &missing, &r->values);
			globs_match(&r->st->globs, plan, field.data, 1, &r->resource_globs);
		}
	dimensions_fall_back(plan, missing, &r->values);
	return &r->values;
}

static void scope_label(uint8_t number, const char *name, struct bytes value, struct buf *extra,
			struct buf *attributes)
{
	if (value.n == 0)
		return;
	dimensions_key_text(number, value, extra);
	otlp_attr_bytes(attributes, 7, bytes_str(name), OTLP_STRING, value);
}

static struct bytes keep(struct recording *r, struct buf *b)
{
	struct bytes out = { arena_dup(&r->arena, b->p, b->n), b->n };

	buf_fini(b);
	return out;
}

static void read_scope(struct recording *r, uint32_t i, const struct strlist *wanted)
{
	const struct scope_ref *ref = &r->b->tables.scopes[i];
	struct bytes head = head_of(r->b, ref->head, ref->n_head, &r->arena);
	struct bytes name = BYTES_EMPTY, version = BYTES_EMPTY;
	struct buf extra = BUF_INIT, attributes = BUF_INIT;
	struct pb_field f = { 0 }, g = { 0 };
	bool is_wanted = false;

	while (pb_next(&head, &f) > 0)
		while (f.number == 1 && f.wire == PB_LEN && pb_next(&f.data, &g) > 0)
			if (g.wire == PB_LEN && g.number == 1)
				name = g.data;
			else if (g.wire == PB_LEN && g.number == 2)
				version = g.data;
	for (size_t w = 0; w < wanted->n; w++)
		is_wanted |= bytes_eq_str(name, wanted->items[w]);
	if (!is_wanted)
		return;
	scope_label(DIMENSION_SCOPE_NAME, "span.instrumentation.scope.name", name, &extra,
		    &attributes);
	scope_label(DIMENSION_SCOPE_VERSION, "span.instrumentation.scope.version", version, &extra,
		    &attributes);
	r->scopes[i].extra = keep(r, &extra);
	r->scopes[i].attributes = keep(r, &attributes);
}

static void read_envelopes(struct recording *r)
{
	const struct span_tables *t = &r->b->tables;

	r->facts = arena_zalloc(&r->arena, t->n_resources * sizeof(*r->facts));
	for (uint32_t i = 0; i < t->n_resources; i++)
		r->facts[i].is_counted = r->resources[i] != NULL &&
					 (r->resources[i]->has_service || r->resources[i]->is_root);
	if (r->conf->scopes.n == 0)
		return;
	r->scopes = arena_zalloc(&r->arena, t->n_scopes * sizeof(*r->scopes));
	for (uint32_t i = 0; i < t->n_scopes; i++)
		read_scope(r, i, &r->conf->scopes);
}

/* ---- pass 1: spans ---- */

static struct observation *add(struct recording *r)
{
	if (r->n == r->cap)
		r->v = xgrow(r->v, &r->cap, r->n + 1, sizeof(*r->v));
	return &r->v[r->n++];
}

/* Labels beside the four: the key's extra, and what a new row has of them. Offsets, as long as the
 * buffers grow. */
static void add_extra(struct recording *r, struct observation *o, const struct span_ref *sp,
		      const struct dimension_values *values, uint64_t set)
{
	size_t extra = r->extras.n, attributes = r->attributes.n;

	dimensions_key(values, set, &r->extras);
	dimensions_attributes(&r->st->plan, values, set, &r->attributes);
	if (r->globs != NULL)
		globs_put(r->globs, o->key.facets & 0xff, &r->extras, &r->attributes);
	if (r->scopes != NULL) {
		buf_add_bytes(&r->extras, r->scopes[sp->scope].extra);
		buf_add_bytes(&r->attributes, r->scopes[sp->scope].attributes);
	}
	if (r->conf->sampling_method_on) {
		bool unknown;
		struct bytes method;

		span_weight(sp, &unknown);
		method = bytes_str(unknown ? "counted" : "extrapolated");
		dimensions_key_text(DIMENSION_METHOD, method, &r->extras);
		otlp_attr_bytes(&r->attributes, 7, BYTES_LIT("sampling.method"), OTLP_STRING,
				method);
	}
	o->key.extra = (struct bytes){ (const uint8_t *)extra, r->extras.n - extra };
	o->attr_off = (uint32_t)attributes;
	o->n_attrs = (uint32_t)(r->attributes.n - attributes);
}

static struct observation *observe(struct recording *r, enum family f, const struct span_ref *sp,
				   double weight)
{
	const struct families *fam = &r->st->families;
	struct observation *o = add(r);
	struct span_resource *res = r->resources[r->b->tables.scopes[sp->scope].resource];

	*o = (struct observation){
		.weight = weight,
		.duration_ns = sp->end_ns > sp->start_ns ? sp->end_ns - sp->start_ns : 0,
		.span = (uint32_t)(sp - r->b->tables.spans),
	};
	o->key.resource = res;
	if (UNLIKELY(res->is_root)) {
		o->key.facets = series_facets(f, 0, 0, SERIES_OVERFLOW);
		return o;
	}
	o->key.facets = series_facets(f, fam->labels[LABEL_KIND] != NULL ? sp->kind : 0,
				      fam->labels[LABEL_STATUS] != NULL ? sp->status : 0, 0);
	if (fam->labels[LABEL_NAME] != NULL)
		o->key.name = span_name(sp);
	return o;
}

static bool has_extras(const struct recording *r)
{
	return r->st->plan.n > 0 || r->st->globs.n > 0 || r->scopes != NULL ||
	       r->conf->sampling_method_on;
}

/* One event of a span: its own attributes go before the resource's. */
static void observe_event(struct recording *r, const struct span_ref *sp, struct bytes event,
			  const struct dimension_values *of_span, double weight)
{
	const struct dimension_plan *plan = &r->st->plan;
	struct dimension_values v;
	uint64_t wanted = plan->events & ~of_span->found, rest = plan->events;
	struct observation *o = observe(r, FAMILY_EVENTS, sp, weight);
	const struct glob_matches *span_globs = r->globs;
	struct glob_matches globs;

	if (!is_overflow(&o->key)) {
		v.found = 0;
		dimensions_find(plan, event, 3, &wanted, &v);
		rest &= ~v.found;
		dimensions_take(&v, of_span, rest & of_span->found);
		dimensions_take(&v, &r->values, rest & ~of_span->found & r->values.found);
		if (span_globs != NULL) {
			globs = *span_globs;
			globs_match(&r->st->globs, plan, event, 3, &globs);
			r->globs = &globs;
		}
		add_extra(r, o, sp, &v, plan->events);
		r->globs = span_globs;
	}
	if (r->n >= RUN)
		apply(r);
}

static void observe_events(struct recording *r, const struct span_ref *sp,
			   const struct dimension_values *of_span, double weight)
{
	const struct bytes whole = { sp->p, sp->len };
	const struct bytes *v = sp->pieces != NULL ? sp->pieces : &whole;
	unsigned n = sp->pieces != NULL ? sp->n_pieces : 1;
	struct pb_field field = { 0 };

	for (unsigned i = 0; i < n; i++)
		for (struct bytes at = v[i]; pb_next(&at, &field) > 0;)
			if (field.number == 11 && field.wire == PB_LEN)
				observe_event(r, sp, field.data, of_span, weight);
}

static void observe_row(struct recording *r, enum family f, const struct span_ref *sp,
			const struct dimension_values *v, uint64_t set, double weight)
{
	struct observation *o = observe(r, f, sp, weight);

	if (!is_overflow(&o->key))
		add_extra(r, o, sp, v, set);
}

/* A span with labels beside the four. */
static void observe_wide(struct recording *r, const struct span_ref *sp, double weight)
{
	const struct dimension_plan *plan = &r->st->plan;
	uint64_t wanted = plan->spans | plan->duration | plan->events;
	struct dimension_values own, all;
	const struct dimension_values *res;
	struct glob_matches globs;

	own.found = all.found = 0;
	globs.n = 0;
	r->globs = r->st->globs.n > 0 ? &globs : NULL;
	if (plan->n > 0 || r->globs != NULL) {
		res = of_resource(r, r->b->tables.scopes[sp->scope].resource);
		dimensions_find_in_span(plan, sp, &wanted, &own);
		dimensions_take(&all, &own, own.found);
		dimensions_take(&all, res, res->found & ~own.found);
	}
	if (r->globs != NULL) {
		globs_match_span(&r->st->globs, plan, sp, &globs);
		globs_merge(&globs, &r->resource_globs);
	}
	observe_row(r, FAMILY_SPANS, sp, &all, plan->spans, weight);
	if (r->st->has_own_duration)
		observe_row(r, FAMILY_DURATION, sp, &all, plan->duration, weight);
	if (r->purpose == TO_COUNT && r->st->families.metrics[SPAN_METRIC_EVENTS].name != NULL)
		observe_events(r, sp, &own, weight);
	r->globs = NULL;
}

static void count_host(struct resource_facts *f, const struct span_ref *sp, double weight)
{
	unsigned status = sp->status <= STATUS_ERROR ? sp->status : 0;

	f->calls[status] += weight;
	f->has_calls[status] = true;
	if (sp->end_ns > sp->start_ns)
		f->sum_ns += weight * (double)(sp->end_ns - sp->start_ns);
}

/* Is this span looked at? Cheap questions before keys. */
static bool is_wanted(struct recording *r, const struct span_ref *sp)
{
	if (r->purpose == TO_COUNT)
		return r->is_accepted == NULL || r->is_accepted[sp->origin];
	/* With a processor before it, only what it tagged. */
	if (r->purpose == TO_COMPETE && atomic_load(&r->st->n_bound) > 0 && !sp->takes_slot)
		return false;
	return slots_may_compete(sp, r->guard);
}

/* ---- who need not compete ---- */

static bool has_histogram(const struct recording *r, const struct series_key *k)
{
	enum family f = (enum family)(k->facets & 0xff);

	return f == FAMILY_DURATION ||
	       (f == FAMILY_SPANS && !r->conf->histogram_off && !r->st->has_own_duration);
}

/* The bucket whose slot the span competes for. */
static uint32_t slot_bucket(const struct recording *r, const struct observation *o)
{
	if (!has_histogram(r, &o->key))
		return 0;
	return r->conf->exponential_on
		       ? slot_of_exponential(o->duration_ns)
		       : histogram_bucket(r->conf->bounds_ns, r->conf->n_bounds, o->duration_ns);
}

/* Key hashed: which slot it is. */
static void find_slot(struct recording *r, struct observation *o)
{
	uint64_t h = o->key.hash ^ r->interval * UINT64_C(0x9e3779b97f4a7c15);

	o->bucket = slot_bucket(r, o);
	h = mix(h ^ (r->n_lost << 8 | o->bucket << 1 | (r->purpose == TO_OFFER)));
	o->slot = mix(h * UINT64_C(0xd6e8feb86659fd93));
}

/* Is the slot held by one with a greater R, as most are most of the time? */
static bool loses(const struct recording *r, const struct observation *o)
{
	return gates_is_shut(r->st->gates, o->slot, r->b->tables.spans[o->span].r);
}

/* Forget those of the last ones that lose. */
static void weed(struct recording *r)
{
	size_t n = r->n_weeded;

	for (size_t i = n; i < r->n; i++)
		if (!loses(r, &r->v[i]))
			r->v[n++] = r->v[i];
	r->n = r->n_weeded = n;
}

/* A span whose labels are the four. Some are looked at before the first is asked about, as what is
 * known of slots is rarely near the CPU. */
static void observe_plain(struct recording *r, const struct span_ref *sp, double weight)
{
	struct observation *o = observe(r, FAMILY_SPANS, sp, weight);

	if (r->purpose == TO_COUNT)
		return;
	hash_key(&o->key);
	find_slot(r, o);
	gates_prefetch(r->st->gates, o->slot);
	if (r->n - r->n_weeded >= WEED_AT)
		weed(r);
}

static void observe_one(struct recording *r, const struct span_ref *sp, struct resource_facts *f,
			bool is_wide)
{
	bool unknown;
	double weight = span_weight(sp, &unknown);

	if (is_wide)
		observe_wide(r, sp, weight);
	else
		observe_plain(r, sp, weight);
	if (r->purpose == TO_COUNT) {
		r->n_unknown += unknown;
		count_host(f, sp, weight);
	}
}

static void observe_spans(struct recording *r)
{
	const struct span_tables *t = &r->b->tables;
	bool is_wide = has_extras(r) || r->st->has_own_duration;

	for (uint32_t i = 0; i < t->n_spans; i++) {
		const struct span_ref *sp = &t->spans[i];
		struct resource_facts *f = &r->facts[t->scopes[sp->scope].resource];

		if (!is_wanted(r, sp))
			continue;
		if (LIKELY(f->is_counted))
			observe_one(r, sp, f, is_wide);
		else
			r->n_skipped++;
		if (r->n >= RUN)
			apply(r);
	}
	if (r->purpose != TO_COUNT && !is_wide)
		weed(r);
	apply(r);
}

/* ---- pass 2 ---- */

static void put_label(struct buf *out, const char *key, struct bytes value)
{
	if (key != NULL)
		otlp_attr_bytes(out, 7, bytes_str(key), OTLP_STRING, value);
}

/* The attributes of a new row. */
static struct bytes labels_of(struct recording *r, const struct observation *o)
{
	const struct families *f = &r->st->families;
	const struct series_key *k = &o->key;
	struct buf *out = &r->labels;

	buf_reset(out);
	if (is_overflow(k)) {
		otlp_attr_uint(out, 7, BYTES_LIT("otel.metric.overflow"), OTLP_BOOL, 1);
		return buf_bytes(out);
	}
	put_label(out, f->labels[LABEL_SERVICE], k->resource->service);
	put_label(out, f->labels[LABEL_NAME], k->name);
	put_label(out, f->labels[LABEL_KIND],
		  bytes_str(families_kind_text((uint8_t)(k->facets >> 8))));
	put_label(out, f->labels[LABEL_STATUS],
		  bytes_str(families_status_text((uint8_t)(k->facets >> 16))));
	if (o->n_attrs > 0)
		buf_add(out, r->attributes.p + o->attr_off, o->n_attrs);
	return buf_bytes(out);
}

static struct series *add_row(struct recording *r, const struct observation *o, bool forced)
{
	bool is_histogram = has_histogram(r, &o->key);
	struct series *s;

	s = series_add(&r->st->series, &o->key, labels_of(r, o),
		       is_histogram && !r->conf->exponential_on ? r->conf->n_bounds + 1 : 0,
		       r->now_ns, forced);
	if (s == NULL || !is_histogram || !r->conf->exponential_on)
		return s;
	s->exponential = exponential_new((uint32_t)r->conf->exponential.max_size);
	series_account(&r->st->series, (int64_t)exponential_bytes(s->exponential));
	return s;
}

static void observe_exponential(struct recording *r, struct series *s, const struct observation *o)
{
	uint32_t cap = s->exponential->cap;

	exponential_observe(s->exponential, (double)o->duration_ns / r->st->families.ns_per_unit,
			    o->weight);
	if (s->exponential->cap != cap)
		series_account(&r->st->series, (int64_t)((s->exponential->cap - cap) *
							 sizeof(*s->exponential->counts)));
}

static void count(struct recording *r, struct series *s, const struct observation *o)
{
	uint32_t bucket = 0;

	s->last_ns = r->now_ns;
	s->is_counted = true;
	s->calls += o->weight;
	s->sum_ns += o->weight * (double)o->duration_ns;
	if (r->conf->names == NAMES_TEMPO)
		s->size_bytes += o->weight * (double)r->b->tables.spans[o->span].len;
	if (s->n_buckets > 0) {
		bucket = histogram_bucket(r->conf->bounds_ns, r->conf->n_bounds, o->duration_ns);
		s->buckets[bucket] += o->weight;
	} else if (s->exponential != NULL) {
		observe_exponential(r, s, o);
	}
}

static const char *metric_of(const struct recording *r, const struct series *s)
{
	const struct family_metric *m = r->st->families.metrics;

	return s->n_buckets > 0 || s->exponential != NULL ? m[SPAN_METRIC_DURATION].name
							  : m[SPAN_METRIC_CALLS].name;
}

static void compete(struct recording *r, struct series *s, const struct observation *o)
{
	struct slot_bid bid = { .bucket = o->bucket,
				.interval = r->interval,
				.value_ns = o->duration_ns,
				.now_ns = r->now_ns };
	size_t grown = 0;

	if (r->purpose == TO_COMPETE)
		slots_compete(&s->slots, &bid, r->b, o->span, &grown);
	else if (slots_offer(&s->slots, &bid, r->b->tables.spans[o->span].r, &grown))
		r->takes[o->span] = metric_of(r, s);
	gates_note(r->st->gates, o->slot, bid.least);
	if (grown > 0)
		series_account(&r->st->series, (int64_t)grown);
}

static void apply_one(struct recording *r, struct series *s, const struct observation *o)
{
	if (r->purpose == TO_COUNT)
		count(r, s, o);
	else
		compete(r, s, o);
}

/* Into its shard's list; the last observation comes first, which is no matter. */
static void enqueue(struct recording *r, size_t i)
{
	struct observation *o = &r->v[i];
	uint32_t *first;

	hash_key(&o->key);
	if (r->purpose != TO_COUNT) {
		find_slot(r, o);
		if (loses(r, o))
			return;
	}
	first = &r->first[series_shard_of(o->key.hash)];
	o->next = *first;
	*first = (uint32_t)i + 1;
}

static void prefetch_all(struct recording *r, uint32_t first)
{
	for (int row = 0; row <= 1; row++)
		for (uint32_t at = first; at != 0; at = r->v[at - 1].next)
			series_prefetch(&r->st->series, r->v[at - 1].key.hash, row > 0);
}

/* The observations of one shard. What has no room goes to *over (a list of the same kind). */
static void apply_shard(struct recording *r, unsigned shard, bool forced, uint32_t *over)
{
	struct series_table *t = &r->st->series;
	uint32_t next = r->first[shard];

	if (next == 0)
		return;
	r->first[shard] = 0;
	pthread_mutex_lock(&t->shards[shard].lock);
	prefetch_all(r, next);
	while (next != 0) {
		struct observation *o = &r->v[next - 1];
		struct series *s = series_find(t, &o->key);
		uint32_t at = next;

		next = o->next;
		if (UNLIKELY(s == NULL))
			s = add_row(r, o, forced || is_overflow(&o->key));
		if (LIKELY(s != NULL)) {
			apply_one(r, s, o);
			continue;
		}
		o->next = *over;
		*over = at;
	}
	pthread_mutex_unlock(&t->shards[shard].lock);
}

static void apply_all(struct recording *r, bool forced, uint32_t *over)
{
	for (unsigned i = 0; i < SERIES_SHARDS; i++)
		apply_shard(r, i, forced, over);
}

/* Count what was observed, and begin anew. */
static void apply(struct recording *r)
{
	uint32_t over = 0, next, none = 0;
	uint64_t n_over = 0;

	for (size_t i = 0; i < r->n; i++) {
		struct observation *o = &r->v[i];

		if (o->key.extra.n > 0)
			o->key.extra.p = r->extras.p + (size_t)o->key.extra.p;
		enqueue(r, i);
	}
	apply_all(r, false, &over);
	for (; over != 0; over = next) {
		struct observation *o = &r->v[over - 1];

		next = o->next;
		o->key.facets =
			series_facets((enum family)(o->key.facets & 0xff), 0, 0, SERIES_OVERFLOW);
		o->key.name = o->key.extra = BYTES_EMPTY;
		enqueue(r, over - 1);
		n_over++;
	}
	apply_all(r, true, &none);
	if (r->purpose == TO_COUNT && n_over > 0)
		atomic_fetch_add_explicit(&r->st->n_overflowed, n_over, memory_order_relaxed);
	r->n = r->n_weeded = 0;
	buf_reset(&r->extras);
	buf_reset(&r->attributes);
}

/* ---- machines ---- */

static void host_labels(struct recording *r, const struct span_resource *res, const char *status)
{
	buf_reset(&r->labels);
	put_label(&r->labels, "service", res->service);
	put_label(&r->labels, "host", res->host);
	put_label(&r->labels, status != NULL ? "status_code" : NULL, bytes_str(status));
}

static void count_in_host(struct recording *r, const struct span_resource *res, enum family f,
			  unsigned status, double calls, double sum_ns)
{
	struct series_table *t = &r->st->series;
	struct series_key k = { .resource = r->root,
				.facets = series_facets(f, 0, (uint8_t)status, 0),
				.name = res->service,
				.extra = res->host };
	struct series_shard *sh;
	struct series *s;

	hash_key(&k);
	sh = &t->shards[series_shard_of(k.hash)];
	pthread_mutex_lock(&sh->lock);
	s = series_find(t, &k);
	if (s == NULL) {
		host_labels(r, res,
			    f == FAMILY_HOST_CALLS ? families_status_text((uint8_t)status) : NULL);
		s = series_add(t, &k, buf_bytes(&r->labels), 0, r->now_ns, false);
	}
	if (s != NULL) {
		s->calls += calls;
		s->sum_ns += sum_ns;
		s->last_ns = r->now_ns;
		s->is_counted = true;
	}
	pthread_mutex_unlock(&sh->lock);
}

/* Beyond the limits a machine has no row: its numbers are in those of its spans. */
static void count_hosts(struct recording *r)
{
	for (uint32_t i = 0; r->root != NULL && i < r->b->tables.n_resources; i++) {
		const struct span_resource *res = r->resources[i];
		const struct resource_facts *f = &r->facts[i];
		double all = 0;

		if (!f->is_counted || res->is_root || res->host.n == 0)
			continue;
		for (unsigned st = 0; st <= STATUS_ERROR; st++) {
			all += f->calls[st];
			if (f->has_calls[st])
				count_in_host(r, res, FAMILY_HOST_CALLS, st, f->calls[st], 0);
		}
		count_in_host(r, res, FAMILY_HOST_LATENCY, 0, all, f->sum_ns);
	}
}

/* ---- */

static void begin(struct recording *r, struct component *c, const struct batch *b,
		  enum purpose purpose)
{
	const struct span_tables *t = &b->tables;

	*r = (struct recording){ .c = c,
				 .conf = COMPONENT_CONFIG(c, struct spanmetrics_config),
				 .st = COMPONENT_STATE(c, struct spanmetrics_state),
				 .b = b,
				 .purpose = purpose,
				 .now_ns = clock_wall_ns() };
	r->meter.budget = component_budget(c);
	r->arena.meter = &r->meter;
	r->resources = arena_alloc(&r->arena, t->n_resources * sizeof(*r->resources));
	resources_of(&r->st->resources, b, r->now_ns, r->resources, &r->root);
	/* Not per span: with one row each there is room for all. */
	r->cap = purpose == TO_COUNT ? MIN(t->n_spans, RUN) : 16;
	r->v = xmalloc(r->cap * sizeof(*r->v));
	read_envelopes(r);
}

static void end(struct recording *r)
{
	resources_done(r->resources, r->b->tables.n_resources, r->root);
	free(r->v);
	buf_fini(&r->extras);
	buf_fini(&r->attributes);
	buf_fini(&r->labels);
	arena_fini(&r->arena);
	meter_fini(&r->meter);
}

void record_count(struct component *c, const struct batch *b, const uint8_t *is_accepted)
{
	struct recording r;

	if (b->tables.n_spans == 0)
		return;
	begin(&r, c, b, TO_COUNT);
	r.is_accepted = is_accepted;
	observe_spans(&r);
	if (r.conf->hosts_on)
		count_hosts(&r);
	atomic_fetch_add_explicit(&r.st->n_unknown, r.n_unknown, memory_order_relaxed);
	atomic_fetch_add_explicit(&r.st->n_skipped, r.n_skipped, memory_order_relaxed);
	end(&r);
}

/* Does any span of b pass the cheap questions? Most batches stop here. */
static bool anyone(struct component *c, const struct batch *b, enum purpose purpose, uint64_t guard)
{
	struct recording r = { .st = COMPONENT_STATE(c, struct spanmetrics_state),
			       .purpose = purpose,
			       .guard = guard };

	for (uint32_t i = 0; i < b->tables.n_spans; i++)
		if (is_wanted(&r, &b->tables.spans[i]))
			return true;
	return false;
}

static void look_for_slots(struct component *c, const struct batch *b, enum purpose purpose,
			   const char **takes)
{
	uint64_t guard = component_exemplar_guard(c);
	struct recording r;

	if (!anyone(c, b, purpose, guard))
		return;
	begin(&r, c, b, purpose);
	r.guard = guard;
	r.takes = takes;
	r.interval = r.now_ns / (uint64_t)r.conf->flush_interval_ns;
	r.n_lost = slots_n_lost();
	observe_spans(&r);
	end(&r);
}

void record_compete(struct component *c, const struct batch *b)
{
	look_for_slots(c, b, TO_COMPETE, NULL);
}

void record_offer(struct component *c, const struct batch *b, const char **takes)
{
	if (COMPONENT_CONFIG(c, struct spanmetrics_config)->exemplars_on)
		look_for_slots(c, b, TO_OFFER, takes);
}
