#!/usr/bin/env python3
"""Random operations on one file, each from the host or from the mount, against a model: what fsx does, from two sides at once.

    twosides.py HOST MOUNT COUNT [SEED]

Two processes, one for each side, keep the file open; each operation goes to one of them and every read is compared. With
MAPPED=0 mappings are only used on the host (without passthrough a mapping sees the other side's writes when it is made).
"""

import ctypes
import mmap
import os
import random
import struct
import sys

HOST, MOUNT, COUNT = sys.argv[1], sys.argv[2], int(sys.argv[3])
SEED = int(sys.argv[4]) if len(sys.argv) > 4 else random.randrange(1 << 32)
MAPPED = os.environ.get("MAPPED", "1") != "0"
LARGEST = 256 * 1024
LIBC = ctypes.CDLL(None, use_errno=True)


class Side:
    """A process that does what it is told."""

    def __init__(self, path):
        (a, self.output), (self.input, b) = os.pipe(), os.pipe()
        if os.fork() == 0:
            os.close(self.output), os.close(self.input)
            serve(path, a, b)
            os._exit(0)
        os.close(a), os.close(b)

    def do(self, op, x=0, y=0, data=b""):
        os.write(self.output, struct.pack("<BQQI", op, x, y, len(data)))
        while data:
            data = data[os.write(self.output, data):]
        return exactly(self.input, struct.unpack("<I", exactly(self.input, 4))[0])


def exactly(fd, count):
    data = b""
    while len(data) < count:
        more = os.read(fd, count - len(data))
        if not more:
            raise EOFError("the other process is gone")
        data += more
    return data


READ, WRITE, APPEND, TRUNCATE, MAP_READ, MAP_WRITE, PUNCH, COPY, REOPEN, SIZE, SYNC = range(11)


def serve(path, requests, answers):
    fd = os.open(path, os.O_RDWR)
    appending = os.open(path, os.O_WRONLY | os.O_APPEND)
    while True:
        try:
            op, x, y, length = struct.unpack("<BQQI", exactly(requests, 21))
        except EOFError:
            return
        data, answer = exactly(requests, length), b""
        if op == READ:
            answer = os.pread(fd, y, x)
        elif op == WRITE:
            assert os.pwrite(fd, data, x) == len(data)
        elif op == APPEND:
            assert os.write(appending, data) == len(data)
        elif op == TRUNCATE:
            os.ftruncate(fd, x)
        elif op == MAP_READ or op == MAP_WRITE:
            with mmap.mmap(fd, os.fstat(fd).st_size) as mapped:
                if op == MAP_READ:
                    answer = mapped[x:x + y]
                else:
                    mapped[x:x + len(data)] = data
                    mapped.flush()
        elif op == PUNCH:
            if LIBC.fallocate(fd, 3, ctypes.c_long(x), ctypes.c_long(y)) != 0:
                raise OSError(ctypes.get_errno(), "fallocate")
        elif op == COPY:
            # To the very end of the file, from its beginning.
            done = 0
            while done < y:
                done += os.copy_file_range(fd, fd, y - done, done, x + done)
        elif op == REOPEN:
            os.close(fd)
            fd = os.open(path, os.O_RDWR)
        elif op == SIZE:
            answer = struct.pack("<Q", os.fstat(fd).st_size)
        elif op == SYNC:
            os.fsync(fd)
        os.write(answers, struct.pack("<I", len(answer)) + answer)


def main():
    rng = random.Random(SEED)
    name = "/twosides"
    open(HOST + name, "wb").close()
    sides = [Side(HOST + name), Side(MOUNT + name)]
    model = bytearray()
    history = []
    for i in range(COUNT):
        which = rng.randrange(2)
        side, size = sides[which], len(model)
        op = rng.choice([READ, READ, WRITE, WRITE, APPEND, TRUNCATE, MAP_READ, MAP_WRITE, PUNCH, COPY, REOPEN, SIZE, SYNC])
        if op in (MAP_READ, MAP_WRITE) and which == 1 and not MAPPED:
            op = READ
        at = rng.randrange(size + 1)
        length = rng.choice([1, 7, 512, 4096, 5000, 20000])
        history.append((i, which, op, at, length))
        if op in (READ, MAP_READ):
            if op == MAP_READ and size == 0:
                continue
            found = side.do(op, at, length)
            expected = bytes(model[at:at + length])
            if found != expected:
                wrong = next((k for k, (a, b) in enumerate(zip(found, expected)) if a != b), min(len(found), len(expected)))
                print(f"seed {SEED}, operation {i}: differs at {at + wrong}, lengths {len(found)} {len(expected)}")
                print("\n".join(map(str, history[-20:])))
                sys.exit(1)
        elif op == WRITE:
            at = min(at + rng.choice([0, 0, 3000]), LARGEST - 20000)
            data = rng.randbytes(length)
            if at > size:
                model.extend(bytes(at - size))
            model[at:at + length] = data
            side.do(WRITE, at, 0, data)
        elif op == APPEND:
            if size + length <= LARGEST:
                data = rng.randbytes(length)
                model.extend(data)
                side.do(APPEND, 0, 0, data)
        elif op == TRUNCATE:
            new = rng.randrange(LARGEST // 2)
            del model[new:]
            model.extend(bytes(new - len(model)))
            side.do(TRUNCATE, new)
        elif op == MAP_WRITE:
            data = rng.randbytes(min(length, size - at))
            if data:
                model[at:at + len(data)] = data
                side.do(MAP_WRITE, at, 0, data)
        elif op == PUNCH:
            end = min(at + length, size)
            if end > at:
                model[at:end] = bytes(end - at)
                side.do(PUNCH, at, end - at)
        elif op == COPY:
            count = min(length, size // 2)
            if count and size + count <= LARGEST:
                model.extend(model[:count])
                side.do(COPY, size, count)
        elif op == SIZE:
            found = struct.unpack("<Q", side.do(SIZE))[0]
            assert found == size, f"seed {SEED}, operation {i}: size {found}, not {size}"
        else:
            side.do(op)
    for path in (HOST, MOUNT):
        with open(path + name, "rb") as file:
            assert file.read() == model, f"seed {SEED}: the end differs on {path}"
    os.unlink(HOST + name)
    print(f"{COUNT} operations, seed {SEED}: the same on both sides")


main()
