/* SPDX-License-Identifier: Apache-2.0
 *
 * content_coding.c - whole bodies in and out of gzip, deflate, zstd, snappy and lz4.
 *
 * DESIGN: libdeflate and zstd inflate a whole stream into one buffer or say "too small"; they
 * cannot be continued. So a stream is tried into a guessed size and, when that was too small, tried
 * again into GROWTH times as much, which costs at most a third more work than knowing the size. The
 * guess is the size the stream states (gzip's ISIZE, zstd's frame content size), but at most
 * FIRST_RATIO times its input: a header that lies high reserves little, one that lies low costs a
 * retry. Nothing grows past the limit, so a bomb costs one inflation up to the limit. zlib's
 * streaming inflate would not repeat work but takes 2.8 times as long (performance-limits.md
 * section 9). Streams that follow one another (gzip members) are appended; only the last is ever
 * repeated. Snappy states its size and cannot exceed 64 bytes of output for 3 of input, so its size
 * is believed after that check.
 *
 * OWNERSHIP, THREADS: any thread; one decompressor of each kind per thread, freed when it ends.
 *
 * LIMITS: max_out, max_ratio and the budget, all by the caller.
 *
 * SPEC: RFC 1950, 1951, 1952, 8878; snappy framing_format.txt; lz4_Frame_format.md; DESIGN
 * principle 10.
 */
#include "net/content_coding.h"

#include "base/hash.h"
#include "base/mem.h"
#include "base/str.h"

#include <libdeflate.h>
#include <lz4frame.h>
#include <pthread.h>
#include <snappy-c.h>
#include <zstd.h>
#include <zstd_errors.h>

enum { FIRST_RATIO = 32, GROWTH = 4, FIRST_MIN = 4096, SHRINK_ABOVE = 65536 };
enum { GZIP_MIN = 18, SNAPPY_MAX_RATIO = 22, SNAPPY_CHUNK = 65536, DEFAULT_LEVEL = 1 };

/* ---- what each thread keeps ---- */

struct tools {
	struct libdeflate_decompressor *inflate;
	struct libdeflate_compressor *deflate;
	int deflate_level;
	ZSTD_DCtx *unzstd;
	ZSTD_CCtx *zstd;
	LZ4F_dctx *unlz4;
};

static pthread_key_t tools_key;
static pthread_once_t tools_once = PTHREAD_ONCE_INIT;

static void tools_free(void *arg)
{
	struct tools *t = arg;

	libdeflate_free_decompressor(t->inflate);
	libdeflate_free_compressor(t->deflate);
	ZSTD_freeDCtx(t->unzstd);
	ZSTD_freeCCtx(t->zstd);
	LZ4F_freeDecompressionContext(t->unlz4);
	free(t);
}

static void tools_init(void)
{
	int rc = pthread_key_create(&tools_key, tools_free);

	assert(rc == 0);
	(void)rc;
}

static struct tools *tools_of_thread(void)
{
	struct tools *t;

	pthread_once(&tools_once, tools_init);
	t = pthread_getspecific(tools_key);
	if (t == NULL) {
		t = xcalloc(1, sizeof(*t));
		pthread_setspecific(tools_key, t);
	}
	return t;
}

/* A library's constructor returns NULL only when memory is out; treat it as xmalloc would. */
static void *must(void *p)
{
	if (p == NULL)
		abort();
	return p;
}

static struct libdeflate_decompressor *inflater(void)
{
	struct tools *t = tools_of_thread();

	if (t->inflate == NULL)
		t->inflate = must(libdeflate_alloc_decompressor());
	return t->inflate;
}

static struct libdeflate_compressor *deflater(int level)
{
	struct tools *t = tools_of_thread();

	if (t->deflate == NULL || t->deflate_level != level) {
		libdeflate_free_compressor(t->deflate);
		t->deflate = must(libdeflate_alloc_compressor(level));
		t->deflate_level = level;
	}
	return t->deflate;
}

static ZSTD_DCtx *unzstd_context(void)
{
	struct tools *t = tools_of_thread();

	if (t->unzstd == NULL)
		t->unzstd = must(ZSTD_createDCtx());
	return t->unzstd;
}

static ZSTD_CCtx *zstd_context(void)
{
	struct tools *t = tools_of_thread();

	if (t->zstd == NULL)
		t->zstd = must(ZSTD_createCCtx());
	return t->zstd;
}

/* Ready for a new frame. */
static LZ4F_dctx *unlz4_context(void)
{
	struct tools *t = tools_of_thread();

	if (t->unlz4 == NULL &&
	    LZ4F_isError(LZ4F_createDecompressionContext(&t->unlz4, LZ4F_VERSION)))
		abort();
	LZ4F_resetDecompressionContext(t->unlz4);
	return t->unlz4;
}

/* ---- names ---- */

static const struct {
	const char *name;
	enum content_coding coding;
} names[] = {
	{ "identity", CONTENT_IDENTITY }, { "gzip", CONTENT_GZIP },
	{ "deflate", CONTENT_DEFLATE },   { "zstd", CONTENT_ZSTD },
	{ "snappy", CONTENT_SNAPPY },     { "x-snappy-framed", CONTENT_SNAPPY_FRAMED },
	{ "lz4", CONTENT_LZ4 },           { "x-gzip", CONTENT_GZIP },
	{ "zlib", CONTENT_DEFLATE },
};

static struct bytes trimmed(struct bytes s)
{
	while (s.n > 0 && (s.p[0] == ' ' || s.p[0] == '\t')) {
		s.p++;
		s.n--;
	}
	while (s.n > 0 && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
		s.n--;
	return s;
}

int content_coding_parse(struct bytes name, enum content_coding *coding)
{
	struct bytes s = trimmed(name);

	*coding = CONTENT_IDENTITY;
	if (s.n == 0)
		return 0;
	for (size_t i = 0; i < COUNT_OF(names); i++)
		if (str_eq_nocase(s, names[i].name)) {
			*coding = names[i].coding;
			return 0;
		}
	return -1;
}

const char *content_coding_name(enum content_coding coding)
{
	return names[coding].name;
}

/* Cut the part before `sep` off *rest. */
static struct bytes next_part(struct bytes *rest, uint8_t sep)
{
	const uint8_t *end = memchr(rest->p, sep, rest->n);
	struct bytes part = { rest->p, end ? (size_t)(end - rest->p) : rest->n };
	size_t used = part.n + (end ? 1 : 0);

	rest->p += used;
	rest->n -= used;
	return trimmed(part);
}

/* Is the weight among the parameters of an Accept-Encoding item zero ("q=0", "q=0.0")? */
static bool weight_is_zero(struct bytes params)
{
	while (params.n > 0) {
		struct bytes p = next_part(&params, ';');

		if (p.n < 3 || (p.p[0] | 0x20) != 'q' || p.p[1] != '=')
			continue;
		for (size_t i = 2; i < p.n; i++)
			if (p.p[i] != '0' && p.p[i] != '.')
				return false;
		return true;
	}
	return false;
}

bool content_coding_accepts_gzip(struct bytes accept_encoding)
{
	bool any = false;

	while (accept_encoding.n > 0) {
		struct bytes params = next_part(&accept_encoding, ',');
		struct bytes name = BYTES_EMPTY;

		if (params.n == 0)
			continue;
		name = next_part(&params, ';');
		if (str_eq_nocase(name, "gzip") || str_eq_nocase(name, "x-gzip"))
			return !weight_is_zero(params);
		if (bytes_eq_str(name, "*"))
			any = !weight_is_zero(params);
	}
	return any;
}

/* ---- one stream into a buffer of known size ---- */

enum outcome { DONE, TOO_SMALL, DAMAGED };

/* Inflate the stream at the head of `in` into [out, out + avail): bytes read and written by
 * reference. */
typedef enum outcome (*stream_fn)(struct bytes in, uint8_t *out, size_t avail, size_t *n_in,
				  size_t *n_out);

static enum outcome outcome_of(enum libdeflate_result r)
{
	if (r == LIBDEFLATE_SUCCESS)
		return DONE;
	return r == LIBDEFLATE_INSUFFICIENT_SPACE ? TOO_SMALL : DAMAGED;
}

static enum outcome gzip_stream(struct bytes in, uint8_t *out, size_t avail, size_t *n_in,
				size_t *n_out)
{
	return outcome_of(
		libdeflate_gzip_decompress_ex(inflater(), in.p, in.n, out, avail, n_in, n_out));
}

static enum outcome zlib_stream(struct bytes in, uint8_t *out, size_t avail, size_t *n_in,
				size_t *n_out)
{
	return outcome_of(
		libdeflate_zlib_decompress_ex(inflater(), in.p, in.n, out, avail, n_in, n_out));
}

static enum outcome raw_stream(struct bytes in, uint8_t *out, size_t avail, size_t *n_in,
			       size_t *n_out)
{
	return outcome_of(
		libdeflate_deflate_decompress_ex(inflater(), in.p, in.n, out, avail, n_in, n_out));
}

/* All frames at once; one pass straight into `out` needs no window memory, whatever the frame asks
 * for. */
static enum outcome zstd_stream(struct bytes in, uint8_t *out, size_t avail, size_t *n_in,
				size_t *n_out)
{
	size_t got = ZSTD_decompressDCtx(unzstd_context(), out, avail, in.p, in.n);

	if (ZSTD_isError(got))
		return ZSTD_getErrorCode(got) == ZSTD_error_dstSize_tooSmall ? TOO_SMALL : DAMAGED;
	*n_in = in.n;
	*n_out = got;
	return DONE;
}

/* One frame. The library keeps what does not fit, up to a block; that is thrown away with a try
 * that was too small. */
static enum outcome lz4_stream(struct bytes in, uint8_t *out, size_t avail, size_t *n_in,
			       size_t *n_out)
{
	const LZ4F_decompressOptions_t o = { .stableDst = 1 };
	LZ4F_dctx *ctx = unlz4_context();
	size_t at = 0, r = 1;

	*n_in = 0;
	while (r != 0) {
		size_t got = avail - at, used = in.n - *n_in;

		r = LZ4F_decompress(ctx, out + at, &got, in.p + *n_in, &used, &o);
		if (LZ4F_isError(r))
			return DAMAGED;
		at += got;
		*n_in += used;
		if (r != 0 && used == 0 && got == 0)
			return *n_in < in.n || at == avail ? TOO_SMALL : DAMAGED;
	}
	*n_out = at;
	return DONE;
}

/* ---- streams of unknown size ---- */

struct decode {
	enum content_coding coding;
	struct bytes rest; /* input not consumed yet */
	size_t max_out;    /* caller's limit */
	size_t limit;      /* max_out, or less when even an empty budget could not hold that */
	struct budget *budget;
	struct rcbuf *out; /* NULL until needed; out->n bytes are final */
	struct err *err;
};

static int decode_too_large(struct decode *d)
{
	return err_set(d->err, ERR_TOO_LARGE, "%s body: inflates to more than %s of %zu bytes",
		       content_coding_name(d->coding),
		       d->limit < d->max_out ? "the memory budget" : "the limit", d->limit);
}

static int decode_damaged(struct decode *d, const char *why)
{
	return err_set(d->err, ERR_INVALID, "%s body: %s", content_coding_name(d->coding), why);
}

/* Make room for `size` bytes in all. What was written past out->n is scratch: only the final bytes
 * move. */
static int decode_room(struct decode *d, size_t size)
{
	int rc = 0;

	if (d->out != NULL && d->out->n > 0) {
		/* By doubling, or a million one-byte members would each copy what came before. */
		if (size > d->out->cap)
			size = MAX(size, MIN(d->out->cap * 2, d->limit));
		rc = rcbuf_grow(&d->out, size);
	} else if (d->out == NULL || d->out->cap < size) {
		rcbuf_unref(d->out); /* first, so that a retry holds one buffer and not two */
		d->out = rcbuf_new(d->budget, size);
		rc = d->out ? 0 : -1;
	}
	if (rc < 0)
		return err_set(d->err, ERR_EXHAUSTED,
			       "%s body: memory budget spent, %zu bytes wanted",
			       content_coding_name(d->coding), size);
	return 0;
}

/* Inflate one stream and append it. `guess` is what it is believed to hold. */
static int decode_stream(struct decode *d, stream_fn stream, size_t guess)
{
	size_t base = d->out ? d->out->n : 0, avail = 0, n_in = 0, n_out = 0;
	size_t want = MIN(base + MAX(guess, 1), d->limit);
	enum outcome got = TOO_SMALL;

	for (;;) {
		if (decode_room(d, want) < 0)
			return -1;
		avail = MIN(d->out->cap, d->limit);
		got = stream(d->rest, d->out->p + base, avail - base, &n_in, &n_out);
		if (got != TOO_SMALL)
			break;
		if (avail >= d->limit)
			return decode_too_large(d);
		want = avail > d->limit / GROWTH ? d->limit : avail * GROWTH;
	}
	if (got == DAMAGED)
		return decode_damaged(d, "damaged or cut short");
	d->out->n = base + n_out;
	d->rest.p += n_in;
	d->rest.n -= n_in;
	return 0;
}

/* What `in` may be believed to hold when its header states `stated` (0: says nothing). */
static size_t first_guess(struct bytes in, uint64_t stated)
{
	uint64_t most = (uint64_t)in.n * FIRST_RATIO + FIRST_MIN;

	if (stated == 0)
		stated = (uint64_t)in.n * 8;
	return (size_t)MIN(stated, most);
}

static int decode_gzip(struct decode *d)
{
	if (d->rest.n == 0)
		return decode_damaged(d, "empty");
	while (d->rest.n > 0) {
		uint64_t isize = 0;

		if (d->rest.n < GZIP_MIN)
			return decode_damaged(d, "cut short, or junk after the last member");
		/* Of the last member, which nearly always is the only one. */
		isize = load_le32(d->rest.p + d->rest.n - 4);
		if (decode_stream(d, gzip_stream, first_guess(d->rest, isize)) < 0)
			return -1;
	}
	return 0;
}

static bool looks_like_zlib(struct bytes in)
{
	return in.n >= 2 && (in.p[0] & 0x0f) == 8 && in.p[0] >> 4 <= 7 &&
	       (in.p[0] << 8 | in.p[1]) % 31 == 0;
}

static int decode_deflate(struct decode *d)
{
	int rc = -1;

	if (looks_like_zlib(d->rest)) {
		rc = decode_stream(d, zlib_stream, first_guess(d->rest, 0));
		if (rc < 0 && d->err->kind != ERR_INVALID)
			return -1;
	}
	/* A raw stream may begin with what reads as a zlib header, so it gets its chance either
	 * way. */
	if (rc < 0 && decode_stream(d, raw_stream, first_guess(d->rest, 0)) < 0)
		return -1;
	return d->rest.n > 0 ? decode_damaged(d, "junk after the end") : 0;
}

static int decode_zstd(struct decode *d)
{
	unsigned long long stated = ZSTD_getFrameContentSize(d->rest.p, d->rest.n);

	if (d->rest.n == 0 || stated == ZSTD_CONTENTSIZE_ERROR)
		return decode_damaged(d, "no zstd frame");
	if (stated == ZSTD_CONTENTSIZE_UNKNOWN)
		stated = 0;
	return decode_stream(d, zstd_stream, first_guess(d->rest, stated));
}

/* Frames may follow one another; what a frame states of its size is in no header that is cheap to
 * read, so the guess is a usual ratio. */
static int decode_lz4(struct decode *d)
{
	do {
		if (decode_stream(d, lz4_stream, first_guess(d->rest, 0)) < 0)
			return -1;
	} while (d->rest.n > 0);
	return 0;
}

/* ---- snappy, which states its sizes ---- */

/* The size a block states, after checking that its input could hold that much. */
static int snappy_size(struct decode *d, struct bytes block, size_t *size)
{
	if (snappy_uncompressed_length((const char *)block.p, block.n, size) != SNAPPY_OK ||
	    *size > block.n * SNAPPY_MAX_RATIO)
		return decode_damaged(d, "impossible size in a block");
	return 0;
}

/* Append one block; there is room. */
static int snappy_block(struct decode *d, struct bytes block, size_t size)
{
	size_t got = size;

	if (snappy_uncompress((const char *)block.p, block.n, (char *)d->out->p + d->out->n,
			      &got) != SNAPPY_OK)
		return decode_damaged(d, "damaged block");
	d->out->n += got;
	return 0;
}

static int decode_snappy_block(struct decode *d)
{
	size_t size = 0;

	if (snappy_size(d, d->rest, &size) < 0)
		return -1;
	if (size > d->limit)
		return decode_too_large(d);
	return decode_room(d, MAX(size, 1)) < 0 ? -1 : snappy_block(d, d->rest, size);
}

struct chunk {
	uint8_t type;
	struct bytes data; /* after the checksum, where there is one */
	uint32_t sum;
	size_t size; /* of the output */
};

/* The next chunk of framed snappy off *rest: 1, 0 at the end, -1 damaged. */
static int next_chunk(struct decode *d, struct bytes *rest, struct chunk *c)
{
	size_t n = 0;

	*c = (struct chunk){ 0 };
	if (rest->n == 0)
		return 0;
	if (rest->n < 4)
		return decode_damaged(d, "cut short in a chunk header");
	n = load_le32(rest->p) >> 8;
	c->type = rest->p[0];
	if (n > rest->n - 4)
		return decode_damaged(d, "chunk runs past the end");
	c->data = (struct bytes){ rest->p + 4, n };
	rest->p += 4 + n;
	rest->n -= 4 + n;
	if (c->type >= 0x80)
		return 1; /* padding, stream identifier, skippable */
	if (c->type > 1 || n < 4)
		return decode_damaged(d, "unknown or short chunk");
	c->sum = load_le32(c->data.p);
	c->data.p += 4;
	c->data.n -= 4;
	c->size = c->data.n;
	if (c->type == 0 && snappy_size(d, c->data, &c->size) < 0)
		return -1;
	return c->size > SNAPPY_CHUNK ? decode_damaged(d, "chunk over 64 KiB") : 1;
}

static int append_chunk(struct decode *d, const struct chunk *c)
{
	const uint8_t *start = d->out->p + d->out->n;
	uint32_t crc = 0;

	if (c->type >= 0x80)
		return 0;
	if (c->type == 1) {
		if (c->data.n > 0)
			memcpy(d->out->p + d->out->n, c->data.p, c->data.n);
		d->out->n += c->data.n;
	} else if (snappy_block(d, c->data, c->size) < 0) {
		return -1;
	}
	crc = hash_crc32c(0, start, c->size);
	if ((crc >> 15 | crc << 17) + 0xa282ead8u != c->sum)
		return decode_damaged(d, "checksum of a chunk does not match");
	return 0;
}

static int decode_snappy_framed(struct decode *d)
{
	struct bytes rest = d->rest;
	struct chunk c;
	size_t total = 0;
	int rc = 0;

	while ((rc = next_chunk(d, &rest, &c)) > 0) {
		total += c.size;
		if (total > d->limit)
			return decode_too_large(d);
	}
	if (rc < 0 || decode_room(d, MAX(total, 1)) < 0)
		return -1;
	while ((rc = next_chunk(d, &d->rest, &c)) > 0)
		if (append_chunk(d, &c) < 0)
			return -1;
	return rc;
}

static const uint8_t snappy_identifier[10] = { 0xff, 6, 0, 0, 's', 'N', 'a', 'P', 'p', 'Y' };

static int decode_snappy(struct decode *d)
{
	if (d->rest.n >= sizeof(snappy_identifier) &&
	    memcmp(d->rest.p, snappy_identifier, sizeof(snappy_identifier)) == 0)
		return decode_snappy_framed(d);
	return decode_snappy_block(d);
}

static int decode_identity(struct decode *d)
{
	if (d->rest.n > d->limit)
		return decode_too_large(d);
	if (decode_room(d, MAX(d->rest.n, 1)) < 0)
		return -1;
	if (d->rest.n > 0)
		memcpy(d->out->p, d->rest.p, d->rest.n);
	d->out->n = d->rest.n;
	return 0;
}

/* ---- the public functions ---- */

/* A guess that was far too large must not stay charged for as long as the body lives. */
static void give_back_slack(struct decode *d)
{
	struct rcbuf *fit = NULL;

	if (d->out->cap <= SHRINK_ABOVE || d->out->n > d->out->cap / 2)
		return;
	fit = rcbuf_new(d->budget, MAX(d->out->n, 1));
	if (fit == NULL)
		return;
	memcpy(fit->p, d->out->p, d->out->n);
	fit->n = d->out->n;
	rcbuf_unref(d->out);
	d->out = fit;
}

/* The most the output may have: max_out, or what an empty budget has left beside the input. */
static size_t decode_limit(struct bytes in, size_t max_out, const struct budget *budget)
{
	uint64_t room = budget == NULL ? UINT64_MAX : (uint64_t)MAX(budget->limit, 0);

	return (size_t)MIN(max_out, room > in.n ? room - in.n : 0);
}

int content_decode(enum content_coding coding, struct bytes in, size_t max_out,
		   struct budget *budget, struct rcbuf **out, struct err *err)
{
	static int (*const decoders[])(struct decode *) = {
		[CONTENT_IDENTITY] = decode_identity, [CONTENT_GZIP] = decode_gzip,
		[CONTENT_DEFLATE] = decode_deflate,   [CONTENT_ZSTD] = decode_zstd,
		[CONTENT_SNAPPY] = decode_snappy,     [CONTENT_SNAPPY_FRAMED] = decode_snappy,
		[CONTENT_LZ4] = decode_lz4,
	};
	struct err own = ERR_INIT;
	struct decode d = { .coding = coding, .rest = in, .max_out = max_out, .budget = budget };

	*out = NULL;
	d.limit = decode_limit(in, max_out, budget);
	d.err = err ? err : &own; /* decode_deflate reads the kind back */
	if (decoders[coding](&d) < 0) {
		rcbuf_unref(d.out);
		return -1;
	}
	give_back_slack(&d);
	err_clear(err);
	*out = d.out;
	return 0;
}

int content_decode_bounded(enum content_coding coding, struct bytes in,
			   const struct content_bounds *bounds, struct budget *budget,
			   struct rcbuf **out, struct err *err)
{
	uint64_t most = MAX((uint64_t)in.n * bounds->max_ratio, (uint64_t)CONTENT_RATIO_FREE);
	bool is_ratio =
		bounds->max_ratio > 0 && coding != CONTENT_IDENTITY && most < bounds->max_out;
	struct err own = ERR_INIT, *e = err != NULL ? err : &own;
	int rc = content_decode(coding, in, is_ratio ? (size_t)most : bounds->max_out, budget, out,
				e);

	if (rc == 0 || !is_ratio || e->kind != ERR_TOO_LARGE ||
	    decode_limit(in, SIZE_MAX, budget) < most)
		return rc;
	return err_set(e, ERR_TOO_LARGE,
		       "%s body: inflates to more than %u times its %zu bytes, the limit of "
		       "max_decompression_ratio",
		       content_coding_name(coding), bounds->max_ratio, in.n);
}

/* Chunks of 64 KiB, as they are where that is smaller. */
static size_t encode_snappy_framed(struct bytes in, uint8_t *to)
{
	uint8_t *at = to;

	memcpy(at, snappy_identifier, sizeof(snappy_identifier));
	at += sizeof(snappy_identifier);
	while (in.n > 0) {
		size_t n = MIN(in.n, (size_t)SNAPPY_CHUNK), coded = snappy_max_compressed_length(n);
		uint32_t crc = hash_crc32c(0, in.p, n);

		snappy_compress((const char *)in.p, n, (char *)at + 8, &coded);
		at[0] = coded >= n;
		if (at[0] == 1) {
			memcpy(at + 8, in.p, n);
			coded = n;
		}
		at[1] = (uint8_t)(coded + 4);
		at[2] = (uint8_t)((coded + 4) >> 8);
		at[3] = (uint8_t)((coded + 4) >> 16);
		store_le32(at + 4, (crc >> 15 | crc << 17) + 0xa282ead8u);
		at += 8 + coded;
		in.p += n;
		in.n -= n;
	}
	return (size_t)(at - to);
}

/* Room for the worst case, then the real length. */
static int encode_into(enum content_coding coding, int level, struct bytes in, uint8_t *to,
		       size_t room, size_t *n)
{
	switch (coding) {
	case CONTENT_IDENTITY:
		if (in.n > 0)
			memcpy(to, in.p, in.n);
		*n = in.n;
		return 0;
	case CONTENT_GZIP:
		*n = libdeflate_gzip_compress(deflater(level), in.p, in.n, to, room);
		return *n > 0 ? 0 : -1;
	case CONTENT_DEFLATE:
		*n = libdeflate_zlib_compress(deflater(level), in.p, in.n, to, room);
		return *n > 0 ? 0 : -1;
	case CONTENT_ZSTD:
		*n = ZSTD_compressCCtx(zstd_context(), to, room, in.p, in.n, level);
		return ZSTD_isError(*n) ? -1 : 0;
	case CONTENT_SNAPPY:
		*n = room;
		return snappy_compress((const char *)in.p, in.n, (char *)to, n) == SNAPPY_OK ? 0
											     : -1;
	case CONTENT_SNAPPY_FRAMED:
		*n = encode_snappy_framed(in, to);
		return 0;
	case CONTENT_LZ4:
		*n = LZ4F_compressFrame(to, room, in.p, in.n, NULL);
		return LZ4F_isError(*n) ? -1 : 0;
	}
	return -1;
}

static size_t encode_bound(enum content_coding coding, int level, size_t n)
{
	switch (coding) {
	case CONTENT_GZIP:
		return libdeflate_gzip_compress_bound(deflater(level), n);
	case CONTENT_DEFLATE:
		return libdeflate_zlib_compress_bound(deflater(level), n);
	case CONTENT_ZSTD:
		return ZSTD_compressBound(n);
	case CONTENT_SNAPPY:
		return snappy_max_compressed_length(n);
	case CONTENT_SNAPPY_FRAMED:
		return sizeof(snappy_identifier) +
		       (n / SNAPPY_CHUNK + 1) * (8 + snappy_max_compressed_length(SNAPPY_CHUNK));
	case CONTENT_LZ4:
		return LZ4F_compressFrameBound(n, NULL);
	case CONTENT_IDENTITY:
		break;
	}
	return n;
}

int content_encode(enum content_coding coding, int level, struct bytes in, struct buf *out,
		   struct err *err)
{
	size_t room = 0, n = 0;
	uint8_t *to = NULL;

	if (level <= 0)
		level = DEFAULT_LEVEL;
	if (in.p == NULL)
		in.p = (const uint8_t *)"";
	room = encode_bound(coding, level, in.n);
	to = buf_reserve(out, MAX(room, 1));
	if (to == NULL)
		return err_set(err, ERR_TOO_LARGE, "%s: no room for %zu bytes",
			       content_coding_name(coding), room);
	if (encode_into(coding, level, in, to, room, &n) < 0)
		return err_set(err, ERR_INTERNAL, "%s: compressing %zu bytes failed",
			       content_coding_name(coding), in.n);
	out->n += n;
	return 0;
}
