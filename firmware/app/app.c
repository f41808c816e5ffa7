#include "app.h"

#include <string.h>

/* Any request, aligned as its fields need. */
typedef union {
    wire_info_request_t info;
    wire_time_request_t time;
    wire_mode_request_t mode;
    wire_state_request_t state;
    wire_setup_t setup;
    wire_write_t write;
    wire_apply_t apply;
    wire_read_t read;
    wire_run_t run;
    wire_case_request_t load_case;
} request_t;

/* Payload bytes of a request; 0: no such request. */
static size_t request_size(uint8_t type) {
    switch (type) {
    case WIRE_INFO_REQUEST:
        return sizeof(wire_info_request_t);
    case WIRE_TIME_REQUEST:
        return sizeof(wire_time_request_t);
    case WIRE_MODE_REQUEST:
        return sizeof(wire_mode_request_t);
    case WIRE_STATE_REQUEST:
        return sizeof(wire_state_request_t);
    case WIRE_SETUP:
        return sizeof(wire_setup_t);
    case WIRE_WRITE:
        return sizeof(wire_write_t);
    case WIRE_APPLY:
        return sizeof(wire_apply_t);
    case WIRE_READ:
        return sizeof(wire_read_t);
    case WIRE_RUN:
        return sizeof(wire_run_t);
    case WIRE_CASE_REQUEST:
        return sizeof(wire_case_request_t);
    default:
        return 0;
    }
}

int app_init(app_t *app, const hal_t *hal) {
    memset(app, 0, sizeof *app);
    if (hal->dof < 1 || hal->dof > APP_DOF_MAX || hal->bonds < 1 || hal->bonds > APP_BONDS_MAX) {
        return -1;
    }
    app->core.hal = hal;
    app->network.core = &app->core;
    network_release(&app->network);
    return 0;
}

void app_stop(app_t *app) {
    batch_end(&app->network, WIRE_RUN_STATUS_STOPPED);
    core_latch(&app->core, WIRE_FAULT_STOPPED);
}

static verdict_t activate(app_t *app) {
    core_t *core = &app->core;
    if (!app->network.set_up) {
        return refused(WIRE_REASON_NOT_SET_UP, 0);
    }
    /* A new life: tokens and batches are counted from the start again. */
    core->mode = WIRE_MODE_ACTIVE;
    core->token = 0;
    core->batch = 0;
    core->run = WIRE_RUN_STATUS_NONE;
    core->cases_done = 0;
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
            network_release(&app->network);
        }
        return accepted();
    case WIRE_MODE_INACTIVE:
        if (core->mode == WIRE_MODE_ACTIVE) {
            core->mode = WIRE_MODE_INACTIVE;
            batch_end(&app->network, WIRE_RUN_STATUS_STOPPED);
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

static void handle(app_t *app, const frame_t *frame, const request_t *request) {
    core_t *core = &app->core;
    network_t *network = &app->network;
    verdict_t verdict = accepted();
    wire_values_t values;
    wire_case_t measured;
    switch (frame->type) {
    case WIRE_TIME_REQUEST:
        core_time(core, frame->seq, &request->time);
        return;
    case WIRE_READ:
        verdict = network_read(network, &request->read, &values);
        if (verdict.reason == 0) {
            core_send(core, WIRE_VALUES, frame->seq, &values, sizeof values);
            return;
        }
        break;
    case WIRE_CASE_REQUEST:
        verdict = network_case(network, &request->load_case, &measured);
        if (verdict.reason == 0) {
            core_send(core, WIRE_CASE, frame->seq, &measured, sizeof measured);
            return;
        }
        break;
    case WIRE_MODE_REQUEST:
        verdict = change_mode(app, request->mode.mode);
        break;
    case WIRE_SETUP:
        verdict = network_setup(network, &request->setup);
        break;
    case WIRE_WRITE:
        verdict = network_write(network, &request->write);
        break;
    case WIRE_APPLY:
        verdict = network_apply(network, &request->apply);
        break;
    case WIRE_RUN:
        verdict = batch_run(network, &request->run);
        break;
    default: /* StateRequest */
        break;
    }
    core_answer(core, frame, verdict);
}

static void dispatch(app_t *app, const frame_t *frame) {
    core_t *core = &app->core;
    request_t request;
    size_t size = request_size(frame->type);
    if (size == 0 || frame->size != size) {
        core->unknown++;
        return;
    }
    memcpy(&request, frame->payload, size);
    core->frames++;
    if (frame->type == WIRE_INFO_REQUEST) {
        core_info(core, frame->seq, &request.info);
    } else if (!core->schema_known) {
        core_answer(core, frame, refused(WIRE_REASON_SCHEMA, 0));
    } else {
        batch_deadman(&app->network);
        handle(app, frame, &request);
    }
}

void app_poll(app_t *app) {
    const hal_t *hal = app->core.hal;
    uint8_t bytes[256]; /* a bounded bite: a talkative host does not hold up the deadman */
    size_t count = hal->host_read(hal->context, bytes, sizeof bytes);
    for (size_t i = 0; i < count; i++) {
        frame_t frame;
        if (frame_parse(&app->core.parser, bytes[i], &frame)) {
            dispatch(app, &frame);
        }
    }
    batch_step(&app->network);
    hal->wait_until(hal->context, batch_next(&app->network));
}
