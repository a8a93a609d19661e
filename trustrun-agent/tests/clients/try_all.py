"""Tries every destination of FILE (lines of `tcp|udp|udp-connected ADDRESS PORT`), in order. See README.md.

`results` holds, for each line, the name of the error, or null. With --wait it stays for half a minute after the last.
"""

import errno
import socket
import struct
import sys
import time

from report import done, failed, usage


def attempt(kind, address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    if kind == "tcp":
        with socket.socket(family, socket.SOCK_STREAM) as s:
            s.settimeout(5)
            # A reset at the end leaves no port in TIME_WAIT.
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            s.connect((address, port))
    else:
        with socket.socket(family, socket.SOCK_DGRAM) as s:
            if kind == "udp-connected":
                s.connect((address, port))
                s.send(b"x")
            else:
                s.sendto(b"x", (address, port))


def main(file, wait):
    results = []
    with open(file, encoding="ascii") as lines:
        for line in lines:
            kind, address, port = line.split()
            try:
                attempt(kind, address, int(port))
                results.append(None)
            except OSError as error:
                results.append(errno.errorcode.get(error.errno or 0, str(error)))
    if wait:
        time.sleep(30)
    done(True, results=results)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        usage("try_all.py FILE [--wait]")
    try:
        main(sys.argv[1], len(sys.argv) == 3)
    except Exception as error:
        failed(error)
