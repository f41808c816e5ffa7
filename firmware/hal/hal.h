/* What the portable application needs from a board: one struct of functions.
 *
 * A port fills in a hal_t and calls app_init() once and app_poll() for ever. Every
 * function gets `context` back as its first argument. Functions that can fail return 0
 * for success and anything else for failure; the application then latches a fault.
 * Nothing here is called from an interrupt, and no function keeps a pointer it was given.
 */
#ifndef HIL_HAL_H
#define HIL_HAL_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    void *context;

    /* What the board is; constant while it runs. */
    const char *board;        /* name, ASCII, the first 16 characters are reported */
    uint64_t device_id;       /* serial number */
    uint16_t dof;             /* force and displacement channels, at least 1 */
    uint16_t bonds;           /* stiffness and elongation channels, at least 1 */
    uint32_t watchdog_max_us; /* longest token life a host may ask for, us */
    float force_max;          /* largest force magnitude a host may ask for, N */
    float stiffness_low;      /* smallest stiffness a host may ask for, N/m */
    float stiffness_high;     /* largest stiffness a host may ask for, N/m */

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
     * safe output. */
    int (*write_force)(void *context, uint64_t time_us, const float *values, float *applied,
                       uint16_t n);

    /* Set all `n` (= bonds) stiffnesses, N/m, and return when they are set; `applied` gets
     * what they were set to. */
    int (*write_stiffness)(void *context, uint64_t time_us, const float *values, float *applied,
                           uint16_t n);

    /* Sample all sensors at once: dof displacements and bonds elongations, m. */
    int (*sample)(void *context, uint64_t time_us, float *displacement, float *elongation);
} hal_t;

#endif
