package sanctions_list_test

import rego.v1

import data.sanctions_list

params := {"recipients": ["0xAA", "0xBB"]}

list(addresses) := {"sanctions_list": {"addresses": addresses}}

transfer(to) := {"from": "0xcc", "to": "0xdd", "function": {"name": "transfer"}, "decoded_function_arguments": [to, "1"]}

plain(to) := {"from": "0xcc", "to": to, "function": null, "decoded_function_arguments": []}

decide(wasm, intent) := result if {
	result := sanctions_list.allow with data.wasm as wasm with data.params as params with input as intent
}

test_allows_known_recipients if {
	decide(list([]), transfer("0xaa"))
	decide(list([]), plain("0xbb"))
}

test_denies_strangers if not decide(list([]), transfer("0xee"))

test_denies_listed_parties if {
	not decide(list(["0xaa"]), transfer("0xaa"))
	not decide(list(["0xcc"]), transfer("0xaa"))
	not decide(list(["0xdd"]), transfer("0xaa"))
}

test_no_list_no_payment if {
	not decide({"sanctions_list": {"error": "gone"}}, transfer("0xaa"))
	not decide({}, transfer("0xaa"))
}
