/* A cart-pole: looks at its encoders every tick, drives the cart, streams samples.
 *
 * The force is what the host commanded, as long as its token lives and the cart is inside
 * its travel. Under a clock that only the application moves (lock-step) every sample waits
 * for the host's answer: a Drive, or a Pass.
 */
#ifndef HIL_CART_POLE_H
#define HIL_CART_POLE_H

#include "core.h"

#define CART_POLE_TICK_MAX_US 1000000u
#define CART_POLE_STREAM_MAX 10000u

/* What has acted since a reading last changed. */
typedef struct {
    float reading;
    double force;   /* that was on when it changed, N */
    double impulse; /* of the force's distance from that since then, N us */
} stillness_t;

typedef struct {
    core_t *core;
    wire_cart_pole_setup_t setup;
    bool set_up;
    bool armed;           /* a token has been taken: when it ends, so does the force */
    bool held;            /* the newest sample has not been answered; counts in lock-step */
    uint64_t due;         /* device time of the next tick, us */
    uint32_t to_stream;   /* ticks from the next one to the one that is streamed */
    uint64_t looked;      /* device time of the newest reading, us */
    float angle;          /* newest reading, rad */
    float position;       /* m */
    stillness_t still[2]; /* of angle and position */
    float asked;          /* what the host commanded, N */
    float commanded;      /* what the output was set to, N */
    float applied;        /* what it became, N */
    uint16_t flags;       /* WIRE_SAMPLE_FLAG bits */
    wire_sample_t sample; /* newest one streamed */
    wire_driven_t driven; /* answer to the newest Drive */
} cart_pole_t;

#endif
