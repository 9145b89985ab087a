"""kill -9 under load at random points and at each step of publishing a section: every acknowledged
span comes back once.

The seed is printed; SPANMILL_KILL_SEED repeats a run's choices. SPANMILL_KILL_SECONDS makes it a
soak (make soak)."""

import os
import random
import time

import pytest

from ledger import Client, check
from mill import run

KILLS = 24
SEED = int(os.environ.get("SPANMILL_KILL_SEED", random.SystemRandom().randrange(10**6)))
SOAK = float(os.environ.get("SPANMILL_KILL_SECONDS", 0))


def files_under(top):
    out = set()
    for folder, _, names in os.walk(top):
        out.update(os.path.join(folder, name) for name in names)
    return out


class Steps:
    """Watches the data directory for a step of publishing that was not there before."""

    def __init__(self, data):
        self.data = data
        self.before = files_under(data)

    def seen(self, step):
        new = files_under(self.data) - self.before
        if step == "data":  # a block's files are being written, its meta.json is not there yet
            return any(os.path.basename(f).startswith(("data", "bloom", "index")) for f in new)
        if step == "commit":  # the commit record is there (or about to be)
            return any("/_spanmill/commits/" in f for f in new)
        if step == "meta":  # the block is visible, the log not freed yet
            return any(os.path.basename(f).startswith("meta.json") for f in new)
        return True


def kill_once(mill, rng, step):
    steps = Steps(mill.data)
    if step == "time":
        time.sleep(rng.uniform(0.0, 0.6))
    else:
        deadline = time.monotonic() + 3
        while not steps.seen(step) and time.monotonic() < deadline:
            pass
        time.sleep(rng.choice([0, 0, 0.0005, 0.002, 0.005]))
    mill.kill()


def resume(clients):
    """All send again, and some were answered: what is killed next is killed under load."""
    before = sum(len(c.acked) for c in clients)
    deadline = time.monotonic() + 30
    for c in clients:
        c.running.set()
    while sum(len(c.acked) for c in clients) < before + 40 and time.monotonic() < deadline:
        time.sleep(0.005)


def check_fresh(mill, clients, seen):
    """What was acknowledged since the last time. Nobody sends meanwhile: on a quick machine there
    would be ever more to check."""
    for c in clients:
        c.running.clear()
    for c in clients:
        fresh = {t: r for t, r in list(c.acked.items()) if t not in seen}
        check(mill, fresh, c.tenant)
        seen.update(fresh)


@pytest.mark.timeout(0 if SOAK else 240)
def test_every_acknowledged_span_comes_back_once(make_mill):
    print(f"SPANMILL_KILL_SEED={SEED}")
    rng = random.Random(SEED)
    overlay = {
        "exporters": {"blocks": {"max_block_age": "200ms", "max_block_traces": 50}},
        "processors": {"batch": {"timeout": "5ms"}},
    }
    mill = make_mill(overlay=overlay)
    clients = [
        Client(mill),
        Client(mill, by_http=True),
        Client(mill, n_spans=40),
        Client(mill, tenant="other", pause=0.005),
    ]
    for c in clients:
        c.start()
    hits = dict.fromkeys(("time", "data", "commit", "meta"), 0)
    end = time.monotonic() + SOAK
    kills = 0
    seen = {}  # what was acknowledged before the last kill and has been checked since
    while kills < KILLS or time.monotonic() < end:
        step = list(hits)[kills % 4]
        resume(clients)
        kill_once(mill, rng, step)
        hits[step] += 1
        kills += 1
        mill.write_config()
        mill.start()
        check_fresh(mill, clients, seen)
        if rng.random() < 0.2:  # now and then twice at once: killed while it replays
            mill.kill()
            mill.start(ready=False)
            time.sleep(rng.uniform(0, 0.05))
            mill.kill()
            mill.start()
    resume(clients)
    for c in clients:
        c.finish()
    total = sum(len(c.acked) for c in clients)
    for c in clients:
        assert not c.wrong, c.wrong[:5]
        check(
            mill,
            dict(rng.sample(sorted(c.acked.items()), min(400, len(c.acked)))) if SOAK else c.acked,
            c.tenant,
        )
    print(f"{kills} kills {hits}, {total} traces acknowledged")
    assert total > 10 * kills, "hardly anything was acknowledged between the kills"
    mill.stop()
    mill.start()
    for c in clients:
        check(mill, dict(rng.sample(sorted(c.acked.items()), min(300, len(c.acked)))), c.tenant)


def test_fsck_after_kills(make_mill):
    """What kills leave behind is nothing that fsck calls damage."""
    mill = make_mill(overlay={"exporters": {"blocks": {"max_block_age": "100ms"}}})
    client = Client(mill)
    client.start()
    rng = random.Random(SEED)
    for step in ("data", "commit", "meta", "time"):
        kill_once(mill, rng, step)
        mill.start()
    client.finish()
    check(mill, client.acked)
    mill.stop()
    status, out, err = run("fsck", mill.data, timeout=60)
    assert status == 0, out + err


def test_torn_tail(make_mill):
    """A half-written last record (and rubbish behind it) is dropped at start; what was acknowledged
    stays."""
    mill = make_mill(overlay={"exporters": {"blocks": {"max_block_age": "1h"}}})
    client = Client(mill)
    client.start()
    client.finish()
    mill.kill()
    logs = [
        f for f in files_under(os.path.join(mill.data, "_spanmill")) if os.path.getsize(f) > 100
    ]
    newest = max(logs, key=os.path.getmtime)
    with open(newest, "ab") as f:
        f.write(os.urandom(777))
    mill.start()
    check(mill, client.acked)


def test_one_process_per_log(make_mill):
    """A second process on the same data is refused with status 2 and says who holds it."""
    first = make_mill()
    second = make_mill(
        start=False, overlay={"extensions": {"trace_store": {"local": {"path": first.data}}}}
    )
    second.start(ready=False)
    assert second.wait_exit(10) == 2
    second.process = None
    assert "lock" in second.stderr(), second.stderr()
