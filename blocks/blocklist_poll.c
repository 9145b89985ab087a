/* SPDX-License-Identifier: Apache-2.0
 *
 * blocklist_poll.c - how a block list learns what is in the backend.
 *
 * On a local disk a poll looks for meta.json in each folder: that costs nothing.
 *
 * In a bucket each look is a request, so a tenant is polled like this:
 *   1. <tenant>/index.json.gz, unless it is what it was (ETag)     the metas of most blocks
 *   2. a list of one level                                         the blocks there are
 *   3. meta.json of each folder that neither the list nor the index knows, several at once
 * The index is no older than the list then, so whatever it says was compacted has its output in the
 * list. A folder without meta.json is one that is being written, or was left: it is asked for again
 * in every poll, because a poll must see all that is published. One with meta.compacted.json is not
 * asked again; but what replaced it may have come after the list, or after its folder was asked, so
 * the list is made once more.
 * MEMORY: the index is charged to the budget while it is in use.
 */
#include "blocks/blocklist_private.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/parallel.h"
#include "blocks/block.h"
#include "blocks/tenant_index.h"

#include <stdio.h>

enum {
	POLLS_TO_FORGET = 2,
	META_THREADS = 16,
	TENANTS_TO_FAIL = 3,
	COMPACTED_EVERY = 8, /* of so many tries one asks for meta.compacted.json too */
	PASSES_MAX = 3,      /* lists of one poll */
	ID_SIZE = 37,
};

/* Of one tenant. */
struct poll {
	struct blocklist *l;
	const char *tenant;
	uint64_t number; /* the tenant's */
	struct tenant_index index;
	struct map live, compacted; /* id -> meta in the index */
	char etag[BACKEND_ETAG_SIZE];
	char (*unknown)[ID_SIZE]; /* folders that are to be asked */
	size_t n_unknown, cap_unknown;
	size_t n_compacted; /* under the list's lock: folders found compacted by asking them */
	pthread_mutex_t err_lock;
	struct err err; /* the first that ends the poll */
};

/* ---- one meta.json ---- */

static void add_block(struct poll *p, const struct block_meta *m)
{
	struct blocklist *l = p->l;

	pthread_mutex_lock(&l->lock);
	blocklist_put(l, blocklist_tenant(l, m->tenant), m, p->number);
	pthread_mutex_unlock(&l->lock);
}

/* `file` is NULL where nothing is known of it: it is then read again in every poll. */
static void note_damaged(struct poll *p, const char *id, const struct backend_entry *file,
			 const struct err *err)
{
	struct blocklist *l = p->l;
	struct tenant *t;
	struct entry *e;
	bool is_news;

	pthread_mutex_lock(&l->lock);
	t = blocklist_tenant(l, p->tenant);
	e = blocklist_entry(l, t, id);
	is_news = e->state != ENTRY_DAMAGED;
	blocklist_set(l, t, e, NULL);
	e->state = ENTRY_DAMAGED;
	e->seen = p->number;
	e->is_final = err->kind == ERR_INVALID && file != NULL;
	e->size = file != NULL ? file->size : 0;
	e->mtime_ns = file != NULL ? file->mtime_ns : 0;
	pthread_mutex_unlock(&l->lock);
	if (is_news)
		log_warn("meta.json is unreadable, block skipped", "tenant", p->tenant, "block", id,
			 "error", err->msg);
}

/* Under the lock: off the list after two more polls, and not asked for while its folder is there.
 */
static void set_compacted(struct blocklist *l, struct tenant *t, const char *id, uint64_t poll)
{
	struct entry *e = blocklist_entry(l, t, id);

	e->state = ENTRY_COMPACTED;
	e->folder = poll;
}

/* 0, or -1 when the backend is away. NOT_FOUND is left in *err for the caller. */
static int read_meta(struct poll *p, const char *id, const struct backend_entry *file,
		     struct err *err)
{
	struct block_meta m;

	atomic_fetch_add(&p->l->n_metas_read, 1);
	if (block_read_meta(p->l->be, p->tenant, id, "meta.json", &m, err) == 0)
		add_block(p, &m);
	else if (err->kind != ERR_NOT_FOUND && err->retryable)
		return -1;
	else if (err->kind != ERR_NOT_FOUND)
		note_damaged(p, id, file, err);
	return 0;
}

/* ---- a local disk ---- */

/* True when there is nothing to read: the block is listed, or its meta.json is as unreadable as it
 * was. Then it is also marked as seen. */
static bool is_known(struct poll *p, const char *id, const struct backend_entry *file)
{
	struct blocklist *l = p->l;
	struct tenant *t;
	struct entry *e;
	bool known;

	pthread_mutex_lock(&l->lock);
	t = map_find(&l->tenants, bytes_str(p->tenant));
	e = t != NULL ? map_find(&t->entries, bytes_str(id)) : NULL;
	known = e != NULL && (e->block != NULL || (e->is_final && e->size == file->size &&
						   e->mtime_ns == file->mtime_ns));
	if (known)
		e->seen = p->number;
	pthread_mutex_unlock(&l->lock);
	return known;
}

/* file: "<tenant>/<id>/meta.json". -1 only when the backend is away. */
static int visit_meta(void *arg, const struct backend_entry *file, struct err *err)
{
	struct poll *p = arg;
	struct err local = ERR_INIT;
	char id[BACKEND_SEGMENT_MAX + 1];

	snprintf(id, sizeof(id), "%s", file->key + strlen(p->tenant) + 1);
	id[strcspn(id, "/")] = '\0';
	/* NOT_FOUND: compacted, or removed since the listing. */
	if (is_known(p, id, file) || read_meta(p, id, file, &local) == 0)
		return 0;
	if (err != NULL)
		*err = local;
	return -1;
}

/* ---- a bucket: the index ---- */

static void map_metas(struct map *m, const struct tenant_index_metas *metas)
{
	for (size_t i = 0; i < metas->n; i++)
		map_set(m, bytes_str(metas->v[i].id), &metas->v[i]);
}

static void use_index(struct poll *p, const struct buf *gzip)
{
	struct err err = ERR_INIT;

	if (tenant_index_decode(buf_bytes(gzip), p->tenant, p->l->budget, &p->index, &err) == 0) {
		atomic_fetch_add(&p->l->n_index_read, 1);
		map_metas(&p->live, &p->index.live);
		map_metas(&p->compacted, &p->index.compacted);
		return;
	}
	atomic_fetch_add(&p->l->n_index_bad, 1);
	if (err.retryable)
		p->etag[0] = '\0'; /* no memory now: again next time */
	log_warn("tenant index is unreadable, each meta.json is read instead", "tenant", p->tenant,
		 "error", err.msg);
}

/* What it saves are requests: without it the poll goes on. */
static void read_index(struct poll *p)
{
	char key[BACKEND_KEY_MAX + 1];
	struct meter meter = { .budget = p->l->budget };
	struct buf gzip = { .meter = &meter };
	struct err err = ERR_INIT;
	struct tenant *t;
	int got;

	pthread_mutex_lock(&p->l->lock);
	t = map_find(&p->l->tenants, bytes_str(p->tenant));
	if (t != NULL)
		memcpy(p->etag, t->etag, sizeof(p->etag));
	pthread_mutex_unlock(&p->l->lock);
	if (tenant_index_key(key, p->tenant, NULL) < 0)
		return;
	got = backend_read_changed(p->l->be, key, TENANT_INDEX_GZIP_MAX, p->etag, &gzip, &err);
	if (got > 0)
		use_index(p, &gzip);
	else if (got == 0)
		atomic_fetch_add(&p->l->n_index_same, 1);
	else
		p->etag[0] = '\0';
	if (got < 0 && err.kind != ERR_NOT_FOUND)
		log_warn("tenant index cannot be read", "tenant", p->tenant, "error", err.msg);
	buf_fini(&gzip);
	meter_fini(&meter);
}

/* ---- a bucket: folders ---- */

/* Under the lock: what the index says of a folder, where it is clear. */
static bool is_in_index(struct poll *p, struct tenant *t, const char *id)
{
	const struct block_meta *live = map_find(&p->live, bytes_str(id));
	bool is_compacted = map_find(&p->compacted, bytes_str(id)) != NULL;

	if ((live != NULL) == is_compacted)
		return false;
	if (is_compacted)
		set_compacted(p->l, t, id, p->number);
	else
		blocklist_put(p->l, t, live, p->number);
	return true;
}

/* Under the lock: nothing has to be asked. */
static bool knows_folder(struct poll *p, const char *id)
{
	struct tenant *t = blocklist_tenant(p->l, p->tenant);
	struct entry *e = map_find(&t->entries, bytes_str(id));

	if (e != NULL && e->state == ENTRY_COMPACTED) {
		e->folder = p->number;
		return true;
	}
	if (e == NULL || e->block == NULL)
		return is_in_index(p, t, id);
	if (map_find(&p->compacted, bytes_str(id)) != NULL)
		set_compacted(p->l, t, id, p->number);
	else
		e->seen = p->number;
	return true;
}

/* dir: "<tenant>/<id>" */
static int visit_folder(void *arg, const struct backend_entry *dir, struct err *err)
{
	struct poll *p = arg;
	const char *id = dir->key + strlen(p->tenant) + 1;
	uint8_t bytes[16];
	bool known;

	(void)err;
	if (!dir->is_prefix || block_meta_id_bytes(id, bytes, NULL) < 0)
		return 0;
	pthread_mutex_lock(&p->l->lock);
	known = knows_folder(p, id);
	pthread_mutex_unlock(&p->l->lock);
	if (known)
		return 0;
	p->unknown = xgrow(p->unknown, &p->cap_unknown, p->n_unknown + 1, sizeof(*p->unknown));
	memcpy(p->unknown[p->n_unknown++], id, ID_SIZE);
	return 0;
}

/* A folder without meta.json. */
static void note_pending(struct poll *p, const char *id)
{
	struct blocklist *l = p->l;
	char key[BACKEND_KEY_MAX + 1];
	bool is_compacted = false;
	struct tenant *t;
	struct entry *e;
	uint64_t size;
	uint32_t tries;

	pthread_mutex_lock(&l->lock);
	e = map_find(&blocklist_tenant(l, p->tenant)->entries, bytes_str(id));
	tries = e != NULL ? e->tries : 0;
	pthread_mutex_unlock(&l->lock);
	if (tries % COMPACTED_EVERY == 0 &&
	    block_key(key, p->tenant, id, "meta.compacted.json", NULL) == 0)
		is_compacted = backend_size(l->be, key, &size, NULL) == 0;
	pthread_mutex_lock(&l->lock);
	t = blocklist_tenant(l, p->tenant);
	if (is_compacted) {
		set_compacted(l, t, id, p->number);
		p->n_compacted++;
	} else {
		e = blocklist_entry(l, t, id);
		/* Unless this process has published it meanwhile. */
		if (e->block == NULL)
			e->state = ENTRY_PENDING;
		e->seen = p->number;
		e->tries = tries + 1;
	}
	pthread_mutex_unlock(&l->lock);
}

static bool has_failed(struct poll *p)
{
	bool failed;

	pthread_mutex_lock(&p->err_lock);
	failed = p->err.kind != ERR_NONE;
	pthread_mutex_unlock(&p->err_lock);
	return failed;
}

static void ask_folder(void *arg, size_t i, unsigned worker)
{
	struct poll *p = arg;
	struct err err = ERR_INIT;

	(void)worker;
	if (has_failed(p))
		return;
	if (read_meta(p, p->unknown[i], NULL, &err) < 0) {
		pthread_mutex_lock(&p->err_lock);
		p->err = err;
		pthread_mutex_unlock(&p->err_lock);
	} else if (err.kind == ERR_NOT_FOUND) {
		note_pending(p, p->unknown[i]);
	}
}

/* Folders, and what is not known of them. */
static int poll_folders(struct poll *p, struct err *err)
{
	p->n_unknown = p->n_compacted = 0;
	if (backend_list(p->l->be, p->tenant, BACKEND_ONE_LEVEL, visit_folder, p, err) < 0)
		return -1;
	parallel_run(p->n_unknown, META_THREADS, ask_folder, p);
	if (p->err.kind == ERR_NONE)
		return 0;
	if (err != NULL)
		*err = p->err;
	return -1;
}

static int poll_bucket(struct poll *p, struct err *err)
{
	read_index(p);
	for (int i = 0; i < PASSES_MAX; i++) {
		if (poll_folders(p, err) < 0)
			return -1;
		if (p->n_compacted == 0)
			break;
	}
	return 0;
}

/* ---- the end of a poll ---- */

/* Under the lock. Take out what was not seen: a block after two polls in a row, anything else at
 * once. */
static void forget_missing(struct blocklist *l, struct tenant *t, uint64_t poll)
{
	struct bytes key;
	void *value;
	size_t pos = 0, before = t->n_damaged;

	t->n_damaged = 0;
	while (map_next(&t->entries, &pos, &key, &value)) {
		struct entry *e = value;

		if (e->block != NULL && e->seen + POLLS_TO_FORGET <= poll)
			blocklist_set(l, t, e, NULL);
		if (e->block != NULL || e->folder == poll ||
		    (e->state != ENTRY_LISTED && e->seen == poll)) {
			t->n_damaged += e->state == ENTRY_DAMAGED;
			continue;
		}
		map_remove(&t->entries, key);
		blocklist_free_entry(l, e);
	}
	l->n_damaged += t->n_damaged - before;
	t->polls = poll;
}

static void end_poll(struct poll *p, uint64_t begun_ns)
{
	struct blocklist *l = p->l;
	struct tenant *t;

	pthread_mutex_lock(&l->lock);
	/* A tenant without blocks has no place here: anybody may ask for any name. */
	t = map_find(&l->tenants, bytes_str(p->tenant));
	if (t != NULL) {
		forget_missing(l, t, p->number);
		t->begun_ns = begun_ns;
		t->visited = l->rounds;
		memcpy(t->etag, p->etag, sizeof(t->etag));
	}
	pthread_mutex_unlock(&l->lock);
}

static uint64_t next_poll_of(struct blocklist *l, const char *tenant)
{
	struct tenant *t;
	uint64_t number;

	pthread_mutex_lock(&l->lock);
	t = map_find(&l->tenants, bytes_str(tenant));
	number = t != NULL ? t->polls + 1 : 1;
	pthread_mutex_unlock(&l->lock);
	return number;
}

/* Under `polling`. */
static int poll_tenant(struct blocklist *l, const char *tenant, struct err *err)
{
	struct poll p = { .l = l, .tenant = tenant, .number = next_poll_of(l, tenant) };
	uint64_t begun_ns = clock_mono_ns();
	int ret;

	tenant_index_init(&p.index, l->budget);
	pthread_mutex_init(&p.err_lock, NULL);
	if (backend_is_remote(l->be))
		ret = poll_bucket(&p, err);
	else
		ret = backend_list_members(l->be, tenant, "meta.json", visit_meta, &p, err);
	if (ret == 0)
		end_poll(&p, begun_ns);
	pthread_mutex_destroy(&p.err_lock);
	map_fini(&p.live);
	map_fini(&p.compacted);
	tenant_index_fini(&p.index);
	free(p.unknown);
	return ret;
}

/* ---- all tenants ---- */

/* A poll of everything. One tenant that cannot be polled (a key that the store chokes on) does not
 * keep the others from it; several mean that the store is away. */
struct round {
	struct blocklist *l;
	unsigned n_failed;
	struct err err; /* the first */
};

static int visit_tenant(void *arg, const struct backend_entry *e, struct err *err)
{
	struct round *r = arg;
	struct err local = ERR_INIT;

	if (!e->is_prefix || block_meta_tenant_check(bytes_str(e->key), NULL) < 0)
		return 0;
	if (poll_tenant(r->l, e->key, &local) == 0)
		return 0;
	if (r->n_failed++ == 0)
		r->err = local;
	if (r->n_failed < TENANTS_TO_FAIL)
		return 0;
	if (err != NULL)
		*err = local;
	return -1;
}

/* Tenants that the listing did not show have nothing any more. */
static void end_round(struct blocklist *l)
{
	struct bytes key;
	void *value;
	size_t pos = 0;

	pthread_mutex_lock(&l->lock);
	while (map_next(&l->tenants, &pos, &key, &value)) {
		struct tenant *t = value;

		if (t->visited != l->rounds)
			forget_missing(l, t, t->polls + 1);
		if (t->entries.n > 0)
			continue;
		map_remove(&l->tenants, key);
		blocklist_free_tenant(l, t);
	}
	pthread_mutex_unlock(&l->lock);
}

/* Under `polling`. */
static void note_failed(struct blocklist *l, const char *tenant, uint64_t begun_ns,
			const struct err *err)
{
	l->failed.begun_ns = begun_ns;
	l->failed.err = *err;
	snprintf(l->failed.tenant, sizeof(l->failed.tenant), "%s", tenant);
}

/* Under `polling`. */
static int poll_all(struct blocklist *l, struct err *err)
{
	uint64_t begun_ns = clock_mono_ns();
	struct round r = { .l = l };

	l->rounds++;
	if (backend_list(l->be, "", BACKEND_ONE_LEVEL, visit_tenant, &r, err) < 0)
		return -1;
	if (r.n_failed > 0) {
		if (err != NULL)
			*err = r.err;
		return -1;
	}
	end_round(l);
	l->begun_ns = begun_ns;
	atomic_fetch_add(&l->n_polls, 1);
	return 0;
}

int blocklist_poll(struct blocklist *l, struct err *err)
{
	struct err local = ERR_INIT;
	uint64_t begun_ns;
	int ret;

	pthread_mutex_lock(&l->polling);
	begun_ns = clock_mono_ns();
	ret = poll_all(l, &local);
	if (ret < 0)
		note_failed(l, "", begun_ns, &local);
	pthread_mutex_unlock(&l->polling);
	if (ret < 0 && err != NULL)
		*err = local;
	return ret;
}

/* ---- one tenant, when it must be ---- */

static bool is_young(struct blocklist *l, const char *tenant, uint64_t since_ns)
{
	struct tenant *t;
	uint64_t begun_ns = l->begun_ns;

	pthread_mutex_lock(&l->lock);
	t = map_find(&l->tenants, bytes_str(tenant));
	if (t != NULL)
		begun_ns = t->begun_ns;
	pthread_mutex_unlock(&l->lock);
	return begun_ns >= since_ns;
}

/* Under `polling`: did a poll of this tenant fail that began after since_ns? */
static bool has_failed_since(const struct blocklist *l, const char *tenant, uint64_t since_ns)
{
	const struct failed_poll *f = &l->failed;

	return f->begun_ns >= since_ns && (f->tenant[0] == '\0' || strcmp(f->tenant, tenant) == 0);
}

/* Under `polling`. When the store does not answer, those who waited meanwhile do not each find that
 * out in turn. */
static int poll_once(struct blocklist *l, const char *tenant, uint64_t asked_ns, struct err *err)
{
	uint64_t begun_ns = clock_mono_ns();

	if (has_failed_since(l, tenant, asked_ns)) {
		*err = l->failed.err;
		return -1;
	}
	if (poll_tenant(l, tenant, err) == 0)
		return 0;
	note_failed(l, tenant, begun_ns, err);
	return -1;
}

int blocklist_poll_since(struct blocklist *l, const char *tenant, uint64_t since_ns,
			 struct err *err)
{
	uint64_t asked_ns = clock_mono_ns();
	struct err local = ERR_INIT;
	int ret = 0;

	if (is_young(l, tenant, since_ns))
		return 0;
	pthread_mutex_lock(&l->polling);
	if (!is_young(l, tenant, since_ns))
		ret = poll_once(l, tenant, asked_ns, &local);
	pthread_mutex_unlock(&l->polling);
	if (ret < 0 && err != NULL)
		*err = local;
	return ret;
}

void blocklist_stats(struct blocklist *l, struct blocklist_stats *out)
{
	*out = (struct blocklist_stats){ .polls = l->n_polls,
					 .metas_read = l->n_metas_read,
					 .index_read = l->n_index_read,
					 .index_same = l->n_index_same,
					 .index_bad = l->n_index_bad };
}
