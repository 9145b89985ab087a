/* SPDX-License-Identifier: Apache-2.0
 *
 * error.c - the list of errors and warnings of one configuration load. Contract in
 * error.h.
 *
 * DESIGN: every line is formatted when it is added (the tree it speaks of may go away) and sorted
 * when printed, because checks run section by section while people read files from the top.
 */
#include "pipeline/conf/error.h"

#include "base/mem.h"
#include "pipeline/conf/tree.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { LINES_MAX = 200, WHAT_MAX = 600 };

struct conf_line {
	unsigned rank, line, column;
	unsigned seq; /* keeps the order of lines about one place */
	bool warning;
	char *text;
};

/* Append s with control characters escaped, so that hostile values cannot forge lines or move the
 * cursor. */
static void add_clean(struct buf *b, const char *s)
{
	for (; *s != '\0'; s++) {
		unsigned char c = (unsigned char)*s;

		if (c < 0x20 || c == 0x7f)
			buf_printf(b, "\\x%02x", c);
		else
			buf_add_char(b, (char)c);
	}
}

static void line_add(struct conf_errors *e, bool warning, struct conf_pos pos, const char *path,
		     const char *hint, const char *what)
{
	struct buf b = BUF_INIT;
	struct conf_line *l;

	if (warning)
		e->n_warnings++;
	else
		e->n_errors++;
	if (e->n >= LINES_MAX)
		return;
	if (e->n == e->cap) {
		e->cap = e->cap ? 2 * e->cap : 16;
		e->lines = xrealloc(e->lines, e->cap * sizeof(*e->lines));
	}
	if (warning)
		buf_add_str(&b, "warning: ");
	if (pos.source != NULL) {
		add_clean(&b, pos.source->name);
		buf_printf(&b, ":%u:%u: ", pos.line, pos.column);
	}
	add_clean(&b, path != NULL && path[0] != '\0' ? path : "(document)");
	buf_add_str(&b, ": ");
	add_clean(&b, what);
	if (hint != NULL && hint[0] != '\0') {
		buf_add_str(&b, ": ");
		add_clean(&b, hint);
	}
	l = &e->lines[e->n];
	*l = (struct conf_line){ pos.source ? pos.source->rank : 0,
				 pos.line,
				 pos.column,
				 (unsigned)e->n,
				 warning,
				 xstrdup(buf_cstr(&b)) };
	e->n++;
	buf_fini(&b);
}

void conf_error_add(struct conf_errors *e, struct conf_pos pos, const char *path, const char *hint,
		    const char *fmt, ...)
{
	char what[WHAT_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	line_add(e, false, pos, path, hint, what);
}

void conf_error_warn(struct conf_errors *e, struct conf_pos pos, const char *path, const char *hint,
		     const char *fmt, ...)
{
	char what[WHAT_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	line_add(e, true, pos, path, hint, what);
}

void conf_error_at(struct conf_errors *e, const struct conf_node *node, const char *path,
		   const char *key, const char *hint, const char *fmt, ...)
{
	struct conf_pos pos = { NULL, 0, 0 };
	struct buf full = BUF_INIT;
	char what[WHAT_MAX];
	va_list ap;

	if (node != NULL)
		pos = conf_tree_pos(node, key);
	buf_add_str(&full, path != NULL ? path : "");
	if (key != NULL && key[0] != '\0')
		buf_printf(&full, "%s%s", full.n > 0 ? "." : "", key);
	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	line_add(e, false, pos, buf_cstr(&full), hint, what);
	buf_fini(&full);
}

bool conf_error_is_full(const struct conf_errors *e)
{
	return e->n >= LINES_MAX;
}

static int line_compare(const void *pa, const void *pb)
{
	const struct conf_line *a = pa, *b = pb;

	if (a->rank != b->rank)
		return a->rank < b->rank ? -1 : 1;
	if (a->line != b->line)
		return a->line < b->line ? -1 : 1;
	if (a->column != b->column)
		return a->column < b->column ? -1 : 1;
	return a->seq < b->seq ? -1 : a->seq > b->seq;
}

void conf_error_print(struct conf_errors *e, struct buf *out)
{
	unsigned all = e->n_errors + e->n_warnings;

	if (e->n > 1)
		qsort(e->lines, e->n, sizeof(*e->lines), line_compare);
	for (size_t i = 0; i < e->n; i++)
		buf_printf(out, "%s\n", e->lines[i].text);
	if (all > e->n)
		buf_printf(out, "and %u more errors and warnings\n", all - (unsigned)e->n);
}

void conf_error_fini(struct conf_errors *e)
{
	if (e == NULL)
		return;
	for (size_t i = 0; i < e->n; i++)
		free(e->lines[i].text);
	free(e->lines);
	*e = (struct conf_errors)CONF_ERRORS_INIT;
}
