/* SPDX-License-Identifier: Apache-2.0
 *
 * grpc_status.h - gRPC status codes and the three header values they travel in.
 *
 * Pure functions, any thread.
 * SPEC: gRPC over HTTP/2 (PROTOCOL-HTTP2.md), google.rpc.Status, google.rpc.RetryInfo; the
 * retryable codes are those of the OTLP specification.
 */
#ifndef NET_GRPC_STATUS_H
#define NET_GRPC_STATUS_H

#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"

enum grpc_status {
	GRPC_OK = 0,
	GRPC_CANCELLED = 1,
	GRPC_UNKNOWN = 2,
	GRPC_INVALID_ARGUMENT = 3,
	GRPC_DEADLINE_EXCEEDED = 4,
	GRPC_NOT_FOUND = 5,
	GRPC_ALREADY_EXISTS = 6,
	GRPC_PERMISSION_DENIED = 7,
	GRPC_RESOURCE_EXHAUSTED = 8,
	GRPC_FAILED_PRECONDITION = 9,
	GRPC_ABORTED = 10,
	GRPC_OUT_OF_RANGE = 11,
	GRPC_UNIMPLEMENTED = 12,
	GRPC_INTERNAL = 13,
	GRPC_UNAVAILABLE = 14,
	GRPC_DATA_LOSS = 15,
	GRPC_UNAUTHENTICATED = 16,
};

/* Longest message put in a header; longer ones are cut. */
enum { GRPC_MESSAGE_MAX = 1024 };

/* "UNAVAILABLE"; "UNKNOWN" for a number that is no code. */
const char *grpc_status_name(enum grpc_status status);
/* May the same request be sent again? `has_retry_info`: the answer carried a RetryInfo. */
bool grpc_status_is_retryable(enum grpc_status status, bool has_retry_info);
/* The status that a receiver answers for an error of ours (STYLE section 4), and back. */
enum grpc_status grpc_status_of_err(const struct err *err);
/* The status of an answer without grpc-status, from its HTTP status. */
enum grpc_status grpc_status_of_http(unsigned http_status);

/* grpc-message: percent-encoding of everything but printable ASCII without '%'. */
void grpc_status_encode_message(const char *message, struct buf *out);
/* Never fails: what is no escape stays as it is. */
void grpc_status_decode_message(struct bytes in, struct buf *out);

/* grpc-status-details-bin: base64 of Status{status, message, [RetryInfo{retry_after_ms}]}. */
void grpc_status_encode_details(enum grpc_status status, const char *message,
				uint32_t retry_after_ms, struct buf *out);
/* The RetryInfo of a details header (base64, at most 8 KiB). 1 and *retry_after_ms (0 is "at
 * once"), 0 when there is none, -1 when the header is damaged. */
int grpc_status_decode_details(struct bytes in, uint32_t *retry_after_ms);

/* grpc-timeout: up to 8 digits and one of H M S m u n. 0 and nanoseconds, or -1. */
int grpc_status_parse_timeout(struct bytes in, uint64_t *timeout_ns);
/* The shortest form that is not longer than timeout_ns, NUL-terminated. */
void grpc_status_format_timeout(uint64_t timeout_ns, char out[16]);

#endif
