/* SPDX-License-Identifier: Apache-2.0
 *
 * trace_view.c - see trace_view.h.
 *
 * DESIGN: two passes over the rows. The first finds how wide names are, the second draws. What the
 * lines of the tree look like at a row depends only on which of its ancestors have more siblings to
 * come: one flag per level, for as many levels as are drawn.
 */
#include "cmd/trace_view.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "cmd/terminal.h"
#include "wire/otlp_index.h"

#include <stdio.h>

#include "cmd/trace_detail.h"

enum {
	STEP = 3,         /* columns of one level */
	LEVELS_MAX = 200, /* drawn at most, however wide the terminal */
	KIND_WIDTH = 3,
	TIME_WIDTH = 8,
	FIXED_WIDTH = 2 + KIND_WIDTH + 1 + TIME_WIDTH + 3, /* between name and bar */
	BAR_MIN = 8,
	NAMES_SHOWN = 12,
};

struct glyphs {
	const char *open, *none, *branch, *last; /* 3 columns each */
	const char *bar, *point, *before, *after, *error;
};

static const struct glyphs box = { "\xe2\x94\x82  ",
				   "   ",
				   "\xe2\x94\x9c\xe2\x94\x80 ",
				   "\xe2\x94\x94\xe2\x94\x80 ",
				   "\xe2\x94\x81",
				   "\xe2\x95\xb8",
				   "\xe2\x80\xb9",
				   "\xe2\x80\xba",
				   "\xe2\x9c\x97" };
static const struct glyphs plain = { "|  ", "   ", "|- ", "`- ", "=", "-", "<", ">", "x" };

#define RED "\033[31m"
#define DIM "\033[2m"
#define RESET "\033[0m"

/* By service number; red is for errors. */
static const char *const palette[] = { "\033[36m", "\033[32m", "\033[33m", "\033[35m",
				       "\033[34m", "\033[96m", "\033[92m", "\033[93m" };

struct view {
	const struct trace_tree *t;
	const struct trace_view_options *o;
	const struct glyphs *g;
	struct buf *out;
	unsigned name_width, bar_width; /* 0: no room for bars */
	unsigned levels;                /* drawn */
	bool has_more[LEVELS_MAX + 1];  /* by level: the branch there goes on below */
};

static const char *kind_name(uint8_t kind)
{
	static const char *const names[] = { "", "int", "srv", "cli", "pro", "con" };

	return kind < COUNT_OF(names) ? names[kind] : "?";
}

static void colour(const struct view *v, const char *sequence)
{
	if (v->o->has_colour)
		buf_add_str(v->out, sequence);
}

static void spaces(struct buf *out, unsigned n)
{
	buf_printf(out, "%*s", (int)n, "");
}

/* ---- header ---- */

/* Names as long as they fit on the line, then how many there are besides. */
static void draw_services(const struct view *v)
{
	enum { NAME_MAX_WIDTH = 40, MORE_WIDTH = 14 };
	char when[CLOCK_RFC3339_SIZE];
	unsigned at, n = v->t->n_services;

	clock_format_rfc3339(v->t->start_ns, when);
	buf_add_str(v->out, when);
	at = (unsigned)strlen(when);
	for (uint32_t i = 0; i < n; i++) {
		struct bytes name = v->t->names[i].n ? v->t->names[i] : BYTES_LIT("unknown");
		unsigned want = 2 + MIN(terminal_text_width(name, NAME_MAX_WIDTH), NAME_MAX_WIDTH);

		if (i == NAMES_SHOWN || at + want + (i + 1 < n ? MORE_WIDTH : 0) > v->o->width) {
			buf_printf(v->out, "%s%u %s", i == 0 ? "  " : " and ", n - i,
				   i == 0 ? "services" : "more");
			break;
		}
		buf_add_str(v->out, i == 0 ? "  " : ", ");
		colour(v, palette[i % COUNT_OF(palette)]);
		terminal_add_text(v->out, name, NAME_MAX_WIDTH, v->o->ascii);
		colour(v, RESET);
		at += want;
	}
	buf_add_str(v->out, "\n\n");
}

static void add_count(struct buf *out, uint32_t n, const char *what)
{
	buf_printf(out, ", %u %s%s", n, what, n == 1 ? "" : "s");
}

/* "11 spans, 3 services, 206 ms, 1 missing parent", and errors in red. On a line of its own when it
 * does not fit behind the id. */
static void draw_counts(const struct view *v, const char *time, unsigned at)
{
	struct buf text = BUF_INIT, errors = BUF_INIT;

	buf_printf(&text, "%u span%s", v->t->n_spans, v->t->n_spans == 1 ? "" : "s");
	add_count(&text, v->t->n_services, "service");
	buf_printf(&text, ", %s", time);
	if (v->t->n_missing > 0)
		add_count(&text, v->t->n_missing, "missing parent");
	if (v->t->n_errors > 0)
		add_count(&errors, v->t->n_errors, "error");
	buf_add_str(v->out, at + 2 + text.n + errors.n > v->o->width ? "\n" : "  ");
	buf_add_bytes(v->out, buf_bytes(&text));
	colour(v, errors.n > 0 ? RED : "");
	buf_add_bytes(v->out, buf_bytes(&errors));
	colour(v, errors.n > 0 ? RESET : "");
	buf_add_char(v->out, '\n');
	buf_fini(&text);
	buf_fini(&errors);
}

static void draw_header(const struct view *v, const char *trace_id)
{
	char time[TERMINAL_TIME_SIZE];

	terminal_format_time(v->t->end_ns - v->t->start_ns, v->o->ascii, time);
	buf_printf(v->out, "trace %s", trace_id);
	draw_counts(v, time, 6 + (unsigned)strlen(trace_id));
	draw_services(v);
	if (v->bar_width == 0)
		return;
	spaces(v->out, v->name_width + FIXED_WIDTH);
	buf_printf(v->out, "0%*s\n",
		   (int)(v->bar_width - 1 + strlen(time)) -
			   (int)terminal_text_width(bytes_str(time), 100),
		   time);
}

/* ---- the name column ---- */

/* The lines of the tree in front of a row; returns their columns. */
static unsigned draw_lines(struct view *v, const struct tree_row *row)
{
	uint32_t drawn = MIN(row->depth, v->levels);
	unsigned width = drawn * STEP;
	char more[16];

	colour(v, DIM);
	for (uint32_t i = 1; i <= drawn; i++)
		buf_add_str(v->out, i == row->depth  ? (row->is_last ? v->g->last : v->g->branch)
				    : v->has_more[i] ? v->g->open
						     : v->g->none);
	if (row->depth > drawn) {
		int n = snprintf(more, sizeof(more), "+%u ", row->depth - drawn);

		buf_add_str(v->out, more);
		width += (unsigned)n;
	}
	colour(v, RESET);
	if (row->depth <= v->levels)
		v->has_more[row->depth] = !row->is_last;
	return width;
}

static unsigned draw_span_name(const struct view *v, const struct tree_row *row, unsigned room)
{
	uint32_t r = trace_tree_resource(v->t, row->span);
	struct bytes service = v->t->services[r];
	bool is_error = row->span->status == STATUS_ERROR;
	unsigned width;

	colour(v, palette[v->t->service_number[r] % COUNT_OF(palette)]);
	width = terminal_add_text(v->out, service.n ? service : BYTES_LIT("unknown"),
				  MIN(room, MAX(room / 2, 10)), v->o->ascii);
	colour(v, RESET);
	if (width + 3 > room)
		return width;
	buf_add_str(v->out, "  ");
	width += 2;
	colour(v, is_error ? RED : "");
	if (row->is_cut && room - width > 12) {
		buf_add_str(v->out, "(circle) ");
		width += 9;
	}
	width += terminal_add_text(v->out, span_name(row->span), room - width, v->o->ascii);
	colour(v, RESET);
	return width;
}

static unsigned draw_missing_name(const struct view *v, const struct tree_row *row, unsigned room)
{
	char hex[17], text[64];
	unsigned width;

	str_hex(row->missing_id, 8, hex);
	snprintf(text, sizeof(text), "missing parent %s", hex);
	colour(v, DIM);
	width = terminal_add_text(v->out, bytes_str(text), room, v->o->ascii);
	colour(v, RESET);
	return width;
}

/* ---- the bar ---- */

/* Column of a moment on the time line; 0 and bar_width are its ends. */
static unsigned column(const struct view *v, uint64_t t)
{
	uint64_t whole = v->t->end_ns - v->t->start_ns;

	if (t <= v->t->start_ns || whole == 0)
		return 0;
	if (t >= v->t->end_ns)
		return v->bar_width;
	return (unsigned)((double)(t - v->t->start_ns) / (double)whole * v->bar_width);
}

static void draw_bar(const struct view *v, const struct span_ref *sp)
{
	unsigned from = column(v, sp->start_ns), to = column(v, sp->end_ns);
	uint32_t r = trace_tree_resource(v->t, sp);

	colour(v, sp->status == STATUS_ERROR
			  ? RED
			  : palette[v->t->service_number[r] % COUNT_OF(palette)]);
	if (sp->end_ns < v->t->start_ns) {
		buf_add_str(v->out, v->g->before);
	} else if (sp->start_ns > v->t->end_ns) {
		spaces(v->out, v->bar_width - 1);
		buf_add_str(v->out, v->g->after);
	} else if (from >= to) {
		spaces(v->out, MIN(from, v->bar_width - 1));
		buf_add_str(v->out, v->g->point);
	} else {
		spaces(v->out, from);
		for (unsigned i = from; i < to; i++)
			buf_add_str(v->out, v->g->bar);
	}
	colour(v, RESET);
}

/* ---- rows ---- */

static void draw_times(const struct view *v, const struct span_ref *sp)
{
	char time[TERMINAL_TIME_SIZE] = "?"; /* it ends before it starts */

	if (sp->end_ns >= sp->start_ns)
		terminal_format_time(sp->end_ns - sp->start_ns, v->o->ascii, time);
	buf_printf(v->out, "%-*s ", KIND_WIDTH, kind_name(sp->kind));
	spaces(v->out, TIME_WIDTH - MIN(TIME_WIDTH, terminal_text_width(bytes_str(time), 100)));
	buf_add_str(v->out, time);
	if (sp->status == STATUS_ERROR) {
		colour(v, RED);
		buf_printf(v->out, " %s ", v->g->error);
		colour(v, RESET);
	} else {
		buf_add_str(v->out, "   ");
	}
}

/* What stands left of the lines under a span: its branches, going on. */
static void indent_details(const struct view *v, const struct tree_row *row, struct buf *indent)
{
	uint32_t drawn = MIN(row->depth, v->levels);

	buf_reset(indent);
	for (uint32_t i = 1; i <= drawn; i++)
		buf_add_str(indent, v->has_more[i] ? v->g->open : v->g->none);
	buf_add_str(indent, row->has_children && row->depth < v->levels ? v->g->open : v->g->none);
}

static void trim(struct buf *out)
{
	while (out->n > 0 && out->p[out->n - 1] == ' ')
		out->n--;
}

static void draw_row(struct view *v, const struct tree_row *row, struct buf *indent)
{
	unsigned width = draw_lines(v, row), room = v->name_width - MIN(width, v->name_width);

	width += row->span != NULL ? draw_span_name(v, row, room) : draw_missing_name(v, row, room);
	if (row->span != NULL) {
		spaces(v->out, v->name_width - MIN(width, v->name_width) + 2);
		draw_times(v, row->span);
		if (v->bar_width > 0)
			draw_bar(v, row->span);
		trim(v->out);
	}
	buf_add_char(v->out, '\n');
	if (row->span == NULL || !v->o->attributes)
		return;
	indent_details(v, row, indent);
	trace_detail_draw(row->span, buf_bytes(indent), v->o->ascii, v->out);
}

/* Columns a row wants for its name. */
static unsigned wanted(const struct view *v, const struct tree_row *row)
{
	unsigned width = MIN(row->depth, v->levels) * STEP + (row->depth > v->levels ? 8 : 0);
	struct bytes service;

	if (row->span == NULL)
		return width + 31;
	service = v->t->services[trace_tree_resource(v->t, row->span)];
	return width + terminal_text_width(service.n ? service : BYTES_LIT("unknown"), 40) + 2 +
	       (row->is_cut ? 9 : 0) + terminal_text_width(span_name(row->span), 100);
}

/* Names get what they want up to half of the width, or to all that a short bar leaves. */
static void share_width(struct view *v)
{
	unsigned most = v->o->width > 2 * FIXED_WIDTH ? v->o->width / 2 : v->o->width - FIXED_WIDTH;
	unsigned want = 16, left;

	v->levels = MIN(most / 2 / STEP, LEVELS_MAX);
	for (size_t i = 0; i < v->t->n_rows && want < most; i++)
		want = MAX(want, wanted(v, &v->t->rows[i]));
	v->name_width = MIN(want, most);
	left = v->o->width - MIN(v->o->width, v->name_width + FIXED_WIDTH + 1);
	v->bar_width = left >= BAR_MIN ? left : 0;
}

void trace_view_draw(const struct trace_tree *t, const char *trace_id,
		     const struct trace_view_options *o, struct buf *out)
{
	struct view v = { .t = t, .o = o, .g = o->ascii ? &plain : &box, .out = out };
	struct buf indent = BUF_INIT;

	share_width(&v);
	draw_header(&v, trace_id);
	for (size_t i = 0; i < t->n_rows; i++)
		draw_row(&v, &t->rows[i], &indent);
	buf_fini(&indent);
}
