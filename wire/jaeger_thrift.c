/* SPDX-License-Identifier: Apache-2.0
 *
 * jaeger_thrift.c - see jaeger_thrift.h. A field counts only with the type the IDL gives it.
 */
#include "wire/jaeger_thrift.h"

enum { ARGUMENT = 1, BATCH_PROCESS = 1, BATCH_SPANS = 2 };

/* A field by its id and type in one number, for switch. */
#define FIELD(id, type) ((uint32_t)(uint16_t)(id) << 8 | (type))

static uint32_t field_of(const struct thrift_field *f)
{
	return FIELD(f->id, f->type);
}

/* Enter the list if its elements are structs; else it is skipped and empty. */
static struct thrift_list structs(struct thrift_reader *r)
{
	struct thrift_list l = thrift_list(r);

	if (LIKELY(l.n == 0 || l.type == THRIFT_STRUCT))
		return l;
	thrift_fail(r, "a list of structs has elements of type", l.type);
	return (struct thrift_list){ THRIFT_STRUCT, 0 };
}

/* ---- tags ---- */

/* The IDL's types (not the protobuf ones) to ours; unknown ones stay as they are, out of the way
 * of those that are known. */
static uint32_t tag_type(int32_t type)
{
	static const uint8_t known[] = { JAEGER_STRING, JAEGER_FLOAT64, JAEGER_BOOL, JAEGER_INT64,
					 JAEGER_BINARY };

	return type >= 0 && (size_t)type < COUNT_OF(known) ? known[type] : (uint32_t)type;
}

struct tag_values {
	struct bytes text, binary;
	double number;
	int64_t integer;
	bool flag;
};

static void choose_value(struct jaeger_tag *t, const struct tag_values *v)
{
	switch (t->type) {
	case JAEGER_BOOL:
		t->bits = v->flag;
		return;
	case JAEGER_INT64:
		t->bits = (uint64_t)v->integer;
		return;
	case JAEGER_FLOAT64:
		memcpy(&t->bits, &v->number, sizeof(t->bits));
		return;
	case JAEGER_BINARY:
		t->text = v->binary;
		return;
	default:
		t->text = v->text;
	}
}

static void read_tag(struct thrift_reader *r, struct jaeger_tag *t)
{
	struct tag_values v = { 0 };
	struct thrift_field f;

	thrift_struct(r);
	while (thrift_field(r, &f)) {
		switch (field_of(&f)) {
		case FIELD(1, THRIFT_STRING):
			t->key = thrift_string(r);
			break;
		case FIELD(2, THRIFT_I32):
			t->type = tag_type(thrift_i32(r));
			break;
		case FIELD(3, THRIFT_STRING):
			v.text = thrift_string(r);
			break;
		case FIELD(4, THRIFT_DOUBLE):
			v.number = thrift_double(r);
			break;
		case FIELD(5, THRIFT_BOOL):
			v.flag = thrift_bool(r);
			break;
		case FIELD(6, THRIFT_I64):
			v.integer = thrift_i64(r);
			break;
		case FIELD(7, THRIFT_STRING):
			v.binary = thrift_string(r);
			break;
		default:
			thrift_skip(r, f.type);
		}
	}
	choose_value(t, &v);
}

/* ---- the span's lists ---- */

static void read_process(struct jaeger_batch *b, struct thrift_reader *r)
{
	struct jaeger_process *p = jaeger_batch_process(b);
	struct thrift_field f;
	struct thrift_list l;

	thrift_struct(r);
	while (thrift_field(r, &f)) {
		switch (field_of(&f)) {
		case FIELD(1, THRIFT_STRING):
			p->service = thrift_string(r);
			break;
		case FIELD(2, THRIFT_LIST):
			l = structs(r);
			while (thrift_element(r, &l))
				read_tag(r, jaeger_batch_process_tag(b));
			break;
		default:
			thrift_skip(r, f.type);
		}
	}
}

static void read_ref(struct jaeger_batch *b, struct thrift_reader *r)
{
	struct jaeger_ref *ref = jaeger_batch_ref(b);
	struct thrift_field f;

	thrift_struct(r);
	while (thrift_field(r, &f)) {
		switch (field_of(&f)) {
		case FIELD(1, THRIFT_I32):
			ref->type = (uint32_t)thrift_i32(r);
			break;
		case FIELD(2, THRIFT_I64):
			store_be64(ref->trace_id + 8, (uint64_t)thrift_i64(r));
			break;
		case FIELD(3, THRIFT_I64):
			store_be64(ref->trace_id, (uint64_t)thrift_i64(r));
			break;
		case FIELD(4, THRIFT_I64):
			store_be64(ref->span_id, (uint64_t)thrift_i64(r));
			break;
		default:
			thrift_skip(r, f.type);
		}
	}
}

static void read_log(struct jaeger_batch *b, struct thrift_reader *r)
{
	size_t at = b->span.n_logs;
	struct thrift_field f;
	struct thrift_list l;

	(void)jaeger_batch_log(b);
	thrift_struct(r);
	while (thrift_field(r, &f)) {
		switch (field_of(&f)) {
		case FIELD(1, THRIFT_I64):
			b->span.logs[at].time_ns = jaeger_time_us(thrift_i64(r));
			break;
		case FIELD(2, THRIFT_LIST):
			l = structs(r);
			while (thrift_element(r, &l))
				read_tag(r, jaeger_batch_log_tag(b));
			break;
		default:
			thrift_skip(r, f.type);
		}
	}
}

/* ---- the span ---- */

static void read_refs(struct jaeger_batch *b, struct thrift_reader *r)
{
	struct thrift_list l = structs(r);

	while (thrift_element(r, &l))
		read_ref(b, r);
}

static void read_tags(struct jaeger_batch *b, struct thrift_reader *r)
{
	struct thrift_list l = structs(r);

	while (thrift_element(r, &l))
		read_tag(r, jaeger_batch_tag(b));
}

static void read_logs(struct jaeger_batch *b, struct thrift_reader *r)
{
	struct thrift_list l = structs(r);

	while (thrift_element(r, &l))
		read_log(b, r);
}

static void read_id(struct thrift_reader *r, uint8_t id[8])
{
	store_be64(id, (uint64_t)thrift_i64(r));
}

static int64_t us_to_ns(int64_t us)
{
	return jaeger_duration(us / 1000000, us % 1000000 * 1000);
}

static void read_span_field(struct jaeger_batch *b, struct thrift_reader *r,
			    const struct thrift_field *f)
{
	struct jaeger_span *sp = &b->span;

	switch (field_of(f)) {
	case FIELD(1, THRIFT_I64):
		read_id(r, sp->trace_id + 8);
		return;
	case FIELD(2, THRIFT_I64):
		read_id(r, sp->trace_id);
		return;
	case FIELD(3, THRIFT_I64):
		read_id(r, sp->id);
		return;
	case FIELD(4, THRIFT_I64):
		read_id(r, sp->parent_id);
		return;
	case FIELD(5, THRIFT_STRING):
		sp->name = thrift_string(r);
		return;
	case FIELD(6, THRIFT_LIST):
		read_refs(b, r);
		return;
	case FIELD(7, THRIFT_I32):
		sp->flags = (uint32_t)thrift_i32(r);
		return;
	case FIELD(8, THRIFT_I64):
		sp->start_ns = jaeger_time_us(thrift_i64(r));
		return;
	case FIELD(9, THRIFT_I64):
		sp->duration_ns = us_to_ns(thrift_i64(r));
		return;
	case FIELD(10, THRIFT_LIST):
		read_tags(b, r);
		return;
	case FIELD(11, THRIFT_LIST):
		read_logs(b, r);
		return;
	default:
		thrift_skip(r, f->type);
	}
}

static void read_spans(struct jaeger_batch *b, struct thrift_reader *r)
{
	struct thrift_list l = structs(r);
	struct thrift_field f;

	while (thrift_element(r, &l) && !meter_is_refused(b->arena->meter)) {
		(void)jaeger_batch_span(b);
		thrift_struct(r);
		while (thrift_field(r, &f))
			read_span_field(b, r, &f);
		if (r->why == NULL)
			jaeger_batch_add(b);
	}
}

/* ---- batch, message ---- */

/* The process comes first in what clients write; where it does not, the spans are read again when
 * it is known. */
static void read_batch(struct jaeger_batch *b, struct thrift_reader *r)
{
	struct thrift_reader spans = { .p = NULL };
	bool has_process = false;
	struct thrift_field f;

	(void)jaeger_batch_process(b);
	jaeger_batch_use_process(b);
	thrift_struct(r);
	while (thrift_field(r, &f)) {
		if (field_of(&f) == FIELD(BATCH_PROCESS, THRIFT_STRUCT)) {
			read_process(b, r);
			jaeger_batch_use_process(b);
			has_process = true;
		} else if (field_of(&f) == FIELD(BATCH_SPANS, THRIFT_LIST) && has_process) {
			read_spans(b, r);
		} else {
			if (field_of(&f) == FIELD(BATCH_SPANS, THRIFT_LIST))
				spans = *r;
			thrift_skip(r, f.type);
		}
	}
	if (spans.p != NULL && r->why == NULL)
		read_spans(b, &spans);
}

int jaeger_thrift_batch(struct thrift_reader *r, size_t max_bytes, struct arena *arena,
			struct buf *out, struct jaeger_result *result, struct err *err)
{
	struct jaeger_batch b;
	int rc;

	jaeger_batch_init(&b, arena, max_bytes, result);
	read_batch(&b, r);
	rc = thrift_failed(r, err);
	if (rc == 0)
		rc = jaeger_batch_encode(&b, out, err);
	else
		err_wrap(err, "jaeger batch");
	jaeger_batch_fini(&b);
	return rc;
}

static int method_of(struct bytes name, enum jaeger_method *method, struct err *err)
{
	if (bytes_eq_str(name, "emitBatch"))
		*method = JAEGER_EMIT_BATCH;
	else if (bytes_eq_str(name, "emitZipkinBatch"))
		*method = JAEGER_EMIT_ZIPKIN_BATCH;
	else
		return err_set(err, ERR_UNIMPLEMENTED,
			       "jaeger message: method \"%.*s\" is not the agent's: emitBatch or "
			       "emitZipkinBatch wanted",
			       (int)MIN(name.n, (size_t)40), (const char *)name.p);
	return 0;
}

int jaeger_thrift_message(struct thrift_reader *r, enum jaeger_method *method, struct err *err)
{
	struct thrift_message m;
	struct thrift_field f;
	enum thrift_type want;

	thrift_message(r, &m);
	if (thrift_failed(r, err) < 0)
		return err_wrap(err, "jaeger message");
	if (method_of(m.name, method, err) < 0)
		return -1;
	want = *method == JAEGER_EMIT_BATCH ? THRIFT_STRUCT : THRIFT_LIST;
	thrift_struct(r);
	while (thrift_field(r, &f)) {
		if (f.id == ARGUMENT && f.type == want)
			return 0;
		thrift_skip(r, f.type);
	}
	if (thrift_failed(r, err) < 0)
		return err_wrap(err, "jaeger message");
	return err_set(err, ERR_INVALID, "jaeger message: %.*s without its argument", (int)m.name.n,
		       (const char *)m.name.p);
}
