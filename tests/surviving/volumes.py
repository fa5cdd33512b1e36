# Uses files of a volume in every way that something can be lost or done twice, and knows what there must be.
#
#   volumes.py DIRECTORY SECONDS [KIND...]    prints the rounds of each kind; the first thing that is not as it should be ends it with status 1
import os, sys, time, random, fcntl, mmap, ctypes, sqlite3, shutil, traceback, threading
D, SECONDS = sys.argv[1], float(sys.argv[2])
end = time.time() + SECONDS
libc = ctypes.CDLL(None, use_errno=True)
def exchange(a, b):
    if libc.renameat2(-100, a.encode(), -100, b.encode(), 2) != 0:
        e = ctypes.get_errno(); raise OSError(e, os.strerror(e), a)
def appends(d):
    f = os.open(d+'/log', os.O_WRONLY|os.O_CREAT|os.O_APPEND, 0o644); want = b''; n = 0
    while time.time() < end:
        line = b'%d\n' % (n % 10); os.write(f, line); want += line; n += 1
        if n % 200 == 0:
            got = open(d+'/log','rb').read()
            assert got == want, (len(got), len(want))
            if n % 5000 == 0: os.ftruncate(f, 0); want = b''
    return n
def names(d):
    n = 0
    while time.time() < end:
        a, b, c = d+'/a', d+'/b', d+'/c'
        f = os.open(a, os.O_RDWR|os.O_CREAT|os.O_EXCL, 0o600); os.write(f, b'%d' % n); 
        os.link(a, b); assert os.stat(a).st_nlink == 2
        os.unlink(a); assert not os.path.exists(a)
        os.rename(b, a); os.mkdir(c); os.symlink('x', c+'/s'); assert os.readlink(c+'/s') == 'x'
        g = os.open(b, os.O_RDWR|os.O_CREAT|os.O_EXCL, 0o600); os.write(g, b'other')
        exchange(a, b); assert open(a,'rb').read() == b'other' and open(b,'rb').read() == b'%d' % n
        os.rename(a, b); assert open(b,'rb').read() == b'other'
        assert os.pread(f, 20, 0) == b'%d' % n and os.fstat(f).st_nlink == 0
        os.close(f); os.close(g)
        os.mkfifo(d+'/p'); os.unlink(d+'/p')
        assert sorted(os.listdir(d)) == ['b','c'], os.listdir(d)
        os.unlink(c+'/s'); os.rmdir(c); os.unlink(b); n += 1
    return n
def bytes_(d):
    r = random.Random(5); size = 0; f = os.open(d+'/x', os.O_RDWR|os.O_CREAT, 0o600); model = bytearray(); n = 0
    while time.time() < end:
        k = r.random(); at = r.randrange(200000); ln = r.randrange(1, 40000)
        if k < .45:
            data = r.randbytes(ln); 
            done = 0
            while done < ln: done += os.pwrite(f, data[done:], at+done)
            if len(model) < at: model.extend(bytes(at-len(model)))
            model[at:at+ln] = data
        elif k < .9: 
            got = b''
            got = os.pread(f, ln, at); assert got == bytes(model[at:at+ln]), ('read', at, ln)
        elif k < .95:
            os.ftruncate(f, at); 
            if at < len(model): del model[at:]
            else: model.extend(bytes(at-len(model)))
        elif k < .97:
            os.fsync(f); assert os.fstat(f).st_size == len(model)
        else:
            os.close(f); f = os.open(d+'/x', os.O_RDWR)
        n += 1
    return n
def counter(d):
    # two processes, one number
    p = d+'/n'; open(p,'w').write('0'); 
    def count(how):
        n = 0
        while time.time() < end:
            with open(p,'r+') as f:
                how(f, fcntl.LOCK_EX); v = int(f.read()); f.seek(0); f.write(str(v+1)); f.flush(); n += 1
        return n
    total = 0
    for how in (fcntl.flock,):
        r, w = os.pipe(); pid = os.fork()
        if pid == 0:
            try: os.write(w, b'%d' % count(how)); os._exit(0)
            except BaseException: traceback.print_exc(); os._exit(1)
        n = count(how); _, st = os.waitpid(pid, 0); assert st == 0
        total = n + int(os.read(r, 20))
    assert int(open(p).read()) == total, (open(p).read(), total)
    return total
def fcntls(d):
    p = d+'/n'; open(p,'w').write('0')
    r, w = os.pipe(); pid = os.fork()
    def count():
        n = 0
        f = open(p,'r+')
        while time.time() < end:
            fcntl.lockf(f, fcntl.LOCK_EX, 100, 1000); f.seek(0); v = int(f.read() or 0); f.seek(0); f.write(str(v+1)); f.flush(); n += 1
            fcntl.lockf(f, fcntl.LOCK_UN, 100, 1000)
        return n
    if pid == 0:
        try: os.write(w, b'%d' % count()); os._exit(0)
        except BaseException: traceback.print_exc(); os._exit(1)
    n = count(); _, st = os.waitpid(pid, 0); assert st == 0
    total = n + int(os.read(r, 20)); assert int(open(p).read()) == total, (open(p).read(), total)
    return total
def sql(d):
    c = sqlite3.connect(d+'/db', timeout=30); c.execute('create table t(n integer)'); c.commit(); n = 0
    while time.time() < end:
        c.execute('insert into t values(?)', (n,)); c.commit(); n += 1
        if n % 50 == 0:
            assert c.execute('select count(*), max(n) from t').fetchone() == (n, n-1)
            c.close(); c = sqlite3.connect(d+'/db', timeout=30)
    assert c.execute('pragma integrity_check').fetchone() == ('ok',)
    return n
def maps(d):
    f = os.open(d+'/m', os.O_RDWR|os.O_CREAT, 0o600); os.ftruncate(f, 65536); m = mmap.mmap(f, 65536); n = 0
    while time.time() < end:
        at = (n*4096) % 65536; m[at:at+8] = b'%08d' % n; 
        if n % 3 == 0: m.flush()
        assert m[at:at+8] == b'%08d' % n
        if n % 50 == 49:
            m.flush(); assert os.pread(f, 8, at) == b'%08d' % n
            m.close(); os.close(f); f = os.open(d+'/m', os.O_RDWR); m = mmap.mmap(f, 65536); assert m[at:at+8] == b'%08d' % n
        n += 1; time.sleep(.0005)
    return n
def trees(d):
    n = 0
    while time.time() < end:
        for i in range(5):
            os.makedirs(f'{d}/t/{i}/deep'); 
            for j in range(6): open(f'{d}/t/{i}/deep/{j}','w').write('x'*j)
        assert sum(len(f) for _, _, f in os.walk(d+'/t')) == 30
        if os.system(f'rm -r {d}/t'): raise AssertionError('rm -r')
        assert not os.path.exists(d+'/t'); n += 1
    return n
kids = {}
only = sys.argv[3:]
for kind in (appends, names, bytes_, counter, fcntls, sql, maps, trees):
    if only and kind.__name__ not in only: continue
    d = f'{D}/{kind.__name__}'; os.mkdir(d)
    r, w = os.pipe(); pid = os.fork()
    if pid == 0:
        try: os.write(w, b'%d' % kind(d)); os._exit(0)
        except BaseException: print(kind.__name__, file=sys.stderr); traceback.print_exc(); os._exit(1)
    os.close(w); kids[pid] = (kind.__name__, r)
bad = 0
for _ in range(len(kids)):
    pid, st = os.wait(); name, r = kids[pid]; 
    if st: bad = 1; end = 0; print('FAILED', name, flush=True)
    else: print(name, os.read(r, 20).decode(), flush=True)
sys.exit(bad)
