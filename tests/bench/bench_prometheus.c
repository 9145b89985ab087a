/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_prometheus.c - the prometheus exporter's page of 100,000 series: CPU of a scrape, and what
 * it makes a batch wait.
 *
 * The series are those of spanmetrics: 5,000 operations with a counter and a histogram of 17
 * buckets, sum and count, each with exemplars. CPU time of the page's thread, best of 5; the last
 * time another thread gives batches of one point and notes the longest it took, which on a busy
 * machine is mostly the scheduler's.
 */
#include "base/clock.h"
#include "exporters/prometheus/ingest.h"
#include "exporters/prometheus/page.h"
#include "net/content_coding.h"
#include "pipeline/batch.h"
#include "tests/bench/report.h"
#include "wire/otlp_attr.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { OPERATIONS = 5000, PER_REQUEST = 250, BOUNDS = 16, ROUNDS = 5, LINES = 20 };
#define TARGET_MS 1000.0

static const double bounds[BOUNDS] = { 2,   4,   6,    8,    10,   50,   100,   200,
				       400, 800, 1000, 1400, 2000, 5000, 10000, 15000 };
static struct store store;
static struct ingest_options options;
static _Atomic bool is_over;
static _Atomic uint64_t longest_ns;

static void put_labels(struct metrics_writer *w, unsigned op)
{
	char name[64];

	snprintf(name, sizeof(name), "GET /api/v1/orders/%u", op);
	otlp_attr_bytes(w->out, w->attribute_field, BYTES_LIT("span.name"), OTLP_STRING,
			bytes_str(name));
	otlp_attr_bytes(w->out, w->attribute_field, BYTES_LIT("span.kind"), OTLP_STRING,
			BYTES_LIT("SPAN_KIND_SERVER"));
	otlp_attr_bytes(w->out, w->attribute_field, BYTES_LIT("status.code"), OTLP_STRING,
			BYTES_LIT("STATUS_CODE_UNSET"));
}

static void put_exemplar(struct metrics_writer *w, uint64_t n, double value)
{
	uint8_t id[16];
	struct metric_exemplar x = { .time_ns = n * NS_PER_S,
				     .number = { .d = value },
				     .trace_id = { id, 16 },
				     .span_id = { id, 8 } };

	store_le64(id, n);
	store_le64(id + 8, n * 7);
	metrics_point_exemplar(w, &x, BYTES_EMPTY);
}

static void put_points(struct metrics_writer *w, unsigned from, uint64_t n, bool histogram)
{
	uint64_t counts[BOUNDS + 1];

	metrics_write_metric(
		w, &(struct metric){ .name = histogram ? BYTES_LIT("traces.span.metrics.duration")
						       : BYTES_LIT("traces.span.metrics.calls"),
				     .unit = histogram ? BYTES_LIT("ms") : BYTES_EMPTY,
				     .kind = histogram ? METRIC_HISTOGRAM : METRIC_SUM,
				     .temporality = TEMPORALITY_CUMULATIVE,
				     .is_monotonic = !histogram });
	for (unsigned i = 0; i <= BOUNDS; i++)
		counts[i] = n * i;
	for (unsigned op = from; op < from + PER_REQUEST; op++) {
		metrics_point_begin(w);
		put_labels(w, op);
		metrics_point_times(w, 1, n * NS_PER_S);
		if (histogram) {
			metrics_point_count(w, n * BOUNDS * (BOUNDS + 1) / 2);
			metrics_point_sum(w, (double)n * 1.1);
			metrics_point_buckets(w, bounds, counts, BOUNDS);
			for (unsigned i = 0; i < BOUNDS; i++)
				put_exemplar(w, n, bounds[i] - 0.25);
		} else {
			metrics_point_double(w, (double)n + 0.5);
			put_exemplar(w, n, 12.5);
		}
		metrics_point_end(w);
	}
}

static void feed(struct buf *request)
{
	struct otlp_result rejects;
	struct ingest_result result;
	struct rcbuf *bytes = rcbuf_new(NULL, request->n);
	struct err err = ERR_INIT;
	struct batch *b;

	memcpy(bytes->p, request->p, request->n);
	bytes->n = request->n;
	b = batch_from_request(OTLP_METRICS, bytes, TENANT_DEFAULT, NULL, &rejects, &err);
	ingest(&store, &options, &b->tables, NULL, &result);
	if (result.n_taken != batch_n_points(b)) {
		fprintf(stderr, "points were lost: %s\n", result.why.msg);
		exit(2);
	}
	batch_unref(b);
}

static void feed_all(uint64_t n)
{
	struct buf request = BUF_INIT, resource = BUF_INIT;
	struct metrics_writer w;

	otlp_attr_bytes(&resource, 1, BYTES_LIT("service.name"), OTLP_STRING, BYTES_LIT("shop"));
	for (unsigned from = 0; from < OPERATIONS; from += PER_REQUEST) {
		buf_reset(&request);
		metrics_writer_init(&w, &request);
		metrics_write_resource(&w, buf_bytes(&resource), BYTES_EMPTY);
		metrics_write_scope(&w, BYTES_LIT("spanmetricsconnector"), BYTES_EMPTY);
		put_points(&w, from, n, false);
		put_points(&w, from, n, true);
		metrics_writer_finish(&w);
		feed(&request);
	}
	buf_fini(&request);
	buf_fini(&resource);
}

/* Batches of one point all the time, into every shard by and by. */
static void *give_small(void *arg)
{
	struct buf request = BUF_INIT;
	struct metrics_writer w;
	uint64_t n = 0, took;

	(void)arg;
	while (!atomic_load(&is_over)) {
		buf_reset(&request);
		metrics_writer_init(&w, &request);
		metrics_write_resource(&w, BYTES_EMPTY, BYTES_EMPTY);
		metrics_write_scope(&w, BYTES_EMPTY, BYTES_EMPTY);
		metrics_write_metric(
			&w, &(struct metric){ .name = BYTES_LIT("small"), .kind = METRIC_GAUGE });
		metrics_point_begin(&w);
		put_labels(&w, (unsigned)(n++ % 64));
		metrics_point_int(&w, (int64_t)n);
		metrics_point_end(&w);
		metrics_writer_finish(&w);
		took = clock_mono_ns();
		feed(&request);
		took = clock_mono_ns() - took;
		if (took > atomic_load(&longest_ns))
			atomic_store(&longest_ns, took);
	}
	buf_fini(&request);
	return NULL;
}

static double page_ms(enum page_kind kind, bool gzip)
{
	struct page_options o = { .form = { .kind = kind }, .is_scrape = true };
	struct err err = ERR_INIT;
	double best = 1e9;

	for (int i = 0; i < ROUNDS; i++) {
		uint64_t from = clock_cpu_ns();
		struct buf page = BUF_INIT, packed = BUF_INIT;

		page_write(&store, &o, &page);
		if (gzip)
			content_encode(CONTENT_GZIP, 1, buf_bytes(&page), &packed, &err);
		best = MIN(best, (double)(clock_cpu_ns() - from) / 1e6);
		if (page.n < (size_t)OPERATIONS * LINES * 60 || (gzip && packed.n == 0))
			exit(2);
		buf_fini(&page);
		buf_fini(&packed);
	}
	return best;
}

static bool report_page(const char *what, enum page_kind kind, bool gzip)
{
	return report_limit(what, page_ms(kind, gzip), "ms CPU", "-", AT_MOST, TARGET_MS);
}

int main(void)
{
	pthread_t thread;
	uint64_t from;
	bool ok;

	store_init(&store, NULL);
	options.naming = prometheus_naming("", PROMETHEUS_UNDERSCORE_SUFFIXES);
	feed_all(1);
	printf("shape: %d series of %zu bytes\n", OPERATIONS * LINES,
	       atomic_load(&store.bytes) / OPERATIONS / LINES);
	from = clock_cpu_ns();
	feed_all(2);
	report_value("prometheus: 100,000 series taken in", (double)(clock_cpu_ns() - from) / 1e6,
		     "ms CPU");
	ok = report_page("prometheus: text page of 100,000 series", PAGE_TEXT_0_0_4, false);
	ok &= report_page("prometheus: OpenMetrics with exemplars", PAGE_OPEN_1_0_0, false);
	pthread_create(&thread, NULL, give_small, NULL);
	ok &= report_page("prometheus: OpenMetrics, gzip, under load", PAGE_OPEN_1_0_0, true);
	atomic_store(&is_over, true);
	pthread_join(thread, NULL);
	report_value("prometheus: longest wait of a batch at that page",
		     (double)atomic_load(&longest_ns) / 1e6, "ms");
	store_fini(&store);
	return ok ? 0 : 1;
}
