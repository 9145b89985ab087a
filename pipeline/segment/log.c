/* SPDX-License-Identifier: Apache-2.0
 *
 * log.c - see log.h: open, append, random read, freeing, figures.
 *
 * DESIGN: RAM holds one small struct per segment (1,600 for a backlog of 100 GB), never one per
 * record.
 *
 *   append: crc of the payload on the caller's thread; lock; two compares; link; unlock; wake
 *   writer (writer.c): takes the whole queue, so that one fdatasync serves whoever waited
 *
 * The bound on what is pending, max_bytes and a disk that lately said "full" are all checked in
 * append, so that a caller hears of them at once. A ring of copied records was rejected: the
 * payload lives in the caller's buffers anyhow until it is answered, a copy would double it.
 * OWNERSHIP, THREADS: log_private.h.
 * LIMITS: max_pending_bytes, max_bytes, SEGMENT_RECORD_MAX.
 * SPEC: docs/formats/segment-log.md.
 */
#include "pipeline/segment/log.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "pipeline/segment/log_private.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#define FAILURE_COUNTS_NS (10 * NS_PER_S)
#define FULL_COUNTS_NS (1 * NS_PER_S)

_Static_assert(sizeof(((struct segment_append *)0)->header) == SEGMENT_FRAME_SIZE, "frame");
_Static_assert(SEGMENT_RECORD_MAX == SEGMENT_PAYLOAD_MAX, "one limit of a record");

enum { COLLECT_AT_ONCE = 16 };

/* ---- the list of segments; lock is held ---- */

struct segment *segment_log_find(struct segment_log *log, uint64_t number)
{
	size_t lo = 0, hi = log->n_segs;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (log->segs[mid].number < number)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < log->n_segs && log->segs[lo].number == number ? &log->segs[lo] : NULL;
}

struct segment *segment_log_newest(struct segment_log *log)
{
	return log->n_segs > 0 ? &log->segs[log->n_segs - 1] : NULL;
}

struct segment *segment_log_push(struct segment_log *log, const struct segment *seg)
{
	log->segs = xgrow(log->segs, &log->cap_segs, log->n_segs + 1, sizeof(*log->segs));
	log->segs[log->n_segs] = *seg;
	log->disk_bytes += seg->size;
	return &log->segs[log->n_segs++];
}

/* What is preallocated and unused does not count, and nothing does when all is freed: the writer
 * gives both back before it takes more. */
uint64_t segment_log_used(const struct segment_log *log)
{
	const struct segment *newest = log->n_segs > 0 ? &log->segs[log->n_segs - 1] : NULL;

	if (newest == NULL || log->low_water >= newest->end)
		return 0;
	return log->disk_bytes - (newest->size - newest->bytes);
}

/* Take up to COLLECT_AT_ONCE segments that are not needed off the front. Never the newest. */
static size_t take_freed(struct segment_log *log, struct segment out[COLLECT_AT_ONCE])
{
	size_t n = 0;

	pthread_mutex_lock(&log->lock);
	while (n < COLLECT_AT_ONCE && n + 1 < log->n_segs && log->segs[n].end <= log->low_water) {
		out[n] = log->segs[n];
		log->disk_bytes -= out[n].size;
		log->quarantined += out[n].is_damaged;
		n++;
	}
	log->n_segs -= n;
	if (n > 0)
		memmove(log->segs, log->segs + n, log->n_segs * sizeof(*log->segs));
	pthread_mutex_unlock(&log->lock);
	return n;
}

static void collect_locked(struct segment_log *log)
{
	struct segment freed[COLLECT_AT_ONCE];
	size_t n;

	do {
		n = take_freed(log, freed);
		for (size_t i = 0; i < n; i++)
			if (segment_dir_remove(&log->dir, freed[i].number, freed[i].is_damaged) < 0)
				log_warn("segment not removed", "dir", log->dir.path, "segment",
					 LOG_NUM(freed[i].number), "error", strerror(errno));
	} while (n == COLLECT_AT_ONCE);
}

void segment_log_collect(struct segment_log *log)
{
	pthread_mutex_lock(&log->free_lock);
	collect_locked(log);
	pthread_mutex_unlock(&log->free_lock);
}

void segment_log_count_lost(struct segment_log *log, uint64_t number, uint64_t from, uint64_t to)
{
	struct segment *seg = NULL;
	uint64_t n = 0;

	pthread_mutex_lock(&log->lock);
	seg = segment_log_find(log, number);
	if (seg != NULL) {
		from = MAX(from, MAX(seg->lost_upto, log->low_water));
		n = from < to ? to - from : 0;
		seg->lost += n;
		seg->lost_upto = MAX(seg->lost_upto, to);
		seg->is_damaged = seg->is_damaged || n > 0;
		log->lost += n;
	}
	pthread_mutex_unlock(&log->lock);
	if (n > 0)
		log_warn("segment damaged, records lost", "dir", log->dir.path, "segment",
			 LOG_NUM(number), "first_lsn", LOG_NUM(from), "records", LOG_NUM(n));
}

/* ---- open and close ---- */

static void set_limits(struct segment_log *log, const struct segment_log_options *o)
{
	log->max_bytes = o->max_bytes;
	log->record_max = SEGMENT_RECORD_MAX;
	log->segment_bytes = o->segment_bytes ? o->segment_bytes : SEGMENT_BYTES_DEFAULT;
	if (o->max_bytes > 0) {
		/* So that the newest segment, which stays, never fills the log alone. */
		log->segment_bytes = MIN(log->segment_bytes, o->max_bytes / 4);
		log->record_max = MIN(log->record_max, o->max_bytes / 4);
	}
	log->segment_bytes = MIN(MAX(log->segment_bytes, 64 * KIB), GIB);
	log->max_pending_bytes =
		o->max_pending_bytes ? o->max_pending_bytes : SEGMENT_PENDING_DEFAULT;
	log->leave_free = o->leave_free;
	log->sync = o->sync;
	log->budget = o->budget;
	log->io = o->io ? o->io : &segment_io_real;
}

static void init_locks(struct segment_log *log)
{
	pthread_condattr_t attr;

	pthread_mutex_init(&log->lock, NULL);
	pthread_mutex_init(&log->free_lock, NULL);
	pthread_cond_init(&log->work, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&log->progress, &attr);
	pthread_condattr_destroy(&attr);
}

/* Signals are for the main thread; SIGXFSZ blocked makes a write over RLIMIT_FSIZE an EFBIG. */
static int start_writer(struct segment_log *log, struct err *err)
{
	sigset_t all, before;
	int rc;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = pthread_create(&log->thread, NULL, segment_writer_main, log);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (rc != 0) {
		errno = rc;
		return err_errno(err, "segment log %s: start writer", log->dir.path);
	}
	log->has_thread = true;
	return 0;
}

static void log_free(struct segment_log *log)
{
	segment_dir_close(&log->dir);
	pthread_mutex_destroy(&log->lock);
	pthread_mutex_destroy(&log->free_lock);
	pthread_cond_destroy(&log->work);
	pthread_cond_destroy(&log->progress);
	free(log->segs);
	free(log);
}

struct segment_log *segment_log_open(const struct segment_log_options *o,
				     struct segment_log_found *found, struct err *err)
{
	struct segment_log *log = xcalloc(1, sizeof(*log));
	struct segment_log_found unused;

	log->fd = -1;
	log->tail = &log->head;
	set_limits(log, o);
	init_locks(log);
	if (segment_dir_open(&log->dir, o->dir, true, err) < 0 ||
	    segment_recover(log, o->verify, found ? found : &unused, err) < 0 ||
	    start_writer(log, err) < 0) {
		log_free(log);
		return NULL;
	}
	return log;
}

void segment_log_close(struct segment_log *log)
{
	if (log == NULL)
		return;
	pthread_mutex_lock(&log->lock);
	log->stopping = true;
	pthread_cond_signal(&log->work);
	pthread_mutex_unlock(&log->lock);
	if (log->has_thread)
		pthread_join(log->thread, NULL);
	segment_writer_seal(log);
	log_free(log);
}

const char *segment_log_id(const struct segment_log *log)
{
	return log->dir.id_text;
}

/* ---- append ---- */

void segment_append_bytes(struct segment_append *a, struct bytes payload)
{
	a->one.iov_base = (void *)(uintptr_t)payload.p;
	a->one.iov_len = payload.n;
	a->iov = &a->one;
	a->n_iov = 1;
}

/* Caller holds lock. */
static int admit(struct segment_log *log, uint64_t size, struct err *err)
{
	if (log->stopping)
		return err_set(err, ERR_INTERNAL, "segment log %s: closing", log->dir.path);
	if (log->pending_records > 0 && log->pending_bytes + size > log->max_pending_bytes)
		return err_set(err, ERR_EXHAUSTED,
			       "log full: %s: %llu bytes wait to be written, limit %llu",
			       log->dir.path, (unsigned long long)log->pending_bytes,
			       (unsigned long long)log->max_pending_bytes);
	if (log->max_bytes > 0 &&
	    segment_log_used(log) + log->pending_bytes + size > log->max_bytes)
		return err_set(err, ERR_EXHAUSTED, "log full: %s: %llu of %llu bytes used",
			       log->dir.path, (unsigned long long)segment_log_used(log),
			       (unsigned long long)log->max_bytes);
	if (log->full_until_ns != 0 && clock_mono_ns() < log->full_until_ns) {
		if (err != NULL)
			*err = log->last_error;
		return -1;
	}
	return 0;
}

int segment_log_append(struct segment_log *log, struct segment_append *a, struct err *err)
{
	uint64_t length = 0, size;
	uint32_t crc = 0;
	int ret;

	for (uint32_t i = 0; i < a->n_iov; i++) {
		length += a->iov[i].iov_len;
		crc = hash_crc32c(crc, a->iov[i].iov_base, a->iov[i].iov_len);
	}
	if (length > log->record_max)
		return err_set(err, ERR_TOO_LARGE,
			       "segment log %s: record of %llu bytes, limit %llu", log->dir.path,
			       (unsigned long long)length,
			       (unsigned long long)log->record_max);
	a->length = (uint32_t)length;
	a->payload_crc = crc;
	a->next = NULL;
	size = segment_record_size(length);
	pthread_mutex_lock(&log->lock);
	ret = admit(log, size, err);
	if (ret == 0) {
		*log->tail = a;
		log->tail = &a->next;
		log->pending_bytes += size;
		log->pending_records++;
		log->queued++;
		if (log->head == a)
			pthread_cond_signal(&log->work);
	}
	pthread_mutex_unlock(&log->lock);
	return ret;
}

int segment_log_flush(struct segment_log *log, struct err *err)
{
	uint64_t upto, failed;
	int ret = 0;

	pthread_mutex_lock(&log->lock);
	upto = log->queued;
	failed = log->failed;
	log->waiters++;
	while (log->completed < upto)
		pthread_cond_wait(&log->progress, &log->lock);
	log->waiters--;
	if (log->failed != failed) {
		ret = -1;
		if (err != NULL)
			*err = log->last_error;
	}
	pthread_mutex_unlock(&log->lock);
	return ret;
}

bool segment_log_wait(struct segment_log *log, uint64_t lsn, uint32_t timeout_ms)
{
	uint64_t until = clock_mono_ns() + timeout_ms * NS_PER_MS;
	struct timespec ts = { (time_t)(until / NS_PER_S), (long)(until % NS_PER_S) };
	const struct segment *newest;
	bool is_there = false;
	int rc = 0;

	pthread_mutex_lock(&log->lock);
	log->waiters++;
	for (;;) {
		newest = segment_log_newest(log);
		is_there = newest != NULL && newest->end > lsn;
		if (is_there || rc != 0 || log->stopping)
			break;
		rc = pthread_cond_timedwait(&log->progress, &log->lock, &ts);
	}
	log->waiters--;
	pthread_mutex_unlock(&log->lock);
	return is_there;
}

/* ---- random read ---- */

int segment_log_open_at(struct segment_log *log, const struct segment_position *at, struct err *err)
{
	const struct segment *seg;
	bool is_known, is_inside;
	int fd;

	pthread_mutex_lock(&log->lock);
	seg = segment_log_find(log, at->segment);
	is_known = seg != NULL;
	is_inside = is_known && at->offset >= SEGMENT_HEADER_SIZE &&
		    at->offset + (uint64_t)SEGMENT_FRAME_SIZE + at->length <= seg->bytes;
	pthread_mutex_unlock(&log->lock);
	if (is_known && !is_inside)
		return err_set(err, ERR_CORRUPT, "segment %llu: no record at %u",
			       (unsigned long long)at->segment, at->offset);
	/* A note of the time for each of many reads costs as much as their checksums; only the
	 * owner of a file may go without. */
	fd = is_known ? segment_dir_open_segment(&log->dir, at->segment, O_RDONLY | O_NOATIME) : -1;
	if (is_known && fd < 0 && errno == EPERM)
		fd = segment_dir_open_segment(&log->dir, at->segment, O_RDONLY);
	if (!is_known || (fd < 0 && errno == ENOENT))
		return err_set(err, ERR_NOT_FOUND, "segment %llu: freed",
			       (unsigned long long)at->segment);
	if (fd < 0)
		return err_errno(err, "segment %llu: open", (unsigned long long)at->segment);
	return fd;
}

/* A reader counts what is lost; this only sends the segment to quarantine instead of away. */
static void mark_damaged(struct segment_log *log, uint64_t number)
{
	struct segment *seg;

	pthread_mutex_lock(&log->lock);
	seg = segment_log_find(log, number);
	if (seg != NULL)
		seg->is_damaged = true;
	pthread_mutex_unlock(&log->lock);
}

static ssize_t preadv_full(int fd, const struct iovec in[2], off_t off)
{
	struct iovec iov[2] = { in[0], in[1] };
	size_t got = 0, want = in[0].iov_len + in[1].iov_len;

	while (got < want) {
		ssize_t n = preadv(fd, iov, 2, off + (off_t)got);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -1 : (ssize_t)got;
		got += (size_t)n;
		for (size_t i = 0; i < 2 && n > 0; i++) {
			size_t k = MIN((size_t)n, iov[i].iov_len);

			iov[i].iov_base = (uint8_t *)iov[i].iov_base + k;
			iov[i].iov_len -= k;
			n -= (ssize_t)k;
		}
	}
	return (ssize_t)got;
}

int segment_log_read_into(struct segment_log *log, const struct segment_position *at, void *out,
			  struct err *err)
{
	uint8_t frame[SEGMENT_FRAME_SIZE];
	struct iovec iov[2] = { { frame, sizeof(frame) }, { out, at->length } };
	int fd = segment_log_open_at(log, at, err);
	struct segment_frame f = { 0 };
	ssize_t n;

	if (fd < 0)
		return -1;
	n = preadv_full(fd, iov, at->offset);
	if (n < 0)
		err_errno(err, "segment %llu: read %u bytes at %u",
			  (unsigned long long)at->segment, at->length, at->offset);
	close(fd);
	if (n < 0)
		return -1;
	if ((size_t)n == sizeof(frame) + at->length &&
	    segment_frame_decode(segment_salt(log->dir.id, at->segment), frame, &f) == 0 &&
	    !f.is_end && f.length == at->length && hash_crc32c(0, out, f.length) == f.payload_crc)
		return 0;
	mark_damaged(log, at->segment);
	return err_set(err, ERR_CORRUPT, "segment %llu: record at %u damaged",
		       (unsigned long long)at->segment, at->offset);
}

int segment_log_read(struct segment_log *log, const struct segment_position *at, struct buf *out,
		     struct err *err)
{
	uint8_t *to = NULL;

	if (at->length > SEGMENT_RECORD_MAX)
		return err_set(err, ERR_CORRUPT, "segment %llu: no record of %u bytes",
			       (unsigned long long)at->segment, at->length);
	to = buf_reserve(out, MAX(at->length, 1u));
	if (to == NULL)
		return err_set(err, ERR_TOO_LARGE, "segment %llu: record of %u bytes",
			       (unsigned long long)at->segment, at->length);
	if (segment_log_read_into(log, at, to, err) < 0)
		return -1;
	out->n += at->length;
	return 0;
}

/* ---- freeing ---- */

void segment_log_free_to(struct segment_log *log, uint64_t lsn)
{
	bool is_news;

	pthread_mutex_lock(&log->free_lock);
	pthread_mutex_lock(&log->lock);
	lsn = MIN(lsn, log->next_lsn);
	is_news = lsn > log->low_water;
	if (is_news) {
		log->low_water = lsn;
		log->full_until_ns = 0;
	}
	pthread_mutex_unlock(&log->lock);
	if (is_news) {
		/* First the cursor: a crash in between leaves a file, not records to replay. */
		segment_dir_store_cursor(&log->dir, lsn);
		collect_locked(log);
	}
	pthread_mutex_unlock(&log->free_lock);
}

void segment_log_skip_to(struct segment_log *log, uint64_t lsn)
{
	bool is_news;

	pthread_mutex_lock(&log->lock);
	assert(log->queued == 0);
	is_news = lsn > log->next_lsn;
	log->next_lsn = MAX(log->next_lsn, lsn);
	pthread_mutex_unlock(&log->lock);
	if (is_news)
		log_warn("segment log continues at a higher number: its cursor was lost", "dir",
			 log->dir.path, "lsn", LOG_NUM(lsn));
}

/* ---- figures ---- */

static bool has_room(const struct segment_log *log)
{
	struct statvfs fs;

	return statvfs(log->dir.path, &fs) == 0 && (uint64_t)fs.f_bavail * fs.f_frsize >= MIB &&
	       (fs.f_files == 0 || fs.f_favail > 0);
}

bool segment_log_is_failing(struct segment_log *log, char *why, size_t why_size)
{
	struct err last;
	uint64_t when, counts_ns = FAILURE_COUNTS_NS;

	pthread_mutex_lock(&log->lock);
	when = log->failed_ns;
	last = log->last_error;
	pthread_mutex_unlock(&log->lock);
	/* Nobody may try again while we say no, so a failure does not count for ever; that of a
	 * disk that has room again (unless it is a quota's) not for long. */
	if (when != 0 && last.kind == ERR_EXHAUSTED)
		counts_ns = has_room(log) ? FULL_COUNTS_NS : UINT64_MAX;
	if (when == 0 || clock_mono_ns() - when > counts_ns)
		return false;
	snprintf(why, why_size, "%s", last.msg);
	return true;
}

void segment_log_stats(struct segment_log *log, struct segment_log_stats *out)
{
	uint64_t held = 0;

	memset(out, 0, sizeof(*out));
	pthread_mutex_lock(&log->lock);
	for (size_t i = 0; i < log->n_segs; i++) {
		const struct segment *seg = &log->segs[i];
		uint64_t from = MAX(seg->base, log->low_water);
		uint64_t n = seg->end > from ? seg->end - from : 0;

		held += n > seg->lost ? n - seg->lost : 0;
	}
	out->records_held = held;
	out->bytes_on_disk = log->disk_bytes;
	out->max_bytes = log->max_bytes;
	out->next_lsn = log->next_lsn;
	out->first_lsn = log->n_segs ? log->segs[0].base : log->next_lsn;
	out->first_lsn = MAX(out->first_lsn, log->low_water);
	out->first_lsn = MIN(out->first_lsn, log->next_lsn);
	out->pending_records = log->pending_records;
	out->pending_bytes = log->pending_bytes;
	out->appended = log->appended;
	out->failed = log->failed;
	out->lost = log->lost;
	out->quarantined = log->quarantined;
	out->fsyncs = log->fsyncs;
	out->fsync_ns_last = log->fsync_ns_last;
	out->fsync_ns_max = log->fsync_ns_max;
	out->segments = (uint32_t)log->n_segs;
	pthread_mutex_unlock(&log->lock);
}
