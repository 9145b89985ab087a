/* SPDX-License-Identifier: Apache-2.0
 *
 * xml_reader.h - a pull reader over one small XML text, as object stores and STS send it.
 *
 * DESIGN: no tree. The reader goes forward and says where elements open and close; what a leaf
 * holds comes with its close, entities decoded. The subset is what such answers need: elements,
 * attributes (skipped), text, CDATA, comments, processing instructions. A document type is refused,
 * so there are no entities but the five of XML and numbers.
 *
 *	xml_reader_init(&r, answer);
 *	while ((got = xml_reader_next(&r, &item, err)) > 0)
 *		if (item.kind == XML_CLOSE && item.depth == 2 && bytes_eq_str(item.name, "Key"))
 *			use(item.text);
 *	xml_reader_fini(&r);
 *
 * OWNERSHIP, THREADS: borrows the text; owns one buffer; one thread.
 * LIMITS: XML_DEPTH_MAX levels; time and memory are linear in the text.
 * SPEC: XML 1.0 without document types. Errors are ERR_INVALID: "xml: byte <offset>: <what>".
 */
#ifndef WIRE_XML_READER_H
#define WIRE_XML_READER_H

#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"

enum { XML_DEPTH_MAX = 16 };

enum xml_kind { XML_OPEN, XML_CLOSE };

struct xml_item {
	enum xml_kind kind;
	struct bytes name; /* without a namespace prefix; lives as long as the text */
	unsigned depth;    /* of the element: the root has 1 */
	struct bytes
		text; /* CLOSE: what is between the last tag and this one; until the next call */
};

struct xml_reader {
	const uint8_t *start, *p, *end;
	struct bytes open[XML_DEPTH_MAX]; /* names with their prefixes */
	unsigned depth;
	bool is_empty; /* <a/>: its close comes next */
	bool has_root;
	struct buf text;
};

void xml_reader_init(struct xml_reader *r, struct bytes text);
/* 1 with *item, 0 at the end of a well-formed text, -1 damaged. */
int xml_reader_next(struct xml_reader *r, struct xml_item *item, struct err *err) MUST_CHECK;
void xml_reader_fini(struct xml_reader *r);

#endif
