/* SPDX-License-Identifier: Apache-2.0
 *
 * test_tenant_index.c - index.json.gz: Tempo's own read and written again, what is wrong with one
 * entry or with all, and that memory is charged.
 *
 * Golden data is taken from $SPANMILL_GOLDEN, else ../shared/golden; its tests are skipped when it
 * is not there.
 */
#include "blocks/tenant_index.h"
#include "base/mem.h"
#include "base/rng.h"
#include "net/content_coding.h"
#include "tests/memory_backend.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define META(id, more)                                                                             \
	"{\"format\":\"v2\",\"blockID\":\"e05c7e78-2d19-4de1-814f-64351ea730" id "\"," more        \
	"\"encoding\":\"zstd\"}"
#define MINE "\"tenantID\":\"t\","

/* ---- golden ---- */

static void read_golden(const char *name, struct buf *b)
{
	const char *env = getenv("SPANMILL_GOLDEN");
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s/tempo-v2/backend-metas/%s", env ? env : "../shared/golden",
		 name);
	f = fopen(path, "rb");
	if (f == NULL) {
		printf("skipped: no golden data\n");
		skip();
	}
	b->n += fread(buf_reserve(b, MIB), 1, MIB, f);
	fclose(f);
}

static struct rcbuf *inflate(struct bytes gzip)
{
	struct rcbuf *json = NULL;

	assert_int_equal(content_decode(CONTENT_GZIP, gzip, MIB, NULL, &json, NULL), 0);
	return json;
}

/* Of a block that both know everything about, the text is the same, byte for byte. */
static void tempo_s_index_comes_back(void **state)
{
	struct buf golden = BUF_INIT, own = BUF_INIT;
	struct rcbuf *a, *b;
	struct tenant_index x;

	(void)state;
	read_golden("index.json.gz", &golden);
	assert_int_equal(tenant_index_decode(buf_bytes(&golden), "single-tenant", NULL, &x, NULL),
			 0);
	assert_int_equal(x.live.n, 1);
	assert_int_equal(x.compacted.n, 0);
	assert_string_equal(x.live.v[0].id, "e05c7e78-2d19-4de1-814f-64351ea730c6");
	assert_int_equal(tenant_index_encode(&x, &own, NULL), 0);
	a = inflate(buf_bytes(&golden));
	b = inflate(buf_bytes(&own));
	assert_int_equal(a->n, b->n);
	assert_memory_equal(a->p, b->p, a->n);
	/* The head too, but for its time and its system. */
	assert_memory_equal(golden.p, own.p, 4);
	assert_memory_equal(golden.p + 10, own.p + 10, sizeof("index.json"));
	rcbuf_unref(a);
	rcbuf_unref(b);
	tenant_index_fini(&x);
	buf_fini(&golden);
	buf_fini(&own);
}

static void a_large_index_with_null_lists(void **state)
{
	struct buf golden = BUF_INIT;
	struct tenant_index x;

	(void)state;
	read_golden("tenant-index-json/index.json.gz", &golden);
	assert_int_equal(tenant_index_decode(buf_bytes(&golden), "test", NULL, &x, NULL), 0);
	assert_int_equal(x.live.n, 1000);
	assert_int_equal(x.compacted.n, 0);
	assert_int_equal(x.n_bad, 0);
	assert_string_equal(x.live.v[0].format, "vParquet3");
	tenant_index_fini(&x);
	buf_fini(&golden);
}

/* ---- texts ---- */

static const struct {
	const char *name, *json;
	int ret;
	size_t live, compacted, bad;
} texts[] = {
	{ "empty object", "{}", 0, 0, 0, 0 },
	{ "one each",
	  "{\"meta\":[" META("01", MINE) "],\"compacted\":[" META(
		  "02", MINE "\"compactedTime\":\"2026-11-22T05:09:54Z\",") "]}",
	  0, 1, 1, 0 },
	{ "other keys", "{\"x\":[{}],\"meta\":[],\"created_at\":\"2026-11-22T05:09:54Z\"}", 0, 0, 0,
	  0 },
	{ "entry of another tenant", "{\"meta\":[" META("01", "\"tenantID\":\"u\",") "]}", 0, 0, 0,
	  1 },
	{ "bad entries among good",
	  "{\"meta\":[1,{},[[]]," META("01", MINE "\"size\":{\"a\":[1,{}]},") "," META("02",
										       MINE) "]}",
	  0, 1, 0, 4 },
	{ "not an object", "[]", -1, 0, 0, 0 },
	{ "list is an object", "{\"meta\":{}}", -1, 0, 0, 0 },
	{ "cut inside an entry", "{\"meta\":[" META("01", MINE) ",{\"format\":", -1, 0, 0, 0 },
	{ "junk behind", "{} {}", -1, 0, 0, 0 },
	{ "empty", "", -1, 0, 0, 0 },
};

static int decode_text(const char *json, struct budget *budget, struct tenant_index *x,
		       struct err *err)
{
	struct buf gzip = BUF_INIT;
	int ret;

	assert_int_equal(content_encode(CONTENT_GZIP, 0, bytes_str(json), &gzip, NULL), 0);
	ret = tenant_index_decode(buf_bytes(&gzip), "t", budget, x, err);
	buf_fini(&gzip);
	return ret;
}

static void one_bad_entry_costs_itself(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(texts); i++) {
		struct budget budget = BUDGET_INIT(MIB);
		struct err err = ERR_INIT;
		struct tenant_index x;
		int ret = decode_text(texts[i].json, &budget, &x, &err);

		if (ret != texts[i].ret || x.live.n != texts[i].live ||
		    x.compacted.n != texts[i].compacted || (ret == 0 && x.n_bad != texts[i].bad))
			fail_msg("%s: %d, %zu live, %zu compacted, %zu bad: %s", texts[i].name, ret,
				 x.live.n, x.compacted.n, x.n_bad, err.msg);
		if (ret < 0)
			assert_int_equal(err.kind, ERR_INVALID);
		tenant_index_fini(&x);
		assert_int_equal(budget.used, 0);
	}
}

/* ---- limits ---- */

static void fill(struct tenant_index *x, size_t n)
{
	struct block_meta m;

	block_meta_init(&m);
	memcpy(m.format, "v2", 3);
	memcpy(m.tenant, "t", 2);
	for (size_t i = 0; i < n; i++) {
		rng_uuid(m.id);
		assert_int_equal(tenant_index_add(x, &x->live, &m, NULL), 0);
	}
}

static void ten_thousand_blocks_fit_and_are_charged(void **state)
{
	struct budget budget = BUDGET_INIT(64 * MIB), small = BUDGET_INIT(4 * MIB);
	struct buf gzip = BUF_INIT;
	struct err err = ERR_INIT;
	struct tenant_index x, y;

	(void)state;
	tenant_index_init(&x, NULL);
	fill(&x, 10000);
	assert_int_equal(tenant_index_encode(&x, &gzip, NULL), 0);
	assert_int_equal(tenant_index_decode(buf_bytes(&gzip), "t", &budget, &y, &err), 0);
	assert_int_equal(y.live.n, 10000);
	assert_string_equal(y.live.v[9999].id, x.live.v[9999].id);
	assert_true(budget.used >= (int64_t)(10000 * sizeof(struct block_meta)));
	tenant_index_fini(&y);
	assert_int_equal(budget.used, 0);
	assert_int_equal(tenant_index_decode(buf_bytes(&gzip), "t", &small, &y, &err), -1);
	assert_true(err.kind == ERR_EXHAUSTED || err.kind == ERR_TOO_LARGE);
	assert_int_equal(small.used, 0);
	tenant_index_fini(&x);
	buf_fini(&gzip);
}

static void a_bomb_is_refused(void **state)
{
	struct buf json = BUF_INIT;
	struct err err = ERR_INIT;
	struct tenant_index x;

	(void)state;
	memset(buf_reserve(&json, 32 * MIB), ' ', 32 * MIB - 1);
	json.n = 32 * MIB - 1;
	assert_int_equal(decode_text(buf_cstr(&json), NULL, &x, &err), -1);
	assert_int_equal(err.kind, ERR_TOO_LARGE);
	buf_fini(&json);
}

static void damage_is_noticed_everywhere(void **state)
{
	struct buf gzip = BUF_INIT;
	struct tenant_index x, y;

	(void)state;
	tenant_index_init(&x, NULL);
	fill(&x, 3);
	assert_int_equal(tenant_index_encode(&x, &gzip, NULL), 0);
	/* Behind the head: the deflated bytes, their CRC and their length. The bits that fill up
	 * the last byte of the deflated ones mean nothing. */
	for (size_t i = 10 + sizeof("index.json"); i < gzip.n; i++) {
		gzip.p[i] ^= 0x20;
		if (tenant_index_decode(buf_bytes(&gzip), "t", NULL, &y, NULL) == 0 &&
		    i + 9 != gzip.n)
			fail_msg("a flip at %zu went unseen", i);
		tenant_index_fini(&y);
		gzip.p[i] ^= 0x20;
	}
	for (size_t n = 0; n < gzip.n; n++)
		assert_int_equal(
			tenant_index_decode((struct bytes){ gzip.p, n }, "t", NULL, &y, NULL), -1);
	tenant_index_fini(&x);
	buf_fini(&gzip);
}

static void it_lies_beside_the_blocks(void **state)
{
	struct backend *be = memory_backend_new();
	struct memory_object *o;
	struct tenant_index x, y;

	(void)state;
	tenant_index_init(&x, NULL);
	fill(&x, 2);
	assert_int_equal(tenant_index_write(be, "t", &x, NULL), 0);
	assert_int_equal(tenant_index_write(be, "t", &x, NULL), 0);
	o = memory_find(be, "t/index.json.gz");
	assert_non_null(o);
	assert_int_equal(tenant_index_decode(buf_bytes(&o->data), "t", NULL, &y, NULL), 0);
	assert_int_equal(y.live.n, 2);
	tenant_index_fini(&x);
	tenant_index_fini(&y);
	backend_free(be);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tempo_s_index_comes_back),
		cmocka_unit_test(a_large_index_with_null_lists),
		cmocka_unit_test(one_bad_entry_costs_itself),
		cmocka_unit_test(ten_thousand_blocks_fit_and_are_charged),
		cmocka_unit_test(a_bomb_is_refused),
		cmocka_unit_test(damage_is_noticed_everywhere),
		cmocka_unit_test(it_lies_beside_the_blocks),
	};

	return cmocka_run_group_tests_name("tenant_index", tests, NULL, NULL);
}
