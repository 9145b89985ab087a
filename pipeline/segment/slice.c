/* SPDX-License-Identifier: Apache-2.0
 *
 * slice.c - see slice.h.
 */
#include "pipeline/segment/slice.h"

#include "pipeline/segment/log_private.h"

#include <errno.h>
#include <unistd.h>

void segment_slices_init(struct segment_slices *s, struct segment_log *log)
{
	s->log = log;
	for (unsigned i = 0; i < SEGMENT_SLICES_OPEN; i++)
		s->open[i].fd = -1;
}

void segment_slices_fini(struct segment_slices *s)
{
	for (unsigned i = 0; i < SEGMENT_SLICES_OPEN; i++) {
		if (s->open[i].fd >= 0)
			close(s->open[i].fd);
		s->open[i].fd = -1;
	}
}

/* The segment's descriptor, or -1. */
static int open_segment(struct segment_slices *s, const struct segment_position *at,
			struct err *err)
{
	unsigned i = at->segment % SEGMENT_SLICES_OPEN;

	if (s->open[i].fd >= 0 && s->open[i].segment == at->segment)
		return s->open[i].fd;
	if (s->open[i].fd >= 0)
		close(s->open[i].fd);
	s->open[i].fd = segment_log_open_at(s->log, at, err);
	s->open[i].segment = at->segment;
	return s->open[i].fd;
}

int segment_slices_read(struct segment_slices *s, const struct segment_position *at, uint32_t off,
			uint32_t n, void *to, struct err *err)
{
	off_t from = (off_t)at->offset + SEGMENT_FRAME_SIZE + off;
	size_t got = 0;
	int fd;

	if (off > at->length || n > at->length - off)
		return err_set(err, ERR_CORRUPT,
			       "segment %llu: record at %u has no bytes %u to %llu",
			       (unsigned long long)at->segment, at->offset, off,
			       (unsigned long long)off + n);
	fd = open_segment(s, at, err);
	if (fd < 0)
		return -1;
	while (got < n) {
		ssize_t k = pread(fd, (uint8_t *)to + got, n - got, from + (off_t)got);

		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			return err_errno(err, "segment %llu: read %u bytes of the record at %u",
					 (unsigned long long)at->segment, n, at->offset);
		if (k == 0)
			return err_set(err, ERR_CORRUPT, "segment %llu: ends in the record at %u",
				       (unsigned long long)at->segment, at->offset);
		got += (size_t)k;
	}
	return 0;
}
