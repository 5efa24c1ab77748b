"""What a client costs while it waits, in bytes of the gateway's process.

    python3 memory_test.py --binary PATH [--clients N]

The gateway's own load client opens the connections: `tickgate bench` reads the process's memory before and after.
"""

import asyncio
import json

from harness import Gateway, Report, arguments, run

# What `SESSION_BYTES` in src/base/limits.rs promises.
SESSION_BYTES = 2048
CALM = "synthetic:load?symbols=1&rate=1"


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


if __name__ == "__main__":
    run(main)
