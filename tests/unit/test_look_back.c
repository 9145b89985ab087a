/* SPDX-License-Identifier: Apache-2.0
 *
 * test_look_back.c - traces that exemplars of applications name: what is named, for how long and
 * how many, against a list; what passed is bounded, sent again once, and ends with its instance,
 * also while other threads name traces.
 */
#include "processors/exemplar/look_back.h"

#include "tests/unit/processor_fixture.h"

enum { IDS = 70000, NAMED_MAX = 65536 };

static struct component traces, metrics;
static struct look_back *l;

static void id_of(uint32_t n, uint8_t id[16])
{
	memset(id, 0, 16);
	store_be32(id, n + 1);
	store_be32(id + 4, n * 2654435761u);
}

/* What processor_fixture starts is the sink behind it; the instances here are only ids to it. */
static void open_both(int64_t max_age_ns, uint64_t max_bytes)
{
	struct look_back_limits limits = { max_age_ns, max_bytes };

	fx_start("exemplar", "{connectors: []}");
	traces = fx.processor;
	traces.id = metrics.id = "exemplar/test";
	metrics.service = traces.service;
	metrics.signal = OTLP_METRICS;
	l = look_back_open(&traces, &limits);
	assert_false(look_back_is_fed(l));
	assert_true(look_back_open(&metrics, &limits) == l);
	assert_true(look_back_is_fed(l));
}

static void close_both(void)
{
	look_back_close(l, &traces);
	look_back_close(l, &metrics);
	fx_stop();
}

/* One metric with a point whose exemplars are of these traces. */
static struct batch *metrics_of(uint32_t first, uint32_t n)
{
	struct buf out = BUF_INIT;
	struct otlp_result result;
	struct rcbuf *r;
	struct batch *b;
	size_t rm = pb_begin(&out, 1), sm = pb_begin(&out, 2), m = pb_begin(&out, 2), data, point,
	       x;
	uint8_t id[16];

	pb_put_str(&out, 1, "m");
	data = pb_begin(&out, 5);
	point = pb_begin(&out, 1);
	pb_put_double(&out, 4, 1);
	for (uint32_t i = first; i < first + n; i++) {
		id_of(i, id);
		x = pb_begin(&out, 5);
		pb_put_bytes(&out, 5, (struct bytes){ id, 16 });
		pb_end(&out, x);
	}
	pb_end(&out, point);
	pb_end(&out, data);
	pb_end(&out, m);
	pb_end(&out, sm);
	pb_end(&out, rm);
	r = rcbuf_new_forced(&fx.service.budget, out.n);
	memcpy(r->p, out.p, out.n);
	r->n = out.n;
	buf_fini(&out);
	b = batch_from_request(OTLP_METRICS, r, "t", &fx.service.budget, &result, NULL);
	assert_non_null(b);
	return b;
}

static void name(uint32_t first, uint32_t n)
{
	struct batch *b = metrics_of(first, n);

	look_back_name(l, b);
	batch_unref(b);
}

static struct batch *spans_of(uint32_t first, uint32_t n)
{
	struct fx_span *v = xcalloc(n, sizeof(*v));
	struct batch *b;

	for (uint32_t i = 0; i < n; i++)
		id_of(first + i, v[i].trace_id);
	b = fx_batch(v, n, "t");
	free(v);
	return b;
}

/* How many of these traces are named. */
static uint32_t n_named(uint32_t first, uint32_t n)
{
	struct batch *b = spans_of(first, n);
	uint8_t *keep = xcalloc(n, 1);
	uint32_t sum = 0;

	look_back_mark(l, b, keep);
	for (uint32_t i = 0; i < n; i++)
		sum += keep[i];
	free(keep);
	batch_unref(b);
	return sum;
}

static void the_last_ones_are_named(void **state)
{
	(void)state;
	open_both(3600 * (int64_t)NS_PER_S, 0);
	assert_false(look_back_has_names(l));
	for (uint32_t i = 0; i < IDS; i += 1000)
		name(i, 1000);
	name(IDS - 10, 10); /* again: no news */
	assert_true(look_back_has_names(l));
	assert_int_equal(n_named(0, IDS - NAMED_MAX), 0);
	assert_int_equal(n_named(IDS - NAMED_MAX, NAMED_MAX), NAMED_MAX);
	assert_int_equal(n_named(IDS, 1000), 0);
	close_both();
}

static void names_get_old(void **state)
{
	(void)state;
	open_both(50 * (int64_t)NS_PER_MS, 0);
	name(0, 1000);
	for (uint64_t since = clock_mono_ns(); n_named(0, 1000) > 0;) {
		assert_true(clock_mono_ns() - since < 60 * NS_PER_S);
		usleep(5000);
	}
	assert_false(look_back_has_names(l));
	close_both();
}

static void pass(uint32_t first, uint32_t n, double ratio)
{
	struct batch *b = spans_of(first, n);

	look_back_pass(l, &traces, b, ratio);
	batch_unref(b);
}

static uint64_t n_again(void)
{
	struct look_back_stats s;

	look_back_stats(l, &traces, &s);
	return s.n_again;
}

/* R of these ids is below a half of a percent, so that a sampler of 99.5 % drops them. */
static void sent_again_once(void **state)
{
	(void)state;
	open_both(3600 * (int64_t)NS_PER_S, MIB);
	pass(0, 10, 0.5);
	pass(10, 10, 1); /* no sampler: nothing was dropped */
	name(0, 20);
	assert_int_equal(n_again(), fx.n_kept > 0 ? fx.kept[0]->tables.n_spans : 0);
	assert_true(fx.n_kept == 1 && fx.kept[0]->tables.n_spans == 10);
	for (uint32_t i = 0; i < 10; i++)
		assert_true(fx.kept[0]->tables.spans[i].is_kept &&
			    fx.kept[0]->tables.spans[i].is_uncounted);
	name(0, 20);
	assert_int_equal(n_again(), 10);
	close_both();
}

static void bytes_are_bounded(void **state)
{
	struct look_back_stats s;
	struct batch *b;

	(void)state;
	open_both(3600 * (int64_t)NS_PER_S, 64 * KIB);
	for (uint32_t i = 0; i < 200; i++)
		pass(i * 10, 10, 0.5);
	look_back_stats(l, &traces, &s);
	assert_true(s.n_bytes > 32 * KIB && s.n_bytes <= 64 * KIB);
	name(0, 2000);
	assert_true(n_again() > 0 && n_again() < 1000);
	/* And goes when memory gets low. */
	b = spans_of(5000, 10);
	atomic_store(&fx.service.budget.limit, (int64_t)(64 * KIB));
	look_back_pass(l, &traces, b, 0.5);
	batch_unref(b);
	look_back_stats(l, &traces, &s);
	assert_int_equal(s.n_bytes, 0);
	close_both();
}

static _Atomic bool stop;

static void *namer(void *arg)
{
	for (uint32_t i = 0; !atomic_load(&stop); i++)
		name((uint32_t)(uintptr_t)arg + i % 500 * 10, 10);
	return NULL;
}

/* What passed through an instance that has ended is not sent, and nobody is inside it any more. */
static void an_instance_ends_while_traces_are_named(void **state)
{
	struct look_back_limits limits = { 3600 * (int64_t)NS_PER_S, MIB };
	pthread_t threads[2];

	(void)state;
	open_both(limits.max_age_ns, limits.max_bytes);
	for (uintptr_t i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, namer, (void *)(i * 3000));
	for (uint32_t k = 0; k < 50; k++) {
		struct component *c = xcalloc(1, sizeof(*c));
		struct batch *b;

		*c = traces;
		look_back_open(c, &limits);
		for (uint32_t i = 0; i < 20; i++) {
			b = spans_of((k * 20 + i) * 7 % 6000, 10);
			look_back_pass(l, c, b, 0.5);
			batch_unref(b);
		}
		look_back_drain(l, c);
		look_back_close(l, c);
		free(c); /* ASan: it is touched no more */
	}
	atomic_store(&stop, true);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	close_both();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_last_ones_are_named),
		cmocka_unit_test(names_get_old),
		cmocka_unit_test(sent_again_once),
		cmocka_unit_test(bytes_are_bounded),
		cmocka_unit_test(an_instance_ends_while_traces_are_named),
	};

	all_components_register();
	return cmocka_run_group_tests_name("look_back", tests, NULL, NULL);
}
