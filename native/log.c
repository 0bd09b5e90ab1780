/* Record batches of the log (Kafka's message format, version 2) to entries that are left where they are. Whatever is not
 * as the format has it is left to the client library, which says what is wrong. */
#include "native.h"
#include <structmember.h>

/* What a batch says for all of its records. */
typedef struct {
    int64_t base_offset, base_ms, fixed_ms; /* `fixed_ms` is the broker's time for all of them, or -1 */
} Common;

static bool take_varint(Cursor *c, int64_t *out)
{
    uint64_t bits = 0;
    for (int shift = 0; shift < 64 && c->at < c->end; shift += 7) {
        uint8_t byte = *c->at++;
        bits |= (uint64_t)(byte & 0x7F) << shift;
        if (byte < 0x80) {
            *out = (int64_t)(bits >> 1) ^ -(int64_t)(bits & 1);
            return true;
        }
    }
    return false;
}

/* Bytes with their count before them; -1 is no bytes at all. */
static bool take_bytes(Cursor *c, Span *out)
{
    int64_t size;
    if (!take_varint(c, &size) || size < -1 || size > c->end - c->at) return false;
    *out = (Span){c->at, (Py_ssize_t)size, false, true};
    c->at += size < 0 ? 0 : size;
    return true;
}

static bool skip_headers(Cursor *c)
{
    int64_t count;
    Span name, value;
    if (!take_varint(c, &count) || count < 0) return false;
    while (count--)
        if (!take_bytes(c, &name) || name.size < 0 || !take_bytes(c, &value)) return false;
    return true;
}

/* Record => Length Attributes TimestampDelta OffsetDelta Key Value [Headers] */
static bool read_record(Cursor *c, Record *r, const Common *batch)
{
    int64_t size, ms, offset;
    if (!take_varint(c, &size) || size < 1 || size > c->end - c->at) return false;
    Cursor in = {c->at + 1, c->at + size};
    if (!take_varint(&in, &ms) || !take_varint(&in, &offset) || !take_bytes(&in, &r->key) || !take_bytes(&in, &r->value))
        return false;
    r->headers = in.at;
    r->offset = batch->base_offset + offset;
    r->ms = batch->fixed_ms < 0 ? batch->base_ms + ms : batch->fixed_ms;
    c->at = in.end;
    return skip_headers(&in) && in.at == in.end;
}

static PyObject *new_record(PyObject *data, Cursor *c, const Common *batch)
{
    Record *r = PyObject_New(Record, &RecordType);
    if (!r) return NULL;
    r->data = NULL;
    if (!read_record(c, r, batch)) {
        Py_DECREF(r);
        return Py_NewRef(Py_None);
    }
    r->data = Py_NewRef(data);
    return (PyObject *)r;
}

/* records(data, count, base_offset, base_ms, fixed_ms) -> [record], or None where there is a doubt. They keep `data`, which is
 * those of one batch and nothing else; `fixed_ms` is -1 where each has its own time. */
PyObject *log_records(PyObject *module, PyObject *args)
{
    PyObject *data;
    Py_ssize_t count;
    Common batch;
    if (!PyArg_ParseTuple(args, "SnLLL", &data, &count, &batch.base_offset, &batch.base_ms, &batch.fixed_ms)) return NULL;
    const uint8_t *start = (const uint8_t *)PyBytes_AS_STRING(data);
    Py_ssize_t size = PyBytes_GET_SIZE(data);
    /* No record is shorter than seven bytes. */
    if (count < 0 || count > size / 7) Py_RETURN_NONE;
    Cursor c = {start, start + size};
    PyObject *records = PyList_New(count);
    for (Py_ssize_t n = 0; records && n < count; n++) {
        PyObject *record = new_record(data, &c, &batch);
        if (record && record != Py_None) {
            PyList_SET_ITEM(records, n, record);
            continue;
        }
        Py_DECREF(records);
        return record;
    }
    if (records && c.at != c.end) Py_SETREF(records, Py_NewRef(Py_None));
    return records;
}

/* ---- one record ---- */

/* An entry's time by the broker in ms; -1 with an error set where it has none. */
int64_t entry_ms(PyObject *entry)
{
    if (Py_TYPE(entry) == &RecordType) return ((Record *)entry)->ms;
    PyObject *number = PyObject_GetAttrString(entry, "timestamp");
    int64_t ms = number ? PyLong_AsLongLong(number) : -1;
    Py_XDECREF(number);
    return ms;
}

/* newest(entries, limit_ms) -> the newest of their times by the broker that is not over a limit, or 0. */
PyObject *log_newest(PyObject *module, PyObject *args)
{
    PyObject *given, *entries;
    long long limit_ms, newest_ms = 0;
    if (!PyArg_ParseTuple(args, "OL", &given, &limit_ms)) return NULL;
    if (!(entries = PySequence_Fast(given, "a sequence of entries is wanted"))) return NULL;
    for (Py_ssize_t n = 0; n < PySequence_Fast_GET_SIZE(entries) && !PyErr_Occurred(); n++) {
        long long ms = entry_ms(PySequence_Fast_GET_ITEM(entries, n));
        if (ms > newest_ms && ms <= limit_ms) newest_ms = ms;
    }
    Py_DECREF(entries);
    return PyErr_Occurred() ? NULL : PyLong_FromLongLong(newest_ms);
}

static PyObject *bytes_or_none(const Span *s)
{
    return s->size < 0 ? Py_NewRef(Py_None) : PyBytes_FromStringAndSize((const char *)s->start, s->size);
}

static PyObject *record_key(Record *r, void *unused) { return bytes_or_none(&r->key); }

static PyObject *record_value(Record *r, void *unused) { return bytes_or_none(&r->value); }

static PyObject *record_headers(Record *r, void *unused)
{
    const char *data = PyBytes_AS_STRING(r->data);
    Cursor c = {r->headers, (const uint8_t *)data + PyBytes_GET_SIZE(r->data)};
    int64_t count = 0;
    Span name, value;
    PyObject *headers = PyList_New(0);
    take_varint(&c, &count);
    while (headers && count--) {
        take_bytes(&c, &name);
        take_bytes(&c, &value);
        PyObject *text = PyUnicode_DecodeUTF8((const char *)name.start, name.size, "replace"), *bytes = text ? bytes_or_none(&value) : NULL;
        PyObject *pair = bytes ? PyTuple_Pack(2, text, bytes) : NULL;
        if (!pair || PyList_Append(headers, pair)) Py_CLEAR(headers);
        Py_XDECREF(text);
        Py_XDECREF(bytes);
        Py_XDECREF(pair);
    }
    return headers;
}

static void record_dealloc(Record *r)
{
    Py_XDECREF(r->data);
    PyObject_Free(r);
}

static PyGetSetDef record_getset[] = {
    {"key", (getter)record_key, NULL, NULL, NULL},
    {"value", (getter)record_value, NULL, NULL, NULL},
    {"headers", (getter)record_headers, NULL, NULL, NULL},
    {0},
};

static PyMemberDef record_members[] = {
    {"offset", T_LONGLONG, offsetof(Record, offset), READONLY, NULL},
    {"timestamp", T_LONGLONG, offsetof(Record, ms), READONLY, NULL},
    {0},
};

PyTypeObject RecordType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "schemas._native.Record",
    .tp_basicsize = sizeof(Record),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_dealloc = (destructor)record_dealloc,
    .tp_getset = record_getset,
    .tp_members = record_members,
};

int log_setup(void) { return PyType_Ready(&RecordType); }
