/* Columns that grow by a value a row, in the layout of Arrow. */
#ifndef MDR_COLUMNS_H
#define MDR_COLUMNS_H

#include "native.h"

typedef struct {
    char *at;
    size_t size, room;
} Bytes;

/* Arrow's utf8: where each text ends, and all of them. */
typedef struct {
    Bytes ends, bytes;
} Texts;

/* `kind`: t text, B H Q unsigned of 1, 2, 8 bytes, q signed of 8, m ms, M ms or nothing; T, L, b lists of text, of ms,
 * of bytes; X map of texts. `ends` are those of a list's or map's rows. */
typedef struct {
    char kind;
    bool filled; /* holds more than defaults */
    Bytes fixed, valid, ends;
    Texts texts, values;
} Column;

typedef struct {
    const char *at;
    Py_ssize_t size;
} Text;

/* All of them set MemoryError and return -1 when there is no room, else 0. */
int column_init(Column *c, char kind);
void column_clear(Column *c);
int put_text(Column *c, Text text);
int put_item(Column *c, Text text);
int put_value(Column *c, Text text);
int put_number(Column *c, int64_t number);
int put_ms(Column *c, Py_ssize_t row, int64_t ms, bool is_there);
int end_row(Column *c, bool filled);
/* (kind, buffers...) for Python. */
PyObject *column_buffers(const Column *c);

static inline Text literal(const char *text) { return (Text){text, (Py_ssize_t)strlen(text)}; }

#endif
