"""The tables in config_cases/: configurations and exactly what `validate` says of each.

    ### name
    exit STATUS
    bytes HEX | base | `| ` lines of case.yaml      the configuration; base: the one below
    arg ["--config", "yaml:..."]                    arguments after --config case.yaml
    env ["NAME", "value"]
    > a line of stderr                              all of them, in order

What is silent and good must also print, and print the same when it is read back. Lists of all types
or keys are not compared, and a type that a case calls missing may have come since.
"""

import glob
import json
import os
import re
import subprocess

import pytest
import yaml

from mill import BINARY

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "config_cases")
BASE = """\
receivers: {otlp: {protocols: {grpc: }}}
exporters: {debug: }
service: {pipelines: {traces: {receivers: [otlp], exporters: [debug]}}}
"""


def read_case(block):
    name, *lines = block.split("\n")
    case = {"name": name, "args": [], "env": {}, "want": [], "text": []}
    for line in lines:
        word, _, rest = line.partition(" ")
        if word == "exit":
            case["status"] = int(rest)
        elif word == "bytes":
            case["bytes"] = bytes.fromhex(rest)
        elif word == "base":
            case["bytes"] = BASE.encode()
        elif word == "arg":
            case["args"] += json.loads(rest)
        elif word == "env":
            name, value = json.loads(rest)
            case["env"][name] = value
        elif word == "|":
            case["text"].append(rest)
        elif word == ">":
            case["want"].append(rest)
        else:
            assert not line, f"not a line of a case: {line}"
    case.setdefault("bytes", "\n".join(case["text"]).encode())
    return case


def read_cases():
    for path in sorted(glob.glob(os.path.join(HERE, "*.txt"))):
        with open(path, encoding="utf-8") as f:
            for block in ("\n" + f.read()).split("\n### ")[1:]:
                yield path, read_case(block)


CASES = list(read_cases())


def types_there_are():
    """ "exporters.otlp" and so on, in both spellings."""
    out = yaml.safe_load(subprocess.check_output([BINARY, "components"]))
    kinds = ("receivers", "processors", "exporters", "connectors", "extensions")
    return {
        f"{kind}.{c[key]}".replace("_", "")
        for kind in kinds
        for c in out[kind]
        for key in ("name", "alias")
        if key in c
    }


HAVE = types_there_are()


def without_lists(line):
    line = re.sub(r"(use one of|valid values:) \[[^]]*\]", r"\1 [...]", line)
    line = re.sub(r": remove it, or use one of \[\.\.\.\]$", ": remove it", line)
    return re.sub(r"valid keys: [a-z0-9_, ]+$", "valid keys: ...", line)


def has_come(case):
    missing = re.compile(r"\S+: ([a-z]+\.[a-z0-9_]+)(/\S+)?: the .* is not in .*Spanmill yet")
    found = [m[1] for m in map(missing.match, case["want"]) if m]
    return any(name.replace("_", "") in HAVE for name in found)


def run(tmp_path, case, command, *args):
    (tmp_path / "case.yaml").write_bytes(case["bytes"])
    done = subprocess.run(
        [BINARY, command, "--config", "case.yaml", *args],
        capture_output=True,
        timeout=30,
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], **case["env"]},
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.parametrize(
    "case", [c for _, c in CASES], ids=[f"{os.path.basename(p)[:-4]}: {c['name']}" for p, c in CASES]
)
def test_validate_says_exactly_this(tmp_path, case):
    if has_come(case):
        pytest.skip("the type is there now")
    status, out, err = run(tmp_path, case, "validate", *case["args"])
    assert [*map(without_lists, err.split("\n"))] == [*map(without_lists, case["want"]), ""]
    assert (status, out) == (case["status"], "")
    if status == 0:
        check_round_trip(tmp_path, case)


def check_round_trip(tmp_path, case):
    forms = [("yaml", "redacted"), ("json", "unredacted")]
    for form, mode in forms if case["env"] else forms[:1]:
        how = ("--format", form, "--mode", mode)
        status, first, err = run(tmp_path, case, "print-config", *case["args"], *how)
        assert status == 0, err
        again = {"bytes": first.encode(), "env": case["env"]}
        status, second, err = run(tmp_path, again, "print-config", *how)
        assert (status, second) == (0, first)
        assert all(line.startswith("warning: ") for line in err.splitlines())


def test_there_are_many():
    assert len(CASES) > 450
