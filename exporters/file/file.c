/* SPDX-License-Identifier: Apache-2.0
 *
 * file.c - exporter that appends to a local file: the Collector's file.
 *
 * The Collector's begins its file anew at each start and answers before it wrote; ours does
 * neither. THREADS: see file_writer.h. SPEC: docs/components/file.md.
 */
#include "base/mem.h"
#include "exporters/file/file_writer.h"
#include "pipeline/conf/error.h"

#include <errno.h>
#include <sched.h>
#include <sys/stat.h>

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
	struct file_writer *writer;
	_Atomic uint64_t n_pending;
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

/* mkdir -p of the file's folder. */
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
	const struct rotation_config *r = &conf->rotation;
	struct file_writer_options o = { .path = conf->path,
					 .format = (enum file_format)conf->format,
					 .compression = (enum content_coding)conf->compression };

	if (conf->rotation_on)
		o.rotation = (struct rotation){ r->max_megabytes << 20, r->max_backups, r->max_days,
						r->localtime };
	if (conf->create_directory && make_folder(conf->path, err) < 0)
		return -1;
	COMPONENT_STATE(c, struct file_state)->writer = file_writer_open(&o, err);
	return COMPONENT_STATE(c, struct file_state)->writer != NULL ? 0 : -1;
}

static void file_consume(struct component *c, struct batch *b)
{
	struct file_state *st = COMPONENT_STATE(c, struct file_state);

	file_writer_put(st->writer, c, b, &st->n_pending);
}

static int file_is_drained(struct component *c)
{
	return atomic_load(&COMPONENT_STATE(c, struct file_state)->n_pending) == 0;
}

/* What is still with the writer points to this instance. */
static void file_shutdown(struct component *c)
{
	struct file_state *st = COMPONENT_STATE(c, struct file_state);

	file_writer_close(st->writer);
	st->writer = NULL;
	while (atomic_load(&st->n_pending) > 0)
		sched_yield();
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
