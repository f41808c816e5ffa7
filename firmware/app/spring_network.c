#include "spring_network.h"

#include <math.h>
#include <string.h>

static const hal_t *hal_of(const network_t *network) { return network->core->hal; }

bool network_release(network_t *network) {
    static const float zero[APP_DOF_MAX];
    float applied[APP_DOF_MAX];
    const hal_t *hal = hal_of(network);
    for (int attempt = 0; attempt < 2; attempt++) {
        uint64_t now = core_now(network->core);
        if (hal->write_force(hal->context, now, zero, applied, hal->dof) == 0) {
            return true;
        }
    }
    core_latch(network->core, WIRE_FAULT_ACTUATOR);
    return false;
}

static bool within(float value, float low, float high) {
    return isfinite(value) && value >= low && value <= high;
}

verdict_t network_setup(network_t *network, const wire_setup_t *setup) {
    const hal_t *hal = hal_of(network);
    if (network->core->mode != WIRE_MODE_INACTIVE) {
        return refused(WIRE_REASON_MODE, 0);
    }
    const bool good[] = {
        /* in the order of the fields: the index of the first false one is the detail */
        setup->force_max > 0 && within(setup->force_max, 0, hal->force_max),
        setup->stiffness_low > 0 &&
            within(setup->stiffness_low, hal->stiffness_low, hal->stiffness_high),
        setup->stiffness_high > setup->stiffness_low &&
            within(setup->stiffness_high, hal->stiffness_low, hal->stiffness_high),
        isfinite(setup->drift_max) && setup->drift_max >= 0,
        setup->watchdog_us > 0 && setup->watchdog_us <= hal->watchdog_max_us,
        setup->settle_us > 0 && setup->settle_us <= APP_WAIT_MAX_US,
        setup->settle_timeout_us <= APP_WAIT_MAX_US,
        setup->sample_period_us > 0 && setup->sample_period_us <= APP_WAIT_MAX_US,
        setup->samples >= 2 && setup->samples <= APP_SAMPLES_MAX,
    };
    for (uint32_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        if (!good[i]) {
            return refused(WIRE_REASON_RANGE, i);
        }
    }
    network->setup = *setup;
    network->set_up = true;
    /* What was written under the old limits may lie outside the new ones. */
    network->staged = 0;
    memset(network->stiffness, 0, sizeof network->stiffness);
    memset(network->force, 0, sizeof network->force);
    return accepted();
}

/* Check the four numbers that name a piece of an array of `size` values per case. */
static verdict_t check_piece(uint32_t load_case, uint32_t cases, uint32_t offset, uint32_t count,
                             uint32_t size) {
    if (load_case >= cases) {
        return refused(WIRE_REASON_RANGE, 1);
    }
    if (offset >= size) {
        return refused(WIRE_REASON_RANGE, 2);
    }
    if (count < 1 || count > WIRE_VALUES_MAX || count > size - offset) {
        return refused(WIRE_REASON_RANGE, 3);
    }
    return accepted();
}

static verdict_t require_idle(const core_t *core) {
    if (core->mode != WIRE_MODE_ACTIVE) {
        return refused(WIRE_REASON_MODE, 0);
    }
    return core->run == WIRE_RUN_STATUS_RUNNING ? refused(WIRE_REASON_BUSY, 0) : accepted();
}

verdict_t network_write(network_t *network, const wire_write_t *write) {
    const hal_t *hal = hal_of(network);
    const wire_setup_t *setup = &network->setup;
    verdict_t verdict = require_idle(network->core);
    if (verdict.reason != 0) {
        return verdict;
    }
    bool force = write->target == WIRE_TARGET_FORCE;
    if (!force && write->target != WIRE_TARGET_STIFFNESS) {
        return refused(WIRE_REASON_RANGE, 0);
    }
    verdict = check_piece(write->load_case, force ? APP_CASES_MAX : 1, write->offset, write->count,
                          force ? hal->dof : hal->bonds);
    if (verdict.reason != 0) {
        return verdict;
    }
    float low = force ? -setup->force_max : setup->stiffness_low;
    float high = force ? setup->force_max : setup->stiffness_high;
    for (uint32_t i = 0; i < write->count; i++) {
        if (!isfinite(write->values[i])) {
            return refused(WIRE_REASON_NOT_FINITE, write->offset + i);
        }
        if (write->values[i] < low || write->values[i] > high) {
            return refused(WIRE_REASON_LIMIT, write->offset + i);
        }
    }
    float *array = force ? network->force[write->load_case] : network->stiffness;
    memcpy(array + write->offset, write->values, write->count * sizeof(float));
    for (uint32_t i = 0; !force && i < write->count; i++) {
        network->staged |= UINT64_C(1) << (write->offset + i);
    }
    return accepted();
}

verdict_t network_apply(network_t *network, const wire_apply_t *apply) {
    const hal_t *hal = hal_of(network);
    verdict_t verdict = require_idle(network->core);
    if (verdict.reason != 0) {
        return verdict;
    }
    uint64_t all = UINT64_MAX >> (64u - hal->bonds);
    if (apply->bonds != hal->bonds || network->staged != all) {
        return refused(WIRE_REASON_RANGE, 0);
    }
    int failed = hal->write_stiffness(hal->context, core_now(network->core), network->stiffness,
                                      network->applied, hal->bonds);
    for (uint32_t i = 0; i < hal->bonds; i++) {
        failed |= !isfinite(network->applied[i]);
    }
    if (failed) {
        /* Some actuators may have moved: nobody knows what they are set to. */
        memset(network->applied, 0, sizeof network->applied);
        network_release(network);
        core_latch(network->core, WIRE_FAULT_ACTUATOR);
    }
    return accepted();
}

verdict_t network_read(const network_t *network, const wire_read_t *read, wire_values_t *values) {
    const hal_t *hal = hal_of(network);
    uint32_t row = read->load_case < APP_CASES_MAX ? read->load_case : 0;
    uint32_t cases = 1, size = hal->bonds;
    const float *array;
    switch (read->target) {
    case WIRE_TARGET_STIFFNESS:
        array = network->stiffness;
        break;
    case WIRE_TARGET_APPLIED_STIFFNESS:
        array = network->applied;
        break;
    case WIRE_TARGET_FORCE:
        array = network->force[row];
        cases = APP_CASES_MAX;
        size = hal->dof;
        break;
    case WIRE_TARGET_DISPLACEMENT:
        array = network->measured[row];
        cases = network->core->cases_done; /* what an earlier batch left is not shown */
        size = hal->dof;
        break;
    case WIRE_TARGET_ELONGATION:
        array = network->measured[row] + hal->dof;
        cases = network->core->cases_done;
        break;
    default:
        return refused(WIRE_REASON_RANGE, 0);
    }
    verdict_t verdict = check_piece(read->load_case, cases, read->offset, read->count, size);
    if (verdict.reason == 0) {
        *values = (wire_values_t){read->target, read->load_case, read->offset, read->count, {0}};
        memcpy(values->values, array + read->offset, read->count * sizeof(float));
    }
    return verdict;
}

verdict_t network_case(const network_t *network, const wire_case_request_t *request,
                       wire_case_t *answer) {
    if (request->load_case >= network->core->cases_done) {
        return refused(WIRE_REASON_RANGE, 0);
    }
    *answer = network->cases[request->load_case];
    return accepted();
}
