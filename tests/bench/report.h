/* SPDX-License-Identifier: Apache-2.0
 *
 * report.h - how a bench prints what it found, so that tests/tools/run-bench can read it.
 *
 *   NAME  VALUE UNIT
 *   NAME  VALUE UNIT  RATIO x
 *   NAME  VALUE UNIT  RATIO x (target <= N) ok|MISSED
 *   NAME  VALUE UNIT  (target <= N) ok|MISSED
 *   NAME  skipped: WHY
 *
 * NAME has single spaces only and two spaces end it. Other lines ("shape: ...") are passed on. The
 * exit status of a bench is 0 when its targets were met, 1 when one was missed, 2 when it could not
 * measure. Header only, because a bench program is one file.
 */
#ifndef TESTS_BENCH_REPORT_H
#define TESTS_BENCH_REPORT_H

#include "base/base.h"

#include <stdio.h>

#define REPORT_NAME "%-52s"

enum report_bound { AT_MOST, AT_LEAST };

static inline const char *report_sign(enum report_bound bound)
{
	return bound == AT_MOST ? "<=" : ">=";
}

static inline bool report_holds(double value, enum report_bound bound, double target)
{
	return bound == AT_MOST ? value <= target : value >= target;
}

static inline void report_value(const char *name, double value, const char *unit)
{
	printf(REPORT_NAME " %10.1f %s\n", name, value, unit);
	fflush(stdout);
}

/* A figure with a bound of its own. Returns whether it was kept. */
static inline bool report_limit(const char *name, double value, const char *unit,
				enum report_bound bound, double target)
{
	bool ok = report_holds(value, bound, target);

	printf(REPORT_NAME " %10.1f %-8s             (target %s %.1f) %s\n", name, value, unit,
	       report_sign(bound), target, ok ? "ok" : "MISSED");
	fflush(stdout);
	return ok;
}

/* A figure and what it is of `base`, which the name says. Returns whether the bound was kept. */
static inline bool report_ratio(const char *name, double value, const char *unit, double base,
				enum report_bound bound, double target)
{
	bool ok = report_holds(value / base, bound, target);

	printf(REPORT_NAME " %10.1f %-8s %9.2f x (target %s %.1f) %s\n", name, value, unit,
	       value / base, report_sign(bound), target, ok ? "ok" : "MISSED");
	fflush(stdout);
	return ok;
}

/* The same without a bound: to be seen beside the others. */
static inline void report_beside(const char *name, double value, const char *unit, double base)
{
	printf(REPORT_NAME " %10.1f %-8s %9.2f x\n", name, value, unit, value / base);
	fflush(stdout);
}

static inline void report_skip(const char *name, const char *why)
{
	printf(REPORT_NAME " skipped: %s\n", name, why);
	fflush(stdout);
}

/* The least of several runs; *best starts at 0. */
static inline void report_keep_best(double *best, double value)
{
	if (*best == 0 || value < *best)
		*best = value;
}

#endif
