/* The handshake, the modes, the counters: what is common to every application. */
#include <string.h>

#include "check.h"
#include "fake_board.h"

static fake_t fake;

static void info_is_always_answered(void) {
    fake_make(&fake, 1234);
    CHECK_EQ(app_init(&fake.app, &fake.hal), 0);
    wire_info_request_t request = {WIRE_SCHEMA_CRC ^ 1u};
    const reply_t *reply = fake_ask(&fake, WIRE_INFO_REQUEST, &request, sizeof request);
    CHECK_EQ(reply->type, WIRE_INFO);
    CHECK_EQ(reply->size, sizeof(wire_info_t));
    CHECK_EQ(reply->info.device_us, 1234);
    CHECK_EQ(reply->info.device_id, 77);
    CHECK_EQ(reply->info.schema, WIRE_SCHEMA_CRC);
    CHECK_EQ(reply->info.application, WIRE_APPLICATION_SPRING_NETWORK);
    CHECK_EQ(reply->info.watchdog_max_us, 2000000);
    CHECK_EQ(reply->info.dof, FAKE_DOF);
    CHECK_EQ(reply->info.bonds, FAKE_BONDS);
    CHECK_EQ(reply->info.cases, APP_CASES_MAX);
    CHECK(memcmp(reply->info.board, "fake\0\0\0\0\0\0\0\0\0\0\0\0", 16) == 0);
}

static void a_long_board_name_is_cut(void) {
    fake_make(&fake, 0);
    fake.hal.board = "a-board-with-a-long-name";
    CHECK_EQ(app_init(&fake.app, &fake.hal), 0);
    wire_info_request_t request = {WIRE_SCHEMA_CRC};
    const reply_t *reply = fake_ask(&fake, WIRE_INFO_REQUEST, &request, sizeof request);
    CHECK(memcmp(reply->info.board, "a-board-with-a-l", 16) == 0);
}

static void another_schema_is_refused(void) {
    fake_make(&fake, 0);
    CHECK_EQ(app_init(&fake.app, &fake.hal), 0);
    for (unsigned round = 0; round < 2; round++) {
        /* Before any handshake, and again after one with another schema. */
        wire_setup_t setup = fake_setup();
        wire_time_request_t time = {1};
        CHECK_EQ(fake_reason(&fake, WIRE_SETUP, &setup, sizeof setup), WIRE_REASON_SCHEMA);
        CHECK_EQ(fake_mode(&fake, WIRE_MODE_FAULT), WIRE_REASON_SCHEMA);
        CHECK_EQ(fake_reason(&fake, WIRE_TIME_REQUEST, &time, sizeof time), WIRE_REASON_SCHEMA);
        wire_info_request_t right = {WIRE_SCHEMA_CRC}, wrong = {0};
        fake_ask(&fake, WIRE_INFO_REQUEST, &right, sizeof right);
        CHECK_EQ(fake_state(&fake)->mode, WIRE_MODE_INACTIVE);
        fake_ask(&fake, WIRE_INFO_REQUEST, &wrong, sizeof wrong);
    }
}

static void start_makes_outputs_safe(void) {
    fake_make(&fake, 50);
    CHECK_EQ(app_init(&fake.app, &fake.hal), 0);
    CHECK_EQ(fake.log_count, 1);
    CHECK(fake_event(&fake, DID_FORCE, 0)->zero);
    fake_make(&fake, 50);
    fake.fail_force = -1;
    CHECK_EQ(app_init(&fake.app, &fake.hal), 0);
    CHECK_EQ(fake.app.core.mode, WIRE_MODE_FAULT);
    CHECK_EQ(fake.app.core.fault, WIRE_FAULT_ACTUATOR);
}

static void a_board_too_large_is_refused(void) {
    fake_make(&fake, 0);
    fake.hal.dof = APP_DOF_MAX + 1;
    CHECK_EQ(app_init(&fake.app, &fake.hal), -1);
    fake.hal.dof = 1;
    fake.hal.bonds = 0;
    CHECK_EQ(app_init(&fake.app, &fake.hal), -1);
}

static void time_is_told(void) {
    fake_start(&fake, 99);
    wire_time_request_t request = {UINT64_C(0x1122334455667788)};
    const reply_t *reply = fake_ask(&fake, WIRE_TIME_REQUEST, &request, sizeof request);
    CHECK_EQ(reply->type, WIRE_TIME);
    CHECK_EQ(reply->time.host_ns, UINT64_C(0x1122334455667788));
    CHECK_EQ(reply->time.device_us, 99);
}

static void every_change_of_mode(void) {
    enum { NO = WIRE_REASON_MODE };
    static const struct {
        uint8_t from, reason[4], to[4]; /* asked: INACTIVE, ACTIVE, FAULT, CLEAR */
    } table[] = {
        {WIRE_MODE_INACTIVE, {0, 0, 0, 0}, {0, 1, 2, 0}},
        {WIRE_MODE_ACTIVE, {0, 0, 0, NO}, {0, 1, 2, 1}},
        {WIRE_MODE_FAULT, {NO, NO, 0, 0}, {2, 2, 2, 0}},
    };
    for (unsigned from = 0; from < 3; from++) {
        for (uint32_t asked = 0; asked < 4; asked++) {
            fake_start(&fake, 0);
            wire_setup_t setup = fake_setup();
            CHECK_EQ(fake_reason(&fake, WIRE_SETUP, &setup, sizeof setup), 0);
            CHECK_EQ(fake_mode(&fake, table[from].from), 0);
            CHECK_EQ(fake_state(&fake)->mode, table[from].from);
            CHECK_EQ(fake_mode(&fake, asked), table[from].reason[asked]);
            CHECK_EQ(fake_state(&fake)->mode, table[from].to[asked]);
            CHECK_EQ(fake_state(&fake)->fault,
                     table[from].to[asked] == WIRE_MODE_FAULT ? WIRE_FAULT_STOPPED : 0);
        }
    }
    CHECK_EQ(fake_mode(&fake, 4), WIRE_REASON_RANGE);
}

static void activation_needs_setup(void) {
    fake_start(&fake, 0);
    CHECK_EQ(fake_mode(&fake, WIRE_MODE_ACTIVE), WIRE_REASON_NOT_SET_UP);
    CHECK_EQ(fake_state(&fake)->mode, WIRE_MODE_INACTIVE);
}

static void clear_needs_safe_outputs(void) {
    fake_start(&fake, 0);
    fake.fail_force = 3; /* the stop tries twice, the first clear once more */
    CHECK_EQ(fake_mode(&fake, WIRE_MODE_FAULT), 0);
    CHECK_EQ(fake_state(&fake)->fault, WIRE_FAULT_ACTUATOR);
    CHECK_EQ(fake_mode(&fake, WIRE_MODE_CLEAR), 0); /* second attempt of it succeeds */
    CHECK_EQ(fake_state(&fake)->mode, WIRE_MODE_INACTIVE);
    fake.fail_force = -1;
    CHECK_EQ(fake_mode(&fake, WIRE_MODE_FAULT), 0);
    CHECK_EQ(fake_mode(&fake, WIRE_MODE_CLEAR), 0);
    CHECK_EQ(fake_state(&fake)->mode, WIRE_MODE_FAULT);
    CHECK_EQ(fake_state(&fake)->fault, WIRE_FAULT_ACTUATOR);
}

static void unknown_frames_get_no_answer(void) {
    fake_start(&fake, 0);
    wire_state_t before = *fake_state(&fake);
    uint8_t payload[WIRE_PAYLOAD_MAX] = {0};
    unsigned sent = 0, replies = fake.reply_count;
    for (unsigned type = 0; type < 256; type++) {
        /* No request has 3 bytes; types without a meaning are not answered at any size. */
        fake_send(&fake, type, 7, payload, 3);
        fake_send(&fake, type | 0x80u, 7, payload, sizeof(wire_write_t));
        fake_send(&fake, WIRE_STATE_REQUEST, 7, payload, 5);
        fake_run(&fake);
        sent += 3;
    }
    CHECK_EQ(fake.reply_count, replies);
    wire_state_t after = *fake_state(&fake);
    CHECK_EQ(after.unknown - before.unknown, sent);
    CHECK_EQ(after.frames - before.frames, 1);
    CHECK_EQ(after.bad_frames, 0);
}

static void refusals_are_counted(void) {
    fake_start(&fake, 0);
    CHECK_EQ(fake_state(&fake)->refused, 0);
    fake_mode(&fake, WIRE_MODE_ACTIVE);
    fake_mode(&fake, 99);
    CHECK_EQ(fake_state(&fake)->refused, 2);
}

int main(void) {
    TEST(info_is_always_answered);
    TEST(a_long_board_name_is_cut);
    TEST(another_schema_is_refused);
    TEST(start_makes_outputs_safe);
    TEST(a_board_too_large_is_refused);
    TEST(time_is_told);
    TEST(every_change_of_mode);
    TEST(activation_needs_setup);
    TEST(clear_needs_safe_outputs);
    TEST(unknown_frames_get_no_answer);
    TEST(refusals_are_counted);
    return report("test_modes");
}
