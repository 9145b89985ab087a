/* SPDX-License-Identifier: Apache-2.0
 *
 * queue.c - see queue.h: requests, attempts, the waiting list, life.
 *
 * A request is waiting, or active: being sent, or sleeping between two attempts. An active one
 * occupies a consumer, as in the Collector. In storage mode the batch's origins are the records
 * that it was read from (queue_log.c), so that splitting, joining and settling are the same
 * in both modes; VERDICT_RETRYABLE means "stays in the log" there.
 */
#include "pipeline/send/queue.h"

#include "base/clock.h"
#include "base/mem.h"
#include "pipeline/send/queue_private.h"
#include "pipeline/telemetry.h"

enum { SWEEP_MS = 50, DRAIN_PAUSE_MS = 1000, JOIN_BYTES = 1 << 20 };
#define LEARN_MIN (64 * KIB) /* what a refusal teaches does not make requests smaller than this */

/* ---- requests ---- */

static void measure(struct send_request *r)
{
	if (!r->queue->o.takes_spans)
		batch_encode(r->batch, &r->arena, &r->encoding);
	else
		r->encoding.n_bytes = batch_encoded_size(r->batch);
	switch (r->queue->o.queue->sizer) {
	case QUEUE_SIZER_ITEMS:
		r->size = r->batch->tables.n_spans;
		break;
	case QUEUE_SIZER_BYTES:
		r->size = r->encoding.n_bytes;
		break;
	default:
		r->size = 1;
	}
}

static struct send_request *request_new(struct sending_queue *q, struct batch *b)
{
	struct send_request *r = xcalloc(1, sizeof(*r));

	r->queue = q;
	r->owner = q->o.owner;
	r->batch = b;
	measure(r);
	return r;
}

static void request_free(struct send_request *r)
{
	batch_unref(r->batch);
	arena_fini(&r->arena);
	free(r);
}

static void list_add(struct request_list *l, struct send_request *r)
{
	r->next = NULL;
	*l->tail = r;
	l->tail = &r->next;
	l->size += r->size;
	l->n++;
}

/* How many spans of the request have to go into one of its own; 0: it can be sent as it is. */
static uint32_t split_point(const struct sending_queue *q, const struct send_request *r)
{
	const struct queue_options *o = q->o.queue;
	uint64_t max_bytes = atomic_load_explicit(&q->max_bytes, memory_order_relaxed);
	uint32_t n = r->batch->tables.n_spans;

	if (o->batch_on && o->batch.max_size > 0) {
		if (o->batch.sizer != QUEUE_SIZER_BYTES && n > o->batch.max_size)
			return batch_split_point(n, o->batch.max_size);
		if (o->batch.sizer == QUEUE_SIZER_BYTES)
			max_bytes = MIN(max_bytes, o->batch.max_size);
	}
	return r->encoding.n_bytes > max_bytes ? n / 2 : 0;
}

/* Requests of b behind those of the list, each within the largest message and batch. Takes b. */
static void add_requests(struct sending_queue *q, struct batch *b, struct request_list *to)
{
	struct send_request *r = request_new(q, b);
	uint32_t n = split_point(q, r);
	struct batch *head, *tail;

	if (n == 0) {
		list_add(to, r);
		return;
	}
	batch_split(batch_ref(b), n, &head, &tail);
	request_free(r);
	add_requests(q, head, to);
	add_requests(q, tail, to);
}

/* ---- the waiting list ---- */

static void note_size(struct sending_queue *q)
{
	if (q->log == NULL)
		atomic_store(&q->o.component->count->queue_size, (int64_t)q->size);
}

static void list_append(struct request_list *l, const struct request_list *more)
{
	if (more->n == 0)
		return;
	*l->tail = more->head;
	l->tail = more->tail;
	l->size += more->size;
	l->n += more->n;
}

static void wake(struct sending_queue *q)
{
	if (!atomic_exchange(&q->posted, true))
		loop_post(q->o.loop, &q->task);
}

/* Take the list in when there is room. */
static bool admit(struct sending_queue *q, const struct request_list *l, bool forced)
{
	bool room;

	pthread_mutex_lock(&q->lock);
	/* One request larger than the whole queue passes when it is alone. A caller that is to
	 * wait for room waits in here, as for its delivery; the budget bounds how many. */
	room = forced || !q->o.queue->enabled || q->o.queue->block_on_overflow || q->n_open == 0 ||
	       q->size + l->size <= q->o.queue->queue_size;
	if (room) {
		list_append(&q->waiting, l);
		q->size += l->size;
		q->n_open += l->n;
		note_size(q);
	}
	pthread_mutex_unlock(&q->lock);
	return room;
}

bool sending_queue_push(struct sending_queue *q, struct batch *b, bool forced)
{
	struct request_list list = { .tail = &list.head };
	struct send_request *r, *next;

	add_requests(q, batch_ref(b), &list);
	if (admit(q, &list, forced)) {
		batch_unref(b);
		wake(q);
		return true;
	}
	for (r = list.head; r != NULL; r = next) {
		next = r->next;
		request_free(r);
	}
	return false;
}

static struct send_request *pop_locked(struct sending_queue *q)
{
	struct send_request *r = q->waiting.head;

	if (r == NULL)
		return NULL;
	q->waiting.head = r->next;
	if (q->waiting.head == NULL)
		q->waiting.tail = &q->waiting.head;
	q->waiting.size -= r->size;
	q->waiting.n--;
	r->next = NULL;
	return r;
}

static struct send_request *pop(struct sending_queue *q)
{
	struct send_request *r;

	pthread_mutex_lock(&q->lock);
	r = pop_locked(q);
	pthread_mutex_unlock(&q->lock);
	return r;
}

/* ---- the end of a request ---- */

static void deactivate(struct send_request *r)
{
	struct sending_queue *q = r->queue;

	if (!r->is_active)
		return;
	r->is_active = false;
	loop_timer_stop(q->o.loop, &r->timer);
	if (r->prev != NULL)
		r->prev->next = r->next;
	else
		q->active = r->next;
	if (r->next != NULL)
		r->next->prev = r->prev;
	r->next = r->prev = NULL;
	q->n_busy--;
	atomic_fetch_sub(&q->o.component->count->in_flight, 1);
}

static void close_request(struct send_request *r)
{
	struct sending_queue *q = r->queue;

	deactivate(r);
	pthread_mutex_lock(&q->lock);
	q->size -= r->size;
	q->n_open--;
	note_size(q);
	pthread_mutex_unlock(&q->lock);
	request_free(r);
	sending_queue_log_wake(q);
}

/* "Try again", or with storage "stays in the log". */
static void give_back(struct send_request *r, enum drop_reason reason, const struct err *err)
{
	batch_settle(r->batch, VERDICT_RETRYABLE, reason, err);
	close_request(r);
}

/* Of metrics a hop counts data points; ours are settled metric by metric, so that many of them. */
static uint32_t refused_spans(const struct batch *b, uint32_t n_rejected, uint64_t n_items)
{
	uint32_t n_spans = b->tables.n_spans;
	uint64_t n = (uint64_t)n_rejected * n_spans;

	if (n_rejected == 0 || n_rejected >= n_items)
		return n_rejected > 0 ? n_spans : 0;
	return (uint32_t)MAX(n / n_items, UINT64_C(1));
}

static void deliver(struct send_request *r, uint32_t n_rejected, const struct err *err)
{
	struct component_counters *count = r->queue->o.component->count;
	uint64_t n_items = batch_n_items(r->batch);

	atomic_fetch_add(&count->sent, n_items - MIN((uint64_t)r->n_failed, n_items));
	n_rejected = refused_spans(r->batch, n_rejected, n_items);
	if (n_rejected > 0)
		batch_settle_partial(r->batch, n_rejected, err);
	else
		batch_settle(r->batch, VERDICT_DELIVERED, DROP_REASON_MAX, NULL);
	close_request(r);
}

static void drop(struct send_request *r, enum drop_reason reason, const struct err *err)
{
	struct component *c = r->queue->o.component;
	uint64_t n = batch_n_items(r->batch);

	log_error("Exporting failed. Dropping data.", "exporter", c->id, "error", err->msg,
		  "dropped_items", LOG_NUM(n));
	atomic_fetch_add(&c->count->send_failed, n);
	batch_settle(r->batch, VERDICT_PERMANENT, reason, err);
	close_request(r);
}

/* ---- attempts ---- */

static void pump(struct sending_queue *q);

/* Leave out the spans of clients that were told to send them again: sending them now would make
 * copies. False when none is left. What verdict they get is of no interest any more. */
static bool shed_withdrawn(struct send_request *r)
{
	struct batch *b = r->batch;
	uint32_t n_withdrawn = 0;
	uint8_t *keep;

	for (uint32_t i = 0; i < b->n_origins; i++)
		n_withdrawn +=
			b->origins[i].n_spans > 0 && origin_is_withdrawn(b->origins[i].origin);
	if (n_withdrawn == 0)
		return true;
	if (batch_is_withdrawn(b))
		return false;
	keep = xmalloc(b->tables.n_spans);
	for (uint32_t i = 0; i < b->tables.n_spans; i++)
		keep[i] = !origin_is_withdrawn(b->origins[b->tables.spans[i].origin].origin);
	r->batch = batch_filter(b, keep, DROP_SHUTDOWN);
	free(keep);
	r->progress = 0; /* places in it are others now */
	r->n_refused = 0;
	r->refusal = NULL;
	if (r->batch != NULL && !r->queue->o.takes_spans) {
		arena_reset(&r->arena);
		batch_encode(r->batch, &r->arena, &r->encoding);
	}
	return r->batch != NULL;
}

static void attempt(void *arg)
{
	struct send_request *r = arg;
	struct sending_queue *q = r->queue;

	if (!shed_withdrawn(r)) {
		if (r->batch != NULL)
			give_back(r, DROP_REASON_MAX, NULL);
		else
			close_request(r);
		pump(q);
		return;
	}
	if (r->first_ns == 0)
		r->first_ns = clock_mono_ns();
	r->deadline_ns = q->o.timeout_ns ? clock_mono_ns() + (uint64_t)q->o.timeout_ns : 0;
	r->is_sending = true;
	r->is_told = false;
	q->o.send(q->o.component, r);
}

/* Nanoseconds until the next attempt; the pause after that is longer. */
static int64_t next_pause(struct send_request *r, const struct err *err)
{
	const struct retry_options *o = r->queue->o.retry;
	double spread = o->randomization_factor * (2 * rng_unit(&r->queue->rng) - 1);
	double longer;
	int64_t pause, told = (int64_t)(err->retry_after_ms * NS_PER_MS);

	if (r->backoff_ns == 0)
		r->backoff_ns = MIN(o->initial_interval_ns, o->max_interval_ns);
	pause = (int64_t)((double)r->backoff_ns * (1 + spread));
	longer = (double)r->backoff_ns * o->multiplier;
	r->backoff_ns = longer < (double)o->max_interval_ns ? (int64_t)longer : o->max_interval_ns;
	if (atomic_load(&r->queue->draining))
		pause = MIN(pause, (int64_t)(DRAIN_PAUSE_MS * NS_PER_MS));
	r->is_told = told > pause;
	return MAX(pause, told);
}

static bool may_retry(const struct send_request *r, int64_t pause)
{
	const struct retry_options *o = r->queue->o.retry;
	uint64_t elapsed = clock_mono_ns() - r->first_ns + (uint64_t)pause;

	return o->enabled &&
	       (o->max_elapsed_time_ns == 0 || elapsed <= (uint64_t)o->max_elapsed_time_ns);
}

static void sleep_for(struct send_request *r, int64_t pause, const struct err *err)
{
	struct sending_queue *q = r->queue;

	log_info("Exporting failed. Will retry the request after interval.", "exporter",
		 q->o.component->id, "error", err->msg, "interval_ms",
		 LOG_NUM((uint64_t)pause / NS_PER_MS));
	r->timer = (struct loop_timer){ .fn = attempt, .arg = r };
	loop_timer_start(q->o.loop, &r->timer, (uint64_t)pause / NS_PER_MS + 1);
}

static void retry_or_give_up(struct send_request *r, const struct err *err)
{
	struct sending_queue *q = r->queue;
	int64_t pause;

	if (q->stopping || batch_is_withdrawn(r->batch)) {
		give_back(r, DROP_SHUTDOWN, err);
		return;
	}
	atomic_store(&q->last_failed, true);
	pause = next_pause(r, err);
	if (q->log != NULL && atomic_load(&q->draining)) {
		give_back(r, DROP_SHUTDOWN, err);
	} else if (may_retry(r, pause)) {
		sleep_for(r, pause, err);
	} else if (q->log != NULL) {
		drop(r, DROP_RETRIES_EXHAUSTED, err);
	} else {
		log_warn("Exporting failed. Rejecting data.", "exporter", q->o.component->id,
			 "error", err->msg, "rejected_items", LOG_NUM(batch_n_items(r->batch)));
		atomic_fetch_add(&q->o.component->count->send_failed, batch_n_items(r->batch));
		give_back(r, DROP_RETRIES_EXHAUSTED, err);
	}
}

/* The next hop is back: one that sleeps off a failure need not go on sleeping. One per success, so
 * that a hop that has just recovered is not rushed. */
static void rouse_one(struct sending_queue *q)
{
	struct send_request *r = q->active;

	while (r != NULL && (r->is_sending || r->is_told))
		r = r->next;
	if (r != NULL)
		loop_timer_start(q->o.loop, &r->timer, 0);
}

/* The next hop said "too large": two halves stand in its place at the head of the queue, and what
 * comes after is made smaller at once. */
static void halve(struct send_request *r)
{
	struct sending_queue *q = r->queue;
	struct batch *b = r->batch, *half[2];
	struct request_list list = { .tail = &list.head };

	log_warn("too large for the next hop, sending the halves; see max_message_bytes",
		 "exporter", q->o.component->id, "bytes", LOG_NUM(r->encoding.n_bytes));
	if (r->encoding.n_bytes > LEARN_MIN)
		atomic_store(&q->max_bytes, MIN(atomic_load(&q->max_bytes),
						MAX(r->encoding.n_bytes / 2, LEARN_MIN)));
	batch_split(batch_ref(b), b->tables.n_spans / 2, &half[0], &half[1]);
	add_requests(q, half[0], &list);
	add_requests(q, half[1], &list);
	pthread_mutex_lock(&q->lock);
	q->size += list.size;
	q->n_open += list.n;
	list_append(&list, &q->waiting);
	q->waiting = list;
	pthread_mutex_unlock(&q->lock);
	close_request(r);
}

void sending_queue_done(struct send_request *r, enum send_result result, uint32_t n_rejected,
			const struct err *err)
{
	struct sending_queue *q = r->queue;

	r->is_sending = false;
	switch (result) {
	case SEND_OK:
		atomic_store(&q->last_failed, false);
		deliver(r, n_rejected, err);
		if (!q->stopping)
			rouse_one(q);
		break;
	case SEND_RETRYABLE:
		retry_or_give_up(r, err);
		break;
	case SEND_TOO_LARGE:
		if (r->batch->tables.n_spans > 1)
			halve(r);
		else
			drop(r, DROP_TOO_LARGE, err);
		break;
	case SEND_PERMANENT:
		drop(r, DROP_PERMANENT, err);
		break;
	case SEND_TAKEN:
		atomic_store(&q->last_failed, false);
		close_request(r);
		break;
	}
	pump(q);
}

/* With `batch`: what waits behind r goes with it, up to its sizes. Nothing waits for more. */
static struct send_request *join_waiting(struct sending_queue *q, struct send_request *r)
{
	const struct queue_batch_options *o = &q->o.queue->batch;
	uint64_t max = o->max_size ? o->max_size : MAX(o->min_size, (uint64_t)1);
	bool by_bytes = o->sizer == QUEUE_SIZER_BYTES;
	uint64_t n = by_bytes ? r->encoding.n_bytes : r->batch->tables.n_spans, more;
	uint64_t bytes = r->encoding.n_bytes;
	struct batch *v[64] = { batch_ref(r->batch) };
	struct send_request *next;
	size_t k = 1;

	pthread_mutex_lock(&q->lock);
	while (k < COUNT_OF(v) && (next = q->waiting.head) != NULL) {
		more = by_bytes ? next->encoding.n_bytes : next->batch->tables.n_spans;
		bytes += next->encoding.n_bytes;
		if (n + more > max || bytes > JOIN_BYTES ||
		    next->batch->is_detached != r->batch->is_detached ||
		    strcmp(next->batch->tenant, r->batch->tenant) != 0)
			break;
		n += more;
		pop_locked(q);
		r->size += next->size;
		q->n_open--;
		v[k++] = batch_ref(next->batch);
		request_free(next);
	}
	pthread_mutex_unlock(&q->lock);
	if (k > 1) {
		batch_unref(r->batch);
		r->batch = batch_concat(v, k);
		more = r->size;
		measure(r);
		r->size = more;
	} else {
		batch_unref(v[0]);
	}
	return r;
}

static void activate(struct send_request *r)
{
	struct sending_queue *q = r->queue;

	r->is_active = true;
	r->prev = NULL;
	r->next = q->active;
	if (q->active != NULL)
		q->active->prev = r;
	q->active = r;
	q->n_busy++;
	atomic_fetch_add(&q->o.component->count->in_flight, 1);
}

/* Start attempts while consumers are free. On the loop. */
static void pump(struct sending_queue *q)
{
	struct send_request *r;

	if (q->pumping || q->stopping)
		return;
	q->pumping = true;
	while (q->n_busy < q->n_consumers && (r = pop(q)) != NULL) {
		if (q->log != NULL && atomic_load(&q->draining) && atomic_load(&q->last_failed)) {
			give_back(r, DROP_SHUTDOWN, NULL);
			continue;
		}
		if (q->log == NULL && q->o.queue->batch_on)
			r = join_waiting(q, r);
		activate(r);
		attempt(r);
	}
	q->pumping = false;
}

/* ---- what nobody waits for any more ---- */

/* Take the withdrawn ones off the waiting list; returns them. */
static struct send_request *take_withdrawn(struct sending_queue *q)
{
	struct request_list keep = { .tail = &keep.head };
	struct send_request *taken = NULL, *r, *next;

	pthread_mutex_lock(&q->lock);
	for (r = q->waiting.head; r != NULL; r = next) {
		next = r->next;
		if (batch_is_withdrawn(r->batch)) {
			r->next = taken;
			taken = r;
		} else {
			list_add(&keep, r);
		}
	}
	q->waiting = keep;
	if (keep.n == 0)
		q->waiting.tail = &q->waiting.head;
	pthread_mutex_unlock(&q->lock);
	return taken;
}

static void give_up_withdrawn(struct sending_queue *q)
{
	struct send_request *r, *next;

	/* Nobody else may take requests off the list meanwhile. */
	q->pumping = true;
	for (r = q->active; r != NULL; r = next) {
		next = r->next;
		if (!batch_is_withdrawn(r->batch))
			continue;
		if (r->is_sending)
			q->o.cancel(q->o.component, r);
		else
			give_back(r, DROP_REASON_MAX, NULL);
	}
	q->pumping = false;
	for (r = take_withdrawn(q); r != NULL; r = next) {
		next = r->next;
		give_back(r, DROP_REASON_MAX, NULL);
	}
}

static void start_sweeper(struct sending_queue *q)
{
	bool wanted;

	pthread_mutex_lock(&q->lock);
	wanted = q->n_open > 0;
	pthread_mutex_unlock(&q->lock);
	if (wanted && q->log == NULL && !loop_timer_is_active(&q->sweeper))
		loop_timer_start(q->o.loop, &q->sweeper, SWEEP_MS);
}

static void sweep(void *arg)
{
	struct sending_queue *q = arg;

	give_up_withdrawn(q);
	pump(q);
	start_sweeper(q);
}

static void pump_task(void *arg)
{
	struct sending_queue *q = arg;

	atomic_store(&q->posted, false);
	pump(q);
	start_sweeper(q);
}

/* ---- consume ---- */

void sending_queue_consume(struct sending_queue *q, struct batch *b)
{
	struct err err = ERR_INIT;

	if (b->tables.n_spans == 0) {
		batch_unref(b);
		return;
	}
	if (q->log != NULL) {
		sending_queue_log_append(q, b);
		return;
	}
	if (sending_queue_push(q, b, false))
		return;
	atomic_fetch_add(&q->o.component->count->enqueue_failed, batch_n_items(b));
	err_set(&err, ERR_EXHAUSTED, "sending queue is full");
	batch_settle(b, VERDICT_RETRYABLE, DROP_QUEUE_FULL, &err);
	batch_unref(b);
}

/* ---- life ---- */

struct sending_queue *sending_queue_new(const struct sending_queue_settings *s, struct err *err)
{
	struct sending_queue *q = xcalloc(1, sizeof(*q));
	const struct queue_options *o = s->queue;

	q->o = *s;
	q->max_bytes = s->max_request_bytes ? s->max_request_bytes : UINT64_MAX;
	q->waiting.tail = &q->waiting.head;
	q->task = (struct loop_task){ .fn = pump_task, .arg = q };
	q->sweeper = (struct loop_timer){ .fn = sweep, .arg = q };
	/* Without a queue everything is sent as it comes; the receivers' budget bounds it. */
	q->n_consumers = s->takes_spans || s->in_order ? 1
			 : o->enabled                  ? o->num_consumers
						       : UINT64_MAX;
	pthread_mutex_init(&q->lock, NULL);
	rng_seed(&q->rng, clock_mono_ns() ^ (uint64_t)(uintptr_t)q);
	atomic_store(&s->component->count->queue_capacity, o->enabled ? (int64_t)o->queue_size : 0);
	if (o->enabled && o->storage[0] != '\0' && sending_queue_log_open(q, err) < 0) {
		sending_queue_free(q);
		return NULL;
	}
	return q;
}

bool sending_queue_is_failing(struct sending_queue *q, char *why, size_t why_size)
{
	return q->log != NULL && sending_queue_log_is_failing(q, why, why_size);
}

bool sending_queue_is_drained(struct sending_queue *q)
{
	bool drained;

	pthread_mutex_lock(&q->lock);
	drained = q->n_open == 0 &&
		  (q->log == NULL || sending_queue_log_is_empty(q) ||
		   (atomic_load(&q->last_failed) && sending_queue_log_is_counted(q)));
	pthread_mutex_unlock(&q->lock);
	return drained;
}

static void drain_on_loop(void *arg)
{
	struct sending_queue *q = arg;
	struct send_request *r, *next;

	q->pumping = true;
	for (r = q->active; r != NULL; r = next) {
		next = r->next;
		if (r->is_sending)
			continue;
		if (!r->is_told)
			loop_timer_start(q->o.loop, &r->timer, 0);
		else if (q->log != NULL)
			give_back(r, DROP_SHUTDOWN, NULL);
	}
	q->pumping = false;
	pump(q);
}

void sending_queue_drain(struct sending_queue *q)
{
	atomic_store(&q->draining, true);
	loop_call(q->o.loop, drain_on_loop, q);
	sending_queue_log_wake(q);
}

static void stop_on_loop(void *arg)
{
	struct sending_queue *q = arg;
	struct err err = ERR_INIT;
	struct send_request *r;

	q->stopping = true;
	loop_timer_stop(q->o.loop, &q->sweeper);
	err_set(&err, ERR_UNAVAILABLE, "shutting down");
	while ((r = q->active) != NULL) {
		if (r->is_sending)
			q->o.cancel(q->o.component, r);
		else
			give_back(r, DROP_SHUTDOWN, &err);
	}
	while ((r = pop(q)) != NULL)
		give_back(r, DROP_SHUTDOWN, &err);
}

void sending_queue_free(struct sending_queue *q)
{
	if (q == NULL)
		return;
	sending_queue_log_stop(q);
	loop_call(q->o.loop, stop_on_loop, q);
	sending_queue_log_close(q);
	assert(q->n_open == 0);
	pthread_mutex_destroy(&q->lock);
	free(q);
}
