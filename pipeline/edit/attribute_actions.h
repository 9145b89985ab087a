/* SPDX-License-Identifier: Apache-2.0
 *
 * attribute_actions.h - the `actions` list of the attributes and resource processors: insert,
 * update, upsert, delete, hash, extract, convert, one after the other.
 *
 * OWNERSHIP: attribute_actions_new borrows the parsed options, which live as long as the component.
 * THREADS: immutable once made; apply on any thread. SPEC: the Collector's attributes processor.
 */
#ifndef PIPELINE_EDIT_ATTRIBUTE_ACTIONS_H
#define PIPELINE_EDIT_ATTRIBUTE_ACTIONS_H

#include "base/err.h"
#include "pipeline/option/option.h"
#include "wire/attr_edit.h"

struct attribute_actions;

/* One item of the list, as written. */
struct attribute_action_options {
	const char *key, *pattern, *from_attribute, *converted_type;
	const struct conf_node *value, *default_value;
	int action;
};
extern const struct option attribute_action_table[];

/* What a row cannot say: which keys an action needs. `list_key` is the option's ("actions"), `node`
 * and `path` those of the component. */
void attribute_actions_check(const struct option_list *list, const struct conf_node *node,
			     struct conf_errors *errs, const char *path, const char *list_key);
/* NULL with a reason (a pattern that does not compile). */
struct attribute_actions *attribute_actions_new(const struct option_list *list, struct err *err);
void attribute_actions_free(struct attribute_actions *a);
void attribute_actions_apply(const struct attribute_actions *a, struct attr_edit *e);

#endif
