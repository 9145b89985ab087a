/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_segment_log.c - damage to a segment must never crash, hang, invent a record or miscount.
 *
 * Input: a mode byte modulo 8, then
 *   0: the raw bytes of a segment file, scanned as they are;
 *   1-6: n, n record lengths (bytes), then damage (u16 offset, u8 kind, u8 value each): a scan
 *      must give back originals only, in order, and records + lost = all when the end is known;
 *   7: the same, but a whole log is opened over the file, drained, appended to, and opened again.
 */
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "pipeline/segment/dir.h"
#include "pipeline/segment/file.h"
#include "pipeline/segment/reader.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { IMAGE_MAX = 64 * 1024, RECORDS_MAX = 100 };

static const uint8_t id[SEGMENT_ID_SIZE] = { 0x6b, 1, 2, 3, 4, 5, 0x46, 7, 0x88, 9, 10, 11, 12 };
static const char id_text[] = "6b010203-0405-4607-8809-0a0b0c000000\n";

struct image {
	uint8_t bytes[IMAGE_MAX];
	size_t n, n_records;
	bool has_end;
};

static void payload(uint64_t lsn, size_t n, uint8_t *out)
{
	for (size_t i = 0; i < n; i++)
		out[i] = (uint8_t)(lsn * 31 + i * 7);
}

static void build(struct image *im, struct bytes *in)
{
	struct segment_header h = { .number = 1, .base = 1, .prev_end = 1 };
	uint32_t salt = segment_salt(id, 1);
	size_t count = in->n > 0 ? in->p[0] % RECORDS_MAX : 0;

	memset(im, 0, sizeof(*im));
	memcpy(h.id, id, sizeof(id));
	segment_header_encode(&h, im->bytes);
	im->n = SEGMENT_HEADER_SIZE;
	for (size_t i = 1; i <= count && i < in->n; i++) {
		uint32_t len = in->p[i];
		uint8_t *p = im->bytes + im->n;

		im->n_records++;
		payload(i, len, p + SEGMENT_FRAME_SIZE);
		segment_frame_encode(salt, len, i, hash_crc32c(0, p + SEGMENT_FRAME_SIZE, len), p);
		im->n += segment_record_size(len);
	}
	count = MIN(count + 1, in->n);
	in->p += count;
	in->n -= count;
	im->has_end = count % 2;
	if (im->has_end) {
		segment_end_encode(salt, im->n_records + 1, im->bytes + im->n);
		im->n += SEGMENT_FRAME_SIZE;
	}
	im->n += count % 7 * 512;	/* preallocated tail */
}

static void harm(struct image *im, struct bytes in)
{
	for (; in.n >= 4; in.p += 4, in.n -= 4) {
		size_t at = load_le16(in.p) % im->n;

		if (in.p[2] % 3 == 0)
			im->bytes[at] ^= in.p[3];
		else if (in.p[2] % 3 == 1)
			memset(im->bytes + at, 0, MIN((size_t)in.p[3] * 16, im->n - at));
		else
			im->n = MAX(im->n - MIN((size_t)in.p[3] * 4, im->n), (size_t)1);
	}
}

/* Every record is the original of its LSN. */
static void check_record(uint64_t lsn, struct bytes b, uint64_t *last)
{
	uint8_t want[256];

	assert(lsn > *last && b.n < sizeof(want));
	*last = lsn;
	payload(lsn, b.n, want);
	assert(b.n == 0 || memcmp(want, b.p, b.n) == 0);
}

static void scan(const struct image *im, int fd, bool is_made, uint64_t end)
{
	struct segment_scan_record rec;
	struct segment_scan s;
	uint64_t from = 0, last = 0, n = 0, lost = 0, rounds = 0;
	int rc;

	segment_scan_init(&s, fd, segment_salt(id, 1), im->n, 1, end, NULL);
	while ((rc = segment_scan_next(&s, &rec, &from)) != 0) {
		assert(++rounds < 100000);
		assert(rc > 0 || from < s.want);
		lost += rc < 0 ? s.want - from : 0;
		n += rc > 0;
		if (rc > 0 && is_made)
			check_record(rec.lsn, rec.payload, &last);
	}
	if (is_made && end != UINT64_MAX)
		assert(n + lost == end - 1);
	if (is_made)
		assert(n <= im->n_records);
	segment_scan_fini(&s);
}

static void done(struct segment_append *a)
{
	assert(a->err.kind == ERR_NONE);
}

static void put(const char *dir, const char *name, const void *p, size_t n)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert(fd >= 0 && write(fd, p, n) == (ssize_t)n);
	close(fd);
}

static void clean(const char *dir)
{
	DIR *d = opendir(dir);
	const struct dirent *e;
	char path[400];

	while (d != NULL && (e = readdir(d)) != NULL) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		if (unlink(path) < 0)
			clean(path);
	}
	if (d != NULL)
		closedir(d);
	rmdir(dir);
}

static void whole_log(const struct image *im)
{
	char dir[] = "/dev/shm/fuzz_segment.XXXXXX";
	struct segment_log_options o = { .dir = dir, .segment_bytes = 64 * KIB };
	struct segment_log_found found;
	struct segment_append a;
	uint64_t next = 1;

	assert(mkdtemp(dir) != NULL);
	put(dir, "id", id_text, sizeof(id_text) - 1);
	put(dir, "00000000000000000001.segment", im->bytes, im->n);
	for (int i = 0; i < 2; i++) {
		struct segment_log *log;
		struct segment_reader *r;
		struct segment_record rec;
		uint64_t last = 0;
		int rc;

		o.verify = i > 0;
		log = segment_log_open(&o, &found, NULL);
		assert(log != NULL && found.next_lsn >= next);
		r = segment_reader_new(log, 0);
		while ((rc = segment_reader_next(r, &rec, NULL)) != 0)
			if (rc > 0 && i == 0)
				check_record(rec.lsn, rec.payload, &last);
		segment_reader_free(r);
		memset(&a, 0, sizeof(a));
		segment_append_bytes(&a, BYTES_LIT("one more"));
		a.done = done;
		assert(segment_log_append(log, &a, NULL) == 0);
		segment_log_flush(log, NULL);
		assert(a.lsn >= found.next_lsn);
		next = a.lsn + 1;
		segment_log_close(log);
	}
	clean(dir);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct image im;
	struct bytes in = { data + 1, size - 1 };
	int fd;

	if (size < 2 || size > IMAGE_MAX)
		return 0;
	log_configure(LOG_ERROR + 1, LOG_CONSOLE);
	if (data[0] % 8 != 0) {
		build(&im, &in);
		harm(&im, in);
	} else {
		memcpy(im.bytes, in.p, in.n);
		im.n = in.n;
	}
	if (data[0] % 8 == 7 && access("/dev/shm", W_OK) == 0) {
		whole_log(&im);
		return 0;
	}
	fd = memfd_create("segment", MFD_CLOEXEC);
	assert(fd >= 0 && write(fd, im.bytes, im.n) == (ssize_t)im.n);
	scan(&im, fd, data[0] % 8 != 0, UINT64_MAX);
	if (data[0] % 8 != 0)
		scan(&im, fd, true, im.n_records + 1);
	close(fd);
	return 0;
}
