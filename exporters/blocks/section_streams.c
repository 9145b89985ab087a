/* SPDX-License-Identifier: Apache-2.0
 *
 * section_streams.c - see section_streams.h: streams and their windows, start and stop, look-ups.
 * Batches come in by stream_append.c; sections are built by stream_build.c and stream_attempt.c.
 */
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "exporters/blocks/block_builder.h"
#include "exporters/blocks/section_find.h"
#include "exporters/blocks/stream_private.h"
#include "exporters/blocks/stream_record.h"

#include <stdio.h>

enum {
	BUILD_SHARE = 3,       /* of the budget, at most one part in three */
	NOTES_SHARE = 2,       /* of that, for what the builder remembers of each span */
	PENDING_MAX = 1 << 30, /* batches under way are granted by the budget */
	BEHIND = 3 << 20,      /* as much as the pool of their buffers keeps (base/rcbuf.h) */
};

uint64_t section_streams_share(const struct section_streams *m)
{
	if (m->o.budget == NULL)
		return 0;
	return (uint64_t)MAX(atomic_load(&m->o.budget->limit), 0) / BUILD_SHARE;
}

/* ---- windows; lock held ---- */

void stream_window_free(struct stream_window *w)
{
	if (w != NULL)
		free(w->records);
	free(w);
}

static void push_window(struct stream *st, struct source_claim *c, uint64_t now_ns)
{
	struct stream_window *w = xcalloc(1, sizeof(*w));

	w->records = c->records;
	w->n_records = c->n_records;
	w->n_spans = c->n_spans;
	w->closed_mono_ns = now_ns;
	if (st->last != NULL)
		st->last->next = w;
	else
		st->first = w;
	st->last = w;
}

/* As many spans as make the runs whose notes fit, if they all are as those in the last chunk. */
static uint64_t max_window_spans(const struct stream *st)
{
	const struct live_section *s = st->chunks.last;
	uint64_t share = section_streams_share(st->m);
	uint64_t runs = share / NOTES_SHARE / BLOCK_BUILD_RUN_BYTES;
	double spans_in_run =
		s != NULL && s->n_runs > 0 ? (double)s->n_spans / (double)s->n_runs : 1;

	return share > 0 ? (uint64_t)MAX((double)runs * spans_in_run, 1.0) : UINT64_MAX;
}

bool stream_cut(struct stream *st, uint64_t now_ns)
{
	uint64_t max_spans = max_window_spans(st);
	struct source_claim c;
	struct err why = ERR_INIT;
	bool any = false;

	while (source_claim(&st->sink, max_spans, &c)) {
		push_window(st, &c, now_ns);
		any = true;
	}
	st->wants_cut = !any;
	if (any) {
		st->cut_mono_ns = now_ns;
		st->has_open = false;
		pthread_cond_signal(&st->m->wake);
	}
	if (c.is_doomed) {
		st->m->stats.given_up++;
		err_set(&why, ERR_UNAVAILABLE,
			"blocks: other spans of the same records were refused");
		stream_give_up(st, st->sink.claimed, &why);
	}
	return any;
}

/* ---- chunks; lock held ---- */

static uint64_t first_offset(const struct live_section *s)
{
	uint64_t first = UINT64_MAX;

	for (size_t i = 0; i < s->n_records; i++)
		first = MIN(first, s->records[i].first);
	return first;
}

static uint64_t last_offset(const struct live_section *s)
{
	uint64_t last = 0;

	for (size_t i = 0; i < s->n_records; i++)
		last = MAX(last, s->records[i].last);
	return last;
}

uint64_t section_streams_wanted_lsn(const struct section_streams *m)
{
	/* What is written and on its way into a chunk has a higher LSN than what came before. */
	uint64_t lsn = m->next_lsn;

	for (struct stream *st = m->streams; st != NULL; st = st->next)
		for (struct live_section *s = st->chunks.first; s != NULL; s = s->next)
			lsn = MIN(lsn, s->first_lsn);
	return lsn;
}

/* Keep the chunks that `is_wanted`; the open one is closed when it goes. */
static void sift_chunks(struct stream *st, uint64_t offset,
			bool (*is_wanted)(const struct live_section *s, uint64_t offset))
{
	struct section_list old = st->chunks;
	struct live_section *open = st->has_open ? old.last : NULL;

	st->chunks = (struct section_list){ NULL, NULL };
	while (old.first != NULL) {
		struct live_section *s = section_list_take(&old);

		if (is_wanted(s, offset)) {
			section_list_append(&st->chunks, s);
			continue;
		}
		st->has_open &= s != open;
		live_section_free(s);
	}
}

static bool reaches(const struct live_section *s, uint64_t released)
{
	return last_offset(s) >= released;
}

void stream_retire(struct stream *st, uint64_t released)
{
	sift_chunks(st, released, reaches);
}

static bool begins_below(const struct live_section *s, uint64_t claimed)
{
	return first_offset(s) < claimed;
}

/* ---- giving up; lock held ---- */

static void drop_windows(struct stream *st)
{
	while (st->first != NULL) {
		struct stream_window *w = st->first;

		st->first = w->next;
		stream_window_free(w);
	}
	st->last = NULL;
}

void stream_give_up(struct stream *st, uint64_t claimed, const struct err *why)
{
	st->generation++;
	st->has_open = false;
	st->wants_cut = false;
	st->has_given_up = true;
	if (claimed == st->sink.released) {
		drop_windows(st);
		st->is_void = st->attempt.window != NULL;
	}
	/* What is left lies across `claimed`: of it only what is below counts any more. */
	sift_chunks(st, claimed, begins_below);
	for (struct live_section *s = st->chunks.first; s != NULL; s = s->next)
		s->end_offset = MIN(s->end_offset, claimed);
	source_give_up(&st->sink, claimed, why);
	pthread_cond_signal(&st->m->wake);
	pthread_cond_broadcast(&st->m->progress);
}

/* ---- what the source calls ---- */

static struct stream *of_sink(struct source_sink *sink)
{
	return CONTAINER_OF(sink, struct stream, sink);
}

static void sink_added(struct source_sink *sink)
{
	struct section_streams *m = of_sink(sink)->m;

	pthread_mutex_lock(&m->lock);
	pthread_cond_signal(&m->wake);
	pthread_mutex_unlock(&m->lock);
}

static void sink_cut(struct source_sink *sink, bool last)
{
	struct stream *st = of_sink(sink);
	struct err why = ERR_INIT;

	pthread_mutex_lock(&st->m->lock);
	if (last && !st->m->conf.flush_at_end) {
		err_set(&why, ERR_UNAVAILABLE, "blocks: stopping, the records are read again");
		if (st->chunks.first != NULL || st->first != NULL)
			stream_give_up(st, st->sink.released, &why);
	} else {
		st->is_last = last;
		stream_cut(st, clock_mono_ns());
	}
	pthread_mutex_unlock(&st->m->lock);
}

static void leave_list(struct stream *st)
{
	struct stream **at = &st->m->streams;

	while (*at != st)
		at = &(*at)->next;
	*at = st->next;
}

static void sink_close(struct source_sink *sink)
{
	struct stream *st = of_sink(sink);
	struct section_streams *m = st->m;
	struct err why = ERR_INIT;

	err_set(&why, ERR_UNAVAILABLE, "blocks: the partition went to another owner");
	pthread_mutex_lock(&m->lock);
	stream_give_up(st, st->sink.released, &why);
	while (st->chunks.first != NULL)
		live_section_free(section_list_take(&st->chunks));
	st->is_closed = true;
	source_detach(sink);
	leave_list(st);
	m->n_users++;
	if (st->attempt.window != NULL && !st->is_busy) {
		st->users++;
		st->next = m->orphans;
		m->orphans = st;
	}
	pthread_cond_broadcast(&m->progress);
	stream_unref(st);
	pthread_mutex_unlock(&m->lock);
}

static bool sink_is_behind(const struct source_sink *sink)
{
	const struct stream *st = CONTAINER_OF(sink, struct stream, sink);

	return atomic_load_explicit(&st->m->unwritten, memory_order_relaxed) > BEHIND;
}

/* ---- streams ---- */

void stream_unref(struct stream *st)
{
	if (--st->users > 0)
		return;
	assert(st->is_closed && st->chunks.first == NULL && st->first == NULL &&
	       st->attempt.window == NULL);
	st->m->n_users--;
	pthread_cond_broadcast(&st->m->progress);
	free(st->names.v);
	section_commit_fini(&st->before);
	free(st->name);
	free(st);
}

int section_streams_open(struct section_streams *m, struct source *s, struct err *err)
{
	struct stream *st = xcalloc(1, sizeof(*st));
	bool is_named = m->exporter[0] != '\0';

	st->m = m;
	st->sink.added = sink_added;
	st->sink.cut = sink_cut;
	st->sink.close = sink_close;
	st->sink.is_behind = sink_is_behind;
	st->name = is_named ? xasprintf("%s/%s", source_name(s), m->exporter)
			    : xstrdup(source_name(s));
	st->partition = source_partition(s);
	st->n_partitions = source_n_partitions(s);
	st->users = 1;
	st->cut_mono_ns = clock_mono_ns();
	if (source_attach(s, &st->sink, err) < 0) {
		free(st->name);
		free(st);
		return -1;
	}
	pthread_mutex_lock(&m->lock);
	st->next = m->streams;
	m->streams = st;
	pthread_mutex_unlock(&m->lock);
	return 0;
}

void section_streams_expect(struct section_streams *m, const void *whom, bool on)
{
	size_t i = 0;

	pthread_mutex_lock(&m->lock);
	while (i < m->n_expected && m->expected[i] != whom)
		i++;
	if (on && i == m->n_expected) {
		m->expected = xgrow(m->expected, &m->cap_expected, i + 1, sizeof(*m->expected));
		m->expected[m->n_expected++] = whom;
	} else if (!on && i < m->n_expected) {
		m->expected[i] = m->expected[--m->n_expected];
	}
	pthread_mutex_unlock(&m->lock);
}

/* ---- look-ups ---- */

/* Lock held: is that all there is? -1: *err says what is missing. */
static int check_whole(const struct section_streams *m, struct err *err)
{
	unsigned n = 0, n_behind = 0;

	for (struct stream *st = m->streams; st != NULL; st = st->next) {
		n++;
		n_behind += !source_is_whole(&st->sink);
	}
	if (n_behind > 0)
		return err_set(err, ERR_UNAVAILABLE,
			       "%u of %u partitions are still being read up to where they were "
			       "taken over",
			       n_behind, n);
	if (m->n_expected > 0)
		return err_set(err, ERR_UNAVAILABLE,
			       "it is not known yet which partitions are to be read here");
	return 0;
}

static int find_live(struct live_source *live, const char *tenant, const uint8_t id[16],
		     store_piece_fn *piece, void *arg, struct err *err)
{
	struct section_streams *m = CONTAINER_OF(live, struct section_streams, live);
	struct section_positions found = { NULL, 0, 0 };
	struct buf payload = BUF_INIT;
	struct err behind = ERR_INIT;
	int ret = 0, whole;

	pthread_mutex_lock(&m->lock);
	whole = check_whole(m, &behind);
	for (const struct stream *st = m->streams; st != NULL; st = st->next)
		section_find_collect(st->chunks.first, tenant, id, &found);
	pthread_mutex_unlock(&m->lock);
	for (size_t i = 0; ret == 0 && i < found.n; i++) {
		struct err local = ERR_INIT;
		struct stream_record r;

		buf_reset(&payload);
		if (segment_log_read(m->scratch, &found.v[i], &payload, &local) == 0 &&
		    stream_record_parse(buf_bytes(&payload), &r, &local) == 0)
			ret = section_find_give(r.batch.otlp, id, piece, arg, err);
		else if (local.kind != ERR_NOT_FOUND) /* a block has it, or it was given up */
			ret = err_set(err, local.kind, "%s", local.msg);
	}
	if (ret == 0 && whole < 0)
		ret = err_set(err, behind.kind, "%s", behind.msg);
	buf_fini(&payload);
	free(found.v);
	return ret;
}

/* Lock held: some stream has not published what it had when the flush began. */
static bool is_behind(const struct section_streams *m)
{
	for (const struct stream *st = m->streams; st != NULL; st = st->next)
		if (st->sink.released < st->flush_goal)
			return true;
	return false;
}

/* Lock held: what a flush waits for of a stream comes from its source again, or never. */
static bool gave_up(const struct section_streams *m)
{
	for (const struct stream *st = m->streams; st != NULL; st = st->next)
		if (st->has_given_up && st->sink.released < st->flush_goal)
			return true;
	return false;
}

static int flush_live(struct live_source *live, struct err *err)
{
	struct section_streams *m = CONTAINER_OF(live, struct section_streams, live);
	struct err unused = ERR_INIT;
	int ret = 0;

	/* A failed append was refused; the rest can be flushed all the same. */
	segment_log_flush(m->scratch, &unused);
	pthread_mutex_lock(&m->lock);
	for (struct stream *st = m->streams; st != NULL; st = st->next) {
		stream_cut(st, clock_mono_ns());
		st->wants_cut = false;
		st->flush_goal = st->sink.claimed;
		st->has_given_up = false;
	}
	while (ret == 0 && is_behind(m)) {
		if (m->stopping)
			ret = err_set(err, ERR_UNAVAILABLE, "flush: stopping");
		else if (gave_up(m))
			ret = err_set(err, ERR_UNAVAILABLE,
				      "flush: records were given up, they are read again");
		else if (m->stats.s.last_error[0] != '\0')
			ret = err_set(err, ERR_UNAVAILABLE, "flush: %s", m->stats.s.last_error);
		else
			pthread_cond_wait(&m->progress, &m->lock);
	}
	pthread_mutex_unlock(&m->lock);
	return ret;
}

/* ---- what others ask ---- */

void section_streams_cut(struct section_streams *m)
{
	pthread_mutex_lock(&m->lock);
	for (struct stream *st = m->streams; st != NULL; st = st->next)
		stream_cut(st, clock_mono_ns());
	pthread_mutex_unlock(&m->lock);
}

bool section_streams_is_idle(struct section_streams *m)
{
	bool idle = true;

	pthread_mutex_lock(&m->lock);
	for (struct stream *st = m->streams; st != NULL; st = st->next)
		idle &= st->first == NULL && st->attempt.window == NULL;
	pthread_mutex_unlock(&m->lock);
	return idle;
}

bool section_streams_is_failing(struct section_streams *m, char *why, size_t why_size)
{
	bool failing;

	if (segment_log_is_failing(m->scratch, why, why_size))
		return true;
	pthread_mutex_lock(&m->lock);
	failing = m->stats.s.last_error[0] != '\0';
	if (failing)
		snprintf(why, why_size, "blocks cannot be written: %s", m->stats.s.last_error);
	pthread_mutex_unlock(&m->lock);
	return failing;
}

void section_streams_stats(struct section_streams *m, struct section_streams_stats *out)
{
	struct segment_log_stats log;

	segment_log_stats(m->scratch, &log);
	pthread_mutex_lock(&m->lock);
	*out = m->stats;
	for (const struct stream *st = m->streams; st != NULL; st = st->next) {
		out->streams++;
		for (const struct live_section *s = st->chunks.first; s != NULL; s = s->next) {
			out->s.live_spans += s->n_spans;
			out->s.live_bytes += s->bytes;
			out->s.live_traces += s->n_traces;
		}
	}
	pthread_mutex_unlock(&m->lock);
	out->s.log_bytes = log.bytes_on_disk;
}

/* ---- start and stop ---- */

static void init_waiting(struct section_streams *m)
{
	pthread_condattr_t monotonic;

	pthread_mutex_init(&m->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&m->wake, &monotonic);
	pthread_cond_init(&m->progress, NULL);
	pthread_condattr_destroy(&monotonic);
}

static void streams_free(struct section_streams *m)
{
	/* Appends that are under way still come in, and let their streams go. */
	segment_log_close(m->scratch);
	assert(m->streams == NULL && m->n_users == 0);
	pthread_mutex_destroy(&m->lock);
	pthread_cond_destroy(&m->wake);
	pthread_cond_destroy(&m->progress);
	free(m->expected);
	free(m->exporter);
	free(m);
}

struct section_streams *section_streams_start(const struct section_streams_options *o,
					      struct err *err)
{
	struct segment_log_options log = {
		.dir = o->o.dir,
		.budget = o->o.budget,
		.io = o->o.log_io,
		.max_pending_bytes = PENDING_MAX,
	};
	const char *delay = getenv("SPANMILL_TEST_STEP_DELAY_MS");
	struct section_streams *m = xcalloc(1, sizeof(*m));

	m->conf = *o;
	m->o = o->o;
	/* The caller's texts may go. */
	m->exporter = xstrdup(o->exporter ? o->exporter : "");
	m->conf.exporter = NULL;
	m->conf.o.dir = m->o.dir = NULL;
	m->live = (struct live_source){ .find = find_live, .flush = flush_live };
	init_waiting(m);
	if (delay != NULL)
		m->step_delay_ms = (unsigned)strtoul(delay, NULL, 10);
	m->scratch = segment_log_open(&log, NULL, err);
	if (m->scratch != NULL) {
		/* What a process before us left: its sources have it too. */
		segment_log_free_to(m->scratch, UINT64_MAX);
		m->building = !o->by_hand &&
			      pthread_create(&m->builder, NULL, stream_build_thread, m) == 0;
	}
	if (m->scratch == NULL || (!m->building && !o->by_hand)) {
		if (m->scratch != NULL)
			err_set(err, ERR_INTERNAL, "blocks: cannot start the builder thread");
		streams_free(m);
		return NULL;
	}
	store_add_live(m->o.store, &m->live);
	return m;
}

void section_streams_stop(struct section_streams *m)
{
	if (m == NULL)
		return;
	pthread_mutex_lock(&m->lock);
	m->stopping = true;
	pthread_cond_broadcast(&m->wake);
	pthread_cond_broadcast(&m->progress);
	pthread_mutex_unlock(&m->lock);
	if (m->building)
		store_join(m->o.store, m->builder);
	pthread_mutex_lock(&m->lock);
	stream_tidy_orphans(m);
	pthread_mutex_unlock(&m->lock);
	store_remove_live(m->o.store, &m->live);
	segment_log_free_to(m->scratch, UINT64_MAX);
	streams_free(m);
}
