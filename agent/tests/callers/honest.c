/* What every client does. With "bytes": one byte at a time. With "silent": never acknowledges SETTINGS. */
#include "caller.h"

int main(int argc, char **argv) {
    const char *how = argc > 2 ? argv[2] : "";
    int fd = dial(argv[1]);
    if (!strcmp(how, "queued")) {
        ask(fd);
        say("asked");
    } else if (!strcmp(how, "bytes")) {
        unsigned char bytes[1024];
        size_t n = request(bytes);
        for (size_t i = 0; i < n; i++) must(write(fd, bytes + i, 1) == 1, "write");
    } else {
        ask(fd);
    }
    listen_for_answer(fd, strcmp(how, "silent"));
    wait_for_word();
    return 0;
}
