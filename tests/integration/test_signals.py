"""Signals, stops that are not simple, and health that tells the truth."""

import os
import signal
import socket
import subprocess
import threading
import time

import grpc
import pytest
import requests

import otlp
import tempo
from mill import BINARY, balance_of, forwarder, opens, wait_for


def health(mill):
    return requests.get(mill.url("health", "/"), timeout=30)


# ---- SIGHUP


def test_sighup_says_what_it_finds(make_mill):
    """Whatever the file says, it goes on working. What reloads do: test_reload.py."""
    mill = make_mill()

    def hup(words, times=1):
        mill.process.send_signal(signal.SIGHUP)
        wait_for(words, lambda: mill.stderr().count(words) == times)
        assert otlp.send_http(mill, otlp.request()).status_code == 200

    hup("SIGHUP: the configuration has not changed")
    mill.config["processors"]["batch"] = {"timeout": "50ms"}
    mill.config["exporters"]["debug"] = None
    mill.write_config()
    hup('changed="processors.batch in traces" started="" stopped=""')
    mill.config["processors"]["batch"] = {"timeout": "soon"}
    mill.write_config()
    hup("SIGHUP: the configuration has mistakes, the running one stays")
    assert ": processors.batch.timeout: time: invalid duration" in mill.stderr()
    os.remove(mill.config_path)
    hup("SIGHUP: the configuration has mistakes, the running one stays", times=2)
    assert mill.stop()["accepted"] == 4


def test_sighup_storm_with_load(make_mill):
    mill = make_mill()
    for _ in range(50):
        mill.process.send_signal(signal.SIGHUP)
        assert otlp.send_http(mill, otlp.request()).status_code == 200
    assert mill.stop() == {"accepted": 50, "delivered": 50, "dropped": 0, "held": 0}


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_reading_a_configuration_without_end_can_be_stopped(tmp_path, sig):
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    process = subprocess.Popen(
        [BINARY, "--config", fifo],
        stderr=subprocess.DEVNULL,
        # a shell starts what runs in the background with this one ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        with open(fifo, "w", encoding="ascii"):  # it waits for text
            process.send_signal(signal.SIGHUP)
            assert process.poll() is None
            process.send_signal(sig)
            assert process.wait(60) == -sig
    finally:
        process.kill()


# ---- stops


@pytest.fixture
def hung_hop():
    """Accepts connections and never says a word."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen(64)
        yield f"127.0.0.1:{s.getsockname()[1]}"


def send_in_background(mill, request, timeout=30):
    outcome = []

    def send():
        try:
            outcome.append(otlp.send_grpc(mill, request, timeout=timeout))
        except grpc.RpcError as e:
            outcome.append(e.code())

    thread = threading.Thread(target=send)
    thread.start()
    return thread, outcome


def test_hung_next_hop_does_not_hang_the_stop(make_mill, hung_hop):
    mill = make_mill(
        lambda ports: forwarder(ports, hung_hop, {"timeout": "60s"}),
        {"service": {"drain_timeout": "1s"}, "receivers": {"otlp": {"ack_timeout": "60s"}}},
    )
    thread, outcome = send_in_background(mill, otlp.request(n_spans=3))
    wait_for("the request inside", lambda: mill.metric("otelcol_exporter_queue_size") > 0)
    start = time.monotonic()
    assert mill.stop() == {"accepted": 0, "delivered": 0, "dropped": 0, "held": 0}
    assert time.monotonic() - start < 30
    thread.join()
    assert outcome == [grpc.StatusCode.UNAVAILABLE], "nothing was lost: the client still has it"


def test_hung_next_hop_with_a_log(make_mill, hung_hop, tmp_path):
    """What is on disk is held, and the next process finds it."""
    mill = make_mill(
        lambda ports: forwarder(ports, hung_hop, {"timeout": "60s"}, str(tmp_path / "queue")),
        {"service": {"drain_timeout": "1s"}},
    )
    otlp.send_grpc(mill, otlp.request(n_spans=3))
    start = time.monotonic()
    assert mill.stop() == {"accepted": 3, "delivered": 0, "dropped": 0, "held": 3}
    assert time.monotonic() - start < 30
    mill.start()
    assert mill.stop() == {"accepted": 3, "delivered": 0, "dropped": 0, "held": 3}


def test_early_ack_that_cannot_be_kept_is_status_3(make_mill, next_hop):
    """ack: early promised what no log holds: it is said on the last line and by the status."""
    mill = make_mill(
        lambda ports: forwarder(ports, next_hop(start=False).target),
        {"service": {"drain_timeout": "1s"}, "receivers": {"otlp": {"ack": "early"}}},
    )
    otlp.send_grpc(mill, otlp.request(n_spans=5))
    assert mill.stop(expect=3) == {"accepted": 5, "delivered": 0, "dropped": 5, "held": 0}


def test_a_best_effort_exporter_holds_up_no_stop(make_mill, next_hop, tmp_path):
    def config(ports):
        out = forwarder(ports, next_hop().target)
        out["exporters"]["otlp/look"] = {
            "endpoint": next_hop(start=False).target,
            "tls": {"insecure": True},
            "best_effort": True,
        }
        out["service"]["pipelines"]["traces"]["exporters"] = ["otlp", "otlp/look"]
        return out

    mill = make_mill(config, {"service": {"drain_timeout": "50s"}})
    otlp.send_grpc(mill, otlp.request(n_spans=5))
    start = time.monotonic()
    assert mill.stop() == {"accepted": 5, "delivered": 5, "dropped": 0, "held": 0}
    assert time.monotonic() - start < 30


def test_closed_standard_descriptors_stay_closed(make_mill):
    """Started without stdin, stdout and stderr no socket or log gets their numbers."""
    mill = make_mill(start=False)
    script = f'exec "{BINARY}" --config "{mill.config_path}" 0<&- 1>&- 2>&-'
    process = subprocess.Popen(["/bin/sh", "-c", script], cwd=mill.tmp)
    try:
        wait_for("its port", lambda: opens(mill.ports["http"]))
        for fd in (0, 1, 2):
            assert os.readlink(f"/proc/{process.pid}/fd/{fd}") == "/dev/null"
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()


def test_idle_process_sleeps(make_mill):
    """At most 10 wake-ups a second over all threads, with every extension and a queue on disk."""
    mill = make_mill()

    def switches():
        total = 0
        for task in os.listdir(f"/proc/{mill.process.pid}/task"):
            with open(f"/proc/{mill.process.pid}/task/{task}/status", encoding="ascii") as f:
                # voluntary: not how often others were given its processor
                total += sum(int(line.split()[1]) for line in f if line.startswith("voluntary_ctxt"))
        return total

    def is_quiet():
        before = switches()
        time.sleep(3)
        return switches() - before <= 30

    otlp.send_grpc(mill, otlp.request())
    wait_for("blocks", lambda: mill.metric("spanmill_held_spans") == 0)
    assert is_quiet() or is_quiet(), "more than 30 wake-ups in three seconds, twice"


# ---- start


@pytest.fixture
def with_a_log(make_mill):
    """A stopped process that left 40,000 spans in its log."""
    mill = make_mill(
        overlay={"exporters": {"blocks": {"flush_on_shutdown": False, "max_block_age": "1h"}}}
    )
    big = otlp.request(n_traces=1000, n_spans=4)
    for _ in range(10):
        otlp.send_grpc(mill, big)
    assert mill.stop()["held"] == 40000
    return mill


def test_not_ready_before_the_log_is_replayed(with_a_log):
    """503 with the reason until everything is there; never 200 before."""
    mill = with_a_log
    mill.start(ready=False)
    answers = set()
    while 200 not in answers:
        try:
            for answer in (health(mill), requests.get(mill.url("query", "/ready"), timeout=30)):
                answers.add(answer.status_code)
                if answer.status_code == 200:
                    assert "Everything is ready" in mill.stderr()
                else:
                    assert answer.status_code == 503 and "starting" in answer.text
        except requests.ConnectionError:
            assert mill.process.poll() is None
    assert mill.stop() == {"accepted": 40000, "delivered": 0, "dropped": 0, "held": 40000}


def test_sigterm_while_starting(with_a_log):
    """It ends in good order, with what the log holds in the books; exit status 0."""
    mill = with_a_log
    mill.start(ready=False)
    wait_for("its first line", lambda: "Starting spanmill" in mill.stderr())
    assert mill.stop() in (
        {"accepted": 40000, "delivered": 0, "dropped": 0, "held": 40000},
        {"accepted": 0, "delivered": 0, "dropped": 0, "held": 0},  # before it looked
    )


# ---- health


def test_health_tells_of_a_store_that_cannot_be_written(make_mill):
    """503 with the reason while blocks cannot be written, 200 once they can; no span is lost."""
    mill = make_mill(overlay={"exporters": {"blocks": {"max_block_age": "100ms"}}})
    tenant = os.path.join(mill.data, "single-tenant")
    with open(tenant, "w", encoding="ascii"):
        pass  # a file where the folder of blocks belongs
    sent = otlp.request(n_spans=3)
    otlp.send_grpc(mill, sent)
    wait_for("health to tell", lambda: health(mill).status_code == 503)
    reason = health(mill).json()["reason"]
    assert reason.startswith("exporter blocks: ") and "single-tenant" in reason
    assert requests.get(mill.url("query", "/ready"), timeout=30).status_code == 503
    otlp.assert_same(tempo.get(mill, next(otlp.spans_of(sent)).trace_id), sent)
    os.remove(tenant)
    wait_for("health to be well", lambda: health(mill).status_code == 200, 40)
    assert mill.stop() == {"accepted": 3, "delivered": 3, "dropped": 0, "held": 0}


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 80 MiB; a log's segment takes 64 of them."""
    path = tmp_path / "small"
    path.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", str(path)], capture_output=True
    )
    if done.returncode != 0:
        pytest.skip("mounting needs root")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def fill(path, piece):
    """Append until nothing more fits."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        with pytest.raises(OSError, match="No space"):
            while True:
                os.write(fd, bytes(piece))
    finally:
        os.close(fd)


def test_health_tells_of_a_full_disk(make_mill, small_disk):
    """Full: clients are told to come again and health says why; with room again all is well."""
    filler = small_disk / "filler"
    fill(filler, 1 << 16)
    mill = make_mill(
        overlay={"extensions": {"trace_store": {"local": {"path": str(small_disk / "data")}}}},
        start=False,
    )
    os.truncate(filler, (80 << 20) - (2 << 20))  # room to start, not for long
    mill.start()
    big = otlp.request(n_spans=200, attributes=5, size=2000)

    def is_refused():
        return otlp.send_http(mill, big).status_code == 503

    wait_for("a full disk", is_refused, 30)
    fill(filler, 1 << 12)
    wait_for("a full disk again", is_refused)
    wait_for("health to tell", lambda: "disk full" in health(mill).json().get("reason", ""))
    assert health(mill).status_code == 503
    filler.unlink()
    wait_for("health to be well", lambda: health(mill).status_code == 200, 40)
    small = otlp.request()
    wait_for("room", lambda: otlp.send_http(mill, small).status_code == 200)
    assert mill.stop()["dropped"] == 0


def test_second_sigterm_balances(make_mill, hung_hop):
    """The line of a process that was ended at once balances too."""
    mill = make_mill(
        lambda ports: forwarder(ports, hung_hop, {"timeout": "60s"}),
        {"receivers": {"otlp": {"ack_timeout": "60s"}}, "service": {"drain_timeout": "50s"}},
    )
    thread, _ = send_in_background(mill, otlp.request(n_spans=3))
    wait_for("the request inside", lambda: mill.metric("otelcol_exporter_queue_size") > 0)
    mill.process.send_signal(signal.SIGTERM)
    wait_for("the listeners closed", lambda: not opens(mill.ports["http"]))
    start = time.monotonic()
    mill.process.send_signal(signal.SIGTERM)
    assert mill.wait_exit() == 3, "unsettled, and no log holds it"
    assert time.monotonic() - start < 30
    mill.process = None
    thread.join()
    balance_of(mill.stderr())
