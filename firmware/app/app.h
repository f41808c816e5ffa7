/* The whole application: app_init() once, then app_poll() for ever. */
#ifndef HIL_APP_H
#define HIL_APP_H

#include "batch.h"
#include "core.h"
#include "spring_network.h"

typedef struct {
    core_t core;
    network_t network;
} app_t;

/* Start with outputs safe; returns 0, or -1 when the board has no channels or more than
 * the application was built for. `hal` must stay valid. */
int app_init(app_t *app, const hal_t *hal);

/* Answer the host, do what is due, then let time pass until the next thing is. */
void app_poll(app_t *app);

/* Stop now: outputs safe, a running batch STOPPED, FAULT latched. */
void app_stop(app_t *app);

#endif
