/* SPDX-License-Identifier: Apache-2.0
 *
 * encoding.h - what a record's value is made of: OTLP protobuf as it is gathered, or written anew
 * from it when the record goes out.
 *
 * SPEC: the Collector's `traces.encoding`; docs/formats/kafka-record.md. Pure functions.
 */
#ifndef EXPORTERS_KAFKA_ENCODING_H
#define EXPORTERS_KAFKA_ENCODING_H

#include "base/buf.h"
#include "base/err.h"
#include "pipeline/batch.h"

enum kafka_encoding {
	ENCODING_OTLP_PROTO,
	ENCODING_OTLP_JSON,
	ENCODING_JAEGER_PROTO,
	ENCODING_JAEGER_JSON,
	ENCODING_ZIPKIN_PROTO,
	ENCODING_ZIPKIN_JSON,
};

/* Append the encoding of an Export...ServiceRequest to out, at most max_bytes of it. 0, or -1 with
 * out as it was: ERR_TOO_LARGE. */
typedef int (*kafka_encode_fn)(enum otlp_signal signal, struct bytes otlp, size_t max_bytes,
			       struct buf *out, struct err *err);

/* NULL: the bytes as they are, with ENCODING_OTLP_PROTO; else not written by us. */
kafka_encode_fn kafka_encoding_fn(int encoding);
/* Can records of this signal have it? */
bool kafka_encoding_is_usable(int encoding, bool is_traces);
/* Does a record hold one span, with its trace id as the key? */
bool kafka_encoding_is_of_one_span(int encoding);

#endif
