"""Begins COUNT ClientHellos at once and ends none, then does one whole handshake. See README.md."""

import socket
import ssl
import sys

from report import done, failed, usage

# A record of 512 octets that holds the beginning of a ClientHello, of which three more octets follow.
BEGINNING = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"


def main(count, host, port):
    address = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)[0][4]
    begun, refused = [], 0
    for _ in range(count):
        s = socket.create_connection(address, timeout=10)
        s.sendall(BEGINNING)
        begun.append(s)
    for s in begun:
        # One that was refused has been destroyed, or is about to be; a gathered one waits.
        s.settimeout(0.02)
        try:
            s.recv(1)
        except socket.timeout:
            continue
        except OSError:
            refused += 1
    for s in begun:
        s.close()
    context = ssl.create_default_context()
    with socket.create_connection(address, timeout=10) as s:
        with context.wrap_socket(s, server_hostname=host) as tls:
            tls.sendall(f"GET / HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
            after = "ok" if tls.recv(12).startswith(b"HTTP/1") else "no"
    done(True, refused=refused, after=after)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        usage("flood_hellos.py COUNT HOST PORT")
    try:
        main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
    except Exception as error:
        failed(error)
