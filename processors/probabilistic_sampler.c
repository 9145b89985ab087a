/* SPDX-License-Identifier: Apache-2.0
 *
 * probabilistic_sampler.c - processor that keeps a fixed share of traces, by the one rule R >= T.
 *
 * DESIGN: R is the trace's own randomness, so every sampler of the fleet agrees without talking. A
 * kept span carries the threshold it passed (ot=th), so adjusted counts stay right behind any chain
 * of stages. At 100 % no th is touched.
 *   proportional  T = threshold(ratio * probability of what arrives), never below what arrives
 *   equalizing    T = max(threshold(ratio), T of what arrives)
 *   hash_seed     R and T from a hash of the trace id (wire/hash_sampling.h), both written
 * A span whose th contradicts its R (R < T) carries a lie: dropped when fail_closed, else kept, its
 * th erased. With hash_seed one that brings an rv or th of its own is such a contradiction (as in
 * the Collector), but what is kept stays as it is. `sampling.priority` (0 drops, above keeps, below
 * says nothing) goes before everything.
 * None asks more of R than T_guard (component_exemplar_guard), below which an exemplar would not be
 * sure to resolve. What an exemplar names already (wire/span_wish.h) is kept against its R.
 * THREADS: stateless. SPEC: OpenTelemetry consistent probability sampling; the Collector's option
 * names.
 */
#include "base/mem.h"
#include "base/str.h"
#include "pipeline/component.h"
#include "pipeline/conf/error.h"
#include "pipeline/span/uncount.h"
#include "pipeline/telemetry.h"
#include "wire/hash_sampling.h"
#include "wire/pb.h"
#include "wire/span_wish.h"
#include "wire/tracestate.h"

enum mode { MODE_UNSET, MODE_PROPORTIONAL, MODE_EQUALIZING, MODE_HASH_SEED };

struct sampler_config {
	int mode; /* enum mode */
	double percentage;
	uint64_t hash_seed;
	bool has_hash_seed;
	bool fail_closed;
	uint64_t precision;
};

struct sampler_state {
	double ratio;
	uint64_t th;       /* of the ratio alone */
	bool is_hashed;    /* mode hash_seed */
	uint8_t field[32]; /* a trace_state field that says so, for spans without one */
	size_t field_len;
	_Atomic uint64_t kept, dropped, inconsistent;
};

static const struct option_choice modes[] = {
	{ "proportional", MODE_PROPORTIONAL },
	{ "equalizing", MODE_EQUALIZING },
	{ "hash_seed", MODE_HASH_SEED },
	{ "", MODE_UNSET },
	{ NULL, 0 },
};

#define C struct sampler_config
static const struct option sampler_options[] = {
	OPT_ENUM(C, "mode", mode, modes, "",
		 "proportional or equalizing; unset is proportional, or hash_seed when hash_seed "
		 "is set."),
	OPT_DOUBLE(C, "sampling_percentage", percentage, "0", 0, 1e9,
		   "Share of traces kept, in percent; 100 and above keep all."),
	OPT_UINT(C, "hash_seed", hash_seed, "0", 0, UINT32_MAX,
		 "Seed of the hash_seed mode: every node of a fleet must have the same one."),
	OPT_PRESENT(C, "hash_seed", has_hash_seed),
	OPT_BOOL(C, "fail_closed", fail_closed, "true",
		 "Drop spans whose sampling information contradicts itself."),
	OPT_UINT(C, "sampling_precision", precision, "4", 1, 14,
		 "Hexadecimal digits of a threshold."),
	OPT_IGNORED("attribute_source", "For logs only."),
	OPT_IGNORED("from_attribute", "For logs only."),
	OPT_IGNORED("sampling_priority", "For logs only."),
	OPT_END
};
#undef C

static void sampler_validate(void *config, const struct conf_node *node, struct conf_errors *errs,
			     const char *path)
{
	struct sampler_config *c = config;

	(void)node;
	(void)errs;
	(void)path;
	if (c->mode == MODE_UNSET && c->has_hash_seed)
		c->mode = MODE_HASH_SEED;
}

static void sampler_sampling(const void *config, struct sampling *out)
{
	const struct sampler_config *c = config;

	out->rate = MIN(c->percentage / 100.0, 1.0);
	out->is_proportional = c->mode != MODE_EQUALIZING;
	out->is_by_r = c->mode != MODE_HASH_SEED;
	out->rate_key = "sampling_percentage";
	out->mode_key = c->has_hash_seed ? "hash_seed" : "mode";
}

static int sampler_start(struct component *c, struct err *err)
{
	const struct sampler_config *conf = COMPONENT_CONFIG(c, struct sampler_config);
	struct sampler_state *st = COMPONENT_STATE(c, struct sampler_state);
	struct buf field = BUF_INIT;
	char th[15], text[24] = "ot=th:";

	(void)err;
	st->ratio = MIN(conf->percentage / 100.0, 1.0);
	st->is_hashed = conf->mode == MODE_HASH_SEED;
	st->th = st->is_hashed ? hash_sampling_threshold(conf->percentage)
			       : tracestate_threshold(st->ratio, (int)conf->precision);
	if (st->th >= TRACESTATE_W56)
		return 0; /* nothing passes, so nothing is written */
	tracestate_format_th(st->th, th);
	memcpy(text + 6, th, strlen(th) + 1);
	pb_put_str(&field, 3, text);
	assert(field.n <= sizeof(st->field));
	memcpy(st->field, field.p, field.n);
	st->field_len = field.n;
	buf_fini(&field);
	return 0;
}

/* AGAINST: a keep record (span_wish.h) of a span that its R would have dropped. */
enum decision { DROP, KEEP, KEEP_WITH_TH, KEEP_AGAINST };

/* An rv or th of its own. */
static bool has_sampling(const struct span_ref *sp)
{
	struct tracestate_ot ot;

	if (sp->state_len == 0)
		return false;
	tracestate_read(span_trace_state(sp), &ot);
	return ot.has_rv || ot.th != TH_UNKNOWN;
}

static enum decision decide_by_hash(const struct sampler_config *conf, struct sampler_state *st,
				    const struct span_ref *sp, uint64_t *th)
{
	if (st->th >= TRACESTATE_W56)
		return DROP;
	if (has_sampling(sp)) {
		atomic_fetch_add_explicit(&st->inconsistent, 1, memory_order_relaxed);
		return conf->fail_closed ? DROP : KEEP;
	}
	*th = st->th;
	return hash_sampling_randomness((uint32_t)conf->hash_seed, sp->trace_id) >= *th
		       ? KEEP_WITH_TH
		       : DROP;
}

/* By the trace's randomness; *th gets the threshold it passed (TH_UNKNOWN: erase it). */
static enum decision decide_by_r(const struct sampler_config *conf, struct sampler_state *st,
				 const struct span_ref *sp, uint64_t guard, uint64_t *th)
{
	if (st->is_hashed)
		return decide_by_hash(conf, st, sp, th);
	if (sp->th != TH_UNKNOWN && sp->r < sp->th) {
		atomic_fetch_add_explicit(&st->inconsistent, 1, memory_order_relaxed);
		*th = TH_UNKNOWN;
		return conf->fail_closed ? DROP : KEEP_WITH_TH;
	}
	if (st->ratio >= 1.0)
		return KEEP;
	*th = st->th;
	if (sp->th != TH_UNKNOWN && conf->mode != MODE_EQUALIZING)
		*th = tracestate_threshold(st->ratio * tracestate_probability(sp->th),
					   (int)conf->precision);
	/* Traces that an exemplar may name are kept by all, however often they were sampled. */
	*th = MIN(*th, guard);
	/* Neither that nor rounding to `precision` may raise a probability. */
	if (sp->th != TH_UNKNOWN)
		*th = MAX(*th, sp->th);
	if (*th >= TRACESTATE_W56 || sp->r < *th)
		return DROP;
	return *th == sp->th ? KEEP : KEEP_WITH_TH;
}

static enum decision decide(const struct sampler_config *conf, struct sampler_state *st,
			    const struct span_ref *sp, uint64_t guard, uint64_t *th)
{
	enum span_wish wish = span_wish(sp);
	enum decision d;

	/* Kept for a reason of its own: the probability is not ours to change. */
	if (wish == WISH_KEEP || wish == WISH_DROP)
		return wish == WISH_KEEP ? KEEP : DROP;
	d = decide_by_r(conf, st, sp, guard, th);
	return d == DROP && wish == WISH_RECORD ? KEEP_AGAINST : d;
}

static void write_th(struct batch *b, uint32_t i, uint64_t th, const struct sampler_state *st,
		     const uint8_t *field, struct buf *state)
{
	struct span_ref *sp = &b->tables.spans[i];

	buf_reset(state);
	if (sp->state == NULL && th == st->th) {
		batch_append_field(b, i, (struct bytes){ field, st->field_len });
		/* Behind the field's tag and length, one byte each. */
		sp->state = field + 2;
		sp->state_len = (uint32_t)st->field_len - 2;
		sp->th = th;
	} else if (tracestate_write_th(span_trace_state(sp), th, state) == 0 ||
		   tracestate_write_th(span_trace_state(sp), TH_UNKNOWN, state) == 0) {
		/* No room for it: none at all is better than one that is too low. */
		batch_set_trace_state(b, i, buf_bytes(state));
	}
}

/* rv and th by hash, of a span that had neither. */
static void write_th_rv(struct batch *b, uint32_t i, uint64_t th, uint32_t seed, struct buf *state)
{
	struct span_ref *sp = &b->tables.spans[i];
	uint64_t rv = hash_sampling_randomness(seed, sp->trace_id);

	buf_reset(state);
	/* No room for them: the span is kept without, as any that cannot say its probability. */
	if (tracestate_write_th_rv(span_trace_state(sp), th, rv, state) == 0)
		batch_set_trace_state(b, i, buf_bytes(state));
}

/* In ths: leave it as it is; it was kept against its R. */
#define TH_SAME (TH_UNKNOWN - 1)
#define TH_AGAINST (TH_UNKNOWN - 2)

/* Decisions into keep, and for those kept what to write into ths. Returns how many get a new th. */
static uint32_t decide_all(struct component *c, const struct batch *b, uint8_t *keep, uint64_t *ths)
{
	const struct sampler_config *conf = COMPONENT_CONFIG(c, struct sampler_config);
	struct sampler_state *st = COMPONENT_STATE(c, struct sampler_state);
	uint64_t guard = component_exemplar_guard(c);
	uint32_t n_kept = 0, n_new = 0;

	for (uint32_t i = 0; i < b->tables.n_spans; i++) {
		uint64_t th = 0;

		keep[i] = (uint8_t)decide(conf, st, &b->tables.spans[i], guard, &th);
		if (keep[i] != DROP)
			ths[n_kept++] = keep[i] == KEEP_WITH_TH   ? th
					: keep[i] == KEEP_AGAINST ? TH_AGAINST
								  : TH_SAME;
		n_new += keep[i] > KEEP;
	}
	atomic_fetch_add_explicit(&st->kept, n_kept, memory_order_relaxed);
	atomic_fetch_add_explicit(&st->dropped, b->tables.n_spans - n_kept, memory_order_relaxed);
	return n_new;
}

static struct batch *rewrite(struct component *c, struct batch *b, const uint64_t *ths)
{
	const struct sampler_config *conf = COMPONENT_CONFIG(c, struct sampler_config);
	struct sampler_state *st = COMPONENT_STATE(c, struct sampler_state);
	struct buf state = BUF_INIT; /* one for all spans of the batch */
	const uint8_t *field;

	b = batch_editable(b);
	field = arena_dup(&b->arena, st->field, st->field_len);
	for (uint32_t i = 0; i < b->tables.n_spans; i++)
		if (ths[i] == TH_AGAINST)
			span_uncount(b, i, &state);
		else if (ths[i] != TH_SAME && st->is_hashed)
			write_th_rv(b, i, ths[i], (uint32_t)conf->hash_seed, &state);
		else if (ths[i] != TH_SAME)
			write_th(b, i, ths[i], st, field, &state);
	buf_fini(&state);
	return b;
}

static void sampler_consume(struct component *c, struct batch *b)
{
	uint32_t n = b->tables.n_spans, n_new;
	uint64_t *ths = xmalloc(n * (sizeof(*ths) + 1));
	uint8_t *keep = (uint8_t *)(ths + n);

	n_new = decide_all(c, b, keep, ths);
	b = batch_filter(b, keep, DROP_SAMPLED);
	if (b != NULL)
		component_emit(c, n_new > 0 ? rewrite(c, b, ths) : b);
	free(ths);
}

static void sampler_metrics(struct component *c, struct buf *out)
{
	static const char name[] = "otelcol_processor_probabilistic_sampler_count_traces_sampled";
	struct sampler_state *st = COMPONENT_STATE(c, struct sampler_state);
	const char *policy = st->is_hashed ? "trace_id_hash" : "trace_id_w3c";

	telemetry_head(out, name, "counter", "Spans decided, by policy and decision.");
	telemetry_sample(out, name, (double)atomic_load(&st->kept), "processor", c->id, "pipeline",
			 c->pipeline, "policy", policy, "sampled", "true", NULL);
	telemetry_sample(out, name, (double)atomic_load(&st->dropped), "processor", c->id,
			 "pipeline", c->pipeline, "policy", policy, "sampled", "false", NULL);
}

const struct component_type processor_probabilistic_sampler = {
	.name = "probabilistic_sampler",
	.kind = KIND_PROCESSOR,
	.summary = "Keeps a share of traces by their own randomness and says so in tracestate.",
	.stability = STABILITY_ALPHA,
	.signals = SIGNAL_TRACES,
	.config_size = sizeof(struct sampler_config),
	.state_size = sizeof(struct sampler_state),
	.options = sampler_options,
	.validate = sampler_validate,
	.sampling = sampler_sampling,
	.start = sampler_start,
	.may_overlap = component_overlaps,
	.consume = sampler_consume,
	.metrics = sampler_metrics,
};
