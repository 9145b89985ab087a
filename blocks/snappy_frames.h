/* SPDX-License-Identifier: Apache-2.0
 *
 * snappy_frames.h - the Snappy framing format, and reading of its S2 superset.
 *
 *   ff 06 00 00 "sNaPpY"   then chunks: type u8, length u24 LE, masked CRC-32C u32 LE of the plain
 *                          bytes, body type 00 compressed, 01 plain; fe and 80..fd are skipped;
 *                          02..7f are an error
 *
 * Streams that begin with "S2sTwO" may have blocks up to 4 MiB and "repeat" copies (a 1-byte-offset
 * copy with offset 0). Pure functions, any thread.
 * SPEC: Snappy framing_format.txt and format_description.txt; docs/formats/tempo-v2-block.md for
 * S2.
 */
#ifndef BLOCKS_SNAPPY_FRAMES_H
#define BLOCKS_SNAPPY_FRAMES_H

#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"

/* Append a whole stream holding `in` to out, chunks of 64 KiB. */
int snappy_frames_encode(struct bytes in, struct buf *out, struct err *err);
/* Append what the stream holds to out, at most max bytes. allow_s2: "S2sTwO" streams are read too.
 * CORRUPT names the offset; TOO_LARGE past max. */
int snappy_frames_decode(struct bytes in, bool allow_s2, size_t max, struct buf *out,
			 struct err *err);

/* Decode one S2 (or raw Snappy) block into exactly n bytes at `to`: body is what follows the length
 * varint. 0, or -1 when it is damaged or does not give n bytes. Exposed for tests. */
int snappy_frames_s2_block(struct bytes body, uint8_t *to, size_t n);

#endif
