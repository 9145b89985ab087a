/* SPDX-License-Identifier: Apache-2.0
 *
 * flags.c - see flags.h.
 */
#include "cmd/flags.h"

#include "base/str.h"
#include "pipeline/conf/scalar.h"

#include <stdarg.h>
#include <stdio.h>

enum { COLUMN = 30 };

int flags_usage(const struct flag_command *c, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "spanmill %s: ", c->name);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\nusage: spanmill %s%s%s (spanmill %s --help says more)\n", c->name,
		c->usage[0] != '\0' ? " " : "", c->usage, c->name);
	return 1;
}

/* ---- help ---- */

static void print_flag(const struct flag *f)
{
	int n = printf("  %s%s%s", f->name, f->value ? " " : "", f->value ? f->value : "");

	printf("%*s%s\n", n < COLUMN ? COLUMN - n : 1, "", f->help);
}

static void print_help(const struct flag_command *c)
{
	printf("usage: spanmill %s%s%s\n\n%s\n\n", c->name, c->usage[0] != '\0' ? " " : "",
	       c->usage, c->about);
	for (size_t i = 0; i < c->n_flags; i++)
		print_flag(&c->flags[i]);
	printf("  %-*s%s\n", COLUMN - 2, "--help", "print this");
}

/* ---- one value ---- */

static int bad_value(const struct flag_command *c, const struct flag *f, const char *text,
		     const char *why)
{
	flags_usage(c, "%s: \"%.80s\" %s", f->name, text, why);
	return -1;
}

static int set_bool(const struct flag_command *c, const struct flag *f, const char *text)
{
	if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
		return bad_value(c, f, text, "is neither true nor false");
	*f->to.b = text[0] == 't';
	return 0;
}

static int set_uint(const struct flag_command *c, const struct flag *f, const char *text)
{
	char why[80];

	snprintf(why, sizeof(why), "is no number from %llu to %llu", (unsigned long long)f->min,
		 (unsigned long long)f->max);
	if (str_to_u64(bytes_str(text), f->to.u) < 0 || *f->to.u < f->min || *f->to.u > f->max)
		return bad_value(c, f, text, why);
	return 0;
}

static int set_time(const struct flag_command *c, const struct flag *f, const char *text)
{
	char why[128];
	int64_t ns = 0;

	if (conf_scalar_duration(text, &ns, why, sizeof(why)) < 0 || ns < 0)
		return bad_value(c, f, text, "is no duration such as 10s, 1m30s or 500ms");
	*f->to.u = (uint64_t)ns;
	return 0;
}

static int set_choice(const struct flag_command *c, const struct flag *f, const char *text)
{
	char why[160] = "is none of";

	for (int i = 0; f->choices[i] != NULL; i++) {
		size_t n = strlen(why);

		if (strcmp(text, f->choices[i]) == 0) {
			*f->to.choice = i;
			return 0;
		}
		snprintf(why + n, sizeof(why) - n, "%s%s", i ? ", " : " ", f->choices[i]);
	}
	return bad_value(c, f, text, why);
}

static int set(const struct flag_command *c, const struct flag *f, const char *text)
{
	switch (f->kind) {
	case FLAG_KIND_BOOL:
		return set_bool(c, f, text);
	case FLAG_KIND_UINT:
		return set_uint(c, f, text);
	case FLAG_KIND_TIME:
		return set_time(c, f, text);
	case FLAG_KIND_CHOICE:
		return set_choice(c, f, text);
	case FLAG_KIND_LIST:
		f->to.list->items[f->to.list->n++] = text;
		return 0;
	case FLAG_KIND_STR:
	default:
		*f->to.s = text;
		return 0;
	}
}

/* ---- the line ---- */

static int unknown(const struct flag_command *c, const char *arg, size_t n)
{
	const char *nearest = NULL;
	unsigned best = 4;
	char name[64];

	snprintf(name, sizeof(name), "%.*s", (int)MIN(n, sizeof(name) - 1), arg);
	for (size_t i = 0; i < c->n_flags; i++) {
		unsigned d = str_distance(name, c->flags[i].name);

		if (d < best) {
			best = d;
			nearest = c->flags[i].name;
		}
	}
	if (nearest != NULL)
		flags_usage(c, "unknown flag \"%s\": did you mean %s?", name, nearest);
	else
		flags_usage(c, "unknown flag \"%s\"", name);
	return -1;
}

/* argv[*i] is a flag: take it and its value. */
static int take(const struct flag_command *c, int argc, char **argv, int *i)
{
	const char *arg = argv[*i], *eq = strchr(arg, '=');
	size_t n = eq != NULL ? (size_t)(eq - arg) : strlen(arg);
	const struct flag *f = NULL;

	for (size_t k = 0; k < c->n_flags && f == NULL; k++)
		if (bytes_eq_str((struct bytes){ (const uint8_t *)arg, n }, c->flags[k].name))
			f = &c->flags[k];
	if (f == NULL)
		return unknown(c, arg, n);
	if (eq != NULL)
		return set(c, f, eq + 1);
	if (f->kind == FLAG_KIND_BOOL)
		return set(c, f, "true");
	if (*i + 1 >= argc) {
		flags_usage(c, "%s: needs a value", f->name);
		return -1;
	}
	return set(c, f, argv[++*i]);
}

enum flag_outcome flags_parse(const struct flag_command *c, int argc, char **argv,
			      const char **words, size_t max_words, size_t *n_words)
{
	bool only_words = false;

	*n_words = 0;
	for (int i = 1; i < argc; i++) {
		const char *arg = argv[i];

		if (!only_words && (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0)) {
			print_help(c);
			return FLAG_HELP;
		}
		if (!only_words && strcmp(arg, "--") == 0) {
			only_words = true;
		} else if (!only_words && arg[0] == '-' && arg[1] != '\0') {
			if (take(c, argc, argv, &i) < 0)
				return FLAG_BAD;
		} else if (*n_words == max_words) {
			flags_usage(c, "unexpected argument \"%.80s\"", arg);
			return FLAG_BAD;
		} else {
			words[(*n_words)++] = arg;
		}
	}
	return FLAG_RUN;
}
