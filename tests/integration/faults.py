"""The oracle of the fault tests: clients that keep a ledger, faults by name, and the judgement that
every acknowledged span is where it belongs, once."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time

import requests
from opentelemetry.proto.trace.v1 import trace_pb2 as trace

from hop_process import HopProcess
from loadgen import Gen
from mill import Mill, all_in_one, forwarder, merged, run, wait_for

TENANTS = (None, "team-a", "team-b")
DISK_MIB = 96  # of the small disk


# ---- shapes ------------------------------------------------------------------------------------------------------


def blocks(ports, data, target, queue):
    """All in one; blocks are cut often."""
    config = all_in_one(ports, data)
    config["exporters"]["blocks"] = {"max_block_age": "300ms", "max_block_traces": 60}
    config["processors"]["batch"] = {"timeout": "10ms"}
    config["extensions"]["trace_store"]["blocklist_poll"] = "200ms"
    return config


def two_blocks(ports, data, target, queue):
    """Two blocks exporters into one store."""
    config = blocks(ports, data, target, queue)
    config["exporters"] = {
        "blocks/a": {"max_block_age": "200ms"},
        "blocks/b": {"max_block_age": "400ms", "max_block_traces": 30},
    }
    config["service"]["pipelines"]["traces"]["exporters"] = ["blocks/a", "blocks/b"]
    return config


def fan(ports, data, target, queue):
    """Blocks, and a next hop behind a disk queue."""
    config = blocks(ports, data, target, queue)
    out = forwarder(ports, target, None, queue)
    config["exporters"]["otlp"] = out["exporters"]["otlp"]
    config["extensions"]["file_storage"] = out["extensions"]["file_storage"]
    config["service"]["extensions"].append("file_storage")
    config["service"]["pipelines"]["traces"]["exporters"] = ["blocks", "otlp"]
    return config


def queue_only(ports, data, target, queue):
    return forwarder(ports, target, None, queue)


SHAPES = {f.__name__: f for f in (blocks, two_blocks, fan, queue_only)}


# ---- a small disk --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def small_disk(mib=DISK_MIB):
    """A file system of its own size, or None where mounting is not allowed."""
    where = tempfile.mkdtemp(prefix="spanmill-disk-")
    mounted = (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", where], capture_output=True
        ).returncode
        == 0
    )
    try:
        yield where if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", "-l", where], check=False)
        shutil.rmtree(where, ignore_errors=True)


def fill(where):
    """Take every free byte; returns the file to remove."""
    path = os.path.join(where, "filler")
    for step in (65536, 1):
        with contextlib.suppress(OSError), open(path, "ab", buffering=0) as f:
            while f.write(b"x" * step) == step:
                pass
    return path


# ---- the oracle ----------------------------------------------------------------------------------------------------


class Oracle:
    """One configuration under load; faults are methods."""

    def __init__(self, tmp, shape, rng, where=None):
        self.tmp, self.shape, self.rng = str(tmp), shape, rng
        self.where = where or self.tmp
        self.data = os.path.join(self.where, "data")
        self.queue = os.path.join(self.where, "queue")
        self.hop = HopProcess(tmp) if shape in ("fan", "queue_only") else None
        self.target = self.hop.target if self.hop else None
        self.has_query = shape != "queue_only"
        self.mill = Mill(
            os.path.join(self.tmp, "mill"),
            lambda ports: SHAPES[shape](ports, self.data, self.target, self.queue),
            overlay={"service": {"drain_timeout": "5s"}},
        )
        self.gens = []
        self.checked = {}  # (tenant, trace id) -> spans that were there
        self.episodes = 0

    # -- life

    def start(self, n_gens=3, rate=150):
        if self.hop:
            self.hop.start()
        self.mill.start()
        for i in range(n_gens):
            self.add_gen(i, rate)
        return self

    def add_gen(self, i, rate):
        tenant = TENANTS[i % len(TENANTS)]
        protocol = ("otlp-grpc", "otlp-http", "otlp-grpc")[i % 3]
        port = self.mill.ports["http" if protocol == "otlp-http" else "grpc"]
        flags = ["--batch", str((10, 3, 25)[i % 3]), "--spans-per-trace", str((10, 6, 50)[i % 3])]
        flags += ["--tenant", tenant] if tenant else []
        gen = Gen(self.tmp, port, f"g{i}", *flags, protocol=protocol, rate=rate)
        gen.tenant = tenant
        self.gens.append(gen.start())

    def close(self):
        for g in self.gens:
            g.kill()
        if self.mill.process is not None:
            self.mill.process.send_signal(signal.SIGCONT)
        self.mill.kill()
        if self.hop:
            self.hop.stop()

    # -- faults

    def kill(self):
        time.sleep(self.rng.uniform(0, 0.6))
        self.mill.kill()
        self.mill.start()

    def kill_at_step(self):
        """As soon as a new file of a certain kind turns up."""
        kind = self.rng.choice(["data", "commits", "meta.json", "segment", "tmp"])
        before = self.files()
        until = time.monotonic() + 1.5
        while time.monotonic() < until and not any(kind in f for f in self.files() - before):
            pass
        time.sleep(self.rng.choice([0, 0, 0.0003, 0.001, 0.004]))
        self.mill.kill()
        self.mill.start()

    def kill_in_replay(self):
        time.sleep(self.rng.uniform(0.2, 0.5))
        self.mill.kill()
        for _ in range(self.rng.randrange(1, 4)):
            self.mill.start(ready=False)
            time.sleep(self.rng.uniform(0, 0.06))
            self.mill.kill()
        self.mill.start()

    def kill_in_shutdown(self):
        time.sleep(self.rng.uniform(0, 0.4))
        self.mill.process.send_signal(signal.SIGTERM)
        time.sleep(self.rng.choice([0, 0.001, 0.005, 0.02, 0.1, 0.3]))
        self.mill.kill()
        self.mill.start()

    def restart(self):
        time.sleep(self.rng.uniform(0, 0.4))
        self.mill.stop()
        self.mill.start()

    def freeze(self):
        self.mill.process.send_signal(signal.SIGSTOP)
        time.sleep(self.rng.uniform(0.1, 1.5))
        self.mill.process.send_signal(signal.SIGCONT)
        time.sleep(0.2)

    def freeze_and_kill(self):
        self.mill.process.send_signal(signal.SIGSTOP)
        time.sleep(self.rng.uniform(0.05, 0.3))
        self.mill.kill()
        self.mill.start()

    def full_disk(self):
        path = fill(self.where)
        try:
            time.sleep(self.rng.uniform(0.3, 1.2))
            if self.rng.random() < 0.4:
                self.mill.kill()
                self.mill.start(ready=False)
                time.sleep(self.rng.uniform(0.0, 0.3))
                if self.mill.process.poll() is not None:  # no room to start in: says so, and is started again
                    assert self.mill.process.returncode == 2, self.mill.stderr()
                    self.mill.process = None
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)
        if self.mill.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):  # it may find just now that it cannot start
                assert self.mill.process.wait(0.5) == 2, self.mill.stderr()
                self.mill.process = None
        if self.mill.process is None:
            self.mill.start()
        self.mill.wait_ready()

    def file_size_limit(self):
        """Every write beyond 0 bytes fails, as over a quota."""
        pid = str(self.mill.process.pid)
        subprocess.run(["prlimit", "--pid", pid, "--fsize=0:"], check=True)
        time.sleep(self.rng.uniform(0.3, 1.0))
        subprocess.run(["prlimit", "--pid", pid, "--fsize=unlimited:"], check=True)

    def hop_away(self):
        self.hop.stop()
        time.sleep(self.rng.uniform(0.1, 1.0))
        if self.rng.random() < 0.5:
            self.mill.kill()
            self.mill.start()
        self.hop.start()

    def hop_frozen(self):
        self.hop.freeze()
        time.sleep(self.rng.uniform(0.1, 1.0))
        if self.rng.random() < 0.5:
            self.mill.kill()
            self.mill.start()
        self.hop.thaw()

    def faults(self):
        out = [self.kill, self.kill, self.kill_in_replay, self.kill_in_shutdown, self.restart]
        out += [self.freeze, self.freeze_and_kill, self.file_size_limit]
        if self.has_query:
            out += [self.kill_at_step, self.kill_at_step]
        if self.hop:
            out += [self.hop_away, self.hop_frozen]
        if self.where != self.tmp:
            out += [self.full_disk, self.full_disk]
        return out

    def episode(self):
        fault = self.rng.choice(self.faults())
        fault()
        self.episodes += 1
        return fault.__name__

    def files(self):
        out = set()
        for top in (self.data, self.queue):
            for folder, _, names in os.walk(top):
                out.update(os.path.join(folder, name) for name in names)
        return out

    # -- judgement

    def acked(self):
        """{(tenant, trace id): spans acknowledged}; a ledger line is there before the next request."""
        return {(g.tenant, t): spans for g in self.gens for t, spans in g.acked().items()}

    def look_up(self, session, tenant, trace_id):
        headers = {"Accept": "application/protobuf"}
        if tenant:
            headers["X-Scope-OrgID"] = tenant
        url = self.mill.url("query", f"/api/traces/{trace_id.hex()}")
        answer = session.get(url, headers=headers, timeout=30)
        if answer.status_code == 404:
            return []
        assert answer.status_code in (200, 206), f"{answer.status_code} {answer.text[:300]}"
        got = trace.TracesData.FromString(answer.content)
        return [s.span_id for r in got.resource_spans for ss in r.scope_spans for s in ss.spans]

    def problems(self, acked):
        out = []
        with requests.Session() as session:
            for (tenant, trace_id), want in acked.items():
                got = self.look_up(session, tenant, trace_id)
                lost = want - set(got)
                if lost:
                    out.append(f"{tenant} {trace_id.hex()}: {len(lost)} of {len(want)} spans lost")
                if len(got) != len(set(got)):
                    out.append(f"{tenant} {trace_id.hex()}: {len(got) - len(set(got))} spans twice")
        return out

    def check_fresh(self):
        """What was acknowledged since the last look, and a few of the older ones."""
        if not self.has_query:
            return
        acked = self.acked()
        fresh = {k: v for k, v in acked.items() if self.checked.get(k) != v}
        old = self.rng.sample(sorted(self.checked, key=repr), min(20, len(self.checked)))
        found = self.problems({**fresh, **{k: acked[k] for k in old}})
        assert not found, f"{len(found)} problems:\n" + "\n".join(found[:20])
        self.checked.update({k: set(v) for k, v in fresh.items()})

    def finish(self):
        """Everything, once more: after the load, after a stop, after a start; and fsck."""
        for g in self.gens:
            g.finish(90)
            assert g.report["failed"] == 0 and g.report["rejected"] == 0, g.report
        acked = self.acked()
        spans = set().union(*acked.values())
        if self.has_query:
            found = self.problems(acked)
            assert not found, f"{len(found)} problems:\n" + "\n".join(found[:20])
        if self.hop:
            wait_for(
                "everything acknowledged at the next hop",
                lambda: spans <= set(self.hop.span_counts()),
                40,
                step=0.2,
            )
        self.mill.stop(timeout=40)
        for args in (["fsck", self.data], ["fsck", "queue", self.queue]):
            if os.path.exists(args[-1]):
                status, out, err = run(*args, timeout=120)
                assert status == 0, out + err
        if self.has_query:
            self.mill.start()
            some = self.rng.sample(sorted(acked.items(), key=repr), min(300, len(acked)))
            found = self.problems(dict(some))
            assert not found, f"{len(found)} problems after a restart:\n" + "\n".join(found[:20])
            self.mill.stop(timeout=40)
        return spans


def seeded(name):
    seed = int(os.environ.get(name, random.SystemRandom().randrange(10**6)))
    print(f"{name}={seed}")
    return random.Random(seed)
