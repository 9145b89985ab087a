/* SPDX-License-Identifier: Apache-2.0
 *
 * prometheus.c - see prometheus.h.
 */
#include "pipeline/option/prometheus.h"

enum { SET = 1 };

static const struct option_choice strategies[] = {
	{ "UnderscoreEscapingWithSuffixes", SET + PROMETHEUS_UNDERSCORE_SUFFIXES },
	{ "UnderscoreEscapingWithoutSuffixes", SET + PROMETHEUS_UNDERSCORE_PLAIN },
	{ "NoUTF8EscapingWithSuffixes", SET + PROMETHEUS_UTF8_SUFFIXES },
	{ "NoTranslation", SET + PROMETHEUS_UTF8_PLAIN },
	{ NULL, 0 },
};

#define C struct prometheus_options
const struct option prometheus_option_table[] = {
	OPT_STR(C, "namespace", namespace, "", "Goes before every metric's name, with a '_'."),
	OPT_BOOL(C, "add_metric_suffixes", add_metric_suffixes, "true",
		 "Units and types as suffixes of names; translation_strategy says more."),
	OPT_ENUM(C, "translation_strategy", translation_strategy, strategies, NULL,
		 "How names are made: with or without escaping of what is not a letter, with or "
		 "without suffixes. Unset: by add_metric_suffixes."),
	OPT_BOOL(C, "resource_to_telemetry_conversion.enabled", resource_to_telemetry, "false",
		 "Resource attributes as labels of every series."),
	OPT_END
};
#undef C

struct prometheus_naming prometheus_options_naming(const struct prometheus_options *o)
{
	int strategy = o->add_metric_suffixes ? PROMETHEUS_UNDERSCORE_SUFFIXES
					      : PROMETHEUS_UNDERSCORE_PLAIN;

	if (o->translation_strategy != 0)
		strategy = o->translation_strategy - SET;
	return prometheus_naming(o->namespace, (enum prometheus_strategy)strategy);
}
