/* SPDX-License-Identifier: Apache-2.0
 *
 * test_resource_detection.c - the detectors on texts as they are found, and the processor: which of
 * several detectors wins, and what override does.
 */
#include "processors/resource_detection/detectors.h"
#include "tests/unit/processor_fixture.h"

#include <unistd.h>

static void env_variable(void **state)
{
	static const struct {
		const char *in, *key, *value;
		size_t n;
		int rc;
	} cases[] = {
		{ "a=1", "a", "1", 1, 0 },
		{ " a = 1 , b=x%20y%2c ", "b", "x y,", 2, 0 },
		{ "a=1,,a=2,", "a", "1", 1, 0 },
		{ "a=", "a", "", 1, 0 },
		{ "a=b=c%", "a", "b=c%", 1, 0 },
		{ "", NULL, NULL, 0, 0 },
		{ "a", NULL, NULL, 0, -1 },
		{ "=1", NULL, NULL, 0, -1 },
		{ "a=%ff", NULL, NULL, 0, -1 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct detected d = { .n = 0 };
		struct err err = ERR_INIT;
		bool found = cases[i].key == NULL;

		if (detect_env(cases[i].in, &d, &err) != cases[i].rc || d.n != cases[i].n)
			fail_msg("\"%s\": %zu found, %s", cases[i].in, d.n, err.msg);
		for (size_t k = 0; k < d.n; k++) {
			struct bytes any = d.v[k].any;
			struct pb_field f = { 0 };

			assert_int_equal(pb_next(&any, &f), 1);
			if (cases[i].key != NULL && bytes_eq_str(d.v[k].key, cases[i].key))
				found = bytes_eq_str(f.data, cases[i].value);
		}
		if (!found)
			fail_msg("\"%s\": no %s=%s", cases[i].in, cases[i].key, cases[i].value);
		detected_fini(&d);
	}
}

#define ID "3d06e8b1d1f5a9f6b31e6d6f8a7f0a4f2f1e2d3c4b5a69788796a5b4c3d2e1f0"

static void container_ids(void **state)
{
	static const struct {
		const char *text;
		bool found;
	} cases[] = {
		{ "0::/docker/" ID "\n", true },
		{ "12:pids:/kubepods/besteffort/pod1b/" ID "\n", true },
		{ "0::/system.slice/docker-" ID ".scope\n", true },
		{ "0::/user.slice\n", false },
		{ "0::/docker/" ID "0\n", false }, /* 65 digits are none */
		{ "", false },
		{ ID, true },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct bytes id = BYTES_EMPTY;

		if (detect_container_id(bytes_str(cases[i].text), &id) != cases[i].found)
			fail_msg("%s: found %d", cases[i].text, !cases[i].found);
		if (cases[i].found)
			assert_true(bytes_eq_str(id, ID));
	}
}

static char *run(const char *yaml)
{
	static const char in[] =
		"{\"resourceSpans\":[{\"resource\":{\"attributes\":[{\"key\":\"os.type\",\"value\":"
		"{\"stringValue\":\"theirs\"}}]},\"scopeSpans\":[{\"spans\":[{\"traceId\":"
		"\"5b8efff798038103d269b633813fc60c\",\"spanId\":\"eee19b7ec3c1b174\"}]}]}]}";
	char *out;

	fx_start("resource_detection", yaml);
	fx_give(fx_batch_json(in));
	out = fx_json(fx.kept[0]);
	fx_stop();
	return out;
}

static void order_and_override(void **state)
{
	static const struct {
		const char *yaml, *wants, *wants_not;
	} cases[] = {
		{ "{detectors: [system], system: {hostname_sources: [os]}}",
		  "{\"key\":\"os.type\",\"value\":{\"stringValue\":\"linux\"}}", "host.id" },
		{ "{detectors: [system], override: false}",
		  "{\"key\":\"os.type\",\"value\":{\"stringValue\":\"theirs\"}}", "linux" },
		{ "{detectors: [env, system]}",
		  "{\"key\":\"host.name\",\"value\":{\"stringValue\":\"from env\"}}", "theirs" },
		{ "{detectors: [system], system: {resource_attributes: {os.type: {enabled: false}, "
		  "host.arch: {enabled: true}}}}",
		  "{\"key\":\"host.arch\"", "linux" },
		{ "{}", "{\"key\":\"host.name\",\"value\":{\"stringValue\":\"from env\"}}",
		  "linux" },
	};

	(void)state;
	setenv("OTEL_RESOURCE_ATTRIBUTES", "host.name=from%20env", 1);
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		char *got = run(cases[i].yaml);

		if (strstr(got, cases[i].wants) == NULL || strstr(got, cases[i].wants_not) != NULL)
			fail_msg("%s: %s", cases[i].yaml, got);
		free(got);
	}
	unsetenv("OTEL_RESOURCE_ATTRIBUTES");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(env_variable),
		cmocka_unit_test(container_ids),
		cmocka_unit_test(order_and_override),
	};

	all_components_register();
	return cmocka_run_group_tests_name("resource_detection", tests, NULL, NULL);
}
