/* A child moves the request from a pipe into its parent's connection, without a write. With "vmsplice": from memory. */
#include "caller.h"
#include <sys/uio.h>

int main(int argc, char **argv) {
    unsigned char bytes[1024];
    size_t n = request(bytes);
    int fd = dial(argv[1]), tube[2];
    must(pipe(tube) == 0, "make a pipe");
    if (fork()) {
        wait(0);
        return 0;
    }
    if (argc > 2 && !strcmp(argv[2], "vmsplice")) {
        struct iovec iov = {bytes, n};
        must(vmsplice(tube[1], &iov, 1, 0) == (ssize_t)n, "vmsplice");
    } else {
        must(write(tube[1], bytes, n) == (ssize_t)n, "fill the pipe");
    }
    must(splice(tube[0], 0, fd, 0, n, 0) == (ssize_t)n, "splice");
    listen_for_answer(fd, 1);
    return 0;
}
