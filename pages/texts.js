// The words of the page: {name: [English, Chinese]}. {value} is replaced. Chinese terms are those of the lessons.

"use strict";

const LANGUAGES = ["en", "zh"];

// The language that the page speaks: what the link to it asks for (null: nothing), or else that of the browser.
const languageOf = (asked, browser) => ((asked ?? browser).startsWith("zh") ? "zh" : "en");

const TEXTS = {
  "title": ["How much memory does it take?", "需要多少内存？"],
  "lead": [
    "For zero-shot classification with StructBERT and other BERTs on a CPU. The page computes what zsc_utils " +
    "predicts, to the byte. It sends nothing anywhere. 1 MB is 1,000,000 bytes.",
    "用于在 CPU 上以 StructBERT 或其他 BERT 做零样本分类。本页的计算与 zsc_utils 的预测逐字节相同，不发送任何数据。" +
    "1 MB 是 1,000,000 字节。",
  ],
  "other": ["中文", "English"],
  "index": ["Lessons", "课程目录"],
  "comma": [", ", "，"],
  "and": [", ", "、"],
  "link": ["Link to these inputs", "指向这些输入的链接"],

  // ------------------------------------------------------------------------------------------------------- inputs
  "engine": ["Engine", "引擎"],
  "engine torch": ["zsc_utils with torch: keeps a memory budget", "zsc_utils，使用 torch：遵守内存预算"],
  "engine export": ["zsc_utils without torch: an exported folder", "zsc_utils，不用 torch：导出的文件夹"],
  "engine transformers": [
    "transformers' own forward pass: tensors only", "transformers 自己的前向传播：只计张量",
  ],
  "model": ["Model", "模型"],
  "checkpoint": ["Checkpoint", "检查点"],
  "base-shape": ["base-shape: the sizes of StructBERT-base", "base-shape：StructBERT-base 的尺寸"],
  "mini": ["mini: bundled with zsc_utils", "mini：随 zsc_utils 附带"],
  "own": ["own sizes", "自定义尺寸"],
  "layers": ["Layers", "层数"],
  "hidden": ["Hidden size", "隐藏层大小"],
  "heads": ["Attention heads", "注意力头数"],
  "intermediate": ["Intermediate size", "前馈网络的宽度"],
  "vocabulary": ["Vocabulary, tokens", "词表大小（词元）"],
  "positions": ["Positions, tokens", "最大位置数（词元）"],
  "types": ["Token types", "词元类型数"],
  "classes": ["Classes", "类别数"],
  "format": ["Format of its weights' file", "权重文件的格式"],
  "format transformers": ["transformers, fp32", "transformers，fp32"],
  "format transformers-16": ["transformers, 16 bits a number", "transformers，每个数 16 位"],
  "format int8-rows": ["int8-rows: stored in int8, runs in fp32", "int8-rows：以 int8 存储，以 fp32 运行"],
  "format fp16": ["fp16, saved by zsc_utils", "fp16，由 zsc_utils 保存"],
  "format bf16": ["bf16, saved by zsc_utils", "bf16，由 zsc_utils 保存"],
  "format int8-v1": ["int8, saved by zsc_utils", "int8，由 zsc_utils 保存"],
  "tokenizer file": ["Its tokenizer's file", "分词器文件"],
  "tokenizerBytes": ["Size of the export's tokenizer.json, MB", "导出文件夹中 tokenizer.json 的大小，MB"],
  "work": ["Work", "任务"],
  "length": ["Tokens of a text with a label", "一段文本加一个标签的词元数"],
  "labels": ["Labels", "标签数"],
  "texts": ["Texts", "文本数"],
  "texts of a batch": ["Texts of a batch", "每批量的文本数"],
  "hypothesis": ["Of these tokens, the label's", "其中标签的词元数"],
  "padded": ["Some texts are padded", "部分文本带填充"],
  "levers": ["Choices", "选择"],
  "budget": ["Memory budget of a worker", "每个工作进程的内存预算"],
  "budget size": ["a size", "给定大小"],
  "budget container": ["what the container leaves", "容器剩余的内存"],
  "budget none": ["none", "无"],
  "budget MB": ["Budget, MB", "预算，MB"],
  "precision": ["Precision", "精度"],
  "as stored": ["as stored", "与存储相同"],
  "attention kind": ["Attention", "注意力"],
  "sliding": ["sliding window", "滑动窗口"],
  "window": ["Window, tokens to each side", "窗口：每侧词元数"],
  "chunk": ["Feed-forward chunk, tokens (0: none)", "前馈网络分块，词元（0：不分块）"],
  "offload": ["Stream layers", "逐层流式加载"],
  "left to the plan": ["the plan decides", "由方案决定"],
  "yes": ["yes", "是"],
  "no": ["no", "否"],
  "maxTokens": ["Most tokens of a batch (empty: default)", "每批量最多词元数（空：默认）"],
  "overwrites": [
    "Chunks are those of attention.chunk_feed_forward", "分块方式为 attention.chunk_feed_forward",
  ],
  "lossy": ["allow_lossy: the plan may take int8", "allow_lossy：方案可以使用 int8"],
  "machine": ["Machine", "机器"],
  "container": ["Container's memory limit, MB", "容器的内存上限，MB"],
  "container hint": [
    "Docker's 512m and Kubernetes' 512Mi are 536.9 MB. Kubernetes' 512M is 512 MB.",
    "Docker 的 512m 与 Kubernetes 的 512Mi 是 536.9 MB；Kubernetes 的 512M 是 512 MB。",
  ],
  "workers": ["Workers in it", "容器中的工作进程数"],
  "threads": ["Threads of a worker", "每个工作进程的线程数"],
  "int8": ["int8 products, layers in memory", "int8 乘法：各层在内存中"],
  "int8Streamed": ["int8 products, streamed layers", "int8 乘法：逐层流式加载"],
  "unknown": ["not known", "未知"],
  "int8 hint": [
    "If it is not known, the engine that takes most memory counts.", "若未知，则按占用内存最多的引擎计算。",
  ],
  "mklKeeps": ["torch is imported before zsc_utils (MKL keeps buffers)", "先导入 torch，后导入 zsc_utils（MKL 会保留缓冲区）"],
  "disk": ["The disk reads, MB a second", "磁盘读取速度，MB/秒"],
  "speed": ["The worker computes, tokens a second", "工作进程的计算速度，词元/秒"],
  "speed hint": [
    "Optional. With it, the page says below whether computing waits for the disk when layers are streamed (lesson 05).",
    "可选。填写后，页面下方会说明逐层流式加载时计算是否要等待磁盘（第 05 课）。",
  ],
  "whole": ["Python and libraries, MB", "Python 及其库，MB"],
  "anonymous": ["of these anonymous, MB", "其中匿名页，MB"],
  "whole hint": [
    "What a process holds before its plan. It was measured on one machine. On yours: plan.started[\"VmRSS\"] and " +
    "plan.started[\"RssAnon\"] of a classifier.",
    "进程在制定方案之前占用的内存，在一台机器上测得。在你的机器上可查看分类器的 plan.started[\"VmRSS\"] 与 " +
    "plan.started[\"RssAnon\"]。",
  ],

  // ------------------------------------------------------------------------------------------------------ verdicts
  "verdict fits": ["It fits: nothing is killed.", "放得下：不会有进程被杀死。"],
  "verdict just fits": ["It just fits: {spare} are left.", "刚好放得下：还剩 {spare}。"],
  "verdict slow": ["Do not use this container: it is too small.", "不要使用这个容器：它太小了。"],
  "verdict killed": ["A process is killed.", "会有进程被杀死。"],
  "verdict unsure": ["It may fit. There is no promise.", "可能放得下，但不能保证。"],
  "verdict none": ["Give the memory limit of a container.", "请给出容器的内存上限。"],
  "verdict problem": ["This cannot run.", "这样无法运行。"],
  "all fits": [
    "All processes take {all} at most, and the container has {limit}. This holds if Python and its libraries take no " +
    "more than {libraries} before the plan. Workers that fit: {most}.",
    "所有进程最多占用 {all}，容器有 {limit}。前提是制定方案之前 Python 及其库占用不超过 {libraries}。" +
    "放得下的工作进程数：{most}。",
  ],
  "all slow": [
    "All processes take up to {all}, and the container has {limit}. The kernel then drops pages of weights and " +
    "libraries and reads them again. The work becomes slow or does not end. A process may be killed.",
    "所有进程最多占用 {all}，而容器只有 {limit}。内核会丢弃权重和库的文件页，再反复读入。任务会变慢或无法结束，进程也可能被杀死。",
  ],
  "all killed": [
    "Up to {kept} cannot be dropped from memory, and the container has {limit}. The kernel kills the process " +
    "when a large batch comes.",
    "最多有 {kept} 无法从内存中丢弃，而容器只有 {limit}。遇到大批量时，内核会杀死该进程。",
  ],
  "all unsure": [
    "Tensors, Python and its libraries take {all}, and the container has {limit}. What the allocator and oneDNN keep " +
    "for texts of many lengths comes on top, and is not predicted.",
    "张量、Python 及其库占用 {all}，容器有 {limit}。文本长度不一时，内存分配器和 oneDNN 还会保留更多内存，这部分没有预测。",
  ],
  "one of workers": [
    "If one is killed, it is one of the {workers} workers. scaling.classify_dataset then does its rows again.",
    "若有进程被杀死，会是 {workers} 个工作进程中的一个；scaling.classify_dataset 会重做它的数据行。",
  ],
  "smallest container": [
    "The smallest container that holds this is {all}.", "能容纳它的最小容器是 {all}。",
  ],
  "at least this container": [
    "It needs more than {all}.", "它需要的内存多于 {all}。",
  ],
  "budget given": [
    "Each worker gets memory_budget={budget}.", "每个工作进程使用 memory_budget={budget}。",
  ],
  "not container": [
    "Do not give memory_budget=\"container\" to several workers: each would take all of what is left.",
    "有多个工作进程时，不要使用 memory_budget=\"container\"：每个进程都会以为剩余内存全归自己。",
  ],

  // ------------------------------------------------------------------------------------------------------ problems
  "problem whole number": ["{name}: give a whole number, {least} or more.", "{name}：请给出不小于 {least} 的整数。"],
  "problem positive": ["{name}: give a number above 0, or leave it empty.", "{name}：请给出大于 0 的数，或留空。"],
  "problem heads": [
    "Hidden size {hidden} is no multiple of {heads} heads: change one of them.",
    "隐藏层大小 {hidden} 不是注意力头数 {heads} 的倍数：请修改其中一个。",
  ],
  "problem length": [
    "{length} tokens: the model has positions for {positions}. Give fewer tokens.",
    "{length} 个词元：模型只有 {positions} 个位置。请减少词元数。",
  ],
  "problem no container": [
    "A budget from the container needs the container's limit: give it, or give a size.",
    "由容器决定预算时，需要容器的内存上限：请给出上限，或给出预算大小。",
  ],
  "problem chunk": [
    "A chunk of {chunk} tokens does not divide {length}: transformers refuses it. Give a divisor, or choose " +
    "attention.chunk_feed_forward.",
    "{chunk} 个词元的分块不能整除 {length}：transformers 不接受。请给出约数，或选择 attention.chunk_feed_forward。",
  ],
  "problem padded": [
    "A text of one token has no padding: give more tokens, or no padding.",
    "只有一个词元的文本没有填充：请增加词元数，或取消填充。",
  ],
  "problem int8": [
    "transformers' own pass is predicted in fp32, fp16 and bf16: choose one, or another engine.",
    "transformers 自己的前向传播只预测 fp32、fp16 和 bf16：请选择其一，或换一种引擎。",
  ],
  "problem export": [
    "{precision}: an export is in fp32 or int8. Choose one of them.",
    "{precision}：导出只有 fp32 和 int8。请选择其一。",
  ],
  "problem precision": [
    "{precision}: a checkpoint of this format runs in {can}. Choose one of them.",
    "{precision}：这种格式的检查点以 {can} 运行。请选择其一。",
  ],
  "problem sliding": [
    "Sliding attention needs layers that are in memory: do not stream them, or choose another attention.",
    "滑动窗口注意力要求各层在内存中：请不要流式加载，或换一种注意力。",
  ],
  "problem budget": [
    "memory_budget {budget} is too small: the plan refuses it and loads nothing. " +
    "The smallest that works is {smallest}.",
    "memory_budget {budget} 太小：方案会拒绝它，不加载任何权重。可用的最小预算是 {smallest}。",
  ],
  "with lossy": ["With allow_lossy it is {smallest}.", "允许 allow_lossy 时是 {smallest}。"],

  // ------------------------------------------------------------------------------------------------------- results
  "heading process": ["The whole process of one worker, at most", "一个工作进程的全部内存（上限）"],
  "heading tensors": ["Tensor bytes of one forward pass", "一次前向传播的张量字节"],
  "sum process": [
    "The plan predicts {growth}. Python and its libraries take {held} at the start, and {later} of pages that are " +
    "touched later.",
    "其中 {growth} 由方案预测；Python 及其库启动时占用 {held}，之后才访问的页占用 {later}。",
  ],
  "sum tensors": [
    "Weights {weights}, activations at their peak {activations}. The peak: {phase}. The process takes more.",
    "权重 {weights}，激活值峰值 {activations}。峰值出现在：{phase}。进程占用更多。",
  ],
  "limit": ["container {limit}", "容器 {limit}"],
  "limit of workers": ["container ÷ {workers}: {limit}", "容器 ÷ {workers}：{limit}"],
  "bar": ["Stacked bar of bytes: {pieces}.", "字节堆叠条：{pieces}。"],
  "bill": ["The bill of: {setting}", "账单：{setting}"],
  "bill of a pass": [
    "The bill of {pairs} pairs of {length} tokens", "{pairs} 个文本对、每个 {length} 个词元的账单",
  ],
  "what": ["What", "项目"],
  "bytes": ["Bytes", "字节"],
  "total growth": ["Growth of the process, predicted", "进程增长（预测）"],
  "total tensors": ["All tensors", "全部张量"],
  "total process": ["The whole process", "整个进程"],
  "weights of": ["weights: {part}", "权重：{part}"],
  "phase of": ["the largest of: {phase}", "此阶段最大值：{phase}"],
  "libraries anonymous": ["Python and its libraries, anonymous", "Python 及其库，匿名页"],
  "libraries mapped": ["Python and its libraries, file-backed", "Python 及其库，文件页"],
  "short libraries anonymous": ["libraries, anonymous", "库，匿名页"],
  "short libraries mapped": ["libraries, file-backed", "库，文件页"],
  "short library pages": ["libraries, later", "库，之后访问"],
  "library pages": ["Python and its libraries, pages touched later", "Python 及其库，之后才访问的页"],

  "plan": ["The plan", "方案"],
  "plan words": [
    "zsc_utils.plan takes the first of these that fits the budget. The smallest budget that works is {smallest}.",
    "zsc_utils.plan 采用其中第一个符合预算的设置。可用的最小预算是 {smallest}。",
  ],
  "setting": ["Setting", "设置"],
  "chosen": ["chosen: ", "采用："],
  "too much": ["too much: ", "超出预算："],
  "not allowed": ["needs allow_lossy: ", "需要 allow_lossy："],
  "later": ["", ""],
  "words of a setting": [
    "{precision}, {attention}batches of {maxTokens} tokens, chunks of {chunk}",
    "{precision}，{attention}批量 {maxTokens} 个词元，分块 {chunk}",
  ],
  "words of a block": [", layers streamed for {block} tokens", "，逐层流式加载，每次 {block} 个词元"],
  "words of waiting": [" that wait in a file", "，隐藏状态在文件里等待"],
  "words of threads": [", {threads} threads", "，{threads} 个线程"],
  "words of a thread": [", {threads} thread", "，{threads} 个线程"],

  "meanings": ["What these words mean", "这些词的含义"],
  "meaning int8 packed": [
    "int8 products by oneDNN. It keeps each matrix in an order of its own (lesson 02).",
    "由 oneDNN 做 int8 乘法，每个矩阵按它自己的顺序保存（第 02 课）。",
  ],
  "meaning int8 plain": [
    "int8 products of matrices as they are stored. No second copy is made (lesson 02).",
    "直接用存储形式的矩阵做 int8 乘法，不另存副本（第 02 课）。",
  ],
  "meaning int8 widened": [
    "Where no int8 product is fast: a layer's rows become fp32 before they are multiplied (lesson 02).",
    "没有快速的 int8 乘法时：每层的行在相乘之前先转成 fp32（第 02 课）。",
  ],
  "meaning kernels and buffers of products": [
    "Code that oneDNN writes for each shape of a product, and its working memory (lesson 01b).",
    "oneDNN 为每种形状的乘法生成的代码，以及它的工作内存（第 01b 课）。",
  ],
  "meaning tokenizer": [
    "The vocabulary and its tables, in memory.", "内存中的词表及其索引。",
  ],
  "meaning heap": [
    "Memory that is free between activations: the allocator keeps it (lesson 01b).",
    "激活值之间的空闲内存：由内存分配器保留（第 01b 课）。",
  ],
  "meaning hidden states that wait": [
    "Layers are streamed for a block of tokens. The hidden states of the block wait for the next layer (lesson 05).",
    "逐层流式加载时，一个批量组的隐藏状态要等待下一层（第 05 课）。",
  ],
  "meaning a layer as it is stored": [
    "The bytes of a layer as they come from the file, before they are changed for computing (lesson 05).",
    "从文件读入、尚未转换为计算形式的一层（第 05 课）。",
  ],
  "meaning a matrix as it is stored": [
    "The bytes of a matrix as they come from the file, before they are changed for computing (lesson 05).",
    "从文件读入、尚未转换为计算形式的一个矩阵（第 05 课）。",
  ],
  "meaning layers' sessions": [
    "What ONNX Runtime keeps for each layer besides its weights (lesson 08).",
    "ONNX Runtime 除权重外为每层保留的内存（第 08 课）。",
  ],
  "meaning ONNX Runtime": [
    "What ONNX Runtime keeps once, for all layers (lesson 08).", "ONNX Runtime 为所有层共同保留的内存（第 08 课）。",
  ],

  "passing": ["Your texts, and the disk", "你的文本与磁盘"],
  "batches": [
    "Pairs of a text and a label: {pairs}, of {length} tokens each. Batches: {batches}, of {together} pairs at most.",
    "文本对：{pairs} 个，每个 {length} 个词元。批量：{batches} 个，每个最多 {together} 个文本对。",
  ],
  "activations of a batch": [
    "The tensors of such a batch peak at {activations} bytes. The bill counts the worst batch.",
    "这样一个批量的张量峰值为 {activations} 字节。账单按最坏的批量计算。",
  ],
  "reading streamed": [
    "One layer has {bytes} bytes in its file. The disk takes {read} seconds to read it.",
    "一层在文件中有 {bytes} 字节。磁盘读取需要 {read} 秒。",
  ],
  "reading loaded": [
    "Layers stay in memory. One layer has {bytes} bytes in its file; the disk takes {read} seconds to read it, once.",
    "各层留在内存中。一层在文件中有 {bytes} 字节；磁盘读取一次需要 {read} 秒。",
  ],
  "compute hidden": [
    "A block of {block} tokens passes a layer in {compute} seconds, so reading is hidden behind computing.",
    "{block} 个词元的批量组通过一层需要 {compute} 秒，因此读取被计算掩盖。",
  ],
  "compute waits": [
    "A block of {block} tokens passes a layer in {compute} seconds. " +
    "Computing then waits {wait} seconds for each layer.",
    "{block} 个词元的批量组通过一层需要 {compute} 秒，之后每层要再等待 {wait} 秒。",
  ],

  // -------------------------------------------------------------------------------------------------------- notes
  "not counted": ["What is not counted", "没有计入的部分"],
  "note others": [
    "Other processes in the container, files in a temporary folder that lies in memory, and what your own program " +
    "keeps.",
    "容器中的其他进程、位于内存中的临时文件夹里的文件，以及你自己的程序保留的内容。",
  ],
  "note ray": [
    "Ray's own processes, and up to {store} for its object store, if scaling.classify_dataset starts the workers.",
    "若由 scaling.classify_dataset 启动工作进程：Ray 自己的进程，以及最多 {store} 的对象存储。",
  ],
  "note shared": [
    "Weights that are memory-mapped count once for all workers: {shared}.",
    "内存映射的权重在所有工作进程之间只计一次：{shared}。",
  ],
  "note libraries": [
    "Python and its libraries differ between processors and versions. Measure them before you cut a limit close.",
    "Python 及其库的内存因处理器和版本而异。若上限留得很紧，请先测量。",
  ],
  "note linux": [
    "Allowances for the heap, kernels and the tokenizer were measured on Linux with glibc. No GPU is considered.",
    "堆、核函数和分词器的余量是在 Linux 与 glibc 上测得的。不考虑 GPU。",
  ],
  "note halves": [
    "In 16 bits, many processors take an extra workspace for each product. The plan allows for it; the pass of " +
    "transformers is shown without it.",
    "在 16 位精度下，许多处理器的每次乘法需要额外的工作区。方案留有余量；transformers 的前向传播未计入它。",
  ],

  // ---------------------------------------------------------------------------------------- parts, phases, purposes
  "embeddings": ["embeddings", "嵌入"],
  "attention": ["attention", "注意力"],
  "feed-forward": ["feed-forward", "前馈网络"],
  "norm": ["norm", "层归一化"],
  "head": ["head", "输出头"],
  "pooler and head": ["pooler and head", "pooler 和输出头"],
  "activations": ["activations", "激活值"],
  "kernels and buffers of products": ["kernels and buffers of products", "乘法的核函数与缓冲区"],
  "tokenizer": ["tokenizer", "分词器"],
  "heap": ["heap", "堆"],
  "buffers that MKL keeps": ["buffers that MKL keeps", "MKL 保留的缓冲区"],
  "hidden states that wait": ["hidden states that wait", "等待的隐藏状态"],
  "a layer as it is stored": ["a layer as it is stored", "存储形式的一层"],
  "a matrix as it is stored": ["a matrix as it is stored", "存储形式的一个矩阵"],
  "what they are made from": ["what they are made from", "转换前的权重"],
  "layers' sessions": ["layers' sessions", "各层的会话"],
  "ONNX Runtime": ["ONNX Runtime", "ONNX Runtime"],

  // ------------------------------------------------------------------------------------------------------- tensors
  "words": ["words", "词嵌入"],
  "token types": ["token types", "词元类型嵌入"],
  "positions of tokens": ["positions", "位置嵌入"],
  "words + types + positions": ["words + types + positions", "词 + 类型 + 位置"],
  "LayerNorm": ["LayerNorm", "层归一化的输出"],
  "embeddings' output": ["embeddings' output", "嵌入的输出"],
  "mask as booleans": ["mask as booleans", "布尔掩码"],
  "indices": ["indices", "索引"],
  "picked": ["picked", "取出的掩码"],
  "mask": ["mask", "掩码"],
  "mask as numbers": ["mask as numbers", "数值掩码"],
  "layer input": ["layer input", "层的输入"],
  "padding mask": ["padding mask", "填充掩码"],
  "query, key, value": ["query, key, value", "查询、键、值"],
  "attention output": ["attention output", "注意力的输出"],
  "log of sums": ["log of sums", "求和的对数"],
  "kernel scratch (per thread)": ["kernel scratch (per thread)", "核函数的临时内存（每个线程）"],
  "keys and values, copied": ["keys and values, copied", "键和值的副本"],
  "band": ["band", "带状掩码"],
  "band as numbers": ["band as numbers", "数值带状掩码"],
  "block's output": ["block's output", "块的输出"],
  "scores": ["scores", "注意力分数"],
  "scaled scores": ["scaled scores", "缩放后的分数"],
  "scale": ["scale", "缩放系数"],
  "weights": ["weights", "注意力权重"],
  "query and key, copied": ["query and key, copied", "查询和键的副本"],
  "value, copied": ["value, copied", "值的副本"],
  "heads joined": ["heads joined", "拼接的注意力头"],
  "attention weights": ["attention weights", "注意力权重"],
  "dense": ["dense", "全连接层的输出"],
  "residual sum": ["residual sum", "残差之和"],
  "after attention": ["after attention", "注意力之后"],
  "chunks done": ["chunks done", "已完成的分块"],
  "joined": ["joined", "拼接结果"],
  "chunk, copied": ["chunk, copied", "分块的副本"],
  "widened": ["widened", "展宽后"],
  "after GELU": ["after GELU", "GELU 之后"],
  "last hidden state": ["last hidden state", "最后的隐藏状态"],
  "pooled": ["pooled", "pooler 的输出"],
  "tanh": ["tanh", "tanh"],
  "logits": ["logits", "logits"],
};
