"""The kafka receiver and the blocks exporter behind a real broker: every span that was produced is in
the visible blocks once, whoever died, froze, lost its partitions or read again, and offsets are
committed only when it is."""

import base64
import collections
import glob
import json
import os
import random
import signal
import threading
import time
import uuid

import pytest
import requests
from google.protobuf import json_format

import otlp
import tempo
import tempo_block
from kafka_bed import CLUSTER_ID, RawMember
from mill import SANITIZED, forwarder, merged, query_node, run, wait_for

GROUP_KEYS = {"session_timeout": "2s", "heartbeat_interval": "500ms"}


def reader(kafka, topics, group, data=None, receiver=None, overlay=None):
    """A configuration: kafka in, blocks out; blocks are cut after 300 ms."""

    def make(ports):
        keys = {
            "brokers": kafka.addresses if hasattr(kafka, "addresses") else kafka,
            "group_id": group,
            "traces": {"topics": topics if isinstance(topics, list) else [topics]},
            "autocommit": {"interval": "100ms"},
            "error_backoff": {"initial_interval": "50ms", "max_interval": "300ms"},
            **GROUP_KEYS,
        }
        config = {
            "receivers": {"kafka": merged(keys, receiver)},
            "processors": {"memory_limiter": {"check_interval": "1s", "limit_mib": 256}},
            "exporters": {"blocks": {"max_block_age": "300ms"}},
            "extensions": {
                "trace_store": {"backend": "local", "local": {"path": data or "data"}},
                "query": {"endpoint": f"127.0.0.1:{ports['query']}"},
                "health_check": {"endpoint": f"127.0.0.1:{ports['health']}"},
            },
            "service": {
                "extensions": ["trace_store", "query", "health_check"],
                "telemetry": {"metrics": {"address": f"127.0.0.1:{ports['metrics']}"}},
                "pipelines": {
                    "traces": {
                        "receivers": ["kafka"],
                        "processors": ["memory_limiter"],
                        "exporters": ["blocks"],
                    }
                },
            },
        }
        return merged(config, overlay)

    return make


def fresh_group():
    return f"g-{uuid.uuid4().hex[:8]}"


def records(n, tenants=(None,), keyed=True, n_spans=4, trace_ids=None):
    """n records of a trace each, and the ledger: (tenant, span id) of what they hold. Their ids are
    appended to trace_ids."""
    out, ledger = [], set()
    for i in range(n):
        request = otlp.request(n_spans=n_spans)
        if trace_ids is not None:
            trace_ids.append(next(otlp.spans_of(request)).trace_id)
        tenant = tenants[i % len(tenants)]
        record = {"value": request.SerializeToString()}
        if tenant:
            record["headers"] = {"tenant": tenant}
        if keyed and i % 2:
            record["key"] = next(otlp.spans_of(request)).trace_id.hex()
        out.append(record)
        ledger |= {(tenant or "single-tenant", s.span_id) for s in otlp.spans_of(request)}
    return out, ledger


def visible(folder):
    """How often each (tenant, span id) is in the visible blocks below a folder."""
    found = collections.Counter()
    for meta in glob.glob(os.path.join(folder, "*", "*", "meta.json")):
        block = tempo_block.read_block(os.path.dirname(meta))
        tenant = os.path.basename(os.path.dirname(os.path.dirname(meta)))
        for o in block.objects:
            found.update((tenant, s.span_id) for s in otlp.spans_of(o.merged()))
    return found


def metas(folder):
    out = []
    for path in glob.glob(os.path.join(folder, "*", "*", "meta.json")):
        with open(path, encoding="utf-8") as f:
            out.append(json.load(f))
    return out


def check_once(found, ledger):
    missing = ledger - set(found)
    doubled = [s for s, n in found.items() if n > 1]
    assert not missing, f"{len(missing)} of {len(ledger)} spans are lost"
    assert not doubled, f"{len(doubled)} spans are there twice"
    assert set(found) == ledger, f"{len(set(found) - ledger)} spans come from nowhere"


def wait_committed(kafka, group, topic, timeout=60):
    """Until the group's offsets are at the end of every partition that holds anything."""

    def is_there():
        ends = {p: o for p, o in kafka.end_offsets(topic).items() if o > 0}
        at = kafka.committed(group, topic)
        return all(at.get(p, 0) == o for p, o in ends.items())

    wait_for(f"the offsets of {group}", is_there, timeout, step=0.3)


class Feed(threading.Thread):
    """Produces records until it is told to stop."""

    def __init__(self, kafka, topic, pause=0.02, **keys):
        super().__init__(daemon=True)
        self.kafka, self.topic, self.pause, self.keys = kafka, topic, pause, keys
        self.ledger, self.halted, self.failed = set(), threading.Event(), None

    def run(self):
        try:
            while not self.halted.is_set():
                batch, ledger = records(20, **self.keys)
                self.kafka.produce(self.topic, batch)
                self.ledger |= ledger
                time.sleep(self.pause)
        except Exception as e:  # shown by finish
            self.failed = e

    def finish(self):
        self.halted.set()
        self.join(60)
        assert self.failed is None, self.failed
        return self.ledger


# -- the plain way


def test_every_span_once_and_offsets_follow(kafka, make_mill):
    topic, group = kafka.create_topic(partitions=4), fresh_group()
    batch, ledger = records(300, tenants=(None, "acme", "acme", "globex"))
    batch.insert(7, {"value": b""})
    batch.insert(9, {"value": None, "key": "tombstone"})
    kafka.produce(topic, batch)
    mill = make_mill(reader(kafka, topic, group))
    wait_committed(kafka, group, topic)
    check_once(visible(mill.data), ledger)
    # the name that every owner of a partition must give its commits
    commits = os.path.join(mill.data, "_spanmill", "commits", group, CLUSTER_ID, topic)
    assert sorted(os.listdir(commits)) == ["0", "1", "2", "3"]
    for p in os.listdir(commits):
        assert all(c.endswith(".json") for c in os.listdir(os.path.join(commits, p)))
    assert mill.metric("otelcol_kafka_receiver_records_total") == len(batch)
    assert mill.metric("otelcol_receiver_accepted_spans", transport="kafka") == len(ledger)
    wait_for("no lag", lambda: mill.metric("spanmill_kafka_lag_records") == 0)
    tenant, span = next(iter(ledger))
    request = otlp.request(n_spans=2)
    kafka.produce(topic, [{"value": request.SerializeToString(), "headers": {"tenant": "acme"}}])
    trace_id = next(otlp.spans_of(request)).trace_id
    tempo.whole(mill, trace_id, tenant="acme", n_spans=2)
    wait_committed(kafka, group, topic)
    balance = mill.stop()
    assert balance["accepted"] == balance["delivered"] == len(ledger) + 2


# -- who dies, freezes, loses its partitions


def test_killed_at_random_points(kafka, make_mill):
    topic, group = kafka.create_topic(partitions=3), fresh_group()
    random_source = random.Random(int(os.environ.get("SPANMILL_KILL_SEED", time.time_ns() % 10000)))
    feed = Feed(kafka, topic, tenants=(None, "acme"))
    feed.start()
    mill = make_mill(
        reader(kafka, topic, group, receiver={"group_instance_id": "builder-0"}), start=False
    )
    mill.env["SPANMILL_TEST_STEP_DELAY_MS"] = "20"
    for _ in range(7):
        mill.start(ready=False)
        time.sleep(random_source.uniform(0.3, 2.5))  # the point of the kill
        mill.kill()
    ledger = feed.finish()
    mill.start()
    wait_committed(kafka, group, topic)
    check_once(visible(mill.data), ledger)


def download(server, bucket, folder):
    for key in server.keys(bucket):
        if key.startswith("_spanmill/"):
            continue
        path = os.path.join(folder, key)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(server.read(bucket, key))


@pytest.mark.parametrize("strategy", ["cooperative-sticky", "range"])
def test_two_members_one_freezes(kafka, seaweed, make_mill, tmp_path, strategy):
    """Partitions move to and fro; one member is stopped for longer than its session, wakes up with
    what it held, and believes to own it still."""
    topic, group = kafka.create_topic(partitions=4), fresh_group()
    bucket = seaweed.create_bucket()
    feed = Feed(kafka, topic)
    feed.start()
    keys = {"group_rebalance_strategy": strategy}
    mills = [
        make_mill(reader(kafka, topic, group, receiver=keys, overlay=seaweed.overlay(bucket)))
    ]
    wait_for("the first sections", lambda: mills[0].metric("spanmill_blocks_sections") > 2, 30)
    mills.append(
        make_mill(reader(kafka, topic, group, receiver=keys, overlay=seaweed.overlay(bucket)))
    )
    for i in (0, 1):
        wait_for("its share", lambda i=i: mills[i].metric("spanmill_blocks_sources") > 0, 30)
        mills[i].process.send_signal(signal.SIGSTOP)
        other = mills[1 - i]
        wait_for("all of it", lambda o=other: o.metric("spanmill_blocks_sources") == 4, 30)
        mills[i].process.send_signal(signal.SIGCONT)
    ledger = feed.finish()
    wait_committed(kafka, group, topic)
    for mill in mills:
        mill.stop()
    download(seaweed, bucket, str(tmp_path / "blocks"))
    check_once(visible(str(tmp_path / "blocks")), ledger)


class Asker(threading.Thread):
    """Asks for traces that are all in the topic: each answer has its trace, or says that it is
    incomplete."""

    def __init__(self, mill, trace_ids):
        super().__init__(daemon=True)
        self.mill, self.trace_ids, self.halted = mill, trace_ids, threading.Event()
        self.complete, self.incomplete, self.row, self.wrong = 0, 0, 0, []

    def run(self):
        while not self.halted.wait(0.005):
            trace_id = random.choice(self.trace_ids)
            try:
                answer = tempo.ask(self.mill, f"/api/v2/traces/{trace_id.hex()}", accept="application/protobuf")
            except requests.ConnectionError:
                continue  # it is about to listen
            found, status, message = (
                tempo.v2_message(answer.content) if answer.status_code == 200 else (None, -1, answer.text)
            )
            if status == 0 and len(list(otlp.spans_of(found))) == 4:
                self.complete += 1
                self.row += 1
                continue
            self.row = 0
            self.incomplete += 1
            if status != 1 and answer.status_code != 503:
                self.wrong.append((time.strftime("%X"), trace_id.hex(), answer.status_code, message))

    def settle(self):
        """Until answers are complete again."""
        self.row = 0
        wait_for("complete answers", lambda: self.row > 50 or self.wrong, 60)
        assert not self.wrong, self.wrong[:5]


@pytest.mark.parametrize("strategy", ["cooperative-sticky", "range"])
def test_an_owner_that_has_not_caught_up_says_so(kafka, make_mill, strategy):
    """Nothing is published here: a trace is in the memory of the partition's owner, and for a while of
    none. Nobody may say then that it is not there."""
    topic, group, trace_ids = kafka.create_topic(partitions=4), fresh_group(), []
    batch, _ = records(400, trace_ids=trace_ids)
    kafka.produce(topic, batch)
    keys = {"group_rebalance_strategy": strategy}
    hold = {"exporters": {"blocks": {"max_block_age": "10m", "flush_on_shutdown": False}}}
    mills = [make_mill(reader(kafka, topic, group, receiver=keys, overlay=hold), start=False) for _ in "ab"]
    first = Asker(mills[0], trace_ids)

    def front(ports):
        c = query_node(ports, "nothing")
        c["extensions"]["query"]["builders"] = [f"127.0.0.1:{m.ports['query']}" for m in mills]
        c["extensions"]["query"]["builder_timeout"] = "500ms"
        return c

    mills[0].start(ready=False)
    first.start()
    first.settle()
    first.halted.set()
    mills[1].start()
    both = Asker(make_mill(front), trace_ids)
    both.start()
    wait_for("half of it", lambda: mills[1].metric("spanmill_blocks_sources") == 2, 30)
    both.settle()
    mills[0].process.send_signal(signal.SIGSTOP)
    wait_for("all of it", lambda: mills[1].metric("spanmill_blocks_sources") == 4, 30)
    mills[0].process.send_signal(signal.SIGCONT)
    wait_for("its half again", lambda: mills[0].metric("spanmill_blocks_sources") == 2, 30)
    both.settle()
    both.halted.set()
    both.join()
    assert not both.wrong, both.wrong[:5]
    assert first.incomplete > 0 and both.incomplete > 0


def test_read_again_with_other_sections(kafka, make_mill):
    """The group's offsets are moved back, then the process cuts elsewhere: nothing new appears."""
    from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition

    topic, group = kafka.create_topic(partitions=2), fresh_group()
    batch, ledger = records(200)
    mill = make_mill(reader(kafka, topic, group))
    for i in range(0, 200, 50):
        kafka.produce(topic, batch[i : i + 50])
        wait_committed(kafka, group, topic)
    mill.stop()
    before = {m["blockID"] for m in metas(mill.data)}
    moved = ConsumerGroupTopicPartitions(
        group, [TopicPartition(topic, 0, 11), TopicPartition(topic, 1, 0)]
    )
    admin = kafka.admin()  # the answer is lost with it

    def move():
        return admin.alter_consumer_group_offsets([moved])[group].exception(20) is None

    wait_for("an empty group", move, 30, step=0.3)
    mill.config["exporters"]["blocks"]["max_block_bytes"] = 3000
    mill.write_config()
    mill.start()
    more, also = records(40)
    kafka.produce(topic, more)
    wait_committed(kafka, group, topic)
    check_once(visible(mill.data), ledger | also)
    assert before <= {m["blockID"] for m in metas(mill.data)}
    assert mill.metric("spanmill_blocks_followed_sections") > 0


def test_topic_made_again(kafka, make_mill):
    """Same name, same offsets, other records: none is taken for those that were there before."""
    topic, group = kafka.create_topic(partitions=2), fresh_group()
    batch, ledger = records(100)
    kafka.produce(topic, batch)
    mill = make_mill(reader(kafka, topic, group))
    wait_committed(kafka, group, topic)
    mill.stop()
    kafka.delete_topic(topic)
    kafka.create_topic(topic, partitions=2)
    more, also = records(150)
    kafka.produce(topic, more)
    mill.start()
    wait_committed(kafka, group, topic)
    check_once(visible(mill.data), ledger | also)


def test_topic_made_again_while_it_is_read(kafka, make_mill):
    """The process notices that the topic is away, or only that its offset is not there any more: what
    comes at offsets that it knows is new all the same, and the group's offset, of the old topic, is
    not the new one's. Then it stops, though librdkafka 2.0 does not."""
    topic, group = kafka.create_topic(), fresh_group()
    batch, ledger = records(60)
    kafka.produce(topic, batch)
    mill = make_mill(reader(kafka, topic, group, receiver={"metadata": {"refresh_interval": "1s"}}))
    wait_committed(kafka, group, topic)
    kafka.delete_topic(topic)
    kafka.create_topic(topic)
    for n in (20, 100):  # the first time fewer than there were
        more, also = records(n)
        kafka.produce(topic, more)
        ledger |= also
        wait_for("them in blocks", lambda also=also: also <= set(visible(mill.data)), step=0.2)
        wait_committed(kafka, group, topic)
    check_once(visible(mill.data), ledger)
    balance = mill.stop()
    assert balance["delivered"] >= len(ledger)
    # and from the new topic's offset
    mill.start()
    more, also = records(10)
    kafka.produce(topic, more)
    wait_committed(kafka, group, topic)
    check_once(visible(mill.data), ledger | also)


def test_topic_grows(kafka, make_mill):
    """Two partitions more under load, from a producer with and without keys: every trace is found
    by its id, in blocks."""
    topic, group, ids = kafka.create_topic(partitions=4), fresh_group(), []
    feed = Feed(kafka, topic, trace_ids=ids)
    feed.start()
    mill = make_mill(
        reader(kafka, topic, group, receiver={"metadata": {"refresh_interval": "500ms"}})
    )
    wait_for("some sections", lambda: mill.metric("spanmill_blocks_sections") > 4, 30)
    kafka.grow_topic(topic, 6)
    wait_for("the new partitions", lambda: mill.metric("spanmill_blocks_sources") == 6, 60)
    wait_for("some load on all of them", lambda: all(kafka.end_offsets(topic).values()), step=0.2)
    ledger = feed.finish()
    wait_committed(kafka, group, topic)
    check_once(visible(mill.data), ledger)
    for trace_id in random.sample(ids, min(len(ids), 200)):
        assert len(list(otlp.spans_of(tempo.settled(mill, trace_id)))) == 4, trace_id.hex()


def test_a_consumer_that_ended_is_made_anew(kafka, make_mill):
    """Another client joins with the same group_instance_id, so the brokers fence ours: librdkafka
    ends for good, and so it does by itself when a session is lost in the middle of a commit. Ours
    joins again, and again, and what was read twice is there once; it also stops meanwhile."""
    from confluent_kafka import Consumer

    topic, group = kafka.create_topic(partitions=3), fresh_group()
    mill = make_mill(reader(kafka, topic, group, receiver={"group_instance_id": "builder-0"}))
    feed = Feed(kafka, topic)
    feed.start()
    for _ in range(2):
        wait_for("partitions", lambda: mill.metric("spanmill_blocks_sources") == 3, 60)
        before = mill.stderr().count("is made anew")
        twin = Consumer(
            {
                "bootstrap.servers": kafka.addresses[0],
                "group.id": group,
                "group.instance.id": "builder-0",
                "partition.assignment.strategy": "cooperative-sticky",
                "enable.auto.commit": False,
            }
        )
        twin.subscribe([topic])

        def fenced():
            twin.poll(0.1)
            return mill.stderr().count("is made anew") > before

        wait_for("the fence", fenced, step=0)
        twin.close()
    ledger = feed.finish()
    wait_committed(kafka, group, topic)
    check_once(visible(mill.data), ledger)


# -- what cannot be read


def test_broken_records_go_to_the_dead_letter_topic(kafka, make_mill):
    """While that is not there their partition waits, and no other one does."""
    topic, group, dead = kafka.create_topic(partitions=2), fresh_group(), f"dead-{uuid.uuid4().hex[:8]}"
    batch, ledger = records(20, keyed=False)
    broken = [
        {"value": b"\x0a\xff\xff\xff\x7f", "key": b"k1", "headers": {"x": "y"}},
        {"value": b"not protobuf at all", "key": None},
        {"value": otlp.request().SerializeToString(), "headers": {"tenant": "../other"}},
    ]
    for at, record in zip((3, 11, 15), broken, strict=True):
        batch.insert(at, record)
    kafka.produce(topic, [{**record, "partition": 0} for record in batch])
    mill = make_mill(reader(kafka, topic, group, receiver={"dead_letter": {"topic": dead}}))
    wait_for("the first", lambda: "a record cannot be read" in mill.stderr())
    for i in range(4):
        more, spans = records(1, keyed=False)
        ledger |= spans
        kafka.produce(topic, [{**more[0], "partition": 1}])
        wait_for("the other partition", lambda i=i: kafka.committed(group, topic).get(1) == i + 1, step=0.1)
    assert kafka.committed(group, topic).get(0, 0) <= 3
    assert mill.stderr().count("cannot write a dead letter") < 3, "each of the four waited for a letter"
    kafka.create_topic(dead)
    wait_committed(kafka, group, topic)
    check_once(visible(mill.data), ledger)
    letters = sorted(kafka.consume_all(dead), key=lambda r: int(r.headers["offset"]))
    assert [int(r.headers["offset"]) for r in letters] == [3, 11, 15]
    for letter, record in zip(letters, broken, strict=True):
        assert letter.value == record["value"]
        assert letter.key == record.get("key")
        assert letter.headers["topic"].decode() == topic
        assert letter.headers["partition"] == b"0"
        assert letter.headers["reason"]
    assert b"tenant" in letters[2].headers["reason"]
    assert mill.metric("spanmill_dead_letter_records") == 3
    assert mill.metric("otelcol_kafka_receiver_unmarshal_failed_spans_total") == 3


def test_broken_records_go_to_a_file(kafka, make_mill, tmp_path):
    topic, group = kafka.create_topic(), fresh_group()
    batch, ledger = records(5)
    batch.insert(2, {"value": b"\x0a\x05ab", "key": b"k"})
    # the reason quotes it, and the line must stay JSON
    batch.append({"value": batch[0]["value"], "headers": {"tenant": b'\xff"\n\xc3'}})
    kafka.produce(topic, batch)
    letters = tmp_path / "dead.jsonl"
    mill = make_mill(reader(kafka, topic, group, receiver={"dead_letter": {"file": str(letters)}}))
    wait_committed(kafka, group, topic)
    check_once(visible(mill.data), ledger)
    line, other = [json.loads(text) for text in letters.read_text(encoding="utf-8").splitlines()]
    assert other["offset"] == 6 and "is no tenant name" in other["reason"]
    assert (line["topic"], line["partition"], line["offset"]) == (topic, 0, 2)
    assert base64.b64decode(line["value"]) == b"\x0a\x05ab"
    assert base64.b64decode(line["key"]) == b"k"


def large(size):
    """A request of one span with an attribute of so many characters, none like the other."""
    request = otlp.request(attributes=0)
    next(otlp.spans_of(request)).attributes.append(
        otlp.string("payload", os.urandom(size // 2 + 1).hex()[:size])
    )
    return request


def letters_of(path):
    with open(path, encoding="utf-8") as f:
        return {d["offset"]: d for d in map(json.loads, f)}


def test_records_of_every_size(kafka, make_mill, tmp_path):
    """1 byte to 20 MB: what is a request is read, what is none is a letter, byte for byte, also when
    it is compressed to almost nothing, and the partition goes on behind it."""
    topic, group = kafka.create_topic(max_message_bytes=32 << 20), fresh_group()
    path = tmp_path / "dead.jsonl"
    good = [large(n) for n in (1, 500, 65_000, 999_000, 1_100_000, 5_000_000, 19_900_000, 10)]
    values = [g.SerializeToString() for g in good]
    poison = [b"\x0a", b"\x12" * 1001, b"\xff" * 20_000_000, os.urandom(3_000_000)]
    poison[3] = b"\x0a\xff\xff\xff\x7f" + poison[3]
    for at, value in zip((1, 3, 5, 8), poison, strict=True):
        values.insert(at, value)
    values.insert(2, b"\x0a\x00")  # a request, of no spans
    kafka.produce(topic, values[:6])
    kafka.produce(topic, values[6:], **{"compression.type": "zstd"})
    mill = make_mill(reader(kafka, topic, group, receiver={"dead_letter": {"file": str(path)}}))
    wait_committed(kafka, group, topic)
    check_once(visible(mill.data), {("single-tenant", s.span_id) for g in good for s in otlp.spans_of(g)})
    letters = letters_of(path)
    assert {o: base64.b64decode(d["value"]) for o, d in letters.items()} == {
        o: v for o, v in enumerate(values) if v in poison
    }
    assert mill.metric("spanmill_dead_letter_records") == 4


def test_aborted_transactions_are_not_read(kafka, make_mill):
    from confluent_kafka import Producer

    topic, group = kafka.create_topic(), fresh_group()
    plain, ledger = records(3)
    kafka.produce(topic, plain)
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": topic})
    producer.init_transactions(20)
    for is_kept in (False, True, False):
        batch, spans = records(4)
        producer.begin_transaction()
        for record in batch:
            producer.produce(topic, **record)
        producer.flush(20)
        if is_kept:
            producer.commit_transaction(20)
            ledger |= spans
        else:
            producer.abort_transaction(20)
    behind, spans = records(3)
    kafka.produce(topic, behind)
    mill = make_mill(reader(kafka, topic, group))
    wait_committed(kafka, group, topic)
    check_once(visible(mill.data), ledger | spans)


def test_a_broken_record_does_not_swallow_its_neighbour(kafka, make_mill, tmp_path):
    """Records are joined before they are read: one that says it is longer than it is must not take
    the next one's bytes for its own."""
    topic, group = kafka.create_topic(), fresh_group()
    path = tmp_path / "dead.jsonl"
    batch, ledger = records(6, keyed=False)
    whole = [r["value"] for r in batch]
    size = len(whole[3])
    assert 127 < size < 16384
    # field 2 (nobody knows it), and exactly as long as the record behind it
    whole.insert(3, bytes([0x12, 0x80 | size & 0x7F, size >> 7]))
    kafka.produce(topic, whole)
    mill = make_mill(reader(kafka, topic, group, receiver={"dead_letter": {"file": str(path)}}))
    wait_committed(kafka, group, topic)
    check_once(visible(mill.data), ledger)
    assert list(letters_of(path)) == [3]


def test_a_record_beyond_the_memory_is_a_letter(kafka, make_mill, tmp_path):
    """It is some KB in the topic and 40 MB in memory: it must not stop its partition for ever, nor
    take the memory."""
    topic, group = kafka.create_topic(max_message_bytes=8 << 20), fresh_group()
    path = tmp_path / "dead.jsonl"
    before, after = records(10)[0], records(10)[0]
    bomb = otlp.request(attributes=0)
    next(otlp.spans_of(bomb)).attributes.append(otlp.string("payload", "x" * 40_000_000))
    kafka.produce(topic, before)
    kafka.produce(topic, [bomb.SerializeToString()], **{"compression.type": "gzip"})
    kafka.produce(topic, after)
    assert kafka.end_offsets(topic) == {0: 21}
    mill = make_mill(
        reader(kafka, topic, group, receiver={"dead_letter": {"file": str(path)}},
               overlay={"processors": {"memory_limiter": {"limit_mib": 32}}})
    )  # fmt: skip
    wait_committed(kafka, group, topic)
    assert list(letters_of(path)) == [10]
    assert "memory budget" in letters_of(path)[10]["reason"]
    assert sum(visible(mill.data).values()) == 80


def test_a_letter_that_no_topic_takes_is_said(kafka, make_mill):
    """Not counted as a dead letter, and the partition goes on."""
    topic, dead, group = kafka.create_topic(max_message_bytes=4 << 20), kafka.create_topic(), fresh_group()
    batch, ledger = records(4)
    kafka.produce(topic, [os.urandom(2_000_000), b"\x0a"] + batch)
    mill = make_mill(reader(kafka, topic, group, receiver={"dead_letter": {"topic": dead}}))
    wait_committed(kafka, group, topic)
    check_once(visible(mill.data), ledger)
    assert "the dead letter topic does not take a record" in mill.stderr()
    assert mill.metric("spanmill_dead_letter_records") == 1
    assert mill.metric("otelcol_kafka_receiver_unmarshal_failed_spans_total") == 2


# -- encodings, topics


def test_json_and_headers_and_patterns(kafka, make_mill):
    name = f"p-{uuid.uuid4().hex[:8]}"
    topics = [kafka.create_topic(f"{name}-{x}") for x in ("a", "b", "skip")]
    group = fresh_group()
    sent = {}
    for topic in topics:
        request = otlp.request(n_spans=3)
        sent[topic] = request
        kafka.produce(
            topic, [{"value": otlp.to_json(request), "headers": {"env": "prod"}}]
        )
    mill = make_mill(
        reader(
            kafka, [f"^{name}-.*"], group,
            receiver={
                "traces": {"encoding": "otlp_json", "exclude_topics": [f"^{name}-skip$"]},
                "header_extraction": {"extract_headers": True, "headers": ["env"]},
            },
        )
    )  # fmt: skip
    for topic in topics[:2]:
        wait_committed(kafka, group, topic)
        trace_id = next(otlp.spans_of(sent[topic])).trace_id
        got = tempo.whole(mill, trace_id)
        attributes = {
            a.key: a.value.string_value for rs in got.resource_spans for a in rs.resource.attributes
        }
        assert attributes["kafka.header.env"] == "prod"
        assert len(list(otlp.spans_of(got))) == 3
    assert kafka.committed(group, topics[2]) == {}


OTHER_RECORDS = {
    "zipkin_json": json.dumps(
        [{"traceId": "4bf92f3577b34da6a3ce929d0e0e4736", "id": "00f067aa0ba902b7", "name": "x"}]
    ).encode(),
    "zipkin_proto": bytes.fromhex(
        "0a1f" "0a104bf92f3577b34da6a3ce929d0e0e4736" "1a0800f067aa0ba902b7" "2a0178"
    ),
    "zipkin_thrift": bytes.fromhex(
        "0c00000001" "0a0001a3ce929d0e0e4736" "0a000c4bf92f3577b34da6" "0b00030000000178"
        "0a000400f067aa0ba902b7" "00"
    ),
    "jaeger_proto": bytes.fromhex(
        "0a104bf92f3577b34da6a3ce929d0e0e4736" "120800f067aa0ba902b7" "1a0178"
    ),
    "jaeger_json": json.dumps(
        {
            "traceId": "S/kvNXezTaajzpKdDg5HNg==",
            "spanId": "APBnqgupArc=",
            "operationName": "x",
        }
    ).encode(),
}


@pytest.mark.parametrize("encoding", OTHER_RECORDS)
def test_other_encodings(kafka, make_mill, encoding):
    topic, group = kafka.create_topic(), fresh_group()
    kafka.produce(topic, [OTHER_RECORDS[encoding]])
    mill = make_mill(reader(kafka, topic, group, receiver={"traces": {"encoding": encoding}}))
    wait_committed(kafka, group, topic)
    got = tempo.settled(mill, "4bf92f3577b34da6a3ce929d0e0e4736")
    assert [(sp.span_id.hex(), sp.name) for sp in otlp.spans_of(got)] == [("00f067aa0ba902b7", "x")]


# -- the neighbours fail


def test_starts_before_the_broker(make_kafka, make_mill):
    kafka = make_kafka(start=False)
    group = fresh_group()
    mill = make_mill(reader(kafka, "early", group), start=False)
    mill.start(ready=False)
    import requests

    def reason():
        try:
            answer = requests.get(mill.url("query", "/ready"), timeout=30)
        except requests.ConnectionError:
            return None
        return answer.text if answer.status_code == 503 and "kafka" in answer.text else None

    wait_for("the reason", reason, 20)
    kafka.start()
    kafka.create_topic("early", partitions=2)
    batch, ledger = records(20)
    kafka.produce("early", batch)
    mill.wait_ready(60)
    wait_committed(kafka, group, "early")
    check_once(visible(mill.data), ledger)


def test_stops_while_it_joins(kafka, make_mill):
    """After the answer to its wish to join and before the leader says who gets what: librdkafka 2.0 cannot
    be destroyed then, and the process must not be aborted by it."""
    topic, group = kafka.create_topic(), fresh_group()
    leader = RawMember(kafka, group, topic)
    assert leader.join() == 1
    mill = make_mill(reader(kafka, topic, group), start=False)
    mill.start(ready=False)
    wait_for("both in one generation", lambda: leader.join() == 2)
    balance = mill.stop()  # checks the status
    assert balance["accepted"] == 0


def test_stops_with_the_broker_away(make_kafka, make_mill):
    """Before it ever came, and after it froze with records under way: it ends soon, and what was not
    committed is read again."""
    kafka = make_kafka(start=False)
    group = fresh_group()
    mill = make_mill(reader(kafka, "early", group), start=False)
    mill.start(ready=False)
    wait_for("trouble", lambda: "trouble with the brokers" in mill.stderr(), 20)
    start = time.monotonic()
    mill.stop()
    assert time.monotonic() - start < 14, "that was the drain_timeout"
    kafka.start()
    kafka.create_topic("early", partitions=2)
    batch, ledger = records(20)
    kafka.produce("early", batch)
    mill.start()
    wait_committed(kafka, group, "early")
    mill.config["exporters"]["blocks"]["max_block_age"] = "1h"
    mill.stop()
    mill.write_config()
    more, spans = records(20)
    kafka.produce("early", more)
    mill.start()
    wait_for("records", lambda: mill.metric("otelcol_kafka_receiver_records_total") == 20, 20)
    kafka.brokers[0].freeze()  # a connection that is open and says nothing lasts longest
    start = time.monotonic()
    mill.stop()
    assert time.monotonic() - start < 25, "more than the drain_timeout of 15 s and a bit"
    kafka.brokers[0].thaw()
    mill.config["exporters"]["blocks"]["max_block_age"] = "300ms"
    mill.write_config()
    mill.start()
    wait_committed(kafka, group, "early")
    check_once(visible(mill.data), ledger | spans)


def test_a_topic_made_after_the_start(kafka, make_mill):
    """It is found within seconds, not with the next refresh of everything after ten minutes; the one
    that was there is read meanwhile. So is one that nobody named, and only a pattern matches."""
    first, later, group = kafka.create_topic(), f"later-{uuid.uuid4().hex[:8]}", fresh_group()
    batch, ledger = records(5)
    kafka.produce(first, batch)
    matching = f"any-{uuid.uuid4().hex[:8]}"
    mill = make_mill(reader(kafka, [first, later, f"^{matching}"], group))
    wait_committed(kafka, group, first)
    assert later in mill.stderr()
    kafka.create_topic(later, partitions=2)
    batch, spans = records(5)
    kafka.produce(later, batch)
    wait_committed(kafka, group, later, timeout=25)
    check_once(visible(mill.data), ledger | spans)
    kafka.create_topic(matching)
    batch, more = records(5)
    kafka.produce(matching, batch)
    wait_committed(kafka, group, matching, timeout=120)
    check_once(visible(mill.data), ledger | spans | more)


def test_next_hop_that_refuses(kafka, make_mill, next_hop):
    """Refused records are read again until the hop takes them; offsets wait for it."""
    topic, group = kafka.create_topic(partitions=2), fresh_group()
    hop = next_hop(start=False)
    batch, ledger = records(60)
    kafka.produce(topic, batch)

    def make(ports):
        config = forwarder(
            ports, f"127.0.0.1:{hop.port}",
            exporter={"sending_queue": {"queue_size": 2, "block_on_overflow": False}},
        )  # fmt: skip
        config["receivers"] = reader(kafka, topic, group)(ports)["receivers"]
        config["service"]["pipelines"]["traces"]["receivers"] = ["kafka"]
        return config

    mill = make_mill(make)
    # the hop is away: nothing may be committed meanwhile, and all of it is late
    wait_for("the lag", lambda: mill.metric("spanmill_kafka_lag_seconds") > 4, 20)
    wait_for("all of it", lambda: mill.metric("spanmill_kafka_lag_records") == 60)
    wait_for("the same", lambda: mill.metric("otelcol_kafka_receiver_offset_lag", topic=topic) == 60)
    assert kafka.committed(group, topic) == {}
    hop.start()
    wait_committed(kafka, group, topic)
    wait_for("no lag", lambda: mill.metric("spanmill_kafka_lag_records") == 0)
    wait_for("none in seconds", lambda: mill.metric("spanmill_kafka_lag_seconds") == 0)
    wait_for("the end", lambda: mill.metric("otelcol_kafka_receiver_current_offset", topic=topic) == 60)
    got = {s.span_id for r in hop.taken for s in otlp.spans_of(r)}
    assert {s for _, s in ledger} == got


def test_partitions_wait_for_memory(kafka, make_mill, next_hop):
    """The hop is away and takes what it is owed out of the budget: partitions are paused, the
    process stays small and a member of its group, and all arrives when the hop is back."""
    topic, group = kafka.create_topic(partitions=2), fresh_group()
    hop = next_hop(start=False)
    sent = [large(1_000_000 + i) for i in range(60)]
    values = [{"value": r.SerializeToString(), "partition": i % 2} for i, r in enumerate(sent)]
    kafka.set_topic_config(topic, max_message_bytes=2 << 20)
    kafka.produce(topic, values)

    def make(ports):
        config = forwarder(
            ports, f"127.0.0.1:{hop.port}",
            exporter={"sending_queue": {"queue_size": 100_000}, "timeout": "2s"},
        )  # fmt: skip
        config["receivers"] = reader(kafka, topic, group)(ports)["receivers"]
        config["processors"] = {"memory_limiter": {"check_interval": "1s", "limit_mib": 32}}
        config["service"]["pipelines"]["traces"].update(
            receivers=["kafka"], processors=["memory_limiter"]
        )
        return config

    mill = make_mill(make)
    wait_for("records", lambda: mill.metric("otelcol_kafka_receiver_records_total") > 4, 20)
    seen = [-1]

    def stands_still():
        seen.append(mill.metric("otelcol_kafka_receiver_records_total"))
        return seen[-1] == seen[-2]

    wait_for("it to stand still", stands_still, 30, step=1)
    assert seen[-1] < 50, "more was read than there is memory for"
    wait_for("all of it to lag", lambda: mill.metric("spanmill_kafka_lag_records") == 60)
    time.sleep(3)  # longer than session_timeout
    if not SANITIZED:
        assert mill.proc_status("VmHWM") < 110 << 20
    hop.start()
    wait_committed(kafka, group, topic)
    got = collections.Counter(s.span_id for r in hop.taken for s in otlp.spans_of(r))
    assert set(got) == {s.span_id for r in sent for s in otlp.spans_of(r)}
    assert "partition given up" not in mill.stderr()


# -- where it begins and ends


def test_initial_offset_latest(kafka, make_mill):
    """What was there before the group began is left out, and only that; a restart goes on behind
    what was committed."""
    topic, group = kafka.create_topic(), fresh_group()
    early = records(10)[0]
    kafka.produce(topic, early)
    mill = make_mill(reader(kafka, topic, group, receiver={"initial_offset": "latest"}))
    late, ledgers = [], []
    while not visible(mill.data):  # it may take a moment to know where the end was
        batch, ledger = records(1)
        kafka.produce(topic, batch)
        late.append(batch[0])
        ledgers.append(ledger)
        time.sleep(0.05)
    wait_committed(kafka, group, topic)
    found = visible(mill.data)
    first = next(i for i, ledger in enumerate(ledgers) if ledger <= set(found))
    check_once(found, set().union(*ledgers[first:]))
    mill.stop()
    batch, ledger = records(5)
    kafka.produce(topic, batch)
    mill.start()
    wait_committed(kafka, group, topic)
    check_once(visible(mill.data), ledger.union(*ledgers[first:]))


def test_stop_without_flush(kafka, make_mill):
    """flush_on_shutdown: false: it ends at once, nothing is committed of what is in no block, and
    all of it is read again."""
    topic, group = kafka.create_topic(partitions=2), fresh_group()
    batch, ledger = records(40)
    kafka.produce(topic, batch)
    open_long = {"exporters": {"blocks": {"max_block_age": "1h", "flush_on_shutdown": False}}}
    mill = make_mill(reader(kafka, topic, group, overlay=open_long))
    wait_for("the records", lambda: mill.metric("spanmill_kafka_lag_seconds") > 0, 20)
    wait_for("all", lambda: mill.metric("otelcol_kafka_receiver_records_total") == 40, 20)
    start = time.monotonic()
    balance = mill.stop()
    assert time.monotonic() - start < 14, "that was the drain_timeout"
    committed = sum(kafka.committed(group, topic).values())
    assert sum(visible(mill.data).values()) == 4 * committed
    assert balance["delivered"] == 4 * committed
    mill.config["exporters"]["blocks"]["max_block_age"] = "300ms"
    mill.write_config()
    mill.start()
    wait_committed(kafka, group, topic)
    check_once(visible(mill.data), ledger)


# -- configuration


@pytest.mark.parametrize(
    "keys, words",
    [
        ({"message_marking": {"on_error": True}}, "message_marking.on_error"),
        ({"traces": {"encoding": "jaeger"}}, "jaeger"),
        ({"group_rebalance_strategy": "sticky"}, "write cooperative-sticky"),
        ({"traces": {"exclude_topics": ["x"]}}, "no topic is a regular expression"),
        ({"librdkafka": {"enable.auto.commit": "true"}}, "offsets are committed after delivery"),
        ({"dead_letter": {"topic": "otlp_spans"}}, "would be read again"),
        ({"traces": {"topics": [r"^spans-\d+$"]}}, "[0-9] for"),
        ({"traces": {"topics": ["^spans-("]}}, "invalid regular expression"),
        ({"traces": {"topics": ["^a"], "exclude_topics": ["a{1,2}"]}}, "as two"),
        ({"heartbeat_interval": "10s"}, "must be shorter than session_timeout"),
    ],
)
def test_what_asks_for_less_is_refused(tmp_path, keys, words):
    import yaml

    config = {
        "receivers": {"kafka": keys},
        "exporters": {"nop": None},
        "service": {"pipelines": {"traces": {"receivers": ["kafka"], "exporters": ["nop"]}}},
    }
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(config))
    status, _, err = run("validate", "--config", str(path))
    assert status == 1 and words in err, err
