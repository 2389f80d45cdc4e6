# A policy of the size and mixture that a security team writes: roles and blocks in data, patterns,
# helper functions, comprehensions, duties and a listing.
package mcp

permit contains {"code": "role", "message": msg} if {
	some group in input.principal.groups
	input.tool.name in data.roles[group]
	msg := sprintf("%s may call %s", [group, input.tool.name])
}

permit contains {"code": "protocol", "message": "the protocol is open"} if {
	input.method in {"initialize", "ping", "tools/list"}
}

permit contains {"code": "notices", "message": "notices are open"} if startswith(input.method, "notifications/")

deny contains {"code": "blocked", "message": msg} if {
	some pattern in data.blocked
	glob.match(pattern, [], input.tool.name)
	msg := sprintf("%s matches %s", [input.tool.name, pattern])
}

deny contains {"code": "environment", "message": msg} if {
	some environment in input.operation.environments
	not allowed(environment)
	msg := sprintf("%s is outside %s", [environment, input.server.name])
}

deny contains {"code": "key", "message": "keys that begin with `prod` are closed"} if {
	startswith(input.tool.arguments.key, "prod")
}

deny contains {"code": "rollout", "message": "a rollout grows by at most a half"} if {
	input.tool.arguments.value.rollout - object.get(input.session.facts, "rollout", 0) > 50
}

deny contains {"code": "night", "message": "no changes at night"} if {
	changes
	night
}

hold contains {"code": "go-live", "message": "going live needs a second pair of eyes", "approvers": ["release"], "ttl": "15m"} if {
	"go-live" in input.operation.tags
	count(risky) > 0
}

limit contains {"code": "calls", "key": input.principal.id, "rate": rate, "burst": 5} if changes

# A server without an environment has none to set. bartizan:allow absent-operand
set contains {"pointer": "/environment", "value": input.server.environment} if {
	changes
	not "environment" in object.keys(input.tool.arguments)
}

hide contains tool.name if {
	some tool in input.tools
	tool.operation.effect in {"destructive", "unknown"}
}

hide contains tool.name if {
	some tool in input.tools
	some pattern in data.blocked
	glob.match(pattern, [], tool.name)
}

allowed(environment) if environment == input.server.environment

allowed(environment) if environment in data.pins[input.server.name]

changes if {
	input.method == "tools/call"
	input.operation.effect != "read"
}

night if input.time.hour < 6

night if input.time.hour > 22

risky := {tag | some tag in input.operation.tags; not tag in {"go-live", "minor"}}

default rate := "10/m"

rate := "30/m" if "oncall" in input.principal.groups
