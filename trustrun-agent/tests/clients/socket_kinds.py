"""One attempt to get bytes out, with one kind of socket. See README.md."""

import socket
import struct
import sys

from report import done, failed, usage

DATA = b"exfil"
TCP_FASTOPEN_CONNECT = 30
IPPROTO_MPTCP = 262
IPPROTO_UDPLITE = 136


def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def stream(kind_family, address, port, protocol=0):
    with socket.socket(kind_family, socket.SOCK_STREAM, protocol) as s:
        s.settimeout(5)
        s.connect((address, port))
        s.sendall(DATA)
        s.shutdown(socket.SHUT_WR)


def tcp(address, port):
    stream(family(address), address, port)


def mapped(address, port):
    stream(socket.AF_INET6, f"::ffff:{address}", port)


def mptcp(address, port):
    stream(family(address), address, port, IPPROTO_MPTCP)


def sctp(address, port):
    stream(family(address), address, port, socket.IPPROTO_SCTP)


def nonblocking(address, port):
    import select

    with socket.socket(family(address), socket.SOCK_STREAM) as s:
        s.setblocking(False)
        code = s.connect_ex((address, port))
        if code not in (0, 115):
            raise OSError(code, "connect")
        _, writable, _ = select.select([], [s], [], 5)
        code = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if writable else 110
        if code:
            raise OSError(code, "connect")
        s.sendall(DATA)


def fastopen(address, port):
    with socket.socket(family(address), socket.SOCK_STREAM) as s:
        s.settimeout(5)
        s.sendto(DATA, socket.MSG_FASTOPEN, (address, port))
        s.shutdown(socket.SHUT_WR)


def fastopen_connect(address, port):
    with socket.socket(family(address), socket.SOCK_STREAM) as s:
        s.settimeout(5)
        s.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
        s.connect((address, port))
        s.sendall(DATA)
        s.shutdown(socket.SHUT_WR)


def udp_connect(address, port):
    with socket.socket(family(address), socket.SOCK_DGRAM) as s:
        s.connect((address, port))
        s.send(DATA)


def udp_sendto(address, port):
    with socket.socket(family(address), socket.SOCK_DGRAM) as s:
        s.sendto(DATA, (address, port))


def udp_sendmsg(address, port):
    with socket.socket(family(address), socket.SOCK_DGRAM) as s:
        s.sendmsg([DATA], [], 0, (address, port))


def udp_mapped(address, port):
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as s:
        s.sendto(DATA, (f"::ffff:{address}", port))


def udp_echo(address, port):
    with socket.socket(family(address), socket.SOCK_DGRAM) as s:
        s.settimeout(5)
        s.connect((address, port))
        s.send(DATA)
        if s.recv(100) != DATA:
            raise OSError("the echo is another")


def udp_two_peers(address, port):
    """One socket, two destinations: the second must be judged for itself. ADDRESS is `first,second`."""
    first, second = address.split(",")
    with socket.socket(family(first), socket.SOCK_DGRAM) as s:
        s.sendto(DATA, (first, port))
        s.sendto(DATA, (second, port))


def udp_from_53(address, port):
    """A datagram that looks like a resolver's answer."""
    with socket.socket(family(address), socket.SOCK_DGRAM) as probe:
        probe.connect((address, port))
        own = probe.getsockname()[0]
    with socket.socket(family(address), socket.SOCK_DGRAM) as s:
        s.bind((own, 53))
        s.sendto(DATA, (address, port))


def udp_large(address, port):
    """Fragments."""
    with socket.socket(family(address), socket.SOCK_DGRAM) as s:
        s.sendto(DATA * 1000, (address, port))


def udplite(address, port):
    with socket.socket(family(address), socket.SOCK_DGRAM, IPPROTO_UDPLITE) as s:
        s.sendto(DATA, (address, port))


def multicast(address, port):
    with socket.socket(family(address), socket.SOCK_DGRAM) as s:
        if s.family == socket.AF_INET6:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, socket.if_nametoindex("lo"))
        else:
            s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 2)
        s.sendto(DATA, (address, port))


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def echo_request():
    body = struct.pack("!BBHHH", 8, 0, 0, 0x1234, 1) + DATA + b"!"
    return body[:2] + struct.pack("!H", checksum(body)) + body[4:]


def icmp_raw(address, _port):
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as s:
        s.sendto(echo_request(), (address, 0))


def ping_socket(address, _port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as s:
        s.sendto(echo_request(), (address, 0))


def ip_hdrincl(address, port):
    """A UDP datagram whose IP header is our own."""
    udp = struct.pack("!HHHH", 40000, port, 8 + len(DATA), 0) + DATA
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, bytes(4), socket.inet_aton(address))
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as s:
        s.sendto(head + udp, (address, 0))


def packet(address, port):
    """The same past the network layer."""
    udp = struct.pack("!HHHH", 40000, port, 8 + len(DATA), 0) + DATA
    head = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, socket.inet_aton("192.0.2.2"), socket.inet_aton(address)
    )
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800)) as s:
        s.sendto(head + udp, ("lo", 0x0800, 0, 0, bytes(6)))


def vsock(_address, port):
    with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as s:
        s.settimeout(2)
        s.connect((socket.VMADDR_CID_HOST, port))


KINDS = {
    name.replace("_", "-"): thing
    for name, thing in list(globals().items())
    if callable(thing) and getattr(thing, "__module__", None) == __name__
    and name not in ("family", "stream", "checksum", "echo_request")
}

if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in KINDS:
        usage(f"socket_kinds.py KIND ADDRESS PORT; kinds: {' '.join(sorted(KINDS))}")
    kind, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    try:
        KINDS[kind](address, port)
    except Exception as error:  # whatever it was, it is the answer
        failed(error, kind=kind)
    done(True, kind=kind)
