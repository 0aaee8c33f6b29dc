/* A library for LD_PRELOAD: makes its process look like /usr/bin/sleep with prctl(PR_SET_MM, PR_SET_MM_MAP).
 *
 * PROGRAM SOCKET HOW [FILE]. "own": in a user namespace of its own. "shared": a child that shares the memory makes the namespace and the call, and
 * exits; the process itself never leaves the namespaces it was started in. Needs CONFIG_CHECKPOINT_RESTORE. */
#include "caller.h"
#include <linux/prctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>

static struct prctl_mm_map map;
static long outcome;

/* The map may only be changed once nothing of the old executable is mapped. */
static void unmap_executable(void) {
    char exe[256], line[512];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    exe[n > 0 ? n : 0] = 0;
    int fd = open("/proc/self/maps", O_RDONLY);
    unsigned long from[64], to[64];
    size_t found = 0, at = 0;
    for (char c; read(fd, &c, 1) == 1;) {
        if (c != '\n') {
            if (at + 1 < sizeof line) line[at++] = c;
            continue;
        }
        line[at] = 0;
        at = 0;
        if (strstr(line, exe) && found < 64 && sscanf(line, "%lx-%lx", &from[found], &to[found]) == 2) found++;
    }
    close(fd);
    for (size_t i = 0; i < found; i++) munmap((void *)from[i], to[i] - from[i]);
}

/* What the kernel thinks now, from proc_pid_stat(5). */
static void read_map(void) {
    char text[2048], *at;
    int fd = open("/proc/self/stat", O_RDONLY);
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    text[n > 0 ? n : 0] = 0;
    unsigned long long fields[64] = {0};
    at = strrchr(text, ')');
    for (int i = 3; at && i < 53; i++) {
        at = strchr(at, ' ');
        if (at) fields[i] = strtoull(++at, 0, 10);
    }
    map = (struct prctl_mm_map){
        .start_code = fields[26], .end_code = fields[27], .start_stack = fields[28],
        .start_data = fields[45], .end_data = fields[46], .start_brk = fields[47], .brk = (uintptr_t)sbrk(0),
        .arg_start = fields[48], .arg_end = fields[49], .env_start = fields[50], .env_end = fields[51],
    };
}

static int forge(void *unused) {
    (void)unused;
    outcome = syscall(SYS_prctl, PR_SET_MM, PR_SET_MM_MAP, &map, sizeof map, 0);
    if (outcome) outcome = errno;
    return 0;
}

static void run(const char *socket, const char *how, const char *file) {
    static char stack[1 << 16] __attribute__((aligned(16)));
    read_map();
    unmap_executable();
    map.exe_fd = open(file, O_RDONLY);
    must((int)map.exe_fd >= 0, "open the file");
    if (!strcmp(how, "own")) {
        must(unshare(CLONE_NEWUSER) == 0, "make a user namespace");
        forge(0);
    } else {
        pid_t child = clone(forge, stack + sizeof stack, CLONE_VM | CLONE_NEWUSER | SIGCHLD, 0);
        must(child > 0, "clone");
        waitpid(child, 0, 0);
    }
    errno = outcome;
    must(outcome == 0, "forge the link");
    say("forged");
    wait_for_word();
    int fd = dial(socket);
    ask(fd);
    listen_for_answer(fd, 1);
    _exit(0);
}

__attribute__((constructor)) static void begin(int argc, char **argv) {
    if (argc > 2) run(argv[1], argv[2], argc > 3 ? argv[3] : "/usr/bin/sleep");
}
