/* SPDX-License-Identifier: Apache-2.0
 *
 * flush.c - see flush.h.
 */
#include "connectors/spanmetrics/flush.h"

#include "base/clock.h"
#include "base/mem.h"
#include "connectors/spanmetrics/rows.h"
#include "pipeline/telemetry.h"

#include <pthread.h>
#include <time.h>

/* Exemplars that the prober heard of; another in the same place is heard of again. */
enum { SHOWN = 1 << 14 };

struct flusher {
	_Atomic uint32_t refs;
	struct component *c; /* NULL once stopped; the thread's, and main's after it ended */
	struct budget *budget;
	bool is_delta;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool is_stopping, is_finishing, is_finished, is_wanted; /* lock */
	struct shipment *refused, **refused_end;                /* oldest first; lock */
	size_t n_refused_bytes;
	_Atomic int64_t n_under_way;
	_Atomic uint64_t n_flushes, n_points, n_refused, n_lost;
	/* ---- the thread's ---- */
	struct rows rows;
	struct buf out;
	struct metrics_writer w;
	char tenant[TENANT_MAX + 1]; /* of what is in out */
	uint64_t *shown;             /* [SHOWN]; NULL: there is no prober */
};

/* One batch under way. */
struct shipment {
	struct origin origin; /* first */
	struct shipment *next;
	struct flusher *f;
	struct rcbuf *bytes;
	uint32_t n_points;
	char tenant[TENANT_MAX + 1];
};

static void unref(struct flusher *f)
{
	if (atomic_fetch_sub(&f->refs, 1) > 1)
		return;
	pthread_mutex_destroy(&f->lock);
	pthread_cond_destroy(&f->cond);
	free(f);
}

static void shipment_free(struct shipment *s)
{
	rcbuf_unref(s->bytes);
	free(s);
}

/* ---- what was refused ---- */

static void lose(struct flusher *f, struct shipment *s, const char *why)
{
	atomic_fetch_add(&f->n_lost, s->n_points);
	log_warn("metrics of spans were lost", "points", LOG_NUM(s->n_points), "why", why);
	shipment_free(s);
}

/* Lock held. */
static struct shipment *pop_refused(struct flusher *f)
{
	struct shipment *s = f->refused;

	if (s == NULL)
		return NULL;
	f->refused = s->next;
	if (f->refused == NULL)
		f->refused_end = &f->refused;
	f->n_refused_bytes -= s->bytes->cap;
	s->next = NULL;
	return s;
}

/* Keep it for the next flush. */
static void keep(struct flusher *f, struct shipment *s)
{
	size_t max = f->budget != NULL
			     ? (size_t)MAX(atomic_load(&f->budget->limit), 0) / FLUSH_BUDGET_PART
			     : SIZE_MAX;
	struct shipment *old = NULL, *one, **end = &old;

	pthread_mutex_lock(&f->lock);
	s->next = NULL;
	*f->refused_end = s;
	f->refused_end = &s->next;
	f->n_refused_bytes += s->bytes->cap;
	while (f->n_refused_bytes > max && (one = pop_refused(f)) != NULL) {
		*end = one;
		end = &one->next;
	}
	pthread_mutex_unlock(&f->lock);
	while ((one = old) != NULL) {
		old = one->next;
		lose(f, one, "the next hop refused them for too long");
	}
}

/* ---- batches ---- */

static void settled(struct origin *o)
{
	struct shipment *s = CONTAINER_OF(o, struct shipment, origin);
	struct flusher *f = s->f;
	struct origin_outcome outcome;

	origin_outcome(o, &outcome);
	atomic_fetch_add(&f->n_refused, outcome.retryable ? s->n_points : 0);
	origin_fini(o);
	if (outcome.retryable && f->is_delta)
		keep(f, s);
	else
		shipment_free(s);
	atomic_fetch_sub(&f->n_under_way, 1);
	unref(f);
}

/* Hand on the bytes of a shipment. Takes it. */
static void send_shipment(struct flusher *f, struct shipment *s)
{
	struct otlp_result result;
	struct err err = ERR_INIT;
	struct batch *b;

	b = batch_from_request(OTLP_METRICS, rcbuf_ref(s->bytes), s->tenant, f->budget, &result,
			       &err);
	if (b == NULL && f->is_delta) {
		keep(f, s);
		return;
	}
	if (b == NULL) {
		lose(f, s, err.msg);
		return;
	}
	atomic_fetch_add(&f->n_under_way, 1);
	atomic_fetch_add(&f->refs, 1);
	origin_init_items(&s->origin, OTLP_METRICS, b->tables.n_spans, settled);
	batch_bind(b, &s->origin);
	component_emit(f->c, b);
}

/* What was written so far becomes a batch. */
static void ship(struct flusher *f)
{
	struct shipment *s;
	uint8_t *p;
	size_t n;

	metrics_writer_finish(&f->w);
	if (f->w.n_points == 0) {
		buf_reset(&f->out);
		return;
	}
	s = xcalloc(1, sizeof(*s));
	s->f = f;
	s->n_points = f->w.n_points;
	memcpy(s->tenant, f->tenant, sizeof(s->tenant));
	p = buf_take(&f->out, &n);
	s->bytes = rcbuf_adopt(f->budget, p, n);
	metrics_writer_init(&f->w, &f->out);
	atomic_fetch_add(&f->n_points, s->n_points);
	send_shipment(f, s);
}

/* ---- one flush ---- */

static void probe_one(struct flusher *f, const char *tenant, const struct exemplar *x)
{
	struct spanmetrics_state *st = f->rows.st;
	uint64_t id = load_le64(x->span_id) ^ load_le64(x->trace_id + 8);
	uint64_t *place;

	place = &f->shown[(id ^ id >> 32) & (SHOWN - 1)];
	if (*place == id)
		return;
	*place = id;
	probe_exposed(st->probe, tenant, x->trace_id, x->span_id);
}

static void probe_rows(struct flusher *f, const struct span_resource *res)
{
	struct rows *r = &f->rows;

	if (f->shown == NULL)
		return;
	for (size_t i = 0; i < r->n_exemplars; i++)
		probe_one(f, res->tenant, &r->exemplars[i]);
	for (size_t i = 0; i < r->n; i++)
		if (r->v[i].has_best)
			probe_one(f, res->tenant, &r->v[i].best);
}

static void flush_resource(struct flusher *f, struct span_resource *res)
{
	if (strcmp(f->tenant, res->tenant) != 0)
		ship(f);
	memcpy(f->tenant, res->tenant, sizeof(f->tenant));
	rows_begin(&f->rows, res);
	while (rows_copy(&f->rows)) {
		rows_write(&f->rows, &f->w);
		probe_rows(f, res);
		if (f->out.n >= FLUSH_BYTES || f->w.n_points >= FLUSH_POINTS)
			ship(f);
	}
}

static int by_tenant(const void *a, const void *b)
{
	const struct span_resource *const *x = a, *const *y = b;

	return strcmp((*x)->tenant, (*y)->tenant);
}

static void send_refused(struct flusher *f)
{
	struct shipment *s, *next;

	pthread_mutex_lock(&f->lock);
	s = f->refused;
	f->refused = NULL;
	f->refused_end = &f->refused;
	f->n_refused_bytes = 0;
	pthread_mutex_unlock(&f->lock);
	for (; s != NULL; s = next) {
		next = s->next;
		s->next = NULL;
		send_shipment(f, s);
	}
}

static void flush(struct flusher *f)
{
	struct rows *r = &f->rows;
	struct span_resource **v;
	size_t n;

	send_refused(f);
	r->now_ns = clock_wall_ns();
	v = resources_list(&r->st->resources, &n);
	qsort(v, n, sizeof(*v), by_tenant);
	for (size_t i = 0; i < n; i++)
		flush_resource(f, v[i]);
	ship(f);
	free(v);
	/* Resources without rows that were quiet for an interval: of no service, or expired. */
	if (r->last_flush_ns > 0)
		resources_sweep(&r->st->resources, r->last_flush_ns);
	r->last_flush_ns = r->now_ns;
	atomic_fetch_add(&f->n_flushes, 1);
}

/* ---- life ---- */

/* Wait for the next flush, or until it is over. Lock held. */
static void wait_until(struct flusher *f, uint64_t due_ns)
{
	struct timespec at = { (time_t)(due_ns / NS_PER_S), (long)(due_ns % NS_PER_S) };

	while (!f->is_stopping && !f->is_finishing && !f->is_wanted && clock_mono_ns() < due_ns)
		pthread_cond_timedwait(&f->cond, &f->lock, &at);
}

static void *run(void *arg)
{
	struct flusher *f = arg;
	uint64_t interval = (uint64_t)f->rows.conf->flush_interval_ns;
	uint64_t due = clock_mono_ns() + interval;
	bool finishing = false;

	pthread_setname_np(pthread_self(), "spanmetrics");
	pthread_mutex_lock(&f->lock);
	while (!finishing) {
		wait_until(f, due);
		if (f->is_stopping)
			break;
		finishing = f->is_finishing;
		f->is_wanted = false;
		due = MAX(due + interval, clock_mono_ns());
		pthread_mutex_unlock(&f->lock);
		flush(f);
		pthread_mutex_lock(&f->lock);
	}
	f->is_finished = true;
	pthread_mutex_unlock(&f->lock);
	return NULL;
}

static void init(struct flusher *f, struct component *c)
{
	struct spanmetrics_state *st = COMPONENT_STATE(c, struct spanmetrics_state);
	pthread_condattr_t attr;

	atomic_init(&f->refs, 1);
	f->c = c;
	f->budget = component_budget(c);
	f->rows.c = c;
	f->rows.st = st;
	f->rows.conf = COMPONENT_CONFIG(c, struct spanmetrics_config);
	f->is_delta = f->rows.conf->temporality == TEMPORALITY_DELTA;
	f->refused_end = &f->refused;
	metrics_writer_init(&f->w, &f->out);
	if (st->probe != NULL)
		f->shown = xcalloc(SHOWN, sizeof(*f->shown));
	pthread_mutex_init(&f->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&f->cond, &attr);
	pthread_condattr_destroy(&attr);
}

int flusher_start(struct component *c, struct err *err)
{
	struct spanmetrics_state *st = COMPONENT_STATE(c, struct spanmetrics_state);
	struct flusher *f = xcalloc(1, sizeof(*f));
	int e;

	init(f, c);
	e = pthread_create(&f->thread, NULL, run, f);
	if (e != 0) {
		free(f->shown);
		unref(f);
		return err_set(err, ERR_UNAVAILABLE, "a thread: %s", strerror(e));
	}
	st->flusher = f;
	return 0;
}

void flusher_flush(struct flusher *f)
{
	pthread_mutex_lock(&f->lock);
	f->is_wanted = true;
	pthread_cond_signal(&f->cond);
	pthread_mutex_unlock(&f->lock);
}

void flusher_finish(struct flusher *f)
{
	pthread_mutex_lock(&f->lock);
	f->is_finishing = true;
	pthread_cond_signal(&f->cond);
	pthread_mutex_unlock(&f->lock);
}

bool flusher_is_finished(struct flusher *f)
{
	bool is_finished;

	pthread_mutex_lock(&f->lock);
	is_finished = f->is_finished;
	pthread_mutex_unlock(&f->lock);
	return is_finished && atomic_load(&f->n_under_way) == 0;
}

void flusher_stop(struct flusher *f)
{
	struct shipment *s;

	if (f == NULL)
		return;
	pthread_mutex_lock(&f->lock);
	f->is_stopping = true;
	pthread_cond_signal(&f->cond);
	pthread_mutex_unlock(&f->lock);
	pthread_join(f->thread, NULL);
	pthread_mutex_lock(&f->lock);
	s = f->refused;
	f->refused = NULL;
	f->refused_end = &f->refused;
	pthread_mutex_unlock(&f->lock);
	while (s != NULL) {
		struct shipment *next = s->next;

		lose(f, s, "the next hop refused them until the end");
		s = next;
	}
	rows_fini(&f->rows);
	buf_fini(&f->out);
	free(f->shown);
	unref(f);
}

static void counter(struct buf *out, const char *id, const char *name, uint64_t v, const char *help)
{
	telemetry_head(out, name, "counter", help);
	telemetry_sample(out, name, (double)v, "connector", id, NULL);
}

void flusher_metrics(struct flusher *f, const char *id, struct buf *out)
{
	counter(out, id, "spanmill_spanmetrics_flushes", atomic_load(&f->n_flushes),
		"Times that all rows were sent on.");
	counter(out, id, "spanmill_spanmetrics_points", atomic_load(&f->n_points),
		"Data points made.");
	counter(out, id, "spanmill_spanmetrics_refused_points", atomic_load(&f->n_refused),
		"Data points that the next hop would not take; deltas are sent again.");
	counter(out, id, "spanmill_spanmetrics_lost_points", atomic_load(&f->n_lost),
		"Deltas that nobody took.");
}
