# Calls of its tools: the operation of each, and the baseline's rule for it under a pin to `staging`.
package pack_stigg_test

calls := [
	{
		"tool": "search_docs",
		"arguments": {"query": "coupons"},
		"operation": {"effect": "read", "environment_source": "none", "environments": [], "tags": []},
		"rule": "permit",
		"code": "reads",
	},
	{
		"tool": "execute",
		"arguments": {"code": "client.v1.coupons.list()"},
		"operation": {"effect": "exec", "environment_source": "none", "environments": [], "tags": ["code", "money"]},
		"rule": "refuse",
		"code": "exec",
	},
	{
		"tool": "execute",
		"arguments": {"code": "x", "api_key": "server-production"},
		"operation": {"effect": "exec", "environment_source": "unreadable", "environments": ["*"], "tags": ["code", "money"]},
		"rule": "deny",
		"code": "unreadable-environment",
	},
	{
		"tool": "Execute",
		"arguments": {},
		"operation": {"effect": "unknown", "environment_source": "none", "environments": [], "tags": []},
		"rule": "refuse",
		"code": "unknown-tool",
	},
]

test_the_baseline_says_so if data.packs_test.wrong(calls) == []
