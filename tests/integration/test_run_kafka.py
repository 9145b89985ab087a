"""`make run-kafka`: all of it on one machine; a trace sent to the agent comes back by id from the
query node, one sent to the gateway too; ctrl-c ends every process, and what was stored is there the next time."""

import json
import os
import signal
import subprocess

import pytest
import requests

import otlp
import tempo
from mill import ROOT, SANITIZED, opens, run, wait_for


class Running:
    """The script, from its start to its end."""

    def __init__(self, folder):
        self.folder = str(folder)
        self.out = os.path.join(self.folder, "out")
        os.makedirs(self.folder, exist_ok=True)

    def __enter__(self):
        with open(self.out, "wb") as out:
            self.process = subprocess.Popen(
                [os.path.join(ROOT, "tests/tools/run-kafka"), "--dir", self.folder, "--free-ports"],
                stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(90)

    def said(self):
        with open(self.out, encoding="utf-8", errors="replace") as f:
            return f.read()

    def wait_ready(self):
        def ready():
            assert self.process.poll() is None, self.said()
            return "Ready: " in self.said()

        wait_for("run-kafka to be ready", ready, 120, 0.2)
        with open(os.path.join(self.folder, "ports.json"), encoding="ascii") as f:
            self.ports = json.load(f)
        return self

    def ctrl_c(self):
        os.killpg(self.process.pid, signal.SIGINT)
        assert self.process.wait(90) == 0, self.said()


class At:
    """What the helpers want of a Mill: where a port is."""

    def __init__(self, ports):
        self.ports = ports

    def url(self, port, path=""):
        return f"http://127.0.0.1:{self.ports[port]}{path}"


@pytest.mark.skipif(SANITIZED, reason="the script runs the ordinary build")
@pytest.mark.timeout(300)
def test_a_trace_to_the_agent_comes_back_from_the_query_node(tmp_path):
    sent = otlp.request(n_spans=5)
    trace_id = next(otlp.spans_of(sent)).trace_id
    with Running(tmp_path / "run") as it:
        it.wait_ready()
        query = At(it.ports["query"])
        otlp.send_grpc(At(it.ports["agent"]), sent)
        zipkin = [{"traceId": "4bf92f3577b34da6a3ce929d0e0e4736", "id": "00f067aa0ba902b7", "name": "x"}]
        answer = requests.post(At(it.ports["gateway"]).url("zipkin", "/api/v2/spans"), json=zipkin, timeout=30)
        assert answer.status_code == 202, answer.text
        got = tempo.whole(query, trace_id, n_spans=5)
        otlp.assert_same(got, sent)
        tempo.whole(query, zipkin[0]["traceId"])
        try_the_printed_commands(it.said())
        it.ctrl_c()
        left = [p for own in it.ports.values() for p in own.values() if opens(p)]
        assert not left, f"somebody still listens on {left}\n{it.said()}"
    with Running(tmp_path / "run") as it:
        it.wait_ready()
        query = At(it.ports["query"])
        got = tempo.whole(query, trace_id, n_spans=5)
        otlp.assert_same(got, sent)
        it.ctrl_c()


def try_the_printed_commands(said):
    """`gen` and `get` as they are printed."""
    lines = {line.split()[0]: line.split() for line in said.splitlines() if line.startswith("  ")}
    gen = lines["try"][2:].copy()
    gen = gen[: gen.index("(prints")]
    status, out, err = run(*gen, "--print-id")
    assert status == 0, err
    look = lines["look"][2:]
    look = look[: look.index("or")]
    get = [out.strip() if w == "id>" else w for w in look if w != "<trace"]
    wait_for("the trace of gen", lambda: run(*get)[0] == 0, 60, 0.3)
