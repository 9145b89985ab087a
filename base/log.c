/* SPDX-License-Identifier: Apache-2.0
 *
 * log.c - see log.h.
 */
#include "base/log.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/mem.h"

#include "base/str.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { OUTPUTS_MAX = 16 };

/* Held to read while a line is made, to write while log_open changes what follows. */
static pthread_rwlock_t settings_lock = PTHREAD_RWLOCK_INITIALIZER;
static _Atomic enum log_level lowest = LOG_INFO;
static enum log_encoding line_encoding = LOG_CONSOLE;
static struct log_sampling limits = { true, INT64_C(10000000000), 10, 100 };
static int outputs[OUTPUTS_MAX] = { STDERR_FILENO };
static size_t n_outputs = 1;
static _Atomic bool is_silent;
static char *fields_text; /* of every line, in the encoding; NULL: none */

static const char *const level_names[] = { "debug", "info", "warn", "error" };

void log_silence(void)
{
	atomic_store(&is_silent, true);
}

void log_configure(enum log_level level, enum log_encoding encoding)
{
	atomic_store(&lowest, level);
	line_encoding = encoding;
}

bool log_is_on(enum log_level level)
{
	return level >= atomic_load_explicit(&lowest, memory_order_relaxed);
}

const char *log_num(char out[24], int64_t v)
{
	snprintf(out, 24, "%lld", (long long)v);
	return out;
}

/* True when this line may pass; races between threads cost a line more or less, never a crash. */
static bool site_admits(struct log_site *site, uint32_t *suppressed)
{
	uint64_t now, every = limits.thereafter;
	uint32_t n;

	if (!limits.enabled || limits.tick_ns <= 0)
		return true;
	now = clock_mono_ns() / (uint64_t)limits.tick_ns + 1;
	if (atomic_exchange_explicit(&site->window, now, memory_order_relaxed) != now)
		atomic_store_explicit(&site->in_window, 0, memory_order_relaxed);
	n = atomic_fetch_add_explicit(&site->in_window, 1, memory_order_relaxed);
	if (n >= limits.initial && (every == 0 || (n - limits.initial) % every != every - 1)) {
		atomic_fetch_add_explicit(&site->suppressed, 1, memory_order_relaxed);
		return false;
	}
	*suppressed = atomic_exchange_explicit(&site->suppressed, 0, memory_order_relaxed);
	return true;
}

static bool needs_quotes(const char *s)
{
	bool good = str_is_utf8(bytes_str(s));

	if (*s == '\0')
		return true;
	for (; *s; s++)
		if ((uint8_t)*s <= ' ' || *s == '"' || *s == '=' || *s == '\\' || *s == 0x7f)
			return true;
	return !good;
}

static void add_quoted(struct buf *b, const char *s)
{
	bool good = str_is_utf8(bytes_str(s));

	buf_add_char(b, '"');
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			buf_printf(b, "\\%c", *s);
		else if (*s == '\n')
			buf_add_str(b, "\\n");
		else if ((uint8_t)*s < ' ' || *s == 0x7f)
			buf_printf(b, "\\u%04x", (unsigned)(uint8_t)*s);
		else if ((uint8_t)*s >= 0x80 && !good) /* JSON readers refuse the whole line */
			buf_add_str(b, "\\ufffd");
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

/* Fields of every line, formatted once. */
static void keep_fields(const struct log_settings *s)
{
	struct buf b = BUF_INIT;

	for (size_t i = 0; i < s->n_fields; i++) {
		const struct log_field *f = &s->fields[i];

		if (f->is_text || line_encoding == LOG_CONSOLE) {
			add_pair(&b, f->key, f->value);
			continue;
		}
		buf_add_char(&b, ',');
		add_quoted(&b, f->key);
		buf_printf(&b, ":%s", f->value);
	}
	free(fields_text);
	fields_text = b.n > 0 ? xstrdup(buf_cstr(&b)) : NULL;
	buf_fini(&b);
}

static int open_output(const char *path, struct err *err)
{
	int fd;

	if (strcmp(path, "stderr") == 0)
		return STDERR_FILENO;
	if (strcmp(path, "stdout") == 0)
		return STDOUT_FILENO;
	if (str_has_prefix(path, "file://"))
		path += strlen("file://");
	fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
	return fd >= 0 ? fd : err_errno(err, "open the log file %s", path);
}

int log_open(const struct log_settings *s, struct err *err)
{
	int fds[OUTPUTS_MAX] = { STDERR_FILENO };

	if (s->n_paths > OUTPUTS_MAX)
		return err_set(err, ERR_CONFIG, "more than %d log outputs", OUTPUTS_MAX);
	for (size_t i = 0; i < s->n_paths; i++) {
		fds[i] = open_output(s->paths[i], err);
		if (fds[i] >= 0)
			continue;
		while (i-- > 0)
			if (fds[i] > STDERR_FILENO)
				close(fds[i]);
		return -1;
	}
	pthread_rwlock_wrlock(&settings_lock);
	for (size_t i = 0; i < n_outputs; i++)
		if (outputs[i] > STDERR_FILENO)
			close(outputs[i]);
	memcpy(outputs, fds, sizeof(fds));
	n_outputs = MAX(s->n_paths, (size_t)1);
	log_configure((enum log_level)s->level, (enum log_encoding)s->encoding);
	limits = s->sampling;
	keep_fields(s);
	pthread_rwlock_unlock(&settings_lock);
	return 0;
}

/* With the lock. */
static void write_line(struct log_site *site, enum log_level level, const char *sentence,
		       va_list ap)
{
	struct buf line = BUF_INIT_MAX(16384);
	const char *key;
	uint32_t suppressed = 0;

	if (!site_admits(site, &suppressed))
		return;
	add_head(&line, level, sentence);
	if (fields_text != NULL && line_encoding == LOG_JSON)
		buf_add_str(&line, fields_text);
	while ((key = va_arg(ap, const char *)) != NULL)
		add_pair(&line, key, va_arg(ap, const char *));
	if (suppressed)
		add_pair(&line, "suppressed", log_num((char[24]){ 0 }, suppressed));
	if (fields_text != NULL && line_encoding == LOG_CONSOLE)
		buf_add_str(&line, fields_text);
	if (line_encoding == LOG_JSON)
		buf_add_char(&line, '}');
	buf_add_char(&line, '\n');
	/* A full or closed output must never stop the data path. */
	for (size_t i = 0; i < n_outputs && !atomic_load(&is_silent); i++) {
		if (write(outputs[i], line.p, line.n) < 0) {
		}
	}
	buf_fini(&line);
}

void log_write(struct log_site *site, enum log_level level, const char *sentence, ...)
{
	va_list ap;

	va_start(ap, sentence);
	pthread_rwlock_rdlock(&settings_lock);
	write_line(site, level, sentence, ap);
	pthread_rwlock_unlock(&settings_lock);
	va_end(ap);
}
