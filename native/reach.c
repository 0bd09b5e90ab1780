/* Reaching into events, bytes or structs alike, and the order of receipts. */
#include "fold.h"

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

int ref_init(Ref *r, Access *a, PyObject *object)
{
    *r = (Ref){object, NULL, NULL, a->field_of};
    if (Py_TYPE(object) != &EventType) return (r->slots = slots_of(&a->slots, object)) ? 0 : -1;
    r->event = (Event *)object;
    int failed = 0;
    if (r->event->decoder != a->decoder) LOCKED(failed = learn_decoder(a, r->event->decoder));
    return failed;
}

int text_of(PyObject *object, Text *out)
{
    if (PyUnicode_Check(object) && PyUnicode_IS_COMPACT_ASCII(object))
        *out = (Text){(const char *)PyUnicode_1BYTE_DATA(object), PyUnicode_GET_LENGTH(object)};
    else
        LOCKED(out->at = PyUnicode_AsUTF8AndSize(object, &out->size));
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
    *out = (Text){(const char *)e->data + p.start, p.size};
    return 0;
}

int get_text(const Ref *r, int name, Text *out)
{
    return r->event ? event_text(r->event, r->field_of[name], out) : text_of(slot_get(r->object, r->slots[name]), out);
}

int get_number(const Ref *r, int name, int64_t *out)
{
    if (r->event) {
        *out = name == OCCURRED_MS ? r->event->ms : r->event->segments;
        return 0;
    }
    *out = PyLong_AsLongLong(slot_get(r->object, r->slots[name]));
    return *out == -1 && PyErr_Occurred() ? -1 : 0;
}

/* `topic:partition:offset`; `buffer` is SOURCE_SIZE_MAX long. */
int get_source(const Ref *r, char *buffer, Text *out)
{
    if (!r->event) return text_of(slot_get(r->object, r->slots[SOURCE]), out);
    Text where;
    if (text_of(r->event->where, &where)) return -1;
    if (where.size > SOURCE_SIZE_MAX - 24) return fail(PyExc_ValueError, "a topic's name is too long");
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

int rank_of(Text state)
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

int compare_texts(Text a, Text b)
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

int by_strength(const Step *a, const Step *b)
{
    if (a->rank != b->rank) return b->rank - a->rank;
    if (a->ms != b->ms) return a->ms < b->ms ? -1 : 1;
    return compare_rest(a, b);
}

int by_time(const Step *a, const Step *b)
{
    if (a->ms != b->ms) return a->ms < b->ms ? -1 : 1;
    return a->rank != b->rank ? a->rank - b->rank : compare_rest(a, b);
}

void sort_steps(const Step **steps, int count, int (*order)(const Step *, const Step *))
{
    for (int n = 1; n < count; n++) {
        const Step *step = steps[n];
        int at = n;
        for (; at && order(steps[at - 1], step) > 0; at--) steps[at] = steps[at - 1];
        steps[at] = step;
    }
}
