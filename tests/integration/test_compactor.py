"""Compactors: killed and frozen at random while every trace is asked for again and again; retention;
the tenant index; what is damaged or half done.

The compactors are processes of their own with nothing but a trace_store and a compactor, as
configs/compactor.yaml has it; their windows and waits are seconds here.
"""

import calendar
import collections
import contextlib
import gzip
import json
import os
import random
import signal
import threading
import time

import pytest

import otlp
import tempo
from mill import merged, query_node, run, wait_for

FAST = {
    "compaction_cycle": "150ms",
    "compaction_window": "20s",
    "compacted_block_retention": "3s",
    "min_inputs": 2,
    "max_inputs": 4,
}
TRACES, ROUNDS = 1000, 4
CHAOS_SECONDS = float(os.environ.get("SPANMILL_COMPACTOR_SECONDS", "8"))


class Local:
    """A folder that all processes share."""

    def __init__(self, path):
        self.path = str(path)

    def overlay(self):
        store = {"backend": "local", "local": {"path": self.path}, "blocklist_poll": "1s"}
        return {"extensions": {"trace_store": store}}

    def keys(self):
        found = []
        for folder, _, names in os.walk(self.path):
            found += [os.path.relpath(os.path.join(folder, n), self.path) for n in names]
        return [k for k in found if not k.startswith("_spanmill/wal") and "/." not in f"/{k}"]

    def read(self, key):
        with open(os.path.join(self.path, key), "rb") as f:
            return f.read()


class Bucket:
    """A bucket of a real S3 server."""

    def __init__(self, server):
        self.server, self.bucket = server, server.create_bucket()

    def overlay(self):
        return merged(
            self.server.overlay(self.bucket),
            {"extensions": {"trace_store": {"blocklist_poll": "1s"}}},
        )

    def keys(self):
        return self.server.keys(self.bucket)

    def read(self, key):
        return self.server.read(self.bucket, key)


@pytest.fixture(params=["local", "s3"])
def place(request, tmp_path):
    if request.param == "local":
        return Local(tmp_path / "store")
    return Bucket(request.getfixturevalue("seaweed"))


def node(make_mill, place, extension, settings=None, **keys):
    """A process of extensions only: trace_store and one more."""

    def config(ports):
        c = query_node(ports, place.path if isinstance(place, Local) else str(ports["query"]))
        if extension != "query":
            del c["extensions"]["query"]
            c["extensions"][extension] = settings
            c["extensions"]["health_check"] = {"endpoint": f"127.0.0.1:{ports['health']}"}
            c["service"]["extensions"] = ["trace_store", extension, "health_check"]
        return merged(c, place.overlay())

    return make_mill(config, **keys)


def compactor(make_mill, place, **settings):
    return node(make_mill, place, "compactor", {**FAST, **settings})


def names_of(place):
    """{block id: names of its objects} of the tenant of all tests."""
    found = {}
    for key in place.keys():
        parts = key.split("/")
        if len(parts) == 3 and parts[0] == "single-tenant":
            found.setdefault(parts[1], set()).add(parts[2])
    return found


def live(place):
    return {i for i, n in names_of(place).items() if "meta.json" in n and "meta.compacted.json" not in n}


def store_traces(builder, place, n_traces, rounds=1, spans=2, least=1):
    """Acknowledged spans by trace id; each round's lie in other blocks than those before."""
    sent = {otlp.new_id(16): set() for _ in range(n_traces)}
    for _ in range(rounds):
        before = len(live(place))
        ids = list(sent)
        for at in range(0, n_traces, 50):
            message = otlp.request(n_traces=1, n_spans=spans * len(ids[at : at + 50]))
            for i, span in enumerate(otlp.spans_of(message)):
                span.trace_id = ids[at + i // spans]
                span.parent_span_id = b""
                sent[span.trace_id].add(span.span_id)
            otlp.send_grpc(builder, message)
        wait_for("another block", lambda n=before: len(live(place)) >= n + least, 20)
    return sent


def make_builder(make_mill, place, **blocks):
    """Takes spans and cuts them into small blocks."""
    overlay = merged(place.overlay(), {"exporters": {"blocks": {"max_block_age": "300ms", **blocks}}})
    return make_mill(overlay=overlay)


def wrong(query, sent, ids):
    """What of these traces is not as it was sent: missing, or doubled, spans."""
    bad = []
    for trace_id in ids:
        got = tempo.settled(query, trace_id)
        have = [s.span_id for s in otlp.spans_of(got)] if got else []
        if sorted(have) != sorted(sent[trace_id]):
            bad.append((trace_id.hex(), len(have), len(set(have)), len(sent[trace_id])))
    return bad


class Chaos(threading.Thread):
    """Kills, freezes and starts compactors until told to stop."""

    def __init__(self, mills, rng):
        super().__init__(daemon=True)
        self.mills, self.rng, self.over = mills, rng, threading.Event()
        self.episodes = {"kill": 0, "freeze": 0}

    def run(self):
        while not self.over.wait(self.rng.uniform(0.05, 0.7)):
            mill = self.rng.choice(self.mills)
            if self.rng.random() < 0.6:
                mill.kill()
                mill.start(ready=False)
                self.episodes["kill"] += 1
            else:
                mill.process.send_signal(signal.SIGSTOP)
                self.over.wait(self.rng.uniform(0.1, 2.5))
                mill.process.send_signal(signal.SIGCONT)
                self.episodes["freeze"] += 1

    def did_enough(self):
        return self.episodes["kill"] >= 3 and self.episodes["freeze"] >= 2

    def stop(self):
        self.over.set()
        self.join(20)
        assert not self.is_alive()
        return self.episodes


@contextlib.contextmanager
def chaos(mills, seed):
    thread = Chaos(mills, random.Random(seed))
    thread.start()
    try:
        yield thread
    finally:
        thread.stop()


def due_at(place, block, retention):
    """When a block's retention is over, by its own ingestedAt."""
    text = json.loads(place.read(f"single-tenant/{block}/meta.json"))["ingestedAt"]
    whole, _, fraction = text.rstrip("Z").partition(".")
    seconds = calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S"))
    return seconds + float(f"0.{fraction or 0}") + retention


def crowded(place, window):
    """Whether a window that is over has more than one block."""
    try:
        windows = collections.Counter(due_at(place, b, 0) // window for b in live(place))
    except Exception:  # merged meanwhile
        return True
    return any(n > 1 for w, n in windows.items() if (w + 1) * window < time.time())


def indexed(place):
    """The live blocks of the tenant index."""
    index = json.loads(gzip.decompress(place.read("single-tenant/index.json.gz")))
    return {m["blockID"] for m in index["meta"]}


def test_two_compactors_killed_while_every_trace_is_asked_for(make_mill, place):
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    builder = make_builder(make_mill, place)
    query = node(make_mill, place, "query")
    sent = store_traces(builder, place, TRACES, ROUNDS)
    ids = list(sent)
    query_sees = lambda: not wrong(query, sent, ids[:: TRACES // 20])  # noqa: E731
    wait_for("the query node to see all", query_sees, 20)
    mills = [compactor(make_mill, place) for _ in range(2)]
    asked, end = 0, time.monotonic() + CHAOS_SECONDS
    with chaos(mills, seed) as monkey:
        while time.monotonic() < end or asked < TRACES or not monkey.did_enough():
            chunk = [ids[(asked + i) % TRACES] for i in range(50)]
            assert wrong(query, sent, chunk) == [], f"seed {seed}, {monkey.episodes}"
            asked += len(chunk)
            if asked % 400 == 0 and time.monotonic() < end:  # blocks keep coming
                sent.update(store_traces(builder, place, 5, least=0))
    print(f"{asked} answers, {monkey.episodes}, {len(names_of(place))} block folders")

    # When they are left alone: one block per window, nothing left behind, each span there once.
    wait_for("one block per window", lambda: not crowded(place, 20), 90)
    settled = lambda: all("meta.json" in n for n in names_of(place).values())  # noqa: E731
    wait_for("old blocks to be deleted", settled, 60)
    assert wrong(query, sent, list(sent)) == []
    assert sum(m.metric("spanmill_compaction_duplicate_spans") for m in mills) == 0
    assert all(m.metric("spanmill_compaction_conflicting_spans") == 0 for m in mills)
    wait_for("the index", lambda: indexed(place) == live(place), 20)
    if isinstance(place, Local):
        builder.stop()
        status, out, err = run("fsck", place.path)
        assert status == 0, out + err


def test_retention_takes_what_is_due_and_nothing_else(make_mill, place):
    """Blocks of three ages: none leaves the list before its time, which is the tenant's own and counts
    from ingestedAt whatever the spans say, and each does soon after; deletion comes later still."""
    retention, kept_after = 4, 3
    builder = make_builder(make_mill, place)
    for i in range(3):
        store_traces(builder, place, 10)
        time.sleep(1.5 if i < 2 else 0)
    due = {b: due_at(place, b, retention) for b in live(place)}
    keeper = compactor(
        make_mill,
        place,
        compaction_window="1h",
        min_inputs=32,
        max_inputs=32,
        block_retention="1h",
        tenants={"single-tenant": {"block_retention": f"{retention}s"}},
    )
    seen_marked = {}
    while set(names_of(place)) & set(due):
        names, now = names_of(place), time.time()
        for block, when in due.items():
            if "meta.json" not in names.get(block, ()):
                assert now > when, f"{when - now} s too early"
                seen_marked.setdefault(block, now)
            else:
                assert now < when + 45, "still there"
            if block not in names:
                assert now > when + kept_after, "deleted too early"
        time.sleep(0.1)
    wait_for("the index to go", lambda: not [k for k in place.keys() if k.startswith("single-tenant/")], 5)
    assert set(seen_marked) == set(due) and len(due) >= 3
    wait_for("the count", lambda: keeper.metric("spanmill_blocks_retired") == len(due), 5)


def parquet_block(place, block="b27b0e53-66a0-4505-afd6-434ae3cd4a10"):
    """One as Tempo 2.8 writes it, with spans of the year 2020."""
    folder = f"{place.path}/single-tenant/{block}"
    os.makedirs(folder)
    meta = {
        "format": "vParquet4",
        "blockID": block,
        "tenantID": "single-tenant",
        "startTime": "2020-07-04T11:11:09Z",
        "endTime": "2020-07-04T11:11:35Z",
        "totalObjects": 134,
        "size": 77187,
        "encoding": "none",
        "totalRecords": 1,
        "dataEncoding": "",
        "bloomShards": 1,
        "footerSize": 17711,
    }
    for name in ("data.parquet", "bloom-0", "index"):
        open(f"{folder}/{name}", "wb").write(b"PAR1")
    with open(f"{folder}/meta.json", "w") as f:
        json.dump(meta, f)
    return block


def test_what_cannot_be_merged_stays(make_mill, tmp_path):
    """A block that is damaged, one whose meta.json is, one that is marked to be left alone, and one of
    another format: all stay, counted and named; their neighbours are merged, and the index is written
    when something changed, not in each cycle."""
    place = Local(tmp_path / "store")
    builder = make_builder(make_mill, place)
    sent = store_traces(builder, place, 30, rounds=6)
    builder.stop()
    blocks = sorted(live(place))
    damaged, kept, headless = blocks[:3]
    parquet = parquet_block(place)
    with open(f"{place.path}/single-tenant/{damaged}/data", "r+b") as f:
        f.seek(os.path.getsize(f.name) // 2)
        byte = f.read(1)
        f.seek(-1, os.SEEK_CUR)
        f.write(bytes([byte[0] ^ 0x55]))
    with open(f"{place.path}/single-tenant/{headless}/meta.json", "r+b") as f:
        f.truncate(40)
    open(f"{place.path}/single-tenant/{kept}/nocompact.flg", "w").close()
    stay = {damaged, kept, headless, parquet}
    mill = compactor(make_mill, place, compaction_window="1h", max_inputs=8)
    wait_for("the others to be merged", lambda: len(live(place)) == 5, 20)
    assert stay < live(place)
    assert mill.metric("spanmill_compaction_refused_blocks") == 1
    left = lambda why: mill.metric("spanmill_compaction_left_blocks", reason=why)  # noqa: E731
    wait_for("the counts", lambda: [left(w) for w in ("meta", "format", "failed")] == [1, 1, 1])
    assert mill.metric("spanmill_compaction_cycles", result="failed") == 0
    assert all(block in mill.stderr() for block in (damaged, headless, parquet))
    (merged_block,) = live(place) - stay
    meta = json.loads(place.read(f"single-tenant/{merged_block}/meta.json"))
    assert meta["totalObjects"] == len(sent) and meta["compactionLevel"] == 1
    # the inputs go three seconds after the merge; then nothing changes any more
    wait_for("the inputs to go", lambda: set(names_of(place)) == live(place))
    cycles = lambda: mill.metric("spanmill_compaction_cycles", result="all")  # noqa: E731
    wait_for("two cycles more", lambda n=cycles(): cycles() >= n + 2)
    written, since = mill.metric("spanmill_blocks_indexes_written"), cycles()
    wait_for("five cycles more", lambda: cycles() >= since + 5)
    assert mill.metric("spanmill_blocks_indexes_written") == written
    assert indexed(place) == {damaged, kept, parquet, merged_block}


def test_a_compactor_alone_says_that_it_fails(make_mill, seaweed):
    """503 on health_check while its store is away; a process that does more stays ready."""
    place = Bucket(seaweed)
    mill = compactor(make_mill, place)
    wait_for("a cycle", lambda: mill.metric("spanmill_compaction_cycles", result="all") > 0)
    assert mill.is_ready()
    seaweed.client.delete_bucket(Bucket=place.bucket)
    wait_for("unready", lambda: not mill.is_ready(), 30)
    assert mill.metric("spanmill_compaction_cycles", result="failed") > 0


def test_it_runs_beside_ingest_and_query(make_mill):
    """In all-in-one: merges its own blocks at once, and what it merges is found all the while."""
    extensions = ["trace_store", "query", "compactor", "health_check"]
    mill = make_mill(
        overlay={
            "extensions": {"compactor": FAST, "trace_store": {"blocklist_poll": "1s"}},
            "exporters": {"blocks": {"max_block_age": "300ms"}},
            "service": {"extensions": extensions},
        }
    )
    place = Local(mill.data)
    sent = {}
    for _ in range(6):
        sent.update(store_traces(mill, place, 20, least=0))
        assert wrong(mill, sent, list(sent)) == []
        time.sleep(0.4)
    wait_for("merges", lambda: mill.metric("spanmill_compaction_merges", result="committed") > 0, 20)
    assert wrong(mill, sent, list(sent)) == []
