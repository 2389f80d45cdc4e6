package mcp_review_rollouts_test

call(arguments, tags) := {
	"method": "tools/call",
	"direction": "to_server",
	"tool": {"name": "set_rollout", "arguments": arguments},
	"operation": {"effect": "write", "environments": ["staging"], "environment_source": "arguments", "tags": tags},
	"principal": {"id": "agent"},
	"server": {"name": "flags", "environment": "staging"},
}

codes := {rule.code | some rule in data.mcp.hold}

test_more_than_half_is_held if {
	"review-rollout" in codes with input as call({"percentage": 51}, ["go-live"])
	"review-rollout" in codes with input as call({"percentage": 100}, ["go-live"])
}

test_half_is_not if {
	not "review-rollout" in codes with input as call({"percentage": 50}, ["go-live"])
}

test_a_share_that_cannot_be_read_is_held if {
	"review-rollout" in codes with input as call({}, ["go-live"])
	"review-rollout" in codes with input as call({"percentage": "10"}, ["go-live"])
	"review-rollout" in codes with input as call({"percentage": null}, ["go-live"])
}

test_what_does_not_go_live_is_not_held if {
	not "review-rollout" in codes with input as call({"percentage": 100}, [])
}

test_the_other_direction_is_not_held if {
	answer := object.union(call({"percentage": 100}, ["go-live"]), {"direction": "to_client"})
	not "review-rollout" in codes with input as answer
}
