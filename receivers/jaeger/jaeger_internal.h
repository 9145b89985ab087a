/* SPDX-License-Identifier: Apache-2.0
 *
 * jaeger_internal.h - what the files of the jaeger receiver share.
 */
#ifndef RECEIVERS_JAEGER_INTERNAL_H
#define RECEIVERS_JAEGER_INTERNAL_H

#include "net/udp_server.h"
#include "pipeline/listen/grpc.h"
#include "pipeline/listen/http.h"
#include "pipeline/ingest/ingest.h"
#include "wire/jaeger_span.h"

/* The ways in. */
enum jaeger_way {
	JAEGER_WAY_GRPC,
	JAEGER_WAY_HTTP,
	JAEGER_WAY_COMPACT, /* UDP */
	JAEGER_WAY_BINARY,
	JAEGER_WAYS
};

struct jaeger_udp_config {
	const char *endpoint;
	uint64_t queue_size, max_packet_size, socket_buffer_size;
};

struct jaeger_config {
	bool grpc_on, http_on, compact_on, binary_on;
	struct grpc_server_options grpc;
	struct http_server_options http;
	struct jaeger_udp_config compact, binary;
};

/* Why a datagram gave no spans. */
enum jaeger_lost {
	JAEGER_LOST_DAMAGED,
	JAEGER_LOST_CUT,      /* longer than max_packet_size */
	JAEGER_LOST_METHOD,   /* not of the agent */
	JAEGER_LOST_MEMORY,   /* the budget is spent */
	JAEGER_LOST_UNUSABLE, /* no span of it could be used */
	JAEGER_LOST_MAX
};

struct jaeger_udp;

/* Of one UDP port. */
struct jaeger_udp_counts {
	struct udp_counts socket;
	_Atomic uint64_t lost[JAEGER_LOST_MAX];
};

struct jaeger_state {
	struct grpc_listener *grpc; /* NULL: off, or stopped */
	struct http_listener *http;
	struct jaeger_udp *compact, *binary;
	struct transport_counters *count[JAEGER_WAYS];
	struct jaeger_udp_counts compact_counts, binary_counts;
	_Atomic uint64_t bad[JAEGER_BAD_MAX], bad_refs;
};

/* Read a request's body (takes it) or a datagram as a batch of the tenant. Spans that cannot be
 * used are counted, logged and left in *rejects. NULL with *err: ERR_INVALID also when no span
 * could be used; ERR_UNIMPLEMENTED for a method that is not the agent's. Any thread. */
struct batch *jaeger_read_body(struct component *c, enum jaeger_way way, struct rcbuf *body,
			       const char *tenant, struct otlp_rejects *rejects, struct err *err);
struct batch *jaeger_read_datagram(struct component *c, enum jaeger_way way, struct bytes data,
				   struct otlp_rejects *rejects, struct err *err);

/* The servers. As the component's callbacks (component.h); NULL is an idle one. */
struct grpc_listener *jaeger_grpc_start(struct component *c, struct err *err);
struct http_listener *jaeger_http_start(struct component *c, struct err *err);
/* way: JAEGER_WAY_COMPACT or JAEGER_WAY_BINARY; conf and counts are the component's own. */
struct jaeger_udp *jaeger_udp_start(struct component *c, enum jaeger_way way,
				    const struct jaeger_udp_config *conf,
				    struct jaeger_udp_counts *counts, struct err *err);
void jaeger_udp_drain(struct jaeger_udp *u);
bool jaeger_udp_is_drained(const struct jaeger_udp *u);
void jaeger_udp_free(struct jaeger_udp *u);

/* "damaged", ...: for metrics' labels and logs. */
const char *jaeger_lost_name(enum jaeger_lost reason);

#endif
