/* SPDX-License-Identifier: Apache-2.0
 *
 * numbers.c - see numbers.h.
 *
 * One table of intervals per epoch, ascending, disjoint and not adjacent. There are as many epochs
 * as processes whose records are still in logs: mostly one, so they are a list.
 */
#include "pipeline/span/numbers.h"

#include "base/mem.h"
#include "pipeline/batch.h"
#include "wire/pb.h"

#include <pthread.h>

enum { EPOCH_BYTES = 8, STRETCH_MAX = 2 * 10, TRAILER_MAX = UINT16_MAX, INTERVALS_MAX = 1 << 18 };

struct interval {
	uint64_t first, end;
};

struct epoch {
	struct epoch *next;
	uint64_t id;
	struct interval *v;
	size_t n, cap;
};

static struct {
	pthread_mutex_t lock;
	unsigned counting;
	size_t n_intervals;
	struct epoch *epochs;
} met = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* ---- writing ---- */

static uint64_t zigzag(uint64_t v)
{
	return v << 1 ^ (v >> 63 ? UINT64_MAX : 0);
}

static uint64_t unzigzag(uint64_t v)
{
	return v >> 1 ^ (v & 1 ? UINT64_MAX : 0);
}

/* The stretches of b into out (NULL: only measure), at most `max` bytes; returns their bytes, 0
 * when there are none or they are too long. */
static size_t put_stretches(const struct batch *b, uint8_t *out, size_t max)
{
	uint64_t first = 0, end = 0, last = 0, number;
	uint8_t space[STRETCH_MAX];
	size_t n = 0, k;

	for (uint32_t i = 0; i <= b->tables.n_spans; i++) {
		const struct span_ref *sp = i < b->tables.n_spans ? &b->tables.spans[i] : NULL;

		number = sp != NULL ? origin_number(b->origins[sp->origin].origin, sp->ordinal) : 0;
		if (sp != NULL && number != 0 && number == end) {
			end++;
			continue;
		}
		if (end > first) {
			k = pb_varint_write(space, zigzag(first - last));
			k += pb_varint_write(space + k, end - first);
			if (n + k > max)
				return 0;
			if (out != NULL)
				memcpy(out + n, space, k);
			n += k;
			last = end;
		}
		first = number;
		end = number != 0 ? number + 1 : 0;
	}
	return n;
}

static bool has_numbers(const struct batch *b)
{
	for (uint32_t i = 0; i < b->n_origins; i++)
		if (b->origins[i].n_spans > 0 && origin_has_marks(b->origins[i].origin))
			return true;
	return false;
}

struct bytes span_numbers_encode(const struct batch *b, struct arena *arena)
{
	size_t n;
	uint8_t *p;

	if (b->is_detached || !has_numbers(b))
		return BYTES_EMPTY;
	n = put_stretches(b, NULL, TRAILER_MAX - EPOCH_BYTES);
	if (n == 0)
		return BYTES_EMPTY;
	p = arena_alloc(arena, EPOCH_BYTES + n);
	store_le64(p, origin_epoch());
	/* Another thread may have fanned out more of an origin meanwhile: then it may not fit. */
	n = put_stretches(b, p + EPOCH_BYTES, n);
	return n > 0 ? (struct bytes){ p, EPOCH_BYTES + n } : BYTES_EMPTY;
}

/* ---- counting ---- */

static struct epoch *epoch_of(uint64_t id)
{
	struct epoch *e = met.epochs;

	while (e != NULL && e->id != id)
		e = e->next;
	if (e == NULL) {
		e = xcalloc(1, sizeof(*e));
		e->id = id;
		e->next = met.epochs;
		met.epochs = e;
	}
	return e;
}

/* The first interval that ends at `number` or behind it. */
static size_t find_interval(const struct epoch *e, uint64_t number)
{
	size_t lo = 0, hi = e->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (e->v[mid].end < number)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* Add [first, end) in the place of the intervals [at, to) that it touches. */
static void replace(struct epoch *e, size_t at, size_t to, struct interval with)
{
	if (at == to && met.n_intervals >= INTERVALS_MAX)
		return;
	if (at < to) {
		with.first = MIN(with.first, e->v[at].first);
		with.end = MAX(with.end, e->v[to - 1].end);
	}
	e->v = xgrow(e->v, &e->cap, e->n + 1, sizeof(*e->v));
	memmove(e->v + at + 1, e->v + to, (e->n - to) * sizeof(*e->v));
	met.n_intervals = met.n_intervals + 1 - (to - at);
	e->n = e->n + 1 - (to - at);
	e->v[at] = with;
}

/* How many of [first, end) were not met; now they are. */
static uint64_t meet(struct epoch *e, uint64_t first, uint64_t end)
{
	size_t at = find_interval(e, first), to = at;
	uint64_t fresh = end - first;

	for (; to < e->n && e->v[to].first <= end; to++) {
		uint64_t from = MAX(first, e->v[to].first), upto = MIN(end, e->v[to].end);

		fresh -= upto > from ? upto - from : 0;
	}
	replace(e, at, to, (struct interval){ first, end });
	return fresh;
}

void span_numbers_begin(void)
{
	pthread_mutex_lock(&met.lock);
	met.counting++;
	pthread_mutex_unlock(&met.lock);
}

void span_numbers_end(void)
{
	struct epoch *e;

	pthread_mutex_lock(&met.lock);
	assert(met.counting > 0);
	met.counting--;
	while (met.counting == 0 && (e = met.epochs) != NULL) {
		met.epochs = e->next;
		met.n_intervals -= e->n;
		free(e->v);
		free(e);
	}
	pthread_mutex_unlock(&met.lock);
}

uint32_t span_numbers_count(struct bytes trailer, uint32_t n_spans)
{
	uint64_t at = 0, gap, n, left = n_spans, met_before = 0;
	struct epoch *e;

	if (trailer.n < EPOCH_BYTES)
		return n_spans;
	pthread_mutex_lock(&met.lock);
	e = met.counting > 0 ? epoch_of(load_le64(trailer.p)) : NULL;
	trailer.p += EPOCH_BYTES;
	trailer.n -= EPOCH_BYTES;
	while (e != NULL && pb_varint(&trailer, &gap) && pb_varint(&trailer, &n)) {
		at += unzigzag(gap);
		/* More than it has spans: no trailer of ours. */
		if (n == 0 || n > left || at > UINT64_MAX - n)
			break;
		met_before += n - meet(e, at, at + n);
		left -= n;
		at += n;
	}
	pthread_mutex_unlock(&met.lock);
	return n_spans - (uint32_t)met_before;
}
