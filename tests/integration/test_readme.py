"""What the README and the sample configurations promise is run: its commands, its YAML, configs/."""

import glob
import os
import re
import shutil
import subprocess

import pytest
import yaml

import s3_servers
from mill import BINARY, ROOT, Mill, default_ports, free_port, opens, run, wait_for
from pki import Authority

README = os.path.join(ROOT, "README.md")
CONFIGS = sorted(glob.glob(os.path.join(ROOT, "configs", "*.yaml")))
# set-up and clean-up commands are run by make and CI themselves
NOT_HERE = re.compile(r"^\s*(make|git|cd|sudo|apt|apt-get|docker|systemctl)\b")


def blocks(kinds):
    """The fenced code blocks of these languages, in order."""
    if not os.path.exists(README):
        return []
    with open(README, encoding="utf-8") as f:
        found = re.findall(r"^[ \t]*```(\w+)\n(.*?)^[ \t]*```", f.read(), re.S | re.M)
    return [text for kind, text in found if kind in kinds]


@pytest.fixture
def all_in_one(tmp_path):
    """configs/all-in-one.yaml as `make run` starts it, on its own ports, in a directory of its own."""
    with default_ports() as ports:
        mill = Mill(tmp_path, lambda _: {"extensions": {"query": None}}, ports=ports)
        mill.config_path = os.path.join(ROOT, "configs", "all-in-one.yaml")
        try:
            mill.start()
            yield mill
            mill.stop()
        finally:
            mill.kill()


def test_the_commands_of_the_readme(all_in_one, tmp_path):
    """Block by block, in order; `<trace id>` is the id that an earlier block printed."""
    os.symlink(os.path.join(ROOT, "build"), tmp_path / "build")
    last_id, n_run = None, 0
    for text in blocks({"sh", "bash", "shell"}):
        lines = [line for line in text.splitlines() if not NOT_HERE.match(line)]
        script = "\n".join(lines)
        if not any(line.strip() and not line.strip().startswith("#") for line in lines):
            continue
        if "<trace id>" in script:
            assert last_id, f"no earlier block printed a trace id:\n{script}"
            script = script.replace("<trace id>", last_id)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=tmp_path,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        ids = re.findall(r"\b[0-9a-f]{32}\b", done.stdout)
        last_id = ids[-1] if ids else last_id
        n_run += 1
    if os.path.exists(README):
        assert n_run > 0, "the README has no commands to run"


@pytest.mark.parametrize("text", blocks({"yaml"}))
def test_the_yaml_of_the_readme(tmp_path, text):
    if "service:" not in text:
        pytest.skip("a fragment")
    path = tmp_path / "readme.yaml"
    path.write_text(text)
    status, out, err = run("validate", "--config", str(path))
    assert status == 0, f"{text}\n{out}{err}"


@pytest.mark.parametrize("path", CONFIGS, ids=[os.path.basename(p) for p in CONFIGS])
def test_sample_configuration_runs(tmp_path, path, request):
    """Valid without a word, and it starts and stops, on ports, paths and in a bucket of our own."""
    assert run("validate", "--config", path) == (0, "", "")
    with open(path, encoding="utf-8") as f:
        tree = yaml.safe_load(f)
    env = dict(os.environ)
    if "s3" in tree["extensions"].get("trace_store", {}).get("backend", ""):
        env.update(bucket_of(request.getfixturevalue("seaweed")))
    if "env:CERTS" in str(tree):
        env["CERTS"] = certificates(tmp_path)
    with open(tmp_path / "own.yaml", "w", encoding="utf-8") as f:
        metrics = move(tree)
        yaml.safe_dump(tree, f)
    with open(tmp_path / "err", "wb") as err:
        process = subprocess.Popen(
            [BINARY, "--config", str(tmp_path / "own.yaml")], stderr=err, cwd=tmp_path, env=env
        )
    try:
        wait_for("its metrics", lambda: opens(metrics) or process.poll() is not None)
        assert process.poll() is None, (tmp_path / "err").read_text()
        process.terminate()
        assert process.wait(20) in (0, 3), (tmp_path / "err").read_text()
    finally:
        process.kill()
        process.wait()


def certificates(tmp_path):
    """A folder with the files that configs/secure-gateway.yaml reads."""
    authority = Authority(tmp_path)
    folder = authority.folder
    authority.issue("server")
    shutil.copy(authority.pem, os.path.join(folder, "clients.pem"))
    for name, text in {
        "partners.tokens": "one\ntwo\n",
        "own.token": "three\n",
        "people.htpasswd": "ann:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n",  # htpasswd -s: password
    }.items():
        with open(os.path.join(folder, name), "w", encoding="ascii") as f:
            f.write(text)
    return folder


def bucket_of(server):
    """The environment by which the sample configurations find a bucket."""
    return {
        "S3_ENDPOINT": server.endpoint.split("//")[1],
        "S3_BUCKET": server.create_bucket(),
        "S3_INSECURE": "true",
        "AWS_ACCESS_KEY_ID": s3_servers.ACCESS,
        "AWS_SECRET_ACCESS_KEY": s3_servers.SECRET,
    }


def move(tree):
    """Put every listening address of the configuration on a free port; returns that of the metrics."""

    def walk(node, at):
        if isinstance(node, dict):
            for key, value in node.items():
                if key == "endpoint" and at[0] in ("receivers", "extensions"):
                    node[key] = f"127.0.0.1:{free_port()}"
                else:
                    walk(value, at + [key])

    for top in ("receivers", "extensions"):
        for name, body in (tree.get(top) or {}).items():
            if body is None and name.split("/")[0] in ("query", "health_check"):
                tree[top][name] = {"endpoint": f"127.0.0.1:{free_port()}"}
            if name != "trace_store":  # its endpoint is another's
                walk(body, [top, name])
    metrics = free_port()
    telemetry = tree.setdefault("service", {}).setdefault("telemetry", {})
    telemetry.setdefault("metrics", {})["address"] = f"127.0.0.1:{metrics}"
    return metrics
