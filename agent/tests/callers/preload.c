/* A library for LD_PRELOAD: asks from within whatever program its user may run. */
#include "caller.h"

__attribute__((constructor)) static void begin(int argc, char **argv) {
    if (argc < 2) return;
    int fd = dial(argv[1]);
    ask(fd);
    listen_for_answer(fd, 1);
    _exit(0);
}
