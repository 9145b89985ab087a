/* SPDX-License-Identifier: Apache-2.0
 *
 * options.c - the kafka receiver's keys: the Collector's, in their newest and older places, and
 * dead_letter. Offsets are committed after delivery and in no other way: keys that ask for that are
 * accepted, those that ask for less are not (INTERFACE "Defaults that differ").
 */
#include "base/clock.h"
#include "pipeline/conf/tree.h"
#include "receivers/kafka/receiver.h"

#include <regex.h>
#include <stdio.h>

enum { QUEUED_KBYTES = 16384 };

/* Of a partition, when so much is queued. librdkafka's default since 2.2.0, a second, is all that a
 * backlog of large records waits for; before, it has no such property. */
static const char queue_backoff[] = "fetch.queue.backoff.ms", queue_backoff_ms[] = "20";

static const struct option_choice inputs[] = {
	{ "otlp_proto", INPUT_OTLP_PROTO },       { "otlp_json", INPUT_OTLP_JSON },
	{ "zipkin_json", INPUT_ZIPKIN_JSON },     { "zipkin_proto", INPUT_ZIPKIN_PROTO },
	{ "zipkin_thrift", INPUT_ZIPKIN_THRIFT }, { "jaeger_proto", INPUT_JAEGER_PROTO },
	{ "jaeger_json", INPUT_JAEGER_JSON },     { NULL, 0 },
};

static const struct option_choice initial_offsets[] = { { "earliest", INITIAL_EARLIEST },
							{ "latest", INITIAL_LATEST },
							{ NULL, 0 } };

static const struct option_choice strategies[] = {
	{ "cooperative-sticky", STRATEGY_COOPERATIVE_STICKY },
	{ "range", STRATEGY_RANGE },
	{ "roundrobin", STRATEGY_ROUNDROBIN },
	{ "sticky", STRATEGY_STICKY },
	{ NULL, 0 },
};

#define C struct kafka_backoff_options
static const struct option backoff_table[] = {
	OPT_BOOL(C, "enabled", enabled, "true",
		 "Read refused records again; there is no way to give them up."),
	OPT_DURATION(C, "initial_interval", initial_ns, "500ms", "First wait."),
	OPT_DURATION(C, "max_interval", max_ns, "10s", "Longest wait."),
	OPT_DOUBLE(C, "multiplier", multiplier, "1.5", 1, 100, "Each wait by the last."),
	OPT_DOUBLE(C, "randomization_factor", randomization, "0.5", 0, 1,
		   "Share by which a wait is made longer or shorter."),
	OPT_DURATION(C, "max_elapsed_time", max_elapsed_ns, "0",
		     "Accepted: records are read again until they are delivered."),
	OPT_END
};
#undef C

#define C struct kafka_receiver_config
const struct option kafka_receiver_option_table[] = {
	OPT_INCLUDE(C, client, struct kafka_client_options, kafka_client_option_table),
	OPT_STR(C, "group_id", group_id, "otel-collector", "Consumer group."),
	OPT_STR(C, "group_instance_id", group_instance_id, NULL,
		"Name of this member, unique in the group: a restart within session_timeout then "
		"moves no partitions."),
	OPT_ENUM(C, "initial_offset", initial_offset, initial_offsets, "earliest",
		 "Where a group begins that has no offsets."),
	OPT_DURATION(C, "session_timeout", session_timeout_ns, "10s",
		     "Silence after which others get this member's partitions."),
	OPT_DURATION(C, "heartbeat_interval", heartbeat_ns, "3s", "Between two heartbeats."),
	OPT_ENUM(C, "group_rebalance_strategy", strategy, strategies, "cooperative-sticky",
		 "How partitions are shared out; all members must agree."),
	OPT_BYTES(C, "min_fetch_size", min_fetch, "1", 1, 1000000000,
		  "A broker waits for so much, or max_fetch_wait."),
	OPT_BYTES(C, "max_fetch_size", max_fetch, "1048576", 0, 1000000000,
		  "Of one answer of a broker; a larger record comes all the same. 0: 50 MiB."),
	OPT_BYTES(C, "max_partition_fetch_size", max_partition_fetch, "1048576", 0, 1000000000,
		  "Of one partition in it. 0: 1 MiB."),
	OPT_DURATION(C, "max_fetch_wait", max_fetch_wait_ns, "250ms",
		     "How long a broker may wait for min_fetch_size."),
	OPT_IGNORED("use_leader_epoch", "librdkafka decides by its version"),
	OPT_STRLIST(C, "traces.topics", topics, "[otlp_spans]",
		    "Topics; one that begins with ^ is a regular expression. New topics and "
		    "partitions are looked for every 30 s, with metadata.full: false only every "
		    "metadata.refresh_interval."),
	OPT_PRESENT(C, "traces.topics", has_topics),
	OPT_ENUM(C, "traces.encoding", encoding, inputs, "otlp_proto", "What a record holds."),
	OPT_PRESENT(C, "traces.encoding", has_encoding),
	OPT_STRLIST(C, "traces.exclude_topics", exclude_topics, "[]",
		    "Regular expressions of topics that are left out."),
	OPT_STR(C, "traces.topic", old_topic, NULL, "Older spelling of traces.topics."),
	OPT_STR(C, "traces.exclude_topic", old_exclude, NULL,
		"Older spelling of traces.exclude_topics."),
	OPT_STR(C, "topic", older_topic, NULL, "Older place of traces.topics."),
	OPT_STR(C, "exclude_topic", older_exclude, NULL, "Older place of traces.exclude_topics."),
	OPT_ENUM(C, "encoding", old_encoding, inputs, NULL, "Older place of traces.encoding."),
	OPT_PRESENT(C, "encoding", has_old_encoding),
	OPT_BOOL(C, "autocommit.enable", autocommit, "true",
		 "Accepted: offsets are committed after delivery either way."),
	OPT_PRESENT(C, "autocommit.enable", has_autocommit),
	OPT_DURATION(C, "autocommit.interval", commit_interval_ns, "1s",
		     "How often offsets of what was delivered are committed."),
	OPT_BOOL(C, "message_marking.after", mark_after, "true",
		 "A record is done with when it was delivered; there is no other way."),
	OPT_PRESENT(C, "message_marking.after", has_mark_after),
	OPT_BOOL(C, "message_marking.on_error", mark_on_error, "false",
		 "Not possible: a refused record would be lost."),
	OPT_BOOL(C, "message_marking.on_permanent_error", mark_on_permanent, "true",
		 "Go on after spans that the next hop refused for good (they are counted)."),
	OPT_PRESENT(C, "message_marking.on_permanent_error", has_mark_on_permanent),
	OPT_BOOL(C, "header_extraction.extract_headers", extract_headers, "false",
		 "Record headers as resource attributes kafka.header.NAME."),
	OPT_STRLIST(C, "header_extraction.headers", headers, "[]", "Which of them."),
	OPT_TABLE(C, "error_backoff", backoff, struct kafka_backoff_options, backoff_table,
		  "When records that were refused are read again."),
	OPT_STR(C, "dead_letter.topic", dead_letter_topic, NULL,
		"Topic for records that cannot be read."),
	OPT_STR(C, "dead_letter.file", dead_letter_file, NULL, "The same as lines of a file."),
	OPT_IGNORED("telemetry.metrics.kafka_receiver_records_delay.enabled",
		    "spanmill_kafka_lag_seconds tells it always"),
	OPT_IGNORED("logs", "only traces are read"),
	OPT_IGNORED("metrics", "only traces are read"),
	OPT_IGNORED("profiles", "only traces are read"),
	OPT_END
};
#undef C

static const struct kafka_owned owned[] = {
	{ "group.id", "write it to `group_id`" },
	{ "group.instance.id", "write it to `group_instance_id`" },
	{ "auto.offset.reset", "write it to `initial_offset`" },
	{ "enable.auto.commit", "offsets are committed after delivery" },
	{ "enable.auto.offset.store", "offsets are committed after delivery" },
	{ "auto.commit.interval.ms", "write it to `autocommit.interval`" },
	{ "partition.assignment.strategy", "write it to `group_rebalance_strategy`" },
	{ "session.timeout.ms", "write it to `session_timeout`" },
	{ "heartbeat.interval.ms", "write it to `heartbeat_interval`" },
	{ "topic.blacklist", "write it to `traces.exclude_topics`" },
	{ "isolation.level", "records of transactions that failed are no spans" },
	{ "queued.max.messages.kbytes", "the memory budget bounds what is fetched ahead" },
	{ NULL, NULL },
};

/* ---- checks ---- */

static void one_item(struct strlist *to, const char *item)
{
	/* The configuration owns texts and list; the default has room for one. */
	if (to->n == 0)
		return;
	to->items[0] = item;
	to->n = 1;
}

/* Older places count when the newest is not there. */
static void take_older(struct kafka_receiver_config *conf)
{
	if (!conf->has_topics && conf->old_topic[0] != '\0')
		one_item(&conf->topics, conf->old_topic);
	else if (!conf->has_topics && conf->older_topic[0] != '\0')
		one_item(&conf->topics, conf->older_topic);
	if (!conf->has_encoding && conf->has_old_encoding)
		conf->encoding = conf->old_encoding;
	if (conf->old_exclude[0] == '\0')
		conf->old_exclude = conf->older_exclude;
}

static bool is_pattern(const char *topic)
{
	return topic[0] == '^';
}

static bool is_topic_name(const char *name)
{
	size_t n = strlen(name);

	return n > 0 && n <= 249 && strcmp(name, ".") != 0 && strcmp(name, "..") != 0 &&
	       name[strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				 "0123456789._-")] == '\0';
}

/* librdkafka reads POSIX extended expressions; the Collector's are Go's. One that means something
 * else would match nothing, and nobody would know why nothing comes. */
static void check_pattern(const char *pattern, const char *key, const struct conf_node *node,
			  struct conf_errors *errs, const char *path)
{
	static const char *const not_posix[] = {
		"\\d", "\\D", "\\A", "\\z", "\\p", "(?", "*?", "+?"
	};
	char why[100];
	regex_t re;
	int rc = regcomp(&re, pattern, REG_EXTENDED | REG_NOSUB);

	if (rc == 0) {
		regfree(&re);
	} else {
		regerror(rc, &re, why, sizeof(why));
		conf_error_at(errs, node, path, key, "write a POSIX extended regular expression",
			      "invalid regular expression \"%.100s\": %s", pattern, why);
	}
	for (size_t i = 0; rc == 0 && i < COUNT_OF(not_posix); i++)
		if (strstr(pattern, not_posix[i]) != NULL)
			conf_error_at(errs, node, path, key,
				      "write a POSIX extended regular expression, for example "
				      "[0-9] for \\d",
				      "\"%s\" of \"%.100s\" means something else here",
				      not_posix[i], pattern);
}

static void check_excluded(const char *pattern, const struct conf_node *node,
			   struct conf_errors *errs, const char *path)
{
	check_pattern(pattern, "traces.exclude_topics", node, errs, path);
	if (strchr(pattern, ',') != NULL)
		conf_error_at(errs, node, path, "traces.exclude_topics",
			      "write several expressions, or one without a comma",
			      "librdkafka would read \"%.100s\" as two", pattern);
}

static void check_topics(const struct kafka_receiver_config *conf, const struct conf_node *node,
			 struct conf_errors *errs, const char *path)
{
	bool any_pattern = false;

	if (conf->topics.n == 0)
		conf_error_at(errs, node, path, "traces.topics", "add `topics: [otlp_spans]`",
			      "requires at least one topic");
	for (size_t i = 0; i < conf->topics.n; i++) {
		const char *t = conf->topics.items[i];

		any_pattern |= is_pattern(t);
		if (is_pattern(t))
			check_pattern(t, "traces.topics", node, errs, path);
		else if (!is_topic_name(t))
			conf_error_at(errs, node, path, "traces.topics",
				      "letters, digits, '.', '_' and '-', at most 249 of them, or "
				      "a regular expression that begins with ^",
				      "invalid topic name \"%.100s\"", t);
	}
	if ((conf->exclude_topics.n > 0 || conf->old_exclude[0] != '\0') && !any_pattern)
		conf_error_at(errs, node, path, "traces.exclude_topics",
			      "begin a topic with ^, or remove it",
			      "leaves nothing out: no topic is a regular expression");
	for (size_t i = 0; i < conf->exclude_topics.n; i++)
		check_excluded(conf->exclude_topics.items[i], node, errs, path);
	if (conf->old_exclude[0] != '\0')
		check_excluded(conf->old_exclude, node, errs, path);
}

static void warn(const struct conf_node *node, struct conf_errors *errs, const char *path,
		 const char *key, const char *what)
{
	char at[300];

	snprintf(at, sizeof(at), "%s.%s", path, key);
	conf_error_warn(errs, conf_tree_pos(node, key), at,
			"remove it: records are done with when they were delivered", "%s", what);
}

static void check_promises(const struct kafka_receiver_config *conf, const struct conf_node *node,
			   struct conf_errors *errs, const char *path)
{
	if (conf->has_mark_after && !conf->mark_after)
		warn(node, errs, path, "message_marking.after",
		     "false would lose records in a crash, and is not followed");
	if (conf->has_autocommit && !conf->autocommit)
		warn(node, errs, path, "autocommit.enable",
		     "false is not followed: offsets are committed after delivery");
	if (conf->mark_on_error)
		conf_error_at(errs, node, path, "message_marking.on_error",
			      "remove it: records are done with when they were delivered",
			      "would lose the records that were refused");
	if (!conf->backoff.enabled)
		warn(node, errs, path, "error_backoff.enabled",
		     "false would stop a partition at the first refusal, and is not followed");
}

static void check_dead_letter(const struct kafka_receiver_config *conf,
			      const struct conf_node *node, struct conf_errors *errs,
			      const char *path)
{
	const char *topic = conf->dead_letter_topic;

	if (topic[0] == '\0')
		return;
	if (!is_topic_name(topic))
		conf_error_at(errs, node, path, "dead_letter.topic",
			      "letters, digits, '.', '_' and '-', at most 249 of them",
			      "invalid topic name \"%.100s\"", topic);
	if (conf->dead_letter_file[0] != '\0')
		conf_error_at(errs, node, path, "dead_letter.file", "remove one of the two",
			      "dead_letter.topic is set too");
	for (size_t i = 0; i < conf->topics.n; i++)
		if (strcmp(topic, conf->topics.items[i]) == 0)
			conf_error_at(errs, node, path, "dead_letter.topic", "name another topic",
				      "dead letters would be read again");
}

void kafka_receiver_validate(void *config, const struct conf_node *node, struct conf_errors *errs,
			     const char *path)
{
	struct kafka_receiver_config *conf = config;

	take_older(conf);
	kafka_options_check(&conf->client, owned, node, errs, path);
	check_topics(conf, node, errs, path);
	if (conf->strategy == STRATEGY_STICKY)
		conf_error_at(errs, node, path, "group_rebalance_strategy",
			      "write cooperative-sticky", "librdkafka has no eager sticky");
	if (conf->heartbeat_ns >= conf->session_timeout_ns)
		conf_error_at(errs, node, path, "heartbeat_interval",
			      "a third of session_timeout is usual",
			      "must be shorter than session_timeout");
	if (conf->group_id[0] == '\0')
		conf_error_at(errs, node, path, "group_id", "name the consumer group",
			      "must not be empty");
	check_promises(conf, node, errs, path);
	check_dead_letter(conf, node, errs, path);
}

/* ---- properties ---- */

static void add_ms(struct kafka_properties *p, const char *name, int64_t ns)
{
	kafka_properties_add(p, name, "%lld", (long long)MAX(ns / (int64_t)NS_PER_MS, INT64_C(1)));
}

static void add_excluded(const struct kafka_receiver_config *conf, struct kafka_properties *p)
{
	struct buf all = BUF_INIT;

	for (size_t i = 0; i < conf->exclude_topics.n; i++)
		buf_printf(&all, "%s%s", i ? "," : "", conf->exclude_topics.items[i]);
	if (conf->old_exclude[0] != '\0')
		buf_printf(&all, "%s%s", all.n ? "," : "", conf->old_exclude);
	if (all.n > 0)
		kafka_properties_add(p, "topic.blacklist", "%s", buf_cstr(&all));
	buf_fini(&all);
}

static void add_fetching(const struct kafka_receiver_config *conf, struct kafka_properties *p)
{
	uint64_t max_fetch = conf->max_fetch ? conf->max_fetch : 50 * MIB;
	uint64_t of_partition =
		conf->max_partition_fetch ? conf->max_partition_fetch : (uint64_t)MIB;

	/* librdkafka wants room for a whole record in an answer, and more for its frame. */
	max_fetch = MAX(max_fetch, (uint64_t)1000000);
	kafka_properties_add(p, "fetch.min.bytes", "%llu", (unsigned long long)conf->min_fetch);
	kafka_properties_add(p, "fetch.max.bytes", "%llu", (unsigned long long)max_fetch);
	kafka_properties_add(p, "fetch.message.max.bytes", "%llu",
			     (unsigned long long)of_partition);
	kafka_properties_add(p, "receive.message.max.bytes", "%llu",
			     (unsigned long long)MAX(max_fetch + MIB, (uint64_t)100000000));
	add_ms(p, "fetch.wait.max.ms", conf->max_fetch_wait_ns);
	kafka_properties_add(p, "queued.max.messages.kbytes", "%d", QUEUED_KBYTES);
	if (kafka_client_check_property(queue_backoff, queue_backoff_ms, NULL) == 0)
		kafka_properties_add(p, queue_backoff, "%s", queue_backoff_ms);
}

void kafka_receiver_properties(const struct kafka_receiver_config *conf,
			       struct kafka_properties *consumer, struct kafka_properties *producer)
{
	static const char *const names[] = { "cooperative-sticky", "range", "roundrobin" };

	kafka_options_properties(&conf->client, consumer);
	kafka_properties_add(consumer, "group.id", "%s", conf->group_id);
	if (conf->group_instance_id[0] != '\0')
		kafka_properties_add(consumer, "group.instance.id", "%s", conf->group_instance_id);
	kafka_properties_add(consumer, "auto.offset.reset", "%s",
			     conf->initial_offset == INITIAL_LATEST ? "latest" : "earliest");
	kafka_properties_add(consumer, "enable.auto.commit", "true");
	kafka_properties_add(consumer, "enable.auto.offset.store", "false");
	kafka_properties_add(consumer, "enable.partition.eof", "true");
	kafka_properties_add(consumer, "partition.assignment.strategy", "%s",
			     names[conf->strategy]);
	add_ms(consumer, "auto.commit.interval.ms", conf->commit_interval_ns);
	add_ms(consumer, "session.timeout.ms", conf->session_timeout_ns);
	add_ms(consumer, "heartbeat.interval.ms", conf->heartbeat_ns);
	add_ms(consumer, "max.poll.interval.ms",
	       MAX(conf->session_timeout_ns, INT64_C(300) * (int64_t)NS_PER_S));
	add_excluded(conf, consumer);
	add_fetching(conf, consumer);
	kafka_options_raw(&conf->client, consumer);
	kafka_options_properties(&conf->client, producer);
	kafka_properties_add(producer, "acks", "all");
	kafka_properties_add(producer, "linger.ms", "0");
	kafka_properties_add(producer, "message.max.bytes", "1000000000");
}
