/* A value that the fast way doubts, made small before the definition reads it: what no field can hold must not cost time
 * under Python's lock. What is left of a sound object means the same to schemas/events.py, or is refused for the same. */
#include "native.h"

#define KNOWN_MAX 64
#define ENTRIES_MAX 65 /* one more than a field may have */
#define TEXT_BYTES_MAX (64 << 10) /* no field may have more */
#define NUMBER_BYTES_MAX 400
#define NAME_BYTES_MAX 256

typedef enum { SOUND, BAD_UTF8, BAD_JSON, NO_OBJECT } Verdict;

/* A field of the event, and its value as it was told last; of size 0 if it was not. */
typedef struct {
    const char *name;
    Py_ssize_t size;
    Span value;
} Known;

typedef struct {
    Known known[KNOWN_MAX], *told[KNOWN_MAX]; /* `told`: in the order of the value */
    int count, told_count;
    const uint8_t *start, *end, *wrong; /* where it is unsound */
    uint8_t *to, *plain; /* room for what is left, and for a key without its escapes */
} Trim;

/* ---- whether it is sound, and where its fields are ---- */

static bool is_name(const Known *k, const uint8_t *text, Py_ssize_t size)
{
    return k->size == size && !memcmp(k->name, text, (size_t)size);
}

static void note(Trim *t, const Span *name, Span value)
{
    uint8_t plain[NAME_BYTES_MAX];
    /* An escape has at most six bytes for one: no name of ours is so long. */
    if (name->size > NAME_BYTES_MAX) return;
    Py_ssize_t size = plain_bytes(name, plain);
    for (int n = 0; n < t->count; n++) {
        Known *k = &t->known[n];
        if (!is_name(k, plain, size)) continue;
        if (!k->value.size) t->told[t->told_count++] = k;
        k->value = value;
        return;
    }
}

static bool read_fields(Trim *t, Cursor *c)
{
    skip_space(c);
    if (take_byte(c, '}')) return true;
    do {
        Span name;
        skip_space(c);
        if (!read_string(c, &name)) return false;
        skip_space(c);
        if (!take_byte(c, ':')) return false;
        skip_space(c);
        const uint8_t *start = c->at;
        if (!skip_value(c, 2)) return false;
        note(t, &name, (Span){start, c->at - start, false, true});
        skip_space(c);
    } while (take_byte(c, ','));
    return take_byte(c, '}');
}

static Verdict judge(Trim *t)
{
    Cursor c = {t->start, t->end};
    if ((t->wrong = find_bad_utf8(t->start, t->end))) return BAD_UTF8;
    skip_space(&c);
    bool is_object = take_byte(&c, '{');
    bool is_sound = is_object ? read_fields(t, &c) : skip_value(&c, 1);
    skip_space(&c);
    t->wrong = c.at;
    if (!is_sound || c.at < t->end) return BAD_JSON;
    return is_object ? SOUND : NO_OBJECT;
}

/* ---- what is left of it ---- */

static void put_run(Trim *t, const void *start, Py_ssize_t size)
{
    memcpy(t->to, start, (size_t)size);
    t->to += size;
}

/* A string; one that is over every limit ends where it gets there. */
static void put_string(Trim *t, const Span *s)
{
    put_run(t, "\"", 1);
    put_run(t, s->start, s->size > TEXT_BYTES_MAX ? end_within(s, TEXT_BYTES_MAX) - s->start : s->size);
    put_run(t, "\"", 1);
}

/* A value in which nothing is to be kept but its kind, unless it is a string. */
static void put_plain(Trim *t, Cursor *c)
{
    const uint8_t *start = c->at;
    Span s;
    if (*start == '"') {
        read_string(c, &s);
        put_string(t, &s);
        return;
    }
    skip_value(c, 2);
    if (*start == '[' || *start == '{') put_run(t, *start == '[' ? "[]" : "{}", 2);
    else if (c->at - start > NUMBER_BYTES_MAX) put_run(t, "1e999", 5);
    else put_run(t, start, c->at - start);
}

static void put_list(Trim *t, Cursor *c)
{
    put_run(t, "[", 1);
    c->at++;
    skip_space(c);
    for (int n = 0; n < ENTRIES_MAX && *c->at != ']'; n++) {
        if (n) put_run(t, ",", 1);
        put_plain(t, c);
        skip_space(c);
        take_byte(c, ',');
        skip_space(c);
    }
    put_run(t, "]", 1);
}

/* The pairs of a map whose keys differ, each with its last value. Keys are told apart by their keyed hashes. */
typedef struct {
    uint64_t hashes[ENTRIES_MAX];
    Span names[ENTRIES_MAX];
    const uint8_t *values[ENTRIES_MAX];
    int count;
} Pairs;

static void add_pair(Trim *t, Pairs *p, const Span *name, const uint8_t *value)
{
    const uint8_t *text = name->escaped ? t->plain : name->start;
    uint64_t hash = keyed_hash(text, (size_t)(name->escaped ? plain_bytes(name, t->plain) : name->size));
    int n = 0;
    while (n < p->count && p->hashes[n] != hash) n++;
    if (n == ENTRIES_MAX) return;
    if (n == p->count) {
        p->hashes[n] = hash;
        p->names[n] = *name;
        p->count++;
    }
    p->values[n] = value;
}

static void read_map_pairs(Trim *t, Cursor *c, Pairs *p)
{
    c->at++;
    skip_space(c);
    while (*c->at != '}') {
        Span name;
        read_string(c, &name);
        skip_space(c);
        take_byte(c, ':');
        skip_space(c);
        add_pair(t, p, &name, c->at);
        skip_value(c, 2);
        skip_space(c);
        take_byte(c, ',');
        skip_space(c);
    }
}

static void put_map(Trim *t, Cursor *c)
{
    Pairs p = {.count = 0};
    read_map_pairs(t, c, &p);
    put_run(t, "{", 1);
    for (int n = 0; n < p.count; n++) {
        Cursor value = {p.values[n], c->end};
        if (n) put_run(t, ",", 1);
        put_string(t, &p.names[n]);
        put_run(t, ":", 1);
        put_plain(t, &value);
    }
    put_run(t, "}", 1);
}

static void put_fields(Trim *t)
{
    put_run(t, "{", 1);
    for (int n = 0; n < t->told_count; n++) {
        const Known *k = t->told[n];
        Cursor c = {k->value.start, k->value.start + k->value.size};
        put_run(t, n ? ",\"" : "\"", n ? 2 : 1);
        put_run(t, k->name, k->size);
        put_run(t, "\":", 2);
        if (*c.at == '[') put_list(t, &c);
        else if (*c.at == '{') put_map(t, &c);
        else put_plain(t, &c);
    }
    put_run(t, "}", 1);
}

/* ---- for Python ---- */

static int learn_names(Trim *t, PyObject *names)
{
    if (PyTuple_GET_SIZE(names) > KNOWN_MAX) return PyErr_SetString(PyExc_ValueError, "at most 64 fields"), -1;
    for (Py_ssize_t n = 0; n < PyTuple_GET_SIZE(names); n++) {
        Known *k = &t->known[t->count++];
        k->name = PyUnicode_AsUTF8AndSize(PyTuple_GET_ITEM(names, n), &k->size);
        if (!k->name) return -1;
    }
    return 0;
}

static PyObject *reason_of(const Trim *t, Verdict verdict)
{
    long long at = t->wrong - t->start;
    if (verdict == NO_OBJECT) return Py_BuildValue("(ss)", "not_an_object", "");
    const char *reason = verdict == BAD_UTF8 ? "invalid_utf8" : "invalid_json";
    PyObject *detail = verdict == BAD_UTF8 ? PyUnicode_FromFormat("byte %lld", at)
                                           : PyUnicode_FromFormat("not JSON of at most %d levels: byte %lld", DEPTH_MAX, at);
    return detail ? Py_BuildValue("(sN)", reason, detail) : NULL;
}

static PyObject *trimmed(Trim *t)
{
    size_t room = (size_t)(t->end - t->start) + 16;
    uint8_t *out = PyMem_RawMalloc(2 * room);
    if (!out) return PyErr_NoMemory();
    t->to = out;
    t->plain = out + room;
    Verdict verdict;
    Py_BEGIN_ALLOW_THREADS
    verdict = judge(t);
    if (verdict == SOUND) put_fields(t);
    Py_END_ALLOW_THREADS
    PyObject *made = verdict == SOUND ? PyBytes_FromStringAndSize((const char *)out, t->to - out) : reason_of(t, verdict);
    PyMem_RawFree(out);
    return made;
}

/* trim(value, names) -> a sound object of those fields as bytes; else (reason, detail). */
PyObject *trim_value(PyObject *module, PyObject *args)
{
    PyObject *value, *names;
    if (!PyArg_ParseTuple(args, "O!O!", &PyBytes_Type, &value, &PyTuple_Type, &names)) return NULL;
    Trim t = {.start = (const uint8_t *)PyBytes_AS_STRING(value)};
    t.end = t.start + PyBytes_GET_SIZE(value);
    return learn_names(&t, names) ? NULL : trimmed(&t);
}
