/* SPDX-License-Identifier: Apache-2.0
 *
 * block_gather.c - see block_gather.h.
 */
#include "exporters/blocks/block_gather.h"

#include "base/mem.h"
#include "wire/pb.h"

enum {
	GAP_MAX = 4096, /* so far apart, and still one read */
	BOUNCE_MAX = 256 * 1024,
	/* When a trace is few reads, more of them at a time would not make less of them: what is
	 * read stays in the processor's cache. */
	CHUNK_OF_RUNS = 64 * 1024,
	READ_LONG = 1024, /* bytes, in the mean */
	READ_SAMPLE = 4096,
	DIGIT = 11, /* bits */
	DIGIT_MASK = (1 << DIGIT) - 1,
};

void block_gather_init(struct block_gather *g, const struct block_input *input,
		       const struct span_notes *notes, size_t chunk_bytes)
{
	*g = (struct block_gather){ .input = input, .notes = notes, .chunk_bytes = chunk_bytes };
}

void block_gather_fini(struct block_gather *g)
{
	free(g->chunk);
	free(g->at);
	free(g->order);
	free(g->spare);
	free(g->bounce);
	memset(g, 0, sizeof(*g));
}

/* Four independent chains of steps that lose nothing, so that whatever bit changes, the sum does.
 * It has to notice damage, not to resist anybody; a CRC or xxhash of 450 bytes takes twice as
 * long. */
uint32_t block_gather_check(const uint8_t *p, size_t n)
{
	const uint64_t odd = UINT64_C(0x9e3779b97f4a7c15);
	uint64_t a = n, b = 1, c = 2, d = 3; /* no array: it would live in memory */
	uint8_t last[32] = { 0 };

	for (; n >= 32; p += 32, n -= 32) {
		a = (a ^ load_le64(p)) * odd;
		b = (b ^ load_le64(p + 8)) * odd;
		c = (c ^ load_le64(p + 16)) * odd;
		d = (d ^ load_le64(p + 24)) * odd;
	}
	memcpy(last, p, n);
	a = (a ^ load_le64(last)) * odd;
	b = (b ^ load_le64(last + 8)) * odd;
	c = (c ^ load_le64(last + 16)) * odd;
	d = (d ^ load_le64(last + 24)) * odd;
	a = (a ^ a >> 32 ^ b ^ b >> 32) * odd;
	a = (a ^ c ^ c >> 32) * odd;
	a = (a ^ d ^ d >> 32) * odd;
	return (uint32_t)(a >> 32);
}

static uint32_t len_of(const struct block_gather *g, size_t key)
{
	return g->notes->keys[key].len;
}

/* May one read bring both? */
static bool is_near(const struct span_note *a, const struct span_note *b)
{
	uint64_t end = (uint64_t)a->off + (a->len & ~SPAN_RUN_BARE);

	return a->request == b->request && b->off >= end && b->off - end <= GAP_MAX;
}

/* Do traces mostly lie in one piece, or few? Judged by the first ones. */
static void choose_way(struct block_gather *g)
{
	const struct span_key *k = g->notes->keys;
	const struct span_note *notes = g->notes->notes;
	size_t n = MIN(g->notes->n, (size_t)READ_SAMPLE), n_reads = 1;
	uint64_t bytes = n > 0 ? k[0].len : 0;

	for (size_t i = 1; i < n; i++) {
		n_reads += !is_near(&notes[k[i - 1].note], &notes[k[i].note]);
		bytes += k[i].len;
	}
	g->has_long_reads = bytes >= n_reads * READ_LONG;
	if (g->has_long_reads)
		g->chunk_bytes = MIN(g->chunk_bytes, (size_t)CHUNK_OF_RUNS);
}

/* Whole traces from `from` on; returns the bytes they take. */
static size_t choose(struct block_gather *g, size_t from)
{
	size_t bytes = 0;

	g->from = g->to = from;
	while (g->to < g->notes->n) {
		size_t end = span_notes_trace_end(g->notes, g->to), trace = 0;

		for (size_t i = g->to; i < end; i++) {
			__builtin_prefetch(&g->notes->notes[g->notes->keys[i].note]);
			trace += len_of(g, i);
		}
		if (g->to > from && bytes + trace > g->chunk_bytes)
			break;
		bytes += trace;
		g->to = end;
	}
	return bytes;
}

/* Memory of exactly this size when it must grow: doubling a chunk would waste as much again. */
static void *fit(void *p, size_t *cap, size_t need, size_t size)
{
	if (need <= *cap)
		return p;
	free(p);
	*cap = need;
	return xmalloc(need * size);
}

/* Places in the chunk. */
static void lay_out(struct block_gather *g, size_t bytes)
{
	size_t n = g->to - g->from, pos = 0;

	g->chunk = fit(g->chunk, &g->cap_chunk, MAX(bytes, g->chunk_bytes), 1);
	g->at = fit(g->at, &g->cap_at, n, sizeof(*g->at));
	if (n > g->cap_order) {
		free(g->spare);
		g->spare = xmalloc(n * sizeof(*g->spare));
	}
	g->order = fit(g->order, &g->cap_order, n, sizeof(*g->order));
	for (size_t i = 0; i < n; i++) {
		g->at[i] = pos;
		g->order[i] = (uint64_t)g->notes->keys[g->from + i].note << 32 | i;
		pos += len_of(g, g->from + i);
	}
}

/* Notes were made in the order of the bytes, so their numbers are the order of places. Sorted by
 * as many digits as the notes' numbers have. */
static void sort_places(struct block_gather *g)
{
	size_t n = g->to - g->from;
	unsigned shift = 32;

	for (; shift < 64 && (uint64_t)g->notes->n >> (shift - 32) != 0; shift += DIGIT) {
		size_t at[(1 << DIGIT) + 1] = { 0 };
		uint64_t *other = g->order;

		for (size_t i = 0; i < n; i++)
			at[(g->order[i] >> shift & DIGIT_MASK) + 1]++;
		for (size_t k = 0; k < DIGIT_MASK; k++)
			at[k + 1] += at[k];
		for (size_t i = 0; i < n; i++)
			g->spare[at[g->order[i] >> shift & DIGIT_MASK]++] = g->order[i];
		g->order = g->spare;
		g->spare = other;
	}
}

static const struct span_note *note_in_order(const struct block_gather *g, size_t k)
{
	return &g->notes->notes[g->order[k] >> 32];
}

static uint32_t note_len(const struct span_note *note)
{
	return note->len & ~SPAN_RUN_BARE;
}

/* Behind the last of the runs from order[k] on that one read may bring. */
static size_t read_end(const struct block_gather *g, size_t k)
{
	const struct span_note *first = note_in_order(g, k), *last = first;
	size_t n = g->to - g->from;

	for (k++; k < n; k++) {
		const struct span_note *next = note_in_order(g, k);

		if (!is_near(last, next) ||
		    (uint64_t)next->off + note_len(next) - first->off > BOUNCE_MAX)
			break;
		last = next;
	}
	return k;
}

static int place(struct block_gather *g, size_t k, const uint8_t *p, struct err *err)
{
	const struct span_note *note = note_in_order(g, k);
	uint8_t *to = g->chunk + g->at[(uint32_t)g->order[k]];

	g->is_changed |= block_gather_check(p, note_len(note)) != note->check;
	if (g->is_changed)
		return err_set(err, ERR_CORRUPT, "request %u: bytes at %u changed since they came",
			       note->request, note->off);
	if (p != to)
		memcpy(to, p, note_len(note));
	return 0;
}

static int read_runs(struct block_gather *g, size_t k, size_t end, struct err *err)
{
	const struct span_note *first = note_in_order(g, k), *last = note_in_order(g, end - 1);
	uint32_t n = last->off + note_len(last) - first->off;
	uint8_t *to = end - k == 1 ? g->chunk + g->at[(uint32_t)g->order[k]] : g->bounce;

	if (g->input->read(g->input->arg, first->request, first->off, n, to, err) < 0)
		return -1;
	for (; k < end; k++)
		if (place(g, k, to + (note_in_order(g, k)->off - first->off), err) < 0)
			return -1;
	return 0;
}

int block_gather_load(struct block_gather *g, size_t from, struct err *err)
{
	size_t n;

	if (from == 0)
		choose_way(g);
	lay_out(g, choose(g, from));
	if (!g->has_long_reads)
		sort_places(g);
	n = g->to - g->from;
	g->bounce = fit(g->bounce, &g->cap_bounce, BOUNCE_MAX, 1);
	for (size_t k = 0; k < n;) {
		size_t end = read_end(g, k);

		if (read_runs(g, k, end, err) < 0)
			return -1;
		k = end;
	}
	return 0;
}

const uint8_t *block_gather_run(const struct block_gather *g, size_t i)
{
	return g->chunk + g->at[i - g->from];
}

size_t block_gather_memory(const struct block_gather *g)
{
	return g->cap_chunk + g->cap_at * sizeof(*g->at) + 2 * g->cap_order * sizeof(*g->order) +
	       g->cap_bounce;
}
