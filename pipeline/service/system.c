/* SPDX-License-Identifier: Apache-2.0
 *
 * system.c - see system.h. SPEC: Linux admin-guide/cgroup-v2 (memory.max, cpu.max), cgroup-v1.
 */
#include "pipeline/service/system.h"

#include <sched.h>
#include <stdio.h>
#include <unistd.h>

static const char *root = ""; /* tests put a tree of their own in front */

void system_set_root(const char *path)
{
	root = path;
}

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

static int read_in(const char *dir, const char *file, unsigned long long *a, unsigned long long *b)
{
	char path[4400];

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	return read_numbers(path, a, b);
}

/* ---- our control groups ---- */

typedef void group_fn(const char *dir, uint64_t *lowest);

/* fn for the group at base+path and all above it: the tightest limit on the way up holds. `path`
 * is eaten. */
static void walk_up(const char *base, char *path, group_fn *fn, uint64_t *lowest)
{
	char dir[4200];

	for (;;) {
		char *slash = strrchr(path, '/');

		snprintf(dir, sizeof(dir), "%s/sys/fs/cgroup%s%s", root, base, path);
		fn(dir, lowest);
		if (slash == NULL)
			return;
		*slash = '\0';
	}
}

static bool has_word(const char *list, const char *word)
{
	size_t n = strlen(word);

	for (const char *p = list; p != NULL; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
		if (strncmp(p, word, n) == 0 && (p[n] == ',' || p[n] == '\0'))
			return true;
	return false;
}

/* The lowest limit fn finds in our groups, UINT64_MAX when there is none. /proc/self/cgroup has
 * lines id:controllers:path; version 2 has one, without controllers. */
static uint64_t lowest_limit(const char *controller, group_fn *fn)
{
	uint64_t lowest = UINT64_MAX;
	char line[4200], base[64], none[1] = "";
	FILE *f;

	snprintf(line, sizeof(line), "%s/proc/self/cgroup", root);
	f = fopen(line, "re");
	snprintf(base, sizeof(base), "/%s", controller);
	while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
		char *controllers = strchr(line, ':'), *path;

		line[strcspn(line, "\n")] = '\0';
		path = controllers ? strchr(controllers + 1, ':') : NULL;
		if (path == NULL)
			continue;
		*path++ = '\0';
		/* In a container the path may be the host's; the group itself is at the top then.
		 */
		if (controllers[1] == '\0')
			walk_up("", path, fn, &lowest);
		else if (has_word(controllers + 1, controller))
			walk_up(base, path, fn, &lowest);
	}
	if (f != NULL)
		fclose(f);
	walk_up("", none, fn, &lowest);
	walk_up(base, none, fn, &lowest);
	return lowest;
}

static void memory_limit(const char *dir, uint64_t *lowest)
{
	unsigned long long v, unused;

	if (read_in(dir, "memory.max", &v, &unused) >= 1 ||
	    read_in(dir, "memory.limit_in_bytes", &v, &unused) >= 1)
		*lowest = MIN(*lowest, (uint64_t)v);
}

uint64_t system_memory_cgroup_limit(void)
{
	uint64_t all = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t v = lowest_limit("memory", memory_limit);

	/* Version 1 writes a huge number for "no limit". */
	return v < all ? v : 0;
}

uint64_t system_memory_total(void)
{
	uint64_t limit = system_memory_cgroup_limit();

	return limit ? limit : (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* Resident bytes, all of them and those that a file (or nothing private) backs. */
static void read_statm(uint64_t *resident, uint64_t *shared)
{
	unsigned long long pages, r = 0, s = 0;
	FILE *f = fopen("/proc/self/statm", "re");

	if (f == NULL || fscanf(f, "%llu %llu %llu", &pages, &r, &s) < 3)
		r = s = 0;
	if (f != NULL)
		fclose(f);
	*resident = r * (uint64_t)sysconf(_SC_PAGESIZE);
	*shared = s * (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t system_memory_rss(void)
{
	uint64_t resident, shared;

	read_statm(&resident, &shared);
	return resident;
}

uint64_t system_memory_anonymous(void)
{
	uint64_t resident, shared;

	read_statm(&resident, &shared);
	return resident - shared;
}

/* Part of a CPU counts as one. */
static void cpu_limit(const char *dir, uint64_t *lowest)
{
	unsigned long long quota, period, unused;

	if (read_in(dir, "cpu.max", &quota, &period) == 2 && period > 0)
		*lowest = MIN(*lowest, (quota + period - 1) / period);
	else if (read_in(dir, "cpu.cfs_quota_us", &quota, &unused) >= 1 &&
		 read_in(dir, "cpu.cfs_period_us", &period, &unused) >= 1 && period > 0 &&
		 quota < 1ull << 40) /* -1: none */
		*lowest = MIN(*lowest, (quota + period - 1) / period);
}

unsigned system_cpus(void)
{
	uint64_t quota = lowest_limit("cpu", cpu_limit);
	unsigned n = 1;
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set) == 0)
		n = (unsigned)CPU_COUNT(&set);
	n = (unsigned)MIN((uint64_t)n, quota);
	return MAX(n, 1u);
}
