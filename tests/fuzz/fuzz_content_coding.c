/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_content_coding.c - byte 0 picks the coding and the limit, the rest is the body. Whatever
 * comes, no more than the limit is held, nothing stays charged, and an error says which of the
 * three kinds it is.
 */
#include "net/content_coding.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct budget budget = BUDGET_INIT(8 << 20);
	struct err err = ERR_INIT;
	struct rcbuf *out = NULL;
	size_t max_out = 0;
	int rc = 0;

	if (size < 1)
		return 0;
	max_out = data[0] & 0x80 ? 1 << 20 : 1000;
	rc = content_decode(data[0] % 7, (struct bytes){ data + 1, size - 1 }, max_out, &budget,
			    &out, &err);
	if (rc == 0)
		assert(out->n <= max_out);
	else
		assert(out == NULL && (err.kind == ERR_INVALID || err.kind == ERR_TOO_LARGE));
	rcbuf_unref(out);
	assert(budget.used == 0);
	assert(budget.peak <= 3 << 20);
	if (size < 200) {
		enum content_coding c = CONTENT_IDENTITY;

		content_coding_accepts_gzip((struct bytes){ data, size });
		content_coding_parse((struct bytes){ data, size }, &c);
	}
	return 0;
}
