"""The MCP Inspector's command line, as one more client: every step of a scenario that it can make
is a process of its own. Called as the other clients are; ERA is its `--protocol-era`.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

INTEROP = pathlib.Path(os.environ["INTEROP"])
MODULES = INTEROP / "node_modules"
# It wants a newer node than the other clients do: from npm where npm has one, else the one at hand.
NODE = next(MODULES.glob("node-*-*/bin/node"), "node")
CLI = MODULES / "@modelcontextprotocol/inspector/clients/launcher/build/index.js"
STEP_S_MAX = 30

LISTS = ["tools/list", "resources/list", "resources/templates/list", "prompts/list"]


def arguments(step: dict) -> list[str] | None:
    """The options that make a step; nothing for one that the Inspector cannot make."""
    method, params = step.get("method"), step.get("params", {})
    if "progress" in step or "$repeat" in json.dumps(params):
        return None
    if method in LISTS and not params:
        return ["--method", method]
    if method == "tools/call":
        given = json.dumps(params.get("arguments", {}))
        return ["--method", method, "--tool-name", params["name"], "--tool-args-json", given]
    if method == "resources/read":
        return ["--method", method, "--uri", params["uri"]]
    if method == "prompts/get":
        pairs = [f"{key}={value}" for key, value in params.get("arguments", {}).items()]
        return ["--method", method, "--prompt-name", params["name"], *(["--prompt-args", *pairs] if pairs else [])]
    return None


def read(text: str, address: str) -> object:
    """What it said: JSON where it is, without the address that it was given."""
    if address:
        text = text.replace(address, "ADDRESS")
    try:
        return json.loads(text)
    except ValueError:
        return text


def main() -> int:
    file, kind, *rest = sys.argv[1:]
    target = ["--transport", "http", "--server-url", rest[0]] if kind == "http" else rest
    era = os.environ["ERA"]
    with tempfile.TemporaryDirectory(prefix="bartizan-inspector-") as home:
        for step in json.loads(pathlib.Path(file).read_text())["steps"]:
            options = arguments(step)
            if options is None:
                continue
            command = [NODE, CLI, "--cli", *target, *options, "--protocol-era", era, "--format", "json", "--quiet"]
            done = subprocess.run(
                command, env={**os.environ, "HOME": home}, stdin=subprocess.DEVNULL,
                capture_output=True, text=True, timeout=STEP_S_MAX,
            )
            said = [read(text, rest[0] if kind == "http" else "") for text in (done.stdout, done.stderr)]
            print(json.dumps({"step": step["name"], "exit": done.returncode, "said": said}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
