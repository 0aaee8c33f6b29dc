/* In a user and PID namespace of its own, where it is root, a process says that another one wrote.
 *
 * "outside": the one that connected is outside of that namespace. "inside": it is inside, too. */
#include "caller.h"

static long claim(int fd, pid_t pid, uid_t uid, const void *bytes, size_t n) {
    union {
        struct cmsghdr head;
        char bytes[CMSG_SPACE(sizeof(struct ucred))];
    } room = {0};
    struct ucred claimed = {pid, uid, uid};
    struct iovec iov = {(void *)bytes, n};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &room, .msg_controllen = sizeof room};
    room.head.cmsg_len = CMSG_LEN(sizeof claimed);
    room.head.cmsg_level = SOL_SOCKET;
    room.head.cmsg_type = SCM_CREDENTIALS;
    memcpy(CMSG_DATA(&room.head), &claimed, sizeof claimed);
    return sendmsg(fd, &message, MSG_NOSIGNAL);
}

static void write_file(const char *path, const char *text) {
    int fd = open(path, O_WRONLY);
    must(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text), path);
    close(fd);
}

int main(int argc, char **argv) {
    (void)argc;
    unsigned char bytes[1024];
    size_t n = request(bytes);
    char map[64];
    int outside = !strcmp(argv[2], "outside"), fd = outside ? dial(argv[1]) : -1;
    pid_t peer = getpid();
    snprintf(map, sizeof map, "0 %d 1", getuid());
    if (outside && fork()) {
        wait(0);
        return 0;
    }
    must(unshare(CLONE_NEWUSER | CLONE_NEWPID) == 0, "make namespaces");
    write_file("/proc/self/setgroups", "deny");
    write_file("/proc/self/uid_map", map);
    write_file("/proc/self/gid_map", map);
    if (fork()) {
        wait(0);
        return 0;
    }
    if (!outside) {
        fd = dial(argv[1]);
        peer = getpid();
        if (fork()) {
            wait(0);
            return 0;
        }
    }
    if (claim(fd, peer, 0, bytes, n) != (ssize_t)n) {
        dprintf(1, "the kernel refuses the claim: %s\n", strerror(errno));
        ask(fd);
    }
    claim(fd, peer, 0, ACK, 9);
    listen_for_answer(fd, 0);
    return 0;
}
