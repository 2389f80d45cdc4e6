#!/usr/bin/env python3
"""Times `bartizan audit query` over a large journal.

    benches/audit-query.py target/release/bartizan [--records 1000000] [--keep DIRECTORY]

Writes a journal of that many records in the form of the firewall's (its chain verifies), asks the
three questions of a SOC and prints how long each answer takes. With --keep the journal is kept, and
used again. A record has about 900 bytes; the files are read once before, so that the disk does not
count.
"""

import argparse
import datetime
import hashlib
import os
import subprocess
import sys
import tempfile
import time

SEGMENT_BYTES = 64 << 20
TOOLS = ["list_flags", "get_flag", "update_flag", "set_rollout", "delete_flag"]
EFFECTS = ["read", "read", "write", "write", "destructive"]
FINDING = (
    ',"finding":"env_pin_violation","strength":"direct","maestro":{"layer":"L7","layer.name":'
    '"Agent Ecosystem","threats":["L7/Agent Tool Misuse","L4/Lateral Movement","X/Privilege '
    'Escalation"]},"owasp":{"mcp":["MCP02:2025"],"asi":["ASI02","ASI03"]},"mitre":{"atlas":'
    '["AML.T0053"]},"taxonomy":"maestro=2025-02;owasp_mcp=2025-beta;asi=2026;atlas=5.6.1"'
)


def records(count):
    """The records, without what the journal adds: three quarters are pairs of intent and outcome."""
    start = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=2)
    step = datetime.timedelta(days=2) / count
    call = 0
    made = 0
    while made < count:
        call += 1
        tool = call % 5
        session = call // 50
        environment = "production" if call % 7 == 0 else "staging"
        head = (
            f'"uptime_us":{made},"call":"{hashlib.md5(str(call).encode()).hexdigest()}",'
            f'"principal":"agent-{session % 40}","session":"{session:016x}",'
        )
        body = (
            '"peer":"10.1.2.3","server":"flags","direction":"to_server","protocol":{"revision":"2025-11-25",'
            f'"era":"legacy","transport":"http"}},"method":"tools/call","id":"{call}","target":{{"tool":'
            f'"{TOOLS[tool]}","definition":"sha256:{"7e" * 32}"}},"operation":{{"effect":"{EFFECTS[tool]}",'
            f'"environments":["{environment}"],"environment_source":"arguments","tags":[],"pack":'
            '"flag-service"}'
        )
        denied = environment == "production" and tool > 1
        code = "wrong-environment" if denied else "pinned-writes"
        decision = (
            f',"decision":{{"effect":"{"deny" if denied else "permit"}","enforced":true,"reasons":[{{"code":'
            f'"{code}","message":"the call names an environment","origin":"rule"}}],"obligations":[],'
            '"policy":"sha256:9844d61a1535456d","engine":"compiled"}'
        )
        size = f',"bytes":366,"digest":"hmac-sha256:{hashlib.sha256(str(call).encode()).hexdigest()}"'

        def line(event, rest):
            at = (start + made * step).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            return f'"schema":1,"event":"{event}","time":"{at}",{head}{body}{rest}}}'

        if denied:
            yield line("denial", decision + size + FINDING)
            made += 1
        else:
            yield line("intent", decision + size)
            made += 1
            if made < count:
                yield line("outcome", ',"outcome":"ok"' + size + ',"duration_us":2907')
                made += 1


def write(directory, count):
    """Writes the journal. Segments begin with a record like others, not with a `rotation`."""
    os.makedirs(directory)
    prev, file, size = "0" * 64, None, 0
    for seq, record in enumerate(records(count), 1):
        line = f'{{"seq":{seq},"boot":"5f3c","prev":"{prev}",{record}'.encode()
        prev = hashlib.sha256(line).hexdigest()
        if file is None or size + len(line) > SEGMENT_BYTES:
            if file:
                file.close()
            file, size = open(f"{directory}/journal-{seq:020}.ndjson", "wb"), 0
        file.write(line + b"\n")
        size += len(line) + 1
    file.close()


def main():
    options = argparse.ArgumentParser()
    options.add_argument("bartizan")
    options.add_argument("--records", type=int, default=1_000_000)
    options.add_argument("--keep", metavar="DIRECTORY")
    options = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        state = options.keep or folder
        journal = f"{state}/journal"
        if not os.path.isdir(journal):
            write(journal, options.records)
        size = 0
        for name in os.listdir(journal):
            with open(f"{journal}/{name}", "rb") as file:
                while part := file.read(1 << 20):
                    size += len(part)
        print(f"{options.records} records, {size >> 20} MiB, {os.cpu_count()} processors")
        session = f"{options.records // 200:016x}"
        for question, command in [
            ("who touched production yesterday", ["query", "--environment", "production", "--since",
                                                  "yesterday", "--until", "today", "--group-by", "principal"]),
            ("all denied by a rule", ["query", "--rule", "wrong-environment", "--json"]),
            ("how many were denied by a rule", ["query", "--rule", "wrong-environment", "--count"]),
            ("what an agent did in a session", ["session", session]),
            ("the last ten", ["tail", "--pretty"]),
            ("every call by its principal", ["query", "--group-by", "principal"]),
        ]:
            command = [options.bartizan, "audit", *command, "--state", state]
            before = time.monotonic()
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            spent = time.monotonic() - before
            lines = done.stdout.count(b"\n")
            print(f"{spent:7.2f} s  {question} ({lines} lines)")


if __name__ == "__main__":
    sys.exit(main())
