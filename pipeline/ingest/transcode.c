/* SPDX-License-Identifier: Apache-2.0
 *
 * transcode.c - see transcode.h.
 */
#include "pipeline/ingest/transcode.h"

enum { SLACK = 4096 };

/* The meter said no: for now, or for ever? */
static int refused(const struct meter *m, size_t body, struct err *err)
{
	size_t all = body + m->wanted;

	if (budget_is_too_small(m->budget, all))
		return err_set(err, ERR_TOO_LARGE,
			       "request: more than %zu bytes to decode it, memory limit %lld", all,
			       (long long)atomic_load(&m->budget->limit));
	return err_set(err, ERR_EXHAUSTED, "memory budget spent, try again later");
}

/* `body` is where `in` lies, given back as soon as that is read; NULL: the caller's. */
static struct rcbuf *run(const struct transcode *t, struct bytes in, struct rcbuf *body,
			 struct budget *budget, struct err *err)
{
	struct meter meter = { .budget = budget };
	struct arena arena = { .meter = &meter };
	struct buf out = { .meter = &meter };
	struct rcbuf *made = NULL;
	int rc = t->decode(in, t->grow_max * in.n + SLACK, &arena, &out, t->arg, err);

	if (meter.refused)
		rc = refused(&meter, body != NULL ? body->charged : 0, err);
	arena_fini(&arena);
	rcbuf_unref(body);
	meter_fini(&meter);
	if (rc == 0)
		made = rcbuf_adopt(budget, out.p, out.n);
	else
		buf_fini(&out);
	return made;
}

struct rcbuf *transcode_body(const struct transcode *t, struct rcbuf *body, struct budget *budget,
			     struct err *err)
{
	return run(t, (struct bytes){ body->p, body->n }, body, budget, err);
}

struct rcbuf *transcode_bytes(const struct transcode *t, struct bytes in, struct budget *budget,
			      struct err *err)
{
	return run(t, in, NULL, budget, err);
}
