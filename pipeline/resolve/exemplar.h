/* SPDX-License-Identifier: Apache-2.0
 *
 * exemplar.h - T_guard: the threshold that no sampler of the fleet may pass, so that a trace
 * with R >= T_guard is stored whoever saw it (docs/exemplars.md).
 *
 * It is service.exemplar_guard, a keep rate; else the lowest rate of the process: of all paths
 * through pipelines and the connectors between them, proportional samplers multiply, equalizing
 * ones take the minimum; at least 1/1024. Without samplers it is 1: nothing here drops, and who
 * samples elsewhere sets exemplar_guard everywhere.
 *
 * It holds where exemplars come from or through the process, or exemplar_guard is set: then a
 * sampler below it is an error, as is one that keeps nothing or decides by a randomness of its own
 * (hash_seed), and samplers do not pass it while they run, whatever th comes in.
 */
#ifndef PIPELINE_RESOLVE_EXEMPLAR_H
#define PIPELINE_RESOLVE_EXEMPLAR_H

#include "pipeline/resolve/pipelines.h"

/* Sets config->exemplar_th and ->sampled_ratio. For a configuration without errors so far. */
void conf_exemplar_check(struct conf_check *k);

#endif
