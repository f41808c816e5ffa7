/* What the portable application needs from a board: one struct of functions.
 *
 * A port fills in a hal_t and calls app_init() once and app_poll() for ever. Every
 * function gets `context` back as its first argument. Functions that can fail return 0
 * for success and anything else for failure; the application then latches a fault.
 * Nothing here is called from an interrupt, and no function keeps a pointer it was given.
 */
#ifndef HIL_HAL_H
#define HIL_HAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    void *context;

    /* What the board is; constant while it runs. */
    const char *board;        /* name, ASCII, the first 16 characters are reported */
    uint64_t device_id;       /* serial number */
    uint8_t application;      /* what the board is wired for, WIRE_APPLICATION_... */
    uint16_t dof;             /* force channels, at least 1; a cart-pole has 1 */
    uint16_t bonds;           /* stiffness and elongation channels; a cart-pole has 0 */
    uint32_t watchdog_max_us; /* longest token life a host may ask for, us */
    float force_max;          /* largest force magnitude a host may ask for, N */
    uint32_t tick_min_us;     /* cart-pole: shortest time between two looks at the sensors, us */
    float stiffness_low;      /* spring network: smallest stiffness a host may ask for, N/m */
    float stiffness_high;     /* spring network: largest stiffness a host may ask for, N/m */

    /* Time since some start, us; never goes back. */
    uint64_t (*time_us)(void *context);

    /* Take at most `size` bytes from the host without waiting; returns how many. */
    size_t (*host_read)(void *context, uint8_t *bytes, size_t size);

    /* Give bytes to the host without waiting. What the host does not take is lost: a
     * silent host must never hold up the deadman. */
    void (*host_write)(void *context, const uint8_t *bytes, size_t count);

    /* Let time pass until `until_us`, or until there are bytes from the host, whichever
     * is first; returning early for any other reason is allowed. UINT64_MAX: no event is
     * due, only the host can make one. */
    void (*wait_until)(void *context, uint64_t until_us);

    /* Set all `n` (= dof) forces, N; `applied` gets what they were set to. Zeros are the
     * safe output, and what the output stage must fall to by itself when the firmware no
     * longer runs (a pull-down, an enable that has to be kept alive): no code can do that. */
    int (*write_force)(void *context, uint64_t time_us, const float *values, float *applied,
                       uint16_t n);

    /* Cart-pole: read both encoders, rad and m. The application means to look `ahead` more
     * times, `period_us` apart; only a simulated plant has a use for knowing that. */
    int (*pose)(void *context, uint64_t time_us, uint32_t period_us, uint32_t ahead, float *angle,
                float *position);

    /* Cart-pole in lock-step, as simulated boards under a virtual clock are: time stands
     * still while the application waits for the host's answer to a sample. NULL where time
     * passes by itself. Let time pass until `until_us`, whatever the host says. */
    void (*advance_to)(void *context, uint64_t until_us);

    /* Lock-step: whether there is a host that could answer. */
    bool (*host_present)(void *context);

    /* Spring network: set all `n` (= bonds) stiffnesses, N/m, and return when they are set;
     * `applied` gets what they were set to. */
    int (*write_stiffness)(void *context, uint64_t time_us, const float *values, float *applied,
                           uint16_t n);

    /* Spring network: sample all sensors at once: dof displacements and bonds elongations, m. */
    int (*sample)(void *context, uint64_t time_us, float *displacement, float *elongation);
} hal_t;

#endif
