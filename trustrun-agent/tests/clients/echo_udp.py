"""Sends a datagram of BYTES bytes on one kind of socket, and waits for its echo. See README.md."""

import socket
import sys

from report import done, failed, usage


def main(kind, address, port, size):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        s.settimeout(5)
        if kind == "connected":
            s.connect((address, port))
            s.send(bytes(size))
        else:
            s.sendto(bytes(size), (address, port))
        text, server = s.recvfrom(65536)
    done(len(text) == size, server=server[0])


if __name__ == "__main__":
    if len(sys.argv) != 5 or sys.argv[1] not in ("connected", "unconnected"):
        usage("echo_udp.py connected|unconnected ADDRESS PORT BYTES")
    try:
        main(*sys.argv[1:3], *map(int, sys.argv[3:]))
    except OSError as error:
        failed(error)
