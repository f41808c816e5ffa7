/* The host board: this computer as a microcontroller, a pty as its serial port.
 *
 * The sensors and actuators are at the other end of the plant bus, a socket on which the
 * firmware asks and a simulated plant answers.
 */
#ifndef HIL_BOARD_H
#define HIL_BOARD_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "frame.h"
#include "hal.h"

#define BOARD_AHEAD_MAX 256u

typedef struct {
    int host_fd;  /* pty, the firmware's side */
    int slave_fd; /* pty, the host's side, kept open so that hosts can come and go; -1: closed */
    int plant_fd;
    char port[128]; /* path of the host's side */
    bool virtual_clock;
    uint64_t start_us; /* device time when the program started */
    uint64_t start_ns; /* CLOCK_MONOTONIC then; not used by the virtual clock */
    uint64_t now_us;   /* virtual device time */
    bool lock_step;    /* a host that goes away is noticed, see host_read() in board.c */
    bool host_present; /* lock-step: somebody has the port open */
    bool host_ready;   /* there may be bytes to read from the host */
    bool plant_closed; /* the plant hung up: the program is to end */
    uint64_t dropped;  /* bytes nobody took from the pty */
    bool torn;         /* the newest frame was cut short by that */
    uint8_t application;
    uint16_t dof;
    uint16_t bonds;
    uint16_t plant_seq;
    wire_plant_pose_t poses[BOARD_AHEAD_MAX]; /* where the plant will be if nothing is written */
    unsigned pose_at, pose_count;
    uint32_t look_period_us, look_count; /* of the longest look ahead there was; 0: none yet */
    uint8_t said[1024];                  /* lock-step: for the host, given when time stands */
    size_t said_count;
    frame_parser_t plant_parser;
} board_t;

/* Set when a signal asked the program to end. */
extern volatile sig_atomic_t board_stopping;

/* Fill in what the application needs; the caller has set the fields of `board`. */
hal_t board_hal(board_t *board, uint64_t device_id);

/* Open the pty. Returns 0, or -1 with errno set. */
int board_open_pty(board_t *board);

/* Note what the time is now as the start. */
void board_start_clock(board_t *board, uint64_t start_us);

/* Give the host what has been said to it; in lock-step that waits for the next stand-still. */
void board_flush(board_t *board);

/* Wait for bytes from the host, or news from the plant, at most `timeout_ns`; negative:
 * for ever. Signals end the wait. */
void board_look(board_t *board, int64_t timeout_ns);

/* The plant bus: one exchange; 0, or -1 when the plant is gone, late or talks nonsense. */
int plant_write(board_t *board, uint64_t time_us, unsigned target, const float *values,
                float *applied, uint16_t n);
int plant_sample(board_t *board, uint64_t time_us, float *displacement, float *elongation);

/* The pose now; under the virtual clock it is asked for together with `ahead` more. */
int plant_pose(board_t *board, uint64_t time_us, uint32_t period_us, uint32_t ahead, float *angle,
               float *position);

#endif
