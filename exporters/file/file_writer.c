/* SPDX-License-Identifier: Apache-2.0
 *
 * file_writer.c - see file_writer.h. SPEC: the formats of the Collector's file exporter: a JSON
 * request a line, or 4 bytes of length (big endian) before a request that is protobuf or packed.
 */
#include "exporters/file/file_writer.h"

#include "base/mem.h"
#include "pipeline/telemetry.h"
#include "wire/otlp_json_encode.h"

#include <pthread.h>

enum { ROUND_MAX = 256 };

struct file_item {
	struct component *c;
	struct batch *b;
	_Atomic uint64_t *pending;
};

struct file_writer {
	struct file_writer *next; /* of all in this process; the main thread's */
	struct file_writer_options o;
	char *path;
	unsigned n_users;
	struct rotating_file file; /* the thread's */
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool stopping;             /* under the lock */
	struct file_item *waiting; /* under the lock */
	size_t n, cap;
};

static struct file_writer *writers;

static bool is_lines(const struct file_writer_options *o)
{
	return o->format == FORMAT_JSON && o->compression == CONTENT_IDENTITY;
}

static int add_record(const struct file_writer_options *o, enum otlp_signal signal,
		      struct bytes request, struct buf *out, struct err *err)
{
	struct buf json = BUF_INIT, packed = BUF_INIT;
	uint8_t head[4];
	int rc = 0;

	if (o->format == FORMAT_JSON) {
		rc = otlp_json_encode_items(signal, &request, 1, OTLP_JSON, 0, &json, err);
		request = buf_bytes(&json);
	}
	if (rc == 0 && o->compression != CONTENT_IDENTITY) {
		rc = content_encode(o->compression, 3, request, &packed, err);
		request = buf_bytes(&packed);
	}
	if (rc == 0 && !is_lines(o)) {
		store_be32(head, (uint32_t)request.n);
		buf_add(out, head, sizeof(head));
	}
	if (rc == 0)
		buf_add_bytes(out, request);
	if (rc == 0 && is_lines(o))
		buf_add_char(out, '\n');
	buf_fini(&json);
	buf_fini(&packed);
	return rc;
}

static int write_batch(struct file_writer *w, struct batch *b, struct err *err)
{
	struct buf request = BUF_INIT, record = BUF_INIT;
	struct arena arena = ARENA_INIT;
	struct batch_encoding e;
	int rc;

	batch_encode(b, &arena, &e);
	for (size_t i = 0; i < e.n_pieces; i++)
		buf_add_bytes(&request, e.pieces[i]);
	rc = add_record(&w->o, (enum otlp_signal)b->signal, buf_bytes(&request), &record, err);
	if (rc == 0)
		rc = rotating_file_add(&w->file, buf_bytes(&record), err);
	buf_fini(&request);
	buf_fini(&record);
	arena_fini(&arena);
	return rc;
}

static void settle(const struct file_item *i, const struct err *err)
{
	bool ok = err->kind == ERR_NONE;

	atomic_fetch_add_explicit(ok ? &i->c->count->sent : &i->c->count->send_failed,
				  batch_n_items(i->b), memory_order_relaxed);
	batch_settle(i->b, ok ? VERDICT_DELIVERED : VERDICT_RETRYABLE, DROP_REASON_MAX, err);
	batch_unref(i->b);
	atomic_fetch_sub(i->pending, 1);
}

/* What nobody waits for any more comes again, so it is not written. The rest moves up. */
static size_t settle_withdrawn(struct file_item *v, size_t n)
{
	struct err why = ERR_INIT;
	size_t left = 0;

	err_set(&why, ERR_TIMEOUT, "not written in time");
	for (size_t i = 0; i < n; i++) {
		if (batch_is_withdrawn(v[i].b))
			settle(&v[i], &why);
		else
			v[left++] = v[i];
	}
	return left;
}

/* Write all, sync once. One that cannot be written fails all: nothing of them stays. */
static void write_round(struct file_writer *w, struct file_item *v, size_t n)
{
	struct err err = ERR_INIT;
	bool ok = true;

	n = settle_withdrawn(v, n);
	for (size_t i = 0; i < n && ok; i++)
		ok = write_batch(w, v[i].b, &err) == 0;
	ok = ok && (n == 0 || rotating_file_sync(&w->file, &err) == 0);
	if (!ok) {
		log_error("cannot write to the file, senders are asked to come again", "component",
			  v[0].c->id, "error", err.msg);
		rotating_file_cut(&w->file);
	}
	for (size_t i = 0; i < n; i++)
		settle(&v[i], &err);
}

static void *writer_main(void *arg)
{
	struct file_writer *w = arg;
	struct file_item v[ROUND_MAX];

	pthread_mutex_lock(&w->lock);
	while (w->n > 0 || !w->stopping) {
		size_t n = MIN(w->n, ROUND_MAX);

		if (n == 0) {
			pthread_cond_wait(&w->cond, &w->lock);
			continue;
		}
		memcpy(v, w->waiting, n * sizeof(*v));
		w->n -= n;
		memmove(w->waiting, w->waiting + n, w->n * sizeof(*v));
		pthread_mutex_unlock(&w->lock);
		write_round(w, v, n);
		pthread_mutex_lock(&w->lock);
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

void file_writer_put(struct file_writer *w, struct component *c, struct batch *b,
		     _Atomic uint64_t *pending)
{
	atomic_fetch_add(pending, 1);
	pthread_mutex_lock(&w->lock);
	w->waiting = xgrow(w->waiting, &w->cap, w->n + 1, sizeof(*w->waiting));
	w->waiting[w->n++] = (struct file_item){ c, b, pending };
	pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&w->lock);
}

/* ---- life ---- */

static bool is_same(const struct file_writer_options *a, const struct file_writer_options *b)
{
	return a->format == b->format && a->compression == b->compression &&
	       memcmp(&a->rotation, &b->rotation, sizeof(a->rotation)) == 0;
}

static void free_writer(struct file_writer *w)
{
	rotating_file_close(&w->file);
	pthread_mutex_destroy(&w->lock);
	pthread_cond_destroy(&w->cond);
	free(w->waiting);
	free(w->path);
	free(w);
}

static struct file_writer *start_writer(const struct file_writer_options *o, struct err *err)
{
	struct file_writer *w = xcalloc(1, sizeof(*w));

	w->o = *o;
	w->path = xstrdup(o->path);
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->cond, NULL);
	if (rotating_file_open(&w->file, w->path, &o->rotation, is_lines(o), err) == 0) {
		if (pthread_create(&w->thread, NULL, writer_main, w) == 0) {
			w->next = writers;
			writers = w;
			return w;
		}
		err_errno(err, "start a thread");
	}
	free_writer(w);
	return NULL;
}

struct file_writer *file_writer_open(const struct file_writer_options *o, struct err *err)
{
	struct file_writer *w = writers;

	while (w != NULL && strcmp(w->path, o->path) != 0)
		w = w->next;
	if (w != NULL && !is_same(&w->o, o)) {
		err_set(err, ERR_CONFIG, "%s is written by another exporter in another form",
			o->path);
		return NULL;
	}
	if (w == NULL)
		w = start_writer(o, err);
	if (w != NULL)
		w->n_users++;
	return w;
}

void file_writer_close(struct file_writer *w)
{
	struct file_writer **at = &writers;

	if (w == NULL || --w->n_users > 0)
		return;
	while (*at != w)
		at = &(*at)->next;
	*at = w->next;
	pthread_mutex_lock(&w->lock);
	w->stopping = true;
	pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&w->lock);
	pthread_join(w->thread, NULL);
	free_writer(w);
}
