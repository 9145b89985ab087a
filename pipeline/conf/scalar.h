/* SPDX-License-Identifier: Apache-2.0
 *
 * scalar.h - what the text of a YAML scalar means: null, bool, number, duration, size. Pure,
 * any thread.
 *
 * SPEC: YAML 1.2 core schema with the additions the Collector's parser makes (0b, underscores,
 * leading-zero octal); durations are Go's time.ParseDuration; sizes are our own (INTERFACE.md "Own
 * components' keys").
 */
#ifndef PIPELINE_CONF_SCALAR_H
#define PIPELINE_CONF_SCALAR_H

#include "base/base.h"
#include "base/buf.h"

enum conf_type { CONF_TYPE_NULL, CONF_TYPE_BOOL, CONF_TYPE_INT, CONF_TYPE_FLOAT, CONF_TYPE_STRING };

/* A number as YAML reads it; |value| of an int is in `magnitude`. */
struct conf_number {
	bool negative;
	uint64_t magnitude;
	double real; /* set for both INT and FLOAT */
};

/* The type of an unquoted scalar; *number (may be NULL) is filled for INT and FLOAT. */
enum conf_type conf_scalar_type(const char *text, struct conf_number *number);
/* After conf_scalar_type said BOOL. */
bool conf_scalar_bool(const char *text);
/* Go duration to nanoseconds. 0, or -1 and a reason in Go's words in why. */
int conf_scalar_duration(const char *text, int64_t *ns, char *why, size_t why_size);
/* "1048576", "64KiB", "128 MiB", "1.5GiB" to bytes. 0 or -1. */
int conf_scalar_bytes(const char *text, uint64_t *bytes);
/* The shortest usual spelling: 1h30m, 200ms, 0s. */
void conf_scalar_add_duration(struct buf *out, int64_t ns);
/* 128MiB when it divides evenly, else the plain number. */
void conf_scalar_add_bytes(struct buf *out, uint64_t bytes);

#endif
