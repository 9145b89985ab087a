/* SPDX-License-Identifier: Apache-2.0
 *
 * delivery.c - records to the brokers, and what becomes of them.
 *
 *   ready -> producer -> delivered: settled
 *              |  '- retryable: failed list, sent again after a pause; gone when its clients are
 *              |- too large, or no such partition: parked until the topic was asked about, then
 *              |     taken apart and gathered again by what is known now
 *              '- permanent: dropped, counted
 *
 * librdkafka sends again by itself what a broker may take later; what comes back here has run into
 * `timeout` (without a disk queue; with one it waits for ever) or is refused by name.
 */
#include "exporters/kafka/exporter.h"

#include "base/clock.h"
#include "base/mem.h"
#include "pipeline/telemetry.h"
#include "wire/otlp_encode.h"

static void set_retry_timer(struct kafka_state *st);

/* ---- sending ---- */

static void give_back(struct record *rec, const struct err *err)
{
	record_settle(rec, VERDICT_RETRYABLE, DROP_SHUTDOWN, err);
}

/* Behind the configured ones, the record's own. Returns how many there are. */
static size_t set_headers(struct kafka_state *st, const struct record *rec)
{
	struct bytes tenant = bytes_str(rec->route->tenant);
	struct kafka_header *h = st->headers;
	size_t n = st->n_headers;

	h[n++] = (struct kafka_header){ "tenant", tenant };
	if (st->tenant_header != NULL)
		h[n++] = (struct kafka_header){ st->tenant_header, tenant };
	if (rec->reason != NULL) {
		h[n++] = (struct kafka_header){ "topic", bytes_str(rec->route->topic->name) };
		h[n++] = (struct kafka_header){ "reason", bytes_str(rec->reason) };
	}
	return n;
}

static int produce(struct kafka_state *st, struct record *rec, struct err *err)
{
	struct kafka_record r = {
		.topic = rec->reason ? st->conf->dead_letter_topic : rec->route->topic->name,
		.partition = rec->partition,
		.value = record_value(rec),
		.headers = st->headers,
		.n_headers = set_headers(st, rec),
		.opaque = rec,
	};

	if (rec->has_key) {
		partitioner_key(rec->trace_id, rec->key);
		r.key = (struct bytes){ (const uint8_t *)rec->key, sizeof(rec->key) };
	}
	return kafka_producer_send(st->producer, &r, err);
}

/* Ask about its topic first. */
static void park(struct kafka_state *st, struct record *rec)
{
	rec->next = st->parked;
	st->parked = rec;
	topics_ask(&st->topics, rec->route->topic);
}

bool delivery_park_above(struct kafka_state *st, struct route *route, const struct batch *b,
			 uint32_t i)
{
	struct span_tables tables = b->tables;
	struct topic *topic = route->topic;
	struct record *rec;
	size_t size;

	if (st->is_stopping || topic->max_bytes >= st->conf->max_message_bytes ||
	    !topics_is_stale(topic, st->gather.o.linger_ns))
		return false;
	tables.n_extras = 0;
	size = otlp_encoded_size(&tables, &i, 1);
	rec = record_new(&st->pool, route, KAFKA_ANY_PARTITION, size);
	record_append(rec, b, &tables, &i, 1, size);
	rec->is_above = true;
	park(st, rec);
	return true;
}

/* Its spans once more through the grouping, by what is known of the topic now. */
static void gather_again(struct kafka_state *st, struct record *rec)
{
	struct topic *topic = rec->route->topic;
	struct batch *b = record_to_batch(rec);

	gather_add(&st->gather, gather_route(&st->gather, topic, b->tenant), b, NULL,
		   b->tables.n_spans, true);
	batch_unref(b);
}

/* It takes more bytes than its OTLP protobuf, which was cut to fit. */
static void too_large_encoded(struct kafka_state *st, struct record *rec, size_t limit)
{
	struct route *route = rec->route;
	struct batch *b;

	if (record_n_spans(rec) > 1) {
		gather_halve(&st->gather, rec);
		return;
	}
	b = record_to_batch(rec);
	if (!delivery_park_above(st, route, b, 0))
		dead_letter_put(st, route, b, 0, 0, limit);
	batch_unref(b);
}

/* False: it was taken apart. */
static bool encode(struct kafka_state *st, struct record *rec)
{
	size_t limit = gather_limit(&st->gather, rec->route);

	kafka_encode_fn fn = kafka_encoding_fn(kafka_place(st)->encoding);

	if (fn == NULL || rec->reason != NULL || rec->encoded.n > 0)
		return true;
	if (kafka_encoding_is_of_one_span(kafka_place(st)->encoding) && record_n_spans(rec) > 1) {
		gather_halve(&st->gather, rec);
		return false;
	}
	if (record_encode(rec, fn, limit, NULL) == 0)
		return true;
	too_large_encoded(st, rec, limit);
	return false;
}

/* Those of b's spans whose clients still wait; NULL: there are none. Takes b. */
static struct batch *still_wanted(struct batch *b)
{
	uint8_t *keep = xmalloc(b->tables.n_spans);

	for (uint32_t i = 0; i < b->tables.n_spans; i++)
		keep[i] = !origin_is_withdrawn(b->origins[b->tables.spans[i].origin].origin);
	b = batch_filter(b, keep, DROP_SHUTDOWN);
	free(keep);
	return b;
}

/* A record that was not sent yet, without the spans that are sent again by their clients: they
 * would be there twice. NULL: nothing is left. Takes rec. */
static struct record *without_withdrawn(struct kafka_state *st, struct record *rec)
{
	struct record whole = *rec; /* where it goes, and its key */
	struct batch *b = still_wanted(record_to_batch(rec));
	size_t size;

	if (b == NULL)
		return NULL;
	size = otlp_encoded_size(&b->tables, NULL, b->tables.n_spans);
	rec = record_new(&st->pool, whole.route, whole.partition, size);
	record_append(rec, b, &b->tables, NULL, b->tables.n_spans, size);
	rec->has_key = whole.has_key;
	memcpy(rec->trace_id, whole.trace_id, sizeof(rec->trace_id));
	batch_unref(b);
	return rec;
}

/* No client waits shorter than that, so that with a short linger nothing has to be looked at. */
#define WITHDRAWN_AFTER_NS (40 * NS_PER_MS)

static bool may_be_withdrawn(const struct kafka_state *st, const struct record *rec, uint64_t now)
{
	return rec->first_ns == 0 && rec->reason == NULL && !st->has_storage &&
	       now + st->gather.o.linger_ns > rec->due_ns + WITHDRAWN_AFTER_NS;
}

void delivery_send(struct kafka_state *st, struct record *rec)
{
	uint64_t now = clock_mono_ns();
	struct err err = ERR_INIT;

	if (may_be_withdrawn(st, rec, now) && span_debt_has_withdrawn(&rec->debt) &&
	    (rec = without_withdrawn(st, rec)) == NULL)
		return;
	if (!encode(st, rec))
		return;
	if (st->wants_producer) {
		rec->next = st->waiting;
		st->waiting = rec;
		return;
	}
	if (rec->first_ns == 0)
		rec->first_ns = now;
	if (produce(st, rec, &err) < 0)
		delivery_failed(st, rec, &err);
}

void delivery_send_waiting(struct kafka_state *st)
{
	struct record *rec = st->waiting, *next;

	st->waiting = NULL;
	for (; rec != NULL; rec = next) {
		next = rec->next;
		rec->next = NULL;
		delivery_send(st, rec);
	}
}

void delivery_pump(struct kafka_state *st)
{
	struct record *rec;

	while ((rec = gather_next(&st->gather)) != NULL)
		delivery_send(st, rec);
	kafka_note(st);
}

/* ---- failures ---- */

static void drop(struct kafka_state *st, struct record *rec, enum drop_reason reason,
		 const struct err *err)
{
	uint32_t n = record_n_spans(rec);

	log_error("Exporting failed. Dropping data.", "exporter", st->c->id, "error", err->msg,
		  "dropped_items", LOG_NUM(n));
	atomic_fetch_add(&st->c->count->send_failed, n);
	record_settle(rec, VERDICT_PERMANENT, reason, err);
}

/* How long to wait before the next attempt. */
static int64_t next_pause(struct kafka_state *st, struct record *rec)
{
	const struct retry_options *o = &st->conf->retry;
	double spread = o->randomization_factor * (2 * rng_unit(&st->rng) - 1), longer;
	int64_t pause;

	if (rec->backoff_ns == 0)
		rec->backoff_ns = MIN(o->initial_interval_ns, o->max_interval_ns);
	pause = (int64_t)((double)rec->backoff_ns * (1 + spread));
	longer = (double)rec->backoff_ns * o->multiplier;
	rec->backoff_ns =
		longer < (double)o->max_interval_ns ? (int64_t)longer : o->max_interval_ns;
	return pause;
}

static void insert_failed(struct kafka_state *st, struct record *rec)
{
	struct record **at = &st->failed;

	while (*at != NULL && (*at)->due_ns <= rec->due_ns)
		at = &(*at)->next;
	rec->next = *at;
	*at = rec;
	set_retry_timer(st);
}

static void give_up(struct kafka_state *st, struct record *rec, const struct err *err)
{
	if (st->has_storage) {
		drop(st, rec, DROP_RETRIES_EXHAUSTED, err);
		return;
	}
	log_warn("Exporting failed. Rejecting data.", "exporter", st->c->id, "error", err->msg,
		 "rejected_items", LOG_NUM(record_n_items(rec)));
	atomic_fetch_add(&st->c->count->send_failed, record_n_items(rec));
	record_settle(rec, VERDICT_RETRYABLE, DROP_RETRIES_EXHAUSTED, err);
}

void delivery_failed(struct kafka_state *st, struct record *rec, const struct err *err)
{
	const struct retry_options *o = &st->conf->retry;
	uint64_t now = clock_mono_ns();
	int64_t pause;

	if (st->is_stopping || span_debt_is_withdrawn(&rec->debt) ||
	    (st->has_storage && atomic_load(&st->is_draining))) {
		give_back(rec, err);
		return;
	}
	pause = next_pause(st, rec);
	if (!o->enabled ||
	    (o->max_elapsed_time_ns > 0 &&
	     now + (uint64_t)pause > rec->first_ns + (uint64_t)o->max_elapsed_time_ns)) {
		give_up(st, rec, err);
		return;
	}
	log_info("Exporting failed. Will retry the record after interval.", "exporter", st->c->id,
		 "error", err->msg, "interval_ms", LOG_NUM((uint64_t)pause / NS_PER_MS));
	atomic_fetch_add(&st->n_retries, 1);
	rec->due_ns = now + (uint64_t)pause;
	insert_failed(st, rec);
}

/* A broker's limit is lower than we thought. */
static void too_large(struct kafka_state *st, struct record *rec, const struct err *err)
{
	if (rec->reason != NULL) {
		dead_letter_refused(st, rec, err);
		return;
	}
	log_warn("the topic takes no record of this size; asking for its limit", "exporter",
		 st->c->id, "error", err->msg, "bytes", LOG_NUM(record_value(rec).n));
	park(st, rec);
}

static void failed(struct kafka_state *st, struct record *rec, const struct err *err)
{
	atomic_store(&st->is_failing, err->retryable);
	if (st->is_stopping)
		give_back(rec, err);
	else if (err->kind == ERR_TOO_LARGE)
		too_large(st, rec, err);
	else if (err->kind == ERR_NOT_FOUND && rec->reason == NULL) {
		topics_ask(&st->topics, rec->route->topic);
		delivery_failed(st, rec, err);
	} else if (err->retryable)
		delivery_failed(st, rec, err);
	else
		drop(st, rec, DROP_PERMANENT, err);
}

/* Will a look-up find these spans from now on? Not in a dead letter; and a record that not all
 * in-sync replicas have may still be lost, so no exemplar may name it. */
static bool is_found(const struct kafka_state *st, const struct record *rec)
{
	return rec->reason == NULL && st->conf->required_acks == -1;
}

void delivery_delivered(void *arg, void *opaque, const struct err *err)
{
	struct kafka_state *st = arg;
	struct record *rec = opaque;

	if (err != NULL) {
		failed(st, rec, err);
	} else {
		atomic_store(&st->is_failing, false);
		atomic_fetch_add(&st->c->count->sent, record_n_items(rec));
		atomic_fetch_add(rec->reason ? &st->n_dead_letters : &st->n_records, 1);
		atomic_fetch_add(&st->n_record_bytes, record_value(rec).n);
		record_settle(rec, is_found(st, rec) ? VERDICT_DELIVERED : VERDICT_ASIDE,
			      DROP_REASON_MAX, NULL);
	}
	kafka_resume(st);
}

void delivery_troubled(void *arg, const struct err *err, bool is_fatal)
{
	struct kafka_state *st = arg;

	log_warn(is_fatal ? "the producer has failed and is made anew" : "trouble with the brokers",
		 "exporter", st->c->id, "error", err->msg);
	if (is_fatal)
		st->wants_producer = st->is_fatal = true;
	else if (kafka_producer_pending(st->producer) > 0)
		atomic_store(&st->is_failing, true);
	kafka_resume(st);
}

/* ---- again ---- */

/* Without the spans whose clients were told to send them again. */
static void wanted_again(struct kafka_state *st, struct record *rec)
{
	struct topic *topic = rec->route->topic;
	struct batch *b = still_wanted(record_to_batch(rec));

	if (b == NULL)
		return;
	gather_add(&st->gather, gather_route(&st->gather, topic, b->tenant), b, NULL,
		   b->tables.n_spans, true);
	batch_unref(b);
}

static void send_again(struct kafka_state *st, struct record *rec)
{
	struct topic *topic = rec->route->topic;
	struct err err = ERR_INIT;

	err_set(&err, ERR_NOT_FOUND, "topic %s: its partitions are not known", topic->name);
	if (span_debt_is_withdrawn(&rec->debt))
		give_back(rec, &err);
	else if (rec->reason != NULL)
		delivery_send(st, rec);
	else if (topic->n_partitions == 0)
		delivery_failed(st, rec, &err);
	else if (span_debt_has_withdrawn(&rec->debt))
		wanted_again(st, rec);
	else if ((uint32_t)rec->partition >= topic->n_partitions)
		gather_again(st, rec);
	else
		delivery_send(st, rec);
}

static void set_retry_timer(struct kafka_state *st)
{
	uint64_t now = clock_mono_ns();

	if (st->failed == NULL)
		return;
	loop_timer_start(st->loop, &st->retry_timer,
			 st->failed->due_ns > now ? (st->failed->due_ns - now) / NS_PER_MS + 1 : 0);
}

void delivery_retry_due(void *arg)
{
	struct kafka_state *st = arg;
	uint64_t now = clock_mono_ns();
	struct record *rec;

	while ((rec = st->failed) != NULL && rec->due_ns <= now) {
		st->failed = rec->next;
		rec->next = NULL;
		send_again(st, rec);
	}
	set_retry_timer(st);
	delivery_pump(st);
	kafka_resume(st);
}

/* The records of this topic that were parked. */
static struct record *take_parked(struct kafka_state *st, const struct topic *t)
{
	struct record *taken = NULL, *rec, **at = &st->parked;

	while ((rec = *at) != NULL) {
		if (rec->route->topic != t) {
			at = &rec->next;
			continue;
		}
		*at = rec->next;
		rec->next = taken;
		taken = rec;
	}
	return taken;
}

/* The topic refused rec as too large and was asked about. Batches of records are refused as a
 * whole: when the answer does not explain it, each is first sent alone; after that the refused size
 * is what we learn. */
static void fit(struct kafka_state *st, struct topic *t, struct record *rec, bool is_explained)
{
	size_t size = record_value(rec).n;
	struct err err = ERR_INIT;

	if (size <= gather_limit(&st->gather, rec->route) && !is_explained && !rec->is_above) {
		if (st->batch_bytes > BATCH_BYTES_MIN)
			kafka_replace_producer(st, BATCH_BYTES_MIN);
		else
			t->max_bytes = size + rec->route->overhead - 1;
	}
	if (t->n_partitions > 0) {
		gather_again(st, rec);
		return;
	}
	err_set(&err, ERR_NOT_FOUND, "topic %s: its partitions are not known", t->name);
	delivery_failed(st, rec, &err);
}

void delivery_topic_answered(void *arg, struct topic *t)
{
	struct kafka_state *st = arg;
	bool is_explained = t->max_bytes < st->batch_bytes;
	struct record *rec, *next;

	/* Records are sent and refused in batches: no batch may be larger than what the topic takes
	 * of one record. */
	if (is_explained)
		kafka_replace_producer(st, MAX(t->max_bytes, (uint64_t)BATCH_BYTES_MIN));
	for (rec = take_parked(st, t); rec != NULL; rec = next) {
		next = rec->next;
		rec->next = NULL;
		fit(st, t, rec, is_explained);
	}
	delivery_pump(st);
	kafka_resume(st);
}

static void abort_list(struct record *rec)
{
	struct err err = ERR_INIT;
	struct record *next;

	err_set(&err, ERR_UNAVAILABLE, "shutting down");
	for (; rec != NULL; rec = next) {
		next = rec->next;
		rec->next = NULL;
		give_back(rec, &err);
	}
}

void delivery_abort(struct kafka_state *st)
{
	struct record *rec;
	struct err err = ERR_INIT;

	err_set(&err, ERR_UNAVAILABLE, "shutting down");
	if (loop_timer_is_active(&st->retry_timer))
		loop_timer_stop(st->loop, &st->retry_timer);
	gather_flush(&st->gather);
	while ((rec = gather_next(&st->gather)) != NULL)
		give_back(rec, &err);
	abort_list(st->failed);
	abort_list(st->parked);
	abort_list(st->waiting);
	st->failed = st->parked = st->waiting = NULL;
}
