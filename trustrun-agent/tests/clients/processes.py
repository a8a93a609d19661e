"""The same TCP connection, made by different kinds of process. See README.md."""

import os
import socket
import subprocess
import sys
import threading
import time

from report import done, failed, usage


def connect(address, port):
    with socket.create_connection((address, port), timeout=5) as s:
        s.sendall(b"x")


def in_child(work):
    """Runs `work` in a forked child; its failure is ours."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        code = 0
        try:
            work()
        except OSError as error:
            code = error.errno or 255
        os.write(write, bytes([code]))
        os._exit(0)
    os.close(write)
    code = os.read(read, 1)
    os.waitpid(child, 0)
    if not code or code[0]:
        raise OSError(code[0] if code else 0, "in the child")
    return child


def thread(address, port):
    """From a worker thread: its tid is not its tgid."""
    errors = []

    def work():
        try:
            connect(address, port)
        except OSError as error:
            errors.append(error)

    worker = threading.Thread(target=work, name="worker-named-otherwise")
    worker.start()
    worker.join()
    if errors:
        raise errors[0]
    return {"pid": os.getpid(), "tid": worker.native_id}


def fork(address, port):
    return {"pid": in_child(lambda: connect(address, port))}


def double_fork(address, port):
    """From a grandchild whose parent is gone, in a session of its own."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        parent = os.getpid()
        if os.fork() == 0:
            code = 0
            try:
                while os.getppid() == parent:  # until it is gone
                    time.sleep(0.001)
                connect(address, port)
            except OSError as error:
                code = error.errno or 255
            os.write(write, bytes([code]) + str(os.getpid()).encode())
            os._exit(0)
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    answer = os.read(read, 64)
    if not answer or answer[0]:
        raise OSError(answer[0] if answer else 0, "in the grandchild")
    return {"pid": int(answer[1:])}


def exec_chain(address, port):
    """sh becomes env becomes python: one pid, several programs. The last one made the connection."""
    line = [sys.executable, __file__, "plain", address, str(port)]
    run = subprocess.run(["sh", "-c", 'exec env CHAIN=1 "$@"', "chain", *line], capture_output=True, timeout=10)
    if run.returncode:
        sys.stdout.buffer.write(run.stdout)
        sys.exit(run.returncode)
    return {"argv": line}


def plain(address, port):
    connect(address, port)
    return {"pid": os.getpid()}


def short(address, port):
    """A program that does nothing but connect, and is gone after about a millisecond."""
    run = subprocess.run(["bash", "-c", ": 3<>/dev/tcp/$1/$2", "short-lived", address, str(port)], capture_output=True)
    if run.returncode:
        text = run.stderr.decode(errors="replace")
        raise OSError(1 if "not permitted" in text else 0, text.strip())
    return {}


def renamed(address, port):
    """A process that calls itself something else (comm), in 15 letters with a newline."""
    with open("/proc/self/comm", "w", encoding="utf-8") as f:
        f.write("kworker/0:1\nfake")
    connect(address, port)
    return {"pid": os.getpid()}


KINDS = {
    "plain": plain,
    "thread": thread,
    "fork": fork,
    "double-fork": double_fork,
    "exec-chain": exec_chain,
    "short": short,
    "renamed": renamed,
}

if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in KINDS:
        usage(f"processes.py KIND ADDRESS PORT; kinds: {' '.join(KINDS)}")
    try:
        facts = KINDS[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
    except Exception as error:
        failed(error, kind=sys.argv[1])
    done(True, kind=sys.argv[1], **facts)
