#!/usr/bin/env python3
"""Runs the gateway and the limit in turn and prints the ratio of their CPU per delivered frame.

    cargo build --release --workspace && benches/pairs.py broadcast --pairs 20 --out benches/runs/2026-11-22-w1

Owns the two workloads and the arithmetic; what is measured is measured by `tickgate bench` from the server's /proc. The
server is on core 0, the load client on core 1. A pair is one run of each, the one that begins changing; the result is the
median of the pairs' ratios with its 90 % bootstrap interval. Raw rows go to OUT/raw.csv.
"""

import argparse
import csv
import json
import platform
import random
import re
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / "target/release"

# What both servers are asked to carry. The limit's frames are as long as the gateway's were in a first run.
WORKLOADS = {
    "broadcast": {
        "what": "W1: every client on one symbol that ticks ten times a second",
        "clients": 10_000,
        "feed": "synthetic:load?symbols=1&rate=10&row_bytes=120",
        "subscribe": ["--topic", "*"],
        "limit": ["--mode", "broadcast", "--per-second", "10"],
    },
    "market": {
        "what": "W3: 30 random symbols of 1,000 for each client, 20,000 ticks a second, ten frames a second",
        "clients": 2_000,
        "feed": "synthetic:load?symbols=1000&rate=20000&zipf=1.0&row_bytes=70",
        "subscribe": ["--symbols", "load:1000", "--pick", "30", "--rate", "10", "--sample", "50"],
        "limit": ["--mode", "spread", "--per-second", "10"],
    },
}
WARMUP_S = 2


def bench(url: str, pid: int, clients: int, seconds: float, *subscribe: str) -> dict:
    """One measurement by the load client."""
    command = [BIN / "tickgate", "bench", "--cpu", "1", "--pid", str(pid), "--url", url, "--clients", str(clients),
               "--warmup", str(WARMUP_S), "--seconds", str(seconds), "--json", *subscribe]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120 + seconds)
    return json.loads(done.stdout)


def on_core_0(*command: object) -> subprocess.Popen:
    """Starts a server there."""
    command = ["taskset", "-c", "0", *map(str, command)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def gateway(work: dict, seconds: float) -> dict:
    """One run of the gateway."""
    server = on_core_0(BIN / "tickgate", "serve", "--shards", 1, "--feed", work["feed"],
                       "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
    try:
        said = ""
        while "metrics" not in said:
            said += server.stdout.readline()
        port = re.search(r"ws://127\.0\.0\.1:(\d+)/", said)[1]
        return bench(f"ws://127.0.0.1:{port}/ws", server.pid, work["clients"], seconds, *work["subscribe"])
    finally:
        server.terminate()
        server.wait()


def limit(work: dict, seconds: float, frame_bytes: int) -> dict:
    """One run of the limit."""
    server = on_core_0(BIN / "tickgate-limit", *work["limit"], "--listen", "127.0.0.1:9100", "--clients", work["clients"],
                       "--bytes", frame_bytes, "--seconds", seconds + WARMUP_S + 3)
    try:
        while "waiting" not in server.stdout.readline():
            pass
        return bench("ws://127.0.0.1:9100/", server.pid, work["clients"], seconds, "--topic", "VCB")
    finally:
        server.terminate()
        server.wait()


def interval(ratios: list[float]) -> tuple[float, float]:
    """The 90 % bootstrap interval of the median."""
    draw = random.Random(1)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(2_000))
    return medians[100], medians[1_900]


def row(server: str, pair: int, found: dict) -> dict:
    """What is kept of a run."""
    latency = found["frame_to_client_us"]
    return {
        "pair": pair, "server": server, "cpu_us_per_frame": found["server"]["cpu_us_per_frame"],
        "frames": found["frames"], "missing": found["missing"], "bytes_per_frame": found["bytes_per_frame"],
        "frame_to_client_p50_us": latency["p50"], "frame_to_client_p99_us": latency["p99"],
        "rss_bytes_per_connection": found["server"]["rss_bytes_per_connection"],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--clients", type=int, help="instead of the workload's own")
    parser.add_argument("--out", type=Path, help="folder for raw.csv and summary.txt")
    chosen = parser.parse_args()
    work = WORKLOADS[chosen.workload] | ({"clients": chosen.clients} if chosen.clients else {})
    frame_bytes = round(gateway(work, 2)["bytes_per_frame"]) - 4  # less the WebSocket header
    rows, ratios = [], []
    for pair in range(chosen.pairs):
        run = {"gateway": lambda: gateway(work, chosen.seconds), "limit": lambda: limit(work, chosen.seconds, frame_bytes)}
        order = ["gateway", "limit"] if pair % 2 else ["limit", "gateway"]
        found = {server: row(server, pair, run[server]()) for server in order}
        rows += [found["limit"], found["gateway"]]
        ratios.append(found["gateway"]["cpu_us_per_frame"] / found["limit"]["cpu_us_per_frame"])
        print(f"pair {pair}: {ratios[-1]:.3f}", file=sys.stderr, flush=True)
    low, high = interval(ratios)
    of = lambda server, key: statistics.median(r[key] for r in rows if r["server"] == server)
    summary = "\n".join([
        f"{work['what']}; {work['clients']} clients, {frame_bytes} bytes a frame, {chosen.seconds:g} s a run",
        f"ratio of CPU per delivered frame, gateway / limit: median {statistics.median(ratios):.3f} of {len(ratios)} pairs,"
        f" 90 % interval {low:.3f} .. {high:.3f}, range {min(ratios):.3f} .. {max(ratios):.3f}",
        *(f"{server:8} {of(server, 'cpu_us_per_frame'):6.2f} us a frame, frame to client p50"
          f" {of(server, 'frame_to_client_p50_us') / 1000:.1f} ms, p99 {of(server, 'frame_to_client_p99_us') / 1000:.1f} ms"
          for server in ("limit", "gateway")),
        f"missing frames {sum(r['missing'] for r in rows)}; memory a connection {of('gateway', 'rss_bytes_per_connection'):.0f} bytes",
        f"{platform.machine()}, Linux {platform.release()}; benches/pairs.py {' '.join(sys.argv[1:])}",
    ]) + "\n"
    print(summary, end="")
    if chosen.out:
        chosen.out.mkdir(parents=True, exist_ok=True)
        (chosen.out / "summary.txt").write_text(summary)
        with (chosen.out / "raw.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
