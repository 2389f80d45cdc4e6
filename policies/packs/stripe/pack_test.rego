# Calls of its tools: the operation of each, and the baseline's rule for it under a pin to `staging`.
package pack_stripe_test

calls := [
	{
		"tool": "search_stripe_documentation",
		"arguments": {"q": "x"},
		"operation": {"effect": "read", "environment_source": "none", "environments": [], "tags": []},
		"rule": "permit",
		"code": "reads",
	},
	{
		"tool": "stripe_report",
		"arguments": {},
		"operation": {"effect": "write", "environment_source": "none", "environments": [], "tags": ["dual-effect"]},
		"rule": "hold",
		"code": "no-environment",
	},
	{
		"tool": "create_refund",
		"arguments": {},
		"operation": {"effect": "destructive", "environment_source": "none", "environments": [], "tags": ["money"]},
		"rule": "refuse",
		"code": "destructive",
	},
]

test_the_baseline_says_so if data.packs_test.wrong(calls) == []
