/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_thrift.c - walking a value must judge as skipping it does and end at the same byte; counts
 * are backed by bytes. First byte: bit 0 the protocol, bit 1 whether a message header comes first.
 */
#include "wire/thrift.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void walk(struct thrift_reader *r, enum thrift_type type);

static void walk_map(struct thrift_reader *r)
{
	struct thrift_map m = thrift_map(r);

	assert(m.n <= thrift_left(r));
	thrift_struct(r);
	for (; m.n > 0 && r->why == NULL; m.n--) {
		walk(r, m.key);
		walk(r, m.value);
	}
	if (r->depth > 0)
		r->depth--;
}

static void walk_list(struct thrift_reader *r)
{
	struct thrift_list l = thrift_list(r);

	assert(l.n <= thrift_left(r));
	thrift_struct(r);
	while (thrift_element(r, &l))
		walk(r, l.type);
	if (r->depth > 0)
		r->depth--;
}

static void walk(struct thrift_reader *r, enum thrift_type type)
{
	struct thrift_field f;

	if (type == THRIFT_STRUCT) {
		thrift_struct(r);
		while (thrift_field(r, &f))
			walk(r, f.type);
	} else if (type == THRIFT_LIST || type == THRIFT_SET) {
		walk_list(r);
	} else if (type == THRIFT_MAP) {
		walk_map(r);
	} else if (type == THRIFT_STRING) {
		struct bytes s = thrift_string(r);

		assert(s.n == 0 || (s.p >= r->begin && s.p + s.n == r->p));
	} else {
		thrift_skip(r, type);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct thrift_reader walked, skipped;
	struct thrift_message m;
	struct bytes in;

	if (size == 0)
		return 0;
	in = (struct bytes){ data + 1, size - 1 };
	thrift_init(&walked, in, data[0] & 1 ? THRIFT_COMPACT : THRIFT_BINARY);
	if (data[0] & 2)
		thrift_message(&walked, &m);
	skipped = walked;
	walk(&walked, THRIFT_STRUCT);
	thrift_skip(&skipped, THRIFT_STRUCT);
	assert((thrift_failed(&walked, NULL) < 0) == (thrift_failed(&skipped, NULL) < 0));
	assert(walked.p == skipped.p);
	if (walked.why == NULL)
		assert(walked.depth == 0);
	return 0;
}
