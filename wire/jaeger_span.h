/* SPDX-License-Identifier: Apache-2.0
 *
 * jaeger_span.h - the Jaeger span, whatever it was encoded in, and its mapping to OTLP bytes.
 *
 *	jaeger_thrift.c   compact, binary -\
 *	jaeger_proto.c    api_v2            +-> struct jaeger_span -> OTLP, by wire/otlp_groups.h
 *	jaeger_json.c     model.Span       -/
 *
 * A reader fills the batch's one span, whose lists keep their memory, and adds it: so the same span
 * gives the same bytes by every way in. A span that cannot be used is passed over, counted by
 * reason, and the first one is named.
 * OWNERSHIP, THREADS: a batch borrows an arena; what it allocates is charged to that one's meter;
 * one thread at a time.
 * LIMITS: max_bytes bounds the OTLP form; lists are as long as the input backs.
 * SPEC: docs/formats/jaeger.md is the mapping; where it differs from the Collector's:
 * docs/fidelity.md.
 */
#ifndef WIRE_JAEGER_SPAN_H
#define WIRE_JAEGER_SPAN_H

#include "base/arena.h"
#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"
#include "wire/otlp_groups.h"

/* api_v2's numbers. */
enum jaeger_tag_type {
	JAEGER_STRING = 0,
	JAEGER_BOOL = 1,
	JAEGER_INT64 = 2,
	JAEGER_FLOAT64 = 3,
	JAEGER_BINARY = 4,
};

enum jaeger_ref_type { JAEGER_CHILD_OF = 0, JAEGER_FOLLOWS_FROM = 1 };

enum jaeger_flag { JAEGER_SAMPLED = 1, JAEGER_DEBUG = 2 };

/* A service without a name, as the Collector writes it. */
#define JAEGER_NO_SERVICE "OTLPResourceNoServiceName"

struct jaeger_tag {
	struct bytes key;
	struct bytes text; /* STRING, BINARY */
	uint64_t bits;     /* BOOL 0 or 1, INT64, FLOAT64 as its bits */
	uint32_t type;     /* enum jaeger_tag_type, or what the sender wrote */
	bool taken;        /* the mapping's own: it is no attribute any more */
};

struct jaeger_ref {
	uint8_t trace_id[16];
	uint8_t span_id[8];
	uint32_t type; /* enum jaeger_ref_type, or what the sender wrote */
};

struct jaeger_log {
	uint64_t time_ns;
	size_t first, n; /* of the span's log_tags */
};

struct jaeger_process {
	struct bytes service;
	struct jaeger_tag *tags;
	size_t n_tags, cap_tags;
};

/* Strings are borrowed until the span is added. */
struct jaeger_span {
	uint8_t trace_id[16]; /* a 64-bit id has 8 zero bytes in front */
	uint8_t id[8];
	uint8_t parent_id[8]; /* all zero: what the references say */
	uint32_t flags;
	struct bytes name;
	uint64_t start_ns;
	int64_t duration_ns;
	struct jaeger_tag *tags, *log_tags;
	struct jaeger_ref *refs;
	struct jaeger_log *logs;
	struct bytes *warnings;
	size_t n_tags, n_log_tags, n_refs, n_logs, n_warnings;
	size_t cap_tags, cap_log_tags, cap_refs, cap_logs, cap_warnings;
};

/* Why a span was not taken. */
enum jaeger_reason {
	JAEGER_BAD_TRACE_ID, /* missing, of the wrong length, all zero */
	JAEGER_BAD_SPAN_ID,
	JAEGER_BAD_VALUE, /* a member is not what it must be (JSON) */
	JAEGER_BAD_MAX
};

struct jaeger_result {
	size_t n_ok, n_bad;
	size_t n_bad_by[JAEGER_BAD_MAX];
	size_t n_bad_refs;   /* references left out: to an id of zeros or of the wrong length */
	char first_bad[192]; /* `spans[3].spanId: all zero`; empty when n_bad is 0 */
};

struct jaeger_batch {
	struct arena *arena;
	struct otlp_groups groups;
	struct otlp_groups_resource *resource; /* of spans added next */
	struct jaeger_span span;
	struct jaeger_process process; /* for a reader to fill; its tags are kept for the next */
	struct jaeger_result *result;
};

/* "bad_trace_id", ...: for metrics' labels and logs. */
const char *jaeger_reason_name(enum jaeger_reason reason);

/* max_bytes: of the OTLP form, 0 for no limit. result is cleared, and filled as spans come. */
void jaeger_batch_init(struct jaeger_batch *b, struct arena *arena, size_t max_bytes,
		       struct jaeger_result *result);
/* Empty b->process, to be filled; then make it that of the spans added next. */
struct jaeger_process *jaeger_batch_process(struct jaeger_batch *b);
void jaeger_batch_use_process(struct jaeger_batch *b);
/* Empty b->span, to be filled. */
struct jaeger_span *jaeger_batch_span(struct jaeger_batch *b);
/* One more, zeroed but for log_tag's place: for the last log. */
struct jaeger_tag *jaeger_batch_process_tag(struct jaeger_batch *b);
struct jaeger_tag *jaeger_batch_tag(struct jaeger_batch *b);
struct jaeger_tag *jaeger_batch_log_tag(struct jaeger_batch *b);
struct jaeger_log *jaeger_batch_log(struct jaeger_batch *b);
struct jaeger_ref *jaeger_batch_ref(struct jaeger_batch *b);
void jaeger_batch_warning(struct jaeger_batch *b, struct bytes text);
/* Take b->span in; or, its ids being zero, count it as bad. */
void jaeger_batch_add(struct jaeger_batch *b);
/* The span at hand is bad: `spans[N].` and the text name it. */
void jaeger_batch_reject(struct jaeger_batch *b, enum jaeger_reason reason, const char *fmt, ...)
	PRINTF_LIKE(3, 4);
/* Append the ExportTraceServiceRequest to out. 0, or -1 with out as it was: ERR_TOO_LARGE. */
int jaeger_batch_encode(struct jaeger_batch *b, struct buf *out, struct err *err) MUST_CHECK;
void jaeger_batch_fini(struct jaeger_batch *b);

/* Microseconds or seconds and nanoseconds since 1970 to nanoseconds: below 0 is 0, and the end of
 * time is where 64 bits end. */
uint64_t jaeger_time_us(int64_t us);
uint64_t jaeger_time(int64_t seconds, int32_t nanos);
/* A length of time; both ends are where 64 bits end. */
int64_t jaeger_duration(int64_t seconds, int64_t nanos);

#endif
