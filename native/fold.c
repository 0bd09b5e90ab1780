/* Messages to records: streams/fold.py said quickly, straight into columns. Whatever does not look as expected raises,
 * and the Python makes the block. */
#include "columns.h"

#define RECEIPTS_MAX 320
#define MONTHS_MAX 64
#define COLUMNS_MAX 96
#define SOURCE_SIZE_MAX 320
#define VERSION_RANK_SHIFT 32
#define FINAL_RANK 2
#define DELIVERED_RANK 3

/* Fields of a message or receipt that are asked for by name; columns that a message gives as they are follow. */
enum {
    EVENT_ID, OCCURRED_MS, SOURCE, PROVIDER, MCC, MNC, RATE, FEE, SEGMENTS, ERROR_CODE, VENDOR_ERROR_CODE, STATE, SEGMENT,
    NAMED
};
static const char *const names_of_fields[NAMED] = {
    "event_id", "occurred_ms", "source", "provider", "mcc", "mnc", "rate", "carrier_fee", "segments", "error_code",
    "vendor_error_code", "state", "segment",
};
/* What receipts may carry, in the order of join.EXTRAS. */
static const int extras[] = {VENDOR_ERROR_CODE, PROVIDER, MCC, MNC, RATE, FEE};
enum { EXTRAS = 6, OWN = 5 };

enum {
    DIRECTION, RECORD_TYPE, RECORD_STATE, DELIVERED, FAILED_PARTS, C_MCC, C_MNC, C_PROVIDER, C_ERROR, C_VENDOR_ERROR,
    RATE_NANOS, FEE_NANOS, AMOUNT, OCCURRED_AT, SENT_AT, FINAL_AT, SETTLED_AT, AMENDED_AT, AMENDMENTS, T_EVENT_ID, T_STATE,
    T_OCCURRED_AT, T_SEGMENT, T_ERROR, T_SOURCE, VERSION, SHARD, FACTS, WORKED_OUT
};
static const char *const names_of_columns[WORKED_OUT] = {
    "direction", "record_type", "state", "segments_delivered", "segments_failed", "mcc", "mnc", "provider", "error_code",
    "vendor_error_code", "rate_nanos", "carrier_fee_nanos", "amount_nanos", "occurred_at", "sent_at", "final_at",
    "settled_at", "amended_at", "amendments", "timeline_event_id", "timeline_state", "timeline_occurred_at",
    "timeline_segment", "timeline_error_code", "timeline_source", "version", "shard", "facts",
};

typedef struct {
    int month;
    Py_ssize_t rows;
    Column columns[COLUMNS_MAX];
} Block;

/* How the fields of one kind of event are reached: by slots where it is a struct, by places where it is bytes. */
typedef struct {
    Slots slots;
    PyObject *names;
    Decoder *decoder; /* whose places `field_of` are; borrowed */
    int8_t field_of[COLUMNS_MAX];
} Access;

typedef struct {
    PyObject_HEAD
    PyObject *names; /* of the columns */
    char kinds[COLUMNS_MAX];
    int count, places[WORKED_OUT];
    int said[COLUMNS_MAX], said_count; /* columns that a message gives as they are */
    Access sends, receives, receipts;
    Slots lives;
    Block *blocks[MONTHS_MAX];
    int block_count;
} Builder;

/* An event and how to reach into it. */
typedef struct {
    PyObject *object;
    Event *event; /* NULL for a struct */
    const Py_ssize_t *slots;
    const int8_t *field_of;
} Ref;

typedef struct {
    Ref ref;
    int rank, segment;
    int64_t ms;
    Text id, state, error;
} Step;

/* ---- reaching in ---- */

static int learn_decoder(Access *a, Decoder *d)
{
    if (!PyType_IsSubtype(Py_TYPE(d->blank), (PyTypeObject *)a->slots.base)) {
        PyErr_SetString(PyExc_TypeError, "an event of another kind");
        return -1;
    }
    for (Py_ssize_t n = 0; n < PyTuple_GET_SIZE(a->names); n++) {
        PyObject *index = PyDict_GetItemWithError(d->by_slot, PyTuple_GET_ITEM(a->names, n));
        if (!index && PyErr_Occurred()) return -1;
        a->field_of[n] = index ? (int8_t)PyLong_AsLong(index) : -1;
    }
    a->decoder = d;
    return 0;
}

static int ref_init(Ref *r, Access *a, PyObject *object)
{
    *r = (Ref){object, NULL, NULL, a->field_of};
    if (Py_TYPE(object) != &EventType) return (r->slots = slots_of(&a->slots, object)) ? 0 : -1;
    r->event = (Event *)object;
    return r->event->decoder == a->decoder ? 0 : learn_decoder(a, r->event->decoder);
}

static int text_of(PyObject *object, Text *out)
{
    out->at = PyUnicode_AsUTF8AndSize(object, &out->size);
    return out->at ? 0 : -1;
}

static int event_text(Event *e, int field, Text *out)
{
    *out = literal("");
    if (field < 0) return 0;
    Place p = e->places[field];
    switch (e->decoder->fields[field].kind) {
    case 'k':
        return text_of(e->id, out);
    case 'S':
        return text_of(e->state, out);
    case 'E':
        *out = literal(e->encoding == UCS2 ? "ucs2" : "gsm7");
        return 0;
    case 'C':
        if (e->country) return text_of(e->country, out);
        break;
    case 'T':
    case 'U':
        if (!p.size) {
            const Py_ssize_t *at = slots_of(&e->decoder->slots, e->decoder->blank);
            return at ? text_of(slot_get(e->decoder->blank, at[field]), out) : -1;
        }
    }
    *out = (Text){PyBytes_AS_STRING(e->value) + p.start, p.size};
    return 0;
}

static int get_text(const Ref *r, int name, Text *out)
{
    return r->event ? event_text(r->event, r->field_of[name], out) : text_of(slot_get(r->object, r->slots[name]), out);
}

static int get_number(const Ref *r, int name, int64_t *out)
{
    if (r->event) {
        *out = name == OCCURRED_MS ? r->event->ms : r->event->segments;
        return 0;
    }
    *out = PyLong_AsLongLong(slot_get(r->object, r->slots[name]));
    return *out == -1 && PyErr_Occurred() ? -1 : 0;
}

/* `topic:partition:offset`; `buffer` is SOURCE_SIZE_MAX long. */
static int get_source(const Ref *r, char *buffer, Text *out)
{
    if (!r->event) return text_of(slot_get(r->object, r->slots[SOURCE]), out);
    Text where;
    if (text_of(r->event->where, &where)) return -1;
    if (where.size > SOURCE_SIZE_MAX - 24) {
        PyErr_SetString(PyExc_ValueError, "a topic's name is too long");
        return -1;
    }
    char digits[24];
    int count = 0;
    uint64_t left = (uint64_t)r->event->offset;
    do digits[count++] = (char)('0' + left % 10);
    while (left /= 10);
    memcpy(buffer, where.at, (size_t)where.size);
    for (int n = 0; n < count; n++) buffer[where.size + n] = digits[count - 1 - n];
    *out = (Text){buffer, where.size + count};
    return 0;
}

static int rank_of(Text state)
{
    switch (state.size ? *state.at : 0) {
    case 'q':
        return 0;
    case 's':
        return 1;
    case 'd':
        return DELIVERED_RANK;
    default:
        return FINAL_RANK;
    }
}

/* ---- order ---- */

static int compare_texts(Text a, Text b)
{
    /* UTF-8 sorts as its code points do. */
    int order = memcmp(a.at, b.at, (size_t)(a.size < b.size ? a.size : b.size));
    return order ? order : (a.size > b.size) - (a.size < b.size);
}

static int compare_rest(const Step *a, const Step *b)
{
    int order = compare_texts(a->id, b->id);
    if (!order) order = compare_texts(a->state, b->state);
    return order ? order : a->segment - b->segment;
}

static int by_strength(const Step *a, const Step *b)
{
    if (a->rank != b->rank) return b->rank - a->rank;
    if (a->ms != b->ms) return a->ms < b->ms ? -1 : 1;
    return compare_rest(a, b);
}

static int by_time(const Step *a, const Step *b)
{
    if (a->ms != b->ms) return a->ms < b->ms ? -1 : 1;
    return a->rank != b->rank ? a->rank - b->rank : compare_rest(a, b);
}

static void sort(const Step **steps, int count, int (*order)(const Step *, const Step *))
{
    for (int n = 1; n < count; n++) {
        const Step *step = steps[n];
        int at = n;
        for (; at && order(steps[at - 1], step) > 0; at--) steps[at] = steps[at - 1];
        steps[at] = step;
    }
}

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
    if (!PyTuple_Check(texts)) return PyErr_SetString(PyExc_TypeError, "a tuple is wanted"), -1;
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
    if (!PyDict_Check(map)) return PyErr_SetString(PyExc_TypeError, "a dict is wanted"), -1;
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

typedef struct {
    char *at;
    size_t size, room;
} Json;

static int write_json(Json *j, const char *text, Py_ssize_t size)
{
    if (j->size + (size_t)size > j->room) {
        size_t room = (j->size + (size_t)size) * 2 + 256;
        char *at = PyMem_RawRealloc(j->at, room);
        if (!at) return PyErr_NoMemory(), -1;
        j->at = at;
        j->room = room;
    }
    memcpy(j->at + j->size, text, (size_t)size);
    j->size += (size_t)size;
    return 0;
}

static int write_quoted(Json *j, Text text, bool last)
{
    for (Py_ssize_t n = 0; n < text.size; n++)
        if ((uint8_t)text.at[n] < 0x20 || text.at[n] == '"' || text.at[n] == '\\')
            return PyErr_SetString(PyExc_ValueError, "a text that needs escapes"), -1;
    return write_json(j, "\"", 1) || write_json(j, text.at, text.size) || write_json(j, last ? "\"]" : "\",", 2);
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

static Block *new_block(Builder *b, int month)
{
    if (b->block_count == MONTHS_MAX) return PyErr_SetString(PyExc_ValueError, "too many months"), NULL;
    Block *block = PyMem_Calloc(1, sizeof *block);
    if (!block) return (Block *)PyErr_NoMemory();
    block->month = month;
    b->blocks[b->block_count++] = block;
    for (int n = 0; n < b->count; n++)
        if (column_init(&block->columns[n], b->kinds[n])) return NULL;
    return block;
}

/* The block of an instant's month: one insert into one partition is all of it or nothing. */
static Block *block_at(Builder *b, int64_t ms)
{
    int month = month_of(ms);
    for (int n = 0; n < b->block_count; n++)
        if (b->blocks[n]->month == month) return b->blocks[n];
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
    Py_ssize_t row = block->rows;
    if (amendments > UINT16_MAX) return PyErr_SetString(PyExc_OverflowError, "too many amendments"), -1;
    return put_number(column(b, block, OCCURRED_AT), occurred) || put_ms(column(b, block, SENT_AT), row, sent, sent != 0)
        || put_ms(column(b, block, FINAL_AT), row, final, final != 0) || put_number(column(b, block, SETTLED_AT), settled)
        || put_ms(column(b, block, AMENDED_AT), row, amended, amended != 0)
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

static int add_outbound(Builder *b, PyObject *life, int64_t shard)
{
    Step steps[RECEIPTS_MAX];
    const Step *strongest[RECEIPTS_MAX], *ordered[RECEIPTS_MAX];
    const Py_ssize_t *at = slots_of(&b->lives, life);
    PyObject *receipts = at ? slot_get(life, at[1]) : NULL;
    if (!receipts || !PyTuple_Check(receipts) || PyTuple_GET_SIZE(receipts) > RECEIPTS_MAX) {
        if (at) PyErr_SetString(PyExc_ValueError, "more receipts than a message can have");
        return -1;
    }
    int count = (int)PyTuple_GET_SIZE(receipts);
    int64_t times[3], ms;
    for (int n = 0; n < 3; n++) times[n] = PyLong_AsLongLong(slot_get(life, at[2 + n]));
    Ref send;
    if (PyErr_Occurred() || ref_init(&send, &b->sends, slot_get(life, at[0])) || get_number(&send, OCCURRED_MS, &ms)
        || read_steps(b, receipts, steps))
        return -1;
    for (int n = 0; n < count; n++) strongest[n] = ordered[n] = &steps[n];
    sort(strongest, count, by_strength);
    sort(ordered, count, by_time);
    Block *block = block_at(b, ms);
    if (!block || add_outcome(b, block, &send, ms, strongest, ordered, count, times, shard)) return -1;
    block->rows++;
    return 0;
}

static int add_inbound(Builder *b, PyObject *receive, int64_t shard, int64_t settled_ms)
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

/* ---- the builder ---- */

/* outbound(shard, lives) and inbound(shard, receives, settled_ms): adds their records. */
static PyObject *builder_outbound(Builder *b, PyObject *args)
{
    long long shard;
    PyObject *lives;
    if (!PyArg_ParseTuple(args, "LO!", &shard, &PyList_Type, &lives)) return NULL;
    for (Py_ssize_t n = 0; n < PyList_GET_SIZE(lives); n++)
        if (add_outbound(b, PyList_GET_ITEM(lives, n), shard)) return NULL;
    Py_RETURN_NONE;
}

static PyObject *builder_inbound(Builder *b, PyObject *args)
{
    long long shard, settled_ms;
    PyObject *receives;
    if (!PyArg_ParseTuple(args, "LO!L", &shard, &PyList_Type, &receives, &settled_ms)) return NULL;
    for (Py_ssize_t n = 0; n < PyList_GET_SIZE(receives); n++)
        if (add_inbound(b, PyList_GET_ITEM(receives, n), shard, settled_ms)) return NULL;
    Py_RETURN_NONE;
}

static PyObject *block_columns(const Builder *b, const Block *block)
{
    PyObject *columns = PyDict_New();
    for (int n = 0; columns && n < b->count; n++) {
        if (!block->columns[n].filled) continue;
        PyObject *buffers = column_buffers(&block->columns[n]);
        if (!buffers || PyDict_SetItem(columns, PyTuple_GET_ITEM(b->names, n), buffers)) Py_CLEAR(columns);
        Py_XDECREF(buffers);
    }
    return columns;
}

static void drop_blocks(Builder *b)
{
    while (b->block_count) {
        Block *block = b->blocks[--b->block_count];
        for (int n = 0; n < b->count; n++) column_clear(&block->columns[n]);
        PyMem_Free(block);
    }
}

/* finish() -> [(rows, {column: (kind, buffers...)})], a block a month; columns of nothing but defaults are left out. */
static PyObject *builder_finish(Builder *b, PyObject *unused)
{
    PyObject *blocks = PyList_New(0);
    for (int n = 0; blocks && n < b->block_count; n++) {
        PyObject *columns = block_columns(b, b->blocks[n]);
        PyObject *block = columns ? Py_BuildValue("(nN)", b->blocks[n]->rows, columns) : NULL;
        if (!block || PyList_Append(blocks, block)) Py_CLEAR(blocks);
        Py_XDECREF(block);
    }
    drop_blocks(b);
    return blocks;
}

static int access_init(Access *a, PyObject *type, PyObject *said, bool is_receipt)
{
    PyObject *names = PyList_New(0);
    for (int n = 0; names && n < NAMED; n++) {
        /* What this type does not have is never asked of it; its id stands in. */
        PyObject *name = PyUnicode_FromString(names_of_fields[n]);
        if (name && !PyObject_HasAttr(type, name)) Py_SETREF(name, PyUnicode_FromString(names_of_fields[EVENT_ID]));
        if (!name || PyList_Append(names, name)) Py_CLEAR(names);
        Py_XDECREF(name);
    }
    for (Py_ssize_t n = 0; names && !is_receipt && n < PyList_GET_SIZE(said); n++)
        if (PyList_Append(names, PyList_GET_ITEM(said, n))) Py_CLEAR(names);
    a->names = names ? PyList_AsTuple(names) : NULL;
    Py_XDECREF(names);
    return a->names ? slots_init(&a->slots, type, a->names) : -1;
}

static void access_clear(Access *a)
{
    slots_clear(&a->slots);
    Py_CLEAR(a->names);
}

static int learn_column(Builder *b, PyObject *name, PyObject *kind, PyObject *said)
{
    if (b->count == COLUMNS_MAX) return PyErr_SetString(PyExc_ValueError, "too many columns"), -1;
    int place = b->count++;
    b->kinds[place] = (char)PyUnicode_READ_CHAR(kind, 0);
    for (int n = 0; n < WORKED_OUT; n++)
        if (!PyUnicode_CompareWithASCIIString(name, names_of_columns[n])) {
            b->places[n] = place;
            return 0;
        }
    b->said[b->said_count++] = place;
    return PyList_Append(said, name);
}

/* Builder(names, kinds, Send, Receive, Receipt, Life): the columns of a record in order. */
static int builder_init(Builder *b, PyObject *args, PyObject *kwargs)
{
    PyObject *names, *kinds, *send, *receive, *receipt, *life, *said = PyList_New(0), *of_life = NULL;
    int failed = !said
        || !PyArg_ParseTuple(args, "O!O!OOOO", &PyTuple_Type, &names, &PyTuple_Type, &kinds, &send, &receive, &receipt, &life);
    if (!failed) b->names = Py_NewRef(names);
    for (int n = 0; n < WORKED_OUT; n++) b->places[n] = -1;
    for (Py_ssize_t n = 0; !failed && n < PyTuple_GET_SIZE(names); n++)
        failed = learn_column(b, PyTuple_GET_ITEM(names, n), PyTuple_GET_ITEM(kinds, n), said);
    for (int n = 0; !failed && n < WORKED_OUT; n++)
        if (b->places[n] < 0) failed = PyErr_Format(PyExc_ValueError, "no column %s", names_of_columns[n]) == NULL;
    if (!failed) of_life = Py_BuildValue("(sssss)", "send", "receipts", "settled_ms", "amended_ms", "amendments");
    failed = failed || !of_life || slots_init(&b->lives, life, of_life) || access_init(&b->sends, send, said, false)
        || access_init(&b->receives, receive, said, false) || access_init(&b->receipts, receipt, said, true);
    Py_XDECREF(said);
    Py_XDECREF(of_life);
    return failed ? -1 : 0;
}

static void builder_dealloc(Builder *b)
{
    drop_blocks(b);
    access_clear(&b->sends);
    access_clear(&b->receives);
    access_clear(&b->receipts);
    slots_clear(&b->lives);
    Py_XDECREF(b->names);
    Py_TYPE(b)->tp_free(b);
}

static PyMethodDef builder_methods[] = {
    {"outbound", (PyCFunction)builder_outbound, METH_VARARGS, NULL},
    {"inbound", (PyCFunction)builder_inbound, METH_VARARGS, NULL},
    {"finish", (PyCFunction)builder_finish, METH_NOARGS, NULL},
    {0},
};

PyTypeObject BuilderType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "schemas._native.Builder",
    .tp_basicsize = sizeof(Builder),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)builder_init,
    .tp_dealloc = (destructor)builder_dealloc,
    .tp_methods = builder_methods,
};

int fold_setup(void) { return PyType_Ready(&BuilderType); }
