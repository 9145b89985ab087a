/* SPDX-License-Identifier: Apache-2.0
 *
 * gen_http.c - `spanmill gen` over HTTP: a thread and a connection per slot. See gen.h.
 *
 * SPEC: OTLP/HTTP (retryable: 429, 502, 503, 504, and no answer); Zipkin POST /api/v2/spans.
 */
#include "cmd/gen.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "cmd/terminal.h"
#include "net/content_coding.h"
#include "net/http_client.h"
#include "wire/json_reader.h"
#include "wire/otlp_json_encode.h"
#include "wire/pb.h"

#include <stdio.h>
#include <unistd.h>

struct http_slot {
	struct gen_slot slot;
	struct gen_senders *senders;
	struct http_client *client;
	struct buf json, gzip; /* the body's other forms */
	pthread_t thread;
};

struct gen_senders {
	struct gen *g;
	char *url;
	struct http_slot *slots;
	size_t n_slots, n_started;
};

/* "host:port" gets http:// in front, and what has no path gets the protocol's. */
static char *url_of(const struct gen_config *c)
{
	const char *path = c->protocol == GEN_ZIPKIN ? "/api/v2/spans" : "/v1/traces";
	bool is_url = strstr(c->endpoint, "://") != NULL;
	const char *host = is_url ? strstr(c->endpoint, "://") + 3 : c->endpoint;
	const char *slash = strchr(host, '/');

	return xasprintf("%s%.*s%s", is_url ? "" : "http://",
			 slash != NULL && slash[1] == '\0' ? (int)(slash - c->endpoint)
							   : (int)strlen(c->endpoint),
			 c->endpoint, slash != NULL && slash[1] != '\0' ? "" : path);
}

/* ---- one request ---- */

/* The body in the form that goes out. */
static int make_body(struct http_slot *s, struct bytes *body, struct err *err)
{
	const struct gen_config *c = &s->slot.g->c;

	*body = buf_bytes(&s->slot.body);
	if (c->protocol == GEN_OTLP_JSON) {
		buf_reset(&s->json);
		if (otlp_json_encode(body, 1, OTLP_JSON, 0, &s->json, err) < 0)
			return -1;
		*body = buf_bytes(&s->json);
	}
	s->slot.n_bytes = body->n;
	if (c->gzip) {
		buf_reset(&s->gzip);
		if (content_encode(CONTENT_GZIP, 0, *body, &s->gzip, err) < 0)
			return -1;
		*body = buf_bytes(&s->gzip);
	}
	return 0;
}

static void read_partial(struct json_reader *r, struct gen_verdict *v)
{
	struct json_value m;

	while (json_reader_member(r, &m, NULL) > 0) {
		if (JSON_KEY_IS(&m, "rejectedSpans") && json_reader_u64(&m, &v->rejected) == 0)
			continue;
		if (JSON_KEY_IS(&m, "errorMessage") && m.kind == JSON_STRING)
			snprintf(v->what, sizeof(v->what), "%.*s", (int)m.text.n,
				 (const char *)m.text.p);
		else if (json_reader_skip(r, &m, NULL) < 0)
			return;
	}
}

static void read_json_response(struct bytes text, struct gen_verdict *v)
{
	struct arena arena = ARENA_INIT;
	struct json_reader r;
	struct json_value m;

	json_reader_init(&r, text, &arena);
	if (json_reader_value(&r, &m, NULL) == 0 && m.kind == JSON_OBJECT) {
		while (json_reader_member(&r, &m, NULL) > 0) {
			if (JSON_KEY_IS(&m, "partialSuccess") && m.kind == JSON_OBJECT)
				read_partial(&r, v);
			else if (json_reader_skip(&r, &m, NULL) < 0)
				break;
		}
	}
	arena_fini(&arena);
}

/* The message of a google.rpc.Status, or the text as it came. */
static struct bytes refusal_text(const struct gen_config *c, struct bytes body)
{
	struct pb_field f = { .number = 0 };
	struct bytes in = body;

	while (c->protocol == GEN_OTLP_HTTP && pb_next(&in, &f) > 0)
		if (f.number == 2 && f.wire == PB_LEN)
			return f.data;
	return body;
}

static void quote_refusal(const struct gen_config *c, const struct http_reply *reply,
			  struct gen_verdict *v)
{
	struct bytes text = refusal_text(c, buf_bytes(&reply->body));
	struct buf line = BUF_INIT;

	buf_printf(&line, "HTTP %d: ", reply->status);
	terminal_add_text(&line, text, 150, true);
	snprintf(v->what, sizeof(v->what), "%s", buf_cstr(&line));
	buf_fini(&line);
}

static uint32_t retry_after_ms(const struct http_reply *reply)
{
	const char *text = http_reply_header(reply, "Retry-After");
	uint64_t s = 0;

	if (text == NULL || str_to_u64(bytes_str(text), &s) < 0)
		return 0;
	return (uint32_t)MIN(s, 30) * 1000;
}

static void judge(const struct gen_config *c, const struct http_reply *reply, struct gen_verdict *v)
{
	int status = reply->status;

	if (status >= 200 && status < 300) {
		v->outcome = GEN_ACKED;
		if (c->protocol == GEN_OTLP_HTTP)
			gen_read_response(buf_bytes(&reply->body), v);
		else if (c->protocol == GEN_OTLP_JSON)
			read_json_response(buf_bytes(&reply->body), v);
		return;
	}
	v->outcome = status == 429 || (status >= 502 && status <= 504) ? GEN_REFUSED : GEN_FAILED;
	v->retry_after_ms = retry_after_ms(reply);
	quote_refusal(c, reply, v);
}

static void send_once(struct http_slot *s, struct bytes body, struct gen_verdict *v)
{
	const struct gen_config *c = &s->slot.g->c;
	struct http_header headers[3];
	struct http_call call = { .url = s->senders->url,
				  .headers = headers,
				  .body = &body,
				  .n_body = 1,
				  .method = "POST",
				  .max_reply = MIB };
	struct http_reply reply = HTTP_REPLY_INIT;
	struct err err = ERR_INIT;

	headers[call.n_headers++] =
		(struct http_header){ "Content-Type", c->protocol == GEN_OTLP_HTTP
							      ? "application/x-protobuf"
							      : "application/json" };
	if (c->gzip)
		headers[call.n_headers++] = (struct http_header){ "Content-Encoding", "gzip" };
	if (c->tenant != NULL)
		headers[call.n_headers++] = (struct http_header){ "X-Scope-OrgID", c->tenant };
	gen_slot_sent(&s->slot);
	if (http_client_call(s->client, &call, &reply, &err) == 0) {
		judge(c, &reply, v);
	} else {
		v->outcome = err.retryable ? GEN_REFUSED : GEN_FAILED;
		v->no_answer = true;
		snprintf(v->what, sizeof(v->what), "%.*s", (int)sizeof(v->what) - 1, err.msg);
	}
	http_reply_fini(&reply);
}

/* ---- threads ---- */

static void sleep_until(const struct gen *g, uint64_t until_ns)
{
	int ms;

	while ((ms = gen_wait_ms(g, until_ns)) > 0)
		usleep((useconds_t)ms * 1000);
}

/* Sleep until the first attempt is due. False: drop the request. */
static bool wait_due(const struct gen_slot *slot)
{
	int ms;

	while ((ms = gen_slot_wait_ms(slot)) > 0)
		usleep((useconds_t)ms * 1000);
	return ms == 0;
}

static void *run_slot(void *arg)
{
	struct http_slot *s = arg;
	struct gen *g = s->slot.g;
	struct bytes body = BYTES_EMPTY;
	struct err err = ERR_INIT;

	while (gen_slot_fill(&s->slot)) {
		int64_t again = 0;

		if (make_body(s, &body, &err) < 0) {
			gen_stats_note_error(&g->stats, err.msg);
			break;
		}
		if (!wait_due(&s->slot))
			break;
		while (again >= 0) {
			struct gen_verdict v = { .outcome = GEN_FAILED };

			send_once(s, body, &v);
			again = gen_slot_settle(&s->slot, &v);
			if (again > 0)
				sleep_until(g, clock_mono_ns() + (uint64_t)again * NS_PER_MS);
		}
	}
	gen_slot_done(g);
	return NULL;
}

static int start_slot(struct http_slot *s, struct gen_senders *senders, struct err *err)
{
	struct http_client_settings settings = {
		.timeout_ms = (uint32_t)(senders->g->c.deadline_ns / NS_PER_MS),
	};
	int rc;

	gen_slot_init(&s->slot, senders->g);
	s->senders = senders;
	s->client = http_client_new(&settings, err);
	if (s->client == NULL)
		return -1;
	atomic_fetch_add(&senders->g->n_running, 1);
	rc = pthread_create(&s->thread, NULL, run_slot, s);
	if (rc != 0) {
		gen_slot_done(senders->g);
		return err_set(err, ERR_IO, "start a thread: %s", strerror(rc));
	}
	senders->n_started++;
	return 0;
}

struct gen_senders *gen_http_start(struct gen *g, struct err *err)
{
	struct gen_senders *s = xcalloc(1, sizeof(*s));

	s->g = g;
	s->url = url_of(&g->c);
	s->n_slots = (size_t)g->c.concurrency;
	s->slots = xcalloc(s->n_slots, sizeof(*s->slots));
	for (size_t i = 0; i < s->n_slots; i++) {
		if (start_slot(&s->slots[i], s, err) < 0) {
			atomic_store(&g->stopping, true);
			atomic_store(&g->hurried, true);
			gen_http_join(s);
			return NULL;
		}
	}
	return s;
}

void gen_http_join(struct gen_senders *s)
{
	for (size_t i = 0; i < s->n_started; i++)
		pthread_join(s->slots[i].thread, NULL);
	for (size_t i = 0; i < s->n_slots; i++) {
		http_client_free(s->slots[i].client);
		buf_fini(&s->slots[i].json);
		buf_fini(&s->slots[i].gzip);
		gen_slot_fini(&s->slots[i].slot);
	}
	free(s->slots);
	free(s->url);
	free(s);
}
