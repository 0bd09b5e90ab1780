/* What the folding of messages to records is made of: reach.c reads events, fold.c makes rows, builder.c is the Python type. */
#ifndef MDR_FOLD_H
#define MDR_FOLD_H

#include "columns.h"

#define RECEIPTS_MAX 320
#define COLUMNS_MAX 96
#define SOURCE_SIZE_MAX 320
#define VERSION_RANK_SHIFT 32
#define FINAL_RANK 2
#define DELIVERED_RANK 3

/* Fields of a message or receipt that are asked for by name; columns that a message gives as they are follow. */
enum {
    EVENT_ID, OCCURRED_MS, SOURCE, PROVIDER, MCC, MNC, RATE, FEE, SEGMENTS, ERROR_CODE, VENDOR_ERROR_CODE, STATE, SEGMENT,
    NAMED
};
enum { EXTRAS = 6, OWN = 5 };

enum {
    DIRECTION, RECORD_TYPE, RECORD_STATE, DELIVERED, FAILED_PARTS, C_MCC, C_MNC, C_PROVIDER, C_ERROR, C_VENDOR_ERROR,
    RATE_NANOS, FEE_NANOS, AMOUNT, OCCURRED_AT, SENT_AT, FINAL_AT, SETTLED_AT, AMENDED_AT, AMENDMENTS, T_EVENT_ID, T_STATE,
    T_OCCURRED_AT, T_SEGMENT, T_ERROR, T_SOURCE, VERSION, SHARD, FACTS, WORKED_OUT
};

typedef struct {
    int month;
    Py_ssize_t rows, marked; /* how many rows there were at the mark */
    Column columns[COLUMNS_MAX];
} Block;

/* How the fields of one kind of event are reached: by slots where it is a struct, by places where it is bytes. */
typedef struct {
    Slots slots;
    PyObject *names;
    Decoder *decoder; /* whose places `field_of` are; borrowed */
    int8_t field_of[COLUMNS_MAX];
} Access;

typedef struct {
    PyObject_HEAD
    PyObject *names; /* of the columns */
    char kinds[COLUMNS_MAX];
    int count, places[WORKED_OUT];
    int said[COLUMNS_MAX], said_count; /* columns that a message gives as they are */
    Access sends, receives, receipts;
    Slots lives;
    Block **blocks;
    int block_count, block_room, block_last; /* the one that the row before went into */
} Builder;

/* An event and how to reach into it. */
typedef struct {
    PyObject *object;
    Event *event; /* NULL for a struct */
    const Py_ssize_t *slots;
    const int8_t *field_of;
} Ref;

/* A settled message; `times` are settled, amended, amendments. */
typedef struct {
    PyObject *send, *receipts;
    int64_t times[3];
    bool in_bytes;
} Message;

typedef struct {
    Ref ref;
    int rank, segment;
    int64_t ms;
    Text id, state, error;
} Step;

/* ---- reach.c; all that can fail return -1 with an error set, else 0 ---- */
int ref_init(Ref *r, Access *a, PyObject *object);
int text_of(PyObject *object, Text *out);
int get_text(const Ref *r, int name, Text *out);
int get_number(const Ref *r, int name, int64_t *out);
int get_source(const Ref *r, char *buffer, Text *out);
int rank_of(Text state);
int compare_texts(Text a, Text b);
int by_strength(const Step *a, const Step *b);
int by_time(const Step *a, const Step *b);
void sort_steps(const Step **steps, int count, int (*order)(const Step *, const Step *));

/* ---- fold.c ---- */
/* Needs Python's lock. */
int message_init(Message *m, Builder *b, PyObject *life);
/* Does not need it for a message that is all in bytes. */
int add_outbound(Builder *b, const Message *m, int64_t shard);
int add_inbound(Builder *b, PyObject *receive, int64_t shard, int64_t settled_ms);

#endif
