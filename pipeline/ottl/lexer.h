/* SPDX-License-Identifier: Apache-2.0
 *
 * lexer.h - words of a condition.
 *
 * OWNERSHIP: borrows the text; a string with escapes is made in the arena. One thread.
 * SPEC: the Collector's pkg/ottl, lexer.
 */
#ifndef PIPELINE_OTTL_LEXER_H
#define PIPELINE_OTTL_LEXER_H

#include "base/arena.h"
#include "base/base.h"
#include "base/err.h"

enum ottl_token_kind {
	TOKEN_END,
	TOKEN_NAME,
	TOKEN_STRING,
	TOKEN_INT,
	TOKEN_FLOAT,
	TOKEN_BYTES,
	TOKEN_MARK, /* one of == != <= >= < > ( ) [ ] , . + - * / */
};

struct ottl_token {
	enum ottl_token_kind kind;
	struct bytes text; /* as written; STRING and BYTES: what it stands for */
	size_t at;	   /* character it begins with, from 1 */
	int64_t i;
	double d;
};

struct ottl_lexer {
	struct bytes rest;
	const uint8_t *start;
	struct arena *arena;
};

/* The next token; -1 with "character N: ...". */
int ottl_lexer_next(struct ottl_lexer *l, struct ottl_token *t, struct err *err);

#endif
