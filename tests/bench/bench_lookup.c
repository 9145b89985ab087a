/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_lookup.c - what a look-up by id costs over many local blocks, what a poll of the block list
 * costs, and a start.
 *
 * A few template blocks of 1,000 traces are written once; the others have a meta.json of their own
 * and hard links to a template's objects, so the page cache holds all of them and what is measured
 * is our own work. Ids that are in no block are asked for: every block must be ruled out.
 */
#include "tests/bench/report.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "blocks/backend_local.h"
#include "blocks/block.h"
#include "blocks/block_object.h"
#include "blocks/block_writer.h"
#include "blocks/store.h"

#include <ftw.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TEMPLATES = 10, TRACES = 1000, FEW = 1000, MANY = 10000, LOOKUPS = 50, POLLS = 5 };

struct bench {
	char folder[64];
	struct block_meta templates[TEMPLATES];
	size_t n_blocks;
	struct rng rng;
};

static void give_up(const char *what, const char *why)
{
	fprintf(stderr, "bench_lookup: %s: %s\n", what, why);
	exit(2);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static struct backend *open_backend(const struct bench *b)
{
	struct err err = ERR_INIT;
	struct backend *be =
		backend_local_open(&(struct backend_local_options){ .path = b->folder }, &err);

	if (be == NULL)
		give_up("open", err.msg);
	return be;
}

/* ---- blocks ---- */

static void add_traces(struct bench *b, struct block_writer *w)
{
	static const uint8_t segment[300] = { 0 };
	struct bytes pieces[2];
	uint8_t id[16], head[BLOCK_OBJECT_HEAD];

	for (uint64_t i = 0; i < TRACES; i++) {
		store_be64(id, (i + 1) << 40 | (rng_next(&b->rng) >> 32));
		store_be64(id + 8, rng_next(&b->rng));
		pieces[0] = (struct bytes){ head, block_object_head(head, 1, 2, sizeof(segment)) };
		pieces[1] = (struct bytes){ segment, sizeof(segment) };
		if (block_writer_add(w, id, pieces, 2, NULL) < 0)
			give_up("write", "trace refused");
	}
}

static void write_templates(struct bench *b)
{
	struct backend *be = open_backend(b);
	struct err err = ERR_INIT;

	for (size_t i = 0; i < TEMPLATES; i++) {
		struct block_writer *w = block_writer_open(be, "t", NULL, NULL, &err);

		if (w == NULL)
			give_up("write", err.msg);
		add_traces(b, w);
		if (block_writer_finish(w, &b->templates[i], &err) < 0)
			give_up("write", err.msg);
	}
	backend_free(be);
}

static void write_file(const char *path, struct bytes data)
{
	FILE *f = fopen(path, "wb");

	if (f == NULL || fwrite(data.p, 1, data.n, f) != data.n || fclose(f) != 0)
		give_up("write", path);
}

static void clone_block(struct bench *b, const struct block_meta *of)
{
	static const char *const names[] = { "data", "index", "bloom-0" };
	struct block_meta m = *of;
	char from[256], to[256];
	struct buf json = BUF_INIT;
	struct json_writer w = JSON_WRITER(&json);

	rng_uuid(m.id);
	snprintf(to, sizeof(to), "%s/t/%s", b->folder, m.id);
	if (mkdir(to, 0755) < 0)
		give_up("mkdir", to);
	for (size_t i = 0; i < COUNT_OF(names); i++) {
		snprintf(from, sizeof(from), "%s/t/%s/%s", b->folder, of->id, names[i]);
		snprintf(to, sizeof(to), "%s/t/%s/%s", b->folder, m.id, names[i]);
		if (link(from, to) < 0)
			give_up("link", to);
	}
	block_meta_encode(&m, &w);
	snprintf(to, sizeof(to), "%s/t/%s/meta.json", b->folder, m.id);
	write_file(to, buf_bytes(&json));
	buf_fini(&json);
}

static void grow_to(struct bench *b, size_t n)
{
	for (; b->n_blocks < n; b->n_blocks++)
		clone_block(b, &b->templates[b->n_blocks % TEMPLATES]);
}

/* ---- measures ---- */

static struct store *open_store(const struct bench *b, double *start_ms)
{
	struct store *s = store_new(&(struct store_options){
		.backend = open_backend(b), .local_path = b->folder, .poll_ns = 3600 * NS_PER_S });
	uint64_t begin = clock_mono_ns();
	struct err err = ERR_INIT;

	if (store_start(s, &err) < 0)
		give_up("start", err.msg);
	*start_ms = (double)(clock_mono_ns() - begin) / 1e6;
	return s;
}

static int no_piece(void *arg, struct bytes traces_data, struct err *err)
{
	(void)arg;
	(void)traces_data;
	(void)err;
	return 0;
}

/* One look-up of an id that is nowhere, in ms. Those that pass a filter by chance count too. */
static double look_up(struct bench *b, struct store *s)
{
	struct store_find_result r;
	struct err err = ERR_INIT;
	uint64_t begin;
	uint8_t id[16];

	store_be64(id, rng_next(&b->rng));
	store_be64(id + 8, rng_next(&b->rng));
	begin = clock_mono_ns();
	if (store_find(s, "t", id, no_piece, NULL, &r, &err) < 0)
		give_up("look-up", err.msg);
	if (r.blocks_failed > 0 || r.blocks_asked != b->n_blocks)
		give_up("look-up", r.first_failure);
	return (double)(clock_mono_ns() - begin) / 1e6;
}

static void measure(struct bench *b, size_t n)
{
	double start_ms, first, sum = 0, best = 0, poll_ms = 0;
	struct block_cache_stats c;
	struct err err = ERR_INIT;
	struct store *s;
	char name[80];

	grow_to(b, n);
	s = open_store(b, &start_ms);
	snprintf(name, sizeof(name), "start with %zu local blocks", n);
	report_value(name, start_ms, "ms");
	for (int i = 0; i < POLLS; i++) {
		uint64_t begin = clock_mono_ns();

		if (store_refresh(s, &err) < 0)
			give_up("poll", err.msg);
		report_keep_best(&poll_ms, (double)(clock_mono_ns() - begin) / 1e6);
	}
	snprintf(name, sizeof(name), "poll of %zu known local blocks", n);
	report_value(name, poll_ms, "ms");
	first = look_up(b, s);
	for (int i = 0; i < LOOKUPS; i++) {
		double ms = look_up(b, s);

		sum += ms;
		report_keep_best(&best, ms);
	}
	snprintf(name, sizeof(name), "look-up over %zu local blocks: first", n);
	report_value(name, first, "ms");
	snprintf(name, sizeof(name), "look-up over %zu local blocks: later, mean", n);
	report_value(name, sum / LOOKUPS, "ms");
	snprintf(name, sizeof(name), "look-up over %zu local blocks: later, best", n);
	report_value(name, best, "ms");
	block_cache_stats(store_cache(s), &c);
	snprintf(name, sizeof(name), "look-up over %zu local blocks: cached", n);
	report_value(name, (double)c.bytes / 1e6, "MB");
	snprintf(name, sizeof(name), "look-up over %zu local blocks: blooms not cached", n);
	report_value(name,
		     100.0 * (double)(c.misses[BLOCK_CACHE_BLOOM] - n) / (double)(n * LOOKUPS),
		     "%");
	store_free(s);
}

int main(void)
{
	struct bench b = { .folder = "/tmp/spanmill-bench-XXXXXX" };

	if (mkdtemp(b.folder) == NULL)
		give_up("mkdtemp", b.folder);
	rng_seed(&b.rng, 1);
	write_templates(&b);
	measure(&b, FEW);
	measure(&b, MANY);
	nftw(b.folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	return 0;
}
