"""Clients that keep a ledger: which spans were acknowledged, which are still owed an answer."""

import threading
import time

import grpc
import requests

import otlp
import tempo
from mill import PATIENCE


class Client(threading.Thread):
    """Sends small requests one after another until stopped. A request without a success is sent
    again, the same bytes, as an SDK does, also to the process after a restart; so a span may be
    sent often and must come back once."""

    def __init__(self, mill, by_http=False, pause=0.0, n_spans=4, deadline=15.0, tenant=None):
        super().__init__(daemon=True)
        self.mill, self.by_http, self.pause, self.n_spans = mill, by_http, pause, n_spans
        self.deadline, self.tenant = deadline, tenant
        self.acked = {}  # trace id -> request
        self.owed = None  # the request that has no answer yet
        self.latencies = []  # of every attempt that got an answer, seconds
        self.refused = 0  # answers that said: later
        self.late = 0  # attempts without an answer within the deadline
        self.again = []  # (when, trace id) of every attempt that was no success
        self.wrong = []  # answers that a well-behaved client must not get
        self.stopping = threading.Event()
        self.running = threading.Event()
        self.running.set()

    def run(self):
        channel = None if self.by_http else otlp.Grpc(self.mill.ports["grpc"])
        session = requests.Session()
        while not self.stopping.is_set():
            if not self.running.is_set():
                self.running.wait(0.05)
                continue
            if self.owed is None:
                self.owed = otlp.request(n_spans=self.n_spans)
            start = time.monotonic()
            took = self.attempt(channel, session)
            if took is not None:
                self.latencies.append(time.monotonic() - start)
            if took:
                self.acked[next(otlp.spans_of(self.owed)).trace_id] = self.owed
                self.owed = None
            else:
                self.again.append((time.monotonic(), next(otlp.spans_of(self.owed)).trace_id))
            self.stopping.wait(self.pause if took else 0.02)
        if channel:
            channel.close()

    def attempt(self, channel, session):
        """True: acknowledged; False: told to come again; None: no answer."""
        return self.by_post(session) if self.by_http else self.by_call(channel)

    def by_call(self, channel):
        try:
            response = channel.call(self.owed, timeout=self.deadline, tenant=self.tenant)
        except grpc.RpcError as e:
            if e.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
                self.late += 1
                return None
            if e.code() != grpc.StatusCode.UNAVAILABLE:
                self.wrong.append(f"{e.code()} {e.details()}")
                return None
            # a status the server made has its trailing metadata; a broken connection has none
            answered = any(k == "grpc-status-details-bin" for k, _ in e.trailing_metadata() or ())
            self.refused += answered
            return False if answered else None
        if response.partial_success.rejected_spans:
            self.wrong.append(str(response.partial_success))
        return True

    def by_post(self, session):
        headers = {
            "Content-Type": otlp.PROTOBUF,
            **({"X-Scope-OrgID": self.tenant} if self.tenant else {}),
        }
        try:
            answer = session.post(
                self.mill.url("http", "/v1/traces"),
                data=self.owed.SerializeToString(),
                timeout=self.deadline,
                headers=headers,
            )
        except requests.Timeout:
            self.late += 1
            return None
        except requests.RequestException:
            return None
        if answer.status_code in (429, 503):
            self.refused += 1
            if "Retry-After" not in answer.headers:
                self.wrong.append(f"{answer.status_code} without Retry-After")
            return False
        if answer.status_code != 200:
            self.wrong.append(f"{answer.status_code} {answer.text}")
            return None
        return True

    def finish(self, timeout=PATIENCE):
        """Let the request under way get its success, then stop."""
        timeout = max(timeout, PATIENCE)
        deadline = time.monotonic() + timeout
        self.n_before = len(self.acked)
        while self.is_alive() and len(self.acked) == self.n_before and time.monotonic() < deadline:
            time.sleep(0.01)
        self.halt()
        assert len(self.acked) > self.n_before, (
            f"no success within {timeout} s; wrong answers: {self.wrong[:3]}"
        )

    def halt(self):
        self.stopping.set()
        self.running.set()
        self.join(PATIENCE)


def check(mill, acked, tenant=None, look_up=tempo.get):
    """Every acknowledged span is returned by query exactly once, whole. `look_up`:
    tempo.settled where an answer may say that it is not all."""
    problems = []
    for trace_id, sent in acked.items():
        got = look_up(mill, trace_id, tenant=tenant)
        if got is None:
            problems.append(f"{trace_id.hex()}: acknowledged and not found")
            continue
        have, want = sorted(otlp.span_ids(got)), sorted(otlp.span_ids(sent))
        if have != want:
            problems.append(
                f"{trace_id.hex()}: {len(want)} spans acknowledged, {len(have)} returned, "
                f"{len(have) - len(set(have))} of them twice"
            )
    assert not problems, f"{len(problems)} of {len(acked)} traces:\n" + "\n".join(problems[:20])
