"""A next hop that is dead for a while under the load of many clients, with deadlines from 200 ms to
30 s (issue: "next hop dead for 60 s"). SPANMILL_DEAD_SECONDS=60 is the full outage."""

import os
import threading
import time

import pytest

from hop_process import HopProcess
from loadgen import Gen
from mill import forwarder, wait_for

DEAD = float(os.environ.get("SPANMILL_DEAD_SECONDS", 4))
IN_FLIGHT = 10 * 20  # consumers, spans that come together between two answers
RATE = 100  # spans a second of each client
DEADLINES = ("200ms", "500ms", "1s", "2s", "5s", "10s", "30s")




class Jitter(threading.Thread):
    """The longest time that this machine let a runnable thread wait while the test ran: what is late
    by less is the machine's doing."""

    def __init__(self):
        super().__init__(daemon=True)
        self.longest, self.over = 0.0, threading.Event()

    def run(self):
        while not self.over.is_set():
            before = time.monotonic()
            time.sleep(0.005)
            self.longest = max(self.longest, time.monotonic() - before - 0.005)

    def excuses(self, deadline):
        """Is the margin of an answer (50 ms or a tenth of the deadline) within that?"""
        seconds = float(deadline[:-2]) / 1e3 if deadline.endswith("ms") else float(deadline[:-1])
        return self.longest > max(0.05, seconds / 10) * 0.6


def load(tmp, mill, rate):
    """One kind of client per deadline, each with many requests under way."""
    common = ("--batch", "5", "--concurrency", "20")
    gens = [
        Gen(tmp, mill.ports["grpc"], f"grpc.{d}", *common, deadline=d, rate=rate)
        for d in DEADLINES
    ]
    gens += [
        Gen(tmp, mill.ports["http"], f"http.{d}", *common, protocol="otlp-http", deadline=d, rate=rate)
        for d in ("8s", "30s")
    ]
    return [g.start() for g in gens]


def judge(gens, during, hop, storage, jitter):
    """Every answer in time, and all that was acknowledged is at the hop. Returns what is there twice."""
    acked = set().union(*(g.acked_spans() for g in gens))
    wait_for("what was acknowledged, at the hop", lambda: acked <= set(hop.span_counts()), 30)
    twice = {i for i, n in hop.span_counts().items() if n > 1}
    keys = ("requests", "acked", "refused", "failed", "retries", "unanswered")
    for g in gens:
        print(g.name, "acked while dead", during[g.name], {k: g.report[k] for k in keys},
              "max ms", g.report["latency"]["max_us"] / 1e3)
    print(f"{len(acked)} acked, {len(hop.span_counts())} at the hop, {len(twice)} of them twice")
    for g in gens:
        r = g.report
        late = f"{g.name}: {r['unanswered']} without an answer in time, jitter {jitter.longest:.3f} s"
        assert r["unanswered"] == 0 or jitter.excuses(g.deadline), late
        assert r["failed"] == 0 and r["rejected"] == 0, (g.name, r)
        assert (during[g.name] > 0) == storage
    return acked, twice


@pytest.mark.timeout(int(DEAD) + 120)
@pytest.mark.parametrize("dies", ["absent", "closed", "frozen"])
@pytest.mark.parametrize("storage", [False, True], ids=["memory", "disk"])
def test_many_clients_and_a_dead_hop(make_mill, tmp_path, storage, dies):
    """Nobody ever listened, nobody listens any more, or the hop is frozen with its connections
    open."""
    hop = HopProcess(tmp_path)
    where = str(tmp_path / "queue") if storage else None
    mill = make_mill(lambda ports: forwarder(ports, hop.target, None, where))
    if dies != "absent":
        hop.start()
    jitter = Jitter()
    jitter.start()
    gens = load(tmp_path, mill, RATE)
    try:
        if dies != "absent":
            wait_for("spans at the hop", lambda: len(hop.span_counts()) > 100)
            hop.freeze() if dies == "frozen" else hop.stop()
        time.sleep(1)
        before = {g.name: len(g.acked_spans()) for g in gens}
        time.sleep(DEAD)
        during = {g.name: len(g.acked_spans()) - before[g.name] for g in gens}
        hop.thaw() if dies == "frozen" else hop.start()
        time.sleep(5)
        for g in gens:
            g.finish()
        acked, twice = judge(gens, during, hop, storage, jitter)
    finally:
        jitter.over.set()
        for g in gens:
            g.kill()
        hop.stop()
    balance = mill.stop()
    assert balance["held"] == 0
    assert balance["delivered"] >= len(acked)
    # OTLP is at least once: at risk is what the hop was sent and had not answered when it died, or
    # when the client's time was up, which on a busy machine may be just as the hop comes back.
    assert len(twice) <= IN_FLIGHT
