/* SPDX-License-Identifier: Apache-2.0
 *
 * flags.h - command line flags of the subcommands: a table says name, type, bounds and
 * help; parsing, --help and messages come from it.
 *
 * `--name value`, `--name=value`, and `--name` or `--name=true|false` for booleans; `--` ends
 * flags. Values are written through typed pointers, which hold the defaults when parsing starts.
 * THREADS: plain functions, main thread. OWNERSHIP: strings point into argv.
 */
#ifndef CMD_FLAGS_H
#define CMD_FLAGS_H

#include "base/base.h"

enum flag_kind {
	FLAG_KIND_BOOL,
	FLAG_KIND_STR,
	FLAG_KIND_UINT,
	FLAG_KIND_TIME,
	FLAG_KIND_CHOICE,
	FLAG_KIND_LIST
};

/* What a flag that may stand several times collected; the caller brings room for argc items. */
struct flag_list {
	const char **items;
	size_t n;
};

struct flag {
	const char *name; /* with its dashes */
	enum flag_kind kind;
	union {
		bool *b;
		const char **s;
		uint64_t *u; /* UINT; TIME: nanoseconds */
		int *choice; /* index into choices */
		struct flag_list *list;
	} to;
	const char *const *choices; /* ends with NULL */
	uint64_t min, max;
	const char *value; /* what --help calls it */
	const char *help;
};

#define FLAG_BOOL(n, at, text)                                                                     \
	{                                                                                          \
		.name = n, .kind = FLAG_KIND_BOOL, .to.b = at, .help = text                        \
	}
#define FLAG_STR(n, at, what, text)                                                                \
	{                                                                                          \
		.name = n, .kind = FLAG_KIND_STR, .to.s = at, .value = what, .help = text          \
	}
#define FLAG_UINT(n, at, lo, hi, text)                                                             \
	{                                                                                          \
		.name = n, .kind = FLAG_KIND_UINT, .to.u = at, .min = lo, .max = hi, .value = "N", \
		.help = text                                                                       \
	}
/* A Go duration: 10s, 1m30s, 500ms. */
#define FLAG_TIME(n, at, text)                                                                     \
	{                                                                                          \
		.name = n, .kind = FLAG_KIND_TIME, .to.u = at, .value = "TIME", .help = text       \
	}
#define FLAG_CHOICE(n, at, list, what, text)                                                       \
	{                                                                                          \
		.name = n, .kind = FLAG_KIND_CHOICE, .to.choice = at, .choices = list,             \
		.value = what, .help = text                                                        \
	}
#define FLAG_LIST(n, at, what, text)                                                               \
	{                                                                                          \
		.name = n, .kind = FLAG_KIND_LIST, .to.list = at, .value = what, .help = text      \
	}

struct flag_command {
	const char *name;  /* "gen" */
	const char *usage; /* what follows the name: "[FLAGS]" */
	const char *about; /* a paragraph or two */
	const struct flag *flags;
	size_t n_flags;
};

enum flag_outcome { FLAG_RUN, FLAG_HELP, FLAG_BAD };

/* Parse argv (argv[0] is the command's name); words that are no flags go to words (room for
 * max_words), *n_words counts them. HELP: help was printed on stdout; BAD: the mistake was said on
 * stderr. */
enum flag_outcome flags_parse(const struct flag_command *c, int argc, char **argv,
			      const char **words, size_t max_words, size_t *n_words);
/* "spanmill <name>: <what>" and where to read on, on stderr; returns 1, the exit status. */
int flags_usage(const struct flag_command *c, const char *fmt, ...) PRINTF_LIKE(2, 3);

#endif
