/* SPDX-License-Identifier: Apache-2.0
 *
 * health_check.c - extension that tells over HTTP whether the process is ready.
 *
 * 200 only while every component started and can do its work; 503 with the reason before, between
 * and after (replay, a store away, draining). It answers from the first moment on, since extensions
 * start first.
 * OWNERSHIP, THREADS: one server on loop 0.
 * SPEC: the Collector's health_check keys and body; INTERFACE "Ready".
 */
#include "base/clock.h"
#include "base/str.h"
#include "pipeline/conf/error.h"
#include "pipeline/listen/http.h"
#include "wire/json_writer.h"

#include <inttypes.h>

enum { ANSWER_TIMEOUT_MS = 5000, BODY_MAX = 65536 };

struct health_check_config {
	struct http_server_options http;
	const char *path;
	const char *healthy, *unhealthy;
};

struct health_check_state {
	struct http_listener *listener;
	uint64_t up_wall_ns, up_mono_ns;
};

#define C struct health_check_config
static const struct option health_check_options[] = {
	OPT_INCLUDE(C, http, struct http_server_options, http_server_option_table),
	OPT_DEFAULT("endpoint", "localhost:13133"),
	OPT_STR(C, "path", path, "/", "Where to ask; below it too when it ends in a slash."),
	OPT_STR(C, "response_body.healthy", healthy, NULL, "Text instead of the JSON while ready."),
	OPT_STR(C, "response_body.unhealthy", unhealthy, NULL,
		"Text instead of the JSON while not ready."),
	OPT_IGNORED("check_collector_pipeline", "the answer tells the state of every component"),
	OPT_UNSUPPORTED("use_v2", "remove it: the answer tells the state of every component"),
	OPT_END
};
#undef C

static void health_check_validate(void *config, const struct conf_node *node,
				  struct conf_errors *errs, const char *path)
{
	const struct health_check_config *conf = config;

	http_listener_check(&conf->http, node, "", errs, path);
	if (conf->path[0] != '/')
		conf_error_at(errs, node, path, "path", "for example /", "path must start with /");
}

/* As Go prints a duration: 1h2m3.5s. */
static void format_uptime(struct buf *out, uint64_t ns)
{
	uint64_t s = ns / NS_PER_S, ms = ns / NS_PER_MS % 1000;

	if (s >= 3600)
		buf_printf(out, "%" PRIu64 "h", s / 3600);
	if (s >= 60)
		buf_printf(out, "%" PRIu64 "m", s / 60 % 60);
	buf_printf(out, "%" PRIu64 ".%03" PRIu64 "s", s % 60, ms);
}

static void describe(const struct health_check_state *st, bool ready, const char *why,
		     struct buf *out)
{
	struct json_writer w = JSON_WRITER(out);
	char since[CLOCK_RFC3339_SIZE];
	struct buf uptime = BUF_INIT;

	clock_format_rfc3339(st->up_wall_ns, since);
	format_uptime(&uptime, clock_mono_ns() - st->up_mono_ns);
	json_writer_object(&w);
	json_writer_key(&w, "status");
	json_writer_str(&w, ready ? "Server available" : "Server not available");
	json_writer_key(&w, "upSince");
	json_writer_str(&w, since);
	json_writer_key(&w, "uptime");
	json_writer_str(&w, buf_cstr(&uptime));
	if (!ready) {
		json_writer_key(&w, "reason");
		json_writer_str(&w, why);
	}
	json_writer_object_end(&w);
	buf_fini(&uptime);
}

static void tell(struct http_request *req, void *arg)
{
	struct http_site *site = arg;
	struct component *c = site->component;
	const struct health_check_config *conf = COMPONENT_CONFIG(c, struct health_check_config);
	struct buf body = BUF_INIT;
	char why[256] = "";
	bool ready = component_process_is_ready(c, why, sizeof(why));
	const char *own = ready ? conf->healthy : conf->unhealthy;

	if (own[0] != '\0')
		buf_add_str(&body, own);
	else
		describe(COMPONENT_STATE(c, struct health_check_state), ready, why, &body);
	http_respond(req,
		     &(struct http_answer){ .status = ready ? 200 : 503,
					    .content_type = own[0] != '\0' ? "text/plain"
									   : "application/json",
					    .body = buf_bytes(&body) });
	buf_fini(&body);
}

static int health_check_start(struct component *c, struct err *err)
{
	const struct health_check_config *conf = COMPONENT_CONFIG(c, struct health_check_config);
	struct health_check_state *st = COMPONENT_STATE(c, struct health_check_state);
	struct http_route route = { .method = "GET",
				    .path = conf->path,
				    .is_prefix = str_has_suffix(conf->path, "/"),
				    .max_body = BODY_MAX,
				    .handler = tell };
	struct http_listener_setup setup = {
		.routes = &route, .n_routes = 1, .hold_timeout_ms = ANSWER_TIMEOUT_MS, .n_loops = 1
	};

	st->up_wall_ns = clock_wall_ns();
	st->up_mono_ns = clock_mono_ns();
	st->listener = http_listener_start(c, &conf->http, &setup, err);
	return st->listener != NULL ? 0 : -1;
}

static void health_check_shutdown(struct component *c)
{
	struct health_check_state *st = COMPONENT_STATE(c, struct health_check_state);

	http_listener_free(st->listener);
	st->listener = NULL;
}

const struct component_type extension_health_check = {
	.name = "health_check",
	.kind = KIND_EXTENSION,
	.summary = "Tells over HTTP whether the process is ready, with the reason when it is not.",
	.stability = STABILITY_ALPHA,
	.config_size = sizeof(struct health_check_config),
	.state_size = sizeof(struct health_check_state),
	.options = health_check_options,
	.validate = health_check_validate,
	.start = health_check_start,
	.shutdown = health_check_shutdown,
};
