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

/* A file found in the folder. */
struct candidate {
	struct segment_header header;
	bool has_header, is_foreign;
};

struct check {
	struct segment_dir dir;
	struct segment_numbers numbers;
	struct candidate *c;
	struct segment_check_report *out;
	segment_check_record *record; /* may be NULL */
	void *arg;
	uint64_t end;  /* of the segment before that opening would keep; 0: none */
	bool has_hole; /* it would move away what lies behind that */
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

static void read_header(const struct check *c, size_t i)
{
	uint8_t bytes[SEGMENT_HEADER_SIZE];
	int fd = segment_dir_open_segment(&c->dir, c->numbers.v[i], O_RDONLY);

	if (fd < 0)
		return;
	c->c[i].has_header = pread(fd, bytes, sizeof(bytes), 0) == (ssize_t)sizeof(bytes) &&
			     segment_header_decode(bytes, &c->c[i].header) == 0;
	close(fd);
}

/* Where the segment ends, as the next one says that opening would keep; UINT64_MAX: not known. */
static uint64_t known_end(const struct check *c, size_t i)
{
	size_t k = i + 1;

	while (k < c->numbers.n && c->c[k].is_foreign)
		k++;
	return k < c->numbers.n && c->c[k].has_header ? c->c[k].header.prev_end : UINT64_MAX;
}

/* Of records [from, to) those that somebody still wants. */
static uint64_t wanted(const struct check *c, uint64_t from, uint64_t to)
{
	from = MAX(from, c->dir.low_water);
	return from < to ? to - from : 0;
}

/* What a scan told, besides the line. */
struct scanned {
	uint64_t lost; /* wanted records */
	bool is_ended; /* by an end record */
};

/* `places`: a record must have come before what is missing counts. */
static void scan_file(struct check *c, int fd, uint64_t number, uint64_t end, bool places,
		      struct segment_check_line *l, struct scanned *out)
{
	struct segment_scan_record rec;
	struct segment_scan s;
	uint64_t from = 0, lost = 0, n_wanted = 0, good_end = SEGMENT_HEADER_SIZE, first_lost = 0;
	int rc;

	l->end = l->base;
	segment_scan_init(&s, fd, segment_salt(c->dir.id, number), l->bytes, l->base, end, NULL);
	while ((rc = segment_scan_next(&s, &rec, &from)) != 0) {
		if (rc < 0) {
			first_lost = first_lost ? first_lost : from;
			lost += s.want - from;
			n_wanted += l->records > 0 || !places ? wanted(c, from, s.want) : 0;
			continue;
		}
		l->records++;
		if (c->record != NULL && rec.lsn >= c->dir.low_water)
			c->record(c->arg, rec.lsn, rec.payload);
		l->end = s.want;
		l->lost = lost;
		l->first_lost = first_lost;
		out->lost = n_wanted;
		good_end = s.offset;
	}
	if (s.end != UINT64_MAX) {
		l->end = s.end;
		l->lost = lost;
		l->first_lost = first_lost;
		out->lost = n_wanted;
	} else if (s.offset + s.tail_bytes > good_end) {
		l->torn_bytes = s.offset + s.tail_bytes - good_end;
	}
	out->is_ended = s.is_ended;
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

/* Opening would move it away, and count what it held when it knows that from its neighbours. */
static void leave_out(struct check *c, struct segment_check_line *l,
		      enum segment_check_verdict verdict)
{
	l->verdict = verdict;
	c->has_hole = true;
}

/* As segment/recover.c takes a segment in. */
static void check_file(struct check *c, size_t i, int fd, struct segment_check_line *l)
{
	const struct candidate *it = &c->c[i];
	uint64_t low = c->dir.low_water, before = MAX(c->end, MAX(low, UINT64_C(1)));
	bool is_placed = c->end > 0 || low > 0 || c->numbers.v[0] == 1;
	uint64_t end = known_end(c, i);
	struct scanned found = { 0 };

	l->base = it->has_header ? it->header.base : before;
	if (it->is_foreign || (it->has_header && it->header.base < c->end)) {
		leave_out(c, l, SEGMENT_FOREIGN);
		return;
	}
	if (it->has_header && c->has_hole && is_placed && it->header.prev_end > before)
		c->out->lost += it->header.prev_end - before;
	if (end < l->base)
		end = UINT64_MAX;
	scan_file(c, fd, c->numbers.v[i], end, !it->has_header && !is_placed, l, &found);
	l->verdict = judge(l, it->has_header);
	if (!it->has_header && l->records == 0) {
		c->has_hole |= l->verdict != SEGMENT_GOOD;
		return;
	}
	c->out->lost += found.lost;
	c->end = MAX(l->end, l->base);
	c->has_hole = false;
}

static uint64_t file_size(const struct check *c, size_t i)
{
	char name[SEGMENT_NAME_SIZE];
	struct stat st;

	segment_dir_name(c->numbers.v[i], name);
	return fstatat(c->dir.fd, name, &st, 0) == 0 ? (uint64_t)st.st_size : 0;
}

static void check_one(struct check *c, size_t i, struct segment_check_line *l)
{
	int fd = segment_dir_open_segment(&c->dir, c->numbers.v[i], O_RDONLY);

	l->verdict = SEGMENT_UNREADABLE;
	if (fd < 0)
		return;
	l->bytes = file_size(c, i);
	check_file(c, i, fd, l);
	close(fd);
}

static void add_up(struct check *c, const struct segment_check_line *l)
{
	struct segment_check_report *out = c->out;

	out->segments++;
	out->bytes += l->bytes;
	out->unreadable += l->verdict == SEGMENT_UNREADABLE || l->verdict == SEGMENT_FOREIGN;
	out->records += l->records;
	out->torn_bytes += l->torn_bytes;
	out->next_lsn = MAX(out->next_lsn, c->end);
}

/* As opening the log would: when no segment agrees with the file `id`, it is the file that is
 * wrong. */
static void settle_id(struct check *c)
{
	struct segment_dir *dir = &c->dir;
	const uint8_t *id = NULL;
	bool agrees = false;

	for (size_t i = 0; i < c->numbers.n && !agrees; i++) {
		const struct candidate *it = &c->c[i];

		if (!it->has_header || it->header.number != c->numbers.v[i])
			continue;
		agrees = dir->has_id && memcmp(it->header.id, dir->id, sizeof(dir->id)) == 0;
		id = id ? id : it->header.id;
	}
	c->out->id_damaged = !agrees && (id != NULL || !dir->has_id);
	if (!agrees && id != NULL)
		segment_dir_take_id(dir, id);
	for (size_t i = 0; i < c->numbers.n; i++) {
		struct candidate *it = &c->c[i];
		bool is_ours = it->header.number == c->numbers.v[i] &&
			       memcmp(it->header.id, dir->id, sizeof(dir->id)) == 0;

		it->is_foreign = it->has_header && !is_ours;
	}
}

static void look_at_all(struct check *c, void (*line)(void *arg, const struct segment_check_line *))
{
	char name[SEGMENT_NAME_SIZE];

	for (size_t i = 0; i < c->numbers.n; i++) {
		struct segment_check_line l = { .name = name };

		segment_dir_name(c->numbers.v[i], name);
		check_one(c, i, &l);
		add_up(c, &l);
		if (line != NULL)
			line(c->arg, &l);
	}
}

/* The folder, its files, and their headers. */
static int look(struct check *c, const char *dir, struct err *err)
{
	if (segment_dir_open(&c->dir, dir, false, err) < 0 ||
	    segment_dir_list(&c->dir, &c->numbers, err) < 0)
		return -1;
	snprintf(c->out->id, sizeof(c->out->id), "%s", c->dir.id_text);
	c->c = xcalloc(c->numbers.n + 1, sizeof(*c->c));
	for (size_t i = 0; i < c->numbers.n; i++)
		read_header(c, i);
	settle_id(c);
	c->out->low_water = c->dir.low_water;
	c->out->next_lsn = MAX(c->out->low_water, UINT64_C(1));
	return 0;
}

static void check_fini(struct check *c)
{
	free(c->c);
	free(c->numbers.v);
	segment_dir_close(&c->dir);
}

int segment_check(const char *dir, void (*line)(void *arg, const struct segment_check_line *l),
		  segment_check_record *record, void *arg, struct segment_check_report *out,
		  struct err *err)
{
	struct check c = { .out = out, .record = record, .arg = arg };
	int ret;

	memset(out, 0, sizeof(*out));
	ret = look(&c, dir, err);
	if (ret == 0)
		look_at_all(&c, line);
	check_fini(&c);
	return ret;
}

int segment_check_brief(const char *dir, uint64_t *n_records, uint64_t *n_bytes, struct err *err)
{
	struct segment_check_report report = { 0 };
	struct check c = { .out = &report };
	uint64_t first = UINT64_MAX;
	int ret = look(&c, dir, err);

	*n_records = *n_bytes = 0;
	for (size_t i = 0; ret == 0 && i < c.numbers.n; i++) {
		struct segment_check_line l = { 0 };

		if (c.c[i].has_header && !c.c[i].is_foreign)
			first = MIN(first, c.c[i].header.base);
		if (i + 1 == c.numbers.n)
			check_one(&c, i, &l);
		else
			l.bytes = file_size(&c, i);
		*n_bytes += l.bytes;
	}
	first = MAX(first, c.dir.low_water);
	*n_records = c.end > first ? c.end - first : 0;
	check_fini(&c);
	return ret;
}
