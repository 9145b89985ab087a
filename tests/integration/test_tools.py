"""The tools in the binary: gen and its ledger, get, fsck."""

import json
import os
import random
import subprocess
import time

import pytest

import otlp
import tempo
from mill import BINARY, run

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
    status, out, err = run("get", "--endpoint", endpoint, "1" * 32)
    assert status != 0 and "not found" in (out + err).lower()
    assert run("get", "--endpoint", endpoint, "xyz")[0] == 1


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
