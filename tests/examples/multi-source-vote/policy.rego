# A payment goes through when enough of several independent sources call its recipient safe.
#
# Three components, each its own language, server and pack, so that no single one decides. A source counts when it speaks of this very
# recipient and its answer is fresh. One that warns counts against, and any warning with high certainty is a veto.
package multi_source_vote

import rego.v1

default allow := false

recipient := input.decoded_function_arguments[0]

now := time.now_ns() / 1000000000

votes := {source: data.wasm[source] |
	some source in data.params.sources
	vote := data.wasm[source]
	vote.address == recipient
	is_boolean(vote.safe)
	now - vote.checked_at <= data.params.max_age_seconds
	vote.checked_at <= now
}

in_favour := count([1 | some vote in votes; vote.safe])

vetoed if {
	some vote in votes
	not vote.safe
	vote.certainty >= data.params.veto_certainty
}

allow if {
	input.function.name == "transfer"
	in_favour >= data.params.quorum
	in_favour > count(votes) - in_favour
	not vetoed
}
