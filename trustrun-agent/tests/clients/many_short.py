"""COUNT programs, each with an argv of its own, each connecting once. See README.md.

bash's own /dev/tcp is the shortest client that every machine has: it lives for about two milliseconds.
"""

import os
import subprocess
import sys

from report import done, failed, usage

AT_ONCE = 256


def main(count, address, port):
    running, failures, refused = [], 0, 0
    environment = {"PATH": os.environ.get("PATH", "/bin:/usr/bin"), "LC_ALL": "C"}

    def reap(process):
        nonlocal failures, refused
        text = process.communicate()[1]
        if process.returncode:
            failures += 1
            refused += b"not permitted" in text

    for n in range(count):
        line = ["bash", "--norc", "-c", ": 3<>/dev/tcp/$1/$2", f"client-{n}", address, port]
        running.append(subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE))
        if len(running) >= AT_ONCE:
            reap(running.pop(0))
    for process in running:
        reap(process)
    done(failures == 0, count=count, failures=failures, refused=refused)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        usage("many_short.py COUNT ADDRESS PORT")
    try:
        main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
    except Exception as error:
        failed(error)
