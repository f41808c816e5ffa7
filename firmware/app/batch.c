#include "batch.h"

#include <math.h>
#include <string.h>

static bool running(const network_t *network) {
    return network->core->run == WIRE_RUN_STATUS_RUNNING;
}

verdict_t batch_run(network_t *network, const wire_run_t *run) {
    core_t *core = network->core;
    if (run->batch != 0 && run->batch == core->batch) {
        return accepted(); /* sent again: its end may long be past, the answer says so */
    }
    if (core->mode != WIRE_MODE_ACTIVE) {
        return refused(WIRE_REASON_MODE, 0);
    }
    if (running(network)) {
        return refused(WIRE_REASON_BUSY, 0);
    }
    if (run->batch == 0) {
        return refused(WIRE_REASON_RANGE, 2);
    }
    if (run->cases < 1 || run->cases > APP_CASES_MAX) {
        return refused(WIRE_REASON_RANGE, 3);
    }
    uint64_t now = core_now(core);
    verdict_t verdict =
        core_take_token(core, now, run->token, run->valid_until_us, network->setup.watchdog_us);
    if (verdict.reason != 0) {
        return verdict;
    }
    core->batch = run->batch;
    core->run = WIRE_RUN_STATUS_RUNNING;
    core->cases_done = 0;
    network->batch.phase = BATCH_LOAD;
    network->batch.due = now;
    network->batch.cases = run->cases;
    return accepted();
}

static void finish(network_t *network, unsigned status) {
    core_t *core = network->core;
    core->run = (uint8_t)status;
    wire_run_done_t done = {
        .device_us = core_now(core),
        .batch = core->batch,
        .cases_done = core->cases_done,
        .status = (uint16_t)status,
    };
    core_send(core, WIRE_RUN_DONE, 0, &done, sizeof done);
}

void batch_end(network_t *network, unsigned status) {
    network_release(network); /* before anything else */
    if (running(network)) {
        finish(network, status);
    }
}

void batch_deadman(network_t *network) {
    core_t *core = network->core;
    if (running(network) && core_now(core) >= core->valid_until) {
        core->expired++;
        batch_end(network, WIRE_RUN_STATUS_EXPIRED);
        core_latch(core, WIRE_FAULT_TOKEN_EXPIRED);
    }
}

static void fail(network_t *network, unsigned fault) {
    core_latch(network->core, fault);
    batch_end(network, WIRE_RUN_STATUS_FAILED);
}

static void open_window(batch_t *batch, uint64_t first_sample) {
    batch->phase = BATCH_SAMPLE;
    batch->due = first_sample;
    batch->taken = 0;
    memset(batch->first, 0, sizeof batch->first);
    memset(batch->second, 0, sizeof batch->second);
}

static void load(network_t *network, uint64_t now) {
    const hal_t *hal = network->core->hal;
    const float *force = network->force[network->core->cases_done];
    float applied[APP_DOF_MAX];
    if (hal->write_force(hal->context, now, force, applied, hal->dof) != 0) {
        fail(network, WIRE_FAULT_ACTUATOR);
        return;
    }
    network->batch.extra_us = 0;
    open_window(&network->batch, core_now(network->core) + network->setup.settle_us);
}

/* Store the means of the window and return the largest difference between its halves. */
static float average(network_t *network, float *mean) {
    const hal_t *hal = network->core->hal;
    const batch_t *batch = &network->batch;
    uint32_t samples = network->setup.samples, half = samples / 2;
    double drift = 0;
    for (uint32_t i = 0; i < (uint32_t)hal->dof + hal->bonds; i++) {
        double change = fabs(batch->second[i] / (samples - half) - batch->first[i] / half);
        drift = change > drift ? change : drift;
        mean[i] = (float)((batch->first[i] + batch->second[i]) / samples);
    }
    return (float)drift;
}

static void close_window(network_t *network, uint64_t now) {
    core_t *core = network->core;
    batch_t *batch = &network->batch;
    const wire_setup_t *setup = &network->setup;
    float drift = average(network, network->measured[core->cases_done]);
    bool settled = !(setup->drift_max > 0 && drift > setup->drift_max);
    uint64_t window_us = (uint64_t)setup->samples * setup->sample_period_us;
    if (!settled && batch->extra_us + window_us <= setup->settle_timeout_us) {
        batch->extra_us += window_us;
        open_window(batch, now + setup->sample_period_us);
        return;
    }
    network->cases[core->cases_done++] = (wire_case_t){
        .device_us = now,
        .batch = core->batch,
        .flags = settled ? WIRE_CASE_FLAG_SETTLED : 0,
        .drift = drift,
        .samples = setup->samples,
    };
    if (core->cases_done < batch->cases) {
        batch->phase = BATCH_LOAD;
        batch->due = now;
    } else if (network_release(network)) {
        /* Every batch starts from rest, so the network is given the time to return to it. */
        batch->phase = BATCH_REST;
        batch->due = core_now(core) + setup->settle_us;
    } else {
        fail(network, WIRE_FAULT_ACTUATOR);
    }
}

static void sample(network_t *network, uint64_t now) {
    const hal_t *hal = network->core->hal;
    batch_t *batch = &network->batch;
    const wire_setup_t *setup = &network->setup;
    int failed = hal->sample(hal->context, now, batch->reading, batch->reading + hal->dof);
    double *half = batch->taken < setup->samples / 2 ? batch->first : batch->second;
    for (uint32_t i = 0; failed == 0 && i < (uint32_t)hal->dof + hal->bonds; i++) {
        failed = !isfinite(batch->reading[i]);
        half[i] += (double)batch->reading[i];
    }
    if (failed != 0) {
        fail(network, WIRE_FAULT_SENSOR);
    } else if (++batch->taken == setup->samples) {
        close_window(network, now);
    } else {
        /* The schedule is absolute, but a period that was missed is not made up for. */
        batch->due += setup->sample_period_us;
        batch->due = batch->due > now ? batch->due : now + setup->sample_period_us;
    }
}

void batch_step(network_t *network) {
    batch_deadman(network);
    uint64_t now = core_now(network->core);
    if (!running(network) || now < network->batch.due) {
        return;
    }
    switch (network->batch.phase) {
    case BATCH_LOAD:
        load(network, now);
        break;
    case BATCH_SAMPLE:
        sample(network, now);
        break;
    case BATCH_REST:
        finish(network, WIRE_RUN_STATUS_DONE);
        break;
    }
}

uint64_t batch_next(const network_t *network) {
    if (!running(network)) {
        return UINT64_MAX;
    }
    uint64_t due = network->batch.due, end = network->core->valid_until;
    return due < end ? due : end;
}
