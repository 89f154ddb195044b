/* Makes one call of the C library fail: the nth that changes something below a folder.
 *
 * Loaded by LD_PRELOAD, so that it holds for Python, Rust and C++ alike. The test process finds the
 * two functions at the bottom with ctypes. A write that is to fail for want of space is cut short
 * first, as a disk that fills up does it; with `stay` every later call fails, too.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[PATH_MAX];
static long nth, seen;
static int code, stay;
static unsigned char ours[1 << 16];

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int fails(void) {
    if (!folder[0]) return 0;
    long now = __atomic_add_fetch(&seen, 1, __ATOMIC_SEQ_CST);
    if (nth && (now == nth || (stay && now > nth))) { errno = code; return 1; }
    return 0;
}

static int inside(const char *path) {
    return folder[0] && path && strncmp(path, folder, strlen(folder)) == 0;
}

enum { READING = 1, WRITING = 2 };
static int is(int fd, int how) { return fd >= 0 && fd < (int)sizeof ours && ours[fd] >= how; }
static int mine(int fd) { return is(fd, WRITING); }

static int opened(int fd, const char *path, int flags) {
    int how = flags & (O_WRONLY | O_RDWR) ? WRITING : READING;
    if (fd >= 0 && fd < (int)sizeof ours) ours[fd] = inside(path) ? how : 0;
    return fd;
}

#define CHANGES(flags) ((flags) & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC))
#define OPEN(name)                                                       \
    int name(const char *path, int flags, ...) {                         \
        va_list list; va_start(list, flags);                             \
        mode_t mode = va_arg(list, mode_t); va_end(list);                \
        if (inside(path) && CHANGES(flags) && fails()) return -1;        \
        return opened(REAL(name)(path, flags, mode), path, flags);       \
    }
#define OPENAT(name)                                                     \
    int name(int at, const char *path, int flags, ...) {                 \
        va_list list; va_start(list, flags);                             \
        mode_t mode = va_arg(list, mode_t); va_end(list);                \
        if (inside(path) && CHANGES(flags) && fails()) return -1;        \
        return opened(REAL(name)(at, path, flags, mode), path, flags);   \
    }
OPEN(open) OPEN(open64) OPENAT(openat) OPENAT(openat64)

int close(int fd) {
    if (fd >= 0 && fd < (int)sizeof ours) ours[fd] = 0;
    return REAL(close)(fd);
}

ssize_t write(int fd, const void *data, size_t size) {
    if (mine(fd) && fails()) {
        if (code == ENOSPC && size > 1 && seen == nth) return REAL(write)(fd, data, size / 2);
        return -1;
    }
    return REAL(write)(fd, data, size);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    return mine(fd) && fails() ? -1 : REAL(writev)(fd, parts, count);
}

#define SENDFILE(name, type)                                             \
    ssize_t name(int to, int from, type *at, size_t size) {              \
        return mine(to) && fails() ? -1 : REAL(name)(to, from, at, size);\
    }
SENDFILE(sendfile, off_t) SENDFILE(sendfile64, off64_t)

int fsync(int fd) { return is(fd, READING) && fails() ? -1 : REAL(fsync)(fd); }
int ftruncate(int fd, off_t size) { return mine(fd) && fails() ? -1 : REAL(ftruncate)(fd, size); }
int ftruncate64(int fd, off64_t size) {
    return mine(fd) && fails() ? -1 : REAL(ftruncate64)(fd, size);
}
int truncate(const char *path, off_t size) {
    return inside(path) && fails() ? -1 : REAL(truncate)(path, size);
}
int truncate64(const char *path, off64_t size) {
    return inside(path) && fails() ? -1 : REAL(truncate64)(path, size);
}
int mkdir(const char *path, mode_t mode) {
    return inside(path) && fails() ? -1 : REAL(mkdir)(path, mode);
}
int rmdir(const char *path) { return inside(path) && fails() ? -1 : REAL(rmdir)(path); }
int unlink(const char *path) { return inside(path) && fails() ? -1 : REAL(unlink)(path); }
int rename(const char *from, const char *to) {
    return inside(to) && fails() ? -1 : REAL(rename)(from, to);
}

/* Count from now what is changed below `below`, and let the `which`th call fail (0: none). */
void faults_arm(const char *below, long which, int with, int and_later) {
    nth = which; code = with; stay = and_later; seen = 0;
    strncpy(folder, below, sizeof folder - 1);
}

/* Stop, and say how many calls there were. */
long faults_disarm(void) { folder[0] = 0; return seen; }
