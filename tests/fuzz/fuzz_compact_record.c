/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_compact_record.c - a record of a compaction by anybody: no crash, bounded lists, and what
 * was taken is written and read again the same. The CRC is put right first, else nothing would get
 * past it.
 */
#include "blocks/compact_record.h"
#include "blocks/sealed_json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct compact_record *r, uint64_t number)
{
	struct buf json = BUF_INIT;
	struct compact_record again;

	assert(r->number == number && r->n_inputs > 0 && r->n_inputs <= COMPACT_RECORD_MAX);
	assert(r->n_outputs <= COMPACT_RECORD_MAX && r->id[0] != '\0');
	for (size_t i = 0; i < r->n_outputs; i++)
		assert(strcmp(r->outputs[i].tenant, "t") == 0);
	compact_record_encode(r, &json);
	assert(compact_record_decode(buf_bytes(&json), "t", number, &again, NULL) == 0);
	assert(again.n_inputs == r->n_inputs && again.n_outputs == r->n_outputs);
	compact_record_fini(&again);
	buf_fini(&json);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct compact_record r;
	struct buf json = BUF_INIT;

	(void)compact_record_decode((struct bytes){ data, size }, "t", 7, &r, NULL);
	compact_record_fini(&r);
	if (size == 0)
		return 0;
	buf_add(&json, data, size);
	sealed_json_close(&json);
	if (compact_record_decode(buf_bytes(&json), "t", 7, &r, NULL) == 0)
		check(&r, 7);
	compact_record_fini(&r);
	buf_fini(&json);
	return 0;
}
