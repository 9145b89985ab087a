/* SPDX-License-Identifier: Apache-2.0
 *
 * exporter.h - the kafka exporter's configuration and state, which its files share.
 *
 *   options.c    keys
 *   kafka.c      life, requests from the sending queue (which wait here for room)
 *   gather.c     spans into records            record.c   bytes and debt of one
 *   hold.c       requests that wait for that
 *   delivery.c   records to the brokers, and what becomes of them
 *   topics.c     what the brokers say of topics    dead_letter.c   spans that no topic takes
 *
 * THREADS: everything belongs to one loop, but what is atomic.
 */
#ifndef EXPORTERS_KAFKA_EXPORTER_H
#define EXPORTERS_KAFKA_EXPORTER_H

#include "base/rng.h"
#include "exporters/kafka/dead_letter.h"
#include "exporters/kafka/gather.h"
#include "exporters/kafka/encoding.h"
#include "exporters/kafka/topics.h"
#include "pipeline/option/kafka.h"
#include "pipeline/send/queue.h"

/* Where a signal goes: `traces:`, `metrics:`, `logs:`. */
struct kafka_place {
	const char *topic;
	int encoding; /* enum kafka_encoding */
	bool has_topic, has_encoding;
};

struct kafka_config {
	struct kafka_client_options client;
	struct kafka_place traces, metrics, logs;
	const char *old_topic;
	int old_encoding; /* enum kafka_encoding */
	bool has_old_encoding;
	const char *topic_from_metadata_key, *message_key_from_metadata_key, *topic_from_attribute;
	struct strlist include_metadata_keys;
	struct strmap record_headers;
	bool partition_traces_by_id;
	int hasher; /* enum hasher */
	bool round_robin_on, least_backup_on;
	struct kafka_nothing {
		char unused;
	} round_robin, least_backup;
	uint64_t max_message_bytes;
	int required_acks; /* -1: all */
	int compression;   /* enum compression */
	int64_t compression_level;
	uint64_t flush_max_messages;
	bool allow_auto_topic_creation;
	int64_t linger_ns;
	bool has_linger;
	const char *dead_letter_topic, *dead_letter_file;
	int64_t timeout_ns;
	struct retry_options retry;
	struct queue_options queue;
};

struct kafka_state {
	struct component *c;
	const struct kafka_config *conf;
	struct loop *loop;
	struct sending_queue *queue;
	struct kafka_producer *producer;
	struct kafka_properties properties; /* of the producer, all but batch.size */
	uint64_t batch_bytes;               /* its batch.size */
	struct err err;                     /* of what runs on the loop for start */
	struct record_pool pool;
	struct topics topics;
	struct topic *topic; /* the configured one */
	struct gather gather;
	struct dead_letter dead_letter;
	struct kafka_header *headers; /* of every record, and room for HEADERS_ROOM of its own */
	size_t n_headers;
	const char *tenant_header; /* of include_metadata_keys, or NULL */
	bool has_storage;          /* what fails at the end stays in a log */
	struct send_request *held; /* waits for room, or for topics */
	struct record *failed;     /* sent again when due, the next first */
	struct record *parked;     /* until their topic was asked about */
	struct record *waiting;    /* for the next producer */
	struct loop_timer retry_timer;
	struct rng rng;
	struct loop_task replace_task;
	bool is_posted;      /* the task */
	bool wants_producer; /* another one: nothing more is sent with this one */
	bool is_fatal;       /* it delivers nothing any more */
	bool is_stopping;    /* what comes back is given back */
	/* Spans are on their way to the brokers and nothing arrives. */
	_Atomic bool is_failing;
	_Atomic bool is_draining;
	_Atomic bool is_busy; /* records are there, or a question or a write is under way */
	_Atomic uint64_t n_records, n_record_bytes, n_retries, n_dead_letters;
	_Atomic uint64_t window_bytes;
	char *brokers; /* for messages */
};

/* ---- options.c ---- */

extern const struct option kafka_option_table[];
extern const struct option_choice kafka_compressions[];
void kafka_validate(void *config, const struct conf_node *node, struct conf_errors *errs,
		    const char *path);
bool kafka_is_topic_name(const char *name);
/* Of the signal that this instance writes. */
const struct kafka_place *kafka_place(const struct kafka_state *st);

/* ---- kafka.c ---- */

/* batch.size: records of a partition go together in one request up to this, where that is no more
 * than the topic takes of one record. */
enum { HEADERS_ROOM = 4, BATCH_BYTES_MIN = 1024, BATCH_BYTES_MAX = 1000000 };

/* Room may have come, or topics: take what waits. */
void kafka_resume(struct kafka_state *st);
/* A new producer with this batch.size, once the old one has delivered what it has. */
void kafka_replace_producer(struct kafka_state *st, uint64_t batch_bytes);
/* Note for other threads how much there is. */
void kafka_note(struct kafka_state *st);

/* ---- delivery.c ---- */

/* Send what is ready. */
void delivery_pump(struct kafka_state *st);
/* Send rec. Takes it. */
void delivery_send(struct kafka_state *st, struct record *rec);
/* Span i of b is above the limit that is known of its topic: take over its duty, ask for the limit
 * again and take what comes. False, and nothing done: that is not worth it. */
bool delivery_park_above(struct kafka_state *st, struct route *route, const struct batch *b,
			 uint32_t i);
/* There is another producer. */
void delivery_send_waiting(struct kafka_state *st);
/* Callbacks of the producer and of topics. */
void delivery_delivered(void *arg, void *opaque, const struct err *err);
void delivery_troubled(void *arg, const struct err *err, bool is_fatal);
void delivery_topic_answered(void *arg, struct topic *t);
void delivery_retry_due(void *arg);
/* It failed in a way that may pass: again later, or given up. Takes rec. */
void delivery_failed(struct kafka_state *st, struct record *rec, const struct err *err);
/* Everything that is not with the producer is given back as "try again". */
void delivery_abort(struct kafka_state *st);

#endif
