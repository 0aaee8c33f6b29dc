/* Writes a request, and pings up to so many bytes, before it is accepted: PROGRAM SOCKET BYTES. */
#include "caller.h"

int main(int argc, char **argv) {
    (void)argc;
    static unsigned char bytes[1 << 17];
    size_t n = request(bytes), all = atoi(argv[2]);
    /* The rest is PING frames, RFC 9113 §6.7, the last of them cut off. */
    for (size_t at = n; at < all; at += 17) memcpy(bytes + at, "\0\0\10\6\0\0\0\0\0" "12345678", 17);
    int fd = dial(argv[1]);
    must(write(fd, bytes, all) == (ssize_t)all, "write");
    say("queued");
    wait_for_word();
    listen_for_answer(fd, 0);
    return 0;
}
