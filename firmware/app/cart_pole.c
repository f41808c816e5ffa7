#include "cart_pole.h"

#include <math.h>
#include <string.h>

#include "application.h"

typedef union {
    wire_cart_pole_setup_t setup;
    wire_drive_t drive;
    wire_pass_t pass;
    wire_sample_request_t sample;
} request_t;

static const hal_t *hal_of(const cart_pole_t *cart) { return cart->core->hal; }

/* Set the force to zero, trying twice; a board that cannot is in FAULT ACTUATOR. */
static void release(void *self) {
    static const float zero = 0;
    cart_pole_t *cart = self;
    const hal_t *hal = hal_of(cart);
    cart->armed = false;
    cart->asked = cart->commanded = 0;
    for (int attempt = 0; attempt < 2; attempt++) {
        uint64_t now = core_now(cart->core);
        if (hal->write_force(hal->context, now, &zero, &cart->applied, 1) == 0) {
            return;
        }
    }
    core_latch(cart->core, WIRE_FAULT_ACTUATOR);
}

static void fail(cart_pole_t *cart, unsigned fault) {
    core_latch(cart->core, fault);
    release(cart);
}

static void deadman(void *self) {
    cart_pole_t *cart = self;
    core_t *core = cart->core;
    if (cart->armed && core_now(core) >= core->valid_until) {
        core->expired++;
        fail(cart, WIRE_FAULT_TOKEN_EXPIRED);
    }
}

/* Set the output to what was asked for, or to zero where that would drive the cart further
 * out of its travel. Written only when it changes. */
static void drive(cart_pole_t *cart) {
    const hal_t *hal = hal_of(cart);
    bool outside = fabsf(cart->position) > cart->setup.travel;
    bool outward = outside && cart->asked != 0 && (cart->asked > 0) == (cart->position > 0);
    float wanted = outward ? 0 : cart->asked;
    cart->flags = (uint16_t)(cart->flags & ~WIRE_SAMPLE_FLAG_INTERLOCK);
    if (outward) {
        cart->flags |= WIRE_SAMPLE_FLAG_INTERLOCK;
    }
    if (wanted == cart->commanded) {
        return;
    }
    cart->commanded = wanted;
    int failed =
        hal->write_force(hal->context, core_now(cart->core), &wanted, &cart->applied, 1);
    if (failed != 0 || !isfinite(cart->applied)) {
        fail(cart, WIRE_FAULT_ACTUATOR);
    }
}

static bool within(float value, float low, float high) {
    return isfinite(value) && value > low && value <= high;
}

static verdict_t take_setup(cart_pole_t *cart, const wire_cart_pole_setup_t *setup) {
    core_t *core = cart->core;
    const hal_t *hal = hal_of(cart);
    if (core->mode != WIRE_MODE_INACTIVE) {
        return refused(WIRE_REASON_MODE, 0);
    }
    const bool good[] = {
        /* in the order of the fields: the index of the first false one is the detail */
        within(setup->force_max, 0, hal->force_max),
        within(setup->travel, 0, INFINITY),
        within(setup->travel_hard, setup->travel, INFINITY),
        setup->watchdog_us > 0 && setup->watchdog_us <= hal->watchdog_max_us,
        setup->tick_us > 0 && setup->tick_us >= hal->tick_min_us &&
            setup->tick_us <= CART_POLE_TICK_MAX_US,
        setup->stream_every > 0 && setup->stream_every <= CART_POLE_STREAM_MAX,
        setup->stuck_impulse == 0 || within(setup->stuck_impulse, 0, INFINITY),
    };
    for (uint32_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        if (!good[i]) {
            return refused(WIRE_REASON_RANGE, i);
        }
    }
    cart->setup = *setup;
    cart->set_up = true;
    cart->held = false;
    cart->due = core_now(core);
    cart->to_stream = 0;
    cart->flags = 0;
    return accepted();
}

static verdict_t take_drive(cart_pole_t *cart, const wire_drive_t *asked) {
    core_t *core = cart->core;
    if (core->mode != WIRE_MODE_ACTIVE) {
        return refused(WIRE_REASON_MODE, 0);
    }
    if (cart->armed && asked->token == core->token) {
        return accepted(); /* sent again: the answer is the one that was lost */
    }
    if (!isfinite(asked->force)) {
        return refused(WIRE_REASON_NOT_FINITE, 0);
    }
    if (fabsf(asked->force) > cart->setup.force_max) {
        return refused(WIRE_REASON_LIMIT, 0);
    }
    uint64_t now = core_now(core);
    verdict_t verdict =
        core_take_token(core, now, asked->token, asked->valid_until_us, cart->setup.watchdog_us);
    if (verdict.reason != 0) {
        return verdict;
    }
    cart->armed = true;
    cart->asked = asked->force;
    drive(cart);
    cart->held = false;
    cart->driven = (wire_driven_t){
        .device_us = now,
        .token = core->token,
        .sample = core->batch,
        .force = cart->applied,
        .flags = cart->flags,
    };
    return core->mode == WIRE_MODE_ACTIVE ? accepted() : refused(WIRE_REASON_MODE, 0);
}

static verdict_t take_pass(cart_pole_t *cart, const wire_pass_t *pass) {
    if (!cart->set_up) {
        return refused(WIRE_REASON_NOT_SET_UP, 0);
    }
    if (pass->sample > cart->core->batch) {
        return refused(WIRE_REASON_RANGE, 0);
    }
    if (pass->sample == cart->core->batch) {
        cart->held = false;
    }
    return accepted();
}

static size_t request_size(uint8_t type) {
    switch (type) {
    case WIRE_CART_POLE_SETUP:
        return sizeof(wire_cart_pole_setup_t);
    case WIRE_DRIVE:
        return sizeof(wire_drive_t);
    case WIRE_PASS:
        return sizeof(wire_pass_t);
    case WIRE_SAMPLE_REQUEST:
        return sizeof(wire_sample_request_t);
    default:
        return 0;
    }
}

static void handle(void *self, const frame_t *frame) {
    cart_pole_t *cart = self;
    core_t *core = cart->core;
    verdict_t verdict;
    request_t request;
    memcpy(&request, frame->payload, frame->size);
    switch (frame->type) {
    case WIRE_CART_POLE_SETUP:
        verdict = take_setup(cart, &request.setup);
        break;
    case WIRE_DRIVE:
        verdict = take_drive(cart, &request.drive);
        if (verdict.reason == 0) {
            core_send(core, WIRE_DRIVEN, frame->seq, &cart->driven, sizeof cart->driven);
            return;
        }
        break;
    case WIRE_PASS:
        verdict = take_pass(cart, &request.pass);
        break;
    default: /* SampleRequest */
        verdict = core->batch != 0 ? accepted() : refused(WIRE_REASON_NOT_SET_UP, 0);
        if (verdict.reason == 0) {
            core_send(core, WIRE_SAMPLE, frame->seq, &cart->sample, sizeof cart->sample);
            return;
        }
        break;
    }
    core_answer(core, frame, verdict);
}

static void stream(cart_pole_t *cart, uint64_t now) {
    core_t *core = cart->core;
    core->batch++;
    cart->sample = (wire_sample_t){
        .device_us = now,
        .sample = core->batch,
        .token = core->token,
        .angle = cart->angle,
        .position = cart->position,
        .force = cart->applied,
        .mode = core->mode,
        .fault = core->fault,
        .flags = cart->flags,
    };
    core_send(core, WIRE_SAMPLE, 0, &cart->sample, sizeof cart->sample);
    cart->flags = (uint16_t)(cart->flags & ~WIRE_SAMPLE_FLAG_LATE);
    cart->held = true;
}

/* The schedule is absolute: a tick that was missed is flagged, not made up for. */
static bool schedule(cart_pole_t *cart, uint64_t now) {
    uint64_t missed = (now - cart->due) / cart->setup.tick_us;
    bool due = missed >= cart->to_stream;
    if (missed > 0) {
        cart->flags |= WIRE_SAMPLE_FLAG_LATE;
    }
    cart->due += (missed + 1) * cart->setup.tick_us;
    uint64_t every = cart->setup.stream_every;
    uint64_t after = due ? every - 1 - (missed - cart->to_stream) % every
                         : cart->to_stream - missed - 1;
    cart->to_stream = (uint32_t)after;
    return due;
}

static void forget(stillness_t *still, float reading, float force) {
    *still = (stillness_t){.reading = reading, .force = (double)force};
}

/* Whether a reading has stayed the same, to the last bit, for longer than the force allows.
 * A force that stays as it was tells nothing (a slope, say); one that changes must move the
 * cart and with it the pole. */
static bool stuck(cart_pole_t *cart, stillness_t *still, float reading, uint64_t elapsed_us) {
    if (reading != still->reading) {
        forget(still, reading, cart->applied);
        return false;
    }
    still->impulse += fabs((double)cart->applied - still->force) * (double)elapsed_us;
    double limit = (double)cart->setup.stuck_impulse * 1e6;
    return limit > 0 && still->impulse > limit;
}

/* Read the sensors and let the output follow; what is no reading is not kept. */
static void look(cart_pole_t *cart, uint64_t now, uint32_t ahead) {
    const hal_t *hal = hal_of(cart);
    float angle, position;
    int failed = hal->pose(hal->context, now, cart->setup.tick_us, ahead, &angle, &position);
    if (failed != 0 || !isfinite(angle) || !isfinite(position)) {
        fail(cart, WIRE_FAULT_SENSOR);
        return;
    }
    uint64_t elapsed = now - cart->looked;
    cart->looked = now;
    cart->angle = angle;
    cart->position = position;
    if (cart->core->mode != WIRE_MODE_ACTIVE) {
        return;
    }
    if (fabsf(position) > cart->setup.travel_hard) {
        fail(cart, WIRE_FAULT_TRAVEL);
        return;
    }
    bool angle_stuck = stuck(cart, &cart->still[0], angle, elapsed);
    bool position_stuck = stuck(cart, &cart->still[1], position, elapsed);
    if (angle_stuck || position_stuck) {
        fail(cart, WIRE_FAULT_STUCK);
        return;
    }
    drive(cart);
}

static void step(void *self) {
    cart_pole_t *cart = self;
    deadman(cart);
    uint64_t now = core_now(cart->core);
    if (!cart->set_up || now < cart->due) {
        return;
    }
    uint32_t ahead = cart->to_stream;
    bool streamed = schedule(cart, now);
    look(cart, now, ahead);
    if (streamed) {
        stream(cart, now);
    }
}

/* Whether time stands still until the host answers. It does not while the host is gone and
 * a force may be on: then its token must be able to run out. */
static bool waiting(const cart_pole_t *cart) {
    const hal_t *hal = hal_of(cart);
    return hal->advance_to != NULL && cart->held &&
           !(cart->armed && !hal->host_present(hal->context));
}

static uint64_t next(const void *self) {
    const cart_pole_t *cart = self;
    if (!cart->set_up || waiting(cart)) {
        return UINT64_MAX;
    }
    uint64_t end = cart->armed ? cart->core->valid_until : UINT64_MAX;
    return cart->due < end ? cart->due : end;
}

static bool deaf(const void *self) {
    const cart_pole_t *cart = self;
    return cart->set_up && hal_of(cart)->advance_to != NULL && !waiting(cart);
}

static int start(void *self, core_t *core) {
    cart_pole_t *cart = self;
    if (core->hal->dof != 1) {
        return -1;
    }
    cart->core = core;
    release(cart);
    return 0;
}

static bool ready(const void *self) { return ((const cart_pole_t *)self)->set_up; }

static void activated(void *self) {
    cart_pole_t *cart = self;
    cart->flags = 0;
    forget(&cart->still[0], cart->angle, cart->applied);
    forget(&cart->still[1], cart->position, cart->applied);
}

const application_t cart_pole_application = {
    .number = WIRE_APPLICATION_CART_POLE,
    .start = start,
    .request_size = request_size,
    .handle = handle,
    .ready = ready,
    .activated = activated,
    .stop = release,
    .release = release,
    .deadman = deadman,
    .step = step,
    .next = next,
    .deaf = deaf,
};
