/* SPDX-License-Identifier: Apache-2.0
 *
 * block_columns.c - see block_columns.h.
 */
#include "blocks/block_columns.h"

#include "base/mem.h"

#include <pthread.h>
#include <stdlib.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char *texts[BLOCK_COLUMNS_TEXTS]; /* NULL behind the last */

const char *block_columns_intern(struct bytes json)
{
	const char *found = NULL;

	if (json.n > BLOCK_COLUMNS_BYTES || memchr(json.p, 0, json.n) != NULL)
		return NULL;
	pthread_mutex_lock(&lock);
	for (size_t i = 0; found == NULL && i < BLOCK_COLUMNS_TEXTS; i++) {
		if (texts[i] == NULL) {
			texts[i] = xmalloc(json.n + 1);
			memcpy(texts[i], json.p, json.n);
			texts[i][json.n] = '\0';
		}
		if (strlen(texts[i]) == json.n && memcmp(texts[i], json.p, json.n) == 0)
			found = texts[i];
	}
	pthread_mutex_unlock(&lock);
	return found;
}
