# Rules that read arguments, for all measurements.
package mcp

deny contains {"code": "production", "message": "flags of production are closed"} if {
	input.tool.name in {"get_flag", "set_flag"}
	input.tool.arguments.environment == "production"
}

deny contains {"code": "long-key", "message": "the key is too long"} if {
	input.tool.name == "get_flag"
	count(input.tool.arguments.key) > 200
}
