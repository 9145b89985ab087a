/* SPDX-License-Identifier: Apache-2.0
 *
 * codec.h - compression of one block page, by the names Tempo's meta.json uses.
 *
 * Every page is one complete, independent stream. A struct codec keeps the library contexts, so
 * that a page costs no allocation once warm. One thread at a time per codec.
 *
 *   name        we write                                       we read
 *   none        the bytes                                      the bytes
 *   gzip        one RFC 1952 member                            one or more members
 *   lz4-*, lz4  LZ4 frame, independent blocks of 64 KiB,       any LZ4 frames
 *               256 KiB, 1 MiB or 4 MiB, content checksum
 *   snappy      Snappy framing, 64 KiB chunks                  Snappy framing
 *   zstd        one frame, content size and checksum           any zstd frames
 *   s2          Snappy framing (S2 readers accept it)          S2 or Snappy framing
 *
 * LIMITS: codec_decompress never produces more than the caller's `max` bytes, and never allocates
 * more than a small multiple of what the stream has already proved to hold (plus the window a zstd
 * frame names, at most `max` rounded up to a power of two, and 8 MiB of LZ4 blocks).
 * SPEC: docs/formats/tempo-v2-block.md section "Compression".
 */
#ifndef BLOCKS_CODEC_H
#define BLOCKS_CODEC_H

#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"

/* The numbers are Tempo's: they are the one byte in its protobuf tenant index. */
enum codec_id {
	CODEC_NONE,
	CODEC_GZIP,
	CODEC_LZ4_64K,
	CODEC_LZ4_256K,
	CODEC_LZ4_1M,
	CODEC_LZ4,
	CODEC_SNAPPY,
	CODEC_ZSTD,
	CODEC_S2,
	CODEC_MAX,
};

struct codec;

/* "zstd"; static. */
const char *codec_name(enum codec_id id);
/* A name in any case, as Tempo reads it. -1 with INVALID and the list of names. */
int codec_parse(struct bytes name, enum codec_id *id, struct err *err);

/* Contexts are made when first used. level is zstd's (1..19) or gzip's (1..12); 0 = the default, 1
 * and 6. Never NULL. */
struct codec *codec_new(enum codec_id id, int level);
void codec_free(struct codec *c);
enum codec_id codec_id(const struct codec *c);

/* Append the stream of `in` to out. Fails only when a library does (INTERNAL). Borrows in. */
int codec_compress(struct codec *c, struct bytes in, struct buf *out, struct err *err);
/* Append what the stream `in` holds to out: at most max bytes. CORRUPT when the stream is damaged,
 * cut short or followed by junk; TOO_LARGE when it holds more than max. On error out's content past
 * its old end is undefined. */
int codec_decompress(struct codec *c, struct bytes in, size_t max, struct buf *out,
		     struct err *err);

#endif
