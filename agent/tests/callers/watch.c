/* Stays on its stream and says what each message holds. */
#include "caller.h"

int main(int argc, char **argv) {
    (void)argc;
    int fd = dial(argv[1]);
    ask(fd);
    for (;;) listen_for_answer(fd, 1);
}
