"""A next hop that takes OTLP over gRPC and misbehaves when told to."""

import http.server
import socket
import threading
import time
from concurrent import futures

import cramjam
import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service

import otlp
from mill import free_port

CODINGS = {
    "gzip": cramjam.gzip.decompress,
    "zlib": cramjam.zlib.decompress,
    "deflate": cramjam.zlib.decompress,
    "zstd": cramjam.zstd.decompress,
    "snappy": cramjam.snappy.decompress_raw,
    "x-snappy-framed": cramjam.snappy.decompress,
    "lz4": cramjam.lz4.decompress,
}


class NextHop:
    """behave(request, context, hop) returns the response; what was answered OK is in taken, every
    call in calls."""

    def __init__(self, behave=None, port=None):
        self.port = port or free_port()
        self.behave = behave
        self.lock = threading.Lock()
        self.calls = []  # (monotonic time, request)
        self.taken = []  # requests answered OK
        self.others = {"metrics": [], "logs": []}  # the same of other signals
        self.metadata = []  # of every call, in the order of calls
        self.tenants = {}  # tenant -> {signal: requests answered OK}
        self.paths = []  # of HTTP
        self.server = None

    @property
    def target(self):
        return f"127.0.0.1:{self.port}"

    def start(self):
        self.server = grpc.server(
            futures.ThreadPoolExecutor(16),
            options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)],
        )
        handler = grpc.unary_unary_rpc_method_handler(
            self.export,
            request_deserializer=service.ExportTraceServiceRequest.FromString,
            response_serializer=service.ExportTraceServiceResponse.SerializeToString,
        )
        name, method = otlp.EXPORT[1:].split("/")
        self.server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(name, {method: handler}),)
            + tuple(self.other_service(s) for s in self.others)
        )
        assert self.server.add_insecure_port(self.target) == self.port
        self.server.start()
        return self

    def other_service(self, signal):
        request, response = otlp.messages_of(signal)

        def export(message, context):
            return self.export(message, context, signal)

        handler = grpc.unary_unary_rpc_method_handler(
            export,
            request_deserializer=request.FromString,
            response_serializer=response.SerializeToString,
        )
        name, method = otlp.export_path(signal)[1:].split("/")
        return grpc.method_handlers_generic_handler(name, {method: handler})

    def stop(self):
        if self.server:
            self.server.stop(0).wait()
            self.server = None

    def export(self, request, context, signal="traces"):
        metadata = dict(context.invocation_metadata())
        with self.lock:
            self.calls.append((time.monotonic(), request))
            self.metadata.append(metadata)
        response = (
            self.behave(request, context, self)
            if self.behave
            else otlp.messages_of(signal)[1]()
        )
        with self.lock:
            self.taken_of(signal).append(request)
            by_signal = self.tenants.setdefault(metadata.get("x-scope-orgid"), {})
            by_signal.setdefault(signal, []).append(request)
        return response

    def taken_of(self, signal):
        return self.taken if signal == "traces" else self.others[signal]

    def joined(self, signal):
        """Everything taken of a signal as one request."""
        out = otlp.messages_of(signal)[0]()
        with self.lock:
            for req in self.taken_of(signal):
                out.MergeFrom(req)
        return out

    def span_counts(self):
        """How often each span id was taken."""
        counts = {}
        with self.lock:
            for req in self.taken:
                for span_id in otlp.span_ids(req):
                    counts[span_id] = counts.get(span_id, 0) + 1
        return counts

    def message(self, trace_id=None):
        """Everything taken as one request."""
        out = service.ExportTraceServiceRequest()
        with self.lock:
            for req in self.taken:
                out.resource_spans.extend(req.resource_spans)
        return out


class HttpHop(NextHop):
    """The same over HTTP. behave(request, headers, hop) returns None or a response for 200, else
    (status, headers, body); requests it understands are protobuf and JSON in any coding that
    Python knows."""

    tls = None  # an ssl.SSLContext

    @property
    def target(self):
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}"

    def start(self):
        hop = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                super().setup()
                hop.connections.append(self.connection)

            def do_POST(self):
                hop.answer(self)

            def log_message(self, *args):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, request, client_address):
                pass

        self.connections = []
        self.server = Server(("127.0.0.1", self.port), Handler)
        if self.tls is not None:
            self.server.socket = self.tls.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def stop(self):
        if self.server:
            self.server.shutdown()
            self.server.server_close()
            for c in self.connections:
                try:
                    c.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
            self.server = None

    def answer(self, http_request):
        headers = http_request.headers
        body = http_request.rfile.read(int(headers["Content-Length"]))
        coding = headers.get("Content-Encoding")
        if coding:
            body = bytes(CODINGS[coding](body))
        is_json = headers["Content-Type"] == "application/json"
        request, response = (m() for m in self.message_types(http_request.path))
        if is_json:
            otlp.from_json(body, request)
        else:
            request.ParseFromString(body)
        with self.lock:
            self.calls.append((time.monotonic(), request))
            self.metadata.append({k.lower(): v for k, v in headers.items()})
            self.paths.append(http_request.path)
        said = self.behave(request, headers, self) if self.behave else None
        status, extra, out = said if isinstance(said, tuple) else (200, {}, said or response)
        if not isinstance(out, bytes):
            out = otlp.to_json(out).encode() if is_json else out.SerializeToString()
        # Counted before the answer: when the client knows, the test may look.
        if status == 200:
            with self.lock:
                self.taken_of(self.signal_of(http_request.path)).append(request)
        http_request.send_response(status)
        http_request.send_header("Content-Type", headers["Content-Type"])
        http_request.send_header("Content-Length", str(len(out)))
        for k, v in extra.items():
            http_request.send_header(k, v)
        http_request.end_headers()
        http_request.wfile.write(out)

    def message_types(self, path):
        return otlp.messages_of(self.signal_of(path))

    def signal_of(self, path):
        return {"/v1/traces": "traces", "/v1/metrics": "metrics", "/v1/logs": "logs"}[path]


def refuse(context, code, message, retry_after=None):
    """Answer with a status, with RetryInfo when retry_after (seconds) is given."""
    if retry_after is None:
        context.abort(code, message)
    info = error_details_pb2.RetryInfo(
        retry_delay=duration_pb2.Duration(
            seconds=int(retry_after), nanos=int(retry_after % 1 * 1e9)
        )
    )
    detail = any_pb2.Any()
    detail.Pack(info)
    rich = status_pb2.Status(code=code.value[0], message=message, details=[detail])
    context.set_trailing_metadata((("grpc-status-details-bin", rich.SerializeToString()),))
    context.abort(code, message)
