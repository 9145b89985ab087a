/* SPDX-License-Identifier: Apache-2.0
 *
 * batch_record.c - see batch_record.h.
 */
#include "pipeline/batch_record.h"

enum { VERSION = 1 };

size_t batch_record_head(uint8_t out[BATCH_RECORD_HEAD_MAX], const char *tenant, uint32_t n_spans,
			 uint64_t wall_ns)
{
	size_t n = strlen(tenant);

	assert(n <= TENANT_MAX);
	out[0] = VERSION;
	out[1] = (uint8_t)n;
	store_le16(out + 2, 0);
	store_le32(out + 4, n_spans);
	store_le64(out + 8, wall_ns);
	memcpy(out + BATCH_RECORD_FIXED, tenant, n);
	return BATCH_RECORD_FIXED + n;
}

int batch_record_parse(struct bytes payload, struct batch_record *r, struct err *err)
{
	struct bytes tenant;

	if (payload.n < BATCH_RECORD_FIXED || payload.p[0] != VERSION)
		return err_set(err, ERR_CORRUPT, "log record: not a version %d batch record",
			       VERSION);
	tenant = (struct bytes){ payload.p + BATCH_RECORD_FIXED, payload.p[1] };
	if (payload.n - BATCH_RECORD_FIXED < tenant.n || !tenant_is_valid(tenant))
		return err_set(err, ERR_CORRUPT, "log record: bad tenant name of %zu bytes",
			       tenant.n);
	memcpy(r->tenant, tenant.p, tenant.n);
	r->tenant[tenant.n] = '\0';
	r->n_spans = load_le32(payload.p + 4);
	r->wall_ns = load_le64(payload.p + 8);
	r->otlp = (struct bytes){ tenant.p + tenant.n, payload.n - BATCH_RECORD_FIXED - tenant.n };
	return 0;
}
