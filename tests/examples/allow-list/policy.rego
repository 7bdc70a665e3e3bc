# A call goes through if the organisation's register names its contract and its function.
#
# The register is a signed-off list on the organisation's server; the component fetches it. A transfer of plain ether names no function
# and goes only to the addresses of the params.
package allow_list

import rego.v1

default allow := false

register := data.wasm.allow_list

allow if {
	register.chain_id == input.chain_id
	input.value == 0
	some entry in register.contracts
	lower(entry.address) == input.to
	input.function.name in entry.functions
}

allow if {
	input.function == null
	input.value <= to_number(data.params.max_ether)
	input.to in {lower(known) | some known in data.params.ether_recipients}
}
