/* The plain ways of streams/settle.py: a send that opens its message, a receipt that joins an open one. An event that
 * is anything else goes, in its turn, to the function that is given for it. */
#include "native.h"

#define FINAL_RANK 2

enum {
    L_SEND, L_RECEIPTS, L_DEADLINE_MS, L_SETTLED_MS, L_AMENDED_MS, L_AMENDMENTS, L_SAVED, L_PLACED, L_PARTS, L_COUNT
};
enum { R_MESSAGE_ID, R_EVENT_ID, R_STATE, R_COUNT };
enum { S_MESSAGE_ID, S_OCCURRED_MS, S_COUNT };

typedef struct {
    PyObject_HEAD
    Slots lives, receipts, sends;
    PyObject *blank, *life; /* a life of which nothing is known, and its type */
} Joiner;

static PyObject *name_copy;

/* An attribute of an event in its bytes or a struct, a new reference. */
static PyObject *get(Slots *slots, PyObject *event, int n)
{
    if (Py_TYPE(event) == &EventType) return PyObject_GetAttr(event, PyTuple_GET_ITEM(slots->names, n));
    const Py_ssize_t *at = slots_of(slots, event);
    return at ? Py_NewRef(slot_get(event, at[n])) : NULL;
}

static Span event_id_of(PyObject *event) { return span_at((Event *)event, ((Event *)event)->decoder->by_kind['i']); }

/* Whether two event ids are, or may be, the same. */
static int same_event(Joiner *j, PyObject *a, PyObject *b)
{
    if (Py_TYPE(a) == &EventType && Py_TYPE(b) == &EventType) {
        Span x = event_id_of(a), y = event_id_of(b);
        return x.size == y.size && !memcmp(x.start, y.start, (size_t)x.size);
    }
    PyObject *x = get(&j->receipts, a, R_EVENT_ID), *y = x ? get(&j->receipts, b, R_EVENT_ID) : NULL;
    int same = y ? PyUnicode_Compare(x, y) == 0 : -1;
    Py_XDECREF(x);
    Py_XDECREF(y);
    return PyErr_Occurred() ? -1 : same;
}

/* Whether the receipt is new to what is known: certainly (SURE), or perhaps not (DOUBT). */
static Answer is_new(Joiner *j, PyObject *known, PyObject *receipt, Py_ssize_t receipts_max)
{
    Py_ssize_t count = PyTuple_GET_SIZE(known);
    if (count >= receipts_max) return DOUBT;
    for (Py_ssize_t n = 0; n < count; n++) {
        int same = same_event(j, PyTuple_GET_ITEM(known, n), receipt);
        if (same) return same < 0 ? FAILED : DOUBT;
    }
    return SURE;
}

static int append(PyObject *life, Py_ssize_t offset, PyObject *known, PyObject *receipt)
{
    Py_ssize_t count = PyTuple_GET_SIZE(known);
    PyObject *all = PyTuple_New(count + 1);
    if (!all) return -1;
    for (Py_ssize_t n = 0; n < count; n++) PyTuple_SET_ITEM(all, n, Py_NewRef(PyTuple_GET_ITEM(known, n)));
    PyTuple_SET_ITEM(all, count, Py_NewRef(receipt));
    /* No cycle can go through events: the collector need not look at a tuple for each message. */
    PyObject_GC_UnTrack(all);
    slot_set(life, offset, all);
    return 0;
}

static bool is_final(PyObject *state)
{
    Py_UCS4 first = PyUnicode_READ_CHAR(state, 0);
    return first != 'q' && first != 's';
}

/* Whether nothing of a message is in the store: to settle it there is nothing to take back there. */
static bool is_unsaved(PyObject *life, const Py_ssize_t *at)
{
    return slot_get(life, at[L_SAVED]) == Py_False && PyTuple_GET_SIZE(slot_get(life, at[L_PARTS])) == 0;
}

static int settle(PyObject *const *sets, PyObject *id, PyObject *life, const Py_ssize_t *at, PyObject *now_ms)
{
    PyObject *lives = sets[0], *fresh = sets[1], *dirty = sets[2], *placed = sets[3];
    slot_set(life, at[L_SETTLED_MS], Py_NewRef(now_ms));
    if (slot_get(life, at[L_PLACED]) == Py_True && PyList_Append(placed, life)) return -1;
    return PyDict_SetItem(fresh, id, life) || PyDict_DelItem(lives, id) || PySet_Discard(dirty, id) < 0 ? -1 : 0;
}

static int amend(PyObject *life, const Py_ssize_t *at, PyObject *now_ms)
{
    long amendments = PyLong_AsLong(slot_get(life, at[L_AMENDMENTS]));
    PyObject *more = amendments < 0 ? NULL : PyLong_FromLong(amendments + 1);
    if (!more) return -1;
    slot_set(life, at[L_AMENDMENTS], more);
    slot_set(life, at[L_AMENDED_MS], Py_NewRef(now_ms));
    return 0;
}

/* Joins a receipt to a life, if it is plain: settled says whether that is one of `fresh`. */
static Answer join_life(Joiner *j, PyObject *const *sets, PyObject *id, PyObject *life, PyObject *receipt, PyObject *now_ms,
    Py_ssize_t receipts_max, bool settled)
{
    const Py_ssize_t *at = slots_of(&j->lives, life);
    PyObject *known = at ? slot_get(life, at[L_RECEIPTS]) : NULL, *state = at ? get(&j->receipts, receipt, R_STATE) : NULL;
    bool ends = state && !settled && slot_get(life, at[L_SEND]) != Py_None && is_final(state);
    Answer answer = state ? DOUBT : FAILED;
    Py_XDECREF(state);
    if (answer == DOUBT && (!ends || is_unsaved(life, at))) answer = is_new(j, known, receipt, receipts_max);
    if (answer != SURE) return answer;
    if (append(life, at[L_RECEIPTS], known, receipt)) return FAILED;
    int failed = settled ? amend(life, at, now_ms) : ends ? settle(sets, id, life, at, now_ms) : PySet_Add(sets[2], id);
    return failed ? FAILED : SURE;
}

static Answer join_receipt(Joiner *j, PyObject *const *sets, PyObject *receipt, PyObject *now_ms, Py_ssize_t receipts_max,
    bool *settled)
{
    PyObject *id = get(&j->receipts, receipt, R_MESSAGE_ID), *life = id ? PyDict_GetItemWithError(sets[0], id) : NULL;
    *settled = id && !life && !PyErr_Occurred();
    if (*settled) life = PyDict_GetItemWithError(sets[1], id);
    Answer answer = PyErr_Occurred() ? FAILED : DOUBT;
    if (life && (PyObject *)Py_TYPE(life) == j->life) {
        Py_INCREF(life);
        answer = join_life(j, sets, id, life, receipt, now_ms, receipts_max, *settled);
        Py_DECREF(life);
    }
    Py_XDECREF(id);
    return answer;
}

/* receipts(events, lives, fresh, dirty, placed, now_ms, receipts_max, other) -> how many it merged, and how many of those into
 * settled messages. To `placed` go the lives it settled whose deadlines are kept track of; `other` takes an event that is not
 * plain. */
static PyObject *joiner_receipts(Joiner *j, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 8 || !PyList_Check(args[0]) || !PyDict_Check(args[1]) || !PyDict_Check(args[2]) || !PySet_Check(args[3])
        || !PyList_Check(args[4])) {
        PyErr_SetString(PyExc_TypeError, "events, lives, fresh, dirty, placed, now_ms, a limit and a function are wanted");
        return NULL;
    }
    long merged = 0, amended = 0;
    Py_ssize_t receipts_max = PyLong_AsSsize_t(args[6]);
    if (PyErr_Occurred()) return NULL;
    for (Py_ssize_t n = 0; n < PyList_GET_SIZE(args[0]); n++) {
        PyObject *pair = PyList_GET_ITEM(args[0], n), *receipt = PyTuple_GET_ITEM(pair, 0);
        bool settled;
        Answer answer = join_receipt(j, args + 1, receipt, args[5], receipts_max, &settled);
        if (answer == FAILED) return NULL;
        if (answer == SURE) {
            merged++;
            amended += settled;
            continue;
        }
        PyObject *done = PyObject_CallFunctionObjArgs(args[7], receipt, PyTuple_GET_ITEM(pair, 1), args[5], NULL);
        if (!done) return NULL;
        Py_DECREF(done);
    }
    return Py_BuildValue("(ll)", merged, amended);
}

/* ---- sends ---- */

enum {
    A_EVENTS, A_LIVES, A_FRESH, A_FLUSHING, A_HELD, A_SUSPECTS, A_DIRTY, A_YOUNG, A_NOW_MS, A_WINDOW_MS, A_LATE_MS, A_OTHER,
    A_COUNT
};

static int is_known(PyObject *const *args, PyObject *id)
{
    int known = PySet_Contains(args[A_HELD], id);
    for (int n = A_LIVES; n <= A_FLUSHING && !known; n++) known = PyDict_Contains(args[n], id);
    if (known || !PySet_GET_SIZE(args[A_SUSPECTS])) return known;
    PyObject *hash = PyLong_FromSsize_t(PyObject_Hash(id));
    known = hash ? PySet_Contains(args[A_SUSPECTS], hash) : -1;
    Py_XDECREF(hash);
    return known;
}

static int64_t number_of(PyObject *number)
{
    int64_t n = number ? PyLong_AsLongLong(number) : -1;
    Py_XDECREF(number);
    return n;
}

static int open_life(Joiner *j, PyObject *const *args, PyObject *id, PyObject *send, int64_t deadline_ms)
{
    PyObject *life = PyObject_CallMethodNoArgs(j->blank, name_copy), *deadline = PyLong_FromLongLong(deadline_ms);
    const Py_ssize_t *at = life && deadline ? slots_of(&j->lives, life) : NULL;
    int failed = !at;
    if (at) {
        slot_set(life, at[L_SEND], Py_NewRef(send));
        slot_set(life, at[L_DEADLINE_MS], Py_NewRef(deadline));
        failed = PyDict_SetItem(args[A_LIVES], id, life) || PyList_Append(args[A_YOUNG], id) || PySet_Add(args[A_DIRTY], id);
    }
    Py_XDECREF(life);
    Py_XDECREF(deadline);
    return failed ? -1 : 0;
}

static Answer join_send(Joiner *j, PyObject *const *args, PyObject *send, PyObject *entry, int64_t *earliest_ms)
{
    PyObject *id = get(&j->sends, send, S_MESSAGE_ID);
    int known = id ? is_known(args, id) : -1;
    Answer answer = known < 0 ? FAILED : DOUBT;
    if (!known) {
        int64_t occurred_ms = number_of(get(&j->sends, send, S_OCCURRED_MS));
        int64_t broker_ms = entry_ms(entry);
        int64_t now_ms = PyLong_AsLongLong(args[A_NOW_MS]), window_ms = PyLong_AsLongLong(args[A_WINDOW_MS]);
        int64_t late_ms = PyLong_AsLongLong(args[A_LATE_MS]), read_ms = broker_ms < now_ms ? broker_ms : now_ms;
        if (PyErr_Occurred()) answer = FAILED;
        else if (broker_ms - occurred_ms <= late_ms) {
            int64_t deadline_ms = (occurred_ms > read_ms ? occurred_ms : read_ms) + window_ms;
            answer = open_life(j, args, id, send, deadline_ms) ? FAILED : SURE;
            if (deadline_ms < *earliest_ms) *earliest_ms = deadline_ms;
        }
    }
    Py_XDECREF(id);
    return answer;
}

/* sends(events, lives, fresh, flushing, held, suspects, dirty, young, now_ms, window_ms, late_ms, other) -> how many it
 * opened, and the earliest of their deadlines; `other` takes a send whose message is known, whose id's hash is one of
 * `suspects`, or that comes later than late_ms. */
static PyObject *joiner_sends(Joiner *j, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != A_COUNT || !PyList_Check(args[A_EVENTS]) || !PyDict_Check(args[A_LIVES]) || !PyDict_Check(args[A_FRESH])
        || !PyDict_Check(args[A_FLUSHING]) || !PySet_Check(args[A_HELD]) || !PySet_Check(args[A_SUSPECTS])
        || !PySet_Check(args[A_DIRTY]) || !PyList_Check(args[A_YOUNG])) {
        PyErr_SetString(PyExc_TypeError, "events, six collections of ids, young ones, three times and a function are wanted");
        return NULL;
    }
    long opened = 0;
    int64_t earliest_ms = INT64_MAX;
    for (Py_ssize_t n = 0; n < PyList_GET_SIZE(args[A_EVENTS]); n++) {
        PyObject *pair = PyList_GET_ITEM(args[A_EVENTS], n);
        PyObject *send = PyTuple_GET_ITEM(pair, 0), *entry = PyTuple_GET_ITEM(pair, 1);
        Answer answer = join_send(j, args, send, entry, &earliest_ms);
        if (answer == FAILED) return NULL;
        if (answer == SURE) {
            opened++;
            continue;
        }
        PyObject *done = PyObject_CallFunctionObjArgs(args[A_OTHER], send, entry, args[A_NOW_MS], NULL);
        if (!done) return NULL;
        Py_DECREF(done);
    }
    return Py_BuildValue("(lL)", opened, (long long)earliest_ms);
}

/* ---- identities ---- */

static int put_identity(int64_t **to, PyObject *event, bool is_receipt)
{
    *(*to)++ = identity_of(event, is_receipt);
    return PyErr_Occurred() ? -1 : 0;
}

/* How many events a life has; to `to`, if it is there, go their identities. Sets an error and returns -1 when it cannot. */
static Py_ssize_t identities_of(Joiner *j, PyObject *life, int64_t **to)
{
    const Py_ssize_t *at = slots_of(&j->lives, life);
    if (!at) return -1;
    PyObject *send = slot_get(life, at[L_SEND]), *receipts = slot_get(life, at[L_RECEIPTS]);
    Py_ssize_t count = PyTuple_GET_SIZE(receipts);
    for (Py_ssize_t n = 0; to && n < count; n++)
        if (put_identity(to, PyTuple_GET_ITEM(receipts, n), true)) return -1;
    if (send == Py_None) return count;
    return to && put_identity(to, send, false) ? -1 : count + 1;
}

/* identities(lives) -> a hash of what makes each of their events the one it is, as bytes of int64. */
static PyObject *joiner_identities(Joiner *j, PyObject *lives)
{
    if (!PyList_Check(lives)) return PyErr_SetString(PyExc_TypeError, "a list of lives is wanted"), NULL;
    Py_ssize_t count = 0;
    for (Py_ssize_t n = 0; n < PyList_GET_SIZE(lives); n++) {
        Py_ssize_t more = identities_of(j, PyList_GET_ITEM(lives, n), NULL);
        if (more < 0) return NULL;
        count += more;
    }
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, count * (Py_ssize_t)sizeof(int64_t));
    int64_t *to = bytes ? (int64_t *)PyBytes_AS_STRING(bytes) : NULL;
    for (Py_ssize_t n = 0; bytes && n < PyList_GET_SIZE(lives); n++)
        if (identities_of(j, PyList_GET_ITEM(lives, n), &to) < 0) Py_CLEAR(bytes);
    return bytes;
}

/* ---- the joiner ---- */

static int init_slots(Slots *slots, PyObject *type, const char *const *names, Py_ssize_t count)
{
    PyObject *tuple = PyTuple_New(count);
    if (!tuple) return -1;
    for (Py_ssize_t n = 0; n < count; n++) PyTuple_SET_ITEM(tuple, n, PyUnicode_InternFromString(names[n]));
    int failed = slots_init(slots, type, tuple);
    Py_DECREF(tuple);
    return failed;
}

/* Joiner(blank, Send, Receipt): `blank` is a life of which nothing is known. */
static int joiner_init(Joiner *j, PyObject *args, PyObject *kwargs)
{
    static const char *const lives[] = {"send", "receipts", "deadline_ms", "settled_ms", "amended_ms", "amendments", "saved",
        "placed", "parts"};
    static const char *const receipts[] = {"message_id", "event_id", "state"}, *const sends[] = {"message_id", "occurred_ms"};
    PyObject *blank, *send, *receipt;
    if (!PyArg_ParseTuple(args, "OOO", &blank, &send, &receipt)) return -1;
    j->blank = Py_NewRef(blank);
    j->life = Py_NewRef(Py_TYPE(blank));
    return init_slots(&j->lives, j->life, lives, L_COUNT) || init_slots(&j->receipts, receipt, receipts, R_COUNT)
            || init_slots(&j->sends, send, sends, S_COUNT) || !slots_of(&j->lives, blank)
        ? -1
        : 0;
}

static void joiner_dealloc(Joiner *j)
{
    slots_clear(&j->lives);
    slots_clear(&j->receipts);
    slots_clear(&j->sends);
    Py_XDECREF(j->blank);
    Py_XDECREF(j->life);
    Py_TYPE(j)->tp_free(j);
}

static PyMethodDef joiner_methods[] = {
    {"sends", (PyCFunction)(void (*)(void))joiner_sends, METH_FASTCALL, NULL},
    {"receipts", (PyCFunction)(void (*)(void))joiner_receipts, METH_FASTCALL, NULL},
    {"identities", (PyCFunction)joiner_identities, METH_O, NULL},
    {0},
};

PyTypeObject JoinerType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "schemas._native.Joiner",
    .tp_basicsize = sizeof(Joiner),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)joiner_init,
    .tp_dealloc = (destructor)joiner_dealloc,
    .tp_methods = joiner_methods,
};

int join_setup(void)
{
    name_copy = PyUnicode_InternFromString("__copy__");
    return name_copy ? PyType_Ready(&JoinerType) : -1;
}
