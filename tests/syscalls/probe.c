/* Makes every system call once, each in a process of its own, with arguments that no call does anything with: -1 everywhere.
   Prints "NUMBER ERRNO" ("NUMBER 0" where it succeeds, "NUMBER -SIGNAL" where the process ends). Without a C library, so that the
   same file is a program of 32 bits too. With arguments: only that one call, with those arguments. */

#if defined(__x86_64__)
static long call(long n, long a, long b, long c, long d, long e, long f)
{
	long r;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	__asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return r;
}
enum { WRITE = 1, EXIT = 60, FORK = 57, WAIT4 = 61, ALARM = 37, LAST = 480, BASE = 0, SIGRETURN = 15, VFORK = 58, GROUP = 231,
       SYNC = 162, SUSPEND = -1 };
__asm__(".globl _start\n_start:\n mov %rsp,%rdi\n and $-16,%rsp\n call start\n");
#else
static long call(long n, long a, long b, long c, long d, long e, long f)
{
	long r;
	long more[2] = { n, f };
	__asm__ volatile("push %%ebp\n mov 4(%%eax),%%ebp\n mov (%%eax),%%eax\n int $0x80\n pop %%ebp"
			 : "=a"(r) : "a"(more), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e) : "memory");
	return r;
}
enum { WRITE = 4, EXIT = 1, FORK = 2, WAIT4 = 114, ALARM = 27, LAST = 480, BASE = 0, SIGRETURN = 173, VFORK = 190, GROUP = 252,
       SYNC = 36, SUSPEND = 72 };
__asm__(".globl _start\n_start:\n mov %esp,%eax\n and $-16,%esp\n push %eax\n push %eax\n push %eax\n push %eax\n call start\n");
#endif

static void say(long n, long result)
{
	char text[64], *at = text + sizeof text;
	*--at = '\n';
	int minus = result < 0;
	unsigned long v = minus ? -result : result;
	do *--at = '0' + v % 10; while (v /= 10);
	if (minus) *--at = '-';
	*--at = ' ';
	v = n;
	do *--at = '0' + v % 10; while (v /= 10);
	call(WRITE, 1, (long)at, text + sizeof text - at, 0, 0, 0);
}

static unsigned long number(const char *text)
{
	unsigned long v = 0;
	for (; *text; text++) v = v * 10 + (*text - '0');
	return v;
}

static void result(long n, long r) { say(n, r < 0 && r > -4096 ? -r : 0); }

void start(long *stack)
{
	long argc = stack[0];
	char **argv = (char **)(stack + 1);
	if (argc > 1) {
		long a[7] = { 0 };
		for (int i = 1; i < argc && i < 8; i++) a[i - 1] = number(argv[i]);
		result(a[0], call(a[0], a[1], a[2], a[3], a[4], a[5], a[6]));
		call(EXIT, 0, 0, 0, 0, 0, 0);
	}
	for (long n = BASE; n < LAST; n++) {
		int status = 0;
		if (n == FORK || n == VFORK || n == EXIT || n == GROUP || n == SIGRETURN || n == SYNC || n == SUSPEND) continue;
		long child = call(FORK, 0, 0, 0, 0, 0, 0);
		if (child == 0) {
			call(ALARM, 1, 0, 0, 0, 0, 0);
			result(n, call(n, -1, -1, -1, -1, -1, -1));
			call(EXIT, 0, 0, 0, 0, 0, 0);
		}
		call(WAIT4, child, (long)&status, 0, 0, 0, 0);
		if (status & 0x7f) say(n, -(status & 0x7f));
	}
	call(EXIT, 0, 0, 0, 0, 0, 0);
}
