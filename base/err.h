/* SPDX-License-Identifier: Apache-2.0
 *
 * err.h - how a function says what went wrong: kind, whether a retry can help, and one line of
 * text.
 *
 * A fallible function returns 0 or -1 (iterators 1/0/-1) and takes `struct err *err` last; err may
 * be NULL when the caller does not care. Text is "what: why", lower case, with the offending value.
 * One layer adds context once with err_wrap. Any thread; a struct err belongs to its caller.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include "base/base.h"

enum err_kind {
	ERR_NONE,
	ERR_INVALID,   /* the input is damaged or illegal: 400 / INVALID_ARGUMENT */
	ERR_TOO_LARGE, /* over a size limit, for ever: 413 / RESOURCE_EXHAUSTED without RetryInfo */
	/* a rate or budget is spent, try later: 429 / RESOURCE_EXHAUSTED or UNAVAILABLE */
	ERR_EXHAUSTED,
	ERR_UNAVAILABLE, /* the next hop or store cannot be reached now: 503 / UNAVAILABLE */
	ERR_TIMEOUT,     /* the deadline passed: 504 / DEADLINE_EXCEEDED */
	ERR_NOT_FOUND,
	ERR_EXISTS, /* a conditional write lost */
	ERR_PERMISSION,
	ERR_UNIMPLEMENTED,
	ERR_CORRUPT, /* bytes of ours on disk or storage fail their check */
	ERR_IO,      /* a system call failed */
	ERR_CONFIG,
	ERR_INTERNAL,
};

enum { ERR_MSG_SIZE = 256 };

struct err {
	enum err_kind kind;
	bool retryable;          /* decided where the status is known */
	uint32_t retry_after_ms; /* 0: not said */
	char msg[ERR_MSG_SIZE];  /* always NUL-terminated; cut when longer */
};

#define ERR_INIT                                                                                   \
	{                                                                                          \
		ERR_NONE, false, 0, ""                                                             \
	}

/* Fill *err (NULL is fine) and return -1, so that a caller can `return err_set(...)`. retryable
 * follows the kind: EXHAUSTED, UNAVAILABLE and TIMEOUT are, others are not; assign err->retryable
 * afterwards to differ. */
int err_set(struct err *err, enum err_kind kind, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* As err_set with kind IO (NOT_FOUND for ENOENT, EXISTS for EEXIST) and ": strerror(errno)"
 * appended. */
int err_errno(struct err *err, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Put "fmt: " in front of the text. Returns -1. */
int err_wrap(struct err *err, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Back to ERR_NONE. */
void err_clear(struct err *err);

#endif
