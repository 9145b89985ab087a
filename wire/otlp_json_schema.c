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

/* ---- logs ---- */

#define LEVELS(n) "SEVERITY_NUMBER_" n, "SEVERITY_NUMBER_" n "2", "SEVERITY_NUMBER_" n "3", \
		  "SEVERITY_NUMBER_" n "4"

static const char *const severities[] = {
	"SEVERITY_NUMBER_UNSPECIFIED", LEVELS("TRACE"), LEVELS("DEBUG"), LEVELS("INFO"),
	LEVELS("WARN"), LEVELS("ERROR"), LEVELS("FATAL"), NULL
};

static const struct otlp_json_field log_record_fields[] = {
	FIELD(1, "timeUnixNano", "time_unix_nano", OTLP_FIXED64),
	{ .number = 2, .name = "severityNumber", .snake = "severity_number", .type = OTLP_ENUM,
	  .names = severities },
	FIELD(3, "severityText", "severity_text", OTLP_STRING),
	ONE(5, "body", "body", any_value, false),
	LIST(6, "attributes", "attributes", key_value),
	FIELD(7, "droppedAttributesCount", "dropped_attributes_count", OTLP_UINT32),
	FIELD(8, "flags", "flags", OTLP_FIXED32),
	FIELD(9, "traceId", "trace_id", OTLP_ID),
	FIELD(10, "spanId", "span_id", OTLP_ID),
	FIELD(11, "observedTimeUnixNano", "observed_time_unix_nano", OTLP_FIXED64),
	FIELD(12, "eventName", "event_name", OTLP_STRING),
};
static const struct otlp_json_message log_record = MESSAGE(log_record_fields);

static const struct otlp_json_field scope_logs_fields[] = {
	ONE(1, "scope", "scope", scope, true),
	LIST(2, "logRecords", "log_records", log_record),
	FIELD(3, "schemaUrl", "schema_url", OTLP_STRING),
};
static const struct otlp_json_message scope_logs = MESSAGE(scope_logs_fields);

static const struct otlp_json_field resource_logs_fields[] = {
	ONE(1, "resource", "resource", resource, true),
	LIST(2, "scopeLogs", "scope_logs", scope_logs),
	FIELD(3, "schemaUrl", "schema_url", OTLP_STRING),
};
static const struct otlp_json_message resource_logs = MESSAGE(resource_logs_fields);

static const struct otlp_json_field logs_data_fields[] = {
	LIST(1, "resourceLogs", "resource_logs", resource_logs),
};
static const struct otlp_json_message logs_data = MESSAGE(logs_data_fields);

/* ---- metrics ---- */

#define PRESENT(num, camel, under, kind) \
	{ .number = (num), .name = (camel), .snake = (under), .type = (kind), .presence = true }
#define PACKED(num, camel, under, kind) \
	{ .number = (num), .name = (camel), .snake = (under), .type = (kind), .repeated = true, \
	  .packed = true }

static const struct otlp_json_field exemplar_fields[] = {
	FIELD(2, "timeUnixNano", "time_unix_nano", OTLP_FIXED64),
	PRESENT(3, "asDouble", "as_double", OTLP_DOUBLE),
	FIELD(4, "spanId", "span_id", OTLP_ID),
	FIELD(5, "traceId", "trace_id", OTLP_ID),
	PRESENT(6, "asInt", "as_int", OTLP_SFIXED64),
	LIST(7, "filteredAttributes", "filtered_attributes", key_value),
};
static const struct otlp_json_message exemplar = MESSAGE(exemplar_fields);

static const struct otlp_json_field number_point_fields[] = {
	FIELD(2, "startTimeUnixNano", "start_time_unix_nano", OTLP_FIXED64),
	FIELD(3, "timeUnixNano", "time_unix_nano", OTLP_FIXED64),
	PRESENT(4, "asDouble", "as_double", OTLP_DOUBLE),
	LIST(5, "exemplars", "exemplars", exemplar),
	PRESENT(6, "asInt", "as_int", OTLP_SFIXED64),
	LIST(7, "attributes", "attributes", key_value),
	FIELD(8, "flags", "flags", OTLP_UINT32),
};
static const struct otlp_json_message number_point = MESSAGE(number_point_fields);

static const struct otlp_json_field histogram_point_fields[] = {
	FIELD(2, "startTimeUnixNano", "start_time_unix_nano", OTLP_FIXED64),
	FIELD(3, "timeUnixNano", "time_unix_nano", OTLP_FIXED64),
	FIELD(4, "count", "count", OTLP_FIXED64),
	PRESENT(5, "sum", "sum", OTLP_DOUBLE),
	PACKED(6, "bucketCounts", "bucket_counts", OTLP_FIXED64),
	PACKED(7, "explicitBounds", "explicit_bounds", OTLP_DOUBLE),
	LIST(8, "exemplars", "exemplars", exemplar),
	LIST(9, "attributes", "attributes", key_value),
	FIELD(10, "flags", "flags", OTLP_UINT32),
	PRESENT(11, "min", "min", OTLP_DOUBLE),
	PRESENT(12, "max", "max", OTLP_DOUBLE),
};
static const struct otlp_json_message histogram_point = MESSAGE(histogram_point_fields);

static const struct otlp_json_field buckets_fields[] = {
	FIELD(1, "offset", "offset", OTLP_SINT32),
	PACKED(2, "bucketCounts", "bucket_counts", OTLP_UINT64),
};
static const struct otlp_json_message buckets = MESSAGE(buckets_fields);

static const struct otlp_json_field exponential_point_fields[] = {
	LIST(1, "attributes", "attributes", key_value),
	FIELD(2, "startTimeUnixNano", "start_time_unix_nano", OTLP_FIXED64),
	FIELD(3, "timeUnixNano", "time_unix_nano", OTLP_FIXED64),
	FIELD(4, "count", "count", OTLP_FIXED64),
	PRESENT(5, "sum", "sum", OTLP_DOUBLE),
	FIELD(6, "scale", "scale", OTLP_SINT32),
	FIELD(7, "zeroCount", "zero_count", OTLP_FIXED64),
	ONE(8, "positive", "positive", buckets, false),
	ONE(9, "negative", "negative", buckets, false),
	FIELD(10, "flags", "flags", OTLP_UINT32),
	LIST(11, "exemplars", "exemplars", exemplar),
	PRESENT(12, "min", "min", OTLP_DOUBLE),
	PRESENT(13, "max", "max", OTLP_DOUBLE),
	FIELD(14, "zeroThreshold", "zero_threshold", OTLP_DOUBLE),
};
static const struct otlp_json_message exponential_point = MESSAGE(exponential_point_fields);

static const struct otlp_json_field quantile_fields[] = {
	FIELD(1, "quantile", "quantile", OTLP_DOUBLE),
	FIELD(2, "value", "value", OTLP_DOUBLE),
};
static const struct otlp_json_message quantile = MESSAGE(quantile_fields);

static const struct otlp_json_field summary_point_fields[] = {
	FIELD(2, "startTimeUnixNano", "start_time_unix_nano", OTLP_FIXED64),
	FIELD(3, "timeUnixNano", "time_unix_nano", OTLP_FIXED64),
	FIELD(4, "count", "count", OTLP_FIXED64),
	FIELD(5, "sum", "sum", OTLP_DOUBLE),
	LIST(6, "quantileValues", "quantile_values", quantile),
	LIST(7, "attributes", "attributes", key_value),
	FIELD(8, "flags", "flags", OTLP_UINT32),
};
static const struct otlp_json_message summary_point = MESSAGE(summary_point_fields);

static const char *const temporalities[] = {
	"AGGREGATION_TEMPORALITY_UNSPECIFIED", "AGGREGATION_TEMPORALITY_DELTA",
	"AGGREGATION_TEMPORALITY_CUMULATIVE", NULL
};
#define TEMPORALITY { .number = 2, .name = "aggregationTemporality", \
		      .snake = "aggregation_temporality", .type = OTLP_ENUM, \
		      .names = temporalities }

static const struct otlp_json_field gauge_fields[] = {
	LIST(1, "dataPoints", "data_points", number_point),
};
static const struct otlp_json_message gauge = MESSAGE(gauge_fields);

static const struct otlp_json_field sum_fields[] = {
	LIST(1, "dataPoints", "data_points", number_point),
	TEMPORALITY,
	FIELD(3, "isMonotonic", "is_monotonic", OTLP_BOOL),
};
static const struct otlp_json_message sum = MESSAGE(sum_fields);

static const struct otlp_json_field histogram_fields[] = {
	LIST(1, "dataPoints", "data_points", histogram_point),
	TEMPORALITY,
};
static const struct otlp_json_message histogram = MESSAGE(histogram_fields);

static const struct otlp_json_field exponential_fields[] = {
	LIST(1, "dataPoints", "data_points", exponential_point),
	TEMPORALITY,
};
static const struct otlp_json_message exponential = MESSAGE(exponential_fields);

static const struct otlp_json_field summary_fields[] = {
	LIST(1, "dataPoints", "data_points", summary_point),
};
static const struct otlp_json_message summary = MESSAGE(summary_fields);

static const struct otlp_json_field metric_fields[] = {
	FIELD(1, "name", "name", OTLP_STRING),
	FIELD(2, "description", "description", OTLP_STRING),
	FIELD(3, "unit", "unit", OTLP_STRING),
	ONE(5, "gauge", "gauge", gauge, false),
	ONE(7, "sum", "sum", sum, false),
	ONE(9, "histogram", "histogram", histogram, false),
	ONE(10, "exponentialHistogram", "exponential_histogram", exponential, false),
	ONE(11, "summary", "summary", summary, false),
	LIST(12, "metadata", "metadata", key_value),
};
static const struct otlp_json_message metric = MESSAGE(metric_fields);

static const struct otlp_json_field scope_metrics_fields[] = {
	ONE(1, "scope", "scope", scope, true),
	LIST(2, "metrics", "metrics", metric),
	FIELD(3, "schemaUrl", "schema_url", OTLP_STRING),
};
static const struct otlp_json_message scope_metrics = MESSAGE(scope_metrics_fields);

static const struct otlp_json_field resource_metrics_fields[] = {
	ONE(1, "resource", "resource", resource, true),
	LIST(2, "scopeMetrics", "scope_metrics", scope_metrics),
	FIELD(3, "schemaUrl", "schema_url", OTLP_STRING),
};
static const struct otlp_json_message resource_metrics = MESSAGE(resource_metrics_fields);

static const struct otlp_json_field metrics_data_fields[] = {
	LIST(1, "resourceMetrics", "resource_metrics", resource_metrics),
};
static const struct otlp_json_message metrics_data = MESSAGE(metrics_data_fields);

const struct otlp_json_message *const otlp_json_roots[OTLP_SIGNALS] = {
	[OTLP_TRACES] = &otlp_json_traces_data,
	[OTLP_METRICS] = &metrics_data,
	[OTLP_LOGS] = &logs_data,
};
