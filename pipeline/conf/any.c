/* SPDX-License-Identifier: Apache-2.0
 *
 * any.c - see any.h.
 */
#include "pipeline/conf/any.h"

#include "pipeline/conf/scalar.h"
#include "pipeline/conf/tree.h"
#include "wire/any_value.h"
#include "wire/pb.h"

static void put_scalar(const struct conf_node *n, struct buf *out)
{
	const char *type = conf_tree_type_name(n);
	struct conf_number v = { .real = 0 };

	conf_scalar_type(n->text, &v);
	if (strcmp(type, "bool") == 0)
		pb_put_uint(out, ANY_BOOL, conf_scalar_bool(n->text));
	else if (strcmp(type, "int") == 0)
		pb_put_uint(out, ANY_INT, v.negative ? 0 - v.magnitude : v.magnitude);
	else if (strcmp(type, "float") == 0)
		pb_put_double(out, ANY_DOUBLE, v.real);
	else
		pb_put_str(out, ANY_STRING, n->raw != NULL ? n->raw : n->text);
}

void conf_any_put(const struct conf_node *n, struct buf *out)
{
	struct buf any = BUF_INIT;
	size_t mark;

	if (n == NULL || n->kind == CONF_NULL)
		return;
	if (n->kind == CONF_SCALAR) {
		put_scalar(n, out);
		return;
	}
	mark = pb_begin(out, n->kind == CONF_LIST ? ANY_ARRAY : ANY_KVLIST);
	for (const struct conf_node *c = n->first; c != NULL; c = c->next) {
		buf_reset(&any);
		conf_any_put(c, &any);
		if (n->kind == CONF_LIST)
			pb_put_bytes(out, 1, buf_bytes(&any));
		else
			any_pair_put(out, 1, bytes_str(c->key), buf_bytes(&any));
	}
	pb_end(out, mark);
	buf_fini(&any);
}
