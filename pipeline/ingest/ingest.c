/* SPDX-License-Identifier: Apache-2.0
 *
 * ingest.c - see ingest.h.
 */
#include "pipeline/ingest/ingest.h"

#include "base/clock.h"
#include "pipeline/option/blocks.h"

#include <stdio.h>

enum { MARGIN_MS = 50, RETRY_AFTER_MS = 1000 };

static struct ingest *of_origin(struct origin *o)
{
	return CONTAINER_OF(o, struct ingest, origin);
}

static void answer_once(struct ingest *in, const struct ingest_answer *a)
{
	if (in->answered)
		return;
	in->answered = true;
	loop_timer_stop(in->loop, &in->timer);
	if (a->retryable)
		atomic_fetch_add(&in->count->refused, in->n_items);
	else
		atomic_fetch_add(&in->count->accepted, in->n_items);
	in->answer(in, a);
}

static void answer_outcome(struct ingest *in)
{
	struct origin_outcome out;
	struct ingest_answer a;

	origin_outcome(&in->origin, &out);
	/* Of a request of metrics that failed as a whole the client is told in data points. */
	if (out.n_permanent == in->origin.n_spans)
		out.n_permanent = in->n_items;
	a = (struct ingest_answer){
		.retryable = out.retryable,
		.retry_after_ms = out.retryable ? MAX(out.err->retry_after_ms, RETRY_AFTER_MS) : 0,
		.n_rejected = out.retryable ? 0 : in->n_rejected + out.n_permanent,
		.message = out.err->kind != ERR_NONE ? out.err->msg : in->first_reject,
	};
	answer_once(in, &a);
}

/* On the loop, after the last verdict. */
static void finish(void *arg)
{
	struct ingest *in = arg;

	answer_outcome(in);
	origin_fini(&in->origin);
	in->released(in);
}

/* On any thread. */
static void settled(struct origin *o)
{
	struct ingest *in = of_origin(o);

	in->task = (struct loop_task){ .fn = finish, .arg = in };
	loop_post(in->loop, &in->task);
}

void ingest_withdraw(struct ingest *in, const char *why)
{
	struct ingest_answer a = {
		.retryable = true,
		.retry_after_ms = RETRY_AFTER_MS,
		.message = why,
	};

	/* Lost the race: the outcome is on its way to this loop. */
	if (in->answered || !origin_withdraw(&in->origin))
		return;
	answer_once(in, &a);
}

static void start_timer(struct ingest *in, uint64_t ms)
{
	in->due_ns = clock_mono_ns() + ms * NS_PER_MS;
	loop_timer_start(in->loop, &in->timer, ms);
}

void ingest_hurry(struct ingest *in, uint32_t ms)
{
	if (!in->answered && clock_mono_ns() + ms * NS_PER_MS < in->due_ns)
		start_timer(in, ms);
}

static void deadline_near(void *arg)
{
	ingest_withdraw(arg, "not delivered in time: the next hop or the disk is slow; send again");
}

/* Milliseconds until the answer must be given. */
static uint64_t answer_within_ms(const struct receiver_options *o, uint64_t deadline_ns)
{
	uint64_t ms = (uint64_t)o->ack_timeout_ns / NS_PER_MS, now = clock_mono_ns(), left, margin;

	if (deadline_ns == 0)
		return ms;
	left = deadline_ns > now ? (deadline_ns - now) / NS_PER_MS : 0;
	margin = MAX((uint64_t)MARGIN_MS, left / 10);
	return MIN(ms, left > margin ? left - margin : 0);
}

void ingest_submit(struct ingest *in, struct component *c, struct batch *b,
		   const struct otlp_rejects *rejects, uint64_t deadline_ns)
{
	uint32_t n_spans = b->tables.n_spans;

	in->answered = false;
	in->n_items = (uint32_t)MIN(batch_n_items(b), (uint64_t)UINT32_MAX);
	in->n_rejected = rejects ? rejects->n : 0;
	snprintf(in->first_reject, sizeof(in->first_reject), "%s",
		 rejects && rejects->n ? rejects->first : "");
	/* The client was told that these were not taken: refused, like a whole request. */
	atomic_fetch_add_explicit(&in->count->rejected, in->n_rejected, memory_order_relaxed);
	atomic_fetch_add_explicit(&in->count->refused, in->n_rejected, memory_order_relaxed);
	in->timer = (struct loop_timer){ .fn = deadline_near, .arg = in };
	origin_init_items(&in->origin, b->signal, n_spans, settled);
	batch_bind(b, &in->origin);
	if (n_spans == 0) {
		batch_unref(b);
		finish(in);
		return;
	}
	if (in->is_one_way || c->receiver->ack == RECEIVER_ACK_EARLY) {
		origin_promise(&in->origin);
		answer_once(in, &(struct ingest_answer){ .n_rejected = in->n_rejected,
							 .message = in->first_reject });
	} else {
		start_timer(in, answer_within_ms(c->receiver, deadline_ns));
	}
	component_emit(c, b);
}

int ingest_tenant(const struct component *c, struct bytes said, char out[TENANT_MAX + 1],
		  struct err *err)
{
	struct bytes name = said.p != NULL ? said : bytes_str(c->receiver->tenant);

	if (!tenant_is_valid(name))
		return err_set(err, ERR_INVALID,
			       "X-Scope-OrgID: \"%.*s\" is no tenant name: 1 to %d of letters, "
			       "digits and !_.*'()-",
			       (int)MIN(name.n, (size_t)40), (const char *)name.p, TENANT_MAX);
	memcpy(out, name.p, name.n);
	out[name.n] = '\0';
	return 0;
}
