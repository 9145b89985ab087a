/* SPDX-License-Identifier: Apache-2.0
 *
 * payload.h - the standard payload of the benches: OTLP trace requests of the shape the issue
 * names, deterministic.
 *
 * A span is about 450 bytes with 10 attributes (strings, integers, a double, a bool, an array of
 * strings); 12.5 % of the spans carry an event, 3 % a link, 5 % an error status, 2 % text that is
 * not ASCII; four spans make a trace. A request has 3 resources of 9 attributes, 1 or 2 scopes
 * each, schema URLs; 224 spans are about 100 KB. Header only, because a bench program is one file.
 * SPEC: opentelemetry-proto trace.proto.
 */
#ifndef TESTS_BENCH_PAYLOAD_H
#define TESTS_BENCH_PAYLOAD_H

#include "base/buf.h"
#include "base/rng.h"
#include "wire/pb.h"

#include <stdio.h>

enum { PAYLOAD_SPANS = 224, PAYLOAD_RESOURCES = 3, PAYLOAD_TRACE_SPANS = 4 };

/* More operations than the payload's three, for benches of what is kept per operation. Set before
 * the first request is made, and before a fork. */
static unsigned payload_operations;

static inline void payload_str(struct buf *out, uint32_t number, const char *key, const char *value)
{
	size_t kv = pb_begin(out, number), any;

	pb_put_str(out, 1, key);
	any = pb_begin(out, 2);
	pb_put_str(out, 1, value);
	pb_end(out, any);
	pb_end(out, kv);
}

/* A varint member: 2 bool_value, 3 int_value. */
static inline void payload_num(struct buf *out, uint32_t number, const char *key, uint32_t member,
			       uint64_t value)
{
	size_t kv = pb_begin(out, number), any;

	pb_put_str(out, 1, key);
	any = pb_begin(out, 2);
	pb_put_uint(out, member, value);
	pb_end(out, any);
	pb_end(out, kv);
}

static inline void payload_double(struct buf *out, uint32_t number, const char *key, double value)
{
	size_t kv = pb_begin(out, number), any;

	pb_put_str(out, 1, key);
	any = pb_begin(out, 2);
	pb_put_double(out, 4, value);
	pb_end(out, any);
	pb_end(out, kv);
}

static inline void payload_tags(struct buf *out, uint32_t number, const char *key)
{
	size_t kv = pb_begin(out, number), any, array, one;
	static const char *const tags[] = { "eu-west", "gold" };

	pb_put_str(out, 1, key);
	any = pb_begin(out, 2);
	array = pb_begin(out, 5);
	for (size_t i = 0; i < COUNT_OF(tags); i++) {
		one = pb_begin(out, 1);
		pb_put_str(out, 1, tags[i]);
		pb_end(out, one);
	}
	pb_end(out, array);
	pb_end(out, any);
	pb_end(out, kv);
}

static inline void payload_attributes(struct buf *out, struct rng *r)
{
	static const char *const methods[] = { "GET", "POST", "PUT", "DELETE" };
	static const uint64_t codes[] = { 200, 201, 204, 404, 500 };
	char text[64];

	payload_str(out, 9, "http.request.method", methods[rng_below(r, 4)]);
	snprintf(text, sizeof(text), "/api/v1/orders/%06u", (unsigned)rng_below(r, 1000000));
	payload_str(out, 9, "url.path", text);
	payload_num(out, 9, "http.response.status_code", 3, codes[rng_below(r, 5)]);
	payload_str(out, 9, "server.address", "orders.shop.svc.cluster.local");
	payload_num(out, 9, "server.port", 3, 8080 + rng_below(r, 4));
	payload_double(out, 9, "app.cart.total", rng_unit(r) * 100);
	payload_num(out, 9, "app.cache.hit", 2, rng_below(r, 2));
	snprintf(text, sizeof(text), "user-%08x-%08x", (unsigned)rng_next(r),
		 (unsigned)rng_next(r));
	payload_str(out, 9, "enduser.id", text);
	payload_tags(out, 9, "app.tags");
	payload_str(out, 9, "app.note",
		    rng_below(r, 50) ? "checkout, step 2 of 3"
				     : "Bestellung \xc3\xbc"
				       "ber 20 \xe2\x82\xac");
}

static inline void payload_event(struct buf *out, uint64_t at_ns)
{
	size_t event = pb_begin(out, 11);

	pb_put_fixed64(out, 1, at_ns);
	pb_put_str(out, 2, "cache.miss");
	payload_str(out, 3, "cache.key", "order:4711");
	pb_end(out, event);
}

static inline void payload_link(struct buf *out, struct rng *r)
{
	size_t link = pb_begin(out, 13);
	uint64_t ids[3] = { rng_next(r), rng_next(r) | 1, rng_next(r) | 1 };

	pb_put_bytes(out, 1, (struct bytes){ (const uint8_t *)ids, 16 });
	pb_put_bytes(out, 2, (struct bytes){ (const uint8_t *)&ids[2], 8 });
	pb_end(out, link);
}

/* One Span field. `trace` has the 16 bytes of the trace id, `parent` 0 makes a root; returns the
 * span id. */
static inline uint64_t payload_span(struct buf *out, struct rng *r, const uint64_t trace[2],
				    uint64_t parent)
{
	static const char *const names[] = { "GET /api/v1/orders/{id}", "SELECT shop.orders",
					     "charge card" };
	uint64_t id = rng_next(r) | 1,
		 start = UINT64_C(1700000000000000000) + rng_below(r, UINT64_C(1) << 40);
	size_t span = pb_begin(out, 2), status;
	char name[48];

	pb_put_bytes(out, 1, (struct bytes){ (const uint8_t *)trace, 16 });
	pb_put_bytes(out, 2, (struct bytes){ (const uint8_t *)&id, 8 });
	if (parent)
		pb_put_bytes(out, 4, (struct bytes){ (const uint8_t *)&parent, 8 });
	if (payload_operations > 0)
		snprintf(name, sizeof(name), "GET /api/v1/orders/{id}/items/%05u",
			 (unsigned)rng_below(r, payload_operations));
	pb_put_str(out, 5, payload_operations > 0 ? name : names[rng_below(r, 3)]);
	pb_put_uint(out, 6, 1 + rng_below(r, 5));
	pb_put_fixed64(out, 7, start);
	pb_put_fixed64(out, 8, start + rng_below(r, 1000000000));
	payload_attributes(out, r);
	if (rng_below(r, 8) == 0)
		payload_event(out, start + 1000);
	if (rng_below(r, 33) == 0)
		payload_link(out, r);
	if (rng_below(r, 20) == 0) {
		status = pb_begin(out, 15);
		pb_put_str(out, 2, "payment refused");
		pb_put_uint(out, 3, 2);
		pb_end(out, status);
	}
	pb_put_fixed32(out, 16, 0x101);
	pb_end(out, span);
	return id;
}

static inline void payload_resource(struct buf *out, unsigned number)
{
	static const char *const keys[] = { "service.namespace",
					    "service.version",
					    "host.name",
					    "k8s.pod.name",
					    "k8s.namespace.name",
					    "telemetry.sdk.name",
					    "telemetry.sdk.language",
					    "deployment.environment.name" };
	size_t resource = pb_begin(out, 1);
	char text[48];

	snprintf(text, sizeof(text), "service-%u", number);
	payload_str(out, 1, "service.name", text);
	for (size_t i = 0; i < COUNT_OF(keys); i++) {
		snprintf(text, sizeof(text), "value-%zu-of-resource-%u", i, number);
		payload_str(out, 1, keys[i], text);
	}
	pb_end(out, resource);
}

static inline void payload_scope(struct buf *out, unsigned number)
{
	size_t scope = pb_begin(out, 1);
	char text[32];

	snprintf(text, sizeof(text), "io.shop.http.%u", number);
	pb_put_str(out, 1, text);
	pb_put_str(out, 2, "1.4.2");
	pb_end(out, scope);
}

static inline void payload_spans(struct buf *out, struct rng *r, uint32_t n)
{
	uint64_t trace[2] = { 0, 0 }, parent = 0;

	for (uint32_t i = 0; i < n; i++) {
		if (i % PAYLOAD_TRACE_SPANS == 0) {
			trace[0] = rng_next(r);
			trace[1] = rng_next(r) | 1;
			parent = 0;
		}
		parent = payload_span(out, r, trace, parent);
	}
}

/* Append one ExportTraceServiceRequest of n_spans spans to out. Equal arguments give equal bytes.
 */
static inline void payload_request(struct buf *out, uint32_t n_spans, uint64_t seed)
{
	uint32_t left = n_spans, n_scopes_left = PAYLOAD_RESOURCES + 1, n;
	struct rng r;

	rng_seed(&r, seed);
	for (unsigned i = 0; i < PAYLOAD_RESOURCES && left > 0; i++) {
		size_t rs = pb_begin(out, 1);

		payload_resource(out, i);
		for (unsigned k = 0; k < (i == 0 ? 2u : 1u) && left > 0; k++) {
			size_t ss = pb_begin(out, 2);

			n = (left + n_scopes_left - 1) / n_scopes_left;
			n_scopes_left--;
			payload_scope(out, k);
			payload_spans(out, &r, n);
			pb_put_str(out, 3, "https://opentelemetry.io/schemas/1.27.0");
			pb_end(out, ss);
			left -= n;
		}
		pb_put_str(out, 3, "https://opentelemetry.io/schemas/1.27.0");
		pb_end(out, rs);
	}
}

#endif
