/* Columns that grow by a value a row, in the layout of ClickHouse's Native format. */
#include "columns.h"

#define VARINT_MAX 10

typedef struct {
    size_t start, size;
} Key;

static int grow(Bytes *b, size_t size)
{
    size_t room = b->room ? b->room * 2 : 256;
    while (room < b->size + size) room *= 2;
    char *at = PyMem_RawRealloc(b->at, room);
    if (!at) return fail(PyExc_MemoryError, "no room for a column");
    b->at = at;
    b->room = room;
    return 0;
}

static inline int put(Bytes *b, const void *data, size_t size)
{
    if (b->size + size > b->room && grow(b, size)) return -1;
    memcpy(b->at + b->size, data, size);
    b->size += size;
    return 0;
}

static inline int put_one(Texts *t, Text text)
{
    size_t size = (size_t)text.size, rest = size;
    Bytes *b = &t->bytes;
    if (b->size + VARINT_MAX + size > b->room && grow(b, VARINT_MAX + size)) return -1;
    for (; rest > 0x7f; rest >>= 7) b->at[b->size++] = (char)(rest | 0x80);
    b->at[b->size++] = (char)rest;
    memcpy(b->at + b->size, text.at, size);
    b->size += size;
    t->count++;
    return 0;
}

static inline bool is_key(const Words *w, size_t code, Text text)
{
    Key k = ((const Key *)w->spans.at)[code];
    return k.size == (size_t)text.size && !memcmp(w->keys.bytes.at + k.start, text.at, k.size);
}

static size_t slot_for(const Words *w, Text text)
{
    size_t at = short_hash((const uint8_t *)text.at, (size_t)text.size) & (w->slots - 1);
    while (w->table[at] && !is_key(w, w->table[at] - 1u, text)) at = (at + 1) & (w->slots - 1);
    return at;
}

static int more_slots(Words *w)
{
    size_t slots = w->slots ? w->slots * 4 : 64;
    uint32_t *table = PyMem_RawCalloc(slots, sizeof *table);
    if (!table) return fail(PyExc_MemoryError, "no room for a column");
    PyMem_RawFree(w->table);
    w->table = table;
    w->slots = slots;
    for (size_t code = 0; code < w->keys.count; code++) {
        Key k = ((Key *)w->spans.at)[code];
        table[slot_for(w, (Text){w->keys.bytes.at + k.start, (Py_ssize_t)k.size})] = (uint32_t)(code + 1);
    }
    return 0;
}

/* Makes room for words that two bytes cannot number. */
static int widen(Bytes *codes)
{
    size_t count = codes->size / 2;
    uint32_t *wide = PyMem_RawMalloc(count * 8 + 4);
    if (!wide) return fail(PyExc_MemoryError, "no room for a column");
    for (size_t n = 0; n < count; n++) {
        uint16_t code;
        memcpy(&code, codes->at + 2 * n, 2);
        wide[n] = code;
    }
    PyMem_RawFree(codes->at);
    *codes = (Bytes){(char *)wide, count * 4, count * 8 + 4};
    return 0;
}

static int new_word(Words *w, Text text)
{
    if (w->keys.count == UINT32_MAX) return fail(PyExc_OverflowError, "too many words");
    if (w->keys.count * 2 >= w->slots && more_slots(w)) return -1;
    Texts before = w->keys;
    Key k = {0, (size_t)text.size};
    w->spans.size = before.count * sizeof k; /* a word that found no room may have left its span */
    if (put(&w->spans, &k, sizeof k) || put_one(&w->keys, text)) return -1;
    if (w->keys.count == NARROW_WORDS_MAX + 1 && widen(&w->codes)) {
        w->keys.count = before.count;
        w->keys.bytes.size = before.bytes.size;
        return -1;
    }
    k.start = w->keys.bytes.size - k.size;
    memcpy(w->spans.at + before.count * sizeof k, &k, sizeof k);
    w->last = (uint32_t)(w->keys.count - 1);
    w->table[slot_for(w, text)] = (uint32_t)w->keys.count;
    return 0;
}

static inline int put_word(Words *w, Text text)
{
    if (!w->keys.count || !is_key(w, w->last, text)) {
        size_t at = w->keys.count ? slot_for(w, text) : 0;
        if (w->keys.count && w->table[at]) w->last = w->table[at] - 1;
        else if (new_word(w, text)) return -1;
    }
    uint16_t narrow = (uint16_t)w->last;
    return code_size(w) == 2 ? put(&w->codes, &narrow, sizeof narrow) : put(&w->codes, &w->last, sizeof w->last);
}

void column_mark(Column *c)
{
    c->mark = (Mark){
        c->filled, c->fixed.size, c->nulls.size, c->ends.size, c->texts.bytes.size, c->texts.count, c->values.bytes.size,
        c->values.count, c->words.codes.size / code_size(&c->words),
    };
}

void column_undo(Column *c)
{
    const Mark *m = &c->mark;
    c->filled = m->filled;
    c->fixed.size = m->fixed;
    c->nulls.size = m->nulls;
    c->ends.size = m->ends;
    c->texts.bytes.size = m->texts;
    c->texts.count = m->text_count;
    c->values.bytes.size = m->values;
    c->values.count = m->value_count;
    c->words.codes.size = m->codes * code_size(&c->words);
}

void column_clear(Column *c)
{
    Bytes *all[] = {&c->fixed, &c->nulls, &c->ends, &c->texts.bytes, &c->values.bytes, &c->words.keys.bytes,
        &c->words.spans, &c->words.codes};
    for (size_t n = 0; n < sizeof all / sizeof *all; n++) PyMem_RawFree(all[n]->at);
    PyMem_RawFree(c->words.table);
    memset(c, 0, sizeof *c);
}

int put_item(Column *c, Text text)
{
    return c->kind == 'w' || c->kind == 'W' ? put_word(&c->words, text) : put_one(&c->texts, text);
}

int put_text(Column *c, Text text)
{
    c->filled |= text.size > 0;
    return put_item(c, text);
}

int put_value(Column *c, Text text) { return put_one(&c->values, text); }

int put_number(Column *c, int64_t number)
{
    size_t size = c->kind == 'B' || c->kind == 'b' ? 1 : c->kind == 'H' ? 2 : 8;
    bool is_unsigned = size < 8 || c->kind == 'Q';
    if (is_unsigned && (number < 0 || (size < 8 && number >> 8 * size)))
        return fail(PyExc_OverflowError, "a number that its column cannot hold");
    /* In lists a row counts, not what is in it. */
    c->filled |= number != 0 && c->kind != 'L' && c->kind != 'b';
    return put(&c->fixed, &number, size); /* the low bytes come first on every machine this is built for */
}

int put_ms(Column *c, int64_t ms, bool is_there)
{
    uint8_t is_null = !is_there;
    c->filled |= is_there;
    return put(&c->nulls, &is_null, 1) || put(&c->fixed, &ms, sizeof ms) ? -1 : 0;
}

int end_row(Column *c, bool filled)
{
    c->filled |= filled;
    uint64_t end = c->kind == 'T' || c->kind == 'X' ? c->texts.count : c->kind == 'W' ? c->words.codes.size / code_size(&c->words)
                                                                  : c->fixed.size / (c->kind == 'L' ? 8 : 1);
    return put(&c->ends, &end, sizeof end);
}

PyObject *column_buffers(const Column *c)
{
    char kind[2] = {c->kind, 0};
#define OF(b) (b).at ? (b).at : "", (Py_ssize_t)(b).size
    switch (c->kind) {
    case 't':
        return Py_BuildValue("(sy#)", kind, OF(c->texts.bytes));
    case 'w':
        return Py_BuildValue("(sny#y#)", kind, (Py_ssize_t)c->words.keys.count, OF(c->words.keys.bytes), OF(c->words.codes));
    case 'M':
        return Py_BuildValue("(sy#y#)", kind, OF(c->nulls), OF(c->fixed));
    case 'T':
        return Py_BuildValue("(sy#y#)", kind, OF(c->ends), OF(c->texts.bytes));
    case 'W':
        return Py_BuildValue(
            "(sy#ny#y#)", kind, OF(c->ends), (Py_ssize_t)c->words.keys.count, OF(c->words.keys.bytes), OF(c->words.codes));
    case 'L':
    case 'b':
        return Py_BuildValue("(sy#y#)", kind, OF(c->ends), OF(c->fixed));
    case 'X':
        return Py_BuildValue("(sy#y#y#)", kind, OF(c->ends), OF(c->texts.bytes), OF(c->values.bytes));
    default:
        return Py_BuildValue("(sy#)", kind, OF(c->fixed));
    }
#undef OF
}
