/* SPDX-License-Identifier: Apache-2.0
 *
 * resource.c - see resource.h.
 */
#include "pipeline/edit/resource.h"

#include "wire/pb.h"

enum { RESOURCE_SPANS_RESOURCE = 1, RESOURCE_ATTRIBUTES = 1 };

/* The Resource message, and the other fields of the ResourceSpans behind each other in `rest`. */
static struct bytes split_head(const struct span_tables *t, const struct resource_ref *res,
			       struct buf *rest)
{
	struct bytes message = BYTES_EMPTY;
	struct pb_field f = { 0 };

	buf_reset(rest);
	for (uint32_t i = 0; i < res->n_head; i++)
		for (struct bytes run = t->heads[res->head + i]; pb_next(&run, &f) > 0;) {
			if (f.number == RESOURCE_SPANS_RESOURCE && f.wire == PB_LEN)
				message = f.data;
			else
				buf_add_bytes(rest, f.raw);
		}
	return message;
}

/* The ResourceSpans without its scopes, anew: the edited Resource, then what else there was. */
static void write_head(struct batch *b, uint32_t r, struct attr_edit *e, struct buf *rest)
{
	struct buf head = BUF_INIT;
	struct bytes *fields;
	size_t n, mark;

	fields = attr_edit_fields(e, &n);
	mark = pb_begin(&head, RESOURCE_SPANS_RESOURCE);
	for (size_t i = 0; i < n; i++)
		buf_add_bytes(&head, fields[i]);
	pb_end(&head, mark);
	buf_add_bytes(&head, buf_bytes(rest));
	batch_set_resource(b, r, (struct bytes){ arena_dup(&b->arena, head.p, head.n), head.n });
	buf_fini(&head);
}

struct batch *resource_edit(struct batch *b, resource_edit_fn *fn, void *arg)
{
	struct arena scratch = ARENA_INIT;
	struct buf rest = BUF_INIT;
	struct attr_edit e;

	b = batch_editable(b);
	attr_edit_init(&e, RESOURCE_ATTRIBUTES, &scratch, &b->arena);
	for (uint32_t r = 0; r < b->tables.n_resources; r++) {
		struct bytes message = split_head(&b->tables, &b->tables.resources[r], &rest);

		arena_reset(&scratch);
		attr_edit_start(&e, &message, 1);
		fn(arg, &e);
		if (e.changed)
			write_head(b, r, &e, &rest);
	}
	attr_edit_fini(&e);
	buf_fini(&rest);
	arena_fini(&scratch);
	return b;
}
