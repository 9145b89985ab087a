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

#include <stdio.h>

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

/* What a list says of a record. */
struct name {
	uint64_t number, mtime_ns;
};

struct names {
	struct name *v; /* ascending; free() */
	size_t n, cap;
};

static int note_name(void *arg, const struct backend_entry *e, struct err *err)
{
	struct names *l = arg;
	struct name name = { .mtime_ns = e->mtime_ns };

	(void)err;
	if (e->is_prefix || !compact_record_number(e->key, &name.number))
		return 0;
	l->v = xgrow(l->v, &l->cap, l->n + 1, sizeof(*l->v));
	l->v[l->n++] = name;
	return 0;
}

static int by_number(const void *a, const void *b)
{
	const struct name *x = a, *y = b;

	return x->number < y->number ? -1 : x->number > y->number;
}

static int list_names(struct compact_chain *c, struct names *l, struct err *err)
{
	char folder[BACKEND_KEY_MAX + 1];

	*l = (struct names){ NULL, 0, 0 };
	if (compact_record_folder(folder, c->tenant, err) < 0 ||
	    backend_list(c->be, folder, BACKEND_ONE_LEVEL, note_name, l, err) < 0) {
		free(l->v);
		return -1;
	}
	if (l->n > 0)
		qsort(l->v, l->n, sizeof(*l->v), by_number);
	return 0;
}

/* Records that count, from the newest down. */
struct run {
	struct run_record {
		struct compact_record record;
		uint64_t mtime_ns;
	} * v;
	size_t n;
};

static void run_fini(struct run *run)
{
	for (size_t i = 0; i < run->n; i++)
		compact_record_fini(&run->v[i].record);
	free(run->v);
	*run = (struct run){ NULL, 0 };
}

/* Is the number still the newest? 1, 0, -1. */
static int is_newest(struct compact_chain *c, uint64_t number, struct err *err)
{
	struct names now;
	int ret;

	if (list_names(c, &now, err) < 0)
		return -1;
	ret = now.n > 0 && now.v[now.n - 1].number == number;
	free(now.v);
	return ret;
}

/* 1; 0 it was swept meanwhile, or is damaged; -1. */
static int read_record(struct compact_chain *c, uint64_t number, struct compact_record *r,
		       struct err *err)
{
	struct err local = ERR_INIT;

	if (compact_record_read(c->be, c->tenant, number, r, &local) == 0)
		return 1;
	compact_record_fini(r);
	if (local.kind == ERR_NOT_FOUND)
		return 0;
	if (local.kind == ERR_CORRUPT || local.kind == ERR_TOO_LARGE) {
		c->n_damaged++;
		log_error("a compaction record is damaged and left out", "tenant", c->tenant,
			  "number", LOG_NUM(number), "error", local.msg);
		return 0;
	}
	if (err != NULL)
		*err = local;
	return -1;
}

/* Does what stands under the number below belong there? A record put in the place of a swept one
 * has another id. */
static bool is_below(const struct compact_record *above, const struct compact_record *r)
{
	return r->number + 1 == above->number && strcmp(above->previous, r->id) == 0;
}

/* Add the record to the run: 1 it counts, 0 neither it nor what is below, -1. */
static int prove(struct compact_chain *c, const struct name *name, struct run *run, struct err *err)
{
	struct run_record *k = &run->v[run->n];
	int got = read_record(c, name->number, &k->record, err);

	if (got <= 0)
		return got;
	k->mtime_ns = name->mtime_ns;
	if (run->n > 0 && !is_below(&run->v[run->n - 1].record, &k->record)) {
		compact_record_fini(&k->record);
		return 0;
	}
	run->n++;
	return 1;
}

/* From the newest name down to the last record that was followed, or as far as it can be proved.
 * 1, 0 there is a newer one, -1. */
static int read_run(struct compact_chain *c, const struct names *l, struct run *run,
		    struct err *err)
{
	size_t i = l->n - 1;
	int got = prove(c, &l->v[i], run, err), newest;

	if (got < 0)
		return -1;
	/* Only then it was never swept, and what was read is what was put there first. */
	newest = is_newest(c, l->v[i].number, err);
	if (newest <= 0)
		return newest;
	while (got == 1 && i > 0 && l->v[i - 1].number > c->last)
		got = prove(c, &l->v[--i], run, err);
	return got < 0 ? -1 : 1;
}

/* Does the run go on where we were? Or were records swept that we have not seen? */
static bool is_joined(const struct compact_chain *c, const struct run *run)
{
	const struct compact_record *first = run->n > 0 ? &run->v[run->n - 1].record : NULL;

	return first != NULL && first->number == c->last + 1 &&
	       strcmp(first->previous, c->last_id) == 0;
}

static void set_last(struct compact_chain *c, uint64_t number, const char *id)
{
	c->last = number;
	snprintf(c->last_id, sizeof(c->last_id), "%s", id);
}

/* 1: what is new was finished, 0: the list grew old meanwhile, -1. */
static int follow_names(struct compact_chain *c, const struct names *l, struct run *run,
			struct err *err)
{
	uint64_t newest = l->v[l->n - 1].number;
	int got = read_run(c, l, run, err);

	if (got <= 0)
		return got;
	c->missed |= !is_joined(c, run);
	for (size_t i = run->n; i-- > 0;) {
		const struct run_record *k = &run->v[i];

		if (finish(c, &k->record, k->mtime_ns, err) < 0)
			return -1;
		set_last(c, k->record.number, k->record.id);
	}
	/* A damaged one has no id to name. */
	if (c->last != newest)
		set_last(c, newest, "");
	return 1;
}

static int follow_once(struct compact_chain *c, struct err *err)
{
	struct run run = { NULL, 0 };
	struct names l;
	int ret = 1;

	if (list_names(c, &l, err) < 0)
		return -1;
	/* Somebody took the chain away by hand: numbers begin again. */
	if (c->last != 0 && (l.n == 0 || l.v[l.n - 1].number < c->last)) {
		c->missed = true;
		set_last(c, 0, "");
	}
	if (l.n > 0 && l.v[l.n - 1].number > c->last) {
		run.v = xcalloc(l.n, sizeof(*run.v));
		ret = follow_names(c, &l, &run, err);
	}
	run_fini(&run);
	free(l.v);
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
	uint64_t now = backend_now_ns(c->be);
	struct names l;
	int ret = 0;

	if (list_names(c, &l, err) < 0)
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
	free(l.v);
	return ret;
}
