/* SPDX-License-Identifier: Apache-2.0
 *
 * gen_payload.c - see gen_payload.h.
 *
 * DESIGN: three steps that know little of each other: the tree of a trace (who calls whom, when),
 * the attributes of a span as a list, and two encoders that write both. What a span says beyond its
 * tree comes from a generator seeded with its id, so nothing has to be kept.
 */
#include "cmd/gen_payload.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "wire/json_writer.h"
#include "wire/pb.h"

#include <stdarg.h>
#include <stdio.h>

enum { TEXT_BYTES = 256 * 1024, SCRATCH = 8192 };

#define SEED_STEP UINT64_C(0x9e3779b97f4a7c15)

static const char *const service_names[] = { "frontend", "checkout", "cart",      "catalog",
					     "payment",  "shipping", "inventory", "recommendation",
					     "currency", "email",    "pricing",   "fraud" };
static const char *const paths[] = { "POST /checkout",     "POST /orders",         "GET /cart/{id}",
				     "GET /products/{id}", "POST /charge",         "POST /quote",
				     "GET /stock/{sku}",   "GET /recommendations", "GET /rates",
				     "POST /send",         "GET /price/{sku}",     "POST /score" };
static const char *const queries[] = { "SELECT shop.orders", "INSERT shop.orders",
				       "SELECT shop.products", "UPDATE shop.stock" };
static const char *const steps[] = { "validate input", "render page", "compute total",
				     "sign token" };
static const char *const produced[] = { "orders publish", "mail publish" };
static const char *const consumed[] = { "orders process", "mail process" };

char *gen_payload_text(uint64_t seed)
{
	static const char *const words[] = { "order",  "item",    "shipped", "pending", "total",
					     "coupon", "user",    "region",  "retry",   "cache",
					     "stock",  "refused", "gold",    "eu-west", "step" };
	char *text = xmalloc(TEXT_BYTES + 1);
	struct rng r;
	size_t n = 0;

	rng_seed(&r, seed);
	while (n < TEXT_BYTES) {
		const char *w = words[rng_below(&r, COUNT_OF(words))];
		int got = snprintf(text + n, TEXT_BYTES + 1 - n, "%s %u ", w,
				   (unsigned)rng_below(&r, 100000));

		n += (size_t)got;
	}
	text[TEXT_BYTES] = '\0';
	return text;
}

/* ---- the tree ---- */

static uint64_t part(struct rng *r, uint64_t whole, double low, double high)
{
	return (uint64_t)((double)whole * (low + (high - low) * rng_unit(r)));
}

static void store_id(struct rng *r, uint8_t *out, size_t n)
{
	for (size_t i = 0; i < n; i += 8)
		store_be64(out + i, rng_next(r) | (i + 8 == n));
}

static void call_service(const struct gen_shape *s, struct rng *r, struct gen_span *sp)
{
	sp->kind = SPAN_CLIENT;
	sp->topic = GEN_HTTP;
	sp->peer = (sp->service + 1 + (uint32_t)rng_below(r, s->services - 1)) % s->services;
	sp->name = paths[sp->peer % COUNT_OF(paths)];
}

static void publish(const struct gen_shape *s, struct rng *r, struct gen_span *sp)
{
	call_service(s, r, sp);
	sp->kind = SPAN_PRODUCER;
	sp->topic = GEN_MESSAGES;
	sp->name = produced[sp->peer % COUNT_OF(produced)];
}

static void query_database(struct rng *r, struct gen_span *sp)
{
	sp->kind = SPAN_CLIENT;
	sp->topic = GEN_DATABASE;
	sp->peer = sp->service;
	sp->name = queries[rng_below(r, COUNT_OF(queries))];
	sp->has_callee = true;
}

static void compute(struct rng *r, struct gen_span *sp)
{
	sp->kind = SPAN_INTERNAL;
	sp->topic = GEN_LOCAL;
	sp->name = steps[rng_below(r, COUNT_OF(steps))];
}

/* The other side of a client or producer span. */
static void answer(struct gen_span *sp, struct gen_span *caller)
{
	bool is_call = caller->kind == SPAN_CLIENT;

	caller->has_callee = true;
	sp->service = caller->peer;
	sp->kind = is_call ? SPAN_SERVER : SPAN_CONSUMER;
	sp->topic = caller->topic;
	sp->name = is_call ? caller->name : consumed[sp->service % COUNT_OF(consumed)];
}

static void choose_work(const struct gen_shape *s, struct rng *r, bool first, struct gen_span *sp,
			struct gen_span *parent)
{
	uint64_t dice = rng_below(r, 100);

	sp->service = parent->service;
	if (parent->kind == SPAN_CLIENT || parent->kind == SPAN_PRODUCER)
		answer(sp, parent);
	else if (s->services > 1 && (first || dice < 40))
		call_service(s, r, sp);
	else if (s->services > 1 && dice < 50)
		publish(s, r, sp);
	else if (dice < 75)
		query_database(r, sp);
	else
		compute(r, sp);
}

/* Within the parent: a callee in the middle of its caller, other children one after the other, the
 * shorter the more there are. */
static void place(const struct gen_shape *s, struct rng *r, struct gen_span *sp,
		  struct gen_span *parent)
{
	bool is_callee = sp->kind == SPAN_SERVER || sp->kind == SPAN_CONSUMER;
	double scale = MIN(1.0, 40.0 / s->spans_per_trace);
	uint64_t room = parent->end_ns - parent->cursor_ns;

	sp->start_ns = parent->cursor_ns + part(r, room, 0.02 * scale, 0.12 * scale);
	room = parent->end_ns - sp->start_ns;
	sp->end_ns = sp->start_ns + (is_callee ? part(r, room, 0.8, 0.98)
					       : part(r, room, 0.2 * scale, 0.6 * scale));
	sp->cursor_ns = sp->start_ns;
	parent->cursor_ns = sp->end_ns;
}

/* One of the last few spans, so that calls follow each other, or any: large traces grow broad. */
static uint32_t choose_parent(struct rng *r, const struct gen_span *spans, uint32_t i)
{
	uint32_t p = i - 1;

	if (i >= 3 && rng_below(r, 4) == 0)
		p = (uint32_t)rng_below(r, i);
	else if (i >= 3)
		p -= (uint32_t)rng_below(r, MIN(i, 5));
	return spans[p].has_callee ? spans[p].parent : p;
}

static void make_root(const struct gen_shape *s, struct rng *r, uint64_t now_ns,
		      struct gen_span *root)
{
	store_id(r, root->trace_id, 16);
	store_id(r, root->span_id, 8);
	root->name = paths[0];
	root->kind = SPAN_SERVER;
	root->topic = GEN_HTTP;
	root->end_ns = now_ns;
	root->start_ns = now_ns - 20 * NS_PER_MS - rng_below(r, 400 * NS_PER_MS) -
			 s->spans_per_trace * 20 * NS_PER_US;
	root->cursor_ns = root->start_ns;
}

void gen_payload_trace(const struct gen_shape *s, uint64_t number, uint64_t now_ns,
		       struct gen_span *spans)
{
	struct rng r;

	rng_seed(&r, s->seed + number * SEED_STEP);
	memset(spans, 0, s->spans_per_trace * sizeof(*spans));
	make_root(s, &r, now_ns, &spans[0]);
	for (uint32_t i = 1; i < s->spans_per_trace; i++) {
		struct gen_span *sp = &spans[i], *parent;

		sp->parent = choose_parent(&r, spans, i);
		parent = &spans[sp->parent];
		memcpy(sp->trace_id, parent->trace_id, 16);
		memcpy(sp->parent_id, parent->span_id, 8);
		store_id(&r, sp->span_id, 8);
		choose_work(s, &r, i == 1, sp, parent);
		place(s, &r, sp, parent);
	}
	for (uint32_t i = 0; i < s->spans_per_trace; i++) {
		spans[i].has_error = rng_below(&r, 100) < 5;
		spans[i].has_event = rng_below(&r, 100) < 12;
	}
}

static void name_service(uint32_t service, char *out, size_t size)
{
	if (service < COUNT_OF(service_names))
		snprintf(out, size, "%s", service_names[service]);
	else
		snprintf(out, size, "service-%u", service);
}

/* ---- what a span says ---- */

enum value_kind { VALUE_TEXT, VALUE_INT, VALUE_BOOL, VALUE_DOUBLE, VALUE_TAGS };

struct attribute {
	const char *key;
	enum value_kind kind;
	struct bytes text;
	int64_t number; /* INT, BOOL */
	double real;
};

struct attributes {
	struct attribute v[GEN_ATTRIBUTES_MAX];
	size_t n, limit;
	char scratch[SCRATCH]; /* keys and texts made here */
	size_t used;
};

static const char *const tags[] = { "gold", "returning" };

/* Attributes past the limit are dropped. */
static void add(struct attributes *a, struct attribute at)
{
	if (a->n < a->limit)
		a->v[a->n++] = at;
}

static void add_text(struct attributes *a, const char *key, const char *text)
{
	add(a, (struct attribute){ .key = key, .kind = VALUE_TEXT, .text = bytes_str(text) });
}

static void add_int(struct attributes *a, const char *key, int64_t v)
{
	add(a, (struct attribute){ .key = key, .kind = VALUE_INT, .number = v });
}

/* Text that lives as long as the list; "" when the memory for it is full. */
static const char *PRINTF_LIKE(2, 3) text_of(struct attributes *a, const char *fmt, ...)
{
	size_t room = sizeof(a->scratch) - a->used;
	char *at = a->scratch + a->used;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(at, room, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= room)
		return "";
	a->used += (size_t)n + 1;
	return at;
}

static void describe_http(struct attributes *a, struct rng *r, const struct gen_span *sp)
{
	static const char *const methods[] = { "GET", "POST", "PUT", "DELETE" };
	static const int codes[] = { 200, 200, 201, 204, 404 };

	add_text(a, "http.request.method", methods[rng_below(r, COUNT_OF(methods))]);
	add_text(a, "url.path",
		 text_of(a, "/api/v1/%s/%06u", service_names[sp->service % COUNT_OF(service_names)],
			 (unsigned)rng_below(r, 1000000)));
	add_int(a, "http.response.status_code",
		sp->has_error ? 500 : codes[rng_below(r, COUNT_OF(codes))]);
	add_text(a, "server.address", "orders.shop.svc.cluster.local");
	add_int(a, "server.port", 8080 + (int64_t)rng_below(r, 4));
}

static void describe_database(struct attributes *a, struct rng *r, const struct gen_span *sp)
{
	add_text(a, "db.system.name", "postgresql");
	add_text(a, "db.namespace", "shop");
	add_text(a, "db.query.text",
		 text_of(a, "SELECT id, total FROM orders WHERE id = %u",
			 (unsigned)rng_below(r, 1000000)));
	add_int(a, "db.response.returned_rows", sp->has_error ? 0 : (int64_t)rng_below(r, 50));
	add_int(a, "server.port", 5432);
}

static void describe_messages(struct attributes *a, struct rng *r)
{
	add_text(a, "messaging.system", "kafka");
	add_text(a, "messaging.destination.name", "orders");
	add_int(a, "messaging.destination.partition.id", (int64_t)rng_below(r, 64));
	add_int(a, "messaging.kafka.offset", (int64_t)rng_below(r, UINT64_C(1) << 40));
}

static void describe_customer(struct attributes *a, struct rng *r)
{
	add_text(a, "enduser.id",
		 text_of(a, "user-%08x-%08x", (unsigned)rng_next(r), (unsigned)rng_next(r)));
	add(a, (struct attribute){
		       .key = "app.cart.total", .kind = VALUE_DOUBLE, .real = rng_unit(r) * 100 });
	add(a, (struct attribute){ .key = "app.cache.hit",
				   .kind = VALUE_BOOL,
				   .number = (int64_t)rng_below(r, 2) });
	add(a, (struct attribute){ .key = "app.tags", .kind = VALUE_TAGS });
	for (unsigned i = 0; a->n < a->limit; i++)
		add_text(a, text_of(a, "app.attribute.%u", i),
			 text_of(a, "%u", (unsigned)rng_below(r, 1000000)));
}

/* Bytes of a span in OTLP up to here; exact but for what is not in the list. */
static size_t encoded_size(const struct attributes *a, const struct gen_span *sp)
{
	size_t n = 72 + strlen(sp->name);

	for (size_t i = 0; i < a->n; i++) {
		const struct attribute *at = &a->v[i];

		n += 6 + strlen(at->key) +
		     (at->kind == VALUE_TEXT     ? at->text.n + 2
		      : at->kind == VALUE_DOUBLE ? 9
		      : at->kind == VALUE_TAGS   ? 23
						 : 3);
	}
	return n;
}

/* The last attribute fills the span up. */
static void fill_up(const struct gen_shape *s, struct attributes *a, struct rng *r,
		    const struct gen_span *sp)
{
	static const char key[] = "app.note";
	size_t used = encoded_size(a, sp) + sizeof(key) + 10;
	size_t n = s->span_bytes > used ? s->span_bytes - used : 1;
	struct attribute note = { .key = key, .kind = VALUE_TEXT };

	note.text = (struct bytes){ (const uint8_t *)s->text + rng_below(r, TEXT_BYTES - n), n };
	a->limit++;
	add(a, note);
}

static void describe(const struct gen_shape *s, const struct gen_span *sp, struct attributes *a)
{
	struct rng r;

	a->n = a->used = 0;
	a->limit = s->attributes > 0 ? s->attributes - 1 : 0;
	rng_seed(&r, load_be64(sp->span_id));
	if (sp->topic == GEN_HTTP)
		describe_http(a, &r, sp);
	else if (sp->topic == GEN_DATABASE)
		describe_database(a, &r, sp);
	else if (sp->topic == GEN_MESSAGES)
		describe_messages(a, &r);
	describe_customer(a, &r);
	if (s->attributes > 0)
		fill_up(s, a, &r, sp);
}

/* ---- OTLP ---- */

static void put_text(struct buf *out, uint32_t number, const char *key, const char *text)
{
	size_t kv = pb_begin(out, number), any;

	pb_put_str(out, 1, key);
	any = pb_begin(out, 2);
	pb_put_str(out, 1, text);
	pb_end(out, any);
	pb_end(out, kv);
}

static void put_tags(struct buf *out)
{
	size_t array = pb_begin(out, 5);

	for (size_t i = 0; i < COUNT_OF(tags); i++) {
		size_t one = pb_begin(out, 1);

		pb_put_str(out, 1, tags[i]);
		pb_end(out, one);
	}
	pb_end(out, array);
}

static void put_attribute(struct buf *out, uint32_t number, const struct attribute *a)
{
	size_t kv = pb_begin(out, number), any;

	pb_put_str(out, 1, a->key);
	any = pb_begin(out, 2);
	if (a->kind == VALUE_TEXT)
		pb_put_bytes(out, 1, a->text);
	else if (a->kind == VALUE_DOUBLE)
		pb_put_double(out, 4, a->real);
	else if (a->kind == VALUE_TAGS)
		put_tags(out);
	else
		pb_put_uint(out, a->kind == VALUE_BOOL ? 2 : 3, (uint64_t)a->number);
	pb_end(out, any);
	pb_end(out, kv);
}

static void put_event(struct buf *out, const struct gen_span *sp)
{
	size_t event = pb_begin(out, 11);

	pb_put_fixed64(out, 1, sp->start_ns + (sp->end_ns - sp->start_ns) / 2);
	pb_put_str(out, 2, sp->has_error ? "exception" : "cache.miss");
	if (sp->has_error)
		put_text(out, 3, "exception.type", "PaymentRefused");
	put_text(out, 3, "cache.key", "order:4711");
	pb_end(out, event);
}

static void put_span(const struct gen_shape *s, const struct gen_span *sp, struct attributes *a,
		     struct buf *out)
{
	static const uint8_t no_parent[8];
	size_t span = pb_begin(out, 2), status;

	pb_put_bytes(out, 1, (struct bytes){ sp->trace_id, 16 });
	pb_put_bytes(out, 2, (struct bytes){ sp->span_id, 8 });
	if (memcmp(sp->parent_id, no_parent, 8) != 0)
		pb_put_bytes(out, 4, (struct bytes){ sp->parent_id, 8 });
	pb_put_str(out, 5, sp->name);
	pb_put_uint(out, 6, sp->kind);
	pb_put_fixed64(out, 7, sp->start_ns);
	pb_put_fixed64(out, 8, sp->end_ns);
	describe(s, sp, a);
	for (size_t i = 0; i < a->n; i++)
		put_attribute(out, 9, &a->v[i]);
	if (sp->has_event)
		put_event(out, sp);
	if (sp->has_error) {
		status = pb_begin(out, 15);
		pb_put_str(out, 2, "payment refused");
		pb_put_uint(out, 3, STATUS_ERROR);
		pb_end(out, status);
	}
	pb_put_fixed32(out, 16, 0x101); /* sampled; is_remote known and false */
	pb_end(out, span);
}

static void put_resource(struct buf *out, uint32_t service)
{
	size_t resource = pb_begin(out, 1);
	char name[32], text[64];

	name_service(service, name, sizeof(name));
	put_text(out, 1, "service.name", name);
	put_text(out, 1, "service.version", "1.4.2");
	snprintf(text, sizeof(text), "%s-6d8f7c9b5-%05u", name, service);
	put_text(out, 1, "k8s.pod.name", text);
	put_text(out, 1, "k8s.namespace.name", "shop");
	put_text(out, 1, "deployment.environment.name", "load-test");
	put_text(out, 1, "telemetry.sdk.name", "spanmill");
	put_text(out, 1, "telemetry.sdk.language", "c");
	pb_end(out, resource);
}

static void put_service(const struct gen_shape *s, uint32_t service, const struct gen_span *spans,
			size_t n, struct attributes *a, struct buf *out)
{
	size_t rs = pb_begin(out, 1), ss, scope;

	put_resource(out, service);
	ss = pb_begin(out, 2);
	scope = pb_begin(out, 1);
	pb_put_str(out, 1, "spanmill.gen");
	pb_put_str(out, 2, SPANMILL_VERSION);
	pb_end(out, scope);
	for (size_t i = 0; i < n; i++)
		if (spans[i].service == service)
			put_span(s, &spans[i], a, out);
	pb_end(out, ss);
	pb_end(out, rs);
}

void gen_payload_otlp(const struct gen_shape *s, const struct gen_span *spans, size_t n,
		      struct buf *out)
{
	bool has[GEN_SERVICES_MAX] = { false };
	struct attributes a;

	for (size_t i = 0; i < n; i++)
		has[spans[i].service] = true;
	for (uint32_t service = 0; service < s->services; service++)
		if (has[service])
			put_service(s, service, spans, n, &a, out);
}

/* ---- Zipkin ---- */

static void write_tag(struct json_writer *w, const struct attribute *a)
{
	char text[32];

	json_writer_key(w, a->key);
	if (a->kind == VALUE_TEXT) {
		json_writer_bytes(w, a->text);
		return;
	}
	if (a->kind == VALUE_DOUBLE)
		snprintf(text, sizeof(text), "%.17g", a->real);
	else if (a->kind == VALUE_TAGS)
		snprintf(text, sizeof(text), "%s,%s", tags[0], tags[1]);
	else if (a->kind == VALUE_BOOL)
		snprintf(text, sizeof(text), "%s", a->number ? "true" : "false");
	else
		snprintf(text, sizeof(text), "%lld", (long long)a->number);
	json_writer_str(w, text);
}

static void write_tags(const struct gen_shape *s, const struct gen_span *sp, struct attributes *a,
		       struct json_writer *w)
{
	describe(s, sp, a);
	json_writer_key(w, "tags");
	json_writer_object(w);
	for (size_t i = 0; i < a->n; i++)
		write_tag(w, &a->v[i]);
	if (sp->has_error) {
		json_writer_key(w, "error");
		json_writer_str(w, "payment refused");
	}
	json_writer_object_end(w);
}

static void write_annotation(const struct gen_span *sp, struct json_writer *w)
{
	json_writer_key(w, "annotations");
	json_writer_array(w);
	json_writer_object(w);
	json_writer_key(w, "timestamp");
	json_writer_u64(w, (sp->start_ns + (sp->end_ns - sp->start_ns) / 2) / NS_PER_US);
	json_writer_key(w, "value");
	json_writer_str(w, "cache.miss");
	json_writer_object_end(w);
	json_writer_array_end(w);
}

static void write_ids(const struct gen_span *sp, struct json_writer *w)
{
	static const uint8_t no_parent[8];

	json_writer_key(w, "traceId");
	json_writer_hex(w, (struct bytes){ sp->trace_id, 16 });
	json_writer_key(w, "id");
	json_writer_hex(w, (struct bytes){ sp->span_id, 8 });
	if (memcmp(sp->parent_id, no_parent, 8) != 0) {
		json_writer_key(w, "parentId");
		json_writer_hex(w, (struct bytes){ sp->parent_id, 8 });
	}
}

static void write_endpoint(uint32_t service, struct json_writer *w)
{
	char name[32];

	name_service(service, name, sizeof(name));
	json_writer_key(w, "localEndpoint");
	json_writer_object(w);
	json_writer_key(w, "serviceName");
	json_writer_str(w, name);
	json_writer_object_end(w);
}

static void write_span(const struct gen_shape *s, const struct gen_span *sp, struct attributes *a,
		       struct json_writer *w)
{
	static const char *const kinds[] = {
		[SPAN_SERVER] = "SERVER",
		[SPAN_CLIENT] = "CLIENT",
		[SPAN_PRODUCER] = "PRODUCER",
		[SPAN_CONSUMER] = "CONSUMER",
	};

	json_writer_object(w);
	write_ids(sp, w);
	if (kinds[sp->kind] != NULL) {
		json_writer_key(w, "kind");
		json_writer_str(w, kinds[sp->kind]);
	}
	json_writer_key(w, "name");
	json_writer_str(w, sp->name);
	json_writer_key(w, "timestamp");
	json_writer_u64(w, sp->start_ns / NS_PER_US);
	json_writer_key(w, "duration");
	json_writer_u64(w, MAX((sp->end_ns - sp->start_ns) / NS_PER_US, 1));
	write_endpoint(sp->service, w);
	write_tags(s, sp, a, w);
	if (sp->has_event)
		write_annotation(sp, w);
	json_writer_object_end(w);
}

void gen_payload_zipkin(const struct gen_shape *s, const struct gen_span *spans, size_t n,
			struct buf *out)
{
	struct json_writer w = JSON_WRITER(out);
	struct attributes a;

	json_writer_array(&w);
	for (size_t i = 0; i < n; i++)
		write_span(s, &spans[i], &a, &w);
	json_writer_array_end(&w);
}
