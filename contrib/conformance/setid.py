#!/usr/bin/python3
"""setid.py DIRECTORY: what is left of set-id bits after each kind of change by each kind of caller, a line each, as root.

Two file systems that answer alike print the same.
"""

import ctypes
import errno
import mmap
import os
import struct
import sys

libc = ctypes.CDLL(None, use_errno=True)
USER, GROUP, OTHER = 54321, 54321, 54399
top = sys.argv[1]
os.chmod(top, 0o777)


def fallocate(fd, mode, offset, length):
    if libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)):
        raise OSError(ctypes.get_errno(), "fallocate")


def acl(named):
    """An access ACL with one named group, as the kernel stores it."""
    entry = lambda tag, perm, who=0xFFFFFFFF: struct.pack("<HHI", tag, perm, who)
    parts = entry(1, 7) + entry(4, 5) + entry(8, 7, named) + entry(16, 7) + entry(32, 5)
    return struct.pack("<I", 2) + parts


def opened(act):
    def run(path):
        fd = os.open(path, os.O_RDWR)
        try:
            act(fd)
        finally:
            os.close(fd)
    return run


def mapped(fd):
    with mmap.mmap(fd, 4096) as view:
        view[0] = 7


def copied(path):
    source, target = os.open(path + ".src", os.O_RDONLY), os.open(path, os.O_WRONLY)
    os.copy_file_range(source, target, 100)
    os.close(source), os.close(target)


CHANGES = {
    "write": opened(lambda fd: os.write(fd, b"x")),
    "pwritev": opened(lambda fd: os.pwritev(fd, [b"x", b"y"], 100)),
    "mmap": opened(mapped),
    "truncate": lambda path: os.truncate(path, 10),
    "ftruncate": opened(lambda fd: os.ftruncate(fd, 8192)),
    "O_TRUNC": lambda path: os.close(os.open(path, os.O_WRONLY | os.O_TRUNC)),
    "copy": copied,
    "fallocate": opened(lambda fd: fallocate(fd, 0, 0, 8192)),
    "punch": opened(lambda fd: fallocate(fd, 3, 0, 4096)),
    "zero": opened(lambda fd: fallocate(fd, 16, 0, 4096)),
    "chown": lambda path: os.chown(path, USER, -1),
    "chgrp": lambda path: os.chown(path, -1, GROUP),
    "chgrp other": lambda path: os.chown(path, -1, OTHER),
    # chown(-1, -1) is no request: the kernel drops it.
    "acl": lambda path: os.setxattr(path, "system.posix_acl_access", acl(60)),
    "no acl": lambda path: (os.setxattr(path, "system.posix_acl_access", acl(60)),
                            os.removexattr(path, "system.posix_acl_access")),
    "xattr": lambda path: os.setxattr(path, "user.x", b"1"),
}



def made(path):
    os.mknod(path)
    os.truncate(path, 8192)


# uid, gid, other groups
CALLERS = {
    "root": (0, 0, []),
    "owner in the group": (USER, GROUP, []),
    "owner, group among others": (USER, USER + 1, [GROUP]),
    "owner, not in the group": (USER, USER + 1, [OTHER]),
    "somebody": (USER + 7, USER + 7, []),
}


def attempt(caller, change, path):
    """In a child as that caller: what the change says."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        uid, gid, groups = caller
        os.setgroups(groups)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        try:
            change(path)
            said = "ok"
        except OSError as error:
            said = errno.errorcode[error.errno]
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    said = os.read(read, 100).decode()
    os.close(read)
    os.waitpid(pid, 0)
    return said


number = 0
for directory in (False, True):
    for mode in (0o4777, 0o2777, 0o6777, 0o2767, 0o6767, 0o777):
        for who, caller in CALLERS.items():
            for what, change in CHANGES.items():
                if directory and not ("ch" in what or "acl" in what):
                    continue
                number += 1
                path = f"{top}/{number}"
                if directory:
                    os.mkdir(path)
                else:
                    # Never opened before: how an inode is opened first decides for all who open it meanwhile.
                    made(path)
                    if what == "copy":
                        made(path + ".src")
                os.chown(path, USER, GROUP)
                os.chmod(path, mode)
                said = attempt(caller, change, path)
                after = os.lstat(path).st_mode & 0o7777
                kind = "d" if directory else "f"
                print(f"{kind} {mode:04o} {who}: {what}: {said}: {after:04o}")
                if not directory:
                    os.unlink(path)
                    if what == "copy":
                        os.unlink(path + ".src")
