import torch, sys, os
import zsc_utils as zsc
from zsc_utils import memory
dst='/tmp/nb/int8base'
def run(name):
    c=zsc.load(name)
    out=[("load",memory.resident("self"))]
    ids=torch.arange(200,712).view(4,128)
    for i in range(12):
      for n,m in c.model.bert.encoder.layer[i].named_modules():
        if len(n):
            m.register_forward_hook(lambda *_,n=n,i=i: out.append((f"{i} {n}",memory.resident("self"))))
    with torch.inference_mode():
            c.model(input_ids=ids)
    out.append(("end",memory.resident("self")))
    b=out[0][1]
    return [(n,round((o["RssAnon"]-b["RssAnon"])/1e6,1),round((o['VmHWM']-b['VmHWM'])/1e6,1)) for n,o in out]
p=memory.process_peak(run,sys.argv[1] if len(sys.argv)>1 else dst)
print(round(p.total/1e6),*p.result,sep="\n")
