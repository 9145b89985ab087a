"""Random faults under load: kill -9 (also in replay, at each step of publishing, in shutdown), SIGSTOP,
full disks, write errors, next hops that die and freeze, with several tenants, several blocks exporters
and a fan-out to blocks and a disk queue. Every acknowledged span is there, once.

The seed is printed; SPANMILL_FAULT_SEED repeats the choices, SPANMILL_FAULT_EPISODES (per shape) or
SPANMILL_FAULT_SECONDS (in all) make it longer."""

import os
import time

import pytest

from faults import DISK_MIB, SHAPES, Oracle, seeded, small_disk
from loadgen import Gen
from mill import wait_for

EPISODES = int(os.environ.get("SPANMILL_FAULT_EPISODES", 5))
SECONDS = float(os.environ.get("SPANMILL_FAULT_SECONDS", 0)) / len(SHAPES)


@pytest.mark.timeout(0 if SECONDS or EPISODES > 20 else 240)
@pytest.mark.parametrize("shape", SHAPES)
def test_faults(tmp_path, shape):
    rng = seeded("SPANMILL_FAULT_SEED")
    # Blocks stay, and the filter alone of each takes 100 KiB.
    with small_disk(DISK_MIB + min(6 * int(EPISODES + SECONDS), 4000)) as disk:
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


def test_the_log_leaves_room_for_blocks(tmp_path):
    """A disk that load fills: the log must not take what its blocks need, or nothing could ever be
    freed again."""
    with small_disk(80) as disk:
        if disk is None:
            pytest.skip("mounting a small disk is not allowed here")
        oracle = Oracle(tmp_path, "blocks", seeded("SPANMILL_FAULT_SEED"), disk)
        blocks = oracle.mill.config["exporters"]["blocks"]
        blocks.update({"max_block_age": "1h", "max_block_traces": 0, "flush_on_shutdown": False})
        oracle.mill.write_config()
        try:
            oracle.mill.start()
            flags = ("--batch", "500", "--span-bytes", "2000")
            port = oracle.mill.ports["grpc"]
            oracle.gens.append(Gen(tmp_path, port, "fill", *flags, rate=0).start())
            wait_for("a full log", lambda: "disk full" in oracle.mill.stderr(), 60)
            oracle.gens[0].kill()
            oracle.mill.kill()
            blocks["max_block_age"] = "100ms"
            oracle.mill.write_config()
            oracle.mill.start()
            wait_for("blocks", lambda: oracle.mill.metric("spanmill_blocks_live_spans") == 0, 60)
            oracle.mill.stop()
        finally:
            oracle.close()
