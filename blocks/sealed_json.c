/* SPDX-License-Identifier: Apache-2.0
 *
 * sealed_json.c - see sealed_json.h.
 */
#include "blocks/sealed_json.h"

#include "base/hash.h"

#include <stdio.h>

#define CRC_MEMBER ",\"crc\":\""
enum { CRC_TAIL = sizeof(CRC_MEMBER) - 1 + 8 + 2 };

void sealed_json_close(struct buf *json)
{
	json->n--;
	buf_printf(json, CRC_MEMBER "%08x\"}", hash_crc32c(0, json->p, json->n));
}

bool sealed_json_has_crc(struct bytes json)
{
	return json.n > CRC_TAIL &&
	       memcmp(json.p + json.n - CRC_TAIL, CRC_MEMBER, sizeof(CRC_MEMBER) - 1) == 0;
}

bool sealed_json_is_right(struct bytes json)
{
	size_t n = json.n - MIN(json.n, (size_t)CRC_TAIL);
	char want[CRC_TAIL + 1];

	if (!sealed_json_has_crc(json))
		return true;
	snprintf(want, sizeof(want), CRC_MEMBER "%08x\"}", hash_crc32c(0, json.p, n));
	return memcmp(json.p + n, want, CRC_TAIL) == 0;
}
