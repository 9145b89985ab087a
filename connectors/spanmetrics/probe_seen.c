/* SPDX-License-Identifier: Apache-2.0
 *
 * probe_seen.c - see probe_seen.h.
 */
#include "connectors/spanmetrics/probe_seen.h"

#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"

enum { CAP_MIN = 1024 };

/* Where it is, or would be. */
static size_t place(const struct fingerprints *f, uint64_t print)
{
	size_t i = print & (f->cap - 1);

	while (f->v[i] != 0 && f->v[i] != print)
		i = (i + 1) & (f->cap - 1);
	return i;
}

static bool has(const struct fingerprints *f, uint64_t print)
{
	return f->n > 0 && f->v[place(f, print)] == print;
}

static void grow(struct fingerprints *f)
{
	struct fingerprints larger = { .cap = f->cap == 0 ? CAP_MIN : 2 * f->cap };

	larger.v = xcalloc(larger.cap, sizeof(*larger.v));
	for (size_t i = 0; i < f->cap; i++)
		if (f->v[i] != 0)
			larger.v[place(&larger, f->v[i])] = f->v[i];
	larger.n = f->n;
	free(f->v);
	*f = larger;
}

static void add(struct fingerprints *f, uint64_t print)
{
	if (2 * (f->n + 1) > f->cap)
		grow(f);
	f->v[place(f, print)] = print;
	f->n++;
}

bool probe_seen_is_new(struct probe_seen *s, const uint8_t trace_id[16], const uint8_t span_id[8])
{
	uint8_t both[24];
	uint64_t print;
	bool is_new;

	memcpy(both, trace_id, 16);
	memcpy(both + 16, span_id, 8);
	while (s->seed == 0)
		rng_kernel(&s->seed, sizeof(s->seed));
	print = hash_xxh64(both, sizeof(both), s->seed);
	print += print == 0;
	if (has(&s->current, print))
		return false;
	is_new = !has(&s->previous, print);
	if (s->current.n == PROBE_SEEN) {
		free(s->previous.v);
		s->previous = s->current;
		s->current = (struct fingerprints){ NULL, 0, 0 };
	}
	add(&s->current, print);
	return is_new;
}

void probe_seen_fini(struct probe_seen *s)
{
	free(s->current.v);
	free(s->previous.v);
	*s = (struct probe_seen){ .current = { NULL, 0, 0 } };
}
