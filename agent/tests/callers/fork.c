/* Connects and holds; its child asks. With "exec": becomes an honest program first, before the agent looks. */
#include "caller.h"

int main(int argc, char **argv) {
    int fd = dial(argv[1]);
    if (fork()) {
        if (argc > 2 && !strcmp(argv[2], "exec")) become_honest();
        say("connected");
        wait(0);
        return 0;
    }
    wait_for_word();
    ask(fd);
    listen_for_answer(fd, 1);
    return 0;
}
