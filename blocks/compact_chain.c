/* SPDX-License-Identifier: Apache-2.0
 *
 * compact_chain.c - see compact_chain.h.
 */
#include "blocks/compact_chain.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "blocks/block.h"

enum { COMMIT_TRIES = 16, COMMIT_ERRORS = 3, FOLLOW_TRIES = 8 };

void compact_chain_init(struct compact_chain *c, struct backend *be, const char *tenant)
{
	*c = (struct compact_chain){ .be = be, .tenant = tenant };
}

void compact_chain_fini(struct compact_chain *c)
{
	map_fini(&c->used);
	memset(c, 0, sizeof(*c));
}

void compact_chain_begin(struct compact_chain *c)
{
	map_fini(&c->used);
	c->used = (struct map)MAP_INIT;
	c->missed = false;
}

bool compact_chain_is_used(const struct compact_chain *c, const char *block)
{
	return map_find(&c->used, bytes_str(block)) != NULL;
}

/* ---- finishing ---- */

/* What there is of an output. */
struct look {
	bool has_data, has_meta, has_compacted;
	/* Of its objects: `data` may bear the time when its upload began. */
	uint64_t newest_ns;
};

static int note_object(void *arg, const struct backend_entry *e, struct err *err)
{
	struct look *l = arg;
	const char *name = strrchr(e->key, '/');

	(void)err;
	if (e->is_prefix || name == NULL)
		return 0;
	name++;
	l->has_meta |= strcmp(name, "meta.json") == 0;
	l->has_compacted |= strcmp(name, "meta.compacted.json") == 0;
	l->has_data |= strcmp(name, "data") == 0;
	l->newest_ns = MAX(l->newest_ns, e->mtime_ns);
	return 0;
}

static int look_at(struct compact_chain *c, const struct block_meta *m, struct look *l,
		   struct err *err)
{
	char folder[BACKEND_KEY_MAX + 1];

	*l = (struct look){ .has_data = false };
	if (backend_key(folder, err, "%s/%s", m->tenant, m->id) < 0)
		return -1;
	return backend_list(c->be, folder, BACKEND_ONE_LEVEL, note_object, l, err);
}

/* Its outputs are gone: swept as orphans, or compacted again and deleted since, and then it was
 * finished before. Or they may be going. In neither case may inputs be marked for it. */
static bool is_void(const struct look *l, uint64_t record_ns)
{
	if (l->has_meta || l->has_compacted)
		return false;
	return !l->has_data || record_ns > l->newest_ns + COMPACT_COMMIT_MAX_S * NS_PER_S;
}

static int publish(struct compact_chain *c, const struct block_meta *m, const struct look *l,
		   struct err *err)
{
	if (l->has_compacted)
		return 0;
	if (!l->has_meta && block_publish(c->be, m, err) < 0)
		return -1;
	if (c->visible != NULL)
		c->visible(c->arg, m);
	return 0;
}

int compact_mark(struct backend *be, const char *tenant, const char *id, struct err *err)
{
	char key[BACKEND_KEY_MAX + 1];
	struct err local = ERR_INIT;

	if (block_mark_compacted(be, tenant, id, &local) == 0)
		return 1;
	if (local.kind == ERR_NOT_FOUND)
		return 0;
	/* Who published it late put meta.json beside meta.compacted.json. */
	if (local.kind == ERR_EXISTS)
		return block_key(key, tenant, id, "meta.json", err) < 0 ? -1
		       : backend_delete(be, key, err) < 0               ? -1
									: 0;
	if (err != NULL)
		*err = local;
	return -1;
}

static int mark_inputs(struct compact_chain *c, const struct compact_record *r, struct err *err)
{
	for (size_t i = 0; i < r->n_inputs; i++) {
		int marked = compact_mark(c->be, c->tenant, r->inputs[i], err);

		if (marked < 0)
			return -1;
		c->n_marked += (uint64_t)marked;
	}
	return 0;
}

/* Steps 3 and 4, for whichever of them was not done. */
static int finish(struct compact_chain *c, const struct compact_record *r, uint64_t record_ns,
		  struct err *err)
{
	struct look looks[COMPACT_RECORD_MAX];

	/* Of a void one, too: its outputs may be gone because they were compacted and deleted
	 * since, and a list of blocks made before still has its inputs. */
	for (size_t i = 0; i < r->n_inputs; i++)
		map_set(&c->used, bytes_str(r->inputs[i]), c);
	for (size_t i = 0; i < r->n_outputs; i++) {
		if (look_at(c, &r->outputs[i], &looks[i], err) < 0)
			return -1;
		if (is_void(&looks[i], record_ns)) {
			c->n_void++;
			return 0;
		}
	}
	if (c->own_id != NULL && strcmp(r->id, c->own_id) == 0)
		c->own_counts = true;
	for (size_t i = 0; i < r->n_outputs; i++)
		if (publish(c, &r->outputs[i], &looks[i], err) < 0)
			return -1;
	c->n_finished++;
	return mark_inputs(c, r, err);
}

/* ---- following ---- */

/* A record on the list. */
struct link {
	uint64_t number, mtime_ns;
	bool is_read;
	struct compact_record record;
};

struct links {
	struct link *v;
	size_t n, cap;
};

static int note_link(void *arg, const struct backend_entry *e, struct err *err)
{
	struct links *l = arg;
	struct link link = { .mtime_ns = e->mtime_ns };

	(void)err;
	if (e->is_prefix || !compact_record_number(e->key, &link.number))
		return 0;
	l->v = xgrow(l->v, &l->cap, l->n + 1, sizeof(*l->v));
	l->v[l->n++] = link;
	return 0;
}

static int by_number(const void *a, const void *b)
{
	const struct link *x = a, *y = b;

	return x->number < y->number ? -1 : x->number > y->number;
}

static void links_fini(struct links *l)
{
	for (size_t i = 0; i < l->n; i++)
		compact_record_fini(&l->v[i].record);
	free(l->v);
	*l = (struct links){ NULL, 0, 0 };
}

static int list_links(struct compact_chain *c, struct links *l, struct err *err)
{
	char folder[BACKEND_KEY_MAX + 1];

	*l = (struct links){ NULL, 0, 0 };
	if (compact_record_folder(folder, c->tenant, err) < 0 ||
	    backend_list(c->be, folder, BACKEND_ONE_LEVEL, note_link, l, err) < 0) {
		links_fini(l);
		return -1;
	}
	if (l->n > 0)
		qsort(l->v, l->n, sizeof(*l->v), by_number);
	return 0;
}

/* Where the unbroken run up to the newest begins. */
static size_t run_begin(const struct links *l)
{
	size_t i = l->n - 1;

	while (i > 0 && l->v[i - 1].number + 1 == l->v[i].number)
		i--;
	return i;
}

/* One that is swept meanwhile was finished by who swept it; a damaged one cannot be followed by
 * anybody, and what it would have retired stays. */
static int read_link(struct compact_chain *c, struct link *k, struct err *err)
{
	struct err local = ERR_INIT;

	if (compact_record_read(c->be, c->tenant, k->number, &k->record, &local) == 0) {
		k->is_read = true;
		return 0;
	}
	compact_record_fini(&k->record);
	if (local.kind == ERR_NOT_FOUND) {
		c->missed = true;
		return 0;
	}
	if (local.kind == ERR_CORRUPT || local.kind == ERR_TOO_LARGE) {
		c->n_damaged++;
		log_error("a compaction record is damaged and left out", "tenant", c->tenant,
			  "number", LOG_NUM(k->number), "error", local.msg);
		return 0;
	}
	if (err != NULL)
		*err = local;
	return -1;
}

/* Does the record below `k` stand where k's predecessor stood? Not when its id is another. */
static bool is_predecessor(const struct link *k, const char *below_id)
{
	return !k->is_read || k->record.previous[0] == '\0' || below_id[0] == '\0' ||
	       strcmp(k->record.previous, below_id) == 0;
}

static const char *id_of(const struct link *k)
{
	return k->is_read ? k->record.id : "";
}

/* Of links [from, n), which were read, the first that counts. */
static size_t first_that_counts(struct compact_chain *c, const struct links *l, size_t from)
{
	for (size_t i = l->n - 1; i > from; i--)
		if (!is_predecessor(&l->v[i], id_of(&l->v[i - 1]))) {
			/* The record that belongs below was swept before we read it. */
			c->missed = true;
			return i;
		}
	/* What we followed as the last was no part of the chain, or something is missing. */
	if (c->last != 0 &&
	    (l->v[from].number != c->last + 1 || !is_predecessor(&l->v[from], c->last_id)))
		c->missed = true;
	return from;
}

/* Is the newest of the list still the newest? Only then it was never swept, and what was read under
 * its number is what it was: the others are told by the ids they name. 1, 0, -1. */
static int is_current(struct compact_chain *c, const struct links *l, struct err *err)
{
	struct links now;
	int ret;

	if (list_links(c, &now, err) < 0)
		return -1;
	ret = now.n > 0 && now.v[now.n - 1].number == l->v[l->n - 1].number;
	links_fini(&now);
	return ret;
}

/* 1: what is new was finished, 0: see is_current, -1. */
static int follow_links(struct compact_chain *c, struct links *l, struct err *err)
{
	size_t from = run_begin(l);
	int ret;

	while (from < l->n && l->v[from].number <= c->last)
		from++;
	if (from == l->n)
		return 1;
	for (size_t i = from; i < l->n; i++)
		if (read_link(c, &l->v[i], err) < 0)
			return -1;
	ret = is_current(c, l, err);
	if (ret <= 0)
		return ret;
	for (size_t i = first_that_counts(c, l, from); i < l->n; i++) {
		if (l->v[i].is_read && finish(c, &l->v[i].record, l->v[i].mtime_ns, err) < 0)
			return -1;
		c->last = l->v[i].number;
		memcpy(c->last_id, id_of(&l->v[i]), strlen(id_of(&l->v[i])) + 1);
	}
	return 1;
}

/* One list and what is new in it. 1: done, 0: the list grew old meanwhile, -1. */
static int follow_once(struct compact_chain *c, struct err *err)
{
	struct links l;
	int ret;

	if (list_links(c, &l, err) < 0)
		return -1;
	/* Somebody took the chain away by hand: numbers begin again. */
	if (c->last != 0 && (l.n == 0 || l.v[l.n - 1].number < c->last)) {
		c->missed = true;
		c->last = 0;
		c->last_id[0] = '\0';
	}
	ret = l.n > 0 ? follow_links(c, &l, err) : 1;
	links_fini(&l);
	return ret;
}

int compact_chain_follow(struct compact_chain *c, struct err *err)
{
	for (int i = 0; i < FOLLOW_TRIES; i++) {
		int ret = follow_once(c, err);

		if (ret != 0)
			return ret < 0 ? -1 : 0;
	}
	return err_set(err, ERR_UNAVAILABLE, "the records of tenant %.60s change all the time",
		       c->tenant);
}

/* ---- committing ---- */

/* Whose is the number? 1 ours, 0 somebody else's or gone again, -1. */
static int is_ours(struct compact_chain *c, const struct compact_record *own, bool *is_there,
		   struct err *err)
{
	struct err local = ERR_INIT;
	struct compact_record there;
	int ret = 0;

	*is_there = true;
	if (compact_record_read(c->be, c->tenant, own->number, &there, &local) == 0)
		ret = strcmp(there.id, own->id) == 0;
	else if (local.kind == ERR_NOT_FOUND)
		*is_there = false;
	else if (local.kind != ERR_CORRUPT && local.kind != ERR_TOO_LARGE)
		ret = err_set(err, local.kind, "%s", local.msg);
	compact_record_fini(&there);
	return ret;
}

/* Put it under its number: 1 ours, 0 somebody else's and never ours, 2 not ours, or not any more
 * (it may have been, finished and swept since), -1 it cannot be told. */
static int put_record(struct compact_chain *c, const struct compact_record *r, struct err *err)
{
	bool is_there = true, is_doubtful = false;

	for (int i = 0; i < COMMIT_ERRORS; i++) {
		struct err local = ERR_INIT;
		int ours;

		if (compact_record_put(c->be, c->tenant, r, &local) == 0)
			return 1;
		is_doubtful |= local.kind != ERR_EXISTS;
		ours = is_ours(c, r, &is_there, err);
		if (ours != 0)
			return ours;
		if (is_there)
			return is_doubtful ? 2 : 0;
		if (local.kind == ERR_EXISTS)
			return 2;
		/* Not there, or not yet: the same again. */
		if (err != NULL)
			*err = local;
	}
	return -1;
}

static bool is_any_used(const struct compact_chain *c, const struct compact_record *r)
{
	for (size_t i = 0; i < r->n_inputs; i++)
		if (compact_chain_is_used(c, r->inputs[i]))
			return true;
	return false;
}

/* Our record stands. Does it count? Following says so, and does the rest. */
static int settle(struct compact_chain *c, const struct compact_record *r, struct err *err)
{
	int ret;

	c->own_id = r->id;
	c->own_counts = false;
	ret = compact_chain_follow(c, err);
	c->own_id = NULL;
	if (ret < 0 && !c->own_counts)
		return -1;
	return c->own_counts ? COMPACT_COMMITTED : COMPACT_UNTOLD;
}

static int commit(struct compact_chain *c, struct compact_record *r, struct err *err)
{
	for (int i = 0; i < COMMIT_TRIES && !c->missed && !is_any_used(c, r); i++) {
		int put;

		r->number = c->last + 1;
		memcpy(r->previous, c->last_id, sizeof(r->previous));
		put = put_record(c, r, err);
		if (put < 0)
			return -1;
		if (put == 1)
			return settle(c, r, err);
		if (put == 2)
			return COMPACT_UNTOLD;
		/* Nothing of ours stands anywhere: when this fails it is a loss, no doubt. */
		if (compact_chain_follow(c, err) < 0)
			return COMPACT_LOST;
	}
	return COMPACT_LOST;
}

int compact_chain_commit(struct compact_chain *c, char (*inputs)[COMPACT_ID], size_t n_inputs,
			 struct block_meta *outputs, size_t n_outputs, struct err *err)
{
	struct compact_record r = { .inputs = inputs,
				    .n_inputs = n_inputs,
				    .outputs = outputs,
				    .n_outputs = n_outputs,
				    .created_at = block_time_of_ns(clock_wall_ns()) };

	assert(n_inputs <= COMPACT_RECORD_MAX && n_outputs <= COMPACT_RECORD_MAX);
	rng_uuid(r.id);
	return commit(c, &r, err);
}

/* ---- sweeping ---- */

int compact_chain_sweep(struct compact_chain *c, uint64_t age_ns, struct err *err)
{
	uint64_t now = clock_wall_ns();
	struct links l;
	int ret = 0;

	if (list_links(c, &l, err) < 0)
		return -1;
	/* From the lowest up, and no hole: that is what makes a late record stand out. */
	for (size_t i = 0; ret == 0 && i + 1 < l.n; i++) {
		char key[BACKEND_KEY_MAX + 1];

		if (l.v[i].number > c->last || l.v[i].mtime_ns + age_ns > now)
			break;
		ret = compact_record_key(key, c->tenant, l.v[i].number, err);
		if (ret == 0)
			ret = backend_delete(c->be, key, err);
	}
	links_fini(&l);
	return ret;
}
