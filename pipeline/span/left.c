/* SPDX-License-Identifier: Apache-2.0
 *
 * left.c - see left.h.
 */
#include "pipeline/span/left.h"

#include "base/mem.h"

#include <pthread.h>

struct entry {
	struct entry *next;
	char *dir;
	struct span_left left;
};

static struct {
	pthread_mutex_t lock;
	struct entry *first;
} table = { .lock = PTHREAD_MUTEX_INITIALIZER };

void span_left_put(const char *dir, uint64_t n, bool is_exact)
{
	struct entry *e = xcalloc(1, sizeof(*e));

	e->dir = xstrdup(dir);
	e->left = (struct span_left){ n, is_exact };
	pthread_mutex_lock(&table.lock);
	e->next = table.first;
	table.first = e;
	pthread_mutex_unlock(&table.lock);
}

struct span_left span_left_take(const char *dir)
{
	struct span_left left = { 0, false };
	struct entry **at, *e;

	pthread_mutex_lock(&table.lock);
	for (at = &table.first; (e = *at) != NULL && strcmp(e->dir, dir) != 0; at = &e->next)
		;
	if (e != NULL)
		*at = e->next;
	pthread_mutex_unlock(&table.lock);
	if (e == NULL)
		return left;
	left = e->left;
	free(e->dir);
	free(e);
	return left;
}

void span_left_forget(void)
{
	struct entry *e;

	pthread_mutex_lock(&table.lock);
	while ((e = table.first) != NULL) {
		table.first = e->next;
		free(e->dir);
		free(e);
	}
	pthread_mutex_unlock(&table.lock);
}

uint64_t span_left_found(struct span_left *left, struct ledger *books, uint64_t n)
{
	uint64_t known = MIN(n, left->n), fresh = left->is_exact ? 0 : n - known;

	left->n -= known;
	ledger_found(books, fresh);
	return known + fresh;
}
