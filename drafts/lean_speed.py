import torch,time,statistics
import zsc_utils as zsc
from zsc_utils import inference as inf, quantization as q, memory
b=zsc.load("base-shape")
i8=q.quantize(b,'int8')
ids=torch.randint(200,20000,(4,60)); ty=torch.zeros_like(ids); ty[:,50:]=1; m=torch.ones_like(ids); m[0,40:]=0
with torch.inference_mode():
    for c in (b,i8,zsc.load("base-shape",attention="eager")):
        o=c.model(input_ids=ids,token_type_ids=ty,attention_mask=m).logits
        print((o-inf.logits(c.model,ids,ty,m)).abs().max().item(), (c.model(input_ids=ids,token_type_ids=ty).logits-inf.logits(c.model,ids,ty)).abs().max().item())
for shape in ((8,128),(16,64),(32,32),(2,512),(1,128)):
    ids=torch.randint(200,20000,shape); ty=torch.zeros_like(ids); m=torch.ones_like(ids); m[0,-3:]=0
    fs={'own':lambda:b.model(input_ids=ids,token_type_ids=ty),'ownmask':lambda:b.model(input_ids=ids,token_type_ids=ty,attention_mask=m),
     **{f'lean{c}':(lambda c=c:inf.logits(b.model,ids,ty,chunk=c)) for c in (128,256,512,100000)},'leanmask':lambda:inf.logits(b.model,ids,ty,m),
     'i8 own':lambda:i8.model(input_ids=ids,token_type_ids=ty), **{f'i8 lean{c}':(lambda c=c:inf.logits(i8.model,ids,ty,chunk=c)) for c in (128,256,512,100000)}}
    r={k:[] for k in fs}
    with torch.inference_mode():
        for t in range(6):
            for k,f in fs.items():
                s=time.perf_counter(); f(); r[k].append(time.perf_counter()-s)
    print(shape,{k:round(ids.numel()/statistics.median(v[1:])) for k,v in r.items()}, {k:round(memory.tensor_peak(fs[k])/(ids.numel()*768*4),2) for k in ('own','ownmask','lean256','leanmask','lean100000','i8 own','i8 lean256')},flush=True)
