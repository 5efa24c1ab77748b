"""Writes tickgate.json, the dashboard for operators: python3 make.py > tickgate.json

Owns the panels: three rows, each a question. tests/grafana/panels_test.py runs every expression against a real gateway
and tests/tidy/metrics.rs holds the names against src/gateway/metrics.rs.
"""

import json
import sys

SOURCE = {"type": "prometheus", "uid": "$datasource"}
WHO = 'job=~"$job", instance=~"$instance"'
STATES = ("live", "stale", "suspect", "closed")
COLUMNS = 24


def metric(name: str, matchers: str = "") -> str:
    return f"{name}{{{WHO}{', ' if matchers else ''}{matchers}}}"


def same(label: str, value: str) -> str:
    return f'{label}="{value}"'


def rate(name: str, by: str = "instance", matchers: str = "") -> str:
    return f"sum by ({by}) (rate({metric(name, matchers)}[$__rate_interval]))"


def total(name: str, by: str = "instance") -> str:
    return f"sum by ({by}) ({metric(name)})"


def grew(name: str, by: str = "instance", matchers: str = "") -> str:
    return f"sum by ({by}) (increase({metric(name, matchers)}[$__rate_interval]))"


def quantile(share: float, name: str) -> str:
    buckets = f"rate({metric(name + '_seconds_bucket')}[$__rate_interval])"
    return f"histogram_quantile({share}, sum by (instance, le) ({buckets}))"


def window(share: str, name: str) -> str:
    return f"max by (instance) ({metric(name + '_quantile_seconds', same('q', share))})"


def steps(yellow: float | None, red: float | None) -> dict:
    found = [{"color": "green", "value": None}]
    found += [{"color": color, "value": at} for color, at in (("yellow", yellow), ("red", red)) if at is not None]
    return {"mode": "absolute", "steps": found}


def panel(kind, title, unit, description, *targets, width=8, height=8, yellow=None, red=None, **defaults):
    """One panel; `targets` are pairs of an expression and its legend."""
    custom = {}
    options = {"tooltip": {"mode": "multi", "sort": "desc"}}
    if kind == "timeseries":
        custom = {"lineWidth": 1, "fillOpacity": 8, "showPoints": "never", "spanNulls": False}
        options["legend"] = {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]}
    elif kind == "stat":
        options = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "area"}
    elif kind == "state-timeline":
        options = {"showValue": "auto", "mergeValues": True, "legend": {"displayMode": "list", "placement": "bottom"}}
    queries = [
        {"refId": chr(ord("A") + at), "datasource": SOURCE, "expr": expr, "legendFormat": legend, "range": True}
        for at, (expr, legend) in enumerate(targets)
    ]
    shown = {"unit": unit, "color": {"mode": "thresholds" if kind != "timeseries" else "palette-classic"}}
    shown |= {"thresholds": steps(yellow, red), "custom": custom, "min": 0} | defaults
    return {
        "type": kind, "title": title, "description": description, "datasource": SOURCE, "targets": queries,
        "fieldConfig": {"defaults": shown, "overrides": []}, "options": options,
        "gridPos": {"w": width, "h": height},
    }


def stat(title, unit, description, expr, legend="{{instance}}", width=4, **more):
    return panel("stat", title, unit, description, (expr, legend), width=width, height=4, **more)


def lines(title, unit, description, *targets, **more):
    return panel("timeseries", title, unit, description, *targets, **more)


CLIENTS = [
    stat("Slowest hundredth", "s",
         "p99 from a tick's arrival to the write that carries it, over the last 10 s. High? See 'Where the time goes'.",
         window("0.99", "tickgate_arrival_to_written"), yellow=0.05, red=0.25),
    stat("Half of all", "s", "The median of the same way, over the last 10 s.",
         window("0.5", "tickgate_arrival_to_written"), yellow=0.02, red=0.1),
    stat("Sessions", "short", "Clients that are connected now.", total("tickgate_sessions")),
    stat("Falling behind", "cps",
         "Frames a second that a client could not take at once. It is owed the newest picture instead: its line or its "
         "reader is slow, and nobody else waits for it.",
         rate("tickgate_fell_behind_total"), yellow=1, red=100),
    stat("Ended for being slow", "short",
         "Sessions closed in this interval because their socket took nothing for the stall limit, or answered no ping.",
         grew("tickgate_disconnects_total", matchers='reason=~"slow|no_pong"'), yellow=1, red=10),
    stat("Turned away", "short",
         "Connections refused in this interval because the gateway is full. Raise limits.connections_max, or add one.",
         grew("tickgate_connections_refused_total"), red=1),
    lines("From arrival to written", "s",
          "How old a tick is when it has been written to a client. The window lines are exact to 1 % over 10 s; the "
          "histogram lines can be averaged over instances and over any range.",
          (window("0.5", "tickgate_arrival_to_written"), "p50 {{instance}}"),
          (window("0.99", "tickgate_arrival_to_written"), "p99 {{instance}}"),
          (window("0.999", "tickgate_arrival_to_written"), "p999 {{instance}}"),
          (quantile(0.5, "tickgate_arrival_to_written"), "p50, histogram {{instance}}"),
          (quantile(0.99, "tickgate_arrival_to_written"), "p99, histogram {{instance}}")),
    lines("Where the time goes", "s",
          "p99 of the two halves. Arrival to cut grows when the ingest queue or the hub is late; cut to written grows "
          "when a shard has too much to encode and write. Means come from the same histograms.",
          (window("0.99", "tickgate_arrival_to_cut"), "arrival to cut p99 {{instance}}"),
          (window("0.99", "tickgate_cut_to_written"), "cut to written p99 {{instance}}"),
          (quantile(0.99, "tickgate_arrival_to_cut"), "arrival to cut p99, histogram {{instance}}"),
          (quantile(0.99, "tickgate_cut_to_written"), "cut to written p99, histogram {{instance}}"),
          (f"{rate('tickgate_arrival_to_written_seconds_sum')} / {rate('tickgate_arrival_to_written_seconds_count')}",
           "whole way, mean {{instance}}")),
    lines("Who does not keep up", "percentunit",
          "Of the frames offered, the share that a client could not take, and of the frames written, the share that "
          "was private: first pictures and catch-ups. Both near zero: all keep up. Only the first high: some lines "
          "are slow. Only the second high: many joined or came back.",
          (f"{rate('tickgate_fell_behind_total')} / ({rate('tickgate_fell_behind_total')} + "
           f"{rate('tickgate_frames_written_total')})", "could not be taken {{instance}}"),
          (f"{rate('tickgate_frames_private_total')} / {rate('tickgate_frames_written_total')}",
           "private {{instance}}"), max=1),
    lines("Sessions", "short", "Sessions of each shard. New ones go to the least loaded: the lines lie together.",
          (total("tickgate_sessions", "instance, shard"), "shard {{shard}} {{instance}}")),
    lines("What they ask for", "short",
          "Subscriptions open, and the streams that serve them: clients with equal wishes share a stream, which is "
          "encoded once. As many streams as subscriptions: everybody has a selection of their own.",
          (total("tickgate_subscriptions"), "subscriptions {{instance}}"),
          (total("tickgate_streams"), "streams {{instance}}"),
          (rate("tickgate_messages_read_total"), "messages read a second {{instance}}")),
    lines("Why sessions ended", "cps",
          "Ends a second, by reason; the reason is also in the close frame and in the log. slow and no_pong are the "
          "client's line, flood and protocol_error its program, restart and overloaded are ours.",
          (rate("tickgate_disconnects_total", "reason"), "{{reason}}")),
    lines("What was refused", "cps",
          "Messages and topics refused a second, by reason: what clients ask for and cannot have.",
          (rate("tickgate_refusals_total", "reason"), "{{reason}}")),
    lines("Losses announced", "cps",
          "Gaps a second in frames: what was lost, and said so. A client sees them as `gaps`.",
          (rate("tickgate_gaps_announced_total"), "{{instance}}")),
    lines("At the door", "cps",
          "Connections a second: accepted, made WebSockets or event streams, refused for want of room; requests refused "
          "because too many were being answered, which are readers that do not read; and requests with an error.",
          (rate("tickgate_connections_accepted_total"), "accepted {{instance}}"),
          (rate("tickgate_upgrades_total"), "upgraded {{instance}}"),
          (rate("tickgate_event_streams_total"), "event streams {{instance}}"),
          (rate("tickgate_connections_refused_total"), "refused {{instance}}"),
          (rate("tickgate_requests_refused_total"), "requests refused {{instance}}"),
          (rate("tickgate_bad_requests_total"), "bad requests {{instance}}")),
]

state = " + ".join(
    f"{at} * max by (instance, feed) ({metric('tickgate_feed_state', same('state', name))})"
    for at, name in enumerate(STATES) if at
)
COLORS = ("green", "yellow", "orange", "red")
mapping = {str(at): {"text": name, "color": COLORS[at], "index": at} for at, name in enumerate(STATES)}
FEEDS = [
    panel("state-timeline", "State", "short",
          "live: it speaks. stale: silent for too long, or its line is down. suspect: its numbering broke, and it is "
          "being put right. closed: it is over.",
          (state, "{{feed}} {{instance}}"), height=6, mappings=[{"type": "value", "options": mapping}], max=3,
          yellow=1, red=2),
    lines("Age of the last message", "s",
          "How long each feed has said nothing. A line that climbs is a feed that hangs.",
          (f"clamp_min(time() - max by (instance, feed) ({metric('tickgate_feed_last_message_timestamp_seconds')}), 0)",
           "{{feed}} {{instance}}"), height=6),
    lines("Updates", "cps", "Updates a second that each feed hands over.",
          (rate("tickgate_feed_updates_total", "instance, feed"), "{{feed}} {{instance}}"), height=6),
    lines("Not understood", "cps",
          "Messages a second that could not be decoded, that were passed over on purpose, and whose time lay ahead of "
          "our clock; and how many are held back until what they continue is known, such as changes of a book without "
          "its picture. The first should be zero: the venue changed its language. Clock ahead: look at NTP.",
          (rate("tickgate_feed_errors_total", "instance, feed"), "errors {{feed}} {{instance}}"),
          (rate("tickgate_feed_skipped_total", "instance, feed"), "skipped {{feed}} {{instance}}"),
          (rate("tickgate_feed_clock_ahead_total", "instance, feed"), "clock ahead {{feed}} {{instance}}"),
          (f"max by (instance, feed) ({metric('tickgate_feed_held_back')})", "held back {{feed}} {{instance}}"), width=6),
    lines("Breaks and losses", "cps",
          "Breaks a second in a venue's own numbering. Losses: ingest_merged, updates merged because the ingest queue was "
          "full (detail is lost, the newest value is not); ingest_overflow, trades lost there, and upstream_gap, trades "
          "that the source lacks, each announced to clients as a gap; log_overrun, gaps told to clients that came too late; "
          "late_trade, trades that came after a bar of theirs was final; symbol_refused, symbols of two feeds, or too many; "
          "upstream_silent, times that the gateway upstream said nothing for too long. Far levels that books gave up for lack of room.",
          (rate("tickgate_feed_gaps_total", "instance, feed"), "breaks {{feed}} {{instance}}"),
          (rate("tickgate_losses_total", "instance, reason"), "{{reason}} {{instance}}"),
          (rate("tickgate_book_levels_dropped_total"), "book levels dropped {{instance}}"), width=6),
    lines("Gone silent", "short",
          "Symbols that are stale because they have said nothing for much longer than they usually do, in continuous "
          "trading; and how many become so in an interval of the graph. A whole feed that is silent is under Feeds.",
          (f"max by (instance) ({metric('tickgate_symbols_silent')})", "silent now {{instance}}"),
          (f"sum by (instance) (increase({metric('tickgate_symbols_silenced_total')}[$__rate_interval]))",
           "fell silent {{instance}}"), width=6),
    lines("What is news", "cps",
          "Updates a second taken in; those that changed something; those that said what was known already.",
          (rate("tickgate_ingest_updates_total"), "taken in {{instance}}"),
          (rate("tickgate_changes_total"), "changes {{instance}}"),
          (rate("tickgate_repeats_total"), "repeats {{instance}}"), width=6),
    lines("Old on arrival", "s",
          "From the venue's own time of a tick to its arrival here, of live feeds. High: the line to the venue is slow, "
          "the venue is, or the clocks differ.",
          (window("0.5", "tickgate_source_to_arrival"), "p50 {{instance}}"),
          (window("0.99", "tickgate_source_to_arrival"), "p99 {{instance}}"),
          (quantile(0.99, "tickgate_source_to_arrival"), "p99, histogram {{instance}}"), width=6),
    lines("Connections made", "short",
          "Connections that an edge made to its upstream in an interval of the graph: after the first, each is one that was "
          "lost before. What is missed meanwhile is made up for; a state that is not live above says that it was too long.",
          (grew("tickgate_feed_connects_total", by="instance, feed"), "{{feed}} {{instance}}"), width=6),
]

GATEWAY = [
    stat("Up for", "s", "Time since the process started. Short: it was restarted.",
         f"time() - max by (instance) ({metric('process_start_time_seconds')})"),
    stat("Build", "short", "The version that runs: its name is the label, the value is always 1.",
         f"max by (instance, version) ({metric('tickgate_build_info')})", "{{version}} {{instance}}"),
    stat("Memory of its bound", "percentunit", "Memory in RAM as a share of what the limits allow in all.",
         f"max by (instance) ({metric('process_resident_memory_bytes')}) / "
         f"max by (instance) ({metric('tickgate_memory_bound_bytes')})", yellow=0.7, red=0.9),
    stat("Connections of their bound", "percentunit", "At 100 % newcomers are turned away.",
         f"max by (instance) ({metric('tickgate_connections')}) / "
         f"max by (instance) ({metric('tickgate_connections_max')})", yellow=0.7, red=0.9),
    stat("Queue of its bound", "percentunit", "At 100 % updates of live feeds are merged.",
         f"max by (instance) ({metric('tickgate_ingest_queue_updates')}) / "
         f"max by (instance) ({metric('tickgate_ingest_queue_max')})", yellow=0.5, red=0.9),
    stat("Symbols of their bound", "percentunit", "At 100 % a feed's new symbols are refused.",
         f"max by (instance) ({metric('tickgate_symbols')}) / max by (instance) ({metric('tickgate_symbols_max')})",
         yellow=0.7, red=0.9),
    lines("Turns", "cps",
          "Turns a second of each shard. It turns for every cut while there is time, and less often with more in "
          "each turn when there is not: fewer turns under the same load is a shard at its limit.",
          (rate("tickgate_turns_total", "instance, shard"), "shard {{shard}} {{instance}}"),
          (rate("tickgate_cuts_total"), "cuts {{instance}}")),
    lines("Frames", "cps",
          "Frames a second: encoded once, written to many. Their ratio is what sharing saves.",
          (rate("tickgate_frames_written_total"), "written {{instance}}"),
          (rate("tickgate_frames_private_total"), "of these private {{instance}}"),
          (rate("tickgate_frames_encoded_total"), "encoded {{instance}}"),
          (rate("tickgate_rows_encoded_total"), "rows encoded {{instance}}")),
    lines("Bytes written", "Bps", "Bytes a second to clients, headers of TCP and IP not counted.",
          (rate("tickgate_bytes_written_total"), "{{instance}}")),
    lines("Ingest queue", "short",
          "Updates that wait between the feeds and the hub, the most there ever were, and the bound.",
          (total("tickgate_ingest_queue_updates"), "waiting {{instance}}"),
          (total("tickgate_ingest_queue_peak"), "peak {{instance}}"),
          (total("tickgate_ingest_queue_max"), "bound {{instance}}")),
    lines("Memory", "bytes", "Memory in RAM, and what the limits allow in all: the first never reaches the second.",
          (total("process_resident_memory_bytes"), "resident {{instance}}"),
          (total("tickgate_memory_bound_bytes"), "bound {{instance}}")),
    lines("Connections and descriptors", "short",
          "Connections of every kind and their bound; the file descriptors of the process and how many it may have. The "
          "first bound lies below the second.",
          (total("tickgate_connections"), "connections {{instance}}"),
          (total("tickgate_connections_max"), "bound {{instance}}"),
          (total("process_open_fds"), "descriptors {{instance}}"),
          (total("process_max_fds"), "descriptors allowed {{instance}}")),
    lines("Processor", "short", "Cores that the process keeps busy. As many as the machine has: it is at its limit.",
          (rate("process_cpu_seconds_total"), "{{instance}}"), height=6),
    lines("Symbols", "short", "Symbols listed, and the bound.",
          (total("tickgate_symbols"), "symbols {{instance}}"), (total("tickgate_symbols_max"), "bound {{instance}}"),
          height=6),
    lines("Watched by", "cps", "Scrapes a second: more than one per server and interval is a second watcher.",
          (rate("tickgate_scrapes_total"), "{{instance}}"), height=6),
]


def layout() -> list:
    """Gives every panel its place and number: rows from left to right, as they stand above."""
    placed, y = [], 0
    rows = (("Are clients well?", CLIENTS), ("Are feeds well?", FEEDS), ("Is the gateway well?", GATEWAY))
    for question, panels in rows:
        row = {"type": "row", "title": question, "collapsed": False, "panels": [], "gridPos": {"w": COLUMNS, "h": 1}}
        x = height = 0
        for each in (row, *panels):
            place = each["gridPos"]
            if x + place["w"] > COLUMNS:
                x, y = 0, y + height
            place |= {"x": x, "y": y}
            x, height = x + place["w"], place["h"]
            placed.append(each | {"id": len(placed) + 1})
        y += height
    return placed


def variable(name: str, label: str, query: str) -> dict:
    return {
        "name": name, "label": label, "type": "query", "datasource": SOURCE, "definition": query,
        "query": {"query": query, "refId": name}, "refresh": 2, "sort": 1, "includeAll": True, "multi": True,
        "allValue": ".+", "current": {"text": ["All"], "value": ["$__all"]},
    }


DASHBOARD = {
    "uid": "tickgate", "title": "Tickgate", "description": "Are clients, feeds and the gateway well?",
    "tags": ["tickgate"], "schemaVersion": 39, "version": 1, "editable": True, "graphTooltip": 1,
    "timezone": "browser", "refresh": "10s", "time": {"from": "now-30m", "to": "now"},
    "templating": {"list": [
        {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "current": {}},
        variable("job", "Job", "label_values(tickgate_build_info, job)"),
        variable("instance", "Instance", 'label_values(tickgate_build_info{job=~"$job"}, instance)'),
    ]},
    "annotations": {"list": []}, "links": [], "panels": layout(),
}

if __name__ == "__main__":
    json.dump(DASHBOARD, sys.stdout, indent=2)
    sys.stdout.write("\n")
