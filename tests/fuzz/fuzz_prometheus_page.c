/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_prometheus_page.c - any metrics as a page in every form: it is UTF-8, every line is a
 * comment or a sample with balanced quotes, no sample stands there twice, OpenMetrics ends with
 * `# EOF`. The first byte chooses the options; any bytes as an Accept header.
 */
#include "exporters/prometheus/ingest.h"
#include "exporters/prometheus/page.h"
#include "base/str.h"
#include "tests/unit/otlp_fixture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { OPT_STRATEGY = 3, OPT_RESOURCE = 4, OPT_SCOPE = 8, OPT_TENANT = 16, OPT_TIMES = 32 };

/* The end of what a line is known by: `name{labels}`. */
static size_t check_sample(const char *line, size_t n)
{
	bool is_quoted = false, is_open = false;
	size_t i;

	assert(n > 2 && line[0] != ' ');
	for (i = 0; i < n && (is_quoted || is_open || line[i] != ' '); i++) {
		if (is_quoted && line[i] == '\\')
			i++;
		else if (line[i] == '"')
			is_quoted = !is_quoted;
		else if (!is_quoted && (line[i] == '{' || line[i] == '}'))
			is_open = line[i] == '{';
	}
	assert(i + 1 < n && line[i] == ' ' && !is_quoted && !is_open);
	return i;
}

static int compare(const void *a, const void *b)
{
	const struct bytes *x = a, *y = b;
	int d = memcmp(x->p, y->p, MIN(x->n, y->n));

	return d != 0 ? d : (x->n > y->n) - (x->n < y->n);
}

static void check_page(const struct buf *page, bool is_open, bool may_double)
{
	struct bytes *seen = xmalloc((page->n + 1) * sizeof(*seen));
	const char *at = page->n > 0 ? (const char *)page->p : "", *end = at + page->n, *next;
	size_t n = 0;

	assert(str_is_utf8(buf_bytes(page)) && (page->n == 0 || end[-1] == '\n'));
	for (; at < end; at = next + 1) {
		next = memchr(at, '\n', (size_t)(end - at));
		assert(next != NULL && memchr(at, '\0', (size_t)(next - at)) == NULL);
		if (at[0] != '#')
			seen[n++] = (struct bytes){ (const uint8_t *)at,
						    check_sample(at, (size_t)(next - at)) };
		else
			assert(next == end - 1 || strncmp(at, "# EOF", 5) != 0);
	}
	assert(!is_open || (page->n >= 6 && memcmp(end - 6, "# EOF\n", 6) == 0));
	qsort(seen, n, sizeof(*seen), compare);
	for (size_t i = 1; i < n && !may_double; i++)
		assert(compare(&seen[i - 1], &seen[i]) != 0);
	free(seen);
}

static void check_request(struct bytes request, uint8_t how)
{
	struct ingest_options o = {
		.naming = prometheus_naming("", (enum prometheus_strategy)(how & OPT_STRATEGY)),
		.resource_labels = how & OPT_RESOURCE,
		.without_scope = how & OPT_SCOPE,
	};
	struct page_options p = { .timestamps = how & OPT_TIMES, .is_scrape = true };
	struct ingest_result result;
	struct buf page = BUF_INIT;
	struct indexed x;
	struct store s;

	store_init(&s, NULL);
	if (indexed_init_items(&x, OTLP_METRICS, request) == 0) {
		for (int twice = 0; twice < 2; twice++)
			ingest(&s, &o, &x.t, how & OPT_TENANT ? "team" : NULL, &result);
		for (int kind = 0; kind < 8; kind++) {
			buf_reset(&page);
			p.form.kind = (enum page_kind)(kind / 2);
			p.form.is_utf8 = kind % 2;
			page_write(&s, &p, &page);
			/* Names that escaping makes equal may meet. */
			check_page(&page, page_form_is_open(&p.form),
				   o.naming.is_utf8 && !p.form.is_utf8);
		}
		store_sweep(&s, 1);
		assert(atomic_load(&s.n_series) == 0);
	}
	indexed_fini(&x);
	store_fini(&s);
	buf_fini(&page);
}

static void check_accept(struct bytes text)
{
	char *accept = xstrndup((const char *)text.p, text.n);
	struct page_form f = accept_choose(accept, true);

	assert(strstr(accept_content_type(&f), "charset=utf-8") != NULL);
	free(accept);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bytes rest;

	if (size < 2 || size > 65536)
		return 0;
	rest = (struct bytes){ data + 1, size - 1 };
	check_accept(rest);
	check_request(rest, data[0]);
	return 0;
}
