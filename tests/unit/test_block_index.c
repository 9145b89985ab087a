/* SPDX-License-Identifier: Apache-2.0
 *
 * test_block_index.c - index pages and data pages byte for byte, searches, and every kind of
 * damage.
 */
#include "base/str.h"
#include "blocks/block_index.h"
#include "blocks/block_object.h"
#include "blocks/page.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static void worked_page_and_index(void **state)
{
	static const char *const want_page = "280000000000"
					     "2200000010000000"
					     "000102030405060708090a0b0c0d0e0f"
					     "00f1536501f153650a00";
	static const char *const want_index =
		"46000000080057e288c804d32740"
		"000102030405060708090a0b0c0d0e0f"
		"000000000000000028000000"
		"00000000000000000000000000000000000000000000000000000000";
	uint8_t page[64];
	char hex[141];
	struct block_index_record r = { { 0 }, 0, 40 };
	struct buf records = BUF_INIT, index = BUF_INIT;

	(void)state;
	for (uint8_t i = 0; i < 16; i++)
		r.id[i] = i;
	page_head_store(page, 40, 0);
	page_object_head_store(page + 6, r.id, 10);
	assert_int_equal(block_object_head(page + 30, 1700000000, 1700000001, 0), 10);
	str_hex(page, 40, hex);
	assert_string_equal(hex, want_page);
	block_index_record_store(&records, &r);
	block_index_encode(buf_bytes(&records), 70, &index);
	assert_int_equal(index.n, 70);
	str_hex(index.p, 70, hex);
	assert_string_equal(hex, want_index);
	buf_fini(&records);
	buf_fini(&index);
}

/* n records with ids 2, 4, 6 ... of 100 bytes each. */
static void make_index(struct buf *index, uint32_t n, uint32_t page_size)
{
	struct buf records = BUF_INIT;

	for (uint32_t i = 0; i < n; i++) {
		struct block_index_record r = { { 0 }, 100 * (uint64_t)i, 100 };

		store_be32(r.id + 12, 2 * i + 2);
		block_index_record_store(&records, &r);
	}
	block_index_encode(buf_bytes(&records), page_size, index);
	buf_fini(&records);
}

static void pages_are_as_many_as_needed(void **state)
{
	static const struct {
		uint32_t n, page_size, per_page, pages, on_last;
	} cases[] = {
		{ 0, 256000, 9142, 0, 0 },
		{ 1, 256000, 9142, 1, 1 },
		{ 9142, 256000, 9142, 1, 9142 },
		{ 9143, 256000, 9142, 2, 1 },
		{ 5, 98, 3, 2, 2 },
		{ 3, 42, 1, 3, 1 },
		{ 4, 97, 2, 2, 2 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct buf index = BUF_INIT;

		make_index(&index, cases[i].n, cases[i].page_size);
		assert_int_equal(block_index_per_page(cases[i].page_size), cases[i].per_page);
		assert_int_equal(block_index_pages(cases[i].n, cases[i].page_size), cases[i].pages);
		assert_int_equal(index.n, (size_t)cases[i].pages * cases[i].page_size);
		if (cases[i].pages > 0)
			assert_int_equal(block_index_on_page(cases[i].n, cases[i].page_size,
							     cases[i].pages - 1),
					 cases[i].on_last);
		assert_int_equal(
			block_index_on_page(cases[i].n, cases[i].page_size, cases[i].pages), 0);
		buf_fini(&index);
	}
}

static void search_finds_the_first_not_below(void **state)
{
	struct buf index = BUF_INIT;
	struct block_index_record r;

	(void)state;
	make_index(&index, 5, 256);
	assert_int_equal(block_index_page_check(buf_bytes(&index), 256, 5, NULL), 0);
	for (uint32_t want = 0; want <= 12; want++) {
		uint8_t id[16] = { 0 };
		bool found = false;

		store_be32(id + 12, want);
		found = block_index_page_search(buf_bytes(&index), 5, id, &r);
		assert_int_equal(found, want <= 10);
		if (found)
			assert_int_equal(r.start, 100 * (want <= 2 ? 0 : (want - 1) / 2));
	}
	buf_fini(&index);
}

static void any_flipped_bit_of_an_index_is_seen(void **state)
{
	struct buf index = BUF_INIT;
	struct err err = ERR_INIT;

	(void)state;
	make_index(&index, 3, 130);
	for (size_t i = 0; i < 8 * index.n; i++) {
		index.p[i / 8] ^= (uint8_t)(1u << i % 8);
		assert_int_equal(block_index_page_check(buf_bytes(&index), 130, 3, &err), -1);
		assert_int_equal(err.kind, ERR_CORRUPT);
		index.p[i / 8] ^= (uint8_t)(1u << i % 8);
	}
	assert_int_equal(block_index_page_check(buf_bytes(&index), 130, 3, &err), 0);
	assert_int_equal(block_index_page_check(buf_bytes(&index), 130, 2, &err), -1);
	assert_non_null(strstr(err.msg, "padding"));
	assert_int_equal(block_index_page_check(buf_bytes(&index), 130, 4, &err), -1);
	assert_int_equal(block_index_page_check(buf_bytes(&index), 130, 5, &err), -1);
	assert_int_equal(block_index_page_check((struct bytes){ index.p, 129 }, 130, 3, &err), -1);
	buf_fini(&index);
}

static void records_must_follow_one_another(void **state)
{
	static const struct {
		const char *name;
		struct block_index_record a, b;
	} cases[] = {
		{ "equal ids", { { 1 }, 0, 100 }, { { 1 }, 100, 100 } },
		{ "descending ids", { { 2 }, 0, 100 }, { { 1 }, 100, 100 } },
		{ "gap", { { 1 }, 0, 100 }, { { 2 }, 101, 100 } },
		{ "overlap", { { 1 }, 0, 100 }, { { 2 }, 99, 100 } },
		{ "short", { { 1 }, 0, 100 }, { { 2 }, 100, 5 } },
		{ "past the end of offsets", { { 1 }, UINT64_MAX - 5, 100 }, { { 2 }, 94, 100 } },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct buf records = BUF_INIT, index = BUF_INIT;

		block_index_record_store(&records, &cases[i].a);
		block_index_record_store(&records, &cases[i].b);
		block_index_encode(buf_bytes(&records), 100, &index);
		if (block_index_page_check(buf_bytes(&index), 100, 2, NULL) == 0)
			fail_msg("%s passes", cases[i].name);
		buf_fini(&records);
		buf_fini(&index);
	}
}

/* Two objects, ids 5 and 7, of 3 and 0 bytes. */
static size_t make_body(uint8_t *to)
{
	page_object_head_store(to, (const uint8_t[16]){ [15] = 5 }, 3);
	memcpy(to + 24, "abc", 3);
	page_object_head_store(to + 27, (const uint8_t[16]){ [15] = 7 }, 0);
	return 51;
}

static void objects_fill_a_page(void **state)
{
	uint8_t p[51];
	struct bytes body = { p, make_body(p) };
	struct page_object o;

	(void)state;
	assert_int_equal(page_object_next(&body, &o, NULL), 1);
	assert_true(bytes_eq_str(o.data, "abc"));
	assert_int_equal(page_object_next(&body, &o, NULL), 1);
	assert_int_equal(o.data.n, 0);
	assert_int_equal(page_object_next(&body, &o, NULL), 0);
	body = (struct bytes){ p, 51 };
	for (uint8_t i = 4; i <= 8; i++) {
		int want = i == 5 || i == 7;

		assert_int_equal(page_find(body, (const uint8_t[16]){ [15] = i }, NULL, &o, NULL),
				 want);
	}
	assert_int_equal(page_find(body, (const uint8_t[16]){ [15] = 5 },
				   (const uint8_t[16]){ [15] = 7 }, &o, NULL),
			 1);
	assert_int_equal(page_find(body, (const uint8_t[16]){ [15] = 5 },
				   (const uint8_t[16]){ [15] = 8 }, &o, NULL),
			 -1);
}

static void damaged_objects_are_named(void **state)
{
	static const struct {
		const char *what;
		size_t at;
		uint8_t value;
	} cases[] = {
		{ "total length 255", 0, 255 },
		{ "total length 23", 0, 23 },
		{ "total length 0", 0, 0 },
		{ "total length", 3, 0xff },
		{ "id length 15", 4, 15 },
		{ "id length", 7, 0xff },
		{ "not above the one before", 23, 7 },
		{ "not above the one before", 27 + 23, 4 },
	};
	struct page_object o;
	struct err err = ERR_INIT;
	uint8_t p[51];

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct bytes body = { p, make_body(p) };

		p[cases[i].at] = cases[i].value;
		assert_int_equal(page_find(body, (const uint8_t[16]){ 1 }, NULL, &o, &err), -1);
		assert_int_equal(err.kind, ERR_CORRUPT);
		if (strstr(err.msg, cases[i].what) == NULL)
			fail_msg("\"%s\" does not say \"%s\"", err.msg, cases[i].what);
	}
	for (size_t n = 1; n < 51; n++) {
		struct bytes body = { p, n };

		make_body(p);
		if (n != 27)
			assert_int_equal(page_find(body, (const uint8_t[16]){ 1 }, NULL, &o, &err),
					 -1);
	}
}

static void objects_split_into_segments(void **state)
{
	uint8_t p[64];
	size_t n = block_object_head(p, 7, 9, 3);
	struct bytes segment;
	struct block_object o;
	struct err err = ERR_INIT;

	(void)state;
	memcpy(p + n, "abc", 3);
	n += 3;
	n += block_object_segment_head(p + n, 2);
	memcpy(p + n, "de", 2);
	n += 2;
	assert_int_equal(block_object_parse((struct bytes){ p, n }, "v2", &o, NULL), 0);
	assert_true(o.has_times && o.start_s == 7 && o.end_s == 9);
	assert_int_equal(block_object_segment_next(&o.segments, &segment, NULL), 1);
	assert_true(bytes_eq_str(segment, "abc"));
	assert_int_equal(block_object_segment_next(&o.segments, &segment, NULL), 1);
	assert_true(bytes_eq_str(segment, "de"));
	assert_int_equal(block_object_segment_next(&o.segments, &segment, NULL), 0);
	assert_int_equal(block_object_parse((struct bytes){ p, n }, "v3", &o, &err), -1);
	assert_int_equal(err.kind, ERR_UNIMPLEMENTED);
	assert_int_equal(block_object_parse((struct bytes){ p, 7 }, "v2", &o, &err), -1);
	assert_int_equal(block_object_parse((struct bytes){ p, 0 }, "v2", &o, &err), 0);
	assert_int_equal(block_object_parse((struct bytes){ p, n - 1 }, "v2", &o, &err), 0);
	assert_int_equal(block_object_segment_next(&o.segments, &segment, NULL), 1);
	assert_int_equal(block_object_segment_next(&o.segments, &segment, &err), -1);
	assert_int_equal(err.kind, ERR_CORRUPT);
	assert_int_equal(block_object_seconds(UINT64_C(1999999999)), 1);
	assert_int_equal(block_object_seconds(UINT64_MAX), UINT32_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(worked_page_and_index),
		cmocka_unit_test(pages_are_as_many_as_needed),
		cmocka_unit_test(search_finds_the_first_not_below),
		cmocka_unit_test(any_flipped_bit_of_an_index_is_seen),
		cmocka_unit_test(records_must_follow_one_another),
		cmocka_unit_test(objects_fill_a_page),
		cmocka_unit_test(damaged_objects_are_named),
		cmocka_unit_test(objects_split_into_segments),
	};

	return cmocka_run_group_tests_name("block_index", tests, NULL, NULL);
}
