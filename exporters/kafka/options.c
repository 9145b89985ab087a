/* SPDX-License-Identifier: Apache-2.0
 *
 * options.c - the kafka exporter's keys: the Collector's, in their newest and older places, and
 * dead_letter. Where a default differs from the Collector's, its loses data (INTERFACE "Defaults
 * that differ").
 */
#include "exporters/kafka/exporter.h"

#include <strings.h>

static const struct option_choice encodings[] = {
	{ "otlp_proto", ENCODING_OTLP_PROTO },
	{ "otlp_json", ENCODING_OTLP_JSON },
	{ "jaeger_proto", ENCODING_JAEGER_PROTO },
	{ "jaeger_json", ENCODING_JAEGER_JSON },
	{ "zipkin_proto", ENCODING_ZIPKIN_PROTO },
	{ "zipkin_json", ENCODING_ZIPKIN_JSON },
	{ NULL, 0 },
};

static const struct option_choice hashers[] = {
	{ "murmur2", HASHER_MURMUR2 },
	{ "sarama_compat", HASHER_SARAMA_COMPAT },
	{ NULL, 0 },
};

static const struct option_choice acks[] = {
	{ "all", -1 }, { "-1", -1 }, { "1", 1 }, { "0", 0 }, { NULL, 0 },
};

const struct option_choice kafka_compressions[] = {
	{ "none", COMPRESSION_NONE },     { "gzip", COMPRESSION_GZIP },
	{ "snappy", COMPRESSION_SNAPPY }, { "lz4", COMPRESSION_LZ4 },
	{ "zstd", COMPRESSION_ZSTD },     { NULL, 0 },
};

static const struct option nothing_table[] = { OPT_END };

#define C struct kafka_config
#define NOT_READ "logs and metrics go to the partitions in turn"
#define NO_METADATA "batches carry no metadata beside the tenant"
const struct option kafka_option_table[] = {
	OPT_INCLUDE(C, client, struct kafka_client_options, kafka_client_option_table),
	OPT_STR(C, "traces.topic", traces.topic, "otlp_spans", "Topic to write to."),
	OPT_PRESENT(C, "traces.topic", traces.has_topic),
	OPT_ENUM(C, "traces.encoding", traces.encoding, encodings, "otlp_proto",
		 "What a record holds."),
	OPT_PRESENT(C, "traces.encoding", traces.has_encoding),
	OPT_STR(C, "metrics.topic", metrics.topic, "otlp_metrics", "Topic for metrics."),
	OPT_PRESENT(C, "metrics.topic", metrics.has_topic),
	OPT_ENUM(C, "metrics.encoding", metrics.encoding, encodings, "otlp_proto",
		 "What a record of metrics holds."),
	OPT_PRESENT(C, "metrics.encoding", metrics.has_encoding),
	OPT_STR(C, "logs.topic", logs.topic, "otlp_logs", "Topic for logs."),
	OPT_PRESENT(C, "logs.topic", logs.has_topic),
	OPT_ENUM(C, "logs.encoding", logs.encoding, encodings, "otlp_proto",
		 "What a record of logs holds."),
	OPT_PRESENT(C, "logs.encoding", logs.has_encoding),
	OPT_STR(C, "traces.topic_from_metadata_key", topic_from_metadata_key, NULL,
		"Not possible: " NO_METADATA "."),
	OPT_STR(C, "traces.message_key_from_metadata_key", message_key_from_metadata_key, NULL,
		"Not possible: " NO_METADATA "."),
	OPT_STR(C, "topic", old_topic, NULL,
		"Older place of traces.topic, metrics.topic and logs.topic."),
	OPT_ENUM(C, "encoding", old_encoding, encodings, NULL,
		 "Older place of traces.encoding, metrics.encoding and logs.encoding."),
	OPT_PRESENT(C, "encoding", has_old_encoding),
	OPT_STR(C, "topic_from_attribute", topic_from_attribute, NULL,
		"Resource attribute that names the topic; without it, or when there is no such "
		"topic, traces.topic."),
	OPT_STRLIST(C, "include_metadata_keys", include_metadata_keys, "[]",
		    "Request metadata as record headers; only X-Scope-OrgID, the tenant."),
	OPT_OPAQUE_MAP(C, "record_headers", record_headers, "Headers of every record."),
	OPT_IGNORED("signal_header", "each signal has a topic of its own"),
	OPT_BOOL(C, "partition_traces_by_id", partition_traces_by_id, "false",
		 "One record per trace, with its id (32 hex digits) as the key; else a record has "
		 "the traces of a partition and no key. The partition is the same."),
	OPT_ENUM(C, "record_partitioner.sticky_key.hasher", hasher, hashers, "murmur2",
		 "How a trace id becomes a partition: as in Java, or as in Sarama."),
	OPT_SECTION(C, "record_partitioner.round_robin", round_robin_on, round_robin,
		    struct kafka_nothing, nothing_table, "off",
		    "Requests to the partitions in turn; traces are then spread over them."),
	OPT_SECTION(C, "record_partitioner.least_backup", least_backup_on, least_backup,
		    struct kafka_nothing, nothing_table, "off",
		    "Requests to the partition with least under way; traces are then spread."),
	OPT_UNSUPPORTED("record_partitioner.extension", "use sticky_key"),
	OPT_BYTES(C, "producer.max_message_bytes", max_message_bytes, "1000000", 1000, 1000000000,
		  "Largest record, encoded, with key and headers; larger ones are cut between "
		  "spans. The topic's own limit is asked for and kept too."),
	OPT_ENUM(C, "producer.required_acks", required_acks, acks, "all",
		 "Replicas that must have a record: all in sync, 1, or 0; all also makes the "
		 "producer idempotent."),
	OPT_ENUM(C, "producer.compression", compression, kafka_compressions, "lz4", "Of records."),
	OPT_INT(C, "producer.compression_params.level", compression_level, "-1", -1, 22,
		"-1: the codec's default. Of zstd those above 12 are 12."),
	OPT_UINT(C, "producer.flush_max_messages", flush_max_messages, "10000", 0, 1000000,
		 "Most records in one request to a broker; 0: 10000."),
	OPT_BOOL(C, "producer.allow_auto_topic_creation", allow_auto_topic_creation, "false",
		 "Let the brokers make a topic that is not there, with their defaults."),
	OPT_DURATION(C, "producer.linger", linger_ns, "20ms",
		     "How long a record may take to fill; unset with sending_queue.storage: 1s."),
	OPT_PRESENT(C, "producer.linger", has_linger),
	OPT_IGNORED("producer.max_broker_write_bytes", "a request holds one partition's records"),
	OPT_STR(C, "dead_letter.topic", dead_letter_topic, NULL,
		"Topic for spans that are larger than the topic takes."),
	OPT_STR(C, "dead_letter.file", dead_letter_file, NULL, "The same as lines of a file."),
	OPT_DURATION(C, "timeout", timeout_ns, "5s",
		     "Of one attempt; 0, and with sending_queue.storage: none."),
	OPT_TABLE(C, "retry_on_failure", retry, struct retry_options, retry_option_table,
		  "Attempts after a retryable failure."),
	OPT_SECTION(C, "sending_queue", queue.enabled, queue, struct queue_options,
		    queue_option_table, "on", "What waits to be sent."),
	OPT_IGNORED("profiles", "traces, metrics and logs are written"),
	OPT_IGNORED("partition_logs_by_trace_id", NOT_READ),
	OPT_IGNORED("partition_logs_by_resource_attributes", NOT_READ),
	OPT_IGNORED("partition_metrics_by_resource_attributes", NOT_READ),
	OPT_END
};
#undef C

static const struct kafka_owned owned[] = {
	{ "acks", "write it to `producer.required_acks`" },
	{ "request.required.acks", "write it to `producer.required_acks`" },
	{ "enable.idempotence", "it follows from `producer.required_acks: all`" },
	{ "compression.codec", "write it to `producer.compression`" },
	{ "compression.type", "write it to `producer.compression`" },
	{ "compression.level", "write it to `producer.compression_params.level`" },
	{ "message.max.bytes", "write it to `producer.max_message_bytes`" },
	{ "batch.size", "it follows from the topic's limit" },
	{ "message.timeout.ms", "write it to `timeout`" },
	{ "delivery.timeout.ms", "write it to `timeout`" },
	{ "partitioner", "see `record_partitioner`" },
	{ "queue.buffering.max.messages", "the memory budget bounds what is under way" },
	{ "queue.buffering.max.kbytes", "the memory budget bounds what is under way" },
	{ "max.in.flight", "one at a time keeps librdkafka from losing records" },
	{ "max.in.flight.requests.per.connection",
	  "one at a time keeps librdkafka from losing records" },
	{ "transactional.id", "transactions are not used" },
	{ NULL, NULL },
};

bool kafka_is_topic_name(const char *name)
{
	size_t n = strlen(name);

	return n > 0 && n <= 249 && strcmp(name, ".") != 0 && strcmp(name, "..") != 0 &&
	       name[strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				 "0123456789._-")] == '\0';
}

static void check_topic(const char *name, const char *key, const struct conf_node *node,
			struct conf_errors *errs, const char *path)
{
	if (!kafka_is_topic_name(name))
		conf_error_at(errs, node, path, key,
			      "letters, digits, '.', '_' and '-', at most 249 of them",
			      "invalid topic name \"%.100s\"", name);
}

/* `key` as written: "logs.topic", or "topic" at the top. */
static const char *place_key(const char *signal, const char *key, bool is_own, char out[40])
{
	snprintf(out, 40, "%s%s%s", is_own ? signal : "", is_own ? "." : "", key);
	return out;
}

/* One signal's topic and encoding; what stands at the top is for those that say nothing. */
static void check_place(struct kafka_config *conf, struct kafka_place *p, const char *signal,
			const struct conf_node *node, struct conf_errors *errs, const char *path)
{
	bool old_topic = conf->old_topic[0] != '\0' && !p->has_topic;
	bool old_encoding = conf->has_old_encoding && !p->has_encoding;
	bool is_traces = p == &conf->traces;
	char key[40];

	if (old_topic)
		p->topic = conf->old_topic;
	if (old_encoding)
		p->encoding = conf->old_encoding;
	/* What stands at the top is said once. */
	if (!old_topic || is_traces)
		check_topic(p->topic, place_key(signal, "topic", !old_topic, key), node, errs,
			    path);
	if (kafka_encoding_is_usable(p->encoding, is_traces))
		return;
	if (!old_encoding)
		conf_error_at(errs, node, path, place_key(signal, "encoding", true, key),
			      "write otlp_proto or otlp_json", "encoding %s is of traces only",
			      encodings[p->encoding].name);
	else
		p->encoding = ENCODING_OTLP_PROTO; /* what stands at the top is of traces */
}

const struct kafka_place *kafka_place(const struct kafka_state *st)
{
	const struct kafka_config *conf = st->conf;

	return st->c->signal == OTLP_TRACES ? &conf->traces
	       : st->c->signal == OTLP_LOGS ? &conf->logs
					    : &conf->metrics;
}

static void check_metadata(const struct kafka_config *conf, const struct conf_node *node,
			   struct conf_errors *errs, const char *path)
{
	static const char hint[] = "remove it; the tenant (X-Scope-OrgID) is the header `tenant`";

	if (conf->topic_from_metadata_key[0] != '\0')
		conf_error_at(errs, node, path, "traces.topic_from_metadata_key",
			      "use topic_from_attribute", NO_METADATA);
	if (conf->message_key_from_metadata_key[0] != '\0')
		conf_error_at(errs, node, path, "traces.message_key_from_metadata_key",
			      "use partition_traces_by_id", NO_METADATA);
	for (size_t i = 0; i < conf->include_metadata_keys.n; i++)
		if (strcasecmp(conf->include_metadata_keys.items[i], "x-scope-orgid") != 0)
			conf_error_at(errs, node, path, "include_metadata_keys", hint,
				      "\"%.60s\": " NO_METADATA,
				      conf->include_metadata_keys.items[i]);
}

/* Headers that say something to whoever reads the records, and may stand there once. */
static void check_headers(const struct kafka_config *conf, const struct conf_node *node,
			  struct conf_errors *errs, const char *path)
{
	for (size_t i = 0; i < conf->record_headers.n; i++)
		if (strcmp(conf->record_headers.items[i].name, "tenant") == 0)
			conf_error_at(errs, node, path, "record_headers",
				      "set `tenant` of the receivers here, or of those that read",
				      "header tenant is that of the spans");
}

/* librdkafka would take the next level that there is. */
static void check_compression(const struct kafka_config *conf, const struct conf_node *node,
			      struct conf_errors *errs, const char *path)
{
	static const char key[] = "producer.compression_params.level";
	int64_t level = conf->compression_level;

	if (conf->compression == COMPRESSION_GZIP && level > 9)
		conf_error_at(errs, node, path, key, "write 0 to 9", "gzip has no level %d",
			      (int)level);
	if (conf->compression == COMPRESSION_LZ4 && level > 12)
		conf_error_at(errs, node, path, key, "write 0 to 12", "lz4 has no level %d",
			      (int)level);
	if (conf->compression == COMPRESSION_SNAPPY && level > 0)
		conf_error_at(errs, node, path, key, "remove it", "snappy has no levels");
}

static void check_dead_letter(const struct kafka_config *conf, const struct conf_node *node,
			      struct conf_errors *errs, const char *path)
{
	if (conf->dead_letter_topic[0] == '\0')
		return;
	check_topic(conf->dead_letter_topic, "dead_letter.topic", node, errs, path);
	if (conf->dead_letter_file[0] != '\0')
		conf_error_at(errs, node, path, "dead_letter.file", "remove one of the two",
			      "dead_letter.topic is set too");
	if (strcmp(conf->dead_letter_topic, conf->traces.topic) == 0 ||
	    strcmp(conf->dead_letter_topic, conf->metrics.topic) == 0 ||
	    strcmp(conf->dead_letter_topic, conf->logs.topic) == 0)
		conf_error_at(errs, node, path, "dead_letter.topic", "name another topic",
			      "dead letters would go to the topic that does not take them");
}

void kafka_validate(void *config, const struct conf_node *node, struct conf_errors *errs,
		    const char *path)
{
	struct kafka_config *conf = config;

	kafka_options_check(&conf->client, owned, node, errs, path);
	check_place(conf, &conf->traces, "traces", node, errs, path);
	check_place(conf, &conf->metrics, "metrics", node, errs, path);
	check_place(conf, &conf->logs, "logs", node, errs, path);
	check_metadata(conf, node, errs, path);
	check_headers(conf, node, errs, path);
	check_compression(conf, node, errs, path);
	check_dead_letter(conf, node, errs, path);
	option_blocks_check_queue(&conf->queue, node, "sending_queue", errs, path);
	if (conf->round_robin_on && conf->least_backup_on)
		conf_error_at(errs, node, path, "record_partitioner", "keep one",
			      "round_robin and least_backup are both set");
}
