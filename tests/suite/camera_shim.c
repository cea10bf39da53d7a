/* A camera for tests: preloaded, it answers for /dev/video-test what the V4L2 interface of a USB camera would.
 *
 * RTPT_SHIM names a folder: frame-N.bin (N from 0, in turn) are its frames; `format` holds MJPG or YUYV; while there is
 * a file `unplugged` it gives ENODEV, while there is `absent` it cannot be opened, while there is `stalled` no frame
 * comes. The structures and numbers are those of the kernel's header. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define BUFFERS 3
#define ROOM (1 << 20)

static int camera = -1;
static int queued[BUFFERS];
static int streaming, next_frame, taken;
static struct v4l2_pix_format pix;
static char *memory;

static char *in_folder(const char *name) {
    static char path[4096];
    snprintf(path, sizeof path, "%s/%s", getenv("RTPT_SHIM"), name);
    return path;
}

static int is_there(const char *name) {
    struct stat found;
    return stat(in_folder(name), &found) == 0;
}

static void note(const char *what) {
    FILE *log = fopen(in_folder("log"), "a");
    if (log) {
        fprintf(log, "%s\n", what);
        fclose(log);
    }
}

static unsigned wanted_format(void) {
    char name[5] = "";
    FILE *file = fopen(in_folder("format"), "r");
    if (file) {
        if (fread(name, 1, 4, file) != 4) name[0] = 0;
        fclose(file);
    }
    return v4l2_fourcc(name[0], name[1], name[2], name[3]);
}

static int open_camera(int flags) {
    if (is_there("absent")) {
        errno = ENOENT;
        return -1;
    }
    camera = syscall(SYS_memfd_create, "camera", 1u);
    if (ftruncate(camera, (off_t)BUFFERS * ROOM) != 0) return -1;
    memory = mmap(NULL, (size_t)BUFFERS * ROOM, PROT_READ | PROT_WRITE, MAP_SHARED, camera, 0);
    memset(queued, 0, sizeof queued);
    streaming = 0;
    note(flags & O_NONBLOCK ? "open nonblocking" : "open");
    return camera;
}

int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    int mode = va_arg(rest, int);
    va_end(rest);
    if (strcmp(path, "/dev/video-test") == 0) return open_camera(flags);
    static int (*real)(const char *, int, ...);
    if (!real) real = dlsym(RTLD_NEXT, "open64");
    return real(path, flags, mode);
}

int close(int fd) {
    static int (*real)(int);
    if (!real) real = dlsym(RTLD_NEXT, "close");
    if (fd == camera && fd >= 0) {
        note("close");
        munmap(memory, (size_t)BUFFERS * ROOM);
        camera = -1;
    }
    return real(fd);
}

int poll(struct pollfd *fds, nfds_t count, int timeout) {
    static int (*real)(struct pollfd *, nfds_t, int);
    if (!real) real = dlsym(RTLD_NEXT, "poll");
    if (count == 1 && fds[0].fd == camera && camera >= 0) {
        if (is_there("stalled")) {
            usleep((timeout < 0 ? 100 : timeout) * 1000);
            return 0;
        }
        usleep(20000); /* 50 frames a second */
        fds[0].revents = is_there("unplugged") ? POLLERR : POLLIN;
        return 1;
    }
    return real(fds, count, timeout);
}

static int refuse(int error) {
    errno = error;
    return -1;
}

static int fill(struct v4l2_buffer *buffer) {
    if (is_there("unplugged")) return refuse(ENODEV);
    for (int i = 0; i < BUFFERS; i++) {
        if (!queued[i]) continue;
        char name[64];
        snprintf(name, sizeof name, "frame-%d.bin", next_frame);
        FILE *file = fopen(in_folder(name), "rb");
        if (!file) {
            next_frame = 0;
            file = fopen(in_folder("frame-0.bin"), "rb");
            if (!file) return refuse(EIO);
        }
        next_frame++;
        memset(buffer, 0, sizeof *buffer);
        buffer->index = i;
        buffer->type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
        buffer->memory = V4L2_MEMORY_MMAP;
        buffer->bytesused = fread(memory + (size_t)i * ROOM, 1, ROOM, file);
        buffer->length = ROOM;
        buffer->sequence = taken++;
        /* Cameras mark a frame that the bus has damaged. */
        if (taken % 5 == 0) {
            buffer->flags = V4L2_BUF_FLAG_ERROR;
            memset(memory + (size_t)i * ROOM, 0xaa, buffer->bytesused);
        }
        fclose(file);
        queued[i] = 0;
        return 0;
    }
    return refuse(EAGAIN);
}

int ioctl(int fd, unsigned long request, ...) {
    va_list rest;
    va_start(rest, request);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    static int (*real)(int, unsigned long, ...);
    if (!real) real = dlsym(RTLD_NEXT, "ioctl");
    if (fd != camera || fd < 0) return real(fd, request, argument);
    request &= 0xffffffffu;
    if (request == VIDIOC_QUERYCAP) {
        struct v4l2_capability *found = argument;
        memset(found, 0, sizeof *found);
        snprintf((char *)found->card, sizeof found->card, "Test camera");
        found->capabilities = V4L2_CAP_DEVICE_CAPS | V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_META_CAPTURE;
        found->device_caps = is_there("metadata") ? V4L2_CAP_META_CAPTURE : V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING;
        return 0;
    }
    if (request == VIDIOC_ENUM_FMT) {
        struct v4l2_fmtdesc *found = argument;
        unsigned formats[] = {v4l2_fourcc('H', '2', '6', '4'), wanted_format()};
        if (found->index >= 2 || found->type != V4L2_BUF_TYPE_VIDEO_CAPTURE) return refuse(EINVAL);
        found->pixelformat = formats[found->index];
        return 0;
    }
    if (request == VIDIOC_ENUM_FRAMESIZES) {
        struct v4l2_frmsizeenum *found = argument;
        if (found->pixel_format == wanted_format() && found->index < 2) {
            found->type = V4L2_FRMSIZE_TYPE_DISCRETE;
            found->discrete.width = found->index ? 320 : 640;
            found->discrete.height = found->index ? 240 : 480;
            return 0;
        }
        if (found->pixel_format == V4L2_PIX_FMT_H264 && found->index == 0) {
            found->type = V4L2_FRMSIZE_TYPE_STEPWISE;
            found->stepwise.min_width = found->stepwise.min_height = 32;
            found->stepwise.max_width = 1920;
            found->stepwise.max_height = 1080;
            found->stepwise.step_width = found->stepwise.step_height = 2;
            return 0;
        }
        return refuse(EINVAL);
    }
    if (request == VIDIOC_G_FMT || request == VIDIOC_S_FMT) {
        struct v4l2_format *format = argument;
        if (format->type != V4L2_BUF_TYPE_VIDEO_CAPTURE) return refuse(EINVAL);
        if (request == VIDIOC_G_FMT) {
            format->fmt.pix.width = 64;
            format->fmt.pix.height = 48;
            format->fmt.pix.field = V4L2_FIELD_NONE;
            return 0;
        }
        if (format->fmt.pix.pixelformat != wanted_format()) return refuse(EINVAL);
        char line[100];
        snprintf(line, sizeof line, "size %ux%u", format->fmt.pix.width, format->fmt.pix.height);
        note(line);
        /* Rows of raw pixels are padded, as some cameras pad them. */
        format->fmt.pix.bytesperline = wanted_format() == V4L2_PIX_FMT_YUYV ? format->fmt.pix.width * 2 + 16 : 0;
        format->fmt.pix.sizeimage = ROOM;
        pix = format->fmt.pix;
        return 0;
    }
    if (request == VIDIOC_S_PARM) {
        struct v4l2_streamparm *parameters = argument;
        char line[100];
        snprintf(line, sizeof line, "rate %u/%u", parameters->parm.capture.timeperframe.denominator,
                 parameters->parm.capture.timeperframe.numerator);
        note(line);
        return 0;
    }
    if (request == VIDIOC_REQBUFS) {
        struct v4l2_requestbuffers *buffers = argument;
        if (is_there("busy")) return refuse(EBUSY);
        if (buffers->type != V4L2_BUF_TYPE_VIDEO_CAPTURE || buffers->memory != V4L2_MEMORY_MMAP) return refuse(EINVAL);
        buffers->count = BUFFERS;
        return 0;
    }
    if (request == VIDIOC_QUERYBUF || request == VIDIOC_QBUF) {
        struct v4l2_buffer *buffer = argument;
        if (buffer->index >= BUFFERS || buffer->type != V4L2_BUF_TYPE_VIDEO_CAPTURE) return refuse(EINVAL);
        if (buffer->memory != V4L2_MEMORY_MMAP) return refuse(EINVAL);
        if (request == VIDIOC_QBUF) {
            queued[buffer->index] = 1;
            return 0;
        }
        buffer->length = ROOM;
        buffer->m.offset = buffer->index * ROOM;
        return 0;
    }
    if (request == VIDIOC_DQBUF) return streaming ? fill(argument) : refuse(EINVAL);
    if (request == VIDIOC_STREAMON || request == VIDIOC_STREAMOFF) {
        if (*(int *)argument != V4L2_BUF_TYPE_VIDEO_CAPTURE) return refuse(EINVAL);
        streaming = request == VIDIOC_STREAMON;
        note(streaming ? "on" : "off");
        return 0;
    }
    return refuse(ENOTTY);
}
