/* SPDX-License-Identifier: Apache-2.0
 *
 * batch_record.c - see batch_record.h.
 */
#include "pipeline/batch_record.h"

#include "pipeline/span/numbers.h"

enum { VERSION = 1, VERSION_MASK = 15, SIGNAL_SHIFT = 4 };

size_t batch_record_head(uint8_t out[BATCH_RECORD_HEAD_MAX], enum otlp_signal signal,
			 const char *tenant, uint32_t n_spans, uint64_t wall_ns, uint16_t n_trailer)
{
	size_t n = strlen(tenant);

	assert(n <= TENANT_MAX);
	out[0] = (uint8_t)(VERSION | signal << SIGNAL_SHIFT);
	out[1] = (uint8_t)n;
	store_le16(out + 2, n_trailer);
	store_le32(out + 4, n_spans);
	store_le64(out + 8, wall_ns);
	memcpy(out + BATCH_RECORD_FIXED, tenant, n);
	return BATCH_RECORD_FIXED + n;
}

void batch_record_lay_out(const struct batch *b, uint64_t wall_ns, struct arena *arena,
			  uint8_t head[BATCH_RECORD_HEAD_MAX], struct segment_append *a)
{
	struct bytes numbers = span_numbers_encode(b, arena);
	struct batch_encoding e;
	struct iovec *iov;
	size_t n = batch_record_head(head, b->signal, b->tenant, b->tables.n_spans, wall_ns,
				     (uint16_t)numbers.n);

	batch_encode(b, arena, &e);
	iov = arena_alloc(arena, (e.n_pieces + 2) * sizeof(*iov));
	iov[0] = (struct iovec){ head, n };
	for (size_t i = 0; i < e.n_pieces; i++)
		iov[i + 1] = (struct iovec){ (void *)(uintptr_t)e.pieces[i].p, e.pieces[i].n };
	n = e.n_pieces + 1;
	if (numbers.n > 0)
		iov[n++] = (struct iovec){ (void *)(uintptr_t)numbers.p, numbers.n };
	a->iov = iov;
	a->n_iov = (uint32_t)n;
}

int batch_record_parse(struct bytes payload, struct batch_record *r, struct err *err)
{
	struct bytes tenant;
	size_t n_trailer;

	if (payload.n < BATCH_RECORD_FIXED || (payload.p[0] & VERSION_MASK) != VERSION ||
	    payload.p[0] >> SIGNAL_SHIFT >= OTLP_SIGNALS)
		return err_set(err, ERR_CORRUPT, "log record: not a version %d batch record",
			       VERSION);
	tenant = (struct bytes){ payload.p + BATCH_RECORD_FIXED, payload.p[1] };
	if (payload.n - BATCH_RECORD_FIXED < tenant.n || !tenant_is_valid(tenant))
		return err_set(err, ERR_CORRUPT, "log record: bad tenant name of %zu bytes",
			       tenant.n);
	r->signal = payload.p[0] >> SIGNAL_SHIFT;
	memcpy(r->tenant, tenant.p, tenant.n);
	r->tenant[tenant.n] = '\0';
	r->n_spans = load_le32(payload.p + 4);
	r->wall_ns = load_le64(payload.p + 8);
	r->otlp = (struct bytes){ tenant.p + tenant.n, payload.n - BATCH_RECORD_FIXED - tenant.n };
	n_trailer = load_le16(payload.p + 2);
	if (n_trailer > r->otlp.n)
		return err_set(err, ERR_CORRUPT, "log record: a trailer of %zu bytes in %zu",
			       n_trailer, r->otlp.n);
	r->otlp.n -= n_trailer;
	r->numbers = (struct bytes){ r->otlp.p + r->otlp.n, n_trailer };
	return 0;
}
