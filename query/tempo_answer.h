/* SPDX-License-Identifier: Apache-2.0
 *
 * tempo_answer.h - reading what another query node answered: a protobuf TraceByIDResponse.
 *
 * The bytes are hostile: a server that is none of ours may stand behind the address. An answer is
 * taken as a whole or not at all, and only when every span in it is of the trace that was asked
 * for.
 * THREADS: pure functions, any thread. LIMITS: the caller bounds the body; messages are cut.
 * SPEC: tempopb TraceByIDResponse {1 trace, 2 metrics {1 inspected_bytes}, 3 status, 4 message}.
 */
#ifndef QUERY_TEMPO_ANSWER_H
#define QUERY_TEMPO_ANSWER_H

#include "base/base.h"
#include "base/err.h"

enum { TEMPO_ANSWER_MESSAGE = 200 };

struct tempo_answer {
	struct bytes trace; /* TracesData; borrows from the body */
	uint64_t inspected_bytes;
	bool is_partial;
	char message[TEMPO_ANSWER_MESSAGE]; /* why, printable ASCII; "" when not said */
};

/* CORRUPT: no such message, or spans of another trace than `id`; the text says which. An id of a
 * length that trace ids do not have is let through, as blocks of others may hold them. */
int tempo_answer_parse(struct bytes body, const uint8_t id[16], struct tempo_answer *a,
		       struct err *err);

#endif
