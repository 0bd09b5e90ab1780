/* Hashes of texts that producers choose, under a key drawn once a process: SipHash-1-3 by Aumasson and Bernstein. */
#include "native.h"

uint64_t hash_key[7];

static inline uint64_t turned(uint64_t x, int bits) { return x << bits | x >> (64 - bits); }

#define SIP_ROUND                                                    \
    do {                                                             \
        v0 += v1, v1 = turned(v1, 13), v1 ^= v0, v0 = turned(v0, 32); \
        v2 += v3, v3 = turned(v3, 16), v3 ^= v2;                     \
        v0 += v3, v3 = turned(v3, 21), v3 ^= v0;                     \
        v2 += v1, v1 = turned(v1, 17), v1 ^= v2, v2 = turned(v2, 32); \
    } while (0)

uint64_t keyed_hash(const uint8_t *text, size_t size)
{
    uint64_t v0 = hash_key[0] ^ 0x736f6d6570736575u, v1 = hash_key[1] ^ 0x646f72616e646f6du;
    uint64_t v2 = hash_key[0] ^ 0x6c7967656e657261u, v3 = hash_key[1] ^ 0x7465646279746573u;
    uint64_t word, last = (uint64_t)size << 56;
    for (; size >= 8; text += 8, size -= 8) {
        memcpy(&word, text, 8);
        v3 ^= word;
        SIP_ROUND;
        v0 ^= word;
    }
    word = 0;
    memcpy(&word, text, size);
    last |= word;
    v3 ^= last;
    SIP_ROUND;
    v0 ^= last;
    v2 ^= 0xff;
    SIP_ROUND;
    SIP_ROUND;
    SIP_ROUND;
    return v0 ^ v1 ^ v2 ^ v3;
}

/* Python draws the key: its `os.urandom` works the same on every system. */
int keyed_setup(void)
{
    PyObject *os = PyImport_ImportModule("os");
    PyObject *drawn = os ? PyObject_CallMethod(os, "urandom", "i", (int)sizeof hash_key) : NULL;
    int failed = !drawn || PyBytes_GET_SIZE(drawn) != (Py_ssize_t)sizeof hash_key;
    if (!failed) memcpy(hash_key, PyBytes_AS_STRING(drawn), sizeof hash_key);
    Py_XDECREF(os);
    Py_XDECREF(drawn);
    return failed ? -1 : 0;
}
