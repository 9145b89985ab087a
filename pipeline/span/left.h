/* SPDX-License-Identifier: Apache-2.0
 *
 * left.h - what a log that this process closed still holds, so that its successor does not
 * count it once more.
 *
 * The ledger's `held` goes on speaking for these spans while nobody has the log open. What a
 * successor finds in the same directory is in the books already.
 * OWNERSHIP: one table per process, an entry per directory. THREADS: any; a struct span_left
 * belongs to whoever took it.
 */
#ifndef PIPELINE_SPAN_LEFT_H
#define PIPELINE_SPAN_LEFT_H

#include "pipeline/origin.h"

struct span_left {
	uint64_t n;    /* in the books and not met again yet */
	bool is_exact; /* all that the log holds is in the books */
};

/* The log in `dir` is closed with n spans that the ledger counts as held. `is_exact`: and with
 * none that it has not counted. */
void span_left_put(const char *dir, uint64_t n, bool is_exact);
/* The log in `dir` was opened: what was put last, once; else zero, and what is found is new. */
struct span_left span_left_take(const char *dir);
/* As a new process begins: for tests that play one. */
void span_left_forget(void);
/* n spans were found: count the new ones in `books` (ledger_found). Returns how many of them this
 * log answers for. */
uint64_t span_left_found(struct span_left *left, struct ledger *books, uint64_t n);

#endif
