/* SPDX-License-Identifier: Apache-2.0
 *
 * compact_record.h - one compaction of a tenant as it stands in the store: which blocks became
 * which.
 *
 *   _spanmill/compactions/<tenant>/<number>.json
 *   {number, id, previous, createdAt, inputs: [block id ...], outputs: [meta.json ...], crc}
 *
 * `id` is random and `previous` is the id of the record with the number before: so that a record
 * that was put in the place of a swept one is recognised (compact_chain.h).
 * OWNERSHIP: a record owns its arrays. THREADS: any; put and read block on the backend.
 * LIMITS: 16 MiB; COMPACT_RECORD_MAX blocks on either side.
 * SPEC: docs/formats/compaction.md section "Records".
 */
#ifndef BLOCKS_COMPACT_RECORD_H
#define BLOCKS_COMPACT_RECORD_H

#include "blocks/backend.h"
#include "blocks/block_meta.h"

enum {
	COMPACT_ID = 37,         /* a UUID and NUL */
	COMPACT_RECORD_MAX = 64, /* inputs, or outputs */
};

#define COMPACT_RECORDS "_spanmill/compactions"

struct compact_record {
	uint64_t number; /* 1, 2, ... */
	char id[COMPACT_ID];
	char previous[COMPACT_ID]; /* "": the first, or the one before could not be read */
	struct block_time created_at;
	char (*inputs)[COMPACT_ID];
	size_t n_inputs;
	struct block_meta *outputs;
	size_t n_outputs;
};

/* "_spanmill/compactions/<tenant>" and one record's key, into out. */
int compact_record_folder(char out[BACKEND_KEY_MAX + 1], const char *tenant, struct err *err);
int compact_record_key(char out[BACKEND_KEY_MAX + 1], const char *tenant, uint64_t number,
		       struct err *err);
/* The number that a key names; false when it is no record's. */
bool compact_record_number(const char *key, uint64_t *number);

void compact_record_encode(const struct compact_record *r, struct buf *out);
/* CORRUPT: damaged, another number than wanted, or outputs of another tenant. Free with fini, also
 * after an error. */
int compact_record_decode(struct bytes json, const char *tenant, uint64_t number,
			  struct compact_record *r, struct err *err);
/* EXISTS: the number is taken, perhaps by ourselves. */
int compact_record_put(struct backend *be, const char *tenant, const struct compact_record *r,
		       struct err *err);
/* NOT_FOUND, CORRUPT. */
int compact_record_read(struct backend *be, const char *tenant, uint64_t number,
			struct compact_record *r, struct err *err);
void compact_record_fini(struct compact_record *r);

#endif
