"""Holds the instructions of a delivered frame and row to what is written in benches/turn/instructions.json.

    python3 tests/instructions.py           compares, and fails where one has grown by more than 5 %
    python3 tests/instructions.py --write   writes the figures of now

The shard's turn runs on wires that take everything (benches/turn), under callgrind: what user space costs, without the
kernel, repeatable to a fraction of a percent. Each figure is the difference of a long and a short run, so that start-up is
no part of it. The figures belong to one compiler. Another makes other instructions of the same lines, so there a fifth more
is let pass, which the output says.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

LINES = Path(__file__).parent.parent / "benches" / "turn" / "instructions.json"
GROWTH_MAX, OTHER_COMPILER_MAX = 1.05, 1.20
# Beyond that: the rounding; and of a part, what the compiler moves between neighbours that do not change.
WHOLE_SLACK, PART_SLACK = 0.05, 0.5
# What is run, how long (short, long), and what its instructions are divided by.
WORKLOADS = {
    "broadcast 1000": (20, 120, "frame"),
    "market 500": (20, 60, "row"),
    "market 1000": (20, 60, "row"),
    "market 2000": (20, 60, "row"),
}
# Functions worth a line of their own, by a part of their name; what the compiler put into them counts as theirs.
HOT = ["Rows::put_all", "Store::find", "put_fields", "Text::put_decimal", "Batch::finish",
       "Encoder::take_times", "Shard<I>::turn", "Hub::apply", "filter_fold", "Replica::apply", "Buffer::push"]


def binary() -> str:
    """Builds the benchmark as it is shipped, and says where it is."""
    build = ["cargo", "build", "--release", "--bench", "turn", "--message-format", "json"]
    out = subprocess.run(build, check=True, capture_output=True, text=True).stdout
    found = [json.loads(line).get("executable") for line in out.splitlines() if '"name":"turn"' in line]
    return next(path for path in found if path)


def own_costs(profile: Path) -> Counter:
    """Instructions by function, without those of functions that it calls."""
    names, costs, function, called = {}, Counter(), None, False
    for line in profile.read_text().splitlines():
        if match := re.match(r"c?(fn|fi|fe|fl|ob)=\((\d+)\)(?: (.*))?$", line):
            kind, number, name = match.groups()
            if kind == "fn":
                if name:
                    names[number] = name
                if line.startswith("fn"):
                    function = names[number]
        elif line.startswith("calls="):
            called = True  # the next line is the callee's
        elif match := re.match(r"[+\-*]?\d* ?(\d+)$", line) if re.match(r"[+\-*\d]", line) else None:
            if not called and function:
                costs[function] += int(match.group(1))
            called = False
    return costs


def run(path: str, workload: str, rounds: int, unit: str) -> tuple[Counter, int]:
    """Instructions by function, and how many frames or rows there were."""
    with tempfile.TemporaryDirectory() as folder:
        profile = Path(folder) / "profile"
        valgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={profile}"]
        done = subprocess.run([*valgrind, path, *workload.split(), str(rounds)], check=True, capture_output=True, text=True)
        counts = re.search(r"frames (\d+) bytes \d+ rows encoded (\d+)", done.stdout)
        return own_costs(profile), int(counts.group(1 if unit == "frame" else 2))


def measure() -> dict[str, float]:
    """All figures of now."""
    path, figures = binary(), {}
    for workload, (short, long, unit) in WORKLOADS.items():
        (costs, units), (more_costs, more_units) = (run(path, workload, rounds, unit) for rounds in (short, long))
        each = {name: (cost - costs[name]) / (more_units - units) for name, cost in more_costs.items()}
        figures[f"{workload}, a {unit}"] = sum(each.values())
        if workload == "market 1000":
            for part in HOT:
                figures[f"{workload}, a {unit}: {part}"] = sum(cost for name, cost in each.items() if part in name)
    return {name: round(figure, 1) for name, figure in figures.items()}


def main() -> int:
    """Compares, or writes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--write", action="store_true")
    write = parser.parse_args().write
    compiler = subprocess.run(["rustc", "--version"], check=True, capture_output=True, text=True).stdout.strip()
    figures = measure()
    if write:
        LINES.write_text(json.dumps({"compiler": compiler, "instructions": figures}, indent=2) + "\n")
        return 0
    known = json.loads(LINES.read_text())
    is_other = compiler != known["compiler"]
    growth_max = OTHER_COMPILER_MAX if is_other else GROWTH_MAX
    passed = failed = 0
    for name in known["instructions"].keys() - figures.keys():
        print(f"NOT MEASURED: {name}")
        failed += 1
    for name, figure in figures.items():
        line = known["instructions"].get(name)
        slack = PART_SLACK if ": " in name else WHOLE_SLACK
        wrong = "GROWN" if line is None or figure > line * growth_max + slack else ""
        # A function that is nowhere has another name now, or became part of its caller, as another compiler may have it.
        if not figure and not is_other:
            wrong = "GONE: HOT in tests/instructions.py is to name functions that are there"
        print(f"{figure:8.1f}  was {line}  {name}  {wrong}".rstrip())
        passed, failed = passed + (not wrong), failed + bool(wrong)
    if is_other:
        print(f"the lines are of {known['compiler']}, this is {compiler}: up to {growth_max:.2f} of them is let pass")
    if failed:
        print("FAILED: if the cost is meant, write the new figures with --write, and why into the commit")
    print(f"{passed} passed, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
