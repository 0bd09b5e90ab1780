"""Questions to the store about message ids; those that wait are put as one: a question costs what ten ids do."""

from collections import deque
from collections.abc import Callable, Sequence, Set

from streams.effects import Found

Lookup = Callable[[Sequence[str], Set[str]], dict[str, Found]]


class Question:
    """Ids, those of them of which it is enough to know the beginning (`brief`), and the answer once there is one."""

    def __init__(self, ids: Sequence[str], brief: Set[str]) -> None:
        self.ids = ids
        self.brief = brief
        self.found: dict[str, Found] | None = None


class Questions:
    """Put on one thread, answered on another."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._waiting: deque[Question] = deque()

    def put(self, ids: Sequence[str], brief: Set[str]) -> Question:
        """Puts a question; `answer` must be called for it, in the same order."""
        question = Question(ids, brief)
        self._waiting.append(question)
        return question

    def answer(self, question: Question) -> dict[str, Found]:
        """Answers it, and with it all that wait; raises what the look-up raises, and then they wait on."""
        if question.found is None:
            asked = [self._waiting.popleft() for _ in range(len(self._waiting))]
            # One that does not wait is under way already; nothing depends on that way's end.
            self._answer(asked if question in asked else [*asked, question])
        assert question.found is not None
        return question.found

    def _answer(self, asked: list[Question]) -> None:
        whole = {mid: None for q in asked for mid in q.ids if mid not in q.brief}
        brief = {mid: None for q in asked for mid in q.ids if mid not in whole}
        try:
            found = self._lookup([*whole, *brief], brief.keys())
        except BaseException:
            self._waiting.extendleft(reversed(asked))
            raise
        for q in asked:
            q.found = {mid: found[mid] for mid in q.ids if mid in found}
