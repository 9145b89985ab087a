/* SPDX-License-Identifier: Apache-2.0
 *
 * otlp_find_span.c - see otlp_find_span.h.
 */
#include "wire/otlp_find_span.h"

#include "wire/pb.h"

struct wanted {
	struct bytes trace_id, span_id;
};

static int is_it(struct bytes span, const struct wanted *w)
{
	bool has_trace = false, has_span = false;
	struct pb_field f = { 0 };
	int got;

	while ((got = pb_next(&span, &f)) > 0) {
		if (f.wire != PB_LEN)
			continue;
		if (f.number == 1)
			has_trace = bytes_eq(f.data, w->trace_id);
		else if (f.number == 2)
			has_span = bytes_eq(f.data, w->span_id);
	}
	return got < 0 ? -1 : has_trace && has_span;
}

/* TracesData -> 1 resource_spans -> 2 scope_spans -> 2 spans: `path` says which field leads on. */
static int find(struct bytes in, const uint8_t *path, const struct wanted *w)
{
	struct pb_field f = { 0 };
	int got;

	if (path[0] == 0)
		return is_it(in, w);
	while ((got = pb_next(&in, &f)) > 0) {
		int below;

		if (f.number != path[0] || f.wire != PB_LEN)
			continue;
		below = find(f.data, path + 1, w);
		if (below != 0)
			return below;
	}
	return got;
}

int otlp_find_span(struct bytes traces_data, const uint8_t trace_id[16], const uint8_t span_id[8])
{
	static const uint8_t path[] = { 1, 2, 2, 0 };
	const struct wanted w = { { trace_id, 16 }, { span_id, 8 } };

	return find(traces_data, path, &w);
}
