/* SPDX-License-Identifier: Apache-2.0
 *
 * fsck.c - `spanmill fsck`: looks at the logs and blocks of a data folder and changes nothing.
 *
 *   fsck [PATH]         PATH/_spanmill/log/X (logs) and PATH/TENANT/UUID (blocks); ./data
 *   fsck queue DIR      the logs of a file_storage folder, or one log; says what waits in each
 *   fsck block DIR      one block: DIR is PATH/TENANT/UUID
 *
 * A line per problem on stdout, a summary last. A torn tail is what a crash leaves and no problem;
 * neither is a block folder without meta.json (an orphan), which nobody sees and a start sweeps: it
 * is named and counted.
 * Exit status 0 clean, 1 usage, 3 problems or something that could not be read.
 */
#include "base/clock.h"
#include "blocks/backend_local.h"
#include "blocks/block_check.h"
#include "cmd/commands.h"
#include "cmd/flags.h"
#include "cmd/terminal.h"
#include "pipeline/batch_record.h"
#include "pipeline/segment/check.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { EXIT_CLEAN = 0, EXIT_USAGE = 1, EXIT_PROBLEMS = 3, LINE_MAX_WIDTH = 2000 };

struct fsck {
	const char *what; /* of the log or block at hand, for the lines */
	uint64_t blocks, traces, orphans, logs, records, problems;
	bool tells_waiting; /* of a queue's logs */
	struct {
		uint64_t records, spans, bytes, oldest_ns;
	} waiting; /* in the log at hand */
};

/* Names and messages may quote what a damaged file says: as it may be shown. */
static void line(const struct fsck *f, const char *where, const char *what)
{
	struct buf text = BUF_INIT, shown = BUF_INIT;

	buf_printf(&text, "%s: %s: %s", f->what, where, what);
	terminal_add_text(&shown, buf_bytes(&text), LINE_MAX_WIDTH, false);
	printf("%s\n", buf_cstr(&shown));
	buf_fini(&text);
	buf_fini(&shown);
}

static void problem(struct fsck *f, const char *where, const char *what)
{
	f->problems++;
	line(f, where, what);
}

/* ---- logs ---- */

static void segment_line(void *arg, const struct segment_check_line *l)
{
	struct fsck *f = arg;
	char text[160];

	if (l->verdict == SEGMENT_GOOD || l->verdict == SEGMENT_TORN)
		return;
	snprintf(text, sizeof(text), "%s: %llu good records, %llu lost",
		 segment_check_verdict_name(l->verdict), (unsigned long long)l->records,
		 (unsigned long long)l->lost);
	problem(f, l->name, text);
}

static void waiting_record(void *arg, uint64_t lsn, struct bytes payload)
{
	struct fsck *f = arg;
	struct batch_record r;

	(void)lsn;
	if (batch_record_parse(payload, &r, NULL) < 0)
		return;
	f->waiting.records++;
	f->waiting.spans += r.n_spans;
	f->waiting.bytes += payload.n;
	if (f->waiting.oldest_ns == 0 || r.wall_ns < f->waiting.oldest_ns)
		f->waiting.oldest_ns = r.wall_ns;
}

/* What an exporter has still to send; a damaged record is skipped when it starts. */
static void waiting_line(const struct fsck *f, uint64_t n_lost)
{
	uint64_t now = clock_wall_ns();
	uint64_t age_s = now > f->waiting.oldest_ns ? (now - f->waiting.oldest_ns) / NS_PER_S : 0;
	char text[200];
	int n = snprintf(text, sizeof(text), "%llu records of %llu spans, %llu bytes",
			 (unsigned long long)f->waiting.records,
			 (unsigned long long)f->waiting.spans,
			 (unsigned long long)f->waiting.bytes);

	if (f->waiting.records > 0)
		n += snprintf(text + n, sizeof(text) - (size_t)n, ", the oldest of %llu s ago",
			      (unsigned long long)age_s);
	if (n_lost > 0)
		snprintf(text + n, sizeof(text) - (size_t)n,
			 "; %llu records lost, which the next start skips",
			 (unsigned long long)n_lost);
	line(f, "waiting", text);
}

static void check_log(struct fsck *f, const char *dir)
{
	struct segment_check_report report;
	struct err err = ERR_INIT;

	f->what = dir;
	f->logs++;
	memset(&f->waiting, 0, sizeof(f->waiting));
	if (segment_check(dir, segment_line, waiting_record, f, &report, &err) < 0) {
		problem(f, "log", err.msg);
	} else {
		f->records += report.records;
		if (f->tells_waiting)
			waiting_line(f, report.lost);
	}
	if (report.id_damaged)
		problem(f, "id", "damaged: the log's id is taken from its segments");
}

static bool is_dir(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* It has what any log has; damage may have taken the one or the other. */
static bool is_log(const char *dir)
{
	static const char suffix[] = ".segment";
	DIR *d = opendir(dir);
	const struct dirent *e;
	bool found = false;

	while (d != NULL && !found && (e = readdir(d)) != NULL) {
		size_t n = strlen(e->d_name);

		found = strcmp(e->d_name, "id") == 0 || strcmp(e->d_name, "cursor") == 0 ||
			(n >= sizeof(suffix) &&
			 strcmp(e->d_name + n + 1 - sizeof(suffix), suffix) == 0);
	}
	if (d != NULL)
		closedir(d);
	return found;
}

/* Every folder below `dir` that is a log. A data folder may have none. */
static void check_logs(struct fsck *f, const char *dir, bool must_be)
{
	DIR *d = opendir(dir);
	struct dirent *e;

	f->what = dir;
	if (d == NULL && must_be)
		problem(f, "folder", strerror(errno));
	while (d != NULL && (e = readdir(d)) != NULL) {
		char path[PATH_MAX];

		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		if (e->d_name[0] != '.' && is_dir(path) && is_log(path))
			check_log(f, path);
	}
	if (d != NULL)
		closedir(d);
}

/* ---- blocks ---- */

static void block_line(void *arg, const struct block_finding *found)
{
	char where[96];

	snprintf(where, sizeof(where), "%s at %llu", found->object,
		 (unsigned long long)found->offset);
	problem(arg, where, found->what);
}

static bool has_meta(struct backend *be, const char *folder)
{
	static const char *const names[] = { "meta.json", "meta.compacted.json" };
	char key[BACKEND_KEY_MAX + 1];
	uint64_t size;

	for (size_t i = 0; i < COUNT_OF(names); i++)
		if (backend_key(key, NULL, "%s/%s", folder, names[i]) == 0 &&
		    backend_size(be, key, &size, NULL) == 0)
			return true;
	return false;
}

struct block_walk {
	struct fsck *fsck;
	struct backend *be;
};

static bool is_uuid(const char *name)
{
	size_t n = strspn(name, "0123456789abcdef-");

	return n == 36 && name[n] == '\0' && name[8] == '-' && name[23] == '-';
}

/* `folder` is TENANT/UUID. */
static void check_one_block(struct block_walk *w, const char *folder)
{
	/* What trace_store reads by default. */
	static const struct block_reader_options limits = { .max_page_bytes = GIB };
	const char *id = strrchr(folder, '/') + 1;
	char tenant[BACKEND_KEY_MAX + 1];
	struct block_check_result result;
	struct err err = ERR_INIT;

	w->fsck->what = folder;
	if (!has_meta(w->be, folder)) {
		w->fsck->orphans++;
		line(w->fsck, "orphan",
		     "no meta.json: nobody sees it; a crash left it, and the next start sweeps it");
		return;
	}
	snprintf(tenant, sizeof(tenant), "%.*s", (int)(id - 1 - folder), folder);
	w->fsck->blocks++;
	if (block_check(w->be, tenant, id, &limits, block_line, w->fsck, &result, &err) < 0)
		problem(w->fsck, "block", err.msg);
	else
		w->fsck->traces += result.traces;
	if (isatty(STDERR_FILENO))
		fprintf(stderr, "\r%llu blocks, %llu traces ", (unsigned long long)w->fsck->blocks,
			(unsigned long long)w->fsck->traces);
}

static int visit_block(void *arg, const struct backend_entry *e, struct err *err)
{
	(void)err;
	if (e->is_prefix && is_uuid(strrchr(e->key, '/') + 1))
		check_one_block(arg, e->key);
	return 0;
}

static int visit_tenant(void *arg, const struct backend_entry *e, struct err *err)
{
	struct block_walk *w = arg;

	/* Folders of other names are not looked at by anybody. */
	if (!e->is_prefix || block_meta_tenant_check(bytes_str(e->key), NULL) < 0)
		return 0;
	return backend_list(w->be, e->key, BACKEND_ONE_LEVEL, visit_block, w, err);
}

/* Open the folder as a backend; NULL, counted, when it cannot be. */
static struct backend *open_backend(struct fsck *f, const char *path)
{
	const struct backend_local_options o = { .path = path, .keep_unfinished = true };
	struct err err = ERR_INIT;
	struct backend *be = NULL;

	f->what = path;
	if (!is_dir(path))
		problem(f, "folder", "no such folder");
	else if ((be = backend_local_open(&o, &err)) == NULL)
		problem(f, "folder", err.msg);
	return be;
}

static void check_data(struct fsck *f, const char *path)
{
	struct block_walk w = { f, open_backend(f, path) };
	struct err err = ERR_INIT;
	char logs[PATH_MAX];

	if (w.be == NULL)
		return;
	snprintf(logs, sizeof(logs), "%s/_spanmill/log", path);
	check_logs(f, logs, false);
	if (backend_list(w.be, "", BACKEND_ONE_LEVEL, visit_tenant, &w, &err) < 0) {
		f->what = path;
		problem(f, "list", err.msg);
	}
	backend_free(w.be);
}

/* PATH/TENANT/UUID, TENANT/UUID in the current folder, or an absolute path of a link or dots. */
static void check_block_dir(struct fsck *f, const char *dir)
{
	char path[PATH_MAX], folder[BACKEND_KEY_MAX + 1], *id, *tenant;
	struct block_walk w = { f, NULL };

	f->what = dir;
	if (realpath(dir, path) == NULL || !is_dir(path)) {
		problem(f, "block", "no such folder");
		return;
	}
	id = strrchr(path, '/');
	*id++ = '\0';
	tenant = strrchr(path, '/');
	if (tenant == NULL || !is_uuid(id)) {
		problem(f, "block", "name it as PATH/TENANT/UUID");
		return;
	}
	*tenant++ = '\0';
	snprintf(folder, sizeof(folder), "%.255s/%.255s", tenant, id);
	w.be = open_backend(f, path[0] != '\0' ? path : "/");
	if (w.be == NULL)
		return;
	check_one_block(&w, folder);
	f->problems += f->orphans;
	backend_free(w.be);
}

static int report(const struct fsck *f)
{
	if (isatty(STDERR_FILENO))
		fprintf(stderr, "\r");
	printf("%llu blocks, %llu traces, %llu orphans, %llu logs, %llu log records, %llu "
	       "problems\n",
	       (unsigned long long)f->blocks, (unsigned long long)f->traces,
	       (unsigned long long)f->orphans, (unsigned long long)f->logs,
	       (unsigned long long)f->records, (unsigned long long)f->problems);
	return f->problems ? EXIT_PROBLEMS : EXIT_CLEAN;
}

int cmd_fsck(int argc, char **argv)
{
	static const struct flag_command command = {
		.name = "fsck",
		.usage = "[PATH] | queue DIR | block DIR",
		.about = "Looks at the logs and blocks of a data folder (./data), at the logs of\n"
			 "a file_storage folder (and tells what waits in them), or at one block,\n"
			 "and changes nothing: a start repairs a log by itself. Whoever owns a\n"
			 "log must be stopped. Exit status 0 clean, 3 problems found.",
	};
	struct fsck f = { .what = "" };
	const char *words[2];
	size_t n;

	switch (flags_parse(&command, argc, argv, words, COUNT_OF(words), &n)) {
	case FLAG_HELP:
		return EXIT_CLEAN;
	case FLAG_BAD:
		return EXIT_USAGE;
	case FLAG_RUN:
		break;
	}
	if (n == 2 && strcmp(words[0], "queue") == 0) {
		f.tells_waiting = true;
		if (is_log(words[1]))
			check_log(&f, words[1]);
		else
			check_logs(&f, words[1], true);
	} else if (n == 2 && strcmp(words[0], "block") == 0) {
		check_block_dir(&f, words[1]);
	} else if (n < 2) {
		check_data(&f, n == 1 ? words[0] : "./data");
	} else {
		return flags_usage(&command, "unexpected argument \"%.80s\"", words[0]);
	}
	return report(&f);
}
