/* SPDX-License-Identifier: Apache-2.0
 *
 * grpc_turns.h - which calls of a crowded connection may send their messages now.
 *
 *   few calls               each has a window for its whole message
 *   many, large ones        each may send the first 16 KiB; then they are let in one by one
 *
 * Hundreds of messages that come in side by side are all incomplete for a long time: their buffers
 * are not in the cache when they are indexed, and so many buffers are fresh pages each time (more
 * than half of what it costs to receive them, docs/performance.md). In turn, a few are under way.
 *
 * Nobody waits for a client that stalls: what was promised to calls TURN_MS ago is forgotten, so
 * that in such a time TURN_BYTES at least are let in (64 MB/s, whatever the network's round trip).
 *
 * THREADS: the loop's. OWNERSHIP: borrows calls, which leave before they go.
 */
#ifndef NET_GRPC_TURNS_H
#define NET_GRPC_TURNS_H

#include "base/base.h"

struct grpc_call;

enum { TURN_FIRST_BYTES = 16 * 1024, TURN_BYTES = 256 * 1024, TURN_MS = 4 };

struct grpc_turns {
	struct grpc_call *first, *last; /* those that wait, in the order they came */
	size_t promised;                /* bytes of those let in this round that are not in yet */
	uint32_t round;
	uint64_t let_in_ms; /* the last of them */
};

/* Wait for a turn. */
void grpc_turns_join(struct grpc_turns *t, struct grpc_call *call);
/* The next that is let in, with the rest of its message promised; NULL: nobody, now. */
struct grpc_call *grpc_turns_next(struct grpc_turns *t, uint64_t now_ms);
/* n bytes of the call's message came in. Harmless for one that has no turn. */
void grpc_turns_came(struct grpc_turns *t, struct grpc_call *call, size_t n);
/* The call's message is complete, or it has ended. Harmless for one that never joined. */
void grpc_turns_leave(struct grpc_turns *t, struct grpc_call *call);

#endif
