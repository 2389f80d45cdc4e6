# METADATA
# title: "Baseline: the protocol"
# description: |
#   What MCP itself needs is open: the handshake, lists, notices, resources, prompts, and what the
#   server asks of the client. Tools have rules of their own, in tools.rego.
#
#   A data.json beside these files adjusts it without touching a rule:
#
#     {"baseline": {
#       "allow_methods": ["vendor/reindex"],
#       "closed_methods": ["sampling/createMessage", "elicitation/create", "roots/list"]
#     }}
#
#   allow_methods opens methods that MCP does not define. closed_methods closes any method, in
#   both directions. The three above are those by which a server makes the client's model work for
#   it, asks its user questions, or learns which folders are open: they are open at first because
#   a client declares which of them it offers and asks its user, and because a firewall should
#   change nothing that nobody asked it to change. Close what your agents do not use.
package mcp

# Tells other policies that the baseline is loaded, so that the open example stands back.
baseline := true

# Requests that name no resource, prompt or tool, or only follow up on a call that was permitted.
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

# Requests that read what the server publishes.
read_methods := {
	"completion/complete",
	"prompts/get",
	"resources/read",
	"resources/subscribe",
	"resources/unsubscribe",
}

# Requests that a server may make of a client.
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

# What a user is sent to must at least be who it says. A URL that is missing or no text is denied too.
deny contains {"code": "elicitation-url", "message": "a user is sent to https addresses alone"} if {
	input.direction == "to_client"
	input.method == "elicitation/create"
	input.params.mode == "url"
	not startswith(input.params.url, "https://")
}

# A rule that reads the text of a URI must mean the path that the server will open.
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
