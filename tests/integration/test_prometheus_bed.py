"""The bed itself: a real Prometheus reads our page of internal metrics, and its tools find what is
wrong with a page."""

import http.server
import threading
import time

import pytest

import otlp
from mill import wait_for
from prometheus_bed import lints, promtool

EXEMPLAR_PAGE = """# TYPE seconds histogram
seconds_bucket{le="1.0"} 1 # {trace_id="0af7651916cd43dd8448eb211c80319c",span_id="b7ad6b7169203331"} 0.5
seconds_bucket{le="+Inf"} 1
seconds_sum 0.5
seconds_count 1
# EOF
"""


class Pages(http.server.BaseHTTPRequestHandler):
    """Answers each scrape with the server's page of the moment."""

    def do_GET(self):
        body = self.server.page.encode()
        self.send_response(200)
        self.send_header("Content-Type", self.server.kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def doubled():
    """Two values of one series at one time."""
    now = f"{time.time():.3f}"
    return f"# TYPE a counter\na_total 1 {now}\na_total 2 {now}\n# EOF\n"


@pytest.fixture
def serve_page():
    servers = []

    def serve(page):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages)
        server.kind = "application/openmetrics-text; version=1.0.0; charset=utf-8"
        server.page = page
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}/any/path"

    yield serve
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def test_prometheus_reads_our_internal_metrics_and_exemplars(mill, serve_page, make_prometheus):
    jobs = {"mill": mill.url("metrics", "/metrics"), "page": serve_page(EXEMPLAR_PAGE)}
    prometheus = make_prometheus(jobs)
    otlp.send_grpc(mill, otlp.request(n_spans=7))
    wait_for(
        "the count to reach Prometheus",
        lambda: prometheus.value("sum(otelcol_receiver_accepted_spans)") == 7,
        60,
    )
    got = wait_for("the exemplar", lambda: prometheus.exemplars("seconds_bucket"), 60)
    assert (got[0].trace_id, got[0].span_id, got[0].value) == (
        "0af7651916cd43dd8448eb211c80319c",
        "b7ad6b7169203331",
        0.5,
    )
    prometheus.assert_no_complaints()


def test_the_bed_sees_pages_that_prometheus_does_not_like(serve_page, make_prometheus):
    """One it stores with a warning, one it cannot parse."""
    jobs = {"doubled": serve_page(doubled()), "endless": serve_page(EXEMPLAR_PAGE[:-6])}
    prometheus = make_prometheus(jobs)
    wait_for("a warning", prometheus.complaints, 60)
    with pytest.raises(AssertionError, match="different value but same timestamp"):
        prometheus.assert_no_complaints()
    wait_for("a scrape", lambda: prometheus.n_scrapes("endless"), 60)
    prometheus.complaints = list
    with pytest.raises(AssertionError, match="does not end with # EOF"):
        prometheus.assert_no_complaints()


def test_promtool_lints_pages_and_refuses_what_is_none(prometheus_installed):
    assert lints("# HELP a_total Counts.\n# TYPE a_total counter\na_total 1\n") == []
    assert "no help text" in "".join(lints("# TYPE a_total counter\na_total 1\n"))
    status, _ = promtool("check", "metrics", stdin="a b c\n")
    assert status == 1
