/* SPDX-License-Identifier: Apache-2.0
 *
 * probe.h - does what we promise hold? Takes the exemplars that were exposed, asks for their traces
 * by id, and counts whether the trace holds the span.
 *
 *   probe_exposed --> fresh --(rate)--> ask --> found: ok
 *                               ^        |--> not found: again after PROBE_AGAIN, until `wait` has
 *                               |        |    passed since the first such answer: partial, missing
 *                     again <---+--------'--> no answer, or an incomplete one: again
 *
 * Asked is the query extension of this process (pipeline/span/lookup.h), or the query API at
 * `endpoint` (probe_http.h); without either nothing runs. With a broker between, a durable span is
 * found only once the consumer has read it: hence `wait`. Those found only when asked again are ok,
 * and counted as late. Who does not answer is asked more and more seldom; what was not answered for
 * PROBE_PATIENCE is skipped.
 *
 * OWNERSHIP, THREADS: one thread of its own, which begins with the first exemplar; probe_exposed is
 * for any thread, takes a short lock and waits for nothing.
 * LIMITS: PROBE_WAITING exemplars wait; more are counted as skipped and not asked for.
 * SPEC: INTERFACE "Exemplars"; reference/sampling-exemplars.md 4.5 E7.
 */
#ifndef CONNECTORS_SPANMETRICS_PROBE_H
#define CONNECTORS_SPANMETRICS_PROBE_H

#include "pipeline/component.h"
#include "pipeline/conf/error.h"

enum { PROBE_WAITING = 16384 };
#define PROBE_AGAIN_NS UINT64_C(1000000000)      /* between two questions for one exemplar */
#define PROBE_PATIENCE_NS UINT64_C(600000000000) /* with who does not answer */

struct probe_config {
	char *endpoint;
	double rate; /* questions a second */
	int64_t wait_ns;
};

/* Rows below the owner's key exemplars.probe. */
extern const struct option probe_option_table[];

struct probe;
struct span_lookup;

/* What a row cannot say: to errs. node, path: the connector's; key: "exemplars.probe.endpoint". */
void probe_validate(const struct probe_config *conf, const struct conf_node *node,
		    struct conf_errors *errs, const char *path, const char *key);
/* In start of c. Borrows conf until probe_free. NULL and no error: there is nobody to ask; NULL and
 * *err: libcurl is missing. */
struct probe *probe_new(struct component *c, const struct probe_config *conf, struct err *err);
/* The same with somebody to ask, who is borrowed. */
struct probe *probe_new_asking(struct span_lookup *lookup, const struct probe_config *conf);
/* Ends the thread; a question under way is cut short. NULL is fine. */
void probe_free(struct probe *p);
/* These ids are shown: call it at each flush for each exemplar that is written; what is known
 * already is not looked up again (probe_seen.h). Any thread; NULL is fine. */
void probe_exposed(struct probe *p, const char *tenant, const uint8_t trace_id[16],
		   const uint8_t span_id[8]);
/* Append the families exemplar_probe_*. `connector` is the label's value. NULL is fine. */
void probe_metrics(struct probe *p, const char *connector, struct buf *out);

#endif
