# Calls of its tools: the operation of each, and the baseline's rule for it under a pin to `staging`.
package pack_statsig_docs_test

calls := [
	{
		"tool": "search_docs",
		"arguments": {"query": "x"},
		"operation": {"effect": "read", "environment_source": "none", "environments": [], "tags": []},
		"rule": "permit",
		"code": "reads",
	},
	{
		"tool": "send_docs_mcp_feedback",
		"arguments": {"text": "x"},
		"operation": {"effect": "write", "environment_source": "none", "environments": [], "tags": []},
		"rule": "hold",
		"code": "no-environment",
	},
]

test_the_baseline_says_so if data.packs_test.wrong(calls) == []
