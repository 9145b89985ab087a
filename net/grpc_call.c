/* SPDX-License-Identifier: Apache-2.0
 *
 * grpc_call.c - one call on the server: its headers, its message, its answer. See grpc_server.h.
 *
 * DESIGN: a call is one allocation that goes back to its server's free list with its header buffer,
 * so a warm server allocates nothing for it but the message.
 * OWNERSHIP, THREADS: counted references (the session's, the holder's), loop's thread only. The
 * session's reference lasts as long as the stream, so whatever is being sent stays alive.
 * LIMITS: headers by MAX_HEADER_LIST_SIZE in grpc_session.c; a call's memory is charged to the
 * budget.
 */
#include "net/grpc_call.h"

#include "base/mem.h"

#include <stdio.h>

enum {
	SPARE_CALLS = 64,
	KEEP_BUF_BYTES = 4096,
	MAX_FIELDS = 6,
	CALL_CHARGE = 2048,       /* with nghttp2's stream, its answer and usual headers */
	HEADERS_IN_CHARGE = 1024, /* of that: these headers */
};

struct grpc_call *grpc_call_new(struct grpc_session_env *env)
{
	struct grpc_call *call = env->spare;

	if (call != NULL) {
		env->spare = call->next;
		env->n_spare--;
		call->next = NULL;
	} else {
		call = xcalloc(1, sizeof(*call));
	}
	call->refs = 1;
	call->budget = env->settings->budget;
	call->charged = CALL_CHARGE;
	budget_force(call->budget, call->charged);
	return call;
}

bool grpc_call_keep_headers(struct grpc_call *call)
{
	if (call->headers.cap <= HEADERS_IN_CHARGE)
		return true;
	if (budget_charge(call->budget, call->headers.cap)) {
		call->charged += call->headers.cap;
		return true;
	}
	buf_fini(&call->headers);
	return false;
}

static void release_charge(struct grpc_call *call)
{
	budget_release(call->budget, call->charged);
	call->charged = 0;
}

void grpc_call_delete(struct grpc_call *call)
{
	release_charge(call);
	rcbuf_unref(call->message);
	buf_fini(&call->headers);
	buf_fini(&call->reply);
	free(call);
}

/* Empty it, but keep small buffers. */
static void clean(struct grpc_call *call)
{
	struct buf headers = call->headers, reply = call->reply;

	release_charge(call);
	rcbuf_unref(call->message);
	if (headers.cap > KEEP_BUF_BYTES)
		buf_fini(&headers);
	if (reply.cap > KEEP_BUF_BYTES)
		buf_fini(&reply);
	buf_reset(&headers);
	buf_reset(&reply);
	memset(call, 0, sizeof(*call));
	call->headers = headers;
	call->reply = reply;
}

void grpc_call_retire(struct grpc_call *call, struct grpc_session_env *env)
{
	if (--call->refs > 0)
		return;
	if (env->n_spare >= SPARE_CALLS) {
		grpc_call_delete(call);
		return;
	}
	clean(call);
	call->next = env->spare;
	env->spare = call;
	env->n_spare++;
}

struct grpc_call *grpc_call_ref(struct grpc_call *call)
{
	call->refs++;
	return call;
}

void grpc_call_unref(struct grpc_call *call)
{
	if (--call->refs == 0)
		grpc_call_delete(call);
}

void grpc_call_add_header(struct grpc_call *call, struct bytes name, struct bytes value)
{
	uint8_t *p = buf_reserve(&call->headers, 4 + name.n + value.n);

	store_le16(p, (uint16_t)name.n);
	store_le16(p + 2, (uint16_t)value.n);
	memcpy(p + 4, name.p, name.n);
	if (value.n > 0)
		memcpy(p + 4 + name.n, value.p, value.n);
	call->headers.n += 4 + name.n + value.n;
}

struct bytes grpc_call_header(const struct grpc_call *call, const char *name)
{
	const uint8_t *p = call->headers.p, *end = p + call->headers.n;
	size_t want = strlen(name);

	while (p < end) {
		size_t n = load_le16(p), v = load_le16(p + 2);

		if (n == want && memcmp(p + 4, name, n) == 0)
			return (struct bytes){ p + 4 + n, v };
		p += 4 + n + v;
	}
	return BYTES_EMPTY;
}

struct loop *grpc_call_loop(const struct grpc_call *call)
{
	return grpc_session_loop(call->session);
}

const char *grpc_call_path(const struct grpc_call *call)
{
	return call->route->path;
}

const char *grpc_call_peer(const struct grpc_call *call)
{
	return call->session != NULL ? grpc_session_peer(call->session) : "";
}

uint64_t grpc_call_deadline_ns(const struct grpc_call *call)
{
	return call->deadline_ns;
}

const struct rcbuf *grpc_call_message(const struct grpc_call *call)
{
	return call->message;
}

struct rcbuf *grpc_call_take_message(struct grpc_call *call)
{
	struct rcbuf *message = call->message;

	call->message = NULL;
	return message;
}

enum content_coding grpc_call_coding(const struct grpc_call *call)
{
	return call->compressed ? call->coding : CONTENT_IDENTITY;
}

size_t grpc_call_wire_bytes(const struct grpc_call *call)
{
	return call->prefix_n + call->received;
}

void grpc_call_on_cancel(struct grpc_call *call, void (*fn)(struct grpc_call *call, void *arg),
			 void *arg)
{
	call->on_cancel = fn;
	call->cancel_arg = arg;
}

void grpc_call_gate(struct grpc_call *call, void (*fn)(struct grpc_call *call, void *arg),
		    void *arg)
{
	call->gate = fn;
	call->gate_arg = arg;
}

void grpc_call_proceed(struct grpc_call *call)
{
	if (call->session == NULL || call->state != CALL_HANDED)
		return;
	call->route->call(call, call->route->arg);
	/* The stream's reference and the caller's. */
	if (call->refs == 2 && call->state == CALL_HANDED)
		grpc_call_fail(call, GRPC_INTERNAL, "the call was dropped without an answer", 0);
}

bool grpc_call_is_cancelled(const struct grpc_call *call)
{
	return call->cancelled;
}

static const char accepted_codings[] = "identity,gzip,deflate,zstd,snappy";

void grpc_call_reply(struct grpc_call *call, struct bytes message)
{
	static const struct grpc_field fields[] = {
		{ ":status", { (const uint8_t *)"200", 3 } },
		{ "content-type", { (const uint8_t *)"application/grpc", 16 } },
		{ "grpc-accept-encoding",
		  { (const uint8_t *)accepted_codings, sizeof(accepted_codings) - 1 } },
	};
	uint8_t prefix[5] = { 0 };

	if (call->session == NULL || call->state == CALL_ANSWERED)
		return;
	store_be32(prefix + 1, (uint32_t)message.n);
	buf_reset(&call->reply);
	buf_add(&call->reply, prefix, sizeof(prefix));
	buf_add_bytes(&call->reply, message);
	grpc_session_submit(call, fields, COUNT_OF(fields), false);
}

void grpc_call_refuse(struct grpc_call *call, unsigned http_status, enum grpc_status status,
		      const char *message, uint32_t retry_after_ms)
{
	struct buf text = BUF_INIT, details = BUF_INIT;
	struct grpc_field f[MAX_FIELDS];
	char http[12], code[12];
	size_t n = 0;

	if (call->session == NULL || call->state == CALL_ANSWERED)
		return;
	snprintf(http, sizeof(http), "%u", http_status);
	snprintf(code, sizeof(code), "%d", (int)status);
	grpc_status_encode_message(message, &text);
	f[n++] = (struct grpc_field){ ":status", bytes_str(http) };
	f[n++] = (struct grpc_field){ "content-type", BYTES_LIT("application/grpc") };
	f[n++] = (struct grpc_field){ "grpc-status", bytes_str(code) };
	if (text.n > 0)
		f[n++] = (struct grpc_field){ "grpc-message", buf_bytes(&text) };
	if (retry_after_ms > 0) {
		grpc_status_encode_details(status, message, retry_after_ms, &details);
		f[n++] = (struct grpc_field){ "grpc-status-details-bin", buf_bytes(&details) };
	}
	if (status == GRPC_UNIMPLEMENTED)
		f[n++] = (struct grpc_field){ "grpc-accept-encoding", bytes_str(accepted_codings) };
	grpc_session_submit(call, f, n, true);
	buf_fini(&text);
	buf_fini(&details);
}

void grpc_call_fail(struct grpc_call *call, enum grpc_status status, const char *message,
		    uint32_t retry_after_ms)
{
	grpc_call_refuse(call, 200, status, message, retry_after_ms);
}
