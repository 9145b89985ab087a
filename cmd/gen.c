/* SPDX-License-Identifier: Apache-2.0
 *
 * gen.c - `spanmill gen`: sends made-up traces and says what became of every span.
 *
 * DESIGN: `concurrency` slots, each with one request under way, fed by one counter of traces (any
 * slot makes any trace, gen_payload.h) and one clock that says when the next request is due. A slot
 * that waits for an answer does not keep the others; when all wait, the rate falls behind and up to
 * a second of it is made up for later.
 * OWNERSHIP, THREADS: the main thread prints and takes signals, the slots run on threads of
 * gen_http.c or loops of gen_grpc.c.
 * LIMITS: memory is concurrency x batch x the size of a span.
 * SPEC: INTERFACE "The program"; exit status 0 everything sent was acknowledged, 1 usage, 3 not so.
 */
#include "cmd/gen.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "cmd/commands.h"
#include "cmd/flags.h"
#include "cmd/terminal.h"
#include "wire/pb.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

enum {
	EXIT_ACKED = 0,
	EXIT_USAGE = 1,
	EXIT_UNACKED = 3,
	WAIT_MS = 50,
	GRACE_S = 30, /* retries go on for so long after the last new request */
	BACKOFF_MIN_MS = 100,
	BACKOFF_MAX_MS = 5000,
	PAUSE_MS = 20, /* after a request that nobody answered */
	HOPELESS = 10, /* requests in a row without an answer before the run is given up */
};

/* ---- the slots' side ---- */

void gen_slot_init(struct gen_slot *slot, struct gen *g)
{
	static _Atomic uint64_t number;

	*slot = (struct gen_slot){ .g = g };
	slot->trace = xcalloc(g->c.shape.spans_per_trace, sizeof(*slot->trace));
	slot->spans = xcalloc((size_t)g->c.batch, sizeof(*slot->spans));
	rng_seed(&slot->rng, g->c.shape.seed ^ (atomic_fetch_add(&number, 1) << 32));
}

void gen_slot_fini(struct gen_slot *slot)
{
	free(slot->trace);
	free(slot->spans);
	buf_fini(&slot->body);
}

/* Make the next trace of the run, if there is to be one. */
static bool next_trace(struct gen_slot *slot)
{
	struct gen *g = slot->g;
	uint64_t number;

	if (atomic_load(&g->stopping))
		return false;
	number = atomic_fetch_add(&g->next_trace, 1);
	if (g->c.traces > 0 && number >= g->c.traces)
		return false;
	gen_payload_trace(&g->c.shape, number, clock_wall_ns(), slot->trace);
	slot->trace_at = 0;
	slot->trace_n = g->c.shape.spans_per_trace;
	return true;
}

/* When the next n spans are due. */
static uint64_t pace(struct gen *g, size_t n)
{
	uint64_t now = clock_mono_ns(), due;

	if (g->c.rate == 0)
		return now;
	pthread_mutex_lock(&g->lock);
	due = MAX(g->pace_ns, now - MIN(now, NS_PER_S));
	g->pace_ns = due + (uint64_t)((double)n * 1e9 / (double)g->c.rate);
	pthread_mutex_unlock(&g->lock);
	return due;
}

bool gen_slot_fill(struct gen_slot *slot)
{
	const struct gen_config *c = &slot->g->c;
	uint64_t due;

	slot->n = 0;
	while (slot->n < c->batch && (slot->trace_at < slot->trace_n || next_trace(slot))) {
		size_t n = MIN(slot->trace_n - slot->trace_at, (size_t)c->batch - slot->n);

		memcpy(slot->spans + slot->n, slot->trace + slot->trace_at,
		       n * sizeof(*slot->spans));
		slot->n += n;
		slot->trace_at += n;
	}
	if (slot->n == 0)
		return false;
	buf_reset(&slot->body);
	if (c->protocol == GEN_ZIPKIN)
		gen_payload_zipkin(&c->shape, slot->spans, slot->n, &slot->body);
	else
		gen_payload_otlp(&c->shape, slot->spans, slot->n, &slot->body);
	slot->n_bytes = slot->body.n;
	slot->attempt = 0;
	due = pace(slot->g, slot->n);
	slot->due_ns = MAX(due, slot->pause_until_ns);
	return true;
}

void gen_slot_sent(struct gen_slot *slot)
{
	struct gen_stats *s = &slot->g->stats;

	if (slot->attempt++ == 0) {
		atomic_fetch_add(&s->requests, 1);
		atomic_fetch_add(&s->sent, slot->n);
		atomic_fetch_add(&s->bytes, slot->n_bytes);
	} else {
		atomic_fetch_add(&s->retries, 1);
	}
	slot->sent_ns = clock_mono_ns();
}

/* A line per span, in one write, so that a reader of the file sees whole lines only. */
static void write_ledger(struct gen_slot *slot)
{
	struct buf lines = BUF_INIT;
	struct gen *g = slot->g;
	char trace[33], span[17];
	size_t done = 0;

	for (size_t i = 0; i < slot->n; i++) {
		str_hex(slot->spans[i].trace_id, 16, trace);
		str_hex(slot->spans[i].span_id, 8, span);
		buf_printf(&lines, "%s %s\n", trace, span);
	}
	while (done < lines.n) {
		ssize_t n = write(g->ledger_fd, lines.p + done, lines.n - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			if (!atomic_exchange(&g->ledger_failed, true))
				fprintf(stderr, "spanmill gen: ledger %s: %s\n", g->c.ledger,
					strerror(errno));
			atomic_store(&g->stopping, true);
			break;
		}
		done += (size_t)n;
	}
	buf_fini(&lines);
}

static void count_acked(struct gen_slot *slot, const struct gen_verdict *v)
{
	struct gen *g = slot->g;
	uint64_t rejected = MIN(v->rejected, slot->n);

	gen_latency_add(&g->stats.latency, clock_mono_ns() - slot->sent_ns);
	atomic_fetch_add(&g->stats.acked, slot->n - rejected);
	atomic_fetch_add(&g->stats.rejected, rejected);
	atomic_store(&g->n_no_answer, 0);
	if (rejected > 0) {
		gen_stats_note_error(&g->stats, v->what); /* which ones is not known: no ledger */
		return;
	}
	gen_stats_note_id(&g->stats, slot->spans[0].trace_id);
	if (g->ledger_fd >= 0)
		write_ledger(slot);
}

static uint64_t backoff_ms(struct gen_slot *slot, const struct gen_verdict *v)
{
	uint64_t ms = BACKOFF_MIN_MS;

	for (unsigned i = 1; i < slot->attempt && ms < BACKOFF_MAX_MS; i++)
		ms += ms / 2;
	ms = MAX(MIN(ms, BACKOFF_MAX_MS), v->retry_after_ms);
	return ms * 4 / 5 + rng_below(&slot->rng, ms * 2 / 5 + 1);
}

static bool may_retry(const struct gen *g)
{
	uint64_t end = atomic_load(&g->give_up_ns);

	return g->c.retry && !atomic_load(&g->hurried) && (end == 0 || clock_mono_ns() < end);
}

/* Is nobody there at all? Then going on only makes figures. */
static void note_silence(struct gen *g)
{
	if (!g->c.retry && atomic_fetch_add(&g->n_no_answer, 1) + 1 >= HOPELESS &&
	    atomic_load(&g->stats.acked) == 0)
		atomic_store(&g->stopping, true);
}

int64_t gen_slot_settle(struct gen_slot *slot, const struct gen_verdict *v)
{
	struct gen *g = slot->g;

	if (v->outcome == GEN_ACKED) {
		count_acked(slot, v);
		return -1;
	}
	gen_stats_note_error(&g->stats, v->what);
	atomic_fetch_add(&g->stats.unanswered, v->no_answer);
	if (v->outcome == GEN_REFUSED && may_retry(g))
		return (int64_t)backoff_ms(slot, v);
	atomic_fetch_add(v->outcome == GEN_REFUSED ? &g->stats.refused : &g->stats.failed, slot->n);
	if (v->no_answer) {
		note_silence(g);
		slot->pause_until_ns = clock_mono_ns() + PAUSE_MS * NS_PER_MS;
	}
	return -1;
}

int gen_wait_ms(const struct gen *g, uint64_t until_ns)
{
	uint64_t now = clock_mono_ns();

	if (atomic_load(&g->hurried))
		return -1;
	if (now >= until_ns)
		return 0;
	return (int)MIN((until_ns - now) / NS_PER_MS + 1, WAIT_MS);
}

int gen_slot_wait_ms(const struct gen_slot *slot)
{
	static const uint8_t no_parent[8];
	int ms = gen_wait_ms(slot->g, slot->due_ns);

	/* At the end what begins a trace is not owed, and the rest of one that was begun goes out
	 * at once. */
	if (ms > 0 && atomic_load(&slot->g->stopping))
		return memcmp(slot->spans[0].parent_id, no_parent, 8) == 0 ? -1 : 0;
	return ms;
}

void gen_slot_done(struct gen *g)
{
	pthread_mutex_lock(&g->lock);
	atomic_fetch_sub(&g->n_running, 1);
	pthread_cond_signal(&g->changed);
	pthread_mutex_unlock(&g->lock);
}

static void read_partial_success(struct bytes m, struct gen_verdict *v)
{
	struct pb_field f = { .number = 0 };

	while (pb_next(&m, &f) > 0) {
		if (f.number == 1 && f.wire == PB_VARINT)
			v->rejected = f.value;
		else if (f.number == 2 && f.wire == PB_LEN)
			snprintf(v->what, sizeof(v->what), "%.*s",
				 (int)MIN(f.data.n, sizeof(v->what)), (const char *)f.data.p);
	}
}

void gen_read_response(struct bytes message, struct gen_verdict *v)
{
	struct pb_field f = { .number = 0 };

	while (pb_next(&message, &f) > 0)
		if (f.number == 1 && f.wire == PB_LEN)
			read_partial_success(f.data, v);
}

/* ---- the run ---- */

static volatile sig_atomic_t n_signals;

static void note_signal(int sig)
{
	(void)sig;
	n_signals++;
}

static void take_signals(void)
{
	struct sigaction sa = { .sa_handler = note_signal };

	sigemptyset(&sa.sa_mask);
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	signal(SIGPIPE, SIG_IGN);
}

struct progress {
	bool is_on, is_tty;
	uint64_t next_ns;
	struct gen_progress before;
};

/* One line that is written over on a terminal, a line now and then elsewhere. */
static void show_progress(const struct gen *g, struct progress *p, bool is_last)
{
	struct buf line = BUF_INIT, shown = BUF_INIT;
	uint64_t now = clock_mono_ns();

	if (!p->is_on || (now < p->next_ns && !(is_last && p->is_tty)))
		return;
	p->next_ns = now + (p->is_tty ? NS_PER_S / 2 : 5 * NS_PER_S);
	gen_stats_progress(&g->stats, &p->before, &line);
	if (p->is_tty) {
		terminal_add_text(&shown, buf_bytes(&line), terminal_width(STDERR_FILENO) - 1,
				  true);
		fprintf(stderr, "\r\033[K%s", is_last ? "" : buf_cstr(&shown));
	} else {
		fprintf(stderr, "%s\n", buf_cstr(&line));
	}
	fflush(stderr);
	buf_fini(&line);
	buf_fini(&shown);
}

/* Set the flags that time and signals ask for. */
static void look_at_clock(struct gen *g)
{
	uint64_t now = clock_mono_ns();

	if (g->c.duration_ns > 0 && now - g->stats.start_ns >= g->c.duration_ns)
		atomic_store(&g->stopping, true);
	if (n_signals > 0)
		atomic_store(&g->stopping, true);
	if (n_signals > 1)
		atomic_store(&g->hurried, true);
	if (atomic_load(&g->give_up_ns) == 0 &&
	    (atomic_load(&g->stopping) ||
	     (g->c.traces > 0 && atomic_load(&g->next_trace) >= g->c.traces)))
		atomic_store(&g->give_up_ns, now + GRACE_S * NS_PER_S);
}

static void wait_for_slots(struct gen *g, struct progress *p)
{
	struct timespec until;

	pthread_mutex_lock(&g->lock);
	while (atomic_load(&g->n_running) > 0) {
		pthread_mutex_unlock(&g->lock);
		look_at_clock(g);
		show_progress(g, p, false);
		pthread_mutex_lock(&g->lock);
		if (atomic_load(&g->n_running) == 0)
			break;
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += WAIT_MS * (long)NS_PER_MS;
		if (until.tv_nsec >= (long)NS_PER_S) {
			until.tv_sec++;
			until.tv_nsec -= (long)NS_PER_S;
		}
		pthread_cond_timedwait(&g->changed, &g->lock, &until);
	}
	pthread_mutex_unlock(&g->lock);
}

static int open_ledger(struct gen *g, struct err *err)
{
	g->ledger_fd = -1;
	if (g->c.ledger == NULL)
		return 0;
	g->ledger_fd = open(g->c.ledger, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644);
	return g->ledger_fd < 0 ? err_errno(err, "ledger %s", g->c.ledger) : 0;
}

static int run_slots(struct gen *g, struct progress *p, struct err *err)
{
	bool is_grpc = g->c.protocol == GEN_OTLP_GRPC;
	struct gen_senders *s;

	g->stats.start_ns = g->pace_ns = clock_mono_ns();
	p->before.ns = g->stats.start_ns;
	p->next_ns = g->stats.start_ns + (p->is_tty ? NS_PER_S / 2 : 5 * NS_PER_S);
	s = is_grpc ? gen_grpc_start(g, err) : gen_http_start(g, err);
	if (s == NULL)
		return -1;
	wait_for_slots(g, p);
	g->stats.end_ns = clock_mono_ns();
	show_progress(g, p, true);
	if (is_grpc)
		gen_grpc_join(s);
	else
		gen_http_join(s);
	return 0;
}

/* ---- the command ---- */

struct gen_output {
	bool quiet, json, print_id;
};

static int report(struct gen *g, const struct gen_output *o)
{
	struct buf out = BUF_INIT;
	bool all = atomic_load(&g->stats.acked) == atomic_load(&g->stats.sent) &&
		   !atomic_load(&g->ledger_failed);

	if (o->print_id) {
		if (g->stats.first_id[0] != '\0')
			printf("%s\n", g->stats.first_id);
		else
			fprintf(stderr, "spanmill gen: nothing was acknowledged: %s\n",
				g->stats.first_error);
	} else {
		if (o->json)
			gen_stats_report_json(&g->stats, &out);
		else
			gen_stats_report(&g->stats, &out);
		fputs(buf_cstr(&out), stdout);
	}
	buf_fini(&out);
	return fflush(stdout) == 0 && all ? EXIT_ACKED : EXIT_UNACKED;
}

static int run(const struct gen_config *c, const struct gen_output *o)
{
	struct progress p = { .is_on = !o->quiet && !o->print_id, .is_tty = isatty(STDERR_FILENO) };
	struct gen g = { .c = *c };
	struct err err = ERR_INIT;
	int status = EXIT_USAGE;

	gen_stats_init(&g.stats);
	pthread_mutex_init(&g.lock, NULL);
	pthread_cond_init(&g.changed, NULL);
	take_signals();
	if (open_ledger(&g, &err) < 0 || run_slots(&g, &p, &err) < 0)
		fprintf(stderr, "spanmill gen: %s\n", err.msg);
	else
		status = report(&g, o);
	if (g.ledger_fd >= 0)
		close(g.ledger_fd);
	pthread_cond_destroy(&g.changed);
	pthread_mutex_destroy(&g.lock);
	gen_stats_fini(&g.stats);
	return status;
}

static const char *const protocols[] = { "otlp-grpc", "otlp-http", "otlp-http-json", "zipkin",
					 NULL };
static const char *const endpoints[] = { "127.0.0.1:4317", "127.0.0.1:4318", "127.0.0.1:4318",
					 "127.0.0.1:9411" };

static const char about[] =
	"Sends made-up traces and says what became of every span. A span counts as acked when the\n"
	"answer that took it has come. Progress goes to stderr, the report to stdout; the "
	"report's\n"
	"last line has the id of a trace for `spanmill get`. Exit status 0 when everything that "
	"was\n"
	"sent was acked, 3 otherwise. Ctrl-C ends the run in good order, a second one without\n"
	"more retries.";

/* What the flags leave open. */
static void fill_in(struct gen_config *c, uint64_t duration, bool has_seed)
{
	const uint64_t whole_s = 10;

	if (c->endpoint == NULL)
		c->endpoint = endpoints[c->protocol];
	c->duration_ns = duration;
	if (duration == 0 && c->traces == 0)
		c->duration_ns = whole_s * NS_PER_S;
	/* At a low rate requests of 100 spans would come seldom: some five a second then. */
	if (c->batch == 0)
		c->batch = c->rate > 0 ? MIN(100, MAX(c->rate / 5, 1)) : 100;
	if (!has_seed)
		rng_kernel(&c->shape.seed, sizeof(c->shape.seed));
}

int cmd_gen(int argc, char **argv)
{
	uint64_t spans = 10, services = 3, attributes = 10, bytes = 450, duration = 0;
	uint64_t seed = UINT64_MAX;
	struct gen_output o = { false, false, false };
	struct gen_config c = { .concurrency = 4, .connections = 1, .deadline_ns = 5 * NS_PER_S };
	const struct flag flags[] = {
		FLAG_STR("--endpoint", &c.endpoint, "HOST:PORT",
			 "or a URL (127.0.0.1: and 4317, 4318 or 9411 by protocol)"),
		FLAG_CHOICE("--protocol", &c.protocol, protocols, "NAME",
			    "otlp-grpc, otlp-http, otlp-http-json or zipkin (otlp-grpc)"),
		FLAG_UINT("--rate", &c.rate, 0, 1000000000,
			  "spans a second; 0 is as fast as answers come (0)"),
		FLAG_TIME("--duration", &duration,
			  "how long (10s; without an end when --traces is set)"),
		FLAG_UINT("--traces", &c.traces, 0, UINT64_MAX / 2, "stop after so many traces"),
		FLAG_UINT("--spans-per-trace", &spans, 1, 1000000, "(10)"),
		FLAG_UINT("--batch", &c.batch, 1, 1000000,
			  "spans in a request (100; fewer at a low rate)"),
		FLAG_UINT("--concurrency", &c.concurrency, 1, 10000,
			  "requests under way at a time (4)"),
		FLAG_UINT("--connections", &c.connections, 1, 256,
			  "otlp-grpc: connections they are spread over (1); HTTP has one each"),
		FLAG_UINT("--services", &services, 1, GEN_SERVICES_MAX,
			  "services in the traces (3)"),
		FLAG_UINT("--attributes", &attributes, 0, GEN_ATTRIBUTES_MAX,
			  "attributes of a span (10)"),
		FLAG_UINT("--span-bytes", &bytes, 0, GEN_SPAN_BYTES_MAX,
			  "size of a span, about; the last attribute fills it up (450)"),
		FLAG_BOOL("--gzip", &c.gzip, "compress requests"),
		FLAG_STR("--tenant", &c.tenant, "NAME", "sent as X-Scope-OrgID"),
		FLAG_TIME("--deadline", &c.deadline_ns, "of a request (5s)"),
		FLAG_BOOL("--retry", &c.retry,
			  "send what was refused again, with back-off, up to 30 s past the end"),
		FLAG_STR("--ledger", &c.ledger, "FILE",
			 "a line per acked span, after its answer: trace id, span id"),
		FLAG_UINT("--seed", &seed, 0, UINT64_MAX - 1,
			  "equal seeds give equal ids (random)"),
		FLAG_BOOL("--quiet", &o.quiet, "no progress"),
		FLAG_BOOL("--json", &o.json, "the report as one JSON object"),
		FLAG_BOOL("--print-id", &o.print_id, "print a trace id and nothing else"),
	};
	const struct flag_command command = { "gen", "[FLAGS]", about, flags, COUNT_OF(flags) };
	size_t n_words = 0;
	char *text = NULL;
	int status = EXIT_USAGE;

	switch (flags_parse(&command, argc, argv, NULL, 0, &n_words)) {
	case FLAG_HELP:
		return 0;
	case FLAG_BAD:
		return EXIT_USAGE;
	case FLAG_RUN:
	default:
		break;
	}
	c.shape = (struct gen_shape){ (uint32_t)spans,
				      (uint32_t)services,
				      (uint32_t)attributes,
				      (uint32_t)bytes,
				      seed,
				      NULL };
	fill_in(&c, duration, seed != UINT64_MAX);
	text = gen_payload_text(c.shape.seed);
	c.shape.text = text;
	status = run(&c, &o);
	free(text);
	return status;
}
