"""Asks names that nobody asked before and connects to each answer at once. See README.md."""

import socket
import struct
import sys
import threading

from report import done, failed, usage


def query(number, name):
    labels = b"".join(bytes([len(label)]) + label for label in name.encode().split(b"."))
    return struct.pack("!HHHHHH", number & 0xFFFF, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", 1, 1)


def work(first, last, resolver, port, counts, lock):
    mine = {"connected": 0, "refused": 0, "failed": 0, "unresolved": 0}
    errors = []
    family = socket.AF_INET6 if ":" in resolver else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as dns:
        dns.settimeout(3)
        dns.connect((resolver, 53))
        for n in range(first, last):
            try:
                dns.send(query(n, f"n{n}.fresh.test"))
                answer = dns.recv(512)
                # One record: the address is the last four octets.
                address = socket.inet_ntoa(answer[-4:])
                if answer[7] != 1:
                    raise OSError("no record")
            except OSError as error:
                mine["unresolved"] += 1
                errors.append(str(error))
                continue
            try:
                with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as s:
                    # A reset at the end leaves no port in TIME_WAIT.
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    s.connect((address, port))
                    mine["connected"] += 1
            except PermissionError:
                mine["refused"] += 1
            except OSError as error:
                mine["failed"] += 1
                errors.append(str(error))
    with lock:
        for key, value in mine.items():
            counts[key] += value
        counts["errors"] = (counts["errors"] + errors)[:5]


def main(count, resolver, port, threads):
    counts = {"connected": 0, "refused": 0, "failed": 0, "unresolved": 0, "errors": []}
    lock = threading.Lock()
    edges = [count * n // threads for n in range(threads + 1)]
    workers = [
        threading.Thread(target=work, args=(first, last, resolver, port, counts, lock))
        for first, last in zip(edges, edges[1:])
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    done(counts["connected"] == count, **counts)


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        usage("fresh_names.py COUNT RESOLVER PORT [THREADS]")
    try:
        main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]) if len(sys.argv) == 5 else 2)
    except Exception as error:
        failed(error)
