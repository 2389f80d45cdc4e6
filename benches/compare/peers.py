"""Other programs that stand between clients and MCP servers, as their registries offer them.

Each is set up as its documentation says, with logs turned down, in front of server.py. PEERS is the
directory where compare.sh has installed them.
"""

import os
import pathlib
import sys
from collections.abc import Callable

import load
from load import Work
from targets import HERE, WORK, Target, bartizan, envoy, free_port, nginx_proxy

INSTALLED = pathlib.Path(os.environ.get("PEERS", "/nonexistent"))
# Without these there is nothing to compare with.
MUST = ("nginx", "bartizan")
# How a client reaches the tool, where it is not at /mcp under its own name.
PATHS: dict[str, str] = {}

FASTMCP = """
from fastmcp.server import create_proxy
create_proxy("http://127.0.0.1:{server}/mcp", name="flags").run(
    transport="http", host="127.0.0.1", port={port}, path="/mcp", show_banner=False, log_level="error"
)
"""


def program(package: str, name: str) -> str:
    found = INSTALLED / package / "bin" / name
    if not found.exists():
        said = INSTALLED / f"{package}.failed"
        raise RuntimeError(said.read_text().strip() if said.exists() else f"{package} is not installed")
    return str(found)


def fastmcp(server: int) -> Target:
    port = free_port()
    script = WORK / "fastmcp_proxy.py"
    script.write_text(FASTMCP.format(server=server, port=port))
    return Target("fastmcp", port, [program("fastmcp", "python"), str(script)])


def mcp_proxy(_: int) -> Target:
    """It bridges transports: the server behind it is a program that it starts."""
    port = free_port()
    server = [sys.executable, str(HERE / "server.py"), "--stdio"]
    options = ["--port", str(port), "--log-level", "ERROR", "--"]
    return Target("mcp-proxy-py", port, [program("mcp-proxy", "mcp-proxy"), *options, *server])


TOWER = """
[proxy]
name = "compare"
[proxy.listen]
host = "127.0.0.1"
port = {port}
[[backends]]
name = "flags"
transport = "http"
url = "http://127.0.0.1:{server}/mcp"
[observability]
log_level = "error"
"""


def tower(server: int) -> Target:
    port = free_port()
    conf = WORK / "mcp-proxy.toml"
    conf.write_text(TOWER.format(server=server, port=port))
    return Target("mcp-proxy-rs", port, [program("crate-mcp-proxy", "mcp-proxy"), "--config", str(conf)])


PEERS: dict[str, Callable[[int], Target]] = {
    "nginx": nginx_proxy,
    "envoy": envoy,
    "bartizan": bartizan,
    "mcp-proxy-rs": tower,
    "fastmcp": fastmcp,
    "mcp-proxy-py": mcp_proxy,
}


def not_measured() -> list[load.Json]:
    return []


def reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def work(target: Target, arguments_bytes: int) -> Work:
    """Calls of the tool in a session that has begun."""
    path = PATHS.get(target.name, "/mcp")
    headers, tool = load.session(target.port, path)
    # A session may see an id once.
    return Work(load.call(arguments_bytes, tool, meta=None), path, headers, bodies=0)
