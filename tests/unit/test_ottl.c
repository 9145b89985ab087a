/* SPDX-License-Identifier: Apache-2.0
 *
 * test_ottl.c - conditions: what they say of one span, what the parser says of wrong ones, and the
 * filter processor that drops by them.
 */
#include "pipeline/ottl/ottl.h"
#include "tests/unit/processor_fixture.h"

#define ATTR(key, any) "{\"key\":\"" key "\",\"value\":{" any "}}"

/* clang-format off */
static const char request[] =
	"{\"resourceSpans\":[{\"schemaUrl\":\"u/1\",\"resource\":{\"attributes\":["
	ATTR("service.name", "\"stringValue\":\"shop\"")
	"]},\"scopeSpans\":[{\"scope\":{\"name\":\"lib\",\"version\":\"2\",\"attributes\":["
	ATTR("s", "\"intValue\":\"4\"")
	"]},\"spans\":[{\"traceId\":\"5b8efff798038103d269b633813fc60c\",\"spanId\":"
	"\"eee19b7ec3c1b174\",\"traceState\":\"a=1, b=2\",\"name\":\"GET /x\",\"kind\":2,"
	"\"startTimeUnixNano\":\"1000\",\"endTimeUnixNano\":\"2500\",\"flags\":257,"
	"\"attributes\":["
	ATTR("i", "\"intValue\":\"500\"") "," ATTR("d", "\"doubleValue\":0.5") ","
	ATTR("t", "\"stringValue\":\"Abc\"") "," ATTR("b", "\"boolValue\":true") ","
	ATTR("n", "\"stringValue\":\"12\"") ","
	ATTR("l", "\"arrayValue\":{\"values\":[{\"intValue\":\"7\"},{\"stringValue\":\"x\"}]}")
	"," ATTR("m", "\"kvlistValue\":{\"values\":[" ATTR("k", "\"stringValue\":\"v\"") "]}")
	"],\"droppedEventsCount\":3,\"events\":[{\"timeUnixNano\":\"5\",\"name\":\"exception\","
	"\"attributes\":[" ATTR("type", "\"stringValue\":\"IO\"") "]},{\"name\":\"retry\"}],"
	"\"status\":{\"code\":2,\"message\":\"bad\"}},{\"traceId\":"
	"\"5b8efff798038103d269b633813fc60c\",\"spanId\":\"eee19b7ec3c1b175\",\"parentSpanId\":"
	"\"eee19b7ec3c1b174\",\"name\":\"child\",\"kind\":3}]}]}]}";
/* clang-format on */

/* 1, 0, -1 for the first span of the request, or 2 with why: it does not parse. */
static int met(const char *text, enum ottl_context context, char why[512])
{
	struct err err = ERR_INIT;
	struct ottl_condition *c = ottl_condition_new(text, context, &err);
	struct ottl_subject s;
	struct batch *b;
	int rc = 2;

	atomic_store(&fx.service.budget.limit, (int64_t)GIB);
	if (c != NULL) {
		b = fx_batch_json(request);
		s = (struct ottl_subject){ .tables = &b->tables, .span = &b->tables.spans[0] };
		rc = ottl_condition_met(c, &s, &err);
		batch_unref(b);
	}
	ottl_condition_free(c);
	snprintf(why, 512, "%s", err.msg);
	return rc;
}

static void conditions(void **state)
{
	static const struct {
		const char *text;
		int want;
	} cases[] = {
		{ "name == \"GET /x\"", 1 },
		{ "span.name == \"GET /x\"", 1 },
		{ "name != \"GET /x\"", 0 },
		{ "name < \"H\" and name >= \"GET\"", 1 },
		{ "attributes[\"i\"] == 500", 1 },
		{ "attributes[\"i\"] == 500.0", 1 },
		{ "attributes[\"i\"] >= 499.5", 1 },
		{ "attributes[\"i\"] == \"500\"", 0 },
		{ "attributes[\"i\"] != \"500\"", 1 },
		{ "attributes[\"d\"] < 1", 1 },
		{ "attributes[\"d\"] == 5e-1", 1 },
		{ "attributes[\"b\"] == true", 1 },
		{ "attributes[\"b\"]", 1 },
		{ "not attributes[\"b\"]", 0 },
		{ "attributes[\"none\"] == nil", 1 },
		{ "attributes[\"none\"] != nil", 0 },
		{ "attributes[\"none\"] > 1", 0 },
		{ "attributes[\"none\"] == 1 or attributes[\"t\"] == \"Abc\"", 1 },
		{ "attributes[\"l\"][0] == 7", 1 },
		{ "attributes[\"l\"][1] == \"x\"", 1 },
		{ "attributes[\"l\"][2] == nil", 1 },
		{ "attributes[\"m\"][\"k\"] == \"v\"", 1 },
		{ "attributes[\"m\"][\"k\"][\"x\"] == nil", 1 },
		{ "resource.attributes[\"service.name\"] == \"shop\"", 1 },
		{ "resource.schema_url == \"u/1\"", 1 },
		{ "scope.name == \"lib\" and instrumentation_scope.version == \"2\"", 1 },
		{ "scope.attributes[\"s\"] == 4", 1 },
		{ "kind == SPAN_KIND_SERVER", 1 },
		{ "kind == 2", 1 },
		{ "kind.string == \"Server\"", 1 },
		{ "kind.deprecated_string == \"SPAN_KIND_SERVER\"", 1 },
		{ "status.code == STATUS_CODE_ERROR", 1 },
		{ "status.message == \"bad\"", 1 },
		{ "trace_id == 0x5b8efff798038103d269b633813fc60c", 1 },
		{ "trace_id == TraceID(\"5b8efff798038103d269b633813fc60c\")", 1 },
		{ "trace_id.string == \"5b8efff798038103d269b633813fc60c\"", 1 },
		{ "span_id == SpanID(0xeee19b7ec3c1b174)", 1 },
		{ "parent_span_id.string == \"\"", 1 },
		{ "IsRootSpan()", 1 },
		{ "trace_state[\"b\"] == \"2\"", 1 },
		{ "trace_state[\"c\"] == \"\"", 1 },
		{ "trace_state == \"a=1, b=2\"", 1 },
		{ "end_time_unix_nano - start_time_unix_nano == 1500", 1 },
		{ "end_time - start_time > Duration(\"1us\")", 1 },
		{ "end_time - start_time > Duration(\"1.5us\")", 0 },
		{ "flags == 257 and dropped_events_count == 3", 1 },
		{ "IsMatch(name, \"^GET /[xy]$\")", 1 },
		{ "IsMatch(attributes[\"i\"], \"^5\")", 1 },
		{ "IsMatch(attributes[\"none\"], \".*\")", 0 },
		{ "IsMatch(name, \"a\\d\")", 0 },
		{ "HasPrefix(name, \"GET\") and HasSuffix(name, \"/x\")", 1 },
		{ "HasPrefix(name, \"\")", 1 },
		{ "Len(attributes[\"t\"]) == 3 and Len(attributes[\"l\"]) == 2", 1 },
		{ "Int(attributes[\"n\"]) == 12", 1 },
		{ "Int(attributes[\"t\"]) == nil", 1 },
		{ "Double(attributes[\"n\"]) == 12", 1 },
		{ "String(attributes[\"d\"]) == \"0.5\"", 1 },
		{ "Bool(\"TRUE\") == true", 1 },
		{ "IsString(name) and IsInt(attributes[\"i\"]) and IsDouble(attributes[\"d\"])",
		  1 },
		{ "IsBool(attributes[\"b\"]) and IsMap(attributes[\"m\"])", 1 },
		{ "IsList(attributes[\"m\"])", 0 },
		{ "ToLowerCase(attributes[\"t\"]) == \"abc\"", 1 },
		{ "ToUpperCase(name) == \"GET /X\"", 1 },
		{ "1 + 2 * 3 == 7", 1 },
		{ "(1 + 2) * 3 == 9", 1 },
		{ "10 - 3 - 2 == 5", 1 },
		{ "7 / 2 == 3 and 7.0 / 2 == 3.5", 1 },
		{ "-3 < 0 and -0.5 < 0", 1 },
		{ "not false and not not true", 1 },
		{ "true or false and false", 1 },
		{ "(true or false) and false", 0 },
		{ "\"a\\\"b\\\\\" == \"a\\\"b\\\\\"", 1 },
		/* what cannot be told */
		{ "HasPrefix(attributes[\"i\"], \"5\")", -1 },
		{ "attributes[\"t\"] + 1 == 2", -1 },
		{ "1 / 0 == 1", -1 },
		{ "name", -1 },
		{ "false and name", 0 },
		{ "9223372036854775807 + 1 > 0", -1 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		char why[512];
		int got = met(cases[i].text, OTTL_SPAN, why);

		if (got != cases[i].want)
			fail_msg("%s: %d (%s), want %d", cases[i].text, got, why, cases[i].want);
	}
}

static void what_the_parser_says(void **state)
{
	static const struct {
		const char *text;
		enum ottl_context context;
		const char *says;
	} cases[] = {
		{ "", OTTL_SPAN, "character 1: the condition ends here, expected a value" },
		{ "name ==", OTTL_SPAN, "character 8: the condition ends here, expected a value" },
		{ "name == \"x", OTTL_SPAN, "character 9: a string without its end" },
		{ "name == 'x'", OTTL_SPAN, "character 9: unexpected \"'\"" },
		{ "nam == 1", OTTL_SPAN,
		  "character 1: a span has no \"nam\": did you mean \"name\"?" },
		{ "attributes == 1", OTTL_SPAN, "character 12: attributes need a key" },
		{ "attributes[x] == 1", OTTL_SPAN, "character 12: expected a key" },
		{ "name[\"x\"] == 1", OTTL_SPAN, "character 5: \"name\" takes no key" },
		{ "name == 1 2", OTTL_SPAN, "character 11: unexpected \"2\" behind the condition" },
		{ "(name == 1", OTTL_SPAN, "character 11: expected \")\"" },
		{ "SHA256(name) == 1", OTTL_SPAN,
		  "character 1: there is no function \"SHA256\": did you mean" },
		{ "IsMatch(name) ", OTTL_SPAN, "character 1: IsMatch takes 2 arguments, not 1" },
		{ "IsMatch(name, kind)", OTTL_SPAN, "the pattern of IsMatch must be a string" },
		{ "IsMatch(name, \"(\")", OTTL_SPAN, "missing closing parenthesis" },
		{ "name == 0x123", OTTL_SPAN, "character 9: bytes are 0x and pairs" },
		{ "1.2.3 == 1", OTTL_SPAN, "character 1: \"1.2.3\" is no number" },
		{ "99999999999999999999 == 1", OTTL_SPAN, "is no number" },
		{ "name == \"x\"", OTTL_RESOURCE, "a resource has no \"name\": did you mean" },
		{ "span.name == \"x\"", OTTL_RESOURCE,
		  "there is no span in a condition on a resource" },
		{ "name == \"x\"", OTTL_CONTEXT_MAX, "does not say of what: write span.name" },
		{ "spanevent.name == \"x\"", OTTL_SPAN, "there is no spanevent" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		char why[512];

		if (met(cases[i].text, cases[i].context, why) != 2 ||
		    strstr(why, cases[i].says) == NULL)
			fail_msg("\"%s\": %s", cases[i].text, why);
	}
}

/* Deep and long texts are refused, not followed. */
static void bounds(void **state)
{
	struct buf text = BUF_INIT;
	char why[512];

	(void)state;
	for (int i = 0; i < 10000; i++)
		buf_add_char(&text, '(');
	assert_int_equal(met(buf_cstr(&text), OTTL_SPAN, why), 2);
	assert_non_null(strstr(why, "levels"));
	buf_reset(&text);
	for (int i = 0; i < 2000; i++)
		buf_add_str(&text, "not ");
	assert_int_equal(met(buf_cstr(&text), OTTL_SPAN, why), 2);
	buf_reset(&text);
	buf_add_str(&text, "true");
	for (int i = 0; i < 200; i++)
		buf_add_str(&text, " and true");
	assert_int_equal(met(buf_cstr(&text), OTTL_SPAN, why), 1);
	for (int i = 0; i < 2000; i++)
		buf_add_str(&text, " and true");
	assert_int_equal(met(buf_cstr(&text), OTTL_SPAN, why), 2);
	buf_fini(&text);
}

/* What is left of the request: how many spans and events. */
static void filtered(void **state)
{
	static const struct {
		const char *yaml;
		unsigned n_spans, n_events;
	} cases[] = {
		{ "{traces: {span: ['name == \"none\"']}}", 2, 2 },
		{ "{traces: {span: ['name == \"child\"']}}", 1, 2 },
		{ "{traces: {span: ['name == \"none\"', 'IsRootSpan()']}}", 1, 0 },
		{ "{traces: {span: ['kind != nil']}}", 0, 0 },
		{ "{traces: {resource: ['attributes[\"service.name\"] == \"shop\"']}}", 0, 0 },
		{ "{traces: {resource: ['attributes[\"service.name\"] == \"x\"']}}", 2, 2 },
		{ "{traces: {spanevent: ['name == \"retry\"']}}", 2, 1 },
		{ "{traces: {spanevent: ['attributes[\"type\"] == \"IO\"', 'event_index == 1']}}",
		  2, 0 },
		{ "{trace_conditions: ['span.name == \"child\"', 'spanevent.name == \"retry\"']}",
		  1, 1 },
		{ "{trace_conditions: [{context: span, conditions: ['name == \"child\"']}]}", 1,
		  2 },
		{ "{trace_conditions: ['scope.name == \"lib\"']}", 0, 0 },
		{ "{traces: {span: ['HasPrefix(kind, \"x\")', 'name == \"child\"']}}", 1, 2 },
		{ "{spans: {include: {match_type: strict, span_names: [child]}}}", 1, 0 },
		{ "{spans: {exclude: {match_type: regexp, span_names: ['^GET']}}}", 1, 0 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		unsigned n_spans = 0, n_events = 0;

		fx_start("filter", cases[i].yaml);
		fx_give(fx_batch_json(request));
		for (unsigned k = 0; k < fx.n_kept; k++) {
			char *json = fx_json(fx.kept[k]);

			n_spans += fx.kept[k]->tables.n_spans;
			n_events += (strstr(json, "\"retry\"") != NULL) +
				    (strstr(json, "\"exception\"") != NULL);
			free(json);
		}
		fx_stop();
		if (n_spans != cases[i].n_spans || n_events != cases[i].n_events)
			fail_msg("%s: %u spans, %u events", cases[i].yaml, n_spans, n_events);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(conditions),
		cmocka_unit_test(what_the_parser_says),
		cmocka_unit_test(bounds),
		cmocka_unit_test(filtered),
	};

	all_components_register();
	return cmocka_run_group_tests_name("ottl", tests, NULL, NULL);
}
