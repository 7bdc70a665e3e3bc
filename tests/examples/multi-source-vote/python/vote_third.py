"""The third source: one verdict, `good`, `bad` or `unknown`.

`wasm_args` is {"address": "0x…"}; the policy compares it with the recipient. Never fails an evaluation by itself: a source without an answer
does not vote, and one that does not know does not either.
"""

import json

import wit_world
from componentize_py_types import Err
from wit_world.imports import http


def vote(task: dict) -> dict:
    address = task["address"].lower()
    request = http.HttpRequest(url=f"{task['_params']['url']}/{address}", method="GET", headers=[], body=None)
    response = http.fetch(request)
    if response.status != 200:
        return {"error": f"the server answered with status {response.status}"}
    answer = json.loads(bytes(response.body))
    if answer["verdict"] not in ("good", "bad"):
        return {"error": "no verdict"}
    return {
        "address": address,
        "safe": answer["verdict"] == "good",
        "certainty": int(answer["certainty"]),
        "checked_at": int(answer["checked_at"]),
    }


class WitWorld(wit_world.WitWorld):
    def run(self, input: str) -> str:
        try:
            answer = vote(json.loads(input))
        except Err as error:
            answer = {"error": str(error.value)}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        return json.dumps({"vote_third": answer})
