"""The command line and configuration: sources, expansion, errors with their places, exit
statuses."""

import json
import re
import subprocess
import textwrap
import time

import pytest
import requests
import yaml

import otlp
from mill import BINARY, Mill, default_ports, forwarder, opens, query_node, run, wait_for

GOOD = """\
receivers:
  otlp:
    protocols:
      grpc:
        endpoint: 127.0.0.1:4317
processors:
  batch:
    timeout: 50ms
exporters:
  otlp/next:
    endpoint: next.test:4317
    tls:
      insecure: true
service:
  pipelines:
    traces:
      receivers: [otlp]
      processors: [batch]
      exporters: [otlp/next]
"""
# a line of a configuration error: <source>:<line>:<column>: <yaml.path>: <what>: <hint>
LINE = re.compile(
    r"^(?P<source>.+?):(?P<line>\d+):(?P<column>\d+): (?P<path>[^:\s]+): (?P<what>.+)$"
)


def write(tmp_path, text, name="c.yaml"):
    path = tmp_path / name
    path.write_text(textwrap.dedent(text))
    return str(path)


def errors_of(*args, env=None, want=1):
    status, out, err = run("validate", *args, env=env)
    assert status == want, f"exit {status}\n{out}{err}"
    found = []
    for line in err.splitlines():
        if line.startswith("warning: "):
            continue
        match = LINE.match(line)
        assert match, f"not of the form source:line:column: path: what: hint\n{line}"
        found.append(
            (
                match["source"],
                int(match["line"]),
                int(match["column"]),
                match["path"],
                match["what"],
            )
        )
    return found


def change(old, new):
    assert old in GOOD
    return GOOD.replace(old, new)


# name, text, line, column, path, words that must be in the rest (lower case)
BAD = [
    (
        "key misspelt",
        change("        endpoint: 127", "        endpont: 127"),
        5,
        9,
        "receivers.otlp.protocols.grpc.endpont",
        ["endpoint"],
    ),
    (
        "top-level key misspelt",
        change("processors:\n  batch", "procesors:\n  batch").replace(
            "      processors: [batch]\n", ""
        ),
        6,
        1,
        "procesors",
        ["processors"],
    ),
    (
        "unknown component type",
        change("  batch:\n", "  bath:\n").replace("[batch]", "[bath]"),
        7,
        3,
        "processors.bath",
        ["bath", "batch"],
    ),
    (
        "bad duration",
        change("50ms", "50 parsecs"),
        8,
        14,
        "processors.batch.timeout",
        ["50 parsecs"],
    ),
    (
        "a plain number is no duration",
        change("50ms", "5"),
        8,
        14,
        "processors.batch.timeout",
        ["5"],
    ),
    (
        "wrong type",
        change("insecure: true", "insecure: maybe"),
        13,
        17,
        "exporters.otlp/next.tls.insecure",
        ["maybe"],
    ),
    (
        "a list for a map",
        change("      insecure: true", "      - insecure"),
        12,
        5,
        "exporters.otlp/next.tls",
        [],
    ),
    (
        "processor not configured",
        change("[batch]", "[bach]"),
        18,
        20,
        "service.pipelines.traces",
        ["bach", "batch"],
    ),
    (
        "exporter not configured",
        change("[otlp/next]", "[otlp/nxt]"),
        19,
        19,
        "service.pipelines.traces",
        ["otlp/nxt", "otlp/next"],
    ),
    (
        "empty list",
        change("receivers: [otlp]", "receivers: []"),
        17,
        7,
        "service.pipelines.traces",
        ["receiver"],
    ),
    (
        "exporters missing",
        change("      exporters: [otlp/next]\n", ""),
        16,
        5,
        "service.pipelines.traces",
        ["exporter"],
    ),
    (
        "target missing",
        change("    endpoint: next.test:4317\n", ""),
        10,
        3,
        "exporters.otlp/next.endpoint",
        ["endpoint"],
    ),
    (
        "port out of range",
        change("127.0.0.1:4317", "127.0.0.1:99999"),
        5,
        19,
        "receivers.otlp.protocols.grpc.endpoint",
        ["99999"],
    ),
    (
        "no protocol",
        change("      grpc:\n        endpoint: 127.0.0.1:4317\n", "      {}\n"),
        3,
        5,
        "receivers.otlp.protocols",
        ["protocol"],
    ),
    (
        "bad id",
        change("  otlp/next:", "  otlp/:").replace("[otlp/next]", "[otlp/]"),
        10,
        3,
        "exporters",
        [],
    ),
    (
        "unknown signal",
        change("    traces:", "    traes:"),
        16,
        5,
        "service.pipelines.traes",
        ["traces"],
    ),
    (
        "same processor twice",
        change("[batch]", "[batch, batch]"),
        18,
        27,
        "service.pipelines.traces",
        ["batch"],
    ),
    (
        "duplicate key",
        change("    timeout: 50ms", "    timeout: 50ms\n    timeout: 60ms"),
        9,
        5,
        "processors.batch.timeout",
        [],
    ),
]


@pytest.mark.parametrize(
    "text, line, column, path, words", [b[1:] for b in BAD], ids=[b[0] for b in BAD]
)
def test_error_names_its_place(tmp_path, text, line, column, path, words):
    source = write(tmp_path, text)
    found = errors_of("--config", source)
    places = {f[:4]: f[4] for f in found}
    assert (source, line, column, path) in places, found
    assert len(found) <= 3, "one mistake, many errors"  # a name: where defined and where used
    for word in words:
        assert word in places[(source, line, column, path)].lower(), found


def test_good_is_silent(tmp_path):
    assert run("validate", "--config", write(tmp_path, GOOD)) == (0, "", "")


def test_all_errors_at_once(tmp_path):
    text = (
        change("endpoint: 127", "endpont: 127")
        .replace("50ms", "soon")
        .replace("[otlp/next]", "[nowhere]")
    )
    found = errors_of("--config", write(tmp_path, text))
    assert [f[1] for f in found] == [5, 8, 19]


def test_run_reports_the_same_and_exits_1(tmp_path):
    source = write(tmp_path, change("50ms", "soon"))
    for word in ([], ["run"]):
        status, _, err = run(*word, "--config", source)
        assert status == 1
        assert f"{source}:8:14: processors.batch.timeout: " in err


@pytest.mark.parametrize(
    "text", ["a: [1", "\tx: 1", "receivers: {otlp: ", "- a\n- b\n", "", "x: &a [*a]\n", "\x00"]
)
def test_not_yaml_or_not_a_map(tmp_path, text):
    status, _, err = run("validate", "--config", write(tmp_path, text))
    assert status == 1
    assert "c.yaml" in err and err.count("\n") <= 3


def test_yaml_bombs(tmp_path):
    """Aliases that multiply and nesting without end are errors, quickly."""
    bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"a{i}: &a{i} [{','.join(['*a%d' % (i - 1)] * 9)}]\n" for i in range(1, 12)
    )
    for text in (bomb, "x: " + "[" * 20000, "x: " + "{a: " * 20000):
        start = time.monotonic()
        status, _, err = run("validate", "--config", write(tmp_path, text))
        assert status == 1 and err.strip()
        assert time.monotonic() - start < 30


def test_known_component_we_do_not_have_is_named(tmp_path):
    text = GOOD.replace("  batch:\n    timeout: 50ms", "  k8sattributes:").replace(
        "[batch]", "[k8sattributes]"
    )
    found = errors_of("--config", write(tmp_path, text))
    assert found and "k8sattributes" in found[0][4]


def test_renamed_types_in_both_spellings(tmp_path):
    for name in ("otlp", "otlp_grpc"):
        source = write(tmp_path, GOOD.replace("otlp/next", f"{name}/next"))
        assert run("validate", "--config", source)[0] == 0


def test_several_sources_merge(tmp_path):
    """Maps merge by key, scalars and lists are replaced, null replaces; env: and yaml: are sources
    too."""
    base = write(tmp_path, GOOD)
    over = write(
        tmp_path, "processors: {batch: {timeout: 70ms, send_batch_size: 10}}\n", "over.yaml"
    )
    status, out, err = run(
        "print-config",
        "--config",
        base,
        "--config",
        "file:" + over,
        "--config",
        "yaml:processors::batch::send_batch_max_size: 20",
        "--config",
        "env:MORE",
        env={"MORE": "exporters: {debug: }\n"},
    )
    assert status == 0, err
    tree = yaml.safe_load(out)
    batch = tree["processors"]["batch"]
    assert (batch["timeout"], batch["send_batch_size"], batch["send_batch_max_size"]) == (
        "70ms",
        10,
        20,
    )
    assert tree["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"] == "127.0.0.1:4317"
    assert "debug" in tree["exporters"]


def test_set(tmp_path):
    """--set has dots, comes after every --config wherever it stands, and is the source of its
    errors."""
    source = write(tmp_path, GOOD)
    status, out, err = run(
        "print-config", "--set", "processors.batch.timeout=90ms", "--config", source
    )
    assert status == 0, err
    assert yaml.safe_load(out)["processors"]["batch"]["timeout"] == "90ms"
    found = errors_of("--config", source, "--set", "processors.batch.timeout=soon")
    assert len(found) == 1 and found[0][0] == "--set" and found[0][3] == "processors.batch.timeout"
    assert run("validate", "--config", source, "--set", "processors.batch.timeout")[0] == 1


def test_expansion(tmp_path):
    text = GOOD.replace("50ms", "${env:WAIT:-60ms}").replace(
        "next.test:4317", "${env:HOST}:${PORT}"
    )
    text = text.replace("      insecure: true", "      insecure: ${env:INSECURE}")
    text = text.replace("[otlp]", "${env:LIST}")
    source = write(tmp_path, text + "  telemetry: {resource: {note: a$$b}}\n")
    env = {"HOST": "h", "PORT": "0123", "INSECURE": "true", "LIST": "[otlp]"}
    status, out, err = run("print-config", "--config", source, env=env)
    assert status == 0, err
    tree = yaml.safe_load(out)
    assert tree["processors"]["batch"]["timeout"] == "60ms"
    assert tree["exporters"]["otlp/next"]["endpoint"] == "h:0123"
    assert tree["exporters"]["otlp/next"]["tls"]["insecure"] is True
    assert tree["service"]["pipelines"]["traces"]["receivers"] == ["otlp"]


def test_error_of_an_expanded_value_is_at_its_key(tmp_path):
    source = write(tmp_path, GOOD.replace("50ms", "${env:WAIT}"))
    found = errors_of("--config", source, env={"WAIT": "soon"})
    assert len(found) == 1
    assert found[0][:2] == (source, 8) and "soon" in found[0][4]
    assert errors_of("--config", write(tmp_path, GOOD.replace("50ms", "${env:1X}"), "d.yaml"))
    assert errors_of("--config", write(tmp_path, GOOD.replace("50ms", "${nope:X}"), "e.yaml"))


def test_unset_variable_warns(tmp_path):
    source = write(tmp_path, GOOD.replace("50ms", "${env:NOT_SET_ANYWHERE}"))
    status, _, err = run("validate", "--config", source)
    assert "NOT_SET_ANYWHERE" in err and "warning: " in err, (status, err)


def test_null_sections(tmp_path):
    """`grpc:` with nothing turns the protocol on; `batch:` means defaults."""
    text = GOOD.replace(
        "      grpc:\n        endpoint: 127.0.0.1:4317\n", "      grpc:\n      http:\n"
    )
    text = text.replace("  batch:\n    timeout: 50ms\n", "  batch:\n")
    status, out, err = run("print-config", "--config", write(tmp_path, text))
    assert status == 0, err
    protocols = yaml.safe_load(out)["receivers"]["otlp"]["protocols"]
    assert set(protocols) >= {"grpc", "http"}


def test_usage():
    status, out, _ = run("--version")
    assert status == 0 and re.search(r"\d+\.\d+\.\d+", out)
    status, out, _ = run("--help")
    assert status == 0
    for word in (
        "validate",
        "print-config",
        "components",
        "gen",
        "get",
        "fsck",
        "bench",
        "--config",
        "--set",
    ):
        assert word in out
    for args in ([], ["nonsense"], ["--nonsense"], ["validate"], ["--config"]):
        status, out, err = run(*args)
        assert status == 1, args
        assert err.strip() and not out.strip()
    status, _, err = run("--config", "/nowhere/at/all.yaml")
    assert status == 1 and "/nowhere/at/all.yaml" in err


COMMANDS = ("run", "validate", "print-config", "components", "gen", "get", "fsck", "bench")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command):
    """--help (and help COMMAND) on stdout with status 0; a flag that does not exist: usage on
    stderr, status 1."""
    status, out, err = run(command, "--help")
    assert (status, err) == (0, "") and out.startswith(f"usage: spanmill {command}")
    assert run("help", command) == (0, out, "")
    status, out, err = run(command, "--nonsense")
    assert (status, out) == (1, "") and f"usage: spanmill {command}" in err
    assert f'spanmill {command}: unknown flag "--nonsense"' in err


@pytest.mark.parametrize(
    "args, words",
    [
        (["validat"], ["unknown command", "did you mean validate?", "usage: "]),
        (["zork"], ["unknown command", "usage: "]),
        (["validate", "--confg", "x"], ["did you mean --config?"]),
        (["validate", "extra"], ['unexpected argument "extra"', "usage: "]),
        (["validate", "--config"], ["--config: needs a value"]),
        (["print-config", "--format", "xml"], ['"xml" is none of yaml, json']),
        (["print-config", "--mode", "x"], ['"x" is none of redacted, unredacted']),
        (["--set", "a"], ["at least one config flag", '--set:1:1: (document): "a" has no key']),
        (["--config", ""], ["--config:1:1: (document): an empty source"]),
    ],
)
def test_usage_mistakes(args, words):
    status, out, err = run(*args)
    assert (status, out) == (1, "")
    for word in words:
        assert word in err, err


def test_version_in_every_form():
    assert run("--version") == run("-v") == run("version")
    assert re.fullmatch(r"spanmill version \d+\.\d+\.\d+\n", run("--version")[1])


def test_print_config_forms(tmp_path):
    """The alias, both formats, secrets on request, and what was merged without a check."""
    text = GOOD.replace("    tls:", "    headers: {authorization: hunter2, x: 'a$$${b}'}\n    tls:")
    source = ("--config", write(tmp_path, text))
    env = {"b": "c"}
    status, out, _ = run("print-initial-config", *source, env=env)
    assert status == 0 and "hunter2" not in out and "[REDACTED]" in out
    status, out, _ = run("print-config", *source, "--format", "json", "--mode=unredacted", env=env)
    tree = json.loads(out)
    assert tree["exporters"]["otlp/next"]["headers"] == {"authorization": "hunter2", "x": "a$c"}
    assert tree["service"]["drain_timeout"] == "15s"
    bad = ("--config", write(tmp_path, text.replace("50ms", "soon"), "bad.yaml"))
    assert run("print-config", *bad, env=env)[0] == 1
    unchecked = ("--validate=false", "--mode", "unredacted")
    status, out, err = run("print-config", *bad, *unchecked, env=env)
    assert (status, err) == (0, "")
    assert yaml.safe_load(out)["processors"] == {"batch": {"timeout": "soon"}}
    assert run("print-config", *bad, "--validate=false", env=env)[0] == 1, "secrets are not known"


def test_components():
    status, out, _ = run("components")
    assert status == 0
    tree = yaml.safe_load(out)
    assert set(tree["buildinfo"]) == {"command", "description", "version"}
    assert {p["scheme"] for p in tree["providers"]} == {"env", "file", "yaml"}
    for kind in ("receivers", "processors", "exporters"):
        for component in tree[kind]:
            assert component["module"] and component["stability"], component
            assert set(component["stability"]) <= {"traces", "metrics", "logs"}
    have = {
        kind: {c["name"] for c in tree[kind]}
        for kind in ("receivers", "processors", "exporters", "extensions", "connectors")
    }
    assert have["connectors"] >= {"forward", "spanmetrics"}
    assert have["receivers"] >= {"otlp", "zipkin"}
    assert have["processors"] >= {"memory_limiter", "batch", "probabilistic_sampler"}
    assert have["exporters"] >= {"otlp", "blocks", "debug"}
    assert have["extensions"] >= {"trace_store", "query", "health_check", "file_storage"}


def test_print_config_hides_secrets_and_can_be_read_back(tmp_path):
    text = GOOD.replace("    tls:", "    headers: {authorization: hunter2}\n    tls:")
    status, out, err = run("print-config", "--config", write(tmp_path, text))
    assert status == 0, err
    assert "hunter2" not in out
    again = write(tmp_path, out, "again.yaml")
    assert run("print-config", "--config", again)[1] == out


def test_no_pipelines_but_extensions_is_legal(make_mill, tmp_path):
    mill = make_mill(lambda ports: query_node(ports, str(tmp_path / "data")))
    assert mill.stop()["accepted"] == 0


MESH = """\
receivers: {otlp: {protocols: {grpc: , http: }}, zipkin: {endpoint: "0.0.0.0:9411"}}
exporters: {otlp/jaeger: {endpoint: "jaeger.default:4317", tls: {insecure: true}}}
service: {pipelines: {traces: {receivers: [otlp, zipkin], exporters: [otlp/jaeger]}}}
"""


@pytest.fixture
def ports():
    with default_ports() as taken:
        yield taken


def test_the_mesh_configuration_runs_as_published(tmp_path, next_hop, ports):
    """Only the target's address is changed."""
    hop = next_hop()
    source = write(tmp_path, MESH.replace("jaeger.default:4317", hop.target))
    with open(tmp_path / "err", "wb") as err:
        process = subprocess.Popen([BINARY, "--config", source], stderr=err, stdout=err)
    try:
        mill = Mill(tmp_path / "x", lambda _: {}, ports=ports)
        wait_for(
            "its port",
            lambda: opens(4317) and opens(4318) and opens(9411) or process.poll() is not None,
        )
        assert process.poll() is None, (tmp_path / "err").read_text()
        first, second = otlp.request(n_spans=3), otlp.request()
        otlp.send_grpc(mill, first)
        assert otlp.send_http(mill, second).status_code == 200
        answer = requests.post(
            "http://127.0.0.1:9411/api/v2/spans",
            timeout=30,
            headers={"Content-Type": "application/json"},
            data='[{"traceId":"1","id":"2","name":"z"}]',
        )
        assert answer.status_code == 202
        assert set(hop.span_counts()) == {
            *otlp.span_ids(first),
            *otlp.span_ids(second),
            (2).to_bytes(8, "big"),
        }
        assert requests.get("http://127.0.0.1:8888/metrics", timeout=30).status_code == 200
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()


def test_listens_on_localhost_by_default(tmp_path, ports):
    source = write(tmp_path, MESH)
    process = subprocess.Popen([BINARY, "--config", source], stderr=subprocess.DEVNULL)
    try:
        wait_for("its port", lambda: opens(4317))
        bound = set()
        with open("/proc/net/tcp", encoding="ascii") as f:
            for line in f:
                parts = line.split()
                if len(parts) > 3 and parts[3] == "0A":
                    bound.add(parts[1])
        assert "0100007F:10DD" in bound and "00000000:10DD" not in bound
        assert "00000000:24C3" in bound
    finally:
        process.kill()
        process.wait()


def test_batch_does_not_hold_a_waiting_client(make_mill, next_hop):
    """timeout 10 s: a client that waits for its answer is served within a moment."""
    hop = next_hop()

    def config(ports):
        out = forwarder(ports, hop.target)
        out["processors"] = {"batch": {"timeout": "10s"}}
        out["service"]["pipelines"]["traces"]["processors"] = ["batch"]
        return out

    mill = make_mill(config)
    start = time.monotonic()
    otlp.send_grpc(mill, otlp.request())
    assert time.monotonic() - start < 9, "that was the timeout of the batch"
