/* SPDX-License-Identifier: Apache-2.0
 *
 * flush.h - every metrics_flush_interval, and once more at the end, all rows go on as OTLP metrics.
 *
 *   thread: resources by tenant -> rows -> buffer --512 KiB, 3,000 points--> batch -> emit
 *                                                                              |
 *   delta: refused, try again <------------- retryable ----------------------- settled
 *
 * A flush has a thread of its own, because 100,000 rows are some 100 ms of work, which no loop may
 * be kept from its sockets for. Totals since the start need no second attempt: the next flush has
 * them. Deltas would be lost: their bytes are kept and go first at the next flush, as long as they
 * are less than an eighth of the budget; then the oldest is dropped, counted, and said in the log.
 * OWNERSHIP: counted; a batch under way holds a share, so that its verdict may come at any time.
 */
#ifndef CONNECTORS_SPANMETRICS_FLUSH_H
#define CONNECTORS_SPANMETRICS_FLUSH_H

#include "connectors/spanmetrics/connector.h"

enum { FLUSH_POINTS = 3000, FLUSH_BYTES = 512 * 1024, FLUSH_BUDGET_PART = 8 };

struct flusher;

/* In start. -1: no thread. */
int flusher_start(struct component *c, struct err *err);
/* Flush now, out of turn. Returns at once. */
void flusher_flush(struct flusher *f);
/* Flush now and then no more. Returns at once. */
void flusher_finish(struct flusher *f);
/* That flush is over, and what it sent is settled. */
bool flusher_is_finished(struct flusher *f);
/* Ends the thread, without another flush. NULL is fine. */
void flusher_stop(struct flusher *f);
/* Append flushes, points, and what was lost of them. */
void flusher_metrics(struct flusher *f, const char *id, struct buf *out);

#endif
