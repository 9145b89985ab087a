/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_spanmetrics.c - CPU per span of the spanmetrics connector with and without exemplars, and
 * of a flush.
 *
 * 1,000 series, requests of 224 spans. The whole way of a batch through the connector: an exemplar
 * processor's question, competing, fan-out, verdicts of two branches, counting on a loop; CPU time
 * of the process, best of 5, steps interleaved. A batch is used again and again, so its spans find
 * their slots taken as most spans of a minute do. Then 100,000 series are flushed, while another
 * thread gives batches of one span and notes the longest it took.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "cmd/all_components.h"
#include "connectors/spanmetrics/connector.h"
#include "net/loop.h"
#include "pipeline/conf/tree.h"
#include "pipeline/fanout.h"
#include "pipeline/registry.h"
#include "pipeline/service/service.h"
#include "tests/bench/payload.h"
#include "tests/bench/report.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

enum { N_BATCHES = 32, ROUNDS = 5, REPEAT = 20, SERIES = 1000, MANY = 100000 };
#define TARGET_NS 250.0

static struct service service;
static struct loop *loop;
static struct component sink;
static struct component_counters counts[3];
static struct fanout_target target;
static struct fanout fanout = { &target, 1, 1 };
static struct batch *batches[N_BATCHES];
static struct origin origins[N_BATCHES];
static const char *takes[PAYLOAD_SPANS];
static _Atomic uint64_t n_points;

static void swallow(struct component *c, struct batch *b)
{
	(void)c;
	atomic_fetch_add(&n_points, batch_n_points(b));
	batch_settle(b, VERDICT_DELIVERED, DROP_REASON_MAX, NULL);
	batch_unref(b);
}

static const struct component_type sink_type = { .name = "sink",
						 .kind = KIND_EXPORTER,
						 .consume = swallow };

struct instance {
	struct component c;
	struct arena arena;
};

static void start(struct instance *in, const char *yaml)
{
	const struct component_type *t = registry_find(KIND_CONNECTOR, BYTES_LIT("spanmetrics"));
	struct conf_errors errors = CONF_ERRORS_INIT;
	struct conf_build b = { .arena = &in->arena, .errors = &errors };
	struct conf_node *root = NULL;
	struct err err = ERR_INIT;
	void *config = arena_zalloc(&in->arena, t->config_size);

	conf_tree_parse(&b, bytes_str(yaml), conf_tree_source(&b, "bench"), &root);
	option_parse(t->options, root, config, &in->arena, &errors, "spanmetrics");
	t->validate(config, root, &errors, "spanmetrics");
	assert(errors.n_errors == 0);
	conf_error_fini(&errors);
	in->c = (struct component){ .type = t,
				    .id = "spanmetrics",
				    .config = config,
				    .state = xcalloc(1, t->state_size),
				    .count = &counts[0],
				    .service = &service,
				    .out = { [OTLP_METRICS] = &fanout } };
	if (t->start(&in->c, &err) < 0) {
		fprintf(stderr, "%s\n", err.msg);
		exit(2);
	}
}

static struct spanmetrics_state *state_of(struct instance *in)
{
	return COMPONENT_STATE(&in->c, struct spanmetrics_state);
}

static void wait_counted(struct instance *in)
{
	while (!accepted_is_idle(&state_of(in)->accepted))
		usleep(100);
}

static void stop(struct instance *in)
{
	while (!in->c.type->is_drained(&in->c))
		usleep(1000);
	in->c.type->shutdown(&in->c);
	free(in->c.state);
	arena_fini(&in->arena);
}

static void settled(struct origin *o)
{
	origin_fini(o);
}

/* One batch through it, as behind an exemplar processor. */
static void give(struct instance *in, int i)
{
	struct batch *b = batches[i];

	if (in->c.type->exemplar_offer != NULL && atomic_load(&state_of(in)->n_bound) > 0) {
		memset(takes, 0, sizeof(takes));
		in->c.type->exemplar_offer(&in->c, b, takes);
		for (uint32_t k = 0; k < b->tables.n_spans; k++)
			b->tables.spans[k].takes_slot = takes[k] != NULL;
	}
	origin_init(&origins[i], b->tables.n_spans, settled);
	batch_bind(b, &origins[i]);
	/* The other branch delivers: else no candidate would ever be shown. */
	origin_fan_out(&origins[i], b->tables.n_spans, 1);
	in->c.type->consume(&in->c, batch_ref(b));
	batch_settle(b, VERDICT_DELIVERED, DROP_REASON_MAX, NULL);
}

static double cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void measure(struct instance *in, double *best)
{
	double begin = cpu_ns();

	for (int k = 0; k < REPEAT; k++) {
		for (int i = 0; i < N_BATCHES; i++)
			give(in, i);
		wait_counted(in);
	}
	report_keep_best(best, (cpu_ns() - begin) / (REPEAT * N_BATCHES * PAYLOAD_SPANS));
}

/* The payload has 90 series; two digits in the name make about SERIES of them. */
static void make_batches(void)
{
	struct buf text = BUF_INIT;
	struct rng rng;

	rng_seed(&rng, 7);
	for (int i = 0; i < N_BATCHES; i++) {
		struct otlp_result result;
		struct rcbuf *r;

		buf_reset(&text);
		payload_request(&text, PAYLOAD_SPANS, (uint64_t)i + 1);
		r = rcbuf_new(NULL, text.n);
		memcpy(r->p, text.p, text.n);
		r->n = text.n;
		batches[i] = batch_from_otlp(r, "bench", NULL, &result, NULL);
		for (uint32_t k = 0; k < PAYLOAD_SPANS; k++) {
			struct span_ref *sp = &batches[i]->tables.spans[k];
			uint8_t *end = r->p + (sp->p - r->p) + sp->name_off + sp->name_len;

			end[-1] = (uint8_t)('0' + rng_below(&rng, 6));
			end[-2] = (uint8_t)('0' + rng_below(&rng, 2));
		}
	}
	buf_fini(&text);
}

/* ---- a flush of many ---- */

static struct batch *many_names(unsigned from, unsigned n)
{
	struct buf out = BUF_INIT;
	struct otlp_result result;
	struct rcbuf *r;
	size_t rs = pb_begin(&out, 1), ss;

	payload_resource(&out, 0);
	ss = pb_begin(&out, 2);
	for (unsigned i = 0; i < n; i++) {
		uint64_t id[2] = { from + i + 1, 1 };
		size_t s = pb_begin(&out, 2);
		char name[40];

		snprintf(name, sizeof(name), "GET /api/v1/orders/%u", from + i);
		pb_put_bytes(&out, 1, (struct bytes){ (const uint8_t *)id, 16 });
		pb_put_bytes(&out, 2, (struct bytes){ (const uint8_t *)id, 8 });
		pb_put_str(&out, 5, name);
		pb_put_fixed64(&out, 7, 1000);
		pb_put_fixed64(&out, 8, 1000 + i * 1000000);
		pb_end(&out, s);
	}
	pb_end(&out, ss);
	pb_end(&out, rs);
	r = rcbuf_new(NULL, out.n);
	memcpy(r->p, out.p, out.n);
	r->n = out.n;
	buf_fini(&out);
	return batch_from_otlp(r, "bench", NULL, &result, NULL);
}

struct prober {
	struct instance *in;
	struct batch *b;
	_Atomic bool is_over;
	double longest_ms;
};

static long n_preempted(void)
{
	struct rusage u;

	getrusage(RUSAGE_THREAD, &u);
	return u.ru_nivcsw;
}

/* Calls during which this thread had to leave its CPU to another say nothing of ours. */
static void *give_one_by_one(void *arg)
{
	struct prober *p = arg;

	while (!atomic_load(&p->is_over)) {
		long before = n_preempted();
		uint64_t begin = clock_mono_ns(), end;

		p->in->c.type->consume(&p->in->c, batch_ref(p->b));
		end = clock_mono_ns();
		if (n_preempted() == before)
			p->longest_ms = MAX(p->longest_ms, (double)(end - begin) / 1e6);
	}
	return NULL;
}

static bool flush_many(void)
{
	struct instance in = { 0 };
	struct prober p = { .in = &in };
	double begin, cpu;
	pthread_t thread;

	start(&in, "{metrics_flush_interval: 1h, hosts: {enabled: false}}");
	for (unsigned i = 0; i < MANY; i += 1000) {
		struct batch *b = many_names(i, 1000);

		in.c.type->consume(&in.c, b);
	}
	p.b = many_names(0, 1);
	atomic_store(&n_points, 0);
	begin = cpu_ns();
	while (!in.c.type->is_drained(&in.c))
		usleep(1000);
	cpu = (cpu_ns() - begin) / 1e6;
	in.c.type->shutdown(&in.c);
	free(in.c.state);
	arena_fini(&in.arena);
	assert(atomic_load(&n_points) == 2 * MANY);
	/* Again, with somebody who wants in. */
	in = (struct instance){ 0 };
	start(&in, "{metrics_flush_interval: 1h, hosts: {enabled: false}}");
	for (unsigned i = 0; i < MANY; i += 1000)
		in.c.type->consume(&in.c, many_names(i, 1000));
	pthread_create(&thread, NULL, give_one_by_one, &p);
	while (!in.c.type->is_drained(&in.c))
		usleep(1000);
	atomic_store(&p.is_over, true);
	pthread_join(thread, NULL);
	stop(&in);
	batch_unref(p.b);
	report_value("spanmetrics: longest wait of a span at that flush", p.longest_ms,
		     "ms");
	return report_limit("spanmetrics: flush of 100,000 series", cpu, "ms CPU", "-", AT_MOST,
			    1000);
}

int main(void)
{
	static struct instance plain, with;
	double best_plain = 0, best_with = 0;
	bool ok;

	all_components_register();
	loop = loop_new(0, NULL);
	if (loop == NULL || loop_start(loop, NULL) < 0)
		return 2;
	service.loops = &loop;
	service.n_loops = 1;
	atomic_store(&service.budget.limit, (int64_t)GIB);
	sink = (struct component){
		.type = &sink_type, .id = "sink", .count = &counts[1], .service = &service
	};
	target = (struct fanout_target){ &sink, false };
	make_batches();
	start(&plain, "{metrics_flush_interval: 1h}");
	start(&with, "{metrics_flush_interval: 1h, exemplars: {enabled: true}}");
	with.c.type->exemplar_bound(&with.c, true);
	for (int round = 0; round < ROUNDS; round++) {
		report_progress("round %d of %d", round + 1, ROUNDS);
		measure(&plain, &best_plain);
		measure(&with, &best_with);
	}
	printf("shape: %d requests of %d spans, %llu series\n", N_BATCHES, PAYLOAD_SPANS,
	       (unsigned long long)atomic_load(&state_of(&with)->series.n_rows[FAMILY_SPANS]));
	report_value("spanmetrics", best_plain, "ns/span");
	ok = report_limit("spanmetrics with exemplars and their offer", best_with,
			  "ns/span", "the Collector's: 2,150", AT_MOST, TARGET_NS);
	stop(&plain);
	stop(&with);
	ok &= flush_many();
	for (int i = 0; i < N_BATCHES; i++)
		batch_unref(batches[i]);
	loop_stop(loop);
	loop_free(loop);
	return !ok;
}
