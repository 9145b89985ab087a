/* SPDX-License-Identifier: Apache-2.0
 *
 * resource_detection.c - processor that adds to every resource what this machine is: the
 * Collector's resource_detection with the detectors env, system and container.
 *
 * All is found once, at start; the data path only writes it. Of several detectors the first that
 * knows an attribute counts; override says whether it replaces what came with the spans. THREADS:
 * stateless but for what start found. SPEC: the Collector's resource_detection.
 */
#include "pipeline/component.h"
#include "pipeline/conf/error.h"
#include "pipeline/conf/tree.h"
#include "pipeline/edit/resource.h"
#include "processors/resource_detection/detectors.h"

#include <stdio.h>
#include <stdlib.h>

struct detection_config {
	struct strlist detectors, hostname_sources;
	bool override;
	const struct conf_node *system, *container; /* resource_attributes of each */
};

struct detection_state {
	struct detected found;
	bool override;
};

#define C struct detection_config
static const struct option detection_options[] = {
	OPT_STRLIST(C, "detectors", detectors, "env",
		    "Who is asked, in this order: env, system, container."),
	OPT_BOOL(C, "override", override, "true",
		 "Replace attributes that came with the spans; false: only add."),
	OPT_STRLIST(C, "system.hostname_sources", hostname_sources, "dns,os",
		    "Where host.name comes from: dns (the full name), os."),
	OPT_NODE(C, "system.resource_attributes", system, "{host.id: {enabled: true}}",
		 "Which attributes: host.name and os.type are on; host.id, host.arch, host.ip, "
		 "host.mac and os.description are off."),
	OPT_NODE(C, "container.resource_attributes", container, "{container.id: {enabled: true}}",
		 "Which attributes: container.id is on."),
	OPT_IGNORED("timeout", "no detector asks over the network but the resolver"),
	OPT_IGNORED("refresh_interval", "a machine is asked once, at start"),
	OPT_IGNORED("fail_on_missing_metadata",
		    "what is asked for and cannot be told stops the start"),
	OPT_END
};
#undef C

/* ---- options ---- */

static bool read_enabled(const struct conf_node *n, bool *on)
{
	const struct conf_node *e = conf_tree_find(n, "enabled");

	if (e == NULL || strcmp(conf_tree_type_name(e), "bool") != 0)
		return false;
	*on = strcmp(e->text, "true") == 0 || strcmp(e->text, "True") == 0 ||
	      strcmp(e->text, "TRUE") == 0;
	return true;
}

static int attribute_of(const char *name, bool is_system)
{
	for (int a = 0; a < DETECT_MAX; a++)
		if (detector_attributes[a].is_system == is_system &&
		    strcmp(detector_attributes[a].name, name) == 0)
			return a;
	return -1;
}

/* {host.id: {enabled: true}} into on[]; what it does not know goes to errs, when there is one. */
static void read_attributes(const struct conf_node *map, bool is_system, bool on[DETECT_MAX],
			    struct conf_errors *errs, const char *path)
{
	const struct conf_node *n = map != NULL && map->kind == CONF_MAP ? map->first : NULL;
	char at[512];

	for (; n != NULL; n = n->next) {
		int a = attribute_of(n->key, is_system);

		snprintf(at, sizeof(at), "%s.%s.resource_attributes", path,
			 is_system ? "system" : "container");
		if (a < 0 && errs != NULL)
			conf_error_add(errs, n->key_pos, at,
				       is_system
					       ? "host.name, os.type, host.id, host.arch, host.ip, "
						 "host.mac or os.description"
					       : "container.id",
				       "unknown attribute \"%.80s\"", n->key);
		else if (a >= 0 && !read_enabled(n, &on[a]) && errs != NULL)
			conf_error_add(errs, n->key_pos, at, "write {enabled: true}",
				       "%.80s does not say if it is enabled", n->key);
	}
}

static void check_detector(const struct conf_node *node, struct conf_errors *errs, const char *path,
			   const char *name)
{
	static const char *const ours[] = { "env", "system", "container", "docker" };

	for (size_t i = 0; i < COUNT_OF(ours); i++)
		if (strcmp(name, ours[i]) == 0)
			return;
	conf_error_at(errs, node, path, "detectors",
		      "env, system or container; what a cloud says can stand in "
		      "OTEL_RESOURCE_ATTRIBUTES",
		      "the detector \"%.60s\" is not in Spanmill", name);
}

static void detection_validate(void *config, const struct conf_node *node, struct conf_errors *errs,
			       const char *path)
{
	const struct detection_config *c = config;
	bool on[DETECT_MAX];

	for (size_t i = 0; i < c->detectors.n; i++)
		check_detector(node, errs, path, c->detectors.items[i]);
	for (size_t i = 0; i < c->hostname_sources.n; i++)
		if (strcmp(c->hostname_sources.items[i], "dns") != 0 &&
		    strcmp(c->hostname_sources.items[i], "os") != 0)
			conf_error_at(errs, node, path, "system.hostname_sources", "dns or os",
				      "unknown source \"%.60s\"", c->hostname_sources.items[i]);
	read_attributes(c->system, true, on, errs, path);
	read_attributes(c->container, false, on, errs, path);
}

/* ---- start ---- */

static int run_detector(const struct detection_config *conf, const char *name,
			const bool on[DETECT_MAX], struct detected *out, struct err *err)
{
	const char *env = getenv("OTEL_RESOURCE_ATTRIBUTES");

	if (strcmp(name, "env") == 0)
		return env != NULL ? detect_env(env, out, err) : 0;
	if (strcmp(name, "system") == 0)
		return detect_system(on,
				     conf->hostname_sources.n > 0 &&
					     strcmp(conf->hostname_sources.items[0], "dns") == 0,
				     out, err);
	if (on[DETECT_CONTAINER_ID])
		detect_container(out);
	return 0;
}

static int detection_start(struct component *c, struct err *err)
{
	const struct detection_config *conf = COMPONENT_CONFIG(c, struct detection_config);
	struct detection_state *st = COMPONENT_STATE(c, struct detection_state);
	bool on[DETECT_MAX];

	st->override = conf->override;
	for (int a = 0; a < DETECT_MAX; a++)
		on[a] = detector_attributes[a].is_default;
	read_attributes(conf->system, true, on, NULL, "");
	read_attributes(conf->container, false, on, NULL, "");
	for (size_t i = 0; i < conf->detectors.n; i++)
		if (run_detector(conf, conf->detectors.items[i], on, &st->found, err) < 0)
			return -1;
	return 0;
}

/* ---- data ---- */

static void add_found(void *arg, struct attr_edit *e)
{
	const struct detection_state *st = arg;

	for (size_t i = 0; i < st->found.n; i++)
		if (st->override || attr_edit_find(e, st->found.v[i].key) == NULL)
			attr_edit_put(e, st->found.v[i].key, st->found.v[i].any);
}

static void detection_consume(struct component *c, struct batch *b)
{
	struct detection_state *st = COMPONENT_STATE(c, struct detection_state);

	component_emit(c, st->found.n > 0 ? resource_edit(b, add_found, st) : b);
}

static void detection_shutdown(struct component *c)
{
	detected_fini(&COMPONENT_STATE(c, struct detection_state)->found);
}

const struct component_type processor_resource_detection = {
	.name = "resource_detection",
	.alias = "resourcedetection",
	.kind = KIND_PROCESSOR,
	.summary = "Adds to resources what this machine and container are.",
	.stability = STABILITY_ALPHA,
	.signals = SIGNAL_ALL,
	.may_overlap = component_overlaps,
	.config_size = sizeof(struct detection_config),
	.state_size = sizeof(struct detection_state),
	.options = detection_options,
	.validate = detection_validate,
	.start = detection_start,
	.consume = detection_consume,
	.shutdown = detection_shutdown,
};
