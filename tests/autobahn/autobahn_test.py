"""Runs the Autobahn cases against our reader and writer of WebSocket frames: python3 autobahn_test.py --echo PROGRAM

Owns the judgement of RFC 6455 and RFC 7692: framing, pings, reserved bits, opcodes, fragments, UTF-8, closing, odd sizes
and compression (groups 1 to 7, 10, 12 and 13). Needs the package `kosoku`, which drives the Autobahn case files. One line a group and one for each failed
case; the exit code is 1 when a case failed.
"""

import argparse
import collections
import json
import subprocess
import sys
import tempfile
from pathlib import Path

GROUPS = {
    "1": "framing", "2": "pings and pongs", "3": "reserved bits", "4": "opcodes", "5": "fragmentation", "6": "UTF-8",
    "7": "closing", "10": "odd sizes", "12": "compressed messages", "13": "what compression is agreed on",
}
# A thousand messages each, of up to 128 KiB, whole and in fragments: all sizes of one text and of one window, and of the
# others those up to 16 KiB and one in fragments. `--all` takes five minutes more.
SERIES = [*(f"12.{series}" for series in range(2, 6)), *(f"13.{series}" for series in (1, 2, 4, 5, 6, 7))]
COMPRESSED = ["12.1.*", "13.3.*", *(f"{series}.{size}" for series in SERIES for size in (1, 2, 3, 4, 5, 6, 7, 11))]
GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}
# Fewer would mean that the tool did not run them.
CASES_MIN = 360
DEADLINE_S = 900


def run(echo: str, folder: str, whole: bool) -> tuple[dict, str]:
    """Every case's result by number, and what the tool said."""
    with subprocess.Popen([echo], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        try:
            address = server.stdout.readline().strip()
            some = [f"{group}.*" for group in GROUPS if whole or group not in ("12", "13")]
            include = [argument for cases in some + COMPRESSED for argument in ("-i", cases)]
            tool = Path(sys.executable).with_name("kosoku")
            command = [str(tool), "-m", "fuzzingclient", *include, "-p", "1", "-o", folder, address]
            said = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)
        finally:
            server.stdin.close()
    index = Path(folder, "index.json")
    agents = json.loads(index.read_text()) if index.exists() else {}
    results = {case: result for agent in agents.values() for case, result in agent.items()}
    return results, (said.stdout + said.stderr)[-2000:]


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs the Autobahn cases.")
    parser.add_argument("--echo", required=True, help="the program tests/autobahn/echo.rs, built")
    parser.add_argument("--all", action="store_true", help="all sizes of compressed messages")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results, said = run(options.echo, folder, options.all)
        failed = {
            case: result for case, result in results.items()
            if result["behavior"] not in GOOD or result["behaviorClose"] not in GOOD
        }
        for case, result in failed.items():
            print(f"FAILED  case {case}: {result['behavior']}, close {result['behaviorClose']}", flush=True)
            report = Path(folder, result.get("reportfile", "none"))
            print(report.read_text()[:2000] if report.exists() else "no report", flush=True)
    for group, what in GROUPS.items():
        cases = {case: result for case, result in results.items() if case.split(".")[0] == group}
        kinds = collections.Counter(result["behavior"] for result in cases.values())
        if cases and not failed.keys() & cases.keys():
            print(f"ok      group {group}, {what}: {', '.join(f'{n} {kind}' for kind, n in kinds.items())}", flush=True)
    short = len(results) < CASES_MIN
    if short:
        print(f"FAILED  only {len(results)} cases ran: {said}", flush=True)
    print(f"{len(results) - len(failed)} passed, {len(failed) + short} failed", flush=True)
    return 1 if failed or short else 0


if __name__ == "__main__":
    sys.exit(main())
