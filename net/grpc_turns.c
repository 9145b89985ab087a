/* SPDX-License-Identifier: Apache-2.0
 *
 * grpc_turns.c - see grpc_turns.h.
 */
#include "net/grpc_turns.h"

#include "net/grpc_call.h"

void grpc_turns_join(struct grpc_turns *t, struct grpc_call *call)
{
	call->waits = true;
	call->next_turn = NULL;
	if (t->last != NULL)
		t->last->next_turn = call;
	else
		t->first = call;
	t->last = call;
}

struct grpc_call *grpc_turns_next(struct grpc_turns *t, uint64_t now_ms)
{
	struct grpc_call *call = t->first;

	if (now_ms - t->let_in_ms >= TURN_MS) {
		t->promised = 0;
		t->round++;
		t->let_in_ms = now_ms;
	}
	if (call == NULL || t->promised >= TURN_BYTES)
		return NULL;
	t->first = call->next_turn;
	if (t->first == NULL)
		t->last = NULL;
	call->waits = false;
	call->round = t->round;
	call->promised = call->length - call->received;
	t->promised += call->promised;
	t->let_in_ms = now_ms;
	return call;
}

void grpc_turns_came(struct grpc_turns *t, struct grpc_call *call, size_t n)
{
	n = MIN(n, call->promised);
	call->promised -= n;
	if (call->round == t->round) /* else it was forgotten */
		t->promised -= n;
}

/* Of those that wait most leave in order; to look for one among them costs what nghttp2's own look
 * at its streams does. */
static void unlink_waiting(struct grpc_turns *t, struct grpc_call *call)
{
	struct grpc_call **p = &t->first, *before = NULL;

	while (*p != call) {
		before = *p;
		p = &before->next_turn;
	}
	*p = call->next_turn;
	if (t->last == call)
		t->last = before;
	call->waits = false;
}

void grpc_turns_leave(struct grpc_turns *t, struct grpc_call *call)
{
	if (call->waits)
		unlink_waiting(t, call);
	grpc_turns_came(t, call, call->promised);
}
