/* SPDX-License-Identifier: Apache-2.0
 *
 * tracestate.h - the `ot` member of a W3C tracestate: threshold and randomness of consistent
 * sampling.
 *
 * A threshold T and a randomness R are 56-bit numbers; a trace is kept iff R >= T; its adjusted
 * count is 2^56 / (2^56 - T). Every probabilistic decision of the program goes through here.
 *
 * SPEC: OpenTelemetry tracestate-probability-sampling and tracestate-handling (status Development);
 * W3C Trace Context level 2 for the list syntax. Pure functions, any thread.
 */
#ifndef WIRE_TRACESTATE_H
#define WIRE_TRACESTATE_H

#include "base/base.h"
#include "base/buf.h"
#include "wire/span.h"

#define TRACESTATE_W56 (UINT64_C(1) << 56)

struct tracestate_ot {
	uint64_t th; /* TH_UNKNOWN when absent or malformed */
	uint64_t rv;
	bool has_rv;
	bool malformed; /* an ot member was there and broke the grammar: all of it counts as absent
			 */
};

/* Read the ot member; other members are passed over. Never fails: what is not understood is not
 * there. */
void tracestate_read(struct bytes tracestate, struct tracestate_ot *out);
/* The list with th of `ot` replaced (TH_UNKNOWN, or a threshold nothing passes, erases it),
 * appended to out; other sub-keys and members are kept as they are, `ot` moves to the front. An
 * `ot` that is new to a full list of 32 members pushes the last one out (W3C 3.3.1.5). -1 when `ot`
 * would pass 256 characters or out its cap: nothing is appended. */
int tracestate_write_th(struct bytes tracestate, uint64_t th, struct buf *out);
/* The same with rv replaced as well, behind th. rv < TRACESTATE_W56. */
int tracestate_write_th_rv(struct bytes tracestate, uint64_t th, uint64_t rv, struct buf *out);
/* The low 56 bits of a trace id. */
uint64_t tracestate_randomness(const uint8_t trace_id[16]);
/* Threshold of a probability, to `precision` significant hex digits (1-14; 4 is the
 * recommendation); TRACESTATE_W56 (keep nothing, not encodable) below 2^-56. */
uint64_t tracestate_threshold(double probability, int precision);
double tracestate_probability(uint64_t th);
/* "fd70a": 1 to 14 digits and NUL. th < TRACESTATE_W56. */
void tracestate_format_th(uint64_t th, char out[15]);

#endif
