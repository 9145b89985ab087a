/* SPDX-License-Identifier: Apache-2.0
 *
 * kafka_consumer.c - see kafka_consumer.h.
 */
#include "net/kafka_consumer.h"

#include "base/log.h"
#include "base/mem.h"
#include "net/kafka_lib.h"

#include <malloc.h>
#include <stdio.h>

enum {
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
	struct kafka_partition *v = partitions_of(list);
	size_t n = (size_t)list->cnt;
	struct err err = ERR_INIT;

	if (code == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS) {
		c->o.assigned(c->o.arg, v, n);
		take(c, list);
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
		free(c);
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

void kafka_consumer_free(struct kafka_consumer *c)
{
	if (c == NULL)
		return;
	c->lib->consumer_close(c->rk);
	c->lib->destroy(c->rk);
	free(c);
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
