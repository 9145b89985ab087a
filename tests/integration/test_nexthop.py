"""The otlp exporter against a next hop that is dead, slow, refuses or takes half.
SPANMILL_DEAD_SECONDS=60 is the full outage; the default is shorter."""

import os
import re
import signal
import threading
import time

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service

import otlp
from ledger import Client
from mill import PATIENCE, free_port, forwarder, wait_for
from nexthop import refuse

DEAD = float(os.environ.get("SPANMILL_DEAD_SECONDS", 5))
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@pytest.fixture
def forward(make_mill, tmp_path):
    """forward(hop target, exporter=None, storage=False) -> a mill that sends what it gets to the
    target."""

    def make(target, exporter=None, storage=False, overlay=None):
        where = str(tmp_path / "queue") if storage else None
        return make_mill(lambda ports: forwarder(ports, target, exporter, where), overlay)

    return make


BOTH = pytest.mark.parametrize("http", [False, True], ids=["grpc", "http"])


def acked_of(clients):
    return {sp.span_id for c in clients for req in list(c.acked.values()) for sp in otlp.spans_of(req)}


def delivered(hop, clients, once_since=None):
    """All that was acknowledged is at the hop; since then once, but for what was refused while the
    hop was there: its client's time was up when it had been sent and not answered."""
    want = acked_of(clients)
    wait_for("everything acknowledged at the next hop", lambda: want <= set(hop.span_counts()), 20)
    if once_since is not None:
        refused = {t for c in clients for when, t in c.again if when >= once_since}
        at_risk = {i for c in clients for t in refused & set(c.acked) for i in otlp.span_ids(c.acked[t])}
        twice = {i.hex() for i, n in hop.span_counts().items() if n > 1 and i not in at_risk}
        assert not twice, f"{len(twice)} spans were sent on twice"


@pytest.mark.timeout(int(DEAD) + 90)
@pytest.mark.parametrize(
    "storage, http",
    [(False, False), (True, False), (True, True)],
    ids=["memory", "disk", "http-disk"],
)
def test_dead_hop(forward, next_hop, storage, http):
    """Nobody listens for a while under load. With a disk queue every client is acknowledged all the
    time; without one it is told to come again, before its deadline. When the hop is back everything
    arrives, and once."""
    hop = next_hop(start=False, http=http)
    mill = forward(hop.target, storage=storage)
    clients = [
        Client(mill, deadline=4.0),
        Client(mill, by_http=True),
        Client(mill, deadline=3.0, n_spans=20),
    ]
    for c in clients:
        c.start()
    time.sleep(min(DEAD, 4) if http else DEAD)
    wait_for("every client's answer", lambda: all(c.acked if storage else c.refused for c in clients))
    during = acked_of(clients)
    for c in clients:
        assert c.late == 0, f"{c.late} requests had no answer within their deadline"
        assert c.latencies and max(c.latencies) < c.deadline
    assert bool(during) == storage
    begin = time.monotonic()
    hop.start()
    for c in clients:
        c.finish(30)
        assert not c.wrong, c.wrong[:5]
        assert c.late == 0
    delivered(hop, clients, once_since=begin)
    balance = mill.stop()
    assert balance["held"] == 0


@pytest.mark.parametrize(
    "storage, http",
    [(False, False), (True, False), (True, True)],
    ids=["memory", "disk", "http-disk"],
)
def test_hop_that_comes_and_goes(forward, next_hop, storage, http):
    """Cut off in mid-request again and again: nothing acknowledged is lost."""
    hop = next_hop(
        lambda request, context, h: (time.sleep(0.02), service.ExportTraceServiceResponse())[1],
        http=http,
    )
    mill = forward(hop.target, storage=storage)
    clients = [Client(mill), Client(mill, by_http=True)]
    for c in clients:
        c.start()
    for _ in range(5):
        time.sleep(0.5)
        hop.stop()
        time.sleep(0.3)
        hop.start()
    for c in clients:
        c.finish(30)
        assert not c.wrong, c.wrong[:5]
        assert c.late == 0
    delivered(hop, clients)


@pytest.mark.parametrize("storage", [False, True], ids=["memory", "disk"])
def test_slow_hop(forward, next_hop, storage):
    def slow(request, context, hop):
        time.sleep(0.5)
        return service.ExportTraceServiceResponse()

    hop = next_hop(slow)
    mill = forward(hop.target, storage=storage)
    clients = [Client(mill) for _ in range(4)]
    for c in clients:
        c.start()
    wait_for("several answers", lambda: all(len(c.acked) > 3 for c in clients))
    for c in clients:
        c.finish()
        assert c.late == 0 and not c.wrong
    delivered(hop, clients, once_since=0)


@BOTH
def test_hop_slower_than_the_clients_deadline(forward, next_hop, http):
    """No answer outlives its client: UNAVAILABLE at least max(50 ms, 10 %) before its deadline. On a
    busy machine a tenth of a second may be too little to hear it, a tenth of ten is not."""
    over = threading.Event()

    def stuck(request, context, hop):
        over.wait(PATIENCE)
        return service.ExportTraceServiceResponse()

    patient = {"receivers": {"otlp": {"ack_timeout": "60s"}}}
    mill = forward(next_hop(stuck, http=http).target, overlay=patient)
    for seconds in (1, 3, 10, 30):
        start = time.monotonic()
        with pytest.raises(grpc.RpcError) as e:
            otlp.send_grpc(mill, otlp.request(), timeout=seconds)
        if e.value.code() == UNAVAILABLE:
            break
    over.set()
    assert e.value.code() == UNAVAILABLE, e.value
    assert seconds / 2 < time.monotonic() - start < seconds
    assert any(k == "grpc-status-details-bin" for k, _ in e.value.trailing_metadata()), (
        "no RetryInfo"
    )


def test_ack_timeout_without_a_deadline(forward, next_hop):
    """A client that names no deadline (HTTP) is answered after ack_timeout with 503 and
    Retry-After."""
    mill = forward(
        next_hop(start=False).target, overlay={"receivers": {"otlp": {"ack_timeout": "700ms"}}}
    )
    start = time.monotonic()
    answer = otlp.send_http(mill, otlp.request())
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["Retry-After"]) >= 1
    assert 0.3 < time.monotonic() - start < 4.5, "that was the ack_timeout of 5 s"


@BOTH
def test_withdrawn_requests_are_not_sent(forward, next_hop, http):
    """What was answered UNAVAILABLE while it waited in memory is not sent when the hop comes back:
    the retry is it."""
    hop = next_hop(start=False, http=http)
    mill = forward(hop.target)
    for _ in range(5):
        with pytest.raises(grpc.RpcError):
            otlp.send_grpc(mill, otlp.request(), timeout=0.5)
    hop.start()
    sent = otlp.request()
    otlp.send_grpc(mill, sent, timeout=30)
    assert set(hop.span_counts()) == set(otlp.span_ids(sent))


def test_retry_info_is_honoured(forward, next_hop):
    """UNAVAILABLE with RetryInfo of 1.2 s: no second attempt before that."""

    def first_refused(request, context, hop):
        if len(hop.calls) == 1:
            refuse(context, UNAVAILABLE, "later", 1.2)
        return service.ExportTraceServiceResponse()

    hop = next_hop(first_refused)
    mill = forward(hop.target)
    otlp.send_grpc(mill, otlp.request(), timeout=30)
    assert len(hop.calls) == 2
    assert hop.calls[1][0] - hop.calls[0][0] >= 1.15


@pytest.mark.parametrize(
    "code",
    ["UNAVAILABLE", "CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "DATA_LOSS"],
)
def test_retryable_codes(forward, next_hop, code):
    def first_refused(request, context, hop):
        if len(hop.calls) == 1:
            refuse(context, grpc.StatusCode[code], "later")
        return service.ExportTraceServiceResponse()

    hop = next_hop(first_refused)
    mill = forward(hop.target)
    response = otlp.send_grpc(mill, otlp.request(), timeout=30)
    assert response.partial_success.rejected_spans == 0
    assert len(hop.calls) == 2


@pytest.mark.parametrize(
    "code, retry_after, calls",
    [
        ("INVALID_ARGUMENT", None, 1),
        ("PERMISSION_DENIED", None, 1),
        ("UNIMPLEMENTED", None, 1),
        ("INTERNAL", None, 1),
        ("RESOURCE_EXHAUSTED", None, 1),
        ("RESOURCE_EXHAUSTED", 0.1, 2),
    ],
)
def test_permanent_codes(forward, next_hop, code, retry_after, calls):
    """A permanent refusal is not repeated: the client hears of it in partial_success and it is
    counted."""

    def refused(request, context, hop):
        if len(hop.calls) == 1:
            refuse(context, grpc.StatusCode[code], "no", retry_after)
        return service.ExportTraceServiceResponse()

    hop = next_hop(refused)
    mill = forward(hop.target)
    response = otlp.send_grpc(mill, otlp.request(n_spans=3), timeout=30)
    assert len(hop.calls) == calls
    assert response.partial_success.rejected_spans == (3 if calls == 1 else 0)
    if calls == 1:
        assert mill.metric("otelcol_exporter_send_failed_spans", exporter="otlp") == 3
        balance = mill.stop()
        assert (balance["accepted"], balance["dropped"]) == (3, 3)


@BOTH
def test_partial_success_of_the_hop(forward, next_hop, http):
    """Counted as sent, warned about, not repeated."""

    def half(request, context, hop):
        out = service.ExportTraceServiceResponse()
        out.partial_success.rejected_spans = 1
        out.partial_success.error_message = "one is too long"
        return out

    hop = next_hop(half, http=http)
    mill = forward(hop.target)
    otlp.send_grpc(mill, otlp.request(n_spans=3), timeout=30)
    mill.stop()
    assert len(hop.calls) == 1
    assert "one is too long" in mill.stderr()


@BOTH
def test_what_arrives_is_what_was_sent(forward, next_hop, http):
    """Whole, in its tenant, compressed as configured (gzip is the default)."""
    hop = next_hop(http=http)
    mill = forward(hop.target)
    sent = otlp.kitchen_sink()
    otlp.send_grpc(mill, sent, tenant="team-a")
    otlp.assert_same(hop.message(), sent)
    assert hop.metadata[0].get("x-scope-orgid") == "team-a"


@BOTH
def test_disk_queue_survives_kill(forward, next_hop, http):
    """Acknowledged with the hop dead, killed, restarted: it arrives, once."""
    hop = next_hop(start=False, http=http)
    mill = forward(hop.target, storage=True)
    sent = [otlp.request(n_spans=5) for _ in range(50)]
    for req in sent:
        otlp.send_grpc(mill, req)
    mill.kill()
    mill.start()
    hop.start()
    want = {i for req in sent for i in otlp.span_ids(req)}
    wait_for("the log's spans at the next hop", lambda: set(hop.span_counts()) >= want, 20)
    assert set(hop.span_counts().values()) == {1}
    balance = mill.stop()
    assert balance == {"accepted": 250, "delivered": 250, "dropped": 0, "held": 0}


@BOTH
def test_disk_queue_holds_at_stop(forward, next_hop, http):
    """SIGTERM with the hop dead: what the log holds is `held`, the exit status is 0."""
    mill = forward(
        next_hop(start=False, http=http).target, storage=True, overlay={"service": {"drain_timeout": "1s"}}
    )
    otlp.send_grpc(mill, otlp.request(n_spans=7))
    balance = mill.stop()
    assert balance == {"accepted": 7, "delivered": 0, "dropped": 0, "held": 7}


def test_a_queue_whose_exporter_goes_is_named(forward, next_hop):
    """An exporter gets another name while its queue has something: said at the reload and at the next
    start; under its old name it sends it."""
    hop = next_hop(start=False)
    mill = forward(hop.target, storage=True)
    for _ in range(3):
        otlp.send_grpc(mill, otlp.request(n_spans=2))
    exporters, pipeline = mill.config["exporters"], mill.config["service"]["pipelines"]["traces"]

    def rename(old, new):
        exporters[new] = exporters.pop(old)
        pipeline["exporters"] = [new]
        mill.write_config()

    rename("otlp", "otlp/new")
    mill.process.send_signal(signal.SIGHUP)
    said = re.compile(r"a queue on disk waits for an exporter of its name dir=\S+/otlp records=3 ")
    wait_for("the warning", lambda: said.search(mill.stderr()))
    assert re.search(r"sending queue keeps records on disk exporter=otlp dir=\S+/otlp records=3\n", mill.stderr())
    mill.stop()
    mill.start()
    wait_for("the warning again", lambda: said.search(mill.stderr()))
    mill.stop()
    rename("otlp/new", "otlp")
    hop.start()
    mill.start()
    wait_for("the spans", lambda: len(hop.span_counts()) == 6)
    assert mill.stop() == {"accepted": 6, "delivered": 6, "dropped": 0, "held": 0}
    assert "waits for" not in mill.stderr()


def test_queue_full(forward, next_hop):
    """A full memory queue refuses at once, retryable, and counts it."""
    mill = forward(
        next_hop(start=False).target,
        exporter={"sending_queue": {"queue_size": 2}},
        overlay={"receivers": {"otlp": {"ack_timeout": "1s"}}},
    )
    clients = [Client(mill) for _ in range(6)]
    for c in clients:
        c.start()
    wait_for("refused clients", lambda: sum(c.refused for c in clients) > 10, 15)
    for c in clients:
        c.halt()
        assert not c.wrong and c.late == 0
    assert mill.metric("otelcol_exporter_enqueue_failed_spans", exporter="otlp") > 0


@pytest.mark.parametrize("coding", ["none", "gzip", "zstd", "snappy"])
def test_codings_between_two_of_us(forward, make_mill, next_hop, coding):
    """Agent to gateway in each coding of gRPC messages, then on to a hop of another make."""
    hop = next_hop()
    gateway = make_mill(lambda ports: forwarder(ports, hop.target))
    agent = forward(f"127.0.0.1:{gateway.ports['grpc']}", exporter={"compression": coding})
    sent = otlp.kitchen_sink()
    otlp.send_grpc(agent, sent)
    otlp.assert_same(hop.message(), sent)


def test_unreachable_target_does_not_stop_the_start(forward):
    soon = {"receivers": {"otlp": {"ack_timeout": "500ms"}}}
    mill = forward(f"127.0.0.1:{free_port()}", overlay=soon)
    with pytest.raises(grpc.RpcError) as e:
        otlp.send_grpc(mill, otlp.request())
    assert e.value.code() == UNAVAILABLE


@BOTH
def test_headers(forward, next_hop, http):
    """Configured headers are sent along."""
    hop = next_hop(http=http)
    mill = forward(hop.target, exporter={"headers": {"x-token": "abc"}, "compression": "none"})
    otlp.send_grpc(mill, otlp.request())
    assert hop.metadata[0].get("x-token") == "abc"
