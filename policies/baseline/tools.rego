# METADATA
# title: "Baseline: tools"
# description: |
#   Reading is open. Writing is open inside the environment that the server is pinned to, where
#   the call itself names that environment and no other. All else is refused until a rule permits
#   it: what destroys, what runs code, and what no pack knows.
#
#   A change that reaches outside the pin is denied, whatever another rule permits, and so is a
#   tool that moves later calls. A write that names no environment waits for a person. The other
#   refusals give way to a permit: one of your own, or a name in a data.json beside these files,
#
#     {"baseline": {"allow_tools": {"flags": ["delete_flag", "run_script"]}}}
#
#   by the server's name in the configuration and the tool's exact name. A tool that hands out
#   credentials is answered without them, unless reveal_credentials names it in the same way.
package mcp

permit contains {"code": "reads", "message": "reading tools are open"} if {
	forward_call
	input.operation.effect == "read"
	not "credential-read" in input.operation.tags
}

# Equality with exactly the pin: a name more, a name less or no pin at all is not enough.
permit contains {"code": "pinned-writes", "message": "writing inside the pinned environment is open"} if {
	forward_call
	input.operation.effect == "write"
	input.operation.environment_source == "arguments"
	input.operation.environments == [input.server.environment]
	not "approval-control" in input.operation.tags
}

permit contains {"code": "allowed-tools", "message": "this tool is allowed by name"} if {
	allowed_by_name
}

# With this permit comes a hold of the same code: a person must agree first.
permit contains {"code": "no-environment", "message": "the call names no environment to hold against the pin"} if {
	unaddressed_write
}

hold contains {"code": "no-environment", "message": "the call names no environment to hold against the pin"} if {
	unaddressed_write
	not allowed_by_name
}

deny contains {"code": "wrong-environment", "message": "the call names an environment outside the pin"} if {
	outside_pin
	input.operation.environment_source == "arguments"
}

deny contains {"code": "absent-environment", "message": "the call leaves out an environment, which reaches outside the pin"} if {
	outside_pin
	input.operation.environment_source in {"absent", "none"}
}

deny contains {"code": "unmapped-environment", "message": "the call names an environment by an identifier that is in no map"} if {
	outside_pin
	input.operation.environment_source == "unmapped"
}

# Whoever permits such a tool gets its answer without the secrets in it, as far as their form is known.
redact contains {"code": "credential-read", "what": "secrets"} if {
	forward_call
	"credential-read" in input.operation.tags
	not revealed
}

deny contains {"code": "moves-later-calls", "message": "this tool decides where later calls go, past the pin"} if {
	forward_call
	pinned
	"session-state" in input.operation.tags
}

deny contains {"code": "unreadable-environment", "message": "the environment of the call cannot be read"} if {
	outside_pin
	input.operation.environment_source == "unreadable"
}

refuse contains {"code": "no-pin", "message": "writing needs a server that is pinned to an environment"} if {
	forward_call
	input.operation.effect == "write"
	not pinned
}

refuse contains {"code": "approval-control", "message": "this tool acts on the vendor's own approvals"} if {
	forward_call
	"approval-control" in input.operation.tags
}

refuse contains {"code": "credential-read", "message": "this tool reads credentials"} if {
	forward_call
	"credential-read" in input.operation.tags
}

refuse contains {"code": "destructive", "message": "this tool destroys or replaces"} if {
	forward_call
	input.operation.effect == "destructive"
}

refuse contains {"code": "exec", "message": "this tool runs what the call carries"} if {
	forward_call
	input.operation.effect == "exec"
}

refuse contains {"code": "unknown-tool", "message": "no pack knows this tool"} if {
	forward_call
	input.operation.effect == "unknown"
}

# A call to the server. The other direction is none of ours to open.
forward_call if {
	tool_call
	input.direction == "to_server"
}

allowed_by_name if {
	forward_call
	input.tool.name in data.baseline.allow_tools[input.server.name]
}

revealed if input.tool.name in data.baseline.reveal_credentials[input.server.name]

unaddressed_write if {
	forward_call
	input.operation.effect == "write"
	pinned
	input.operation.environment_source in {"absent", "none"}
	not "approval-control" in input.operation.tags
	not outside_pin
}

pinned if is_string(input.server.environment)

# A change that touches something else than the pin, by its arguments or by what leaving them out
# means. Every environment (`*`) equals no name.
outside_pin if {
	forward_call
	pinned
	input.operation.effect in {"write", "destructive", "exec", "unknown"}
	some environment in input.operation.environments
	environment != input.server.environment
}
