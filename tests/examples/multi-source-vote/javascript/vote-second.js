// The second source: flags with a confidence, newest first.
//
// `wasm_args` is { "address": "0x…" }; the policy compares it with the recipient. Never fails an evaluation by itself: a source without
// an answer does not vote.
import { fetch } from 'newton:provider/http@0.2.0';

function vote({ address, _params: { url } }) {
  const wanted = address.toLowerCase();
  const response = fetch({ url: `${url}?of=${wanted}`, method: 'GET', headers: [], body: undefined });
  if (response.status !== 200) {
    return { error: `the server answered with status ${response.status}` };
  }
  const { flags, checked_at } = JSON.parse(new TextDecoder().decode(new Uint8Array(response.body)));
  const certainty = Math.max(0, ...flags.map(({ confidence }) => Math.round(confidence * 100)));
  return { address: wanted, safe: flags.length === 0, certainty, checked_at };
}

export function run(input) {
  let answer;
  try {
    answer = vote(JSON.parse(input));
  } catch (error) {
    // An error of the interface has its text in `payload`.
    answer = { error: String(error.payload ?? error.message ?? error) };
  }
  return JSON.stringify({ vote_second: answer });
}
