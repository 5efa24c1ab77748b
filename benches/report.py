"""From the raw rows of runs to tables in Markdown: medians, and ratios with their bootstrap intervals.

Where several runs have a contender, the last one named counts. Bound: everything is held in memory, a few KB for each
measurement.
"""

import json
import math
import random
import statistics
from pathlib import Path

from contenders import FRAMES_PER_S, TITLES, WORKLOADS

CORE_FULL = 0.9  # of the server's core: it is asked for more than it can do
CLIENT_FULL = 0.9  # of the load client's core: it is the load client that is measured
EDGE_ROUNDS = 2  # a measurement that begins or ends within a round may lack a part of it

HEADINGS = {
    "broadcast": ["last client has it, p50 / p99 ms", "memory an idle client"],
    "market": ["tick to client, p50 / p99 ms", "CPU s a million rows"],
}


def interval(ratios: list[float]) -> tuple[float, float]:
    """The 90 % bootstrap interval of the median."""
    draw = random.Random(1)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(2_000))
    return medians[100], medians[1_900]


def conflation_alone_ms(share: float) -> float:
    """How old a row of the market workload is when its slot ends, whatever is sent: the quantile over all rows. Ticks of
    a symbol come independently, so the newest of rate r is older than a with probability exp(-r a)."""
    rates = [20_000 / rank / sum(1 / other for other in range(1, 1_001)) for rank in range(1, 1_001)]
    younger = lambda age_s: sum(1 - math.exp(-rate * age_s) for rate in rates)
    low_s, high_s = 0, 1 / FRAMES_PER_S
    for _ in range(30):
        middle_s = (low_s + high_s) / 2
        low_s, high_s = (middle_s, high_s) if younger(middle_s) < share * younger(1 / FRAMES_PER_S) else (low_s, middle_s)
    return low_s * 1_000


def cpu(report: dict) -> float:
    return report["server"]["cpu_us_per_frame"]


def median(reports: list[dict], *path: str) -> float | None:
    """The median of a figure; nothing where the reports have none."""
    found = []
    for report in reports:
        for name in path:
            report = (report or {}).get(name)
        found.append(report)
    return statistics.median(found) if found and None not in found else None


def pairs_of(rows: list[dict]) -> list[dict]:
    """A contender's pairs, each a report of its own and one of the limit."""
    pairs = {}
    for row in rows:
        if row["pair"] is not None:
            pairs.setdefault(row["pair"], {})["limit" if row["server"] == "limit" else "own"] = row["report"]
    return [pair for pair in pairs.values() if len(pair) == 2]


def counts(pair: dict) -> bool:
    """Not when the load client had no time left, nor when even the limit could not deliver: others used its core."""
    limit, reports = pair["limit"], pair.values()
    expected = limit["parameters"]["clients"] * (FRAMES_PER_S * limit["seconds"] - EDGE_ROUNDS)
    busy = max(report["client_core_share"] for report in reports)
    return limit["frames"] >= expected and busy < CLIENT_FULL and all(report["frames"] for report in reports)


def delivered(reports: list[dict]) -> str:
    """The share of the frames that should have come, to clients that never got in too."""
    wanted = lambda report: report["parameters"]["clients"] * FRAMES_PER_S * report["seconds"]
    return f"{min(1, statistics.median(report['frames'] / wanted(report) for report in reports)):.0%}"


def line(workload: str, contender: str, reports: list[dict], ratios: list[float], idle: list[dict]) -> list[str]:
    """One line of a table."""
    full = " (core full)" if median(reports, "server", "core_share") >= CORE_FULL else ""
    if workload == "broadcast":
        spread, memory = ("rounds", "last_client_us"), median(idle, "server", "rss_bytes_per_connection")
        last = "-" if memory is None else f"{memory / 1000:.2f} KB"
    else:
        spread, rows = ("tick_to_client_us",), median(reports, "server", "cpu_s_per_million_rows")
        last = "-" if rows is None or not ratios else f"{rows:.2f}"
    quantiles = [median(reports, *spread, name) for name in ("p50", "p99")]
    low, high = interval(ratios) if ratios else (1, 1)
    return [
        TITLES[contender], f"{statistics.median(map(cpu, reports)):.1f}{full}",
        f"{statistics.median(ratios):.2f} ({low:.2f} to {high:.2f})" if ratios else "1.00",
        "-" if None in quantiles else " / ".join(f"{quantile / 1000:.0f}" for quantile in quantiles),
        delivered(reports), last,
    ]


def table(workload: str, found: dict[str, list[dict]]) -> list[str]:
    """The table of a workload, the cheapest first, from the rows of each contender."""
    lines, limits = [], []
    for contender, rows in found.items():
        pairs = list(filter(counts, pairs_of(rows)))
        if not pairs:
            continue
        limits += [pair["limit"] for pair in pairs]
        ratios = [cpu(pair["own"]) / cpu(pair["limit"]) for pair in pairs]
        idle = [row["report"] for row in rows if row["pair"] is None]
        reports = [pair["own"] for pair in pairs]
        lines.append((statistics.median(ratios), line(workload, contender, reports, ratios, idle)))
    lines = [line(workload, "limit", limits, [], []), *(cells for _, cells in sorted(lines))] if limits else []
    latency, last = HEADINGS[workload]
    heading = ["", "CPU µs a frame", "ratio to the limit (90 % interval)", latency, "delivered", last]
    rule = ["---", *["---:"] * (len(heading) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in [heading, rule, *lines]]


def facts(folder: Path, run: dict) -> str:
    """What a run was, in one paragraph."""
    machine, versions = run["machine"], ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    return (f"`{folder.name}`: {run['date']}, `{run['command']}`; {machine['cores']} cores of {machine['cpu']}, "
            f"Linux {machine['kernel']}, niceness {machine['niceness']}; {versions}.")


def render(folders: list[Path]) -> str:
    """The tables of these runs, with what they were measured on."""
    runs = [(folder, json.loads((folder / "run.json").read_text())) for folder in folders]
    chosen = {workload: {} for workload in WORKLOADS}
    for folder in folders:
        rows = [json.loads(text) for text in (folder / "raw.ndjson").read_text().splitlines()]
        for workload, contender in dict.fromkeys((row["workload"], row["contender"]) for row in rows):
            mine = [row for row in rows if (row["workload"], row["contender"]) == (workload, contender)]
            chosen[workload][contender] = mine
    parts = []
    for workload, found in chosen.items():
        if found:
            clients = max(row["report"]["parameters"]["clients"] for rows in found.values() for row in rows)
            parts += [f"{WORKLOADS[workload].title}; {clients:,} clients.", "\n".join(table(workload, found))]
    if chosen["market"]:
        alone = " / ".join(f"{conflation_alone_ms(share):.0f}" for share in (0.5, 0.99))
        parts.append(f"Conflation alone, computed: a row is {alone} ms old when its slot ends (p50 / p99).")
    pairs = [pair for found in chosen.values() for rows in found.values() for pair in pairs_of(rows)]
    parts += [
        f"Medians over the pairs, the ratio of CPU within each pair; {len(pairs) - sum(map(counts, pairs))} of "
        f"{len(pairs)} pairs were disturbed and do not count. Core full: the server had no time left, so it was asked for "
        "more than it can do.",
        *(facts(folder, run) for folder, run in runs),
    ]
    return "\n\n".join(parts) + "\n"
