/* SPDX-License-Identifier: Apache-2.0
 *
 * grpc_link.c - see grpc_link.h.
 *
 * DESIGN: a message is gathered from the caller's pieces by iovec (nghttp2's NO_COPY frames) and
 * handed to the kernel in the same turn, so borrowed bytes never outlive their call; only pieces
 * under SMALL_PIECE are copied, because an iovec costs more than they do.
 *
 *   nghttp2 -> [frame headers and small pieces: copy][borrowed pieces] -> one sendmsg
 *
 * A stream that is given up is forgotten at once (its user data is cleared): nghttp2 then finds
 * nothing to read for it and resets it.
 * OWNERSHIP, THREADS: owned by the client's list; frees itself when libuv lets go of it.
 * LIMITS: answers by max_recv_msg_bytes, header lists by nghttp2 (64 KiB).
 */
#include "net/grpc_link.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	SMALL_PIECE = 1024,
	TURN_BYTES = 256 * 1024,
	FRAME_MAX = 16 * 1024,
	IOVS_PER_FRAME = 2 + 2 * FRAME_MAX / SMALL_PIECE,
	WINDOW_BYTES = 1024 * 1024,
	MESSAGE_MAX = 4096, /* bytes of grpc-message that are kept */
	DOUBTS_MAX = 2,     /* pings a server gets without an answer in between: it may object */
};

/* ---- the calls of a link ---- */

static void unlink_call(struct grpc_link *k, struct grpc_client_call *call)
{
	if (call->prev != NULL)
		call->prev->next = call->next;
	else
		k->calls = call->next;
	if (call->next != NULL)
		call->next->prev = call->prev;
	call->next = call->prev = NULL;
	call->link = NULL;
}

static struct grpc_client_call *call_of(nghttp2_session *h2, int32_t stream_id)
{
	return nghttp2_session_get_stream_user_data(h2, stream_id);
}

/* ---- sending ---- */

/* How much of the message the next frame takes; the bytes follow in send_data. */
static ssize_t read_request(nghttp2_session *h2, int32_t stream_id, uint8_t *to, size_t n,
			    uint32_t *flags, nghttp2_data_source *source, void *arg)
{
	struct grpc_client_call *call = call_of(h2, stream_id);

	(void)to;
	(void)source;
	(void)arg;
	if (call == NULL)
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	n = MIN(n, call->unread);
	call->unread -= n;
	*flags |= NGHTTP2_DATA_FLAG_NO_COPY;
	if (call->unread == 0)
		*flags |= NGHTTP2_DATA_FLAG_EOF;
	return (ssize_t)n;
}

static void add_iov(struct grpc_link *k, const uint8_t *p, size_t n)
{
	struct iovec *last = k->n_iov > 0 ? &k->iov[k->n_iov - 1] : NULL;

	if (last != NULL && (const uint8_t *)last->iov_base + last->iov_len == p)
		last->iov_len += n;
	else
		k->iov[k->n_iov++] = (struct iovec){ (uint8_t *)(uintptr_t)p, n };
}

static void add_copy(struct grpc_link *k, const uint8_t *p, size_t n)
{
	memcpy(k->copy + k->copy_n, p, n);
	add_iov(k, k->copy + k->copy_n, n);
	k->copy_n += n;
}

static bool has_room(const struct grpc_link *k)
{
	return k->n_iov + IOVS_PER_FRAME <= GRPC_LINK_IOVS &&
	       k->copy_n + FRAME_MAX + 64 <= GRPC_LINK_COPY_BYTES;
}

static int send_data(nghttp2_session *h2, nghttp2_frame *frame, const uint8_t *head, size_t n,
		     nghttp2_data_source *source, void *arg)
{
	struct grpc_client_call *call = call_of(h2, frame->hd.stream_id);
	struct grpc_link *k = arg;

	(void)source;
	if (call == NULL)
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	if (!has_room(k)) {
		k->full = true;
		return NGHTTP2_ERR_WOULDBLOCK;
	}
	add_copy(k, head, 9);
	while (n > 0) {
		struct bytes piece = call->pieces[call->piece];
		size_t take = MIN(n, piece.n - call->piece_off);

		if (take < SMALL_PIECE)
			add_copy(k, piece.p + call->piece_off, take);
		else
			add_iov(k, piece.p + call->piece_off, take);
		n -= take;
		call->piece_off += take;
		if (call->piece_off == piece.n) {
			call->piece++;
			call->piece_off = 0;
		}
	}
	return 0;
}

/* Collect up to about TURN_BYTES; false when nghttp2 has no more to say now. */
static bool collect(struct grpc_link *k)
{
	const uint8_t *p;
	ssize_t n = 1;

	k->n_iov = k->copy_n = 0;
	k->full = false;
	while (n > 0 && has_room(k)) {
		n = nghttp2_session_mem_send(k->h2, &p);
		/* At most a frame, for which has_room kept space. */
		if (n > 0 && (size_t)n <= GRPC_LINK_COPY_BYTES - k->copy_n)
			add_copy(k, p, (size_t)n);
		else if (n > 0)
			return false;
	}
	return n > 0 || k->full;
}

void grpc_link_flush(struct grpc_link *k)
{
	struct err err = ERR_INIT;
	bool more = true;

	while (more && !stream_is_blocked(&k->stream)) {
		more = collect(k);
		if (k->n_iov > 0 && stream_write(&k->stream, k->iov, k->n_iov, &err) < 0) {
			grpc_link_close(k, err.msg);
			return;
		}
	}
	if (stream_is_blocked(&k->stream))
		return;
	if ((nghttp2_session_want_read(k->h2) == 0 && nghttp2_session_want_write(k->h2) == 0) ||
	    (k->target == NULL && k->calls == NULL))
		grpc_link_close(k, "connection closed by the server");
}

/* ---- receiving ---- */

static void take_status(struct grpc_client_call *call, struct bytes v)
{
	uint64_t n;

	call->status = str_to_u64(v, &n) == 0 && n <= GRPC_UNAUTHENTICATED ? (int)n : GRPC_UNKNOWN;
}

static int on_header(nghttp2_session *h2, const nghttp2_frame *frame, const uint8_t *name,
		     size_t name_n, const uint8_t *value, size_t value_n, uint8_t flags, void *arg)
{
	struct grpc_client_call *call = call_of(h2, frame->hd.stream_id);
	struct bytes n = { name, name_n }, v = { value, value_n };
	uint64_t status;
	int found;

	(void)flags;
	(void)arg;
	if (call == NULL)
		return 0;
	if (bytes_eq_str(n, ":status") && str_to_u64(v, &status) == 0) {
		call->http_status = (unsigned)status;
	} else if (bytes_eq_str(n, "grpc-status")) {
		take_status(call, v);
	} else if (bytes_eq_str(n, "grpc-message")) {
		buf_reset(&call->message);
		v.n = MIN(v.n, MESSAGE_MAX);
		grpc_status_decode_message(v, &call->message);
	} else if (bytes_eq_str(n, "grpc-status-details-bin")) {
		found = grpc_status_decode_details(v, &call->retry_after_ms);
		call->has_retry_info = found == 1;
	} else if (bytes_eq_str(n, "grpc-encoding")) {
		content_coding_parse(v, &call->coding);
	}
	return 0;
}

static int on_data(nghttp2_session *h2, uint8_t flags, int32_t stream_id, const uint8_t *p,
		   size_t n, void *arg)
{
	struct grpc_client_call *call = call_of(h2, stream_id);
	struct grpc_link *k = arg;

	(void)flags;
	if (call == NULL || call->too_large)
		return 0;
	if (call->response.n + n > grpc_client_env(k->client)->max_recv_msg_bytes + 5) {
		call->too_large = true;
		nghttp2_submit_rst_stream(h2, NGHTTP2_FLAG_NONE, stream_id, NGHTTP2_CANCEL);
		return 0;
	}
	buf_add(&call->response, p, n);
	return 0;
}

/* A stream that ended without grpc-status. */
static void finish_without_status(struct grpc_client_call *call, uint32_t code)
{
	struct buf text = BUF_INIT;

	if (call->too_large) {
		grpc_client_finish(call, GRPC_RESOURCE_EXHAUSTED,
				   "the answer is larger than max_recv_msg_size");
	} else if (code == NGHTTP2_REFUSED_STREAM && !call->again) {
		grpc_client_requeue(call);
	} else if (call->http_status != 0 && call->http_status != 200) {
		buf_printf(&text, "unexpected HTTP status %u", call->http_status);
		grpc_client_finish(call, grpc_status_of_http(call->http_status), buf_cstr(&text));
	} else {
		buf_printf(&text, "the server reset the stream: %s", nghttp2_http2_strerror(code));
		grpc_client_finish(call,
				   code == NGHTTP2_REFUSED_STREAM      ? GRPC_UNAVAILABLE
				   : code == NGHTTP2_CANCEL            ? GRPC_CANCELLED
				   : code == NGHTTP2_ENHANCE_YOUR_CALM ? GRPC_RESOURCE_EXHAUSTED
								       : GRPC_INTERNAL,
				   buf_cstr(&text));
	}
	buf_fini(&text);
}

static int on_stream_close(nghttp2_session *h2, int32_t stream_id, uint32_t code, void *arg)
{
	struct grpc_client_call *call = call_of(h2, stream_id);
	struct grpc_link *k = arg;

	if (call == NULL)
		return 0;
	nghttp2_session_set_stream_user_data(h2, stream_id, NULL);
	unlink_call(k, call);
	if (call->status < 0)
		finish_without_status(call, code);
	else
		grpc_client_finish(call, (enum grpc_status)call->status, buf_cstr(&call->message));
	return 0;
}

static int on_frame(nghttp2_session *h2, const nghttp2_frame *frame, void *arg)
{
	struct grpc_link *k = arg;

	(void)h2;
	if (frame->hd.type == NGHTTP2_SETTINGS && !k->ready &&
	    (frame->hd.flags & NGHTTP2_FLAG_ACK) == 0) {
		k->ready = true;
		grpc_client_link_ready(k);
	} else if (frame->hd.type == NGHTTP2_HEADERS) {
		k->n_doubts = 0;
	} else if (frame->hd.type == NGHTTP2_GOAWAY && k->target != NULL) {
		grpc_client_link_lost(k, NULL);
	}
	return 0;
}

/* Our HEADERS could not go out: a GOAWAY came between. on_stream_close then finds nothing. */
static int on_not_sent(nghttp2_session *h2, const nghttp2_frame *frame, int code, void *arg)
{
	struct grpc_client_call *call = call_of(h2, frame->hd.stream_id);
	struct grpc_link *k = arg;

	(void)code;
	if (frame->hd.type != NGHTTP2_HEADERS || call == NULL)
		return 0;
	nghttp2_session_set_stream_user_data(h2, frame->hd.stream_id, NULL);
	unlink_call(k, call);
	if (call->again)
		grpc_client_finish(call, GRPC_UNAVAILABLE, "the connection takes no more calls");
	else
		grpc_client_requeue(call);
	return 0;
}

static void ready(struct stream *stream, bool readable)
{
	struct grpc_link *k = CONTAINER_OF(stream, struct grpc_link, stream);
	uint8_t *scratch = loop_scratch(stream->loop);
	struct err err = ERR_INIT;
	ssize_t n, rc;

	grpc_client_mark_dirty(k);
	if (!readable)
		return;
	n = stream_read(stream, scratch, LOOP_SCRATCH_BYTES, &err);
	if (n < 0) {
		grpc_link_close(k,
				err.kind != ERR_NONE ? err.msg : "connection closed by the server");
		return;
	}
	if (n == 0)
		return;
	k->heard_ms = uv_now(loop_uv(stream->loop));
	k->pinged = k->doubted = false;
	rc = nghttp2_session_mem_recv(k->h2, scratch, (size_t)n);
	if (rc < 0)
		grpc_link_close(k, nghttp2_strerror((int)rc));
}

/* ---- life ---- */

/* Ask for a sign of life; timer_rang closes the connection when none comes. */
static void ping(struct grpc_link *k)
{
	const struct grpc_link_env *env = grpc_client_env(k->client);

	k->pinged = true;
	nghttp2_submit_ping(k->h2, NGHTTP2_FLAG_NONE, NULL);
	grpc_client_mark_dirty(k);
	loop_timer_start(env->loop, &k->timer, env->keepalive_timeout_ms);
}

static void timer_rang(void *arg)
{
	struct grpc_link *k = arg;
	const struct grpc_link_env *env = grpc_client_env(k->client);
	uint64_t now = uv_now(loop_uv(env->loop)), due;

	if (!k->ready) {
		grpc_link_close(k, "connect timed out");
		return;
	}
	if (k->pinged) {
		grpc_link_close(k, k->doubted ? "no answer to a call and to a ping"
					      : "keepalive timed out");
		return;
	}
	if (env->keepalive_time_ms == 0)
		return;
	due = k->heard_ms + env->keepalive_time_ms;
	if (due <= now && (env->keepalive_idle || k->calls != NULL))
		ping(k);
	else
		loop_timer_start(env->loop, &k->timer,
				 due > now ? due - now : env->keepalive_time_ms);
}

void grpc_link_doubt(struct grpc_link *k, uint64_t since_ms)
{
	if (k->closed || !k->ready || k->heard_ms > since_ms || k->n_doubts >= DOUBTS_MAX)
		return;
	k->n_doubts += !k->doubted;
	k->doubted = true;
	if (!k->pinged)
		ping(k);
}

static int dial(const struct grpc_target *t, struct err *err)
{
	int fd = socket(t->addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int on = 1;

	if (fd < 0)
		return err_errno(err, "connect to %s", t->text);
	if (t->addr.ss_family != AF_UNIX)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (connect(fd, (const struct sockaddr *)&t->addr, t->addr_n) == 0 || errno == EINPROGRESS)
		return fd;
	err_errno(err, "connect to %s", t->text);
	close(fd);
	return -1;
}

static nghttp2_session *new_h2(struct grpc_link *k)
{
	static const nghttp2_settings_entry settings[] = {
		{ NGHTTP2_SETTINGS_ENABLE_PUSH, 0 },
		{ NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WINDOW_BYTES },
		{ NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, 16 * 1024 },
	};
	nghttp2_session_callbacks *cb = NULL;
	nghttp2_session *h2 = NULL;

	if (nghttp2_session_callbacks_new(&cb) != 0)
		abort(); /* out of memory, as xmalloc */
	nghttp2_session_callbacks_set_send_data_callback(cb, send_data);
	nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
	nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame);
	nghttp2_session_callbacks_set_on_frame_not_send_callback(cb, on_not_sent);
	nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
	if (nghttp2_session_client_new(&h2, cb, k) != 0)
		abort();
	nghttp2_session_callbacks_del(cb);
	nghttp2_submit_settings(h2, NGHTTP2_FLAG_NONE, settings, COUNT_OF(settings));
	nghttp2_session_set_local_window_size(h2, NGHTTP2_FLAG_NONE, 0, 4 * WINDOW_BYTES);
	return h2;
}

struct grpc_link *grpc_link_new(struct grpc_client *client, struct grpc_target *t, struct err *err)
{
	const struct grpc_link_env *env = grpc_client_env(client);
	struct grpc_link *k = xcalloc(1, sizeof(*k));
	struct tls_conn *tls = NULL;
	int fd = dial(t, err);

	if (fd < 0)
		goto fail;
	if (env->tls != NULL && (tls = tls_conn_new(env->tls, fd, env->host, err)) == NULL) {
		close(fd);
		goto fail;
	}
	if (stream_open(&k->stream, env->loop, fd, tls, ready, err) < 0)
		goto fail;
	k->client = client;
	k->target = t;
	k->iov = env->iov;
	k->copy = env->copy;
	memcpy(k->peer, t->text, sizeof(k->peer));
	k->opened_ms = k->heard_ms = uv_now(loop_uv(env->loop));
	k->timer = (struct loop_timer){ .fn = timer_rang, .arg = k };
	loop_timer_start(env->loop, &k->timer, env->connect_timeout_ms);
	k->h2 = new_h2(k);
	return k;
fail:
	free(k);
	return NULL;
}

int grpc_link_start(struct grpc_link *k, struct grpc_client_call *call)
{
	nghttp2_data_provider data = { .source = { .ptr = NULL }, .read_callback = read_request };
	nghttp2_nv *nv = xmalloc((call->n_fields + 1) * sizeof(*nv));
	uint64_t now = clock_mono_ns();
	uint8_t *p = call->fields.p;
	size_t n_fields = call->n_fields;
	char timeout[16];

	for (size_t i = 0; i < call->n_fields; i++) {
		size_t n = load_le32(p), v = load_le32(p + 4);

		nv[i] = (nghttp2_nv){ p + 8, p + 8 + n, n, v, NGHTTP2_NV_FLAG_NONE };
		p += 8 + n + v;
	}
	/* Only now, because the server counts from the arrival of this. */
	if (call->deadline_ns != 0) {
		grpc_status_format_timeout(call->deadline_ns > now ? call->deadline_ns - now : 1,
					   timeout);
		nv[n_fields++] =
			(nghttp2_nv){ (uint8_t *)(uintptr_t) "grpc-timeout", (uint8_t *)timeout, 12,
				      strlen(timeout), NGHTTP2_NV_FLAG_NONE };
	}
	call->stream_id = nghttp2_submit_request(k->h2, NULL, nv, n_fields, &data, call);
	free(nv);
	if (call->stream_id < 0)
		return -1;
	call->link = k;
	call->started_ms = uv_now(loop_uv(k->stream.loop));
	call->prev = NULL;
	call->next = k->calls;
	if (k->calls != NULL)
		k->calls->prev = call;
	k->calls = call;
	grpc_client_mark_dirty(k);
	return 0;
}

void grpc_link_drop(struct grpc_link *k, struct grpc_client_call *call)
{
	nghttp2_session_set_stream_user_data(k->h2, call->stream_id, NULL);
	nghttp2_submit_rst_stream(k->h2, NGHTTP2_FLAG_NONE, call->stream_id, NGHTTP2_CANCEL);
	unlink_call(k, call);
	grpc_client_mark_dirty(k);
}

void grpc_link_retire(struct grpc_link *k)
{
	k->target = NULL;
	grpc_client_mark_dirty(k);
}

static void link_closed(struct stream *stream)
{
	struct grpc_link *k = CONTAINER_OF(stream, struct grpc_link, stream);

	grpc_client_link_freed(k);
	free(k);
}

void grpc_link_close(struct grpc_link *k, const char *why)
{
	struct buf text = BUF_INIT;

	if (k->closed)
		return;
	k->closed = true;
	buf_printf(&text, "%s: %s", k->peer, why);
	log_debug("grpc connection closed", "peer", k->peer, "reason", why);
	loop_timer_stop(k->stream.loop, &k->timer);
	grpc_client_unmark(k);
	if (k->target != NULL)
		grpc_client_link_lost(k, buf_cstr(&text));
	nghttp2_session_del(k->h2);
	k->h2 = NULL;
	stream_close(&k->stream, link_closed);
	while (k->calls != NULL) {
		struct grpc_client_call *call = k->calls;

		unlink_call(k, call);
		if (call->status >= 0)
			grpc_client_finish(call, (enum grpc_status)call->status,
					   buf_cstr(&call->message));
		else
			grpc_client_finish(call, GRPC_UNAVAILABLE, buf_cstr(&text));
	}
	buf_fini(&text);
}
