"""Local files as a way out and in: the file exporter and the otlp_json_file receiver, under kill -9,
rotation, truncation in place, damage and a full disk."""

import glob
import json
import os
import time

import grpc
import pytest

import otlp
import signals_data as data
import tempo
from ledger import Client, check
from mill import all_in_one, forwarder, merged, wait_for


def writer(folder, **exporter):
    """otlp in, file out."""

    def make(ports):
        return {
            "receivers": {
                "otlp": {"protocols": {"grpc": {"endpoint": f"127.0.0.1:{ports['grpc']}"}}}
            },
            "exporters": {
                "file": merged(
                    {"path": f"{folder}/spans.json", "create_directory": True}, exporter
                )
            },
            "extensions": {"health_check": {"endpoint": f"127.0.0.1:{ports['health']}"}},
            "service": {
                "extensions": ["health_check"],
                "telemetry": {"metrics": {"address": f"127.0.0.1:{ports['metrics']}"}},
                "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["file"]}},
            },
        }

    return make


def reader(tmp, pattern, **receiver):
    """All in one, whose spans come from files."""

    def make(ports):
        config = all_in_one(ports, str(tmp / "reader-data"))
        config["receivers"] = {
            "otlp_json_file": {
                "include": [pattern],
                "start_at": "beginning",
                "poll_interval": "20ms",
                "storage": "file_storage",
                **receiver,
            }
        }
        config["extensions"]["file_storage"] = {
            "directory": str(tmp / "positions"),
            "create_directory": True,
        }
        config["service"]["extensions"].insert(0, "file_storage")
        config["service"]["pipelines"]["traces"]["receivers"] = ["otlp_json_file"]
        return config

    return make


def line_of(message):
    return json.dumps(json.loads(otlp.to_json(message)), separators=(",", ":")) + "\n"


def trace_of(message):
    return next(otlp.spans_of(message)).trace_id


def append(path, *messages):
    with open(path, "a", encoding="utf-8") as f:
        for m in messages:
            f.write(m if isinstance(m, str) else line_of(m))


def wait_found(mill, *messages):
    for m in messages:
        otlp.assert_same(tempo.whole(mill, trace_of(m), n_spans=len(otlp.span_ids(m))), m)


def test_what_is_acknowledged_is_in_the_file_and_comes_back(make_mill, tmp_path):
    """Writer and reader are killed while clients send and files rotate; every acknowledged span
    comes back once."""
    folder = tmp_path / "out"
    out = make_mill(writer(folder, rotation={"max_megabytes": 1, "max_backups": 1000}))
    back = make_mill(reader(tmp_path, f"{folder}/*.json"))
    clients = [Client(out, n_spans=100) for _ in range(3)]
    for c in clients:
        c.start()
    for victim in (out, back, out, back):
        n = sum(len(c.acked) for c in clients)
        wait_for("load", lambda n=n: sum(len(c.acked) for c in clients) > n + 10, 20)
        victim.kill()
        victim.start()
    wait_for("a rotation", lambda: len(glob.glob(f"{folder}/spans-*.json")) > 0, 30)
    for c in clients:
        c.finish()
    acked = {t: m for c in clients for t, m in c.acked.items()}
    for t in acked:
        tempo.whole(back, t)
    check(back, acked)


def test_renamed_emptied_and_damaged(make_mill, tmp_path):
    """A renamed file is read to its end, one emptied in place begins anew, a bad line costs itself."""
    log = tmp_path / "spans.json"
    a, b, c, d, e, f = (otlp.request() for _ in range(6))
    append(log, a)
    mill = make_mill(reader(tmp_path, str(log), max_log_size="64KiB"))
    wait_found(mill, a)
    append(log, "{not json}\n", b, '{"resourceSpans":[' + " " * 70000 + "]}\n", "\n", c)
    wait_found(mill, b, c)
    assert mill.metric("otelcol_receiver_accepted_spans", receiver="otlp_json_file") == 3
    assert "a line cannot be read and is passed over" in mill.stderr()
    assert "a line over max_log_size is passed over" in mill.stderr()
    os.rename(log, tmp_path / "spans.json.1")
    append(tmp_path / "spans.json.1", d)  # who writes it has it open still
    append(log, e)
    wait_found(mill, d, e)
    with open(log, "w", encoding="utf-8"):
        pass
    append(log, f)
    wait_found(mill, f)


def test_half_a_line_waits_for_its_end(make_mill, tmp_path):
    log = tmp_path / "spans.json"
    a = otlp.request()
    text = line_of(a)
    append(log, text[:100])
    mill = make_mill(reader(tmp_path, str(log)))
    time.sleep(0.2)
    append(log, text[100:])
    wait_found(mill, a)
    assert "passed over" not in mill.stderr()


def test_positions_survive_a_restart(make_mill, tmp_path):
    """What was read before is not read again; what came meanwhile is, also in a file that was
    renamed meanwhile."""
    log = tmp_path / "spans.json"
    a, b, c = (otlp.request() for _ in range(3))
    append(log, a)
    mill = make_mill(reader(tmp_path, f"{tmp_path}/spans*"))
    wait_found(mill, a)
    mill.stop()
    append(log, b)
    os.rename(log, tmp_path / "spans.old")
    append(log, c)
    mill.start()
    wait_found(mill, b, c)
    assert mill.stop()["accepted"] == 2


def test_start_at_the_end(make_mill, tmp_path):
    log = tmp_path / "spans.json"
    a, b, c = (otlp.request() for _ in range(3))
    append(log, a)
    mill = make_mill(reader(tmp_path, f"{tmp_path}/*.json", start_at="end"))
    wait_for("the file", lambda: "reading a file" in mill.stderr(), 10)
    append(log, b)
    append(tmp_path / "later.json", c)  # one that came later is read whole
    wait_found(mill, b, c)
    assert tempo.get(mill, trace_of(a)) is None


@pytest.mark.parametrize("form", ["json", "proto"])
def test_formats(make_mill, tmp_path, form):
    mill = make_mill(writer(tmp_path, format=form))
    sent = [otlp.request(n_spans=3), otlp.kitchen_sink()]
    for m in sent:
        otlp.send_grpc(mill, m)
    with open(tmp_path / "spans.json", "rb") as f:
        text = f.read()
    got = []
    if form == "json":
        for line in text.splitlines():
            got.append(otlp.from_json(line.decode(), type(sent[0])()))
    while form == "proto" and text:
        n = int.from_bytes(text[:4], "big")
        got.append(type(sent[0]).FromString(text[4 : 4 + n]))
        text = text[4 + n :]
    for m, g in zip(sent, got, strict=True):
        otlp.assert_same(g, m)


def test_a_full_disk_is_try_again(make_mill, tmp_path):
    """The client is told to come again, and nothing is said to be there that is not."""
    mill = make_mill(writer(tmp_path, path="/dev/full"))
    with pytest.raises(grpc.RpcError) as e:
        otlp.send_grpc(mill, otlp.request())
    assert e.value.code() == grpc.StatusCode.UNAVAILABLE, e.value
    assert mill.stop() == {"accepted": 0, "delivered": 0, "dropped": 0, "held": 0}


@pytest.mark.parametrize("signal", ["metrics", "logs"])
def test_logs_and_metrics_go_the_same_way(make_mill, tmp_path, next_hop, signal):
    """Out to a file, in from it in a pipeline of their own with a resource processor, on to a hop:
    every field is there, and the resource has what was added."""
    hop = next_hop()

    def out_config(ports):
        config = writer(tmp_path)(ports)
        config["service"]["pipelines"] = {signal: {"receivers": ["otlp"], "exporters": ["file"]}}
        return config

    def in_config(ports):
        config = forwarder(ports, hop.target)
        config["receivers"] = {
            "otlp_json_file": {"include": [f"{tmp_path}/*.json"], "start_at": "beginning"}
        }
        config["processors"] = {
            "resource": {"attributes": [{"key": "via", "value": "file", "action": "insert"}]}
        }
        config["service"]["pipelines"] = {
            signal: {
                "receivers": ["otlp_json_file"],
                "processors": ["resource"],
                "exporters": ["otlp"],
            }
        }
        return config

    sent = data.metric_requests() if signal == "metrics" else data.log_requests(5)
    out = make_mill(out_config)
    request, response = otlp.messages_of(signal)
    with grpc.insecure_channel(f"127.0.0.1:{out.ports['grpc']}") as channel:
        channel.unary_unary(
            otlp.export_path(signal),
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )(sent, timeout=5)
    back = make_mill(in_config)
    wait_for("the request at the hop", lambda: hop.taken_of(signal), 20)
    for res in getattr(sent, f"resource_{signal}"):
        res.resource.attributes.append(otlp.string("via", "file"))
    (got,) = hop.taken_of(signal)
    assert got.SerializeToString(deterministic=True) == sent.SerializeToString(deterministic=True)
    name = "metric_points" if signal == "metrics" else "log_records"
    want = (data.n_points if signal == "metrics" else data.n_records)(sent)
    assert back.metric(f"otelcol_receiver_accepted_{name}", receiver="otlp_json_file") == want
    assert out.metric(f"otelcol_exporter_sent_{name}", exporter="file") == want


def test_a_file_has_one_writer(make_mill, tmp_path):
    mill = make_mill(writer(tmp_path))
    second = make_mill(writer(tmp_path), start=False)
    second.start(ready=False)
    assert second.wait_exit(10) == 2
    second.process = None
    assert "is written by another process" in second.stderr()
    otlp.send_grpc(mill, otlp.request())


def test_signals_share_a_file(make_mill, tmp_path, next_hop):
    """One exporter in the pipelines of three signals: one file, and all of it comes back."""
    hop = next_hop()
    signals = ["traces", "metrics", "logs"]

    def out_config(ports):
        config = writer(tmp_path)(ports)
        pipeline = config["service"]["pipelines"]["traces"]
        config["service"]["pipelines"] = {s: dict(pipeline) for s in signals}
        return config

    def in_config(ports):
        config = forwarder(ports, hop.target)
        config["receivers"] = {
            "otlp_json_file": {"include": [f"{tmp_path}/*.json"], "start_at": "beginning"}
        }
        pipeline = {"receivers": ["otlp_json_file"], "exporters": ["otlp"]}
        config["service"]["pipelines"] = {s: dict(pipeline) for s in signals}
        return config

    out = make_mill(out_config)
    sent = {"traces": otlp.request(), "metrics": data.metric_requests(), "logs": data.log_requests()}
    with grpc.insecure_channel(f"127.0.0.1:{out.ports['grpc']}") as channel:
        for signal, message in sent.items():
            request, response = otlp.messages_of(signal)
            channel.unary_unary(
                otlp.export_path(signal),
                request_serializer=request.SerializeToString,
                response_deserializer=response.FromString,
            )(message, timeout=5)
    make_mill(in_config)
    for signal, message in sent.items():
        wait_for(f"{signal} at the hop", lambda s=signal: hop.taken_of(s), 20)
        (got,) = hop.taken_of(signal)
        if signal == "traces":  # an absent status is written as an empty one
            otlp.assert_same(got, message)
            continue
        assert got.SerializeToString(deterministic=True) == message.SerializeToString(
            deterministic=True
        )
