/* SPDX-License-Identifier: Apache-2.0
 *
 * jaeger_json.c - see jaeger_json.h.
 */
#include "wire/jaeger_json.h"

#include "base/str.h"
#include "wire/jaeger_proto.h"
#include "wire/json_reader.h"
#include "wire/json_writer.h"
#include "wire/pb.h"

#include <stdio.h>
#include <time.h>

enum { NS_PER_SECOND = 1000000000 };

/* ---- the messages ---- */

enum kind { TEXT, BINARY, BOOL, INTEGER, UNSIGNED, DOUBLE, ENUM, TIME, DURATION, MESSAGE };

struct member {
	const char *name, *proto_name;
	uint32_t number;
	enum kind kind;
	bool is_list;
	const struct member *message; /* MESSAGE: ends with a NULL name */
	const char *const *names;     /* ENUM: by number, ends with NULL */
};

static const char *const value_types[] = { "STRING", "BOOL", "INT64", "FLOAT64", "BINARY", NULL };
static const char *const ref_types[] = { "CHILD_OF", "FOLLOWS_FROM", NULL };

static const struct member key_value[] = {
	{ .name = "key", .number = 1, .kind = TEXT },
	{ .name = "vType",
	  .proto_name = "v_type",
	  .number = 2,
	  .kind = ENUM,
	  .names = value_types },
	{ .name = "vStr", .proto_name = "v_str", .number = 3, .kind = TEXT },
	{ .name = "vBool", .proto_name = "v_bool", .number = 4, .kind = BOOL },
	{ .name = "vInt64", .proto_name = "v_int64", .number = 5, .kind = INTEGER },
	{ .name = "vFloat64", .proto_name = "v_float64", .number = 6, .kind = DOUBLE },
	{ .name = "vBinary", .proto_name = "v_binary", .number = 7, .kind = BINARY },
	{ .name = NULL },
};
static const struct member span_ref[] = {
	{ .name = "traceId", .proto_name = "trace_id", .number = 1, .kind = BINARY },
	{ .name = "spanId", .proto_name = "span_id", .number = 2, .kind = BINARY },
	{ .name = "refType",
	  .proto_name = "ref_type",
	  .number = 3,
	  .kind = ENUM,
	  .names = ref_types },
	{ .name = NULL },
};
static const struct member span_log[] = {
	{ .name = "timestamp", .number = 1, .kind = TIME },
	{ .name = "fields", .number = 2, .kind = MESSAGE, .is_list = true, .message = key_value },
	{ .name = NULL },
};
static const struct member process[] = {
	{ .name = "serviceName", .proto_name = "service_name", .number = 1, .kind = TEXT },
	{ .name = "tags", .number = 2, .kind = MESSAGE, .is_list = true, .message = key_value },
	{ .name = NULL },
};
static const struct member span[] = {
	{ .name = "traceId", .proto_name = "trace_id", .number = 1, .kind = BINARY },
	{ .name = "spanId", .proto_name = "span_id", .number = 2, .kind = BINARY },
	{ .name = "operationName", .proto_name = "operation_name", .number = 3, .kind = TEXT },
	{ .name = "references",
	  .number = 4,
	  .kind = MESSAGE,
	  .is_list = true,
	  .message = span_ref },
	{ .name = "flags", .number = 5, .kind = UNSIGNED },
	{ .name = "startTime", .proto_name = "start_time", .number = 6, .kind = TIME },
	{ .name = "duration", .number = 7, .kind = DURATION },
	{ .name = "tags", .number = 8, .kind = MESSAGE, .is_list = true, .message = key_value },
	{ .name = "logs", .number = 9, .kind = MESSAGE, .is_list = true, .message = span_log },
	{ .name = "process", .number = 10, .kind = MESSAGE, .message = process },
	{ .name = "processId", .proto_name = "process_id", .number = 11, .kind = TEXT },
	{ .name = "warnings", .number = 12, .kind = TEXT, .is_list = true },
	{ .name = NULL },
};

/* ---- times ---- */

/* Up to `max` digits; *n of them were there. */
static uint64_t digits(struct bytes *s, unsigned max, unsigned *n)
{
	uint64_t v = 0;

	for (*n = 0; *n < max && s->n > 0 && s->p[0] >= '0' && s->p[0] <= '9'; ++*n) {
		v = v * 10 + (s->p[0] - '0');
		s->p++;
		s->n--;
	}
	return v;
}

static bool take_char(struct bytes *s, char c)
{
	if (s->n == 0 || s->p[0] != (uint8_t)c)
		return false;
	s->p++;
	s->n--;
	return true;
}

/* ".5" as billionths; digits behind the ninth are cut. */
static uint64_t fraction(struct bytes *s)
{
	unsigned n, more;
	uint64_t v;

	if (!take_char(s, '.'))
		return 0;
	v = digits(s, 9, &n);
	for (; n < 9; n++)
		v *= 10;
	do
		(void)digits(s, 9, &more);
	while (more > 0);
	return v;
}

static bool two(struct bytes *s, int *out, char before)
{
	unsigned n;

	if (before != '\0' && !take_char(s, before))
		return false;
	*out = (int)digits(s, 2, &n);
	return n == 2;
}

/* Z, or hours and minutes to be taken off. */
static bool read_zone(struct bytes *s, int64_t *seconds)
{
	int hours, minutes, sign = -1;

	if (take_char(s, 'Z'))
		return s->n == 0;
	if (take_char(s, '-'))
		sign = 1;
	else if (!take_char(s, '+'))
		return false;
	if (!two(s, &hours, '\0') || !two(s, &minutes, ':'))
		return false;
	*seconds += sign * (hours * 3600 + minutes * 60);
	return s->n == 0;
}

static int read_rfc3339(struct bytes s, int64_t *seconds, uint64_t *nanos)
{
	struct tm tm = { 0 };
	unsigned n;

	tm.tm_year = (int)digits(&s, 4, &n) - 1900;
	if (n != 4 || !two(&s, &tm.tm_mon, '-') || !two(&s, &tm.tm_mday, '-') ||
	    !two(&s, &tm.tm_hour, 'T') || !two(&s, &tm.tm_min, ':') || !two(&s, &tm.tm_sec, ':'))
		return -1;
	tm.tm_mon--;
	*nanos = fraction(&s);
	*seconds = timegm(&tm);
	return read_zone(&s, seconds) ? 0 : -1;
}

/* The unit at s in ns; 0: none. Longer names first. */
static int64_t unit(struct bytes *s)
{
	static const struct {
		const char *name;
		int64_t ns;
	} units[] = {
		{ "ns", 1 },
		{ "us", 1000 },
		{ "\xc2\xb5s", 1000 },
		{ "ms", 1000000 },
		{ "s", NS_PER_SECOND },
		{ "m", INT64_C(60) * NS_PER_SECOND },
		{ "h", INT64_C(3600) * NS_PER_SECOND },
	};

	for (size_t i = 0; i < COUNT_OF(units); i++) {
		size_t n = strlen(units[i].name);

		if (s->n >= n && memcmp(s->p, units[i].name, n) == 0) {
			s->p += n;
			s->n -= n;
			return units[i].ns;
		}
	}
	return 0;
}

static int read_duration(struct bytes s, int64_t *ns)
{
	bool negative = take_char(&s, '-');

	*ns = 0;
	do {
		unsigned n;
		int64_t whole = (int64_t)digits(&s, 18, &n), part, u;
		uint64_t billionths = fraction(&s);

		u = unit(&s);
		if (u == 0 || __builtin_mul_overflow(whole, u, &part) ||
		    __builtin_add_overflow(*ns, part, ns))
			return -1;
		part = (int64_t)((double)billionths * (double)u / NS_PER_SECOND + 0.5);
		if (__builtin_add_overflow(*ns, part, ns))
			return -1;
	} while (s.n > 0);
	if (negative)
		*ns = -*ns;
	return 0;
}

static void put_seconds(struct buf *out, uint32_t number, int64_t seconds, int64_t nanos)
{
	size_t mark = pb_begin(out, number);

	pb_put_uint(out, 1, (uint64_t)seconds);
	pb_put_uint(out, 2, (uint64_t)nanos);
	pb_end(out, mark);
}

/* ---- JSON to protobuf ---- */

struct decoder {
	struct json_reader r;
	struct arena *arena;
	struct buf *out; /* protobuf */
	struct err *err;
	char bad[128]; /* the first value that is not what it must be */
};

static int bad_value(struct decoder *d, const struct member *m, const struct json_value *v)
{
	if (d->bad[0] == '\0')
		snprintf(d->bad, sizeof(d->bad), "%s: %s%s%.*s%s", m->name,
			 json_reader_kind_name(v->kind), v->text.n > 0 ? " \"" : "",
			 (int)MIN(v->text.n, (size_t)40),
			 v->text.n > 0 ? (const char *)v->text.p : "", v->text.n > 0 ? "\"" : "");
	return json_reader_skip(&d->r, v, d->err);
}

static int put_binary(struct decoder *d, const struct member *m, const struct json_value *v)
{
	uint8_t *raw = arena_alloc(d->arena, v->text.n / 4 * 3 + 3);
	long n = v->kind == JSON_STRING ? str_unbase64(v->text, raw) : -1;

	if (n < 0)
		return bad_value(d, m, v);
	pb_put_bytes(d->out, m->number, (struct bytes){ raw, (size_t)n });
	return 0;
}

static int put_enum(struct decoder *d, const struct member *m, const struct json_value *v)
{
	uint64_t number = 0;

	if (v->kind == JSON_STRING) {
		while (m->names[number] != NULL && !bytes_eq_str(v->text, m->names[number]))
			number++;
		if (m->names[number] == NULL)
			return bad_value(d, m, v);
	} else if (json_reader_u64(v, &number) < 0) {
		return bad_value(d, m, v);
	}
	pb_put_uint(d->out, m->number, number);
	return 0;
}

static int put_number(struct decoder *d, const struct member *m, const struct json_value *v)
{
	int64_t i = 0;
	uint64_t u = 0;
	double f = 0;

	if (m->kind == DOUBLE && json_reader_double(v, &f) == 0)
		pb_put_double(d->out, m->number, f);
	else if (m->kind == INTEGER && json_reader_i64(v, &i) == 0)
		pb_put_uint(d->out, m->number, (uint64_t)i);
	else if (m->kind == UNSIGNED && json_reader_u64(v, &u) == 0)
		pb_put_uint(d->out, m->number, u);
	else
		return bad_value(d, m, v);
	return 0;
}

static int put_time(struct decoder *d, const struct member *m, const struct json_value *v)
{
	int64_t seconds = 0;
	uint64_t nanos = 0;
	bool is_text = v->kind == JSON_STRING;

	if (is_text ? read_rfc3339(v->text, &seconds, &nanos) < 0
		    : json_reader_i64(v, &seconds) < 0)
		return bad_value(d, m, v);
	put_seconds(d->out, m->number, seconds, (int64_t)nanos);
	return 0;
}

static int put_duration(struct decoder *d, const struct member *m, const struct json_value *v)
{
	int64_t ns = 0;

	/* A number is what Go's own JSON makes of a duration. */
	if (v->kind == JSON_STRING ? read_duration(v->text, &ns) < 0 : json_reader_i64(v, &ns) < 0)
		return bad_value(d, m, v);
	put_seconds(d->out, m->number, ns / NS_PER_SECOND, ns % NS_PER_SECOND);
	return 0;
}

static int put_members(struct decoder *d, const struct member *message);

static int put_value(struct decoder *d, const struct member *m, const struct json_value *v)
{
	size_t mark;
	int rc;

	switch (m->kind) {
	case TEXT:
		if (v->kind != JSON_STRING)
			return bad_value(d, m, v);
		pb_put_bytes(d->out, m->number, v->text);
		return 0;
	case BOOL:
		if (v->kind != JSON_TRUE && v->kind != JSON_FALSE)
			return bad_value(d, m, v);
		pb_put_uint(d->out, m->number, v->kind == JSON_TRUE);
		return 0;
	case BINARY:
		return put_binary(d, m, v);
	case ENUM:
		return put_enum(d, m, v);
	case TIME:
		return put_time(d, m, v);
	case DURATION:
		return put_duration(d, m, v);
	case MESSAGE:
		if (v->kind != JSON_OBJECT)
			return bad_value(d, m, v);
		mark = pb_begin(d->out, m->number);
		rc = put_members(d, m->message);
		pb_end(d->out, mark);
		return rc;
	default:
		return put_number(d, m, v);
	}
}

static int put_member(struct decoder *d, const struct member *m, const struct json_value *v)
{
	struct json_value e;
	int rc;

	if (v->kind == JSON_NULL)
		return 0;
	if (!m->is_list)
		return put_value(d, m, v);
	if (v->kind != JSON_ARRAY)
		return bad_value(d, m, v);
	while ((rc = json_reader_element(&d->r, &e, d->err)) > 0)
		if (e.kind != JSON_NULL && put_value(d, m, &e) < 0)
			return -1;
	return rc;
}

static const struct member *find_member(const struct member *message, struct bytes name)
{
	for (; message->name != NULL; message++)
		if (bytes_eq_str(name, message->name) ||
		    (message->proto_name != NULL && bytes_eq_str(name, message->proto_name)))
			return message;
	return NULL;
}

/* The members of an opened object. */
static int put_members(struct decoder *d, const struct member *message)
{
	struct json_value v;
	int rc;

	while ((rc = json_reader_member(&d->r, &v, d->err)) > 0) {
		const struct member *m = find_member(message, v.key);

		if ((m != NULL ? put_member(d, m, &v) : json_reader_skip(&d->r, &v, d->err)) < 0)
			return -1;
	}
	return rc;
}

static int to_proto(struct decoder *d)
{
	struct json_value v;

	if (json_reader_value(&d->r, &v, d->err) < 0)
		return -1;
	if (v.kind != JSON_OBJECT)
		return err_set(d->err, ERR_INVALID, "jaeger json: expected a span, got %s",
			       json_reader_kind_name(v.kind));
	if (put_members(d, span) < 0)
		return -1;
	return json_reader_end(&d->r, d->err);
}

static bool is_blank(struct bytes s)
{
	while (s.n > 0 && (s.p[0] == ' ' || s.p[0] == '\t' || s.p[0] == '\n' || s.p[0] == '\r'))
		s = (struct bytes){ s.p + 1, s.n - 1 };
	return s.n == 0;
}

int jaeger_json_span(struct bytes json, size_t max_bytes, struct arena *arena, struct buf *out,
		     struct jaeger_result *result, struct err *err)
{
	struct buf pb = { .max = max_bytes, .meter = arena->meter };
	struct decoder d = { .arena = arena, .out = &pb, .err = err };
	int rc;

	*result = (struct jaeger_result){ 0 };
	if (is_blank(json))
		return 0;
	json_reader_init(&d.r, json, arena);
	rc = to_proto(&d);
	if (rc == 0 && d.bad[0] != '\0') {
		result->n_bad = result->n_bad_by[JAEGER_BAD_VALUE] = 1;
		snprintf(result->first_bad, sizeof(result->first_bad), "spans[0].%s", d.bad);
	} else if (rc == 0 && pb.overflow) {
		rc = err_set(err, ERR_TOO_LARGE, "jaeger: the span is larger than %zu bytes",
			     max_bytes);
	} else if (rc == 0) {
		rc = jaeger_proto_span(buf_bytes(&pb), max_bytes, arena, out, result, err);
	}
	buf_fini(&pb);
	return rc;
}

/* ---- protobuf to JSON ---- */

static int read_seconds(struct bytes in, int64_t *seconds, int64_t *nanos)
{
	struct pb_field f;
	int rc;

	*seconds = *nanos = 0;
	while ((rc = pb_next(&in, &f)) > 0) {
		if (f.number == 1 && f.wire == PB_VARINT)
			*seconds = (int64_t)f.value;
		else if (f.number == 2 && f.wire == PB_VARINT)
			*nanos = (int32_t)f.value;
	}
	return rc;
}

static int write_time(struct json_writer *w, struct bytes in)
{
	char text[64], date[32] = "";
	int64_t seconds, nanos;
	struct tm tm;
	time_t t;

	if (read_seconds(in, &seconds, &nanos) < 0)
		return -1;
	t = (time_t)MAX(INT64_C(0), MIN(seconds, INT64_C(253402300799)));
	gmtime_r(&t, &tm);
	strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(text, sizeof(text), "%s.%09uZ", date, (unsigned)((uint64_t)nanos % NS_PER_SECOND));
	json_writer_str(w, text);
	return 0;
}

static int write_duration(struct json_writer *w, struct bytes in)
{
	int64_t seconds, nanos, ns;
	char text[64];

	if (read_seconds(in, &seconds, &nanos) < 0)
		return -1;
	ns = jaeger_duration(seconds, nanos);
	snprintf(text, sizeof(text), "%s%llu.%09llus", ns < 0 ? "-" : "",
		 (unsigned long long)(ns < 0 ? -(uint64_t)ns : (uint64_t)ns) / NS_PER_SECOND,
		 (unsigned long long)(ns < 0 ? -(uint64_t)ns : (uint64_t)ns) % NS_PER_SECOND);
	json_writer_str(w, text);
	return 0;
}

static void write_enum(struct json_writer *w, const struct member *m, uint64_t number)
{
	for (uint64_t i = 0; m->names[i] != NULL; i++) {
		if (i == number) {
			json_writer_str(w, m->names[i]);
			return;
		}
	}
	json_writer_u64(w, number);
}

static double double_of(uint64_t bits)
{
	double d;

	memcpy(&d, &bits, sizeof(d));
	return d;
}

static int write_message(struct json_writer *w, const struct member *message, struct bytes in);

static int write_value(struct json_writer *w, const struct member *m, const struct pb_field *f)
{
	switch (m->kind) {
	case TEXT:
		json_writer_bytes(w, f->data);
		return 0;
	case BINARY:
		json_writer_base64(w, f->data);
		return 0;
	case BOOL:
		json_writer_bool(w, f->value != 0);
		return 0;
	case INTEGER:
		json_writer_i64_str(w, (int64_t)f->value);
		return 0;
	case UNSIGNED:
		json_writer_u64(w, f->value);
		return 0;
	case DOUBLE:
		json_writer_double(w, double_of(f->value));
		return 0;
	case ENUM:
		write_enum(w, m, f->value);
		return 0;
	case TIME:
		return write_time(w, f->data);
	case DURATION:
		return write_duration(w, f->data);
	case MESSAGE:
		return write_message(w, m->message, f->data);
	}
	return -1;
}

static enum pb_wire wire_of(enum kind kind)
{
	switch (kind) {
	case BOOL:
	case INTEGER:
	case UNSIGNED:
	case ENUM:
		return PB_VARINT;
	case DOUBLE:
		return PB_FIXED64;
	default:
		return PB_LEN;
	}
}

/* Each field with the member's number, in order. A list's are one array. */
static int write_member(struct json_writer *w, const struct member *m, struct bytes in)
{
	bool is_open = false;
	struct pb_field f;
	int rc;

	while ((rc = pb_next(&in, &f)) > 0) {
		if (f.number != m->number || f.wire != wire_of(m->kind) || (is_open && !m->is_list))
			continue;
		if (!is_open) {
			json_writer_key(w, m->name);
			if (m->is_list)
				json_writer_array(w);
		}
		is_open = true;
		if (write_value(w, m, &f) < 0)
			return -1;
	}
	if (is_open && m->is_list)
		json_writer_array_end(w);
	return rc;
}

static int write_message(struct json_writer *w, const struct member *message, struct bytes in)
{
	json_writer_object(w);
	for (; message->name != NULL; message++)
		if (write_member(w, message, in) < 0)
			return -1;
	json_writer_object_end(w);
	return 0;
}

int jaeger_json_encode(struct bytes in, struct buf *out, struct err *err)
{
	struct json_writer w = JSON_WRITER(out);
	size_t start = out->n;

	if (write_message(&w, span, in) < 0) {
		out->n = start;
		return err_set(err, ERR_INVALID, "jaeger span: damaged protobuf");
	}
	if (!out->overflow)
		return 0;
	out->n = start;
	return err_set(err, ERR_TOO_LARGE, "jaeger json: larger than %zu bytes", out->max);
}
