/* A child connects; its parent takes the connection with pidfd_getfd(2) and asks. */
#include "caller.h"

int main(int argc, char **argv) {
    (void)argc;
    int tell[2], number;
    must(pipe(tell) == 0, "make a pipe");
    pid_t child = fork();
    if (!child) {
        number = dial(argv[1]);
        must(write(tell[1], &number, sizeof number) == sizeof number, "tell");
        pause();
    }
    must(read(tell[0], &number, sizeof number) == sizeof number, "be told");
    int pidfd = syscall(SYS_pidfd_open, child, 0);
    int fd = syscall(SYS_pidfd_getfd, pidfd, number, 0);
    must(fd >= 0, "steal");
    ask(fd);
    listen_for_answer(fd, 1);
    kill(child, SIGKILL);
    return 0;
}
