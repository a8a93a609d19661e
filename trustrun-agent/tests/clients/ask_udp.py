"""Asks RESOLVER for NAME on one kind of socket, and connects to the first address of the answer. See README.md.

`server` is whom the answer came from, as the program saw it.
"""

import ipaddress
import socket
import struct
import sys

from report import done, failed, usage

NUMBER = 0x1234


def query(name, kind):
    labels = b"".join(bytes([len(label)]) + label for label in name.encode().split(b"."))
    return struct.pack("!HHHHHH", NUMBER, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)


def first_address(answer, question):
    """The data of the first record, whose owner is a pointer."""
    if struct.unpack_from("!H", answer)[0] != NUMBER or struct.unpack_from("!H", answer, 6)[0] == 0:
        raise OSError("an answer without records")
    at = len(question) + 2 + 8
    size = struct.unpack_from("!H", answer, at)[0]
    return str(ipaddress.ip_address(answer[at + 2 : at + 2 + size]))


def main(kind, resolver, name, port, record):
    question = query(name, 28 if record == "AAAA" else 1)
    family = socket.AF_INET6 if ":" in resolver else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        s.settimeout(5)
        if kind == "connected":
            s.connect((resolver, 53))
            s.send(question)
        else:
            s.sendto(question, (resolver, 53))
        answer, server = s.recvfrom(4096)
    address = first_address(answer, question)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.settimeout(5)
        s.connect((address, port))
    done(True, server=server[0], address=address)


if __name__ == "__main__":
    if len(sys.argv) not in (5, 6) or sys.argv[1] not in ("connected", "unconnected"):
        usage("ask_udp.py connected|unconnected RESOLVER NAME PORT [AAAA]")
    try:
        main(*sys.argv[1:4], int(sys.argv[4]), "".join(sys.argv[5:]))
    except OSError as error:
        failed(error)
