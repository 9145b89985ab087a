/* SPDX-License-Identifier: Apache-2.0
 *
 * test_segment_crash.c - the segment log after kill -9, a power cut, and damage to any of its
 * files.
 */
#include "tests/unit/segment_fixture.h"

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
	uint64_t(*p)[2] = l->n == 0 ? NULL
				    : bsearch(want, l->pairs, l->n, sizeof(*l->pairs), pair_cmp);

	l->keys = xgrow(l->keys, &l->cap_keys, l->n_keys + 1, sizeof(*l->keys));
	l->keys[l->n_keys++] = key;
	if (p == NULL)
		return;	/* written, not yet acknowledged: may be there */
	assert_int_equal((*p)[0], key);
	l->found++;
}

/* Which of the acknowledged ones are not there. */
static void tell_missing(const struct ledger *l, uint64_t wanted,
			 const struct segment_log_found *found, const char *dir)
{
	uint64_t first = 0, last = 0;

	for (size_t i = 0; i < l->n; i++) {
		bool seen = l->pairs[i][1] < l->low;

		for (size_t k = 0; !seen && k < l->n_keys; k++)
			seen = l->keys[k] == l->pairs[i][0];
		if (seen)
			continue;
		first = first == 0 ? l->pairs[i][1] : first;
		last = l->pairs[i][1];
	}
	if (l->found != wanted)
		printf("%s: missing between %llu and %llu; low %llu, first_lsn %llu, next_lsn "
		       "%llu, %llu records, %llu torn bytes, %u segments\n",
		       dir, (unsigned long long)first, (unsigned long long)last,
		       (unsigned long long)l->low, (unsigned long long)found->first_lsn,
		       (unsigned long long)found->next_lsn, (unsigned long long)found->records,
		       (unsigned long long)found->torn_bytes, found->segments);
	fflush(stdout);
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
	tell_missing(l, wanted, &found, o->dir);
	assert_int_equal(l->found, wanted);
	if (l->n_keys > 0) /* a child killed before its first append, or all freed */
		qsort(l->keys, l->n_keys, sizeof(*l->keys), u64_cmp);
	for (size_t i = 1; i < l->n_keys; i++)
		assert_true(l->keys[i] != l->keys[i - 1]);
	if (round % 5 == 4) {
		uint64_t low = found.next_lsn - rng_below(rng, 50) % found.next_lsn;

		/* On a busy machine fewer than that may have come since the last time. */
		l->low = MAX(l->low, low);
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

/* ---- what a check says is what opening and reading do ---- */

static void count_record(void *arg, uint64_t lsn, struct bytes payload)
{
	(void)lsn;
	(void)payload;
	++*(uint64_t *)arg;
}

/* Once or twice: one of its files damaged, removed, put under another name, or exchanged. */
static void damage_folder(const char *dir, struct rng *rng, uint64_t last)
{
	static const char *const small[] = { "id", "cursor", "lock" };
	char path[256], other[256], cmd[2048];
	uint64_t from, to;
	struct stat st;

	if (rng_below(rng, 3) == 0)
		snprintf(path, sizeof(path), "%s/%s", dir, small[rng_below(rng, 3)]);
	else
		segment_path(dir, 1 + rng_below(rng, last), path);
	segment_path(dir, 1 + rng_below(rng, last + 4), other);
	if (stat(path, &st) < 0 || st.st_size == 0)
		return;
	switch (rng_below(rng, 8)) {
	case 0:
		snprintf(cmd, sizeof(cmd), "rm '%s'", path);
		break;
	case 1:
		snprintf(cmd, sizeof(cmd), "cp -f '%s' '%s' 2>/dev/null || :", path, other);
		break;
	case 2:
		snprintf(cmd, sizeof(cmd),
			 "mv '%s' '%s.x'; mv '%s' '%s' 2>/dev/null; mv '%s.x' '%s'", path, path,
			 other, path, path, other);
		break;
	default:
		damage_file(path, rng, (uint64_t)st.st_size, &from, &to);
		return;
	}
	assert_int_equal(system(cmd), 0);
}

static void a_check_foretells(const char *dir, int round)
{
	struct segment_log_options o = { .dir = dir, .segment_bytes = 64 * KIB };
	struct segment_check_report rep;
	struct segment_log_stats st;
	struct segment_log *log;
	struct err err = ERR_INIT;
	uint64_t n_told = 0, n_read;
	unsigned damages;

	assert_int_equal(segment_check(dir, NULL, count_record, &n_told, &rep, &err), 0);
	log = open_log(&o, NULL);
	n_read = drain(log, 0, &damages, NULL, NULL);
	segment_log_stats(log, &st);
	segment_log_close(log);
	if (n_read != n_told || st.lost != rep.lost)
		fail_msg("round %d: told %llu and %llu lost, read %llu and %llu lost", round,
			 (unsigned long long)n_told, (unsigned long long)rep.lost,
			 (unsigned long long)n_read, (unsigned long long)st.lost);
}

static void a_check_is_exact(void **state)
{
	struct segment_log_options o = { .dir = scratch("told"), .segment_bytes = 64 * KIB };
	uint64_t seed = pick_seed(), last;
	struct segment_log *log = open_log(&o, NULL);
	struct item *it = fill(log, 1, DAMAGE_RECORDS, 9000);
	char copy[128], dir[128];
	struct rng rng;

	(void)state;
	snprintf(dir, sizeof(dir), "%s", o.dir);
	last = it[DAMAGE_RECORDS - 1].a.position.segment;
	segment_log_free_to(log, it[DAMAGE_RECORDS / 3].a.lsn);
	segment_log_close(log);
	snprintf(copy, sizeof(copy), "%s/told-copy", root);
	rng_seed(&rng, seed);
	for (int round = 0; round < 200; round++) {
		copy_dir(dir, copy);
		for (int i = round % 2; i >= 0; i--)
			damage_folder(copy, &rng, last);
		a_check_foretells(copy, round);
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
	/* Another legal id: the segments know better. */
	id[7] = id[7] == 'a' ? 'b' : 'a';
	put(o.dir, "id", id);
	id[7] = '\0';
	log = open_log(&o, &found);
	assert_int_equal(found.quarantined, 0);
	assert_int_equal(strncmp(segment_log_id(log), id, 7), 0);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(kill_9_loses_nothing_acknowledged),
		cmocka_unit_test(power_cut_keeps_what_was_synced),
		cmocka_unit_test(damage_is_skipped_and_counted),
		cmocka_unit_test(a_check_is_exact),
		cmocka_unit_test(damaged_folder_files_do_not_stop_it),
	};

	log_configure(LOG_ERROR, LOG_CONSOLE);
	return cmocka_run_group_tests_name("segment_crash", tests, group_setup, group_teardown);
}
