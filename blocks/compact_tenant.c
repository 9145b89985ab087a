/* SPDX-License-Identifier: Apache-2.0
 *
 * compact_tenant.c - one tenant's cycle but the merges: follow, scan, retention, deletion, index.
 *
 * The order of deletion matters: meta.compacted.json goes last. Whoever follows an old commit of a
 * section publishes a block that has data and neither name (section_publish).
 */
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "blocks/block.h"
#include "blocks/compactor_private.h"

#include <stdio.h>

/* Of one step: a store that is away is not asked for each block; one block that cannot be had does
 * not stand before the others. */
enum { FAILURES_MAX = 3 };

enum { RECORD_AGE_S = 600, SHELL_AGE_S = 3600 };

struct compact_tenant *compact_tenant_new(struct compactor *c, const char *name)
{
	struct compact_tenant *t = xcalloc(1, sizeof(*t));

	t->c = c;
	memcpy(t->name, name, strlen(name) + 1);
	compact_chain_init(&t->chain, c->o.backend, t->name);
	t->chain.visible = c->o.visible;
	t->chain.arg = c->o.arg;
	tenant_index_init(&t->index, c->o.budget);
	return t;
}

static void free_values(struct map *m)
{
	struct bytes key;
	void *value;
	size_t pos = 0;

	while (map_next(m, &pos, &key, &value))
		free(value);
	map_fini(m);
}

void compact_tenant_free(struct compact_tenant *t)
{
	if (t == NULL)
		return;
	free_values(&t->refused);
	free_values(&t->unreadable);
	compact_chain_fini(&t->chain);
	tenant_index_fini(&t->index);
	free(t);
}

/* ---- the list of blocks ---- */

static int by_id(const void *a, const void *b)
{
	return strcmp(((const struct block_meta *)a)->id, ((const struct block_meta *)b)->id);
}

static void sort(struct tenant_index_metas *m)
{
	if (m->n > 0)
		qsort(m->v, m->n, sizeof(*m->v), by_id);
}

static int compare_id(const void *id, const void *meta)
{
	return strcmp(id, ((const struct block_meta *)meta)->id);
}

static struct block_meta *find(const struct tenant_index_metas *m, const char *id)
{
	return m->n > 0 ? bsearch(id, m->v, m->n, sizeof(*m->v), compare_id) : NULL;
}

/* The one in the store saves a thousand requests at the start. What is wrong with it costs them. */
static int load_index(struct compact_tenant *t, struct err *err)
{
	char key[BACKEND_KEY_MAX + 1];
	struct err local = ERR_INIT;
	struct buf gzip = BUF_INIT;
	int ret = 0;

	if (t->is_loaded)
		return 0;
	if (tenant_index_key(key, t->name, err) < 0)
		return -1;
	tenant_index_fini(&t->index);
	if (backend_read(t->c->o.backend, key, TENANT_INDEX_GZIP_MAX, &gzip, &local) == 0 &&
	    tenant_index_decode(buf_bytes(&gzip), t->name, t->c->o.budget, &t->index, &local) == 0)
		t->is_loaded = true;
	else if (local.kind == ERR_NOT_FOUND)
		t->is_loaded = true;
	else if (local.retryable && local.kind != ERR_EXHAUSTED) {
		if (err != NULL)
			*err = local;
		ret = -1;
	} else {
		log_warn("the tenant index cannot be used and is written anew", "error", local.msg);
		t->is_loaded = t->is_changed = true;
	}
	buf_fini(&gzip);
	sort(&t->index.live);
	sort(&t->index.compacted);
	return ret;
}

/* ---- metas that cannot be read ---- */

/* Read before, and the same since. */
static bool is_unreadable(struct compact_tenant *t, const struct compact_seen *b)
{
	const uint64_t *mtime = map_find(&t->unreadable, bytes_str(b->id));

	return mtime != NULL && *mtime == b->meta_ns;
}

static void note_unreadable(struct compact_tenant *t, const struct compact_seen *b,
			    const struct err *why)
{
	uint64_t *mtime = map_find(&t->unreadable, bytes_str(b->id));

	if (mtime == NULL) {
		mtime = xmalloc(sizeof(*mtime));
		map_set(&t->unreadable, bytes_str(b->id), mtime);
	}
	*mtime = b->meta_ns;
	log_warn("a block's meta cannot be read, the block stays as it is", "tenant", t->name,
		 "block", b->id, "error", why->msg);
}

/* Of blocks that are no more. */
static void forget_gone(struct map *m, const struct compact_scan *scan)
{
	struct bytes key;
	void *value;
	size_t pos = 0;

	while (map_next(m, &pos, &key, &value)) {
		char id[COMPACT_ID];

		snprintf(id, sizeof(id), "%.*s", (int)key.n, (const char *)key.p);
		if (compact_scan_find(scan, id) == NULL)
			free(map_remove(m, key));
	}
}

/* ---- the lists ---- */

/* The meta of a block on the list: known, or read. 1, 0 there is none that can be used, -1. */
static int meta_of(struct compact_tenant *t, const struct compact_seen *b, bool is_live,
		   struct block_meta *m, struct err *err)
{
	const struct block_meta *known =
		find(is_live ? &t->index.live : &t->index.compacted, b->id);
	struct err local = ERR_INIT;

	if (known == NULL) {
		known = find(is_live ? &t->index.compacted : &t->index.live, b->id);
		t->is_changed |= known != NULL;
	}
	if (known != NULL) {
		*m = *known;
		return 1;
	}
	if (is_unreadable(t, b))
		return 0;
	if (block_read_meta(t->c->o.backend, t->name, b->id,
			    is_live ? "meta.json" : "meta.compacted.json", m, &local) == 0) {
		free(map_remove(&t->unreadable, bytes_str(b->id)));
		t->is_changed = true;
		return 1;
	}
	if (local.retryable) {
		if (err != NULL)
			*err = local;
		return -1;
	}
	if (local.kind != ERR_NOT_FOUND)
		note_unreadable(t, b, &local);
	return 0;
}

static int take_block(struct compact_tenant *t, const struct compact_seen *b,
		      struct tenant_index *to, struct err *err)
{
	struct block_meta m;
	int got;

	if (!compact_is_live(b) && !b->has_compacted)
		return 0;
	got = meta_of(t, b, compact_is_live(b), &m, err);
	if (got <= 0)
		return got;
	m.compacted_at = b->has_compacted ? block_time_of_ns(b->compacted_ns) : BLOCK_TIME_NONE;
	return tenant_index_add(to, b->has_compacted ? &to->compacted : &to->live, &m, err);
}

/* Of a list that could not be made to its end: what is known stays known, and what is not in the
 * store any more is found out by the next one. */
static int keep_known(struct compact_tenant *t, const char *from, struct tenant_index *to,
		      struct err *err)
{
	const struct tenant_index_metas *live = &t->index.live, *compacted = &t->index.compacted;

	for (size_t i = 0; i < live->n; i++)
		if (strcmp(live->v[i].id, from) >= 0 &&
		    tenant_index_add(to, &to->live, &live->v[i], err) < 0)
			return -1;
	for (size_t i = 0; i < compacted->n; i++)
		if (strcmp(compacted->v[i].id, from) >= 0 &&
		    tenant_index_add(to, &to->compacted, &compacted->v[i], err) < 0)
			return -1;
	return 0;
}

/* The blocks of the scan whose metas can be had. -1 when too many could not, or there is no memory:
 * then those behind *end are missing. */
static int take_blocks(struct compact_tenant *t, const struct compact_scan *scan,
		       struct tenant_index *to, size_t *end, struct err *err)
{
	unsigned n_failed = 0;

	for (*end = 0; *end < scan->n; (*end)++) {
		struct err local = ERR_INIT;

		if (t->c->stopping)
			return err_set(err, ERR_UNAVAILABLE, "stopping");
		if (take_block(t, &scan->v[*end], to, &local) == 0)
			continue;
		t->is_partial = true;
		if (err != NULL)
			*err = local;
		if (local.kind == ERR_EXHAUSTED || local.kind == ERR_TOO_LARGE ||
		    ++n_failed == FAILURES_MAX)
			return -1;
	}
	return 0;
}

/* The lists anew, from what the scan saw. -1: nothing can be done with them. */
static int take_scan(struct compact_tenant *t, const struct compact_scan *scan, struct err *err)
{
	struct tenant_index now;
	size_t end;
	int ret;

	tenant_index_init(&now, t->c->o.budget);
	t->is_partial = false;
	ret = take_blocks(t, scan, &now, &end, err);
	if (ret < 0 && keep_known(t, end < scan->n ? scan->v[end].id : "~", &now, NULL) < 0) {
		tenant_index_fini(&now);
		return -1;
	}
	t->is_changed |= now.live.n != t->index.live.n || now.compacted.n != t->index.compacted.n;
	tenant_index_fini(&t->index);
	t->index = now;
	if (ret < 0)
		return -1;
	forget_gone(&t->unreadable, scan);
	forget_gone(&t->refused, scan);
	t->c->sums.unreadable += t->unreadable.n;
	t->c->sums.set_aside += t->refused.n;
	return 0;
}

/* For the last one: it takes the place of the one that goes. */
static void drop(struct tenant_index_metas *m, size_t i)
{
	m->v[i] = m->v[--m->n];
}

int compact_tenant_retire(struct compact_tenant *t, const char *id, struct err *err)
{
	struct tenant_index_metas *live = &t->index.live;

	for (size_t i = 0; i < live->n; i++) {
		struct block_meta m = live->v[i];

		if (strcmp(m.id, id) != 0)
			continue;
		m.compacted_at = block_time_of_ns(t->now_ns);
		drop(live, i);
		t->is_changed = true;
		return tenant_index_add(&t->index, &t->index.compacted, &m, err);
	}
	return 0;
}

/* ---- retention ---- */

/* When a block came: by what it says, else (Tempo's) by the store. Not by its spans' clocks. */
static uint64_t came_at(const struct block_meta *m, uint64_t meta_ns)
{
	if (m->ingested_at.s == BLOCK_TIME_NONE_S)
		return meta_ns;
	return compact_time_of(m, UINT64_MAX);
}

static bool is_due(const struct block_meta *m, uint64_t meta_ns, uint64_t retention_ns,
		   uint64_t now_ns)
{
	uint64_t t = came_at(m, meta_ns);

	return t < now_ns && now_ns - t > retention_ns;
}

/* By what its own meta.json says, not by a list. */
static int retire_if_due(struct compact_tenant *t, const struct compact_seen *b,
			 uint64_t retention_ns, uint64_t now_ns, struct err *err)
{
	struct err local = ERR_INIT;
	struct block_meta m;
	int marked;

	if (block_read_meta(t->c->o.backend, t->name, b->id, "meta.json", &m, &local) < 0) {
		if (!local.retryable)
			return 0;
		if (err != NULL)
			*err = local;
		return -1;
	}
	if (!is_due(&m, b->meta_ns, retention_ns, now_ns))
		return 0;
	marked = compact_mark(t->c->o.backend, t->name, b->id, err);
	if (marked < 0)
		return -1;
	t->c->stats.retired += (uint64_t)marked;
	log_info("block retired by retention", "tenant", t->name, "block", b->id);
	return compact_tenant_retire(t, b->id, err);
}

static int apply_retention(struct compact_tenant *t, const struct compact_scan *scan,
			   struct err *err)
{
	const struct compactor_options *o = &t->c->o;
	uint64_t retention = o->retention_of ? o->retention_of(o->arg, t->name) : o->retention_ns;
	/* Of two clocks the one that is behind: what is deleted does not come back. */
	uint64_t now = MIN(t->now_ns, clock_wall_ns());
	unsigned n_failed = 0;

	/* From the end: in the place of a retired one comes one that was looked at. */
	for (size_t i = t->index.live.n; retention > 0 && i-- > 0 && n_failed < FAILURES_MAX;) {
		const struct compact_seen *b = compact_scan_find(scan, t->index.live.v[i].id);

		if (t->c->stopping)
			break;
		if (b != NULL && is_due(&t->index.live.v[i], b->meta_ns, retention, now) &&
		    retire_if_due(t, b, retention, now, err) < 0)
			n_failed++;
	}
	return n_failed > 0 ? -1 : 0;
}

/* ---- deletion ---- */

/* All but the mark. */
static int delete_object(void *arg, const struct backend_entry *e, struct err *err)
{
	const char *name = strrchr(e->key, '/');

	if (e->is_prefix || name == NULL || strcmp(name, "/meta.compacted.json") == 0)
		return 0;
	return backend_delete(arg, e->key, err);
}

static int delete_compacted(struct compact_tenant *t, const char *id, struct err *err)
{
	struct backend *be = t->c->o.backend;
	char key[BACKEND_KEY_MAX + 1];

	if (block_key(key, t->name, id, "meta.json", err) < 0 || backend_delete(be, key, err) < 0 ||
	    backend_key(key, err, "%s/%s", t->name, id) < 0 ||
	    backend_list(be, key, BACKEND_ONE_LEVEL, delete_object, be, err) < 0 ||
	    block_key(key, t->name, id, "meta.compacted.json", err) < 0 ||
	    backend_delete(be, key, err) < 0)
		return -1;
	t->c->stats.deleted++;
	t->is_changed = true;
	return 0;
}

static void forget_compacted(struct compact_tenant *t, const char *id)
{
	struct tenant_index_metas *m = &t->index.compacted;

	for (size_t i = 0; i < m->n; i++)
		if (strcmp(m->v[i].id, id) == 0) {
			drop(m, i);
			return;
		}
}

/* Marked long enough ago; what has both names is compacted, so that meta.json goes; and a meta.json
 * that was published after its block was deleted names nothing. */
static int delete_one(struct compact_tenant *t, const struct compact_seen *b, struct err *err)
{
	struct backend *be = t->c->o.backend;
	uint64_t now = t->now_ns - MIN(t->now_ns, backend_mtime_spare_ns(be));

	if (b->has_compacted && b->compacted_ns + t->c->o.compacted_retention_ns < now) {
		forget_compacted(t, b->id);
		return delete_compacted(t, b->id, err);
	}
	if (b->has_compacted && b->has_meta)
		return compact_mark(be, t->name, b->id, err) < 0 ? -1 : 0;
	if (b->has_meta && !b->has_data && b->newest_ns + SHELL_AGE_S * NS_PER_S < now)
		return block_delete(be, t->name, b->id, err);
	return 0;
}

static int delete_old(struct compact_tenant *t, const struct compact_scan *scan, struct err *err)
{
	unsigned n_failed = 0;

	for (size_t i = 0; i < scan->n && !t->c->stopping && n_failed < FAILURES_MAX; i++)
		n_failed += delete_one(t, &scan->v[i], err) < 0;
	return n_failed > 0 ? -1 : 0;
}

/* ---- the index ---- */

static int write_index(struct compact_tenant *t, const struct compact_scan *scan, struct err *err)
{
	char key[BACKEND_KEY_MAX + 1];

	if (t->index.live.n + t->index.compacted.n == 0) {
		if (!scan->has_index)
			return 0;
		return tenant_index_key(key, t->name, err) < 0
			       ? -1
			       : backend_delete(t->c->o.backend, key, err);
	}
	/* Other readers believe it: one without blocks that are there is worse than an old one. */
	if ((!t->is_changed && scan->has_index) || t->is_partial)
		return 0;
	sort(&t->index.live);
	sort(&t->index.compacted);
	t->index.created_at = block_time_of_ns(backend_now_ns(t->c->o.backend));
	if (tenant_index_write(t->c->o.backend, t->name, &t->index, err) < 0)
		return -1;
	t->is_changed = false;
	t->c->stats.indexes++;
	return 0;
}

/* ---- */

static void count_chain(struct compact_tenant *t)
{
	struct compactor_stats *s = &t->c->stats;
	struct compact_chain *c = &t->chain;

	s->finished += c->n_finished;
	s->void_records += c->n_void;
	s->damaged_records += c->n_damaged;
	c->n_finished = c->n_void = c->n_damaged = c->n_marked = 0;
}

/* What is of a format that is not merged is named once, when it is met first. */
static void count_foreign(struct compact_tenant *t)
{
	const struct block_meta *first = NULL;
	uint64_t n = 0;

	for (size_t i = 0; i < t->index.live.n; i++)
		if (!compact_is_mergeable(&t->index.live.v[i])) {
			first = first ? first : &t->index.live.v[i];
			n++;
		}
	t->c->sums.foreign += n;
	if (first != NULL && !t->has_foreign)
		log_info("blocks of other formats stay as they are", "tenant", t->name, "blocks",
			 LOG_NUM(n), "block", first->id, "format", first->format, "dataEncoding",
			 first->data_encoding);
	t->has_foreign = first != NULL;
}

typedef int step_fn(struct compact_tenant *t, const struct compact_scan *scan, struct err *err);

/* Each step is tried whatever became of those before it: one block that makes trouble shall not
 * keep the others from being deleted. The first error counts. */
static int work(struct compact_tenant *t, const struct compact_scan *scan, struct err *err)
{
	static step_fn *const steps[] = { apply_retention, compact_tenant_merge, delete_old,
					  write_index };
	struct err first = ERR_INIT;
	int ret = take_scan(t, scan, &first);

	if (ret == 0) {
		count_foreign(t);
		ret = t->is_partial ? -1 : 0;
		for (size_t i = 0; i < COUNT_OF(steps) && !t->c->stopping; i++) {
			struct err local = ERR_INIT;

			if (steps[i](t, scan, &local) == 0)
				continue;
			first = ret == 0 ? local : first;
			ret = -1;
		}
	}
	if (ret < 0 && err != NULL)
		*err = first;
	return ret;
}

static int sweep_chain(struct compact_tenant *t, struct err *err)
{
	uint64_t age = t->c->o.record_age_ns ? t->c->o.record_age_ns : RECORD_AGE_S * NS_PER_S;

	return t->chain.last > 1 ? compact_chain_sweep(&t->chain, age, err) : 0;
}

int compact_tenant_cycle(struct compact_tenant *t, struct err *err)
{
	struct compact_scan scan = { .v = NULL };
	int ret = -1;

	if (compact_chain_follow(&t->chain, err) == 0) {
		/* The scan after it: what the records up to now used is no longer live. */
		compact_chain_begin(&t->chain);
		if (load_index(t, err) == 0 &&
		    compact_scan(t->c->o.backend, t->name, &scan, err) == 0) {
			t->now_ns = backend_now_ns(t->c->o.backend);
			ret = work(t, &scan, err);
			if (ret == 0)
				ret = sweep_chain(t, err);
		}
	}
	compact_scan_fini(&scan);
	sort(&t->index.live);
	sort(&t->index.compacted);
	count_chain(t);
	return ret < 0 ? err_wrap(err, "compacting tenant %.60s", t->name) : 0;
}
