# Baseline: the protocol
#
# Permits what MCP itself needs: the handshake, lists, notifications, resources, prompts, and the
# server's requests to the client. The rules for tools are in tools.rego.
#
# A data.json in the same directory changes this without a new rule:
#
#   {"baseline": {
#     "allow_methods": ["vendor/reindex"],
#     "closed_methods": ["sampling/createMessage", "elicitation/create", "roots/list"]
#   }}
#
# allow_methods permits methods that MCP does not define. closed_methods denies any method, in
# both directions. By the three methods above a server uses the client's model, asks its user
# questions, or learns which folders are open. The baseline permits them because a client declares
# which of them it supports and asks its user, and because a firewall should not break what
# worked without it. Close those that your agents do not use.
package mcp

# Tells other policies that the baseline is loaded. The open example then permits nothing.
baseline := true

# Requests that name no resource, prompt or tool, or that refer to a call that was permitted.
client_methods := {
	"initialize",
	"logging/setLevel",
	"ping",
	"prompts/list",
	"resources/list",
	"resources/templates/list",
	"server/discover",
	"subscriptions/listen",
	"tasks/cancel",
	"tasks/get",
	"tasks/list",
	"tasks/result",
	"tasks/update",
	"tools/list",
}

# Requests that read resources and prompts of the server.
read_methods := {
	"completion/complete",
	"prompts/get",
	"resources/read",
	"resources/subscribe",
	"resources/unsubscribe",
}

# Requests that a server may send to a client.
server_methods := {
	"elicitation/create",
	"ping",
	"roots/list",
	"sampling/createMessage",
	"tasks/cancel",
	"tasks/get",
	"tasks/list",
	"tasks/result",
}

permit contains {"code": "protocol", "message": "the protocol itself is open"} if {
	not tool_call
	input.direction == "to_server"
	input.method in client_methods
}

permit contains {"code": "published", "message": "resources and prompts are open for reading"} if {
	not tool_call
	input.direction == "to_server"
	input.method in read_methods
}

permit contains {"code": "notices", "message": "notifications are open in both directions"} if {
	startswith(input.method, "notifications/")
}

permit contains {"code": "server-requests", "message": "the server may ask what the client offers"} if {
	input.direction == "to_client"
	input.method in server_methods
}

permit contains {"code": "allowed-methods", "message": "this method is allowed by name"} if {
	input.method in data.baseline.allow_methods
}

deny contains {"code": "closed-method", "message": "this method is closed by name"} if {
	input.method in data.baseline.closed_methods
}

# https authenticates the site that the user is sent to. A URL that is missing, or that readers could
# take for another one, has no scheme here and is denied too, and so is a mode that nobody knows.
deny contains {"code": "elicitation-url", "message": "a user is sent to https addresses alone"} if {
	input.direction == "to_client"
	input.method == "elicitation/create"
	not plain_form
	not https_site
}

plain_form if {
	input.elicitation.mode == "form"
	input.elicitation.url == ""
}

https_site if {
	input.elicitation.parsed.scheme == "https"
	input.elicitation.parsed.host != ""
}

# A form must not ask for secrets (MCP 2025-06-18, client/elicitation), so an answer gives none away.
redact contains {"code": "secret-answer", "what": "secrets"} if {
	input.phase == "answer"
	input.method == "elicitation/create"
}

deny contains {"code": "ambiguous-root", "message": "a folder of the client can be taken for another"} if {
	some root in input.answer.roots
	root.ambiguous
}

# Rules compare a URI. If a server could read another one from its text, they decide wrongly.
deny contains {"code": "ambiguous-uri", "message": "this URI can be taken for another"} if {
	input.resource.ambiguous
}

refuse contains {"code": "unknown-method", "message": "no rule knows this method"} if {
	not tool_call
}

refuse contains {"code": "backward-call", "message": "a server may not call tools of a client"} if {
	tool_call
	input.direction == "to_client"
}

tool_call if input.method == "tools/call"
