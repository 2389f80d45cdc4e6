"""What `audit export` writes, as others read it.

Two journals: that of `bartizan demo`, and a made one with every event, every finding and texts that a
stranger chose. Each OCSF event must be valid by the published schema (as the package ocsf-json-schema has
it), and each line of OTLP/JSON must be an export request by the official messages.
"""

import base64
import collections
import json
import os
import pathlib
import re
import subprocess
import tempfile

from google.protobuf import json_format
from jsonschema import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

ROOT = pathlib.Path(os.environ["ROOT"])
BARTIZAN = os.environ["BARTIZAN"]
VERSION = "1.8.0"
CLASSES = {6003, 2004, 3002, 3004, 6002, 6008}
HOSTILE = '<b>"x"\u202e,\u0000\x1b[2J\ud83d\ude00'
AUDIT = (ROOT / "docs/audit.md").read_text()


def check(fact: object, what: object) -> None:
    if not fact:
        raise RuntimeError(what)


def first_cells(heading: str) -> list[str]:
    """The names in the first column of the first table after `heading` in docs/audit.md."""
    after = AUDIT.split(heading, 1)[1]
    names: list[str] = []
    for line in after.splitlines():
        found = re.match(r"\| `(\w+)` \|", line)
        if found:
            names.append(found[1])
        elif names and not line.startswith("|"):
            break
    return names


def findings() -> dict[str, dict[str, object]]:
    """The tags of each finding, by the table in docs/audit.md."""
    found = {}
    for row in re.findall(r"\n\| `(\w+)` \| ([\w-]+) \| (\w+) \| (.*) \| (.*) \| (.*) \| (.*) \|", AUDIT):
        name, strength, layer, *lists = row
        threats, mcp, asi, atlas = ([it for it in text.strip().split(", ") if it] for text in lists)
        found[name] = {
            "finding": name,
            "strength": strength,
            "maestro": {"layer": layer, "layer.name": "A layer", "threats": threats},
            "owasp": {"mcp": mcp, "asi": asi},
            "mitre": {"atlas": atlas},
            "taxonomy": "maestro=2025-02;owasp_mcp=2025-beta;asi=2026;atlas=5.6.1",
        }
    return found


def facts(text: str) -> dict[str, object]:
    """Members of a record about a call, with names that are `text`."""
    return {
        "principal": text,
        "session": text,
        "identity": {"issuer": text, "subject": text, "client_id": text},
        "client": {"name": text, "version": text},
        "peer": "2001:db8::1",
        "server": text,
        "direction": "to_server",
        "protocol": {"revision": "2025-11-25", "era": "legacy", "transport": "http"},
        "method": text,
        "id": "1",
        "target": {"tool": text, "definition": "sha256:00"},
        "operation": {
            "name": text,
            "effect": "write",
            "environments": [text, "*"],
            "environment_source": "arguments",
            "tags": [text],
            "pack": text,
        },
        "decision": {
            "effect": "deny",
            "enforced": True,
            "reasons": [{"code": text, "message": text, "origin": "rule"}],
            "obligations": [text],
            "policy": text,
            "engine": "strict",
        },
        "hidden": [text],
        "redacted": {"count": 1, "places": []},
        "bytes": 7,
        "digest": "hmac-sha256:00",
        "duration_us": 1500,
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "parent_span_id": "b7ad6b7169203331",
        "error.type": "-31003",
    }


def made() -> list[dict[str, object]]:
    """Records of every event and every finding, each with all members and with as few as may be."""
    events, tags = first_cells("| Event | About |"), findings()
    check(len(events) >= 18 and len(tags) >= 21, (events, list(tags)))
    records: list[dict[str, object]] = []
    own = {"start", "stop", "policy", "store", "webhook", "recovery", "retention", "gap", "rotation", "checkpoint"}

    def add(event: str, members: dict[str, object]) -> None:
        seq = len(records) + 1
        record = {"seq": seq, "boot": "b", "prev": "", "schema": 1, "event": event}
        record |= {"time": "2026-11-30T08:00:00.250000Z", "uptime_us": 1}
        if event not in own and "call" not in members:
            record["call"] = f"{seq:032x}"
        records.append(record | members)

    approval = {"hold": "h-1", "answer": "grant", "by": HOSTILE, "reason": HOSTILE, "scope": "s"}
    extra = {
        "gap": {"gap": {"refused": 3, "since": "2026-11-30T08:00:00Z", "cause": HOSTILE}},
        "start": {"program": {"version": "1", "host": HOSTILE, "mode": "observe", "configuration": "c"}},
        "repeated": {"repeated": 40, "since": "2026-11-30T07:59:00.000000Z"},
        "outcome": {"outcome": "tool_error"},
        "approval": {"approval": approval},
        "hold_state": {"approval": approval | {"answer": "expired", "by": None}},
    }
    for event in events:
        add(event, extra.get(event, {}))
        add(event, {"note": HOSTILE} | extra.get(event, {}))
        if event not in own:
            add(event, facts(HOSTILE) | extra.get(event, {}))
            add(event, facts("plain") | extra.get(event, {}) | {"direction": "to_client"})
    for effect in ("read", "write", "destructive", "exec", "unknown"):
        members = facts("plain")
        members["operation"] |= {"effect": effect}  # type: ignore[operator]
        members["decision"] |= {"effect": "permit"}  # type: ignore[operator]
        for outcome in first_cells("| Outcome | Means |"):
            call = f"{len(records) + 1:032x}"
            add("intent", members | {"call": call})
            add("outcome", {"call": call, "outcome": outcome, "duration_us": 1})
    http = {"method": "BREW", "host": HOSTILE, "path": HOSTILE, "origin": HOSTILE}
    for method in ("POST", "BREW"):
        add("denial", {"http": http | {"method": method}} | tags["malformed_frame"])
        add("denial", {"http": http | {"method": method}} | tags["unauthenticated_caller"])
    for finding in tags.values():
        add("denial", finding)
        add("denial", facts(HOSTILE) | finding)
        add("policy", {"decision": facts("plain")["decision"]} | finding)
        add("gap", finding | extra["gap"])
    return records


def exported(state: pathlib.Path, form: str) -> list[dict[str, object]]:
    command = [BARTIZAN, "audit", "export", "--state", str(state), "--format", form]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [json.loads(line) for line in out.splitlines()]


class Schemas:
    """The published JSON Schemas of the classes, by class and profiles."""

    def __init__(self) -> None:
        self.schema = OcsfJsonSchemaEmbedded(get_ocsf_schema(version=VERSION))
        self.known: dict[object, Draft202012Validator] = {}

    def errors(self, event: dict) -> list[str]:
        profiles = tuple(event["metadata"]["profiles"])
        key = (event["class_uid"], profiles)
        if key not in self.known:
            name = self.schema.lookup_class_name_from_uid(class_uid=event["class_uid"])
            self.known[key] = Draft202012Validator(self.schema.get_class_schema(name, list(profiles)))
        errors = self.known[key].iter_errors(event)
        return [f"{error.json_path}: {error.message[:200]}" for error in errors]


def ocsf(state: pathlib.Path, schemas: Schemas) -> collections.Counter:
    events = exported(state, "ocsf")
    for event in events:
        errors = schemas.errors(event)
        check(not errors, (errors, event))
        check(event["metadata"]["version"] == VERSION, event)
        check(event["type_uid"] == event["class_uid"] * 100 + event["activity_id"], event)
        check(event["category_uid"] == event["class_uid"] // 1000, event)
    uids = collections.Counter(event["metadata"]["uid"] for event in events)
    check(max(uids.values()) == 1, uids.most_common(3))
    return collections.Counter(event["class_uid"] for event in events)


def by_base64(value: object) -> object:
    """OTLP/JSON with ids in base64, which is the form of bytes in other protobuf JSON."""
    if isinstance(value, list):
        return [by_base64(it) for it in value]
    if isinstance(value, dict):
        ids = ("traceId", "spanId", "parentSpanId")
        one = lambda name, it: base64.b64encode(bytes.fromhex(it)).decode() if name in ids else by_base64(it)
        return {name: one(name, it) for name, it in value.items()}
    return value


def otlp(state: pathlib.Path) -> int:
    spans = []
    for line in exported(state, "otlp-json"):
        request = json_format.ParseDict(by_base64(line), ExportTraceServiceRequest())
        for resource in request.resource_spans:
            names = {it.key for it in resource.resource.attributes}
            check({"service.name", "service.instance.id"} <= names, names)
            spans += [span for scope in resource.scope_spans for span in scope.spans]
    for span in spans:
        check(len(span.trace_id) == 16 and len(span.span_id) == 8 and span.kind in (1, 2, 3), span)
        check(0 < span.start_time_unix_nano <= span.end_time_unix_nano, span)
    ids = {span.span_id for span in spans}
    check(len(ids) == len(spans), "two spans have the same id")
    return len(spans)


def main() -> None:
    schemas = Schemas()
    with tempfile.TemporaryDirectory() as work:
        demo, other = pathlib.Path(work, "demo"), pathlib.Path(work, "made")
        subprocess.run([BARTIZAN, "demo", "--auto", "--state", str(demo)], check=True, capture_output=True)
        (other / "journal").mkdir(parents=True)
        lines = "".join(json.dumps(record) + "\n" for record in made())
        (other / "journal" / "journal-00000000000000000001.ndjson").write_text(lines)
        seen = collections.Counter()
        for state in (demo, other):
            seen += ocsf(state, schemas)
            check(otlp(state) >= 20, "there are hardly any spans")
        check(set(seen) == CLASSES, seen)
        # Check the validator itself: it must refuse events with an error.
        event = exported(demo, "ocsf")[0]
        for wrong in ({"severity_id": 7}, {"time": "now"}, {"metadata": {"profiles": []}}, {"unheard_of": 1}):
            check(schemas.errors(event | wrong), f"an event with {wrong} was accepted")
    counts = ", ".join(f"{count} of {uid}" for uid, count in sorted(seen.items()))
    print(f"ocsf.py: {sum(seen.values())} events are valid by OCSF {VERSION}: {counts}")


main()
