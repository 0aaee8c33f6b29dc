/* Asks, and becomes a program that prints what is appended to a file, with the connection as its output: PROGRAM SOCKET FILE HOW.
 *
 * "print": text, which the frame that it lands in swallows. "copy": the acknowledgement that a client would write. */
#include "caller.h"

int main(int argc, char **argv) {
    (void)argc;
    int fd = dial(argv[1]), copy = !strcmp(argv[3], "copy");
    ask(fd);
    /* A frame of a kind that nobody knows is ignored, RFC 9113 §5.5. */
    if (!copy) must(write(fd, "\0\100\0\276\0\0\0\0\0", 9) == 9, "write");
    int file = open(argv[2], O_WRONLY | O_APPEND | O_CREAT, 0600);
    must(file >= 0, "make the file");
    if (fork()) {
        say("honest");
        dup2(fd, 1);
        execl("/usr/bin/tail", "tail", "-f", argv[2], (char *)0);
        _exit(1);
    }
    wait_for_word();
    unsigned char head[9];
    must(read_all(fd, head, 9), "be accepted");
    unsigned char rest[1024];
    must(read_all(fd, rest, head[1] << 8 | head[2]), "be accepted");
    if (copy) must(write(file, ACK, 9) == 9, "append");
    else must(write(file, "ready\n", 6) == 6, "append");
    listen_for_answer(fd, 0);
    return 0;
}
