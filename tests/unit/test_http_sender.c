/* SPDX-License-Identifier: Apache-2.0
 *
 * test_http_sender.c - what an HTTP next hop says, read: Retry-After, partial_success, Status. The
 * sender itself is tested against real servers in tests/integration/test_otlp_http.py.
 */
#include "base/clock.h"
#include "pipeline/send/http.h"
#include "wire/otlp_answer.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* Sun, 06 Nov 1994 08:49:37 GMT */
#define NOW (UINT64_C(784111777) * NS_PER_S)

static const struct {
	const char *name, *value;
	uint32_t want;
} pauses[] = {
	{ "none", NULL, 0 },
	{ "seconds", "120", 120000 },
	{ "at once", "0", 0 },
	{ "a date ahead", "Sun, 06 Nov 1994 08:49:47 GMT", 10000 },
	{ "a date that has passed", "Sun, 06 Nov 1994 08:49:27 GMT", 0 },
	{ "a date far off is a day", "Sun, 06 Nov 2094 08:49:37 GMT", 86400000 },
	{ "many seconds are a day", "99999999999", 86400000 },
	{ "nonsense", "soon", 0 },
	{ "negative", "-5", 0 },
	{ "empty", "", 0 },
};

static void retry_after_is_seconds_or_a_date(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(pauses); i++) {
		uint32_t got = http_sender_retry_after_ms(pauses[i].value, NOW);

		if (got != pauses[i].want)
			fail_msg("%s: got %u, want %u", pauses[i].name, got, pauses[i].want);
	}
}

static const struct {
	const char *name, *in;
	size_t n; /* 0: JSON */
	uint64_t n_rejected;
	const char *message;
} partials[] = {
	{ "empty", "", 0, 0, "" },
	{ "protobuf", "\x0a\x07\x08\x03\x12\x03why", 9, 3, "why" },
	{ "a warning", "\x0a\x05\x12\x03why", 7, 0, "why" },
	{ "a negative number", "\x0a\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 13, 0, "" },
	{ "damaged after the number", "\x0a\x04\x08\x03\x12\x7f", 6, 3, "" },
	{ "unknown fields", "\x12\x01x\x0a\x05\x18\x01\x08\x02\x10", 10, 2, "" },
	{ "JSON spans",
	  "{\"x\":[{}],\"partialSuccess\":{\"rejectedSpans\":\"3\",\"errorMessage\":\"why\"}}", 0,
	  3, "why" },
	{ "JSON log records, a plain number", "{\"partialSuccess\":{\"rejectedLogRecords\":4}}", 0,
	  4, "" },
	{ "JSON data points, old case",
	  "{\"partial_success\":{\"rejectedDataPoints\":5,\"error_message\":\"e\"}}", 0, 5, "e" },
	{ "no JSON", "<html>", 0, 0, "" },
	{ "another shape", "{\"partialSuccess\":[1]}", 0, 0, "" },
};

static void partial_success_is_read_in_both_encodings(void **state)
{
	struct otlp_partial_success got;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(partials); i++) {
		size_t n = partials[i].n ? partials[i].n : strlen(partials[i].in);

		otlp_answer_partial((struct bytes){ (const uint8_t *)partials[i].in, n },
				    partials[i].n == 0, &got);
		if (got.n_rejected != partials[i].n_rejected ||
		    strcmp(got.message, partials[i].message) != 0)
			fail_msg("%s: got %llu \"%s\"", partials[i].name,
				 (unsigned long long)got.n_rejected, got.message);
	}
}

static void a_status_has_a_message(void **state)
{
	struct buf out = BUF_INIT;

	(void)state;
	otlp_answer_status_message(bytes_str("\x08\x03\x12\x03why"), false, &out);
	otlp_answer_status_message(bytes_str("{\"code\":3,\"message\":\" not\"}"), true, &out);
	otlp_answer_status_message(bytes_str("{\"message\":7}"), true, &out);
	otlp_answer_status_message(bytes_str("upstream error"), true, &out);
	otlp_answer_status_message(bytes_str("upstream error"), false, &out);
	assert_string_equal(buf_cstr(&out), "why not");
	buf_fini(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(retry_after_is_seconds_or_a_date),
		cmocka_unit_test(partial_success_is_read_in_both_encodings),
		cmocka_unit_test(a_status_has_a_message),
	};

	return cmocka_run_group_tests_name("http_sender", tests, NULL, NULL);
}
