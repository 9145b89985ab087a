/* SPDX-License-Identifier: Apache-2.0
 *
 * topics.h - what the brokers say of the topics we write to: partitions, largest record, replicas;
 * asked for in the background, at start, again from time to time, and when a record comes back.
 *
 * THREADS: the exporter's loop; one question at a time waits on a pool thread.
 * LIMITS: TOPICS_MAX names.
 */
#ifndef EXPORTERS_KAFKA_TOPICS_H
#define EXPORTERS_KAFKA_TOPICS_H

#include "base/map.h"
#include "net/kafka_producer.h"
#include "net/loop_work.h"

enum { TOPICS_MAX = 1000 };

enum topic_state {
	TOPIC_UNKNOWN, /* never answered */
	TOPIC_KNOWN,
	TOPIC_MISSING, /* the brokers have no such topic */
};

struct topic {
	struct topic *next;
	char *name;
	enum topic_state state;
	uint32_t n_partitions; /* 0: not known yet */
	uint64_t max_bytes;    /* the largest record batch it takes; UINT64_MAX: not known */
	/* ---- topics.c's ---- */
	uint64_t asked_ns;  /* the last answer, well or not */
	uint64_t ask_ns;    /* when to ask again */
	uint64_t wait_ns;   /* between two questions while it is missing */
	uint64_t warned_ns; /* of what is wrong with it */
	bool is_checked;    /* its replicas were looked at */
};

struct topics_settings {
	struct loop *loop;
	const char *id;      /* the component's */
	const char *brokers; /* for advice in messages */
	uint64_t refresh_ns, retry_ns;
	bool acks_all;
	void *arg;
	struct kafka_producer *(*producer)(void *arg); /* to ask with; NULL: not now */
	void (*answered)(void *arg, struct topic *t);  /* well or not */
};

struct topics {
	struct topics_settings o;
	struct topic *first;
	struct map by_name;
	struct loop_timer timer;
	struct loop_job job;
	bool is_stopping;
	_Atomic bool is_asking;
	/* ---- of the question under way ---- */
	struct kafka_producer *producer;
	struct topic *asked;
	struct kafka_topic_info info;
	struct err err;
};

void topics_init(struct topics *ts, const struct topics_settings *o);
/* The topic of this name; a new one is asked for at once. NULL: there are TOPICS_MAX. */
struct topic *topics_find(struct topics *ts, const char *name);
/* What we know may be wrong: ask again now. */
void topics_ask(struct topics *ts, struct topic *t);
/* What we know of it is so old that it is worth a question before a span is given up. What comes
 * back from a question has waited linger_ns since. */
bool topics_is_stale(const struct topic *t, uint64_t linger_ns);
/* A question is under way: the producer may not go, nor the loop stop. Any thread. */
bool topics_is_asking(const struct topics *ts);
/* Ask no more. */
void topics_stop(struct topics *ts);
void topics_fini(struct topics *ts);

#endif
