/* SPDX-License-Identifier: Apache-2.0
 *
 * kafka_producer.h - sends records to Kafka and tells what became of each, on a loop (librdkafka).
 *
 *   loop: kafka_producer_send -> librdkafka's queue, its threads: batch, compress, send, retry
 *   loop: delivered(opaque) <- eventfd <- delivery reports
 *
 * Nothing is copied: a record's value and key belong to the caller until `delivered` has been
 * called with its opaque, exactly once, also when the producer is freed.
 *
 * THREADS: the loop's, but where said. LIMITS: none of its own; the caller bounds what is pending.
 * SPEC: Kafka producer protocol, by librdkafka.
 */
#ifndef NET_KAFKA_PRODUCER_H
#define NET_KAFKA_PRODUCER_H

#include "net/kafka_client.h"
#include "net/loop.h"

struct kafka_producer;

struct kafka_header {
	const char *name;
	struct bytes value;
};

#define KAFKA_ANY_PARTITION (-1)

struct kafka_record {
	const char *topic;
	int32_t partition; /* or KAFKA_ANY_PARTITION: by the key, without one anywhere */
	struct bytes key;  /* n = 0: none */
	struct bytes value;
	const struct kafka_header *headers; /* copied */
	size_t n_headers;
	void *opaque;
};

struct kafka_producer_settings {
	struct kafka_settings client; /* id, token_file outlive the producer */
	struct loop *loop;
	void *arg;
	/* err NULL: the broker has it, as `acks` wants. */
	void (*delivered)(void *arg, void *opaque, const struct err *err);
	/* The client as a whole is in trouble: no broker answers, a login is refused, ... is_fatal:
	 * this producer will deliver nothing any more; make another. */
	void (*troubled)(void *arg, const struct err *err, bool is_fatal);
};

/* NULL with *err: a property is not legal, a certificate cannot be read, librdkafka is missing. The
 * brokers need not be there. */
struct kafka_producer *kafka_producer_new(const struct kafka_producer_settings *s, struct err *err);
/* -1: not taken, `delivered` will not be called. */
int kafka_producer_send(struct kafka_producer *p, const struct kafka_record *r, struct err *err);
/* Records without a delivery report. */
size_t kafka_producer_pending(const struct kafka_producer *p);
/* What is pending fails now, by `delivered`; whether the broker has it is not known. NULL is fine.
 * Blocks for some milliseconds. */
void kafka_producer_free(struct kafka_producer *p);

/* What the brokers say of a topic. */
struct kafka_topic_info {
	uint32_t n_partitions;
	uint32_t n_replicas;          /* of the first partition */
	uint64_t max_message_bytes;   /* 0: not known */
	uint32_t min_insync_replicas; /* 0: not known */
	struct err config_err;        /* why the last two are not known */
};

/* Ask. Blocks for up to twice timeout_ms; any thread, while the producer exists. -1: NOT_FOUND when
 * there is no such topic. */
int kafka_producer_describe(struct kafka_producer *p, const char *topic, int timeout_ms,
			    struct kafka_topic_info *out, struct err *err);

#endif
