/* Makes an io_uring whose next entry writes the request into the connection; a child that shares the ring enters it.
 *
 * With "exec": the one that connected becomes an honest program first. */
#include "caller.h"
#include <linux/io_uring.h>
#include <sys/mman.h>

static unsigned char bytes[1024];

int main(int argc, char **argv) {
    struct io_uring_params params = {0};
    size_t n = request(bytes);
    int fd = dial(argv[1]), ring = syscall(SYS_io_uring_setup, 4, &params);
    must(ring >= 0, "make a ring");
    /* The child enters it by number: it must survive exec, and the child's memory must be what was shared. */
    size_t size = params.sq_off.array + params.sq_entries * sizeof(unsigned);
    unsigned char *queue = mmap(0, size, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
    struct io_uring_sqe *entries =
        mmap(0, params.sq_entries * sizeof *entries, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES);
    must(queue != MAP_FAILED && entries != MAP_FAILED, "map the ring");
    entries[0] = (struct io_uring_sqe){.opcode = IORING_OP_WRITE, .fd = fd, .addr = (uintptr_t)bytes, .len = n};
    ((unsigned *)(queue + params.sq_off.array))[0] = 0;
    *(unsigned *)(queue + params.sq_off.tail) = 1;
    fcntl(ring, F_SETFD, 0);
    if (fork()) {
        if (argc > 2 && !strcmp(argv[2], "exec")) become_honest();
        say("connected");
        wait(0);
        return 0;
    }
    wait_for_word();
    long entered = syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, 0, 0);
    must(entered == 1, "enter the ring");
    listen_for_answer(fd, 1);
    return 0;
}
