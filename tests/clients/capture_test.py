"""A recording goes in, and what clients hold at the end is what the venue said.

    python3 capture_test.py --binary PATH

Needs the recordings of TICKGATE_REAL_FEEDS (default: ../shared/feeds-real beside the repository). All expected values
are computed here from the recording, by the venue's published rules, and checked against its published sums.
"""

import asyncio
import gzip
import hashlib
import json
import os
import sys
from decimal import Decimal
from pathlib import Path

from contract import Client
from harness import ROOT, Gateway, Report, arguments, http, run

FEEDS = Path(os.environ.get("TICKGATE_REAL_FEEDS", ROOT.parent / "shared/feeds-real"))
FILE = FEEDS / "binance-spot/btcusdt_20240808.ndjson.gz"
TOP = {"bid": "61685.99", "bid_size": "1.25869", "ask": "61686.00", "ask_size": "2.44807"}
TRADES, VOLUME = 9757, Decimal("212.03315")
BOOK_SHA = "7145c0b7167706651f18386a9ae136f6e958ec3556ff3c5896c3539b5b4a30ce"
END_S = 90  # no part of the recording takes longer


class Recording:
    """The recording, read by a program that knows nothing of the gateway."""

    def __init__(self, path: Path):
        self.trades: list[tuple[int, Decimal, Decimal, str]] = []
        self.tops: list[int] = []
        self.bids: dict[Decimal, Decimal] = {}
        self.asks: dict[Decimal, Decimal] = {}
        waiting, last_id = [], None
        with gzip.open(path, "rt") as lines:
            for line in lines:
                local, text = line.split(" ", 1)
                message = json.loads(text)
                if "lastUpdateId" in message:
                    # Later events apply to this picture, from the first that straddles it.
                    last_id = message["lastUpdateId"]
                    self.levels(message["bids"], message["asks"])
                    for event in waiting:
                        last_id = self.event(event, last_id)
                    continue
                data, stream = message["data"], message["stream"].split("@")[1]
                if stream == "depth" and last_id is None:
                    waiting.append(data)
                elif stream == "depth":
                    last_id = self.event(data, last_id)
                elif stream == "trade":
                    side = "sell" if data["m"] else "buy"
                    self.trades.append((data["t"], Decimal(data["p"]), Decimal(data["q"]), side))
                elif stream == "bookTicker":
                    self.tops.append(int(local))

    def event(self, data: dict, last_id: int) -> int:
        """One depth event, unless the picture has it already."""
        if data["u"] <= last_id:
            return last_id
        self.levels(data["b"], data["a"])
        return data["u"]

    def levels(self, bids: list, asks: list) -> None:
        """Levels to set; size 0 takes one away."""
        for side, levels in ((self.bids, bids), (self.asks, asks)):
            for price, size in levels:
                price, size = Decimal(price), Decimal(size)
                if size:
                    side[price] = size
                else:
                    side.pop(price, None)

    def best(self, depth: int | None = None) -> tuple[list, list]:
        """Both sides, best first."""
        return sorted(self.bids.items(), reverse=True)[:depth], sorted(self.asks.items())[:depth]

    def sha(self) -> str:
        """The published fingerprint of the whole book."""
        text = ""
        for mark, side in zip("ba", self.best(), strict=True):
            text += "".join(f"{mark} {price.normalize():f} {size.normalize():f}\n" for price, size in side)
        return hashlib.sha256(text.encode()).hexdigest()

    def frames(self, window_ns: int, times_us: list[int]) -> tuple[int, int]:
        """How many frames carry the quotes between the first and the last of these times: least and most over all grids.

        The contract: one frame at most per slot, in the first moment of the slot that has something. So a change that
        comes after its slot's frame begins the next slot.
        """
        own = {at // 1000 for at in self.tops}
        known = [at for at in times_us if at in own]  # others have a trade's time, by the venue's clock
        times = [at for at in self.tops if known[0] <= at // 1000 <= known[-1]]
        counts = []
        for phase in range(32):
            count, sent, waiting = 0, -1, False
            for at in times:
                slot = (at + window_ns * phase // 32) // window_ns
                if waiting and slot > sent:
                    count, sent, waiting = count + 1, sent + 1, False
                if slot > sent:
                    count, sent = count + 1, slot
                else:
                    waiting = True
            counts.append(count + waiting)
        return min(counts), max(counts)


def spec(speed: str) -> str:
    return f"capture:{FILE}?venue=binance&speed={speed}"


def check_book(report: Report, what: str, row: dict, recording: Recording, depth: int) -> None:
    """A book row against the book that was built here."""
    expected = recording.best(depth)
    for name, side in zip(("bids", "asks"), expected, strict=True):
        got = [(Decimal(price), Decimal(size)) for price, size in row[name]]
        wrong = [(a, b) for a, b in zip(got, side, strict=False) if a != b]
        report.check(f"{what}: {name} are the best {len(side)} levels of the venue", got == side,
                     f"{len(got)} levels, {len(wrong)} differ, first (got, expected) {wrong[:1]}")


def check_top(report: Report, what: str, row: dict, kind: type) -> None:
    """A quote row against the last bookTicker."""
    got = {name: Decimal(row[name]) for name in TOP}
    report.equal(f"{what}: bid and ask", got, {name: Decimal(value) for name, value in TOP.items()})
    kinds = {type(row[name]) for name in TOP}
    report.check(f"{what}: as {kind.__name__}", kinds <= ({str} if kind is str else {int, Decimal}), kinds)


async def at_full_speed(report: Report, binary: str, recording: Recording) -> None:
    """speed=max: what is held at the end, by clients that came whenever they came."""
    async with await Gateway.start(binary, spec("max")) as gateway:
        clients = {}
        for decimals in ("number", "string"):
            clients[decimals] = client = await Client.connect(gateway.url)
            await client.subscribe("BTCUSDT", sub="quote", decimals=decimals)
            await client.subscribe("book:BTCUSDT", sub="book", decimals=decimals, depth=1000, rate=10)
            await client.subscribe("trade:BTCUSDT", sub="trade", decimals=decimals, mode="every")
        late = None
        for decimals, client in clients.items():
            what = f"max, {decimals}"
            await client.until(lambda c=client: c.table("quote")["BTCUSDT"]["state"] == "closed", END_S, "state closed")
            await client.until(lambda c=client: c.table("book")["book:BTCUSDT"]["state"] == "closed", 5, "the book's state closed")
            report.check(f"{what}: the state says that the source has ended", True)
            check_top(report, what, client.table("quote")["BTCUSDT"], str if decimals == "string" else Decimal)
            check_book(report, what, client.table("book")["book:BTCUSDT"], recording, 1000)
        # The images stay for those who come after the end.
        late = await Client.connect(f"{gateway.url}?symbols=BTCUSDT,book:BTCUSDT&depth=1000")
        await late.until(lambda: late.subs and late.subs["1"].whole, 10, "the late picture")
        check_top(report, "max, after the end", late.table("1")["BTCUSDT"], Decimal)
        report.equal("max, after the end: state", late.table("1")["BTCUSDT"]["state"], "closed")
        check_book(report, "max, after the end", late.table("1")["book:BTCUSDT"], recording, 1000)
        # The same values for a single question.
        _, headers, body = await http(gateway.port, "/v1/snapshot?symbols=BTCUSDT,book:BTCUSDT&depth=1000")
        rows = {row.get("channel", "quote"): row for row in json.loads(body, parse_float=Decimal)["rows"]}
        check_top(report, "/v1/snapshot", rows["quote"], Decimal)
        report.equal("/v1/snapshot: the quote's row is the client's", rows["quote"], late.table("1")["BTCUSDT"])
        check_book(report, "/v1/snapshot", rows["book"], recording, 1000)
        got = {key: rows["book"][key] for key in ("state", "q", "time_us", "rev")}
        expected = {key: late.table("1")["book:BTCUSDT"][key] for key in got}
        report.equal("/v1/snapshot: the book's row is the client's", got, expected)
        for decimals, client in [*clients.items(), ("late", late)]:
            report.clean(f"max, {decimals}: the contract is kept", client.violations)
            await client.close()


class Tape:
    """The trades that a client was given, and those it was told it would not get."""

    def __init__(self, client: Client, sub: str):
        self.client, self.sub, self.rows = client, sub, {}
        outer = client.on_row

        def on_row(stream, topic, row):
            outer(stream, topic, row)
            if stream.sub == sub:
                self.rows[row["q"]] = row

        client.on_row = on_row

    def check(self, report: Report, what: str, recording: Recording, before: int, gaps: bool) -> None:
        """Given and announced as lost make up everything after `before`."""
        lost = sum(self.client.subs[self.sub].lost.values())
        report.equal(f"{what}: {before} before, {len(self.rows)} given and {lost} announced as lost are all",
                     before + len(self.rows) + lost, TRADES)
        report.check(f"{what}: losses", (lost > 0) == gaps, f"{lost}, expected {'some' if gaps else 'none'}")
        given = sum((row["size"] for row in self.rows.values()), Decimal(0))
        missing = [q for q in range(1, TRADES + 1) if q not in self.rows]
        others = sum((recording.trades[q - 1][2] for q in missing), Decimal(0))
        report.equal(f"{what}: sizes given ({given}) and not given add up", given + others, VOLUME)
        expected = {q: recording.trades[q - 1] for q in self.rows}
        got = {q: (r["trade_id"], r["price"], r["size"], r["side"]) for q, r in self.rows.items()}
        wrong = [(got[q], expected[q]) for q in got if got[q] != expected[q]]
        report.check(f"{what}: each trade is the venue's", not wrong, wrong[:1])


async def every_trade(report: Report, binary: str, recording: Recording) -> None:
    """speed=60x: every trade, or an exact account of the others."""
    for what, config, options in [
        ("60x, every", "", {}),
        ("60x, every, rate 2", "", {"rate": 2}),
        ("60x, every, rate 1, a log of 16", "[limits]\nlog_events_max = 16\n", {"rate": 1}),
    ]:
        async with await Gateway.start(binary, spec("60x"), config=config) as gateway:
            client = await Client.connect(gateway.url)
            tape = Tape(client, "tape")
            answer = await client.subscribe("trade:BTCUSDT", sub="tape", mode="every", whole=False, **options)
            before = answer["q"]["trade:BTCUSDT"]
            await client.subscribe("BTCUSDT", "book:BTCUSDT", sub="image", rate=20, depth=5)
            await client.until(lambda: client.table("image")["BTCUSDT"]["state"] == "closed", END_S, "state closed")
            await client.until(lambda: client.subs["tape"].q["trade:BTCUSDT"] == TRADES, 5, "the last trade")
            tape.check(report, what, recording, before, "log" in what)
            counted = await gateway.metric_reaches('tickgate_losses_total{reason="log_overrun"}', 1, 3 if "log" in what else 0)
            report.equal(f"{what}: losses are counted", counted > 0, "log" in what)
            check_top(report, what, client.table("image")["BTCUSDT"], Decimal)
            check_book(report, what, client.table("image")["book:BTCUSDT"], recording, 5)
            report.clean(f"{what}: the contract is kept", client.violations)
            await client.close()


async def conflation(report: Report, binary: str, recording: Recording, speed: int, seconds: float | None) -> None:
    """One row for every slot that has something, and the last row is the last value."""
    async with await Gateway.start(binary, spec(f"{speed}x")) as gateway:
        client = await Client.connect(gateway.url)
        times_us: list[int] = []
        client.on_row = lambda stream, topic, row: times_us.append(row["time_us"])
        await client.subscribe("BTCUSDT", sub="quote", rate=10, fields=["bid", "bid_size", "ask", "ask_size"])
        row = client.table("quote")["BTCUSDT"]
        await client.until(lambda: row["state"] == "live", 10, "the first price")
        del times_us[:-1]
        until_us = times_us[0] + int((seconds or 1e6) * speed * 1_000_000)
        await client.until(lambda: row["state"] == "closed" or row["time_us"] > until_us, END_S, "the end")
        window_ns = speed * 100_000_000
        least, most = recording.frames(window_ns, times_us)
        slack = most // 50 + 2  # the feed's own wake-ups move a change over the edge of a slot now and then
        what = f"{speed}x, rate 10: {len(times_us)} rows where {least} to {most} slots of {window_ns // 1_000_000} ms have something"
        report.check(what, least - slack <= len(times_us) <= most + slack, f"allowing {slack} for the feed's wake-ups")
        if seconds is None:
            check_top(report, f"{speed}x", row, Decimal)
        report.clean(f"{speed}x: the contract is kept", client.violations)
        await client.close()


async def main(report: Report) -> None:
    """All speeds, side by side."""
    options = arguments(__doc__.splitlines()[0]).parse_args()
    if not FILE.exists():
        print(f"NOT RUN: {FILE} does not exist; set TICKGATE_REAL_FEEDS to the directory of recordings", file=sys.stderr)
        print("NOT RUN: no recordings")
        return
    recording = Recording(FILE)
    report.equal("the recording has its published trades", len(recording.trades), TRADES)
    report.equal("the recording has its published volume", sum(t[2] for t in recording.trades), VOLUME)
    report.equal("the book built here is the published one", recording.sha(), BOOK_SHA)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(conflation(report, options.binary, recording, 10, None))
        tasks.create_task(conflation(report, options.binary, recording, 1, 30))
        tasks.create_task(every_trade(report, options.binary, recording))
        tasks.create_task(at_full_speed(report, options.binary, recording))


if __name__ == "__main__":
    run(main)
