/* SPDX-License-Identifier: Apache-2.0
 *
 * test_attributes.c - the attributes and resource processors: each action on each kind of value,
 * include and exclude, and that what is not meant stays the bytes it was.
 */
#include "tests/unit/processor_fixture.h"

/* Attributes as `"k":<any>` would be too short for OTLP JSON; this is one pair. */
#define KV(key, any) "{\"key\":\"" key "\",\"value\":{" any "}}"
#define STR(v) "\"stringValue\":\"" v "\""
#define INT(v) "\"intValue\":\"" v "\""
#define DOUBLE(v) "\"doubleValue\":" v
#define BOOL(v) "\"boolValue\":" v

static const char *const head =
	"{\"resourceSpans\":[{\"resource\":{\"attributes\":[%s]},\"scopeSpans\":[{\"scope\":{"
	"\"name\":\"lib\",\"version\":\"1\"},\"spans\":[{\"traceId\":"
	"\"5b8efff798038103d269b633813fc60c\",\"spanId\":\"eee19b7ec3c1b174\",\"name\":\"GET\","
	"\"kind\":2";

/* One span with these attributes below a resource with those, as OTLP JSON; free it. */
static char *request(const char *resource, const char *span)
{
	struct buf out = BUF_INIT;

	for (const char *at = head; *at != '\0'; at++) {
		if (at[0] == '%' && at[1] == 's') {
			buf_add_str(&out, resource);
			at++;
		} else {
			buf_add_char(&out, *at);
		}
	}
	buf_printf(&out, ",\"attributes\":[%s]}]}]}]}", span);
	buf_add_char(&out, '\0');
	return (char *)out.p;
}

/* What `processor` makes of one request. */
static char *run(const char *processor, const char *yaml, const char *json)
{
	char *out;

	fx_start(processor, yaml);
	fx_give(fx_batch_json(json));
	assert_int_equal(fx.n_kept, 1);
	out = fx_json(fx.kept[0]);
	fx_stop();
	return out;
}

struct action_case {
	const char *yaml, *in, *out;
};

static const struct action_case action_cases[] = {
	{ "{actions: [{key: env, value: prod, action: insert}]}", KV("a", INT("1")),
	  KV("a", INT("1")) "," KV("env", STR("prod")) },
	{ "{actions: [{key: a, value: 2, action: insert}]}", KV("a", INT("1")), KV("a", INT("1")) },
	{ "{actions: [{key: a, value: 2, action: update}]}",
	  KV("a", INT("1")) "," KV("b", INT("1")), KV("a", INT("2")) "," KV("b", INT("1")) },
	{ "{actions: [{key: c, value: 2, action: update}]}", KV("a", INT("1")), KV("a", INT("1")) },
	{ "{actions: [{key: c, value: 2.5, action: upsert}]}", KV("a", INT("1")),
	  KV("a", INT("1")) "," KV("c", DOUBLE("2.5")) },
	{ "{actions: [{key: a, value: \"2\", action: upsert}]}", KV("a", INT("1")),
	  KV("a", STR("2")) },
	{ "{actions: [{key: a, value: true, action: upsert}]}", KV("a", INT("1")),
	  KV("a", BOOL("true")) },
	{ "{actions: [{key: a, value: [1, x], action: upsert}]}", KV("a", INT("1")),
	  KV("a", "\"arrayValue\":{\"values\":[{\"intValue\":\"1\"},{\"stringValue\":\"x\"}]}") },
	{ "{actions: [{key: a, value: {k: -3}, action: upsert}]}", KV("a", INT("1")),
	  KV("a", "\"kvlistValue\":{\"values\":[" KV("k", INT("-3")) "]}") },
	{ "{actions: [{key: b, from_attribute: a, action: insert}]}", KV("a", BOOL("false")),
	  KV("a", BOOL("false")) "," KV("b", BOOL("false")) },
	{ "{actions: [{key: b, from_attribute: x, action: insert}]}", KV("a", INT("1")),
	  KV("a", INT("1")) },
	{ "{actions: [{key: b, from_attribute: x, default_value: none, action: insert}]}",
	  KV("a", INT("1")), KV("a", INT("1")) "," KV("b", STR("none")) },
	{ "{actions: [{key: a, action: delete}]}", KV("a", INT("1")) "," KV("b", INT("2")),
	  KV("b", INT("2")) },
	{ "{actions: [{pattern: ^db\\., action: delete}]}",
	  KV("db.user", STR("x")) "," KV("a", INT("1")) "," KV("db.password", STR("y")),
	  KV("a", INT("1")) },
	{ "{actions: [{key: a, pattern: ^db, action: delete}]}",
	  KV("a", INT("1")) "," KV("db.user", STR("x")) "," KV("c", INT("1")), KV("c", INT("1")) },
	/* printf abc | sha1sum; the number 1 as eight bytes, true as one */
	{ "{actions: [{key: a, action: hash}]}", KV("a", STR("abc")),
	  KV("a", STR("a9993e364706816aba3e25717850c26c9cd0d89d")) },
	{ "{actions: [{key: a, action: hash}]}", KV("a", INT("1")),
	  KV("a", STR("3da89ee273be13437e7ecf760f3fbd4dc0e8d1fe")) },
	{ "{actions: [{key: a, action: hash}]}", KV("a", BOOL("true")),
	  KV("a", STR("bf8b4530d8d246dd74ac53a13471bba17941dff7")) },
	{ "{actions: [{key: a, action: hash}]}", KV("a", STR("")), KV("a", STR("")) },
	{ "{actions: [{pattern: ^s, action: hash}]}", KV("sx", STR("abc")) "," KV("a", INT("1")),
	  KV("sx", STR("a9993e364706816aba3e25717850c26c9cd0d89d")) "," KV("a", INT("1")) },
	{ "{actions: [{key: url, pattern: '^/(?P<app>\\w+)/(?P<v>v\\d+)', action: extract}]}",
	  KV("v", STR("old")) "," KV("url", STR("/shop/v2/cart")),
	  KV("v", STR("v2")) "," KV("url", STR("/shop/v2/cart")) "," KV("app", STR("shop")) },
	{ "{actions: [{key: url, pattern: '^(?P<app>x)', action: extract}]}", KV("url", STR("/y")),
	  KV("url", STR("/y")) },
	{ "{actions: [{key: a, converted_type: int, action: convert}]}", KV("a", STR("-12")),
	  KV("a", INT("-12")) },
	{ "{actions: [{key: a, converted_type: int, action: convert}]}", KV("a", STR("12x")),
	  KV("a", STR("12x")) },
	{ "{actions: [{key: a, converted_type: int, action: convert}]}", KV("a", DOUBLE("-1.9")),
	  KV("a", INT("-1")) },
	{ "{actions: [{key: a, converted_type: double, action: convert}]}", KV("a", STR("1.5")),
	  KV("a", DOUBLE("1.5")) },
	{ "{actions: [{key: a, converted_type: string, action: convert}]}", KV("a", DOUBLE("0.25")),
	  KV("a", STR("0.25")) },
	{ "{actions: [{key: a, converted_type: string, action: convert}]}",
	  KV("a", "\"arrayValue\":{\"values\":[{\"intValue\":\"1\"},{\"stringValue\":\"x\"}]}"),
	  KV("a", STR("[1,\\\"x\\\"]")) },
	{ "{actions: [{key: a, converted_type: string, action: convert}]}",
	  KV("a", "\"bytesValue\":\"AAEC\""), KV("a", STR("AAEC")) },
	{ "{actions: [{key: a, value: 1, action: insert}, {key: b, from_attribute: a, action: "
	  "insert}, {key: a, action: delete}]}",
	  "", KV("b", INT("1")) },
};

static void actions_on_spans(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(action_cases); i++) {
		const struct action_case *c = &action_cases[i];
		char *in = request("", c->in), *want = request("", c->out);
		char *plain = run("attributes", "{actions: [{key: none, action: delete}]}", want);
		char *got = run("attributes", c->yaml, in);

		if (strcmp(got, plain) != 0)
			fail_msg("%s:\n%s\nwant\n%s", c->yaml, got, plain);
		free(in);
		free(want);
		free(got);
		free(plain);
	}
}

/* The same list, on the resource. */
static void actions_on_resources(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(action_cases); i++) {
		const struct action_case *c = &action_cases[i];
		char *in = request(c->in, KV("own", INT("7")));
		char *want = request(c->out, KV("own", INT("7"))), *got, *plain;
		char yaml[400];

		snprintf(yaml, sizeof(yaml), "{attributes%s", c->yaml + strlen("{actions"));
		plain = run("resource", "{attributes: [{key: none, action: delete}]}", want);
		got = run("resource", yaml, in);
		if (strcmp(got, plain) != 0)
			fail_msg("%s:\n%s\nwant\n%s", yaml, got, plain);
		free(in);
		free(want);
		free(got);
		free(plain);
	}
}

/* A resource that was not sent at all gets one; schema_url and scopes stay. */
static void resource_out_of_nothing(void **state)
{
	static const char in[] =
		"{\"resourceSpans\":[{\"scopeSpans\":[{\"spans\":[{\"traceId\":"
		"\"5b8efff798038103d269b633813fc60c\",\"spanId\":\"eee19b7ec3c1b174\"}]}]},"
		"{\"scopeSpans\":[{\"spans\":[{\"traceId\":\"5b8efff798038103d269b633813fc60c\","
		"\"spanId\":\"eee19b7ec3c1b175\"}]}],\"schemaUrl\":\"u\"}]}";
	char *got = run("resource", "{attributes: [{key: host, value: n1, action: upsert}]}", in);
	const char *at = got;
	int n = 0;

	(void)state;
	while ((at = strstr(at, "\"resource\":{\"attributes\":[" KV("host", STR("n1")) "]}")) !=
	       NULL) {
		n++;
		at++;
	}
	if (n != 2 || strstr(got, "\"schemaUrl\":\"u\"") == NULL)
		fail_msg("%s", got);
	free(got);
}

/* Which spans are meant: one span of service shop, GET, server, lib 1, with a=1 and m=abc. */
static void include_and_exclude(void **state)
{
	static const struct {
		const char *sides;
		bool is_meant;
	} cases[] = {
		{ "include: {match_type: strict, services: [other, shop]}", true },
		{ "include: {match_type: strict, services: [sho]}", false },
		{ "include: {match_type: regexp, services: [^sh]}", true },
		{ "include: {match_type: strict, span_names: [GET]}", true },
		{ "include: {match_type: strict, span_names: [POST]}", false },
		{ "include: {match_type: regexp, span_names: [P, '^G.T$']}", true },
		{ "include: {match_type: strict, span_kinds: [SPAN_KIND_SERVER]}", true },
		{ "include: {match_type: strict, span_kinds: [SPAN_KIND_CLIENT]}", false },
		{ "include: {match_type: strict, attributes: [{key: a, value: 1}]}", true },
		{ "include: {match_type: strict, attributes: [{key: a, value: \"1\"}]}", false },
		{ "include: {match_type: strict, attributes: [{key: a}]}", true },
		{ "include: {match_type: strict, attributes: [{key: a}, {key: x}]}", false },
		{ "include: {match_type: regexp, attributes: [{key: m, value: b}]}", true },
		{ "include: {match_type: regexp, attributes: [{key: a, value: '^1$'}]}", true },
		{ "include: {match_type: strict, resources: [{key: service.name, value: shop}]}",
		  true },
		{ "include: {match_type: strict, resources: [{key: a}]}", false },
		{ "include: {match_type: strict, libraries: [{name: lib}]}", true },
		{ "include: {match_type: strict, libraries: [{name: lib, version: '1'}]}", true },
		{ "include: {match_type: strict, libraries: [{name: lib, version: ''}]}", false },
		{ "include: {match_type: strict, services: [shop], span_names: [POST]}", false },
		{ "exclude: {match_type: strict, span_names: [GET]}", false },
		{ "exclude: {match_type: strict, span_names: [POST]}", true },
		{ "include: {match_type: strict, services: [shop]}, exclude: {match_type: strict, "
		  "attributes: [{key: a}]}",
		  false },
	};
	char *in =
		request(KV("service.name", STR("shop")), KV("a", INT("1")) "," KV("m", STR("abc")));

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		char yaml[400], *got;

		snprintf(yaml, sizeof(yaml),
			 "{actions: [{key: seen, value: 1, action: insert}], %s}", cases[i].sides);
		got = run("attributes", yaml, in);
		if ((strstr(got, "\"seen\"") != NULL) != cases[i].is_meant)
			fail_msg("%s: meant %d", yaml, !cases[i].is_meant);
		free(got);
	}
	free(in);
}

/* A shared batch is not changed under its other readers, and what comes out owns what it needs. */
static void others_see_nothing(void **state)
{
	char *in = request("", KV("a", INT("1"))), *before, *after, *got;
	struct batch *b;

	(void)state;
	fx_start("attributes", "{actions: [{key: a, action: delete}]}");
	b = fx_batch_json(in);
	before = fx_json(b);
	fx_give(batch_ref(b));
	after = fx_json(b);
	assert_string_equal(before, after);
	batch_unref(b);
	got = fx_json(fx.kept[0]);
	assert_null(strstr(got, "\"a\""));
	fx_stop();
	free(in);
	free(before);
	free(after);
	free(got);
}

/* More changes than a span has slices. */
static void many_changes(void **state)
{
	struct buf attributes = BUF_INIT;
	char *in, *got;
	const char *at;
	int n = 0;

	(void)state;
	for (int i = 0; i < 100; i++)
		buf_printf(&attributes, "%s{\"key\":\"%s%d\",\"value\":{\"intValue\":\"%d\"}}",
			   i ? "," : "", i % 2 ? "odd" : "even", i, i);
	in = request("", buf_cstr(&attributes));
	got = run("attributes", "{actions: [{pattern: ^odd, action: delete}]}", in);
	for (at = got; (at = strstr(at, "\"even")) != NULL; at++)
		n++;
	assert_int_equal(n, 50);
	assert_null(strstr(got, "\"odd"));
	buf_fini(&attributes);
	free(in);
	free(got);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(actions_on_spans),        cmocka_unit_test(actions_on_resources),
		cmocka_unit_test(resource_out_of_nothing), cmocka_unit_test(include_and_exclude),
		cmocka_unit_test(others_see_nothing),      cmocka_unit_test(many_changes),
	};

	all_components_register();
	return cmocka_run_group_tests_name("attributes", tests, NULL, NULL);
}
