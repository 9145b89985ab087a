/* SPDX-License-Identifier: Apache-2.0
 *
 * test_xml_reader.c - what comes out of well-formed XML, and that the rest is damage with a place.
 */
#include "wire/xml_reader.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

/* Every item as text: "<a>" opens, "a=text." closes. -1: the error's text follows. */
static void walk(struct bytes in, struct buf *out)
{
	struct err err = ERR_INIT;
	struct xml_reader r;
	struct xml_item item;
	int got;

	xml_reader_init(&r, in);
	while ((got = xml_reader_next(&r, &item, &err)) > 0) {
		if (item.kind == XML_OPEN)
			buf_printf(out, "<%u%.*s>", item.depth, (int)item.name.n, item.name.p);
		else
			buf_printf(out, "%u%.*s=%.*s.", item.depth, (int)item.name.n, item.name.p,
				   (int)item.text.n, item.text.n ? (const char *)item.text.p : "");
	}
	if (got < 0)
		buf_printf(out, "%s", err.msg);
	xml_reader_fini(&r);
}

static void items_and_damage(void **state)
{
	static const struct {
		const char *in, *want;
	} cases[] = {
		{ "<a/>", "<1a>1a=." },
		{ " <?xml version=\"1.0\"?>\n\n<a></a>\n<!-- end -->\n", "<1a>1a=." },
		{ "<a>one</a>", "<1a>1a=one." },
		{ "<a b='>' c = \"/>\"><d>x</d><d/></a >", "<1a><2d>2d=x.<2d>2d=.1a=." },
		{ "<s3:a xmlns:s3=\"u\"><s3:b>1</s3:b></s3:a>", "<1a><2b>2b=1.1a=." },
		{ "<a>&lt;&amp;&gt;&quot;&apos;&#65;&#x42;&#xe9;&#x20ac;&#x1F600;</a>",
		  "<1a>1a=<&>\"'AB\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80." },
		{ "<a>x<![CDATA[<&]]>y<!-- no -->z</a>", "<1a>1a=x<&yz." },
		{ "", "xml: byte 0: ends too early" },
		{ "<a>", "<1a>xml: byte 3: ends too early" },
		{ "<a", "xml: byte 2: tag without an end" },
		{ "<a></b>", "<1a>xml: byte 6: closes what is not open" },
		{ "</a>", "xml: byte 3: closes what is not open" },
		{ "<a/><b/>", "<1a>1a=.xml: byte 4: a second root" },
		{ "<a/>x", "<1a>1a=.xml: byte 4: text outside of the root" },
		{ "x<a/>", "xml: byte 0: text outside of the root" },
		{ "&amp;<a/>", "xml: byte 0: text outside of the root" },
		{ "<![CDATA[x]]><a/>", "xml: byte 0: text outside of the root" },
		{ "<!DOCTYPE a [<!ENTITY b \"c\">]><a>&b;</a>",
		  "xml: byte 0: a document type is not taken" },
		{ "<a>&b;</a>", "<1a>xml: byte 3: unknown entity" },
		{ "<a>&amp</a>", "<1a>xml: byte 3: & without an entity" },
		{ "<a>&#0;</a>", "<1a>xml: byte 3: unknown entity" },
		{ "<a>&#;</a>", "<1a>xml: byte 3: unknown entity" },
		{ "<a>&#x;</a>", "<1a>xml: byte 3: unknown entity" },
		{ "<a>&#xd800;</a>", "<1a>xml: byte 3: unknown entity" },
		{ "<a>&#x110000;</a>", "<1a>xml: byte 3: unknown entity" },
		{ "<a b></a>", "xml: byte 4: attribute without a value" },
		{ "<a b=1></a>", "xml: byte 5: attribute value without quotes" },
		{ "<a b='1></a>", "xml: byte 5: attribute value without an end" },
		{ "<a / >", "xml: byte 3: / inside a tag" },
		{ "< a/>", "xml: byte 1: a name is missing" },
		{ "<a><!-- ", "<1a>xml: byte 7: comment without an end" },
		{ "<a><? ", "<1a>xml: byte 3: <? without an end" },
		{ "<a><![CDATA[ ]]", "<1a>xml: byte 12: CDATA without an end" },
	};
	struct buf got = BUF_INIT;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		buf_reset(&got);
		walk(bytes_str(cases[i].in), &got);
		if (strcmp(buf_cstr(&got), cases[i].want) != 0)
			fail_msg("%s:\n got %s\nwant %s", cases[i].in, buf_cstr(&got),
				 cases[i].want);
	}
	buf_fini(&got);
}

static void depth_is_bounded(void **state)
{
	struct buf in = BUF_INIT, got = BUF_INIT;

	(void)state;
	for (int i = 0; i < XML_DEPTH_MAX; i++)
		buf_add_str(&in, "<a>");
	for (int i = 0; i < XML_DEPTH_MAX; i++)
		buf_add_str(&in, "</a>");
	walk(buf_bytes(&in), &got);
	assert_null(strstr(buf_cstr(&got), "xml:"));
	buf_reset(&in);
	for (int i = 0; i < 100000; i++)
		buf_add_str(&in, "<a>");
	walk(buf_bytes(&in), &got);
	assert_non_null(strstr(buf_cstr(&got), "nested too deep"));
	buf_fini(&in);
	buf_fini(&got);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(items_and_damage),
		cmocka_unit_test(depth_is_bounded),
	};

	return cmocka_run_group_tests_name("xml_reader", tests, NULL, NULL);
}
