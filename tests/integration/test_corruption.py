"""Bytes damaged at rest: a flip, a cut or a stretch of zeros anywhere in the logs, the commit records,
the blocks and the small files beside them, on disk and in a bucket. The process starts, nothing crashes or hangs, what was not
touched is returned, and what was is counted: exactly, where a log record was hit.

The seed is printed; SPANMILL_CORRUPT_SEED repeats the choices, SPANMILL_CORRUPT_EPISODES makes it
longer."""

import os
import shutil

import pytest
import requests

import otlp
import segments
from faults import Oracle, seeded
from mill import run, wait_for

EPISODES = int(os.environ.get("SPANMILL_CORRUPT_EPISODES", 12))


def damage(rng, path):
    """Change some bytes; returns what was done and the range [first, end) of what is different."""
    size = os.path.getsize(path)
    if path.endswith(".segment") and rng.random() < 0.95:
        size = min(size, segments.data_end(path) + 64)  # rather not in the zeros that were reserved
    at = rng.randrange(size)
    kind = rng.choice(["flip", "flip", "zero", "cut"])
    with open(path, "r+b") as f:
        if kind == "cut":
            f.truncate(at)
            return f"cut at {at}", at, size
        f.seek(at)
        old = f.read(1 if kind == "flip" else rng.randrange(1, 3000))
        f.seek(at)
        f.write(bytes([old[0] ^ 1 << rng.randrange(8)]) if kind == "flip" else bytes(len(old)))
    end = at + len(old) if kind == "flip" or any(old) else at
    return f"{kind} {len(old)} bytes at {at} of {size}", at, end


def cost(path, at, end):
    """Of an undamaged file: the spans that damage of [at, end) may cost, and those of each record of
    a log that is hit (None: which ones cannot be told)."""
    if at >= end:
        return set(), []
    name = os.path.basename(path)
    if name.endswith(".segment"):
        every = segments.records(path)
        hit = [r for r in every if r.offset < end and at < r.end]
        # A damaged last record cannot be told from one that the kill cut short.
        records = None if hit and hit[-1] is every[-1] else [set(r.spans) for r in hit]
        return {s for r in hit for s in r.spans}, records
    if name == "data":
        hit = [p for p in segments.pages(path) if p.offset < end and at < p.end]
        return {s for p in hit for s in p.spans}, []
    if name in ("index", "meta.json") or name.startswith("bloom"):
        return segments.block_spans(os.path.dirname(path)), []
    return set(), []  # a commit record, a cursor, an id: nothing may be lost


def shorten(folder):
    """Most of the zeros that were reserved for records to come: only to copy faster."""
    for top, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(top, name)
            if name.endswith(".segment"):
                with open(path, "r+b") as f:
                    f.truncate(min(os.path.getsize(path), segments.data_end(path) + 8192))


def grow(oracle, n_traces):
    """Some load, then a kill: blocks, commits, and a log with records that are in no block."""
    oracle.mill.start()
    for i in range(3):
        oracle.add_gen(i, 300)
    wait_for("spans", lambda: len(oracle.acked()) > n_traces, 30)
    for g in oracle.gens:
        g.finish(60)
    oracle.mill.kill()
    for folder in (oracle.data, oracle.queue):
        shorten(folder)


def fsck(oracle, what):
    """It must not crash, and tells damage by its status only."""
    for args in (["fsck", oracle.data], ["fsck", "queue", oracle.queue]):
        if os.path.exists(args[-1]):
            status, out, err = run(*args, timeout=60)
            assert status in (0, 3), f"{what}: fsck {status}: {out} {err}"


def found_by_query(oracle, acked, what):
    """Every span that queries return. An answer that fails stands for a trace that is lost."""
    out = set()
    with requests.Session() as session:
        for tenant, trace_id in acked:
            try:
                got = oracle.look_up(session, tenant, trace_id)
            except AssertionError:
                continue
            assert len(got) == len(set(got)), f"{what}: {trace_id.hex()} has spans twice"
            out.update(got)
    return out


def found_at_hop(oracle, want, what):
    """Every span that the queue delivers once the next hop is there."""
    wait_for(
        f"{what}: what was not touched, and an empty queue",
        lambda: want <= set(oracle.hop.span_counts())
        and oracle.mill.metric("spanmill_held_spans") == 0,
        30,
    )
    counts = oracle.hop.span_counts()
    assert set(counts.values()) <= {1}, f"{what}: spans were sent on twice"
    return set(counts)


def check_count(counted, records, lost, what):
    """Every record whose spans are gone was counted. One that is in a block already need not be read
    any more, so that nobody notices."""
    least = sum(1 for spans in records if spans & lost)
    assert least <= counted <= len(records), (
        f"{what}: {counted} records counted as lost, {least} to {len(records)} were"
    )


def episode(oracle, acked, may_lose, records, what):
    """Start on the damaged files and compare with what the damage may have cost."""
    fsck(oracle, what)
    if oracle.hop:
        os.truncate(oracle.hop.path, 0)
    try:
        oracle.mill.start()
    except AssertionError as e:
        raise AssertionError(f"{what}: {e}") from None
    if oracle.hop:
        found = found_at_hop(oracle, set().union(*acked.values()) - may_lose, what)
    else:
        found = found_by_query(oracle, acked, what)
    lost = set().union(*acked.values()) - found
    assert lost <= may_lose, f"{what}: {len(lost - may_lose)} spans lost that were not touched"
    counted = oracle.mill.metric("spanmill_log_lost_records")
    if records is not None:
        check_count(counted, records, lost, what)
    oracle.mill.stop(timeout=40)
    return len(lost)


def run_episodes(oracle, rng, shape):
    acked = oracle.acked()
    pristine = {d: d + ".pristine" for d in (oracle.data, oracle.queue) if os.path.exists(d)}
    kinds, n_lost = {}, 0
    for d, copy in pristine.items():
        shutil.copytree(d, copy)
    for _ in range(EPISODES):
        for d, copy in pristine.items():
            shutil.rmtree(d)
            shutil.copytree(copy, d)
        files = sorted(f for f in oracle.files() if os.path.getsize(f) and not f.endswith("/lock"))
        path = rng.choice(files)
        short = os.path.relpath(path, oracle.where)
        what, at, end = damage(rng, path)
        top = next(d for d in pristine if path.startswith(d))
        may_lose, records = cost(pristine[top] + path[len(top) :], at, end)
        if what.startswith("cut") and path.endswith(".segment"):
            records = None  # the end of a log that is gone cannot be told from a crash
        n_lost += episode(oracle, acked, may_lose, records, f"{short}: {what}")
        kind = "commit" if "/commits/" in short else os.path.basename(short).split("-")[0]
        kind = "segment" if kind.endswith(".segment") else kind
        kinds[kind] = kinds.get(kind, 0) + 1
    print(f"{shape}: {EPISODES} damages {kinds}, {n_lost} spans lost by them")


@pytest.mark.timeout(0 if EPISODES > 50 else 300)
@pytest.mark.parametrize("shape, age", [("blocks", "400ms"), ("blocks", "1h"), ("queue_only", "")])
def test_damage_at_rest(tmp_path, shape, age):
    rng = seeded("SPANMILL_CORRUPT_SEED")
    oracle = Oracle(tmp_path, shape, rng)
    if age:
        conf = {"max_block_age": age, "max_block_traces": 0, "flush_on_shutdown": False}
        oracle.mill.config["exporters"]["blocks"].update(conf)
        oracle.mill.write_config()
    try:
        grow(oracle, 100)
        if oracle.hop:
            oracle.hop.start()
        run_episodes(oracle, rng, f"{shape} {age}")
    except BaseException:
        print(oracle.mill.stderr()[-5000:] if oracle.mill.runs else "")
        raise
    finally:
        oracle.close()


# -- in a bucket


class Bucket:
    """Every object of a bucket as it was, also as files, and a process that is asked for the traces."""

    look_up = Oracle.look_up

    def __init__(self, mill, server, bucket, copy):
        self.mill, self.server, self.bucket = mill, server, bucket
        self.files = {}
        for key in server.keys(bucket):
            self.files[key] = os.path.join(copy, key)
            os.makedirs(os.path.dirname(self.files[key]), exist_ok=True)
            with open(self.files[key], "wb") as f:
                f.write(server.read(bucket, key))

    def put(self, key, path):
        with open(path, "rb") as f:
            self.server.client.put_object(Bucket=self.bucket, Key=key, Body=f.read())

    def restore(self):
        """As it was: what was damaged, set aside, built again."""
        now = set(self.server.keys(self.bucket))
        for key in now - set(self.files):
            self.server.client.delete_object(Bucket=self.bucket, Key=key)
        for key, path in self.files.items():
            if key not in now or self.server.read(self.bucket, key) != open(path, "rb").read():
                self.put(key, path)


def bucket_episode(bucket, rng, acked, kind, scratch):
    """Damage one object of this kind, start, ask for everything; the number of spans lost."""
    key = rng.choice([k for k in bucket.files if kind in k.rsplit("/", 1)[-1] or kind in k.split("/")])
    shutil.copy(bucket.files[key], scratch)
    what, at, end = damage(rng, scratch)
    may_lose, _ = cost(bucket.files[key], at, end)
    bucket.put(key, scratch)
    bucket.mill.start()
    lost = set().union(*acked.values()) - found_by_query(bucket, acked, f"{key}: {what}")
    assert lost <= may_lose, f"{key}: {what}: {len(lost - may_lose)} spans lost that were not touched"
    bucket.mill.stop(timeout=40)
    bucket.restore()
    return len(lost)


@pytest.mark.timeout(0 if EPISODES > 50 else 240)
def test_damage_in_a_bucket(make_mill, seaweed, tmp_path):
    rng = seeded("SPANMILL_CORRUPT_SEED")
    name = seaweed.create_bucket()
    overlay = seaweed.overlay(name)
    overlay.setdefault("exporters", {})["blocks"] = {"max_block_age": "1h", "max_block_traces": 10}
    mill = make_mill(overlay=overlay)
    acked = {}
    for _ in range(60):
        request = otlp.request(n_spans=4)
        otlp.send_grpc(mill, request)
        spans = list(otlp.spans_of(request))
        acked[None, spans[0].trace_id] = {s.span_id for s in spans}
    mill.stop()
    bucket = Bucket(mill, seaweed, name, str(tmp_path / "pristine"))
    n_lost = 0
    kinds = ["data", "index", "bloom", "meta.json", "commits"]
    for i in range(max(len(kinds), EPISODES // 2)):
        n_lost += bucket_episode(bucket, rng, acked, kinds[i % 5], str(tmp_path / "object"))
    print(f"{i + 1} damages, {n_lost} spans lost by them")
    mill.start()
    assert found_by_query(bucket, acked, "all as it was") == set().union(*acked.values())
