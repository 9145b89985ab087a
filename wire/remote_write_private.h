/* SPDX-License-Identifier: Apache-2.0
 *
 * remote_write_private.h - what remote_write.c and remote_write_point.c share.
 */
#ifndef WIRE_REMOTE_WRITE_PRIVATE_H
#define WIRE_REMOTE_WRITE_PRIVATE_H

#include "wire/pb.h"
#include "wire/remote_write.h"

/* The value of a staleness marker, as bits of a double. */
#define STALE_NAN UINT64_C(0x7ff0000000000002)

/* What the series of one point have in common. */
struct series_value {
	int64_t time_ms;
	bool is_stale; /* no recorded value */
};

/* Append the series of a sound point. False: it was dropped after all, and nothing is appended. */
bool remote_write_point(struct remote_write *w, const struct metrics_reader *r,
			const struct metric_point *p, int64_t time_ms, struct buf *out);

/* ---- of remote_write.c ---- */

/* Count a point that is left out. `what` is wrong with it. */
void remote_write_drop(struct remote_write *w, const struct metric *m, enum remote_write_drop why,
		       const char *what);
/* Put the labels that all series of a point share into w->labels. */
void remote_write_labels(struct remote_write *w, const struct metrics_reader *r,
			 const struct metric_point *p);
/* Append a Sample to w->tail. */
void remote_write_sample(struct remote_write *w, const struct series_value *v, double value);
/* Append a TimeSeries of w->labels and what w->tail has: samples, exemplars, histograms. */
void remote_write_series(struct remote_write *w, struct buf *out);
/* Fields 1 (Label) of a TimeSeries or an Exemplar, and their size. */
size_t remote_write_labels_size(const struct prometheus_labels *l);
uint8_t *remote_write_put_labels(uint8_t *p, const struct prometheus_labels *l);

#endif
