# threads: receive, write, drop, while another thread forks; check contents, arena check
import os, sys, threading, time, numpy as np, shared_numpy as snp, random
from shared_numpy import _core
stop=time.time()+float(sys.argv[1]); errs=[]
A=_core.Arena.default()
def work(k):
    q=snp.SimpleQueue(); keep=[]
    n=0
    while time.time()<stop:
        v=random.randrange(1<<30); q.put(np.full(random.choice([2048,5000,20000]),v,"i8")); a=q.get()
        if (a!=v).any(): errs.append("received"); print("ERR recv",flush=True)
        a+=k; keep.append((v+k,a))
        sh=snp.full(600,v); 
        if len(keep)>20:
            w,x=keep.pop(random.randrange(len(keep)))
            if (x!=w).any(): errs.append("kept"); print("ERR kept",flush=True)
        n+=1
    for w,x in keep:
        if (x!=w).any(): errs.append("kept end")
    print("n",n)
ts=[threading.Thread(target=work,args=(i+1,)) for i in range(2)]
[t.start() for t in ts]
f=0; q=snp.SimpleQueue(); q.put(np.full(5000,3,"i8")); mine=q.get(); gen=0
while time.time()<stop:
    mine[:]=f; pid=os.fork()
    if pid==0:
        bad=(mine!=f).any(); mine[:]=-1
        x=snp.ones(3000); del x
        p2=os.fork()
        if p2==0:
            bad2=(mine!=-1).any(); mine[:]=-2; time.sleep(0.002); os._exit(int(bad2))
        mine[:]=-3
        st=os.waitpid(p2,0)[1]
        os._exit(int(bad or st!=0 or (mine!=-3).any()))
    mine2=mine.copy()
    st=os.waitpid(pid,0)[1]
    if st or (mine!=f).any(): errs.append("fork %d"%st); print("ERR fork",st,flush=True)
    f+=1; time.sleep(0.003)
[t.join() for t in ts]
print("forks",f,"errors",errs,"check",A.check()); del mine
s=A.stats(); print({k:s[k] for k in("blocks","handles","recoveries","reaped_references")})
