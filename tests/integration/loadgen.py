"""spanmill gen as the load: a C client whose clock a busy machine does not bend, with a ledger of
what was acknowledged."""

import collections
import json
import os
import signal
import subprocess

from mill import BINARY


class Gen:
    """One run of `spanmill gen --retry` against a port; finish() reads its report and its ledger."""

    def __init__(self, tmp, port, name, *flags, protocol="otlp-grpc", deadline="5s", rate=50):
        self.name, self.deadline = name, deadline
        self.ledger = os.path.join(str(tmp), f"ledger.{name}")
        self.args = [
            *(BINARY, "gen", "--endpoint", f"127.0.0.1:{port}", "--protocol", protocol),
            *("--deadline", deadline, "--rate", str(rate), "--ledger", self.ledger),
            *("--duration", "86400s", "--retry", "--json", "--quiet", *flags),
        ]
        self.process = None
        self.report = None

    def start(self):
        self.process = subprocess.Popen(
            self.args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        return self

    def finish(self, timeout=60):
        """End the run in good order (what is owed is still sent again) and read its report."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        out, err = self.process.communicate(timeout=timeout)
        assert self.process.returncode in (0, 3), f"gen {self.name}: {err}"
        self.report = json.loads(out)
        return self.report

    def kill(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.communicate()

    def acked(self):
        """{trace id: set of span ids}, in bytes, of what was acknowledged."""
        out = collections.defaultdict(set)
        if os.path.exists(self.ledger):
            with open(self.ledger, encoding="ascii") as f:
                for line in f:
                    if line.endswith("\n"):
                        trace_id, span_id = line.split()
                        out[bytes.fromhex(trace_id)].add(bytes.fromhex(span_id))
        return dict(out)

    def acked_spans(self):
        return {span_id for spans in self.acked().values() for span_id in spans}
