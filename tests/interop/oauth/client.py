"""The official Python client, 2.x, with a token. `client.py URL TOOL ARGUMENTS`."""

import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
import warnings
from typing import Any

import anyio
from mcp import Client
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.shared.auth import OAuthClientMetadata


class Kept:
    """Remembers what the client is told."""

    tokens: Any = None
    client: Any = None

    async def get_tokens(self) -> Any:
        return self.tokens

    async def set_tokens(self, tokens: Any) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> Any:
        return self.client

    async def set_client_info(self, client_info: Any) -> None:
        self.client = client_info


class Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


class User:
    """Consents at once."""

    consents = 0
    callback: dict[str, str] = {}

    async def sent_to(self, url: str) -> None:
        self.consents += 1
        try:
            urllib.request.build_opener(Stay).open(url)
        except urllib.error.HTTPError as answer:
            query = urllib.parse.urlsplit(answer.headers["location"]).query
            self.callback = dict(urllib.parse.parse_qsl(query))

    async def came_back(self) -> AuthorizationCodeResult:
        return AuthorizationCodeResult.model_validate(self.callback)


async def main() -> None:
    url, tool, arguments = sys.argv[1:]
    user = User()
    metadata = OAuthClientMetadata.model_validate({
        "client_name": "interop",
        "redirect_uris": ["http://127.0.0.1:9/callback"],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    })
    auth = OAuthClientProvider(
        server_url=url, client_metadata=metadata, storage=Kept(),
        redirect_handler=user.sent_to, callback_handler=user.came_back,
    )
    async with create_mcp_http_client(auth=auth) as http:
        transport = streamable_http_client(url, http_client=http)
        async with Client(transport, mode=os.environ.get("ERA", "auto")) as client:
            tools = await client.list_tools()
            called = await client.call_tool(tool, json.loads(arguments))
            content = [one.model_dump(by_alias=True, mode="json", exclude_unset=True) for one in called.content]
            print(json.dumps({"tools": len(tools.tools), "content": content, "consents": user.consents}))


warnings.simplefilter("ignore")
anyio.run(main)
