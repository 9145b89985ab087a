/* SPDX-License-Identifier: Apache-2.0
 *
 * kafka.c - exporter that writes traces to a Kafka topic, each trace to one partition; logs and
 * metrics to topics of their own, request by request to the partitions in turn.
 *
 * DESIGN: consume -> sending queue (memory or disk) -> here, once there is room in the window and
 * the topic's partitions are known -> gather (records by partition, over requests) -> delivery. The
 * request is closed when its spans are taken; gather, and then the records, carry the duty to
 * settle them (docs/decisions/010).
 * OWNERSHIP, THREADS: everything belongs to one of the service's loops, chosen in turn; librdkafka
 * has threads of its own, which see only the records' bytes.
 * LIMITS: sending_queue; a window of bytes that are taken and not delivered; producer.
 * max_message_bytes and the topic's own limit.
 * SPEC: the Collector's kafka exporter keys; docs/formats/kafka-record.md.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "exporters/kafka/exporter.h"
#include "pipeline/telemetry.h"
#include "wire/otlp_index.h"
#include "wire/pb.h"

#include <stdio.h>
#include <unistd.h>

/* The window when nothing comes back: enough to notice when it does. */
#define WINDOW_FAILING MIB
#define WINDOW_MIN (4 * MIB)
#define WINDOW_RECORDS 8 /* of each partition */
/* Behind a disk queue nobody waits for an answer: records may fill. */
#define LINGER_BEHIND_DISK_NS ((int64_t)NS_PER_S)

/* ---- the producer ---- */

static void add_delivery(const struct kafka_config *conf, bool has_storage,
			 struct kafka_properties *p)
{
	/* Rounded up: 0 is none at all. */
	int64_t timeout_ms = (conf->timeout_ns + (int64_t)NS_PER_MS - 1) / (int64_t)NS_PER_MS;
	/* With a record per trace some go together; librdkafka wants it below the timeout. */
	int64_t linger_ms = conf->partition_traces_by_id ? 5 : 0;

	kafka_properties_add(p, "acks", "%d", conf->required_acks);
	kafka_properties_add(p, "enable.idempotence", "%s",
			     conf->required_acks == -1 ? "true" : "false");
	/* What the disk queue has may wait for ever; a client has gone by then. */
	kafka_properties_add(p, "message.timeout.ms", "%lld",
			     has_storage ? 0LL : (long long)MIN(timeout_ms, (int64_t)INT32_MAX));
	kafka_properties_add(p, "request.timeout.ms", "%lld",
			     (long long)MAX(MIN(timeout_ms, INT64_C(900000)), INT64_C(1000)));
	/* A broker that hangs holds up its partitions for so long. */
	kafka_properties_add(p, "socket.timeout.ms", "10000");
	kafka_properties_add(
		p, "linger.ms", "%lld",
		(long long)(timeout_ms > 0 ? MIN(linger_ms, timeout_ms / 2) : linger_ms));
	kafka_properties_add(p, "batch.num.messages", "%llu",
			     conf->flush_max_messages ? (unsigned long long)conf->flush_max_messages
						      : 10000ULL);
	/* librdkafka takes a later batch's success for that of an earlier one which a broker had
	 * refused; see docs/decisions/011. A broker answers a connection's requests one by one
	 * anyway. */
	kafka_properties_add(p, "max.in.flight.requests.per.connection", "1");
	/* The window bounds it. */
	kafka_properties_add(p, "queue.buffering.max.messages", "10000000");
	kafka_properties_add(p, "queue.buffering.max.kbytes", "2147483647");
	kafka_properties_add(p, "message.max.bytes", "1000000000");
	/* Values below 64 KiB would be copied for each request, into pages that are new each time,
	 * before lz4 copies them once more. */
	kafka_properties_add(p, "message.copy.max.bytes", "0");
	kafka_properties_add(p, "allow.auto.create.topics", "%s",
			     conf->allow_auto_topic_creation ? "true" : "false");
}

static void add_compression(const struct kafka_config *conf, struct kafka_properties *p)
{
	for (const struct option_choice *c = kafka_compressions; c->name != NULL; c++)
		if (c->value == conf->compression)
			kafka_properties_add(p, "compression.codec", "%s", c->name);
	if (conf->compression_level >= 0)
		kafka_properties_add(p, "compression.level", "%lld",
				     (long long)MIN(conf->compression_level, INT64_C(12)));
}

static struct kafka_producer *make_producer(struct kafka_state *st, struct err *err)
{
	struct kafka_properties *p = &st->properties;

	kafka_properties_add(p, "batch.size", "%llu", (unsigned long long)st->batch_bytes);
	return kafka_producer_new(
		&(struct kafka_producer_settings){
			.client = { .id = st->c->id,
				    .properties = p->v,
				    .n_properties = p->n,
				    .token_file = st->conf->client.sasl.token_file[0]
							  ? st->conf->client.sasl.token_file
							  : NULL },
			.loop = st->loop,
			.arg = st,
			.delivered = delivery_delivered,
			.troubled = delivery_troubled },
		err);
}

static struct kafka_producer *producer_to_ask(void *arg)
{
	struct kafka_state *st = arg;

	return st->wants_producer || st->is_stopping ? NULL : st->producer;
}

void kafka_replace_producer(struct kafka_state *st, uint64_t batch_bytes)
{
	st->batch_bytes = MIN(st->batch_bytes, batch_bytes);
	st->wants_producer = true;
}

/* The old one has delivered everything, or, when it can deliver nothing any more, gives it back to
 * be sent again: then it is not known what arrived, but the alternative is to deliver nothing. */
static void replace_producer(void *arg)
{
	struct kafka_state *st = arg;
	struct err err = ERR_INIT;
	struct kafka_producer *made;

	st->is_posted = false;
	if (!st->wants_producer || st->is_stopping || topics_is_asking(&st->topics))
		return;
	made = make_producer(st, &err);
	if (made == NULL) {
		component_fail(st->c, &err);
		return;
	}
	kafka_producer_free(st->producer);
	st->producer = made;
	st->wants_producer = st->is_fatal = false;
	log_info("new producer", "exporter", st->c->id, "batch_bytes", LOG_NUM(st->batch_bytes));
	delivery_send_waiting(st);
	kafka_resume(st);
}

/* Not from within its own callbacks. */
static void post_replacement(struct kafka_state *st)
{
	if (!st->wants_producer || st->is_posted || st->is_stopping ||
	    (!st->is_fatal && kafka_producer_pending(st->producer) > 0))
		return;
	st->is_posted = true;
	loop_post(st->loop, &st->replace_task);
}

/* ---- topics of a batch ---- */

/* The attribute of a resource that names its topic; "" when there is none. */
static struct bytes topic_attribute(const struct kafka_state *st, const struct batch *b,
				    uint32_t resource)
{
	const struct resource_ref *r = &b->tables.resources[resource];
	struct bytes key = bytes_str(st->conf->topic_from_attribute), value;
	struct pb_field f;

	for (uint32_t i = 0; i < r->n_head; i++)
		for (struct bytes rest = b->tables.heads[r->head + i]; pb_next(&rest, &f) > 0;)
			if (f.number == 1 && f.wire == PB_LEN &&
			    otlp_attribute(f.data, 1, key, &value))
				while (pb_next(&value, &f) > 0)
					if (f.number == 1 && f.wire == PB_LEN)
						return f.data;
	return BYTES_EMPTY;
}

/* The topic that a resource's spans go to; NULL while that is being asked. */
static struct topic *topic_of(struct kafka_state *st, const struct batch *b, uint32_t resource)
{
	struct bytes named = topic_attribute(st, b, resource);
	struct topic *t = NULL;
	char name[250];

	if (named.n == 0)
		return st->topic;
	snprintf(name, sizeof(name), "%.*s", (int)MIN(named.n, sizeof(name) - 1),
		 (const char *)named.p);
	if (named.n < sizeof(name) && strlen(name) == named.n && kafka_is_topic_name(name)) {
		t = topics_find(&st->topics, name);
		if (t != NULL && t->n_partitions > 0)
			return t;
		if (t != NULL && t->state == TOPIC_UNKNOWN)
			return NULL;
	}
	log_warn("spans go to the configured topic: there is none as their attribute says",
		 "exporter", st->c->id, "topic", name);
	return st->topic;
}

/* Everything that is needed to send this batch is known. */
static bool is_sendable(struct kafka_state *st, const struct batch *b)
{
	bool known = st->topic->n_partitions > 0;

	if (st->conf->topic_from_attribute[0] == '\0')
		return known;
	for (uint32_t i = 0; i < b->tables.n_resources; i++)
		known &= topic_of(st, b, i) != NULL;
	return known;
}

/* The spans of b that go to one topic: pick[]. Marks their resources as done. */
static uint32_t pick_topic(const struct batch *b, struct topic **topics, const struct topic *t,
			   uint32_t *pick)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < b->tables.n_spans; i++)
		if (topics[b->tables.scopes[b->tables.spans[i].scope].resource] == t)
			pick[n++] = i;
	for (uint32_t i = 0; i < b->tables.n_resources; i++)
		if (topics[i] == t)
			topics[i] = NULL;
	return n;
}

static void add_by_attribute(struct kafka_state *st, struct batch *b)
{
	struct topic **topics = xcalloc(b->tables.n_resources, sizeof(*topics));
	uint32_t *pick = xcalloc(b->tables.n_spans, sizeof(*pick)), n;
	bool extras = true;

	for (uint32_t i = 0; i < b->tables.n_resources; i++)
		topics[i] = topic_of(st, b, i);
	for (uint32_t i = 0; i < b->tables.n_resources; i++) {
		struct topic *t = topics[i];

		n = t != NULL ? pick_topic(b, topics, t, pick) : 0;
		if (n == 0)
			continue;
		gather_add(&st->gather, gather_route(&st->gather, t, b->tenant), b, pick, n,
			   extras);
		extras = false;
	}
	free(pick);
	free(topics);
}

static void add_batch(struct kafka_state *st, struct batch *b)
{
	if (st->conf->topic_from_attribute[0] != '\0')
		add_by_attribute(st, b);
	else
		gather_add(&st->gather, gather_route(&st->gather, st->topic, b->tenant), b, NULL,
			   b->tables.n_spans, true);
}

/* A span alone is over the limit; called by gather. Somebody may have raised that of the topic. */
static void too_large(void *arg, struct route *route, struct batch *b, uint32_t i, size_t size)
{
	struct kafka_state *st = arg;

	if (size + route->overhead > st->conf->max_message_bytes ||
	    !delivery_park_above(st, route, b, i))
		dead_letter_put(st, route, b, i, size, gather_limit(&st->gather, route));
}

/* ---- requests ---- */

/* Bytes that may be taken and not delivered. A request to a broker has the records of one
 * partition, and costs much the same whatever is in it: under load it should find several there. */
static size_t window(const struct kafka_state *st)
{
	uint64_t wish = WINDOW_RECORDS * (uint64_t)RECORD_TARGET_BYTES * st->topic->n_partitions;
	int64_t quarter = atomic_load(&component_budget(st->c)->limit) / 4;

	if (atomic_load(&st->is_failing))
		return WINDOW_FAILING;
	return (size_t)MAX(MIN(wish, (uint64_t)MAX(quarter, 0)), WINDOW_MIN);
}

static bool has_room(struct kafka_state *st)
{
	size_t full = window(st);

	st->gather.hold_max = full / 4;
	if (st->pool.n_bytes + st->gather.n_pinned < full)
		return true;
	/* Room comes when the brokers answer. Only when most of it is held there is nothing to wait
	 * for: to send what is held each time would make small records of much load. */
	if (st->pool.n_bytes > full / 2)
		return false;
	gather_flush(&st->gather);
	delivery_pump(st);
	return st->pool.n_bytes < full;
}

void kafka_note(struct kafka_state *st)
{
	atomic_store(&st->window_bytes, st->pool.n_bytes + st->gather.n_pinned);
	atomic_store(&st->is_busy, st->pool.n_records > 0 || st->gather.oldest != NULL ||
					   st->dead_letter.is_writing);
}

void kafka_resume(struct kafka_state *st)
{
	struct send_request *r = st->held;

	post_replacement(st);
	if (r != NULL && !st->is_stopping && !st->wants_producer && is_sendable(st, r->batch) &&
	    has_room(st)) {
		st->held = NULL;
		add_batch(st, r->batch);
		delivery_pump(st);
		sending_queue_done(r, SEND_TAKEN, 0, NULL);
	}
	kafka_note(st);
}

static void ready(void *arg)
{
	delivery_pump(arg);
	kafka_resume(arg);
}

static void kafka_send(struct component *c, struct send_request *r)
{
	struct kafka_state *st = COMPONENT_STATE(c, struct kafka_state);
	struct err err = ERR_INIT;

	if (st->is_stopping || (st->has_storage && atomic_load(&st->is_draining) &&
				(atomic_load(&st->is_failing) || !is_sendable(st, r->batch)))) {
		err_set(&err, ERR_UNAVAILABLE, "stopping, and the brokers do not answer");
		sending_queue_done(r, SEND_RETRYABLE, 0, &err);
		return;
	}
	st->held = r;
	kafka_resume(st);
}

static void kafka_cancel(struct component *c, struct send_request *r)
{
	struct kafka_state *st = COMPONENT_STATE(c, struct kafka_state);
	struct err err = ERR_INIT;

	assert(st->held == r);
	st->held = NULL;
	err_set(&err, ERR_UNAVAILABLE, "kafka: the brokers take no more now");
	sending_queue_done(r, SEND_RETRYABLE, 0, &err);
}

static void kafka_consume(struct component *c, struct batch *b)
{
	sending_queue_consume(COMPONENT_STATE(c, struct kafka_state)->queue, b);
}

/* ---- life ---- */

/* Bytes of the configured headers, as gather counts them. */
static size_t header_bytes(const struct kafka_state *st)
{
	size_t n = 0;

	for (size_t i = 0; i < st->n_headers; i++)
		n += 10 + strlen(st->headers[i].name) + st->headers[i].value.n;
	return n + (st->tenant_header ? 10 + strlen(st->tenant_header) + TENANT_MAX : 0);
}

static void make_headers(struct kafka_state *st)
{
	const struct strmap *map = &st->conf->record_headers;

	st->headers = xcalloc(map->n + HEADERS_ROOM, sizeof(*st->headers));
	for (size_t i = 0; i < map->n; i++)
		st->headers[st->n_headers++] =
			(struct kafka_header){ map->items[i].name, bytes_str(map->items[i].value) };
	if (st->conf->include_metadata_keys.n > 0)
		st->tenant_header = st->conf->include_metadata_keys.items[0];
}

static bool is_by_trace(const struct kafka_state *st)
{
	return st->c->signal == OTLP_TRACES &&
	       (st->conf->partition_traces_by_id ||
		kafka_encoding_is_of_one_span(kafka_place(st)->encoding));
}

/* Items of logs and metrics are not looked into, so that they have no trace id to go by. */
static enum spread spread_of(const struct kafka_state *st)
{
	if (st->conf->least_backup_on)
		return SPREAD_LEAST_BACKUP;
	return st->conf->round_robin_on || st->c->signal != OTLP_TRACES ? SPREAD_ROUND_ROBIN
									: SPREAD_BY_TRACE;
}

static void init_gather(struct kafka_state *st)
{
	const struct kafka_config *conf = st->conf;
	int64_t linger =
		st->has_storage && !conf->has_linger ? LINGER_BEHIND_DISK_NS : conf->linger_ns;

	gather_init(&st->gather, &(struct gather_settings){ .loop = st->loop,
							    .pool = &st->pool,
							    .hasher = (enum hasher)conf->hasher,
							    .spread = spread_of(st),
							    .by_trace = is_by_trace(st),
							    .max_bytes = conf->max_message_bytes,
							    .header_bytes = header_bytes(st),
							    .linger_ns = (uint64_t)linger,
							    .arg = st,
							    .ready = ready,
							    .too_large = too_large });
}

static void init_topics(struct kafka_state *st)
{
	const struct kafka_client_options *client = &st->conf->client;

	topics_init(&st->topics, &(struct topics_settings){
					 .loop = st->loop,
					 .id = st->c->id,
					 .brokers = st->brokers,
					 .refresh_ns = (uint64_t)MAX(client->metadata_refresh_ns,
								     (int64_t)NS_PER_S),
					 .retry_ns = (uint64_t)MAX(client->metadata_backoff_ns,
								   (int64_t)(10 * NS_PER_MS)),
					 .acks_all = st->conf->required_acks == -1,
					 .arg = st,
					 .producer = producer_to_ask,
					 .answered = delivery_topic_answered });
}

static void start_on_loop(void *arg)
{
	struct kafka_state *st = arg;

	st->producer = make_producer(st, &st->err);
	if (st->producer == NULL)
		return;
	st->topic = topics_find(&st->topics, kafka_place(st)->topic);
	/* So that a missing one is known before it is needed. */
	if (st->conf->dead_letter_topic[0] != '\0')
		topics_find(&st->topics, st->conf->dead_letter_topic);
}

static void init(struct kafka_state *st, struct component *c)
{
	static _Atomic unsigned turn;
	struct buf brokers = BUF_INIT;

	st->c = c;
	st->conf = COMPONENT_CONFIG(c, struct kafka_config);
	st->loop = component_loop(c, atomic_fetch_add(&turn, 1) % component_n_loops(c));
	st->has_storage = st->conf->queue.enabled && st->conf->queue.storage[0] != '\0';
	st->pool.budget = component_budget(c);
	st->pool.signal = c->signal;
	st->batch_bytes = MIN(st->conf->max_message_bytes, (uint64_t)BATCH_BYTES_MAX);
	st->retry_timer = (struct loop_timer){ .fn = delivery_retry_due, .arg = st };
	st->replace_task = (struct loop_task){ .fn = replace_producer, .arg = st };
	rng_seed(&st->rng, clock_mono_ns() ^ (uint64_t)(uintptr_t)st);
	for (size_t i = 0; i < st->conf->client.brokers.n; i++)
		buf_printf(&brokers, "%s%s", i ? "," : "", st->conf->client.brokers.items[i]);
	st->brokers = xstrdup(buf_cstr(&brokers));
	buf_fini(&brokers);
	make_headers(st);
	init_gather(st);
	init_topics(st);
	kafka_options_properties(&st->conf->client, &st->properties);
	add_delivery(st->conf, st->has_storage, &st->properties);
	add_compression(st->conf, &st->properties);
	kafka_options_raw(&st->conf->client, &st->properties);
}

static int kafka_start(struct component *c, struct err *err)
{
	struct kafka_state *st = COMPONENT_STATE(c, struct kafka_state);

	init(st, c);
	if (st->conf->required_acks != -1)
		log_warn("acknowledged records can be lost: producer.required_acks is not all",
			 "exporter", c->id);
	loop_call(st->loop, start_on_loop, st);
	if (st->producer == NULL) {
		if (err != NULL)
			*err = st->err;
		return -1;
	}
	st->queue = sending_queue_new(&(struct sending_queue_settings){ .component = c,
									.loop = st->loop,
									.queue = &st->conf->queue,
									.retry = &st->conf->retry,
									.takes_spans = true,
									.send = kafka_send,
									.cancel = kafka_cancel },
				      err);
	return st->queue != NULL ? 0 : -1;
}

static void drain_on_loop(void *arg)
{
	struct kafka_state *st = arg;

	st->gather.o.linger_ns = 0;
	gather_flush(&st->gather);
	delivery_pump(st);
	/* What does not get through now stays in the log. */
	if (st->has_storage && st->held != NULL &&
	    (atomic_load(&st->is_failing) || !is_sendable(st, st->held->batch)))
		kafka_cancel(st->c, st->held);
}

static void kafka_drain(struct component *c)
{
	struct kafka_state *st = COMPONENT_STATE(c, struct kafka_state);

	if (st->queue == NULL)
		return;
	atomic_store(&st->is_draining, true);
	sending_queue_drain(st->queue);
	loop_call(st->loop, drain_on_loop, st);
}

static int kafka_is_drained(struct component *c)
{
	struct kafka_state *st = COMPONENT_STATE(c, struct kafka_state);

	if (st->queue == NULL)
		return 1;
	if (st->has_storage && atomic_load(&st->is_failing)) {
		loop_call(st->loop, drain_on_loop, st);
		return 1;
	}
	return sending_queue_is_drained(st->queue) && !atomic_load(&st->is_busy);
}

/* Nothing is taken any more; what is there is given back. The queue still stands: its log hears of
 * it. */
static void abort_on_loop(void *arg)
{
	struct kafka_state *st = arg;

	st->is_stopping = true;
	topics_stop(&st->topics);
	delivery_abort(st);
	dead_letter_abort(st);
	if (st->held != NULL)
		kafka_cancel(st->c, st->held);
	kafka_note(st);
}

static void free_producer(void *arg)
{
	struct kafka_state *st = arg;

	kafka_producer_free(st->producer);
	st->producer = NULL;
	kafka_note(st);
}

static void free_on_loop(void *arg)
{
	struct kafka_state *st = arg;

	gather_fini(&st->gather);
	topics_fini(&st->topics);
	record_pool_fini(&st->pool);
}

static void kafka_shutdown(struct component *c)
{
	struct kafka_state *st = COMPONENT_STATE(c, struct kafka_state);

	if (st->c == NULL)
		return;
	loop_call(st->loop, abort_on_loop, st);
	/* Neither can be cancelled; both end by themselves. */
	while (topics_is_asking(&st->topics) || atomic_load(&st->dead_letter.is_writing))
		usleep(1000);
	loop_call(st->loop, free_producer, st);
	sending_queue_free(st->queue);
	loop_call(st->loop, free_on_loop, st);
	kafka_properties_fini(&st->properties);
	free(st->headers);
	free(st->brokers);
	*st = (struct kafka_state){ 0 };
}

static void kafka_metrics(struct component *c, struct buf *out)
{
	struct kafka_state *st = COMPONENT_STATE(c, struct kafka_state);
	const struct {
		const char *name, *kind, *help;
		_Atomic uint64_t *value;
	} rows[] = {
		{ "spanmill_dead_letter_records", "counter",
		  "Records written to a dead letter topic or file.", &st->n_dead_letters },
		{ "spanmill_kafka_produced_records", "counter",
		  "Records the brokers acknowledged, dead letters apart.", &st->n_records },
		{ "spanmill_kafka_produced_bytes", "counter", "Their values, before compression.",
		  &st->n_record_bytes },
		{ "spanmill_kafka_retries", "counter", "Records that failed and were sent again.",
		  &st->n_retries },
		{ "spanmill_kafka_window_bytes", "gauge",
		  "Bytes taken and not delivered yet: what is held, and records under way.",
		  &st->window_bytes },
	};

	for (size_t i = 0; i < COUNT_OF(rows); i++) {
		telemetry_head(out, rows[i].name, rows[i].kind, rows[i].help);
		telemetry_sample(out, rows[i].name, (double)atomic_load(rows[i].value), "exporter",
				 c->id, NULL);
	}
}

/* Two may produce at a time; two may not have one log, nor write one file. */
static bool may_overlap(const void *config)
{
	const struct kafka_config *conf = config;

	return conf->queue.storage[0] == '\0' && conf->dead_letter_file[0] == '\0';
}

const struct component_type exporter_kafka = {
	.name = "kafka",
	.kind = KIND_EXPORTER,
	.summary = "Writes traces to a Kafka topic, each trace to one partition, and metrics and "
		   "logs to theirs; acknowledges when all in-sync replicas have them.",
	.stability = STABILITY_ALPHA,
	.signals = SIGNAL_ALL,
	.config_size = sizeof(struct kafka_config),
	.state_size = sizeof(struct kafka_state),
	.options = kafka_option_table,
	.validate = kafka_validate,
	.may_overlap = may_overlap,
	.start = kafka_start,
	.consume = kafka_consume,
	.drain = kafka_drain,
	.is_drained = kafka_is_drained,
	.shutdown = kafka_shutdown,
	.metrics = kafka_metrics,
};
