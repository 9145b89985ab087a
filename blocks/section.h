/* SPDX-License-Identifier: Apache-2.0
 *
 * section.h - how a stretch of an ordered source becomes blocks exactly once (DESIGN section 6).
 *
 *   1. write data, index, bloom-N of each block under fresh random ids; no meta.json
 *   2. commit: put _spanmill/commits/<source>/<first>-<timestamp>.json if nobody did, holding the
 *      last position and every block's meta    <- the one conditional write that decides
 *   3. write the meta.json of each block
 *   4. free the source up to the last position
 *
 * A start follows the commits from the source's first wanted position and does step 3 for what a
 * crash left. EXISTS at step 2 means another attempt won: its blocks stand, ours are deleted. A
 * put that failed any other way may have succeeded all the same: its blocks must stay until the
 * commit record was read back.
 *
 * THREADS: any; all calls block on the backend. OWNERSHIP: a commit owns its metas and samples.
 * LIMITS: a commit record of 16 MiB.
 * SPEC: docs/formats/section-commit.md.
 */
#ifndef BLOCKS_SECTION_H
#define BLOCKS_SECTION_H

#include "blocks/backend.h"
#include "blocks/block_meta.h"

/* Of a source whose positions may begin again (a topic made again) a commit remembers these many of
 * its records at most, beside the last one. */
enum { SECTION_SAMPLES_MAX = 4096 };

struct section_sample {
	uint64_t position, timestamp_ms;
};

struct section_commit {
	uint64_t first, last; /* positions: LSN or Kafka offset, inclusive */
	/* Of the first record: tells a recreated topic's section from the old one's. */
	uint64_t first_timestamp_ms;
	struct block_meta *metas;
	size_t n_metas;
	/* Of all records. Without (a log's own commits) none is known. */
	bool has_timestamps;
	uint64_t min_timestamp_ms, max_timestamp_ms;
	/* All records, or every n-th and the last one, ascending: tell it in the middle. None: was
	 * written before there were any. */
	struct section_sample *samples;
	size_t n_samples;
};

/* Step 2. `source` is "group/cluster/topic/partition" or a log's id. EXISTS: another attempt
 * committed this section. */
int section_commit_put(struct backend *be, const char *source, const struct section_commit *c,
		       struct err *err);
/* The commit that stands under this key. NOT_FOUND, CORRUPT. Free with section_commit_fini. */
int section_commit_read(struct backend *be, const char *source, uint64_t first,
			uint64_t first_timestamp_ms, struct section_commit *c, struct err *err);
/* Give a damaged record another name (".damaged" behind its own), so that its section can be built
 * and committed again. Blocks that it named and that are visible stay. */
int section_commit_set_aside(struct backend *be, const char *source, uint64_t first,
			     uint64_t first_timestamp_ms, struct err *err);
/* Step 3 for one block: 1 when it is visible now or was before, 0 when it was compacted or deleted
 * meanwhile and is left alone, -1. */
int section_publish(struct backend *be, const struct block_meta *m, struct err *err);

enum section_match {
	SECTION_OTHER, /* not the commit's: elsewhere, or of another life of the topic */
	SECTION_OPEN,  /* may be: its position is none of the samples' */
	SECTION_SAME,
};
/* Whether the record of this position and time is one of the commit's. */
enum section_match section_commit_match(const struct section_commit *c, uint64_t position,
					uint64_t timestamp_ms);
/* Delete the blocks that it names, which lost or were given up, and free it. What cannot be deleted
 * is logged. */
void section_commit_discard(struct backend *be, struct section_commit *c);

/* What the key of a commit says. */
struct section_name {
	uint64_t first, timestamp_ms;
};
struct section_names {
	struct section_name *v; /* ascending by first, then by time; free() */
	size_t n, cap;
};
/* Add the commits of `source` whose first position is above that of `after` (NULL: all of them) and
 * which are not in *names yet; others of that same position may be added too. */
int section_names_add(struct backend *be, const char *source, const struct section_name *after,
		      struct section_names *names, struct err *err);

/* Called for each visible block of a followed commit. 0, or -1 to stop. */
typedef int section_visit_fn(void *arg, const struct block_meta *m, struct err *err);
/* Step 3 for all blocks of a commit. */
int section_commit_publish(struct backend *be, const struct section_commit *c,
			   section_visit_fn *visit, void *arg, struct err *err);
/* Follow the commits of `source` that hold `from` or what is behind it: publish what a crash left
 * unpublished. *next is the position behind the last commit (or `from` when there is none). Holes
 * between commits were no records. A damaged record is set aside and counts as none: what it
 * covered is published already when another commit follows, and built again from the source when
 * not.
 * 1, with *err: all were read and *next is right, but something could not be written (a full disk):
 * follow again later. Blocks whose meta.json is missing then are visited too, their data is there.
 * -1: the store cannot be read. */
int section_follow(struct backend *be, const char *source, uint64_t from, section_visit_fn *visit,
		   void *arg, uint64_t *next, struct err *err);
/* Delete commits that lie below `before` and are older than age_ns. The newest of those stays, so
 * that a position in its middle is always known to be covered. */
int section_sweep_commits(struct backend *be, const char *source, uint64_t before, uint64_t age_ns,
			  struct err *err);
/* Delete commits of any source that are older than age_ns, but the newest of each: for sources that
 * nobody sweeps any more. Their blocks should be past their retention. *n gets their number. */
int section_sweep_aged(struct backend *be, uint64_t age_ns, size_t *n, struct err *err);
/* Delete the blocks of attempts that crashed before their commit: folders of data, index and
 * bloom-N only, all older than age_ns, that no commit of any source and no compaction names. *n
 * gets their number. */
int section_sweep_orphans(struct backend *be, uint64_t age_ns, size_t *n, struct err *err);
void section_commit_fini(struct section_commit *c);

#endif
