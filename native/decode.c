/* Batches of log entries to events: the fast way of schemas/events.py, which says what is sound.
 *
 * One pass over the bytes finds where the fields are; the event keeps the bytes and the places. Whatever is not certain
 * to be a sound event (also: escapes in ids, duplicate keys, values over 8 KiB) is left to the Python. */
#include "native.h"

#define CACHED_SIZE_MAX 64
#define MILLENNIUM_MS 946684800000
#define FUTURE_MS_MAX 600000

/* What is known of the event being read. */
typedef struct {
    const uint8_t *data;
    uint64_t seen, filled;
    Span id, from, to, body;
    PyObject *state, *country;
    int64_t ms;
    int count, encoding;
    bool escaped, is_sms;
    Place places[FIELDS_MAX];
} Reading;

static PyObject *name_key, *name_value, *name_offset;

/* ---- fields ---- */

static int find_field(const Decoder *d, const Span *name)
{
    for (uint32_t place = hash_of(name->start, name->size);; place++) {
        int n = d->buckets[place % BUCKETS];
        if (!n) return -1;
        const Field *f = &d->fields[n - 1];
        if (f->size == name->size && !memcmp(f->name, name->start, (size_t)f->size)) return n - 1;
    }
}

/* A text that was made before, if it was: traffic repeats its accounts, networks and prices. */
PyObject *cached_text(Decoder *d, const Span *s)
{
    if (s->size > CACHED_SIZE_MAX) return new_text(s);
    PyObject **place = &d->cache[hash_of(s->start, s->size) % CACHED_MAX];
    Py_ssize_t size;
    const char *known = *place ? PyUnicode_AsUTF8AndSize(*place, &size) : NULL;
    if (known && size == s->size && !memcmp(known, s->start, (size_t)size)) return Py_NewRef(*place);
    PyObject *text = new_text(s);
    if (text && !s->escaped) Py_XSETREF(*place, Py_NewRef(text));
    return text;
}

/* ---- one value ---- */

static Answer read_texts(Cursor *c)
{
    int count = 0;
    if (!take_byte(c, '[')) return DOUBT;
    do {
        Span s;
        skip_space(c);
        /* The places inside are found again when they are wanted: no escapes then. */
        if (++count > 64 || !read_string(c, &s) || s.escaped) return DOUBT;
        skip_space(c);
    } while (take_byte(c, ','));
    return take_byte(c, ']') ? SURE : DOUBT;
}

static Answer read_map(Cursor *c)
{
    Span names[64], text;
    int count = 0;
    if (!take_byte(c, '{')) return DOUBT;
    do {
        skip_space(c);
        if (count == 64 || !read_string(c, &names[count]) || names[count].escaped) return DOUBT;
        for (int n = 0; n < count; n++)
            if (names[n].size == names[count].size && !memcmp(names[n].start, names[count].start, (size_t)names[n].size))
                return DOUBT;
        count++;
        skip_space(c);
        if (!take_byte(c, ':')) return DOUBT;
        skip_space(c);
        if (!read_string(c, &text) || text.escaped) return DOUBT;
        skip_space(c);
    } while (take_byte(c, ','));
    return take_byte(c, '}') ? SURE : DOUBT;
}

/* What a word of a choice means, borrowed; NULL without an error where it is none. */
static PyObject *meaning(Decoder *d, const Span *s, char kind)
{
    if (s->escaped) return NULL;
    PyObject *word = cached_text(d, s), *letter = word ? PyUnicode_FromOrdinal(kind) : NULL;
    PyObject *words = letter ? PyDict_GetItemWithError(d->choices, letter) : NULL;
    PyObject *meant = words ? PyDict_GetItemWithError(words, word) : NULL;
    Py_XDECREF(word);
    Py_XDECREF(letter);
    return meant;
}

static Answer read_choice(Decoder *d, Reading *r, const Span *s, char kind)
{
    PyObject *meant = meaning(d, s, kind);
    if (!meant) return PyErr_Occurred() ? FAILED : DOUBT;
    if (kind == 'S') r->state = meant;
    if (kind == 'E') r->encoding = *s->start == 'u' ? UCS2 : GSM7;
    if (kind == 'T') r->is_sms = s->size == 3 && *s->start == 's';
    return SURE;
}

static Answer sure_if(bool sound) { return sound ? SURE : DOUBT; }

static Answer read_text(Decoder *d, Reading *r, const Span *s, char kind)
{
    r->escaped |= s->escaped;
    switch (kind) {
    case 'k':
        r->id = *s;
        return sure_if(is_id(s));
    case 'i':
        return sure_if(is_id(s));
    case 't':
        return sure_if(parse_instant(s, &r->ms) && r->ms >= MILLENNIUM_MS);
    case 'f':
        r->from = *s;
        return sure_if(is_sender(s));
    case 'n':
        r->to = *s;
        return sure_if(is_number(s));
    case 'b':
        r->body = *s;
        return SURE;
    case 's':
    case 'c':
        return SURE;
    case '$':
        return sure_if(is_money(s));
    case '3':
        return sure_if(is_digits(s, 3, 3));
    case '2':
        return sure_if(is_digits(s, 2, 3));
    case 'C':
        return sure_if(is_capitals(s, 2));
    case 'U':
        return sure_if(is_capitals(s, 3));
    default:
        return read_choice(d, r, s, kind);
    }
}

/* Whether what comes next means that the field is absent: null, "", [] or {}. */
static bool take_absent(Cursor *c)
{
    Cursor look = *c;
    uint8_t open = look.at < look.end ? *look.at++ : 0, close = open == '[' ? ']' : open == '{' ? '}' : open;
    if (open == 'n') {
        if (look.end - look.at < 3 || memcmp(look.at, "ull", 3)) return false;
        look.at += 3;
    } else {
        if (open != '"' && open != '[' && open != '{') return false;
        if (open != '"') skip_space(&look);
        if (!take_byte(&look, close)) return false;
    }
    *c = look;
    return true;
}

static Answer read_field(Decoder *d, Reading *r, Cursor *c, int field)
{
    uint64_t bit = (uint64_t)1 << field;
    char kind = d->fields[field].kind;
    if (r->seen & bit) return DOUBT;
    r->seen |= bit;
    if (take_absent(c)) return sure_if(!(d->required & bit));
    const uint8_t *start = c->at, *end;
    Answer answer;
    Span s;
    if (kind == 'l' || kind == 'm') {
        answer = kind == 'l' ? read_texts(c) : read_map(c);
        end = c->at;
    } else if (kind == '#') {
        answer = sure_if(read_digits(c, &r->count) && r->count >= 1 && r->count <= 255);
        end = c->at;
    } else {
        answer = read_string(c, &s) ? read_text(d, r, &s, kind) : DOUBT;
        start++;
        end = c->at - 1;
    }
    if (answer != SURE) return answer;
    r->places[field] = (Place){(uint16_t)(start - r->data), (uint16_t)(end - start)};
    r->filled |= bit;
    return SURE;
}

/* The field that came after this one in an event before, if it does again: producers keep to an order. */
static int take_expected(const Decoder *d, Cursor *c, int before)
{
    int n = d->follows[before + 1];
    if (!n) return -1;
    const Field *f = &d->fields[n - 1];
    const uint8_t *name = c->at;
    if (c->end - name < f->size + 2 || name[0] != '"' || name[f->size + 1] != '"') return -1;
    if (memcmp(name + 1, f->name, (size_t)f->size)) return -1;
    c->at += f->size + 2;
    return n - 1;
}

/* The field whose name is next; -1 for one that is not known, -2 where there is a doubt. */
static int take_name(Decoder *d, Cursor *c, int before)
{
    Span name;
    int field = take_expected(d, c, before);
    if (field >= 0) return field;
    if (!read_string(c, &name) || name.escaped || name.wide) return -2;
    field = find_field(d, &name);
    if (field >= 0) d->follows[before + 1] = (uint8_t)(field + 1);
    return field;
}

static Answer read_object(Decoder *d, Reading *r, Cursor *c)
{
    int before = -1;
    skip_space(c);
    if (!take_byte(c, '{')) return DOUBT;
    do {
        skip_space(c);
        int field = take_name(d, c, before);
        if (field == -2) return DOUBT;
        skip_space(c);
        if (!take_byte(c, ':')) return DOUBT;
        skip_space(c);
        Answer answer = field >= 0 ? read_field(d, r, c, field) : sure_if(skip_value(c, 2));
        if (answer != SURE) return answer;
        before = field;
        skip_space(c);
    } while (take_byte(c, ','));
    if (!take_byte(c, '}')) return DOUBT;
    skip_space(c);
    return sure_if(c->at == c->end);
}

/* ---- what is derived ---- */

static inline bool has(const Decoder *d, const Reading *r, char kind)
{
    return r->filled >> d->by_kind[(int)kind] & 1;
}

/* The region of a number, NULL without an error if it has none. */
static PyObject *region_of(const Decoder *d, const Span *number)
{
    if (!is_number(number) || number->start[0] != '+') return NULL;
    const uint8_t *digits = number->start + 1;
    PyObject *there = d->region_of[(digits[0] - '0') * 100 + (digits[1] - '0') * 10 + digits[2] - '0'];
    /* States of schemas/regions.py by the count of characters, then by each digit. */
    if (there && PyList_Check(there)) there = number->size < PyList_GET_SIZE(there) ? PyList_GET_ITEM(there, number->size) : NULL;
    for (Py_ssize_t n = 3; there && PyList_Check(there) && n < number->size - 1; n++)
        there = PyList_GET_ITEM(there, digits[n] - '0');
    if (there && PyUnicode_Check(there)) return Py_NewRef(there);
    PyObject *text = new_text(number), *region = text ? PyObject_CallOneArg(d->country, text) : NULL;
    Py_XDECREF(text);
    return region;
}

static Answer derive(Decoder *d, Reading *r)
{
    if (!has(d, r, 'C')) {
        r->country = region_of(d, d->far_end == 'n' ? &r->to : &r->from);
        if (!r->country && PyErr_Occurred()) return FAILED;
    }
    if (r->encoding && r->count) return SURE;
    uint8_t plain[VALUE_BYTES_MAX];
    const uint8_t *body = r->body.escaped ? plain : r->body.start;
    Py_ssize_t size = r->body.escaped ? plain_bytes(&r->body, plain) : r->body.size;
    int segments = measure(body, size, r->encoding, r->is_sms, &r->encoding);
    if (!r->count) r->count = segments;
    return sure_if(segments <= 255);
}

/* ---- one entry ---- */

/* An entry's key and value, and what keeps them. */
typedef struct {
    Span key, value;
    PyObject *held;
    int64_t offset;
} Raw;

static Answer reach_bytes(PyObject *entry, PyObject *name, Span *out, PyObject **held)
{
    *held = PyObject_GetAttr(entry, name);
    if (!*held) return FAILED;
    if (!PyBytes_CheckExact(*held)) return DOUBT;
    *out = (Span){(const uint8_t *)PyBytes_AS_STRING(*held), PyBytes_GET_SIZE(*held), false, true};
    return SURE;
}

static Answer reach_entry(PyObject *entry, Raw *raw, PyObject **key)
{
    if (Py_TYPE(entry) == &RecordType) {
        Record *r = (Record *)entry;
        *raw = (Raw){r->key, r->value, Py_NewRef(r->data), r->offset};
        return sure_if(r->key.size >= 0 && r->value.size >= 0);
    }
    PyObject *offset = PyObject_GetAttr(entry, name_offset);
    raw->offset = offset ? PyLong_AsLongLong(offset) : -1;
    Py_XDECREF(offset);
    if (PyErr_Occurred()) return FAILED;
    Answer answer = reach_bytes(entry, name_key, &raw->key, key);
    return answer == SURE ? reach_bytes(entry, name_value, &raw->value, &raw->held) : answer;
}

static Answer read_event(Decoder *d, Reading *r, const Raw *raw, int64_t clock_ms)
{
    const Span *value = &raw->value;
    if (value->size > VALUE_BYTES_MAX) return DOUBT;
    r->data = value->start;
    Cursor c = {value->start, value->start + value->size};
    Answer answer = read_object(d, r, &c);
    if (answer != SURE) return answer;
    if ((r->filled & d->required) != d->required || r->ms > clock_ms + FUTURE_MS_MAX) return DOUBT;
    if (r->id.size != raw->key.size || memcmp(r->id.start, raw->key.start, (size_t)r->id.size)) return DOUBT;
    return d->far_end ? derive(d, r) : SURE;
}

static PyObject *new_event(Decoder *d, const Reading *r, const Raw *raw, PyObject *where)
{
    PyObject *id = new_text(&r->id);
    Event *e = id ? PyObject_NewVar(Event, &EventType, d->count) : NULL;
    if (!e) {
        Py_XDECREF(id);
        return NULL;
    }
    e->decoder = (Decoder *)Py_NewRef(d);
    e->held = Py_NewRef(raw->held);
    e->data = r->data;
    e->id = id;
    e->where = Py_NewRef(where);
    e->country = Py_XNewRef(r->country);
    e->state = Py_XNewRef(r->state);
    e->offset = raw->offset;
    e->ms = r->ms;
    e->segments = (uint8_t)r->count;
    e->encoding = (uint8_t)r->encoding;
    memcpy(e->places, r->places, (size_t)d->count * sizeof *e->places);
    e->identity = identity_in_bytes(e);
    if (!r->escaped) return (PyObject *)e;
    /* Its bytes are not what they say: as a struct they are. */
    PyObject *made = event_struct(e);
    Py_DECREF(e);
    return made;
}

/* The event of an entry paired with it, None where there is a doubt. */
static PyObject *decode_entry(Decoder *d, PyObject *entry, int64_t clock_ms, PyObject *where)
{
    PyObject *key = NULL, *event = NULL, *pair = NULL;
    Raw raw = {.held = NULL};
    Reading r;
    memset(&r, 0, offsetof(Reading, places) + (size_t)d->count * sizeof *r.places);
    r.is_sms = true;
    r.body.start = (const uint8_t *)"";
    Answer answer = reach_entry(entry, &raw, &key);
    if (answer == SURE) answer = read_event(d, &r, &raw, clock_ms);
    if (answer == SURE) event = new_event(d, &r, &raw, where);
    if (event) pair = PyTuple_Pack(2, event, entry);
    if (answer == DOUBT) pair = Py_NewRef(Py_None);
    Py_XDECREF(r.country);
    Py_XDECREF(event);
    Py_XDECREF(key);
    Py_XDECREF(raw.held);
    return pair;
}

/* batch(entries, clock_ms, where) -> ([(event, entry) or None], [places of None]); `where` begins each source. */
PyObject *decode_batch(Decoder *d, PyObject *const *args, Py_ssize_t nargs)
{
    int64_t clock_ms = nargs == 3 && PyUnicode_Check(args[2]) ? PyLong_AsLongLong(args[1]) : -1;
    if (clock_ms < 0) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "entries, a time in ms and a text are wanted");
        return NULL;
    }
    PyObject *entries = PySequence_Fast(args[0], "a sequence of entries is wanted"), *doubts = PyList_New(0);
    PyObject *pairs = entries && doubts ? PyList_New(PySequence_Fast_GET_SIZE(entries)) : NULL;
    for (Py_ssize_t n = 0; pairs && n < PyList_GET_SIZE(pairs); n++) {
        PyObject *pair = decode_entry(d, PySequence_Fast_GET_ITEM(entries, n), clock_ms, args[2]);
        PyObject *at = pair == Py_None ? PyLong_FromSsize_t(n) : NULL;
        if (!pair || (pair == Py_None && (!at || PyList_Append(doubts, at)))) {
            Py_XDECREF(pair);
            Py_CLEAR(pairs);
        } else {
            PyList_SET_ITEM(pairs, n, pair);
        }
        Py_XDECREF(at);
    }
    PyObject *both = pairs ? PyTuple_Pack(2, pairs, doubts) : NULL;
    Py_XDECREF(entries);
    Py_XDECREF(pairs);
    Py_XDECREF(doubts);
    return both;
}

int decode_setup(void)
{
    name_key = PyUnicode_InternFromString("key");
    name_value = PyUnicode_InternFromString("value");
    name_offset = PyUnicode_InternFromString("offset");
    return name_key && name_value && name_offset ? 0 : -1;
}
