/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_scrape.c - a scrape of 100,000 series of the real binary: its CPU, and how long a client
 * that sends spans meanwhile waits for an answer.
 *
 *   spanmill, server CPU   otlp -> nop, spanmetrics -> prometheus, flushed every 2 s
 *   scraper, other CPU     GET /metrics as Prometheus asks: OpenMetrics, plain and gzip
 *   client, other CPU      requests of one span, one after the other, over one connection
 *
 * The series are those of 5,000 operations: a counter, 17 buckets, sum and count each. CPU is that
 * of every thread of the process around a scrape, best of 7. The pause is the longest answer in a
 * round of flushes and scrapes, of the round in which it was least, because whatever else runs on
 * the machine adds to it; beside it that of rounds without scrapes. Every page is checked for its
 * lines. SPEC: issue 6, "It must show".
 */
#include "base/buf.h"
#include "tests/bench/child.h"
#include "tests/bench/payload.h"
#include "tests/bench/report.h"

#include <pthread.h>
#include <stdatomic.h>

enum { OPERATIONS = 5000, PER_REQUEST = 1000, LINES = 100000, ROUNDS = 7, ROUND_MS = 2500 };
#define TARGET_CPU_MS 1000.0
#define TARGET_PAUSE_MS 10.0

static const char config_text[] =
	"receivers: {otlp: {protocols: {http: {endpoint: '127.0.0.1:%u'}}}}\n"
	"exporters: {nop: , prometheus: {endpoint: '127.0.0.1:%u', enable_open_metrics: true}}\n"
	"connectors: {spanmetrics: {metrics_flush_interval: 2s, hosts: {enabled: false}}}\n"
	"service: {telemetry: {metrics: {level: none}}, pipelines: {"
	"traces: {receivers: [otlp], exporters: [nop, spanmetrics]}, "
	"metrics: {receivers: [spanmetrics], exporters: [prometheus]}}}\n";

static struct child mill;
static uint16_t port, page_port;
static char folder[64];

/* ---- HTTP ---- */

static int dial(uint16_t to)
{
	struct sockaddr_in a = { .sin_family = AF_INET,
				 .sin_port = htons(to),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		child_die(&mill, "no connection");
	return fd;
}

static void send_all(int fd, const uint8_t *p, size_t n)
{
	for (size_t at = 0; at < n;) {
		ssize_t done = write(fd, p + at, n - at);

		if (done <= 0)
			child_die(&mill, "the connection broke");
		at += (size_t)done;
	}
}

/* One answer without a body of interest: the head and what it says of its length. */
static void read_answer(int fd)
{
	char text[2048];
	size_t n = 0, want = 0;

	while (want == 0 || n < want) {
		ssize_t got = read(fd, text + n, sizeof(text) - 1 - n);
		const char *end, *length;

		if (got <= 0)
			child_die(&mill, "no answer");
		n += (size_t)got;
		text[n] = '\0';
		end = strstr(text, "\r\n\r\n");
		length = strcasestr(text, "content-length:");
		if (end != NULL && want == 0)
			want = (size_t)(end + 4 - text) +
			       (length != NULL ? strtoul(length + 15, NULL, 10) : 0);
	}
	if (strncmp(text, "HTTP/1.1 200", 12) != 0)
		child_die(&mill, "a request was not taken");
}

static void post(int fd, struct bytes body)
{
	struct buf out = BUF_INIT;

	buf_printf(&out,
		   "POST /v1/traces HTTP/1.1\r\nHost: bench\r\nContent-Type: "
		   "application/x-protobuf\r\nContent-Length: %zu\r\n\r\n",
		   body.n);
	buf_add_bytes(&out, body);
	send_all(fd, out.p, out.n);
	read_answer(fd);
	buf_fini(&out);
}

/* The page's lines; of a packed one 0, and its bytes. */
static size_t scrape(bool packed, size_t *n_bytes)
{
	static char text[1 << 18];
	struct buf ask = BUF_INIT;
	int fd = dial(page_port);
	size_t lines = 0;
	ssize_t n;

	buf_printf(&ask,
		   "GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\nAccept: "
		   "application/openmetrics-text;version=1.0.0\r\n%s\r\n",
		   packed ? "Accept-Encoding: gzip\r\n" : "");
	send_all(fd, ask.p, ask.n);
	buf_fini(&ask);
	*n_bytes = 0;
	while ((n = read(fd, text, sizeof(text))) > 0) {
		*n_bytes += (size_t)n;
		for (const char *at = text; !packed && at < text + n; lines++) {
			at = memchr(at, '\n', (size_t)(text + n - at));
			if (at == NULL)
				break;
			at++;
		}
	}
	close(fd);
	return lines;
}

/* ---- spans ---- */

static void put_request(struct buf *out, unsigned from, unsigned n)
{
	size_t rs = pb_begin(out, 1), ss;

	payload_resource(out, 0);
	ss = pb_begin(out, 2);
	for (unsigned i = from; i < from + n; i++) {
		uint64_t id[2] = { i + 1, (uint64_t)(i + 1) << 20 };
		size_t s = pb_begin(out, 2);
		char name[48];

		snprintf(name, sizeof(name), "GET /api/v1/orders/%u", i);
		pb_put_bytes(out, 1, (struct bytes){ (const uint8_t *)id, 16 });
		pb_put_bytes(out, 2, (struct bytes){ (const uint8_t *)id, 8 });
		pb_put_str(out, 5, name);
		pb_put_fixed64(out, 7, 1000);
		pb_put_fixed64(out, 8, 1000 + i * UINT64_C(1000000));
		pb_end(out, s);
	}
	pb_end(out, ss);
	pb_end(out, rs);
}

static void make_series(void)
{
	int fd = dial(port);
	uint64_t until = clock_mono_ns() + 60 * NS_PER_S;
	size_t n_bytes, lines;

	for (unsigned i = 0; i < OPERATIONS; i += PER_REQUEST) {
		struct buf body = BUF_INIT;

		put_request(&body, i, PER_REQUEST);
		post(fd, buf_bytes(&body));
		buf_fini(&body);
	}
	close(fd);
	while ((lines = scrape(false, &n_bytes)) < LINES) {
		if (clock_mono_ns() > until)
			child_die(&mill, "the page has too few series");
		usleep(100000);
	}
	printf("shape: a page of %zu lines, %zu bytes\n", lines, n_bytes);
}

/* ---- the client ---- */

static struct client {
	_Atomic bool is_over;
	uint64_t longest_ns, n;
} client;

static void *send_spans(void *arg)
{
	struct buf body = BUF_INIT;
	int fd = dial(port);

	(void)arg;
	put_request(&body, 17, 1);
	while (!atomic_load(&client.is_over)) {
		uint64_t from = clock_mono_ns();

		post(fd, buf_bytes(&body));
		client.longest_ns = MAX(client.longest_ns, clock_mono_ns() - from);
		client.n++;
		usleep(500);
	}
	buf_fini(&body);
	close(fd);
	return NULL;
}

/* The longest answer in a round, in ms. */
static double round_of(bool with_scrapes)
{
	uint64_t until = clock_mono_ns() + ROUND_MS * NS_PER_MS;
	size_t n_bytes;
	pthread_t t;

	client.longest_ns = client.n = 0;
	atomic_store(&client.is_over, false);
	pthread_create(&t, NULL, send_spans, NULL);
	while (clock_mono_ns() < until) {
		if (with_scrapes)
			scrape(true, &n_bytes);
		usleep(200000);
	}
	atomic_store(&client.is_over, true);
	pthread_join(t, NULL);
	if (client.n < 100)
		child_die(&mill, "the client hardly sent anything");
	return (double)client.longest_ns / 1e6;
}

static double scrape_cpu_ms(bool packed)
{
	size_t n_bytes;
	double cpu;

	usleep(50000);
	cpu = -child_cpu_ns(&mill);
	scrape(packed, &n_bytes);
	usleep(20000);
	return (cpu + child_cpu_ns(&mill)) / 1e6;
}

int main(void)
{
	double plain = 0, packed = 0, alone = 0, scraped = 0;
	char config[1024];
	bool ok;

	child_folder(folder, sizeof(folder));
	child_pin(CHILD_LOAD_CPU);
	port = child_free_port();
	page_port = child_free_port();
	snprintf(config, sizeof(config), config_text, port, page_port);
	child_start(&mill, folder, "mill", "run", config);
	child_wait_listening(&mill, (uint16_t[]){ port, page_port, 0 });
	make_series();
	for (int i = 0; i < ROUNDS; i++) {
		report_progress("round %d of %d", i + 1, ROUNDS);
		report_keep_best(&plain, scrape_cpu_ms(false));
		report_keep_best(&packed, scrape_cpu_ms(true));
		report_keep_best(&alone, round_of(false));
		report_keep_best(&scraped, round_of(true));
	}
	ok = report_limit("scrape of 100,000 series", plain, "ms CPU", "-", AT_MOST, TARGET_CPU_MS);
	ok &= report_limit("scrape of 100,000 series, gzip", packed, "ms CPU", "-", AT_MOST,
			   TARGET_CPU_MS);
	report_value("longest answer to a span, flushes only", alone, "ms");
	ok &= report_limit("longest answer to a span, scraped too", scraped, "ms", "-", AT_MOST,
			   TARGET_PAUSE_MS);
	child_stop(&mill, NULL);
	child_folder_remove(folder);
	return !ok;
}
