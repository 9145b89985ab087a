/* SPDX-License-Identifier: Apache-2.0
 *
 * service_ask.h - what components ask the service for (component.h), and what is remembered of it:
 * an instance that borrows from an extension ends before that does.
 *
 * THREADS: any.
 */
#ifndef PIPELINE_SERVICE_ASK_H
#define PIPELINE_SERVICE_ASK_H

#include "pipeline/component.h"

/* One question for an extension, and what was found. */
struct component_need {
	struct component_need *next;
	const char *id, *type_name; /* one of them is NULL */
	struct component *found;    /* or NULL */
};

/* The i-th question of c; false: there are no more. */
bool service_ask_need(const struct component *c, size_t i, struct component_need *out);
/* Forget them; c is ending. */
void service_ask_forget(struct component *c);

#endif
