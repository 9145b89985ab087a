/* SPDX-License-Identifier: Apache-2.0
 *
 * clock.h - the only place that asks what time it is, so that tests can say it.
 *
 * Wall time is for people and metadata, monotonic time for deadlines; they never mix. Any thread.
 */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include "base/base.h"

#define NS_PER_US UINT64_C(1000)
#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S UINT64_C(1000000000)

/* Nanoseconds since the Unix epoch. */
uint64_t clock_wall_ns(void);
/* Nanoseconds of a clock that never jumps; its zero means nothing. */
uint64_t clock_mono_ns(void);
/* Nanoseconds of processor time that the calling thread has used. */
uint64_t clock_cpu_ns(void);
/* "2026-11-23T22:45:13.123Z" into out, NUL-terminated. */
#define CLOCK_RFC3339_SIZE 40
void clock_format_rfc3339(uint64_t wall_ns, char out[CLOCK_RFC3339_SIZE]);
/* Tests: freeze the wall clock at wall_ns (0 gives the real one back). */
void clock_set_wall_for_test(uint64_t wall_ns);

#endif
