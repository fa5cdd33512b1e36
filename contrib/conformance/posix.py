#!/usr/bin/env python3
"""File operations of a volume, seen from the mount and from the host at once.

    posix.py HOST MOUNT [CASE...]

HOST and MOUNT are the same directory, on the host and through the mount. With a plain directory given twice every case must pass
as well: that shows that the case is right. Prints the cases that fail and exits with 1 if there are any.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time

HOST, MOUNT = (os.path.abspath(path) for path in sys.argv[1:3])
SAME = HOST == MOUNT
ROOT = os.geteuid() == 0
LIBC = ctypes.CDLL(None, use_errno=True)
FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE = 1, 2, 16
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
CASES = []


def case(function):
    CASES.append(function)
    return function


def root(function):
    if ROOT:
        CASES.append(function)
    return function


def fails(code, function, *args, **kwargs):
    try:
        function(*args, **kwargs)
    except OSError as error:
        assert error.errno == code, f"{error} instead of {errno.errorcode[code]}"
        return
    raise AssertionError(f"succeeded instead of {errno.errorcode[code]}")


def call(function, *args):
    if getattr(LIBC, function)(*args) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def fallocate(fd, mode, offset, length):
    call("fallocate", fd, mode, ctypes.c_long(offset), ctypes.c_long(length))


def renameat2(old, new, flags):
    call("renameat2", -100, os.fsencode(old), -100, os.fsencode(new), flags)


def put(path, data=b""):
    with open(path, "wb") as file:
        file.write(data)


def get(path):
    with open(path, "rb") as file:
        return file.read()


def as_user(uid, gid, groups, function):
    """Runs in a child as that user; what it raises fails the case."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups(groups)
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            function()
            os._exit(0)
        except BaseException as error:  # noqa: the parent must hear of all of them
            sys.stderr.write(f"as user {uid}: {type(error).__name__}: {error}\n")
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0, f"as user {uid}"


# What one side does the other sees at once.


@case
def content_is_seen_at_once_both_ways(h, m):
    for i in range(200):
        one, other = (h, m) if i % 2 else (m, h)
        data = bytes([i]) * (1 + i * 37 % 9000)
        put(one + "/f", data)
        assert get(other + "/f") == data, i
        assert os.stat(other + "/f").st_size == len(data), i


@case
def an_open_file_sees_the_other_side(h, m):
    for one, other in ((h, m), (m, h)):
        put(one + "/f", b"0" * 10000)
        a, b = os.open(one + "/f", os.O_RDWR), os.open(other + "/f", os.O_RDWR)
        for i in range(300):
            data = struct.pack("<Q", i) * 16
            os.pwrite(a, data, i * 31 % 9000)
            assert os.pread(b, len(data), i * 31 % 9000) == data, i
            os.ftruncate(a, 10000 + i)
            assert os.fstat(b).st_size == 10000 + i, i
        os.close(a), os.close(b)


@case
def names_are_seen_at_once_both_ways(h, m):
    for i in range(100):
        one, other = (h, m) if i % 2 else (m, h)
        assert not os.path.exists(other + "/d")
        os.mkdir(one + "/d")
        assert os.listdir(other + "/d") == []
        put(one + "/d/f", b"x")
        assert os.listdir(other + "/d") == ["f"]
        os.rename(one + "/d/f", one + "/d/g")
        fails(errno.ENOENT, os.stat, other + "/d/f")
        assert get(other + "/d/g") == b"x"
        os.rename(one + "/d", one + "/e")
        fails(errno.ENOENT, os.stat, other + "/d/g")
        shutil.rmtree(other + "/e")
        assert not os.path.exists(one + "/e")


@case
def what_is_done_in_a_directory_goes_by_its_names_of_that_moment(h, m):
    for i in range(60):
        top = f"/{i}"
        os.makedirs(m + top + "/b/c")
        put(m + top + "/b/c/before")
        # What the kernel has just walked through becomes something else: a level above, the directory itself, or nothing.
        if i % 3 == 0:
            os.rename(h + top + "/b", h + top + "/was")
            os.makedirs(h + top + "/b/c")
            was = h + top + "/was/c"
        elif i % 3 == 1:
            os.rename(h + top + "/b/c", h + top + "/was")
            os.mkdir(h + top + "/b/c")
            was = h + top + "/was"
        else:
            os.rename(h + top, h + top + "was")
            was = h + top + "was/b/c"
        gone = i % 3 == 2
        here, there = m + top + "/b/c", h + top + "/b/c"
        acts = (
            lambda: put(here + "/f"),
            lambda: os.mkdir(here + "/d"),
            lambda: os.symlink("x", here + "/s"),
            lambda: os.mkfifo(here + "/p"),
            lambda: os.listdir(here),
            lambda: os.stat(here + "/f"),
            lambda: os.link(here + "/f", here + "/l"),
            lambda: os.rename(here + "/f", here + "/g"),
            lambda: os.unlink(here + "/g"),
            lambda: os.rmdir(here + "/d"),
        )
        # Each of them is the first one once.
        for act in acts[i % len(acts):] if gone else acts:
            if gone:
                fails(errno.ENOENT, act)
            else:
                act()
        assert os.listdir(was) == ["before"], os.listdir(was)
        assert gone or sorted(os.listdir(there)) == ["l", "p", "s"]


@case
def whoever_is_in_a_directory_stays_in_it_when_it_is_renamed(h, m):
    for i in range(30):
        os.makedirs(f"{m}/{i}/b")
        directory = os.open(f"{m}/{i}/b", os.O_RDONLY | os.O_DIRECTORY)
        side = h if i % 2 else m
        os.rename(f"{side}/{i}", f"{side}/{i}z")
        os.close(os.open("f", os.O_WRONLY | os.O_CREAT, dir_fd=directory))
        os.mkdir("d", dir_fd=directory)
        os.rename("f", "g", src_dir_fd=directory, dst_dir_fd=directory)
        os.fchmod(directory, 0o700)
        assert sorted(os.listdir(directory)) == sorted(os.listdir(f"{h}/{i}z/b")) == ["d", "g"]
        os.close(directory)


@case
def attributes_are_seen_at_once_both_ways(h, m):
    put(h + "/f")
    for i in range(100):
        one, other = (h, m) if i % 2 else (m, h)
        os.chmod(one + "/f", 0o600 + i % 64)
        assert stat.S_IMODE(os.stat(other + "/f").st_mode) == 0o600 + i % 64
        os.utime(one + "/f", ns=(i * 10**9 + 7, -i * 10**9 - 13))
        found = os.stat(other + "/f")
        assert (found.st_atime_ns, found.st_mtime_ns) == (i * 10**9 + 7, -i * 10**9 - 13)
        os.setxattr(one + "/f", "user.x", str(i).encode())
        assert os.getxattr(other + "/f", "user.x") == str(i).encode()


@case
def a_file_replaced_on_the_other_side_is_the_new_one(h, m):
    for i in range(50):
        one, other = (h, m) if i % 2 else (m, h)
        put(one + "/new", str(i).encode())
        before = os.open(other + "/f", os.O_RDONLY | os.O_CREAT)
        old = os.read(before, 10)
        os.rename(one + "/new", one + "/f")
        assert get(other + "/f") == str(i).encode()
        os.lseek(before, 0, 0)
        assert os.read(before, 10) == old
        os.close(before)


@case
def shared_mappings_are_one(h, m):
    put(h + "/f", b"\0" * 8192)
    a, b = os.open(m + "/f", os.O_RDWR), os.open(h + "/f", os.O_RDWR)
    with mmap.mmap(a, 8192) as mapped:
        mapped[0:5] = b"mount"
        mapped.flush()
        assert os.pread(b, 5, 0) == b"mount"
        assert os.pread(a, 5, 0) == b"mount"
        os.pwrite(a, b"again", 4096)
        assert mapped[4096:4101] == b"again"
        if passthrough(m):
            os.pwrite(b, b"host!", 0)
            assert mapped[0:5] == b"host!"
            with mmap.mmap(b, 8192) as theirs:
                mapped[100:104] = b"fast"
                assert theirs[100:104] == b"fast"
    os.close(a), os.close(b)
    assert get(h + "/f")[4096:4101] == b"again"


def passthrough(_):
    return SAME or os.environ.get("PASSTHROUGH") == "1"


@case
def private_mappings_are_private(h, m):
    put(m + "/f", b"a" * 4096)
    fd = os.open(m + "/f", os.O_RDONLY)
    with mmap.mmap(fd, 4096, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as mapped:
        mapped[0:3] = b"own"
        assert mapped[0:4] == b"owna"
    os.close(fd)
    assert get(h + "/f") == b"a" * 4096


@case
def appends_from_both_sides_are_all_there(h, m):
    put(h + "/log")
    count = 400

    def append(path, letter):
        fd = os.open(path, os.O_WRONLY | os.O_APPEND)
        for i in range(count):
            os.write(fd, f"{letter}{i:05}\n".encode())
        os.close(fd)

    threads = [threading.Thread(target=append, args=(d + "/log", l)) for d, l in ((h, "h"), (m, "m"), (m, "n"))]
    [t.start() for t in threads]
    [t.join() for t in threads]
    lines = get(m + "/log").decode().split()
    assert len(lines) == 3 * count, len(lines)
    for letter in "hmn":
        assert [l for l in lines if l[0] == letter] == [f"{letter}{i:05}" for i in range(count)]


# Single operations.


@case
def truncation_on_open_and_after(h, m):
    put(m + "/f", b"x" * 5000)
    os.close(os.open(m + "/f", os.O_WRONLY | os.O_TRUNC))
    assert os.stat(h + "/f").st_size == 0
    os.truncate(m + "/f", 1 << 33)
    assert os.stat(h + "/f").st_size == 1 << 33
    with open(m + "/f", "r+b") as file:
        file.truncate(3)
    assert get(h + "/f") == b"\0\0\0"


@case
def append_can_be_switched_on_later(h, m):
    put(m + "/f", b"0123456789")
    fd = os.open(m + "/f", os.O_RDWR)
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
    os.write(fd, b"end")
    os.close(fd)
    assert get(h + "/f") == b"0123456789end"


@case
def mapped_pages_of_an_appender_go_where_they_belong(h, m):
    put(m + "/f", b"a" * 4096)
    fd = os.open(m + "/f", os.O_RDWR | os.O_APPEND)
    with mmap.mmap(fd, 4096) as mapped:
        mapped[10:13] = b"map"
        mapped.flush()
    os.close(fd)
    data = get(h + "/f")
    assert len(data) == 4096 and data[10:13] == b"map"


@case
def direct_io(h, m):
    fd = os.open(m + "/f", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    page = mmap.mmap(-1, 8192)
    page[:] = b"d" * 8192
    assert os.writev(fd, [page]) == 8192
    page[:] = b"\0" * 8192
    os.lseek(fd, 0, 0)
    assert os.readv(fd, [page]) == 8192 and page[:] == b"d" * 8192
    os.close(fd)
    assert get(h + "/f") == b"d" * 8192


@case
def holes(h, m):
    fd = os.open(m + "/f", os.O_RDWR | os.O_CREAT)
    os.posix_fallocate(fd, 0, 1 << 20)
    assert os.fstat(fd).st_size == 1 << 20
    os.pwrite(fd, b"x" * (1 << 20), 0)
    os.fsync(fd)
    before = os.fstat(fd).st_blocks
    fallocate(fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 65536, 131072)
    assert os.fstat(fd).st_blocks < before
    assert os.lseek(fd, 0, os.SEEK_HOLE) == 65536
    assert os.lseek(fd, 65536, os.SEEK_DATA) == 65536 + 131072
    fails(errno.ENXIO, os.lseek, fd, 1 << 21, os.SEEK_DATA)
    assert os.pread(fd, 4, 65534) == b"xx\0\0"
    fallocate(fd, FALLOC_ZERO_RANGE, 0, 4096)
    assert os.pread(fd, 4097, 0) == b"\0" * 4096 + b"x"
    os.close(fd)
    assert os.stat(h + "/f").st_blocks == os.stat(m + "/f").st_blocks


@case
def copying_ranges(h, m):
    put(m + "/a", bytes(range(256)) * 4096)
    a, b = os.open(m + "/a", os.O_RDONLY), os.open(m + "/b", os.O_RDWR | os.O_CREAT)
    done = 0
    while done < 1 << 20:
        done += os.copy_file_range(a, b, (1 << 20) - done, done, done)
    os.close(a), os.close(b)
    assert get(h + "/b") == get(h + "/a")


@case
def syncing(h, m):
    fd = os.open(m + "/f", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"x")
    os.fsync(fd), os.fdatasync(fd), os.close(fd)
    fd = os.open(m, os.O_RDONLY)
    os.fsync(fd), os.close(fd)
    fd = os.open(m + "/s", os.O_WRONLY | os.O_CREAT | os.O_DSYNC)
    assert os.write(fd, b"sync") == 4
    os.close(fd)
    assert get(h + "/s") == b"sync"


@case
def a_removed_file_lives_while_it_is_open(h, m):
    for by in (m, h):
        fd = os.open(m + "/f", os.O_RDWR | os.O_CREAT)
        os.write(fd, b"still here")
        os.unlink(by + "/f")
        assert os.fstat(fd).st_nlink == 0
        os.ftruncate(fd, 5), os.fchmod(fd, 0o600), os.utime(fd, ns=(1, 2))
        assert os.pread(fd, 100, 0) == b"still"
        assert os.fstat(fd).st_size == 5
        with mmap.mmap(fd, 5) as mapped:
            mapped[0:1] = b"S"
        os.close(fd)
        assert os.listdir(h) == []


@case
def unnamed_files_are_refused_as_unsupported(h, m):
    if not SAME:
        fails(errno.EOPNOTSUPP, os.open, m, os.O_TMPFILE | os.O_RDWR)
    with tempfile.TemporaryFile(dir=m) as file:
        file.write(b"x")
    assert os.listdir(h) == []


@case
def renames(h, m):
    put(m + "/a", b"a"), put(m + "/b", b"b")
    fails(errno.EEXIST, renameat2, m + "/a", m + "/b", RENAME_NOREPLACE)
    renameat2(m + "/a", m + "/b", RENAME_EXCHANGE)
    assert (get(h + "/a"), get(h + "/b")) == (b"b", b"a")
    os.mkdir(m + "/d"), os.mkdir(m + "/d/sub")
    fails(errno.EINVAL, os.rename, m + "/d", m + "/d/sub/x")
    fails(errno.ENOTDIR, os.rename, m + "/d", m + "/a")
    fails(errno.EISDIR, os.rename, m + "/a", m + "/d")
    os.mkdir(m + "/e")
    fails(errno.ENOTEMPTY, os.rename, m + "/e", m + "/d")
    os.rename(m + "/d/sub", m + "/e")
    os.rename(m + "/a", m + "/b")
    assert get(h + "/b") == b"b" and sorted(os.listdir(m)) == ["b", "d", "e"]


@case
def links(h, m):
    put(m + "/a", b"a")
    os.link(m + "/a", m + "/b")
    assert os.stat(m + "/a").st_ino == os.stat(m + "/b").st_ino
    assert os.stat(m + "/a").st_nlink == os.stat(h + "/b").st_nlink == 2
    fails(errno.EEXIST, os.link, m + "/a", m + "/b")
    target = "/nowhere/" + "x" * 200
    os.symlink(target, m + "/s")
    assert os.readlink(m + "/s") == os.readlink(h + "/s") == target
    assert os.lstat(m + "/s").st_size == len(target)
    os.link(m + "/s", m + "/s2", follow_symlinks=False)
    assert os.lstat(h + "/s2").st_nlink == 2
    os.utime(m + "/s", ns=(5, 6), follow_symlinks=False)
    assert os.lstat(h + "/s").st_mtime_ns == 6


@case
def inode_numbers_are_those_of_listings(h, m):
    os.mkdir(m + "/d"), put(m + "/f"), os.symlink("f", m + "/l"), os.mkfifo(m + "/p")
    for entry in os.scandir(m):
        found = os.lstat(entry.path)
        assert entry.inode() == found.st_ino, entry.name
        kinds = (entry.is_dir(follow_symlinks=False), entry.is_file(follow_symlinks=False), entry.is_symlink())
        assert kinds == (stat.S_ISDIR(found.st_mode), stat.S_ISREG(found.st_mode), stat.S_ISLNK(found.st_mode))
    assert os.stat(m + "/d/..").st_ino == os.stat(m).st_ino


@case
def pipes_and_sockets(h, m):
    os.mkfifo(m + "/p", 0o640)
    assert stat.S_ISFIFO(os.lstat(h + "/p").st_mode)
    reader = os.open(m + "/p", os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(m + "/p", os.O_WRONLY)
    os.write(writer, b"through")
    assert os.read(reader, 100) == b"through"
    os.close(reader), os.close(writer)
    here = os.getcwd()
    os.chdir(m)
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind("sock")
        server.listen()
        client.connect("sock")
    os.chdir(here)
    assert stat.S_ISSOCK(os.lstat(h + "/sock").st_mode)


@case
def long_and_strange_names(h, m):
    names = [b"x" * 255, b"\xff\xfe", b"a\nb", b"\\", b"...", b"-rf", "\u00e9\u4e2d".encode()]
    for name in names:
        put(os.fsencode(m) + b"/" + name, name)
    assert sorted(os.listdir(os.fsencode(h))) == sorted(names) == sorted(os.listdir(os.fsencode(m)))
    fails(errno.ENAMETOOLONG, put, m + "/" + "x" * 256)
    fails(errno.ENOTDIR, os.stat, m + "/.../x")


@case
def a_large_directory(h, m):
    for i in range(3000):
        os.close(os.open(h + f"/file-with-a-name-{i:05}", os.O_CREAT | os.O_WRONLY))
    names = os.listdir(m)
    assert len(names) == len(set(names)) == 3000
    # Positions stay good while entries go.
    fd = os.open(m, os.O_RDONLY)
    for name in os.listdir(fd):
        os.unlink(name, dir_fd=fd)
    os.close(fd)
    assert os.listdir(h) == []


@case
def times(h, m):
    put(m + "/f")
    for atime, mtime in ((0, 1), (-1, -999_999_999), (2**31 * 10**9 + 123456789, 10**18 + 987654321)):
        os.utime(m + "/f", ns=(atime, mtime))
        for side in (h, m):
            found = os.stat(side + "/f")
            assert (found.st_atime_ns, found.st_mtime_ns) == (atime, mtime), (atime, mtime)
    before = time.time_ns() - 50_000_000
    os.utime(m + "/f")
    assert os.stat(m + "/f").st_mtime_ns >= before
    first = os.stat(m + "/f").st_ctime_ns
    time.sleep(0.02)
    os.chmod(m + "/f", 0o640)
    assert os.stat(m + "/f").st_ctime_ns > first
    assert os.stat(m + "/f").st_ctime_ns == os.stat(h + "/f").st_ctime_ns


@case
def extended_attributes(h, m):
    put(m + "/f")
    os.setxattr(m + "/f", "user.a", b"1", os.XATTR_CREATE)
    fails(errno.EEXIST, os.setxattr, m + "/f", "user.a", b"2", os.XATTR_CREATE)
    fails(errno.ENODATA, os.setxattr, m + "/f", "user.b", b"2", os.XATTR_REPLACE)
    os.setxattr(m + "/f", "user.b", bytes(range(256)) * 8)
    assert sorted(os.listxattr(m + "/f")) == sorted(os.listxattr(h + "/f"))
    assert os.getxattr(h + "/f", "user.b") == bytes(range(256)) * 8
    os.removexattr(m + "/f", "user.a")
    fails(errno.ENODATA, os.getxattr, m + "/f", "user.a")
    fails(errno.ENODATA, os.removexattr, m + "/f", "user.a")
    os.setxattr(m + "/f", "user.empty", b"")
    assert os.getxattr(h + "/f", "user.empty") == b""


@case
def statvfs_is_the_hosts(h, m):
    a, b = os.statvfs(h), os.statvfs(m)
    assert (a.f_blocks, a.f_frsize, a.f_files, a.f_namemax) == (b.f_blocks, b.f_frsize, b.f_files, b.f_namemax)


@case
def programs_can_be_run(h, m):
    shutil.copy("/bin/true", m + "/true")
    assert subprocess.run([m + "/true"]).returncode == 0
    put(m + "/script", b"#!/bin/sh\nexit 7\n")
    os.chmod(m + "/script", 0o755)
    assert subprocess.run([m + "/script"]).returncode == 7


@case
def working_directories(h, m):
    here = os.getcwd()
    os.makedirs(m + "/a/b")
    os.chdir(m + "/a/b")
    assert os.getcwd() == os.path.realpath(m) + "/a/b"
    os.rename(h + "/a", h + "/c")
    put("f", b"x")
    assert get(h + "/c/b/f") == b"x"
    os.chdir("..")
    assert os.listdir(".") == ["b"]
    os.chdir(here)


# Locks.


def posix_lock(fd, kind, start=0, length=0, wait=False):
    command = fcntl.F_SETLKW if wait else fcntl.F_SETLK
    fcntl.fcntl(fd, command, struct.pack("hhqqi4x", kind, 0, start, length, 0))


def held(path, how):
    """Starts a process that holds a lock and waits; killed by the caller."""
    code = f"import fcntl,os,struct,sys\nfd=os.open({path!r},os.O_RDWR)\n{how}\nprint('ok',flush=True)\nsys.stdin.read()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"ok\n"
    return child


def end(child, number=signal.SIGKILL):
    child.send_signal(number)
    child.wait()


RECORD = "fcntl.fcntl(fd,fcntl.F_SETLK,struct.pack('hhqqi4x',fcntl.F_WRLCK,0,10,10,0))"
WHOLE = "fcntl.fcntl(fd,fcntl.F_SETLK,struct.pack('hhqqi4x',fcntl.F_WRLCK,0,0,0,0))"
FLOCK = "fcntl.flock(fd,fcntl.LOCK_EX)"


def eventually(function, *args):
    deadline = time.time() + 5
    while True:
        try:
            return function(*args)
        except BlockingIOError:
            assert time.time() < deadline, "the lock was not released"
            time.sleep(0.01)


@case
def record_locks_meet_between_host_and_mount(h, m):
    put(h + "/f", b"x" * 100)
    for holder, other in ((h, m), (m, h), (m, m)):
        child = held(holder + "/f", RECORD)
        fd = os.open(other + "/f", os.O_RDWR)
        fails(errno.EAGAIN, posix_lock, fd, fcntl.F_WRLCK, 15, 1)
        fails(errno.EAGAIN, posix_lock, fd, fcntl.F_RDLCK, 0, 0)
        posix_lock(fd, fcntl.F_WRLCK, 0, 10)
        answer = fcntl.fcntl(fd, fcntl.F_GETLK, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 0, 0, 0))
        kind, _, start, length, pid = struct.unpack("hhqqi4x", answer)
        assert (kind, start, length) == (fcntl.F_WRLCK, 10, 10)
        if holder == other:
            assert pid == child.pid, (pid, child.pid)
        end(child)
        eventually(posix_lock, fd, fcntl.F_WRLCK)
        os.close(fd)


@case
def flocks_meet_between_host_and_mount(h, m):
    put(h + "/f")
    for holder, other in ((h, m), (m, h), (m, m)):
        child = held(holder + "/f", FLOCK)
        fd = os.open(other + "/f", os.O_RDWR)
        fails(errno.EAGAIN, fcntl.flock, fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        # The two kinds do not meet, as on the host.
        posix_lock(fd, fcntl.F_WRLCK)
        end(child)
        eventually(fcntl.flock, fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(fd)


@case
def both_kinds_of_lock_are_held_by_one_process(h, m):
    put(m + "/f")
    fd = os.open(m + "/f", os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    posix_lock(fd, fcntl.F_WRLCK)
    child = held(m + "/f", "pass")
    end(child)
    posix_lock(fd, fcntl.F_UNLCK)
    other = held(m + "/f", WHOLE)
    fails(errno.EAGAIN, posix_lock, fd, fcntl.F_WRLCK)
    end(other)
    os.close(fd)


@case
def a_lock_is_waited_for(h, m):
    put(h + "/f", b"x" * 100)
    for side in (h, m):
        child = held(side + "/f", RECORD)
        fd = os.open(m + "/f", os.O_RDWR)
        timer = threading.Timer(0.3, end, (child,))
        timer.start()
        began = time.time()
        posix_lock(fd, fcntl.F_WRLCK, wait=True)
        assert 0.2 < time.time() - began < 5
        timer.join()
        os.close(fd)


@case
def waiting_for_a_lock_can_be_interrupted(h, m):
    put(h + "/f", b"x" * 100)
    child = held(h + "/f", RECORD)
    waiter = subprocess.Popen(
        [sys.executable, "-c", f"import fcntl\nf=open({m + '/f'!r},'r+')\nfcntl.lockf(f,fcntl.LOCK_EX)"],
        stderr=subprocess.DEVNULL,
    )
    time.sleep(0.5)
    assert waiter.poll() is None
    waiter.send_signal(signal.SIGTERM)
    waiter.wait(timeout=5)
    end(child)


@case
def closing_any_descriptor_releases_record_locks(h, m):
    put(h + "/f")
    a, b = os.open(m + "/f", os.O_RDWR), os.open(m + "/f", os.O_RDWR)
    posix_lock(a, fcntl.F_WRLCK)
    os.close(b)
    end(held(m + "/f", WHOLE))
    os.close(a)


# Who may do what; only root can make others.


@root
def files_are_the_callers(h, m):
    os.chmod(m, 0o777)

    def make():
        put(m + "/f")
        os.mkdir(m + "/d")
        os.symlink("x", m + "/l")
        os.mkfifo(m + "/p")
        os.mknod(m + "/n", 0o600)

    as_user(1234, 2345, [], make)
    for name in "fdlpn":
        found = os.lstat(h + "/" + name)
        assert (found.st_uid, found.st_gid) == (1234, 2345), name
    # And root again, on whichever thread.
    for i in range(20):
        put(m + f"/r{i}")
        assert os.stat(h + f"/r{i}").st_uid == 0


@root
def umask_and_default_acls(h, m):
    old = os.umask(0o027)
    os.close(os.open(m + "/f", os.O_CREAT | os.O_WRONLY, 0o777))
    os.mkdir(m + "/d", 0o777)
    assert stat.S_IMODE(os.stat(h + "/f").st_mode) == 0o750
    assert stat.S_IMODE(os.stat(h + "/d").st_mode) == 0o750
    # user::rwx user:1234:rwx group::r-x mask::rwx other::---
    entries = [(1, 7, 0xFFFFFFFF), (2, 7, 1234), (4, 5, 0xFFFFFFFF), (16, 7, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    os.setxattr(m + "/d", "system.posix_acl_default", acl)
    assert os.getxattr(h + "/d", "system.posix_acl_default") == acl
    os.close(os.open(m + "/d/in", os.O_CREAT | os.O_WRONLY, 0o666))
    os.umask(old)
    # The umask counts for nothing where there is a default ACL.
    assert stat.S_IMODE(os.stat(h + "/d/in").st_mode) == 0o660
    os.chmod(m + "/d", 0o711)
    os.chmod(m, 0o755)
    as_user(1234, 2345, [], lambda: put(m + "/d/in", b"let in by the list"))
    as_user(1235, 2345, [], lambda: fails(errno.EACCES, put, m + "/d/in"))


@root
def permissions_are_checked(h, m):
    os.chmod(m, 0o755)
    put(m + "/secret", b"s")
    os.chmod(m + "/secret", 0o600)
    put(m + "/group", b"g")
    os.chown(m + "/group", 0, 3456), os.chmod(m + "/group", 0o660)

    def others():
        fails(errno.EACCES, get, m + "/secret")
        fails(errno.EACCES, put, m + "/new")
        fails(errno.EPERM, os.chmod, m + "/secret", 0o777)
        fails(errno.EPERM, os.chown, m + "/secret", 1234, 2345)
        fails(errno.EACCES, os.unlink, m + "/secret")
        fails(errno.EACCES, get, m + "/group")
        fails(errno.EPERM, os.setxattr, m + "/group", "trusted.x", b"")

    as_user(1234, 2345, [], others)
    # A supplementary group counts.
    as_user(1234, 2345, [99, 3456], lambda: put(m + "/group", b"by a member"))
    assert get(h + "/group") == b"by a member"
    os.mkdir(m + "/gd")
    os.chown(m + "/gd", 0, 3456), os.chmod(m + "/gd", 0o770)
    as_user(1234, 2345, [3456], lambda: put(m + "/gd/in"))
    assert os.stat(h + "/gd/in").st_gid == 2345


@root
def permissions_taken_away_on_the_host_count_at_once(h, m):
    os.chmod(m, 0o755)
    put(m + "/f", b"x")

    def look():
        for _ in range(20):
            assert get(m + "/f") == b"x"
        os.write(ready[1], b"x")
        os.read(go[0], 1)
        fails(errno.EACCES, get, m + "/f")

    ready, go = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setresuid(1234, 1234, 1234)
            look()
            os._exit(0)
        except BaseException as error:  # noqa: as in as_user
            sys.stderr.write(f"{error}\n")
            os._exit(1)
    os.read(ready[0], 1)
    os.chmod(h + "/f", 0o600)
    os.write(go[1], b"x")
    assert os.waitpid(pid, 0)[1] == 0


@root
def set_id_bits_are_cleared(h, m):
    os.chmod(m, 0o755)
    for how in ("write", "truncate", "open", "mapped"):
        put(m + "/f", b"x" * 100)
        os.chown(m + "/f", 1234, 2345), os.chmod(m + "/f", 0o6777)
        assert stat.S_IMODE(os.stat(h + "/f").st_mode) == 0o6777

        def change():
            if how == "write":
                fd = os.open(m + "/f", os.O_WRONLY)
                os.write(fd, b"y")
                os.close(fd)
            elif how == "truncate":
                os.truncate(m + "/f", 10)
            elif how == "open":
                os.close(os.open(m + "/f", os.O_WRONLY | os.O_TRUNC))

        as_user(4321, 4321, [], change)
        expected = 0o6777 if how == "mapped" else 0o777
        assert stat.S_IMODE(os.stat(m + "/f").st_mode) == expected, how
        assert stat.S_IMODE(os.stat(h + "/f").st_mode) == expected, how
    os.chown(m + "/f", 1, 1)
    assert stat.S_IMODE(os.stat(h + "/f").st_mode) == 0o777


@root
def capabilities_are_cleared_by_writing(h, m):
    shutil.copy("/bin/true", m + "/f")
    capability = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
    os.setxattr(m + "/f", "security.capability", capability)
    assert os.getxattr(h + "/f", "security.capability") == capability
    os.chmod(m, 0o755), os.chmod(m + "/f", 0o777)

    def change():
        fd = os.open(m + "/f", os.O_WRONLY)
        os.pwrite(fd, b"y", 100)
        os.close(fd)

    as_user(4321, 4321, [], change)
    fails(errno.ENODATA, os.getxattr, h + "/f", "security.capability")


@root
def sticky_directories_and_inherited_groups(h, m):
    os.chmod(m, 0o755)
    os.mkdir(m + "/t"), os.chmod(m + "/t", 0o1777)
    as_user(1234, 1234, [], lambda: put(m + "/t/mine"))
    as_user(4321, 4321, [], lambda: fails(errno.EPERM, os.unlink, m + "/t/mine"))
    as_user(4321, 4321, [], lambda: fails(errno.EPERM, os.rename, m + "/t/mine", m + "/t/x"))
    as_user(1234, 1234, [], lambda: os.unlink(m + "/t/mine"))
    os.mkdir(m + "/g"), os.chown(m + "/g", 0, 3456), os.chmod(m + "/g", 0o2777)

    def inherit():
        put(m + "/g/f")
        os.mkdir(m + "/g/d")

    as_user(1234, 1234, [], inherit)
    assert os.stat(h + "/g/f").st_gid == 3456
    found = os.stat(h + "/g/d")
    assert found.st_gid == 3456 and found.st_mode & stat.S_ISGID


@root
def devices(h, m):
    os.chmod(m, 0o777)
    os.mknod(m + "/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(m + "/block", stat.S_IFBLK | 0o600, os.makedev(259, 0x12345))
    for side in (h, m):
        assert os.stat(side + "/null").st_rdev == os.makedev(1, 3)
        assert os.stat(side + "/block").st_rdev == os.makedev(259, 0x12345)
    as_user(1234, 1234, [], lambda: fails(errno.EPERM, os.mknod, m + "/c", stat.S_IFCHR, os.makedev(1, 3)))


def main():
    wanted = set(sys.argv[3:])
    failed = 0
    for function in CASES:
        if wanted and function.__name__ not in wanted:
            continue
        name = f"case-{function.__name__}"[:200]
        os.mkdir(f"{HOST}/{name}", 0o755)
        try:
            function(f"{HOST}/{name}", f"{MOUNT}/{name}")
        except BaseException as error:  # noqa: one failure does not hide the others
            trace = sys.exc_info()[2]
            lines = []
            while trace:
                lines.append(trace.tb_lineno)
                trace = trace.tb_next
            print(f"{function.__name__}: {type(error).__name__}: {error} (lines {lines})", flush=True)
            failed += 1
        os.chdir("/")
        shutil.rmtree(f"{HOST}/{name}", ignore_errors=True)
    print(f"{len(wanted) or len(CASES)} cases, {failed} failed")
    sys.exit(1 if failed else 0)


main()
