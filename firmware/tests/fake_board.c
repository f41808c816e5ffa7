#include "fake_board.h"

#include <string.h>

#include "check.h"

static uint64_t time_us(void *context) { return ((fake_t *)context)->now; }

static size_t host_read(void *context, uint8_t *bytes, size_t size) {
    fake_t *fake = context;
    size_t left = fake->input_count - fake->input_at;
    size_t count = left < size ? left : size;
    memcpy(bytes, fake->input + fake->input_at, count);
    fake->input_at += count;
    return count;
}

static void host_write(void *context, const uint8_t *bytes, size_t count) {
    fake_t *fake = context;
    for (size_t i = 0; i < count; i++) {
        frame_t frame;
        if (frame_parse(&fake->parser, bytes[i], &frame)) {
            CHECK(frame.size <= WIRE_PAYLOAD_MAX);
            reply_t *reply = &fake->replies[fake->reply_count++ % FAKE_REPLIES];
            reply->type = frame.type;
            reply->seq = frame.seq;
            reply->size = frame.size;
            memcpy(reply->bytes, frame.payload, frame.size);
        }
    }
    CHECK_EQ(fake->parser.bad_frames, 0);
}

static void wait_until(void *context, uint64_t until_us) {
    fake_t *fake = context;
    if (fake->on_wait != NULL) {
        fake->on_wait(fake, until_us);
    }
    if (fake->input_at < fake->input_count) {
        return;
    }
    fake->idle = until_us == UINT64_MAX;
    fake->paused = until_us > fake->stop_at;
    uint64_t until = fake->paused ? fake->stop_at : until_us;
    if (!fake->idle && until > fake->now) {
        fake->now = until;
    }
}

static void note(fake_t *fake, did_t what, uint64_t time, const float *values, unsigned n) {
    CHECK(time <= fake->now);
    CHECK(fake->log_count < FAKE_LOG);
    event_t *event = &fake->log[fake->log_count++];
    *event = (event_t){.what = what, .time_us = time, .zero = true};
    event->first = n > 0 ? values[0] : 0;
    for (unsigned i = 0; i < n; i++) {
        event->zero = event->zero && values[i] == 0;
    }
    if (fake->on_call != NULL) {
        fake->on_call(fake);
    }
}

static bool fails(int *calls) {
    if (*calls > 0) {
        --*calls;
        return true;
    }
    return *calls < 0;
}

static int write_force(void *context, uint64_t time, const float *values, float *applied,
                       uint16_t n) {
    fake_t *fake = context;
    CHECK_EQ(n, fake->hal.dof);
    if (fake->on_force != NULL) {
        fake->on_force(fake, values);
    }
    note(fake, DID_FORCE, time, values, n);
    if (fails(&fake->fail_force)) {
        return -1;
    }
    memcpy(fake->force, values, n * sizeof(float));
    memcpy(applied, values, n * sizeof(float));
    return 0;
}

static int write_stiffness(void *context, uint64_t time, const float *values, float *applied,
                           uint16_t n) {
    fake_t *fake = context;
    CHECK_EQ(n, FAKE_BONDS);
    if (fake->on_stiffness != NULL) {
        fake->on_stiffness(fake, values);
    }
    note(fake, DID_STIFFNESS, time, values, n);
    if (fails(&fake->fail_stiffness)) {
        return -1;
    }
    for (unsigned i = 0; i < n; i++) {
        fake->stiffness[i] = applied[i] = values[i] + 0.25f; /* an actuator that is off */
    }
    return 0;
}

/* Every displacement is its force in thousandths, every elongation a number of its own. */
static void at_rest(fake_t *fake, float *displacement, float *elongation) {
    for (unsigned i = 0; i < FAKE_DOF; i++) {
        displacement[i] = fake->force[i] * 1e-3f;
    }
    for (unsigned i = 0; i < FAKE_BONDS; i++) {
        elongation[i] = (float)i * 1e-6f;
    }
}

static int sample(void *context, uint64_t time, float *displacement, float *elongation) {
    fake_t *fake = context;
    note(fake, DID_SAMPLE, time, NULL, 0);
    if (fails(&fake->fail_sample)) {
        return -1;
    }
    fake->physics(fake, displacement, elongation);
    fake->samples++;
    return 0;
}

static int pose(void *context, uint64_t time, uint32_t period_us, uint32_t ahead, float *angle,
                float *position) {
    fake_t *fake = context;
    CHECK(period_us > 0);
    note(fake, DID_POSE, time, NULL, 0);
    fake->ahead = ahead;
    *angle = fake->angle;
    *position = fake->position;
    return fails(&fake->fail_sample) ? -1 : 0;
}

static void advance_to(void *context, uint64_t until_us) {
    fake_t *fake = context;
    CHECK(until_us != UINT64_MAX);
    fake->idle = false;
    fake->paused = until_us > fake->stop_at;
    uint64_t until = fake->paused ? fake->stop_at : until_us;
    fake->now = until > fake->now ? until : fake->now;
}

static bool host_present(void *context) { return !((const fake_t *)context)->host_gone; }

void fake_make(fake_t *fake, uint64_t start) {
    memset(fake, 0, sizeof *fake);
    fake->now = start;
    fake->stop_at = UINT64_MAX;
    fake->physics = at_rest;
    fake->hal = (hal_t){
        .context = fake,
        .board = "fake",
        .device_id = 77,
        .application = WIRE_APPLICATION_SPRING_NETWORK,
        .dof = FAKE_DOF,
        .bonds = FAKE_BONDS,
        .watchdog_max_us = 2000000,
        .force_max = 1.0f,
        .stiffness_low = 10.0f,
        .stiffness_high = 1000.0f,
        .time_us = time_us,
        .host_read = host_read,
        .host_write = host_write,
        .wait_until = wait_until,
        .write_force = write_force,
        .write_stiffness = write_stiffness,
        .sample = sample,
    };
}

static void start_app(fake_t *fake) {
    CHECK_EQ(app_init(&fake->app, &fake->hal), 0);
    wire_info_request_t info = {WIRE_SCHEMA_CRC};
    CHECK_EQ(fake_ask(fake, WIRE_INFO_REQUEST, &info, sizeof info)->type, WIRE_INFO);
}

void fake_start(fake_t *fake, uint64_t start) {
    fake_make(fake, start);
    start_app(fake);
}

void fake_start_cart_pole(fake_t *fake, uint64_t start, bool lock_step) {
    fake_make(fake, start);
    fake->hal.application = WIRE_APPLICATION_CART_POLE;
    fake->hal.dof = 1;
    fake->hal.bonds = 0;
    fake->hal.force_max = 50.0f;
    fake->hal.tick_min_us = 100;
    fake->hal.pose = pose;
    fake->hal.advance_to = lock_step ? advance_to : NULL;
    fake->hal.host_present = host_present;
    start_app(fake);
}

void fake_feed(fake_t *fake, const uint8_t *bytes, size_t count) {
    if (fake->input_at == fake->input_count) {
        fake->input_at = fake->input_count = 0;
    }
    CHECK(count <= sizeof fake->input - fake->input_count);
    memcpy(fake->input + fake->input_count, bytes, count);
    fake->input_count += count;
}

void fake_send(fake_t *fake, unsigned type, uint16_t seq, const void *payload, size_t size) {
    uint8_t bytes[FRAME_MAX];
    frame_t frame = {.type = (uint8_t)type, .seq = seq, .payload = payload, .size = size};
    fake_feed(fake, bytes, frame_encode(&frame, bytes));
}

void fake_run_to(fake_t *fake, uint64_t stop_at) {
    unsigned turns = 0;
    fake->stop_at = stop_at;
    do {
        CHECK(++turns < 1000000); /* a loop that turns for ever does nothing */
        app_poll(&fake->app);
    } while (fake->input_at < fake->input_count || !(fake->idle || fake->paused));
    fake->stop_at = UINT64_MAX;
}

void fake_run(fake_t *fake) { fake_run_to(fake, UINT64_MAX - 1); }

const reply_t *fake_ask(fake_t *fake, unsigned type, const void *payload, size_t size) {
    static uint16_t seq;
    unsigned before = fake->reply_count;
    fake_send(fake, type, ++seq, payload, size);
    fake_run_to(fake, fake->now);
    for (unsigned i = before; i < fake->reply_count; i++) {
        const reply_t *reply = &fake->replies[i % FAKE_REPLIES];
        if (reply->seq == seq) {
            return reply;
        }
    }
    CHECK(!"an answer with the seq of the request");
    return NULL;
}

unsigned fake_reason(fake_t *fake, unsigned type, const void *payload, size_t size) {
    const reply_t *reply = fake_ask(fake, type, payload, size);
    if (reply->type == WIRE_REFUSED) {
        CHECK_EQ(reply->refused.type, type);
        CHECK_EQ(reply->refused.device_us, fake->now);
        return reply->refused.reason;
    }
    CHECK_EQ(reply->type, WIRE_STATE);
    return 0;
}

unsigned fake_mode(fake_t *fake, uint32_t mode) {
    wire_mode_request_t request = {mode};
    return fake_reason(fake, WIRE_MODE_REQUEST, &request, sizeof request);
}

unsigned fake_write(fake_t *fake, unsigned target, unsigned load_case, float value) {
    unsigned size = target == WIRE_TARGET_FORCE ? FAKE_DOF : FAKE_BONDS;
    for (unsigned at = 0; at < size; at += WIRE_VALUES_MAX) {
        unsigned count = size - at < WIRE_VALUES_MAX ? size - at : WIRE_VALUES_MAX;
        wire_write_t write = {(uint16_t)target, (uint16_t)load_case, (uint16_t)at,
                              (uint16_t)count, {0}};
        for (unsigned i = 0; i < count; i++) {
            write.values[i] = value;
        }
        unsigned reason = fake_reason(fake, WIRE_WRITE, &write, sizeof write);
        if (reason != 0) {
            return reason;
        }
    }
    return 0;
}

unsigned fake_run_batch(fake_t *fake, uint32_t token, uint64_t valid_until, uint32_t batch,
                        uint32_t cases) {
    wire_run_t run = {valid_until, token, batch, cases, 0};
    return fake_reason(fake, WIRE_RUN, &run, sizeof run);
}

const wire_state_t *fake_state(fake_t *fake) {
    wire_state_request_t request = {0};
    const reply_t *reply = fake_ask(fake, WIRE_STATE_REQUEST, &request, sizeof request);
    CHECK_EQ(reply->type, WIRE_STATE);
    return &reply->state;
}

const reply_t *fake_newest(const fake_t *fake, unsigned type) {
    for (unsigned i = fake->reply_count; i > 0 && i + FAKE_REPLIES > fake->reply_count; i--) {
        const reply_t *reply = &fake->replies[(i - 1) % FAKE_REPLIES];
        if (reply->type == type) {
            return reply;
        }
    }
    return NULL;
}

unsigned fake_count(const fake_t *fake, did_t what) {
    unsigned count = 0;
    for (unsigned i = 0; i < fake->log_count; i++) {
        count += fake->log[i].what == what;
    }
    return count;
}

const event_t *fake_event(const fake_t *fake, did_t what, int index) {
    int wanted = index < 0 ? (int)fake_count(fake, what) + index : index;
    for (unsigned i = 0; i < fake->log_count; i++) {
        if (fake->log[i].what == what && wanted-- == 0) {
            return &fake->log[i];
        }
    }
    CHECK(!"an event with this index");
    return NULL;
}

wire_setup_t fake_setup(void) {
    return (wire_setup_t){
        .force_max = 0.5f,
        .stiffness_low = 50.0f,
        .stiffness_high = 200.0f,
        .drift_max = 0.0f,
        .watchdog_us = 1000000,
        .settle_us = 1000,
        .settle_timeout_us = 0,
        .sample_period_us = 100,
        .samples = 4,
    };
}

void fake_activate(fake_t *fake, const wire_setup_t *setup) {
    CHECK_EQ(fake_reason(fake, WIRE_SETUP, setup, sizeof *setup), 0);
    CHECK_EQ(fake_mode(fake, WIRE_MODE_ACTIVE), 0);
    CHECK_EQ(fake_write(fake, WIRE_TARGET_STIFFNESS, 0, 100.0f), 0);
    wire_apply_t apply = {FAKE_BONDS};
    CHECK_EQ(fake_reason(fake, WIRE_APPLY, &apply, sizeof apply), 0);
    fake->log_count = 0;
}
