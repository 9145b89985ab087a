/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_otlp_metrics.c - any bytes as an ExportMetricsServiceRequest: the walk of the request and
 * the walk of its items say the same, and what is sound survives the writer, twice to the byte. As
 * remote write every point is in a request or counted, and requests are what a receiver takes. The
 * last byte chooses how names are made.
 */
#include "tests/unit/metrics_fixture.h"
#include "tests/unit/otlp_fixture.h"
#include "tests/unit/remote_write_check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int copy_of(struct bytes request, struct buf *out)
{
	struct metrics_reader r;
	struct metrics_writer w;

	metrics_reader_request(&r, request);
	metrics_writer_init(&w, out);
	return copy_metrics(&r, &w);
}

static int text_of(struct bytes request, bool with_faulty, struct buf *out)
{
	struct metrics_reader r;

	metrics_reader_request(&r, request);
	return dump_metrics(&r, with_faulty, out);
}

static void check_written(const struct span_tables *t, uint8_t form)
{
	const struct remote_write_external external = { BYTES_LIT("le"), BYTES_LIT("x") };
	const struct remote_write_options o = {
		.naming = prometheus_naming(form & 4 ? "a.b" : "",
					    (enum prometheus_strategy)(form & 3)),
		.external = &external,
		.n_external = form >> 7,
		.target_info = true,
		.metadata = true,
		.resource_labels = form & 8,
		.scope_labels = form & 16,
		.max_bytes = 256,
	};

	check_remote_write(t, &o);
}

/* Only what the index takes: it merges resources in pieces, and leaves out what holds no items. */
static void check_items(struct bytes request)
{
	struct buf walked = BUF_INIT, copied = BUF_INIT, items = BUF_INIT;
	struct metrics_reader r;
	struct indexed x;

	if (indexed_init_items(&x, OTLP_METRICS, request) == 0) {
		indexed_encode(&x, NULL, x.t.n_spans, &copied);
		assert(text_of(buf_bytes(&copied), true, &walked) == 0);
		metrics_reader_items(&r, &x.t);
		assert(dump_metrics(&r, true, &items) == 0);
		assert(bytes_eq(buf_bytes(&walked), buf_bytes(&items)));
		check_written(&x.t, request.p[request.n - 1]);
	}
	indexed_fini(&x);
	buf_fini(&walked);
	buf_fini(&copied);
	buf_fini(&items);
}

static void check_copy(struct bytes request)
{
	struct buf before = BUF_INIT, after = BUF_INIT, once = BUF_INIT, twice = BUF_INIT;

	if (text_of(request, false, &before) == 0) {
		assert(copy_of(request, &once) == 0);
		assert(text_of(buf_bytes(&once), true, &after) == 0);
		assert(bytes_eq(buf_bytes(&before), buf_bytes(&after)));
		assert(copy_of(buf_bytes(&once), &twice) == 0);
		assert(bytes_eq(buf_bytes(&once), buf_bytes(&twice)));
	}
	buf_fini(&before);
	buf_fini(&after);
	buf_fini(&once);
	buf_fini(&twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0 || size > 65536)
		return 0;
	check_items((struct bytes){ data, size });
	check_copy((struct bytes){ data, size });
	return 0;
}
