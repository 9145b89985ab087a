/* SPDX-License-Identifier: Apache-2.0
 *
 * accept.c - see accept.h.
 */
#include "exporters/prometheus/accept.h"

#include "base/str.h"

static struct bytes trim(struct bytes s)
{
	while (s.n > 0 && (s.p[0] == ' ' || s.p[0] == '\t'))
		s = (struct bytes){ s.p + 1, s.n - 1 };
	while (s.n > 0 && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
		s.n--;
	return s;
}

/* What stands before the next `at` (or the end), without spaces; *in moves behind it. */
static struct bytes cut(struct bytes *in, char at)
{
	const uint8_t *end = in->n > 0 ? memchr(in->p, at, in->n) : NULL;
	struct bytes part = { in->p, end != NULL ? (size_t)(end - in->p) : in->n };

	*in = end != NULL ? (struct bytes){ end + 1, in->n - part.n - 1 } : BYTES_EMPTY;
	return trim(part);
}

struct range {
	struct bytes type, version, escaping;
	double q;
};

static struct range read_range(struct bytes text)
{
	struct range r = { .type = cut(&text, ';'), .q = 1 };

	while (text.n > 0) {
		struct bytes value = cut(&text, ';'), name = cut(&value, '=');

		value = trim(value);
		if (value.n >= 2 && value.p[0] == '"' && value.p[value.n - 1] == '"')
			value = (struct bytes){ value.p + 1, value.n - 2 };
		if (str_eq_nocase(name, "version"))
			r.version = value;
		else if (str_eq_nocase(name, "escaping"))
			r.escaping = value;
		else if (str_eq_nocase(name, "q") &&
			 (str_to_double(value, &r.q) < 0 || !(r.q >= 0)))
			r.q = 0;
	}
	return r;
}

static bool kind_of(const struct range *r, bool allow_open, enum page_kind *kind)
{
	const struct bytes *v = &r->version;

	if (str_eq_nocase(r->type, "application/openmetrics-text")) {
		*kind = bytes_eq_str(*v, "0.0.1") ? PAGE_OPEN_0_0_1 : PAGE_OPEN_1_0_0;
		return allow_open &&
		       (v->n == 0 || *kind == PAGE_OPEN_0_0_1 || bytes_eq_str(*v, "1.0.0"));
	}
	*kind = bytes_eq_str(*v, "1.0.0") ? PAGE_TEXT_1_0_0 : PAGE_TEXT_0_0_4;
	if (str_eq_nocase(r->type, "text/plain"))
		return v->n == 0 || *kind == PAGE_TEXT_1_0_0 || bytes_eq_str(*v, "0.0.4");
	*kind = PAGE_TEXT_0_0_4;
	return bytes_eq_str(r->type, "*/*") || str_eq_nocase(r->type, "text/*");
}

struct page_form accept_choose(const char *accept, bool allow_open)
{
	struct page_form best = { PAGE_TEXT_0_0_4, false };
	struct bytes rest = bytes_str(accept);
	double best_q = 0;

	while (rest.n > 0) {
		struct range r = read_range(cut(&rest, ','));
		enum page_kind kind;

		if (!(r.q > best_q) || !kind_of(&r, allow_open, &kind))
			continue;
		best_q = r.q;
		best.kind = kind;
		/* 0.0.4 and 0.0.1 know no names in quotes. */
		best.is_utf8 = str_eq_nocase(r.escaping, "allow-utf-8") &&
			       (kind == PAGE_OPEN_1_0_0 || kind == PAGE_TEXT_1_0_0);
	}
	return best;
}

const char *accept_content_type(const struct page_form *f)
{
	switch (f->kind) {
	case PAGE_OPEN_1_0_0:
		return f->is_utf8 ? "application/openmetrics-text; version=1.0.0; charset=utf-8; "
				    "escaping=allow-utf-8"
				  : "application/openmetrics-text; version=1.0.0; charset=utf-8; "
				    "escaping=underscores";
	case PAGE_OPEN_0_0_1:
		return "application/openmetrics-text; version=0.0.1; charset=utf-8; "
		       "escaping=underscores";
	case PAGE_TEXT_1_0_0:
		return f->is_utf8
			       ? "text/plain; version=1.0.0; charset=utf-8; escaping=allow-utf-8"
			       : "text/plain; version=1.0.0; charset=utf-8; escaping=underscores";
	default:
		return "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";
	}
}
