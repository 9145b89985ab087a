/* SPDX-License-Identifier: Apache-2.0
 *
 * section_fixture.h - what the tests of sections, builder and store share: a scratch folder,
 * requests of known spans, and counting what comes back of them.
 *
 * A test span is a number: its trace id, span id and name are made of it, so that whoever reads it
 * back can tell which it was. Header only, because every test program is one file.
 */
#ifndef TESTS_UNIT_SECTION_FIXTURE_H
#define TESTS_UNIT_SECTION_FIXTURE_H

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "blocks/backend_local.h"
#include "blocks/block.h"
#include "blocks/block_object.h"
#include "blocks/block_reader.h"
#include "blocks/store.h"
#include "wire/otlp_index.h"
#include "wire/pb.h"

#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- scratch folder ---- */

static inline int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static inline void remove_tree(const char *path)
{
	nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

/* A fresh folder; free() the name after remove_tree. */
static inline char *scratch_dir(void)
{
	const char *tmp = getenv("TMPDIR");
	char *name = xasprintf("%s/spanmill-test-XXXXXX", tmp ? tmp : "/tmp");

	assert_non_null(mkdtemp(name));
	return name;
}

static inline struct backend *local_at(const char *path)
{
	struct err err = ERR_INIT;
	struct backend *be =
		backend_local_open(&(struct backend_local_options){ .path = path }, &err);

	if (be == NULL)
		fail_msg("%s", err.msg);
	return be;
}

/* ---- spans ---- */

struct test_span {
	uint64_t trace; /* the trace id's number */
	uint64_t span;  /* the span id's, not 0 */
	uint32_t kind;
	uint64_t start_ns, end_ns;
	uint32_t padding; /* bytes of an attribute */
	bool short_id;    /* a 64-bit trace id: zero in front */
};

static inline void trace_id_of(const struct test_span *s, uint8_t id[16])
{
	/* Scrambled, so that order of numbers is no order of ids. */
	uint64_t mixed = (s->trace + 1) * UINT64_C(0x9e3779b97f4a7c15);

	store_be64(id, s->short_id ? 0 : mixed ^ mixed >> 29);
	store_be64(id + 8, s->trace + 1);
}

static inline void put_span(struct buf *out, const struct test_span *s)
{
	uint8_t trace[16], span[8];
	char name[40];
	size_t mark = pb_begin(out, 2), kv, any;

	trace_id_of(s, trace);
	store_be64(span, s->span);
	snprintf(name, sizeof(name), "span %llu", (unsigned long long)s->span);
	pb_put_bytes(out, 1, (struct bytes){ trace, 16 });
	pb_put_bytes(out, 2, (struct bytes){ span, 8 });
	pb_put_str(out, 5, name);
	pb_put_uint(out, 6, s->kind);
	pb_put_fixed64(out, 7, s->start_ns);
	pb_put_fixed64(out, 8, s->end_ns);
	if (s->padding > 0) {
		char *text = xmalloc(s->padding + 1);

		memset(text, 'x', s->padding);
		text[s->padding] = '\0';
		kv = pb_begin(out, 9);
		pb_put_str(out, 1, "padding");
		any = pb_begin(out, 2);
		pb_put_str(out, 1, text);
		pb_end(out, any);
		pb_end(out, kv);
		free(text);
	}
	pb_end(out, mark);
}

/* One ExportTraceServiceRequest of one resource and scope. */
static inline void put_request(struct buf *out, const struct test_span *spans, size_t n)
{
	size_t rs = pb_begin(out, 1), resource = pb_begin(out, 1), kv = pb_begin(out, 1), any, ss;

	pb_put_str(out, 1, "service.name");
	any = pb_begin(out, 2);
	pb_put_str(out, 1, "test");
	pb_end(out, any);
	pb_end(out, kv);
	pb_end(out, resource);
	ss = pb_begin(out, 2);
	for (size_t i = 0; i < n; i++)
		put_span(out, &spans[i]);
	pb_end(out, ss);
	pb_end(out, rs);
}

static inline struct test_span plain_span(uint64_t trace, uint64_t span)
{
	uint64_t now = UINT64_C(1790000000) * NS_PER_S;

	return (struct test_span){ .trace = trace,
				   .span = span,
				   .kind = 2,
				   .start_ns = now + span * NS_PER_MS,
				   .end_ns = now + span * NS_PER_MS + 5 * NS_PER_MS };
}

/* ---- reading back ---- */

/* The span numbers of the pieces of one trace. */
struct found_spans {
	uint64_t *v;
	size_t n, cap;
	const uint8_t *id; /* all must be of this trace; NULL: any */
};

static inline int note_piece(void *arg, struct bytes traces_data, struct err *err)
{
	struct found_spans *f = arg;
	struct arena arena = ARENA_INIT;
	struct span_tables t = { 0 };
	struct otlp_result result;
	struct otlp_counts c;

	assert_int_equal(otlp_count(traces_data, &c, err), 0);
	t.spans = arena_alloc(&arena, c.n_spans * sizeof(*t.spans));
	t.scopes = arena_alloc(&arena, c.n_scopes * sizeof(*t.scopes));
	t.resources = arena_alloc(&arena, c.n_resources * sizeof(*t.resources));
	t.heads = arena_alloc(&arena, c.n_heads * sizeof(*t.heads));
	assert_int_equal(otlp_index(traces_data, &t, &arena, &result, err), 0);
	assert_int_equal(result.rejects.n, 0);
	for (uint32_t i = 0; i < t.n_spans; i++) {
		if (f->id != NULL)
			assert_memory_equal(t.spans[i].trace_id, f->id, 16);
		f->v = xgrow(f->v, &f->cap, f->n + 1, sizeof(*f->v));
		f->v[f->n++] = load_be64(t.spans[i].span_id);
	}
	arena_fini(&arena);
	return 0;
}

static inline int compare_u64(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static inline size_t count_span(const struct found_spans *f, uint64_t span)
{
	size_t n = 0;

	for (size_t i = 0; i < f->n; i++)
		n += f->v[i] == span;
	return n;
}

static inline void found_reset(struct found_spans *f)
{
	free(f->v);
	*f = (struct found_spans){ NULL, 0, 0, NULL };
}

/* ---- folders ---- */

struct tally_blocks {
	size_t metas, datas, commits;
};

static inline int tally_entry(void *arg, const struct backend_entry *e, struct err *err)
{
	struct tally_blocks *t = arg;
	const char *name = strrchr(e->key, '/');

	(void)err;
	if (name == NULL)
		return 0;
	t->metas += strcmp(name, "/meta.json") == 0;
	t->datas += strcmp(name, "/data") == 0;
	t->commits += strncmp(e->key, "_spanmill/commits/", 18) == 0;
	return 0;
}

static inline struct tally_blocks tally_backend(struct backend *be)
{
	struct tally_blocks t = { 0 };

	assert_int_equal(backend_list(be, "", BACKEND_RECURSIVE, tally_entry, &t, NULL), 0);
	return t;
}

#endif
