/* SPDX-License-Identifier: Apache-2.0
 *
 * probe.c - see probe.h. An item that is asked for again goes to the end of `again`: all of them
 * wait equally long, so the list is in the order of their times.
 */
#include "connectors/spanmetrics/probe.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "connectors/spanmetrics/probe_http.h"
#include "connectors/spanmetrics/probe_seen.h"
#include "pipeline/telemetry.h"

#include <pthread.h>
#include <time.h>

#define PAUSE_MAX_NS (30 * NS_PER_S)

#define C struct probe_config
const struct option probe_option_table[] = {
	OPT_STR(C, "endpoint", endpoint, "",
		"Query API that exposed exemplars are read back from: a URL or host:port; unset: "
		"the query extension of this process, when there is one."),
	OPT_DOUBLE(C, "rate", rate, "10", 0.01, 100000, "Look-ups a second, at most."),
	OPT_DURATION(C, "wait", wait_ns, "1m",
		     "How long a trace may take to be found (a broker between) before it counts as "
		     "missing."),
	OPT_END
};
#undef C

struct item {
	struct item *next;
	uint64_t begun_ns, due_ns; /* of clock_mono_ns */
	uint64_t denied_ns;        /* the first time it was not found; 0: never */
	uint8_t trace_id[16], span_id[8];
	char tenant[];
};

struct item_list {
	struct item *first, **end;
};

enum skip { SKIP_FULL, SKIP_UNANSWERED, SKIP_TOO_LARGE, SKIP_MAX };
enum result { RESULT_OK, RESULT_PARTIAL, RESULT_MISSING, RESULT_MAX };

struct probe {
	struct span_lookup *lookup, *own; /* own: made by probe_new */
	const struct probe_config *conf;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct item_list fresh, again;
	struct probe_seen seen;
	uint64_t next_ns;  /* no question before */
	uint64_t pause_ns; /* after a question without an answer; the thread's */
	uint32_t n_waiting;
	bool has_thread, no_thread;
	_Atomic bool is_gone;
	_Atomic uint64_t results[RESULT_MAX], skipped[SKIP_MAX], late, unanswered;
};

/* ---- options ---- */

void probe_validate(const struct probe_config *conf, const struct conf_node *node,
		    struct conf_errors *errs, const char *path, const char *key)
{
	struct err err = ERR_INIT;

	if (conf->endpoint != NULL && conf->endpoint[0] != '\0' &&
	    probe_http_check(conf->endpoint, &err) < 0)
		conf_error_at(errs, node, path, key, "for example http://query:3200", "%s",
			      err.msg);
}

/* ---- what waits; under the lock ---- */

static void push(struct item_list *l, struct item *it)
{
	it->next = NULL;
	*l->end = it;
	l->end = &it->next;
}

static struct item *pop(struct item_list *l)
{
	struct item *it = l->first;

	l->first = it->next;
	if (l->first == NULL)
		l->end = &l->first;
	return it;
}

/* When there is something to ask; UINT64_MAX: never. */
static uint64_t due_at(const struct probe *p)
{
	uint64_t due = UINT64_MAX;

	if (p->fresh.first != NULL)
		due = 0;
	else if (p->again.first != NULL)
		due = p->again.first->due_ns;
	return due == UINT64_MAX ? due : MAX(due, p->next_ns);
}

static void wait_until(struct probe *p, uint64_t ns)
{
	struct timespec ts = { (time_t)(ns / NS_PER_S), (long)(ns % NS_PER_S) };

	if (ns == UINT64_MAX)
		pthread_cond_wait(&p->cond, &p->lock);
	else
		pthread_cond_timedwait(&p->cond, &p->lock, &ts);
}

/* The next to be asked for, when it is time; NULL: the end. */
static struct item *next_item(struct probe *p)
{
	struct item *it = NULL;

	pthread_mutex_lock(&p->lock);
	while (!atomic_load(&p->is_gone)) {
		uint64_t now = clock_mono_ns(), due = due_at(p);

		if (due <= now) {
			bool is_again = p->again.first != NULL && p->again.first->due_ns <= now;

			it = pop(is_again ? &p->again : &p->fresh);
			p->next_ns = now + (uint64_t)((double)NS_PER_S / p->conf->rate);
			break;
		}
		wait_until(p, due);
	}
	pthread_mutex_unlock(&p->lock);
	return it;
}

static void ask_again(struct probe *p, struct item *it)
{
	pthread_mutex_lock(&p->lock);
	it->due_ns = clock_mono_ns() + PROBE_AGAIN_NS;
	p->next_ns = MAX(p->next_ns, clock_mono_ns() + p->pause_ns);
	push(&p->again, it);
	pthread_mutex_unlock(&p->lock);
}

static void done_with(struct probe *p, struct item *it)
{
	pthread_mutex_lock(&p->lock);
	p->n_waiting--;
	pthread_mutex_unlock(&p->lock);
	free(it);
}

/* ---- answers; on the thread ---- */

static void say(const struct item *it, enum result r)
{
	char trace_id[33], span_id[17];

	str_hex(it->trace_id, 16, trace_id);
	str_hex(it->span_id, 8, span_id);
	if (r == RESULT_MISSING)
		log_error("the trace of an exposed exemplar is not found", "trace_id", trace_id,
			  "span_id", span_id, "tenant", it->tenant);
	else
		log_error("the trace of an exposed exemplar lacks its span", "trace_id", trace_id,
			  "span_id", span_id, "tenant", it->tenant);
}

static void not_found(struct probe *p, struct item *it, enum result r)
{
	uint64_t now = clock_mono_ns();

	if (it->denied_ns == 0)
		it->denied_ns = now;
	if (now - it->denied_ns < (uint64_t)p->conf->wait_ns) {
		ask_again(p, it);
		return;
	}
	atomic_fetch_add(&p->results[r], 1);
	say(it, r);
	done_with(p, it);
}

static void no_answer(struct probe *p, struct item *it, const struct err *err)
{
	bool is_too_large = err->kind == ERR_TOO_LARGE;

	if (atomic_load(&p->is_gone)) {
		done_with(p, it);
		return;
	}
	atomic_fetch_add(&p->unanswered, 1);
	log_warn("an exposed exemplar cannot be looked up", "error", err->msg);
	if (is_too_large || clock_mono_ns() - it->begun_ns >= PROBE_PATIENCE_NS) {
		atomic_fetch_add(&p->skipped[is_too_large ? SKIP_TOO_LARGE : SKIP_UNANSWERED], 1);
		done_with(p, it);
		return;
	}
	p->pause_ns = MIN(MAX(2 * p->pause_ns, NS_PER_S), PAUSE_MAX_NS);
	ask_again(p, it);
}

static void ask(struct probe *p, struct item *it)
{
	struct span_wanted w = { .tenant = it->tenant };
	struct err err = ERR_INIT;
	enum span_found found;

	memcpy(w.trace_id, it->trace_id, sizeof(w.trace_id));
	memcpy(w.span_id, it->span_id, sizeof(w.span_id));
	found = p->lookup->find(p->lookup, &w, &p->is_gone, &err);
	if (found == SPAN_UNKNOWN) {
		no_answer(p, it, &err);
		return;
	}
	p->pause_ns = 0;
	if (found != SPAN_FOUND) {
		not_found(p, it, found == SPAN_NO_TRACE ? RESULT_MISSING : RESULT_PARTIAL);
		return;
	}
	atomic_fetch_add(&p->results[RESULT_OK], 1);
	if (it->denied_ns != 0)
		atomic_fetch_add(&p->late, 1);
	done_with(p, it);
}

static void *probe_thread(void *arg)
{
	struct probe *p = arg;
	struct item *it;

	pthread_setname_np(pthread_self(), "exemplar-probe");
	while ((it = next_item(p)) != NULL)
		ask(p, it);
	return NULL;
}

/* ---- life ---- */

static struct probe *make(const struct probe_config *conf)
{
	struct probe *p = xcalloc(1, sizeof(*p));
	pthread_condattr_t attr;

	p->conf = conf;
	p->fresh.end = &p->fresh.first;
	p->again.end = &p->again.first;
	pthread_mutex_init(&p->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&p->cond, &attr);
	pthread_condattr_destroy(&attr);
	return p;
}

struct probe *probe_new_asking(struct span_lookup *lookup, const struct probe_config *conf)
{
	struct probe *p = make(conf);

	p->lookup = lookup;
	return p;
}

struct probe *probe_new(struct component *c, const struct probe_config *conf, struct err *err)
{
	struct span_lookup *near = NULL;
	struct probe *p;

	if (conf->endpoint == NULL || conf->endpoint[0] == '\0') {
		near = component_borrow(c, "query");
		return near != NULL ? probe_new_asking(near, conf) : NULL;
	}
	p = make(conf);
	p->own = probe_http_new(conf->endpoint, component_budget(c), &p->is_gone, err);
	p->lookup = p->own;
	if (p->own == NULL) {
		probe_free(p);
		return NULL;
	}
	return p;
}

void probe_free(struct probe *p)
{
	if (p == NULL)
		return;
	pthread_mutex_lock(&p->lock);
	atomic_store(&p->is_gone, true);
	pthread_cond_signal(&p->cond);
	pthread_mutex_unlock(&p->lock);
	if (p->has_thread)
		pthread_join(p->thread, NULL);
	while (p->fresh.first != NULL)
		free(pop(&p->fresh));
	while (p->again.first != NULL)
		free(pop(&p->again));
	probe_http_free(p->own);
	probe_seen_fini(&p->seen);
	pthread_cond_destroy(&p->cond);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

static struct item *new_item(const char *tenant, const uint8_t *trace_id, const uint8_t *span_id)
{
	size_t n = strlen(tenant) + 1;
	struct item *it = xcalloc(1, sizeof(*it) + n);

	memcpy(it->trace_id, trace_id, sizeof(it->trace_id));
	memcpy(it->span_id, span_id, sizeof(it->span_id));
	memcpy(it->tenant, tenant, n);
	it->begun_ns = clock_mono_ns();
	return it;
}

/* Under the lock. */
static bool has_thread(struct probe *p)
{
	if (!p->has_thread && !p->no_thread) {
		p->has_thread = pthread_create(&p->thread, NULL, probe_thread, p) == 0;
		p->no_thread = !p->has_thread;
	}
	return p->has_thread;
}

void probe_exposed(struct probe *p, const char *tenant, const uint8_t trace_id[16],
		   const uint8_t span_id[8])
{
	if (p == NULL)
		return;
	pthread_mutex_lock(&p->lock);
	if (!probe_seen_is_new(&p->seen, trace_id, span_id)) {
		pthread_mutex_unlock(&p->lock);
		return;
	}
	if (p->n_waiting < PROBE_WAITING && has_thread(p)) {
		push(&p->fresh, new_item(tenant, trace_id, span_id));
		p->n_waiting++;
		pthread_cond_signal(&p->cond);
	} else {
		atomic_fetch_add(&p->skipped[SKIP_FULL], 1);
	}
	pthread_mutex_unlock(&p->lock);
}

/* ---- metrics ---- */

static void write_by(struct buf *out, const char *name, const char *connector, const char *label,
		     const char *const *words, _Atomic uint64_t *values, size_t n)
{
	for (size_t i = 0; i < n; i++)
		telemetry_sample(out, name, (double)atomic_load(&values[i]), "connector", connector,
				 label, words[i], NULL);
}

void probe_metrics(struct probe *p, const char *connector, struct buf *out)
{
	static const char *const results[] = { "ok", "partial", "missing" };
	static const char *const skips[] = { "full", "unanswered", "too_large" };
	uint32_t n_waiting;

	if (p == NULL)
		return;
	pthread_mutex_lock(&p->lock);
	n_waiting = p->n_waiting;
	pthread_mutex_unlock(&p->lock);
	telemetry_head(out, "exemplar_probe_total", "counter",
		       "Exposed exemplars that were looked up, by what was found.");
	write_by(out, "exemplar_probe_total", connector, "result", results, p->results, RESULT_MAX);
	telemetry_head(out, "exemplar_probe_skipped_total", "counter",
		       "Exposed exemplars that were not looked up, by why.");
	write_by(out, "exemplar_probe_skipped_total", connector, "reason", skips, p->skipped,
		 SKIP_MAX);
	telemetry_head(out, "exemplar_probe_late_total", "counter",
		       "Of those that are ok: found only when asked again.");
	telemetry_sample(out, "exemplar_probe_late_total", (double)atomic_load(&p->late),
			 "connector", connector, NULL);
	telemetry_head(out, "exemplar_probe_unanswered_total", "counter",
		       "Look-ups without an answer, or with an incomplete one.");
	telemetry_sample(out, "exemplar_probe_unanswered_total",
			 (double)atomic_load(&p->unanswered), "connector", connector, NULL);
	telemetry_head(out, "exemplar_probe_waiting", "gauge",
		       "Exposed exemplars that are still to be looked up.");
	telemetry_sample(out, "exemplar_probe_waiting", (double)n_waiting, "connector", connector,
			 NULL);
}
