"""Looks at the board as a trader does: in a browser, against a running gateway.

    python3 board_test.py --url http://127.0.0.1:8080 [--admin URL] [--pid PID] [--screenshot PATH]

Owns every check of the live page. Needs Python 3.11, the package `websockets` and Chromium, which it drives over the
DevTools protocol. Nothing waits by sleeping: each condition is awaited inside the page by a MutationObserver, with a
deadline. With --pid the gateway is stopped (SIGSTOP) and continued, to see the page notice both. One line a check;
the exit code is 1 when a check failed and 2 when there was nothing to look at.
"""

import argparse
import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlsplit

from websockets.sync.client import connect

ROWS = 31  # VN30: the index, as a tile, and its thirty members
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--no-default-browser-check",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--remote-debugging-port=0",
]
DESK = {"width": 1280, "height": 800, "deviceScaleFactor": 1, "mobile": False}

# What every check in the page may use. `until` resolves with the first true value of a condition, or null.
TOOLS = """
const rows = () => [...document.querySelectorAll('#rows-board > tr')];
const tiles = () => [...document.querySelectorAll('#tiles > [data-topic]')];
const everything = () => [...document.querySelectorAll('[data-topic]')];
const visible = (node) => node !== null && node.getClientRects().length > 0;
const texts = (key) => rows().map((row) => row.querySelector('.' + key).textContent);
const until = (condition, ms) => new Promise((resolve) => {
  const finish = (value) => { observer.disconnect(); clearTimeout(timer); resolve(value); };
  const look = () => { const value = condition(); if (value) finish(value); };
  const observer = new MutationObserver(look);
  const timer = setTimeout(() => finish(condition() || null), ms);
  observer.observe(document, { subtree: true, childList: true, characterData: true, attributes: true });
  look();
});
"""

# Installed before the page's own scripts.
WITNESS = """
window.violations = [];
document.addEventListener('securitypolicyviolation', (e) => violations.push(e.violatedDirective + ' ' + e.blockedURI));
"""

CHANGED_ROWS = """
new Promise((resolve) => {
  const seen = new Set();
  const finish = () => { observer.disconnect(); clearTimeout(timer); resolve(seen.size); };
  const observer = new MutationObserver((changes) => {
    for (const { target } of changes) {
      const node = target.nodeType === 1 ? target : target.parentElement;
      const row = node?.closest('[data-topic]');
      if (row && !node.closest('.state') && !row.closest('#rows-own')) seen.add(row.dataset.topic);
    }
    if (seen.size >= LEAST) finish();
  });
  const timer = setTimeout(finish, 10000);
  for (const id of ['table', 'tiles']) {
    observer.observe(document.getElementById(id), { subtree: true, childList: true, characterData: true });
  }
})
"""


class Page:
    """One tab of one Chromium, and what it has told so far."""

    def __init__(self, chromium: str):
        self.home = tempfile.mkdtemp(prefix="board-test-")
        self.process = subprocess.Popen(
            [chromium, *FLAGS, f"--user-data-dir={self.home}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=os.environ | {"TMPDIR": self.home},  # it leaves its sockets there when it is ended
        )
        self.events: list[dict] = []
        self.last_id = 0
        self.open = contextlib.ExitStack()
        self.socket = self.open.enter_context(connect(self._target(), max_size=None, open_timeout=10))

    def _target(self) -> str:
        """The tab's DevTools address; Chromium writes its port to a file once it listens."""
        port_file, deadline = Path(self.home, "DevToolsActivePort"), time.monotonic() + 30
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError("Chromium ended before it could be reached")
            try:
                port = port_file.read_text().split()[0]
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=5) as answer:
                    return next(t for t in json.load(answer) if t["type"] == "page")["webSocketDebuggerUrl"]
            except (OSError, IndexError, StopIteration):
                time.sleep(0.05)  # a file offers no event to await
        raise RuntimeError("Chromium did not open its DevTools port within 30 s")

    def call(self, method: str, timeout: float = 30, **params) -> dict:
        """One DevTools command; events that arrive meanwhile are kept."""
        self.last_id += 1
        self.socket.send(json.dumps({"id": self.last_id, "method": method, "params": params}))
        deadline = time.monotonic() + timeout
        while True:
            message = json.loads(self.socket.recv(timeout=max(0.1, deadline - time.monotonic())))
            if message.get("id") == self.last_id:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']['message']}")
                return message["result"]
            if "method" in message and message["method"] != "Network.webSocketFrameReceived":
                self.events.append(message)

    def evaluate(self, expression: str, timeout: float = 30):
        """The value of an expression in the page; a promise is awaited."""
        answer = self.call(
            "Runtime.evaluate", timeout, expression=f"(() => {{ {TOOLS} return ({expression}); }})()",
            awaitPromise=True, returnByValue=True,
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"].get("description", expression))
        return answer["result"].get("value")

    def visit(self, url: str) -> None:
        """Goes to a page and waits until it is loaded, which `until` would not see of one that does not change."""
        self.call("Page.navigate", url=url)
        self.evaluate("document.readyState === 'complete' || new Promise((done) => addEventListener('load', () => done(true)))")

    def until(self, condition: str, seconds: float):
        """The first true value of the condition within that time, or None."""
        return self.evaluate(f"until(() => {condition}, {int(seconds * 1000)})", seconds + 20)

    def press(self, key: str) -> None:
        """One key, as from the keyboard."""
        text = {"Enter": "\r"}.get(key, key)
        for kind in ("keyDown", "keyUp"):
            typed = {"text": text} if kind == "keyDown" and len(text) == 1 else {}
            codes = {"windowsVirtualKeyCode": 13} if key == "Enter" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, **typed, **codes)

    def type(self, selector: str, text: str) -> None:
        """Puts text into an empty field, as from the keyboard."""
        self.evaluate(f"(document.querySelector({json.dumps(selector)}).focus(), true)")
        self.call("Input.insertText", text=text)

    def seen(self, *methods: str) -> list[dict]:
        """The parameters of those events so far."""
        return [event["params"] for event in self.events if event["method"] in methods]

    def close(self) -> None:
        self.open.close()
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.home, ignore_errors=True)


class Report:
    """Prints each check as it is made and counts."""

    def __init__(self):
        self.passed = self.failed = 0

    def check(self, good, what: str, detail: object = "") -> bool:
        if good:
            self.passed += 1
            print(f"ok      {what}", flush=True)
        else:
            self.failed += 1
            print(f"FAILED  {what}{f': {detail}' if detail != '' else ''}", flush=True)
        return bool(good)

    def end(self) -> int:
        print(f"{self.passed} passed, {self.failed} failed", flush=True)
        return 1 if self.failed else 0


def console_errors(page: Page) -> list[str]:
    """What a developer would see in red in the console."""
    logged = [e["entry"]["text"] for e in page.seen("Log.entryAdded") if e["entry"]["level"] == "error"]
    printed = [
        " ".join(str(arg.get("value", arg.get("description", ""))) for arg in e["args"])
        for e in page.seen("Runtime.consoleAPICalled") if e["type"] in ("error", "assert")
    ]
    thrown = [
        e["exceptionDetails"].get("exception", {}).get("description", e["exceptionDetails"]["text"])
        for e in page.seen("Runtime.exceptionThrown")
    ]
    return logged + printed + thrown


def check_first_sight(page: Page, report: Report) -> bool:
    count = page.until(f"rows().length + tiles().length >= {ROWS} && rows().length + tiles().length", 10)
    if not report.check(count == ROWS, f"{ROWS} rows within 10 s", count or page.evaluate("document.body.innerText.slice(0, 300)")):
        if not count:
            return False
    tile = page.until("tiles().some((tile) => visible(tile) && /[0-9]/.test(tile.querySelector('.last').textContent))", 5)
    report.check(tile, "the index stands as a tile, with its value")
    badge = page.until("visible(document.getElementById('simulated')) && document.getElementById('simulated').textContent", 5)
    report.check(badge and "simulated" in badge.lower(), "the page says that the market is simulated", badge)
    changed = page.evaluate(CHANGED_ROWS.replace("LEAST", "25"), 30)
    report.check(changed >= 25, "at least 25 rows changed within 10 s", changed)
    report.check(page.until("document.getElementById('link').dataset.state === 'live'", 5), "the page says that it is connected")
    answers = [e["response"]["headers"] for e in page.seen("Network.webSocketHandshakeResponseReceived")]
    agreed = [text for headers in answers for key, text in headers.items() if key.lower() == "sec-websocket-extensions"]
    report.check(agreed and "permessage-deflate" in agreed[0], "the browser's connection is compressed", answers)
    measured = page.until("/ms/.test(document.getElementById('round-trip').textContent)", 8)
    report.check(measured, "the round trip is measured")
    missed = page.evaluate("document.getElementById('missed').textContent")
    report.check(missed == "0", "nothing was missed", missed)
    report.check(page.evaluate("texts('last').every((text) => /^[0-9,.\\u2013]+$/.test(text))"), "prices are plain decimals")
    return True


def check_sorting(page: Page, report: Report) -> None:
    def order() -> list[str]:
        return page.evaluate("texts('symbol')")

    def click(key: str) -> str | None:
        return page.evaluate(
            f"(document.querySelector('thead .{key} button').click(), document.querySelector('thead .{key}').ariaSort)")

    click("symbol")
    said, names = click("symbol"), order()
    report.check(said == "descending" and names == sorted(names, reverse=True), "sorts by symbol", names[:5])
    said = click("reference")
    numbers = [Decimal(text.replace(",", "")) for text in page.evaluate("texts('reference')") if text != "\u2013"]
    report.check(said == "descending" and numbers == sorted(numbers, reverse=True), "sorts by a number, highest first", numbers[:5])
    page.evaluate("(document.querySelector('thead .symbol button').focus(), true)")
    page.press("Enter")
    names = order()
    report.check(names == sorted(names), "sorts by the keyboard", names[:5])
    if {click("symbol"), click("symbol")} != {"descending", None}:
        report.check(False, "a third click gives the gateway's order again")


def check_search(page: Page, report: Report) -> None:
    name = page.evaluate("rows()[3].dataset.topic")
    page.evaluate("(document.activeElement.blur(), true)")
    page.press("/")
    report.check(page.evaluate("document.activeElement.id") == "search", "the key / goes to the search")
    page.type("#search", name.lower())
    shown = page.evaluate("rows().filter(visible).map((row) => row.dataset.topic)")
    report.check(name in shown and len(shown) < ROWS - 1 and all(name in each for each in shown), "the search filters", shown)
    page.press("Escape")
    report.check(page.until(f"rows().filter(visible).length === {ROWS - 1}", 5), "the key Escape shows all again")


def check_own_symbols(page: Page, report: Report) -> None:
    unknown = "NO-SUCH-SYMBOL"
    page.type("#topic", unknown)
    page.press("Enter")
    said = page.until("visible(document.getElementById('own-error')) && document.getElementById('own-error').textContent", 5)
    report.check(said and unknown in said, "an unknown symbol is refused in words", said)
    kept = page.evaluate("localStorage.getItem('tickgate.own') ?? ''")
    report.check(unknown not in kept, "and is not kept", kept)

    name = page.evaluate("rows()[0].dataset.topic")
    page.evaluate("(document.getElementById('topic').value = '', true)")
    page.type("#topic", name)
    page.press("Enter")
    own = f"document.querySelector('#rows-own > tr[data-topic={json.dumps(name)}] .last')"
    report.check(page.until(f"/[0-9]/.test({own}?.textContent)", 5), "a symbol of one's own stands on top, with its price")
    kept = page.evaluate("localStorage.getItem('tickgate.own') ?? ''")
    report.check(name in kept, "and is kept for the next visit", kept)
    page.evaluate("(document.querySelector('#rows-own .remove').click(), true)")
    report.check(page.until("document.querySelectorAll('#rows-own > tr').length === 0", 5), "and can be removed")


def check_exactness(page: Page, report: Report) -> None:
    """Seventeen digits and more, which a JavaScript number would round."""
    said = page.evaluate(
        "import(new URL('decimal.js', document.baseURI)).then(({ compare, fixed, group, signed }) => ["
        " compare('9007199254740993.1', '9007199254740993.2'), compare('27.350', '27.35'), compare('-0.5', '0'),"
        " fixed('27.3', 2), fixed('0.2451', 2), fixed('-0.245', 2), fixed('999.995', 2), fixed('-0.001', 2),"
        " group('9007199254740993.10'), signed('-1234.5')])")
    wanted = [-1, 0, -1, "27.30", "0.25", "-0.25", "1000.00", "0.00", "9,007,199,254,740,993.10", "\u22121,234.5"]
    report.check(said == wanted, "decimals are exact beyond seventeen digits", said)


def check_looks(page: Page, report: Report) -> None:
    """Both themes, and a telephone."""
    grounds = set()
    for _ in range(3):
        page.evaluate("(document.getElementById('theme').click(), true)")
        grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    report.check(len(grounds) == 2, "there is a light and a dark theme", grounds)
    page.call("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=2, mobile=True)
    width = page.until("innerWidth === 390 && document.documentElement.scrollWidth", 5)
    report.check(width == 390, "a telephone of 390 pixels shows it without scrolling sideways", width)
    page.call("Emulation.setDeviceMetricsOverride", **DESK)


def check_manners(page: Page, report: Report, url: str) -> None:
    host = urlsplit(url).netloc
    documents = [e["response"] for e in page.seen("Network.responseReceived") if e["type"] == "Document"]
    headers = {key.lower(): text for key, text in documents[-1]["headers"].items()} if documents else {}
    report.check("default-src 'self'" in headers.get("content-security-policy", ""), "served with a strict Content-Security-Policy", headers)
    report.check(headers.get("x-content-type-options") == "nosniff", "served with X-Content-Type-Options: nosniff", headers)
    violations = page.evaluate("violations")
    report.check(not violations, "no violation of the Content-Security-Policy", violations)
    asked = [e["request"]["url"] for e in page.seen("Network.requestWillBeSent")]
    asked += [e["url"] for e in page.seen("Network.webSocketCreated")]
    others = sorted({each for each in asked if urlsplit(each).netloc != host})
    report.check(asked and not others, "no request to another origin", others)
    errors = console_errors(page)
    report.check(not errors, "no error on the console", errors[:3])


def check_lost_connection(page: Page, report: Report, pid: int) -> None:
    stale = "everything().filter((row) => row.dataset.state === 'stale').length"
    before = page.evaluate(stale)  # a row may be stale by the gateway's own word
    os.kill(pid, signal.SIGSTOP)
    stopped = time.monotonic()
    try:
        said = page.until(
            "visible(document.getElementById('alarm')) && /No data for .* old/.test(document.getElementById('alarm').innerText)"
            " && document.getElementById('alarm').innerText", 10)
        report.check(said, "within 10 s of silence the page says in words that prices are old", page.evaluate("document.getElementById('alarm').innerText"))
        if said:
            print(f"        after {time.monotonic() - stopped:.1f} s: {said.splitlines()[0]}", flush=True)
        fresh = page.evaluate(
            "everything().filter((row) => row.dataset.state !== 'stale' || row.querySelector('.word').textContent !== 'stale'"
            " || getComputedStyle(row).backgroundImage === 'none').map((row) => row.dataset.topic)")
        report.check(not fresh and page.evaluate("everything().length") >= ROWS, "and every row looks stale", fresh)
    finally:
        os.kill(pid, signal.SIGCONT)
    back = page.until(
        "!visible(document.getElementById('alarm')) && document.getElementById('link').dataset.state === 'live'"
        f" && everything().length >= {ROWS} && {stale} <= {before}", 30)
    report.check(back, "the page recovers once the gateway goes on", page.evaluate("document.body.innerText.slice(0, 300)"))
    changed = page.evaluate(CHANGED_ROWS.replace("LEAST", "5"), 30)
    report.check(changed >= 5, "and prices move again", changed)


def wait_ready(admin: str) -> bool:
    """Whether the gateway calls itself ready within 20 s."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{admin.rstrip('/')}/readyz", timeout=5) as answer:
                if answer.status == 200:
                    return True
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.1)  # readiness offers no event to await
    return False


def main() -> int:
    parser = argparse.ArgumentParser(description="Checks the board in a browser.")
    parser.add_argument("--url", required=True, help="the gateway, as http://host:port")
    parser.add_argument("--admin", help="the gateway's private address: waits until /readyz says so")
    parser.add_argument("--pid", type=int, help="the gateway's process: stopped and continued, to see the page notice")
    parser.add_argument("--screenshot", help="where to write a picture of the page (PNG)")
    parser.add_argument("--chromium", default="/usr/bin/chromium", help="the browser")
    options = parser.parse_args()

    report = Report()
    if options.admin and not report.check(wait_ready(options.admin), "the gateway is ready within 20 s"):
        report.end()
        return 2
    page = Page(options.chromium)
    try:
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        page.call("Emulation.setDeviceMetricsOverride", **DESK)
        page.call("Page.addScriptToEvaluateOnNewDocument", source=WITNESS)
        answer = page.call("Page.navigate", url=options.url)
        if not report.check("errorText" not in answer, "the page opens", answer.get("errorText", "")):
            report.end()
            return 2
        seen = check_first_sight(page, report)
        if options.screenshot:
            picture = page.call("Page.captureScreenshot", format="png")["data"]
            Path(options.screenshot).write_bytes(base64.b64decode(picture))
        if seen:
            check_sorting(page, report)
            check_search(page, report)
            check_own_symbols(page, report)
            check_exactness(page, report)
            check_looks(page, report)
        check_manners(page, report, options.url)
        if options.pid:
            check_lost_connection(page, report, options.pid)
    finally:
        page.close()
    return report.end()


if __name__ == "__main__":
    sys.exit(main())
