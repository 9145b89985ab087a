/* SPDX-License-Identifier: Apache-2.0
 *
 * span_match.c - see span_match.h.
 */
#include "pipeline/edit/span_match.h"

#include "base/mem.h"
#include "base/regex.h"
#include "pipeline/conf/any.h"
#include "pipeline/conf/error.h"
#include "pipeline/conf/tree.h"
#include "wire/any_value.h"
#include "wire/pb.h"

#include <stdio.h>

enum match_type { MATCH_UNSET, MATCH_STRICT, MATCH_REGEXP };
enum { SPAN_ATTRIBUTES = 9, RESOURCE_ATTRIBUTES = 1, RESOURCE_SPANS_RESOURCE = 1 };
enum { SCOPE_SPANS_SCOPE = 1, SCOPE_NAME = 1, SCOPE_VERSION = 2 };

/* ---- options ---- */

struct attribute_option {
	const char *key;
	const struct conf_node *value;
};

struct library_option {
	const char *name, *version;
	bool has_version;
};

static const struct option_choice match_types[] = { { "strict", MATCH_STRICT },
						    { "regexp", MATCH_REGEXP },
						    { NULL, 0 } };

static const struct option attribute_rows[] = {
	OPT_STR(struct attribute_option, "key", key, NULL, "Its name; must be there."),
	OPT_NODE(struct attribute_option, "value", value, "GET",
		 "Its value, or with regexp a pattern for its text; any when absent."),
	OPT_END
};

static const struct option library_rows[] = {
	OPT_STR(struct library_option, "name", name, NULL, "Name of the instrumentation scope."),
	OPT_STR(struct library_option, "version", version, NULL, "Its version; any when absent."),
	OPT_PRESENT(struct library_option, "version", has_version), OPT_END
};

#define S struct span_match_options
const struct option span_match_side_table[] = {
	OPT_ENUM(S, "match_type", match_type, match_types, NULL,
		 "strict (equal) or regexp (found anywhere)."),
	OPT_STRLIST(S, "services", services, NULL, "Of the resource's service.name any of these."),
	OPT_STRLIST(S, "span_names", span_names, NULL, "Of the name any of these."),
	OPT_STRLIST(S, "span_kinds", span_kinds, NULL, "Any of these, as SPAN_KIND_SERVER."),
	OPT_LIST(S, "attributes", attributes, struct attribute_option, attribute_rows,
		 "All of these on the span."),
	OPT_LIST(S, "resources", resources, struct attribute_option, attribute_rows,
		 "All of these on the resource."),
	OPT_LIST(S, "libraries", libraries, struct library_option, library_rows,
		 "Any of these scopes."),
	OPT_IGNORED("regexp", "patterns are compiled once, there is no cache to size"),
	OPT_END
};
#undef S

#define T struct span_match_sides
const struct option span_match_sides_table[] = {
	OPT_SECTION_NULL_OFF(T, "include", include.is_on, include, struct span_match_options,
			     span_match_side_table, "Only these spans; absent: all."),
	OPT_SECTION_NULL_OFF(T, "exclude", exclude.is_on, exclude, struct span_match_options,
			     span_match_side_table, "But not these."),
	OPT_END
};
#undef T

/* ---- what is compared with ---- */

/* A text: equal to one, or found by a pattern. */
struct text_test {
	struct bytes text;
	struct regex *pattern;
};

struct text_tests {
	struct text_test *v;
	size_t n;
};

struct attribute_test {
	struct bytes key;
	bool any_value;
	struct bytes content; /* of an AnyValue; strict */
	struct regex *pattern;
};

struct attribute_tests {
	struct attribute_test *v;
	size_t n;
};

struct library_test {
	struct text_test name, version;
	bool any_version;
};

struct side {
	bool is_on;
	struct text_tests services, names, kinds;
	struct attribute_tests attributes, resources;
	struct library_test *libraries;
	size_t n_libraries;
};

struct span_match {
	struct side include, exclude;
	struct arena arena;
};

struct making {
	struct span_match *m;
	bool is_regexp;
	struct err *err;
};

static int make_text(struct making *k, const char *text, struct text_test *to)
{
	to->text = bytes_str(text);
	if (!k->is_regexp)
		return 0;
	to->pattern = regex_new(text, k->err);
	return to->pattern != NULL ? 0 : -1;
}

static int make_texts(struct making *k, const struct strlist *list, struct text_tests *to)
{
	int rc = 0;

	to->v = arena_zalloc(&k->m->arena, list->n * sizeof(*to->v));
	for (; to->n < list->n && rc == 0; to->n++)
		rc = make_text(k, list->items[to->n], &to->v[to->n]);
	return rc;
}

static int make_attribute(struct making *k, const struct attribute_option *o,
			  struct attribute_test *to)
{
	struct buf any = BUF_INIT, text = BUF_INIT;
	struct any_value v;
	int rc = 0;

	to->key = bytes_str(o->key);
	to->any_value = o->value == NULL;
	conf_any_put(o->value, &any);
	to->content = (struct bytes){ arena_dup(&k->m->arena, any.p, any.n), any.n };
	any_value_read(to->content, &v);
	any_value_text(&v, &text);
	if (k->is_regexp && !to->any_value) {
		to->pattern = regex_new(buf_cstr(&text), k->err);
		rc = to->pattern != NULL ? 0 : -1;
	}
	buf_fini(&any);
	buf_fini(&text);
	return rc;
}

static int make_attributes(struct making *k, const struct option_list *list,
			   struct attribute_tests *to)
{
	const struct attribute_option *v = list->items;
	int rc = 0;

	to->v = arena_zalloc(&k->m->arena, list->n * sizeof(*to->v));
	for (; to->n < list->n && rc == 0; to->n++)
		rc = make_attribute(k, &v[to->n], &to->v[to->n]);
	return rc;
}

static int make_libraries(struct making *k, const struct option_list *list, struct side *to)
{
	const struct library_option *v = list->items;
	int rc = 0;

	to->libraries = arena_zalloc(&k->m->arena, list->n * sizeof(*to->libraries));
	for (size_t i = 0; i < list->n && rc == 0; i++) {
		struct library_test *l = &to->libraries[to->n_libraries++];

		l->any_version = !v[i].has_version;
		rc = make_text(k, v[i].name, &l->name);
		if (rc == 0 && v[i].has_version)
			rc = make_text(k, v[i].version, &l->version);
	}
	return rc;
}

static int make_side(struct making *k, const struct span_match_options *o, struct side *to)
{
	k->is_regexp = o->match_type == MATCH_REGEXP;
	to->is_on = o->is_on;
	return make_texts(k, &o->services, &to->services) < 0 ||
			       make_texts(k, &o->span_names, &to->names) < 0 ||
			       make_texts(k, &o->span_kinds, &to->kinds) < 0 ||
			       make_attributes(k, &o->attributes, &to->attributes) < 0 ||
			       make_attributes(k, &o->resources, &to->resources) < 0 ||
			       make_libraries(k, &o->libraries, to) < 0
		       ? -1
		       : 0;
}

struct span_match *span_match_new(const struct span_match_sides *o, struct err *err)
{
	struct span_match *m = xcalloc(1, sizeof(*m));
	struct making k = { .m = m, .err = err };

	if (make_side(&k, &o->include, &m->include) == 0 &&
	    make_side(&k, &o->exclude, &m->exclude) == 0)
		return m;
	span_match_free(m);
	return NULL;
}

static void free_texts(struct text_tests *t)
{
	for (size_t i = 0; i < t->n; i++)
		regex_free(t->v[i].pattern);
}

static void free_attributes(struct attribute_tests *t)
{
	for (size_t i = 0; i < t->n; i++)
		regex_free(t->v[i].pattern);
}

static void free_side(struct side *s)
{
	free_texts(&s->services);
	free_texts(&s->names);
	free_texts(&s->kinds);
	free_attributes(&s->attributes);
	free_attributes(&s->resources);
	for (size_t i = 0; i < s->n_libraries; i++) {
		regex_free(s->libraries[i].name.pattern);
		regex_free(s->libraries[i].version.pattern);
	}
}

void span_match_free(struct span_match *m)
{
	if (m == NULL)
		return;
	free_side(&m->include);
	free_side(&m->exclude);
	arena_fini(&m->arena);
	free(m);
}

/* ---- checks ---- */

static bool has_criteria(const struct span_match_options *o)
{
	return o->services.n + o->span_names.n + o->span_kinds.n + o->attributes.n +
		       o->resources.n + o->libraries.n >
	       0;
}

static void check_side(const struct span_match_options *o, const struct conf_node *node,
		       struct conf_errors *errs, const char *path, const char *key)
{
	struct span_match m = { .arena = ARENA_INIT };
	struct err err = ERR_INIT;
	struct making k = { .m = &m, .err = &err };
	char under[32];

	if (!o->is_on)
		return;
	snprintf(under, sizeof(under), "%s.match_type", key);
	if (o->match_type == MATCH_UNSET)
		conf_error_at(errs, node, path, under, "strict or regexp", "is required");
	if (!has_criteria(o))
		conf_error_at(errs, node, path, key,
			      "give services, span_names, span_kinds, attributes, resources or "
			      "libraries",
			      "says nothing about which spans");
	if (make_side(&k, o, &m.include) < 0)
		conf_error_at(errs, node, path, key, "a regular expression each", "%s", err.msg);
	free_side(&m.include);
	arena_fini(&m.arena);
}

void span_match_check(const struct span_match_sides *o, const struct conf_node *node,
		      struct conf_errors *errs, const char *path)
{
	check_side(&o->include, node, errs, path, "include");
	check_side(&o->exclude, node, errs, path, "exclude");
}

/* ---- matching ---- */

static bool text_matches(const struct text_test *t, struct bytes text)
{
	return t->pattern != NULL ? regex_matches(t->pattern, text) : bytes_eq(t->text, text);
}

/* No tests: anything will do. */
static bool texts_match(const struct text_tests *t, struct bytes text)
{
	for (size_t i = 0; i < t->n; i++)
		if (text_matches(&t->v[i], text))
			return true;
	return t->n == 0;
}

static bool value_matches(const struct attribute_test *t, struct bytes any, struct buf *text)
{
	struct any_value v, want;

	if (t->any_value)
		return true;
	any_value_read(any, &v);
	if (t->pattern == NULL) {
		any_value_read(t->content, &want);
		return any_value_equal(&v, &want);
	}
	buf_reset(text);
	any_value_text(&v, text);
	return regex_matches(t->pattern, buf_bytes(text));
}

/* The attribute in a message of several slices. */
static bool find_attribute(const struct bytes *v, size_t n, uint32_t number, struct bytes key,
			   struct bytes *any)
{
	for (size_t i = 0; i < n; i++)
		if (otlp_attribute(v[i], number, key, any))
			return true;
	return false;
}

static bool attributes_match(const struct attribute_tests *t, const struct bytes *v, size_t n,
			     uint32_t number, struct buf *text)
{
	struct bytes any;

	for (size_t i = 0; i < t->n; i++)
		if (!find_attribute(v, n, number, t->v[i].key, &any) ||
		    !value_matches(&t->v[i], any, text))
			return false;
	return true;
}

/* The message in field `number` of runs of fields; empty when there is none. */
static struct bytes message_in(const struct bytes *heads, size_t n, uint32_t number)
{
	struct bytes found = BYTES_EMPTY;
	struct pb_field f = { 0 };

	for (size_t i = 0; i < n; i++)
		for (struct bytes rest = heads[i]; pb_next(&rest, &f) > 0;)
			if (f.number == number && f.wire == PB_LEN)
				found = f.data;
	return found;
}

static bool library_matches(const struct side *s, struct bytes scope)
{
	struct bytes name = message_in(&scope, 1, SCOPE_NAME);
	struct bytes version = message_in(&scope, 1, SCOPE_VERSION);

	for (size_t i = 0; i < s->n_libraries; i++)
		if (text_matches(&s->libraries[i].name, name) &&
		    (s->libraries[i].any_version ||
		     text_matches(&s->libraries[i].version, version)))
			return true;
	return s->n_libraries == 0;
}

static bool service_matches(const struct text_tests *services, struct bytes resource)
{
	struct bytes any;
	struct any_value v;

	if (services->n == 0)
		return true;
	if (!otlp_attribute(resource, RESOURCE_ATTRIBUTES, BYTES_LIT("service.name"), &any))
		return false;
	any_value_read(any, &v);
	return v.kind == ANY_STRING && texts_match(services, v.s);
}

static bool scope_matches(struct span_match_run *r, const struct side *s, uint32_t scope)
{
	const struct span_tables *t = r->tables;
	const struct scope_ref *sc = &t->scopes[scope];
	const struct resource_ref *res = &t->resources[sc->resource];
	struct bytes resource =
		message_in(t->heads + res->head, res->n_head, RESOURCE_SPANS_RESOURCE);

	if (!s->is_on)
		return false;
	return service_matches(&s->services, resource) &&
	       attributes_match(&s->resources, &resource, 1, RESOURCE_ATTRIBUTES, &r->text) &&
	       library_matches(s, message_in(t->heads + sc->head, sc->n_head, SCOPE_SPANS_SCOPE));
}

static struct bytes kind_name(uint8_t kind)
{
	static const char *const names[] = { "SPAN_KIND_UNSPECIFIED", "SPAN_KIND_INTERNAL",
					     "SPAN_KIND_SERVER",      "SPAN_KIND_CLIENT",
					     "SPAN_KIND_PRODUCER",    "SPAN_KIND_CONSUMER" };

	return kind < COUNT_OF(names) ? bytes_str(names[kind]) : BYTES_EMPTY;
}

static bool span_matches(struct span_match_run *r, const struct side *s, const struct span_ref *sp)
{
	const struct bytes whole = { sp->p, sp->len };

	return texts_match(&s->names, span_name(sp)) &&
	       texts_match(&s->kinds, kind_name(sp->kind)) &&
	       attributes_match(&s->attributes, sp->pieces ? sp->pieces : &whole,
				sp->pieces ? sp->n_pieces : 1, SPAN_ATTRIBUTES, &r->text);
}

void span_match_begin(struct span_match_run *r, const struct span_match *m, const struct batch *b)
{
	*r = (struct span_match_run){
		.match = m, .tables = &b->tables, .scope = UINT32_MAX, .text = BUF_INIT
	};
}

bool span_match_span(struct span_match_run *r, uint32_t i)
{
	const struct span_ref *sp = &r->tables->spans[i];
	const struct span_match *m = r->match;

	if (!m->include.is_on && !m->exclude.is_on)
		return true;
	if (sp->scope != r->scope) {
		r->scope = sp->scope;
		r->include_ok = scope_matches(r, &m->include, sp->scope);
		r->exclude_ok = scope_matches(r, &m->exclude, sp->scope);
	}
	if (m->include.is_on && !(r->include_ok && span_matches(r, &m->include, sp)))
		return false;
	return !(r->exclude_ok && span_matches(r, &m->exclude, sp));
}

void span_match_end(struct span_match_run *r)
{
	buf_fini(&r->text);
}
