package allow_list_test

import rego.v1

import data.allow_list

token := "0x5fbdb2315678afecb367f032d93f642f64180aa3"

register := {"allow_list": {"chain_id": 31337, "contracts": [{"address": "0x5FbDB2315678afecb367f032d93F642f64180aa3", "functions": ["transfer"]}]}}

params := {"max_ether": "10", "ether_recipients": ["0xAB"]}

call(to, name) := {"to": to, "value": 0, "chain_id": 31337, "function": {"name": name}}

test_allows_what_the_register_names if {
	allow_list.allow with data.wasm as register with data.params as params with input as call(token, "transfer")
}

test_denies_another_function if {
	not allow_list.allow with data.wasm as register with data.params as params with input as call(token, "approve")
}

test_denies_another_contract if {
	not allow_list.allow with data.wasm as register with data.params as params with input as call("0x01", "transfer")
}

test_denies_another_chains_register if {
	other := {"allow_list": object.union(register.allow_list, {"chain_id": 1})}
	not allow_list.allow with data.wasm as other with data.params as params with input as call(token, "transfer")
}

test_denies_ether_with_a_call if {
	paying := object.union(call(token, "transfer"), {"value": 1})
	not allow_list.allow with data.wasm as register with data.params as params with input as paying
}

test_ether_needs_no_register if {
	broken := {"allow_list": {"error": "status 500"}}
	ether := {"to": "0xab", "value": 10, "function": null}
	allow_list.allow with data.wasm as broken with data.params as params with input as ether
	not allow_list.allow with data.wasm as broken with data.params as params with input as object.union(ether, {"value": 11})
	not allow_list.allow with data.wasm as broken with data.params as params with input as object.union(ether, {"to": "0xac"})
}
