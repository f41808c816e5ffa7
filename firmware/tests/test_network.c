/* Setup, Write, Apply and Read: every number a host sends is checked before it is kept. */
#include <math.h>
#include <string.h>

#include "check.h"
#include "fake_board.h"

static fake_t fake;

static void expect_refused(unsigned type, const void *payload, size_t size, unsigned reason,
                           uint32_t detail) {
    CHECK_EQ(fake_reason(&fake, type, payload, size), reason);
    CHECK_EQ(fake_newest(&fake, WIRE_REFUSED)->refused.detail, detail);
}

static void setup_checks_every_field(void) {
    wire_setup_t good = fake_setup();
    fake_start(&fake, 0);
    CHECK_EQ(fake_reason(&fake, WIRE_SETUP, &good, sizeof good), 0);
    const float not_numbers[] = {NAN, INFINITY, -INFINITY, -1.0f};
    for (unsigned i = 0; i < 4; i++) {
        for (uint32_t field = 0; field < 4; field++) {
            wire_setup_t bad = good;
            memcpy((uint8_t *)&bad + 4 * field, &not_numbers[i], 4);
            expect_refused(WIRE_SETUP, &bad, sizeof bad, WIRE_REASON_RANGE, field);
        }
    }
    struct {
        uint32_t field;
        float number;
        uint32_t integer;
    } bad[] = {
        {0, 0.0f, 0},    {0, 1.001f, 0}, /* above what the board allows */
        {1, 0.0f, 0},    {1, 9.99f, 0},  {1, 200.0f, 0}, /* the last: low is not below high */
        {2, 1000.1f, 0}, {2, 50.0f, 0},  {4, 0, 0},      {4, 0, 2000001},
        {5, 0, 0},       {5, 0, APP_WAIT_MAX_US + 1},    {6, 0, APP_WAIT_MAX_US + 1},
        {7, 0, 0},       {7, 0, APP_WAIT_MAX_US + 1},    {8, 0, 1},
        {8, 0, APP_SAMPLES_MAX + 1},
    };
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        wire_setup_t setup = good;
        const void *value = bad[i].field < 4 ? (void *)&bad[i].number : (void *)&bad[i].integer;
        memcpy((uint8_t *)&setup + 4 * bad[i].field, value, 4);
        /* low = 200 is inside the board's range, but then high is not above it */
        uint32_t detail = bad[i].field == 1 && bad[i].number > 100.0f ? 2 : bad[i].field;
        expect_refused(WIRE_SETUP, &setup, sizeof setup, WIRE_REASON_RANGE, detail);
    }
    CHECK(memcmp(&fake.app.network.setup, &good, sizeof good) == 0);
}

static void setup_only_while_inactive(void) {
    wire_setup_t setup = fake_setup();
    fake_start(&fake, 0);
    fake_activate(&fake, &setup);
    expect_refused(WIRE_SETUP, &setup, sizeof setup, WIRE_REASON_MODE, 0);
    fake_mode(&fake, WIRE_MODE_FAULT);
    expect_refused(WIRE_SETUP, &setup, sizeof setup, WIRE_REASON_MODE, 0);
}

static void write_only_while_active(void) {
    wire_setup_t setup = fake_setup();
    fake_start(&fake, 0);
    CHECK_EQ(fake_reason(&fake, WIRE_SETUP, &setup, sizeof setup), 0);
    wire_apply_t apply = {FAKE_BONDS};
    for (unsigned mode = 0; mode < 2; mode++) {
        CHECK_EQ(fake_write(&fake, WIRE_TARGET_FORCE, 0, 0.1f), WIRE_REASON_MODE);
        CHECK_EQ(fake_write(&fake, WIRE_TARGET_STIFFNESS, 0, 100.0f), WIRE_REASON_MODE);
        expect_refused(WIRE_APPLY, &apply, sizeof apply, WIRE_REASON_MODE, 0);
        CHECK_EQ(fake_run_batch(&fake, 1, 1000, 1, 1), WIRE_REASON_MODE);
        fake_mode(&fake, WIRE_MODE_FAULT);
    }
}

static wire_write_t piece(unsigned target, unsigned load_case, unsigned offset, unsigned count) {
    return (wire_write_t){(uint16_t)target, (uint16_t)load_case, (uint16_t)offset,
                          (uint16_t)count, {0}};
}

static void write_names_the_piece_that_is_wrong(void) {
    wire_setup_t setup = fake_setup();
    fake_start(&fake, 0);
    fake_activate(&fake, &setup);
    const struct {
        wire_write_t write;
        uint32_t detail;
    } bad[] = {
        {piece(WIRE_TARGET_DISPLACEMENT, 0, 0, 1), 0},
        {piece(WIRE_TARGET_APPLIED_STIFFNESS, 0, 0, 1), 0},
        {piece(77, 0, 0, 1), 0},
        {piece(WIRE_TARGET_FORCE, APP_CASES_MAX, 0, 1), 1},
        {piece(WIRE_TARGET_STIFFNESS, 1, 0, 1), 1},
        {piece(WIRE_TARGET_FORCE, 0, FAKE_DOF, 1), 2},
        {piece(WIRE_TARGET_FORCE, 0, 65535, 1), 2},
        {piece(WIRE_TARGET_FORCE, 0, 0, 0), 3},
        {piece(WIRE_TARGET_FORCE, 0, 0, 33), 3},
        {piece(WIRE_TARGET_FORCE, 0, FAKE_DOF - 1, 2), 3},
        {piece(WIRE_TARGET_STIFFNESS, 0, FAKE_BONDS - 1, 65535), 3},
    };
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        expect_refused(WIRE_WRITE, &bad[i].write, sizeof bad[i].write, WIRE_REASON_RANGE,
                       bad[i].detail);
    }
}

static void limits_refuse_and_never_clip(void) {
    wire_setup_t setup = fake_setup();
    fake_start(&fake, 0);
    fake_activate(&fake, &setup);
    CHECK_EQ(fake_write(&fake, WIRE_TARGET_FORCE, 3, -0.25f), 0);
    const struct {
        unsigned target;
        float value;
        unsigned reason;
    } bad[] = {
        {WIRE_TARGET_FORCE, nextafterf(0.5f, 1.0f), WIRE_REASON_LIMIT},
        {WIRE_TARGET_FORCE, nextafterf(-0.5f, -1.0f), WIRE_REASON_LIMIT},
        {WIRE_TARGET_FORCE, NAN, WIRE_REASON_NOT_FINITE},
        {WIRE_TARGET_FORCE, -INFINITY, WIRE_REASON_NOT_FINITE},
        {WIRE_TARGET_STIFFNESS, nextafterf(50.0f, 0.0f), WIRE_REASON_LIMIT},
        {WIRE_TARGET_STIFFNESS, nextafterf(200.0f, 300.0f), WIRE_REASON_LIMIT},
        {WIRE_TARGET_STIFFNESS, NAN, WIRE_REASON_NOT_FINITE},
        {WIRE_TARGET_STIFFNESS, INFINITY, WIRE_REASON_NOT_FINITE},
    };
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        bool force = bad[i].target == WIRE_TARGET_FORCE;
        wire_write_t write = piece(bad[i].target, force ? 3 : 0, 20, 5);
        for (unsigned j = 0; j < 5; j++) {
            write.values[j] = force ? 0.5f : 200.0f; /* the limit itself is allowed */
        }
        write.values[3] = bad[i].value;
        write.values[5] = NAN; /* not used, so not looked at */
        expect_refused(WIRE_WRITE, &write, sizeof write, bad[i].reason, 23);
        if (!force) {
            write.values[3] = 200.0f;
            CHECK_EQ(fake_reason(&fake, WIRE_WRITE, &write, sizeof write), 0);
        }
    }
    for (unsigned i = 0; i < FAKE_DOF; i++) {
        CHECK(fake.app.network.force[3][i] == -0.25f); /* nothing of a refused piece is kept */
    }
    CHECK(fake.app.network.stiffness[20] == 200.0f);
    CHECK(fake.app.network.stiffness[19] == 100.0f);
}

static const wire_values_t *read_piece(unsigned target, unsigned load_case, unsigned offset,
                                       unsigned count) {
    wire_read_t read = {(uint16_t)target, (uint16_t)load_case, (uint16_t)offset, (uint16_t)count};
    const reply_t *reply = fake_ask(&fake, WIRE_READ, &read, sizeof read);
    CHECK_EQ(reply->type, WIRE_VALUES);
    CHECK_EQ(reply->values.target, target);
    CHECK_EQ(reply->values.load_case, load_case);
    CHECK_EQ(reply->values.offset, offset);
    CHECK_EQ(reply->values.count, count);
    return &reply->values;
}

static void apply_needs_every_bond(void) {
    wire_setup_t setup = fake_setup();
    fake_start(&fake, 0);
    CHECK_EQ(fake_reason(&fake, WIRE_SETUP, &setup, sizeof setup), 0);
    CHECK_EQ(fake_mode(&fake, WIRE_MODE_ACTIVE), 0);
    wire_apply_t all = {FAKE_BONDS}, fewer = {FAKE_BONDS - 1};
    CHECK(read_piece(WIRE_TARGET_APPLIED_STIFFNESS, 0, 0, 1)->values[0] == 0);
    expect_refused(WIRE_APPLY, &all, sizeof all, WIRE_REASON_RANGE, 0);
    wire_write_t write = piece(WIRE_TARGET_STIFFNESS, 0, 0, 32);
    for (unsigned i = 0; i < 32; i++) {
        write.values[i] = 60.0f + (float)i;
    }
    CHECK_EQ(fake_reason(&fake, WIRE_WRITE, &write, sizeof write), 0);
    expect_refused(WIRE_APPLY, &all, sizeof all, WIRE_REASON_RANGE, 0); /* 32..36 missing */
    CHECK_EQ(fake_count(&fake, DID_STIFFNESS), 0);
    write.offset = 32;
    write.count = 5;
    CHECK_EQ(fake_reason(&fake, WIRE_WRITE, &write, sizeof write), 0);
    expect_refused(WIRE_APPLY, &fewer, sizeof fewer, WIRE_REASON_RANGE, 0);
    for (unsigned again = 0; again < 2; again++) {
        CHECK_EQ(fake_reason(&fake, WIRE_APPLY, &all, sizeof all), 0);
        CHECK(fake.stiffness[31] == 91.25f && fake.stiffness[32] == 60.25f);
    }
    /* Read back: asked for and applied, in every mode. */
    for (unsigned mode = 0; mode < 3; mode++) {
        CHECK(read_piece(WIRE_TARGET_STIFFNESS, 0, 31, 2)->values[0] == 91.0f);
        CHECK(read_piece(WIRE_TARGET_APPLIED_STIFFNESS, 0, 31, 2)->values[0] == 91.25f);
        CHECK(read_piece(WIRE_TARGET_APPLIED_STIFFNESS, 0, 36, 1)->values[0] == 64.25f);
        CHECK_EQ(fake_mode(&fake, mode == 0 ? WIRE_MODE_INACTIVE : WIRE_MODE_FAULT), 0);
    }
}

static void new_limits_forget_what_was_written(void) {
    wire_setup_t setup = fake_setup();
    fake_start(&fake, 0);
    fake_activate(&fake, &setup);
    CHECK_EQ(fake_write(&fake, WIRE_TARGET_FORCE, 31, 0.5f), 0);
    CHECK_EQ(fake_mode(&fake, WIRE_MODE_INACTIVE), 0);
    setup.force_max = 0.1f;
    setup.stiffness_high = 90.0f;
    CHECK_EQ(fake_reason(&fake, WIRE_SETUP, &setup, sizeof setup), 0);
    CHECK_EQ(fake_mode(&fake, WIRE_MODE_ACTIVE), 0);
    CHECK(read_piece(WIRE_TARGET_FORCE, 31, 39, 1)->values[0] == 0);
    wire_apply_t apply = {FAKE_BONDS};
    expect_refused(WIRE_APPLY, &apply, sizeof apply, WIRE_REASON_RANGE, 0);
    /* The actuators are still where they were, and that stays known. */
    CHECK(read_piece(WIRE_TARGET_APPLIED_STIFFNESS, 0, 0, 1)->values[0] == 100.25f);
}

static void an_actuator_that_fails_latches(void) {
    wire_setup_t setup = fake_setup();
    fake_start(&fake, 0);
    fake_activate(&fake, &setup);
    fake.fail_stiffness = 1;
    wire_apply_t apply = {FAKE_BONDS};
    CHECK_EQ(fake_reason(&fake, WIRE_APPLY, &apply, sizeof apply), 0);
    CHECK_EQ(fake_state(&fake)->mode, WIRE_MODE_FAULT);
    CHECK_EQ(fake_state(&fake)->fault, WIRE_FAULT_ACTUATOR);
    CHECK(read_piece(WIRE_TARGET_APPLIED_STIFFNESS, 0, 0, 1)->values[0] == 0); /* unknown */
}

static void read_names_the_piece_that_is_wrong(void) {
    wire_setup_t setup = fake_setup();
    fake_start(&fake, 0);
    fake_activate(&fake, &setup);
    CHECK_EQ(fake_run_batch(&fake, 1, 900000, 1, 2), 0);
    fake_run(&fake);
    const struct {
        wire_read_t read;
        uint32_t detail;
    } bad[] = {
        {{9, 0, 0, 1}, 0},
        {{WIRE_TARGET_STIFFNESS, 1, 0, 1}, 1},
        {{WIRE_TARGET_FORCE, APP_CASES_MAX, 0, 1}, 1},
        {{WIRE_TARGET_DISPLACEMENT, 2, 0, 1}, 1}, /* not measured in this batch */
        {{WIRE_TARGET_ELONGATION, 65535, 0, 1}, 1},
        {{WIRE_TARGET_DISPLACEMENT, 1, FAKE_DOF, 1}, 2},
        {{WIRE_TARGET_ELONGATION, 1, FAKE_BONDS - 1, 2}, 3},
        {{WIRE_TARGET_ELONGATION, 1, 0, 33}, 3},
        {{WIRE_TARGET_ELONGATION, 1, 0, 0}, 3},
    };
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        expect_refused(WIRE_READ, &bad[i].read, sizeof bad[i].read, WIRE_REASON_RANGE,
                       bad[i].detail);
    }
    CHECK(read_piece(WIRE_TARGET_ELONGATION, 1, 36, 1)->values[0] == 36e-6f);
    wire_case_request_t request = {2};
    expect_refused(WIRE_CASE_REQUEST, &request, sizeof request, WIRE_REASON_RANGE, 0);
}

int main(void) {
    TEST(setup_checks_every_field);
    TEST(setup_only_while_inactive);
    TEST(write_only_while_active);
    TEST(write_names_the_piece_that_is_wrong);
    TEST(limits_refuse_and_never_clip);
    TEST(apply_needs_every_bond);
    TEST(new_limits_forget_what_was_written);
    TEST(an_actuator_that_fails_latches);
    TEST(read_names_the_piece_that_is_wrong);
    return report("test_network");
}
