/* SPDX-License-Identifier: Apache-2.0
 *
 * text.c - see text.h. SPEC: opentelemetry-proto trace.proto; layout of the Collector's debug
 * exporter.
 */
#include "exporters/debug/text.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "wire/otlp_index.h"
#include "wire/pb.h"

#include <stdio.h>
#include <time.h>

enum { LABEL_WIDTH = 14 };

static void add_value(struct bytes any, struct buf *out, bool typed, int depth);

/* Text of strangers: control bytes (line ends that would look like lines of ours, escape sequences)
 * are shown as \n, \t, \x1b. */
static void add_text(struct buf *out, struct bytes text)
{
	size_t from = 0;

	for (size_t i = 0; i < text.n; i++) {
		uint8_t c = text.p[i];

		if (c >= 0x20 && c != 0x7f)
			continue;
		buf_add(out, text.p + from, i - from);
		from = i + 1;
		if (c == '\n' || c == '\t')
			buf_add_str(out, c == '\n' ? "\\n" : "\\t");
		else
			buf_printf(out, "\\x%02x", c);
	}
	if (text.n > from)
		buf_add(out, text.p + from, text.n - from);
}

/* Values of a list, or pairs of a map, between brackets. */
static void add_list(struct bytes in, bool of_pairs, struct buf *out, int depth)
{
	struct pb_field f = { 0 }, kv = { 0 };
	bool first = true;

	buf_add_char(out, of_pairs ? '{' : '[');
	while (depth < OTLP_MAX_DEPTH && pb_next(&in, &f) > 0) {
		struct bytes key = BYTES_EMPTY, value = BYTES_EMPTY;

		if (f.number != 1 || f.wire != PB_LEN)
			continue;
		buf_add_str(out, first ? "" : ",");
		first = false;
		if (!of_pairs) {
			add_value(f.data, out, false, depth + 1);
			continue;
		}
		while (pb_next(&f.data, &kv) > 0) {
			if (kv.number == 1)
				key = kv.data;
			else if (kv.number == 2)
				value = kv.data;
		}
		buf_add_char(out, '"');
		add_text(out, key);
		buf_add_str(out, "\":");
		add_value(value, out, false, depth + 1);
	}
	buf_add_char(out, of_pairs ? '}' : ']');
}

static void add_hex(struct bytes v, struct buf *out)
{
	for (size_t i = 0; i < v.n; i++)
		buf_printf(out, "%02x", v.p[i]);
}

/* As few digits as give the same double. */
static void add_double(uint64_t bits, struct buf *out)
{
	char text[40];
	double d;

	memcpy(&d, &bits, sizeof(d));
	for (int digits = 15; digits <= 17; digits++) {
		snprintf(text, sizeof(text), "%.*g", digits, d);
		if (strtod(text, NULL) == d)
			break;
	}
	buf_add_str(out, text);
}

static void add_base64(struct bytes v, struct buf *out)
{
	char *text = xmalloc(4 * ((v.n + 2) / 3) + 1);

	buf_add(out, text, v.n > 0 ? str_base64(v.p, v.n, text) : 0);
	free(text);
}

/* The value of one AnyValue member; returns the name of its kind. */
static const char *add_scalar(const struct pb_field *f, struct buf *out, bool quote, int depth)
{
	switch (f->number) {
	case 1:
		buf_add_str(out, quote ? "\"" : "");
		add_text(out, f->data);
		buf_add_str(out, quote ? "\"" : "");
		return "Str";
	case 2:
		buf_add_str(out, f->value ? "true" : "false");
		return "Bool";
	case 3:
		buf_printf(out, "%lld", (long long)f->value);
		return "Int";
	case 4:
		add_double(f->value, out);
		return "Double";
	case 5:
		add_list(f->data, false, out, depth);
		return "Slice";
	case 6:
		add_list(f->data, true, out, depth);
		return "Map";
	case 7:
		buf_add_str(out, quote ? "\"" : "");
		add_base64(f->data, out);
		buf_add_str(out, quote ? "\"" : "");
		return "Bytes";
	default:
		return "Empty";
	}
}

/* typed: "Str(x)"; else the bare value, text in quotes. The last member of a oneof wins. */
static void add_value(struct bytes any, struct buf *out, bool typed, int depth)
{
	struct pb_field f = { 0 }, last = { 0 };
	struct buf text = BUF_INIT;
	const char *kind;

	while (pb_next(&any, &f) > 0)
		if (f.number >= 1 && f.number <= 7)
			last = f;
	kind = add_scalar(&last, &text, !typed, depth);
	if (typed)
		buf_printf(out, "%s(", kind);
	buf_add_bytes(out, buf_bytes(&text));
	if (typed)
		buf_add_char(out, ')');
	buf_fini(&text);
}

static void split_pair(struct bytes pair, struct bytes *key, struct bytes *value)
{
	struct pb_field f = { 0 };

	*key = *value = BYTES_EMPTY;
	while (pb_next(&pair, &f) > 0) {
		if (f.number == 1)
			*key = f.data;
		else if (f.number == 2)
			*value = f.data;
	}
}

/* "  -> key: Str(value)" for each KeyValue field numbered `number`. */
static void add_attributes(struct bytes message, uint32_t number, const char *title,
			   const char *indent, struct buf *out)
{
	bool first = true;
	struct pb_field f = { 0 };

	while (pb_next(&message, &f) > 0) {
		struct bytes key, value;

		if (f.number != number || f.wire != PB_LEN)
			continue;
		if (first && title != NULL)
			buf_printf(out, "%s\n", title);
		first = false;
		split_pair(f.data, &key, &value);
		buf_printf(out, "%s-> ", indent);
		add_text(out, key);
		buf_add_str(out, ": ");
		add_value(value, out, true, 0);
		buf_add_char(out, '\n');
	}
}

/* The last field of this number; false when there is none. */
static bool find_field(struct bytes message, uint32_t number, struct pb_field *out)
{
	struct pb_field f = { 0 };
	bool found = false;

	while (pb_next(&message, &f) > 0)
		if (f.number == number) {
			*out = f;
			found = true;
		}
	return found;
}

static struct bytes text_of(struct bytes message, uint32_t number)
{
	struct pb_field f = { 0 };

	return find_field(message, number, &f) && f.wire == PB_LEN ? f.data : BYTES_EMPTY;
}

static uint64_t number_of(struct bytes message, uint32_t number)
{
	struct pb_field f = { 0 };

	return find_field(message, number, &f) ? f.value : 0;
}

/* As Go prints a time in UTC: "2018-12-13 14:51:00.3 +0000 UTC". */
static void add_time(uint64_t ns, struct buf *out)
{
	time_t s = (time_t)(ns / NS_PER_S);
	char text[32], fraction[16];
	struct tm tm;
	size_t n;

	gmtime_r(&s, &tm);
	strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &tm);
	buf_add_str(out, text);
	if (ns % NS_PER_S != 0) {
		n = (size_t)snprintf(fraction, sizeof(fraction), ".%09llu",
				     (unsigned long long)(ns % NS_PER_S));
		while (fraction[n - 1] == '0')
			fraction[--n] = '\0';
		buf_add_str(out, fraction);
	}
	buf_add_str(out, " +0000 UTC");
}

static void add_line(struct buf *out, const char *label, struct bytes value)
{
	buf_printf(out, "    %-*s : ", LABEL_WIDTH, label);
	add_text(out, value);
	buf_add_char(out, '\n');
}

static void add_id_line(struct buf *out, const char *label, struct bytes id)
{
	buf_printf(out, "    %-*s : ", LABEL_WIDTH, label);
	add_hex(id, out);
	buf_add_char(out, '\n');
}

static void add_time_line(struct buf *out, const char *label, uint64_t ns)
{
	buf_printf(out, "    %-*s : ", LABEL_WIDTH, label);
	add_time(ns, out);
	buf_add_char(out, '\n');
}

static void add_count_line(struct buf *out, const char *label, uint64_t n)
{
	if (n > 0)
		buf_printf(out, "    %-*s : %llu\n", LABEL_WIDTH, label, (unsigned long long)n);
}

static const char *kind_name(uint64_t kind)
{
	static const char *const names[] = { "Unspecified", "Internal", "Server",
					     "Client",      "Producer", "Consumer" };

	return kind < COUNT_OF(names) ? names[kind] : "Unknown";
}

static const char *status_name(uint64_t code)
{
	static const char *const names[] = { "Unset", "Ok", "Error" };

	return code < COUNT_OF(names) ? names[code] : "Unknown";
}

static void add_events(struct bytes span, struct buf *out)
{
	struct pb_field f = { 0 };
	int n = 0;

	while (pb_next(&span, &f) > 0) {
		if (f.number != 11 || f.wire != PB_LEN)
			continue;
		if (n == 0)
			buf_add_str(out, "Events:\n");
		buf_printf(out, "SpanEvent #%d\n     -> Name: ", n++);
		add_text(out, text_of(f.data, 2));
		buf_add_str(out, "\n     -> Timestamp: ");
		add_time(number_of(f.data, 1), out);
		buf_printf(out, "\n     -> DroppedAttributesCount: %llu\n",
			   (unsigned long long)number_of(f.data, 4));
		add_attributes(f.data, 3, "     -> Attributes::", "          ", out);
	}
}

static void add_links(struct bytes span, struct buf *out)
{
	struct pb_field f = { 0 };
	int n = 0;

	while (pb_next(&span, &f) > 0) {
		if (f.number != 13 || f.wire != PB_LEN)
			continue;
		if (n == 0)
			buf_add_str(out, "Links:\n");
		buf_printf(out, "SpanLink #%d\n     -> Trace ID: ", n++);
		add_hex(text_of(f.data, 1), out);
		buf_add_str(out, "\n     -> ID: ");
		add_hex(text_of(f.data, 2), out);
		buf_add_str(out, "\n     -> TraceState: ");
		add_text(out, text_of(f.data, 3));
		buf_printf(out, "\n     -> DroppedAttributesCount: %llu\n",
			   (unsigned long long)number_of(f.data, 5));
		add_attributes(f.data, 4, "     -> Attributes::", "          ", out);
	}
}

static void add_span(struct bytes span, int n, struct buf *out)
{
	struct bytes status = text_of(span, 15);

	buf_printf(out, "Span #%d\n", n);
	add_id_line(out, "Trace ID", text_of(span, 1));
	add_id_line(out, "Parent ID", text_of(span, 4));
	add_id_line(out, "ID", text_of(span, 2));
	add_line(out, "Name", text_of(span, 5));
	add_line(out, "Kind", bytes_str(kind_name(number_of(span, 6))));
	if (text_of(span, 3).n > 0)
		add_line(out, "TraceState", text_of(span, 3));
	if (number_of(span, 16) > 0)
		buf_printf(out, "    %-*s : 0x%llx\n", LABEL_WIDTH, "Flags",
			   (unsigned long long)number_of(span, 16));
	add_time_line(out, "Start time", number_of(span, 7));
	add_time_line(out, "End time", number_of(span, 8));
	add_line(out, "Status code", bytes_str(status_name(number_of(status, 3))));
	add_line(out, "Status message", text_of(status, 2));
	add_count_line(out, "DroppedAttributesCount", number_of(span, 10));
	add_count_line(out, "DroppedEventsCount", number_of(span, 12));
	add_count_line(out, "DroppedLinksCount", number_of(span, 14));
	add_attributes(span, 9, "Attributes:", "     ", out);
	add_events(span, out);
	add_links(span, out);
}

static void add_scope_spans(struct bytes ss, int n, struct buf *out)
{
	struct bytes scope = text_of(ss, 1);
	struct pb_field f = { 0 };
	int spans = 0;

	buf_printf(out, "ScopeSpans #%d\nScopeSpans SchemaURL: ", n);
	add_text(out, text_of(ss, 3));
	buf_add_str(out, "\nInstrumentationScope ");
	add_text(out, text_of(scope, 1));
	buf_add_char(out, ' ');
	add_text(out, text_of(scope, 2));
	buf_add_char(out, '\n');
	add_attributes(scope, 3, "InstrumentationScope attributes:", "     ", out);
	while (pb_next(&ss, &f) > 0)
		if (f.number == 2 && f.wire == PB_LEN)
			add_span(f.data, spans++, out);
}

void debug_text_detailed(struct bytes in, struct buf *out)
{
	struct pb_field f = { 0 }, child = { 0 };
	int resources = 0;

	while (pb_next(&in, &f) > 0) {
		struct bytes rs = f.data;
		int scopes = 0;

		if (f.number != 1 || f.wire != PB_LEN)
			continue;
		buf_printf(out, "ResourceSpans #%d\nResource SchemaURL: ", resources++);
		add_text(out, text_of(rs, 3));
		buf_add_char(out, '\n');
		add_attributes(text_of(rs, 1), 1, "Resource attributes:", "     ", out);
		while (pb_next(&rs, &child) > 0)
			if (child.number == 2 && child.wire == PB_LEN)
				add_scope_spans(child.data, scopes++, out);
	}
}

/* ---- one line a span ---- */

static void add_span_line(struct bytes span, struct buf *out)
{
	struct pb_field f = { 0 };

	add_text(out, text_of(span, 5));
	buf_add_char(out, ' ');
	add_hex(text_of(span, 1), out);
	buf_add_char(out, ' ');
	add_hex(text_of(span, 2), out);
	while (pb_next(&span, &f) > 0) {
		struct bytes key, value;

		if (f.number != 9 || f.wire != PB_LEN)
			continue;
		split_pair(f.data, &key, &value);
		buf_add_char(out, ' ');
		add_text(out, key);
		buf_add_char(out, '=');
		add_value(value, out, false, 0);
	}
	buf_add_char(out, '\n');
}

void debug_text_normal(struct bytes in, struct buf *out)
{
	struct pb_field rs = { 0 }, ss = { 0 }, span = { 0 };

	while (pb_next(&in, &rs) > 0)
		while (rs.number == 1 && pb_next(&rs.data, &ss) > 0)
			while (ss.number == 2 && ss.wire == PB_LEN && pb_next(&ss.data, &span) > 0)
				if (span.number == 2 && span.wire == PB_LEN)
					add_span_line(span.data, out);
}
