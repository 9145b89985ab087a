/* SPDX-License-Identifier: Apache-2.0
 *
 * span.h - the index of an OTLP trace request: where each span lies in the received bytes, and the
 * few fields that the pipeline decides by.
 *
 *   request  [ResourceSpans [Resource][ScopeSpans [scope][Span....][Span..]] ] [ResourceSpans ...]
 *                                                        ^           ^
 *   spans[]      {p, len, scope 0, ids, times, ...} -----+           |
 *                {p, len, scope 0, ...} -----------------------------+
 *   scopes[]     {resource 0, head: raw fields of the ScopeSpans other than spans}
 *   resources[]  {head: raw fields of the ResourceSpans other than scope_spans}
 *   heads[]      the first n_extras: raw fields of the request other than resource_spans
 *
 * Heads are runs of raw fields, tag and all, so that unknown fields survive byte for byte and field
 * order never matters. Nothing is decoded deeper than a decision needs; everything was validated
 * once by otlp_index.
 *
 * Requests of logs and metrics have the same envelopes with the same numbers, so the same tables
 * serve them: an item, a LogRecord or a Metric, stands where a span does, and only p, len, scope,
 * head_len, ordinal and n_points are of use. What is in an item is nobody's business here.
 *
 * OWNERSHIP: plain data; points into buffers that the owner of the tables keeps alive.
 * SPEC: opentelemetry/proto/trace/v1/trace.proto; docs/formats/otlp.md.
 */
#ifndef WIRE_SPAN_H
#define WIRE_SPAN_H

#include "base/base.h"

/* What a request is of; in the order of the pipelines' enum signals. */
enum otlp_signal { OTLP_TRACES, OTLP_METRICS, OTLP_LOGS, OTLP_SIGNALS };

enum span_kind {
	SPAN_UNSPECIFIED,
	SPAN_INTERNAL,
	SPAN_SERVER,
	SPAN_CLIENT,
	SPAN_PRODUCER,
	SPAN_CONSUMER
};

enum span_status { STATUS_UNSET, STATUS_OK, STATUS_ERROR };

/* The attribute by which a span asks samplers to keep it (a number above 0) or to drop it (0). */
#define SPAN_PRIORITY_KEY "sampling.priority"
/* Why it was kept whatever its R says: SPAN_REASON_EXEMPLAR, when an exemplar names its trace. */
#define SPAN_REASON_KEY "sampling.reason"
#define SPAN_REASON_EXEMPLAR "exemplar"
/* 0 on a span that a sampler kept against its R: others, kept by theirs, stand for it. */
#define SPAN_COUNT_KEY "sampling.adjusted_count"
/* True on a span that an exemplar names; SDKs write one or the other. */
#define SPAN_EXEMPLAR_KEY "exemplar"
#define SPAN_EXEMPLAR_SDK_KEY "otel.exemplar"

/* `th` of a span whose sampling probability is unknown. */
#define TH_UNKNOWN UINT64_MAX

/* 128 bytes: two cache lines, one array per batch. */
struct span_ref {
	const uint8_t *p;           /* the Span message as received */
	const struct bytes *pieces; /* after an edit: the Span as n_pieces slices; else NULL */
	uint32_t len;               /* encoded length: of p, or of all pieces together */
	uint32_t scope;             /* index into scopes[] */
	uint8_t trace_id[16];
	uint8_t span_id[8];
	uint8_t parent_id[8]; /* all zero: root */
	uint64_t start_ns;
	uint64_t end_ns;
	uint64_t r;  /* 56-bit randomness: rv, or the trace id's low 56 bits */
	uint64_t th; /* 56-bit rejection threshold of tracestate ot=th, or TH_UNKNOWN */
	uint32_t name_off, name_len; /* of the name, from p */
	const uint8_t *state;        /* trace_state: in p, or from an edit; NULL: no such field */
	uint32_t state_len;          /* 0: none */
	union {
		uint32_t flags;    /* Span.flags */
		uint32_t n_points; /* of a Metric */
	};
	uint32_t origin;  /* index into the batch's origins[] */
	uint32_t ordinal; /* number of the span within its origin */
	uint8_t kind;     /* enum span_kind, or what the sender wrote */
	uint8_t status;   /* enum span_status, likewise */
	uint8_t head_len; /* of tag and length before p, when canonical; else 0 */
	uint8_t n_pieces;
	bool may_wish; /* false: none of the attributes of span_wish.h, so do not look for them */
	/* Said by processors of this process, of edited and derived batches alike; what is read
	 * back from a log or a broker does not know it. */
	bool takes_slot;   /* the exemplar processor tagged it: it took a slot of a connector */
	bool is_kept;      /* samplers keep it whatever R says */
	bool is_uncounted; /* a sampler kept it against its R: others stand for it (span_weight) */
};

_Static_assert(sizeof(struct span_ref) <= 128, "span_ref fits two cache lines");

struct scope_ref {
	uint32_t resource;     /* index into resources[] */
	uint32_t head, n_head; /* run of heads[] */
	uint32_t head_bytes;   /* their total length */
};

struct resource_ref {
	uint32_t head, n_head;
	uint32_t head_bytes;
};

struct span_tables {
	struct span_ref *spans;
	struct scope_ref *scopes;
	struct resource_ref *resources;
	struct bytes *heads;
	uint32_t n_spans, n_scopes, n_resources, n_heads;
	uint32_t n_extras; /* of heads[]: unknown fields of the request itself */
};

#endif
