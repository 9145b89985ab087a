"""The kafka exporter against a real broker: what it acknowledged is in the topic, whole and once; a
Python consumer reads the records with the official OTLP classes."""

import base64
import collections
import json
import os
import random
import subprocess
import threading
import time
from concurrent import futures

import grpc
import pytest
import requests
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service

import otlp
import tempo
from kafka_bed import PASSWORD, ROOT, USER, Kafka, Secure, java, newer_librdkafka
from ledger import Client
from mill import SANITIZED, forwarder, merged, wait_for


def producer(kafka, topic, exporter=None, storage=None, overlay=None):
    """A configuration: otlp in, kafka out; with storage the queue is on disk there."""

    def make(ports):
        config = forwarder(ports, "127.0.0.1:1", storage=storage)
        out = merged(
            {
                "brokers": kafka.addresses,
                "traces": {"topic": topic},
                "retry_on_failure": {"initial_interval": "100ms", "max_interval": "500ms"},
            },
            exporter,
        )
        if storage:
            out["sending_queue"] = merged(
                {"storage": "file_storage"}, (exporter or {}).get("sending_queue")
            )
        config["exporters"] = {"kafka": out}
        config["service"]["pipelines"]["traces"]["exporters"] = ["kafka"]
        return merged(config, overlay)

    return make


def decode(record):
    return service.ExportTraceServiceRequest.FromString(record.value)


def joined(records):
    """Everything in the records as one request."""
    out = service.ExportTraceServiceRequest()
    for r in records:
        out.resource_spans.extend(decode(r).resource_spans)
    return out


def by_java(trace_ids, n):
    """The partitions that the Java producer chooses for the hex keys of these traces."""
    source = os.path.join(ROOT, "tests", "clients", "java", "Partition.java")
    done = subprocess.run(
        java(source, str(n)),
        input="".join(f"{t.hex()}\n" for t in trace_ids),
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(zip(trace_ids, map(int, done.stdout.split()), strict=True))


def by_fnv1a(kafka, trace_ids, n):
    """The same of librdkafka's fnv1a, which it says is Sarama's."""
    topic = kafka.create_topic(partitions=n)
    kafka.produce(topic, [{"key": t.hex(), "value": b""} for t in trace_ids], partitioner="fnv1a")
    return {bytes.fromhex(r.key.decode()): r.partition for r in kafka.consume_all(topic)}


def send_all(mill, requests, **keys):
    """Send requests over one channel; each must be taken whole."""
    client = otlp.Grpc(mill.ports["grpc"])
    try:
        for request in requests:
            response = client.call(request, timeout=30, **keys)
            assert not response.partial_success.rejected_spans, response
    finally:
        client.close()


def test_spans_come_out_whole_and_in_their_partition(kafka, make_mill):
    topic = kafka.create_topic(partitions=8)
    mill = make_mill(producer(kafka, topic))
    sent = otlp.kitchen_sink()
    many = otlp.request(n_traces=100, n_spans=3)
    sent.resource_spans.extend(many.resource_spans)
    otlp.send_grpc(mill, sent)
    records = kafka.consume_all(topic)
    assert otlp.rows(joined(records)) == otlp.rows(sent)
    assert len(records) <= 8
    partition = {}
    for r in records:
        assert r.key is None
        assert r.headers == {"tenant": b"single-tenant"}
        for span in otlp.spans_of(decode(r)):
            assert partition.setdefault(span.trace_id, r.partition) == r.partition
    assert mill.metric("otelcol_exporter_sent_spans") == 324
    assert mill.stop()["delivered"] == 324


def test_partitions_are_those_of_other_clients(kafka, make_mill):
    sent = [otlp.request(n_traces=1000) for _ in range(10)]
    ids = [span.trace_id for request in sent for span in otlp.spans_of(request)]
    for hasher, want in (("murmur2", by_java(ids, 64)), ("sarama_compat", by_fnv1a(kafka, ids, 64))):
        topic = kafka.create_topic(partitions=64)
        partitioner = {"sticky_key": {"hasher": hasher}}
        mill = make_mill(producer(kafka, topic, {"record_partitioner": partitioner}))
        send_all(mill, sent)
        got = {s.trace_id: r.partition for r in kafka.consume_all(topic) for s in otlp.spans_of(decode(r))}
        assert got == want, hasher


def test_one_record_per_trace_with_its_id_as_key(kafka, make_mill):
    topic = kafka.create_topic(partitions=4)
    mill = make_mill(producer(kafka, topic, {"partition_traces_by_id": True}))
    sent = otlp.request(n_traces=50, n_spans=4)
    otlp.send_grpc(mill, sent)
    records = kafka.consume_all(topic)
    assert otlp.rows(joined(records)) == otlp.rows(sent)
    assert len(records) == 50
    for r in records:
        assert {s.trace_id.hex().encode() for s in otlp.spans_of(decode(r))} == {r.key}
    want = by_java([bytes.fromhex(r.key.decode()) for r in records], 4)
    assert all(want[bytes.fromhex(r.key.decode())] == r.partition for r in records)


def test_records_of_many_requests_are_joined(kafka, make_mill):
    """Until they are full or have lingered; the answers come when the record has arrived."""
    topic = kafka.create_topic(partitions=4)
    mill = make_mill(producer(kafka, topic, {"producer": {"linger": "300ms"}}))
    sent = [otlp.request(n_traces=20) for _ in range(8)]
    with futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda request: otlp.send_grpc(mill, request), sent))
    records = kafka.consume_all(topic)
    assert sum(len(otlp.span_ids(decode(r))) for r in records) == 160
    assert len(records) <= 12, "8 requests over 4 partitions"
    assert mill.metric("spanmill_kafka_produced_records") == len(records)


def test_what_a_client_was_told_to_send_again_is_not_sent(kafka, make_mill):
    """Two clients in one record that lingers: one goes before it is sent."""
    topic = kafka.create_topic()
    mill = make_mill(
        producer(kafka, topic, {"producer": {"linger": "4s"}}, overlay={"receivers": {"otlp": {"ack_timeout": "60s"}}})
    )
    gone, stays = otlp.request(n_spans=5), otlp.request(n_spans=7)
    with futures.ThreadPoolExecutor(1) as pool:
        stayed = pool.submit(otlp.send_grpc, mill, stays, timeout=60)
        with pytest.raises(grpc.RpcError):
            otlp.send_grpc(mill, gone, timeout=0.5)
        stayed.result()
    assert otlp.rows(joined(kafka.consume_all(topic))) == otlp.rows(stays)
    assert mill.stop() == {"accepted": 7, "delivered": 7, "dropped": 0, "held": 0}


def test_otlp_json(kafka, make_mill):
    topic = kafka.create_topic(partitions=2)
    mill = make_mill(producer(kafka, topic, {"encoding": "otlp_json"}))
    sent = otlp.kitchen_sink()
    otlp.send_grpc(mill, sent)
    got = service.ExportTraceServiceRequest()
    for r in kafka.consume_all(topic):
        otlp.from_json(r.value, got)
    otlp.assert_same(got, sent)


@pytest.mark.parametrize("encoding", ["zipkin_json", "zipkin_proto"])
def test_zipkin_encodings(kafka, make_mill, encoding):
    """Lists of Zipkin spans, by trace and within the limit by their own size; what another process
    reads from them is what was sent."""
    topic = kafka.create_topic(partitions=2)
    limits = {"producer": {"max_message_bytes": 4000}}
    mill = make_mill(producer(kafka, topic, {"traces": {"topic": topic, "encoding": encoding}, **limits}))
    sent = otlp.request(n_spans=60)
    otlp.send_grpc(mill, sent)
    records = kafka.consume_all(topic)
    assert len(records) > 2 and max(len(r.value) for r in records) < 4000
    want = {sp.span_id: sp for sp in otlp.spans_of(sent)}
    back = make_mill()
    kind = "application/json" if encoding == "zipkin_json" else "application/x-protobuf"
    for r in records:
        if encoding == "zipkin_json":
            assert {bytes.fromhex(sp["id"]) for sp in json.loads(r.value)} <= set(want)
        answer = requests.post(
            back.url("zipkin", "/api/v2/spans"),
            data=r.value,
            headers={"Content-Type": kind},
            timeout=30,
        )
        assert answer.status_code == 202, answer.text
    got = {
        sp.span_id: sp
        for trace_id in {sp.trace_id for sp in want.values()}
        for sp in otlp.spans_of(tempo.get(back, trace_id))
    }
    assert {k: (sp.trace_id, sp.name) for k, sp in got.items()} == {
        k: (sp.trace_id, sp.name) for k, sp in want.items()
    }


@pytest.mark.parametrize("encoding", ["jaeger_json", "jaeger_proto"])
def test_jaeger_encodings(kafka, make_mill, encoding):
    """A model.Span per record, with its trace id in hex as the key, as the Collector does."""
    topic = kafka.create_topic(partitions=3)
    mill = make_mill(producer(kafka, topic, {"traces": {"topic": topic, "encoding": encoding}}))
    sent = otlp.request(n_traces=3, n_spans=7)
    otlp.send_grpc(mill, sent)
    want = {(sp.trace_id, sp.span_id, sp.name) for sp in otlp.spans_of(sent)}
    got = []
    for r in kafka.consume_all(topic):
        if encoding == "jaeger_json":
            tree = json.loads(r.value)
            trace_id, span_id = (base64.b64decode(tree[k]) for k in ("traceId", "spanId"))
            name = tree["operationName"]
            assert tree["process"]["serviceName"] == "shop"
        else:
            assert r.value[:2] == b"\x0a\x10" and r.value[18:20] == b"\x12\x08"
            trace_id, span_id = r.value[2:18], r.value[20:28]
            assert r.value[28] == 0x1A
            name = r.value[30 : 30 + r.value[29]].decode()
        assert r.key == trace_id.hex().encode()
        got.append((trace_id, span_id, name))
    assert len(got) == len(want) and set(got) == want


def test_headers_and_tenants(kafka, make_mill):
    topic = kafka.create_topic()
    extra = {"record_headers": {"cluster": "eu-1", "x": "y"}, "include_metadata_keys": ["X-Scope-OrgID"]}
    mill = make_mill(producer(kafka, topic, extra))
    for tenant in ("team-a", "team-b"):
        otlp.send_grpc(mill, otlp.request(service_name=tenant), tenant=tenant)
    records = kafka.consume_all(topic)
    assert len(records) == 2, "tenants never share a record"
    for r in records:
        tenant = decode(r).resource_spans[0].resource.attributes[0].value.string_value.encode()
        assert r.headers == {"cluster": b"eu-1", "x": b"y", "tenant": tenant, "X-Scope-OrgID": tenant}


def test_topic_from_attribute(kafka, make_mill):
    topic, other = kafka.create_topic(partitions=2), kafka.create_topic(partitions=3)
    mill = make_mill(producer(kafka, topic, {"topic_from_attribute": "topic"}))
    names = {"a": other, "b": None, "c": "no-such-topic", "d": "not/a topic", "e": other}
    sent = service.ExportTraceServiceRequest()
    for name, wanted in names.items():
        part = otlp.request(service_name=name, n_spans=2)
        if wanted:
            part.resource_spans[0].resource.attributes.append(otlp.string("topic", wanted))
        sent.resource_spans.extend(part.resource_spans)
    otlp.send_grpc(mill, sent, timeout=30)

    def services(records):
        return sorted(rs.resource.attributes[0].value.string_value
                      for r in records for rs in decode(r).resource_spans)  # fmt: skip

    assert services(kafka.consume_all(other)) == ["a", "e"]
    assert services(kafka.consume_all(topic)) == ["b", "c", "d"]
    assert "topic=no-such-topic" in mill.stderr()


def test_a_missing_topic_is_named_and_waited_for(kafka, make_mill):
    mill = make_mill(producer(kafka, "made-later"))
    with pytest.raises(grpc.RpcError) as e:
        otlp.send_grpc(mill, otlp.request(), timeout=3)
    assert e.value.code() == grpc.StatusCode.UNAVAILABLE
    text = wait_for("the message", lambda: "topic does not exist" in mill.stderr() and mill.stderr())
    assert "kafka-topics.sh --create" in text and "topic=made-later" in text
    assert kafka.bootstrap in text
    kafka.create_topic("made-later")
    sent = otlp.request()
    wait_for("the topic to be found", lambda: "topic found" in mill.stderr(), timeout=15)
    otlp.send_grpc(mill, sent)
    assert otlp.rows(joined(kafka.consume_all("made-later"))) == otlp.rows(sent)


# -- sizes ----------------------------------------------------------------------------------------------------------------

LIMIT = 1000000
SIZES = [0, 1, 10, 1000, 30_000, 65_000, 66_000, 200_000, 999_000, 999_500, 999_700, 999_750, 999_800,
         999_850, 999_900, 999_950, LIMIT, LIMIT + 100, 1_500_000, 5_000_000, 19_900_000]  # fmt: skip


def giant(size):
    """A request of one span with an attribute of so many characters, none like the other."""
    req = otlp.request(attributes=0)
    text = os.urandom(size // 2 + 1).hex()[:size]
    next(otlp.spans_of(req)).attributes.append(otlp.string("payload", text))
    return req


def check_sizes(sent, small, dead):
    """Every span is in one of the two, and those that fit are where they belong."""
    sizes = {span_id: len(request.SerializeToString()) for request in sent for span_id in otlp.span_ids(request)}
    assert sorted(small + dead) == sorted(sizes)
    assert max(sizes[i] for i in small) < LIMIT
    assert min(sizes[i] for i in dead) > LIMIT - 250, "a record that would have fitted"
    assert len(dead) >= 5


def ids_of(requests):
    return [span_id for r in requests for span_id in otlp.span_ids(r)]


def test_records_of_every_size_or_dead_letters(kafka, make_mill):
    topic = kafka.create_topic(partitions=2, max_message_bytes=LIMIT)
    dead_topic = kafka.create_topic(max_message_bytes=32 << 20)
    extra = {"producer": {"max_message_bytes": 10_000_000}, "dead_letter": {"topic": dead_topic}}
    mill = make_mill(producer(kafka, topic, extra))
    sent = [giant(size) for size in SIZES]
    send_all(mill, sent, tenant="team-a")
    dead = kafka.consume_all(dead_topic)
    check_sizes(sent, ids_of(map(decode, kafka.consume_all(topic))), ids_of(map(decode, dead)))
    for r in dead:
        assert r.headers["topic"] == topic.encode() and r.headers["tenant"] == b"team-a"
        assert b"span of" in r.headers["reason"]
    whole = {i: request for request in sent for i in otlp.span_ids(request)}
    assert all(decode(r) == whole[otlp.span_ids(decode(r))[0]] for r in dead)
    assert mill.metric("spanmill_dead_letter_records") == len(dead)
    balance = mill.stop()
    assert balance["delivered"] == len(SIZES) == balance["accepted"]


def test_dead_letters_in_a_file(kafka, make_mill, tmp_path):
    topic = kafka.create_topic(max_message_bytes=LIMIT)
    path = tmp_path / "dead.jsonl"
    mill = make_mill(producer(kafka, topic, {"dead_letter": {"file": str(path)}}))
    sent = [giant(size) for size in SIZES]
    send_all(mill, sent)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    dead = [service.ExportTraceServiceRequest.FromString(base64.b64decode(d["request"])) for d in lines]
    check_sizes(sent, ids_of(map(decode, kafka.consume_all(topic))), ids_of(dead))
    assert all(d["topic"] == topic and d["tenant"] == "single-tenant" for d in lines)
    assert mill.stop()["delivered"] == len(SIZES)


def dead_ids(path):
    """The span ids of a file of dead letters; every line must be whole."""
    with open(path, encoding="utf-8") as f:
        lines = [json.loads(line) for line in f]
    return ids_of(service.ExportTraceServiceRequest.FromString(base64.b64decode(d["request"])) for d in lines)


def test_killed_while_dead_letters_are_written(kafka, make_mill, tmp_path):
    """kill -9: every span that was acknowledged is in the topic or in the file, whose lines are
    whole. Clients send again what was not answered, so a span may be in the file twice."""
    topic, path = kafka.create_topic(), tmp_path / "dead.jsonl"
    mill = make_mill(producer(kafka, topic, {"dead_letter": {"file": str(path)}}))
    acked, halted = [], threading.Event()

    def send():
        while not halted.is_set():
            request = giant(random.choice([3000, 1_200_000, 6_000_000]))
            while not halted.is_set():
                try:
                    otlp.send_grpc(mill, request, timeout=30)
                    acked.extend(otlp.span_ids(request))
                    break
                except grpc.RpcError:
                    time.sleep(0.02)

    senders = [threading.Thread(target=send) for _ in range(3)]
    for s in senders:
        s.start()
    for _ in range(4):
        n, size = len(acked), os.path.getsize(path) if path.exists() else 0
        wait_for("letters", lambda: len(acked) > n + 5 and os.path.getsize(path) > size, timeout=60)
        mill.kill()
        mill.start()
    halted.set()
    for s in senders:
        s.join()
    # what the last kill left of a line stays until somebody writes the next
    otlp.send_grpc(mill, giant(1_500_000), timeout=30)
    found = set(ids_of(map(decode, kafka.consume_all(topic)))) | set(dead_ids(path))
    lost = set(acked) - found
    assert not lost, f"{len(lost)} of {len(acked)} acknowledged spans are in neither"
    mill.stop()
    # the same for certain: it does not spoil the next letter
    with open(path, "a", encoding="ascii") as f:
        f.write('{"time":"2026-')
    mill.start()
    last = giant(2_000_000)
    otlp.send_grpc(mill, last, timeout=30)
    assert dead_ids(path)[-1:] == otlp.span_ids(last)


def test_without_a_dead_letter_the_client_is_told(kafka, make_mill):
    topic = kafka.create_topic(max_message_bytes=20_000)
    mill = make_mill(producer(kafka, topic))
    sent = otlp.request(n_spans=3)
    sent.resource_spans.extend(giant(50_000).resource_spans)
    answer = otlp.send_grpc(mill, sent)
    assert answer.partial_success.rejected_spans == 1
    assert "the topic takes" in answer.partial_success.error_message
    assert len(ids_of(map(decode, kafka.consume_all(topic)))) == 3
    assert mill.metric("spanmill_dropped_spans", reason="too_large") == 1
    assert mill.stop()["dropped"] == 1


def test_large_requests_are_cut_between_spans(kafka, make_mill):
    """18 MB at once, spans of all sizes, one trace: every record within the topic's limit."""
    topic = kafka.create_topic(partitions=2, max_message_bytes=100_000)
    mill = make_mill(producer(kafka, topic))
    sent = otlp.request(n_spans=300, attributes=0)
    for i, span in enumerate(otlp.spans_of(sent)):
        span.attributes.append(otlp.string("payload", os.urandom(i * 199).hex()[: i * 320]))
    otlp.send_grpc(mill, sent, timeout=30)
    records = kafka.consume_all(topic)
    assert len({r.partition for r in records}) == 1
    assert otlp.rows(joined(records)) == otlp.rows(sent)
    assert len(records) < 2.2 * len(sent.SerializeToString()) / 100_000


def test_a_limit_lowered_at_run_time(kafka, make_mill):
    """The brokers refuse what was right before: the limit is asked for, and nothing is lost."""
    topic = kafka.create_topic(partitions=2, max_message_bytes=LIMIT)
    path = "dead.jsonl"
    mill = make_mill(producer(kafka, topic, {"dead_letter": {"file": path}, "producer": {"compression": "none"}}))
    before = otlp.request(n_spans=500, size=200)
    otlp.send_grpc(mill, before)
    kafka.set_topic_config(topic, max_message_bytes=30_000)
    after = [otlp.request(n_spans=500, size=200), giant(25_000), giant(40_000)]
    send_all(mill, after)
    dead = open(os.path.join(mill.tmp, path), encoding="ascii").read().splitlines()
    assert len(dead) == 1
    records = kafka.consume_all(topic)
    before.resource_spans.extend(after[0].resource_spans)
    before.resource_spans.extend(after[1].resource_spans)
    assert otlp.rows(joined(records)) == otlp.rows(before)
    # raised: it is asked for before a span is given up, but not for every one
    kafka.set_topic_config(topic, max_message_bytes=200_000)
    tries = []

    def is_taken():
        tries.append(send_all(mill, [giant(60_000)]))
        return mill.metric("spanmill_kafka_produced_records") > len(records)

    wait_for("the higher limit", is_taken, step=0.5)
    assert mill.stop()["delivered"] == 1002 + len(tries)


# -- faults ---------------------------------------------------------------------------------------------------------------

AWAY = float(os.environ.get("SPANMILL_DEAD_SECONDS", 3))


def counts(kafka, topic):
    """How often each span id is in the topic."""
    return collections.Counter(ids_of(map(decode, kafka.consume_all(topic))))


def check_acked(clients, found):
    """What was acknowledged is there, once; nothing is there that was not sent."""
    acked = {i for c in clients for request in c.acked.values() for i in otlp.span_ids(request)}
    owed = {i for c in clients if c.owed for i in otlp.span_ids(c.owed)}
    lost = acked - set(found)
    assert not lost, f"{len(lost)} of {len(acked)} acknowledged spans are not in the topic"
    twice = {i for i, n in found.items() if n > 1} & acked
    assert not twice, f"{len(twice)} of {len(acked)} spans are there twice"
    assert set(found) <= acked | owed
    assert not [w for c in clients for w in c.wrong], clients[0].wrong[:3]


def load(mill, n=3, pause=0.01):
    clients = [Client(mill, n_spans=20, pause=pause, by_http=i % 2 == 1) for i in range(n)]
    for c in clients:
        c.start()
    return clients


def is_drained(mill):
    return mill.metric("spanmill_held_spans") == 0 and mill.metric("spanmill_in_flight_spans") == 0


def test_broker_away_at_start_and_at_stop(make_kafka, make_mill, tmp_path):
    """The disk queue takes everything meanwhile; start and stop do not wait for the broker."""
    kafka = make_kafka(start=False)
    mill = make_mill(
        producer(kafka, "spans", storage=str(tmp_path / "queue")), {"service": {"drain_timeout": "50s"}}
    )
    sent = [otlp.request(n_spans=10) for _ in range(20)]
    send_all(mill, sent)
    start = time.monotonic()
    balance = mill.stop()
    assert time.monotonic() - start < 30
    assert balance == {"accepted": 200, "delivered": 0, "dropped": 0, "held": 200}
    kafka.start()
    kafka.create_topic("spans", partitions=4)
    mill.start()
    send_all(mill, [otlp.request(n_spans=10)])
    wait_for("the queue to drain", lambda: is_drained(mill), timeout=20)
    assert mill.stop()["delivered"] == 210
    found = counts(kafka, "spans")
    assert set(ids_of(sent)) <= set(found) and len(found) == 210
    assert set(found.values()) == {1}


def test_broker_killed_frozen_and_away_under_load(make_kafka, make_mill, tmp_path):
    """Of three brokers one is frozen, one is killed, then all are away: clients are answered all the
    time, and everything they were answered for arrives once."""
    kafka = make_kafka(n=3)
    topic = kafka.create_topic(partitions=6, replication=3, min_insync_replicas=2)
    mill = make_mill(producer(kafka, topic, storage=str(tmp_path / "queue")))
    clients = load(mill)
    wait_for("some load", lambda: len(clients[0].acked) > 20)
    frozen = kafka.leader(topic, 1)
    frozen.freeze()
    time.sleep(AWAY / 3)
    frozen.thaw()
    kafka.leader(topic).kill()
    time.sleep(AWAY / 6)
    rss = mill.proc_status("VmRSS")
    for broker in kafka.brokers:
        broker.kill()
    before = len(clients[0].acked)
    time.sleep(AWAY)
    wait_for("answers while the brokers are away", lambda: len(clients[0].acked) > before + 10)
    grown = mill.proc_status("VmRSS") - rss
    kafka.start()
    wait_for("it to be drained while the load goes on", lambda: mill.metric("spanmill_held_spans") < 500, timeout=150)
    for c in clients:
        c.finish()
    wait_for("the queue to drain", lambda: is_drained(mill), timeout=60)
    check_acked(clients, counts(kafka, topic))
    assert max(t for c in clients for t in c.latencies) < 15
    if not SANITIZED:
        assert grown < 5 << 20, f"memory grew by {grown >> 10} KiB while the brokers were away"
    assert mill.stop()["held"] == 0


def test_agent_killed_under_load(kafka, make_mill, tmp_path):
    """kill -9 of the agent: what it acknowledged is in its queue or in the topic."""
    topic = kafka.create_topic(partitions=4)
    mill = make_mill(producer(kafka, topic, storage=str(tmp_path / "queue")))
    clients = load(mill)
    for _ in range(3):
        n = len(clients[0].acked)
        wait_for("progress", lambda: len(clients[0].acked) > n + 20, timeout=20)
        mill.kill()
        mill.start()
    for c in clients:
        c.finish()
    wait_for("the queue to drain", lambda: is_drained(mill), timeout=20)
    found = counts(kafka, topic)
    acked = {i for c in clients for request in c.acked.values() for i in otlp.span_ids(request)}
    assert acked <= set(found)
    mill.stop()


def test_without_a_disk_queue_the_client_waits_for_the_broker(make_kafka, make_mill):
    """Every answer within the deadline; a success only when the brokers have it."""
    kafka = make_kafka()
    topic = kafka.create_topic(partitions=4)
    mill = make_mill(producer(kafka, topic, {"timeout": "1s"}))
    clients = load(mill)
    wait_for("some load", lambda: len(clients[0].acked) > 20)
    broker = kafka.brokers[0]
    broker.freeze()
    wait_for("a refusal", lambda: all(c.refused for c in clients), timeout=20)
    broker.thaw()
    for c in clients:
        c.finish()
    found = counts(kafka, topic)
    acked = {i for c in clients for request in c.acked.values() for i in otlp.span_ids(request)}
    assert acked <= set(found)
    assert not [w for c in clients for w in c.wrong] and not any(c.late for c in clients)


def test_a_topic_that_grows_or_is_made_anew(kafka, make_mill, tmp_path):
    topic = kafka.create_topic(partitions=4)
    mill = make_mill(producer(kafka, topic, {"metadata": {"refresh_interval": "1s"}}, storage=str(tmp_path / "queue")))
    clients = load(mill)
    wait_for("some load", lambda: len(clients[0].acked) > 20)
    kafka.grow_topic(topic, 6)
    wait_for("the new partitions", lambda: "partitions=6" in mill.stderr())
    n = len(clients[0].acked)
    wait_for("more load", lambda: len(clients[0].acked) > n + 50)
    wait_for("records in the new partitions", lambda: all(kafka.end_offsets(topic)[p] for p in (4, 5)))
    for c in clients:
        c.finish()
    wait_for("the queue to drain", lambda: is_drained(mill), timeout=20)
    check_acked(clients, counts(kafka, topic))
    kafka.delete_topic(topic)
    kafka.create_topic(topic, partitions=2)
    sent = [otlp.request(n_traces=20) for _ in range(5)]
    send_all(mill, sent)
    wait_for("the queue to drain", lambda: is_drained(mill), timeout=40)
    assert set(ids_of(sent)) <= set(counts(kafka, topic))
    assert mill.stop()["held"] == 0


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"])
def test_tls_and_login(secure_kafka, make_mill, tmp_path, mechanism):
    kafka, secure = secure_kafka
    topic = kafka.create_topic()
    sasl = {"mechanism": mechanism, "username": USER, "password": PASSWORD}
    env = newer_librdkafka(tmp_path / "lib") if mechanism.startswith("SCRAM") else None
    if mechanism == "OAUTHBEARER":
        token = tmp_path / "token"
        token.write_text(unsecured_token(USER))
        sasl = {"mechanism": mechanism, "oauthbearer_token_file": str(token)}
    tls = {"ca_file": secure.ca, "cert_file": secure.client_cert, "key_file": secure.client_key}
    extra = {"brokers": kafka.secure_addresses, "auth": {"sasl": sasl}, "tls": tls}
    mill = make_mill(producer(kafka, topic, extra), env=env)
    sent = otlp.request()
    otlp.send_grpc(mill, sent)
    assert otlp.rows(joined(kafka.consume_all(topic))) == otlp.rows(sent)
    assert "does not work with Kafka 4" not in mill.stderr()


def unsecured_token(user):
    def part(claims):
        return base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")

    now = int(time.time())
    return f"{part({'alg': 'none'})}.{part({'sub': user, 'iat': now, 'exp': now + 600})}."


def test_a_wrong_password_is_said(secure_kafka, make_mill):
    kafka, secure = secure_kafka
    extra = {
        "brokers": kafka.secure_addresses,
        "auth": {"sasl": {"mechanism": "PLAIN", "username": USER, "password": "wrong"}},
        "tls": {"ca_file": secure.ca, "cert_file": secure.client_cert, "key_file": secure.client_key},
    }
    mill = make_mill(producer(kafka, "spans", extra))
    wait_for("the reason", lambda: "Invalid username or password" in mill.stderr(), timeout=15)
    assert "wrong" not in mill.stderr()


def test_a_token_that_is_put_right_is_read_again(secure_kafka, make_mill, tmp_path):
    """What the brokers refuse is good for as long as it says: minutes. That is not waited for."""
    kafka, secure = secure_kafka
    topic, token = kafka.create_topic(), tmp_path / "token"
    token.write_text(unsecured_token(5))  # not a name
    extra = {
        "brokers": kafka.secure_addresses,
        "auth": {"sasl": {"mechanism": "OAUTHBEARER", "oauthbearer_token_file": str(token)}},
        "tls": {"ca_file": secure.ca, "cert_file": secure.client_cert, "key_file": secure.client_key},
    }
    mill = make_mill(producer(kafka, topic, extra, storage=str(tmp_path / "queue")))
    sent = otlp.request(n_spans=3)
    otlp.send_grpc(mill, sent)
    wait_for("the refusal", lambda: "invalid_token" in mill.stderr())
    token.write_text(unsecured_token(USER))
    wait_for("what waited", lambda: is_drained(mill))
    assert otlp.rows(joined(kafka.consume_all(topic))) == otlp.rows(sent)


def test_a_file_that_is_not_there_is_named(kafka, make_mill):
    mill = make_mill(producer(kafka, "spans", {"tls": {"ca_file": "/no/such.pem"}}), start=False)
    mill.start(ready=False)
    assert mill.wait_exit() == 2
    mill.process = None
    assert "ssl.ca.location: open /no/such.pem: No such file" in mill.stderr()
    mill.runs = 0  # nothing of it is shown or stopped


@pytest.fixture(scope="module")
def secure_kafka(kafka_installed, tmp_path_factory):
    tmp = tmp_path_factory.mktemp("secure")
    secure = Secure(tmp, mtls=True)
    with Kafka(tmp / "kafka", secure=secure) as kafka:
        yield kafka, secure
