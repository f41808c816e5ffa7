/* What an application is to the loop: its requests, its outputs, its schedule.
 *
 * `self` is the memory of the application inside app_t. Everything that is common to all
 * of them (Info, Time, State, the modes, the counters) is done by app.c and core.c.
 */
#ifndef HIL_APPLICATION_H
#define HIL_APPLICATION_H

#include "core.h"

typedef struct {
    uint32_t number; /* WIRE_APPLICATION_... */

    /* Begin with outputs safe; -1 when the board has not the channels for it. */
    int (*start)(void *self, core_t *core);

    /* Payload bytes of a request of this application; 0: not one of them. */
    size_t (*request_size)(uint8_t type);

    /* Answer a request, whose payload has the size of its type. */
    void (*handle)(void *self, const frame_t *frame);

    /* Whether limits and timing are known, so that outputs may be powered. */
    bool (*ready)(const void *self);

    /* The mode has become ACTIVE. */
    void (*activated)(void *self);

    /* Outputs safe, and whatever is running ends. */
    void (*stop)(void *self);

    /* Try once more to make outputs safe; a board that cannot is in FAULT ACTUATOR. */
    void (*release)(void *self);

    /* Make outputs safe when the token has run out. */
    void (*deadman)(void *self);

    /* Do at most one thing that is due. */
    void (*step)(void *self);

    /* Device time at which something is due; UINT64_MAX when nothing is. */
    uint64_t (*next)(const void *self);

    /* Lock-step: the host has answered, so it is not listened to before the next sample. */
    bool (*deaf)(const void *self);
} application_t;

extern const application_t network_application;
extern const application_t cart_pole_application;

#endif
