/* SPDX-License-Identifier: Apache-2.0
 *
 * telemetry.c - see telemetry.h. What walks the components is service/telemetry_page.c.
 */
#include "pipeline/telemetry.h"

#include "pipeline/registry.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

struct transport_counters *telemetry_transport(struct component *c, const char *transport)
{
	return telemetry_transport_of(c, transport, OTLP_TRACES);
}

struct transport_counters *telemetry_transport_of(struct component *c, const char *transport,
						  enum otlp_signal signal)
{
	for (int i = 0; i < MAX_TRANSPORTS; i++) {
		struct transport_counters *t = &c->count->transports[i];

		if (t->transport != NULL && t->signal == signal &&
		    strcmp(t->transport, transport) == 0)
			return t;
		if (t->transport == NULL) {
			t->transport = transport;
			t->signal = signal;
			return t;
		}
	}
	assert(!"more transports than MAX_TRANSPORTS");
	return NULL;
}

void telemetry_head(struct buf *out, const char *name, const char *kind, const char *help)
{
	buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind);
}

/* Label values: backslash, quote and newline are escaped (text format 0.0.4). */
void telemetry_label_value(struct buf *out, const char *v)
{
	for (; *v; v++) {
		if (*v == '\n') {
			buf_add_str(out, "\\n");
			continue;
		}
		if (*v == '"' || *v == '\\')
			buf_add_char(out, '\\');
		buf_add_char(out, *v);
	}
}

static void add_value(struct buf *out, double v)
{
	char text[40];

	snprintf(text, sizeof(text), v == floor(v) && fabs(v) < 1e15 ? "%.0f" : "%.15g", v);
	buf_printf(out, " %s\n", text);
}

void telemetry_segment_log(struct buf *out, const struct component *c, uint64_t lost,
			   uint64_t quarantined)
{
	telemetry_head(out, "spanmill_log_lost_records", "counter",
		       "Records of the log that damage took: acknowledged requests.");
	telemetry_sample(out, "spanmill_log_lost_records", (double)lost, "exporter", c->id, NULL);
	telemetry_head(out, "spanmill_log_quarantined_files", "counter",
		       "Damaged files of the log that were moved to quarantine.");
	telemetry_sample(out, "spanmill_log_quarantined_files", (double)quarantined, "exporter",
			 c->id, NULL);
}

void telemetry_sample(struct buf *out, const char *name, double v, ...)
{
	const char *label;
	char open = '{';
	va_list ap;

	buf_add_str(out, name);
	va_start(ap, v);
	while ((label = va_arg(ap, const char *)) != NULL) {
		const char *value = va_arg(ap, const char *);

		if (value == NULL || *value == '\0')
			continue;
		buf_printf(out, "%c%s=\"", open, label);
		telemetry_label_value(out, value);
		buf_add_char(out, '"');
		open = ',';
	}
	va_end(ap);
	if (open == ',')
		buf_add_char(out, '}');
	add_value(out, v);
}

void telemetry_observe(struct telemetry_histogram *h, uint64_t v)
{
	size_t i = 0;

	while (i < h->n_bounds && v > h->bounds[i])
		i++;
	atomic_fetch_add_explicit(&h->counts[i], 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&h->sum, v, memory_order_relaxed);
}

void telemetry_histogram(struct buf *out, const char *name, const struct telemetry_histogram *h,
			 const struct component *c)
{
	const char *kind = registry_kind_name(c->type->kind);
	uint64_t n = 0;
	char text[96], bound[24];

	snprintf(text, sizeof(text), "%s_bucket", name);
	for (size_t i = 0; i <= h->n_bounds; i++) {
		n += atomic_load_explicit(&h->counts[i], memory_order_relaxed);
		if (i < h->n_bounds)
			snprintf(bound, sizeof(bound), "%llu", (unsigned long long)h->bounds[i]);
		telemetry_sample(out, text, (double)n, kind, c->id, "pipeline", c->pipeline, "le",
				 i < h->n_bounds ? bound : "+Inf", NULL);
	}
	snprintf(text, sizeof(text), "%s_sum", name);
	telemetry_sample(out, text, (double)atomic_load_explicit(&h->sum, memory_order_relaxed),
			 kind, c->id, "pipeline", c->pipeline, NULL);
	snprintf(text, sizeof(text), "%s_count", name);
	telemetry_sample(out, text, (double)n, kind, c->id, "pipeline", c->pipeline, NULL);
}
