/* Sends descriptors along with the request: the agent must not keep them. */
#include "caller.h"

int main(int argc, char **argv) {
    (void)argc;
    unsigned char bytes[1024];
    size_t n = request(bytes);
    int fds[64];
    union {
        struct cmsghdr head;
        char bytes[CMSG_SPACE(sizeof fds)];
    } room = {0};
    struct iovec iov = {bytes, n};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &room, .msg_controllen = sizeof room};
    for (int i = 0; i < 64; i++) fds[i] = 1;
    room.head.cmsg_len = CMSG_LEN(sizeof fds);
    room.head.cmsg_level = SOL_SOCKET;
    room.head.cmsg_type = SCM_RIGHTS;
    memcpy(CMSG_DATA(&room.head), fds, sizeof fds);
    int fd = dial(argv[1]);
    must(sendmsg(fd, &message, 0) == (ssize_t)n, "send");
    listen_for_answer(fd, 1);
    return 0;
}
