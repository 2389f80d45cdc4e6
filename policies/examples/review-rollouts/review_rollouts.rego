# Example: review rollouts
#
# For use with the baseline: a rollout that goes live for more than half of the users waits until
# a second person has approved exactly that call. The rule only holds what other rules permit. An
# argument that is absent, or is no number, counts as more than half.
package mcp

hold contains {
	"code": "review-rollout",
	"message": "a rollout to more than half of the users needs a second pair of eyes",
	"ttl": "4m",
} if {
	input.method == "tools/call"
	input.direction == "to_server"
	"go-live" in input.operation.tags
	not small_share
}

small_share if {
	is_number(input.tool.arguments.percentage)
	input.tool.arguments.percentage <= 50
}
