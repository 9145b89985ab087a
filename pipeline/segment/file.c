/* SPDX-License-Identifier: Apache-2.0
 *
 * file.c - see file.h.
 *
 * DESIGN: a scan keeps one window of the file in memory and only ever trusts a record header
 * whose CRC, started with the segment's salt, is right: a length is never believed, and memory
 * never taken, on the word of damaged bytes. The window moves by whole chunks; a record that
 * lies across its end is read again with the next chunk.
 * LIMITS: the window is 512 KiB, larger only while a larger record passes (<= 64 MiB and <=
 * file).
 * SPEC: docs/formats/segment-log.md.
 */
#include "pipeline/segment/file.h"

#include "base/hash.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

enum { WINDOW = 512 * 1024, AHEAD = 4 * 1024 * 1024, PAGE = 4096, ALIGN = 8 };

static const uint8_t header_magic[8] = "SPMLSEG1";
static const uint8_t record_magic[4] = "SpR1";
static const uint8_t end_magic[4] = "SpE1";

const struct segment_io segment_io_real = {
	.pwritev = pwritev,
	.fdatasync = fdatasync,
	.fallocate = fallocate,
	.ftruncate = ftruncate,
};

void segment_header_encode(const struct segment_header *h, uint8_t out[SEGMENT_HEADER_SIZE])
{
	memset(out, 0, SEGMENT_HEADER_SIZE);
	memcpy(out, header_magic, 8);
	store_le32(out + 8, 1);
	store_le32(out + 12, SEGMENT_HEADER_SIZE);
	memcpy(out + 16, h->id, SEGMENT_ID_SIZE);
	store_le64(out + 32, h->number);
	store_le64(out + 40, h->base);
	store_le64(out + 48, h->prev_end);
	store_le32(out + 60, hash_crc32c(0, out, 60));
}

int segment_header_decode(const uint8_t in[SEGMENT_HEADER_SIZE], struct segment_header *h)
{
	if (memcmp(in, header_magic, 8) != 0 || load_le32(in + 8) != 1 ||
	    load_le32(in + 12) != SEGMENT_HEADER_SIZE ||
	    load_le32(in + 60) != hash_crc32c(0, in, 60))
		return -1;
	memcpy(h->id, in + 16, SEGMENT_ID_SIZE);
	h->number = load_le64(in + 32);
	h->base = load_le64(in + 40);
	h->prev_end = load_le64(in + 48);
	return h->base == 0 || h->prev_end > h->base ? -1 : 0;
}

uint32_t segment_salt(const uint8_t id[SEGMENT_ID_SIZE], uint64_t number)
{
	uint8_t b[SEGMENT_ID_SIZE + 8];

	memcpy(b, id, SEGMENT_ID_SIZE);
	store_le64(b + SEGMENT_ID_SIZE, number);
	return hash_crc32c(0, b, sizeof(b));
}

uint64_t segment_record_size(uint64_t length)
{
	return (SEGMENT_FRAME_SIZE + length + ALIGN - 1) / ALIGN * ALIGN;
}

static void frame_encode(const uint8_t magic[4], uint32_t salt, const struct segment_frame *f,
			 uint8_t out[SEGMENT_FRAME_SIZE])
{
	memcpy(out, magic, 4);
	store_le32(out + 4, f->length);
	store_le64(out + 8, f->lsn);
	store_le32(out + 16, f->payload_crc);
	store_le32(out + 20, hash_crc32c(salt, out, 20));
}

void segment_frame_encode(uint32_t salt, uint32_t length, uint64_t lsn, uint32_t payload_crc,
			  uint8_t out[SEGMENT_FRAME_SIZE])
{
	struct segment_frame f = { .length = length, .lsn = lsn, .payload_crc = payload_crc };

	frame_encode(record_magic, salt, &f, out);
}

void segment_end_encode(uint32_t salt, uint64_t end, uint8_t out[SEGMENT_FRAME_SIZE])
{
	struct segment_frame f = { .is_end = true, .lsn = end };

	frame_encode(end_magic, salt, &f, out);
}

int segment_frame_decode(uint32_t salt, const uint8_t in[SEGMENT_FRAME_SIZE],
			 struct segment_frame *f)
{
	f->is_end = memcmp(in, end_magic, 4) == 0;
	if (!f->is_end && memcmp(in, record_magic, 4) != 0)
		return -1;
	if (load_le32(in + 20) != hash_crc32c(salt, in, 20))
		return -1;
	f->length = load_le32(in + 4);
	f->lsn = load_le64(in + 8);
	f->payload_crc = load_le32(in + 16);
	return f->length > SEGMENT_PAYLOAD_MAX || (f->is_end && f->length != 0) ? -1 : 0;
}

/* ---- the window ---- */

static void window_free(struct segment_scan *s)
{
	free(s->window);
	budget_release(s->budget, s->window_cap);
	s->window = NULL;
	s->window_cap = s->window_n = 0;
}

/* Memory for n bytes. What a large record took is given back with the next small one. */
static void window_size(struct segment_scan *s, size_t n)
{
	size_t cap = MAX(n, (size_t)WINDOW);

	if (s->window_cap >= cap && s->window_cap <= 2 * cap)
		return;
	window_free(s);
	s->window = xmalloc(cap);
	s->window_cap = cap;
	budget_force(s->budget, cap);
}

/* pread in full; a page the disk refuses becomes zeros. Short only at the end of the file. */
static size_t read_pages(struct segment_scan *s, uint8_t *to, size_t n, uint64_t off)
{
	size_t got = 0, step = n;

	while (got < n) {
		size_t ask = MIN(step, n - got);
		ssize_t r = pread(s->fd, to + got, ask, (off_t)(off + got));

		if (r == 0)
			break;
		if (r > 0) {
			got += (size_t)r;
		} else if (errno != EINTR && step > PAGE) {
			step = PAGE - (off + got) % PAGE;
		} else if (errno != EINTR) {
			memset(to + got, 0, ask);
			got += ask;
			s->io_errors++;
			s->is_spotty = true;
			step = PAGE;
		}
	}
	return got;
}

/* The disk works on what comes next while this is being used. Each byte is asked for once, because
 * the kernel looks up again what it has already (measured: a quarter of a drain). */
static void read_ahead(struct segment_scan *s)
{
	uint64_t end = s->window_off + s->window_n;

	if (end + AHEAD / 2 <= s->ahead_to || s->ahead_to >= s->limit)
		return;
	s->ahead_to = MAX(s->ahead_to, end);
	posix_fadvise(s->fd, (off_t)s->ahead_to, AHEAD, POSIX_FADV_WILLNEED);
	s->ahead_to += AHEAD;
}

/* Make [off, off + n) of the file readable; NULL when the limit or the file ends before. */
static const uint8_t *window_at(struct segment_scan *s, uint64_t off, size_t n)
{
	size_t want;

	if (off > s->limit || n > s->limit - off)
		return NULL;
	if (off >= s->window_off && off + n <= s->window_off + s->window_n)
		return s->window + (off - s->window_off);
	window_size(s, n);
	want = (size_t)MIN((uint64_t)s->window_cap, s->limit - off);
	s->window_off = off;
	s->is_spotty = false;
	s->window_n = read_pages(s, s->window, want, off);
	read_ahead(s);
	return s->window_n >= n ? s->window : NULL;
}

/* ---- the walk ---- */

/* A header at this place that can be believed: right CRC, an LSN that may come now, inside the
 * file. */
static bool frame_at(struct segment_scan *s, uint64_t off, struct segment_frame *f)
{
	const uint8_t *p = window_at(s, off, SEGMENT_FRAME_SIZE);

	if (p == NULL || segment_frame_decode(s->salt, p, f) < 0 || f->lsn < s->want)
		return false;
	if (f->is_end)
		return f->lsn <= s->end;
	return f->lsn < s->end && f->length <= s->limit - off - SEGMENT_FRAME_SIZE;
}

/* Step forward to the next believable header; false when there is none. Notes the last byte not
 * 0. */
static bool resync(struct segment_scan *s, struct segment_frame *f)
{
	uint64_t off = s->offset, last = s->offset;
	const uint8_t *p;

	for (; (p = window_at(s, off, ALIGN)) != NULL; off += ALIGN) {
		if (load_le64(p) == 0)
			continue;
		if (frame_at(s, off, f)) {
			s->offset = off;
			return true;
		}
		last = off + ALIGN;
	}
	for (; off < s->limit && (p = window_at(s, off, 1)) != NULL; off++)
		if (*p != 0)
			last = off + 1;
	s->tail_bytes = last - s->offset;
	return false;
}

/* No record follows: all that should is lost, when it is known what should. */
static int nothing_follows(struct segment_scan *s, uint64_t *lost_from)
{
	if (s->end == UINT64_MAX)
		return 0;
	*lost_from = s->want;
	s->want = s->end;
	return -1;
}

static int take_record(struct segment_scan *s, const struct segment_frame *f,
		       struct segment_scan_record *rec, uint64_t *lost_from)
{
	const uint8_t *p = window_at(s, s->offset, SEGMENT_FRAME_SIZE + (size_t)f->length);

	rec->lsn = f->lsn;
	rec->offset = s->offset;
	s->want = f->lsn + 1;
	s->offset += segment_record_size(f->length);
	if (p == NULL || hash_crc32c(0, p + SEGMENT_FRAME_SIZE, f->length) != f->payload_crc) {
		*lost_from = f->lsn;
		return -1;
	}
	rec->payload = (struct bytes){ p + SEGMENT_FRAME_SIZE, f->length };
	return 1;
}

int segment_scan_next(struct segment_scan *s, struct segment_scan_record *rec, uint64_t *lost_from)
{
	struct segment_frame f = { 0 };

	if (s->want >= s->end)
		return 0;
	if (!frame_at(s, s->offset, &f) && !resync(s, &f))
		return nothing_follows(s, lost_from);
	if (f.is_end) {
		s->is_ended = true;
		if (s->end == UINT64_MAX)
			s->end = f.lsn;
		return s->want < s->end ? nothing_follows(s, lost_from) : 0;
	}
	if (f.lsn > s->want) {
		*lost_from = s->want;
		s->want = f.lsn;
		return -1;
	}
	return take_record(s, &f, rec, lost_from);
}

void segment_scan_reset(struct segment_scan *s, int fd, uint32_t salt, uint64_t limit,
			uint64_t want, uint64_t end)
{
	s->fd = fd;
	s->salt = salt;
	s->offset = SEGMENT_HEADER_SIZE;
	s->limit = limit;
	s->want = want;
	s->end = end;
	s->is_ended = false;
	s->tail_bytes = s->io_errors = 0;
	s->window_off = s->window_n = s->ahead_to = 0;
	s->is_spotty = false;
}

void segment_scan_init(struct segment_scan *s, int fd, uint32_t salt, uint64_t limit, uint64_t want,
		       uint64_t end, struct budget *budget)
{
	memset(s, 0, sizeof(*s));
	s->budget = budget;
	segment_scan_reset(s, fd, salt, limit, want, end);
}

void segment_scan_back(struct segment_scan *s, const struct segment_scan *before)
{
	s->offset = before->offset;
	s->want = before->want;
	s->end = before->end;
	s->is_ended = before->is_ended;
	s->window_n = 0;
	s->is_spotty = false;
}

void segment_scan_rest(struct segment_scan *s)
{
	if (s->window_cap > WINDOW)
		window_free(s);
}

void segment_scan_fini(struct segment_scan *s)
{
	if (s != NULL)
		window_free(s);
}
