"""The Flowroute client of PyPI: one message by its id, an unknown id, a wrong key. Prints what it saw as JSON."""

import json
import sys

from flowroute import Controller, FlowrouteException
from flowroute.configuration import Configuration

ask = json.loads(sys.argv[1])
told = []
errors = {}
for version, prefix in (("v2", "mdr1-"), ("v2.1", "mdr2-")):
    Configuration.BASE_URI = f"{ask['url']}/{version}"
    one = Controller(ask["key"], ask["secret"]).get_message_lookup(prefix + ask["hex"])
    told.append([one["data"]["id"], one["data"]["attributes"]["body"], one["data"]["attributes"]["amount_nanodollars"]])
    for name, secret, record in (("unknown", ask["secret"], prefix + "0" * 32), ("key", "wrong", prefix + ask["hex"])):
        try:
            Controller(ask["key"], secret).get_message_lookup(record)
        except FlowrouteException as e:
            errors[name] = e.response_code
print(json.dumps({"told": told, "errors": errors}))
