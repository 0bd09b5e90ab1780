"""The lists that no published client asks for, asked for as the vendors' pages say: Flowroute's, CarrierX's, Telnyx v1."""

from __future__ import annotations

import base64
import json
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlencode

Record = dict[str, Any]


class Caller:
    """Requests with one kind of credential."""

    def __init__(self, ask: dict[str, Any], headers: dict[str, str]) -> None:
        self._url = ask["url"]
        self._headers = headers | {"Content-Type": "application/json"}

    def __call__(self, path: str, method: str = "GET", body: Any = None, **params: Any) -> Any:
        """The JSON at a path or an absolute URL; an error's status and JSON."""
        url = path if path.startswith("http") else self._url + path
        url += "?" + urlencode(params) if params else ""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, self._headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as e:
            return e.code, json.loads(e.read())


def flowroute(ask: dict[str, Any]) -> Record:
    """Page by page along `links.next`, three at a time, and its errors."""
    basic = base64.b64encode(f"{ask['key']}:{ask['secret']}".encode()).decode()
    call = Caller(ask, {"Authorization": f"Basic {basic}"})
    page = call("/v2.1/messages", start_date=ask["start"], limit=7)
    found = page["data"]
    while "next" in page["links"]:
        page = call(page["links"]["next"])
        found += page["data"]
    wrong = Caller(ask, {"Authorization": "Basic eDp5"})("/v2.1/messages", start_date=ask["start"])
    return {
        "found": found,
        "errors": {
            "key": wrong[0], "missing": _first(call("/v2.1/messages")),
            "limit": _first(call("/v2.1/messages", start_date=ask["start"], limit=0)),
            "extra": _first(call("/v2.1/messages", start_date=ask["start"], colour="red")),
        },
    }  # fmt: skip


def _first(answer: Any) -> tuple[int, str]:
    status, body = answer
    error = body["errors"][0]
    return status, error.get("id") or error.get("type")


def carrierx(ask: dict[str, Any]) -> Record:
    """By keyset along `pagination.next`, back along `previous`, by filter and order, and its errors."""
    call = Caller(ask, {"Authorization": f"Bearer {ask['bearer']}"})
    path = "/core/v2/sms/message_drs"
    page = call(path, limit=13, order="date_insert")
    found, pages = page["items"], [page]
    while "next" in page["pagination"]:
        page = call(page["pagination"]["next"])
        pages.append(page)
        found += page["items"]
    back = call(pages[2]["pagination"]["previous"])
    filtered = call(path, limit=1000, filter="status eq delivered and direction eq outbound")
    fields = call(path, limit=1, fields="dr_sid,status")["items"][0]
    wrong = Caller(ask, {"Authorization": "Bearer x.y"})(path)
    return {
        "found": found, "back": [i["dr_sid"] for i in back["items"]], "second": [i["dr_sid"] for i in pages[1]["items"]],
        "filtered": [i["dr_sid"] for i in filtered["items"]], "fields": fields, "total": pages[0]["total"],
        "errors": {"key": wrong[0], "limit": call(path, limit=1001)[0], "filter": call(path, filter="colour eq red")[0],
                   "unknown": call(path + "/nothing")[0]},
    }  # fmt: skip


def telnyx_v1(ask: dict[str, Any]) -> Record:
    """Create, poll while the url is null, download without a credential, list, delete."""
    call = Caller(ask, {"x-api-user": ask["key"], "x-api-token": ask["secret"]})
    path = "/reporting/mdr_requests"
    made = call(path, "POST", {"start_time": ask["start"], "end_time": ask["end"], "include_message_body": True})
    done = made
    while done["report_url"] is None and done["status"] == 1:
        time.sleep(0.1)
        done = call(f"{path}/{made['id']}")
    with urllib.request.urlopen(done["report_url"], timeout=60) as answer:
        content = answer.read().decode()
    listed = [r["id"] for r in call(path + "/", page=1, per_page=50)]
    return {
        "made": made["id"], "csv": content, "status": [made["status"], done["status"]], "listed": listed,
        "deleted": [call(f"{path}/{made['id']}", "DELETE") for _ in range(2)],
        "errors": {"gone": call(f"{path}/{made['id']}")[0], "bad": call(path, "POST", {"start_time": "soon"})[0],
                   "key": Caller(ask, {"x-api-user": "x", "x-api-token": "y"})(path)[0]},
    }  # fmt: skip
