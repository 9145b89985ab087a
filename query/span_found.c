/* SPDX-License-Identifier: Apache-2.0
 *
 * span_found.c - see span_found.h.
 */
#include "query/span_found.h"

#include "base/mem.h"
#include "wire/otlp_find_span.h"

#include <stdio.h>

static enum span_found judge(const struct trace_by_id *t, const struct span_wanted *w,
			     struct err *err)
{
	int got = otlp_find_span(buf_bytes(&t->otlp), w->trace_id, w->span_id);

	if (got > 0)
		return SPAN_FOUND;
	if (got == 0 && t->is_complete)
		return t->otlp.n > 0 ? SPAN_NOT_IN_TRACE : SPAN_NO_TRACE;
	err_set(err, ERR_UNAVAILABLE, "%s", got < 0 ? "the trace is damaged" : t->why);
	return SPAN_UNKNOWN;
}

static enum span_found find(struct span_lookup *lookup, const struct span_wanted *w,
			    const _Atomic bool *is_gone, struct err *err)
{
	struct query_api *api = ((struct span_found_lookup *)lookup)->api;
	struct trace_request *r;
	enum span_found found = SPAN_UNKNOWN;
	struct trace_by_id t;
	uint64_t live_since_ns;
	char why[256] = "";

	if (!api->is_running(api->arg, why, sizeof(why))) {
		err_set(err, ERR_UNAVAILABLE, "not ready: %s", why);
		return SPAN_UNKNOWN;
	}
	r = xcalloc(1, sizeof(*r));
	r->scope = store_scope_all();
	r->n_tenants = 1;
	snprintf(r->tenants[0], sizeof(r->tenants[0]), "%s", w->tenant);
	memcpy(r->id, w->trace_id, sizeof(r->id));
	trace_by_id_init(&t, api->max_trace_bytes, &api->memory);
	t.keep_what_fits = true;
	if (trace_places_find(&api->places, r, &t, &live_since_ns, is_gone, err) == 0)
		found = judge(&t, w, err);
	trace_by_id_fini(&t);
	free(r);
	return found;
}

void span_found_init(struct span_found_lookup *l, struct query_api *api)
{
	*l = (struct span_found_lookup){ .lookup = { .find = find }, .api = api };
}
