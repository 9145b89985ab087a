/* SPDX-License-Identifier: Apache-2.0
 *
 * compact_select.c - see compact_select.h.
 */
#include "blocks/compact_select.h"

#include "base/clock.h"
#include "base/mem.h"

#include <stdio.h>

uint64_t compact_time_of(const struct block_meta *m, uint64_t now_ns)
{
	struct block_time t = m->ingested_at.s != BLOCK_TIME_NONE_S ? m->ingested_at : m->end;

	/* Years before 1970 and after 2262 fit nowhere. */
	if (t.s < 0)
		return 0;
	if ((uint64_t)t.s >= now_ns / NS_PER_S)
		return now_ns;
	return (uint64_t)t.s * NS_PER_S + t.ns;
}

static int64_t window_of(const struct block_meta *m, const struct compact_rules *r)
{
	return (int64_t)(compact_time_of(m, r->now_ns) / r->window_ns);
}

static int compare_u64(uint64_t a, uint64_t b)
{
	return a < b ? -1 : a > b;
}

/* What must be equal in a group. */
static int compare_groups(const struct block_meta *a, const struct block_meta *b,
			  const struct compact_rules *r)
{
	int c = strcmp(a->shard.hasher, b->shard.hasher);

	if (c == 0)
		c = compare_u64(a->shard.count, b->shard.count);
	if (c == 0)
		c = compare_u64(a->shard.index, b->shard.index);
	if (c == 0)
		c = strcmp(a->data_encoding, b->data_encoding);
	if (c == 0)
		c = compare_u64(a->replication_factor, b->replication_factor);
	if (c == 0)
		c = compare_u64((uint64_t)window_of(a, r), (uint64_t)window_of(b, r));
	return c;
}

static int compare_sizes(const struct block_meta *a, const struct block_meta *b)
{
	int c = compare_u64(a->size, b->size);

	return c != 0 ? c : strcmp(a->id, b->id);
}

/* Groups, and in an open window levels, stand together; the smallest first. */
static int by_group(const void *va, const void *vb, void *arg)
{
	const struct block_meta *a = *(const struct block_meta *const *)va;
	const struct block_meta *b = *(const struct block_meta *const *)vb;
	const struct compact_rules *r = arg;
	int c = compare_groups(a, b, r);

	if (c == 0 && window_of(a, r) == (int64_t)(r->now_ns / r->window_ns))
		c = compare_u64(a->compaction_level, b->compaction_level);
	return c != 0 ? c : compare_sizes(a, b);
}

bool compact_is_mergeable(const struct block_meta *m)
{
	return strcmp(m->format, "v2") == 0 && block_meta_check_v2(m, NULL) == 0 &&
	       (strcmp(m->data_encoding, "v1") == 0 || strcmp(m->data_encoding, "v2") == 0);
}

/* The name is a part of a key: what else a hasher may be called is left out. */
static void name_group(const struct block_meta *m, char out[COMPACT_GROUP])
{
	size_t n = 0;

	if (m->shard.count == 0) {
		snprintf(out, COMPACT_GROUP, "none");
		return;
	}
	for (const char *p = m->shard.hasher; *p != '\0'; p++)
		if ((*p >= '0' && *p <= '9') || (*p >= 'a' && *p <= 'z') ||
		    (*p >= 'A' && *p <= 'Z') || *p == '_')
			out[n++] = *p;
	snprintf(out + n, COMPACT_GROUP - n, "-%u-%u", m->shard.count, m->shard.index);
}

/* As many of v[0..n), which may be merged, as a job takes. */
static size_t take(const struct block_meta **v, size_t n, const struct compact_rules *r)
{
	uint64_t bytes = 0, objects = 0;
	size_t k = 0;

	while (k < n && k < r->max_inputs) {
		if (v[k]->size > r->max_block_bytes - MIN(bytes, r->max_block_bytes) ||
		    v[k]->objects > r->max_objects - MIN(objects, r->max_objects))
			break;
		bytes += v[k]->size;
		objects += v[k]->objects;
		k++;
	}
	return k;
}

struct jobs {
	struct compact_job *v;
	size_t n, cap;
};

static void add_job(struct jobs *jobs, const struct block_meta **v, size_t n, int64_t window)
{
	struct compact_job *job;

	jobs->v = xgrow(jobs->v, &jobs->cap, jobs->n + 1, sizeof(*jobs->v));
	job = &jobs->v[jobs->n++];
	*job = (struct compact_job){ .n = n, .window = window, .level = UINT32_MAX };
	name_group(v[0], job->group);
	for (size_t i = 0; i < n; i++) {
		job->inputs[i] = v[i];
		job->level = MIN(job->level, v[i]->compaction_level);
	}
}

/* One group, or one level of it. */
static void select_in(struct jobs *jobs, const struct block_meta **v, size_t n, bool is_open,
		      const struct compact_rules *r)
{
	size_t least = is_open ? r->min_inputs : 2, k;

	for (; n >= least; v += k, n -= k) {
		k = take(v, n, r);
		if (k >= least)
			add_job(jobs, v, k, window_of(v[0], r));
		else
			k = 1; /* a small one of many traces must not stand before the rest */
	}
}

static int by_level(const void *va, const void *vb)
{
	const struct compact_job *a = va, *b = vb;

	if (a->level != b->level)
		return a->level < b->level ? -1 : 1;
	return a->window > b->window ? -1 : a->window < b->window;
}

size_t compact_select(const struct block_meta **blocks, size_t n, const struct compact_rules *r,
		      struct compact_job **out)
{
	struct jobs jobs = { NULL, 0, 0 };
	size_t kept = 0;

	for (size_t i = 0; i < n; i++)
		if (compact_is_mergeable(blocks[i]))
			blocks[kept++] = blocks[i];
	if (kept > 0)
		qsort_r(blocks, kept, sizeof(*blocks), by_group, (void *)r);
	for (size_t i = 0, end; i < kept; i = end) {
		bool is_open = window_of(blocks[i], r) == (int64_t)(r->now_ns / r->window_ns);

		for (end = i + 1; end < kept; end++)
			if (compare_groups(blocks[i], blocks[end], r) != 0 ||
			    (is_open &&
			     blocks[i]->compaction_level != blocks[end]->compaction_level))
				break;
		select_in(&jobs, blocks + i, end - i, is_open, r);
	}
	if (jobs.n > 0)
		qsort(jobs.v, jobs.n, sizeof(*jobs.v), by_level);
	*out = jobs.v;
	return jobs.n;
}
