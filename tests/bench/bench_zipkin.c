/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_zipkin.c - CPU per span of the real binary taking Zipkin, over the same spans as OTLP/HTTP.
 *
 *   spanmill, server CPU    zipkin and otlp (HTTP) receivers -> nop
 *   load, other CPU         one keep-alive connection, made-up traces, the same in every form
 *
 * (a) v2 JSON, v2 protobuf and v2 JSON in gzip, each as posts of 224 spans, against OTLP protobuf
 * of the very spans that the JSON becomes; best of 5, every form once a round. (b) v2 JSON at
 * 20,000 spans a second in posts of 100 for 5 s: share of a core, resident memory. Every post must
 * be answered 202 (OTLP 200), and the binary must have accepted each span that was sent.
 * SPEC: issue 5, "It must show".
 */
#include "base/arena.h"
#include "base/clock.h"
#include "base/mem.h"
#include "cmd/gen_payload.h"
#include "net/content_coding.h"
#include "tests/bench/child.h"
#include "tests/bench/report.h"
#include "wire/zipkin_encode.h"
#include "wire/zipkin_json.h"
#include "pipeline/batch.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

enum {
	ROUNDS = 5,
	BODIES = 32,
	POSTS = 800,
	WARM_UP = 64,
	SPANS = 224,
	TRACE_SPANS = 8,
	ATTRIBUTES = 10,
	PACED_SPANS = 100,
	PACED_RATE = 20000,
	PACED_S = 5
};

enum form_id { OTLP, JSON, PROTO, JSON_GZIP, JSON_SMALL, N_FORMS };

static struct form {
	const char *name, *path, *type, *coding;
	const char *status; /* of a good answer */
	uint32_t n_spans;   /* of a post */
	struct buf bodies[BODIES];
	double best_ns; /* per span */
} forms[N_FORMS] = {
	[OTLP] = { .name = "OTLP/HTTP protobuf",
		   .path = "/v1/traces",
		   .type = "application/x-protobuf",
		   .status = "200",
		   .n_spans = SPANS },
	[JSON] = { .name = "Zipkin v2 JSON",
		   .path = "/api/v2/spans",
		   .type = "application/json",
		   .status = "202",
		   .n_spans = SPANS },
	[PROTO] = { .name = "Zipkin v2 protobuf",
		    .path = "/api/v2/spans",
		    .type = "application/x-protobuf",
		    .status = "202",
		    .n_spans = SPANS },
	[JSON_GZIP] = { .name = "Zipkin v2 JSON, gzip",
			.path = "/api/v2/spans",
			.type = "application/json",
			.coding = "gzip",
			.status = "202",
			.n_spans = SPANS },
	[JSON_SMALL] = { .name = "Zipkin v2 JSON, paced",
			 .path = "/api/v2/spans",
			 .type = "application/json",
			 .status = "202",
			 .n_spans = PACED_SPANS },
};

static const char config[] =
	"receivers: {otlp: {protocols: {http: {endpoint: '127.0.0.1:%u'}}},"
	" zipkin: {endpoint: '127.0.0.1:%u'}}\n"
	"service: {telemetry: {metrics: {address: '127.0.0.1:%u'}},"
	" pipelines: {traces: {receivers: [otlp, zipkin], exporters: [nop]}}}\n"
	"exporters: {nop: }\n";

static struct child mill;
static uint16_t otlp_port, zipkin_port;
static uint64_t n_sent; /* spans */

/* ---- bodies ---- */

static void make_json(uint64_t number, uint32_t n_spans, struct buf *out)
{
	static struct gen_shape shape = {
		.spans_per_trace = TRACE_SPANS, .services = 3, .attributes = ATTRIBUTES, .seed = 7
	};
	struct gen_span *spans = xcalloc(n_spans + TRACE_SPANS, sizeof(*spans));

	if (shape.text == NULL)
		shape.text = gen_payload_text(shape.seed);
	for (uint32_t i = 0; i < n_spans; i += TRACE_SPANS)
		gen_payload_trace(&shape, number * 1000 + i, UINT64_C(1700000000000000000),
				  spans + i);
	gen_payload_zipkin(&shape, spans, n_spans, out);
	free(spans);
}

static void die(const char *what)
{
	report_progress("%s", "");
	fprintf(stderr, "bench_zipkin: %s\n", what);
	exit(2);
}

static void make_otlp(struct bytes json, struct buf *out)
{
	struct arena a = ARENA_INIT;
	struct zipkin_result res;

	if (zipkin_json_decode(json, 0, false, &a, out, &res, NULL) < 0 || res.n_bad > 0)
		die("the made-up list is not taken");
	arena_fini(&a);
}

static void make_proto(struct bytes otlp, struct buf *out)
{
	struct rcbuf *request = rcbuf_new(NULL, otlp.n);
	struct otlp_result result;
	struct zipkin_encoder e;
	struct batch *b;

	memcpy(request->p, otlp.p, otlp.n);
	request->n = otlp.n;
	b = batch_from_otlp(request, TENANT_DEFAULT, NULL, &result, NULL);
	if (b == NULL)
		die("the OTLP of the list is not taken");
	zipkin_encoder_init(&e, ZIPKIN_PROTO, "");
	zipkin_encode_list(&e, &b->tables, 0, 0, out);
	zipkin_encoder_fini(&e);
	batch_unref(b);
}

static void make_gzip(struct bytes json, struct buf *out)
{
	if (content_encode(CONTENT_GZIP, 0, json, out, NULL) < 0)
		die("gzip");
}

static void make_bodies(void)
{
	for (uint64_t i = 0; i < BODIES; i++) {
		struct bytes json;

		make_json(i + 1, SPANS, &forms[JSON].bodies[i]);
		json = buf_bytes(&forms[JSON].bodies[i]);
		make_otlp(json, &forms[OTLP].bodies[i]);
		make_proto(buf_bytes(&forms[OTLP].bodies[i]), &forms[PROTO].bodies[i]);
		make_gzip(json, &forms[JSON_GZIP].bodies[i]);
		make_json(i + 1, PACED_SPANS, &forms[JSON_SMALL].bodies[i]);
	}
	for (int f = 0; f < N_FORMS; f++)
		printf("%s: %.0f bytes a span\n", forms[f].name,
		       (double)forms[f].bodies[0].n / forms[f].n_spans);
}

/* ---- posts ---- */

static int dial(uint16_t port)
{
	struct sockaddr_in to = { .sin_family = AF_INET,
				  .sin_port = htons(port),
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0)
		die("cannot connect");
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

/* Read one answer; its body, if any, comes with its head. */
static void expect(int fd, const char *status)
{
	char answer[4096];
	size_t n = 0;

	do {
		ssize_t got = recv(fd, answer + n, sizeof(answer) - 1 - n, 0);

		if (got <= 0)
			die("no answer");
		n += (size_t)got;
		answer[n] = '\0';
	} while (strstr(answer, "\r\n\r\n") == NULL);
	if (strncmp(answer + 9, status, 3) != 0) {
		fprintf(stderr, "%s\n", answer);
		die("an answer is not as it must be");
	}
}

static void post(int fd, struct form *f, uint32_t number)
{
	const struct buf *body = &f->bodies[number % BODIES];
	char head[512];
	int n = snprintf(head, sizeof(head),
			 "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\n%s%s%s"
			 "Content-Length: %zu\r\n\r\n",
			 f->path, f->type, f->coding ? "Content-Encoding: " : "",
			 f->coding ? f->coding : "", f->coding ? "\r\n" : "", body->n);

	send_all(fd, head, (size_t)n);
	send_all(fd, body->p, body->n);
	expect(fd, f->status);
	n_sent += f->n_spans;
}

/* ---- runs ---- */

/* CPU per span of the binary. */
static double form_run(struct form *f, uint32_t n_posts)
{
	int fd = dial(f == &forms[OTLP] ? otlp_port : zipkin_port);
	double cpu = -child_cpu_ns(&mill);

	for (uint32_t i = 0; i < n_posts; i++)
		post(fd, f, i);
	cpu += child_cpu_ns(&mill);
	close(fd);
	return cpu / n_posts / f->n_spans;
}

static void measure(void)
{
	for (int f = 0; f < JSON_SMALL; f++)
		form_run(&forms[f], WARM_UP);
	for (int round = 0; round < ROUNDS; round++)
		for (int f = 0; f < JSON_SMALL; f++) {
			report_progress("round %d of %d: %s", round + 1, ROUNDS, forms[f].name);
			report_keep_best(&forms[f].best_ns, form_run(&forms[f], POSTS));
		}
}

/* At a steady rate; the share of a core in percent. */
static double paced_run(void)
{
	const uint32_t per_s = PACED_RATE / PACED_SPANS, n = per_s * PACED_S;
	uint64_t start = clock_mono_ns();
	int fd = dial(zipkin_port);
	double cpu = -child_cpu_ns(&mill);

	for (uint32_t i = 0; i < n; i++) {
		uint64_t due = start + i * (NS_PER_S / per_s), now = clock_mono_ns();

		if (now < due)
			usleep((useconds_t)((due - now) / 1000));
		post(fd, &forms[JSON_SMALL], i);
	}
	cpu += child_cpu_ns(&mill);
	close(fd);
	return 100 * cpu / (double)(clock_mono_ns() - start);
}

static bool report(double share, double rss_kib)
{
	bool ok = report_ratio("Zipkin v2 JSON -> OTLP, same spans", forms[JSON].best_ns, "ns/span",
			       forms[OTLP].name, forms[OTLP].best_ns, AT_MOST, 4);

	report_beside("Zipkin v2 JSON in gzip", forms[JSON_GZIP].best_ns, "ns/span",
		      forms[OTLP].name, forms[OTLP].best_ns);
	report_beside("Zipkin v2 protobuf", forms[PROTO].best_ns, "ns/span", forms[OTLP].name,
		      forms[OTLP].best_ns);
	ok &= report_limit("20,000 Zipkin spans/s: share of a core", share, "%", "-", AT_MOST, 10);
	ok &= report_limit("20,000 Zipkin spans/s: resident", rss_kib / 1024, "MiB", "-", AT_MOST,
			   24);
	return ok;
}

int main(void)
{
	struct child_balance b;
	char folder[64], text[1024];
	double share, rss;
	bool ok;

	child_folder(folder, sizeof(folder));
	child_pin(CHILD_LOAD_CPU);
	make_bodies();
	otlp_port = child_free_port();
	zipkin_port = child_free_port();
	snprintf(text, sizeof(text), config, otlp_port, zipkin_port, child_free_port());
	child_start(&mill, folder, "zipkin", "run", text);
	child_wait_listening(&mill, (uint16_t[]){ otlp_port, zipkin_port, 0 });
	/* First, so that memory is not the other load's. */
	share = paced_run();
	rss = child_status_kib(&mill, "VmRSS:");
	measure();
	ok = report(share, rss);
	child_stop(&mill, &b);
	if (b.accepted != n_sent || b.delivered != n_sent)
		die("accepted or delivered is not what was sent");
	child_folder_remove(folder);
	return !ok;
}
