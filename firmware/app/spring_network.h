/* A tunable spring network: what it was set up to, asked to do, and measured.
 *
 * The arrays are the whole memory of the application; batch.h runs the load cases.
 */
#ifndef HIL_SPRING_NETWORK_H
#define HIL_SPRING_NETWORK_H

#include "core.h"

#define APP_CHANNELS_MAX (APP_DOF_MAX + APP_BONDS_MAX)
#define APP_SAMPLES_MAX 4096u
#define APP_WAIT_MAX_US 60000000u /* longest settling, granted wait, or sample period */

/* Where a running batch is. */
typedef enum { BATCH_LOAD, BATCH_SAMPLE, BATCH_REST } batch_phase_t;

typedef struct {
    batch_phase_t phase;
    uint64_t due;      /* device time of the next event, us */
    uint32_t cases;    /* load cases asked for */
    uint32_t taken;    /* samples in the present window */
    uint64_t extra_us; /* wait granted to the present case because it drifted */
    float reading[APP_CHANNELS_MAX];
    double first[APP_CHANNELS_MAX];  /* sums over the first half of the window, m */
    double second[APP_CHANNELS_MAX]; /* and over the second */
} batch_t;

typedef struct {
    core_t *core;
    bool set_up;
    wire_setup_t setup;
    uint64_t staged;                                 /* a bit per bond written since Setup */
    float stiffness[APP_BONDS_MAX];                  /* asked for, N/m */
    float applied[APP_BONDS_MAX];                    /* set, N/m; 0: not known */
    float force[APP_CASES_MAX][APP_DOF_MAX];         /* N */
    float measured[APP_CASES_MAX][APP_CHANNELS_MAX]; /* displacements, then elongations, m */
    wire_case_t cases[APP_CASES_MAX];
    batch_t batch;
} network_t;

/* Set all forces to zero, trying twice; a board that cannot is in FAULT ACTUATOR, and false
 * is returned. */
bool network_release(network_t *network);

verdict_t network_setup(network_t *network, const wire_setup_t *setup);
verdict_t network_write(network_t *network, const wire_write_t *write);
verdict_t network_apply(network_t *network, const wire_apply_t *apply);

/* Fill `values`; the caller sends it when accepted. */
verdict_t network_read(const network_t *network, const wire_read_t *read, wire_values_t *values);

/* Fill `answer`; the caller sends it when accepted. */
verdict_t network_case(const network_t *network, const wire_case_request_t *request,
                       wire_case_t *answer);

#endif
