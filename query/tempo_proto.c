/* SPDX-License-Identifier: Apache-2.0
 *
 * tempo_proto.c - see tempo_proto.h. The input was validated when it was combined.
 */
#include "query/tempo_proto.h"

#include "wire/pb.h"

enum { STATUS_PARTIAL = 1 };

/* One message level: fields `child` are rewritten by `write`, the others copied; field `must` is
 * added when missing. */
struct level {
	uint32_t child; /* 0: none */
	uint32_t must;
	const struct level *below;
};

static const struct level span_level = { 0, 15, NULL };
static const struct level scope_level = { 2, 1, &span_level };
static const struct level resource_level = { 2, 1, &scope_level };

/* Depth is that of the three levels above. */
static void write_level(const struct level *l, struct bytes in, struct buf *out)
{
	bool has = false;
	struct pb_field f;

	while (pb_next(&in, &f) > 0) {
		has |= f.number == l->must;
		if (l->child != 0 && f.number == l->child && f.wire == PB_LEN) {
			size_t mark = pb_begin(out, f.number);

			write_level(l->below, f.data, out);
			pb_end(out, mark);
		} else {
			buf_add_bytes(out, f.raw);
		}
	}
	if (!has)
		pb_put_bytes(out, l->must, BYTES_EMPTY);
}

void tempo_proto_trace(struct bytes traces_data, struct buf *out)
{
	struct pb_field f;

	while (pb_next(&traces_data, &f) > 0) {
		size_t mark;

		if (f.number != 1 || f.wire != PB_LEN)
			continue;
		mark = pb_begin(out, 1);
		write_level(&resource_level, f.data, out);
		pb_end(out, mark);
	}
}

/* All but the trace. */
static void write_rest(const struct trace_by_id *t, struct buf *out)
{
	size_t mark = pb_begin(out, 2);

	if (t->inspected_bytes > 0)
		pb_put_uint(out, 1, t->inspected_bytes);
	pb_end(out, mark);
	if (!t->is_complete) {
		pb_put_uint(out, 3, STATUS_PARTIAL);
		pb_put_str(out, 4, t->why);
	}
}

void tempo_proto_response(const struct trace_by_id *t, struct buf *out)
{
	size_t mark = pb_begin(out, 1);

	tempo_proto_trace(buf_bytes(&t->otlp), out);
	pb_end(out, mark);
	write_rest(t, out);
}

void tempo_proto_internal(const struct trace_by_id *t, struct buf *out)
{
	pb_put_bytes(out, 1, buf_bytes(&t->otlp));
	write_rest(t, out);
}
