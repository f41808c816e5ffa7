/* The plant bus: the firmware asks, the plant answers, one exchange at a time. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "board.h"

#ifndef PLANT_TIMEOUT_MS
#define PLANT_TIMEOUT_MS 5000 /* wall clock: an answer later than this is a failure */
#endif

/* Wait until the plant can be read or written; virtual time waits for ever, unless the
 * program is to end. Returns false when the wait was in vain. */
static bool wait_plant(board_t *board, short events) {
    struct pollfd plant = {.fd = board->plant_fd, .events = events};
    struct timespec limit = {PLANT_TIMEOUT_MS / 1000, PLANT_TIMEOUT_MS % 1000 * 1000000L};
    sigset_t none;
    sigemptyset(&none);
    for (;;) {
        bool for_ever = board->virtual_clock && !board_stopping;
        int ready = ppoll(&plant, 1, for_ever ? NULL : &limit, &none);
        if (ready >= 0 || errno != EINTR) {
            return ready > 0;
        }
    }
}

static int fail_closed(board_t *board) {
    board->plant_closed = true;
    return -1;
}

static size_t frame_of(board_t *board, unsigned type, const void *payload, size_t size,
                       uint8_t *bytes) {
    frame_t frame = {
        .type = (uint8_t)type, .seq = ++board->plant_seq, .payload = payload, .size = size};
    return frame_encode(&frame, bytes);
}

static int send_bytes(board_t *board, const uint8_t *bytes, size_t count) {
    size_t sent = 0;
    memset(&board->plant_parser, 0, sizeof board->plant_parser);
    while (sent < count) {
        ssize_t n = write(board->plant_fd, bytes + sent, count - sent);
        if (n >= 0) {
            sent += (size_t)n;
        } else if (errno == EAGAIN) {
            if (!wait_plant(board, POLLOUT)) {
                return -1;
            }
        } else if (errno != EINTR) {
            return fail_closed(board);
        }
    }
    return 0;
}

/* What takes the frames of an answer: returns 1 when it wants another, 0 when the answer
 * is complete, -1 when the frame does not belong to it. */
typedef int (*taker_t)(void *answer, const frame_t *frame);

static int receive(board_t *board, taker_t take, void *answer) {
    uint8_t bytes[2048];
    for (;;) {
        if (!wait_plant(board, POLLIN)) {
            return -1;
        }
        ssize_t n = read(board->plant_fd, bytes, sizeof bytes);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            continue;
        }
        if (n <= 0) {
            return fail_closed(board);
        }
        for (ssize_t i = 0; i < n; i++) {
            frame_t frame;
            if (frame_parse(&board->plant_parser, bytes[i], &frame)) {
                int more = take(answer, &frame);
                if (more <= 0) {
                    return more;
                }
            } else if (board->plant_parser.bad_frames > 0) {
                return -1;
            }
        }
    }
}

/* Throw away what came unasked, such as an answer that was given up on. */
static void drain(board_t *board) {
    uint8_t bytes[2048];
    ssize_t n;
    do {
        n = recv(board->plant_fd, bytes, sizeof bytes, MSG_DONTWAIT);
    } while (n > 0 || (n < 0 && errno == EINTR));
    if (n == 0) {
        board->plant_closed = true;
    }
}

static int exchange(board_t *board, const uint8_t *bytes, size_t count, taker_t take,
                    void *answer) {
    if (board->plant_closed || send_bytes(board, bytes, count) != 0 ||
        receive(board, take, answer) != 0) {
        drain(board);
        return -1;
    }
    return 0;
}

typedef struct {
    board_t *board;
    uint64_t time_us;
    uint32_t period_us;
    unsigned count;
} poses_t;

static int take_pose(void *answer, const frame_t *frame) {
    poses_t *wanted = answer;
    board_t *board = wanted->board;
    wire_plant_pose_t *pose = &board->poses[board->pose_count];
    if (frame->type != WIRE_PLANT_POSE || frame->size != sizeof *pose) {
        return -1;
    }
    memcpy(pose, frame->payload, sizeof *pose);
    if (pose->time_us != wanted->time_us + (uint64_t)board->pose_count * wanted->period_us) {
        return -1;
    }
    return ++board->pose_count < wanted->count;
}

typedef struct {
    const wire_plant_write_t *asked;
    float *applied;
    poses_t *then; /* what was asked together with it; NULL: nothing */
} applied_t;

static int take_applied(void *answer, const frame_t *frame) {
    applied_t *wanted = answer;
    wire_plant_applied_t got;
    if (wanted->asked == NULL) {
        return take_pose(wanted->then, frame);
    }
    if (frame->type != WIRE_PLANT_APPLIED || frame->size != sizeof got) {
        return -1;
    }
    memcpy(&got, frame->payload, sizeof got);
    if (got.target != wanted->asked->target || got.offset != wanted->asked->offset ||
        got.count != wanted->asked->count) {
        return -1;
    }
    memcpy(wanted->applied + got.offset, got.values, got.count * sizeof(float));
    wanted->asked = NULL; /* the frames that follow are poses */
    return wanted->then != NULL;
}

/* In lock-step the next look is known when an output is written, and is asked for with it:
 * one exchange less per sample. */
static size_t ask_ahead(board_t *board, uint64_t time_us, poses_t *poses, uint8_t *bytes) {
    uint64_t next_us = time_us + board->look_period_us;
    wire_plant_look_t look = {
        .time_us = next_us, .period_us = board->look_period_us, .count = board->look_count};
    *poses = (poses_t){board, next_us, look.period_us, look.count};
    return frame_of(board, WIRE_PLANT_LOOK, &look, sizeof look, bytes);
}

int plant_write(board_t *board, uint64_t time_us, unsigned target, const float *values,
                float *applied, uint16_t n) {
    board->pose_at = board->pose_count = 0; /* what was seen ahead will not come about */
    for (unsigned at = 0; at < n; at += WIRE_VALUES_MAX) {
        unsigned count = n - at < WIRE_VALUES_MAX ? n - at : WIRE_VALUES_MAX;
        wire_plant_write_t write = {
            .time_us = time_us,
            .target = (uint16_t)target,
            .offset = (uint16_t)at,
            .count = (uint16_t)count,
        };
        memcpy(write.values, values + at, count * sizeof(float));
        uint8_t bytes[2 * FRAME_MAX];
        poses_t poses;
        applied_t answer = {&write, applied, NULL};
        size_t size = frame_of(board, WIRE_PLANT_WRITE, &write, sizeof write, bytes);
        if (board->lock_step && board->look_count > 1) {
            answer.then = &poses;
            size += ask_ahead(board, time_us, &poses, bytes + size);
        }
        if (exchange(board, bytes, size, take_applied, &answer) != 0) {
            board->pose_at = board->pose_count = 0;
            return -1;
        }
    }
    return 0;
}

typedef struct {
    uint64_t time_us;
    unsigned dof, total, taken;
    float *displacement, *elongation;
} sense_t;

static int take_sense(void *answer, const frame_t *frame) {
    sense_t *wanted = answer;
    wire_plant_sense_t got;
    if (frame->type != WIRE_PLANT_SENSE || frame->size != sizeof got) {
        return -1;
    }
    memcpy(&got, frame->payload, sizeof got);
    unsigned left = wanted->total - wanted->taken;
    unsigned count = left < WIRE_CHANNELS_MAX ? left : WIRE_CHANNELS_MAX;
    if (got.time_us != wanted->time_us || got.total != wanted->total ||
        got.offset != wanted->taken || got.count != count) {
        return -1;
    }
    for (unsigned i = 0; i < count; i++) {
        unsigned channel = wanted->taken + i;
        if (channel < wanted->dof) {
            wanted->displacement[channel] = got.values[i];
        } else {
            wanted->elongation[channel - wanted->dof] = got.values[i];
        }
    }
    wanted->taken += count;
    return wanted->taken < wanted->total;
}

int plant_sample(board_t *board, uint64_t time_us, float *displacement, float *elongation) {
    wire_plant_sample_t request = {.time_us = time_us};
    sense_t answer = {
        .time_us = time_us,
        .dof = board->dof,
        .total = (unsigned)board->dof + board->bonds,
        .displacement = displacement,
        .elongation = elongation,
    };
    uint8_t bytes[FRAME_MAX];
    size_t size = frame_of(board, WIRE_PLANT_SAMPLE, &request, sizeof request, bytes);
    return exchange(board, bytes, size, take_sense, &answer);
}

int plant_pose(board_t *board, uint64_t time_us, uint32_t period_us, uint32_t ahead, float *angle,
               float *position) {
    if (board->pose_at == board->pose_count || board->poses[board->pose_at].time_us != time_us) {
        uint32_t most = board->virtual_clock ? BOARD_AHEAD_MAX - 1 : 0;
        uint32_t count = 1 + (ahead < most ? ahead : most);
        wire_plant_look_t request = {.time_us = time_us, .period_us = period_us, .count = count};
        poses_t answer = {board, time_us, period_us, count};
        uint8_t bytes[FRAME_MAX];
        size_t size = frame_of(board, WIRE_PLANT_LOOK, &request, sizeof request, bytes);
        board->pose_at = board->pose_count = 0;
        board->look_period_us = period_us;
        board->look_count = count > board->look_count ? count : board->look_count;
        if (exchange(board, bytes, size, take_pose, &answer) != 0) {
            board->pose_at = board->pose_count = 0;
            return -1;
        }
    }
    const wire_plant_pose_t *pose = &board->poses[board->pose_at++];
    *angle = pose->angle;
    *position = pose->position;
    return 0;
}
