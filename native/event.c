/* An event as Python sees it: the attributes of the struct it stands for, made when they are asked for. */
#include "native.h"

static PyObject *name_id, *name_ms, *name_source, *name_state, *name_copy, *empty, *words[3];

static PyObject *source_of(const Event *e)
{
    return PyUnicode_FromFormat("%U%lld", e->where, (long long)e->offset);
}

static PyObject *texts_of(Event *e, int field)
{
    Span s = span_at(e, field);
    PyObject *list = PyList_New(0);
    Cursor c = {s.start + 1, s.start + s.size};
    do {
        Span item;
        skip_space(&c);
        read_string(&c, &item);
        PyObject *text = list ? cached_text(e->decoder, &item) : NULL;
        if (!text || PyList_Append(list, text)) Py_CLEAR(list);
        Py_XDECREF(text);
        skip_space(&c);
    } while (list && take_byte(&c, ','));
    PyObject *tuple = list ? PyList_AsTuple(list) : NULL;
    Py_XDECREF(list);
    return tuple;
}

static PyObject *map_of(Event *e, int field)
{
    Span s = span_at(e, field);
    PyObject *map = PyDict_New();
    Cursor c = {s.start + 1, s.start + s.size};
    do {
        Span name, text;
        skip_space(&c);
        read_string(&c, &name);
        skip_space(&c);
        take_byte(&c, ':');
        skip_space(&c);
        read_string(&c, &text);
        PyObject *key = map ? cached_text(e->decoder, &name) : NULL, *value = key ? new_text(&text) : NULL;
        if (!value || PyDict_SetItem(map, key, value)) Py_CLEAR(map);
        Py_XDECREF(key);
        Py_XDECREF(value);
        skip_space(&c);
    } while (map && take_byte(&c, ','));
    return map;
}

static PyObject *default_of(Event *e, int field)
{
    const Py_ssize_t *at = slots_of(&e->decoder->slots, e->decoder->blank);
    return at ? Py_NewRef(slot_get(e->decoder->blank, at[field])) : NULL;
}

/* A field's value, or its default. */
static PyObject *field_of(Event *e, int field)
{
    switch (e->decoder->fields[field].kind) {
    case 'k':
        return Py_NewRef(e->id);
    case 't':
        return Py_NewRef(empty);
    case 'S':
        return Py_NewRef(e->state);
    case '#':
        return PyLong_FromLong(e->segments);
    case 'E':
        return Py_NewRef(words[e->encoding]);
    case 'C':
        if (e->country) return Py_NewRef(e->country);
        break;
    }
    if (!e->places[field].size) return default_of(e, field);
    Span s = span_at(e, field);
    s.escaped = memchr(s.start, '\\', (size_t)s.size) != NULL;
    switch (e->decoder->fields[field].kind) {
    case 'l':
        return texts_of(e, field);
    case 'm':
        return map_of(e, field);
    case 'i':
    case 'b':
    case 's':
        return new_text(&s);
    default:
        return cached_text(e->decoder, &s);
    }
}

/* The struct it stands for. */
PyObject *event_struct(Event *e)
{
    Decoder *d = e->decoder;
    PyObject *made = PyObject_CallMethodNoArgs(d->blank, name_copy);
    const Py_ssize_t *at = made ? slots_of(&d->slots, made) : NULL;
    for (int n = 0; at && n < d->count + 2; n++) {
        PyObject *value = n < d->count ? field_of(e, n) : n == d->count ? PyLong_FromLongLong(e->ms) : source_of(e);
        if (value) slot_set(made, at[n], value);
        else at = NULL;
    }
    if (at) return made;
    Py_XDECREF(made);
    return NULL;
}

static PyObject *event_getattro(Event *e, PyObject *name)
{
    if (name == name_id) return Py_NewRef(e->id);
    if (name == name_ms) return PyLong_FromLongLong(e->ms);
    if (name == name_state && e->state) return Py_NewRef(e->state);
    if (name == name_source) return source_of(e);
    PyObject *index = PyDict_GetItemWithError(e->decoder->by_slot, name);
    if (index) return field_of(e, (int)PyLong_AsLong(index));
    return PyErr_Occurred() ? NULL : PyObject_GenericGetAttr((PyObject *)e, name);
}

static PyObject *event_as_struct(PyObject *e, PyObject *unused) { return event_struct((Event *)e); }

static void event_dealloc(Event *e)
{
    Py_DECREF(e->decoder);
    Py_DECREF(e->held);
    Py_DECREF(e->id);
    Py_DECREF(e->where);
    Py_XDECREF(e->country);
    Py_XDECREF(e->state);
    PyObject_Free(e);
}

static PyMethodDef event_methods[] = {
    {"struct", event_as_struct, METH_NOARGS, NULL},
    {0},
};

PyTypeObject EventType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "schemas._native.Event",
    .tp_basicsize = sizeof(Event),
    .tp_itemsize = sizeof(Place),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_getattro = (getattrofunc)event_getattro,
    .tp_dealloc = (destructor)event_dealloc,
    .tp_methods = event_methods,
};

/* hashes(events) -> the hashes of the message ids of (event, entry) pairs, as bytes of int64. */
PyObject *event_hashes(PyObject *module, PyObject *events)
{
    Py_ssize_t count = PyList_Check(events) ? PyList_GET_SIZE(events) : -1;
    if (count < 0) return PyErr_SetString(PyExc_TypeError, "a list of pairs is wanted"), NULL;
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, count * (Py_ssize_t)sizeof(int64_t));
    for (Py_ssize_t n = 0; bytes && n < count; n++) {
        PyObject *event = PyTuple_GET_ITEM(PyList_GET_ITEM(events, n), 0);
        PyObject *id = Py_TYPE(event) == &EventType ? Py_NewRef(((Event *)event)->id) : PyObject_GetAttr(event, name_id);
        int64_t hash = id ? PyObject_Hash(id) : -1;
        if (hash == -1) Py_CLEAR(bytes);
        else memcpy(PyBytes_AS_STRING(bytes) + n * (Py_ssize_t)sizeof hash, &hash, sizeof hash);
        Py_XDECREF(id);
    }
    return bytes;
}

int event_setup(void)
{
    name_id = PyUnicode_InternFromString("message_id");
    name_ms = PyUnicode_InternFromString("occurred_ms");
    name_source = PyUnicode_InternFromString("source");
    name_state = PyUnicode_InternFromString("state");
    name_copy = PyUnicode_InternFromString("__copy__");
    words[NO_ENCODING] = empty = PyUnicode_InternFromString("");
    words[GSM7] = PyUnicode_InternFromString("gsm7");
    words[UCS2] = PyUnicode_InternFromString("ucs2");
    return name_id && name_ms && name_source && name_state && name_copy && empty && words[GSM7] && words[UCS2]
        ? PyType_Ready(&EventType)
        : -1;
}
