"""An HTTP proxy in front of a real server that misbehaves when told to.

    with FaultProxy(s3.port) as proxy:
        proxy.behave = lambda request: "503" if request.method == "PUT" else None

behave(request) is asked for each request and returns what shall happen:
    None              pass on
    "503"             503 SlowDown, the server sees nothing
    "cut"             the connection ends before the server sees anything
    "half"            the server does it, half of the answer's body comes, then the connection ends
    "swallow"         the server does it, no answer comes: the connection ends
    a number          pass on after so many seconds
    (status, body)    this instead of the server's answer, which did it all the same
Paths, headers and bodies pass untouched, so that signatures hold.

arriving(request) is called right before the server gets a request, done(request, status) when it has
answered (None: it may have done it). They may block.
"""

import collections
import http.client
import socketserver
import threading
import time

SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"

Request = collections.namedtuple("Request", "method path headers body")


class Connection(socketserver.StreamRequestHandler):
    """One connection of the client: requests one after another until it ends."""

    disable_nagle_algorithm = True

    def setup(self):
        super().setup()
        self.upstream = None

    def handle(self):
        while (request := self.read_request()) is not None:
            if not self.answer(request):
                break

    def finish(self):
        if self.upstream:
            self.upstream.close()
        super().finish()

    def read_request(self):
        try:
            line = self.rfile.readline().split()
            if len(line) != 3:
                return None
            headers = []
            while (text := self.rfile.readline().rstrip(b"\r\n")) != b"":
                name, value = text.split(b":", 1)
                headers.append((name.decode(), value.strip().decode("latin-1")))
            size = int(dict((n.lower(), v) for n, v in headers).get("content-length", 0))
            body = self.rfile.read(size)
        except (OSError, ValueError):
            return None
        return Request(line[0].decode(), line[1].decode(), headers, body)

    def answer(self, request):
        """False when the connection is to be closed."""
        proxy = self.server.proxy
        fault = proxy.decide(request)
        if fault == "cut":
            return False
        if fault == "503":
            return self.send(request, 503, [("Content-Type", "application/xml")], SLOW_DOWN)
        if isinstance(fault, (int, float)):
            time.sleep(fault)
        if proxy.arriving:
            proxy.arriving(request)
        try:
            status, headers, body = self.forward(request)
        except (OSError, http.client.HTTPException):
            proxy.tell(request, None)
            return False  # the server is away
        proxy.tell(request, status)
        if fault == "swallow":
            return False
        if isinstance(fault, tuple):
            return self.send(request, fault[0], [], fault[1])
        if fault == "half" and len(body) > 1:
            self.send(request, status, headers, body, len(body) // 2)
            return False
        return self.send(request, status, headers, body)

    def forward(self, request):
        if self.upstream is None:
            self.upstream = http.client.HTTPConnection("127.0.0.1", self.server.proxy.target, timeout=30)
        up = self.upstream
        try:
            up.putrequest(request.method, request.path, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers:
                up.putheader(name, value)
            up.endheaders(request.body)
            answer = up.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException):
            up.close()
            self.upstream = None
            raise
        headers = [
            (n, v)
            for n, v in answer.getheaders()
            if n.lower() not in ("transfer-encoding", "connection")
            and (request.method == "HEAD" or n.lower() != "content-length")
        ]
        return answer.status, headers, body

    def send(self, request, status, headers, body, only=None):
        out = [f"HTTP/1.1 {status} {http.client.responses.get(status, 'X')}\r\n"]
        out += [f"{n}: {v}\r\n" for n, v in headers]
        if request.method != "HEAD":
            out.append(f"Content-Length: {len(body)}\r\n")
        try:
            self.wfile.write("".join(out).encode("latin-1") + b"\r\n" + body[:only])
            return True
        except OSError:
            return False


class Listener(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64


class FaultProxy:
    def __init__(self, target):
        self.target = target
        self.behave = self.arriving = self.done = None
        self.lock = threading.Lock()
        self.seen = collections.Counter()  # what happened, by fault
        self.server = Listener(("127.0.0.1", 0), Connection)
        self.server.proxy = self
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.port}"

    def decide(self, request):
        with self.lock:
            fault = self.behave(request) if self.behave else None
            kind = "late" if isinstance(fault, (int, float)) else fault
            self.seen[kind if isinstance(kind, (str, type(None))) else "forged"] += 1
        return fault

    def tell(self, request, status):
        if self.done:
            self.done(request, status)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
