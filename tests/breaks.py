"""The breaks of tests/mutations.py: what is broken, where, and the suites that can see it."""

from typing import Final, NamedTuple


class Break(NamedTuple):
    """What is broken, and how: in `file`, `old` becomes `new`; `suites` are of tests/test_NAME.py, or the simulation."""

    what: str
    file: str
    old: str
    new: str
    suites: str


CORE: Final = "worker barrier settle simulation"
JOIN: Final = "bounds flow settle simulation"
FOLD: Final = "join native folding native_format"
DECODE: Final = "bounds examples events native"
TRIM: Final = "trim bounds events examples"
BUILDER: Final = "native folding join native_format"
READER: Final = "bounds record_batches fetched native"

WRITE_ROWS: Final = "        bad = await self._write_rows(cuts, now_ms)\n"
WORKER: Final = (
    Break(
        "offsets are committed before the rows are written", "streams/barrier.py", WRITE_ROWS,
        "        if checkpoint:\n            await self._kafka.commit(offsets, generation)\n" + WRITE_ROWS, CORE,
    ),
    Break(
        "the generation of the cut is not compared", "streams/barrier.py",
        "self._kafka.commit(offsets, generation))", "self._kafka.commit(offsets, self.generation))", CORE,
    ),
    Break(
        "a batch of an earlier generation is worked off", "streams/agents.py",
        "        shard = batch.partition\n        if batch.generation != self.barrier.generation:",
        "        shard = batch.partition\n        if shard not in self.flow.partitions:", CORE,
    ),
    Break(
        "a write that fails is not tried again", "streams/barrier.py",
        "            except Unavailable as e:\n", "            except Unavailable as e:\n                return None\n", CORE,
    ),
    Break(
        "a settled message leaves no tombstone", "streams/lives.py",
        "self._gone.append(self._tombstone(mid, life, life.send))", "pass", CORE,
    ),
    Break(
        "a tombstone outranks what another owner saved since", "streams/lives.py",
        "saved_version(life) + 1, 1)", "1 << 32, 1)", CORE,
    ),
    Break(
        "a record of another owner is not remembered", "streams/settle.py",
        'self._recent["outbound"].add(hashes(recorded), ', 'self._recent["outbound"].add(hashes(()), ', CORE,
    ),
    Break(
        "the store is not asked about late and repeated sends", "streams/agents.py",
        "found = await self._lookup([h.event.message_id for h in held], self.flow.brief(shard, held))", "found = {}", CORE,
    ),
    Break(
        "the store is not asked about waiting receipts", "streams/agents.py",
        "found = await self._lookup([mid for ids in asked.values() for mid in ids]) if asked else {}",
        "found: dict[str, Found] = {}", CORE,
    ),
    Break(
        "a batch counts as done when it is handed out, as Faust's own `take` has it", "streams/agents.py",
        "        ready = self._ready.get(batch.partition)\n",
        "        ready = self._ready.get(batch.partition)\n"
        "        self.barrier.did(topic, batch.partition, batch.next_offset)\n", CORE,
    ),
    Break(
        "a batch that is missing is not noticed", "streams/agents.py",
        "        if batch.first_offset > at:\n", "        if False:\n", CORE,
    ),
    Break(
        "a torn checkpoint is followed by another", "streams/barrier.py",
        "            if self._torn:\n                return\n", "", CORE,
    ),
)  # fmt: skip

# The twenty-five that were tried by hand, eleven of which passed unseen.
TRIED: Final = (
    Break(
        "a final state that begins with another letter is not final", "native/join.c",
        "return first != 'q' && first != 's';", "return first != 'q' && first != 's' && first != 'e';", JOIN,
    ),
    Break(
        "a saved message settles without its tombstone", "native/join.c",
        "return slot_get(life, at[L_SAVED]) == Py_False && PyTuple_GET_SIZE(slot_get(life, at[L_PARTS])) == 0;", "return true;", JOIN,
    ),
    Break(
        "the bound of a late send is doubled", "native/join.c",
        "broker_ms - occurred_ms <= late_ms", "broker_ms - occurred_ms <= 2 * late_ms", JOIN,
    ),
    Break(
        "a deadline from the broker's time is not capped at the clock", "native/join.c",
        "read_ms = broker_ms < now_ms ? broker_ms : now_ms;", "read_ms = broker_ms;", JOIN,
    ),
    Break(
        "ids that wait for the store's answer are not looked at", "native/join.c",
        "int known = PySet_Contains(args[A_HELD], id);", "int known = 0;", JOIN,
    ),
    Break("a message takes 321 receipts", "native/join.c", "if (count >= receipts_max)", "if (count > receipts_max)", JOIN),
    Break(
        "an opened message is not marked as changed", "native/join.c",
        " || PySet_Add(args[A_DIRTY], id);", ";", JOIN,
    ),
    Break(
        "the earliest deadline is not kept", "native/join.c",
        "if (deadline_ms < *earliest_ms) *earliest_ms = deadline_ms;", "", JOIN,
    ),
    Break(
        "`sent_at` is the latest, not the earliest", "native/fold.c",
        "if (strongest[n]->rank == 1) sent = ", "if (strongest[n]->rank == 1 && !sent) sent = ", FOLD,
    ),
    Break(
        "an error code is of a state that did not win", "native/fold.c",
        "if (strongest[n]->error.size && !compare_texts(strongest[n]->state, state))", "if (strongest[n]->error.size)", FOLD,
    ),
    Break(
        "a tie with the send goes the other way in the timeline", "native/fold.c",
        "compare_texts(s->id, send_id) < 0", "compare_texts(s->id, send_id) > 0", FOLD,
    ),
    Break(
        "the order in time is without rank", "native/reach.c",
        "return a->rank != b->rank ? a->rank - b->rank : compare_rest(a, b);", "return compare_rest(a, b);", FOLD,
    ),
    Break("ids have 129 characters", "native/text.c", "s->size > 128", "s->size > 129", DECODE),
    Break("DEL is in an id", "native/text.c", "return !memchr(s->start, 0x7F, (size_t)s->size);", "return true;", DECODE),
    Break("154 septets a part", "native/text.c", "ucs2 ? 67 : 153;", "ucs2 ? 67 : 154;", DECODE),
    Break("a second more into the future", "native/decode.c", "FUTURE_MS_MAX 600000", "FUTURE_MS_MAX 601000", DECODE),
    Break("65 entries in a list", "native/decode.c", "++count > 64", "++count > 65", DECODE),
    Break(
        "a key of a map that repeats the one before is not found", "native/decode.c",
        "for (int n = 0; n < count; n++)\n", "for (int n = 0; n < count - 1; n++)\n", DECODE,
    ),
    Break("an mnc of 4 digits", "native/decode.c", "is_digits(s, 2, 3)", "is_digits(s, 2, 4)", DECODE),
    Break("depth 65", "native/json.c", "depth <= DEPTH_MAX &&", "depth <= DEPTH_MAX + 1 &&", DECODE),
    Break(
        "numbers with a leading zero in fields that nobody reads", "native/json.c",
        "if (c->at == first || (*first == '0' && c->at - first > 1)) return false;", "if (c->at == first) return false;", DECODE,
    ),
    Break("surrogates in UTF-8", "native/json.c", "first == 0xED ? 0x9F", "first == 0xED ? 0xBF", DECODE),
    Break("overlong UTF-8", "native/json.c", "first == 0xE0 ? 0xA0", "first == 0xE0 ? 0x80", DECODE),
    Break("bytes are left over in a record", "native/log.c", "if (!skip_headers(&in) || in.at != in.end) return false;", "if (!skip_headers(&in)) return false;", READER),
    Break(
        "a receipt's part is not in its identity", "native/identity.c",
        "for (int n = 0; n < (e->state ? PARTS : STATE); n++)", "for (int n = 0; n < (e->state ? SEGMENT : STATE); n++)", "native settle",
    ),
)  # fmt: skip

OTHERS: Final = (
    Break(
        "a settled message stays among the deadlines", "native/join.c",
        "if (slot_get(life, at[L_PLACED]) == Py_True && PyList_Append(placed, life)) return -1;", "", JOIN,
    ),
    Break(
        "a settled message stays among those that changed", "native/join.c",
        " || PySet_Discard(dirty, id) < 0 ? -1 : 0;", " ? -1 : 0;", JOIN,
    ),
    Break("an amendment is not counted", "native/join.c", "PyLong_FromLong(amendments + 1)", "PyLong_FromLong(amendments + 0)", JOIN),
    Break(
        "event ids of one length are one", "native/join.c",
        "x.size == y.size && !memcmp(x.start, y.start, (size_t)x.size)", "x.size != y.size", JOIN,
    ),
    Break(
        "a message that is being written is opened again", "native/join.c",
        "n <= A_FLUSHING && !known", "n < A_FLUSHING && !known", JOIN,
    ),
    Break(
        "ids that the store knows are not looked at", "native/join.c",
        "if (known || !PySet_GET_SIZE(args[A_SUSPECTS])) return known;", "return known;", JOIN,
    ),
    Break(
        "a receipt without a part speaks for the first part only", "native/fold.c",
        "if (!strongest[n]->segment || strongest[n]->segment == part)", "if (strongest[n]->segment == part)", FOLD,
    ),
    Break(
        "a vendor's code is of a state that did not win", "native/fold.c",
        "bool counts = n || !compare_texts(strongest[at]->state, strongest[0]->state);", "bool counts = true;", FOLD,
    ),
    Break(
        "what receipts carry is told in the order of strength", "native/fold.c",
        "write_facts(&json, said, ordered, count)", "write_facts(&json, said, strongest, count)", FOLD,
    ),
    Break(
        "the amount is of one segment", "native/fold.c", "(rate + fee) * segments", "(rate + fee) * 1", FOLD,
    ),
    Break("a month begins a day early", "native/text.c", "ms / 86400000 + 719468;", "ms / 86400000 + 719469;", "native native_format bounds"),
    Break("29 February is a day of each year", "native/text.c", "(month == 2 && leap)", "(month == 2)", DECODE),
    Break("an offset from UTC counts the other way", "native/text.c", "(*at == '+' ? -1 : 1)", "(*at == '+' ? 1 : -1)", DECODE),
    Break("a pair is split between two segments", "native/text.c", "if (filled + units > part)", "if (filled >= part)", DECODE),
    Break("a key that only begins like the id will do", "native/decode.c", "r->id.size != raw->key.size || ", "", DECODE),
    Break("256 segments", "native/decode.c", "r->count <= 255", "r->count <= 256", DECODE),
    Break("a field twice is the first", "native/decode.c", "if (r->seen & bit) return DOUBT;", "", DECODE),
    Break("a control character in a string", "native/json.c", "if (byte < 0x20) return CONTROL;", "if (byte < 0x1f) return CONTROL;", DECODE),
    Break("half of a surrogate pair", "native/json.c", "if (unit < 0 || (unit & 0xFC00) == 0xDC00) return 0;", "if (unit < 0) return 0;", DECODE),
    Break("of a field told twice the first stays", "native/trim.c", "        k->value = value;\n", "        if (!k->value.size) k->value = value;\n", TRIM),
    Break("of a key of a map told twice the first stays", "native/trim.c", "    p->values[n] = value;\n", "    if (n + 1 == p->count) p->values[n] = value;\n", TRIM),
    Break("a list of 65 is cut to 64", "native/trim.c", "n < ENTRIES_MAX && *c->at != ']'", "n < ENTRIES_MAX - 1 && *c->at != ']'", TRIM),
    Break("a string is cut to what a field may have", "native/trim.c", "end_within(s, TEXT_BYTES_MAX)", "end_within(s, TEXT_BYTES_MAX - 1)", TRIM),
    Break("names with escapes are not those of fields", "native/trim.c", "Py_ssize_t size = plain_bytes(name, plain);", "Py_ssize_t size = name->size; memcpy(plain, name->start, (size_t)size);", TRIM),
    Break("what comes after the object is passed over", "native/trim.c", "if (!is_sound || c.at < t->end) return BAD_JSON;", "if (!is_sound) return BAD_JSON;", TRIM),
    Break("a size of 127 takes two bytes", "native/columns.c", "rest > 0x7f", "rest >= 0x7f", "native_format"),
    Break("a column of nothing but 255 is left out", "native/columns.c", "c->filled |= number != 0", "c->filled |= (number & 1) == 0", FOLD),
    Break("the broker's time for a batch is ignored", "native/log.c", "r->ms = batch->is_fixed ?", "r->ms = 0 ?", READER),
    Break("where no record is missing offsets are what they say", "native/log.c", "if (batch->is_dense) delta = batch->after + 1;", "", READER),
    Break("an offset comes twice", "native/log.c", "delta <= batch->after ||", "delta < batch->after ||", READER),
    Break("an offset beyond the batch", "native/log.c", " || delta > batch->last", "", READER),
    Break("a key of length -2 is none at all", "native/log.c", "!take_varint(c, &size) || size > c->end - c->at", "!take_varint(c, &size) || size < -1 || size > c->end - c->at", READER),
    Break("a header without a name", "native/log.c", "|| name.size < 0 ||", "||", READER),
    Break("a name that is no UTF-8 is told as far as it goes", "native/log.c", '"surrogateescape"', '"replace"', READER),
    Break("10,001 headers", "native/log.c", "count > HEADERS_MAX", "count > HEADERS_MAX + 1", READER),
    Break("a record that is larger than what is kept whole", "native/log.c", "size > RECORD_BYTES_MAX", "size > 4 * RECORD_BYTES_MAX", READER),
    Break("the newest time is that just below the limit", "native/log.c", "ms <= limit_ms", "ms < limit_ms", READER),
    Break(
        "an event's id is not in its identity", "native/identity.c",
        "return event_id_hash(span_at(e, e->decoder->by_kind['i']));", "return 0;", "native settle",
    ),
    Break("what was written of a refused message stays", "native/builder.c", "        undo(b);\n", "", BUILDER),
    Break("of a refused message the texts are counted", "native/columns.c", "    c->texts.count = m->text_count;\n", "", BUILDER),
    Break("of a refused message the words stay", "native/columns.c", "m->codes * code_size(&c->words)", "c->words.codes.size", BUILDER),
    Break("a column of 65,536 words is not widened in time", "native/columns.c", "NARROW_WORDS_MAX + 1 && widen", "NARROW_WORDS_MAX + 2 && widen", BUILDER),
    Break("the last control character is not escaped", "native/fold.c", "if (byte >= 0x20 && byte != '\"'", "if (byte >= 0x1f && byte != '\"'", BUILDER),
    Break("a backslash is not escaped", "native/fold.c", "&& byte != '\\\\') continue;", ") continue;", BUILDER),
    # ---- the Python ----
    Break(
        "a tenant of one account sees them all", "api/where.py",
        "return f\"account_id = {binder.bind(scope.accounts[0], 'String')}\"", 'return "1"', "api_tenancy",
    ),
    Break(
        "a page skips what is at its bound", "api/where.py",
        "occurred_at < {binder.instant(span.end_ms)}", "occurred_at < {binder.instant(span.end_ms - 1)}", "query",
    ),
    Break(
        "records that were written before are counted again", "streams/telemetry.py",
        "is_new = (amendments == 0) | (settled > since_ms)", "is_new = (amendments == 0) | True", "telemetry",
    ),
    Break(
        "what a partition counted before it was taken over is counted", "streams/telemetry.py",
        "            if known is partition:\n", "            if True:\n", "telemetry",
    ),
    Break(
        "what only counts can fail a write", "streams/telemetry.py",
        'aside("counting records", self._tally.wrote, written)', "self._tally.wrote(written)", "telemetry barrier folding",
    ),
    Break(
        "ids are forgotten when the clock alone has left them behind", "streams/recent.py",
        "self._runs[0].newest_ms < added_before_ms and self._runs[0].mark_ms < mark_before_ms",
        "self._runs[0].newest_ms < added_before_ms", "recent settle",
    ),
    Break(
        "a watermark follows times far in the future", "streams/lives.py",
        "newest(entries, now_ms + FUTURE_MS_MAX)", "newest(entries, now_ms + 100 * FUTURE_MS_MAX)", "bounds flow settle",
    ),
    Break(
        "a deadline that is reached, but not passed, ends a message", "streams/wheel.py",
        "last = at_ms // self._bucket_ms", "last = at_ms // self._bucket_ms + 1", "flow settle simulation",
    ),
    Break(
        "a send that repeats another id is no conflict", "streams/settle.py",
        "if known_id == event.event_id:", "if True:", "flow settle",
    ),
    Break(
        "receipts that waited are not counted against the limit", "streams/settle.py",
        "            self._cut(waiting)\n", "", "settle flow simulation",
    ),
    Break(
        "a record gives back its receipts without what they carry", "streams/join.py",
        "more = dict(zip(EXTRAS, extras[len(receipts)], strict=True)) if extras else {}", "more: dict[str, str] = {}", "join settle",
    ),
    Break("what was cut of a dead letter is not said", "streams/letters.py", "is_told = bool(cut or ", "is_told = bool(", "dead_letters"),
    Break(
        "dead letters lose their own headers", "streams/letters.py",
        "            headers.append((name, content))\n", "            pass\n", "dead_letters",
    ),
)  # fmt: skip

BREAKS: Final = (*TRIED, *OTHERS, *WORKER)
