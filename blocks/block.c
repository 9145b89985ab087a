/* SPDX-License-Identifier: Apache-2.0
 *
 * block.c - see block.h.
 */
#include "blocks/block.h"

int block_key(char out[BACKEND_KEY_MAX + 1], const char *tenant, const char *id, const char *name,
	      struct err *err)
{
	return backend_key(out, err, "%s/%s/%s", tenant, id, name);
}

int block_read_meta(struct backend *be, const char *tenant, const char *id, const char *name,
		    struct block_meta *m, struct err *err)
{
	char key[BACKEND_KEY_MAX + 1];
	struct buf json = BUF_INIT;
	int ret = -1;

	if (block_key(key, tenant, id, name, err) < 0 ||
	    backend_read(be, key, BLOCK_META_MAX, &json, err) < 0)
		goto out;
	if (block_meta_parse(buf_bytes(&json), m, err) < 0) {
		err_wrap(err, "block %s", id);
		goto out;
	}
	if (strcmp(m->tenant, tenant) != 0 || strcmp(m->id, id) != 0) {
		err_set(err, ERR_INVALID, "block %s: %s says it is block %s of tenant %.100s", id,
			name, m->id, m->tenant);
		goto out;
	}
	ret = 0;
out:
	buf_fini(&json);
	return ret;
}

int block_publish(struct backend *be, const struct block_meta *m, struct err *err)
{
	char key[BACKEND_KEY_MAX + 1];
	struct buf json = BUF_INIT;
	struct json_writer w = JSON_WRITER(&json);
	struct err lost = ERR_INIT;
	int ret = -1;

	if (block_key(key, m->tenant, m->id, "meta.json", err) < 0)
		return -1;
	block_meta_encode(m, &w);
	ret = backend_put(be, key, buf_bytes(&json), BACKEND_IF_NONE_MATCH, &lost);
	if (ret < 0 && lost.kind == ERR_EXISTS)
		ret = 0;
	else if (ret < 0 && err != NULL)
		*err = lost;
	buf_fini(&json);
	return ret;
}

int block_mark_compacted(struct backend *be, const char *tenant, const char *id, struct err *err)
{
	char from[BACKEND_KEY_MAX + 1], to[BACKEND_KEY_MAX + 1];

	if (block_key(from, tenant, id, "meta.json", err) < 0 ||
	    block_key(to, tenant, id, "meta.compacted.json", err) < 0)
		return -1;
	return backend_rename(be, from, to, err);
}

static int delete_entry(void *arg, const struct backend_entry *e, struct err *err)
{
	return e->is_prefix ? 0 : backend_delete(arg, e->key, err);
}

int block_delete(struct backend *be, const char *tenant, const char *id, struct err *err)
{
	/* First the names that make it visible: a reader must not find a block without its data. */
	static const char *const first[] = { "meta.json", "meta.compacted.json" };
	char key[BACKEND_KEY_MAX + 1];

	for (size_t i = 0; i < COUNT_OF(first); i++)
		if (block_key(key, tenant, id, first[i], err) < 0 ||
		    backend_delete(be, key, err) < 0)
			return -1;
	if (backend_key(key, err, "%s/%s", tenant, id) < 0)
		return -1;
	return backend_list(be, key, BACKEND_ONE_LEVEL, delete_entry, be, err);
}
