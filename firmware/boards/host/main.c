/* hil-firmware: the application on this computer, a pty for a serial port. */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "app.h"
#include "board.h"

volatile sig_atomic_t board_stopping;

static app_t app;
static board_t board;

static const char usage[] =
    "usage: hil-firmware --plant-fd N --clock virtual|wall --dof D --bonds B\n"
    "       hil-firmware --plant-fd N --clock virtual|wall --app cart_pole\n"
    "options: [--app spring_network] [--start-us T] [--device-id N] [--link PATH]\n";

static void on_signal(int signal) {
    (void)signal;
    board_stopping = 1;
}

/* SIGTERM, SIGINT and SIGHUP ask the program to end; they are let in only while it waits. */
static void catch_signals(void) {
    struct sigaction action = {.sa_handler = on_signal};
    sigset_t set;
    sigemptyset(&set);
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP};
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) {
        sigaction(signals[i], &action, NULL);
        sigaddset(&set, signals[i]);
    }
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static uint64_t number(const char *option, const char *text, uint64_t low, uint64_t high) {
    char *end;
    errno = 0;
    uint64_t value = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || text[0] == '-' || value < low ||
        value > high) {
        fprintf(stderr, "hil-firmware: --%s %s: expected a number from %" PRIu64 " to %" PRIu64 "\n",
                option, text, low, high);
        exit(2);
    }
    return value;
}

/* Make `path` a symbolic link to the port; only another link is replaced. */
static void make_link(const char *path) {
    struct stat found;
    if (lstat(path, &found) == 0 && S_ISLNK(found.st_mode)) {
        unlink(path);
    }
    if (symlink(board.port, path) != 0) {
        fprintf(stderr, "hil-firmware: --link %s: %s\n", path, strerror(errno));
        exit(2);
    }
}

int main(int argc, char **argv) {
    static const struct option options[] = {
        {"plant-fd", required_argument, NULL, 'p'}, {"dof", required_argument, NULL, 'd'},
        {"bonds", required_argument, NULL, 'b'},    {"clock", required_argument, NULL, 'c'},
        {"start-us", required_argument, NULL, 's'}, {"device-id", required_argument, NULL, 'i'},
        {"link", required_argument, NULL, 'l'},     {"app", required_argument, NULL, 'a'},
        {NULL, 0, NULL, 0},
    };
    const char *link = NULL, *clock = "", *application = "spring_network";
    uint64_t start_us = 0, device_id = 1;
    int option, index = 0;
    board.plant_fd = -1;
    while ((option = getopt_long(argc, argv, "", options, &index)) != -1) {
        const char *name = options[index].name;
        switch (option) {
        case 'p':
            board.plant_fd = (int)number(name, optarg, 0, 1000000);
            break;
        case 'd':
            board.dof = (uint16_t)number(name, optarg, 1, APP_DOF_MAX);
            break;
        case 'b':
            board.bonds = (uint16_t)number(name, optarg, 1, APP_BONDS_MAX);
            break;
        case 'c':
            clock = optarg;
            break;
        case 's':
            start_us = number(name, optarg, 0, UINT64_MAX / 2);
            break;
        case 'i':
            device_id = number(name, optarg, 0, UINT64_MAX);
            break;
        case 'a':
            application = optarg;
            break;
        case 'l':
            link = optarg;
            break;
        default:
            fputs(usage, stderr);
            return 2;
        }
    }
    board.virtual_clock = strcmp(clock, "virtual") == 0;
    if (strcmp(application, "cart_pole") == 0 && board.dof == 0 && board.bonds == 0) {
        board.application = WIRE_APPLICATION_CART_POLE;
        board.dof = 1; /* the force on the cart */
    } else if (strcmp(application, "spring_network") == 0 && board.dof > 0 && board.bonds > 0) {
        board.application = WIRE_APPLICATION_SPRING_NETWORK;
    }
    if (optind != argc || board.plant_fd < 0 || board.application == 0 ||
        (!board.virtual_clock && strcmp(clock, "wall") != 0)) {
        fputs(usage, stderr);
        return 2;
    }
    struct stat plant;
    if (fstat(board.plant_fd, &plant) != 0 || !S_ISSOCK(plant.st_mode)) {
        fprintf(stderr, "hil-firmware: --plant-fd %d is not an open socket\n", board.plant_fd);
        return 2;
    }
    catch_signals();
    if (board_open_pty(&board) != 0) {
        fprintf(stderr, "hil-firmware: no pseudo-terminal: %s\n", strerror(errno));
        return 1;
    }
    if (link != NULL) {
        make_link(link);
    }
    printf("port=%s\n", board.port);
    fflush(stdout);
    board_start_clock(&board, start_us);
    hal_t hal = board_hal(&board, device_id);
    app_init(&app, &hal);
    while (!board_stopping && !board.plant_closed) {
        app_poll(&app);
    }
    if (!board.plant_closed) {
        app_stop(&app);
    }
    board_flush(&board);
    if (link != NULL) {
        unlink(link);
    }
    if (board.dropped > 0) {
        fprintf(stderr, "hil-firmware: %" PRIu64 " bytes were taken by no host\n", board.dropped);
    }
    return 0;
}
