"""All hosts at once, with asyncio and TLS. See README.md."""

import asyncio
import ssl
import sys

from report import done, failed, usage


async def fetch(host):
    reader, writer = await asyncio.open_connection(host, 443, ssl=ssl.create_default_context())
    writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    status = await reader.readline()
    await reader.read()
    writer.close()
    if b" 200 " not in status:
        raise OSError(f"{host}: {status!r}")


async def main(hosts):
    results = await asyncio.gather(*(fetch(host) for host in hosts), return_exceptions=True)
    errors = [result for result in results if result is not None]
    if errors:
        failed(errors[0], failures=len(errors), hosts=len(hosts))
    done(True, hosts=len(hosts))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        usage("asyncio_fetch.py HOST...")
    asyncio.run(main(sys.argv[1:]))
