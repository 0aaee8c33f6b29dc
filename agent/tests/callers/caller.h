/* A workload in C, as small as it can be: what the programs beside this file share.
 *
 * Nothing here uses stdio's streams: some programs unmap the executable that holds them. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* Tells the test how far we are, or what came out. */
static inline void say(const char *word) {
    dprintf(1, "%s\n", word);
}

static inline void must(int fine, const char *what) {
    if (fine) return;
    dprintf(1, "cannot %s: %s\n", what, strerror(errno));
    _exit(1);
}

/* Waits until the test says a line. */
static inline void wait_for_word(void) {
    char c = 0;
    while (read(0, &c, 1) == 1 && c != '\n') {}
}

static inline int dial(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    must(connect(fd, (struct sockaddr *)&address, sizeof address) == 0, "connect");
    return fd;
}

static inline size_t field(unsigned char *to, const char *name, const char *value) {
    size_t n = strlen(name), v = strlen(value);
    to[0] = 0x10;
    to[1] = n;
    memcpy(to + 2, name, n);
    to[2 + n] = v;
    memcpy(to + 3 + n, value, v);
    return 3 + n + v;
}

/* Preface, SETTINGS and FetchX509SVID on stream 1. Source: RFC 9113, RFC 7541, gRPC over HTTP/2. */
static inline size_t request(unsigned char *to) {
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    unsigned char *at = to;
    memcpy(at, preface, 24);
    memcpy(at + 24, "\0\0\0\4\0\0\0\0\0", 9);
    at += 33;
    unsigned char *headers = at;
    at += 9;
    at += field(at, ":method", "POST");
    at += field(at, ":scheme", "http");
    at += field(at, ":path", "/SpiffeWorkloadAPI/FetchX509SVID");
    at += field(at, ":authority", "localhost");
    at += field(at, "te", "trailers");
    at += field(at, "content-type", "application/grpc");
    at += field(at, "workload.spiffe.io", "true");
    size_t block = at - headers - 9;
    unsigned char head[9] = {block >> 16, block >> 8, block, 1, 4, 0, 0, 0, 1};
    memcpy(headers, head, 9);
    memcpy(at, "\0\0\5\0\1\0\0\0\1\0\0\0\0\0", 14);
    return at + 14 - to;
}

static inline void ask(int fd) {
    unsigned char bytes[1024];
    size_t n = request(bytes);
    if (send(fd, bytes, n, MSG_NOSIGNAL) != (ssize_t)n) dprintf(1, "cannot write: %s\n", strerror(errno));
}

/* The acknowledgement of SETTINGS, RFC 9113 §6.5.3. */
#define ACK "\0\0\0\4\1\0\0\0\0"

static inline int read_all(int fd, unsigned char *to, size_t n) {
    for (size_t done = 0; done < n;) {
        ssize_t r = read(fd, to + done, n - done);
        if (r <= 0) return 0;
        done += r;
    }
    return 1;
}

/* Says every SPIFFE ID in the message. */
static inline void say_ids(const unsigned char *bytes, size_t n) {
    static const char id[] = "spiffe://td/";
    char told[2048] = "got";
    for (size_t i = 0; i + sizeof id < n; i++) {
        if (memcmp(bytes + i, id, sizeof id - 1)) continue;
        char path[64] = " /";
        size_t at = 2;
        for (i += sizeof id - 1; i < n && at < 60 && bytes[i] >= 'a' && bytes[i] <= 'z'; i++) path[at++] = bytes[i];
        path[at++] = ' ';
        path[at] = 0;
        if (!strstr(told, path) && strlen(told) < 1900) strcat(told, path);
    }
    say(told);
}

/* Reads until there is an answer; `acknowledge`: as every HTTP/2 client does, we acknowledge SETTINGS. */
static inline void listen_for_answer(int fd, int acknowledge) {
    static unsigned char payload[1 << 20];
    unsigned char head[9];
    while (read_all(fd, head, 9)) {
        size_t n = head[0] << 16 | head[1] << 8 | head[2];
        if (n > sizeof payload || !read_all(fd, payload, n)) break;
        if (head[3] == 4 && !(head[4] & 1) && acknowledge) send(fd, ACK, 9, MSG_NOSIGNAL);
        if (head[3] == 0) return say_ids(payload, n);
        if (head[3] == 1 && (head[4] & 1)) return say("refused");
        if (head[3] == 3) return say("reset");
    }
    say("ended");
}

/* Becomes that user, for good. */
static inline void become(uid_t uid) {
    must(setresgid(uid, uid, uid) == 0 && setresuid(uid, uid, uid) == 0, "change user");
}

/* Becomes an honest program that does nothing with what it inherited. */
static inline void become_honest(void) {
    say("honest");
    execl("/usr/bin/sleep", "sleep", "60", (char *)0);
    must(0, "exec");
}
