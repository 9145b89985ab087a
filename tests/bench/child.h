/* SPDX-License-Identifier: Apache-2.0
 *
 * child.h - the real binary as a child process of a bench: start it on one CPU with a configuration
 * text, know when it listens, read its CPU time and memory, stop it and read its last line.
 *
 *   build/spanmill --config yaml:TEXT     stderr -> FOLDER/NAME.log
 *
 * Header only, because a bench program is one file. Main thread only. A child does not outlive the
 * bench. Run from the repository's root; SPANMILL names another binary.
 */
#ifndef TESTS_BENCH_CHILD_H
#define TESTS_BENCH_CHILD_H

#include "base/base.h"
#include "base/clock.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* Where the server runs, and everything else. */
enum { CHILD_SERVER_CPU = 0, CHILD_LOAD_CPU = 1, CHILD_START_MS = 60000 };

struct child {
	pid_t pid;
	int cpu;          /* where it runs; zeroed: CHILD_SERVER_CPU */
	uint64_t exec_ns; /* monotonic, right before exec */
	char log[320];
};

/* What the last line of the binary says, in spans. */
struct child_balance {
	unsigned long long accepted, delivered, dropped;
	long long held;
};

/* Put the calling thread on one CPU; nothing when there is only one. What it forks follows. */
static inline void child_pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sysconf(_SC_NPROCESSORS_ONLN) > 1)
		sched_setaffinity(0, sizeof(set), &set);
}

/* A port nobody listens on, below the range the kernel hands to outgoing connections. */
static inline uint16_t child_free_port(void)
{
	for (int i = 0; i < 200; i++) {
		struct sockaddr_in a = { .sin_family = AF_INET,
					 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		uint16_t port = 0;
		bool ok;

		if (getentropy(&port, sizeof(port)) < 0)
			break;
		port = (uint16_t)(15000 + port % 17000);
		a.sin_port = htons(port);
		ok = fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0;
		close(fd);
		if (ok)
			return port;
	}
	perror("no free port");
	exit(2);
}

/* A new folder for logs and data below build/bench, on the disk the repository is on. */
static inline void child_folder(char *out, size_t size)
{
	mkdir("build", 0777);
	mkdir("build/bench", 0777);
	snprintf(out, size, "build/bench/run.XXXXXX");
	if (mkdtemp(out) == NULL) {
		perror(out);
		exit(2);
	}
}

/* Remove what child_folder made. */
static inline void child_folder_remove(const char *folder)
{
	char cmd[300];

	snprintf(cmd, sizeof(cmd), "rm -rf '%s'", folder);
	if (system(cmd) != 0)
		fprintf(stderr, "%s: not removed\n", folder);
}

/* ---- servers that a bench needs until its end ---- */

/* The first line that comes, which may come in pieces: who closes the pipe after the first of them
 * kills the writer of the second (Python without buffers writes the end of a line apart). */
static inline void child_read_line(int fd, char *out, size_t size)
{
	size_t have = 0;
	ssize_t n;

	while (have < size - 1 && memchr(out, '\n', have) == NULL &&
	       (n = read(fd, out + have, size - 1 - have)) > 0)
		have += (size_t)n;
	out[have] = '\0';
	out[strcspn(out, "\n")] = '\0';
}

/* Those that must not end before us, and what each is called. */
struct child_server {
	volatile pid_t pid; /* 0: free */
	const char *name;
};
enum { CHILD_SERVERS_MAX = 4 };
static struct child_server child_servers[CHILD_SERVERS_MAX];

/* A bench would wait for ever for what only a server can bring. Whatever it waits in now, it ends
 * here; its other children are killed with it. */
static inline void child_server_ended(int sig)
{
	static const char said[] = " ended while it was needed (its own words are above)\n";

	(void)sig;
	for (int i = 0; i < CHILD_SERVERS_MAX; i++) {
		const struct child_server *s = &child_servers[i];
		siginfo_t info = { .si_pid = 0 };
		ssize_t n;

		if (s->pid == 0 ||
		    waitid(P_PID, (id_t)s->pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0 ||
		    info.si_pid == 0)
			continue;
		n = write(STDERR_FILENO, "bench: ", 7);
		n += write(STDERR_FILENO, s->name, strlen(s->name));
		n += write(STDERR_FILENO, said, sizeof(said) - 1);
		_exit(n > 0 ? 2 : 3);
	}
}

/* From now on the bench fails, with a message, when this child ends. Takes the name. */
static inline void child_must_live(pid_t pid, const char *name)
{
	struct sigaction sa = { .sa_handler = child_server_ended, .sa_flags = SA_RESTART };
	int i = 0;

	while (i < CHILD_SERVERS_MAX - 1 && child_servers[i].pid != 0)
		i++;
	child_servers[i].name = name;
	child_servers[i].pid = pid;
	sigaction(SIGCHLD, &sa, NULL);
	child_server_ended(SIGCHLD); /* it may have before */
}

/* It may end now. */
static inline void child_may_end(pid_t pid)
{
	for (int i = 0; i < CHILD_SERVERS_MAX; i++)
		if (child_servers[i].pid == pid)
			child_servers[i].pid = 0;
}

static inline const char *child_binary(void)
{
	const char *path = getenv("SPANMILL");

	return path != NULL ? path : "build/spanmill";
}

static inline void child_exec(const struct child *c, char *const argv[])
{
	int fd = open(c->log, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	child_pin(c->cpu);
	dup2(fd, STDOUT_FILENO);
	dup2(fd, STDERR_FILENO);
	execv(argv[0], argv);
	_exit(127);
}

/* Start argv (NULL at the end) with its output in folder/name.log. *c is zeroed but for the CPU. */
static inline void child_start_argv(struct child *c, const char *folder, const char *name,
				    char *const argv[])
{
	snprintf(c->log, sizeof(c->log), "%s/%s.log", folder, name);
	fflush(stdout);
	c->exec_ns = clock_mono_ns();
	c->pid = fork();
	if (c->pid == 0)
		child_exec(c, argv);
	if (c->pid < 0) {
		perror("fork");
		exit(2);
	}
}

/* Start `spanmill COMMAND --config yaml:TEXT`. */
static inline void child_start(struct child *c, const char *folder, const char *name,
			       const char *command, const char *config)
{
	char path[300], source[4200];

	snprintf(path, sizeof(path), "%s", child_binary());
	snprintf(source, sizeof(source), "yaml:%s", config);
	child_start_argv(c, folder, name,
			 (char *[]){ path, (char *)(uintptr_t)command, "--config", source, NULL });
}

/* Wait for its end; the exit status, or 128 + the signal. */
static inline int child_wait(struct child *c)
{
	int status = 0;

	while (waitpid(c->pid, &status, 0) < 0 && errno == EINTR)
		continue;
	c->pid = 0;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* The first line of its output that has `word`, into out; false when there is none. */
static inline bool child_log_line(const struct child *c, const char *word, char *out, size_t size)
{
	FILE *f = fopen(c->log, "r");
	bool found = false;

	while (f != NULL && !found && fgets(out, (int)size, f) != NULL)
		found = strstr(out, word) != NULL;
	if (f != NULL)
		fclose(f);
	out[strcspn(out, "\n")] = '\0';
	return found;
}

static inline void child_die(const struct child *c, const char *what)
{
	char cmd[400];

	fprintf(stderr, "%s; its output:\n", what);
	snprintf(cmd, sizeof(cmd), "tail -n 20 '%s' >&2", c->log);
	if (system(cmd) != 0)
		fprintf(stderr, "(none)\n");
	exit(2);
}

static inline bool child_port_answers(uint16_t port)
{
	struct sockaddr_in a = { .sin_family = AF_INET,
				 .sin_port = htons(port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool ok = connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0;

	close(fd);
	return ok;
}

/* Wait until it listens on every port (ends with 0); the nanoseconds since exec. Ends the bench
 * when the child ended instead. Asks without a pause, from another CPU. */
static inline double child_wait_listening(const struct child *c, const uint16_t *ports)
{
	for (; *ports != 0; ports++)
		while (!child_port_answers(*ports)) {
			if (waitpid(c->pid, NULL, WNOHANG) != 0)
				child_die(c, "the binary ended at its start");
			if (clock_mono_ns() - c->exec_ns > CHILD_START_MS * NS_PER_MS)
				child_die(c, "the binary does not listen");
		}
	return (double)(clock_mono_ns() - c->exec_ns);
}

static inline double child_thread_cpu_ns(const struct child *c, const char *task)
{
	unsigned long long ns = 0;
	char path[320];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task/%s/schedstat", (int)c->pid, task);
	f = fopen(path, "r");
	if (f == NULL)
		return 0;
	if (fscanf(f, "%llu", &ns) != 1)
		ns = 0;
	fclose(f);
	return (double)ns;
}

/* CPU time of its living threads so far, in ns. Read it while the child is idle: the kernel adds up
 * at switches and ticks. */
static inline double child_cpu_ns(const struct child *c)
{
	struct dirent *e;
	double ns = 0;
	char path[64];
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)c->pid);
	d = opendir(path);
	if (d == NULL)
		child_die(c, "the binary is gone");
	while ((e = readdir(d)) != NULL)
		if (e->d_name[0] != '.')
			ns += child_thread_cpu_ns(c, e->d_name);
	closedir(d);
	return ns;
}

/* CPU time so far of its threads of this name, likewise. */
static inline double child_named_cpu_ns(const struct child *c, const char *name)
{
	char path[320], comm[32];
	struct dirent *e;
	double ns = 0;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)c->pid);
	d = opendir(path);
	while (d != NULL && (e = readdir(d)) != NULL) {
		FILE *f;

		snprintf(path, sizeof(path), "/proc/%d/task/%.20s/comm", (int)c->pid, e->d_name);
		f = e->d_name[0] != '.' ? fopen(path, "r") : NULL;
		if (f == NULL)
			continue;
		if (fscanf(f, "%31s", comm) == 1 && strcmp(comm, name) == 0)
			ns += child_thread_cpu_ns(c, e->d_name);
		fclose(f);
	}
	if (d != NULL)
		closedir(d);
	return ns;
}

/* A line of /proc/PID/status in KiB, for example "RssAnon:"; 0 when there is none. */
static inline double child_status_kib(const struct child *c, const char *key)
{
	char path[64], line[256];
	double kib = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)c->pid);
	f = fopen(path, "r");
	while (f != NULL && fgets(line, sizeof(line), f) != NULL)
		if (strncmp(line, key, strlen(key)) == 0)
			kib = strtod(line + strlen(key), NULL);
	if (f != NULL)
		fclose(f);
	return kib;
}

/* SIGTERM, and its last line. Ends the bench when that does not balance or the status is not 0. */
static inline void child_stop(struct child *c, struct child_balance *out)
{
	struct child_balance b = { 0 };
	char line[512];
	const char *at;

	kill(c->pid, SIGTERM);
	if (child_wait(c) != 0)
		child_die(c, "the binary did not end well");
	if (!child_log_line(c, " stopped accepted=", line, sizeof(line)))
		child_die(c, "no last line");
	at = strstr(line, "accepted=");
	if (sscanf(at, "accepted=%llu delivered=%llu dropped=%llu held=%lld", &b.accepted,
		   &b.delivered, &b.dropped, &b.held) != 4 ||
	    b.accepted != b.delivered + b.dropped + (unsigned long long)b.held)
		child_die(c, "the last line does not balance");
	if (out != NULL)
		*out = b;
}

#endif
