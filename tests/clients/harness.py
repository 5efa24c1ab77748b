"""Starts real gateways for the black-box tests, and lines to them, asks their operators' pages, and counts what passed.

Linux only: memory is read from /proc.
"""

import argparse
import asyncio
import atexit
import contextlib
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
START_S = 30  # a machine that is busy with other builds starts slowly


def scratch() -> Path:
    """An empty directory, until the script ends."""
    home = tempfile.mkdtemp(prefix="tickgate-test-")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    return Path(home)


def arguments(description: str) -> argparse.ArgumentParser:
    """The arguments that every script has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--binary", default=str(ROOT / "target/release/tickgate"), help="the gateway to test")
    return parser


class Report:
    """One line a check; the last line and the exit code say how it went."""

    def __init__(self):
        self.passed = self.failed = 0
        self.begun = time.monotonic()

    def check(self, name: str, good: bool, detail: object = "") -> bool:
        """Prints one check."""
        if good:
            self.passed += 1
            print(f"ok {name}", flush=True)
        else:
            self.failed += 1
            print(f"FAILED {name}: {detail}", flush=True)
        return good

    def equal(self, name: str, got: object, expected: object) -> bool:
        """Prints one comparison."""
        return self.check(name, got == expected, f"got {got!r}, expected {expected!r}")

    def clean(self, name: str, violations: list[str]) -> bool:
        """No rule of the contract was broken."""
        return self.check(name, not violations, f"{len(violations)} violations, first: {violations[:3]}")

    def end(self) -> int:
        """The last line; the exit code."""
        print(f"took {time.monotonic() - self.begun:.1f} s")
        print(f"{self.passed} passed, {self.failed} failed", flush=True)
        return 1 if self.failed else 0


def run(main) -> None:
    """Runs a script's `main(report)`; an exception is a failed check and not a lost count."""
    report = Report()
    try:
        asyncio.run(main(report))
    except Exception as error:  # whatever ends a script early must be seen in its last line
        import traceback

        traceback.print_exc()
        report.check("the script ran to its end", False, repr(error))
    sys.exit(report.end())


def cpu_s(pid: int) -> float:
    """Processor time of the process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def http(port: int, target: str, timeout: float = 10, method: str = "GET", **more: str) -> tuple[int, dict, bytes]:
    """One HTTP/1.1 request on a connection of its own, with `more` headers: status, headers in lower case, body."""

    def ask() -> tuple[int, dict, bytes]:
        with contextlib.closing(HTTPConnection("127.0.0.1", port, timeout=timeout)) as connection:
            connection.request(method, target, headers={name.replace("_", "-"): value for name, value in more.items()})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()

    return await asyncio.to_thread(ask)


class Gateway:
    """A gateway process of our own."""

    def __init__(self, process: asyncio.subprocess.Process, lines: list[str], errors: Path):
        self.process, self.lines, self.errors = process, lines, errors
        text = "\n".join(lines)
        self.port = int(re.search(r"ws://[^/]*:(\d+)/", text)[1])
        self.admin_port = int(re.search(r"http://[^/]*:(\d+)/metrics", text)[1])
        self.memory_mib = int(re.search(r"at most (\d+) MiB in the process", text)[1])
        self.url = f"ws://127.0.0.1:{self.port}/ws"

    @classmethod
    async def start(cls, binary: str, *feeds: str, config: str = "", listen: str = "127.0.0.1:0", log: str = "info") -> "Gateway":
        """Starts it and reads the lines that say where it serves."""
        home = scratch()
        command = [binary, "serve", "--listen", listen, "--admin", "127.0.0.1:0", "--log", log]
        for feed in feeds:
            command += ["--feed", feed]
        if config:
            (home / "tickgate.toml").write_text(config)
            command += ["--config", str(home / "tickgate.toml")]
        errors = home / "stderr"
        with errors.open("wb") as sink:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=sink
            )
        lines = []
        async with asyncio.timeout(START_S):
            while not any("memory" in line for line in lines):
                line = (await process.stdout.readline()).decode()
                if not line:
                    await process.wait()
                    raise RuntimeError(f"the gateway ended with {process.returncode}: {errors.read_text()}")
                lines.append(line.rstrip())
        return cls(process, lines, errors)

    def rss_mib(self) -> float:
        """Memory of the process in RAM."""
        return self.status_mib("VmRSS")

    def peak_mib(self) -> float:
        """The most that it ever was."""
        return self.status_mib("VmHWM")

    def status_mib(self, name: str) -> float:
        """A figure of the process's status page."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) / 1024

    async def metrics(self) -> dict[str, float]:
        """Every sample of /metrics by its name with labels."""
        _, _, body = await http(self.admin_port, "/metrics")
        lines = (line.rsplit(" ", 1) for line in body.decode().splitlines() if line and line[0] != "#")
        return {name: float(value) for name, value in lines}

    async def metric_reaches(self, name: str, value: float, timeout: float) -> float:
        """Waits until a counter stands at `value`; shards publish once a second. Returns the last value seen."""
        deadline = time.monotonic() + timeout
        while (seen := (await self.metrics()).get(name, 0.0)) < value and time.monotonic() < deadline:
            await asyncio.sleep(0.1)  # a page offers no event to await
        return seen

    async def stop(self, how: signal.Signals = signal.SIGTERM, timeout: float = 15) -> int:
        """Ends the process; its exit code."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(how)
        try:
            async with asyncio.timeout(timeout):
                return await self.process.wait()
        except TimeoutError:
            self.process.kill()
            return await self.process.wait()

    async def __aenter__(self) -> "Gateway":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


class Line:
    """A port that leads to the gateway's until it is cut.

    `heads` is what was asked, piece by piece, and `told` what each connection was answered.
    """

    def __init__(self, port: int):
        self.to, self.heads, self.told, self.writers = port, [], [], set()

    async def open(self) -> "Line":
        self.server = await asyncio.start_server(self.join, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.to)
        except OSError:
            return writer.close()
        self.writers |= {writer, far_writer}
        self.told.append(told := bytearray())
        await asyncio.gather(self.carry(reader, far_writer, self.heads.append), self.carry(far_reader, writer, told.extend))
        self.writers -= {writer, far_writer}

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, note: Callable) -> None:
        try:
            while data := await reader.read(1 << 16):
                note(data)
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        writer.close()

    def cut(self) -> None:
        """Breaks every connection, in both directions at once."""
        for writer in self.writers:
            writer.transport.abort()
