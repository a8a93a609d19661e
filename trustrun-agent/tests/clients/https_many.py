"""COUNT HTTPS requests on one connection. See README.md."""

import http.client
import sys

from report import done, failed, usage


def main(count, host, path):
    connection = http.client.HTTPSConnection(host, timeout=10)
    total = 0
    for _ in range(count):
        connection.request("GET", path)
        total += len(connection.getresponse().read())
    done(True, count=count, bytes=total)


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        usage("https_many.py COUNT HOST [PATH]")
    try:
        main(int(sys.argv[1]), sys.argv[2], sys.argv[3] if len(sys.argv) == 4 else "/")
    except Exception as error:
        failed(error)
