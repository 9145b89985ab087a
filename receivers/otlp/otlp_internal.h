/* SPDX-License-Identifier: Apache-2.0
 *
 * otlp_internal.h - what the files of the otlp receiver share.
 */
#ifndef RECEIVERS_OTLP_INTERNAL_H
#define RECEIVERS_OTLP_INTERNAL_H

#include "pipeline/listen/grpc.h"
#include "pipeline/listen/http.h"
#include "pipeline/ingest/ingest.h"

struct otlp_http_config {
	struct http_server_options server;
	const char *traces_path, *metrics_path, *logs_path;
};

struct otlp_config {
	bool grpc_on, http_on;
	struct grpc_server_options grpc;
	struct otlp_http_config http;
};

struct otlp_http;

struct otlp_state {
	struct grpc_listener *grpc; /* NULL: off, or stopped */
	struct otlp_http *http;
	struct transport_counters *grpc_count[OTLP_SIGNALS], *http_count[OTLP_SIGNALS];
};

/* Listen for Export of the signals that have a pipeline. NULL with *err. */
struct grpc_listener *otlp_grpc_start(struct component *c, struct err *err);

/* The HTTP server: start, drain, is_drained and free as the component's callbacks (component.h);
 * NULL is an idle one. */
struct otlp_http *otlp_http_start(struct component *c, struct err *err);
void otlp_http_drain(struct otlp_http *h);
bool otlp_http_is_drained(const struct otlp_http *h);
void otlp_http_free(struct otlp_http *h);

/* Append the response of a signal's Export for a success: empty, or partial_success with what was
 * rejected (a message without a count is not sent). */
void otlp_response_encode(enum otlp_signal signal, const struct ingest_answer *a, bool json,
			  struct buf *out);
/* Append a google.rpc.Status. */
void otlp_status_encode(enum grpc_status code, const char *message, bool json, struct buf *out);

#endif
