/* SPDX-License-Identifier: Apache-2.0
 *
 * writer.c - the one thread that writes a segment log: group commit, rolling, failing
 * clean.
 *
 *   take the queue -> [ as many as fit: number, frame, gather ] -> pwritev.. -> fdatasync
 *                  -> publish -> done() each, in order -> next segment for the rest -> ...
 *
 * DESIGN: after a failed write or fdatasync the file is cut at its last durable record and given
 * up; the next append opens a new one whose header says where this one ends. So nothing torn is
 * ever followed by good records, and no fsync is asked twice of pages that the kernel may have
 * dropped.
 * THREADS: everything here runs on the writer thread, segment_writer_seal after it has been
 * joined.
 * LIMITS: one round writes what append admitted (max_pending_bytes); 1,024 pieces per pwritev.
 * SPEC: docs/formats/segment-log.md "Writing".
 */
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "pipeline/segment/log_private.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* After "disk full" appends fail at once for this long, so that retries do not hammer the disk.
 * */
#define FULL_PAUSE_NS (50 * NS_PER_MS)

static bool is_full(int error)
{
	return error == ENOSPC || error == EDQUOT || error == EFBIG;
}

/* errno as an error that a sender can act upon: all of these pass, so all are retryable. */
static int write_failed(struct segment_log *log, const char *what, uint64_t number, struct err *err)
{
	int saved = errno;
	bool full = is_full(saved);

	err_set(err, full ? ERR_EXHAUSTED : ERR_UNAVAILABLE, "%s: %s: %s of segment %llu: %s",
		full ? "disk full" : "log write failed", log->dir.path, what,
		(unsigned long long)number, strerror(saved));
	err->retry_after_ms = 1000;
	return -1;
}

/* ---- opening the next segment ---- */

/* Reserve up to *size bytes, less when the disk has less, but `need` at least. *size says how
 * many. A file system that cannot reserve is fine: the file grows, and *size is where it ends. */
static int preallocate(struct segment_log *log, int fd, uint64_t need, uint64_t *size)
{
	while (log->io->fallocate(fd, 0, 0, (off_t)*size) < 0) {
		if (errno == EINTR)
			continue;
		if (errno == EOPNOTSUPP || errno == ENOSYS)
			return 0;
		if (!is_full(errno) || *size == need)
			return -1;
		*size = MAX(*size / 2, need);
	}
	return 0;
}

static int pwrite_full(struct segment_log *log, int fd, const void *p, size_t n, uint64_t off)
{
	while (n > 0) {
		struct iovec iov = { (void *)(uintptr_t)p, n };
		ssize_t k = log->io->pwritev(fd, &iov, 1, (off_t)off);

		if (k < 0 && errno == EINTR)
			continue;
		if (k == 0)
			errno = ENOSPC;
		if (k <= 0)
			return -1;
		p = (const uint8_t *)p + k;
		n -= (size_t)k;
		off += (uint64_t)k;
	}
	return 0;
}

static int timed_sync(struct segment_log *log, int fd)
{
	uint64_t t0 = clock_mono_ns(), took;
	int rc = log->io->fdatasync(fd), saved = errno;

	took = clock_mono_ns() - t0;
	pthread_mutex_lock(&log->lock);
	log->fsyncs++;
	log->fsync_ns_last = took;
	log->fsync_ns_max = MAX(log->fsync_ns_max, took);
	pthread_mutex_unlock(&log->lock);
	errno = saved;
	return rc;
}

/* A new file, in a new folder when ours was removed. */
static int open_new(struct segment_log *log, uint64_t number)
{
	int flags = O_RDWR | O_CREAT | O_EXCL, ret;
	int fd = segment_dir_open_segment(&log->dir, number, flags);
	struct err err = ERR_INIT;

	if (fd >= 0 || errno != ENOENT)
		return fd;
	pthread_mutex_lock(&log->free_lock);
	ret = segment_dir_revive(&log->dir, &err);
	pthread_mutex_unlock(&log->free_lock);
	if (ret == 0)
		return segment_dir_open_segment(&log->dir, number, flags);
	log_warn("segment log not made again", "dir", log->dir.path, "error", err.msg);
	errno = ENOENT;
	return -1;
}

/* The file with its header, durable together with its name. Descriptor, or -1 with errno. */
static int create_segment(struct segment_log *log, const struct segment_header *h, uint64_t need,
			  uint64_t *size)
{
	uint8_t bytes[SEGMENT_HEADER_SIZE];
	int fd = open_new(log, h->number);
	int saved;

	if (fd < 0)
		return -1;
	segment_header_encode(h, bytes);
	if (preallocate(log, fd, need, size) == 0 &&
	    pwrite_full(log, fd, bytes, sizeof(bytes), 0) == 0 &&
	    (!log->sync || (timed_sync(log, fd) == 0 && fsync(log->dir.fd) == 0)))
		return fd;
	saved = errno;
	close(fd);
	segment_dir_remove(&log->dir, h->number, false);
	errno = saved;
	return -1;
}

static void cut_file(struct segment_log *log, int fd, uint64_t number, uint64_t size)
{
	struct segment *seg;

	if (log->io->ftruncate(fd, (off_t)size) < 0)
		return;	/* only costs space: the next header says where this segment ends */
	pthread_mutex_lock(&log->lock);
	seg = segment_log_find(log, number);
	if (seg != NULL && seg->size > size) {
		log->disk_bytes -= seg->size - size;
		seg->size = size;
	}
	pthread_mutex_unlock(&log->lock);
}

/* Put the end record behind the last one and give back what was preallocated. */
static void finish_segment(struct segment_log *log, int fd, const struct segment *seg)
{
	uint8_t end[SEGMENT_FRAME_SIZE];

	segment_end_encode(segment_salt(log->dir.id, seg->number), seg->end, end);
	if (pwrite_full(log, fd, end, sizeof(end), seg->bytes) < 0)
		return;
	cut_file(log, fd, seg->number, seg->bytes + sizeof(end));
}

/* The segment before the one just made: finish it, or cut what a crash left behind its last
 * record. */
static void retire(struct segment_log *log, const struct segment *old)
{
	int fd = log->fd;

	if (fd >= 0) {
		finish_segment(log, fd, old);
	} else if (old->size > old->bytes) {
		fd = segment_dir_open_segment(&log->dir, old->number, O_WRONLY);
		if (fd >= 0)
			cut_file(log, fd, old->number, old->bytes);
	}
	if (fd >= 0)
		close(fd);
	log->fd = -1;
}

/* Every record of the newest segment is freed, but it stays because it is the newest: cut it to
 * its header. The cursor, which from now on is all that remembers the LSN, is synced before. */
static bool reclaim_newest(struct segment_log *log)
{
	struct segment *seg;
	uint64_t number = 0, low_water;
	bool is_free;
	int fd;

	pthread_mutex_lock(&log->free_lock);
	pthread_mutex_lock(&log->lock);
	seg = segment_log_newest(log);
	low_water = log->low_water;
	is_free = seg != NULL && low_water >= seg->end && seg->size > SEGMENT_HEADER_SIZE;
	pthread_mutex_unlock(&log->lock);
	/* A cursor that could not be written (quota, EIO) would let the LSNs begin again below
	 * those that commits cover. */
	is_free = is_free && segment_dir_sync_cursor(&log->dir, low_water) == 0;
	pthread_mutex_lock(&log->lock);
	if (is_free) {
		seg = segment_log_newest(log);
		number = seg->number;
		seg->base = seg->end;
		seg->bytes = SEGMENT_HEADER_SIZE;
	}
	pthread_mutex_unlock(&log->lock);
	if (is_free) {
		fd = log->fd >= 0 ? log->fd : segment_dir_open_segment(&log->dir, number, O_WRONLY);
		if (fd >= 0) {
			cut_file(log, fd, number, SEGMENT_HEADER_SIZE);
			close(fd);
		}
		log->fd = -1;
	}
	pthread_mutex_unlock(&log->free_lock);
	return is_free;
}

/* Bytes that max_bytes leaves for a new segment, once the newest one is cut to its real size. */
static uint64_t room_left(struct segment_log *log)
{
	const struct segment *newest;
	uint64_t used = 0;

	if (log->max_bytes == 0)
		return UINT64_MAX;
	pthread_mutex_lock(&log->lock);
	newest = segment_log_newest(log);
	if (newest != NULL)
		used = log->disk_bytes - (newest->size - newest->bytes);
	pthread_mutex_unlock(&log->lock);
	return log->max_bytes > used ? log->max_bytes - used : 0;
}

/* The largest size up to `want`, by halves, of which the file system keeps leave_free; 0: not even
 * `need`. Whoever turns the records into something else on the same disk, and frees them then, must
 * never find it full of log. */
static uint64_t size_that_leaves_room(struct segment_log *log, uint64_t need, uint64_t want)
{
	const struct segment *newest;
	struct statvfs fs;
	uint64_t left, used, size = MAX(want, need);

	if (log->leave_free == 0 || fstatvfs(log->dir.fd, &fs) < 0)
		return size;
	pthread_mutex_lock(&log->lock);
	newest = segment_log_newest(log);
	left = (uint64_t)fs.f_bavail * fs.f_frsize + (newest ? newest->size - newest->bytes : 0);
	used = segment_log_used(log);
	pthread_mutex_unlock(&log->lock);
	while (left < size + MIN(used + size, log->leave_free)) {
		if (size == need)
			return 0;
		size = MAX(size / 2, need);
	}
	return size;
}

static int no_room(struct segment_log *log, struct err *err)
{
	err_set(err, ERR_EXHAUSTED,
		"disk full: %s: the rest of the disk is kept for what the log becomes",
		log->dir.path);
	err->retry_after_ms = 1000;
	return -1;
}

static int log_full(struct segment_log *log, struct err *err)
{
	err_set(err, ERR_EXHAUSTED, "log full: %s: max_bytes %llu leaves no room for a segment",
		log->dir.path, (unsigned long long)log->max_bytes);
	err->retry_after_ms = 1000;
	return -1;
}

static int roll(struct segment_log *log, uint64_t record_size, struct err *err)
{
	uint64_t need = SEGMENT_HEADER_SIZE + record_size + SEGMENT_FRAME_SIZE;
	uint64_t size = 0, want = MAX(log->segment_bytes, need);
	struct segment_header h = { .number = log->next_number++ };
	struct segment old = { 0 }, seg = { 0 };
	int fd;

	memcpy(h.id, log->dir.id, sizeof(h.id));
	pthread_mutex_lock(&log->lock);
	if (log->n_segs > 0)
		old = *segment_log_newest(log);
	h.base = log->next_lsn;
	h.prev_end = log->n_segs > 0 ? old.end : h.base;
	pthread_mutex_unlock(&log->lock);
	if (room_left(log) < need && (!reclaim_newest(log) || room_left(log) < need))
		return log_full(log, err);
	size = size_that_leaves_room(log, need, MIN(want, room_left(log)));
	if (size == 0 && reclaim_newest(log))
		size = size_that_leaves_room(log, need, MIN(want, room_left(log)));
	if (size == 0)
		return no_room(log, err);
	fd = create_segment(log, &h, need, &size);
	if (fd < 0 && is_full(errno) && reclaim_newest(log)) {
		size = MIN(want, room_left(log));
		fd = create_segment(log, &h, need, &size);
	}
	if (fd < 0)
		return write_failed(log, "create", h.number, err);
	seg = (struct segment){ .number = h.number, .base = h.base, .end = h.base };
	seg.bytes = SEGMENT_HEADER_SIZE;
	seg.size = size;
	pthread_mutex_lock(&log->lock);
	if (log->n_segs > 0)
		old = *segment_log_newest(log);
	segment_log_push(log, &seg);
	pthread_mutex_unlock(&log->lock);
	if (old.number != 0)
		retire(log, &old);
	log->fd = fd;
	log->capacity = size;
	log->salt = segment_salt(log->dir.id, h.number);
	segment_log_collect(log);
	return 0;
}

/* ---- writing a run of records into the current segment ---- */

/* Write what is gathered, however short the system's writes are. */
static int gather_flush(struct segment_log *log)
{
	struct iovec *iov = log->iov;
	int n = log->n_iov;

	while (n > 0) {
		ssize_t k = log->io->pwritev(log->fd, iov, n, (off_t)log->iov_offset);

		if (k < 0 && errno == EINTR)
			continue;
		if (k == 0)
			errno = ENOSPC;
		if (k <= 0)
			return -1;
		log->iov_offset += (uint64_t)k;
		while (n > 0 && (size_t)k >= iov->iov_len) {
			k -= (ssize_t)iov->iov_len;
			iov++;
			n--;
		}
		if (n > 0) {
			iov->iov_base = (uint8_t *)iov->iov_base + k;
			iov->iov_len -= (size_t)k;
		}
	}
	log->n_iov = 0;
	return 0;
}

static int gather(struct segment_log *log, const void *p, size_t n)
{
	if (n == 0)
		return 0;
	if (log->n_iov == SEGMENT_IOV_MAX && gather_flush(log) < 0)
		return -1;
	log->iov[log->n_iov].iov_base = (void *)(uintptr_t)p;
	log->iov[log->n_iov++].iov_len = n;
	return 0;
}

static int gather_record(struct segment_log *log, struct segment_append *a)
{
	static const uint8_t zeros[8];
	size_t pad = (size_t)(segment_record_size(a->length) - SEGMENT_FRAME_SIZE - a->length);

	segment_frame_encode(log->salt, a->length, a->lsn, a->payload_crc, a->header);
	if (gather(log, a->header, sizeof(a->header)) < 0)
		return -1;
	for (uint32_t i = 0; i < a->n_iov; i++)
		if (gather(log, a->iov[i].iov_base, a->iov[i].iov_len) < 0)
			return -1;
	return gather(log, zeros, pad);
}

/* Records written together: [first, rest), durable together. */
struct run {
	struct segment_append *first, *rest;
	uint64_t n, bytes;
	uint64_t number, offset, lsn;	/* behind the last record */
};

static bool fits(const struct segment_log *log, uint64_t offset, const struct segment_append *a)
{
	return offset + segment_record_size(a->length) + SEGMENT_FRAME_SIZE <= log->capacity;
}

/* Somebody removed the file: nobody would find again what is written to it. */
static bool is_removed(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && st.st_nlink == 0;
}

static int write_run(struct segment_log *log, struct run *r)
{
	struct segment_append *a = r->first;

	log->n_iov = 0;
	log->iov_offset = r->offset;
	for (; a != NULL && fits(log, r->offset, a); a = a->next) {
		a->lsn = r->lsn++;
		a->position = (struct segment_position){ r->number, (uint32_t)r->offset,
							 a->length };
		r->offset += segment_record_size(a->length);
		r->bytes += segment_record_size(a->length);
		r->n++;
		if (gather_record(log, a) < 0)
			return -1;
	}
	r->rest = a;
	if (gather_flush(log) < 0)
		return -1;
	if (log->sync && timed_sync(log, log->fd) < 0)
		return -1;
	if (!is_removed(log->fd))
		return 0;
	errno = ENOENT;
	return -1;
}

/* ---- telling the callers ---- */

static void count_completed(struct segment_log *log, uint64_t n, uint64_t bytes)
{
	pthread_mutex_lock(&log->lock);
	log->completed += n;
	log->pending_records -= n;
	log->pending_bytes -= bytes;
	if (log->waiters > 0)
		pthread_cond_broadcast(&log->progress);
	pthread_mutex_unlock(&log->lock);
}

static void publish(struct segment_log *log, const struct run *r)
{
	struct segment_append *a = r->first, *next;
	struct segment *seg;

	pthread_mutex_lock(&log->lock);
	seg = segment_log_newest(log);
	seg->end = log->next_lsn = r->lsn;
	seg->bytes = r->offset;
	if (seg->size < r->offset) {	/* no preallocation here */
		log->disk_bytes += r->offset - seg->size;
		seg->size = r->offset;
	}
	log->appended += r->n;
	log->failed_ns = 0;
	if (log->waiters > 0)
		pthread_cond_broadcast(&log->progress);
	pthread_mutex_unlock(&log->lock);
	for (; a != r->rest; a = next) {
		next = a->next;
		err_clear(&a->err);
		a->done(a);
	}
	count_completed(log, r->n, r->bytes);
}

static void fail_all(struct segment_log *log, struct segment_append *a, const struct err *err)
{
	struct segment_append *next, *first = a;
	uint64_t n = 0, bytes = 0;

	for (; a != NULL; a = a->next) {
		n++;
		bytes += segment_record_size(a->length);
	}
	log_warn("segment log append failed", "dir", log->dir.path, "records", LOG_NUM(n), "error",
		 err->msg);
	pthread_mutex_lock(&log->lock);
	log->failed += n;
	log->last_error = *err;
	log->failed_ns = clock_mono_ns();
	if (err->kind == ERR_EXHAUSTED)
		log->full_until_ns = clock_mono_ns() + FULL_PAUSE_NS;
	pthread_mutex_unlock(&log->lock);
	for (a = first; a != NULL; a = next) {
		next = a->next;
		a->err = *err;
		a->lsn = 0;
		a->done(a);
	}
	count_completed(log, n, bytes);
}

/* The current segment cannot be trusted any more: cut what was not acknowledged, and leave it. */
static void abandon(struct segment_log *log, uint64_t next_lsn)
{
	struct segment seg;

	pthread_mutex_lock(&log->lock);
	seg = *segment_log_newest(log);
	log->next_lsn = next_lsn;
	pthread_mutex_unlock(&log->lock);
	cut_file(log, log->fd, seg.number, seg.bytes);
	close(log->fd);
	log->fd = -1;
}

static void write_list(struct segment_log *log, struct segment_append *list)
{
	struct err err = ERR_INIT;

	while (list != NULL) {
		struct run r = { .first = list };
		const struct segment *seg = NULL;

		pthread_mutex_lock(&log->lock);
		seg = segment_log_newest(log);
		r.offset = seg ? seg->bytes : 0;
		pthread_mutex_unlock(&log->lock);
		if ((log->fd < 0 || !fits(log, r.offset, list)) &&
		    roll(log, segment_record_size(list->length), &err) < 0) {
			fail_all(log, list, &err);
			return;
		}
		pthread_mutex_lock(&log->lock);
		seg = segment_log_newest(log);
		r.offset = seg->bytes;
		r.number = seg->number;
		r.lsn = log->next_lsn;
		pthread_mutex_unlock(&log->lock);
		if (write_run(log, &r) < 0) {
			write_failed(log, "write", r.number, &err);
			abandon(log, r.lsn);
			fail_all(log, list, &err);
			return;
		}
		list = r.rest;
		publish(log, &r);
	}
}

void *segment_writer_main(void *arg)
{
	struct segment_log *log = arg;
	struct segment_append *list;

	pthread_setname_np(pthread_self(), "log-writer");
	for (;;) {
		pthread_mutex_lock(&log->lock);
		while (log->head == NULL && !log->stopping)
			pthread_cond_wait(&log->work, &log->lock);
		list = log->head;
		log->head = NULL;
		log->tail = &log->head;
		pthread_mutex_unlock(&log->lock);
		if (list == NULL)
			return NULL;
		write_list(log, list);
	}
}

void segment_writer_seal(struct segment_log *log)
{
	struct segment *newest = segment_log_newest(log);

	if (log->fd < 0)
		return;
	finish_segment(log, log->fd, newest);
	if (log->sync && log->io->fdatasync(log->fd) < 0)
		log_warn("segment not synced at close", "dir", log->dir.path, "error",
			 strerror(errno));
	close(log->fd);
	log->fd = -1;
}
