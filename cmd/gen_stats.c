/* SPDX-License-Identifier: Apache-2.0
 *
 * gen_stats.c - see gen_stats.h.
 */
#include "cmd/gen_stats.h"

#include "base/clock.h"
#include "base/str.h"
#include "cmd/terminal.h"
#include "wire/json_writer.h"

#include <stdio.h>

static const struct {
	const char *name, *key;
	double share;
} percentiles[] = {
	{ "p50", "p50_us", 0.5 },
	{ "p90", "p90_us", 0.9 },
	{ "p99", "p99_us", 0.99 },
	{ "p99.9", "p99.9_us", 0.999 },
};

void gen_stats_init(struct gen_stats *s)
{
	memset(s, 0, sizeof(*s));
	pthread_mutex_init(&s->lock, NULL);
}

void gen_stats_fini(struct gen_stats *s)
{
	pthread_mutex_destroy(&s->lock);
}

void gen_stats_note_error(struct gen_stats *s, const char *what)
{
	pthread_mutex_lock(&s->lock);
	if (s->first_error[0] == '\0')
		snprintf(s->first_error, sizeof(s->first_error), "%s", what);
	pthread_mutex_unlock(&s->lock);
}

void gen_stats_note_id(struct gen_stats *s, const uint8_t trace_id[16])
{
	pthread_mutex_lock(&s->lock);
	if (s->first_id[0] == '\0')
		str_hex(trace_id, 16, s->first_id);
	pthread_mutex_unlock(&s->lock);
}

/* ---- latencies ---- */

/*   0..63 us one by one, then [64, 128) in 32 steps of 2 us, [128, 256) in 32 of 4 us, ... */
static size_t slot_of(uint64_t us)
{
	unsigned shift;

	if (us < 2 * GEN_LATENCY_STEPS)
		return (size_t)us;
	shift = 58 - (unsigned)__builtin_clzll(us); /* the top six bits are left */
	return MIN((size_t)shift * GEN_LATENCY_STEPS + (size_t)(us >> shift),
		   (size_t)GEN_LATENCY_SLOTS - 1);
}

/* The highest value of a slot. */
static uint64_t slot_top(size_t slot)
{
	size_t shift;

	if (slot < 2 * GEN_LATENCY_STEPS)
		return slot;
	shift = slot / GEN_LATENCY_STEPS - 1;
	return ((slot - shift * GEN_LATENCY_STEPS + 1) << shift) - 1;
}

void gen_latency_add(struct gen_latency *l, uint64_t ns)
{
	uint64_t us = ns / NS_PER_US, max = atomic_load_explicit(&l->max_us, memory_order_relaxed);

	atomic_fetch_add_explicit(&l->slots[slot_of(us)], 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&l->n, 1, memory_order_relaxed);
	while (us > max && !atomic_compare_exchange_weak(&l->max_us, &max, us))
		;
}

uint64_t gen_latency_percentile(const struct gen_latency *l, double share)
{
	uint64_t n = atomic_load(&l->n), max = atomic_load(&l->max_us), seen = 0;
	double want = (double)n * share;

	for (size_t i = 0; i < GEN_LATENCY_SLOTS; i++) {
		seen += atomic_load_explicit(&l->slots[i], memory_order_relaxed);
		if (seen > 0 && (double)seen >= want)
			return MIN(slot_top(i), max);
	}
	return max;
}

/* ---- printing ---- */

static void add_time(struct buf *out, const char *name, uint64_t us)
{
	char text[TERMINAL_TIME_SIZE];

	terminal_format_time(us * NS_PER_US, true, text);
	buf_printf(out, "%s%s %s", out->n > 0 ? "  " : "", name, text);
}

static double rate(uint64_t n, uint64_t ns)
{
	return ns > 0 ? (double)n * 1e9 / (double)ns : 0;
}

static uint64_t elapsed_ns(const struct gen_stats *s)
{
	return (s->end_ns ? s->end_ns : clock_mono_ns()) - s->start_ns;
}

void gen_stats_progress(const struct gen_stats *s, struct gen_progress *before, struct buf *out)
{
	uint64_t now = clock_mono_ns(), acked = atomic_load(&s->acked);
	uint64_t bad = atomic_load(&s->failed) + atomic_load(&s->rejected);

	buf_printf(out, "%.1f s  sent %llu  acked %llu  refused %llu  ",
		   (double)(now - s->start_ns) / 1e9, (unsigned long long)atomic_load(&s->sent),
		   (unsigned long long)acked, (unsigned long long)atomic_load(&s->refused));
	if (bad > 0)
		buf_printf(out, "failed %llu  ", (unsigned long long)bad);
	buf_printf(out, "%.0f spans/s", rate(acked - before->acked, now - before->ns));
	if (atomic_load(&s->latency.n) > 0) {
		add_time(out, "p50", gen_latency_percentile(&s->latency, 0.5));
		add_time(out, "p99", gen_latency_percentile(&s->latency, 0.99));
	}
	*before = (struct gen_progress){ now, acked };
}

static void add_count(struct buf *out, const char *name, uint64_t n, const char *note)
{
	buf_printf(out, "%-10s%llu%s\n", name, (unsigned long long)n, n > 0 ? note : "");
}

static void add_latencies(const struct gen_stats *s, struct buf *out)
{
	struct buf line = BUF_INIT;

	for (size_t i = 0; i < COUNT_OF(percentiles); i++)
		add_time(&line, percentiles[i].name,
			 gen_latency_percentile(&s->latency, percentiles[i].share));
	add_time(&line, "max", atomic_load(&s->latency.max_us));
	buf_printf(out, "%-10s%s\n", "latency", buf_cstr(&line));
	buf_fini(&line);
}

void gen_stats_report(struct gen_stats *s, struct buf *out)
{
	uint64_t ns = elapsed_ns(s), sent = atomic_load(&s->sent);
	uint64_t requests = atomic_load(&s->requests);

	buf_printf(out, "%-10s%llu spans in %llu request%s, %.2f s\n", "sent",
		   (unsigned long long)sent, (unsigned long long)requests, requests == 1 ? "" : "s",
		   (double)ns / 1e9);
	buf_printf(out, "%-10s%llu, %.0f spans/s\n", "acked",
		   (unsigned long long)atomic_load(&s->acked), rate(atomic_load(&s->acked), ns));
	add_count(out, "rejected", atomic_load(&s->rejected), ", by partial_success");
	add_count(out, "refused", atomic_load(&s->refused),
		  ", to be sent again later or not answered");
	add_count(out, "failed", atomic_load(&s->failed), "");
	add_count(out, "retries", atomic_load(&s->retries), "");
	add_count(out, "no answer", atomic_load(&s->unanswered), " attempts");
	if (atomic_load(&s->latency.n) > 0)
		add_latencies(s, out);
	buf_printf(out, "%-10s%llu, %.0f a span\n", "bytes",
		   (unsigned long long)atomic_load(&s->bytes),
		   sent ? (double)atomic_load(&s->bytes) / (double)sent : 0);
	if (s->first_error[0] != '\0')
		buf_printf(out, "%-10s%s\n", "error", s->first_error);
	if (s->first_id[0] != '\0')
		buf_printf(out, "%-10s%s\n", "trace", s->first_id);
}

static void write_u64(struct json_writer *w, const char *key, uint64_t v)
{
	json_writer_key(w, key);
	json_writer_u64(w, v);
}

void gen_stats_report_json(struct gen_stats *s, struct buf *out)
{
	struct json_writer w = JSON_WRITER(out);
	uint64_t ns = elapsed_ns(s);

	json_writer_object(&w);
	write_u64(&w, "requests", atomic_load(&s->requests));
	write_u64(&w, "sent", atomic_load(&s->sent));
	write_u64(&w, "acked", atomic_load(&s->acked));
	write_u64(&w, "rejected", atomic_load(&s->rejected));
	write_u64(&w, "refused", atomic_load(&s->refused));
	write_u64(&w, "failed", atomic_load(&s->failed));
	write_u64(&w, "retries", atomic_load(&s->retries));
	write_u64(&w, "unanswered", atomic_load(&s->unanswered));
	write_u64(&w, "bytes", atomic_load(&s->bytes));
	json_writer_key(&w, "seconds");
	json_writer_double(&w, (double)(ns / NS_PER_US) / 1e6);
	json_writer_key(&w, "spans_per_second");
	json_writer_double(&w, (double)(uint64_t)rate(atomic_load(&s->acked), ns));
	json_writer_key(&w, "latency");
	json_writer_object(&w);
	for (size_t i = 0; i < COUNT_OF(percentiles); i++)
		write_u64(&w, percentiles[i].key,
			  gen_latency_percentile(&s->latency, percentiles[i].share));
	write_u64(&w, "max_us", atomic_load(&s->latency.max_us));
	json_writer_object_end(&w);
	json_writer_key(&w, "first_trace_id");
	json_writer_str(&w, s->first_id);
	json_writer_key(&w, "first_error");
	json_writer_str(&w, s->first_error);
	json_writer_object_end(&w);
	buf_add_char(out, '\n');
}
