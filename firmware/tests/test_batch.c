/* A batch: when things happen, what is averaged, and everything that can end it early. */
#include <math.h>
#include <string.h>

#include "check.h"
#include "fake_board.h"

#define START 5000u

static fake_t fake;

/* ACTIVE at START with one force written per case, 0.01 N times (case + 1). */
static void ready(const wire_setup_t *setup) {
    fake_start(&fake, START);
    fake_activate(&fake, setup);
    for (unsigned i = 0; i < APP_CASES_MAX; i++) {
        CHECK_EQ(fake_write(&fake, WIRE_TARGET_FORCE, i, 0.01f * (float)(i + 1)), 0);
    }
}

static void ready_default(void) {
    wire_setup_t setup = fake_setup();
    ready(&setup);
}

static const wire_run_done_t *done(void) {
    const reply_t *reply = fake_newest(&fake, WIRE_RUN_DONE);
    CHECK(reply != NULL);
    CHECK_EQ(reply->seq, 0);
    return &reply->done;
}

static void expect_done(unsigned status, unsigned cases_done, uint64_t time) {
    CHECK_EQ(done()->status, status);
    CHECK_EQ(done()->cases_done, cases_done);
    CHECK_EQ(done()->device_us, time);
    const event_t *last = fake_event(&fake, DID_FORCE, -1);
    CHECK(last->zero);
    for (unsigned i = 0; i < FAKE_DOF; i++) {
        CHECK(fake.force[i] == 0);
    }
}

static const wire_case_t *measured(unsigned load_case) {
    wire_case_request_t request = {load_case};
    const reply_t *reply = fake_ask(&fake, WIRE_CASE_REQUEST, &request, sizeof request);
    CHECK_EQ(reply->type, WIRE_CASE);
    return &reply->load_case;
}

static float read_one(unsigned target, unsigned load_case, unsigned index) {
    wire_read_t read = {(uint16_t)target, (uint16_t)load_case, (uint16_t)index, 1};
    const reply_t *reply = fake_ask(&fake, WIRE_READ, &read, sizeof read);
    CHECK_EQ(reply->type, WIRE_VALUES);
    return reply->values.values[0];
}

/* settle 1000, then 4 samples 100 apart, per case; the list was made by hand. */
static const event_t two_cases[] = {
    {DID_FORCE, 5000, 0.01f, false}, {DID_SAMPLE, 6000, 0, true}, {DID_SAMPLE, 6100, 0, true},
    {DID_SAMPLE, 6200, 0, true},     {DID_SAMPLE, 6300, 0, true}, {DID_FORCE, 6300, 0.02f, false},
    {DID_SAMPLE, 7300, 0, true},     {DID_SAMPLE, 7400, 0, true}, {DID_SAMPLE, 7500, 0, true},
    {DID_SAMPLE, 7600, 0, true},     {DID_FORCE, 7600, 0, true},
};

static void check_two_cases(void) {
    unsigned count = sizeof two_cases / sizeof two_cases[0];
    CHECK_EQ(fake.log_count, count);
    for (unsigned i = 0; i < count; i++) {
        CHECK_EQ(fake.log[i].what, two_cases[i].what);
        CHECK_EQ(fake.log[i].time_us, two_cases[i].time_us);
        CHECK(fake.log[i].first == two_cases[i].first);
        CHECK_EQ(fake.log[i].zero, two_cases[i].zero);
    }
    expect_done(WIRE_RUN_STATUS_DONE, 2, 8600); /* 1000 more for the return to rest */
}

static void timeline(void) {
    ready_default();
    CHECK_EQ(fake_run_batch(&fake, 1, START + 500000, 7, 2), 0);
    CHECK_EQ(fake_state(&fake)->run, WIRE_RUN_STATUS_RUNNING);
    fake_run(&fake);
    check_two_cases();
    const wire_state_t *state = fake_state(&fake);
    CHECK_EQ(state->mode, WIRE_MODE_ACTIVE);
    CHECK_EQ(state->run, WIRE_RUN_STATUS_DONE);
    CHECK_EQ(state->batch, 7);
    CHECK_EQ(state->token, 1);
    CHECK_EQ(state->cases_done, 2);
    for (unsigned i = 0; i < 2; i++) {
        CHECK_EQ(measured(i)->device_us, i == 0 ? 6300 : 7600);
        CHECK_EQ(measured(i)->batch, 7);
        CHECK_EQ(measured(i)->samples, 4);
        CHECK_EQ(measured(i)->flags, WIRE_CASE_FLAG_SETTLED);
        CHECK(measured(i)->drift == 0);
        float force = 0.01f * (float)(i + 1);
        CHECK(read_one(WIRE_TARGET_FORCE, i, 39) == force);
        CHECK(read_one(WIRE_TARGET_DISPLACEMENT, i, 39) == force * 1e-3f);
        CHECK(read_one(WIRE_TARGET_ELONGATION, i, 36) == 36e-6f);
    }
}

/* Whatever is asked in the middle, and however often, the plant sees the same. */
static void requests_do_not_move_the_schedule(void) {
    ready_default();
    fake_run_batch(&fake, 1, START + 500000, 7, 2);
    for (uint64_t time = START; time < 8600; time += 37) {
        fake_run_to(&fake, time);
        CHECK_EQ(fake_state(&fake)->device_us, time);
        CHECK_EQ(fake_run_batch(&fake, 1, START + 500000, 7, 2), 0); /* sent again */
        CHECK_EQ(fake_run_batch(&fake, 9, START + 500000, 8, 1), WIRE_REASON_BUSY);
        CHECK_EQ(fake_write(&fake, WIRE_TARGET_FORCE, 1, 0.0f), WIRE_REASON_BUSY);
        CHECK_EQ(fake_write(&fake, WIRE_TARGET_STIFFNESS, 0, 100.0f), WIRE_REASON_BUSY);
        CHECK_EQ(fake_mode(&fake, WIRE_MODE_ACTIVE), 0);
        wire_apply_t apply = {FAKE_BONDS};
        CHECK_EQ(fake_reason(&fake, WIRE_APPLY, &apply, sizeof apply), WIRE_REASON_BUSY);
        if (time > 6300) { /* a case that is done can be read while the next one runs */
            CHECK(read_one(WIRE_TARGET_DISPLACEMENT, 0, 0) == 0.01f * 1e-3f);
        }
    }
    fake_run(&fake);
    check_two_cases();
    CHECK_EQ(fake_state(&fake)->token, 1);
}

static void a_batch_sent_again_changes_nothing(void) {
    ready_default();
    fake_run_batch(&fake, 1, START + 500000, 7, 2);
    fake_run(&fake);
    unsigned events = fake.log_count;
    CHECK_EQ(fake_run_batch(&fake, 1, START + 500000, 7, 2), 0);
    CHECK_EQ(fake_run_batch(&fake, 50, START + 900000, 7, 1), 0);
    CHECK_EQ(fake_state(&fake)->run, WIRE_RUN_STATUS_DONE);
    CHECK_EQ(fake_state(&fake)->token, 1);
    CHECK_EQ(fake.log_count, events);
    CHECK_EQ(fake_run_batch(&fake, 2, fake.now + 500000, 8, 1), 0);
    CHECK_EQ(fake_state(&fake)->cases_done, 0);
    fake_run(&fake);
    CHECK_EQ(done()->batch, 8);
}

static void run_checks_its_numbers(void) {
    ready_default();
    CHECK_EQ(fake_run_batch(&fake, 1, START + 1, 0, 1), WIRE_REASON_RANGE);
    CHECK_EQ(fake_run_batch(&fake, 1, START + 1, 1, 0), WIRE_REASON_RANGE);
    CHECK_EQ(fake_run_batch(&fake, 1, START + 1, 1, APP_CASES_MAX + 1), WIRE_REASON_RANGE);
    CHECK_EQ(fake_run_batch(&fake, 0, START + 1, 1, 1), WIRE_REASON_TOKEN_STALE);
    CHECK_EQ(fake_run_batch(&fake, 1, START, 1, 1), WIRE_REASON_TOKEN_EXPIRED);
    CHECK_EQ(fake_run_batch(&fake, 1, 0, 1, 1), WIRE_REASON_TOKEN_EXPIRED);
    CHECK_EQ(fake_state(&fake)->token, 0); /* a refused token is not used up */
    CHECK_EQ(fake_state(&fake)->batch, 0);
    CHECK_EQ(fake_run_batch(&fake, 5, START + 500000, 1, 1), 0);
    fake_run(&fake);
    CHECK_EQ(fake_run_batch(&fake, 5, fake.now + 500000, 2, 1), WIRE_REASON_TOKEN_STALE);
    CHECK_EQ(fake_run_batch(&fake, 4, fake.now + 500000, 2, 1), WIRE_REASON_TOKEN_STALE);
    CHECK_EQ(fake_run_batch(&fake, 6, fake.now + 500000, 2, 1), 0);
    fake_run(&fake);
    /* A new activation counts tokens and batches from the start. */
    CHECK_EQ(fake_mode(&fake, WIRE_MODE_INACTIVE), 0);
    CHECK_EQ(fake_mode(&fake, WIRE_MODE_ACTIVE), 0);
    CHECK_EQ(fake_state(&fake)->token, 0);
    CHECK_EQ(fake_run_batch(&fake, 1, fake.now + 500000, 2, 1), 0);
    CHECK_EQ(fake_state(&fake)->run, WIRE_RUN_STATUS_RUNNING);
}

static void all_cases_fit(void) {
    ready_default();
    CHECK_EQ(fake_run_batch(&fake, 1, START + 500000, 1, APP_CASES_MAX), 0);
    fake_run(&fake);
    expect_done(WIRE_RUN_STATUS_DONE, APP_CASES_MAX, START + APP_CASES_MAX * 1300 + 1000);
    for (unsigned i = 0; i < APP_CASES_MAX; i++) {
        CHECK(read_one(WIRE_TARGET_DISPLACEMENT, i, 5) == 0.01f * (float)(i + 1) * 1e-3f);
    }
}

/* Numbers on which a float32 sum fails: a large offset and small changes around it. */
static float reading(unsigned channel, unsigned sample) {
    float offset = channel % 2 ? 1000.0f : -0.001f;
    return offset * (1.0f + 1e-5f * (float)((sample * 2654435761u + channel) % 1009));
}

static void noisy(fake_t *board, float *displacement, float *elongation) {
    for (unsigned i = 0; i < FAKE_DOF; i++) {
        displacement[i] = reading(i, board->samples);
    }
    for (unsigned i = 0; i < FAKE_BONDS; i++) {
        elongation[i] = reading(FAKE_DOF + i, board->samples);
    }
}

static void averages_are_exact_to_float32(void) {
    const uint32_t sizes[] = {2, 3, 8, 1001, APP_SAMPLES_MAX};
    for (unsigned s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        wire_setup_t setup = fake_setup();
        setup.samples = sizes[s];
        ready(&setup);
        fake.physics = noisy;
        CHECK_EQ(fake_run_batch(&fake, 1, START + 900000, 1, 1), 0);
        fake_run(&fake);
        CHECK_EQ(done()->status, WIRE_RUN_STATUS_DONE);
        long double drift = 0;
        for (unsigned channel = 0; channel < FAKE_DOF + FAKE_BONDS; channel++) {
            long double sum = 0, first = 0, half = setup.samples / 2;
            for (unsigned i = 0; i < setup.samples; i++) {
                sum += (long double)reading(channel, i);
                first = i + 1 == setup.samples / 2 ? sum : first;
            }
            long double change = (sum - first) / (setup.samples - half) - first / half;
            drift = fabsl(change) > drift ? fabsl(change) : drift;
            long double mean = sum / setup.samples;
            bool force_side = channel < FAKE_DOF;
            float got = read_one(force_side ? WIRE_TARGET_DISPLACEMENT : WIRE_TARGET_ELONGATION, 0,
                                 force_side ? channel : channel - FAKE_DOF);
            /* Half a unit in the last place: the nearest float32 there is. */
            long double ulp = (long double)(nextafterf(fabsf(got), INFINITY) - fabsf(got));
            CHECK(fabsl((long double)got - mean) <= 0.5001L * ulp);
        }
        CHECK(fabsl((long double)measured(0)->drift - drift) <= 1e-6L * drift);
    }
}

/* A network that relaxes: u(t) = 1 mm (1 - exp(-(t - load) / 2 ms)) in one channel. */
static uint64_t loaded_at;

static double relaxing(uint64_t time) {
    return 1e-3 * (1 - exp(-((double)(time - loaded_at)) / 2000.0));
}

static void note_load(fake_t *board, const float *values) {
    loaded_at = values[0] != 0 ? board->now : loaded_at;
}

static void relaxation(fake_t *board, float *displacement, float *elongation) {
    memset(displacement, 0, FAKE_DOF * sizeof(float));
    memset(elongation, 0, FAKE_BONDS * sizeof(float));
    elongation[17] = (float)relaxing(board->now);
}

static void drift_grants_more_windows(void) {
    const float drift_max = 5e-6f;
    for (uint32_t granted = 0; granted <= 14; granted++) {
        wire_setup_t setup = fake_setup();
        setup.drift_max = drift_max;
        /* A window is 4 samples, 400 us; the time granted holds just so many, or nearly one more. */
        setup.settle_timeout_us = granted * 400 + (granted % 2 ? 399 : 0);
        ready(&setup);
        fake.physics = relaxation;
        fake.on_force = note_load;
        CHECK_EQ(fake_run_batch(&fake, 1, START + 900000, 1, 2), 0);
        fake_run(&fake);
        uint64_t time = START;
        for (unsigned i = 0; i < 2; i++) {
            /* From the closed form: the first window whose halves agree, or the last one. */
            double drift = 0;
            uint64_t first = time + 1000, load = time;
            for (uint32_t window = 0; window <= granted; window++, first += 400) {
                loaded_at = load;
                drift = fabs((relaxing(first + 200) + relaxing(first + 300)) / 2 -
                             (relaxing(first) + relaxing(first + 100)) / 2);
                if (drift <= (double)drift_max || window == granted) {
                    break;
                }
            }
            const wire_case_t *result = measured(i);
            CHECK_EQ(result->device_us, first + 300);
            CHECK_EQ(result->samples, 4);
            CHECK_EQ(result->flags, drift <= (double)drift_max ? WIRE_CASE_FLAG_SETTLED : 0);
            CHECK(fabs((double)result->drift - drift) < 1e-9);
            time = first + 300;
        }
        expect_done(WIRE_RUN_STATUS_DONE, 2, time + 1000);
        CHECK(granted != 0 || measured(0)->flags == 0);
        CHECK(granted != 14 || measured(0)->flags == WIRE_CASE_FLAG_SETTLED);
    }
}

static void expect_expired(uint64_t time, unsigned cases_done) {
    expect_done(WIRE_RUN_STATUS_EXPIRED, cases_done, time);
    CHECK_EQ(fake_event(&fake, DID_FORCE, -1)->time_us, time);
    const wire_state_t *state = fake_state(&fake);
    CHECK_EQ(state->mode, WIRE_MODE_FAULT);
    CHECK_EQ(state->fault, WIRE_FAULT_TOKEN_EXPIRED);
    CHECK_EQ(state->run, WIRE_RUN_STATUS_EXPIRED);
    CHECK_EQ(state->expired, 1);
}

/* For every microsecond a token may end at, the outputs are zero in that microsecond, and
 * what was due earlier has been done, what is due then or later has not. */
static void deadman_at_exactly_the_tick(void) {
    for (uint64_t end = START + 1; end <= 8601; end++) {
        ready_default();
        CHECK_EQ(fake_run_batch(&fake, 1, end, 1, 2), 0);
        fake_run(&fake);
        if (end > 8600) {
            check_two_cases();
            continue;
        }
        expect_expired(end, end > 7600 ? 2 : end > 6300 ? 1 : 0);
        unsigned expected = 0;
        while (expected < sizeof two_cases / sizeof two_cases[0] &&
               two_cases[expected].time_us < end) {
            CHECK_EQ(fake.log[expected].time_us, two_cases[expected].time_us);
            expected++;
        }
        CHECK_EQ(fake.log_count, expected + 1);
    }
}

static void a_token_lives_no_longer_than_the_watchdog(void) {
    wire_setup_t setup = fake_setup();
    setup.watchdog_us = 1100;
    ready(&setup);
    CHECK_EQ(fake_run_batch(&fake, 1, UINT64_MAX, 1, 2), 0);
    fake_run(&fake);
    expect_expired(START + 1100, 0);
}

static void stop_in_the_middle(void) {
    for (uint64_t time = START; time < 8600; time += 99) {
        ready_default();
        fake_run_batch(&fake, 1, START + 500000, 3, 2);
        fake_run_to(&fake, time);
        CHECK_EQ(fake_mode(&fake, WIRE_MODE_FAULT), 0);
        expect_done(WIRE_RUN_STATUS_STOPPED, time > 7600 ? 2 : time > 6300 ? 1 : 0, time);
        CHECK_EQ(fake_state(&fake)->mode, WIRE_MODE_FAULT);
        CHECK_EQ(fake_state(&fake)->fault, WIRE_FAULT_STOPPED);
        CHECK_EQ(fake_state(&fake)->expired, 0);
        fake_run(&fake);
        CHECK_EQ(fake.now, time); /* nothing is due any more */
        CHECK_EQ(fake_run_batch(&fake, 1, START + 500000, 3, 2), 0); /* sent again: told */
        CHECK_EQ(fake_run_batch(&fake, 2, START + 500000, 4, 2), WIRE_REASON_MODE);
        CHECK_EQ(fake_mode(&fake, WIRE_MODE_CLEAR), 0);
        CHECK_EQ(fake_mode(&fake, WIRE_MODE_ACTIVE), 0);
        CHECK_EQ(fake_run_batch(&fake, 1, fake.now + 500000, 3, 1), 0);
        fake_run(&fake);
        expect_done(WIRE_RUN_STATUS_DONE, 1, time + 2300);
    }
}

static void deactivation_ends_a_batch(void) {
    ready_default();
    fake_run_batch(&fake, 1, START + 500000, 3, 2);
    fake_run_to(&fake, 6150);
    CHECK_EQ(fake_mode(&fake, WIRE_MODE_INACTIVE), 0);
    expect_done(WIRE_RUN_STATUS_STOPPED, 0, 6150);
    CHECK_EQ(fake_state(&fake)->mode, WIRE_MODE_INACTIVE);
}

static void deadman_works_without_the_schema(void) {
    ready_default();
    fake_run_batch(&fake, 1, 7000, 3, 2);
    fake_run_to(&fake, 6150);
    wire_info_request_t wrong = {1}, right = {WIRE_SCHEMA_CRC};
    fake_ask(&fake, WIRE_INFO_REQUEST, &wrong, sizeof wrong);
    fake_run(&fake);
    fake_ask(&fake, WIRE_INFO_REQUEST, &right, sizeof right);
    expect_expired(7000, 1);
}

static void expect_failed(unsigned fault, unsigned cases_done) {
    fake_run(&fake);
    CHECK_EQ(done()->status, WIRE_RUN_STATUS_FAILED);
    CHECK_EQ(done()->cases_done, cases_done);
    CHECK_EQ(fake_state(&fake)->mode, WIRE_MODE_FAULT);
    CHECK_EQ(fake_state(&fake)->fault, fault);
    CHECK(fake_event(&fake, DID_FORCE, -1)->zero);
}

static void fail_third_sample(fake_t *board, float *displacement, float *elongation) {
    relaxation(board, displacement, elongation);
    if (board->samples == 2) {
        elongation[FAKE_BONDS - 1] = NAN;
    }
}

static void hardware_that_fails(void) {
    ready_default();
    fake.fail_force = 1;
    fake_run_batch(&fake, 1, START + 500000, 3, 2);
    expect_failed(WIRE_FAULT_ACTUATOR, 0);

    ready_default();
    fake_run_batch(&fake, 1, START + 500000, 3, 2);
    fake_run_to(&fake, 7350);
    fake.fail_sample = 1;
    expect_failed(WIRE_FAULT_SENSOR, 1);

    ready_default();
    fake.physics = fail_third_sample; /* a sensor that says NaN is a failed sensor */
    fake_run_batch(&fake, 1, START + 500000, 3, 2);
    expect_failed(WIRE_FAULT_SENSOR, 0);
    CHECK_EQ(fake.now, 6200);

    ready_default();
    fake_run_batch(&fake, 1, START + 500000, 3, 1);
    fake_run_to(&fake, 6299);
    fake.fail_force = 1; /* unloading works at the second attempt */
    fake_run(&fake);
    expect_done(WIRE_RUN_STATUS_DONE, 1, 7300);

    ready_default();
    fake_run_batch(&fake, 1, START + 500000, 3, 1);
    fake_run_to(&fake, 6299);
    fake.fail_force = 2; /* not in two: given up, tried again in the fault, which works */
    expect_failed(WIRE_FAULT_ACTUATOR, 1);
    CHECK(fake.force[0] == 0);

    ready_default();
    fake_run_batch(&fake, 1, 6000, 3, 1);
    fake_run_to(&fake, 5999);
    fake.fail_force = -1; /* a deadman that cannot act says so */
    fake_run(&fake);
    CHECK_EQ(fake_state(&fake)->fault, WIRE_FAULT_ACTUATOR);
    CHECK_EQ(fake_state(&fake)->run, WIRE_RUN_STATUS_EXPIRED);
}

/* A board whose calls take time: settling and spacing hold, nothing is repaid in a burst. */
static void slow_call(fake_t *board) { board->now += 250; }

static void one_slow_sample(fake_t *board) { board->now += board->samples == 1 ? 250 : 0; }

static void a_slow_board_is_late_not_hasty(void) {
    ready_default();
    fake.on_call = slow_call;
    fake_run_batch(&fake, 1, START + 500000, 3, 2);
    fake_run(&fake);
    uint64_t last = 0;
    for (unsigned i = 0; i < fake.log_count; i++) {
        bool first_sample = fake.log[i].what == DID_SAMPLE && fake.log[i - 1].what == DID_FORCE;
        /* The force is on at the end of its call, 250 us after its time stamp. */
        CHECK(i == 0 || fake.log[i].time_us >= last + (first_sample ? 250 + 1000 : 100));
        last = fake.log[i].time_us;
    }
    CHECK_EQ(done()->status, WIRE_RUN_STATUS_DONE);
    CHECK_EQ(fake_count(&fake, DID_SAMPLE), 8);

    ready_default();
    fake.on_call = one_slow_sample; /* the second takes 250 us: one period is missed */
    fake_run_batch(&fake, 1, START + 500000, 3, 1);
    fake_run(&fake);
    const uint64_t expected[] = {6000, 6100, 6350, 6450};
    for (int i = 0; i < 4; i++) {
        CHECK_EQ(fake_event(&fake, DID_SAMPLE, i)->time_us, expected[i]);
    }
}

/* A board that comes back late from something with a request waiting: the token first. */
static void deadman_comes_before_a_late_request(void) {
    ready_default();
    fake_run_batch(&fake, 1, 6050, 3, 2);
    fake_run_to(&fake, 6040);
    fake.now = 6060;
    CHECK_EQ(fake_state(&fake)->run, WIRE_RUN_STATUS_EXPIRED);
    expect_expired(6060, 0);
}

int main(void) {
    TEST(timeline);
    TEST(requests_do_not_move_the_schedule);
    TEST(a_batch_sent_again_changes_nothing);
    TEST(run_checks_its_numbers);
    TEST(all_cases_fit);
    TEST(averages_are_exact_to_float32);
    TEST(drift_grants_more_windows);
    TEST(deadman_at_exactly_the_tick);
    TEST(a_token_lives_no_longer_than_the_watchdog);
    TEST(stop_in_the_middle);
    TEST(deactivation_ends_a_batch);
    TEST(deadman_works_without_the_schema);
    TEST(hardware_that_fails);
    TEST(deadman_comes_before_a_late_request);
    TEST(a_slow_board_is_late_not_hasty);
    return report("test_batch");
}
