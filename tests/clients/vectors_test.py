"""Runs the golden vectors (tests/vectors, and its README) against a client that is written from docs/protocol.md alone.

An SDK's own test does the same: it feeds each frame to the client and compares what that holds.
"""

import json
import zlib
from pathlib import Path

import harness
import msgpack
from table import Client, read

VECTORS = Path(__file__).resolve().parents[1] / "vectors"
TAIL = b"\x00\x00\xff\xff"  # RFC 7692, 7.2.2


def run(vector: dict) -> str:
    """Plays a vector; what was wrong first."""
    client = Client()
    for at, step in enumerate(vector["steps"]):
        held = None
        if "connect" in step:
            client.connect()
        elif "receive" in step:
            try:
                held = client.take(step["receive"])
            except (KeyError, ValueError) as error:
                return f"step {at}: {error!r}"
        elif "silent_ms" in step:
            held = client.show("stale" if float(step["silent_ms"]) > client.silence_ms else "ok")
        if held != step.get("hold"):
            return f"step {at}: held {held}, expected {step.get('hold')}"
    return ""


def frame(step: dict) -> dict:
    """What is in a frame of the gateway (RFC 6455, 5.2; RFC 7692), as the vector says it."""
    data = bytes.fromhex(step["hex"])
    flags, opcode, short = data[0] >> 4, data[0] & 15, data[1]
    end = 2 + {126: 2, 127: 8}.get(short, 0)
    length, payload = int.from_bytes(data[2:end]) if end > 2 else short, data[end:]
    said = {"opcode": {1: "text", 2: "binary", 8: "close", 9: "ping", 10: "pong"}[opcode]}
    if "letter" in step:  # only the head is given
        return said | {"letter": step["letter"], "times": str(length)}
    if length != len(payload):
        raise ValueError(f"{length} bytes, but there are {len(payload)}")
    if opcode == 8:
        return said | {"code": str(int.from_bytes(payload[:2])), "reason": payload[2:].decode()}
    if flags == 0b1100:
        said["compressed"], payload = True, zlib.decompressobj(-15).decompress(payload + TAIL)
    elif flags != 0b1000:
        raise ValueError(f"flags {flags:04b}")
    if opcode == 2:  # the same keys and values in the same order, but for integers that JSON has as text here
        same = json.dumps(integers_as_text(msgpack.unpackb(payload))) == json.dumps(read(step["text"]))
        return said | {"text": step["text"] if same else msgpack.unpackb(payload)}
    return said | {"text": payload.decode()}


def integers_as_text(value: object) -> object:
    """As `read` reads JSON."""
    if isinstance(value, dict):
        return {key: integers_as_text(part) for key, part in value.items()}
    if isinstance(value, list):
        return [integers_as_text(part) for part in value]
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def check_events(events: list[dict]) -> str:
    """Reads events as the HTML Standard says (9.2); an id is the cursor of its message."""
    epoch = wish = ""
    for event in events:
        fields = dict(line.split(": ", 1) for line in event["event"].removesuffix("\n\n").split("\n"))
        message = read(event["message"])
        epoch, wish = message.get("epoch", epoch), message.get("wish", wish)
        cursor = f"{epoch}:{message['rev']}:{wish}" if message["type"] == "batch" and "more" not in message else None
        if (fields["data"], fields.get("id")) != (event["message"], cursor):
            return str(fields)
    return ""


async def main(report: harness.Report) -> None:
    paths = sorted(VECTORS.glob("*.json"))
    report.check("there are vectors", len(paths) > 10, paths)
    for path in paths:
        vector = read(path.read_text())
        if "steps" in vector:
            wrong = run(vector)
            report.check(f"{path.stem}: {vector['about']}", not wrong, wrong)
            continue
        for step in vector["frames"]:
            expected = {key: value for key, value in step.items() if key not in ("about", "hex")}
            report.equal(f"{path.stem}: {step['about']}", frame(step), expected)
        wrong = check_events(vector["events"])
        report.check(f"{path.stem}: events", not wrong, wrong)


if __name__ == "__main__":
    harness.run(main)
