/* SPDX-License-Identifier: Apache-2.0
 *
 * snappy_frames.c - see snappy_frames.h. Snappy blocks go through libsnappy; S2 blocks through the
 * decoder below, because no packaged C library reads them.
 */
#include "blocks/snappy_frames.h"

#include "base/hash.h"

#include <snappy-c.h>

enum {
	CHUNK_COMPRESSED = 0x00,
	CHUNK_PLAIN = 0x01,
	CHUNK_LAST_UNSKIPPABLE = 0x7f,
	CHUNK_STREAM_ID = 0xff,
	BLOCK_SNAPPY = 65536,
	BLOCK_S2 = 4 * 1024 * 1024,
	HEAD = 4,
	CRC = 4,
};

static const uint8_t stream_id[10] = { 0xff, 6, 0, 0, 's', 'N', 'a', 'P', 'p', 'Y' };

static uint32_t masked_crc(const uint8_t *p, size_t n)
{
	uint32_t c = hash_crc32c(0, p, n);

	return (c >> 15 | c << 17) + 0xa282ead8u;
}

static void store_head(uint8_t *to, uint8_t type, size_t n)
{
	store_le32(to, (uint32_t)n << 8 | type);
}

/* One chunk of at most 64 KiB at `to`, which has room for the worst case. Returns its size. */
static size_t encode_chunk(struct bytes in, uint8_t *to)
{
	size_t n = snappy_max_compressed_length(in.n);
	uint8_t type = CHUNK_COMPRESSED;

	if (snappy_compress((const char *)in.p, in.n, (char *)to + HEAD + CRC, &n) != SNAPPY_OK ||
	    n >= in.n - in.n / 8) {
		type = CHUNK_PLAIN;
		n = in.n;
		memcpy(to + HEAD + CRC, in.p, n);
	}
	store_head(to, type, n + CRC);
	store_le32(to + HEAD, masked_crc(in.p, in.n));
	return HEAD + CRC + n;
}

int snappy_frames_encode(struct bytes in, struct buf *out, struct err *err)
{
	const size_t worst = HEAD + CRC + snappy_max_compressed_length(BLOCK_SNAPPY);
	bool fits = buf_add(out, stream_id, sizeof(stream_id)) == 0;

	while (fits && in.n > 0) {
		struct bytes part = { in.p, MIN(in.n, BLOCK_SNAPPY) };
		uint8_t *to = buf_reserve(out, worst);

		fits = to != NULL;
		if (fits)
			out->n += encode_chunk(part, to);
		in.p += part.n;
		in.n -= part.n;
	}
	if (!fits)
		return err_set(err, ERR_TOO_LARGE, "snappy: output limit of %zu bytes", out->max);
	return 0;
}

/* ---- S2 blocks ---- */

/* Take `n` (1..4) little-endian bytes. */
static int take_le(struct bytes *in, size_t n, size_t *v)
{
	if (in->n < n)
		return -1;
	*v = 0;
	for (size_t i = 0; i < n; i++)
		*v |= (size_t)in->p[i] << 8 * i;
	in->p += n;
	in->n -= n;
	return 0;
}

static int take_literal_len(struct bytes *in, uint8_t tag, size_t *len)
{
	size_t code = tag >> 2;

	if (code < 60)
		*len = code;
	else if (take_le(in, code - 59, len) < 0)
		return -1;
	(*len)++;
	return 0;
}

/* Length of a repeat: the code's escapes, then + 4. */
static int take_repeat_len(struct bytes *in, size_t code, size_t *len)
{
	static const struct {
		size_t bytes, plus;
	} escape[3] = { { 1, 4 }, { 2, 256 }, { 3, 65536 } };

	*len = code;
	if (code >= 5) {
		if (take_le(in, escape[code - 5].bytes, len) < 0)
			return -1;
		*len += escape[code - 5].plus;
	}
	*len += 4;
	return 0;
}

/* Length and distance of a copy; *dist keeps its value for a repeat. */
static int take_copy(struct bytes *in, uint8_t tag, size_t *len, size_t *dist)
{
	size_t low = 0;

	switch (tag & 3) {
	case 1:
		if (take_le(in, 1, &low) < 0)
			return -1;
		low |= (size_t)(tag >> 5) << 8;
		if (low == 0)
			return take_repeat_len(in, tag >> 2 & 7, len);
		*len = (tag >> 2 & 7) + 4u;
		break;
	case 2:
		if (take_le(in, 2, &low) < 0)
			return -1;
		*len = (tag >> 2) + 1u;
		break;
	default:
		if (take_le(in, 4, &low) < 0)
			return -1;
		*len = (tag >> 2) + 1u;
	}
	*dist = low;
	return 0;
}

/* Copy inside the output; ranges overlap when dist < len, which repeats the pattern. */
static void copy_match(uint8_t *to, size_t dist, size_t len)
{
	const uint8_t *from = to - dist;

	if (dist >= len) {
		memcpy(to, from, len);
		return;
	}
	for (size_t i = 0; i < len; i++)
		to[i] = from[i];
}

int snappy_frames_s2_block(struct bytes in, uint8_t *to, size_t n)
{
	size_t at = 0, dist = 0, len = 0;

	while (in.n > 0) {
		uint8_t tag = in.p[0];

		in.p++;
		in.n--;
		if ((tag & 3) == 0) {
			if (take_literal_len(&in, tag, &len) < 0 || len > in.n || len > n - at)
				return -1;
			memcpy(to + at, in.p, len);
			in.p += len;
			in.n -= len;
		} else {
			if (take_copy(&in, tag, &len, &dist) < 0)
				return -1;
			if (dist == 0 || dist > at || len > n - at)
				return -1;
			copy_match(to + at, dist, len);
		}
		at += len;
	}
	return at == n ? 0 : -1;
}

/* ---- chunks ---- */

static int take_varint32(struct bytes *in, size_t *v)
{
	uint64_t x = 0;

	for (unsigned shift = 0; shift < 35; shift += 7) {
		uint8_t b = 0;

		if (in->n == 0)
			return -1;
		b = in->p[0];
		in->p++;
		in->n--;
		x |= (uint64_t)(b & 0x7f) << shift;
		if (b < 0x80) {
			*v = (size_t)x;
			return x <= UINT32_MAX ? 0 : -1;
		}
	}
	return -1;
}

struct decoder {
	struct buf *out;
	size_t base; /* out->n at the start */
	size_t max;
	bool allow_s2;
	bool is_s2;
	bool started; /* the stream identifier was seen */
};

/* Where the next n > 0 plain bytes go; NULL past the limit. */
static uint8_t *grow(struct decoder *d, size_t n)
{
	if (n > d->max - (d->out->n - d->base))
		return NULL;
	return buf_reserve(d->out, n);
}

/* Uncompress one block's body to the end of out. 0; -1 damaged; -2 over the limit. */
static int decode_block(struct decoder *d, struct bytes body, size_t *n)
{
	struct bytes rest = body;
	uint8_t *to = NULL;

	/* A few bytes may claim 4 MiB: that is all a block can cost ahead of its bytes. */
	if (take_varint32(&rest, n) < 0 || *n > (d->is_s2 ? BLOCK_S2 : BLOCK_SNAPPY))
		return -1;
	if (*n == 0)
		return rest.n == 0 ? 0 : -1;
	to = grow(d, *n);
	if (to == NULL)
		return -2;
	if (d->is_s2)
		return snappy_frames_s2_block(rest, to, *n);
	return snappy_uncompress((const char *)body.p, body.n, (char *)to, n) == SNAPPY_OK ? 0 : -1;
}

static int decode_plain(struct decoder *d, struct bytes body, size_t *n)
{
	uint8_t *to = NULL;

	*n = body.n;
	if (body.n > (d->is_s2 ? BLOCK_S2 : BLOCK_SNAPPY))
		return -1;
	if (body.n == 0)
		return 0;
	to = grow(d, body.n);
	if (to == NULL)
		return -2;
	memcpy(to, body.p, body.n);
	return 0;
}

static const char *decode_data(struct decoder *d, uint8_t type, struct bytes body)
{
	struct bytes plain = { body.p, body.n };
	size_t n = 0;
	int ret = 0;

	if (!d->started)
		return "data before the stream identifier";
	if (body.n < CRC)
		return "chunk without a checksum";
	plain.p += CRC;
	plain.n -= CRC;
	ret = type == CHUNK_PLAIN ? decode_plain(d, plain, &n) : decode_block(d, plain, &n);
	if (ret == -2)
		return "";
	if (ret < 0)
		return "damaged block";
	if (masked_crc(n ? d->out->p + d->out->n : body.p, n) != load_le32(body.p))
		return "wrong checksum";
	d->out->n += n;
	return NULL;
}

/* What is wrong with the chunk ("" = over the limit), or NULL. */
static const char *decode_chunk(struct decoder *d, uint8_t type, struct bytes body)
{
	if (type == CHUNK_STREAM_ID) {
		d->is_s2 = bytes_eq_str(body, "S2sTwO");
		if (!(d->is_s2 && d->allow_s2) && !bytes_eq_str(body, "sNaPpY"))
			return "unknown stream identifier";
		d->started = true;
		return NULL;
	}
	if (type == CHUNK_COMPRESSED || type == CHUNK_PLAIN)
		return decode_data(d, type, body);
	if (!d->started)
		return "no stream identifier";
	return type <= CHUNK_LAST_UNSKIPPABLE ? "unknown chunk type" : NULL;
}

int snappy_frames_decode(struct bytes in, bool allow_s2, size_t max, struct buf *out,
			 struct err *err)
{
	struct decoder d = { out, out->n, max, allow_s2, false, false };
	const char *name = allow_s2 ? "s2" : "snappy", *bad = NULL;
	size_t at = 0;

	while (at < in.n) {
		size_t n = 0;

		if (in.n - at < HEAD)
			return err_set(err, ERR_CORRUPT, "%s: cut short at offset %zu", name, at);
		n = load_le32(in.p + at) >> 8;
		if (n > in.n - at - HEAD)
			return err_set(err, ERR_CORRUPT,
				       "%s: chunk at offset %zu runs past the end", name, at);
		bad = decode_chunk(&d, in.p[at], (struct bytes){ in.p + at + HEAD, n });
		if (bad != NULL && bad[0] == '\0')
			return err_set(err, ERR_TOO_LARGE,
				       "%s: inflates to more than the limit of %zu bytes", name,
				       max);
		if (bad != NULL)
			return err_set(err, ERR_CORRUPT, "%s: chunk at offset %zu: %s", name, at,
				       bad);
		at += HEAD + n;
	}
	if (!d.started)
		return err_set(err, ERR_CORRUPT, "%s: stream is empty", name);
	return 0;
}
