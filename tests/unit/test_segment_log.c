/* SPDX-License-Identifier: Apache-2.0
 *
 * test_segment_log.c - the segment log under kill -9, damage, full disks and failing system
 * calls.
 *
 * Every record's payload is made from its key (a number the test chose), so content can be
 * checked without a copy: key, length, then bytes of a generator seeded with the key. Seeds are
 * printed; SEGMENT_SEED=n repeats a run.
 */
#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "pipeline/segment_check.h"
#include "pipeline/segment_dir.h"
#include "pipeline/segment_log.h"
#include "pipeline/segment_reader.h"

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

static const char *scratch(const char *name)
{
	static char path[128];
	char cmd[160];

	snprintf(path, sizeof(path), "%s/%s", root, name);
	snprintf(cmd, sizeof(cmd), "rm -rf '%s'", path);
	assert_int_equal(system(cmd), 0);
	return path;
}

static void segment_path(const char *dir, uint64_t number, char out[256])
{
	char name[SEGMENT_NAME_SIZE];

	segment_dir_name(number, name);
	snprintf(out, 256, "%s/%s", dir, name);
}

static void copy_dir(const char *from, const char *to)
{
	char cmd[512];

	snprintf(cmd, sizeof(cmd), "rm -rf '%s' && cp -r '%s' '%s'", to, from, to);
	assert_int_equal(system(cmd), 0);
}

static uint64_t pick_seed(void)
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

static size_t payload_length(uint64_t key, size_t max)
{
	struct rng r;

	rng_seed(&r, key);
	return 16 + (size_t)rng_below(&r, rng_below(&r, 20) == 0 ? max : MIN(max, 600));
}

static void payload_fill(uint64_t key, uint8_t *p, size_t n)
{
	struct rng r;

	rng_seed(&r, key ^ 0x5eed);
	store_le64(p, key);
	store_le64(p + 8, n);
	for (size_t i = 16; i < n; i++)
		p[i] = (uint8_t)rng_next(&r);
}

static bool payload_good(struct bytes b, uint64_t *key)
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

static void item_done(struct segment_append *a)
{
	struct item *it = CONTAINER_OF(a, struct item, a);

	if (a->err.kind == ERR_NONE && atomic_exchange(&last_done_lsn, a->lsn) >= a->lsn)
		out_of_order++;
	atomic_store(&it->state, a->err.kind == ERR_NONE ? 1 : 2);
}

static void item_init(struct item *it, uint64_t key, size_t n)
{
	memset(it, 0, sizeof(*it));
	it->key = key;
	it->n = n;
	it->payload = xmalloc(n);
	payload_fill(key, it->payload, n);
	segment_append_bytes(&it->a, (struct bytes){ it->payload, n });
	it->a.done = item_done;
}

static void items_free(struct item *it, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(it[i].payload);
	free(it);
}

static struct segment_log *open_log(const struct segment_log_options *o,
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
static int append_one(struct segment_log *log, uint64_t key, size_t n, struct err *err)
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
static struct item *fill(struct segment_log *log, uint64_t first, size_t n, size_t max)
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
static uint64_t drain(struct segment_log *log, uint64_t from, unsigned *damages, see_fn see,
		      void *arg)
{
	struct segment_reader *r = segment_reader_new(log, from);
	struct segment_record rec;
	struct err err = ERR_INIT;
	uint64_t n = 0, last = 0, key;
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

/* ---- the plain life of a log ---- */

static void records_come_back(void **state)
{
	struct segment_log_options o = { .dir = scratch("plain"), .segment_bytes = 256 * KIB,
					 .sync = true };
	struct segment_log_found found;
	struct segment_log *log = open_log(&o, &found);
	struct item *it;
	struct buf b = BUF_INIT;
	struct err err = ERR_INIT;
	unsigned damages;
	char id[40];

	(void)state;
	assert_int_equal(found.next_lsn, 1);
	assert_int_equal(found.first_lsn, 1);
	snprintf(id, sizeof(id), "%s", segment_log_id(log));
	it = fill(log, 1000, 2000, 9000);
	for (size_t i = 0; i < 2000; i++) {
		assert_int_equal(it[i].a.lsn, i + 1);
		buf_reset(&b);
		assert_int_equal(segment_log_read(log, &it[i].a.position, &b, &err), 0);
		assert_int_equal(b.n, it[i].n);
		assert_memory_equal(b.p, it[i].payload, b.n);
	}
	assert_int_equal(drain(log, 0, &damages, NULL, NULL), 2000);
	assert_int_equal(drain(log, 1500, &damages, NULL, NULL), 501);
	assert_int_equal(damages, 0);
	segment_log_close(log);
	for (int verify = 0; verify < 2; verify++) {
		o.verify = verify;
		log = open_log(&o, &found);
		assert_string_equal(segment_log_id(log), id);
		assert_int_equal(found.records, 2000);
		assert_int_equal(found.next_lsn, 2001);
		assert_int_equal(found.lost + found.torn_bytes + found.quarantined, 0);
		assert_int_equal(drain(log, 0, &damages, NULL, NULL), 2000);
		buf_reset(&b);
		assert_int_equal(segment_log_read(log, &it[700].a.position, &b, &err), 0);
		assert_memory_equal(b.p, it[700].payload, b.n);
		segment_log_close(log);
	}
	buf_fini(&b);
	items_free(it, 2000);
}

static void freeing_survives_a_restart(void **state)
{
	struct segment_log_options o = { .dir = scratch("free"), .segment_bytes = 64 * KIB };
	struct segment_log_stats st, before;
	struct segment_log_found found;
	struct segment_log *log = open_log(&o, NULL);
	struct item *it = fill(log, 1, 1000, 3000);
	struct buf b = BUF_INIT;
	struct err err = ERR_INIT;
	unsigned damages;

	(void)state;
	segment_log_stats(log, &before);
	segment_log_free_to(log, 500);
	segment_log_free_to(log, 400);	/* backwards is ignored */
	segment_log_stats(log, &st);
	assert_true(st.bytes_on_disk < before.bytes_on_disk);
	assert_int_equal(st.records_held, 501);
	assert_int_equal(st.first_lsn, 500);
	assert_int_equal(segment_log_read(log, &it[0].a.position, &b, &err), -1);
	assert_int_equal(err.kind, ERR_NOT_FOUND);
	segment_log_close(log);
	log = open_log(&o, &found);
	assert_int_equal(found.first_lsn, 500);
	assert_int_equal(found.records, 501);
	assert_int_equal(drain(log, 0, &damages, NULL, NULL), 501);
	segment_log_free_to(log, UINT64_MAX);
	assert_int_equal(drain(log, 0, &damages, NULL, NULL), 0);
	segment_log_close(log);
	log = open_log(&o, &found);	/* an empty log goes on counting */
	assert_int_equal(found.next_lsn, 1001);
	assert_int_equal(found.records, 0);
	items_free(it, 1000);
	it = fill(log, 5000, 1, 100);
	assert_int_equal(it[0].a.lsn, 1001);
	segment_log_stats(log, &st);
	assert_int_equal(st.segments, 1);
	segment_log_close(log);
	items_free(it, 1);
	buf_fini(&b);
}

static void second_owner_is_told_the_pid(void **state)
{
	struct segment_log_options o = { .dir = scratch("lock") };
	struct segment_log *log = open_log(&o, NULL);
	struct err err = ERR_INIT;
	char want[256];

	(void)state;
	snprintf(want, sizeof(want), "segment log %s: in use by process %ld", o.dir,
		 (long)getpid());
	assert_null(segment_log_open(&o, NULL, &err));
	assert_int_equal(err.kind, ERR_EXISTS);
	assert_string_equal(err.msg, want);
	segment_log_close(log);
	log = open_log(&o, NULL);
	segment_log_close(log);
	segment_log_close(NULL);
}

static void limits_are_answered_at_once(void **state)
{
	struct segment_log_options o = { .dir = scratch("limits"), .max_bytes = 1 * MIB };
	struct segment_log *log = open_log(&o, NULL);
	struct item big, small;
	struct err err = ERR_INIT;

	(void)state;
	item_init(&big, 1, 300 * 1024);
	assert_int_equal(segment_log_append(log, &big.a, &err), -1);
	assert_int_equal(err.kind, ERR_TOO_LARGE);
	assert_false(err.retryable);
	free(big.payload);
	item_init(&small, 2, 0x4000);
	small.a.n_iov = 0;	/* an empty record is a record */
	assert_int_equal(segment_log_append(log, &small.a, &err), 0);
	assert_int_equal(segment_log_flush(log, &err), 0);
	assert_int_equal(small.a.lsn, 1);
	free(small.payload);
	segment_log_close(log);
}

/* ---- many threads, a tailing reader, a freeing consumer ---- */

struct crowd {
	struct segment_log *log;
	_Atomic uint64_t acked;
	_Atomic unsigned running;
	unsigned each;
	unsigned number;
};

static void *crowd_main(void *arg)
{
	struct crowd *c = arg;
	unsigned me = atomic_fetch_add(&c->number, 1);
	struct err err = ERR_INIT;
	enum { WINDOW = 8 };
	struct item it[WINDOW];

	for (unsigned i = 0; i < c->each; i += WINDOW) {
		for (unsigned k = 0; k < WINDOW; k++) {
			uint64_t key = (uint64_t)(me + 1) << 32 | (i + k);

			item_init(&it[k], key, payload_length(key, 20000));
			while (segment_log_append(c->log, &it[k].a, &err) < 0)
				usleep(500);
		}
		for (unsigned k = 0; k < WINDOW; k++) {
			while (atomic_load(&it[k].state) == 0)
				usleep(50);
			assert(it[k].state == 1);
			free(it[k].payload);
			atomic_fetch_add(&c->acked, 1);
		}
	}
	atomic_fetch_sub(&c->running, 1);
	return NULL;
}

static void crowd_appends_while_one_reads_and_frees(void **state)
{
	struct budget budget = BUDGET_INIT(1 * GIB);
	struct segment_log_options o = { .dir = scratch("crowd"), .segment_bytes = 128 * KIB,
					 .max_bytes = 2 * MIB, .sync = true, .budget = &budget };
	struct segment_log *log = open_log(&o, NULL);
	enum { THREADS = 8, EACH = 400 };
	struct crowd c = { .log = log, .running = THREADS, .each = EACH };
	struct segment_reader *r = segment_reader_new(log, 0);
	struct segment_record rec;
	struct segment_log_stats st;
	struct err err = ERR_INIT;
	pthread_t t[THREADS];
	uint64_t seen = 0, key;

	(void)state;
	for (unsigned i = 0; i < THREADS; i++)
		pthread_create(&t[i], NULL, crowd_main, &c);
	while (seen < THREADS * EACH) {
		int rc = segment_reader_next(r, &rec, &err);

		assert_true(rc >= 0);
		if (rc == 0) {
			segment_log_wait(log, segment_reader_lsn(r), 50);
			continue;
		}
		assert_int_equal(rec.lsn, seen + 1);
		assert_true(payload_good(rec.payload, &key));
		seen++;
		if (seen % 50 == 0)
			segment_log_free_to(log, rec.lsn + 1);
		if (seen % 500 == 0) {
			segment_log_stats(log, &st);
			assert_true(st.bytes_on_disk <= o.max_bytes);
		}
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(segment_reader_next(r, &rec, &err), 0);
	assert_int_equal(c.acked, THREADS * EACH);
	assert_int_equal(out_of_order, 0);
	segment_reader_free(r);
	segment_log_close(log);
	assert_int_equal(budget.used, 0);
}

/* ---- kill -9 ---- */

enum { CRASH_THREADS = 6, CRASH_ROUNDS = 60 };

struct crash {
	struct segment_log *log;
	int pipe;
	uint64_t round;
	_Atomic uint64_t number;
};

/* Keys of acknowledged records go down the pipe from done(): what the parent has read was
 * acknowledged. */
struct crash_item {
	struct item it;
	struct crash *c;
	_Atomic int done;
};

static void crash_done(struct segment_append *a)
{
	struct crash_item *ci = CONTAINER_OF(a, struct crash_item, it.a);
	uint64_t pair[2] = { ci->it.key, a->lsn };

	if (a->err.kind == ERR_NONE && write(ci->c->pipe, pair, sizeof(pair)) != sizeof(pair))
		_exit(1);
	atomic_store(&ci->done, 1);
}

static void *crash_main(void *arg)
{
	struct crash *c = arg;
	uint64_t me = atomic_fetch_add(&c->number, 1);
	struct crash_item ci[4];
	uint64_t n = 0;

	for (;;) {
		for (unsigned k = 0; k < COUNT_OF(ci); k++) {
			uint64_t key = c->round << 40 | me << 32 | n++;

			item_init(&ci[k].it, key, payload_length(key, 40000));
			ci[k].c = c;
			ci[k].done = 0;
			ci[k].it.a.done = crash_done;
			while (segment_log_append(c->log, &ci[k].it.a, NULL) < 0)
				usleep(100);
		}
		for (unsigned k = 0; k < COUNT_OF(ci); k++) {
			while (!atomic_load(&ci[k].done))
				usleep(20);
			free(ci[k].it.payload);
		}
	}
	return NULL;
}

static void crash_child(const struct segment_log_options *o, int fd, uint64_t round)
{
	struct crash c = { .pipe = fd, .round = round };
	struct err err = ERR_INIT;
	pthread_t t;

	log_configure(LOG_ERROR, LOG_CONSOLE);
	c.log = segment_log_open(o, NULL, &err);
	if (c.log == NULL) {
		fprintf(stderr, "child: %s\n", err.msg);
		_exit(2);
	}
	for (unsigned i = 0; i < CRASH_THREADS; i++)
		pthread_create(&t, NULL, crash_main, &c);
	for (;;)
		pause();
}

/* What was acknowledged so far, by LSN. */
struct ledger {
	uint64_t (*pairs)[2];
	size_t n, cap;
	uint64_t low;		/* below this LSN the test freed */
	size_t found;
	uint64_t *keys;		/* of all records read, to find twins */
	size_t n_keys, cap_keys;
};

static int pair_cmp(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return x[1] < y[1] ? -1 : x[1] > y[1];
}

static int u64_cmp(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static void ledger_see(void *arg, const struct segment_record *rec, uint64_t key)
{
	struct ledger *l = arg;
	uint64_t want[2] = { 0, rec->lsn };
	uint64_t(*p)[2] = bsearch(want, l->pairs, l->n, sizeof(*l->pairs), pair_cmp);

	l->keys = xgrow(l->keys, &l->cap_keys, l->n_keys + 1, sizeof(*l->keys));
	l->keys[l->n_keys++] = key;
	if (p == NULL)
		return;	/* written, not yet acknowledged: may be there */
	assert_int_equal((*p)[0], key);
	l->found++;
}

static void crash_round(struct segment_log_options *o, struct ledger *l, uint64_t round,
			struct rng *rng)
{
	struct segment_log_found found;
	struct segment_log *log;
	uint64_t pair[2], wanted = 0;
	unsigned damages;
	int fd[2], status;
	pid_t pid;

	assert_int_equal(pipe(fd), 0);
	fcntl(fd[1], F_SETPIPE_SZ, 1 << 20);
	fflush(stdout);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		close(fd[0]);
		crash_child(o, fd[1], round);
	}
	close(fd[1]);
	usleep((useconds_t)(2000 + rng_below(rng, 60000)));
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	while (read(fd[0], pair, sizeof(pair)) == sizeof(pair)) {
		l->pairs = xgrow(l->pairs, &l->cap, l->n + 1, sizeof(*l->pairs));
		memcpy(l->pairs[l->n++], pair, sizeof(pair));
	}
	close(fd[0]);
	if (l->n > 0)
		qsort(l->pairs, l->n, sizeof(*l->pairs), pair_cmp);
	for (size_t i = 1; i < l->n; i++)
		assert_true(l->pairs[i][1] != l->pairs[i - 1][1]);	/* no LSN given twice */
	log = open_log(o, &found);
	assert_int_equal(found.lost, 0);
	assert_int_equal(found.quarantined, 0);
	l->found = l->n_keys = 0;
	drain(log, 0, &damages, ledger_see, l);
	assert_int_equal(damages, 0);
	for (size_t i = 0; i < l->n; i++)
		wanted += l->pairs[i][1] >= l->low;
	assert_int_equal(l->found, wanted);
	qsort(l->keys, l->n_keys, sizeof(*l->keys), u64_cmp);
	for (size_t i = 1; i < l->n_keys; i++)
		assert_true(l->keys[i] != l->keys[i - 1]);
	if (round % 5 == 4) {
		l->low = found.next_lsn - rng_below(rng, 50) % found.next_lsn;
		segment_log_free_to(log, l->low);
	}
	segment_log_close(log);
}

static void kill_9_loses_nothing_acknowledged(void **state)
{
	struct segment_log_options o = { .dir = scratch("crash"), .segment_bytes = 256 * KIB,
					 .sync = true };
	uint64_t seed = pick_seed(), t0 = clock_mono_ns();
	struct ledger l = { 0 };
	struct rng rng;

	(void)state;
	rng_seed(&rng, seed);
	for (uint64_t round = 1; round <= CRASH_ROUNDS; round++)
		crash_round(&o, &l, round, &rng);
	printf("%d kills, %zu acknowledged records, %.1f s\n", CRASH_ROUNDS, l.n,
	       (double)(clock_mono_ns() - t0) / 1e9);
	assert_true(l.n > 100);
	free(l.pairs);
	free(l.keys);
}

/* ---- power cut: the unsynced tail of the last segment is anything ---- */

static void power_cut_keeps_what_was_synced(void **state)
{
	uint64_t seed = pick_seed();
	struct rng rng;

	(void)state;
	rng_seed(&rng, seed);
	for (int round = 0; round < 60; round++) {
		struct segment_log_options o = { .dir = scratch("power"), .segment_bytes = MIB,
						 .sync = true };
		struct segment_log *log = open_log(&o, NULL);
		size_t n = 5 + (size_t)rng_below(&rng, 30);
		size_t synced = 1 + (size_t)rng_below(&rng, n - 1);
		struct item *it = fill(log, 100, n, 5000);
		uint64_t from = it[synced].a.position.offset;
		uint64_t to = it[n - 1].a.position.offset + 24 + it[n - 1].n;
		struct segment_log_found found;
		char path[256], copy[128];
		unsigned damages;
		uint64_t got, at = from + rng_below(&rng, to - from);
		struct item *more;
		int fd;

		snprintf(copy, sizeof(copy), "%s/power-copy", root);
		copy_dir(o.dir, copy);	/* no end record yet */
		segment_log_close(log);
		segment_path(copy, it[0].a.position.segment, path);
		fd = open(path, O_RDWR);
		assert_true(fd >= 0);
		switch (round % 3) {
		case 0:
			assert_int_equal(ftruncate(fd, (off_t)at), 0);
			break;
		case 1:
			for (uint64_t i = at; i < to; i++)
				assert_int_equal(pwrite(fd, "", 1, (off_t)i), 1);
			break;
		default:
			for (uint64_t i = from; i < to; i += 1 + rng_below(&rng, 64)) {
				uint8_t c = (uint8_t)rng_next(&rng);

				assert_int_equal(pwrite(fd, &c, 1, (off_t)i), 1);
			}
		}
		close(fd);
		o.dir = copy;
		log = open_log(&o, &found);
		got = drain(log, 0, &damages, NULL, NULL);
		assert_true(got >= synced && got <= n);
		assert_int_equal(found.quarantined, 0);
		assert_true(found.next_lsn > synced);
		/* No LSN of which a part was on disk is given again. */
		for (size_t i = 0; i < n && found.torn_bytes > 0; i++)
			if (round % 3 == 2 || it[i].a.position.offset < at)
				assert_true(found.next_lsn > it[i].a.lsn);
		more = fill(log, 9000, 3, 100);
		assert_true(more[0].a.lsn >= found.next_lsn);
		segment_log_close(log);
		log = open_log(&o, &found);
		assert_int_equal(drain(log, 0, &damages, NULL, NULL), got + 3);
		assert_int_equal(found.torn_bytes, 0);
		segment_log_close(log);
		items_free(more, 3);
		items_free(it, n);
	}
}

/* ---- damage of any byte, in any file ---- */

struct seen {
	uint64_t n;
	bool have[1024];
};

static void seen_see(void *arg, const struct segment_record *rec, uint64_t key)
{
	struct seen *s = arg;

	assert_int_equal(rec->lsn, key);
	assert_false(s->have[key]);
	s->have[key] = true;
	s->n++;
}

enum { DAMAGE_RECORDS = 600 };

/* Flip, zero or cut in one segment; returns the byte range changed. */
static void damage_file(const char *path, struct rng *rng, uint64_t size, uint64_t *from,
			uint64_t *to)
{
	int fd = open(path, O_RDWR);
	uint8_t c;

	assert_true(fd >= 0);
	*from = rng_below(rng, size);
	switch (rng_below(rng, 4)) {
	case 0:
	case 1:
		*to = *from + 1;
		assert_int_equal(pread(fd, &c, 1, (off_t)*from), 1);
		c ^= (uint8_t)(1 << rng_below(rng, 8));
		assert_int_equal(pwrite(fd, &c, 1, (off_t)*from), 1);
		break;
	case 2:
		*to = MIN(size, *from + 1 + rng_below(rng, 5000));
		for (uint64_t i = *from; i < *to; i++)
			assert_int_equal(pwrite(fd, "", 1, (off_t)i), 1);
		break;
	default:
		*to = UINT64_MAX;
		assert_int_equal(ftruncate(fd, (off_t)*from), 0);
	}
	close(fd);
}

/* Read, free and reopen a damaged copy: whoever does not overlap the damage survives, the rest
 * is counted. */
static void check_damaged(const char *dir, const struct item *it, uint64_t segment, uint64_t from,
			  uint64_t to, bool verify)
{
	struct segment_log_options o = { .dir = dir, .segment_bytes = 64 * KIB, .verify = verify };
	struct segment_log_found found;
	struct segment_log *log = open_log(&o, &found);
	struct segment_log_stats st;
	struct seen seen = { 0 };
	unsigned damages;

	drain(log, 0, &damages, seen_see, &seen);
	for (size_t i = 0; i < DAMAGE_RECORDS; i++) {
		const struct segment_position *p = &it[i].a.position;

		if (p->segment == segment && p->offset < to && from < p->offset + 24 + p->length)
			continue;
		if (!seen.have[i + 1])
			fail_msg("segment %llu bytes %llu-%llu: good record %zu lost",
				 (unsigned long long)segment, (unsigned long long)from,
				 (unsigned long long)to, i + 1);
	}
	segment_log_stats(log, &st);
	assert_true(found.next_lsn >= seen.n + 1);
	if (seen.n + st.lost != DAMAGE_RECORDS && found.torn_bytes == 0)
		fail_msg("segment %llu bytes %llu-%llu: %llu read, %llu lost",
			 (unsigned long long)segment, (unsigned long long)from,
			 (unsigned long long)to, (unsigned long long)seen.n,
			 (unsigned long long)st.lost);
	if (verify)
		assert_int_equal(found.records, seen.n);
	assert_int_equal(st.records_held, seen.n);
	assert_int_equal(drain(log, 0, &damages, NULL, NULL), seen.n);	/* and is counted once */
	segment_log_stats(log, &st);
	assert_true(seen.n + st.lost <= DAMAGE_RECORDS);
	segment_log_free_to(log, UINT64_MAX);
	segment_log_close(log);
	log = open_log(&o, &found);
	assert_int_equal(found.records, 0);
	segment_log_close(log);
}

static void damage_is_skipped_and_counted(void **state)
{
	struct segment_log_options o = { .dir = scratch("damage"), .segment_bytes = 64 * KIB };
	uint64_t seed = pick_seed(), from, to;
	struct segment_log *log = open_log(&o, NULL);
	struct item *it = fill(log, 1, DAMAGE_RECORDS, 9000);
	uint64_t last = it[DAMAGE_RECORDS - 1].a.position.segment;
	char copy[128], dir[128], path[256];
	struct stat st;
	struct rng rng;

	(void)state;
	snprintf(dir, sizeof(dir), "%s", o.dir);
	segment_log_close(log);
	assert_true(last >= 3);
	snprintf(copy, sizeof(copy), "%s/damage-copy", root);
	rng_seed(&rng, seed);
	for (int round = 0; round < 200; round++) {
		uint64_t segment = 1 + rng_below(&rng, last);

		copy_dir(dir, copy);
		segment_path(copy, segment, path);
		assert_int_equal(stat(path, &st), 0);
		damage_file(path, &rng, round % 4 == 3 ? 80 : (uint64_t)st.st_size, &from, &to);
		/* Cutting the last segment shortens the log, which nobody can tell from a crash. */
		if (segment == last && to > from + 1)
			continue;
		check_damaged(copy, it, segment, from, to, round % 2);
	}
	items_free(it, DAMAGE_RECORDS);
}

static void put(const char *dir, const char *name, const char *text)
{
	char path[256];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void damaged_folder_files_do_not_stop_it(void **state)
{
	struct segment_log_options o = { .dir = scratch("folder"), .segment_bytes = 64 * KIB };
	struct segment_log_found found;
	struct segment_log *log = open_log(&o, NULL);
	struct item *it = fill(log, 1, 300, 20000);
	char id[40];
	unsigned damages;

	(void)state;
	snprintf(id, sizeof(id), "%s", segment_log_id(log));
	segment_log_free_to(log, 10);
	segment_log_close(log);
	put(o.dir, "id", "what?\n");
	put(o.dir, "lock", "");
	put(o.dir, "notes.txt", "not ours");
	log = open_log(&o, &found);
	assert_string_equal(segment_log_id(log), id);
	assert_int_equal(found.first_lsn, 10);
	assert_int_equal(drain(log, 0, &damages, NULL, NULL), 291);
	segment_log_close(log);
	put(o.dir, "cursor", "garbage");
	log = open_log(&o, &found);
	assert_int_equal(drain(log, 0, &damages, NULL, NULL), 300);
	segment_log_close(log);
	/* A whole segment overwritten, one that is foreign, and an empty one at the end. */
	put(o.dir, "00000000000000000002.segment", "nothing of ours");
	put(o.dir, "00000000000000000090.segment", "");
	log = open_log(&o, &found);
	assert_int_equal(found.quarantined, 1);
	assert_int_equal(drain(log, 0, &damages, NULL, NULL) + found.lost, 300);
	items_free(it, 300);
	it = fill(log, 1000, 1, 100);
	assert_int_equal(it[0].a.lsn, 301);
	assert_int_equal(it[0].a.position.segment, 91);
	segment_log_close(log);
	items_free(it, 1);
}

/* ---- failing system calls ---- */

static struct {
	_Atomic int fail_write_at, fail_sync_at, fail_alloc_at;	/* n-th call from now; 0: never */
	_Atomic int error;
	_Atomic bool short_writes;
	_Atomic bool for_ever;
} fault;

static bool is_due(_Atomic int *counter)
{
	int n = atomic_load(counter);

	if (n == 0)
		return false;
	if (n > 1) {
		atomic_store(counter, n - 1);
		return false;
	}
	if (!fault.for_ever)
		atomic_store(counter, 0);
	errno = fault.error;
	return true;
}

static ssize_t fault_pwritev(int fd, const struct iovec *iov, int n, off_t off)
{
	struct iovec one = iov[0];

	if (is_due(&fault.fail_write_at)) {
		/* Half of it reaches the file first, as on a disk that fills up. */
		one.iov_len /= 2;
		if (pwritev(fd, &one, 1, off) < 0)
			return -1;
		errno = fault.error;
		return -1;
	}
	if (!fault.short_writes)
		return pwritev(fd, iov, n, off);
	one.iov_len = one.iov_len > 1 ? one.iov_len / 2 + 1 : one.iov_len;
	return pwritev(fd, &one, 1, off);
}

static int fault_fdatasync(int fd)
{
	return is_due(&fault.fail_sync_at) ? -1 : fdatasync(fd);
}

static int fault_fallocate(int fd, int mode, off_t off, off_t len)
{
	return is_due(&fault.fail_alloc_at) ? -1 : fallocate(fd, mode, off, len);
}

static const struct segment_io fault_io = { fault_pwritev, fault_fdatasync, fault_fallocate,
					    ftruncate };

static const struct {
	const char *name;
	int write_at, sync_at, alloc_at, error;
	bool short_writes;
	enum err_kind want;
} faults[] = {
	{ "short writes only", 0, 0, 0, 0, true, ERR_NONE },
	{ "first write ENOSPC", 1, 0, 0, ENOSPC, false, ERR_EXHAUSTED },
	{ "write ENOSPC in the middle", 7, 0, 0, ENOSPC, true, ERR_EXHAUSTED },
	{ "write EIO", 2, 0, 0, EIO, false, ERR_UNAVAILABLE },
	{ "write EDQUOT", 3, 0, 0, EDQUOT, true, ERR_EXHAUSTED },
	{ "first fdatasync EIO", 0, 1, 0, EIO, false, ERR_UNAVAILABLE },
	{ "later fdatasync EIO", 0, 3, 0, EIO, false, ERR_UNAVAILABLE },
	{ "fdatasync ENOSPC", 0, 2, 0, ENOSPC, false, ERR_EXHAUSTED },
	{ "fallocate ENOSPC once", 0, 0, 1, ENOSPC, false, ERR_NONE },
	{ "fallocate EOPNOTSUPP", 0, 0, 1, EOPNOTSUPP, false, ERR_NONE },
	{ "fallocate EIO", 0, 0, 1, EIO, false, ERR_UNAVAILABLE },
};

/* Append one by one under a fault; each is durable or failed whole, and the log goes on. */
static void run_fault(size_t f)
{
	struct segment_log_options o = { .dir = scratch("fault"), .segment_bytes = 64 * KIB,
					 .sync = true, .io = &fault_io };
	struct segment_log *log = open_log(&o, NULL);
	struct segment_log_found found;
	bool good[200] = { false };
	uint64_t n_good = 0, n_failed = 0;

	for (size_t i = 0; i < COUNT_OF(good); i++) {
		struct err err = ERR_INIT;

		if (i == 20 || (faults[f].alloc_at && i == 0)) {
			fault.error = faults[f].error;
			fault.fail_write_at = faults[f].write_at;
			fault.fail_sync_at = faults[f].sync_at;
			fault.fail_alloc_at = faults[f].alloc_at;
			fault.short_writes = faults[f].short_writes;
		}
		good[i] = append_one(log, i, payload_length(i, 3000), &err) == 0;
		if (!good[i] && strncmp(err.msg, "disk full", 9) == 0)
			usleep(20000);
		if (!good[i] && (err.kind != faults[f].want || !err.retryable))
			fail_msg("%s: %s", faults[f].name, err.msg);
		n_good += good[i];
		n_failed += !good[i];
	}
	memset(&fault, 0, sizeof(fault));
	if ((n_failed > 0) != (faults[f].want != ERR_NONE) || n_good < 100)
		fail_msg("%s: %d failed", faults[f].name, (int)n_failed);
	segment_log_close(log);
	log = open_log(&o, &found);
	assert_int_equal(found.records, n_good);
	{
		struct segment_reader *r = segment_reader_new(log, 0);
		struct segment_record rec;

		for (size_t i = 0; i < COUNT_OF(good); i++) {
			if (!good[i])
				continue;
			assert_int_equal(segment_reader_next(r, &rec, NULL), 1);
			assert_int_equal(load_le64(rec.payload.p), i);
		}
		assert_int_equal(segment_reader_next(r, &rec, NULL), 0);
		segment_reader_free(r);
	}
	segment_log_close(log);
}

static void failing_calls_tear_nothing(void **state)
{
	(void)state;
	for (size_t f = 0; f < COUNT_OF(faults); f++)
		run_fault(f);
}

/* ---- full disks ---- */

/* Fill until refused, free a part, and it goes on: with nothing but deletion. */
static void fill_until_full(struct segment_log_options *o, const char *want)
{
	struct segment_log *log = open_log(o, NULL);
	struct segment_log_found found;
	struct err err = ERR_INIT;
	uint64_t acked = 0, low = 1;
	unsigned damages;

	for (int cycle = 0; cycle < 6; cycle++) {
		int refused = 0, taken = 0;

		while (refused < 3) {
			if (append_one(log, acked + 1, 7000, &err) == 0) {
				acked++;
				taken++;
				continue;
			}
			refused++;
			assert_true(err.retryable);
			if (strstr(err.msg, want) == NULL)
				fail_msg("wanted '%s', got '%s'", want, err.msg);
		}
		if (taken < 5)
			fail_msg("cycle %d took %d records only: %s", cycle, taken, err.msg);
		assert_int_equal(drain(log, low, &damages, NULL, NULL), acked - (low - 1));
		assert_int_equal(damages, 0);
		if (cycle < 5) {
			low += (acked - low) * 9 / 10;
			segment_log_free_to(log, low);
			continue;
		}
		segment_log_free_to(log, UINT64_MAX);
		segment_log_close(log);
		log = open_log(o, &found);
		assert_int_equal(found.records, 0);
	}
	/* Once more round, after everything was freed. */
	for (int i = 0; i < 30; i++)
		if (append_one(log, 50000 + (uint64_t)i, 7000, &err) < 0)
			fail_msg("after freeing all: %s", err.msg);
	segment_log_close(log);
}

static void max_bytes_is_back_pressure(void **state)
{
	struct segment_log_options o = { .dir = scratch("maxbytes"), .max_bytes = 1 * MIB };

	(void)state;
	fill_until_full(&o, "log full");
}

static void small_tmpfs_is_back_pressure(void **state)
{
	struct segment_log_options o = { .dir = NULL, .sync = true };
	char dir[160], mnt[128];

	(void)state;
	snprintf(mnt, sizeof(mnt), "%s", scratch("tmpfs"));
	assert_int_equal(mkdir(mnt, 0700), 0);
	if (mount("tmpfs", mnt, "tmpfs", 0, "size=3m") < 0) {
		printf("skipped: cannot mount a tmpfs: %s\n", strerror(errno));
		return;
	}
	snprintf(dir, sizeof(dir), "%s/log", mnt);
	o.dir = dir;
	fill_until_full(&o, "disk full");
	umount(mnt);
}

/* In a child, because the limit cannot be raised again by everybody. */
static void file_size_limit_is_back_pressure(void **state)
{
	struct segment_log_options o = { .dir = scratch("fsize"), .sync = true };
	struct rlimit lim = { 512 * 1024, 512 * 1024 };
	int status = -1;
	pid_t pid;

	(void)state;
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		struct segment_log *log;
		struct item *it;

		log_configure(LOG_ERROR, LOG_CONSOLE);
		if (setrlimit(RLIMIT_FSIZE, &lim) < 0)
			_exit(3);
		log = segment_log_open(&o, NULL, NULL);
		if (log == NULL)
			_exit(4);
		it = fill(log, 1, 500, 9000);	/* smaller segments, no signal */
		items_free(it, 500);
		segment_log_close(log);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* ---- large records, opening time ---- */

static void large_records_pass(void **state)
{
	struct segment_log_options o = { .dir = scratch("large"), .segment_bytes = 1 * MIB };
	static const size_t sizes[] = { 100, 3 * MIB, 1 * MIB, 64 * MIB, 700000, 20 };
	struct segment_log *log = open_log(&o, NULL);
	struct segment_reader *r = NULL;
	struct segment_record rec;
	struct err err = ERR_INIT;
	uint8_t *p = xcalloc(1, 64 * MIB + 1);

	(void)state;
	for (size_t i = 0; i < 64 * MIB; i += 4096)
		store_le32(p + i, (uint32_t)i);
	for (int pass = 0; pass < 2; pass++) {
		for (size_t i = 0; i < COUNT_OF(sizes) && pass == 0; i++) {
			struct item it = { .a.done = item_done };
			/* In three pieces, one of them empty. */
			struct iovec iov[3] = { { p, 10 }, { p, 0 }, { p + 10, sizes[i] - 10 } };

			it.a.iov = iov;
			it.a.n_iov = 3;
			assert_int_equal(segment_log_append(log, &it.a, &err), 0);
			assert_int_equal(segment_log_flush(log, &err), 0);
		}
		r = segment_reader_new(log, 0);
		for (size_t i = 0; i < COUNT_OF(sizes); i++) {
			assert_int_equal(segment_reader_next(r, &rec, &err), 1);
			assert_int_equal(rec.payload.n, sizes[i]);
			assert_int_equal(memcmp(rec.payload.p, p, sizes[i]), 0);
		}
		assert_int_equal(segment_reader_next(r, &rec, &err), 0);
		segment_reader_free(r);
		segment_log_close(log);
		log = open_log(&o, NULL);
	}
	{
		struct item it = { .a.done = item_done };

		segment_append_bytes(&it.a, (struct bytes){ p, 64 * MIB + 1 });
		assert_int_equal(segment_log_append(log, &it.a, &err), -1);
		assert_int_equal(err.kind, ERR_TOO_LARGE);
	}
	segment_log_close(log);
	free(p);
}

/* ---- fsck ---- */

static void check_line(void *arg, const struct segment_check_line *line)
{
	(void)line;
	++*(int *)arg;
}

static void fsck_counts_without_touching(void **state)
{
	struct segment_log_options o = { .dir = scratch("fsck"), .segment_bytes = 64 * KIB };
	struct segment_log *log = open_log(&o, NULL);
	struct item *it = fill(log, 1, 300, 4000);
	struct segment_check_report rep;
	struct err err = ERR_INIT;
	char path[256];
	int lines = 0, fd;

	(void)state;
	assert_int_equal(segment_check(o.dir, NULL, NULL, &rep, &err), -1);
	assert_int_equal(err.kind, ERR_EXISTS);	/* an owner is alive */
	segment_log_close(log);
	assert_int_equal(segment_check(o.dir, check_line, &lines, &rep, &err), 0);
	assert_int_equal(rep.records, 300);
	assert_int_equal(rep.lost + rep.torn_bytes + rep.unreadable, 0);
	assert_int_equal(lines, rep.segments);
	segment_path(o.dir, 2, path);
	fd = open(path, O_RDWR);
	assert_int_equal(pwrite(fd, "xxxx", 4, it[0].a.position.offset + 200), 4);
	close(fd);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(segment_check(o.dir, NULL, NULL, &rep, &err), 0);
		assert_int_equal(rep.records + rep.lost, 300);
		assert_true(rep.lost == 1 || rep.lost == 2);
	}
	assert_int_equal(segment_check("/nonexistent/log", NULL, NULL, &rep, &err), -1);
	items_free(it, 300);
}

static int group_setup(void **state)
{
	(void)state;
	snprintf(root, sizeof(root), "/tmp/segment_log.XXXXXX");
	return mkdtemp(root) == NULL ? -1 : 0;
}

static int group_teardown(void **state)
{
	char cmd[128];

	(void)state;
	snprintf(cmd, sizeof(cmd), "rm -rf '%s'", root);
	return system(cmd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(records_come_back),
		cmocka_unit_test(freeing_survives_a_restart),
		cmocka_unit_test(second_owner_is_told_the_pid),
		cmocka_unit_test(limits_are_answered_at_once),
		cmocka_unit_test(crowd_appends_while_one_reads_and_frees),
		cmocka_unit_test(kill_9_loses_nothing_acknowledged),
		cmocka_unit_test(power_cut_keeps_what_was_synced),
		cmocka_unit_test(damage_is_skipped_and_counted),
		cmocka_unit_test(damaged_folder_files_do_not_stop_it),
		cmocka_unit_test(failing_calls_tear_nothing),
		cmocka_unit_test(max_bytes_is_back_pressure),
		cmocka_unit_test(small_tmpfs_is_back_pressure),
		cmocka_unit_test(file_size_limit_is_back_pressure),
		cmocka_unit_test(large_records_pass),
		cmocka_unit_test(fsck_counts_without_touching),
	};

	log_configure(LOG_ERROR, LOG_CONSOLE);
	return cmocka_run_group_tests_name("segment_log", tests, group_setup, group_teardown);
}
