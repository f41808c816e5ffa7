/* Generated from hil/messages/wire.py by `make gen`. Never edited by hand. */
#ifndef HIL_WIRE_H
#define HIL_WIRE_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#define WIRE_SCHEMA_CRC 0x9c813764u
#define WIRE_PAYLOAD_MAX 272u

#define WIRE_VALUES_MAX 32u
#define WIRE_CHANNELS_MAX 64u
#define WIRE_APPLICATION_SPRING_NETWORK 1u
#define WIRE_APPLICATION_CART_POLE 2u
#define WIRE_MODE_INACTIVE 0u
#define WIRE_MODE_ACTIVE 1u
#define WIRE_MODE_FAULT 2u
#define WIRE_MODE_CLEAR 3u
#define WIRE_FAULT_NONE 0u
#define WIRE_FAULT_STOPPED 1u
#define WIRE_FAULT_TOKEN_EXPIRED 2u
#define WIRE_FAULT_ACTUATOR 3u
#define WIRE_FAULT_SENSOR 4u
#define WIRE_FAULT_TRAVEL 5u
#define WIRE_FAULT_STUCK 6u
#define WIRE_REASON_SCHEMA 1u
#define WIRE_REASON_MODE 2u
#define WIRE_REASON_RANGE 3u
#define WIRE_REASON_LIMIT 4u
#define WIRE_REASON_TOKEN_STALE 5u
#define WIRE_REASON_TOKEN_EXPIRED 6u
#define WIRE_REASON_BUSY 7u
#define WIRE_REASON_NOT_SET_UP 8u
#define WIRE_REASON_NOT_FINITE 9u
#define WIRE_RUN_STATUS_NONE 0u
#define WIRE_RUN_STATUS_RUNNING 1u
#define WIRE_RUN_STATUS_DONE 2u
#define WIRE_RUN_STATUS_EXPIRED 3u
#define WIRE_RUN_STATUS_STOPPED 4u
#define WIRE_RUN_STATUS_FAILED 5u
#define WIRE_TARGET_STIFFNESS 0u
#define WIRE_TARGET_APPLIED_STIFFNESS 1u
#define WIRE_TARGET_FORCE 2u
#define WIRE_TARGET_DISPLACEMENT 3u
#define WIRE_TARGET_ELONGATION 4u
#define WIRE_CASE_FLAG_SETTLED 1u
#define WIRE_SAMPLE_FLAG_INTERLOCK 1u
#define WIRE_SAMPLE_FLAG_LATE 2u

/* Host asks who the device is. */
#define WIRE_INFO_REQUEST 0x01u
typedef struct {
    uint32_t schema; /* CRC-32 of the host's message declaration */
} wire_info_request_t;
static_assert(sizeof(wire_info_request_t) == 4, "wire_info_request_t");

/* Host asks for the device time. */
#define WIRE_TIME_REQUEST 0x02u
typedef struct {
    uint64_t host_ns; /* host time at sending, ns, returned unchanged */
} wire_time_request_t;
static_assert(sizeof(wire_time_request_t) == 8, "wire_time_request_t");

/* Host asks the device to change its mode; FAULT stops at once and latches. */
#define WIRE_MODE_REQUEST 0x03u
typedef struct {
    uint32_t mode; /* Mode */
} wire_mode_request_t;
static_assert(sizeof(wire_mode_request_t) == 4, "wire_mode_request_t");

/* Host asks for state and counters. */
#define WIRE_STATE_REQUEST 0x04u
typedef struct {
    uint32_t reserved; /* 0 */
} wire_state_request_t;
static_assert(sizeof(wire_state_request_t) == 4, "wire_state_request_t");

/* Limits and timing of the spring network; accepted only while not active. */
#define WIRE_SETUP 0x10u
typedef struct {
    float force_max; /* largest force magnitude on one degree of freedom, N */
    float stiffness_low; /* smallest stiffness, N/m */
    float stiffness_high; /* largest stiffness, N/m */
    float drift_max; /* largest change over the averaging window, m; 0: any */
    uint32_t watchdog_us; /* longest life of a token, us */
    uint32_t settle_us; /* wait between force and first sample, us */
    uint32_t settle_timeout_us; /* extra wait granted while drift is too large, us */
    uint32_t sample_period_us; /* time between two samples, us */
    uint32_t samples; /* samples averaged per case, at least 2 */
} wire_setup_t;
static_assert(sizeof(wire_setup_t) == 36, "wire_setup_t");

/* Host writes a piece of STIFFNESS (active, applied by Apply) or of FORCE. */
#define WIRE_WRITE 0x11u
typedef struct {
    uint16_t target; /* Target: STIFFNESS or FORCE */
    uint16_t load_case; /* load case, 0 for STIFFNESS */
    uint16_t offset; /* index of the first value */
    uint16_t count; /* values used, at most 32 */
    float values[32]; /* N/m or N */
} wire_write_t;
static_assert(sizeof(wire_write_t) == 136, "wire_write_t");

/* Host asks to set the actuators to STIFFNESS; the answer comes when they are. */
#define WIRE_APPLY 0x12u
typedef struct {
    uint32_t bonds; /* number of bonds written, must be all */
} wire_apply_t;
static_assert(sizeof(wire_apply_t) == 4, "wire_apply_t");

/* Host asks for a piece of any target; answered by Values. */
#define WIRE_READ 0x13u
typedef struct {
    uint16_t target; /* Target */
    uint16_t load_case; /* load case, 0 for stiffness */
    uint16_t offset; /* index of the first value */
    uint16_t count; /* values wanted, at most 32 */
} wire_read_t;
static_assert(sizeof(wire_read_t) == 8, "wire_read_t");

/* Host starts a batch of load cases; asking again for the same batch changes nothing. */
#define WIRE_RUN 0x14u
typedef struct {
    uint64_t valid_until_us; /* token: device time at which outputs become safe, us */
    uint32_t token; /* token: sequence, must grow while active */
    uint32_t batch; /* batch number, chosen by the host, not 0 */
    uint32_t cases; /* number of load cases */
    uint32_t reserved; /* 0 */
} wire_run_t;
static_assert(sizeof(wire_run_t) == 24, "wire_run_t");

/* Host asks how one load case was measured. */
#define WIRE_CASE_REQUEST 0x15u
typedef struct {
    uint32_t load_case; /* load case */
} wire_case_request_t;
static_assert(sizeof(wire_case_request_t) == 4, "wire_case_request_t");

/* Limits and timing of the cart-pole; accepted only while not active; starts the samples. */
#define WIRE_CART_POLE_SETUP 0x20u
typedef struct {
    float force_max; /* largest force magnitude, N */
    float travel; /* distance from the centre from which only forces inward act, m */
    float travel_hard; /* distance from the centre at which a fault latches, m */
    uint32_t watchdog_us; /* longest life of a token, us */
    uint32_t tick_us; /* time between two looks at the sensors, us */
    uint32_t stream_every; /* ticks between two Sample messages */
    float stuck_impulse; /* change of force times time on a still reading, N·s; 0: any */
} wire_cart_pole_setup_t;
static_assert(sizeof(wire_cart_pole_setup_t) == 28, "wire_cart_pole_setup_t");

/* Host commands the force and answers the newest sample; answered by Driven. */
#define WIRE_DRIVE 0x21u
typedef struct {
    uint64_t valid_until_us; /* token: device time at which outputs become safe, us */
    uint32_t token; /* token: sequence, must grow while active */
    float force; /* on the cart, N */
} wire_drive_t;
static_assert(sizeof(wire_drive_t) == 16, "wire_drive_t");

/* Host answers a sample without a command: the force stays, and so does the token. */
#define WIRE_PASS 0x22u
typedef struct {
    uint32_t sample; /* number of the sample */
} wire_pass_t;
static_assert(sizeof(wire_pass_t) == 4, "wire_pass_t");

/* Host asks for the newest sample once more; answered by Sample. */
#define WIRE_SAMPLE_REQUEST 0x23u
typedef struct {
    uint32_t reserved; /* 0 */
} wire_sample_request_t;
static_assert(sizeof(wire_sample_request_t) == 4, "wire_sample_request_t");

/* Who the device is. */
#define WIRE_INFO 0x81u
typedef struct {
    uint64_t device_us; /* device time, us */
    uint64_t device_id; /* serial number of the device */
    uint32_t schema; /* CRC-32 of the device's message declaration */
    uint32_t application; /* Application */
    uint32_t firmware; /* firmware version, major << 16 | minor << 8 | patch */
    uint32_t watchdog_max_us; /* longest token life the board allows, us */
    uint16_t dof; /* free degrees of freedom (force and displacement channels) */
    uint16_t bonds; /* bonds (stiffness and elongation channels) */
    uint16_t cases; /* load cases one batch may hold */
    uint16_t reserved; /* 0 */
    uint8_t board[16]; /* board name, ASCII, zero-padded */
} wire_info_t;
static_assert(sizeof(wire_info_t) == 56, "wire_info_t");

/* Device time beside the host time of the request. */
#define WIRE_TIME 0x82u
typedef struct {
    uint64_t host_ns; /* as sent, ns */
    uint64_t device_us; /* device time, us */
} wire_time_t;
static_assert(sizeof(wire_time_t) == 16, "wire_time_t");

/* State and counters; also the plain acknowledgement of every other request. */
#define WIRE_STATE 0x83u
typedef struct {
    uint64_t device_us; /* device time, us */
    uint32_t batch; /* newest batch; cart-pole: number of the newest sample */
    uint32_t token; /* newest token sequence */
    uint32_t frames; /* good frames received */
    uint32_t bad_frames; /* frames dropped for COBS, length or CRC */
    uint32_t unknown; /* good frames of unknown type or wrong payload size */
    uint32_t refused; /* requests refused */
    uint32_t expired; /* tokens that ran out while outputs were on */
    uint8_t mode; /* Mode: INACTIVE, ACTIVE or FAULT */
    uint8_t fault; /* Fault */
    uint8_t run; /* RunStatus of the newest batch */
    uint8_t cases_done; /* load cases measured in the newest batch */
} wire_state_t;
static_assert(sizeof(wire_state_t) == 40, "wire_state_t");

/* The device refused a request. */
#define WIRE_REFUSED 0x8fu
typedef struct {
    uint64_t device_us; /* device time, us */
    uint8_t type; /* type of the refused request */
    uint8_t reason; /* Reason */
    uint8_t mode; /* Mode of the device */
    uint8_t fault; /* Fault of the device */
    uint32_t detail; /* index of the offending value or case, else 0 */
} wire_refused_t;
static_assert(sizeof(wire_refused_t) == 16, "wire_refused_t");

/* A piece of an array. */
#define WIRE_VALUES 0x91u
typedef struct {
    uint16_t target; /* Target */
    uint16_t load_case; /* load case */
    uint16_t offset; /* index of the first value */
    uint16_t count; /* values used */
    float values[32]; /* N/m, N or m */
} wire_values_t;
static_assert(sizeof(wire_values_t) == 136, "wire_values_t");

/* A batch has ended; outputs are safe again. Sent unasked, with seq 0. */
#define WIRE_RUN_DONE 0x94u
typedef struct {
    uint64_t device_us; /* device time, us */
    uint32_t batch; /* batch */
    uint16_t cases_done; /* load cases measured */
    uint16_t status; /* RunStatus */
} wire_run_done_t;
static_assert(sizeof(wire_run_done_t) == 16, "wire_run_done_t");

/* How one load case was measured. */
#define WIRE_CASE 0x95u
typedef struct {
    uint64_t device_us; /* device time of the last sample, us */
    uint32_t batch; /* batch it belongs to */
    uint32_t flags; /* CaseFlag bits */
    float drift; /* largest change over the averaging window, m */
    uint32_t samples; /* samples averaged */
} wire_case_t;
static_assert(sizeof(wire_case_t) == 24, "wire_case_t");

/* Where a cart-pole is; sent unasked, with seq 0, every `stream_every` ticks. */
#define WIRE_SAMPLE 0xa0u
typedef struct {
    uint64_t device_us; /* device time of the sample, us */
    uint32_t sample; /* number of the sample, grows by 1, from 1 */
    uint32_t token; /* newest token sequence */
    float angle; /* of the pole, 0 upright, rad */
    float position; /* of the cart, 0 in the centre, m */
    float force; /* on the cart since the newest change, N */
    uint8_t mode; /* Mode */
    uint8_t fault; /* Fault */
    uint16_t flags; /* SampleFlag bits */
} wire_sample_t;
static_assert(sizeof(wire_sample_t) == 32, "wire_sample_t");

/* What became of a Drive; the same again when it is sent again. */
#define WIRE_DRIVEN 0xa1u
typedef struct {
    uint64_t device_us; /* device time at which it was carried out, us */
    uint32_t token; /* token sequence */
    uint32_t sample; /* number of the newest sample then */
    float force; /* applied, N */
    uint32_t flags; /* SampleFlag bits */
} wire_driven_t;
static_assert(sizeof(wire_driven_t) == 24, "wire_driven_t");

/* Firmware sets actuators of the plant; answered by PlantApplied. */
#define WIRE_PLANT_WRITE 0x40u
typedef struct {
    uint64_t time_us; /* device time of the change, us */
    uint16_t target; /* Target: STIFFNESS or FORCE */
    uint16_t offset; /* index of the first value */
    uint16_t count; /* values used */
    uint16_t reserved; /* 0 */
    float values[32]; /* N/m or N */
} wire_plant_write_t;
static_assert(sizeof(wire_plant_write_t) == 144, "wire_plant_write_t");

/* Firmware samples all sensors of the plant; answered by PlantSense frames. */
#define WIRE_PLANT_SAMPLE 0x41u
typedef struct {
    uint64_t time_us; /* device time of the sample, never before an earlier one, us */
} wire_plant_sample_t;
static_assert(sizeof(wire_plant_sample_t) == 8, "wire_plant_sample_t");

/* Firmware samples a cart-pole; answered by one PlantPose per tick. */
#define WIRE_PLANT_LOOK 0x42u
typedef struct {
    uint64_t time_us; /* device time of the first sample, us */
    uint32_t period_us; /* time between two, us */
    uint32_t count; /* how many */
} wire_plant_look_t;
static_assert(sizeof(wire_plant_look_t) == 16, "wire_plant_look_t");

/* What the actuators of the plant were set to. */
#define WIRE_PLANT_APPLIED 0xc0u
typedef struct {
    uint16_t target; /* Target: STIFFNESS or FORCE */
    uint16_t offset; /* index of the first value */
    uint16_t count; /* values used */
    uint16_t reserved; /* 0 */
    float values[32]; /* N/m or N */
} wire_plant_applied_t;
static_assert(sizeof(wire_plant_applied_t) == 136, "wire_plant_applied_t");

/* Sensors of the plant: displacements, then elongations; one frame per 64 channels. */
#define WIRE_PLANT_SENSE 0xc1u
typedef struct {
    uint64_t time_us; /* time of the sample, us */
    uint16_t offset; /* index of the first channel */
    uint16_t count; /* channels used */
    uint16_t total; /* channels of the plant */
    uint16_t reserved; /* 0 */
    float values[64]; /* m */
} wire_plant_sense_t;
static_assert(sizeof(wire_plant_sense_t) == 272, "wire_plant_sense_t");

/* Sensors of a cart-pole at one time. */
#define WIRE_PLANT_POSE 0xc2u
typedef struct {
    uint64_t time_us; /* time of the sample, us */
    float angle; /* of the pole, rad */
    float position; /* of the cart, m */
} wire_plant_pose_t;
static_assert(sizeof(wire_plant_pose_t) == 16, "wire_plant_pose_t");

#endif
