/* SPDX-License-Identifier: Apache-2.0
 *
 * stream_record.c - see stream_record.h.
 */
#include "exporters/blocks/stream_record.h"

#include "pipeline/source/source.h"

enum { RUN = 12 };

static void put_run(struct buf *out, const struct stream_run *run)
{
	uint8_t bytes[RUN];

	store_le64(bytes, run->offset);
	store_le32(bytes + 8, run->n_spans);
	buf_add(out, bytes, sizeof(bytes));
}

/* The record of a span, and which ordinals of its range it holds. */
struct at_record {
	uint32_t origin, from, to;
	uint64_t offset;
};

static void find_record(struct at_record *at, const struct batch *b, const struct span_ref *sp)
{
	const struct source_range *r = source_range_of(b->origins[sp->origin].origin);
	const struct source_record *rec = source_record_of(r, sp->ordinal);

	at->origin = sp->origin;
	at->from = rec->first_span;
	at->to = rec + 1 < r->records + r->n_records ? rec[1].first_span : UINT32_MAX;
	at->offset = rec->offset;
}

static uint32_t put_runs(const struct batch *b, struct buf *out, uint64_t *first, uint64_t *last)
{
	struct at_record at = { UINT32_MAX, 0, 0, 0 };
	struct stream_run run = { 0, 0 };
	uint32_t n_runs = 0;

	*first = UINT64_MAX;
	*last = 0;
	for (uint32_t i = 0; i < b->tables.n_spans; i++) {
		const struct span_ref *sp = &b->tables.spans[i];

		if (sp->origin != at.origin || sp->ordinal < at.from || sp->ordinal >= at.to)
			find_record(&at, b, sp);
		if (run.n_spans > 0 && run.offset == at.offset) {
			run.n_spans++;
			continue;
		}
		if (run.n_spans > 0)
			put_run(out, &run);
		run = (struct stream_run){ at.offset, 1 };
		n_runs++;
		*first = MIN(*first, at.offset);
		*last = MAX(*last, at.offset);
	}
	if (run.n_spans > 0)
		put_run(out, &run);
	return n_runs;
}

void stream_record_head(const struct batch *b, uint64_t wall_ns, struct buf *out, uint64_t *first,
			uint64_t *last)
{
	uint8_t head[BATCH_RECORD_HEAD_MAX], n_runs[4] = { 0 };
	size_t n = batch_record_head(head, OTLP_TRACES, b->tenant, b->tables.n_spans, wall_ns, 0);

	buf_add(out, head, n);
	buf_add(out, n_runs, sizeof(n_runs));
	store_le32(n_runs, put_runs(b, out, first, last));
	memcpy(out->p + n, n_runs, sizeof(n_runs));
}

int stream_record_parse(struct bytes payload, struct stream_record *r, struct err *err)
{
	struct bytes rest;

	if (batch_record_parse(payload, &r->batch, err) < 0)
		return -1;
	rest = r->batch.otlp;
	if (rest.n < 4)
		return err_set(err, ERR_CORRUPT, "scratch record: ends before its runs");
	r->n_runs = load_le32(rest.p);
	if (r->n_runs > (rest.n - 4) / RUN)
		return err_set(err, ERR_CORRUPT, "scratch record: %u runs in %zu bytes", r->n_runs,
			       rest.n);
	r->runs = (struct bytes){ rest.p + 4, (size_t)r->n_runs * RUN };
	r->batch.otlp.p = r->runs.p + r->runs.n;
	r->batch.otlp.n = rest.n - 4 - r->runs.n;
	return 0;
}

struct stream_run stream_record_run(const struct stream_record *r, uint32_t i)
{
	const uint8_t *p = r->runs.p + (size_t)i * RUN;

	return (struct stream_run){ load_le64(p), load_le32(p + 8) };
}

uint32_t stream_record_mask(const struct stream_record *r, uint64_t first, uint64_t last,
			    struct buf *mask)
{
	uint32_t n_in = 0;

	buf_reset(mask);
	for (uint32_t i = 0; i < r->n_runs; i++) {
		struct stream_run run = stream_record_run(r, i);
		bool in = run.offset >= first && run.offset <= last;
		uint8_t *to = buf_reserve(mask, MAX(run.n_spans, 1u));

		memset(to, in, run.n_spans);
		mask->n += run.n_spans;
		n_in += in ? run.n_spans : 0;
	}
	return n_in;
}
