/* SPDX-License-Identifier: Apache-2.0
 *
 * file.c - exporter that appends spans to a local file: the Collector's file.
 *
 *   consume (any thread) -> list -> writer thread: encode, write all, one sync -> verdicts
 *
 * DESIGN: delivered means synced. What has come while the disk worked goes with the next sync. A
 * disk that fails or is full is "try again" for the sender, and the file is cut back to its last
 * whole record. The Collector's exporter begins its file anew at each start and answers before it
 * wrote; ours does neither.
 * A file has one writer (a lock on it): what two signals or exporters write goes to two files.
 * OWNERSHIP, THREADS: the list is behind one lock, taken once a batch; the file is the writer's.
 * LIMITS: what waits is in the memory budget already. SPEC: docs/components/file.md; the formats of
 * the Collector's exporter.
 */
#include "base/mem.h"
#include "exporters/file/rotating_file.h"
#include "net/content_coding.h"
#include "pipeline/component.h"
#include "pipeline/conf_error.h"
#include "pipeline/telemetry.h"
#include "wire/otlp_json_encode.h"

#include <errno.h>
#include <pthread.h>
#include <sys/stat.h>

enum file_format { FORMAT_JSON, FORMAT_PROTO };
enum { ROUND_MAX = 256 };

struct rotation_config {
	uint64_t max_megabytes, max_days, max_backups;
	bool localtime;
};

struct file_config {
	const char *path;
	int format;
	int compression; /* enum content_coding */
	bool rotation_on, create_directory;
	struct rotation_config rotation;
};

struct file_state {
	struct rotating_file file;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool is_running, stopping; /* the thread; under the lock */
	struct batch **waiting;    /* under the lock */
	size_t n, cap;
	size_t n_at_work;
};

static const struct option_choice formats[] = { { "json", FORMAT_JSON },
						{ "proto", FORMAT_PROTO },
						{ NULL, 0 } };
static const struct option_choice compressions[] = { { "", CONTENT_IDENTITY },
						     { "none", CONTENT_IDENTITY },
						     { "zstd", CONTENT_ZSTD },
						     { NULL, 0 } };

#define R struct rotation_config
static const struct option rotation_options[] = {
	OPT_UINT(R, "max_megabytes", max_megabytes, "100", 1, 1 << 20,
		 "Size at which the file is put aside."),
	OPT_UINT(R, "max_days", max_days, "0", 0, 100000,
		 "Files put aside are deleted after so many days; 0: never."),
	OPT_UINT(R, "max_backups", max_backups, "100", 0, 10000,
		 "How many of them are kept; 0: all."),
	OPT_BOOL(R, "localtime", localtime, "false", "Name them by local time instead of UTC."),
	OPT_END
};
#undef R

#define C struct file_config
static const struct option file_options[] = {
	OPT_STR(C, "path", path, NULL, "The file; spans are appended."),
	OPT_REQUIRE("path"),
	OPT_ENUM(C, "format", format, formats, "json",
		 "json (one OTLP request a line) or proto (a length of 4 bytes, big endian, and "
		 "the request)."),
	OPT_ENUM(C, "compression", compression, compressions, "",
		 "zstd: each request for itself, behind a length of 4 bytes."),
	OPT_SECTION(C, "rotation", rotation_on, rotation, struct rotation_config, rotation_options,
		    "off", "Put the file aside when it is full."),
	OPT_BOOL(C, "create_directory", create_directory, "false", "Make the folder when missing."),
	OPT_IGNORED("append", "spans are always appended: a start never empties the file"),
	OPT_IGNORED("flush_interval", "an answer is given when its spans are synced"),
	OPT_IGNORED("directory_permissions", "a folder is made with 0750"),
	OPT_IGNORED("compression_params", "zstd runs at level 3"),
	OPT_UNSUPPORTED("group_by", "use one pipeline and one file exporter a group"),
	OPT_UNSUPPORTED("encoding", "use format: json or proto"),
	OPT_END
};
#undef C

static bool is_lines(const struct file_config *conf)
{
	return conf->format == FORMAT_JSON && conf->compression == CONTENT_IDENTITY;
}

/* ---- the writer ---- */

static int add_record(const struct file_config *conf, enum otlp_signal signal, struct bytes request,
		      struct buf *out, struct err *err)
{
	struct buf json = BUF_INIT, packed = BUF_INIT;
	uint8_t head[4];
	int rc = 0;

	if (conf->format == FORMAT_JSON)
		rc = otlp_json_encode_items(signal, &request, 1, OTLP_JSON, 0, &json, err);
	if (rc == 0 && conf->format == FORMAT_JSON)
		request = buf_bytes(&json);
	if (rc == 0 && conf->compression != CONTENT_IDENTITY) {
		rc = content_encode((enum content_coding)conf->compression, 3, request, &packed,
				    err);
		request = buf_bytes(&packed);
	}
	if (rc == 0 && !is_lines(conf)) {
		store_be32(head, (uint32_t)request.n);
		buf_add(out, head, sizeof(head));
	}
	if (rc == 0)
		buf_add_bytes(out, request);
	if (rc == 0 && is_lines(conf))
		buf_add_char(out, '\n');
	buf_fini(&json);
	buf_fini(&packed);
	return rc;
}

static int write_batch(struct component *c, struct batch *b, struct err *err)
{
	const struct file_config *conf = COMPONENT_CONFIG(c, struct file_config);
	struct file_state *st = COMPONENT_STATE(c, struct file_state);
	struct buf request = BUF_INIT, record = BUF_INIT;
	struct arena arena = ARENA_INIT;
	struct batch_encoding e;
	int rc;

	batch_encode(b, &arena, &e);
	for (size_t i = 0; i < e.n_pieces; i++)
		buf_add_bytes(&request, e.pieces[i]);
	rc = add_record(conf, (enum otlp_signal)b->signal, buf_bytes(&request), &record, err);
	if (rc == 0)
		rc = rotating_file_add(&st->file, buf_bytes(&record), err);
	buf_fini(&request);
	buf_fini(&record);
	arena_fini(&arena);
	return rc;
}

static void settle(struct component *c, struct batch *b, const struct err *err)
{
	bool ok = err->kind == ERR_NONE;

	atomic_fetch_add_explicit(ok ? &c->count->sent : &c->count->send_failed, batch_n_items(b),
				  memory_order_relaxed);
	batch_settle(b, ok ? VERDICT_DELIVERED : VERDICT_RETRYABLE, DROP_REASON_MAX, err);
	batch_unref(b);
}

/* What nobody waits for any more comes again, so it is not written. The rest moves up. */
static size_t settle_withdrawn(struct component *c, struct batch **v, size_t n)
{
	struct err why = ERR_INIT;
	size_t left = 0;

	err_set(&why, ERR_TIMEOUT, "not written in time");
	for (size_t i = 0; i < n; i++) {
		if (batch_is_withdrawn(v[i]))
			settle(c, v[i], &why);
		else
			v[left++] = v[i];
	}
	return left;
}

/* Write all, sync once. One that cannot be written fails all: nothing of them stays. */
static void write_round(struct component *c, struct batch **v, size_t n)
{
	struct file_state *st = COMPONENT_STATE(c, struct file_state);
	struct err err = ERR_INIT;
	bool ok = true;

	n = settle_withdrawn(c, v, n);
	for (size_t i = 0; i < n && ok; i++)
		ok = write_batch(c, v[i], &err) == 0;
	ok = ok && (n == 0 || rotating_file_sync(&st->file, &err) == 0);
	if (!ok) {
		log_error("cannot write to the file, senders are asked to come again", "component",
			  c->id, "error", err.msg);
		rotating_file_cut(&st->file);
	}
	for (size_t i = 0; i < n; i++)
		settle(c, v[i], &err);
}

static void *writer_main(void *arg)
{
	struct component *c = arg;
	struct file_state *st = COMPONENT_STATE(c, struct file_state);
	struct batch *v[ROUND_MAX];

	pthread_mutex_lock(&st->lock);
	for (;;) {
		size_t n = MIN(st->n, ROUND_MAX);

		if (n == 0 && st->stopping)
			break;
		if (n == 0) {
			pthread_cond_wait(&st->cond, &st->lock);
			continue;
		}
		memcpy(v, st->waiting, n * sizeof(struct batch *));
		st->n -= n;
		memmove(st->waiting, st->waiting + n, st->n * sizeof(struct batch *));
		st->n_at_work = n;
		pthread_mutex_unlock(&st->lock);
		write_round(c, v, n);
		pthread_mutex_lock(&st->lock);
		st->n_at_work = 0;
	}
	pthread_mutex_unlock(&st->lock);
	return NULL;
}

/* ---- life ---- */

static int make_folder(const char *path, struct err *err)
{
	char *dir = xstrdup(path), *at;
	int rc = 0;

	for (at = strchr(dir + 1, '/'); at != NULL && rc == 0; at = strchr(at + 1, '/')) {
		*at = '\0';
		if (mkdir(dir, 0750) < 0 && errno != EEXIST)
			rc = err_errno(err, "create %s", dir);
		*at = '/';
	}
	free(dir);
	return rc;
}

static int file_start(struct component *c, struct err *err)
{
	const struct file_config *conf = COMPONENT_CONFIG(c, struct file_config);
	struct file_state *st = COMPONENT_STATE(c, struct file_state);
	struct rotation rotation = { .max_bytes = 0 };

	if (conf->rotation_on)
		rotation = (struct rotation){ conf->rotation.max_megabytes << 20,
					      conf->rotation.max_backups, conf->rotation.max_days,
					      conf->rotation.localtime };
	if (conf->create_directory && make_folder(conf->path, err) < 0)
		return -1;
	if (rotating_file_open(&st->file, conf->path, &rotation, is_lines(conf), err) < 0)
		return -1;
	pthread_mutex_init(&st->lock, NULL);
	pthread_cond_init(&st->cond, NULL);
	if (pthread_create(&st->thread, NULL, writer_main, c) != 0)
		return err_errno(err, "start a thread");
	st->is_running = true;
	return 0;
}

static void file_consume(struct component *c, struct batch *b)
{
	struct file_state *st = COMPONENT_STATE(c, struct file_state);

	pthread_mutex_lock(&st->lock);
	st->waiting = xgrow(st->waiting, &st->cap, st->n + 1, sizeof(struct batch *));
	st->waiting[st->n++] = b;
	pthread_cond_signal(&st->cond);
	pthread_mutex_unlock(&st->lock);
}

static int file_is_drained(struct component *c)
{
	struct file_state *st = COMPONENT_STATE(c, struct file_state);
	bool is_idle;

	pthread_mutex_lock(&st->lock);
	is_idle = st->n == 0 && st->n_at_work == 0;
	pthread_mutex_unlock(&st->lock);
	return is_idle;
}

static void file_shutdown(struct component *c)
{
	struct file_state *st = COMPONENT_STATE(c, struct file_state);

	if (st->is_running) {
		pthread_mutex_lock(&st->lock);
		st->stopping = true;
		pthread_cond_signal(&st->cond);
		pthread_mutex_unlock(&st->lock);
		pthread_join(st->thread, NULL);
		pthread_mutex_destroy(&st->lock);
		pthread_cond_destroy(&st->cond);
		st->is_running = false;
	}
	free(st->waiting);
	st->waiting = NULL;
	rotating_file_close(&st->file);
}

const struct component_type exporter_file = {
	.name = "file",
	.kind = KIND_EXPORTER,
	.summary = "Appends spans to a local file, synced before the answer.",
	.stability = STABILITY_ALPHA,
	.signals = SIGNAL_ALL,
	.config_size = sizeof(struct file_config),
	.state_size = sizeof(struct file_state),
	.options = file_options,
	.start = file_start,
	.consume = file_consume,
	.is_drained = file_is_drained,
	.shutdown = file_shutdown,
};
