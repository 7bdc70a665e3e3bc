"""Fetches a list of sanctioned addresses, with the client's token, and hands it on in one form.

Never fails an evaluation by itself: what goes wrong is in the output, and the policy denies.
"""

import json
import re

import wit_world
from componentize_py_types import Err
from wit_world.imports import http, secrets

ADDRESS = re.compile(r"0x[0-9a-f]{40}\Z")


def sanctions(params: dict) -> dict:
    token = json.loads(bytes(secrets.get().value))["token"]
    response = http.fetch(
        http.HttpRequest(
            url=params["url"],
            method="GET",
            headers=[("authorization", f"Bearer {token}"), ("accept", "application/json")],
            body=None,
        )
    )
    if response.status != 200:
        return {"error": f"the server answered with status {response.status}"}
    addresses = {str(entry).lower() for entry in json.loads(bytes(response.body))["addresses"]}
    if not all(ADDRESS.match(address) for address in addresses):
        return {"error": "the list holds what is no address"}
    return {"addresses": sorted(addresses)}


class WitWorld(wit_world.WitWorld):
    def run(self, input: str) -> str:
        try:
            answer = sanctions(json.loads(input)["_params"])
        except Err as error:
            answer = {"error": str(error.value)}
        except (KeyError, TypeError, ValueError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        return json.dumps({"sanctions_list": answer})
