/* SPDX-License-Identifier: Apache-2.0
 *
 * jaeger.c - receiver of Jaeger spans: options, life, metrics.
 *
 *	jaeger_grpc.c  CollectorService/PostSpans --\
 *	jaeger_http.c  POST /api/traces -------------+--> read.c -> ingest_submit -> answer
 *	jaeger_udp.c   emitBatch, two ports --------/
 *
 * OWNERSHIP, THREADS: a server per loop for gRPC and HTTP, one loop for each UDP port; a request
 * belongs to its loop.
 * LIMITS: the server blocks' sizes and times, queue_size; memory by the budget.
 * SPEC: the Collector's keys; docs/formats/jaeger.md; INTERFACE "Receivers' answers".
 */
#include "receivers/jaeger/jaeger_internal.h"

#include "pipeline/conf/error.h"
#include "pipeline/listen/listener.h"

#define C struct jaeger_udp_config
static const struct option udp_options[] = {
	OPT_STR(C, "endpoint", endpoint, "localhost:6831", "Address, host:port."),
	OPT_UINT(C, "queue_size", queue_size, "1000", 1, 1000000,
		 "Datagrams under way in the pipeline; more wait in the socket's buffer."),
	OPT_UINT(C, "max_packet_size", max_packet_size, "65000", 64, UDP_MAX_PACKET,
		 "Longest datagram in bytes; longer ones are dropped and counted."),
	OPT_UINT(C, "socket_buffer_size", socket_buffer_size, "0", 0, INT32_MAX,
		 "Bytes that the kernel holds for us, net.core.rmem_max at most; 0: the system's "
		 "default."),
	OPT_IGNORED("workers", "datagrams are decoded on the loop that reads them"),
	OPT_END
};
#undef C

#define C struct jaeger_config
static const struct option jaeger_options[] = {
	OPT_SECTION(C, "protocols.grpc", grpc_on, grpc, struct grpc_server_options,
		    grpc_server_option_table, "off",
		    "PostSpans over gRPC; on when the key is there."),
	OPT_DEFAULT("protocols.grpc.endpoint", "localhost:14250"),
	OPT_SECTION(C, "protocols.thrift_http", http_on, http, struct http_server_options,
		    http_server_option_table, "off",
		    "Thrift over HTTP, POST /api/traces; on when the key is there."),
	OPT_DEFAULT("protocols.thrift_http.endpoint", "localhost:14268"),
	OPT_SECTION(C, "protocols.thrift_compact", compact_on, compact, struct jaeger_udp_config,
		    udp_options, "off",
		    "Thrift's compact protocol over UDP, what most clients send; on when the key "
		    "is there."),
	OPT_SECTION(C, "protocols.thrift_binary", binary_on, binary, struct jaeger_udp_config,
		    udp_options, "off",
		    "Thrift's binary protocol over UDP (Node.js); on when the key is there."),
	OPT_DEFAULT("protocols.thrift_binary.endpoint", "localhost:6832"),
	OPT_UNSUPPORTED("remote_sampling",
			"remove it: set the sampler in the clients (JAEGER_SAMPLER_TYPE, "
			"JAEGER_SAMPLER_PARAM), or sample here with probabilistic_sampler"),
	OPT_END
};
#undef C

static void jaeger_validate(void *config, const struct conf_node *node, struct conf_errors *errs,
			    const char *path)
{
	const struct jaeger_config *conf = config;

	if (!conf->grpc_on && !conf->http_on && !conf->compact_on && !conf->binary_on)
		conf_error_at(errs, node, path, "protocols",
			      "for example protocols: {grpc: , thrift_compact: }",
			      "must specify at least one protocol when using the Jaeger receiver");
	if (conf->grpc_on)
		grpc_listener_check(&conf->grpc, node, "protocols.grpc.", errs, path);
	if (conf->http_on)
		http_listener_check(&conf->http, node, "protocols.thrift_http.", errs, path);
	if (conf->compact_on)
		listener_check(conf->compact.endpoint, NET_TRANSPORT_TCP, node,
			       "protocols.thrift_compact.endpoint", errs, path);
	if (conf->binary_on)
		listener_check(conf->binary.endpoint, NET_TRANSPORT_TCP, node,
			       "protocols.thrift_binary.endpoint", errs, path);
}

/* ---- life ---- */

/* The Collector's labels. */
static const char *const transports[JAEGER_WAYS] = {
	[JAEGER_WAY_GRPC] = "grpc",
	[JAEGER_WAY_HTTP] = "collector_http",
	[JAEGER_WAY_COMPACT] = "udp_thrift_compact",
	[JAEGER_WAY_BINARY] = "udp_thrift_binary",
};

static int start_udp(struct component *c, struct err *err)
{
	const struct jaeger_config *conf = COMPONENT_CONFIG(c, struct jaeger_config);
	struct jaeger_state *st = COMPONENT_STATE(c, struct jaeger_state);

	if (conf->compact_on) {
		st->compact = jaeger_udp_start(c, JAEGER_WAY_COMPACT, &conf->compact,
					       &st->compact_counts, err);
		if (st->compact == NULL)
			return -1;
	}
	if (conf->binary_on) {
		st->binary = jaeger_udp_start(c, JAEGER_WAY_BINARY, &conf->binary,
					      &st->binary_counts, err);
		if (st->binary == NULL)
			return -1;
	}
	return 0;
}

static int jaeger_start(struct component *c, struct err *err)
{
	const struct jaeger_config *conf = COMPONENT_CONFIG(c, struct jaeger_config);
	struct jaeger_state *st = COMPONENT_STATE(c, struct jaeger_state);
	const bool on[JAEGER_WAYS] = { conf->grpc_on, conf->http_on, conf->compact_on,
				       conf->binary_on };

	for (int i = 0; i < JAEGER_WAYS; i++)
		if (on[i])
			st->count[i] = telemetry_transport(c, transports[i]);
	if (conf->grpc_on) {
		st->grpc = jaeger_grpc_start(c, err);
		if (st->grpc == NULL)
			return -1;
	}
	if (conf->http_on) {
		st->http = jaeger_http_start(c, err);
		if (st->http == NULL)
			return -1;
	}
	return start_udp(c, err);
}

static void jaeger_drain(struct component *c)
{
	struct jaeger_state *st = COMPONENT_STATE(c, struct jaeger_state);

	grpc_listener_drain(st->grpc);
	http_listener_drain(st->http);
	jaeger_udp_drain(st->compact);
	jaeger_udp_drain(st->binary);
}

static int jaeger_is_drained(struct component *c)
{
	struct jaeger_state *st = COMPONENT_STATE(c, struct jaeger_state);

	return grpc_listener_is_drained(st->grpc) && http_listener_is_drained(st->http) &&
	       jaeger_udp_is_drained(st->compact) && jaeger_udp_is_drained(st->binary);
}

static void jaeger_shutdown(struct component *c)
{
	struct jaeger_state *st = COMPONENT_STATE(c, struct jaeger_state);

	grpc_listener_free(st->grpc);
	http_listener_free(st->http);
	jaeger_udp_free(st->compact);
	jaeger_udp_free(st->binary);
	st->grpc = NULL;
	st->http = NULL;
	st->compact = NULL;
	st->binary = NULL;
}

/* ---- metrics ---- */

static void put_packets(struct component *c, enum jaeger_way way,
			const struct jaeger_udp_counts *counts, struct buf *out)
{
	static const char name[] = "spanmill_jaeger_udp_packets";

	telemetry_sample(out, name, (double)atomic_load(&counts->socket.packets), "receiver", c->id,
			 "transport", transports[way], NULL);
}

static void put_lost(struct component *c, enum jaeger_way way,
		     const struct jaeger_udp_counts *counts, struct buf *out)
{
	static const char name[] = "spanmill_jaeger_udp_lost_packets";

	telemetry_sample(out, name, (double)atomic_load(&counts->socket.kernel_drops), "receiver",
			 c->id, "transport", transports[way], "reason", "kernel", NULL);
	for (int i = 0; i < JAEGER_LOST_MAX; i++)
		telemetry_sample(out, name, (double)atomic_load(&counts->lost[i]), "receiver",
				 c->id, "transport", transports[way], "reason",
				 jaeger_lost_name((enum jaeger_lost)i), NULL);
}

/* Both ports, in one family. */
static void put_both(struct component *c, struct buf *out,
		     void (*put)(struct component *, enum jaeger_way,
				 const struct jaeger_udp_counts *, struct buf *))
{
	const struct jaeger_config *conf = COMPONENT_CONFIG(c, struct jaeger_config);
	const struct jaeger_state *st = COMPONENT_STATE(c, struct jaeger_state);

	if (conf->compact_on)
		put(c, JAEGER_WAY_COMPACT, &st->compact_counts, out);
	if (conf->binary_on)
		put(c, JAEGER_WAY_BINARY, &st->binary_counts, out);
}

static void jaeger_metrics(struct component *c, struct buf *out)
{
	static const char bad[] = "spanmill_jaeger_bad_spans", refs[] = "spanmill_jaeger_bad_refs";
	struct jaeger_state *st = COMPONENT_STATE(c, struct jaeger_state);

	telemetry_head(out, bad, "counter", "Spans that could not be read, by reason.");
	for (int i = 0; i < JAEGER_BAD_MAX; i++)
		telemetry_sample(out, bad, (double)atomic_load(&st->bad[i]), "receiver", c->id,
				 "reason", jaeger_reason_name((enum jaeger_reason)i), NULL);
	telemetry_head(out, refs, "counter",
		       "References left out: to an id of zeros or of a wrong length.");
	telemetry_sample(out, refs, (double)atomic_load(&st->bad_refs), "receiver", c->id, NULL);
	telemetry_head(out, "spanmill_jaeger_udp_packets", "counter",
		       "Datagrams read from the socket.");
	put_both(c, out, put_packets);
	telemetry_head(out, "spanmill_jaeger_udp_lost_packets", "counter",
		       "Datagrams that gave no spans, by reason; kernel: dropped before they were "
		       "read.");
	put_both(c, out, put_lost);
}

const struct component_type receiver_jaeger = {
	.name = "jaeger",
	.kind = KIND_RECEIVER,
	.summary = "Takes Jaeger spans over gRPC, Thrift over HTTP, and Thrift over UDP as the "
		   "agent did.",
	.stability = STABILITY_ALPHA,
	.signals = SIGNAL_TRACES,
	.config_size = sizeof(struct jaeger_config),
	.state_size = sizeof(struct jaeger_state),
	.options = jaeger_options,
	.validate = jaeger_validate,
	.may_overlap = component_overlaps,
	.start = jaeger_start,
	.drain = jaeger_drain,
	.is_drained = jaeger_is_drained,
	.shutdown = jaeger_shutdown,
	.metrics = jaeger_metrics,
};
