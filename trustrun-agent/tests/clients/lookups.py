"""Sends DNS queries as they are in a file, takes the answers, and tries the addresses. See README.md."""

import socket
import struct
import sys

from report import done, failed, usage


def let_through(address, port):
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        try:
            s.connect((address, port))
        except PermissionError:
            return False
        except ConnectionRefusedError:
            pass
        return True


def look_up(query, answers, server):
    """Whether the query went out; then so many answers came."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as dns:
        dns.settimeout(10)
        try:
            dns.sendto(query, (server, 53))
        except PermissionError:
            return False
        for _ in range(answers):
            dns.recv(4096)
        return True


def main(path, server, port):
    results = []
    with open(path) as lines:
        for line in lines:
            query, answers, addresses = line.rstrip("\n").split(" ")
            if look_up(bytes.fromhex(query), int(answers), server):
                results.append("".join("o" if let_through(a, port) else "x" for a in addresses.split(",")))
            else:
                results.append("R")
    done(True, results=results)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        usage("lookups.py FILE SERVER PORT")
    try:
        main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    except Exception as error:
        failed(error)
