/* SPDX-License-Identifier: Apache-2.0
 *
 * dead_letter.c - see dead_letter.h.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "exporters/kafka/exporter.h"
#include "pipeline/telemetry.h"
#include "wire/otlp_encode.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { AGAIN_MS = 1000 };

static void write_next(struct kafka_state *st);

/* ---- the file ---- */

/* {"time":..,"topic":..,"tenant":..,"reason":..,"request":"<base64>"}; none of the texts has a
 * character that JSON would want escaped. */
static char *line_of(const struct record *rec, size_t *n)
{
	char time[CLOCK_RFC3339_SIZE];
	char *head, *line;

	clock_format_rfc3339(clock_wall_ns(), time);
	head = xasprintf("{\"time\":\"%s\",\"topic\":\"%s\",\"tenant\":\"%s\",\"reason\":\"%s\","
			 "\"request\":\"",
			 time, rec->route->topic->name, rec->route->tenant, rec->reason);
	*n = strlen(head);
	line = xmalloc(*n + 4 * ((rec->otlp->n + 2) / 3) + 5);
	memcpy(line, head, *n);
	free(head);
	*n += str_base64(rec->otlp->p, rec->otlp->n, line + *n);
	memcpy(line + *n, "\"}\n", 3);
	*n += 3;
	return line;
}

static int write_all(int fd, const char *p, size_t n)
{
	while (n > 0) {
		ssize_t done = write(fd, p, n);

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return -1;
		p += done;
		n -= (size_t)done;
	}
	return 0;
}

/* On a pool thread. A line that cannot be written whole is not written at all. */
static void write_line(void *arg)
{
	struct kafka_state *st = arg;
	const char *path = st->conf->dead_letter_file;
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
	struct err *err = &st->dead_letter.err;
	struct stat was = { .st_size = 0 };
	size_t n;
	char *line = line_of(st->dead_letter.first, &n);

	err_clear(err);
	if (fd < 0 || fstat(fd, &was) < 0) {
		err_errno(err, "open %s", path);
	} else if (write_all(fd, line, n) < 0 || fdatasync(fd) < 0) {
		err_errno(err, "write %s", path);
		if (ftruncate(fd, was.st_size) < 0)
			log_warn("half a dead letter stays in the file", "file", path);
	}
	if (fd >= 0)
		close(fd);
	free(line);
}

static struct record *take_first(struct dead_letter *d)
{
	struct record *rec = d->first;

	d->first = rec->next;
	if (d->first == NULL)
		d->last = NULL;
	rec->next = NULL;
	return rec;
}

static void write_again(void *arg)
{
	write_next(arg);
}

static void written(void *arg)
{
	struct kafka_state *st = arg;
	struct dead_letter *d = &st->dead_letter;

	d->is_writing = false;
	if (d->err.kind == ERR_NONE) {
		atomic_fetch_add(&st->n_dead_letters, 1);
		atomic_fetch_add(&st->c->count->sent, 1);
		record_settle(take_first(d), VERDICT_DELIVERED, DROP_REASON_MAX, NULL);
		write_next(st);
	} else if (st->is_stopping) {
		dead_letter_abort(st);
	} else {
		log_error("cannot write a dead letter; trying again", "exporter", st->c->id,
			  "error", d->err.msg);
		d->again = (struct loop_timer){ .fn = write_again, .arg = st };
		loop_timer_start(st->loop, &d->again, AGAIN_MS);
	}
	kafka_resume(st);
}

static void write_next(struct kafka_state *st)
{
	struct dead_letter *d = &st->dead_letter;

	if (d->is_writing || d->first == NULL)
		return;
	d->is_writing = true;
	d->job = (struct loop_job){ .work = write_line, .done = written, .arg = st };
	loop_work(st->loop, &d->job);
}

void dead_letter_abort(struct kafka_state *st)
{
	struct dead_letter *d = &st->dead_letter;
	struct err err = ERR_INIT;

	err_set(&err, ERR_UNAVAILABLE, "shutting down");
	if (loop_timer_is_active(&d->again))
		loop_timer_stop(st->loop, &d->again);
	while (d->first != NULL && !d->is_writing)
		record_settle(take_first(d), VERDICT_RETRYABLE, DROP_SHUTDOWN, &err);
}

/* ---- letters ---- */

static void drop(struct kafka_state *st, struct record *rec, const struct err *err)
{
	atomic_fetch_add(&st->c->count->send_failed, record_n_spans(rec));
	record_settle(rec, VERDICT_PERMANENT, DROP_TOO_LARGE, err);
}

void dead_letter_put(struct kafka_state *st, struct route *route, const struct batch *b, uint32_t i,
		     size_t size, size_t limit)
{
	struct record *rec = record_new(&st->pool, route, KAFKA_ANY_PARTITION, size);
	struct span_tables tables = b->tables;
	struct err err = ERR_INIT;

	tables.n_extras = 0;
	record_append(rec, b, &tables, &i, 1, otlp_encoded_size(&tables, &i, 1));
	rec->reason =
		size > 0 ? xasprintf("span of %zu bytes, the topic takes %zu", size, limit)
			 : xasprintf("span is larger than the %zu bytes the topic takes", limit);
	err_set(&err, ERR_TOO_LARGE, "topic %s: %s", route->topic->name, rec->reason);
	if (st->conf->dead_letter_topic[0] != '\0') {
		delivery_send(st, rec);
	} else if (st->conf->dead_letter_file[0] != '\0') {
		*(st->dead_letter.last ? &st->dead_letter.last->next : &st->dead_letter.first) =
			rec;
		st->dead_letter.last = rec;
		write_next(st);
	} else {
		log_error("a span is too large for the topic and dropped: raise max.message.bytes "
			  "and producer.max_message_bytes, or set dead_letter",
			  "exporter", st->c->id, "error", err.msg);
		drop(st, rec, &err);
	}
}

void dead_letter_refused(struct kafka_state *st, struct record *rec, const struct err *err)
{
	log_error("the dead letter topic does not take a span, which is dropped: raise its "
		  "max.message.bytes",
		  "exporter", st->c->id, "topic", st->conf->dead_letter_topic, "reason",
		  rec->reason, "error", err->msg);
	drop(st, rec, err);
}
