/* SPDX-License-Identifier: Apache-2.0
 *
 * page.h - the store as a page: OpenMetrics or the Prometheus text format.
 *
 * Families one after the other; of a family a slice of a few hundred lines from each shard in turn,
 * each under the shard's lock, so that who writes to a shard waits for one slice.
 * THREADS: one page, or sweep, at a time per store. LIMITS: the buffer's cap or meter: then
 * out->overflow, and what is in it is no page.
 * SPEC: OpenMetrics 1.0; the Prometheus text format 0.0.4 and 1.0.0.
 */
#ifndef EXPORTERS_PROMETHEUS_PAGE_H
#define EXPORTERS_PROMETHEUS_PAGE_H

#include "exporters/prometheus/accept.h"
#include "exporters/prometheus/store.h"

struct page_options {
	struct page_form form;
	bool timestamps;    /* of samples; exemplars always have theirs */
	bool is_scrape;     /* exemplars that are shown count as seen */
	uint64_t expire_ns; /* series that are older are not shown; 0: all are */
};

void page_write(struct store *s, const struct page_options *o, struct buf *out);

#endif
