# Calls of its tools: the operation of each, and the baseline's rule for it under a pin to `staging`.
package pack_cequence_gateway_test

calls := [
	{
		"tool": "get_agent_persona",
		"arguments": {},
		"operation": {"effect": "read", "environment_source": "none", "environments": [], "tags": []},
		"rule": "permit",
		"code": "reads",
	},
	{
		"tool": "attach_dlp_policy",
		"arguments": {},
		"operation": {"effect": "write", "environment_source": "none", "environments": ["*"], "tags": ["approval-control"]},
		"rule": "deny",
		"code": "tool-without-environment",
	},
]

test_the_baseline_says_so if data.packs_test.wrong(calls) == []
