/* SPDX-License-Identifier: Apache-2.0
 *
 * compact_scan.c - see compact_scan.h.
 */
#include "blocks/compact_scan.h"

#include "base/map.h"
#include "base/mem.h"

#include <stdio.h>

struct scanning {
	struct compact_scan *s;
	struct map at; /* id -> index in s->v, plus 1 */
	size_t skip;   /* "<tenant>/" */
};

static struct compact_seen *seen_of(struct scanning *g, const char *id)
{
	struct compact_scan *s = g->s;
	uintptr_t at = (uintptr_t)map_find(&g->at, bytes_str(id));

	/* Mostly objects of a block come one after the other. */
	if (s->n > 0 && strcmp(s->v[s->n - 1].id, id) == 0)
		return &s->v[s->n - 1];
	if (at != 0)
		return &s->v[at - 1];
	s->v = xgrow(s->v, &s->cap, s->n + 1, sizeof(*s->v));
	s->v[s->n] = (struct compact_seen){ .has_data = false };
	snprintf(s->v[s->n].id, COMPACT_ID, "%s", id);
	map_set(&g->at, bytes_str(id), (void *)(uintptr_t)(s->n + 1));
	return &s->v[s->n++];
}

/* What a section or a merge writes before its commit. */
static bool is_block_part(const char *name)
{
	return strcmp(name, "data") == 0 || strcmp(name, "index") == 0 ||
	       strncmp(name, "bloom-", 6) == 0;
}

/* "data", and "data.parquet" of other formats. */
static void note(struct compact_seen *b, const char *name, uint64_t mtime_ns)
{
	b->newest_ns = MAX(b->newest_ns, mtime_ns);
	b->has_data |= strncmp(name, "data", 4) == 0;
	b->has_other |= !is_block_part(name);
	b->is_kept |= strcmp(name, "nocompact.flg") == 0;
	if (strcmp(name, "meta.json") == 0) {
		b->has_meta = true;
		b->meta_ns = mtime_ns;
	} else if (strcmp(name, "meta.compacted.json") == 0) {
		b->has_compacted = true;
		b->compacted_ns = mtime_ns;
		b->meta_ns = b->has_meta ? b->meta_ns : mtime_ns;
	}
}

static int visit(void *arg, const struct backend_entry *e, struct err *err)
{
	struct scanning *g = arg;
	const char *in = e->key + g->skip, *slash = strchr(in, '/');
	char id[COMPACT_ID];

	(void)err;
	if (e->is_prefix)
		return 0;
	g->s->has_index |= strcmp(in, "index.json.gz") == 0;
	if (slash == NULL || slash - in != COMPACT_ID - 1)
		return 0;
	snprintf(id, sizeof(id), "%.36s", in);
	if (strchr(slash + 1, '/') != NULL)
		seen_of(g, id)->has_other = true;
	else
		note(seen_of(g, id), slash + 1, e->mtime_ns);
	return 0;
}

static int by_id(const void *a, const void *b)
{
	return strcmp(((const struct compact_seen *)a)->id, ((const struct compact_seen *)b)->id);
}

int compact_scan(struct backend *be, const char *tenant, struct compact_scan *s, struct err *err)
{
	struct scanning g = { .s = s, .skip = strlen(tenant) + 1 };
	int ret;

	*s = (struct compact_scan){ .v = NULL };
	ret = backend_list(be, tenant, BACKEND_RECURSIVE, visit, &g, err);
	map_fini(&g.at);
	if (ret < 0)
		compact_scan_fini(s);
	else if (s->n > 0)
		qsort(s->v, s->n, sizeof(*s->v), by_id);
	return ret;
}

static int compare_id(const void *id, const void *seen)
{
	return strcmp(id, ((const struct compact_seen *)seen)->id);
}

struct compact_seen *compact_scan_find(const struct compact_scan *s, const char *id)
{
	return s->n > 0 ? bsearch(id, s->v, s->n, sizeof(*s->v), compare_id) : NULL;
}

void compact_scan_fini(struct compact_scan *s)
{
	free(s->v);
	*s = (struct compact_scan){ .v = NULL };
}
