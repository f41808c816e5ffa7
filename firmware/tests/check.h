/* A test is a function; the first check that fails says where and ends the program. */
#ifndef HIL_CHECK_H
#define HIL_CHECK_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

extern unsigned long checks_made, tests_run;

#define CHECK(condition)                                                                       \
    do {                                                                                       \
        checks_made++;                                                                         \
        if (!(condition)) {                                                                    \
            fprintf(stderr, "%s:%d: %s: not so: %s\n", __FILE__, __LINE__, __func__,           \
                    #condition);                                                               \
            exit(1);                                                                           \
        }                                                                                      \
    } while (0)

/* Two integers. */
#define CHECK_EQ(found, expected)                                                              \
    do {                                                                                       \
        long long found_ = (long long)(found), expected_ = (long long)(expected);              \
        checks_made++;                                                                         \
        if (found_ != expected_) {                                                             \
            fprintf(stderr, "%s:%d: %s: %s is %lld, expected %lld\n", __FILE__, __LINE__,      \
                    __func__, #found, found_, expected_);                                      \
            exit(1);                                                                           \
        }                                                                                      \
    } while (0)

#define TEST(function)                                                                         \
    do {                                                                                       \
        tests_run++;                                                                           \
        function();                                                                            \
    } while (0)

/* Say how much was checked; returns the exit status of a program whose tests all passed. */
int report(const char *name);

/* xorshift64* (Marsaglia 2003, Vigna 2016): the same numbers on every machine. */
typedef struct {
    uint64_t state;
} prng_t;

static inline uint32_t prng(prng_t *random) {
    random->state ^= random->state >> 12;
    random->state ^= random->state << 25;
    random->state ^= random->state >> 27;
    return (uint32_t)((random->state * UINT64_C(2685821657736338717)) >> 32);
}

static inline uint32_t prng_below(prng_t *random, uint32_t limit) { return prng(random) % limit; }

#endif
