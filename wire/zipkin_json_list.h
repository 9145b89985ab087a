/* SPDX-License-Identifier: Apache-2.0
 *
 * zipkin_json_list.h - a JSON list of Zipkin spans of either version: the walk over the list, and
 * the members that both versions have.
 *
 *	zipkin_json_list_decode -> begin, member, member, .., add -> begin, ..
 *
 * A version embeds struct zipkin_json_list in its decoder and says what is its own by
 * three calls. Every reader returns 0 (fine), ZIPKIN_JSON_SPAN_BAD (this span is of no use; the
 * reason is noted) or -1 (the text is damaged, *err is set). After SPAN_BAD the rest of the span is
 * passed over, still checked.
 * THREADS: any, one at a time for a list. SPEC: docs/formats/zipkin.md ("Reading").
 */
#ifndef WIRE_ZIPKIN_JSON_LIST_H
#define WIRE_ZIPKIN_JSON_LIST_H

#include "wire/json_reader.h"
#include "wire/zipkin_result.h"
#include "wire/zipkin_span.h"

enum { ZIPKIN_JSON_SPAN_BAD = 1 };

struct zipkin_json_list {
	void (*begin)(struct zipkin_json_list *l); /* forget the span before */
	/* One member that is not null and valid UTF-8. The value is read or skipped. */
	int (*member)(struct zipkin_json_list *l, const struct json_value *v);
	void (*add)(struct zipkin_json_list *l); /* the span is whole: add it to the batch */

	struct json_reader r;
	struct zipkin_span_batch batch;
	struct zipkin_span_room room; /* a span's lists, kept for the next one */
	size_t position;              /* in the list */
	bool has_trace_id, has_id;
	struct zipkin_result *result;
	struct err *err;
};

/* As zipkin_json_decode (wire/zipkin_json.h), by the three calls of l; l's other members are set
 * here. */
int zipkin_json_list_decode(struct zipkin_json_list *l, struct bytes json, size_t max_bytes,
			    bool typed_tags, struct arena *arena, struct buf *out,
			    struct zipkin_result *result, struct err *err) MUST_CHECK;

/* Count the span and, when it is the first, name it: `[0].id: "not hex"`. field may be "" (the span
 * itself) and v NULL (missing). Returns ZIPKIN_JSON_SPAN_BAD. */
int zipkin_json_bad(struct zipkin_json_list *l, enum zipkin_reason reason, const char *field,
		    const struct json_value *v);

/* Ids of 16 and of 8 bytes; an empty parent id is none, as null is. */
int zipkin_json_read_trace_id(struct zipkin_json_list *l, const struct json_value *v, uint8_t *id);
int zipkin_json_read_id(struct zipkin_json_list *l, const struct json_value *v, uint8_t *id);
int zipkin_json_read_parent_id(struct zipkin_json_list *l, const struct json_value *v, uint8_t *id);
int zipkin_json_read_us(struct zipkin_json_list *l, const char *field, const struct json_value *v,
			uint64_t *us);
/* null is none. */
int zipkin_json_read_endpoint(struct zipkin_json_list *l, const char *field,
			      const struct json_value *v, struct zipkin_span_endpoint *ep);
/* `read` gets each object of the array v opened; other elements are passed over. */
int zipkin_json_read_objects(struct zipkin_json_list *l, const char *field,
			     const struct json_value *v, int (*read)(struct zipkin_json_list *l));
/* `tag` gets each member of the object v that has a scalar for a value; others are passed over. */
int zipkin_json_read_tags(struct zipkin_json_list *l, const struct json_value *v,
			  void (*tag)(struct zipkin_json_list *l, struct bytes key,
				      struct bytes value));

#endif
