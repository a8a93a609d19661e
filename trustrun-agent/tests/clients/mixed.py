"""Mixed traffic at full speed for SECONDS: see README.md. Some of it is allowed and must work, some must be refused."""

import errno
import socket
import ssl
import struct
import sys
import threading
import time

from report import done, failed, usage

RESOLVER = "203.0.113.53"
ALLOWED = "203.0.113.10"
EVIL = "203.0.113.66"
FRESH = 500


def query(number, name):
    labels = b"".join(bytes([len(label)]) + label for label in name.encode().split(b"."))
    return struct.pack("!HHHHHH", number & 0xFFFF, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", 1, 1)


def fresh(n):
    """A name of many, and a connection to its address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as dns:
        dns.settimeout(20)
        dns.connect((RESOLVER, 53))
        asked = query(n, f"n{n % FRESH}.fresh.test")
        dns.send(asked)
        # As resolvers do: an answer to somebody else's question, who had this port a moment ago, is none.
        while not (answer := dns.recv(512)).startswith(asked[:2]) or asked[12:] not in answer:
            pass
        address = socket.inet_ntoa(answer[-4:])
    with socket.create_connection((address, 9), timeout=20) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.send(b"x")


def https(_):
    address = socket.getaddrinfo("api.allowed.test", 443, socket.AF_INET, socket.SOCK_STREAM)[0][4]
    with socket.create_connection(address, timeout=20) as s:
        with TLS.wrap_socket(s, server_hostname="api.allowed.test") as tls:
            tls.sendall(b"GET / HTTP/1.0\r\nHost: api.allowed.test\r\n\r\n")
            while tls.recv(4096):
                pass


def udp(n):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(20)
        s.sendto(b"%d" % n, (ALLOWED, 7))
        s.recv(64)


def refused_tcp(_):
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as s:
        s.connect((EVIL, 9))


def refused_udp(_):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.sendto(b"x", (EVIL, 9999))


def refused_name(n):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.sendto(query(n, f"secret{n % FRESH}.evil.test"), (RESOLVER, 53))


def work(end, steps, counts, wrong):
    n = 0
    while time.monotonic() < end and len(wrong) < 5:
        n += 1
        for step in steps:
            try:
                step(n)
                felt = "done"
            except PermissionError:
                felt = "EPERM"
            except OSError as error:
                felt = f"{errno.errorcode.get(error.errno or 0)} {error}"
            wanted = "EPERM" if step.__name__.startswith("refused") else "done"
            counts[step.__name__] = counts.get(step.__name__, 0) + 1
            if felt != wanted:
                wrong.append(f"{step.__name__}: {felt}")


def main(seconds, kinds):
    steps = [fresh, https, udp] + ([refused_tcp, refused_udp, refused_name] if kinds == "all" else [])
    counts, wrong = {}, []
    end = time.monotonic() + seconds
    threads = [threading.Thread(target=work, args=(end, steps, counts, wrong)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done(not wrong, wrong=wrong, counts=counts)


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[2] not in ("all", "allowed"):
        usage("mixed.py SECONDS all|allowed")
    try:
        TLS = ssl.create_default_context()
        main(float(sys.argv[1]), sys.argv[2])
    except Exception as error:
        failed(error)
