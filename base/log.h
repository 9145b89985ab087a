/* SPDX-License-Identifier: Apache-2.0
 *
 * log.h - one line per event, on stderr unless told otherwise: a fixed sentence and pairs.
 *
 *   log_warn("fetch failed", "topic", t, "error", err.msg);
 *   2026-11-23T22:45:13.123Z warn fetch failed component=kafka/in topic=spans error="broker:
 *   connection refused"
 *
 * Pairs are C strings; the macros end the list. Each call site passes at most 10 lines in 10 s,
 * then one in 100, unless the settings say otherwise; the next line that passes says suppressed=N.
 * Encoding is key=value or JSON. Any thread; a line is one write(2) per output.
 * SPEC: the Collector's service.telemetry.logs (level, encoding, output_paths, initial_fields,
 * sampling).
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "base/base.h"
#include "base/err.h"

#include <stdatomic.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };
enum log_encoding { LOG_CONSOLE, LOG_JSON };

struct log_site {
	_Atomic uint64_t window; /* number of the current tick, + 1 */
	_Atomic uint32_t in_window;
	_Atomic uint32_t suppressed;
};

/* Of each call site: `initial` lines a tick, then every `thereafter`-th (0: none). */
struct log_sampling {
	bool enabled;
	int64_t tick_ns;
	uint64_t initial, thereafter;
};

/* Text that every line carries. */
struct log_field {
	const char *key, *value;
	bool is_text; /* JSON: a string; else a number, bool or object as it stands */
};

struct log_settings {
	int level;    /* enum log_level */
	int encoding; /* enum log_encoding */
	struct log_sampling sampling;
	const char *const *paths; /* "stdout", "stderr", a file or file:///path; none: stderr */
	size_t n_paths;
	const struct log_field *fields; /* read before log_open returns */
	size_t n_fields;
};

/* Files are opened for appending, and made. -1 when one cannot be; lines then go on as before. Any
 * thread, also while others write: again at a reload, when a file may have been moved away. */
int log_open(const struct log_settings *s, struct err *err);
/* No line after this: the process is about to say its last one. Any thread. */
void log_silence(void);
/* Level and encoding only. Before threads start. */
void log_configure(enum log_level level, enum log_encoding encoding);
bool log_is_on(enum log_level level);
/* Use the macros. The list of const char * pairs ends with NULL. */
void log_write(struct log_site *site, enum log_level level, const char *sentence, ...);

#define LOG_AT(level, ...)                                                                         \
	do {                                                                                       \
		static struct log_site log_site_;                                                  \
		if (log_is_on(level))                                                              \
			log_write(&log_site_, level, __VA_ARGS__, (const char *)NULL);             \
	} while (0)
#define log_debug(...) LOG_AT(LOG_DEBUG, __VA_ARGS__)
#define log_info(...) LOG_AT(LOG_INFO, __VA_ARGS__)
#define log_warn(...) LOG_AT(LOG_WARN, __VA_ARGS__)
#define log_error(...) LOG_AT(LOG_ERROR, __VA_ARGS__)

/* A number as text for a pair; the buffer lives to the end of the enclosing block. */
#define LOG_NUM(v) log_num((char[24]){ 0 }, (int64_t)(v))
const char *log_num(char out[24], int64_t v);

#endif
