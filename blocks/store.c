/* SPDX-License-Identifier: Apache-2.0
 *
 * store.c - see store.h.
 */
#include "blocks/store.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/parallel.h"
#include "blocks/block.h"
#include "blocks/block_object.h"
#include "blocks/block_reader.h"

#include <stdio.h>
#include <time.h>

enum {
	OWN_POLLS = 2, /* for so long a block of ours counts as live: others may not know it yet */
	WALKS_AGAIN = 3, /* after blocks went away */
	FILTER_THREADS = 8,
	JOIN_GRACE_MS = 500,
};

struct store {
	struct backend *be;
	char *local_path;
	uint64_t poll_ns;
	struct block_reader_options reader;
	struct blocklist *list;
	struct block_cache *cache;
	struct block_cache *pages; /* NULL on a local disk: the kernel keeps them */
	pthread_mutex_t live_lock; /* the list and its counts of users */
	pthread_cond_t live_idle;  /* a source has no users */
	struct live_source *live;
	pthread_t poller;
	bool polling;
	uint64_t started_ns;
	pthread_mutex_t stop_lock;
	pthread_cond_t stop_cond;
	bool stopping;
};

static void forget_block(void *store, uint64_t number)
{
	struct store *s = store;

	block_cache_drop(s->cache, number);
	block_cache_drop(s->pages, number);
}

struct store *store_new(const struct store_options *o)
{
	struct store *s = xcalloc(1, sizeof(*s));
	pthread_condattr_t monotonic;

	s->be = o->backend;
	s->local_path = xstrdup(o->local_path);
	s->poll_ns = o->poll_ns;
	s->started_ns = clock_mono_ns();
	s->cache = block_cache_new(o->budget, o->cache_bytes);
	s->reader.max_page_bytes = o->max_page_bytes;
	s->reader.cache = s->cache;
	if (backend_is_remote(s->be)) {
		s->pages = block_cache_new(o->budget, o->cache_bytes / 4);
		block_cache_favour_new(s->pages);
	}
	s->reader.pages = s->pages;
	s->reader.budget = o->budget;
	s->list = blocklist_new(s->be);
	blocklist_charge(s->list, o->budget);
	blocklist_on_gone(s->list, forget_block, s);
	pthread_mutex_init(&s->live_lock, NULL);
	pthread_cond_init(&s->live_idle, NULL);
	pthread_mutex_init(&s->stop_lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&s->stop_cond, &monotonic);
	pthread_condattr_destroy(&monotonic);
	return s;
}

/* False when the store is stopping. */
static bool wait_for_next_poll(struct store *s)
{
	uint64_t due = clock_mono_ns() + s->poll_ns;
	struct timespec ts = { (time_t)(due / NS_PER_S), (long)(due % NS_PER_S) };
	bool stopping;

	pthread_mutex_lock(&s->stop_lock);
	while (!s->stopping && clock_mono_ns() < due)
		pthread_cond_timedwait(&s->stop_cond, &s->stop_lock, &ts);
	stopping = s->stopping;
	pthread_mutex_unlock(&s->stop_lock);
	return !stopping;
}

static void *poll_thread(void *arg)
{
	struct store *s = arg;
	struct err err = ERR_INIT;

	while (wait_for_next_poll(s))
		if (store_refresh(s, &err) < 0)
			log_warn("blocklist poll failed, the old list stays", "error", err.msg);
	return NULL;
}

int store_start(struct store *s, struct err *err)
{
	if (store_refresh(s, err) < 0)
		return -1;
	if (pthread_create(&s->poller, NULL, poll_thread, s) != 0)
		return err_set(err, ERR_INTERNAL, "trace_store: cannot start the poll thread");
	s->polling = true;
	return 0;
}

void store_free(struct store *s)
{
	if (s == NULL)
		return;
	if (s->polling) {
		pthread_mutex_lock(&s->stop_lock);
		s->stopping = true;
		pthread_cond_signal(&s->stop_cond);
		pthread_mutex_unlock(&s->stop_lock);
		backend_interrupt(s->be, true); /* nobody else is left to use it */
		pthread_join(s->poller, NULL);
	}
	blocklist_free(s->list);
	block_cache_free(s->cache);
	block_cache_free(s->pages);
	backend_free(s->be);
	free(s->local_path);
	pthread_mutex_destroy(&s->live_lock);
	pthread_cond_destroy(&s->live_idle);
	pthread_mutex_destroy(&s->stop_lock);
	pthread_cond_destroy(&s->stop_cond);
	free(s);
}

struct backend *store_backend(struct store *s)
{
	return s->be;
}

void store_join(struct store *s, pthread_t thread)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += JOIN_GRACE_MS * 1000000L;
	until.tv_sec += until.tv_nsec / 1000000000L;
	until.tv_nsec %= 1000000000L;
	if (pthread_timedjoin_np(thread, NULL, &until) == 0)
		return;
	backend_interrupt(s->be, true);
	pthread_join(thread, NULL);
	backend_interrupt(s->be, false);
}

const char *store_local_path(struct store *s)
{
	return s->local_path;
}

uint64_t store_poll_ns(struct store *s)
{
	return s->poll_ns;
}

struct blocklist *store_blocklist(struct store *s)
{
	return s->list;
}

struct block_cache *store_cache(struct store *s)
{
	return s->cache;
}

void store_cache_stats(struct store *s, struct block_cache_stats *out)
{
	struct block_cache_stats pages;

	block_cache_stats(s->cache, out);
	if (s->pages == NULL)
		return;
	block_cache_stats(s->pages, &pages);
	block_cache_stats_add(out, &pages);
}

void store_add_live(struct store *s, struct live_source *live)
{
	pthread_mutex_lock(&s->live_lock);
	live->next = s->live;
	live->users = 0;
	s->live = live;
	pthread_mutex_unlock(&s->live_lock);
}

void store_remove_live(struct store *s, struct live_source *live)
{
	pthread_mutex_lock(&s->live_lock);
	for (struct live_source **at = &s->live; *at != NULL; at = &(*at)->next)
		if (*at == live) {
			*at = live->next;
			break;
		}
	while (live->users > 0)
		pthread_cond_wait(&s->live_idle, &s->live_lock);
	pthread_mutex_unlock(&s->live_lock);
}

bool store_has_live(struct store *s)
{
	bool has;

	pthread_mutex_lock(&s->live_lock);
	has = s->live != NULL;
	pthread_mutex_unlock(&s->live_lock);
	return has;
}

struct live_list {
	struct live_source **v;
	size_t n, cap;
};

/* The sources now; none of them ends before live_unhold. */
static void live_hold(struct store *s, struct live_list *list)
{
	*list = (struct live_list){ NULL, 0, 0 };
	pthread_mutex_lock(&s->live_lock);
	for (struct live_source *l = s->live; l != NULL; l = l->next) {
		list->v = xgrow(list->v, &list->cap, list->n + 1, sizeof(*list->v));
		list->v[list->n++] = l;
		l->users++;
	}
	pthread_mutex_unlock(&s->live_lock);
}

static void live_unhold(struct store *s, struct live_list *list)
{
	pthread_mutex_lock(&s->live_lock);
	for (size_t i = 0; i < list->n; i++)
		list->v[i]->users--;
	pthread_cond_broadcast(&s->live_idle);
	pthread_mutex_unlock(&s->live_lock);
	free(list->v);
}

void store_add_block(struct store *s, const struct block_meta *m)
{
	blocklist_add(s->list, m);
}

void store_add_committed(struct store *s, const struct block_meta *m)
{
	blocklist_add_committed(s->list, m);
}

int store_refresh(struct store *s, struct err *err)
{
	return blocklist_poll(s->list, err);
}

int store_flush(struct store *s, struct err *err)
{
	struct live_list live;
	int ret = 0;

	live_hold(s, &live);
	for (size_t i = 0; ret == 0 && i < live.n; i++)
		ret = live.v[i]->flush(live.v[i], err);
	live_unhold(s, &live);
	return ret;
}

/* ---- finding ---- */

struct finder {
	store_piece_fn *piece;
	void *arg;
	struct store_find_result *result;
	bool stopped;      /* the caller's callback said -1 */
	uint64_t asked_to; /* number of the newest block on the list that was walked; 0: none */
	uint64_t gone_ns;  /* when a block was found gone; 0: none was */
	struct block_reader *r; /* turned from block to block; NULL: none yet */
};

static int count_piece(void *arg, struct bytes traces_data, struct err *err)
{
	struct finder *f = arg;

	f->result->pieces++;
	f->result->inspected_bytes += traces_data.n;
	if (f->piece(f->arg, traces_data, err) == 0)
		return 0;
	f->stopped = true;
	return -1;
}

static void note_failure(struct store_find_result *r, const struct err *err)
{
	if (r->first_failure[0] == '\0')
		snprintf(r->first_failure, sizeof(r->first_failure), "%s", err->msg);
}

static int find_live(struct store *s, const char *tenant, const uint8_t id[16], struct finder *f,
		     struct err *err)
{
	struct live_list live;

	live_hold(s, &live);
	for (size_t i = 0; !f->stopped && i < live.n; i++) {
		struct err local = ERR_INIT;

		if (live.v[i]->find(live.v[i], tenant, id, count_piece, f, &local) == 0)
			continue;
		if (f->stopped) {
			if (err != NULL)
				*err = local;
		} else {
			f->result->live_failed++;
			note_failure(f->result, &local);
			/* Retryable: a partition that is still being read, nobody's fault. */
			if (!local.retryable)
				log_warn("live spans cannot be read, answers are without them",
					 "tenant", tenant, "error", local.msg);
		}
	}
	live_unhold(s, &live);
	return f->stopped ? -1 : 0;
}

static int give_segments(const struct block_meta *m, struct bytes object, struct finder *f,
			 struct err *err)
{
	struct block_object o;
	struct bytes segment;
	int got;

	if (block_object_parse(object, m->data_encoding, &o, err) < 0)
		return -1;
	while ((got = block_object_segment_next(&o.segments, &segment, err)) > 0)
		if (count_piece(f, segment, err) < 0)
			return -1;
	return got;
}

static int turn_reader(struct store *s, const struct listed_block *b, struct finder *f,
		       struct err *err)
{
	struct block_reader_options o = s->reader;

	if (f->r != NULL)
		return block_reader_open(f->r, &b->meta, b->number, err);
	o.number = b->number;
	f->r = block_reader_new(s->be, &b->meta, &o, err);
	return f->r != NULL ? 0 : -1;
}

/* A block that may have the trace. What its filter says is known where nobody waits for it, or was
 * asked of many blocks at once. */
enum verdict { VERDICT_NO, VERDICT_MAYBE, VERDICT_UNKNOWN };

struct candidate {
	const struct listed_block *b;
	enum verdict verdict;
};

static int find_in_block(struct store *s, const struct candidate *c, const uint8_t id[16],
			 struct finder *f, struct err *err)
{
	const struct listed_block *b = c->b;
	struct bytes object = BYTES_EMPTY;
	int found;

	if (c->verdict == VERDICT_NO)
		return 0;
	found = turn_reader(s, b, f, err);
	if (found == 0)
		found = c->verdict == VERDICT_MAYBE ? block_reader_find_here(f->r, id, &object, err)
						    : block_reader_find(f->r, id, &object, err);
	return found == 1 ? give_segments(&b->meta, object, f, err) : found;
}

/* A block that went away since the list was read was compacted or is past its retention: its data
 * is in blocks that are perhaps not on the list yet, or due to go. */
static bool is_gone(struct store *s, const struct block_meta *m, const struct err *err)
{
	char key[BACKEND_KEY_MAX + 1];
	struct err local = ERR_INIT;
	uint64_t size;

	if (err->kind != ERR_NOT_FOUND || block_key(key, m->tenant, m->id, "meta.json", NULL) < 0)
		return false;
	return backend_size(s->be, key, &size, &local) < 0 && local.kind == ERR_NOT_FOUND;
}

/* Ask one block. -1 only when the caller's callback stopped. */
static int ask_block(struct store *s, const struct candidate *c, const uint8_t id[16],
		     struct finder *f, struct err *err)
{
	const struct listed_block *b = c->b;
	struct err local = ERR_INIT;

	f->result->blocks_asked++;
	if (find_in_block(s, c, id, f, &local) == 0)
		return 0;
	if (f->stopped) {
		if (err != NULL)
			*err = local;
		return -1;
	}
	if (is_gone(s, &b->meta, &local)) {
		blocklist_remove(s->list, &b->meta);
		f->gone_ns = clock_mono_ns();
		return 0;
	}
	f->result->blocks_failed++;
	note_failure(f->result, &local);
	log_warn("block cannot be read, answers are without it", "tenant", b->meta.tenant, "block",
		 b->meta.id, "error", local.msg);
	return 0;
}

static void note_damaged(struct finder *f, size_t n)
{
	struct err damaged = ERR_INIT;

	if (n == 0)
		return;
	f->result->blocks_asked += n;
	f->result->blocks_failed += n;
	err_set(&damaged, ERR_CORRUPT, "%zu blocks have an unreadable meta.json", n);
	note_failure(f->result, &damaged);
}

/* Is the block in the scope, of the trace's shard, and not asked yet? */
static bool is_wanted(const struct listed_block *b, const struct store_scope *scope,
		      const struct finder *f, const uint8_t id[16])
{
	uint8_t own[16];

	if (!block_shard_may_hold(&b->meta.shard, id))
		return false;
	if (!scope->blocks)
		return atomic_load(&b->own_ns) >= f->result->live_since_ns;
	if (b->number <= f->asked_to)
		return false;
	return block_meta_id_bytes(b->meta.id, own, NULL) == 0 &&
	       memcmp(own, scope->first, 16) >= 0 && memcmp(own, scope->last, 16) <= 0;
}

static bool is_abandoned(const struct store_scope *scope)
{
	return scope->is_gone != NULL && atomic_load(scope->is_gone);
}

static int abandon(struct err *err)
{
	return err_set(err, ERR_UNAVAILABLE, "nobody waits for the answer");
}

/* ---- many blocks far away ----
 *
 * Filters that are not in memory are read by several threads at once: a hundred requests one after
 * the other would make a look-up wait for seconds.
 */

struct filters {
	struct store *s;
	const struct store_scope *scope;
	const uint8_t *id;
	struct candidate **cold;
	struct block_reader *readers[FILTER_THREADS];
};

static struct block_reader *reader_at(struct store *s, struct block_reader **r,
				      const struct listed_block *b)
{
	struct block_reader_options o = s->reader;

	o.number = b->number;
	if (*r == NULL)
		*r = block_reader_new(s->be, &b->meta, &o, NULL);
	else if (block_reader_open(*r, &b->meta, b->number, NULL) < 0)
		return NULL;
	return *r;
}

/* What fails stays unknown: it is tried again, and told, when the block is asked. */
static void ask_filter(void *arg, size_t i, unsigned worker)
{
	struct filters *f = arg;
	struct candidate *c = f->cold[i];
	struct block_reader *r =
		is_abandoned(f->scope) ? NULL : reader_at(f->s, &f->readers[worker], c->b);
	int got = r != NULL ? block_reader_ask_read(r, f->id, NULL) : -1;

	if (got >= 0)
		c->verdict = got == 1 ? VERDICT_MAYBE : VERDICT_NO;
}

static void ask_filters(struct store *s, const struct store_scope *scope, const uint8_t id[16],
			struct candidate *v, size_t n)
{
	struct filters f = { .s = s, .scope = scope, .id = id };
	size_t n_cold = 0;

	f.cold = xmalloc((n + 1) * sizeof(struct candidate *));
	for (size_t i = 0; i < n; i++) {
		struct block_reader *r = reader_at(s, &f.readers[0], v[i].b);
		int kept = r != NULL ? block_reader_ask_kept(r, id) : -1;

		if (kept >= 0)
			v[i].verdict = kept == 1 ? VERDICT_MAYBE : VERDICT_NO;
		else
			f.cold[n_cold++] = &v[i];
	}
	if (n_cold > 1)
		parallel_run(n_cold, FILTER_THREADS, ask_filter, &f);
	for (size_t i = 0; i < COUNT_OF(f.readers); i++)
		block_reader_free(f.readers[i]);
	free(f.cold);
}

/* Each block of the list as it is now; of those that came since the last walk, in a later one. */
static int walk_blocks(struct store *s, const struct store_scope *scope, const char *tenant,
		       const uint8_t id[16], struct finder *f, struct err *err)
{
	struct blocklist_snapshot blocks;
	struct candidate *v;
	uint64_t newest = f->asked_to;
	size_t n = 0;
	int ret = 0;

	blocklist_snapshot(s->list, tenant, &blocks);
	v = xmalloc((blocks.n + 1) * sizeof(*v));
	for (size_t i = 0; i < blocks.n; i++) {
		newest = MAX(newest, blocks.v[i]->number);
		if (is_wanted(blocks.v[i], scope, f, id))
			v[n++] = (struct candidate){ blocks.v[i], VERDICT_UNKNOWN };
	}
	if (backend_is_remote(s->be))
		ask_filters(s, scope, id, v, n);
	for (size_t i = 0; ret == 0 && i < n; i++)
		ret = is_abandoned(scope) ? abandon(err) : ask_block(s, &v[i], id, f, err);
	if (scope->blocks && f->asked_to == 0)
		note_damaged(f, blocks.n_damaged);
	f->asked_to = newest;
	free(v);
	blocklist_snapshot_fini(&blocks);
	return ret;
}

/* The list as it was at since_ns or later; without it the answer would claim too much. */
static bool is_fresh(struct store *s, const char *tenant, uint64_t since_ns, struct finder *f)
{
	struct err local = ERR_INIT;

	if (blocklist_poll_since(s->list, tenant, since_ns, &local) == 0)
		return true;
	f->result->blocks_failed++;
	f->result->blocks_asked++;
	err_wrap(&local, "the list of blocks is too old, and could not be read");
	note_failure(f->result, &local);
	return false;
}

static int find_in_blocks(struct store *s, const struct store_scope *scope, const char *tenant,
			  const uint8_t id[16], struct finder *f, struct err *err)
{
	int ret;

	if (scope->blocks)
		is_fresh(s, tenant, scope->listed_since_ns, f);
	ret = walk_blocks(s, scope, tenant, id, f, err);
	if (!scope->blocks) {
		f->result->live_since_ns = MAX(f->result->live_since_ns, f->gone_ns);
		return ret;
	}
	/* A block went while it was asked: what it held is in one that was published before. */
	for (int again = 0; ret == 0 && f->gone_ns > 0 && again < WALKS_AGAIN; again++) {
		uint64_t gone_ns = f->gone_ns;

		f->gone_ns = 0;
		if (!is_fresh(s, tenant, gone_ns, f))
			break;
		ret = walk_blocks(s, scope, tenant, id, f, err);
	}
	if (ret == 0 && f->gone_ns > 0) {
		f->result->blocks_failed++;
		note_failure(f->result,
			     &(struct err){ .msg = "blocks went away while they were asked" });
	}
	return ret;
}

int store_find_in(struct store *s, const struct store_scope *scope, const char *tenant,
		  const uint8_t id[16], store_piece_fn *piece, void *arg,
		  struct store_find_result *result, struct err *err)
{
	struct finder f = { .piece = piece, .arg = arg, .result = result };
	uint64_t now = clock_mono_ns();
	int ret = 0;

	memset(result, 0, sizeof(*result));
	result->live_since_ns = MAX(now - MIN(now, OWN_POLLS * s->poll_ns), s->started_ns);
	if (scope->live)
		ret = find_live(s, tenant, id, &f, err);
	if (ret == 0)
		ret = find_in_blocks(s, scope, tenant, id, &f, err);
	block_reader_free(f.r);
	return ret;
}

int store_find(struct store *s, const char *tenant, const uint8_t id[16], store_piece_fn *piece,
	       void *arg, struct store_find_result *result, struct err *err)
{
	const struct store_scope all = store_scope_all();

	return store_find_in(s, &all, tenant, id, piece, arg, result, err);
}
