/* Record batches of the log (Kafka's message format, version 2) to entries that are left where they are. Reading ends
 * before the first that is not as the format has it: streams/record_batches.py is the definition, and goes on there. */
#include "native.h"
#include <structmember.h>

/* Larger entries and those of more headers are read in Python, which keeps what a dead letter can hold of them. */
#define RECORD_BYTES_MAX (4 << 20)
#define HEADERS_MAX 10000

/* What a batch says for all of its records, and the offset (from the first) that was read last. */
typedef struct {
    long long base_offset, base_ms, last, after;
    int is_fixed; /* all have `base_ms` */
    int is_dense; /* none is missing: the next has the next offset, whatever it says */
} Common;

/* As Java adds: beyond 63 bits it goes on at the other end. */
static int64_t wrapped_sum(int64_t a, int64_t b)
{
    return (int64_t)((uint64_t)a + (uint64_t)b);
}

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

/* Bytes with their count before them; below zero is no bytes at all. */
static bool take_bytes(Cursor *c, Span *out)
{
    int64_t size;
    if (!take_varint(c, &size) || size > c->end - c->at) return false;
    *out = (Span){c->at, size < 0 ? -1 : (Py_ssize_t)size, false, true};
    c->at += size < 0 ? 0 : size;
    return true;
}

static bool skip_headers(Cursor *c)
{
    int64_t count;
    Span name, value;
    if (!take_varint(c, &count) || count < 0 || count > HEADERS_MAX) return false;
    while (count--)
        if (!take_bytes(c, &name) || name.size < 0 || !take_bytes(c, &value)) return false;
    return true;
}

/* Record => Length Attributes TimestampDelta OffsetDelta Key Value [Headers]; moves on only where all of it is sound. */
static bool read_record(Cursor *c, Record *r, Common *batch)
{
    int64_t size, ms, delta;
    Cursor in = *c;
    if (!take_varint(&in, &size) || size < 1 || size > RECORD_BYTES_MAX || size > in.end - in.at) return false;
    in.end = in.at + size;
    in.at++;
    if (!take_varint(&in, &ms) || !take_varint(&in, &delta) || !take_bytes(&in, &r->key) || !take_bytes(&in, &r->value))
        return false;
    if (batch->is_dense) delta = batch->after + 1;
    if (delta <= batch->after || delta > batch->last) return false;
    r->headers = in.at;
    if (!skip_headers(&in) || in.at != in.end) return false;
    r->offset = wrapped_sum(batch->base_offset, delta);
    r->ms = batch->is_fixed ? batch->base_ms : wrapped_sum(batch->base_ms, ms);
    batch->after = delta;
    c->at = in.end;
    return true;
}

static PyObject *new_record(PyObject *data, Cursor *c, Common *batch)
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

/* records(data, at, most, (base_offset, base_ms, is_fixed, last, is_dense), after) -> ([record], at): as
 * `records` of streams/record_batches.py. They keep `data`. */
PyObject *log_records(PyObject *module, PyObject *args)
{
    PyObject *data;
    Py_ssize_t at, most;
    Common batch;
    if (!PyArg_ParseTuple(
            args, "Snn(LLpLp)L", &data, &at, &most, &batch.base_offset, &batch.base_ms, &batch.is_fixed, &batch.last,
            &batch.is_dense, &batch.after))
        return NULL;
    const uint8_t *start = (const uint8_t *)PyBytes_AS_STRING(data);
    Py_ssize_t size = PyBytes_GET_SIZE(data);
    Cursor c = {start + (at < 0 || at > size ? size : at), start + size};
    /* No record is shorter than seven bytes. */
    Py_ssize_t count = 0, room = (c.end - c.at) / 7;
    if (most > room) most = room;
    PyObject *records = PyList_New(most < 0 ? 0 : most), *record = records;
    while (records && count < most && (record = new_record(data, &c, &batch)) && record != Py_None)
        PyList_SET_ITEM(records, count++, record);
    if (record == Py_None) Py_DECREF(record);
    if (!records || !record || (count < most && PyList_SetSlice(records, count, most, NULL))) {
        Py_XDECREF(records);
        return NULL;
    }
    return Py_BuildValue("Nn", records, (Py_ssize_t)(c.at - start));
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
    Span name = {0}, value = {0};
    PyObject *headers = PyList_New(0);
    take_varint(&c, &count);
    while (headers && count--) {
        take_bytes(&c, &name);
        take_bytes(&c, &value);
        PyObject *text = PyUnicode_DecodeUTF8((const char *)name.start, name.size, "surrogateescape"), *bytes = text ? bytes_or_none(&value) : NULL;
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
