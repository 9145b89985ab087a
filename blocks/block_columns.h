/* SPDX-License-Identifier: Apache-2.0
 *
 * block_columns.h - the "dedicatedColumns" of metas of parquet blocks, kept as they were written.
 *
 * We do not read such blocks, but a tenant index names them for who does, and without their columns
 * Tempo misses what is in them. A deployment has few different ones and thousands of blocks: each
 * text is kept once, for as long as the process lives, so that struct block_meta stays plain data.
 * LIMITS: 64 texts of at most 8 KiB; what is more is as if it was not there.
 * THREADS: any. SPEC: docs/formats/tempo-v2-block.md section "meta.json".
 */
#ifndef BLOCKS_BLOCK_COLUMNS_H
#define BLOCKS_BLOCK_COLUMNS_H

#include "base/base.h"

enum { BLOCK_COLUMNS_TEXTS = 64, BLOCK_COLUMNS_BYTES = 8 * 1024 };

/* The one text that equals json; NULL: there are too many, or it is too long. Copies. */
const char *block_columns_intern(struct bytes json);

#endif
