/* SPDX-License-Identifier: Apache-2.0
 *
 * pipelines.c - resolves the references of pipelines to configured components. Contract in
 * pipelines.h.
 *
 * DESIGN: pipelines are nodes, connectors edges between them; a cycle is found by depth-first
 * colouring. References are checked against what is configured even when the component itself is
 * broken, so its error is not repeated here. SPEC: the Collector's texts (`references processor "x"
 * which is not configured`, `must have at least one receiver`).
 */
#include "pipeline/resolve/pipelines.h"

#include "base/str.h"
#include "pipeline/registry.h"

enum { PIPELINES_MAX = 256 };

static struct service_component *component(struct conf_check *k, size_t i)
{
	return &k->config->components[i];
}

static bool matches(const struct service_component *c, enum component_kind kind)
{
	bool ends = kind == KIND_RECEIVER || kind == KIND_EXPORTER;

	return c->kind == kind || (ends && c->kind == KIND_CONNECTOR);
}

/* Was the section that would hold this kind said to be unreadable? */
static bool is_broken(const struct conf_check *k, enum component_kind kind)
{
	bool ends = kind == KIND_RECEIVER || kind == KIND_EXPORTER;

	return k->broken[kind] || (ends && k->broken[KIND_CONNECTOR]);
}

/* The nearest among configured ids, else among known types, else all that is configured. */
static const char *reference_hint(struct conf_check *k, enum component_kind kind, const char *id)
{
	const char *section = registry_section_name(kind), *near = NULL, *all = "", *type, *name;
	unsigned best = (unsigned)MAX(2, strlen(id) / 3) + 1;

	if (conf_error_is_full(k->errors))
		return NULL;
	for (size_t i = 0; i < k->config->n_components; i++) {
		const struct service_component *c = component(k, i);

		if (!matches(c, kind))
			continue;
		if (strlen(all) < 300)
			all = arena_printf(k->arena, "%s%s%.80s", all, all[0] ? ", " : "", c->id);
		if (str_distance(c->id, id) < best) {
			best = str_distance(c->id, id);
			near = c->id;
		}
	}
	if (near != NULL)
		return arena_printf(k->arena, "did you mean \"%s\"?", near);
	conf_check_id(k, id, &type, &name);
	near = conf_check_nearest_type(kind, type);
	if (near != NULL && strcmp(near, type) == 0)
		return arena_printf(k->arena, "add `%.80s:` under %s", id, section);
	if (near != NULL)
		return arena_printf(k->arena, "did you mean \"%s\"? Add `%s:` under %s", near, near,
				    section);
	if (all[0] != '\0')
		return arena_printf(k->arena, "configured %s: %s", section, all);
	return arena_printf(k->arena, "add it under %s", section);
}

/* The index of the component that name n refers to, or -1 with an error. */
static long resolve(struct conf_check *k, enum component_kind kind, const struct conf_node *n,
		    const char *path)
{
	const char *type, *name, *why, *id;

	if (n->kind != CONF_SCALAR) {
		conf_error_add(k->errors, n->pos, path, "write type or type/name",
			       "expected type 'string', got unconvertible type '%s'",
			       conf_tree_type_name(n));
		return -1;
	}
	why = conf_check_id(k, n->text, &type, &name);
	if (why != NULL) {
		conf_error_add(k->errors, n->pos, path, "write type or type/name", "%s", why);
		return -1;
	}
	id = name[0] ? arena_printf(k->arena, "%s/%s", type, name) : type;
	for (size_t i = 0; i < k->config->n_components; i++) {
		if (matches(component(k, i), kind) && strcmp(component(k, i)->id, id) == 0)
			return (long)i;
	}
	if (is_broken(k, kind))
		return -1;
	conf_error_add(k->errors, n->pos, path, reference_hint(k, kind, id),
		       "references %s \"%.100s\" which is not configured", registry_kind_name(kind),
		       id);
	return -1;
}

static bool has_ref(const struct service_refs *refs, size_t index)
{
	for (size_t i = 0; i < refs->n; i++) {
		if (refs->items[i] == index)
			return true;
	}
	return false;
}

static const char *const signal_names[] = {
	[OTLP_TRACES] = "traces", [OTLP_METRICS] = "metrics", [OTLP_LOGS] = "logs"
};

bool conf_check_joins(const struct service_component *c, enum otlp_signal from, enum otlp_signal to)
{
	if (c->type == NULL)
		return from == to;
	return (c->type->signals & 1u << from) != 0 && (c->type->gives[from] & 1u << to) != 0;
}

/* Whether a connector can is a question of both its sides: check_sides. */
static void check_signal(struct conf_check *k, const struct service_component *c,
			 enum otlp_signal signal, const struct conf_node *n, const char *path)
{
	if (c->type != NULL && c->kind != KIND_EXTENSION && c->kind != KIND_CONNECTOR &&
	    !(c->type->signals & 1u << signal))
		conf_error_add(k->errors, n->pos, path, "use it in a pipeline of another signal",
			       "%s \"%s\" does not support %s", registry_kind_name(c->kind), c->id,
			       signal_names[signal]);
}

static void note_use(struct service_component *c, enum component_kind list, enum otlp_signal signal)
{
	c->is_used = true;
	if (c->kind == KIND_CONNECTOR && list == KIND_RECEIVER)
		c->fed_signals |= 1u << signal;
	else
		c->used_signals |= 1u << signal;
}

/* A list of names; `node` may be NULL. */
static void resolve_list(struct conf_check *k, enum component_kind kind, enum otlp_signal signal,
			 const struct conf_node *node, const char *path, struct service_refs *out)
{
	if (node == NULL || node->kind == CONF_NULL)
		return;
	if (node->kind != CONF_LIST) {
		conf_error_add(k->errors, conf_tree_kind_pos(node), path, "write [a, b]",
			       "expected a list of %s, got '%s'", registry_section_name(kind),
			       conf_tree_type_name(node));
		/* One error is enough: not also "must have at least one". */
		out->n = SIZE_MAX;
		return;
	}
	out->items = arena_zalloc(k->arena, (MIN(node->n, k->config->n_components) + 1) *
						    sizeof(*out->items));
	for (const struct conf_node *c = node->first; c != NULL; c = c->next) {
		long index = resolve(k, kind, c, path);

		if (index < 0)
			continue;
		if (has_ref(out, (size_t)index)) {
			if (kind == KIND_PROCESSOR)
				conf_error_add(k->errors, c->pos, path,
					       "list it once, or configure a second one as "
					       "type/name",
					       "references processor \"%s\" multiple times",
					       c->text);
			else
				conf_error_warn(k->errors, c->pos, path, "list it once",
						"references %s \"%s\" multiple times",
						registry_kind_name(kind), c->text);
			continue;
		}
		check_signal(k, component(k, (size_t)index), signal, c, path);
		note_use(component(k, (size_t)index), kind, signal);
		out->items[out->n++] = (size_t)index;
	}
}

static void need_one(struct conf_check *k, enum component_kind kind,
		     const struct conf_node *pipeline, const struct conf_node *list,
		     struct service_refs *refs, const char *path)
{
	const char *section = registry_section_name(kind);

	if (refs->n == SIZE_MAX)
		refs->n = 0;
	else if (list == NULL || list->kind != CONF_LIST || list->n == 0)
		conf_error_add(k->errors, conf_tree_pos(pipeline, section), path,
			       arena_printf(k->arena, "add `%s: [name]`", section),
			       "must have at least one %s", registry_kind_name(kind));
}

struct pipeline_body {
	const struct conf_node *receivers, *processors, *exporters;
};

#define C struct pipeline_body
static const struct option pipeline_table[] = {
	OPT_NODE(C, "receivers", receivers, "[otlp]", "Where spans come from."),
	OPT_NODE(C, "processors", processors, "[batch]", "What is done to them, in order."),
	OPT_NODE(C, "exporters", exporters, "[otlp]", "Where they go."), OPT_END
};
#undef C

/* Blanks are trimmed, so two keys may be one. 0, or -1 with an error. */
static int check_pipeline_twin(struct conf_check *k, const struct conf_node *n, const char *path,
			       const char *id)
{
	for (size_t i = 0; i < k->config->n_pipelines; i++) {
		if (strcmp(k->config->pipelines[i].id, id) != 0)
			continue;
		conf_error_add(k->errors, n->key_pos, path, "rename one of them",
			       "duplicate name \"%.100s\"", id);
		return -1;
	}
	return 0;
}

/* 0, *id, blanks trimmed, and *signal when the pipeline's signal is one we carry. */
static int check_pipeline_id(struct conf_check *k, const struct conf_node *n, const char *path,
			     const char **id, enum otlp_signal *signal)
{
	const char *type, *name, *why = conf_check_id(k, n->key, &type, &name);

	if (why != NULL) {
		conf_error_add(k->errors, n->key_pos, path, "write traces or traces/name", "%s",
			       why);
		return -1;
	}
	*id = name[0] ? arena_printf(k->arena, "%s/%s", type, name) : type;
	for (int s = 0; s < OTLP_SIGNALS; s++) {
		if (strcmp(type, signal_names[s]) != 0)
			continue;
		*signal = (enum otlp_signal)s;
		return check_pipeline_twin(k, n, path, *id);
	}
	if (strcmp(type, "profiles") == 0) {
		conf_error_add(k->errors, n->key_pos, path,
			       "remove the pipeline; traces, metrics and logs are carried",
			       "the Collector's \"profiles\" pipelines are not in Spanmill yet");
		return -1;
	}
	conf_error_add(k->errors, n->key_pos, path,
		       str_distance(type, "traces") <= 3 ? "did you mean \"traces\"?"
							 : "write traces or traces/name",
		       "unknown signal \"%s\"", type);
	return -1;
}

static void check_pipeline(struct conf_check *k, const struct conf_node *n)
{
	struct service_pipeline *p = &k->config->pipelines[k->config->n_pipelines];
	struct pipeline_body body = { NULL, NULL, NULL };
	const char *path = arena_printf(k->arena, "service.pipelines.%.200s", n->key), *id;
	enum otlp_signal signal;

	if (check_pipeline_id(k, n, path, &id, &signal) < 0)
		return;
	if (option_parse(pipeline_table, n, &body, k->arena, k->errors, path) < 0 &&
	    n->kind != CONF_MAP)
		return;
	k->config->n_pipelines++;
	p->id = id;
	p->signal = signal;
	p->node = n;
	p->yaml_path = path;
	resolve_list(k, KIND_RECEIVER, signal, body.receivers, path, &p->receivers);
	resolve_list(k, KIND_PROCESSOR, signal, body.processors, path, &p->processors);
	resolve_list(k, KIND_EXPORTER, signal, body.exporters, path, &p->exporters);
	need_one(k, KIND_RECEIVER, n, body.receivers, &p->receivers, path);
	need_one(k, KIND_EXPORTER, n, body.exporters, &p->exporters, path);
	if (p->processors.n == SIZE_MAX)
		p->processors.n = 0;
}

/* The pipelines of one signal that list component i on that side: "traces, traces/2". */
static const char *pipelines_with(struct conf_check *k, size_t i, bool as_exporter,
				  enum otlp_signal signal)
{
	const char *all = "";

	for (size_t j = 0; j < k->config->n_pipelines; j++) {
		const struct service_pipeline *p = &k->config->pipelines[j];

		if (p->signal == signal && strlen(all) < 300 &&
		    has_ref(as_exporter ? &p->exporters : &p->receivers, i))
			all = arena_printf(k->arena, "%s%s%.80s", all, all[0] ? " " : "", p->id);
	}
	return all;
}

/* What a connector takes and gives: "traces to metrics". */
static const char *ways_of(struct conf_check *k, const struct component_type *t)
{
	const char *all = "";

	for (int from = 0; from < OTLP_SIGNALS; from++)
		for (int to = 0; to < OTLP_SIGNALS; to++)
			if (t->signals & 1u << from && t->gives[from] & 1u << to)
				all = arena_printf(k->arena, "%s%s%s to %s", all,
						   all[0] ? ", " : "", signal_names[from],
						   signal_names[to]);
	return all;
}

/* Every pipeline on one side of connector i is joined with one on the other. */
static void check_sides(struct conf_check *k, size_t i, bool as_exporter)
{
	const struct service_component *c = component(k, i);
	unsigned here = as_exporter ? c->used_signals : c->fed_signals,
		 there = as_exporter ? c->fed_signals : c->used_signals;

	for (int a = 0; a < OTLP_SIGNALS; a++) {
		bool joins = false;

		for (int b = 0; b < OTLP_SIGNALS; b++)
			joins |= (there & 1u << b) != 0 &&
				 conf_check_joins(c, (enum otlp_signal)(as_exporter ? a : b),
						  (enum otlp_signal)(as_exporter ? b : a));
		if (!(here & 1u << a) || joins)
			continue;
		conf_error_add(
			k->errors, c->node->key_pos, c->yaml_path,
			arena_printf(k->arena, "it leads %s", ways_of(k, c->type)),
			"connector \"%.100s\" used as %s in [%s] pipeline but not used in any "
			"supported %s pipeline",
			c->id, as_exporter ? "exporter" : "receiver",
			pipelines_with(k, i, as_exporter, (enum otlp_signal)a),
			as_exporter ? "receiver" : "exporter");
	}
}

static void check_connectors(struct conf_check *k)
{
	for (size_t i = 0; i < k->config->n_components; i++) {
		const struct service_component *c = component(k, i);
		bool in = false, out = false;

		if (c->kind != KIND_CONNECTOR)
			continue;
		for (int other = KIND_RECEIVER; other <= KIND_EXPORTER;
		     other += KIND_EXPORTER - KIND_RECEIVER) {
			if (conf_check_find(k, (enum component_kind)other, c->id) == NULL)
				continue;
			conf_error_add(
				k->errors, c->node->key_pos, c->yaml_path,
				arena_printf(k->arena, "rename the connector to \"%s/connector\"",
					     c->id),
				"ambiguous ID: found both \"%s\" %s and \"%s\" connector", c->id,
				registry_kind_name((enum component_kind)other), c->id);
		}
		for (size_t j = 0; j < k->config->n_pipelines; j++) {
			out |= has_ref(&k->config->pipelines[j].exporters, i);
			in |= has_ref(&k->config->pipelines[j].receivers, i);
		}
		if (in != out)
			conf_error_add(
				k->errors, c->node->key_pos, c->yaml_path,
				in ? "list it under the exporters of the pipeline that feeds it"
				   : "list it under the receivers of the pipeline it feeds",
				"must be used as both receiver and exporter but is not used as %s",
				in ? "exporter" : "receiver");
		else if (in && c->type != NULL) {
			check_sides(k, i, true);
			check_sides(k, i, false);
		}
	}
}

/* Depth-first over pipelines; *trail names the way here. 1 when a cycle was reported. */
static int find_cycle(struct conf_check *k, size_t at, uint8_t *color, const char *trail,
		      unsigned depth)
{
	const struct service_pipeline *p = &k->config->pipelines[at];

	color[at] = 1;
	for (size_t e = 0; e < p->exporters.n; e++) {
		size_t via = p->exporters.items[e];

		for (size_t to = 0;
		     component(k, via)->kind == KIND_CONNECTOR && to < k->config->n_pipelines;
		     to++) {
			const struct service_pipeline *next = &k->config->pipelines[to];
			const char *way;

			if (!has_ref(&next->receivers, via) || color[to] == 2 ||
			    !conf_check_joins(component(k, via), p->signal, next->signal))
				continue;
			way = depth < 20 ? arena_printf(k->arena,
							"%s -> connector \"%s\" -> pipeline \"%s\"",
							trail, component(k, via)->id, next->id)
					 : trail;
			if (color[to] == 1) {
				conf_error_add(k->errors, next->node->key_pos, next->yaml_path,
					       "take a connector out of one of the pipelines",
					       "cycle detected: %.400s", way);
				return 1;
			}
			if (find_cycle(k, to, color, way, depth + 1))
				return 1;
		}
	}
	color[at] = 2;
	return 0;
}

static void check_cycles(struct conf_check *k)
{
	uint8_t *color = arena_zalloc(k->arena, k->config->n_pipelines + 1);

	for (size_t i = 0; i < k->config->n_pipelines; i++) {
		if (color[i] == 0 && find_cycle(k, i, color,
						arena_printf(k->arena, "pipeline \"%s\"",
							     k->config->pipelines[i].id),
						0))
			return;
	}
}

static void check_kind_exists(struct conf_check *k, enum component_kind kind,
			      const struct conf_node *root)
{
	for (size_t i = 0; i < k->config->n_components; i++) {
		if (component(k, i)->kind == kind || component(k, i)->kind == KIND_CONNECTOR)
			return;
	}
	if (is_broken(k, kind))
		return;
	conf_error_add(k->errors, conf_tree_pos(root, registry_section_name(kind)),
		       registry_section_name(kind),
		       kind == KIND_RECEIVER
			       ? "for example `receivers: {otlp: {protocols: {grpc: , http: }}}`"
			       : "for example `exporters: {debug: }`",
		       "no %s configuration specified in config", registry_kind_name(kind));
}

/* ---- what runs needs its extensions ---- */

static bool is_listed(const struct conf_check *k, const struct service_component *ext)
{
	return has_ref(&k->config->extensions, (size_t)(ext - k->config->components));
}

struct user {
	struct conf_check *k;
	const struct service_component *component;
};

/* `connectors: [spanmetrics]` of the exemplar processor. */
static void check_named_connector(const struct user *u, const char *key, const char *id)
{
	struct conf_check *k = u->k;
	const struct service_component *c = conf_check_find(k, KIND_CONNECTOR, id);
	const char *what, *hint;

	if (c == NULL && is_broken(k, KIND_CONNECTOR))
		return;
	if (c == NULL) {
		what = "references connector \"%.100s\" which is not configured";
		hint = reference_hint(k, KIND_CONNECTOR, id);
	} else if (!c->is_used) {
		what = "references connector \"%.100s\" which no pipeline uses";
		hint = "list it under the exporters of a pipeline and the receivers of another";
	} else if (c->type != NULL && c->type->exemplar_offer == NULL) {
		what = "connector \"%.100s\" shows no exemplars";
		hint = "name a spanmetrics connector";
	} else {
		return;
	}
	conf_error_at(k->errors, u->component->node, u->component->yaml_path, key, hint, what, id);
}

/* `storage: file_storage/queue` and the like. */
static void check_named_extension(const struct user *u, const char *key, const char *id)
{
	struct conf_check *k = u->k;
	const struct service_component *ext = conf_check_find(k, KIND_EXTENSION, id);

	if (ext != NULL && is_listed(k, ext)) {
		if (str_has_suffix(key, "authenticator") && ext->type != NULL &&
		    ext->type->authenticator == NULL)
			conf_error_at(k->errors, u->component->node, u->component->yaml_path, key,
				      "name a basicauth or bearertokenauth extension",
				      "extension \"%.100s\" is not an authenticator", id);
		return;
	}
	if (ext == NULL && is_broken(k, KIND_EXTENSION))
		return;
	conf_error_at(k->errors, u->component->node, u->component->yaml_path, key,
		      ext != NULL
			      ? arena_printf(k->arena, "add \"%.80s\" to service.extensions", id)
			      : reference_hint(k, KIND_EXTENSION, id),
		      ext != NULL ? "references extension \"%.100s\" which is not in "
				    "service.extensions"
				  : "references extension \"%.100s\" which is not configured",
		      id);
}

static void check_named(void *arg, enum option_kind kind, const char *key, const char *id)
{
	if (kind == OPTION_CONNECTORS)
		check_named_connector(arg, key, id);
	else
		check_named_extension(arg, key, id);
}

/* A type that borrows from another: one of that must be listed. */
static void check_needed(struct conf_check *k, const struct service_component *c)
{
	const char *needs = c->type->needs;
	bool configured = false;

	for (size_t i = 0; i < k->config->n_components; i++) {
		const struct service_component *ext = component(k, i);

		if (ext->kind != KIND_EXTENSION || ext->type == NULL ||
		    strcmp(ext->type->name, needs) != 0)
			continue;
		if (is_listed(k, ext))
			return;
		configured = true;
	}
	if (is_broken(k, KIND_EXTENSION) ||
	    (c->type->is_needed != NULL && !c->type->is_needed(c->config)))
		return;
	conf_error_add(k->errors, c->node->key_pos, c->yaml_path,
		       arena_printf(k->arena,
				    configured ? "add it to service.extensions"
					       : "add `%s:` under extensions, and to "
						 "service.extensions",
				    needs),
		       "needs an extension \"%s\" in service.extensions", needs);
}

static void check_extensions_in_use(struct conf_check *k)
{
	for (size_t i = 0; i < k->config->n_components; i++) {
		const struct service_component *c = component(k, i);
		struct user u = { k, c };

		if (!c->is_used || c->type == NULL)
			continue;
		if (c->type->options != NULL)
			option_each_reference(c->type->options, c->config, check_named, &u);
		if (c->type->needs != NULL)
			check_needed(k, c);
	}
}

static void check_pipelines(struct conf_check *k, const struct conf_node *root,
			    const struct conf_node *extensions, const struct conf_node *pipelines)
{
	bool any = pipelines != NULL && pipelines->kind == CONF_MAP && pipelines->n > 0;

	if (pipelines != NULL && pipelines->kind != CONF_MAP && pipelines->kind != CONF_NULL) {
		conf_error_add(k->errors, conf_tree_kind_pos(pipelines), "service.pipelines",
			       "write `traces:` below it", "expected a map, got '%s'",
			       conf_tree_type_name(pipelines));
		return;
	}
	if (!any) {
		/* A query node or a compactor is extensions only. */
		if (extensions == NULL || extensions->n == 0)
			conf_error_at(k->errors, root, "", "service.pipelines",
				      "add service: {pipelines: {traces: {receivers: [...], "
				      "exporters: [...]}}}",
				      "service must have at least one pipeline");
		return;
	}
	if (pipelines->n > PIPELINES_MAX) {
		conf_error_add(k->errors, pipelines->key_pos, "service.pipelines",
			       "split the process", "more than %d pipelines are configured",
			       PIPELINES_MAX);
		return;
	}
	check_kind_exists(k, KIND_RECEIVER, root);
	check_kind_exists(k, KIND_EXPORTER, root);
	k->config->pipelines = arena_zalloc(k->arena, pipelines->n * sizeof(*k->config->pipelines));
	for (const struct conf_node *n = pipelines->first; n != NULL; n = n->next)
		check_pipeline(k, n);
	check_connectors(k);
	check_cycles(k);
}

void conf_pipelines_check(struct conf_check *k, const struct conf_node *root,
			  const struct conf_node *extensions, const struct conf_node *pipelines)
{
	resolve_list(k, KIND_EXTENSION, OTLP_TRACES, extensions, "service.extensions",
		     &k->config->extensions);
	if (k->config->extensions.n == SIZE_MAX) {
		k->config->extensions.n = 0;
		k->broken[KIND_EXTENSION] = true;
	}
	check_pipelines(k, root, extensions, pipelines);
	check_extensions_in_use(k);
}
