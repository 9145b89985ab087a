"""SIGHUP: from one configuration to the next while spans come in. Nothing that was acknowledged is
lost, nobody finds a closed port, the books balance, and what could not be started leaves the old
configuration in force."""

import contextlib
import copy
import random
import signal
import socket
import threading
import time

import grpc
import pytest
import requests

import otlp
import tempo
import test_jaeger
import test_zipkin
from ledger import Client, check
from mill import all_in_one, forwarder, merged, opens, wait_for
from test_kafka_exporter import producer

DONE = "SIGHUP: the configuration is in force"
BAD = "SIGHUP: the configuration has mistakes, the running one stays"
REFUSED = "SIGHUP: the new configuration cannot be started, the old one is in force again"


def reloads(mill, result):
    return mill.metric("spanmill_config_reloads", result=result)


def hup(mill, config=None, result="ok", timeout=20):
    """Write a configuration, send SIGHUP and wait until it is done with."""
    if config is not None:
        mill.config = config
        mill.write_config()
    before = reloads(mill, result)
    mill.process.send_signal(signal.SIGHUP)
    wait_for(f"a reload that is {result}", lambda: reloads(mill, result) == before + 1, timeout)


def last_line(mill, words):
    return [line for line in mill.stderr().splitlines() if words in line][-1]


class Zipkin(threading.Thread):
    """A reporter with one connection; keeps the ids of the spans that were taken."""

    def __init__(self, mill):
        super().__init__(daemon=True)
        self.mill, self.acked, self.wrong = mill, set(), []
        self.stopping = threading.Event()

    def run(self):
        session = requests.Session()
        url = self.mill.url("zipkin", "/api/v2/spans")
        while not self.stopping.is_set():
            span = test_zipkin.span()
            try:
                status = session.post(url, json=[span], timeout=30).status_code
            except requests.RequestException:
                continue
            if status == 202:
                self.acked.add(bytes.fromhex(span["id"]))
            elif status != 503:
                self.wrong.append(status)
            self.stopping.wait(0.002)

    def halt(self):
        self.stopping.set()
        self.join(60)


class Knocker(threading.Thread):
    """Connects to ports again and again; counts those that were closed."""

    def __init__(self, mill, *ports):
        super().__init__(daemon=True)
        self.ports = [mill.ports[p] for p in ports]
        self.n, self.refused = 0, 0
        self.stopping = threading.Event()

    def run(self):
        while not self.stopping.wait(0.001):
            for port in self.ports:
                with socket.socket() as s:
                    s.settimeout(30)
                    try:
                        s.connect(("127.0.0.1", port))
                        self.n += 1
                    except ConnectionRefusedError:
                        self.refused += 1

    def halt(self):
        self.stopping.set()
        self.join(60)


@contextlib.contextmanager
def load(mill, *more):
    """Clients of every kind; yields their ledger, {span id} of what was acknowledged."""
    clients = [Client(mill, by_http=i % 2 == 1, pause=0.002) for i in range(3)]
    acked = set()
    for c in [*clients, *more]:
        c.start()
    yield acked
    for c in [*clients, *more]:
        c.halt()
    for c in clients:
        assert not c.wrong, c.wrong[:3]
        assert c.acked
        acked.update(*(otlp.span_ids(req) for req in c.acked.values()))
    for c in more:
        if isinstance(c, Zipkin):
            assert c.acked and not c.wrong, c.wrong[:3]
            acked |= c.acked
        else:
            assert c.n > 0 and c.refused == 0, f"{c.refused} of {c.n + c.refused} refused"


def missing(acked, *hops):
    taken = {span for hop in hops for span in hop.span_counts()}
    return acked - taken


def everything(ports, target):
    """otlp and zipkin in, otlp out."""
    config = forwarder(ports, target)
    config["receivers"]["zipkin"] = {"endpoint": f"127.0.0.1:{ports['zipkin']}"}
    config["service"]["pipelines"]["traces"]["receivers"] = ["otlp", "zipkin"]
    return config


# ---- what changes and what stays


def test_kept_changed_started_stopped(make_mill, next_hop):
    hop = next_hop()
    mill = make_mill(lambda ports: everything(ports, hop.target))
    channel = otlp.Grpc(mill.ports["grpc"])
    channel.call(otlp.request())
    config = copy.deepcopy(mill.config)
    config["processors"] = {"batch": {"timeout": "50ms"}}
    config["service"]["pipelines"]["traces"]["processors"] = ["batch"]
    hup(mill, config)
    line = last_line(mill, DONE)
    assert 'kept=4 changed="" started="processors.batch in traces" stopped=""' in line, line
    config = copy.deepcopy(config)
    config["exporters"]["otlp"]["sending_queue"] = {"queue_size": 77}
    config["service"]["pipelines"]["traces"]["receivers"] = ["otlp"]
    hup(mill, config)
    line = last_line(mill, DONE)
    assert 'kept=3 changed=exporters.otlp started="" stopped=receivers.zipkin' in line, line
    assert mill.metric("otelcol_exporter_queue_capacity") == 77
    assert not opens(mill.ports["zipkin"]), "its receiver is no more"
    channel.call(otlp.request())  # the receiver was kept, and so is the connection
    channel.close()
    assert mill.metric("otelcol_receiver_accepted_spans", receiver="otlp") == 2
    assert mill.metric("otelcol_exporter_sent_spans") == 2, "counters go on"
    hup(mill)
    assert "SIGHUP: the configuration has not changed" in mill.stderr()
    assert mill.stop() == {"accepted": 2, "delivered": 2, "dropped": 0, "held": 0}


def test_telemetry(make_mill, next_hop, tmp_path):
    mill = make_mill(lambda ports: forwarder(ports, next_hop().target))
    config = copy.deepcopy(mill.config)
    old, new = mill.ports["metrics"], mill.ports["query"]
    config["service"]["telemetry"] = {
        "metrics": {"address": f"127.0.0.1:{new}"},
        "logs": {"level": "error", "output_paths": [str(tmp_path / "log")]},
    }
    mill.config = config
    mill.write_config()
    mill.process.send_signal(signal.SIGHUP)
    mill.ports["metrics"] = new
    wait_for("the new page", lambda: opens(new) and reloads(mill, "ok") == 1)
    wait_for("the old page's end", lambda: not opens(old))
    assert (tmp_path / "log").read_text() == "", "info lines are not wanted"
    config = copy.deepcopy(config)
    config["service"]["telemetry"]["logs"]["level"] = "debug"
    hup(mill, config)
    assert DONE in (tmp_path / "log").read_text()


def test_the_memory_limit_changes_and_goes(make_mill, next_hop):
    def limited(mib):
        out = copy.deepcopy(mill.config)
        out["processors"] = {"memory_limiter": {"check_interval": "1s", "limit_mib": mib}}
        out["service"]["pipelines"]["traces"]["processors"] = ["memory_limiter"]
        return out

    def limit():
        return mill.metric("spanmill_memory_bytes", what="limit")

    mill = make_mill(lambda ports: forwarder(ports, next_hop().target))
    plain, without = mill.config, limit()
    hup(mill, limited(100))
    assert 50 << 20 < limit() < 100 << 20
    hup(mill, limited(200))
    assert 100 << 20 < limit() < 200 << 20
    hup(mill, plain)
    assert limit() == without


# ---- what cannot be


def test_bad_file(make_mill, next_hop):
    hop = next_hop()
    mill = make_mill(lambda ports: forwarder(ports, hop.target))
    good = mill.config
    for bad, words in [
        (merged(good, {"exporters": {"otlp": {"timeout": "soon"}}}), "exporters.otlp.timeout: time"),
        (merged(good, {"exporters": {"nonsense": None}}), 'unknown type: "nonsense"'),
    ]:
        hup(mill, bad, result="failed")
        assert words in mill.stderr()
    assert mill.stderr().count(BAD) == 2
    otlp.send_grpc(mill, otlp.request())
    assert len(hop.taken) == 1
    hup(mill, merged(good, {"exporters": {"otlp": {"timeout": "3s"}}}))


def test_a_port_that_is_taken(make_mill, next_hop):
    """A new receiver cannot listen: also what was changed beside it is as before."""
    hop, other = next_hop(), next_hop()
    mill = make_mill(lambda ports: everything(ports, hop.target))
    good = mill.config
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        bad = merged(good, {"exporters": {"otlp": {"endpoint": other.target}}})
        bad["receivers"]["zipkin"] = {"endpoint": f"127.0.0.1:{s.getsockname()[1]}"}
        bad["receivers"]["otlp"] = merged(good["receivers"]["otlp"], {"ack_timeout": "4s"})
        with load(mill, Knocker(mill, "grpc", "http", "zipkin")) as acked:
            for _ in range(5):
                hup(mill, bad, result="failed")
    assert "Address already in use" in last_line(mill, REFUSED)
    assert test_zipkin.post(mill, [test_zipkin.span()]).status_code == 202
    assert not missing(acked, hop) and not other.calls
    hup(mill, merged(good, {"exporters": {"otlp": {"endpoint": other.target}}}))
    otlp.send_grpc(mill, otlp.request())
    assert other.taken


def test_a_refused_start_gives_the_log_back(make_mill):
    """The blocks exporter had to end before its successor, which then did not start for another's
    sake."""
    mill = make_mill()
    good = mill.config
    sent = otlp.request(n_spans=3)
    otlp.send_grpc(mill, sent)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        bad = merged(good, {"exporters": {"blocks": {"compression": "snappy"}}})
        bad["receivers"]["zipkin"] = {"endpoint": f"127.0.0.1:{s.getsockname()[1]}"}
        with load(mill, Knocker(mill, "grpc", "http", "zipkin", "query")) as acked:
            for _ in range(3):
                hup(mill, bad, result="failed")
                time.sleep(0.1)
    assert acked
    otlp.assert_same(tempo.get(mill, next(otlp.spans_of(sent)).trace_id), sent)
    again = otlp.request(n_spans=2)
    otlp.send_grpc(mill, again)
    otlp.assert_same(tempo.get(mill, next(otlp.spans_of(again)).trace_id), again)


# ---- under load


def variants(mill, hops):
    """Configurations to go through in turn; None is a bad file."""
    base = mill.config
    traces = {"service": {"pipelines": {"traces": {"processors": ["batch"]}}}}
    return [
        merged(base, {"exporters": {"otlp": {"endpoint": hops[1].target}}}),
        merged(base, merged(traces, {"processors": {"batch": {"timeout": "20ms"}}})),
        None,
        merged(base, {"exporters": {"otlp": {"sending_queue": {"queue_size": 500}}}}),
        merged(base, merged(traces, {"processors": {"batch": {"send_batch_size": 3}}})),
        merged(base, {"receivers": {"otlp": {"ack_timeout": "4s"}}}),
        merged(base, {"receivers": {"zipkin": {"max_request_body_size": 1 << 20}}}),
        base,
    ]


def test_a_hundred_reloads_under_load(make_mill, next_hop):
    hops = next_hop(), next_hop()
    mill = make_mill(lambda ports: everything(ports, hops[0].target))
    all_of_them = variants(mill, hops)
    clients = Zipkin(mill), Knocker(mill, "grpc", "http", "zipkin")
    with load(mill, *clients) as acked:
        for i in range(100):
            config = all_of_them[i % len(all_of_them)]
            if config is None:
                hup(mill, merged(all_of_them[-1], {"exporters": {"otlp": {"endpoint": 7}}}),
                    result="failed")
            else:
                hup(mill, config)
    assert len(hops[1].taken) > 0
    assert not missing(acked, *hops)
    assert reloads(mill, "ok") + reloads(mill, "failed") == 100
    balance = mill.stop()
    assert balance["accepted"] == balance["delivered"] >= len(acked)


def test_a_storm_is_one_after_the_other(make_mill, next_hop):
    """Signals that come while one is on are taken as one; SIGTERM is not kept waiting."""
    hop = next_hop(lambda request, context, hop: time.sleep(0.05) or otlp.service.ExportTraceServiceResponse())
    mill = make_mill(lambda ports: forwarder(ports, hop.target))
    base = mill.config
    with load(mill) as acked:
        for i in range(60):
            mill.config = merged(base, {"exporters": {"otlp": {"timeout": f"{5 + i % 2}s"}}})
            mill.write_config()
            for _ in range(3):
                mill.process.send_signal(signal.SIGHUP)
            time.sleep(0.002)
        mill.process.send_signal(signal.SIGHUP)
        balance = mill.stop()
    assert balance["accepted"] == balance["delivered"] >= len(acked)
    assert not missing(acked, hop)


# ---- logs


def queue_on_disk(tmp_path, target, **exporter):
    def make(ports):
        return forwarder(ports, target, merged({"timeout": "1s"}, exporter), str(tmp_path / "q"))

    return make


def test_the_queue_on_disk_goes_to_the_successor(make_mill, next_hop, tmp_path):
    away, hop = next_hop(start=False), next_hop()
    mill = make_mill(queue_on_disk(tmp_path, away.target))
    sent = [otlp.request(n_spans=2) for _ in range(10)]
    for request in sent[:5]:
        otlp.send_grpc(mill, request)
    for seconds in (2, 3, 2):
        hup(mill, merged(mill.config, {"exporters": {"otlp": {"timeout": f"{seconds}s"}}}))
        wait_for("the log's spans", lambda: mill.metric("spanmill_held_spans") == 10)
        assert mill.metric("spanmill_accepted_spans") == 10, "counted once"
    for request in sent[5:]:
        otlp.send_grpc(mill, request)
    assert mill.metric("spanmill_accepted_spans") == 20
    hup(mill, merged(mill.config, {"exporters": {"otlp": {"endpoint": hop.target}}}))
    wait_for("all of them", lambda: len(hop.span_counts()) == 20)
    assert not missing({s for r in sent for s in otlp.span_ids(r)}, hop)
    assert mill.stop() == {"accepted": 20, "delivered": 20, "dropped": 0, "held": 0}


def test_the_queue_on_disk_under_load(make_mill, next_hop, tmp_path):
    hops = next_hop(), next_hop()
    mill = make_mill(queue_on_disk(tmp_path, hops[0].target))
    base = mill.config
    other = merged(base, {"exporters": {"otlp": {"endpoint": hops[1].target}}})
    with load(mill, Knocker(mill, "grpc", "http")) as acked:
        for i in range(20):
            hup(mill, other if i % 2 == 0 else base)
    wait_for("an empty queue", lambda: mill.metric("spanmill_held_spans") == 0)
    assert not missing(acked, *hops) and all(hop.taken for hop in hops)
    balance = mill.stop()
    assert balance["accepted"] == balance["delivered"] >= len(acked)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_kill_in_the_middle(make_mill, next_hop, tmp_path, seed):
    """kill -9 at any moment of a reload loses nothing that was acknowledged."""
    dice = random.Random(seed)
    hop = next_hop()
    mill = make_mill(queue_on_disk(tmp_path, hop.target))
    base = mill.config
    with load(mill) as acked:
        for i in range(4):
            hup(mill, merged(base, {"exporters": {"otlp": {"timeout": f"{i + 2}s"}}}))
        mill.config = merged(base, {"exporters": {"otlp": {"timeout": "9s"}}})
        mill.write_config()
        mill.process.send_signal(signal.SIGHUP)
        time.sleep(dice.uniform(0, 0.02))
        mill.kill()
        mill.start()
        time.sleep(0.1)  # they find it again
    wait_for("an empty queue", lambda: mill.metric("spanmill_held_spans") == 0)
    assert not missing(acked, hop)


def test_blocks_under_load(make_mill):
    """The log of the block builder has one owner after the other, with the trace_store, too."""
    mill = make_mill()
    base = mill.config
    store = {"extensions": {"trace_store": {"blocklist_poll": "2s"}}}
    clients = [Client(mill, by_http=i == 1, pause=0.005) for i in range(2)]
    knocker = Knocker(mill, "grpc", "http", "query")
    for c in [*clients, knocker]:
        c.start()
    for i in range(12):
        hup(mill, merged(base, {"exporters": {"blocks": {"max_block_traces": 20 + i % 2}}}))
        if i % 4 == 3:
            hup(mill, merged(base, store))
    for c in [*clients, knocker]:
        c.halt()
    assert knocker.n > 0 and knocker.refused == 0
    acked = {k: v for c in clients for k, v in c.acked.items()}
    assert acked and not any(c.wrong for c in clients)
    check(mill, acked)
    balance = mill.stop()
    assert balance["accepted"] == balance["delivered"] >= sum(
        len(list(otlp.spans_of(r))) for r in acked.values()
    )


def test_kafka_there_and_back(make_mill, kafka):
    """The exporter changes while it produces; the receiver goes on where it was when the blocks it
    feeds have another owner."""
    topic = kafka.create_topic(partitions=2)
    out = make_mill(producer(kafka, topic))

    def reader(ports):
        config = all_in_one(ports, "data")
        config["receivers"] = {
            "kafka": {
                "brokers": kafka.addresses,
                "traces": {"topics": [topic]},
                "group_id": f"g-{topic}",
            }
        }
        config["service"]["pipelines"]["traces"]["receivers"] = ["kafka"]
        return config

    back = make_mill(reader)
    client = Client(out, pause=0.005)
    client.start()
    for i in range(6):
        hup(out, merged(out.config, {"exporters": {"kafka": {"producer": {"linger": f"{i + 1}ms"}}}}))
        if i % 3 == 0:
            hup(back, merged(back.config, {"exporters": {"blocks": {"max_block_age": f"{i + 1}s"}}}))
    client.halt()
    assert client.acked and not client.wrong
    n = sum(len(list(otlp.spans_of(r))) for r in client.acked.values())
    hup(back, merged(back.config, {"exporters": {"blocks": {"max_block_age": "100ms"}}}))
    wait_for("all in blocks", lambda: back.metric("spanmill_delivered_spans") >= n, 30)
    # what was not acknowledged counts there, too, so one or another may still be on its way
    check(back, client.acked, look_up=lambda *at, **keys: tempo.whole(*at, **keys, n_spans=4))


def test_datagrams_wait_in_the_kernel(make_mill, next_hop):
    """The jaeger receiver is changed while datagrams come: its successor reads what is in the
    socket, none is lost."""
    hop = next_hop()
    overlay, ports = test_jaeger.with_jaeger(queue_size=500)
    mill = make_mill(lambda p: merged(forwarder(p, hop.target), overlay))
    datagram = test_jaeger.golden("conv_batch_01.udp-compact-oneway.bin")
    test_jaeger.send(ports["compact"], datagram)
    each = wait_for("the first", lambda: mill.metric("spanmill_accepted_spans"))
    base, n = mill.config, 1
    for i in range(10):
        changed = {"thrift_compact": {"queue_size": 501 + i}}
        mill.config = merged(base, {"receivers": {"jaeger": {"protocols": changed}}})
        mill.write_config()
        before = reloads(mill, "ok")
        mill.process.send_signal(signal.SIGHUP)
        room = 30  # the socket holds that many while nobody reads
        while room == 30 or reloads(mill, "ok") == before:
            for _ in range(min(3, room)):
                test_jaeger.send(ports["compact"], datagram)
                n, room = n + 1, room - 1
    wait_for("all spans", lambda: mill.metric("spanmill_accepted_spans") >= n * each)
    balance = mill.stop()
    assert balance["accepted"] == balance["delivered"] == n * each
    assert n >= 30


def test_grpc_clients_are_sent_on(make_mill, next_hop):
    """A changed receiver says goodbye to its connections and answers what is under way."""
    gate = threading.Event()

    def slow(request, context, hop):
        gate.wait(60)
        return otlp.service.ExportTraceServiceResponse()

    hop = next_hop(slow)
    patient = {"receivers": {"otlp": {"ack_timeout": "60s"}}, "exporters": {"otlp": {"timeout": "60s"}}}
    mill = make_mill(lambda ports: merged(forwarder(ports, hop.target), patient))
    channel = otlp.Grpc(mill.ports["grpc"])
    answers = []
    thread = threading.Thread(target=lambda: answers.append(channel.call(otlp.request(), timeout=30)))
    thread.start()
    wait_for("the call", lambda: hop.calls)
    mill.config = merged(mill.config, {"receivers": {"otlp": {"ack_timeout": "59s"}}})
    mill.write_config()
    mill.process.send_signal(signal.SIGHUP)
    wait_for("the successor", lambda: mill.stderr().count("Starting GRPC server") == 2)
    second = otlp.Grpc(mill.ports["grpc"])
    gate.set()
    second.call(otlp.request())
    thread.join()
    channel.call(otlp.request())
    assert len(answers) == 1 and len(hop.taken) == 3
    for c in (channel, second):
        c.close()
