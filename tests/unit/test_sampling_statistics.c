/* SPDX-License-Identifier: Apache-2.0
 *
 * test_sampling_statistics.c - what sampling by R >= T promises, counted: shares, uniformity,
 * agreement, and adjusted counts behind any chain of stages.
 *
 * SPANMILL_IDS is the number of ids per rate (a million; ten million in the soak), SPANMILL_SEED
 * repeats a run's choices: each says its seed.
 */
#include "processor_fixture.h"

#include "wire/tracestate.h"

#include <math.h>

enum { PER_BATCH = 10000, BINS = 64 };

static uint64_t seed;

static uint32_t ids_per_rate(void)
{
	const char *text = getenv("SPANMILL_IDS");

	return text != NULL ? (uint32_t)strtoul(text, NULL, 10) : 1000000;
}

/* ---- ids ---- */

enum style { RANDOM, SECONDS_FIRST, HALF, EXPLICIT, STYLES };

static const char *const style_names[STYLES] = { "random", "seconds first (X-Ray)",
						 "high half zero (Zipkin)", "constant, with rv" };

/* Room for the trace states of a batch. */
struct ids {
	struct fx_span v[PER_BATCH];
	char states[PER_BATCH][48];
};

static void fill_ids(struct ids *ids, uint32_t n, struct rng *rng, enum style style)
{
	for (uint32_t i = 0; i < n; i++) {
		struct fx_span *sp = &ids->v[i];

		store_be64(sp->trace_id, rng_next(rng));
		store_be64(sp->trace_id + 8, rng_next(rng));
		sp->state = NULL;
		if (style == SECONDS_FIRST)
			store_be32(sp->trace_id, 1700000000);
		if (style == HALF)
			memset(sp->trace_id, 0, 8);
		if (style == EXPLICIT) {
			snprintf(ids->states[i], sizeof(ids->states[i]), "ot=rv:%014llx",
				 (unsigned long long)(rng_next(rng) >> 8));
			sp->state = ids->states[i];
			memset(sp->trace_id + 8, 7, 8);
		}
	}
}

/* ---- shares and uniformity ---- */

struct tally {
	uint64_t n;
	uint64_t by_r[BINS];    /* of kept ones: R between T and 2^56 */
	uint64_t by_byte[BINS]; /* of kept ones: a byte that R has nothing to do with */
};

static void count_kept(struct tally *t, uint64_t th)
{
	for (unsigned k = 0; k < fx.n_kept; k++)
		for (uint32_t i = 0; i < fx.kept[k]->tables.n_spans; i++) {
			const struct span_ref *sp = &fx.kept[k]->tables.spans[i];
			double u = (double)(sp->r - th) / (double)(TRACESTATE_W56 - th);

			assert_true(sp->r >= th);
			assert_true(sp->th == (th > 0 ? th : TH_UNKNOWN));
			t->by_r[(unsigned)(u * BINS)]++;
			t->by_byte[sp->trace_id[4] % BINS]++;
			t->n++;
		}
}

static double chi_square(const uint64_t bins[BINS], uint64_t n)
{
	double chi = 0;

	for (int i = 0; i < BINS; i++) {
		double want = (double)n / BINS, d = (double)bins[i] - want;

		chi += d * d / want;
	}
	return chi;
}

static void share_of(double ratio, enum style style)
{
	struct ids *ids = xcalloc(1, sizeof(*ids));
	struct tally t = { 0 };
	uint64_t th = tracestate_threshold(ratio, 4);
	uint32_t n_ids = ids_per_rate();
	double p = tracestate_probability(th), sigma, chi_r, chi_byte;
	struct rng rng;
	char yaml[64];

	rng_seed(&rng, seed + (uint64_t)style);
	snprintf(yaml, sizeof(yaml), "{sampling_percentage: %.17g}", ratio * 100);
	fx_start("probabilistic_sampler", yaml);
	for (uint32_t i = 0; i < n_ids / PER_BATCH; i++) {
		fill_ids(ids, PER_BATCH, &rng, style);
		fx_give(fx_batch(ids->v, PER_BATCH, "t"));
		count_kept(&t, th);
		fx_drop_kept();
	}
	fx_stop();
	free(ids);
	n_ids -= n_ids % PER_BATCH;
	sigma = p < 1 ? ((double)t.n - n_ids * p) / sqrt(n_ids * p * (1 - p)) : 0;
	chi_r = chi_square(t.by_r, t.n);
	chi_byte = style == RANDOM || style == EXPLICIT ? chi_square(t.by_byte, t.n) : 63;
	printf("%8.4f %% of %u ids, %s: kept %llu, %+.2f sigma; chi-square of R %.1f, of another "
	       "byte %.1f\n",
	       ratio * 100, n_ids, style_names[style], (unsigned long long)t.n, sigma, chi_r,
	       chi_byte);
	/* 63 degrees of freedom: below 20 or above 126 once in a million. */
	if (fabs(sigma) > 5 || chi_r > 126 || chi_r < 20 || chi_byte > 126 || chi_byte < 20 ||
	    (p >= 1 && t.n != n_ids))
		fail_msg("SPANMILL_SEED=%llu: not what chance gives", (unsigned long long)seed);
}

static void shares_are_what_they_say(void **state)
{
	static const double ratios[] = { 1, 1.0 / 3, 0.1, 0.01 };

	(void)state;
	for (size_t i = 0; i < COUNT_OF(ratios); i++)
		for (int style = 0; style < STYLES; style++)
			share_of(ratios[i], (enum style)style);
}

/* ---- chains of stages ---- */

/* What travels between processes: requests. */
struct stream {
	struct buf *v;
	size_t n, cap;
};

static void stream_add(struct stream *s, const struct batch *b)
{
	struct arena arena = ARENA_INIT;
	struct batch_encoding e;

	s->v = xgrow(s->v, &s->cap, s->n + 1, sizeof(*s->v));
	s->v[s->n] = (struct buf)BUF_INIT;
	batch_encode(b, &arena, &e);
	for (size_t i = 0; i < e.n_pieces; i++)
		buf_add_bytes(&s->v[s->n], e.pieces[i]);
	arena_fini(&arena);
	s->n++;
}

static struct batch *stream_batch(const struct stream *s, size_t i)
{
	struct rcbuf *r = rcbuf_new_forced(&fx.service.budget, s->v[i].n);
	struct otlp_result result;
	struct batch *b;

	memcpy(r->p, s->v[i].p, s->v[i].n);
	r->n = s->v[i].n;
	b = batch_from_otlp(r, "t", &fx.service.budget, &result, NULL);
	assert_non_null(b);
	assert_int_equal(result.rejects.n, 0);
	return b;
}

static void stream_fini(struct stream *s)
{
	while (s->n > 0)
		buf_fini(&s->v[--s->n]);
	free(s->v);
	*s = (struct stream){ NULL, 0, 0 };
}

/* One stage in a process of its own: what it keeps comes off the wire again for the next. */
static void pass(struct stream *s, const char *yaml)
{
	struct stream out = { NULL, 0, 0 };

	fx_start("probabilistic_sampler", yaml);
	for (size_t i = 0; i < s->n; i++) {
		fx_give(stream_batch(s, i));
		for (unsigned k = 0; k < fx.n_kept; k++)
			stream_add(&out, fx.kept[k]);
		fx_drop_kept();
	}
	fx_stop();
	stream_fini(s);
	*s = out;
}

/* Where spans come from: what their SDK's sampler wrote, T of what it dropped. */
struct origin_of_spans {
	double probability; /* 0: no th at all */
	uint64_t th;
};

static void add_spans(struct stream *s, const struct ids *ids, uint32_t n)
{
	struct batch *b = fx_batch(ids->v, n, "t");

	stream_add(s, b);
	batch_unref(b);
}

/* N spans whose R stand N times in as many equal parts of all there are (or anywhere at random),
 * less those that the SDK dropped. */
static void make_spans(struct stream *s, uint32_t n, const struct origin_of_spans *from,
		       struct rng *rng, bool even)
{
	struct ids *ids = xcalloc(1, sizeof(*ids));
	char th[15], state[24] = "";
	uint32_t n_in_batch = 0;

	if (from->probability > 0) {
		tracestate_format_th(from->th, th);
		snprintf(state, sizeof(state), "ot=th:%s", th);
	}
	for (uint32_t i = 0; i < n; i++) {
		struct fx_span *sp = &ids->v[n_in_batch];
		double u = (double)(rng_next(rng) >> 11) * 0x1p-53;
		uint64_t r = even ? (uint64_t)((i + u) / n * 0x1p56) : rng_next(rng) >> 8;

		if (r < from->th)
			continue;
		store_be64(sp->trace_id, rng_next(rng));
		store_be64(sp->trace_id + 8, r | UINT64_C(0x5a) << 56);
		sp->state = state[0] != '\0' ? state : NULL;
		if (++n_in_batch == PER_BATCH) {
			add_spans(s, ids, n_in_batch);
			n_in_batch = 0;
		}
	}
	if (n_in_batch > 0)
		add_spans(s, ids, n_in_batch);
	free(ids);
}

struct estimate {
	double count; /* adjusted counts of all */
	uint64_t n;
	double lowest_p;
};

static void add_up(const struct stream *s, struct estimate *e)
{
	*e = (struct estimate){ 0, 0, 1 };
	for (size_t k = 0; k < s->n; k++) {
		struct batch *b = stream_batch(s, k);

		for (uint32_t i = 0; i < b->tables.n_spans; i++) {
			const struct span_ref *sp = &b->tables.spans[i];
			double p = sp->th != TH_UNKNOWN ? tracestate_probability(sp->th) : 1;

			if (sp->th != TH_UNKNOWN && sp->r < sp->th)
				fail_msg("kept although its R is below its T");
			e->count += 1 / p;
			e->lowest_p = MIN(e->lowest_p, p);
			e->n++;
		}
		batch_unref(b);
	}
}

static double random_ratio(struct rng *rng, double lowest)
{
	double u = (double)(rng_next(rng) >> 11) * 0x1p-53;

	/* Now and then all. */
	return rng_next(rng) % 8 == 0 ? 1 : pow(lowest, u);
}

enum { STAGES_MAX = 5 };

struct chain {
	char stages[STAGES_MAX][128];
	unsigned n;
};

/* Random modes, digits and rates, which together keep at least `lowest`. */
static void make_chain(struct chain *c, struct rng *rng, double lowest)
{
	double left = lowest;

	c->n = 1 + (unsigned)(rng_next(rng) % STAGES_MAX);
	for (unsigned i = 0; i < c->n; i++) {
		double ratio = MAX(random_ratio(rng, left), 2 * left);
		const char *mode = rng_next(rng) % 2 ? "proportional" : "equalizing";

		ratio = MIN(ratio, 1);
		/* One digit may round a rate down by nearly half, or up to twice. */
		left = MIN(left / ratio * 1.2, 0.5);
		snprintf(c->stages[i], sizeof(c->stages[i]),
			 "{mode: %s, sampling_percentage: %.9g, sampling_precision: %u}", mode,
			 ratio * 100, 3 + (unsigned)(rng_next(rng) % 12));
	}
}

static void say_chain(const struct chain *c, const struct origin_of_spans *from)
{
	printf("SPANMILL_SEED=%llu; SDK %g", (unsigned long long)seed, from->probability);
	for (unsigned i = 0; i < c->n; i++)
		printf(", %s", c->stages[i]);
	printf("\n");
}

/* `even`: each part of R has its span, so that chance has nearly no part in the estimate. */
static void try_chain(const struct chain *c, const struct origin_of_spans *from, struct rng *rng,
		      uint32_t n, bool even, double *worst)
{
	struct stream s = { NULL, 0, 0 };
	struct estimate e;
	double off, allowed;

	make_spans(&s, n, from, rng, even);
	for (unsigned i = 0; i < c->n; i++)
		pass(&s, c->stages[i]);
	add_up(&s, &e);
	stream_fini(&s);
	off = e.count / n - 1;
	allowed = even ? 0.005 : 5 * sqrt((1 - e.lowest_p) / (n * e.lowest_p)) + 1e-9;
	*worst = MAX(*worst, fabs(off));
	if (e.n == 0 || fabs(off) > allowed) {
		say_chain(c, from);
		fail_msg("%u spans: %llu kept stand for %.0f, off by %.3f %%", n,
			 (unsigned long long)e.n, e.count, off * 100);
	}
}

static void adjusted_counts_behind_any_chain(void **state)
{
	enum { CHAINS = 24 };
	uint32_t n = MAX(ids_per_rate() / 20, 1000);
	double worst_even = 0, worst_random = 0;
	struct rng rng;

	(void)state;
	rng_seed(&rng, seed);
	atomic_store(&fx.service.budget.limit, (int64_t)GIB);
	for (int i = 0; i < CHAINS; i++) {
		double p = random_ratio(&rng, 0.1);
		struct origin_of_spans from[] = { { 0, 0 },
						  { 1, 0 },
						  { p, tracestate_threshold(p, 4) } };
		struct chain c;

		make_chain(&c, &rng, 0.02);
		for (size_t k = 0; k < COUNT_OF(from); k++) {
			try_chain(&c, &from[k], &rng, n, true, &worst_even);
			try_chain(&c, &from[k], &rng, n / 4, false, &worst_random);
		}
	}
	printf("%d chains, %u spans each: off by at most %.4f %%; random ids, a quarter as many: "
	       "%.2f %%\n",
	       CHAINS, n, worst_even * 100, worst_random * 100);
	assert_int_equal(atomic_load(&fx.service.budget.used), 0);
}

/* A fleet whose first stage is the Collector's hash: its rv is the R of all that follow. */
static void adjusted_counts_behind_a_hash(void **state)
{
	static const struct chain c = {
		{ "{mode: hash_seed, hash_seed: 22, sampling_percentage: 33.3}",
		  "{sampling_percentage: 50}", "{mode: equalizing, sampling_percentage: 10}" },
		3
	};
	const struct origin_of_spans from = { 0, 0 };
	double worst = 0;
	struct rng rng;

	(void)state;
	rng_seed(&rng, seed);
	atomic_store(&fx.service.budget.limit, (int64_t)GIB);
	try_chain(&c, &from, &rng, ids_per_rate() / 2, false, &worst);
	printf("behind hash_seed: off by %.2f %%\n", worst * 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shares_are_what_they_say),
		cmocka_unit_test(adjusted_counts_behind_any_chain),
		cmocka_unit_test(adjusted_counts_behind_a_hash),
	};
	const char *text = getenv("SPANMILL_SEED");

	/* The same in every `make test`: a run that fails by chance alone helps nobody. */
	seed = text != NULL ? strtoull(text, NULL, 10) : 42;
	printf("SPANMILL_SEED=%llu\n", (unsigned long long)seed);
	all_components_register();
	return cmocka_run_group_tests_name("sampling_statistics", tests, NULL, NULL);
}
