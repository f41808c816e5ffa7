/* CRC and COBS against published vectors, frames against the Python side's bytes (a golden
 * file named on the command line), and the parser against a million bytes of nonsense. */
#include <string.h>

#include "check.h"
#include "frame.h"

static bool parse_all(frame_parser_t *parser, const uint8_t *bytes, size_t count, frame_t *frame) {
    bool found = false;
    for (size_t i = 0; i < count; i++) {
        found = frame_parse(parser, bytes[i], frame) || found;
    }
    return found;
}

static void crc_vectors(void) {
    /* The check value of CRC-32/ISO-HDLC, and three others computed by zlib. */
    CHECK_EQ(frame_crc32((const uint8_t *)"123456789", 9), 0xcbf43926u);
    CHECK_EQ(frame_crc32(NULL, 0), 0);
    CHECK_EQ(frame_crc32((const uint8_t *)"\0", 1), 0xd202ef8du);
    CHECK_EQ(frame_crc32((const uint8_t *)"\xff\xff\xff\xff", 4), 0xffffffffu);
}

/* COBS cannot be called from outside, so look at it through a frame without its header. */
static void cobs_blocks(void) {
    for (size_t size = 0; size <= WIRE_PAYLOAD_MAX; size++) {
        for (unsigned fill = 0; fill < 2; fill++) {
            uint8_t payload[WIRE_PAYLOAD_MAX], bytes[FRAME_MAX];
            memset(payload, (int)fill, sizeof payload);
            frame_t sent = {.type = 0x42, .flags = 3, .seq = 0x0102, .payload = payload,
                            .size = size};
            size_t count = frame_encode(&sent, bytes);
            CHECK(count <= FRAME_MAX);
            CHECK(memchr(bytes, 0, count) == bytes + count - 1);
            frame_parser_t parser = {0};
            frame_t got;
            CHECK(parse_all(&parser, bytes, count, &got));
            CHECK_EQ(got.type, 0x42);
            CHECK_EQ(got.flags, 3);
            CHECK_EQ(got.seq, 0x0102);
            CHECK_EQ(got.size, size);
            CHECK(memcmp(got.payload, payload, size) == 0);
        }
    }
    frame_t large = {.size = WIRE_PAYLOAD_MAX + 1};
    uint8_t bytes[FRAME_MAX];
    CHECK_EQ(frame_encode(&large, bytes), 0);
}

static void empty_frame_bytes(void) {
    /* Body 01 00 00 00 and its CRC-32 (zlib: 0x99f8b879), stuffed by hand. */
    static const uint8_t expected[] = {0x02, 0x01, 0x01, 0x01, 0x05, 0x79, 0xb8, 0xf8, 0x99, 0x00};
    uint8_t bytes[FRAME_MAX];
    frame_t frame = {.type = 1, .payload = bytes};
    CHECK_EQ(frame_encode(&frame, bytes), sizeof expected);
    CHECK(memcmp(bytes, expected, sizeof expected) == 0);
}

static void bad_frames_are_counted(void) {
    static const struct {
        const char *bytes;
        size_t count;
    } bad[] = {
        {"\x05\x01\x00", 3},             /* block cut short */
        {"\x01\x00", 2},                 /* nothing in it */
        {"\x08\x01\x02\x03\x04\x05\x06\x07\x00", 9}, /* too short for a CRC */
        {"\x09\x01\x02\x03\x04\x05\x06\x07\x08\x00", 10}, /* wrong CRC */
    };
    frame_parser_t parser = {0};
    frame_t frame;
    for (uint32_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK(!parse_all(&parser, (const uint8_t *)bad[i].bytes, bad[i].count, &frame));
        CHECK_EQ(parser.bad_frames, i + 1);
    }
    for (unsigned i = 0; i < 10 * FRAME_MAX; i++) {
        CHECK(!frame_parse(&parser, 1, &frame));
    }
    CHECK_EQ(parser.bad_frames, 4); /* one endless frame counts once, at its end */
    CHECK(!frame_parse(&parser, 0, &frame));
    CHECK_EQ(parser.bad_frames, 5);
    CHECK(!frame_parse(&parser, 0, &frame)); /* nothing between two delimiters */
    CHECK_EQ(parser.bad_frames, 5);
}

static void an_older_frame_does_not_complete_a_cut_one(void) {
    uint8_t bytes[FRAME_MAX];
    frame_t sent = {.type = 1, .payload = (const uint8_t *)"abc", .size = 3}, got;
    size_t count = frame_encode(&sent, bytes);
    frame_parser_t parser = {0};
    CHECK(parse_all(&parser, bytes, count, &got));
    bytes[count - 2] = 0; /* the last byte is missing, but still lies in the buffer */
    CHECK(!parse_all(&parser, bytes, count - 1, &got));
    CHECK_EQ(parser.bad_frames, 1);
}

static void every_flipped_bit_is_seen(void) {
    uint8_t payload[40], bytes[FRAME_MAX];
    for (unsigned i = 0; i < sizeof payload; i++) {
        payload[i] = (uint8_t)(i % 7);
    }
    frame_t sent = {.type = 9, .seq = 500, .payload = payload, .size = sizeof payload};
    size_t count = frame_encode(&sent, bytes);
    for (size_t bit = 0; bit < 8 * (count - 1); bit++) {
        frame_parser_t parser = {0};
        frame_t got;
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        CHECK(!parse_all(&parser, bytes, count, &got));
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        CHECK(parser.bad_frames > 0);
        CHECK(parse_all(&parser, bytes, count, &got));
    }
}

/* A stream of frames that were cut, flipped, doubled, swapped, and plain noise: nothing is
 * lost from the count, and the next good frame is understood. */
static void fuzz(void) {
    prng_t random = {20240611};
    frame_parser_t parser = {0};
    frame_t frame;
    uint8_t older[FRAME_MAX] = {0};
    size_t older_count = 1, fed = 0;
    uint64_t chunks = 0, good = 0, run = 0;
    while (fed < 3000000) {
        uint8_t payload[WIRE_PAYLOAD_MAX], bytes[2 * FRAME_MAX];
        for (size_t i = 0; i < sizeof payload; i++) {
            payload[i] = (uint8_t)(prng_below(&random, 3) ? prng(&random) : 0);
        }
        frame_t sent = {.type = (uint8_t)prng(&random), .flags = (uint8_t)prng(&random),
                        .seq = (uint16_t)prng(&random), .payload = payload,
                        .size = prng_below(&random, WIRE_PAYLOAD_MAX + 1)};
        size_t count = frame_encode(&sent, bytes);
        uint8_t newer[FRAME_MAX];
        size_t newer_count = count;
        memcpy(newer, bytes, count);
        switch (prng_below(&random, 6)) {
        case 0: /* cut */
            count = prng_below(&random, (uint32_t)count + 1);
            break;
        case 1: /* some bits flipped */
            for (uint32_t flips = 1 + prng_below(&random, 8); flips > 0; flips--) {
                bytes[prng_below(&random, (uint32_t)count)] ^=
                    (uint8_t)(1u << prng_below(&random, 8));
            }
            break;
        case 2: /* doubled */
            memcpy(bytes + count, bytes, count);
            count *= 2;
            break;
        case 3: /* an older one after it */
            memcpy(bytes + count, older, older_count);
            count += older_count;
            break;
        case 4: /* noise */
            count = prng_below(&random, sizeof bytes);
            for (size_t i = 0; i < count; i++) {
                bytes[i] = (uint8_t)prng(&random);
            }
            break;
        default:
            break;
        }
        for (size_t i = 0; i < count; i++) {
            good += frame_parse(&parser, bytes[i], &frame);
            chunks += bytes[i] == 0 && run > 0; /* counted without looking inside */
            run = bytes[i] == 0 ? 0 : run + 1;
        }
        memcpy(older, newer, newer_count);
        older_count = newer_count;
        fed += count;
        CHECK_EQ(good + parser.bad_frames, chunks);
    }
    CHECK(good > 1000);
    CHECK(parser.bad_frames > 1000);
    uint8_t bytes[FRAME_MAX];
    frame_t sent = {.type = 5, .seq = 6, .payload = older, .size = 7};
    frame_parse(&parser, 0, &frame);
    CHECK(parse_all(&parser, bytes, frame_encode(&sent, bytes), &frame));
    CHECK_EQ(frame.size, 7);
}

static size_t from_hex(const char *hex, uint8_t *bytes) {
    size_t count = 0;
    unsigned byte;
    while (sscanf(hex + 2 * count, "%2x", &byte) == 1) {
        bytes[count++] = (uint8_t)byte;
    }
    return count;
}

/* Lines of: type flags seq payload frame, the last two in hex, an empty payload as `-`. */
static unsigned golden(const char *path) {
    FILE *file = fopen(path, "r");
    CHECK(file != NULL);
    unsigned type, flags, seq, lines = 0;
    char payload_hex[1200], frame_hex[1200];
    while (fscanf(file, "%u %u %u %1199s %1199s", &type, &flags, &seq, payload_hex, frame_hex) ==
           5) {
        uint8_t payload[600], expected[600], bytes[FRAME_MAX];
        size_t size = from_hex(payload_hex, payload), count = from_hex(frame_hex, expected);
        frame_t sent = {.type = (uint8_t)type, .flags = (uint8_t)flags, .seq = (uint16_t)seq,
                        .payload = payload, .size = size};
        CHECK_EQ(frame_encode(&sent, bytes), count);
        CHECK(memcmp(bytes, expected, count) == 0);
        frame_parser_t parser = {0};
        frame_t got;
        CHECK(parse_all(&parser, expected, count, &got));
        CHECK_EQ(got.type, type);
        CHECK_EQ(got.flags, flags);
        CHECK_EQ(got.seq, seq);
        CHECK_EQ(got.size, size);
        CHECK(memcmp(got.payload, payload, size) == 0);
        lines++;
    }
    CHECK(feof(file));
    fclose(file);
    CHECK(lines > 0);
    return lines;
}

int main(int argc, char **argv) {
    TEST(crc_vectors);
    TEST(cobs_blocks);
    TEST(empty_frame_bytes);
    TEST(bad_frames_are_counted);
    TEST(an_older_frame_does_not_complete_a_cut_one);
    TEST(every_flipped_bit_is_seen);
    TEST(fuzz);
    if (argc > 1) {
        printf("golden frames: %u\n", golden(argv[1]));
    }
    return report("test_frame");
}
