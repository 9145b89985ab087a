/* SPDX-License-Identifier: Apache-2.0
 *
 * test_reload.c - from one configuration to the next: who stays, in which order others end and
 * start, the way back, and batches on their way meanwhile.
 *
 * A real service with types of the test's own. What they do is written down: "+e/a" e/a started,
 * "-e/a" it ended, "!e/a" it did not start.
 */
#include "processor_fixture.h"

#include "pipeline/resolve/check.h"

struct options {
	int64_t n;
	bool log, fails, hangs;
	const char *ext, *connector;
};

#define C struct options
static const struct option options[] = {
	OPT_INT(C, "n", n, "0", 0, 1000, "Any number."),
	OPT_BOOL(C, "log", log, "false", "Has what only one may have."),
	OPT_BOOL(C, "fails", fails, "false", "Does not start."),
	OPT_BOOL(C, "hangs", hangs, "false", "Is not drained before it may be."),
	OPT_STR(C, "ext", ext, "", "The extension it asks for."),
	OPT_STR(C, "connector", connector, "", "The connector it asks for."),
	OPT_END
};
#undef C

struct state {
	bool running;
	_Atomic uint64_t n_spans;
};

/* What happened, and switches of the cases. */
static struct {
	struct buf events;
	int n_found;              /* connectors, by who asked */
	struct component *source; /* the receiver that the test emits through */
	_Atomic bool may_drain;
	_Atomic uint64_t n_consumed;         /* spans, by exporters */
	_Atomic int n_logs[OTLP_SIGNALS][2]; /* owners now of the logs of e/log and e/log2 */
	_Atomic uint64_t delivered, again;
} at;

static void note(char what, const struct component *c)
{
	buf_printf(&at.events, "%s%c%s", at.events.n ? " " : "", what, c->id);
}

static int start(struct component *c, struct err *err)
{
	const struct options *o = COMPONENT_CONFIG(c, struct options);

	if (o->ext[0] != '\0')
		component_extension(c, o->ext);
	if (o->connector[0] != '\0') {
		struct component *found = component_connector(c, o->connector);

		/* One that takes what the asker gets, and has started. */
		if (found != NULL &&
		    (found->type->kind != KIND_CONNECTOR || found->signal != c->signal ||
		     !COMPONENT_STATE(found, struct state)->running))
			fail_msg("%s found another %s", c->id, found->id);
		at.n_found += found != NULL;
	}
	if (o->fails) {
		note('!', c);
		return err_set(err, ERR_UNAVAILABLE, "it fails");
	}
	note('+', c);
	if (o->log)
		assert_int_equal(atomic_fetch_add(&at.n_logs[c->signal][c->id[1] == '/'], 1), 0);
	if (c->type->kind == KIND_RECEIVER)
		at.source = c;
	COMPONENT_STATE(c, struct state)->running = true;
	return 0;
}

static void shut(struct component *c)
{
	struct state *st = COMPONENT_STATE(c, struct state);

	if (!st->running)
		return;
	note('-', c);
	if (COMPONENT_CONFIG(c, struct options)->log)
		atomic_fetch_sub(&at.n_logs[c->signal][c->id[1] == '/'], 1);
	st->running = false;
}

static int is_drained(struct component *c)
{
	return !COMPONENT_CONFIG(c, struct options)->hangs || atomic_load(&at.may_drain);
}

static void nothing(struct component *c)
{
	(void)c;
}

static void pass_on(struct component *c, struct batch *b)
{
	assert_true(COMPONENT_STATE(c, struct state)->running);
	component_emit(c, b);
}

static void take(struct component *c, struct batch *b)
{
	assert_true(COMPONENT_STATE(c, struct state)->running);
	atomic_fetch_add(&at.n_consumed, b->tables.n_spans);
	batch_settle(b, VERDICT_DELIVERED, DROP_REASON_MAX, NULL);
	batch_unref(b);
}

static void open_source(struct component *c, struct source *s)
{
	(void)c;
	(void)s;
}

static bool may_overlap(const void *config)
{
	return !((const struct options *)config)->log;
}

#define TYPE(n, k)                                                                                 \
	.name = n, .kind = k, .config_size = sizeof(struct options), .options = options,           \
	.state_size = sizeof(struct state), .start = start, .shutdown = shut,                      \
	.is_drained = is_drained, .may_overlap = may_overlap

static const struct component_type types[] = {
	{ TYPE("r", KIND_RECEIVER), .signals = SIGNAL_ALL, .drain = nothing },
	{ TYPE("s", KIND_RECEIVER), .signals = SIGNAL_TRACES, .drain = nothing,
	  .opens_sources = true },
	{ TYPE("p", KIND_PROCESSOR), .signals = SIGNAL_ALL, .consume = pass_on },
	{ TYPE("e", KIND_EXPORTER), .signals = SIGNAL_ALL, .consume = take },
	{ TYPE("k", KIND_EXPORTER), .signals = SIGNAL_TRACES, .consume = take,
	  .source_open = open_source },
	{ TYPE("x", KIND_EXTENSION) },
	{ TYPE("c", KIND_CONNECTOR), .signals = SIGNAL_TRACES | SIGNAL_LOGS,
	  .gives = { [OTLP_TRACES] = SIGNAL_TRACES, [OTLP_LOGS] = SIGNAL_LOGS },
	  .consume = pass_on },
};

static int set_up(void **state)
{
	static const struct component_type *all[COUNT_OF(types)];

	(void)state;
	for (size_t i = 0; i < COUNT_OF(types); i++)
		all[i] = &types[i];
	registry_init(all, COUNT_OF(types));
	atomic_store(&fx.service.budget.limit, (int64_t)GIB); /* fx_batch charges it */
	return 0;
}

static struct service_config *parse(const char *yaml)
{
	struct conf_errors errors = CONF_ERRORS_INIT;
	struct buf uri = BUF_INIT, text = BUF_INIT;
	struct service_config *c;
	const char *configs[1];

	buf_printf(&uri, "yaml:%s", yaml);
	configs[0] = buf_cstr(&uri);
	c = conf_check_load(&(struct conf_request){ configs, 1, NULL, 0, true }, &errors);
	conf_error_print(&errors, &text);
	if (c == NULL)
		fail_msg("%s\n%s", yaml, buf_cstr(&text));
	conf_error_fini(&errors);
	buf_fini(&uri);
	buf_fini(&text);
	return c;
}

#define QUIET "telemetry: {metrics: {level: none}, logs: {level: error}}, drain_timeout: 200ms"
/* A configuration of one pipeline: all the components there are, then what the case says. */
#define ALL(e, p, r, x)                                                                            \
	"exporters: {" e "}\nprocessors: {" p "}\nreceivers: {" r "}\nextensions: {" x "}\n"
#define RUN(x, r, p, e)                                                                            \
	"service: {" QUIET ", extensions: [" x "], pipelines: {traces: {receivers: [" r            \
	"], processors: [" p "], exporters: [" e "]}}}\n"

/* From one pipeline to two: what the connectors are, what asks and leads to them, what they lead
 * to. */
#define JOINED(c, p, e, to)                                                                        \
	ALL(e, p, "r: ", "")                                                                       \
	"connectors: {" c "}\nservice: {" QUIET                                                    \
	", pipelines: {traces: {receivers: [r], processors: [p], exporters: "                      \
	"[c]}, traces/2: {receivers: [c], exporters: [" to                                         \
	"]}, logs: {receivers: [r], exporters: [c]}, logs/2: {receivers: "                         \
	"[c], exporters: [e]}}}\n"
/* The same for spans alone, with the receiver of RUN. */
#define VIA(c, p, e, to)                                                                           \
	ALL(e, p, "r: ", "")                                                                       \
	"connectors: {" c "}\nservice: {" QUIET                                                    \
	", pipelines: {traces: {receivers: [r], processors: [p], exporters: "                      \
	"[c]}, traces/2: {receivers: [c], exporters: [" to "]}}}\n"
#define CUT(p, e, to)                                                                              \
	ALL(e, p, "r: ", "")                                                                       \
	"service: {" QUIET ", pipelines: {traces: {receivers: [r], processors: [p], exporters: "   \
	"[" to "]}, logs: {receivers: [r], exporters: [e]}}}\n"

static struct service *begin(struct service_config *conf)
{
	struct err err = ERR_INIT;
	struct service *s = service_new(conf, &err);

	atomic_store(&at.may_drain, false);
	at.source = NULL;
	assert_non_null(s);
	if (service_start(s, &err) < 0)
		fail_msg("%s", err.msg);
	buf_reset(&at.events);
	return s;
}

static void end(struct service *s, struct service_config *conf)
{
	atomic_store(&at.may_drain, true);
	service_stop(s);
	service_free(s);
	conf_check_free(conf);
	for (int k = 0; k < OTLP_SIGNALS; k++)
		assert_int_equal(at.n_logs[k][0] + at.n_logs[k][1], 0);
}

static const struct {
	const char *name, *from, *to, *events;
} changes[] = {
	{ "nothing", ALL("e: ", "p: ", "r: ", "") RUN("", "r", "p", "e"),
	  ALL("e: ", "p: ", "r: ", "") RUN("", "r", "p", "e"), "" },
	{ "a default written out is the same", ALL("e: ", "p: ", "r: ", "") RUN("", "r", "p", "e"),
	  ALL("e: {n: 0}", "p: ", "r: ", "") RUN("", "r", "p", "e"), "" },
	{ "the new starts before the old ends", ALL("e: ", "p: ", "r: ", "") RUN("", "r", "p", "e"),
	  ALL("e: {n: 1}", "p: ", "r: ", "") RUN("", "r", "p", "e"), "+e -e" },
	{ "what has a log ends first",
	  ALL("e: {log: true}", "p: ", "r: ", "") RUN("", "r", "p", "e"),
	  ALL("e: {log: true, n: 1}", "p: ", "r: ", "") RUN("", "r", "p", "e"), "-e +e" },
	{ "the old configuration says whether it has a log",
	  ALL("e: {log: true}", "p: ", "r: ", "") RUN("", "r", "p", "e"),
	  ALL("e: ", "p: ", "r: ", "") RUN("", "r", "p", "e"), "-e +e" },
	{ "exporters start first and end last", ALL("e: ", "p: ", "r: ", "") RUN("", "r", "p", "e"),
	  ALL("e: {n: 1}", "p: {n: 1}", "r: {n: 1}", "") RUN("", "r", "p", "e"),
	  "+e +p +r -r -p -e" },
	{ "one more, one less", ALL("e: , e/a: ", "p: ", "r: ", "") RUN("", "r", "p", "e"),
	  ALL("e: , e/a: ", "p: ", "r: ", "") RUN("", "r", "", "e/a"), "+e/a -p -e" },
	{ "a processor before one that stays",
	  ALL("e: ", "p: , p/a: ", "r: ", "") RUN("", "r", "p", "e"),
	  ALL("e: ", "p: , p/a: ", "r: ", "") RUN("", "r", "p/a, p", "e"), "+p/a" },
	{ "two that change places begin anew",
	  ALL("e: ", "p: , p/a: , p/b: ", "r: ", "") RUN("", "r", "p, p/a, p/b", "e"),
	  ALL("e: ", "p: , p/a: , p/b: ", "r: ", "") RUN("", "r", "p/a, p, p/b", "e"),
	  "+p +p/a -p/a -p" },
	{ "who asked for an extension ends before it, and starts after the next",
	  ALL("e: {ext: x}, e/a: ", "", "r: ", "x: ") RUN("x", "r", "", "e, e/a"),
	  ALL("e: {ext: x}, e/a: ", "", "r: ", "x: {n: 1, log: true}") RUN("x", "r", "", "e, e/a"),
	  "-e -x +x +e" },
	{ "who asked in vain begins anew when there is one",
	  ALL("e: {ext: x}", "", "r: ", "x: ") RUN("", "r", "", "e"),
	  ALL("e: {ext: x}", "", "r: ", "x: ") RUN("x", "r", "", "e"), "+x +e -e" },
	{ "sources go where they went", ALL("k: , e: ", "p: ", "s: ", "") RUN("", "s", "p", "k, e"),
	  ALL("k: , e: {n: 1}", "p: {n: 1}", "s: ", "") RUN("", "s", "p", "k, e"), "+e +p -p -e" },
	{ "sources whose sections another keeps begin anew",
	  ALL("k: ", "p: ", "s: ", "") RUN("", "s", "p", "k"),
	  ALL("k: {n: 1}", "p: ", "s: ", "") RUN("", "s", "p", "k"), "+k +s -s -k" },
	{ "two of one type are two",
	  ALL("e: , e/a: ", "", "r: , r/a: ", "") RUN("", "r, r/a", "", "e, e/a"),
	  ALL("e: , e/a: {n: 1}", "", "r: , r/a: ", "") RUN("", "r, r/a", "", "e, e/a"),
	  "+e/a -e/a" },
	{ "what is behind a connector changes", JOINED("c: ", "p: ", "e: , e/a: ", "e/a"),
	  JOINED("c: ", "p: ", "e: , e/a: {n: 1}", "e/a"), "+e/a -e/a" },
	{ "who asked for a connector begins anew with it, the other signal's too",
	  JOINED("c: ", "p: {connector: c}", "e: ", "e"),
	  JOINED("c: {n: 1}", "p: {connector: c}", "e: ", "e"), "+c +c +p -p -c -c" },
	{ "a connector that may not overlap",
	  JOINED("c: {log: true}", "p: {connector: c}", "e: ", "e"),
	  JOINED("c: {n: 1}", "p: {connector: c}", "e: ", "e"), "-p -c -c +c +c +p" },
	{ "who asked for a connector in vain", CUT("p: {connector: c}", "e: ", "e"),
	  JOINED("c: ", "p: {connector: c}", "e: ", "e"), "+c +c +p -p" },
	{ "who asked nobody stays when connectors come", CUT("p: ", "e: ", "e"),
	  JOINED("c: ", "p: ", "e: ", "e"), "+c +c" },
	{ "and go", JOINED("c: ", "p: ", "e: ", "e"), CUT("p: ", "e: ", "e"), "-c -c" },
	{ "a failure is undone", ALL("e: , e/a: ", "p: ", "r: ", "") RUN("", "r", "p", "e"),
	  ALL("e: {n: 1}, e/a: {fails: true}", "p: ", "r: ", "") RUN("", "r", "p", "e, e/a"),
	  "!e/a" },
	{ "what had started ends again", ALL("e: ", "p: ", "r: ", "") RUN("", "r", "p", "e"),
	  ALL("e: {n: 1}", "p: {fails: true}", "r: ", "") RUN("", "r", "p", "e"), "+e !p -e" },
	{ "what had ended is made anew",
	  ALL("e: {log: true}", "p: ", "r: ", "") RUN("", "r", "p", "e"),
	  ALL("e: {log: true, n: 1}", "p: {fails: true}", "r: ", "") RUN("", "r", "p", "e"),
	  "-p -e +e !p -e +e +p" },
	{ "a receiver that gave up its socket is made anew",
	  ALL("e: ", "p: ", "r: ", "") RUN("", "r", "p", "e"),
	  ALL("e: ", "p: ", "r: {fails: true}", "") RUN("", "r", "p", "e"), "!r -r +r" },
};

/* Each change from a running service; then back, and once more: nothing is left over. */
static void changes_in_order(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(changes); i++) {
		struct service_config *conf = parse(changes[i].from);
		struct service *s = begin(conf);
		struct err err = ERR_INIT;
		bool fails = strchr(changes[i].events, '!') != NULL;
		int ret = service_reload(s, parse(changes[i].to), &err);

		if (strcmp(buf_cstr(&at.events), changes[i].events) != 0)
			fail_msg("%s: \"%s\", want \"%s\"", changes[i].name, buf_cstr(&at.events),
				 changes[i].events);
		if ((ret < 0) != fails || (fails && strstr(err.msg, "it fails") == NULL))
			fail_msg("%s: %d %s", changes[i].name, ret, err.msg);
		assert_false(atomic_load(&s->failed));
		assert_int_equal(service_reload(s, parse(changes[i].from), &err), 0);
		assert_int_equal(service_reload(s, parse(changes[i].to), &err), ret);
		assert_int_equal(s->reloads.ok + s->reloads.failed, 3);
		end(s, conf);
	}
	assert_true(at.n_found > 0);
}

static void without_a_way_back_the_process_stops(void **state)
{
	struct service_config *conf =
		parse(ALL("e: {log: true}", "p: ", "r: ", "") RUN("", "r", "p", "e"));
	struct service *s = begin(conf);
	struct err err = ERR_INIT;

	(void)state;
	/* The instance that is made anew is made from the old configuration: let that fail. */
	for (size_t i = 0; i < conf->n_components; i++)
		if (conf->components[i].kind == KIND_EXPORTER)
			((struct options *)conf->components[i].config)->fails = true;
	assert_int_equal(service_reload(s,
					parse(ALL("e: {log: true, n: 1, fails: true}",
						  "p: ", "r: ", "") RUN("", "r", "p", "e")),
					&err),
			 -1);
	assert_true(atomic_load(&s->failed));
	assert_non_null(strstr(s->failure, "it fails"));
	end(s, conf);
}

/* ---- batches on their way ---- */

static void settled(struct origin *o)
{
	struct origin_outcome out;

	origin_outcome(o, &out);
	atomic_fetch_add(out.retryable ? &at.again : &at.delivered, o->n_spans);
	origin_fini(o);
	free(o);
}

static void emit(uint32_t n)
{
	struct fx_span spans[8];
	struct origin *o = xcalloc(1, sizeof(*o));
	struct batch *b;

	for (uint32_t i = 0; i < n; i++)
		spans[i] = (struct fx_span){ .trace_id = { 1, (uint8_t)i } };
	b = fx_batch(spans, n, "t");
	origin_init(o, n, settled);
	batch_bind(b, o);
	component_emit(at.source, b);
}

static _Atomic bool stopping;
static _Atomic uint64_t n_emitted;

static void *emitter(void *arg)
{
	(void)arg;
	while (!atomic_load(&stopping)) {
		emit(3);
		atomic_fetch_add(&n_emitted, 3);
	}
	return NULL;
}

static const char *const turns[] = {
	VIA("c: ", "p: {connector: c}", "e: , e/log: {log: true}", "e, e/log"),
	ALL("e: , e/log: {log: true}", "p: ", "r: ", "") RUN("", "r", "p", "e, e/log"),
	ALL("e: {n: 1}, e/log: {log: true}", "p: ", "r: ", "") RUN("", "r", "p", "e"),
	ALL("e: {n: 1}, e/log: {log: true}", "p: , p/a: ", "r: ", "")
		RUN("", "r", "p/a, p", "e, e/log"),
	ALL("e: {n: 1}, e/log: {log: true, n: 2}", "p: , p/a: ", "r: ", "")
		RUN("", "r", "p, p/a", "e, e/log"),
	ALL("e: {n: 3}, e/log: {log: true, n: 2, fails: true}", "p: ", "r: ", "")
		RUN("", "r", "p", "e, e/log"),
	ALL("e: , e/log: {log: true}", "p: {n: 1}", "r: ", "") RUN("", "r", "", "e/log"),
	VIA("c: ", "p: ", "e: , e/log: {log: true}", "e/log"),
	VIA("c: {n: 1}", "p: ", "e: , e/log: {log: true}", "e, e/log"),
};

/* Threads emit while everything behind the receiver changes; every span meets its verdicts, and no
 * instance gets one before it started or after it ended. The receiver stays: it is the one that the
 * threads emit through. */
static void under_load(void **state)
{
	enum { THREADS = 3, ROUNDS = 40 };
	struct service_config *conf = parse(turns[0]);
	struct service *s = begin(conf);
	struct err err = ERR_INIT;
	pthread_t threads[THREADS];

	(void)state;
	atomic_store(&at.delivered, 0);
	atomic_store(&at.again, 0);
	atomic_store(&stopping, false);
	for (int i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, emitter, NULL);
	for (int i = 1; i < ROUNDS; i++) {
		service_reload(s, parse(turns[(size_t)i % COUNT_OF(turns)]), &err);
		assert_false(atomic_load(&s->failed));
	}
	atomic_store(&stopping, true);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	assert_true(atomic_load(&n_emitted) > 0);
	assert_int_equal(at.delivered, n_emitted);
	assert_int_equal(at.again, 0);
	assert_int_equal(atomic_load(&ledger.in_flight), 0);
	end(s, conf);
}

static void *let_drain(void *arg)
{
	(void)arg;
	for (int i = 0; i < 5; i++)
		emit(2);
	/* Nobody is there to take them. */
	usleep(20000);
	atomic_store(&at.n_consumed, 0);
	atomic_store(&at.may_drain, true);
	return NULL;
}

#define HANGS ALL("e: {log: true, hangs: true}", "p: ", "r: ", "") RUN("", "r", "p", "e")

/* What comes between the old one's end and the new one's start waits, and is delivered. */
static void waits_at_the_gate(void **state)
{
	struct service_config *conf = parse(HANGS);
	struct service *s = begin(conf);
	struct err err = ERR_INIT;
	pthread_t thread;

	(void)state;
	atomic_store(&at.delivered, 0);
	s->reloads.ok = 0;
	/* The old one is not drained before the thread says so, which emits first. */
	pthread_create(&thread, NULL, let_drain, NULL);
	assert_int_equal(service_reload(s,
					parse(ALL("e: {log: true, n: 1}", "p: ", "r: ", "")
						      RUN("", "r", "p", "e")),
					&err),
			 0);
	pthread_join(thread, NULL);
	assert_int_equal(at.delivered, 10);
	end(s, conf);
}

/* Draining ends with drain_timeout. */
static void does_not_wait_for_ever(void **state)
{
	struct service_config *conf = parse(HANGS);
	struct service *s = begin(conf);
	struct err err = ERR_INIT;
	uint64_t began = clock_mono_ns();

	(void)state;
	assert_int_equal(service_reload(s,
					parse(ALL("e: {log: true}", "p: ", "r: ", "")
						      RUN("", "r", "p", "e")),
					&err),
			 0);
	assert_true(clock_mono_ns() - began >= 200 * NS_PER_MS);
	assert_string_equal(buf_cstr(&at.events), "-e +e");
	end(s, conf);
}

static bool stop_now(void *arg)
{
	(void)arg;
	return true;
}

/* A stop is not kept waiting by what does not drain; all that runs is ended by it. */
static void a_stop_wins(void **state)
{
	struct service_config *conf = parse(HANGS);
	struct service *s = begin(conf);
	struct err err = ERR_INIT;

	(void)state;
	atomic_store(&at.again, 0);
	s->stop_is_wanted = stop_now;
	assert_int_equal(service_reload(s,
					parse(ALL("e: {log: true}", "p: ", "r: ", "")
						      RUN("", "r", "p", "e")),
					&err),
			 -1);
	assert_false(atomic_load(&s->failed));
	emit(4);
	assert_int_equal(at.again, 4); /* send again: the gate that nobody will open */
	end(s, conf);
	assert_string_equal(buf_cstr(&at.events), "-r -p -e");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(changes_in_order),
		cmocka_unit_test(without_a_way_back_the_process_stops),
		cmocka_unit_test(under_load),
		cmocka_unit_test(waits_at_the_gate),
		cmocka_unit_test(does_not_wait_for_ever),
		cmocka_unit_test(a_stop_wins),
	};
	int failed;

	log_configure(LOG_ERROR, LOG_CONSOLE);
	failed = cmocka_run_group_tests_name("reload", tests, set_up, NULL);
	buf_fini(&at.events);
	return failed;
}
