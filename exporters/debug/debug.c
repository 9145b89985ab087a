/* SPDX-License-Identifier: Apache-2.0
 *
 * debug.c - exporter that shows what passes: a count, a line a span, or every field. Logs and
 * metrics are shown as OTLP/JSON, a line a batch.
 *
 * It is for looking only: best_effort by default, so it holds no ack. A write that fails or would
 * block for ever is the reader's problem, not the pipeline's.
 * THREADS: one lock keeps one batch's text together. SPEC: the Collector's debug exporter.
 */
#include "base/clock.h"
#include "exporters/debug/text.h"
#include "pipeline/component.h"
#include "pipeline/telemetry.h"
#include "wire/otlp_json_encode.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum verbosity { VERBOSITY_BASIC, VERBOSITY_NORMAL, VERBOSITY_DETAILED };

struct debug_config {
	int verbosity; /* enum verbosity */
	uint64_t sampling_initial, sampling_thereafter;
	bool use_internal_logger;
	struct strlist output_paths;
};

struct debug_state {
	pthread_mutex_t lock;
	bool initialised;
	int *fds;
	size_t n_fds;
	uint64_t second, in_second; /* of the message sampling */
};

static const struct option_choice verbosities[] = {
	{ "basic", VERBOSITY_BASIC },
	{ "normal", VERBOSITY_NORMAL },
	{ "detailed", VERBOSITY_DETAILED },
	{ NULL, 0 },
};

#define C struct debug_config
static const struct option debug_options[] = {
	OPT_ENUM(
		C, "verbosity", verbosity, verbosities, "basic",
		"basic: a line per batch; normal: a line per span; detailed: every field. Logs and "
		"metrics are then shown as OTLP/JSON."),
	OPT_UINT(C, "sampling_initial", sampling_initial, "2", 0, 1 << 30,
		 "Batches shown each second, before sampling."),
	OPT_UINT(C, "sampling_thereafter", sampling_thereafter, "1", 1, 1 << 30,
		 "Then one in this many; 1 shows all."),
	OPT_BOOL(C, "use_internal_logger", use_internal_logger, "true",
		 "Write to stderr beside the log; else to output_paths."),
	OPT_STRLIST(C, "output_paths", output_paths, "[stdout]",
		    "stdout, stderr or files, without the internal logger."),
	OPT_MOVED("loglevel", "it was renamed: write verbosity: basic, normal or detailed"),
	OPT_IGNORED("sending_queue", "Nothing to queue: writing is immediate."),
	OPT_END
};
#undef C

static int open_output(const char *path, struct err *err)
{
	int fd;

	if (strcmp(path, "stdout") == 0)
		return dup(STDOUT_FILENO);
	if (strcmp(path, "stderr") == 0)
		return dup(STDERR_FILENO);
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	return fd < 0 ? err_errno(err, "open %s", path) : fd;
}

static int debug_start(struct component *c, struct err *err)
{
	const struct debug_config *conf = COMPONENT_CONFIG(c, struct debug_config);
	struct debug_state *st = COMPONENT_STATE(c, struct debug_state);
	const char *internal = "stderr";
	const char *const *paths = conf->use_internal_logger ? &internal : conf->output_paths.items;
	size_t n = conf->use_internal_logger ? 1 : conf->output_paths.n;

	pthread_mutex_init(&st->lock, NULL);
	st->initialised = true;
	st->fds = calloc(MAX(n, (size_t)1), sizeof(*st->fds));
	for (; st->n_fds < n; st->n_fds++) {
		st->fds[st->n_fds] = open_output(paths[st->n_fds], err);
		if (st->fds[st->n_fds] < 0)
			return -1;
	}
	return 0;
}

/* Lock held. */
static bool is_sampled(struct debug_state *st, const struct debug_config *conf)
{
	uint64_t now = clock_mono_ns() / NS_PER_S;

	if (st->second != now) {
		st->second = now;
		st->in_second = 0;
	}
	st->in_second++;
	return st->in_second <= conf->sampling_initial ||
	       (st->in_second - conf->sampling_initial) % conf->sampling_thereafter == 0;
}

static void write_all(const struct debug_state *st, const struct buf *text)
{
	for (size_t i = 0; i < st->n_fds; i++) {
		size_t done = 0;
		ssize_t n = 1;

		/* A reader that went away is no reason to stop. */
		while (done < text->n && n > 0) {
			n = write(st->fds[i], text->p + done, text->n - done);
			done += n > 0 ? (size_t)n : 0;
		}
	}
}

static void count_line(const struct batch *b, struct buf *out)
{
	const struct span_tables *t = &b->tables;

	if (b->signal == OTLP_TRACES)
		buf_printf(out, "Traces resource_spans=%u spans=%u\n", t->n_resources, t->n_spans);
	else if (b->signal == OTLP_LOGS)
		buf_printf(out, "Logs resource_logs=%u log_records=%u\n", t->n_resources,
			   t->n_spans);
	else
		buf_printf(out, "Metrics resource_metrics=%u metrics=%u data_points=%llu\n",
			   t->n_resources, t->n_spans, (unsigned long long)batch_n_points(b));
}

static void text_json(const struct batch *b, struct bytes otlp, struct buf *out)
{
	struct err err = ERR_INIT;

	if (otlp_json_encode_items(b->signal, &otlp, 1, OTLP_JSON, 0, out, &err) < 0)
		buf_printf(out, "(%s)", err.msg);
	buf_add_char(out, '\n');
}

static void describe(const struct debug_config *conf, const struct batch *b, struct buf *out)
{
	struct arena arena = ARENA_INIT;
	struct batch_encoding e;
	struct buf joined = BUF_INIT;
	char when[CLOCK_RFC3339_SIZE];

	clock_format_rfc3339(clock_wall_ns(), when);
	buf_printf(out, "%s info ", when);
	count_line(b, out);
	if (conf->verbosity == VERBOSITY_BASIC)
		return;
	batch_encode(b, &arena, &e);
	for (size_t i = 0; i < e.n_pieces; i++)
		buf_add_bytes(&joined, e.pieces[i]);
	if (b->signal != OTLP_TRACES)
		text_json(b, buf_bytes(&joined), out);
	else if (conf->verbosity == VERBOSITY_DETAILED)
		debug_text_detailed(buf_bytes(&joined), out);
	else
		debug_text_normal(buf_bytes(&joined), out);
	buf_fini(&joined);
	arena_fini(&arena);
}

static void debug_consume(struct component *c, struct batch *b)
{
	const struct debug_config *conf = COMPONENT_CONFIG(c, struct debug_config);
	struct debug_state *st = COMPONENT_STATE(c, struct debug_state);
	struct buf text = BUF_INIT;

	pthread_mutex_lock(&st->lock);
	if (is_sampled(st, conf)) {
		describe(conf, b, &text);
		write_all(st, &text);
	}
	pthread_mutex_unlock(&st->lock);
	buf_fini(&text);
	atomic_fetch_add(&c->count->sent, batch_n_items(b));
	batch_settle(b, VERDICT_ASIDE, DROP_REASON_MAX, NULL); /* nobody finds it there */
	batch_unref(b);
}

static void debug_shutdown(struct component *c)
{
	struct debug_state *st = COMPONENT_STATE(c, struct debug_state);

	if (!st->initialised)
		return;
	for (size_t i = 0; i < st->n_fds; i++)
		close(st->fds[i]);
	free(st->fds);
	pthread_mutex_destroy(&st->lock);
	*st = (struct debug_state){ .initialised = false };
}

const struct component_type exporter_debug = {
	.name = "debug",
	.kind = KIND_EXPORTER,
	.summary = "Prints what passes, for looking.",
	.stability = STABILITY_BETA,
	.signals = SIGNAL_ALL,
	.best_effort = true,
	.config_size = sizeof(struct debug_config),
	.state_size = sizeof(struct debug_state),
	.options = debug_options,
	.may_overlap = component_overlaps,
	.start = debug_start,
	.consume = debug_consume,
	.shutdown = debug_shutdown,
};
