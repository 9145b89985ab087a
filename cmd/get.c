/* SPDX-License-Identifier: Apache-2.0
 *
 * get.c - `spanmill get`: a trace by its id, as a tree in the terminal.
 *
 * SPEC: INTERFACE "The program"; GET /api/traces/<id> of Tempo's API, asked for protobuf. Exit
 * status 0 printed (also what is incomplete: stderr says so), 1 usage, 2 no usable answer, 3 not
 * found.
 */
#include "cmd/commands.h"
#include "cmd/flags.h"
#include "cmd/terminal.h"
#include "cmd/trace_view.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "net/http_client.h"

#include <stdio.h>
#include <unistd.h>

enum { EXIT_SHOWN = 0, EXIT_USAGE = 1, EXIT_NO_ANSWER = 2, EXIT_NOT_FOUND = 3 };

#define REPLY_MAX (512 * MIB)
#define ASK_AGAIN_US 200000

struct get {
	const char *endpoint, *tenant, *id;
	uint64_t timeout_ns, wait_ns;
	bool json, ascii, attributes;
};

/* 1 to 32 hex digits. */
static bool is_trace_id(const char *id)
{
	size_t n = strlen(id);

	return n >= 1 && n <= 32 && strspn(id, "0123456789abcdefABCDEF") == n;
}

/* Lower case, padded to 32 digits, as the query API reads it. */
static void full_id(const char *id, char out[33])
{
	size_t n = strlen(id);

	memset(out, '0', 32);
	for (size_t i = 0; i < n; i++)
		out[32 - n + i] = (char)(id[i] >= 'A' && id[i] <= 'F' ? id[i] + 32 : id[i]);
	out[32] = '\0';
}

static int fetch(const struct get *g, struct http_reply *reply, struct err *err)
{
	bool is_url = strstr(g->endpoint, "://") != NULL;
	size_t n = strlen(g->endpoint);
	struct http_client_settings settings = { .timeout_ms = (uint32_t)MIN(
							 g->timeout_ns / NS_PER_MS, INT32_MAX) };
	struct http_header headers[2];
	struct http_call call = { .headers = headers,
				  .max_reply = REPLY_MAX,
				  .accept_compressed = true };
	struct http_client *c = http_client_new(&settings, err);
	char *url = NULL;
	int ret = -1;

	if (c == NULL)
		return -1;
	url = xasprintf("%s%.*s/api/traces/%s?format=otlp", is_url ? "" : "http://",
			(int)(n > 0 && g->endpoint[n - 1] == '/' ? n - 1 : n), g->endpoint, g->id);
	call.url = url;
	headers[call.n_headers++] =
		(struct http_header){ "Accept",
				      g->json ? "application/json" : "application/protobuf" };
	if (g->tenant != NULL)
		headers[call.n_headers++] = (struct http_header){ "X-Scope-OrgID", g->tenant };
	ret = http_client_call(c, &call, reply, err);
	free(url);
	http_client_free(c);
	return ret;
}

static int print(struct buf *out)
{
	size_t n = fwrite(out->p, 1, out->n, stdout);

	return n == out->n && fflush(stdout) == 0 ? EXIT_SHOWN : EXIT_NO_ANSWER;
}

static int draw(const struct get *g, struct bytes traces)
{
	struct trace_view_options o = { .width = terminal_width(STDOUT_FILENO),
					.ascii = g->ascii,
					.has_colour = terminal_has_colour(STDOUT_FILENO),
					.attributes = g->attributes };
	struct buf out = BUF_INIT;
	struct trace_tree t;
	struct err err = ERR_INIT;
	int status = EXIT_NO_ANSWER;
	char id[33];

	full_id(g->id, id);
	if (trace_tree_build(traces, &t, &err) < 0) {
		fprintf(stderr, "spanmill get: trace %s: the answer is damaged: %s\n", g->id,
			err.msg);
	} else {
		trace_view_draw(&t, id, &o, &out);
		status = print(&out);
		if (t.n_rejected > 0)
			fprintf(stderr, "trace %s: %u spans are not legal OTLP and not shown\n",
				g->id, t.n_rejected);
	}
	trace_tree_fini(&t);
	buf_fini(&out);
	return status;
}

static int say_refusal(const struct get *g, const struct http_reply *reply)
{
	struct buf text = BUF_INIT;

	if (reply->status == 404) {
		fprintf(stderr, "trace %s: not found\n", g->id);
		return EXIT_NOT_FOUND;
	}
	terminal_add_text(&text, buf_bytes(&reply->body), 300, false);
	fprintf(stderr, "trace %s: %s: HTTP %d: %s\n", g->id, g->endpoint, reply->status,
		buf_cstr(&text));
	buf_fini(&text);
	return EXIT_NO_ANSWER;
}

static int show(const struct get *g, struct http_reply *reply)
{
	if (reply->status != 200 && reply->status != 206)
		return say_refusal(g, reply);
	if (reply->status == 206)
		fprintf(stderr,
			"trace %s: incomplete: not every place that may hold spans of it "
			"answered\n",
			g->id);
	if (!g->json)
		return draw(g, buf_bytes(&reply->body));
	buf_add_char(&reply->body, '\n');
	return print(&reply->body);
}

/* Whether an answer may become a better one: what was sent through a broker is found once a block
 * builder has read it. */
static bool is_worth_waiting(const struct http_reply *reply)
{
	return reply->status == 404 || reply->status == 206 || reply->status == 503;
}

/* Asks until there is a whole trace, or the time to wait is over: the last answer counts. */
static int fetch_within(const struct get *g, struct http_reply *reply, struct err *err)
{
	uint64_t until = clock_mono_ns() + g->wait_ns;
	int ret = fetch(g, reply, err);

	while (ret == 0 && is_worth_waiting(reply) && clock_mono_ns() < until) {
		usleep(ASK_AGAIN_US);
		http_reply_fini(reply);
		*reply = (struct http_reply)HTTP_REPLY_INIT;
		ret = fetch(g, reply, err);
	}
	return ret;
}

static int run(const struct get *g)
{
	struct http_reply reply = HTTP_REPLY_INIT;
	struct err err = ERR_INIT;
	int status = EXIT_NO_ANSWER;

	if (fetch_within(g, &reply, &err) < 0)
		fprintf(stderr, "trace %s: %s\n", g->id, err.msg);
	else
		status = show(g, &reply);
	http_reply_fini(&reply);
	return status;
}

static const char about[] = "Prints a trace as a tree, one row per span: service, name, kind, "
			    "duration, and when it ran.\n"
			    "kinds: srv server, cli client, pro producer, con consumer, int "
			    "internal. An id may be short;\n"
			    "it is padded with zeros in front. Exit status 0 when it is shown "
			    "(stderr says if spans may\n"
			    "be missing), 1 wrong usage, 2 nobody answered or the answer is an "
			    "error, 3 not found.";

int cmd_get(int argc, char **argv)
{
	struct get g = { .endpoint = "http://127.0.0.1:3200", .timeout_ns = 30 * NS_PER_S };
	const struct flag flags[] = {
		FLAG_STR("--endpoint", &g.endpoint, "URL",
			 "of a query endpoint (http://127.0.0.1:3200)"),
		FLAG_STR("--tenant", &g.tenant, "NAME",
			 "sent as X-Scope-OrgID; several joined by '|'"),
		FLAG_BOOL("--attributes", &g.attributes,
			  "show what each span says: status, attributes, events, links"),
		FLAG_BOOL("--json", &g.json, "print OTLP JSON as it came"),
		FLAG_BOOL("--ascii", &g.ascii, "draw with ASCII only"),
		FLAG_TIME("--wait", &g.wait_ns,
			  "ask again that long while it is not there, or not all of it (0s)"),
		FLAG_TIME("--timeout", &g.timeout_ns, "how long to wait for an answer (30s)"),
	};
	const struct flag_command command = { "get", "TRACE-ID [FLAGS]", about, flags,
					      COUNT_OF(flags) };
	size_t n = 0;

	switch (flags_parse(&command, argc, argv, &g.id, 1, &n)) {
	case FLAG_HELP:
		return 0;
	case FLAG_BAD:
		return EXIT_USAGE;
	case FLAG_RUN:
	default:
		break;
	}
	if (n == 0)
		return flags_usage(&command, "needs a trace id");
	if (!is_trace_id(g.id))
		return flags_usage(&command, "trace id \"%.80s\": not 1 to 32 hex digits", g.id);
	return run(&g);
}
