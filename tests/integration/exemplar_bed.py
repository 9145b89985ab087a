"""The bed of the guarantee: load whose spans say which slot they belong to, every exemplar that
Prometheus ever returned, and the judgement: is the span in the trace that the query API gives?

    load = Load(n_operations=6, per_slot=160)
    burst = load.burst()                   # every slot gets per_slot spans, under fresh ids
    for body in burst.bodies(): post(url, body)
    watch = Watch(prometheus, 'traces_span_metrics_duration_milliseconds_bucket', [query URL])
    watch.look(); watch.settle(); print(watch.ledger())

A slot is (service, operation, status, bucket). Spans are patched into requests that were encoded
once, as encoding them anew would be the slowest part of the test by far.
"""

import collections
import concurrent.futures
import os
import struct
import time

import requests
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service
from opentelemetry.proto.trace.v1 import trace_pb2 as trace

import otlp
from mill import ROOT, wait_for
import yaml

MS = 1_000_000
# (class, duration in ms, status): where the bucket is, as le of the default bounds
SLOTS = (
    ("fast", 3, 0, 4.0),
    ("usual", 30, 0, 50.0),
    ("slow", 3000, 0, 5000.0),
    ("error", 300, 2, 400.0),
)
STATUS = {0: "STATUS_CODE_UNSET", 2: "STATUS_CODE_ERROR"}
INNER = 1  # ms: the second span of each trace, in a series of its own

Slot = collections.namedtuple("Slot", "service operation status le")
SLOT_CLASS = {(STATUS[status], le): name for name, _, status, le in SLOTS}


def sample(name):
    """A configuration of configs/, to be changed for a test."""
    with open(os.path.join(ROOT, "configs", name), encoding="utf-8") as f:
        text = f.read()
    return yaml.safe_load(text)


class Load:
    """Requests of one shape: `operations` x 4 classes, per_slot traces each: a span of that class, and one
    below it that all classes have."""

    def __init__(self, n_operations=6, per_slot=160, n_services=3, name="op"):
        self.per_slot = per_slot
        self.operations = [(f"svc-{i % n_services}", f"{name}-{i}") for i in range(n_operations)]
        self.templates = [self.template(*op) for op in self.operations]
        self.n_bursts = 0

    def slots(self):
        for svc, op in self.operations:
            for _, _, status, le in SLOTS:
                yield Slot(svc, op, STATUS[status], le)

    def template(self, svc, op):
        """One request, and where ids and times lie in it: (trace, [(span, start, end, ms), ...])."""
        req = service.ExportTraceServiceRequest()
        rs = req.resource_spans.add()
        rs.resource.attributes.append(otlp.string("service.name", svc))
        rs.resource.attributes.append(otlp.string("host.name", f"{svc}-host"))
        ss = rs.scope_spans.add()
        marks = []
        for _ in range(self.per_slot):
            for _, ms, status, _ in SLOTS:
                trace_id = os.urandom(16)
                for name, kind, took in ((op, 2, ms), (f"{op} inner", 1, INNER)):
                    mark = [trace_id, os.urandom(8), os.urandom(8), os.urandom(8)]
                    sp = ss.spans.add(trace_id=trace_id, span_id=mark[1], name=name, kind=kind)
                    sp.start_time_unix_nano = int.from_bytes(mark[2], "little")
                    sp.end_time_unix_nano = int.from_bytes(mark[3], "little")
                    sp.attributes.append(otlp.string("http.route", "/" + op))
                    if status and kind == 2:
                        sp.status.code = status
                    marks.append((mark, took))
        body = req.SerializeToString()
        places, at = [], 0
        for mark, took in marks:
            row = []
            for value in mark:
                at = body.index(value, at)
                row.append(at)
            places.append((*row, took))
        return bytearray(body), places

    def burst(self):
        self.n_bursts += 1
        return Burst(self, self.n_bursts)


class Burst:
    """All of its spans end at `end`; their ids begin with its number, by which they are known."""

    def __init__(self, load, number):
        self.load, self.number = load, number
        self.end = time.time_ns()
        self.n_spans = 2 * load.per_slot * len(SLOTS) * len(load.operations)

    def bodies(self):
        """One request after the other, each with fresh ids."""
        for template, places in self.load.templates:
            body = bytearray(template)
            trace_ids, span_ids = os.urandom(8 * len(places)), os.urandom(6 * len(places))
            number, end = struct.pack(">H", self.number), struct.pack("<Q", self.end)
            for i, (at_trace, at_span, at_start, at_end, ms) in enumerate(places):
                t = i // 2 * 16
                body[at_trace : at_trace + 16] = trace_ids[t : t + 16]
                body[at_span : at_span + 8] = number + span_ids[6 * i : 6 * i + 6]
                body[at_start : at_start + 8] = struct.pack("<Q", self.end - ms * MS)
                body[at_end : at_end + 8] = end
            yield bytes(body)


class Sender:
    """Posts requests until each was taken, as an SDK would."""

    def __init__(self, mill):
        self.url = mill.url("http", "/v1/traces")
        self.session = requests.Session()
        self.n_again = 0

    def send(self, body, timeout=90):
        deadline = time.monotonic() + timeout
        while True:
            try:
                answer = self.session.post(
                    self.url, data=body, headers={"Content-Type": otlp.PROTOBUF}, timeout=10
                )
                if answer.status_code == 200:
                    return
                assert answer.status_code in (429, 502, 503, 504), answer.text
            except requests.RequestException:
                pass
            assert time.monotonic() < deadline, f"nobody takes spans at {self.url}"
            self.n_again += 1
            time.sleep(0.05)

    def burst(self, burst):
        for body in burst.bodies():
            self.send(body)


class Watch:
    """Every exemplar of some series that Prometheus returned, once each, and what became of it."""

    def __init__(self, prometheus, selector, ask, threads=4):
        self.prometheus, self.selector = prometheus, selector
        self.urls = ask if isinstance(ask, (list, tuple)) else [ask]
        self.seen = {}  # (trace id, span id) -> the first exemplar that showed it
        self.shown = set()  # (series, trace id, span id): what "exposed" counts
        self.by_slot = collections.defaultdict(set)  # Slot -> numbers of bursts
        self.waiting, self.found, self.late = {}, set(), set()
        self.n_unanswered = 0
        self.since = time.time() - 10
        self.pool = concurrent.futures.ThreadPoolExecutor(threads)
        self.session = requests.Session()
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=threads)
        self.session.mount("http://", adapter)

    def slot_of(self, series):
        """The slot of a bucket's series; None of others (counters)."""
        labels = dict(series)
        if "le" not in labels:
            return None
        return Slot(labels["service_name"], labels["span_name"], labels["status_code"],
                    float(labels["le"]))  # fmt: skip

    def look(self):
        """Take in what Prometheus has, and look each new one up at once. Returns how many are new."""
        new = []
        for e in self.prometheus.exemplars(self.selector, start=self.since):
            assert e.trace_id and len(e.trace_id) == 32, e
            assert e.span_id and len(e.span_id) == 16, e
            assert set(e.labels) == {"trace_id", "span_id"}, e
            key = (e.trace_id, e.span_id)
            self.shown.add((e.series, *key))
            slot = self.slot_of(e.series)
            if slot is not None:
                self.by_slot[slot].add(int(e.span_id[:4], 16))
            if key not in self.seen:
                self.seen[key] = e
                new.append(key)
        self.check(new)
        return len(new)

    def check(self, keys):
        for key, verdict in zip(keys, self.pool.map(self.look_up, keys)):
            if verdict == "found":
                self.found.add(key)
                if self.waiting.pop(key, None) == "not found":
                    self.late.add(key)
            elif self.waiting.get(key) != "not found":
                self.waiting[key] = verdict

    def look_up(self, key):
        """"found", "not found" (a complete answer without it), or "no answer"."""
        trace_id, span_id = key
        verdict = "no answer"
        for url in self.urls:
            try:
                answer = self.session.get(
                    f"{url}/api/traces/{trace_id}",
                    headers={"Accept": "application/protobuf"},
                    timeout=30,
                )
            except requests.RequestException:
                continue
            if answer.status_code == 404:
                verdict = "not found"
            elif answer.status_code in (200, 206):
                spans = otlp.spans_of(trace.TracesData.FromString(answer.content))
                if any(sp.span_id.hex() == span_id for sp in spans):
                    return "found"
                if answer.status_code == 200:
                    verdict = "not found"
        self.n_unanswered += verdict == "no answer"
        return verdict

    def settle(self, timeout=60):
        """Ask again for what was not found, until all is, or the time is over."""
        deadline = time.monotonic() + timeout
        while self.waiting and time.monotonic() < deadline:
            self.check(list(self.waiting))
            if self.waiting:
                time.sleep(0.3)

    def missing(self):
        return sorted(self.waiting)

    def fill(self, bursts, slots):
        """{class: (filled, all)} over bursts and slots."""
        out = {name: [0, 0] for name, _, _, _ in SLOTS}
        for slot in slots:
            counts = out[SLOT_CLASS[(slot.status, slot.le)]]
            for burst in bursts:
                counts[0] += burst.number in self.by_slot[slot]
                counts[1] += 1
        return {name: tuple(counts) for name, counts in out.items()}

    def ledger(self):
        return (
            f"exposed {len(self.seen)} spans (in {len(self.shown)} places) found {len(self.found)} "
            f"late {len(self.late)} missing {len(self.waiting)} unanswered {self.n_unanswered}"
        )


def flush(mill):
    """Cut what is open into blocks, so that it is durable for good now."""
    def cut():
        try:
            return requests.post(mill.url("query", "/flush"), timeout=60).status_code in (200, 204)
        except requests.RequestException:
            return False

    wait_for("a flush", cut, 60, 0.1)
