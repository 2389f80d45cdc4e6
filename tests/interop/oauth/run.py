"""Official clients complete OAuth against Bartizan as the protected resource, and then call a tool.

Needs the environment of run.sh, which calls it. Each client finds by itself where to get a token,
registers, gets one for the resource that it was told of, and comes back; servers over HTTP and over
stdio see no token, and the journal names the user that the token does.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from harness import INTEROP, bartizan, everything_http, everything_stdio, flags_http, free_port, logs, serving  # noqa: E402

CLIENT_S_MAX = 60
USER = "user-of-this-run"
SCOPE = "mcp:tools"

CLIENTS = {
    "typescript-1": (["node", str(INTEROP / "oauth/client_v1.mjs")], ["legacy"]),
    "typescript-2": (["node", str(INTEROP / "oauth/client_v2.mjs")], ["auto", "legacy"]),
    "python-2": ([str(INTEROP / "venv/bin/python"), str(HERE / "client.py")], ["auto", "legacy"]),
}
ECHO = ("echo", {"message": "with a token"}, "with a token")
FLAG = ("get_flag", {"key": "search-v2"}, "search-v2")
TARGETS = {"everything over HTTP": ECHO, "everything over stdio": ECHO, "flag service (rmcp) over HTTP": FLAG}


def protected(port: int, issuer: str) -> dict[str, object]:
    return {
        "public_url": f"http://127.0.0.1:{port}/mcp",
        "oauth": {
            "mode": "terminate",
            "issuers": [{"issuer": issuer, "jwks_uri": f"{issuer}/keys"}],
            "scopes": [SCOPE],
        },
    }


def principals(work: pathlib.Path) -> set[str]:
    """Whom the journal names for messages that went on."""
    found = set()
    for file in (work / "state/journal").glob("*.ndjson"):
        for line in file.read_text().splitlines():
            record = json.loads(line)
            if record["event"] == "intent":
                found.add(record["principal"])
    return found


def called(client: str, era: str, target: str, work: pathlib.Path, url: str) -> dict[str, object]:
    tool, arguments, _ = TARGETS[target]
    command = [*CLIENTS[client][0], url, tool, json.dumps(arguments)]
    with (work / "client.log").open("ab") as log:
        done = subprocess.run(
            command, env={**os.environ, "ERA": era}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=log, timeout=CLIENT_S_MAX, check=True,
        )
    return json.loads(done.stdout)


def through(client: str, era: str, target: str, work: pathlib.Path) -> dict[str, object]:
    keys, port = free_port(), free_port()
    issuer = f"http://127.0.0.1:{keys}"
    command = ["node", str(INTEROP / "oauth/issuer.mjs"), str(keys)]
    with serving(command, keys, work / "issuer.log"):
        ours = protected(port, issuer)
        if target == "everything over stdio":
            with bartizan(work, {"command": everything_stdio(), **ours}, port) as url:
                return called(client, era, target, work, url)
        with (flags_http if "flag" in target else everything_http)(work) as upstream:
            with bartizan(work, {"url": upstream, **ours}, port) as url:
                return called(client, era, target, work, url)


def wrong(target: str, seen: dict[str, object], work: pathlib.Path) -> list[str]:
    """What is not as it should be."""
    _, _, text = TARGETS[target]
    problems = []
    if seen["consents"] != 1:
        problems.append(f"its user was asked {seen['consents']} times")
    if not seen["tools"] or text not in json.dumps(seen["content"]):
        problems.append(f"it saw {seen}")
    if principals(work) != {USER}:
        problems.append(f"the journal names {principals(work)}")
    return problems


def main() -> int:
    bad = good = 0
    for target in TARGETS:
        for client, (_, eras) in CLIENTS.items():
            for era in eras:
                name = f"{client} ({era}) with a token, {target}"
                with tempfile.TemporaryDirectory(prefix="bartizan-oauth-") as directory:
                    work = pathlib.Path(directory)
                    try:
                        problems = wrong(target, through(client, era, target, work), work)
                    except (RuntimeError, OSError, ValueError, subprocess.SubprocessError) as error:
                        problems = [f"{error}\n{logs(work)}"]
                    print(f"{'FAILED' if problems else 'ok':<7} {name}", *problems, flush=True)
                    good, bad = good + (not problems), bad + bool(problems)
    print(f"{good} of {good + bad} came in")
    return 1 if bad or not good else 0


if __name__ == "__main__":
    sys.exit(main())
