/* SPDX-License-Identifier: Apache-2.0
 *
 * segment_slice.c - see segment_slice.h.
 */
#include "pipeline/segment_slice.h"

#include "pipeline/segment_log_private.h"

#include <errno.h>
#include <unistd.h>

void segment_slices_init(struct segment_slices *s, struct segment_log *log)
{
	*s = (struct segment_slices){ log, 0, -1 };
}

void segment_slices_fini(struct segment_slices *s)
{
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
}

static int open_segment(struct segment_slices *s, const struct segment_position *at,
			struct err *err)
{
	if (s->fd >= 0 && s->segment == at->segment)
		return 0;
	segment_slices_fini(s);
	s->fd = segment_log_open_at(s->log, at, err);
	s->segment = at->segment;
	return s->fd < 0 ? -1 : 0;
}

int segment_slices_read(struct segment_slices *s, const struct segment_position *at, uint32_t off,
			uint32_t n, void *to, struct err *err)
{
	off_t from = (off_t)at->offset + SEGMENT_FRAME_SIZE + off;
	size_t got = 0;

	if (off > at->length || n > at->length - off)
		return err_set(err, ERR_CORRUPT,
			       "segment %llu: record at %u has no bytes %u to %llu",
			       (unsigned long long)at->segment, at->offset, off,
			       (unsigned long long)off + n);
	if (open_segment(s, at, err) < 0)
		return -1;
	while (got < n) {
		ssize_t k = pread(s->fd, (uint8_t *)to + got, n - got, from + (off_t)got);

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
