"""What a page may do, and how pages are listed. Pure.

A page is `async (Call, Desk) -> Answer`. What it shows comes from the functions of the native API, called with
the scope of whoever signed in.
"""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Protocol, TypeVar

from api.auth import Caller
from api.http import Answer, Call, Context, Handler, Refusal, parse_query
from api.lag import LagSource
from api.limits import Rates, SignIns
from api.seals import Seals
from api.sessions import OperatorSessions
from schemas import exact_json

T = TypeVar("T")


class Desk(Protocol):
    """What a page is given besides its call."""

    operator: tuple[str, str] | None
    seals: Seals
    operator_sessions: OperatorSessions
    sign_ins: SignIns
    session_rates: Rates
    lag: LagSource | None

    def wait_s(self, key: str, now_ms: int) -> int:
        """0 and one request of a key is counted, or how many seconds it has to wait."""
        ...

    def seat(self, caller: Caller) -> None:
        """Says who signed in: from now on they wait for a thread in their own line."""
        ...

    async def body(self) -> bytes:
        """The body of the request, which is not read before it is asked for."""
        ...

    def note(self, call: Call, path: str, answer: Answer) -> None:
        """Put what was answered into the audit log."""
        ...

    async def read(self, work: Callable[..., T], *args: Any) -> T:
        """The result of `work(context, *args)`, in a thread with a client of its own."""
        ...

    async def run(self, work: Callable[[], T]) -> T:
        """The result of `work()`, in a thread; the store need not be there."""
        ...


PageHandler = Callable[[Call, Desk], Awaitable[Answer]]


class Page(NamedTuple):
    """A path under `/ui/` and what answers it; `is_public` needs no session."""

    method: str
    path: str
    handler: PageHandler
    is_public: bool = False
    operator_only: bool = False


def native(context: Context, handler: Handler, call: Call, **changes: Any) -> dict[str, Any]:
    """The JSON a handler of the native API answers a changed call with; raises what it raises."""
    value: dict[str, Any] = exact_json.loads(handler(call._replace(**changes), context).body)
    return value


def form_of(call: Call) -> dict[str, str]:
    """The fields of a posted form, the last of each name, without blanks at their ends; raises `Refusal`."""
    if not call.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        raise Refusal(415, "this takes a form")
    return {name: value.strip() for name, value in parse_query(call.body)}
