/* SPDX-License-Identifier: Apache-2.0
 *
 * known.c - names of the Collector's component types, current and removed. Contract in
 * known.h.
 */
#include "pipeline/resolve/known.h"

static const char *const receivers[] = { "active_directory_ds",
					 "aerospike",
					 "apache",
					 "awscloudwatch",
					 "awscontainerinsight",
					 "awsecscontainermetrics",
					 "awsfirehose",
					 "awsxray",
					 "azureblob",
					 "azureeventhub",
					 "azuremonitor",
					 "carbon",
					 "chrony",
					 "cloudfoundry",
					 "collectd",
					 "couchdb",
					 "datadog",
					 "docker_stats",
					 "elasticsearch",
					 "expvar",
					 "faro",
					 "filelog",
					 "filestats",
					 "fluentforward",
					 "github",
					 "googlecloudmonitoring",
					 "googlecloudpubsub",
					 "googlecloudspanner",
					 "haproxy",
					 "hostmetrics",
					 "httpcheck",
					 "iis",
					 "influxdb",
					 "jaeger",
					 "jmx",
					 "journald",
					 "k8s_cluster",
					 "k8s_events",
					 "k8sobjects",
					 "kafka",
					 "kafkametrics",
					 "kubeletstats",
					 "libhoney",
					 "loki",
					 "memcached",
					 "mongodb",
					 "mysql",
					 "nginx",
					 "nop",
					 "opencensus",
					 "oracledb",
					 "otelarrow",
					 "otlp",
					 "otlpjsonfile",
					 "podman_stats",
					 "postgresql",
					 "prometheus",
					 "prometheusremotewrite",
					 "pulsar",
					 "rabbitmq",
					 "receiver_creator",
					 "redis",
					 "sapm",
					 "signalfx",
					 "simpleprometheus",
					 "skywalking",
					 "snmp",
					 "solace",
					 "splunk_hec",
					 "sqlquery",
					 "sqlserver",
					 "statsd",
					 "syslog",
					 "systemd",
					 "tcplog",
					 "udplog",
					 "vcenter",
					 "webhookevent",
					 "windowseventlog",
					 "windowsperfcounters",
					 "zipkin",
					 "zookeeper",
					 NULL };

static const char *const processors[] = { "attributes",
					  "batch",
					  "coralogix",
					  "cumulativetodelta",
					  "deltatocumulative",
					  "deltatorate",
					  "dns_lookup",
					  "filter",
					  "geoip",
					  "group_by_trace",
					  "groupbyattrs",
					  "groupbytrace",
					  "interval",
					  "isolation_forest",
					  "k8s_attributes",
					  "k8sattributes",
					  "log_dedup",
					  "logdedup",
					  "logstransform",
					  "memory_limiter",
					  "metric_start_time",
					  "metricsgeneration",
					  "metricstarttime",
					  "metricstransform",
					  "probabilistic_sampler",
					  "queuebatch",
					  "redaction",
					  "remotetap",
					  "resource",
					  "resource_detection",
					  "resourcedetection",
					  "schema",
					  "span",
					  "sumologic",
					  "tail_sampling",
					  "transform",
					  "unroll",
					  NULL };

static const char *const exporters[] = { "alertmanager",
					 "alibabacloud_logservice",
					 "aws_s3",
					 "awscloudwatchlogs",
					 "awsemf",
					 "awskinesis",
					 "awss3",
					 "awsxray",
					 "azureblob",
					 "azuredataexplorer",
					 "azuremonitor",
					 "bmchelix",
					 "carbon",
					 "cassandra",
					 "clickhouse",
					 "coralogix",
					 "datadog",
					 "dataset",
					 "debug",
					 "doris",
					 "elasticsearch",
					 "faro",
					 "file",
					 "googlecloud",
					 "googlecloudpubsub",
					 "googlemanagedprometheus",
					 "honeycombmarker",
					 "influxdb",
					 "kafka",
					 "load_balancing",
					 "loadbalancing",
					 "logicmonitor",
					 "logzio",
					 "loki",
					 "mezmo",
					 "nop",
					 "opensearch",
					 "otelarrow",
					 "otlp",
					 "otlp_grpc",
					 "otlp_http",
					 "otlphttp",
					 "prometheus",
					 "prometheusremotewrite",
					 "pulsar",
					 "rabbitmq",
					 "sematext",
					 "sentry",
					 "signalfx",
					 "splunk_hec",
					 "stef",
					 "sumologic",
					 "syslog",
					 "tencentcloud_logservice",
					 "tinybird",
					 "zipkin",
					 NULL };

static const char *const connectors[] = { "count",
					  "datadog",
					  "exceptions",
					  "failover",
					  "forward",
					  "grafanacloud",
					  "metricsaslogs",
					  "otlpjson",
					  "roundrobin",
					  "routing",
					  "service_graph",
					  "servicegraph",
					  "signal_to_metrics",
					  "signaltometrics",
					  "slowsql",
					  "span_metrics",
					  "spanmetrics",
					  "sum",
					  NULL };

static const char *const extensions[] = { "ack",
					  "asapclient",
					  "avro_log_encoding",
					  "azureauth",
					  "basic_auth",
					  "basicauth",
					  "bearer_token_auth",
					  "bearertokenauth",
					  "cgroupruntime",
					  "db_storage",
					  "docker_observer",
					  "ecs_observer",
					  "ecs_task_observer",
					  "file_storage",
					  "googleclientauth",
					  "headers_setter",
					  "health_check",
					  "healthcheckv2",
					  "host_observer",
					  "http_forwarder",
					  "jaeger_encoding",
					  "jaeger_remote_sampling",
					  "jaegerremotesampling",
					  "json_log_encoding",
					  "k8s_leader_elector",
					  "k8s_observer",
					  "kafkatopics_observer",
					  "memory_limiter",
					  "oauth2client",
					  "oidc",
					  "opamp",
					  "otlp_encoding",
					  "pprof",
					  "redis_storage",
					  "remotetap",
					  "sigv4auth",
					  "skywalking_encoding",
					  "text_encoding",
					  "zipkin_encoding",
					  "zpages",
					  NULL };

static const char *const *const known[KIND_MAX] = {
	[KIND_RECEIVER] = receivers,   [KIND_PROCESSOR] = processors, [KIND_EXPORTER] = exporters,
	[KIND_CONNECTOR] = connectors, [KIND_EXTENSION] = extensions,
};

static const struct {
	enum component_kind kind;
	const char *type;
	const char *hint;
} removed[] = {
	{ KIND_EXPORTER, "logging",
	  "the logging exporter has been deprecated, use the debug exporter instead" },
	{ KIND_EXPORTER, "jaeger", "Jaeger takes OTLP: use the otlp exporter" },
	{ KIND_EXPORTER, "jaeger_thrift", "Jaeger takes OTLP: use the otlp exporter" },
	{ KIND_EXPORTER, "opencensus", "use the otlp exporter" },
	{ KIND_PROCESSOR, "queued_retry",
	  "use sending_queue and retry_on_failure of the exporter" },
	{ KIND_PROCESSOR, "memory_ballast", "remove it; memory_limiter bounds memory" },
	{ KIND_PROCESSOR, "spanmetrics", "use the spanmetrics connector" },
	{ KIND_PROCESSOR, "servicegraph", "use the servicegraph connector" },
	{ KIND_PROCESSOR, "routing", "use the routing connector" },
	{ KIND_EXTENSION, "memory_ballast", "remove it; memory_limiter bounds memory" },
};

static const struct {
	enum component_kind kind;
	const char *type;
} planned[] = {
	{ KIND_EXTENSION, "compactor" },   { KIND_PROCESSOR, "exemplar" },
	{ KIND_EXPORTER, "blocks" },       { KIND_EXTENSION, "query" },
	{ KIND_EXTENSION, "trace_store" },
};

/* Equal but for underscores: the Collector is renaming its types one by one. */
static bool is_same(const char *a, const char *b)
{
	for (;;) {
		a += strspn(a, "_");
		b += strspn(b, "_");
		if (*a != *b || *a == '\0')
			return *a == *b;
		a++;
		b++;
	}
}

bool conf_known_is_planned(enum component_kind kind, const char *type)
{
	for (size_t i = 0; i < COUNT_OF(planned); i++)
		if (planned[i].kind == kind && strcmp(planned[i].type, type) == 0)
			return true;
	return false;
}

bool conf_known_is_collector(enum component_kind kind, const char *type)
{
	for (const char *const *name = known[kind]; *name != NULL; name++) {
		if (is_same(*name, type))
			return true;
	}
	return false;
}

const char *conf_known_removed(enum component_kind kind, const char *type)
{
	for (size_t i = 0; i < COUNT_OF(removed); i++) {
		if (removed[i].kind == kind && is_same(removed[i].type, type))
			return removed[i].hint;
	}
	return NULL;
}
