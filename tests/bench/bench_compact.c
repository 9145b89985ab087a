/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_compact.c - what it takes to merge eight blocks of 100 MB on a local disk: time of one
 * core, and memory at its highest.
 *
 * Traces of about 2 KB that compress to a quarter; every tenth of a block is in all of them. The
 * blocks are written by a child, so that the peak is the merge's alone. SPEC: issue 4, item 6.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "blocks/backend_local.h"
#include "blocks/block.h"
#include "blocks/block_object.h"
#include "blocks/block_writer.h"
#include "blocks/compact_merge.h"
#include "tests/bench/report.h"
#include "wire/pb.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BLOCKS = 8, RANDOM_BYTES = 420, TEXT_BYTES = 1500, EVERY = 10 };
#define BLOCK_BYTES (UINT64_C(100) * 1000 * 1000)

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static void die(const char *what, const struct err *err)
{
	fprintf(stderr, "bench_compact: %s: %s\n", what, err->msg);
	exit(2);
}

/* One resource, one scope, one span with an attribute that compresses and one that does not. */
static void put_trace(struct buf *otlp, const uint8_t id[16], struct rng *rng)
{
	static char text[TEXT_BYTES + 1];
	uint8_t noise[RANDOM_BYTES];
	size_t rs = pb_begin(otlp, 1), ss = pb_begin(otlp, 2), span = pb_begin(otlp, 2), kv, any;

	if (text[0] == '\0')
		for (size_t i = 0; i < TEXT_BYTES; i++)
			text[i] = "GET /api/cart/checkout "[i % 23];
	for (size_t i = 0; i + 8 <= sizeof(noise); i += 8)
		store_be64(noise + i, rng_next(rng));
	pb_put_bytes(otlp, 1, (struct bytes){ id, 16 });
	pb_put_bytes(otlp, 2, (struct bytes){ noise, 8 });
	pb_put_str(otlp, 5, "checkout");
	pb_put_fixed64(otlp, 7, UINT64_C(1790000000) * NS_PER_S);
	kv = pb_begin(otlp, 9);
	pb_put_str(otlp, 1, "text");
	any = pb_begin(otlp, 2);
	pb_put_str(otlp, 1, text);
	pb_end(otlp, any);
	pb_end(otlp, kv);
	kv = pb_begin(otlp, 9);
	pb_put_str(otlp, 1, "noise");
	any = pb_begin(otlp, 2);
	pb_put_bytes(otlp, 7, (struct bytes){ noise, sizeof(noise) });
	pb_end(otlp, any);
	pb_end(otlp, kv);
	pb_end(otlp, span);
	pb_end(otlp, ss);
	pb_end(otlp, rs);
}

/* Ids ascend; a tenth of them are of every block. */
static void id_of(uint64_t n, unsigned block, uint8_t id[16])
{
	memset(id, 0, 16);
	store_be64(id, n * BLOCKS + (n % EVERY == 0 ? 0 : block));
	id[15] = 1;
}

static void write_block(struct backend *be, unsigned number, struct block_meta *m)
{
	struct err err = ERR_INIT;
	struct block_writer *w = block_writer_open(be, "t", NULL, NULL, &err);
	struct rng rng;

	if (w == NULL)
		die("open", &err);
	rng_seed(&rng, number);
	for (uint64_t n = 0; block_writer_bytes(w) < BLOCK_BYTES; n++) {
		uint8_t id[16], head[BLOCK_OBJECT_HEAD];
		struct buf otlp = BUF_INIT;

		id_of(n, number, id);
		put_trace(&otlp, id, &rng);
		if (block_writer_add(
			    w, id,
			    (struct bytes[]){ { head, block_object_head(head, 1, 2, otlp.n) },
					      buf_bytes(&otlp) },
			    2, &err) < 0)
			die("add", &err);
		buf_fini(&otlp);
	}
	if (block_writer_finish(w, m, &err) < 0 || block_publish(be, m, &err) < 0)
		die("finish", &err);
}

static int note_id(void *arg, const struct backend_entry *e, struct err *err)
{
	char(*ids)[37] = arg;

	(void)err;
	while (ids[0][0] != '\0')
		ids++;
	snprintf(ids[0], sizeof(ids[0]), "%.36s", e->key + 2);
	return 0;
}

static bool merge(struct backend *be, const char *ids)
{
	static struct block_meta metas[BLOCKS];
	struct compact_merge m = { .backend = be, .inputs = metas, .n_inputs = BLOCKS };
	uint64_t cpu = clock_cpu_ns(), wall = clock_mono_ns(), bytes = 0, traces = 0;
	struct rusage use;
	struct err err = ERR_INIT;

	for (unsigned i = 0; i < BLOCKS; i++) {
		if (block_read_meta(be, "t", ids + 37 * i, "meta.json", &metas[i], &err) < 0)
			die("meta", &err);
		bytes += metas[i].size;
		traces += metas[i].objects;
	}
	if (compact_merge(&m, &err) < 0)
		die("merge", &err);
	cpu = clock_cpu_ns() - cpu;
	wall = clock_mono_ns() - wall;
	getrusage(RUSAGE_SELF, &use);
	report_value("merge of 8 blocks: input", (double)bytes / 1e6, "MB");
	report_value("merge of 8 blocks: traces", (double)traces / 1e3, "k");
	report_value("merge of 8 blocks: of them joined", (double)m.n_joined / 1e3, "k");
	report_value("merge of 8 blocks: time", (double)wall / 1e9, "s");
	report_value("merge of 8 blocks: per core", (double)bytes * 1e3 / (double)cpu, "MB/s");
	report_value("merge of 8 blocks: CPU", (double)cpu / 1e3 / (double)traces, "us/trace");
	return report_limit("merge of 8 blocks: resident at most",
			    (double)use.ru_maxrss * 1024 / 1e6, "MB", "-", AT_MOST, 256);
}

int main(void)
{
	const char *tmp = getenv("TMPDIR");
	char *dir = xasprintf("%s/spanmill-bench-XXXXXX", tmp ? tmp : "/tmp");
	struct err err = ERR_INIT;
	static char ids[BLOCKS + 1][37];
	struct backend *be;
	pid_t child;
	bool ok;

	if (mkdtemp(dir) == NULL)
		return 1;
	child = fork();
	be = backend_local_open(&(struct backend_local_options){ .path = dir }, &err);
	if (be == NULL)
		die("open", &err);
	if (child == 0) {
		struct block_meta m;

		for (unsigned i = 0; i < BLOCKS; i++)
			write_block(be, i, &m);
		_exit(0);
	}
	waitpid(child, NULL, 0);
	backend_list_members(be, "t", "meta.json", note_id, ids, NULL);
	ok = merge(be, ids[0]);
	backend_free(be);
	nftw(dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	free(dir);
	return ok ? 0 : 1;
}
