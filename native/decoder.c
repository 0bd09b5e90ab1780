/* The decoder of one kind of event as Python makes it: what its fields are and how each is checked. */
#include "native.h"

static int add_field(Decoder *d, PyObject *row)
{
    const char *name, *kind;
    Py_ssize_t size, kind_size;
    PyObject *slot;
    int required;
    if (!PyArg_ParseTuple(row, "s#Us#p", &name, &size, &slot, &kind, &kind_size, &required)) return -1;
    if (kind_size != 1 || d->count == FIELDS_MAX) {
        PyErr_SetString(PyExc_ValueError, "a kind is one letter, and there are at most 60 fields");
        return -1;
    }
    d->fields[d->count] = (Field){name, size, *kind};
    d->by_kind[*kind & 127] = d->count;
    if (required) d->required |= (uint64_t)1 << d->count;
    PyObject *index = PyLong_FromLong(d->count);
    int failed = !index || PyDict_SetItem(d->by_slot, slot, index);
    Py_XDECREF(index);
    uint32_t place = hash_of((const uint8_t *)name, size);
    while (d->buckets[place % BUCKETS]) place++;
    d->buckets[place % BUCKETS] = (uint8_t)(++d->count);
    return failed ? -1 : 0;
}

static PyObject *slot_names(PyObject *spec)
{
    Py_ssize_t count = PyTuple_GET_SIZE(spec);
    PyObject *names = PyTuple_New(count + 2);
    if (!names) return NULL;
    for (Py_ssize_t n = 0; n < count; n++)
        PyTuple_SET_ITEM(names, n, Py_NewRef(PyTuple_GET_ITEM(PyTuple_GET_ITEM(spec, n), 1)));
    PyTuple_SET_ITEM(names, count, PyUnicode_InternFromString("occurred_ms"));
    PyTuple_SET_ITEM(names, count + 1, PyUnicode_InternFromString("source"));
    return names;
}

static int fill_regions(Decoder *d)
{
    PyObject *digits, *region;
    Py_ssize_t at = 0;
    while (PyDict_Next(d->regions, &at, &digits, &region)) {
        long n = PyLong_AsLong(digits);
        if (n < 0 || n > 999) {
            if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "regions go by three digits");
            return -1;
        }
        d->region_of[n] = region; /* held by the dict */
    }
    return 0;
}

/* Decoder(blank, spec, choices, far_end, regions, country); a spec row is (name, slot, kind, required). */
static int decoder_init(Decoder *d, PyObject *args, PyObject *kwargs)
{
    PyObject *blank, *spec, *choices, *regions, *country;
    const char *far_end;
    if (!PyArg_ParseTuple(
            args, "OO!O!sO!O", &blank, &PyTuple_Type, &spec, &PyDict_Type, &choices, &far_end, &PyDict_Type, &regions,
            &country))
        return -1;
    d->blank = Py_NewRef(blank);
    d->spec = Py_NewRef(spec);
    d->choices = Py_NewRef(choices);
    d->regions = Py_NewRef(regions);
    d->country = Py_NewRef(country);
    d->far_end = *far_end;
    d->by_slot = PyDict_New();
    if (!d->by_slot) return -1;
    for (Py_ssize_t n = 0; n < PyTuple_GET_SIZE(spec); n++)
        if (add_field(d, PyTuple_GET_ITEM(spec, n))) return -1;
    PyObject *names = slot_names(spec);
    int failed = !names || fill_regions(d) || slots_init(&d->slots, (PyObject *)Py_TYPE(blank), names);
    Py_XDECREF(names);
    /* What it cannot do is told now, not in the midst of a batch. */
    return failed || !slots_of(&d->slots, blank) ? -1 : 0;
}

static void decoder_dealloc(Decoder *d)
{
    for (int n = 0; n < CACHED_MAX; n++) Py_XDECREF(d->cache[n]);
    slots_clear(&d->slots);
    Py_XDECREF(d->blank);
    Py_XDECREF(d->spec);
    Py_XDECREF(d->choices);
    Py_XDECREF(d->regions);
    Py_XDECREF(d->country);
    Py_XDECREF(d->by_slot);
    Py_TYPE(d)->tp_free(d);
}

static PyMethodDef decoder_methods[] = {
    {"batch", (PyCFunction)(void (*)(void))decode_batch, METH_FASTCALL, NULL},
    {0},
};

PyTypeObject DecoderType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "schemas._native.Decoder",
    .tp_basicsize = sizeof(Decoder),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)decoder_init,
    .tp_dealloc = (destructor)decoder_dealloc,
    .tp_methods = decoder_methods,
};

int decoder_setup(void) { return PyType_Ready(&DecoderType); }
