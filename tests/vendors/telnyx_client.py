"""Telnyx's own Python client: create, poll, download, list, delete, wrong key, bad input. Prints JSON."""

import json
import sys
import time
import urllib.request

import telnyx

ask = json.loads(sys.argv[1])
base = ask["url"] + "/v2"
client = telnyx.Telnyx(api_key=ask["bearer"], base_url=base, max_retries=0, _strict_response_validation=True)
requests = client.legacy.reporting.batch_detail_records.messaging


def report(**wanted):
    made = requests.create(start_time=ask["start"], end_time=ask["end"], include_message_body=True, **wanted).data
    assert made.status == "PENDING" and made.report_url is None, made
    for _ in range(600):
        done = requests.retrieve(made.id).data
        if done.status != "PENDING":
            break
        assert done.report_url is None
        time.sleep(0.1)
    assert done.status == "COMPLETE", done
    with urllib.request.urlopen(done.report_url) as answer:
        return done, answer.read().decode()


built = {name: report(**wanted) for name, wanted in ask["telnyx_requests"].items()}
listed = requests.list()
first = next(iter(built.values()))[0]
deleted = requests.delete(first.id).data
wrong = telnyx.Telnyx(api_key="wrong.key", base_url=base, max_retries=0)
bad = {"start_time": ask["start"], "end_time": ask["end"]}
errors = {}
for name, call in {
    "gone": lambda: requests.retrieve(first.id),
    "gone_again": lambda: requests.delete(first.id),
    "bad": lambda: requests.create(start_time="soon", end_time=ask["end"]),
    "turned": lambda: requests.create(start_time=ask["end"], end_time=ask["start"]),
    "direction": lambda: requests.create(**bad, directions=[3]),
    "filter": lambda: requests.create(**bad, filters=[{"filter_type": "or", "cli": "1"}]),
    "field": lambda: requests.create(**bad, extra_body={"colour": "red"}),
    "key": lambda: wrong.legacy.reporting.batch_detail_records.messaging.list(),
}.items():
    try:
        call()
    except telnyx.APIStatusError as e:
        errors[name] = [type(e).__name__, e.status_code, e.body["errors"][0]["detail"]]
print(
    json.dumps({
        "csv": {name: content for name, (_, content) in built.items()},
        "made": {name: done.id for name, (done, _) in built.items()},
        "listed": [r.id for r in listed.data],
        "total": listed.meta.total_results,
        "deleted": deleted.id,
        "first": first.to_dict(mode="json"),
        "errors": errors,
    })
)  # fmt: skip
