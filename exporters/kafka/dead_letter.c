/* SPDX-License-Identifier: Apache-2.0
 *
 * dead_letter.c - see dead_letter.h.
 */
#include "base/mem.h"
#include "exporters/kafka/exporter.h"
#include "pipeline/send/dead_letter_file.h"
#include "pipeline/telemetry.h"
#include "wire/otlp_encode.h"

enum { AGAIN_MS = 1000 };

static void write_next(struct kafka_state *st);

/* ---- the file ---- */

/* On a pool thread. */
static void write_line(void *arg)
{
	struct kafka_state *st = arg;
	const struct record *rec = st->dead_letter.first;
	const struct dead_letter_member v[] = {
		{ "topic", LETTER_TEXT, bytes_str(rec->route->topic->name), 0 },
		{ "tenant", LETTER_TEXT, bytes_str(rec->route->tenant), 0 },
		{ "reason", LETTER_TEXT, bytes_str(rec->reason), 0 },
		{ "request", LETTER_BASE64, { rec->otlp->p, rec->otlp->n }, 0 },
	};

	err_clear(&st->dead_letter.err);
	dead_letter_file_put(st->conf->dead_letter_file, v, COUNT_OF(v), &st->dead_letter.err);
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
		record_settle(take_first(d), VERDICT_ASIDE, DROP_REASON_MAX, NULL);
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
	atomic_fetch_add(&st->c->count->send_failed, record_n_items(rec));
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
