/* SPDX-License-Identifier: Apache-2.0
 *
 * run.c - the subcommand that is the program: load, start, wait for signals, drain, balance.
 *
 * Exit status: 0 done, 1 bad configuration or usage, 2 could not start, 3 stopped with something
 * undelivered that no log holds. SPEC: INTERFACE "The program".
 */
#include "cmd/cmd.h"
#include "cmd/run.h"
#include "pipeline/service.h"

#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { EXIT_DONE = 0, EXIT_CONFIG = 1, EXIT_START = 2, EXIT_UNDELIVERED = 3 };

static const char usage[] = "spanmill [run] --config SOURCE [--config SOURCE] [--set a.b.c=value]";

/* All signals we act upon are taken with sigwait by the main thread; every other thread has them
 * blocked. */
static void block_signals(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGHUP);
	pthread_sigmask(SIG_BLOCK, set, NULL);
	signal(SIGPIPE, SIG_IGN);
}

static void wait_for_stop(const sigset_t *set)
{
	int sig;

	while (sigwait(set, &sig) == 0) {
		if (sig != SIGHUP)
			return;
		log_warn("SIGHUP: reloading is not in this version yet; the configuration stays as "
			 "it is");
	}
}

static unsigned long long dropped_spans(void)
{
	unsigned long long n = 0;

	for (int r = 0; r < DROP_REASON_MAX; r++)
		n += atomic_load(&ledger.dropped[r]);
	return n;
}

/* The last line, and the exit status. */
static int balance(void)
{
	int64_t unsettled = atomic_load(&ledger.in_flight);

	fprintf(stderr, "spanmill stopped accepted=%llu delivered=%llu dropped=%llu held=%lld\n",
		(unsigned long long)atomic_load(&ledger.accepted),
		(unsigned long long)atomic_load(&ledger.delivered), dropped_spans(),
		(long long)atomic_load(&ledger.held));
	return unsettled > 0 || atomic_load(&ledger.dropped[DROP_SHUTDOWN]) > 0 ? EXIT_UNDELIVERED
										: EXIT_DONE;
}

/* While the process drains: a second SIGTERM or SIGINT ends it at once, whatever it waits for. What
 * was acknowledged lies in logs. */
static void *watch_second_signal(void *arg)
{
	sigset_t set;
	int sig;

	(void)arg;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	if (sigwait(&set, &sig) == 0)
		_exit(balance());
	return NULL;
}

/* Large blocks go back to the system when they are freed. glibc would raise its threshold to the
 * largest block it saw freed and keep such memory in its heaps: after a burst of 8 MiB requests the
 * process stood at more than twice its budget (measured: 213 MiB at 96 MiB; with this it
 * stays below). */
static void tune_malloc(void)
{
	mallopt(M_MMAP_THRESHOLD, 256 * 1024);
	mallopt(M_TRIM_THRESHOLD, 1024 * 1024);
}

static int run_service(const struct service_config *conf)
{
	struct err err = ERR_INIT;
	struct service *s;
	sigset_t signals;
	pthread_t watcher;
	bool failed;
	int status;

	block_signals(&signals);
	tune_malloc();
	log_configure((enum log_level)conf->telemetry.log_level,
		      (enum log_encoding)conf->telemetry.log_encoding);
	log_info("Starting spanmill...", "version", SPANMILL_VERSION);
	s = service_new(conf, &err);
	if (s == NULL || service_start(s, &err) < 0) {
		log_error("cannot start", "error", err.msg);
		service_free(s);
		return EXIT_START;
	}
	log_info("Everything is ready. Begin running and processing data.");
	wait_for_stop(&signals);
	log_info("Starting shutdown...");
	if (pthread_create(&watcher, NULL, watch_second_signal, NULL) == 0)
		pthread_detach(watcher);
	service_stop(s);
	failed = atomic_load(&s->failed);
	if (failed)
		log_error("a component failed", "error", s->failure);
	status = balance();
	service_free(s);
	return failed && status == EXIT_DONE ? EXIT_START : status;
}

int cmd_run(int argc, char **argv)
{
	struct service_config *conf;
	struct cmd_config c;
	int status = EXIT_CONFIG;

	cmd_config_init(&c, argc);
	for (int i = 1; i < argc; i++) {
		int taken = cmd_config_take(&c, argc, argv, &i);

		if (taken > 0)
			continue;
		if (taken == 0)
			cmd_usage("run", argv[i], usage);
		goto out;
	}
	conf = cmd_config_load(&c);
	if (conf != NULL) {
		status = run_service(conf);
		conf_check_free(conf);
	}
out:
	cmd_config_fini(&c);
	return status;
}
