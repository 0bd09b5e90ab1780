/* What strings may hold: ids, numbers, senders, money, instants (schemas/numbers.py, money.py, times.py) and how many
 * segments a body takes (schemas/text.py). Spans with escapes or bytes beyond ASCII are doubted. */
#include "native.h"

static inline bool is_digit(uint8_t b) { return b >= '0' && b <= '9'; }
static inline bool is_odd(const Span *s) { return s->escaped || s->wide; }

static bool all_digits(const uint8_t *at, Py_ssize_t size)
{
    for (Py_ssize_t n = 0; n < size; n++)
        if (!is_digit(at[n])) return false;
    return true;
}

bool is_id(const Span *s)
{
    if (is_odd(s) || s->size < 1 || s->size > 128) return false;
    return !memchr(s->start, 0x7F, (size_t)s->size);
}

bool is_number(const Span *s)
{
    if (is_odd(s) || s->size < 3) return false;
    if (s->start[0] != '+') return s->size <= 8 && all_digits(s->start, s->size);
    if (s->size < 8 || s->size > 16 || s->start[1] == '0') return false;
    return all_digits(s->start + 1, s->size - 1);
}

bool is_sender(const Span *s)
{
    if (is_number(s)) return true;
    if (is_odd(s) || s->size < 1 || s->size > 11) return false;
    bool letter = false;
    for (Py_ssize_t n = 0; n < s->size; n++) {
        uint8_t b = s->start[n];
        /* The GSM 7-bit alphabet has all of printable ASCII but the backtick. */
        if (b == '`' || b < 0x20 || b > 0x7E) return false;
        letter |= (b | 32) >= 'a' && (b | 32) <= 'z';
    }
    return letter;
}

bool is_digits(const Span *s, Py_ssize_t least, Py_ssize_t most)
{
    return !is_odd(s) && s->size >= least && s->size <= most && all_digits(s->start, s->size);
}

bool is_capitals(const Span *s, Py_ssize_t size)
{
    if (is_odd(s) || s->size != size) return false;
    for (Py_ssize_t n = 0; n < size; n++)
        if (s->start[n] < 'A' || s->start[n] > 'Z') return false;
    return true;
}

/* Nanos of a decimal string, "" is 0; -1 if it is none or has digits that count after the ninth decimal. */
int64_t parse_nanos(const char *text, Py_ssize_t size)
{
    if (!size) return 0;
    int64_t nanos = 0;
    Py_ssize_t at = 0;
    while (at < size && at < 8 && is_digit((uint8_t)text[at])) nanos = nanos * 10 + (text[at++] - '0');
    if (at < 1 || at > 7) return -1;
    Py_ssize_t decimals = 0;
    if (at < size) {
        if (text[at++] != '.') return -1;
        for (; at < size; at++, decimals++) {
            if (!is_digit((uint8_t)text[at]) || (decimals >= 9 && text[at] != '0')) return -1;
            if (decimals < 9) nanos = nanos * 10 + (text[at] - '0');
        }
        if (!decimals || decimals > 18) return -1;
    }
    for (; decimals < 9; decimals++) nanos *= 10;
    return nanos;
}

bool is_money(const Span *s)
{
    return !is_odd(s) && s->size >= 1 && parse_nanos((const char *)s->start, s->size) >= 0;
}

/* ---- instants ---- */

/* Days since the epoch of a date in the proleptic Gregorian calendar (Howard Hinnant's days_from_civil). */
static int64_t days_of(int year, int month, int day)
{
    int y = year - (month <= 2);
    int era = y / 400;
    int of_era = y - era * 400;
    int of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return (int64_t)era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

/* Months since the year 0 of an instant from the epoch on. */
int month_of(int64_t ms)
{
    int64_t days = ms / 86400000 + 719468;
    int64_t era = days / 146097;
    int64_t of_era = days - era * 146097;
    int64_t years = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t of_year = of_era - (365 * years + years / 4 - years / 100);
    int64_t month = (5 * of_year + 2) / 153;
    return (int)(12 * (years + era * 400) + 2 + month);
}

static int two(const uint8_t *at) { return is_digit(at[0]) && is_digit(at[1]) ? (at[0] - '0') * 10 + at[1] - '0' : -1; }

static bool read_date(const uint8_t *at, int64_t *days)
{
    static const int lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int century = two(at), years = two(at + 2), month = two(at + 5), day = two(at + 8);
    if (century < 0 || years < 0 || at[4] != '-' || at[7] != '-' || month < 1 || month > 12 || day < 1) return false;
    int year = century * 100 + years;
    bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    if (day > lengths[month - 1] + (month == 2 && leap)) return false;
    *days = days_of(year, month, day);
    return year > 0;
}

static bool read_offset(const uint8_t *at, Py_ssize_t size, int *minutes)
{
    *minutes = 0;
    if (size == 1) return (*at | 32) == 'z';
    if (size != 6 || (*at != '+' && *at != '-') || at[3] != ':') return false;
    int hour = two(at + 1), minute = two(at + 4);
    if (hour < 0 || hour > 23 || minute < 0 || minute > 59) return false;
    *minutes = (hour * 60 + minute) * (*at == '+' ? -1 : 1);
    return true;
}

/* Milliseconds since the epoch of RFC 3339 with an offset, cut, not rounded. */
bool parse_instant(const Span *s, int64_t *ms)
{
    const uint8_t *at = s->start, *end = at + s->size;
    int64_t days;
    if (is_odd(s) || s->size < 20 || !read_date(at, &days) || (at[10] | 32) != 't') return false;
    int hour = two(at + 11), minute = two(at + 14), second = two(at + 17);
    if (hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 59) return false;
    if (at[13] != ':' || at[16] != ':') return false;
    at += 19;
    int millis = 0, scale = 100;
    if (*at == '.') {
        const uint8_t *first = ++at;
        for (; at < end && is_digit(*at); at++, scale /= 10) millis += (*at - '0') * scale;
        if (at == first) return false;
    }
    int offset;
    if (!read_offset(at, end - at, &offset)) return false;
    *ms = (((days * 24 + hour) * 60 + minute + offset) * 60 + second) * 1000 + millis;
    return true;
}

/* ---- segments: 3GPP TS 23.038 and 23.040 ---- */

/* Septets of a character: 0 if GSM 7-bit lacks it, 2 if it takes an escape. */
static int septets_of(uint32_t c)
{
    static const uint8_t ascii[] = /* from NUL */
        "\0\0\0\0\0\0\0\0\0\0\1\0\2\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
        "\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1"
        "\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\2\2\2\2\1"
        "\0\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\2\2\2\2";
    if (c < 0x80) return ascii[c];
    static const uint32_t others[] = {
        0xA1, 0xA3, 0xA4, 0xA5, 0xA7, 0xBF, 0xC4, 0xC5, 0xC6, 0xC7, 0xC9, 0xD1, 0xD6, 0xD8, 0xDC, 0xDF, 0xE0, 0xE4,
        0xE5, 0xE6, 0xE8, 0xE9, 0xEC, 0xF1, 0xF2, 0xF6, 0xF8, 0xF9, 0xFC, 0x393, 0x394, 0x398, 0x39B, 0x39E, 0x3A0,
        0x3A3, 0x3A6, 0x3A8, 0x3A9,
    };
    if (c == 0x20AC) return 2;
    if (c > 0x3A9) return 0;
    for (size_t n = 0; n < sizeof others / sizeof *others; n++)
        if (others[n] == c) return 1;
    return 0;
}

/* The next character of sound UTF-8. */
static uint32_t next_point(const uint8_t **at)
{
    const uint8_t *p = *at;
    uint32_t c = *p++;
    if (c >= 0x80) {
        int more = c >= 0xF0 ? 3 : c >= 0xE0 ? 2 : 1;
        c &= 0x3Fu >> more;
        while (more--) c = c << 6 | (*p++ & 0x3F);
    }
    *at = p;
    return c;
}

static bool is_gsm7(const uint8_t *at, const uint8_t *end)
{
    while (at < end)
        if (!septets_of(next_point(&at))) return false;
    return true;
}

static int segments_of(const uint8_t *at, const uint8_t *end, bool ucs2)
{
    const int single = ucs2 ? 70 : 160, part = ucs2 ? 67 : 153;
    int segments = 1, filled = 0, total = 0;
    while (at < end) {
        uint32_t c = next_point(&at);
        int septets = ucs2 ? 0 : septets_of(c);
        int units = ucs2 ? 1 + (c > 0xFFFF) : septets ? septets : 1;
        total += units;
        /* A pair is never split: it begins the next segment. */
        if (filled + units > part) {
            segments++;
            filled = 0;
        }
        filled += units;
    }
    return total <= single ? 1 : segments;
}

/* The segments of a body, and its encoding where none is stated. */
int measure(const uint8_t *body, Py_ssize_t size, int stated, bool sms, int *encoding)
{
    const uint8_t *end = body + size;
    *encoding = stated ? stated : is_gsm7(body, end) ? GSM7 : UCS2;
    return sms ? segments_of(body, end, *encoding == UCS2) : 1;
}
