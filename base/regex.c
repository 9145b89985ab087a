/* SPDX-License-Identifier: Apache-2.0
 *
 * regex.c - see regex.h.
 */
#include "base/regex.h"

#include "base/mem.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdio.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

enum { MATCH_LIMIT = 100000, DEPTH_LIMIT = 1000, OVECTOR_PAIRS = 256 };

#define REGEX_SYMBOLS                                                                              \
	X(compile)                                                                                 \
	X(code_free)                                                                               \
	X(jit_compile)                                                                             \
	X(match)                                                                                   \
	X(match_data_create)                                                                       \
	X(match_data_free)                                                                         \
	X(match_context_create)                                                                    \
	X(match_context_free)                                                                      \
	X(set_match_limit)                                                                         \
	X(set_depth_limit)                                                                         \
	X(get_ovector_pointer)                                                                     \
	X(get_error_message)                                                                       \
	X(pattern_info)

#define PCRE2_TYPE(name) __typeof__(&pcre2_##name)

static struct {
#define X(name) PCRE2_TYPE(name) name;
	REGEX_SYMBOLS
#undef X
	pcre2_match_context *limits; /* never freed: shared by all threads until the end */
	pthread_key_t scratch;
	char why[200]; /* it could not be loaded; "" when it was */
} lib;
static pthread_once_t lib_once = PTHREAD_ONCE_INIT;
static _Atomic uint64_t limit_hits;

struct regex {
	pcre2_code *code;
	unsigned n_names;
	struct {
		const char *name;
		uint32_t group;
	} names[REGEX_GROUPS_MAX];
};

static void free_scratch(void *data)
{
	lib.match_data_free(data);
}

static void load_library(void)
{
	static const struct {
		const char *name;
		void *slot;
	} symbols[] = {
#define X(name) { "pcre2_" #name "_8", &lib.name },
		REGEX_SYMBOLS
#undef X
	};
	void *so = dlopen("libpcre2-8.so.0", RTLD_NOW | RTLD_LOCAL);
	bool ok = so != NULL;

	for (size_t i = 0; ok && i < COUNT_OF(symbols); i++) {
		void *p = dlsym(so, symbols[i].name);

		/* ISO C has no conversion from an object's to a function's address. */
		memcpy(symbols[i].slot, &p, sizeof(p));
		ok = p != NULL;
	}
	if (!ok) {
		snprintf(lib.why, sizeof(lib.why), "%s", dlerror());
		return;
	}
	lib.limits = lib.match_context_create(NULL);
	lib.set_match_limit(lib.limits, MATCH_LIMIT);
	lib.set_depth_limit(lib.limits, DEPTH_LIMIT);
	if (pthread_key_create(&lib.scratch, free_scratch) != 0)
		snprintf(lib.why, sizeof(lib.why), "no thread key is left");
}

/* The names of the pattern's groups, as they stand in its table: number (2 bytes), name, NUL. */
static int read_names(struct regex *re, struct err *err)
{
	PCRE2_SPTR table = NULL;
	uint32_t n = 0, size = 0;

	lib.pattern_info(re->code, PCRE2_INFO_NAMECOUNT, &n);
	lib.pattern_info(re->code, PCRE2_INFO_NAMEENTRYSIZE, &size);
	lib.pattern_info(re->code, PCRE2_INFO_NAMETABLE, &table);
	if (n > REGEX_GROUPS_MAX)
		return err_set(err, ERR_CONFIG, "%u named groups, at most %d", n, REGEX_GROUPS_MAX);
	for (uint32_t i = 0; i < n; i++) {
		const uint8_t *entry = table + (size_t)i * size;

		re->names[i].group = (uint32_t)entry[0] << 8 | entry[1];
		re->names[i].name = (const char *)entry + 2;
	}
	re->n_names = n;
	return 0;
}

struct regex *regex_new(const char *pattern, struct err *err)
{
	struct regex *re;
	PCRE2_UCHAR why[120];
	PCRE2_SIZE at = 0;
	int code = 0;

	pthread_once(&lib_once, load_library);
	if (lib.why[0] != '\0') {
		err_set(err, ERR_UNIMPLEMENTED,
			"libpcre2 cannot be loaded, install libpcre2-8-0: %s", lib.why);
		return NULL;
	}
	re = xcalloc(1, sizeof(*re));
	re->code = lib.compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
			       PCRE2_UTF | PCRE2_MATCH_INVALID_UTF, &code, &at, NULL);
	if (re->code == NULL) {
		lib.get_error_message(code, why, sizeof(why));
		err_set(err, ERR_CONFIG, "%s at character %zu", (const char *)why, (size_t)at + 1);
		free(re);
		return NULL;
	}
	if (read_names(re, err) < 0) {
		regex_free(re);
		return NULL;
	}
	/* Without JIT (a hardened kernel) it only runs slower. */
	lib.jit_compile(re->code, PCRE2_JIT_COMPLETE);
	return re;
}

void regex_free(struct regex *re)
{
	if (re == NULL)
		return;
	lib.code_free(re->code);
	free(re);
}

/* This thread's; NULL without memory for it, and then nothing matches. */
static pcre2_match_data *scratch(void)
{
	pcre2_match_data *data = pthread_getspecific(lib.scratch);

	if (data == NULL) {
		data = lib.match_data_create(OVECTOR_PAIRS, NULL);
		pthread_setspecific(lib.scratch, data);
	}
	return data;
}

/* > 0 when it matches: ovector is then filled, except for groups beyond its size. */
static int match(const struct regex *re, struct bytes text, pcre2_match_data *data)
{
	int n = PCRE2_ERROR_NOMEMORY;

	if (data != NULL)
		n = lib.match(re->code, text.n ? text.p : (const uint8_t *)"", text.n, 0, 0, data,
			      lib.limits);
	if (n == PCRE2_ERROR_MATCHLIMIT || n == PCRE2_ERROR_DEPTHLIMIT ||
	    n == PCRE2_ERROR_JIT_STACKLIMIT)
		atomic_fetch_add_explicit(&limit_hits, 1, memory_order_relaxed);
	return n;
}

bool regex_matches(const struct regex *re, struct bytes text)
{
	return match(re, text, scratch()) >= 0;
}

unsigned regex_n_names(const struct regex *re)
{
	return re->n_names;
}

const char *regex_name(const struct regex *re, unsigned i)
{
	return re->names[i].name;
}

bool regex_extract(const struct regex *re, struct bytes text, struct bytes values[])
{
	pcre2_match_data *data = scratch();
	const PCRE2_SIZE *at = NULL;
	int n = match(re, text, data);

	if (n < 0)
		return false;
	at = lib.get_ovector_pointer(data);
	for (unsigned i = 0; i < re->n_names; i++) {
		uint32_t g = re->names[i].group;

		values[i] = BYTES_EMPTY;
		/* n is one more than the last group that took part; 0: more than fit. */
		if ((n == 0 || g < (uint32_t)n) && g < OVECTOR_PAIRS && at[2 * g] != PCRE2_UNSET)
			values[i] = (struct bytes){ text.p + at[2 * g], at[2 * g + 1] - at[2 * g] };
	}
	return true;
}

uint64_t regex_limit_hits(void)
{
	return atomic_load_explicit(&limit_hits, memory_order_relaxed);
}
