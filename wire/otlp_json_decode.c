/* SPDX-License-Identifier: Apache-2.0
 *
 * otlp_json_decode.c - see otlp_json_decode.h.
 *
 * DESIGN: members are written as they come. For each open message the runs of equal field numbers
 * are remembered; only when they did not come in number order does the end of the message sort the
 * runs, by one copy through a scratch buffer. SDKs write in order, so this is rare.
 *
 *	out:   ..tag len | name(5) | attributes(9) attributes(9) | kind(6) |
 *	runs:            ^5        ^9                            ^6          -> 5 6 9
 *
 * LIMITS: runs are at most one per member, 24 bytes each; a message moves at most twice per level
 * (order, length), levels are bounded, so time is linear in the text.
 */
#include "wire/otlp_json_decode.h"

#include "base/mem.h"
#include "base/str.h"
#include "wire/json_reader.h"
#include "wire/otlp_index.h"
#include "wire/otlp_json_schema.h"
#include "wire/pb.h"

#include <inttypes.h>

/* A stretch of the output that holds one field. */
struct run {
	size_t off, len;
	uint16_t number;
	bool old;	/* came under old_name: dropped when `name` came too */
};

struct decoder {
	struct json_reader r;
	struct buf *out;
	struct buf scratch;
	struct run *runs;	/* a stack: those of the innermost message are last */
	size_t n_runs, cap_runs;
	unsigned any_depth;
	struct err *err;
};

static int decode_message(struct decoder *d, const struct otlp_json_message *m);

static int wrong(struct decoder *d, const struct otlp_json_field *f, const struct json_value *v,
		 const char *want)
{
	if (v->kind == JSON_STRING || v->kind == JSON_NUMBER)
		return err_set(d->err, ERR_INVALID,
			       "otlp json: byte %zu: %s: expected %s, got %s%.*s%s",
			       v->off, f->name, want, v->kind == JSON_STRING ? "\"" : "",
			       (int)MIN(v->text.n, (size_t)40), (const char *)v->text.p,
			       v->kind == JSON_STRING ? "\"" : "");
	return err_set(d->err, ERR_INVALID, "otlp json: byte %zu: %s: expected %s, got %s", v->off,
		       f->name, want, json_reader_kind_name(v->kind));
}

static bool has_name(struct bytes key, const char *name)
{
	return name != NULL && key.n > 0 && key.p[0] == (uint8_t)name[0] && bytes_eq_str(key, name);
}

/* The field of that key, NULL when unknown. *hint is where to look first: members come in order. */
static const struct otlp_json_field *find_field(const struct otlp_json_message *m, struct bytes key,
						size_t *hint, bool *old)
{
	for (size_t i = 0; i < m->n_fields; i++) {
		size_t at = (*hint + i) % m->n_fields;
		const struct otlp_json_field *f = &m->fields[at];

		*old = false;
		if (has_name(key, f->name) || has_name(key, f->snake)) {
			*hint = at + 1;
			return f;
		}
		*old = true;
		if (has_name(key, f->old_name) || has_name(key, f->old_snake))
			return f;
	}
	return NULL;
}

static void put_id(struct decoder *d, uint32_t number, struct bytes hex)
{
	uint8_t *raw;

	if (hex.n == 0)
		return;
	raw = arena_alloc(d->r.arena, hex.n / 2 + 1);
	if (hex.n % 2 == 0 && str_unhex(hex, raw, hex.n / 2) == 0)
		pb_put_bytes(d->out, number, (struct bytes){ raw, hex.n / 2 });
	else
		pb_put_bytes(d->out, number, BYTES_LIT("\0"));
}

static int put_base64(struct decoder *d, const struct otlp_json_field *f,
		      const struct json_value *v, bool keep_zero)
{
	uint8_t *raw = arena_alloc(d->r.arena, 3 * (v->text.n / 4) + 3);
	long n = str_unbase64(v->text, raw);

	if (n < 0)
		return wrong(d, f, v, "base64");
	if (n > 0 || keep_zero)
		pb_put_bytes(d->out, f->number, (struct bytes){ raw, (size_t)n });
	return 0;
}

static int put_text(struct decoder *d, const struct otlp_json_field *f, const struct json_value *v,
		    bool keep_zero)
{
	if (v->kind != JSON_STRING)
		return wrong(d, f, v, "a string");
	if (f->type == OTLP_BYTES)
		return put_base64(d, f, v, keep_zero);
	if (f->type == OTLP_ID)
		put_id(d, f->number, v->text);
	else if (v->text.n > 0 || keep_zero)
		pb_put_bytes(d->out, f->number, v->text);
	return 0;
}

static int put_enum(struct decoder *d, const struct otlp_json_field *f, const struct json_value *v)
{
	int64_t n = 0;

	if (json_reader_i64(v, &n) < 0) {
		if (v->kind != JSON_STRING)
			return wrong(d, f, v, "an integer");
		for (int i = 0; f->names[i] != NULL; i++)
			if (bytes_eq_str(v->text, f->names[i]))
				n = i;
	}
	if (n < INT32_MIN || n > INT32_MAX)
		return wrong(d, f, v, "a 32-bit integer");
	if (n != 0)
		pb_put_uint(d->out, f->number, (uint64_t)n);
	return 0;
}

static int put_unsigned(struct decoder *d, const struct otlp_json_field *f,
			const struct json_value *v)
{
	bool is_long = f->type == OTLP_FIXED64 || f->type == OTLP_UINT64;
	uint64_t n = 0;

	if (json_reader_u64(v, &n) < 0 || (!is_long && n > UINT32_MAX))
		return wrong(d, f, v,
			     is_long ? "an unsigned integer" : "an unsigned 32-bit integer");
	if (n == 0)
		return 0;
	if (f->type == OTLP_FIXED64)
		pb_put_fixed64(d->out, f->number, n);
	else if (f->type == OTLP_FIXED32)
		pb_put_fixed32(d->out, f->number, (uint32_t)n);
	else
		pb_put_uint(d->out, f->number, n);
	return 0;
}

static bool is_zero_double(double x)
{
	static const double zero = 0;

	return memcmp(&x, &zero, sizeof(x)) == 0; /* -0.0 is a value */
}

static int put_signed(struct decoder *d, const struct otlp_json_field *f,
		      const struct json_value *v, bool keep_zero)
{
	int64_t n = 0;

	if (json_reader_i64(v, &n) < 0)
		return wrong(d, f, v, "a 64-bit integer");
	if (f->type == OTLP_SINT32 && (n < INT32_MIN || n > INT32_MAX))
		return wrong(d, f, v, "a 32-bit integer");
	if (n == 0 && !keep_zero)
		return 0;
	if (f->type == OTLP_SFIXED64)
		pb_put_fixed64(d->out, f->number, (uint64_t)n);
	else if (f->type == OTLP_SINT32)
		pb_put_uint(d->out, f->number, pb_zigzag(n));
	else
		pb_put_uint(d->out, f->number, (uint64_t)n);
	return 0;
}

/* Scalars that are members of a oneof, or may be absent, are written also when they are zero. */
static int put_scalar(struct decoder *d, const struct otlp_json_field *f,
		      const struct json_value *v, bool keep_zero)
{
	double x = 0;

	if (f->type == OTLP_BOOL) {
		if (v->kind != JSON_TRUE && v->kind != JSON_FALSE)
			return wrong(d, f, v, "true or false");
		if (v->kind == JSON_TRUE || keep_zero)
			pb_put_uint(d->out, f->number, v->kind == JSON_TRUE);
	} else if (f->type == OTLP_DOUBLE) {
		if (json_reader_double(v, &x) < 0)
			return wrong(d, f, v, "a number");
		if (keep_zero || !is_zero_double(x))
			pb_put_double(d->out, f->number, x);
	} else {
		return put_signed(d, f, v, keep_zero);
	}
	return 0;
}

/* One nested message; null is an empty one. */
static int put_message(struct decoder *d, const struct otlp_json_field *f,
		       const struct json_value *v)
{
	size_t mark = pb_begin(d->out, f->number);

	if (v->kind == JSON_OBJECT) {
		if (decode_message(d, f->message) < 0)
			return -1;
	} else if (v->kind != JSON_NULL) {
		return wrong(d, f, v, "an object");
	}
	pb_end(d->out, mark);
	return 0;
}

static int put_value(struct decoder *d, const struct otlp_json_field *f, const struct json_value *v,
		     bool keep_zero)
{
	switch (f->type) {
	case OTLP_STRING:
	case OTLP_ID:
	case OTLP_BYTES:
		return put_text(d, f, v, keep_zero);
	case OTLP_ENUM:
		return put_enum(d, f, v);
	case OTLP_UINT32:
	case OTLP_FIXED32:
	case OTLP_FIXED64:
	case OTLP_UINT64:
		return put_unsigned(d, f, v);
	case OTLP_MESSAGE:
		return put_message(d, f, v);
	default:
		return put_scalar(d, f, v, keep_zero);
	}
}

/* Numbers of a packed field, behind each other: counts and bounds. */
static int put_packed_element(struct decoder *d, const struct otlp_json_field *f,
			      const struct json_value *v)
{
	uint8_t raw[8];
	uint64_t n = 0;
	double x = 0;

	if (f->type == OTLP_DOUBLE) {
		if (json_reader_double(v, &x) < 0)
			return wrong(d, f, v, "a number");
		memcpy(&n, &x, sizeof(n));
	} else if (json_reader_u64(v, &n) < 0) {
		return wrong(d, f, v, "an unsigned integer");
	}
	if (f->type == OTLP_UINT64) {
		pb_put_varint(d->out, n);
		return 0;
	}
	store_le64(raw, n);
	buf_add(d->out, raw, sizeof(raw));
	return 0;
}

static int put_packed(struct decoder *d, const struct otlp_json_field *f,
		      const struct json_value *v)
{
	size_t start = d->out->n, mark = pb_begin(d->out, f->number), first = d->out->n;
	struct json_value e;
	int rc = 0;

	if (v->kind != JSON_ARRAY)
		return wrong(d, f, v, "an array");
	while ((rc = json_reader_element(&d->r, &e, d->err)) > 0)
		if (put_packed_element(d, f, &e) < 0)
			return -1;
	if (d->out->n == first)
		d->out->n = start; /* an empty list is none */
	else
		pb_end(d->out, mark);
	return rc;
}

static int put_list(struct decoder *d, const struct otlp_json_field *f, const struct json_value *v)
{
	struct json_value e;
	int rc = 0;

	if (v->kind != JSON_ARRAY)
		return wrong(d, f, v, "an array");
	while ((rc = json_reader_element(&d->r, &e, d->err)) > 0)
		if (put_value(d, f, &e, true) < 0)
			return -1;
	return rc;
}

/* From here on the output holds field f. Returns the run, or NULL when the last one goes on. */
static void open_run(struct decoder *d, size_t first_run, const struct otlp_json_field *f, bool old)
{
	struct run *last = d->n_runs > first_run ? &d->runs[d->n_runs - 1] : NULL;

	if (last != NULL && last->number == f->number && last->old == old)
		return;
	if (d->n_runs == d->cap_runs)
		d->runs = meter_grow(d->r.arena->meter, d->runs, &d->cap_runs, d->n_runs + 1,
				     sizeof(*d->runs));
	d->runs[d->n_runs++] = (struct run){ .off = d->out->n, .number = f->number, .old = old };
}

static int by_number(const void *a, const void *b)
{
	const struct run *x = a, *y = b;

	if (x->number != y->number)
		return x->number < y->number ? -1 : 1;
	return x->off < y->off ? -1 : x->off > y->off;
}

/* The message that starts at `start` is complete: bring its fields into number order. */
static void settle_runs(struct decoder *d, size_t first_run, size_t start)
{
	size_t n = d->n_runs - first_run;
	struct run *runs = n > 0 ? d->runs + first_run : NULL;
	uint32_t brought = 0;	/* numbers that came under their name of today */
	bool in_order = true;

	d->n_runs = first_run;
	if (d->out->overflow)
		return;
	for (size_t i = 0; i < n; i++) {
		runs[i].len = (i + 1 < n ? runs[i + 1].off : d->out->n) - runs[i].off;
		in_order &= !runs[i].old && (i == 0 || runs[i - 1].number < runs[i].number);
		if (!runs[i].old && runs[i].len > 0)
			brought |= 1u << runs[i].number;
	}
	if (in_order)
		return;
	qsort(runs, n, sizeof(*runs), by_number);
	buf_reset(&d->scratch);
	for (size_t i = 0; i < n; i++)
		if (!runs[i].old || !(brought >> runs[i].number & 1))
			buf_add(&d->scratch, d->out->p + runs[i].off, runs[i].len);
	if (d->scratch.overflow) {	/* the meter refused it */
		d->out->overflow = true;
		return;
	}
	d->out->n = start;
	buf_add_bytes(d->out, buf_bytes(&d->scratch));
}

static int decode_members(struct decoder *d, const struct otlp_json_message *m, size_t first_run,
			  size_t start)
{
	struct json_value v;
	size_t hint = 0;
	int rc = 0;

	while ((rc = json_reader_member(&d->r, &v, d->err)) > 0) {
		bool old = false;
		const struct otlp_json_field *f = find_field(m, v.key, &hint, &old);

		if (UNLIKELY(meter_is_refused(d->r.arena->meter)))
			return err_set(d->err, ERR_EXHAUSTED, "otlp json: memory budget spent");
		if (f == NULL || v.kind == JSON_NULL) {
			if (json_reader_skip(&d->r, &v, d->err) < 0)
				return -1;
			continue;
		}
		if (m->oneof)
			d->out->n = start;	/* the last member wins */
		else
			open_run(d, first_run, f, old);
		if ((f->packed     ? put_packed(d, f, &v)
		     : f->repeated ? put_list(d, f, &v)
				   : put_value(d, f, &v, m->oneof || f->presence)) < 0)
			return -1;
	}
	return rc;
}

/* The message whose object was just opened, written at the end of the output. */
static int decode_message(struct decoder *d, const struct otlp_json_message *m)
{
	size_t first_run = d->n_runs, start = d->out->n;

	if (m->oneof && d->any_depth++ > OTLP_MAX_DEPTH)
		return err_set(d->err, ERR_INVALID,
			       "otlp json: byte %zu: values nested deeper than %d",
			       (size_t)(d->r.p - d->r.start), OTLP_MAX_DEPTH);
	if (decode_members(d, m, first_run, start) < 0)
		return -1;
	d->any_depth -= m->oneof;
	settle_runs(d, first_run, start);
	return 0;
}

static int decode_text(struct decoder *d, const struct otlp_json_message *root)
{
	struct json_value v;

	if (json_reader_value(&d->r, &v, d->err) < 0)
		return -1;
	if (v.kind != JSON_OBJECT)
		return err_set(d->err, ERR_INVALID, "otlp json: expected an object, got %s",
			       json_reader_kind_name(v.kind));
	if (decode_message(d, root) < 0)
		return -1;
	return json_reader_end(&d->r, d->err);
}

int otlp_json_decode(struct bytes json, size_t max_bytes, struct arena *arena, struct buf *out,
		     struct err *err)
{
	return otlp_json_decode_items(OTLP_TRACES, json, max_bytes, arena, out, err);
}

int otlp_json_decode_items(enum otlp_signal signal, struct bytes json, size_t max_bytes,
			   struct arena *arena, struct buf *out, struct err *err)
{
	size_t start = out->n, outer_max = out->max;
	bool outer_overflow = out->overflow;
	struct decoder d = { .out = out, .scratch = { .meter = arena->meter }, .err = err };
	int rc = 0;

	json_reader_init(&d.r, json, arena);
	d.r.max_depth = JSON_DEPTH_MAX;
	d.r.keep_bad_utf8 = true;
	out->overflow = false;
	if (max_bytes > 0 && (outer_max == 0 || max_bytes < outer_max - start))
		out->max = start + max_bytes;
	rc = decode_text(&d, otlp_json_roots[signal]);
	if (rc == 0 && out->overflow)
		rc = err_set(err, ERR_TOO_LARGE,
			     "otlp json: protobuf form is larger than %zu bytes", out->max - start);
	if (rc < 0)
		out->n = start;
	out->max = outer_max;
	out->overflow = outer_overflow;
	buf_fini(&d.scratch);
	free(d.runs);
	return rc;
}
