package multi_source_vote_test

import rego.v1

import data.multi_source_vote

params := {"sources": ["vote_first", "vote_second", "vote_third"], "quorum": 2, "max_age_seconds": 60, "veto_certainty": 90}

payment := {"function": {"name": "transfer"}, "decoded_function_arguments": ["0xab", "1"]}

now := time.now_ns() / 1000000000

safe := {"address": "0xab", "safe": true, "certainty": 80, "checked_at": now}

unsure := object.union(safe, {"safe": false, "certainty": 10})

alarm := object.union(safe, {"safe": false, "certainty": 90})

broken := {"error": "gone"}

decide(first, second, third) := result if {
	wasm := {"vote_first": first, "vote_second": second, "vote_third": third}
	result := multi_source_vote.allow with data.wasm as wasm with data.params as params with input as payment
}

test_all_agree if decide(safe, safe, safe)

test_two_of_three_suffice if {
	decide(safe, safe, broken)
	decide(safe, unsure, safe)
}

test_one_does_not if {
	not decide(safe, broken, broken)
	not decide(safe, unsure, unsure)
}

test_a_certain_warning_is_a_veto if not decide(safe, safe, alarm)

test_stale_votes_do_not_count if {
	not decide(safe, object.union(safe, {"checked_at": now - 61}), broken)
	decide(safe, object.union(safe, {"checked_at": now - 60}), broken)
}

test_votes_from_the_future_do_not_count if not decide(safe, object.union(safe, {"checked_at": now + 1}), broken)

test_votes_about_somebody_else_do_not_count if not decide(safe, object.union(safe, {"address": "0xac"}), broken)

test_nothing_is_no_vote if not multi_source_vote.allow with data.wasm as {} with data.params as params with input as payment
