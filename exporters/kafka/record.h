/* SPDX-License-Identifier: Apache-2.0
 *
 * record.h - one Kafka record on its way: encoded spans, and the duty to settle them.
 *
 * The bytes are an ExportTraceServiceRequest in one pooled buffer; spans of further batches are
 * written behind those that are there (joined requests are one request). librdkafka reads the
 * buffer until its delivery report.
 *
 * THREADS: the exporter's loop. OWNERSHIP: whoever holds it; a record is freed only when its debt
 * is settled or moved. LIMITS: the pool counts the bytes of all records that are there; the
 * exporter keeps that within its window. The buffers are charged to the budget.
 * docs/decisions/010; docs/formats/kafka-record.md.
 */
#ifndef EXPORTERS_KAFKA_RECORD_H
#define EXPORTERS_KAFKA_RECORD_H

#include "base/buf.h"
#include "exporters/kafka/encoding.h"
#include "pipeline/span/debt.h"

struct route;

struct record_pool {
	struct budget *budget;
	enum otlp_signal signal; /* what the records are of */
	struct record *idle;     /* with the memory of their debts */
	size_t n_idle;
	size_t n_records; /* that are there */
	size_t n_bytes;   /* their buffers' capacities */
};

struct record {
	struct record *next, *prev; /* of the list it is in */
	struct record_pool *pool;
	struct route *route;
	struct rcbuf *otlp;
	struct buf encoded; /* what is sent instead, with an encoding other than otlp_proto */
	struct span_debt debt;
	uint64_t n_points; /* of metrics */
	int32_t partition;
	bool has_key;
	bool is_above;        /* the limit that is known of its topic: parked for a better answer */
	uint8_t trace_id[16]; /* the key, when there is one */
	char key[32];         /* the same as it is sent */
	char *reason;         /* a dead letter, and why; else NULL */
	uint64_t due_ns;      /* open: when it is sent; failed: when it is sent again */
	uint64_t first_ns;    /* of the first attempt */
	int64_t backoff_ns;
};

/* An empty record with room for n bytes. Never fails: what it copies is in memory already. */
struct record *record_new(struct record_pool *pool, struct route *route, int32_t partition,
			  size_t n);
/* Copy the spans pick[] of b behind the others, with the duty to settle them. `t` are b's tables,
 * or a copy without extras; size is otlp_encoded_size of the same. */
void record_append(struct record *rec, const struct batch *b, const struct span_tables *t,
		   const uint32_t *pick, uint32_t n, size_t size);
/* The spans as a batch again, with their duty. Frees rec. */
struct batch *record_to_batch(struct record *rec);
/* Every span has this verdict. Frees rec. */
void record_settle(struct record *rec, enum verdict v, enum drop_reason reason,
		   const struct err *err);
static inline uint32_t record_n_spans(const struct record *rec)
{
	return (uint32_t)rec->debt.n_spans;
}
/* What the counters count: spans, log records, data points. */
static inline uint64_t record_n_items(const struct record *rec)
{
	return rec->pool->signal == OTLP_METRICS ? rec->n_points : record_n_spans(rec);
}
/* What is sent as the value. */
struct bytes record_value(const struct record *rec);
/* Make rec->encoded; it stays within max_bytes, or -1. */
int record_encode(struct record *rec, kafka_encode_fn encode, size_t max_bytes, struct err *err);
/* Give the idle memory back; no records are there. */
void record_pool_fini(struct record_pool *pool);

#endif
