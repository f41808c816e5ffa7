/* Clock, serial port and limits of the host board. */
#define _GNU_SOURCE
#include "board.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_US UINT64_C(1000)
#define NS_PER_S UINT64_C(1000000000)

static uint64_t monotonic_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

void board_start_clock(board_t *board, uint64_t start_us) {
    board->start_us = board->now_us = start_us;
    if (!board->virtual_clock) {
        board->start_ns = monotonic_ns();
    }
}

static uint64_t time_us(void *context) {
    const board_t *board = context;
    if (board->virtual_clock) {
        return board->now_us;
    }
    return board->start_us + (monotonic_ns() - board->start_ns) / NS_PER_US;
}

/* Keep the host's side open while no host does. */
static bool hold_port(board_t *board) {
    board->slave_fd = open(board->port, O_RDWR | O_NOCTTY | O_CLOEXEC);
    return board->slave_fd >= 0;
}

int board_open_pty(board_t *board) {
    struct termios raw;
    const char *name;
    board->host_fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (board->host_fd < 0 || grantpt(board->host_fd) != 0 || unlockpt(board->host_fd) != 0 ||
        (name = ptsname(board->host_fd)) == NULL) {
        return -1;
    }
    snprintf(board->port, sizeof board->port, "%s", name);
    if (!hold_port(board) || tcgetattr(board->slave_fd, &raw) != 0) {
        return -1;
    }
    cfmakeraw(&raw);
    if (tcsetattr(board->slave_fd, TCSANOW, &raw) != 0) {
        return -1;
    }
    return fcntl(board->host_fd, F_SETFL, fcntl(board->host_fd, F_GETFL) | O_NONBLOCK);
}

void board_look(board_t *board, int64_t timeout_ns) {
    struct pollfd fds[2] = {{.fd = board->host_fd, .events = POLLIN},
                            {.fd = board->plant_fd, .events = POLLIN}};
    struct timespec timeout = {
        .tv_sec = (time_t)(timeout_ns / (int64_t)NS_PER_S),
        .tv_nsec = (long)(timeout_ns % (int64_t)NS_PER_S),
    };
    sigset_t none; /* signals are blocked everywhere else, so none slips in before a wait */
    sigemptyset(&none);
    if (ppoll(fds, 2, timeout_ns < 0 ? NULL : &timeout, &none) <= 0) {
        return;
    }
    if (fds[0].revents != 0) {
        board->host_ready = true;
    }
    if (fds[1].revents != 0) {
        /* Nothing was asked of the plant: it hung up, or said something nobody wants. */
        uint8_t bytes[256];
        ssize_t n = read(board->plant_fd, bytes, sizeof bytes);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
            board->plant_closed = true;
        }
    }
}

static void give(board_t *board, const uint8_t *bytes, size_t count) {
    static const uint8_t delimiter = 0;
    if (board->lock_step && !board->host_present) {
        board->dropped += count;
        return;
    }
    if (board->torn) {
        /* End the frame that was cut short, or it would take this one with it. */
        if (write(board->host_fd, &delimiter, 1) != 1) {
            board->dropped += count;
            return;
        }
        board->torn = false;
    }
    ssize_t n = write(board->host_fd, bytes, count);
    size_t taken = n > 0 ? (size_t)n : 0;
    board->torn = taken > 0 && taken < count;
    board->dropped += count - taken;
}

void board_flush(board_t *board) {
    if (board->said_count > 0) {
        give(board, board->said, board->said_count);
        board->said_count = 0;
    }
}

/* In lock-step nobody can act on a word before time stands still: one write wakes the host
 * once for the answer and the sample that follows it. */
static void host_write(void *context, const uint8_t *bytes, size_t count) {
    board_t *board = context;
    if (!board->lock_step) {
        give(board, bytes, count);
        return;
    }
    if (board->said_count + count > sizeof board->said) {
        board_flush(board);
    }
    memcpy(board->said + board->said_count, bytes, count);
    board->said_count += count;
}

static void wait_until(void *context, uint64_t until_us) {
    board_t *board = context;
    board_flush(board);
    if (board->host_ready || board->plant_closed || board_stopping) {
        return; /* news that came during an exchange with the plant, say */
    }
    if (until_us == UINT64_MAX) {
        board_look(board, -1);
    } else if (board->virtual_clock) {
        board_look(board, 0);
        bool news = board->host_ready || board->plant_closed || board_stopping;
        if (!news && until_us > board->now_us) {
            board->now_us = until_us;
        }
    } else {
        uint64_t now = time_us(board);
        board_look(board, until_us > now ? (int64_t)((until_us - now) * NS_PER_US) : 0);
    }
}

static void advance_to(void *context, uint64_t until_us) {
    board_t *board = context;
    if (until_us > board->now_us) {
        board->now_us = until_us;
    }
}

static size_t host_read(void *context, uint8_t *bytes, size_t size) {
    board_t *board = context;
    if (!board->host_ready) {
        return 0;
    }
    ssize_t n = read(board->host_fd, bytes, size);
    board->host_ready = false; /* if there is more, the next wait will notice */
    if (board->lock_step && n > 0 && !board->host_present) {
        /* From now on the host is the only one at its side: when it ends in whatever way,
         * the kernel hangs the line up. */
        board->host_present = true;
        close(board->slave_fd);
        board->slave_fd = -1;
    } else if (board->lock_step && n < 0 && errno == EIO && board->host_present) {
        board->host_present = false;
        hold_port(board);
    }
    return n > 0 ? (size_t)n : 0;
}

static bool host_present(void *context) { return ((const board_t *)context)->host_present; }

static int write_force(void *context, uint64_t time, const float *values, float *applied,
                       uint16_t n) {
    return plant_write(context, time, WIRE_TARGET_FORCE, values, applied, n);
}

static int write_stiffness(void *context, uint64_t time, const float *values, float *applied,
                           uint16_t n) {
    return plant_write(context, time, WIRE_TARGET_STIFFNESS, values, applied, n);
}

static int sample(void *context, uint64_t time, float *displacement, float *elongation) {
    return plant_sample(context, time, displacement, elongation);
}

static int pose(void *context, uint64_t time, uint32_t period_us, uint32_t ahead, float *angle,
                float *position) {
    return plant_pose(context, time, period_us, ahead, angle, position);
}

hal_t board_hal(board_t *board, uint64_t device_id) {
    bool cart_pole = board->application == WIRE_APPLICATION_CART_POLE;
    board->lock_step = cart_pole && board->virtual_clock;
    return (hal_t){
        .context = board,
        .board = "host",
        .device_id = device_id,
        .application = board->application,
        .dof = board->dof,
        .bonds = board->bonds,
        .watchdog_max_us = 10000000,
        .force_max = cart_pole ? 200.0f : 10.0f,
        .tick_min_us = 100,
        .stiffness_low = 1e-3f,
        .stiffness_high = 1e6f,
        .time_us = time_us,
        .host_read = host_read,
        .host_write = host_write,
        .wait_until = wait_until,
        .write_force = write_force,
        .write_stiffness = write_stiffness,
        .sample = sample,
        .pose = pose,
        .advance_to = board->lock_step ? advance_to : NULL,
        .host_present = host_present,
    };
}
