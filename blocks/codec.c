/* SPDX-License-Identifier: Apache-2.0
 *
 * codec.c - see codec.h. One pair of small functions per library; a table joins them to the names.
 *
 * Output grows as the stream yields bytes: a size field of the stream is a hint that is believed
 * only as far as the input could back it, so a 20-byte page cannot ask for 64 MiB.
 */
#include "blocks/codec.h"

#include "base/mem.h"
#include "base/str.h"
#include "blocks/snappy_frames.h"

#include <libdeflate.h>
#include <lz4frame.h>
#include <zstd.h>
#include <zstd_errors.h>

enum { GZIP_RATIO = 1032, GZIP_LEVEL = 6, ZSTD_LEVEL = 1, HINT_RATIO = 256, STEP = 64 * 1024 };

struct codec {
	enum codec_id id;
	int level;
	ZSTD_CCtx *zc;
	ZSTD_DCtx *zd;
	LZ4F_cctx *lc;
	LZ4F_dctx *ld;
	struct libdeflate_compressor *gc;
	struct libdeflate_decompressor *gd;
};

static const char *const names[CODEC_MAX] = {
	[CODEC_NONE] = "none",         [CODEC_GZIP] = "gzip",     [CODEC_LZ4_64K] = "lz4-64k",
	[CODEC_LZ4_256K] = "lz4-256k", [CODEC_LZ4_1M] = "lz4-1M", [CODEC_LZ4] = "lz4",
	[CODEC_SNAPPY] = "snappy",     [CODEC_ZSTD] = "zstd",     [CODEC_S2] = "s2",
};

const char *codec_name(enum codec_id id)
{
	assert((unsigned)id < CODEC_MAX);
	return names[id];
}

int codec_parse(struct bytes name, enum codec_id *id, struct err *err)
{
	for (unsigned i = 0; i < CODEC_MAX; i++) {
		if (str_eq_nocase(name, names[i])) {
			*id = (enum codec_id)i;
			return 0;
		}
	}
	return err_set(
		err, ERR_INVALID,
		"encoding \"%.*s\": must be none, gzip, lz4-64k, lz4-256k, lz4-1M, lz4, snappy, "
		"zstd or s2",
		(int)MIN(name.n, 32), (const char *)name.p);
}

struct codec *codec_new(enum codec_id id, int level)
{
	struct codec *c = xcalloc(1, sizeof(*c));

	assert((unsigned)id < CODEC_MAX);
	c->id = id;
	c->level = level;
	return c;
}

void codec_free(struct codec *c)
{
	if (c == NULL)
		return;
	ZSTD_freeCCtx(c->zc);
	ZSTD_freeDCtx(c->zd);
	LZ4F_freeCompressionContext(c->lc);
	LZ4F_freeDecompressionContext(c->ld);
	libdeflate_free_compressor(c->gc);
	libdeflate_free_decompressor(c->gd);
	free(c);
}

enum codec_id codec_id(const struct codec *c)
{
	return c->id;
}

static int too_large(struct err *err, const struct codec *c, size_t max)
{
	return err_set(err, ERR_TOO_LARGE, "%s: inflates to more than the limit of %zu bytes",
		       names[c->id], max);
}

/* Room for some more output, at most `max` in all since `base`. Returns 0 when max is reached.
 * Doubles, starting from what the input suggests. */
static size_t room(struct buf *out, size_t base, size_t max, size_t want)
{
	size_t have = out->n - base;
	size_t n = MIN(MAX(want, have), max - have);

	if (n == 0 || buf_reserve(out, n) == NULL)
		return 0;
	return MIN(out->cap - out->n, max - have);
}

/* ---- gzip ---- */

static int gzip_compress(struct codec *c, struct bytes in, struct buf *out, struct err *err)
{
	size_t n = 0;
	uint8_t *to = NULL;

	if (c->gc == NULL)
		c->gc = libdeflate_alloc_compressor(c->level ? c->level : GZIP_LEVEL);
	if (c->gc == NULL)
		return err_set(err, ERR_INTERNAL, "gzip: no compressor for level %d", c->level);
	n = libdeflate_gzip_compress_bound(c->gc, in.n);
	to = buf_reserve(out, n);
	if (to == NULL)
		return err_set(err, ERR_TOO_LARGE, "gzip: output limit of %zu bytes", out->max);
	n = libdeflate_gzip_compress(c->gc, in.p, in.n, to, n);
	if (n == 0)
		return err_set(err, ERR_INTERNAL, "gzip: compressor failed on %zu bytes", in.n);
	out->n += n;
	return 0;
}

/* One member from the front of *in. libdeflate wants the whole output at once: try with the size
 * the trailer claims, then double. */
static int gzip_member(struct codec *c, struct bytes *in, size_t max, struct buf *out,
		       struct err *err)
{
	size_t claim = in->n >= 18 ? load_le32(in->p + in->n - 4) : 0;
	size_t cap = MIN(claim, in->n * GZIP_RATIO);

	for (cap = MIN(MAX(cap, in->n), max);; cap = MIN(cap * 2 + STEP, max)) {
		size_t used = 0, got = 0;
		uint8_t *to = buf_reserve(out, cap + 1);
		enum libdeflate_result r = LIBDEFLATE_INSUFFICIENT_SPACE;

		if (to == NULL)
			return too_large(err, c, max);
		r = libdeflate_gzip_decompress_ex(c->gd, in->p, in->n, to, cap, &used, &got);
		if (r == LIBDEFLATE_SUCCESS) {
			out->n += got;
			in->p += used;
			in->n -= used;
			return 0;
		}
		if (r != LIBDEFLATE_INSUFFICIENT_SPACE)
			return err_set(err, ERR_CORRUPT, "gzip: damaged stream or wrong checksum");
		if (cap == max)
			return too_large(err, c, max);
	}
}

static int gzip_decompress(struct codec *c, struct bytes in, size_t max, struct buf *out,
			   struct err *err)
{
	size_t base = out->n;

	if (c->gd == NULL)
		c->gd = libdeflate_alloc_decompressor();
	if (c->gd == NULL)
		return err_set(err, ERR_INTERNAL, "gzip: out of memory");
	do {
		if (gzip_member(c, &in, max - (out->n - base), out, err) < 0)
			return -1;
	} while (in.n > 0);
	return 0;
}

/* ---- lz4 ---- */

static int lz4_failed(struct err *err, enum err_kind kind, size_t code)
{
	return err_set(err, kind, "lz4: %s", LZ4F_getErrorName(code));
}

static LZ4F_preferences_t lz4_preferences(enum codec_id id)
{
	static const LZ4F_blockSizeID_t sizes[CODEC_MAX] = {
		[CODEC_LZ4_64K] = LZ4F_max64KB,
		[CODEC_LZ4_256K] = LZ4F_max256KB,
		[CODEC_LZ4_1M] = LZ4F_max1MB,
		[CODEC_LZ4] = LZ4F_max4MB,
	};
	LZ4F_preferences_t p = LZ4F_INIT_PREFERENCES;

	p.frameInfo.blockSizeID = sizes[id];
	p.frameInfo.blockMode = LZ4F_blockIndependent;
	p.frameInfo.contentChecksumFlag = LZ4F_contentChecksumEnabled;
	p.autoFlush = 1;
	return p;
}

static int lz4_compress(struct codec *c, struct bytes in, struct buf *out, struct err *err)
{
	const LZ4F_preferences_t p = lz4_preferences(c->id);
	size_t cap = LZ4F_HEADER_SIZE_MAX + LZ4F_compressBound(in.n, &p);
	uint8_t *to = buf_reserve(out, cap);
	size_t at = 0, r = 0;

	if (to == NULL)
		return err_set(err, ERR_TOO_LARGE, "lz4: output limit of %zu bytes", out->max);
	if (c->lc == NULL && LZ4F_isError(r = LZ4F_createCompressionContext(&c->lc, LZ4F_VERSION)))
		return lz4_failed(err, ERR_INTERNAL, r);
	r = LZ4F_compressBegin(c->lc, to, cap, &p);
	if (!LZ4F_isError(r)) {
		at += r;
		r = LZ4F_compressUpdate(c->lc, to + at, cap - at, in.p, in.n, NULL);
	}
	if (!LZ4F_isError(r)) {
		at += r;
		r = LZ4F_compressEnd(c->lc, to + at, cap - at, NULL);
	}
	if (LZ4F_isError(r))
		return lz4_failed(err, ERR_INTERNAL, r);
	out->n += at + r;
	return 0;
}

static int lz4_decompress(struct codec *c, struct bytes in, size_t max, struct buf *out,
			  struct err *err)
{
	size_t base = out->n, r = 1;
	bool drained = true;

	if (c->ld == NULL &&
	    LZ4F_isError(r = LZ4F_createDecompressionContext(&c->ld, LZ4F_VERSION)))
		return lz4_failed(err, ERR_INTERNAL, r);
	LZ4F_resetDecompressionContext(c->ld);
	/* A call that filled its window may have more to give; r == 0 says that a frame ended and
	 * all of it was given. */
	while (in.n > 0 || (!drained && r != 0)) {
		size_t cap = room(out, base, max, MIN(in.n * 4 + STEP, max));
		uint8_t probe = 0, *to = cap ? out->p + out->n : &probe;
		size_t got = cap ? cap : 1, used = in.n;

		r = LZ4F_decompress(c->ld, to, &got, in.p, &used, NULL);
		if (LZ4F_isError(r))
			return lz4_failed(err, ERR_CORRUPT, r);
		if (cap == 0 && got > 0)
			return too_large(err, c, max);
		if (used == 0 && got == 0)
			break;
		drained = got < (cap ? cap : 1);
		out->n += got;
		in.p += used;
		in.n -= used;
	}
	if (r != 0 || in.n > 0)
		return err_set(err, ERR_CORRUPT, "lz4: stream is cut short");
	return 0;
}

/* ---- zstd ---- */

static int zstd_failed(struct err *err, enum err_kind kind, size_t code)
{
	return err_set(err, kind, "zstd: %s", ZSTD_getErrorName(code));
}

static int zstd_compress(struct codec *c, struct bytes in, struct buf *out, struct err *err)
{
	size_t cap = ZSTD_compressBound(in.n), r = 0;
	uint8_t *to = buf_reserve(out, cap);

	if (to == NULL)
		return err_set(err, ERR_TOO_LARGE, "zstd: output limit of %zu bytes", out->max);
	if (c->zc == NULL) {
		c->zc = ZSTD_createCCtx();
		if (c->zc == NULL)
			return err_set(err, ERR_INTERNAL, "zstd: out of memory");
		ZSTD_CCtx_setParameter(c->zc, ZSTD_c_compressionLevel,
				       c->level ? c->level : ZSTD_LEVEL);
		ZSTD_CCtx_setParameter(c->zc, ZSTD_c_checksumFlag, 1);
	}
	r = ZSTD_compress2(c->zc, to, cap, in.p, in.n);
	if (ZSTD_isError(r))
		return zstd_failed(err, ERR_INTERNAL, r);
	out->n += r;
	return 0;
}

/* The output to start with: the frame's content size as far as its bytes can back it. */
static size_t zstd_hint(struct bytes in, size_t max)
{
	unsigned long long claim = ZSTD_getFrameContentSize(in.p, in.n);
	size_t backed = MIN(in.n, max) * HINT_RATIO + STEP;

	if (claim == ZSTD_CONTENTSIZE_UNKNOWN || claim == ZSTD_CONTENTSIZE_ERROR)
		return in.n * 4 + STEP;
	return (size_t)MIN(claim, backed);
}

/* A window larger than the page limit has no use; zstd's own floor is 10. */
static int window_log(size_t max)
{
	int log = 10;

	while (log < 31 && ((size_t)1 << log) < max)
		log++;
	return log;
}

static int zstd_start(struct codec *c, size_t max, struct err *err)
{
	size_t r = 0;

	if (c->zd == NULL)
		c->zd = ZSTD_createDCtx();
	if (c->zd == NULL)
		return err_set(err, ERR_INTERNAL, "zstd: out of memory");
	ZSTD_DCtx_reset(c->zd, ZSTD_reset_session_only);
	r = ZSTD_DCtx_setParameter(c->zd, ZSTD_d_windowLogMax, window_log(max));
	return ZSTD_isError(r) ? zstd_failed(err, ERR_INTERNAL, r) : 0;
}

static int zstd_decompress(struct codec *c, struct bytes in, size_t max, struct buf *out,
			   struct err *err)
{
	ZSTD_inBuffer zin = { in.p, in.n, 0 };
	size_t base = out->n, r = 1;
	bool drained = true;

	if (zstd_start(c, max, err) < 0)
		return -1;
	while (zin.pos < zin.size || (!drained && r != 0)) {
		size_t hint = out->n == base ? zstd_hint(in, max) : STEP;
		size_t cap = room(out, base, max, hint);
		uint8_t probe = 0;
		ZSTD_outBuffer zout = { cap ? out->p + out->n : &probe, cap ? cap : 1, 0 };
		size_t before = zin.pos;

		r = ZSTD_decompressStream(c->zd, &zout, &zin);
		if (ZSTD_getErrorCode(r) == ZSTD_error_frameParameter_windowTooLarge)
			return too_large(err, c, max);
		if (ZSTD_isError(r))
			return zstd_failed(err, ERR_CORRUPT, r);
		if (cap == 0 && zout.pos > 0)
			return too_large(err, c, max);
		out->n += zout.pos;
		drained = zout.pos < zout.size;
		if (zout.pos == 0 && zin.pos == before)
			break;
	}
	if (r != 0 || zin.pos < zin.size)
		return err_set(err, ERR_CORRUPT, "zstd: stream is cut short");
	return 0;
}

/* ---- the table ---- */

int codec_compress(struct codec *c, struct bytes in, struct buf *out, struct err *err)
{
	switch (c->id) {
	case CODEC_NONE:
		if (buf_add_bytes(out, in) < 0)
			return err_set(err, ERR_TOO_LARGE, "none: output limit of %zu bytes",
				       out->max);
		return 0;
	case CODEC_GZIP:
		return gzip_compress(c, in, out, err);
	case CODEC_LZ4_64K:
	case CODEC_LZ4_256K:
	case CODEC_LZ4_1M:
	case CODEC_LZ4:
		return lz4_compress(c, in, out, err);
	case CODEC_SNAPPY:
	case CODEC_S2:
		return snappy_frames_encode(in, out, err);
	case CODEC_ZSTD:
		return zstd_compress(c, in, out, err);
	case CODEC_MAX:
		break;
	}
	return err_set(err, ERR_INTERNAL, "codec %d: unknown", (int)c->id);
}

int codec_decompress(struct codec *c, struct bytes in, size_t max, struct buf *out, struct err *err)
{
	if (in.n == 0 && c->id != CODEC_NONE)
		return err_set(err, ERR_CORRUPT, "%s: stream is empty", names[c->id]);
	switch (c->id) {
	case CODEC_NONE:
		if (in.n > max || buf_add_bytes(out, in) < 0)
			return too_large(err, c, max);
		return 0;
	case CODEC_GZIP:
		return gzip_decompress(c, in, max, out, err);
	case CODEC_LZ4_64K:
	case CODEC_LZ4_256K:
	case CODEC_LZ4_1M:
	case CODEC_LZ4:
		return lz4_decompress(c, in, max, out, err);
	case CODEC_SNAPPY:
	case CODEC_S2:
		return snappy_frames_decode(in, c->id == CODEC_S2, max, out, err);
	case CODEC_ZSTD:
		return zstd_decompress(c, in, max, out, err);
	case CODEC_MAX:
		break;
	}
	return err_set(err, ERR_INTERNAL, "codec %d: unknown", (int)c->id);
}
