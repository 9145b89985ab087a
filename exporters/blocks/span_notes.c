/* SPDX-License-Identifier: Apache-2.0
 *
 * span_notes.c - see span_notes.h.
 */
#include "exporters/blocks/span_notes.h"

#include "base/mem.h"

uint32_t span_run_end(const struct span_ref *spans, uint32_t i, uint32_t n)
{
	const struct span_ref *first = &spans[i], *last = first;

	if (first->head_len == 0)
		return i + 1;
	for (i++; i < n; i++) {
		const struct span_ref *next = &spans[i];

		if (next->head_len == 0 || next->scope != first->scope ||
		    next->p - next->head_len != last->p + last->len ||
		    memcmp(next->trace_id, first->trace_id, sizeof(first->trace_id)) != 0)
			break;
		last = next;
	}
	return i;
}

const uint8_t *span_run_bytes(const struct span_ref *spans, uint32_t i, uint32_t end, uint32_t *len)
{
	const uint8_t *from = spans[i].p - spans[i].head_len;

	*len = (uint32_t)(spans[end - 1].p + spans[end - 1].len - from);
	if (spans[i].head_len == 0)
		*len |= SPAN_RUN_BARE;
	return from;
}

void span_notes_reserve(struct span_notes *s, size_t n)
{
	if (n <= s->cap)
		return;
	s->keys = xrealloc(s->keys, n * sizeof(*s->keys));
	s->notes = xrealloc(s->notes, n * sizeof(*s->notes));
	s->cap = n;
}

void span_notes_add(struct span_notes *s, uint64_t hi, uint64_t lo, const struct span_note *note)
{
	if (s->n == s->cap)
		span_notes_reserve(s, MAX(s->cap + s->cap / 2, (size_t)1024));
	s->keys[s->n] = (struct span_key){ hi, lo, (uint32_t)s->n, note->len & ~SPAN_RUN_BARE };
	s->notes[s->n++] = *note;
}

static int compare_keys(const void *a, const void *b)
{
	const struct span_key *x = a, *y = b;

	if (x->hi != y->hi)
		return x->hi < y->hi ? -1 : 1;
	if (x->lo != y->lo)
		return x->lo < y->lo ? -1 : 1;
	return x->note < y->note ? -1 : x->note > y->note;
}

static void insertion_sort(struct span_key *v, size_t n)
{
	for (size_t i = 1; i < n; i++) {
		struct span_key k = v[i];
		size_t j = i;

		for (; j > 0 && compare_keys(&v[j - 1], &k) > 0; j--)
			v[j] = v[j - 1];
		v[j] = k;
	}
}

/* Digits: the bytes of the id, then those of the note, so that spans of a trace stay in order. */
enum { DIGITS = 20, SHORT_RUN = 24 };

static unsigned digit(const struct span_key *k, unsigned level)
{
	if (level < 8)
		return k->hi >> (56 - 8 * level) & 0xff;
	if (level < 16)
		return k->lo >> (56 - 8 * (level - 8)) & 0xff;
	return k->note >> (24 - 8 * (level - 16)) & 0xff;
}

/* Where the run of each digit ends, and in end[0] where the first begins: end[d] to end[d + 1]. */
static void count_digits(const struct span_key *v, size_t n, unsigned level, size_t end[257])
{
	memset(end, 0, 257 * sizeof(*end));
	for (size_t i = 0; i < n; i++)
		end[digit(&v[i], level) + 1]++;
	for (unsigned d = 0; d < 256; d++)
		end[d + 1] += end[d];
}

/* Swap every key into the run of its digit. */
static void permute(struct span_key *v, unsigned level, const size_t end[257])
{
	size_t next[256];

	memcpy(next, end, sizeof(next));
	for (unsigned d = 0; d < 256; d++) {
		while (next[d] < end[d + 1]) {
			struct span_key k = v[next[d]];
			unsigned of = digit(&k, level);

			while (of != d) {
				struct span_key other = v[next[of]];

				v[next[of]++] = k;
				k = other;
				of = digit(&k, level);
			}
			v[next[d]++] = k;
		}
	}
}

static void sort_from(struct span_key *v, size_t n, unsigned level)
{
	size_t end[257];

	/* A digit that all share is passed over. */
	for (; n > SHORT_RUN && level < DIGITS; level++) {
		count_digits(v, n, level, end);
		if (end[digit(v, level) + 1] - end[digit(v, level)] < n)
			break;
	}
	if (n <= SHORT_RUN || level == DIGITS) {
		insertion_sort(v, n);
		return;
	}
	permute(v, level, end);
	for (unsigned d = 0; d < 256; d++)
		if (end[d + 1] - end[d] > 1)
			sort_from(v + end[d], end[d + 1] - end[d], level + 1);
}

void span_notes_sort(struct span_notes *s)
{
	sort_from(s->keys, s->n, 0);
}

size_t span_notes_trace_end(const struct span_notes *s, size_t i)
{
	const struct span_key *k = &s->keys[i];
	size_t j = i + 1;

	while (j < s->n && s->keys[j].hi == k->hi && s->keys[j].lo == k->lo)
		j++;
	return j;
}

size_t span_notes_memory(const struct span_notes *s)
{
	return s->cap * (sizeof(*s->keys) + sizeof(*s->notes));
}

void span_notes_fini(struct span_notes *s)
{
	free(s->keys);
	free(s->notes);
	memset(s, 0, sizeof(*s));
}
