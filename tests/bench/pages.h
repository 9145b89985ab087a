/* SPDX-License-Identifier: Apache-2.0
 *
 * pages.h - every page of the blocks of one tenant, and what zstd level 1 alone takes to compress
 * it: what the building of blocks is held against.
 *
 *   backend --list--> block --index--> page, plain --ZSTD_compressCCtx--> CPU of this thread
 *
 * Header only, because a bench program is one file. Main thread only. Errors end the bench.
 */
#ifndef TESTS_BENCH_PAGES_H
#define TESTS_BENCH_PAGES_H

#include "base/base.h"
#include "blocks/block.h"
#include "blocks/block_reader.h"
#include "tests/bench/report.h"

#include <time.h>
#include <zstd.h>

#define PAGES_TENANT "single-tenant"

/* Sums over all blocks; the caller zeroes it. */
struct pages {
	unsigned repeats; /* of each page's compression, at least 1: the fastest counts */
	size_t n_blocks, n_pages;
	uint64_t n_traces, block_bytes, plain_bytes, zstd_bytes;
	uint64_t least_block; /* bytes */
	double zstd_ns;
	/* private */
	struct backend *be;
	ZSTD_CCtx *z;
	struct buf out;
};

static inline void pages_must(int rc, const struct err *err)
{
	if (rc >= 0)
		return;
	report_progress("%s", "");
	fprintf(stderr, "bench: %s\n", err->msg);
	exit(2);
}

static inline double pages_cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static inline void pages_compress(struct pages *p, struct bytes page)
{
	size_t room = ZSTD_compressBound(page.n), n = 0;
	double best = 0;

	buf_reset(&p->out);
	buf_reserve(&p->out, room);
	for (unsigned i = 0; i < p->repeats; i++) {
		double start = pages_cpu_ns();

		n = ZSTD_compressCCtx(p->z, p->out.p, room, page.p, page.n, 1);
		report_keep_best(&best, pages_cpu_ns() - start);
	}
	p->plain_bytes += page.n;
	p->zstd_bytes += n;
	p->zstd_ns += best;
	p->n_pages++;
}

static inline void pages_read_block(struct pages *p, const struct block_meta *meta)
{
	struct err err = ERR_INIT;
	struct block_reader *r = block_reader_new(p->be, meta, NULL, &err);
	uint32_t n_pages = block_index_pages(meta->records, meta->index_page_size);
	struct buf index = BUF_INIT;
	struct bytes page;

	pages_must(r == NULL ? -1 : 0, &err);
	for (uint32_t at = 0; at < n_pages; at++) {
		uint32_t n = block_index_on_page(meta->records, meta->index_page_size, at);

		buf_reset(&index);
		pages_must(block_reader_read_index_page(r, at, &index, &err), &err);
		for (uint32_t i = 0; i < n; i++) {
			struct block_index_record rec;

			block_index_page_record(buf_bytes(&index), i, &rec);
			pages_must(block_reader_page(r, &rec, &page, &err), &err);
			pages_compress(p, page);
		}
	}
	buf_fini(&index);
	block_reader_free(r);
}

static inline int pages_read_entry(void *arg, const struct backend_entry *e, struct err *err)
{
	struct pages *p = arg;
	const char *id = strrchr(e->key, '/');
	struct block_meta meta;

	if (!e->is_prefix || id == NULL)
		return 0;
	if (block_read_meta(p->be, PAGES_TENANT, id + 1, "meta.json", &meta, err) < 0)
		return -1;
	report_progress("compressing block %zu", p->n_blocks + 1);
	pages_read_block(p, &meta);
	p->n_blocks++;
	p->n_traces += meta.objects;
	p->block_bytes += meta.size;
	if (p->least_block == 0 || meta.size < p->least_block)
		p->least_block = meta.size;
	return 0;
}

/* All blocks of `be`. */
static inline void pages_read(struct pages *p, struct backend *be)
{
	struct err err = ERR_INIT;

	p->be = be;
	p->z = ZSTD_createCCtx();
	pages_must(backend_list(be, PAGES_TENANT, BACKEND_ONE_LEVEL, pages_read_entry, p, &err),
		   &err);
	ZSTD_freeCCtx(p->z);
	buf_fini(&p->out);
}

#endif
