/* SPDX-License-Identifier: Apache-2.0
 *
 * otlp_json_file.c - receiver that reads OTLP JSON from local files, a request a line, and goes on
 * where it was: the Collector's otlp_json_file.
 *
 *   files --tail--> lines --decode--> batch -> pipeline ... verdicts (any thread)
 *     ^                |                                        |
 *     '--- positions <-+---- settled in order <-----------------+   refused: sent again from memory
 *
 * DESIGN: the position of a file moves over a line when all of its spans met their verdict for
 * good; with `storage` it survives a restart, and what was under way is read again (at least once).
 * A line that a full disk or queue refuses is sent again after a pause, for ever: a file waits.
 * OWNERSHIP, THREADS: one thread owns files, lines and positions; a line's origin settles on any
 * thread, which only marks it under the lock.
 * LIMITS: LINES_MAX lines and BYTES_MAX bytes under way, granted by the memory budget; a line by
 * max_log_size; FILES_MAX files. SPEC: docs/components/otlp_json_file.md; OTLP "JSON Protobuf
 * Encoding", the keys of the Collector's file consumer.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "base/rcbuf.h"
#include "pipeline/component.h"
#include "pipeline/conf/error.h"
#include "pipeline/ingest/ingest.h"
#include "pipeline/send/queue.h"
#include "pipeline/ingest/transcode.h"
#include "receivers/otlp_json_file/positions.h"
#include "wire/otlp_json_decode.h"

#include <errno.h>
#include <fnmatch.h>
#include <glob.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>

enum { LINES_MAX = 64, BYTES_MAX = 16 << 20, FILES_MAX = 4096, GROW_MAX = 4 };
enum { RETRY_MS = 200, SAVE_MS = 1000, GONE_MS = 5000 };
enum start_at { START_END, START_BEGINNING };

struct files_config {
	struct strlist include, exclude;
	int start_at;
	int64_t poll_interval_ns;
	uint64_t max_line;
	const char *storage;
};

enum line_state { LINE_WAITING, LINE_UNDER_WAY, LINE_DONE };

struct file_line {
	struct origin origin;
	struct component *c;
	struct rcbuf *text;
	uint64_t start, end;
	enum line_state state; /* the lock */
	uint64_t not_before_ns;
	uint64_t n_items; /* as the counters have them */
	enum otlp_signal signal;
	struct file_line *next;
};

struct files_state {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool is_running;
	bool draining, stopping; /* the lock */
	size_t n_under_way;      /* the lock: lines with debts, for is_drained */
	/* the thread's */
	struct tail *tails[FILES_MAX];
	size_t n_tails, n_bytes;
	struct positions positions; /* of files that are not open */
	char *positions_file;       /* NULL: no storage */
	bool is_first_look, is_dirty;
	uint64_t next_look_ns, next_save_ns;
	struct transport_counters *count[OTLP_SIGNALS];
	char tenant[TENANT_MAX + 1];
};

static const struct option_choice starts[] = { { "end", START_END },
					       { "beginning", START_BEGINNING },
					       { NULL, 0 } };

#define C struct files_config
static const struct option files_options[] = {
	OPT_STRLIST(C, "include", include, NULL, "Patterns of the files, as a shell has them."),
	OPT_REQUIRE("include"),
	OPT_STRLIST(C, "exclude", exclude, NULL, "Patterns of files to leave out."),
	OPT_ENUM(C, "start_at", start_at, starts, "end",
		 "Where to begin in files that are there at the start and have no position yet."),
	OPT_DURATION(C, "poll_interval", poll_interval_ns, "200ms",
		     "How often files are looked at."),
	OPT_BYTES(C, "max_log_size", max_line, "20MiB", 1024, 1 << 30,
		  "Longer lines are passed over, and counted."),
	OPT_EXTENSION(C, "storage", storage,
		      "A file_storage extension that keeps the positions over a restart."),
	OPT_IGNORED("fingerprint_size", "a file is known by its first 1,000 bytes"),
	OPT_IGNORED("max_concurrent_files", "one thread reads all files"),
	OPT_IGNORED("max_batches", "one thread reads all files"),
	OPT_IGNORED("force_flush_period", "a line is taken when it has its end"),
	OPT_IGNORED("encoding", "OTLP JSON is UTF-8"),
	OPT_IGNORED("include_file_name", "spans carry what they came with"),
	OPT_IGNORED("include_file_path", "spans carry what they came with"),
	OPT_UNSUPPORTED("delete_after_read", "let what writes the files rotate them"),
	OPT_UNSUPPORTED("replay_file", "use start_at: beginning without storage"),
	OPT_UNSUPPORTED("compression", "unpack the files first"),
	OPT_END
};
#undef C

static void files_validate(void *config, const struct conf_node *node, struct conf_errors *errs,
			   const char *path)
{
	const struct files_config *c = config;

	for (size_t i = 0; i < c->include.n; i++)
		if (strstr(c->include.items[i], "**") != NULL)
			conf_error_at(errs, node, path, "include", "name each level of folders",
				      "\"**\" is not in Spanmill");
	if (c->poll_interval_ns < (int64_t)NS_PER_MS)
		conf_error_at(errs, node, path, "poll_interval", "for example 200ms",
			      "must be at least 1ms");
}

/* ---- lines under way ---- */

/* On any thread. */
static void settled(struct origin *o)
{
	struct file_line *line = CONTAINER_OF(o, struct file_line, origin);
	struct component *c = line->c;
	struct files_state *st = COMPONENT_STATE(c, struct files_state);
	struct transport_counters *count;
	struct origin_outcome out;
	bool refused;

	origin_outcome(o, &out);
	refused = out.retryable;
	count = st->count[line->signal];
	atomic_fetch_add_explicit(refused ? &count->refused : &count->accepted, line->n_items,
				  memory_order_relaxed);
	origin_fini(o);
	pthread_mutex_lock(&st->lock);
	st->n_under_way--;
	line->state = refused ? LINE_WAITING : LINE_DONE;
	line->not_before_ns = refused ? clock_mono_ns() + RETRY_MS * NS_PER_MS : 0;
	pthread_cond_signal(&st->cond);
	pthread_mutex_unlock(&st->lock);
}

static void set_state(struct files_state *st, struct file_line *line, enum line_state state)
{
	pthread_mutex_lock(&st->lock);
	st->n_under_way += state == LINE_UNDER_WAY;
	line->state = state;
	pthread_mutex_unlock(&st->lock);
}

static int decode(struct bytes in, size_t max_bytes, struct arena *arena, struct buf *out,
		  void *arg, struct err *err)
{
	return otlp_json_decode_items(*(const enum otlp_signal *)arg, in, max_bytes, arena, out,
				      err);
}

/* Of what a line is, by the first key of its object; what is none of these is read as traces, for
 * the error that says so. */
static enum otlp_signal signal_of(struct bytes line)
{
	static const char *const keys[OTLP_SIGNALS] = {
		[OTLP_METRICS] = "{\"resourceMetrics\"", [OTLP_LOGS] = "{\"resourceLogs\""
	};
	char start[24];
	size_t n = 0;

	for (size_t i = 0; i < line.n && n < sizeof(start) - 1; i++)
		if (strchr(" \t", line.p[i]) == NULL || line.p[i] == '\0')
			start[n++] = (char)line.p[i];
	start[n] = '\0';
	for (int g = 0; g < OTLP_SIGNALS; g++)
		if (keys[g] != NULL && strncmp(start, keys[g], strlen(keys[g])) == 0)
			return (enum otlp_signal)g;
	return OTLP_TRACES;
}

/* The line as a batch; NULL: it cannot be read, or not now (ERR_EXHAUSTED). */
static struct batch *line_batch(struct component *c, struct file_line *line,
				struct otlp_result *result, struct err *err)
{
	const struct transcode json = { decode, &line->signal, GROW_MAX };
	struct files_state *st = COMPONENT_STATE(c, struct files_state);
	struct rcbuf *request =
		transcode_body(&json, rcbuf_ref(line->text), component_budget(c), err);

	return request != NULL ? batch_from_request(line->signal, request, st->tenant,
						    component_budget(c), result, err)
			       : NULL;
}

static void line_failed(struct component *c, const struct tail *t, struct file_line *line,
			const struct err *err)
{
	struct files_state *st = COMPONENT_STATE(c, struct files_state);
	char at[24];

	if (err->kind == ERR_EXHAUSTED) {
		line->not_before_ns = clock_mono_ns() + RETRY_MS * NS_PER_MS;
		return;
	}
	snprintf(at, sizeof(at), "%llu", (unsigned long long)line->start);
	log_error("a line cannot be read and is passed over", "component", c->id, "file", t->path,
		  "byte", at, "error", err->msg);
	atomic_fetch_add(&st->count[line->signal]->damaged, 1);
	set_state(st, line, LINE_DONE);
}

/* Send a waiting line down the pipeline. */
static void send_line(struct component *c, struct tail *t, struct file_line *line)
{
	struct files_state *st = COMPONENT_STATE(c, struct files_state);
	struct otlp_result result = { .rejects = { .n = 0 } };
	struct err err = ERR_INIT;
	struct batch *b = line_batch(c, line, &result, &err);

	if (b == NULL) {
		line_failed(c, t, line, &err);
		return;
	}
	if (result.rejects.n > 0)
		log_warn("spans of a line are refused", "component", c->id, "file", t->path,
			 "first", result.rejects.first);
	atomic_fetch_add(&st->count[line->signal]->rejected, result.rejects.n);
	atomic_fetch_add(&st->count[line->signal]->refused, result.rejects.n);
	if (b->tables.n_spans == 0) {
		batch_unref(b);
		set_state(st, line, LINE_DONE);
		return;
	}
	line->n_items = batch_n_items(b);
	set_state(st, line, LINE_UNDER_WAY);
	origin_init_items(&line->origin, b->signal, b->tables.n_spans, settled);
	batch_bind(b, &line->origin);
	component_emit(c, b);
}

static void add_line(struct files_state *st, struct tail *t, struct file_line *line)
{
	if (t->last != NULL)
		t->last->next = line;
	else
		t->first = line;
	t->last = line;
	t->n_under_way++;
	st->n_bytes += line->text->n;
}

/* Take the lines that are done off the front, and move the position over them. */
static bool finish_lines(struct files_state *st, struct tail *t)
{
	bool any = false;

	while (t->first != NULL) {
		struct file_line *line = t->first;
		bool done;

		pthread_mutex_lock(&st->lock);
		done = line->state == LINE_DONE;
		pthread_mutex_unlock(&st->lock);
		if (!done)
			break;
		t->first = line->next;
		if (t->first == NULL)
			t->last = NULL;
		t->n_under_way--;
		t->position = line->end;
		st->n_bytes -= line->text->n;
		st->is_dirty = any = true;
		rcbuf_unref(line->text);
		free(line);
	}
	return any;
}

static void resend_lines(struct component *c, struct tail *t)
{
	struct files_state *st = COMPONENT_STATE(c, struct files_state);

	for (struct file_line *line = t->first; line != NULL; line = line->next) {
		bool due;

		pthread_mutex_lock(&st->lock);
		due = line->state == LINE_WAITING && line->not_before_ns <= clock_mono_ns();
		pthread_mutex_unlock(&st->lock);
		if (due)
			send_line(c, t, line);
	}
}

/* ---- reading ---- */

static struct file_line *new_line(struct component *c, struct bytes text, uint64_t start,
				  uint64_t end)
{
	struct rcbuf *copy = rcbuf_new_forced(component_budget(c), text.n);
	struct file_line *line = xcalloc(1, sizeof(*line));

	memcpy(copy->p, text.p, text.n);
	copy->n = text.n;
	line->c = c;
	line->text = copy;
	line->start = start;
	line->end = end;
	return line;
}

static bool has_room(struct component *c, const struct tail *t)
{
	const struct files_state *st = COMPONENT_STATE(c, struct files_state);

	return t->n_under_way < LINES_MAX && (st->n_bytes == 0 || st->n_bytes < BYTES_MAX) &&
	       (st->n_bytes == 0 || !budget_is_short(component_budget(c)));
}

/* Read what there is room for. True when there may be more at once. */
static bool read_lines(struct component *c, struct tail *t)
{
	const struct files_config *conf = COMPONENT_CONFIG(c, struct files_config);
	struct files_state *st = COMPONENT_STATE(c, struct files_state);
	uint64_t start = 0, end = 0;
	enum tail_line got = TAIL_NONE;
	struct file_line *line;
	struct bytes text;

	while (has_room(c, t)) {
		got = tail_next(t, conf->max_line, &text, &start, &end);
		if (got == TAIL_NONE)
			return false;
		line = new_line(c, got == TAIL_LINE ? text : BYTES_EMPTY, start, end);
		add_line(st, t, line);
		t->idle_since_ns = 0;
		line->signal = signal_of(text);
		/* What no pipeline wants is passed over. */
		if (got == TAIL_LINE && text.n > 0 && component_emits(c, line->signal)) {
			send_line(c, t, line);
			continue;
		}
		if (got == TAIL_TOO_LONG) {
			log_error("a line over max_log_size is passed over", "component", c->id,
				  "file", t->path);
			atomic_fetch_add(&st->count[line->signal]->damaged, 1);
		}
		set_state(st, line, LINE_DONE);
	}
	return true;
}

/* ---- files ---- */

static bool is_excluded(const struct files_config *conf, const char *path)
{
	for (size_t i = 0; i < conf->exclude.n; i++)
		if (fnmatch(conf->exclude.items[i], path, FNM_PATHNAME) == 0)
			return true;
	return false;
}

static struct tail *find_open(struct files_state *st, const char *path)
{
	struct stat s;

	if (stat(path, &s) < 0)
		return NULL;
	for (size_t i = 0; i < st->n_tails; i++)
		if (st->tails[i]->dev == (uint64_t)s.st_dev &&
		    st->tails[i]->ino == (uint64_t)s.st_ino)
			return st->tails[i];
	return NULL;
}

/* A file seen for the first time: where to begin. */
static void place(struct component *c, struct tail *t)
{
	const struct files_config *conf = COMPONENT_CONFIG(c, struct files_config);
	struct files_state *st = COMPONENT_STATE(c, struct files_state);
	struct position *known = positions_find(&st->positions, t->fd, t->path);

	if (known != NULL) {
		tail_seek(t, known->at);
		positions_remove(&st->positions, known);
		if (tail_was_emptied(t))
			tail_seek(t, 0);
	} else if (st->is_first_look && conf->start_at == START_END) {
		tail_seek_end(t);
		st->is_dirty = true;
	}
}

static void look_at(struct component *c, const char *path)
{
	struct files_state *st = COMPONENT_STATE(c, struct files_state);
	struct tail *t = find_open(st, path);
	struct err err = ERR_INIT;

	if (t == NULL && st->n_tails < FILES_MAX) {
		t = tail_open(path, &err);
		if (t == NULL) {
			if (err.kind != ERR_NOT_FOUND)
				log_warn("cannot read a file", "component", c->id, "error",
					 err.msg);
			return;
		}
		place(c, t);
		st->tails[st->n_tails++] = t;
		log_info("reading a file", "component", c->id, "file", path);
	}
	if (t == NULL)
		return;
	t->is_listed = true;
	if (strcmp(t->path, path) != 0) {
		free(t->path);
		t->path = xstrdup(path);
	}
}

/* All files that the patterns name now. */
static void look(struct component *c)
{
	const struct files_config *conf = COMPONENT_CONFIG(c, struct files_config);
	struct files_state *st = COMPONENT_STATE(c, struct files_state);

	for (size_t i = 0; i < st->n_tails; i++)
		st->tails[i]->is_listed = false;
	for (size_t i = 0; i < conf->include.n; i++) {
		glob_t g = { .gl_pathc = 0 };

		if (glob(conf->include.items[i], 0, NULL, &g) == 0)
			for (size_t k = 0; k < g.gl_pathc; k++)
				if (!is_excluded(conf, g.gl_pathv[k]))
					look_at(c, g.gl_pathv[k]);
		globfree(&g);
	}
	st->is_first_look = false;
}

/* A file that no pattern names any more, that is read to its end and does not grow. */
static bool is_gone(struct tail *t)
{
	uint64_t now = clock_mono_ns();

	if (t->is_listed || t->first != NULL)
		return false;
	if (t->idle_since_ns == 0)
		t->idle_since_ns = now;
	return now - t->idle_since_ns > (uint64_t)GONE_MS * NS_PER_MS;
}

static void begin_anew(struct tail *t)
{
	tail_seek(t, 0);
	t->print = tail_read_print(t->fd, TAIL_PRINT_MAX);
}

/* One round over all files. True when there is more to do at once. */
static bool work(struct component *c, bool reading)
{
	struct files_state *st = COMPONENT_STATE(c, struct files_state);
	bool more = false;

	for (size_t i = 0; i < st->n_tails; i++) {
		struct tail *t = st->tails[i];

		more |= finish_lines(st, t);
		if (!reading)
			continue;
		resend_lines(c, t);
		if (t->first == NULL && tail_was_emptied(t))
			begin_anew(t);
		if (read_lines(c, t) && t->first == NULL)
			more = true;
		finish_lines(st, t);
		if (is_gone(t)) {
			log_info("a file is gone and read to its end", "component", c->id, "file",
				 t->path);
			tail_close(t);
			st->tails[i--] = st->tails[--st->n_tails];
			st->is_dirty = true;
		}
	}
	return more;
}

/* ---- positions ---- */

static void save(struct component *c)
{
	struct files_state *st = COMPONENT_STATE(c, struct files_state);
	struct positions all = { .v = NULL };
	struct err err = ERR_INIT;

	if (st->positions_file == NULL || !st->is_dirty)
		return;
	for (size_t i = 0; i < st->positions.n; i++)
		positions_add(&all, &st->positions.v[i].print, st->positions.v[i].at,
			      st->positions.v[i].path);
	for (size_t i = 0; i < st->n_tails; i++) {
		struct tail *t = st->tails[i];

		if (t->print.n < TAIL_PRINT_MAX)
			t->print = tail_read_print(t->fd, TAIL_PRINT_MAX);
		if (t->print.n > 0)
			positions_add(&all, &t->print, t->position, t->path);
	}
	if (positions_write(st->positions_file, &all, &err) < 0)
		log_error("cannot keep the positions of files", "component", c->id, "error",
			  err.msg);
	else
		st->is_dirty = false;
	positions_fini(&all);
}

/* "<directory>/<id>.positions", where the id's slash is an underscore. */
static int open_positions(struct component *c, struct err *err)
{
	const struct files_config *conf = COMPONENT_CONFIG(c, struct files_config);
	struct files_state *st = COMPONENT_STATE(c, struct files_state);
	struct component *ext;
	const struct sending_queue_storage *storage = NULL;

	if (conf->storage[0] == '\0') {
		log_info("positions of files are forgotten at the end, as storage is not set",
			 "component", c->id);
		return 0;
	}
	ext = component_extension(c, conf->storage);
	if (ext != NULL && ext->type->lend != NULL &&
	    strcmp(ext->type->name, SENDING_QUEUE_STORAGE_TYPE) == 0)
		storage = ext->type->lend(ext);
	if (storage == NULL)
		return err_set(err, ERR_CONFIG, "storage: \"%s\" is no running %s extension",
			       conf->storage, SENDING_QUEUE_STORAGE_TYPE);
	st->positions_file = xasprintf("%s/%s.positions", storage->directory, c->id);
	for (char *at = st->positions_file + strlen(storage->directory) + 1; *at != '\0'; at++)
		if (*at == '/')
			*at = '_';
	positions_read(st->positions_file, &st->positions);
	if (st->positions.is_damaged)
		log_error("the positions of files are damaged, files are read anew", "component",
			  c->id, "file", st->positions_file);
	return 0;
}

/* ---- the thread ---- */

/* Until something settles, but at most to the next look or second attempt. */
static void wait_a_little(struct component *c)
{
	const struct files_config *conf = COMPONENT_CONFIG(c, struct files_config);
	struct files_state *st = COMPONENT_STATE(c, struct files_state);
	uint64_t ns = MIN((uint64_t)conf->poll_interval_ns, RETRY_MS * NS_PER_MS);
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	ns += (uint64_t)until.tv_nsec;
	until.tv_sec += (time_t)(ns / NS_PER_S);
	until.tv_nsec = (long)(ns % NS_PER_S);
	pthread_mutex_lock(&st->lock);
	if (!st->stopping)
		pthread_cond_timedwait(&st->cond, &st->lock, &until);
	pthread_mutex_unlock(&st->lock);
}

static void *reader_main(void *arg)
{
	struct component *c = arg;
	const struct files_config *conf = COMPONENT_CONFIG(c, struct files_config);
	struct files_state *st = COMPONENT_STATE(c, struct files_state);

	for (;;) {
		uint64_t now = clock_mono_ns();
		bool reading, stopping;

		pthread_mutex_lock(&st->lock);
		reading = !st->draining && !st->stopping;
		stopping = st->stopping;
		pthread_mutex_unlock(&st->lock);
		if (reading && now >= st->next_look_ns) {
			look(c);
			st->next_look_ns = now + (uint64_t)conf->poll_interval_ns;
		}
		if (!work(c, reading) && !stopping)
			wait_a_little(c);
		if (now >= st->next_save_ns || stopping || !reading) {
			save(c);
			st->next_save_ns = now + (uint64_t)SAVE_MS * NS_PER_MS;
		}
		if (stopping)
			return NULL;
	}
}

/* ---- life ---- */

static int files_start(struct component *c, struct err *err)
{
	struct files_state *st = COMPONENT_STATE(c, struct files_state);
	pthread_condattr_t monotonic;

	if (c->receiver->ack == RECEIVER_ACK_EARLY)
		return err_set(err, ERR_CONFIG,
			       "ack: early would move over lines that may be lost; remove it");
	if (ingest_tenant(c, (struct bytes){ NULL, 0 }, st->tenant, err) < 0 ||
	    open_positions(c, err) < 0)
		return -1;
	st->is_first_look = true;
	for (int g = 0; g < OTLP_SIGNALS; g++)
		st->count[g] = telemetry_transport_of(c, "file", (enum otlp_signal)g);
	pthread_mutex_init(&st->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&st->cond, &monotonic);
	pthread_condattr_destroy(&monotonic);
	if (pthread_create(&st->thread, NULL, reader_main, c) != 0)
		return err_errno(err, "start a thread");
	st->is_running = true;
	return 0;
}

static void files_drain(struct component *c)
{
	struct files_state *st = COMPONENT_STATE(c, struct files_state);

	if (!st->is_running)
		return;
	pthread_mutex_lock(&st->lock);
	st->draining = true;
	pthread_cond_signal(&st->cond);
	pthread_mutex_unlock(&st->lock);
}

static int files_is_drained(struct component *c)
{
	struct files_state *st = COMPONENT_STATE(c, struct files_state);
	bool is_idle = true;

	if (!st->is_running)
		return 1;
	pthread_mutex_lock(&st->lock);
	is_idle = st->n_under_way == 0;
	pthread_mutex_unlock(&st->lock);
	return is_idle;
}

/* Everything below has settled what it had: no line is under way any more. */
static void free_tails(struct files_state *st)
{
	for (size_t i = 0; i < st->n_tails; i++) {
		struct tail *t = st->tails[i];

		while (t->first != NULL) {
			struct file_line *line = t->first;

			t->first = line->next;
			rcbuf_unref(line->text);
			free(line);
		}
		tail_close(t);
	}
	st->n_tails = 0;
}

static void files_shutdown(struct component *c)
{
	struct files_state *st = COMPONENT_STATE(c, struct files_state);

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
	free_tails(st);
	positions_fini(&st->positions);
	free(st->positions_file);
	st->positions_file = NULL;
}

const struct component_type receiver_otlp_json_file = {
	.name = "otlp_json_file",
	.alias = "otlpjsonfile",
	.kind = KIND_RECEIVER,
	.summary = "Reads OTLP JSON from local files as they grow, and remembers how far.",
	.stability = STABILITY_ALPHA,
	.signals = SIGNAL_ALL,
	.config_size = sizeof(struct files_config),
	.state_size = sizeof(struct files_state),
	.options = files_options,
	.validate = files_validate,
	.start = files_start,
	.drain = files_drain,
	.is_drained = files_is_drained,
	.shutdown = files_shutdown,
};
