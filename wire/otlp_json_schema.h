/* SPDX-License-Identifier: Apache-2.0
 *
 * otlp_json_schema.h - the messages of OTLP as tables: JSON key, field number, type.
 *
 * DESIGN: one table drives both directions (otlp_json_decode, otlp_json_encode), so they cannot
 * drift apart. protobuf-c's descriptors would do, but decoding through them unpacks a tree first. A
 * message's fields stand in field-number order: the order in which both directions write.
 * OWNERSHIP, THREADS: constant data, any thread.
 * SPEC: opentelemetry-proto trace/v1, logs/v1, metrics/v1, common/v1, resource/v1; OTLP "JSON
 * Protobuf Encoding".
 */
#ifndef WIRE_OTLP_JSON_SCHEMA_H
#define WIRE_OTLP_JSON_SCHEMA_H

#include "base/base.h"
#include "wire/span.h"

enum otlp_json_type {
	OTLP_STRING,
	OTLP_ID,	/* bytes; hex in OTLP/JSON */
	OTLP_BYTES,	/* bytes; base64 */
	OTLP_BOOL,
	OTLP_INT64,	/* varint */
	OTLP_UINT32,	/* varint */
	OTLP_UINT64,	/* varint */
	OTLP_SINT32,	/* varint, zigzag */
	OTLP_FIXED32,
	OTLP_FIXED64,
	OTLP_SFIXED64,
	OTLP_DOUBLE,
	OTLP_ENUM,
	OTLP_MESSAGE,
};

struct otlp_json_message;

struct otlp_json_field {
	const char *name;	/* lowerCamelCase, what we write */
	const char *snake;	/* also read */
	const char *old_name;	/* also read, when `name` brought nothing; NULL: none */
	const char *old_snake;
	const struct otlp_json_message *message;	/* MESSAGE: of what */
	const char *const *names;	/* ENUM: by value, ends in NULL */
	uint16_t number;
	uint16_t old_number;	/* read when `number` is not there; 0: none */
	uint8_t type;		/* enum otlp_json_type */
	bool repeated;
	bool packed;		/* repeated numbers: written as one field, read in both forms */
	bool presence;		/* of a oneof, or optional: zero is a value and is written */
	bool always;		/* OTLP/JSON writes {} when absent, as the Collector does */
};

struct otlp_json_message {
	const struct otlp_json_field *fields;
	size_t n_fields;
	bool oneof;		/* AnyValue: zero values count, the last member wins */
};

/* TracesData, MetricsData, LogsData: one field each, the list of resources. */
extern const struct otlp_json_message *const otlp_json_roots[OTLP_SIGNALS];
extern const struct otlp_json_message otlp_json_traces_data;
extern const struct otlp_json_message otlp_json_resource_spans;

#endif
