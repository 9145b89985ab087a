/* SPDX-License-Identifier: Apache-2.0
 *
 * regex.h - regular expressions of the configuration: compiled once, tried on hostile text.
 *
 * PCRE2 with JIT, loaded when the first pattern is compiled, so that who has none does not pay for
 * it. Go's syntax (RE2) is nearly a subset: `(?P<name>...)`, classes and flags read the same. What
 * RE2 cannot do (backtracking for ever) is bounded here by a match limit: over it a text does not
 * match, and regex_limit_hits says how often that was.
 *
 * OWNERSHIP: the caller frees with regex_free. THREADS: a struct regex may be used by any number of
 * threads at once; scratch is per thread and lives as long as the thread.
 */
#ifndef BASE_REGEX_H
#define BASE_REGEX_H

#include "base/base.h"
#include "base/err.h"

struct regex;

enum { REGEX_GROUPS_MAX = 32 };

/* NULL with ERR_CONFIG and where in the pattern it went wrong, or ERR_UNIMPLEMENTED when the
 * library is not installed. */
struct regex *regex_new(const char *pattern, struct err *err);
void regex_free(struct regex *re);
/* Is there a match anywhere in the text (which need not be UTF-8)? */
bool regex_matches(const struct regex *re, struct bytes text);
/* Named groups of the pattern, at most REGEX_GROUPS_MAX. */
unsigned regex_n_names(const struct regex *re);
const char *regex_name(const struct regex *re, unsigned i);
/* The first match: values[i] is what named group i took (p NULL: it took no part). False: none. */
bool regex_extract(const struct regex *re, struct bytes text, struct bytes values[]);
/* How often a text was given up because of the match limit, in this process. */
uint64_t regex_limit_hits(void);

#endif
