/* SPDX-License-Identifier: Apache-2.0
 *
 * blocks.c - the tables of the shared option blocks. Contract and structs in
 * blocks.h.
 */
#include "pipeline/option/blocks.h"

#include "base/str.h"
#include "net/tls.h"

#include <stdio.h>

#define NO_MIDDLEWARE "remove it; memory_limiter works before a body is read anyway"

static const struct option_choice acks[] = {
	{ "durable", RECEIVER_ACK_DURABLE },
	{ "early", RECEIVER_ACK_EARLY },
	{ NULL, 0 },
};

#define C struct receiver_options
const struct option receiver_option_table[] = {
	OPT_STR(C, "tenant", tenant, "single-tenant", "Tenant of spans that name none."),
	OPT_ENUM(C, "ack", ack, acks, "durable",
		 "When success is answered: once every exporter has the spans, or early, which "
		 "loses them in a crash."),
	OPT_DURATION(C, "ack_timeout", ack_timeout_ns, "5s",
		     "Longest wait for that; then the client is told to retry."),
	OPT_END
};
#undef C

#define C struct exporter_options
const struct option exporter_option_table[] = {
	OPT_BOOL(C, "best_effort", best_effort, "false",
		 "Holds no acknowledgement: for looking only."),
	OPT_END
};
#undef C

static const struct option_choice tls_versions[] = {
	{ "", TLS_VERSION_DEFAULT }, { "1.0", TLS_VERSION_1_0 }, { "1.1", TLS_VERSION_1_1 },
	{ "1.2", TLS_VERSION_1_2 },  { "1.3", TLS_VERSION_1_3 }, { NULL, 0 },
};

#define C struct tls_common_options
static const struct option tls_common_table[] = {
	OPT_STR(C, "cert_file", cert_file, NULL, "Certificate (PEM) to show to the other side."),
	OPT_STR(C, "key_file", key_file, NULL, "Private key (PEM) of the certificate."),
	OPT_STR(C, "ca_file", ca_file, NULL,
		"Authorities (PEM) the other side is verified against."),
	OPT_STR(C, "cert_pem", cert_pem, NULL, "The certificate itself instead of cert_file."),
	OPT_OPAQUE_STR(C, "key_pem", key_pem, NULL, "The key itself instead of key_file."),
	OPT_STR(C, "ca_pem", ca_pem, NULL, "The authorities themselves instead of ca_file."),
	OPT_BOOL(C, "include_system_ca_certs_pool", include_system_ca_certs_pool, "false",
		 "Trust the system's authorities beside ca_file."),
	OPT_ENUM(C, "min_version", min_version, tls_versions, "1.2", "Lowest TLS version."),
	OPT_ENUM(C, "max_version", max_version, tls_versions, "",
		 "Highest TLS version; empty: the library's."),
	OPT_STRLIST(C, "cipher_suites", cipher_suites, "[]",
		    "Cipher suites by name; empty: the library's."),
	OPT_STRLIST(C, "curve_preferences", curve_preferences, "[]",
		    "X25519, P256, P384, P521; empty: the library's."),
	OPT_DURATION(C, "reload_interval", reload_interval_ns, "0s",
		     "Read the files again this often; 0: never."),
	OPT_UNSUPPORTED("include_insecure_cipher_suites",
			"remove it: name the suites in cipher_suites"),
	OPT_UNSUPPORTED("tpm", "keep the key in a file"),
	OPT_END
};
#undef C

#define C struct tls_server_options
const struct option tls_server_option_table[] = {
	OPT_INCLUDE(C, common, struct tls_common_options, tls_common_table),
	OPT_STR(C, "client_ca_file", client_ca_file, NULL,
		"Authorities (PEM) of client certificates, which are then required."),
	OPT_BOOL(C, "client_ca_file_reload", client_ca_file_reload, "false",
		 "Read client_ca_file again when it changes."),
	OPT_END
};
#undef C

#define C struct tls_client_options
const struct option tls_client_option_table[] = {
	OPT_BOOL(C, "insecure", insecure, "false", "Plain text instead of TLS."),
	OPT_BOOL(C, "insecure_skip_verify", insecure_skip_verify, "false",
		 "TLS without verifying the server."),
	OPT_STR(C, "server_name_override", server_name_override, NULL,
		"Name to ask for and verify."),
	OPT_INCLUDE(C, common, struct tls_common_options, tls_common_table), OPT_END
};
#undef C

static const struct option_choice transports[] = {
	{ "tcp", NET_TRANSPORT_TCP },
	{ "tcp4", NET_TRANSPORT_TCP4 },
	{ "tcp6", NET_TRANSPORT_TCP6 },
	{ "unix", NET_TRANSPORT_UNIX },
	{ NULL, 0 },
};

#define C struct grpc_server_options
#define KEEPALIVE "keepalive.server_parameters."
#define ENFORCEMENT "keepalive.enforcement_policy."
const struct option grpc_server_option_table[] = {
	OPT_STR(C, "endpoint", endpoint, NULL,
		"Address to listen on, host:port; a path with transport unix."),
	OPT_ENUM(C, "transport", transport, transports, "tcp", "Kind of socket."),
	OPT_SECTION_NULL_OFF(C, "tls", tls_on, tls, struct tls_server_options,
			     tls_server_option_table, "TLS; plain text when absent."),
	OPT_SIZE_MIB(C, "max_recv_msg_size_mib", max_recv_msg_size, "20", 0, 1024,
		     "Largest message in MiB, counted inflated."),
	OPT_UINT(C, "max_decompression_ratio", max_decompression_ratio, "1100", 0, UINT32_MAX,
		 "A compressed message may not inflate to more than this many times its bytes; 0: "
		 "any."),
	OPT_UINT(C, "max_connections", max_connections, "10000", 16, 1000000,
		 "Connections at a time, about: each loop has its share; more close the idlest "
		 "one."),
	OPT_UINT(C, "max_concurrent_streams", max_concurrent_streams, "0", 0, UINT32_MAX,
		 "Calls at a time on one connection; 0: no limit."),
	OPT_BYTES(C, "read_buffer_size", read_buffer_size, "0", 0, 64 * MIB,
		  "Bytes read from a connection at a time; 0: chosen by the server."),
	OPT_BYTES(C, "write_buffer_size", write_buffer_size, "0", 0, 64 * MIB,
		  "Bytes written to a connection at a time; 0: chosen by the server."),
	OPT_DURATION(C, KEEPALIVE "max_connection_idle", keepalive.max_connection_idle_ns, "0s",
		     "Close a connection without calls after this; 0: never."),
	OPT_DURATION(C, KEEPALIVE "max_connection_age", keepalive.max_connection_age_ns, "0s",
		     "Ask clients to reconnect after this; 0: never."),
	OPT_DURATION(C, KEEPALIVE "max_connection_age_grace", keepalive.max_connection_age_grace_ns,
		     "0s", "Close after max_connection_age and this; 0: never."),
	OPT_DURATION(C, KEEPALIVE "time", keepalive.time_ns, "2h",
		     "Ping a silent client after this."),
	OPT_DURATION(C, KEEPALIVE "timeout", keepalive.timeout_ns, "20s",
		     "Close when a ping is not answered."),
	OPT_DURATION(C, ENFORCEMENT "min_time", keepalive.min_time_ns, "5m",
		     "Accepted: what is bounded is the rate of frames without content, pings among "
		     "them."),
	OPT_BOOL(C, ENFORCEMENT "permit_without_stream", keepalive.permit_without_stream, "false",
		 "Accepted: pings are always allowed within that rate."),
	OPT_BOOL(C, "include_metadata", include_metadata, "false",
		 "Accepted: tenant and credentials are read in any case, and no processor reads "
		 "others."),
	OPT_IGNORED("dialer", "a listener dials nobody"),
	OPT_MOVED("tls_settings", "it was renamed: write tls:"),
	OPT_MOVED("tls_credentials", "it was renamed: write tls:"),
	OPT_EXTENSION(C, "auth.authenticator", authenticator,
		      "A basicauth or bearertokenauth extension that every request must satisfy."),
	OPT_UNSUPPORTED("middlewares", NO_MIDDLEWARE),
	OPT_END
};
#undef C

#define C struct http_server_options
const struct option http_server_option_table[] = {
	OPT_STR(C, "endpoint", endpoint, NULL,
		"Address to listen on, host:port; a path with transport unix."),
	OPT_ENUM(C, "transport", transport, transports, "tcp", "Kind of socket."),
	OPT_SECTION_NULL_OFF(C, "tls", tls_on, tls, struct tls_server_options,
			     tls_server_option_table, "TLS; plain text when absent."),
	OPT_STRLIST(C, "cors.allowed_origins", cors.allowed_origins, "[]",
		    "Origins of browsers that may send, each with at most one *; empty: none."),
	OPT_STRLIST(C, "cors.allowed_headers", cors.allowed_headers, "[]",
		    "Request headers browsers may set."),
	OPT_STRLIST(C, "cors.exposed_headers", cors.exposed_headers, "[]",
		    "Response headers browsers may read."),
	OPT_UINT(C, "cors.max_age", cors.max_age_s, "0", 0, 86400 * 365,
		 "Seconds a browser may cache the answer."),
	OPT_BYTES(C, "max_request_body_size", max_request_body_size, "20MiB", 0, GIB,
		  "Largest body, on the wire and again inflated."),
	OPT_UINT(C, "max_decompression_ratio", max_decompression_ratio, "1100", 0, UINT32_MAX,
		 "A compressed body may not inflate to more than this many times its bytes; 0: "
		 "any."),
	OPT_UINT(C, "max_connections", max_connections, "10000", 16, 1000000,
		 "Connections at a time, about: each loop has its share; more close the idlest "
		 "one."),
	OPT_BOOL(C, "include_metadata", include_metadata, "false",
		 "Accepted: tenant and credentials are read in any case, and no processor reads "
		 "others."),
	OPT_OPAQUE_MAP(C, "response_headers", response_headers, "Headers added to every response."),
	OPT_STRLIST(C, "compression_algorithms", compression_algorithms,
		    "[\"\", gzip, zstd, zlib, snappy, deflate, lz4, x-snappy-framed]",
		    "Content encodings taken."),
	OPT_DURATION(C, "read_timeout", read_timeout_ns, "0s", "For a whole request; 0: none."),
	OPT_DURATION(C, "read_header_timeout", read_header_timeout_ns, "1m",
		     "For a request's head; 0: none."),
	OPT_DURATION(C, "write_timeout", write_timeout_ns, "30s", "For an answer; 0: none."),
	OPT_DURATION(C, "idle_timeout", idle_timeout_ns, "1m",
		     "Between two requests of a connection; 0: none."),
	OPT_BOOL(C, "keep_alives_enabled", keep_alives_enabled, "true",
		 "Keep connections open between requests."),
	OPT_MOVED("tls_settings", "it was renamed: write tls:"),
	OPT_MOVED("tls_credentials", "it was renamed: write tls:"),
	OPT_MOVED("cors_allowed_origins", "it moved: write cors: {allowed_origins: [...]}"),
	OPT_MOVED("cors_allowed_headers", "it moved: write cors: {allowed_headers: [...]}"),
	OPT_EXTENSION(C, "auth.authenticator", authenticator,
		      "A basicauth or bearertokenauth extension that every request must satisfy."),
	OPT_UNSUPPORTED("auth.request_params", "credentials are looked for in headers only"),
	OPT_UNSUPPORTED("middlewares", NO_MIDDLEWARE),
	OPT_END
};
#undef C

static const struct option_choice grpc_compressions[] = {
	{ "none", COMPRESSION_NONE },     { "", COMPRESSION_NONE },
	{ "gzip", COMPRESSION_GZIP },     { "zstd", COMPRESSION_ZSTD },
	{ "snappy", COMPRESSION_SNAPPY }, { NULL, 0 },
};

static const struct option_choice balancers[] = {
	{ "round_robin", GRPC_BALANCER_ROUND_ROBIN },
	{ "pick_first", GRPC_BALANCER_PICK_FIRST },
	{ NULL, 0 },
};

#define C struct grpc_keepalive_client_options
static const struct option grpc_keepalive_client_table[] = {
	OPT_DURATION(C, "time", time_ns, "10s", "Ping a silent server after this."),
	OPT_DURATION(C, "timeout", timeout_ns, "10s", "Reconnect when a ping is not answered."),
	OPT_BOOL(C, "permit_without_stream", permit_without_stream, "false",
		 "Ping while no call is open."),
	OPT_END
};
#undef C

#define C struct grpc_client_options
const struct option grpc_client_option_table[] = {
	OPT_STR(C, "endpoint", endpoint, NULL,
		"Where to send: host:port, also after http://, https:// or dns:///."),
	OPT_ENUM(C, "compression", compression, grpc_compressions, "gzip", "Of each message."),
	OPT_TABLE(C, "tls", tls, struct tls_client_options, tls_client_option_table,
		  "TLS, on unless insecure."),
	OPT_SECTION(C, "keepalive", keepalive_on, keepalive, struct grpc_keepalive_client_options,
		    grpc_keepalive_client_table, "off", "Pings that find a dead connection."),
	OPT_BYTES(C, "read_buffer_size", read_buffer_size, "0", 0, 64 * MIB,
		  "0: chosen by the client."),
	OPT_BYTES(C, "write_buffer_size", write_buffer_size, "512KiB", 0, 64 * MIB,
		  "0: chosen by the client."),
	OPT_BOOL(C, "wait_for_ready", wait_for_ready, "false",
		 "Wait for a connection instead of failing at once."),
	OPT_OPAQUE_MAP(C, "headers", headers, "Metadata sent with every call."),
	OPT_STR(C, "user_agent", user_agent, NULL, "Instead of our own User-Agent."),
	OPT_ENUM(C, "balancer_name", balancer, balancers, "round_robin",
		 "How calls spread over the addresses."),
	OPT_STR(C, "authority", authority, NULL, "Instead of the endpoint's name."),
	OPT_MOVED("insecure", "it moved: write tls: {insecure: true}"),
	OPT_MOVED("insecure_skip_verify", "it moved: write tls: {insecure_skip_verify: true}"),
	OPT_MOVED("server_name_override", "it moved: write tls: {server_name_override: name}"),
	OPT_MOVED("ca_file", "it moved: write tls: {ca_file: /path/ca.pem}"),
	OPT_MOVED("cert_file", "it moved: write tls: {cert_file: /path/cert.pem}"),
	OPT_MOVED("key_file", "it moved: write tls: {key_file: /path/key.pem}"),
	OPT_MOVED("tls_settings", "it was renamed: write tls:"),
	OPT_MOVED("batcher", "it moved: write sending_queue: {batch: }"),
	OPT_EXTENSION(C, "auth.authenticator", authenticator,
		      "A basicauth or bearertokenauth extension whose credentials are sent."),
	OPT_UNSUPPORTED("middlewares", "remove it"),
	OPT_END
};
#undef C

static const struct option_choice http_compressions[] = {
	{ "none", COMPRESSION_NONE },     { "", COMPRESSION_NONE },
	{ "gzip", COMPRESSION_GZIP },     { "zstd", COMPRESSION_ZSTD },
	{ "zlib", COMPRESSION_ZLIB },     { "deflate", COMPRESSION_DEFLATE },
	{ "snappy", COMPRESSION_SNAPPY }, { "x-snappy-framed", COMPRESSION_SNAPPY_FRAMED },
	{ "lz4", COMPRESSION_LZ4 },       { NULL, 0 },
};

#define C struct http_client_options
const struct option http_client_option_table[] = {
	OPT_STR(C, "endpoint", endpoint, NULL, "Where to send: http:// or https:// URL."),
	OPT_STR(C, "proxy_url", proxy_url, NULL,
		"Proxy; empty: HTTP_PROXY, HTTPS_PROXY and NO_PROXY decide."),
	OPT_TABLE(C, "tls", tls, struct tls_client_options, tls_client_option_table,
		  "For https:// endpoints."),
	OPT_DURATION(C, "timeout", timeout_ns, "30s", "Of one attempt; 0: none."),
	OPT_OPAQUE_MAP(C, "headers", headers, "Headers sent with every request."),
	OPT_ENUM(C, "compression", compression, http_compressions, "gzip", "Of bodies."),
	OPT_INT(C, "compression_params.level", compression_level, "0", -1, 22,
		"0: the codec's default."),
	OPT_UINT(C, "max_idle_conns", max_idle_conns, "100", 0, UINT32_MAX,
		 "Connections kept open; 0: no limit."),
	OPT_UINT(C, "max_idle_conns_per_host", max_idle_conns_per_host, "0", 0, UINT32_MAX,
		 "0: no limit."),
	OPT_UINT(C, "max_conns_per_host", max_conns_per_host, "0", 0, UINT32_MAX, "0: no limit."),
	OPT_DURATION(C, "idle_conn_timeout", idle_conn_timeout_ns, "90s",
		     "Close an idle connection after this."),
	OPT_BOOL(C, "disable_keep_alives", disable_keep_alives, "false",
		 "A new connection for each request."),
	OPT_BYTES(C, "read_buffer_size", read_buffer_size, "0", 0, 64 * MIB,
		  "0: chosen by the client."),
	OPT_BYTES(C, "write_buffer_size", write_buffer_size, "0", 0, 64 * MIB,
		  "0: chosen by the client."),
	OPT_IGNORED("http2_read_idle_timeout", "HTTP/1.1 is spoken"),
	OPT_IGNORED("http2_ping_timeout", "HTTP/1.1 is spoken"),
	OPT_IGNORED("force_attempt_http2", "HTTP/1.1 is spoken"),
	OPT_IGNORED("cookies", "no cookie is ever kept"),
	OPT_MOVED("insecure", "it moved: write tls: {insecure: true}"),
	OPT_MOVED("insecure_skip_verify", "it moved: write tls: {insecure_skip_verify: true}"),
	OPT_MOVED("server_name_override", "it moved: write tls: {server_name_override: name}"),
	OPT_MOVED("ca_file", "it moved: write tls: {ca_file: /path/ca.pem}"),
	OPT_MOVED("cert_file", "it moved: write tls: {cert_file: /path/cert.pem}"),
	OPT_MOVED("key_file", "it moved: write tls: {key_file: /path/key.pem}"),
	OPT_MOVED("tls_settings", "it was renamed: write tls:"),
	OPT_MOVED("batcher", "it moved: write sending_queue: {batch: }"),
	OPT_EXTENSION(C, "auth.authenticator", authenticator,
		      "A basicauth or bearertokenauth extension whose credentials are sent."),
	OPT_UNSUPPORTED("middlewares", "remove it"),
	OPT_END
};
#undef C

#define C struct retry_options
const struct option retry_option_table[] = {
	OPT_BOOL(C, "enabled", enabled, "true", "Try again after a retryable error."),
	OPT_DURATION(C, "initial_interval", initial_interval_ns, "5s",
		     "Wait after the first failure."),
	OPT_DOUBLE(C, "randomization_factor", randomization_factor, "0.5", 0, 1,
		   "Each wait is spread by this share to both sides."),
	OPT_DOUBLE(C, "multiplier", multiplier, "1.5", 1, 1000,
		   "Each wait is this much longer than the last."),
	OPT_DURATION(C, "max_interval", max_interval_ns, "30s", "Longest wait."),
	OPT_DURATION(C, "max_elapsed_time", max_elapsed_time_ns, "0s",
		     "Give up after this; 0: never, the queue bounds what waits (the Collector's "
		     "5m loses data)."),
	OPT_END
};
#undef C

static const struct option_choice queue_sizers[] = {
	{ "requests", QUEUE_SIZER_REQUESTS },
	{ "items", QUEUE_SIZER_ITEMS },
	{ "bytes", QUEUE_SIZER_BYTES },
	{ NULL, 0 },
};

#define C struct queue_batch_options
static const struct option queue_batch_table[] = {
	OPT_DURATION(C, "flush_timeout", flush_timeout_ns, "200ms",
		     "Send what there is after this."),
	OPT_UINT(C, "min_size", min_size, "8192", 0, INT64_C(1) << 40,
		 "Send at once from this size on."),
	OPT_UINT(C, "max_size", max_size, "0", 0, INT64_C(1) << 40,
		 "Split what is larger; 0: never."),
	OPT_ENUM(C, "sizer", sizer, queue_sizers, "items", "What the sizes count: items or bytes."),
	OPT_UNSUPPORTED("partition",
			"batches never mix tenants; use one pipeline per kind of metadata"),
	OPT_END
};
#undef C

#define C struct queue_options
const struct option queue_option_table[] = {
	OPT_UINT(C, "num_consumers", num_consumers, "10", 1, 1000, "Requests sent at a time."),
	OPT_UINT(C, "queue_size", queue_size, "1000", 1, INT64_C(1) << 50,
		 "Most that waits, counted by sizer; with storage the disk, unless this is set."),
	OPT_PRESENT(C, "queue_size", has_queue_size),
	OPT_ENUM(C, "sizer", sizer, queue_sizers, "requests", "What queue_size counts."),
	OPT_BOOL(C, "block_on_overflow", block_on_overflow, "false",
		 "Wait for room instead of refusing, until ack_timeout or the client's deadline."),
	OPT_BOOL(C, "wait_for_result", wait_for_result, "false",
		 "Answer when sent; a memory queue does so in any case."),
	OPT_EXTENSION(C, "storage", storage,
		      "A file_storage extension: the queue is on disk and survives a crash."),
	OPT_SECTION(C, "batch", batch_on, batch, struct queue_batch_options, queue_batch_table,
		    "off", "Join requests behind the queue."),
	OPT_MOVED("persistent_storage_enabled", "it moved: write storage: file_storage"),
	OPT_MOVED("storage_enabled", "it moved: write storage: file_storage"),
	OPT_END
};
#undef C

/* An error about section.key. */
static void block_error(struct conf_errors *errors, const struct conf_node *node,
			const char *yaml_path, const char *section, const char *key,
			const char *hint, const char *what)
{
	char full[300];

	snprintf(full, sizeof(full), "%s%s%s", section, section[0] ? "." : "", key);
	conf_error_at(errors, node, yaml_path, full, hint, "%s", what);
}

void option_blocks_check_queue(const struct queue_options *q, const struct conf_node *node,
			       const char *section, struct conf_errors *errors,
			       const char *yaml_path)
{
	if (!q->enabled)
		return;
	if (q->wait_for_result && q->storage[0] != '\0')
		block_error(errors, node, yaml_path, section, "wait_for_result",
			    "remove one of the two",
			    "`wait_for_result` is not supported with a persistent queue configured "
			    "with `storage`");
	if (!q->batch_on)
		return;
	if (q->batch.sizer == QUEUE_SIZER_REQUESTS)
		block_error(errors, node, yaml_path, section, "batch.sizer", "write items or bytes",
			    "`batch` supports only `items` or `bytes` sizer");
	else if (q->batch.sizer == q->sizer && q->batch.min_size > q->queue_size)
		block_error(errors, node, yaml_path, section, "batch.min_size",
			    "raise queue_size or lower min_size",
			    "`min_size` must be less than or equal to `queue_size`");
	if (q->batch.max_size > 0 && q->batch.max_size < q->batch.min_size)
		block_error(errors, node, yaml_path, section, "batch.max_size",
			    "raise max_size or lower min_size",
			    "`max_size` must be greater or equal to `min_size`");
}

void option_blocks_check_tls(const struct tls_common_options *t, const struct conf_node *node,
			     const char *section, struct conf_errors *errors, const char *yaml_path)
{
	bool cert = t->cert_file[0] || t->cert_pem[0], key = t->key_file[0] || t->key_pem[0];

	if (t->cert_file[0] && t->cert_pem[0])
		block_error(errors, node, yaml_path, section, "cert_pem", "remove one of the two",
			    "provide either a certificate or the PEM-encoded certificate, but not "
			    "both");
	if (t->key_file[0] && t->key_pem[0])
		block_error(errors, node, yaml_path, section, "key_pem", "remove one of the two",
			    "provide either a key or the PEM-encoded key, but not both");
	if (t->ca_file[0] && t->ca_pem[0])
		block_error(errors, node, yaml_path, section, "ca_pem", "remove one of the two",
			    "provide either a CA file or the PEM-encoded string, but not both");
	if (cert != key)
		block_error(errors, node, yaml_path, section, cert ? "key_file" : "cert_file",
			    cert ? "add key_file: /path/key.pem" : "add cert_file: /path/cert.pem",
			    "TLS configuration must include both certificate and key");
	if (t->max_version != TLS_VERSION_DEFAULT && t->min_version > t->max_version)
		block_error(errors, node, yaml_path, section, "min_version",
			    "lower min_version or raise max_version",
			    "min_version must be less than or equal to max_version");
}

const char *tls_version_name(int version)
{
	static const char *const names[] = {
		[TLS_VERSION_DEFAULT] = NULL, [TLS_VERSION_1_0] = "1.0", [TLS_VERSION_1_1] = "1.1",
		[TLS_VERSION_1_2] = "1.2",    [TLS_VERSION_1_3] = "1.3",
	};

	return names[version];
}

void option_blocks_check_tls_names(const struct tls_common_options *t, const struct conf_node *node,
				   const char *section, struct conf_errors *errors,
				   const char *yaml_path)
{
	char what[200];

	for (size_t i = 0; i < t->cipher_suites.n; i++) {
		snprintf(what, sizeof(what), "invalid TLS cipher suite: \"%.100s\"",
			 t->cipher_suites.items[i]);
		if (!tls_is_cipher(t->cipher_suites.items[i]))
			block_error(errors, node, yaml_path, section, "cipher_suites",
				    "write names like TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", what);
	}
	for (size_t i = 0; i < t->curve_preferences.n; i++) {
		snprintf(what, sizeof(what), "invalid curve type: \"%.100s\"",
			 t->curve_preferences.items[i]);
		if (!tls_is_group(t->curve_preferences.items[i]))
			block_error(errors, node, yaml_path, section, "curve_preferences",
				    "X25519, P256, P384 and P521 are known", what);
	}
}

int option_blocks_check_endpoint(const char *endpoint, bool is_listener,
				 const struct conf_node *node, const char *key,
				 struct conf_errors *errors, const char *yaml_path)
{
	const char *colon = strrchr(endpoint, ':'), *bracket = strrchr(endpoint, ']');
	uint64_t port = 0;

	if (strstr(endpoint, "://") != NULL) {
		conf_error_at(errors, node, yaml_path, key,
			      "write host:port without a scheme, for example localhost:4317",
			      "address %.100s: a scheme where host:port belongs", endpoint);
		return -1;
	}
	if (colon == NULL || (bracket != NULL && colon < bracket) ||
	    (bracket == NULL && memchr(endpoint, ':', (size_t)(colon - endpoint)) != NULL)) {
		conf_error_at(errors, node, yaml_path, key,
			      "write host:port, for example localhost:4317",
			      "address %.100s: missing port in address", endpoint);
		return -1;
	}
	if (str_to_u64(bytes_str(colon + 1), &port) < 0 || port > 65535 ||
	    (port == 0 && !is_listener)) {
		conf_error_at(errors, node, yaml_path, key, "a port is a number from 1 to 65535",
			      "invalid port \"%.40s\"", colon + 1);
		return -1;
	}
	return 0;
}
