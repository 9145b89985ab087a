/* SPDX-License-Identifier: Apache-2.0
 *
 * telemetry.c - the section service.telemetry. Contract in telemetry.h.
 *
 * DESIGN: what the Collector's users wrote is accepted in every schema it ever had; what changes
 * nothing here (callers, stack traces, zap's own errors) is accepted silently, what they would miss
 * (pushed metrics, own traces) with a warning.
 */
#include "pipeline/resolve/telemetry.h"

#include "base/rng.h"
#include "pipeline/conf/scalar.h"
#include "pipeline/conf/tree.h"
#include "pipeline/option/blocks.h"

#include <stdio.h>

#define PATH "service.telemetry"

struct reader {
	const char *host;
	uint64_t port;
	bool has_pull, without_type_suffix;
};

#define C struct reader
#define PULL "pull.exporter.prometheus."
static const struct option reader_table[] = {
	OPT_STR(C, PULL "host", host, "localhost", "Address of /metrics."),
	OPT_UINT(C, PULL "port", port, "8888", 0, 65535, "Port of /metrics."),
	OPT_BOOL(C, PULL "without_type_suffix", without_type_suffix, "true", "Leave _total off."),
	OPT_IGNORED(PULL "without_scope_info", "scope information is never written"),
	OPT_IGNORED(PULL "without_units", "units are never part of our names"),
	OPT_IGNORED(PULL "with_resource_constant_labels", "resource attributes are in target_info"),
	OPT_PRESENT(C, "pull", has_pull),
	OPT_IGNORED("periodic", "metrics are not pushed: let Prometheus scrape /metrics"),
	OPT_END
};
#undef C

static const struct option_choice metric_levels[] = {
	{ "none", TELEMETRY_NONE },
	{ "basic", TELEMETRY_BASIC },
	{ "normal", TELEMETRY_NORMAL },
	{ "detailed", TELEMETRY_DETAILED },
	{ NULL, 0 },
};
static const struct option_choice log_levels[] = {
	{ "debug", LOG_DEBUG },  { "info", LOG_INFO },
	{ "warn", LOG_WARN },    { "error", LOG_ERROR },
	{ "dpanic", LOG_ERROR }, { "panic", LOG_ERROR },
	{ "fatal", LOG_ERROR },  { NULL, 0 },
};
static const struct option_choice log_encodings[] = {
	{ "console", LOG_CONSOLE },
	{ "json", LOG_JSON },
	{ NULL, 0 },
};

#define C struct telemetry_section
const struct option telemetry_option_table[] = {
	OPT_ENUM(C, "metrics.level", metrics_level, metric_levels, "normal",
		 "none closes /metrics; the others measure the same here."),
	OPT_STR(C, "metrics.address", address, NULL, "host:port of /metrics (older spelling)."),
	OPT_LIST(C, "metrics.readers", readers, struct reader, reader_table,
		 "Where metrics are read."),
	OPT_PRESENT(C, "metrics.readers", has_readers),
	OPT_IGNORED("metrics.views", "views are not applied"),
	OPT_ENUM(C, "logs.level", log_level, log_levels, "info", "Lowest level that is written."),
	OPT_ENUM(C, "logs.encoding", log_encoding, log_encodings, "console", "key=value or JSON."),
	OPT_STRLIST(C, "logs.output_paths", output_paths, "[stderr]",
		    "Where lines go: stderr, stdout, files."),
	OPT_STRLIST(C, "logs.error_output_paths", error_output_paths, "[stderr]",
		    "Accepted: the logger has no errors of its own."),
	OPT_NODE(C, "logs.initial_fields", initial_fields, "{name: value}",
		 "Fields of every line."),
	OPT_BOOL(C, "logs.sampling.enabled", sampling.enabled, "true",
		 "Limit the lines of each place in the program."),
	OPT_DURATION(C, "logs.sampling.tick", sampling.tick_ns, "10s", "Time they are counted in."),
	OPT_UINT(C, "logs.sampling.initial", sampling.initial, "10", 0, UINT32_MAX,
		 "So many pass in each tick."),
	OPT_UINT(C, "logs.sampling.thereafter", sampling.thereafter, "100", 0, UINT32_MAX,
		 "Then one in so many; 0: none."),
	OPT_BOOL(C, "logs.development", development, "false", "Accepted: it changes nothing here."),
	OPT_BOOL(C, "logs.disable_caller", disable_caller, "false",
		 "Accepted: callers are never written."),
	OPT_BOOL(C, "logs.disable_stacktrace", disable_stacktrace, "false",
		 "Accepted: stack traces are never written."),
	OPT_BOOL(C, "logs.disable_zap_resource", disable_zap_resource, "false",
		 "Leave the resource out of JSON lines."),
	OPT_IGNORED("logs.processors", "logs go to output_paths only"),
	OPT_IGNORED("traces", "the program does not trace itself"),
	OPT_NODE(C, "resource", resource, "{service.name: spanmill}",
		 "Attributes of the program's own telemetry: target_info, JSON lines. A null "
		 "removes one."),
	OPT_END
};
#undef C

struct check {
	const struct conf_node *node; /* service */
	struct arena *arena;
	struct conf_errors *errors;
};

/* ---- metrics ---- */

static void warn(const struct check *k, const char *key, const char *hint, const char *what)
{
	conf_error_warn(k->errors,
			conf_tree_pos(k->node, arena_printf(k->arena, "telemetry.%s", key)),
			arena_printf(k->arena, PATH ".%s", key), hint, "%s", what);
}

static void check_metrics(const struct check *k, struct telemetry_section *s,
			  struct service_telemetry *out)
{
	const struct reader *readers = s->readers.items, *r = NULL;

	for (size_t i = s->readers.n; i-- > 0;) {
		if (!readers[i].has_pull)
			continue;
		if (r != NULL)
			warn(k, "metrics.readers", "keep one", "only the first reader is used");
		r = &readers[i];
	}
	out->metrics_level = s->metrics_level;
	if (r != NULL) {
		out->metrics_endpoint =
			arena_printf(k->arena, strchr(r->host, ':') ? "[%s]:%u" : "%s:%u", r->host,
				     (unsigned)r->port);
		out->type_suffix = !r->without_type_suffix;
	} else if (s->has_readers && s->readers.n == 0) {
		out->metrics_endpoint = ""; /* readers: [] asks for none */
	} else {
		if (s->address[0] == '\0')
			s->address = "localhost:8888";
		out->metrics_endpoint = s->address;
		option_blocks_check_endpoint(s->address, true, k->node, "telemetry.metrics.address",
					     k->errors, "service");
	}
	if (s->metrics_level == TELEMETRY_NONE)
		out->metrics_endpoint = "";
}

/* ---- values of any type ---- */

/* The text of a scalar, NULL with an error for anything else. */
static const char *scalar_text(const struct check *k, const struct conf_node *n, const char *path)
{
	if (n->raw != NULL)
		return n->raw;
	if (n->kind == CONF_SCALAR)
		return n->text;
	conf_error_add(k->errors, conf_tree_kind_pos(n), path, "write one value",
		       "expected type 'string', got unconvertible type '%s'",
		       conf_tree_type_name(n));
	return NULL;
}

static bool expect_map(const struct check *k, const struct conf_node *n, const char *path)
{
	if (n == NULL || n->kind == CONF_NULL)
		return false;
	if (n->kind == CONF_MAP)
		return true;
	conf_error_add(k->errors, conf_tree_kind_pos(n), path, "write name: value lines below it",
		       "expected a map, got '%s'", conf_tree_type_name(n));
	return false;
}

/* ---- resource ---- */

static void set_attribute(struct strmap *map, const char *name, const char *value)
{
	for (size_t i = 0; i < map->n; i++) {
		if (strcmp(map->items[i].name, name) != 0)
			continue;
		if (value != NULL)
			map->items[i].value = value;
		else
			map->items[i] = map->items[--map->n];
		return;
	}
	if (value != NULL)
		map->items[map->n++] = (struct strpair){ name, value };
}

/* attributes: [{name: , value: , type: }] */
static void read_attributes(const struct check *k, const struct conf_node *list, struct strmap *map)
{
	size_t i = 0;

	if (list->kind != CONF_LIST) {
		conf_error_add(k->errors, conf_tree_kind_pos(list), PATH ".resource.attributes",
			       "write - {name: service.name, value: text} lines",
			       "expected a list, got '%s'", conf_tree_type_name(list));
		return;
	}
	for (const struct conf_node *c = list->first; c != NULL; c = c->next, i++) {
		const char *path = arena_printf(k->arena, PATH ".resource.attributes[%zu]", i),
			   *text;
		const struct conf_node *name = conf_tree_find(c, "name"),
				       *value = conf_tree_find(c, "value");

		if (name == NULL || name->kind != CONF_SCALAR || value == NULL) {
			conf_error_add(k->errors, c->pos, path, "write {name: a.b, value: text}",
				       "an attribute must have name and value");
			continue;
		}
		text = scalar_text(k, value, path);
		if (text != NULL)
			set_attribute(map, name->text, text);
	}
}

/* The older form: name: text or null lines. */
static void read_inline(const struct check *k, const struct conf_node *n, struct strmap *map)
{
	const char *path = arena_printf(k->arena, PATH ".resource.%.200s", n->key);
	bool is_text = n->raw != NULL || strcmp(conf_tree_type_name(n), "string") == 0;

	if (n->kind == CONF_NULL && n->raw == NULL)
		set_attribute(map, n->key, NULL);
	else if (is_text)
		set_attribute(map, n->key, n->raw ? n->raw : n->text);
	else
		conf_error_add(k->errors, conf_tree_kind_pos(n), path,
			       "put it in quotes, or write nothing",
			       "legacy resource attribute \"%.100s\" must be string or null",
			       n->key);
}

static void check_resource(const struct check *k, const struct telemetry_section *s,
			   struct strmap *map)
{
	const struct conf_node *n = s->resource, *list = conf_tree_find(n, "attributes");
	size_t room = 3 + (n != NULL ? n->n : 0) + (list != NULL ? list->n : 0);
	char id[37];
	bool any = false;

	rng_uuid(id);
	map->items = arena_zalloc(k->arena, room * sizeof(*map->items));
	set_attribute(map, "service.instance.id", arena_strdup(k->arena, id));
	set_attribute(map, "service.name", "spanmill");
	set_attribute(map, "service.version", SPANMILL_VERSION);
	if (!expect_map(k, n, PATH ".resource"))
		return;
	if (list != NULL && list->kind != CONF_NULL)
		read_attributes(k, list, map);
	for (const struct conf_node *c = n->first; c != NULL; c = c->next) {
		if (strcmp(c->key, "attributes") == 0 || strcmp(c->key, "schema_url") == 0)
			continue;
		if (strcmp(c->key, "detectors") == 0 ||
		    strcmp(c->key, "detection/development") == 0) {
			warn(k, arena_printf(k->arena, "resource.%s", c->key),
			     "write the attributes yourself", "accepted, but has no effect");
			continue;
		}
		read_inline(k, c, map);
		any = true;
	}
	if (any && list != NULL && list->n > 0)
		conf_error_add(k->errors, list->key_pos, PATH ".resource",
			       "use one of the two forms",
			       "resource::attributes cannot be used together with legacy inline "
			       "resource attributes");
}

/* ---- logs ---- */

/* {"service.name":"spanmill",...} */
static const char *resource_json(const struct check *k, const struct strmap *map)
{
	struct conf_node *tree;
	struct conf_build b = { .arena = k->arena, .errors = k->errors };
	struct conf_pos nowhere = { NULL, 0, 0 };
	struct buf text = BUF_INIT;
	const char *line;

	tree = conf_tree_node(&b, CONF_MAP, nowhere);
	for (size_t i = 0; tree != NULL && i < map->n; i++) {
		struct conf_node *c = conf_tree_scalar(&b, map->items[i].value, false, nowhere);

		if (c == NULL)
			break;
		conf_tree_name(&b, c, map->items[i].name, nowhere);
		conf_tree_append(tree, c);
	}
	if (tree != NULL)
		conf_tree_print_json_line(tree, &text);
	line = arena_strdup(k->arena, buf_cstr(&text));
	buf_fini(&text);
	return line;
}

/* A bool or whole number in JSON's own spelling. */
static bool is_json_word(const char *s)
{
	const char *digits = s + (*s == '-');
	size_t n = strspn(digits, "0123456789");

	if (strcmp(s, "true") == 0 || strcmp(s, "false") == 0)
		return true;
	return n > 0 && digits[n] == '\0' && (digits[0] != '0' || n == 1);
}

static void check_logs(const struct check *k, const struct telemetry_section *s,
		       struct service_telemetry *out)
{
	const struct conf_node *n = s->initial_fields;
	bool any = expect_map(k, n, PATH ".logs.initial_fields");
	struct log_field *fields = arena_zalloc(k->arena, (1 + (any ? n->n : 0)) * sizeof(*fields));
	size_t n_fields = 0;

	for (const struct conf_node *c = any ? n->first : NULL; c != NULL; c = c->next) {
		const char *path =
			arena_printf(k->arena, PATH ".logs.initial_fields.%.200s", c->key);
		const char *text = c->kind == CONF_NULL ? "" : scalar_text(k, c, path);

		if (text != NULL)
			fields[n_fields++] = (struct log_field){ c->key, text,
								 !c->plain || !is_json_word(text) };
	}
	if (s->log_encoding == LOG_JSON && !s->disable_zap_resource && out->resource.n > 0)
		fields[n_fields++] =
			(struct log_field){ "resource", resource_json(k, &out->resource), false };
	out->log = (struct log_settings){ .level = s->log_level,
					  .encoding = s->log_encoding,
					  .sampling = s->sampling,
					  .paths = s->output_paths.items,
					  .n_paths = s->output_paths.n,
					  .fields = fields,
					  .n_fields = n_fields };
}

void conf_telemetry_check(struct telemetry_section *s, const struct conf_node *node,
			  struct service_telemetry *out, struct arena *arena,
			  struct conf_errors *errors)
{
	struct check k = { node, arena, errors };

	*out = (struct service_telemetry){ .metrics_endpoint = "" };
	check_metrics(&k, s, out);
	check_resource(&k, s, &out->resource);
	check_logs(&k, s, out);
}
