#include "app.h"

#include <string.h>

/* Any request common to all applications, aligned as its fields need. */
typedef union {
    wire_info_request_t info;
    wire_time_request_t time;
    wire_mode_request_t mode;
    wire_state_request_t state;
} request_t;

/* Payload bytes of a common request; 0: not one of them. */
static size_t common_size(uint8_t type) {
    switch (type) {
    case WIRE_INFO_REQUEST:
        return sizeof(wire_info_request_t);
    case WIRE_TIME_REQUEST:
        return sizeof(wire_time_request_t);
    case WIRE_MODE_REQUEST:
        return sizeof(wire_mode_request_t);
    case WIRE_STATE_REQUEST:
        return sizeof(wire_state_request_t);
    default:
        return 0;
    }
}

/* Every application begins with the memory they share, so any of them is `self`. */
static void *self(app_t *app) { return &app->network; }

int app_init(app_t *app, const hal_t *hal) {
    static const application_t *const known[] = {&network_application, &cart_pole_application};
    memset(app, 0, sizeof *app);
    app->core.hal = hal;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (known[i]->number == hal->application) {
            app->application = known[i];
            app->core.application = known[i]->number;
            return known[i]->start(self(app), &app->core);
        }
    }
    return -1;
}

void app_stop(app_t *app) {
    app->application->stop(self(app));
    core_latch(&app->core, WIRE_FAULT_STOPPED);
}

static verdict_t activate(app_t *app) {
    core_t *core = &app->core;
    if (!app->application->ready(self(app))) {
        return refused(WIRE_REASON_NOT_SET_UP, 0);
    }
    core->mode = WIRE_MODE_ACTIVE;
    core->token = 0; /* a new life: tokens are counted from the start again */
    app->application->activated(self(app));
    return accepted();
}

/* Asking for the mode that is there already is accepted and changes nothing. */
static verdict_t change_mode(app_t *app, uint32_t asked) {
    core_t *core = &app->core;
    bool fault = core->mode == WIRE_MODE_FAULT;
    switch (asked) {
    case WIRE_MODE_FAULT:
        app_stop(app);
        return accepted();
    case WIRE_MODE_CLEAR:
        if (core->mode == WIRE_MODE_ACTIVE) {
            return refused(WIRE_REASON_MODE, 0);
        }
        if (fault) {
            /* Out of FAULT only with outputs known to be safe. */
            core->mode = WIRE_MODE_INACTIVE;
            core->fault = WIRE_FAULT_NONE;
            app->application->release(self(app));
        }
        return accepted();
    case WIRE_MODE_INACTIVE:
        if (core->mode == WIRE_MODE_ACTIVE) {
            core->mode = WIRE_MODE_INACTIVE;
            app->application->stop(self(app));
        }
        return fault ? refused(WIRE_REASON_MODE, 0) : accepted();
    case WIRE_MODE_ACTIVE:
        if (core->mode == WIRE_MODE_INACTIVE) {
            return activate(app);
        }
        return fault ? refused(WIRE_REASON_MODE, 0) : accepted();
    default:
        return refused(WIRE_REASON_RANGE, 0);
    }
}

static void handle(app_t *app, const frame_t *frame) {
    core_t *core = &app->core;
    verdict_t verdict = accepted();
    request_t request;
    memcpy(&request, frame->payload, frame->size);
    switch (frame->type) {
    case WIRE_TIME_REQUEST:
        core_time(core, frame->seq, &request.time);
        return;
    case WIRE_MODE_REQUEST:
        verdict = change_mode(app, request.mode.mode);
        break;
    default: /* StateRequest */
        break;
    }
    core_answer(core, frame, verdict);
}

static void dispatch(app_t *app, const frame_t *frame) {
    core_t *core = &app->core;
    size_t common = common_size(frame->type);
    size_t size = common != 0 ? common : app->application->request_size(frame->type);
    if (size == 0 || frame->size != size) {
        core->unknown++;
        return;
    }
    core->frames++;
    if (frame->type == WIRE_INFO_REQUEST) {
        wire_info_request_t info;
        memcpy(&info, frame->payload, sizeof info);
        core_info(core, frame->seq, &info);
    } else if (!core->schema_known) {
        core_answer(core, frame, refused(WIRE_REASON_SCHEMA, 0));
    } else {
        app->application->deadman(self(app));
        if (common != 0) {
            handle(app, frame);
        } else {
            app->application->handle(self(app), frame);
        }
    }
}

static void listen(app_t *app) {
    const hal_t *hal = app->core.hal;
    uint8_t bytes[256]; /* a bounded bite: a talkative host does not hold up the deadman */
    size_t count = hal->host_read(hal->context, bytes, sizeof bytes);
    for (size_t i = 0; i < count; i++) {
        frame_t frame;
        if (frame_parse(&app->core.parser, bytes[i], &frame)) {
            dispatch(app, &frame);
        }
    }
}

void app_poll(app_t *app) {
    const hal_t *hal = app->core.hal;
    const application_t *application = app->application;
    if (!application->deaf(self(app))) {
        listen(app);
    }
    application->step(self(app));
    uint64_t next = application->next(self(app));
    if (application->deaf(self(app))) {
        hal->advance_to(hal->context, next);
    } else {
        hal->wait_until(hal->context, next);
    }
}
