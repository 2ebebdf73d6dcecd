import torch, sys, os
import zsc_utils as zsc
from zsc_utils import memory, quantization
from pathlib import Path
dst='/tmp/nb/int8base'
if not Path(dst).exists():
    quantization.save(quantization.quantize(zsc.load("base-shape"),"int8"),dst)
import ctypes
def run(name, batches, n=4):
    c=zsc.load(name)
    ctypes.CDLL(None).malloc_trim(0)
    out=[memory.resident("self")]
    ids=torch.arange(200,1224).view(8,128)
    with torch.inference_mode():
        for b in range(batches):
            c.model(input_ids=ids[(b*n)%8:(b*n)%8+n])
            out.append(memory.resident("self"))
    return [(o["RssAnon"]/1e6,o["RssFile"]/1e6,o['VmHWM']/1e6) for o in out]
for name in ("base-shape",dst):
  for b,n in ((0,4),(1,4),(2,4),(6,4),(2,8)):
    p=memory.process_peak(run,name,b,n)
    print(name,b,n,round(p.anonymous/1e6),round(p.file_backed/1e6),round(p.total/1e6), [tuple(round(x) for x in r) for r in p.result][-2:])
