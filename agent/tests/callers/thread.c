/* Another thread of the process that connected asks: the same process. */
#include "caller.h"
#include <pthread.h>

static void *speak(void *fd) {
    ask((int)(intptr_t)fd);
    listen_for_answer((int)(intptr_t)fd, 1);
    return 0;
}

int main(int argc, char **argv) {
    (void)argc;
    pthread_t thread;
    must(pthread_create(&thread, 0, speak, (void *)(intptr_t)dial(argv[1])) == 0, "make a thread");
    pthread_join(thread, 0);
    return 0;
}
