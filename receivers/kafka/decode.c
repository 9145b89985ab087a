/* SPDX-License-Identifier: Apache-2.0
 *
 * decode.c - one record: its tenant, its encoding, its headers as resource attributes.
 *
 * otlp_proto records are copied as they are: several of them joined are one request again. A header
 * that is asked for becomes one more Resource message in each ResourceSpans; protobuf merges it
 * with the one that is there.
 */
#include "base/mem.h"
#include "base/str.h"
#include "pipeline/ingest/transcode.h"
#include "receivers/kafka/receiver.h"
#include "wire/jaeger_json.h"
#include "wire/jaeger_proto.h"
#include "wire/otlp_json_decode.h"
#include "wire/pb.h"
#include "wire/zipkin_json.h"
#include "wire/zipkin_proto.h"
#include "wire/zipkin_thrift.h"

#include <stdio.h>

enum { GROW_MAX = 16, RESOURCE_SPANS = 1, RESOURCE = 1, ATTRIBUTES = 1 };

#define TENANT_HEADER "tenant"

static const struct kafka_receiver_config *conf_of(struct component *c)
{
	return COMPONENT_CONFIG(c, struct kafka_receiver_config);
}

int record_tenant(struct component *c, struct kafka_consumer *k, const struct kafka_message *m,
		  char tenant[TENANT_MAX + 1], struct err *err)
{
	struct bytes name;

	if (!kafka_message_header(k, m, TENANT_HEADER, &name))
		name = bytes_str(c->receiver->tenant);
	if (!tenant_is_valid(name))
		return err_set(err, ERR_INVALID,
			       "header %s: \"%.*s\" is no tenant name: 1 to %d of letters, digits "
			       "and !_.*'()-",
			       TENANT_HEADER, (int)MIN(name.n, (size_t)40), (const char *)name.p,
			       TENANT_MAX);
	memcpy(tenant, name.p, name.n);
	tenant[name.n] = '\0';
	return 0;
}

/* ---- headers ---- */

/* The Resource field of the headers that are asked for; empty when there are none. */
static void resource_of_headers(struct component *c, struct kafka_consumer *k,
				const struct kafka_message *m, struct buf *out)
{
	const struct kafka_receiver_config *conf = conf_of(c);
	size_t resource = 0;

	for (size_t i = 0; conf->extract_headers && i < conf->headers.n; i++) {
		struct bytes value;
		char *name;
		size_t kv, any;

		/* Bytes that are no text would make the spans invalid. */
		if (!kafka_message_header(k, m, conf->headers.items[i], &value) ||
		    !str_is_utf8(value))
			continue;
		if (out->n == 0)
			resource = pb_begin(out, RESOURCE);
		name = xasprintf("kafka.header.%s", conf->headers.items[i]);
		kv = pb_begin(out, ATTRIBUTES);
		pb_put_str(out, 1, name);
		any = pb_begin(out, 2);
		pb_put_bytes(out, 1, value);
		pb_end(out, any);
		pb_end(out, kv);
		free(name);
	}
	if (out->n > 0)
		pb_end(out, resource);
}

/* The record with one more field in each ResourceSpans. -1: its envelope is damaged. */
static int add_resource(struct bytes record, struct bytes resource, struct buf *out)
{
	struct pb_field f;
	int got;

	while ((got = pb_next(&record, &f)) > 0) {
		size_t mark;

		if (f.number != RESOURCE_SPANS || f.wire != PB_LEN) {
			buf_add_bytes(out, f.raw);
			continue;
		}
		mark = pb_begin(out, RESOURCE_SPANS);
		buf_add_bytes(out, f.data);
		buf_add_bytes(out, resource);
		pb_end(out, mark);
	}
	return got;
}

bool record_has_extras(struct component *c)
{
	const struct kafka_receiver_config *conf = conf_of(c);

	return conf->extract_headers && conf->headers.n > 0;
}

/* ---- encodings ---- */

static int decode_otlp_json(struct bytes in, size_t max_bytes, struct arena *arena, struct buf *out,
			    void *arg, struct err *err)
{
	(void)arg;
	return otlp_json_decode(in, max_bytes, arena, out, err);
}

static int decode_zipkin_json(struct bytes in, size_t max_bytes, struct arena *arena,
			      struct buf *out, void *arg, struct err *err)
{
	return zipkin_json_decode(in, max_bytes, false, arena, out, arg, err);
}

static int decode_zipkin_proto(struct bytes in, size_t max_bytes, struct arena *arena,
			       struct buf *out, void *arg, struct err *err)
{
	return zipkin_proto_decode(in, max_bytes, false, arena, out, arg, err);
}

static int decode_zipkin_thrift(struct bytes in, size_t max_bytes, struct arena *arena,
				struct buf *out, void *arg, struct err *err)
{
	return zipkin_thrift_decode(in, max_bytes, false, arena, out, arg, err);
}

/* A record is one model.Span. */
static void take_jaeger_result(struct zipkin_result *to, const struct jaeger_result *from)
{
	to->n_ok = from->n_ok;
	to->n_bad = from->n_bad;
	memcpy(to->first_bad, from->first_bad, sizeof(from->first_bad));
}

static int decode_jaeger_proto(struct bytes in, size_t max_bytes, struct arena *arena,
			       struct buf *out, void *arg, struct err *err)
{
	struct jaeger_result res;
	int rc = jaeger_proto_span(in, max_bytes, arena, out, &res, err);

	take_jaeger_result(arg, &res);
	return rc;
}

static int decode_jaeger_json(struct bytes in, size_t max_bytes, struct arena *arena,
			      struct buf *out, void *arg, struct err *err)
{
	struct jaeger_result res;
	int rc = jaeger_json_span(in, max_bytes, arena, out, &res, err);

	take_jaeger_result(arg, &res);
	return rc;
}

/* How an encoding becomes OTLP bytes; arg is a struct zipkin_result. NULL: OTLP bytes as it
 * is. */
static const transcode_fn decoders[] = {
	[INPUT_OTLP_JSON] = decode_otlp_json,
	[INPUT_ZIPKIN_JSON] = decode_zipkin_json,
	[INPUT_ZIPKIN_PROTO] = decode_zipkin_proto,
	[INPUT_ZIPKIN_THRIFT] = decode_zipkin_thrift,
	[INPUT_JAEGER_PROTO] = decode_jaeger_proto,
	[INPUT_JAEGER_JSON] = decode_jaeger_json,
};

static struct rcbuf *copy(struct bytes b, struct budget *budget, struct err *err)
{
	struct rcbuf *r = rcbuf_new(budget, MAX(b.n, (size_t)1));

	if (r == NULL) {
		err_set(err, ERR_EXHAUSTED, "memory budget: no room for a record of %zu bytes",
			b.n);
		return NULL;
	}
	if (b.n > 0)
		memcpy(r->p, b.p, b.n);
	r->n = b.n;
	return r;
}

static struct rcbuf *decode_other(struct component *c, struct bytes value, uint32_t *n_bad,
				  char first_bad[192], struct err *err)
{
	struct budget *budget = component_budget(c);
	struct rcbuf *body = copy(value, budget, err), *otlp;
	struct zipkin_result res = { 0 };
	struct transcode t = { decoders[conf_of(c)->encoding], &res, GROW_MAX };

	if (body == NULL)
		return NULL;
	otlp = transcode_body(&t, body, budget, err);
	if (otlp == NULL)
		return NULL;
	*n_bad = (uint32_t)MIN(res.n_bad, (size_t)UINT32_MAX);
	snprintf(first_bad, 192, "%.191s", res.first_bad);
	if (res.n_ok > 0 || res.n_bad == 0)
		return otlp;
	rcbuf_unref(otlp);
	err_set(err, ERR_INVALID, "%s", res.first_bad);
	return NULL;
}

struct rcbuf *record_decode(struct component *c, struct kafka_consumer *k,
			    const struct kafka_message *m, uint32_t *n_bad, char first_bad[192],
			    struct err *err)
{
	struct buf resource = BUF_INIT, joined = BUF_INIT;
	struct rcbuf *otlp, *with;

	*n_bad = 0;
	first_bad[0] = '\0';
	otlp = m->value.n == 0 || conf_of(c)->encoding == INPUT_OTLP_PROTO
		       ? copy(m->value, component_budget(c), err)
		       : decode_other(c, m->value, n_bad, first_bad, err);
	if (otlp == NULL || otlp->n == 0)
		return otlp;
	resource_of_headers(c, k, m, &resource);
	if (resource.n > 0) {
		bool is_whole = add_resource((struct bytes){ otlp->p, otlp->n },
					     buf_bytes(&resource), &joined) == 0;

		rcbuf_unref(otlp);
		with = is_whole ? copy(buf_bytes(&joined), component_budget(c), err) : NULL;
		if (!is_whole)
			err_set(err, ERR_INVALID, "request: damaged envelope");
		otlp = with;
	}
	buf_fini(&resource);
	buf_fini(&joined);
	return otlp;
}
