/* SPDX-License-Identifier: Apache-2.0
 *
 * dead_letter.c - records that cannot be read: to the dead letter topic, or a line in a file, as
 * they are.
 *
 * A record is done with only when its letter is safe, so the consumer's thread waits for it; broken
 * records are rare, and a partition must not run ahead of them. Key and value are unchanged, the
 * headers say `topic`, `partition`, `offset` and `reason` (INTERFACE "Dead letters").
 * THREADS: put is called by the consumer's thread; the producer lives on a loop.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "net/loop.h"
#include "receivers/kafka/receiver.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WAIT_S = 15 };

struct dead_letters {
	struct component *c;
	const struct kafka_receiver_config *conf;
	struct loop *loop;
	struct kafka_producer *producer; /* NULL: a file, or nothing */
	struct kafka_producer_settings settings;
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

static int put_record(struct dead_letters *d, const struct kafka_message *m, const char *reason,
		      struct err *err)
{
	struct letter *l = letter_new(d, m, reason);
	struct timespec until;
	int ret = 0;

	loop_call(d->loop, send_letter, l);
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += WAIT_S;
	pthread_mutex_lock(&d->lock);
	while (!l->is_done && pthread_cond_timedwait(&d->done, &d->lock, &until) != ETIMEDOUT) {
	}
	if (!l->is_done) {
		l->is_left = true;
		pthread_mutex_unlock(&d->lock);
		return err_set(err, ERR_TIMEOUT, "dead letter topic %s does not answer",
			       d->conf->dead_letter_topic);
	}
	pthread_mutex_unlock(&d->lock);
	if (l->err.kind != ERR_NONE) {
		*err = l->err;
		ret = -1;
	}
	letter_free(l);
	return ret;
}

/* ---- the file ---- */

static void add_base64(struct buf *out, struct bytes b)
{
	char *text = xmalloc(4 * ((b.n + 2) / 3) + 1);
	size_t n = str_base64(b.p, b.n, text);

	buf_add(out, text, n);
	free(text);
}

/* Control characters and quotes would break the line. */
static void add_text(struct buf *out, const char *text)
{
	for (; *text; text++)
		buf_add_char(out, (unsigned char)*text < ' ' || *text == '"' || *text == '\\'
					  ? '?'
					  : *text);
}

static void add_line(struct buf *out, const struct kafka_message *m, const char *reason)
{
	char time[CLOCK_RFC3339_SIZE];

	clock_format_rfc3339(clock_wall_ns(), time);
	buf_printf(out, "{\"time\":\"%s\",\"topic\":\"%s\",\"partition\":%d,\"offset\":%llu,", time,
		   m->at.topic, (int)m->at.partition, (unsigned long long)m->offset);
	buf_add_str(out, "\"reason\":\"");
	add_text(out, reason);
	buf_add_str(out, "\",\"key\":");
	if (m->has_key) {
		buf_add_char(out, '"');
		add_base64(out, m->key);
		buf_add_char(out, '"');
	} else {
		buf_add_str(out, "null");
	}
	buf_add_str(out, ",\"value\":\"");
	add_base64(out, m->value);
	buf_add_str(out, "\"}\n");
}

static int write_all(int fd, struct bytes b)
{
	while (b.n > 0) {
		ssize_t done = write(fd, b.p, b.n);

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return -1;
		b.p += done;
		b.n -= (size_t)done;
	}
	return 0;
}

/* A line that cannot be written whole is not written at all. */
static int put_line(struct dead_letters *d, const struct kafka_message *m, const char *reason,
		    struct err *err)
{
	const char *path = d->conf->dead_letter_file;
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640), ret = -1;
	struct stat was = { .st_size = 0 };
	struct buf line = BUF_INIT;

	add_line(&line, m, reason);
	if (fd < 0 || fstat(fd, &was) < 0) {
		err_errno(err, "open %s", path);
	} else if (write_all(fd, buf_bytes(&line)) < 0 || fdatasync(fd) < 0) {
		err_errno(err, "write %s", path);
		if (ftruncate(fd, was.st_size) < 0)
			log_warn("half a dead letter stays in the file", "file", path);
	} else {
		ret = 0;
	}
	if (fd >= 0)
		close(fd);
	buf_fini(&line);
	return ret;
}

/* ---- both ---- */

int dead_letters_put(struct dead_letters *d, const struct kafka_message *m, const char *reason,
		     struct err *err)
{
	if (d->producer == NULL && d->conf->dead_letter_file[0] == '\0')
		return 0;
	if (d->producer == NULL)
		return put_line(d, m, reason, err);
	if (put_record(d, m, reason, err) == 0)
		return 0;
	if (err->retryable)
		return -1;
	log_error("the dead letter topic does not take a record, which is lost: raise its "
		  "max.message.bytes",
		  "receiver", d->c->id, "topic", d->conf->dead_letter_topic, "error", err->msg);
	err_clear(err);
	return 0;
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
