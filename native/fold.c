/* Messages to records: what streams/fold.py says, straight into columns. A message that does not look as expected is
 * refused, with an error set; the Python then makes its record. */
#include "fold.h"

/* ---- what a message says itself ---- */

static int add_texts(Column *c, Event *e, int field, PyObject *texts)
{
    if (e) {
        if (!e->places[field].size) return end_row(c, false);
        Span s = span_at(e, field), item;
        Cursor at = {s.start + 1, s.start + s.size};
        do {
            skip_space(&at);
            read_string(&at, &item);
            if (put_item(c, (Text){(const char *)item.start, item.size})) return -1;
            skip_space(&at);
        } while (take_byte(&at, ','));
        return end_row(c, true);
    }
    if (!PyTuple_Check(texts)) return fail(PyExc_TypeError, "a tuple is wanted");
    for (Py_ssize_t n = 0; n < PyTuple_GET_SIZE(texts); n++) {
        Text text;
        if (text_of(PyTuple_GET_ITEM(texts, n), &text) || put_item(c, text)) return -1;
    }
    return end_row(c, PyTuple_GET_SIZE(texts) > 0);
}

static int add_pairs(Column *c, Event *e, int field)
{
    Span s = span_at(e, field), name, text;
    Cursor at = {s.start + 1, s.start + s.size};
    do {
        skip_space(&at);
        read_string(&at, &name);
        skip_space(&at);
        take_byte(&at, ':');
        skip_space(&at);
        read_string(&at, &text);
        if (put_item(c, (Text){(const char *)name.start, name.size})) return -1;
        if (put_value(c, (Text){(const char *)text.start, text.size})) return -1;
        skip_space(&at);
    } while (take_byte(&at, ','));
    return end_row(c, true);
}

static int add_map(Column *c, Event *e, int field, PyObject *map)
{
    PyObject *name, *value;
    Py_ssize_t at = 0;
    if (e) return e->places[field].size ? add_pairs(c, e, field) : end_row(c, false);
    if (map == Py_None) return end_row(c, false);
    if (!PyDict_Check(map)) return fail(PyExc_TypeError, "a dict is wanted");
    while (PyDict_Next(map, &at, &name, &value)) {
        Text text;
        if (text_of(name, &text) || put_item(c, text) || text_of(value, &text) || put_value(c, text)) return -1;
    }
    return end_row(c, PyDict_GET_SIZE(map) > 0);
}

static int add_said(const Builder *b, Block *block, const Ref *m)
{
    for (int n = 0; n < b->said_count; n++) {
        Column *c = &block->columns[b->said[n]];
        int name = NAMED + n, field = m->event ? m->field_of[name] : 0;
        PyObject *value = m->event ? NULL : slot_get(m->object, m->slots[name]);
        Text text;
        int64_t number;
        int failed;
        switch (c->kind) {
        case 't':
        case 'w':
            failed = get_text(m, name, &text) || put_text(c, text);
            break;
        case 'T':
            failed = add_texts(c, m->event, field, value);
            break;
        case 'X':
            failed = add_map(c, m->event, field, value);
            break;
        default:
            failed = get_number(m, SEGMENTS, &number) || put_number(c, number);
        }
        if (failed) return -1;
    }
    return 0;
}

/* ---- what is worked out ---- */

static Column *column(const Builder *b, Block *block, int name) { return &block->columns[b->places[name]]; }

static int add_money(const Builder *b, Block *block, const Text own[OWN], int64_t segments)
{
    int64_t rate = parse_nanos(own[3].at, own[3].size), fee = parse_nanos(own[4].at, own[4].size);
    rate = rate < 0 ? 0 : rate;
    fee = fee < 0 ? 0 : fee;
    return put_text(column(b, block, C_PROVIDER), own[0]) || put_text(column(b, block, C_MCC), own[1])
        || put_text(column(b, block, C_MNC), own[2]) || put_number(column(b, block, RATE_NANOS), rate)
        || put_number(column(b, block, FEE_NANOS), fee)
        || put_number(column(b, block, AMOUNT), (rate + fee) * segments);
}

static int get_own(const Ref *m, Text own[OWN])
{
    return get_text(m, PROVIDER, &own[0]) || get_text(m, MCC, &own[1]) || get_text(m, MNC, &own[2])
        || get_text(m, RATE, &own[3]) || get_text(m, FEE, &own[4]);
}

static int add_step(
    const Builder *b, Block *block, const Ref *ref, Text id, Text state, int64_t ms, int64_t segment, Text error)
{
    char buffer[SOURCE_SIZE_MAX];
    Text source;
    return get_source(ref, buffer, &source) || put_item(column(b, block, T_EVENT_ID), id)
        || put_item(column(b, block, T_STATE), state) || put_number(column(b, block, T_OCCURRED_AT), ms)
        || put_number(column(b, block, T_SEGMENT), segment) || put_item(column(b, block, T_ERROR), error)
        || put_item(column(b, block, T_SOURCE), source);
}

static int end_timeline(const Builder *b, Block *block)
{
    for (int name = T_EVENT_ID; name <= T_SOURCE; name++)
        if (end_row(column(b, block, name), true)) return -1;
    return 0;
}

static int add_timeline(const Builder *b, Block *block, const Ref *send, Text send_id, int64_t send_ms, const Step **ordered,
    int count)
{
    int at = 0;
    for (; at < count; at++) {
        const Step *s = ordered[at];
        bool before = s->ms != send_ms ? s->ms < send_ms : s->rank == 0 && compare_texts(s->id, send_id) < 0;
        if (!before) break;
        if (add_step(b, block, &s->ref, s->id, s->state, s->ms, s->segment, s->error)) return -1;
    }
    if (add_step(b, block, send, send_id, literal("queued"), send_ms, 0, literal(""))) return -1;
    for (; at < count; at++) {
        const Step *s = ordered[at];
        if (add_step(b, block, &s->ref, s->id, s->state, s->ms, s->segment, s->error)) return -1;
    }
    return end_timeline(b, block);
}

/* How many parts were delivered and failed: each by its strongest state; a receipt without a part speaks for all. */
static void count_parts(const Step **strongest, int count, int segments, int *delivered, int *failed)
{
    *delivered = *failed = 0;
    if (!strongest[0]->segment) {
        *(strongest[0]->rank == DELIVERED_RANK ? delivered : failed) = segments;
        return;
    }
    for (int part = 1; part <= segments; part++)
        for (int n = 0; n < count && strongest[n]->rank >= FINAL_RANK; n++)
            if (!strongest[n]->segment || strongest[n]->segment == part) {
                ++*(strongest[n]->rank == DELIVERED_RANK ? delivered : failed);
                break;
            }
}

/* ---- facts that no column holds: JSON of [own, extras by time] ---- */

/* What receipts may carry, in the order of join.EXTRAS. */
static const int extras[] = {VENDOR_ERROR_CODE, PROVIDER, MCC, MNC, RATE, FEE};

typedef struct {
    char *at;
    size_t size, room;
} Json;

static int write_json(Json *j, const char *text, Py_ssize_t size)
{
    if (j->size + (size_t)size > j->room) {
        size_t room = (j->size + (size_t)size) * 2 + 256;
        char *at = PyMem_RawRealloc(j->at, room);
        if (!at) return fail(PyExc_MemoryError, "no room for facts");
        j->at = at;
        j->room = room;
    }
    memcpy(j->at + j->size, text, (size_t)size);
    j->size += (size_t)size;
    return 0;
}

/* Writes the escape of a character as msgspec does: the short one where there is one. */
static int write_escape(Json *j, uint8_t byte)
{
    static const char shorts[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt", digits[] = "0123456789abcdef";
    const char *found = byte ? strchr(shorts, byte) : NULL;
    if (found) return write_json(j, (char[]){'\\', letters[found - shorts]}, 2);
    return write_json(j, (char[]){'\\', 'u', '0', '0', digits[byte >> 4], digits[byte & 15]}, 6);
}

static int write_quoted(Json *j, Text text, bool last)
{
    Py_ssize_t from = 0;
    if (write_json(j, "\"", 1)) return -1;
    for (Py_ssize_t n = 0; n < text.size; n++) {
        uint8_t byte = (uint8_t)text.at[n];
        if (byte >= 0x20 && byte != '"' && byte != '\\') continue;
        if (write_json(j, text.at + from, n - from) || write_escape(j, byte)) return -1;
        from = n + 1;
    }
    return write_json(j, text.at + from, text.size - from) || write_json(j, last ? "\"]" : "\",", 2);
}

static int write_facts(Json *j, const Text own[OWN], const Step **ordered, int count)
{
    if (write_json(j, "[[", 2)) return -1;
    for (int n = 0; n < OWN; n++)
        if (write_quoted(j, own[n], n == OWN - 1)) return -1;
    for (int at = 0; at < count; at++) {
        if (write_json(j, at ? ",[" : ",[[", at ? 2 : 3)) return -1;
        for (int n = 0; n < EXTRAS; n++) {
            Text text;
            if (get_text(&ordered[at]->ref, extras[n], &text) || write_quoted(j, text, n == EXTRAS - 1)) return -1;
        }
    }
    return write_json(j, "]]", 2);
}

/* Puts into `own` and `vendor_error` what receipts carry, the strongest first; whether any carries something. */
static int carry(const Step **strongest, int count, Text own[OWN], Text *vendor_error, bool *any)
{
    bool taken[EXTRAS] = {0};
    for (int at = 0; at < count; at++)
        for (int n = 0; n < EXTRAS; n++) {
            Text text;
            if (get_text(&strongest[at]->ref, extras[n], &text)) return -1;
            if (!text.size) continue;
            *any = true;
            bool counts = n || !compare_texts(strongest[at]->state, strongest[0]->state);
            if (taken[n] || !counts) continue;
            taken[n] = true;
            *(n ? &own[n - 1] : vendor_error) = text;
        }
    return 0;
}

static int add_carried(const Builder *b, Block *block, const Ref *send, const Step **strongest, const Step **ordered, int count,
    int64_t segments)
{
    Text own[OWN], said[OWN], vendor_error = literal("");
    bool any = false;
    Json json = {0};
    if (get_own(send, own)) return -1;
    memcpy(said, own, sizeof own);
    if (carry(strongest, count, own, &vendor_error, &any)) return -1;
    int failed = any && write_facts(&json, said, ordered, count);
    if (!failed)
        failed = put_text(column(b, block, FACTS), (Text){json.at ? json.at : "", (Py_ssize_t)json.size})
            || put_text(column(b, block, C_VENDOR_ERROR), vendor_error) || add_money(b, block, own, segments);
    PyMem_RawFree(json.at);
    return failed ? -1 : 0;
}

/* ---- rows ---- */

static int more_blocks(Builder *b)
{
    int room = b->block_room * 2 + 8;
    Block **blocks = PyMem_RawRealloc(b->blocks, (size_t)room * sizeof *blocks);
    if (!blocks) return fail(PyExc_MemoryError, "no room for another month");
    b->blocks = blocks;
    b->block_room = room;
    return 0;
}

static Block *new_block(Builder *b, int month)
{
    if (b->block_count == b->block_room && more_blocks(b)) return NULL;
    Block *block = PyMem_RawCalloc(1, sizeof *block);
    if (!block) return fail(PyExc_MemoryError, "no room for another month"), NULL;
    block->month = month;
    b->block_last = b->block_count;
    b->blocks[b->block_count++] = block;
    for (int n = 0; n < b->count; n++) block->columns[n].kind = b->kinds[n];
    return block;
}

/* The block of an instant's month: one insert into one partition is all of it or nothing. */
static Block *block_at(Builder *b, int64_t ms)
{
    int month = month_of(ms);
    if (b->block_count && b->blocks[b->block_last]->month == month) return b->blocks[b->block_last];
    for (int n = 0; n < b->block_count; n++)
        if (b->blocks[n]->month == month) return b->blocks[b->block_last = n];
    return new_block(b, month);
}

static int add_common(
    const Builder *b, Block *block, const char *direction, const char *type, Text state, int delivered, int failed, Text error)
{
    return put_text(column(b, block, DIRECTION), literal(direction)) || put_text(column(b, block, RECORD_TYPE), literal(type))
        || put_text(column(b, block, RECORD_STATE), state) || put_number(column(b, block, DELIVERED), delivered)
        || put_number(column(b, block, FAILED_PARTS), failed) || put_text(column(b, block, C_ERROR), error);
}

static int add_times(const Builder *b, Block *block, int64_t occurred, int64_t sent, int64_t final, int64_t settled,
    int64_t amended, int64_t amendments)
{
    if (amendments > UINT16_MAX) return fail(PyExc_OverflowError, "too many amendments");
    return put_number(column(b, block, OCCURRED_AT), occurred) || put_ms(column(b, block, SENT_AT), sent, sent != 0)
        || put_ms(column(b, block, FINAL_AT), final, final != 0) || put_number(column(b, block, SETTLED_AT), settled)
        || put_ms(column(b, block, AMENDED_AT), amended, amended != 0)
        || put_number(column(b, block, AMENDMENTS), amendments);
}

static int add_version(const Builder *b, Block *block, int rank, int facts, int64_t shard)
{
    int64_t version = ((int64_t)(rank + 1) << VERSION_RANK_SHIFT) + facts;
    return put_number(column(b, block, VERSION), version) || put_number(column(b, block, SHARD), shard);
}

static int read_steps(Builder *b, PyObject *receipts, Step *steps)
{
    for (Py_ssize_t n = 0; n < PyTuple_GET_SIZE(receipts); n++) {
        Step *s = &steps[n];
        int64_t segment;
        if (ref_init(&s->ref, &b->receipts, PyTuple_GET_ITEM(receipts, n)) || get_text(&s->ref, EVENT_ID, &s->id)
            || get_text(&s->ref, STATE, &s->state) || get_text(&s->ref, ERROR_CODE, &s->error)
            || get_number(&s->ref, OCCURRED_MS, &s->ms) || get_number(&s->ref, SEGMENT, &segment))
            return -1;
        s->segment = (int)segment;
        s->rank = rank_of(s->state);
    }
    return 0;
}

static int add_outcome(Builder *b, Block *block, const Ref *send, int64_t send_ms, const Step **strongest,
    const Step **ordered, int count, const int64_t times[3], int64_t shard)
{
    Text state = count ? strongest[0]->state : literal("queued"), error = literal(""), id;
    int rank = count ? strongest[0]->rank : 0, delivered = 0, failed = 0;
    int64_t segments, sent = 0;
    if (get_number(send, SEGMENTS, &segments) || get_text(send, EVENT_ID, &id)) return -1;
    for (int n = count - 1; n >= 0; n--) {
        if (strongest[n]->error.size && !compare_texts(strongest[n]->state, state)) error = strongest[n]->error;
        if (strongest[n]->rank == 1) sent = strongest[n]->ms;
    }
    if (rank >= FINAL_RANK) count_parts(strongest, count, (int)segments, &delivered, &failed);
    const char *type = rank == DELIVERED_RANK ? "complete" : rank == FINAL_RANK ? "error" : "incomplete";
    return add_said(b, block, send) || add_common(b, block, "outbound", type, state, delivered, failed, error)
        || add_carried(b, block, send, strongest, ordered, count, segments)
        || add_times(b, block, send_ms, sent, rank >= FINAL_RANK ? strongest[0]->ms : 0, times[0], times[1], times[2])
        || add_timeline(b, block, send, id, send_ms, ordered, count) || add_version(b, block, rank, 1 + count, shard);
}

int message_init(Message *m, Builder *b, PyObject *life)
{
    const Py_ssize_t *at = slots_of(&b->lives, life);
    if (!at) return -1;
    PyObject *send = slot_get(life, at[0]), *receipts = slot_get(life, at[1]);
    if (!PyTuple_Check(receipts) || PyTuple_GET_SIZE(receipts) > RECEIPTS_MAX)
        return fail(PyExc_ValueError, "more receipts than a message can have");
    for (int n = 0; n < 3; n++) m->times[n] = PyLong_AsLongLong(slot_get(life, at[2 + n]));
    if (PyErr_Occurred()) return -1;
    m->in_bytes = Py_TYPE(send) == &EventType;
    for (Py_ssize_t n = 0; n < PyTuple_GET_SIZE(receipts); n++)
        m->in_bytes = m->in_bytes && Py_TYPE(PyTuple_GET_ITEM(receipts, n)) == &EventType;
    m->send = Py_NewRef(send);
    m->receipts = Py_NewRef(receipts);
    return 0;
}

int add_outbound(Builder *b, const Message *m, int64_t shard)
{
    Step steps[RECEIPTS_MAX];
    const Step *strongest[RECEIPTS_MAX], *ordered[RECEIPTS_MAX];
    int count = (int)PyTuple_GET_SIZE(m->receipts);
    int64_t ms;
    Ref send;
    if (ref_init(&send, &b->sends, m->send) || get_number(&send, OCCURRED_MS, &ms) || read_steps(b, m->receipts, steps))
        return -1;
    for (int n = 0; n < count; n++) strongest[n] = ordered[n] = &steps[n];
    sort_steps(strongest, count, by_strength);
    sort_steps(ordered, count, by_time);
    Block *block = block_at(b, ms);
    if (!block || add_outcome(b, block, &send, ms, strongest, ordered, count, m->times, shard)) return -1;
    block->rows++;
    return 0;
}

int add_inbound(Builder *b, PyObject *receive, int64_t shard, int64_t settled_ms)
{
    Ref m;
    Text error, vendor_error, id, own[OWN];
    int64_t ms, segments;
    if (ref_init(&m, &b->receives, receive) || get_text(&m, ERROR_CODE, &error) || get_number(&m, OCCURRED_MS, &ms)
        || get_text(&m, VENDOR_ERROR_CODE, &vendor_error) || get_number(&m, SEGMENTS, &segments) || get_own(&m, own)
        || get_text(&m, EVENT_ID, &id))
        return -1;
    Block *block = block_at(b, ms);
    Text state = literal(error.size ? "failed" : "received");
    if (!block || add_said(b, block, &m)
        || add_common(b, block, "inbound", error.size ? "error" : "complete", state, 0, 0, error)
        || put_text(column(b, block, FACTS), literal("")) || put_text(column(b, block, C_VENDOR_ERROR), vendor_error)
        || add_money(b, block, own, segments) || add_times(b, block, ms, 0, ms, settled_ms, 0, 0)
        || add_step(b, block, &m, id, state, ms, 0, error) || end_timeline(b, block)
        || add_version(b, block, FINAL_RANK, 1, shard))
        return -1;
    block->rows++;
    return 0;
}
