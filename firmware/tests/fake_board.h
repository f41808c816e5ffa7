/* A board in memory: its clock moves only when the application waits, it writes down what
 * the application did, and it can be told to fail. */
#ifndef HIL_FAKE_BOARD_H
#define HIL_FAKE_BOARD_H

#include "app.h"

#define FAKE_DOF 40u /* more than one Write holds, so that pieces matter */
#define FAKE_BONDS 37u
#define FAKE_LOG 8192u
#define FAKE_REPLIES 256u

typedef enum { DID_FORCE, DID_STIFFNESS, DID_SAMPLE, DID_POSE } did_t;

typedef struct {
    did_t what;
    uint64_t time_us;
    float first; /* of the values written */
    bool zero;   /* all of them are */
} event_t;

typedef struct {
    uint8_t type;
    uint16_t seq;
    size_t size;
    union {
        uint8_t bytes[WIRE_PAYLOAD_MAX];
        wire_info_t info;
        wire_time_t time;
        wire_state_t state;
        wire_refused_t refused;
        wire_values_t values;
        wire_run_done_t done;
        wire_case_t load_case;
        wire_sample_t sample;
        wire_driven_t driven;
    };
} reply_t;

typedef struct fake {
    hal_t hal;
    app_t app;
    uint64_t now;
    uint64_t stop_at; /* time does not pass this point; then `paused` */
    bool paused, idle;

    uint8_t input[1u << 16];
    size_t input_at, input_count;
    frame_parser_t parser;
    reply_t replies[FAKE_REPLIES];
    unsigned reply_count;

    event_t log[FAKE_LOG];
    unsigned log_count, samples;
    float force[FAKE_DOF];
    float stiffness[FAKE_BONDS];

    float angle, position; /* of the cart-pole */
    uint32_t ahead;        /* the application said it would look that often again */
    bool host_gone;
    int fail_force, fail_stiffness, fail_sample; /* calls to come that fail; negative: all */
    void (*physics)(struct fake *fake, float *displacement, float *elongation);
    void (*on_wait)(struct fake *fake, uint64_t until_us);
    void (*on_call)(struct fake *fake);
    void (*on_force)(struct fake *fake, const float *values);
    void (*on_stiffness)(struct fake *fake, const float *values);
    void *user;
} fake_t;

/* A fresh board at time `start`, before app_init(). */
void fake_make(fake_t *fake, uint64_t start);

/* The same, started, with the schema exchanged. */
void fake_start(fake_t *fake, uint64_t start);

/* The same for a cart-pole, in lock-step or on a clock that runs by itself. */
void fake_start_cart_pole(fake_t *fake, uint64_t start, bool lock_step);

/* Give the application bytes to read. */
void fake_feed(fake_t *fake, const uint8_t *bytes, size_t count);

/* Send one request without waiting for anything. */
void fake_send(fake_t *fake, unsigned type, uint16_t seq, const void *payload, size_t size);

/* Turn the loop until it has nothing to do, or time has come to `stop_at`. */
void fake_run(fake_t *fake);
void fake_run_to(fake_t *fake, uint64_t stop_at);

/* Send one request and turn the loop without letting time pass; returns the answer. */
const reply_t *fake_ask(fake_t *fake, unsigned type, const void *payload, size_t size);

/* The same, for requests answered by State or Refused: the reason, 0 when accepted. */
unsigned fake_reason(fake_t *fake, unsigned type, const void *payload, size_t size);
unsigned fake_mode(fake_t *fake, uint32_t mode);
unsigned fake_write(fake_t *fake, unsigned target, unsigned load_case, float value);
unsigned fake_run_batch(fake_t *fake, uint32_t token, uint64_t valid_until, uint32_t batch,
                        uint32_t cases);
const wire_state_t *fake_state(fake_t *fake);

/* The newest reply of a type, or NULL. */
const reply_t *fake_newest(const fake_t *fake, unsigned type);

/* Events of one kind since the log was emptied; `index` negative counts from the end. */
unsigned fake_count(const fake_t *fake, did_t what);
const event_t *fake_event(const fake_t *fake, did_t what, int index);

/* A Setup in the middle of what is allowed: 1 ms settling, 4 samples 100 us apart. */
wire_setup_t fake_setup(void);

/* Setup, ACTIVE, stiffness 100 N/m everywhere applied. */
void fake_activate(fake_t *fake, const wire_setup_t *setup);

#endif
