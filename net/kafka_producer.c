/* SPDX-License-Identifier: Apache-2.0
 *
 * kafka_producer.c - see kafka_producer.h.
 */
#include "net/kafka_producer.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "net/kafka_lib.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* REPORTS_EVERY_MS: so long nothing is looked at after there was something. A broker answers one
 * request after the other; without it each answer wakes the loop and makes it change places with
 * librdkafka's thread, which under load takes as long as compressing the request did. */
enum { DELIVERIES_AT_A_TIME = 256, PURGE_WAIT_MS = 5000, REPORTS_EVERY_MS = 2 };

struct kafka_producer {
	const struct kafka_settings *settings; /* first: kafka_lib_open */
	struct kafka_producer_settings o;
	const struct kafka_lib *lib;
	rd_kafka_t *rk;
	rd_kafka_queue_t *events;
	uv_poll_t poll;
	struct loop_timer pause;
	int fd;
	size_t pending;
};

/* ---- events ---- */

static void report(struct kafka_producer *p, const rd_kafka_message_t *m)
{
	struct err err = ERR_INIT;

	p->pending--;
	if (m->err != RD_KAFKA_RESP_ERR_NO_ERROR)
		kafka_lib_err(&err, m->err, "topic %s [%d]", p->lib->topic_name(m->rkt),
			      (int)m->partition);
	p->o.delivered(p->o.arg, m->_private, m->err ? &err : NULL);
}

static void reports(struct kafka_producer *p, rd_kafka_event_t *ev)
{
	const rd_kafka_message_t *v[DELIVERIES_AT_A_TIME];
	size_t n;

	while ((n = p->lib->event_message_array(ev, v, COUNT_OF(v))) > 0)
		for (size_t i = 0; i < n; i++)
			report(p, v[i]);
}

static void trouble(struct kafka_producer *p, rd_kafka_event_t *ev)
{
	bool is_fatal = p->lib->event_error_is_fatal(ev);
	struct err err = ERR_INIT;
	char why[200] = "";

	if (is_fatal)
		kafka_lib_err(&err, p->lib->fatal_error(p->rk, why, sizeof(why)), "%s", why);
	else
		kafka_lib_err(&err, p->lib->event_error(ev), "%s", p->lib->event_error_string(ev));
	if (p->lib->event_error(ev) == RD_KAFKA_RESP_ERR__AUTHENTICATION)
		kafka_lib_token_refused(p->rk, p->settings);
	p->o.troubled(p->o.arg, &err, is_fatal);
}

/* Everything that is there now, waiting up to timeout_ms for the first of it. */
static void serve(struct kafka_producer *p, int timeout_ms)
{
	rd_kafka_event_t *ev;

	while ((ev = p->lib->queue_poll(p->events, timeout_ms)) != NULL) {
		if (p->lib->event_type(ev) == RD_KAFKA_EVENT_DR)
			reports(p, ev);
		else if (p->lib->event_type(ev) == RD_KAFKA_EVENT_ERROR)
			trouble(p, ev);
		p->lib->event_destroy(ev);
		timeout_ms = 0;
	}
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
	struct kafka_producer *p = poll->data;
	uint64_t n;
	ssize_t ret;

	(void)status;
	(void)events;
	uv_poll_stop(poll);
	loop_timer_start(p->o.loop, &p->pause, REPORTS_EVERY_MS);
	/* Before the queue is emptied: what comes after that writes again. */
	ret = read(p->fd, &n, sizeof(n));
	(void)ret;
	serve(p, 0);
}

static void look_again(void *arg)
{
	struct kafka_producer *p = arg;

	uv_poll_start(&p->poll, UV_READABLE, on_readable);
}

/* ---- life ---- */

static void on_closed(uv_handle_t *h)
{
	struct kafka_producer *p = h->data;

	close(p->fd);
	free(p);
}

static int watch(struct kafka_producer *p, struct err *err)
{
	static const uint64_t one = 1;
	ssize_t ret;

	p->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (p->fd < 0)
		return err_errno(err, "eventfd");
	p->events = p->lib->queue_get_main(p->rk);
	uv_poll_init(loop_uv(p->o.loop), &p->poll, p->fd);
	p->poll.data = p;
	p->pause = (struct loop_timer){ .fn = look_again, .arg = p };
	uv_poll_start(&p->poll, UV_READABLE, on_readable);
	p->lib->queue_io_event_enable(p->events, p->fd, &one, sizeof(one));
	/* librdkafka writes when its queue stops being empty. A broker that refuses connections has
	 * put something there by now, and nothing would ever be written: look once unasked. */
	ret = write(p->fd, &one, sizeof(one));
	(void)ret;
	return 0;
}

struct kafka_producer *kafka_producer_new(const struct kafka_producer_settings *s, struct err *err)
{
	struct kafka_producer *p = NULL;
	rd_kafka_conf_t *conf;

	if (kafka_lib(err) == NULL)
		return NULL;
	p = xcalloc(1, sizeof(*p));
	p->lib = kafka_lib(NULL);
	p->o = *s;
	p->settings = &p->o.client;
	conf = kafka_lib_conf(&s->client, p, err);
	if (conf != NULL)
		p->lib->conf_set_events(conf, RD_KAFKA_EVENT_DR | RD_KAFKA_EVENT_ERROR);
	/* Their texts may go now. */
	p->o.client.properties = NULL;
	p->o.client.n_properties = 0;
	p->rk = kafka_lib_open(RD_KAFKA_PRODUCER, conf, err);
	if (p->rk == NULL || watch(p, err) < 0) {
		if (p->rk != NULL)
			p->lib->destroy(p->rk);
		free(p);
		return NULL;
	}
	return p;
}

/* Every record gets its report: they are in librdkafka's hands only. */
static void fail_pending(struct kafka_producer *p)
{
	uint64_t until = clock_mono_ns() + PURGE_WAIT_MS * NS_PER_MS;

	while (p->pending > 0) {
		p->lib->purge(p->rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT |
					     RD_KAFKA_PURGE_F_NON_BLOCKING);
		serve(p, 50);
		if (clock_mono_ns() > until) {
			log_error("librdkafka keeps records", "component", p->settings->id,
				  "records", LOG_NUM(p->pending));
			until = UINT64_MAX;
		}
	}
}

void kafka_producer_free(struct kafka_producer *p)
{
	if (p == NULL)
		return;
	fail_pending(p);
	p->lib->queue_io_event_enable(p->events, -1, NULL, 0);
	uv_poll_stop(&p->poll);
	if (loop_timer_is_active(&p->pause))
		loop_timer_stop(p->o.loop, &p->pause);
	p->lib->queue_destroy(p->events);
	p->lib->destroy(p->rk);
	uv_close((uv_handle_t *)&p->poll, on_closed);
}

size_t kafka_producer_pending(const struct kafka_producer *p)
{
	return p->pending;
}

/* ---- sending ---- */

static rd_kafka_headers_t *make_headers(struct kafka_producer *p, const struct kafka_record *r)
{
	rd_kafka_headers_t *h = p->lib->headers_new(r->n_headers);

	for (size_t i = 0; i < r->n_headers; i++)
		p->lib->header_add(h, r->headers[i].name, -1, r->headers[i].value.p,
				   (ssize_t)r->headers[i].value.n);
	return h;
}

static rd_kafka_vu_t memory(rd_kafka_vtype_t type, struct bytes b)
{
	return (rd_kafka_vu_t){ .vtype = type, .u.mem = { (void *)(uintptr_t)b.p, b.n } };
}

int kafka_producer_send(struct kafka_producer *p, const struct kafka_record *r, struct err *err)
{
	rd_kafka_headers_t *headers = make_headers(p, r);
	rd_kafka_vu_t v[] = {
		{ .vtype = RD_KAFKA_VTYPE_TOPIC, .u.cstr = r->topic },
		{ .vtype = RD_KAFKA_VTYPE_PARTITION, .u.i32 = r->partition },
		memory(RD_KAFKA_VTYPE_VALUE, r->value),
		memory(RD_KAFKA_VTYPE_KEY, r->key),
		{ .vtype = RD_KAFKA_VTYPE_MSGFLAGS, .u.i = 0 }, /* the bytes stay ours */
		{ .vtype = RD_KAFKA_VTYPE_OPAQUE, .u.ptr = r->opaque },
		{ .vtype = RD_KAFKA_VTYPE_HEADERS, .u.headers = headers },
	};
	rd_kafka_error_t *e = p->lib->produceva(p->rk, v, COUNT_OF(v));

	if (e == NULL) {
		p->pending++;
		return 0;
	}
	p->lib->headers_destroy(headers); /* they were not taken */
	return kafka_lib_error(err, e, "topic %s [%d]", r->topic, (int)r->partition);
}

/* ---- asking ---- */

static int ask_partitions(struct kafka_producer *p, const char *topic, int timeout_ms,
			  struct kafka_topic_info *out, struct err *err)
{
	const struct rd_kafka_metadata *md = NULL;
	rd_kafka_topic_t *rkt = p->lib->topic_new(p->rk, topic, NULL);
	rd_kafka_resp_err_t rc;

	if (rkt == NULL)
		return kafka_lib_err(err, p->lib->last_error(), "topic %s", topic);
	rc = p->lib->metadata(p->rk, 0, rkt, &md, timeout_ms);
	if (rc == RD_KAFKA_RESP_ERR_NO_ERROR && md->topic_cnt == 1) {
		rc = md->topics[0].err;
		out->n_partitions = (uint32_t)md->topics[0].partition_cnt;
		out->n_replicas = out->n_partitions > 0
					  ? (uint32_t)md->topics[0].partitions[0].replica_cnt
					  : 0;
	}
	if (rc == RD_KAFKA_RESP_ERR_NO_ERROR && out->n_partitions == 0)
		rc = RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE;
	if (md != NULL)
		p->lib->metadata_destroy(md);
	p->lib->topic_destroy(rkt);
	return rc ? kafka_lib_err(err, rc, "topic %s", topic) : 0;
}

static void read_entry(const struct kafka_lib *lib, const rd_kafka_ConfigEntry_t *entry,
		       struct kafka_topic_info *out)
{
	const char *name = lib->ConfigEntry_name(entry), *value = lib->ConfigEntry_value(entry);
	uint64_t n;

	if (value == NULL || str_to_u64(bytes_str(value), &n) < 0)
		return;
	if (strcmp(name, "max.message.bytes") == 0)
		out->max_message_bytes = n;
	else if (strcmp(name, "min.insync.replicas") == 0)
		out->min_insync_replicas = (uint32_t)n;
}

static void read_configs(const struct kafka_lib *lib, const rd_kafka_event_t *ev, const char *topic,
			 struct kafka_topic_info *out)
{
	const rd_kafka_ConfigResource_t **resources;
	const rd_kafka_ConfigEntry_t **entries;
	size_t n = 0, n_entries = 0;

	resources = lib->DescribeConfigs_result_resources(
		lib->event_DescribeConfigs_result((rd_kafka_event_t *)(uintptr_t)ev), &n);
	if (n == 0)
		return;
	if (lib->ConfigResource_error(resources[0]) != RD_KAFKA_RESP_ERR_NO_ERROR) {
		kafka_lib_err(&out->config_err, lib->ConfigResource_error(resources[0]),
			      "configuration of topic %s", topic);
		return;
	}
	entries = lib->ConfigResource_configs(resources[0], &n_entries);
	for (size_t i = 0; i < n_entries; i++)
		read_entry(lib, entries[i], out);
}

static void ask_configs(struct kafka_producer *p, const char *topic, int timeout_ms,
			struct kafka_topic_info *out)
{
	const struct kafka_lib *lib = p->lib;
	rd_kafka_queue_t *answers = lib->queue_new(p->rk);
	rd_kafka_AdminOptions_t *options =
		lib->AdminOptions_new(p->rk, RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS);
	rd_kafka_ConfigResource_t *resource =
		lib->ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, topic);
	rd_kafka_event_t *ev = NULL;

	lib->AdminOptions_set_request_timeout(options, timeout_ms, NULL, 0);
	lib->DescribeConfigs(p->rk, &resource, 1, options, answers);
	ev = lib->queue_poll(answers, timeout_ms + 100);
	if (ev == NULL)
		err_set(&out->config_err, ERR_TIMEOUT, "configuration of topic %s: no answer",
			topic);
	else if (lib->event_error(ev) != RD_KAFKA_RESP_ERR_NO_ERROR)
		kafka_lib_err(&out->config_err, lib->event_error(ev), "configuration of topic %s",
			      topic);
	else
		read_configs(lib, ev, topic, out);
	if (ev != NULL)
		lib->event_destroy(ev);
	lib->ConfigResource_destroy(resource);
	lib->AdminOptions_destroy(options);
	lib->queue_destroy(answers);
}

int kafka_producer_describe(struct kafka_producer *p, const char *topic, int timeout_ms,
			    struct kafka_topic_info *out, struct err *err)
{
	*out = (struct kafka_topic_info){ 0 };
	if (ask_partitions(p, topic, timeout_ms, out, err) < 0)
		return -1;
	ask_configs(p, topic, timeout_ms, out);
	return 0;
}
