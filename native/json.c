/* JSON by RFC 8259: no byte order mark, no NaN, no lone surrogates, at most DEPTH_MAX deep. Anything odd is a doubt. */
#include "native.h"

enum { PLAIN, QUOTE, BACKSLASH, CONTROL, WIDE };

static inline int kind_of(uint8_t byte)
{
    if (byte >= 0x80) return WIDE;
    if (byte < 0x20) return CONTROL;
    return byte == '"' ? QUOTE : byte == '\\' ? BACKSLASH : PLAIN;
}

/* The high bit of every byte that is not plain; only the first one set is to be believed. */
static inline uint64_t not_plain(uint64_t v)
{
    const uint64_t ones = 0x0101010101010101u, highs = 0x8080808080808080u;
    uint64_t quotes = v ^ (ones * '"'), slashes = v ^ (ones * '\\');
    return (((quotes - ones) & ~quotes) | ((slashes - ones) & ~slashes) | ((v - ones * 0x20) & ~v) | v) & highs;
}

static inline const uint8_t *skip_plain(const uint8_t *at, const uint8_t *end)
{
    while (end - at >= 8) {
        uint64_t v;
        memcpy(&v, at, 8);
        uint64_t odd = not_plain(v);
        if (odd) return at + (__builtin_ctzll(odd) >> 3);
        at += 8;
    }
    while (at < end && kind_of(*at) == PLAIN) at++;
    return at;
}

static int hex4(const uint8_t *at)
{
    int value = 0;
    for (int n = 0; n < 4; n++) {
        uint8_t b = at[n];
        int digit = b >= '0' && b <= '9' ? b - '0' : (b | 32) >= 'a' && (b | 32) <= 'f' ? (b | 32) - 'a' + 10 : -1;
        if (digit < 0) return -1;
        value = value << 4 | digit;
    }
    return value;
}

static inline bool is_short_escape(uint8_t byte)
{
    switch (byte) {
    case '"': case '\\': case '/': case 'b': case 'f': case 'n': case 'r': case 't':
        return true;
    default:
        return false;
    }
}

/* The bytes of the escape at `at`, 0 if it is none; a surrogate must have its other half with it. */
static int escape_size(const uint8_t *at, const uint8_t *end)
{
    if (end - at < 2) return 0;
    if (at[1] != 'u') return is_short_escape(at[1]) ? 2 : 0;
    int unit = end - at < 6 ? -1 : hex4(at + 2);
    if (unit < 0 || (unit & 0xFC00) == 0xDC00) return 0;
    if ((unit & 0xFC00) != 0xD800) return 6;
    if (end - at < 12 || at[6] != '\\' || at[7] != 'u') return 0;
    int low = hex4(at + 8);
    return low >= 0 && (low & 0xFC00) == 0xDC00 ? 12 : 0;
}

static inline bool continues(const uint8_t *at, uint8_t least, uint8_t most)
{
    return *at >= least && *at <= most;
}

/* The bytes of the character at `at` by RFC 3629, table 3-7 of Unicode; 0 if it is none. */
static int utf8_size(const uint8_t *at, const uint8_t *end)
{
    uint8_t first = *at;
    int size = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
    if (first < 0xC2 || first > 0xF4 || end - at < size) return 0;
    uint8_t least = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
    uint8_t most = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
    if (!continues(at + 1, least, most)) return 0;
    for (int n = 2; n < size; n++)
        if (!continues(at + n, 0x80, 0xBF)) return 0;
    return size;
}

/* Reads a string whose opening quote is next: UTF-8, its escapes sound. */
bool read_string(Cursor *c, Span *out)
{
    if (!take_byte(c, '"')) return false;
    out->start = c->at;
    out->escaped = out->wide = false;
    for (;;) {
        c->at = skip_plain(c->at, c->end);
        if (c->at >= c->end) return false;
        switch (kind_of(*c->at)) {
        case QUOTE:
            out->size = c->at - out->start;
            c->at++;
            return true;
        case BACKSLASH: {
            int size = escape_size(c->at, c->end);
            if (!size) return false;
            out->escaped = true;
            c->at += size;
            break;
        }
        case WIDE: {
            int size = utf8_size(c->at, c->end);
            if (!size) return false;
            out->wide = true;
            c->at += size;
            break;
        }
        default:
            return false;
        }
    }
}

static bool skip_number(Cursor *c)
{
    take_byte(c, '-');
    const uint8_t *first = c->at;
    while (c->at < c->end && *c->at >= '0' && *c->at <= '9') c->at++;
    if (c->at == first || (*first == '0' && c->at - first > 1)) return false;
    if (take_byte(c, '.')) {
        first = c->at;
        while (c->at < c->end && *c->at >= '0' && *c->at <= '9') c->at++;
        if (c->at == first) return false;
    }
    if (c->at < c->end && (*c->at | 32) == 'e') {
        c->at++;
        if (!take_byte(c, '+')) take_byte(c, '-');
        first = c->at;
        while (c->at < c->end && *c->at >= '0' && *c->at <= '9') c->at++;
        if (c->at == first) return false;
    }
    return true;
}

static bool skip_word(Cursor *c, const char *word)
{
    Py_ssize_t size = (Py_ssize_t)strlen(word);
    if (c->end - c->at < size || memcmp(c->at, word, (size_t)size)) return false;
    c->at += size;
    return true;
}

static bool skip_items(Cursor *c, int depth, bool is_object)
{
    uint8_t close = is_object ? '}' : ']';
    c->at++;
    skip_space(c);
    if (take_byte(c, close)) return true;
    for (;;) {
        Span key;
        skip_space(c);
        if (is_object) {
            if (!read_string(c, &key)) return false;
            skip_space(c);
            if (!take_byte(c, ':')) return false;
        }
        if (!skip_value(c, depth + 1)) return false;
        skip_space(c);
        if (take_byte(c, close)) return true;
        if (!take_byte(c, ',')) return false;
    }
}

/* Passes over a value of a field that we do not know; it must be sound all the same. */
bool skip_value(Cursor *c, int depth)
{
    Span skipped;
    skip_space(c);
    if (c->at >= c->end) return false;
    switch (*c->at) {
    case '"':
        return read_string(c, &skipped);
    case '{':
    case '[':
        return depth <= DEPTH_MAX && skip_items(c, depth, *c->at == '{');
    case 't':
        return skip_word(c, "true");
    case 'f':
        return skip_word(c, "false");
    case 'n':
        return skip_word(c, "null");
    default:
        return skip_number(c);
    }
}

/* A small whole number without sign, point or exponent; at most six digits. */
bool read_digits(Cursor *c, int *value)
{
    const uint8_t *first = c->at;
    *value = 0;
    while (c->at < c->end && *c->at >= '0' && *c->at <= '9' && c->at - first < 6) *value = *value * 10 + (*c->at++ - '0');
    bool ends = c->at < c->end && (*c->at == ',' || *c->at == '}' || *c->at == ' ' || *c->at == '\n' || *c->at == '\r'
                                   || *c->at == '\t');
    return c->at > first && ends && (*first != '0' || c->at - first == 1);
}

static uint8_t *put_utf8(uint8_t *to, uint32_t point)
{
    if (point < 0x80) {
        *to++ = (uint8_t)point;
    } else if (point < 0x800) {
        *to++ = (uint8_t)(0xC0 | point >> 6);
        *to++ = (uint8_t)(0x80 | (point & 0x3F));
    } else if (point < 0x10000) {
        *to++ = (uint8_t)(0xE0 | point >> 12);
        *to++ = (uint8_t)(0x80 | (point >> 6 & 0x3F));
        *to++ = (uint8_t)(0x80 | (point & 0x3F));
    } else {
        *to++ = (uint8_t)(0xF0 | point >> 18);
        *to++ = (uint8_t)(0x80 | (point >> 12 & 0x3F));
        *to++ = (uint8_t)(0x80 | (point >> 6 & 0x3F));
        *to++ = (uint8_t)(0x80 | (point & 0x3F));
    }
    return to;
}

static uint8_t *unescape(const uint8_t *at, uint8_t *to)
{
    static const char names[] = "\"\\/bfnrt", means[] = "\"\\/\b\f\n\r\t";
    if (at[1] != 'u') {
        *to++ = (uint8_t)means[strchr(names, at[1]) - names];
        return to;
    }
    uint32_t unit = (uint32_t)hex4(at + 2);
    if ((unit & 0xFC00) == 0xD800) unit = 0x10000 + ((unit & 0x3FF) << 10 | ((uint32_t)hex4(at + 8) & 0x3FF));
    return put_utf8(to, unit);
}

/* Puts what a string means at `to`, VALUE_BYTES_MAX long; returns its size. An escape is never shorter than its meaning. */
Py_ssize_t plain_bytes(const Span *span, uint8_t *to)
{
    uint8_t *first = to;
    const uint8_t *end = span->start + span->size;
    for (const uint8_t *at = span->start; at < end;) {
        if (*at == '\\') {
            to = unescape(at, to);
            at += escape_size(at, end);
        } else {
            *to++ = *at++;
        }
    }
    return to - first;
}

/* Where the first byte is that begins no character; NULL if there is none. */
const uint8_t *find_bad_utf8(const uint8_t *at, const uint8_t *end)
{
    while (at < end) {
        uint64_t word;
        if (end - at >= 8 && (memcpy(&word, at, 8), !(word & 0x8080808080808080u))) {
            at += 8;
            continue;
        }
        int size = *at < 0x80 ? 1 : utf8_size(at, end);
        if (!size) return at;
        at += size;
    }
    return NULL;
}

/* The bytes that an escape means. */
static Py_ssize_t meant_size(const uint8_t *at, int size)
{
    int unit = size == 6 ? hex4(at + 2) : 0;
    return size == 12 ? 4 : unit >= 0x800 ? 3 : unit >= 0x80 ? 2 : 1;
}

/* Where a string that was read begins to mean more than `most` bytes; its end if it does not. */
const uint8_t *end_within(const Span *span, Py_ssize_t most)
{
    const uint8_t *at = span->start, *end = at + span->size;
    while (at < end && most >= 0) {
        const uint8_t *plain = skip_plain(at, end);
        if (plain - at > most) return at + most + 1;
        most -= plain - at;
        at = plain;
        if (at == end) return end;
        int size = *at == '\\' ? escape_size(at, end) : utf8_size(at, end);
        most -= *at == '\\' ? meant_size(at, size) : size;
        at += size;
    }
    return at;
}

/* The text of a string that was read. */
PyObject *new_text(const Span *span)
{
    if (span->escaped) {
        uint8_t plain[VALUE_BYTES_MAX];
        return PyUnicode_DecodeUTF8((const char *)plain, plain_bytes(span, plain), NULL);
    }
    if (span->wide) return PyUnicode_DecodeUTF8((const char *)span->start, span->size, NULL);
    PyObject *text = PyUnicode_New(span->size, 127);
    if (text) memcpy(PyUnicode_1BYTE_DATA(text), span->start, (size_t)span->size);
    return text;
}
