/* SPDX-License-Identifier: Apache-2.0
 *
 * htpasswd.h - users and password hashes as Apache's htpasswd writes them, and whether a password
 * is one of them.
 *
 * One `user:hash` a line; blank lines and those that begin with # are left out. Hashes: bcrypt
 * ($2a$, $2b$, $2y$), SHA-crypt ($5$, $6$), {SHA}, {SSHA}, and passwords in plain text. Apache's
 * own MD5 ($apr1$) is refused by name.
 *
 * THREADS: any. OWNERSHIP: immutable but for what it remembers, which has a lock.
 */
#ifndef NET_HTPASSWD_H
#define NET_HTPASSWD_H

#include "base/base.h"
#include "base/err.h"

struct htpasswd;

enum htpasswd_verdict {
	HTPASSWD_YES,
	HTPASSWD_NO,
	HTPASSWD_SLOW, /* not known yet: htpasswd_check_slowly, which takes tens of milliseconds */
};

/* NULL with err (CONFIG: the line's number and what is wrong, never its text). `what` names the
 * source in it. */
struct htpasswd *htpasswd_parse(struct bytes text, const char *what, struct err *err);
/* NULL is fine. */
void htpasswd_free(struct htpasswd *h);
/* At once: plain text, SHA-1, and slow hashes whose password was right before. As long for a user
 * that there is not as for a wrong password. */
enum htpasswd_verdict htpasswd_check(struct htpasswd *h, struct bytes user, struct bytes password);
/* YES or NO. */
enum htpasswd_verdict htpasswd_check_slowly(struct htpasswd *h, struct bytes user,
					    struct bytes password);

#endif
