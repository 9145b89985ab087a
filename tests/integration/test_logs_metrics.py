"""Logs and metrics: taken by the otlp receiver, counted and not looked into, sent on whole by every
exporter that carries them."""

import copy
import json
import time

import grpc
import pytest

import otlp
import signals_data as data
from mill import PATIENCE, forwarder, run, wait_for
from test_reload import hup

SIGNALS = ["metrics", "logs"]
ITEMS = {"metrics": "metric_points", "logs": "log_records"}
MAKE = {"metrics": data.metric_requests, "logs": lambda: data.log_requests(5)}
COUNT = {"metrics": data.n_points, "logs": data.n_records}


@pytest.fixture
def forward(make_mill, tmp_path):
    """A mill that sends all three signals on to a hop, by gRPC or HTTP."""

    def make(target, exporter=None, storage=False, overlay=None):
        where = str(tmp_path / "queue") if storage else None

        def config(ports):
            out = forwarder(ports, target, exporter, where)
            for signal in SIGNALS:
                out["service"]["pipelines"][signal] = out["service"]["pipelines"]["traces"]
            return out

        return make_mill(config, overlay)

    return make


def send(mill, signal, body, how, **keys):
    """By gRPC, HTTP with protobuf, or HTTP with JSON. Returns the response."""
    if how == "grpc":
        with grpc.insecure_channel(f"127.0.0.1:{mill.ports['grpc']}") as channel:
            request, response = otlp.messages_of(signal)
            stub = channel.unary_unary(
                otlp.export_path(signal),
                request_serializer=lambda m: m if isinstance(m, bytes) else m.SerializeToString(),
                response_deserializer=response.FromString,
            )
            tenant = keys.get("tenant")
            return stub(body, timeout=30, metadata=[("x-scope-orgid", tenant)] if tenant else [])
    kind = otlp.PROTOBUF if how == "http" else "application/json"
    answer = otlp.send_http(mill, body, kind=kind, path=f"/v1/{signal}", **keys)
    assert answer.status_code == 200, answer.text
    return answer


def same(got, want):
    """Field by field, presence and NaN among them: the deterministic bytes."""
    if got.SerializeToString(deterministic=True) != want.SerializeToString(deterministic=True):
        assert str(got) == str(want)
        raise AssertionError("the same text and other bytes")


def parts_of(m, signal):
    """What a message holds, in whatever order it came."""
    return sorted(r.SerializeToString(deterministic=True) for r in getattr(m, f"resource_{signal}"))


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("how", ["grpc", "http", "json"])
@pytest.mark.parametrize("out", ["grpc", "http", "http-json"])
def test_every_field_arrives(forward, next_hop, signal, how, out):
    hop = next_hop(http=out != "grpc")
    mill = forward(hop.target, exporter={"encoding": "json"} if out == "http-json" else None)
    sent = MAKE[signal]()
    send(mill, signal, sent, how, tenant="team-a")
    same(hop.joined(signal), sent)
    assert hop.metadata[0].get("x-scope-orgid") == "team-a"
    n, transport = COUNT[signal](sent), "grpc" if how == "grpc" else "http"
    items = ITEMS[signal]
    assert mill.metric(f"otelcol_receiver_accepted_{items}", transport=transport) == n
    assert mill.metric(f"otelcol_exporter_sent_{items}") == n
    assert mill.metric("otelcol_receiver_accepted_spans") == 0
    balance = mill.stop()
    assert balance["accepted"] == 0, "logs and metrics are in books of their own"
    units = n if signal == "logs" else 6  # settled metric by metric
    line = f"spanmill {signal} accepted={units} delivered={units} dropped=0 held=0"
    assert line in mill.stderr().splitlines()


@pytest.mark.parametrize("signal", SIGNALS)
def test_books_of_a_disk_queue(forward, next_hop, signal):
    """What lies in the log is held, over a restart too, and delivered when the hop is there."""
    hop = next_hop(start=False)
    mill = forward(hop.target, storage=True, overlay={"service": {"drain_timeout": "1s"}})
    send(mill, signal, MAKE[signal](), "grpc")
    units = 6

    def books():
        return {
            w: mill.metric("spanmill_items", data_type=signal, what=w)
            for w in ("accepted", "delivered", "dropped", "held")
        }

    held = {"accepted": units, "delivered": 0, "dropped": 0, "held": units}
    wait_for("the log's count", lambda: books() == held)
    mill.stop()
    assert f"spanmill {signal} accepted={units} delivered=0 dropped=0 held={units}" in mill.stderr()
    mill.start()
    wait_for("what was found", lambda: books() == held)
    hop.start()
    done = {"accepted": units, "delivered": units, "dropped": 0, "held": 0}
    wait_for("the delivery", lambda: books() == done, 20)
    same(hop.joined(signal), hop.taken_of(signal)[0])


@pytest.mark.parametrize("signal", SIGNALS)
def test_unknown_fields_survive(forward, next_hop, signal):
    """What the protocol has after our time goes on byte for byte."""
    hop = next_hop()
    mill = forward(hop.target)
    body = MAKE[signal]().SerializeToString() + bytes.fromhex("a23e037a7978")
    send(mill, signal, body, "grpc")
    assert hop.joined(signal).SerializeToString().count(b"zyx") == 1


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("http", [False, True], ids=["grpc", "http"])
def test_disk_queue_survives_kill(forward, next_hop, signal, http):
    """Acknowledged with the hop dead, killed, restarted: it arrives. Each signal has its own log, which
    fsck knows."""
    hop = next_hop(start=False, http=http)
    mill = forward(hop.target, storage=True)
    sent = [MAKE[signal]() for _ in range(10)]
    for req in sent:
        send(mill, signal, req, "grpc")
    mill.kill()
    mill.start()
    hop.start()
    want = otlp.messages_of(signal)[0]()
    for req in sent:
        want.MergeFrom(req)
    wait_for(
        "everything at the hop",
        lambda: len(hop.joined(signal).SerializeToString()) >= want.ByteSize(),
        20,
    )
    assert parts_of(hop.joined(signal), signal) == parts_of(want, signal)
    balance = mill.stop()
    assert balance["accepted"] == 0


@pytest.mark.parametrize("signal", SIGNALS)
def test_damage_is_refused(forward, next_hop, signal):
    """A cut request, and one whose record is cut, by each way in; nothing goes on."""
    hop = next_hop()
    mill = forward(hop.target)
    whole = MAKE[signal]().SerializeToString()
    # In a record of a scope of a resource: a field that is longer than the record.
    broken = bytes.fromhex("0a06120412021a05")
    for body in (whole[:-3], broken):
        with pytest.raises(grpc.RpcError) as e:
            send(mill, signal, body, "grpc")
        assert e.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        answer = otlp.send_http(mill, body, path=f"/v1/{signal}")
        assert answer.status_code == 400
        assert "damaged protobuf" in answer.text
    answer = otlp.send_http(mill, '{"resource', kind="application/json", path=f"/v1/{signal}")
    assert answer.status_code == 400
    assert mill.metric("spanmill_receiver_damaged_requests", transport="grpc", data_type=signal) == 2
    assert mill.metric("spanmill_receiver_damaged_requests", transport="http", data_type=signal) == 3
    assert not hop.calls


def test_signal_without_pipeline(make_mill, next_hop):
    """As the Collector: UNIMPLEMENTED and 404; and the signals that have one are served."""
    hop = next_hop()

    def config(ports):
        out = forwarder(ports, hop.target)
        out["service"]["pipelines"] = {"logs": out["service"]["pipelines"]["traces"]}
        return out

    mill = make_mill(config)
    send(mill, "logs", data.log_requests(), "grpc")
    for signal in ("traces", "metrics"):
        body = otlp.request() if signal == "traces" else data.metric_requests()
        with pytest.raises(grpc.RpcError) as e:
            send(mill, signal, body, "grpc")
        assert e.value.code() == grpc.StatusCode.UNIMPLEMENTED
        assert otlp.send_http(mill, body, path=f"/v1/{signal}").status_code == 404
    assert len(hop.calls) == 1


@pytest.mark.parametrize("signal", SIGNALS)
def test_partial_success_and_refusal(forward, next_hop, signal):
    """What the hop refuses is counted and told; a permanent refusal is not repeated."""
    _, response = otlp.messages_of(signal)
    field = "rejected_log_records" if signal == "logs" else "rejected_data_points"

    def half(request, context, hop):
        if len(hop.calls) > 1:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not that")
        out = response()
        setattr(out.partial_success, field, 1)
        out.partial_success.error_message = "one is too old"
        return out

    hop = next_hop(half)
    mill = forward(hop.target)
    sent = MAKE[signal]()
    told = send(mill, signal, sent, "grpc")
    assert getattr(told.partial_success, field) == 1
    assert "one is too old" in told.partial_success.error_message
    told = send(mill, signal, sent, "grpc")
    assert getattr(told.partial_success, field) == COUNT[signal](sent)
    told = send(mill, signal, sent, "json").json()
    assert int(told["partialSuccess"]["rejectedLogRecords" if signal == "logs"
               else "rejectedDataPoints"]) == COUNT[signal](sent)
    assert len(hop.calls) == 3
    failed = mill.metric(f"otelcol_exporter_send_failed_{ITEMS[signal]}")
    assert failed == 2 * COUNT[signal](sent)


@pytest.mark.parametrize("signal", SIGNALS)
def test_processors_pass_them(forward, next_hop, signal):
    """batch joins requests, memory_limiter lets them pass; tenants do not mix."""
    hop = next_hop()
    pipelines = {
        "processors": {
            "batch": {"timeout": "500ms"},
            "memory_limiter": {"check_interval": "1s", "limit_mib": 100},
        },
        "service": {"pipelines": {signal: {"processors": ["memory_limiter", "batch"]}}},
        "receivers": {"otlp": {"ack": "early"}},
    }
    mill = forward(hop.target, overlay=pipelines)
    message, response = otlp.messages_of(signal)
    want, n_sent = {"a": message(), "b": message()}, 0

    def arrived():
        with hop.lock:  # calls run beside each other: only with its own metadata is a request its tenant's
            taken = {t: list(v.get(signal, ())) for t, v in hop.tenants.items()}
        got.clear()
        for tenant, some in taken.items():
            got[tenant] = message()
            for req in some:
                got[tenant].MergeFrom(req)
        return {t: m.ByteSize() for t, m in got.items()} == {t: m.ByteSize() for t, m in want.items()}

    got = {}
    deadline = time.monotonic() + PATIENCE
    with grpc.insecure_channel(f"127.0.0.1:{mill.ports['grpc']}") as channel:
        stub = channel.unary_unary(
            otlp.export_path(signal),
            request_serializer=message.SerializeToString,
            response_deserializer=response.FromString,
        )
        # What comes within a few milliseconds is joined: five at once, until some did.
        while len(hop.taken_of(signal)) == n_sent:
            assert time.monotonic() < deadline, "nothing was joined"
            calls = []
            for tenant, _ in [(t, i) for t in want for i in range(5)]:
                req = MAKE[signal]()
                want[tenant].MergeFrom(req)
                calls.append(stub.future(req, timeout=30, metadata=[("x-scope-orgid", tenant)]))
                n_sent += 1
            for call in calls:
                call.result()
            wait_for("everything at the hop", arrived)
    n = sum(COUNT[signal](m) for m in want.values())
    for tenant in want:
        assert parts_of(got[tenant], signal) == parts_of(want[tenant], signal)
    assert mill.metric(
        "otelcol_processor_outgoing_items", processor="batch", otel_signal=signal
    ) == n


@pytest.mark.parametrize("signal", SIGNALS)
def test_large_requests_are_cut_between_items(forward, next_hop, signal):
    hop = next_hop()
    mill = forward(hop.target, exporter={"max_message_bytes": 3000})
    sent = data.log_requests(200) if signal == "logs" else data.metric_requests()
    send(mill, signal, sent, "grpc")
    assert len(hop.taken_of(signal)) > 1

    def items(m):
        field = "log_records" if signal == "logs" else "metrics"
        return [
            i.SerializeToString(deterministic=True)
            for r in getattr(m, f"resource_{signal}")
            for s in getattr(r, f"scope_{signal}")
            for i in getattr(s, field)
        ]

    assert sorted(items(hop.joined(signal))) == sorted(items(sent))


def test_reload_adds_a_signal(make_mill, next_hop):
    """SIGHUP with a pipeline more: the signal is served from then on, on the same port; and taken out
    again it is not."""
    hop = next_hop()
    mill = make_mill(lambda ports: forwarder(ports, hop.target))
    without = mill.config
    with_logs = copy.deepcopy(without)
    with_logs["service"]["pipelines"]["logs"] = with_logs["service"]["pipelines"]["traces"]
    sent = data.log_requests()
    for config, served in ((without, False), (with_logs, True), (without, False)):
        if mill.config is not config:
            hup(mill, config)
        otlp.send_grpc(mill, otlp.request())
        if served:
            send(mill, "logs", sent, "grpc")
            send(mill, "logs", sent, "json")
            continue
        assert otlp.send_http(mill, sent, path="/v1/logs").status_code == 404
        with pytest.raises(grpc.RpcError) as e:
            send(mill, "logs", sent, "grpc")
        assert e.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert len(hop.taken_of("logs")) == 2 and len(hop.taken) == 3


def test_debug_shows_them(make_mill):
    def config(ports):
        out = forwarder(ports, "127.0.0.1:1")
        out["exporters"]["debug"] = {"verbosity": "detailed"}
        out["service"]["pipelines"] = {
            s: {"receivers": ["otlp"], "exporters": ["debug"]} for s in ("traces", *SIGNALS)
        }
        return out

    mill = make_mill(config)
    logs, metrics = data.log_requests(2), data.metric_requests()
    send(mill, "logs", logs, "grpc")
    send(mill, "metrics", metrics, "json")
    mill.stop()
    lines = mill.stderr().splitlines()
    at = next(i for i, line in enumerate(lines) if "info Logs resource_logs=1 log_records=3" in line)
    same(otlp.from_json(lines[at + 1], otlp.messages_of("logs")[0]()), logs)
    points = data.n_points(metrics)
    at = next(
        i
        for i, line in enumerate(lines)
        if f"info Metrics resource_metrics=1 metrics=6 data_points={points}" in line
    )
    same(otlp.from_json(lines[at + 1], otlp.messages_of("metrics")[0]()), metrics)


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("encoding", ["otlp_proto", "otlp_json"])
def test_kafka(kafka, make_mill, tmp_path, signal, encoding):
    """Into a topic of the signal's own, over all its partitions, in records that the topic takes,
    behind a disk queue."""
    topic = kafka.create_topic(partitions=4)

    def config(ports):
        out = forwarder(ports, "127.0.0.1:1", storage=str(tmp_path / "queue"))
        out["exporters"] = {
            "kafka": {
                "brokers": kafka.addresses,
                signal: {"topic": topic, "encoding": encoding},
                "producer": {"max_message_bytes": 20000, "linger": "5ms"},
                "sending_queue": {"storage": "file_storage"},
            }
        }
        out["service"]["pipelines"] = {signal: {"receivers": ["otlp"], "exporters": ["kafka"]}}
        return out

    mill = make_mill(config)
    message = otlp.messages_of(signal)[0]
    sent = [MAKE[signal]() for _ in range(20)]
    for i, req in enumerate(sent):
        send(mill, signal, req, "grpc" if i % 2 else "json", tenant="t")
    points = sum(COUNT[signal](r) for r in sent)
    wait_for(
        "all to be sent",
        lambda: mill.metric(f"otelcol_exporter_sent_{ITEMS[signal]}", exporter="kafka") == points,
        30,
    )
    records = kafka.consume_all(topic)
    got = []
    for r in records:
        assert r.headers == {"tenant": b"t"}
        m = message()
        m = otlp.from_json(r.value, m) if encoding == "otlp_json" else message.FromString(r.value)
        got.append(m)
    assert len({r.partition for r in records}) > 1

    def items(messages):
        field = "log_records" if signal == "logs" else "metrics"
        return sorted(
            (r.resource.SerializeToString(), s.scope.SerializeToString(), i.SerializeToString())
            for m in messages
            for r in getattr(m, f"resource_{signal}")
            for s in getattr(r, f"scope_{signal}")
            for i in getattr(s, field)
        )

    assert items(got) == items(sent)


def test_unsupported_components(tmp_path):
    """zipkin carries traces only, and says so."""
    path = tmp_path / "c.yaml"
    path.write_text(
        json.dumps(
            {
                "receivers": {"zipkin": {}},
                "exporters": {"debug": {}},
                "service": {
                    "pipelines": {"logs/x": {"receivers": ["zipkin"], "exporters": ["debug"]}}
                },
            }
        )
    )
    status, _, err = run("validate", "--config", str(path))
    assert status == 1
    assert 'receiver "zipkin" does not support logs' in err
