/* SPDX-License-Identifier: Apache-2.0
 *
 * families.c - see families.h.
 */
#include "connectors/spanmetrics/families.h"

#include "base/clock.h"

const char *families_kind_text(uint8_t kind)
{
	static const char *const texts[] = { "SPAN_KIND_UNSPECIFIED", "SPAN_KIND_INTERNAL",
					     "SPAN_KIND_SERVER",      "SPAN_KIND_CLIENT",
					     "SPAN_KIND_PRODUCER",    "SPAN_KIND_CONSUMER" };

	return texts[kind < COUNT_OF(texts) ? kind : 0];
}

const char *families_status_text(uint8_t status)
{
	static const char *const texts[] = { "STATUS_CODE_UNSET", "STATUS_CODE_OK",
					     "STATUS_CODE_ERROR" };

	return texts[status < COUNT_OF(texts) ? status : 0];
}

static const char *const otel_labels[LABEL_MAX] = { "service.name", "span.name", "span.kind",
						    "status.code" };
static const char *const tempo_labels[LABEL_MAX] = { "service", "span_name", "span_kind",
						     "status_code" };

static const char *named(const char *namespace, const char *name, struct arena *arena)
{
	return namespace[0] != '\0' ? arena_printf(arena, "%s.%s", namespace, name) : name;
}

static void name_otel(struct families *f, const char *namespace, bool is_ms, struct arena *arena)
{
	f->metrics[SPAN_METRIC_CALLS].name = named(namespace, "calls", arena);
	f->metrics[SPAN_METRIC_DURATION].name = named(namespace, "duration", arena);
	f->metrics[SPAN_METRIC_DURATION].unit = is_ms ? "ms" : "s";
	f->metrics[SPAN_METRIC_EVENTS].name = named(namespace, "events", arena);
}

/* Without a unit: the exporters would add it to the names. */
static void name_tempo(struct families *f)
{
	f->metrics[SPAN_METRIC_CALLS].name = "traces_spanmetrics_calls";
	f->metrics[SPAN_METRIC_DURATION].name = "traces_spanmetrics_latency";
	f->metrics[SPAN_METRIC_SIZE].name = "traces_spanmetrics_size";
	f->metrics[SPAN_METRIC_EVENTS].name = "traces_spanmetrics_events";
}

void families_init(struct families *f, const struct families_options *o, struct arena *arena)
{
	const char *const *labels = o->names == NAMES_TEMPO ? tempo_labels : otel_labels;

	memset(f, 0, sizeof(*f));
	for (int m = 0; m < SPAN_METRIC_MAX; m++)
		f->metrics[m].unit = "";
	if (o->names == NAMES_TEMPO)
		name_tempo(f);
	else
		name_otel(f, o->namespace, o->is_ms, arena);
	if (!o->has_histogram)
		f->metrics[SPAN_METRIC_DURATION].name = NULL;
	if (!o->has_events)
		f->metrics[SPAN_METRIC_EVENTS].name = NULL;
	if (o->has_hosts) {
		f->metrics[SPAN_METRIC_HOST_CALLS].name = "traces.host.calls";
		f->metrics[SPAN_METRIC_HOST_LATENCY].name = "traces.host.latency";
		f->metrics[SPAN_METRIC_HOST_LATENCY].unit = "s";
	}
	for (int l = 0; l < LABEL_MAX; l++) {
		bool excluded = false;

		for (size_t i = 0; i < o->n_excluded; i++)
			excluded |= strcmp(o->excluded[i], otel_labels[l]) == 0;
		f->labels[l] = excluded ? NULL : labels[l];
	}
	f->ns_per_unit = (double)(o->is_ms && o->names == NAMES_OTEL ? NS_PER_MS : NS_PER_S);
}
