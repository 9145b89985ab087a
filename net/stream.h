/* SPDX-License-Identifier: Apache-2.0
 *
 * stream.h - one connected byte stream on a loop: a non-blocking socket, with TLS on it or not.
 *
 * It reads straight into the caller's memory and copies what is written only when the kernel does
 * not take it. Loop's thread only.
 */
#ifndef NET_STREAM_H
#define NET_STREAM_H

#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"
#include "net/loop.h"
#include "net/tls.h"

#include <sys/uio.h>

struct stream {
	struct loop *loop;
	uv_poll_t poll;
	int fd;
	struct tls_conn *tls; /* NULL: plain */
	struct buf pending;   /* what the kernel did not take yet */
	size_t pending_off;
	int events;  /* what the poll is armed for */
	bool paused; /* do not ask for readable */
	bool dead;   /* an error was reported; nothing more goes in or out */
	bool ended;  /* the peer said its last; writing still works */
	bool closing;
	void (*ready)(struct stream *s, bool readable); /* readable, or no longer blocked */
	void (*closed)(struct stream *s);
};

/* Watch fd (takes it; must be non-blocking) and tls (takes; NULL = plain). ready is called when
 * there is something to read or when a blocked write went through. -1 closes fd and frees tls. */
int stream_open(struct stream *s, struct loop *l, int fd, struct tls_conn *tls,
		void (*ready)(struct stream *s, bool readable), struct err *err);
/* Up to n bytes: > 0, 0 when there is nothing now, -1 at the end or on an error (err says which;
 * a clean end has kind NONE). */
ssize_t stream_read(struct stream *s, uint8_t *to, size_t n, struct err *err);
/* Send all of it; what the kernel does not take is copied. 0, or -1 when the stream is dead. */
int stream_write(struct stream *s, const struct iovec *iov, size_t n, struct err *err);
/* Is something waiting for the kernel? */
bool stream_is_blocked(const struct stream *s);
/* Bytes of memory that what waits takes. */
size_t stream_pending(const struct stream *s);
/* Say to the peer that nothing more comes: TLS's goodbye, and the end of our sending half. Once,
 * when nothing is pending. */
void stream_end(struct stream *s);
/* Stop or go on asking for readable. */
void stream_pause(struct stream *s, bool paused);
/* Close; `closed` is called on a later turn, after which the memory may go. Only once. */
void stream_close(struct stream *s, void (*closed)(struct stream *s));

#endif
