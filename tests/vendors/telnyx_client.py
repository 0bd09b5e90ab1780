"""Telnyx's own Python client: create, poll, download, list, delete, wrong key, bad input. Prints JSON."""

import json
import sys
import time
import urllib.request

import telnyx

ask = json.loads(sys.argv[1])
client = telnyx.Telnyx(
    api_key=ask["bearer"], base_url=ask["url"] + "/v2", max_retries=0, _strict_response_validation=True
)
requests = client.legacy.reporting.batch_detail_records.messaging

made = requests.create(
    start_time=ask["start"],
    end_time=ask["end"],
    directions=[1, 2],
    record_types=[1, 2, 3],
    connections=[],
    profiles=[],
    filters=[],
    include_message_body=True,
    report_name="all",
    timezone="UTC",
).data
assert made.status == "PENDING" and made.report_url is None, made
for _ in range(300):
    done = requests.retrieve(made.id).data
    if done.status != "PENDING":
        break
    assert done.report_url is None
    time.sleep(0.1)
with urllib.request.urlopen(done.report_url) as answer:
    content = answer.read().decode()
listed = requests.list()
deleted = requests.delete(made.id).data
errors = {}
for name, call in {
    "gone": lambda: requests.retrieve(made.id),
    "bad": lambda: requests.create(start_time="soon", end_time=ask["end"]),
    "filter": lambda: requests.create(
        start_time=ask["start"], end_time=ask["end"], filters=[{"filter_type": "or", "cli": "1"}]
    ),
    "key": lambda: telnyx.Telnyx(
        api_key="wrong.key", base_url=ask["url"] + "/v2", max_retries=0
    ).legacy.reporting.batch_detail_records.messaging.list(),
}.items():
    try:
        call()
    except telnyx.APIStatusError as e:
        errors[name] = [type(e).__name__, e.status_code]
print(
    json.dumps(
        {
            "status": done.status,
            "csv": content,
            "listed": [r.id for r in listed.data],
            "total": listed.meta.total_results,
            "created": type(made.created_at).__name__,
            "connections": done.connections,
            "made": made.id,
            "deleted": deleted.id,
            "errors": errors,
        }
    )
)
