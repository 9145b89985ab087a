/* SPDX-License-Identifier: Apache-2.0
 *
 * look_back.c - see look_back.h.
 *
 * Named ids stand in a table (open addressing) and in a ring by age. Naming takes new ids only, so
 * that metrics which show one exemplar again and again find its spans once; then all that passed is
 * gone through once per batch of metrics, whatever the number of its exemplars.
 *
 * Sending again happens on the thread of the metrics, through the traces' instance: it counts who
 * is inside it, and its end waits for them.
 */
#include "processors/exemplar/look_back.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "pipeline/span/uncount.h"
#include "wire/otlp_attr.h"
#include "wire/otlp_metrics.h"
#include "wire/span_wish.h"
#include "wire/tracestate.h"

#include <pthread.h>
#include <unistd.h>

enum { NAMES_MAX = 1 << 16, SLOTS = 2 * NAMES_MAX, SPAN_ATTRIBUTES = 9, LOW_BUDGET = 4 };
enum { ENDING_STEP_US = 200 };

struct name {
	uint8_t id[16];
	uint64_t since_ns;
};

/* By age: [first, first + n) of the ring; slots hold a place in the ring + 1. */
struct names {
	struct name *ring;
	uint32_t *slots;
	uint32_t first;
	_Atomic uint32_t n;
};

struct passed {
	struct passed *next;
	struct batch *b;
	struct instance *by;
	double ratio;
	uint64_t since_ns;
	size_t n_bytes;
};

/* A pipeline of traces that the processor is in. */
struct instance {
	struct instance *next;
	struct component *c;
	bool is_ending;
	_Atomic unsigned n_inside; /* threads that emit through it */
};

struct look_back {
	struct look_back *next; /* of all */
	char *id;
	unsigned n_users;           /* all_lock */
	_Atomic unsigned n_metrics; /* of those, pipelines of metrics */
	pthread_mutex_t lock;
	struct look_back_limits limits;
	struct budget *budget;
	struct instance *instances;
	struct names names;
	struct passed *oldest, **newest;
	uint64_t n_bytes;
	_Atomic uint64_t n_again;
};

static pthread_mutex_t all_lock = PTHREAD_MUTEX_INITIALIZER;
static struct look_back *all;

/* ---- names; lock held ---- */

static uint32_t slot_of(const uint8_t id[16])
{
	return (uint32_t)(hash_xxh3(id, 16) & (SLOTS - 1));
}

/* Where the id stands in slots[], or the free slot where it would. */
static uint32_t find(const struct names *v, const uint8_t id[16])
{
	uint32_t i = slot_of(id);

	while (v->slots[i] != 0 && memcmp(v->ring[v->slots[i] - 1].id, id, 16) != 0)
		i = (i + 1) & (SLOTS - 1);
	return i;
}

static bool has_name(const struct names *v, const uint8_t id[16])
{
	return v->slots[find(v, id)] != 0;
}

/* Empty slot i; those behind it that would not be found any more move up. */
static void clear_slot(struct names *v, uint32_t i)
{
	for (uint32_t k = (i + 1) & (SLOTS - 1); v->slots[k] != 0; k = (k + 1) & (SLOTS - 1)) {
		uint32_t home = slot_of(v->ring[v->slots[k] - 1].id);

		if (((k - home) & (SLOTS - 1)) >= ((k - i) & (SLOTS - 1))) {
			v->slots[i] = v->slots[k];
			i = k;
		}
	}
	v->slots[i] = 0;
}

static void forget_oldest(struct names *v)
{
	clear_slot(v, find(v, v->ring[v->first].id));
	v->first = (v->first + 1) & (NAMES_MAX - 1);
	atomic_fetch_sub_explicit(&v->n, 1, memory_order_relaxed);
}

static void forget_old(struct look_back *l, uint64_t now_ns)
{
	struct names *v = &l->names;

	while (v->n > 0 && now_ns - v->ring[v->first].since_ns > (uint64_t)l->limits.max_age_ns)
		forget_oldest(v);
}

/* False: it is there already. */
static bool add_name(struct look_back *l, const uint8_t id[16], uint64_t now_ns)
{
	struct names *v = &l->names;
	uint32_t at, place;

	if (v->ring == NULL) {
		v->ring = xcalloc(NAMES_MAX, sizeof(*v->ring));
		v->slots = xcalloc(SLOTS, sizeof(*v->slots));
		budget_force(l->budget, NAMES_MAX * sizeof(*v->ring) + SLOTS * sizeof(*v->slots));
	}
	if (has_name(v, id))
		return false;
	if (v->n == NAMES_MAX)
		forget_oldest(v);
	at = find(v, id);
	place = (v->first + v->n) & (NAMES_MAX - 1);
	memcpy(v->ring[place].id, id, 16);
	v->ring[place].since_ns = now_ns;
	v->slots[at] = place + 1;
	atomic_fetch_add_explicit(&v->n, 1, memory_order_relaxed);
	return true;
}

static void names_fini(struct look_back *l)
{
	if (l->names.ring == NULL)
		return;
	budget_release(l->budget,
		       NAMES_MAX * sizeof(*l->names.ring) + SLOTS * sizeof(*l->names.slots));
	free(l->names.ring);
	free(l->names.slots);
}

bool look_back_has_names(const struct look_back *l)
{
	return atomic_load_explicit(&l->names.n, memory_order_relaxed) > 0;
}

void look_back_mark(struct look_back *l, const struct batch *b, uint8_t *keep)
{
	pthread_mutex_lock(&l->lock);
	forget_old(l, clock_mono_ns());
	for (uint32_t i = 0; l->names.n > 0 && i < b->tables.n_spans; i++)
		keep[i] = has_name(&l->names, b->tables.spans[i].trace_id);
	pthread_mutex_unlock(&l->lock);
}

/* ---- what passed; lock held ---- */

static void drop_passed(struct look_back *l, struct passed **at)
{
	struct passed *p = *at;

	*at = p->next;
	if (*at == NULL)
		l->newest = at;
	l->n_bytes -= p->n_bytes;
	batch_unref(p->b);
	free(p);
}

static bool is_low(const struct look_back *l)
{
	return l->budget != NULL &&
	       budget_left(l->budget) < (size_t)MAX(l->budget->limit, 0) / LOW_BUDGET;
}

static void trim_passed(struct look_back *l, uint64_t now_ns)
{
	while (l->oldest != NULL && (l->n_bytes > l->limits.max_bytes || is_low(l) ||
				     now_ns - l->oldest->since_ns > (uint64_t)l->limits.max_age_ns))
		drop_passed(l, &l->oldest);
}

static struct instance *instance_of(struct look_back *l, const struct component *c)
{
	struct instance *i = l->instances;

	while (i != NULL && i->c != c)
		i = i->next;
	return i;
}

/* The index, and the buffers that it keeps alive. */
static size_t bytes_of(const struct batch *b)
{
	size_t n = b->index_bytes;

	for (uint32_t i = 0; i < b->n_sources; i++)
		n += b->sources[i]->charged;
	return n;
}

void look_back_pass(struct look_back *l, struct component *c, struct batch *b, double ratio)
{
	struct passed *p;
	struct instance *by;

	if (ratio >= 1 || l->limits.max_bytes == 0 || b->tables.n_spans == 0)
		return;
	p = xcalloc(1, sizeof(*p));
	p->ratio = ratio;
	p->since_ns = clock_mono_ns();
	p->n_bytes = bytes_of(b) + sizeof(*p);
	pthread_mutex_lock(&l->lock);
	by = instance_of(l, c);
	if (by != NULL && !by->is_ending) {
		p->b = batch_ref(b);
		p->by = by;
		l->n_bytes += p->n_bytes;
		*l->newest = p;
		l->newest = &p->next;
		p = NULL;
	}
	trim_passed(l, clock_mono_ns());
	pthread_mutex_unlock(&l->lock);
	free(p);
}

/* ---- sending again ---- */

/* What a sampler that keeps `ratio` of all that comes drops; what was sampled before, of that. */
static bool was_dropped(const struct span_ref *sp, double ratio)
{
	double before = sp->th < TRACESTATE_W56 ? tracestate_probability(sp->th) : 1;

	return span_wish(sp) == WISH_NONE && sp->r < tracestate_threshold(ratio * before, 4);
}

/* Lock held. Spans of one that passed, of traces named since `since_ns`. NULL: none. */
static struct batch *pick(struct look_back *l, struct passed *p, uint64_t since_ns)
{
	struct batch *b = p->b, *copy;
	uint8_t *keep = NULL;

	for (uint32_t i = 0; i < b->tables.n_spans; i++) {
		const struct span_ref *sp = &b->tables.spans[i];
		uint32_t slot = l->names.slots[find(&l->names, sp->trace_id)];

		/* Named now; by an earlier batch of metrics they were sent then. */
		if (slot == 0 || l->names.ring[slot - 1].since_ns != since_ns ||
		    !was_dropped(sp, p->ratio))
			continue;
		if (keep == NULL)
			keep = xcalloc(b->tables.n_spans, 1);
		keep[i] = 1;
	}
	if (keep == NULL)
		return NULL;
	copy = batch_filter(batch_detached(b), keep, DROP_SAMPLED);
	free(keep);
	return copy;
}

struct again {
	struct again *next;
	struct batch *b;
	struct instance *by;
};

/* Lock held. */
static struct again *pick_all(struct look_back *l, uint64_t since_ns)
{
	struct again *list = NULL, *a;
	struct batch *b;

	for (struct passed *p = l->oldest; p != NULL; p = p->next) {
		b = p->by->is_ending ? NULL : pick(l, p, since_ns);
		if (b == NULL)
			continue;
		a = xcalloc(1, sizeof(*a));
		*a = (struct again){ .next = list, .b = b, .by = p->by };
		atomic_fetch_add(&a->by->n_inside, 1);
		list = a;
	}
	return list;
}

static void settled(struct origin *o)
{
	origin_fini(o);
	free(o);
}

/* A request of its own, of the same bytes. Takes b. */
static struct batch *as_request(struct look_back *l, struct batch *b)
{
	struct arena arena = ARENA_INIT;
	struct batch_encoding e;
	struct otlp_result result = { 0 };
	struct rcbuf *r;
	struct batch *out;

	batch_encode(b, &arena, &e);
	r = rcbuf_new_forced(l->budget, e.n_bytes);
	for (size_t i = 0; i < e.n_pieces; i++) {
		memcpy(r->p + r->n, e.pieces[i].p, e.pieces[i].n);
		r->n += e.pieces[i].n;
	}
	arena_fini(&arena);
	out = batch_from_otlp(r, b->tenant, l->budget, &result, &(struct err)ERR_INIT);
	batch_unref(b);
	return out;
}

static void keep_all(struct batch *b)
{
	struct buf field = BUF_INIT, state = BUF_INIT;
	struct bytes value, raw;

	otlp_attr_bytes(&field, SPAN_ATTRIBUTES, BYTES_LIT(SPAN_REASON_KEY), OTLP_STRING,
			BYTES_LIT(SPAN_REASON_EXEMPLAR));
	raw = (struct bytes){ arena_dup(&b->arena, field.p, field.n), field.n };
	buf_fini(&field);
	for (uint32_t i = 0; i < b->tables.n_spans; i++) {
		if (!span_attribute(&b->tables.spans[i], BYTES_LIT(SPAN_REASON_KEY), &value))
			batch_append_field(b, i, raw);
		b->tables.spans[i].is_kept = true;
		span_uncount(b, i, &state); /* it was counted when it passed */
	}
	buf_fini(&state);
}

/* Takes a. Without the lock. */
static void send_again(struct look_back *l, struct again *a)
{
	struct batch *b = as_request(l, a->b);
	struct origin *o;

	if (b != NULL && b->tables.n_spans > 0) {
		o = xcalloc(1, sizeof(*o));
		origin_init(o, b->tables.n_spans, settled);
		origin_promise(o); /* nobody will send them once more */
		batch_bind(b, o);
		keep_all(b);
		atomic_fetch_add(&l->n_again, b->tables.n_spans);
		component_emit(a->by->c, b);
	} else {
		batch_unref(b);
	}
	atomic_fetch_sub(&a->by->n_inside, 1);
	free(a);
}

/* ---- naming ---- */

/* Lock held. True when a trace is named that was not. */
static bool name_all(struct look_back *l, const struct batch *b, uint64_t now_ns)
{
	struct metrics_reader r;
	struct metric_point p;
	struct metric_exemplar x;
	bool any = false;

	metrics_reader_items(&r, &b->tables);
	while (metrics_next(&r, &p) > 0)
		for (struct bytes it = p.message;
		     p.n_exemplars > 0 && metric_exemplar_next(&p, &it, &x);)
			if (x.trace_id.n == 16)
				any |= add_name(l, x.trace_id.p, now_ns);
	return any;
}

void look_back_name(struct look_back *l, const struct batch *b)
{
	struct again *list = NULL, *next;
	uint64_t now_ns;

	pthread_mutex_lock(&l->lock);
	now_ns = clock_mono_ns(); /* not before what others noted */
	forget_old(l, now_ns);
	trim_passed(l, now_ns);
	if (name_all(l, b, now_ns))
		list = pick_all(l, now_ns);
	pthread_mutex_unlock(&l->lock);
	for (; list != NULL; list = next) {
		next = list->next;
		send_again(l, list);
	}
}

/* ---- life ---- */

static struct look_back *look_back_new(struct component *c)
{
	struct look_back *l = xcalloc(1, sizeof(*l));

	l->id = xstrdup(c->id);
	l->budget = component_budget(c);
	l->newest = &l->oldest;
	pthread_mutex_init(&l->lock, NULL);
	l->next = all;
	all = l;
	return l;
}

struct look_back *look_back_open(struct component *c, const struct look_back_limits *limits)
{
	struct instance *i = xcalloc(1, sizeof(*i));
	struct look_back *l;

	i->c = c;
	pthread_mutex_lock(&all_lock);
	for (l = all; l != NULL && (strcmp(l->id, c->id) != 0 || l->budget != component_budget(c));)
		l = l->next;
	if (l == NULL)
		l = look_back_new(c);
	l->n_users++;
	if (c->signal == OTLP_METRICS)
		atomic_fetch_add(&l->n_metrics, 1);
	pthread_mutex_lock(&l->lock);
	l->limits = *limits;
	i->next = l->instances;
	l->instances = i;
	pthread_mutex_unlock(&l->lock);
	pthread_mutex_unlock(&all_lock);
	return l;
}

void look_back_drain(struct look_back *l, struct component *c)
{
	struct instance *i;

	pthread_mutex_lock(&l->lock);
	i = instance_of(l, c);
	i->is_ending = true;
	for (struct passed **at = &l->oldest; *at != NULL;)
		if ((*at)->by == i)
			drop_passed(l, at);
		else
			at = &(*at)->next;
	pthread_mutex_unlock(&l->lock);
}

/* Nobody emits through it any more. */
static void end_instance(struct look_back *l, struct component *c)
{
	struct instance **at, *i;

	look_back_drain(l, c);
	pthread_mutex_lock(&l->lock);
	for (at = &l->instances; (*at)->c != c; at = &(*at)->next)
		;
	i = *at;
	*at = i->next;
	pthread_mutex_unlock(&l->lock);
	while (atomic_load(&i->n_inside) > 0)
		usleep(ENDING_STEP_US);
	free(i);
}

static void look_back_free(struct look_back *l)
{
	struct look_back **at = &all;

	while (*at != l)
		at = &(*at)->next;
	*at = l->next;
	names_fini(l);
	pthread_mutex_destroy(&l->lock);
	free(l->id);
	free(l);
}

void look_back_close(struct look_back *l, struct component *c)
{
	if (l == NULL)
		return;
	end_instance(l, c);
	pthread_mutex_lock(&all_lock);
	if (c->signal == OTLP_METRICS)
		atomic_fetch_sub(&l->n_metrics, 1);
	if (--l->n_users == 0)
		look_back_free(l);
	pthread_mutex_unlock(&all_lock);
}

bool look_back_is_fed(const struct look_back *l)
{
	return atomic_load_explicit(&l->n_metrics, memory_order_relaxed) > 0;
}

bool look_back_stats(struct look_back *l, const struct component *c, struct look_back_stats *out)
{
	bool is_ours;

	pthread_mutex_lock(&l->lock);
	is_ours = l->instances->c == c;
	*out = (struct look_back_stats){ l->names.n, l->n_bytes, atomic_load(&l->n_again) };
	pthread_mutex_unlock(&l->lock);
	return is_ours;
}
