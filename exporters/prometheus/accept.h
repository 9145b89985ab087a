/* SPDX-License-Identifier: Apache-2.0
 *
 * accept.h - which form of the page a scraper gets, by its Accept header.
 *
 * THREADS: pure functions, any thread. SPEC: RFC 9110 12.5.1; OpenMetrics 1.0 and the Prometheus
 * text formats' content types; docs/components/prometheus.md.
 */
#ifndef EXPORTERS_PROMETHEUS_ACCEPT_H
#define EXPORTERS_PROMETHEUS_ACCEPT_H

#include "base/base.h"

enum page_kind { PAGE_TEXT_0_0_4, PAGE_TEXT_1_0_0, PAGE_OPEN_0_0_1, PAGE_OPEN_1_0_0 };

struct page_form {
	enum page_kind kind;
	bool is_utf8; /* escaping=allow-utf-8: names need not be escaped */
};

static inline bool page_form_is_open(const struct page_form *f)
{
	return f->kind == PAGE_OPEN_0_0_1 || f->kind == PAGE_OPEN_1_0_0;
}

/* The form with the highest q that we have; of equals the first. Where none is, and without a
 * header (NULL): text 0.0.4. allow_open: false leaves OpenMetrics out. */
struct page_form accept_choose(const char *accept, bool allow_open);
/* What Content-Type says. */
const char *accept_content_type(const struct page_form *f);

#endif
