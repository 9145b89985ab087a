/* SPDX-License-Identifier: Apache-2.0
 *
 * cors.h - what browsers ask before a page of another origin may send spans.
 *
 * THREADS: any; everything is borrowed and nothing kept.
 * SPEC: the Collector's `cors` keys (rs/cors: origins with one '*', credentials allowed); the Fetch
 * standard, 3.2.
 */
#ifndef PIPELINE_LISTEN_CORS_H
#define PIPELINE_LISTEN_CORS_H

#include "net/http_server.h"
#include "pipeline/option/blocks.h"

/* Answer an OPTIONS with Access-Control-Request-Method: 204, whatever it asks for; what it may do
 * is in the headers (none: nothing). False when it is no preflight or nothing is configured. */
bool http_cors_answers_preflight(const struct http_cors_options *o, struct http_request *req);
/* The headers of any answer. */
void http_cors_decorate(const struct http_cors_options *o, const struct http_request *req,
			struct http_headers *to);
/* May this be a header's name? */
bool http_cors_is_field(const char *name);
/* For validate: reports at `key` of node. */
void http_cors_check(const struct http_cors_options *o, const struct conf_node *node,
		     const char *key, struct conf_errors *errs, const char *yaml_path);

#endif
