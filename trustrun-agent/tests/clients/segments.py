"""Sends the streams of a file, segment by segment, each after the one before was taken. See README.md."""

import socket
import sys

from report import done, failed, usage


def send(address, port, segments):
    """`o` if all of it went through, else how many did."""
    with socket.create_connection((address, port), timeout=10) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        s.settimeout(5)
        for number, segment in enumerate(segments):
            try:
                s.sendall(segment)
                if s.recv(1) != b"+":
                    return str(number)
            except (socket.timeout, OSError):
                return str(number)
    return "o"


def main(path, names):
    # So that the names are bound to their addresses.
    for name in names:
        socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)
    results = []
    with open(path) as lines:
        for line in lines:
            address, port, segments = line.rstrip("\n").split(" ")
            results.append(send(address, int(port), [bytes.fromhex(s) for s in segments.split(",")]))
    done(True, results=results)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        usage("segments.py FILE [NAME...]")
    try:
        main(sys.argv[1], sys.argv[2:])
    except Exception as error:
        failed(error)
