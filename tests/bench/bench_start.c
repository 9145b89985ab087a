/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_start.c - how soon configs/all-in-one.yaml listens on all its ports, and what it holds in
 * memory when nothing has come yet.
 *
 * The file as it is, but for free ports and a folder of its own. From right before exec until every
 * port has taken a connection, asked without a pause from the other CPU; each start finds an empty
 * folder, then the one left by a process before it. Memory is what /proc/PID/status says a second
 * later. Best of 5. SPEC: issue 3, "It must show", (d).
 */
#include "tests/bench/child.h"
#include "tests/bench/report.h"

enum { ROUNDS = 5, IDLE_US = 1000000, N_PORTS = 6 };
#define KIB_PER_MB 1000.0

struct figures {
	double fresh_ms, again_ms, rss_mb, anon_mb;
};

static const char *const keys[N_PORTS] = {
	"receivers.otlp.protocols.grpc.endpoint",
	"receivers.otlp.protocols.http.endpoint",
	"receivers.zipkin.endpoint",
	"extensions.query.endpoint",
	"extensions.health_check.endpoint",
	"service.telemetry.metrics.address",
};

static void start(struct child *c, const char *folder, const uint16_t *ports)
{
	char binary[300], sets[N_PORTS + 1][200], *argv[5 + 2 * COUNT_OF(sets)];
	size_t n = 0;

	snprintf(binary, sizeof(binary), "%s", child_binary());
	argv[n++] = binary;
	argv[n++] = "--config";
	argv[n++] = "configs/all-in-one.yaml";
	for (size_t i = 0; i < N_PORTS; i++)
		snprintf(sets[i], sizeof(sets[i]), "%s=127.0.0.1:%u", keys[i], ports[i]);
	snprintf(sets[N_PORTS], sizeof(sets[N_PORTS]), "extensions.trace_store.local.path=%s/data",
		 folder);
	for (size_t i = 0; i < COUNT_OF(sets); i++) {
		argv[n++] = "--set";
		argv[n++] = sets[i];
	}
	argv[n] = NULL;
	child_start_argv(c, folder, "all-in-one", argv);
}

static double start_and_stop(const char *folder, struct figures *f)
{
	uint16_t ports[N_PORTS + 1] = { 0 };
	struct child c = { 0 };
	double ns;

	for (size_t i = 0; i < N_PORTS; i++)
		ports[i] = child_free_port();
	start(&c, folder, ports);
	ns = child_wait_listening(&c, ports);
	if (f != NULL) {
		usleep(IDLE_US);
		report_keep_best(&f->rss_mb, child_status_kib(&c, "VmRSS:") * 1.024 / KIB_PER_MB);
		report_keep_best(&f->anon_mb,
				 child_status_kib(&c, "RssAnon:") * 1.024 / KIB_PER_MB);
	}
	child_stop(&c, NULL);
	return ns / 1e6;
}

int main(void)
{
	struct figures f = { 0 };
	bool ok = true;

	child_pin(CHILD_LOAD_CPU);
	for (int i = 0; i < ROUNDS; i++) {
		char folder[64];

		report_progress("round %d of %d", i + 1, ROUNDS);
		child_folder(folder, sizeof(folder));
		report_keep_best(&f.fresh_ms, start_and_stop(folder, &f));
		report_keep_best(&f.again_ms, start_and_stop(folder, NULL));
		child_folder_remove(folder);
	}
	ok &= report_limit("(d) all-in-one, idle: resident", f.rss_mb, "MB",
			   "Collector 35, Rotel 21, Fluent Bit 10", AT_MOST, 16);
	ok &= report_limit("(d) all-in-one, idle: of which anonymous", f.anon_mb, "MB", "-",
			   AT_MOST, 4);
	ok &= report_limit("(d) exec to listening, empty folder", f.fresh_ms, "ms",
			   "Collector 27, Rotel 9, Fluent Bit 10", AT_MOST, 20);
	ok &= report_limit("(d) exec to listening, used folder", f.again_ms, "ms", "-", AT_MOST,
			   20);
	return !ok;
}
