/* A few system calls by name: probe NAME ARGUMENTS... */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <unistd.h>

static long keyctl(long op, long a, const void *b, const void *c, long d) {
    return syscall(SYS_keyctl, op, a, b, c, d);
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    if (!strcmp(what, "with-key") && argc > 2) {
        /* A new session keyring with a key in it, for the program that follows. */
        if (keyctl(1, 0, 0, 0, 0) < 0) return 3;
        if (syscall(SYS_add_key, "user", "mica-secret", "s3cret", 6L, -3L) < 0) return 4;
        execvp(argv[2], argv + 2);
        return 5;
    }
    if (!strcmp(what, "find-key")) {
        char text[64] = "";
        long key = keyctl(10, -3, "user", "mica-secret", 0);
        if (key >= 0) keyctl(11, key, text, (void *)sizeof text, 0);
        printf("%s\n", key >= 0 ? text : "none");
        return 0;
    }
    if (!strcmp(what, "type")) {
        /* Types into every terminal that can be had. */
        const char *tty[] = {"/dev/tty", "/dev/console", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2"};
        for (int fd = 0; fd < 3; fd++) printf("%d", ioctl(fd, TIOCSTI, "x") == 0);
        for (int i = 0; i < 5; i++) {
            int fd = open(tty[i], O_RDWR | O_NOCTTY);
            printf("%d", fd >= 0 && ioctl(fd, TIOCSTI, "x") == 0);
        }
        printf("\n");
        return 0;
    }
    if (!strcmp(what, "attach")) {
        /* Seizes every process that appears until told otherwise by a file. */
        long won = 0;
        pid_t self = getpid();
        while (access("/stop", F_OK) != 0)
            for (pid_t pid = 2; pid < 400; pid++) {
                if (pid == self) continue;
                char path[64];
                snprintf(path, sizeof path, "/proc/%d/exe", pid);
                char exe[256] = "";
                if (readlink(path, exe, sizeof exe - 1) <= 0) continue;
                if (strcmp(exe, "/bin/busybox") && strcmp(exe, "/bin/probe")) {
                    printf("%d is %s\n", pid, exe);
                    won++;
                }
            }
        printf("won %ld\n", won);
        return 0;
    }
    return 2;
}
