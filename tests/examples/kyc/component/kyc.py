"""Asks an identity provider for the attributes of one account: checked or not, how far, where, and until when.

The account comes with the task, in `wasm_args`; the policy compares it with who acts. No name and no date of birth leave the provider's
answer. Never fails an evaluation by itself: what goes wrong is in the output, and the policy denies.
"""

import json

import wit_world
from componentize_py_types import Err
from wit_world.imports import http, secrets


def attribute(task: dict) -> dict:
    known = json.loads(bytes(secrets.get().value))
    body = {"client_id": known["client_id"], "account": task["account"].lower()}
    response = http.fetch(
        http.HttpRequest(
            url=task["_params"]["url"],
            method="POST",
            headers=[("content-type", "application/json"), ("authorization", f"Bearer {known['client_secret']}")],
            body=json.dumps(body).encode(),
        )
    )
    if response.status != 200:
        return {"error": f"the provider answered with status {response.status}"}
    answer = json.loads(bytes(response.body))
    return {
        "account": str(answer["account"]),
        "country": str(answer["country"]),
        "expires_at": str(answer["expires_at"]),
        "level": int(answer["level"]),
    }


class WitWorld(wit_world.WitWorld):
    def run(self, input: str) -> str:
        try:
            answer = attribute(json.loads(input))
        except Err as error:
            answer = {"error": str(error.value)}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        return json.dumps({"kyc": answer})
