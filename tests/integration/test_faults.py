"""Random faults under load: kill -9 (also in replay, at each step of publishing, in shutdown), SIGSTOP,
full disks, write errors, next hops that die and freeze, with several tenants, several blocks exporters
and a fan-out to blocks and a disk queue. Every acknowledged span is there, once.

The seed is printed; SPANMILL_FAULT_SEED repeats the choices, SPANMILL_FAULT_EPISODES (per shape) or
SPANMILL_FAULT_SECONDS (in all) make it longer."""

import os
import time

import pytest

from faults import SHAPES, Oracle, seeded, small_disk

EPISODES = int(os.environ.get("SPANMILL_FAULT_EPISODES", 8))
SECONDS = float(os.environ.get("SPANMILL_FAULT_SECONDS", 0)) / len(SHAPES)


@pytest.mark.timeout(0 if SECONDS or EPISODES > 20 else 240)
@pytest.mark.parametrize("shape", SHAPES)
def test_faults(tmp_path, shape):
    rng = seeded("SPANMILL_FAULT_SEED")
    with small_disk() as disk:
        oracle = Oracle(tmp_path, shape, rng, disk)
        done = {}
        try:
            oracle.start()
            end = time.monotonic() + SECONDS
            while oracle.episodes < EPISODES or time.monotonic() < end:
                name = oracle.episode()
                done[name] = done.get(name, 0) + 1
                oracle.check_fresh()
            spans = oracle.finish()
        except BaseException:
            print(f"after {done}")
            print(oracle.mill.stderr()[-6000:])
            raise
        finally:
            oracle.close()
    print(f"{shape}: {oracle.episodes} episodes {done}, {len(spans)} spans acknowledged")
    assert len(spans) > 30 * oracle.episodes, "hardly anything was acknowledged"
