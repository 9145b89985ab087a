/* SPDX-License-Identifier: Apache-2.0
 *
 * otlp_json_schema.c - see otlp_json_schema.h.
 */
#include "wire/otlp_json_schema.h"

#define FIELD(num, camel, under, kind) \
	{ .number = (num), .name = (camel), .snake = (under), .type = (kind) }
#define LIST(num, camel, under, of) \
	{ .number = (num), .name = (camel), .snake = (under), .type = OTLP_MESSAGE, \
	  .repeated = true, .message = &(of) }
#define ONE(num, camel, under, of, present) \
	{ .number = (num), .name = (camel), .snake = (under), .type = OTLP_MESSAGE, \
	  .message = &(of), .always = (present) }
#define MESSAGE(table) { .fields = (table), .n_fields = COUNT_OF(table) }

static const struct otlp_json_message any_value;
static const struct otlp_json_message key_value;

static const struct otlp_json_field array_value_fields[] = {
	LIST(1, "values", "values", any_value),
};
static const struct otlp_json_message array_value = MESSAGE(array_value_fields);

static const struct otlp_json_field kvlist_value_fields[] = {
	LIST(1, "values", "values", key_value),
};
static const struct otlp_json_message kvlist_value = MESSAGE(kvlist_value_fields);

static const struct otlp_json_field any_value_fields[] = {
	FIELD(1, "stringValue", "string_value", OTLP_STRING),
	FIELD(2, "boolValue", "bool_value", OTLP_BOOL),
	FIELD(3, "intValue", "int_value", OTLP_INT64),
	FIELD(4, "doubleValue", "double_value", OTLP_DOUBLE),
	ONE(5, "arrayValue", "array_value", array_value, false),
	ONE(6, "kvlistValue", "kvlist_value", kvlist_value, false),
	FIELD(7, "bytesValue", "bytes_value", OTLP_BYTES),
};
static const struct otlp_json_message any_value = {
	.fields = any_value_fields, .n_fields = COUNT_OF(any_value_fields), .oneof = true
};

static const struct otlp_json_field key_value_fields[] = {
	FIELD(1, "key", "key", OTLP_STRING),
	ONE(2, "value", "value", any_value, false),
};
static const struct otlp_json_message key_value = MESSAGE(key_value_fields);

static const struct otlp_json_field event_fields[] = {
	FIELD(1, "timeUnixNano", "time_unix_nano", OTLP_FIXED64),
	FIELD(2, "name", "name", OTLP_STRING),
	LIST(3, "attributes", "attributes", key_value),
	FIELD(4, "droppedAttributesCount", "dropped_attributes_count", OTLP_UINT32),
};
static const struct otlp_json_message event = MESSAGE(event_fields);

static const struct otlp_json_field link_fields[] = {
	FIELD(1, "traceId", "trace_id", OTLP_ID),
	FIELD(2, "spanId", "span_id", OTLP_ID),
	FIELD(3, "traceState", "trace_state", OTLP_STRING),
	LIST(4, "attributes", "attributes", key_value),
	FIELD(5, "droppedAttributesCount", "dropped_attributes_count", OTLP_UINT32),
	FIELD(6, "flags", "flags", OTLP_FIXED32),
};
static const struct otlp_json_message link = MESSAGE(link_fields);

static const char *const status_codes[] = {
	"STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR", NULL
};

static const struct otlp_json_field status_fields[] = {
	FIELD(2, "message", "message", OTLP_STRING),
	{ .number = 3, .name = "code", .snake = "code", .type = OTLP_ENUM, .names = status_codes },
};
static const struct otlp_json_message status = MESSAGE(status_fields);

static const char *const span_kinds[] = {
	"SPAN_KIND_UNSPECIFIED", "SPAN_KIND_INTERNAL", "SPAN_KIND_SERVER",
	"SPAN_KIND_CLIENT", "SPAN_KIND_PRODUCER", "SPAN_KIND_CONSUMER", NULL
};

static const struct otlp_json_field span_fields[] = {
	FIELD(1, "traceId", "trace_id", OTLP_ID),
	FIELD(2, "spanId", "span_id", OTLP_ID),
	FIELD(3, "traceState", "trace_state", OTLP_STRING),
	FIELD(4, "parentSpanId", "parent_span_id", OTLP_ID),
	FIELD(5, "name", "name", OTLP_STRING),
	{ .number = 6, .name = "kind", .snake = "kind", .type = OTLP_ENUM, .names = span_kinds },
	FIELD(7, "startTimeUnixNano", "start_time_unix_nano", OTLP_FIXED64),
	FIELD(8, "endTimeUnixNano", "end_time_unix_nano", OTLP_FIXED64),
	LIST(9, "attributes", "attributes", key_value),
	FIELD(10, "droppedAttributesCount", "dropped_attributes_count", OTLP_UINT32),
	LIST(11, "events", "events", event),
	FIELD(12, "droppedEventsCount", "dropped_events_count", OTLP_UINT32),
	LIST(13, "links", "links", link),
	FIELD(14, "droppedLinksCount", "dropped_links_count", OTLP_UINT32),
	ONE(15, "status", "status", status, true),
	FIELD(16, "flags", "flags", OTLP_FIXED32),
};
static const struct otlp_json_message span = MESSAGE(span_fields);

static const struct otlp_json_field scope_fields[] = {
	FIELD(1, "name", "name", OTLP_STRING),
	FIELD(2, "version", "version", OTLP_STRING),
	LIST(3, "attributes", "attributes", key_value),
	FIELD(4, "droppedAttributesCount", "dropped_attributes_count", OTLP_UINT32),
};
static const struct otlp_json_message scope = MESSAGE(scope_fields);

static const struct otlp_json_field scope_spans_fields[] = {
	{ .number = 1, .name = "scope", .snake = "scope", .old_name = "instrumentationLibrary",
	  .old_snake = "instrumentation_library", .type = OTLP_MESSAGE, .message = &scope,
	  .always = true },
	LIST(2, "spans", "spans", span),
	FIELD(3, "schemaUrl", "schema_url", OTLP_STRING),
};
static const struct otlp_json_message scope_spans = MESSAGE(scope_spans_fields);

static const struct otlp_json_field entity_ref_fields[] = {
	FIELD(1, "schemaUrl", "schema_url", OTLP_STRING),
	FIELD(2, "type", "type", OTLP_STRING),
	{ .number = 3, .name = "idKeys", .snake = "id_keys", .type = OTLP_STRING,
	  .repeated = true },
	{ .number = 4, .name = "descriptionKeys", .snake = "description_keys",
	  .type = OTLP_STRING, .repeated = true },
};
static const struct otlp_json_message entity_ref = MESSAGE(entity_ref_fields);

static const struct otlp_json_field resource_fields[] = {
	LIST(1, "attributes", "attributes", key_value),
	FIELD(2, "droppedAttributesCount", "dropped_attributes_count", OTLP_UINT32),
	LIST(3, "entityRefs", "entity_refs", entity_ref),
};
static const struct otlp_json_message resource = MESSAGE(resource_fields);

static const struct otlp_json_field resource_spans_fields[] = {
	ONE(1, "resource", "resource", resource, true),
	{ .number = 2, .name = "scopeSpans", .snake = "scope_spans",
	  .old_name = "instrumentationLibrarySpans", .old_snake = "instrumentation_library_spans",
	  .old_number = 1000, .type = OTLP_MESSAGE, .repeated = true, .message = &scope_spans },
	FIELD(3, "schemaUrl", "schema_url", OTLP_STRING),
};
const struct otlp_json_message otlp_json_resource_spans = MESSAGE(resource_spans_fields);

static const struct otlp_json_field traces_data_fields[] = {
	LIST(1, "resourceSpans", "resource_spans", otlp_json_resource_spans),
};
const struct otlp_json_message otlp_json_traces_data = MESSAGE(traces_data_fields);
