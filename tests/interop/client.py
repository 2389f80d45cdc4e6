"""The official Python client, 2.x, playing a scenario; prints what it saw as JSON lines.

`client.py SCENARIO http URL`, `client.py SCENARIO sse URL` or `client.py SCENARIO stdio COMMAND...`.
Without ERA it probes for the modern era and falls back; ERA=legacy or a date pins it. Nothing is
normalised here: see normalise.py.
"""

import asyncio
import json
import os
import sys
import warnings
from typing import Any, Literal

import anyio
import mcp_types as types
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.sse import sse_client
from pydantic import ConfigDict

SETTLE_S_MAX = 10


def expanded(value: Any) -> Any:
    """`{"$repeat": [text, times]}` stands for a text too long to write down."""
    if isinstance(value, list):
        return [expanded(inner) for inner in value]
    if isinstance(value, dict):
        if "$repeat" in value:
            text, times = value["$repeat"]
            return text * times
        return {key: expanded(inner) for key, inner in value.items()}
    return value


def shown(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(by_alias=True, mode="json", exclude_unset=True)
    return value


def say(line: dict[str, Any]) -> None:
    print(json.dumps(line, ensure_ascii=False), flush=True)


def fault(error: Exception) -> dict[str, Any]:
    if isinstance(error, MCPError):
        return {"error": shown(error.error)}
    return {"error": {"name": type(error).__name__, "message": str(error)}}


class Anything(types.Result):
    model_config = ConfigDict(extra="allow")


class Nothing(types.Request[None, str]):
    """A request of a method that nobody knows."""

    method: Literal["interop/nothing"] = "interop/nothing"
    params: None = None


class Player:
    def __init__(self, scenario: dict[str, Any]) -> None:
        self.scenario = scenario
        self.requests: list[dict[str, Any]] = []
        self.settled = anyio.Event()

    def asked(self, method: str, params: Any) -> None:
        self.requests.append({"method": method, "params": shown(params)})
        if method == self.scenario.get("await"):
            self.settled.set()

    def take(self, own: bool = False) -> list[dict[str, Any]]:
        late = self.scenario.get("await")
        taken = [one for one in self.requests if (one["method"] == late) == own]
        self.requests = []
        return taken

    async def sample(self, _context: Any, params: Any) -> Any:
        self.asked("sampling/createMessage", params)
        return types.CreateMessageResult.model_validate(self.scenario["sampling"])

    async def elicit(self, _context: Any, params: Any) -> Any:
        self.asked("elicitation/create", params)
        return types.ElicitResult.model_validate(self.scenario["elicitation"])

    async def roots(self, _context: Any) -> Any:
        self.asked("roots/list", None)
        return types.ListRootsResult.model_validate({"roots": self.scenario["roots"]})

    async def play(self, client: Client) -> None:
        say({"greeting": {
            "server": shown(client.server_info),
            "capabilities": shown(client.server_capabilities),
            "instructions": client.instructions,
            "protocol": client.protocol_version,
        }})
        if "await" in self.scenario:
            with anyio.fail_after(SETTLE_S_MAX):
                await self.settled.wait()
        say({"settled": self.scenario.get("await"), "asked": self.take(own=True)})
        for step in self.scenario["steps"]:
            try:
                seen = await self.step(client, step)
            except Exception as error:  # whatever a client raises is what it saw
                seen = fault(error)
            say({"step": step["name"], **seen, "asked": self.take()})

    async def step(self, client: Client, step: dict[str, Any]) -> dict[str, Any]:
        if "together" in step:
            parts = [ask(client, part["method"], expanded(part.get("params"))) for part in step["together"]]
            return {"results": [shown(one) for one in await asyncio.gather(*parts)]}
        params = expanded(step.get("params"))
        progress: list[dict[str, Any]] = []
        if step.get("cancel"):
            with anyio.CancelScope() as scope:
                async def cancel(*_: Any) -> None:
                    scope.cancel()
                await ask(client, step["method"], params, cancel)
            return {"cancelled": scope.cancelled_caught}
        if step.get("progress"):
            async def note(done: float, total: float | None, message: str | None) -> None:
                progress.append({"progress": done, "total": total, "message": message})
            result = await ask(client, step["method"], params, note, step.get("timeout"))
            return {"result": shown(result), "progress": progress}
        return {"result": shown(await ask(client, step["method"], params, None, step.get("timeout")))}


async def ask(client: Client, method: str, params: Any, progress: Any = None, timeout_ms: int | None = None) -> Any:
    match method:
        case "ping":
            return await client.send_ping()
        case "tools/list":
            return await client.list_tools(cache_mode="bypass")
        case "tools/call":
            limit = timeout_ms / 1000 if timeout_ms else None
            return await client.call_tool(
                params["name"], params["arguments"], read_timeout_seconds=limit, progress_callback=progress
            )
        case "resources/list":
            return await client.list_resources(cache_mode="bypass")
        case "resources/templates/list":
            return await client.list_resource_templates(cache_mode="bypass")
        case "resources/read":
            return await client.read_resource(params["uri"], cache_mode="bypass")
        case "resources/subscribe":
            return await client.subscribe_resource(params["uri"])
        case "resources/unsubscribe":
            return await client.unsubscribe_resource(params["uri"])
        case "prompts/list":
            return await client.list_prompts(cache_mode="bypass")
        case "prompts/get":
            return await client.get_prompt(params["name"], params.get("arguments"))
        case "completion/complete":
            ref = params["ref"]
            kind = types.PromptReference if ref["type"] == "ref/prompt" else types.ResourceTemplateReference
            context = params.get("context", {}).get("arguments")
            return await client.complete(kind.model_validate(ref), params["argument"], context)
        case "logging/setLevel":
            return await client.set_logging_level(params["level"])
        case "interop/nothing":
            return await client.session.send_request(Nothing(), Anything)
        case _:
            raise ValueError(f"no way to ask {method}")


async def main() -> None:
    file, kind, *rest = sys.argv[1:]
    with open(file, encoding="utf-8") as text:
        player = Player(json.load(text))
    server: Any = rest[0]
    if kind == "sse":
        server = sse_client(rest[0])
    elif kind == "stdio":
        server = StdioServerParameters(command=rest[0], args=rest[1:])
    callbacks: dict[str, Any] = {}
    if "await" in player.scenario:
        callbacks = {
            "sampling_callback": player.sample,
            "elicitation_callback": player.elicit,
            "list_roots_callback": player.roots,
        }
    info = types.Implementation(name="interop-py", version="1")
    mode = os.environ.get("ERA", "auto")
    played = False
    try:
        async with Client(server, client_info=info, mode=mode, **callbacks) as client:
            await player.play(client)
            played = True
    except Exception:
        # This client's SSE reader breaks where a message still comes while it closes.
        if kind != "sse" or not played:
            raise


warnings.simplefilter("ignore")
anyio.run(main)
