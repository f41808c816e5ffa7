#include "core.h"

#include <string.h>

void core_send(core_t *core, unsigned type, uint16_t seq, const void *payload, size_t size) {
    uint8_t bytes[FRAME_MAX];
    frame_t frame = {.type = (uint8_t)type, .seq = seq, .payload = payload, .size = size};
    size_t count = frame_encode(&frame, bytes);
    core->hal->host_write(core->hal->context, bytes, count);
}

static void send_state(core_t *core, uint16_t seq) {
    wire_state_t state = {
        .device_us = core_now(core),
        .batch = core->batch,
        .token = core->token,
        .frames = core->frames,
        .bad_frames = core->parser.bad_frames,
        .unknown = core->unknown,
        .refused = core->refused,
        .expired = core->expired,
        .mode = core->mode,
        .fault = core->fault,
        .run = core->run,
        .cases_done = core->cases_done,
    };
    core_send(core, WIRE_STATE, seq, &state, sizeof state);
}

void core_answer(core_t *core, const frame_t *request, verdict_t verdict) {
    if (verdict.reason == 0) {
        send_state(core, request->seq);
        return;
    }
    core->refused++;
    wire_refused_t answer = {
        .device_us = core_now(core),
        .type = request->type,
        .reason = verdict.reason,
        .mode = core->mode,
        .fault = core->fault,
        .detail = verdict.detail,
    };
    core_send(core, WIRE_REFUSED, request->seq, &answer, sizeof answer);
}

void core_info(core_t *core, uint16_t seq, const wire_info_request_t *request) {
    const hal_t *hal = core->hal;
    core->schema_known = request->schema == WIRE_SCHEMA_CRC;
    wire_info_t info = {
        .device_us = core_now(core),
        .device_id = hal->device_id,
        .schema = WIRE_SCHEMA_CRC,
        .application = core->application,
        .firmware = FIRMWARE_VERSION,
        .watchdog_max_us = hal->watchdog_max_us,
        .dof = hal->dof,
        .bonds = hal->bonds,
        .cases = core->cases_max,
    };
    for (size_t i = 0; i < sizeof info.board && hal->board[i] != '\0'; i++) {
        info.board[i] = (uint8_t)hal->board[i];
    }
    core_send(core, WIRE_INFO, seq, &info, sizeof info);
}

void core_time(core_t *core, uint16_t seq, const wire_time_request_t *request) {
    wire_time_t answer = {.host_ns = request->host_ns, .device_us = core_now(core)};
    core_send(core, WIRE_TIME, seq, &answer, sizeof answer);
}

void core_latch(core_t *core, unsigned fault) {
    if (core->mode != WIRE_MODE_FAULT) {
        core->mode = WIRE_MODE_FAULT;
        core->fault = (uint8_t)fault;
    }
}

verdict_t core_take_token(core_t *core, uint64_t now, uint32_t sequence, uint64_t valid_until,
                          uint32_t watchdog_us) {
    if (sequence <= core->token) {
        return refused(WIRE_REASON_TOKEN_STALE, 0);
    }
    if (valid_until <= now) {
        return refused(WIRE_REASON_TOKEN_EXPIRED, 0);
    }
    core->token = sequence;
    core->valid_until = valid_until < now + watchdog_us ? valid_until : now + watchdog_us;
    return accepted();
}
