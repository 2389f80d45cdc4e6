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


class Difference(NamedTuple):
    case: str
    scenario: str
    checks: dict[str, tuple[list[str], list[str]]]
    why: str


FAILURE, INFO, SUCCESS, WARNING = "FAILURE", "INFO", "SUCCESS", "WARNING"

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
]
