/* SPDX-License-Identifier: Apache-2.0
 *
 * test_section_streams.c - a topic of two partitions, and owners that each believe to own them:
 * they read from where the group's committed offsets say (or from anywhere), drop, split, merge and
 * reorder on the way, cut sections of their own sizes, meet failures of the store before and after
 * the fact, die or are forgotten between any two steps and go on later, while the topic may be
 * deleted and made again. At the end the visible blocks together hold every span once.
 *
 * All is stepped by hand in one thread, so a seed repeats a run: SECTION_SEED=n.
 */
#include "tests/unit/section_fixture.h"

#include "base/hash.h"
#include "base/str.h"
#include "blocks/block_iter.h"
#include "exporters/blocks/section_streams.h"
#include "pipeline/segment/file.h"
#include "tests/faulty_backend.h"
#include "tests/memory_backend.h"

#include <errno.h>
#include <ftw.h>

enum {
	PARTITIONS = 2,
	RECORDS = 40, /* of a partition and life */
	SPANS_MAX = 4,
	LIVES = 2,
	OWNERS = 4,
	HELD_MAX = 64,
	SPAN_NUMBERS = LIVES * PARTITIONS * RECORDS * SPANS_MAX,
};

/* ---- the topic ---- */

struct record {
	uint64_t offset, timestamp_ms;
	unsigned n_spans;
	unsigned tenant;
};

struct topic {
	unsigned life;
	struct record records[LIVES][PARTITIONS][RECORDS];
	uint64_t committed[LIVES][PARTITIONS]; /* of the group */
};

/* 1 and up, unique over lives. */
static uint64_t span_number(unsigned life, unsigned partition, unsigned record, unsigned k)
{
	return 1 + k + SPANS_MAX * (record + RECORDS * (partition + PARTITIONS * (uint64_t)life));
}

/* A decision of the pipeline that every owner takes alike. */
static bool is_sampled(uint64_t span)
{
	return span % 7 != 0;
}

static uint64_t wild_time(struct rng *r, uint64_t ms, unsigned life)
{
	return (rng_below(r, 4) == 0 ? rng_below(r, 12000) : ms) * LIVES + life;
}

/* In half of the runs clocks are far ahead and far behind; no two lives share a time. */
static void topic_init(struct topic *t, struct rng *r)
{
	bool is_wild = rng_below(r, 2) == 0;

	for (unsigned life = 0; life < LIVES; life++)
		for (unsigned p = 0; p < PARTITIONS; p++) {
			uint64_t offset = life == 0 && p == 1 ? 100 : 0, ms = 1000 + life * 5000;

			for (unsigned i = 0; i < RECORDS; i++) {
				t->records[life][p][i] = (struct record){
					offset, is_wild ? wild_time(r, ms, life) : ms,
					(unsigned)rng_below(r, SPANS_MAX + 1), rng_below(r, 8) == 0
				};
				offset += 1 + (rng_below(r, 12) == 0);
				/* Producers' clocks differ a little. */
				ms += rng_below(r, 20);
				ms -= rng_below(r, 5);
			}
		}
}

/* ---- owners ---- */

struct owner;

struct reader {
	struct owner *owner;
	struct source *source;
	unsigned partition, at; /* next record */
};

struct owner {
	struct section_streams *streams;
	struct store *store;
	struct backend *faulty;
	struct reader readers[PARTITIONS];
	unsigned life;
	bool is_member; /* the group's: its commits count */
	struct batch *held[HELD_MAX];
	size_t n_held;
	char *dir;
};

struct world {
	struct rng rng;
	struct backend *be;
	struct topic topic;
	struct owner *owners[OWNERS];
	struct budget budget;
	struct segment_io io;
	uint64_t now_ns;
	unsigned n_opened;
	char *dir;
	uint8_t seen[SPAN_NUMBERS + 1];
	uint64_t n_duplicates, n_followed, n_given_up, n_sections;
};

static uint64_t below(struct world *w, uint64_t n)
{
	return rng_below(&w->rng, n);
}

/* The memory backend, lent to each owner's faulty one. */
struct lent {
	struct backend be;
	struct backend *to;
};

static struct backend *lender(struct backend *be)
{
	return CONTAINER_OF(be, struct lent, be)->to;
}

static int lent_put(struct backend *be, const char *key, struct bytes data,
		    enum backend_put_mode mode, struct err *err)
{
	return backend_put(lender(be), key, data, mode, err);
}

static struct backend_writer *lent_open(struct backend *be, const char *key, struct err *err)
{
	return backend_writer_open(lender(be), key, err);
}

/* The writer is the memory backend's own, and must find it. */
static int lent_append(struct backend_writer *wr, struct bytes data, struct err *err)
{
	struct backend *be = wr->be;
	int ret;

	wr->be = lender(be);
	ret = wr->be->ops->writer_append(wr, data, err);
	wr->be = be;
	return ret;
}

static int lent_finish(struct backend_writer *wr, struct err *err)
{
	wr->be = lender(wr->be);
	return wr->be->ops->writer_finish(wr, err);
}

static void lent_abort(struct backend_writer *wr)
{
	wr->be = lender(wr->be);
	wr->be->ops->writer_abort(wr);
}

static int lent_read(struct backend *be, const char *key, size_t max, struct buf *out,
		     struct err *err)
{
	return backend_read(lender(be), key, max, out, err);
}

static int lent_size(struct backend *be, const char *key, uint64_t *size, struct err *err)
{
	return backend_size(lender(be), key, size, err);
}

static int lent_list(struct backend *be, const char *folder, enum backend_list_mode mode,
		     backend_list_fn *fn, void *arg, struct err *err)
{
	return backend_list(lender(be), folder, mode, fn, arg, err);
}

static int lent_remove(struct backend *be, const char *key, struct err *err)
{
	return backend_delete(lender(be), key, err);
}

static void lent_free(struct backend *be)
{
	free(CONTAINER_OF(be, struct lent, be));
}

static struct backend *lend(struct backend *to)
{
	static const struct backend_ops ops = {
		.put = lent_put,
		.writer_open = lent_open,
		.writer_append = lent_append,
		.writer_finish = lent_finish,
		.writer_abort = lent_abort,
		.read = lent_read,
		.size = lent_size,
		.list = lent_list,
		.remove = lent_remove,
		.free = lent_free,
	};
	struct lent *l = xcalloc(1, sizeof(*l));

	l->be.ops = &ops;
	l->to = to;
	return &l->be;
}

static unsigned record_of(const struct world *w, unsigned life, unsigned p, uint64_t offset)
{
	unsigned i = 0;

	while (i < RECORDS && w->topic.records[life][p][i].offset < offset)
		i++;
	return i;
}

/* Where an owner begins. */
enum start {
	AT_COMMITTED,
	BEFORE,   /* offsets were reset */
	ANYWHERE, /* it is told by hand what to read, whatever the group has */
};

static void open_reader(struct world *w, struct owner *o, unsigned p, enum start start)
{
	struct reader *r = &o->readers[p];
	struct err err = ERR_INIT;

	*r = (struct reader){ .owner = o, .partition = p };
	r->at = record_of(w, o->life, p, w->topic.committed[o->life][p]);
	if (start == BEFORE)
		r->at = (unsigned)below(w, r->at + 1);
	else if (start == ANYWHERE)
		r->at = (unsigned)below(w, RECORDS);
	r->source = source_new(&(struct source_options){
		.name = p ? "g/c/t/1" : "g/c/t/0",
		.partition = p,
		.n_partitions = PARTITIONS,
		.budget = &w->budget,
	});
	if (section_streams_open(o->streams, r->source, &err) < 0)
		fail_msg("%s", err.msg);
}

/* Thousands of scratches: none of 64 MiB in advance. */
static int no_fallocate(int fd, int mode, off_t off, off_t len)
{
	(void)fd;
	(void)mode;
	(void)off;
	(void)len;
	errno = EOPNOTSUPP;
	return -1;
}

static struct owner *owner_new(struct world *w, enum start start)
{
	static const uint64_t sizes[] = { 300, 700, 2000, 100000 };
	struct owner *o = xcalloc(1, sizeof(*o));
	struct section_streams_options so = {
		.o = { .max_block_bytes = sizes[below(w, COUNT_OF(sizes))],
		       .max_block_age_ns = 100000 * NS_PER_S,
		       .writer = { .index_page_size = 256, .bloom_shard_bytes = 64 },
		       .budget = &w->budget },
		.exporter = "",
		.flush_at_end = true,
		.by_hand = true,
	};
	struct err err = ERR_INIT;

	so.o.log_io = &w->io;
	o->dir = xasprintf("%s/%u", w->dir, w->n_opened++);
	o->faulty = faulty_backend_new(lend(w->be));
	o->store = store_new(&(struct store_options){
		.backend = o->faulty, .local_path = w->dir, .poll_ns = NS_PER_S });
	so.o.store = o->store;
	so.o.dir = o->dir;
	o->streams = section_streams_start(&so, &err);
	if (o->streams == NULL)
		fail_msg("%s", err.msg);
	o->life = w->topic.life;
	o->is_member = start != ANYWHERE;
	for (unsigned p = 0; p < PARTITIONS; p++)
		open_reader(w, o, p, start);
	return o;
}

static void refuse(struct batch *b)
{
	struct err err = ERR_INIT;

	err_set(&err, ERR_UNAVAILABLE, "the process ends");
	batch_settle(b, VERDICT_RETRYABLE, DROP_REASON_MAX, &err);
	batch_unref(b);
}

/* Rebalanced away, or dead: then its store fails from now on. */
static void owner_free(struct world *w, struct owner *o, bool dies)
{
	struct section_streams_stats s;

	if (dies)
		faulty_set(o->faulty, (struct faulty_rule){ FAULTY_ANY, NULL, -1, false, ERR_IO });
	while (o->n_held > 0)
		refuse(o->held[--o->n_held]);
	section_streams_settle_appends(o->streams);
	for (unsigned p = 0; p < PARTITIONS; p++)
		source_close(o->readers[p].source);
	section_streams_stats(o->streams, &s);
	w->n_duplicates += s.s.duplicates + s.s.conflicting + s.s.lost_spans;
	w->n_followed += s.followed;
	w->n_given_up += s.given_up;
	w->n_sections += s.s.sections;
	section_streams_stop(o->streams);
	for (unsigned p = 0; p < PARTITIONS; p++)
		source_unref(o->readers[p].source);
	store_free(o->store);
	remove_tree(o->dir);
	free(o->dir);
	free(o);
}

/* ---- reading and the pipeline ---- */

static struct batch *make_batch(const char *tenant, const struct test_span *spans, size_t n)
{
	struct buf otlp = BUF_INIT;
	struct otlp_result result;
	struct rcbuf *r;
	struct batch *b;

	put_request(&otlp, spans, n);
	r = rcbuf_new_forced(NULL, otlp.n);
	memcpy(r->p, otlp.p, otlp.n);
	r->n = otlp.n;
	buf_fini(&otlp);
	b = batch_from_otlp(r, tenant, NULL, &result, NULL);
	assert_non_null(b);
	return b;
}

static struct batch *sample(struct batch *b)
{
	uint8_t *keep = xmalloc(b->tables.n_spans);

	for (uint32_t i = 0; i < b->tables.n_spans; i++)
		keep[i] = is_sampled(load_be64(b->tables.spans[i].span_id));
	b = batch_filter(b, keep, DROP_SAMPLED);
	free(keep);
	return b;
}

static void hold(struct owner *o, struct batch *b)
{
	if (b == NULL)
		return;
	if (o->n_held == HELD_MAX) {
		refuse(b);
		return;
	}
	o->held[o->n_held++] = b;
}

static void deliver(struct owner *o, struct batch *b)
{
	struct batch *rest;

	section_streams_append(o->streams, b, &rest);
	assert_null(rest);
}

/* One that waits, or two of a tenant as one; now and then the next hop or a limiter refuses. */
static void deliver_held(struct world *w, struct owner *o, bool plain)
{
	size_t i = below(w, o->n_held);
	struct batch *v[2] = { o->held[i], NULL };

	o->held[i] = o->held[--o->n_held];
	if (!plain && below(w, 15) == 0) {
		refuse(v[0]);
		return;
	}
	for (size_t k = 0; k < o->n_held && below(w, 2); k++)
		if (strcmp(o->held[k]->tenant, v[0]->tenant) == 0) {
			v[1] = o->held[k];
			o->held[k] = o->held[--o->n_held];
			v[0] = batch_concat(v, 2);
			break;
		}
	deliver(o, v[0]);
}

static void send_down(struct world *w, struct owner *o, struct batch *b)
{
	struct batch *tail;

	b = sample(b);
	if (b != NULL && b->tables.n_spans > 1 && below(w, 3) == 0) {
		batch_split(b, 1 + (uint32_t)below(w, b->tables.n_spans - 1), &b, &tail);
		hold(o, tail);
	}
	if (below(w, 2))
		hold(o, b);
	else if (b != NULL)
		deliver(o, b);
}

/* Consecutive records of one tenant as one range. */
static void read_range(struct world *w, struct owner *o, unsigned p)
{
	struct reader *r = &o->readers[p];
	const struct record *records = w->topic.records[o->life][p];
	struct test_span spans[8 * SPANS_MAX];
	struct source_record *out;
	unsigned max = 1 + (unsigned)below(w, 8), n = 0;
	size_t n_spans = 0;
	uint64_t limit, unused;
	struct source_range *range;
	struct batch *b;

	if (r->at == RECORDS)
		return;
	if (source_place(r->source, records[r->at].offset, &limit) == SOURCE_KNOWN) {
		r->at++;
		return;
	}
	out = xcalloc(max, sizeof(*out));
	for (; n < max && r->at < RECORDS && records[r->at].offset <= limit; n++, r->at++) {
		const struct record *rec = &records[r->at];

		if (n > 0 && (rec->tenant != records[r->at - 1].tenant ||
			      source_place(r->source, rec->offset, &unused) != SOURCE_NEW))
			break;
		out[n] =
			(struct source_record){ rec->offset, rec->timestamp_ms, (uint32_t)n_spans };
		for (unsigned k = 0; k < rec->n_spans; k++) {
			uint64_t span = span_number(o->life, p, r->at, k);

			spans[n_spans++] = plain_span(span / 3, span);
		}
	}
	b = make_batch(records[r->at - 1].tenant ? "u" : "t", spans, n_spans);
	range = source_range_new(r->source, out, n, b->tables.n_spans);
	batch_bind(b, &range->origin);
	source_add(r->source, range);
	if (b->tables.n_spans > 0)
		send_down(w, o, b);
	else
		batch_unref(b);
}

static void look_after(struct world *w, struct owner *o)
{
	for (unsigned p = 0; p < PARTITIONS; p++) {
		struct reader *r = &o->readers[p];
		struct source_progress s;
		uint64_t *committed = &w->topic.committed[o->life][p];

		source_poll(r->source, &s);
		if (o->is_member && s.committable > *committed)
			*committed = s.committable;
		if (s.has_refused)
			r->at = record_of(w, o->life, p, source_rewind(r->source));
	}
}

/* ---- what may happen ---- */

static void set_fault(struct world *w, struct owner *o)
{
	static const char *const parts[] = { NULL, "commits", "meta.json", "/data", "/index" };

	faulty_set(o->faulty,
		   (struct faulty_rule){ 1u << below(w, 6), parts[below(w, COUNT_OF(parts))],
					 1 + (int)below(w, 3), below(w, 2) != 0,
					 below(w, 2) ? ERR_TIMEOUT : ERR_UNAVAILABLE });
}

static void step(struct world *w, struct owner *o)
{
	section_streams_settle_appends(o->streams);
	w->now_ns += 31 * NS_PER_S;
	section_streams_step(o->streams, w->now_ns);
}

static void new_member(struct world *w)
{
	unsigned i = (unsigned)below(w, OWNERS);

	/* The one before is forgotten: it goes on as if nothing had happened. */
	for (unsigned k = 0; k < OWNERS; k++)
		if (w->owners[k] != NULL)
			w->owners[k]->is_member = false;
	if (w->owners[i] != NULL)
		owner_free(w, w->owners[i], below(w, 2) != 0);
	w->owners[i] = owner_new(w, (enum start)below(w, 3));
}

static void act(struct world *w)
{
	struct owner *o = w->owners[below(w, OWNERS)];
	uint64_t what = below(w, 100);

	if (what < 1 || o == NULL) {
		if (what < 4)
			new_member(w);
		return;
	}
	if (what < 40)
		read_range(w, o, (unsigned)below(w, PARTITIONS));
	else if (what < 55 && o->n_held > 0)
		deliver_held(w, o, false);
	else if (what < 60)
		source_cut(o->readers[below(w, PARTITIONS)].source, false);
	else if (what < 63)
		set_fault(w, o);
	else if (what < 68)
		look_after(w, o);
	else
		step(w, o);
}

/* ---- the end ---- */

static bool is_through(struct world *w, struct owner *o)
{
	look_after(w, o);
	for (unsigned p = 0; p < PARTITIONS; p++)
		if (w->topic.committed[o->life][p] !=
		    w->topic.records[o->life][p][RECORDS - 1].offset + 1)
			return false;
	return true;
}

static void finish(struct world *w, uint64_t seed)
{
	struct owner *o = owner_new(w, AT_COMMITTED);
	int n = 0;

	for (; n < 20000 && !is_through(w, o); n++) {
		read_range(w, o, (unsigned)(n % PARTITIONS));
		if (o->n_held > 0)
			deliver_held(w, o, true);
		if (n % 5 == 0)
			source_cut(o->readers[n % 2].source, false);
		step(w, o);
		/* The others are still alive. */
		if (n % 3 == 0 && w->owners[n % OWNERS] != NULL)
			step(w, w->owners[n % OWNERS]);
	}
	if (n == 20000)
		fail_msg("seed %llu: does not come to an end", (unsigned long long)seed);
	for (unsigned i = 0; i < OWNERS; i++)
		if (w->owners[i] != NULL)
			owner_free(w, w->owners[i], i % 2);
	owner_free(w, o, false);
}

struct visible {
	struct world *w;
	uint64_t seed;
};

static void count_block(struct world *w, const struct block_meta *m, uint64_t seed)
{
	struct block_reader *r = block_reader_new(w->be, m, NULL, NULL);
	struct block_iter *it;
	struct page_object o;
	struct block_object object;
	struct found_spans f = { NULL, 0, 0, NULL };
	struct bytes segment;
	struct err err = ERR_INIT;
	int got;

	assert_non_null(r);
	it = block_iter_new(r, BLOCK_ITER_CHECKED);
	while ((got = block_iter_next(it, &o, &err)) > 0) {
		assert_int_equal(block_object_parse(o.data, "v2", &object, &err), 0);
		while (block_object_segment_next(&object.segments, &segment, &err) > 0)
			assert_int_equal(note_piece(&f, segment, &err), 0);
	}
	assert_int_equal(got, 0);
	for (size_t i = 0; i < f.n; i++) {
		assert_in_range(f.v[i], 1, SPAN_NUMBERS);
		if (w->seen[f.v[i]]++ > 0)
			fail_msg("seed %llu: span %llu twice, again in block %s",
				 (unsigned long long)seed, (unsigned long long)f.v[i], m->id);
	}
	found_reset(&f);
	block_iter_free(it);
	block_reader_free(r);
}

static int visit_meta(void *arg, const struct backend_entry *e, struct err *err)
{
	struct visible *v = arg;
	struct buf json = BUF_INIT;
	struct block_meta m;

	if (strstr(e->key, "/meta.json") == NULL)
		return 0;
	assert_int_equal(backend_read(v->w->be, e->key, 1 << 20, &json, err), 0);
	assert_int_equal(block_meta_parse(buf_bytes(&json), &m, err), 0);
	buf_fini(&json);
	count_block(v->w, &m, v->seed);
	return 0;
}

static void check_spans(struct world *w, uint64_t seed)
{
	struct visible v = { w, seed };

	assert_int_equal(backend_list(w->be, "", BACKEND_RECURSIVE, visit_meta, &v, NULL), 0);
	for (unsigned life = 0; life <= w->topic.life; life++)
		for (unsigned p = 0; p < PARTITIONS; p++)
			for (unsigned i = 0; i < RECORDS; i++)
				for (unsigned k = 0; k < w->topic.records[life][p][i].n_spans;
				     k++) {
					uint64_t span = span_number(life, p, i, k);
					bool is_done = w->topic.records[life][p][i].offset <
						       w->topic.committed[life][p];

					if (!is_sampled(span) && w->seen[span])
						fail_msg("seed %llu: span %llu was dropped",
							 (unsigned long long)seed,
							 (unsigned long long)span);
					if (is_sampled(span) && is_done && !w->seen[span])
						fail_msg("seed %llu: span %llu of life %u, "
							 "partition %u, record %u is lost",
							 (unsigned long long)seed,
							 (unsigned long long)span, life, p, i);
				}
}

/* Owners die one after the other, so blocks without a commit may lie about, but no commit without
 * its blocks. */
static void run_world(uint64_t seed, const char *dir, uint64_t totals[4])
{
	struct world *w = xcalloc(1, sizeof(*w));
	int n_acts = 0, recreate_at;

	rng_seed(&w->rng, seed);
	w->dir = xasprintf("%s/w", dir);
	assert_int_equal(mkdir(w->dir, 0700), 0);
	w->be = memory_backend_new();
	w->budget.limit = 64 << 20;
	w->io = segment_io_real;
	w->io.fallocate = no_fallocate;
	w->now_ns = clock_mono_ns();
	topic_init(&w->topic, &w->rng);
	w->owners[0] = owner_new(w, AT_COMMITTED);
	n_acts = 50 + (int)below(w, 400);
	recreate_at = below(w, 3) == 0 ? (int)below(w, (uint64_t)n_acts) : -1;
	for (int i = 0; i < n_acts; i++) {
		/* Deleted and made again under the same name: the group's offsets go with it. */
		if (i == recreate_at) {
			w->topic.life++;
			new_member(w);
		}
		act(w);
	}
	finish(w, seed);
	check_spans(w, seed);
	if (w->n_duplicates > 0)
		fail_msg("seed %llu: %llu spans twice in a block", (unsigned long long)seed,
			 (unsigned long long)w->n_duplicates);
	assert_int_equal(w->budget.used, 0);
	assert_int_equal(ledger.in_flight, 0);
	totals[0] += w->n_sections;
	totals[1] += w->n_followed;
	totals[2] += w->n_given_up;
	totals[3] += w->n_opened;
	backend_free(w->be);
	remove_tree(w->dir);
	free(w->dir);
	free(w);
}

static void test_owners_against_the_model(void **state)
{
	const char *one = getenv("SECTION_SEED");
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	const uint64_t all = 400;
#else
	const uint64_t all = 2500;
#endif
	uint64_t first = one ? strtoull(one, NULL, 10) : 1, n = one ? 1 : all, totals[4] = { 0 };
	char *dir;

	(void)state;
	/* Thousands of logs: not on a disk that syncs folders. */
	if (access("/dev/shm", W_OK) == 0)
		setenv("TMPDIR", "/dev/shm", 0);
	dir = scratch_dir();
	for (uint64_t seed = first; seed < first + n; seed++)
		run_world(seed, dir, totals);
	print_message("%llu owners, %llu sections, %llu of them by others, given up %llu times\n",
		      (unsigned long long)totals[3], (unsigned long long)totals[0],
		      (unsigned long long)totals[1], (unsigned long long)totals[2]);
	remove_tree(dir);
	free(dir);
}

/* ---- with its own thread ---- */

struct live {
	char *dir, *scratch;
	struct store *store;
	struct section_streams *streams;
	struct source *sources[PARTITIONS];
	struct budget budget;
};

/* As a receiver has it that just took the partitions. */
static void live_take(struct live *l, uint64_t max_bytes, bool flush_at_end)
{
	char name[] = "second";
	struct section_streams_options so = {
		.o = { .max_block_bytes = max_bytes, .max_block_age_ns = 3600 * NS_PER_S },
		.exporter = name,
		.flush_at_end = flush_at_end,
	};
	struct err err = ERR_INIT;

	*l = (struct live){ .dir = scratch_dir() };
	l->budget.limit = 64 << 20;
	l->scratch = xasprintf("%s/_scratch", l->dir);
	l->store =
		store_new(&(struct store_options){ .backend = faulty_backend_new(local_at(l->dir)),
						   .local_path = l->dir,
						   .poll_ns = 20 * NS_PER_MS });
	assert_int_equal(store_start(l->store, &err), 0);
	so.o.store = l->store;
	so.o.dir = l->scratch;
	so.o.budget = &l->budget;
	l->streams = section_streams_start(&so, &err);
	assert_non_null(l->streams);
	/* The options were the caller's: commits must not be named by what becomes of them. */
	memset(name, '\1', sizeof(name) - 1);
	for (uint32_t p = 0; p < PARTITIONS; p++) {
		l->sources[p] = source_new(&(struct source_options){
			.name = p ? "g/c/t/1" : "g/c/t/0", .budget = &l->budget });
		assert_int_equal(section_streams_open(l->streams, l->sources[p], &err), 0);
	}
}

static void live_open(struct live *l, uint64_t max_bytes, bool flush_at_end)
{
	live_take(l, max_bytes, flush_at_end);
	for (uint32_t p = 0; p < PARTITIONS; p++)
		source_set_caught_up(l->sources[p]);
}

static void live_close(struct live *l)
{
	for (unsigned p = 0; p < PARTITIONS; p++) {
		source_close(l->sources[p]);
		source_unref(l->sources[p]);
	}
	section_streams_stop(l->streams);
	store_free(l->store);
	assert_int_equal(l->budget.used, 0);
	assert_int_equal(ledger.in_flight, 0);
	remove_tree(l->dir);
	free(l->scratch);
	free(l->dir);
}

/* One range of n records of one span each, read and on its way: a span's number is its offset. */
static struct batch *read_records(struct live *l, unsigned p, uint64_t first, unsigned n)
{
	struct source_record *records = xcalloc(n, sizeof(*records));
	struct test_span *spans = xcalloc(n, sizeof(*spans));
	struct source_range *r;
	struct batch *b;

	for (unsigned i = 0; i < n; i++) {
		records[i] = (struct source_record){ first + i, 1000 + first + i, i };
		spans[i] = plain_span((first + i) / 4, first + i);
	}
	b = make_batch("t", spans, n);
	r = source_range_new(l->sources[p], records, n, n);
	batch_bind(b, &r->origin);
	source_add(l->sources[p], r);
	free(spans);
	return b;
}

static void send_records(struct live *l, unsigned p, uint64_t first, unsigned n)
{
	struct batch *b = read_records(l, p, first, n);

	section_streams_append(l->streams, b, &b);
	assert_null(b);
}

/* *missing: the answer is incomplete, and why. */
static size_t times_found_or(struct live *l, uint64_t span, char missing[256])
{
	struct found_spans found = { NULL, 0, 0, NULL };
	struct test_span s = plain_span(span / 4, 1);
	struct store_find_result r;
	uint8_t id[16];
	size_t n;

	trace_id_of(&s, id);
	assert_int_equal(store_find(l->store, "t", id, note_piece, &found, &r, NULL), 0);
	assert_int_equal(r.blocks_failed, 0);
	assert_int_equal(r.live_failed, r.first_failure[0] != '\0');
	memcpy(missing, r.first_failure, 256);
	n = count_span(&found, span);
	found_reset(&found);
	return n;
}

static size_t times_found(struct live *l, uint64_t span)
{
	char missing[256];
	size_t n = times_found_or(l, span, missing);

	assert_string_equal(missing, "");
	return n;
}

static uint64_t committable(struct live *l, unsigned p)
{
	struct source_progress s;

	source_poll(l->sources[p], &s);
	return s.committable;
}

static void test_found_live_then_flushed(void **state)
{
	struct err err = ERR_INIT;
	uint64_t size;
	struct live l;

	(void)state;
	live_open(&l, 0, true);
	send_records(&l, 0, 1, 40);
	send_records(&l, 1, 1001, 40);
	section_streams_settle_appends(l.streams);
	for (uint64_t span = 1; span <= 40; span++)
		assert_int_equal(times_found(&l, span), 1);
	assert_int_equal(committable(&l, 0), 0);
	if (store_flush(l.store, &err) < 0)
		fail_msg("%s", err.msg);
	for (uint64_t span = 1001; span <= 1040; span++)
		assert_int_equal(times_found(&l, span), 1);
	assert_int_equal(committable(&l, 0), 41);
	assert_int_equal(committable(&l, 1), 1041);
	assert_int_equal(backend_size(store_backend(l.store),
				      "_spanmill/commits/g/c/t/0/second/"
				      "00000000000000000001-1001.json",
				      &size, &err),
			 0);
	assert_true(section_streams_is_idle(l.streams));
	assert_int_equal(store_flush(l.store, &err), 0); /* of nothing */
	live_close(&l);
}

/* A commit record that nobody can read stands where a section begins, in its middle, or behind the
 * one that was just committed: it gets another name, and all is stored. */
static void test_damaged_commits(void **state)
{
	static const char *const bad[] = { "", "{\"first\":5", "\xff\xff",
					   "{\"hello\":\"world\"}" };
	static const unsigned firsts[] = { 1, 5, 9, 13 };
	struct err err = ERR_INIT;
	struct live l;

	(void)state;
	live_open(&l, 0, true);
	for (unsigned i = 0; i < COUNT_OF(firsts); i++) {
		char key[BACKEND_KEY_MAX + 1], aside[BACKEND_KEY_MAX + 1];
		uint64_t size;

		backend_key(key, &err, "_spanmill/commits/g/c/t/0/second/%020u-%u.json", firsts[i],
			    1000 + firsts[i]);
		backend_key(aside, &err, "%s.damaged", key);
		assert_int_equal(
			backend_put(store_backend(l.store), key, bytes_str(bad[i]), 0, &err), 0);
		send_records(&l, 0, firsts[i], 4);
		if (i == 1)
			continue; /* together with what comes next, in whose middle it is */
		section_streams_settle_appends(l.streams);
		if (store_flush(l.store, &err) < 0)
			fail_msg("%u: %s", firsts[i], err.msg);
		assert_int_equal(committable(&l, 0), firsts[i] + 4);
		assert_int_equal(backend_size(store_backend(l.store), aside, &size, &err), 0);
	}
	for (uint64_t span = 1; span <= 16; span++)
		assert_int_equal(times_found(&l, span), 1);
	live_close(&l);
}

static void check_missing(struct live *l, const char *want)
{
	char missing[256];

	times_found_or(l, 1, missing);
	if ((want == NULL) != (missing[0] == '\0') || (want && strstr(missing, want) == NULL))
		fail_msg("missing: \"%s\", want %s", missing, want ? want : "nothing");
}

/* What an owner before us has shown must not be said not to be there before we have it, too. */
static void test_incomplete_until_caught_up(void **state)
{
	static const char behind[] = "of 2 partitions are still being read";
	struct batch *b;
	struct live l;

	(void)state;
	live_take(&l, 0, false);
	check_missing(&l, "2 of 2 partitions");
	source_set_caught_up(l.sources[1]);
	check_missing(&l, "1 of 2 partitions");
	send_records(&l, 0, 1, 20);
	b = read_records(&l, 0, 21, 20);
	section_streams_settle_appends(l.streams);
	/* Some of what was there is still on its way through the pipeline. */
	source_set_caught_up(l.sources[0]);
	check_missing(&l, behind);
	section_streams_append(l.streams, b, &b);
	section_streams_settle_appends(l.streams);
	check_missing(&l, NULL);
	/* What comes later was shown by nobody else. */
	b = read_records(&l, 0, 41, 20);
	check_missing(&l, NULL);
	section_streams_expect(l.streams, &l, true);
	section_streams_expect(l.streams, &b, true);
	section_streams_expect(l.streams, &b, true);
	check_missing(&l, "not known yet");
	section_streams_expect(l.streams, &b, false);
	check_missing(&l, "not known yet");
	section_streams_expect(l.streams, &l, false);
	check_missing(&l, NULL);
	section_streams_expect(l.streams, &l, false);
	section_streams_append(l.streams, b, &b);
	section_streams_settle_appends(l.streams);
	/* Given up: it is not here before it was read again. */
	source_cut(l.sources[0], true);
	check_missing(&l, behind);
	assert_int_equal(source_rewind(l.sources[0]), 1);
	send_records(&l, 0, 1, 20);
	section_streams_settle_appends(l.streams);
	check_missing(&l, behind);
	send_records(&l, 0, 21, 20);
	send_records(&l, 0, 41, 20);
	section_streams_settle_appends(l.streams);
	check_missing(&l, NULL);
	live_close(&l);
}

/* A store that fails is told of, a flush says so, and all is there when it works again. */
static void test_store_fails_for_a_while(void **state)
{
	struct section_streams_stats s;
	struct err err = ERR_INIT;
	char why[200];
	struct live l;

	(void)state;
	live_open(&l, 0, true);
	faulty_set(store_backend(l.store),
		   (struct faulty_rule){ FAULTY_PUT, "commits", 2, false, ERR_UNAVAILABLE });
	send_records(&l, 0, 1, 40);
	assert_int_equal(store_flush(l.store, &err), -1);
	assert_true(section_streams_is_failing(l.streams, why, sizeof(why)));
	assert_non_null(strstr(why, "told to fail"));
	for (uint64_t span = 1; span <= 40; span++)
		assert_true(times_found(&l, span) >= 1);
	for (int i = 0; i < 5000 && committable(&l, 0) != 41; i++)
		usleep(2000);
	assert_int_equal(committable(&l, 0), 41);
	assert_false(section_streams_is_failing(l.streams, why, sizeof(why)));
	section_streams_stats(l.streams, &s);
	assert_int_equal(s.s.build_failures, 2);
	assert_int_equal(s.s.sections, 1);
	assert_int_equal(s.s.live_spans, 0);
	live_close(&l);
}

/* A store that neither answers nor closes does not hold the stop: what was not committed is read
 * again by whoever has the partition next. */
static void test_a_store_that_hangs_does_not_hold_the_stop(void **state)
{
	struct section_streams_stats s;
	struct live l;

	(void)state;
	live_open(&l, 2000, true);
	faulty_hang(store_backend(l.store), FAULTY_PUT, "commits");
	send_records(&l, 0, 1, 40);
	while (faulty_hits(store_backend(l.store)) == 0)
		usleep(1000);
	section_streams_stats(l.streams, &s);
	assert_int_equal(s.s.sections, 0);
	live_close(&l);
}

/* At the end of a source what is open is published, or, when that is not wanted, refused. */
static void test_end_of_a_source(void **state)
{
	struct source_progress s;
	struct live l;

	(void)state;
	for (int flush = 0; flush < 2; flush++) {
		live_open(&l, 0, flush);
		send_records(&l, 0, 1, 40);
		section_streams_settle_appends(l.streams);
		source_cut(l.sources[0], true);
		for (int i = 0; i < 5000; i++) {
			source_poll(l.sources[0], &s);
			if (s.n_under_way == 0)
				break;
			usleep(2000);
		}
		assert_int_equal(s.n_under_way, 0);
		assert_int_equal(s.committable, flush ? 41 : 0);
		assert_int_equal(s.has_refused, !flush);
		live_close(&l);
	}
}

/* ---- damage of the scratch ---- */

static struct rng damage_rng;

static int damage_file(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	uint8_t bytes[64] = { 0 };
	off_t at;
	int fd;

	(void)ftw;
	if (type != FTW_F || strstr(path, ".segment") == NULL || st->st_size == 0)
		return 0;
	/* Where records are, mostly. */
	at = (off_t)rng_below(&damage_rng, MIN((uint64_t)st->st_size, UINT64_C(6000)));
	fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	switch (rng_below(&damage_rng, 3)) {
	case 0: /* a bit */
		assert_int_equal(pread(fd, bytes, 1, at) >= 0, 1);
		bytes[0] ^= (uint8_t)(1 << rng_below(&damage_rng, 8));
		assert_int_equal(pwrite(fd, bytes, 1, at), 1);
		break;
	case 1: /* zeros */
		assert_int_equal(pwrite(fd, bytes, sizeof(bytes), at), sizeof(bytes));
		break;
	default:
		assert_int_equal(ftruncate(fd, at), 0);
	}
	close(fd);
	return 0;
}

/* Damage anywhere in the scratch while records wait in it: what is committed is in blocks, once,
 * and the rest is refused, to be read from its source again. Nothing is lost in silence. */
static void test_damaged_scratch(void **state)
{
	unsigned n_whole = 0, n_refused = 0;
	uint64_t seed = 0;

	(void)state;
	rng_kernel(&seed, 4);
	if (getenv("SECTION_SEED") != NULL)
		seed = strtoull(getenv("SECTION_SEED"), NULL, 10);
	print_message("damage seed %llu\n", (unsigned long long)seed);
	rng_seed(&damage_rng, seed);
	for (int round = 0; round < 40; round++) {
		struct source_progress s = { .committable = 0 }, other = s;
		struct live l;

		live_open(&l, 0, true);
		for (uint64_t first = 1; first <= 40; first += 4)
			send_records(&l, 0, first, 4);
		send_records(&l, 1, 1001, 40);
		section_streams_settle_appends(l.streams);
		nftw(l.scratch, damage_file, 8, FTW_PHYS);
		for (int i = 0; i < 5000; i++) {
			store_flush(l.store, NULL);
			source_poll(l.sources[0], &s);
			source_poll(l.sources[1], &other);
			if (s.n_under_way + other.n_under_way == 0)
				break;
			usleep(2000);
		}
		if (s.n_under_way != 0 || (s.committable != 41) != s.has_refused)
			fail_msg("round %d: under way %llu, committable %llu, refused %d", round,
				 (unsigned long long)s.n_under_way,
				 (unsigned long long)s.committable, s.has_refused);
		for (uint64_t span = 1; span <= 40; span++) {
			char missing[256];
			size_t n = times_found_or(&l, span, missing);

			if (n != (span < s.committable) ||
			    (missing[0] != '\0') != (s.has_refused || other.has_refused))
				fail_msg("round %d: span %llu of %llu committed: found %zu times, "
					 "missing \"%s\"",
					 round, (unsigned long long)span,
					 (unsigned long long)s.committable, n, missing);
		}
		n_whole += s.committable == 41;
		n_refused += s.has_refused;
		live_close(&l);
	}
	print_message("%u whole, %u read again\n", n_whole, n_refused);
	assert_true(n_refused > 5);
}

enum { FEED = 6000, PER_RANGE = 30 };

struct feeder {
	struct live *l;
	unsigned partition;
	pthread_t thread;
};

static void *feed(void *arg)
{
	struct feeder *f = arg;

	for (unsigned i = 0; i < FEED; i += PER_RANGE)
		send_records(f->l, f->partition, 1 + f->partition * 100000 + i, PER_RANGE);
	return NULL;
}

/* Two partitions fill, sections are cut, built, retired, while others look and flush. */
static void test_threads(void **state)
{
	struct feeder feeders[PARTITIONS];
	struct section_streams_stats s;
	struct err err = ERR_INIT;
	struct live l;
	struct rng rng;

	(void)state;
	live_open(&l, 40000, true);
	rng_seed(&rng, 5);
	for (unsigned p = 0; p < PARTITIONS; p++) {
		feeders[p] = (struct feeder){ &l, p, 0 };
		pthread_create(&feeders[p].thread, NULL, feed, &feeders[p]);
	}
	for (int i = 0; i < 60; i++) {
		uint64_t done = committable(&l, 0);

		if (done > 1)
			assert_true(times_found(&l, 1 + rng_below(&rng, done - 1)) >= 1);
		if (i % 20 == 10)
			assert_int_equal(store_flush(l.store, &err), 0);
	}
	for (unsigned p = 0; p < PARTITIONS; p++)
		pthread_join(feeders[p].thread, NULL);
	assert_int_equal(store_flush(l.store, &err), 0);
	for (unsigned p = 0; p < PARTITIONS; p++) {
		assert_int_equal(committable(&l, p), 1 + p * 100000 + FEED);
		for (uint64_t i = 0; i < FEED; i += 1 + rng_below(&rng, 40))
			assert_int_equal(times_found(&l, 1 + p * 100000 + i), 1);
	}
	section_streams_stats(l.streams, &s);
	assert_true(s.s.sections > 10);
	assert_int_equal(s.s.duplicates + s.given_up + s.followed, 0);
	live_close(&l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_owners_against_the_model),
		cmocka_unit_test(test_found_live_then_flushed),
		cmocka_unit_test(test_incomplete_until_caught_up),
		cmocka_unit_test(test_store_fails_for_a_while),
		cmocka_unit_test(test_a_store_that_hangs_does_not_hold_the_stop),
		cmocka_unit_test(test_end_of_a_source),
		cmocka_unit_test(test_damaged_scratch),
		cmocka_unit_test(test_damaged_commits),
		cmocka_unit_test(test_threads),
	};

	log_configure(LOG_ERROR + 1, LOG_CONSOLE);
	return cmocka_run_group_tests_name("section_streams", tests, NULL, NULL);
}
