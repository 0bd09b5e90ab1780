"""The paths of the OpenAPI document and of the page that shows it."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version

import orjson

from api.docs import SECURITY, page
from api.http import Answer, Call, Context
from api.openapi import document


@cache
def _version() -> str:
    try:
        return version("message-detail-records")
    except PackageNotFoundError:
        return "0"


def openapi(call: Call, context: Context) -> Answer:
    """The OpenAPI document."""
    return Answer(orjson.dumps(document(_version())))


def docs(call: Call, context: Context) -> Answer:
    """The document as a page."""
    return Answer(page(document(_version())), content_type="text/html", headers=dict(SECURITY))
