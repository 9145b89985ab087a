/* SPDX-License-Identifier: Apache-2.0
 *
 * test_system.c - limits of control groups, in trees made for the test: version 1 and 2, nested,
 * none.
 */
#include "base/base.h"
#include "pipeline/service/system.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[] = "/tmp/spanmill-system-XXXXXX";

/* Write a file below dir, with the folders on the way. */
static void put(const char *path, const char *text)
{
	char full[400];
	FILE *f;

	snprintf(full, sizeof(full), "%s%s", dir, path);
	for (char *p = full + strlen(dir) + 1; (p = strchr(p, '/')) != NULL; p++) {
		*p = '\0';
		mkdir(full, 0755);
		*p = '/';
	}
	f = fopen(full, "w");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	fclose(f);
}

static void clean(void)
{
	char command[100];

	snprintf(command, sizeof(command), "rm -rf %s/proc %s/sys", dir, dir);
	assert_int_equal(system(command), 0);
}

static const struct {
	const char *name, *cgroup;
	struct {
		const char *path, *text;
	} files[4];
	unsigned cpus;   /* 0: no limit */
	uint64_t memory; /* 0: no limit */
} cases[] = {
	{ "no files at all", NULL, { { NULL, NULL } }, 0, 0 },
	{ "version 2 in a container",
	  "0::/\n",
	  { { "/sys/fs/cgroup/cpu.max", "50000 100000\n" },
	    { "/sys/fs/cgroup/memory.max", "67108864\n" } },
	  1,
	  64 * MIB },
	{ "version 2, no limit",
	  "0::/\n",
	  { { "/sys/fs/cgroup/cpu.max", "max 100000\n" },
	    { "/sys/fs/cgroup/memory.max", "max\n" } },
	  0,
	  0 },
	{ "version 2, a systemd unit",
	  "0::/system.slice/spanmill.service\n",
	  { { "/sys/fs/cgroup/system.slice/spanmill.service/cpu.max", "100000 100000\n" },
	    { "/sys/fs/cgroup/system.slice/spanmill.service/memory.max", "max\n" },
	    { "/sys/fs/cgroup/system.slice/memory.max", "134217728\n" } },
	  1,
	  128 * MIB },
	{ "the tightest of the way up holds",
	  "0::/a/b\n",
	  { { "/sys/fs/cgroup/a/b/memory.max", "268435456\n" },
	    { "/sys/fs/cgroup/a/memory.max", "67108864\n" },
	    { "/sys/fs/cgroup/a/cpu.max", "10000 100000\n" } },
	  1,
	  64 * MIB },
	{ "one and a half CPUs are two",
	  "0::/\n",
	  { { "/sys/fs/cgroup/cpu.max", "150000 100000\n" } },
	  2,
	  0 },
	{ "version 1",
	  "4:cpu,cpuacct:/docker/x\n9:memory:/docker/x\n",
	  { { "/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "100000\n" },
	    { "/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n" },
	    { "/sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes", "67108864\n" } },
	  1,
	  64 * MIB },
	{ "version 1, no limit",
	  "4:cpu,cpuacct:/\n9:memory:/\n",
	  { { "/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n" },
	    { "/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n" },
	    { "/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n" } },
	  0,
	  0 },
};

static void limits_are_those_of_our_groups(void **state)
{
	unsigned all;

	(void)state;
	assert_non_null(mkdtemp(dir));
	system_set_root(dir);
	all = system_cpus();
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		clean();
		if (cases[i].cgroup != NULL)
			put("/proc/self/cgroup", cases[i].cgroup);
		for (size_t j = 0; j < COUNT_OF(cases[i].files) && cases[i].files[j].path; j++)
			put(cases[i].files[j].path, cases[i].files[j].text);
		if (system_memory_cgroup_limit() != cases[i].memory)
			fail_msg("%s: memory %llu", cases[i].name,
				 (unsigned long long)system_memory_cgroup_limit());
		if (system_cpus() != (cases[i].cpus ? MIN(all, cases[i].cpus) : all))
			fail_msg("%s: %u CPUs", cases[i].name, system_cpus());
	}
	clean();
	rmdir(dir);
	system_set_root("");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(limits_are_those_of_our_groups),
	};

	return cmocka_run_group_tests_name("system", tests, NULL, NULL);
}
