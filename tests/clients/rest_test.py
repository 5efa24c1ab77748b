"""One-off answers by curl: every form says the same, and history says what clients were told.

    python3 rest_test.py --binary PATH
"""

import asyncio
import csv
import io
import itertools
import json

from contract import INDEX, QUOTE, Client
from harness import Gateway, Report, arguments, run

# Slow enough that the market stands still between two answers, most of the time.
CALM = "synthetic:vn30?rate=10"
BUSY = "synthetic:vn30?rate=2000"
TRIES = 50
KEY = ["symbol", "rev", "q", "time_us"]
LEVELS = [*KEY, "state", "side", "level", "price", "size"]
TRADE = [*KEY, "price", "size", "side", "kind", "trade_id", "ref_trade_id", "source_seq"]
BAR = [*KEY, "start_us", "open", "high", "low", "close", "volume", "trades", "partial"]
TYPES = {"json": "application/json", "ndjson": "application/x-ndjson", "csv": "text/csv; charset=utf-8; header=present"}


async def curl(gateway: Gateway, target: str, *options: str) -> tuple[int, str, str]:
    """Status, content type and body."""
    process = await asyncio.create_subprocess_exec(
        "curl", "--silent", "--globoff", "--write-out", "\n%{http_code} %{content_type}", *options,
        f"http://127.0.0.1:{gateway.port}{target}", stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 20)
    body, _, told = out.decode().rpartition("\n")
    status, _, kind = told.partition(" ")
    return int(status), kind, body


def read(text: str) -> object:
    """JSON with every number as it is written."""
    return json.loads(text, parse_float=str, parse_int=str)


def cell(value: object) -> str:
    """What a value is in CSV."""
    if value is None or isinstance(value, bool):
        return {None: "", True: "true", False: "false"}[value]
    return str(value)


def table(text: str) -> tuple[list[str], list[dict]]:
    """The names and the lines of CSV, whose line ends are as they should be."""
    assert text.endswith("\r\n") and text.count("\n") == text.count("\r\n"), text[:200]
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    lines = list(reader)
    assert all(None not in line and None not in line.values() for line in lines), "a line of another length"
    return list(reader.fieldnames), lines


def levels(row: dict) -> list[dict]:
    """A book's row as lines of CSV."""
    return [
        {**{name: row[name] for name in [*KEY, "state"]}, "side": side, "level": str(at), "price": price, "size": size}
        for side in ("bid", "ask") for at, (price, size) in enumerate(row[f"{side}s"], 1)
    ]


async def forms(report: Report, gateway: Gateway, target: str, columns: list[str], least: int, expand=lambda row: [row]) -> None:
    """The three forms of the same answer, of a moment when nothing moved."""
    join = "&" if "?" in target else "?"
    for _ in range(TRIES):
        before, lines, cells, after = [
            await curl(gateway, target + join + f"format={form}") for form in ("json", "ndjson", "csv", "json")]
        key = next(key for key, value in read(before[2]).items() if isinstance(value, list))
        rows = read(before[2])[key]
        if rows == read(after[2])[key]:
            break
    for form, answer in zip(("json", "ndjson", "csv"), (before, lines, cells), strict=True):
        report.equal(f"{target}: {form}", answer[:2], (200, TYPES[form]))
    report.equal(f"{target}: {len(rows)} lines of NDJSON are the rows", [read(line) for line in lines[2].splitlines()], rows)
    names, found = table(cells[2])
    report.equal(f"{target}: the columns", names, columns)
    expected = [{name: cell(row.get(name)) for name in columns} for whole in rows for row in expand(whole)]
    report.equal(f"{target}: {len(found)} lines of CSV are the rows", found, expected)
    report.check(f"{target}: {len(rows)} rows", len(rows) >= least, len(rows))


async def pictures(report: Report, binary: str) -> None:
    """What there is now."""
    both = QUOTE + [name for name in INDEX if name not in QUOTE]
    async with await Gateway.start(binary, CALM) as gateway:
        await forms(report, gateway, "/v1/snapshot", KEY + both, 31)
        await forms(report, gateway, "/v1/snapshot?symbols=@VN30&fields=last,bid,turnover", [*KEY, "state", "last", "bid", "turnover"], 31)
        await forms(report, gateway, "/v1/snapshot?symbols=VN30", KEY + INDEX, 1)
        await forms(report, gateway, "/v1/snapshot?symbols=VCB,FPT&filter=reference+%3E+0", KEY + QUOTE, 1)
        await forms(report, gateway, "/v1/snapshot?symbols=book:@VN30&depth=3", LEVELS, 30, levels)
        await forms(report, gateway, "/v1/symbols", ["symbol", "channel", "feed", "simulated"], 31)
        await forms(report, gateway, "/v1/groups", ["group", "symbol"], 1,
                    lambda row: [{"group": row["group"], "symbol": symbol} for symbol in row["symbols"]])
        for accept, form in [("text/csv", "csv"), ("application/x-ndjson", "ndjson"), ("application/json", "json"), ("*/*", "json"),
                             ("text/html, text/csv;q=0.5, */*;q=0.1", "csv")]:
            _, kind, _ = await curl(gateway, "/v1/snapshot?symbols=VCB", "--header", f"Accept: {accept}")
            report.equal(f"Accept: {accept}", kind, TYPES[form])
        _, kind, _ = await curl(gateway, "/v1/snapshot?symbols=VCB&format=json", "--header", "Accept: text/csv")
        report.equal("format comes before Accept", kind, TYPES["json"])
        _, _, head = await curl(gateway, "/v1/symbols?format=csv", "--head")
        report.check("HEAD: the type, and no lines", "text/csv" in head and "VCB" not in head, head)
        for target, status, words in [
            ("/v1/snapshot?format=xml", 400, "format: expected json, ndjson or csv"),
            ("/v1/snapshot?format=csv&format=csv", 400, "format: given twice"),
            ("/v1/snapshot?symbols=VCB,NOPE&format=csv", 404, "NOPE: no such symbol"),
            ("/v1/snapshot?symbols=trade:VCB&format=ndjson", 400, "trade:VCB: expected quotes, indices or books"),
            ("/v1/snapshot?symbols=VCB,book:VCB&format=csv", 400, "either quotes and indices or books"),
            ("/v1/symbols?symbols=VCB", 400, 'unknown key "symbols"'),
            ("/v1/groups?fromat=csv", 400, '"format"'),
            ("/v1/nothing", 404, "/v1/history/{topic}"),
        ]:
            got, _, body = await curl(gateway, target)
            said = json.loads(body)["error"]["message"] if body.startswith("{") else body
            report.check(f"{target}: {status}", got == status and words in said, (got, body))


async def pages(gateway: Gateway, target: str, limit: int, form: str) -> list[dict]:
    """All rows and gaps from the first on, page by page."""
    since_q, found = 0, []
    while True:
        _, _, body = await curl(gateway, f"{target}?limit={limit}&since_q={since_q}&format={form}")
        if form == "json":
            page = read(body)
            rows = sorted(page["rows"] + page["gaps"], key=number)
        else:
            rows = [read(line) for line in body.splitlines()] if form == "ndjson" else table(body)[1]
        if not rows:
            return found
        found += rows
        since_q = number(rows[-1])


def number(row: dict) -> int:
    """The last number that a row or a gap speaks of."""
    return int(row["to"] if "to" in row else row["q"])


async def histories(report: Report, binary: str) -> None:
    """The events of a topic, as those were given them who watched all the time."""
    async with await Gateway.start(binary, BUSY, config="[limits]\nlog_events_max = 4000\n") as gateway:
        client = await Client.connect(gateway.url)
        seen: dict[str, dict[int, dict]] = {"trade:FPT": {}, "bar_1s:FPT": {}}

        def note(_: object, topic: str, row: dict) -> None:
            if row.get("final", True):
                seen[topic][row["q"]] = row

        client.on_row = note
        await client.subscribe("trade:FPT", "bar_1s:FPT", mode="every")
        first = {"trade:FPT": client.subs["1"].q["trade:FPT"] + 1, "bar_1s:FPT": 1}
        await client.until(lambda: len(seen["trade:FPT"]) > 200 and len(seen["bar_1s:FPT"]) > 2, 60, "events")
        await client.command(action="unsubscribe", sub="1")
        for topic, columns in (("trade:FPT", TRADE), ("bar_1s:FPT", BAR)):
            watched = {q: row for q, row in seen[topic].items() if q >= first[topic]}
            for form in TYPES:
                found = await pages(gateway, f"/v1/history/{topic}", 60, form)
                rows, gaps = [row for row in found if "q" in row], [gap for gap in found if "to" in gap]
                numbers = [int(row["q"]) for row in rows]
                numbers += [q for gap in gaps for q in range(int(gap["from"]), int(gap["to"]) + 1)]
                if form == "csv":
                    report.equal(f"{topic}, csv: the columns", list(rows[0]), columns)
                else:
                    report.equal(f"{topic}, {form}: every number once", sorted(numbers), list(range(1, max(numbers) + 1)))
                    report.check(f"{topic}, {form}: {len(gaps)} gaps", {gap["reason"] for gap in gaps} <= {"log_overrun"}, gaps)
                both = [(row, watched[int(row["q"])]) for row in rows if int(row["q"]) in watched]
                wrong = [(row, told) for row, told in both if any(cell(row.get(name)) != cell(told.get(name)) for name in columns)]
                report.check(f"{topic}, {form}: {len(both)} rows of {len(watched)} are as they were told",
                             not wrong and len(both) >= len(watched) / 2, wrong[:1])
        status, _, body = await curl(gateway, "/v1/history/trade:FPT")
        page = json.loads(body)
        report.equal("the last 100, if nothing is said", (status, len(page["rows"]), page["more"], page["topic"]), (200, 100, False, "trade:FPT"))
        order = all(a["q"] < b["q"] and a["rev"] < b["rev"] for a, b in itertools.pairwise(page["rows"]))
        report.check("oldest first, up to the last", order and page["rows"][-1]["q"] == page["last_q"] and page["first_q"] >= 1, page["rows"][:2])
        status, _, body = await curl(gateway, "/v1/history/status:FPT")
        report.equal("status has one too", (status, json.loads(body)["topic"]), (200, "status:FPT"))
        for topic, status, words in [
            ("FPT", 400, "expected trade, status, bar_1s"), ("book:FPT", 400, "expected trade, status, bar_1s"),
            ("trade:NOPE", 404, "no such symbol"), ("trade:VN30", 404, "no such channel"), ("trade:@VN30", 400, "one symbol"),
            ("trade:FPT?limit=1001", 400, "1 to 1000"), ("trade:FPT?since_q=x", 400, "since_q: expected"), ("news:FPT", 400, "channel"),
        ]:
            got, _, body = await curl(gateway, f"/v1/history/{topic}")
            report.check(f"/v1/history/{topic}: {status}", got == status and words in json.loads(body)["error"]["message"], (got, body))
        report.clean("the contract is kept", client.violations)
        await client.close()


async def main(report: Report) -> None:
    """Pictures, then histories."""
    binary = arguments(__doc__.splitlines()[0]).parse_args().binary
    await pictures(report, binary)
    await histories(report, binary)


if __name__ == "__main__":
    run(main)
