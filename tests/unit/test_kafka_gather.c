/* SPDX-License-Identifier: Apache-2.0
 *
 * test_kafka_gather.c - spans into Kafka records: partitions against what the Java client and
 * Sarama choose, grouping over requests, cutting by size at every boundary, one record per trace,
 * and that every span's duty goes with its bytes.
 */
#include "tests/unit/sending_queue_fixture.h"

#include "base/str.h"
#include "exporters/kafka/gather.h"
#include "tests/bench/payload.h"
#include "wire/otlp_encode.h"

/* ---- partitions ---- */

/* Printed by tests/clients/java/Partition.java (Kafka 4.3.1), and by Sarama's rule. */
static const struct {
	const char *trace_id;
	uint32_t murmur2_of_6, murmur2_of_64, sarama_of_6, sarama_of_64;
} partitions[] = {
	{ "6513270e269e0d37f2a74de452e6b438", 3, 19, 0, 8 },
	{ "d23f0824128b2f330c5c7fd0a6a3a450", 3, 59, 2, 60 },
	{ "9531985d5d9dc9f81818e811892f902b", 5, 1, 2, 44 },
	{ "36f675cc81e74ef5e8e25d940ed90475", 1, 13, 1, 31 },
	{ "6b0d549b6f03675a1600a35a099950d8", 3, 39, 2, 58 },
	{ "8d116ece1738f7d93d9c172411e20b8f", 0, 22, 1, 31 },
	{ "00000000000000000000000000000001", 4, 38, 0, 14 },
	{ "ffffffffffffffffffffffffffffffff", 5, 63, 3, 59 },
};

static void partitions_are_those_of_java_and_sarama(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(partitions); i++) {
		uint8_t id[16];
		char key[TRACE_KEY_BYTES];

		assert_int_equal(str_unhex(bytes_str(partitions[i].trace_id), id, 16), 0);
		partitioner_key(id, key);
		assert_memory_equal(key, partitions[i].trace_id, sizeof(key));
		assert_int_equal(partitioner_choose(HASHER_MURMUR2, id, 6),
				 partitions[i].murmur2_of_6);
		assert_int_equal(partitioner_choose(HASHER_MURMUR2, id, 64),
				 partitions[i].murmur2_of_64);
		assert_int_equal(partitioner_choose(HASHER_SARAMA_COMPAT, id, 6),
				 partitions[i].sarama_of_6);
		assert_int_equal(partitioner_choose(HASHER_SARAMA_COMPAT, id, 64),
				 partitions[i].sarama_of_64);
		assert_int_equal(partitioner_choose(HASHER_MURMUR2, id, 1), 0);
	}
}

/* ---- the bed ---- */

struct gather_bed {
	struct loop *loop;
	struct record_pool pool;
	struct topic topic;
	struct gather g;
	struct route *route;
	uint32_t n_too_large, n_ready;
	struct span_debt too_large; /* the duty of those */
};

static void note_ready(void *arg)
{
	((struct gather_bed *)arg)->n_ready++;
}

static void note_too_large(void *arg, struct route *route, struct batch *b, uint32_t i, size_t size)
{
	struct gather_bed *bed = arg;

	assert_ptr_equal(route, bed->route);
	assert_true(size > gather_limit(&bed->g, route));
	span_debt_take(&bed->too_large, b, &i, 1);
	bed->n_too_large++;
}

static void open_bed(struct gather_bed *bed, uint32_t n_partitions, uint64_t max_bytes,
		     bool by_trace, enum spread spread)
{
	memset(bed, 0, sizeof(*bed));
	memset(&ledger, 0, sizeof(ledger));
	bed->loop = loop_new(0, NULL);
	bed->topic = (struct topic){ .name = (char *)(uintptr_t) "spans",
				     .n_partitions = n_partitions,
				     .max_bytes = UINT64_MAX };
	gather_init(&bed->g, &(struct gather_settings){ .loop = bed->loop,
							.pool = &bed->pool,
							.by_trace = by_trace,
							.spread = spread,
							.max_bytes = max_bytes,
							.linger_ns = 20 * NS_PER_MS,
							.arg = bed,
							.ready = note_ready,
							.too_large = note_too_large });
	bed->route = gather_route(&bed->g, &bed->topic, "t");
}

static void close_bed(struct gather_bed *bed)
{
	span_debt_settle(&bed->too_large, VERDICT_PERMANENT, DROP_TOO_LARGE, NULL);
	span_debt_fini(&bed->too_large);
	gather_fini(&bed->g);
	record_pool_fini(&bed->pool);
	loop_free(bed->loop);
}

/* A request of the standard shape: traces of 4 spans over 3 resources. */
static struct batch *payload(uint32_t n_spans, uint64_t seed)
{
	struct buf out = BUF_INIT;
	struct otlp_result result;
	struct rcbuf *r;
	struct batch *b;

	payload_request(&out, n_spans, seed);
	r = rcbuf_new_forced(NULL, out.n);
	memcpy(r->p, out.p, out.n);
	r->n = out.n;
	buf_fini(&out);
	b = batch_from_otlp(r, "t", NULL, &result, NULL);
	assert_non_null(b);
	return b;
}

static void add(struct gather_bed *bed, struct client *c, struct batch *b)
{
	memset(c, 0, sizeof(*c));
	origin_init(&c->origin, b->tables.n_spans, client_settled);
	batch_bind(b, &c->origin);
	gather_add(&bed->g, bed->route, b, NULL, b->tables.n_spans, true);
	batch_unref(b);
}

/* An index of what a record holds. */
static struct batch *index_of(const struct record *rec)
{
	struct otlp_result result;
	struct batch *b = batch_from_otlp(rcbuf_ref(rec->otlp), "t", NULL, &result, NULL);

	assert_non_null(b);
	assert_int_equal(result.rejects.n, 0);
	assert_int_equal(b->tables.n_spans, record_n_spans(rec));
	return b;
}

static void settle(struct record *rec)
{
	record_settle(rec, VERDICT_DELIVERED, DROP_REASON_MAX, NULL);
}

/* ---- grouping ---- */

/* Every span of 20 requests is in one record, of its partition, beside its resource. */
static void spans_go_to_their_partition_over_requests(void **state)
{
	enum { REQUESTS = 20, SPANS = 224 };
	static struct client clients[REQUESTS];
	struct gather_bed bed;
	struct record *rec;
	uint32_t n = 0, n_records = 0;

	(void)state;
	open_bed(&bed, 7, 1000000, false, SPREAD_BY_TRACE);
	for (uint32_t i = 0; i < REQUESTS; i++)
		add(&bed, &clients[i], payload(SPANS, i));
	gather_flush(&bed.g);
	while ((rec = gather_next(&bed.g)) != NULL) {
		struct batch *b = index_of(rec);

		n_records++;
		n += b->tables.n_spans;
		for (uint32_t i = 0; i < b->tables.n_spans; i++)
			assert_int_equal(
				partitioner_choose(HASHER_MURMUR2, b->tables.spans[i].trace_id, 7),
				rec->partition);
		assert_true(rec->otlp->n <= 2 * RECORD_TARGET_BYTES);
		batch_unref(b);
		assert_false(all_settled(clients, REQUESTS));
		settle(rec);
	}
	assert_int_equal(n, REQUESTS * SPANS);
	assert_true(n_records > 7 && n_records < 80);
	assert_true(all_settled(clients, REQUESTS));
	assert_balance(n, n, 0, 0);
	close_bed(&bed);
}

static void whole_requests_in_turn(void **state)
{
	struct client clients[4];
	struct gather_bed bed;
	struct record *rec;
	uint32_t seen[4] = { 0 };

	(void)state;
	for (int spread = SPREAD_ROUND_ROBIN; spread <= SPREAD_LEAST_BACKUP; spread++) {
		open_bed(&bed, 4, 1000000, false, (enum spread)spread);
		memset(seen, 0, sizeof(seen));
		for (uint32_t i = 0; i < 4; i++)
			add(&bed, &clients[i], payload(20, i));
		gather_flush(&bed.g);
		while ((rec = gather_next(&bed.g)) != NULL) {
			assert_int_equal(record_n_spans(rec), 20);
			seen[rec->partition]++;
			settle(rec);
		}
		for (int p = 0; p < 4; p++)
			assert_int_equal(seen[p], 1);
		close_bed(&bed);
	}
}

static void a_record_lingers_and_no_longer(void **state)
{
	struct gather_bed bed;
	struct client c;
	struct record *rec;

	(void)state;
	open_bed(&bed, 1, 1000000, false, SPREAD_BY_TRACE);
	add(&bed, &c, payload(4, 1));
	assert_null(gather_next(&bed.g));
	loop_turn(bed.loop);
	assert_int_equal(bed.n_ready, 0);
	WAIT_FOR((loop_turn(bed.loop), bed.n_ready == 1));
	rec = gather_next(&bed.g);
	assert_true(clock_mono_ns() >= rec->due_ns);
	settle(rec);
	assert_int_equal(c.settled, 1);
	close_bed(&bed);
}

/* ---- joined ---- */

static const char unknown[] = "\xa2\x06\x03"
			      "abc"; /* field 100 of a request */

/* payload() with an unknown field of the request itself. */
static struct batch *payload_with_extra(uint32_t n_spans, uint64_t seed)
{
	struct batch *b = payload(n_spans, seed), *with;
	size_t n = b->sources[0]->n;
	struct rcbuf *r = rcbuf_new_forced(NULL, n + sizeof(unknown) - 1);
	struct otlp_result result;

	memcpy(r->p, b->sources[0]->p, n);
	memcpy(r->p + n, unknown, sizeof(unknown) - 1);
	r->n = n + sizeof(unknown) - 1;
	batch_unref(b);
	with = batch_from_otlp(r, "t", NULL, &result, NULL);
	assert_non_null(with);
	assert_int_equal(with->tables.n_extras, 1);
	return with;
}

static struct bytes span_bytes(const struct span_ref *sp)
{
	return (struct bytes){ sp->p, sp->len };
}

/* The head of the scope or resource, as one. */
static void add_heads(struct buf *out, const struct batch *b, uint32_t first, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		buf_add_bytes(out, b->tables.heads[first + i]);
}

static void heads_of(struct buf *out, const struct batch *b, const struct span_ref *sp)
{
	const struct scope_ref *s = &b->tables.scopes[sp->scope];

	buf_reset(out);
	add_heads(out, b, s->head, s->n_head);
	add_heads(out, b, b->tables.resources[s->resource].head,
		  b->tables.resources[s->resource].n_head);
}

/* Span sp of b is one of `sent`, byte for byte, with the same scope and resource. */
static bool is_among(const struct batch *b, const struct span_ref *sp, struct batch *const *sent,
		     size_t n_sent)
{
	struct buf here = BUF_INIT, there = BUF_INIT;
	bool found = false;

	heads_of(&here, b, sp);
	for (size_t k = 0; k < n_sent && !found; k++)
		for (uint32_t i = 0; i < sent[k]->tables.n_spans && !found; i++) {
			const struct span_ref *was = &sent[k]->tables.spans[i];

			if (memcmp(was->span_id, sp->span_id, 8) != 0)
				continue;
			heads_of(&there, sent[k], was);
			found = bytes_eq(span_bytes(was), span_bytes(sp)) &&
				bytes_eq(buf_bytes(&here), buf_bytes(&there));
		}
	buf_fini(&here);
	buf_fini(&there);
	return found;
}

/* 30 requests of the same services, some with unknown fields: in a record each resource and scope
 * stands once, every span is as it was beside its own, and the unknown fields are there once. */
static void equal_resources_stand_once(void **state)
{
	enum { REQUESTS = 30, SPANS = 100 };
	static struct client clients[REQUESTS];
	struct batch *sent[REQUESTS + 1];
	struct gather_bed bed;
	struct record *rec;
	uint32_t n = 0, n_extras = 0, n_left;
	uint8_t keep[SPANS];
	struct batch *b;

	(void)state;
	open_bed(&bed, 3, 1000000, false, SPREAD_BY_TRACE);
	/* The second scope of the first resource is met after other resources. */
	b = payload(SPANS, REQUESTS);
	for (uint32_t i = 0; i < SPANS; i++)
		keep[i] = b->tables.spans[i].scope != 1;
	b = batch_filter(b, keep, DROP_SAMPLED);
	n_left = b->tables.n_spans;
	sent[REQUESTS] = batch_ref(b);
	gather_add(&bed.g, bed.route, b, NULL, n_left, true);
	batch_unref(b);
	for (uint32_t i = 0; i < REQUESTS; i++) {
		sent[i] = batch_ref(i % 2 ? payload(SPANS, i) : payload_with_extra(SPANS, i));
		add(&bed, &clients[i], sent[i]);
	}
	gather_flush(&bed.g);
	while ((rec = gather_next(&bed.g)) != NULL) {
		b = index_of(rec);
		assert_in_range(b->tables.n_resources, 1, PAYLOAD_RESOURCES);
		assert_in_range(b->tables.n_scopes, 1, PAYLOAD_RESOURCES + 1);
		for (uint32_t i = 0; i < b->tables.n_spans; i++)
			assert_true(is_among(b, &b->tables.spans[i], sent, REQUESTS + 1));
		for (uint32_t i = 0; i < b->tables.n_extras; i++)
			n_extras += (uint32_t)(b->tables.heads[i].n / (sizeof(unknown) - 1));
		n += b->tables.n_spans;
		batch_unref(b);
		settle(rec);
	}
	assert_int_equal(n, REQUESTS * SPANS + n_left);
	assert_int_equal(n_extras, REQUESTS / 2);
	assert_true(all_settled(clients, REQUESTS));
	for (uint32_t i = 0; i <= REQUESTS; i++)
		batch_unref(sent[i]);
	close_bed(&bed);
}

/* Span sp of b is what its origin knows by that number. */
static void assert_duty(const struct batch *b, const struct span_ref *sp,
			const struct client *clients, struct batch *const *sent)
{
	const struct origin *o = b->origins[sp->origin].origin;
	size_t k = (size_t)(CONTAINER_OF(o, struct client, origin) - clients);

	assert_memory_equal(sent[k]->tables.spans[sp->ordinal].span_id, sp->span_id, 8);
}

/* The duty of each span goes with its bytes, also when the topic turns out to take less than was
 * known when they came. */
static void duties_stand_as_the_bytes_do(void **state)
{
	enum { REQUESTS = 5, SPANS = 60 };
	static struct client clients[REQUESTS];
	struct batch *sent[REQUESTS], *b;
	struct gather_bed bed;
	struct record *rec;

	(void)state;
	for (uint64_t later = 1000000; later > 1000; later /= 9) {
		open_bed(&bed, 2, 1000000, false, SPREAD_BY_TRACE);
		for (uint32_t i = 0; i < REQUESTS; i++) {
			sent[i] = batch_ref(payload(SPANS, i));
			add(&bed, &clients[i], sent[i]);
		}
		bed.topic.max_bytes = later;
		gather_flush(&bed.g);
		while ((rec = gather_next(&bed.g)) != NULL) {
			assert_true(rec->otlp->n + bed.route->overhead <= later);
			b = record_to_batch(rec);
			for (uint32_t i = 0; i < b->tables.n_spans; i++)
				assert_duty(b, &b->tables.spans[i], clients, sent);
			batch_settle(b, VERDICT_DELIVERED, DROP_REASON_MAX, NULL);
			batch_unref(b);
		}
		assert_int_equal(bed.n_too_large, 0);
		assert_true(all_settled(clients, REQUESTS));
		for (uint32_t i = 0; i < REQUESTS; i++)
			batch_unref(sent[i]);
		close_bed(&bed);
	}
}

/* Spans that were edited, and spans from here and there, are as the pipeline made them. */
static void edited_spans_and_picked_ones(void **state)
{
	struct gather_bed bed;
	struct client c = { 0 };
	struct record *rec;
	uint8_t keep[100];
	uint32_t n = 0, n_edited = 0;
	struct batch *b = payload(100, 1);

	(void)state;
	open_bed(&bed, 3, 1000000, false, SPREAD_BY_TRACE);
	origin_init(&c.origin, 100, client_settled);
	batch_bind(b, &c.origin);
	b = batch_editable(b);
	for (uint32_t i = 0; i < 100; i++) {
		keep[i] = i % 3 != 1;
		if (i % 2 == 0)
			batch_set_trace_state(b, i, bytes_str("ot=th:8"));
	}
	b = batch_filter(b, keep, DROP_SAMPLED);
	gather_add(&bed.g, bed.route, b, NULL, b->tables.n_spans, true);
	batch_unref(b);
	gather_flush(&bed.g);
	while ((rec = gather_next(&bed.g)) != NULL) {
		b = index_of(rec);
		n += b->tables.n_spans;
		for (uint32_t i = 0; i < b->tables.n_spans; i++)
			n_edited += b->tables.spans[i].state_len == 7;
		batch_unref(b);
		settle(rec);
	}
	assert_int_equal(n, 67);
	assert_int_equal(n_edited, 34);
	assert_int_equal(c.settled, 1);
	close_bed(&bed);
}

/* Of a large request with few spans left nothing large is kept. */
static void little_of_much_is_copied_out(void **state)
{
	enum { REQUESTS = 10 };
	static struct client clients[REQUESTS];
	struct gather_bed bed;
	struct record *rec;
	uint8_t keep[1000];
	uint32_t n = 0;

	(void)state;
	open_bed(&bed, 3, 1000000, false, SPREAD_BY_TRACE);
	for (uint32_t i = 0; i < 1000; i++)
		keep[i] = i % 50 == 0;
	for (uint32_t i = 0; i < REQUESTS; i++) {
		struct batch *b = payload(1000, i);

		memset(&clients[i], 0, sizeof(clients[i]));
		origin_init(&clients[i].origin, 1000, client_settled);
		batch_bind(b, &clients[i].origin);
		b = batch_filter(b, keep, DROP_SAMPLED);
		gather_add(&bed.g, bed.route, b, NULL, b->tables.n_spans, true);
		batch_unref(b);
	}
	assert_true(bed.g.n_pinned < REQUESTS * 32 * 1024);
	gather_flush(&bed.g);
	assert_int_equal(bed.g.n_pinned, 0);
	while ((rec = gather_next(&bed.g)) != NULL) {
		batch_unref(index_of(rec));
		n += record_n_spans(rec);
		settle(rec);
	}
	assert_int_equal(n, REQUESTS * 20);
	assert_true(all_settled(clients, REQUESTS));
	close_bed(&bed);
}

/* A route holds no more than a record of each partition, or what it was told. */
static void no_more_is_held_than_enough(void **state)
{
	static struct client clients[40];
	struct gather_bed bed;
	struct record *rec;
	size_t n_records = 0;

	(void)state;
	for (size_t max = 0; max <= 50000; max += 50000) {
		open_bed(&bed, 8, 1000000, false, SPREAD_BY_TRACE);
		bed.g.hold_max = max;
		n_records = 0;
		for (uint32_t i = 0; i < COUNT_OF(clients); i++) {
			add(&bed, &clients[i], payload(100, i));
			while ((rec = gather_next(&bed.g)) != NULL) {
				n_records++;
				settle(rec);
			}
		}
		assert_true(n_records >= (max ? 80 : 8));
		assert_true(bed.g.n_pinned < (max ? 2 * max : 24 * RECORD_TARGET_BYTES));
		gather_flush(&bed.g);
		while ((rec = gather_next(&bed.g)) != NULL)
			settle(rec);
		assert_true(all_settled(clients, COUNT_OF(clients)));
		close_bed(&bed);
	}
}

/* ---- sizes ---- */

/* The bytes of a record batch with this record, at most. */
static size_t on_the_wire(const struct gather_bed *bed, const struct record *rec)
{
	return rec->otlp->n + bed->route->overhead;
}

/* Spans of 1 to 600 bytes of name under every limit from nothing to all: no record passes it, no
 * span is lost, and only what cannot fit alone is too large. */
static void every_limit_cuts_between_spans(void **state)
{
	enum { SPANS = 24 };
	struct client c;
	struct gather_bed bed;
	struct record *rec;

	(void)state;
	for (size_t limit = 150; limit < 9000; limit += 7) {
		struct batch *b = make_spans(0, SPANS, limit % 600, "t", NULL);
		uint32_t one = 0, n = 0;
		size_t alone;

		open_bed(&bed, 1, limit, false, SPREAD_BY_TRACE);
		alone = otlp_encoded_size(&b->tables, &one, 1);
		add(&bed, &c, b);
		gather_flush(&bed.g);
		while ((rec = gather_next(&bed.g)) != NULL) {
			assert_true(on_the_wire(&bed, rec) <= limit);
			n += record_n_spans(rec);
			settle(rec);
		}
		assert_int_equal(n + bed.n_too_large, SPANS);
		assert_int_equal(bed.n_too_large,
				 alone > gather_limit(&bed.g, bed.route) ? SPANS : 0);
		close_bed(&bed);
		assert_balance(SPANS, n, SPANS - n, 0);
	}
}

/* The topic's own limit counts when it is the lower one; a giant goes alone. */
static void giants_and_dwarfs(void **state)
{
	struct client clients[3];
	struct gather_bed bed;
	struct record *rec;
	uint32_t n = 0;

	(void)state;
	open_bed(&bed, 1, 1000000, false, SPREAD_BY_TRACE);
	bed.topic.max_bytes = 1500;
	assert_true(gather_limit(&bed.g, bed.route) < 1500);
	add(&bed, &clients[0], make_spans(0, 3, 10, "t", NULL));
	add(&bed, &clients[1], make_spans(3, 1, 2000, "t", NULL));
	add(&bed, &clients[2], make_spans(4, 3, 10, "t", NULL));
	gather_flush(&bed.g);
	while ((rec = gather_next(&bed.g)) != NULL) {
		n += record_n_spans(rec);
		settle(rec);
	}
	assert_int_equal(n, 6);
	assert_int_equal(bed.n_too_large, 1);
	close_bed(&bed);
	assert_balance(7, 6, 1, 0);
}

/* A record of one more byte than what it was given room for moves, once. */
static void a_buffer_grows(void **state)
{
	struct gather_bed bed;
	static struct client clients[300];
	struct record *rec;

	(void)state;
	open_bed(&bed, 1, 1000000, false, SPREAD_BY_TRACE);
	for (uint32_t i = 0; i < COUNT_OF(clients); i++)
		add(&bed, &clients[i], make_spans(i, 1, i % 400, "t", NULL));
	gather_flush(&bed.g);
	for (uint32_t next = 0; (rec = gather_next(&bed.g)) != NULL;) {
		struct batch *b = index_of(rec);

		for (uint32_t i = 0; i < b->tables.n_spans; i++)
			assert_int_equal(load_be32(b->tables.spans[i].span_id + 4), ++next);
		batch_unref(b);
		settle(rec);
	}
	assert_true(all_settled(clients, COUNT_OF(clients)));
	close_bed(&bed);
}

/* ---- taken apart ---- */

static void one_record_per_trace(void **state)
{
	struct client clients[3];
	struct gather_bed bed;
	struct record *rec;
	uint8_t seen[60][16];
	uint32_t n = 0, n_records = 0;

	(void)state;
	open_bed(&bed, 2, 1000000, true, SPREAD_BY_TRACE);
	for (uint32_t i = 0; i < 3; i++)
		add(&bed, &clients[i], payload(40, i));
	gather_flush(&bed.g);
	while ((rec = gather_next(&bed.g)) != NULL) {
		struct batch *b = index_of(rec);

		assert_true(rec->has_key);
		for (uint32_t i = 0; i < n_records; i++)
			assert_memory_not_equal(seen[i], rec->trace_id, 16);
		memcpy(seen[n_records++], rec->trace_id, 16);
		for (uint32_t i = 0; i < b->tables.n_spans; i++)
			assert_memory_equal(b->tables.spans[i].trace_id, rec->trace_id, 16);
		assert_int_equal(partitioner_choose(HASHER_MURMUR2, rec->trace_id, 2),
				 rec->partition);
		n += b->tables.n_spans;
		batch_unref(b);
		settle(rec);
	}
	assert_int_equal(n, 120);
	assert_true(n_records >= 30);
	assert_true(all_settled(clients, 3));
	close_bed(&bed);
}

static void halves_hold_everything(void **state)
{
	struct client c;
	struct gather_bed bed;
	struct record *rec;
	uint32_t n = 0;

	(void)state;
	open_bed(&bed, 1, 1000000, false, SPREAD_BY_TRACE);
	add(&bed, &c, payload(41, 1));
	gather_flush(&bed.g);
	while ((rec = gather_next(&bed.g)) != NULL) {
		if (record_n_spans(rec) > 3) {
			gather_halve(&bed.g, rec);
			continue;
		}
		batch_unref(index_of(rec));
		n += record_n_spans(rec);
		settle(rec);
	}
	assert_int_equal(n, 41);
	assert_int_equal(c.settled, 1);
	close_bed(&bed);
}

static void encodings_within_their_bounds(void **state)
{
	static const struct {
		int encoding;
		const char *start;
	} cases[] = {
		{ ENCODING_OTLP_JSON, "{\"resourceSpans\":[" },
		{ ENCODING_ZIPKIN_JSON, "[{\"traceId\":\"" },
		{ ENCODING_ZIPKIN_PROTO, "\x0a" },
	};
	struct client c;
	struct gather_bed bed;
	struct record *rec;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		kafka_encode_fn fn = kafka_encoding_fn(cases[i].encoding);
		struct err err = ERR_INIT;

		open_bed(&bed, 1, 1000000, false, SPREAD_BY_TRACE);
		add(&bed, &c, payload(4, 1));
		gather_flush(&bed.g);
		rec = gather_next(&bed.g);
		assert_int_equal(record_encode(rec, fn, 1000, &err), -1);
		assert_int_equal(err.kind, ERR_TOO_LARGE);
		assert_ptr_equal(record_value(rec).p, rec->otlp->p);
		assert_int_equal(record_encode(rec, fn, 100000, &err), 0);
		assert_memory_equal(record_value(rec).p, cases[i].start, strlen(cases[i].start));
		assert_true(bed.pool.n_bytes > rec->otlp->cap);
		settle(rec);
		close_bed(&bed);
	}
	assert_null(kafka_encoding_fn(ENCODING_OTLP_PROTO));
	assert_false(kafka_encoding_is_usable(ENCODING_ZIPKIN_JSON, false));
	assert_true(kafka_encoding_is_usable(ENCODING_ZIPKIN_JSON, true));
}

/* ---- routes ---- */

/* Thousands of tenants, one after the other, leave no thousands of routes. */
static void idle_routes_go(void **state)
{
	struct gather_bed bed;
	char tenant[32];

	(void)state;
	open_bed(&bed, 64, 1000000, false, SPREAD_BY_TRACE);
	for (uint32_t i = 0; i < 5000; i++) {
		struct record *rec;
		struct client c;

		snprintf(tenant, sizeof(tenant), "tenant-%u", i);
		bed.route = gather_route(&bed.g, &bed.topic, tenant);
		add(&bed, &c, make_spans(0, 1, 10, tenant, NULL));
		gather_flush(&bed.g);
		rec = gather_next(&bed.g);
		assert_string_equal(rec->route->tenant, tenant);
		settle(rec);
	}
	assert_true(bed.g.routes.n <= ROUTES_IDLE_MAX + 1);
	close_bed(&bed);
}

static void a_topic_that_grows(void **state)
{
	struct client clients[2];
	struct gather_bed bed;
	struct record *rec;
	int32_t highest = 0;

	(void)state;
	open_bed(&bed, 2, 1000000, false, SPREAD_BY_TRACE);
	add(&bed, &clients[0], payload(100, 1));
	bed.topic.n_partitions = 50;
	bed.route = gather_route(&bed.g, &bed.topic, "t");
	add(&bed, &clients[1], payload(100, 2));
	gather_flush(&bed.g);
	while ((rec = gather_next(&bed.g)) != NULL) {
		highest = MAX(highest, rec->partition);
		settle(rec);
	}
	assert_true(highest > 2);
	assert_true(all_settled(clients, 2));
	close_bed(&bed);
}

/* ---- written in one go ---- */

/* otlp_write gives the bytes of otlp_encode, whatever is picked. */
static void written_bytes_are_the_encoded_ones(void **state)
{
	struct rng rng;

	(void)state;
	rng_seed(&rng, 5);
	for (int round = 0; round < 200; round++) {
		struct batch *b = payload(60, (uint64_t)round);
		struct arena arena = ARENA_INIT;
		struct otlp_pieces pieces;
		struct buf joined = BUF_INIT;
		uint32_t pick[60], n = 0;
		uint8_t *out, *end;

		for (uint32_t i = 0; i < 60; i++)
			if (rng_below(&rng, 3) == 0)
				pick[n++] = i;
		otlp_encode(&b->tables, pick, n, &arena, &pieces);
		for (size_t i = 0; i < pieces.n; i++)
			buf_add_bytes(&joined, pieces.v[i]);
		out = xmalloc(pieces.n_bytes + 1);
		end = otlp_write(&b->tables, pick, n, out);
		assert_int_equal(end - out, pieces.n_bytes);
		if (pieces.n_bytes > 0)
			assert_memory_equal(out, joined.p, joined.n);
		free(out);
		buf_fini(&joined);
		arena_fini(&arena);
		batch_unref(b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(partitions_are_those_of_java_and_sarama),
		cmocka_unit_test(spans_go_to_their_partition_over_requests),
		cmocka_unit_test(whole_requests_in_turn),
		cmocka_unit_test(a_record_lingers_and_no_longer),
		cmocka_unit_test(equal_resources_stand_once),
		cmocka_unit_test(duties_stand_as_the_bytes_do),
		cmocka_unit_test(edited_spans_and_picked_ones),
		cmocka_unit_test(little_of_much_is_copied_out),
		cmocka_unit_test(no_more_is_held_than_enough),
		cmocka_unit_test(every_limit_cuts_between_spans),
		cmocka_unit_test(giants_and_dwarfs),
		cmocka_unit_test(a_buffer_grows),
		cmocka_unit_test(one_record_per_trace),
		cmocka_unit_test(halves_hold_everything),
		cmocka_unit_test(encodings_within_their_bounds),
		cmocka_unit_test(idle_routes_go),
		cmocka_unit_test(a_topic_that_grows),
		cmocka_unit_test(written_bytes_are_the_encoded_ones),
	};

	return cmocka_run_group_tests_name("kafka_gather", tests, NULL, NULL);
}
