"""A next hop in a process of its own, so that it can be frozen (SIGSTOP) and killed: writes the ids
of the spans of every request to a file before it answers.

As a program: hop_process.py PORT FILE [SECONDS per request]."""

import os
import signal
import subprocess
import sys
import time

from mill import free_port, opens, wait_for

ID_BYTES = 8


class HopProcess:
    """start, freeze, thaw, stop; span_counts() also of what earlier processes on the port took."""

    def __init__(self, tmp, port=None, pause=0.0):
        self.port = port or free_port()
        self.path = os.path.join(str(tmp), f"hop.{self.port}")
        self.pause = pause
        self.process = None

    @property
    def target(self):
        return f"127.0.0.1:{self.port}"

    def start(self):
        self.process = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), str(self.port), self.path, str(self.pause)]
        )
        wait_for("the next hop", lambda: opens(self.port), 30)
        return self

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def stop(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def span_counts(self):
        counts = {}
        if os.path.exists(self.path):
            with open(self.path, "rb") as f:
                ids = f.read()
            for i in range(0, len(ids) - ID_BYTES + 1, ID_BYTES):
                span_id = ids[i : i + ID_BYTES]
                counts[span_id] = counts.get(span_id, 0) + 1
        return counts


def serve(port, path, pause):
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service

    import otlp
    from nexthop import NextHop

    out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def take(request, context, hop):
        time.sleep(pause)
        os.write(out, b"".join(otlp.span_ids(request)))
        hop.calls.clear()
        hop.taken.clear()
        hop.metadata.clear()
        return service.ExportTraceServiceResponse()

    NextHop(take, port).start()
    signal.pause()


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
