"""Query nodes over a real bucket: what they find, and how many requests that takes."""

import os
import signal
import socket
import subprocess
import threading
import uuid

import pytest
import requests
import yaml

import otlp
import s3_servers
import tempo
from mill import ROOT, SANITIZED, merged, query_node, wait_for

MISSING = "0123456789abcdef0123456789abcdef"


def trace_id_of(sent):
    return next(otlp.spans_of(sent)).trace_id


def make_builder(make_mill, seaweed, bucket, **extensions):
    """All in one process, sections stay open until a flush."""
    store = merged(seaweed.overlay(bucket), {"extensions": extensions})
    return make_mill(overlay=merged(store, {"exporters": {"blocks": {"max_block_age": "10m"}}}))


def make_query(make_mill, server, bucket, poll="1s", endpoint=None, **query):
    def config(ports):
        c = merged(query_node(ports, "data"), server.overlay(bucket, endpoint=endpoint))
        c["extensions"]["trace_store"]["blocklist_poll"] = poll
        c["extensions"]["query"].update(query)
        return c

    return make_mill(config)


def flush(mill):
    requests.post(mill.url("query", "/flush"), timeout=30).raise_for_status()


def requests_of(mill, op):
    return mill.metric("spanmill_s3_requests", op=op)


def test_live_and_stored_spans_through_a_bucket(make_mill, seaweed):
    """Found while it is live, the moment it is a block (the query node's own poll is a minute away),
    and after; and when the builder is gone the answer says so."""
    bucket = seaweed.create_bucket()
    builder = make_builder(make_mill, seaweed, bucket)
    at = f"127.0.0.1:{builder.ports['query']}"
    query = make_query(make_mill, seaweed, bucket, "60s", builders=[at], builder_timeout="10s")
    sent = otlp.request(n_spans=3)
    otlp.send_grpc(builder, sent)
    otlp.assert_same(tempo.settled(query, trace_id_of(sent)), sent)
    flush(builder)
    otlp.assert_same(tempo.settled(query, trace_id_of(sent)), sent)
    assert tempo.settled(query, MISSING) is None
    builder.stop()
    got, complete, message = tempo.get_partial(query, trace_id_of(sent), "v2 protobuf")
    assert not complete and at in message
    assert tempo.ask_form(query, MISSING, "v1 json").status_code == 503
    # once it has polled, the block is found without the builder; the answer still misses one
    fresh = make_query(make_mill, seaweed, bucket, builders=[at], builder_timeout="10s")
    got, complete, _ = tempo.get_partial(fresh, trace_id_of(sent))
    otlp.assert_same(got, sent)
    assert not complete


def sample(name, ports, **overlay):
    """A configuration of configs/ on ports of our own."""
    with open(os.path.join(ROOT, "configs", name), encoding="utf-8") as f:
        config = merged(yaml.safe_load(f), overlay)
    config["extensions"]["query"]["endpoint"] = f"127.0.0.1:{ports['query']}"
    config["extensions"]["health_check"] = {"endpoint": f"127.0.0.1:{ports['health']}"}
    config["service"]["telemetry"] = {"metrics": {"address": f"127.0.0.1:{ports['metrics']}"}}
    return config


def test_from_kafka_to_a_query_node(make_mill, seaweed, kafka):
    """configs/block-builder.yaml and configs/query.yaml over a real broker and bucket: a span is found
    a moment after it was sent, long before it is a block; a builder that is frozen or dead is named;
    one that came back reads again what was in no block."""
    bucket, topic = seaweed.create_bucket(), kafka.create_topic()
    store = {
        "STORE_BACKEND": "s3",
        "S3_ENDPOINT": seaweed.endpoint,
        "S3_BUCKET": bucket,
        "S3_ACCESS_KEY": s3_servers.ACCESS,
        "S3_SECRET_KEY": s3_servers.SECRET,
    }
    age = {"blocks": {"max_block_age": "10m", "flush_on_shutdown": False}}
    session = {"kafka": {"session_timeout": "6s", "heartbeat_interval": "500ms"}}
    builder = make_mill(
        lambda ports: sample("block-builder.yaml", ports, exporters=age, receivers=session),
        env={
            **store,
            "KAFKA_BROKER": kafka.addresses[0],
            "KAFKA_GROUP": f"g-{uuid.uuid4().hex[:8]}",
            "KAFKA_TOPIC": topic,
        },
    )
    at = f"127.0.0.1:{builder.ports['query']}"
    query = make_mill(lambda ports: sample("query.yaml", ports), env={**store, "BUILDERS": at})
    sent = otlp.request(n_spans=3)
    kafka.produce(topic, [{"value": sent.SerializeToString()}])
    tid = trace_id_of(sent)
    otlp.assert_same(tempo.whole(query, tid), sent)
    assert not [k for k in seaweed.keys(bucket) if k.endswith("meta.json")]

    builder.process.send_signal(signal.SIGSTOP)
    _, complete, message = tempo.get_partial(query, tid, "v2 json")
    builder.process.send_signal(signal.SIGCONT)
    assert not complete and f"builder {at}: " in message
    builder.kill()
    _, complete, message = tempo.get_partial(query, tid, "v2 json")
    assert not complete and f"builder {at}: " in message
    builder.start()
    wait_for("what was in no block", lambda: tempo.get_partial(query, tid, "v2 json")[0], 60)
    flush(builder)
    otlp.assert_same(tempo.whole(query, tid), sent)
    assert [k for k in seaweed.keys(bucket) if k.endswith("meta.json")]


def test_a_poll_of_known_blocks_is_one_list(make_mill, seaweed):
    bucket = seaweed.create_bucket()
    builder = make_builder(make_mill, seaweed, bucket)
    for _ in range(3):
        otlp.send_grpc(builder, otlp.request())
        flush(builder)
    builder.stop()
    query = make_query(make_mill, seaweed, bucket, "200ms")
    assert query.metric("spanmill_blocks_listed") == 3
    metas = query.metric("spanmill_blocks_metas_read")
    assert metas <= 3
    lists = requests_of(query, "list")
    wait_for("five more polls", lambda: requests_of(query, "list") >= lists + 10)
    assert query.metric("spanmill_blocks_metas_read") == metas
    # a damaged index costs requests only
    seaweed.client.put_object(Bucket=bucket, Key="single-tenant/index.json.gz", Body=b"\x1f\x8b no")
    wait_for(
        "the index to be refused",
        lambda: query.metric("spanmill_blocks_tenant_indexes", result="unreadable") == 1,
    )
    assert query.metric("spanmill_blocks_listed") == 3


def test_a_store_that_is_away_makes_the_answer_incomplete(make_mill, seaweed, bad_network):
    """Blocks that cannot be read are missed, not absent."""
    bucket = seaweed.create_bucket()
    builder = make_builder(make_mill, seaweed, bucket)
    sent = otlp.request()
    otlp.send_grpc(builder, sent)
    flush(builder)
    builder.stop()
    query = make_query(make_mill, seaweed, bucket, "60s", f"http://127.0.0.1:{bad_network.port}")
    bad_network.behave = lambda request: "cut" if "bloom" in request.path else None
    assert tempo.ask_form(query, trace_id_of(sent), "v1 json").status_code == 503
    got, complete, message = tempo.get_partial(query, trace_id_of(sent), "v2 json")
    assert got is None and not complete and "1 of 1 places" in message
    bad_network.behave = None
    otlp.assert_same(tempo.settled(query, trace_id_of(sent)), sent)


def test_a_querier_stops_when_the_front_end_gave_up(make_mill, seaweed, bad_network):
    """Eight filters are read at a time; the rest is nobody's any more, and would be in the way of what
    is asked for next."""
    bucket = seaweed.create_bucket()
    builder = make_builder(make_mill, seaweed, bucket)
    for _ in range(20):
        otlp.send_grpc(builder, otlp.request())
        flush(builder)
    builder.stop()
    query = make_query(make_mill, seaweed, bucket, "60s", f"http://127.0.0.1:{bad_network.port}")
    filters, go_on = [], threading.Event()

    def arriving(request):
        if "bloom" in request.path:
            filters.append(request.path)
            go_on.wait(60)

    bad_network.arriving = arriving
    with socket.create_connection(("127.0.0.1", query.ports["query"]), timeout=30) as s:
        s.sendall(f"GET /querier/api/traces/{MISSING} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        wait_for("the first filters", lambda: len(filters) == 8)
    # the loop sees that it went before it answers what came later
    for _ in range(20):
        requests.get(query.url("query", "/api/echo"), timeout=30)
    go_on.set()
    wait_for("the end", lambda: query.metric("spanmill_query_traces", result="failed") == 1)
    assert len(filters) < 20
    bad_network.arriving = None
    assert tempo.settled(query, MISSING) is None


def test_a_block_deleted_behind_our_back_is_looked_for_elsewhere(make_mill, seaweed):
    """As compaction does: the block on the list is gone, and what it held is in one that came since."""
    bucket = seaweed.create_bucket()
    builder = make_builder(make_mill, seaweed, bucket)
    sent = otlp.request()
    otlp.send_grpc(builder, sent)
    flush(builder)
    query = make_query(make_mill, seaweed, bucket, "60s")
    old = {k for k in seaweed.keys(bucket) if k.startswith("single-tenant/")}
    otlp.send_grpc(builder, sent)  # the same spans, in another block
    flush(builder)
    builder.stop()
    for key in old:
        seaweed.client.delete_object(Bucket=bucket, Key=key)
    otlp.assert_same(tempo.settled(query, trace_id_of(sent)), sent)
    assert query.metric("spanmill_blocks_listed") == 1


@pytest.mark.skipif(SANITIZED, reason="the bench is of the plain build")
def test_requests_of_a_look_up(seaweed):
    """bench_query_s3 with few blocks: start by the tenant index, a front end over two queriers, every
    trace whole, and no more requests than promised (p50 <= 4, p99 <= 12)."""
    program = "build/tests/bench/bench_query_s3"
    subprocess.run(["make", "-s", program], cwd=ROOT, check=True, timeout=300)
    done = subprocess.run(
        [program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, "SPANMILL_BENCH_BLOCKS": "192"},
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 0, done.stderr[-2000:]
    figures = {
        line.split(" | ")[0].strip(): float(line.split(" | ")[1].split()[0])
        for line in done.stdout.splitlines()
        if " | " in line
    }
    assert figures["query over S3: start of a querier: meta.json read"] == 0
    assert figures["query over S3: start of a querier: GETs"] <= 2
