/* SPDX-License-Identifier: Apache-2.0
 *
 * exemplar.c - processor that tags, before pipelines part, the spans that exemplars will name.
 *
 *   traces:  named by an application's exemplar, or hinted by an SDK -> kept (sampling.reason)
 *            offered to the connectors: who takes a slot -> tagged in line
 *   metrics: pass unchanged; their exemplars name traces (look_back.h)
 *
 * DESIGN: a tag is written before anybody knows whether the span will be shown, and cannot be taken
 * back: a later span may take the slot over, the tag stays (of n spans of a slot about ln n have
 * one). So it is in the span's bytes wherever they go and whatever crashes. Attributes of these
 * names that a span brings along stay as they are.
 * THREADS: stateless but for look_back.h; connectors answer on any thread.
 * SPEC: docs/exemplars.md; the hints are those of client_java and of the draft of OpenTelemetry.
 */
#include "base/mem.h"
#include "pipeline/telemetry.h"
#include "processors/exemplar/look_back.h"
#include "wire/otlp_attr.h"
#include "wire/span_wish.h"
#include "wire/tracestate.h"

enum { SPAN_ATTRIBUTES = 9 };

#define METRIC_KEY "exemplar.metric"

struct exemplar_config {
	struct strlist connectors;
	const char *attribute;
	struct look_back_config {
		int64_t max_age_ns;
		uint64_t max_bytes;
	} look_back;
};

struct exemplar_state {
	struct component **connectors; /* those that run */
	size_t n_connectors;
	struct look_back *look_back;
	_Atomic uint64_t n_tagged, n_kept;
};

static const struct option look_back_options[] = {
	OPT_DURATION(struct look_back_config, "max_age", max_age_ns, "30s",
		     "How long a trace that an exemplar names is kept, and how long spans that "
		     "passed can still be asked for."),
	OPT_BYTES(struct look_back_config, "max_bytes", max_bytes, "16MiB", 0, INT64_C(1) << 40,
		  "Spans that passed, held for exemplars that come after them; 0 holds none."),
	OPT_END
};

#define C struct exemplar_config
static const struct option exemplar_options[] = {
	OPT_CONNECTORS(C, "connectors", connectors,
		       "Connectors that show exemplars: the spans that take their slots are "
		       "tagged. Without one it only keeps what applications' exemplars name."),
	OPT_STR(C, "attribute", attribute, "exemplar", "The tag: this attribute is true."),
	OPT_TABLE(C, "look_back", look_back, struct look_back_config, look_back_options,
		  "Applications' own exemplars, in metrics that pass the processor of this id."),
	OPT_END
};
#undef C

static bool always(const void *config)
{
	(void)config;
	return true;
}

/* ---- life ---- */

static void bind_connectors(struct component *c)
{
	const struct exemplar_config *conf = COMPONENT_CONFIG(c, struct exemplar_config);
	struct exemplar_state *st = COMPONENT_STATE(c, struct exemplar_state);

	st->connectors = xcalloc(MAX(conf->connectors.n, (size_t)1), sizeof(*st->connectors));
	for (size_t i = 0; i < conf->connectors.n; i++) {
		struct component *to = component_connector(c, conf->connectors.items[i]);

		if (to == NULL || to->type->exemplar_offer == NULL)
			continue;
		st->connectors[st->n_connectors++] = to;
		if (to->type->exemplar_bound != NULL)
			to->type->exemplar_bound(to, true);
	}
}

static int exemplar_start(struct component *c, struct err *err)
{
	const struct exemplar_config *conf = COMPONENT_CONFIG(c, struct exemplar_config);
	struct exemplar_state *st = COMPONENT_STATE(c, struct exemplar_state);
	struct look_back_limits limits = { conf->look_back.max_age_ns, conf->look_back.max_bytes };

	(void)err;
	if (c->signal == OTLP_TRACES)
		bind_connectors(c);
	st->look_back = look_back_open(c, &limits);
	return 0;
}

static void exemplar_drain(struct component *c)
{
	look_back_drain(COMPONENT_STATE(c, struct exemplar_state)->look_back, c);
}

static void exemplar_shutdown(struct component *c)
{
	struct exemplar_state *st = COMPONENT_STATE(c, struct exemplar_state);

	for (size_t i = 0; i < st->n_connectors; i++)
		if (st->connectors[i]->type->exemplar_bound != NULL)
			st->connectors[i]->type->exemplar_bound(st->connectors[i], false);
	free(st->connectors);
	look_back_close(st->look_back, c);
	st->connectors = NULL;
	st->n_connectors = 0;
	st->look_back = NULL;
}

/* ---- writing ---- */

static bool has(const struct span_ref *sp, const char *key)
{
	struct bytes value;

	return span_attribute(sp, bytes_str(key), &value);
}

/* What is in `fields` goes behind the span's others. */
static void append(struct batch *b, uint32_t i, struct buf *fields)
{
	if (fields->n > 0)
		batch_append_field(
			b, i,
			(struct bytes){ arena_dup(&b->arena, fields->p, fields->n), fields->n });
	buf_reset(fields);
}

static void tag(const struct exemplar_config *conf, struct batch *b, uint32_t i, const char *metric,
		struct buf *fields)
{
	struct span_ref *sp = &b->tables.spans[i];

	if (!has(sp, conf->attribute))
		otlp_attr_uint(fields, SPAN_ATTRIBUTES, bytes_str(conf->attribute), OTLP_BOOL, 1);
	if (!has(sp, METRIC_KEY))
		otlp_attr_bytes(fields, SPAN_ATTRIBUTES, BYTES_LIT(METRIC_KEY), OTLP_STRING,
				bytes_str(metric));
	append(b, i, fields);
	sp->takes_slot = true;
}

static void keep(struct batch *b, uint32_t i, struct buf *fields)
{
	struct span_ref *sp = &b->tables.spans[i];

	if (!has(sp, SPAN_REASON_KEY))
		otlp_attr_bytes(fields, SPAN_ATTRIBUTES, BYTES_LIT(SPAN_REASON_KEY), OTLP_STRING,
				BYTES_LIT(SPAN_REASON_EXEMPLAR));
	append(b, i, fields);
	sp->is_kept = true;
}

/* ---- traces ---- */

/* Which spans an exemplar of somebody else's names; true when any. */
static bool find_kept(struct exemplar_state *st, const struct batch *b, uint8_t *kept)
{
	uint32_t n = b->tables.n_spans;
	bool any = false;

	if (look_back_has_names(st->look_back))
		look_back_mark(st->look_back, b, kept);
	for (uint32_t i = 0; i < n; i++) {
		kept[i] |= span_is_hinted(&b->tables.spans[i]);
		any |= kept[i] != 0;
	}
	return any;
}

static struct batch *keep_named(struct component *c, struct batch *b, struct buf *fields)
{
	struct exemplar_state *st = COMPONENT_STATE(c, struct exemplar_state);
	uint8_t *kept = xcalloc(MAX(b->tables.n_spans, 1u), 1);

	if (find_kept(st, b, kept)) {
		b = batch_editable(b);
		for (uint32_t i = 0; i < b->tables.n_spans; i++)
			if (kept[i]) {
				keep(b, i, fields);
				atomic_fetch_add_explicit(&st->n_kept, 1, memory_order_relaxed);
			}
	}
	free(kept);
	return b;
}

static struct batch *tag_takers(struct component *c, struct batch *b, struct buf *fields)
{
	const struct exemplar_config *conf = COMPONENT_CONFIG(c, struct exemplar_config);
	struct exemplar_state *st = COMPONENT_STATE(c, struct exemplar_state);
	const char **takes = xcalloc(MAX(b->tables.n_spans, 1u), sizeof(*takes));
	uint64_t n = 0;

	for (size_t i = 0; i < st->n_connectors; i++)
		st->connectors[i]->type->exemplar_offer(st->connectors[i], b, takes);
	for (uint32_t i = 0; i < b->tables.n_spans; i++)
		n += takes[i] != NULL;
	if (n > 0)
		b = batch_editable(b);
	for (uint32_t i = 0; n > 0 && i < b->tables.n_spans; i++)
		if (takes[i] != NULL)
			tag(conf, b, i, takes[i], fields);
	atomic_fetch_add_explicit(&st->n_tagged, n, memory_order_relaxed);
	free(takes);
	return b;
}

static void consume_traces(struct component *c, struct batch *b)
{
	struct exemplar_state *st = COMPONENT_STATE(c, struct exemplar_state);
	struct buf fields = BUF_INIT; /* one for all spans of the batch */

	b = keep_named(c, b, &fields);
	/* After it: what is kept may be shown, whatever its R. */
	if (st->n_connectors > 0)
		b = tag_takers(c, b, &fields);
	buf_fini(&fields);
	if (look_back_is_fed(st->look_back))
		look_back_pass(st->look_back, c, b, component_sampled_ratio(c));
	component_emit(c, b);
}

static void exemplar_consume(struct component *c, struct batch *b)
{
	if (c->signal == OTLP_TRACES) {
		consume_traces(c, b);
		return;
	}
	look_back_name(COMPONENT_STATE(c, struct exemplar_state)->look_back, b);
	component_emit(c, b);
}

/* ---- metrics of its own ---- */

static void row(const struct component *c, const char *pipeline, struct buf *out, const char *name,
		const char *kind, double v, const char *help)
{
	telemetry_head(out, name, kind, help);
	telemetry_sample(out, name, v, "processor", c->id, pipeline ? "pipeline" : NULL, pipeline,
			 NULL);
}

/* What the instances of one id share: one of them tells. */
static void shared_metrics(struct component *c, struct buf *out)
{
	struct exemplar_state *st = COMPONENT_STATE(c, struct exemplar_state);
	struct look_back_stats s;

	if (st->look_back == NULL || !look_back_stats(st->look_back, c, &s))
		return;
	row(c, NULL, out, "spanmill_exemplar_sent_again_spans", "counter", (double)s.n_again,
	    "Spans that had passed, and been dropped, when an exemplar named their trace.");
	row(c, NULL, out, "spanmill_exemplar_named_traces", "gauge", (double)s.n_named,
	    "Traces that exemplars of applications name now.");
	row(c, NULL, out, "spanmill_exemplar_look_back_bytes", "gauge", (double)s.n_bytes,
	    "Bytes of spans held for exemplars that come after them.");
}

static void exemplar_metrics(struct component *c, struct buf *out)
{
	struct exemplar_state *st = COMPONENT_STATE(c, struct exemplar_state);
	uint64_t th = component_exemplar_guard(c);

	if (c->signal == OTLP_TRACES) {
		row(c, c->pipeline, out, "spanmill_exemplar_tagged_spans", "counter",
		    (double)atomic_load(&st->n_tagged), "Spans tagged because they took a slot.");
		row(c, c->pipeline, out, "spanmill_exemplar_kept_spans", "counter",
		    (double)atomic_load(&st->n_kept),
		    "Spans kept because an exemplar of an application names them.");
		row(c, c->pipeline, out, "spanmill_exemplar_guard", "gauge",
		    th == TH_UNKNOWN ? 0 : tracestate_probability(th),
		    "The keep rate that every sampler of the fleet must grant.");
	}
	shared_metrics(c, out);
}

const struct component_type processor_exemplar = {
	.name = "exemplar",
	.kind = KIND_PROCESSOR,
	.summary =
		"Tags the spans that exemplars will name, and keeps those that they name already.",
	.stability = STABILITY_ALPHA,
	.signals = SIGNAL_TRACES | SIGNAL_METRICS,
	.config_size = sizeof(struct exemplar_config),
	.state_size = sizeof(struct exemplar_state),
	.options = exemplar_options,
	.start = exemplar_start,
	.consume = exemplar_consume,
	.drain = exemplar_drain,
	.shutdown = exemplar_shutdown,
	.metrics = exemplar_metrics,
	.may_overlap = component_overlaps,
	.uses_exemplars = always,
};
