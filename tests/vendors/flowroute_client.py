"""The Flowroute client of PyPI: messages by their ids, an unknown id, a wrong key. Prints what it saw as JSON."""

import json
import sys

from flowroute import Controller, FlowrouteException
from flowroute.configuration import Configuration

ask = json.loads(sys.argv[1])
told = {}
errors = {}
for version, ids in ask["flowroute_ids"].items():
    Configuration.BASE_URI = f"{ask['url']}/v{version}"
    told[version] = [Controller(ask["key"], ask["secret"]).get_message_lookup(name)["data"] for name in ids]
    for name, secret, record in (("unknown", ask["secret"], ids[0][:5] + "0" * 32), ("key", "wrong", ids[0])):
        try:
            Controller(ask["key"], secret).get_message_lookup(record)
        except FlowrouteException as e:
            errors[name] = e.response_code
print(json.dumps({"told": told, "errors": errors}))
