"""What another process of root may do to a session's links, without bpftool: bpf(2) through ctypes.

links.py detach PIN       takes the pinned link off by force (BPF_LINK_DETACH), by its id as bpftool does
links.py replace PIN      puts a program that lets everything through in its place (BPF_LINK_UPDATE)
links.py second CGROUP    attaches a program of its own beside the session's, says `up`, and keeps it while stdin is open
"""

import ctypes
import os
import platform
import struct
import sys

SYS_BPF = {"x86_64": 321, "aarch64": 280}[platform.machine()]
PROG_LOAD, OBJ_GET, OBJ_GET_INFO, LINK_CREATE, LINK_UPDATE, LINK_GET_FD_BY_ID, LINK_DETACH = 5, 7, 15, 28, 29, 30, 34
CGROUP_SKB, INGRESS, EGRESS = 8, 0, 1
libc = ctypes.CDLL(None, use_errno=True)


def bpf(command, attributes):
    """One call; the attributes in a buffer as large as any kernel's, so that the rest is zero."""
    buffer = ctypes.create_string_buffer(attributes.ljust(120, b"\0"), 120)
    result = libc.syscall(SYS_BPF, command, buffer, 120)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"bpf({command}): {os.strerror(ctypes.get_errno())}")
    return result


def opened(pin):
    path = ctypes.create_string_buffer(pin.encode())
    return bpf(OBJ_GET, struct.pack("<QII", ctypes.addressof(path), 0, 0))


def link_id(fd):
    info = ctypes.create_string_buffer(64)
    bpf(OBJ_GET_INFO, struct.pack("<IIQ", fd, 64, ctypes.addressof(info)))
    return struct.unpack_from("<II", info)[1]


def let_through(attach_type):
    """A program of two instructions: r0 = 1; exit."""
    code = ctypes.create_string_buffer(struct.pack("<BBhi", 0xB7, 0, 0, 1) + struct.pack("<BBhi", 0x95, 0, 0, 0), 16)
    licence = ctypes.create_string_buffer(b"MIT")
    head = struct.pack("<IIQQ", CGROUP_SKB, 2, ctypes.addressof(code), ctypes.addressof(licence))
    # log level, size and buffer, kernel version, flags, name, interface, expected attach type
    return bpf(PROG_LOAD, head + struct.pack("<IIQII16sII", 0, 0, 0, 0, 0, b"", 0, attach_type))


def main():
    what, place = sys.argv[1:]
    if what == "detach":
        by_id = bpf(LINK_GET_FD_BY_ID, struct.pack("<I", link_id(opened(place))))
        bpf(LINK_DETACH, struct.pack("<I", by_id))
    elif what == "replace":
        bpf(LINK_UPDATE, struct.pack("<IIII", opened(place), let_through(EGRESS), 0, 0))
    else:
        folder = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        links = [bpf(LINK_CREATE, struct.pack("<IIII", let_through(t), folder, t, 0)) for t in (INGRESS, EGRESS)]
        print("up", flush=True)
        sys.stdin.read()
        for link in links:
            os.close(link)


main()
