/* What every application on a device shares: mode, fault, token, counters, answers. */
#ifndef HIL_CORE_H
#define HIL_CORE_H

#include <stdbool.h>
#include <stdint.h>

#include "frame.h"
#include "hal.h"
#include "wire.h"

#define FIRMWARE_VERSION 0x000100u /* major << 16 | minor << 8 | patch */

#ifndef APP_DOF_MAX
#define APP_DOF_MAX 64u
#endif
#ifndef APP_BONDS_MAX
#define APP_BONDS_MAX 64u
#endif
#ifndef APP_CASES_MAX
#define APP_CASES_MAX 32u
#endif
static_assert(APP_CASES_MAX <= 255u, "cases_done is a byte on the wire");
static_assert(APP_BONDS_MAX <= 64u, "one bit of a 64-bit word per staged stiffness");

typedef struct {
    const hal_t *hal;
    uint32_t application; /* WIRE_APPLICATION_... */
    uint16_t cases_max;   /* load cases one batch may hold; 0: it knows none */
    bool schema_known;    /* the newest InfoRequest came from the same declaration */
    uint8_t mode;
    uint8_t fault;
    uint32_t token;       /* newest sequence accepted */
    uint64_t valid_until; /* device time at which that token runs out, us */
    uint32_t batch;       /* newest batch; 0: none since activation; cart-pole: newest sample */
    uint8_t run;          /* RunStatus of that batch */
    uint8_t cases_done;
    uint32_t frames;
    uint32_t unknown;
    uint32_t refused;
    uint32_t expired;
    frame_parser_t parser;
} core_t;

/* What becomes of a request: reason 0 is accepted, else a WIRE_REASON and its detail. */
typedef struct {
    uint8_t reason;
    uint32_t detail;
} verdict_t;

static inline verdict_t accepted(void) { return (verdict_t){0, 0}; }
static inline verdict_t refused(unsigned reason, uint32_t detail) {
    return (verdict_t){(uint8_t)reason, detail};
}

static inline uint64_t core_now(const core_t *core) {
    return core->hal->time_us(core->hal->context);
}

/* Send one frame to the host. */
void core_send(core_t *core, unsigned type, uint16_t seq, const void *payload, size_t size);

/* Answer a request with State, or with Refused when the verdict has a reason. */
void core_answer(core_t *core, const frame_t *request, verdict_t verdict);

/* Answer InfoRequest, and note whether the host speaks the same declaration. */
void core_info(core_t *core, uint16_t seq, const wire_info_request_t *request);

/* Answer TimeRequest. */
void core_time(core_t *core, uint16_t seq, const wire_time_request_t *request);

/* Enter FAULT; the first fault is the one that is kept. */
void core_latch(core_t *core, unsigned fault);

/* Accept a token: its sequence must be new and its end ahead; it lives at most
 * `watchdog_us` from `now`. */
verdict_t core_take_token(core_t *core, uint64_t now, uint32_t sequence, uint64_t valid_until,
                          uint32_t watchdog_us);

#endif
