/* SPDX-License-Identifier: Apache-2.0
 *
 * test_zipkin_proto.c - Zipkin v2 protobuf to OTLP: every field, every way a span or the bytes can
 * be bad, and the same result as of the same spans in JSON.
 */
#include "base/arena.h"
#include "base/mem.h"
#include "base/rng.h"
#include "tests/unit/json_golden.h"
#include "tests/unit/zipkin_dump.h"
#include "wire/zipkin_json.h"
#include "wire/zipkin_proto.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static int decode(struct bytes in, bool typed, struct buf *pb, struct zipkin_result *res,
		  struct err *err)
{
	struct arena a = ARENA_INIT;
	int rc = zipkin_proto_decode(in, 0, typed, &a, pb, res, err);

	arena_fini(&a);
	return rc;
}

#define ID                                                                                         \
	"\x0a\x08"                                                                                 \
	"\0\0\0\0\0\0\0\1"                                                                         \
	"\x1a\x08"                                                                                 \
	"\0\0\0\0\0\0\0\2"

/* Fields beside the ids (trace 1, span 2), and what they become. */
static const struct {
	const char *name, *in;
	size_t n;
	const char *out;
} spans[] = {
#define CASE(name, in, out)                                                                        \
	{                                                                                          \
		name, in, sizeof(in) - 1, out                                                      \
	}
	CASE("nothing but ids", "", "{}\n1/2 -  0+0 otel.zipkin.absentField.startTime?1\n"),
	CASE("everything",
	     "\x12\x08\0\0\0\0\0\0\0\3"
	     "\x20\2"
	     "\x2a\3get"
	     "\x31\xe8\3\0\0\0\0\0\0"
	     "\x38\x14"
	     "\x42\x0c\x0a\2me\x12\4\x7f\0\0\1\x20\x50"
	     "\x4a\x06\x0a\2db\x20\x51"
	     "\x52\x0d\x09\xe9\3\0\0\0\0\0\0\x12\2ev"
	     "\x5a\x06\x0a\1k\x12\1v"
	     "\x60\1\x68\1",
	     "{service.name=me}\n1/2^3 SERVER get 1000+20 k=v network.local.address=127.0.0.1 "
	     "net.host.port#80 peer.service=db service.peer.name=db net.peer.port#81 "
	     "zipkin.debug?1 zipkin.shared?1 @1001 ev()\n"),
	CASE("kinds", "\x31\1\0\0\0\0\0\0\0\x20\1", "{}\n1/2 CLIENT  1+0\n"),
	CASE("producer", "\x31\1\0\0\0\0\0\0\0\x20\3", "{}\n1/2 PRODUCER  1+0\n"),
	CASE("consumer", "\x31\1\0\0\0\0\0\0\0\x20\4", "{}\n1/2 CONSUMER  1+0\n"),
	CASE("unknown kind", "\x31\1\0\0\0\0\0\0\0\x20\5", "{}\n1/2 -  1+0\n"),
	CASE("empty parent", "\x31\1\0\0\0\0\0\0\0\x12\0", "{}\n1/2 -  1+0\n"),
	CASE("zero parent", "\x31\1\0\0\0\0\0\0\0\x12\x08\0\0\0\0\0\0\0\0", "{}\n1/2 -  1+0\n"),
	CASE("own parent", "\x31\1\0\0\0\0\0\0\0\x12\x08\0\0\0\0\0\0\0\2", "{}\n1/2 -  1+0\n"),
	CASE("ipv6", "\x31\1\0\0\0\0\0\0\0\x42\x12\x1a\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1",
	     "{}\n1/2 -  1+0 network.local.address=::1\n"),
	CASE("ipv6 wins, mapped is ipv4",
	     "\x31\1\0\0\0\0\0\0\0\x42\x18\x12\4\1\2\3\4\x1a\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1"
	     "\x4a\x12\x1a\x10\0\0\0\0\0\0\0\0\0\0\xff\xff\5\6\7\x08",
	     "{}\n1/2 -  1+0 network.local.address=::1 zipkin.local.ipv4=1.2.3.4 "
	     "network.peer.address=5.6.7.8\n"),
	CASE("odd address, port out of range",
	     "\x31\1\0\0\0\0\0\0\0\x42\x09\x12\3\1\2\3\x20\xff\xff\x04", "{}\n1/2 -  1+0\n"),
	CASE("an endpoint in two pieces", "\x31\1\0\0\0\0\0\0\0\x42\3\x0a\1s\x42\2\x20\7",
	     "{service.name=s}\n1/2 -  1+0 net.host.port#7\n"),
	CASE("tag without value, without key", "\x31\1\0\0\0\0\0\0\0\x5a\3\x0a\1k\x5a\3\x12\1v",
	     "{}\n1/2 -  1+0 k=\n"),
	CASE("annotation without time, without text",
	     "\x31\1\0\0\0\0\0\0\0\x52\4\x12\2ev\x52\x09\x09\2\0\0\0\0\0\0\0",
	     "{}\n1/2 -  1+0 @2 ()\n"),
	CASE("unknown fields", "\x31\1\0\0\0\0\0\0\0\x78\1\x82\1\2xx\x8d\1\0\0\0\0",
	     "{}\n1/2 -  1+0\n"),
	CASE("a span given twice: the last scalar", "\x31\1\0\0\0\0\0\0\0\x2a\1a\x2a\1b",
	     "{}\n1/2 - b 1+0\n"),
#undef CASE
};

static void wrap(const char *in, size_t n, const char *ids, size_t n_ids, struct buf *list)
{
	size_t mark;

	buf_reset(list);
	mark = pb_begin(list, 1);
	buf_add(list, ids, n_ids);
	buf_add(list, in, n);
	pb_end(list, mark);
}

static void fields_are_mapped(void **state)
{
	struct buf list = BUF_INIT, pb = BUF_INIT, text = BUF_INIT;
	struct zipkin_result res;
	struct err err = ERR_INIT;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(spans); i++) {
		wrap(spans[i].in, spans[i].n, ID, sizeof(ID) - 1, &list);
		buf_reset(&pb);
		if (decode(buf_bytes(&list), false, &pb, &res, &err) < 0)
			fail_msg("%s: %s", spans[i].name, err.msg);
		assert_int_equal(res.n_ok, 1);
		if (strcmp(zipkin_dump(buf_bytes(&pb), &text), spans[i].out) != 0)
			fail_msg("%s: got %s", spans[i].name, (char *)text.p);
	}
	buf_fini(&list);
	buf_fini(&pb);
	buf_fini(&text);
}

static const struct {
	const char *in;
	size_t n;
	enum zipkin_reason reason;
	const char *first;
} bad[] = {
#define CASE(in, reason, first)                                                                    \
	{                                                                                          \
		in, sizeof(in) - 1, reason, first                                                  \
	}
	CASE("", ZIPKIN_BAD_TRACE_ID, "[1].traceId: missing"),
	CASE("\x1a\x08\0\0\0\0\0\0\0\1", ZIPKIN_BAD_TRACE_ID, "[1].traceId: missing"),
	CASE("\x0a\x02\1\2", ZIPKIN_BAD_TRACE_ID, "[1].traceId: \"0102\""),
	CASE("\x0a\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", ZIPKIN_BAD_TRACE_ID,
	     "[1].traceId: \"00000000000000000000000000000000\""),
	CASE("\x0a\x08\0\0\0\0\0\0\0\1", ZIPKIN_BAD_SPAN_ID, "[1].id: missing"),
	CASE("\x1a\x08\0\0\0\0\0\0\0\0", ZIPKIN_BAD_SPAN_ID, "[1].id: \"0000000000000000\""),
	CASE("\x1a\x01\7", ZIPKIN_BAD_SPAN_ID, "[1].id: \"07\""),
	CASE("\x12\x01\7", ZIPKIN_BAD_PARENT_ID, "[1].parentId: \"07\""),
	CASE("\x2a\2\xff\xfe" ID, ZIPKIN_BAD_UTF8, "[1].name: \"??\""),
	CASE("\x5a\x06\x0a\1k\x12\1\xff" ID, ZIPKIN_BAD_UTF8, "[1].tags: \"?\""),
	CASE("\x5a\x06\x0a\1\xff\x12\1\xff" ID, ZIPKIN_BAD_UTF8, "[1].tags: \"?\""),
	CASE("\x42\3\x0a\1\xff" ID, ZIPKIN_BAD_UTF8, "[1].localEndpoint: \"?\""),
	CASE("\x52\x0c\x09\xe9\3\0\0\0\0\0\0\x12\1\xff" ID, ZIPKIN_BAD_UTF8,
	     "[1].annotations: \"?\""),
#undef CASE
};

static void a_bad_span_costs_only_itself(void **state)
{
	struct buf list = BUF_INIT, pb = BUF_INIT;
	struct zipkin_result res;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(bad); i++) {
		buf_reset(&list);
		for (int k = 0; k < 4; k++) {
			size_t mark = pb_begin(&list, 1);

			if (k % 2 == 0)
				buf_add(&list, ID, sizeof(ID) - 1);
			else
				buf_add(&list, bad[i].in, bad[i].n);
			pb_end(&list, mark);
		}
		buf_reset(&pb);
		assert_int_equal(decode(buf_bytes(&list), false, &pb, &res, NULL), 0);
		assert_int_equal(res.n_ok, 2);
		assert_int_equal(res.n_bad, 2);
		assert_int_equal(res.n_bad_by[bad[i].reason], 2);
		assert_string_equal(res.first_bad, bad[i].first);
	}
	buf_fini(&list);
	buf_fini(&pb);
}

static const struct {
	const char *name, *in;
	size_t n;
} damaged[] = {
#define CASE(name, in)                                                                             \
	{                                                                                          \
		name, in, sizeof(in) - 1                                                           \
	}
	CASE("a span that is a number", "\x08\1"),
	CASE("a length past the end", "\x0a\x09" ID),
	CASE("a group", "\x0b"),
	CASE("field number 0", "\x02\x01x"),
	CASE("an id that is a number", "\x0a\2\x08\1"),
	CASE("a time that is text", "\x0a\3\x32\1x"),
	CASE("a tag that is a number", "\x0a\4\x5a\2\x08\1"),
	CASE("a port that is text", "\x0a\5\x42\3\x22\1x"),
	CASE("an annotation's time as varint", "\x0a\4\x52\2\x08\1"),
	CASE("an annotation's text as varint", "\x0a\4\x52\2\x10\1"),
	CASE("damage behind a bad id", "\x0a\5\x0a\1x\x0a\7"),
#undef CASE
};

static void damage_refuses_the_list(void **state)
{
	struct buf pb = BUF_INIT;
	struct zipkin_result res;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(damaged); i++) {
		struct err err = ERR_INIT;
		struct bytes in = { (const uint8_t *)damaged[i].in, damaged[i].n };

		if (decode(in, false, &pb, &res, &err) == 0)
			fail_msg("%s: taken", damaged[i].name);
		assert_int_equal(err.kind, ERR_INVALID);
		assert_int_equal(pb.n, 0);
	}
	assert_int_equal(decode(BYTES_EMPTY, false, &pb, &res, NULL), 0);
	assert_int_equal(pb.n, 0);
	buf_fini(&pb);
}

static const struct {
	const char *in, *out;
} typed[] = {
	{ "7", "k#7" },
	{ "-7", "k#-7" },
	{ "1.50", "k~1.5" },
	{ "-0.5", "k~-0.5" },
	{ "true", "k?1" },
	{ "false", "k?0" },
	{ "True", "k=True" },
	{ "", "k=" },
	{ "-", "k=-" },
	{ "1.", "k=1." },
	{ ".5", "k=.5" },
	{ "1e3", "k=1e3" },
	{ "1.2.3", "k=1.2.3" },
	{ "9223372036854775807", "k#9223372036854775807" },
	{ "9223372036854775808", "k=9223372036854775808" },
	{ "7 ", "k=7 " },
	{ "+7", "k=+7" },
};

static void tags_are_typed_when_asked(void **state)
{
	struct buf list = BUF_INIT, pb = BUF_INIT, text = BUF_INIT, want = BUF_INIT;
	struct zipkin_result res;

	(void)state;
	for (size_t i = 0; i < 2 * COUNT_OF(typed); i++) {
		const char *in = typed[i / 2].in;
		size_t mark, tag;

		buf_reset(&list);
		mark = pb_begin(&list, 1);
		buf_add(&list, ID, sizeof(ID) - 1);
		pb_put_fixed64(&list, 6, 1);
		tag = pb_begin(&list, 11);
		pb_put_str(&list, 1, "k");
		pb_put_str(&list, 2, in);
		pb_end(&list, tag);
		pb_end(&list, mark);
		buf_reset(&pb);
		assert_int_equal(decode(buf_bytes(&list), i % 2, &pb, &res, NULL), 0);
		buf_reset(&want);
		if (i % 2)
			buf_printf(&want, "{}\n1/2 -  1+0 %s\n", typed[i / 2].out);
		else
			buf_printf(&want, "{}\n1/2 -  1+0 k=%s\n", in);
		assert_string_equal(zipkin_dump(buf_bytes(&pb), &text), buf_cstr(&want));
	}
	buf_fini(&list);
	buf_fini(&pb);
	buf_fini(&text);
	buf_fini(&want);
}

static void golden_equals_json(void **state)
{
	static const char *const files[] = { "jaeger-zipkin_v2_03", "lens-ascend", "lens-messaging",
					     "sample1", "zipkin_v2_single" };
	struct buf in = BUF_INIT, from_proto = BUF_INIT, from_json = BUF_INIT;
	struct buf text = BUF_INIT, other = BUF_INIT;
	struct zipkin_result res, json_res;
	char path[200];

	(void)state;
	zipkin_dump_sorted = true; /* the order of a protobuf map is nobody's */
	for (size_t i = 0; i < COUNT_OF(files); i++) {
		struct arena a = ARENA_INIT;

		buf_reset(&from_proto);
		buf_reset(&from_json);
		snprintf(path, sizeof(path), "zipkin/derived/%s.pb", files[i]);
		if (!json_golden_read(path, &in))
			continue;
		assert_int_equal(decode(buf_bytes(&in), false, &from_proto, &res, NULL), 0);
		snprintf(path, sizeof(path), "zipkin/%s.json", files[i]);
		assert_true(json_golden_read(path, &in));
		assert_int_equal(zipkin_json_decode(buf_bytes(&in), 0, false, &a, &from_json,
						    &json_res, NULL),
				 0);
		assert_int_equal(res.n_ok, json_res.n_ok);
		assert_int_equal(res.n_bad, 0);
		assert_string_equal(zipkin_dump(buf_bytes(&from_proto), &text),
				    zipkin_dump(buf_bytes(&from_json), &other));
		arena_fini(&a);
	}
	if (json_golden_read("zipkin/derived/zipkin_proto_01.pb", &in)) {
		buf_reset(&from_proto);
		assert_int_equal(decode(buf_bytes(&in), false, &from_proto, &res, NULL), 0);
		assert_string_equal(
			zipkin_dump(buf_bytes(&from_proto), &text),
			"{service.name=foo}\n428568baaa09467e428e688aaa09467f/2^1 "
			"CLIENT foo 1+10 foo=bar network.local.address=10.43.17.42 "
			"network.peer.address=10.43.17.43 peer.service=bar "
			"service.peer.name=bar zipkin.debug?1 zipkin.shared?1 @1 foo()\n");
	}
	buf_fini(&in);
	buf_fini(&from_proto);
	buf_fini(&from_json);
	buf_fini(&text);
	buf_fini(&other);
}

static void flipped_bits_and_cuts_do_no_harm(void **state)
{
	struct buf list = BUF_INIT, pb = BUF_INIT;
	struct zipkin_result res;
	struct rng rng;

	(void)state;
	rng_seed(&rng, 7);
	wrap(spans[1].in, spans[1].n, ID, sizeof(ID) - 1, &list);
	for (int i = 0; i < 5000; i++) {
		size_t n = i % 4 == 0 ? rng_below(&rng, list.n) : list.n;
		uint8_t *copy = xmalloc(n + 1);

		memcpy(copy, list.p, n);
		if (n > 0)
			copy[rng_below(&rng, n)] ^= (uint8_t)(1u << rng_below(&rng, 8));
		buf_reset(&pb);
		if (decode((struct bytes){ copy, n }, i & 1, &pb, &res, NULL) < 0)
			assert_int_equal(pb.n, 0);
		free(copy);
	}
	buf_fini(&list);
	buf_fini(&pb);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fields_are_mapped),
		cmocka_unit_test(a_bad_span_costs_only_itself),
		cmocka_unit_test(damage_refuses_the_list),
		cmocka_unit_test(tags_are_typed_when_asked),
		cmocka_unit_test(golden_equals_json),
		cmocka_unit_test(flipped_bits_and_cuts_do_no_harm),
	};

	return cmocka_run_group_tests_name("zipkin_proto", tests, NULL, NULL);
}
