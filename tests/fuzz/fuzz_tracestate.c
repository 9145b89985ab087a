/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_tracestate.c - what is written is read back, rv and other members stay, and writing twice
 * changes nothing.
 */
#include "base/arena.h"
#include "base/mem.h"
#include "wire/tracestate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct tracestate_ot before, after;
	struct buf once = BUF_INIT, twice = BUF_INIT;
	struct bytes in = { NULL, 0 };
	uint64_t th = TH_UNKNOWN;
	uint8_t *copy;

	if (size < 8)
		return 0;
	th = load_le64(data) % (TRACESTATE_W56 + 2);
	th = th < TRACESTATE_W56 ? th : TH_UNKNOWN;
	copy = xmalloc(size - 8);
	memcpy(copy, data + 8, size - 8);
	in = (struct bytes){ copy, size - 8 };
	tracestate_read(in, &before);
	assert(before.th == TH_UNKNOWN || before.th < TRACESTATE_W56);
	if (tracestate_write_th(in, th, &once) == 0) {
		tracestate_read(buf_bytes(&once), &after);
		assert(before.malformed || (after.th == th && after.has_rv == before.has_rv));
		assert(!after.has_rv || after.rv == before.rv || before.malformed);
		assert(once.n <= in.n + 3 + 3 + 14 + 2);
		assert(tracestate_write_th(buf_bytes(&once), th, &twice) == 0);
		assert(bytes_eq(buf_bytes(&once), buf_bytes(&twice)));
	} else {
		assert(once.n == 0);
	}
	free(copy);
	buf_fini(&once);
	buf_fini(&twice);
	return 0;
}
