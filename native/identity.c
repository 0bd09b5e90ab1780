/* What tells an event from all others, as a hash (streams/facts.py): of a receipt all five parts, of any other the first two. */
#include "native.h"

enum { MESSAGE_ID, EVENT_ID, STATE, OCCURRED_MS, SEGMENT, PARTS };

static PyObject *names[PARTS];

static int64_t event_id_hash(Span id) { return (int64_t)keyed_hash(id.start, (size_t)id.size); }

static int64_t part_in_bytes(const Event *e, int part)
{
    switch (part) {
    case MESSAGE_ID:
        return PyObject_Hash(e->id);
    case EVENT_ID:
        return event_id_hash(span_at(e, e->decoder->by_kind['i']));
    case STATE:
        return PyObject_Hash(e->state);
    default:
        return part == SEGMENT ? e->segments : e->ms;
    }
}

static int64_t part_of_value(PyObject *value, int part)
{
    Py_ssize_t size;
    const char *id;
    switch (part) {
    case EVENT_ID:
        id = PyUnicode_AsUTF8AndSize(value, &size);
        return id ? event_id_hash((Span){(const uint8_t *)id, size, false, true}) : -1;
    case OCCURRED_MS:
    case SEGMENT:
        return PyLong_AsLongLong(value);
    default:
        return PyObject_Hash(value);
    }
}

static int64_t part_of(PyObject *event, int part)
{
    PyObject *value = PyObject_GetAttr(event, names[part]);
    int64_t hash = value ? part_of_value(value, part) : -1;
    Py_XDECREF(value);
    return hash;
}

static uint64_t mixed(uint64_t h, int64_t part)
{
    h = (h ^ (uint64_t)part) * 0x9E3779B97F4A7C15u;
    return h ^ h >> 32;
}

int64_t identity_in_bytes(const Event *e)
{
    uint64_t h = 0;
    for (int n = 0; n < (e->state ? PARTS : STATE); n++) h = mixed(h, part_in_bytes(e, n));
    return (int64_t)h;
}

int64_t identity_of(PyObject *event, bool is_receipt)
{
    if (Py_TYPE(event) == &EventType) return ((Event *)event)->identity;
    uint64_t h = 0;
    for (int n = 0; n < (is_receipt ? PARTS : STATE); n++) h = mixed(h, part_of(event, n));
    return (int64_t)h;
}

int identity_setup(void)
{
    static const char *const texts[] = {"message_id", "event_id", "state", "occurred_ms", "segment"};
    for (int n = 0; n < PARTS; n++)
        if (!(names[n] = PyUnicode_InternFromString(texts[n]))) return -1;
    return 0;
}
