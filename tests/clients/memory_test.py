"""What a client costs while it waits, in bytes of the gateway's process.

    python3 memory_test.py --binary PATH [--clients N]

The gateway's own load client opens the connections: `tickgate bench` reads the process's memory before and after.
"""

import asyncio
import contextlib
import json
import socket

from harness import Gateway, Report, arguments, http, run

# What `SESSION_BYTES` in src/base/limits.rs promises is more: it has a stream of the client's own in it.
SESSION_BYTES = 768
# Before its first byte a connection has no buffers: 16 KB each they would be.
SILENT, SILENT_BYTES = 800, 4096
CALM = "synthetic:load?symbols=1&rate=1"
# A topic on a list of the client's own: four bytes in the list, four to eight in the index of interest; the rest is what
# the commands and first pictures of all of them took for a while.
TOPIC_BYTES, FEW, MANY = 48, 30, 130
WIDE = "synthetic:load?symbols=1000&rate=1"


async def cost(chosen, gateway: Gateway, *subscribe: str) -> dict:
    """The load client's report on clients that subscribe to this."""
    bench = await asyncio.create_subprocess_exec(
        chosen.binary, "bench", "--url", gateway.url, "--pid", str(gateway.process.pid), "--clients", str(chosen.clients),
        "--warmup", "1", "--seconds", "2", "--json", *subscribe, stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await asyncio.wait_for(bench.communicate(), 60)
    return json.loads(out)


async def main(report: Report) -> None:
    parser = arguments(__doc__)
    parser.add_argument("--clients", type=int, default=10_000)
    chosen = parser.parse_args()
    for what, subscribe in (("idle", ["--symbols", "none"]), ("on one stream", ["--topic", "*"])):
        async with await Gateway.start(chosen.binary, CALM) as gateway:
            found = await cost(chosen, gateway, *subscribe)
            each = found["server"]["rss_bytes_per_connection"]
            report.equal(f"{what}: all are connected", found["connected"], chosen.clients)
            report.check(f"{what}: {each:.0f} bytes a client, at most {SESSION_BYTES}", each <= SESSION_BYTES, each)

    lists = []
    for count in (FEW, MANY):
        async with await Gateway.start(chosen.binary, WIDE) as gateway:
            found = await cost(chosen, gateway, "--symbols", "load:1000", "--pick", str(count))
            report.equal(f"{count} topics of one's own: all are connected", found["connected"], chosen.clients)
            lists.append(found["server"]["rss_bytes_per_connection"])
    each = (lists[1] - lists[0]) / (MANY - FEW)
    report.check(f"lists of one's own: {each:.0f} bytes a topic, at most {TOPIC_BYTES}", each <= TOPIC_BYTES, lists)

    async with await Gateway.start(chosen.binary, CALM) as gateway:
        await http(gateway.port, "/")
        before = gateway.rss_mib()
        with contextlib.ExitStack() as stack:
            for _ in range(SILENT):
                stack.enter_context(socket.create_connection(("127.0.0.1", gateway.port)))
            await http(gateway.port, "/")  # who is answered now came behind all of them
            each = (gateway.rss_mib() - before) * (1 << 20) / SILENT
        report.check(f"silent: {each:.0f} bytes a connection, at most {SILENT_BYTES}", each <= SILENT_BYTES, each)


if __name__ == "__main__":
    run(main)
