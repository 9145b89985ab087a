/* SPDX-License-Identifier: Apache-2.0
 *
 * kafka_consumer.h - a member of a consumer group that reads records and is told which partitions
 * are its own (librdkafka).
 *
 *   kafka_consumer_poll -> a record | assigned(), revoked() | troubled()
 *   kafka_consumer_store -> committed by librdkafka soon, and when partitions go or it is freed
 *
 * THREADS: one thread calls everything, and the callbacks run on it inside poll.
 * OWNERSHIP: a message is the caller's until kafka_message_free, also after the partition went.
 * LIMITS: what is fetched ahead, by queued.max.messages.kbytes.
 * SPEC: Kafka consumer protocol, eager and cooperative, by librdkafka.
 */
#ifndef NET_KAFKA_CONSUMER_H
#define NET_KAFKA_CONSUMER_H

#include "net/kafka_client.h"

struct kafka_consumer;

struct kafka_partition {
	const char *topic;
	int32_t partition;
};

struct kafka_message {
	struct kafka_partition at; /* topic borrows from the message */
	uint64_t offset;
	uint64_t timestamp_ms; /* 0: none */
	struct bytes key, value;
	bool has_key, has_value;
	void *handle; /* librdkafka's */
};

struct kafka_consumer_settings {
	struct kafka_settings client; /* copied */
	void *arg;
	void (*assigned)(void *arg, const struct kafka_partition *v, size_t n);
	/* is_lost: others own them already, offsets can be committed no more. */
	void (*revoked)(void *arg, const struct kafka_partition *v, size_t n, bool is_lost);
	/* All records below this offset were polled, and there is none from there on now. With
	 * enable.partition.eof. */
	void (*at_end)(void *arg, const struct kafka_partition *p, uint64_t offset);
	/* No broker answers, a login is refused, ... is_fatal: nothing will come any more, free it
	 * and make another; it may be told more than once. */
	void (*troubled)(void *arg, const struct err *err, bool is_fatal);
};

/* NULL with *err: a property is not legal, librdkafka is missing. The brokers need not be there. */
struct kafka_consumer *kafka_consumer_new(const struct kafka_consumer_settings *s, struct err *err);
/* Names, or regular expressions that begin with '^'. */
int kafka_consumer_subscribe(struct kafka_consumer *c, const char *const *topics, size_t n,
			     struct err *err);
/* Commit what was stored, leave the group (unless it is a static member), free; in any state, also
 * while it joins. No callback runs any more: the partitions are given up without revoked. Blocks
 * for 5 s at most; with brokers that do not answer the rest goes on by itself, and what was not
 * committed is read again. All messages are free before. NULL is fine. */
void kafka_consumer_free(struct kafka_consumer *c);

/* Wait up to timeout_ms for a record: true and *m is filled. */
bool kafka_consumer_poll(struct kafka_consumer *c, int timeout_ms, struct kafka_message *m);
void kafka_message_free(struct kafka_consumer *c, struct kafka_message *m);
/* The last header of this name. */
bool kafka_message_header(struct kafka_consumer *c, const struct kafka_message *m, const char *name,
			  struct bytes *value);
/* Header i; false behind the last one. */
bool kafka_message_header_at(struct kafka_consumer *c, const struct kafka_message *m, size_t i,
			     const char **name, struct bytes *value);

void kafka_consumer_pause(struct kafka_consumer *c, const struct kafka_partition *p, bool on);
/* Read on from this offset. What was fetched before it does not come any more. */
int kafka_consumer_seek(struct kafka_consumer *c, const struct kafka_partition *p, uint64_t offset,
			struct err *err);
/* Everything below `next` is done with. */
void kafka_consumer_store(struct kafka_consumer *c, const struct kafka_partition *p, uint64_t next);
/* The same, for the first time since the partition is ours: the group may have a higher offset, of
 * records that are not there any more, and librdkafka by itself commits only higher ones. */
void kafka_consumer_store_first(struct kafka_consumer *c, const struct kafka_partition *p,
				uint64_t next);
/* Commit nothing of what was stored any more: it is of others, or of records that are gone. */
void kafka_consumer_forget(struct kafka_consumer *c, const struct kafka_partition *p);
/* First offset in the partition and the one behind the last, as known from fetching; false: not
 * known yet. */
bool kafka_consumer_watermarks(struct kafka_consumer *c, const struct kafka_partition *p,
			       uint64_t *low, uint64_t *high);
/* Partitions of a topic; 0: cannot be asked now. */
uint32_t kafka_consumer_n_partitions(struct kafka_consumer *c, const char *topic, int timeout_ms);
/* Look for topics now and not only with the next refresh: such as were missing or forbidden when
 * subscribed to are then read. True when all of these names are there (patterns always are). Blocks
 * up to timeout_ms. */
bool kafka_consumer_look_for(struct kafka_consumer *c, const char *const *topics, size_t n,
			     int timeout_ms);
/* The cluster's id into out; "" when it cannot be asked now. */
void kafka_consumer_cluster_id(struct kafka_consumer *c, int timeout_ms, char *out, size_t size);

#endif
