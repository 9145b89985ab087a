"""The bucket's side of the promise: kill -9 while blocks go to S3, a store that slows down, loses
answers, hangs or goes away. Every acknowledged span comes back once.

The seed is printed; SPANMILL_KILL_SEED repeats a run's choices."""

import os
import random
import time

import pytest
from opentelemetry.proto.trace.v1 import trace_pb2 as trace

import otlp
import tempo
from ledger import Client, check
from mill import merged, wait_for
from test_s3 import blocks_of, refusal, send

KILLS = int(os.environ.get("SPANMILL_KILLS", 6))
ASKED = 150  # traces of each client asked for after a kill; ten times as many at the end
SEED = int(os.environ.get("SPANMILL_KILL_SEED", random.SystemRandom().randrange(10**6)))
SMALL = {"exporters": {"blocks": {"max_block_age": "200ms", "max_block_traces": 50}}}


def some(rng, traces, n):
    """At most n of them, by lot."""
    return dict(rng.sample(sorted(traces.items()), min(n, len(traces))))


def wait_for_step(server, bucket, before, step):
    """Until the bucket has an object of this step that was not there before."""
    marks = {"data": "/data", "commit": "/_spanmill/commits/", "meta": "/meta.json"}

    def seen():
        return any(marks[step] in f"/{k}" for k in set(server.keys(bucket)) - before)

    deadline = time.monotonic() + 3
    while not seen() and time.monotonic() < deadline:
        pass


@pytest.mark.timeout(300)  # every span of every round is asked for, from a bucket
def test_every_acknowledged_span_comes_back_once_from_a_bucket(make_mill, seaweed):
    print(f"SPANMILL_KILL_SEED={SEED}")
    rng = random.Random(SEED)
    bucket = seaweed.create_bucket()
    # a pause between the steps of publishing: the kills shall land in all of them
    mill = make_mill(
        overlay=merged(seaweed.overlay(bucket), SMALL), env={"SPANMILL_TEST_STEP_DELAY_MS": "20"}
    )
    clients = [Client(mill), Client(mill, by_http=True, n_spans=40), Client(mill, tenant="other")]
    for c in clients:
        c.start()
    steps = ("data", "commit", "meta", "time")
    checked = {}
    for kill in range(KILLS):
        step = steps[kill % 4]
        if step == "time":
            time.sleep(rng.uniform(0.0, 0.6))
        else:
            wait_for_step(seaweed, bucket, set(seaweed.keys(bucket)), step)
            time.sleep(rng.choice([0, 0, 0.005, 0.02]))
        mill.kill()
        mill.start()
        for c in clients:
            fresh = {t: r for t, r in list(c.acked.items()) if t not in checked}
            check(mill, some(rng, fresh, ASKED), c.tenant, tempo.settled)
            checked.update(fresh)
    for c in clients:
        c.finish()
        assert not c.wrong, c.wrong[:5]
        check(mill, some(rng, c.acked, 10 * ASKED), c.tenant, tempo.settled)
    total = sum(len(c.acked) for c in clients)
    print(f"{KILLS} kills, {total} traces acknowledged, {len(blocks_of(seaweed, bucket))} blocks")
    assert total > 10 * KILLS
    mill.stop()
    mill.start()
    for c in clients:
        check(mill, dict(rng.sample(sorted(c.acked.items()), min(200, len(c.acked)))), c.tenant, tempo.settled)
    # A block that is visible is whole, and a commit stands for each.
    for block in blocks_of(seaweed, bucket):
        names = {k[len(block) + 1 :] for k in seaweed.keys(bucket, block + "/")}
        assert {"data", "index", "bloom-0", "meta.json"} <= names, (block, names)


@pytest.mark.timeout(300)
def test_a_store_that_slows_down_and_loses_answers(make_mill, seaweed, bad_network):
    """503 SlowDown for one request in ten, connections that end before or after the deed, halves
    of answers, delays: nothing is lost or doubled, and nobody is told anything wrong."""
    print(f"SPANMILL_KILL_SEED={SEED}")
    rng = random.Random(SEED)
    bucket = seaweed.create_bucket()
    faults = [None, "503", "cut", "swallow", "half", 0.05]
    bad_network.behave = lambda request: rng.choices(faults, [70, 10, 4, 8, 4, 4])[0]
    mill = make_mill(
        overlay=merged(seaweed.overlay(bucket, endpoint=bad_network.endpoint), SMALL)
    )
    clients = [Client(mill), Client(mill, by_http=True), Client(mill, tenant="other", n_spans=30)]
    for c in clients:
        c.start()
    wait_for("blocks", lambda: len(blocks_of(seaweed, bucket)) >= 24, 40, 0.2)
    for c in clients:
        c.finish()
        assert not c.wrong, c.wrong[:5]
    for c in clients:
        check(mill, c.acked, c.tenant, look_up=tempo.settled)
    print(dict(bad_network.seen), sum(len(c.acked) for c in clients), "traces")
    assert bad_network.seen["503"] > 10 and bad_network.seen["swallow"] > 5, bad_network.seen
    assert mill.metric("spanmill_s3_retries") > 10
    bad_network.behave = None
    mill.stop()
    mill.start()
    for c in clients:
        check(mill, dict(rng.sample(sorted(c.acked.items()), min(200, len(c.acked)))), c.tenant, tempo.settled)


def test_an_outage_of_the_store_is_borne_by_the_log(make_mill, seaweed, bad_network):
    """The store away while spans come in: they are acknowledged and found, few requests are made,
    and all of it is in the bucket when the store is back."""
    bucket = seaweed.create_bucket()
    mill = make_mill(
        overlay=merged(seaweed.overlay(bucket, endpoint=bad_network.endpoint), SMALL)
    )
    sent = send(mill, 3)
    wait_for("a block", lambda: blocks_of(seaweed, bucket))
    bad_network.behave = lambda request: "cut"
    sent.update(send(mill, 20))
    before = bad_network.seen["cut"]
    wait_for("a failure", lambda: mill.metric("spanmill_blocks_build_failures") > 0, 20)
    sent.update(send(mill, 20))
    for trace_id in list(sent)[3:]:
        # 206: it is live, but blocks cannot be asked
        answer = tempo.ask(mill, f"/api/traces/{trace_id.hex()}", accept="application/protobuf")
        assert answer.status_code == 206, answer.text
        got = trace.TracesData.FromString(answer.content)
        assert sorted(otlp.span_ids(got)) == sorted(otlp.span_ids(sent[trace_id]))
    assert bad_network.seen["cut"] - before < 200, bad_network.seen
    bad_network.behave = None
    wait_for("all in blocks", lambda: mill.metric("spanmill_blocks_live_spans") == 0, 60, 0.1)
    check(mill, sent, look_up=tempo.settled)
    mill.stop()


def test_a_store_that_hangs_does_not_hold_the_stop(make_mill, seaweed, bad_network):
    """SIGTERM while the store neither answers nor closes: the process ends after its drain time,
    and what is not in blocks is in the log."""
    bucket = seaweed.create_bucket()
    hung = []
    mill = make_mill(
        overlay=merged(
            seaweed.overlay(bucket, endpoint=bad_network.endpoint),
            SMALL,
        )
    )
    mill.config["service"]["drain_timeout"] = "2s"
    mill.stop()
    mill.write_config()
    mill.start()
    bad_network.behave = lambda request: hung.append(request) or 60
    sent = send(mill, 5)
    wait_for("a request that hangs", lambda: any(r.method == "PUT" for r in hung), 20)
    start = time.monotonic()
    balance = mill.stop()
    took = time.monotonic() - start
    assert balance["held"] == 15, balance
    assert took < 40, f"the stop took {took:.1f} s"
    # And while it starts: it waits for the bucket's first answer, or for a proof of conditional puts.
    for method in ("GET", "PUT"):
        hung.clear()
        bad_network.behave = lambda r, m=method: (hung.append(r) or 60) if r.method == m else None
        mill.start(ready=False)
        wait_for("a request that hangs", lambda: hung)
        start = time.monotonic()
        assert mill.stop()["held"] in (0, 15)
        took = time.monotonic() - start
        assert took < 12, f"the stop took {took:.1f} s"  # a silent request is given up after 15
    bad_network.behave = None
    mill.start()
    check(mill, sent, look_up=tempo.settled)


def test_a_store_that_is_away_at_start_is_named(make_mill, seaweed, bad_network):
    bad_network.behave = lambda request: "503"
    said = refusal(make_mill, seaweed.overlay("bucket", endpoint=bad_network.endpoint))
    assert "503 SlowDown" in said and bad_network.endpoint in said, said
    assert bad_network.seen["503"] == 5
