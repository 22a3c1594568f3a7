/* A disk that fails: LD_PRELOAD this. From the FAULT_AT-th call of FAULT_CALL (read, write, fsync, link, mkdir)
   on a path under FAULT_PREFIX on, every such call fails with FAULT_ERRNO. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static int fails(const char *call, const char *path) {
    static int seen;
    const char *prefix = getenv("FAULT_PREFIX"), *wanted = getenv("FAULT_CALL");
    if (!prefix || !wanted || strcmp(call, wanted) || strncmp(path, prefix, strlen(prefix))) return 0;
    if (++seen < atoi(getenv("FAULT_AT"))) return 0;
    errno = atoi(getenv("FAULT_ERRNO"));
    return 1;
}

static int fails_at(const char *call, int descriptor) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return fails(call, path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int d, const void *b, size_t n) { return fails_at("write", d) ? -1 : REAL(write)(d, b, n); }
ssize_t pwrite(int d, const void *b, size_t n, off_t o) { return fails_at("write", d) ? -1 : REAL(pwrite)(d, b, n, o); }
ssize_t pwrite64(int d, const void *b, size_t n, off64_t o) { return fails_at("write", d) ? -1 : REAL(pwrite64)(d, b, n, o); }
ssize_t read(int d, void *b, size_t n) { return fails_at("read", d) ? -1 : REAL(read)(d, b, n); }
ssize_t pread(int d, void *b, size_t n, off_t o) { return fails_at("read", d) ? -1 : REAL(pread)(d, b, n, o); }
ssize_t pread64(int d, void *b, size_t n, off64_t o) { return fails_at("read", d) ? -1 : REAL(pread64)(d, b, n, o); }
ssize_t preadv(int d, const struct iovec *v, int n, off_t o) { return fails_at("read", d) ? -1 : REAL(preadv)(d, v, n, o); }
ssize_t preadv64(int d, const struct iovec *v, int n, off64_t o) { return fails_at("read", d) ? -1 : REAL(preadv64)(d, v, n, o); }
int fsync(int d) { return fails_at("fsync", d) ? -1 : REAL(fsync)(d); }
int link(const char *a, const char *b) { return fails("link", b) ? -1 : REAL(link)(a, b); }
int linkat(int d, const char *a, int e, const char *b, int f) { return fails("link", b) ? -1 : REAL(linkat)(d, a, e, b, f); }
int mkdir(const char *p, mode_t m) { return fails("mkdir", p) ? -1 : REAL(mkdir)(p, m); }
