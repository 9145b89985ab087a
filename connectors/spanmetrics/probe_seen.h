/* SPDX-License-Identifier: Apache-2.0
 *
 * probe_seen.h - which exemplars the prober knows already: an exemplar is written at every flush as
 * long as it is shown, and looked up once.
 *
 * Two sets of fingerprints. What is seen goes to the current one; when that is full it becomes the
 * previous one, and the one before is forgotten. What is shown at each flush therefore stays known
 * as long as no more than PROBE_SEEN are shown at a time; beyond that some are looked up again.
 *
 * THREADS: the caller's lock. LIMITS: 2 MiB.
 */
#ifndef CONNECTORS_SPANMETRICS_PROBE_SEEN_H
#define CONNECTORS_SPANMETRICS_PROBE_SEEN_H

#include "base/base.h"

enum { PROBE_SEEN = 65536 };

struct fingerprints {
	uint64_t *v; /* open addressing; 0: free */
	size_t n, cap;
};

struct probe_seen {
	struct fingerprints current, previous;
	uint64_t seed; /* random, once used: ids come from outside */
};

/* True the first time. */
bool probe_seen_is_new(struct probe_seen *s, const uint8_t trace_id[16], const uint8_t span_id[8]);
void probe_seen_fini(struct probe_seen *s);

#endif
