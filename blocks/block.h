/* SPDX-License-Identifier: Apache-2.0
 *
 * block.h - a block as a whole: its keys, and the steps of its life after its bytes are written.
 *
 *   block_writer_finish      data, index, bloom-*     nobody sees it
 *   block_publish            meta.json                visible
 *   block_mark_compacted     meta.compacted.json      no longer listed; still readable by who knows
 *                            it
 *   block_delete             (nothing)
 *
 * A block is visible only through meta.json; everything before it is durable by then (backend.h).
 * Any thread.
 * SPEC: docs/formats/tempo-v2-block.md section "Objects of a block".
 */
#ifndef BLOCKS_BLOCK_H
#define BLOCKS_BLOCK_H

#include "blocks/backend.h"
#include "blocks/block_meta.h"

/* "<tenant>/<id>/<name>" into out. INVALID when it is no legal key. */
int block_key(char out[BACKEND_KEY_MAX + 1], const char *tenant, const char *id, const char *name,
	      struct err *err);
/* Read and parse <tenant>/<id>/<name>, name being meta.json or meta.compacted.json. INVALID when it
 * is damaged or names another tenant or id than the folder; NOT_FOUND. */
int block_read_meta(struct backend *be, const char *tenant, const char *id, const char *name,
		    struct block_meta *m, struct err *err);
/* Write meta.json where m->tenant and m->id say. A meta.json that is there already is left as it is
 * and is success, so that whoever finishes a committed section may repeat it. */
int block_publish(struct backend *be, const struct block_meta *m, struct err *err);
/* Rename meta.json to meta.compacted.json. NOT_FOUND when the block is not live; EXISTS when it has
 * both. */
int block_mark_compacted(struct backend *be, const char *tenant, const char *id, struct err *err);
/* Delete all objects of the block, meta.json first. Missing ones are fine. */
int block_delete(struct backend *be, const char *tenant, const char *id, struct err *err);

#endif
