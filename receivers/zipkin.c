/* SPDX-License-Identifier: Apache-2.0
 *
 * zipkin.c - receiver of Zipkin spans over HTTP.
 *
 *	(path, content type) -> form -> its decoder -> OTLP bytes -> batch -> http_ingest -> 202
 *
 * A form is one row of the table below: what is posted where, the transport label it counts under,
 * and what reads it.
 * OWNERSHIP, THREADS: those of pipeline/ingest/http.h.
 * LIMITS: the HTTP server block; memory by the budget, before a body is read.
 * SPEC: zipkin2-api.yaml, zipkin.proto, zipkinCore.thrift; docs/formats/zipkin.md; INTERFACE
 * "Receivers' answers".
 */
#include "pipeline/conf/error.h"
#include "pipeline/ingest/http.h"
#include "pipeline/ingest/transcode.h"
#include "wire/zipkin_json.h"
#include "wire/zipkin_proto.h"
#include "wire/zipkin_thrift.h"
#include "wire/zipkin_v1_json.h"

enum { GROW_MAX = 16 };

static const char path_v1[] = "/api/v1/spans", path_v2[] = "/api/v2/spans";

struct zipkin_config {
	struct http_server_options http;
	bool parse_string_tags;
};

/* What a decoder is given beside the bytes, and gives back. */
struct reading {
	bool typed_tags;
	struct zipkin_result result;
};

/* One of the ways spans are posted. */
struct form {
	const char *path;
	const char *type; /* of the content; NULL: any other, or none */
	const char *transport;
	transcode_fn decode; /* arg is a struct reading */
};

static int decode_json_v2(struct bytes in, size_t max_bytes, struct arena *arena, struct buf *out,
			  void *arg, struct err *err)
{
	struct reading *r = arg;

	return zipkin_json_decode(in, max_bytes, r->typed_tags, arena, out, &r->result, err);
}

static int decode_proto_v2(struct bytes in, size_t max_bytes, struct arena *arena, struct buf *out,
			   void *arg, struct err *err)
{
	struct reading *r = arg;

	return zipkin_proto_decode(in, max_bytes, r->typed_tags, arena, out, &r->result, err);
}

static int decode_json_v1(struct bytes in, size_t max_bytes, struct arena *arena, struct buf *out,
			  void *arg, struct err *err)
{
	struct reading *r = arg;

	return zipkin_v1_json_decode(in, max_bytes, r->typed_tags, arena, out, &r->result, err);
}

static int decode_thrift_v1(struct bytes in, size_t max_bytes, struct arena *arena, struct buf *out,
			    void *arg, struct err *err)
{
	struct reading *r = arg;

	return zipkin_thrift_decode(in, max_bytes, r->typed_tags, arena, out, &r->result, err);
}

static const struct form forms[] = {
	{ path_v2, "application/x-protobuf", "http_v2_proto", decode_proto_v2 },
	{ path_v2, NULL, "http_v2_json", decode_json_v2 },
	{ path_v1, "application/x-thrift", "http_v1_thrift", decode_thrift_v1 },
	{ path_v1, NULL, "http_v1_json", decode_json_v1 },
};

struct zipkin_state {
	struct http_listener *listener;
	struct transport_counters *count[COUNT_OF(forms)];
	_Atomic uint64_t bad[ZIPKIN_BAD_MAX];
};

#define C struct zipkin_config
static const struct option zipkin_options[] = {
	OPT_INCLUDE(C, http, struct http_server_options, http_server_option_table),
	OPT_DEFAULT("endpoint", "localhost:9411"),
	OPT_BOOL(C, "parse_string_tags", parse_string_tags, "false",
		 "Tags that look like an integer, a decimal number or a boolean become one."),
	OPT_END
};
#undef C

static void zipkin_validate(void *config, const struct conf_node *node, struct conf_errors *errs,
			    const char *path)
{
	const struct zipkin_config *conf = config;

	http_listener_check(&conf->http, node, "", errs, path);
}

/* ---- answers ---- */

/* Zipkin knows no partial success: what was refused is counted and logged. */
static void accept_request(struct http_request *req, const struct ingest_answer *a, unsigned tag)
{
	(void)a;
	(void)tag;
	http_respond(req, &(struct http_answer){ .status = 202 });
}

/* ---- requests ---- */

/* There is one for each path that has a route. */
static const struct form *form_of(const struct http_request *req)
{
	const struct form *f = forms;

	while (strcmp(req->path, f->path) != 0 ||
	       (f->type != NULL && !http_request_is_type(req, f->type)))
		f++;
	return f;
}

/* Before the body is read. */
static void begin(struct http_request *req, void *arg)
{
	struct http_site *site = arg;
	struct component *c = site->component;
	char tenant[TENANT_MAX + 1];
	struct err err = ERR_INIT;

	if (http_ingest_tenant(c, req, tenant, &err) < 0)
		http_ingest_refuse(req, &err);
	else
		http_listener_takes_coding(req, &COMPONENT_CONFIG(c, struct zipkin_config)->http);
}

/* Spans that could not be read: the counters, and one line. */
static void note_bad(struct component *c, struct transport_counters *count,
		     const struct zipkin_result *res)
{
	struct zipkin_state *st = COMPONENT_STATE(c, struct zipkin_state);

	if (res->n_bad == 0)
		return;
	for (int i = 0; i < ZIPKIN_BAD_MAX; i++)
		atomic_fetch_add(&st->bad[i], res->n_bad_by[i]);
	/* Those beside usable ones are counted by ingest, with the index's. */
	if (res->n_ok == 0)
		atomic_fetch_add(&count->rejected, res->n_bad);
	log_warn("spans refused", "component", c->id, "spans", LOG_NUM(res->n_bad), "first",
		 res->first_bad);
}

/* The batch of a body. NULL with *err. Takes the body. */
static struct batch *read_batch(struct component *c, struct http_request *req, const struct form *f,
				struct reading *reading, struct otlp_result *result,
				struct err *err)
{
	struct transcode t = { f->decode, reading, GROW_MAX };
	const struct zipkin_result *res = &reading->result;
	struct zipkin_state *st = COMPONENT_STATE(c, struct zipkin_state);
	struct budget *budget = component_budget(c);
	struct rcbuf *body = req->body, *otlp = NULL;
	char tenant[TENANT_MAX + 1];

	req->body = NULL;
	if (http_ingest_tenant(c, req, tenant, err) < 0) {
		rcbuf_unref(body);
		return NULL;
	}
	otlp = transcode_body(&t, body, budget, err);
	if (otlp == NULL)
		return NULL;
	note_bad(c, st->count[f - forms], res);
	if (res->n_ok == 0 && res->n_bad > 0) {
		rcbuf_unref(otlp);
		err_set(err, ERR_INVALID, "%s", res->first_bad);
		return NULL;
	}
	return batch_from_otlp(otlp, tenant, budget, result, err);
}

/* The spans that the reader passed over count with those that the index rejected. */
static void merge_rejects(struct otlp_rejects *to, const struct zipkin_result *res)
{
	if (res->n_bad == 0)
		return;
	to->n += (uint32_t)MIN(res->n_bad, (size_t)UINT32_MAX - to->n);
	memcpy(to->first, res->first_bad, MIN(sizeof(to->first), sizeof(res->first_bad)));
	to->first[sizeof(to->first) - 1] = '\0';
}

static void take_spans(struct http_request *req, void *arg)
{
	struct http_site *site = arg;
	struct component *c = site->component;
	struct zipkin_state *st = COMPONENT_STATE(c, struct zipkin_state);
	const struct form *f = form_of(req);
	struct transport_counters *count = st->count[f - forms];
	struct reading reading = {
		.typed_tags = COMPONENT_CONFIG(c, struct zipkin_config)->parse_string_tags
	};
	struct zipkin_result *res = &reading.result;
	struct otlp_result result = { 0 };
	struct err err = ERR_INIT;
	struct batch *b = NULL;

	if (req->body == NULL) {
		accept_request(req, NULL, 0);
		return;
	}
	b = read_batch(c, req, f, &reading, &result, &err);
	if (b == NULL) {
		atomic_fetch_add(&count->damaged, err.kind == ERR_INVALID && res->n_bad == 0);
		http_ingest_refuse(req, &err);
		return;
	}
	merge_rejects(&result.rejects, res);
	http_ingest_submit(req, site, count, accept_request, 0, b, &result.rejects);
}

/* ---- life ---- */

static int zipkin_start(struct component *c, struct err *err)
{
	const struct zipkin_config *conf = COMPONENT_CONFIG(c, struct zipkin_config);
	struct zipkin_state *st = COMPONENT_STATE(c, struct zipkin_state);
	const struct http_route routes[] = {
		{ .method = "POST", .path = path_v2, .begin = begin, .handler = take_spans },
		{ .method = "POST", .path = path_v1, .begin = begin, .handler = take_spans },
	};
	const struct http_listener_setup setup = {
		.routes = routes,
		.n_routes = COUNT_OF(routes),
		.hold_timeout_ms = http_ingest_hold_ms(c),
	};

	for (size_t i = 0; i < COUNT_OF(forms); i++)
		st->count[i] = telemetry_transport(c, forms[i].transport);
	st->listener = http_listener_start(c, &conf->http, &setup, err);
	return st->listener != NULL ? 0 : -1;
}

static void zipkin_drain(struct component *c)
{
	http_listener_drain(COMPONENT_STATE(c, struct zipkin_state)->listener);
}

static int zipkin_is_drained(struct component *c)
{
	return http_listener_is_drained(COMPONENT_STATE(c, struct zipkin_state)->listener);
}

static void zipkin_shutdown(struct component *c)
{
	struct zipkin_state *st = COMPONENT_STATE(c, struct zipkin_state);

	http_listener_free(st->listener);
	st->listener = NULL;
}

static void zipkin_metrics(struct component *c, struct buf *out)
{
	static const char name[] = "spanmill_zipkin_bad_spans";
	struct zipkin_state *st = COMPONENT_STATE(c, struct zipkin_state);

	telemetry_head(out, name, "counter", "Spans that could not be read, by reason.");
	for (int i = 0; i < ZIPKIN_BAD_MAX; i++)
		telemetry_sample(out, name, (double)atomic_load(&st->bad[i]), "receiver", c->id,
				 "reason", zipkin_reason_name((enum zipkin_reason)i), NULL);
}

const struct component_type receiver_zipkin = {
	.name = "zipkin",
	.kind = KIND_RECEIVER,
	.summary = "Takes Zipkin spans over HTTP: v2 JSON and protobuf, v1 JSON and thrift.",
	.stability = STABILITY_ALPHA,
	.signals = SIGNAL_TRACES,
	.config_size = sizeof(struct zipkin_config),
	.state_size = sizeof(struct zipkin_state),
	.options = zipkin_options,
	.validate = zipkin_validate,
	.may_overlap = component_overlaps,
	.start = zipkin_start,
	.drain = zipkin_drain,
	.is_drained = zipkin_is_drained,
	.shutdown = zipkin_shutdown,
	.metrics = zipkin_metrics,
};
