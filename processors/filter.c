/* SPDX-License-Identifier: Apache-2.0
 *
 * filter.c - processor that drops what a condition matches: the Collector's filter for traces.
 *
 *   resource, scope   all spans below it go
 *   span              the span goes
 *   spanevent         the event goes, the span stays
 *
 * Conditions are or-ed. What goes is counted (spanmill_dropped_spans{reason="filtered"}) and is a
 * success for the sender. THREADS: stateless but for what start parsed. SPEC: the Collector's
 * filter processor: traces, trace_conditions and the old spans.include/exclude.
 */
#include "base/mem.h"
#include "pipeline/component.h"
#include "pipeline/conf/error.h"
#include "pipeline/conf/tree.h"
#include "pipeline/ottl/ottl.h"
#include "pipeline/edit/span_match.h"
#include "pipeline/telemetry.h"
#include "wire/pb.h"

#include <stdio.h>

enum error_mode { MODE_IGNORE, MODE_SILENT, MODE_PROPAGATE };
enum { SPAN_EVENTS = 11 };

struct filter_config {
	int error_mode;
	const struct conf_node *resource, *scope, *span, *spanevent; /* below traces */
	const struct conf_node *trace_conditions;
	struct span_match_sides spans;
};

/* Conditions of one context. */
struct conditions {
	struct ottl_condition **v;
	size_t n, cap;
};

struct filter_state {
	struct conditions of[OTTL_CONTEXT_MAX];
	struct span_match *match; /* NULL: the old form is not used */
	_Atomic uint64_t n_filtered, n_errors;
};

static const struct option_choice error_modes[] = { { "ignore", MODE_IGNORE },
						    { "silent", MODE_SILENT },
						    { "propagate", MODE_PROPAGATE },
						    { NULL, 0 } };

#define C struct filter_config
static const struct option filter_options[] = {
	OPT_ENUM(
		C, "error_mode", error_mode, error_modes, "ignore",
		"When a condition cannot be told for a span: ignore (it does not match, a log line "
		"says so), silent (no line) or propagate (the request is refused)."),
	OPT_NODE(C, "traces.resource", resource, "['attributes[\"a\"] == nil']",
		 "Conditions on resources."),
	OPT_NODE(C, "traces.scope", scope, "['name == \"lib\"']", "Conditions on scopes."),
	OPT_NODE(C, "traces.span", span, "['name == \"health\"']", "Conditions on spans."),
	OPT_NODE(C, "traces.spanevent", spanevent, "['name == \"retry\"']",
		 "Conditions on events of spans."),
	OPT_NODE(C, "trace_conditions", trace_conditions, "['span.name == \"health\"']",
		 "Conditions whose paths say of what they are (span.name), or groups {context, "
		 "conditions}."),
	OPT_SECTION_NULL_OFF(C, "spans.include", spans.include.is_on, spans.include,
			     struct span_match_options, span_match_side_table,
			     "The old form: keep only these."),
	OPT_SECTION_NULL_OFF(C, "spans.exclude", spans.exclude.is_on, spans.exclude,
			     struct span_match_options, span_match_side_table,
			     "The old form: drop these."),
	OPT_UNSUPPORTED("metrics", "Spanmill filters traces"),
	OPT_UNSUPPORTED("logs", "Spanmill filters traces"),
	OPT_UNSUPPORTED("metric_conditions", "Spanmill filters traces"),
	OPT_UNSUPPORTED("log_conditions", "Spanmill filters traces"),
	OPT_END
};
#undef C

/* ---- parsing: the same walk checks and makes ---- */

struct walk {
	struct filter_state *st;
	struct conf_errors *errs; /* NULL at start: all was checked */
	char path[400];
};

static void add_condition(struct walk *w, const struct conf_node *at, const char *path,
			  const char *text, enum ottl_context context)
{
	struct err err = ERR_INIT;
	struct ottl_condition *c = ottl_condition_new(text, context, &err);
	struct conditions *to;

	if (c == NULL) {
		if (w->errs != NULL)
			conf_error_add(w->errs, at->pos, path,
				       "docs/formats/ottl.md says what there is", "%s", err.msg);
		return;
	}
	to = &w->st->of[ottl_condition_context(c)];
	to->v = xgrow(to->v, &to->cap, to->n + 1, sizeof(struct ottl_condition *));
	to->v[to->n++] = c;
}

/* A list of texts, or one text; others are reported. */
static void add_conditions(struct walk *w, const struct conf_node *list, const char *path,
			   enum ottl_context context);

static bool context_of(const char *name, enum ottl_context *out)
{
	static const struct {
		const char *name;
		enum ottl_context context;
	} names[] = { { "resource", OTTL_RESOURCE },
		      { "scope", OTTL_SCOPE },
		      { "span", OTTL_SPAN },
		      { "spanevent", OTTL_SPAN_EVENT } };

	for (size_t i = 0; i < COUNT_OF(names); i++)
		if (strcmp(name, names[i].name) == 0) {
			*out = names[i].context;
			return true;
		}
	return false;
}

/* {context: span, conditions: [...]}; without a context the paths say it. */
static void add_group(struct walk *w, const struct conf_node *group, const char *path)
{
	const struct conf_node *name = conf_tree_find(group, "context");
	const struct conf_node *list = conf_tree_find(group, "conditions");
	enum ottl_context context = OTTL_CONTEXT_MAX;

	if (name != NULL && (name->kind != CONF_SCALAR || !context_of(name->text, &context))) {
		if (w->errs != NULL)
			conf_error_add(w->errs, name->pos, path,
				       "resource, scope, span or spanevent", "unknown context");
		return;
	}
	if (list == NULL && w->errs != NULL)
		conf_error_add(w->errs, group->pos, path, "write {conditions: [...]}",
			       "a group without conditions");
	add_conditions(w, list, path, context);
}

static void add_conditions(struct walk *w, const struct conf_node *list, const char *path,
			   enum ottl_context context)
{
	const struct conf_node *n = list;
	char at[500];
	size_t i = 0;

	if (list == NULL || list->kind == CONF_NULL)
		return;
	if (list->kind == CONF_LIST)
		n = list->first;
	for (; n != NULL; n = list->kind == CONF_LIST ? n->next : NULL) {
		snprintf(at, sizeof(at), "%s[%zu]", path, i++);
		if (n->kind == CONF_SCALAR)
			add_condition(w, n, at, n->text, context);
		else if (n->kind == CONF_MAP && context == OTTL_CONTEXT_MAX)
			add_group(w, n, at);
		else if (w->errs != NULL)
			conf_error_add(w->errs, n->pos, at, "write '- name == \"health\"'",
				       "expected a condition, got '%s'", conf_tree_type_name(n));
	}
}

static void add_all(struct walk *w, const struct filter_config *c)
{
	const struct {
		const char *key;
		const struct conf_node *list;
		enum ottl_context context;
	} lists[] = { { "traces.resource", c->resource, OTTL_RESOURCE },
		      { "traces.scope", c->scope, OTTL_SCOPE },
		      { "traces.span", c->span, OTTL_SPAN },
		      { "traces.spanevent", c->spanevent, OTTL_SPAN_EVENT },
		      { "trace_conditions", c->trace_conditions, OTTL_CONTEXT_MAX } };
	char path[500];

	for (size_t i = 0; i < COUNT_OF(lists); i++) {
		snprintf(path, sizeof(path), "%s.%s", w->path, lists[i].key);
		add_conditions(w, lists[i].list, path, lists[i].context);
	}
}

static void free_all(struct filter_state *st)
{
	for (int k = 0; k < OTTL_CONTEXT_MAX; k++) {
		for (size_t i = 0; i < st->of[k].n; i++)
			ottl_condition_free(st->of[k].v[i]);
		free(st->of[k].v);
		st->of[k] = (struct conditions){ NULL, 0, 0 };
	}
	span_match_free(st->match);
	st->match = NULL;
}

static void filter_validate(void *config, const struct conf_node *node, struct conf_errors *errs,
			    const char *path)
{
	const struct filter_config *c = config;
	struct filter_state st = { .match = NULL };
	struct walk w = { .st = &st, .errs = errs };

	snprintf(w.path, sizeof(w.path), "%s", path);
	add_all(&w, c);
	free_all(&st);
	snprintf(w.path, sizeof(w.path), "%s.spans", path);
	span_match_check(&c->spans, conf_tree_find(node, "spans"), errs, w.path);
}

static int filter_start(struct component *c, struct err *err)
{
	const struct filter_config *conf = COMPONENT_CONFIG(c, struct filter_config);
	struct filter_state *st = COMPONENT_STATE(c, struct filter_state);
	struct walk w = { .st = st };

	add_all(&w, conf);
	if (!conf->spans.include.is_on && !conf->spans.exclude.is_on)
		return 0;
	st->match = span_match_new(&conf->spans, err);
	return st->match != NULL ? 0 : -1;
}

/* ---- data ---- */

/* One pass over a batch. */
struct pass {
	struct component *c;
	struct filter_state *st;
	struct ottl_subject subject;
	int error_mode;
	bool failed; /* propagate: the batch is refused */
	struct err err;
};

static void count_error(struct pass *p, const struct err *err)
{
	atomic_fetch_add_explicit(&p->st->n_errors, 1, memory_order_relaxed);
	if (p->error_mode == MODE_PROPAGATE && !p->failed) {
		p->failed = true;
		p->err = *err;
	}
	if (p->error_mode != MODE_SILENT)
		log_warn("a condition cannot be told, it does not match", "component", p->c->id,
			 "error", err->msg);
}

static bool any_met(struct pass *p, enum ottl_context context)
{
	const struct conditions *list = &p->st->of[context];

	for (size_t i = 0; i < list->n; i++) {
		struct err err = ERR_INIT;
		int met = ottl_condition_met(list->v[i], &p->subject, &err);

		if (met < 0)
			count_error(p, &err);
		else if (met > 0)
			return true;
	}
	return false;
}

/* keep[i] for each span; what is decided by resource and scope is decided once a scope. Returns how
 * many stay. */
static uint32_t decide(struct pass *p, const struct batch *b, uint8_t *keep)
{
	struct span_match_run run;
	uint32_t n = 0, scope = UINT32_MAX;
	bool is_out = false;

	if (p->st->match != NULL)
		span_match_begin(&run, p->st->match, b);
	for (uint32_t i = 0; i < b->tables.n_spans; i++) {
		const struct span_ref *sp = &b->tables.spans[i];

		if (sp->scope != scope) {
			scope = sp->scope;
			p->subject.scope = scope;
			p->subject.resource = b->tables.scopes[scope].resource;
			p->subject.span = NULL;
			is_out = any_met(p, OTTL_RESOURCE) || any_met(p, OTTL_SCOPE);
		}
		p->subject.span = sp;
		keep[i] = !is_out && !any_met(p, OTTL_SPAN) &&
			  (p->st->match == NULL || span_match_span(&run, i));
		n += keep[i];
	}
	if (p->st->match != NULL)
		span_match_end(&run);
	return n;
}

/* Append the fields without the events that are out, as runs. Is anything out? */
static bool cut_events(struct pass *p, struct bytes span, struct bytes **runs, size_t *n,
		       size_t *cap)
{
	struct pb_field f = { 0 };
	bool changed = false;

	while (pb_next(&span, &f) > 0) {
		if (f.number == SPAN_EVENTS && f.wire == PB_LEN) {
			p->subject.event = f.data;
			if (any_met(p, OTTL_SPAN_EVENT)) {
				changed = true;
				p->subject.event_index++;
				continue;
			}
			p->subject.event_index++;
		}
		if (*n > 0 && (*runs)[*n - 1].p + (*runs)[*n - 1].n == f.raw.p) {
			(*runs)[*n - 1].n += f.raw.n;
			continue;
		}
		*runs = xgrow(*runs, cap, *n + 1, sizeof(**runs));
		(*runs)[(*n)++] = f.raw;
	}
	return changed;
}

static struct batch *filter_events(struct pass *p, struct batch *b)
{
	struct bytes *runs = NULL;
	size_t cap = 0;

	b = batch_editable(b);
	p->subject.tables = &b->tables;
	for (uint32_t i = 0; i < b->tables.n_spans; i++) {
		const struct span_ref *sp = &b->tables.spans[i];
		const struct bytes whole = { sp->p, sp->len };
		const struct bytes *v = sp->pieces ? sp->pieces : &whole;
		unsigned n_v = sp->pieces ? sp->n_pieces : 1;
		bool changed = false;
		size_t n = 0;

		p->subject.span = sp;
		p->subject.scope = sp->scope;
		p->subject.resource = b->tables.scopes[sp->scope].resource;
		p->subject.event_index = 0;
		for (unsigned k = 0; k < n_v; k++)
			changed |= cut_events(p, v[k], &runs, &n, &cap);
		if (changed)
			batch_set_span(b, i, runs, n);
	}
	free(runs);
	return b;
}

static void filter_consume(struct component *c, struct batch *b)
{
	const struct filter_config *conf = COMPONENT_CONFIG(c, struct filter_config);
	struct filter_state *st = COMPONENT_STATE(c, struct filter_state);
	struct pass p = { .c = c, .st = st, .error_mode = conf->error_mode, .err = ERR_INIT };
	uint8_t *keep = xmalloc(b->tables.n_spans);
	uint32_t n_kept, n = b->tables.n_spans;

	p.subject.tables = &b->tables;
	n_kept = decide(&p, b, keep);
	if (!p.failed && n_kept < n)
		b = batch_filter(b, keep, DROP_FILTERED);
	free(keep);
	if (!p.failed && b != NULL && st->of[OTTL_SPAN_EVENT].n > 0)
		b = filter_events(&p, b);
	if (p.failed) {
		batch_settle(b, VERDICT_PERMANENT, DROP_PERMANENT, &p.err);
		batch_unref(b);
		return;
	}
	atomic_fetch_add_explicit(&st->n_filtered, n - n_kept, memory_order_relaxed);
	if (b != NULL)
		component_emit(c, b);
}

static void filter_shutdown(struct component *c)
{
	free_all(COMPONENT_STATE(c, struct filter_state));
}

static void filter_metrics(struct component *c, struct buf *out)
{
	static const char filtered[] = "otelcol_processor_filter_spans_filtered";
	static const char errors[] = "spanmill_filter_condition_errors";
	struct filter_state *st = COMPONENT_STATE(c, struct filter_state);

	telemetry_head(out, filtered, "counter", "Spans dropped by a condition.");
	telemetry_sample(out, filtered, (double)atomic_load(&st->n_filtered), "filter", c->id,
			 "pipeline", c->pipeline, NULL);
	telemetry_head(out, errors, "counter", "Conditions that could not be told for something.");
	telemetry_sample(out, errors, (double)atomic_load(&st->n_errors), "filter", c->id,
			 "pipeline", c->pipeline, NULL);
}

const struct component_type processor_filter = {
	.name = "filter",
	.kind = KIND_PROCESSOR,
	.summary = "Drops spans and events that match a condition.",
	.stability = STABILITY_ALPHA,
	.signals = SIGNAL_TRACES,
	.may_overlap = component_overlaps,
	.config_size = sizeof(struct filter_config),
	.state_size = sizeof(struct filter_state),
	.options = filter_options,
	.validate = filter_validate,
	.start = filter_start,
	.consume = filter_consume,
	.shutdown = filter_shutdown,
	.metrics = filter_metrics,
};
