# corruption through a freed range that stayed mapped as a private copy
import os, sys, subprocess
from shared_numpy import _core
A=_core.Arena.create(32<<20)
b=A.alloc(2<<20); h=A.send(b)
r1=_core.receive(h); r1.private=True
pid=os.fork()
if pid==0: os._exit(0)
os.waitpid(pid,0)
r2=_core.receive(h); r2.private=True
addr=b.address
del b, r1, r2
A.reap()
keep=[]
for i in range(40):
    c=A.alloc(2<<20); keep.append(c)
    if c.address==addr: break
print("same place:", c.address==addr)
v=c.array(c.nbytes,"u1"); v[:]=9
h=A.send(c)
code="import sys;from shared_numpy import _core;b=_core.receive(bytes.fromhex(sys.argv[1]));a=b.array(b.nbytes,'u1');import numpy as np;print('receiver sees', np.unique(a))"
print(subprocess.check_output([sys.executable,"-c",code,h.hex()]).decode().strip(), "expected [9]")
