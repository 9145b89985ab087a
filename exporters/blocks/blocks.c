/* SPDX-License-Identifier: Apache-2.0
 *
 * blocks.c - exporter that writes Tempo-compatible trace blocks; the ack is the group fsync of its
 * log.
 *
 * DESIGN: consume hands the batch to the section log (section_log.h), which acknowledges it once it
 * is on disk, answers queries from it at once, and turns it into blocks behind. What comes from an
 * ordered source that keeps its records (a Kafka partition) goes to streams (section_streams.h)
 * instead and is acknowledged when its section is committed.
 * OWNERSHIP, THREADS: see section_log.h.
 * LIMITS: max_block_bytes, max_block_traces, max_block_age; the disk.
 * SPEC: docs/formats/tempo-v2-block.md, segment-log.md, section-commit.md.
 */
#include "base/buf.h"
#include "blocks/codec.h"
#include "exporters/blocks/section_log.h"
#include "exporters/blocks/section_streams.h"
#include "pipeline/component.h"
#include "pipeline/telemetry.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

enum encoding { ENCODING_V2 };

struct blocks_config {
	uint64_t max_block_bytes, max_block_traces;
	int64_t max_block_age_ns;
	bool flush_on_shutdown;
	int encoding;    /* enum encoding */
	int compression; /* enum codec_id */
};

struct blocks_state {
	struct section_log *log;
	_Atomic(struct section_streams *) streams; /* made when sources are expected */
	enum codec_id codec;                       /* the writers look at it as long as they run */
	_Atomic bool draining;
};

static const struct option_choice encodings[] = {
	{ "v2", ENCODING_V2 },
	{ NULL, 0 },
};

static const struct option_choice compressions[] = {
	{ "none", CODEC_NONE },         { "gzip", CODEC_GZIP },     { "lz4-64k", CODEC_LZ4_64K },
	{ "lz4-256k", CODEC_LZ4_256K }, { "lz4-1M", CODEC_LZ4_1M }, { "lz4", CODEC_LZ4 },
	{ "snappy", CODEC_SNAPPY },     { "zstd", CODEC_ZSTD },     { NULL, 0 },
};

#define C struct blocks_config
static const struct option blocks_options[] = {
	OPT_BYTES(C, "max_block_bytes", max_block_bytes, "128MiB", 1024, INT64_C(1) << 30,
		  "Cut a block when this much OTLP has come in since the last cut."),
	OPT_UINT(C, "max_block_traces", max_block_traces, "0", 0, 100000000,
		 "Cut a block when it holds this many traces; 0 is no limit."),
	OPT_DURATION(C, "max_block_age", max_block_age_ns, "30s",
		     "Cut a block when its oldest span came this long ago."),
	OPT_BOOL(C, "flush_on_shutdown", flush_on_shutdown, "true",
		 "Write what is open as blocks when the process ends; else it stays in the log."),
	OPT_ENUM(C, "encoding", encoding, encodings, "v2", "Block format."),
	OPT_ENUM(C, "compression", compression, compressions, "zstd",
		 "Compression of the pages of a block."),
	OPT_END
};
#undef C

/* mkdir -p: with a bucket as the backend nobody else makes the local folder. */
static int make_dirs(const char *path, struct err *err)
{
	char at[4096];
	size_t n = strlen(path);

	for (size_t i = 1; i <= n; i++) {
		if (path[i] != '/' && path[i] != '\0')
			continue;
		memcpy(at, path, i);
		at[i] = '\0';
		if (mkdir(at, 0755) < 0 && errno != EEXIST)
			return err_errno(err, "create %s", at);
	}
	return 0;
}

/* The exporter's id as one folder name that no other id has: "blocks_NAME" for "blocks/NAME", where
 * a '/' in NAME is "%2F" and a '%' "%25". */
static void add_id(struct buf *out, const char *id)
{
	const char *slash = strchr(id, '/');

	for (const char *p = id; *p != '\0'; p++) {
		if (p == slash)
			buf_add_char(out, '_');
		else if (*p == '/' || *p == '%')
			buf_printf(out, "%%%02X", (uint8_t)*p);
		else
			buf_add_char(out, *p);
	}
}

/* "<path>/_spanmill/<what>/<id>". */
static int own_dir(const struct component *c, const char *root, const char *what, char *out,
		   size_t size, struct err *err)
{
	struct buf path = BUF_INIT;
	int ret = 0;

	buf_printf(&path, "%s/_spanmill/%s", root, what);
	if (path.n < size)
		ret = make_dirs(buf_cstr(&path), err);
	buf_add_char(&path, '/');
	add_id(&path, c->id);
	if (path.n >= size)
		ret = err_set(err, ERR_CONFIG, "local.path: longer than %zu bytes", size);
	else
		memcpy(out, buf_cstr(&path), path.n + 1);
	buf_fini(&path);
	return ret;
}

static struct section_log_options section_options(struct component *c, struct store *store,
						  const char *dir)
{
	const struct blocks_config *conf = COMPONENT_CONFIG(c, struct blocks_config);
	struct blocks_state *st = COMPONENT_STATE(c, struct blocks_state);

	st->codec = (enum codec_id)conf->compression;
	return (struct section_log_options){
		.store = store,
		.dir = dir,
		.max_block_bytes = conf->max_block_bytes,
		.max_block_traces = conf->max_block_traces,
		.max_block_age_ns = (uint64_t)conf->max_block_age_ns,
		.writer = { .encoding = &st->codec, .max_page_bytes = UINT32_MAX / 2 },
		.budget = component_budget(c),
		.sent = &c->count->sent,
	};
}

static int blocks_start(struct component *c, struct err *err)
{
	struct blocks_state *st = COMPONENT_STATE(c, struct blocks_state);
	struct store *store = component_borrow(c, "trace_store");
	struct section_log_options o;
	char dir[4096];

	if (store == NULL)
		return err_set(err, ERR_CONFIG,
			       "no trace_store extension: list one under service.extensions");
	if (own_dir(c, store_local_path(store), "log", dir, sizeof(dir), err) < 0)
		return -1;
	/* Sections are safe only where one of two commits loses. */
	if (backend_prove_conditional(store_backend(store), err) < 0)
		return -1;
	o = section_options(c, store, dir);
	st->log = section_log_start(&o, err);
	return st->log ? 0 : -1;
}

/* ---- ordered sources ---- */

static struct section_streams *start_streams(struct component *c, struct err *err)
{
	struct store *store = component_borrow(c, "trace_store");
	const char *slash = strchr(c->id, '/');
	char dir[4096], exporter[SOURCE_SEGMENT_MAX + 1] = "";

	if (own_dir(c, store_local_path(store), "scratch", dir, sizeof(dir), err) < 0)
		return NULL;
	if (slash != NULL)
		source_segment(slash + 1, exporter);
	return section_streams_start(
		&(struct section_streams_options){
			.o = section_options(c, store, dir),
			.exporter = exporter,
			.flush_at_end =
				COMPONENT_CONFIG(c, struct blocks_config)->flush_on_shutdown,
		},
		err);
}

static struct section_streams *want_streams(struct component *c, struct err *err)
{
	struct blocks_state *st = COMPONENT_STATE(c, struct blocks_state);

	if (st->streams == NULL)
		st->streams = start_streams(c, err);
	return st->streams;
}

static void blocks_source_open(struct component *c, struct source *s)
{
	struct err err = ERR_INIT;
	struct section_streams *streams = want_streams(c, &err);

	if (streams == NULL || section_streams_open(streams, s, &err) < 0)
		component_fail(c, &err);
}

static void blocks_source_expect(struct component *c, const struct component *from, bool on)
{
	struct err err = ERR_INIT;
	struct section_streams *streams = want_streams(c, &err);

	if (streams == NULL)
		component_fail(c, &err);
	else
		section_streams_expect(streams, from, on);
}

static void blocks_consume(struct component *c, struct batch *b)
{
	struct blocks_state *st = COMPONENT_STATE(c, struct blocks_state);

	if (st->streams != NULL && !b->is_detached && section_streams_concerns(b))
		section_streams_append(st->streams, b, &b);
	if (b != NULL)
		section_log_append(st->log, b);
}

static void blocks_drain(struct component *c)
{
	struct blocks_state *st = COMPONENT_STATE(c, struct blocks_state);

	st->draining = COMPONENT_CONFIG(c, struct blocks_config)->flush_on_shutdown;
	if (st->draining && st->log != NULL)
		section_log_cut(st->log);
}

static int blocks_is_drained(struct component *c)
{
	struct blocks_state *st = COMPONENT_STATE(c, struct blocks_state);

	if (!st->draining || st->log == NULL)
		return 1;
	if (section_log_is_idle(st->log) &&
	    (st->streams == NULL || section_streams_is_idle(st->streams)))
		return 1;
	/* Spans that were still under way when the first cut was asked. */
	section_log_cut(st->log);
	return 0;
}

static void blocks_shutdown(struct component *c)
{
	struct blocks_state *st = COMPONENT_STATE(c, struct blocks_state);

	/* The receivers have closed their sources. */
	section_streams_stop(st->streams);
	st->streams = NULL;
	section_log_stop(st->log);
	st->log = NULL;
}

static void sample(struct buf *out, const struct component *c, const char *name, const char *kind,
		   uint64_t v, const char *help)
{
	telemetry_head(out, name, kind, help);
	telemetry_sample(out, name, (double)v, "exporter", c->id, NULL);
}

static void add_stats(struct section_log_stats *s, const struct section_log_stats *more)
{
	s->blocks_written += more->blocks_written;
	s->sections += more->sections;
	s->build_failures += more->build_failures;
	s->duplicates += more->duplicates;
	s->conflicting += more->conflicting;
	s->live_spans += more->live_spans;
	s->log_bytes += more->log_bytes;
}

static void blocks_metrics(struct component *c, struct buf *out)
{
	struct blocks_state *st = COMPONENT_STATE(c, struct blocks_state);
	struct section_streams_stats streams = { .followed = 0 };
	struct section_log_stats s;

	if (st->log == NULL)
		return;
	section_log_stats(st->log, &s);
	if (st->streams != NULL)
		section_streams_stats(st->streams, &streams);
	add_stats(&s, &streams.s);
	sample(out, c, "spanmill_blocks_written", "counter", s.blocks_written, "Blocks published.");
	sample(out, c, "spanmill_blocks_sections", "counter", s.sections, "Sections committed.");
	sample(out, c, "spanmill_blocks_build_failures", "counter", s.build_failures,
	       "Attempts that failed.");
	sample(out, c, "spanmill_blocks_duplicate_spans", "counter", s.duplicates,
	       "Spans left out because their equal was in the block.");
	sample(out, c, "spanmill_blocks_conflicting_spans", "counter", s.conflicting,
	       "Spans kept beside one of the same id and kind but other bytes.");
	sample(out, c, "spanmill_blocks_lost_spans", "counter", s.lost_spans,
	       "Spans of log records that were damaged before they reached a block.");
	sample(out, c, "spanmill_blocks_followed_sections", "counter", streams.followed,
	       "Sections of sources that another process had committed.");
	sample(out, c, "spanmill_blocks_given_up", "counter", streams.given_up,
	       "Times that what was open of a source was refused, to be read again.");
	sample(out, c, "spanmill_blocks_sources", "gauge", streams.streams,
	       "Ordered sources (Kafka partitions) that send now.");
	sample(out, c, "spanmill_blocks_live_spans", "gauge", s.live_spans,
	       "Spans in the log and in no block yet.");
	telemetry_segment_log(out, c, s.lost_records, s.quarantined);
	sample(out, c, "spanmill_blocks_log_bytes", "gauge", s.log_bytes, "Bytes of log on disk.");
}

static bool blocks_is_ready(struct component *c, char *why, size_t why_size)
{
	struct blocks_state *st = COMPONENT_STATE(c, struct blocks_state);

	char reason[200];

	/* While it starts, the service says what for. */
	if (st->log == NULL)
		return false;
	if (!section_log_is_failing(st->log, reason, sizeof(reason)) &&
	    (st->streams == NULL ||
	     !section_streams_is_failing(st->streams, reason, sizeof(reason))))
		return true;
	snprintf(why, why_size, "exporter %s: %s", c->id, reason);
	return false;
}

const struct component_type exporter_blocks = {
	.name = "blocks",
	.kind = KIND_EXPORTER,
	.summary =
		"Writes traces as Tempo v2 blocks to the trace_store; acknowledges when they are "
		"synced to its log.",
	.stability = STABILITY_ALPHA,
	.signals = SIGNAL_TRACES,
	.needs = "trace_store",
	.start_takes = ": replaying its log",
	.config_size = sizeof(struct blocks_config),
	.state_size = sizeof(struct blocks_state),
	.options = blocks_options,
	.start = blocks_start,
	.consume = blocks_consume,
	.source_open = blocks_source_open,
	.source_expect = blocks_source_expect,
	.drain = blocks_drain,
	.is_drained = blocks_is_drained,
	.shutdown = blocks_shutdown,
	.is_ready = blocks_is_ready,
	.metrics = blocks_metrics,
};
