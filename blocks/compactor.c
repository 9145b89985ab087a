/* SPDX-License-Identifier: Apache-2.0
 *
 * compactor.c - see compactor.h: the tenants, one after the other, and the sweeping of the store.
 */
#include "blocks/compactor.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "blocks/block.h"
#include "blocks/compact_lease.h"
#include "blocks/compactor_private.h"
#include "blocks/section.h"

enum {
	SWEEP_S = 3600,
	UPLOAD_AGE_S = 86400, /* no block takes a day to write */
	FIRST_SWEEP_S = 300,  /* after the start: one that is restarted often sweeps, too */
	LEASE_AGE_S = 3600,
	COMMIT_SPARE_S = 24 * 3600, /* that commits outlive the blocks they name */
};

/* Sweepers wait twice as long as a commit may take (compact_chain.h). */
_Static_assert(SWEEP_S >= 2 * COMPACT_COMMIT_MAX_S, "orphans are older than commits may be");

static uint64_t sweep_every(const struct compactor *c)
{
	return c->o.sweep_every_ns ? c->o.sweep_every_ns : SWEEP_S * NS_PER_S;
}

struct compactor *compactor_new(const struct compactor_options *o)
{
	struct compactor *c = xcalloc(1, sizeof(*c));

	assert(o->rules.window_ns > 0 && o->rules.min_inputs >= 2);
	assert(o->rules.max_inputs <= COMPACT_INPUTS_MAX);
	c->o = *o;
	rng_uuid(c->owner);
	c->sweep_due_ns = clock_mono_ns() + MIN(sweep_every(c), FIRST_SWEEP_S * NS_PER_S);
	return c;
}

void compactor_free(struct compactor *c)
{
	struct bytes key;
	void *value;
	size_t pos = 0;

	if (c == NULL)
		return;
	while (map_next(&c->tenants, &pos, &key, &value))
		compact_tenant_free(value);
	map_fini(&c->tenants);
	free(c);
}

void compactor_stop(struct compactor *c)
{
	c->stopping = true;
}

const struct compactor_stats *compactor_stats(const struct compactor *c)
{
	return &c->stats;
}

static struct compact_tenant *tenant_of(struct compactor *c, const char *name)
{
	struct compact_tenant *t = map_find(&c->tenants, bytes_str(name));

	if (t == NULL) {
		t = compact_tenant_new(c, name);
		map_set(&c->tenants, bytes_str(name), t);
	}
	return t;
}

int compactor_tenant(struct compactor *c, const char *tenant, struct err *err)
{
	return compact_tenant_cycle(tenant_of(c, tenant), err);
}

/* ---- tenants ---- */

static int note_tenant(void *arg, const struct backend_entry *e, struct err *err)
{
	struct compactor *c = arg;

	(void)err;
	if (e->is_prefix && block_meta_tenant_check(bytes_str(e->key), NULL) == 0)
		tenant_of(c, e->key)->is_seen = true;
	return 0;
}

/* Those that have a folder, and no others. */
static int list_tenants(struct compactor *c, struct err *err)
{
	struct bytes key;
	void *value;
	size_t pos = 0;

	while (map_next(&c->tenants, &pos, &key, &value))
		((struct compact_tenant *)value)->is_seen = false;
	if (backend_list(c->o.backend, "", BACKEND_ONE_LEVEL, note_tenant, c, err) < 0)
		return -1;
	pos = 0;
	while (map_next(&c->tenants, &pos, &key, &value)) {
		if (((struct compact_tenant *)value)->is_seen)
			continue;
		map_remove(&c->tenants, key);
		compact_tenant_free(value);
	}
	return 0;
}

static int run_tenants(struct compactor *c, struct err *err)
{
	struct bytes key;
	void *value;
	size_t pos = 0;
	int ret = 0;

	while (!c->stopping && map_next(&c->tenants, &pos, &key, &value)) {
		struct err local = ERR_INIT;

		if (compact_tenant_cycle(value, &local) == 0 || c->stopping)
			continue;
		log_warn("a tenant was not compacted to the end", "error", local.msg);
		if (ret == 0 && err != NULL)
			*err = local;
		ret = -1;
	}
	return ret;
}

/* ---- the whole store ---- */

/* Parts of writers that were killed; a bucket's own rule may do the same. */
static void sweep_uploads(struct compactor *c)
{
	struct backend *be = c->o.backend;
	struct err err = ERR_INIT;
	size_t n = 0;

	if (backend_sweep_uploads(be, backend_now_ns(be) - UPLOAD_AGE_S * NS_PER_S, &n, &err) < 0)
		log_warn("cannot sweep unfinished multipart uploads", "error", err.msg);
	if (n > 0)
		log_info("unfinished multipart uploads were aborted", "uploads", LOG_NUM(n));
}

static int sweep(struct compactor *c, struct err *err)
{
	uint64_t age = MAX(c->o.orphan_age_ns, SWEEP_S * NS_PER_S);
	size_t n = 0;
	int ret;

	ret = section_sweep_orphans(c->o.backend, age, &n, err);
	c->stats.orphans += n;
	if (n > 0)
		log_info("blocks that nobody committed were deleted", "blocks", LOG_NUM(n));
	if (ret == 0)
		ret = compact_lease_sweep(c->o.backend, LEASE_AGE_S * NS_PER_S, err);
	if (ret == 0 && c->o.longest_retention_ns > 0)
		ret = section_sweep_aged(c->o.backend,
					 c->o.longest_retention_ns + COMMIT_SPARE_S * NS_PER_S, &n,
					 err);
	if (ret == 0)
		sweep_uploads(c);
	return ret < 0 ? err_wrap(err, "sweeping") : 0;
}

static void publish_sums(struct compactor *c)
{
	c->stats.outstanding = c->sums.outstanding;
	c->stats.unreadable = c->sums.unreadable;
	c->stats.foreign = c->sums.foreign;
	c->stats.set_aside = c->sums.set_aside;
}

int compactor_cycle(struct compactor *c, struct err *err)
{
	struct err late = ERR_INIT;
	int ret;

	c->sums = (struct compactor_sums){ .outstanding = 0 };
	ret = list_tenants(c, err);
	if (ret == 0)
		ret = run_tenants(c, err);
	publish_sums(c);
	/* Also when a tenant makes trouble: it may do so for long. */
	if (!c->stopping && clock_mono_ns() >= c->sweep_due_ns) {
		c->sweep_due_ns = clock_mono_ns() + sweep_every(c);
		if (sweep(c, ret == 0 ? err : &late) < 0)
			ret = -1;
	}
	c->stats.cycles++;
	c->stats.failed_cycles += ret < 0;
	return ret;
}
