/* Preloaded into a process, makes the file system below $POOR a poor one: it knows neither fsync nor chmod, locks and
   mapped files, as network drives, FUSE and container mounts may. Everything else is passed on. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int is_poor(const char *path)
{
    const char *poor = getenv("POOR");
    return poor && path && !strncmp(path, poor, strlen(poor));
}

static int is_poor_file(int file)
{
    char link[32], path[PATH_MAX + 1];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, PATH_MAX);
    if (length < 0)
        return 0;
    path[length] = 0;
    return is_poor(path);
}

#define REFUSE(condition, number, result)                                                                              \
    if (condition) {                                                                                                   \
        errno = number;                                                                                                \
        return result;                                                                                                 \
    }

#define REAL(name, type) ((type)dlsym(RTLD_NEXT, name))

int fsync(int file)
{
    REFUSE(is_poor_file(file), EINVAL, -1)
    return REAL("fsync", int (*)(int))(file);
}

int chmod(const char *path, mode_t mode)
{
    REFUSE(is_poor(path), EPERM, -1)
    return REAL("chmod", int (*)(const char *, mode_t))(path, mode);
}

int fchmod(int file, mode_t mode)
{
    REFUSE(is_poor_file(file), EPERM, -1)
    return REAL("fchmod", int (*)(int, mode_t))(file, mode);
}

int fchmodat(int folder, const char *path, mode_t mode, int flags)
{
    REFUSE(is_poor(path), EPERM, -1)
    return REAL("fchmodat", int (*)(int, const char *, mode_t, int))(folder, path, mode, flags);
}

int flock(int file, int operation)
{
    REFUSE(is_poor_file(file), ENOSYS, -1)
    return REAL("flock", int (*)(int, int))(file, operation);
}

void *mmap(void *start, size_t length, int protection, int flags, int file, off_t offset)
{
    REFUSE(file >= 0 && is_poor_file(file), ENODEV, (void *)-1)
    return REAL("mmap", void *(*)(void *, size_t, int, int, int, off_t))(start, length, protection, flags, file, offset);
}

void *mmap64(void *start, size_t length, int protection, int flags, int file, off_t offset)
{
    return mmap(start, length, protection, flags, file, offset);
}
