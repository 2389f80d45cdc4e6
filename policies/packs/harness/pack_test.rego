# Calls of its tools: the operation of each, and the baseline's rule for it under a pin to `staging`.
package pack_harness_test

calls := [
	{
		"tool": "harness_get",
		"arguments": {"resource_type": "pipeline"},
		"operation": {"effect": "read", "environment_source": "none", "environments": [], "name": "harness_get/pipeline/", "tags": []},
		"rule": "permit",
		"code": "reads",
	},
	{
		"tool": "harness_create",
		"arguments": {"resource_type": "feature_flag"},
		"operation": {"effect": "write", "environment_source": "none", "environments": ["*"], "name": "harness_create/feature_flag/", "tags": ["self-confirm"]},
		"rule": "deny",
		"code": "tool-without-environment",
	},
	{
		"tool": "harness_execute",
		"arguments": {"resource_type": "feature_flag", "action": "toggle"},
		"operation": {"effect": "exec", "environment_source": "none", "environments": ["*"], "name": "harness_execute/feature_flag/toggle", "tags": ["self-confirm", "go-live"]},
		"rule": "deny",
		"code": "tool-without-environment",
	},
	{
		"tool": "harness_execute",
		"arguments": {"resource_type": "a/b"},
		"operation": {"effect": "unknown", "environment_source": "none", "environments": [], "tags": ["self-confirm", "go-live"]},
		"rule": "refuse",
		"code": "unknown-tool",
	},
]

test_the_baseline_says_so if data.packs_test.wrong(calls) == []
