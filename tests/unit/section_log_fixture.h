/* SPDX-License-Identifier: Apache-2.0
 *
 * section_log_fixture.h - what the tests of the section log share: a log over a store that can be
 * told to fail, requests with numbered spans, and looking every span up again. Header only, because
 * every test program is one file.
 */
#ifndef TESTS_UNIT_SECTION_LOG_FIXTURE_H
#define TESTS_UNIT_SECTION_LOG_FIXTURE_H

#include "tests/unit/section_fixture.h"

#include "exporters/blocks/section_log.h"
#include "pipeline/span/left.h"
#include "pipeline/segment/log.h"
#include "tests/faulty_backend.h"

struct fixture {
	char *dir, *log_dir;
	struct backend *be; /* owned by the store */
	struct store *store;
	struct section_log *log;
	struct section_log_options o;
	struct budget budget;
};

static inline void open_store(struct fixture *f)
{
	struct err err = ERR_INIT;

	f->be = faulty_backend_new(local_at(f->dir));
	f->store = store_new(&(struct store_options){
		.backend = f->be, .local_path = f->dir, .poll_ns = 20 * NS_PER_MS });
	if (store_start(f->store, &err) < 0)
		fail_msg("%s", err.msg);
}

static inline void open_log(struct fixture *f)
{
	struct err err = ERR_INIT;

	f->o.store = f->store;
	f->o.dir = f->log_dir;
	f->o.budget = &f->budget;
	f->log = section_log_start(&f->o, &err);
	if (f->log == NULL)
		fail_msg("%s", err.msg);
}

static inline void close_all(struct fixture *f)
{
	section_log_stop(f->log);
	f->log = NULL;
	store_free(f->store);
	f->store = NULL;
	assert_int_equal(f->budget.used, 0);
}

static inline void reopen(struct fixture *f)
{
	close_all(f);
	open_store(f);
	open_log(f);
}

static inline int set_up_closed(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	f->dir = scratch_dir();
	f->log_dir = xasprintf("%s/_log", f->dir);
	f->budget.limit = 256 << 20;
	f->o.max_block_age_ns = 3600 * NS_PER_S;
	memset(&ledger, 0, sizeof(ledger));
	span_left_forget();
	*state = f;
	return 0;
}

static inline int set_up(void **state)
{
	set_up_closed(state);
	open_store(*state);
	open_log(*state);
	return 0;
}

static inline int tear_down(void **state)
{
	struct fixture *f = *state;

	close_all(f);
	remove_tree(f->dir);
	free(f->dir);
	free(f->log_dir);
	free(f);
	return 0;
}

/* ---- sending ---- */

/* A request on its way; the counts are of all requests. */
struct sent {
	struct origin origin;
	void (*acknowledged)(struct sent *s);
	uint64_t first, n; /* its spans' numbers */
	int fd;
};

static _Atomic uint64_t n_acknowledged, n_refused, n_permanent;

static inline void request_settled(struct origin *o)
{
	struct sent *s = CONTAINER_OF(o, struct sent, origin);
	struct origin_outcome out;

	origin_outcome(o, &out);
	if (!out.retryable && s->acknowledged != NULL)
		s->acknowledged(s);
	origin_fini(o);
	atomic_fetch_add(&n_permanent, out.n_permanent);
	atomic_fetch_add(out.retryable ? &n_refused : &n_acknowledged, s->n);
	free(s);
}

static inline struct batch *make_batch(const char *tenant, const struct test_span *spans, size_t n)
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

static inline void send_request(struct section_log *l, const char *tenant,
				const struct test_span *spans, size_t n,
				void (*acknowledged)(struct sent *), int fd)
{
	struct batch *b = make_batch(tenant, spans, n);
	struct sent *s = xcalloc(1, sizeof(*s));

	s->first = spans[0].span;
	s->n = n;
	s->acknowledged = acknowledged;
	s->fd = fd;
	origin_init(&s->origin, (uint32_t)n, request_settled);
	batch_bind(b, &s->origin);
	section_log_append(l, b);
}

/* n spans of span numbers first.., four to a trace, in requests of per_request. */
static inline void send_range(struct fixture *f, const char *tenant, uint64_t first, size_t n,
			      size_t per_request)
{
	struct test_span *spans = xcalloc(per_request, sizeof(*spans));

	for (size_t i = 0; i < n;) {
		size_t k = 0;

		for (; k < per_request && i < n; k++, i++)
			spans[k] = plain_span((first + i) / 4, first + i);
		send_request(f->log, tenant, spans, k, NULL, 0);
	}
	free(spans);
}

static inline void wait_acknowledged(uint64_t n)
{
	for (int i = 0; i < 60000 && atomic_load(&n_acknowledged) < n; i++)
		usleep(1000);
	assert_int_equal(atomic_load(&n_acknowledged), n);
}

static inline void reset_counts(void)
{
	n_acknowledged = n_refused = n_permanent = 0;
}

/* ---- finding ---- */

static inline struct store_find_result find(struct fixture *f, const char *tenant, uint64_t trace,
					    struct found_spans *found)
{
	struct test_span s = plain_span(trace, 1);
	struct store_find_result r;
	uint8_t id[16];

	trace_id_of(&s, id);
	found_reset(found);
	found->id = id;
	assert_int_equal(store_find(f->store, tenant, id, note_piece, found, &r, NULL), 0);
	found->id = NULL;
	return r;
}

/* Every span of the range is found, and exactly once when nothing is under way (exact). */
static inline void check_range(struct fixture *f, const char *tenant, uint64_t first, size_t n,
			       bool exact)
{
	struct found_spans found = { NULL, 0, 0, NULL };

	for (uint64_t span = first; span < first + n; span++) {
		struct store_find_result r = find(f, tenant, span / 4, &found);
		size_t times = count_span(&found, span);

		assert_int_equal(r.live_failed + r.blocks_failed, 0);
		if (times < 1 || (exact && times != 1))
			fail_msg("span %llu: found %zu times", (unsigned long long)span, times);
	}
	found_reset(&found);
}

static inline bool flush(struct fixture *f)
{
	struct err err = ERR_INIT;

	return store_flush(f->store, &err) == 0;
}

static inline struct section_log_stats stats_of(struct fixture *f)
{
	struct section_log_stats s;

	section_log_stats(f->log, &s);
	return s;
}

/* Published sections give their index back at once; the builder's memory follows. */
static inline void wait_retired(struct fixture *f)
{
	for (int i = 0; i < 30000 && f->budget.used > 0; i++) {
		usleep(2000);
		section_log_cut(f->log); /* wakes nobody: nothing is open */
	}
}

static inline void check_books(uint64_t accepted, uint64_t held)
{
	assert_int_equal(ledger.accepted, accepted);
	assert_int_equal(ledger.held, held);
	assert_int_equal(ledger.delivered, accepted - held);
	assert_int_equal(ledger.in_flight, 0);
}

#endif
