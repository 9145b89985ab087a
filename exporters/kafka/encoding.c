/* SPDX-License-Identifier: Apache-2.0
 *
 * encoding.c - see encoding.h.
 */
#include "exporters/kafka/encoding.h"

#include "wire/jaeger_encode.h"
#include "wire/jaeger_json.h"
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

static int encode_jaeger_proto(enum otlp_signal signal, struct bytes otlp, size_t max_bytes,
			       struct buf *out, struct err *err)
{
	size_t before = out->n;

	(void)signal;
	if (jaeger_encode_span(otlp, out, err) < 0)
		return -1;
	if (max_bytes == 0 || out->n - before <= max_bytes)
		return 0;
	out->n = before;
	return err_set(err, ERR_TOO_LARGE, "jaeger: the span is larger than %zu bytes", max_bytes);
}

static int encode_jaeger_json(enum otlp_signal signal, struct bytes otlp, size_t max_bytes,
			      struct buf *out, struct err *err)
{
	struct buf span = BUF_INIT;
	size_t before = out->n;
	int rc;

	(void)signal;
	rc = jaeger_encode_span(otlp, &span, err);
	if (rc == 0)
		rc = jaeger_json_encode(buf_bytes(&span), out, err);
	buf_fini(&span);
	if (rc < 0 || max_bytes == 0 || out->n - before <= max_bytes)
		return rc;
	out->n = before;
	return err_set(err, ERR_TOO_LARGE, "jaeger json: the span is larger than %zu bytes",
		       max_bytes);
}

static const kafka_encode_fn encoders[] = {
	[ENCODING_OTLP_JSON] = encode_otlp_json,     [ENCODING_JAEGER_PROTO] = encode_jaeger_proto,
	[ENCODING_JAEGER_JSON] = encode_jaeger_json, [ENCODING_ZIPKIN_PROTO] = encode_zipkin_proto,
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

bool kafka_encoding_is_of_one_span(int encoding)
{
	return encoding == ENCODING_JAEGER_PROTO || encoding == ENCODING_JAEGER_JSON;
}
