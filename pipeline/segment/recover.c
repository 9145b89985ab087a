/* SPDX-License-Identifier: Apache-2.0
 *
 * recover.c - what segment_log_open does with the files it finds.
 *
 * DESIGN: where a segment ends is written in its successor's header, so only the last segment
 * has to be read: opening a backlog of 10 GB costs 160 preads of 64 bytes and one scan. A
 * segment whose own header is damaged is read in full, because every record names itself.
 * Nothing is written or cut here (the next segment's header has to remember first where this one
 * ended), files are only moved away.
 * OWNERSHIP, THREADS: runs inside segment_log_open, before any other thread knows the log.
 * LIMITS: one file open at a time; memory as segment_scan's window.
 * SPEC: docs/formats/segment-log.md "Opening, crash by crash".
 */
#include "base/log.h"
#include "base/mem.h"
#include "pipeline/segment/log_private.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { REFUSED_TRIES = 4, REFUSED_PAUSE_US = 500000 };

/* A file found in the folder. */
struct candidate {
	uint64_t number, size;
	struct segment_header header;
	bool has_header, is_foreign;
	bool is_refused;	/* the disk does not give its header */
	bool is_unplaced;	/* nothing says which LSN it starts with */
};

/* What reading one file in full told. */
struct survey {
	uint64_t n_records;
	uint64_t end;		/* its records have LSNs below this one */
	uint64_t bytes;		/* up to the last good record, or behind the end record */
	uint64_t lost, torn;
	uint64_t io_errors;	/* pages that the disk does not give */
	bool is_blank;		/* nothing but zeros behind the header's place */
};

struct recovery {
	struct segment_log *log;
	struct segment_log_found *found;
	struct candidate *c;
	size_t n;
	uint64_t end;		/* of the segment kept last; 0: none yet */
	bool has_hole;		/* a file was moved away behind it */
};

static void read_candidate(struct segment_log *log, uint64_t number, struct candidate *c)
{
	uint8_t bytes[SEGMENT_HEADER_SIZE] = { 0 };
	int fd = segment_dir_open_segment(&log->dir, number, O_RDONLY);
	struct stat st;
	ssize_t n;

	memset(c, 0, sizeof(*c));
	c->number = number;
	if (fd < 0)
		return;
	if (fstat(fd, &st) == 0)
		c->size = MIN((uint64_t)st.st_size, (uint64_t)UINT32_MAX);
	for (int i = 0; (n = pread(fd, bytes, sizeof(bytes), 0)) < 0 && i < REFUSED_TRIES; i++)
		usleep(REFUSED_PAUSE_US);
	c->is_refused = n < 0;
	c->has_header =
		n == (ssize_t)sizeof(bytes) && segment_header_decode(bytes, &c->header) == 0;
	close(fd);
}

/* A page that the disk refuses is damaged, a disk that refuses everything is away: what it holds is
 * not to be judged now. */
static int check_disk(const struct recovery *rc, const struct candidate *c, struct err *err)
{
	if (segment_dir_answers(&rc->log->dir))
		return 0;
	errno = EIO;
	return err_errno(err, "segment log %s: read segment %llu", rc->log->dir.path,
			 (unsigned long long)c->number);
}

static int read_candidates(struct recovery *rc, struct err *err)
{
	struct segment_numbers numbers;
	int ret = 0;

	if (segment_dir_list(&rc->log->dir, &numbers, err) < 0)
		return -1;
	rc->log->next_number = numbers.highest + 1;
	rc->n = numbers.n;
	rc->c = xcalloc(numbers.n + 1, sizeof(*rc->c));
	for (size_t i = 0; i < numbers.n && ret == 0; i++) {
		read_candidate(rc->log, numbers.v[i], &rc->c[i]);
		if (rc->c[i].is_refused)
			ret = check_disk(rc, &rc->c[i], err);
	}
	free(numbers.v);
	return ret;
}

/* The id that the segments themselves agree upon: of the first good header. NULL: none has one, or
 * one of them says what the file `id` says. The file has no CRC, the headers have: a flipped bit in
 * it must not make the whole log foreign. */
static const uint8_t *id_of_segments(const struct recovery *rc)
{
	const struct segment_dir *dir = &rc->log->dir;
	const uint8_t *id = NULL;

	for (size_t i = 0; i < rc->n; i++) {
		const struct candidate *c = &rc->c[i];

		if (!c->has_header || c->header.number != c->number)
			continue;
		if (dir->has_id && memcmp(c->header.id, dir->id, sizeof(dir->id)) == 0)
			return NULL;
		id = id ? id : c->header.id;
	}
	return id;
}

/* The id from its file, else from the first good header, else a new one. Then whoever differs is
 * foreign. */
static int settle_id(struct recovery *rc, struct err *err)
{
	struct segment_dir *dir = &rc->log->dir;
	const uint8_t *id = id_of_segments(rc);

	if (dir->has_id && id != NULL)
		log_warn("segment log id damaged, taken from its segments", "dir", dir->path, "id",
			 dir->id_text);
	if ((!dir->has_id || id != NULL) && segment_dir_store_id(dir, id, err) < 0)
		return -1;
	for (size_t i = 0; i < rc->n; i++) {
		struct candidate *c = &rc->c[i];

		c->is_foreign = c->has_header && (memcmp(c->header.id, dir->id, sizeof(dir->id)) ||
						  c->header.number != c->number);
	}
	return 0;
}

/* Read a file in full. `want` is its first LSN, `end` UINT64_MAX when not known. Damage at the
 * very end of a file whose end is not known is a torn tail; all other damage is lost records. */
static void survey_file(struct segment_log *log, const struct candidate *c, uint64_t want,
			uint64_t end, struct survey *sv)
{
	struct segment_scan_record rec;
	struct segment_scan s;
	uint64_t lost_from = 0, lost = 0;
	int fd = segment_dir_open_segment(&log->dir, c->number, O_RDONLY), rc;

	memset(sv, 0, sizeof(*sv));
	sv->end = want;
	sv->bytes = SEGMENT_HEADER_SIZE;
	if (fd < 0)
		return;
	segment_scan_init(&s, fd, segment_salt(log->dir.id, c->number), c->size, want, end, NULL);
	while ((rc = segment_scan_next(&s, &rec, &lost_from)) != 0) {
		if (rc < 0) {
			lost_from = MAX(lost_from, log->low_water);
			if (lost_from < s.want && (sv->n_records > 0 || !c->is_unplaced))
				lost += s.want - lost_from;
			continue;
		}
		sv->n_records++;
		sv->end = s.want;
		sv->bytes = s.offset;
		sv->lost = lost;
	}
	if (s.end != UINT64_MAX) {
		sv->lost = lost;
		sv->end = s.end;
		sv->bytes = s.is_ended ? s.offset + SEGMENT_FRAME_SIZE : c->size;
	} else if (s.offset + s.tail_bytes > sv->bytes) {
		sv->torn = s.offset + s.tail_bytes - sv->bytes;
	}
	sv->io_errors = s.io_errors;
	sv->is_blank = sv->n_records == 0 && sv->torn == 0 && s.io_errors == 0 &&
		       s.end == UINT64_MAX;
	/* A known end that no record speaks for is the neighbour's word only. */
	if (sv->n_records == 0 && !c->has_header && !s.is_ended)
		sv->end = want;
	if (end == UINT64_MAX && log->sync && fdatasync(fd) < 0)
		log_warn("segment not synced at open", "dir", log->dir.path, "segment",
			 LOG_NUM(c->number), "error", strerror(errno));
	segment_scan_fini(&s);
	close(fd);
}

static void quarantine(struct recovery *rc, const struct candidate *c, const char *why)
{
	struct segment_log *log = rc->log;

	log_warn("segment quarantined", "dir", log->dir.path, "segment", LOG_NUM(c->number),
		 "bytes", LOG_NUM(c->size), "reason", why);
	if (segment_dir_remove(&log->dir, c->number, true) < 0)
		log_warn("segment not moved", "dir", log->dir.path, "segment", LOG_NUM(c->number),
			 "error", strerror(errno));
	log->quarantined++;
	rc->found->quarantined++;
	rc->has_hole = true;
}

static void count_lost(struct recovery *rc, uint64_t n)
{
	rc->log->lost += n;
	rc->found->lost += n;
	if (n > 0)
		log_warn("segment log records lost", "dir", rc->log->dir.path, "records",
			 LOG_NUM(n));
}

/* Where the segment ends, as its successor's header says; UINT64_MAX: that is not known. */
static uint64_t known_end(const struct recovery *rc, size_t i)
{
	for (size_t k = i + 1; k < rc->n; k++) {
		if (rc->c[k].is_foreign)
			continue;
		return rc->c[k].has_header ? rc->c[k].header.prev_end : UINT64_MAX;
	}
	return UINT64_MAX;
}

static bool is_last(const struct recovery *rc, size_t i)
{
	for (size_t k = i + 1; k < rc->n; k++)
		if (!rc->c[k].is_foreign)
			return false;
	return true;
}

static void keep(struct recovery *rc, const struct candidate *c, uint64_t base, uint64_t end,
		 uint64_t bytes)
{
	struct segment seg = { .number = c->number, .base = base, .end = end, .bytes = bytes };

	seg.size = c->size;
	segment_log_push(rc->log, &seg);
	rc->found->bytes += bytes;
	rc->end = end;
	rc->has_hole = false;
	rc->log->next_lsn = MAX(rc->log->next_lsn, end);
}

/* survey_file; a disk that refuses to read is asked again a few times. */
static int survey(struct recovery *rc, const struct candidate *c, uint64_t base, uint64_t end,
		  struct survey *sv, struct err *err)
{
	survey_file(rc->log, c, base, end, sv);
	for (int i = 0; sv->io_errors > 0 && i < REFUSED_TRIES; i++) {
		usleep(REFUSED_PAUSE_US);
		survey_file(rc->log, c, base, end, sv);
	}
	return sv->io_errors > 0 ? check_disk(rc, c, err) : 0;
}

/* A segment that has to be read: the last, one before a damaged header, or all (verify). */
static int take_surveyed(struct recovery *rc, const struct candidate *c, uint64_t base,
			 uint64_t end, bool last, struct err *err)
{
	struct segment_log *log = rc->log;
	struct segment *seg;
	struct survey sv;

	if (survey(rc, c, base, end, &sv, err) < 0)
		return -1;
	if (!c->has_header && sv.is_blank && last) {
		/* Created, and never got its header. */
		if (segment_dir_remove(&log->dir, c->number, false) < 0)
			log_warn("segment not removed", "dir", log->dir.path, "segment",
				 LOG_NUM(c->number), "error", strerror(errno));
		return 0;
	}
	if (last && sv.torn > 0) {
		uint64_t n = (sv.torn + SEGMENT_FRAME_SIZE - 1) / SEGMENT_FRAME_SIZE;

		rc->found->torn_bytes = sv.torn;
		log->next_lsn = MAX(log->next_lsn, MAX(sv.end, base) + n);
	}
	if (!c->has_header && sv.n_records == 0) {
		quarantine(rc, c, "no header and no record");
		return 0;
	}
	keep(rc, c, base, MAX(sv.end, base), sv.bytes);
	seg = segment_log_newest(log);
	seg->is_damaged = sv.lost > 0 || sv.io_errors > 0;
	if (sv.io_errors > 0) {
		/* Nobody is to cut off what may be read another day. */
		log->disk_bytes -= seg->size - seg->bytes;
		seg->size = seg->bytes;
	}
	seg->lost = sv.lost;
	seg->lost_upto = sv.end;
	count_lost(rc, sv.lost);
	return 0;
}

static int take(struct recovery *rc, size_t i, bool verify, struct err *err)
{
	struct candidate *c = &rc->c[i];
	uint64_t before = MAX(rc->end, MAX(rc->log->low_water, UINT64_C(1)));
	bool is_placed = rc->end > 0 || rc->log->low_water > 0 || rc->c[0].number == 1;
	uint64_t base = c->has_header ? c->header.base : before;
	uint64_t end = known_end(rc, i);

	if (c->is_foreign || (c->has_header && c->header.base < rc->end)) {
		quarantine(rc, c, "belongs to another log or place");
		return 0;
	}
	/* What lay in files moved away is known from both neighbours. */
	if (c->has_header && rc->has_hole && c->header.prev_end > before && is_placed)
		count_lost(rc, c->header.prev_end - before);
	c->is_unplaced = !c->has_header && !is_placed;
	if (end < base)
		end = UINT64_MAX;
	if (!c->has_header || end == UINT64_MAX || verify)
		return take_surveyed(rc, c, base, end, is_last(rc, i), err);
	keep(rc, c, base, end, c->size);
	return 0;
}

static void report(struct recovery *rc)
{
	struct segment_log *log = rc->log;
	struct segment_log_found *f = rc->found;
	struct segment_log_stats st;

	segment_log_stats(log, &st);
	f->first_lsn = st.first_lsn;
	f->next_lsn = log->next_lsn;
	f->records = st.records_held;
	f->segments = (uint32_t)log->n_segs;
	log->lost = f->lost;
	if (f->lost > 0 || f->torn_bytes > 0 || f->quarantined > 0 || log->dir.cursor_damaged)
		log_warn("segment log recovered", "dir", log->dir.path, "records",
			 LOG_NUM(f->records), "lost", LOG_NUM(f->lost), "torn_bytes",
			 LOG_NUM(f->torn_bytes), "quarantined", LOG_NUM(f->quarantined), "cursor",
			 log->dir.cursor_damaged ? "damaged" : "good");
}

int segment_recover(struct segment_log *log, bool verify, struct segment_log_found *found,
		    struct err *err)
{
	struct recovery rc = { .log = log, .found = found };
	int ret = -1;

	memset(found, 0, sizeof(*found));
	if (read_candidates(&rc, err) < 0 || settle_id(&rc, err) < 0 ||
	    segment_dir_make_cursor(&log->dir, err) < 0)
		goto out;
	log->low_water = log->dir.low_water;
	log->next_lsn = 1;
	for (size_t i = 0; i < rc.n; i++)
		if (take(&rc, i, verify, err) < 0)
			goto out;
	log->next_lsn = MAX(log->next_lsn, log->low_water);
	segment_log_collect(log);
	report(&rc);
	ret = 0;
out:
	free(rc.c);
	return ret;
}
