/* Faults for tests: preloaded, it makes calls of the C library fail or block as disks and kernels do.
 *
 * RTPT_FAULTS names a folder. A file there with the name of a call (open, write, fsync, rename, mkdir, unlink, accept) holds an errno's number,
 * or 0 to block while the file is there, then a space and what the path must contain; the path of a descriptor is the one that the kernel
 * tells. fsync stands for fdatasync as well. A file `clock` holds seconds by which the clock of the wall is off. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* Reads a small file of the folder without the calls that are wrapped here; the length, or 0. */
static long read_text(const char *name, char *text, size_t room) {
    char path[4096];
    const char *folder = getenv("RTPT_FAULTS");
    if (!folder) return 0;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    int file = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    if (file < 0) return 0;
    long length = syscall(SYS_read, file, text, room - 1);
    syscall(SYS_close, file);
    if (length < 0) return 0;
    text[length] = 0;
    return length;
}

/* Reads a fault without the calls that are wrapped here. Returns 1 if there is one for this path. */
static int read_fault(const char *call, const char *path, int *number) {
    char text[4096];
    if (!path || !read_text(call, text, sizeof text)) return 0;
    char *part = strchr(text, ' ');
    if (!part) return 0;
    *number = atoi(text);
    return strstr(path, part + 1) != NULL;
}

/* True if the call is to fail; blocks as long as it is to block. */
static int fails(const char *call, const char *path) {
    int number;
    int before = errno;
    while (read_fault(call, path, &number)) {
        if (number) {
            errno = number;
            return 1;
        }
        usleep(20000);
    }
    errno = before;
    return 0;
}

static int descriptor_fails(const char *call, int descriptor) {
    char link[64], path[4096];
    if (!getenv("RTPT_FAULTS")) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return fails(call, path);
}

static mode_t mode_of(int flags, va_list list) {
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(list, mode_t) : 0;
}

int open64(const char *path, int flags, ...) {
    va_list list;
    va_start(list, flags);
    mode_t mode = mode_of(flags, list);
    va_end(list);
    return fails("open", path) ? -1 : REAL(open64)(path, flags, mode);
}

int open(const char *path, int flags, ...) {
    va_list list;
    va_start(list, flags);
    mode_t mode = mode_of(flags, list);
    va_end(list);
    return fails("open", path) ? -1 : REAL(open)(path, flags, mode);
}

ssize_t write(int descriptor, const void *bytes, size_t length) {
    return descriptor_fails("write", descriptor) ? -1 : REAL(write)(descriptor, bytes, length);
}

int fsync(int descriptor) {
    return descriptor_fails("fsync", descriptor) ? -1 : REAL(fsync)(descriptor);
}

int fdatasync(int descriptor) {
    return descriptor_fails("fsync", descriptor) ? -1 : REAL(fdatasync)(descriptor);
}

int rename(const char *from, const char *to) {
    return fails("rename", to) ? -1 : REAL(rename)(from, to);
}

int mkdir(const char *path, mode_t mode) {
    return fails("mkdir", path) ? -1 : REAL(mkdir)(path, mode);
}

int unlink(const char *path) {
    return fails("unlink", path) ? -1 : REAL(unlink)(path);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int outcome = (int)syscall(SYS_clock_gettime, clock, time);
    char text[64];
    if (outcome == 0 && clock == CLOCK_REALTIME && read_text("clock", text, sizeof text)) time->tv_sec += atol(text);
    return outcome;
}

int accept4(int socket, struct sockaddr *address, socklen_t *length, int flags) {
    return fails("accept", "any") ? -1 : REAL(accept4)(socket, address, length, flags);
}
