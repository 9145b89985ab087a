/* SPDX-License-Identifier: Apache-2.0
 *
 * section_log_private.h - what section_log.c, section_find.c and section_build.c share. Nobody else
 * includes it.
 *
 * LOCKS: `lock` covers the section lists and counters. It is held for index updates and look-ups,
 * never across I/O: a look-up copies the positions it needs and reads the log afterwards; retired
 * records are freed in the log only by the builder, and a look-up that meets a freed record finds
 * the trace in a block instead.
 */
#ifndef EXPORTERS_BLOCKS_SECTION_LOG_PRIVATE_H
#define EXPORTERS_BLOCKS_SECTION_LOG_PRIVATE_H

#include "exporters/blocks/live_section.h"
#include "exporters/blocks/section_log.h"
#include "pipeline/segment/log.h"
#include "pipeline/span/left.h"

#include <pthread.h>

struct section_log {
	struct section_log_options o;
	struct segment_log *log;
	char source[64]; /* of the commits: the log's id */
	struct live_source live;
	pthread_mutex_t lock;
	pthread_cond_t wake;          /* the builder's: something to build, or stop */
	pthread_cond_t progress;      /* a section was published, or an attempt failed */
	struct live_section *open;    /* being filled */
	struct section_list closed;   /* to be built; the first one is under way */
	struct section_list retiring; /* published; their index is gone */
	bool stopping;
	uint64_t next_lsn;      /* highest durable LSN seen + 1 */
	uint64_t published_lsn; /* all below are in published sections */
	uint64_t follow_from;   /* commits from here are still to be finished; 0: none */
	uint64_t sweep_mono_ns; /* when the builder sweeps next; its thread only */
	struct section_log_stats stats;
	unsigned step_delay_ms; /* tests: between the steps of publishing */
	pthread_t builder;
	bool building;         /* the thread runs */
	bool is_replayed;      /* all that was there at start is in the books */
	struct span_left left; /* found by the replay, and in the books from before a reload */
	char *dir;
};

/* Lock held: what is open becomes the builder's, unless it is empty. */
void section_log_close_open(struct section_log *l);
/* Lock held: the section is published; it leaves `closed`. n_lost: its spans that damage took.
 * is_listed: the store has all its blocks, so look-ups need the index no more. */
void section_log_retire(struct section_log *l, uint64_t n_blocks, uint64_t n_lost, bool is_listed);
/* Bytes of the budget that building may take; 0: as many as it likes. */
uint64_t section_log_share(const struct section_log *l);
/* Finish what a crash left of the commits from `from`: *next is the first position that none
 * covers. 0, 1 when something of it could not be written now, -1 (section_follow). Blocks. */
int section_log_follow(struct section_log *l, uint64_t from, uint64_t *next, struct err *err);
/* The builder's thread. */
void *section_build_thread(void *arg);
/* The live source's look-up. */
int section_find_live(struct live_source *live, const char *tenant, const uint8_t id[16],
		      store_piece_fn *piece, void *arg, struct err *err);

#endif
