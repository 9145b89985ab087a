/* SPDX-License-Identifier: Apache-2.0
 *
 * reader.c - see reader.h.
 *
 * DESIGN: a reader holds a descriptor of its own, so a segment that is freed meanwhile does no
 * harm, and a scan whose limit and end LSN follow what the log says is durable. It asks the log
 * (one lock) only when the scan has nothing more.
 * What the disk refuses to give is not known to be damaged: the reader stands still, says so, and
 * asks again, until the disk gives other things and still refuses this for PATIENCE_NS.
 * OWNERSHIP, THREADS: one thread per reader; touches the log under its lock only.
 * LIMITS: memory as segment_scan's window.
 * SPEC: docs/formats/segment-log.md "Reading".
 */
#include "pipeline/segment/reader.h"

#include "base/clock.h"
#include "base/mem.h"
#include "pipeline/segment/log_private.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define PATIENCE_NS (30 * NS_PER_S)

struct segment_reader {
	struct segment_log *log;
	struct segment_scan scan;
	uint64_t number;	/* of the segment being read */
	uint64_t want;		/* no record below this LSN is handed out */
	int fd;			/* -1: between two segments */
	uint64_t refused_ns;	/* since when the disk refuses what is wanted; 0: it does not */
};

struct segment_reader *segment_reader_new(struct segment_log *log, uint64_t from_lsn)
{
	struct segment_reader *r = xcalloc(1, sizeof(*r));

	r->log = log;
	r->want = from_lsn;
	r->fd = -1;
	segment_scan_init(&r->scan, -1, 0, 0, 0, 0, log->budget);
	return r;
}

static void leave(struct segment_reader *r)
{
	if (r->fd >= 0)
		close(r->fd);
	r->fd = -1;
}

void segment_reader_free(struct segment_reader *r)
{
	if (r == NULL)
		return;
	leave(r);
	segment_scan_fini(&r->scan);
	free(r);
}

uint64_t segment_reader_lsn(const struct segment_reader *r)
{
	return r->want;
}

/* The first segment with something to read at or behind r->want; false: caught up. */
static bool choose(struct segment_reader *r, struct segment *out)
{
	struct segment_log *log = r->log;
	size_t lo = 0, hi;

	pthread_mutex_lock(&log->lock);
	r->want = MAX(r->want, log->low_water);
	hi = log->n_segs;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (log->segs[mid].end <= r->want)
			lo = mid + 1;
		else
			hi = mid;
	}
	hi = log->n_segs;
	if (lo < hi)
		*out = log->segs[lo];
	pthread_mutex_unlock(&log->lock);
	return lo < hi;
}

/* Records [from, to) of the current segment are gone. -1 with the text, or 0 when nobody wants
 * them. */
static int damaged(struct segment_reader *r, uint64_t from, uint64_t to, struct err *err)
{
	uint64_t low;

	segment_log_count_lost(r->log, r->number, from, to);
	pthread_mutex_lock(&r->log->lock);
	low = r->log->low_water;
	pthread_mutex_unlock(&r->log->lock);
	from = MAX(from, MAX(r->want, low));
	if (from >= to)
		return 0;
	r->want = to;
	return err_set(err, ERR_CORRUPT, "segment %llu: records %llu to %llu damaged, skipped",
		       (unsigned long long)r->number, (unsigned long long)from,
		       (unsigned long long)(to - 1));
}

/* Open the next segment. 1: done, or look again. 0: caught up. -1: *err. */
static int enter(struct segment_reader *r, struct err *err)
{
	struct segment seg;

	if (!choose(r, &seg))
		return 0;
	r->number = seg.number;
	r->want = MAX(r->want, seg.base);
	r->fd = segment_dir_open_segment(&r->log->dir, seg.number, O_RDONLY);
	if (r->fd < 0 && errno == ENOENT) {
		bool is_held;

		pthread_mutex_lock(&r->log->lock);
		is_held = segment_log_find(r->log, seg.number) != NULL;
		pthread_mutex_unlock(&r->log->lock);
		if (!is_held)
			return 1;	/* freed this moment */
		if (damaged(r, seg.base, seg.end, err) < 0)	/* somebody removed our file */
			return -1;
		r->want = MAX(r->want, seg.end);
		return 1;
	}
	if (r->fd < 0) {
		err_errno(err, "segment %llu: open", (unsigned long long)seg.number);
		if (err != NULL)
			err->retryable = true;
		return -1;
	}
	segment_scan_reset(&r->scan, r->fd, segment_salt(r->log->dir.id, seg.number), seg.bytes,
			   seg.base, seg.end);
	return 1;
}

/* The scan has nothing more: 1 after raising its limit or leaving the segment, 0 when caught up.
 * */
static int refresh(struct segment_reader *r)
{
	struct segment_log *log = r->log;
	const struct segment *seg, *newest;
	bool has_more = false, is_last = false;

	pthread_mutex_lock(&log->lock);
	seg = segment_log_find(log, r->number);
	newest = segment_log_newest(log);
	if (seg != NULL) {
		has_more = seg->end > r->scan.end;
		is_last = seg == newest;
		if (has_more) {
			r->scan.limit = seg->bytes;
			r->scan.end = seg->end;
		} else {
			r->want = MAX(r->want, seg->end);
		}
	}
	pthread_mutex_unlock(&log->lock);
	if (!has_more && !is_last)
		leave(r);
	return has_more || !is_last;
}

/* Bytes were refused, zeros stand for them. True, with *err: wait, and ask again. */
static bool is_to_wait(struct segment_reader *r, struct err *err)
{
	uint64_t now = clock_mono_ns();

	if (r->refused_ns == 0 || !segment_dir_answers(&r->log->dir))
		r->refused_ns = now;
	if (now - r->refused_ns >= PATIENCE_NS)
		return false;
	err_set(err, ERR_IO, "segment %llu: read at %llu: the disk refuses it: %s",
		(unsigned long long)r->number, (unsigned long long)r->scan.offset, strerror(EIO));
	if (err != NULL)
		err->retryable = true;
	return true;
}

/* segment_scan_next, and -2 with *err for "not now". */
static int scan_next(struct segment_reader *r, struct segment_scan_record *found,
		     uint64_t *lost_from, struct err *err)
{
	struct segment_scan before = r->scan;
	int rc = segment_scan_next(&r->scan, found, lost_from);

	if (rc < 0 && (before.is_spotty || r->scan.io_errors != before.io_errors)) {
		segment_scan_back(&r->scan, &before);
		if (is_to_wait(r, err))
			return -2;
		rc = segment_scan_next(&r->scan, found, lost_from);
	}
	if (rc == 1)
		r->refused_ns = 0;
	return rc;
}

int segment_reader_next(struct segment_reader *r, struct segment_record *rec, struct err *err)
{
	struct segment_scan_record found;
	uint64_t lost_from = 0;
	int rc;

	for (;;) {
		if (r->fd < 0) {
			rc = enter(r, err);
			if (rc <= 0)
				return rc;
			continue;
		}
		rc = scan_next(r, &found, &lost_from, err);
		if (rc == -2)
			return -1;
		if (rc < 0 && damaged(r, lost_from, r->scan.want, err) < 0)
			return -1;
		if (rc == 0 && refresh(r) == 0)
			return 0;
		if (rc != 1 || found.lsn < r->want)
			continue;
		r->want = found.lsn + 1;
		rec->lsn = found.lsn;
		rec->payload = found.payload;
		rec->position = (struct segment_position){ r->number, (uint32_t)found.offset,
							   (uint32_t)found.payload.n };
		return 1;
	}
}

void segment_reader_rest(struct segment_reader *r)
{
	segment_scan_rest(&r->scan);
}
