/* SPDX-License-Identifier: Apache-2.0
 *
 * origin.c - see origin.h.
 *
 * A mark byte: bit 0 delivered, bit 1 held, bit 2 found (whoever looks for it will find it), high
 * nibble the first drop reason + 1; 0 for a span that met its verdict before the fan-out, or
 * outside it, and stands in the tallies. Marks are made by the first fan-out, before any branch
 * runs, so that no verdict of a branch can miss them.
 *
 * Watches are a stack that is emptied when the origin settles, before `settled` runs: pushing needs
 * a verdict still owed, so nothing is pushed after that.
 *
 * Withdrawal races with the last verdict: both move `withdrawn` from OPEN, one wins, and the loser
 * follows it.
 */
#include "pipeline/origin.h"

#include "base/mem.h"
#include "base/rng.h"
#include "pipeline/span/watch.h"

#include <pthread.h>

enum {
	MARK_DELIVERED = 1,
	MARK_HELD = 2,
	MARK_FOUND = 4,
	MARK_REASON_SHIFT = 4,
	MARK_REASON = 0xf0
};
enum { OPEN, WITHDRAWN, SETTLED };

struct origin_marks {
	uint64_t number; /* of the first span; span/numbers.h */
	_Atomic uint8_t v[];
};

struct ledger ledger;
static struct ledger ledger_metrics, ledger_logs;

static _Atomic uint64_t next_number = 1;
static pthread_once_t epoch_once = PTHREAD_ONCE_INIT;
static uint64_t epoch;

static const char *const reason_names[DROP_REASON_MAX] = {
	[DROP_SAMPLED] = "sampled",
	[DROP_FILTERED] = "filtered",
	[DROP_REJECTED] = "rejected_by_next_hop",
	[DROP_PERMANENT] = "permanent_error",
	[DROP_QUEUE_FULL] = "queue_full",
	[DROP_RETRIES_EXHAUSTED] = "retries_exhausted",
	[DROP_TOO_LARGE] = "too_large",
	[DROP_BEST_EFFORT] = "best_effort_only",
	[DROP_CORRUPT] = "corrupt_log",
	[DROP_SHUTDOWN] = "shutdown",
};

const char *drop_reason_name(enum drop_reason reason)
{
	return reason_names[reason];
}

void origin_init_held(struct origin *o, uint32_t n_spans, void (*settled)(struct origin *o))
{
	memset(o, 0, sizeof(*o));
	o->settled = settled;
	o->n_spans = n_spans;
	atomic_store(&o->owed, n_spans);
}

struct ledger *ledger_of(enum otlp_signal signal)
{
	return signal == OTLP_TRACES ? &ledger
	       : signal == OTLP_LOGS ? &ledger_logs
				     : &ledger_metrics;
}

void origin_init_items(struct origin *o, enum otlp_signal signal, uint32_t n_items,
		       void (*settled)(struct origin *o))
{
	origin_init_held(o, n_items, settled);
	o->books = ledger_of(signal);
	atomic_fetch_add_explicit(&o->books->in_flight, n_items, memory_order_relaxed);
}

void origin_init(struct origin *o, uint32_t n_spans, void (*settled)(struct origin *o))
{
	origin_init_items(o, OTLP_TRACES, n_spans, settled);
}

void origin_promise(struct origin *o)
{
	o->promised = true;
}

/* Why spans went back that nobody will send again; the first reason stays. */
static void note_retry(struct origin *o, enum drop_reason reason)
{
	int none = 0;

	if (reason != DROP_REASON_MAX)
		atomic_compare_exchange_strong(&o->retry_reason, &none, (int)reason + 1);
}

void origin_fan_out(struct origin *o, uint32_t n, uint32_t extra)
{
	struct origin_marks *none = NULL, *marks;

	if (extra == 0 || n == 0)
		return;
	if (atomic_load(&o->marks) == NULL) {
		marks = xcalloc(1, sizeof(*marks) + o->n_spans);
		marks->number = atomic_fetch_add(&next_number, o->n_spans);
		if (!atomic_compare_exchange_strong(&o->marks, &none, marks))
			free(marks);
	}
	atomic_fetch_add(&o->owed, (int64_t)n * extra);
}

bool origin_has_marks(const struct origin *o)
{
	return atomic_load_explicit(&o->marks, memory_order_acquire) != NULL;
}

uint64_t origin_number(const struct origin *o, uint32_t ordinal)
{
	const struct origin_marks *marks = atomic_load_explicit(&o->marks, memory_order_acquire);

	return marks != NULL ? marks->number + ordinal : 0;
}

static void make_epoch(void)
{
	rng_kernel(&epoch, sizeof(epoch));
}

uint64_t origin_epoch(void)
{
	pthread_once(&epoch_once, make_epoch);
	return epoch;
}

/* May a reason stand here? The first one stays, but for that of a branch which only looks. */
static bool takes_reason(uint8_t mark)
{
	return (mark & MARK_REASON) == 0 ||
	       mark >> MARK_REASON_SHIFT == (uint8_t)DROP_BEST_EFFORT + 1;
}

bool origin_mark(struct origin *o, uint32_t ordinal, enum verdict v, enum drop_reason reason)
{
	static const uint8_t took[] = {
		[VERDICT_DELIVERED] = MARK_DELIVERED | MARK_FOUND,
		[VERDICT_ASIDE] = MARK_DELIVERED,
		[VERDICT_HELD] = MARK_HELD,
		[VERDICT_STORED] = MARK_HELD | MARK_FOUND,
	};
	_Atomic uint8_t *mark;
	uint8_t old, add = 0;

	assert(ordinal < o->n_spans);
	mark = &atomic_load_explicit(&o->marks, memory_order_acquire)->v[ordinal];
	old = atomic_load_explicit(mark, memory_order_relaxed);
	if (v < COUNT_OF(took)) {
		old = atomic_fetch_or(mark, took[v]);
		return (took[v] & MARK_HELD) && !(old & MARK_HELD);
	}
	if (v == VERDICT_RETRYABLE)
		note_retry(o, reason);
	else
		add = (uint8_t)((reason + 1) << MARK_REASON_SHIFT);
	while (add != 0 && takes_reason(old) &&
	       !atomic_compare_exchange_weak(mark, &old, (uint8_t)((old & ~MARK_REASON) | add))) {
	}
	return false;
}

/* What the answer needs, whichever way the books are kept. */
static void note_failure(struct origin *o, uint32_t n, enum verdict v, const struct err *err)
{
	if (v != VERDICT_PERMANENT && v != VERDICT_RETRYABLE)
		return;
	atomic_fetch_add(v == VERDICT_PERMANENT ? &o->n_permanent : &o->n_retryable, n);
	/* Written before this thread pays its debt, read after the last one has. */
	if (err != NULL && atomic_exchange(&o->err_claimed, 1) == 0)
		o->err = *err;
}

/* ---- watches ---- */

void origin_watch(struct origin *o, struct span_watch *w)
{
	assert(w->ordinal < o->n_spans || w->ordinal == WATCH_REQUEST);
	w->hold = NULL;
	w->next = atomic_load_explicit(&o->watches, memory_order_relaxed);
	while (!atomic_compare_exchange_weak_explicit(&o->watches, &w->next, w,
						      memory_order_release, memory_order_relaxed)) {
	}
}

bool origin_is_all_found(const struct origin *o)
{
	uint32_t n = atomic_load(&o->n_delivered) - atomic_load(&o->n_aside);

	return n + atomic_load(&o->n_stored) == o->n_spans;
}

/* Its client will send it again. */
static bool is_refused(const struct origin *o)
{
	return !o->promised && (origin_is_withdrawn(o) || atomic_load(&o->n_retryable) > 0);
}

/* Tallies do not say which spans they are of: then it is found only if all are. */
static bool is_found(const struct origin *o, uint32_t ordinal)
{
	const struct origin_marks *marks = atomic_load_explicit(&o->marks, memory_order_acquire);

	if (marks == NULL)
		return origin_is_all_found(o);
	return atomic_load_explicit(&marks->v[ordinal], memory_order_relaxed) & MARK_FOUND;
}

static void tell_watches(struct origin *o)
{
	struct span_watch *w = atomic_exchange_explicit(&o->watches, NULL, memory_order_acquire);
	bool is_taken = !is_refused(o);
	struct span_watch *next;

	for (; w != NULL; w = next) {
		next = w->next;
		if (w->ordinal == WATCH_REQUEST)
			w->told(w, is_taken);
		else
			span_watch_settled(w, is_taken, is_taken && is_found(o, w->ordinal));
	}
}

/* ---- paying ---- */

static void pay(struct origin *o, uint32_t n)
{
	int64_t owed = atomic_fetch_sub(&o->owed, n) - n;
	int open = OPEN;

	assert(owed >= 0);
	if (owed > 0)
		return;
	atomic_compare_exchange_strong(&o->withdrawn, &open, SETTLED);
	if (atomic_load_explicit(&o->watches, memory_order_relaxed) != NULL)
		tell_watches(o);
	o->settled(o);
}

void origin_settle(struct origin *o, uint32_t n, enum verdict v, enum drop_reason reason,
		   const struct err *err)
{
	if (n == 0)
		return;
	note_failure(o, n, v, err);
	if (v == VERDICT_DELIVERED || v == VERDICT_ASIDE)
		atomic_fetch_add(&o->n_delivered, n);
	else if (v == VERDICT_HELD || v == VERDICT_STORED)
		atomic_fetch_add(&o->n_held, n);
	else if (v == VERDICT_RETRYABLE)
		note_retry(o, reason);
	else
		atomic_fetch_add(&o->n_dropped[reason], n);
	if (v == VERDICT_ASIDE || v == VERDICT_STORED)
		atomic_fetch_add(v == VERDICT_ASIDE ? &o->n_aside : &o->n_stored, n);
	pay(o, n);
}

void origin_settle_marked(struct origin *o, uint32_t n, enum verdict v, const struct err *err)
{
	if (n == 0)
		return;
	note_failure(o, n, v, err);
	pay(o, n);
}

void origin_outcome(const struct origin *o, struct origin_outcome *out)
{
	out->retryable = atomic_load(&o->n_retryable) > 0;
	out->n_permanent = MIN(atomic_load(&o->n_permanent), o->n_spans);
	out->err = &o->err;
}

uint32_t origin_n_tallied(const struct origin *o)
{
	uint32_t n = atomic_load(&o->n_delivered) + atomic_load(&o->n_held);

	for (int r = 0; r < DROP_REASON_MAX; r++)
		n += atomic_load(&o->n_dropped[r]);
	return n;
}

bool origin_withdraw(struct origin *o)
{
	int open = OPEN;

	return atomic_compare_exchange_strong(&o->withdrawn, &open, WITHDRAWN);
}

bool origin_is_withdrawn(const struct origin *o)
{
	return atomic_load(&o->withdrawn) == WITHDRAWN;
}

/* How an origin's spans ended. */
struct books {
	uint64_t delivered, held, dropped[DROP_REASON_MAX];
};

static void read_tallies(struct origin *o, struct books *to)
{
	to->delivered = atomic_load(&o->n_delivered);
	to->held = atomic_load(&o->n_held);
	for (int r = 0; r < DROP_REASON_MAX; r++)
		to->dropped[r] = atomic_load(&o->n_dropped[r]);
}

static void add_marks(struct origin *o, struct books *to)
{
	const struct origin_marks *marks = atomic_load(&o->marks);

	for (uint32_t i = 0; marks != NULL && i < o->n_spans; i++) {
		uint8_t m = atomic_load_explicit(&marks->v[i], memory_order_relaxed);

		/* Held before delivered: the log will report the delivery when the span leaves it.
		 */
		if (m & MARK_HELD)
			to->held++;
		else if (m & MARK_DELIVERED)
			to->delivered++;
		else if (m >> MARK_REASON_SHIFT)
			to->dropped[(m >> MARK_REASON_SHIFT) - 1]++;
	}
}

/* A promise that was not kept: spans that are in no other book were dropped. */
static void add_broken_promises(struct origin *o, struct books *to)
{
	int reason = atomic_load(&o->retry_reason);
	uint64_t n = to->delivered + to->held;

	for (int r = 0; r < DROP_REASON_MAX; r++)
		n += to->dropped[r];
	if (n < o->n_spans)
		to->dropped[reason > 0 ? reason - 1 : DROP_RETRIES_EXHAUSTED] += o->n_spans - n;
}

uint32_t origin_fini(struct origin *o)
{
	bool refused = is_refused(o);
	struct ledger *l = o->books;
	struct books books;

	read_tallies(o, &books);
	add_marks(o, &books);
	if (o->promised)
		add_broken_promises(o, &books);
	/* What a log already holds of a refused request will leave it as delivered: it came in by
	 * another door. */
	atomic_fetch_add(&l->refused, refused ? o->n_spans : 0);
	atomic_fetch_add(&l->accepted, refused ? books.held : o->n_spans);
	atomic_fetch_add(&l->held, (int64_t)books.held);
	if (!refused) {
		atomic_fetch_add(&l->delivered, books.delivered);
		for (int r = 0; r < DROP_REASON_MAX; r++)
			atomic_fetch_add(&l->dropped[r], books.dropped[r]);
	}
	atomic_fetch_sub(&l->in_flight, o->n_spans);
	free(atomic_exchange(&o->marks, NULL));
	return refused ? 0 : o->n_spans;
}

void ledger_found(struct ledger *l, uint64_t n)
{
	atomic_fetch_add(&l->accepted, n);
	atomic_fetch_add(&l->held, (int64_t)n);
}

void ledger_held_delivered(struct ledger *l, uint64_t n)
{
	atomic_fetch_sub(&l->held, (int64_t)n);
	atomic_fetch_add(&l->delivered, n);
}

void ledger_held_dropped(struct ledger *l, uint64_t n, enum drop_reason reason)
{
	atomic_fetch_sub(&l->held, (int64_t)n);
	atomic_fetch_add(&l->dropped[reason], n);
}
