"""The program under test: configuration, start, readiness, stop with its balance, kill, memory,
metrics.

Nothing here sleeps for a time and hopes: every wait polls for a condition with a deadline and says
what it waited for.
"""

import collections
import contextlib
import fcntl
import os
import random
import re
import signal
import socket
import subprocess
import tempfile
import time

import pytest
import requests
import yaml

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BINARY = os.environ.get("SPANMILL_BINARY", os.path.join(ROOT, "build", "spanmill"))
SANITIZED = "/address-" in BINARY or "/thread/" in BINARY  # memory and times tell nothing
GOLDEN = os.environ.get("SPANMILL_GOLDEN", os.path.join(ROOT, "..", "shared", "golden"))
DEFAULT_PORTS = {
    "grpc": 4317,
    "http": 4318,
    "zipkin": 9411,
    "query": 3200,
    "health": 13133,
    "metrics": 8888,
}
PORT_NAMES = tuple(DEFAULT_PORTS)
BALANCE = re.compile(r"\baccepted=(\d+) delivered=(\d+) dropped=(\d+) held=(\d+)")


PATIENCE = 60.0  # seconds; less than that says more about the machine than about the program


def wait_for(what, condition, timeout=PATIENCE, step=0.01):
    """Poll until condition() is true and return its value; fail with what was awaited. A shorter
    timeout is made PATIENCE: how quick something is has to be measured and compared."""
    timeout = max(timeout, PATIENCE)
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {timeout} s for {what}"
        time.sleep(step)


GIVEN = collections.deque(maxlen=5000)  # ports that are or were in use, or will soon be


def free_port():
    """A port nobody listens on or was given lately, below the range the kernel hands to outgoing
    connections."""
    for _ in range(200):
        port = random.SystemRandom().randrange(15000, 32000)
        if port in GIVEN:
            continue
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
        GIVEN.append(port)
        return port
    raise AssertionError("no free port")


def opens(port):
    """Whether somebody listens on a port of this machine."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False


@contextlib.contextmanager
def default_ports():
    """The ports of the documentation for one test at a time; skips it where something else listens there."""
    lock_path = os.path.join(tempfile.gettempdir(), "spanmill-default-ports.lock")
    with open(lock_path, "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for port in DEFAULT_PORTS.values():
            if opens(port):
                pytest.skip(f"port {port} is taken on this machine")
        yield DEFAULT_PORTS


def merged(base, extra):
    """base with extra laid over it: maps by key, everything else (None too) replaced."""
    out = dict(base)
    for key, value in (extra or {}).items():
        if isinstance(value, dict) and isinstance(out.get(key), dict):
            out[key] = merged(out[key], value)
        else:
            out[key] = value
    return out


def all_in_one(ports, data):
    """The shape of configs/all-in-one.yaml on ports of our own; blocks are cut after a second."""
    at = {name: f"127.0.0.1:{ports[name]}" for name in PORT_NAMES}
    return {
        "receivers": {
            "otlp": {
                "protocols": {"grpc": {"endpoint": at["grpc"]}, "http": {"endpoint": at["http"]}}
            },
            "zipkin": {"endpoint": at["zipkin"]},
        },
        "processors": {"memory_limiter": {"check_interval": "1s", "limit_mib": 256}, "batch": {}},
        "exporters": {"blocks": {"max_block_age": "1s"}},
        "extensions": {
            "trace_store": {"backend": "local", "local": {"path": data}},
            "query": {"endpoint": at["query"]},
            "health_check": {"endpoint": at["health"]},
        },
        "service": {
            "extensions": ["trace_store", "query", "health_check"],
            "telemetry": {"metrics": {"address": at["metrics"]}},
            "pipelines": {
                "traces": {
                    "receivers": ["otlp", "zipkin"],
                    "processors": ["memory_limiter", "batch"],
                    "exporters": ["blocks"],
                }
            },
        },
    }


def query_node(ports, data):
    """Extensions only: answers from the blocks in a directory."""
    return {
        "extensions": {
            "trace_store": {"backend": "local", "local": {"path": data}},
            "query": {"endpoint": f"127.0.0.1:{ports['query']}"},
        },
        "service": {
            "extensions": ["trace_store", "query"],
            "telemetry": {"metrics": {"address": f"127.0.0.1:{ports['metrics']}"}},
        },
    }


def forwarder(ports, target, exporter=None, storage=None):
    """otlp in, otlp out to target (host:port), or otlp_http to an http:// URL; with storage the queue
    is on disk there."""
    kind = "otlp_http" if target.startswith(("http://", "https://")) else "otlp"
    out = merged(
        {
            "endpoint": target,
            "tls": {"insecure": True},
            "retry_on_failure": {"initial_interval": "100ms", "max_interval": "500ms"},
        },
        exporter,
    )
    config = {
        "receivers": {
            "otlp": {
                "protocols": {
                    "grpc": {"endpoint": f"127.0.0.1:{ports['grpc']}"},
                    "http": {"endpoint": f"127.0.0.1:{ports['http']}"},
                }
            }
        },
        "exporters": {kind: out},
        "extensions": {"health_check": {"endpoint": f"127.0.0.1:{ports['health']}"}},
        "service": {
            "extensions": ["health_check"],
            "telemetry": {"metrics": {"address": f"127.0.0.1:{ports['metrics']}"}},
            "pipelines": {"traces": {"receivers": ["otlp"], "exporters": [kind]}},
        },
    }
    if storage:
        config["extensions"]["file_storage"] = {"directory": storage, "create_directory": True}
        config["service"]["extensions"].append("file_storage")
        out["sending_queue"] = merged(out.get("sending_queue", {}), {"storage": "file_storage"})
    return config


def run(*args, env=None, timeout=PATIENCE, stdin=None):
    """One run of the program to its end: (exit status, stdout, stderr)."""
    done = subprocess.run(
        [BINARY, *args],
        capture_output=True,
        text=True,
        timeout=max(timeout, PATIENCE),
        input=stdin,
        env={**os.environ, **(env or {})},
    )
    return done.returncode, done.stdout, done.stderr


class Mill:
    """One configuration and data directory, and the process (of the moment) that runs it."""

    def __init__(self, tmp, make_config=None, overlay=None, ports=None, args=(), env=None):
        self.tmp = str(tmp)
        self.data = os.path.join(self.tmp, "data")
        self.ports = ports or {name: free_port() for name in PORT_NAMES}
        config = make_config(self.ports) if make_config else all_in_one(self.ports, self.data)
        self.config = merged(config, overlay)
        self.config_path = os.path.join(self.tmp, "config.yaml")
        self.write_config()
        self.args = list(args)
        self.env = {**os.environ, **(env or {})}
        self.process = None
        self.runs = 0
        self.balance = None

    def write_config(self):
        os.makedirs(self.tmp, exist_ok=True)
        with open(self.config_path, "w", encoding="utf-8") as f:
            yaml.safe_dump(self.config, f, sort_keys=False)

    def url(self, port, path=""):
        return f"http://127.0.0.1:{self.ports[port]}{path}"

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self, ready=True):
        assert self.process is None, "already running"
        self.runs += 1
        self.stderr_path = os.path.join(self.tmp, f"stderr.{self.runs}")
        with (
            open(self.stderr_path, "wb") as err,
            open(os.path.join(self.tmp, "stdout"), "ab") as out,
        ):
            self.process = subprocess.Popen(
                [BINARY, "--config", self.config_path, *self.args],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=self.env,
                cwd=self.tmp,
            )
        if ready:
            self.wait_ready()
        return self

    def stderr(self):
        with open(self.stderr_path, encoding="utf-8", errors="replace") as f:
            return f.read()

    def is_ready(self):
        status = self.process.poll()
        assert status is None, f"exited {status} before it was ready:\n{self.stderr()[-4000:]}"
        where = (
            self.url("query", "/ready")
            if "query" in self.config["extensions"]
            else self.url("health", "/")
        )
        try:
            return requests.get(where, timeout=30).status_code == 200
        except requests.ConnectionError:
            return False

    def wait_ready(self, timeout=PATIENCE):
        try:
            wait_for("readiness", self.is_ready, timeout)
        except AssertionError as e:
            raise AssertionError(f"{e}\n{self.stderr()[-4000:]}") from None

    def wait_exit(self, timeout=PATIENCE):
        timeout = max(timeout, PATIENCE)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(
                f"still there after {timeout} s:\n{self.stderr()[-4000:]}"
            ) from None

    def stop(self, expect=0, timeout=PATIENCE):
        """SIGTERM; the exit status must be expect and the balance line must balance. Returns the
        balance."""
        if self.process is None:
            return self.balance
        self.process.send_signal(signal.SIGTERM)
        status = self.wait_exit(timeout)
        self.process = None
        text = self.stderr()
        assert status == expect, f"exit {status}, want {expect}:\n{text[-4000:]}"
        self.balance = balance_of(text)
        return self.balance

    def kill(self):
        """kill -9, as the power going: nothing is flushed by the program."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    # -- what it says of itself
    # ---------------------------------------------------------------------------------------

    def proc_status(self, key):
        """A figure of /proc/PID/status in bytes, for example VmRSS or VmHWM."""
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as f:
            for line in f:
                if line.startswith(key + ":"):
                    return int(line.split()[1]) * 1024
        raise AssertionError(f"no {key} in /proc/status")

    def metrics(self):
        """The scrape as a list of (name, labels, value)."""
        answer = requests.get(self.url("metrics", "/metrics"), timeout=30)
        assert answer.status_code == 200, answer.text
        return parse_metrics(answer.text)

    def metric(self, name, **labels):
        """The sum of a metric over the series that have these labels; 0 when there is none."""
        return sum(
            v
            for n, have, v in self.metrics()
            if n == name and all(have.get(k) == want for k, want in labels.items())
        )


def balance_of(stderr):
    """The counts of the last line: accepted is the sum of the others."""
    lines = [line for line in stderr.splitlines() if line.strip()]
    found = BALANCE.search(lines[-1]) if lines else None
    assert found, f"the last line has no balance:\n{stderr[-2000:]}"
    accepted, delivered, dropped, held = map(int, found.groups())
    assert accepted == delivered + dropped + held, f"does not balance: {lines[-1]}"
    return {"accepted": accepted, "delivered": delivered, "dropped": dropped, "held": held}


def parse_metrics(text):
    out = []
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        found = re.fullmatch(r"([A-Za-z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+\S+)?(?:\s+#.*)?", line)
        assert found, f"not a metric line: {line}"
        labels = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', found[2] or ""))
        out.append((found[1], labels, float(found[3])))
    return out
