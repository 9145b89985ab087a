"""The tools in the binary: gen and its ledger, get, fsck."""

import glob
import json
import os
import random
import re
import subprocess
import time

import pytest
import requests

import otlp
import segments
import tempo
from mill import BINARY, forwarder, run, wait_for

PORT_OF = {"otlp-grpc": "grpc", "otlp-http": "http", "otlp-http-json": "http", "zipkin": "zipkin"}


def gen(mill, protocol, *args):
    return run(
        "gen",
        "--endpoint",
        f"127.0.0.1:{mill.ports[PORT_OF[protocol]]}",
        "--protocol",
        protocol,
        "--quiet",
        *args,
        timeout=60,
    )


def ledger(path):
    """trace id -> set of span ids, both hex."""
    out = {}
    with open(path, encoding="ascii") as f:
        for line in f:
            trace_id, span_id = line.split()[:2]
            spans = out.setdefault(trace_id, set())
            assert span_id not in spans, f"{span_id} is in the ledger twice"
            spans.add(span_id)
    return out


def check(mill, wanted, tenant=None):
    """Every span of the ledger is returned, and none twice."""
    for trace_id, spans in wanted.items():
        got = tempo.get(mill, trace_id, tenant=tenant)
        assert got is not None, f"{trace_id} was acked and is not there"
        have = [i.hex() for i in otlp.span_ids(got)]
        assert len(have) == len(set(have)), f"{trace_id}: spans twice"
        assert spans <= set(have), f"{trace_id}: {len(spans - set(have))} acked spans missing"


@pytest.mark.parametrize("protocol", sorted(PORT_OF))
def test_gen(shared_mill, tmp_path, protocol):
    """Every protocol: the report, the ledger and what is stored agree."""
    book = tmp_path / "ledger"
    args = ["--traces", "20", "--spans-per-trace", "7", "--ledger", str(book), "--json", "--gzip"]
    status, out, err = gen(shared_mill, protocol, *args)
    assert status == 0, out + err
    report = json.loads(out)
    assert any(value == 140 for value in report.values()), report
    wanted = ledger(book)
    assert len(wanted) == 20 and all(len(spans) == 7 for spans in wanted.values())
    check(shared_mill, wanted)


def test_gen_says_what_failed():
    """Nobody listens: exit 3, and the report says so."""
    status, out, err = run(
        "gen", "--endpoint", "127.0.0.1:1", "--traces", "1", "--deadline", "1s", timeout=30
    )
    assert status == 3, out + err
    assert (out + err).strip()


def test_gen_print_id(shared_mill):
    endpoint = f"127.0.0.1:{shared_mill.ports['grpc']}"
    status, out, err = run("gen", "--endpoint", endpoint, "--traces", "1", "--print-id", "--quiet")
    assert status == 0, err
    assert tempo.get(shared_mill, out.strip()) is not None


def test_get_prints_a_tree(shared_mill):
    sent = otlp.request(n_spans=3)
    otlp.send_grpc(shared_mill, sent)
    trace_id = next(otlp.spans_of(sent)).trace_id.hex()
    endpoint = f"127.0.0.1:{shared_mill.ports['query']}"
    status, out, err = run("get", "--endpoint", endpoint, trace_id)
    assert status == 0, err
    lines = out.splitlines()
    at = [next(i for i, line in enumerate(lines) if f"op {n}" in line) for n in range(3)]
    assert at == sorted(at), out
    depth = [lines[i].index("op ") for i in at]
    assert depth == sorted(set(depth)), f"children are not indented:\n{out}"
    assert "shop" in out
    assert run("get", "--endpoint", endpoint, "1" * 32) == (3, "", f"trace {'1' * 32}: not found\n")
    assert run("get", "--endpoint", endpoint, "xyz")[0] == 1
    assert run("get")[0] == 1
    status, out, err = run("get", "--endpoint", "127.0.0.1:1", trace_id)
    assert (status, out) == (2, "") and "refused" in err
    status, out, err = run("get", "--endpoint", endpoint, "--tenant", "../x", trace_id)
    assert (status, out) == (2, "") and "HTTP 400" in err


def test_get_waits_for_what_is_not_there_yet(shared_mill):
    """Through a broker a trace is found some time after it was sent: --wait asks until then, and no longer."""
    sent = otlp.request(n_spans=3)
    trace_id = next(otlp.spans_of(sent)).trace_id.hex()
    get = [BINARY, "get", "--endpoint", f"127.0.0.1:{shared_mill.ports['query']}", trace_id]
    in_vain = lambda: shared_mill.metric("spanmill_query_traces", result="not_found")  # noqa: E731
    before = in_vain()
    process = subprocess.Popen([*get, "--wait", "300s"], stdout=subprocess.PIPE, text=True)
    wait_for("get to ask twice in vain", lambda: in_vain() >= before + 2)
    assert process.poll() is None
    otlp.send_grpc(shared_mill, sent)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0 and out.count("shop  op") == 3, out
    assert subprocess.run([*get[:-1], "1" * 32, "--wait", "300ms"], capture_output=True).returncode == 3


def test_get_fits_the_terminal(shared_mill):
    """Whatever the width: no line is longer, nothing is coloured that goes to no terminal."""
    sent = otlp.request(n_spans=30)
    for n, sp in enumerate(otlp.spans_of(sent)):
        sp.name = "a long name " * (n % 7)
        sp.parent_span_id = b"" if n % 3 else otlp.new_id(8)
    for n in range(20):
        rs = sent.resource_spans.add()
        rs.resource.attributes.append(otlp.string("service.name", f"a-service-of-some-length-{n}"))
        more = otlp.request()
        next(otlp.spans_of(more)).trace_id = next(otlp.spans_of(sent)).trace_id
        rs.scope_spans.extend(more.resource_spans[0].scope_spans)
    for sp in otlp.spans_of(sent):
        sp.trace_id = next(otlp.spans_of(sent)).trace_id
    otlp.send_grpc(shared_mill, sent)
    trace_id = next(otlp.spans_of(sent)).trace_id.hex()
    args = ["--endpoint", f"127.0.0.1:{shared_mill.ports['query']}", trace_id]
    for width in (50, 60, 80, 100, 160, 300):
        for more in ([], ["--ascii"]):
            status, out, err = run("get", *args, *more, env={"COLUMNS": str(width)})
            assert (status, err) == (0, "")
            assert max(map(len, out.splitlines())) <= width, out
            assert "\x1b" not in out
            assert out.isascii() == bool(more)


@pytest.mark.timeout(150)
def test_full_load_and_kills(make_mill, tmp_path):
    """gen as fast as it can, the process killed under it again and again: the ledger is there."""
    seed = int(os.environ.get("SPANMILL_KILL_SEED", random.SystemRandom().randrange(10**6)))
    print(f"SPANMILL_KILL_SEED={seed}")
    rng = random.Random(seed)
    mill = make_mill(overlay={"exporters": {"blocks": {"max_block_age": "500ms"}}})
    book = tmp_path / "ledger"
    load = subprocess.Popen(
        [BINARY, "gen", "--endpoint", f"127.0.0.1:{mill.ports['grpc']}", "--duration", "8s"]
        + [
            "--rate",
            "30000",
            "--retry",
            "--quiet",
            "--ledger",
            str(book),
            "--spans-per-trace",
            "50",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        for _ in range(6):
            time.sleep(rng.uniform(0.3, 1.3))
            mill.kill()
            mill.start()
        out, _ = load.communicate(timeout=60)
    finally:
        load.kill()
        load.wait()
    assert load.returncode == 0, out
    wanted = ledger(book)
    n_spans = sum(map(len, wanted.values()))
    print(f"{len(wanted)} traces, {n_spans} spans acked")
    assert n_spans > 20000
    check(mill, dict(rng.sample(sorted(wanted.items()), min(1500, len(wanted)))))
    balance = mill.stop()
    assert balance["dropped"] == 0


# -- fsck -----------------------------------------------------------------------------------------


def tree_of(folder):
    """Every file with its content and time: what a tool that changes nothing leaves."""
    out = {}
    for at, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(at, name)
            with open(path, "rb") as f:
                out[path] = (f.read(), os.stat(path).st_mtime_ns)
    return out


@pytest.fixture
def data(make_mill):
    """A data folder with a block and a log, nobody at work in it."""
    mill = make_mill(overlay={"exporters": {"blocks": {"max_block_age": "1h"}}})
    otlp.send_grpc(mill, otlp.request(n_traces=3), tenant="a")
    mill.stop()
    return mill.data


def one_block(data):
    (block,) = glob.glob(os.path.join(data, "a", "*-*"))
    return block


CLEAN = "1 blocks, 3 traces, 0 orphans, 1 logs, 1 log records, 0 problems\n"


def test_fsck_clean_and_changes_nothing(data):
    unfinished = os.path.join(data, "_spanmill", "tmp", "0123")
    os.makedirs(os.path.dirname(unfinished), exist_ok=True)
    with open(unfinished, "w", encoding="ascii") as f:
        f.write("x")
    os.utime(unfinished, (1, 1))  # so old that a start would remove it
    os.makedirs(os.path.join(data, "lost+found", "x"))
    os.makedirs(os.path.join(data, "a", "not a block"))
    before = tree_of(data)
    assert run("fsck", data) == (0, CLEAN, "")
    assert tree_of(data) == before
    for path in (one_block(data), one_block(data) + "/"):
        status, out, _ = run("fsck", "block", path)
        assert (status, out[:20]) == (0, "1 blocks, 3 traces, ")
    done = subprocess.run(
        [BINARY, "fsck", "block", os.path.join("a", os.path.basename(one_block(data)))],
        cwd=data,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    status, out, _ = run("fsck", "queue", os.path.join(data, "_spanmill", "log"))
    assert status == 0
    assert out.splitlines()[0].endswith("/log/blocks: waiting: 0 records of 0 spans, 0 bytes")
    assert out.splitlines()[1] == "0 blocks, 0 traces, 0 orphans, 1 logs, 1 log records, 0 problems"


@pytest.mark.parametrize(
    "part, offset, what",
    [
        ("data", 0, "data at 0: "),
        ("index", 20, "index at 0: "),
        ("bloom-0", 5000, "bloom-0 at 0: "),
        ("meta.json", 0, "meta.json at 0: "),
    ],
)
def test_fsck_names_the_damage(data, part, offset, what):
    path = os.path.join(one_block(data), part)
    with open(path, "r+b") as f:
        f.seek(offset)
        byte = f.read(1)
        f.seek(offset)
        f.write(bytes([byte[0] ^ 0x10]))
    status, out, _ = run("fsck", data)
    assert status == 3
    name = "a/" + os.path.basename(one_block(data))
    assert out.startswith(f"{name}: {what}"), out
    assert out.splitlines()[-1].endswith(f" {len(out.splitlines()) - 1} problems")


def test_fsck_orphans_are_named_and_no_problem(data):
    os.unlink(os.path.join(one_block(data), "meta.json"))
    status, out, _ = run("fsck", data)
    assert status == 0
    assert out.startswith(f"a/{os.path.basename(one_block(data))}: orphan: no meta.json")
    assert "0 blocks, 0 traces, 1 orphans, " in out
    status, out, _ = run("fsck", "block", one_block(data))
    assert status == 3 and "orphan: no meta.json" in out  # this block was asked for by name


def test_fsck_shows_no_control_bytes(data):
    path = os.path.join(one_block(data), "meta.json")
    with open(path, "r+", encoding="utf-8") as f:
        text = f.read().replace('"zstd"', '"\\u001b[31mred\\u0007"')
        f.seek(0)
        f.write(text)
        f.truncate()
    status, out, _ = run("fsck", data)
    assert status == 3 and "red" in out
    assert "\x1b" not in out and "\x07" not in out


def test_fsck_of_what_is_not_there(tmp_path):
    missing = str(tmp_path / "missing")
    for args in ((missing,), ("queue", missing), ("block", missing), ("block", str(tmp_path))):
        status, out, _ = run("fsck", *args)
        assert status == 3, args
        assert out.splitlines()[-1].endswith("1 problems"), out
    assert not os.path.exists(missing)
    assert run("fsck", "a", "b")[0] == 1
    assert run("fsck", "--nonsense")[0] == 1


def test_fsck_beside_a_running_process(make_mill):
    """Its log is not touched, which is said; its blocks are looked at."""
    mill = make_mill(overlay={"exporters": {"blocks": {"max_block_age": "1h"}}})
    otlp.send_grpc(mill, otlp.request())
    requests.post(mill.url("query", "/flush"), timeout=30)
    status, out, _ = run("fsck", mill.data)
    assert status == 3
    assert f"in use by process {mill.process.pid}" in out
    assert "1 blocks, 1 traces, 0 orphans, 1 logs, 0 log records, 1 problems" in out


def test_fsck_queue_tells_what_waits(make_mill, tmp_path):
    """An exporter that could not send: how much, of when; damage is told, counted, and skipped by the
    next start."""
    queue = str(tmp_path / "queue")
    mill = make_mill(lambda ports: forwarder(ports, "127.0.0.1:1", None, queue))
    for n in (3, 4, 5):
        otlp.send_grpc(mill, otlp.request(n_spans=n))
    assert mill.stop()["held"] == 12
    status, out, _ = run("fsck", "queue", queue)
    assert status == 0
    assert re.search(r"/otlp: waiting: 3 records of 12 spans, \d+ bytes, the oldest of \d+ s ago\n", out), out
    assert out.endswith("0 blocks, 0 traces, 0 orphans, 1 logs, 3 log records, 0 problems\n")
    assert run("fsck", "queue", os.path.join(queue, "otlp"))[1] == out
    (path,) = glob.glob(os.path.join(queue, "otlp", "*.segment"))
    second = segments.records(path)[1]
    with open(path, "r+b") as f:
        f.seek(second.end - 20)
        f.write(b"damage")
    status, out, _ = run("fsck", "queue", queue)
    assert status == 3
    assert "waiting: 2 records of 8 spans" in out and "1 records lost, which the next start skips" in out
    mill.start()
    wait_for("what was found", lambda: mill.metric("spanmill_held_spans") == 8)
    assert mill.stop()["held"] == 8
