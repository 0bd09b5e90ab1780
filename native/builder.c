/* The Python type that takes messages and gives the columns of their records. */
#include "fold.h"

static const char *const names_of_fields[NAMED] = {
    "event_id", "occurred_ms", "source", "provider", "mcc", "mnc", "rate", "carrier_fee", "segments", "error_code",
    "vendor_error_code", "state", "segment",
};
static const char *const names_of_columns[WORKED_OUT] = {
    "direction", "record_type", "state", "segments_delivered", "segments_failed", "mcc", "mnc", "provider", "error_code",
    "vendor_error_code", "rate_nanos", "carrier_fee_nanos", "amount_nanos", "occurred_at", "sent_at", "final_at",
    "settled_at", "amended_at", "amendments", "timeline_event_id", "timeline_state", "timeline_occurred_at",
    "timeline_segment", "timeline_error_code", "timeline_source", "version", "shard", "facts",
};

static void mark(Builder *b)
{
    for (int n = 0; n < b->block_count; n++) {
        Block *block = b->blocks[n];
        block->marked = block->rows;
        for (int c = 0; c < b->count; c++) column_mark(&block->columns[c]);
    }
}

/* Takes back the rows since the mark; of blocks begun since then nothing is left but the block. */
static void undo(Builder *b)
{
    for (int n = 0; n < b->block_count; n++) {
        Block *block = b->blocks[n];
        block->rows = block->marked;
        for (int c = 0; c < b->count; c++) column_undo(&block->columns[c]);
    }
}

/* What to make records of: `add` adds the nth, or sets an error; a row may then be left half-way. */
typedef struct {
    int (*add)(Builder *b, const void *these, Py_ssize_t n);
    const void *these;
    Py_ssize_t count;
    bool *refused;
} Batch;

/* Adds from `from` to `to` all that are not refused. How far it got. */
static Py_ssize_t add_range(Builder *b, const Batch *batch, Py_ssize_t from, Py_ssize_t to)
{
    while (from < to && (batch->refused[from] || !batch->add(b, batch->these, from))) from++;
    return from;
}

/* Adds all; what cannot be added is refused, and everything else is there all the same: so a message is added twice at most.
 * Fails when what could be added before no longer can. */
static int add_batch(Builder *b, const Batch *batch)
{
    Py_ssize_t from = 0;
    for (;;) {
        mark(b);
        Py_ssize_t to = add_range(b, batch, from, batch->count);
        if (to == batch->count) return 0;
        LOCKED(PyErr_Clear());
        undo(b);
        batch->refused[to] = true;
        if (add_range(b, batch, from, to) < to) return -1;
        from = to + 1;
    }
}

/* A list of those of `items` that were refused. */
static PyObject *refused_of(PyObject *items, const bool *refused)
{
    PyObject *list = PyList_New(0);
    for (Py_ssize_t n = 0; list && n < PyList_GET_SIZE(items); n++)
        if (refused[n] && PyList_Append(list, PyList_GET_ITEM(items, n))) Py_CLEAR(list);
    return list;
}

typedef struct {
    const Message *messages;
    int64_t shard;
    bool in_bytes;
} Outbound;

static int add_message(Builder *b, const void *these, Py_ssize_t n)
{
    const Outbound *o = these;
    const Message *m = &o->messages[n];
    return m->in_bytes == o->in_bytes ? add_outbound(b, m, o->shard) : 0;
}

/* Nobody changes a message that is being written: what is in bytes is folded without the lock. */
static int add_messages(Builder *b, const Message *messages, Py_ssize_t count, int64_t shard, bool *refused)
{
    Outbound bytes = {messages, shard, true}, structs = {messages, shard, false};
    int failed;
    Py_BEGIN_ALLOW_THREADS
    failed = add_batch(b, &(Batch){add_message, &bytes, count, refused});
    Py_END_ALLOW_THREADS
    return failed || add_batch(b, &(Batch){add_message, &structs, count, refused});
}

/* outbound(shard, lives) and inbound(shard, receives, settled_ms): adds their records; returns those it refuses. */
static PyObject *builder_outbound(Builder *b, PyObject *args)
{
    long long shard;
    PyObject *lives, *odd = NULL;
    if (!PyArg_ParseTuple(args, "LO!", &shard, &PyList_Type, &lives)) return NULL;
    Py_ssize_t count = PyList_GET_SIZE(lives);
    Message *messages = PyMem_Calloc((size_t)count + 1, sizeof *messages);
    bool *refused = PyMem_Calloc((size_t)count + 1, sizeof *refused);
    if (!messages || !refused) PyErr_NoMemory();
    for (Py_ssize_t n = 0; messages && refused && n < count; n++)
        if ((refused[n] = message_init(&messages[n], b, PyList_GET_ITEM(lives, n)) != 0)) PyErr_Clear();
    if (messages && refused && !add_messages(b, messages, count, shard, refused)) odd = refused_of(lives, refused);
    for (Py_ssize_t n = 0; messages && n < count; n++) {
        Py_XDECREF(messages[n].send);
        Py_XDECREF(messages[n].receipts);
    }
    PyMem_Free(messages);
    PyMem_Free(refused);
    return odd;
}

typedef struct {
    PyObject *receives;
    int64_t shard, settled_ms;
} Inbound;

static int add_receive(Builder *b, const void *these, Py_ssize_t n)
{
    const Inbound *i = these;
    return add_inbound(b, PyList_GET_ITEM(i->receives, n), i->shard, i->settled_ms);
}

static PyObject *builder_inbound(Builder *b, PyObject *args)
{
    long long shard, settled_ms;
    PyObject *receives, *odd = NULL;
    if (!PyArg_ParseTuple(args, "LO!L", &shard, &PyList_Type, &receives, &settled_ms)) return NULL;
    Py_ssize_t count = PyList_GET_SIZE(receives);
    bool *refused = PyMem_Calloc((size_t)count + 1, sizeof *refused);
    if (!refused) return PyErr_NoMemory();
    Inbound these = {receives, shard, settled_ms};
    if (!add_batch(b, &(Batch){add_receive, &these, count, refused})) odd = refused_of(receives, refused);
    PyMem_Free(refused);
    return odd;
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
        PyMem_RawFree(block);
    }
    b->block_last = 0;
}

/* finish() -> [(rows, {column: (kind, buffers...)})], a block a month; columns of nothing but defaults are left out. */
static PyObject *builder_finish(Builder *b, PyObject *unused)
{
    PyObject *blocks = PyList_New(0);
    for (int n = 0; blocks && n < b->block_count; n++) {
        if (!b->blocks[n]->rows) continue; /* its one message was refused */
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
    PyMem_RawFree(b->blocks);
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
