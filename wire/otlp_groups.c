/* SPDX-License-Identifier: Apache-2.0
 *
 * otlp_groups.c - see otlp_groups.h.
 */
#include "wire/otlp_groups.h"

#include "wire/pb.h"

/* Of an entry of the map and the allocation of its key. */
enum { GROUP_BYTES = 128 };

/* A run of spans of one scope. */
struct piece {
	struct piece *next;
	size_t off, len;
};

struct otlp_groups_scope {
	struct otlp_groups_scope *next;
	struct bytes message; /* InstrumentationScope, may be empty */
	struct piece *first, *last;
	size_t n_bytes; /* of all pieces */
};

struct otlp_groups_resource {
	struct otlp_groups_resource *next;
	struct bytes message; /* Resource */
	struct otlp_groups_scope *first, *last, *recent;
	uint32_t number;
};

/* Before the message in the key: a letter, and the resource's number for a scope. */
enum { RESOURCE_HEAD = 1, SCOPE_HEAD = 1 + sizeof(uint32_t) };

void otlp_groups_init(struct otlp_groups *g, struct arena *arena, size_t max_bytes)
{
	*g = (struct otlp_groups){ .arena = arena,
				   .spans = { .max = max_bytes, .meter = arena->meter } };
}

/* ---- look-up ---- */

static struct bytes arena_copy(struct arena *a, struct bytes s)
{
	return (struct bytes){ arena_dup(a, s.p, s.n), s.n };
}

static struct bytes message_of(const struct otlp_groups *g, size_t head)
{
	return (struct bytes){ g->key.p + head, g->key.n - head };
}

static void enter(struct otlp_groups *g, void *group)
{
	meter_force(g->arena->meter, GROUP_BYTES + g->key.n);
	map_set(&g->by_bytes, buf_bytes(&g->key), group);
}

struct buf *otlp_groups_resource_begin(struct otlp_groups *g)
{
	buf_reset(&g->key);
	buf_add_char(&g->key, 'r');
	return &g->key;
}

static struct otlp_groups_resource *new_resource(struct otlp_groups *g)
{
	struct otlp_groups_resource *rs = arena_zalloc(g->arena, sizeof(*rs));

	rs->message = arena_copy(g->arena, message_of(g, RESOURCE_HEAD));
	rs->number = g->last ? g->last->number + 1 : 0;
	enter(g, rs);
	if (g->last != NULL)
		g->last->next = rs;
	else
		g->first = rs;
	g->last = rs;
	return rs;
}

struct otlp_groups_resource *otlp_groups_resource_end(struct otlp_groups *g)
{
	struct otlp_groups_resource *rs = g->recent;

	if (rs != NULL && bytes_eq(rs->message, message_of(g, RESOURCE_HEAD)))
		return rs;
	rs = map_find(&g->by_bytes, buf_bytes(&g->key));
	if (rs == NULL)
		rs = new_resource(g);
	g->recent = rs;
	return rs;
}

struct buf *otlp_groups_scope_begin(struct otlp_groups *g, const struct otlp_groups_resource *rs)
{
	buf_reset(&g->key);
	buf_add_char(&g->key, 's');
	buf_add(&g->key, &rs->number, sizeof(rs->number));
	return &g->key;
}

static struct otlp_groups_scope *new_scope(struct otlp_groups *g, struct otlp_groups_resource *rs)
{
	struct otlp_groups_scope *sg = arena_zalloc(g->arena, sizeof(*sg));

	sg->message = arena_copy(g->arena, message_of(g, SCOPE_HEAD));
	enter(g, sg);
	if (rs->last != NULL)
		rs->last->next = sg;
	else
		rs->first = sg;
	rs->last = sg;
	return sg;
}

struct otlp_groups_scope *otlp_groups_scope_end(struct otlp_groups *g,
						struct otlp_groups_resource *rs)
{
	struct otlp_groups_scope *sg = rs->recent;

	if (sg != NULL && bytes_eq(sg->message, message_of(g, SCOPE_HEAD)))
		return sg;
	sg = map_find(&g->by_bytes, buf_bytes(&g->key));
	if (sg == NULL)
		sg = new_scope(g, rs);
	rs->recent = sg;
	return sg;
}

void otlp_groups_add(struct otlp_groups *g, struct otlp_groups_scope *sg, size_t off)
{
	struct piece *p = sg->last;
	size_t len = g->spans.n - off;

	if (g->spans.overflow)
		return;
	sg->n_bytes += len;
	if (p != NULL && p->off + p->len == off) {
		p->len += len;
		return;
	}
	p = arena_alloc(g->arena, sizeof(*p));
	*p = (struct piece){ .off = off, .len = len };
	if (sg->last != NULL)
		sg->last->next = p;
	else
		sg->first = p;
	sg->last = p;
}

/* ---- the request ---- */

static size_t field_size(size_t n)
{
	return 1 + pb_varint_size(n) + n;
}

static size_t scope_spans_size(const struct otlp_groups_scope *sg)
{
	return (sg->message.n > 0 ? field_size(sg->message.n) : 0) + sg->n_bytes;
}

static size_t resource_spans_size(const struct otlp_groups_resource *rs)
{
	size_t n = field_size(rs->message.n);

	for (const struct otlp_groups_scope *sg = rs->first; sg != NULL; sg = sg->next)
		n += field_size(scope_spans_size(sg));
	return n;
}

static void put_head(struct buf *out, uint32_t number, size_t n)
{
	pb_put_tag(out, number, PB_LEN);
	pb_put_varint(out, n);
}

static void write_resource_spans(const struct otlp_groups *g, const struct otlp_groups_resource *rs,
				 struct buf *out)
{
	put_head(out, 1, resource_spans_size(rs));
	pb_put_bytes(out, 1, rs->message);
	for (const struct otlp_groups_scope *sg = rs->first; sg != NULL; sg = sg->next) {
		put_head(out, 2, scope_spans_size(sg));
		if (sg->message.n > 0)
			pb_put_bytes(out, 1, sg->message);
		for (const struct piece *p = sg->first; p != NULL; p = p->next)
			buf_add(out, g->spans.p + p->off, p->len);
	}
}

int otlp_groups_encode(struct otlp_groups *g, const char *what, struct buf *out, struct err *err)
{
	size_t start = out->n, max = g->spans.max, n = 0;
	bool overflow = g->spans.overflow, outer = out->overflow;

	for (const struct otlp_groups_resource *rs = g->first; rs != NULL; rs = rs->next)
		if (rs->first != NULL)
			n += field_size(resource_spans_size(rs));
	/* Room at once: it is as large as all spans together. */
	if (!overflow && (max == 0 || n <= max) && (n == 0 || buf_reserve(out, n) != NULL)) {
		for (const struct otlp_groups_resource *rs = g->first; rs != NULL; rs = rs->next)
			if (rs->first != NULL)
				write_resource_spans(g, rs, out);
		assert(out->n == start + n);
		return 0;
	}
	out->overflow = outer;
	return err_set(err, ERR_TOO_LARGE, "%s: spans are larger than %zu bytes as OTLP", what,
		       max > 0 ? max : out->max);
}

void otlp_groups_fini(struct otlp_groups *g)
{
	buf_fini(&g->spans);
	buf_fini(&g->key);
	map_fini(&g->by_bytes);
}
