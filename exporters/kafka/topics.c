/* SPDX-License-Identifier: Apache-2.0
 *
 * topics.c - see topics.h.
 */
#include "exporters/kafka/topics.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

/* Of each of the two questions. A process that stops waits for them. */
enum { ASK_TIMEOUT_MS = 1000 };
#define WARN_AGAIN_NS (30 * NS_PER_S)
#define STALE_NS (2 * NS_PER_S)
#define WAIT_MAX_NS (10 * NS_PER_S)

static void ask_next(void *arg);

/* ---- answers ---- */

/* True at most once in a while per topic. */
static bool may_warn(struct topic *t)
{
	uint64_t now = clock_mono_ns();

	if (t->warned_ns != 0 && now - t->warned_ns < WARN_AGAIN_NS)
		return false;
	t->warned_ns = now;
	return true;
}

static void say_missing(const struct topics *ts, struct topic *t)
{
	if (may_warn(t))
		log_error("the topic does not exist; create it: kafka-topics.sh --create "
			  "--partitions 16 --replication-factor 3 --config min.insync.replicas=2 "
			  "--topic TOPIC --bootstrap-server BROKER",
			  "exporter", ts->o.id, "topic", t->name, "brokers", ts->o.brokers);
}

/* What an acknowledgement of all in-sync replicas is worth there. */
static void check_replicas(const struct topics *ts, struct topic *t)
{
	const struct kafka_topic_info *i = &ts->info;

	if (t->is_checked)
		return;
	t->is_checked = true;
	if (i->config_err.kind != ERR_NONE)
		log_warn("the topic's limits are not known: allow this client DescribeConfigs",
			 "exporter", ts->o.id, "topic", t->name, "error", i->config_err.msg);
	else if (i->min_insync_replicas > i->n_replicas)
		log_error("the topic takes no record with acks=all: min.insync.replicas is higher "
			  "than its replicas",
			  "exporter", ts->o.id, "topic", t->name, "min_insync_replicas",
			  LOG_NUM(i->min_insync_replicas), "replicas", LOG_NUM(i->n_replicas));
	else if (ts->o.acks_all && i->min_insync_replicas < 2)
		log_warn("an acknowledged record may be on one broker only: give the topic 3 "
			 "replicas and min.insync.replicas=2",
			 "exporter", ts->o.id, "topic", t->name, "min_insync_replicas",
			 LOG_NUM(i->min_insync_replicas), "replicas", LOG_NUM(i->n_replicas));
}

static void learn(struct topics *ts, struct topic *t)
{
	const struct kafka_topic_info *i = &ts->info;

	if (t->state != TOPIC_KNOWN || t->n_partitions != i->n_partitions)
		log_info("topic found", "exporter", ts->o.id, "topic", t->name, "partitions",
			 LOG_NUM(i->n_partitions), "max_message_bytes",
			 LOG_NUM(i->max_message_bytes));
	t->state = TOPIC_KNOWN;
	t->wait_ns = 0;
	t->n_partitions = i->n_partitions;
	if (i->max_message_bytes > 0)
		t->max_bytes = i->max_message_bytes;
	check_replicas(ts, t);
}

static void fail(struct topics *ts, struct topic *t)
{
	bool is_missing = ts->err.kind == ERR_NOT_FOUND;

	/* A topic that was there keeps its partitions: what is on its way may get through. */
	if (is_missing) {
		t->state = TOPIC_MISSING;
		t->n_partitions = 0;
		t->is_checked = false;
		say_missing(ts, t);
	} else if (may_warn(t)) {
		log_warn("the brokers say nothing about the topic", "exporter", ts->o.id, "topic",
			 t->name, "error", ts->err.msg);
	}
	/* Somebody may be creating it just now; or it is a name that will never be there. */
	t->wait_ns = is_missing ? MIN(MAX(2 * t->wait_ns, ts->o.retry_ns), WAIT_MAX_NS) : 0;
	t->ask_ns = clock_mono_ns() + MAX(t->wait_ns, ts->o.retry_ns);
}

/* On the loop. */
static void asked(void *arg)
{
	struct topics *ts = arg;
	struct topic *t = ts->asked;

	atomic_store(&ts->is_asking, false);
	t->asked_ns = clock_mono_ns();
	t->ask_ns = t->asked_ns + ts->o.refresh_ns;
	if (ts->err.kind == ERR_NONE)
		learn(ts, t);
	else
		fail(ts, t);
	if (ts->is_stopping)
		return;
	ts->o.answered(ts->o.arg, t);
	ask_next(ts);
}

/* ---- questions ---- */

/* On a pool thread. */
static void ask(void *arg)
{
	struct topics *ts = arg;

	kafka_producer_describe(ts->producer, ts->asked->name, ASK_TIMEOUT_MS, &ts->info, &ts->err);
}

static struct topic *most_due(const struct topics *ts)
{
	struct topic *due = ts->first;

	for (struct topic *t = ts->first; t != NULL; t = t->next)
		if (t->ask_ns < due->ask_ns)
			due = t;
	return due;
}

/* Ask for what is due, or set the timer for what will be. */
static void ask_next(void *arg)
{
	struct topics *ts = arg;
	struct topic *t = most_due(ts);
	uint64_t now = clock_mono_ns();

	if (t == NULL || ts->is_stopping || atomic_load(&ts->is_asking))
		return;
	ts->producer = t->ask_ns <= now ? ts->o.producer(ts->o.arg) : NULL;
	if (ts->producer == NULL) {
		uint64_t wait = t->ask_ns > now ? t->ask_ns - now : ts->o.retry_ns;

		loop_timer_start(ts->o.loop, &ts->timer, wait / NS_PER_MS + 1);
		return;
	}
	atomic_store(&ts->is_asking, true);
	ts->asked = t;
	err_clear(&ts->err);
	ts->job = (struct loop_job){ .work = ask, .done = asked, .arg = ts };
	loop_work(ts->o.loop, &ts->job);
}

void topics_ask(struct topics *ts, struct topic *t)
{
	t->ask_ns = 0;
	ask_next(ts);
}

struct topic *topics_find(struct topics *ts, const char *name)
{
	struct topic *t = map_find(&ts->by_name, bytes_str(name));

	if (t != NULL || ts->by_name.n == TOPICS_MAX)
		return t;
	t = xcalloc(1, sizeof(*t));
	t->name = xstrdup(name);
	t->max_bytes = UINT64_MAX;
	t->next = ts->first;
	ts->first = t;
	map_set(&ts->by_name, bytes_str(name), t);
	ask_next(ts);
	return t;
}

bool topics_is_stale(const struct topic *t, uint64_t linger_ns)
{
	return clock_mono_ns() - t->asked_ns > STALE_NS + linger_ns;
}

bool topics_is_asking(const struct topics *ts)
{
	return atomic_load(&ts->is_asking);
}

/* ---- life ---- */

void topics_init(struct topics *ts, const struct topics_settings *o)
{
	*ts = (struct topics){ .o = *o };
	ts->timer = (struct loop_timer){ .fn = ask_next, .arg = ts };
}

void topics_stop(struct topics *ts)
{
	ts->is_stopping = true;
	loop_timer_stop(ts->o.loop, &ts->timer);
}

void topics_fini(struct topics *ts)
{
	struct topic *t;

	assert(!topics_is_asking(ts));
	while ((t = ts->first) != NULL) {
		ts->first = t->next;
		free(t->name);
		free(t);
	}
	map_fini(&ts->by_name);
}
