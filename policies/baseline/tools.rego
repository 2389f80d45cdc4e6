# Baseline: tools
#
# Reading is permitted. Writing is permitted in the environment that the server is pinned to, if
# the call itself names that environment and no other. Everything else is refused until a rule
# permits it: tools that destroy, tools that run code, and tools that no pack describes.
#
# A change outside the pin is denied even if another rule permits it, and so is a tool that selects
# the environment of later calls. A write that names no environment is held for approval. A permit
# overrides the other refusals: a rule of your own, or an entry in a data.json in this directory,
#
#   {"baseline": {"allow_tools": {"flags": ["delete_flag", "run_script"]}}}
#
# by the server's name in the configuration and the tool's exact name. Secrets are removed from
# the answer of a tool that reads credentials, unless reveal_credentials names it in the same way.
package mcp

permit contains {"code": "reads", "message": "reading tools are open"} if {
	forward_call
	input.operation.effect == "read"
	not "credential-read" in input.operation.tags
}

# The environments must equal the pin: neither more names, nor fewer, nor a server without a pin.
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

# The hold with the same code, below, makes this permit wait for a person's approval.
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
	input.operation.environment_source == "absent"
}

deny contains {"code": "tool-without-environment", "message": "this tool reaches outside the pin, and no argument of it names an environment"} if {
	outside_pin
	input.operation.environment_source == "none"
}

deny contains {"code": "unmapped-environment", "message": "the call names an environment by an identifier that is in no map"} if {
	outside_pin
	input.operation.environment_source == "unmapped"
}

# If a rule permits such a tool, secrets of a known form are removed from its answer.
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

# A call to the server. These rules never permit a call in the other direction.
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

# A change outside the pin: its arguments name another environment, or their absence means one. `*`
# stands for every environment, and equals no pin.
outside_pin if {
	forward_call
	pinned
	input.operation.effect in {"write", "destructive", "exec", "unknown"}
	some environment in input.operation.environments
	environment != input.server.environment
}
