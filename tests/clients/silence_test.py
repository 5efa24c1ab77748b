"""A symbol that falls silent is stale within the configured time, and live again with its next update.

    python3 silence_test.py --binary PATH

The upstream is a recording made here: two symbols speak ten times a second, then one of them pauses, and in the end the
line is dead.
"""

import json
import time
from pathlib import Path

from contract import Client
from harness import Gateway, Report, arguments, run, scratch

SILENCE_S = 1.0
CONFIG = f"[limits]\nsymbol_silence_ms = {SILENCE_S * 1000:.0f}\nsymbol_silence_intervals = 5\n"
# Beyond the silence itself: the gateway looks every quarter of a second, and this machine may be busy.
LATE_S = 1.25
PAUSE_S, AGAIN_S, DEAD_S, END_S = 5, 9, 11, 60


def recording() -> Path:
    """Ticks of A and B; B pauses, goes on, and then both end. The last line keeps the recording alive."""
    lines = []
    for tenth in range(DEAD_S * 10):
        for symbol in ("AUSDT", "BUSDT"):
            if symbol == "BUSDT" and PAUSE_S * 10 <= tenth < AGAIN_S * 10:
                continue
            lines.append((tenth * 100_000_000, symbol, tenth + 1))
    lines.append((END_S * 1_000_000_000, "AUSDT", 10_000))
    path = scratch() / "silence.ndjson"
    with path.open("w") as out:
        for time_ns, symbol, number in lines:
            ticker = {"u": number, "s": symbol, "b": str(number), "B": "1", "a": str(number + 1), "A": "1"}
            message = {"stream": f"{symbol.lower()}@bookTicker", "data": ticker}
            out.write(f"{1_795_000_000_000_000_000 + time_ns} {json.dumps(message)}\n")
    return path


async def stale_after(client: Client, topic: str) -> float:
    """Waits until the row is stale; how long after its last tick."""
    q, last_s = None, time.monotonic()

    def is_stale() -> bool:
        nonlocal q, last_s
        row = client.table("1")[topic]
        if row["q"] != q:
            q, last_s = row["q"], time.monotonic()
        return row["state"] == "stale"

    await client.until(is_stale, 20, f"{topic} to be stale")
    return time.monotonic() - last_s


async def main(report: Report) -> None:
    chosen = arguments(__doc__).parse_args()
    in_time = lambda seconds: SILENCE_S * 0.9 <= seconds <= SILENCE_S + LATE_S
    async with await Gateway.start(chosen.binary, f"capture:{recording()}", config=CONFIG) as gateway:
        client = await Client.connect(gateway.url)
        await client.subscribe("AUSDT", "BUSDT", sub="1", fields=["bid"])
        state = lambda topic: client.table("1")[topic]["state"]
        seconds = await stale_after(client, "BUSDT")
        report.check(f"who pauses is stale after {seconds:.2f} s", in_time(seconds), seconds)
        report.equal("the other one is live", state("AUSDT"), "live")
        await client.until(lambda: state("BUSDT") == "live", 20, "BUSDT to be live again")
        report.check("who speaks again is live again", True)
        seconds = await stale_after(client, "AUSDT")
        report.check(f"of a dead line all is stale after {seconds:.2f} s", in_time(seconds), seconds)
        await client.until(lambda: state("BUSDT") == "stale", LATE_S, "BUSDT to be stale")
        seen = await gateway.metric_reaches("tickgate_symbols_silenced_total", 3, 10)
        report.equal("three silences were counted", seen, 3)
        await client.close()


if __name__ == "__main__":
    run(main)
