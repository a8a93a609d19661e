"""Asks a proxy for a destination, in pieces if wanted, and makes one HTTP request through it. See README.md."""

import argparse
import socket
import struct
import time

from report import done, failed


def exactly(s, length):
    data = b""
    while len(data) < length:
        part = s.recv(length - len(data))
        if not part:
            raise ConnectionError("the proxy ended the connection")
        data += part
    return data


def head(s):
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        data += exactly(s, 1)
    return data


def main(options):
    def send(s, data):
        step = options.every or len(data)
        for at in range(0, len(data), step):
            s.sendall(data[at : at + step])
            if options.every:
                time.sleep(0.005)

    host, port = options.host, options.host_port
    name = host.encode()
    get = b"GET / HTTP/1.0\r\nHost: " + name + b"\r\n\r\n"
    with socket.create_connection((options.proxy, options.proxy_port), timeout=5) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if options.kind == "connect":
            send(s, b"CONNECT %s:%d HTTP/1.1\r\nHost: %s:%d\r\n\r\n" % (name, port, name, port))
            status = head(s)
            if b" 200 " not in status.splitlines()[0]:
                raise ConnectionError(status.splitlines()[0].decode())
        elif options.kind == "absolute":
            get = b"GET http://%s:%d/ HTTP/1.0\r\nHost: %s\r\n\r\n" % (name, port, name)
        elif options.kind == "socks5":
            send(s, b"\5\1\0")
            exactly(s, 2)
            send(s, b"\5\1\0\3" + bytes([len(name)]) + name + struct.pack("!H", port))
            if exactly(s, 10)[1]:
                raise ConnectionError("the proxy could not connect")
        elif options.kind == "socks4a":
            send(s, b"\4\1" + struct.pack("!H", port) + b"\0\0\0\1user\0" + name + b"\0")
            if exactly(s, 8)[1] != 90:
                raise ConnectionError("the proxy could not connect")
        send(s, get)
        answer = s.recv(4096)
    done(answer.startswith(b"HTTP/1.1 200"), answer=answer[:15].decode(errors="replace"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["connect", "absolute", "socks5", "socks4a"])
    parser.add_argument("proxy")
    parser.add_argument("proxy_port", type=int)
    parser.add_argument("host")
    parser.add_argument("host_port", type=int)
    parser.add_argument("--every", type=int, default=0)
    arguments = parser.parse_args()
    try:
        main(arguments)
    except Exception as error:
        failed(error, kind=arguments.kind)
