/* The spring network as an application: its requests and its life. */
#include <string.h>

#include "application.h"
#include "batch.h"
#include "spring_network.h"

/* Any request, aligned as its fields need. */
typedef union {
    wire_setup_t setup;
    wire_write_t write;
    wire_apply_t apply;
    wire_read_t read;
    wire_run_t run;
    wire_case_request_t load_case;
} request_t;

static size_t request_size(uint8_t type) {
    switch (type) {
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

static void handle(void *self, const frame_t *frame) {
    network_t *network = self;
    core_t *core = network->core;
    verdict_t verdict = accepted();
    request_t request;
    wire_values_t values;
    wire_case_t measured;
    memcpy(&request, frame->payload, frame->size);
    switch (frame->type) {
    case WIRE_READ:
        verdict = network_read(network, &request.read, &values);
        if (verdict.reason == 0) {
            core_send(core, WIRE_VALUES, frame->seq, &values, sizeof values);
            return;
        }
        break;
    case WIRE_CASE_REQUEST:
        verdict = network_case(network, &request.load_case, &measured);
        if (verdict.reason == 0) {
            core_send(core, WIRE_CASE, frame->seq, &measured, sizeof measured);
            return;
        }
        break;
    case WIRE_SETUP:
        verdict = network_setup(network, &request.setup);
        break;
    case WIRE_WRITE:
        verdict = network_write(network, &request.write);
        break;
    case WIRE_APPLY:
        verdict = network_apply(network, &request.apply);
        break;
    default: /* Run */
        verdict = batch_run(network, &request.run);
        break;
    }
    core_answer(core, frame, verdict);
}

static int start(void *self, core_t *core) {
    network_t *network = self;
    const hal_t *hal = core->hal;
    if (hal->dof < 1 || hal->dof > APP_DOF_MAX || hal->bonds < 1 || hal->bonds > APP_BONDS_MAX) {
        return -1;
    }
    core->cases_max = APP_CASES_MAX;
    network->core = core;
    network_release(network);
    return 0;
}

static bool ready(const void *self) { return ((const network_t *)self)->set_up; }

static void activated(void *self) {
    core_t *core = ((network_t *)self)->core;
    /* A new life: batches are counted from the start again. */
    core->batch = 0;
    core->run = WIRE_RUN_STATUS_NONE;
    core->cases_done = 0;
}

static void stop(void *self) { batch_end(self, WIRE_RUN_STATUS_STOPPED); }

static void release(void *self) { network_release(self); }

static void deadman(void *self) { batch_deadman(self); }

static void step(void *self) { batch_step(self); }

static uint64_t next(const void *self) { return batch_next(self); }

static bool deaf(const void *self) {
    (void)self;
    return false;
}

const application_t network_application = {
    .number = WIRE_APPLICATION_SPRING_NETWORK,
    .start = start,
    .request_size = request_size,
    .handle = handle,
    .ready = ready,
    .activated = activated,
    .stop = stop,
    .release = release,
    .deadman = deadman,
    .step = step,
    .next = next,
    .deaf = deaf,
};
