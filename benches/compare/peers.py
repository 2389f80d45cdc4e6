"""Other programs that stand between clients and MCP servers, as their registries offer them.

Each is set up as its documentation says, with logs turned down, in front of server.py. PEERS is the
directory where compare.sh has installed them.
"""

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable

import load
from load import Work
from targets import HERE, WORK, Target, bartizan, envoy, free_port, nginx_proxy

INSTALLED = pathlib.Path(os.environ.get("PEERS", "/nonexistent"))
# Without these there is nothing to compare with.
MUST = ("nginx", "bartizan")
# Where a client reaches the tool, if not at /mcp.
PATHS = {"mcp-proxy-rs": "/"}
# What the tool is called where it may not be listed: vellaveto 6.1.1 takes the first list for a
# later one, the tool in it for one that was added, and refuses its calls.
TOOLS = {"vellaveto": "get_flag"}
# What a client sends besides, by target.
HEADERS: dict[str, dict[str, str]] = {}

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


CONTEXTFORGE = {
    "JWT_SECRET_KEY": "a secret of a benchmark, 32 bytes",
    "AUTH_ENCRYPTION_SECRET": "another secret of a benchmark, 32",
    "PLATFORM_ADMIN_PASSWORD": "Benchmark-of-1-hour",
    "DATABASE_URL": f"sqlite:///{WORK}/contextforge.db",
    "CACHE_TYPE": "memory",
    "LOG_LEVEL": "ERROR",
    # It would refuse a server on loopback, and more than 100 calls a minute.
    "SSRF_ALLOW_LOCALHOST": "true",
    "RATE_LIMITING_ENABLED": "false",
    "TOOL_RATE_LIMIT": "1000000000",
}


def contextforge(_: int) -> Target:
    port = free_port()
    package = "mcp-contextforge-gateway"
    command = [program(package, "mcpgateway"), "--host", "127.0.0.1", "--port", str(port)]
    maker = [program(package, "python"), "-m", "mcpgateway.utils.create_jwt_token"]
    options = ["--username", "admin@example.com", "--admin", "--exp", "600", "--secret", CONTEXTFORGE["JWT_SECRET_KEY"]]
    made = subprocess.run(
        [*maker, *options], capture_output=True, check=True, cwd=WORK, env=os.environ | CONTEXTFORGE, text=True
    )
    HEADERS["contextforge"] = {"authorization": f"Bearer {made.stdout.split()[-1]}"}
    return Target("contextforge", port, command, CONTEXTFORGE)


def register(target: Target, server: int) -> None:
    """Tells ContextForge of the server."""
    headers = {"content-type": "application/json"} | HEADERS["contextforge"]
    gateway = {"name": "flags", "url": f"http://127.0.0.1:{server}/mcp", "transport": "STREAMABLEHTTP"}
    load.posted(target.port, "/gateways", json.dumps(gateway), headers)


# What is done once a target listens.
SETUP: dict[str, Callable[[Target, int], None]] = {"contextforge": register}

VELLAVETO = """
[[policies]]
name = "reads"
tool_pattern = "get_flag"
function_pattern = "*"
policy_type = "Allow"
priority = 1
"""


def vellaveto(server: int) -> Target:
    port = free_port()
    conf = WORK / "vellaveto.toml"
    conf.write_text(VELLAVETO)
    options = ["--upstream", f"http://127.0.0.1:{server}/mcp", "--listen", f"127.0.0.1:{port}", "--config", str(conf)]
    options += ["--allow-anonymous", "--rate-limit", "0", "--audit-log", str(WORK / "vellaveto.log")]
    name = "vellaveto-http-proxy"
    return Target("vellaveto", port, [program(f"crate-{name}", name), *options], {"RUST_LOG": "error"})


PEERS: dict[str, Callable[[int], Target]] = {
    "nginx": nginx_proxy,
    "envoy": envoy,
    "bartizan": bartizan,
    "mcp-proxy-rs": tower,
    "vellaveto": vellaveto,
    "fastmcp": fastmcp,
    "mcp-proxy-py": mcp_proxy,
    "contextforge": contextforge,
}


def work(target: Target, arguments_bytes: int) -> Work:
    """Calls of the tool in a session that has begun."""
    path = PATHS.get(target.name, "/mcp")
    headers, tool = load.session(target.port, path, HEADERS.get(target.name, {}), TOOLS.get(target.name))
    # A session may see an id once.
    return Work(load.call(arguments_bytes, tool, meta=None), path, headers, bodies=0)
