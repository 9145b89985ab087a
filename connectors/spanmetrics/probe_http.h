/* SPDX-License-Identifier: Apache-2.0
 *
 * probe_http.h - a query API elsewhere (Spanmill's or Tempo's) as a struct span_lookup:
 * GET <endpoint>/api/traces/<id> as protobuf, with X-Scope-OrgID.
 *
 *   200 the whole trace   206 not every place was asked   404 no span of it   422 too large
 *   anything else, and an answer that is no trace: not known
 *
 * THREADS: one at a time asks; the call ends within a second or so once *is_gone, which must be the
 * same for all calls. LIMITS: an answer of 64 MiB, charged to the budget while it is looked at.
 * SPEC: reference/tempo-api.md 2.1.
 */
#ifndef CONNECTORS_SPANMETRICS_PROBE_HTTP_H
#define CONNECTORS_SPANMETRICS_PROBE_HTTP_H

#include "base/budget.h"
#include "pipeline/span/lookup.h"

/* A URL (http, https) or host:port. INVALID says what is wrong with it. */
int probe_http_check(const char *endpoint, struct err *err);
/* endpoint is copied, budget (may be NULL) and is_gone are borrowed. NULL and *err: libcurl is
 * missing. */
struct span_lookup *probe_http_new(const char *endpoint, struct budget *budget,
				   const _Atomic bool *is_gone, struct err *err);
void probe_http_free(struct span_lookup *l); /* NULL is fine */

#endif
