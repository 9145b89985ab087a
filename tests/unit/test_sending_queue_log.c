/* SPDX-License-Identifier: Apache-2.0
 *
 * test_sending_queue_log.c - the sending queue on the segment log: acknowledged when synced, sent
 * in any case, counted to the span through restarts, drains, damage and a full disk.
 */
#include "tests/unit/sending_queue_fixture.h"

#include "pipeline/fanout.h"
#include "pipeline/segment/dir.h"
#include "pipeline/span/numbers.h"

#include <fcntl.h>

static struct client clients[SPANS_MAX];
static char root[64];

static struct bed *log_bed_new(const char *name)
{
	struct bed *bed = bed_new();
	static char dir[128];
	char cmd[400];

	snprintf(dir, sizeof(dir), "%s/%s", root, name);
	snprintf(cmd, sizeof(cmd), "rm -rf '%s' && mkdir -p '%s'", dir, dir);
	assert_int_equal(system(cmd), 0);
	bed->storage.directory = dir;
	bed->queue.storage = "file_storage";
	return bed;
}

/* As after a restart: the books begin anew. */
static void bed_restart(struct bed *bed)
{
	bed_stop(bed);
	memset(&ledger, 0, sizeof(ledger));
	span_left_forget();
	bed_start(bed);
}

static void send_many(struct bed *bed, uint32_t n_clients, uint32_t n_spans, size_t bytes)
{
	for (uint32_t i = 0; i < n_clients; i++)
		client_send(bed, &clients[i], i * n_spans, n_spans, bytes, i % 50 < 40 ? "t" : "u");
}

static void thousand_spans_under_every_answer(void **state)
{
	struct bed *bed = log_bed_new("moody");
	uint32_t n_clients = 0, at = 0;

	(void)state;
	bed->behave = hop_moody;
	bed->max_request_bytes = 700;
	bed_start(bed);
	for (; at < 1000; n_clients++) {
		uint32_t n = MIN(1 + at % 7, 1000 - at);

		client_send(bed, &clients[n_clients], at, n, 10, "t");
		at += n;
	}
	WAIT_FOR(all_settled(clients, n_clients));
	for (uint32_t i = 0; i < n_clients; i++) {
		assert_false(clients[i].outcome.retryable);
		assert_int_equal(clients[i].outcome.n_permanent, 0);
	}
	/* The last request may have been answered while last_failed was set. */
	WAIT_FOR(ledger.held == 0);
	assert_each_once(bed, 1000);
	assert_balance(1000, bed->n_ok, bed->n_rejected + bed->n_permanent, 0);
	assert_int_equal(ledger.dropped[DROP_REJECTED], bed->n_rejected);
	/* Nothing is left for a next start. */
	bed_restart(bed);
	usleep(50000);
	assert_balance(0, 0, 0, 0);
	bed_free(bed);
}

static void survives_a_restart(void **state)
{
	struct bed *bed = log_bed_new("restart");

	(void)state;
	bed->behave = hop_down;
	bed_start(bed);
	send_many(bed, 300, 4, 10);
	WAIT_FOR(all_settled(clients, 300));
	WAIT_FOR(bed->n_calls > 0);
	assert_balance(1200, 0, 0, 1200);
	bed_restart(bed);
	/* Counted although none of it can be sent. */
	WAIT_FOR(ledger.held == 1200);
	assert_balance(1200, 0, 0, 1200);
	bed_stop(bed);
	memset(&ledger, 0, sizeof(ledger));
	span_left_forget();
	bed->behave = hop_ok;
	bed_start(bed);
	WAIT_FOR(ledger.delivered == 1200);
	WAIT_FOR(sending_queue_is_drained(bed->q));
	assert_each_once(bed, 1200);
	assert_balance(1200, 1200, 0, 0);
	/* Joined: 1,200 spans in far fewer calls than 300. */
	bed_free(bed);
}

/* ---- watched spans ---- */

static struct watched {
	struct span_watch w;
	_Atomic int n_told;
	bool is_good;
} watches[SPANS_MAX];

static void watch_told(struct span_watch *w, bool is_good)
{
	struct watched *x = CONTAINER_OF(w, struct watched, w);

	x->is_good = is_good;
	atomic_fetch_add(&x->n_told, 1);
}

static void send_watched(struct bed *bed, uint32_t n_clients)
{
	memset(watches, 0, sizeof(watches));
	for (uint32_t i = 0; i < n_clients; i++) {
		struct client *c = &clients[i];
		struct batch *b = make_spans(i * 4, 4, 10, "t", &bed->service.budget);

		memset(c, 0, sizeof(*c));
		origin_init(&c->origin, 4, client_settled);
		batch_bind(b, &c->origin);
		watches[i].w = (struct span_watch){ .ordinal = i % 4, .told = watch_told };
		origin_watch(&c->origin, &watches[i].w);
		sending_queue_consume(bed->q, b);
	}
}

static uint32_t n_told(uint32_t n_clients, bool is_good)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < n_clients; i++)
		n += atomic_load(&watches[i].n_told) == 1 && watches[i].is_good == is_good;
	return n;
}

static void watches_wait_for_the_hop(void **state)
{
	struct bed *bed = log_bed_new("watched");

	(void)state;
	bed->behave = hop_down;
	bed_start(bed);
	send_watched(bed, 200);
	WAIT_FOR(all_settled(clients, 200));
	WAIT_FOR(bed->n_calls > 1);
	for (uint32_t i = 0; i < 200; i++)
		assert_int_equal(watches[i].n_told, 0);
	hop_change(bed, hop_ok);
	WAIT_FOR(n_told(200, true) == 200);
	bed_free(bed);
}

static enum hop_does hop_refuses(struct bed *bed)
{
	(void)bed;
	return HOP_PERMANENT;
}

static void watches_of_what_is_dropped(void **state)
{
	struct bed *bed = log_bed_new("watched_dropped");

	(void)state;
	bed->behave = hop_refuses;
	bed_start(bed);
	send_watched(bed, 200);
	WAIT_FOR(n_told(200, false) == 200);
	bed_free(bed);
}

/* Fed or not, what is in the log when it is closed is not found by the watcher's process. */
static void watches_of_what_stays_in_the_log(void **state)
{
	struct bed *bed = log_bed_new("watched_left");

	(void)state;
	bed->behave = hop_down;
	bed_start(bed);
	send_watched(bed, 200);
	WAIT_FOR(all_settled(clients, 200));
	bed_stop(bed);
	assert_int_equal(n_told(200, false), 200);
	memset(&ledger, 0, sizeof(ledger));
	span_left_forget();
	bed->behave = hop_ok;
	bed_start(bed);
	WAIT_FOR(ledger.delivered == 800);
	assert_int_equal(n_told(200, false), 200);
	bed_free(bed);
}

static void backlog_is_sent_joined_and_by_tenant(void **state)
{
	struct bed *bed = log_bed_new("joined");
	uint32_t before;

	(void)state;
	bed->behave = hop_hold;
	bed_start(bed);
	send_many(bed, 1000, 1, 10);
	WAIT_FOR(all_settled(clients, 1000));
	WAIT_FOR(bed->n_held == 4);
	before = bed->n_calls;
	hop_change(bed, hop_ok);
	hop_release(bed);
	WAIT_FOR(ledger.delivered == 1000);
	assert_each_once(bed, 1000);
	/* 20 runs of each tenant. */
	assert_true(bed->n_calls - before <= 50);
	bed_free(bed);
}

/* However long the backlog, what is in memory stays within the window. */
static void backlog_stays_on_disk(void **state)
{
	struct bed *bed = log_bed_new("window");
	int64_t used;

	(void)state;
	bed->behave = hop_hold;
	bed_start(bed);
	for (int round = 0; round < 20; round++) {
		send_many(bed, 200, 1, 2000);
		WAIT_FOR(all_settled(clients, 200));
	}
	usleep(20000);
	used = atomic_load(&bed->service.budget.used);
	for (int round = 0; round < 60; round++) {
		send_many(bed, 200, 1, 2000);
		WAIT_FOR(all_settled(clients, 200));
	}
	usleep(20000);
	assert_true(atomic_load(&bed->service.budget.used) <= MAX(used, 2 * 4 * 3 * (int64_t)MIB));
	assert_true(bed->counters[0].queue_size >= 0);
	hop_change(bed, hop_ok);
	hop_release(bed);
	WAIT_FOR(ledger.delivered == 16000);
	assert_balance(16000, 16000, 0, 0);
	bed_free(bed);
}

static void drain_with_a_dead_hop_keeps_the_log(void **state)
{
	struct bed *bed = log_bed_new("drain");

	(void)state;
	bed->behave = hop_down;
	bed->retry.initial_interval_ns = bed->retry.max_interval_ns = 3600 * (int64_t)NS_PER_S;
	bed_start(bed);
	send_many(bed, 100, 3, 10);
	WAIT_FOR(all_settled(clients, 100));
	WAIT_FOR(bed->n_calls >= 4);
	assert_false(sending_queue_is_drained(bed->q));
	sending_queue_drain(bed->q);
	WAIT_FOR(sending_queue_is_drained(bed->q));
	assert_balance(300, 0, 0, 300);
	bed->behave = hop_ok;
	bed_restart(bed);
	WAIT_FOR(ledger.delivered == 300);
	WAIT_FOR(sending_queue_is_drained(bed->q));
	assert_each_once(bed, 300);
	bed_free(bed);
}

static void drain_with_a_live_hop_empties_the_log(void **state)
{
	struct bed *bed = log_bed_new("drain2");

	(void)state;
	bed->behave = hop_hold;
	bed_start(bed);
	send_many(bed, 100, 3, 10);
	WAIT_FOR(all_settled(clients, 100));
	WAIT_FOR(bed->n_held > 0);
	sending_queue_drain(bed->q);
	assert_false(sending_queue_is_drained(bed->q));
	hop_change(bed, hop_ok);
	hop_release(bed);
	WAIT_FOR(sending_queue_is_drained(bed->q));
	assert_balance(300, 300, 0, 0);
	bed_free(bed);
}

static void elapsed_time_drops_and_counts(void **state)
{
	struct bed *bed = log_bed_new("elapsed");

	(void)state;
	bed->behave = hop_down;
	bed->retry.max_elapsed_time_ns = 50 * (int64_t)NS_PER_MS;
	bed_start(bed);
	send_many(bed, 10, 3, 10);
	WAIT_FOR(ledger.dropped[DROP_RETRIES_EXHAUSTED] == 30);
	WAIT_FOR(all_settled(clients, 10));
	assert_balance(30, 0, 30, 0);
	bed_free(bed);
}

static void full_log_refuses_and_recovers(void **state)
{
	struct bed *bed = log_bed_new("full");
	uint32_t n_refused = 0;

	(void)state;
	bed->behave = hop_hold;
	bed->queue.sizer = QUEUE_SIZER_BYTES;
	bed->queue.queue_size = 2 * MIB;
	bed->queue.has_queue_size = true;
	bed_start(bed);
	for (uint32_t i = 0; i < 1000; i++) {
		client_send(bed, &clients[i], i * 4, 4, 2000, "t");
		if (i % 20 == 0)
			WAIT_FOR(clients[i].settled);
	}
	WAIT_FOR(all_settled(clients, 1000));
	for (uint32_t i = 0; i < 1000; i++)
		n_refused += clients[i].outcome.retryable;
	assert_true(n_refused > 500 && n_refused < 1000);
	assert_int_equal(bed->counters[0].enqueue_failed, n_refused * 4);
	assert_int_equal(ledger.refused, n_refused * 4);
	hop_change(bed, hop_ok);
	hop_release(bed);
	WAIT_FOR(ledger.held == 0);
	assert_balance(4000 - n_refused * 4, 4000 - n_refused * 4, 0, 0);
	/* The queue frees what it delivered a moment after the books say so. */
	for (int i = 0; i < 1000 && (i == 0 || clients[0].outcome.retryable); i++) {
		usleep(i > 0 ? 10000 : 0);
		client_send(bed, &clients[0], 4000, 4, 2000, "t");
		WAIT_FOR(clients[0].settled);
	}
	WAIT_FOR(ledger.delivered == 4004 - n_refused * 4);
	bed_free(bed);
}

/* queue_size counts what sizer says: of what is on disk too, through a restart. */
static void queue_size_is_in_its_unit(void **state)
{
	static const struct {
		int sizer;
		uint64_t size, n_taken; /* of requests of 3 spans */
	} cases[] = {
		{ QUEUE_SIZER_REQUESTS, 40, 40 },
		{ QUEUE_SIZER_ITEMS, 100, 33 },
		{ QUEUE_SIZER_ITEMS, 2, 1 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct bed *bed = log_bed_new("unit");
		uint64_t n_refused = 0, in_unit;

		bed->behave = hop_hold;
		bed->queue.sizer = cases[i].sizer;
		bed->queue.queue_size = cases[i].size;
		bed->queue.has_queue_size = true;
		bed_start(bed);
		send_many(bed, 100, 3, 10);
		WAIT_FOR(all_settled(clients, 100));
		for (uint32_t k = 0; k < 100; k++)
			n_refused += clients[k].outcome.retryable;
		assert_int_equal(100 - n_refused, cases[i].n_taken);
		in_unit = cases[i].n_taken * (cases[i].sizer == QUEUE_SIZER_ITEMS ? 3 : 1);
		WAIT_FOR(bed->counters[0].queue_size == (int64_t)in_unit);
		assert_int_equal(bed->counters[0].queue_capacity, cases[i].size);
		bed_restart(bed);
		WAIT_FOR(ledger.held == (int64_t)cases[i].n_taken * 3);
		WAIT_FOR(bed->counters[0].queue_size == (int64_t)in_unit);
		client_send(bed, &clients[0], 300, 3, 10, "t");
		WAIT_FOR(clients[0].settled);
		assert_true(clients[0].outcome.retryable);
		hop_change(bed, hop_ok);
		hop_release(bed);
		WAIT_FOR(ledger.held == 0);
		WAIT_FOR(bed->counters[0].queue_size == 0);
		client_send(bed, &clients[0], 300, 3, 10, "t");
		WAIT_FOR(clients[0].settled);
		assert_false(clients[0].outcome.retryable);
		bed_free(bed);
	}
}

/* block_on_overflow: what comes to a full log waits for room; who was told to come back is out. */
static void full_log_can_be_waited_for(void **state)
{
	struct bed *bed = log_bed_new("waits");
	uint32_t n_waiting = 0, n_withdrawn = 0;

	(void)state;
	bed->behave = hop_hold;
	bed->queue.sizer = QUEUE_SIZER_BYTES;
	bed->queue.queue_size = 2 * MIB;
	bed->queue.has_queue_size = true;
	bed->queue.block_on_overflow = true;
	bed_start(bed);
	for (uint32_t i = 0; i < 1000; i++)
		client_send(bed, &clients[i], i * 4, 4, 2000, "t");
	WAIT_FOR(bed->n_held == 4);
	usleep(100000);
	for (uint32_t i = 0; i < 1000; i++) {
		if (clients[i].settled)
			continue;
		n_waiting++;
		n_withdrawn += i % 2 && origin_withdraw(&clients[i].origin);
	}
	assert_true(n_waiting > 500 && n_withdrawn > 200);
	for (uint32_t i = 1; i < 1000; i += 2)
		WAIT_FOR(clients[i].settled);
	assert_int_equal(bed->counters[0].enqueue_failed, n_withdrawn * 4);
	hop_change(bed, hop_ok);
	hop_release(bed);
	WAIT_FOR(all_settled(clients, 1000));
	WAIT_FOR(ledger.held == 0);
	assert_balance(4000 - n_withdrawn * 4, 4000 - n_withdrawn * 4, 0, 0);
	/* Stopping refuses what still waits. */
	bed->behave = hop_hold;
	for (uint32_t i = 0; i < 1000; i++)
		client_send(bed, &clients[i], 4000 + i * 4, 4, 2000, "t");
	usleep(50000);
	bed_stop(bed);
	assert_true(all_settled(clients, 1000));
	bed_free(bed);
}

/* Overwrite a byte in every 512 of the first segment, between two offsets. */
static void damage(const char *dir, off_t from, off_t to)
{
	char name[SEGMENT_NAME_SIZE], path[256], byte = 0x55;
	int fd;

	segment_dir_name(1, name);
	snprintf(path, sizeof(path), "%s/hop%%2F1/%s", dir, name);
	fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	for (off_t at = from; at < to; at += 512)
		assert_int_equal(pwrite(fd, &byte, 1, at), 1);
	close(fd);
}

/* Records damaged while the process holds them: skipped, and counted as lost when all else is gone.
 */
static void damaged_records_are_counted(void **state)
{
	struct bed *bed = log_bed_new("damage");

	(void)state;
	bed->behave = hop_hold;
	bed_start(bed);
	send_many(bed, 2000, 4, 1000);
	WAIT_FOR(all_settled(clients, 2000));
	WAIT_FOR(bed->n_held == 4);
	usleep(100000);
	damage(bed->storage.directory, 7000000, 7100000);
	hop_change(bed, hop_ok);
	hop_release(bed);
	WAIT_FOR(ledger.held == 0);
	assert_in_range(ledger.dropped[DROP_CORRUPT], 4 * 20, 4 * 60);
	assert_balance(8000, 8000 - ledger.dropped[DROP_CORRUPT], ledger.dropped[DROP_CORRUPT], 0);
	bed_free(bed);
}

/* The same, found at the next start: nobody can say how many they were, and nothing is booked. */
static void damaged_records_found_at_start(void **state)
{
	struct bed *bed = log_bed_new("damage2");

	(void)state;
	bed->behave = hop_down;
	bed_start(bed);
	send_many(bed, 500, 4, 1000);
	WAIT_FOR(all_settled(clients, 500));
	bed_stop(bed);
	damage(bed->storage.directory, 1000000, 1100000);
	memset(&ledger, 0, sizeof(ledger));
	span_left_forget();
	bed->behave = hop_ok;
	bed_start(bed);
	WAIT_FOR(ledger.delivered > 0 && ledger.held == 0 && sending_queue_is_drained(bed->q));
	assert_in_range(ledger.accepted, 2000 - 4 * 60, 2000 - 4 * 20);
	assert_balance(ledger.accepted, ledger.accepted, 0, 0);
	bed_free(bed);
}

static void consume_first(struct component *c, struct batch *b)
{
	sending_queue_consume(bed_of(c)->q, b);
}

/* Two exporters with a log each. */
struct pair {
	struct bed *beds[2];
	char dirs[2][128];
	struct fanout_target targets[2];
	struct fanout f;
};

static void pair_start(struct pair *p)
{
	static const struct component_type type = { .name = "hop",
						    .kind = KIND_EXPORTER,
						    .consume = consume_first };

	for (int k = 0; k < 2; k++) {
		p->beds[k] = log_bed_new(k ? "two" : "one");
		snprintf(p->dirs[k], sizeof(p->dirs[k]), "%s", p->beds[k]->storage.directory);
		p->beds[k]->storage.directory = p->dirs[k];
		p->beds[k]->components[0].type = &type;
		p->targets[k] = (struct fanout_target){ &p->beds[k]->components[0], false };
		bed_start(p->beds[k]);
	}
	p->f = (struct fanout){ p->targets, 2, 2 };
}

static void pair_send(struct pair *p, uint32_t first, uint32_t n)
{
	for (uint32_t i = first; i < first + n; i++) {
		struct batch *b = make_spans(i * 3, 3, 10, "t", &p->beds[0]->service.budget);

		memset(&clients[i], 0, sizeof(clients[i]));
		origin_init(&clients[i].origin, 3, client_settled);
		batch_bind(b, &clients[i].origin);
		fanout_consume(&p->f, b);
	}
	WAIT_FOR(all_settled(clients, first + n));
}

static void pair_end(struct pair *p)
{
	for (int k = 0; k < 2; k++)
		bed_stop(p->beds[k]);
	bed_free(p->beds[1]);
	bed_free(p->beds[0]);
}

/* Every span counts once, held and delivered. */
static void two_logs_count_each_span_once(void **state)
{
	struct pair p;

	(void)state;
	pair_start(&p);
	pair_send(&p, 0, 500);
	WAIT_FOR(ledger.held == 0 && ledger.delivered == 1500);
	for (int k = 0; k < 2; k++) {
		WAIT_FOR(sending_queue_is_drained(p.beds[k]->q));
		assert_each_once(p.beds[k], 1500);
	}
	assert_balance(1500, 1500, 0, 0);
	pair_end(&p);
}

/* After a restart too: of what both found, and of what one of them alone still had. */
static void two_logs_count_each_span_once_after_a_restart(void **state)
{
	struct pair p;

	(void)state;
	pair_start(&p);
	p.beds[0]->behave = hop_hold;
	pair_send(&p, 0, 100);
	WAIT_FOR(p.beds[1]->n_ok == 300);
	hop_change(p.beds[1], hop_hold);
	pair_send(&p, 100, 400);
	/* Of the first 300 whoever was first to hold them answers for. */
	assert_balance(1500, ledger.delivered, 0, 1500 - (int64_t)ledger.delivered);
	for (int k = 0; k < 2; k++)
		bed_stop(p.beds[k]);
	memset(&ledger, 0, sizeof(ledger));
	span_left_forget();
	span_numbers_begin(); /* as the service does around all starts */
	bed_start(p.beds[1]);
	WAIT_FOR(ledger.held == 1200);
	bed_start(p.beds[0]);
	span_numbers_end();
	pair_send(&p, 500, 100);
	WAIT_FOR(ledger.held == 1800);
	usleep(20000);
	assert_balance(1800, 0, 0, 1800);
	for (int k = 0; k < 2; k++) {
		hop_change(p.beds[k], hop_ok);
		hop_release(p.beds[k]);
		WAIT_FOR(p.beds[k]->n_ok == 1800);
	}
	WAIT_FOR(ledger.held == 0);
	assert_balance(1800, 1800, 0, 0);
	pair_end(&p);
}

static void storage_must_be_running(void **state)
{
	struct bed *bed = log_bed_new("none");
	struct err err = ERR_INIT;

	(void)state;
	bed->queue.storage = "file_storage/other";
	assert_null(sending_queue_new(
		&(struct sending_queue_settings){ .component = &bed->components[0],
						  .loop = bed->loop,
						  .queue = &bed->queue,
						  .retry = &bed->retry },
		&err));
	assert_string_equal(err.msg, "sending_queue.storage: \"file_storage/other\" is no running "
				     "file_storage extension: list it under service.extensions");
	bed_free(bed);
}

static int make_root(void **state)
{
	(void)state;
	snprintf(root, sizeof(root), "/tmp/sending_queue.XXXXXX");
	return mkdtemp(root) == NULL;
}

static int remove_root(void **state)
{
	char cmd[80];

	(void)state;
	snprintf(cmd, sizeof(cmd), "rm -rf '%s'", root);
	return system(cmd) != 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(thousand_spans_under_every_answer),
		cmocka_unit_test(survives_a_restart),
		cmocka_unit_test(watches_wait_for_the_hop),
		cmocka_unit_test(watches_of_what_is_dropped),
		cmocka_unit_test(watches_of_what_stays_in_the_log),
		cmocka_unit_test(backlog_is_sent_joined_and_by_tenant),
		cmocka_unit_test(backlog_stays_on_disk),
		cmocka_unit_test(drain_with_a_dead_hop_keeps_the_log),
		cmocka_unit_test(drain_with_a_live_hop_empties_the_log),
		cmocka_unit_test(elapsed_time_drops_and_counts),
		cmocka_unit_test(full_log_refuses_and_recovers),
		cmocka_unit_test(full_log_can_be_waited_for),
		cmocka_unit_test(queue_size_is_in_its_unit),
		cmocka_unit_test(damaged_records_are_counted),
		cmocka_unit_test(damaged_records_found_at_start),
		cmocka_unit_test(two_logs_count_each_span_once),
		cmocka_unit_test(two_logs_count_each_span_once_after_a_restart),
		cmocka_unit_test(storage_must_be_running),
	};

	return cmocka_run_group_tests_name("sending_queue_log", tests, make_root, remove_root);
}
