/* SPDX-License-Identifier: Apache-2.0
 *
 * exemplar.c - see exemplar.h.
 *
 * Rates go down the graph of pipelines, which has no cycles: a pipeline is gone through again only
 * for a lower rate than it had. Which sampler is wrong is said at the one that takes the rate from
 * the guard or above it to below.
 */
#include "pipeline/resolve/exemplar.h"

#include "wire/tracestate.h"

#define FLOOR (1.0 / 1024)
#define ROUNDING 1e-9 /* of rates that were multiplied */
#define PRECISION 4   /* the samplers' default, so that equal rates are equal thresholds */

struct rates {
	struct conf_check *k;
	double *in; /* of each pipeline: the lowest that reaches it; 2: none does */
	double lowest;
};

static const struct service_component *component(const struct rates *r, size_t i)
{
	return &r->k->config->components[i];
}

/* What is left of `rate` behind a processor. */
static double behind(const struct service_component *c, double rate)
{
	struct sampling s = { .rate = 1 };

	if (c->type->sampling == NULL)
		return rate;
	c->type->sampling(c->config, &s);
	return s.is_proportional ? rate * s.rate : MIN(rate, s.rate);
}

static bool feeds(const struct rates *r, const struct service_pipeline *from, size_t connector,
		  const struct service_pipeline *to)
{
	bool is_listed = false;

	for (size_t i = 0; i < to->receivers.n; i++)
		is_listed |= to->receivers.items[i] == connector;
	return is_listed && component(r, connector)->kind == KIND_CONNECTOR &&
	       from->signal == OTLP_TRACES && to->signal == OTLP_TRACES &&
	       conf_check_joins(component(r, connector), from->signal, to->signal);
}

/* This rate comes into pipeline `at`. */
static void go(struct rates *r, size_t at, double rate)
{
	const struct service_config *conf = r->k->config;
	const struct service_pipeline *p = &conf->pipelines[at];

	if (rate >= r->in[at])
		return;
	r->in[at] = rate;
	for (size_t i = 0; i < p->processors.n; i++)
		rate = behind(component(r, p->processors.items[i]), rate);
	r->lowest = MIN(r->lowest, rate);
	for (size_t e = 0; e < p->exporters.n; e++)
		for (size_t to = 0; to < conf->n_pipelines; to++)
			if (feeds(r, p, p->exporters.items[e], &conf->pipelines[to]))
				go(r, to, rate);
}

static void find_rates(struct rates *r)
{
	const struct service_config *conf = r->k->config;

	r->in = arena_zalloc(r->k->arena, (conf->n_pipelines + 1) * sizeof(*r->in));
	for (size_t i = 0; i < conf->n_pipelines; i++)
		r->in[i] = 2;
	r->lowest = 1;
	for (size_t i = 0; i < conf->n_pipelines; i++)
		for (size_t k = 0; k < conf->pipelines[i].receivers.n; k++)
			if (component(r, conf->pipelines[i].receivers.items[k])->kind ==
			    KIND_RECEIVER)
				go(r, i, 1);
}

static bool is_in_use(const struct service_config *conf)
{
	for (size_t i = 0; i < conf->n_components; i++) {
		const struct service_component *c = &conf->components[i];

		if (c->is_used && c->type->uses_exemplars != NULL &&
		    c->type->uses_exemplars(c->config))
			return true;
	}
	return conf->has_exemplar_guard;
}

static void refuse(struct rates *r, const struct service_component *c, const char *key,
		   const char *hint, const char *what)
{
	conf_error_at(r->k->errors, c->node, c->yaml_path, key, hint, "%s", what);
}

/* A sampler that gets `before` of the traces. False: it is wrong, and said so. */
static bool check_sampler(struct rates *r, const struct service_component *c, double before,
			  double guard)
{
	struct arena *arena = r->k->arena;
	struct sampling s = { .rate = 1 };
	double rate = behind(c, before), least = guard * (1 - ROUNDING);
	bool has_guard = r->k->config->has_exemplar_guard;

	c->type->sampling(c->config, &s);
	if (!s.is_by_r)
		refuse(r, c, s.mode_key, "use mode proportional or equalizing",
		       "decides by a randomness of its own, so that no exemplar is sure to be "
		       "kept");
	else if (s.rate <= 0)
		refuse(r, c, s.rate_key,
		       "raise it, or take the exemplars out of this configuration",
		       "keeps no trace, so that no exemplar resolves");
	else if (before >= least && rate < least)
		refuse(r, c, s.rate_key,
		       has_guard ? "raise it, or lower exemplar_guard on every host"
				 : arena_printf(arena,
						"raise it, or set service.exemplar_guard to %g "
						"on every host",
						rate),
		       arena_printf(
			       arena, "%skeeps %g of the traces, less than %s",
			       before < 1 ? "with the samplers before it " : "", rate,
			       has_guard ? arena_printf(arena, "service.exemplar_guard, %g", guard)
					 : "the 1/1024 that exemplars need"));
	else
		return true;
	return false;
}

static void check_samplers(struct rates *r, double guard)
{
	const struct service_config *conf = r->k->config;
	bool *is_wrong = arena_zalloc(r->k->arena, (conf->n_components + 1) * sizeof(*is_wrong));

	for (size_t i = 0; i < conf->n_pipelines; i++) {
		double rate = r->in[i];

		for (size_t k = 0; rate <= 1 && k < conf->pipelines[i].processors.n; k++) {
			size_t index = conf->pipelines[i].processors.items[k];
			const struct service_component *c = component(r, index);

			if (c->type->sampling != NULL && !is_wrong[index])
				is_wrong[index] = !check_sampler(r, c, rate, guard);
			rate = behind(c, rate);
		}
	}
}

void conf_exemplar_check(struct conf_check *k)
{
	struct service_config *conf = k->config;
	struct rates r = { .k = k };
	double guard;

	conf->exemplar_th = TH_UNKNOWN;
	conf->sampled_ratio = 1;
	if (!is_in_use(conf))
		return;
	find_rates(&r);
	conf->sampled_ratio = r.lowest;
	guard = conf->has_exemplar_guard ? conf->exemplar_guard : MAX(r.lowest, FLOOR);
	check_samplers(&r, guard);
	conf->exemplar_th = tracestate_threshold(guard, PRECISION);
}
