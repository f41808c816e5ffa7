/* The cart-pole: limits, interlock, deadman, the cadence of the samples, lock-step. */
#include <math.h>
#include <string.h>

#include "check.h"
#include "fake_board.h"

#define TICK 1000u

static fake_t fake;

static wire_cart_pole_setup_t usual(void) {
    return (wire_cart_pole_setup_t){
        .force_max = 20.0f,
        .travel = 0.5f,
        .travel_hard = 0.6f,
        .watchdog_us = 100000,
        .tick_us = TICK,
        .stream_every = 5,
    };
}

static unsigned set_up(const wire_cart_pole_setup_t *setup) {
    return fake_reason(&fake, WIRE_CART_POLE_SETUP, setup, sizeof *setup);
}

/* ACTIVE at time 1000, the first sample streamed there, no token taken. */
static void begin(bool lock_step) {
    fake_start_cart_pole(&fake, TICK, lock_step);
    wire_cart_pole_setup_t setup = usual();
    CHECK_EQ(set_up(&setup), 0);
    CHECK_EQ(fake_mode(&fake, WIRE_MODE_ACTIVE), 0);
    fake.log_count = 0;
}

static const reply_t *ask_drive(uint32_t token, uint64_t valid_until, float force) {
    wire_drive_t drive = {valid_until, token, force};
    return fake_ask(&fake, WIRE_DRIVE, &drive, sizeof drive);
}

/* The reason of a refusal, 0 when it was carried out. */
static unsigned drive(uint32_t token, uint64_t valid_until, float force) {
    const reply_t *reply = ask_drive(token, valid_until, force);
    CHECK(reply->type == WIRE_DRIVEN || reply->type == WIRE_REFUSED);
    return reply->type == WIRE_DRIVEN ? 0 : reply->refused.reason;
}

static unsigned pass(uint32_t sample) {
    wire_pass_t request = {sample};
    return fake_reason(&fake, WIRE_PASS, &request, sizeof request);
}

static const wire_sample_t *newest(void) {
    const reply_t *reply = fake_newest(&fake, WIRE_SAMPLE);
    CHECK(reply != NULL);
    return &reply->sample;
}

static void setup_is_checked_field_by_field(void) {
    fake_start_cart_pole(&fake, 0, false);
    for (unsigned field = 0; field < 7; field++) {
        wire_cart_pole_setup_t high = usual(), low = usual();
        switch (field) {
        case 0:
            high.force_max = 50.1f;
            low.force_max = 0;
            break;
        case 1:
            high.travel = INFINITY;
            low.travel = -0.1f;
            break;
        case 2:
            high.travel_hard = NAN;
            low.travel_hard = low.travel;
            break;
        case 3:
            high.watchdog_us = 2000001;
            low.watchdog_us = 0;
            break;
        case 4:
            high.tick_us = 1000001;
            low.tick_us = 99;
            break;
        case 5:
            high.stream_every = 10001;
            low.stream_every = 0;
            break;
        default:
            high.stuck_impulse = INFINITY;
            low.stuck_impulse = -1e-9f;
            break;
        }
        CHECK_EQ(set_up(&high), WIRE_REASON_RANGE);
        CHECK_EQ(fake_newest(&fake, WIRE_REFUSED)->refused.detail, field);
        CHECK_EQ(set_up(&low), WIRE_REASON_RANGE);
        CHECK_EQ(fake_newest(&fake, WIRE_REFUSED)->refused.detail, field);
    }
    CHECK_EQ(fake_mode(&fake, WIRE_MODE_ACTIVE), WIRE_REASON_NOT_SET_UP);
    wire_cart_pole_setup_t good = usual();
    CHECK_EQ(set_up(&good), 0);
    CHECK_EQ(fake_mode(&fake, WIRE_MODE_ACTIVE), 0);
    CHECK_EQ(set_up(&good), WIRE_REASON_MODE);
}

static void it_says_what_it_is(void) {
    fake_start_cart_pole(&fake, 0, false);
    const wire_info_t *info = &fake_newest(&fake, WIRE_INFO)->info;
    CHECK_EQ(info->application, WIRE_APPLICATION_CART_POLE);
    CHECK_EQ(info->dof, 1);
    CHECK_EQ(info->bonds, 0);
    CHECK_EQ(info->cases, 0);
    /* Requests of the other application are unknown here. */
    uint32_t unknown = fake_state(&fake)->unknown;
    wire_setup_t other = fake_setup();
    fake_send(&fake, WIRE_SETUP, 9, &other, sizeof other);
    fake_run_to(&fake, fake.now);
    CHECK_EQ(fake_state(&fake)->unknown, unknown + 1);
}

static void boards_it_does_not_fit_are_refused(void) {
    fake_make(&fake, 0);
    fake.hal.application = WIRE_APPLICATION_CART_POLE;
    fake.hal.dof = 2;
    CHECK_EQ(app_init(&fake.app, &fake.hal), -1);
    fake.hal.application = 99;
    CHECK_EQ(app_init(&fake.app, &fake.hal), -1);
}

static void samples_come_every_fifth_tick(void) {
    begin(false);
    fake.angle = 0.25f;
    fake.position = -0.125f;
    unsigned replies = fake.reply_count;
    fake_run_to(&fake, 101 * TICK);
    CHECK_EQ(fake_count(&fake, DID_POSE), 100);
    CHECK_EQ(fake.reply_count - replies, 20);
    for (unsigned i = 0; i < 20; i++) {
        const reply_t *reply = &fake.replies[(replies + i) % FAKE_REPLIES];
        CHECK_EQ(reply->type, WIRE_SAMPLE);
        CHECK_EQ(reply->seq, 0);
        CHECK_EQ(reply->sample.sample, i + 2);
        CHECK_EQ(reply->sample.device_us, (1 + 5 * (i + 1)) * TICK);
        CHECK(reply->sample.angle == 0.25f && reply->sample.position == -0.125f);
        CHECK_EQ(reply->sample.flags, 0);
    }
    CHECK_EQ(fake_state(&fake)->batch, 21);
    wire_sample_request_t request = {0};
    const reply_t *again = fake_ask(&fake, WIRE_SAMPLE_REQUEST, &request, sizeof request);
    CHECK_EQ(again->type, WIRE_SAMPLE);
    CHECK_EQ(again->sample.sample, 21);
}

static void it_says_how_far_it_means_to_look(void) {
    begin(true);
    for (uint32_t sample = 1; sample < 4; sample++) {
        CHECK_EQ(pass(sample), 0);
        for (unsigned tick = 5; tick > 0; tick--) {
            fake_run_to(&fake, fake.now + TICK);
            CHECK_EQ(fake.ahead, tick - 1);
        }
    }
}

static void a_late_tick_is_flagged_and_not_made_up_for(void) {
    begin(false);
    fake_run_to(&fake, 3 * TICK);
    fake.log_count = 0;
    fake.now = 8 * TICK + 300; /* ticks 4 to 7 were slept through, 6 was to be streamed */
    fake_run_to(&fake, fake.now);
    CHECK_EQ(fake_count(&fake, DID_POSE), 1);
    CHECK_EQ(newest()->device_us, 8 * TICK + 300);
    CHECK_EQ(newest()->flags, WIRE_SAMPLE_FLAG_LATE);
    fake_run_to(&fake, 11 * TICK);
    CHECK_EQ(fake_event(&fake, DID_POSE, 1)->time_us, 9 * TICK);
    CHECK_EQ(newest()->device_us, 11 * TICK); /* the cadence is what it was */
    CHECK_EQ(newest()->flags, 0);
}

static void forces_outside_the_limits_are_refused(void) {
    begin(false);
    CHECK_EQ(drive(1, 50000, 20.0f), 0);
    static const struct {
        float force;
        unsigned reason;
    } bad[] = {{20.01f, WIRE_REASON_LIMIT},     {-1e30f, WIRE_REASON_LIMIT},
               {NAN, WIRE_REASON_NOT_FINITE},   {INFINITY, WIRE_REASON_NOT_FINITE},
               {-INFINITY, WIRE_REASON_NOT_FINITE}};
    fake.log_count = 0;
    for (unsigned i = 0; i < 5; i++) {
        CHECK_EQ(drive(2, 60000, bad[i].force), bad[i].reason);
    }
    CHECK_EQ(fake.log_count, 0); /* what was applied before stays, and so does its token */
    CHECK_EQ(fake_state(&fake)->token, 1);
    CHECK(fake.force[0] == 20.0f);
    fake_run_to(&fake, 49999);
    CHECK(fake.force[0] == 20.0f);
    fake_run_to(&fake, 50000);
    CHECK(fake.force[0] == 0.0f);
}

static void a_drive_needs_active_and_a_token(void) {
    fake_start_cart_pole(&fake, TICK, false);
    wire_cart_pole_setup_t setup = usual();
    CHECK_EQ(drive(1, 50000, 1.0f), WIRE_REASON_MODE);
    CHECK_EQ(set_up(&setup), 0);
    CHECK_EQ(drive(1, 50000, 1.0f), WIRE_REASON_MODE);
    CHECK_EQ(fake_mode(&fake, WIRE_MODE_ACTIVE), 0);
    CHECK_EQ(drive(0, 50000, 1.0f), WIRE_REASON_TOKEN_STALE);
    CHECK_EQ(drive(5, TICK, 1.0f), WIRE_REASON_TOKEN_EXPIRED);
    CHECK(fake.force[0] == 0.0f);
    CHECK_EQ(drive(5, 50000, 1.0f), 0);
    CHECK_EQ(drive(4, 60000, 2.0f), WIRE_REASON_TOKEN_STALE);
    CHECK(fake.force[0] == 1.0f);
    CHECK_EQ(fake_mode(&fake, WIRE_MODE_INACTIVE), 0);
    CHECK(fake.force[0] == 0.0f);
    fake_run_to(&fake, 80000); /* nothing is on: nothing expires */
    CHECK_EQ(fake_state(&fake)->mode, WIRE_MODE_INACTIVE);
}

static void a_drive_sent_again_changes_nothing(void) {
    begin(false);
    wire_driven_t first = ask_drive(7, 50000, 3.0f)->driven;
    CHECK_EQ(first.device_us, TICK);
    CHECK(first.force == 3.0f);
    fake_run_to(&fake, 20000);
    fake.log_count = 0;
    wire_driven_t again = ask_drive(7, 90000, -9.0f)->driven;
    CHECK(memcmp(&first, &again, sizeof first) == 0);
    CHECK_EQ(fake.log_count, 0);
    fake_run_to(&fake, 50000); /* its life is the first one's */
    CHECK_EQ(fake_state(&fake)->fault, WIRE_FAULT_TOKEN_EXPIRED);
}

static void the_force_ends_at_the_microsecond_of_the_token(void) {
    static const uint64_t ends[] = {1001, 6000, 6001, 37123, 100999};
    for (unsigned i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        begin(i % 2 == 1);
        fake.host_gone = true; /* in lock-step only then time goes on without an answer */
        CHECK_EQ(drive(1, ends[i], -4.0f), 0);
        fake_run_to(&fake, ends[i] - 1);
        CHECK(fake.force[0] == -4.0f);
        fake_run_to(&fake, ends[i]);
        CHECK_EQ(fake_event(&fake, DID_FORCE, -1)->time_us, ends[i]);
        CHECK(fake.force[0] == 0.0f);
        wire_state_t state = *fake_state(&fake);
        CHECK_EQ(state.mode, WIRE_MODE_FAULT);
        CHECK_EQ(state.fault, WIRE_FAULT_TOKEN_EXPIRED);
        CHECK_EQ(state.expired, 1);
        CHECK_EQ(drive(2, ends[i] + 50000, 1.0f), WIRE_REASON_MODE);
        CHECK(fake.force[0] == 0.0f);
    }
}

static void no_token_outlives_the_watchdog(void) {
    begin(false);
    CHECK_EQ(drive(1, UINT64_MAX, 4.0f), 0);
    fake_run_to(&fake, TICK + 99999);
    CHECK(fake.force[0] == 4.0f);
    fake_run_to(&fake, TICK + 100000);
    CHECK(fake.force[0] == 0.0f);
}

static void a_zero_force_needs_its_token_too(void) {
    begin(false);
    CHECK_EQ(drive(1, 30000, 0.0f), 0);
    fake_run_to(&fake, 30000);
    CHECK_EQ(fake_state(&fake)->fault, WIRE_FAULT_TOKEN_EXPIRED);
}

static void the_sample_tells_of_the_fault(void) {
    begin(false);
    CHECK_EQ(drive(1, 7500, 2.0f), 0);
    fake_run_to(&fake, 6000);
    CHECK(newest()->force == 2.0f);
    CHECK_EQ(newest()->mode, WIRE_MODE_ACTIVE);
    CHECK_EQ(newest()->token, 1);
    fake_run_to(&fake, 11000);
    CHECK(newest()->force == 0.0f);
    CHECK_EQ(newest()->mode, WIRE_MODE_FAULT);
    CHECK_EQ(newest()->fault, WIRE_FAULT_TOKEN_EXPIRED);
}

static void beyond_the_travel_only_forces_inward_act(void) {
    for (int side = -1; side <= 1; side += 2) {
        float s = (float)side;
        begin(false);
        CHECK_EQ(drive(1, 90000, s * 3.0f), 0);
        fake.position = s * 0.5f; /* at the end, not beyond it */
        fake_run_to(&fake, 6 * TICK);
        CHECK(fake.force[0] == s * 3.0f);
        fake.position = s * 0.501f;
        fake_run_to(&fake, 7 * TICK);
        CHECK(fake.force[0] == 0.0f);
        fake_run_to(&fake, 11 * TICK);
        CHECK_EQ(newest()->flags, WIRE_SAMPLE_FLAG_INTERLOCK);
        CHECK(newest()->force == 0.0f);
        const wire_driven_t *driven = &ask_drive(2, 90000, s * 5.0f)->driven;
        CHECK(driven->force == 0.0f);
        CHECK_EQ(driven->flags, WIRE_SAMPLE_FLAG_INTERLOCK);
        driven = &ask_drive(3, 90000, -s * 5.0f)->driven;
        CHECK(driven->force == -s * 5.0f);
        CHECK_EQ(driven->flags, 0);
        CHECK_EQ(drive(4, 90000, s * 6.0f), 0);
        CHECK(fake.force[0] == 0.0f);
        fake.position = s * 0.499f; /* back inside: what was asked for acts again */
        fake_run_to(&fake, 12 * TICK);
        CHECK(fake.force[0] == s * 6.0f);
        CHECK_EQ(fake_state(&fake)->mode, WIRE_MODE_ACTIVE);
    }
}

static void beyond_the_hard_limit_a_fault_latches(void) {
    begin(false);
    CHECK_EQ(drive(1, 90000, -3.0f), 0);
    fake.position = 0.601f; /* although the force drives it inward */
    fake_run_to(&fake, 2 * TICK);
    CHECK(fake.force[0] == 0.0f);
    CHECK_EQ(fake_state(&fake)->fault, WIRE_FAULT_TRAVEL);
    CHECK_EQ(fake_mode(&fake, WIRE_MODE_CLEAR), 0);
    fake_run_to(&fake, 4 * TICK); /* inactive, a hand may move it there */
    CHECK_EQ(fake_state(&fake)->mode, WIRE_MODE_INACTIVE);
    CHECK_EQ(fake_mode(&fake, WIRE_MODE_ACTIVE), 0);
    fake_run_to(&fake, 5 * TICK);
    CHECK_EQ(fake_state(&fake)->fault, WIRE_FAULT_TRAVEL);
}

static void a_sensor_that_fails_is_a_fault(void) {
    for (unsigned how = 0; how < 3; how++) {
        begin(false);
        CHECK_EQ(drive(1, 90000, 3.0f), 0);
        fake.angle = how == 0 ? NAN : 0.0f;
        fake.position = how == 1 ? INFINITY : 0.0f;
        fake.fail_sample = how == 2;
        fake_run_to(&fake, 6 * TICK);
        CHECK(fake.force[0] == 0.0f);
        CHECK_EQ(fake_state(&fake)->fault, WIRE_FAULT_SENSOR);
        CHECK(isfinite(newest()->angle) && isfinite(newest()->position));
    }
}

/* ACTIVE with a limit on what may act on a reading that stays the same, N s. */
static void begin_watching(float stuck_impulse) {
    fake_start_cart_pole(&fake, TICK, false);
    wire_cart_pole_setup_t setup = usual();
    setup.stuck_impulse = stuck_impulse;
    CHECK_EQ(set_up(&setup), 0);
    CHECK_EQ(fake_mode(&fake, WIRE_MODE_ACTIVE), 0);
}

static void let_ticks_pass(unsigned count, bool angle, bool position) {
    for (unsigned i = 0; i < count; i++) {
        fake.angle += angle ? 0.001f : 0.0f;
        fake.position += position ? 0.001f : 0.0f;
        fake_run_to(&fake, fake.now + TICK);
    }
}

static void a_reading_that_stays_while_the_force_changes_is_a_fault(void) {
    for (unsigned which = 0; which < 2; which++) {
        for (int side = -1; side <= 1; side += 2) {
            begin_watching(0.05f);
            CHECK_EQ(drive(1, 90000, (float)side * 5.0f), 0);
            let_ticks_pass(10, which == 1, which == 0); /* 5 N for 10 ms: not more yet */
            CHECK_EQ(fake_state(&fake)->mode, WIRE_MODE_ACTIVE);
            let_ticks_pass(1, which == 1, which == 0);
            CHECK_EQ(fake_state(&fake)->fault, WIRE_FAULT_STUCK);
            CHECK(fake.force[0] == 0.0f);
            CHECK_EQ(drive(2, 90000, 1.0f), WIRE_REASON_MODE);
        }
    }
}

static void only_the_change_of_the_force_counts_on_a_still_reading(void) {
    begin_watching(0.05f);
    CHECK_EQ(drive(1, 90000, 5.0f), 0);
    let_ticks_pass(5, true, true); /* moves; then rests against a slope under the same 5 N */
    let_ticks_pass(50, false, false);
    CHECK_EQ(fake_state(&fake)->mode, WIRE_MODE_ACTIVE);
    CHECK_EQ(drive(2, 150000, 7.0f), 0); /* to and fro about it counts, it does not cancel */
    let_ticks_pass(13, false, false);
    CHECK_EQ(drive(3, 150000, 3.0f), 0);
    let_ticks_pass(12, false, false);
    CHECK_EQ(fake_state(&fake)->mode, WIRE_MODE_ACTIVE);
    let_ticks_pass(1, false, false);
    CHECK_EQ(fake_state(&fake)->fault, WIRE_FAULT_STUCK);
}

static void what_moves_or_is_not_watched_or_not_powered_is_not_stuck(void) {
    begin_watching(0.05f);
    CHECK_EQ(drive(1, 101000, 20.0f), 0);
    let_ticks_pass(90, true, true);
    CHECK_EQ(fake_state(&fake)->mode, WIRE_MODE_ACTIVE);
    begin_watching(0.0f);
    CHECK_EQ(drive(1, 101000, 20.0f), 0);
    let_ticks_pass(90, false, false);
    CHECK_EQ(fake_state(&fake)->mode, WIRE_MODE_ACTIVE);
    begin_watching(0.05f);
    CHECK_EQ(drive(1, 101000, 20.0f), 0);
    let_ticks_pass(1, true, true);
    CHECK_EQ(fake_mode(&fake, WIRE_MODE_INACTIVE), 0);
    let_ticks_pass(50, false, false); /* by hand, at rest */
    CHECK_EQ(fake_mode(&fake, WIRE_MODE_ACTIVE), 0);
    let_ticks_pass(50, false, false);
    CHECK_EQ(fake_state(&fake)->mode, WIRE_MODE_ACTIVE);
}

static void an_actuator_that_fails_is_a_fault(void) {
    begin(false);
    fake.fail_force = 1;
    CHECK_EQ(drive(1, 90000, 3.0f), WIRE_REASON_MODE);
    CHECK_EQ(fake_newest(&fake, WIRE_REFUSED)->refused.fault, WIRE_FAULT_ACTUATOR);
    CHECK(fake.force[0] == 0.0f);
}

static void a_stop_latches(void) {
    begin(false);
    CHECK_EQ(drive(1, 90000, 3.0f), 0);
    CHECK_EQ(fake_mode(&fake, WIRE_MODE_FAULT), 0);
    CHECK(fake.force[0] == 0.0f);
    CHECK_EQ(fake_state(&fake)->fault, WIRE_FAULT_STOPPED);
    fake_run_to(&fake, 99 * TICK); /* and its token has nothing left to end */
    CHECK_EQ(fake_state(&fake)->expired, 0);
}

static void in_lock_step_time_waits_for_the_answer(void) {
    begin(true);
    CHECK_EQ(newest()->sample, 1);
    fake_run(&fake);
    CHECK_EQ(fake.now, TICK);
    CHECK_EQ(drive(1, 90000, 3.0f), 0);
    fake_run(&fake);
    CHECK_EQ(fake.now, 6 * TICK);
    CHECK_EQ(newest()->sample, 2);
    CHECK_EQ(drive(1, 90000, 3.0f), 0); /* the same command again answers nothing */
    CHECK_EQ(drive(2, 90000, 30.0f), WIRE_REASON_LIMIT); /* nor does a refused one */
    CHECK_EQ(pass(1), 0);
    CHECK_EQ(pass(3), WIRE_REASON_RANGE);
    fake_state(&fake);
    fake_run(&fake);
    CHECK_EQ(fake.now, 6 * TICK);
    CHECK_EQ(pass(2), 0);
    fake_run(&fake);
    CHECK_EQ(fake.now, 11 * TICK);
    CHECK(newest()->force == 3.0f);
}

static void in_lock_step_nobody_is_heard_between_samples(void) {
    begin(true);
    wire_drive_t first = {90000, 1, 3.0f};
    wire_mode_request_t stop = {WIRE_MODE_FAULT};
    fake_send(&fake, WIRE_DRIVE, 1, &first, sizeof first);
    fake_run_to(&fake, 2 * TICK);
    fake_send(&fake, WIRE_MODE_REQUEST, 2, &stop, sizeof stop);
    fake.log_count = 0;
    for (unsigned turn = 0; turn < 20; turn++) {
        app_poll(&fake.app);
    }
    /* Where in the period it came makes no difference: it is done at the sample. */
    CHECK_EQ(fake_event(&fake, DID_FORCE, 0)->time_us, 6 * TICK);
    CHECK_EQ(fake_newest(&fake, WIRE_STATE)->state.device_us, 6 * TICK);
}

static void in_lock_step_an_absent_host_is_waited_for_when_all_is_safe(void) {
    begin(true);
    CHECK_EQ(drive(1, 90000, 3.0f), 0);
    fake_run(&fake);
    CHECK_EQ(fake.now, 6 * TICK);
    fake.host_gone = true;
    fake_run(&fake); /* time runs to the end of the token, and to the sample after it */
    CHECK_EQ(fake_event(&fake, DID_FORCE, -1)->time_us, 90000);
    CHECK(fake.now <= 96 * TICK);
    uint64_t stands = fake.now;
    fake_run(&fake);
    CHECK_EQ(fake.now, stands);
    fake.host_gone = false;
    CHECK_EQ(fake_state(&fake)->fault, WIRE_FAULT_TOKEN_EXPIRED);
    CHECK_EQ(fake_mode(&fake, WIRE_MODE_CLEAR), 0);
    wire_cart_pole_setup_t setup = usual();
    uint32_t before = fake_state(&fake)->batch;
    CHECK_EQ(set_up(&setup), 0);
    fake_run(&fake);
    CHECK_EQ(newest()->sample, before + 1); /* set up again, it begins with a sample at once */
    CHECK_EQ(newest()->device_us, stands);
}

int main(void) {
    TEST(setup_is_checked_field_by_field);
    TEST(it_says_what_it_is);
    TEST(boards_it_does_not_fit_are_refused);
    TEST(samples_come_every_fifth_tick);
    TEST(it_says_how_far_it_means_to_look);
    TEST(a_late_tick_is_flagged_and_not_made_up_for);
    TEST(forces_outside_the_limits_are_refused);
    TEST(a_drive_needs_active_and_a_token);
    TEST(a_drive_sent_again_changes_nothing);
    TEST(the_force_ends_at_the_microsecond_of_the_token);
    TEST(no_token_outlives_the_watchdog);
    TEST(a_zero_force_needs_its_token_too);
    TEST(the_sample_tells_of_the_fault);
    TEST(beyond_the_travel_only_forces_inward_act);
    TEST(beyond_the_hard_limit_a_fault_latches);
    TEST(a_sensor_that_fails_is_a_fault);
    TEST(a_reading_that_stays_while_the_force_changes_is_a_fault);
    TEST(only_the_change_of_the_force_counts_on_a_still_reading);
    TEST(what_moves_or_is_not_watched_or_not_powered_is_not_stuck);
    TEST(an_actuator_that_fails_is_a_fault);
    TEST(a_stop_latches);
    TEST(in_lock_step_time_waits_for_the_answer);
    TEST(in_lock_step_nobody_is_heard_between_samples);
    TEST(in_lock_step_an_absent_host_is_waited_for_when_all_is_safe);
    return report("test_cart_pole");
}
