"""Holds docs/asyncapi.yaml to what the gateway sends (tests/vectors), to its reasons, and to the examples of docs/protocol.md.

Every message must fit its schema, which allows nothing else; and every name in a schema must occur in some vector, so that the
file cannot promise what does not exist.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl

import contract
import harness
import yaml
from jsonschema import Draft7Validator

ROOT = Path(__file__).resolve().parents[2]
API = yaml.safe_load((ROOT / "docs/asyncapi.yaml").read_text())
NORM = (ROOT / "docs/protocol.md").read_text()
COMMANDS = {"subscribe", "update", "unsubscribe", "list", "ping"}
# Reasons of losses that no message carries: the gateway counts them.
COUNTED = {"ingest_merged", "late_trade", "symbol_refused"}
# Mistakes that need more than the form of a message to be seen.
BEYOND_FORM = ("filter: column", "topics: none would be left")


def resolve(ref: str) -> object:
    """What a reference means."""
    found = API
    for name in ref.removeprefix("#/").split("/"):
        found = found[int(name)] if isinstance(found, list) else found[name]
    return found


def everything(node: object, path: str = "#") -> Iterator[tuple[str, object]]:
    """Every part of the file, with the way to it."""
    yield path, node
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield from everything(child, f"{path}/{key}")


def schema_of(path: str) -> Draft7Validator:
    """The validator of one schema of the file."""
    return Draft7Validator({"$ref": path, "components": API["components"]})


def payload(message: dict) -> str:
    """The schema of a message, by what it says it is."""
    name = message.get("action") or message["type"]
    is_command = "action" in message or (name in COMMANDS and len(message.keys() - {"type", "id"}) == 0 and name != "list")
    return f"#/components/messages/{'askList' if is_command and name == 'list' else name}/payload"


class Seen:
    """Checks values against schemas, and notes which of their names occurred."""

    def __init__(self):
        self.names: set[str] = set()
        self.wrong: list[str] = []
        self.count = 0

    def check(self, path: str, value: object) -> bool:
        """Whether it fits; what does not is noted."""
        self.count += 1
        error = next(schema_of(path).iter_errors(value), None)
        if error:
            self.wrong.append(f"{path}: {error.json_path}: {error.message[:300]} in {json.dumps(value)[:300]}")
        else:
            self.note(path, value)
        return error is None

    def note(self, path: str, value: object) -> None:
        """Every name of a schema that this value has."""
        schema = resolve(path)
        if "$ref" in schema:
            return self.note(schema["$ref"], value)
        for kind in ("oneOf", "anyOf"):
            for at, branch in enumerate(schema.get(kind, [])):
                if "required" not in branch and schema_of(f"{path}/{kind}/{at}").is_valid(value):
                    self.note(f"{path}/{kind}/{at}", value)
        named, others, items = (schema.get(key, {}) for key in ("properties", "additionalProperties", "items"))
        for name, part in value.items() if isinstance(value, dict) else ():
            if name in named:
                self.names.add(f"{path}/properties/{name}")
                self.note(f"{path}/properties/{name}", part)
            elif others:
                self.note(f"{path}/additionalProperties", part)
        for at, part in enumerate(value) if isinstance(value, list) else ():
            if isinstance(items, dict) and items:
                self.note(f"{path}/items", part)


def check_form(report: harness.Report) -> None:
    """The file itself."""
    refs = [node["$ref"] for _, node in everything(API) if isinstance(node, dict) and "$ref" in node]
    broken = []
    for ref in refs:
        try:
            resolve(ref)
        except (KeyError, TypeError):
            broken.append(ref)
    report.equal("every reference leads somewhere", broken, [])
    open_ended = [path for path, node in everything(API["components"])
                  if isinstance(node, dict) and "properties" in node and node.get("additionalProperties") is not False]
    report.equal("every object is closed", open_ended, [])
    for message in API["components"]["messages"].values():
        Draft7Validator.check_schema(message["payload"])
    for schema in API["components"]["schemas"].values():
        Draft7Validator.check_schema(schema)
    told = {ref.rsplit("/", 1)[1] for channel in API["channels"].values()
            for ref in (message["$ref"] for message in channel["messages"].values())}
    report.equal("every message has a channel", API["components"]["messages"].keys() - told, set())
    socket = API["channels"]["websocket"]["messages"].keys()
    operations = [API["operations"][name] for name in ("command", "tell")]
    used = {message["$ref"].rsplit("/", 1)[1] for operation in operations
            for message in [*operation["messages"], *operation.get("reply", {}).get("messages", [])]}
    report.equal("every message of the WebSocket is said or heard", socket - used, set())


def check_vectors(report: harness.Report) -> None:
    """Every message of every vector fits, and every name occurs."""
    seen = Seen()
    for path in sorted((ROOT / "tests/vectors").glob("*.json")):
        vector = json.loads(path.read_text())
        steps = vector.get("steps", [])
        for at, step in enumerate(steps):
            if "connect" in step and "symbol=" not in step["connect"]:
                seen.check("#/components/schemas/query", dict(parse_qsl(step["connect"], strict_parsing=bool(step["connect"]))))
            if text := step.get("receive") or step.get("lose"):
                message = json.loads(text)
                seen.check(payload(message), message)
            if "send" in step:
                check_command(seen, step["send"], json.loads(steps[at + 1]["receive"]))
        for event in vector.get("events", []):
            message = json.loads(event["message"])
            seen.check(payload(message), message)
    report.clean(f"{seen.count} messages of the vectors fit", seen.wrong)
    names = {f"{path}/{name}" for path, node in everything(API["components"], "#/components")
             if path.endswith("/properties") and isinstance(node, dict) for name in node}
    report.equal(f"all {len(names)} names of the schemas occur", names - seen.names, set())


def check_command(seen: Seen, text: str, answer: dict) -> None:
    """What was taken fits, and what does not fit was refused."""
    refused = answer.get("code") in ("bad_request", "unknown_action")
    if not refused or answer["message"].startswith(BEYOND_FORM):
        seen.check(payload(json.loads(text)), json.loads(text))
        return
    try:
        command = json.loads(text)
        fits = isinstance(command, dict) and command["action"] in COMMANDS and schema_of(payload(command)).is_valid(command)
    except json.JSONDecodeError:
        fits = False
    if fits:
        seen.wrong.append(f"{text} was refused: {answer['message']}")


def check_reasons(report: harness.Report) -> None:
    """The closed lists are those of the gateway, and of the norm."""
    source = (ROOT / "src/base/reason.rs").read_text()
    reasons = re.findall(r'^    \w+ = "(\w+)", (\w+)(?:\((?:Some\((\d+)\)|None)\))?, ', source, re.MULTILINE)
    labels = {kind: {label for label, its, _ in reasons if its == kind} for kind in ("Refusal", "Loss")}
    closes = {(int(code), label) for label, kind, code in reasons if kind == "End" and code}
    schemas, messages = API["components"]["schemas"], API["components"]["messages"]
    report.check("the source has reasons", len(reasons) > 20, reasons)
    report.equal("codes of errors", set(schemas["code"]["enum"]), labels["Refusal"])
    link = set(messages["link"]["payload"]["properties"]["reason"]["enum"]) - {None}
    gaps = set(schemas["gap"]["properties"]["reason"]["enum"])
    report.equal("reasons of gaps and of a link", gaps | link | COUNTED, labels["Loss"])
    close = messages["close"]["payload"]["properties"]
    report.equal("codes of the end", set(close["code"]["enum"]), {code for code, _ in closes})
    names = set(re.search(r"\((.*)\)", close["reason"]["pattern"])[1].split("|"))
    report.equal("reasons of the end", names, {label for _, label in closes})
    report.equal("codes of errors in the norm", listed("**Codes of errors and rejections**"), labels["Refusal"])
    report.equal("reasons of gaps in the norm", listed("**Reasons of gaps**"), gaps)
    ends = set(re.findall(r"^\| (\d{4}) \| `(\w+)` \|", NORM, re.MULTILINE))
    report.equal("ends in the norm", {(int(code), label) for code, label in ends}, closes)
    for name, known in (("state", contract.STATES), ("phase", contract.PHASES | {None}),
                        ("field", {*contract.QUOTE, *contract.INDEX})):
        report.equal(f"names of {name}", set(schemas[name]["enum"]), known)


def listed(title: str) -> set[str]:
    """The first column of the table behind a title."""
    table = NORM.split(title, 1)[1].split("\n\n", 2)[1]
    return set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE))


def check_examples(report: harness.Report) -> None:
    """The examples of the norm, but for those that are cut, and what was refused."""
    seen, row = Seen(), "#/components/schemas/row"
    # An example begins with a brace four columns in; what is broken off goes on five columns in.
    for text in re.findall(r"^    (\{.*(?:\n     .*)*)", NORM, re.MULTILINE):
        text = text.replace('"rows":[ .. ]', '"rows":[]')
        if " .. " in text:
            continue
        value = json.loads(text)
        if "symbol" in value and "rev" in value or "out" in value:
            seen.check(row, value)
        elif "type" in value or "action" in value:
            seen.check(payload(value), value)
    report.clean(f"{seen.count} examples of the norm fit", seen.wrong)
    report.check("the norm has examples", seen.count > 30, seen.count)


async def main(report: harness.Report) -> None:
    check_form(report)
    check_vectors(report)
    check_reasons(report)
    check_examples(report)


if __name__ == "__main__":
    harness.run(main)
