/* SPDX-License-Identifier: Apache-2.0
 *
 * components.c - `spanmill components`: what is compiled in, as YAML or as one Markdown page per
 * type. See cmd.h.
 *
 * DESIGN: both come from the registry and the option tables, so they cannot be out of date. A type
 * name may exist in two kinds (receiver and exporter otlp): such pages are one file with a section
 * per kind, so NAME.md is always right.
 */
#include "cmd/cmd.h"

#include "pipeline/option/blocks.h"
#include "pipeline/registry.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

static const char *const stabilities[] = { "Development", "Alpha", "Beta", "Stable" };

/* In the Collector's order. */
static const struct {
	enum signals signal;
	enum otlp_signal number;
	const char *name;
} signals[] = { { SIGNAL_LOGS, OTLP_LOGS, "logs" },
		{ SIGNAL_METRICS, OTLP_METRICS, "metrics" },
		{ SIGNAL_TRACES, OTLP_TRACES, "traces" } };

/* The Collector's names of a connector's ways: what it takes to what it gives. */
static void print_ways(const struct component_type *t, struct buf *out)
{
	for (size_t i = 0; i < COUNT_OF(signals); i++)
		for (size_t j = 0; j < COUNT_OF(signals); j++)
			if (t->signals & signals[i].signal &&
			    t->gives[signals[i].number] & signals[j].signal)
				buf_printf(out, "      %s-to-%s: %s\n", signals[i].name,
					   signals[j].name, stabilities[t->stability]);
}

static void print_stability(const struct component_type *t, struct buf *out)
{
	buf_add_str(out, "    stability:\n");
	if (t->kind == KIND_EXTENSION)
		buf_printf(out, "      extension: %s\n", stabilities[t->stability]);
	else if (t->kind == KIND_CONNECTOR)
		print_ways(t, out);
	for (size_t i = 0; t->kind < KIND_CONNECTOR && i < COUNT_OF(signals); i++)
		if (t->signals & signals[i].signal)
			buf_printf(out, "      %s: %s\n", signals[i].name,
				   stabilities[t->stability]);
}

static void print_kind(enum component_kind kind, struct buf *out)
{
	const char *section = registry_section_name(kind);
	const struct component_type *t;
	bool any = false;

	buf_printf(out, "%s:", section);
	for (size_t i = 0; (t = registry_at(i)) != NULL; i++) {
		if (t->kind != kind)
			continue;
		buf_printf(out, "%s  - name: %s\n", any ? "" : "\n", t->name);
		if (t->alias != NULL)
			buf_printf(out, "    alias: %s\n", t->alias);
		buf_printf(out, "    module: spanmill/%s/%s v%s\n", section, t->name,
			   SPANMILL_VERSION);
		buf_printf(out, "    summary: \"%s\"\n", t->summary ? t->summary : "");
		print_stability(t, out);
		any = true;
	}
	if (!any)
		buf_add_str(out, " []\n");
}

static void print_all(struct buf *out)
{
	static const char *const schemes[] = { "env", "file", "yaml" };

	buf_printf(out, "buildinfo:\n  command: spanmill\n  description: Spanmill\n  version: %s\n",
		   SPANMILL_VERSION);
	for (int kind = 0; kind < KIND_MAX; kind++)
		print_kind((enum component_kind)kind, out);
	buf_add_str(out, "providers:\n");
	for (size_t i = 0; i < COUNT_OF(schemes); i++)
		buf_printf(out, "  - scheme: %s\n    module: spanmill/providers/%s v%s\n",
			   schemes[i], schemes[i], SPANMILL_VERSION);
	buf_add_str(out, "converters: []\n");
}

static void document(const struct component_type *t, struct buf *out)
{
	buf_printf(out, "## %s `%s`\n\n%s\n\nStability: %s.", registry_kind_name(t->kind), t->name,
		   t->summary ? t->summary : "", stabilities[t->stability]);
	if (t->alias != NULL)
		buf_printf(out, " `%s` is another spelling of the same type.", t->alias);
	buf_add_str(out, "\n\n");
	option_document(t->options, out);
	if (t->kind == KIND_RECEIVER) {
		buf_add_str(out, "\nEvery receiver also has:\n\n");
		option_document(receiver_option_table, out);
	} else if (t->kind == KIND_EXPORTER) {
		buf_printf(out, "\nEvery exporter also has (here `%s` by default):\n\n",
			   t->best_effort ? "true" : "false");
		option_document(exporter_option_table, out);
	}
	buf_add_char(out, '\n');
}

static bool is_first_of_name(size_t at)
{
	for (size_t i = 0; i < at; i++) {
		if (strcmp(registry_at(i)->name, registry_at(at)->name) == 0)
			return false;
	}
	return true;
}

static int write_page(const char *dir, const char *name, const struct buf *text)
{
	char path[4096];
	FILE *f;
	int ret = 0;

	snprintf(path, sizeof(path), "%s/%s.md", dir, name);
	f = fopen(path, "w");
	if (f == NULL || fwrite(text->p, 1, text->n, f) != text->n)
		ret = -1;
	if (f != NULL && fclose(f) != 0)
		ret = -1;
	if (ret < 0)
		fprintf(stderr, "spanmill components: %s: %s\n", path, strerror(errno));
	return ret;
}

static int write_docs(const char *dir)
{
	const struct component_type *t, *same;
	int ret = 0;

	if (mkdir(dir, 0777) < 0 && errno != EEXIST) {
		fprintf(stderr, "spanmill components: %s: %s\n", dir, strerror(errno));
		return 1;
	}
	for (size_t i = 0; (t = registry_at(i)) != NULL && ret == 0; i++) {
		struct buf page = BUF_INIT;

		if (!is_first_of_name(i))
			continue;
		buf_printf(
			&page,
			"# %s\n\nWritten by `make docs` from the option tables; do not edit.\n\n",
			t->name);
		for (size_t j = i; (same = registry_at(j)) != NULL; j++) {
			if (strcmp(same->name, t->name) == 0)
				document(same, &page);
		}
		if (page.n > 0 && page.p[page.n - 1] == '\n')
			page.n--; /* no empty line at the end */
		ret = write_page(dir, t->name, &page);
		buf_fini(&page);
	}
	return ret < 0;
}

int cmd_components(int argc, char **argv)
{
	const char *docs = NULL;
	const struct flag flags[] = {
		FLAG_STR("--docs", &docs, "DIR", "write DIR/TYPE.md for each type instead"),
	};
	const struct flag_command command = {
		"components", "[--docs DIR]",
		"Prints what is compiled in as YAML: name, other spelling, summary and stability "
		"of\n"
		"every component, and where configurations can come from.",
		flags, COUNT_OF(flags)
	};
	struct buf out = BUF_INIT;
	size_t n_words = 0;

	switch (flags_parse(&command, argc, argv, NULL, 0, &n_words)) {
	case FLAG_HELP:
		return 0;
	case FLAG_BAD:
		return 1;
	case FLAG_RUN:
	default:
		break;
	}
	if (docs != NULL)
		return write_docs(docs);
	print_all(&out);
	fputs(buf_cstr(&out), stdout);
	buf_fini(&out);
	return fflush(stdout) != 0;
}
