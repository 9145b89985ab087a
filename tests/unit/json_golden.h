/* SPDX-License-Identifier: Apache-2.0
 *
 * json_golden.h - reading the golden data for the JSON tests: $SPANMILL_GOLDEN or ../shared/golden.
 */
#ifndef TESTS_UNIT_JSON_GOLDEN_H
#define TESTS_UNIT_JSON_GOLDEN_H

#include "base/buf.h"

#include <stdio.h>
#include <stdlib.h>

/* The whole file into b; false when it is not there. */
static inline bool json_golden_read(const char *name, struct buf *b)
{
	const char *root = getenv("SPANMILL_GOLDEN");
	char path[1024];
	uint8_t *to = NULL;
	size_t got = 0;
	FILE *f = NULL;

	snprintf(path, sizeof(path), "%s/%s", root ? root : "../shared/golden", name);
	f = fopen(path, "rb");
	if (f == NULL) {
		static bool said;

		if (!said)
			printf("skipped: no golden data (%s)\n", path);
		said = true;
		return false;
	}
	buf_reset(b);
	do {
		to = buf_reserve(b, 65536);
		got = fread(to, 1, 65536, f);
		b->n += got;
	} while (got > 0);
	fclose(f);
	return true;
}

#endif
