/* SPDX-License-Identifier: Apache-2.0
 *
 * test_kafka_producer.c - the producer against librdkafka's mock brokers, for what a real broker
 * does not do on demand: errors of its choice at a moment of ours.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "net/kafka_lib.h"
#include "net/kafka_producer.h"

#include <dlfcn.h>
#include <librdkafka/rdkafka_mock.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

enum { PRODUCE = 0 /* ApiKey */, RECORDS_MAX = 64 };

/* The mock's functions are not among those that the program loads. */
static struct {
	__typeof__(rd_kafka_mock_cluster_new) *cluster_new;
	__typeof__(rd_kafka_mock_cluster_destroy) *cluster_destroy;
	__typeof__(rd_kafka_mock_cluster_bootstraps) *bootstraps;
	__typeof__(rd_kafka_mock_topic_create) *topic_create;
	__typeof__(rd_kafka_mock_push_request_errors_array) *push_errors;
	__typeof__(rd_kafka_mock_broker_set_rtt) *set_rtt;
	__typeof__(rd_kafka_mock_broker_set_down) *set_down;
} mock;

static void load_mock(void)
{
	void *so = dlopen("librdkafka.so.1", RTLD_NOW);
	const struct {
		const char *name;
		void *slot;
	} symbols[] = {
		{ "rd_kafka_mock_cluster_new", &mock.cluster_new },
		{ "rd_kafka_mock_cluster_destroy", &mock.cluster_destroy },
		{ "rd_kafka_mock_cluster_bootstraps", &mock.bootstraps },
		{ "rd_kafka_mock_topic_create", &mock.topic_create },
		{ "rd_kafka_mock_push_request_errors_array", &mock.push_errors },
		{ "rd_kafka_mock_broker_set_rtt", &mock.set_rtt },
		{ "rd_kafka_mock_broker_set_down", &mock.set_down },
	};

	for (size_t i = 0; i < COUNT_OF(symbols); i++) {
		void *p = dlsym(so, symbols[i].name);

		assert_non_null(p);
		memcpy(symbols[i].slot, &p, sizeof(p));
	}
}

/* ---- the bed ---- */

struct bed {
	struct kafka_settings settings;
	const struct kafka_settings *opaque;
	rd_kafka_t *owner; /* of the brokers */
	rd_kafka_mock_cluster_t *cluster;
	struct loop *loop;
	struct kafka_producer *producer;
	unsigned n_delivered, n_failed, n_troubles;
	enum err_kind last; /* failure */
	unsigned reports[RECORDS_MAX];
};

static void delivered(void *arg, void *opaque, const struct err *err)
{
	struct bed *bed = arg;

	bed->reports[(size_t)(uintptr_t)opaque - 1]++;
	if (err == NULL)
		bed->n_delivered++;
	else
		bed->n_failed++;
	if (err != NULL)
		bed->last = err->kind;
}

static void troubled(void *arg, const struct err *err, bool is_fatal)
{
	assert_int_not_equal(err->kind, ERR_NONE);
	assert_false(is_fatal);
	((struct bed *)arg)->n_troubles++;
}

static void open_bed(struct bed *bed, const char *in_flight, const char *timeout_ms)
{
	struct err err = ERR_INIT;
	struct kafka_property properties[] = {
		{ "bootstrap.servers", "" },
		{ "enable.idempotence", "true" },
		{ "max.in.flight.requests.per.connection", in_flight },
		{ "linger.ms", "0" },
		{ "batch.num.messages", "1" },
		{ "message.timeout.ms", timeout_ms },
	};

	memset(bed, 0, sizeof(*bed));
	bed->settings.id = "kafka/test";
	bed->opaque = &bed->settings;
	bed->owner = kafka_lib_open(RD_KAFKA_PRODUCER,
				    kafka_lib_conf(&bed->settings, &bed->opaque, &err), &err);
	assert_non_null(bed->owner);
	bed->cluster = mock.cluster_new(bed->owner, 1);
	mock.topic_create(bed->cluster, "spans", 1, 1);
	properties[0].value = mock.bootstraps(bed->cluster);
	bed->loop = loop_new(0, NULL);
	bed->producer = kafka_producer_new(
		&(struct kafka_producer_settings){
			.client = { .id = "kafka/test",
				    .properties = properties,
				    .n_properties = COUNT_OF(properties) },
			.loop = bed->loop,
			.arg = bed,
			.delivered = delivered,
			.troubled = troubled },
		&err);
	if (bed->producer == NULL)
		fail_msg("%s", err.msg);
}

static void close_bed(struct bed *bed)
{
	kafka_producer_free(bed->producer);
	mock.cluster_destroy(bed->cluster);
	kafka_lib(NULL)->destroy(bed->owner);
	loop_turn(bed->loop);
	loop_free(bed->loop);
}

static void send_record(struct bed *bed, size_t number)
{
	static const char value[] = "a record";
	struct kafka_header h = { "tenant", BYTES_LIT("t") };
	struct err err = ERR_INIT;

	if (kafka_producer_send(bed->producer,
				&(struct kafka_record){ .topic = "spans",
							.partition = 0,
							.value = bytes_str(value),
							.headers = &h,
							.n_headers = 1,
							.opaque = (void *)(uintptr_t)(number + 1) },
				&err) < 0)
		fail_msg("%s", err.msg);
}

static void wait_for_reports(struct bed *bed, unsigned n)
{
	uint64_t until = clock_mono_ns() + 100 * NS_PER_S;

	while (bed->n_delivered + bed->n_failed < n) {
		loop_turn(bed->loop);
		usleep(1000);
		if (clock_mono_ns() > until)
			fail_msg("%u of %u reports", bed->n_delivered + bed->n_failed, n);
	}
}

/* Records the broker has: its next offset. */
static int64_t n_written(struct bed *bed)
{
	const struct kafka_lib *lib = kafka_lib(NULL);
	const struct kafka_settings s = {
		.id = "kafka/asks",
		.properties = &(struct kafka_property){ "bootstrap.servers",
							mock.bootstraps(bed->cluster) },
		.n_properties = 1,
	};
	const struct kafka_settings *opaque = &s;
	rd_kafka_t *rk = kafka_lib_open(RD_KAFKA_PRODUCER, kafka_lib_conf(&s, &opaque, NULL), NULL);
	int64_t low = 0, high = -1;

	assert_non_null(rk);
	assert_int_equal(lib->query_watermark_offsets(rk, "spans", 0, &low, &high, 5000), 0);
	lib->destroy(rk);
	return high - low;
}

/* ---- tests ---- */

static void records_arrive_and_are_reported_once(void **state)
{
	struct kafka_topic_info info;
	struct err err = ERR_INIT;
	struct bed bed;

	(void)state;
	open_bed(&bed, "1", "10000");
	for (size_t i = 0; i < 50; i++)
		send_record(&bed, i);
	assert_true(kafka_producer_pending(bed.producer) > 0);
	wait_for_reports(&bed, 50);
	for (size_t i = 0; i < 50; i++)
		assert_int_equal(bed.reports[i], 1);
	assert_int_equal(bed.n_delivered, 50);
	assert_int_equal(kafka_producer_pending(bed.producer), 0);
	assert_int_equal(kafka_producer_describe(bed.producer, "spans", 2000, &info, &err), 0);
	assert_int_equal(info.n_partitions, 1);
	assert_int_equal(info.max_message_bytes, 0); /* the mock cannot say */
	assert_int_not_equal(info.config_err.kind, ERR_NONE);
	close_bed(&bed);
}

/* Ten records one by one; the broker refuses the first for want of replicas, and takes what is in
 * flight behind it. Returns how many were reported as delivered and never written. */
static int64_t lost_behind_a_refusal(const char *in_flight)
{
	static const rd_kafka_resp_err_t errors[] = { RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS };
	struct bed bed;
	int64_t lost;

	open_bed(&bed, in_flight, "10000");
	mock.set_rtt(bed.cluster, 1, 200);
	mock.push_errors(bed.cluster, PRODUCE, COUNT_OF(errors), errors);
	for (size_t i = 0; i < 10; i++)
		send_record(&bed, i);
	wait_for_reports(&bed, 10);
	mock.set_rtt(bed.cluster, 1, 0);
	lost = (int64_t)bed.n_delivered - n_written(&bed);
	close_bed(&bed);
	return lost;
}

/* docs/decisions/011. The first half is why; should it fail, a newer librdkafka may do better. */
static void a_refused_record_is_not_taken_for_delivered(void **state)
{
	(void)state;
	assert_int_equal(lost_behind_a_refusal("1"), 0);
	if (lost_behind_a_refusal("5") == 0)
		printf("this librdkafka does not lose records with 5 in flight\n");
}

static void a_record_too_large_for_the_broker(void **state)
{
	static const rd_kafka_resp_err_t errors[] = { RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE };
	struct bed bed;

	(void)state;
	open_bed(&bed, "1", "10000");
	mock.push_errors(bed.cluster, PRODUCE, COUNT_OF(errors), errors);
	send_record(&bed, 0);
	wait_for_reports(&bed, 1);
	assert_int_equal(bed.last, ERR_TOO_LARGE);
	close_bed(&bed);
}

static void time_runs_out_while_the_broker_is_away(void **state)
{
	struct bed bed;

	(void)state;
	open_bed(&bed, "1", "700");
	mock.set_down(bed.cluster, 1);
	send_record(&bed, 0);
	wait_for_reports(&bed, 1);
	assert_int_equal(bed.last, ERR_TIMEOUT);
	assert_true(bed.n_troubles > 0);
	close_bed(&bed);
}

/* Also those that are on their way just then. */
static void free_reports_what_is_pending(void **state)
{
	struct bed bed;

	(void)state;
	for (int down = 0; down < 2; down++) {
		open_bed(&bed, "1", "0");
		mock.set_rtt(bed.cluster, 1, 300);
		if (down)
			mock.set_down(bed.cluster, 1);
		for (size_t i = 0; i < 20; i++)
			send_record(&bed, i);
		usleep(100000);
		close_bed(&bed);
		assert_int_equal(bed.n_delivered + bed.n_failed, 20);
		assert_true(bed.n_failed > 0);
	}
}

static void nobody_answers_a_question(void **state)
{
	struct kafka_topic_info info;
	struct err err = ERR_INIT;
	struct bed bed;

	(void)state;
	open_bed(&bed, "1", "10000");
	mock.set_down(bed.cluster, 1);
	assert_int_equal(kafka_producer_describe(bed.producer, "spans", 300, &info, &err), -1);
	assert_true(err.retryable);
	assert_true(err.kind == ERR_UNAVAILABLE || err.kind == ERR_TIMEOUT);
	close_bed(&bed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(records_arrive_and_are_reported_once),
		cmocka_unit_test(a_refused_record_is_not_taken_for_delivered),
		cmocka_unit_test(a_record_too_large_for_the_broker),
		cmocka_unit_test(time_runs_out_while_the_broker_is_away),
		cmocka_unit_test(free_reports_what_is_pending),
		cmocka_unit_test(nobody_answers_a_question),
	};

	load_mock();
	/* librdkafka starts its threads by thrd_create, which gcc's TSan does not see: our
	 * callbacks on them then fault inside the sanitizer. */
#ifdef __SANITIZE_THREAD__
	print_message("skipped: TSan does not know librdkafka's threads\n");
	return COUNT_OF(tests) == 0;
#endif
	return cmocka_run_group_tests_name("kafka_producer", tests, NULL, NULL);
}
