/* SPDX-License-Identifier: Apache-2.0
 *
 * resources.c - see resources.h.
 */
#include "connectors/spanmetrics/resources.h"

#include "base/hash.h"
#include "base/mem.h"
#include "base/rcbuf.h"
#include "wire/any_value.h"
#include "wire/pb.h"

/* Ways in which senders wrote one resource, and tenants beyond what there is room for. */
enum { MAX_ALIASES = 8, MAX_FORCED_ROOTS = 4096, PAIRS_COMPARED = 64 };

/* Owned by its resource; the map of bytes has its key as a copy. */
struct resource_alias {
	struct resource_alias *next;
	uint8_t *key;
	size_t n_key;
};

void resource_table_init(struct resource_table *t, struct series_table *series,
			 struct budget *budget, const struct strlist *key_attributes)
{
	memset(t, 0, sizeof(*t));
	pthread_mutex_init(&t->lock, NULL);
	t->series = series;
	t->budget = budget;
	t->key_attributes = key_attributes;
}

/* Resources and rows share what there is for both. */
static bool charge(struct resource_table *t, size_t n)
{
	if (!series_has_room(t->series, FAMILY_SPANS, n) || !budget_charge(t->budget, n))
		return false;
	atomic_fetch_add(&t->series->n_bytes, n);
	return true;
}

static void resource_free(struct resource_table *t, struct span_resource *r)
{
	struct resource_alias *a;

	while ((a = r->aliases) != NULL) {
		r->aliases = a->next;
		free(a->key);
		free(a);
	}
	series_account(t->series, -(int64_t)r->n_bytes);
	free((void *)(uintptr_t)r->identity.p);
	free((void *)(uintptr_t)r->message.p);
	free((void *)(uintptr_t)r->service.p);
	free((void *)(uintptr_t)r->host.p);
	free(r);
}

void resource_table_fini(struct resource_table *t)
{
	struct span_resource *r;

	while ((r = t->all) != NULL) {
		t->all = r->next;
		resource_free(t, r);
	}
	map_fini(&t->by_bytes);
	map_fini(&t->by_identity);
	pthread_mutex_destroy(&t->lock);
}

/* ---- attributes ---- */

struct pair {
	struct bytes key, any;
};

static int by_key(const void *a, const void *b)
{
	const struct pair *x = a, *y = b;
	int d = memcmp(x->key.p, y->key.p, MIN(x->key.n, y->key.n));

	return d != 0 ? d : (x->key.n > y->key.n) - (x->key.n < y->key.n);
}

struct pairs {
	struct pair *v;
	size_t n, cap;
};

/* Of two with one key the first; beyond PAIRS_COMPARED nobody looks. */
static void add_pair(struct pairs *to, struct bytes pair)
{
	struct pair p;

	any_pair_read(pair, &p.key, &p.any);
	if (p.key.n == 0)
		return;
	for (size_t i = 0; i < to->n && i < PAIRS_COMPARED; i++)
		if (bytes_eq(to->v[i].key, p.key))
			return;
	to->v = xgrow(to->v, &to->cap, to->n + 1, sizeof(*to->v));
	to->v[to->n++] = p;
}

static void read_resource(struct pairs *to, struct bytes resource)
{
	struct pb_field f = { 0 };

	while (pb_next(&resource, &f) > 0)
		if (f.number == 1 && f.wire == PB_LEN)
			add_pair(to, f.data);
}

/* The attributes in a run of ResourceSpans fields, by key. */
static void read_pairs(struct pairs *to, struct bytes head)
{
	struct pb_field f = { 0 };

	while (pb_next(&head, &f) > 0)
		if (f.number == 1 && f.wire == PB_LEN)
			read_resource(to, f.data);
	if (to->n > 1)
		qsort(to->v, to->n, sizeof(*to->v), by_key);
}

static bool is_key_attribute(const struct strlist *keys, struct bytes key)
{
	for (size_t i = 0; i < keys->n; i++)
		if (bytes_eq_str(key, keys->items[i]))
			return true;
	return keys->n == 0;
}

/* A copy of an attribute's text, empty when there is none. */
static struct bytes text_of(const struct pair *v, size_t n, const char *key, bool *found)
{
	struct buf text = BUF_INIT;
	struct any_value value;
	struct bytes out;

	*found = false;
	for (size_t i = 0; i < n; i++)
		if (bytes_eq_str(v[i].key, key)) {
			any_value_read(v[i].any, &value);
			any_value_text(&value, &text);
			*found = true;
		}
	out.p = buf_take(&text, &out.n);
	return out;
}

static void put_pairs(const struct pair *v, size_t n, const struct strlist *keys, struct buf *out)
{
	for (size_t i = 0; i < n; i++)
		if (keys == NULL || is_key_attribute(keys, v[i].key))
			any_pair_put(out, 1, v[i].key, v[i].any);
}

static void describe(struct span_resource *r, const struct pair *v, size_t n)
{
	struct buf message = BUF_INIT;
	bool found;

	put_pairs(v, n, NULL, &message);
	r->message.p = buf_take(&message, &r->message.n);
	r->service = text_of(v, n, "service.name", &r->has_service);
	r->host = text_of(v, n, "host.name", &found);
	if (found && r->host.n > 0)
		return;
	free((void *)(uintptr_t)r->host.p);
	r->host = text_of(v, n, "service.instance.id", &found);
}

/* ---- the table; lock held ---- */

static struct span_resource *add(struct resource_table *t, const char *tenant, struct buf *key,
				 size_t n_bytes, bool is_root)
{
	struct span_resource *r = xcalloc(1, sizeof(*r));

	memcpy(r->tenant, tenant, strlen(tenant) + 1);
	r->is_root = is_root;
	r->hash = hash_xxh3(key->p, key->n);
	r->n_bytes = n_bytes;
	map_set(&t->by_identity, buf_bytes(key), r);
	r->identity.p = buf_take(key, &r->identity.n);
	r->next = t->all;
	t->all = r;
	t->n++;
	return r;
}

/* Tenant and NUL; what follows tells its resources apart. */
static void begin_key(struct buf *key, const char *tenant, char what)
{
	buf_reset(key);
	buf_add(key, tenant, strlen(tenant) + 1);
	buf_add_char(key, what);
}

static struct span_resource *root_of(struct resource_table *t, const char *tenant)
{
	struct buf key = BUF_INIT;
	struct span_resource *r;
	size_t n = sizeof(*r) + 256;
	bool charged;

	begin_key(&key, tenant, 'r');
	r = map_find(&t->by_identity, buf_bytes(&key));
	if (r == NULL) {
		charged = charge(t, n);
		if (charged || t->n_forced_roots < MAX_FORCED_ROOTS) {
			if (!charged)
				series_account(t->series, (int64_t)n);
			t->n_forced_roots += !charged;
			r = add(t, tenant, &key, n, true);
		}
	}
	buf_fini(&key);
	return r;
}

/* Bytes that were never seen: who is it? */
static struct span_resource *identify(struct resource_table *t, const char *tenant,
				      struct bytes head)
{
	struct buf key = BUF_INIT;
	struct span_resource *r;
	struct pairs pairs = { 0 };
	size_t n_bytes = sizeof(*r) + 256 + 4 * head.n;

	read_pairs(&pairs, head);
	begin_key(&key, tenant, 'a');
	put_pairs(pairs.v, pairs.n, t->key_attributes, &key);
	r = map_find(&t->by_identity, buf_bytes(&key));
	if (r == NULL && head.n <= SERIES_MAX_TEXT && charge(t, n_bytes)) {
		r = add(t, tenant, &key, n_bytes, false);
		describe(r, pairs.v, pairs.n);
	}
	buf_fini(&key);
	free(pairs.v);
	return r;
}

static void remember(struct resource_table *t, struct span_resource *r, struct bytes key)
{
	size_t n = sizeof(struct resource_alias) + 2 * key.n + 64;
	struct resource_alias *a;

	if (r->n_aliases >= MAX_ALIASES || !charge(t, n))
		return;
	a = xcalloc(1, sizeof(*a));
	a->key = xmalloc(key.n);
	memcpy(a->key, key.p, key.n);
	a->n_key = key.n;
	a->next = r->aliases;
	r->aliases = a;
	r->n_aliases++;
	r->n_bytes += n;
	map_set(&t->by_bytes, key, r);
}

static struct span_resource *find(struct resource_table *t, const struct batch *b, uint32_t i,
				  struct buf *key)
{
	const struct resource_ref *ref = &b->tables.resources[i];
	struct span_resource *r;
	struct bytes head;
	size_t before;

	begin_key(key, b->tenant, 'b');
	before = key->n;
	for (uint32_t h = 0; h < ref->n_head; h++)
		buf_add_bytes(key, b->tables.heads[ref->head + h]);
	r = map_find(&t->by_bytes, buf_bytes(key));
	if (r != NULL)
		return r;
	head = (struct bytes){ key->p + before, key->n - before };
	r = identify(t, b->tenant, head);
	if (r != NULL)
		remember(t, r, buf_bytes(key));
	return r;
}

static struct span_resource *use(struct span_resource *r, uint64_t now_ns)
{
	if (r == NULL)
		return NULL;
	atomic_fetch_add_explicit(&r->n_users, 1, memory_order_relaxed);
	atomic_store_explicit(&r->last_ns, now_ns, memory_order_relaxed);
	return r;
}

void resources_of(struct resource_table *t, const struct batch *b, uint64_t now_ns,
		  struct span_resource **out, struct span_resource **root)
{
	struct buf key = BUF_INIT;

	pthread_mutex_lock(&t->lock);
	*root = use(root_of(t, b->tenant), now_ns);
	for (uint32_t i = 0; i < b->tables.n_resources; i++) {
		struct span_resource *r = find(t, b, i, &key);

		out[i] = use(r != NULL ? r : *root, now_ns);
	}
	pthread_mutex_unlock(&t->lock);
	buf_fini(&key);
}

void resources_done(struct span_resource **v, uint32_t n, struct span_resource *root)
{
	for (uint32_t i = 0; i < n; i++)
		if (v[i] != NULL)
			atomic_fetch_sub_explicit(&v[i]->n_users, 1, memory_order_release);
	if (root != NULL)
		atomic_fetch_sub_explicit(&root->n_users, 1, memory_order_release);
}

struct span_resource **resources_list(struct resource_table *t, size_t *n)
{
	struct span_resource **v;
	size_t i = 0;

	pthread_mutex_lock(&t->lock);
	v = xcalloc(t->n + 1, sizeof(struct span_resource *));
	for (struct span_resource *r = t->all; r != NULL; r = r->next)
		v[i++] = r;
	pthread_mutex_unlock(&t->lock);
	*n = i;
	return v;
}

static void forget(struct resource_table *t, struct span_resource **at)
{
	struct span_resource *r = *at;

	*at = r->next;
	t->n--;
	map_remove(&t->by_identity, r->identity);
	for (struct resource_alias *a = r->aliases; a != NULL; a = a->next)
		map_remove(&t->by_bytes, (struct bytes){ a->key, a->n_key });
	resource_free(t, r);
}

void resources_sweep(struct resource_table *t, uint64_t before_ns)
{
	struct span_resource **at = &t->all;

	pthread_mutex_lock(&t->lock);
	while (*at != NULL) {
		struct span_resource *r = *at;

		if (atomic_load_explicit(&r->n_users, memory_order_acquire) == 0 &&
		    atomic_load(&r->n_rows) == 0 && atomic_load(&r->last_ns) < before_ns)
			forget(t, at);
		else
			at = &r->next;
	}
	pthread_mutex_unlock(&t->lock);
}
