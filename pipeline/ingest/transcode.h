/* SPDX-License-Identifier: Apache-2.0
 *
 * transcode.h - a request in another encoding (OTLP JSON, Zipkin) becomes OTLP protobuf, in memory
 * that the budget grants step by step.
 *
 * A decoder writes an output of a size that nobody knows before it ran, and needs tables and copies
 * beside it. All of it hangs on one meter (base/meter.h): what it takes is charged when it is
 * taken, and the decoder stops when the budget says no.
 */
#ifndef PIPELINE_INGEST_TRANSCODE_H
#define PIPELINE_INGEST_TRANSCODE_H

#include "base/arena.h"
#include "base/budget.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/rcbuf.h"

/* Append the OTLP form of `in`, at most max_bytes, to out; scratch from arena. Both have a meter:
 * other memory is charged to it as well. 0, or -1: damaged, ERR_TOO_LARGE when max_bytes were not
 * enough, any error when the meter refused. */
typedef int (*transcode_fn)(struct bytes in, size_t max_bytes, struct arena *arena, struct buf *out,
			    void *arg, struct err *err);

struct transcode {
	transcode_fn decode;
	void *arg;
	unsigned grow_max; /* the output is at most this many times the input (and 4 KiB) */
};

/* Run t over body, whose reference is taken also on error. Returns new ref; NULL: what the decoder
 * said, ERR_EXHAUSTED when the budget refuses now, ERR_TOO_LARGE when it could not even when empty.
 * Any thread. */
struct rcbuf *transcode_body(const struct transcode *t, struct rcbuf *body, struct budget *budget,
			     struct err *err);
/* The same for bytes that stay the caller's. */
struct rcbuf *transcode_bytes(const struct transcode *t, struct bytes in, struct budget *budget,
			      struct err *err);

#endif
