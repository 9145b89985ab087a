/* SPDX-License-Identifier: Apache-2.0
 *
 * encoding.c - see encoding.h.
 */
#include "exporters/kafka/encoding.h"

#include "wire/otlp_json_encode.h"
#include "wire/zipkin_encode.h"

static int encode_otlp_json(enum otlp_signal signal, struct bytes otlp, size_t max_bytes,
			    struct buf *out, struct err *err)
{
	return otlp_json_encode_items(signal, &otlp, 1, OTLP_JSON, max_bytes, out, err);
}

static int encode_zipkin_proto(enum otlp_signal signal, struct bytes otlp, size_t max_bytes,
			       struct buf *out, struct err *err)
{
	(void)signal;
	return zipkin_encode_request(otlp, ZIPKIN_PROTO, max_bytes, out, err);
}

static int encode_zipkin_json(enum otlp_signal signal, struct bytes otlp, size_t max_bytes,
			      struct buf *out, struct err *err)
{
	(void)signal;
	return zipkin_encode_request(otlp, ZIPKIN_JSON, max_bytes, out, err);
}

static const kafka_encode_fn encoders[] = {
	[ENCODING_OTLP_JSON] = encode_otlp_json,
	[ENCODING_ZIPKIN_PROTO] = encode_zipkin_proto,
	[ENCODING_ZIPKIN_JSON] = encode_zipkin_json,
};

kafka_encode_fn kafka_encoding_fn(int encoding)
{
	return encoders[encoding];
}

bool kafka_encoding_is_usable(int encoding, bool is_traces)
{
	return encoding <= ENCODING_OTLP_JSON || (is_traces && encoders[encoding] != NULL);
}
