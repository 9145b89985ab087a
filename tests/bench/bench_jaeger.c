/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_jaeger.c - CPU per span of the real binary taking Jaeger, over the same spans as OTLP/HTTP.
 *
 *   spanmill, server CPU    jaeger (UDP compact, HTTP Thrift) and otlp (HTTP) receivers -> nop
 *   load, other CPU         datagrams of 64 spans, four at a time; posts of the same spans
 *
 * Compact Thrift over UDP and binary Thrift over HTTP, against OTLP protobuf of the very spans that
 * the Thrift becomes, in requests of as many spans; best of 5, every form once a round. A span has
 * ten tags of all types and is a third of a trace; every eighth has a log. UDP knows no answer, so
 * the load waits until the socket is empty, and a round until the binary is idle; a round in which
 * the kernel dropped anything does not count. SPEC: issue 5, "It must show".
 */
#include "base/arena.h"
#include "base/clock.h"
#include "base/rng.h"
#include "tests/bench/child.h"
#include "tests/bench/report.h"
#include "tests/thrift_writer.h"
#include "wire/jaeger_thrift.h"

#include <netinet/tcp.h>

enum {
	ROUNDS = 5,
	BODIES = 32,
	REQUESTS = 2000,
	WARM_UP = 100,
	SPANS = 64,
	BURST = 4,
	PAUSE_US = 200
};

enum form_id { OTLP, COMPACT, BINARY, N_FORMS };

static struct form {
	const char *name, *path, *type;
	const char *transport; /* label of its counter */
	uint16_t port;
	struct buf bodies[BODIES];
	uint64_t n_sent; /* spans */
	double best_ns;  /* per span */
} forms[N_FORMS] = {
	[OTLP] = { .name = "OTLP/HTTP protobuf",
		   .path = "/v1/traces",
		   .type = "application/x-protobuf",
		   .transport = "http" },
	[COMPACT] = { .name = "Jaeger compact, UDP", .transport = "udp_thrift_compact" },
	[BINARY] = { .name = "Jaeger binary, HTTP",
		     .path = "/api/traces",
		     .type = "application/x-thrift",
		     .transport = "collector_http" },
};

static const char config[] =
	"receivers: {otlp: {protocols: {http: {endpoint: '127.0.0.1:%u'}}},"
	" jaeger: {protocols: {thrift_compact: {endpoint: '127.0.0.1:%u'},"
	" thrift_http: {endpoint: '127.0.0.1:%u'}}}}\n"
	"service: {telemetry: {metrics: {address: '127.0.0.1:%u'}},"
	" pipelines: {traces: {receivers: [otlp, jaeger], exporters: [nop]}}}\n"
	"exporters: {nop: }\n";

static struct child mill;
static uint16_t metrics_port;

NO_RETURN static void die(const char *what)
{
	report_progress("%s", "");
	fprintf(stderr, "bench_jaeger: %s\n", what);
	exit(2);
}

/* ---- bodies ---- */

static void put_tag(struct thrift_writer *w, const char *key, const char *text)
{
	thrift_begin(w);
	thrift_put_string(w, 1, bytes_str(key));
	thrift_put_i32(w, 2, 0);
	thrift_put_string(w, 3, bytes_str(text));
	thrift_end(w);
}

static void put_long_tag(struct thrift_writer *w, const char *key, int64_t v)
{
	thrift_begin(w);
	thrift_put_string(w, 1, bytes_str(key));
	thrift_put_i32(w, 2, 3);
	thrift_put_i64(w, 6, v);
	thrift_end(w);
}

static void put_tags(struct thrift_writer *w, struct rng *r)
{
	static const char *const methods[] = { "GET", "POST", "PUT", "DELETE" };
	char text[64];

	thrift_put_list(w, 10, 10);
	put_tag(w, "span.kind", rng_below(r, 2) ? "server" : "client");
	put_tag(w, "http.method", methods[rng_below(r, 4)]);
	snprintf(text, sizeof(text), "http://shop.svc/api/v1/orders/%06u",
		 (unsigned)rng_below(r, 1000000));
	put_tag(w, "http.url", text);
	put_long_tag(w, "http.status_code", 200 + 100 * (int64_t)rng_below(r, 4));
	put_tag(w, "peer.service", "orders.shop.svc.cluster.local");
	put_long_tag(w, "peer.port", 8080 + (int64_t)rng_below(r, 4));
	thrift_begin(w);
	thrift_put_string(w, 1, bytes_str("cart.total"));
	thrift_put_i32(w, 2, 1);
	thrift_put_double(w, 4, rng_unit(r) * 100);
	thrift_end(w);
	thrift_begin(w);
	thrift_put_string(w, 1, bytes_str("cache.hit"));
	thrift_put_i32(w, 2, 2);
	thrift_put_bool(w, 5, rng_below(r, 2));
	thrift_end(w);
	snprintf(text, sizeof(text), "user-%08x-%08x", (unsigned)rng_next(r),
		 (unsigned)rng_next(r));
	put_tag(w, "user", text);
	put_tag(w, "component", "net/http");
}

static void put_span(struct thrift_writer *w, struct rng *r, const int64_t trace[2], int64_t parent,
		     int64_t id)
{
	int64_t start = 1700000000000000 + (int64_t)rng_below(r, UINT64_C(1) << 40);

	thrift_begin(w);
	thrift_put_i64(w, 1, trace[0]);
	thrift_put_i64(w, 2, trace[1]);
	thrift_put_i64(w, 3, id);
	thrift_put_i64(w, 4, parent);
	thrift_put_string(w, 5, bytes_str("GET /api/v1/orders/{id}"));
	thrift_put_i32(w, 7, 1);
	thrift_put_i64(w, 8, start);
	thrift_put_i64(w, 9, (int64_t)rng_below(r, 1000000));
	put_tags(w, r);
	if (rng_below(r, 8) == 0) {
		thrift_put_list(w, 11, 1);
		thrift_begin(w);
		thrift_put_i64(w, 1, start + 5);
		thrift_put_list(w, 2, 2);
		put_tag(w, "event", "cache.miss");
		put_tag(w, "cache.key", "order:4711");
		thrift_end(w);
	}
	thrift_end(w);
}

/* A Batch. */
static void put_batch(struct thrift_writer *w, uint64_t seed)
{
	int64_t trace[2] = { 0, 0 }, id = 0;
	struct rng r;

	rng_seed(&r, seed);
	thrift_begin(w);
	thrift_put_field(w, 1, THRIFT_STRUCT);
	thrift_begin(w);
	thrift_put_string(w, 1, bytes_str("shop"));
	thrift_put_list(w, 2, 3);
	put_tag(w, "hostname", "node-17");
	put_tag(w, "ip", "10.1.2.3");
	put_tag(w, "jaeger.version", "Go-2.30.0");
	thrift_end(w);
	thrift_put_list(w, 2, SPANS);
	for (unsigned i = 0; i < SPANS; i++) {
		int64_t parent = i % 3 == 0 ? 0 : id;

		if (i % 3 == 0)
			trace[0] = (int64_t)rng_next(&r) | 1, trace[1] = (int64_t)rng_next(&r);
		id = (int64_t)rng_next(&r) | 1;
		put_span(w, &r, trace, parent, id);
	}
	thrift_end(w);
}

static void make_otlp(struct bytes batch, struct buf *out)
{
	struct arena a = ARENA_INIT;
	struct jaeger_result res;
	struct thrift_reader r;

	thrift_init(&r, batch, THRIFT_BINARY);
	if (jaeger_thrift_batch(&r, 0, &a, out, &res, NULL) < 0 || res.n_ok != SPANS)
		die("the made-up batch is not taken");
	arena_fini(&a);
}

static void make_bodies(void)
{
	for (uint64_t i = 0; i < BODIES; i++) {
		struct thrift_writer w = { .out = &forms[BINARY].bodies[i],
					   .protocol = THRIFT_BINARY };

		put_batch(&w, i + 1);
		make_otlp(buf_bytes(w.out), &forms[OTLP].bodies[i]);
		w = (struct thrift_writer){ .out = &forms[COMPACT].bodies[i],
					    .protocol = THRIFT_COMPACT };
		thrift_put_message(&w, "emitBatch", THRIFT_ONEWAY);
		thrift_begin(&w);
		thrift_put_field(&w, 1, THRIFT_STRUCT);
		put_batch(&w, i + 1);
		thrift_end(&w);
	}
	for (int f = 0; f < N_FORMS; f++)
		printf("%s: %.0f bytes a span\n", forms[f].name,
		       (double)forms[f].bodies[0].n / SPANS);
}

/* ---- talk ---- */

static int dial(int type, uint16_t port)
{
	struct sockaddr_in to = { .sin_family = AF_INET,
				  .sin_port = htons(port),
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0), one = 1;

	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0)
		die("cannot connect");
	if (type == SOCK_STREAM)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return fd;
}

static void send_all(int fd, const void *p, size_t n)
{
	while (n > 0) {
		ssize_t got = send(fd, p, n, MSG_NOSIGNAL);

		if (got <= 0)
			die("the connection broke");
		p = (const char *)p + got;
		n -= (size_t)got;
	}
}

static void post(int fd, const struct form *f, const struct buf *body)
{
	char text[4096];
	size_t n = (size_t)snprintf(text, sizeof(text),
				    "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\n"
				    "Content-Length: %zu\r\n\r\n",
				    f->path, f->type, body->n);

	send_all(fd, text, n);
	send_all(fd, body->p, body->n);
	n = 0;
	do {
		ssize_t got = recv(fd, text + n, sizeof(text) - 1 - n, 0);

		if (got <= 0)
			die("no answer");
		n += (size_t)got;
		text[n] = '\0';
	} while (strstr(text, "\r\n\r\n") == NULL);
	if (strncmp(text + 9, "20", 2) != 0)
		die(text);
}

/* Spans that the form's transport has accepted so far. */
static uint64_t accepted(const struct form *f)
{
	static const char ask[] = "GET /metrics HTTP/1.0\r\n\r\n";
	static char page[1 << 20];
	char label[64], *at = page;
	int fd = dial(SOCK_STREAM, metrics_port);
	size_t n = 0;
	ssize_t got;

	send_all(fd, ask, sizeof(ask) - 1);
	while ((got = recv(fd, page + n, sizeof(page) - 1 - n, 0)) > 0)
		n += (size_t)got;
	close(fd);
	page[n] = '\0';
	snprintf(label, sizeof(label), "transport=\"%s\"} ", f->transport);
	while ((at = strstr(at, "\notelcol_receiver_accepted_spans{")) != NULL) {
		char *value = strstr(at, label), *end = strchr(at + 1, '\n');

		if (value != NULL && value < end)
			return strtoull(value + strlen(label), NULL, 10);
		at++;
	}
	die("no counter of accepted spans");
}

/* ---- runs ---- */

/* Bytes that wait in the port's socket. */
static unsigned long waiting(uint16_t port)
{
	FILE *f = fopen("/proc/net/udp", "r");
	unsigned long queue = 0, q;
	unsigned p;
	char line[256];

	if (f == NULL)
		die("no /proc/net/udp");
	while (fgets(line, sizeof(line), f) != NULL)
		if (sscanf(line, " %*u: %*8[0-9A-F]:%x %*s %*s %*8[0-9A-F]:%lx", &p, &q) == 2 &&
		    p == port)
			queue += q;
	fclose(f);
	return queue;
}

static void send_round(struct form *f, uint32_t n)
{
	int fd = dial(f->path != NULL ? SOCK_STREAM : SOCK_DGRAM, f->port);

	for (uint32_t i = 0; i < n; i++) {
		const struct buf *body = &f->bodies[i % BODIES];

		if (f->path != NULL) {
			post(fd, f, body);
		} else {
			send_all(fd, body->p, body->n);
			/* The kernel drops what finds no room. */
			while (i % BURST == BURST - 1 && waiting(f->port) > 0)
				usleep(PAUSE_US);
		}
	}
	close(fd);
	f->n_sent += (uint64_t)n * SPANS;
}

/* Until the binary has had nothing to do for a while. */
static void wait_idle(void)
{
	double before = -1, now = child_cpu_ns(&mill);

	while (now - before > 1e6) {
		usleep(50000);
		before = now;
		now = child_cpu_ns(&mill);
	}
}

/* CPU per span of the binary; 0 when some were lost on the way. */
static double form_run(struct form *f, uint32_t n)
{
	uint64_t before = accepted(f), got;
	double cpu;

	wait_idle();
	cpu = -child_cpu_ns(&mill);
	send_round(f, n);
	wait_idle();
	cpu += child_cpu_ns(&mill);
	got = accepted(f) - before;
	if (got < (uint64_t)n * SPANS)
		return 0;
	return cpu / (double)got;
}

static void measure(void)
{
	for (int f = 0; f < N_FORMS; f++)
		form_run(&forms[f], WARM_UP);
	for (int round = 0; round < ROUNDS; round++) {
		for (int f = 0; f < N_FORMS; f++) {
			double ns;

			report_progress("round %d of %d: %s", round + 1, ROUNDS, forms[f].name);
			ns = form_run(&forms[f], REQUESTS);
			if (ns > 0)
				report_keep_best(&forms[f].best_ns, ns);
		}
	}
	for (int f = 0; f < N_FORMS; f++)
		if (forms[f].best_ns == 0)
			die("the kernel dropped datagrams in every round");
}

int main(void)
{
	uint64_t total = 0;
	struct child_balance b;
	char folder[64], text[1024];
	bool ok;

	child_folder(folder, sizeof(folder));
	child_pin(CHILD_LOAD_CPU);
	make_bodies();
	for (int f = 0; f < N_FORMS; f++)
		forms[f].port = child_free_port();
	metrics_port = child_free_port();
	snprintf(text, sizeof(text), config, forms[OTLP].port, forms[COMPACT].port,
		 forms[BINARY].port, metrics_port);
	child_start(&mill, folder, "jaeger", "run", text);
	child_wait_listening(&mill,
			     (uint16_t[]){ forms[OTLP].port, forms[BINARY].port, metrics_port, 0 });
	measure();
	ok = report_ratio("Jaeger compact -> OTLP, same spans", forms[COMPACT].best_ns, "ns/span",
			  forms[OTLP].name, forms[OTLP].best_ns, AT_MOST, 2);
	report_beside("Jaeger binary over HTTP", forms[BINARY].best_ns, "ns/span", forms[OTLP].name,
		      forms[OTLP].best_ns);
	for (int f = 0; f < N_FORMS; f++)
		total += accepted(&forms[f]);
	child_stop(&mill, &b);
	if (b.accepted != total || b.delivered != total)
		die("accepted or delivered is not what the receivers took");
	child_folder_remove(folder);
	return !ok;
}
