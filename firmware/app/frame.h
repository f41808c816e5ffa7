/* Frames on a byte stream: type, flags, seq, payload, CRC-32, COBS, 0x00.
 *
 * The same bytes as hil/messages/frame.py. Nothing here waits, allocates or keeps state
 * outside the parser it is given.
 */
#ifndef HIL_FRAME_H
#define HIL_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire.h"

#define FRAME_HEADER 4u /* type, flags, seq */
#define FRAME_CRC 4u
#define FRAME_BODY_MAX (FRAME_HEADER + WIRE_PAYLOAD_MAX + FRAME_CRC)
#define FRAME_MAX (FRAME_BODY_MAX + FRAME_BODY_MAX / 254u + 2u) /* COBS codes and delimiter */

typedef struct {
    uint8_t type;
    uint8_t flags;
    uint16_t seq;
    const uint8_t *payload;
    size_t size; /* bytes of payload */
} frame_t;

/* All zeros is an empty parser. */
typedef struct {
    uint8_t bytes[FRAME_MAX];
    size_t length;       /* bytes kept since the last delimiter */
    bool overlong;       /* more came than any frame can hold */
    uint32_t bad_frames; /* dropped for COBS, length or CRC */
} frame_parser_t;

/* Return the CRC-32 of zlib (reflected polynomial 0xEDB88320). */
uint32_t frame_crc32(const uint8_t *bytes, size_t count);

/* Write one frame, delimiter included; returns its bytes, 0 for a payload too large. */
size_t frame_encode(const frame_t *frame, uint8_t out[FRAME_MAX]);

/* Take one byte; returns true when it completed a good frame. The frame's payload stays
 * valid until the next call. */
bool frame_parse(frame_parser_t *parser, uint8_t byte, frame_t *frame);

#endif
