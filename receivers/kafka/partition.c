/* SPDX-License-Identifier: Apache-2.0
 *
 * partition.c - one partition: its records in runs down the pipeline, what was refused read again,
 * offsets committed when everybody is done with them.
 *
 *   held [m][m][m]  --as many as make one run: consecutive, one tenant--> range, batch, emit
 *   broken record   --> dead letter, then a range of no spans: its offset is done with, too
 *
 * A partition that cannot go on (memory, a dead letter that cannot be written, a refusal below) is
 * paused at librdkafka while polling goes on for the others and for the group.
 * THREADS: the receiver's consumer thread.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "receivers/kafka/receiver.h"
#include "wire/pb.h"

#include <stdio.h>
#include <unistd.h>

enum {
	/* Half of the processor's cache: what is copied together here is checked, summed and
	 * written to a log next. 1 MiB cost fresh memory for every run, too. */
	RUN_BYTES = 256 << 10,
	RUN_RECORDS = 2000,
	MEMORY_AGAIN_MS = 50,
	BEHIND_MAX_MS = 500, /* much less than max.poll.interval */
	LETTER_AGAIN_MS = 1000,
	LETTER_LOOK_MS = 10,
	ASK_MS = 5000,
};

static const struct kafka_receiver_config *conf_of(const struct partition *p)
{
	return COMPONENT_CONFIG(p->c, struct kafka_receiver_config);
}

/* ---- open and close ---- */

static char *source_name_of(struct kafka_receiver_state *st, const struct kafka_partition *at)
{
	char group[SOURCE_SEGMENT_MAX + 1], topic[SOURCE_SEGMENT_MAX + 1];

	source_segment(COMPONENT_CONFIG(st->c, struct kafka_receiver_config)->group_id, group);
	source_segment(at->topic, topic);
	return xasprintf("%s/%s/%s/%d", group, st->cluster, topic, (int)at->partition);
}

void partition_open(struct kafka_receiver_state *st, const struct kafka_partition *at,
		    uint32_t n_partitions)
{
	struct partition *p = xcalloc(1, sizeof(*p));
	char *name = source_name_of(st, at);

	p->c = st->c;
	p->topic = xstrdup(at->topic);
	p->at = (struct kafka_partition){ p->topic, at->partition };
	p->seek_to = UINT64_MAX;
	p->source = source_new(&(struct source_options){
		.name = name,
		.partition = (uint32_t)at->partition,
		.n_partitions = n_partitions,
		.count = st->count,
		.budget = st->budget,
	});
	free(name);
	component_source_open(st->c, p->source);
	pthread_mutex_lock(&st->lock);
	p->next = st->partitions;
	st->partitions = p;
	pthread_mutex_unlock(&st->lock);
	atomic_fetch_add(&st->opened, 1);
	log_info("partition taken", "receiver", st->c->id, "topic", p->topic, "partition",
		 LOG_NUM(at->partition));
}

static void drop_held(struct kafka_receiver_state *st, struct partition *p)
{
	dead_letters_leave(p->letter);
	p->letter = NULL;
	for (size_t i = 0; i < p->n_held; i++)
		kafka_message_free(st->consumer, &p->held[i]);
	p->n_held = 0;
	p->held_bytes = 0;
}

static void store_offset(struct kafka_receiver_state *st, struct partition *p)
{
	struct source_progress s;

	source_poll(p->source, &s);
	if (s.committable <= p->stored || p->is_ending)
		return;
	if (p->stored == 0)
		kafka_consumer_store_first(st->consumer, &p->at, s.committable);
	else
		kafka_consumer_store(st->consumer, &p->at, s.committable);
	p->stored = s.committable;
	p->backoff_ns = 0;
}

void partition_close(struct kafka_receiver_state *st, struct partition *p, bool is_lost)
{
	struct partition **at = &st->partitions;

	drop_held(st, p);
	/* What is stored already would be committed with the last of it, and a topic of this name
	 * may be another one by now. */
	if (is_lost || p->is_ending)
		kafka_consumer_forget(st->consumer, &p->at);
	else
		store_offset(st, p);
	source_close(p->source);
	source_unref(p->source);
	pthread_mutex_lock(&st->lock);
	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	pthread_mutex_unlock(&st->lock);
	atomic_fetch_add(&st->closed, 1);
	log_info("partition given up", "receiver", st->c->id, "topic", p->topic, "partition",
		 LOG_NUM(p->at.partition), "lost", is_lost ? "true" : "false");
	free(p->held);
	free(p->topic);
	free(p);
}

bool partition_is_settled(struct partition *p)
{
	struct source_progress s;

	source_poll(p->source, &s);
	return s.n_under_way == 0;
}

bool partition_is_quiet(const struct partition *p)
{
	return !p->is_paused && !p->is_stuck && !p->is_waiting && !p->is_ending &&
	       p->seek_to == UINT64_MAX && p->n_held == 0 && p->has_caught_up;
}

/* ---- pausing ---- */

static void stick(struct partition *p, unsigned ms)
{
	p->is_stuck = true;
	p->again_mono_ns = clock_mono_ns() + ms * NS_PER_MS;
}

static void pause_as_needed(struct kafka_receiver_state *st, struct partition *p)
{
	bool want = p->is_stuck || p->is_waiting || p->is_ending || p->seek_to != UINT64_MAX ||
		    st->draining || source_is_refusing(p->source);

	if (want == p->is_paused)
		return;
	kafka_consumer_pause(st->consumer, &p->at, want);
	p->is_paused = want;
}

/* ---- runs ---- */

/* The first n that are held become a range; what is not theirs any more goes. */
static struct source_record *records_of(const struct partition *p, size_t n)
{
	struct source_record *v = xcalloc(n, sizeof(*v));

	for (size_t i = 0; i < n; i++)
		v[i] = (struct source_record){ p->held[i].offset, p->held[i].timestamp_ms, 0 };
	return v;
}

static void let_go(struct kafka_receiver_state *st, struct partition *p, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		p->held_bytes -= p->held[i].value.n;
		kafka_message_free(st->consumer, &p->held[i]);
	}
	memmove(p->held, p->held + n, (p->n_held - n) * sizeof(*p->held));
	p->n_held -= n;
}

static void emit_none(struct kafka_receiver_state *st, struct partition *p)
{
	source_add(p->source, source_range_new(p->source, records_of(p, 1), 1, 0));
	let_go(st, p, 1);
}

static void pass_over(struct kafka_receiver_state *st, struct partition *p, bool has_letter)
{
	atomic_fetch_add(&st->broken, 1);
	atomic_fetch_add(&st->count->damaged, 1);
	atomic_fetch_add(&st->dead, has_letter ? 1u : 0u);
	emit_none(st, p);
}

/* The first held record cannot be read, for this reason; NULL: its letter is under way. False: that
 * is not written now. */
static bool bury(struct kafka_receiver_state *st, struct partition *p, const char *reason)
{
	const struct kafka_message *m = &p->held[0];
	struct err err = ERR_INIT;
	enum letter_fate fate;

	if (p->broken_next <= m->offset)
		log_warn("a record cannot be read and is passed over", "receiver", p->c->id,
			 "topic", p->topic, "partition", LOG_NUM(p->at.partition), "offset",
			 LOG_NUM(m->offset), "reason", reason);
	p->broken_next = m->offset + 1;
	fate = dead_letters_put(st->dead_letters, m, reason, &p->letter, &err);
	if (fate == LETTER_IS_SAFE || fate == LETTER_NOWHERE) {
		pass_over(st, p, fate == LETTER_IS_SAFE);
		return true;
	}
	if (fate == LETTER_FAILED)
		log_error("cannot write a dead letter, its partition waits", "receiver", p->c->id,
			  "topic", p->topic, "partition", LOG_NUM(p->at.partition), "offset",
			  LOG_NUM(m->offset), "error", err.msg);
	stick(p, fate == LETTER_FAILED ? LETTER_AGAIN_MS : LETTER_LOOK_MS);
	return false;
}

static void note_rejects(struct kafka_receiver_state *st, struct partition *p, uint32_t n,
			 const char *first)
{
	if (n == 0)
		return;
	atomic_fetch_add(&st->count->rejected, n);
	atomic_fetch_add(&st->count->refused, n);
	log_warn("spans refused", "receiver", p->c->id, "topic", p->topic, "partition",
		 LOG_NUM(p->at.partition), "spans", LOG_NUM(n), "first", first);
}

/* Which span is the first of each record: spans lie in the order of the records' bytes. */
static void set_first_spans(struct source_record *records, const struct kafka_message *held,
			    size_t n, const struct batch *b, const uint8_t *base)
{
	const uint8_t *end = base;
	uint32_t span = 0;

	for (size_t i = 0; i < n; i++) {
		records[i].first_span = span;
		end += held[i].value.n;
		while (span < b->tables.n_spans && b->tables.spans[span].p < end)
			span++;
	}
}

static void emit(struct kafka_receiver_state *st, struct partition *p, struct batch *b,
		 struct source_record *records, size_t n)
{
	struct source_range *r =
		source_range_new(p->source, records, (uint32_t)n, b->tables.n_spans);
	bool is_empty = b->tables.n_spans == 0;

	batch_bind(b, &r->origin);
	source_add(p->source, r);
	let_go(st, p, n);
	if (is_empty)
		batch_unref(b);
	else
		component_emit(p->c, b);
}

/* The budget refused the first held record: for ever? A record that does not fit while hardly
 * anything else is held would stop its partition for good. */
static bool is_beyond_memory(struct kafka_receiver_state *st, struct partition *p, struct err *err)
{
	int64_t limit = atomic_load(&st->budget->limit);
	int64_t others = atomic_load(&st->budget->used) - (int64_t)st->reserved;

	if (!budget_is_too_small(st->budget, p->held[0].value.n) && others > limit / 8)
		return false;
	err_clear(err);
	err_set(err, ERR_TOO_LARGE,
		"record of %zu bytes, the memory budget of %lld has no room for it and its index: "
		"raise memory_limiter.limit_mib",
		p->held[0].value.n, (long long)limit);
	return true;
}

/* One record alone. False: try again later. */
static bool send_one(struct kafka_receiver_state *st, struct partition *p, const char *tenant)
{
	struct otlp_result result = { 0 };
	struct err err = ERR_INIT;
	char first_bad[192];
	uint32_t n_bad;
	struct rcbuf *otlp =
		record_decode(p->c, st->consumer, &p->held[0], &n_bad, first_bad, &err);
	struct batch *b = otlp ? batch_from_otlp(otlp, tenant, st->budget, &result, &err) : NULL;

	if (b == NULL && err.kind == ERR_EXHAUSTED && !is_beyond_memory(st, p, &err)) {
		stick(p, MEMORY_AGAIN_MS);
		return false;
	}
	if (b == NULL)
		return bury(st, p, err.msg);
	note_rejects(st, p, n_bad, first_bad);
	note_rejects(st, p, result.rejects.n, result.rejects.first);
	emit(st, p, b, records_of(p, 1), 1);
	return true;
}

/* otlp_proto records joined are one request. False: try again later, or one by one. */
static bool send_joined(struct kafka_receiver_state *st, struct partition *p, size_t n,
			const char *tenant)
{
	struct otlp_result result = { 0 };
	struct source_record *records;
	struct err err = ERR_INIT;
	const uint8_t *base;
	struct rcbuf *buf;
	struct batch *b;
	size_t bytes = 0;

	for (size_t i = 0; i < n; i++)
		bytes += p->held[i].value.n;
	buf = rcbuf_new(st->budget, MAX(bytes, (size_t)1));
	if (buf == NULL) {
		stick(p, MEMORY_AGAIN_MS);
		return false;
	}
	for (size_t i = 0; i < n; i++) {
		if (p->held[i].value.n > 0)
			memcpy(buf->p + buf->n, p->held[i].value.p, p->held[i].value.n);
		buf->n += p->held[i].value.n;
	}
	base = buf->p;
	b = batch_from_otlp(buf, tenant, st->budget, &result, &err);
	if (b == NULL && err.kind == ERR_EXHAUSTED) {
		stick(p, MEMORY_AGAIN_MS);
		return false;
	}
	if (b == NULL) {
		p->one_by_one = p->held[n - 1].offset;
		return true;
	}
	note_rejects(st, p, result.rejects.n, result.rejects.first);
	records = records_of(p, n);
	set_first_spans(records, p->held, n, b, base);
	emit(st, p, b, records, n);
	return true;
}

/* Its fields end where the record does. One that says it is longer would, joined to the next, take
 * that one's bytes for its own, and its spans would be gone without a word. */
static bool is_whole(const struct kafka_message *m)
{
	struct bytes rest = m->value;
	struct pb_field f;
	int got;

	while ((got = pb_next(&rest, &f)) > 0)
		continue;
	return got == 0;
}

/* How many of the held records make one run, which begins with the first. */
static size_t run_length(struct kafka_receiver_state *st, struct partition *p, uint64_t limit,
			 const char *tenant)
{
	size_t n = 1, bytes = p->held[0].value.n;

	if (conf_of(p)->encoding != INPUT_OTLP_PROTO || record_has_extras(p->c) ||
	    p->held[0].offset <= p->one_by_one || !is_whole(&p->held[0]))
		return 1;
	for (; n < p->n_held; n++) {
		char other[TENANT_MAX + 1];
		uint64_t unused;

		bytes += p->held[n].value.n;
		if (p->held[n].offset > limit || bytes > RUN_BYTES ||
		    record_tenant(p->c, st->consumer, &p->held[n], other, NULL) < 0 ||
		    strcmp(other, tenant) != 0 || !is_whole(&p->held[n]) ||
		    source_place(p->source, p->held[n].offset, &unused) != SOURCE_NEW)
			break;
	}
	return n;
}

/* False: nothing goes on now. */
static bool send_run(struct kafka_receiver_state *st, struct partition *p)
{
	char tenant[TENANT_MAX + 1];
	struct err err = ERR_INIT;
	uint64_t limit;
	size_t n;

	if (p->letter != NULL)
		return bury(st, p, NULL);
	if (source_place(p->source, p->held[0].offset, &limit) == SOURCE_KNOWN) {
		let_go(st, p, 1);
		return true;
	}
	if (record_tenant(p->c, st->consumer, &p->held[0], tenant, &err) < 0)
		return bury(st, p, err.msg);
	n = run_length(st, p, limit, tenant);
	if (n == 1)
		return send_one(st, p, tenant);
	return send_joined(st, p, n, tenant);
}

/* A sink that writes what it has is done in milliseconds: a pause at librdkafka, which throws away
 * what it fetched, would cost more than they do. */
static bool wait_for_sinks(struct partition *p)
{
	for (int ms = 0; source_is_behind(p->source); ms++) {
		if (ms == BEHIND_MAX_MS) {
			stick(p, MEMORY_AGAIN_MS);
			return false;
		}
		usleep(1000);
	}
	return true;
}

void partition_flush(struct kafka_receiver_state *st, struct partition *p)
{
	while (p->n_held > 0 && !p->is_stuck && !p->is_waiting && p->seek_to == UINT64_MAX &&
	       !st->draining && !source_is_refusing(p->source))
		if (!wait_for_sinks(p) || !send_run(st, p))
			break;
	pause_as_needed(st, p);
}

/* Offsets go back though nobody asked for it: librdkafka's position was not in the topic any more.
 * The topic was made again, or lost its end. What comes now are other records, which the source
 * would take for those that it knows: it ends, with what it has, and another one begins. Should
 * they be the same records, the commits of their sections say so. */
static void end_source(struct partition *p, uint64_t offset)
{
	struct source_progress s;

	source_poll(p->source, &s);
	log_warn("offsets begin again, the topic is another one or lost its end", "receiver",
		 p->c->id, "topic", p->topic, "partition", LOG_NUM(p->at.partition), "was_at",
		 LOG_NUM(p->expected), "begins_at", LOG_NUM(offset));
	p->is_ending = true;
	p->begin_at = MIN(offset, s.committable ? s.committable : p->first_read);
	p->seek_to = UINT64_MAX;
	p->is_waiting = false;
}

bool partition_has_ended(struct partition *p)
{
	struct source_progress s;

	if (!p->is_ending)
		return false;
	source_poll(p->source, &s);
	return s.n_under_way == 0 && (p->n_held == 0 || s.has_refused);
}

void partition_begin_again(struct kafka_receiver_state *st, struct partition *p)
{
	struct kafka_partition at = { xstrdup(p->topic), p->at.partition };
	uint64_t from = p->begin_at;
	bool is_paused = p->is_paused;

	partition_close(st, p, true);
	partition_open(st, &at, kafka_consumer_n_partitions(st->consumer, at.topic, ASK_MS));
	st->partitions->seek_to = from;
	st->partitions->is_paused = is_paused;
	st->rebalances++; /* who remembers a partition looks again */
	free((char *)(uintptr_t)at.topic);
}

void partition_take(struct kafka_receiver_state *st, struct partition *p, struct kafka_message *m)
{
	atomic_fetch_add_explicit(&st->records, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&st->bytes, m->value.n, memory_order_relaxed);
	if (!p->is_ending && m->offset < p->expected)
		end_source(p, m->offset);
	if (p->is_ending) {
		p->begin_at = MIN(p->begin_at, m->offset);
		kafka_message_free(st->consumer, m);
		return;
	}
	p->expected = m->offset + 1;
	if (!p->was_read) {
		p->was_read = true;
		p->first_read = m->offset;
	}
	p->next_read = m->offset + 1;
	p->held = xgrow(p->held, &p->cap_held, p->n_held + 1, sizeof(*p->held));
	p->held[p->n_held++] = *m;
	p->held_bytes += m->value.n;
	if (p->held_bytes >= RUN_BYTES || p->n_held >= RUN_RECORDS)
		partition_flush(st, p);
}

/* ---- catching up ---- */

void partition_at_end(struct partition *p, uint64_t offset)
{
	if (p->has_caught_up)
		return;
	/* Behind the last record there may be offsets that no record has. */
	p->next_read = MAX(p->next_read, offset);
	p->end = offset;
	p->knows_end = true;
}

/* Tell the source once all is sent down that was there when we took the partition. The end is not
 * asked for: what was fetched with the first record tells it, or that there is no record. */
static void note_caught_up(struct kafka_receiver_state *st, struct partition *p)
{
	uint64_t sent = p->n_held > 0 ? p->held[0].offset : p->next_read;
	uint64_t low;

	if (p->has_caught_up)
		return;
	if (!p->knows_end && p->was_read)
		p->knows_end = kafka_consumer_watermarks(st->consumer, &p->at, &low, &p->end);
	if (!p->knows_end || p->seek_to != UINT64_MAX || sent < p->end)
		return;
	p->has_caught_up = true;
	source_set_caught_up(p->source);
}

/* ---- looking after ---- */

static uint64_t next_wait(struct kafka_receiver_state *st, struct partition *p)
{
	const struct kafka_backoff_options *o = &conf_of(p)->backoff;
	double factor = 1 + o->randomization * (2 * rng_unit(&st->rng) - 1);
	uint64_t wait = p->backoff_ns ? (uint64_t)((double)p->backoff_ns * o->multiplier)
				      : (uint64_t)o->initial_ns;

	p->backoff_ns = MIN(MAX(wait, (uint64_t)NS_PER_MS), (uint64_t)o->max_ns);
	return (uint64_t)((double)p->backoff_ns * factor);
}

static void wait_and_rewind(struct kafka_receiver_state *st, struct partition *p,
			    const struct source_progress *s, uint64_t now_ns)
{
	if (!p->is_waiting) {
		uint64_t wait = next_wait(st, p);

		p->is_waiting = true;
		p->again_mono_ns = now_ns + wait;
		log_warn("records were refused, they are read again", "receiver", p->c->id, "topic",
			 p->topic, "partition", LOG_NUM(p->at.partition), "wait_ms",
			 LOG_NUM(wait / NS_PER_MS), "error", s->why.msg);
		return;
	}
	if (now_ns < p->again_mono_ns)
		return;
	p->is_waiting = p->is_stuck = false;
	drop_held(st, p);
	p->seek_to = source_rewind(p->source);
	atomic_fetch_add(&st->rewinds, 1);
}

static void seek(struct kafka_receiver_state *st, struct partition *p)
{
	struct err err = ERR_INIT;

	/* Resumed first: a resume goes on behind the last record that was given. */
	if (p->is_paused)
		kafka_consumer_pause(st->consumer, &p->at, false);
	p->is_paused = false;
	if (kafka_consumer_seek(st->consumer, &p->at, p->seek_to, &err) == 0) {
		p->expected = p->seek_to;
		p->seek_to = UINT64_MAX;
		return;
	}
	log_warn("cannot go back in a partition, trying again", "receiver", p->c->id, "topic",
		 p->topic, "partition", LOG_NUM(p->at.partition), "error", err.msg);
}

static void note_lag(struct kafka_receiver_state *st, struct partition *p,
		     const struct source_progress *s)
{
	uint64_t low = 0, high = 0, next = s->committable ? s->committable : p->first_read;
	uint64_t oldest = s->oldest_timestamp_ms;

	if (oldest == 0 && p->n_held > 0)
		oldest = p->held[0].timestamp_ms;
	if (!kafka_consumer_watermarks(st->consumer, &p->at, &low, &high))
		return;
	source_set_low_watermark(p->source, low);
	if (!p->was_read)
		next = high;
	atomic_store(&p->lag_records, high > next ? high - next : 0);
	atomic_store(&p->oldest_timestamp_ms, oldest);
	atomic_store(&p->done_with, s->committable);
}

void partition_look_after(struct kafka_receiver_state *st, struct partition *p, uint64_t now_ns)
{
	struct source_progress s;

	store_offset(st, p);
	source_poll(p->source, &s);
	if (st->draining)
		source_cut(p->source, true);
	else if (p->is_ending)
		source_cut(p->source, false);
	else if (s.has_refused)
		wait_and_rewind(st, p, &s, now_ns);
	if (p->seek_to != UINT64_MAX && !st->draining)
		seek(st, p);
	if (p->is_stuck && !p->is_waiting && now_ns >= p->again_mono_ns)
		p->is_stuck = false;
	partition_flush(st, p);
	note_caught_up(st, p);
	note_lag(st, p, &s);
}
