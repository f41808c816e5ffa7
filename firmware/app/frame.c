#include "frame.h"

#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the messages are copied as they lie in memory: a little-endian target is needed"
#endif

/* One entry per half byte: 64 bytes of flash, half the speed of the 1 KiB table. */
static const uint32_t crc_table[16] = {
    0x00000000u, 0x1db71064u, 0x3b6e20c8u, 0x26d930acu, 0x76dc4190u, 0x6b6b51f4u,
    0x4db26158u, 0x5005713cu, 0xedb88320u, 0xf00f9344u, 0xd6d6a3e8u, 0xcb61b38cu,
    0x9b64c2b0u, 0x86d3d2d4u, 0xa00ae278u, 0xbdbdf21cu,
};

uint32_t frame_crc32(const uint8_t *bytes, size_t count) {
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < count; i++) {
        crc ^= bytes[i];
        crc = (crc >> 4) ^ crc_table[crc & 15u];
        crc = (crc >> 4) ^ crc_table[crc & 15u];
    }
    return ~crc;
}

/* Consistent overhead byte stuffing (Cheshire & Baker 1999): no zero in the output. */
static size_t cobs_encode(const uint8_t *in, size_t count, uint8_t *out) {
    size_t code_at = 0, at = 1;
    uint8_t code = 1;
    for (size_t i = 0; i < count; i++) {
        if (in[i] != 0) {
            out[at++] = in[i];
            code++;
        }
        if (in[i] == 0 || code == 0xff) {
            out[code_at] = code;
            if (in[i] != 0 && i + 1 == count) {
                return at; /* a full block at the very end needs no empty one after it */
            }
            code = 1;
            code_at = at++;
        }
    }
    out[code_at] = code;
    return at;
}

/* Decode in place; `count` bytes without a zero. Returns false when a block is cut short. */
static bool cobs_decode(uint8_t *bytes, size_t count, size_t *decoded) {
    size_t from = 0, to = 0;
    while (from < count) {
        size_t code = bytes[from++];
        size_t run = code - 1;
        if (run > count - from) {
            return false;
        }
        memmove(bytes + to, bytes + from, run);
        from += run;
        to += run;
        if (code != 0xff && from < count) {
            bytes[to++] = 0;
        }
    }
    *decoded = to;
    return true;
}

size_t frame_encode(const frame_t *frame, uint8_t out[FRAME_MAX]) {
    uint8_t body[FRAME_BODY_MAX];
    if (frame->size > WIRE_PAYLOAD_MAX) {
        return 0;
    }
    body[0] = frame->type;
    body[1] = frame->flags;
    memcpy(body + 2, &frame->seq, 2);
    memcpy(body + FRAME_HEADER, frame->payload, frame->size);
    size_t count = FRAME_HEADER + frame->size;
    uint32_t crc = frame_crc32(body, count);
    memcpy(body + count, &crc, FRAME_CRC);
    size_t length = cobs_encode(body, count + FRAME_CRC, out);
    out[length] = 0;
    return length + 1;
}

static bool decode(uint8_t *bytes, size_t length, frame_t *frame) {
    size_t count;
    if (!cobs_decode(bytes, length, &count) || count < FRAME_HEADER + FRAME_CRC) {
        return false;
    }
    uint32_t crc;
    memcpy(&crc, bytes + count - FRAME_CRC, FRAME_CRC);
    if (crc != frame_crc32(bytes, count - FRAME_CRC)) {
        return false;
    }
    frame->type = bytes[0];
    frame->flags = bytes[1];
    memcpy(&frame->seq, bytes + 2, 2);
    frame->payload = bytes + FRAME_HEADER;
    frame->size = count - FRAME_HEADER - FRAME_CRC;
    return true;
}

bool frame_parse(frame_parser_t *parser, uint8_t byte, frame_t *frame) {
    if (byte != 0) {
        if (parser->length < sizeof parser->bytes) {
            parser->bytes[parser->length++] = byte;
        } else {
            parser->overlong = true;
        }
        return false;
    }
    size_t length = parser->length;
    bool overlong = parser->overlong;
    parser->length = 0;
    parser->overlong = false;
    if (length == 0) {
        return false; /* two delimiters in a row: a way to resynchronise, not an error */
    }
    if (overlong || !decode(parser->bytes, length, frame)) {
        parser->bad_frames++;
        return false;
    }
    return true;
}
