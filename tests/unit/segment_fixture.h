/* SPDX-License-Identifier: Apache-2.0
 *
 * segment_fixture.h - what test_segment_log.c and test_segment_crash.c share: scratch folders,
 * and records whose content follows from their key.
 *
 * A payload is key, length, then bytes of a generator seeded with the key, so content can be
 * checked without a copy. Seeds are printed; SEGMENT_SEED=n repeats a run.
 */
#ifndef TESTS_UNIT_SEGMENT_FIXTURE_H
#define TESTS_UNIT_SEGMENT_FIXTURE_H

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "pipeline/segment/check.h"
#include "pipeline/segment/dir.h"
#include "pipeline/segment/log.h"
#include "pipeline/segment/reader.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- scratch folders ---- */

static char root[64];

static inline const char *scratch(const char *name)
{
	static char path[128];
	char cmd[160];

	snprintf(path, sizeof(path), "%s/%s", root, name);
	snprintf(cmd, sizeof(cmd), "rm -rf '%s'", path);
	assert_int_equal(system(cmd), 0);
	return path;
}

static inline void segment_path(const char *dir, uint64_t number, char out[256])
{
	char name[SEGMENT_NAME_SIZE];

	segment_dir_name(number, name);
	snprintf(out, 256, "%s/%s", dir, name);
}

static inline void copy_dir(const char *from, const char *to)
{
	char cmd[512];

	snprintf(cmd, sizeof(cmd), "rm -rf '%s' && cp -r '%s' '%s'", to, from, to);
	assert_int_equal(system(cmd), 0);
}

static inline uint64_t pick_seed(void)
{
	const char *s = getenv("SEGMENT_SEED");
	uint64_t seed = clock_mono_ns();

	if (s != NULL)
		seed = strtoull(s, NULL, 10);
	printf("seed %llu\n", (unsigned long long)seed);
	fflush(stdout);
	return seed;
}

/* ---- records made from a key ---- */

static inline size_t payload_length(uint64_t key, size_t max)
{
	struct rng r;

	rng_seed(&r, key);
	return 16 + (size_t)rng_below(&r, rng_below(&r, 20) == 0 ? max : MIN(max, 600));
}

static inline void payload_fill(uint64_t key, uint8_t *p, size_t n)
{
	struct rng r;

	rng_seed(&r, key ^ 0x5eed);
	store_le64(p, key);
	store_le64(p + 8, n);
	for (size_t i = 16; i < n; i++)
		p[i] = (uint8_t)rng_next(&r);
}

static inline bool payload_good(struct bytes b, uint64_t *key)
{
	struct rng r;

	if (b.n < 16 || load_le64(b.p + 8) != b.n)
		return false;
	*key = load_le64(b.p);
	rng_seed(&r, *key ^ 0x5eed);
	for (size_t i = 16; i < b.n; i++)
		if (b.p[i] != (uint8_t)rng_next(&r))
			return false;
	return true;
}

/* One append with its memory; done() marks it. */
struct item {
	struct segment_append a;
	uint64_t key;
	uint8_t *payload;
	size_t n;
	_Atomic int state;	/* 0 waiting, 1 durable, 2 failed */
};

static _Atomic uint64_t last_done_lsn;
static _Atomic unsigned out_of_order;

static inline void item_done(struct segment_append *a)
{
	struct item *it = CONTAINER_OF(a, struct item, a);

	if (a->err.kind == ERR_NONE && atomic_exchange(&last_done_lsn, a->lsn) >= a->lsn)
		out_of_order++;
	atomic_store(&it->state, a->err.kind == ERR_NONE ? 1 : 2);
}

static inline void item_init(struct item *it, uint64_t key, size_t n)
{
	memset(it, 0, sizeof(*it));
	it->key = key;
	it->n = n;
	it->payload = xmalloc(n);
	payload_fill(key, it->payload, n);
	segment_append_bytes(&it->a, (struct bytes){ it->payload, n });
	it->a.done = item_done;
}

static inline void items_free(struct item *it, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(it[i].payload);
	free(it);
}

static inline struct segment_log *open_log(const struct segment_log_options *o,
				    struct segment_log_found *found)
{
	struct err err = ERR_INIT;
	struct segment_log *log = segment_log_open(o, found, &err);

	if (log == NULL)
		fail_msg("open %s: %s", o->dir, err.msg);
	atomic_store(&last_done_lsn, 0);
	return log;
}

/* Append one record and wait for its answer: 0, or -1 with *err. */
static inline int append_one(struct segment_log *log, uint64_t key, size_t n, struct err *err)
{
	struct item it;
	int rc;

	item_init(&it, key, n);
	rc = segment_log_append(log, &it.a, err);
	if (rc == 0) {
		segment_log_flush(log, NULL);
		assert_int_not_equal(it.state, 0);
		rc = it.state == 1 ? 0 : -1;
		if (rc < 0)
			*err = it.a.err;
	}
	free(it.payload);
	return rc;
}

/* Append n records with keys from `first`; all must become durable. */
static inline struct item *fill(struct segment_log *log, uint64_t first, size_t n, size_t max)
{
	struct item *it = xcalloc(n, sizeof(*it));
	struct err err = ERR_INIT;

	for (size_t i = 0; i < n; i++) {
		item_init(&it[i], first + i, payload_length(first + i, max));
		while (segment_log_append(log, &it[i].a, &err) < 0) {
			assert_true(err.retryable);
			usleep(1000);
		}
	}
	assert_int_equal(segment_log_flush(log, &err), 0);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(it[i].state, 1);
	return it;
}

typedef void (*see_fn)(void *arg, const struct segment_record *rec, uint64_t key);

/* Read all; every record must be good and in order. Returns how many; *damages counts the -1
 * answers. */
static inline uint64_t drain(struct segment_log *log, uint64_t from, unsigned *damages, see_fn see,
		      void *arg)
{
	struct segment_reader *r = segment_reader_new(log, from);
	struct segment_record rec;
	struct err err = ERR_INIT;
	uint64_t n = 0, last = 0, key = 0;
	int rc;

	*damages = 0;
	while ((rc = segment_reader_next(r, &rec, &err)) != 0) {
		if (rc < 0) {
			assert_int_equal(err.kind, ERR_CORRUPT);
			++*damages;
			assert_true(*damages < 100000);
			continue;
		}
		assert_true(rec.lsn > last && rec.lsn >= from);
		last = rec.lsn;
		if (!payload_good(rec.payload, &key))
			fail_msg("lsn %llu: wrong content", (unsigned long long)rec.lsn);
		if (see != NULL)
			see(arg, &rec, key);
		n++;
	}
	segment_reader_free(r);
	return n;
}

static inline int group_setup(void **state)
{
	(void)state;
	snprintf(root, sizeof(root), "/tmp/segment_log.XXXXXX");
	return mkdtemp(root) == NULL ? -1 : 0;
}

static inline int group_teardown(void **state)
{
	char cmd[128];

	(void)state;
	snprintf(cmd, sizeof(cmd), "rm -rf '%s'", root);
	return system(cmd);
}

#endif
