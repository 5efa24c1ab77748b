"""Runs every test in Python, those that need a real gateway against one of their own: python3 blackbox.py --target target

Owns the list of such tests (TESTS: one line each) and the life of their gateways: free ports, a log, and an end in good
order, which is a check too. A test is a program of its own that prints `ok ..` and `FAILED ..` lines and, as its last
line, `N passed, N failed`. The last line here is the sum.
"""

import argparse
import contextlib
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
START_S = 20
END_S = 20
TEST_S = 300


class Test(NamedTuple):
    """`arguments` may name {url}, {ws}, {admin}, {pid}, {program} and {target}; no `gateway`: the test starts its own."""

    name: str
    script: str
    arguments: str
    gateway: str | None = "--feed synthetic:vn30"
    # It mostly waits: it runs beside the tests after it.
    waits: bool = False


TESTS = [
    Test("resume", "tests/clients/resume_test.py", "--binary {program}", None, waits=True),
    Test("capture", "tests/clients/capture_test.py", "--binary {program}", None, waits=True),
    Test("stream", "tests/clients/stream_test.py", "--binary {program}", None, waits=True),
    Test("restart", "tests/clients/restart_test.py", "--binary {program}", None, waits=True),
    Test("vectors", "tests/clients/vectors_test.py", "", None),
    Test("asyncapi", "tests/clients/asyncapi_test.py", "", None),
    Test("board", "tests/board/board_test.py",
         "--url {url} --admin {admin} --pid {pid} --screenshot {target}/board.png"),
    Test("browser", "tests/board/stream_test.py", "--binary {program}", None),
    Test("grafana", "tests/grafana/panels_test.py", "--url {url} --admin {admin}"),
    Test("contract", "tests/clients/contract_test.py", "--url {ws}/ws"),
    Test("bad_input", "tests/clients/bad_input_test.py", "--binary {program}", None),
    Test("http", "tests/clients/http_test.py", "--binary {program}", None),
    Test("rest", "tests/clients/rest_test.py", "--binary {program}", None),
    Test("msgpack", "tests/clients/msgpack_test.py", "--binary {program}", None),
    Test("session", "tests/clients/session_test.py", "--binary {program} --node {target}/node", None),
    Test("stalled", "tests/clients/stalled_test.py", "--binary {program}", None),
    Test("memory", "tests/clients/memory_test.py", "--binary {program}", None),
    Test("peers", "tests/clients/peers_test.py", "--binary {program}", None),
    Test("edge", "tests/clients/edge_test.py", "--binary {program}", None, waits=True),
    Test("silence", "tests/clients/silence_test.py", "--binary {program}", None, waits=True),
    Test("autobahn", "tests/autobahn/autobahn_test.py", "--echo {target}/release/examples/echo", None),
]


class Gateway:
    """One gateway on free ports, from its first line to its end."""

    def __init__(self, program: Path, arguments: str, log: Path) -> None:
        self.log = log.open("wb")
        self.process = subprocess.Popen(
            [program, "serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", *arguments.split()],
            stdout=subprocess.PIPE, stderr=self.log, text=True,
        )
        # A gateway that says nothing must not hold us up for ever.
        watch = threading.Timer(START_S, self.process.kill)
        watch.start()
        self.said = ""
        while not re.search(r"^  metrics +http://\S+", self.said, re.MULTILINE):
            line = self.process.stdout.readline()
            if not line:
                break
            self.said += line
        watch.cancel()
        # The rest goes to the log, so that the pipe never fills.
        threading.Thread(target=self.drain, daemon=True).start()

    def drain(self) -> None:
        with contextlib.suppress(ValueError):
            for line in self.process.stdout:
                self.log.write(line.encode())

    def addresses(self) -> dict:
        found = dict(re.findall(r"^  (page|metrics) +(http://\S+)", self.said, re.MULTILINE))
        if len(found) < 2:
            raise RuntimeError(f"the gateway did not start; it said {self.said!r}, and {self.log.name}")
        url = found["page"].rstrip("/")
        return {
            "url": url, "ws": url.replace("http", "ws", 1), "admin": found["metrics"].removesuffix("/metrics"),
            "pid": self.process.pid,
        }

    def end(self) -> str:
        """Ends it as an operator does; says what was wrong, or nothing."""
        early = self.process.poll()
        if early is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self.process.wait(END_S)
            self.log.close()
            return "" if (early, code) == (None, 0) else f"ended {'early ' * (early is not None)}with {code}"
        self.process.kill()
        self.process.wait()
        return f"did not end within {END_S} s of SIGTERM"


def run(test: Test, target: Path) -> tuple[int, int]:
    """Runs one test; returns how many checks passed and failed."""
    program = target / "release/tickgate"
    values = {"program": program, "target": target}
    gateway, passed, failed = None, 0, 0
    if test.gateway is not None:
        gateway = Gateway(program, test.gateway, target / f"tests/{test.name}-gateway.log")
    try:
        if gateway:
            values |= gateway.addresses()
        command = [sys.executable, ROOT / test.script, *(part.format(**values) for part in test.arguments.split())]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=TEST_S)
        print(f"\n---- {test.name}\n{done.stdout}", flush=True)
        counts = re.findall(r"^(\d+) passed, (\d+) failed$", done.stdout, re.MULTILINE)
        passed, failed = map(int, counts[-1]) if counts else (0, 1)
        failed = max(failed, int(done.returncode != 0))
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        print(f"FAILED  {test.name}: {error}", flush=True)
        failed += 1
    finally:
        wrong = gateway.end() if gateway else ""
    if gateway:
        print(f"{'FAILED' if wrong else 'ok'}  the gateway ends in good order {wrong}", flush=True)
        passed, failed = passed + (not wrong), failed + bool(wrong)
    return passed, failed


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs the tests that need a real gateway.")
    parser.add_argument("--target", type=Path, default=ROOT / "target", help="where cargo builds")
    parser.add_argument("names", nargs="*", help="only these tests: " + ", ".join(test.name for test in TESTS))
    options = parser.parse_args()
    target = options.target.resolve()
    (target / "tests").mkdir(parents=True, exist_ok=True)
    known = {test.name for test in TESTS}
    if unknown := set(options.names) - known:
        parser.error(f"no test is called {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
    rows, counts = [], []

    def report(test: Test) -> None:
        begin = time.monotonic()
        good, bad = run(test, target)
        rows.append(f"== {test.name:<12}{good:4} passed {bad:4} failed {time.monotonic() - begin:6.1f} s")
        counts.append((good, bad))

    beside = []
    for test in TESTS:
        if options.names and test.name not in options.names:
            continue
        if test.waits:
            beside.append(threading.Thread(target=report, args=(test,)))
            beside[-1].start()
        else:
            report(test)
    for thread in beside:
        thread.join()
    passed, failed = (sum(column) for column in zip(*counts, strict=True))
    print("\n" + "\n".join(rows))
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
