/* SPDX-License-Identifier: Apache-2.0
 *
 * kafka_consumer.c - see kafka_consumer.h.
 */
#include "net/kafka_consumer.h"

#include "base/log.h"
#include "base/mem.h"
#include "net/kafka_lib.h"

#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum {
	END_MAX_S = 5,
	ENDS_IN_ANY_STATE = 0x020300ff, /* librdkafka 2.3.0 */
	DESTROY_IMMEDIATE = 0x4,        /* all before it have this flag, in rdkafka_int.h */
	SEEK_TIMEOUT_MS = 10000,
	/* A producer's batch is 1 MB, unless somebody set it higher. */
	KEEP_BELOW = 2 << 20,
	KEEP_FREE = 4 << 20,
};

struct kafka_consumer {
	const struct kafka_settings *settings; /* first: kafka_lib_open */
	struct kafka_consumer_settings o;
	const struct kafka_lib *lib;
	rd_kafka_t *rk;
	char *id, *token_file; /* of o.client */
	bool was_assigned;     /* something, at least once */
	bool is_ending;        /* the owner is told nothing any more */
	/* ends_lock */
	bool is_gone, is_left, is_destroyed;
};

/* ---- rebalances, troubles ---- */

static struct kafka_partition *partitions_of(const rd_kafka_topic_partition_list_t *list)
{
	struct kafka_partition *v = xcalloc((size_t)MAX(list->cnt, 1), sizeof(*v));

	for (int i = 0; i < list->cnt; i++)
		v[i] = (struct kafka_partition){ list->elems[i].topic, list->elems[i].partition };
	return v;
}

static bool is_cooperative(struct kafka_consumer *c)
{
	const char *protocol = c->lib->rebalance_protocol(c->rk);

	return protocol != NULL && strcmp(protocol, "COOPERATIVE") == 0;
}

static void note(const char *what, rd_kafka_error_t *e)
{
	struct err err = ERR_INIT;

	if (kafka_lib_error(&err, e, "%s", what) < 0)
		log_warn("kafka rebalance", "error", err.msg);
}

static void take(struct kafka_consumer *c, rd_kafka_topic_partition_list_t *list)
{
	struct err err = ERR_INIT;
	rd_kafka_resp_err_t code;

	if (is_cooperative(c)) {
		note("assign", c->lib->incremental_assign(c->rk, list));
		return;
	}
	code = c->lib->assign(c->rk, list);
	if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
		kafka_lib_err(&err, code, "assign");
		log_warn("kafka rebalance", "error", err.msg);
	}
}

static void give(struct kafka_consumer *c, rd_kafka_topic_partition_list_t *list)
{
	if (is_cooperative(c))
		note("unassign", c->lib->incremental_unassign(c->rk, list));
	else
		c->lib->assign(c->rk, NULL);
}

static void on_rebalance(rd_kafka_t *rk, rd_kafka_resp_err_t code,
			 rd_kafka_topic_partition_list_t *list, void *opaque)
{
	struct kafka_consumer *c = opaque;
	bool is_assigned = code == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
	struct kafka_partition *v = partitions_of(list);
	size_t n = (size_t)list->cnt;
	struct err err = ERR_INIT;

	c->was_assigned |= is_assigned;
	if (is_assigned) {
		if (!c->is_ending)
			c->o.assigned(c->o.arg, v, n);
		take(c, list);
	} else if (c->is_ending) {
		give(c, list);
	} else {
		if (code != RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS) {
			kafka_lib_err(&err, code, "rebalance");
			c->o.troubled(c->o.arg, &err, false);
		}
		c->o.revoked(c->o.arg, v, n, c->lib->assignment_lost(rk) != 0);
		give(c, list);
	}
	free(v);
}

/* A fatal error comes by the error callback, or as a message that has it: which one, depends on who
 * polls. */
static void tell_trouble(struct kafka_consumer *c, rd_kafka_resp_err_t code, const char *reason)
{
	bool is_fatal = code == RD_KAFKA_RESP_ERR__FATAL;
	struct err err = ERR_INIT;
	char why[200] = "";

	if (is_fatal)
		kafka_lib_err(&err, c->lib->fatal_error(c->rk, why, sizeof(why)), "%s", why);
	else
		kafka_lib_err(&err, code, "%s", reason);
	c->o.troubled(c->o.arg, &err, is_fatal);
}

static void on_error(rd_kafka_t *rk, int code, const char *reason, void *opaque)
{
	(void)rk;
	tell_trouble(opaque, (rd_kafka_resp_err_t)code, reason);
}

/* ---- life ---- */

/* librdkafka asks malloc for what a batch of records is unpacked into and frees it when the last of
 * them is done with. From the system such memory comes page by page, cleared: that cost more than
 * the unpacking, so blocks of this size stay in the heap. Above, all goes back as cmd/run.c has
 * it. */
static void tune_malloc(void)
{
	mallopt(M_MMAP_THRESHOLD, KEEP_BELOW);
	mallopt(M_TRIM_THRESHOLD, KEEP_FREE);
}

static void free_struct(struct kafka_consumer *c)
{
	free(c->id);
	free(c->token_file);
	free(c);
}

struct kafka_consumer *kafka_consumer_new(const struct kafka_consumer_settings *s, struct err *err)
{
	struct kafka_consumer *c;
	rd_kafka_conf_t *conf;

	if (kafka_lib(err) == NULL)
		return NULL;
	c = xcalloc(1, sizeof(*c));
	c->lib = kafka_lib(NULL);
	c->o = *s;
	c->settings = &c->o.client;
	/* Threads of librdkafka's that outlive the owner log, and ask for tokens. */
	c->o.client.id = c->id = xstrdup(s->client.id);
	if (s->client.token_file != NULL)
		c->o.client.token_file = c->token_file = xstrdup(s->client.token_file);
	tune_malloc();
	conf = kafka_lib_conf(&s->client, c, err);
	if (conf != NULL) {
		c->lib->conf_set_rebalance_cb(conf, on_rebalance);
		c->lib->conf_set_error_cb(conf, on_error);
	}
	/* Their texts may go now. */
	c->o.client.properties = NULL;
	c->o.client.n_properties = 0;
	c->rk = kafka_lib_open(RD_KAFKA_CONSUMER, conf, err);
	if (c->rk == NULL) {
		free_struct(c);
		return NULL;
	}
	c->lib->poll_set_consumer(c->rk);
	return c;
}

int kafka_consumer_subscribe(struct kafka_consumer *c, const char *const *topics, size_t n,
			     struct err *err)
{
	rd_kafka_topic_partition_list_t *list = c->lib->topic_partition_list_new((int)n);
	rd_kafka_resp_err_t code;

	for (size_t i = 0; i < n; i++)
		c->lib->topic_partition_list_add(list, topics[i], RD_KAFKA_PARTITION_UA);
	code = c->lib->subscribe(c->rk, list);
	c->lib->topic_partition_list_destroy(list);
	return code == RD_KAFKA_RESP_ERR_NO_ERROR ? 0 : kafka_lib_err(err, code, "subscribe");
}

/* ---- the end ----
 *
 * Closing asks the brokers: offsets are committed, the group is left. A broker that is frozen lets
 * that wait for time-outs of a minute each, so a thread of its own does it, and the owner goes on
 * after END_MAX_S. What was not committed then is read again.
 */

static pthread_mutex_t ends_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t ends_one = PTHREAD_COND_INITIALIZER;

static void exit_now(int status, void *arg)
{
	(void)arg;
	fflush(NULL);
	_exit(status);
}

/* Some threads of librdkafka's may run while the process exits: nothing that they use is taken down
 * before it (OpenSSL would be, by its atexit). With ends_lock. */
static void exit_with_threads(void)
{
	static bool is_set;

	if (!is_set)
		on_exit(exit_now, NULL);
	is_set = true;
}

/* Before 2.3.0 the very last step of destroy asserts that cooperative-sticky has the state of an
 * assignment, which is not so from the answer to the first wish to join until the first assignment
 * (its issue 4312). Then connections and threads are ended and the handle's memory stays. */
static bool destroy(struct kafka_consumer *c)
{
	if (c->was_assigned || c->lib->version() >= ENDS_IN_ANY_STATE) {
		c->lib->destroy(c->rk);
		return true;
	}
	c->lib->destroy_flags(c->rk, DESTROY_IMMEDIATE);
	return false;
}

static void *end_main(void *arg)
{
	struct kafka_consumer *c = arg;
	bool is_destroyed, is_last;

	c->lib->consumer_close(c->rk);
	is_destroyed = destroy(c);
	pthread_mutex_lock(&ends_lock);
	if (!is_destroyed)
		exit_with_threads();
	c->is_destroyed = is_destroyed;
	c->is_gone = true;
	is_last = c->is_left && is_destroyed;
	pthread_cond_broadcast(&ends_one);
	pthread_mutex_unlock(&ends_lock);
	if (is_last)
		free_struct(c);
	return NULL;
}

/* False: the end goes on, and frees c. */
static bool await_end(struct kafka_consumer *c)
{
	struct timespec until;
	bool is_gone;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += END_MAX_S;
	pthread_mutex_lock(&ends_lock);
	while (!c->is_gone &&
	       pthread_cond_clockwait(&ends_one, &ends_lock, CLOCK_MONOTONIC, &until) == 0) {
	}
	is_gone = c->is_gone;
	c->is_left = !is_gone;
	if (!is_gone) {
		exit_with_threads();
		log_warn("the brokers do not answer the end of a consumer, it is left behind",
			 "component", c->id);
	}
	pthread_mutex_unlock(&ends_lock);
	return is_gone;
}

void kafka_consumer_free(struct kafka_consumer *c)
{
	pthread_t thread;

	if (c == NULL)
		return;
	c->is_ending = true;
	if (pthread_create(&thread, NULL, end_main, c) == 0)
		pthread_detach(thread);
	else
		end_main(c);
	if (await_end(c) && c->is_destroyed)
		free_struct(c);
}

/* ---- records ---- */

static void fill(struct kafka_consumer *c, rd_kafka_message_t *m, struct kafka_message *out)
{
	rd_kafka_timestamp_type_t type;
	int64_t ms = c->lib->message_timestamp(m, &type);

	*out = (struct kafka_message){
		.at = { c->lib->topic_name(m->rkt), m->partition },
		.offset = (uint64_t)m->offset,
		.timestamp_ms =
			type == RD_KAFKA_TIMESTAMP_NOT_AVAILABLE || ms < 0 ? 0 : (uint64_t)ms,
		.key = { m->key, m->key_len },
		.value = { m->payload, m->len },
		.has_key = m->key != NULL,
		.has_value = m->payload != NULL,
		.handle = m,
	};
}

bool kafka_consumer_poll(struct kafka_consumer *c, int timeout_ms, struct kafka_message *m)
{
	rd_kafka_message_t *got = c->lib->consumer_poll(c->rk, timeout_ms);

	if (got == NULL)
		return false;
	if (got->err == RD_KAFKA_RESP_ERR_NO_ERROR) {
		fill(c, got, m);
		return true;
	}
	if (got->err == RD_KAFKA_RESP_ERR__PARTITION_EOF) {
		struct kafka_partition at = { c->lib->topic_name(got->rkt), got->partition };

		c->o.at_end(c->o.arg, &at, (uint64_t)MAX(got->offset, 0));
		c->lib->message_destroy(got);
		return false;
	}
	tell_trouble(c, got->err, got->payload != NULL ? (const char *)got->payload : "consume");
	c->lib->message_destroy(got);
	return false;
}

void kafka_message_free(struct kafka_consumer *c, struct kafka_message *m)
{
	if (m->handle != NULL)
		c->lib->message_destroy(m->handle);
	m->handle = NULL;
}

bool kafka_message_header(struct kafka_consumer *c, const struct kafka_message *m, const char *name,
			  struct bytes *value)
{
	rd_kafka_headers_t *headers;
	const void *p;
	size_t n;

	if (c->lib->message_headers(m->handle, &headers) != RD_KAFKA_RESP_ERR_NO_ERROR ||
	    c->lib->header_get_last(headers, name, &p, &n) != RD_KAFKA_RESP_ERR_NO_ERROR)
		return false;
	*value = (struct bytes){ p, n };
	return true;
}

bool kafka_message_header_at(struct kafka_consumer *c, const struct kafka_message *m, size_t i,
			     const char **name, struct bytes *value)
{
	rd_kafka_headers_t *headers;
	const void *p;
	size_t n;

	if (c->lib->message_headers(m->handle, &headers) != RD_KAFKA_RESP_ERR_NO_ERROR ||
	    c->lib->header_get_all(headers, i, name, &p, &n) != RD_KAFKA_RESP_ERR_NO_ERROR)
		return false;
	*value = (struct bytes){ p, n };
	return true;
}

/* ---- one partition ---- */

static rd_kafka_topic_partition_list_t *list_of(struct kafka_consumer *c,
						const struct kafka_partition *p, int64_t offset)
{
	rd_kafka_topic_partition_list_t *list = c->lib->topic_partition_list_new(1);

	c->lib->topic_partition_list_add(list, p->topic, p->partition)->offset = offset;
	return list;
}

void kafka_consumer_pause(struct kafka_consumer *c, const struct kafka_partition *p, bool on)
{
	rd_kafka_topic_partition_list_t *list = list_of(c, p, RD_KAFKA_OFFSET_INVALID);

	if (on)
		c->lib->pause_partitions(c->rk, list);
	else
		c->lib->resume_partitions(c->rk, list);
	c->lib->topic_partition_list_destroy(list);
}

int kafka_consumer_seek(struct kafka_consumer *c, const struct kafka_partition *p, uint64_t offset,
			struct err *err)
{
	rd_kafka_topic_partition_list_t *list = list_of(c, p, (int64_t)offset);
	rd_kafka_error_t *e = c->lib->seek_partitions(c->rk, list, SEEK_TIMEOUT_MS);
	rd_kafka_resp_err_t code = list->elems[0].err;
	int ret = kafka_lib_error(err, e, "seek");

	c->lib->topic_partition_list_destroy(list);
	if (ret == 0 && code != RD_KAFKA_RESP_ERR_NO_ERROR)
		ret = kafka_lib_err(err, code, "seek");
	return ret;
}

void kafka_consumer_store(struct kafka_consumer *c, const struct kafka_partition *p, uint64_t next)
{
	rd_kafka_topic_partition_list_t *list = list_of(c, p, (int64_t)next);

	/* It fails when the partition went meanwhile: then it is not ours to commit. */
	c->lib->offsets_store(c->rk, list);
	c->lib->topic_partition_list_destroy(list);
}

void kafka_consumer_store_first(struct kafka_consumer *c, const struct kafka_partition *p,
				uint64_t next)
{
	rd_kafka_topic_partition_list_t *list = list_of(c, p, (int64_t)next);

	/* When it fails a later one will do: only a restart before that begins elsewhere. */
	if (c->lib->offsets_store(c->rk, list) == RD_KAFKA_RESP_ERR_NO_ERROR)
		c->lib->commit(c->rk, list, 1);
	c->lib->topic_partition_list_destroy(list);
}

void kafka_consumer_forget(struct kafka_consumer *c, const struct kafka_partition *p)
{
	rd_kafka_topic_partition_list_t *list = list_of(c, p, RD_KAFKA_OFFSET_INVALID);

	c->lib->offsets_store(c->rk, list);
	c->lib->topic_partition_list_destroy(list);
}

bool kafka_consumer_watermarks(struct kafka_consumer *c, const struct kafka_partition *p,
			       uint64_t *low, uint64_t *high)
{
	int64_t lo = -1, hi = -1;

	if (c->lib->get_watermark_offsets(c->rk, p->topic, p->partition, &lo, &hi) !=
	    RD_KAFKA_RESP_ERR_NO_ERROR)
		return false;
	*low = lo > 0 ? (uint64_t)lo : 0;
	*high = hi > 0 ? (uint64_t)hi : 0;
	return hi >= 0;
}

/* ---- the cluster ---- */

uint32_t kafka_consumer_n_partitions(struct kafka_consumer *c, const char *topic, int timeout_ms)
{
	rd_kafka_topic_t *rkt = c->lib->topic_new(c->rk, topic, NULL);
	const struct rd_kafka_metadata *md = NULL;
	uint32_t n = 0;

	if (rkt == NULL)
		return 0;
	if (c->lib->metadata(c->rk, 0, rkt, &md, timeout_ms) == RD_KAFKA_RESP_ERR_NO_ERROR &&
	    md->topic_cnt == 1)
		n = (uint32_t)MAX(md->topics[0].partition_cnt, 0);
	if (md != NULL)
		c->lib->metadata_destroy(md);
	c->lib->topic_destroy(rkt);
	return n;
}

static bool is_there(const struct rd_kafka_metadata *md, const char *topic)
{
	for (int i = 0; i < md->topic_cnt; i++)
		if (strcmp(md->topics[i].topic, topic) == 0)
			return md->topics[i].err == RD_KAFKA_RESP_ERR_NO_ERROR;
	return false;
}

bool kafka_consumer_look_for(struct kafka_consumer *c, const char *const *topics, size_t n,
			     int timeout_ms)
{
	const struct rd_kafka_metadata *md = NULL;
	bool all = true;

	/* Only an answer about all topics makes librdkafka look at its subscription again. */
	if (c->lib->metadata(c->rk, 1, NULL, &md, timeout_ms) != RD_KAFKA_RESP_ERR_NO_ERROR)
		return false;
	for (size_t i = 0; i < n; i++)
		all &= topics[i][0] == '^' || is_there(md, topics[i]);
	c->lib->metadata_destroy(md);
	return all;
}

void kafka_consumer_cluster_id(struct kafka_consumer *c, int timeout_ms, char *out, size_t size)
{
	char *id = c->lib->clusterid(c->rk, timeout_ms);

	snprintf(out, size, "%s", id ? id : "");
	if (id != NULL)
		c->lib->mem_free(c->rk, id);
}
