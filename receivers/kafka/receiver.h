/* SPDX-License-Identifier: Apache-2.0
 *
 * receiver.h - what the files of the kafka receiver share.
 *
 *   consumer thread: poll -> partition_take -> run of records -> source_add, component_emit
 *                    partition_look_after: commit what is done with, read again, resume
 *
 * THREADS: one thread per receiver does all of it; `lock` covers what metrics and readiness ask.
 */
#ifndef RECEIVERS_KAFKA_RECEIVER_H
#define RECEIVERS_KAFKA_RECEIVER_H

#include "net/kafka_consumer.h"
#include "net/kafka_producer.h"
#include "base/rng.h"
#include "pipeline/component.h"
#include "pipeline/conf/error.h"
#include "pipeline/option/kafka.h"
#include "pipeline/source/source.h"
#include "pipeline/telemetry.h"

#include <pthread.h>

enum kafka_input {
	INPUT_OTLP_PROTO,
	INPUT_OTLP_JSON,
	INPUT_ZIPKIN_JSON,
	INPUT_ZIPKIN_PROTO,
	INPUT_ZIPKIN_THRIFT,
	INPUT_JAEGER_PROTO,
	INPUT_JAEGER_JSON,
};

enum { INITIAL_EARLIEST, INITIAL_LATEST };
enum { STRATEGY_COOPERATIVE_STICKY, STRATEGY_RANGE, STRATEGY_ROUNDROBIN, STRATEGY_STICKY };

struct kafka_backoff_options {
	bool enabled;
	int64_t initial_ns, max_ns, max_elapsed_ns;
	double multiplier, randomization;
};

struct kafka_receiver_config {
	struct kafka_client_options client;
	const char *group_id, *group_instance_id;
	int initial_offset, strategy;
	int64_t session_timeout_ns, heartbeat_ns, max_fetch_wait_ns;
	uint64_t min_fetch, max_fetch, max_partition_fetch;
	struct strlist topics, exclude_topics, old_exclude_topics;
	const char *old_topic, *older_topic, *old_exclude, *older_exclude;
	bool has_topics;
	int encoding, old_encoding;
	bool has_encoding, has_old_encoding;
	bool autocommit, has_autocommit;
	int64_t commit_interval_ns;
	bool mark_after, has_mark_after, mark_on_error, mark_on_permanent, has_mark_on_permanent;
	bool extract_headers;
	struct strlist headers;
	struct kafka_backoff_options backoff;
	bool has_backoff;
	const char *dead_letter_topic, *dead_letter_file;
};

extern const struct option kafka_receiver_option_table[];
void kafka_receiver_validate(void *config, const struct conf_node *node, struct conf_errors *errs,
			     const char *path);
/* The consumer's properties, and those of the producer of dead letters. */
void kafka_receiver_properties(const struct kafka_receiver_config *conf,
			       struct kafka_properties *consumer,
			       struct kafka_properties *producer);

/* ---- dead letters ---- */

struct dead_letters;

/* NULL with *err. Also when none is configured: then letters are only counted. */
struct dead_letters *dead_letters_new(struct component *c, const struct kafka_settings *producer,
				      struct err *err);
void dead_letters_free(struct dead_letters *d);
/* One record on its way to the dead letter topic. */
struct letter;

enum letter_fate {
	LETTER_IS_SAFE,
	LETTER_UNDER_WAY, /* ask again with the same *under_way */
	LETTER_FAILED,    /* with *err; begin again later */
	/* There is no place for letters, or the dead letter topic itself does not take this one,
	 * which is logged and lost. */
	LETTER_NOWHERE,
};
/* Write one record. *under_way is NULL at first, and while it is not the same letter is asked for:
 * m and reason are not looked at then. Blocks for some milliseconds at most, but for a file's disk.
 */
enum letter_fate dead_letters_put(struct dead_letters *d, const struct kafka_message *m,
				  const char *reason, struct letter **under_way, struct err *err);
/* Nobody asks for this one any more; it may still arrive. NULL is fine. */
void dead_letters_leave(struct letter *l);

/* ---- decoding ---- */

/* One record as OTLP: new ref, n = 0 for an empty record. NULL with *err: INVALID (poison),
 * TOO_LARGE (poison), EXHAUSTED (try again). *n_bad spans of it could not be read. */
struct rcbuf *record_decode(struct component *c, struct kafka_consumer *k,
			    const struct kafka_message *m, uint32_t *n_bad, char first_bad[192],
			    struct err *err);
/* True when record headers are asked for: then records cannot be joined as they are. */
bool record_has_extras(struct component *c);
/* The tenant of a record. -1: no legal name. */
int record_tenant(struct component *c, struct kafka_consumer *k, const struct kafka_message *m,
		  char tenant[TENANT_MAX + 1], struct err *err);

/* ---- partitions ---- */

struct partition {
	struct component *c;
	char *topic;
	struct kafka_partition at; /* topic is the one above */
	struct source *source;
	struct kafka_message *held; /* read and not sent down yet, in order */
	size_t n_held, cap_held;
	uint64_t held_bytes;
	uint64_t one_by_one;   /* up to this offset a run is one record: one of them is broken */
	struct letter *letter; /* of the first that is held; NULL: none is under way */
	uint64_t broken_next;  /* of records below this offset it was said that they are broken */
	bool is_paused;        /* at librdkafka */
	bool is_stuck;         /* what is held cannot be sent down: memory, a dead letter */
	bool is_waiting;       /* something was refused: it is read again at again_mono_ns */
	uint64_t again_mono_ns;
	uint64_t backoff_ns; /* the last wait; 0: none */
	uint64_t seek_to;    /* still to be done; UINT64_MAX: nothing */
	uint64_t expected;   /* lower offsets do not come, unless the topic is another one */
	bool is_ending;      /* it is: what came of the old one is stored, then begin_at is read */
	uint64_t begin_at;
	uint64_t stored; /* offset told to Kafka */
	bool was_read;
	uint64_t first_read, next_read; /* offsets */
	/* Where the topic ended when we took the partition, or a little later: up to there the
	 * owner before us may have shown spans that we have not read yet. */
	uint64_t end;
	bool knows_end, has_caught_up;
	/* For the metrics. oldest_timestamp_ms 0: nothing is late. */
	_Atomic uint64_t lag_records, oldest_timestamp_ms, done_with;
	struct partition *next;
};

struct kafka_receiver_state {
	struct component *c;
	struct kafka_consumer *consumer;
	struct dead_letters *dead_letters;
	struct transport_counters *count;
	pthread_t thread;
	bool has_thread;
	_Atomic bool stopping, draining, drained;
	char cluster[SOURCE_SEGMENT_MAX + 1];
	unsigned rebalances;
	bool is_unsure;     /* which partitions are ours, and whether others have the rest */
	bool was_revoked;   /* since it was sure */
	uint64_t sure_ns;   /* when it will be; 0: not before we are told again */
	bool is_fatal;      /* the consumer has ended: another one is made */
	uint64_t anew_ns;   /* the wait before the last one; 0: none yet */
	uint64_t joined_ns; /* when the consumer got its last partitions */
	bool misses_topics; /* some are not there, or forbidden: looked for more often */
	uint64_t looked_ns;
	struct budget *budget;
	size_t reserved; /* of the budget, for what librdkafka fetches ahead */
	/* lock */
	pthread_mutex_t lock;
	bool has_lock;
	struct partition *partitions;
	bool was_assigned;
	char trouble[200]; /* the last one before the first assignment */
	/* counters */
	_Atomic uint64_t records, bytes, broken, dead, rewinds, opened, closed;
	struct rng rng; /* of the waits */
};

/* The partition is ours now; of so many of its topic, 0: not known. */
void partition_open(struct kafka_receiver_state *st, const struct kafka_partition *at,
		    uint32_t n_partitions);
/* It is not. Commits what is done with, unless others have it already. */
void partition_close(struct kafka_receiver_state *st, struct partition *p, bool is_lost);
/* The topic is another one, and nothing of the old one is under way. */
bool partition_has_ended(struct partition *p);
/* Instead of p one that reads the new topic. */
void partition_begin_again(struct kafka_receiver_state *st, struct partition *p);
/* Nothing of it is under way. */
bool partition_is_settled(struct partition *p);
/* Nothing of it waits for a time or for somebody below; what it stores it may store a little later.
 */
bool partition_is_quiet(const struct partition *p);
/* A record came. Takes m. */
void partition_take(struct kafka_receiver_state *st, struct partition *p, struct kafka_message *m);
/* There is nothing from this offset on. */
void partition_at_end(struct partition *p, uint64_t offset);
/* Send down what is held. */
void partition_flush(struct kafka_receiver_state *st, struct partition *p);
/* Between polls: commit, read again what was refused, go on after a pause. */
void partition_look_after(struct kafka_receiver_state *st, struct partition *p, uint64_t now_ns);

#endif
