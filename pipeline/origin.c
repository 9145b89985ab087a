/* SPDX-License-Identifier: Apache-2.0
 *
 * origin.c - see origin.h.
 *
 * A mark byte: bit 0 delivered, bit 1 held, high nibble the first drop reason + 1. Marks are made by the first fan-out,
 * before any branch runs, so that no verdict of a branch can miss them.
 *
 * Withdrawal races with the last verdict: both move `withdrawn` from OPEN, one wins, and the loser follows it.
 */
#include "pipeline/origin.h"

#include "base/mem.h"

enum { MARK_DELIVERED = 1, MARK_HELD = 2, MARK_REASON_SHIFT = 4 };
enum { OPEN, WITHDRAWN, SETTLED };

struct ledger ledger;

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

void origin_init(struct origin *o, uint32_t n_spans, void (*settled)(struct origin *o))
{
	memset(o, 0, sizeof(*o));
	o->settled = settled;
	o->n_spans = n_spans;
	atomic_store(&o->owed, n_spans);
	atomic_fetch_add_explicit(&ledger.in_flight, n_spans, memory_order_relaxed);
}

void origin_fan_out(struct origin *o, uint32_t n, uint32_t extra)
{
	_Atomic uint8_t *none = NULL, *marks;

	if (extra == 0)
		return;
	if (atomic_load(&o->marks) == NULL) {
		marks = xcalloc(o->n_spans, sizeof(*marks));
		if (!atomic_compare_exchange_strong(&o->marks, &none, marks))
			free((void *)marks);
	}
	atomic_fetch_add(&o->owed, (int64_t)n * extra);
}

void origin_mark(struct origin *o, uint32_t ordinal, enum verdict v, enum drop_reason reason)
{
	_Atomic uint8_t *marks = atomic_load_explicit(&o->marks, memory_order_acquire);
	uint8_t zero = 0;

	if (marks == NULL)
		return;
	if (v == VERDICT_DELIVERED)
		atomic_fetch_or(&marks[ordinal], MARK_DELIVERED);
	else if (v == VERDICT_HELD)
		atomic_fetch_or(&marks[ordinal], MARK_HELD);
	else if (v != VERDICT_RETRYABLE)
		atomic_compare_exchange_strong(&marks[ordinal], &zero,
					       (uint8_t)((reason + 1) << MARK_REASON_SHIFT));
}

static void count_verdict(struct origin *o, uint32_t n, enum verdict v, enum drop_reason reason)
{
	switch (v) {
	case VERDICT_DELIVERED:
		atomic_fetch_add(&o->n_delivered, n);
		break;
	case VERDICT_HELD:
		atomic_fetch_add(&o->n_held, n);
		break;
	case VERDICT_PERMANENT:
		atomic_fetch_add(&o->n_permanent, n);
		FALLTHROUGH;
	case VERDICT_DROPPED:
		atomic_fetch_add(&o->n_dropped[reason], n);
		break;
	case VERDICT_RETRYABLE:
		atomic_fetch_add(&o->n_retryable, n);
		break;
	}
}

void origin_settle(struct origin *o, uint32_t n, enum verdict v, enum drop_reason reason,
		   const struct err *err)
{
	int64_t owed;
	int open = OPEN;

	if (n == 0)
		return;
	count_verdict(o, n, v, reason);
	if ((v == VERDICT_PERMANENT || v == VERDICT_RETRYABLE) && err != NULL &&
	    atomic_exchange(&o->err_claimed, 1) == 0)
		o->err = *err;
	owed = atomic_fetch_sub(&o->owed, n) - n;
	assert(owed >= 0);
	if (owed > 0)
		return;
	atomic_compare_exchange_strong(&o->withdrawn, &open, SETTLED);
	o->settled(o);
}

void origin_outcome(const struct origin *o, struct origin_outcome *out)
{
	out->retryable = atomic_load(&o->n_retryable) > 0;
	out->n_permanent = MIN(atomic_load(&o->n_permanent), o->n_spans);
	out->err = &o->err;
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

static void book_from_marks(struct origin *o, _Atomic uint8_t *marks)
{
	for (uint32_t i = 0; i < o->n_spans; i++) {
		uint8_t m = atomic_load_explicit(&marks[i], memory_order_relaxed);
		unsigned reason = m >> MARK_REASON_SHIFT;

		if (m & MARK_DELIVERED)
			atomic_fetch_add(&ledger.delivered, 1);
		else if (m & MARK_HELD)
			atomic_fetch_add(&ledger.held, 1);
		else
			atomic_fetch_add(&ledger.dropped[reason ? reason - 1 : DROP_BEST_EFFORT], 1);
	}
}

static void book_from_tallies(struct origin *o)
{
	atomic_fetch_add(&ledger.delivered, atomic_load(&o->n_delivered));
	atomic_fetch_add(&ledger.held, atomic_load(&o->n_held));
	for (int r = 0; r < DROP_REASON_MAX; r++)
		atomic_fetch_add(&ledger.dropped[r], atomic_load(&o->n_dropped[r]));
}

uint32_t origin_fini(struct origin *o)
{
	_Atomic uint8_t *marks = atomic_load(&o->marks);
	bool refused = origin_is_withdrawn(o) || atomic_load(&o->n_retryable) > 0;

	if (refused) {
		atomic_fetch_add(&ledger.refused, o->n_spans);
		/* What a log already holds will leave it as delivered: it came in by another door. */
		if (atomic_load(&o->n_held) > 0) {
			atomic_fetch_add(&ledger.accepted, atomic_load(&o->n_held));
			atomic_fetch_add(&ledger.held, atomic_load(&o->n_held));
		}
	} else {
		atomic_fetch_add(&ledger.accepted, o->n_spans);
		if (marks != NULL)
			book_from_marks(o, marks);
		else
			book_from_tallies(o);
	}
	atomic_fetch_sub(&ledger.in_flight, o->n_spans);
	free((void *)marks);
	return refused ? 0 : o->n_spans;
}

void ledger_found(uint64_t n)
{
	atomic_fetch_add(&ledger.accepted, n);
	atomic_fetch_add(&ledger.held, (int64_t)n);
}

void ledger_held_delivered(uint64_t n)
{
	atomic_fetch_sub(&ledger.held, (int64_t)n);
	atomic_fetch_add(&ledger.delivered, n);
}

void ledger_held_dropped(uint64_t n, enum drop_reason reason)
{
	atomic_fetch_sub(&ledger.held, (int64_t)n);
	atomic_fetch_add(&ledger.dropped[reason], n);
}
