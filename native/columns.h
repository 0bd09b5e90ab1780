/* Columns that grow by a value a row, in the layout of ClickHouse's Native format. */
#ifndef MDR_COLUMNS_H
#define MDR_COLUMNS_H

#include "native.h"

typedef struct {
    char *at;
    size_t size, room;
} Bytes;

typedef struct {
    const char *at;
    Py_ssize_t size;
} Text;

/* Each text with its size before it. */
typedef struct {
    Bytes bytes;
    size_t count;
} Texts;

/* Texts of a small set: each once in `keys`, and in `codes` which one it is, in two bytes while all fit, else in four. */
typedef struct {
    Texts keys;
    Bytes spans, codes;
    uint32_t *table; /* code + 1 by keyed hash */
    size_t slots;
    uint32_t last;
} Words;

#define NARROW_WORDS_MAX 65536

static inline size_t code_size(const Words *w) { return w->keys.count > NARROW_WORDS_MAX ? 4 : 2; }

/* How far a column was filled at a time. */
typedef struct {
    bool filled;
    size_t fixed, nulls, ends, texts, text_count, values, value_count, codes;
} Mark;

/* `kind`: t text, w word of a small set, B H Q unsigned of 1, 2, 8 bytes, q signed of 8, m ms, M ms or nothing; T, W, L, b
 * lists of texts, of words, of ms, of bytes; X map of texts. `ends` are those of a list's or map's rows. */
typedef struct {
    char kind;
    bool filled; /* holds more than defaults */
    Bytes fixed, nulls, ends;
    Texts texts, values;
    Words words;
    Mark mark;
} Column;

/* All of them set an error and return -1 when there is no room, else 0. A column is begun as zeros and its kind. */
void column_clear(Column *c);
/* Remembers how far a column is filled, and takes back what was put into it since. Words it learned meanwhile stay. */
void column_mark(Column *c);
void column_undo(Column *c);
int put_text(Column *c, Text text);
int put_item(Column *c, Text text);
int put_value(Column *c, Text text);
int put_number(Column *c, int64_t number);
int put_ms(Column *c, int64_t ms, bool is_there);
int end_row(Column *c, bool filled);
/* (kind, buffers...) for Python. */
PyObject *column_buffers(const Column *c);

static inline Text literal(const char *text) { return (Text){text, (Py_ssize_t)strlen(text)}; }

#endif
