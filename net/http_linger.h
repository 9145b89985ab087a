/* SPDX-License-Identifier: Apache-2.0
 *
 * http_linger.h - keeps reading and throwing away what a refused client still sends.
 *
 * A close with unread bytes makes the kernel send RST, and a client that sends everything before it
 * reads then sees EPIPE instead of its 413. So a duplicate of the descriptor outlives the
 * connection until the client closes, LINGER_MS pass or LINGER_BYTES went by; at most
 * LINGER_MAX at a time. Objects of one loop.
 */
#ifndef NET_HTTP_LINGER_H
#define NET_HTTP_LINGER_H

#include "base/base.h"

#include <uv.h>

struct http_linger;

struct http_lingers {
	uv_loop_t *loop;
	struct http_linger *first;
	unsigned n;
};

/* Start for a duplicate of fd, which stays its owner's. Does nothing when too many linger already.
 */
void http_linger_start(struct http_lingers *all, int fd);
/* Close all of them now. */
void http_linger_stop_all(struct http_lingers *all);

#endif
