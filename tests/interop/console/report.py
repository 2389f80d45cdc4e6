"""The page of `audit report` in a real browser: a made day, with texts that a stranger chose.

Needs the environment of report.sh, which calls it. The texts stay texts, nothing is loaded, axe-core finds
no barrier in light and dark, and the page fits a narrow window. `--screenshots DIR` also writes the
picture of docs/audit.md.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from webdriver import browser  # noqa: E402

AXE = (pathlib.Path(os.environ["AXE"]) / "node_modules/axe-core/axe.min.js").read_text()
BARTIZAN = os.environ["BARTIZAN"]
DAY = "2026-11-29"
HOSTILE = '<img src=x onerror="alert(1)"><script>alert(2)</script>\u202e</td>'
ELEMENTS = (
    "BODY DIV FIGURE FOOTER G H1 H2 HEAD HEADER HTML LI LINE MAIN META P RECT SECTION SPAN STRONG STYLE SVG TABLE TBODY "
    "TD TEXT TH THEAD TITLE TR UL"
).split()
TAXONOMY = "maestro=2025-02;owasp_mcp=2025-beta;asi=2026;atlas=5.6.1"
NAMES = {
    "L3": "Agent Frameworks",
    "L4": "Deployment and Infrastructure",
    "L5": "Evaluation and Observability",
    "L6": "Security and Compliance",
    "L7": "Agent Ecosystem",
    "X": "Cross-layer",
}
MISUSE = ["L7/Agent Tool Misuse"]
FINDINGS = {
    "tool_denied": ("direct", "L7", MISUSE),
    "env_pin_violation": ("direct", "L7", [*MISUSE, "L4/Lateral Movement", "X/Privilege Escalation"]),
    "approval_requested": ("control-evidence", "L7", MISUSE),
    "approval_granted": ("control-evidence", "L7", MISUSE),
    "approval_expired": ("related", "L7", MISUSE),
    "rate_limited": ("direct", "L4", ["L4/Denial of Service (DoS) Attacks", "L4/Resource Hijacking"]),
    "malformed_frame": ("related", "L3", ["L3/Input Validation Attacks", "L4/Denial of Service (DoS) Attacks"]),
    "policy_reload": ("control-evidence", "L6", []),
    "audit_sink_failure": ("direct", "L5", ["L5/Compromised Observability Tools", "L7/Repudiation"]),
    "upstream_failure": ("related", "L7", ["L7/Integration Risks", "L4/Denial of Service (DoS) Attacks"]),
    "response_secret_leak": ("direct", "X", ["X/Data Leakage", "L2/Data Exfiltration"]),
    "tool_definition_drift": ("direct", "X", ["X/Supply Chain Attacks", "L7/Inaccurate Agent Capability Description"]),
}
TOOLS = {
    "list_flags": "read",
    "get_gate": "read",
    "update_flag": "write",
    "set_rollout": "write",
    "delete_flag": "destructive",
    "run_script": "exec",
}


class Journal:
    """A journal of one day, as the firewall would write it, without the chain."""

    def __init__(self) -> None:
        self.records: list[dict[str, object]] = []
        self.chance = random.Random(7)

    def add(self, event: str, minute: float, finding: str | None = None, **members: object) -> None:
        hours, rest = divmod(minute, 60)
        time = f"{DAY}T{int(hours):02}:{int(rest):02}:{rest % 1 * 60:09.6f}Z"
        record = {"boot": "b", "prev": "", "schema": 1, "event": event, "time": time, "uptime_us": 1}
        record |= {name.replace("error_type", "error.type"): value for name, value in members.items()}
        if finding:
            strength, layer, threats = FINDINGS[finding]
            maestro = {"layer": layer, "layer.name": NAMES[layer], "threats": threats}
            record |= {"finding": finding, "strength": strength, "maestro": maestro, "taxonomy": TAXONOMY}
        self.records.append(record)

    def call(self, minute: float, agent: str, tool: str, environment: str, deny: str | None, **more: object) -> None:
        members = {
            "call": f"{self.chance.getrandbits(128):032x}",
            "principal": agent,
            "server": "flags",
            "method": "tools/call",
            "target": {"tool": tool},
            "operation": {
                "effect": TOOLS.get(tool, "unknown"),
                "environments": [environment],
                "environment_source": "arguments",
            },
        }
        decision = {"effect": "permit", "enforced": True, "reasons": [], "policy": "r12", "engine": "compiled"}
        if deny:
            reasons = [{"code": deny, "message": "denied", "origin": "rule"}]
            finding = {"wrong-environment": "env_pin_violation", "writes": "rate_limited"}.get(deny, "tool_denied")
            decision |= {"effect": "deny", "reasons": reasons}
            self.add("denial", minute, finding, **members, decision=decision, **more)
            return
        self.add("intent", minute, **members, decision=decision)
        draw = self.chance.random()
        outcome = {"outcome": "ok"} if draw > 0.03 else {"outcome": "tool_error"}
        finding = None
        if draw < 0.008:
            outcome, finding = {"outcome": "upstream_failed"}, "upstream_failure"
        elif draw > 0.995:
            finding = "response_secret_leak"
        self.add("outcome", minute + 0.002, finding, **members, **outcome, duration_us=self.chance.randrange(900, 90_000))

    def held(self, minute: float, answer: str, by: str | None, reason: str) -> None:
        common = {"call": f"{self.chance.getrandbits(128):032x}", "principal": "release-bot", "server": "flags"}
        common |= {"method": "tools/call", "target": {"tool": "set_rollout"}}
        self.add("hold", minute, "approval_requested", **common)
        approval = {"hold": "h", "answer": answer, "by": by, "reason": reason}
        finding = {"granted": "approval_granted", "expired": "approval_expired"}.get(answer)
        self.add("hold_state", minute + 4, finding, **common, approval=approval)
        if answer == "granted":
            self.add("intent", minute + 4.01, **common)
            self.add("outcome", minute + 4.02, **common, outcome="ok", duration_us=240_000_000)
        else:
            self.add("denial", minute + 4.01, **common, error_type="-31002")

    def text(self) -> str:
        self.records.sort(key=lambda record: str(record["time"]))
        return "".join(json.dumps({"seq": seq} | it) + "\n" for seq, it in enumerate(self.records, 1))


def day() -> str:
    """A working day of three agents."""
    made = Journal()
    chance = made.chance
    made.add("start", 1, program={"version": "0.1.0", "host": "gateway-2", "mode": "enforce"})
    for minute, note in ((2, "loaded; 41 tests passed"), (870, "loaded; 43 tests passed")):
        made.add("policy", minute, "policy_reload", note=note, decision={"effect": "permit", "enforced": False, "policy": "r12", "engine": "compiled"})
    for hour in range(24):
        busy = 6 + max(0, 60 - 14 * abs(hour - 10)) + max(0, 50 - 12 * abs(hour - 15))
        for _ in range(busy):
            minute = hour * 60 + chance.random() * 59
            agent = chance.choices(["support-agent", "release-bot", "analyst"], [6, 3, 2])[0]
            tool = chance.choices(list(TOOLS), [50, 30, 14, 6, 2, 1])[0]
            environment = chance.choices(["staging", "production", "*"], [12, 3, 1])[0]
            deny = None
            if TOOLS[tool] == "exec":
                deny = "exec"
            elif TOOLS[tool] == "destructive":
                deny = "destructive"
            elif TOOLS[tool] == "write" and environment == "production":
                deny = "wrong-environment"
            made.call(minute, agent, tool, environment, deny)
    for number in range(24):
        made.call(874 + number / 10, "release-bot", "update_flag", "staging", "writes")
    made.held(615, "granted", "dana", "release 4.2, seen in review")
    made.held(700, "granted", "dana", "release 4.2, second half")
    made.held(905, "refused", "kim", "not on a Friday evening")
    made.held(1110, "expired", None, "")
    for _ in range(3):
        made.call(1210 + chance.random(), HOSTILE, HOSTILE, HOSTILE, HOSTILE)
    drift = {"server": "flags", "method": "tools/list"}
    made.add("notice", 640, "tool_definition_drift", **drift, target={"tool": "update_flag"}, note="stands to the lock as: changed")
    made.add("notice", 641, "tool_definition_drift", **drift, target={"tool": "export_users"}, note="stands to the lock as: added")
    made.add("denial", 300, "malformed_frame", call="0" * 32, http={"method": "POST", "path": "/flags"}, error_type="-32700")
    made.add("webhook", 720, note="`pager` fails: 503; failures since the last record: 4")
    gap = {"refused": 12, "since": f"{DAY}T14:02:11Z", "cause": "no space left on device"}
    made.add("gap", 843, "audit_sink_failure", gap=gap)
    return made.text()


def check(fact: object, what: object) -> None:
    if not fact:
        raise RuntimeError(what)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--screenshots", type=pathlib.Path, help="write the picture of the documentation there")
    pictures = parser.parse_args().screenshots
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        (work / "journal").mkdir()
        (work / "journal" / "journal-00000000000000000001.ndjson").write_text(day())
        page = work / "report.html"
        command = [BARTIZAN, "audit", "report", "--state", folder, "--since", DAY, "--until", "2026-11-30"]
        subprocess.run([*command, "--format", "html", "-o", str(page)], check=True)
        with browser(work) as one:
            for scheme in ("light", "dark"):
                one.emulate(scheme, 1120, 1500)
                one.go(page.as_uri())
                check("Most denied" in one.text() and "<img src=x onerror=" in one.text(), one.text())
                found = one.run("return Array.from(document.querySelectorAll('*')).map((it) => it.tagName.toUpperCase())")
                check(set(found) <= set(ELEMENTS), collections.Counter(found))
                check(not one.has_dialog(), "a text was run")
                rules = one.run(f"{AXE}\nreturn axe.run(document, {{resultTypes: ['violations']}}).then((all) => all.violations.map((it) => it.id + ': ' + it.nodes.map((node) => node.html).join(' ')))")
                check(not rules, (scheme, rules))
                if pictures:
                    one.picture(pictures / f"audit-report-{scheme}.png")
            one.emulate("light", 380, 800)
            wide = one.run("return document.documentElement.scrollWidth")
            check(wide <= 380, f"the page is {wide} wide in a window of 380")
            loaded = one.run("return performance.getEntriesByType('resource').map((it) => it.name)")
            check(not loaded, loaded)
            style = one.run("return getComputedStyle(document.querySelector('section')).borderRadius")
            check(style == "10px", "the policy of the page forbids its own style sheet")
            complaints = one.complaints()
            check(not complaints, complaints)
    print("report.py: the page is text, fits, and has no barrier in light and dark")


main()
