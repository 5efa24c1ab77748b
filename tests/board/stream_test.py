"""An event stream in a browser: its own EventSource goes on by itself where the connection broke, and where the gateway restarted.

    python3 stream_test.py --binary PATH

Between browser and gateway stands a line that can be cut.
"""

import asyncio
import re
import sys
from pathlib import Path

from board_test import Page, console_errors

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "clients"))

from harness import Gateway, Line, Report, arguments, run  # noqa: E402

FEED = "synthetic:vn30?rate=500"
# Each message changes the title, which `until` observes.
LISTEN = """
window.heard = [];
window.source = new EventSource(URL);
source.onmessage = (event) => {
  heard.push({ ...JSON.parse(event.data), id: event.lastEventId });
  document.title = heard.length;
};
"""
# A page that reads events without EventSource says by itself where it was.
RESUME = """
(async () => {
  const { id } = heard.findLast((message) => message.type === 'batch' && message.id);
  const answer = await fetch(URL, { headers: { "Last-Event-ID": id } });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "", found = null;
  while (!(found = /"recovered":"?(\\w+)/.exec(text))) text += (await reader.read()).value;
  await reader.cancel();
  return { epoch: answer.headers.get("Tickgate-Epoch"), recovered: found[1] };
})()
"""
QUERY = "symbols=@VN30,trade:VCB&mode=every&rate=5"


async def until(page: Page, condition: str, seconds: float = 20) -> object:
    return await asyncio.to_thread(page.until, condition, seconds)


async def heard(page: Page, kind: str) -> list[dict]:
    """The messages of a kind so far."""
    return await asyncio.to_thread(page.evaluate, f"heard.filter((message) => message.type === '{kind}')")


def numbers(batches: list[dict]) -> list[int]:
    """The trades of the batches by their number."""
    return [row["q"] for batch in batches for row in batch["rows"] if row.get("channel") == "trade"]


def last_id(line: Line) -> str | None:
    """What the last request for a stream said that it holds."""
    asked = [head for head in line.heads if head.startswith(b"GET /stream")]
    found = re.search(rb"(?i)^last-event-id: (\S+)\r$", asked[-1], re.MULTILINE)
    return found and found[1].decode()


async def session(report: Report, page: Page, line: Line) -> str:
    """Subscribe, rows, a cut, and on from there. Returns the epoch."""
    await asyncio.to_thread(page.visit, f"http://127.0.0.1:{line.port}/")
    await asyncio.to_thread(page.evaluate, f"(() => {{ {LISTEN.replace('URL', repr(f'/stream?{QUERY}'))} return true; }})()")
    report.check("rows come", await until(page, "heard.filter((message) => message.type === 'batch').length >= 5"))
    line.cut()
    report.check("the browser comes back by itself", await until(page, "heard.filter((message) => message.type === 'subscribed').length === 2"))
    await until(page, "heard.slice(heard.findLastIndex((message) => message.type === 'subscribed')).length > 8")
    messages = await asyncio.to_thread(page.evaluate, "heard")
    again = max(at for at, message in enumerate(messages) if message["type"] == "subscribed")
    welcome, subscribed = messages[0], messages[again]
    before = [message for message in messages[:again] if message["type"] == "batch"]
    after = [message for message in messages[again:] if message["type"] == "batch"]
    cursor = f"{welcome['epoch']}:{before[-1]['rev']}:{subscribed['wish']}"
    report.equal("with the cursor of the last batch", (last_id(line), before[-1]["id"]), (cursor, cursor))
    report.check("recovered says that it goes on", subscribed["recovered"] in ("exact", "conflated"), subscribed)
    report.check("no second picture", after[0]["prev"] == subscribed["seq"] and not any("snapshot" in batch for batch in after), after[0])
    trades = numbers(before) + numbers(after)
    report.equal(f"each of {len(trades)} trades once", trades, list(range(trades[0], trades[0] + len(trades))))
    errors = await asyncio.to_thread(console_errors, page)
    report.check("the console tells of the cut alone", all("net::" in error for error in errors), errors)
    return welcome["epoch"]


async def restart(report: Report, page: Page, line: Line, epoch: str, binary: str) -> None:
    """The gateway has ended and another one begins: the browser comes when it was told to, and gets a whole picture."""
    drain, close = await heard(page, "drain"), await heard(page, "close")
    report.check("a restart is announced", drain and close and close[0]["code"] == 1012, (drain, close))
    async with await Gateway.start(binary, FEED) as another:
        line.to = another.port
        back = await until(page, "heard.filter((message) => message.type === 'subscribed').length === 3", 30)
        report.check("and the browser comes back to it", back)
        await until(page, "heard.at(-1).type === 'batch'")
        epochs = {welcome["epoch"] for welcome in await heard(page, "welcome")}
        report.equal("whose revisions are others", len(epochs - {epoch}), 1)
        report.equal("so that it begins anew", (await heard(page, "subscribed"))[-1]["recovered"], "reset")
        await asyncio.to_thread(page.evaluate, "(source.close(), true)")
        await stranger(report, page, line, another)


async def stranger(report: Report, page: Page, line: Line, gateway: Gateway) -> None:
    """A page of another origin may listen too; a browser that asks for what is not there gives up."""
    # The board's own policy would not let it: a document without one.
    await asyncio.to_thread(page.visit, f"http://127.0.0.1:{line.port}/v1/groups")
    url = f"http://127.0.0.1:{gateway.port}/stream?"
    await asyncio.to_thread(page.evaluate, f"(() => {{ {LISTEN.replace('URL', repr(url + QUERY))} return true; }})()")
    report.check("a page of another origin may listen", await until(page, "heard.some((message) => message.type === 'batch')"))
    resumed = await asyncio.to_thread(page.evaluate, RESUME.replace("URL", repr(url + QUERY)))
    epoch = (await heard(page, "welcome"))[0]["epoch"]
    report.check("and go on with a request of its own, where it can read the epoch",
                 resumed["epoch"] == epoch and resumed["recovered"] in ("exact", "conflated"), resumed)
    wrong = f"new Promise((resolve) => {{ const wrong = new EventSource('{url}symbols=NOPE'); wrong.onerror = () => resolve(wrong.readyState); }})"
    report.equal("what is not there is not asked for again", await asyncio.to_thread(page.evaluate, wrong), 2)


async def main(report: Report) -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--chromium", default="/usr/bin/chromium", help="the browser")
    options = parser.parse_args()
    gateway = await Gateway.start(options.binary, FEED)
    line = await Line(gateway.port).open()
    page = await asyncio.to_thread(Page, options.chromium)
    try:
        for domain in ("Page", "Runtime", "Log"):
            await asyncio.to_thread(page.call, f"{domain}.enable")
        epoch = await session(report, page, line)
        await gateway.stop()
        await restart(report, page, line, epoch, options.binary)
    finally:
        await asyncio.to_thread(page.close)
        await gateway.stop()


if __name__ == "__main__":
    run(main)
