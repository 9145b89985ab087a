/* SPDX-License-Identifier: Apache-2.0
 *
 * blocks.h - the option blocks that many components share, written once: TLS, servers,
 * clients, retry, queue.
 *
 * A component embeds the struct and refers to its table (OPT_TABLE, OPT_SECTION); OPT_DEFAULT
 * changes a default for one component. Durations are nanoseconds, sizes bytes, strings never NULL.
 *
 * SPEC: the Collector's configtls, configgrpc, confighttp, configretry and exporterhelper keys.
 * Where our default differs INTERFACE.md "Defaults that differ" says so.
 */
#ifndef PIPELINE_OPTION_BLOCKS_H
#define PIPELINE_OPTION_BLOCKS_H

#include "pipeline/option/option.h"

enum tls_version {
	TLS_VERSION_DEFAULT,
	TLS_VERSION_1_0,
	TLS_VERSION_1_1,
	TLS_VERSION_1_2,
	TLS_VERSION_1_3
};

/* What both sides have. */
struct tls_common_options {
	const char *cert_file, *key_file, *ca_file;
	const char *cert_pem, *key_pem, *ca_pem;
	bool include_system_ca_certs_pool;
	int min_version, max_version; /* enum tls_version */
	struct strlist cipher_suites, curve_preferences;
	int64_t reload_interval_ns; /* 0: never */
};

/* `tls:` of a listener: OPT_SECTION_NULL_OFF(C, "tls", tls_on, tls, ...), off when absent. */
struct tls_server_options {
	struct tls_common_options common;
	const char *client_ca_file; /* set: a client certificate is required and verified */
	bool client_ca_file_reload;
};

/* `tls:` of a client: always there; plain text only when insecure (or the endpoint says http://).
 */
struct tls_client_options {
	struct tls_common_options common;
	bool insecure;
	bool insecure_skip_verify;
	const char *server_name_override;
};

struct grpc_keepalive_server_options {
	int64_t max_connection_idle_ns, max_connection_age_ns,
		max_connection_age_grace_ns; /* 0: for ever */
	int64_t time_ns, timeout_ns;
	int64_t min_time_ns; /* enforcement_policy */
	bool permit_without_stream;
};

enum net_transport {
	NET_TRANSPORT_TCP,
	NET_TRANSPORT_TCP4,
	NET_TRANSPORT_TCP6,
	NET_TRANSPORT_UNIX
};

struct grpc_server_options {
	const char *endpoint; /* host:port, or a path for unix */
	int transport;        /* enum net_transport */
	bool tls_on;
	struct tls_server_options tls;
	uint64_t max_recv_msg_size; /* bytes, counted inflated; typed as max_recv_msg_size_mib */
	uint64_t max_decompression_ratio;             /* 0: any */
	uint64_t max_connections;                     /* of all loops together */
	uint64_t max_concurrent_streams;              /* 0: no limit of our own */
	uint64_t read_buffer_size, write_buffer_size; /* 0: the server's choice */
	struct grpc_keepalive_server_options keepalive;
	bool include_metadata;
	const char *authenticator; /* id of an extension; "": everybody is let in */
};

struct http_cors_options {
	struct strlist allowed_origins; /* each may hold one '*'; empty: no CORS */
	struct strlist allowed_headers, exposed_headers;
	uint64_t max_age_s;
};

struct http_server_options {
	const char *endpoint;
	int transport;
	bool tls_on;
	struct tls_server_options tls;
	struct http_cors_options cors;
	uint64_t max_request_body_size; /* bytes, on the wire and again inflated */
	uint64_t max_decompression_ratio, max_connections; /* as above */
	bool include_metadata;
	const char *authenticator; /* as above */
	struct strmap response_headers;
	struct strlist compression_algorithms; /* content encodings taken */
	int64_t read_timeout_ns, read_header_timeout_ns, write_timeout_ns,
		idle_timeout_ns; /* 0: none */
	bool keep_alives_enabled;
};

enum compression {
	COMPRESSION_NONE,
	COMPRESSION_GZIP,
	COMPRESSION_ZSTD,
	COMPRESSION_SNAPPY,
	COMPRESSION_ZLIB,
	COMPRESSION_DEFLATE,
	COMPRESSION_LZ4,
	COMPRESSION_SNAPPY_FRAMED,
};

struct grpc_keepalive_client_options {
	int64_t time_ns, timeout_ns;
	bool permit_without_stream;
};

enum grpc_balancer { GRPC_BALANCER_ROUND_ROBIN, GRPC_BALANCER_PICK_FIRST };

struct grpc_client_options {
	const char *endpoint; /* [http|https|dns|unix|passthrough scheme] host:port */
	int compression;      /* NONE, GZIP, ZSTD, SNAPPY */
	struct tls_client_options tls;
	bool keepalive_on;
	struct grpc_keepalive_client_options keepalive;
	uint64_t read_buffer_size, write_buffer_size;
	bool wait_for_ready;
	struct strmap headers;
	const char *user_agent;    /* "": ours */
	int balancer;              /* enum grpc_balancer; typed as balancer_name */
	const char *authority;     /* "": from the endpoint */
	const char *authenticator; /* id of an extension whose credentials are sent, or "" */
};

struct http_client_options {
	const char *endpoint;
	const char *proxy_url;
	struct tls_client_options tls;
	int64_t timeout_ns; /* of one attempt; 0: none */
	struct strmap headers;
	const char *authenticator; /* as above */
	int compression;           /* enum compression */
	int64_t compression_level; /* 0: the codec's default */
	uint64_t max_idle_conns, max_idle_conns_per_host, max_conns_per_host; /* 0: no limit */
	int64_t idle_conn_timeout_ns;
	bool disable_keep_alives;
	uint64_t read_buffer_size, write_buffer_size;
};

/* retry_on_failure */
struct retry_options {
	bool enabled;
	int64_t initial_interval_ns, max_interval_ns;
	double randomization_factor, multiplier;
	int64_t max_elapsed_time_ns; /* 0: for ever; the queue bounds it */
};

enum queue_sizer { QUEUE_SIZER_REQUESTS, QUEUE_SIZER_ITEMS, QUEUE_SIZER_BYTES };

struct queue_batch_options {
	int64_t flush_timeout_ns;
	uint64_t min_size, max_size; /* max 0: no limit */
	int sizer;                   /* enum queue_sizer; not REQUESTS */
};

/* sending_queue: use OPT_SECTION(C, "sending_queue", queue.enabled, queue, struct queue_options,
 * queue_option_table, "on", ...). */
struct queue_options {
	bool enabled;
	uint64_t num_consumers;
	uint64_t queue_size; /* in units of sizer */
	bool has_queue_size; /* it was said; a queue on disk is bounded by the disk else */
	int sizer;           /* enum queue_sizer */
	bool block_on_overflow;
	bool wait_for_result; /* our memory queue always waits */
	const char *storage;  /* id of a file_storage extension, "": memory */
	bool batch_on;
	struct queue_batch_options batch;
};

/* Keys that every receiver has. conf_check reads them for each one (struct service_component); a
 * type's table does not list them. */
enum receiver_ack { RECEIVER_ACK_DURABLE, RECEIVER_ACK_EARLY };

struct receiver_options {
	const char *tenant; /* where a request names none */
	int ack;            /* enum receiver_ack */
	int64_t ack_timeout_ns;
};

/* Keys that every exporter has; read the same way. The default is the type's best_effort. */
struct exporter_options {
	bool best_effort;
};

extern const struct option receiver_option_table[];
extern const struct option exporter_option_table[];
extern const struct option tls_server_option_table[];
extern const struct option tls_client_option_table[];
extern const struct option grpc_server_option_table[];
extern const struct option http_server_option_table[];
extern const struct option grpc_client_option_table[];
extern const struct option http_client_option_table[];
extern const struct option retry_option_table[];
extern const struct option queue_option_table[];

/* Checks that span several keys, for a component's validate. `node` and `yaml_path` are the
 * component's, as validate got them; `section` is the dotted key of the block ("tls",
 * "protocols.grpc.tls", "sending_queue"). */
void option_blocks_check_queue(const struct queue_options *q, const struct conf_node *node,
			       const char *section, struct conf_errors *errors,
			       const char *yaml_path);
void option_blocks_check_tls(const struct tls_common_options *t, const struct conf_node *node,
			     const char *section, struct conf_errors *errors,
			     const char *yaml_path);
/* An enum tls_version as net/tls.h takes it; NULL for the default. */
const char *tls_version_name(int version);
/* The names in cipher_suites and curve_preferences: those that net/tls.h knows. */
void option_blocks_check_tls_names(const struct tls_common_options *t, const struct conf_node *node,
				   const char *section, struct conf_errors *errors,
				   const char *yaml_path);
/* host:port with a port 1..65535 (0 is allowed when the key is a listener's); reports at `key` of
 * node. 0 or -1. */
int option_blocks_check_endpoint(const char *endpoint, bool is_listener,
				 const struct conf_node *node, const char *key,
				 struct conf_errors *errors, const char *yaml_path);

#endif
