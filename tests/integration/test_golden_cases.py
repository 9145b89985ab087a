"""cases/NAME: config.yaml runs, input.json (OTLP/JSON) is posted, and what the debug exporter
prints must be want.txt.

A newcomer adds a folder and nothing else. In config.yaml the ports are ${env:GRPC_PORT},
${env:HTTP_PORT} ..."""

import os

import pytest

import otlp
from mill import PORT_NAMES, Mill, free_port, wait_for

CASES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "cases")
NAMES = sorted(os.listdir(CASES)) if os.path.isdir(CASES) else []


@pytest.mark.parametrize("name", NAMES)
def test_case(tmp_path, name):
    folder = os.path.join(CASES, name)
    ports = {p: free_port() for p in PORT_NAMES}
    env = {f"{p.upper()}_PORT": str(ports[p]) for p in PORT_NAMES}
    mill = Mill(tmp_path, lambda _: {"extensions": {}}, ports=ports, env=env)
    mill.config_path = os.path.join(folder, "config.yaml")
    with open(os.path.join(folder, "input.json"), encoding="utf-8") as f:
        sent = f.read()
    with open(os.path.join(folder, "want.txt"), encoding="utf-8") as f:
        want = f.read()
    try:
        mill.start()
        answer = otlp.send_http(mill, sent, kind="application/json")
        assert answer.status_code == 200, answer.text
        wait_for("the debug text", lambda: want.splitlines()[-1] in printed(mill), 5)
        assert block_of(printed(mill), want) == want
        mill.stop()
    finally:
        mill.kill()


def printed(mill):
    with open(os.path.join(mill.tmp, "stdout"), encoding="utf-8") as f:
        return f.read() + mill.stderr()


def block_of(text, want):
    """The part of the output that begins with want's first line, as long as want."""
    lines = text.splitlines()
    first, n = want.splitlines()[0], len(want.splitlines())
    assert first in lines, f"no line {first!r} in\n{text}"
    at = lines.index(first)
    return "\n".join(lines[at : at + n]) + "\n"
