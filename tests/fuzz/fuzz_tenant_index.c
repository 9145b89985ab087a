/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_tenant_index.c - an index.json.gz of anybody: no crash, no more memory than the budget
 * grants, and what was understood survives being written and read again. Input that is not gzip is
 * compressed first, so that the fuzzer need not find checksums.
 */
#include "blocks/tenant_index.h"
#include "net/content_coding.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool is_same_list(const struct tenant_index_metas *a, const struct tenant_index_metas *b)
{
	bool same = a->n == b->n;

	for (size_t i = 0; same && i < a->n; i++)
		same = strcmp(a->v[i].id, b->v[i].id) == 0 &&
		       block_time_compare(a->v[i].compacted_at, b->v[i].compacted_at) == 0 &&
		       a->v[i].objects == b->v[i].objects;
	return same;
}

static void check_round_trip(const struct tenant_index *x)
{
	struct buf gzip = BUF_INIT;
	struct tenant_index y;

	assert(tenant_index_encode(x, &gzip, NULL) == 0);
	assert(tenant_index_decode(buf_bytes(&gzip), "t", NULL, &y, NULL) == 0);
	assert(y.n_bad == 0 && is_same_list(&x->live, &y.live));
	assert(is_same_list(&x->compacted, &y.compacted));
	tenant_index_fini(&y);
	buf_fini(&gzip);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct budget budget = BUDGET_INIT(64 * 1024 * 1024);
	struct bytes in = { data, size };
	struct buf gzip = BUF_INIT;
	struct tenant_index x;

	if (size < 2 || data[0] != 0x1f || data[1] != 0x8b) {
		assert(content_encode(CONTENT_GZIP, 1, in, &gzip, NULL) == 0);
		in = buf_bytes(&gzip);
	}
	if (tenant_index_decode(in, "t", &budget, &x, NULL) == 0)
		check_round_trip(&x);
	tenant_index_fini(&x);
	assert(budget.used == 0);
	buf_fini(&gzip);
	return 0;
}
