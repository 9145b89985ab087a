/* SPDX-License-Identifier: Apache-2.0
 *
 * check.c - see check.h.
 *
 * DESIGN: reads every byte, one segment after the other, in the same walk (segment_scan) that
 * readers use, but tells rather than moves or cuts. What an end of a segment should be comes
 * from its successor's header.
 * OWNERSHIP, THREADS: one thread, holds one file at a time.
 * LIMITS: memory as segment_scan's window.
 * SPEC: docs/formats/segment-log.md.
 */
#include "pipeline/segment/check.h"

#include "base/mem.h"
#include "pipeline/segment/dir.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

struct check {
	struct segment_dir dir;
	struct segment_numbers numbers;
	struct segment_check_report *out;
	segment_check_record *record; /* may be NULL */
	void *arg;
	uint64_t end;		/* of the segment before */
};

static const char *const verdict_names[] = {
	[SEGMENT_GOOD] = "good",
	[SEGMENT_DAMAGED] = "damaged",
	[SEGMENT_TORN] = "torn tail",
	[SEGMENT_NO_HEADER] = "header damaged",
	[SEGMENT_FOREIGN] = "belongs to another log or place",
	[SEGMENT_UNREADABLE] = "unreadable",
};

const char *segment_check_verdict_name(enum segment_check_verdict v)
{
	return (size_t)v < COUNT_OF(verdict_names) ? verdict_names[v] : "unknown";
}

/* The header of the i-th segment: 1 good, 0 not. */
static bool read_header(const struct check *c, size_t i, struct segment_header *h)
{
	uint8_t bytes[SEGMENT_HEADER_SIZE];
	bool good;
	int fd;

	if (i >= c->numbers.n)
		return false;
	fd = segment_dir_open_segment(&c->dir, c->numbers.v[i], O_RDONLY);
	if (fd < 0)
		return false;
	good = pread(fd, bytes, sizeof(bytes), 0) == (ssize_t)sizeof(bytes) &&
	       segment_header_decode(bytes, h) == 0;
	close(fd);
	return good;
}

static void scan_file(struct check *c, int fd, uint64_t number, uint64_t want, uint64_t end,
		      struct segment_check_line *l)
{
	struct segment_scan_record rec;
	struct segment_scan s;
	uint64_t from = 0, lost = 0, good_end = SEGMENT_HEADER_SIZE, first_lost = 0;
	int rc;

	l->end = want;
	segment_scan_init(&s, fd, segment_salt(c->dir.id, number), l->bytes, want, end, NULL);
	while ((rc = segment_scan_next(&s, &rec, &from)) != 0) {
		if (rc < 0) {
			first_lost = first_lost ? first_lost : from;
			lost += s.want - from;
			continue;
		}
		l->records++;
		if (c->record != NULL && rec.lsn >= c->dir.low_water)
			c->record(c->arg, rec.lsn, rec.payload);
		l->end = s.want;
		l->lost = lost;
		l->first_lost = first_lost;
		good_end = s.offset;
	}
	if (s.end != UINT64_MAX) {
		l->end = s.end;
		l->lost = lost;
		l->first_lost = first_lost;
	} else if (s.offset + s.tail_bytes > good_end) {
		l->torn_bytes = s.offset + s.tail_bytes - good_end;
	}
	segment_scan_fini(&s);
}

static enum segment_check_verdict judge(const struct segment_check_line *l, bool has_header)
{
	if (!has_header && l->records == 0)
		return l->torn_bytes == 0 && l->lost == 0 ? SEGMENT_GOOD : SEGMENT_UNREADABLE;
	if (l->lost > 0)
		return SEGMENT_DAMAGED;
	if (!has_header)
		return SEGMENT_NO_HEADER;
	return l->torn_bytes > 0 ? SEGMENT_TORN : SEGMENT_GOOD;
}

static void check_one(struct check *c, size_t i, struct segment_check_line *l)
{
	struct segment_header h = { 0 }, next = { 0 };
	bool has_header = read_header(c, i, &h);
	uint64_t number = c->numbers.v[i], end = UINT64_MAX;
	int fd = segment_dir_open_segment(&c->dir, number, O_RDONLY);
	struct stat st;

	l->verdict = SEGMENT_UNREADABLE;
	if (fd < 0)
		return;
	if (fstat(fd, &st) == 0)
		l->bytes = (uint64_t)st.st_size;
	if (has_header && !c->dir.has_id) {
		memcpy(c->dir.id, h.id, sizeof(h.id));
		c->dir.has_id = true;
	}
	l->base = has_header ? h.base : MAX(c->end, UINT64_C(1));
	if (has_header && (memcmp(h.id, c->dir.id, sizeof(h.id)) != 0 || h.number != number)) {
		l->verdict = SEGMENT_FOREIGN;
	} else {
		if (read_header(c, i + 1, &next) && next.prev_end >= l->base &&
		    memcmp(next.id, c->dir.id, sizeof(next.id)) == 0)
			end = next.prev_end;
		scan_file(c, fd, number, l->base, end, l);
		l->verdict = judge(l, has_header);
	}
	close(fd);
}

static void add_up(struct check *c, const struct segment_check_line *l)
{
	struct segment_check_report *out = c->out;

	out->segments++;
	out->bytes += l->bytes;
	out->unreadable += l->verdict == SEGMENT_UNREADABLE || l->verdict == SEGMENT_FOREIGN;
	out->records += l->records;
	out->lost += l->lost;
	out->torn_bytes += l->torn_bytes;
	c->end = MAX(c->end, l->end);
	out->next_lsn = MAX(out->next_lsn, c->end);
}

/* As opening the log would: when no segment agrees with the file `id`, it is the file that is
 * wrong. */
static void settle_id(struct check *c)
{
	struct segment_header h;
	bool has_header = false;

	for (size_t i = 0; i < c->numbers.n && c->dir.has_id; i++) {
		if (!read_header(c, i, &h) || h.number != c->numbers.v[i])
			continue;
		has_header = true;
		if (memcmp(h.id, c->dir.id, sizeof(h.id)) == 0)
			return;
	}
	c->out->id_damaged = has_header || !c->dir.has_id;
	c->dir.has_id &= !has_header;
}

int segment_check(const char *dir, void (*line)(void *arg, const struct segment_check_line *l),
		  segment_check_record *record, void *arg, struct segment_check_report *out,
		  struct err *err)
{
	struct check c = { .out = out, .record = record, .arg = arg };
	char name[SEGMENT_NAME_SIZE];
	int ret = -1;

	memset(out, 0, sizeof(*out));
	if (segment_dir_open(&c.dir, dir, false, err) < 0 ||
	    segment_dir_list(&c.dir, &c.numbers, err) < 0)
		goto out;
	snprintf(out->id, sizeof(out->id), "%s", c.dir.id_text);
	settle_id(&c);
	out->low_water = c.dir.low_water;
	out->next_lsn = MAX(out->low_water, UINT64_C(1));
	for (size_t i = 0; i < c.numbers.n; i++) {
		struct segment_check_line l = { 0 };

		segment_dir_name(c.numbers.v[i], name);
		l.name = name;
		check_one(&c, i, &l);
		add_up(&c, &l);
		if (line != NULL)
			line(arg, &l);
	}
	ret = 0;
out:
	free(c.numbers.v);
	segment_dir_close(&c.dir);
	return ret;
}
