"""Runs the Autobahn cases against our reader and writer of WebSocket frames: python3 autobahn_test.py --echo PROGRAM

Owns the judgement of RFC 6455: framing, pings, reserved bits, opcodes, fragments, UTF-8, closing and odd sizes (groups 1
to 7 and 10). Needs the package `kosoku`, which drives the Autobahn case files. One line a group and one for each failed
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
    "7": "closing", "10": "odd sizes",
}
GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}
# Fewer would mean that the tool did not run them.
CASES_MIN = 240
DEADLINE_S = 240


def run(echo: str, folder: str) -> tuple[dict, str]:
    """Every case's result by number, and what the tool said."""
    with subprocess.Popen([echo], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        try:
            address = server.stdout.readline().strip()
            include = [argument for group in GROUPS for argument in ("-i", f"{group}.*")]
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
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results, said = run(options.echo, folder)
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
