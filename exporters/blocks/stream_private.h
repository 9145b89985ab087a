/* SPDX-License-Identifier: Apache-2.0
 *
 * stream_private.h - what section_streams.c, stream_append.c and stream_build.c share. Nobody else
 * includes it.
 *
 * LOCKS: `lock` covers streams, chunks and windows; a source's lock may be taken inside it, never
 * the other way round. It is held for index updates, look-ups and bookkeeping, never across I/O. A
 * window belongs to the builder's thread from the moment its attempt begins.
 */
#ifndef EXPORTERS_BLOCKS_STREAM_PRIVATE_H
#define EXPORTERS_BLOCKS_STREAM_PRIVATE_H

#include "blocks/section.h"
#include "exporters/blocks/live_section.h"
#include "exporters/blocks/section_streams.h"
#include "pipeline/segment/log.h"

#include <pthread.h>

/* A stretch of a source that becomes one section: its records, in order. */
struct stream_window {
	struct source_record *records;
	size_t n_records;
	uint64_t n_spans;
	uint64_t closed_mono_ns;
	struct stream_window *next;
};

enum stream_step { STREAM_LOOK, STREAM_BUILD, STREAM_COMMIT, STREAM_PUBLISH, STREAM_DONE };

/* The window under way. From record `at` on nothing is committed by anybody we know of. */
struct stream_attempt {
	struct stream_window *window; /* NULL: none */
	enum stream_step step;
	size_t at, to;                /* records of the section that is built: [at, to) */
	struct section_commit commit; /* ours, or that of whoever was first */
	bool is_ours;
	bool may_be_committed; /* a put failed otherwise than by EXISTS */
	uint64_t built_mono_ns;
	uint64_t n_built, n_duplicates, n_conflicting, n_blocks; /* of the window */
};

struct stream {
	struct section_streams *m;
	struct source_sink sink;
	char *name; /* of the commits' folder */
	uint32_t partition, n_partitions;
	unsigned users;             /* the manager's list, appends under way, the builder */
	unsigned generation;        /* of what was not given up */
	bool is_closed;             /* the source is gone: touch it no more */
	bool is_last;               /* nothing will follow */
	bool wants_cut;             /* due, and nothing was complete yet */
	struct section_list chunks; /* the last one is open, unless it was closed */
	bool has_open;
	struct stream_window *first, *last; /* to be built */
	uint64_t cut_mono_ns;
	uint64_t flush_goal; /* a flush waits for `released` to get there */
	bool has_given_up;   /* since the flush began: it would wait for what is to be read again */
	/* the builder's */
	struct stream_attempt attempt;
	bool is_busy;
	bool is_void; /* what is being built was given up */
	uint64_t retry_mono_ns;
	unsigned wait_ms;
	struct section_names names; /* commits that may concern what comes */
	bool has_names;
	struct section_commit before; /* the last one published, without its metas */
	bool has_before;
	uint64_t sweep_mono_ns;
	struct stream *next; /* the manager's list */
};

struct section_streams {
	struct section_streams_options conf;
	struct section_log_options o;
	char *exporter; /* a copy: commits are named by it */
	struct segment_log *scratch;
	struct live_source live;
	pthread_mutex_t lock;
	pthread_cond_t wake;     /* the builder's */
	pthread_cond_t progress; /* a section was published, an attempt failed, a stream ended */
	struct stream *streams;
	struct stream *orphans; /* closed in the middle of a section: the builder tidies up */
	const void **expected;  /* receivers that do not know all their sources */
	size_t n_expected, cap_expected;
	unsigned n_users;           /* streams that left the list and are not freed yet */
	uint64_t next_lsn;          /* all records below have come into chunks, or were refused */
	uint64_t freed_lsn;         /* the builder's */
	_Atomic uint64_t unwritten; /* bytes on their way into the scratch */
	bool stopping;
	struct section_streams_stats stats;
	unsigned step_delay_ms;
	pthread_t builder;
	bool building;
};

/* section_streams.c; lock held */

/* Claim what is complete as windows. True when there was any. */
bool stream_cut(struct stream *st, uint64_t now_ns);
/* Refuse what is parked from this offset on, and forget it. */
void stream_give_up(struct stream *st, uint64_t claimed, const struct err *why);
void stream_unref(struct stream *st);
/* Chunks below this offset are in blocks: let them go. */
void stream_retire(struct stream *st, uint64_t released);
/* Records of the scratch below are not needed any more. */
uint64_t section_streams_wanted_lsn(const struct section_streams *m);
uint64_t section_streams_share(const struct section_streams *m);
void stream_window_free(struct stream_window *w);

/* stream_build.c */
void *stream_build_thread(void *arg);
/* Lock held, released meanwhile. */
void stream_tidy_orphans(struct section_streams *m);

/* stream_attempt.c, without the lock: one step. -1: to be tried again, or, when *is_broken, the
 * scratch has lost something. */
int stream_attempt_step(struct stream *st, bool *is_broken, struct err *err);
/* The attempt will not go on: delete its blocks, unless they may be committed. */
void stream_attempt_abandon(struct stream *st);

#endif
