"""One-off answers by curl: every form says the same.

    python3 rest_test.py --binary PATH
"""

import asyncio
import csv
import io
import json

from contract import INDEX, QUOTE
from harness import Gateway, Report, arguments, run

# Slow enough that the market stands still between two answers, most of the time.
CALM = "synthetic:vn30?rate=10"
TRIES = 50
KEY = ["symbol", "rev", "q", "time_us"]
LEVELS = [*KEY, "state", "side", "level", "price", "size"]
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
            ("/v1/nothing", 404, "/v1/groups"),
        ]:
            got, _, body = await curl(gateway, target)
            said = json.loads(body)["error"]["message"] if body.startswith("{") else body
            report.check(f"{target}: {status}", got == status and words in said, (got, body))


async def main(report: Report) -> None:
    """What there is now."""
    binary = arguments(__doc__.splitlines()[0]).parse_args().binary
    await pictures(report, binary)


if __name__ == "__main__":
    run(main)
