/* SPDX-License-Identifier: Apache-2.0
 *
 * jaeger_udp.c - the agent's ports: one datagram, one call of emitBatch, never an answer.
 *
 *	socket buffer -> recvmmsg -> decoded at once -> pipeline     at most queue_size of them
 *	  full: the kernel                                           under way; else they wait in
 *	  drops and counts                                           the socket buffer
 *
 * DESIGN: datagrams are decoded on the loop that reads them; what waits is the kernel's, which
 * costs no memory of ours and is counted when it overflows. Nobody sends a datagram again, so its
 * spans count as accepted when it is decoded (as with ack: early), and what the pipeline cannot
 * deliver is dropped and counted by reason.
 * OWNERSHIP: a port is referenced by the component and by each datagram under way, all on its loop.
 * SPEC: jaeger-idl agent.thrift; docs/formats/jaeger.md ("UDP").
 */
#include "receivers/jaeger/jaeger_internal.h"

#include "base/mem.h"
#include "pipeline/listen/listener.h"

struct jaeger_udp {
	struct component *component; /* until it is closed */
	struct loop *loop;
	struct udp_server *server; /* NULL: closed */
	struct transport_counters *count;
	struct jaeger_udp_counts *counts;
	enum jaeger_way way;
	uint64_t queue_size;
	_Atomic uint64_t in_flight;
	unsigned refs;
	struct udp_settings settings;
	struct listener socket;
	int fd;
	struct err err;
};

struct request {
	struct ingest in;
	struct jaeger_udp *port;
};

const char *jaeger_lost_name(enum jaeger_lost reason)
{
	static const char *const names[JAEGER_LOST_MAX] = {
		[JAEGER_LOST_DAMAGED] = "damaged",         [JAEGER_LOST_CUT] = "too_large",
		[JAEGER_LOST_METHOD] = "unknown_method",   [JAEGER_LOST_MEMORY] = "memory",
		[JAEGER_LOST_UNUSABLE] = "no_usable_span",
	};

	return names[reason];
}

static void unref(struct jaeger_udp *u)
{
	if (--u->refs == 0)
		free(u);
}

/* ---- a datagram's way ---- */

/* Nobody is there to hear it. */
static void answer(struct ingest *in, const struct ingest_answer *a)
{
	(void)in;
	(void)a;
}

static void released(struct ingest *in)
{
	struct request *r = CONTAINER_OF(in, struct request, in);
	struct jaeger_udp *u = r->port;

	free(r);
	atomic_fetch_sub(&u->in_flight, 1);
	if (u->server != NULL)
		udp_server_resume(u->server);
	unref(u);
}

static void submit(struct jaeger_udp *u, struct batch *b, const struct otlp_rejects *rejects)
{
	struct request *r = xcalloc(1, sizeof(*r));

	r->in.loop = u->loop;
	r->in.count = u->count;
	r->in.answer = answer;
	r->in.released = released;
	r->in.is_one_way = true;
	r->port = u;
	u->refs++;
	if (atomic_fetch_add(&u->in_flight, 1) + 1 >= u->queue_size)
		udp_server_pause(u->server);
	/* Last: r may be gone when this returns. */
	ingest_submit(&r->in, u->component, b, rejects, 0);
}

static enum jaeger_lost why_lost(const struct err *err, const struct otlp_rejects *rejects)
{
	if (rejects->n > 0)
		return JAEGER_LOST_UNUSABLE;
	switch (err->kind) {
	case ERR_UNIMPLEMENTED:
		return JAEGER_LOST_METHOD;
	case ERR_EXHAUSTED:
	case ERR_TOO_LARGE:
		return JAEGER_LOST_MEMORY;
	default:
		return JAEGER_LOST_DAMAGED;
	}
}

static void lose(struct jaeger_udp *u, enum jaeger_lost reason, const char *error)
{
	atomic_fetch_add_explicit(&u->counts->lost[reason], 1, memory_order_relaxed);
	log_warn("datagram lost", "component", u->component->id, "transport", u->count->transport,
		 "reason", jaeger_lost_name(reason), "error", error);
}

static void take(struct bytes data, bool is_cut, void *arg)
{
	struct jaeger_udp *u = arg;
	struct otlp_rejects rejects = { 0 };
	struct err err = ERR_INIT;
	struct batch *b;

	if (is_cut) {
		lose(u, JAEGER_LOST_CUT,
		     "longer than max_packet_size: raise it, or lower the "
		     "client's limit");
		return;
	}
	b = jaeger_read_datagram(u->component, u->way, data, &rejects, &err);
	if (b != NULL)
		submit(u, b, &rejects);
	else
		lose(u, why_lost(&err, &rejects), err.msg);
}

static void dropped(uint64_t n, void *arg)
{
	struct jaeger_udp *u = arg;

	log_warn("the kernel dropped datagrams, the socket's buffer was full: raise "
		 "socket_buffer_size",
		 "component", u->component->id, "transport", u->count->transport, "datagrams",
		 LOG_NUM(n));
}

/* ---- life ---- */

static void start_on_loop(void *arg)
{
	struct jaeger_udp *u = arg;

	u->server = udp_server_new(u->loop, u->fd, &u->settings, &u->counts->socket, &u->err);
}

struct jaeger_udp *jaeger_udp_start(struct component *c, enum jaeger_way way,
				    const struct jaeger_udp_config *conf,
				    struct jaeger_udp_counts *counts, struct err *err)
{
	struct jaeger_udp *u = xcalloc(1, sizeof(*u));

	if (listener_open_udp(&u->socket, c, conf->endpoint, conf->socket_buffer_size,
			      "Starting UDP server", err) < 0) {
		free(u);
		return NULL;
	}
	u->component = c;
	/* The two ports on two loops, where there are as many. */
	u->loop = component_loop(c, way == JAEGER_WAY_BINARY ? component_n_loops(c) - 1 : 0);
	u->count = COMPONENT_STATE(c, struct jaeger_state)->count[way];
	u->counts = counts;
	u->way = way;
	u->queue_size = conf->queue_size;
	u->refs = 1;
	u->fd = listener_take(&u->socket, 0);
	u->settings = (struct udp_settings){ conf->max_packet_size, take, dropped, u };
	loop_call(u->loop, start_on_loop, u);
	if (u->server != NULL)
		return u;
	if (err != NULL)
		*err = u->err;
	listener_close(&u->socket);
	free(u);
	return NULL;
}

static void drain_on_loop(void *arg)
{
	struct jaeger_udp *u = arg;

	udp_server_drain(u->server);
	udp_server_free(u->server);
	u->server = NULL;
}

void jaeger_udp_drain(struct jaeger_udp *u)
{
	if (u == NULL)
		return;
	loop_call(u->loop, drain_on_loop, u);
	listener_close(&u->socket);
}

bool jaeger_udp_is_drained(const struct jaeger_udp *u)
{
	return u == NULL || atomic_load(&u->in_flight) == 0;
}

static void free_on_loop(void *arg)
{
	struct jaeger_udp *u = arg;

	udp_server_free(u->server);
	u->server = NULL;
	unref(u);
}

void jaeger_udp_free(struct jaeger_udp *u)
{
	if (u == NULL)
		return;
	listener_close(&u->socket);
	loop_call(u->loop, free_on_loop, u);
}
