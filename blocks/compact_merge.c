/* SPDX-License-Identifier: Apache-2.0
 *
 * compact_merge.c - see compact_merge.h.
 */
#include "blocks/compact_merge.h"

#include "base/mem.h"
#include "blocks/block_iter.h"
#include "blocks/trace_join.h"

enum {
	INPUTS_MAX = 64,
	READ_AHEAD = 4 * 1024 * 1024,
	PAGES = 4 * 1024 * 1024, /* a plain and a stored one, and what the buffers grow by */
	PER_OBJECT = 40,         /* its id, in a buffer that doubles; its bits of the bloom */
	TICK = 64,
};

struct input {
	struct block_reader *reader;
	struct block_iter *iter;
	struct page_object object;
	bool has_object;
};

struct merge {
	struct compact_merge *m;
	struct input in[INPUTS_MAX];
	struct block_writer *writer;
	struct trace_join join;
	struct block_shard shard;
	uint64_t n;
};

size_t compact_merge_memory(const struct compact_merge *m)
{
	size_t ahead = m->read_ahead_bytes ? m->read_ahead_bytes : READ_AHEAD;
	uint64_t objects = 0;

	for (size_t i = 0; i < m->n_inputs; i++)
		objects += m->inputs[i].objects;
	return m->n_inputs * (ahead + PAGES) + (size_t)objects * PER_OBJECT;
}

static int advance(struct merge *g, size_t i, struct err *err)
{
	int got = block_iter_next(g->in[i].iter, &g->in[i].object, err);

	g->in[i].has_object = got == 1;
	if (got < 0)
		g->m->bad_input = i;
	return got < 0 ? -1 : 0;
}

static int open_inputs(struct merge *g, struct err *err)
{
	const struct compact_merge *m = g->m;
	const struct block_reader_options o = {
		.max_page_bytes = m->writer.max_page_bytes,
		.read_ahead_bytes = m->read_ahead_bytes ? m->read_ahead_bytes : READ_AHEAD,
		.budget = m->budget,
	};

	for (size_t i = 0; i < m->n_inputs; i++) {
		g->in[i].reader = block_reader_new(m->backend, &m->inputs[i], &o, err);
		if (g->in[i].reader == NULL) {
			g->m->bad_input = i;
			return -1;
		}
		g->in[i].iter = block_iter_new(g->in[i].reader, BLOCK_ITER_CHECKED);
		if (advance(g, i, err) < 0)
			return -1;
	}
	return 0;
}

/* The inputs whose next trace is the lowest, in at[]; their number, 0 at the end. */
static size_t lowest(const struct merge *g, size_t at[])
{
	size_t n = 0;

	for (size_t i = 0; i < g->m->n_inputs; i++) {
		int c;

		if (!g->in[i].has_object)
			continue;
		c = n == 0 ? -1 : memcmp(g->in[i].object.id, g->in[at[0]].object.id, PAGE_ID);
		if (c < 0)
			n = 0;
		if (c <= 0)
			at[n++] = i;
	}
	return n;
}

_Static_assert(INPUTS_MAX <= 64, "a bit each");

/* The joined trace of these inputs, whose pieces are ready. */
static int write_joined(struct merge *g, const size_t at[], size_t n, struct err *err)
{
	struct err local = ERR_INIT;

	if (block_writer_add(g->writer, g->in[at[0]].object.id, g->join.pieces, g->join.n,
			     &local) == 0)
		return 0;
	for (size_t i = 0; local.kind == ERR_TOO_LARGE && i < n; i++)
		g->m->too_large |= UINT64_C(1) << at[i];
	if (err != NULL)
		*err = local;
	return -1;
}

static int write_trace(struct merge *g, const size_t at[], size_t n, struct err *err)
{
	const struct page_object *first = &g->in[at[0]].object;
	struct bytes objects[INPUTS_MAX];
	size_t bad = 0;

	for (size_t i = 0; i < n; i++)
		objects[i] = g->in[at[i]].object.data;
	if (g->shard.count != 0 && !block_shard_may_hold(&g->shard, first->id))
		g->shard = (struct block_shard){ .count = 0 };
	if (n == 1)
		return block_writer_add(g->writer, first->id, objects, 1, err);
	if (trace_join(&g->join, objects, n, g->m->inputs[0].data_encoding, &bad, err) < 0) {
		g->m->bad_input = at[bad];
		return -1;
	}
	return write_joined(g, at, n, err);
}

static int merge_all(struct merge *g, struct err *err)
{
	struct compact_merge *m = g->m;
	size_t at[INPUTS_MAX], n;

	while ((n = lowest(g, at)) > 0) {
		if (m->tick != NULL && g->n++ % TICK == 0 && m->tick(m->arg, err) < 0)
			return -1;
		if (write_trace(g, at, n, err) < 0)
			return -1;
		for (size_t i = 0; i < n; i++)
			if (advance(g, at[i], err) < 0)
				return -1;
	}
	return 0;
}

static struct block_time earlier(struct block_time a, struct block_time b)
{
	return block_time_compare(a, b) <= 0 ? a : b;
}

static struct block_time later(struct block_time a, struct block_time b)
{
	return block_time_compare(a, b) >= 0 ? a : b;
}

/* What the writer does not know: it comes from the inputs. */
static void fill_meta(const struct merge *g)
{
	const struct compact_merge *m = g->m;
	struct block_meta *to = &g->m->output;

	to->start = m->inputs[0].start;
	to->end = m->inputs[0].end;
	to->compaction_level = 0;
	for (size_t i = 0; i < m->n_inputs; i++) {
		const struct block_meta *in = &m->inputs[i];

		to->start = earlier(to->start, in->start);
		to->end = later(to->end, in->end);
		to->ingested_at = later(to->ingested_at, in->ingested_at);
		to->compaction_level = MAX(to->compaction_level, in->compaction_level);
	}
	to->compaction_level += to->compaction_level < UINT32_MAX;
	to->replication_factor = m->inputs[0].replication_factor;
	to->shard = g->shard;
}

static void close_all(struct merge *g)
{
	for (size_t i = 0; i < g->m->n_inputs; i++) {
		block_iter_free(g->in[i].iter);
		block_reader_free(g->in[i].reader);
	}
	trace_join_fini(&g->join);
}

static int run(struct merge *g, struct err *err)
{
	struct compact_merge *m = g->m;
	struct block_writer *w;

	if (open_inputs(g, err) < 0)
		return -1;
	g->writer = block_writer_open(m->backend, m->inputs[0].tenant, NULL, &m->writer, err);
	if (g->writer == NULL || merge_all(g, err) < 0)
		return -1;
	w = g->writer;
	g->writer = NULL;
	if (block_writer_finish(w, &m->output, err) < 0)
		return -1;
	fill_meta(g);
	return 0;
}

int compact_merge(struct compact_merge *m, struct err *err)
{
	struct merge *g = xcalloc(1, sizeof(*g));
	size_t charged = compact_merge_memory(m);
	int ret = -1;

	assert(m->n_inputs > 0 && m->n_inputs <= INPUTS_MAX);
	g->m = m;
	g->shard = m->inputs[0].shard;
	m->bad_input = m->n_inputs;
	m->too_large = 0;
	m->writer.data_encoding = m->inputs[0].data_encoding;
	trace_join_init(&g->join, m->budget);
	if (!budget_charge(m->budget, charged)) {
		charged = 0;
		err_set(err, ERR_EXHAUSTED, "no memory to merge %zu blocks within the budget",
			m->n_inputs);
	} else {
		ret = run(g, err);
	}
	block_writer_abort(g->writer);
	m->n_joined = g->join.n_joined;
	m->n_duplicates = g->join.n_duplicates;
	m->n_conflicting = g->join.n_conflicting;
	m->n_whole = g->join.n_whole;
	close_all(g);
	budget_release(m->budget, charged);
	free(g);
	return ret;
}
