/* SPDX-License-Identifier: Apache-2.0
 *
 * remote_write_check.h - what every remote-write request must be, whatever the metrics are: for
 * unit tests and for fuzzing.
 */
#ifndef TESTS_UNIT_REMOTE_WRITE_CHECK_H
#define TESTS_UNIT_REMOTE_WRITE_CHECK_H

#include "base/str.h"
#include "wire/pb.h"
#include "wire/remote_write.h"

static inline void check_label(struct bytes label, struct bytes *before)
{
	struct bytes name = BYTES_EMPTY, value = BYTES_EMPTY;
	struct pb_field f = { 0 };
	size_t n;

	while (pb_next(&label, &f) > 0)
		*(f.number == 1 ? &name : &value) = f.data;
	assert(name.n > 0 && value.n > 0 && str_is_utf8(name) && str_is_utf8(value));
	n = MIN(before->n, name.n);
	if (before->n > 0) { /* sorted, and no name twice */
		int d = memcmp(before->p, name.p, n);

		assert(d < 0 || (d == 0 && before->n < name.n));
	}
	*before = name;
}

static inline void check_series(struct bytes series)
{
	struct bytes name = BYTES_EMPTY;
	struct pb_field f = { 0 };
	uint32_t n_values = 0, last = 0;

	while (pb_next(&series, &f) > 0) {
		assert(f.wire == PB_LEN && f.number >= 1 && f.number <= 4);
		if (f.number == 1) {
			assert(last <= 1);
			check_label(f.data, &name);
		}
		n_values += f.number == 2 || f.number == 4;
		last = f.number;
	}
	assert(n_values == 1);
}

/* Returns the number of series. */
static inline uint32_t check_request(struct bytes request)
{
	struct pb_field f = { 0 };
	uint32_t n = 0;
	int got;

	while ((got = pb_next(&request, &f)) > 0) {
		assert(f.wire == PB_LEN && (f.number == 1 || f.number == 3));
		if (f.number == 1) {
			check_series(f.data);
			n++;
		}
	}
	assert(got == 0);
	return n;
}

static inline uint64_t n_points_of(const struct span_tables *t)
{
	struct metrics_reader r;
	struct metric_point p;
	uint64_t n = 0;

	metrics_reader_items(&r, t);
	while (metrics_next(&r, &p) > 0)
		n++;
	return n;
}

/* All requests of a batch, one behind the other into *out; every point is in one of them or counted
 * as dropped. Returns how many requests there were. */
static inline uint32_t encode_all(struct remote_write *w, const struct span_tables *t,
				  struct buf *out)
{
	uint64_t at = 0, n = 0, before;
	uint32_t n_requests = 0;
	int more = 1;

	while (more) {
		struct buf body = BUF_INIT;

		before = at;
		more = remote_write_encode(w, t, &at, 1000, &body);
		for (int i = 0; i < REMOTE_WRITE_DROPS; i++)
			n += w->dropped[i];
		n += w->n_points;
		assert(at - before >= w->n_points && (at > before || !more));
		check_request(buf_bytes(&body));
		assert(w->n_points > 0 || body.n == 0);
		buf_add_bytes(out, buf_bytes(&body));
		buf_fini(&body);
		n_requests++;
	}
	assert(n == at && n == n_points_of(t));
	return n_requests;
}

/* However requests are cut, they carry the same series in the same order. */
static inline void check_remote_write(const struct span_tables *t,
				      const struct remote_write_options *options)
{
	struct remote_write_options o = *options;
	struct buf whole = BUF_INIT, parts = BUF_INIT;
	struct remote_write w;

	o.target_info = o.metadata = false; /* they come with each request */
	for (int i = 0; i < 2; i++) {
		remote_write_init(&w, &o);
		encode_all(&w, t, i == 0 ? &whole : &parts);
		remote_write_fini(&w);
		o.max_points = (uint32_t)(n_points_of(t) / 3 + 1);
	}
	assert(bytes_eq(buf_bytes(&whole), buf_bytes(&parts)));
	buf_reset(&parts);
	remote_write_init(&w, options);
	encode_all(&w, t, &parts);
	remote_write_fini(&w);
	buf_fini(&whole);
	buf_fini(&parts);
}

#endif
