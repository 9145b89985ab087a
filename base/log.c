/* SPDX-License-Identifier: Apache-2.0
 *
 * log.c - see log.h.
 */
#include "base/log.h"

#include "base/buf.h"
#include "base/clock.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

enum { LINES_PER_SECOND = 10, THEREAFTER = 100 };

static enum log_level lowest = LOG_INFO;
static enum log_encoding line_encoding = LOG_CONSOLE;

static const char *const level_names[] = { "debug", "info", "warn", "error" };

void log_configure(enum log_level level, enum log_encoding encoding)
{
	lowest = level;
	line_encoding = encoding;
}

bool log_is_on(enum log_level level)
{
	return level >= lowest;
}

const char *log_num(char out[24], int64_t v)
{
	snprintf(out, 24, "%lld", (long long)v);
	return out;
}

/* True when this line may pass; races between threads cost a line more or less, never a crash. */
static bool site_admits(struct log_site *site, uint32_t *suppressed)
{
	uint64_t now_s = clock_mono_ns() / NS_PER_S + 1;
	uint32_t n;

	if (atomic_exchange_explicit(&site->window_s, now_s, memory_order_relaxed) != now_s)
		atomic_store_explicit(&site->in_window, 0, memory_order_relaxed);
	n = atomic_fetch_add_explicit(&site->in_window, 1, memory_order_relaxed);
	if (n >= LINES_PER_SECOND && (n - LINES_PER_SECOND) % THEREAFTER != THEREAFTER - 1) {
		atomic_fetch_add_explicit(&site->suppressed, 1, memory_order_relaxed);
		return false;
	}
	*suppressed = atomic_exchange_explicit(&site->suppressed, 0, memory_order_relaxed);
	return true;
}

static bool needs_quotes(const char *s)
{
	if (*s == '\0')
		return true;
	for (; *s; s++)
		if ((uint8_t)*s <= ' ' || *s == '"' || *s == '=' || *s == '\\' || *s == 0x7f)
			return true;
	return false;
}

static void add_quoted(struct buf *b, const char *s)
{
	buf_add_char(b, '"');
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			buf_printf(b, "\\%c", *s);
		else if (*s == '\n')
			buf_add_str(b, "\\n");
		else if ((uint8_t)*s < ' ' || *s == 0x7f)
			buf_printf(b, "\\u%04x", (unsigned)(uint8_t)*s);
		else
			buf_add_char(b, *s);
	}
	buf_add_char(b, '"');
}

static void add_pair(struct buf *b, const char *key, const char *value)
{
	if (value == NULL)
		value = "";
	if (line_encoding == LOG_JSON) {
		buf_add_char(b, ',');
		add_quoted(b, key);
		buf_add_char(b, ':');
		add_quoted(b, value);
		return;
	}
	buf_printf(b, " %s=", key);
	if (needs_quotes(value))
		add_quoted(b, value);
	else
		buf_add_str(b, value);
}

static void add_head(struct buf *b, enum log_level level, const char *sentence)
{
	char when[CLOCK_RFC3339_SIZE];

	clock_format_rfc3339(clock_wall_ns(), when);
	if (line_encoding == LOG_JSON) {
		buf_printf(b, "{\"ts\":\"%s\",\"level\":\"%s\",\"msg\":", when, level_names[level]);
		add_quoted(b, sentence);
	} else {
		buf_printf(b, "%s %s %s", when, level_names[level], sentence);
	}
}

void log_write(struct log_site *site, enum log_level level, const char *sentence, ...)
{
	struct buf line = BUF_INIT_MAX(16384);
	const char *key;
	uint32_t suppressed = 0;
	va_list ap;

	if (!site_admits(site, &suppressed))
		return;
	add_head(&line, level, sentence);
	va_start(ap, sentence);
	while ((key = va_arg(ap, const char *)) != NULL)
		add_pair(&line, key, va_arg(ap, const char *));
	va_end(ap);
	if (suppressed)
		add_pair(&line, "suppressed", log_num((char[24]){ 0 }, suppressed));
	if (line_encoding == LOG_JSON)
		buf_add_char(&line, '}');
	buf_add_char(&line, '\n');
	/* A full or closed stderr must never stop the data path. */
	if (write(STDERR_FILENO, line.p, line.n) < 0) {
	}
	buf_fini(&line);
}
