/* SPDX-License-Identifier: Apache-2.0
 *
 * block_object.c - see block_object.h.
 */
#include "blocks/block_object.h"

#include "base/clock.h"
#include "wire/pb.h"

enum { TRACES_TAG = 1 << 3 | PB_LEN };

uint32_t block_object_seconds(uint64_t unix_ns)
{
	return (uint32_t)MIN(unix_ns / NS_PER_S, (uint64_t)UINT32_MAX);
}

void block_object_times_store(uint8_t to[BLOCK_OBJECT_TIMES], uint32_t start_s, uint32_t end_s)
{
	store_le32(to, start_s);
	store_le32(to + 4, end_s);
}

size_t block_object_segment_head(uint8_t to[BLOCK_OBJECT_SEGMENT_HEAD], size_t n)
{
	to[0] = TRACES_TAG;
	return 1 + pb_varint_write(to + 1, n);
}

size_t block_object_head(uint8_t to[BLOCK_OBJECT_HEAD], uint32_t start_s, uint32_t end_s, size_t n)
{
	block_object_times_store(to, start_s, end_s);
	return BLOCK_OBJECT_TIMES + block_object_segment_head(to + BLOCK_OBJECT_TIMES, n);
}

int block_object_parse(struct bytes object, const char *data_encoding, struct block_object *o,
		       struct err *err)
{
	*o = (struct block_object){ false, 0, 0, object };
	if (strcmp(data_encoding, "v1") == 0)
		return 0;
	if (strcmp(data_encoding, "v2") != 0)
		return err_set(err, ERR_UNIMPLEMENTED,
			       "dataEncoding \"%s\": objects of v1 and v2 can be read",
			       data_encoding);
	if (object.n == 0)
		return 0;
	if (object.n < BLOCK_OBJECT_TIMES)
		return err_set(err, ERR_CORRUPT, "object of %zu bytes: too short for its times",
			       object.n);
	o->has_times = true;
	o->start_s = load_le32(object.p);
	o->end_s = load_le32(object.p + 4);
	o->segments.p += BLOCK_OBJECT_TIMES;
	o->segments.n -= BLOCK_OBJECT_TIMES;
	return 0;
}

int block_object_segment_next(struct bytes *segments, struct bytes *segment, struct err *err)
{
	struct pb_field f = { 0 };
	int ret = 0;

	while ((ret = pb_next(segments, &f)) == 1) {
		if (f.number != 1)
			continue;
		if (f.wire != PB_LEN)
			return err_set(err, ERR_CORRUPT, "object: segment has wire type %u",
				       f.wire);
		*segment = f.data;
		return 1;
	}
	if (ret < 0)
		return err_set(err, ERR_CORRUPT, "object: its list of segments is damaged");
	return 0;
}
