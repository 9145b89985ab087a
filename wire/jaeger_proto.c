/* SPDX-License-Identifier: Apache-2.0
 *
 * jaeger_proto.c - see jaeger_proto.h. A field counts only with the wire type its message gives it.
 */
#include "wire/jaeger_proto.h"

#include "wire/pb.h"

enum { REQUEST_BATCH = 1, BATCH_SPANS = 1, BATCH_PROCESS = 2, SPAN_PROCESS = 10 };

/* A field by its number and wire type in one, for switch. Numbers above any known one stay so. */
#define FIELD(number, wire) ((number) << 3 | (wire))

static uint32_t field_of(const struct pb_field *f)
{
	return FIELD(MIN(f->number, 1000u), (uint32_t)f->wire);
}

/* An id of n bytes into the end of `id`'s; more than that and the empty one give zeros. */
static void read_id(struct bytes in, uint8_t *id, size_t n)
{
	memset(id, 0, n);
	if (in.n <= n && in.n > 0)
		memcpy(id + n - in.n, in.p, in.n);
}

/* 8 bytes or 16. */
static void read_trace_id(struct bytes in, uint8_t id[16])
{
	read_id(in.n == 8 || in.n == 16 ? in : BYTES_EMPTY, id, 16);
}

static void read_span_id(struct bytes in, uint8_t id[8])
{
	read_id(in.n == 8 ? in : BYTES_EMPTY, id, 8);
}

/* Timestamp and Duration alike. */
static int read_time(struct bytes in, int64_t *seconds, int32_t *nanos)
{
	struct pb_field f;
	int rc;

	*seconds = 0;
	*nanos = 0;
	while ((rc = pb_next(&in, &f)) > 0) {
		if (field_of(&f) == FIELD(1, PB_VARINT))
			*seconds = (int64_t)f.value;
		else if (field_of(&f) == FIELD(2, PB_VARINT))
			*nanos = (int32_t)f.value;
	}
	return rc;
}

static int read_timestamp(struct bytes in, uint64_t *ns)
{
	int64_t seconds;
	int32_t nanos;
	int rc = read_time(in, &seconds, &nanos);

	*ns = jaeger_time(seconds, nanos);
	return rc;
}

/* ---- tags ---- */

struct tag_values {
	struct bytes text, binary;
	uint64_t flag, integer, number;
};

static void choose_value(struct jaeger_tag *t, const struct tag_values *v)
{
	switch (t->type) {
	case JAEGER_BOOL:
		t->bits = v->flag != 0;
		return;
	case JAEGER_INT64:
		t->bits = v->integer;
		return;
	case JAEGER_FLOAT64:
		t->bits = v->number;
		return;
	case JAEGER_BINARY:
		t->text = v->binary;
		return;
	default:
		t->text = v->text;
	}
}

static int read_tag(struct bytes in, struct jaeger_tag *t)
{
	struct tag_values v = { 0 };
	struct pb_field f;
	int rc;

	while ((rc = pb_next(&in, &f)) > 0) {
		switch (field_of(&f)) {
		case FIELD(1, PB_LEN):
			t->key = f.data;
			break;
		case FIELD(2, PB_VARINT):
			t->type = (uint32_t)f.value;
			break;
		case FIELD(3, PB_LEN):
			v.text = f.data;
			break;
		case FIELD(4, PB_VARINT):
			v.flag = f.value;
			break;
		case FIELD(5, PB_VARINT):
			v.integer = f.value;
			break;
		case FIELD(6, PB_FIXED64):
			v.number = f.value;
			break;
		case FIELD(7, PB_LEN):
			v.binary = f.data;
			break;
		default:
			break;
		}
	}
	choose_value(t, &v);
	return rc;
}

/* ---- parts of a span ---- */

static int read_process(struct jaeger_batch *b, struct bytes in)
{
	struct jaeger_process *p = jaeger_batch_process(b);
	struct pb_field f;
	int rc;

	while ((rc = pb_next(&in, &f)) > 0) {
		if (field_of(&f) == FIELD(1, PB_LEN))
			p->service = f.data;
		else if (field_of(&f) == FIELD(2, PB_LEN) &&
			 read_tag(f.data, jaeger_batch_process_tag(b)) < 0)
			return -1;
	}
	jaeger_batch_use_process(b);
	return rc;
}

static int read_ref(struct bytes in, struct jaeger_ref *ref)
{
	struct pb_field f;
	int rc;

	while ((rc = pb_next(&in, &f)) > 0) {
		if (field_of(&f) == FIELD(1, PB_LEN))
			read_trace_id(f.data, ref->trace_id);
		else if (field_of(&f) == FIELD(2, PB_LEN))
			read_span_id(f.data, ref->span_id);
		else if (field_of(&f) == FIELD(3, PB_VARINT))
			ref->type = (uint32_t)f.value;
	}
	return rc;
}

static int read_log(struct jaeger_batch *b, struct bytes in)
{
	struct jaeger_log *log = jaeger_batch_log(b);
	struct pb_field f;
	int rc;

	while ((rc = pb_next(&in, &f)) > 0) {
		if (field_of(&f) == FIELD(1, PB_LEN)) {
			if (read_timestamp(f.data, &log->time_ns) < 0)
				return -1;
		} else if (field_of(&f) == FIELD(2, PB_LEN)) {
			if (read_tag(f.data, jaeger_batch_log_tag(b)) < 0)
				return -1;
		}
	}
	return rc;
}

static int read_duration(struct bytes in, int64_t *ns)
{
	int64_t seconds;
	int32_t nanos;
	int rc = read_time(in, &seconds, &nanos);

	*ns = jaeger_duration(seconds, nanos);
	return rc;
}

/* What the ids are, to name what is wrong with them. */
struct id_lengths {
	size_t trace_id, id;
};

/* -1: damaged. */
static int read_span_field(struct jaeger_batch *b, const struct pb_field *f,
			   struct id_lengths *lengths)
{
	struct jaeger_span *sp = &b->span;

	switch (field_of(f)) {
	case FIELD(1, PB_LEN):
		lengths->trace_id = f->data.n;
		read_trace_id(f->data, sp->trace_id);
		return 0;
	case FIELD(2, PB_LEN):
		lengths->id = f->data.n;
		read_span_id(f->data, sp->id);
		return 0;
	case FIELD(3, PB_LEN):
		sp->name = f->data;
		return 0;
	case FIELD(4, PB_LEN):
		return read_ref(f->data, jaeger_batch_ref(b));
	case FIELD(5, PB_VARINT):
		sp->flags = (uint32_t)f->value;
		return 0;
	case FIELD(6, PB_LEN):
		return read_timestamp(f->data, &sp->start_ns);
	case FIELD(7, PB_LEN):
		return read_duration(f->data, &sp->duration_ns);
	case FIELD(8, PB_LEN):
		return read_tag(f->data, jaeger_batch_tag(b));
	case FIELD(9, PB_LEN):
		return read_log(b, f->data);
	case FIELD(12, PB_LEN):
		jaeger_batch_warning(b, f->data);
		return 0;
	default:
		return 0;
	}
}

static bool has_lengths(struct jaeger_batch *b, const struct id_lengths *n)
{
	if (n->trace_id != 8 && n->trace_id != 16)
		jaeger_batch_reject(b, JAEGER_BAD_TRACE_ID, "trace_id: %zu bytes, not 16 or 8",
				    n->trace_id);
	else if (n->id != 8)
		jaeger_batch_reject(b, JAEGER_BAD_SPAN_ID, "span_id: %zu bytes, not 8", n->id);
	else
		return true;
	return false;
}

/* The processes of a request: as read last, and the batch's own. */
struct processes {
	struct bytes used, of_batch;
};

/* Make `process` that of the next span, unless it is so already. */
static int use_process(struct jaeger_batch *b, struct processes *p, struct bytes process)
{
	if (b->resource != NULL && bytes_eq(p->used, process))
		return 0;
	p->used = process;
	return read_process(b, process);
}

static int read_span(struct jaeger_batch *b, struct bytes in, struct processes *p)
{
	struct bytes process = p->of_batch;
	struct id_lengths lengths = { 0, 0 };
	struct pb_field f;
	int rc;

	(void)jaeger_batch_span(b);
	while ((rc = pb_next(&in, &f)) > 0) {
		if (field_of(&f) == FIELD(SPAN_PROCESS, PB_LEN))
			process = f.data;
		else if (read_span_field(b, &f, &lengths) < 0)
			return -1;
	}
	if (rc < 0 || use_process(b, p, process) < 0)
		return -1;
	if (has_lengths(b, &lengths))
		jaeger_batch_add(b);
	return 0;
}

/* The process stands behind the spans. */
static int find_process(struct bytes batch, struct bytes *process)
{
	struct pb_field f;
	int rc;

	while ((rc = pb_next(&batch, &f)) > 0)
		if (field_of(&f) == FIELD(BATCH_PROCESS, PB_LEN))
			*process = f.data;
	return rc;
}

static int read_batch(struct jaeger_batch *b, struct bytes in)
{
	struct processes p = { BYTES_EMPTY, BYTES_EMPTY };
	struct pb_field f;
	int rc;

	if (find_process(in, &p.of_batch) < 0)
		return -1;
	b->resource = NULL;
	while ((rc = pb_next(&in, &f)) > 0 && !meter_is_refused(b->arena->meter))
		if (field_of(&f) == FIELD(BATCH_SPANS, PB_LEN) && read_span(b, f.data, &p) < 0)
			return -1;
	return rc < 0 ? -1 : 0;
}

static int read_request(struct jaeger_batch *b, struct bytes in)
{
	struct pb_field f;
	int rc;

	while ((rc = pb_next(&in, &f)) > 0)
		if (field_of(&f) == FIELD(REQUEST_BATCH, PB_LEN) && read_batch(b, f.data) < 0)
			return -1;
	return rc;
}

static int read_one(struct jaeger_batch *b, struct bytes in)
{
	struct processes p = { BYTES_EMPTY, BYTES_EMPTY };

	return in.n > 0 ? read_span(b, in, &p) : 0;
}

static int decode(int (*read)(struct jaeger_batch *, struct bytes), const char *what,
		  struct bytes in, size_t max_bytes, struct arena *arena, struct buf *out,
		  struct jaeger_result *result, struct err *err)
{
	struct jaeger_batch b;
	int rc;

	jaeger_batch_init(&b, arena, max_bytes, result);
	if (read(&b, in) < 0)
		rc = err_set(err, ERR_INVALID, "jaeger %s: damaged protobuf in or after spans[%zu]",
			     what, result->n_ok + result->n_bad);
	else
		rc = jaeger_batch_encode(&b, out, err);
	jaeger_batch_fini(&b);
	return rc;
}

int jaeger_proto_request(struct bytes in, size_t max_bytes, struct arena *arena, struct buf *out,
			 struct jaeger_result *result, struct err *err)
{
	return decode(read_request, "PostSpansRequest", in, max_bytes, arena, out, result, err);
}

int jaeger_proto_span(struct bytes in, size_t max_bytes, struct arena *arena, struct buf *out,
		      struct jaeger_result *result, struct err *err)
{
	return decode(read_one, "span", in, max_bytes, arena, out, result, err);
}
