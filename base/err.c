/* SPDX-License-Identifier: Apache-2.0
 *
 * err.c - filling and wrapping struct err.
 */
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

static bool is_retryable(enum err_kind kind)
{
	return kind == ERR_EXHAUSTED || kind == ERR_UNAVAILABLE || kind == ERR_TIMEOUT;
}

int err_set(struct err *err, enum err_kind kind, const char *fmt, ...)
{
	va_list ap;

	if (err == NULL)
		return -1;
	err->kind = kind;
	err->retryable = is_retryable(kind);
	err->retry_after_ms = 0;
	va_start(ap, fmt);
	vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
	va_end(ap);
	return -1;
}

int err_errno(struct err *err, const char *fmt, ...)
{
	int saved = errno;
	va_list ap;
	size_t n;

	if (err == NULL)
		return -1;
	err->kind = saved == ENOENT ? ERR_NOT_FOUND : saved == EEXIST ? ERR_EXISTS : ERR_IO;
	err->retryable = false;
	err->retry_after_ms = 0;
	va_start(ap, fmt);
	vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
	va_end(ap);
	n = strlen(err->msg);
	snprintf(err->msg + n, sizeof(err->msg) - n, ": %s", strerror(saved));
	errno = saved;
	return -1;
}

int err_wrap(struct err *err, const char *fmt, ...)
{
	char context[ERR_MSG_SIZE];
	char joined[2 * ERR_MSG_SIZE + 2];
	va_list ap;

	if (err == NULL)
		return -1;
	va_start(ap, fmt);
	vsnprintf(context, sizeof(context), fmt, ap);
	va_end(ap);
	snprintf(joined, sizeof(joined), "%s: %s", context, err->msg);
	memcpy(err->msg, joined, sizeof(err->msg) - 1);
	err->msg[sizeof(err->msg) - 1] = '\0';
	return -1;
}

void err_clear(struct err *err)
{
	if (err != NULL)
		*err = (struct err)ERR_INIT;
}
