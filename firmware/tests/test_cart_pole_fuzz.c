/* The cart-pole against a hostile host and a failing board, seeded.
 *
 * What must hold whatever comes: forces given to the board are finite, inside the limits,
 * and never drive the cart further out of its travel; they are zero unless the mode is
 * ACTIVE and a token lives; time is never let past the end of that token while they are
 * on; every understood request is answered exactly once; samples are numbered without gaps.
 */
#include <math.h>
#include <string.h>

#include "check.h"
#include "fake_board.h"

static fake_t fake;
static prng_t dice = {11};
static bool stuck; /* the board refused to set the force to zero: it is known not to be safe */
static unsigned long seen_mode[3], seen_fault[WIRE_FAULT_STUCK + 1], seen_reason[10];
static unsigned long powered, held_back, streamed;

static bool one_in(uint32_t n) { return prng_below(&dice, n) == 0; }

static void check_force(fake_t *board, const float *values) {
    const cart_pole_t *cart = &board->app.cart_pole;
    float force = values[0];
    CHECK(isfinite(force));
    if (force != 0) {
        powered++;
        CHECK(fabsf(force) <= cart->setup.force_max && fabsf(force) <= board->hal.force_max);
        CHECK(fabsf(cart->position) <= cart->setup.travel || (force > 0) == (cart->position < 0));
        CHECK_EQ(board->app.core.mode, WIRE_MODE_ACTIVE);
        CHECK(board->now < board->app.core.valid_until);
    }
    board->fail_force = one_in(500) ? 1 + (int)prng_below(&dice, 3) : board->fail_force;
    stuck = force == 0 && board->fail_force != 0;
}

static void check_time(const fake_t *board, uint64_t until_us) {
    const core_t *core = &board->app.core;
    if (board->force[0] != 0 && !stuck) {
        CHECK_EQ(core->mode, WIRE_MODE_ACTIVE);
        /* Lock-step: time stands still while it waits for the host, however long. */
        CHECK(until_us <= core->valid_until ||
              (until_us == UINT64_MAX && board->hal.advance_to != NULL && !board->host_gone));
    }
    CHECK((core->fault != WIRE_FAULT_NONE) == (core->mode == WIRE_MODE_FAULT));
    seen_mode[core->mode]++;
    seen_fault[core->fault]++;
}

static void check_wait(fake_t *board, uint64_t until_us) {
    check_time(board, until_us);
    /* Only a clock of its own stops in between; in lock-step the application moves it. */
    bool early = board->hal.advance_to == NULL && one_in(3);
    board->stop_at = early ? board->now + prng_below(&dice, 1000) : UINT64_MAX - 1;
}

static void dawdle(fake_t *board) {
    const cart_pole_t *cart = &board->app.cart_pole;
    held_back += (cart->flags & WIRE_SAMPLE_FLAG_INTERLOCK) != 0;
    board->log_count = 0;
    /* A board that dawdles is not in lock-step, where time is the application's. */
    board->now += board->hal.advance_to == NULL && one_in(8) ? prng_below(&dice, 2500) : 0;
    board->fail_sample = one_in(3000);
    board->position = (float)prng_below(&dice, 1201) / 1000.0f - (one_in(2) ? 0.6f : 0.4f);
    board->position = one_in(5000) ? NAN : one_in(300) ? 0.9f : board->position * 0.9f;
}

static float number(float scale) {
    static const float odd[] = {NAN, INFINITY, -INFINITY, 1e38f, -0.0f, 1e-45f};
    if (one_in(100)) {
        return odd[prng_below(&dice, 6)];
    }
    return scale * ((float)prng_below(&dice, 2001) / 1000.0f - 1.0f);
}

static uint32_t wild(uint32_t usual) { return one_in(40) ? prng(&dice) : usual; }

static void random_request(uint16_t seq) {
    const core_t *core = &fake.app.core;
    switch (prng_below(&dice, 12)) {
    case 0: {
        wire_info_request_t info = {one_in(10) ? prng(&dice) : WIRE_SCHEMA_CRC};
        fake_send(&fake, WIRE_INFO_REQUEST, seq, &info, sizeof info);
        return;
    }
    case 1:
    case 2: {
        wire_mode_request_t mode = {wild(one_in(3) ? WIRE_MODE_CLEAR : WIRE_MODE_ACTIVE)};
        mode.mode = one_in(12) ? prng_below(&dice, 5) : mode.mode;
        fake_send(&fake, WIRE_MODE_REQUEST, seq, &mode, sizeof mode);
        return;
    }
    case 3: {
        wire_cart_pole_setup_t setup = {
            .force_max = fabsf(number(55.0f)),
            .travel = 0.2f + fabsf(number(0.3f)),
            .travel_hard = 0.6f,
            .watchdog_us = wild(1 + prng_below(&dice, 50000)),
            .tick_us = wild(100 + prng_below(&dice, 2000)),
            .stream_every = wild(1 + prng_below(&dice, 10)),
            .stuck_impulse = 0.1f,
        };
        fake_send(&fake, WIRE_CART_POLE_SETUP, seq, &setup, sizeof setup);
        return;
    }
    case 4: {
        wire_pass_t pass = {wild(core->batch - prng_below(&dice, 2))};
        fake_send(&fake, WIRE_PASS, seq, &pass, sizeof pass);
        return;
    }
    case 5: {
        wire_sample_request_t sample = {0};
        fake_send(&fake, WIRE_SAMPLE_REQUEST, seq, &sample, sizeof sample);
        return;
    }
    case 6: {
        wire_state_request_t state = {0};
        fake_send(&fake, WIRE_STATE_REQUEST, seq, &state, sizeof state);
        return;
    }
    default: {
        wire_drive_t drive = {
            .valid_until_us = fake.now + prng_below(&dice, 40000) - (one_in(9) ? 10000 : 0),
            .token = wild(core->token + prng_below(&dice, 4)),
            .force = number(20.0f),
        };
        fake_send(&fake, WIRE_DRIVE, seq, &drive, sizeof drive);
        return;
    }
    }
}

/* Look at the answers since `before`; returns how many requests they answer. */
static unsigned answers(unsigned before, uint16_t seq, uint32_t *sample) {
    unsigned count = 0;
    for (unsigned i = before; i < fake.reply_count; i++) {
        const reply_t *reply = &fake.replies[i % FAKE_REPLIES];
        if (reply->type == WIRE_SAMPLE && reply->seq == 0) {
            CHECK_EQ(reply->sample.sample, ++*sample);
            CHECK(isfinite(reply->sample.angle) && isfinite(reply->sample.position));
            streamed++;
        } else {
            CHECK_EQ(reply->seq, seq);
            count++;
        }
        if (reply->type == WIRE_REFUSED) {
            seen_reason[reply->refused.reason]++;
        }
    }
    return count;
}

static void whatever_comes(bool lock_step) {
    uint32_t sample = 0;
    fake_start_cart_pole(&fake, 5, lock_step);
    fake.on_force = check_force;
    fake.on_wait = check_wait;
    fake.on_call = NULL;
    stuck = false;
    for (unsigned round = 0; round < 60000; round++) {
        uint16_t seq = (uint16_t)(1 + round % 65535);
        unsigned before = fake.reply_count;
        uint32_t frames = fake.app.core.frames;
        dawdle(&fake);
        fake.host_gone = one_in(20);
        random_request(seq);
        unsigned turns = 0;
        do {
            CHECK(++turns < 20000); /* no request waits longer than a period of samples */
            app_poll(&fake.app);
            CHECK(fake.reply_count - before < FAKE_REPLIES);
        } while (fake.input_at < fake.input_count);
        CHECK_EQ(answers(before, seq, &sample), fake.app.core.frames - frames);
        CHECK_EQ(fake.app.core.batch, sample);
    }
}

static void on_a_clock_of_its_own(void) { whatever_comes(false); }

static void in_lock_step(void) { whatever_comes(true); }

static void everything_was_seen(void) {
    for (unsigned mode = 0; mode < 3; mode++) {
        CHECK(seen_mode[mode] > 100);
    }
    for (unsigned fault = WIRE_FAULT_STOPPED; fault <= WIRE_FAULT_STUCK; fault++) {
        CHECK(seen_fault[fault] > 10);
    }
    static const unsigned reasons[] = {
        WIRE_REASON_SCHEMA,      WIRE_REASON_MODE,          WIRE_REASON_RANGE,
        WIRE_REASON_LIMIT,       WIRE_REASON_TOKEN_STALE,   WIRE_REASON_TOKEN_EXPIRED,
        WIRE_REASON_NOT_FINITE,
    };
    for (unsigned i = 0; i < sizeof reasons / sizeof reasons[0]; i++) {
        CHECK(seen_reason[reasons[i]] > 10);
    }
    CHECK(powered > 1000 && held_back > 100 && streamed > 1000);
}

int main(void) {
    TEST(on_a_clock_of_its_own);
    TEST(in_lock_step);
    TEST(everything_was_seen);
    return report("test_cart_pole_fuzz");
}
