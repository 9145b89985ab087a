/* SPDX-License-Identifier: Apache-2.0
 *
 * gen_grpc.c - `spanmill gen` over gRPC: a loop and a connection per `connections`, slots as state
 * machines on them. See gen.h.
 *
 *   next -> (timer until due) -> send -> answered -> settle -> next
 *                                 ^--- timer: back-off --'
 *
 * THREADS: everything of a lane runs on its loop.
 * SPEC: OTLP/gRPC.
 */
#include "cmd/gen.h"

#include "base/clock.h"
#include "base/mem.h"
#include "net/grpc_client.h"

#include <stdio.h>

#define EXPORT "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

struct lane {
	struct gen *g;
	struct loop *loop;
	struct grpc_client *client;
	struct tls *tls;
	struct grpc_slot *slots;
	size_t n_slots;
	struct err err;
};

struct grpc_slot {
	struct gen_slot slot;
	struct lane *lane;
	struct loop_timer timer;
	struct bytes body; /* borrowed by the call until it is answered */
	uint64_t again_ns; /* a retry is due then; 0: the first attempt */
};

struct gen_senders {
	struct gen *g;
	struct lane *lanes;
	size_t n_lanes;
};

static void send_or_wait(void *arg);

static void next(struct grpc_slot *s)
{
	struct gen *g = s->slot.g;

	if (!gen_slot_fill(&s->slot)) {
		gen_slot_done(g);
		return;
	}
	s->again_ns = 0;
	s->body = buf_bytes(&s->slot.body);
	send_or_wait(s);
}

static void answered(const struct grpc_answer *a, void *arg)
{
	struct gen_verdict v = { .outcome = GEN_FAILED };
	struct grpc_slot *s = arg;
	int64_t again;

	if (a->status == GRPC_OK) {
		v.outcome = GEN_ACKED;
		gen_read_response(a->response, &v);
	} else {
		v.outcome = a->retryable ? GEN_REFUSED : GEN_FAILED;
		v.retry_after_ms = a->retry_after_ms;
		v.no_answer = !a->has_retry_info && (a->status == GRPC_UNAVAILABLE ||
						     a->status == GRPC_DEADLINE_EXCEEDED);
		snprintf(v.what, sizeof(v.what), "%s: %s", grpc_status_name(a->status), a->message);
	}
	again = gen_slot_settle(&s->slot, &v);
	if (again < 0) {
		next(s);
		return;
	}
	s->again_ns = clock_mono_ns() + (uint64_t)again * NS_PER_MS;
	send_or_wait(s);
}

static void send_now(struct grpc_slot *s)
{
	const struct gen_config *c = &s->slot.g->c;
	const struct grpc_header tenant = { "x-scope-orgid", bytes_str(c->tenant) };
	struct grpc_request r = {
		.path = EXPORT,
		.headers = &tenant,
		.n_headers = c->tenant != NULL,
		.pieces = &s->body,
		.n_pieces = 1,
		.coding = c->gzip ? CONTENT_GZIP : CONTENT_IDENTITY,
	};

	gen_slot_sent(&s->slot);
	r.deadline_ns = clock_mono_ns() + c->deadline_ns;
	grpc_client_start(s->lane->client, &r, answered, s);
}

/* A refused request that is given up while it waits counts as refused. */
static void give_up(struct grpc_slot *s)
{
	const struct gen_verdict v = { .outcome = GEN_REFUSED };

	if (s->again_ns != 0)
		gen_slot_settle(&s->slot, &v);
	gen_slot_done(s->slot.g);
}

static void send_or_wait(void *arg)
{
	struct grpc_slot *s = arg;
	int ms =
		s->again_ns != 0 ? gen_wait_ms(s->slot.g, s->again_ns) : gen_slot_wait_ms(&s->slot);

	if (ms < 0)
		give_up(s);
	else if (ms == 0)
		send_now(s);
	else
		loop_timer_start(s->lane->loop, &s->timer, (uint64_t)ms);
}

/* ---- lanes ---- */

static struct tls *tls_of(const char *endpoint, struct err *err)
{
	const struct tls_settings c = { .alpn = "h2" };

	return strncmp(endpoint, "https://", 8) == 0 ? tls_new_client(&c, err) : NULL;
}

static void open_client(void *arg)
{
	struct lane *l = arg;
	const struct gen_config *c = &l->g->c;
	struct grpc_client_settings settings = {
		.endpoint = c->endpoint,
		.tls = l->tls,
		.user_agent = "spanmill-gen/" SPANMILL_VERSION,
		.backoff_min_ms = 100,
		.backoff_max_ms = 1000,
	};

	l->client = grpc_client_new(l->loop, &settings, &l->err);
	if (l->client == NULL)
		return;
	for (size_t i = 0; i < l->n_slots; i++) {
		struct grpc_slot *s = &l->slots[i];

		gen_slot_init(&s->slot, l->g);
		s->lane = l;
		s->timer = (struct loop_timer){ .fn = send_or_wait, .arg = s };
	}
	atomic_fetch_add(&l->g->n_running, (unsigned)l->n_slots);
	for (size_t i = 0; i < l->n_slots; i++)
		next(&l->slots[i]);
}

static void close_client(void *arg)
{
	struct lane *l = arg;

	for (size_t i = 0; i < l->n_slots; i++)
		loop_timer_stop(l->loop, &l->slots[i].timer);
	grpc_client_free(l->client);
	l->client = NULL;
}

static int start_lane(struct lane *l, unsigned number, size_t n_slots, struct err *err)
{
	l->slots = xcalloc(n_slots, sizeof(*l->slots));
	l->n_slots = n_slots;
	l->tls = tls_of(l->g->c.endpoint, err);
	if (l->tls == NULL && err->kind != ERR_NONE)
		return -1;
	l->loop = loop_new(number, err);
	if (l->loop == NULL || loop_start(l->loop, err) < 0)
		return -1;
	loop_call(l->loop, open_client, l);
	if (l->client == NULL) {
		*err = l->err;
		return -1;
	}
	return 0;
}

struct gen_senders *gen_grpc_start(struct gen *g, struct err *err)
{
	struct gen_senders *s = xcalloc(1, sizeof(*s));
	size_t n = (size_t)g->c.concurrency;

	s->g = g;
	s->n_lanes = (size_t)MIN(g->c.connections, g->c.concurrency);
	s->lanes = xcalloc(s->n_lanes, sizeof(*s->lanes));
	for (size_t i = 0; i < s->n_lanes; i++) {
		s->lanes[i].g = g;
		if (start_lane(&s->lanes[i], (unsigned)i, n / s->n_lanes + (i < n % s->n_lanes),
			       err) < 0) {
			atomic_store(&g->stopping, true);
			atomic_store(&g->hurried, true); /* what is cancelled is not sent again */
			gen_grpc_join(s);
			return NULL;
		}
	}
	return s;
}

void gen_grpc_join(struct gen_senders *s)
{
	for (size_t i = 0; i < s->n_lanes; i++) {
		struct lane *l = &s->lanes[i];

		if (l->client != NULL)
			loop_call(l->loop, close_client, l);
		if (l->loop != NULL)
			loop_stop(l->loop);
		loop_free(l->loop);
		tls_free(l->tls);
		for (size_t k = 0; k < l->n_slots; k++)
			gen_slot_fini(&l->slots[k].slot);
		free(l->slots);
	}
	free(s->lanes);
	free(s);
}
