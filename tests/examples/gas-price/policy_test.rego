package gas_price_test

import future.keywords

import data.gas_price

params := {"max_wei": "30000000000", "urgent": ["repay"]}

price(wei) := {"gas_price": {"chain_id": "1", "wei": wei}}

call(name) := {"chain_id_string": "1", "function": {"name": name}}

test_allows_up_to_the_limit if {
	gas_price.allow with data.wasm as price("30000000000") with data.params as params with input as call("swap")
}

test_denies_one_wei_more if {
	not gas_price.allow with data.wasm as price("30000000001") with data.params as params with input as call("swap")
}

test_compares_numbers_and_not_texts if {
	gas_price.allow with data.wasm as price("9") with data.params as params with input as call("swap")
	not gas_price.allow with data.wasm as price("115792089237316195423570985008687907853269984665640564039457584007913129639935") with data.params as params with input as call("swap")
}

test_urgent_calls_go_through if {
	gas_price.allow with data.wasm as price("99000000000") with data.params as params with input as call("repay")
	gas_price.allow with data.wasm as {"gas_price": {"error": "gone"}} with data.params as params with input as call("repay")
}

test_no_price_no_call if {
	not gas_price.allow with data.wasm as {"gas_price": {"error": "gone"}} with data.params as params with input as call("swap")
	not gas_price.allow with data.wasm as {} with data.params as params with input as call("swap")
}

test_another_chains_price_does_not_count if {
	not gas_price.allow with data.wasm as {"gas_price": {"chain_id": "10", "wei": "1"}} with data.params as params with input as call("swap")
}
