/* SPDX-License-Identifier: Apache-2.0
 *
 * kafka.c - receiver of trace records of Kafka topics; an offset is committed when everything below
 * was delivered.
 *
 *   consumer thread: poll -> partition.c -> pipeline
 *        assigned -> source_open (exporters that keep sections attach)     revoked -> source_close
 *
 * DESIGN: one thread polls, decodes and emits; consume never blocks, so it is back at polling soon
 * enough for the group. What came is sent down in runs (partition.c); each partition waits for
 * itself only.
 * LIMITS: librdkafka's fetched records are reserved in the memory budget; runs are charged before
 * they are copied, and a partition is paused while that is refused.
 * SPEC: DESIGN section 5; the Collector's kafka receiver keys; docs/formats/kafka-record.md.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "pipeline/option/blocks.h"
#include "receivers/kafka/receiver.h"

#include <stdio.h>
#include <unistd.h>

enum {
	POLL_MS = 20,
	QUIET_POLL_MS = 100, /* when only a record or a rebalance could make work */
	LOOK_AFTER_MS = 20,
	AT_A_TIME = 2000, /* records between two looks at the clock */
	ASK_MS = 5000,
	LOOK_FOR_MS = 2000,
	LOOK_FOR_EVERY_S = 5,
	LOOK_ANYHOW_EVERY_S = 30,
	ANEW_MIN_MS = 1000, /* before the next consumer */
	ANEW_MAX_MS = 60000,
	ANEW_FORGET_S = 300,
	RESERVED = 16 << 20, /* queued.max.messages.kbytes */
	HAND_OVER_MS = 2000, /* from our part of a rebalance to everybody else's */
};

/* ---- what the consumer tells ---- */

static struct partition *find_partition(struct kafka_receiver_state *st,
					const struct kafka_partition *at)
{
	struct partition *p = st->partitions;

	while (p != NULL && (p->at.partition != at->partition || strcmp(p->topic, at->topic) != 0))
		p = p->next;
	return p;
}

/* Both owners of a partition must name it alike, so there is no going on without the cluster.
 * False: it is not known, and we end. */
static bool learn_cluster(struct kafka_receiver_state *st)
{
	char id[200] = "";

	while (st->cluster[0] == '\0' && !st->stopping && !st->draining) {
		kafka_consumer_cluster_id(st->consumer, ASK_MS, id, sizeof(id));
		if (id[0] != '\0')
			source_segment(id, st->cluster);
		else
			log_warn("the brokers do not tell the cluster's id, asking again",
				 "receiver", st->c->id);
	}
	return st->cluster[0] != '\0';
}

/* Of each topic it is asked once, and of none any more when a broker does not answer: that takes
 * seconds, while the group waits for us. */
static void open_all(struct kafka_receiver_state *st, const struct kafka_partition *v, size_t n)
{
	const char *topic = NULL;
	bool answers = true;
	uint32_t count = 0;

	for (size_t i = 0; i < n; i++) {
		if (find_partition(st, &v[i]) != NULL)
			continue;
		if (topic == NULL || strcmp(topic, v[i].topic) != 0)
			count = answers ? kafka_consumer_n_partitions(st->consumer, v[i].topic,
								      ASK_MS)
					: 0;
		answers &= count > 0;
		topic = v[i].topic;
		partition_open(st, &v[i], count);
	}
}

/* A partition that nobody has is spoken for by who gave it up, until all have been told who has it:
 * then its new owner says that it is not read yet. */
static void be_unsure(struct kafka_receiver_state *st)
{
	component_source_expect(st->c, true);
	st->sure_ns = 0;
	st->is_unsure = true;
}

static void be_sure(struct kafka_receiver_state *st)
{
	if (st->is_unsure)
		component_source_expect(st->c, false);
	st->is_unsure = st->was_revoked = false;
	st->sure_ns = 0;
}

static void note_assigned(struct kafka_receiver_state *st, bool on)
{
	pthread_mutex_lock(&st->lock);
	st->was_assigned = on;
	pthread_mutex_unlock(&st->lock);
}

static void assigned(void *arg, const struct kafka_partition *v, size_t n)
{
	struct kafka_receiver_state *st = arg;

	st->rebalances++;
	if (!learn_cluster(st))
		return;
	open_all(st, v, n);
	if (!st->was_revoked)
		be_sure(st);
	else
		st->sure_ns = clock_mono_ns() + HAND_OVER_MS * NS_PER_MS;
	st->joined_ns = clock_mono_ns();
	note_assigned(st, true);
}

static void revoked(void *arg, const struct kafka_partition *v, size_t n, bool is_lost)
{
	struct kafka_receiver_state *st = arg;

	st->rebalances++;
	be_unsure(st);
	st->was_revoked = true;
	for (size_t i = 0; i < n; i++) {
		struct partition *p = find_partition(st, &v[i]);

		if (p != NULL)
			partition_close(st, p, is_lost);
	}
}

static void at_end(void *arg, const struct kafka_partition *at, uint64_t offset)
{
	struct partition *p = find_partition(arg, at);

	if (p != NULL)
		partition_at_end(p, offset);
}

static void troubled(void *arg, const struct err *err, bool is_fatal)
{
	struct kafka_receiver_state *st = arg;

	pthread_mutex_lock(&st->lock);
	snprintf(st->trouble, sizeof(st->trouble), "%.199s", err->msg);
	pthread_mutex_unlock(&st->lock);
	log_warn("trouble with the brokers", "receiver", st->c->id, "error", err->msg);
	if (err->kind == ERR_NOT_FOUND || err->kind == ERR_PERMISSION)
		st->misses_topics = true;
	st->is_fatal |= is_fatal;
}

/* ---- clients ---- */

static struct kafka_settings settings_of(struct kafka_receiver_state *st,
					 const struct kafka_properties *p)
{
	const struct kafka_receiver_config *conf =
		COMPONENT_CONFIG(st->c, struct kafka_receiver_config);
	struct kafka_settings s = { .id = st->c->id, .properties = p->v, .n_properties = p->n };

	if (conf->client.sasl.token_file[0] != '\0')
		s.token_file = conf->client.sasl.token_file;
	return s;
}

static int make_dead_letters(struct kafka_receiver_state *st, struct err *err)
{
	struct kafka_properties consumer = KAFKA_PROPERTIES_INIT, producer = KAFKA_PROPERTIES_INIT;
	struct kafka_settings settings;

	kafka_receiver_properties(COMPONENT_CONFIG(st->c, struct kafka_receiver_config), &consumer,
				  &producer);
	settings = settings_of(st, &producer);
	st->dead_letters = dead_letters_new(st->c, &settings, err);
	kafka_properties_fini(&consumer);
	kafka_properties_fini(&producer);
	return st->dead_letters != NULL ? 0 : -1;
}

static int make_consumer(struct kafka_receiver_state *st, struct err *err)
{
	const struct kafka_receiver_config *conf =
		COMPONENT_CONFIG(st->c, struct kafka_receiver_config);
	struct kafka_properties consumer = KAFKA_PROPERTIES_INIT, producer = KAFKA_PROPERTIES_INIT;
	struct kafka_consumer_settings s = { .arg = st,
					     .assigned = assigned,
					     .revoked = revoked,
					     .at_end = at_end,
					     .troubled = troubled };
	int ret = -1;

	/* It looks at once by itself. */
	st->looked_ns = clock_mono_ns();
	kafka_receiver_properties(conf, &consumer, &producer);
	s.client = settings_of(st, &consumer);
	st->consumer = kafka_consumer_new(&s, err);
	if (st->consumer != NULL)
		ret = kafka_consumer_subscribe(st->consumer, conf->topics.items, conf->topics.n,
					       err);
	kafka_properties_fini(&consumer);
	kafka_properties_fini(&producer);
	return ret;
}

/* ---- the thread ---- */

/* UINT64_MAX: librdkafka looks soon enough by itself, or shall not ask for all topics. */
static uint64_t next_look(const struct kafka_receiver_state *st,
			  const struct kafka_receiver_config *conf)
{
	if (st->misses_topics)
		return st->looked_ns + LOOK_FOR_EVERY_S * NS_PER_S;
	if (!conf->client.metadata_full ||
	    conf->client.metadata_refresh_ns <= LOOK_ANYHOW_EVERY_S * (int64_t)NS_PER_S)
		return UINT64_MAX;
	return st->looked_ns + LOOK_ANYHOW_EVERY_S * NS_PER_S;
}

/* Somebody creates a topic, or allows it, or adds partitions, and producers fill them at once;
 * librdkafka would look in metadata.refresh_interval, which is 10 minutes. */
static void look_for_topics(struct kafka_receiver_state *st, uint64_t now_ns)
{
	const struct kafka_receiver_config *conf =
		COMPONENT_CONFIG(st->c, struct kafka_receiver_config);
	bool all;

	if (st->draining || now_ns < next_look(st, conf))
		return;
	all = kafka_consumer_look_for(st->consumer, conf->topics.items, conf->topics.n,
				      LOOK_FOR_MS);
	/* That one is missing its trouble says; no answer does not. */
	st->misses_topics &= !all;
	st->looked_ns = clock_mono_ns();
}

static void look_after_all(struct kafka_receiver_state *st)
{
	uint64_t now = clock_mono_ns();
	bool settled = true;

	for (struct partition *p = st->partitions, *next; p != NULL; p = next) {
		next = p->next;
		partition_look_after(st, p, now);
		settled &= partition_is_settled(p);
		if (!st->draining && partition_has_ended(p))
			partition_begin_again(st, p);
	}
	st->drained = st->draining && settled;
	if (st->sure_ns != 0 && now >= st->sure_ns)
		be_sure(st);
	if (st->is_unsure)
		component_source_expect(st->c, true);
	look_for_topics(st, now);
}

/* Waking up fifty times a second for nothing was a fifth of the thread's time at 10 MB/s. What
 * comes wakes it at once all the same. */
static int poll_ms(const struct kafka_receiver_state *st)
{
	if (st->draining || st->is_unsure || st->misses_topics)
		return POLL_MS;
	for (const struct partition *p = st->partitions; p != NULL; p = p->next)
		if (!partition_is_quiet(p))
			return POLL_MS;
	return QUIET_POLL_MS;
}

/* Records until there are none, or it is time to look after the partitions. */
static void read_some(struct kafka_receiver_state *st)
{
	struct partition *p = NULL;
	unsigned rebalances = st->rebalances;
	struct kafka_message m;

	for (int i = 0; i < AT_A_TIME; i++) {
		if (!kafka_consumer_poll(st->consumer, i == 0 ? poll_ms(st) : 0, &m))
			return;
		/* Mostly that of the one before, which a rebalance may have ended. */
		if (p == NULL || rebalances != st->rebalances ||
		    p->at.partition != m.at.partition || strcmp(p->topic, m.at.topic) != 0)
			p = find_partition(st, &m.at);
		rebalances = st->rebalances;
		if (p != NULL)
			partition_take(st, p, &m);
		else
			kafka_message_free(st->consumer, &m);
	}
}

/* How long to wait before the next consumer: longer each time, unless the last one lived well. Two
 * that have one group_instance_id end one another, and must not do it without a pause. */
static uint64_t wait_anew(struct kafka_receiver_state *st)
{
	uint64_t now = clock_mono_ns();

	if (st->joined_ns != 0 && now - st->joined_ns > ANEW_FORGET_S * NS_PER_S)
		st->anew_ns = 0;
	st->anew_ns = st->anew_ns == 0 ? ANEW_MIN_MS * NS_PER_MS
				       : MIN(st->anew_ns * 2, ANEW_MAX_MS * NS_PER_MS);
	return now + st->anew_ns / 2 + rng_next(&st->rng) % (st->anew_ns / 2);
}

/* The consumer has ended for good: somebody has its group_instance_id, or librdkafka has ended it
 * itself, as it joined again after a session was lost while a commit of the old one was under way.
 * Its partitions go as lost ones do, and another consumer joins. */
static void begin_anew(struct kafka_receiver_state *st)
{
	struct err err = ERR_INIT;
	uint64_t until;

	be_unsure(st);
	st->was_revoked = true;
	while (st->partitions != NULL)
		partition_close(st, st->partitions, true);
	kafka_consumer_free(st->consumer);
	st->consumer = NULL;
	note_assigned(st, false);
	until = wait_anew(st);
	log_warn("the consumer has ended and is made anew", "receiver", st->c->id, "after_ms",
		 LOG_NUM((until - clock_mono_ns()) / NS_PER_MS), "hint",
		 "another process with the same group_instance_id?");
	while (!st->stopping && !st->draining && clock_mono_ns() < until)
		usleep(POLL_MS * 1000);
	st->is_fatal = false;
	st->drained = st->draining; /* nothing is under way */
	if (!st->stopping && !st->draining && make_consumer(st, &err) < 0)
		component_fail(st->c, &err);
}

static void *consumer_main(void *arg)
{
	struct kafka_receiver_state *st = arg;
	uint64_t looked_ns = 0;

	while (!st->stopping) {
		if (st->is_fatal)
			begin_anew(st);
		if (st->consumer == NULL)
			break;
		read_some(st);
		for (struct partition *p = st->partitions; p != NULL; p = p->next)
			partition_flush(st, p);
		if (clock_mono_ns() - looked_ns >= LOOK_AFTER_MS * NS_PER_MS) {
			looked_ns = clock_mono_ns();
			look_after_all(st);
		}
	}
	be_unsure(st);
	while (st->partitions != NULL)
		partition_close(st, st->partitions, false);
	/* Commits what was stored, and leaves the group unless it is a static member. */
	kafka_consumer_free(st->consumer);
	st->consumer = NULL;
	return NULL;
}

/* ---- life ---- */

static int kafka_receiver_start(struct component *c, struct err *err)
{
	struct kafka_receiver_state *st = COMPONENT_STATE(c, struct kafka_receiver_state);
	uint64_t seed;

	if (c->receiver->ack == RECEIVER_ACK_EARLY)
		return err_set(err, ERR_CONFIG,
			       "ack: early would commit offsets of what may be lost: remove it");
	st->c = c;
	st->budget = component_budget(c);
	st->count = telemetry_transport(c, "kafka");
	rng_kernel(&seed, sizeof(seed));
	rng_seed(&st->rng, seed);
	pthread_mutex_init(&st->lock, NULL);
	st->has_lock = true;
	st->reserved = MIN((size_t)RESERVED, (size_t)MAX(st->budget->limit, 0) / 8);
	budget_force(st->budget, st->reserved);
	be_unsure(st);
	if (make_dead_letters(st, err) < 0 || make_consumer(st, err) < 0)
		return -1;
	if (pthread_create(&st->thread, NULL, consumer_main, st) != 0)
		return err_set(err, ERR_INTERNAL, "cannot start the consumer thread");
	st->has_thread = true;
	return 0;
}

static void kafka_receiver_drain(struct component *c)
{
	COMPONENT_STATE(c, struct kafka_receiver_state)->draining = true;
}

static int kafka_receiver_is_drained(struct component *c)
{
	struct kafka_receiver_state *st = COMPONENT_STATE(c, struct kafka_receiver_state);

	return !st->has_thread || st->drained;
}

static void kafka_receiver_shutdown(struct component *c)
{
	struct kafka_receiver_state *st = COMPONENT_STATE(c, struct kafka_receiver_state);

	st->stopping = true;
	if (st->has_thread)
		pthread_join(st->thread, NULL);
	st->has_thread = false;
	kafka_consumer_free(st->consumer);
	st->consumer = NULL;
	dead_letters_free(st->dead_letters);
	st->dead_letters = NULL;
	be_sure(st);
	if (st->has_lock) {
		budget_release(st->budget, st->reserved);
		pthread_mutex_destroy(&st->lock);
	}
	st->has_lock = false;
}

static bool kafka_receiver_is_ready(struct component *c, char *why, size_t why_size)
{
	struct kafka_receiver_state *st = COMPONENT_STATE(c, struct kafka_receiver_state);
	bool ready;

	if (!st->has_lock)
		return false;
	pthread_mutex_lock(&st->lock);
	ready = st->was_assigned;
	if (!ready)
		snprintf(why, why_size, "receiver %s: has not joined its group: %s", c->id,
			 st->trouble[0] ? st->trouble : "no answer of the brokers yet");
	pthread_mutex_unlock(&st->lock);
	return ready;
}

/* ---- metrics ---- */

static double lag_records(const struct partition *p)
{
	return (double)atomic_load(&p->lag_records);
}

static double lag_seconds(const struct partition *p)
{
	uint64_t now_ms = clock_wall_ns() / NS_PER_MS;
	uint64_t oldest = atomic_load(&p->oldest_timestamp_ms);

	return oldest > 0 && now_ms > oldest ? (double)(now_ms - oldest) / 1000 : 0;
}

static double done_with(const struct partition *p)
{
	return (double)atomic_load(&p->done_with);
}

/* One gauge per partition. Call it with the lock. */
static void partition_samples(struct kafka_receiver_state *st, struct buf *out)
{
	static const struct {
		const char *name, *help;
		double (*value)(const struct partition *p);
	} rows[] = {
		{ "spanmill_kafka_lag_records", "Records that are not done with.", lag_records },
		{ "spanmill_kafka_lag_seconds",
		  "Age of the first record that is read and not done with.", lag_seconds },
		{ "otelcol_kafka_receiver_offset_lag", "The same as spanmill_kafka_lag_records.",
		  lag_records },
		{ "otelcol_kafka_receiver_current_offset",
		  "Offset up to which records are done with; 0 before the first.", done_with },
	};

	for (size_t i = 0; i < COUNT_OF(rows); i++) {
		telemetry_head(out, rows[i].name, "gauge", rows[i].help);
		for (const struct partition *p = st->partitions; p != NULL; p = p->next) {
			char number[16];

			snprintf(number, sizeof(number), "%d", (int)p->at.partition);
			telemetry_sample(out, rows[i].name, rows[i].value(p), "receiver", st->c->id,
					 "topic", p->topic, "partition", number, NULL);
		}
	}
}

static void kafka_receiver_metrics(struct component *c, struct buf *out)
{
	struct kafka_receiver_state *st = COMPONENT_STATE(c, struct kafka_receiver_state);
	const struct {
		const char *name, *help;
		_Atomic uint64_t *value;
	} rows[] = {
		{ "otelcol_kafka_receiver_records_total", "Records read.", &st->records },
		{ "otelcol_kafka_receiver_bytes_total", "Their values.", &st->bytes },
		{ "otelcol_kafka_receiver_unmarshal_failed_spans_total",
		  "Records that could not be read.", &st->broken },
		{ "otelcol_kafka_receiver_partition_start_total", "Partitions taken.",
		  &st->opened },
		{ "otelcol_kafka_receiver_partition_close_total", "Partitions given up.",
		  &st->closed },
		{ "spanmill_dead_letter_records", "Records written to a dead letter topic or file.",
		  &st->dead },
		{ "spanmill_kafka_rewinds", "Times that a partition was read again from before.",
		  &st->rewinds },
	};

	if (!st->has_lock)
		return;
	for (size_t i = 0; i < COUNT_OF(rows); i++) {
		telemetry_head(out, rows[i].name, "counter", rows[i].help);
		telemetry_sample(out, rows[i].name, (double)atomic_load(rows[i].value), "receiver",
				 c->id, NULL);
	}
	pthread_mutex_lock(&st->lock);
	partition_samples(st, out);
	pthread_mutex_unlock(&st->lock);
}

const struct component_type receiver_kafka = {
	.name = "kafka",
	.kind = KIND_RECEIVER,
	.summary = "Reads traces from Kafka topics; commits offsets when they are delivered.",
	.stability = STABILITY_ALPHA,
	.signals = SIGNAL_TRACES,
	.config_size = sizeof(struct kafka_receiver_config),
	.state_size = sizeof(struct kafka_receiver_state),
	.options = kafka_receiver_option_table,
	.validate = kafka_receiver_validate,
	.opens_sources = true,
	.start = kafka_receiver_start,
	.drain = kafka_receiver_drain,
	.is_drained = kafka_receiver_is_drained,
	.shutdown = kafka_receiver_shutdown,
	.is_ready = kafka_receiver_is_ready,
	.metrics = kafka_receiver_metrics,
};
