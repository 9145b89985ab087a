"""More comes in than can go out: memory stays below the limit, clients are told to come again, UDP
loses only what is counted, and when the next hop is fast again so is the program."""

import contextlib
import json
import random
import socket
import threading
import time

import pytest
import requests
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service

import otlp
from mill import SANITIZED, forwarder, wait_for
from test_jaeger import LOST, compact_batch, udp_port

MIB = 2**20
LIMIT_MIB = 64
CLIENTS = 120
SPANS_PER_SECOND = 4000  # what the hop takes while it is slow


class SlowHop:
    """One call at a time, as long as its spans take; at once when told to hurry."""

    def __init__(self):
        self.hurry = threading.Event()
        self.lock = threading.Lock()

    def __call__(self, request, context, hop):
        n = len(list(otlp.spans_of(request)))
        with self.lock:
            self.hurry.wait(n / SPANS_PER_SECOND)
        return service.ExportTraceServiceResponse()


def bridge(ports, jaeger, hop):
    config = forwarder(ports, hop.target, exporter={"timeout": "30s"})
    config["receivers"]["zipkin"] = {"endpoint": f"127.0.0.1:{ports['zipkin']}"}
    config["receivers"]["jaeger"] = {
        "protocols": {"thrift_compact": {"endpoint": f"127.0.0.1:{jaeger}"}}
    }
    config["processors"] = {
        "memory_limiter": {"check_interval": "1s", "limit_mib": LIMIT_MIB},
        "batch": {},
    }
    config["service"]["pipelines"]["traces"].update(
        {"receivers": ["otlp", "zipkin", "jaeger"], "processors": ["memory_limiter", "batch"]}
    )
    return config


def zipkin_body(n):
    """v2 JSON, as Envoy's sidecars send it."""
    return json.dumps(
        [
            {
                "traceId": otlp.new_id(16).hex(),
                "id": otlp.new_id(8).hex(),
                "kind": "SERVER",
                "name": "shop:8080/*",
                "timestamp": 1700000000000000 + i,
                "duration": 5000,
                "localEndpoint": {"serviceName": "shop", "ipv4": "10.0.0.1", "port": 8080},
                "tags": {"http.url": "http://shop/cart", "upstream_cluster": "x" * 200},
            }
            for i in range(n)
        ]
    )


class Poster(threading.Thread):
    """Posts one body as fast as answers come; notes what they were."""

    def __init__(self, url, body, kind, n_spans):
        super().__init__(daemon=True)
        self.url, self.body, self.kind, self.n_spans = url, body, kind, n_spans
        self.statuses, self.wrong = [], []
        self.taken = 0
        self.stopping = threading.Event()

    def run(self):
        session = requests.Session()
        while not self.stopping.is_set():
            try:
                answer = session.post(
                    self.url, data=self.body, headers={"Content-Type": self.kind}, timeout=30
                )
            except requests.RequestException as e:
                self.wrong.append(repr(e))
                continue
            self.statuses.append(answer.status_code)
            if answer.status_code in (200, 202):
                self.taken += self.n_spans
            elif answer.status_code not in (429, 503) or "Retry-After" not in answer.headers:
                self.wrong.append(f"{answer.status_code} {answer.headers} {answer.text[:200]}")
            else:
                self.stopping.wait(random.uniform(0.05, 0.2))


@pytest.mark.skipif(SANITIZED, reason="memory tells nothing under a sanitizer")
def test_twice_what_can_go_out(make_mill, next_hop):
    slow = SlowHop()
    hop = next_hop(slow)
    jaeger = udp_port()
    mill = make_mill(lambda ports: bridge(ports, jaeger, hop))
    trace = otlp.request(n_traces=1, n_spans=400, size=100).SerializeToString()
    posters = [
        Poster(mill.url("http", "/v1/traces"), trace, otlp.PROTOBUF, 400)
        if i % 2
        else Poster(mill.url("zipkin", "/api/v2/spans"), zipkin_body(400), "application/json", 400)
        for i in range(CLIENTS)
    ]
    n_datagrams = 0
    for p in posters:
        p.start()
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as udp:
        end = time.monotonic() + 12
        while time.monotonic() < end:
            udp.sendto(compact_batch(7, n_datagrams + 1), ("127.0.0.1", jaeger))
            n_datagrams += 1
            if n_datagrams % 50 == 0:
                time.sleep(0.005)
    peak = mill.proc_status("VmHWM")
    refused = sum(s in (429, 503) for p in posters for s in p.statuses)
    slow.hurry.set()
    start = time.monotonic()
    answer = otlp.send_http(mill, otlp.request(), kind=otlp.PROTOBUF, timeout=30)
    assert answer.status_code in (200, 429, 503)
    wait_for(
        "a client to be served again",
        lambda: otlp.send_http(mill, otlp.request(), kind=otlp.PROTOBUF).status_code == 200,
    )
    recovered = time.monotonic() - start
    for p in posters:
        p.stopping.set()
    for p in posters:
        p.join(60)
    wrong = [w for p in posters for w in p.wrong]
    assert not wrong, wrong[:3]
    print(
        f"peak {peak / MIB:.1f} MiB of {LIMIT_MIB}, {refused} refused, "
        f"{sum(p.taken for p in posters)} spans taken, served again after {recovered:.2f} s"
    )
    assert peak <= LIMIT_MIB * 1.1 * MIB
    assert refused > 0, "nobody was refused: that was no overload"
    assert recovered < 20

    def counted():
        read = mill.metric("spanmill_jaeger_udp_packets")
        return read + mill.metric(LOST, reason="kernel") == n_datagrams

    wait_for("every datagram in a counter", counted)
    lost = mill.metric(LOST) + mill.metric("otelcol_receiver_refused_spans", receiver="jaeger")
    by_udp = mill.metric("otelcol_receiver_accepted_spans", receiver="jaeger")
    assert by_udp + lost == n_datagrams
    with hop.lock:
        at_hop = sum(len(list(otlp.spans_of(r))) for r in hop.taken)
    assert at_hop >= sum(p.taken for p in posters) + by_udp, "acknowledged, and not at the hop"
