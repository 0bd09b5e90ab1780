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
found = []
while True:
    page = messages.list(limit=20, offset=len(found), message_time__gte=ask["start_plain"])
    found += page.objects
    if not page.meta.next:
        break
one = messages.get(found[0].message_uuid)
filters = {
    "delivered": len(messages.list(message_state="delivered", limit=20).objects),
    "number": len(messages.list(to_number=found[0].to_number).objects),
    "plus": len(messages.list(to_number="+" + found[0].to_number).objects),
}
errors = {}
for name, call in {
    "limit": lambda: messages.list(limit=21),
    "time": lambda: messages.list(message_time__gt="soon"),
    "unknown": lambda: messages.get("11111111-1111-1111-1111-111111111111"),
    "key": client("wrong").messages.list,
    "key_one": lambda: client("wrong").messages.get(found[0].message_uuid),
}.items():
    try:
        call()
    except plivo.exceptions.PlivoRestError as e:
        errors[name] = type(e).__name__
print(
    json.dumps(
        {
            "ids": [m.message_uuid for m in found],
            "states": [m.message_state for m in found],
            "one": one.message_uuid,
            "amounts": [m.total_amount for m in found],
            "units": [m.units for m in found],
            "filters": filters,
            "errors": errors,
        }
    )
)
