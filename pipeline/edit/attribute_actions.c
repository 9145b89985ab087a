/* SPDX-License-Identifier: Apache-2.0
 *
 * attribute_actions.c - see attribute_actions.h.
 */
#include "pipeline/edit/attribute_actions.h"

#include "base/digest.h"
#include "base/mem.h"
#include "base/regex.h"
#include "base/str.h"
#include "pipeline/conf/any.h"
#include "pipeline/conf/error.h"
#include "pipeline/conf/tree.h"
#include "wire/any_value.h"
#include "wire/pb.h"

#include <math.h>
#include <stdio.h>

enum action {
	ACTION_NONE,
	ACTION_INSERT,
	ACTION_UPDATE,
	ACTION_UPSERT,
	ACTION_DELETE,
	ACTION_HASH,
	ACTION_EXTRACT,
	ACTION_CONVERT,
};

struct attribute_action {
	enum action action;
	struct bytes key; /* empty: none */
	struct regex *pattern;
	struct bytes from_attribute;
	struct bytes value, fallback; /* contents of an AnyValue */
	bool has_value, has_fallback;
	enum any_kind convert_to;
};

struct attribute_actions {
	struct arena arena;
	size_t n;
	struct attribute_action v[];
};

/* ---- options ---- */

static const struct option_choice action_names[] = {
	{ "insert", ACTION_INSERT },   { "update", ACTION_UPDATE },
	{ "upsert", ACTION_UPSERT },   { "delete", ACTION_DELETE },
	{ "hash", ACTION_HASH },       { "extract", ACTION_EXTRACT },
	{ "convert", ACTION_CONVERT }, { NULL, 0 },
};

#define A struct attribute_action_options
const struct option attribute_action_table[] = {
	OPT_STR(A, "key", key, NULL, "The attribute."),
	OPT_ENUM(A, "action", action, action_names, NULL,
		 "insert (when absent), update (when there), upsert (either), delete, hash (the "
		 "value becomes its SHA-1 in hex), extract (named groups of `pattern` become "
		 "attributes) or convert."),
	OPT_NODE(A, "value", value, "production", "For insert, update, upsert: of any type."),
	OPT_STR(A, "from_attribute", from_attribute, NULL,
		"Instead of a value: that of another attribute."),
	OPT_NODE(A, "default_value", default_value, "unknown",
		 "When the attribute of from_attribute is absent."),
	OPT_STR(A, "pattern", pattern, NULL,
		"A regular expression: for delete and hash which keys, for extract what to find in "
		"the value."),
	OPT_STR(A, "converted_type", converted_type, NULL, "For convert: int, double or string."),
	OPT_UNSUPPORTED("from_context",
			"take the value from the resource or the span; a batch of Spanmill carries "
			"no client metadata"),
	OPT_END
};
#undef A

static enum any_kind converted_kind(const char *name)
{
	static const struct {
		const char *name;
		enum any_kind kind;
	} kinds[] = { { "int", ANY_INT }, { "double", ANY_DOUBLE }, { "string", ANY_STRING } };

	for (size_t i = 0; i < COUNT_OF(kinds); i++)
		if (strcmp(name, kinds[i].name) == 0)
			return kinds[i].kind;
	return ANY_EMPTY;
}

/* ---- checks ---- */

struct check {
	struct conf_errors *errs;
	const struct conf_node *item;
	char path[512];
};

static void say(struct check *c, const char *key, const char *hint, const char *what)
{
	conf_error_at(c->errs, c->item, c->path, key, hint, "%s", what);
}

static void check_pattern(struct check *c, const struct attribute_action_options *o)
{
	struct err err = ERR_INIT;
	struct regex *re;

	if (o->pattern[0] == '\0') {
		if (o->action == ACTION_EXTRACT)
			say(c, "pattern", "for example ^/api/(?P<version>v\\d+)/",
			    "extract needs a pattern");
		return;
	}
	if (o->action != ACTION_DELETE && o->action != ACTION_HASH && o->action != ACTION_EXTRACT) {
		say(c, "pattern", "it is for delete, hash and extract", "has no meaning here");
		return;
	}
	re = regex_new(o->pattern, &err);
	if (re == NULL)
		say(c, "pattern", "a regular expression", err.msg);
	else if (o->action == ACTION_EXTRACT && regex_n_names(re) == 0)
		say(c, "pattern", "name what to take: (?P<name>...)", "has no named group");
	regex_free(re);
}

static void check_source(struct check *c, const struct attribute_action_options *o)
{
	bool writes = o->action >= ACTION_INSERT && o->action <= ACTION_UPSERT;

	if (writes && o->value == NULL && o->from_attribute[0] == '\0')
		say(c, NULL, "write value: or from_attribute:",
		    "neither value nor from_attribute says what to write");
	if (writes && o->value != NULL && o->from_attribute[0] != '\0')
		say(c, "from_attribute", "remove one of them", "value is set as well");
	if (!writes && (o->value != NULL || o->from_attribute[0] != '\0'))
		say(c, o->value ? "value" : "from_attribute", "remove it",
		    "has no meaning for this action");
}

static void check_action(struct check *c, const struct attribute_action_options *o)
{
	bool by_pattern =
		(o->action == ACTION_DELETE || o->action == ACTION_HASH) && o->pattern[0] != '\0';

	if (o->action == ACTION_NONE)
		say(c, "action", "for example action: insert", "an action is required");
	if (o->key[0] == '\0' && !by_pattern)
		say(c, "key", "the name of an attribute", "a key is required");
	if (o->action == ACTION_CONVERT && converted_kind(o->converted_type) == ANY_EMPTY)
		say(c, "converted_type", "int, double or string",
		    o->converted_type[0] ? "unknown type" : "convert needs a type");
	check_pattern(c, o);
	check_source(c, o);
}

void attribute_actions_check(const struct option_list *list, const struct conf_node *node,
			     struct conf_errors *errs, const char *path, const char *list_key)
{
	const struct attribute_action_options *v = list->items;
	const struct conf_node *key = conf_tree_find(node, list_key);
	const struct conf_node *item = key != NULL ? key->first : NULL;
	struct check c = { .errs = errs };

	if (list->n == 0)
		conf_error_at(errs, node, path, list_key,
			      "write one `- {key: a, action: delete}` a line",
			      "no action is configured");
	for (size_t i = 0; i < list->n; i++) {
		snprintf(c.path, sizeof(c.path), "%s.%s[%zu]", path, list_key, i);
		c.item = item;
		check_action(&c, &v[i]);
		item = item != NULL ? item->next : NULL;
	}
}

/* ---- making ---- */

static struct bytes value_of(struct arena *arena, const struct conf_node *n)
{
	struct buf any = BUF_INIT;
	struct bytes ret;

	conf_any_put(n, &any);
	ret = (struct bytes){ arena_dup(arena, any.p, any.n), any.n };
	buf_fini(&any);
	return ret;
}

static int make_action(struct attribute_actions *a, const struct attribute_action_options *o,
		       struct attribute_action *to, struct err *err)
{
	*to = (struct attribute_action){
		.action = (enum action)o->action,
		.key = bytes_str(o->key),
		.from_attribute = bytes_str(o->from_attribute),
		.value = value_of(&a->arena, o->value),
		.fallback = value_of(&a->arena, o->default_value),
		.has_value = o->value != NULL,
		.has_fallback = o->default_value != NULL,
		.convert_to = converted_kind(o->converted_type),
	};
	if (o->pattern[0] == '\0')
		return 0;
	to->pattern = regex_new(o->pattern, err);
	return to->pattern != NULL ? 0 : -1;
}

struct attribute_actions *attribute_actions_new(const struct option_list *list, struct err *err)
{
	const struct attribute_action_options *v = list->items;
	struct attribute_actions *a = xcalloc(1, sizeof(*a) + list->n * sizeof(a->v[0]));

	for (a->n = 0; a->n < list->n; a->n++)
		if (make_action(a, &v[a->n], &a->v[a->n], err) < 0) {
			attribute_actions_free(a);
			return NULL;
		}
	return a;
}

void attribute_actions_free(struct attribute_actions *a)
{
	if (a == NULL)
		return;
	for (size_t i = 0; i < a->n; i++)
		regex_free(a->v[i].pattern);
	arena_fini(&a->arena);
	free(a);
}

/* ---- applying ---- */

/* The value to write; false when there is none. */
static bool source_of(const struct attribute_action *a, struct attr_edit *e, struct bytes *any)
{
	const struct attr_item *from;

	if (a->has_value) {
		*any = a->value;
		return true;
	}
	from = attr_edit_find(e, a->from_attribute);
	*any = from != NULL ? from->any : a->fallback;
	return from != NULL || a->has_fallback;
}

static void apply_write(const struct attribute_action *a, struct attr_edit *e)
{
	struct attr_item *item = attr_edit_find(e, a->key);
	struct bytes any;

	if ((item != NULL && a->action == ACTION_INSERT) ||
	    (item == NULL && a->action == ACTION_UPDATE) || !source_of(a, e, &any))
		return;
	attr_edit_put(e, a->key, any);
}

static void set_text(struct attr_edit *e, struct attr_item *item, struct bytes text)
{
	struct buf any = BUF_INIT;

	pb_put_bytes(&any, ANY_STRING, text);
	attr_edit_set(e, item, buf_bytes(&any));
	buf_fini(&any);
}

/* What is hashed: text as it is, numbers little endian; other kinds have none and become "". */
static size_t hash_input(const struct any_value *v, uint8_t number[8], struct bytes *in)
{
	uint64_t bits = (uint64_t)v->i;

	*in = v->s;
	if (v->kind == ANY_STRING)
		return v->s.n;
	if (v->kind == ANY_DOUBLE)
		memcpy(&bits, &v->d, sizeof(bits));
	if (v->kind == ANY_BOOL)
		bits = v->b;
	store_le32(number, (uint32_t)bits);
	store_le32(number + 4, (uint32_t)(bits >> 32));
	in->p = number;
	in->n = v->kind == ANY_BOOL ? 1 : v->kind == ANY_INT || v->kind == ANY_DOUBLE ? 8 : 0;
	return in->n;
}

static void apply_hash(struct attr_edit *e, struct attr_item *item)
{
	uint8_t number[8], digest[DIGEST_SHA1];
	char hex[2 * DIGEST_SHA1 + 1] = "";
	struct any_value v;
	struct bytes in;

	any_value_read(item->any, &v);
	if (v.kind == ANY_EMPTY)
		return;
	if (hash_input(&v, number, &in) > 0) {
		digest_sha1(in, digest);
		str_hex(digest, sizeof(digest), hex);
	}
	set_text(e, item, bytes_str(hex));
}

static void apply_to(const struct attribute_action *a, struct attr_edit *e, struct attr_item *item)
{
	if (a->action == ACTION_DELETE)
		attr_edit_remove(e, item);
	else
		apply_hash(e, item);
}

/* Delete or hash: one key, and all that match. */
static void apply_to_keys(const struct attribute_action *a, struct attr_edit *e)
{
	struct attr_item *item = a->key.n > 0 ? attr_edit_find(e, a->key) : NULL;

	if (item != NULL)
		apply_to(a, e, item);
	for (size_t i = 0; a->pattern != NULL && i < e->n; i++) {
		item = &e->v[i];
		if (item->is_attribute && !bytes_eq(item->key, a->key) &&
		    regex_matches(a->pattern, item->key))
			apply_to(a, e, item);
	}
}

static void apply_extract(const struct attribute_action *a, struct attr_edit *e)
{
	const struct attr_item *item = attr_edit_find(e, a->key);
	struct bytes groups[REGEX_GROUPS_MAX];
	struct buf any = BUF_INIT;
	struct any_value v;

	if (item == NULL)
		return;
	any_value_read(item->any, &v);
	if (v.kind != ANY_STRING || !regex_extract(a->pattern, v.s, groups))
		return;
	for (unsigned i = 0; i < regex_n_names(a->pattern); i++) {
		buf_reset(&any);
		pb_put_bytes(&any, ANY_STRING, groups[i]);
		attr_edit_put(e, bytes_str(regex_name(a->pattern, i)), buf_bytes(&any));
	}
	buf_fini(&any);
}

/* To an integer as Go converts; false: the text is none. */
static bool to_int(const struct any_value *v, int64_t *out)
{
	switch (v->kind) {
	case ANY_BOOL:
		*out = v->b;
		return true;
	case ANY_DOUBLE:
		*out = any_value_fits_int64(v->d) ? (int64_t)v->d : INT64_MIN;
		return true;
	case ANY_STRING:
		return str_to_i64(v->s, out) == 0;
	default:
		return false;
	}
}

static bool to_double(const struct any_value *v, double *out)
{
	switch (v->kind) {
	case ANY_BOOL:
		*out = v->b;
		return true;
	case ANY_INT:
		*out = (double)v->i;
		return true;
	case ANY_STRING:
		return str_to_double(v->s, out) == 0;
	default:
		return false;
	}
}

static void apply_convert(const struct attribute_action *a, struct attr_edit *e)
{
	struct attr_item *item = attr_edit_find(e, a->key);
	struct any_value v, to = { .kind = a->convert_to, .s = BYTES_EMPTY };
	struct buf text = BUF_INIT, any = BUF_INIT;
	bool ok = item != NULL;

	if (ok)
		any_value_read(item->any, &v);
	if (!ok || v.kind == a->convert_to)
		return;
	if (a->convert_to == ANY_INT) {
		ok = to_int(&v, &to.i);
	} else if (a->convert_to == ANY_DOUBLE) {
		ok = to_double(&v, &to.d);
	} else {
		any_value_text(&v, &text);
		to.s = buf_bytes(&text);
	}
	any_value_put(&any, &to);
	if (ok)
		attr_edit_set(e, item, buf_bytes(&any));
	buf_fini(&text);
	buf_fini(&any);
}

void attribute_actions_apply(const struct attribute_actions *a, struct attr_edit *e)
{
	for (size_t i = 0; i < a->n; i++) {
		const struct attribute_action *action = &a->v[i];

		if (action->action <= ACTION_UPSERT)
			apply_write(action, e);
		else if (action->action == ACTION_EXTRACT)
			apply_extract(action, e);
		else if (action->action == ACTION_CONVERT)
			apply_convert(action, e);
		else
			apply_to_keys(action, e);
	}
}
