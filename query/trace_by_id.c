/* SPDX-License-Identifier: Apache-2.0
 *
 * trace_by_id.c - see trace_by_id.h. Taking pieces in: trace_pieces.c; joining them:
 * trace_combine.c.
 */
#include "query/trace_private.h"

#include "base/str.h"

#include <stdarg.h>
#include <stdio.h>

int trace_by_id_parse(const char *text, uint8_t id[16], struct err *err)
{
	char padded[33];
	size_t n = strlen(text);

	if (n == 0 || n > 32)
		return err_set(err, ERR_INVALID, "trace id \"%.64s\": must be 1 to 32 hex digits",
			       text);
	memset(padded, '0', 32 - n);
	memcpy(padded + 32 - n, text, n);
	if (str_unhex((struct bytes){ (const uint8_t *)padded, 32 }, id, 16) < 0)
		return err_set(err, ERR_INVALID, "trace id \"%s\": not hex", text);
	return 0;
}

void trace_by_id_init(struct trace_by_id *t, size_t max_bytes, struct query_memory *memory)
{
	memset(t, 0, sizeof(*t));
	t->is_complete = true;
	t->max_bytes = max_bytes;
	t->memory = memory;
}

void trace_by_id_fini(struct trace_by_id *t)
{
	trace_by_id_forget(t);
	buf_fini(&t->otlp);
	query_memory_release(t->memory, t->charged);
	t->charged = 0;
}

void trace_by_id_incomplete(struct trace_by_id *t, const char *fmt, ...)
{
	va_list ap;

	if (!t->is_complete)
		return;
	t->is_complete = false;
	va_start(ap, fmt);
	vsnprintf(t->why, sizeof(t->why), fmt, ap);
	va_end(ap);
}

static int add_piece(void *arg, struct bytes traces_data, struct err *err)
{
	return traces_data.n > 0 ? trace_add_piece(arg, traces_data, err) : 0;
}

int trace_by_id_add(struct trace_by_id *t, struct bytes traces_data, struct err *err)
{
	return add_piece(t, traces_data, err);
}

int trace_by_id_find_in(struct store *s, const struct store_scope *scope, const char *tenant,
			const uint8_t id[16], struct trace_by_id *t, uint64_t *live_since_ns,
			struct err *err)
{
	struct store_find_result r;

	if (store_find_in(s, scope, tenant, id, add_piece, t, &r, err) < 0)
		return -1;
	if (live_since_ns != NULL)
		*live_since_ns = r.live_since_ns;
	t->inspected_bytes += r.inspected_bytes;
	if (r.blocks_failed + r.live_failed > 0)
		trace_by_id_incomplete(t, "%zu of %zu places could not be read: %.180s",
				       r.blocks_failed + r.live_failed,
				       r.blocks_asked + r.live_failed, r.first_failure);
	return 0;
}

int trace_by_id_find(struct store *s, const char *tenant, const uint8_t id[16],
		     struct trace_by_id *t, struct err *err)
{
	const struct store_scope all = store_scope_all();

	return trace_by_id_find_in(s, &all, tenant, id, t, NULL, err);
}
