/* One user connects and hands the connection to another user, who asks. Start it as root: PROGRAM SOCKET OWNER HEIR. */
#include "caller.h"

union room {
    struct cmsghdr head;
    char bytes[CMSG_SPACE(sizeof(int))];
};

static void give(int to, int fd) {
    char byte = 0;
    union room room = {0};
    struct iovec iov = {&byte, 1};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &room, .msg_controllen = sizeof room};
    room.head.cmsg_len = CMSG_LEN(sizeof(int));
    room.head.cmsg_level = SOL_SOCKET;
    room.head.cmsg_type = SCM_RIGHTS;
    memcpy(CMSG_DATA(&room.head), &fd, sizeof fd);
    must(sendmsg(to, &message, 0) == 1, "hand over");
}

static int take(int from) {
    char byte;
    int fd;
    union room room = {0};
    struct iovec iov = {&byte, 1};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &room, .msg_controllen = sizeof room};
    must(recvmsg(from, &message, 0) == 1, "take over");
    memcpy(&fd, CMSG_DATA(&room.head), sizeof fd);
    return fd;
}

int main(int argc, char **argv) {
    (void)argc;
    int pair[2];
    must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0, "make a pair");
    if (fork()) {
        become(atoi(argv[2]));
        give(pair[0], dial(argv[1]));
        wait(0);
        return 0;
    }
    become(atoi(argv[3]));
    int fd = take(pair[1]);
    ask(fd);
    listen_for_answer(fd, 1);
    return 0;
}
