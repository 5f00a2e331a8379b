/* A time of day that can be set, for one process: loaded before the C library (LD_PRELOAD).
 *
 * The file named by SET_CLOCK_FILE holds one signed 64-bit number, the nanoseconds that are added to
 * CLOCK_REALTIME. It is mapped, so whoever writes there sets the clock at once and no call reads a file.
 * CLOCK_MONOTONIC is never touched, as the kernel does not touch it when a clock is set.
 *
 * A deadline in time of day is made from the set clock and kept by the kernel's, so it is set back on its
 * way there. (One that is being waited for keeps its length when the clock is set; the kernel would cut it
 * short or draw it out.)
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL

static _Atomic int64_t none;
static _Atomic int64_t *offset = &none;
static int (*real_clock_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void open_offset(void) {
    real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    const char *path = getenv("SET_CLOCK_FILE");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *mapped = mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (mapped != MAP_FAILED) offset = mapped;
}

static struct timespec plus(struct timespec t, int64_t ns) {
    int64_t nanoseconds = t.tv_nsec + ns % SECOND;
    int64_t carry = nanoseconds < 0 ? -1 : nanoseconds >= SECOND;
    return (struct timespec){t.tv_sec + ns / SECOND + carry, nanoseconds - carry * SECOND};
}

int clock_gettime(clockid_t id, struct timespec *t) {
    /* An allocator may ask before the constructor has run. */
    int failed = real_clock_gettime ? real_clock_gettime(id, t) : (int)syscall(SYS_clock_gettime, id, t);
    if (!failed && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) *t = plus(*t, *offset);
    return failed;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone) {
    struct timespec now;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
    *t = (struct timeval){now.tv_sec, now.tv_nsec / 1000};
    return 0;
}

time_t time(time_t *t) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (t) *t = now.tv_sec;
    return now.tv_sec;
}

int timespec_get(struct timespec *t, int base) {
    return base == TIME_UTC && !clock_gettime(CLOCK_REALTIME, t) ? base : 0;
}

/* pthread_cond_timedwait does not say which clock its condition has; a monotonic one counts from the start
 * of the machine and is far from any time of day. */
static struct timespec deadline(const struct timespec *t) {
    return t->tv_sec > SECOND ? plus(*t, -*offset) : *t;
}

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

int pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *t) {
    static __typeof__(pthread_cond_timedwait) *real;
    /* Where glibc has an older one beside it, dlsym may give that, which takes other conditions. */
    if (!real) real = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
    if (!real) real = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    struct timespec at = deadline(t);
    return real(c, m, &at);
}

int pthread_cond_clockwait(pthread_cond_t *c, pthread_mutex_t *m, clockid_t id, const struct timespec *t) {
    REAL(pthread_cond_clockwait);
    struct timespec at = id == CLOCK_REALTIME ? deadline(t) : *t;
    return real(c, m, id, &at);
}

/* C11's own do not come through those above: the C library calls itself. */
int cnd_timedwait(cnd_t *restrict c, mtx_t *restrict m, const struct timespec *restrict t) {
    REAL(cnd_timedwait);
    struct timespec at = deadline(t);
    return real(c, m, &at);
}

int mtx_timedlock(mtx_t *restrict m, const struct timespec *restrict t) {
    REAL(mtx_timedlock);
    struct timespec at = deadline(t);
    return real(m, &at);
}

int pthread_mutex_timedlock(pthread_mutex_t *m, const struct timespec *t) {
    REAL(pthread_mutex_timedlock);
    struct timespec at = deadline(t);
    return real(m, &at);
}

int sem_timedwait(sem_t *s, const struct timespec *t) {
    REAL(sem_timedwait);
    struct timespec at = deadline(t);
    return real(s, &at);
}

int sem_clockwait(sem_t *s, clockid_t id, const struct timespec *t) {
    REAL(sem_clockwait);
    struct timespec at = id == CLOCK_REALTIME ? deadline(t) : *t;
    return real(s, id, &at);
}

int clock_nanosleep(clockid_t id, int flags, const struct timespec *t, struct timespec *left) {
    REAL(clock_nanosleep);
    struct timespec at = id == CLOCK_REALTIME && (flags & TIMER_ABSTIME) ? deadline(t) : *t;
    return real(id, flags, &at, left);
}
