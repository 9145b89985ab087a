/* SPDX-License-Identifier: Apache-2.0
 *
 * api.h - the query port's HTTP API: Tempo's trace by id (v1, v2), echo, buildinfo, readiness,
 * flush.
 *
 *   GET  /api/traces/<id>      200 {"batches": ...}, 206 when incomplete, 404 when every place was
 *     asked, 400 bad id, 422 over max_trace_bytes, 503 not now (memory, or nothing found and not
 *     every place could be asked)
 *   GET  /api/v2/traces/<id>   200 always when it works: {"trace": ..., "metrics": ..., "status":
 *     "PARTIAL", "message": ...}, also over max_trace_bytes
 *        Accept: application/protobuf: tempopb; ?format=otlp: OTLP/JSON with hex ids
 *   GET  /querier/api/traces/<id>, /querier/api/v2/traces/<id>   what other query nodes ask
 *     (querier_request.h): as /api/v2/traces/<id>, and the header X-Spanmill-Live-Ms (peers.h)
 *   GET  /api/echo, /api/status/buildinfo, /ready
 *   GET  /api/search..., /api/v2/search/..., /api/metrics/...   404 with a word on what there is
 *   POST /flush                cut open sections; answers when their blocks are visible
 *
 * Look-ups block on disk and run on pool threads; the loop only parses and answers. One flush runs
 * at a time, and one more serves all who asked meanwhile. What look-ups and unsent answers hold is
 * charged to the budget (query_memory.h).
 * THREADS: everything on the server's loop but for the work. SPEC: reference/tempo-api.md 2.1, 2.2;
 * INTERFACE "Query".
 */
#ifndef QUERY_API_H
#define QUERY_API_H

#include "net/http_server.h"
#include "query/query_memory.h"
#include "query/trace_places.h"

#include <pthread.h>
#include <stdatomic.h>

struct flush;

struct query_api {
	struct trace_places places;
	size_t max_trace_bytes;
	struct query_memory memory;
	/* False with a reason while the process starts or stops: look-ups would miss traces. Any
	 * thread. */
	bool (*is_running)(void *arg, char *why, size_t why_size);
	/* False then, and while a component cannot do its work: what /ready says. Any thread. */
	bool (*is_ready)(void *arg, char *why, size_t why_size);
	void *arg;
	_Atomic int jobs; /* under way on pool threads: wait for 0 before the loop stops */
	_Atomic uint64_t found, not_found, failed;
	pthread_mutex_t flush_lock;
	struct flush *flushing, *waiting; /* lists: served by the flush under way, by the next */
};

enum { QUERY_ROUTES = 12 };

void query_api_init(struct query_api *api);
/* When no job is under way. */
void query_api_fini(struct query_api *api);
/* The route table for http_server_new; `api` must outlive the server and all jobs. */
void query_api_routes(struct query_api *api, struct http_route routes[QUERY_ROUTES]);

#endif
