/* SPDX-License-Identifier: Apache-2.0
 *
 * read.c - what came, by whatever way, as a batch.
 *
 *	bytes -> the way's decoder -> OTLP bytes -> batch_from_otlp -> batch, and what was refused
 *
 * LIMITS: memory by the budget, step by step (pipeline/ingest/transcode.h).
 */
#include "receivers/jaeger/jaeger_internal.h"

#include "pipeline/ingest/transcode.h"
#include "wire/jaeger_proto.h"
#include "wire/jaeger_thrift.h"
#include "wire/zipkin_thrift.h"

#include <stdio.h>

/* Of one byte in OTLP: the worst is a reference in five bytes, which makes a link of seventy. */
enum { GROW_MAX = 24 };

static int decode_proto(struct bytes in, size_t max_bytes, struct arena *arena, struct buf *out,
			void *arg, struct err *err)
{
	return jaeger_proto_request(in, max_bytes, arena, out, arg, err);
}

/* A body: the batch itself. */
static int decode_http(struct bytes in, size_t max_bytes, struct arena *arena, struct buf *out,
		       void *arg, struct err *err)
{
	struct thrift_reader r;

	thrift_init(&r, in, THRIFT_BINARY);
	return jaeger_thrift_batch(&r, max_bytes, arena, out, arg, err);
}

/* The counts of Zipkin's reader in our words. */
static void take_result(struct jaeger_result *to, const struct zipkin_result *from)
{
	*to = (struct jaeger_result){ .n_ok = from->n_ok, .n_bad = from->n_bad };
	for (int i = 0; i < ZIPKIN_BAD_MAX; i++) {
		enum jaeger_reason reason = i == ZIPKIN_BAD_TRACE_ID  ? JAEGER_BAD_TRACE_ID
					    : i == ZIPKIN_BAD_SPAN_ID ? JAEGER_BAD_SPAN_ID
								      : JAEGER_BAD_VALUE;

		to->n_bad_by[reason] += from->n_bad_by[i];
	}
	snprintf(to->first_bad, sizeof(to->first_bad), "%.191s", from->first_bad);
}

static int decode_zipkin(struct thrift_reader *r, size_t max_bytes, struct arena *arena,
			 struct buf *out, struct jaeger_result *result, struct err *err)
{
	struct zipkin_result res = { 0 };
	struct zipkin_thrift z;
	int rc;

	zipkin_thrift_init(&z, max_bytes, arena, &res);
	zipkin_thrift_read_list(r, &z);
	rc = zipkin_thrift_finish(r, &z, out, err);
	take_result(result, &res);
	return rc;
}

/* A datagram: a call of a method. */
static int decode_call(struct thrift_reader *r, size_t max_bytes, struct arena *arena,
		       struct buf *out, void *arg, struct err *err)
{
	enum jaeger_method method;

	if (jaeger_thrift_message(r, &method, err) < 0)
		return -1;
	if (method == JAEGER_EMIT_BATCH)
		return jaeger_thrift_batch(r, max_bytes, arena, out, arg, err);
	return decode_zipkin(r, max_bytes, arena, out, arg, err);
}

static int decode_compact(struct bytes in, size_t max_bytes, struct arena *arena, struct buf *out,
			  void *arg, struct err *err)
{
	struct thrift_reader r;

	thrift_init(&r, in, THRIFT_COMPACT);
	return decode_call(&r, max_bytes, arena, out, arg, err);
}

static int decode_binary(struct bytes in, size_t max_bytes, struct arena *arena, struct buf *out,
			 void *arg, struct err *err)
{
	struct thrift_reader r;

	thrift_init(&r, in, THRIFT_BINARY);
	return decode_call(&r, max_bytes, arena, out, arg, err);
}

static const transcode_fn decoders[JAEGER_WAYS] = {
	[JAEGER_WAY_GRPC] = decode_proto,
	[JAEGER_WAY_HTTP] = decode_http,
	[JAEGER_WAY_COMPACT] = decode_compact,
	[JAEGER_WAY_BINARY] = decode_binary,
};

/* ---- what could not be used ---- */

/* The spans that the reader passed over count with those that the index rejected. */
static void merge(struct otlp_rejects *to, const struct jaeger_result *res)
{
	_Static_assert(sizeof(to->first) == sizeof(res->first_bad), "copied as it is");

	if (res->n_bad == 0)
		return;
	to->n += (uint32_t)MIN(res->n_bad, (size_t)UINT32_MAX - to->n);
	memcpy(to->first, res->first_bad, sizeof(to->first));
}

static void note(struct component *c, const struct jaeger_result *res,
		 const struct otlp_rejects *rejects)
{
	struct jaeger_state *st = COMPONENT_STATE(c, struct jaeger_state);

	for (int i = 0; i < JAEGER_BAD_MAX; i++)
		atomic_fetch_add_explicit(&st->bad[i], res->n_bad_by[i], memory_order_relaxed);
	atomic_fetch_add_explicit(&st->bad_refs, res->n_bad_refs, memory_order_relaxed);
	if (rejects->n > 0)
		log_warn("spans refused", "component", c->id, "spans", LOG_NUM(rejects->n), "first",
			 rejects->first);
}

/* When nothing is left it is an error, which names the first. */
static struct batch *judge(struct component *c, enum jaeger_way way, struct batch *b,
			   const struct otlp_rejects *rejects, struct err *err)
{
	struct jaeger_state *st = COMPONENT_STATE(c, struct jaeger_state);

	if (b->tables.n_spans > 0 || rejects->n == 0)
		return b;
	atomic_fetch_add(&st->count[way]->rejected, rejects->n);
	atomic_fetch_add(&st->count[way]->refused, rejects->n);
	batch_unref(b);
	err_set(err, ERR_INVALID, "%s", rejects->first);
	return NULL;
}

static struct batch *to_batch(struct component *c, enum jaeger_way way, struct rcbuf *otlp,
			      const char *tenant, const struct jaeger_result *res,
			      struct otlp_rejects *rejects, struct err *err)
{
	struct otlp_result result = { 0 };
	struct batch *b = NULL;

	if (otlp != NULL)
		b = batch_from_otlp(otlp, tenant, component_budget(c), &result, err);
	if (b == NULL) {
		struct jaeger_state *st = COMPONENT_STATE(c, struct jaeger_state);

		atomic_fetch_add(&st->count[way]->damaged, err->kind == ERR_INVALID);
		return NULL;
	}
	*rejects = result.rejects;
	merge(rejects, res);
	note(c, res, rejects);
	return judge(c, way, b, rejects, err);
}

struct batch *jaeger_read_body(struct component *c, enum jaeger_way way, struct rcbuf *body,
			       const char *tenant, struct otlp_rejects *rejects, struct err *err)
{
	struct jaeger_result res = { 0 };
	const struct transcode t = { decoders[way], &res, GROW_MAX };
	struct rcbuf *otlp = transcode_body(&t, body, component_budget(c), err);

	return to_batch(c, way, otlp, tenant, &res, rejects, err);
}

struct batch *jaeger_read_datagram(struct component *c, enum jaeger_way way, struct bytes data,
				   struct otlp_rejects *rejects, struct err *err)
{
	struct jaeger_result res = { 0 };
	const struct transcode t = { decoders[way], &res, GROW_MAX };
	struct rcbuf *otlp = transcode_bytes(&t, data, component_budget(c), err);

	return to_batch(c, way, otlp, c->receiver->tenant, &res, rejects, err);
}
