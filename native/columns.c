/* Columns that grow by a value a row, in the layout of Arrow. */
#include "columns.h"

static int put(Bytes *b, const void *data, size_t size)
{
    if (b->size + size > b->room) {
        size_t room = b->room ? b->room * 2 : 4096;
        while (room < b->size + size) room *= 2;
        char *at = PyMem_RawRealloc(b->at, room);
        if (!at) return fail(PyExc_MemoryError, "no room for a column");
        b->at = at;
        b->room = room;
    }
    if (size) memcpy(b->at + b->size, data, size); /* nothing may have no place yet */
    b->size += size;
    return 0;
}

static int put_end(Bytes *ends, size_t end)
{
    if (end > INT32_MAX) return fail(PyExc_OverflowError, "more than a block can hold");
    int32_t at = (int32_t)end;
    return put(ends, &at, sizeof at);
}

static int put_one(Texts *t, Text text)
{
    return put(&t->bytes, text.at, (size_t)text.size) || put_end(&t->ends, t->bytes.size) ? -1 : 0;
}

int column_init(Column *c, char kind)
{
    memset(c, 0, sizeof *c);
    c->kind = kind;
    return put_end(&c->texts.ends, 0) || put_end(&c->values.ends, 0) || put_end(&c->ends, 0) ? -1 : 0;
}

void column_clear(Column *c)
{
    Bytes *all[] = {&c->fixed, &c->valid, &c->ends, &c->texts.ends, &c->texts.bytes, &c->values.ends, &c->values.bytes};
    for (size_t n = 0; n < sizeof all / sizeof *all; n++) PyMem_RawFree(all[n]->at);
    memset(c, 0, sizeof *c);
}

int put_text(Column *c, Text text)
{
    c->filled |= text.size > 0;
    return put_one(&c->texts, text);
}

int put_item(Column *c, Text text) { return put_one(&c->texts, text); }

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

int put_ms(Column *c, Py_ssize_t row, int64_t ms, bool is_there)
{
    uint8_t none = 0;
    if (row % 8 == 0 && put(&c->valid, &none, 1)) return -1;
    if (is_there) c->valid.at[row / 8] |= (char)(1 << row % 8);
    c->filled |= is_there;
    return put(&c->fixed, &ms, sizeof ms);
}

int end_row(Column *c, bool filled)
{
    c->filled |= filled;
    size_t items = c->kind == 'T' || c->kind == 'X' ? c->texts.ends.size / 4 - 1 : c->fixed.size / (c->kind == 'L' ? 8 : 1);
    return put_end(&c->ends, items);
}

PyObject *column_buffers(const Column *c)
{
    char kind[2] = {c->kind, 0};
#define OF(b) (b).at ? (b).at : "", (Py_ssize_t)(b).size
    switch (c->kind) {
    case 't':
        return Py_BuildValue("(sy#y#)", kind, OF(c->texts.ends), OF(c->texts.bytes));
    case 'M':
        return Py_BuildValue("(sy#y#)", kind, OF(c->valid), OF(c->fixed));
    case 'T':
        return Py_BuildValue("(sy#y#y#)", kind, OF(c->ends), OF(c->texts.ends), OF(c->texts.bytes));
    case 'L':
    case 'b':
        return Py_BuildValue("(sy#y#)", kind, OF(c->ends), OF(c->fixed));
    case 'X':
        return Py_BuildValue(
            "(sy#y#y#y#y#)", kind, OF(c->ends), OF(c->texts.ends), OF(c->texts.bytes), OF(c->values.ends),
            OF(c->values.bytes));
    default:
        return Py_BuildValue("(sy#)", kind, OF(c->fixed));
    }
#undef OF
}
