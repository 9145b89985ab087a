/* SPDX-License-Identifier: Apache-2.0
 *
 * grpc_status.c - see grpc_status.h.
 *
 * DESIGN: the protobuf in grpc-status-details-bin is three small messages with five fields, written
 * and read by hand: net/ must not know wire/, and protobuf-c would bring a generated file for it.
 * LIMITS: messages are cut at GRPC_MESSAGE_MAX, details headers above DETAILS_MAX are damaged.
 */
#include "net/grpc_status.h"

#include "base/clock.h"
#include "base/str.h"

#include <stdio.h>

enum { DETAILS_MAX = 8192 };

static const char retry_info_type[] = "type.googleapis.com/google.rpc.RetryInfo";

const char *grpc_status_name(enum grpc_status status)
{
	static const char *const names[] = {
		"OK",
		"CANCELLED",
		"UNKNOWN",
		"INVALID_ARGUMENT",
		"DEADLINE_EXCEEDED",
		"NOT_FOUND",
		"ALREADY_EXISTS",
		"PERMISSION_DENIED",
		"RESOURCE_EXHAUSTED",
		"FAILED_PRECONDITION",
		"ABORTED",
		"OUT_OF_RANGE",
		"UNIMPLEMENTED",
		"INTERNAL",
		"UNAVAILABLE",
		"DATA_LOSS",
		"UNAUTHENTICATED",
	};

	return (unsigned)status < COUNT_OF(names) ? names[status] : "UNKNOWN";
}

bool grpc_status_is_retryable(enum grpc_status status, bool has_retry_info)
{
	switch (status) {
	case GRPC_CANCELLED:
	case GRPC_DEADLINE_EXCEEDED:
	case GRPC_ABORTED:
	case GRPC_OUT_OF_RANGE:
	case GRPC_UNAVAILABLE:
	case GRPC_DATA_LOSS:
		return true;
	case GRPC_RESOURCE_EXHAUSTED:
		return has_retry_info;
	default:
		return false;
	}
}

enum grpc_status grpc_status_of_err(const struct err *err)
{
	switch (err->kind) {
	case ERR_NONE:
		return GRPC_OK;
	case ERR_INVALID:
		return GRPC_INVALID_ARGUMENT;
	case ERR_TOO_LARGE:
		return GRPC_RESOURCE_EXHAUSTED;
	case ERR_EXHAUSTED:
	case ERR_UNAVAILABLE:
	case ERR_TIMEOUT:
		/* A spent budget and a deadline that is near are UNAVAILABLE with RetryInfo:
		 * clients give up on the other two codes. */
		return GRPC_UNAVAILABLE;
	case ERR_NOT_FOUND:
		return GRPC_NOT_FOUND;
	case ERR_EXISTS:
		return GRPC_ALREADY_EXISTS;
	case ERR_PERMISSION:
		return GRPC_PERMISSION_DENIED;
	case ERR_UNIMPLEMENTED:
		return GRPC_UNIMPLEMENTED;
	default:
		return err->retryable ? GRPC_UNAVAILABLE : GRPC_INTERNAL;
	}
}

enum grpc_status grpc_status_of_http(unsigned http_status)
{
	switch (http_status) {
	case 400:
		return GRPC_INTERNAL;
	case 401:
		return GRPC_UNAUTHENTICATED;
	case 403:
		return GRPC_PERMISSION_DENIED;
	case 404:
		return GRPC_UNIMPLEMENTED;
	case 429:
	case 502:
	case 503:
	case 504:
		return GRPC_UNAVAILABLE;
	default:
		return GRPC_UNKNOWN;
	}
}

/* ---- grpc-message ---- */

void grpc_status_encode_message(const char *message, struct buf *out)
{
	static const char hex[] = "0123456789ABCDEF";

	for (size_t i = 0; i < GRPC_MESSAGE_MAX && message[i] != '\0'; i++) {
		uint8_t c = (uint8_t)message[i];

		if (c >= ' ' && c <= '~' && c != '%') {
			buf_add_char(out, (char)c);
		} else {
			buf_add_char(out, '%');
			buf_add_char(out, hex[c >> 4]);
			buf_add_char(out, hex[c & 15]);
		}
	}
}

void grpc_status_decode_message(struct bytes in, struct buf *out)
{
	uint8_t c;

	for (size_t i = 0; i < in.n; i++) {
		if (in.p[i] == '%' && in.n - i > 2 &&
		    str_unhex((struct bytes){ in.p + i + 1, 2 }, &c, 1) == 0) {
			buf_add_char(out, (char)c);
			i += 2;
		} else {
			buf_add_char(out, (char)in.p[i]);
		}
	}
}

/* ---- protobuf of Status and RetryInfo ---- */

/* One decoded field: wire types 0 and 2 are kept, 1 and 5 are skipped over. */
struct field {
	uint64_t number, varint;
	unsigned wire_type;
	struct bytes data;
};

static void add_varint(struct buf *b, uint64_t v)
{
	for (; v >= 0x80; v >>= 7)
		buf_add_char(b, (char)(v | 0x80));
	buf_add_char(b, (char)v);
}

static void add_uint(struct buf *b, unsigned number, uint64_t v)
{
	if (v == 0)
		return;
	add_varint(b, (uint64_t)number << 3);
	add_varint(b, v);
}

static void add_bytes(struct buf *b, unsigned number, struct bytes s)
{
	add_varint(b, (uint64_t)number << 3 | 2);
	add_varint(b, s.n);
	buf_add_bytes(b, s);
}

static int next_varint(struct bytes *in, uint64_t *v)
{
	*v = 0;
	for (unsigned shift = 0; shift < 64 && in->n > 0; shift += 7) {
		uint8_t c = in->p[0];

		in->p++;
		in->n--;
		*v |= (uint64_t)(c & 0x7f) << shift;
		if ((c & 0x80) == 0)
			return 0;
	}
	return -1;
}

/* 1 and *f, 0 at the end, -1 damaged. */
static int next_field(struct bytes *in, struct field *f)
{
	uint64_t tag, n = 0;

	if (in->n == 0)
		return 0;
	if (next_varint(in, &tag) < 0)
		return -1;
	memset(f, 0, sizeof(*f));
	f->number = tag >> 3;
	f->wire_type = tag & 7;
	if (f->wire_type == 0)
		return next_varint(in, &f->varint) < 0 ? -1 : 1;
	if (f->wire_type == 1 || f->wire_type == 5)
		n = f->wire_type == 1 ? 8 : 4;
	else if (f->wire_type != 2 || next_varint(in, &n) < 0)
		return -1;
	if (n > in->n)
		return -1;
	f->data = (struct bytes){ in->p, (size_t)n };
	in->p += n;
	in->n -= (size_t)n;
	return 1;
}

void grpc_status_encode_details(enum grpc_status status, const char *message,
				uint32_t retry_after_ms, struct buf *out)
{
	struct buf duration = BUF_INIT, info = BUF_INIT, any = BUF_INIT, st = BUF_INIT;
	size_t len = strnlen(message, GRPC_MESSAGE_MAX);
	char *to;

	add_uint(&duration, 1, retry_after_ms / 1000);
	add_uint(&duration, 2, (uint64_t)(retry_after_ms % 1000) * NS_PER_MS);
	add_bytes(&info, 1, buf_bytes(&duration));
	add_bytes(&any, 1, BYTES_LIT(retry_info_type));
	add_bytes(&any, 2, buf_bytes(&info));
	add_uint(&st, 1, status);
	add_bytes(&st, 2, (struct bytes){ (const uint8_t *)message, len });
	if (retry_after_ms > 0)
		add_bytes(&st, 3, buf_bytes(&any));
	to = (char *)buf_reserve(out, 4 * ((st.n + 2) / 3) + 1);
	out->n += str_base64(st.p, st.n, to);
	buf_fini(&duration);
	buf_fini(&info);
	buf_fini(&any);
	buf_fini(&st);
}

/* RetryInfo{1: Duration{1 seconds, 2 nanos}}; negative and absurd durations are cut to [0, 1 day].
 */
static int decode_retry_info(struct bytes info, uint32_t *ms)
{
	uint64_t seconds = 0, nanos = 0;
	struct field f, d;
	int rc, rc2;

	while ((rc = next_field(&info, &f)) > 0) {
		if (f.number != 1 || f.wire_type != 2)
			continue;
		while ((rc2 = next_field(&f.data, &d)) > 0) {
			if (d.number == 1 && d.wire_type == 0)
				seconds = d.varint;
			else if (d.number == 2 && d.wire_type == 0)
				nanos = d.varint;
		}
		if (rc2 < 0)
			return -1;
	}
	if ((int64_t)seconds < 0 || (int64_t)nanos < 0)
		seconds = nanos = 0;
	*ms = (uint32_t)(MIN(seconds, 86400) * 1000 + MIN(nanos, NS_PER_S - 1) / NS_PER_MS);
	return rc;
}

/* One Any: 1 when it is a RetryInfo. */
static int decode_any(struct bytes any, uint32_t *ms)
{
	struct bytes type = BYTES_EMPTY, value = BYTES_EMPTY;
	struct field f;
	int rc;

	while ((rc = next_field(&any, &f)) > 0) {
		if (f.number == 1 && f.wire_type == 2)
			type = f.data;
		else if (f.number == 2 && f.wire_type == 2)
			value = f.data;
	}
	if (rc < 0)
		return -1;
	if (!bytes_eq(type, BYTES_LIT(retry_info_type)))
		return 0;
	return decode_retry_info(value, ms) < 0 ? -1 : 1;
}

int grpc_status_decode_details(struct bytes in, uint32_t *retry_after_ms)
{
	uint8_t raw[3 * (DETAILS_MAX / 4) + 3];
	struct bytes rest = { raw, 0 };
	struct field f;
	long n;
	int rc, found = 0;

	if (in.n > DETAILS_MAX)
		return -1;
	n = str_unbase64(in, raw);
	if (n < 0)
		return -1;
	rest.n = (size_t)n;
	while (found == 0 && (rc = next_field(&rest, &f)) != 0) {
		if (rc < 0)
			return -1;
		if (f.number == 3 && f.wire_type == 2)
			found = decode_any(f.data, retry_after_ms);
	}
	return found;
}

/* ---- grpc-timeout ---- */

static const struct {
	char unit;
	uint64_t ns;
} units[] = {
	{ 'n', 1 },        { 'u', NS_PER_US },     { 'm', NS_PER_MS },
	{ 'S', NS_PER_S }, { 'M', 60 * NS_PER_S }, { 'H', 3600 * NS_PER_S },
};

int grpc_status_parse_timeout(struct bytes in, uint64_t *timeout_ns)
{
	uint64_t v;

	if (in.n < 2 || in.n > 9 || str_to_u64((struct bytes){ in.p, in.n - 1 }, &v) < 0)
		return -1;
	for (size_t i = 0; i < COUNT_OF(units); i++)
		if ((char)in.p[in.n - 1] == units[i].unit) {
			/* 99999999 H does not fit: as good as for ever. */
			*timeout_ns =
				v > UINT64_MAX / 4 / units[i].ns ? UINT64_MAX / 4 : v * units[i].ns;
			return 0;
		}
	return -1;
}

void grpc_status_format_timeout(uint64_t timeout_ns, char out[16])
{
	size_t i = 0;

	while (i + 1 < COUNT_OF(units) && timeout_ns / units[i].ns > 99999999)
		i++;
	snprintf(out, 16, "%u%c", (unsigned)MIN(timeout_ns / units[i].ns, 99999999), units[i].unit);
}
