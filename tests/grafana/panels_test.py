"""Looks at the dashboard as an operator does: every panel, in a real Prometheus that scrapes a real gateway.

    python3 panels_test.py --url http://127.0.0.1:8080 --admin http://127.0.0.1:9090

Owns the checks of dashboards/grafana and of the metrics page's form. Needs Python 3.11 and Debian's package
`prometheus`, nothing else. A few clients read along, so that there is something to see. One line a check; the exit code
is 1 when a check failed.
"""

import argparse
import contextlib
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[2]
BOARD = ROOT / "dashboards/grafana/tickgate.json"
CLIENTS = 5
DEADLINE_S = 60
SCRAPE_S = 0.5
SCRAPES = 8
# What Grafana would write: four scrapes and more.
VARIABLES = {"$__rate_interval": "3s", "$job": ".+", "$instance": ".+", "$datasource": "prometheus"}


class Report:
    """Counts and prints the checks."""

    def __init__(self) -> None:
        self.passed = self.failed = 0

    def check(self, good: bool, what: str, detail: object = "") -> bool:
        if good:
            self.passed += 1
            print(f"ok      {what}", flush=True)
        else:
            self.failed += 1
            print(f"FAILED  {what}{f': {detail}' if detail != '' else ''}", flush=True)
        return good

    def end(self) -> int:
        print(f"{self.passed} passed, {self.failed} failed", flush=True)
        return 1 if self.failed else 0


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read()


@contextlib.contextmanager
def readers(url: str):
    """Clients that read whatever comes, until the end."""
    parts = urlsplit(url)
    opened = []
    for _ in range(CLIENTS):
        stream = socket.create_connection((parts.hostname, parts.port), timeout=10)
        stream.sendall(
            f"GET /ws?symbols=@VN30 HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        stream.settimeout(None)
        threading.Thread(target=drain, args=(stream,), daemon=True).start()
        opened.append(stream)
    try:
        yield
    finally:
        for stream in opened:
            stream.close()


def drain(stream: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while stream.recv(65536):
            pass


@contextlib.contextmanager
def prometheus(admin: str, folder: str):
    """A server that scrapes the gateway; gives its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    config = Path(folder, "prometheus.yml")
    config.write_text(json.dumps({
        "global": {"scrape_interval": f"{int(SCRAPE_S * 1000)}ms", "scrape_timeout": f"{int(SCRAPE_S * 1000)}ms"},
        "scrape_configs": [{"job_name": "tickgate", "static_configs": [{"targets": [urlsplit(admin).netloc]}]}],
    }))
    log = Path(folder, "prometheus.log")
    with log.open("wb") as out:
        server = subprocess.Popen(
            ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder}/data",
             f"--web.listen-address={address}", "--log.level=warn"],
            stdout=out, stderr=subprocess.STDOUT, preexec_fn=os.setsid,
        )
    try:
        yield f"http://{address}", log
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def ask(server: str, path: str, **query: object) -> dict:
    try:
        return json.loads(fetch(f"{server}{path}?{urllib.parse.urlencode(query)}"))
    except urllib.error.HTTPError as error:
        return json.loads(error.read())


def await_scrapes(server: str, expr: str) -> bool:
    """Whether the server has seen enough of what only clients that read can cause."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        with contextlib.suppress(urllib.error.URLError, OSError, ValueError):
            found = ask(server, "/api/v1/query", query=expr)["data"]["result"]
            if found and float(found[0]["value"][1]) >= SCRAPES:
                return True
        time.sleep(0.1)  # Prometheus offers no event to await
    return False


def substituted(expr: str) -> str:
    for name, value in VARIABLES.items():
        expr = expr.replace(name, value)
    return expr


def check_panel(report: Report, server: str, panel: dict, now: float) -> None:
    """Every expression parses, names this job and instance, and has a number to show."""
    for target in panel["targets"]:
        expr = target["expr"]
        what = f"{panel['title']}: {target['legendFormat']}"
        query = substituted(expr)
        if "$" in query:
            report.check(False, what, f"a variable that the dashboard does not have: {query}")
            continue
        answer = ask(server, "/api/v1/query_range", query=query, start=now - 2, end=now, step="500ms")
        if answer["status"] != "success":
            report.check(False, what, answer.get("error"))
            continue
        values = [float(value) for series in answer["data"]["result"] for _, value in series["values"]]
        report.check(any(map(math.isfinite, values)), what, f"no number in {len(values)} values of {query}")


def check_form(report: Report, board: dict) -> None:
    """What Grafana and its users need of every panel, whatever it shows."""
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    names = [variable["name"] for variable in board["templating"]["list"]]
    report.check(names == ["datasource", "job", "instance"], "the dashboard has its three variables", names)
    report.check(board["schemaVersion"] >= 39 and board["uid"] == "tickgate", "its schema and uid are stable")
    report.check(len({panel["id"] for panel in board["panels"]}) == len(board["panels"]), "panels have own numbers")
    lacking = [
        panel["title"] for panel in panels
        if not (panel["title"] and panel["description"].endswith((".", "`")) and panel["fieldConfig"]["defaults"]["unit"])
    ]
    report.check(not lacking, "every panel has a title, a description and a unit", lacking)
    loose = [
        panel["title"] for panel in panels for target in panel["targets"]
        for selector in re.findall(r"(?:tickgate|process)_\w+(\{[^}]*\})?", target["expr"])
        if 'job=~"$job"' not in selector or 'instance=~"$instance"' not in selector
    ]
    report.check(not loose, "every selector is narrowed to the job and the instance", loose)
    fixed = [
        panel["title"] for panel in panels for target in panel["targets"]
        for window in re.findall(r"\[([^\]]+)\]", target["expr"]) if window != "$__rate_interval"
    ]
    report.check(not fixed, "every range is $__rate_interval", fixed)
    crowded = [
        (a["title"], b["title"]) for a in board["panels"] for b in board["panels"]
        if a["id"] < b["id"] and overlap(a["gridPos"], b["gridPos"])
    ]
    report.check(not crowded, "no panel lies on another", crowded)


def overlap(a: dict, b: dict) -> bool:
    apart = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
    return not (apart or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"])


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs every panel of the dashboard.")
    parser.add_argument("--url", required=True, help="the gateway, as http://host:port")
    parser.add_argument("--admin", required=True, help="its private address")
    options = parser.parse_args()
    admin = options.admin.rstrip("/")

    report = Report()
    board = json.loads(BOARD.read_text())
    made = subprocess.run([sys.executable, BOARD.with_name("make.py")], capture_output=True, check=True).stdout
    report.check(made == BOARD.read_bytes(), "make.py makes the dashboard that is committed")
    check_form(report, board)
    with readers(options.url), tempfile.TemporaryDirectory() as folder, prometheus(admin, folder) as (server, log):
        expr = "max(count_over_time((tickgate_arrival_to_written_seconds_count > 0)[1m:500ms]))"
        if not report.check(await_scrapes(server, expr), "Prometheus scrapes the gateway", log.read_text()[-500:]):
            return report.end()
        now = time.time()
        for panel in board["panels"]:
            if panel["type"] != "row":
                check_panel(report, server, panel, now)
        page = fetch(f"{admin}/metrics")
    lint = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True)
    report.check(lint.returncode == 0, "promtool has no complaints about the page",
                 (lint.stdout + lint.stderr).decode().strip())
    return report.end()


if __name__ == "__main__":
    sys.exit(main())
