"""Resolves NAME with the C library and connects to every address of the answer. See README.md.

--after SECONDS   so long after the answer
--expect N        the answer must have N addresses
"""

import argparse
import socket
import time

from report import done, failed


def main(options):
    found = socket.getaddrinfo(options.name, options.port, type=socket.SOCK_STREAM)
    at = time.monotonic() + options.after
    while time.monotonic() < at:
        time.sleep(0.05)
    errors = {}
    for family, kind, protocol, _, address in found:
        try:
            with socket.socket(family, kind, protocol) as s:
                s.settimeout(5)
                s.connect(address)
        except OSError as error:
            errors[address[0]] = error
    if errors:
        failed(next(iter(errors.values())), addresses=len(found), failures=len(errors))
    done(options.expect in (0, len(found)), addresses=len(found))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("port", type=int)
    parser.add_argument("--after", type=float, default=0)
    parser.add_argument("--expect", type=int, default=0)
    arguments = parser.parse_args()
    try:
        main(arguments)
    except Exception as error:
        failed(error)
