# a handle made of a private block directly (Block.sending / Arena.send) after a fork: the receiver sees old bytes
import os, sys, subprocess, numpy as np, shared_numpy as snp
from shared_numpy import _core, transfer
q=snp.SimpleQueue(); q.put(np.zeros(20000)); a=q.get()
pid=os.fork()
if pid==0: os._exit(0)
os.waitpid(pid,0)
a[:]=5
b=transfer.block_of(a)
h=b.arena.send(b)
r=_core.receive(h); print("received in the same process", r.array(20000,"f8",None,-r.address%4096)[:3])
code="import sys;from shared_numpy import _core;b=_core.receive(bytes.fromhex(sys.argv[1]));a=b.array(20000,'f8',None,-b.address%4096);import numpy as np;print('receiver sees', np.unique(a))"
print(subprocess.check_output([sys.executable,"-c",code,h.hex()]).decode().strip(), "expected [5]")
