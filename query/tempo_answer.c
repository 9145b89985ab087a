/* SPDX-License-Identifier: Apache-2.0
 *
 * tempo_answer.c - see tempo_answer.h.
 */
#include "query/tempo_answer.h"

#include "base/str.h"
#include "wire/pb.h"

enum { STATUS_PARTIAL = 1, ID = 16 };

static int damaged(const char *what, struct err *err)
{
	return err_set(err, ERR_CORRUPT, "the answer is no TraceByIDResponse: %s", what);
}

static int check_span(struct bytes span, const uint8_t id[ID], struct err *err)
{
	char hex[2 * ID + 1];
	struct pb_field f = { 0 };
	int got;

	while ((got = pb_next(&span, &f)) > 0) {
		if (f.number != 1 || f.wire != PB_LEN || f.data.n != ID ||
		    memcmp(f.data.p, id, ID) == 0)
			continue;
		str_hex(f.data.p, f.data.n, hex);
		return err_set(err, ERR_CORRUPT, "the answer has spans of another trace: %s", hex);
	}
	return got < 0 ? damaged("a span is damaged", err) : 0;
}

/* TracesData -> 1 resource_spans -> 2 scope_spans -> 2 spans: `path` says which field leads on. */
static int check_level(struct bytes in, const uint8_t *path, const uint8_t id[ID], struct err *err)
{
	struct pb_field f = { 0 };
	int got;

	if (path[0] == 0)
		return check_span(in, id, err);
	while ((got = pb_next(&in, &f)) > 0)
		if (f.number == path[0] && f.wire == PB_LEN &&
		    check_level(f.data, path + 1, id, err) < 0)
			return -1;
	return got < 0 ? damaged("its trace is damaged", err) : 0;
}

static int read_metrics(struct bytes in, struct tempo_answer *a, struct err *err)
{
	struct pb_field f = { 0 };
	int got;

	while ((got = pb_next(&in, &f)) > 0)
		if (f.number == 1 && f.wire == PB_VARINT)
			a->inspected_bytes = f.value;
	return got < 0 ? damaged("its metrics are damaged", err) : 0;
}

/* It is printed in logs, and becomes part of our own answer. */
static void take_message(struct bytes text, char out[TEMPO_ANSWER_MESSAGE])
{
	size_t n = MIN(text.n, (size_t)TEMPO_ANSWER_MESSAGE - 1);

	for (size_t i = 0; i < n; i++)
		out[i] = text.p[i] >= 0x20 && text.p[i] < 0x7f ? (char)text.p[i] : '?';
	out[n] = '\0';
}

static int take_field(const struct pb_field *f, bool *has_trace, struct tempo_answer *a,
		      struct err *err)
{
	if (f->number == 1 && f->wire == PB_LEN) {
		if (*has_trace)
			return damaged("it has two traces", err);
		*has_trace = true;
		a->trace = f->data;
	} else if (f->number == 2 && f->wire == PB_LEN) {
		return read_metrics(f->data, a, err);
	} else if (f->number == 3 && f->wire == PB_VARINT) {
		a->is_partial = f->value == STATUS_PARTIAL;
	} else if (f->number == 4 && f->wire == PB_LEN) {
		take_message(f->data, a->message);
	}
	return 0;
}

int tempo_answer_parse(struct bytes body, const uint8_t id[ID], struct tempo_answer *a,
		       struct err *err)
{
	static const uint8_t path[] = { 1, 2, 2, 0 };
	bool has_trace = false;
	struct pb_field f = { 0 };
	int got;

	*a = (struct tempo_answer){ .is_partial = false };
	while ((got = pb_next(&body, &f)) > 0)
		if (take_field(&f, &has_trace, a, err) < 0)
			return -1;
	if (got < 0)
		return damaged("it is cut short or no protobuf", err);
	/* Ours and Tempo's always have it; an empty body is some other server's. */
	if (!has_trace)
		return damaged("it has no trace", err);
	return check_level(a->trace, path, id, err);
}
