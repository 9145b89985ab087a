/* SPDX-License-Identifier: Apache-2.0
 *
 * telemetry.c - see telemetry.h. What walks the components is service_telemetry.c.
 */
#include "pipeline/telemetry.h"

#include "base/mem.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

struct transport_counters *telemetry_transport(struct component *c, const char *transport)
{
	for (int i = 0; i < MAX_TRANSPORTS; i++) {
		struct transport_counters *t = &c->count->transports[i];

		if (t->transport != NULL && strcmp(t->transport, transport) == 0)
			return t;
		if (t->transport == NULL) {
			t->transport = transport;
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
static void add_label_value(struct buf *out, const char *v)
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
		add_label_value(out, value);
		buf_add_char(out, '"');
		open = ',';
	}
	va_end(ap);
	if (open == ',')
		buf_add_char(out, '}');
	if (v == floor(v) && fabs(v) < 1e15)
		buf_printf(out, " %.0f\n", v);
	else
		buf_printf(out, " %.17g\n", v);
}
