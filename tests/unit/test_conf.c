/* SPDX-License-Identifier: Apache-2.0
 *
 * test_conf.c - sources, merging, expansion and the checks of a whole configuration, with exact
 * error lines.
 *
 * The registry holds a few small types of the test's own, so that no component's change alters what
 * is expected here.
 */
#include "base/arena.h"
#include "base/buf.h"
#include "pipeline/resolve/check.h"
#include "pipeline/registry.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

struct otlp {
	bool grpc_on, http_on;
	struct grpc_server_options grpc;
	struct http_server_options http;
};

#define C struct otlp
static const struct option otlp_options[] = {
	OPT_SECTION(C, "protocols.grpc", grpc_on, grpc, struct grpc_server_options,
		    grpc_server_option_table, "off", "gRPC."),
	OPT_SECTION(C, "protocols.http", http_on, http, struct http_server_options,
		    http_server_option_table, "off", "HTTP."),
	OPT_DEFAULT("protocols.grpc.endpoint", "localhost:4317"),
	OPT_DEFAULT("protocols.http.endpoint", "localhost:4318"), OPT_END
};
#undef C

static void otlp_validate(void *config, const struct conf_node *node, struct conf_errors *errors,
			  const char *yaml_path)
{
	const struct otlp *c = config;

	if (!c->grpc_on && !c->http_on)
		conf_error_at(errors, node, yaml_path, "protocols",
			      "add protocols: {grpc: , http: }",
			      "must specify at least one protocol when using the OTLP receiver");
	if (c->grpc_on)
		option_blocks_check_endpoint(c->grpc.endpoint, true, node,
					     "protocols.grpc.endpoint", errors, yaml_path);
}

struct client {
	struct grpc_client_options client;
	struct queue_options queue;
	struct retry_options retry;
	int64_t timeout_ns;
};

#define C struct client
static const struct option client_options[] = {
	OPT_INCLUDE(C, client, struct grpc_client_options, grpc_client_option_table),
	OPT_SECTION(C, "sending_queue", queue.enabled, queue, struct queue_options,
		    queue_option_table, "on", "Queue."),
	OPT_TABLE(C, "retry_on_failure", retry, struct retry_options, retry_option_table, "Retry."),
	OPT_DURATION(C, "timeout", timeout_ns, "5s", "Of one attempt."),
	OPT_REQUIRE("endpoint"),
	OPT_END
};
#undef C

static void client_validate(void *config, const struct conf_node *node, struct conf_errors *errors,
			    const char *yaml_path)
{
	const struct client *c = config;

	option_blocks_check_tls(&c->client.tls.common, node, "tls", errors, yaml_path);
	option_blocks_check_queue(&c->queue, node, "sending_queue", errors, yaml_path);
}

#define C struct http_server_options
static const struct option zipkin_options[] = {
	OPT_INCLUDE(C, compression_algorithms, struct strlist, (const struct option[]){ OPT_END }),
	OPT_STR(C, "endpoint", endpoint, "localhost:9411", "Address."), OPT_END
};
#undef C

struct marker {
	struct strlist connectors;
};

#define C struct marker
static const struct option marker_options[] = {
	OPT_CONNECTORS(C, "connectors", connectors, "Which."), OPT_END
};
#undef C

static void offer_nothing(struct component *c, const struct batch *b, const char **takes)
{
	(void)c;
	(void)b;
	(void)takes;
}

static const struct component_type types[] = {
	{ .name = "otlp",
	  .kind = KIND_RECEIVER,
	  .signals = SIGNAL_TRACES,
	  .config_size = sizeof(struct otlp),
	  .options = otlp_options,
	  .validate = otlp_validate,
	  .summary = "s" },
	{ .name = "zipkin",
	  .kind = KIND_RECEIVER,
	  .signals = SIGNAL_TRACES,
	  .config_size = sizeof(struct http_server_options),
	  .options = zipkin_options },
	{ .name = "batch", .kind = KIND_PROCESSOR, .signals = SIGNAL_TRACES },
	{ .name = "memory_limiter", .kind = KIND_PROCESSOR, .signals = SIGNAL_TRACES },
	{ .name = "otlp",
	  .alias = "otlp_grpc",
	  .kind = KIND_EXPORTER,
	  .signals = SIGNAL_TRACES,
	  .config_size = sizeof(struct client),
	  .options = client_options,
	  .validate = client_validate },
	{ .name = "debug", .kind = KIND_EXPORTER, .signals = SIGNAL_TRACES, .best_effort = true },
	{ .name = "forward",
	  .kind = KIND_CONNECTOR,
	  .signals = SIGNAL_TRACES,
	  .gives = { [OTLP_TRACES] = SIGNAL_TRACES } },
	{ .name = "tometrics",
	  .kind = KIND_CONNECTOR,
	  .signals = SIGNAL_TRACES,
	  .gives = { [OTLP_TRACES] = SIGNAL_METRICS },
	  .exemplar_offer = offer_nothing },
	{ .name = "metricsonly", .kind = KIND_EXPORTER, .signals = SIGNAL_METRICS },
	{ .name = "health_check", .kind = KIND_EXTENSION },
	{ .name = "marker",
	  .kind = KIND_PROCESSOR,
	  .signals = SIGNAL_TRACES | SIGNAL_METRICS,
	  .config_size = sizeof(struct marker),
	  .options = marker_options },
};

/* One configuration from texts: sources are yaml: texts, sets as on the command line. */
struct loaded {
	struct conf_errors errors;
	struct buf text;
	struct service_config *config;
};

static void load_sources(struct loaded *l, const char *const *configs, size_t n,
			 const char *const *sets, size_t n_sets)
{
	struct conf_request r = { configs, n, sets, n_sets, false };

	*l = (struct loaded){ .config = NULL };
	l->config = conf_check_load(&r, &l->errors);
	conf_error_print(&l->errors, &l->text);
}

static void load(struct loaded *l, const char *yaml)
{
	char *uri = malloc(strlen(yaml) + 6);
	const char *configs[1] = { uri };

	memcpy(uri, "yaml:", 5);
	memcpy(uri + 5, yaml, strlen(yaml) + 1);
	load_sources(l, configs, 1, NULL, 0);
	free(uri);
}

static void unload(struct loaded *l)
{
	conf_check_free(l->config);
	conf_error_fini(&l->errors);
	buf_fini(&l->text);
}

#define BASE "receivers: {otlp: {protocols: {grpc: }}}\nexporters: {debug: }\n"
#define PIPE "service: {pipelines: {traces: {receivers: [otlp], exporters: [debug]}}}\n"
#define OK BASE PIPE
/* Traces that become metrics; more pipelines and "}}" follow. */
#define MEASURED(connectors, marker, receivers)                                                    \
	"receivers: {otlp: {protocols: {grpc: }}}\nexporters: {debug: , metricsonly: }\n"          \
	"processors: {marker: {" marker "}}\nconnectors: {" connectors "}\nservice: {pipelines: "  \
	"{traces: {receivers: [otlp], processors: [marker], exporters: [tometrics, debug]}, "      \
	"metrics: {receivers: " receivers ", exporters: [metricsonly]}"
#define NO_PIPE                                                                                    \
	"yaml:1:1: service.pipelines: service must have at least one pipeline: add service: "      \
	"{pipelines: {traces: "                                                                    \
	"{receivers: [...], exporters: [...]}}}\n"

static const struct {
	const char *yaml, *want;
} cases[] = {
	/* YAML itself */
	{ "", "yaml:1:1: (document): empty configuration file: start with receivers:, exporters: "
	      "and service:\n" },
	{ "{}", "yaml:1:1: (document): empty configuration file: start with receivers:, exporters: "
		"and service:\n" },
	{ "[a]", "yaml:1:1: (document): a configuration must be a map of keys: start with "
		 "receivers:, exporters: and "
		 "service:\n" },
	{ "a: [1", "yaml:1:6: a: not YAML, did not find expected ',' or ']': while parsing a flow "
		   "sequence that "
		   "starts at 1:4\n" },
	{ "a: b: c", "yaml:1:5: (document): not YAML, mapping values are not allowed in this "
		     "context: check the indentation, "
		     "quotes and brackets here\n" },
	{ "a:\n\tb: 1", "yaml:2:1: a: not YAML, a tab cannot indent: indent with spaces\n" },
	{ "a: *x", "yaml:1:4: a: unknown anchor: define it before, as &name\n" },
	{ "a: &x [*x]", "yaml:1:8: a: unknown anchor: define it before, as &name\n" },
	{ "? [a]\n: b", "yaml:1:3: (document): a key must be a scalar: use a plain name\n" },
	{ "a: \"\\0\"", "yaml:1:4: a: a value holds a NUL character: remove \\0\n" },
	{ OK "processors: {batch: {a: 1, a: 2}, batch: }",
	  "yaml:4:22: processors.batch.a: has invalid keys: a: this section takes no keys\n"
	  "yaml:4:28: processors.batch.a: duplicate key \"a\": it is already set at yaml:4:22; "
	  "remove one of them\n"
	  "yaml:4:35: processors.batch: duplicate key \"batch\": it is already set at yaml:4:14; "
	  "remove one of them\n" },
	{ OK "exporters:\n",
	  "yaml:4:1: exporters: duplicate key \"exporters\": it is already set at yaml:2:1; "
	  "remove one of them\n" },
	{ OK "exporters::debug: {best_effort: 2}",
	  "yaml:4:12: exporters.debug: duplicate key \"debug\": it is already set at yaml:2:13; "
	  "remove one of them\n" },
	{ "a: !!int x", "yaml:1:4: a: cannot decode \"x\" as int: remove the tag, or change the "
			"value\n" },
	{ "a: !!binary x", "yaml:1:4: a: !!binary is not base64 of text: write the text itself\n" },
	{ "a: 1\nb: \xff\n", "yaml:2:4: (document): not YAML, invalid leading UTF-8 octet (0xff): "
			     "a configuration is UTF-8 text\n" },
	{ "<<: 5",
	  "yaml:1:5: (document): `<<` takes a map or a list of maps: write `<<: *anchor`\n" },
	{ "a: {<<: [5]}", "yaml:1:10: a: `<<` takes a list of maps: write `<<: [*a, *b]`\n" },
	/* top level */
	{ "reciever:\n" OK,
	  "yaml:1:1: reciever: has invalid keys: reciever: did you mean \"receivers\"?\n" },
	{ "zzzzzzzzzz: 1\n" OK,
	  "yaml:1:1: zzzzzzzzzz: has invalid keys: zzzzzzzzzz: valid keys: receivers, processors, "
	  "exporters, connectors, extensions, service\n" },
	{ "receivers: 5\n",
	  "yaml:1:1: service.pipelines: service must have at least one pipeline: add service: "
	  "{pipelines: {traces: {receivers: [...], exporters: [...]}}}\n"
	  "yaml:1:12: receivers: expected a map, got 'int': write one `type/name:` a line below "
	  "it\n" },
	{ "service: 5\n", "yaml:1:10: service: expected a map, got 'int': put the keys below it, "
			  "indented, or write {}\n" },
	/* ids and types */
	{ OK "processors: {batch/: }",
	  "yaml:4:14: processors: in \"batch/\" id: the part after / should not be empty: "
	  "write type or type/name\n" },
	{ OK "processors: {/a: }",
	  "yaml:4:14: processors: in \"/a\" id: the part before / should not be empty: write "
	  "type or type/name\n" },
	{ OK "processors: {'': }",
	  "yaml:4:14: processors: id must not be empty: write type or type/name\n" },
	{ OK "processors: {1a: }",
	  "yaml:4:14: processors: in \"1a\" id: invalid character(s) in type \"1a\": write "
	  "type or type/name\n" },
	{ OK "processors: {batch/a b: }",
	  "yaml:4:14: processors: in \"batch/a b\" id: invalid character(s) in name "
	  "\"a b\": write type or type/name\n" },
	{ OK "processors: {batch: , ' batch': }",
	  "yaml:4:23: processors.batch: duplicate name \"batch\": rename one of "
	  "them\n" },
	{ OK "processors: {bacth/2: }",
	  "yaml:4:14: processors.bacth/2: unknown type: \"bacth\" for id: \"bacth/2\" "
	  "(valid values: [batch memory_limiter marker]): did you mean \"batch\"?\n" },
	{ OK "processors: {wibble: }",
	  "yaml:4:14: processors.wibble: unknown type: \"wibble\" for id: \"wibble\" (valid "
	  "values: [batch memory_limiter marker]): `spanmill components` lists all types\n" },
	{ OK "processors: {tail_sampling: }",
	  "yaml:4:14: processors.tail_sampling: the Collector's processor "
	  "\"tail_sampling\" is not in Spanmill yet: remove it, or use one of "
	  "[batch memory_limiter marker]\n" },
	{ OK "processors: {spanmetrics: }",
	  "yaml:4:14: processors.spanmetrics: the Collector's processor "
	  "\"spanmetrics\" was removed: use the spanmetrics connector\n" },
	{ OK "extensions: {memory_ballast: }",
	  "yaml:4:14: extensions.memory_ballast: the Collector's extension "
	  "\"memory_ballast\" was removed: remove it; memory_limiter bounds "
	  "memory\n" },
	/* component bodies */
	{ "receivers: {otlp: }\nexporters: {debug: }\n" PIPE,
	  "yaml:1:13: receivers.otlp.protocols: must specify at least "
	  "one protocol when using the OTLP receiver: add "
	  "protocols: {grpc: , http: }\n" },
	{ "receivers: {otlp: {protocols: }}\nexporters: {debug: }\n" PIPE,
	  "yaml:1:20: receivers.otlp.protocols: must specify at least one protocol when using the "
	  "OTLP receiver: add "
	  "protocols: {grpc: , http: }\n" },
	{ "receivers: {otlp: {protocols: {grpc: {endpoint: here}}}}\nexporters: {debug: }\n" PIPE,
	  "yaml:1:49: receivers.otlp.protocols.grpc.endpoint: address here: missing port in "
	  "address: write host:port, "
	  "for example localhost:4317\n" },
	{ "receivers: {otlp: {protocols: {grpc: {endpoint: 'h:99999'}}}}\nexporters: {debug: "
	  "}\n" PIPE,
	  "yaml:1:49: receivers.otlp.protocols.grpc.endpoint: invalid port \"99999\": a port is a "
	  "number from 1 to "
	  "65535\n" },
	{ "receivers:\n  otlp:\n    protocols:\n      grpc:\n        endpont: a:1\nexporters: "
	  "{debug: }\n" PIPE,
	  "yaml:5:9: receivers.otlp.protocols.grpc.endpont: has invalid keys: endpont: did you "
	  "mean \"endpoint\"? for "
	  "example `endpoint: localhost:4317`\n" },
	{ "receivers: {otlp: [a]}\nexporters: {debug: }\n" PIPE,
	  "yaml:1:13: receivers.otlp: expected a map, got 'list': "
	  "put the keys below it, indented, or write {}\n" },
	{ OK "processors: {batch: {timeout: 1s}}",
	  "yaml:4:22: processors.batch.timeout: has invalid keys: timeout: this "
	  "section takes no keys\n" },
	{ BASE "  # x\n" PIPE "processors: {batch: 5}",
	  "yaml:5:21: processors.batch: expected a map, got 'int': put the "
	  "keys below it, indented, or write {}\n" },
	{ "receivers: {otlp: {ack: never, protocols: {grpc: }}}\nexporters: {debug: }\n" PIPE,
	  "yaml:1:25: receivers.otlp.ack: unknown value \"never\": valid values: durable, "
	  "early\n" },
	{ "receivers: {otlp: {ack_timeout: 5, protocols: {grpc: }}}\nexporters: {debug: }\n" PIPE,
	  "yaml:1:33: receivers.otlp.ack_timeout: time: missing unit in duration \"5\": use units "
	  "ns, us, ms, s, m, h: "
	  "for example 5s or 1h30m\n" },
	{ "receivers: {otlp: {protocols: {grpc: }}}\nexporters: {debug: {best_effort: 1}}\n" PIPE,
	  "yaml:2:34: exporters.debug.best_effort: expected type 'bool', got unconvertible type "
	  "'int', value: '1': "
	  "write true or false, without quotes\n" },
	{ OK "exporters::otlp: {timeout: 1s}",
	  "yaml:4:12: exporters.otlp.endpoint: requires a non-empty \"endpoint\": "
	  "add `endpoint: localhost:4317`\n" },
	{ OK "exporters::otlp: {endpoint: ''}",
	  "yaml:4:29: exporters.otlp.endpoint: requires a non-empty \"endpoint\": "
	  "add `endpoint: localhost:4317`\n" },
	{ OK "exporters::otlp: {endpoint: }",
	  "yaml:4:19: exporters.otlp.endpoint: requires a non-empty \"endpoint\": "
	  "add `endpoint: localhost:4317`\n" },
	{ OK "exporters::otlp:",
	  "yaml:4:12: exporters.otlp.endpoint: requires a non-empty \"endpoint\": add `endpoint: "
	  "localhost:4317`\n" },
	{ OK "exporters::otlp: {endpoint: a:1, insecure: true}",
	  "yaml:4:34: exporters.otlp.insecure: has invalid keys: insecure: it moved: write tls: "
	  "{insecure: true}\n" },
	{ OK "exporters::otlp: {endpoint: a:1, tls: {cert_file: c}}",
	  "yaml:4:34: exporters.otlp.tls.key_file: TLS configuration must include both certificate "
	  "and key: add key_file: "
	  "/path/key.pem\n" },
	{ OK "exporters::otlp: {endpoint: a:1, tls: {min_version: '1.3', max_version: '1.2'}}",
	  "yaml:4:53: exporters.otlp.tls.min_version: min_version must be less than or equal to "
	  "max_version: lower "
	  "min_version or raise max_version\n" },
	{ OK
	  "exporters::otlp: {endpoint: a:1, sending_queue: {storage: fs, wait_for_result: true}}",
	  "yaml:4:80: exporters.otlp.sending_queue.wait_for_result: `wait_for_result` is not "
	  "supported with a persistent queue "
	  "configured with `storage`: remove one of the two\n" },
	{ OK "exporters::otlp: {endpoint: a:1, sending_queue: {batch: {sizer: requests}}}",
	  "yaml:4:65: exporters.otlp.sending_queue.batch.sizer: `batch` supports only `items` or "
	  "`bytes` sizer: write items or "
	  "bytes\n" },
	{ OK "exporters::otlp: {endpoint: a:1, sending_queue: {queue_size: 0}}",
	  "yaml:4:62: exporters.otlp.sending_queue.queue_size: 0 is out of range: between 1 and "
	  "1125899906842624\n" },
	/* service */
	{ BASE, NO_PIPE },
	{ BASE "service:",
	  "yaml:3:1: service.pipelines: service must have at least one pipeline: add service: "
	  "{pipelines: {traces: {receivers: [...], exporters: [...]}}}\n" },
	{ BASE "service: {pipelines: {}}",
	  "yaml:3:11: service.pipelines: service must have at least one pipeline: add "
	  "service: {pipelines: {traces: {receivers: [...], exporters: [...]}}}\n" },
	{ BASE "service: {pipelines: [a]}",
	  "yaml:3:11: service.pipelines: expected a map, got 'list': write `traces:` "
	  "below it\n" },
	{ OK "service::piplines: 1",
	  "yaml:4:10: service.piplines: has invalid keys: piplines: did you mean "
	  "\"pipelines\"? for example `pipelines: {traces: {receivers: [a], exporters: [b]}}`\n" },
	{ OK "service::drain_timeout: 15",
	  "yaml:4:25: service.drain_timeout: time: missing unit in duration \"15\": use "
	  "units ns, us, ms, s, m, h: for example 5s or 1h30m\n" },
	{ OK "service::exemplar_guard: 2",
	  "yaml:4:26: service.exemplar_guard: 2 is out of range: between 0 and 1\n" },
	{ OK "service::telemetry: {logs: {level: loud}}",
	  "yaml:4:36: service.telemetry.logs.level: unknown value "
	  "\"loud\": valid values: debug, info, warn, error, dpanic, "
	  "panic, fatal\n" },
	{ OK "service::telemetry: {metrics: {address: here}}",
	  "yaml:4:41: service.telemetry.metrics.address: address here: missing port in address: "
	  "write host:port, for "
	  "example localhost:4317\n" },
	{ OK "service::telemetry: {metrics: {readers: [{periodic: {interval: 1s}}]}}",
	  "warning: yaml:4:43: service.telemetry.metrics.readers[0].periodic: accepted, but has no "
	  "effect: metrics are not pushed: let Prometheus scrape /metrics\n" },
	{ OK "service::extensions: [health_chek]",
	  "yaml:4:23: service.extensions: references extension \"health_chek\" "
	  "which is not configured: did you mean \"health_check\"? Add "
	  "`health_check:` under extensions\n" },
	{ OK "service::extensions: health_check",
	  "yaml:4:22: service.extensions: expected a list of extensions, got "
	  "'string': write [a, b]\n" },
	/* pipelines */
	{ BASE "service: {pipelines: {trace: {receivers: [otlp], exporters: [debug]}}}",
	  "yaml:3:23: service.pipelines.trace: unknown signal \"trace\": did you mean "
	  "\"traces\"?\n" },
	{ BASE "service: {pipelines: {profiles: {receivers: [otlp], exporters: [debug]}}}",
	  "yaml:3:23: service.pipelines.profiles: the Collector's \"profiles\" pipelines are not "
	  "in Spanmill yet: remove the pipeline; traces, metrics and logs are carried\n" },
	{ BASE "service: {pipelines: {traces: {exporters: [debug]}}}",
	  "yaml:3:23: service.pipelines.traces: must have at least one receiver: add `receivers: "
	  "[name]`\n" },
	{ BASE "service: {pipelines: {traces: {receivers: , exporters: [debug]}}}",
	  "yaml:3:32: service.pipelines.traces: must have at least one receiver: add `receivers: "
	  "[name]`\n" },
	{ BASE "service: {pipelines: {traces: {receivers: [], exporters: [debug]}}}",
	  "yaml:3:32: service.pipelines.traces: must have at least one receiver: add `receivers: "
	  "[name]`\n" },
	{ BASE "service: {pipelines: {traces: {receivers: [otlp]}}}",
	  "yaml:3:23: service.pipelines.traces: must have at least one exporter: add `exporters: "
	  "[name]`\n" },
	{ BASE "service: {pipelines: {traces: }}",
	  "yaml:3:23: service.pipelines.traces: must have at least one receiver: add `receivers: "
	  "[name]`\n"
	  "yaml:3:23: service.pipelines.traces: must have at least one exporter: add `exporters: "
	  "[name]`\n" },
	{ BASE "service: {pipelines: {traces: {receivers: otlp, exporters: [debug]}}}",
	  "yaml:3:43: service.pipelines.traces: expected a list of receivers, got 'string': write "
	  "[a, b]\n" },
	{ BASE "service: {pipelines: {traces: {receivers: [otlp], exporter: [debug]}}}",
	  "yaml:3:23: service.pipelines.traces: must have at least one exporter: add `exporters: "
	  "[name]`\n"
	  "yaml:3:51: service.pipelines.traces.exporter: has invalid keys: exporter: did you mean "
	  "\"exporters\"? for "
	  "example `exporters: [otlp]`\n" },
	{ BASE "service: {pipelines: {traces: {receivers: [otpl], exporters: [debug]}}}",
	  "yaml:3:44: service.pipelines.traces: references receiver \"otpl\" which is not "
	  "configured: did you mean "
	  "\"otlp\"?\n" },
	{ BASE "service: {pipelines: {traces: {receivers: [otlp], processors: [batch], exporters: "
	       "[debug]}}}",
	  "yaml:3:64: service.pipelines.traces: references processor \"batch\" which is not "
	  "configured: add `batch:` "
	  "under processors\n" },
	{ BASE "service: {pipelines: {traces: {receivers: [otlp], processors: [bacth], exporters: "
	       "[debug]}}}",
	  "yaml:3:64: service.pipelines.traces: references processor \"bacth\" which is not "
	  "configured: did you mean "
	  "\"batch\"? Add `batch:` under processors\n" },
	{ BASE "service: {pipelines: {traces: {receivers: [otlp], exporters: [wibblewobble]}}}",
	  "yaml:3:63: service.pipelines.traces: references exporter \"wibblewobble\" which is not "
	  "configured: "
	  "configured exporters: debug\n" },
	{ BASE "service: {pipelines: {traces: {receivers: [[a]], exporters: [debug]}}}",
	  "yaml:3:44: service.pipelines.traces: expected type 'string', got unconvertible type "
	  "'list': write type or "
	  "type/name\n" },
	{ BASE "processors: {batch: }\nservice: {pipelines: {traces: {receivers: [otlp], "
	       "processors: [batch, batch], "
	       "exporters: [debug]}}}",
	  "yaml:4:71: service.pipelines.traces: references processor \"batch\" multiple times: "
	  "list it once, or "
	  "configure a second one as type/name\n" },
	{ BASE "service: {pipelines: {traces: {receivers: [otlp], exporters: [debug, debug]}}}",
	  "warning: yaml:3:70: service.pipelines.traces: references exporter \"debug\" multiple "
	  "times: list it once\n" },
	{ "exporters: {debug: }\nservice: {pipelines: {traces: {receivers: [otlp], exporters: "
	  "[debug]}}}",
	  "yaml:1:1: receivers: no receiver configuration specified in config: for example "
	  "`receivers: {otlp: "
	  "{protocols: {grpc: , http: }}}`\n"
	  "yaml:2:44: service.pipelines.traces: references receiver \"otlp\" which is not "
	  "configured: add `otlp:` under "
	  "receivers\n" },
	{ BASE "exporters::metricsonly: \nservice: {pipelines: {traces: {receivers: [otlp], "
	       "exporters: [metricsonly]}}}",
	  "yaml:4:63: service.pipelines.traces: exporter \"metricsonly\" does not support traces: "
	  "use it in a pipeline "
	  "of another signal\n" },
	/* connectors */
	{ BASE "connectors: {forward: }\nservice: {pipelines: {traces: {receivers: [otlp], "
	       "exporters: [forward]}}}",
	  "yaml:3:14: connectors.forward: must be used as both receiver and exporter but is not "
	  "used as receiver: list "
	  "it under the receivers of the pipeline it feeds\n" },
	{ BASE "connectors: {forward: }\nservice: {pipelines: {traces: {receivers: [forward], "
	       "exporters: [debug]}}}",
	  "yaml:3:14: connectors.forward: must be used as both receiver and exporter but is not "
	  "used as exporter: list "
	  "it under the exporters of the pipeline that feeds it\n" },
	{ BASE "connectors: {forward: }\nservice: {pipelines: {traces: {receivers: [forward], "
	       "exporters: [forward]}}}",
	  "yaml:4:23: service.pipelines.traces: cycle detected: pipeline \"traces\" -> connector "
	  "\"forward\" -> pipeline "
	  "\"traces\": take a connector out of one of the pipelines\n" },
	{ BASE "connectors: {forward: , forward/b: }\nservice: {pipelines: {traces/1: {receivers: "
	       "[otlp, forward/b], "
	       "exporters: [forward]}, traces/2: {receivers: [forward], exporters: [forward/b, "
	       "debug]}}}",
	  "yaml:4:23: service.pipelines.traces/1: cycle detected: pipeline \"traces/1\" -> "
	  "connector \"forward\" -> "
	  "pipeline \"traces/2\" -> connector \"forward/b\" -> pipeline \"traces/1\": take a "
	  "connector out of one of "
	  "the pipelines\n" },
	/* connectors from one signal to another */
	{ MEASURED("tometrics: ", "", "[tometrics]") "}}", "" },
	{ MEASURED("tometrics: ", "", "[tometrics]") ", traces/2: {receivers: [tometrics], "
						     "exporters: [debug]}}}",
	  "yaml:4:14: connectors.tometrics: connector \"tometrics\" used as receiver in [traces/2] "
	  "pipeline but not used in any supported exporter pipeline: it leads traces to "
	  "metrics\n" },
	{ MEASURED(
		  "tometrics: , forward: ", "",
		  "[tometrics, forward]") ", traces/2: {receivers: [otlp], exporters: [forward]}}}",
	  "yaml:4:27: connectors.forward: connector \"forward\" used as exporter in [traces/2] "
	  "pipeline but not used in any supported receiver pipeline: it leads traces to traces\n"
	  "yaml:4:27: connectors.forward: connector \"forward\" used as receiver in [metrics] "
	  "pipeline but not used in any supported exporter pipeline: it leads traces to "
	  "traces\n" },
	{ BASE "connectors: {tometrics: }\nservice: {pipelines: {traces: {receivers: [otlp], "
	       "exporters: [tometrics]}, traces/2: {receivers: [tometrics], exporters: [debug]}, "
	       "traces/3: {receivers: [otlp], exporters: [tometrics]}}}",
	  "yaml:3:14: connectors.tometrics: connector \"tometrics\" used as exporter in [traces "
	  "traces/3] pipeline but not used in any supported receiver pipeline: it leads traces to "
	  "metrics\n"
	  "yaml:3:14: connectors.tometrics: connector \"tometrics\" used as receiver in [traces/2] "
	  "pipeline but not used in any supported exporter pipeline: it leads traces to "
	  "metrics\n" },
	/* ids of connectors as options */
	{ MEASURED("tometrics: ", "connectors: [tometrics]", "[tometrics]") "}}", "" },
	{ MEASURED("tometrics: ", "connectors: [tometrisc]", "[tometrics]") "}}",
	  "yaml:3:35: processors.marker.connectors: references connector \"tometrisc\" "
	  "which is not configured: did you mean \"tometrics\"?\n" },
	{ MEASURED("tometrics: , tometrics/2: ", "connectors: [tometrics, tometrics/2]",
		   "[tometrics]") "}}",
	  "yaml:3:35: processors.marker.connectors: references connector "
	  "\"tometrics/2\" which no pipeline uses: list it under the exporters of a "
	  "pipeline and the receivers of another\n" },
	{ MEASURED("tometrics: , forward: ", "connectors: [forward]",
		   "[tometrics]") ", traces/2: {receivers: [forward], exporters: [debug]}, "
				  "traces/3: {receivers: [otlp], "
				  "exporters: [forward]}}}",
	  "yaml:3:35: processors.marker.connectors: connector \"forward\" shows no "
	  "exemplars: name a spanmetrics connector\n" },
	/* expansion */
	{ OK "service::drain_timeout: ${env:1X}",
	  "yaml:4:25: service.drain_timeout: environment variable \"1X\" has invalid name: must "
	  "match regex "
	  "^[a-zA-Z_][a-zA-Z0-9_]*$: use letters, digits and underscores\n" },
	{ OK "service::drain_timeout: ${http:x}",
	  "yaml:4:25: service.drain_timeout: scheme \"http\" is not supported for uri \"http:x\": "
	  "use env:, file: or "
	  "yaml:; write $$ for a plain dollar\n" },
	{ OK "service::drain_timeout: ${TEST_UNSET}",
	  "warning: yaml:4:25: service.drain_timeout: environment variable \"TEST_UNSET\" is not "
	  "set: set it, or write "
	  "${env:TEST_UNSET:-default}\n" },
	{ OK "service::drain_timeout: ${TEST_NUMBER}",
	  "yaml:4:25: service.drain_timeout: time: missing unit in duration \"8888\": use units "
	  "ns, us, ms, s, m, h: for "
	  "example 5s or 1h30m\n" },
	{ OK "service::drain_timeout: ${TEST_SELF}",
	  "yaml:4:25: service.drain_timeout: too many recursive expansions: a "
	  "value refers to itself\n" },
	{ OK "service::drain_timeout: ${file:/nonexistent/x}",
	  "yaml:4:25: service.drain_timeout: file \"/nonexistent/x\" cannot be read: No such file "
	  "or directory: check "
	  "the path and its permissions\n" },
	{ OK "processors::batch: ${TEST_MAP}",
	  "yaml:4:20: processors.batch.key: has invalid keys: key: this section "
	  "takes no keys\n" },
	/* legal */
	{ OK, "" },
	{ "---\n" OK "...\n", "" },
	{ OK "---\na: b\n", "warning: yaml:4:1: (document): only the first YAML document is read: "
			    "remove what follows "
			    "`---`\n" },
	{ "extensions: {health_check: }\nservice: {extensions: [health_check]}", "" },
	{ OK "processors: {batch: &x {}, batch/2: *x, 'batch/ 3 ': {<<: *x}}", "" },
	{ OK "exporters::otlp_grpc/a.b-c/d: {endpoint: a:1, sending_queue: {batch: }}", "" },
	{ OK "service::telemetry: {logs: {level: DEBUG, encoding: json}, metrics: {level: none}, "
	     "resource: {a: b}}",
	  "" },
};

static void checks_say_exactly_what_is_wrong(void **state)
{
	int n_bad = 0;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct loaded l;

		load(&l, cases[i].yaml);
		if (strcmp(buf_cstr(&l.text), cases[i].want) != 0) {
			n_bad++;
			print_error("%s:\ngot  %s\nwant %s\n", cases[i].yaml, buf_cstr(&l.text),
				    cases[i].want);
		}
		assert_true((l.config == NULL) == (l.errors.n_errors > 0));
		unload(&l);
	}
	assert_int_equal(n_bad, 0);
	print_message("%zu configurations\n", COUNT_OF(cases));
}

static void mesh_file_resolves(void **state)
{
	struct loaded l;
	const struct service_config *c;
	const struct otlp *r;
	const struct client *e;

	(void)state;
	load(&l, "receivers: {otlp: {protocols: {grpc: , http: }}, zipkin: {endpoint: "
		 "\"0.0.0.0:9411\"}}\n"
		 "exporters: {otlp/jaeger: {endpoint: \"jaeger.default:4317\", tls: {insecure: "
		 "true}}}\n"
		 "service: {pipelines: {traces: {receivers: [otlp, zipkin], exporters: "
		 "[otlp/jaeger]}}}\n");
	assert_string_equal(buf_cstr(&l.text), "");
	c = l.config;
	assert_int_equal(c->n_components, 3);
	assert_int_equal(c->n_pipelines, 1);
	assert_string_equal(c->components[2].id, "otlp/jaeger");
	assert_ptr_equal(c->components[2].type, &types[4]);
	r = c->components[0].config;
	assert_true(r->grpc_on && r->http_on);
	assert_string_equal(r->http.endpoint, "localhost:4318");
	assert_string_equal(c->components[0].receiver.tenant, "single-tenant");
	assert_int_equal(c->components[0].receiver.ack_timeout_ns, INT64_C(5000000000));
	e = c->components[2].config;
	assert_true(e->client.tls.insecure && e->queue.enabled && e->retry.enabled);
	assert_int_equal(c->pipelines[0].receivers.n, 2);
	assert_int_equal(c->pipelines[0].exporters.items[0], 2);
	assert_int_equal(c->drain_timeout_ns, INT64_C(15000000000));
	assert_string_equal(c->telemetry.metrics_endpoint, "localhost:8888");
	unload(&l);
}

static void later_sources_win(void **state)
{
	static const char *const configs[] = {
		"yaml:" OK, "yaml:service::drain_timeout: 1x\n",
		"yaml:service: {pipelines: {traces: {exporters: [debug, otlp]}}}", "env:TEST_SOURCE"
	};
	static const char *const sets[] = { "service.drain_timeout=3s",
					    "exporters.otlp.endpoint=a:1",
					    "service.telemetry.metrics.readers=[]",
					    "service.telemetry.logs.level=" };
	static const char *const bad[] = { "service.drain_timeout=3", "noequals", "a..b=1", "=1" };
	struct loaded l;

	(void)state;
	load_sources(&l, configs, 4, sets, 4);
	assert_string_equal(buf_cstr(&l.text), "");
	assert_int_equal(l.config->drain_timeout_ns, INT64_C(3000000000));
	assert_int_equal(l.config->pipelines[0].exporters.n, 2);
	assert_int_equal(l.config->n_components, 3);
	assert_string_equal(l.config->telemetry.metrics_endpoint, "");
	unload(&l);
	load_sources(&l, configs, 2, bad, 1);
	assert_string_equal(
		buf_cstr(&l.text),
		"--set:1:23: service.drain_timeout: time: missing unit in duration \"3\": use "
		"units ns, us, ms, s, m, h: for example 5s or 1h30m\n");
	unload(&l);
	load_sources(&l, configs, 1, bad + 1, 3);
	assert_string_equal(
		buf_cstr(&l.text),
		"--set:1:1: (document): \"noequals\" has no key and `=`: write --set a.b.c=value\n"
		"--set:1:3: (document): \"a..b=1\" has an empty, too long or too deep key: write "
		"--set "
		"a.b.c=value\n"
		"--set:1:1: (document): \"=1\" has no key and `=`: write --set a.b.c=value\n");
	unload(&l);
	load_sources(&l, NULL, 0, NULL, 0);
	assert_string_equal(
		buf_cstr(&l.text),
		"--config:1:1: (document): at least one config flag must be provided: for "
		"example --config configs/all-in-one.yaml\n");
	unload(&l);
}

static void sources_that_cannot_be_read_are_named(void **state)
{
	static const char *const configs[] = { "/nonexistent/a.yaml", "file:/tmp", "env:TEST_UNSET",
					       "env:1", "https://x/y" };
	struct loaded l;

	(void)state;
	load_sources(&l, configs, 5, NULL, 0);
	assert_string_equal(buf_cstr(&l.text),
			    "/nonexistent/a.yaml:1:1: (document): cannot be read: No such file or "
			    "directory: check the path after "
			    "--config\n"
			    "/tmp:1:1: (document): cannot be read: not a regular file: check the "
			    "path after --config\n"
			    "env:TEST_UNSET:1:1: (document): environment variable \"TEST_UNSET\" "
			    "is not set: put YAML text into it\n"
			    "env:1:1:1: (document): environment variable \"1\" has invalid name: "
			    "must match regex "
			    "^[a-zA-Z_][a-zA-Z0-9_]*$: use letters, digits and underscores\n"
			    "--config:1:1: (document): scheme \"https\" is not supported for uri "
			    "\"https://x/y\": use file:, env: or "
			    "yaml:\n");
	unload(&l);
}

static void files_are_named_in_errors(void **state)
{
	char path[] = "/tmp/spanmill-conf-XXXXXX", want[200];
	int fd = mkstemp(path);
	const char *configs[] = { path };
	static const char text[] =
		"\xef\xbb\xbf" BASE "service:\n  pipelines:\n    traces:\n      receivers: [otlp]\n"
		"      exporters:\n        - debgu\n";
	struct loaded l;

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, sizeof(text) - 1), sizeof(text) - 1);
	close(fd);
	load_sources(&l, configs, 1, NULL, 0);
	unlink(path);
	snprintf(want, sizeof(want),
		 "%s:8:11: service.pipelines.traces: references exporter \"debgu\" which is not "
		 "configured: did you mean \"debug\"?\n",
		 path);
	assert_string_equal(buf_cstr(&l.text), want);
	unload(&l);
}

static const struct {
	const char *value, *want; /* what a string option gets; NULL: its default */
} expansions[] = {
	{ "plain", "plain" },
	{ "${TEST_TEXT}", "text" },
	{ "${env:TEST_TEXT}", "text" },
	{ "a-${env:TEST_TEXT}-b", "a-text-b" },
	{ "\"${TEST_TEXT}\"", "text" },
	{ "${env:TEST_UNSET:-dflt}", "dflt" },
	{ "${TEST_UNSET:-dflt}", "dflt" },
	{ "${env:TEST_UNSET:-}", "" },
	{ "${env:TEST_EMPTY:-dflt}", "" },
	{ "${env:TEST_UNSET}", NULL },
	{ "a${env:TEST_UNSET}b", "ab" },
	{ "${env:TEST_NUMBER}", "8888" },
	{ "${env:TEST_OCTAL}", "0123" },
	{ "${env:TEST_BOOL}", "true" },
	{ "${env:TEST_LIST}", "[a, b]" },
	{ "${env:TEST_QUOTED}", "\"q\"" },
	{ "${env:${TEST_NAME}}", "text" },
	{ "${env:TEST_INDIRECT}", "text" },
	{ "$$", "$" },
	{ "a$$b", "a$b" },
	{ "$TEST_TEXT", "$TEST_TEXT" },
	{ "$${TEST_TEXT}", "${TEST_TEXT}" },
	{ "$$${TEST_TEXT}", "$text" },
	{ "$$$${TEST_TEXT}", "$${TEST_TEXT}" },
	{ "${TEST_TEXT}$${TEST_TEXT}", "text${TEST_TEXT}" },
	{ "${yaml:hello}", "hello" },
	{ "${TEST_TEXT", "${TEST_TEXT" },
	{ "TEST_TEXT}", "TEST_TEXT}" },
	{ "${TEST_COLON}", "a: b" },
	{ "${TEST_NOT_YAML}", "[a" },
};

static void expansion_is_the_collectors(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(expansions); i++) {
		char *yaml = NULL;
		struct loaded l;
		const struct client *c;
		const char *want = expansions[i].want ? expansions[i].want : "";

		assert_true(asprintf(&yaml,
				     OK "exporters::otlp: {endpoint: "
					"a:1}\nexporters::otlp::authority: %s\n",
				     expansions[i].value) > 0);
		load(&l, yaml);
		free(yaml);
		if (l.config == NULL)
			fail_msg("%s: %s", expansions[i].value, buf_cstr(&l.text));
		c = l.config->components[2].config;
		if (strcmp(c->client.authority, want) != 0)
			fail_msg("%s: got %s, want %s", expansions[i].value, c->client.authority,
				 want);
		unload(&l);
	}
}

static void whole_values_become_yaml(void **state)
{
	struct loaded l;
	const struct client *c;

	(void)state;
	load(&l,
	     OK "exporters::otlp: {endpoint: a:1, sending_queue: {queue_size: \"${TEST_NUMBER}\"}, "
		"headers: "
		"'${TEST_MAP}', tls: {cipher_suites: '${TEST_LIST}', insecure: '${TEST_BOOL}'}}\n");
	assert_string_equal(buf_cstr(&l.text), "");
	c = l.config->components[2].config;
	assert_int_equal(c->queue.queue_size, 8888);
	assert_int_equal(c->client.headers.n, 1);
	assert_string_equal(c->client.headers.items[0].value, "v");
	assert_int_equal(c->client.tls.common.cipher_suites.n, 2);
	assert_true(c->client.tls.insecure);
	unload(&l);
}

static void hostile_text_is_bounded(void **state)
{
	struct buf b = BUF_INIT;
	struct loaded l;

	(void)state;
	/* billion laughs */
	buf_add_str(&b, "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
	for (int i = 1; i < 12; i++) {
		buf_printf(&b, "a%d: &a%d [", i, i);
		for (int j = 0; j < 10; j++)
			buf_printf(&b, "%s*a%d", j ? ", " : "", i - 1);
		buf_add_str(&b, "]\n");
	}
	load(&l, buf_cstr(&b));
	assert_non_null(strstr(buf_cstr(&l.text), "the configuration has more than 100000 values"));
	unload(&l);
	/* depth, by brackets and by "::" */
	buf_reset(&b);
	buf_add_str(&b, "a: ");
	for (int i = 0; i < 500; i++)
		buf_add_char(&b, '[');
	load(&l, buf_cstr(&b));
	assert_non_null(strstr(buf_cstr(&l.text), "nested deeper than 64 levels"));
	unload(&l);
	buf_reset(&b);
	for (int i = 0; i < 100; i++)
		buf_add_str(&b, "a::");
	buf_add_str(&b, "a: 1");
	load(&l, buf_cstr(&b));
	assert_non_null(strstr(buf_cstr(&l.text), "nested deeper than 64 levels"));
	unload(&l);
	/* many errors: bounded output that still counts */
	buf_reset(&b);
	for (int i = 0; i < 3000; i++)
		buf_printf(&b, "k%d: 1\n", i);
	load(&l, buf_cstr(&b));
	assert_non_null(strstr(buf_cstr(&l.text), "more errors and warnings\n"));
	assert_int_equal(l.errors.n_errors, 3001);
	unload(&l);
	/* a value that doubles itself */
	load(&l, OK "service::drain_timeout: a${TEST_DOUBLE}\n");
	assert_non_null(strstr(buf_cstr(&l.text), "too many recursive expansions"));
	unload(&l);
	load(&l, "a: \"\\n\\x1b[31m\": x");
	assert_null(strchr(buf_cstr(&l.text), '\x1b'));
	unload(&l);
	buf_fini(&b);
}

static void printed_config_loads_to_the_same(void **state)
{
	struct buf first = BUF_INIT, second = BUF_INIT;
	struct arena arena = ARENA_INIT;
	struct loaded l, again;

	(void)state;
	load(&l, BASE "exporters::otlp: {endpoint: 'h:1', headers: {authorization: secret}, "
		      "authority: 'a$${b}'}\n"
		      "service: {drain_timeout: 3s, pipelines: {traces: {receivers: [otlp], "
		      "exporters: [debug, otlp]}}}");
	assert_string_equal(buf_cstr(&l.text), "");
	conf_tree_print_yaml(conf_check_print(l.config, &arena, true), &first);
	assert_non_null(strstr(buf_cstr(&first), "authorization: \"[REDACTED]\""));
	assert_null(strstr(buf_cstr(&first), "secret"));
	assert_non_null(strstr(buf_cstr(&first), "best_effort: true"));
	buf_reset(&first);
	conf_tree_print_yaml(conf_check_print(l.config, &arena, false), &first);
	load(&again, buf_cstr(&first));
	assert_string_equal(buf_cstr(&again.text), "");
	conf_tree_print_yaml(conf_check_print(again.config, &arena, false), &second);
	assert_string_equal(buf_cstr(&first), buf_cstr(&second));
	unload(&l);
	unload(&again);
	buf_fini(&first);
	buf_fini(&second);
	arena_fini(&arena);
}

static int set_up(void **state)
{
	static const struct component_type *all[COUNT_OF(types)];

	(void)state;
	for (size_t i = 0; i < COUNT_OF(types); i++)
		all[i] = &types[i];
	registry_init(all, COUNT_OF(types));
	setenv("TEST_TEXT", "text", 1);
	setenv("TEST_NAME", "TEST_TEXT", 1);
	setenv("TEST_INDIRECT", "${TEST_TEXT}", 1);
	setenv("TEST_EMPTY", "", 1);
	setenv("TEST_NUMBER", "8888", 1);
	setenv("TEST_OCTAL", "0123", 1);
	setenv("TEST_BOOL", "true", 1);
	setenv("TEST_LIST", "[a, b]", 1);
	setenv("TEST_MAP", "{key: v}", 1);
	setenv("TEST_QUOTED", "\"q\"", 1);
	setenv("TEST_COLON", "a: b", 1);
	setenv("TEST_NOT_YAML", "[a", 1);
	setenv("TEST_SELF", "${TEST_SELF}", 1);
	setenv("TEST_DOUBLE", "${TEST_DOUBLE2}${TEST_DOUBLE2}", 1);
	setenv("TEST_DOUBLE2", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx${TEST_DOUBLE}", 1);
	setenv("TEST_SOURCE", "exporters: {otlp: {endpoint: b:1}}", 1);
	unsetenv("TEST_UNSET");
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(checks_say_exactly_what_is_wrong),
		cmocka_unit_test(mesh_file_resolves),
		cmocka_unit_test(later_sources_win),
		cmocka_unit_test(sources_that_cannot_be_read_are_named),
		cmocka_unit_test(files_are_named_in_errors),
		cmocka_unit_test(expansion_is_the_collectors),
		cmocka_unit_test(whole_values_become_yaml),
		cmocka_unit_test(hostile_text_is_bounded),
		cmocka_unit_test(printed_config_loads_to_the_same),
	};

	return cmocka_run_group_tests_name("conf", tests, set_up, NULL);
}
