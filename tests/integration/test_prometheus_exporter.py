"""The prometheus exporter: what OTLP metrics look like to a scraper, in every form of the page, against
prometheus_client's two parsers, promtool and a real Prometheus."""

import gzip
import math
import random
import signal
import struct
import threading
import time

import pytest
import requests
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.metrics.v1 import metrics_pb2
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse_text

import prometheus_bed
from mill import free_port, wait_for
from pki import Authority

OPEN = "application/openmetrics-text;version=1.0.0"
NASTY = ['a"b', "a\\b", "a\nb", "é€🙂", "{}=,", " ", "\t", "\x01\x7f", 'x" # {']
DELTA = metrics_pb2.AGGREGATION_TEMPORALITY_DELTA
CUMULATIVE = metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE


# -- a process and its page ---------------------------------------------------------------------------


def pipeline(ports, page, exporter=None):
    return {
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": f"127.0.0.1:{ports['http']}"}}}},
        "exporters": {"prometheus": {"endpoint": f"127.0.0.1:{page}", **(exporter or {})}},
        "extensions": {"health_check": {"endpoint": f"127.0.0.1:{ports['health']}"}},
        "service": {
            "extensions": ["health_check"],
            "telemetry": {"metrics": {"address": f"127.0.0.1:{ports['metrics']}"}},
            "pipelines": {"metrics": {"receivers": ["otlp"], "exporters": ["prometheus"]}},
        },
    }


@pytest.fixture
def make_page(make_mill):
    """A mill whose metrics go to a page: mill.page is its URL."""

    def make(exporter=None, change=None):
        page = free_port()

        def config(ports):
            tree = pipeline(ports, page, exporter)
            if change:
                change(tree)
            return tree

        mill = make_mill(config)
        mill.page = f"http://127.0.0.1:{page}/metrics"
        return mill

    return make


def send(mill, request, tenant=None):
    answer = requests.post(
        mill.url("http", "/v1/metrics"),
        data=request.SerializeToString(),
        headers={
            "Content-Type": "application/x-protobuf",
            **({"X-Scope-OrgID": tenant} if tenant else {}),
        },
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    return metrics_service_pb2.ExportMetricsServiceResponse.FromString(answer.content)


def get(mill, accept=None, **headers):
    answer = requests.get(
        mill.page, headers={"Accept": accept or "", "Accept-Encoding": "", **headers}, timeout=60
    )
    assert answer.status_code == 200, answer.text
    return answer


def samples(families):
    """{(name, labels): value} of a page; a sample twice is an error."""
    out = {}
    for family in families:
        for s in family.samples:
            key = (s.name, frozenset(s.labels.items()))
            assert key not in out, f"twice: {key}"
            out[key] = s.value
    return out


def open_samples(mill):
    return samples(parse_open(get(mill, OPEN).text))


def text_samples(mill):
    return samples(parse_text(get(mill).text))


# -- metrics ------------------------------------------------------------------------------------------


class Batch:
    """An ExportMetricsServiceRequest of one resource and one scope."""

    def __init__(self, service="shop", instance="i-1", scope=None, **resource):
        self.request = metrics_service_pb2.ExportMetricsServiceRequest()
        rm = self.request.resource_metrics.add()
        named = {"service.name": service, "service.instance.id": instance, **resource}
        for key, value in named.items():
            if value is not None:
                set_label(rm.resource.attributes.add(), key, value)
        self.scope = rm.scope_metrics.add()
        if scope:
            self.scope.scope.name = scope

    def metric(self, name, unit="", help="", **data):
        m = self.scope.metrics.add(name=name, unit=unit, description=help)
        for kind, value in data.items():
            getattr(m, kind).CopyFrom(value)
        return m

    def gauge(self, name, value, labels=None, **keys):
        m = self.metric(name, **keys)
        return number(m.gauge.data_points.add(), value, labels)

    def sum(self, name, value, labels=None, temporality=CUMULATIVE, monotonic=True, **keys):
        m = self.metric(name, **keys)
        m.sum.aggregation_temporality = temporality
        m.sum.is_monotonic = monotonic
        return number(m.sum.data_points.add(), value, labels)

    def histogram(self, name, bounds, counts, total=0.0, labels=None, temporality=CUMULATIVE, **k):
        m = self.metric(name, **k)
        m.histogram.aggregation_temporality = temporality
        p = m.histogram.data_points.add(
            count=sum(counts), sum=total, explicit_bounds=bounds, bucket_counts=counts
        )
        return placed(p, labels)

    def exponential(self, name, labels=None, temporality=CUMULATIVE, help="", **point):
        m = self.metric(name, help=help)
        m.exponential_histogram.aggregation_temporality = temporality
        return placed(m.exponential_histogram.data_points.add(**point), labels)


def set_label(pair, key, value):
    pair.key = key
    if isinstance(value, bool):
        pair.value.bool_value = value
    elif isinstance(value, int):
        pair.value.int_value = value
    elif isinstance(value, float):
        pair.value.double_value = value
    elif isinstance(value, bytes):
        pair.value.bytes_value = value
    else:
        pair.value.string_value = value


def placed(point, labels):
    for key, value in (labels or {}).items():
        set_label(point.attributes.add(), key, value)
    point.time_unix_nano = time.time_ns()
    return point


def number(point, value, labels):
    if isinstance(value, int):
        point.as_int = value
    else:
        point.as_double = value
    return placed(point, labels)


def exemplar(point, value, trace=1, at=None, **attributes):
    x = point.exemplars.add(
        trace_id=trace.to_bytes(16, "big"),
        span_id=trace.to_bytes(8, "big"),
        as_double=value,
        time_unix_nano=at or time.time_ns(),
    )
    for key, value in attributes.items():
        set_label(x.filtered_attributes.add(), key, value)
    return x


BASE = {"job": "shop", "instance": "i-1"}


def key(name, **labels):
    return (name, frozenset({**BASE, **labels}.items()))


# -- the page -----------------------------------------------------------------------------------------


def test_every_kind_to_the_letter(make_page, prometheus_installed):
    """The page byte by byte, in both forms."""
    mill = make_page({"without_scope_info": True})
    b = Batch(**{"host.name": "h1"})
    b.gauge("room.temperature", 20.5, {"room": 'a"b\\c\nd'}, unit="Cel", help="How\nwarm.")
    counter = b.sum("http.requests", 7, {"code": 200}, help="All of them.")
    exemplar(counter, 1.0, 0xABC, at=1_766_000_000_123_000_000)
    h = b.histogram("latency", [0.5, 1, 2.5], [1, 2, 0, 4], 9.25, unit="s", help="Slowness.")
    exemplar(h, 0.25, 1, at=1_766_000_000_000_000_000, user="x")
    exemplar(h, 99.0, 2, at=1_766_000_001_500_000_000)
    s = b.metric("rpc", help="Quantiles.").summary.data_points.add(count=3, sum=6)
    s.quantile_values.add(quantile=0.5, value=2)
    s.quantile_values.add(quantile=1, value=3.5)
    b.sum("queue.size", -2, monotonic=False, help="Up and down.")
    send(mill, b.request)
    at = 'instance="i-1",job="shop"'
    assert get(mill).text == (
        "# HELP http_requests_total All of them.\n"
        "# TYPE http_requests_total counter\n"
        f'http_requests_total{{code="200",{at}}} 7\n'
        "# HELP latency_seconds Slowness.\n"
        "# TYPE latency_seconds histogram\n"
        f'latency_seconds_bucket{{{at},le="0.5"}} 1\n'
        f'latency_seconds_bucket{{{at},le="1"}} 3\n'
        f'latency_seconds_bucket{{{at},le="2.5"}} 3\n'
        f'latency_seconds_bucket{{{at},le="+Inf"}} 7\n'
        f"latency_seconds_sum{{{at}}} 9.25\n"
        f"latency_seconds_count{{{at}}} 7\n"
        "# HELP queue_size Up and down.\n"
        "# TYPE queue_size gauge\n"
        f"queue_size{{{at}}} -2\n"
        "# HELP room_temperature_celsius How\\nwarm.\n"
        "# TYPE room_temperature_celsius gauge\n"
        f'room_temperature_celsius{{{at},room="a\\"b\\\\c\\nd"}} 20.5\n'
        "# HELP rpc Quantiles.\n"
        "# TYPE rpc summary\n"
        f'rpc{{{at},quantile="0.5"}} 2\n'
        f'rpc{{{at},quantile="1"}} 3.5\n'
        f"rpc_sum{{{at}}} 6\n"
        f"rpc_count{{{at}}} 3\n"
        "# HELP target_info Target metadata\n"
        "# TYPE target_info gauge\n"
        f'target_info{{host_name="h1",{at}}} 1\n'
    )
    answer = get(mill, OPEN)
    ids = [f'trace_id="{n:032x}",span_id="{n:016x}"' for n in (0xABC, 1, 2)]
    assert answer.text == (
        "# TYPE http_requests counter\n"
        "# HELP http_requests All of them.\n"
        f'http_requests_total{{code="200",{at}}} 7 # {{{ids[0]}}} 1 1766000000.123\n'
        "# TYPE latency_seconds histogram\n"
        "# UNIT latency_seconds seconds\n"
        "# HELP latency_seconds Slowness.\n"
        f'latency_seconds_bucket{{{at},le="0.5"}} 1 # {{{ids[1]},user="x"}} 0.25 1766000000\n'
        f'latency_seconds_bucket{{{at},le="1.0"}} 3\n'
        f'latency_seconds_bucket{{{at},le="2.5"}} 3\n'
        f'latency_seconds_bucket{{{at},le="+Inf"}} 7 # {{{ids[2]}}} 99 1766000001.500\n'
        f"latency_seconds_sum{{{at}}} 9.25\n"
        f"latency_seconds_count{{{at}}} 7\n"
        "# TYPE queue_size gauge\n"
        "# HELP queue_size Up and down.\n"
        f"queue_size{{{at}}} -2\n"
        "# TYPE room_temperature_celsius gauge\n"
        "# UNIT room_temperature_celsius celsius\n"
        "# HELP room_temperature_celsius How\\nwarm.\n"
        f'room_temperature_celsius{{{at},room="a\\"b\\\\c\\nd"}} 20.5\n'
        "# TYPE rpc summary\n"
        "# HELP rpc Quantiles.\n"
        f'rpc{{{at},quantile="0.5"}} 2\n'
        f'rpc{{{at},quantile="1.0"}} 3.5\n'
        f"rpc_sum{{{at}}} 6\n"
        f"rpc_count{{{at}}} 3\n"
        "# TYPE target info\n"
        "# HELP target Target metadata\n"
        f'target_info{{host_name="h1",{at}}} 1\n'
        "# EOF\n"
    )
    assert {f.name: f.type for f in parse_open(answer.text)}["target"] == "info"
    assert prometheus_bed.lints(get(mill).text) == []


def test_negotiation(make_page):
    mill = make_page()
    send(mill, Batch().request)
    prometheus2 = (
        "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
        "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
    )
    native = (
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,"
        "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
    )
    prometheus3 = (
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
        "application/openmetrics-text;version=0.0.1;q=0.4,"
        "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,/;q=0.1"
    )
    for accept, want in [
        (None, "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"),
        ("text/html, */*;q=0.8", "text/plain; version=0.0.4"),
        ("application/json", "text/plain; version=0.0.4"),
        (prometheus2, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        (native, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        (prometheus3, "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=allow-utf-8"),
        ("application/openmetrics-text", "application/openmetrics-text; version=1.0.0"),
        ("application/openmetrics-text; version=0.0.1", "application/openmetrics-text; version=0.0.1"),
        ("application/openmetrics-text;version=2.0.0,text/plain;q=0.1", "text/plain; version=0.0.4"),
        ("text/plain;version=1.0.0;escaping=allow-utf-8", "text/plain; version=1.0.0; charset=utf-8; escaping=allow-utf-8"),
        ("Text/Plain; Version=0.0.4; q=0.9, application/openmetrics-text;q=0.8", "text/plain"),
        ("text/plain;q=0.5, application/openmetrics-text;q=0.51", "application/openmetrics-text"),
        ("application/openmetrics-text;q=0, text/plain;q=0.001", "text/plain"),
        (",,;q=;=,application/openmetrics-text;q=x", "text/plain"),
    ]:
        got = get(mill, accept)
        assert got.headers["Content-Type"].startswith(want), accept
        assert got.text.endswith("# EOF\n") == ("openmetrics" in want), accept
    head = requests.head(mill.page, timeout=30)
    assert head.status_code == 200 and head.text == ""
    assert requests.post(mill.page, timeout=30).status_code == 405
    assert requests.get(mill.page + "x", timeout=30).status_code == 404


def test_gzip(make_page):
    mill = make_page()
    b = Batch()
    for i in range(200):
        b.gauge("g", i, {"i": i})
    send(mill, b.request)
    plain = get(mill)
    packed = requests.get(
        mill.page, headers={"Accept-Encoding": "gzip"}, timeout=10, stream=True
    )
    assert packed.headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in plain.headers
    raw = packed.raw.read(decode_content=False)
    assert len(raw) < len(plain.content) / 4
    assert gzip.decompress(raw) == plain.content
    refused = requests.get(mill.page, headers={"Accept-Encoding": "gzip;q=0"}, timeout=30)
    assert "Content-Encoding" not in refused.headers


# -- values -------------------------------------------------------------------------------------------


def random_value(rng):
    return rng.choice(
        [
            rng.randrange(-(10**6), 10**6),
            rng.randrange(-(2**63), 2**63),
            rng.uniform(-1e9, 1e9),
            rng.random() * 10 ** rng.randrange(-300, 300),
            math.inf,
            -math.inf,
            math.nan,
            -0.0,
            5e-324,
            1.7976931348623157e308,
            struct.unpack("<d", rng.randbytes(8))[0],
        ]
    )


def same(a, b):
    return a == b or (math.isnan(a) and math.isnan(b))


def random_labels(rng):
    return {f"l{i}": rng.choice(NASTY + ["x", "y", "zz"]) + str(rng.random()) for i in range(rng.randrange(5))}


def add_random(rng, b, name, want):
    kind = rng.choice(["gauge", "sum", "updown", "histogram"])
    for i in range(rng.randrange(1, 6)):
        labels = {**random_labels(rng), "n": str(i)}
        if kind == "gauge":
            v = random_value(rng)
            b.gauge(name, v, labels)
            want[key(name, **labels)] = float(v)
        elif kind == "updown":
            v = random_value(rng)
            b.sum(name, v, labels, monotonic=False)
            want[key(name, **labels)] = float(v)
        elif kind == "sum":
            v = abs(random_value(rng))
            if not math.isnan(v):
                b.sum(name, min(v, 2**63 - 1) if isinstance(v, int) else v, labels)
                want[key(name + "_total", **labels)] = float(v)
        else:
            bounds = sorted({rng.uniform(0, 100) for _ in range(rng.randrange(20))})
            counts = [rng.randrange(1000) for _ in range(len(bounds) + 1)]
            total = rng.uniform(0, 1e6)
            b.histogram(name, bounds, counts, total, labels)
            so_far = 0
            for bound, n in zip(bounds + [math.inf], counts):
                so_far += n
                want[(name, float(bound), frozenset({**BASE, **labels}.items()))] = so_far
            want[key(name + "_sum", **labels)] = total
            want[key(name + "_count", **labels)] = so_far


def by_bound(got):
    """Samples with le as a number in the key."""
    out = {}
    for (name, labels), value in got.items():
        le = dict(labels).get("le")
        if le is not None:
            labels = frozenset((k, v) for k, v in labels if k != "le")
            out[(name.removesuffix("_bucket"), float(le), labels)] = value
        else:
            out[(name, labels)] = value
    return out


@pytest.mark.parametrize("seed", range(4))
def test_random_metrics_value_by_value(make_page, seed):
    rng = random.Random(seed)
    mill = make_page({"without_scope_info": True})
    want = {}
    b = Batch()
    for i in range(60):
        add_random(rng, b, f"m{i}", want)
    response = send(mill, b.request)
    assert response.partial_success.rejected_data_points == 0
    for got in (by_bound(open_samples(mill)), by_bound(text_samples(mill))):
        assert set(got) == set(want)
        for k, v in want.items():
            assert same(float(got[k]), v), (k, got[k], v)


def test_delta_adds_up(make_page):
    mill = make_page({"without_scope_info": True})
    start = time.time_ns()

    def delta(point, n):
        point.start_time_unix_nano = start + n * 1000
        point.time_unix_nano = start + (n + 1) * 1000

    for n in range(5):
        b = Batch()
        delta(b.sum("c", 3, temporality=DELTA), n)
        delta(b.sum("d", 0.5, temporality=DELTA), n)
        delta(b.sum("u", -1, temporality=DELTA, monotonic=False), n)
        delta(b.histogram("h", [1, 2], [1, 0, 2], 4.5, temporality=DELTA), n)
        delta(b.exponential("e", temporality=DELTA, scale=1, count=3, sum=2,
                            positive={"offset": 0, "bucket_counts": [1, 2]}), n)
        send(mill, b.request)
        send(mill, b.request)  # sent again: counts once
    got = text_samples(mill)
    assert got[key("c_total")] == 15 and got[key("d_total")] == 2.5 and got[key("u")] == -5
    assert [got[key("h_bucket", le=le)] for le in ("1", "2", "+Inf")] == [5, 5, 15]
    assert got[key("h_sum")] == 22.5 and got[key("h_count")] == 15
    assert got[key("e_bucket", le="2")] == 15 and got[key("e_count")] == 15 and got[key("e_sum")] == 10
    assert mill.metric("spanmill_prometheus_dropped_points", reason="out_of_order") == 25
    b = Batch()
    delta(b.histogram("h", [1, 3], [1, 0, 1], 4.5, temporality=DELTA), 9)
    send(mill, b.request)  # other bounds: begins anew
    got = text_samples(mill)
    assert got[key("h_count")] == 2 and key("h_bucket", le="2") not in got


def test_cumulative_keeps_the_latest(make_page):
    mill = make_page({"without_scope_info": True})
    now = time.time_ns()
    for value, at in ((5, now), (3, now - 10**9), (9, now + 1)):
        b = Batch()
        b.sum("c", value).time_unix_nano = at
        send(mill, b.request)
    assert text_samples(mill)[key("c_total")] == 9


def test_exponential_histograms_by_powers_of_two(make_page):
    """Exact counts at powers of two, whatever the scale."""
    mill = make_page({"without_scope_info": True})
    rng = random.Random(7)
    values = [rng.lognormvariate(0, 3) for _ in range(500)] + [0.0] * 10 + [-rng.random() * 50 for _ in range(90)]
    for scale in (-1, 0, 3, 8):
        base = 2.0 ** (2.0**-scale)

        def buckets(magnitudes):
            index = [math.ceil(math.log(m, base)) - 1 for m in magnitudes]
            lo = min(index)
            counts = [0] * (max(index) - lo + 1)
            for i in index:
                counts[i - lo] += 1
            return {"offset": lo, "bucket_counts": counts}

        b = Batch()
        b.exponential(f"e{scale + 1}", scale=scale, count=600, sum=1, zero_count=10,
                      positive=buckets([v for v in values if v > 0]),
                      negative=buckets([-v for v in values if v < 0]))
        send(mill, b.request)
    got = by_bound(text_samples(mill))
    for name in ("e1", "e4", "e9"):
        lines = {k[1]: v for k, v in got.items() if len(k) == 3 and k[0] == name}
        assert lines[math.inf] == 600 and lines[0.0] == 100 and len(lines) > 20
        for le, n in lines.items():
            assert n == sum(v <= le for v in values), (name, le)
            assert le in (0, math.inf) or math.log2(abs(le)).is_integer()
    # at scale -1 only every other power of two is known: what is not is counted above
    lines = {k[1]: v for k, v in got.items() if len(k) == 3 and k[0] == "e0"}
    assert lines[4.0] == sum(v <= 4 for v in values) and lines[math.inf] == 600
    opened = open_samples(mill)
    assert not any(name in ("e1_sum", "e1_count") for name, _ in opened)


# -- series that end, that clash, that are too many -----------------------------------------------------


def test_expiry_and_staleness(make_page):
    mill = make_page({"metric_expiration": "2s", "without_scope_info": True})

    def seen_after(flags):
        b = Batch()
        b.gauge("ends", 1).flags = flags
        b.gauge("stays", 1)
        send(mill, b.request)
        return text_samples(mill)

    # on a slow machine a page may come when both are too old already: send again
    wait_for("both", lambda: key("ends") in seen_after(0), timeout=60)

    def has_ended():
        got = seen_after(1)  # no recorded value: it ends now
        assert key("ends") not in got
        return key("stays") in got

    wait_for("one to end", has_ended, timeout=60)
    wait_for("stays to expire", lambda: key("stays") not in text_samples(mill), timeout=60)
    wait_for("the memory to be given back", lambda: mill.metric("spanmill_prometheus_series") == 0, timeout=60)
    assert mill.metric("spanmill_prometheus_bytes") == 0
    assert get(mill).text == ""
    assert get(mill, OPEN).text == "# EOF\n"
    b = Batch()
    b.sum("ends", 4)  # free again, for another type
    send(mill, b.request)
    assert text_samples(mill)[key("ends_total")] == 4


def test_names_that_clash(make_page):
    """The first has the name; the other is refused by name, and the page stays whole."""
    mill = make_page({"without_scope_info": True})
    b = Batch()
    b.histogram("h", [1], [1, 1])
    b.sum("c", 1)
    send(mill, b.request)
    for name, add in [
        ("h", lambda b: b.gauge("h", 1)),
        ("h_count", lambda b: b.gauge("h_count", 1)),
        ("h.bucket", lambda b: b.gauge("h.bucket", 1)),
        ("c", lambda b: b.gauge("c_total", 1)),
        ("c", lambda b: b.histogram("c", [1], [1, 1])),
        ("target_info", lambda b: b.gauge("target", 1)),
    ]:
        b = Batch(**{"host.name": "x"})
        add(b)
        b.gauge("good", 1)
        answer = send(mill, b.request).partial_success
        assert answer.rejected_data_points == 1, name
        assert "another metric has its name" in answer.error_message
    got = open_samples(mill)
    assert got[key("h_count")] == 2 and got[key("c_total")] == 1 and got[key("good")] == 1
    assert mill.metric("spanmill_prometheus_dropped_points", reason="name_conflict") == 6
    assert "points have no place on the page" in mill.stderr()


def test_faulty_points_are_named(make_page):
    mill = make_page({"without_scope_info": True})
    for add, why in [
        (lambda b: b.sum("m", -1), "a monotonic sum is negative"),
        (lambda b: b.sum("m", math.nan), "a monotonic sum is negative"),
        (lambda b: b.sum("m", 1, temporality=0), "neither delta nor cumulative"),
        (lambda b: b.histogram("m", [2, 1], [1, 1, 1]), "bounds do not ascend"),
        (lambda b: b.histogram("m", [2], [1, 1, 1]), "do not go with its bounds"),
        (lambda b: b.gauge("!!", 1), "nothing is left of its name"),
        (lambda b: b.gauge("m", 1, {"x": "y" * 70000}), "longer than 64 KiB"),
        (lambda b: b.exponential("m", scale=99), "scale is not in"),
    ]:
        b = Batch()
        add(b)
        answer = send(mill, b.request).partial_success
        assert answer.rejected_data_points == 1 and why in answer.error_message, why
    assert get(mill).text == ""


def test_same_line_is_one_series(make_page):
    """Resources that nothing tells apart on the page: a line twice would cost the whole scrape."""
    mill = make_page({"without_scope_info": True})
    for host in ("a", "b"):
        b = Batch(service=None, instance=None, **{"host.name": host})
        b.gauge("g", 1)
        send(mill, b.request)
    assert text_samples(mill) == {("g", frozenset()): 1}
    send_two = make_page({"without_scope_info": True, "resource_to_telemetry_conversion": {"enabled": True}})
    for host in ("a", "b"):
        b = Batch(service=None, instance=None, **{"host.name": host})
        b.gauge("g", 1, {"le": "1"})
        send(send_two, b.request)
    labels = [dict(k[1]) for k in text_samples(send_two) if k[0] == "g"]
    assert {x["host_name"] for x in labels} == {"a", "b"}


def test_labels_of_ours(make_page):
    mill = make_page({"const_labels": {"cluster": "c1", "room": "never"}, "namespace": "ns"})
    b = Batch(scope="lib")
    b.gauge("g", 1, {"room": "r1"})
    b.histogram("h", [1], [0, 0], labels={"le": "5"})
    send(mill, b.request, tenant="team-a")
    got = open_samples(mill)
    want = {"cluster": "c1", "otel_scope_name": "lib", "tenant": "team-a"}
    assert got[key("ns_g", room="r1", **want)] == 1
    assert got[key("ns_h_count", room="never", **want)] == 0


def test_too_many_series_stay_within_the_budget(make_page):
    """A quarter of the memory budget at most, the rest named; what is there stays right."""

    def limited(tree):
        tree["processors"] = {"memory_limiter": {"check_interval": "1s", "limit_mib": 64}}
        tree["service"]["pipelines"]["metrics"]["processors"] = ["memory_limiter"]

    mill = make_page({"without_scope_info": True}, change=limited)
    b = Batch()
    b.sum("c", 1, {"i": -1})
    send(mill, b.request)
    refused = 0
    for part in range(30):
        b = Batch()
        m = b.metric("g")
        for i in range(4000):
            number(m.gauge.data_points.add(), i, {"i": part * 4000 + i, "pad": "p" * 60})
        answer = send(mill, b.request).partial_success
        refused += answer.rejected_data_points
        if answer.rejected_data_points:
            assert "no memory for another series" in answer.error_message
    assert refused > 0
    assert 8 << 20 < mill.metric("spanmill_prometheus_bytes") <= 16 << 20
    assert mill.metric("spanmill_prometheus_dropped_points", reason="memory") > 1000
    got = open_samples(mill)
    assert got[key("c_total", i="-1")] == 1
    assert len(got) > 10000
    for (name, labels), value in got.items():
        if name == "g":
            assert value == int(dict(labels)["i"]) % 4000


# -- exemplars ----------------------------------------------------------------------------------------


def exemplars_of(mill, name):
    """{le or None: exemplar}"""
    out = {}
    for f in parse_open(get(mill, OPEN).text):
        for s in f.samples:
            if s.name == name and s.exemplar:
                out[s.labels.get("le")] = s.exemplar
    return out


def test_an_exemplar_stays_for_two_scrapes(make_page):
    mill = make_page()
    now = time.time()

    def offer(trace, seconds):
        b = Batch()
        p = b.histogram("h", [1], [5, 5])
        exemplar(p, 0.5, trace, at=int((now + seconds) * 1e9))
        send(mill, b.request)

    def shown():
        return int(exemplars_of(mill, "h_bucket")["1.0"].labels["trace_id"], 16)

    offer(9, -9)
    get(mill)  # a text page does not count: nobody saw it
    offer(1, 0)
    assert shown() == 1
    offer(2, 1)
    offer(3, 2)
    assert [shown(), shown(), shown(), shown()] == [1, 3, 3, 3]
    offer(4, -5)  # older than what Prometheus has
    offer(5, 2)  # and of the same time
    assert shown() == 3
    offer(6, 2.5)
    assert shown() == 6


def test_other_bounds_leave_no_exemplar_of_the_old(make_page):
    mill = make_page()
    for bounds, value in (([1, 2, 4], 3.5), ([10, 20, 40], 15.0)):
        b = Batch()
        exemplar(b.histogram("h", bounds, [1, 1, 1, 1]), value, int(value))
        send(mill, b.request)
        get(mill, OPEN)
    assert {le: x.value for le, x in exemplars_of(mill, "h_bucket").items()} == {"20.0": 15.0}


def test_exemplars_lie_in_their_buckets_and_within_128(make_page):
    mill = make_page()
    b = Batch()
    p = b.histogram("h", [1, 2, 4], [1, 1, 1, 1])
    for n, v in enumerate((0.5, 1.0, 1.5, 2.0, 4.5), 1):
        exemplar(p, v, n, at=time.time_ns() + n * 10**9, **{"a": "x" * 60, "b": "é" * 5, "c": "x" * 400})
    e = b.exponential("e", scale=2, count=2, positive={"offset": 4, "bucket_counts": [1, 0, 0, 0, 1]})
    exemplar(e, 3.9, 9)
    exemplar(e, math.nan, 9)
    c = b.sum("c", 5)
    exemplar(c, 2.0, 7)
    exemplar(b.gauge("g", 1), 1.0, 8)  # gauges have none
    send(mill, b.request)
    got = exemplars_of(mill, "h_bucket")
    assert {le: x.value for le, x in got.items()} == {"1.0": 1.0, "2.0": 2.0, "+Inf": 4.5}
    for x in got.values():
        assert set(x.labels) == {"trace_id", "span_id", "a"} or set(x.labels) == {"trace_id", "span_id", "b", "a"}
        assert sum(len(k) + len(v) for k, v in x.labels.items()) <= 128
        assert x.timestamp
    assert {le: x.value for le, x in exemplars_of(mill, "e_bucket").items()} == {"4.0": 3.9}
    assert exemplars_of(mill, "c_total")[None].value == 2.0


def test_enable_open_metrics(make_page):
    for exporter, want in [
        ({"enable_open_metrics": False}, "text/plain"),
        ({"enable_open_metrics": True, "add_metric_suffixes": False}, "application/openmetrics"),
        ({"add_metric_suffixes": False}, "text/plain"),
        ({"translation_strategy": "NoTranslation"}, "text/plain"),
    ]:
        mill = make_page(exporter)
        send(mill, Batch().request)
        assert get(mill, OPEN).headers["Content-Type"].startswith(want), exporter


def test_names_that_are_not_translated(make_page):
    mill = make_page({"translation_strategy": "NoUTF8EscapingWithSuffixes", "without_scope_info": True})
    b = Batch()
    b.sum("http.requests", 3, {"http.method": "GET"})
    b.gauge("plain", 1)
    send(mill, b.request)
    utf8 = get(mill, OPEN + ";escaping=allow-utf-8").text
    assert '{"http.requests_total","http.method"="GET",instance="i-1",job="shop"} 3' in utf8
    assert '# TYPE "http.requests" counter' in utf8
    assert open_samples(mill) == {
        key("http_requests_total", http_method="GET"): 3,
        key("plain"): 1,
    }


def test_tls_and_a_token(make_page, tmp_path):
    ca = Authority(tmp_path)
    cert, private = ca.issue("server")

    def guarded(tree):
        tree["extensions"]["bearertokenauth"] = {"token": "correct-horse"}
        tree["service"]["extensions"].append("bearertokenauth")

    mill = make_page(
        {
            "tls": {"cert_file": cert, "key_file": private},
            "auth": {"authenticator": "bearertokenauth"},
        },
        change=guarded,
    )
    b = Batch()
    b.gauge("g", 1)
    send(mill, b.request)
    url = mill.page.replace("http:", "https:")
    assert requests.get(url, verify=ca.pem, timeout=30).status_code == 401
    answer = requests.get(
        url, verify=ca.pem, headers={"Authorization": "Bearer correct-horse"}, timeout=30
    )
    assert answer.status_code == 200 and "# TYPE g gauge" in answer.text


# -- reload, hostile bytes -----------------------------------------------------------------------------


def test_a_reload_gives_the_page_another_form(make_page):
    mill = make_page({"without_scope_info": True})
    b = Batch()
    b.gauge("g", 1)
    send(mill, b.request)
    mill.config["exporters"]["prometheus"]["namespace"] = "ns"
    mill.write_config()
    mill.process.send_signal(signal.SIGHUP)

    def renamed():
        send(mill, b.request)
        return text_samples(mill)

    wait_for("the new name", lambda: renamed() == {key("ns_g"): 1}, timeout=60)


def test_hostile_requests(make_page):
    """Damage in a point is that point's; the page stays whole whatever comes."""
    mill = make_page()
    rng = random.Random(5)
    b = Batch(scope="s")
    for i in range(10):
        add_random(rng, b, f"m{i}", {})
    whole = b.request.SerializeToString()
    for _ in range(300):
        raw = bytearray(whole)
        for _ in range(rng.randrange(1, 8)):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        answer = requests.post(
            mill.url("http", "/v1/metrics"),
            data=bytes(raw),
            headers={"Content-Type": "application/x-protobuf"},
            timeout=30,
        )
        assert answer.status_code in (200, 400)
    assert open_samples(mill) and text_samples(mill)


# -- with real Prometheus -----------------------------------------------------------------------------


def test_a_real_prometheus_scrapes_without_a_warning(make_page, make_prometheus):
    mill = make_page({"without_scope_info": True})
    rng = random.Random(11)
    want = {}

    def batch(n):
        b = Batch(**{"host.name": "h"})
        for i in range(30):
            add_random(rng, b, f"m{n}_{i}", want)
        p = b.histogram("lat", [0.1, 1], [n, n, n], unit="s", help="x")
        for i, v in enumerate((0.05, 0.5, 5.0)):
            exemplar(p, v, 1000 * n + i + 1)
        exemplar(b.sum("hits", n, help="x"), 1.0, 1000 * n + 9)
        return b.request

    send(mill, batch(1))
    prometheus = make_prometheus({"page": mill.page})
    prometheus.wait_scraped("page")
    for n in range(2, 6):
        send(mill, batch(n))
        wait_for(f"exemplar {n}", lambda n=n: any(
            int(x.trace_id, 16) // 1000 == n for x in prometheus.exemplars("lat_seconds_bucket")), timeout=60)
    wait_for("counter", lambda: prometheus.value("hits_total") == 5, timeout=60)
    assert {x.value for x in prometheus.exemplars("lat_seconds_bucket")} == {0.05, 0.5, 5.0}
    assert prometheus.exemplars("hits_total")
    assert prometheus.value("target_info") == 1
    prometheus.assert_no_complaints()
    lints = [x for x in prometheus_bed.lints(get(mill).text) if "_total" not in x and "unit" not in x]
    assert lints == []


def test_scraped_while_written(make_page):
    """Eight writers and four scrapers: every page is whole, and counters never go back."""
    mill = make_page({"without_scope_info": True, "metric_expiration": "1s"})
    stop = threading.Event()
    failures = []

    def write(n):
        i = 0
        while not stop.is_set():
            i += 1
            b = Batch(instance=f"i-{n}")
            b.sum("c", i)
            exemplar(b.histogram("h", [1, 2], [i, i, i], labels={"k": i % 50}), 1.5, i)
            for k in range(20):
                b.gauge(f"g{(i + k) % 100}", i, {"x": k})
            try:
                answer = requests.post(
                    mill.url("http", "/v1/metrics"),
                    data=b.request.SerializeToString(),
                    headers={"Content-Type": "application/x-protobuf"},
                    timeout=60,
                )
                assert answer.status_code in (200, 503), answer.text
            except Exception as e:
                failures.append(e)

    def scrape(accept):
        last = {}
        while not stop.is_set():
            try:
                text = get(mill, accept).text
                got = samples((parse_open if accept else parse_text)(text))
                for k, v in got.items():
                    if k[0] == "c_total":
                        assert v >= last.get(k, 0)
                        last[k] = v
            except Exception as e:
                failures.append(e)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    threads += [threading.Thread(target=scrape, args=(a,)) for a in (OPEN, OPEN, None, None)]
    for t in threads:
        t.start()
    time.sleep(4)
    stop.set()
    for t in threads:
        t.join()
    assert failures == []


def test_stopped_while_scraped(make_page):
    """Pages under way are no reason to hang, to crash, or to lose the balance."""
    mill = make_page({"without_scope_info": True})
    b = Batch()
    m = b.metric("h")
    m.histogram.aggregation_temporality = CUMULATIVE
    for i in range(1000):
        p = m.histogram.data_points.add(
            count=9, sum=1, explicit_bounds=range(8), bucket_counts=[1] * 9
        )
        placed(p, {"i": i})
    send(mill, b.request)
    stop = threading.Event()
    pages = []

    def scrape():
        while not stop.is_set():
            try:
                answer = requests.get(mill.page, headers={"Accept": OPEN}, timeout=60)
                if answer.status_code == 200:
                    pages.append(answer.text.endswith("# EOF\n"))
            except requests.ConnectionError:
                pass  # it is gone

    # more than may wait, so that some are told to come again
    threads = [threading.Thread(target=scrape) for _ in range(20)]
    for t in threads:
        t.start()
    try:
        wait_for("pages", lambda: len(pages) >= 10, timeout=60)
        mill.stop(timeout=60)
    finally:
        stop.set()
        for t in threads:
            t.join()
    assert all(pages)
