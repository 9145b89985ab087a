/* SPDX-License-Identifier: Apache-2.0
 *
 * dead_letter.c - records that cannot be read: to the dead letter topic, or a line in a file, as
 * they are.
 *
 * A record is done with only when its letter is safe, and its partition does not run ahead of it.
 * The consumer's thread waits some milliseconds for that, which is enough for brokers that are
 * well; a letter that takes longer is asked for again, and the other partitions go on. Key and
 * value are unchanged, the headers say `topic`, `partition`, `offset` and `reason` (INTERFACE "Dead
 * letters").
 * THREADS: the consumer's thread calls all; the producer lives on a loop.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "net/loop.h"
#include "pipeline/send/dead_letter_file.h"
#include "receivers/kafka/receiver.h"

#include <stdio.h>
#include <time.h>

enum { QUICK_MS = 50, LONG_S = 15 };

struct dead_letters {
	struct component *c;
	const struct kafka_receiver_config *conf;
	struct loop *loop;
	struct kafka_producer *producer; /* NULL: a file, or nothing */
	struct kafka_producer_settings settings;
	bool is_slow; /* the last one took longer than QUICK_MS, or failed */
	pthread_mutex_t lock;
	pthread_cond_t done;
};

/* One letter under way; freed by whoever is the last to leave it. */
struct letter {
	struct dead_letters *d;
	struct kafka_record rec;
	struct kafka_header headers[4];
	char partition[16], offset[24];
	char *reason, *topic;
	uint8_t *bytes; /* key and value: the record may be given up while librdkafka has it */
	uint64_t since_mono_ns;
	bool is_long; /* and that was said */
	/* lock */
	bool is_done, is_left;
	struct err err;
};

/* ---- the topic ---- */

static void letter_free(struct letter *l)
{
	free(l->reason);
	free(l->topic);
	free(l->bytes);
	free(l);
}

static struct letter *letter_new(struct dead_letters *d, const struct kafka_message *m,
				 const char *reason)
{
	struct letter *l = xcalloc(1, sizeof(*l));

	l->d = d;
	l->reason = xstrdup(reason);
	l->topic = xstrdup(m->at.topic);
	snprintf(l->partition, sizeof(l->partition), "%d", (int)m->at.partition);
	snprintf(l->offset, sizeof(l->offset), "%llu", (unsigned long long)m->offset);
	l->bytes = xmalloc(m->key.n + m->value.n + 1);
	if (m->key.n > 0)
		memcpy(l->bytes, m->key.p, m->key.n);
	if (m->value.n > 0)
		memcpy(l->bytes + m->key.n, m->value.p, m->value.n);
	l->headers[0] = (struct kafka_header){ "topic", bytes_str(l->topic) };
	l->headers[1] = (struct kafka_header){ "partition", bytes_str(l->partition) };
	l->headers[2] = (struct kafka_header){ "offset", bytes_str(l->offset) };
	l->headers[3] = (struct kafka_header){ "reason", bytes_str(l->reason) };
	l->rec = (struct kafka_record){
		.topic = d->conf->dead_letter_topic,
		.partition = KAFKA_ANY_PARTITION,
		.key = { m->has_key ? l->bytes : NULL, m->key.n },
		.value = { l->bytes + m->key.n, m->value.n },
		.headers = l->headers,
		.n_headers = COUNT_OF(l->headers),
		.opaque = l,
	};
	return l;
}

static void finish(struct letter *l, const struct err *err)
{
	struct dead_letters *d = l->d;
	bool is_left;

	pthread_mutex_lock(&d->lock);
	l->is_done = true;
	if (err != NULL)
		l->err = *err;
	is_left = l->is_left;
	pthread_cond_broadcast(&d->done);
	pthread_mutex_unlock(&d->lock);
	if (is_left)
		letter_free(l);
}

static void delivered(void *arg, void *opaque, const struct err *err)
{
	(void)arg;
	finish(opaque, err);
}

static void troubled(void *arg, const struct err *err, bool is_fatal)
{
	struct dead_letters *d = arg;

	(void)is_fatal;
	log_warn("trouble with the dead letter topic", "receiver", d->c->id, "error", err->msg);
}

/* On the loop. */
static void send_letter(void *arg)
{
	struct letter *l = arg;
	struct err err = ERR_INIT;

	if (kafka_producer_send(l->d->producer, &l->rec, &err) < 0)
		finish(l, &err);
}

static struct letter *letter_begin(struct dead_letters *d, const struct kafka_message *m,
				   const char *reason)
{
	struct letter *l = letter_new(d, m, reason);

	l->since_mono_ns = clock_mono_ns();
	loop_call(d->loop, send_letter, l);
	return l;
}

static bool await_letter(struct dead_letters *d, struct letter *l)
{
	struct timespec until;
	bool is_done;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += d->is_slow ? 0 : QUICK_MS * (long)NS_PER_MS;
	until.tv_sec += until.tv_nsec / (long)NS_PER_S;
	until.tv_nsec %= (long)NS_PER_S;
	pthread_mutex_lock(&d->lock);
	while (!l->is_done &&
	       pthread_cond_clockwait(&d->done, &d->lock, CLOCK_MONOTONIC, &until) == 0) {
	}
	is_done = l->is_done;
	pthread_mutex_unlock(&d->lock);
	d->is_slow = !is_done || l->err.kind != ERR_NONE;
	return is_done;
}

static void say_long(struct dead_letters *d, struct letter *l)
{
	if (l->is_long || clock_mono_ns() - l->since_mono_ns < LONG_S * NS_PER_S)
		return;
	l->is_long = true;
	log_error("cannot write a dead letter, its partition waits", "receiver", d->c->id, "topic",
		  l->topic, "partition", l->partition, "offset", l->offset, "error",
		  "the brokers do not answer");
}

void dead_letters_leave(struct letter *l)
{
	struct dead_letters *d;
	bool is_done;

	if (l == NULL)
		return;
	d = l->d;
	pthread_mutex_lock(&d->lock);
	is_done = l->is_done;
	l->is_left = true;
	pthread_mutex_unlock(&d->lock);
	if (is_done)
		letter_free(l);
}

/* ---- the file ---- */

static int put_line(struct dead_letters *d, const struct kafka_message *m, const char *reason,
		    struct err *err)
{
	const struct dead_letter_member v[] = {
		{ "topic", LETTER_TEXT, bytes_str(m->at.topic), 0 },
		{ "partition", LETTER_NUMBER, BYTES_EMPTY, (uint64_t)m->at.partition },
		{ "offset", LETTER_NUMBER, BYTES_EMPTY, m->offset },
		{ "reason", LETTER_TEXT, bytes_str(reason), 0 },
		{ "key", m->has_key ? LETTER_BASE64 : LETTER_NULL, m->key, 0 },
		{ "value", LETTER_BASE64, m->value, 0 },
	};

	return dead_letter_file_put(d->conf->dead_letter_file, v, COUNT_OF(v), err);
}

/* ---- both ---- */

static enum letter_fate put_record(struct dead_letters *d, const struct kafka_message *m,
				   const char *reason, struct letter **under_way, struct err *err)
{
	struct letter *l = *under_way ? *under_way : letter_begin(d, m, reason);

	*under_way = l;
	if (!await_letter(d, l)) {
		say_long(d, l);
		return LETTER_UNDER_WAY;
	}
	*under_way = NULL;
	if (l->err.kind != ERR_NONE)
		*err = l->err;
	letter_free(l);
	if (err->kind == ERR_NONE)
		return LETTER_IS_SAFE;
	if (err->retryable)
		return LETTER_FAILED;
	log_error("the dead letter topic does not take a record, which is lost: raise its "
		  "max.message.bytes",
		  "receiver", d->c->id, "topic", d->conf->dead_letter_topic, "error", err->msg);
	err_clear(err);
	return LETTER_NOWHERE;
}

enum letter_fate dead_letters_put(struct dead_letters *d, const struct kafka_message *m,
				  const char *reason, struct letter **under_way, struct err *err)
{
	if (d->producer != NULL)
		return put_record(d, m, reason, under_way, err);
	if (d->conf->dead_letter_file[0] == '\0')
		return LETTER_NOWHERE;
	return put_line(d, m, reason, err) < 0 ? LETTER_FAILED : LETTER_IS_SAFE;
}

struct dead_letters *dead_letters_new(struct component *c, const struct kafka_settings *producer,
				      struct err *err)
{
	struct dead_letters *d = xcalloc(1, sizeof(*d));

	d->c = c;
	d->conf = COMPONENT_CONFIG(c, struct kafka_receiver_config);
	d->loop = component_loop(c, 0);
	pthread_mutex_init(&d->lock, NULL);
	pthread_cond_init(&d->done, NULL);
	if (d->conf->dead_letter_topic[0] == '\0')
		return d;
	d->settings = (struct kafka_producer_settings){
		.client = *producer,
		.loop = d->loop,
		.arg = d,
		.delivered = delivered,
		.troubled = troubled,
	};
	d->producer = kafka_producer_new(&d->settings, err);
	if (d->producer == NULL) {
		dead_letters_free(d);
		return NULL;
	}
	return d;
}

static void free_producer(void *arg)
{
	struct dead_letters *d = arg;

	kafka_producer_free(d->producer);
}

void dead_letters_free(struct dead_letters *d)
{
	if (d == NULL)
		return;
	/* Letters that nobody waits for any more get their report, and go. */
	if (d->producer != NULL)
		loop_call(d->loop, free_producer, d);
	pthread_mutex_destroy(&d->lock);
	pthread_cond_destroy(&d->done);
	free(d);
}
