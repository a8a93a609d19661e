"""Runs a command from a shell on a terminal, and lets that shell read from the terminal again afterwards.

What the command pushed into the terminal's input meanwhile (TIOCSTI), the shell outside executes.
"""

import os
import pty
import select
import sys
import time

pid, terminal = pty.fork()
if pid == 0:
    # The shell reads its commands from the terminal only once the command is over.
    os.execvp("sh", ["sh", "-c", '"$@"; echo @over; exec sh -s', "sh", *sys.argv[1:]])

seen, over, end = b"", False, time.monotonic() + 60
while time.monotonic() < end:
    if not select.select([terminal], [], [], 0.1)[0]:
        continue
    try:
        data = os.read(terminal, 4096)
    except OSError:
        break
    if not data:
        break
    os.write(1, data.replace(b"\r\n", b"\n"))
    seen += data
    if not over and b"@over" in seen:
        over = True
        os.write(terminal, b"exit\n")
os.close(terminal)
os.waitpid(pid, 0)
