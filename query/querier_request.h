/* SPDX-License-Identifier: Apache-2.0
 *
 * querier_request.h - which part of a query node's places another node asks for: the parameters of
 * GET /querier/api/traces/<id>.
 *
 *   mode=all|ingesters|blocks   everything (default), live data, blocks
 *   blockStart, blockEnd        of the blocks: those with an id from here to there, both included
 *   maxListAge                  ours, milliseconds: the list of blocks must be no older than that
 * THREADS: the request's loop. SPEC: Tempo's querier; docs/decisions/041.
 */
#ifndef QUERY_QUERIER_REQUEST_H
#define QUERY_QUERIER_REQUEST_H

#include "net/http_request.h"
#include "query/trace_places.h"

/* INVALID names the parameter and its value. */
int querier_request_parse(struct http_request *req, struct trace_request *r, struct err *err);

#endif
