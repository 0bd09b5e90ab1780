/* What tells an event from all others, as a hash (streams/facts.py): of a receipt all five parts, of any other the first two. */
#include "native.h"

enum { MESSAGE_ID, EVENT_ID, STATE, OCCURRED_MS, SEGMENT, PARTS };

static PyObject *names[PARTS];

/* Of ASCII it is the hash of the str. */
static int64_t hash_of_text(Span text)
{
#if PY_VERSION_HEX < 0x030E0000
    return _Py_HashBytes(text.start, text.size);
#else
    return Py_HashBuffer(text.start, text.size);
#endif
}

static int64_t part_in_bytes(const Event *e, int part)
{
    switch (part) {
    case MESSAGE_ID:
        return PyObject_Hash(e->id);
    case EVENT_ID:
        return hash_of_text(span_at(e, e->decoder->by_kind['i']));
    case STATE:
        return PyObject_Hash(e->state);
    default:
        return part == SEGMENT ? e->segments : e->ms;
    }
}

static int64_t part_of(PyObject *event, int part)
{
    PyObject *value = PyObject_GetAttr(event, names[part]);
    int64_t hash = value ? PyObject_Hash(value) : -1;
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
