/* What the parts of the extension share. Every fast way here only ever says yes: whatever it is not sure of it leaves
 * to the Python of schemas/ and streams/, which is the definition. */
#ifndef MDR_NATIVE_H
#define MDR_NATIVE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Numbers go into columns and out of record batches as they lie in memory, and runs of bytes are looked at eight at once. */
#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the compiled part needs a little-endian machine; without it everything runs, slower"
#endif

/* A function that can doubt returns one of these; FAILED means that a Python error is set. */
typedef enum { FAILED = -1, DOUBT = 0, SURE = 1 } Answer;

/* Folding lets go of Python's lock: what it seldom needs of Python it takes the lock for. Harmless where it is held. */
#define LOCKED(statement)                          \
    do {                                           \
        PyGILState_STATE lock = PyGILState_Ensure(); \
        statement;                                 \
        PyGILState_Release(lock);                  \
    } while (0)

static inline int fail(PyObject *type, const char *what)
{
    LOCKED(PyErr_SetString(type, what));
    return -1;
}

/* A run of bytes in a value that outlives it. */
typedef struct {
    const uint8_t *start;
    Py_ssize_t size;
    bool escaped;  /* has backslashes: not yet what it means */
    bool wide;     /* has bytes beyond ASCII */
} Span;

/* ---- json.c: RFC 8259, strictly ---- */
#define DEPTH_MAX 64
/* Fast ways take values up to this; so no string in them is over its own limit. */
#define VALUE_BYTES_MAX (8 << 10)

typedef struct {
    const uint8_t *at, *end;
} Cursor;

static inline void skip_space(Cursor *c)
{
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\n' || *c->at == '\t' || *c->at == '\r')) c->at++;
}

static inline bool take_byte(Cursor *c, uint8_t byte)
{
    if (c->at >= c->end || *c->at != byte) return false;
    c->at++;
    return true;
}

bool read_string(Cursor *c, Span *out);
bool skip_value(Cursor *c, int depth);
bool read_digits(Cursor *c, int *value);
Py_ssize_t plain_bytes(const Span *span, uint8_t *to);
const uint8_t *find_bad_utf8(const uint8_t *at, const uint8_t *end);
const uint8_t *end_within(const Span *span, Py_ssize_t most);
PyObject *new_text(const Span *span);

/* ---- trim.c ---- */
PyObject *trim_value(PyObject *module, PyObject *args);

/* ---- text.c: what strings may hold ---- */
bool is_id(const Span *s);
bool is_number(const Span *s);
bool is_sender(const Span *s);
bool is_money(const Span *s);
bool is_digits(const Span *s, Py_ssize_t least, Py_ssize_t most);
bool is_capitals(const Span *s, Py_ssize_t size);
bool parse_instant(const Span *s, int64_t *ms);
int64_t parse_nanos(const char *text, Py_ssize_t size);
int month_of(int64_t ms);
enum { NO_ENCODING, GSM7, UCS2 };
int measure(const uint8_t *body, Py_ssize_t size, int stated, bool sms, int *encoding);

/* ---- slots.c: fields of msgspec structs, reached by their place ---- */
typedef struct {
    PyTypeObject *type;
    Py_ssize_t *offsets;
} Shape;

#define SHAPES_MAX 8
/* The places of some fields in a struct type and in those derived from it. */
typedef struct {
    PyObject *base;
    PyObject *names; /* tuple of str */
    Shape shapes[SHAPES_MAX];
    int count;
} Slots;

int slots_init(Slots *slots, PyObject *base, PyObject *names);
void slots_clear(Slots *slots);
/* NULL with an error set when the object is of no such type. */
const Py_ssize_t *slots_of(Slots *slots, PyObject *object);

static inline PyObject *slot_get(PyObject *object, Py_ssize_t offset)
{
    return *(PyObject **)((char *)object + offset);
}

/* Takes over the reference. */
static inline void slot_set(PyObject *object, Py_ssize_t offset, PyObject *value)
{
    PyObject **place = (PyObject **)((char *)object + offset);
    PyObject *old = *place;
    *place = value;
    Py_XDECREF(old);
}

/* ---- decode.c, decoder.c, event.c ---- */
#define FIELDS_MAX 60
#define BUCKETS 256
#define CACHED_MAX 4096

/* What is where in a value; nothing if the field is absent. */
typedef struct {
    uint16_t start, size;
} Place;

typedef struct {
    const char *name; /* lives as long as the decoder's spec */
    Py_ssize_t size;
    char kind;
} Field;

typedef struct {
    PyObject_HEAD
    PyObject *spec;     /* tuple of (name, slot, kind, required) */
    PyObject *blank;    /* a struct with nothing but its defaults */
    PyObject *choices;  /* dict of kind: dict of word: what it means */
    PyObject *regions;  /* dict of the three digits after a plus: region, or states of schemas/regions.py */
    PyObject *country;  /* function of a number, where those do not tell */
    PyObject *by_slot;  /* dict of slot name: index */
    PyObject *region_of[1000];
    Slots slots;
    Field fields[FIELDS_MAX];
    int count;
    int by_kind[128];
    uint8_t buckets[BUCKETS]; /* index + 1 */
    uint8_t follows[FIELDS_MAX + 1]; /* index + 1 of what came after each, and first of all */
    uint64_t required;
    char far_end;
    PyObject *cache[CACHED_MAX];
} Decoder;

/* A sound event, left in the bytes it came in. Python sees the attributes of the struct it stands for. */
typedef struct {
    PyObject_VAR_HEAD
    Decoder *decoder;
    PyObject *held; /* the bytes that `data` is in */
    const uint8_t *data;
    PyObject *id, *where;
    PyObject *country; /* derived, or NULL */
    PyObject *state;   /* receipts: the word of schemas/states.py */
    int64_t offset, ms, identity;
    uint8_t segments, encoding;
    Place places[];
} Event;

/* Unkeyed, for tables that no text can make slow: the decoder's names, which are ours, and its direct-mapped cache. */
static inline uint32_t hash_of(const uint8_t *start, Py_ssize_t size)
{
    uint64_t h = (uint64_t)size * 0x9E3779B97F4A7C15u;
    while (size >= 8) {
        uint64_t v;
        memcpy(&v, start, 8);
        h = (h ^ v) * 0xD6E8FEB86659FD93u;
        h ^= h >> 32;
        start += 8;
        size -= 8;
    }
    uint64_t rest = 0;
    memcpy(&rest, start, (size_t)size);
    h = (h ^ rest) * 0xD6E8FEB86659FD93u;
    return (uint32_t)(h >> 32);
}

/* ---- keyed.c ---- */
/* Drawn at random once a process: who does not know it cannot choose texts that collide. */
extern uint64_t hash_key[7];

/* SipHash-1-3, as Python hashes its own strings. */
uint64_t keyed_hash(const uint8_t *text, size_t size);

/* The same promise for tables of short texts, in a third of the time. Up to 16 bytes are four words of 32 bits; their
 * multilinear sum (Lemire, Kaser: Strongly universal string hashing is fast) is the same for two texts with a chance of
 * 2^-32, whichever they are; the last steps scatter what is alike. Longer texts take SipHash. */
static inline uint64_t short_hash(const uint8_t *text, size_t size)
{
    uint64_t head = 0, tail = 0;
    if (size > 16) return keyed_hash(text, size);
    if (size >= 8) {
        memcpy(&head, text, 8);
        memcpy(&tail, text + size - 8, 8);
    } else if (size >= 4) {
        memcpy(&head, text, 4);
        memcpy(&tail, text + size - 4, 4);
    } else if (size) {
        head = text[0] | (uint64_t)text[size / 2] << 8 | (uint64_t)text[size - 1] << 16;
    }
    uint64_t h = hash_key[2] * size + (hash_key[3] + (uint32_t)head) * (hash_key[4] + (head >> 32))
        + (hash_key[5] + (uint32_t)tail) * (hash_key[6] + (tail >> 32));
    h = (h ^ h >> 32) * 0x9E3779B97F4A7C15u;
    return h ^ h >> 32;
}

PyObject *cached_text(Decoder *d, const Span *s);
PyObject *decode_batch(Decoder *d, PyObject *const *args, Py_ssize_t nargs);
PyObject *event_struct(Event *e);
PyObject *event_hashes(PyObject *module, PyObject *events);
extern PyTypeObject DecoderType, EventType, BuilderType, JoinerType;

static inline Span span_at(const Event *e, int field)
{
    Place p = e->places[field];
    return (Span){e->data + p.start, p.size, false, true};
}

/* ---- identity.c ---- */
/* An event as its decoder made it, before it says so itself. */
int64_t identity_in_bytes(const Event *e);
/* Sets an error when it cannot. */
int64_t identity_of(PyObject *event, bool is_receipt);

/* ---- log.c ---- */
/* A log entry, left in its record batch. */
typedef struct {
    PyObject_HEAD
    PyObject *data;
    int64_t offset, ms;
    Span key, value; /* of size -1: none */
    const uint8_t *headers;
} Record;

int64_t entry_ms(PyObject *entry);
extern PyTypeObject RecordType;
PyObject *log_records(PyObject *module, PyObject *args);
PyObject *log_newest(PyObject *module, PyObject *args);

#endif
