/* Asks, and becomes an honest program before the agent looks; its child only reads, which nobody can see. */
#include "caller.h"

int main(int argc, char **argv) {
    int fd = dial(argv[1]);
    ask(fd);
    if (argc > 2 && !strcmp(argv[2], "acknowledge")) must(write(fd, ACK, 9) == 9, "write");
    if (fork()) become_honest();
    wait_for_word();
    listen_for_answer(fd, 0);
    return 0;
}
