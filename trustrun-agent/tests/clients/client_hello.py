"""A real TLS handshake whose ClientHello goes out in pieces. See README.md.

--after 1,4,5   cut after these octets of the hello
--every N       cut after every N octets
--records N     spread the hello over N TLS records
--pad N         make the hello at least N octets long (with application protocol names)
--sni-last      move the server name behind the padding; the handshake cannot end then, an answer is enough
"""

import argparse
import socket
import ssl
import time

from report import done, failed

HEADER = 5


def context(padding):
    tls = ssl.create_default_context()
    tls.check_hostname = False
    tls.verify_mode = ssl.CERT_NONE
    if padding:
        names, left = [], padding
        while left > 0:
            names.append("p" * min(250, left))
            left -= 251
        tls.set_alpn_protocols(names)
    return tls


def extensions_at(hello):
    """Where the extensions of a ClientHello record begin (RFC 8446 section 4.1.2)."""
    at = HEADER + 4 + 2 + 32
    at += 1 + hello[at]
    at += 2 + int.from_bytes(hello[at : at + 2], "big")
    return at + 1 + hello[at] + 2


def sni_last(hello):
    at = start = extensions_at(hello)
    others, name = b"", b""
    while at < len(hello):
        end = at + 4 + int.from_bytes(hello[at + 2 : at + 4], "big")
        if hello[at : at + 2] == b"\0\0":
            name = hello[at:end]
        else:
            others += hello[at:end]
        at = end
    return hello[:start] + others + name


def in_records(hello, count):
    body = hello[HEADER:]
    size = -(-len(body) // count)
    parts = [body[n : n + size] for n in range(0, len(body), size)]
    return b"".join(hello[:3] + len(part).to_bytes(2, "big") + part for part in parts)


def pieces(hello, options):
    cuts = {int(cut) for cut in options.after.split(",")} if options.after else set()
    if options.every:
        cuts |= set(range(options.every, len(hello), options.every))
    edges = [0, *sorted(cut for cut in cuts if 0 < cut < len(hello)), len(hello)]
    return [hello[first:last] for first, last in zip(edges, edges[1:])]


def main(options):
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context(options.pad).wrap_bio(incoming, outgoing, server_hostname=options.name or None)
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        pass
    hello = outgoing.read()
    if options.sni_last:
        hello = sni_last(hello)
    if options.records > 1:
        hello = in_records(hello, options.records)
    parts = pieces(hello, options)
    facts = {"hello": len(hello), "pieces": len(parts)}
    sent = 0
    try:
        with socket.create_connection((options.address, options.port), timeout=5) as s:
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for part in parts:
                s.sendall(part)
                sent += len(part)
                if len(parts) < 20:
                    time.sleep(0.02)  # each piece a segment of its own, and judged before the next
            if options.sni_last:
                answer = s.recv(1)
                done(answer == b"\x16", first=answer.hex(), **facts)
            finish(s, tls, incoming, outgoing)
            tls.write(b"GET / HTTP/1.0\r\nHost: %s\r\n\r\n" % (options.name or "nobody").encode())
            s.sendall(outgoing.read())
            text = read_some(s, tls, incoming)
    except Exception as error:
        failed(error, sent=sent, **facts)
    done(text.startswith(b"HTTP/1.1 200"), answer=text[:15].decode(), **facts)


def receive(s, incoming):
    data = s.recv(65536)
    if not data:
        raise ConnectionError("the server ended the connection")
    incoming.write(data)


def finish(s, tls, incoming, outgoing):
    while True:
        receive(s, incoming)
        try:
            tls.do_handshake()
            s.sendall(outgoing.read())
            return
        except ssl.SSLWantReadError:
            s.sendall(outgoing.read())


def read_some(s, tls, incoming):
    while True:
        try:
            return tls.read(4096)
        except ssl.SSLWantReadError:
            receive(s, incoming)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("name", help="the server name; empty for none")
    parser.add_argument("--after", default="")
    parser.add_argument("--every", type=int, default=0)
    parser.add_argument("--records", type=int, default=1)
    parser.add_argument("--pad", type=int, default=0)
    parser.add_argument("--sni-last", action="store_true")
    main(parser.parse_args())
