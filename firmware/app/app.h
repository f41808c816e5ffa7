/* The whole program: app_init() once, then app_poll() for ever. */
#ifndef HIL_APP_H
#define HIL_APP_H

#include "application.h"
#include "batch.h"
#include "cart_pole.h"
#include "core.h"
#include "spring_network.h"

typedef struct {
    core_t core;
    const application_t *application; /* the one the board is wired for */
    union {
        network_t network;
        cart_pole_t cart_pole;
    };
} app_t;

/* Start with outputs safe; returns 0, or -1 when the board names no known application, or
 * has not the channels for it. `hal` must stay valid. */
int app_init(app_t *app, const hal_t *hal);

/* Answer the host, do what is due, then let time pass until the next thing is. */
void app_poll(app_t *app);

/* Stop now: outputs safe, whatever is running ends, FAULT latched. */
void app_stop(app_t *app);

#endif
