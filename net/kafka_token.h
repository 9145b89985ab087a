/* SPDX-License-Identifier: Apache-2.0
 *
 * kafka_token.h - an OAUTHBEARER token that somebody else keeps fresh in a file, as Kubernetes does
 * for service accounts.
 */
#ifndef NET_KAFKA_TOKEN_H
#define NET_KAFKA_TOKEN_H

#include "base/base.h"
#include "base/err.h"

enum { KAFKA_TOKEN_MAX = 16384, KAFKA_PRINCIPAL_MAX = 256 };

struct kafka_token {
	char text[KAFKA_TOKEN_MAX + 1];
	char principal[KAFKA_PRINCIPAL_MAX]; /* claim `sub`, else "spanmill" */
	int64_t expires_ms; /* claim `exp`, wall clock; a token without one is read again soon */
};

/* The file's token without blanks around it. -1: not readable, empty, too long, or with characters
 * that no token has. Any thread. */
int kafka_token_read(const char *path, struct kafka_token *t, struct err *err);
/* principal and expires_ms from t->text, when it is a JWT; never fails. */
void kafka_token_claims(struct kafka_token *t, uint64_t wall_ns);

#endif
