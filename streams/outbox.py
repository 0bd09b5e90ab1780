"""What the worker sends to Kafka: commits and dead letters. The barrier knows when."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError
from aiokafka.structs import TopicPartition

from streams import kafka
from streams.aside import aside
from streams.effects import DeadLetter
from streams.letters import LETTER_BYTES_MAX, Draft, entry_letter, left_letter
from streams.record_batches import Written
from streams.settings import Settings
from streams.store import Unavailable, Unstorable
from streams.telemetry import Tally

log = logging.getLogger(__name__)
# Letters that are made without a pause.
_AT_ONCE: Final = 500
_LETTER_BYTES_MIN: Final = 1 << 12
_TOO_LARGE: Final = (MessageSizeTooLargeError, RecordListTooLargeError)


class Outbox:
    """`commit` is what moves the offsets: `(offsets, generation) -> whether the group still has it`."""

    def __init__(self, settings: Settings, tally: Tally, commit: Callable[..., Any]) -> None:
        self._settings = settings
        self._tally = tally
        self._commit = commit
        self._producer: AIOKafkaProducer | None = None

    async def start(self) -> None:
        """Connects the producer of dead letters."""
        self._producer = kafka.producer(self._settings, compression_type="lz4")
        await self._producer.start()

    async def stop(self) -> None:
        """Lets go of the broker."""
        if self._producer is not None:
            await self._producer.stop()

    async def commit(self, offsets: Mapping[tuple[str, int], int], generation: int) -> bool:
        """Commits what the barrier made durable; refused when the group has moved on."""
        if not offsets:
            return False
        prefix = self._settings.topic_prefix
        named = {TopicPartition(prefix + topic, shard): at for (topic, shard), at in offsets.items()}
        try:
            return bool(await self._commit(named, generation))
        except KafkaError as e:
            raise Unavailable(f"Kafka refuses the commit: {e!r}") from None

    async def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Produces dead letters and waits for their acknowledgement."""
        for at in range(0, len(letters), _AT_ONCE):
            await self._produce([await self._letter(letter) for letter in letters[at : at + _AT_ONCE]])
        aside("counting dead letters", self._tally.dead_letters.update, [letter.reason for letter in letters])

    async def _letter(self, letter: DeadLetter) -> Draft:
        topic, entry, receipt = self._settings.topic_prefix + letter.topic, letter.entry, letter.receipt
        if entry is None:
            assert receipt is not None
            # It had been merged and was let go: mostly the log still has its bytes.
            entry = next(iter(await self._read_back([receipt.source])), None)
            if entry is None:
                return left_letter(topic, letter.shard, receipt, letter.reason, letter.detail)
        return entry_letter(topic, letter.shard, entry, letter.reason, letter.detail)

    async def _read_back(self, sources: Iterable[str]) -> list[Any]:
        try:
            return await kafka.read_back(self._settings, sources)
        except kafka.KafkaUnavailable as e:
            raise Unavailable(str(e)) from None

    async def bury_unstorable(self, bad: Sequence[Unstorable]) -> None:
        """Reads the events of rows that the store refuses back from the log and produces them as dead letters."""
        count = 0
        for _, detail, sources in bad:
            entries = await self._read_back(sources)
            await self._produce([entry_letter(e.topic, e.partition, e, "unstorable", detail) for e in entries])
            count += len(entries)
        aside("counting dead letters", self._tally.dead_letters.update, {"unstorable": count})
        log.error("%d rows cannot be stored: their %d events became dead letters, which say why", len(bad), count)

    async def _produce(self, drafts: list[Draft]) -> None:
        """Produces dead letters, cut further where the topic takes less than it was made for."""
        assert self._producer is not None
        topic, most = self._settings.topic_prefix + kafka.DEAD_LETTERS, LETTER_BYTES_MAX
        while drafts:
            outcomes = await self._outcomes([(topic, draft.within(most)) for draft in drafts])
            errors = [(draft, e) for draft, e in zip(drafts, outcomes, strict=True) if isinstance(e, KafkaError)]
            for _, error in errors:
                if not isinstance(error, _TOO_LARGE) or most < _LETTER_BYTES_MIN:
                    raise Unavailable(f"Kafka refuses dead letters: {error!r}")
            drafts, most = [draft for draft, _ in errors], most // 2

    async def _outcomes(self, entries: list[tuple[str, Written]]) -> list[Any]:
        try:
            return await kafka.produce(self._producer, entries)
        except KafkaError as e:
            raise Unavailable(f"Kafka refuses dead letters: {e!r}") from None
