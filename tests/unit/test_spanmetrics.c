/* SPDX-License-Identifier: Apache-2.0
 *
 * test_spanmetrics.c - the connector: what it makes of spans against a straightforward count, names
 * and labels, limits, expiry, deltas, threads.
 */
#include "base/str.h"
#include "connectors/spanmetrics/connector.h"
#include "tests/unit/processor_fixture.h"
#include "wire/otlp_attr.h"
#include "wire/otlp_metrics.h"

#include <math.h>

/* ---- spans ---- */

struct sp {
	const char *name;
	uint8_t kind, status;
	uint64_t ms; /* duration */
	const char *state, *key, *value;
	const char *event_value; /* events with `key` */
	unsigned n_events;       /* 0: one */
};

/* A batch of spans of one resource, whose attributes are "k=v k=v". */
static struct batch *spans(const char *resource, const char *scope, const struct sp *v, size_t n)
{
	static _Atomic uint64_t next = 1;
	uint64_t number;
	struct buf out = BUF_INIT;
	struct otlp_result result;
	struct rcbuf *r;
	struct batch *b;
	char text[512], *save = NULL;
	size_t rs = pb_begin(&out, 1), m = pb_begin(&out, 1), ss;

	snprintf(text, sizeof(text), "%s", resource);
	for (char *w = strtok_r(text, " ", &save); w != NULL; w = strtok_r(NULL, " ", &save)) {
		char *eq = strchr(w, '=');

		*eq = '\0';
		otlp_attr_bytes(&out, 1, bytes_str(w), OTLP_STRING, bytes_str(eq + 1));
	}
	pb_end(&out, m);
	ss = pb_begin(&out, 2);
	m = pb_begin(&out, 1);
	pb_put_str(&out, 1, scope);
	pb_put_str(&out, 2, "1.2");
	pb_end(&out, m);
	for (size_t i = 0; i < n; i++) {
		size_t s = pb_begin(&out, 2), e;
		uint8_t id[16] = { 0 };

		number = atomic_fetch_add(&next, 1);
		store_be64(id, number);
		store_be64(id + 8, UINT64_MAX - number);
		pb_put_bytes(&out, 1, (struct bytes){ id, 16 });
		pb_put_bytes(&out, 2, (struct bytes){ id, 8 });
		if (v[i].state != NULL)
			pb_put_str(&out, 3, v[i].state);
		pb_put_str(&out, 5, v[i].name);
		pb_put_uint(&out, 6, v[i].kind);
		pb_put_fixed64(&out, 7, 1000000);
		pb_put_fixed64(&out, 8, 1000000 + v[i].ms * 1000000);
		if (v[i].value != NULL)
			otlp_attr_bytes(&out, 9, bytes_str(v[i].key), OTLP_STRING,
					bytes_str(v[i].value));
		for (unsigned k = 0; v[i].event_value != NULL && k < MAX(v[i].n_events, 1u); k++) {
			e = pb_begin(&out, 11);
			otlp_attr_bytes(&out, 3, bytes_str(v[i].key), OTLP_STRING,
					bytes_str(v[i].event_value));
			pb_end(&out, e);
		}
		e = pb_begin(&out, 15);
		pb_put_uint(&out, 3, v[i].status);
		pb_end(&out, e);
		pb_end(&out, s);
	}
	pb_end(&out, ss);
	pb_end(&out, rs);
	r = rcbuf_new_forced(&fx.service.budget, out.n);
	memcpy(r->p, out.p, out.n);
	r->n = out.n;
	buf_fini(&out);
	b = batch_from_otlp(r, "t", &fx.service.budget, &result, NULL);
	assert_non_null(b);
	assert_int_equal(b->tables.n_spans, n);
	return b;
}

static void give(const char *resource, const struct sp *v, size_t n)
{
	fx_give(spans(resource, "scope", v, n));
}

/* ---- points ---- */

enum { MAX_POINTS = 60000 };

struct pt {
	char key[400]; /* name{k=v,...} in the order of the point */
	char unit[8];
	double value; /* or count */
	double sum;
	uint64_t start_ns, time_ns, counts[40];
	uint32_t n_counts;
	int kind, temporality;
	int32_t scale, offset;
};

static struct pt *points;
static size_t n_points;

static void read_point(const struct metrics_reader *r, const struct metric_point *p)
{
	struct metric_attributes it = { p->message, p->attribute_field };
	struct pt *to = &points[n_points++];
	struct buf key = BUF_INIT, text = BUF_INIT;
	struct metric_list l = p->counts;
	struct any_value v;
	struct bytes k;
	uint64_t c;

	assert_true(n_points < MAX_POINTS);
	if (p->fault != NULL)
		fail_msg("%s", p->fault);
	memset(to, 0, sizeof(*to));
	buf_printf(&key, "%.*s{", (int)r->metric.name.n, r->metric.name.p);
	while (metric_attribute_next(&it, &k, &v)) {
		buf_reset(&text);
		any_value_text(&v, &text);
		buf_printf(&key, "%s%.*s=%s", key.p[key.n - 1] == '{' ? "" : ",", (int)k.n, k.p,
			   buf_cstr(&text));
	}
	buf_add_str(&key, "}");
	snprintf(to->key, sizeof(to->key), "%s", buf_cstr(&key));
	snprintf(to->unit, sizeof(to->unit), "%.*s", (int)r->metric.unit.n, r->metric.unit.p);
	buf_fini(&key);
	buf_fini(&text);
	to->kind = r->metric.kind;
	to->temporality = r->metric.temporality;
	to->value = p->has_value ? metric_number_double(&p->number) : (double)p->count;
	to->sum = p->sum;
	to->start_ns = p->start_ns;
	to->time_ns = p->time_ns;
	to->scale = p->scale;
	to->offset = p->positive.offset;
	if (r->metric.kind == METRIC_EXPONENTIAL_HISTOGRAM)
		l = p->positive.counts;
	while (metric_list_next_u64(&l, &c) && to->n_counts < COUNT_OF(to->counts))
		to->counts[to->n_counts++] = c;
}

static void read_all(void)
{
	n_points = 0;
	for (unsigned i = 0; i < fx.n_kept; i++) {
		struct metrics_reader r;
		struct metric_point p;

		metrics_reader_items(&r, &fx.kept[i]->tables);
		while (metrics_next(&r, &p) > 0)
			read_point(&r, &p);
	}
}

/* Everything so far, by one last flush. */
static void flush_last(void)
{
	const struct component_type *t = fx.processor.type;

	t->drain(&fx.processor);
	for (int i = 0; i < 3000 && !t->is_drained(&fx.processor); i++) {
		usleep(10000);
		pthread_mutex_lock(&fx.lock);
		for (unsigned k = 0; k < fx.n_kept; k++)
			if (fx.kept[k]->n_origins > 0) {
				batch_settle(fx.kept[k], VERDICT_DELIVERED, DROP_REASON_MAX, NULL);
				fx.kept[k]->n_origins = 0; /* fx_drop_kept settles no second time */
			}
		pthread_mutex_unlock(&fx.lock);
	}
	assert_true(t->is_drained(&fx.processor));
	read_all();
}

static const struct pt *point(const char *key)
{
	const struct pt *found = NULL;

	for (size_t i = 0; i < n_points; i++)
		if (strcmp(points[i].key, key) == 0) {
			if (found != NULL)
				fail_msg("twice: %s", key);
			found = &points[i];
		}
	if (found == NULL) {
		for (size_t i = 0; i < n_points; i++)
			print_message("%s %g\n", points[i].key, points[i].value);
		fail_msg("not there: %s", key);
	}
	return found;
}

static double sum_of(const char *prefix)
{
	double sum = 0;

	for (size_t i = 0; i < n_points; i++)
		if (str_has_prefix(points[i].key, prefix))
			sum += points[i].value;
	return sum;
}

/* ---- tests ---- */

#define OTEL(name, service, span, kind, status)                                                    \
	"traces.span.metrics." name "{service.name=" service ",span.name=" span                    \
	",span.kind=SPAN_KIND_" kind ",status.code=STATUS_CODE_" status "}"

static void defaults_are_the_collectors(void **state)
{
	static const struct sp v[] = {
		{ "get", SPAN_SERVER, STATUS_ERROR, 7, NULL, NULL, NULL, NULL, 0 },
		{ "get", SPAN_SERVER, STATUS_ERROR, 8, NULL, NULL, NULL, NULL, 0 },
		{ "get", SPAN_SERVER, STATUS_UNSET, 20000, NULL, NULL, NULL, NULL, 0 }
	};
	const struct pt *p;

	(void)state;
	fx_start("spanmetrics", "{metrics_flush_interval: 1h}");
	give("service.name=cart host.name=h1", v, 3);
	flush_last();
	p = point(OTEL("calls", "cart", "get", "SERVER", "ERROR"));
	assert_true(p->value == 2 && p->kind == METRIC_SUM && p->unit[0] == '\0');
	assert_int_equal(p->temporality, TEMPORALITY_CUMULATIVE);
	assert_true(p->start_ns > 0 && p->start_ns < p->time_ns);
	p = point(OTEL("duration", "cart", "get", "SERVER", "ERROR"));
	assert_string_equal(p->unit, "ms");
	assert_true(p->value == 2 && p->sum == 15 && p->n_counts == 17 && p->counts[3] == 2);
	p = point(OTEL("duration", "cart", "get", "SERVER", "UNSET"));
	assert_true(p->value == 1 && p->sum == 20000 && p->counts[16] == 1);
	assert_true(point("traces.host.calls{service=cart,host=h1,status_code=STATUS_CODE_ERROR}")
			    ->value == 2);
	p = point("traces.host.latency{service=cart,host=h1}");
	assert_true(p->value == 3 && p->sum == 20.015 && p->n_counts == 0);
	assert_string_equal(p->unit, "s");
	assert_int_equal(n_points, 7);
	fx_stop();
}

static void names_of_tempo(void **state)
{
	static const struct sp v[] = { { "get", SPAN_CLIENT, STATUS_OK, 3, NULL, NULL, NULL, NULL,
					 0 } };
	const struct pt *p;

	(void)state;
	fx_start("spanmetrics",
		 "{metrics_flush_interval: 1h, names: tempo, hosts: {enabled: false}}");
	give("service.name=cart", v, 1);
	flush_last();
#define TEMPO "{service=cart,span_name=get,span_kind=SPAN_KIND_CLIENT,status_code=STATUS_CODE_OK}"
	assert_true(point("traces_spanmetrics_calls" TEMPO)->value == 1);
	p = point("traces_spanmetrics_latency" TEMPO);
	assert_true(p->sum == 0.003 && p->n_counts == 15 && p->counts[1] == 1);
	assert_string_equal(p->unit, "");
	assert_true(point("traces_spanmetrics_size" TEMPO)->value > 40);
	assert_int_equal(n_points, 3);
	fx_stop();
}

static void dimensions_are_of_span_resource_or_default(void **state)
{
	static const struct sp v[] = {
		{ "a", SPAN_SERVER, 0, 1, NULL, "region", "span", NULL, 0 },
		{ "a", SPAN_SERVER, 0, 1, NULL, "only.calls", "x", NULL, 0 },
		{ "a", SPAN_SERVER, 0, 1, NULL, "only.calls", "y", NULL, 0 },
		{ "a", SPAN_SERVER, 0, 1, NULL, "only.time", "z", "in the event", 0 },
	};

	(void)state;
	fx_start("spanmetrics",
		 "{metrics_flush_interval: 1h, hosts: {enabled: false}, exclude_dimensions: "
		 "[span.kind, status.code], dimensions: [{name: region}, {name: zone, default: "
		 "none}, {name: absent}], calls_dimensions: [{name: only.calls}], histogram: "
		 "{dimensions: [{name: only.time}]}, events: {enabled: true, dimensions: [{name: "
		 "only.time}]}, include_instrumentation_scope: [scope]}");
	give("service.name=s region=resource", v, 4);
	fx_give(spans("service.name=s region=resource", "other", v + 1, 1));
	flush_last();
#define SCOPE ",span.instrumentation.scope.name=scope,span.instrumentation.scope.version=1.2}"
#define NAMED "service.name=s,span.name=a,"
	assert_true(
		point("traces.span.metrics.calls{" NAMED "region=span,zone=none" SCOPE)->value ==
		1);
	assert_true(point("traces.span.metrics.calls{" NAMED
			  "region=resource,zone=none,only.calls=x" SCOPE)
			    ->value == 1);
	assert_true(point("traces.span.metrics.calls{" NAMED
			  "region=resource,zone=none,only.calls=y" SCOPE)
			    ->value == 1);
	/* Of a scope that is not asked for. */
	assert_true(
		point("traces.span.metrics.calls{" NAMED "region=resource,zone=none,only.calls=x}")
			->value == 1);
	assert_true(point("traces.span.metrics.duration{" NAMED "region=resource,zone=none" SCOPE)
			    ->value == 2);
	assert_true(point("traces.span.metrics.duration{" NAMED
			  "region=resource,zone=none,only.time=z" SCOPE)
			    ->value == 1);
	/* The span's own goes before its event's. */
	assert_true(point("traces.span.metrics.events{" NAMED
			  "region=resource,zone=none,only.time=z" SCOPE)
			    ->value == 1);
	fx_stop();
}

static void dimensions_by_pattern(void **state)
{
	static const struct sp v[] = {
		{ .name = "a", .kind = SPAN_SERVER, .key = "http.method", .value = "GET" },
		{ .name = "a", .kind = SPAN_SERVER, .key = "http.route", .value = "/x" },
		{ .name = "a",
		  .kind = SPAN_SERVER,
		  .key = "db.name",
		  .value = "d",
		  .event_value = "e" },
	};

	(void)state;
	fx_start("spanmetrics",
		 "{metrics_flush_interval: 1h, hosts: {enabled: false}, exclude_dimensions: "
		 "[span.kind, status.code, span.name], dimensions: [{glob: 'http.*'}, {name: "
		 "http.route}], histogram: {dimensions: [{glob: 'd?.*'}]}, events: {enabled: true, "
		 "dimensions: [{glob: '*.name'}]}}");
	give("http.zone=z service.name=s http.area=a", v, 3);
	flush_last();
#define GLOB "service.name=s,"
#define AREA "http.area=a,"
	assert_true(point("traces.span.metrics.calls{" GLOB AREA "http.method=GET,http.zone=z}")
			    ->value == 1);
	assert_true(point("traces.span.metrics.calls{" GLOB "http.route=/x," AREA "http.zone=z}")
			    ->value == 1);
	assert_true(point("traces.span.metrics.calls{" GLOB AREA "http.zone=z}")->value == 1);
	assert_true(point("traces.span.metrics.duration{" GLOB "db.name=d," AREA "http.zone=z}")
			    ->value == 1);
	assert_true(
		point("traces.span.metrics.events{" GLOB "db.name=d," AREA "http.zone=z}")->value ==
		1);
	fx_stop();
}

static void patterns(void **state)
{
	static const struct {
		const char *pattern, *name;
		bool want;
	} cases[] = {
		{ "a", "a", true },
		{ "a", "ab", false },
		{ "*", "", true },
		{ "a*", "a", true },
		{ "*a", "bca", true },
		{ "*a", "bcab", false },
		{ "a?c", "abc", true },
		{ "a?c", "ac", false },
		{ "a*b*c", "aXbYbZc", true },
		{ "a*b*c", "aXcY", false },
		{ "**", "x", true },
		{ "", "", true },
		{ "", "x", false },
		{ "http.*", "https", false },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++)
		if (glob_fits(bytes_str(cases[i].pattern), bytes_str(cases[i].name)) !=
		    cases[i].want)
			fail_msg("%s and %s", cases[i].pattern, cases[i].name);
}

static void resources_are_one_whatever_the_order(void **state)
{
	static const struct sp v[] = { { "a", SPAN_SERVER, 0, 1, NULL, NULL, NULL, NULL, 0 } };

	(void)state;
	fx_start("spanmetrics", "{metrics_flush_interval: 1h, resource_metrics_key_attributes: "
				"[service.name], hosts: {enabled: false}}");
	give("service.name=s pid=1", v, 1);
	give("pid=2 service.name=s", v, 1);
	give("service.name=s pid=1", v, 1);
	give("nobody=1", v, 1); /* no service.name: not counted, as in the Collector */
	flush_last();
	assert_true(point(OTEL("calls", "s", "a", "SERVER", "UNSET"))->value == 3);
	assert_int_equal(n_points, 2);
	fx_stop();
}

static void sampled_spans_count_as_many_as_they_stand_for(void **state)
{
	/* th:8 is one of two, th:c one of four, R is next to the greatest. */
	static const struct sp v[] = { { "a", SPAN_SERVER, 0, 10, "ot=th:8", NULL, NULL, NULL, 0 },
				       { "a", SPAN_SERVER, 0, 10, "ot=th:c", NULL, NULL, NULL, 0 },
				       { "a", SPAN_SERVER, 0, 10, NULL, NULL, NULL, NULL, 0 } };
	const struct pt *p;

	(void)state;
	fx_start("spanmetrics", "{metrics_flush_interval: 1h, hosts: {enabled: false}}");
	give("service.name=s", v, 3);
	flush_last();
	assert_true(point(OTEL("calls", "s", "a", "SERVER", "UNSET"))->value == 7);
	p = point(OTEL("duration", "s", "a", "SERVER", "UNSET"));
	assert_true(p->value == 7 && p->sum == 70 && p->counts[4] == 7);
	fx_stop();
}

static void exponential_buckets(void **state)
{
	static const struct sp v[] = { { "a", SPAN_SERVER, 0, 1, NULL, NULL, NULL, NULL, 0 },
				       { "a", SPAN_SERVER, 0, 2, NULL, NULL, NULL, NULL, 0 },
				       { "a", SPAN_SERVER, 0, 4, NULL, NULL, NULL, NULL, 0 },
				       { "a", SPAN_SERVER, 0, 0, NULL, NULL, NULL, NULL, 0 } };
	const struct pt *p;

	(void)state;
	fx_start("spanmetrics", "{metrics_flush_interval: 1h, hosts: {enabled: false}, histogram: "
				"{exponential: {max_size: 4}}}");
	give("service.name=s", v, 4);
	flush_last();
	p = point(OTEL("duration", "s", "a", "SERVER", "UNSET"));
	assert_int_equal(p->kind, METRIC_EXPONENTIAL_HISTOGRAM);
	/* 1, 2 and 4 end the buckets -1, 0 and 1 of scale 0. */
	assert_true(p->value == 4 && p->sum == 7 && p->scale == 0 && p->offset == -1);
	assert_true(p->n_counts == 3 && p->counts[0] == 1 && p->counts[1] == 1 &&
		    p->counts[2] == 1);
	fx_stop();
}

/* ---- against a count ---- */

enum { SERVICES = 3, NAMES = 40 };

struct model {
	double calls[SERVICES][NAMES][6][3], sum[SERVICES][NAMES][6][3], all;
};

static void give_random(struct rng *rng, struct model *m, uint32_t n)
{
	static const char *const states[] = { NULL, NULL, "ot=th:8", "ot=th:c" };
	static const double weights[] = { 1, 1, 2, 4 };
	struct sp *v = xcalloc(n, sizeof(*v));
	char(*names)[24] = xcalloc(n, sizeof(*names));
	unsigned service = (unsigned)rng_below(rng, SERVICES);
	char resource[40];

	for (uint32_t i = 0; i < n; i++) {
		unsigned name = (unsigned)rng_below(rng, NAMES), th = (unsigned)rng_below(rng, 4);

		snprintf(names[i], sizeof(*names), "op%u", name);
		v[i] = (struct sp){ .name = names[i],
				    .kind = (uint8_t)rng_below(rng, 6),
				    .status = (uint8_t)rng_below(rng, 3),
				    .ms = rng_below(rng, 3000),
				    .state = states[th] };
		m->calls[service][name][v[i].kind][v[i].status] += weights[th];
		m->sum[service][name][v[i].kind][v[i].status] += weights[th] * (double)v[i].ms;
		m->all += weights[th];
	}
	snprintf(resource, sizeof(resource), "service.name=s%u host.name=h", service);
	give(resource, v, n);
	free(v);
	free(names);
}

static void check_model(const struct model *m)
{
	static const char *const kinds[] = { "UNSPECIFIED", "INTERNAL", "SERVER",
					     "CLIENT",      "PRODUCER", "CONSUMER" };
	static const char *const codes[] = { "UNSET", "OK", "ERROR" };
	char key[200];

	for (int s = 0; s < SERVICES; s++)
		for (int n = 0; n < NAMES; n++)
			for (int k = 0; k < 6; k++)
				for (int c = 0; c < 3; c++) {
					const struct pt *p;

					if (m->calls[s][n][k][c] == 0)
						continue;
					snprintf(key, sizeof(key),
						 OTEL("duration", "s%d", "op%d", "%s", "%s"), s, n,
						 kinds[k], codes[c]);
					p = point(key);
					assert_true(p->value == m->calls[s][n][k][c]);
					assert_true(fabs(p->sum - m->sum[s][n][k][c]) < 1e-6);
				}
	assert_true(sum_of("traces.span.metrics.calls{") == m->all);
	assert_true(sum_of("traces.host.calls{") == m->all);
}

static void every_span_is_counted_once(void **state)
{
	static struct model m;
	struct rng rng;

	(void)state;
	rng_seed(&rng, 42);
	fx_start("spanmetrics", "{metrics_flush_interval: 1h}");
	for (int i = 0; i < 300; i++)
		give_random(&rng, &m, 1 + (uint32_t)rng_below(&rng, 200));
	flush_last();
	check_model(&m);
	fx_stop();
}

/* ---- limits ---- */

static void give_names(unsigned from, unsigned n)
{
	struct sp *v = xcalloc(n, sizeof(*v));
	char(*names)[24] = xcalloc(n, sizeof(*names));

	for (unsigned i = 0; i < n; i++) {
		snprintf(names[i], sizeof(*names), "op%u", from + i);
		v[i] = (struct sp){ .name = names[i], .kind = SPAN_SERVER, .ms = 1 };
	}
	give("service.name=s host.name=h", v, n);
	free(v);
	free(names);
}

static void over_the_limit_is_one_series(void **state)
{
	(void)state;
	fx_start("spanmetrics", "{metrics_flush_interval: 1h, aggregation_cardinality_limit: 10, "
				"hosts: {enabled: false}}");
	give_names(0, 10);
	give_names(5, 20);
	give_names(0, 10);
	flush_last();
	assert_true(point(OTEL("calls", "s", "op0", "SERVER", "UNSET"))->value == 2);
	assert_true(point("traces.span.metrics.calls{otel.metric.overflow=true}")->value == 15);
	assert_true(point("traces.span.metrics.duration{otel.metric.overflow=true}")->sum == 15);
	assert_int_equal(n_points, 22);
	fx_stop();
}

static void a_span_cannot_take_it_all(void **state)
{
	static char name[100001];
	struct sp v[] = { { .name = "a", .key = "e", .event_value = "x", .n_events = 5000 },
			  { .name = name, .key = "e" },
			  { .name = "a", .key = "e", .value = name } };

	(void)state;
	memset(name, 'n', sizeof(name) - 1);
	fx_start("spanmetrics", "{metrics_flush_interval: 1h, dimensions: [{name: e}], events: "
				"{enabled: true, dimensions: [{name: f}]}}");
	give("service.name=s", v, 3);
	flush_last();
	assert_true(sum_of("traces.span.metrics.events{") == 5000);
	assert_true(point("traces.span.metrics.calls{otel.metric.overflow=true}")->value == 2);
	assert_true(sum_of("traces.span.metrics.calls{") == 3);
	fx_stop();
}

/* A million sets of labels: memory stays, and so does every count. */
static void a_million_sets_of_labels(void **state)
{
	int64_t limit = 16 * (int64_t)MIB, most = 0;

	(void)state;
	fx_start("spanmetrics", "{metrics_flush_interval: 1h}");
	atomic_store(&fx.service.budget.limit, limit);
	for (unsigned i = 0; i < 1000; i++) {
		give_names(i * 1000, 1000);
		most = MAX(most, atomic_load(&fx.service.budget.used));
	}
	assert_true(most < limit / 2);
	flush_last();
	assert_true(n_points > 1000);
	assert_true(sum_of("traces.span.metrics.calls{") == 1e6);
	assert_true(point("traces.span.metrics.calls{otel.metric.overflow=true}")->value > 9e5);
	fx_stop();
}

/* ---- time ---- */

/* Let flushes come until the sink has n batches. */
static void wait_for_batches(unsigned n)
{
	for (int i = 0; i < 6000 && atomic_load(&fx.n_kept) < n; i++)
		usleep(5000);
	assert_true(atomic_load(&fx.n_kept) >= n);
}

/* All that the sink has gets this verdict. */
static void settle_kept(enum verdict v)
{
	pthread_mutex_lock(&fx.lock);
	for (unsigned i = 0; i < fx.n_kept; i++) {
		batch_settle(fx.kept[i], v, DROP_REASON_MAX, NULL);
		batch_unref(fx.kept[i]);
	}
	atomic_store(&fx.n_kept, 0);
	pthread_mutex_unlock(&fx.lock);
}

static void deltas_that_were_refused_come_again(void **state)
{
	static const struct sp v[] = { { "a", SPAN_SERVER, 0, 1, NULL, NULL, NULL, NULL, 0 } };
	const struct pt *p;
	uint64_t first;

	(void)state;
	fx_start("spanmetrics", "{metrics_flush_interval: 20ms, aggregation_temporality: "
				"AGGREGATION_TEMPORALITY_DELTA, hosts: {enabled: false}}");
	give("service.name=s", v, 1);
	wait_for_batches(1);
	read_all();
	p = point(OTEL("calls", "s", "a", "SERVER", "UNSET"));
	assert_true(p->value == 1 && p->temporality == TEMPORALITY_DELTA);
	first = p->time_ns;
	settle_kept(VERDICT_RETRYABLE);
	wait_for_batches(1); /* again, the same bytes */
	read_all();
	p = point(OTEL("duration", "s", "a", "SERVER", "UNSET"));
	assert_true(p->value == 1 && p->time_ns == first);
	settle_kept(VERDICT_DELIVERED);
	give("service.name=s", v, 1);
	give("service.name=s", v, 1);
	flush_last();
	assert_true(sum_of(OTEL("calls", "s", "a", "SERVER", "UNSET")) == 2);
	for (size_t i = 0; i < n_points; i++)
		assert_true(points[i].time_ns > first);
	fx_stop();
}

static void what_is_quiet_expires(void **state)
{
	static const struct sp a[] = { { "a", SPAN_SERVER, 0, 1, NULL, NULL, NULL, NULL, 0 } },
			       b[] = { { "b", SPAN_SERVER, 0, 1, NULL, NULL, NULL, NULL, 0 } };
	struct spanmetrics_state *st;

	(void)state;
	fx_start("spanmetrics", "{metrics_flush_interval: 20ms, series_expiration: 2s, hosts: "
				"{enabled: false}}");
	st = COMPONENT_STATE(&fx.processor, struct spanmetrics_state);
	give("service.name=s", a, 1);
	give("service.name=s2", b, 1);
	assert_int_equal(atomic_load(&st->series.n_rows[FAMILY_SPANS]), 2);
	for (int i = 0;
	     i < 6000 && (atomic_load(&st->series.n_rows[FAMILY_SPANS]) > 0 || st->resources.n > 1);
	     i++) {
		usleep(5000);
		settle_kept(VERDICT_DELIVERED);
	}
	assert_int_equal(atomic_load(&st->series.n_rows[FAMILY_SPANS]), 0);
	assert_true(atomic_load(&st->series.n_bytes) < 1500); /* the tenant's root */
	settle_kept(VERDICT_DELIVERED);
	/* It comes back as a new one. */
	give("service.name=s", a, 1);
	flush_last();
	assert_true(point(OTEL("calls", "s", "a", "SERVER", "UNSET"))->value == 1);
	fx_stop();
}

/* ---- threads ---- */

enum { THREADS = 4, BATCHES = 100 };

static void *load(void *arg)
{
	for (int i = 0; i < BATCHES; i++)
		give_names((unsigned)(uintptr_t)arg * 7, 50);
	return NULL;
}

static void threads_and_flushes_lose_nothing(void **state)
{
	struct spanmetrics_state *st;
	pthread_t threads[THREADS];
	double sum = 0;

	(void)state;
	fx_start("spanmetrics", "{metrics_flush_interval: 10ms, aggregation_temporality: "
				"AGGREGATION_TEMPORALITY_DELTA}");
	st = COMPONENT_STATE(&fx.processor, struct spanmetrics_state);
	for (uintptr_t i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, load, (void *)i);
	for (int i = 0; i < 50; i++) {
		usleep(2000);
		pthread_mutex_lock(&fx.lock);
		read_all(); /* whole at any moment */
		pthread_mutex_unlock(&fx.lock);
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	assert_true(accepted_is_idle(&st->accepted));
	flush_last();
	sum = sum_of("traces.span.metrics.calls{");
	if (sum != THREADS * BATCHES * 50)
		fail_msg("%g calls, want %d", sum, THREADS * BATCHES * 50);
	assert_true(sum_of("traces.host.calls{") == sum);
	fx_stop();
}

static int make_points(void **state)
{
	(void)state;
	all_components_register();
	points = xcalloc(MAX_POINTS, sizeof(*points));
	return 0;
}

static int free_points(void **state)
{
	(void)state;
	free(points);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults_are_the_collectors),
		cmocka_unit_test(names_of_tempo),
		cmocka_unit_test(dimensions_are_of_span_resource_or_default),
		cmocka_unit_test(dimensions_by_pattern),
		cmocka_unit_test(patterns),
		cmocka_unit_test(resources_are_one_whatever_the_order),
		cmocka_unit_test(sampled_spans_count_as_many_as_they_stand_for),
		cmocka_unit_test(exponential_buckets),
		cmocka_unit_test(every_span_is_counted_once),
		cmocka_unit_test(over_the_limit_is_one_series),
		cmocka_unit_test(a_span_cannot_take_it_all),
		cmocka_unit_test(a_million_sets_of_labels),
		cmocka_unit_test(deltas_that_were_refused_come_again),
		cmocka_unit_test(what_is_quiet_expires),
		cmocka_unit_test(threads_and_flushes_lose_nothing),
	};

	return cmocka_run_group_tests_name("spanmetrics", tests, make_points, free_points);
}
