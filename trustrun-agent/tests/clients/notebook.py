"""A Jupyter-like server, its kernel, and a browser-like client, all on loopback. See README.md.

The server listens on 127.0.0.1 and starts a kernel as a process of its own, which connects back over TCP (as Jupyter's
kernels do). The browser keeps a connection for pages, upgrades another to a WebSocket, and sends a cell; it goes to the
kernel, which fetches the URL (if there is one) and answers the same way back.
"""

import base64
import hashlib
import os
import socket
import subprocess
import sys
import threading
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import urlopen

from report import done, failed

MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3


def frame(text, masked):
    """One short text frame (RFC 6455 section 5.2)."""
    data = text.encode()[:125]
    if not masked:
        return bytes([0x81, len(data)]) + data
    key = os.urandom(4)
    return bytes([0x81, 0x80 | len(data)]) + key + bytes(b ^ key[n % 4] for n, b in enumerate(data))


def read_frame(stream):
    length = stream.read(2)[1]
    key = stream.read(4) if length & 0x80 else bytes(4)
    return bytes(b ^ key[n % 4] for n, b in enumerate(stream.read(length & 0x7F))).decode()


class Page(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    kernel = None

    def do_GET(self):
        if self.headers.get("Upgrade", "").lower() == "websocket":
            return self.channel()
        body = b"<html>a notebook</html>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def channel(self):
        key = self.headers["Sec-WebSocket-Key"].encode()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key + MAGIC).digest()).decode())
        self.end_headers()
        Page.kernel.sendall(read_frame(self.rfile).encode() + b"\n")
        self.wfile.write(frame(Page.kernel.makefile().readline().strip(), masked=False))
        self.close_connection = True

    def log_message(self, *_):
        pass


def kernel(port):
    """The process that runs cells: it answers `ok`, or what went wrong."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as s:
        url = s.makefile().readline().strip()
        try:
            answer = "ok" if url == "-" else f"ok {urlopen(url, timeout=10).status}"
        except Exception as error:
            answer = f"failed {getattr(error, 'reason', error)}"
        s.sendall(answer.encode()[:120] + b"\n")


def browser(port, url):
    pages = HTTPConnection("127.0.0.1", port, timeout=10)
    for path in ("/", "/static/main.js", "/api/kernels"):
        pages.request("GET", path)
        if pages.getresponse().read() != b"<html>a notebook</html>":
            raise OSError("another page")
    with socket.create_connection(("127.0.0.1", port), timeout=10) as s:
        key = base64.b64encode(os.urandom(16)).decode()
        s.sendall(
            f"GET /api/channels HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        stream = s.makefile("rb")
        if b" 101 " not in stream.readline():
            raise OSError("no upgrade")
        while stream.readline().strip():
            pass
        s.sendall(frame(url, masked=True))
        return read_frame(stream)


def main(url):
    with socket.create_server(("127.0.0.1", 0)) as door:
        line = [sys.executable, __file__, "--kernel", str(door.getsockname()[1])]
        process = subprocess.Popen(line)
        door.settimeout(10)
        Page.kernel, _ = door.accept()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    answer = browser(server.server_port, url)
    server.shutdown()
    process.wait(10)
    done(answer.startswith("ok"), answer=answer)


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "--kernel":
        kernel(int(sys.argv[2]))
        sys.exit(0)
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else "-")
    except Exception as error:
        failed(error)
