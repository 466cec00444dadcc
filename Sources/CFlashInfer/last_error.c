// The calling thread's last error message: thread-local memory, which Swift has no word for.

#include "fi_last_error.h"

#include <string.h>

static _Thread_local char message[2048];

const char *fi_last_error_text(void) { return message; }

void fi_set_last_error_text(const char *text, size_t length) {
    if (length >= sizeof message) {
        // A message that does not fit ends between two characters: continuation bytes of UTF-8 are 10xxxxxx.
        length = sizeof message - 1;
        while (length > 0 && ((unsigned char)text[length] & 0xC0) == 0x80) length--;
    }
    memcpy(message, text, length);
    message[length] = 0;
}
