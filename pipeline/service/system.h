/* SPDX-License-Identifier: Apache-2.0
 *
 * system.h - how much memory and CPU the system grants this process: cgroup v2 or v1 limits, else
 * the machine's. Any thread.
 */
#ifndef PIPELINE_SERVICE_SYSTEM_H
#define PIPELINE_SERVICE_SYSTEM_H

#include "base/base.h"

/* Bytes: the cgroup's limit, or 0 when there is none. */
uint64_t system_memory_cgroup_limit(void);
/* Bytes: the cgroup's limit, else all memory of the machine. */
uint64_t system_memory_total(void);
/* Resident bytes of this process now: all, and those that no file backs. */
uint64_t system_memory_rss(void);
uint64_t system_memory_anonymous(void);
/* CPUs that may run this process: affinity, cut by the cgroup's quota (rounded up); at least 1. */
unsigned system_cpus(void);

/* For tests: read /proc/self/cgroup and /sys/fs/cgroup below `path` (borrowed). */
void system_set_root(const char *path);

#endif
