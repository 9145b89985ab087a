/* SPDX-License-Identifier: Apache-2.0
 *
 * file_storage.c - extension that names a folder on local disk for the sending queues of exporters.
 *
 * Each exporter keeps a segment log of its own in it, <directory>/<exporter id>, locked by the
 * process (pipeline/send/queue_log.c). Nothing is shared between them, so the Collector's keys
 * about its database file have no effect.
 * SPEC: the Collector's file_storage keys.
 */
#include "pipeline/component.h"
#include "pipeline/conf/error.h"
#include "pipeline/segment/check.h"
#include "pipeline/send/queue.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

struct file_storage_config {
	const char *directory;
	bool create_directory;
};

struct file_storage_state {
	struct sending_queue_storage storage;
};

#define C struct file_storage_config
#define EVERY_SYNC "every record is synced, and nothing is ever rewritten"
static const struct option file_storage_options[] = {
	OPT_STR(C, "directory", directory, NULL, "Folder of the logs, on a local disk."),
	OPT_REQUIRE("directory"),
	OPT_BOOL(C, "create_directory", create_directory, "false",
		 "Create the folder, and those above it, when missing."),
	OPT_IGNORED("directory_permissions", "folders are made with 0750"),
	OPT_IGNORED("timeout", "a log in use by another process is an error at once"),
	OPT_IGNORED("fsync", EVERY_SYNC),
	OPT_IGNORED("recreate", "damaged records are skipped and counted"),
	OPT_IGNORED("compaction", EVERY_SYNC),
	OPT_END
};
#undef C

/* mkdir -p. */
static int make_dirs(const char *path, struct err *err)
{
	char at[4096];
	size_t n = strlen(path);

	if (n >= sizeof(at))
		return err_set(err, ERR_CONFIG, "directory: longer than %zu bytes", sizeof(at));
	for (size_t i = 1; i <= n; i++) {
		if (path[i] != '/' && path[i] != '\0')
			continue;
		memcpy(at, path, i);
		at[i] = '\0';
		if (mkdir(at, 0750) < 0 && errno != EEXIST)
			return err_errno(err, "create %s", at);
	}
	return 0;
}

static int file_storage_start(struct component *c, struct err *err)
{
	const struct file_storage_config *conf = COMPONENT_CONFIG(c, struct file_storage_config);
	struct stat st;

	if (conf->create_directory && make_dirs(conf->directory, err) < 0)
		return -1;
	if (stat(conf->directory, &st) < 0) {
		err_errno(err, "directory %s", conf->directory);
		return conf->create_directory ? -1 : err_wrap(err, "create_directory is false");
	}
	if (!S_ISDIR(st.st_mode))
		return err_set(err, ERR_CONFIG, "%s is not a directory", conf->directory);
	if (access(conf->directory, W_OK | X_OK) < 0)
		return err_errno(err, "directory %s", conf->directory);
	COMPONENT_STATE(c, struct file_storage_state)->storage.directory = conf->directory;
	return 0;
}

/* A log without an owner that has something to send: its exporter was renamed or removed, or keeps
 * its queue elsewhere now. */
static void tell_of_forgotten(const char *dir)
{
	uint64_t n_records, n_bytes;

	if (segment_check_brief(dir, &n_records, &n_bytes, NULL) == 0 && n_records > 0)
		log_warn("a queue on disk waits for an exporter of its name", "dir", dir, "records",
			 LOG_NUM(n_records), "bytes", LOG_NUM(n_bytes));
}

static void file_storage_all_started(struct component *c)
{
	const char *directory = COMPONENT_STATE(c, struct file_storage_state)->storage.directory;
	DIR *d = directory != NULL ? opendir(directory) : NULL;
	const struct dirent *e;
	struct buf path = BUF_INIT;

	while (d != NULL && (e = readdir(d)) != NULL) {
		if (e->d_name[0] == '.')
			continue;
		buf_reset(&path);
		buf_printf(&path, "%s/%s", directory, e->d_name);
		tell_of_forgotten(buf_cstr(&path));
	}
	if (d != NULL)
		closedir(d);
	buf_fini(&path);
}

static void *file_storage_lend(struct component *c)
{
	struct file_storage_state *st = COMPONENT_STATE(c, struct file_storage_state);

	return st->storage.directory != NULL ? &st->storage : NULL;
}

static void file_storage_shutdown(struct component *c)
{
	COMPONENT_STATE(c, struct file_storage_state)->storage.directory = NULL;
}

const struct component_type extension_file_storage = {
	.name = SENDING_QUEUE_STORAGE_TYPE,
	.kind = KIND_EXTENSION,
	.summary =
		"Names a folder on local disk that sending queues of exporters keep their logs in.",
	.stability = STABILITY_ALPHA,
	.config_size = sizeof(struct file_storage_config),
	.state_size = sizeof(struct file_storage_state),
	.options = file_storage_options,
	.start = file_storage_start,
	.all_started = file_storage_all_started,
	.shutdown = file_storage_shutdown,
	.lend = file_storage_lend,
};
