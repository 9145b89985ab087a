/* SPDX-License-Identifier: Apache-2.0
 *
 * run.c - the subcommand that is the program: load, start, wait for signals, drain, balance.
 *
 * DESIGN: the signals we act upon are blocked in every thread before the first starts, and taken by
 * one thread with sigwait; it tells the main thread what came and can end the process while
 * that one starts or drains.
 * Exit status: 0 done, 1 bad configuration or usage, 2 could not start, 3 stopped with something
 * undelivered that no log holds. SPEC: INTERFACE "The program".
 */
#include "cmd/cmd.h"
#include "cmd/run.h"
#include "pipeline/service/service.h"

#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { EXIT_DONE = 0, EXIT_CONFIG = 1, EXIT_START = 2, EXIT_UNDELIVERED = 3 };

static unsigned long long dropped_of(const struct ledger *l)
{
	unsigned long long n = 0;

	for (int r = 0; r < DROP_REASON_MAX; r++)
		n += atomic_load(&l->dropped[r]);
	return n;
}

static void print_books(const char *of, const struct ledger *l)
{
	fprintf(stderr, "spanmill %s accepted=%llu delivered=%llu dropped=%llu held=%lld\n", of,
		(unsigned long long)atomic_load(&l->accepted),
		(unsigned long long)atomic_load(&l->delivered), dropped_of(l),
		(long long)atomic_load(&l->held));
}

/* The last line, and the exit status. */
static int balance(void)
{
	static const char *const names[] = { [OTLP_METRICS] = "metrics", [OTLP_LOGS] = "logs" };
	int ret = EXIT_DONE;

	log_silence();
	/* The line of spans is the last. */
	for (int g = OTLP_SIGNALS - 1; g >= 0; g--) {
		const struct ledger *l = ledger_of((enum otlp_signal)g);

		if (atomic_load(&l->in_flight) > 0 || atomic_load(&l->dropped[DROP_SHUTDOWN]) > 0)
			ret = EXIT_UNDELIVERED;
		if (g == OTLP_TRACES)
			print_books("stopped", l);
		else if (atomic_load(&l->accepted) > 0)
			print_books(names[g], l);
	}
	return ret;
}

/* ---- what the main thread waits for ---- */

enum event { EVENT_STOP = 1, EVENT_RELOAD = 2 };

/* One process, one of it: static, so that a late signal finds it whatever was freed. */
static struct {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	unsigned events; /* enum event, or-ed */
	bool stop_asked; /* by a signal; the signal thread's own */
} waiting = { .lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER };

static void post(unsigned event)
{
	pthread_mutex_lock(&waiting.lock);
	waiting.events |= event;
	pthread_cond_signal(&waiting.wake);
	pthread_mutex_unlock(&waiting.lock);
}

/* The events that came, at least one. A stop stays. */
static unsigned take_events(void)
{
	unsigned events;

	pthread_mutex_lock(&waiting.lock);
	while (waiting.events == 0)
		pthread_cond_wait(&waiting.wake, &waiting.lock);
	events = waiting.events;
	waiting.events &= EVENT_STOP;
	pthread_mutex_unlock(&waiting.lock);
	return events;
}

/* Only looks: a SIGHUP that came meanwhile stays for the main thread. Any thread. */
static bool stop_is_wanted(void *arg)
{
	bool yes;

	(void)arg;
	pthread_mutex_lock(&waiting.lock);
	yes = (waiting.events & EVENT_STOP) != 0;
	pthread_mutex_unlock(&waiting.lock);
	return yes;
}

static void component_failed(void *arg)
{
	(void)arg;
	post(EVENT_STOP);
}

static void signal_set(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGHUP);
}

/* A second SIGTERM or SIGINT ends the process at once, whatever the main thread waits for. What was
 * acknowledged lies in logs. */
static void *take_signals(void *arg)
{
	sigset_t set;
	int sig;

	(void)arg;
	signal_set(&set);
	while (sigwait(&set, &sig) == 0) {
		if (sig == SIGHUP) {
			post(EVENT_RELOAD);
			continue;
		}
		if (waiting.stop_asked)
			_exit(balance());
		waiting.stop_asked = true;
		post(EVENT_STOP);
	}
	return NULL;
}

/* While the configuration is read only SIGHUP waits: SIGTERM ends a process that waits for a file
 * for ever, and nothing has been taken on yet. */
static void block_signals(bool only_hup)
{
	sigset_t set;

	signal_set(&set);
	if (only_hup) {
		sigemptyset(&set);
		sigaddset(&set, SIGHUP);
	}
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	/* A write over RLIMIT_FSIZE is then an error of that write, as on a full disk. */
	signal(SIGXFSZ, SIG_IGN);
}

static int start_signal_thread(struct err *err)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, take_signals, NULL) != 0)
		return err_set(err, ERR_INTERNAL, "cannot start the thread that takes signals");
	pthread_detach(thread);
	return 0;
}

/* ---- SIGHUP ---- */

static void add_changed(const struct conf_node *a, const struct conf_node *b, const char *section,
			struct buf *names)
{
	struct buf left = BUF_INIT, right = BUF_INIT;

	for (const struct conf_node *c = a ? a->first : NULL; c != NULL; c = c->next) {
		const struct conf_node *twin = conf_tree_find(b, c->key);

		buf_reset(&left);
		buf_reset(&right);
		conf_tree_print_yaml(c, &left);
		if (twin != NULL)
			conf_tree_print_yaml(twin, &right);
		if (twin == NULL || strcmp(buf_cstr(&left), buf_cstr(&right)) != 0)
			buf_printf(names, "%s%s.%s", names->n ? ", " : "", section, c->key);
	}
	for (const struct conf_node *c = b ? b->first : NULL; c != NULL; c = c->next)
		if (conf_tree_find(a, c->key) == NULL)
			buf_printf(names, "%s%s.%s", names->n ? ", " : "", section, c->key);
	buf_fini(&left);
	buf_fini(&right);
}

/* "receivers.otlp, service.pipelines": what differs. */
static void name_changes(const struct service_config *old, const struct service_config *new,
			 struct buf *names)
{
	static const char *const sections[] = { "receivers",  "processors", "exporters",
						"connectors", "extensions", "service" };
	struct arena arena = ARENA_INIT;
	const struct conf_node *a = conf_check_print(old, &arena, false),
			       *b = conf_check_print(new, &arena, false);

	for (size_t i = 0; i < COUNT_OF(sections); i++)
		add_changed(conf_tree_find(a, sections[i]), conf_tree_find(b, sections[i]),
			    sections[i], names);
	arena_fini(&arena);
}

/* Read the sources again and change to what they say now. */
static void reload(const struct cmd_config *args, struct service *s)
{
	struct service_config *found = cmd_config_load(args);
	struct buf names = BUF_INIT;
	struct err err = ERR_INIT;

	if (found == NULL) {
		log_error("SIGHUP: the configuration has mistakes, the running one stays");
		service_reload_failed(s);
		return;
	}
	name_changes(s->conf, found, &names);
	if (names.n == 0) {
		conf_check_free(found);
		service_refresh(s);
		log_info("SIGHUP: the configuration has not changed");
	} else if (service_reload(s, found, &err) < 0 && !stop_is_wanted(NULL)) {
		log_error("SIGHUP: the new configuration cannot be started, the old one is in "
			  "force again",
			  "error", err.msg);
	}
	buf_fini(&names);
}

/* ---- the run ---- */

/* Large blocks go back to the system when they are freed. glibc would raise its threshold to the
 * largest block it saw freed and keep such memory in its heaps: after a burst of 8 MiB requests the
 * process stood at more than twice its budget (measured: 213 MiB at 96 MiB; with this it
 * stays below). */
static void tune_malloc(void)
{
	mallopt(M_MMAP_THRESHOLD, 256 * 1024);
	mallopt(M_TRIM_THRESHOLD, 1024 * 1024);
}

static int start(struct service *s, struct err *err)
{
	s->stop_is_wanted = stop_is_wanted;
	s->component_failed = component_failed;
	return start_signal_thread(err) < 0 ? -1 : service_start(s, err);
}

static int run_service(const struct cmd_config *args, const struct service_config *conf)
{
	struct err err = ERR_INIT;
	struct service *s;
	bool failed;
	int status;

	block_signals(false);
	tune_malloc();
	if (log_open(&conf->telemetry.log, &err) < 0) {
		fprintf(stderr, "spanmill: %s\n", err.msg);
		return EXIT_START;
	}
	log_info("Starting spanmill...", "version", SPANMILL_VERSION);
	s = service_new(conf, &err);
	if (s == NULL || start(s, &err) < 0) {
		bool stopped = s != NULL && stop_is_wanted(NULL) && !atomic_load(&s->failed);

		if (!stopped)
			log_error("cannot start", "error", err.msg);
		service_free(s);
		return stopped ? balance() : EXIT_START;
	}
	while (!(take_events() & EVENT_STOP))
		reload(args, s);
	log_info("Starting shutdown...");
	service_stop(s);
	failed = atomic_load(&s->failed);
	if (failed)
		log_error("a component failed", "error", s->failure);
	service_free(s);
	log_info("Shutdown complete.");
	status = balance();
	return failed && status == EXIT_DONE ? EXIT_START : status;
}

int cmd_run(int argc, char **argv)
{
	struct service_config *conf;
	struct cmd_config args;
	const struct flag flags[] = { CMD_CONFIG_FLAGS(&args) };
	const struct flag_command command = {
		"run", CMD_CONFIG_USAGE,
		"Runs a configuration in the foreground; logs go to stderr. The word run may be "
		"left\n"
		"out. SIGTERM or SIGINT stops it in good order within service.drain_timeout, a "
		"second\n"
		"one at once; SIGHUP reads the configuration again and changes to it while it "
		"runs.\n"
		"The last line balances: accepted = delivered + dropped + held, in spans.",
		flags, COUNT_OF(flags)
	};
	int status;

	block_signals(true);
	cmd_config_init(&args, argc);
	status = cmd_config_parse(&command, &args, argc, argv);
	if (status < 0) {
		status = EXIT_CONFIG;
		conf = cmd_config_load(&args);
		if (conf != NULL)
			status = run_service(&args, conf);
		conf_check_free(conf);
	}
	cmd_config_fini(&args);
	return status;
}
