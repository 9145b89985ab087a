/* SPDX-License-Identifier: Apache-2.0
 *
 * zipkin_json_values.c - see zipkin_json_values.h.
 */
#include "wire/zipkin_json_values.h"

#include "base/str.h"

int zipkin_json_id(struct bytes hex, uint8_t *id, size_t n)
{
	char padded[32];

	if (hex.n == 2 * n)
		return str_unhex(hex, id, n);
	if (hex.n == 0 || hex.n > 2 * n)
		return -1;
	memset(padded, '0', sizeof(padded));
	memcpy(padded + 2 * n - hex.n, hex.p, hex.n);
	return str_unhex((struct bytes){ (const uint8_t *)padded, 2 * n }, id, n);
}

int zipkin_json_us(const struct json_value *v, uint64_t *us)
{
	double x = 0;

	*us = 0;
	if (json_reader_u64(v, us) == 0)
		return 0;
	if (json_reader_double(v, &x) < 0)
		return -1;
	if (x > 0 && x < 1)
		*us = 1;
	else if (x >= 1 && x < 1e18)
		*us = (uint64_t)x;
	return 0;
}

bool zipkin_json_scalar(const struct json_value *v, struct bytes *out)
{
	switch (v->kind) {
	case JSON_STRING:
	case JSON_NUMBER:
		*out = v->text;
		return true;
	case JSON_TRUE:
		*out = BYTES_LIT("true");
		return true;
	case JSON_FALSE:
		*out = BYTES_LIT("false");
		return true;
	default:
		return false;
	}
}

int zipkin_json_endpoint(struct json_reader *r, struct zipkin_span_endpoint *ep,
			 struct json_value *bad, struct err *err)
{
	struct json_value m;
	uint64_t port = 0;
	int rc = 0;

	*ep = (struct zipkin_span_endpoint){ 0 };
	while ((rc = json_reader_member(r, &m, err)) > 0) {
		if (JSON_KEY_IS(&m, "serviceName") && m.kind == JSON_STRING) {
			*bad = m;
			if (m.bad_utf8)
				return 1;
			ep->service = m.text;
		} else if ((JSON_KEY_IS(&m, "ipv4") || JSON_KEY_IS(&m, "ipv6")) &&
			   m.kind == JSON_STRING) {
			zipkin_span_endpoint_ip(ep, m.text);
		} else if (JSON_KEY_IS(&m, "port")) {
			ep->port = 0;
			if (json_reader_u64(&m, &port) == 0 && port <= 65535)
				ep->port = (uint16_t)port;
			if (json_reader_skip(r, &m, err) < 0)
				return -1;
		} else if (json_reader_skip(r, &m, err) < 0) {
			return -1;
		}
	}
	return rc;
}

bool zipkin_json_is_blank(struct bytes s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] != ' ' && s.p[i] != '\t' && s.p[i] != '\r' && s.p[i] != '\n')
			return false;
	return true;
}

enum zipkin_span_kind zipkin_json_kind(struct bytes s)
{
	if (str_eq_nocase(s, "CLIENT"))
		return ZIPKIN_KIND_CLIENT;
	if (str_eq_nocase(s, "SERVER"))
		return ZIPKIN_KIND_SERVER;
	if (str_eq_nocase(s, "PRODUCER"))
		return ZIPKIN_KIND_PRODUCER;
	if (str_eq_nocase(s, "CONSUMER"))
		return ZIPKIN_KIND_CONSUMER;
	return ZIPKIN_KIND_NONE;
}
