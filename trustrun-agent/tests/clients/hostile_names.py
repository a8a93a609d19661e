"""Asks each NAME, takes whatever comes, and tries to reach TARGET after it. See README.md.

Asked twice: on a socket that is connected to the resolver (as glibc and c-ares do), and on one that is not (as musl
does). `reached` lists the names after whose answers a connection to TARGET was let through; `heard` counts datagrams.
"""

import errno
import select
import socket
import struct
import sys

from report import done, failed, usage


def query(number, name):
    labels = b"".join(bytes([len(label)]) + label for label in name.encode().split(b"."))
    return struct.pack("!HHHHHH", number, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", 1, 1)


def ask(resolver, number, name, connected):
    heard = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        if connected:
            s.connect((resolver, 53))
            s.send(query(number, name))
        else:
            s.sendto(query(number, name), (resolver, 53))
        while select.select([s], [], [], 0.05)[0]:
            s.recvfrom(4096)
            heard += 1
    return heard


def let_through(target, port):
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as s:
        s.settimeout(5)
        code = s.connect_ex((target, port))
    if code not in (0, errno.EPERM):
        raise OSError(code, "connect")
    return code == 0


def main(resolver, target, port, names):
    heard, reached = {}, []
    for number, name in enumerate(names):
        heard[name] = 0
        for connected in (True, False):
            heard[name] += ask(resolver, 4000 + 2 * number + connected, name, connected)
            if let_through(target, port) and name not in reached:
                reached.append(name)
    done(not reached, reached=reached, heard=heard)


if __name__ == "__main__":
    if len(sys.argv) < 5:
        usage("hostile_names.py RESOLVER TARGET PORT NAME...")
    try:
        main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:])
    except Exception as error:
        failed(error)
