/* SPDX-License-Identifier: Apache-2.0
 *
 * jaeger_thrift.h - Jaeger's Thrift structs, in either protocol, to OTLP protobuf bytes.
 *
 *	UDP    message header, method, arguments {1: Batch}
 *	HTTP   Batch
 *
 * The structs are read with wire/thrift.h into wire/jaeger_span.h's span. A batch that is damaged
 * as Thrift is refused as a whole; a span without ids rejects itself. Fields that are missing
 * are empty, unknown ones are skipped; bytes behind the batch are not looked at.
 * SPEC: jaeger-idl jaeger.thrift, agent.thrift; docs/formats/jaeger.md. Any thread.
 */
#ifndef WIRE_JAEGER_THRIFT_H
#define WIRE_JAEGER_THRIFT_H

#include "wire/jaeger_span.h"
#include "wire/thrift.h"

/* Of the agent's service. */
enum jaeger_method {
	JAEGER_EMIT_BATCH,
	JAEGER_EMIT_ZIPKIN_BATCH, /* list<zipkincore.Span> */
};

/* Read the header of a datagram up to the value of the method's argument: a struct to be given to
 * jaeger_thrift_batch, or a list. -1: damaged, ERR_UNIMPLEMENTED when no such method is known. */
int jaeger_thrift_message(struct thrift_reader *r, enum jaeger_method *method,
			  struct err *err) MUST_CHECK;

/* Append the OTLP form (ExportTraceServiceRequest) of the Batch that r stands before, at most
 * max_bytes of it (0: only out's own cap holds), and fill *result. Scratch goes to arena, which the
 * caller resets, other memory is charged to its meter. 0 (also when every span was bad), or -1 with
 * out as it was: ERR_INVALID, ERR_TOO_LARGE, any error when the meter refused. */
int jaeger_thrift_batch(struct thrift_reader *r, size_t max_bytes, struct arena *arena,
			struct buf *out, struct jaeger_result *result, struct err *err) MUST_CHECK;

#endif
