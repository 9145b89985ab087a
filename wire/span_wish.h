/* SPDX-License-Identifier: Apache-2.0
 *
 * span_wish.h - whether a span asks samplers to keep or to drop it, whatever its R says.
 *
 *   sampling.priority (a number)     0: drop, above: keep, below: says nothing
 *   is_kept                          a keep record: a processor of this process decided so
 *   sampling.reason = exemplar       the same, of another process: an exemplar names its trace
 *
 * A span with a keep record is kept by its R or against it. By it: as any other, with its th.
 * Against it (R < T): no th is true of it, so the sampler erases that and writes
 * sampling.adjusted_count = 0: those that are kept by their R stand for it already.
 *
 * SPEC: the Collector's probabilistic_sampler (sampling.priority); docs/exemplars.md.
 */
#ifndef WIRE_SPAN_WISH_H
#define WIRE_SPAN_WISH_H

#include "wire/span.h"

enum span_wish { WISH_NONE, WISH_DROP, WISH_KEEP, WISH_RECORD };

/* The span's own attributes are walked only when the index saw one of these keys. What a sender
 * wishes goes before what reached us by an exemplar. */
enum span_wish span_wish(const struct span_ref *sp);

/* How many spans of the unsampled traffic it stands for: 2^56 / (2^56 - th), 0 when it was kept
 * against its R, and 1 when nobody knows (*is_unknown), also because its th says what cannot be. */
double span_weight(const struct span_ref *sp, bool *is_unknown);

/* Does an SDK say that an exemplar names this span: `exemplar` (client_java) or `otel.exemplar` is
 * true or "true"? */
bool span_is_hinted(const struct span_ref *sp);

/* The value (an AnyValue's content) of the span's first attribute with this key; false: none. */
bool span_attribute(const struct span_ref *sp, struct bytes key, struct bytes *value);

#endif
