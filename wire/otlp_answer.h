/* SPDX-License-Identifier: Apache-2.0
 *
 * otlp_answer.h - reading what an OTLP server answered: partial_success, and the message of a
 * google.rpc.Status, in protobuf and in JSON.
 *
 * Never fails: the status said what happened, and damage ends the reading. Any thread.
 * SPEC: OTLP "Partial Success", "Failures"; the responses of all three signals have one shape.
 */
#ifndef WIRE_OTLP_ANSWER_H
#define WIRE_OTLP_ANSWER_H

#include "base/base.h"
#include "base/buf.h"

struct otlp_partial_success {
	uint64_t n_rejected;
	char message[201]; /* cut */
};

void otlp_answer_partial(struct bytes response, bool is_json, struct otlp_partial_success *out);
/* Append the message of a Status, or nothing. */
void otlp_answer_status_message(struct bytes status, bool is_json, struct buf *out);

#endif
