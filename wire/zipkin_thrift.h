/* SPDX-License-Identifier: Apache-2.0
 *
 * zipkin_thrift.h - Zipkin v1 spans in thrift (zipkincore.Span) to OTLP protobuf bytes.
 *
 * Two ways in. zipkin_thrift_decode is the body of POST /api/v1/spans (and a Kafka record): a list
 * in the binary protocol without a message around it. zipkin_thrift_read_list is for who has a
 * thrift reader standing on such a list already, as the argument of Jaeger's
 * `emitZipkinBatch(1: list<zipkincore.Span> spans)` over UDP, in either protocol:
 *
 *	thrift_message(&r, &m);			the caller's
 *	thrift_struct(&r);			the arguments
 *	while (thrift_field(&r, &f))
 *		if (f.id == 1 && f.type == THRIFT_LIST)
 *			zipkin_thrift_read_list(&r, &z);
 *		else
 *			thrift_skip(&r, f.type);
 *	rc = zipkin_thrift_finish(&r, &z, out, err);
 *
 * A span with unusable ids or text is passed over and named; damage is an error of the whole.
 * LIMITS: those of wire/thrift.h; the output by max_bytes.
 * SPEC: zipkinCore.thrift; docs/formats/zipkin.md ("Version 1"). One thread at a time.
 */
#ifndef WIRE_ZIPKIN_THRIFT_H
#define WIRE_ZIPKIN_THRIFT_H

#include "base/arena.h"
#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"
#include "wire/thrift.h"
#include "wire/zipkin_result.h"
#include "wire/zipkin_v1.h"

/* One reading, from init to finish; the caller looks at nothing but result. */
struct zipkin_thrift {
	struct zipkin_span_batch batch;
	struct zipkin_v1_span v1;
	struct zipkin_span_room room;
	size_t position; /* in the list */
	struct zipkin_result *result;
};

/* max_bytes of OTLP, 0: no limit; *result is emptied; scratch goes to arena, whose meter is
 * charged. */
void zipkin_thrift_init(struct zipkin_thrift *z, size_t max_bytes, struct arena *arena,
			struct zipkin_result *result);
/* Read the list r stands on, to its end or to damage (which r remembers). Several lists add up. */
void zipkin_thrift_read_list(struct thrift_reader *r, struct zipkin_thrift *z);
/* Append the ExportTraceServiceRequest to out, unless r found damage, and free what z has. 0 (also
 * when every span was bad), or -1 with out as it was: ERR_INVALID, ERR_TOO_LARGE, ERR_EXHAUSTED. */
int zipkin_thrift_finish(const struct thrift_reader *r, struct zipkin_thrift *z, struct buf *out,
			 struct err *err) MUST_CHECK;

/* A whole body, as zipkin_json_decode (wire/zipkin_json.h); an empty one is zero spans. Bytes
 * behind the list are not looked at. The element type STRING (11), an old reporter's error, is read
 * as struct. */
int zipkin_thrift_decode(struct bytes list, size_t max_bytes, bool typed_tags, struct arena *arena,
			 struct buf *out, struct zipkin_result *result, struct err *err) MUST_CHECK;

#endif
