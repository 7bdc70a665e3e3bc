package kyc_test

import rego.v1

import data.kyc

investor := {"account": "0xAB", "country": "DE", "expires_at": "2030-01-01T00:00:00Z", "level": 1}

params := {"countries": ["DE"], "large_amount": "100"}

subscription(amount) := {"from": "0xab", "function": {"name": "subscribe"}, "decoded_function_arguments": ["0x01", amount]}

decision(changes, amount) := result if {
	wasm := {"kyc": object.union(investor, changes)}
	result := kyc.allow with data.wasm as wasm with data.params as params with input as subscription(amount)
}

test_allows_a_checked_investor if decision({}, "99") == true

test_a_large_amount_needs_level_two if {
	decision({}, "100") == {"allow": false, "reasons": {"level 2 needed"}}
	decision({"level": 2}, "100") == true
}

test_denies_another_account if decision({"account": "0xac"}, "1").reasons == {"another account"}

test_denies_another_country if decision({"country": "US"}, "1").reasons == {"country"}

test_denies_what_has_expired if decision({"expires_at": "2020-01-01T00:00:00Z"}, "1").reasons == {"expired"}

test_names_every_reason if count(decision({"country": "US", "level": 0, "account": "0x"}, "1").reasons) == 3

test_fails_closed if {
	every wasm in [{}, {"kyc": {"error": "status 500"}}, {"kyc": object.remove(investor, ["level"])}] {
		result := kyc.allow with data.wasm as wasm with data.params as params with input as subscription("1")
		result == {"allow": false, "reasons": ["no attribute"]}
	}
}
