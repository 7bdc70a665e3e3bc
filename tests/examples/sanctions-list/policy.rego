# A payment goes through unless its recipient is on a list of sanctioned addresses.
#
# The recipient is that of an ERC-20 transfer, or else whom the call goes to. Without the list nothing is paid.
package sanctions_list

import rego.v1

default allow := false

allow if {
	listed := data.wasm.sanctions_list.addresses
	not recipient in listed
	not input.to in listed
	not input.from in listed
	recipient in {lower(known) | some known in data.params.recipients}
}

recipient := input.decoded_function_arguments[0] if {
	input.function.name == "transfer"
} else := input.to
