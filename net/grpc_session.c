/* SPDX-License-Identifier: Apache-2.0
 *
 * grpc_session.c - see grpc_session.h.
 *
 * DESIGN: nghttp2 frames, we decide. Memory for a message is granted when its five-byte prefix is
 * known, before its bytes are taken; each DATA chunk is copied once, to its place in that buffer.
 * The connection's window is given back as bytes are taken; a stream's only while its message is
 * admitted and incomplete, so what a refused client can still send is one stream window, which is
 * thrown away until the stream is reset. On a connection that is crowded with messages they come in
 * by turns (grpc_turns.h), and the memory of each with its turn. The
 * rejected alternative, growing the buffer with the bytes, copies large messages twice and refuses
 * them after they were half sent.
 * OWNERSHIP, THREADS: owns its calls' first reference; loop's thread.
 * LIMITS: concurrent streams, message and header list sizes (settings); a connection's incomplete
 * messages may claim half the budget; requests have a least speed, and those that stall while
 * others are refused for want of memory give theirs back; control frames, resets and refused
 * streams have a rate; nghttp2 itself bounds CONTINUATION, SETTINGS entries and unsent
 * acknowledgements.
 * SPEC: gRPC over HTTP/2, RFC 9113; CVE-2023-44487, CVE-2024-28182.
 */
#include "net/grpc_session.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "net/grpc_call.h"
#include "net/grpc_turns.h"

#include <nghttp2/nghttp2.h>
#include <stdio.h>

enum {
	HEADER_LIST_MAX = 16 * 1024,
	RESET_BURST = 1000, /* RST_STREAM frames a client may send at once, */
	RESET_RATE = 100,   /* and a second after that */
	FRAME_BURST = 1000, /* the same for PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty DATA */
	FRAME_RATE = 200,
	FRAMES_PER_CALL = 8, /* each served call earns these: clients probe while they work */
	REFUSED_COST = 4,    /* a stream that nghttp2 refuses: its RST_STREAM waits to be sent */
	SLOWEST_BYTES_PER_S = 64 * 1024,
	SHORT_GRACE_MS = 1000, /* for a request that stalls while memory is short */
	LINGER_MS = 500,
	CROWD_CALLS = 8,    /* so many requests, with more than a stream's window, come by turns */
	PADDED_BYTES = 512, /* a window below this may be used up by padding */
};

/* A connection's way to turns: new windows are asked for, and count once they were acknowledged. */
enum turns_state { TURNS_OFF, TURNS_ASKED, TURNS_ON };

struct grpc_session {
	nghttp2_session *h2;
	struct grpc_session_env *env;
	const char *peer;
	void (*wake)(void *arg);
	void *wake_arg;
	struct grpc_call *calls;
	size_t n_calls;
	size_t n_incoming; /* calls before CALL_HANDED */
	uint64_t claimed;  /* bytes of messages that are coming in */
	size_t unconsumed; /* connection window to give back */
	struct grpc_turns turns;
	enum turns_state turns_state;
	unsigned n_settings; /* sent and not acknowledged */
	uint64_t now_ms, idle_since_ms, refilled_ms;
	int64_t frame_tokens;
	bool receiving;
	bool greeted;
	bool draining;
	bool abused;
};

/* ---- calls of a session ---- */

static bool is_incoming(const struct grpc_call *call)
{
	return call->state < CALL_HANDED;
}

/* The request is no longer coming in, for whatever reason. */
static void end_incoming(struct grpc_call *call, enum grpc_call_state next)
{
	struct grpc_session *s = call->session;

	grpc_turns_leave(&s->turns, call);
	if (is_incoming(call)) {
		s->n_incoming--;
		if (call->state == CALL_BODY || call->state == CALL_COMPLETE)
			s->claimed -= call->length;
	}
	call->state = next;
}

static struct grpc_call *begin_call(struct grpc_session *s, int32_t stream_id)
{
	struct grpc_call *call = grpc_call_new(s->env);

	call->session = s;
	call->stream_id = stream_id;
	call->started_ms = s->now_ms;
	call->next = s->calls;
	if (s->calls != NULL)
		s->calls->prev = call;
	s->calls = call;
	s->n_calls++;
	s->n_incoming++;
	return call;
}

/* The stream is closed, or the session ends. */
static void end_call(struct grpc_call *call)
{
	struct grpc_session *s = call->session;
	void (*on_cancel)(struct grpc_call *, void *) = call->on_cancel;
	bool answered = call->state == CALL_ANSWERED;

	end_incoming(call, call->state);
	if (call->prev != NULL)
		call->prev->next = call->next;
	else
		s->calls = call->next;
	if (call->next != NULL)
		call->next->prev = call->prev;
	call->next = call->prev = NULL;
	s->n_calls--;
	s->idle_since_ms = s->now_ms;
	call->session = NULL;
	call->cancelled = !answered;
	if (!answered && on_cancel != NULL) {
		call->on_cancel = NULL;
		on_cancel(call, call->cancel_arg);
	}
	grpc_call_retire(call, s->env);
}

static void count(_Atomic uint64_t *counter)
{
	atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

/* ---- answers ---- */

static ssize_t read_reply(nghttp2_session *h2, int32_t stream_id, uint8_t *to, size_t n,
			  uint32_t *flags, nghttp2_data_source *source, void *arg)
{
	static const nghttp2_nv ok = { (uint8_t *)(uintptr_t) "grpc-status",
				       (uint8_t *)(uintptr_t) "0", 11, 1,
				       NGHTTP2_NV_FLAG_NO_COPY_NAME |
					       NGHTTP2_NV_FLAG_NO_COPY_VALUE };
	struct grpc_call *call = source->ptr;
	size_t left = call->reply.n - call->reply_off;

	(void)arg;
	if (n > left)
		n = left;
	memcpy(to, call->reply.p + call->reply_off, n);
	call->reply_off += n;
	if (call->reply_off == call->reply.n) {
		*flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
		if (nghttp2_submit_trailer(h2, stream_id, &ok, 1) != 0)
			return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	}
	return (ssize_t)n;
}

void grpc_session_submit(struct grpc_call *call, const struct grpc_field *fields, size_t n,
			 bool trailers_only)
{
	struct grpc_session *s = call->session;
	nghttp2_data_provider reply = { .source = { .ptr = call }, .read_callback = read_reply };
	nghttp2_nv nv[8];

	assert(n <= COUNT_OF(nv));
	for (size_t i = 0; i < n; i++)
		nv[i] = (nghttp2_nv){ (uint8_t *)(uintptr_t)fields[i].name,
				      (uint8_t *)(uintptr_t)fields[i].value.p,
				      strlen(fields[i].name), fields[i].value.n,
				      NGHTTP2_NV_FLAG_NO_COPY_NAME };
	end_incoming(call, CALL_ANSWERED);
	call->answered_ms = s->now_ms;
	rcbuf_unref(call->message);
	call->message = NULL;
	if (nghttp2_submit_response(s->h2, call->stream_id, nv, n, trailers_only ? NULL : &reply) !=
	    0)
		nghttp2_submit_rst_stream(s->h2, NGHTTP2_FLAG_NONE, call->stream_id,
					  NGHTTP2_INTERNAL_ERROR);
	if (!s->receiving)
		s->wake(s->wake_arg);
}

static void refuse(struct grpc_call *call, unsigned http_status, enum grpc_status status,
		   const char *message)
{
	count(&call->session->env->counts->refused_other);
	grpc_call_refuse(call, http_status, status, message, 0);
}

static void refuse_large(struct grpc_call *call, const char *what, size_t n, size_t limit)
{
	char text[160];

	count(&call->session->env->counts->refused_large);
	snprintf(text, sizeof(text), "%s of %zu bytes is larger than the limit of %zu", what, n,
		 limit);
	grpc_call_refuse(call, 200, GRPC_RESOURCE_EXHAUSTED, text, 0);
}

static void refuse_budget(struct grpc_call *call)
{
	struct grpc_session_env *env = call->session->env;

	count(&env->counts->refused_budget);
	grpc_call_refuse(call, 200, GRPC_UNAVAILABLE, "memory budget is spent, try again later",
			 env->settings->retry_after_ms);
}

/* ---- the message ---- */

/* What an rcbuf of n bytes is charged (base/rcbuf.h: powers of two from 4 KiB to 1 MiB). */
static size_t charge_of(size_t n)
{
	size_t size = 4096;

	if (n > MIB)
		return n;
	while (size < n)
		size *= 2;
	return size;
}

static void submit_settings(struct grpc_session *s, const nghttp2_settings_entry *v, size_t n)
{
	if (nghttp2_submit_settings(s->h2, NGHTTP2_FLAG_NONE, v, n) == 0)
		s->n_settings++;
}

static bool needs_turn(const struct grpc_call *call)
{
	return call->state == CALL_BODY && call->length + sizeof(call->prefix) >= TURN_FIRST_BYTES;
}

static bool is_crowded(const struct grpc_session *s)
{
	uint32_t window = s->env->settings->stream_window_bytes;

	return s->n_incoming >= CROWD_CALLS && s->claimed > window && window > TURN_FIRST_BYTES;
}

/* A message was admitted. */
static void notice_message(struct grpc_call *call)
{
	static const nghttp2_settings_entry small = { NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE,
						      TURN_FIRST_BYTES };
	struct grpc_session *s = call->session;

	if (s->turns_state == TURNS_ON && needs_turn(call)) {
		grpc_turns_join(&s->turns, call);
	} else if (s->turns_state == TURNS_OFF && is_crowded(s)) {
		s->turns_state = TURNS_ASKED;
		submit_settings(s, &small, 1);
	}
}

/* The client knows the last settings we sent: from here on the small windows count, also for what
 * it had begun to send. */
static void begin_turns(struct grpc_session *s)
{
	struct grpc_call *call = s->calls;

	s->turns_state = TURNS_ON;
	while (call != NULL && call->next != NULL)
		call = call->next;
	for (; call != NULL; call = call->prev) /* the oldest first */
		if (needs_turn(call))
			grpc_turns_join(&s->turns, call);
}

/* Let the client send the rest of the message, or as much of it as a stream may have. */
static void open_window(struct grpc_call *call)
{
	nghttp2_session *h2 = call->session->h2;
	int32_t taken = nghttp2_session_get_stream_effective_recv_data_length(h2, call->stream_id);
	/* One more, so that who sends too much is told instead of waiting. */
	size_t more = MIN(call->length - call->received + 1,
			  call->session->env->settings->stream_window_bytes);

	nghttp2_session_set_local_window_size(h2, NGHTTP2_FLAG_NONE, call->stream_id,
					      MAX(taken, 0) + (int32_t)more);
}

/* The clock of its speed begins here. */
static void take_turn(struct grpc_call *call)
{
	call->started_ms = call->session->now_ms;
	if (call->message != NULL && rcbuf_grow(&call->message, call->length) < 0)
		refuse_budget(call);
	else
		open_window(call);
}

static void take_turns(struct grpc_session *s)
{
	struct grpc_call *call;

	while ((call = grpc_turns_next(&s->turns, s->now_ms)) != NULL)
		take_turn(call);
}

/* Padding takes window, and is no part of the message. */
static void make_up_for_padding(struct grpc_call *call, const nghttp2_frame *frame)
{
	if (frame->hd.type == NGHTTP2_DATA && frame->data.padlen > 0 && call->state == CALL_BODY &&
	    !call->waits &&
	    nghttp2_session_get_stream_local_window_size(call->session->h2, call->stream_id) <
		    PADDED_BYTES)
		open_window(call);
}

/* The prefix is in: is there room for the message? */
static void admit(struct grpc_call *call)
{
	struct grpc_session *s = call->session;
	const struct grpc_server_settings *c = s->env->settings;
	size_t n = load_be32(call->prefix + 1);
	size_t first = s->turns_state == TURNS_ON ? MIN(n, (size_t)TURN_FIRST_BYTES) : n;

	call->compressed = call->prefix[0] == 1;
	if (call->prefix[0] > 1) {
		refuse(call, 200, GRPC_INTERNAL, "message flag is neither 0 nor 1");
	} else if (call->compressed && call->coding == CONTENT_IDENTITY) {
		refuse(call, 200, GRPC_INTERNAL, "compressed message without grpc-encoding");
	} else if (n > c->max_recv_msg_bytes) {
		refuse_large(call, "message", n, c->max_recv_msg_bytes);
	} else if (c->budget != NULL && charge_of(n) > (uint64_t)c->budget->limit) {
		refuse_large(call, "message", n, (size_t)c->budget->limit);
	} else if (c->budget != NULL && s->claimed > 0 &&
		   s->claimed + n > (uint64_t)c->budget->limit / 2) {
		/* One connection must not reserve everything by promises. */
		refuse_budget(call);
	} else if (!call->route->discard &&
		   (!budget_allows_body(c->budget, n) ||
		    (call->message = rcbuf_new(c->budget, first)) == NULL)) {
		refuse_budget(call);
	} else {
		call->length = n;
		s->claimed += n;
		call->state = n > 0 ? CALL_BODY : CALL_COMPLETE;
		notice_message(call);
	}
}

/* Copy one chunk of the body to its place. */
static void take_body(struct grpc_call *call, struct bytes in)
{
	struct grpc_session *s = call->session;
	uint32_t window = s->env->settings->stream_window_bytes;

	if (call->message != NULL && in.n > call->message->cap - call->message->n) {
		refuse(call, 200, GRPC_INVALID_ARGUMENT, "more bytes than the stream's window");
		return;
	}
	grpc_turns_came(&s->turns, call, in.n);
	call->received += in.n;
	call->unconsumed += in.n;
	if (call->message != NULL) {
		memcpy(call->message->p + call->message->n, in.p, in.n);
		call->message->n += in.n;
	}
	if (call->received == call->length) {
		call->state = CALL_COMPLETE;
	} else if (!call->waits && call->unconsumed >= window / 2) {
		nghttp2_session_consume_stream(s->h2, call->stream_id, call->unconsumed);
		call->unconsumed = 0;
	}
}

static void take_data(struct grpc_call *call, struct bytes in)
{
	size_t n;

	while (in.n > 0) {
		switch (call->state) {
		case CALL_PREFIX:
			n = MIN(sizeof(call->prefix) - call->prefix_n, in.n);
			memcpy(call->prefix + call->prefix_n, in.p, n);
			call->prefix_n += (uint8_t)n;
			call->unconsumed += n;
			if (call->prefix_n == sizeof(call->prefix))
				admit(call);
			break;
		case CALL_BODY:
			n = MIN(call->length - call->received, in.n);
			take_body(call, (struct bytes){ in.p, n });
			break;
		case CALL_COMPLETE:
			refuse(call, 200, GRPC_INVALID_ARGUMENT,
			       "more than one message in a unary call");
			return;
		default:
			return;
		}
		in.p += n;
		in.n -= n;
	}
}

/* Replace the compressed message by its inflated form; false when the call was refused. */
static bool inflate(struct grpc_call *call)
{
	const struct grpc_server_settings *c = call->session->env->settings;
	struct rcbuf *inflated = NULL;
	struct err err = ERR_INIT;
	struct bytes in = { call->message->p, call->message->n };
	const struct content_bounds bounds = { c->max_recv_msg_bytes, c->max_decompression_ratio };

	if (content_decode_bounded(call->coding, in, &bounds, c->budget, &inflated, &err) == 0) {
		rcbuf_unref(call->message);
		call->message = inflated;
		return true;
	}
	if (err.kind == ERR_EXHAUSTED) {
		refuse_budget(call);
	} else if (err.kind == ERR_TOO_LARGE) {
		count(&call->session->env->counts->refused_large);
		grpc_call_refuse(call, 200, GRPC_RESOURCE_EXHAUSTED, err.msg, 0);
	} else {
		refuse(call, 200, GRPC_INVALID_ARGUMENT, err.msg);
	}
	return false;
}

/* The client has sent all of its request. */
static void end_of_request(struct grpc_call *call)
{
	if (!is_incoming(call))
		return;
	if (call->state != CALL_COMPLETE) {
		refuse(call, 200, GRPC_INVALID_ARGUMENT,
		       call->prefix_n == 0 ? "no message in the request" : "message is cut short");
		return;
	}
	if (call->compressed && call->message != NULL && !inflate(call))
		return;
	end_incoming(call, CALL_HANDED);
	call->session->frame_tokens =
		MIN(call->session->frame_tokens + FRAMES_PER_CALL, FRAME_BURST);
	count(&call->session->env->counts->calls);
	/* A reference over the call: the handler may answer, and the answer may not outlive it. */
	grpc_call_ref(call);
	if (call->gate != NULL)
		call->gate(call, call->gate_arg);
	else
		call->route->call(call, call->route->arg);
	if (call->refs == 2 && call->state == CALL_HANDED)
		grpc_call_fail(call, GRPC_INTERNAL, "the call was dropped without an answer", 0);
	grpc_call_unref(call);
}

/* ---- the headers ---- */

static bool is_grpc_content_type(struct bytes v)
{
	static const char grpc[] = "application/grpc";
	size_t n = sizeof(grpc) - 1;

	return v.n >= n && str_eq_nocase((struct bytes){ v.p, n }, grpc) &&
	       (v.n == n || v.p[n] == '+' || v.p[n] == ';' || v.p[n] == ' ') &&
	       (v.n == n || v.p[n] != '+' || (v.n >= n + 6 && memcmp(v.p + n, "+proto", 6) == 0));
}

static const struct grpc_route *find_route(const struct grpc_session *s, struct bytes path)
{
	const struct grpc_route *r = s->env->routes;

	while (r->path != NULL && !bytes_eq_str(path, r->path))
		r++;
	return r->path != NULL ? r : NULL;
}

static void refuse_path(struct grpc_call *call, struct bytes path)
{
	char text[200];

	snprintf(text, sizeof(text), "unknown method %.*s", (int)MIN(path.n, 128),
		 path.n > 0 ? (const char *)path.p : "");
	refuse(call, 200, GRPC_UNIMPLEMENTED, text);
}

/* Ask who may come in. */
static bool is_admitted(struct grpc_call *call)
{
	const struct grpc_server_settings *c = call->session->env->settings;
	const char *message = "";
	enum grpc_status status =
		c->admit != NULL ? c->admit(call, &message, c->admit_arg) : GRPC_OK;

	if (status != GRPC_OK)
		refuse(call, 200, status, message);
	return status == GRPC_OK;
}

/* The header block is complete. */
static void end_of_headers(struct grpc_call *call)
{
	struct bytes path = grpc_call_header(call, ":path");
	struct bytes encoding = grpc_call_header(call, "grpc-encoding");
	struct bytes timeout = grpc_call_header(call, "grpc-timeout");
	uint64_t timeout_ns = 0;

	call->state = CALL_PREFIX;
	call->route = find_route(call->session, path);
	if (call->header_cost > HEADER_LIST_MAX)
		refuse(call, 431, GRPC_RESOURCE_EXHAUSTED, "header list is larger than 16 KiB");
	else if (!bytes_eq_str(grpc_call_header(call, ":method"), "POST"))
		refuse(call, 405, GRPC_UNIMPLEMENTED, "method is not POST");
	else if (!is_grpc_content_type(grpc_call_header(call, "content-type")))
		refuse(call, 415, GRPC_UNIMPLEMENTED, "content-type is not application/grpc");
	else if (call->route == NULL)
		refuse_path(call, path);
	else if (!is_admitted(call))
		return;
	else if (content_coding_parse(encoding, &call->coding) < 0)
		refuse(call, 200, GRPC_UNIMPLEMENTED,
		       "grpc-encoding is none of identity, gzip, deflate, zstd, snappy");
	else if (timeout.p != NULL && grpc_status_parse_timeout(timeout, &timeout_ns) < 0)
		refuse(call, 400, GRPC_INTERNAL, "malformed grpc-timeout");
	else if (!grpc_call_keep_headers(call))
		refuse_budget(call);
	else if (timeout.p != NULL)
		call->deadline_ns = clock_mono_ns() + timeout_ns;
}

/* ---- nghttp2's callbacks ---- */

static struct grpc_call *call_of(nghttp2_session *h2, int32_t stream_id)
{
	return nghttp2_session_get_stream_user_data(h2, stream_id);
}

static int on_begin_headers(nghttp2_session *h2, const nghttp2_frame *frame, void *arg)
{
	struct grpc_session *s = arg;

	if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST)
		nghttp2_session_set_stream_user_data(h2, frame->hd.stream_id,
						     begin_call(s, frame->hd.stream_id));
	return 0;
}

static int on_header(nghttp2_session *h2, const nghttp2_frame *frame, const uint8_t *name,
		     size_t name_n, const uint8_t *value, size_t value_n, uint8_t flags, void *arg)
{
	struct grpc_call *call = call_of(h2, frame->hd.stream_id);

	(void)flags;
	(void)arg;
	if (call == NULL || call->state != CALL_HEADERS)
		return 0;
	call->header_cost += name_n + value_n + 32;
	if (call->header_cost <= HEADER_LIST_MAX)
		grpc_call_add_header(call, (struct bytes){ name, name_n },
				     (struct bytes){ value, value_n });
	return 0;
}

static int on_data(nghttp2_session *h2, uint8_t flags, int32_t stream_id, const uint8_t *p,
		   size_t n, void *arg)
{
	struct grpc_call *call = call_of(h2, stream_id);
	struct grpc_session *s = arg;

	(void)flags;
	s->unconsumed += n;
	if (call != NULL)
		take_data(call, (struct bytes){ p, n });
	return 0;
}

/* Floods of frames that cost us something and carry nothing. */
static void charge_frames(struct grpc_session *s, int64_t cost)
{
	uint64_t elapsed_ms = s->now_ms - s->refilled_ms;

	if (elapsed_ms >= 100) {
		s->frame_tokens =
			MIN(s->frame_tokens + (int64_t)(MIN(elapsed_ms, 60000) * FRAME_RATE / 1000),
			    FRAME_BURST);
		s->refilled_ms = s->now_ms;
	}
	s->frame_tokens -= cost;
	if (s->frame_tokens >= 0)
		return;
	s->abused = true;
	/* What else it sent is not looked at. */
	nghttp2_session_terminate_session(s->h2, NGHTTP2_ENHANCE_YOUR_CALM);
}

static int charge_frame(struct grpc_session *s, const nghttp2_frame *frame)
{
	if (frame->hd.type != NGHTTP2_HEADERS &&
	    (frame->hd.type != NGHTTP2_DATA ||
	     (frame->hd.length == 0 && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0)))
		charge_frames(s, 1);
	return 0;
}

/* nghttp2 answers it with RST_STREAM, one after the other if need be. */
static int on_invalid_frame(nghttp2_session *h2, const nghttp2_frame *frame, int code, void *arg)
{
	(void)h2;
	(void)frame;
	(void)code;
	charge_frames(arg, REFUSED_COST);
	return 0;
}

static void settings_acknowledged(struct grpc_session *s)
{
	if (s->n_settings > 0 && --s->n_settings == 0 && s->turns_state == TURNS_ASKED)
		begin_turns(s);
}

static int on_frame(nghttp2_session *h2, const nghttp2_frame *frame, void *arg)
{
	struct grpc_session *s = arg;
	struct grpc_call *call;

	s->greeted = true;
	if (frame->hd.type == NGHTTP2_SETTINGS && (frame->hd.flags & NGHTTP2_FLAG_ACK) != 0)
		settings_acknowledged(s);
	if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA)
		return charge_frame(s, frame);
	call = call_of(h2, frame->hd.stream_id);
	if (call == NULL)
		return charge_frame(s, frame);
	if (frame->hd.type == NGHTTP2_HEADERS && call->state == CALL_HEADERS)
		end_of_headers(call);
	make_up_for_padding(call, frame);
	if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0)
		end_of_request(call);
	return charge_frame(s, frame);
}

static int on_stream_close(nghttp2_session *h2, int32_t stream_id, uint32_t code, void *arg)
{
	struct grpc_call *call = call_of(h2, stream_id);

	(void)code;
	(void)arg;
	if (call != NULL) {
		nghttp2_session_set_stream_user_data(h2, stream_id, NULL);
		end_call(call);
	}
	return 0;
}

/* ---- the session ---- */

static nghttp2_session *new_h2(struct grpc_session *s)
{
	nghttp2_session_callbacks *cb = NULL;
	nghttp2_option *option = NULL;
	nghttp2_session *h2 = NULL;

	if (nghttp2_session_callbacks_new(&cb) != 0 || nghttp2_option_new(&option) != 0)
		abort(); /* out of memory, as xmalloc */
	nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
	nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
	nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame);
	nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
	nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(cb, on_invalid_frame);
	nghttp2_option_set_no_auto_window_update(option, 1);
	nghttp2_option_set_no_closed_streams(option, 1);
	nghttp2_option_set_stream_reset_rate_limit(option, RESET_BURST, RESET_RATE);
	if (nghttp2_session_server_new2(&h2, cb, s, option) != 0)
		abort();
	nghttp2_session_callbacks_del(cb);
	nghttp2_option_del(option);
	return h2;
}

struct grpc_session *grpc_session_new(struct grpc_session_env *env, const char *peer,
				      void (*wake)(void *arg), void *arg, uint64_t now_ms)
{
	struct grpc_session *s = xcalloc(1, sizeof(*s));
	const struct grpc_server_settings *c = env->settings;
	nghttp2_settings_entry settings[] = {
		{ NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, c->max_concurrent_streams },
		{ NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, c->stream_window_bytes },
		{ NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, HEADER_LIST_MAX },
	};

	s->env = env;
	s->peer = peer;
	s->wake = wake;
	s->wake_arg = arg;
	s->now_ms = s->idle_since_ms = s->refilled_ms = now_ms;
	s->frame_tokens = FRAME_BURST;
	s->h2 = new_h2(s);
	submit_settings(s, settings, COUNT_OF(settings));
	nghttp2_session_set_local_window_size(s->h2, NGHTTP2_FLAG_NONE, 0,
					      (int32_t)c->connection_window_bytes);
	return s;
}

void grpc_session_free(struct grpc_session *s)
{
	if (s == NULL)
		return;
	s->receiving = true; /* on_cancel may try to answer other calls: no wake any more */
	while (s->calls != NULL)
		end_call(s->calls);
	nghttp2_session_del(s->h2);
	free(s);
}

int grpc_session_recv(struct grpc_session *s, struct bytes in, uint64_t now_ms, struct err *err)
{
	ssize_t rc;

	s->now_ms = now_ms;
	s->receiving = true;
	rc = nghttp2_session_mem_recv(s->h2, in.p, in.n);
	if (rc >= 0 && s->unconsumed > 0)
		nghttp2_session_consume_connection(s->h2, s->unconsumed);
	s->unconsumed = 0;
	take_turns(s);
	s->receiving = false;
	if (rc >= 0 && !s->abused)
		return 0;
	count(&s->env->counts->abuse);
	return err_set(err, ERR_INVALID, "http/2 from %s: %s", s->peer,
		       rc < 0 ? nghttp2_strerror((int)rc) : "too many control frames");
}

struct bytes grpc_session_send(struct grpc_session *s)
{
	const uint8_t *p = NULL;
	ssize_t n = nghttp2_session_mem_send(s->h2, &p);

	return n > 0 ? (struct bytes){ p, (size_t)n } : BYTES_EMPTY;
}

bool grpc_session_is_done(const struct grpc_session *s)
{
	return nghttp2_session_want_read(s->h2) == 0 && nghttp2_session_want_write(s->h2) == 0;
}

void grpc_session_drain(struct grpc_session *s, bool final)
{
	/* In two steps, so that calls which are on their way when the first arrives are served. */
	if (!s->draining)
		nghttp2_submit_shutdown_notice(s->h2);
	s->draining = true;
	if (final)
		nghttp2_submit_goaway(s->h2, NGHTTP2_FLAG_NONE,
				      nghttp2_session_get_last_proc_stream_id(s->h2),
				      NGHTTP2_NO_ERROR, NULL, 0);
	s->wake(s->wake_arg);
}

bool grpc_session_is_draining(const struct grpc_session *s)
{
	return s->draining;
}

size_t grpc_session_calls(const struct grpc_session *s)
{
	return s->n_calls;
}

uint64_t grpc_session_idle_since(const struct grpc_session *s)
{
	return s->idle_since_ms;
}

bool grpc_session_is_greeted(const struct grpc_session *s)
{
	return s->greeted;
}

void grpc_session_ping(struct grpc_session *s)
{
	nghttp2_submit_ping(s->h2, NGHTTP2_FLAG_NONE, NULL);
	s->wake(s->wake_arg);
}

/* An answer that came before the end of its request: after a while, and not at once, the stream is
 * reset. Some clients (curl) forget the answer when a reset follows it closely. */
static void end_lingering(struct grpc_session *s, const struct grpc_call *call)
{
	if (s->now_ms - call->answered_ms < LINGER_MS ||
	    nghttp2_session_get_stream_local_close(s->h2, call->stream_id) != 1 ||
	    nghttp2_session_get_stream_remote_close(s->h2, call->stream_id) != 0)
		return;
	nghttp2_submit_rst_stream(s->h2, NGHTTP2_FLAG_NONE, call->stream_id, NGHTTP2_NO_ERROR);
	s->wake(s->wake_arg);
}

/* Is the request behind the least speed, `grace_ms` ago begun? */
static bool is_behind(const struct grpc_call *call, uint64_t now_ms, uint64_t grace_ms)
{
	return now_ms - call->started_ms >
	       grace_ms + (uint64_t)call->received * 1000 / SLOWEST_BYTES_PER_S;
}

/* A request that is still coming in: may it go on? */
static void check_incoming(struct grpc_call *call, uint64_t now_ms, uint64_t now_ns)
{
	const struct grpc_server_settings *c = call->session->env->settings;
	bool is_late = call->deadline_ns != 0 && now_ns >= call->deadline_ns;

	if (is_late || (!call->waits && is_behind(call, now_ms, c->message_timeout_ms)))
		refuse(call, 200, GRPC_DEADLINE_EXCEEDED, "the request came in too slowly");
	else if (!call->waits && call->state == CALL_BODY && budget_is_short(c->budget) &&
		 is_behind(call, now_ms, SHORT_GRACE_MS))
		refuse_budget(call);
}

bool grpc_session_check_slow(struct grpc_session *s, uint64_t now_ms)
{
	uint64_t now_ns = clock_mono_ns();
	struct grpc_call *next;

	s->now_ms = now_ms;
	for (struct grpc_call *call = s->calls; call != NULL; call = next) {
		next = call->next;
		if (call->state == CALL_ANSWERED) {
			end_lingering(s, call);
		} else if (call->state != CALL_HEADERS) {
			if (is_incoming(call))
				check_incoming(call, now_ms, now_ns);
		} else if (is_behind(call, now_ms, s->env->settings->message_timeout_ms)) {
			/* In the middle of a header block nothing else can be said. */
			nghttp2_session_terminate_session(s->h2, NGHTTP2_ENHANCE_YOUR_CALM);
			s->wake(s->wake_arg);
			return false;
		}
	}
	return s->n_incoming > 0;
}

void grpc_session_take_turns(struct grpc_session *s, uint64_t now_ms)
{
	s->now_ms = now_ms;
	if (!grpc_session_has_waiting(s))
		return;
	take_turns(s);
	s->wake(s->wake_arg);
}

bool grpc_session_has_waiting(const struct grpc_session *s)
{
	return s->turns.first != NULL;
}

const char *grpc_session_peer(const struct grpc_session *s)
{
	return s->peer;
}

struct loop *grpc_session_loop(const struct grpc_session *s)
{
	return s->env->loop;
}

void grpc_session_env_fini(struct grpc_session_env *env)
{
	while (env->spare != NULL) {
		struct grpc_call *call = env->spare;

		env->spare = call->next;
		grpc_call_delete(call);
	}
	env->n_spare = 0;
}
