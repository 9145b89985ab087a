/* SPDX-License-Identifier: Apache-2.0
 *
 * transcode.c - see transcode.h.
 *
 * The decoder writes straight into the new rcbuf: a struct buf whose limit is the rcbuf's size
 * never grows, so it never reallocates what is not its own.
 */
#include "pipeline/transcode.h"

enum { SLACK = 4096, STEP = 4, SCRATCH_FACTOR = 2 };

/* Memory for one attempt, output and scratch; NULL with *err. */
static struct rcbuf *grant(const struct rcbuf *body, size_t cap, size_t scratch,
			   struct budget *budget, struct err *err)
{
	size_t all = body->charged + cap + scratch;
	struct rcbuf *out = NULL;

	if (budget != NULL && (int64_t)all > atomic_load(&budget->limit)) {
		err_set(err, ERR_TOO_LARGE, "request: %zu bytes to decode it, memory limit %lld",
			all, (long long)atomic_load(&budget->limit));
		return NULL;
	}
	if (budget_charge(budget, scratch)) {
		out = rcbuf_new(budget, cap);
		if (out != NULL)
			return out;
		budget_release(budget, scratch);
	}
	err_set(err, ERR_EXHAUSTED, "memory budget spent, try again later");
	return NULL;
}

/* One attempt within `cap` bytes of output. */
static struct rcbuf *attempt(const struct transcode *t, const struct rcbuf *body, size_t cap,
			     struct budget *budget, struct err *err)
{
	size_t scratch = SCRATCH_FACTOR * body->n + cap;
	struct rcbuf *to = grant(body, cap, scratch, budget, err);
	struct arena arena = ARENA_INIT;
	struct buf out = BUF_INIT;

	if (to == NULL)
		return NULL;
	out = (struct buf){ .p = to->p, .cap = to->cap, .max = to->cap };
	if (t->decode((struct bytes){ body->p, body->n }, to->cap, &arena, &out, t->arg, err) < 0) {
		rcbuf_unref(to);
		to = NULL;
	} else {
		assert(out.p == to->p);
		to->n = out.n;
	}
	arena_fini(&arena);
	budget_release(budget, scratch);
	return to;
}

/* A buffer that may be held for long does not pin twice what it needs. */
static struct rcbuf *fitted(struct rcbuf *b, struct budget *budget)
{
	struct rcbuf *small = NULL;

	if (b->cap <= SLACK || b->n > b->cap / 2)
		return b;
	small = rcbuf_new_forced(budget, b->n);
	memcpy(small->p, b->p, b->n);
	small->n = b->n;
	rcbuf_unref(b);
	return small;
}

struct rcbuf *transcode_body(const struct transcode *t, struct rcbuf *body, struct budget *budget,
			     struct err *err)
{
	size_t most = t->grow_max * body->n + SLACK;
	struct err why = ERR_INIT;
	struct rcbuf *out = NULL;

	for (size_t cap = body->n + body->n / 8 + 64;; cap = MIN(cap * STEP, most)) {
		err_clear(&why);
		out = attempt(t, body, cap, budget, &why);
		/* Only the decoder's own "too large" is worth more room. */
		if (out != NULL || why.kind != ERR_TOO_LARGE || cap >= most ||
		    (budget != NULL && (int64_t)cap > atomic_load(&budget->limit)))
			break;
	}
	rcbuf_unref(body);
	if (out != NULL)
		return fitted(out, budget);
	if (err != NULL)
		*err = why;
	return NULL;
}
