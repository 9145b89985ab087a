/* SPDX-License-Identifier: Apache-2.0
 *
 * zipkin_dump.h - OTLP bytes as short text, every field of every span, so that a test can spell out
 * what it expects:
 *
 *	{service.name=a} (scope 1.0)
 *	<trace id>/<span id>^<parent> KIND name start+duration k=text k#int k~double k?bool
 *		@time event(k=v) ->trace/span(k=v) !code:message state=.. dropped=a,e,l
 *
 * Times are microseconds, ids without leading zeros.
 */
#ifndef TESTS_UNIT_ZIPKIN_DUMP_H
#define TESTS_UNIT_ZIPKIN_DUMP_H

#include "base/buf.h"
#include "base/mem.h"
#include "wire/pb.h"

#include <inttypes.h>

static inline void zipkin_dump_any(struct bytes any, struct buf *out);

/* The elements of an array or a map. */
static inline void zipkin_dump_list(const struct pb_field *f, struct buf *out)
{
	struct bytes list = f->data;
	const char *comma = "";

	buf_add_char(out, f->number == 5 ? '[' : '{');
	for (struct pb_field e = { .number = 0 }; pb_next(&list, &e) > 0; comma = ",") {
		buf_add_str(out, comma);
		if (f->number == 5) {
			zipkin_dump_any(e.data, out);
			continue;
		}
		for (struct pb_field kv = { .number = 0 }; pb_next(&e.data, &kv) > 0;)
			if (kv.number == 1)
				buf_add_bytes(out, kv.data);
			else
				zipkin_dump_any(kv.data, out);
	}
	buf_add_char(out, f->number == 5 ? ']' : '}');
}

static inline void zipkin_dump_any(struct bytes any, struct buf *out)
{
	struct pb_field f = { .number = 0 };
	double d;

	if (any.n == 0)
		buf_add_char(out, '=');
	while (pb_next(&any, &f) > 0) {
		switch (f.number) {
		case 1:
			buf_printf(out, "=%.*s", (int)f.data.n, (const char *)f.data.p);
			break;
		case 2:
			buf_printf(out, "?%d", (int)f.value);
			break;
		case 3:
			buf_printf(out, "#%" PRId64, (int64_t)f.value);
			break;
		case 4:
			memcpy(&d, &f.value, 8);
			buf_printf(out, "~%g", d);
			break;
		case 7:
			buf_printf(out, "$%zu", f.data.n);
			break;
		default:
			zipkin_dump_list(&f, out);
		}
	}
}

/* Attributes in the order of their text: a map has none of its own. */
static bool zipkin_dump_sorted;

static inline int zipkin_dump_order(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Fields `number` of a message as attributes, each with `lead` before it but the first. */
static inline void zipkin_dump_attrs(struct bytes message, uint32_t number, const char *lead,
				     struct buf *out)
{
	char *texts[256];
	size_t n = 0;

	for (struct pb_field f = { .number = 0 }; pb_next(&message, &f) > 0;) {
		struct buf text = BUF_INIT;

		if (f.number != number)
			continue;
		for (struct pb_field kv = { .number = 0 }; pb_next(&f.data, &kv) > 0;)
			if (kv.number == 1)
				buf_add_bytes(&text, kv.data);
			else
				zipkin_dump_any(kv.data, &text);
		assert(n < COUNT_OF(texts));
		texts[n++] = xstrdup(buf_cstr(&text));
		buf_fini(&text);
	}
	if (zipkin_dump_sorted)
		qsort(texts, n, sizeof(texts[0]), zipkin_dump_order);
	for (size_t i = 0; i < n; i++) {
		buf_printf(out, "%s%s", i > 0 ? lead : "", texts[i]);
		free(texts[i]);
	}
}

static inline void zipkin_dump_id(struct bytes id, struct buf *out)
{
	size_t before = out->n;

	for (size_t i = 0; i < 2 * id.n; i++) {
		unsigned v = (i & 1) ? id.p[i / 2] & 15 : id.p[i / 2] >> 4;

		if (v != 0 || out->n > before)
			buf_add_char(out, "0123456789abcdef"[v]);
	}
}

static inline struct pb_field zipkin_dump_field(struct bytes in, uint32_t number)
{
	struct pb_field f = { .number = 0 }, found = f;

	while (pb_next(&in, &f) > 0)
		if (f.number == number)
			found = f;
	return found;
}

static inline void zipkin_dump_lists(struct bytes span, struct buf *out)
{
	for (struct pb_field f = { .number = 0 }; pb_next(&span, &f) > 0;) {
		if (f.number == 11) {
			buf_printf(out, " @%" PRIu64 " ",
				   zipkin_dump_field(f.data, 1).value / 1000);
			buf_add_bytes(out, zipkin_dump_field(f.data, 2).data);
			buf_add_char(out, '(');
			zipkin_dump_attrs(f.data, 3, " ", out);
			buf_add_char(out, ')');
			if (zipkin_dump_field(f.data, 4).value > 0)
				buf_printf(out, "-%d", (int)zipkin_dump_field(f.data, 4).value);
		} else if (f.number == 13) {
			buf_add_str(out, " ->");
			zipkin_dump_id(zipkin_dump_field(f.data, 1).data, out);
			buf_add_char(out, '/');
			zipkin_dump_id(zipkin_dump_field(f.data, 2).data, out);
			buf_add_char(out, ' ');
			buf_add_bytes(out, zipkin_dump_field(f.data, 3).data);
			buf_add_char(out, '(');
			zipkin_dump_attrs(f.data, 4, " ", out);
			buf_add_char(out, ')');
			if (zipkin_dump_field(f.data, 5).value > 0)
				buf_printf(out, "-%d", (int)zipkin_dump_field(f.data, 5).value);
		}
	}
}

static inline void zipkin_dump_span(struct bytes span, struct buf *out)
{
	static const char *const kinds[] = { "-",      "INTERNAL", "SERVER",
					     "CLIENT", "PRODUCER", "CONSUMER" };
	uint64_t start = zipkin_dump_field(span, 7).value, end = zipkin_dump_field(span, 8).value;
	struct pb_field status = zipkin_dump_field(span, 15);

	zipkin_dump_id(zipkin_dump_field(span, 1).data, out);
	buf_add_char(out, '/');
	zipkin_dump_id(zipkin_dump_field(span, 2).data, out);
	if (zipkin_dump_field(span, 4).number) {
		buf_add_char(out, '^');
		zipkin_dump_id(zipkin_dump_field(span, 4).data, out);
	}
	buf_printf(out, " %s ", kinds[zipkin_dump_field(span, 6).value % 6]);
	buf_add_bytes(out, zipkin_dump_field(span, 5).data);
	buf_printf(out, " %" PRIu64 "+%" PRIu64, start / 1000, (end - start) / 1000);
	if (zipkin_dump_field(span, 9).number)
		buf_add_char(out, ' ');
	zipkin_dump_attrs(span, 9, " ", out);
	zipkin_dump_lists(span, out);
	if (status.number) {
		buf_printf(out, " !%d:", (int)zipkin_dump_field(status.data, 3).value);
		buf_add_bytes(out, zipkin_dump_field(status.data, 2).data);
	}
	if (zipkin_dump_field(span, 3).number) {
		buf_add_str(out, " state=");
		buf_add_bytes(out, zipkin_dump_field(span, 3).data);
	}
	if (zipkin_dump_field(span, 10).value || zipkin_dump_field(span, 12).value ||
	    zipkin_dump_field(span, 14).value)
		buf_printf(out, " dropped=%d,%d,%d", (int)zipkin_dump_field(span, 10).value,
			   (int)zipkin_dump_field(span, 12).value,
			   (int)zipkin_dump_field(span, 14).value);
	buf_add_char(out, '\n');
}

/* The whole request; the text is valid until out is written to again. */
static inline const char *zipkin_dump(struct bytes request, struct buf *out)
{
	buf_reset(out);
	for (struct pb_field rs = { .number = 0 }; pb_next(&request, &rs) > 0;) {
		buf_add_char(out, '{');
		zipkin_dump_attrs(zipkin_dump_field(rs.data, 1).data, 1, " ", out);
		buf_add_str(out, "}\n");
		for (struct pb_field ss = { .number = 0 }; pb_next(&rs.data, &ss) > 0;) {
			struct pb_field scope;

			if (ss.number != 2)
				continue;
			scope = zipkin_dump_field(ss.data, 1);
			if (scope.number) {
				buf_add_char(out, '(');
				buf_add_bytes(out, zipkin_dump_field(scope.data, 1).data);
				buf_add_char(out, ' ');
				buf_add_bytes(out, zipkin_dump_field(scope.data, 2).data);
				if (zipkin_dump_field(scope.data, 3).number)
					buf_add_char(out, ' ');
				zipkin_dump_attrs(scope.data, 3, " ", out);
				buf_add_str(out, ")\n");
			}
			for (struct pb_field sp = { .number = 0 }; pb_next(&ss.data, &sp) > 0;)
				if (sp.number == 2)
					zipkin_dump_span(sp.data, out);
		}
	}
	return buf_cstr(out);
}

#endif
