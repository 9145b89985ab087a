/* SPDX-License-Identifier: Apache-2.0
 *
 * report.h - how a bench prints what it found, for people and for tests/tools/run-bench.
 *
 *   WHAT | OURS UNIT | REFERENCE VALUE | RATIO x | BOUND TARGET | ok
 *
 * One figure a line; columns that do not apply hold "-". Other lines have no " | " and are passed
 * on. What is under way goes to standard error, over itself, when that is a terminal. The exit
 * status of a bench is 0 when its targets were met, 1 when one was missed, 2 when it could not
 * measure. Header only, because a bench program is one file.
 */
#ifndef TESTS_BENCH_REPORT_H
#define TESTS_BENCH_REPORT_H

#include "base/base.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

enum report_bound { AT_MOST, AT_LEAST };

/* What a figure is held against. */
struct report_reference {
	const char *name;
	double value; /* in the figure's unit; 0: the name says all */
};

/* Say what is being done now; "" takes it away. */
PRINTF_LIKE(1, 2) static inline void report_progress(const char *fmt, ...)
{
	va_list ap;

	if (!isatty(STDERR_FILENO))
		return;
	fputs("\r\033[K", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fflush(stderr);
}

static inline void report_start(const char *what, double ours, const char *unit)
{
	report_progress("%s", "");
	printf("%-52s | %9.1f %-7s | ", what, ours, unit);
}

/* The reference and, from its value, the ratio. */
static inline void report_reference(const struct report_reference *r, double ratio)
{
	if (r == NULL)
		printf("%-36s | %7s   | ", "-", "-");
	else if (r->value == 0)
		printf("%-36s | %7s   | ", r->name, "-");
	else
		printf("%-26s %9.1f | %7.2f x | ", r->name, r->value, ratio);
}

static inline bool report_target(double value, enum report_bound bound, double target)
{
	bool ok = bound == AT_MOST ? value <= target : value >= target;

	printf("%s %4.1f | %s\n", bound == AT_MOST ? "<=" : ">=", target, ok ? "ok" : "MISSED");
	fflush(stdout);
	return ok;
}

static inline void report_no_target(void)
{
	printf("%7s | -\n", "-");
	fflush(stdout);
}

static inline void report_value(const char *what, double ours, const char *unit)
{
	report_start(what, ours, unit);
	report_reference(NULL, 0);
	report_no_target();
}

/* A figure with a bound of its own; `peers` says what others need. Returns whether it was kept. */
static inline bool report_limit(const char *what, double ours, const char *unit, const char *peers,
				enum report_bound bound, double target)
{
	report_start(what, ours, unit);
	report_reference(&(struct report_reference){ peers, 0 }, 0);
	return report_target(ours, bound, target);
}

/* AT_MOST: ours over the reference; AT_LEAST: the reference over ours ("so many times faster").
 * Returns whether the bound was kept. */
static inline bool report_ratio(const char *what, double ours, const char *unit,
				const char *reference, double value, enum report_bound bound,
				double target)
{
	double ratio = bound == AT_MOST ? ours / value : value / ours;

	report_start(what, ours, unit);
	report_reference(&(struct report_reference){ reference, value }, ratio);
	return report_target(ratio, bound, target);
}

/* Ours over the reference without a bound: to be seen beside the others. */
static inline void report_beside(const char *what, double ours, const char *unit,
				 const char *reference, double value)
{
	report_start(what, ours, unit);
	report_reference(&(struct report_reference){ reference, value }, ours / value);
	report_no_target();
}

/* The least of several runs; *best starts at 0. */
static inline void report_keep_best(double *best, double value)
{
	if (*best == 0 || value < *best)
		*best = value;
}

#endif
