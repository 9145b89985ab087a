/* SPDX-License-Identifier: Apache-2.0
 *
 * trace_store.c - extension that owns the backend: where blocks, commits and logs live.
 *
 * It lends a struct store (blocks/store.h) to the blocks exporter, the query and the compactor.
 * SPEC: DESIGN section 6; INTERFACE "Own components' keys".
 */
#include "blocks/backend_local.h"
#include "blocks/store.h"
#include "pipeline/component.h"
#include "pipeline/conf_error.h"
#include "pipeline/telemetry.h"

enum backend_kind { BACKEND_LOCAL, BACKEND_S3 };

struct trace_store_config {
	int backend; /* enum backend_kind */
	const char *path;
	int64_t blocklist_poll_ns;
	uint64_t max_page_bytes;
	uint64_t cache_bytes;
};

struct trace_store_state {
	struct store *store;
};

static const struct option_choice backends[] = {
	{ "local", BACKEND_LOCAL },
	{ "s3", BACKEND_S3 },
	{ NULL, 0 },
};

#define C struct trace_store_config
static const struct option trace_store_options[] = {
	OPT_ENUM(C, "backend", backend, backends, "local", "Where blocks live: local disk or S3."),
	OPT_STR(C, "local.path", path, "./data",
		"Folder of the local backend; logs and scratch lie under <path>/_spanmill with "
		"either backend."),
	OPT_DURATION(C, "blocklist_poll", blocklist_poll_ns, "5s",
		     "How often the backend is asked for new blocks."),
	OPT_BYTES(C, "max_page_bytes", max_page_bytes, "1GiB", 1 << 20, INT64_C(4) << 30,
		  "What one page of a block may inflate to."),
	OPT_BYTES(C, "cache_bytes", cache_bytes, "0", 0, INT64_C(1) << 40,
		  "Blooms and index pages kept in memory for look-ups; 0: an eighth of the memory "
		  "budget, which they are charged to either way."),
	OPT_UNSUPPORTED("s3", "The S3 backend is not in this version yet; use backend: local."),
	OPT_END
};
#undef C

static void trace_store_validate(void *config, const struct conf_node *node,
				 struct conf_errors *errs, const char *yaml_path)
{
	struct trace_store_config *c = config;

	if (c->backend == BACKEND_S3)
		conf_error_at(errs, node, yaml_path, "backend", "use backend: local",
			      "the s3 backend is not in Spanmill yet");
	if (c->blocklist_poll_ns == 0)
		conf_error_at(errs, node, yaml_path, "blocklist_poll", "for example 5s",
			      "must be above 0");
}

static int trace_store_start(struct component *c, struct err *err)
{
	const struct trace_store_config *conf = COMPONENT_CONFIG(c, struct trace_store_config);
	struct trace_store_state *st = COMPONENT_STATE(c, struct trace_store_state);
	struct backend_local_options local = { .path = conf->path };
	struct backend *be = backend_local_open(&local, err);

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

	block_cache_stats(store_cache(s), &st);
	telemetry_head(out, lookups, "counter",
		       "Bloom filters and index pages that look-ups asked the cache for.");
	for (unsigned i = 0; i < BLOCK_CACHE_KINDS; i++) {
		telemetry_sample(out, lookups, (double)st.hits[i], "extension", c->id, "kind",
				 block_cache_kind_name(i), "result", "hit", NULL);
		telemetry_sample(out, lookups, (double)st.misses[i], "extension", c->id, "kind",
				 block_cache_kind_name(i), "result", "miss", NULL);
	}
	telemetry_head(out, "spanmill_blocks_cache_bytes", "gauge",
		       "Memory that cached blooms and index pages take.");
	telemetry_sample(out, "spanmill_blocks_cache_bytes", (double)st.bytes, "extension", c->id,
			 NULL);
	telemetry_head(out, "spanmill_blocks_cache_evicted", "counter",
		       "Cached pieces that went to make room for others.");
	telemetry_sample(out, "spanmill_blocks_cache_evicted", (double)st.evicted, "extension",
			 c->id, NULL);
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
	cache_metrics(c, s, out);
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
