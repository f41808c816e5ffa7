/* The whole application against a hostile host and a failing board, seeded.
 *
 * What must hold whatever comes: forces given to the board are finite and inside the
 * limits; they are zero unless a batch is running in ACTIVE under a token that has not run
 * out; time is never let past the end of that token while they are on; every understood
 * request is answered exactly once, and every chunk between two delimiters is counted.
 */
#include <math.h>
#include <string.h>

#include "check.h"
#include "fake_board.h"

static fake_t fake;
static prng_t dice = {5};
static bool stuck; /* the board refused to set forces to zero: it is known not to be safe */
static unsigned long seen_run[6], seen_fault[5], seen_reason[10], powered;

static bool one_in(uint32_t n) { return prng_below(&dice, n) == 0; }

static bool all_zero(const float *values) {
    for (unsigned i = 0; i < FAKE_DOF; i++) {
        if (values[i] != 0) {
            return false;
        }
    }
    return true;
}

static void check_force(fake_t *board, const float *values) {
    const core_t *core = &board->app.core;
    for (unsigned i = 0; i < FAKE_DOF; i++) {
        CHECK(isfinite(values[i]));
        CHECK(fabsf(values[i]) <= board->app.network.setup.force_max || values[i] == 0);
        CHECK(fabsf(values[i]) <= board->hal.force_max);
    }
    if (!all_zero(values)) {
        powered++;
        CHECK_EQ(core->mode, WIRE_MODE_ACTIVE);
        CHECK_EQ(core->run, WIRE_RUN_STATUS_RUNNING);
        CHECK(board->now < core->valid_until);
    }
    board->fail_force = one_in(300) ? 1 + (int)prng_below(&dice, 3) : board->fail_force;
    stuck = all_zero(values) && board->fail_force != 0;
}

static void check_stiffness(fake_t *board, const float *values) {
    const wire_setup_t *setup = &board->app.network.setup;
    CHECK_EQ(board->app.core.mode, WIRE_MODE_ACTIVE);
    for (unsigned i = 0; i < FAKE_BONDS; i++) {
        CHECK(values[i] >= setup->stiffness_low && values[i] <= setup->stiffness_high);
    }
}

static void check_wait(fake_t *board, uint64_t until_us) {
    const core_t *core = &board->app.core;
    if (!all_zero(board->force) && !stuck) {
        CHECK_EQ(core->mode, WIRE_MODE_ACTIVE);
        CHECK_EQ(core->run, WIRE_RUN_STATUS_RUNNING);
        CHECK(until_us <= core->valid_until);
    }
    CHECK((core->fault != WIRE_FAULT_NONE) == (core->mode == WIRE_MODE_FAULT));
    seen_run[core->run]++;
    seen_fault[core->fault]++;
    board->stop_at = one_in(3) ? board->now + prng_below(&dice, 1000) : UINT64_MAX - 1;
}

static void dawdle(fake_t *board) {
    board->log_count = 0;
    board->now += one_in(8) ? prng_below(&dice, 400) : 0;
    board->fail_sample = one_in(2000);
}

static float number(float scale) {
    static const float odd[] = {NAN, INFINITY, -INFINITY, 1e38f, -0.0f, 1e-45f};
    if (one_in(150)) {
        return odd[prng_below(&dice, 6)];
    }
    return scale * ((float)prng_below(&dice, 2001) / 1000.0f - 1.0f);
}

static uint32_t wild(uint32_t usual) { return one_in(25) ? prng(&dice) : usual; }

static void random_request(uint16_t seq) {
    const core_t *core = &fake.app.core;
    switch (prng_below(&dice, 14)) {
    case 0: {
        wire_info_request_t info = {one_in(10) ? prng(&dice) : WIRE_SCHEMA_CRC};
        fake_send(&fake, WIRE_INFO_REQUEST, seq, &info, sizeof info);
        return;
    }
    case 1: {
        wire_mode_request_t mode = {wild(one_in(4) ? WIRE_MODE_CLEAR : WIRE_MODE_ACTIVE)};
        mode.mode = one_in(6) ? prng_below(&dice, 5) : mode.mode;
        fake_send(&fake, WIRE_MODE_REQUEST, seq, &mode, sizeof mode);
        return;
    }
    case 2: {
        wire_setup_t setup = fake_setup();
        setup.force_max = fabsf(number(0.8f));
        setup.drift_max = one_in(2) ? 0 : fabsf(number(1e-3f));
        setup.settle_timeout_us = wild(prng_below(&dice, 4000));
        setup.samples = wild(2 + prng_below(&dice, 5));
        setup.watchdog_us = wild(prng_below(&dice, 100000));
        fake_send(&fake, WIRE_SETUP, seq, &setup, sizeof setup);
        return;
    }
    case 3:
    case 4:
    case 5: {
        bool force = one_in(2);
        wire_write_t write = {.target = (uint16_t)wild(force ? 2 : 0),
                              .load_case = (uint16_t)wild(force ? prng_below(&dice, 3) : 0),
                              .offset = (uint16_t)wild(one_in(2) ? 0 : 32),
                              .count = (uint16_t)wild(force ? 8 : 5)};
        write.count = write.offset == 0 ? 32 : write.count;
        for (unsigned i = 0; i < WIRE_VALUES_MAX; i++) {
            write.values[i] = force ? number(0.2f) : 120.0f + number(60.0f);
        }
        fake_send(&fake, WIRE_WRITE, seq, &write, sizeof write);
        return;
    }
    case 6: {
        wire_apply_t apply = {wild(FAKE_BONDS)};
        fake_send(&fake, WIRE_APPLY, seq, &apply, sizeof apply);
        return;
    }
    case 7: {
        wire_read_t read = {(uint16_t)prng_below(&dice, 6), (uint16_t)wild(prng_below(&dice, 3)),
                            (uint16_t)wild(prng_below(&dice, 30)),
                            (uint16_t)wild(1 + prng_below(&dice, 10))};
        fake_send(&fake, WIRE_READ, seq, &read, sizeof read);
        return;
    }
    case 8:
    case 9:
    case 10: {
        wire_run_t run = {.valid_until_us = fake.now + prng_below(&dice, 30000),
                          .token = core->token + prng_below(&dice, 4),
                          .batch = wild(core->batch + prng_below(&dice, 3)),
                          .cases = wild(1 + prng_below(&dice, 3))};
        run.token = one_in(1000) ? prng(&dice) : run.token;
        run.valid_until_us = one_in(25) ? prng_below(&dice, 1u << 20) : run.valid_until_us;
        fake_send(&fake, WIRE_RUN, seq, &run, sizeof run);
        return;
    }
    case 11: {
        wire_case_request_t request = {wild(prng_below(&dice, 3))};
        fake_send(&fake, WIRE_CASE_REQUEST, seq, &request, sizeof request);
        return;
    }
    default: {
        uint8_t payload[WIRE_PAYLOAD_MAX]; /* any type, any size, any content */
        for (size_t i = 0; i < sizeof payload; i++) {
            payload[i] = (uint8_t)prng(&dice);
        }
        uint32_t size = one_in(2) ? 4 : prng_below(&dice, sizeof payload);
        fake_send(&fake, one_in(2) ? prng_below(&dice, 256) : prng_below(&dice, 0x16), seq,
                  payload, size);
    }
    }
}

static void start(void) {
    fake_start(&fake, 1000);
    fake.on_force = check_force;
    fake.on_stiffness = check_stiffness;
    fake.on_wait = check_wait;
    fake.on_call = dawdle;
    stuck = false;
}

/* Turn the loop until everything fed has been read. */
static void digest(void) {
    unsigned turns = prng_below(&dice, 12);
    do {
        app_poll(&fake.app);
    } while (fake.input_at < fake.input_count || turns-- > 0);
}

static unsigned answers(unsigned from) {
    unsigned count = 0;
    for (unsigned i = from; i < fake.reply_count; i++) {
        const reply_t *reply = &fake.replies[i % FAKE_REPLIES];
        count += reply->type != WIRE_RUN_DONE;
        if (reply->type == WIRE_REFUSED) {
            CHECK(reply->refused.reason >= 1 && reply->refused.reason <= 9);
            seen_reason[reply->refused.reason]++;
        }
    }
    return count;
}

static void hostile_requests(void) {
    start();
    for (unsigned long round = 0; round < 250000; round++) {
        uint32_t frames = fake.app.core.frames, unknown = fake.app.core.unknown;
        unsigned before = fake.reply_count, sent = 1 + prng_below(&dice, 3);
        for (unsigned i = 0; i < sent; i++) {
            random_request((uint16_t)round);
        }
        digest();
        CHECK_EQ(answers(before), fake.app.core.frames - frames);
        CHECK_EQ(sent, fake.app.core.frames - frames + fake.app.core.unknown - unknown);
        CHECK_EQ(fake.app.core.parser.bad_frames, 0);
        if (one_in(2000)) {
            fake.fail_force = 0;
            start(); /* a power cycle, so that counters and tokens start over too */
        }
    }
    /* The walk went everywhere: a fuzzer that only ever gets refused shows nothing. */
    for (unsigned i = WIRE_RUN_STATUS_NONE; i <= WIRE_RUN_STATUS_FAILED; i++) {
        CHECK(seen_run[i] > 100);
    }
    for (unsigned i = WIRE_FAULT_NONE; i <= WIRE_FAULT_SENSOR; i++) {
        CHECK(seen_fault[i] > 100);
    }
    for (unsigned i = WIRE_REASON_SCHEMA; i <= WIRE_REASON_NOT_FINITE; i++) {
        CHECK(seen_reason[i] > 20);
    }
    CHECK(powered > 1000);
}

/* Requests cut, flipped, doubled and swapped, and a megabyte of noise among them. */
static void hostile_bytes(void) {
    uint64_t chunks = 0, run = 0;
    size_t fed = 0, noise = 0;
    start();
    wire_state_t first = *fake_state(&fake);
    while (noise < 1000000 || fed < 2000000) {
        size_t from = fake.input_count = fake.input_at = 0;
        for (unsigned i = 0; i < 40; i++) {
            random_request((uint16_t)i);
            size_t count = fake.input_count - from;
            if (one_in(8)) {
                count = prng_below(&dice, (uint32_t)count); /* cut */
            } else if (one_in(8)) {
                fake.input[from + prng_below(&dice, (uint32_t)count)] ^=
                    (uint8_t)(1u << prng_below(&dice, 8)); /* flipped */
            } else if (one_in(8)) {
                memcpy(fake.input + from + count, fake.input + from, count); /* doubled */
                count *= 2;
            } else if (one_in(8)) {
                uint8_t late[FRAME_MAX]; /* overtakes all of this round */
                memcpy(late, fake.input + from, count);
                memmove(fake.input + count, fake.input, from);
                memcpy(fake.input, late, count);
            } else if (one_in(4)) {
                count = prng_below(&dice, 1200); /* noise */
                for (size_t j = 0; j < count; j++) {
                    fake.input[from + j] = (uint8_t)prng(&dice);
                }
                noise += count;
            }
            from += count;
            fake.input_count = from;
        }
        for (size_t i = 0; i < fake.input_count; i++) {
            chunks += fake.input[i] == 0 && run > 0;
            run = fake.input[i] == 0 ? 0 : run + 1;
        }
        fed += fake.input_count;
        digest();
        const core_t *core = &fake.app.core;
        CHECK_EQ(core->frames + core->unknown + core->parser.bad_frames - first.frames, chunks);
    }
    static const uint8_t delimiter = 0;
    fake_feed(&fake, &delimiter, 1);
    fake.on_wait = NULL;
    wire_info_request_t info = {WIRE_SCHEMA_CRC};
    CHECK_EQ(fake_ask(&fake, WIRE_INFO_REQUEST, &info, sizeof info)->type, WIRE_INFO);
    const wire_state_t *last = fake_state(&fake);
    CHECK(last->bad_frames > 1000);
    CHECK(last->unknown > 500);
    CHECK(last->frames > 5000);
}

int main(void) {
    TEST(hostile_requests);
    TEST(hostile_bytes);
    return report("test_fuzz");
}
