"""The broker away under load: an agent goes on taking spans into its disk queue, its memory stays
flat, and when the broker is back the queue drains at several times the live rate while live traffic
goes on as before. SPANMILL_AWAY_SECONDS=300 and SPANMILL_AWAY_MB=10 are the long form."""

import os
import threading
import time

import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service

import otlp
from loadgen import Gen
from mill import SANITIZED, merged, wait_for
from oracle_bed import Bed, sample

AWAY = float(os.environ.get("SPANMILL_AWAY_SECONDS", 20))
SPAN_BYTES = 450
MB = 1_000_000
RATE = int(float(os.environ.get("SPANMILL_AWAY_MB", 6)) * MB / SPAN_BYTES)  # spans a second
PARTITIONS = 16


def agent(kafka, topic):
    """configs/agent.yaml on ports of our own."""

    def make(ports):
        own = {
            "receivers": {"otlp": {"protocols": {
                "grpc": {"endpoint": f"127.0.0.1:{ports['grpc']}"},
                "http": {"endpoint": f"127.0.0.1:{ports['http']}"},
            }}},
            "exporters": {"kafka": {"brokers": kafka.addresses, "traces": {"topic": topic}}},
        }  # fmt: skip
        return Bed.listening(merged(sample("agent.yaml"), own), ports)

    return make


class Sampler(threading.Thread):
    """Memory, counts, and how long a small request takes, several times a second."""

    def __init__(self, mill):
        super().__init__(daemon=True)
        self.mill, self.over = mill, threading.Event()
        self.rows = []  # (when, rss, accepted, sent, held, bytes on disk)
        self.latencies = []  # (when, seconds)
        self.failed = []

    def run(self):
        channel = otlp.Grpc(self.mill.ports["grpc"])
        while not self.over.wait(0.2):
            try:
                self.look()
                request, start = otlp.request(), time.monotonic()
                channel.call(request, timeout=30)
                self.latencies.append((start, time.monotonic() - start))
            except Exception as e:  # judged by the test
                self.failed.append(repr(e))
        channel.close()

    def look(self):
        got = {n: 0.0 for n in ("receiver_accepted_spans", "exporter_sent_spans")}
        held = disk = 0
        for name, _, value in self.mill.metrics():
            held = value if name == "spanmill_held_spans" else held
            disk = value if name == "otelcol_exporter_queue_size" else disk
            for n in got:
                got[n] += value if name in (f"otelcol_{n}", f"otelcol_{n}_total") else 0
        self.rows.append((time.monotonic(), self.mill.proc_status("VmRSS"), *got.values(), held, disk))

    def between(self, start, end):
        return [r for r in self.rows if start <= r[0] <= end]

    def rate(self, column, start, end):
        rows = self.between(start, end)
        return (rows[-1][column] - rows[0][column]) / (rows[-1][0] - rows[0][0])

    def slow(self, start, end):
        """The latency that 95 % of the small requests stay below."""
        v = sorted(s for t, s in self.latencies if start <= t <= end)
        return v[int(len(v) * 0.95)]


def spread(rows):
    return (max(r[1] for r in rows) - min(r[1] for r in rows)) / MB


def produced(kafka, topic):
    out = set()
    for r in kafka.consume_all(topic, timeout=120):
        request = service.ExportTraceServiceRequest.FromString(r.value)
        out.update(s.span_id for rs in request.resource_spans for ss in rs.scope_spans for s in ss.spans)
    return out


@pytest.mark.skipif(SANITIZED, reason="memory and rates tell nothing")
@pytest.mark.timeout(int(4 * AWAY) + 240)
def test_broker_away_under_load(make_kafka, make_mill, tmp_path):
    kafka = make_kafka()
    topic = kafka.create_topic(partitions=PARTITIONS)
    mill = make_mill(agent(kafka, topic))
    flags = ("--batch", "200", "--span-bytes", str(SPAN_BYTES), "--concurrency", "8")
    gen = Gen(tmp_path, mill.ports["grpc"], "live", *flags, rate=RATE).start()
    sampler = Sampler(mill)
    sampler.start()
    try:
        wait_for("live traffic", lambda: sampler.rows and sampler.rows[-1][3] > 2 * RATE, 30)
        time.sleep(4)
        gone = time.monotonic()
        kafka.brokers[0].kill()
        time.sleep(AWAY)
        coming = time.monotonic()
        kafka.brokers[0].start()
        wait_for("the first span after that", lambda: sent_again(sampler, gone), 60)
        back = time.monotonic()
        wait_for("an empty queue", lambda: sampler.rows[-1][4] < RATE, 30 + 2 * AWAY)
        drained = time.monotonic()
        time.sleep(2)
        gen.finish()
        sampler.over.set()
        sampler.join(20)
        wait_for("the rest", lambda: mill.metric("spanmill_held_spans") == 0, 30)
        judge(sampler, gen, gone, coming, back, drained)
        lost = gen.acked_spans() - produced(kafka, topic)
        assert not lost, f"{len(lost)} acknowledged spans are not in the topic"
    finally:
        sampler.over.set()
        gen.kill()


def sent_again(sampler, gone):
    """Something was sent that had not been when the broker went, and what was under way then."""
    before = [r for r in sampler.rows if r[0] < gone + 2]
    return before and sampler.rows[-1][3] > before[-1][3]


def judge(sampler, gen, gone, coming, back, drained):
    live = sampler.rate(2, sampler.rows[0][0], gone)
    away = sampler.between(gone + 1, coming)
    backlog = max(r[4] for r in sampler.rows)
    fast = backlog / (drained - back) + live
    during = sampler.rate(2, back, drained)
    disk = max(r[5] for r in sampler.rows) / backlog
    print(
        f"{disk:.0f} bytes of disk a span; live {live * SPAN_BYTES / MB:.1f} MB/s; away {back - gone:.0f} s: taken "
        f"{sampler.rate(2, gone, back) * SPAN_BYTES / MB:.1f} MB/s, RSS {away[-1][1] / MB:.1f} MB, "
        f"spread {spread(away):.1f} MB; backlog {backlog * SPAN_BYTES / MB:.0f} MB drained in "
        f"{drained - back:.1f} s: {fast * SPAN_BYTES / MB:.1f} MB/s, {fast / live:.1f} times live; "
        f"RSS then at most {max(r[1] for r in sampler.between(back, drained + 2)) / MB:.1f} MB; "
        f"live meanwhile {during * SPAN_BYTES / MB:.1f} MB/s; 95 % of small requests below "
        f"{sampler.slow(0, gone) * 1e3:.0f} ms before, {sampler.slow(gone, back) * 1e3:.0f} ms away, "
        f"{sampler.slow(back, drained + 1) * 1e3:.0f} ms while draining"
    )
    some = sampler.rows[:: max(1, len(sampler.rows) // 40)]
    print("RSS", " ".join(f"{r[1] / MB:.1f}" for r in some))
    assert not sampler.failed, sampler.failed[:3]
    assert gen.report["failed"] == gen.report["rejected"] == 0, gen.report
    assert sampler.rate(2, gone, back) > 0.9 * live, "spans were not taken as before"
    assert spread(away) <= 10, f"RSS moved by {spread(away):.1f} MB, more than +-5 MB"
    assert fast >= 3 * live, f"drained at {fast / live:.1f} times the live rate"
    assert during > 0.75 * live, "live traffic suffered while the queue was drained"


def test_start_and_stop_with_the_broker_away(make_kafka, make_mill):
    """Agents that start while nobody listens take spans, stop in order with them, start again, and
    deliver once the broker comes."""
    away = make_kafka(start=False)
    topic = "spans"
    mills = [make_mill(agent(away, topic)) for _ in range(4)]
    sent = {}
    for mill in mills:
        for _ in range(5):
            request = otlp.request(n_traces=3, n_spans=4)
            otlp.send_grpc(mill, request)
            sent.update((s.span_id, s) for s in otlp.spans_of(request))
        balance = mill.stop()
        assert balance["accepted"] == balance["held"] == 60, balance
        mill.start()
    away.start()
    away.create_topic(topic, partitions=PARTITIONS)
    for mill in mills:
        wait_for("an empty queue", lambda m=mill: m.metric("spanmill_held_spans") == 0, 40)
    assert set(sent) == produced(away, topic)
