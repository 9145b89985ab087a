/* SPDX-License-Identifier: Apache-2.0
 *
 * trace_store.c - extension that owns the backend: where blocks, commits and logs live.
 *
 * It lends a struct store (blocks/store.h) to the blocks exporter, the query and the compactor.
 * SPEC: DESIGN section 6; INTERFACE "Own components' keys".
 */
#include "base/clock.h"
#include "blocks/backend_local.h"
#include "blocks/backend_s3.h"
#include "blocks/store.h"
#include "pipeline/component.h"
#include "pipeline/conf/error.h"
#include "pipeline/telemetry.h"

enum backend_kind { BACKEND_LOCAL, BACKEND_S3 };

#define POLL_S3_NS (30 * NS_PER_S) /* the default there: each poll is a request per tenant */
#define PART_MIN (5 * MIB)         /* S3's own limit */

/* Tempo's keys of storage.trace.s3. */
struct s3_options {
	const char *endpoint, *bucket, *prefix, *region;
	const char *access_key, *secret_key, *session_token;
	bool insecure, forcepathstyle;
	int lookup; /* enum s3_lookup */
	const char *tls_ca_path, *tls_cert_path, *tls_key_path;
	bool tls_insecure_skip_verify;
	uint64_t part_size;
	const char *storage_class;
	int sse; /* enum sse_type */
	const char *kms_key_id;
	uint64_t max_attempts;
	int64_t backoff_first_ns, backoff_max_ns;
};

enum sse_type { SSE_NONE, SSE_S3, SSE_KMS };

struct trace_store_config {
	int backend; /* enum backend_kind */
	const char *path;
	struct s3_options s3;
	int64_t blocklist_poll_ns;
	bool has_blocklist_poll;
	uint64_t max_page_bytes;
	uint64_t cache_bytes;
};

struct trace_store_state {
	struct store *store;
	bool is_s3;
};

static const struct option_choice backends[] = {
	{ "local", BACKEND_LOCAL },
	{ "s3", BACKEND_S3 },
	{ NULL, 0 },
};

static const struct option_choice lookup_types[] = {
	{ "auto", S3_LOOKUP_AUTO },
	{ "dns", S3_LOOKUP_DNS },
	{ "path", S3_LOOKUP_PATH },
	{ "0", S3_LOOKUP_AUTO },
	{ "1", S3_LOOKUP_DNS },
	{ "2", S3_LOOKUP_PATH },
	{ NULL, 0 },
};

static const struct option_choice sse_types[] = {
	{ "", SSE_NONE },
	{ "SSE-S3", SSE_S3 },
	{ "SSE-KMS", SSE_KMS },
	{ NULL, 0 },
};

#define C struct s3_options
static const struct option s3_options[] = {
	OPT_STR(C, "endpoint", endpoint, NULL,
		"Host, or host:port, of the store; empty: AWS in `region`."),
	OPT_STR(C, "bucket", bucket, NULL, "The bucket; it must exist."),
	OPT_STR(C, "prefix", prefix, NULL, "Folder inside the bucket, no '/' at either end."),
	OPT_STR(C, "region", region, "us-east-1", "Region that requests are signed for."),
	OPT_STR(C, "access_key", access_key, NULL,
		"Access key; empty: from the environment, files or metadata, as AWS's tools do."),
	OPT_OPAQUE_STR(C, "secret_key", secret_key, NULL, "Secret key of access_key."),
	OPT_OPAQUE_STR(C, "session_token", session_token, NULL, "Token of temporary keys."),
	OPT_BOOL(C, "insecure", insecure, "false", "http instead of https."),
	OPT_BOOL(C, "forcepathstyle", forcepathstyle, "false", "The same as lookup type path."),
	OPT_ENUM(C, "bucket_lookup_type", lookup, lookup_types, "auto",
		 "bucket.host (dns) or host/bucket (path); auto: dns at AWS, Google and Aliyun."),
	OPT_STR(C, "tls_ca_path", tls_ca_path, NULL,
		"File of authorities (PEM) the store is verified against; empty: the system's."),
	OPT_STR(C, "tls_cert_path", tls_cert_path, NULL, "Certificate (PEM) to show to the store."),
	OPT_STR(C, "tls_key_path", tls_key_path, NULL, "Private key (PEM) of tls_cert_path."),
	OPT_BOOL(C, "tls_insecure_skip_verify", tls_insecure_skip_verify, "false",
		 "TLS without verifying the store."),
	OPT_BYTES(C, "part_size", part_size, "8MiB", 0, INT64_C(5) << 30,
		  "Parts of a multipart upload: at least 5 MiB, 10,000 must hold a block."),
	OPT_STR(C, "storage_class", storage_class, NULL, "Storage class; empty: the bucket's."),
	OPT_ENUM(C, "sse.type", sse, sse_types, "",
		 "Server-side encryption to ask for; empty: the bucket's."),
	OPT_STR(C, "sse.kms_key_id", kms_key_id, NULL,
		"Key of SSE-KMS; empty: the account's default."),
	OPT_UINT(C, "retry_max_attempts", max_attempts, "5", 1, 100,
		 "Attempts of one request while the store says slow down or does not answer."),
	OPT_DURATION(C, "retry_backoff_initial", backoff_first_ns, "200ms",
		     "First pause between attempts; it doubles."),
	OPT_DURATION(C, "retry_backoff_max", backoff_max_ns, "5s", "Longest pause."),
	OPT_IGNORED("list_blocks_concurrency", "listings are few here"),
	OPT_IGNORED("hedge_requests_at", "requests are not hedged"),
	OPT_IGNORED("hedge_requests_up_to", "requests are not hedged"),
	OPT_IGNORED("native_aws_auth_enabled", "AWS's own places for keys are always looked at"),
	OPT_UNSUPPORTED("signature_v2", "remove it: requests are signed with version 4"),
	OPT_UNSUPPORTED("enable_dual_stack", "name the dual-stack host in endpoint"),
	OPT_UNSUPPORTED("tags", "tag the bucket instead"),
	OPT_UNSUPPORTED("metadata", "remove it"),
	OPT_UNSUPPORTED("disable_multipart_upload", "raise part_size above the size of a block"),
	OPT_UNSUPPORTED("tls_server_name", "name the host in endpoint"),
	OPT_UNSUPPORTED("tls_cipher_suites", "remove it: the library's are used"),
	OPT_UNSUPPORTED("tls_min_version", "remove it: the library's is used"),
	OPT_UNSUPPORTED("sse.encryption_key", "use SSE-S3 or SSE-KMS"),
	OPT_UNSUPPORTED("sse.kms_encryption_context", "remove it"),
	OPT_END
};
#undef C

#define C struct trace_store_config
static const struct option trace_store_options[] = {
	OPT_ENUM(C, "backend", backend, backends, "local", "Where blocks live: local disk or S3."),
	OPT_STR(C, "local.path", path, "./data",
		"Folder of the local backend; logs and scratch lie under <path>/_spanmill with "
		"either backend."),
	OPT_TABLE(C, "s3", s3, struct s3_options, s3_options,
		  "The bucket of the S3 backend; Tempo's keys."),
	OPT_DURATION(C, "blocklist_poll", blocklist_poll_ns, "5s",
		     "How often the backend is asked for new blocks; 30s on s3."),
	OPT_PRESENT(C, "blocklist_poll", has_blocklist_poll),
	OPT_BYTES(C, "max_page_bytes", max_page_bytes, "1GiB", 1 << 20, INT64_C(4) << 30,
		  "What one page of a block may inflate to."),
	OPT_BYTES(C, "cache_bytes", cache_bytes, "0", 0, INT64_C(1) << 40,
		  "Blooms and index pages kept in memory for look-ups; 0: an eighth of the memory "
		  "budget, which they are charged to either way. On s3 data pages take a quarter "
		  "of that "
		  "beside it."),
	OPT_END
};
#undef C

static void check_s3(const struct s3_options *o, const struct conf_node *node,
		     struct conf_errors *errs, const char *path)
{
	const char *host = strstr(o->endpoint, "://");
	struct err err = ERR_INIT;

	host = host != NULL ? host + 3 : o->endpoint;
	if (strpbrk(host, "/ ?#@") != NULL)
		conf_error_at(errs, node, path, "s3.endpoint", "host or host:port",
			      "\"%s\" is no host", o->endpoint);
	if (o->bucket[0] == '\0')
		conf_error_at(errs, node, path, "s3.bucket", "the name of a bucket that exists",
			      "is missing");
	if (o->prefix[0] != '\0' && backend_key_check(o->prefix, &err) < 0)
		conf_error_at(errs, node, path, "s3.prefix", "for example traces/prod", "%s",
			      err.msg);
	if ((o->access_key[0] == '\0') != (o->secret_key[0] == '\0'))
		conf_error_at(
			errs, node, path, o->access_key[0] ? "s3.secret_key" : "s3.access_key",
			"write both, or neither to use AWS's environment and files", "is missing");
	if (o->part_size < PART_MIN)
		conf_error_at(errs, node, path, "s3.part_size", "at least 5MiB",
			      "S3 takes no smaller parts");
	if (o->kms_key_id[0] != '\0' && o->sse != SSE_KMS)
		conf_error_at(errs, node, path, "s3.sse.kms_key_id", "set sse.type: SSE-KMS",
			      "is of no use without SSE-KMS");
}

static void trace_store_validate(void *config, const struct conf_node *node,
				 struct conf_errors *errs, const char *yaml_path)
{
	struct trace_store_config *c = config;

	if (c->backend == BACKEND_S3) {
		check_s3(&c->s3, node, errs, yaml_path);
		if (!c->has_blocklist_poll)
			c->blocklist_poll_ns = POLL_S3_NS;
	}
	if (c->blocklist_poll_ns == 0)
		conf_error_at(errs, node, yaml_path, "blocklist_poll", "for example 5s",
			      "must be above 0");
}

static bool is_cancelled(void *arg)
{
	return component_start_is_cancelled(arg);
}

static struct backend *open_s3(struct component *c, const struct s3_options *o, struct err *err)
{
	static const char *const sse[] = { [SSE_S3] = "AES256", [SSE_KMS] = "aws:kms" };
	struct backend_s3_options b = {
		.client = { .endpoint = o->endpoint,
			    .bucket = o->bucket,
			    .region = o->region,
			    .insecure = o->insecure,
			    .lookup =
				    o->forcepathstyle ? S3_LOOKUP_PATH : (enum s3_lookup)o->lookup,
			    .ca_file = o->tls_ca_path,
			    .cert_file = o->tls_cert_path,
			    .key_file = o->tls_key_path,
			    .insecure_skip_verify = o->tls_insecure_skip_verify,
			    .credentials = { .access_key = o->access_key,
					     .secret_key = o->secret_key,
					     .session_token = o->session_token },
			    .max_attempts = (unsigned)o->max_attempts,
			    .backoff_first_ns = (uint64_t)o->backoff_first_ns,
			    .backoff_max_ns = (uint64_t)o->backoff_max_ns,
			    .is_cancelled = is_cancelled,
			    .cancel_arg = c },
		.prefix = o->prefix,
		.part_size = o->part_size,
		.storage_class = o->storage_class,
		.sse = sse[o->sse],
		.sse_kms_key = o->kms_key_id,
		.budget = component_budget(c),
	};

	return backend_s3_open(&b, err);
}

static int trace_store_start(struct component *c, struct err *err)
{
	const struct trace_store_config *conf = COMPONENT_CONFIG(c, struct trace_store_config);
	struct trace_store_state *st = COMPONENT_STATE(c, struct trace_store_state);
	struct backend_local_options local = { .path = conf->path };
	struct backend *be;

	st->is_s3 = conf->backend == BACKEND_S3;
	be = st->is_s3 ? open_s3(c, &conf->s3, err) : backend_local_open(&local, err);
	if (be == NULL)
		return -1;
	st->store = store_new(&(struct store_options){ .backend = be,
						       .local_path = conf->path,
						       .poll_ns = (uint64_t)conf->blocklist_poll_ns,
						       .max_page_bytes = conf->max_page_bytes,
						       .budget = component_budget(c),
						       .cache_bytes = conf->cache_bytes });
	return store_start(st->store, err);
}

static void trace_store_shutdown(struct component *c)
{
	struct trace_store_state *st = COMPONENT_STATE(c, struct trace_store_state);

	store_free(st->store);
	st->store = NULL;
}

static void *trace_store_lend(struct component *c)
{
	return COMPONENT_STATE(c, struct trace_store_state)->store;
}

static void cache_metrics(struct component *c, struct store *s, struct buf *out)
{
	static const char lookups[] = "spanmill_blocks_cache_lookups";
	struct block_cache_stats st;

	store_cache_stats(s, &st);
	telemetry_head(out, lookups, "counter",
		       "Blooms, index and data pages that look-ups asked the cache for.");
	for (unsigned i = 0; i < BLOCK_CACHE_KINDS; i++) {
		telemetry_sample(out, lookups, (double)st.hits[i], "extension", c->id, "kind",
				 block_cache_kind_name(i), "result", "hit", NULL);
		telemetry_sample(out, lookups, (double)st.misses[i], "extension", c->id, "kind",
				 block_cache_kind_name(i), "result", "miss", NULL);
	}
	telemetry_head(out, "spanmill_blocks_cache_bytes", "gauge",
		       "Memory that cached blooms, index and data pages take.");
	telemetry_sample(out, "spanmill_blocks_cache_bytes", (double)st.bytes, "extension", c->id,
			 NULL);
	telemetry_head(out, "spanmill_blocks_cache_evicted", "counter",
		       "Cached pieces that went to make room for others.");
	telemetry_sample(out, "spanmill_blocks_cache_evicted", (double)st.evicted, "extension",
			 c->id, NULL);
}

static void s3_metrics(struct component *c, struct store *s, struct buf *out)
{
	struct s3_client_stats st;

	backend_s3_stats(store_backend(s), &st);
	telemetry_head(out, "spanmill_s3_requests", "counter",
		       "Requests sent to the store, by what they do.");
	for (unsigned i = 0; i < S3_OPS; i++)
		telemetry_sample(out, "spanmill_s3_requests", (double)st.ops[i], "extension", c->id,
				 "op", s3_op_name(i), NULL);
	telemetry_head(out, "spanmill_s3_retries", "counter",
		       "Requests of those that were sent again after a failure.");
	telemetry_sample(out, "spanmill_s3_retries", (double)st.retries, "extension", c->id, NULL);
	telemetry_head(out, "spanmill_s3_failures", "counter",
		       "Calls that failed for good, retries included.");
	telemetry_sample(out, "spanmill_s3_failures", (double)st.failures, "extension", c->id,
			 NULL);
}

static void list_metrics(struct component *c, struct store *s, struct buf *out)
{
	static const char indexes[] = "spanmill_blocks_tenant_indexes";
	struct blocklist_stats st;

	blocklist_stats(store_blocklist(s), &st);
	telemetry_head(out, "spanmill_blocks_metas_read", "counter",
		       "meta.json files that polls asked for.");
	telemetry_sample(out, "spanmill_blocks_metas_read", (double)st.metas_read, "extension",
			 c->id, NULL);
	telemetry_head(out, indexes, "counter", "Tenant indexes that polls asked for.");
	telemetry_sample(out, indexes, (double)st.index_read, "extension", c->id, "result", "read",
			 NULL);
	telemetry_sample(out, indexes, (double)st.index_same, "extension", c->id, "result",
			 "unchanged", NULL);
	telemetry_sample(out, indexes, (double)st.index_bad, "extension", c->id, "result",
			 "unreadable", NULL);
}

static void trace_store_metrics(struct component *c, struct buf *out)
{
	struct store *s = COMPONENT_STATE(c, struct trace_store_state)->store;

	if (s == NULL)
		return;
	telemetry_head(out, "spanmill_blocks_listed", "gauge",
		       "Blocks on the block list, all tenants.");
	telemetry_sample(out, "spanmill_blocks_listed", (double)blocklist_count(store_blocklist(s)),
			 "extension", c->id, NULL);
	telemetry_head(out, "spanmill_blocks_unreadable", "gauge",
		       "meta.json files that the last poll could not read.");
	telemetry_sample(out, "spanmill_blocks_unreadable",
			 (double)blocklist_damaged(store_blocklist(s)), "extension", c->id, NULL);
	list_metrics(c, s, out);
	cache_metrics(c, s, out);
	if (COMPONENT_STATE(c, struct trace_store_state)->is_s3)
		s3_metrics(c, s, out);
}

const struct component_type extension_trace_store = {
	.name = "trace_store",
	.kind = KIND_EXTENSION,
	.summary = "Holds the backend that trace blocks are written to and read from.",
	.stability = STABILITY_ALPHA,
	.config_size = sizeof(struct trace_store_config),
	.state_size = sizeof(struct trace_store_state),
	.options = trace_store_options,
	.validate = trace_store_validate,
	.start = trace_store_start,
	.shutdown = trace_store_shutdown,
	.lend = trace_store_lend,
	.metrics = trace_store_metrics,
};
