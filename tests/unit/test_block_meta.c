/* SPDX-License-Identifier: Apache-2.0
 *
 * test_block_meta.c - meta.json: Tempo's own text back byte for byte, every bad value by name,
 * times.
 */
#include "blocks/block_meta.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define ID "e05c7e78-2d19-4de1-814f-64351ea730c6"
#define HEAD "{\"format\":\"v2\",\"blockID\":\"" ID "\",\"tenantID\":\"single-tenant\""

/* What goes in comes out. */
static const char *const whole[] = {
	/* Tempo 2.10.8 */
	HEAD ",\"startTime\":\"2026-11-22T04:58:39Z\",\"endTime\":\"2026-11-22T04:58:47Z\","
	     "\"totalObjects\":5,\"size\":462,\"compactionLevel\":1,\"encoding\":\"zstd\","
	     "\"indexPageSize\":256000,\"totalRecords\":1,\"dataEncoding\":\"v2\","
	     "\"bloomShards\":1,\"footerSize\":0}",
	/* Tempo 2.0.1 */
	"{\"format\":\"v2\",\"blockID\":\"" ID "\",\"minID\":\"wAAAAAAAAAAAAAAAAAAAAQ==\","
	"\"maxID\":\"wAAAAAAAAAAAAAAAAAAABQ==\",\"tenantID\":\"single-tenant\","
	"\"startTime\":\"2026-11-22T05:05:53Z\",\"endTime\":\"2026-11-22T05:06:01Z\","
	"\"totalObjects\":5,\"size\":462,\"compactionLevel\":1,\"encoding\":\"zstd\","
	"\"indexPageSize\":256000,\"totalRecords\":1,\"dataEncoding\":\"v2\",\"bloomShards\":1,"
	"\"footerSize\":0}",
	/* ours */
	HEAD
	",\"startTime\":\"0001-01-01T00:00:00Z\",\"endTime\":\"9999-12-31T23:59:59.123456789Z\","
	"\"totalObjects\":9223372036854775807,\"size\":18446744073709551615,"
	"\"compactionLevel\":4294967295,\"encoding\":\"lz4-1M\",\"indexPageSize\":42,"
	"\"totalRecords\":4294967295,\"dataEncoding\":\"v1\",\"bloomShards\":1000,"
	"\"footerSize\":7,\"replicationFactor\":3,"
	"\"shard\":{\"hasher\":\"murmur2\",\"count\":12,\"index\":11},"
	"\"bloomXXH64\":\"0123456789abcdeffedcba9876543210\","
	"\"ingestedAt\":\"2026-11-23T22:45:13.5Z\"}",
};

static void texts_come_back_byte_for_byte(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(whole); i++) {
		struct buf out = BUF_INIT;
		struct json_writer w = JSON_WRITER(&out);
		struct err err = ERR_INIT;
		struct block_meta m;

		if (block_meta_parse(bytes_str(whole[i]), &m, &err) < 0)
			fail_msg("%zu: %s", i, err.msg);
		block_meta_encode(&m, &w);
		assert_string_equal(buf_cstr(&out), whole[i]);
		buf_fini(&out);
	}
}

static void smallest_meta_and_defaults(void **state)
{
	struct block_meta m;

	(void)state;
	/* Keys in any case, unknown ones of any shape, null, and an upper-case id. */
	assert_int_equal(
		block_meta_parse(BYTES_LIT(" {\"FORMAT\":\"v2\", \"blockid\":"
					   "\"E05C7E78-2D19-4DE1-814F-64351EA730C6\",\n"
					   "\"tenantID\":\"a\",\"x\":{\"y\":[1,{}]},\"minID\":null,"
					   "\"dedicatedColumns\": [{\"s\":\"span\"}] } "),
				 &m, NULL),
		0);
	assert_string_equal(m.columns, "[{\"s\":\"span\"}]");
	assert_string_equal(m.id, ID);
	assert_int_equal(m.encoding, CODEC_NONE);
	assert_int_equal(block_meta_bloom_shards(&m), 10);
	assert_false(m.has_min_id);
	assert_int_equal(m.start.s, BLOCK_TIME_NONE_S);
	assert_int_equal(m.shard.count, 0);
	assert_int_equal(block_meta_check_v2(&m, NULL), -1);
	m.index_page_size = 42;
	assert_int_equal(block_meta_check_v2(&m, NULL), 0);
}

static const struct {
	const char *json, *says;
} bad[] = {
	{ "", "meta.json: json" },
	{ "[]", "must be an object" },
	{ "{\"format\":\"v2\"", "json" },
	{ HEAD "} x", "json" },
	{ "{\"blockID\":\"" ID "\",\"tenantID\":\"a\"}", "format: is missing" },
	{ "{\"format\":\"v2\",\"tenantID\":\"a\"}", "blockID: is missing" },
	{ "{\"format\":\"v2\",\"blockID\":\"" ID "\"}", "tenantID: is missing" },
	{ "{\"format\":7}", "format: must be a string" },
	{ "{\"format\":\"123456789012345678901234567890123\"}", "format: " },
	{ "{\"blockID\":\"e05c7e78-2d19-4de1-814f-64351ea730c\"}", "blockID: " },
	{ "{\"blockID\":\"e05c7e78-2d19-4de1-814f-64351ea730cg\"}", "blockID: " },
	{ "{\"blockID\":\"e05c7e782d19-4de1-814f-64351ea730c6a\"}", "blockID: " },
	{ "{\"tenantID\":\"\"}", "tenantID: tenant" },
	{ "{\"tenantID\":\"..\"}", "tenantID: tenant \"..\"" },
	{ "{\"tenantID\":\"a/b\"}", "tenantID: tenant \"a/b\"" },
	{ "{\"tenantID\":\"_spanmill\"}", "tenantID: " },
	{ "{\"minID\":\"AAAA\"}", "minID: \"AAAA\" is not base64 of 16 bytes" },
	{ "{\"maxID\":\"!\"}", "maxID: " },
	{ "{\"startTime\":\"2026-11-22\"}", "startTime: \"2026-11-22\"" },
	{ "{\"endTime\":1}", "endTime: must be a string" },
	{ "{\"totalObjects\":-1}", "totalObjects: -1" },
	{ "{\"totalObjects\":9223372036854775808}", "totalObjects: " },
	{ "{\"size\":18446744073709551616}", "size: " },
	{ "{\"size\":\"12\"}", "size: must be a number" },
	{ "{\"totalRecords\":4294967296}", "totalRecords: 4294967296" },
	{ "{\"compactionLevel\":1.5}", "compactionLevel: 1.5" },
	{ "{\"encoding\":\"\"}", "encoding: encoding \"\"" },
	{ "{\"encoding\":\"brotli\"}", "\"brotli\": must be none, gzip" },
	{ "{\"indexPageSize\":true}", "indexPageSize: must be a number" },
	{ "{\"shard\":1}", "shard: must be an object" },
	{ "{\"shard\":{}}", "shard: " },
	{ "{\"bloomXXH64\":[]}", "bloomXXH64: must be a string" },
	{ "{\"bloomXXH64\":\"0123\"}", "bloomXXH64: \"0123\" is not 16 hex digits per bloom" },
	{ "{\"bloomXXH64\":\"0123456789abcdeg\"}", "16 hex digits" },
	{ "{\"shard\":{\"hasher\":\"murmur2\",\"count\":3,\"index\":3}}", "index 3 of count 3" },
	{ "{\"shard\":{\"hasher\":\"murmur2\",\"count\":-3}}", "shard: -3" },
	{ "{\"ingestedAt\":\"now\"}", "ingestedAt: \"now\"" },
};

static void bad_values_are_named(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(bad); i++) {
		struct err err = ERR_INIT;
		struct block_meta m;

		if (block_meta_parse(bytes_str(bad[i].json), &m, &err) == 0)
			fail_msg("%s passes", bad[i].json);
		assert_int_equal(err.kind, ERR_INVALID);
		if (strstr(err.msg, bad[i].says) == NULL)
			fail_msg("%s: \"%s\" does not say \"%s\"", bad[i].json, err.msg,
				 bad[i].says);
	}
}

static void other_formats_are_refused_by_name(void **state)
{
	static const char *const formats[] = { "v0", "v1", "vParquet4" };

	(void)state;
	for (size_t i = 0; i < COUNT_OF(formats); i++) {
		struct err err = ERR_INIT;
		struct block_meta m;

		block_meta_init(&m);
		m.index_page_size = 256000;
		memcpy(m.format, formats[i], strlen(formats[i]) + 1);
		assert_int_equal(block_meta_check_v2(&m, &err), -1);
		assert_int_equal(err.kind, ERR_UNIMPLEMENTED);
		assert_non_null(strstr(err.msg, formats[i]));
	}
}

static const struct {
	const char *in;
	int64_t s;
	uint32_t ns;
	const char *out; /* NULL: not a time */
} times[] = {
	{ "1970-01-01T00:00:00Z", 0, 0, "1970-01-01T00:00:00Z" },
	{ "0001-01-01T00:00:00Z", BLOCK_TIME_NONE_S, 0, "0001-01-01T00:00:00Z" },
	{ "2023-11-14T22:13:20Z", 1700000000, 0, "2023-11-14T22:13:20Z" },
	{ "2000-02-29T12:00:00.5Z", 951825600, 500000000, "2000-02-29T12:00:00.5Z" },
	{ "1969-12-31T23:59:59.999999999Z", -1, 999999999, "1969-12-31T23:59:59.999999999Z" },
	{ "2021-08-25T14:42:40.361155676-04:00", 1629916960, 361155676,
	  "2021-08-25T18:42:40.361155676Z" },
	{ "1970-01-01T05:30:00.1234567891234+05:30", 0, 123456789,
	  "1970-01-01T00:00:00.123456789Z" },
	{ "9999-12-31T23:59:59Z", 253402300799, 0, "9999-12-31T23:59:59Z" },
	{ "0000-03-01T00:00:00Z", -62162035200, 0, "0000-03-01T00:00:00Z" },
	{ "2023-02-29T00:00:00Z", 0, 0, NULL },
	{ "1900-02-29T00:00:00Z", 0, 0, NULL },
	{ "2023-13-01T00:00:00Z", 0, 0, NULL },
	{ "2023-00-01T00:00:00Z", 0, 0, NULL },
	{ "2023-01-00T00:00:00Z", 0, 0, NULL },
	{ "2023-01-01T24:00:00Z", 0, 0, NULL },
	{ "2023-01-01T00:60:00Z", 0, 0, NULL },
	{ "2023-01-01T00:00:60Z", 0, 0, NULL },
	{ "2023-01-01T00:00:00", 0, 0, NULL },
	{ "2023-01-01T00:00:00.Z", 0, 0, NULL },
	{ "2023-01-01T00:00:00+24:00", 0, 0, NULL },
	{ "2023-01-01T00:00:00+01:60", 0, 0, NULL },
	{ "2023-01-01T00:00:00ZZ", 0, 0, NULL },
	{ "2023-01-01 00:00:00Z", 0, 0, NULL },
	{ "23-01-01T00:00:00Z", 0, 0, NULL },
	{ "", 0, 0, NULL },
};

static void times_are_rfc_3339(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(times); i++) {
		struct block_time t = { 0, 0 };
		int ret = block_time_parse(bytes_str(times[i].in), &t, NULL);
		char text[BLOCK_TIME_TEXT];

		if ((ret == 0) != (times[i].out != NULL))
			fail_msg("%s: %d", times[i].in, ret);
		if (ret < 0)
			continue;
		if (t.s != times[i].s || t.ns != times[i].ns)
			fail_msg("%s: %lld.%09u", times[i].in, (long long)t.s, t.ns);
		block_time_format(t, text);
		assert_string_equal(text, times[i].out);
	}
}

static void every_day_of_eight_centuries_comes_back(void **state)
{
	(void)state;
	for (int64_t day = -146097; day < 146097; day++) {
		struct block_time t = { day * 86400 + 1, 0 }, u = { 0, 0 };
		char text[BLOCK_TIME_TEXT];

		block_time_format(t, text);
		assert_int_equal(block_time_parse(bytes_str(text), &u, NULL), 0);
		assert_int_equal(block_time_compare(t, u), 0);
	}
}

/* The id as a Java producer's key, in the default partitioner: toPositive(murmur2(key)) % count. */
static void shards_are_kafka_partitions(void **state)
{
	static const struct {
		uint8_t id[16];
		uint32_t count, index;
	} cases[] = {
		{ { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1 }, 64, 38 },
		{ { 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1 }, 12, 1 },
		{ { 0xab, 0xcd, 0xef, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13 }, 7, 3 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++)
		for (uint32_t k = 0; k < cases[i].count; k++) {
			struct block_shard s = { "murmur2", cases[i].count, k };

			assert_int_equal(block_shard_may_hold(&s, cases[i].id),
					 k == cases[i].index);
			memcpy(s.hasher, "fnv", 4);
			assert_true(block_shard_may_hold(&s, cases[i].id));
			s = (struct block_shard){ "", 0, 0 };
			assert_true(block_shard_may_hold(&s, cases[i].id));
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shards_are_kafka_partitions),
		cmocka_unit_test(texts_come_back_byte_for_byte),
		cmocka_unit_test(smallest_meta_and_defaults),
		cmocka_unit_test(bad_values_are_named),
		cmocka_unit_test(other_formats_are_refused_by_name),
		cmocka_unit_test(times_are_rfc_3339),
		cmocka_unit_test(every_day_of_eight_centuries_comes_back),
	};

	return cmocka_run_group_tests_name("block_meta", tests, NULL, NULL);
}
