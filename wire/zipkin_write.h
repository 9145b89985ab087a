/* SPDX-License-Identifier: Apache-2.0
 *
 * zipkin_write.h - a struct zipkin_span as Zipkin v2 JSON or protobuf.
 *
 * SPEC: zipkin2-api.yaml, zipkin.proto. Any thread; a buffer with a cap shows overflow as ever.
 */
#ifndef WIRE_ZIPKIN_WRITE_H
#define WIRE_ZIPKIN_WRITE_H

#include "wire/zipkin_span.h"

/* Append one JSON object. Trace ids whose high half is zero have 16 digits. */
void zipkin_write_json(const struct zipkin_span *sp, struct buf *out);
/* Append one ListOfSpans.spans field. Trace ids have 16 bytes: the Collector takes no others. */
void zipkin_write_proto(const struct zipkin_span *sp, struct buf *out);

#endif
