"""Plivo's own Python client: pages to the end, filters, one message, wrong key, bad input. Prints JSON."""

import json
import sys

import plivo
from plivo.rest import client as module

ask = json.loads(sys.argv[1])
module.PLIVO_API_BASE_URI = ask["url"] + "/v1/Account"


def client(token):
    made = plivo.RestClient(auth_id=ask["key"], auth_token=token)
    made.base_uri = ask["url"] + "/v1/Account"
    return made


messages = client(ask["secret"]).messages


def plain(message):
    return {name: value for name, value in vars(message).items() if value is None or isinstance(value, str | int)}


def every(**filters):
    found = []
    while True:
        page = messages.list(limit=20, offset=len(found), **filters)
        assert (page.meta.previous is None) == (not found)
        found += page.objects
        if not page.meta.next:
            return found


found = every(message_time__gte=ask["start_plain"])
errors = {}
for name, call in {
    "limit": lambda: messages.list(limit=21),
    "time": lambda: messages.list(message_time__gt="soon"),
    "state": lambda: messages.list(message_state="gone"),
    "offset": lambda: messages.list(offset=-1),
    "unknown": lambda: messages.get("11111111-1111-1111-1111-111111111111"),
    "key": client("wrong").messages.list,
    "key_one": lambda: client("wrong").messages.get(found[0].message_uuid),
}.items():
    try:
        call()
    except plivo.exceptions.PlivoRestError as e:
        errors[name] = [type(e).__name__, str(e)]
print(
    json.dumps({
        "objects": [plain(m) for m in found],
        "one": plain(messages.get(found[0].message_uuid)),
        "filters": {name: [m.message_uuid for m in every(**asked)] for name, asked in ask["plivo_filters"].items()},
        "errors": errors,
    })
)  # fmt: skip
