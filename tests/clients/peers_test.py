"""One of the peers in benches/peers under the load client: it delivers in time, in frames that can be timed.

    python3 peers_test.py --binary PATH

The others share its frames or its shape; benches/table runs them all.
"""

import asyncio
import contextlib
import json
import socket
import sys

from harness import ROOT, START_S, Report, arguments, run

PEER = ROOT / "benches/peers/websockets_broadcast.py"
CLIENTS = 100
SECONDS = 1


@contextlib.asynccontextmanager
async def peer(workload: str):
    """The peer's address while the block lasts."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(sys.executable, PEER, workload, str(port), str(CLIENTS))
    try:
        async with asyncio.timeout(START_S):
            while process.returncode is None:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                await asyncio.sleep(0.05)  # it does not say when it listens
        yield f"ws://127.0.0.1:{port}/ws"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def load(binary: str, workload: str, *subscribe: str) -> dict:
    """The load client's report."""
    async with peer(workload) as url:
        bench = await asyncio.create_subprocess_exec(
            binary, "bench", "--url", url, "--clients", str(CLIENTS), "--warmup", "1", "--seconds", str(SECONDS),
            "--sample", "1", "--json", *subscribe, stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await asyncio.wait_for(bench.communicate(), 60)
    return json.loads(out)


async def main(report: Report) -> None:
    binary = arguments(__doc__).parse_args().binary
    broadcast = await load(binary, "broadcast", "--topic", "VCB")
    report.equal("broadcast: a frame of 200 bytes and its header", broadcast["bytes_per_frame"], 204)
    report.check("broadcast: one round reached all", broadcast["rounds"]["clients_max"] == CLIENTS, broadcast["rounds"])
    market = await load(binary, "market", "--symbols", "load:1000", "--pick", "30")
    rows = market["rows_per_frame"]
    report.check(f"market: {rows} rows a frame, about half of 30", 10 <= rows <= 20)
    tick = market["tick_to_client_us"]
    report.check(f"market: ticks are {tick['p50']} us old, a part of 100 ms", 5_000 <= tick["p50"] <= 1_000_000, tick)
    for name, found in (("broadcast", broadcast), ("market", market)):
        report.equal(f"{name}: all are connected", found["connected"], CLIENTS)
        report.equal(f"{name}: nothing is missing or unreadable", (found["missing"], found["unreadable"]), (0, 0))
        report.check(f"{name}: ten frames a second", found["frames"] >= 5 * CLIENTS * SECONDS, found["frames"])


if __name__ == "__main__":
    run(main)
