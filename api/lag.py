"""How far the agents are behind: told by the process that watches, shown as it is. Operators only."""

from typing import Any, Protocol

from api.http import Answer, Call, Context, Refusal, json_answer, single


class LagSource(Protocol):
    """Whoever watches the lag; may be asked from any thread."""

    def report(self) -> dict[str, Any]:
        """The lag now."""

    def history(self) -> dict[str, Any]:
        """The last hour of it."""


def now(call: Call, context: Context) -> Answer:
    """`GET /mdr/lag`: status, agents, settling, rates, trouble."""
    single(call, ())
    return json_answer(_source(context).report())


def history(call: Call, context: Context) -> Answer:
    """`GET /mdr/lag/history`: `every_seconds`, and a point for each."""
    single(call, ())
    return json_answer(_source(context).history() | {"settled_through": context.settled_through()})


def _source(context: Context) -> LagSource:
    if context.lag is None:
        raise Refusal(503, "nobody watches the lag in this process")
    return context.lag
