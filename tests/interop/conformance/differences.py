"""The checks that may come out differently through Bartizan, each with its reason.

`Difference(case, scenario, checks, why)`: in the cases whose name begins with `case`, each of
`checks` of `scenario` has the statuses on the left directly, and those on the right through
Bartizan. An entry that no longer fits a case that ran is an error.
"""

from typing import NamedTuple

ONE_ANSWER = (
    "Over stdio a server has no streams to open or close: Bartizan answers a call that brings "
    "nothing but its result with plain JSON, which the tool reports as a stream that there is no "
    "need to look at."
)
OWN_REFUSAL = (
    "A server refuses a request without clientCapabilities with -32602. Over stdio that code says "
    "nothing of a status, and most faults that have it are answered with 200, not 400."
)
RESOURCE_DIALLED = (
    "The tool's authorization server knows the server by the URL at which it listens itself. A client "
    "that dials Bartizan asks for a token for the URL that it dialled, as RFC 8707 wants."
)
ISSUER_ELSEWHERE = (
    "The client looks for the authorization server at the origin that it dialled, and finds the issuer "
    "of another. Bartizan rewrites no issuer (RFC 8414, section 3.3), so the client stops there."
)
METADATA_SOUGHT = (
    "A server without resource metadata is asked for it by Bartizan at each place where it may be, "
    "which the tool logs as requests."
)


class Difference(NamedTuple):
    case: str
    scenario: str
    checks: dict[str, tuple[list[str], list[str]]]
    why: str


FAILURE, INFO, SUCCESS, WARNING = "FAILURE", "INFO", "SUCCESS", "WARNING"


def logged(direct: int, through: int) -> dict[str, tuple[list[str], list[str]]]:
    """So many requests in the log of the tool's servers."""
    counts = ([INFO] * direct, [INFO] * through)
    return {"incoming-request Incoming-request": counts, "outgoing-response Outgoing-response": counts}


DIFFERENCES = [
    *(
        Difference(
            case,
            "server-server-sse-multiple-streams",
            {"server-sse-streams-functional ServerSSEStreamsFunctional": ([SUCCESS], [INFO])},
            ONE_ANSWER,
        )
        for case in ("typescript over stdio, 0.1", "typescript over stdio, 0.2 2025", "rmcp over stdio")
    ),
    *(
        Difference(
            f"{fixture} over stdio, 0.2 2026-07-28",
            "server-server-stateless",
            {"sep-2575-http-server-meta-invalid-400 HttpServerMetaInvalid400": ([SUCCESS] * 3, [FAILURE, SUCCESS, SUCCESS])},
            OWN_REFUSAL,
        )
        for fixture in ("typescript", "rmcp")
    ),
    Difference(
        "typescript over stdio, 0.2 2026-07-28",
        "server-server-stateless",
        {
            "sep-2575-http-server-unsupported-version-400 HttpServerUnsupportedVersion400": ([SUCCESS], [FAILURE]),
            "sep-2575-server-unsupported-version-error ServerUnsupportedVersionError": ([SUCCESS], [FAILURE]),
        },
        "The SDK checks the revision of each request over HTTP; over stdio it stops doing so once the first one is served.",
    ),
    Difference(
        "typescript over stdio, 0.1 all",
        "server-server-sse-polling",
        {
            "incoming-sse-event IncomingSseEvent": ([INFO, INFO], []),
            "server-sse-content-type ServerSSEContentType": ([], [INFO]),
            "server-sse-disconnect-resume ServerDisconnectResume": ([INFO], []),
            "server-sse-priming-event ServerSendsPrimingEvent": ([WARNING], []),
            "server-sse-retry-field ServerSendsRetryField": ([WARNING], []),
            "stream-closed StreamClosed": ([INFO], []),
        },
        ONE_ANSWER,
    ),
    Difference(
        "typescript over stdio, 0.2 2025-11-25",
        "server-server-sse-polling",
        {
            "incoming-response IncomingResponse": ([INFO, INFO], [INFO]),
            "incoming-sse-event IncomingSseEvent": ([INFO, INFO], []),
            "outgoing-request OutgoingRequest": ([INFO, INFO], [INFO]),
            "server-sse-content-type ServerSSEContentType": ([], [INFO]),
            "server-sse-disconnect-resume ServerDisconnectResume": ([SUCCESS], []),
            "server-sse-priming-event ServerSendsPrimingEvent": ([SUCCESS], []),
            "server-sse-retry-field ServerSendsRetryField": ([SUCCESS], []),
            "stream-closed StreamClosed": ([INFO], []),
        },
        ONE_ANSWER,
    ),
    *(
        Difference(
            f"client, {tool} {revision}, auth/{scenario}",
            f"auth/{scenario}",
            {"resource-parameter-matches-prm Resource parameter matches protected resource metadata": ([SUCCESS], [FAILURE])},
            RESOURCE_DIALLED,
        )
        for tool, revision in (("0.2", "2025-11-25"), ("0.2", "2026-07-28"))
        for scenario in (
            "metadata-default", "metadata-var1", "metadata-var2", "metadata-var3",
            "token-endpoint-auth-basic", "token-endpoint-auth-none", "token-endpoint-auth-post",
        )
    ),
    Difference(
        "client, 0.1 2025-03-26, auth/2025-03-26-oauth-metadata-backcompat",
        "auth/2025-03-26-oauth-metadata-backcompat",
        logged(4, 6),
        METADATA_SOUGHT,
    ),
    Difference(
        "client, 0.2 2025-03-26, auth/2025-03-26-oauth-metadata-backcompat",
        "auth/2025-03-26-oauth-metadata-backcompat",
        {
            **logged(14, 6),
            "authorization-request AuthorizationRequest": ([SUCCESS], []),
            "authorization-request Expected Check Missing: authorization-request": ([], [FAILURE]),
            "client-registration ClientRegistration": ([SUCCESS], []),
            "client-registration Expected Check Missing: client-registration": ([], [FAILURE]),
            "pkce-code-challenge-sent PKCE Code Challenge": ([SUCCESS], []),
            "pkce-code-verifier-sent PKCE Code Verifier": ([SUCCESS], []),
            "pkce-s256-method-used PKCE S256 Method": ([SUCCESS], []),
            "pkce-verifier-matches-challenge PKCE Verifier Validation": ([SUCCESS], []),
            "token-request Expected Check Missing: token-request": ([], [FAILURE]),
            "token-request TokenRequest": ([SUCCESS], []),
            "valid-bearer-token ValidBearerToken": ([SUCCESS] * 4, []),
        },
        ISSUER_ELSEWHERE,
    ),
    *(
        Difference(
            f"client, {tool} 2025-03-26, auth/2025-03-26-oauth-endpoint-fallback",
            "auth/2025-03-26-oauth-endpoint-fallback",
            logged(17, 19),
            METADATA_SOUGHT,
        )
        for tool in ("0.1", "0.2")
    ),
]
