"""Asks nN.fresh.test for N below COUNT, many at a time, then tries the first and the last of them. See README.md."""

import socket
import struct
import sys

from report import done, failed, usage

AT_ONCE = 64


def query(number):
    name = b"".join(bytes([len(label)]) + label for label in f"n{number}.fresh.test".encode().split(b"."))
    return struct.pack("!HHHHHH", number & 0xFFFF, 0x0100, 1, 0, 0, 0) + name + b"\0" + struct.pack("!HH", 1, 1)


def through(number, port):
    address = socket.inet_ntoa(struct.pack("!I", 0x64400000 + number))
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as s:
        try:
            s.connect((address, port))
        except PermissionError:
            return 0
        except ConnectionRefusedError:
            pass
        return 1


def main(count, resolver, port):
    answered = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as dns:
        dns.settimeout(10)
        dns.connect((resolver, 53))
        for first in range(0, count, AT_ONCE):
            some = range(first, min(first + AT_ONCE, count))
            for number in some:
                dns.send(query(number))
            for _ in some:
                answered += dns.recv(512)[7]
    first = sum(through(n, port) for n in range(100))
    last = sum(through(n, port) for n in range(count - 100, count))
    done(True, answered=answered, first_again=first, last=last)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        usage("flood_names.py COUNT RESOLVER PORT")
    try:
        main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
    except Exception as error:
        failed(error)
