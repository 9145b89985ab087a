/* SPDX-License-Identifier: Apache-2.0
 *
 * ask.h - what components ask the service for (component.h), and what is remembered of it:
 * an instance that asked for an extension or a connector ends before that does.
 *
 * THREADS: any.
 */
#ifndef PIPELINE_SERVICE_ASK_H
#define PIPELINE_SERVICE_ASK_H

#include "pipeline/component.h"

/* One question for an extension or a connector, and what was found. */
struct component_need {
	struct component_need *next;
	enum component_kind kind;
	enum otlp_signal signal;    /* connectors: what the wanted instance takes */
	const char *id, *type_name; /* one of them is NULL */
	struct component *found;    /* or NULL */
};

/* Does a component of this kind, signal, id and type answer the question? */
bool service_ask_is_answer(const struct component_need *need, enum component_kind kind,
			   enum otlp_signal signal, const char *id, const char *type_name);

/* The i-th question of c; false: there are no more. */
bool service_ask_need(const struct component *c, size_t i, struct component_need *out);
/* Forget them; c is ending. */
void service_ask_forget(struct component *c);

#endif
