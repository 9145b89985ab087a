/* SPDX-License-Identifier: Apache-2.0
 *
 * check.c - checks a configuration as a whole and resolves it. Contract in check.h;
 * pipelines are in pipelines.c.
 *
 * DESIGN: three passes, each of which adds what it finds and goes on: the closed set of top-level
 * keys; every component by its type's option table and validate; the service section with its
 * references. A component that could not be read still counts as configured, so that one mistake is
 * one line.
 */
#include "pipeline/resolve/check.h"

#include "base/log.h"
#include "base/str.h"
#include "pipeline/resolve/known.h"
#include "pipeline/resolve/exemplar.h"
#include "pipeline/resolve/pipelines.h"
#include "pipeline/registry.h"

#include <stdio.h>

enum { TYPE_MAX = 63, NAME_MAX_BYTES = 1024, COMPONENTS_MAX = 1024 };

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static bool is_type_char(char c, bool first)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
	       (!first && ((c >= '0' && c <= '9') || c == '_'));
}

static char *trimmed(struct arena *a, const char *s, size_t n)
{
	while (n > 0 && is_blank(*s)) {
		s++;
		n--;
	}
	while (n > 0 && is_blank(s[n - 1]))
		n--;
	return arena_strndup(a, s, n);
}

const char *conf_check_id(struct conf_check *k, const char *key, const char **type,
			  const char **name)
{
	struct arena *a = k->arena;
	const char *slash = strchr(key, '/');

	*type = trimmed(a, key, slash ? (size_t)(slash - key) : strlen(key));
	*name = slash ? trimmed(a, slash + 1, strlen(slash + 1)) : "";
	if ((*type)[0] == '\0')
		return slash ? arena_printf(
				       a, "in \"%.80s\" id: the part before / should not be empty",
				       key)
			     : "id must not be empty";
	if (slash != NULL && (*name)[0] == '\0')
		return arena_printf(a, "in \"%.80s\" id: the part after / should not be empty",
				    key);
	for (const char *p = *type; *p != '\0'; p++) {
		if (!is_type_char(*p, p == *type) || p - *type >= TYPE_MAX)
			return arena_printf(
				a, "in \"%.80s\" id: invalid character(s) in type \"%.80s\"", key,
				*type);
	}
	for (const char *p = *name; *p != '\0'; p++) {
		if ((unsigned char)*p <= ' ' || *p == 0x7f || strchr("$+<=>^`|~", *p) != NULL ||
		    p - *name >= NAME_MAX_BYTES)
			return arena_printf(
				a, "in \"%.80s\" id: invalid character(s) in name \"%.80s\"", key,
				*name);
	}
	return NULL;
}

/* "[a b c]": the types of a kind, as the Collector lists them. */
static const char *type_names(struct arena *a, enum component_kind kind)
{
	const struct component_type *t;
	const char *all = "";

	for (size_t i = 0; (t = registry_at(i)) != NULL; i++) {
		if (t->kind == kind)
			all = arena_printf(a, "%s%s%s", all, all[0] ? " " : "", t->name);
	}
	return arena_printf(a, "[%s]", all);
}

const char *conf_check_nearest_type(enum component_kind kind, const char *type)
{
	const struct component_type *t;
	const char *best = NULL;
	unsigned distance = (unsigned)MAX(2, strlen(type) / 3) + 1;
	char low[TYPE_MAX + 1];
	size_t n = 0;

	for (; type[n] != '\0' && n < TYPE_MAX; n++)
		low[n] = type[n] >= 'A' && type[n] <= 'Z' ? (char)(type[n] - 'A' + 'a') : type[n];
	low[n] = '\0';

	for (size_t i = 0; (t = registry_at(i)) != NULL; i++) {
		const char *const names[] = { t->name, t->alias };

		for (size_t j = 0; t->kind == kind && j < COUNT_OF(names); j++) {
			unsigned d = names[j] != NULL ? str_distance(names[j], low) : UINT32_MAX;

			if (d < distance) {
				distance = d;
				best = names[j];
			}
		}
	}
	return best;
}

static void unknown_type(struct conf_check *k, enum component_kind kind, const struct conf_node *n,
			 const char *type, const char *path)
{
	const char *kind_name = registry_kind_name(kind), *instead = conf_known_removed(kind, type);
	const char *near = conf_check_nearest_type(kind, type), *names = type_names(k->arena, kind);
	bool has_types = strcmp(names, "[]") != 0;

	if (instead != NULL)
		conf_error_add(k->errors, n->key_pos, path, instead,
			       "the Collector's %s \"%s\" was removed", kind_name, type);
	else if (conf_known_is_planned(kind, type))
		conf_error_add(
			k->errors, n->key_pos, path,
			has_types ? arena_printf(k->arena, "remove it, or use one of %s", names)
				  : "remove it",
			"the %s \"%s\" is not in this version of Spanmill yet", kind_name, type);
	else if (conf_known_is_collector(kind, type))
		conf_error_add(
			k->errors, n->key_pos, path,
			has_types ? arena_printf(k->arena, "remove it, or use one of %s", names)
				  : "remove it",
			"the Collector's %s \"%s\" is not in Spanmill yet", kind_name, type);
	else
		conf_error_add(k->errors, n->key_pos, path,
			       near ? arena_printf(k->arena, "did you mean \"%s\"?", near)
				    : "`spanmill components` lists all types",
			       "unknown type: \"%s\" for id: \"%s\" (valid values: %s)", type,
			       n->key, type_names(k->arena, kind));
}

/* A map with only those entries of `from` whose key the table has (or has not). Copies nodes,
 * shares children. */
static struct conf_node *subset(struct conf_check *k, const struct conf_node *from,
				const struct option *table, bool want)
{
	struct conf_node *n = arena_dup(k->arena, from, sizeof(*from));

	n->next = NULL;
	if (n->kind != CONF_MAP)
		return n;
	n->first = n->last = NULL;
	n->n = 0;
	for (const struct conf_node *c = from->first; c != NULL; c = c->next) {
		if (option_has_key(table, c->key) == want)
			conf_tree_append(n, arena_dup(k->arena, c, sizeof(*c)));
	}
	return n;
}

static const struct option no_options[] = { OPT_END };

static bool is_written(const struct conf_node *map, const char *key)
{
	const struct conf_node *n = conf_tree_find(map, key);

	return n != NULL && n->kind != CONF_NULL;
}

/* What every receiver's own keys must hold. */
static void check_receiver(struct conf_check *k, const struct service_component *c)
{
	if (!tenant_is_valid(bytes_str(c->receiver.tenant)))
		conf_error_at(k->errors, c->node, c->yaml_path, "tenant",
			      "1 to 150 of letters, digits and !_.*'()-; not ., .. or _spanmill",
			      "\"%.160s\" is no tenant name", c->receiver.tenant);
	if (c->receiver.ack_timeout_ns <= 0)
		conf_error_at(k->errors, c->node, c->yaml_path, "ack_timeout", "for example 5s",
			      "must be above 0");
}

/* The keys every component of a kind has, then the type's own; then what the type checks itself. */
static void parse_component(struct conf_check *k, struct service_component *c)
{
	const struct option *own = c->type->options ? c->type->options : no_options, *common = NULL;
	const struct conf_node *node = c->node;
	unsigned before = k->errors->n_errors;
	void *into = NULL;

	c->config = arena_zalloc(k->arena, c->type->config_size);
	if (c->kind == KIND_RECEIVER) {
		common = receiver_option_table;
		into = &c->receiver;
	} else if (c->kind == KIND_EXPORTER) {
		common = exporter_option_table;
		into = &c->exporter;
	}
	if (common != NULL) {
		const struct conf_node *shared = subset(k, node, common, true);

		option_parse(common, shared->kind == CONF_MAP ? shared : NULL, into, k->arena,
			     k->errors, c->yaml_path);
		if (c->kind == KIND_EXPORTER && !is_written(shared, "best_effort"))
			c->exporter.best_effort = c->type->best_effort;
		if (c->kind == KIND_RECEIVER)
			check_receiver(k, c);
		node = subset(k, node, common, false);
	}
	option_parse(own, node, c->config, k->arena, k->errors, c->yaml_path);
	if (c->type->validate != NULL && k->errors->n_errors == before)
		c->type->validate(c->config, c->node, k->errors, c->yaml_path);
}

static void check_component(struct conf_check *k, enum component_kind kind,
			    const struct conf_node *n)
{
	const char *section = registry_section_name(kind), *type, *name, *why;
	struct service_component *c = &k->config->components[k->config->n_components];
	struct service_component *twin;

	why = conf_check_id(k, n->key, &type, &name);
	if (why != NULL) {
		conf_error_add(k->errors, n->key_pos, section, "write type or type/name", "%s",
			       why);
		return;
	}
	c->kind = kind;
	c->id = name[0] ? arena_printf(k->arena, "%s/%s", type, name) : type;
	c->node = n;
	c->yaml_path = arena_printf(k->arena, "%s.%s", section, c->id);
	twin = conf_check_find(k, kind, c->id);
	if (twin != NULL) {
		conf_error_add(k->errors, n->key_pos, c->yaml_path, "rename one of them",
			       "duplicate name \"%s\"", c->id);
		return;
	}
	k->config->n_components++;
	c->type = registry_find(kind, bytes_str(type));
	if (c->type == NULL)
		unknown_type(k, kind, n, type, c->yaml_path);
	else
		parse_component(k, c);
}

struct service_component *conf_check_find(struct conf_check *k, enum component_kind kind,
					  const char *id)
{
	for (size_t i = 0; i < k->config->n_components; i++) {
		struct service_component *c = &k->config->components[i];

		if (c->kind == kind && strcmp(c->id, id) == 0)
			return c;
	}
	return NULL;
}

static void check_sections(struct conf_check *k, const struct conf_node *root)
{
	size_t n = 0;

	for (int kind = 0; kind < KIND_MAX; kind++) {
		const struct conf_node *s = conf_tree_find(root, registry_section_name(kind));

		n += s != NULL && s->kind == CONF_MAP ? s->n : 0;
	}
	if (n > COMPONENTS_MAX) {
		conf_error_add(k->errors, root->pos, NULL, "split the process",
			       "more than %d components are configured", COMPONENTS_MAX);
		return;
	}
	k->config->components = arena_zalloc(k->arena, (n + 1) * sizeof(*k->config->components));
	for (int kind = 0; kind < KIND_MAX; kind++) {
		const char *name = registry_section_name(kind);
		const struct conf_node *s = conf_tree_find(root, name);

		if (s == NULL || s->kind == CONF_NULL)
			continue;
		if (s->kind != CONF_MAP) {
			k->broken[kind] = true;
			conf_error_add(k->errors, conf_tree_kind_pos(s), name,
				       "write one `type/name:` a line below it",
				       "expected a map, got '%s'", conf_tree_type_name(s));
			continue;
		}
		for (const struct conf_node *c = s->first; c != NULL; c = c->next)
			check_component(k, kind, c);
	}
}

static void check_top_level(struct conf_check *k, const struct conf_node *root)
{
	for (const struct conf_node *c = root->first; c != NULL; c = c->next) {
		const char *near = "service";
		unsigned best = str_distance(near, c->key);
		bool known = strcmp(c->key, "service") == 0;

		for (int kind = 0; kind < KIND_MAX && !known; kind++) {
			const char *name = registry_section_name(kind);

			known = strcmp(c->key, name) == 0;
			if (str_distance(name, c->key) < best) {
				best = str_distance(name, c->key);
				near = name;
			}
		}
		if (known)
			continue;
		conf_error_add(k->errors, c->key_pos, c->key,
			       best <= 3 ? arena_printf(k->arena, "did you mean \"%s\"?", near)
					 : "valid keys: receivers, processors, exporters, "
					   "connectors, extensions, "
					   "service",
			       "has invalid keys: %.100s", c->key);
	}
}

/* ---- service ---- */

struct service_section {
	const struct conf_node *extensions, *pipelines;
	int64_t drain_timeout_ns;
	bool has_guard;
	double exemplar_guard;
	struct telemetry_section telemetry;
};

#define C struct service_section
static const struct option service_table[] = {
	OPT_NODE(C, "extensions", extensions, "[health_check]", "Extensions to start."),
	OPT_NODE(C, "pipelines", pipelines, "{traces: {receivers: [a], exporters: [b]}}",
		 "Pipelines by traces[/name]."),
	OPT_DURATION(C, "drain_timeout", drain_timeout_ns, "15s",
		     "After SIGTERM: time to finish what is held."),
	OPT_DOUBLE(
		C, "exemplar_guard", exemplar_guard, NULL, 0, 1,
		"Lowest keep rate an exemplar must survive; default: the lowest in the process."),
	OPT_PRESENT(C, "exemplar_guard", has_guard),
	OPT_TABLE(C, "telemetry", telemetry, struct telemetry_section, telemetry_option_table,
		  "What the process says of itself."),
	OPT_END
};
#undef C

static void check_service(struct conf_check *k, const struct conf_node *root)
{
	const struct conf_node *node = conf_tree_find(root, "service");
	struct service_section *s = arena_zalloc(k->arena, sizeof(*s));
	unsigned before = k->errors->n_errors;

	option_parse(service_table, node, s, k->arena, k->errors, "service");
	k->config->service = s;
	k->config->drain_timeout_ns = s->drain_timeout_ns;
	k->config->has_exemplar_guard = s->has_guard;
	k->config->exemplar_guard = s->exemplar_guard;
	if (node != NULL && (node->kind == CONF_SCALAR || node->kind == CONF_LIST))
		return; /* said already */
	if (k->errors->n_errors == before && s->has_guard && s->exemplar_guard == 0)
		conf_error_at(k->errors, node, "service", "exemplar_guard",
			      "set the lowest rate at which traces are kept anywhere, for example "
			      "0.01",
			      "0 keeps no trace, so that no exemplar resolves");
	conf_telemetry_check(&s->telemetry, node, &k->config->telemetry, k->arena, k->errors);
	conf_pipelines_check(k, root, s->extensions, s->pipelines);
}

struct service_config *conf_check_load(const struct conf_request *r, struct conf_errors *errors)
{
	struct arena arena = ARENA_INIT;
	unsigned before = errors->n_errors;
	struct service_config *config = arena_zalloc(&arena, sizeof(*config));
	struct conf_check k = { .arena = &arena, .errors = errors, .config = config };
	struct conf_node *root = conf_load(r, &arena, errors);

	if (root != NULL) {
		config->root = root;
		check_top_level(&k, root);
		check_sections(&k, root);
		if (config->components != NULL)
			check_service(&k, root);
		if (errors->n_errors == before && config->components != NULL)
			conf_exemplar_check(&k);
	}
	if (errors->n_errors > before) {
		arena_fini(&arena);
		return NULL;
	}
	config->arena = arena;
	return config;
}

void conf_check_free(struct service_config *c)
{
	struct arena arena;

	if (c == NULL)
		return;
	arena = c->arena; /* c itself lies in it */
	arena_fini(&arena);
}

/* ---- print ---- */

static struct conf_node *named(struct conf_build *b, struct conf_node *parent, const char *key,
			       enum conf_kind kind)
{
	struct conf_node *n = conf_tree_node(b, kind, (struct conf_pos){ NULL, 0, 0 });

	assert(n != NULL); /* the tree that was parsed is no smaller, and it fitted */
	conf_tree_name(b, n, key, n->pos);
	conf_tree_append(parent, n);
	return n;
}

/* The component's effective options, its kind's and its own, under its id. */
static struct conf_node *component_node(struct conf_build *b, const struct service_component *c,
					bool redact)
{
	struct conf_node *n = option_print(c->type->options ? c->type->options : no_options,
					   c->config, b->arena, redact);
	struct conf_node *common = NULL, *next;

	if (c->kind == KIND_RECEIVER)
		common = option_print(receiver_option_table, &c->receiver, b->arena, redact);
	else if (c->kind == KIND_EXPORTER)
		common = option_print(exporter_option_table, &c->exporter, b->arena, redact);
	for (struct conf_node *m = common ? common->first : NULL; m != NULL; m = next) {
		next = m->next;
		if (conf_tree_find(n, m->key) == NULL)
			conf_tree_append(n, m);
	}
	conf_tree_name(b, n, c->id, n->pos);
	return n;
}

bool conf_check_is_same(const struct service_component *a, const struct service_component *b)
{
	struct conf_errors errors = CONF_ERRORS_INIT;
	struct arena arena = ARENA_INIT;
	struct conf_build build = { .arena = &arena, .errors = &errors };
	struct buf x = BUF_INIT, y = BUF_INIT;
	bool same = a->type == b->type;

	if (same) {
		conf_tree_print_yaml(component_node(&build, a, false), &x);
		conf_tree_print_yaml(component_node(&build, b, false), &y);
		same = bytes_eq(buf_bytes(&x), buf_bytes(&y));
	}
	buf_fini(&x);
	buf_fini(&y);
	conf_error_fini(&errors);
	arena_fini(&arena);
	return same;
}

struct conf_node *conf_check_print(const struct service_config *c, struct arena *arena, bool redact)
{
	struct conf_errors errors = CONF_ERRORS_INIT;
	struct conf_build b = { .arena = arena, .errors = &errors };
	struct conf_node *root = conf_tree_node(&b, CONF_MAP, (struct conf_pos){ NULL, 0, 0 }),
			 *service;

	for (int kind = 0; kind < KIND_MAX; kind++) {
		struct conf_node *section = NULL;

		for (size_t i = 0; i < c->n_components; i++) {
			if ((int)c->components[i].kind != kind)
				continue;
			if (section == NULL)
				section = named(&b, root, registry_section_name(kind), CONF_MAP);
			conf_tree_append(section, component_node(&b, &c->components[i], redact));
		}
	}
	service = option_print(service_table, c->service, arena, redact);
	conf_tree_name(&b, service, "service", service->pos);
	conf_tree_append(root, service);
	conf_error_fini(&errors);
	return root;
}
