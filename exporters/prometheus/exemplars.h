/* SPDX-License-Identifier: Apache-2.0
 *
 * exemplars.h - the exemplars that one series shows: one per bucket, held until it was seen.
 *
 *   slot {key: bucket}: shown -> (scraped never or twice, or older than 120 s) -> the newest of now
 *
 * DESIGN: a scraper that comes now and then must find what another saw (two Prometheis, or a lost
 * answer), so an exemplar stays for two scrapes. It never goes back in time, since Prometheus
 * refuses an exemplar that is older than the one it has of the series.
 * OWNERSHIP, THREADS: of the series, under its shard's lock.
 * LIMITS: EXEMPLAR_SLOTS a series; labels as OpenMetrics bounds them.
 * SPEC: OpenMetrics 1.0 "Exemplars".
 */
#ifndef EXPORTERS_PROMETHEUS_EXEMPLARS_H
#define EXPORTERS_PROMETHEUS_EXEMPLARS_H

#include "base/base.h"

enum { EXEMPLAR_SLOTS = 64, EXEMPLAR_SCRAPES = 2, EXEMPLAR_CODE_POINTS = 128 };
#define EXEMPLAR_AGE_NS UINT64_C(120000000000)

/* One that came. */
struct exemplar_offer {
	int32_t key; /* of the slot: a bucket's index, an octave, 0 of a counter */
	uint64_t time_ms;
	double value;
	struct bytes labels; /* as they stand between the braces */
};

struct exemplar;

struct exemplar_slot {
	int32_t key;
	uint32_t n_scrapes;            /* of `shown` */
	uint64_t since_ns;             /* clock_mono_ns when it was first shown */
	struct exemplar *shown, *next; /* next may be NULL */
};

struct exemplars {
	uint32_t n, room;
	struct exemplar_slot *slots; /* by key */
	size_t bytes;                /* held, this struct apart */
};

struct exemplar {
	uint64_t time_ms;
	double value;
	uint32_t n_labels;
	char labels[];
};

/* Take it, or leave it when it is no newer than what is there. */
void exemplars_offer(struct exemplars *x, const struct exemplar_offer *o, uint64_t now_ns);
/* What slot `key` shows now; NULL: nothing. is_scrape: an OpenMetrics scraper will see it. */
const struct exemplar *exemplars_show(struct exemplars *x, int32_t key, bool is_scrape,
				      uint64_t now_ns);
/* The same of the slot with the greatest key up to `key`. */
const struct exemplar *exemplars_show_up_to(struct exemplars *x, int32_t key, bool is_scrape,
					    uint64_t now_ns);
void exemplars_fini(struct exemplars *x);

#endif
