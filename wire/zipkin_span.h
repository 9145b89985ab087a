/* SPDX-License-Identifier: Apache-2.0
 *
 * zipkin_span.h - the Zipkin v2 span, whatever it was encoded in, and its mapping to OTLP bytes.
 *
 * The readers (JSON; protobuf and thrift) fill one struct zipkin_span at a time and add it to a
 * batch, which writes it as OTLP protobuf at once; wire/otlp_groups.h joins what belongs
 * together.
 * OWNERSHIP, THREADS: a batch borrows an arena for its tables; one thread at a time.
 * LIMITS: max_bytes bounds spans and result alike.
 * SPEC: docs/formats/zipkin.md is the mapping, and where it differs from the Collector's.
 */
#ifndef WIRE_ZIPKIN_SPAN_H
#define WIRE_ZIPKIN_SPAN_H

#include "base/arena.h"
#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"
#include "wire/otlp_groups.h"

/* OTLP's numbers, so that the mapping is none. */
enum zipkin_span_kind {
	ZIPKIN_KIND_NONE = 0,
	ZIPKIN_KIND_SERVER = 2,
	ZIPKIN_KIND_CLIENT = 3,
	ZIPKIN_KIND_PRODUCER = 4,
	ZIPKIN_KIND_CONSUMER = 5,
};

struct zipkin_span_endpoint {
	struct bytes service; /* empty: none */
	uint8_t ip[16];
	uint8_t ip_len;  /* 0, 4 or 16 */
	uint8_t ipv4[4]; /* beside an IPv6 address, when has_ipv4 */
	bool has_ipv4;
	uint16_t port; /* 0: none */
};

/* Where a tag belongs in OTLP. */
enum zipkin_tag_place { ZIPKIN_TAG_SPAN, ZIPKIN_TAG_RESOURCE, ZIPKIN_TAG_SCOPE };

/* Thrift's binary annotations know more than text. */
enum zipkin_tag_type { ZIPKIN_TAG_TEXT, ZIPKIN_TAG_BOOL, ZIPKIN_TAG_INT, ZIPKIN_TAG_DOUBLE };

struct zipkin_span_tag {
	struct bytes key, value; /* value is text in any case */
	enum zipkin_tag_type type;
	uint64_t bits; /* BOOL, INT, DOUBLE: the value */
	/* The mapping's own: */
	bool taken; /* it is no attribute any more */
	enum zipkin_tag_place place;
};

struct zipkin_span_annotation {
	uint64_t timestamp_us;
	struct bytes value;
};

/* Borrows all it points to until zipkin_span_batch_add returns. */
struct zipkin_span {
	uint8_t trace_id[16]; /* a 64-bit id has 8 zero bytes in front */
	uint8_t id[8];
	uint8_t parent_id[8]; /* all zero, or equal to id: a root */
	enum zipkin_span_kind kind;
	bool debug, shared;
	struct bytes name;
	uint64_t timestamp_us; /* 0: absent */
	uint64_t duration_us;  /* 0: absent */
	struct zipkin_span_endpoint local, remote;
	struct zipkin_span_tag *tags;
	size_t n_tags;
	const struct zipkin_span_annotation *annotations;
	size_t n_annotations;
};

struct zipkin_span_batch {
	struct arena *arena;
	struct otlp_groups groups;
	bool typed_tags; /* may be set after init: parse_string_tags */
};

/* A span's lists, grown by a reader and used again for the next span. */
struct zipkin_span_room {
	struct zipkin_span_tag *tags;
	struct zipkin_span_annotation *annotations;
	size_t n_tags, cap_tags, n_annotations, cap_annotations;
};

/* One more; the caller fills it. Charged to the arena's meter. */
struct zipkin_span_tag *zipkin_span_room_tag(struct zipkin_span_room *r, struct arena *arena);
struct zipkin_span_annotation *zipkin_span_room_annotation(struct zipkin_span_room *r,
							   struct arena *arena);
static inline void zipkin_span_room_reset(struct zipkin_span_room *r)
{
	r->n_tags = r->n_annotations = 0;
}
/* sp has the lists until the next reset. */
static inline void zipkin_span_room_lend(const struct zipkin_span_room *r, struct zipkin_span *sp)
{
	sp->tags = r->tags;
	sp->n_tags = r->n_tags;
	sp->annotations = r->annotations;
	sp->n_annotations = r->n_annotations;
}
void zipkin_span_room_fini(struct zipkin_span_room *r);

/* Text to address: IPv4 or IPv6, whichever it is; an IPv4-mapped one becomes IPv4. When both
 * are there `ip` is the IPv6 one. Text that is neither is ignored. */
void zipkin_span_endpoint_ip(struct zipkin_span_endpoint *ep, struct bytes text);
/* The same for 4 or 16 bytes. */
void zipkin_span_endpoint_bytes(struct zipkin_span_endpoint *ep, struct bytes ip);

/* The address as text, which is in `text` (INET6_ADDRSTRLEN bytes); ip_len must not be 0. */
struct bytes zipkin_span_ip_text(const struct zipkin_span_endpoint *ep, char *text);
/* The same for the IPv4 address beside it; has_ipv4 must be set. */
struct bytes zipkin_span_ipv4_text(const struct zipkin_span_endpoint *ep, char *text);
/* Is a tag of this key an attribute of the resource? */
bool zipkin_span_is_resource_key(struct bytes key);

/* max_bytes: of the spans' OTLP form, 0 for no limit. */
void zipkin_span_batch_init(struct zipkin_span_batch *b, struct arena *arena, size_t max_bytes);
/* Write one span. Ids must be right (trace id and id not all zero) and text UTF-8: the reader
 * judges. Only the cap can be in the way, which zipkin_span_batch_encode reports. */
void zipkin_span_batch_add(struct zipkin_span_batch *b, struct zipkin_span *sp);
/* Append the ExportTraceServiceRequest to out. 0, or -1 with out as it was: ERR_TOO_LARGE. */
int zipkin_span_batch_encode(struct zipkin_span_batch *b, struct buf *out,
			     struct err *err) MUST_CHECK;
void zipkin_span_batch_fini(struct zipkin_span_batch *b);

#endif
