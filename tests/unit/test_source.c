/* SPDX-License-Identifier: Apache-2.0
 *
 * test_source.c - a source against a model: records go down a pipeline that drops, splits,
 * reorders, fans out and refuses, to sinks that claim, store and give up, in any order. Nothing is
 * committable before everybody has it, no claim speaks for spans that have not come, no record is
 * claimed twice, and in the end everything is through.
 */
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "pipeline/source/source.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { RECORDS = 60, SPANS_MAX = 4, SINKS = 2, EVENTS_MAX = 20000, RANGES_MAX = 4000 };

enum fate { COMING, DROPPED_BEFORE, DROPPED_IN_BRANCH, HERE, REFUSED_HERE, STORED_BEFORE };

/* One range as the test made it. */
struct made {
	struct source_range *range; /* may be gone: not looked into after it was added */
	uint64_t first, last;
	uint32_t n_spans;
	enum fate fate[SINKS][RECORDS * SPANS_MAX];
	uint32_t offset_of[RECORDS * SPANS_MAX];
};

enum event_kind { EMIT, DROP, ARRIVE, OTHER };

struct event {
	enum event_kind kind;
	struct made *of;
	struct origin *origin;
	struct source_range *range;
	uint32_t from, n; /* ordinals */
	unsigned sink;
};

struct model {
	struct rng rng;
	struct source *source;
	struct source_sink sinks[SINKS];
	unsigned n_sinks;
	bool has_other;
	unsigned refusals; /* percent */
	bool gives_up;     /* sinks do, now and then */
	uint32_t spans[RECORDS];
	uint64_t offsets[RECORDS]; /* with holes */
	uint32_t read;             /* records below were read at least once */
	uint32_t at;               /* next record to read */
	struct event events[EVENTS_MAX];
	size_t n_events;
	struct made *made[RANGES_MAX];
	size_t n_made;
	/* by sink and record: in how many claims that hold; stored */
	uint32_t claimed[SINKS][RECORDS], stored[SINKS][RECORDS];
	uint64_t next_claim[SINKS]; /* records, lowest that no valid claim has */
	uint64_t held_to[SINKS];    /* records: claimed, and not yet stored from here */
	unsigned added[SINKS];
	struct budget budget;
};

static struct model *now;

static unsigned percent(struct model *m)
{
	return (unsigned)rng_below(&m->rng, 100);
}

static uint32_t record_at(const struct model *m, uint64_t offset)
{
	for (uint32_t i = 0; i < RECORDS; i++)
		if (m->offsets[i] == offset)
			return i;
	fail_msg("no record at offset %llu", (unsigned long long)offset);
	return 0;
}

/* ---- sinks ---- */

static void sink_added(struct source_sink *s)
{
	now->added[s - now->sinks]++;
}

static void sink_cut(struct source_sink *s, bool last)
{
	(void)s;
	(void)last;
}

static void give_up(struct model *m, unsigned sink)
{
	struct err why = ERR_INIT;
	uint64_t keep = m->sinks[sink].released;

	err_set(&why, ERR_UNAVAILABLE, "given up");
	/* Either all that is not stored, or what is in no claim. */
	if (percent(m) < 50)
		keep = m->sinks[sink].claimed;
	for (uint32_t i = 0; i < RECORDS; i++)
		if (m->offsets[i] >= keep)
			m->claimed[sink][i] = 0;
	m->next_claim[sink] = 0;
	while (m->next_claim[sink] < RECORDS && m->claimed[sink][m->next_claim[sink]])
		m->next_claim[sink]++;
	m->held_to[sink] = MIN(m->held_to[sink], m->next_claim[sink]);
	source_give_up(&m->sinks[sink], keep, &why);
}

static void sink_close(struct source_sink *s)
{
	struct err why = ERR_INIT;

	err_set(&why, ERR_UNAVAILABLE, "closed");
	source_give_up(s, s->released, &why);
	source_detach(s);
}

/* The last attempt at a record. */
static const struct made *latest(const struct model *m, uint64_t offset)
{
	size_t k = m->n_made;

	while (k-- > 0)
		if (m->made[k]->first <= offset && m->made[k]->last >= offset)
			return m->made[k];
	fail_msg("offset %llu was never read", (unsigned long long)offset);
	return NULL;
}

/* Every span of a record that the sink claims is there, or is never to come. */
static void check_complete(struct model *m, unsigned sink, uint64_t offset)
{
	const struct made *d = latest(m, offset);

	for (uint32_t i = 0; i < d->n_spans; i++)
		if (d->offset_of[i] == offset &&
		    (d->fate[sink][i] == COMING || d->fate[sink][i] == REFUSED_HERE))
			fail_msg("claimed offset %llu without span %u of %llu..%llu: fate %d",
				 (unsigned long long)offset, i, (unsigned long long)d->first,
				 (unsigned long long)d->last, d->fate[sink][i]);
}

static void claim(struct model *m, unsigned sink)
{
	struct source_claim c;

	if (source_claim(&m->sinks[sink], 1 + rng_below(&m->rng, 40), &c)) {
		for (size_t i = 0; i < c.n_records; i++) {
			uint32_t rec = record_at(m, c.records[i].offset);

			assert_int_equal(rec, m->next_claim[sink]);
			assert_int_equal(m->claimed[sink][rec], 0);
			assert_int_equal(m->stored[sink][rec], 0);
			m->claimed[sink][rec] = 1;
			m->next_claim[sink]++;
			check_complete(m, sink, c.records[i].offset);
		}
	}
	free(c.records);
	if (c.is_doomed)
		give_up(m, sink);
}

static void store(struct model *m, unsigned sink)
{
	uint64_t upto;

	if (m->held_to[sink] >= m->next_claim[sink])
		return;
	upto = m->offsets[m->next_claim[sink] - 1];
	for (; m->held_to[sink] < m->next_claim[sink]; m->held_to[sink]++) {
		assert_int_equal(m->claimed[sink][m->held_to[sink]], 1);
		m->stored[sink][m->held_to[sink]]++;
		assert_int_equal(m->stored[sink][m->held_to[sink]], 1);
	}
	source_settle(&m->sinks[sink], upto, VERDICT_DELIVERED, NULL);
	source_release(&m->sinks[sink], upto);
}

/* ---- reading ---- */

static void push(struct model *m, struct event e)
{
	assert_true(m->n_events < EVENTS_MAX);
	m->events[m->n_events++] = e;
}

static void send_down(struct model *m, struct made *d)
{
	struct source_range *r = d->range;

	for (uint32_t at = 0; at < d->n_spans;) {
		uint32_t n = 1 + (uint32_t)rng_below(&m->rng, d->n_spans - at);

		push(m,
		     (struct event){ percent(m) < 15 ? DROP : EMIT, d, &r->origin, r, at, n, 0 });
		at += n;
	}
}

/* A range of the records from `rec` on, at most up to the offset `limit`. */
static uint32_t make_range(struct model *m, uint32_t rec, uint64_t limit)
{
	uint32_t want = 1 + (uint32_t)rng_below(&m->rng, 6), n = 0;
	struct source_record *records = xcalloc(want, sizeof(*records));
	struct made *d = xcalloc(1, sizeof(*d));
	uint64_t unused;

	while (n < want && rec + n < RECORDS && m->offsets[rec + n] <= limit &&
	       (n == 0 || source_place(m->source, m->offsets[rec + n], &unused) == SOURCE_NEW)) {
		records[n] =
			(struct source_record){ m->offsets[rec + n], 1000 + rec + n, d->n_spans };
		for (uint32_t k = 0; k < m->spans[rec + n]; k++)
			d->offset_of[d->n_spans++] = (uint32_t)m->offsets[rec + n];
		n++;
	}
	d->first = records[0].offset;
	d->last = records[n - 1].offset;
	d->range = source_range_new(m->source, records, n, d->n_spans);
	for (uint32_t i = 0; i < d->n_spans; i++)
		assert_int_equal(source_record_of(d->range, i)->offset, d->offset_of[i]);
	assert_true(m->n_made < RANGES_MAX);
	m->made[m->n_made++] = d;
	/* Events first: with no spans the range may be gone after this. */
	send_down(m, d);
	source_add(m->source, d->range);
	return n;
}

static void read_next(struct model *m)
{
	uint64_t limit;

	if (m->at == RECORDS || source_is_refusing(m->source))
		return;
	if (source_place(m->source, m->offsets[m->at], &limit) == SOURCE_KNOWN)
		m->at++;
	else
		m->at += make_range(m, m->at, limit);
}

static void read_again(struct model *m)
{
	struct source_progress p;
	uint64_t from;

	source_poll(m->source, &p);
	if (!p.has_refused)
		return;
	assert_int_equal(p.why.kind, ERR_UNAVAILABLE);
	from = source_rewind(m->source);
	assert_true(from != UINT64_MAX);
	m->at = 0;
	while (m->offsets[m->at] < from)
		m->at++;
}

/* ---- the pipeline ---- */

static unsigned n_targets(const struct model *m)
{
	return m->n_sinks + m->has_other;
}

static void set_fate(struct made *d, unsigned sink, const struct event *e, enum fate fate)
{
	for (uint32_t i = e->from; i < e->from + e->n; i++)
		d->fate[sink][i] = fate;
}

/* A verdict of a branch: by marks once there are some. */
static void settle_branch(const struct event *e, enum verdict v, const struct err *err)
{
	if (!origin_has_marks(e->origin)) {
		origin_settle(e->origin, e->n, v, DROP_FILTERED, err);
		return;
	}
	for (uint32_t i = e->from; i < e->from + e->n; i++)
		origin_mark(e->origin, i, v, DROP_FILTERED);
	origin_settle_marked(e->origin, e->n, v, err);
}

static void arrive(struct model *m, struct event *e)
{
	uint32_t ordinals[RECORDS * SPANS_MAX];
	struct err err = ERR_INIT;

	if (percent(m) < 10) {
		set_fate(e->of, e->sink, e, DROPPED_IN_BRANCH);
		settle_branch(e, VERDICT_DROPPED, NULL);
		return;
	}
	if (percent(m) < m->refusals) {
		err_set(&err, ERR_UNAVAILABLE, "disk full");
		set_fate(e->of, e->sink, e, REFUSED_HERE);
		settle_branch(e, VERDICT_RETRYABLE, &err);
		return;
	}
	for (uint32_t i = 0; i < e->n; i++)
		ordinals[i] = e->from + i;
	switch (source_park(&m->sinks[e->sink], e->range, e->n,
			    origin_has_marks(e->origin) ? ordinals : NULL)) {
	case SOURCE_PARKED:
		set_fate(e->of, e->sink, e, HERE);
		break;
	case SOURCE_STORED:
		set_fate(e->of, e->sink, e, STORED_BEFORE);
		settle_branch(e, VERDICT_DELIVERED, NULL);
		break;
	case SOURCE_GIVEN_UP:
		err_set(&err, ERR_UNAVAILABLE, "given up");
		set_fate(e->of, e->sink, e, REFUSED_HERE);
		settle_branch(e, VERDICT_RETRYABLE, &err);
		break;
	}
}

static void emit(struct model *m, struct event *e)
{
	if (n_targets(m) > 1)
		origin_fan_out(e->origin, e->n, n_targets(m) - 1);
	for (unsigned i = 0; i < n_targets(m); i++) {
		struct event one = *e;

		one.kind = i < m->n_sinks ? ARRIVE : OTHER;
		one.sink = i;
		push(m, one);
	}
}

static void run_event(struct model *m)
{
	struct err err = ERR_INIT;
	struct event e;
	size_t i;

	if (m->n_events == 0)
		return;
	i = rng_below(&m->rng, m->n_events);
	e = m->events[i];
	m->events[i] = m->events[--m->n_events];
	err_set(&err, ERR_UNAVAILABLE, "queue full");
	if (e.kind == EMIT) {
		emit(m, &e);
	} else if (e.kind == DROP) {
		for (unsigned s = 0; s < SINKS; s++)
			set_fate(e.of, s, &e, DROPPED_BEFORE);
		settle_branch(&e, VERDICT_DROPPED, NULL);
	} else if (e.kind == ARRIVE) {
		arrive(m, &e);
	} else {
		settle_branch(&e, percent(m) < m->refusals ? VERDICT_RETRYABLE : VERDICT_DELIVERED,
			      &err);
	}
}

/* ---- the whole ---- */

static void check_committable(struct model *m)
{
	struct source_progress p;

	source_poll(m->source, &p);
	for (uint32_t i = 0; i < RECORDS && m->offsets[i] < p.committable; i++)
		for (unsigned s = 0; s < m->n_sinks; s++)
			assert_int_equal(m->stored[s][i], 1);
}

static void step(struct model *m)
{
	unsigned what = percent(m),
		 sink = m->n_sinks ? (unsigned)rng_below(&m->rng, m->n_sinks) : 0;

	if (what < 12)
		read_next(m);
	else if (what < 80)
		run_event(m);
	else if (what < 84)
		read_again(m);
	else if (m->n_sinks == 0)
		return;
	else if (what < 91)
		claim(m, sink);
	else if (what < 98)
		store(m, sink);
	else if (m->gives_up)
		give_up(m, sink);
	check_committable(m);
}

static bool is_done(struct model *m)
{
	struct source_progress p;

	source_poll(m->source, &p);
	return p.committable == m->offsets[RECORDS - 1] + 1;
}

static void fini(struct model *m)
{
	source_close(m->source);
	/* What is under way settles after the source was closed. */
	while (m->n_events > 0)
		run_event(m);
	source_unref(m->source);
	assert_int_equal(m->budget.used, 0);
	assert_int_equal(ledger.in_flight, 0);
	for (size_t i = 0; i < m->n_made; i++)
		free(m->made[i]);
	free(m);
}

static struct model *model_new(uint64_t seed)
{
	struct model *m = xcalloc(1, sizeof(*m));
	uint64_t offset = 0;

	now = m;
	rng_seed(&m->rng, seed);
	m->n_sinks = (unsigned)rng_below(&m->rng, SINKS + 1);
	m->has_other = m->n_sinks == 0 || percent(m) < 40;
	m->refusals = percent(m) < 50 ? 0 : (unsigned)rng_below(&m->rng, 8);
	m->gives_up = m->refusals > 0 && percent(m) < 50;
	for (uint32_t i = 0; i < RECORDS; i++) {
		offset += 1 + (percent(m) < 10 ? rng_below(&m->rng, 3) : 0);
		m->offsets[i] = offset;
		m->spans[i] = (uint32_t)rng_below(&m->rng, SPANS_MAX + 1);
	}
	m->budget.limit = 1 << 30;
	m->source = source_new(&(struct source_options){ .name = "g/c/t/0", .budget = &m->budget });
	for (unsigned s = 0; s < m->n_sinks; s++) {
		m->sinks[s] = (struct source_sink){ .added = sink_added,
						    .cut = sink_cut,
						    .close = sink_close };
		assert_int_equal(source_attach(m->source, &m->sinks[s], NULL), 0);
	}
	return m;
}

static void test_against_the_model(void **state)
{
	enum { SEEDS = 3000, STEPS = 60000 };
	size_t n_again = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct model *m = model_new(seed);
		int steps = 0;

		/* Some are closed in the middle. */
		int stop = seed % 5 == 0 ? (int)rng_below(&m->rng, 2000) : STEPS;

		for (; steps < stop && !is_done(m); steps++)
			step(m);
		if (steps == STEPS)
			fail_msg("seed %llu: not done", (unsigned long long)seed);
		if (stop == STEPS)
			for (unsigned s = 0; s < m->n_sinks; s++)
				assert_true(m->added[s] > 0);
		n_again += m->n_made;
		fini(m);
	}
	print_message("%zu ranges\n", n_again);
}

static void test_segments(void **state)
{
	static const struct {
		const char *in, *out;
	} cases[] = {
		{ "otlp_spans", "otlp_spans" },
		{ "team.a-1", "team.a-1" },
		{ "..", "%2E." },
		{ ".", "%2E" },
		{ "a/b", "a%2Fb" },
		{ "a b%", "a%20b%25" },
		{ "\xc3\xbc", "%C3%BC" },
	};
	char out[SOURCE_SEGMENT_MAX + 1], other[SOURCE_SEGMENT_MAX + 1], name[600];

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		source_segment(cases[i].in, out);
		assert_string_equal(out, cases[i].out);
	}
	source_segment("", out);
	assert_int_equal(out[0], '~');
	memset(name, 'x', sizeof(name));
	name[sizeof(name) - 1] = '\0';
	source_segment(name, out);
	name[500] = 'y';
	source_segment(name, other);
	assert_in_range(strlen(out), SOURCE_SEGMENT_MAX - 3, SOURCE_SEGMENT_MAX);
	assert_string_not_equal(out, other);
}

static bool is_behind;

static bool sink_is_behind(const struct source_sink *sink)
{
	(void)sink;
	return is_behind;
}

static void test_behind(void **state)
{
	struct source_sink quick = { .added = sink_added, .cut = sink_cut, .close = sink_close };
	struct source_sink slow = quick;
	struct source *s = source_new(&(struct source_options){ .name = "g/c/t/0" });
	struct err err = ERR_INIT;

	(void)state;
	slow.is_behind = sink_is_behind;
	assert_int_equal(source_attach(s, &quick, &err), 0);
	assert_int_equal(source_attach(s, &slow, &err), 0);
	assert_false(source_is_behind(s));
	is_behind = true;
	assert_true(source_is_behind(s));
	source_detach(&slow);
	assert_false(source_is_behind(s));
	source_detach(&quick);
	source_unref(s);
}

static void test_too_many_sinks(void **state)
{
	struct source_sink sinks[SOURCE_SINKS_MAX + 1];
	struct source *s = source_new(&(struct source_options){ .name = "g/c/t/0" });
	struct err err = ERR_INIT;

	(void)state;
	for (unsigned i = 0; i < SOURCE_SINKS_MAX; i++) {
		sinks[i] = (struct source_sink){ .added = sink_added,
						 .cut = sink_cut,
						 .close = sink_close };
		assert_int_equal(source_attach(s, &sinks[i], &err), 0);
	}
	assert_int_equal(source_attach(s, &sinks[SOURCE_SINKS_MAX], &err), -1);
	assert_int_equal(err.kind, ERR_CONFIG);
	source_close(s);
	source_unref(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_against_the_model),
		cmocka_unit_test(test_segments),
		cmocka_unit_test(test_behind),
		cmocka_unit_test(test_too_many_sinks),
	};

	log_configure(LOG_ERROR + 1, LOG_CONSOLE);
	return cmocka_run_group_tests_name("source", tests, NULL, NULL);
}
