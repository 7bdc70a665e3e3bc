package spend_limit_test

import rego.v1

import data.spend_limit

params := {"token": "0xAA", "recipients": ["0xBB"], "small_payment": "10", "daily_limit": "100"}

payment(amount) := {
	"from": "0xcc", "to": "0xaa", "value": 0,
	"function": {"name": "transfer"}, "decoded_function_arguments": ["0xbb", amount],
}

ledger(spent) := {"spend_ledger": {"account": "0xcc", "spent": spent}}

silent := {"spend_ledger": {"error": "no secrets"}}

decide(wasm, changes, amount) := result if {
	intent := object.union(payment(amount), changes)
	result := spend_limit.allow with data.wasm as wasm with data.params as params with input as intent
}

test_small_payments_need_no_ledger if {
	decide(silent, {}, "10")
	not decide(silent, {}, "11")
}

test_large_ones_fit_into_the_day if {
	decide(ledger("89"), {}, "11")
	not decide(ledger("90"), {}, "11")
}

test_another_accounts_ledger_does_not_count if not decide(ledger("0"), {"from": "0xdd"}, "11")

test_strangers_get_nothing if not decide(ledger("0"), {"decoded_function_arguments": ["0xdd", "1"]}, "1")

test_only_the_token_counts if {
	not decide(ledger("0"), {"to": "0xdd"}, "1")
	not decide(ledger("0"), {"value": 1}, "1")
	not decide(ledger("0"), {"function": {"name": "approve"}}, "1")
}
