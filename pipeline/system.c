/* SPDX-License-Identifier: Apache-2.0
 *
 * system.c - see system.h. SPEC: Linux admin-guide/cgroup-v2 (memory.max, cpu.max), cgroup-v1.
 */
#include "pipeline/system.h"

#include <sched.h>
#include <stdio.h>
#include <unistd.h>

/* The first line of a file as up to two numbers; returns how many were there ("max" is none). */
static int read_numbers(const char *path, unsigned long long *a, unsigned long long *b)
{
	FILE *f = fopen(path, "re");
	int n = 0;

	if (f == NULL)
		return 0;
	n = fscanf(f, "%llu %llu", a, b);
	fclose(f);
	return n < 0 ? 0 : n;
}

uint64_t system_memory_cgroup_limit(void)
{
	unsigned long long v, unused;
	uint64_t all = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);

	if (read_numbers("/sys/fs/cgroup/memory.max", &v, &unused) < 1 &&
	    read_numbers("/sys/fs/cgroup/memory/memory.limit_in_bytes", &v, &unused) < 1)
		return 0;
	/* Version 1 writes a huge number for "no limit". */
	return v < all ? v : 0;
}

uint64_t system_memory_total(void)
{
	uint64_t limit = system_memory_cgroup_limit();

	return limit ? limit : (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t system_memory_rss(void)
{
	unsigned long long pages, resident;

	if (read_numbers("/proc/self/statm", &pages, &resident) < 2)
		return 0;
	return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static unsigned quota_cpus(void)
{
	unsigned long long quota, period;

	if (read_numbers("/sys/fs/cgroup/cpu.max", &quota, &period) == 2 && period > 0)
		return (unsigned)((quota + period - 1) / period);
	if (read_numbers("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", &quota, &period) >= 1 &&
	    read_numbers("/sys/fs/cgroup/cpu/cpu.cfs_period_us", &period,
			 &(unsigned long long){ 0 }) >= 1 &&
	    period > 0 && quota < 1ull << 40)
		return (unsigned)((quota + period - 1) / period);
	return 0;
}

unsigned system_cpus(void)
{
	unsigned n = 1, quota = quota_cpus();
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set) == 0)
		n = (unsigned)CPU_COUNT(&set);
	if (quota > 0)
		n = MIN(n, quota);
	return MAX(n, 1u);
}
