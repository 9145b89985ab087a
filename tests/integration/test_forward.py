"""The forward connector: pipelines that feed others of their signal. An acknowledgement means what it
means without it, every span counts once, and a reload puts one in and takes it out."""

import copy

import grpc
import pytest
import requests

import otlp
import signals_data as data
from mill import forwarder, wait_for
from test_logs_metrics import send
from test_reload import hup, load, missing

SIGNALS = ["traces", "metrics", "logs"]
MAKE = {
    "traces": lambda: otlp.request(n_traces=3, n_spans=4),
    "metrics": data.metric_requests,
    "logs": lambda: data.log_requests(5),
}
COUNT = {
    "traces": lambda request: len(otlp.span_ids(request)),
    "metrics": data.n_points,
    "logs": data.n_records,
}


def pipeline(receivers, exporters, *processors):
    return {"receivers": receivers, "processors": list(processors), "exporters": exporters}


def joined(ports, target, signals=("traces",), **keys):
    """otlp -> in -> forward/a -> mid -> forward/b -> out -> the hop, of each signal."""
    config = forwarder(ports, target, **keys)
    exporters = config["service"]["pipelines"]["traces"]["exporters"]
    config["connectors"] = {"forward/a": {}, "forward/b": None}
    config["processors"] = {"batch": {"timeout": "10ms"}}
    config["service"]["pipelines"] = {
        f"{signal}/{name}": value
        for signal in signals
        for name, value in {
            "in": pipeline(["otlp"], ["forward/a"]),
            "mid": pipeline(["forward/a"], ["forward/b"], "batch"),
            "out": pipeline(["forward/b"], exporters),
        }.items()
    }
    return config


@pytest.mark.parametrize("signal", SIGNALS)
def test_two_levels_pass_everything_on(make_mill, next_hop, signal):
    """Of every signal at once: none strays into another's pipelines."""
    hop = next_hop()
    mill = make_mill(lambda ports: joined(ports, hop.target, SIGNALS))
    sent = MAKE[signal]()
    send(mill, signal, sent, "http", tenant="team-a")
    got = hop.joined(signal)
    assert got.SerializeToString(deterministic=True) == sent.SerializeToString(deterministic=True)
    assert hop.metadata[0].get("x-scope-orgid") == "team-a"
    for other in set(SIGNALS) - {signal}:
        assert not hop.taken_of(other)
    units = {"traces": 12, "metrics": 6, "logs": 6}[signal]
    for connector in ("forward/a", "forward/b"):
        where = {"connector": connector, "otel_signal": signal}
        assert mill.metric("otelcol_connector_consumed_items", **where) == COUNT[signal](sent)
        assert mill.metric("otelcol_connector_produced_items", **where) == COUNT[signal](sent)
    balance = mill.stop()
    if signal == "traces":
        assert balance == {"accepted": 12, "delivered": 12, "dropped": 0, "held": 0}
    else:
        line = f"spanmill {signal} accepted={units} delivered={units} dropped=0 held=0"
        assert line in mill.stderr().splitlines()


def test_fan_in_and_fan_out_count_once(make_mill, next_hop):
    """Two ways in, two out and one that drops everything: each span is delivered, once."""
    one, two = next_hop(), next_hop(http=True)

    def config(ports):
        out = forwarder(ports, one.target)
        out["receivers"]["zipkin"] = {"endpoint": f"127.0.0.1:{ports['zipkin']}"}
        out["exporters"]["otlp_http"] = {"endpoint": two.target}
        out["processors"] = {"filter": {"traces": {"span": ["true"]}}}
        out["connectors"] = {"forward": None}
        out["service"]["pipelines"] = {
            "traces/otlp": pipeline(["otlp"], ["forward"]),
            "traces/zipkin": pipeline(["zipkin"], ["forward"]),
            "traces/one": pipeline(["forward"], ["otlp"]),
            "traces/two": pipeline(["forward"], ["otlp_http"]),
            "traces/none": pipeline(["forward"], ["otlp"], "filter"),
        }
        return out

    mill = make_mill(config)
    otlp.send_grpc(mill, otlp.request(n_spans=5))
    zipkin = [{"traceId": f"{1:032x}", "id": f"{i:016x}", "name": "z"} for i in range(1, 4)]
    answer = requests.post(mill.url("zipkin", "/api/v2/spans"), json=zipkin, timeout=30)
    assert answer.status_code == 202
    for hop in (one, two):
        assert sorted(hop.span_counts().values()) == [1] * 8
    assert mill.stop() == {"accepted": 8, "delivered": 8, "dropped": 0, "held": 0}


def test_dropped_in_every_branch_says_why(make_mill, next_hop):
    """What only best_effort exporters and filters saw behind a connector was not delivered."""
    hop = next_hop()

    def config(ports):
        out = forwarder(ports, hop.target)
        out["exporters"]["debug"] = {"verbosity": "basic"}
        out["processors"] = {"filter": {"traces": {"span": ['name == "drop me"']}}}
        out["connectors"] = {"forward": None, "forward/looking": None}
        out["service"]["pipelines"] = {
            "traces": pipeline(["otlp"], ["forward", "forward/looking"]),
            "traces/kept": pipeline(["forward"], ["otlp"], "filter"),
            "traces/looking": pipeline(["forward/looking"], ["debug"]),
        }
        return out

    mill = make_mill(config)
    sent = otlp.request(n_spans=6)
    for i, span in enumerate(otlp.spans_of(sent)):
        span.name = "drop me" if i < 2 else "keep me"
    otlp.send_grpc(mill, sent)
    assert len(hop.span_counts()) == 4
    assert mill.metric("spanmill_dropped_spans", reason="filtered") == 2, "the rule, not the looker"
    assert mill.metric("spanmill_dropped_spans", reason="best_effort_only") == 0
    assert mill.stop() == {"accepted": 6, "delivered": 4, "dropped": 2, "held": 0}


def test_only_best_effort_behind_it(make_mill):
    def config(ports):
        out = forwarder(ports, "127.0.0.1:1")
        out["exporters"] = {"debug": {"verbosity": "basic"}}
        out["connectors"] = {"forward": None}
        out["service"]["pipelines"] = {
            "traces": pipeline(["otlp"], ["forward"]),
            "traces/looking": pipeline(["forward"], ["debug"]),
        }
        return out

    mill = make_mill(config)
    otlp.send_grpc(mill, otlp.request(n_spans=3))
    assert mill.metric("spanmill_dropped_spans", reason="best_effort_only") == 3
    assert mill.stop() == {"accepted": 3, "delivered": 0, "dropped": 3, "held": 0}


def test_answers_come_back_through_it(make_mill, next_hop):
    """A refusal for good is a partial success, "try again" is told, both as without connectors."""
    answers = ["refuse", "later", "take"]

    def behave(request, context, hop):
        how = answers[min(len(hop.calls), len(answers)) - 1]
        if how == "refuse":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not that")
        if how == "later":
            context.abort(grpc.StatusCode.UNAVAILABLE, "later")
        return otlp.messages_of("traces")[1]()

    hop = next_hop(behave)
    retry = {"retry_on_failure": {"enabled": False}}
    mill = make_mill(lambda ports: joined(ports, hop.target, exporter=retry))
    body = otlp.request(n_spans=4)
    told = otlp.send_grpc(mill, body, timeout=30)
    assert told.partial_success.rejected_spans == 4
    assert "not that" in told.partial_success.error_message
    with pytest.raises(grpc.RpcError) as e:
        otlp.send_grpc(mill, body, timeout=30)
    assert e.value.code() == grpc.StatusCode.UNAVAILABLE
    otlp.send_grpc(mill, body, timeout=30)
    assert mill.stop() == {"accepted": 8, "delivered": 4, "dropped": 4, "held": 0}


def test_kill(make_mill, next_hop, tmp_path):
    """Acknowledged before a kill -9, behind two connectors and a disk queue: it arrives, once."""
    hop = next_hop(start=False)
    where = str(tmp_path / "queue")
    mill = make_mill(lambda ports: joined(ports, hop.target, storage=where))
    sent = [otlp.request(n_spans=3) for _ in range(20)]
    for body in sent:
        otlp.send_grpc(mill, body, timeout=30)
    mill.kill()
    hop.start()
    mill.start()
    want = set().union(*map(otlp.span_ids, sent))
    wait_for("all spans at the hop", lambda: want <= set(hop.span_counts()), 60)
    wait_for("the log to be empty", lambda: mill.metric("spanmill_held_spans") == 0, 60)
    assert mill.stop() == {"accepted": 60, "delivered": 60, "dropped": 0, "held": 0}


def test_reload_puts_one_in_and_takes_it_out(make_mill, next_hop):
    """Under load: no span that was acknowledged is missing, nothing is owed at the end."""
    hop = next_hop()
    mill = make_mill(lambda ports: forwarder(ports, hop.target))
    plain = copy.deepcopy(mill.config)
    two = copy.deepcopy(plain)
    two["connectors"] = {"forward/a": {}, "forward/b": None}
    two["processors"] = {"batch": {"timeout": "10ms"}}
    two["service"]["pipelines"] = joined(mill.ports, hop.target)["service"]["pipelines"]
    one = copy.deepcopy(two)
    del one["connectors"]["forward/b"]
    one["service"]["pipelines"] = {
        "traces": pipeline(["otlp"], ["forward/a", "otlp"]),
        "traces/out": pipeline(["forward/a"], ["otlp"]),
    }
    with load(mill) as acked:
        for config in (two, one, plain, one, two, plain):
            before = len(hop.calls)
            hup(mill, config, timeout=60)
            wait_for("traffic the new way", lambda: len(hop.calls) > before + 5, 60)
    assert acked and not missing(acked, hop)
    balance = mill.stop()
    assert balance["delivered"] == balance["accepted"] > 0
