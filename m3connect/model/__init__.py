"""The M3 encoder in torch, and the files it is kept in.

the model      config.py     what a checkpoint is: body, heads, how text is prepared
               m3.py         body and three heads together: start here
               backbone.py   the BERT encoder       heads.py    from hidden states to representations
               ragged.py     the model over texts without padding, for inference
               scores.py     the three scores, for losses and for evaluation on a GPU
its text       tokenize.py   text to token ids      folding.py  case folding of term ids
               pieces.py     a large vocabulary mapped from the disk, so that a query is tokenised at once
               long_texts.py longer than the model reads: cut, in windows, with a CLS every 256 tokens
its files      hub.py        a name to a folder     inventory.py    those on this machine
               checkpoint.py                        opening a folder (without torch)
               weights.py    tensors into torch     published.py    the files of BAAI/bge-m3
               tensors.py    names and shapes       packed.py       4-bit blocks
               saving.py     writing tensors        merging.py      the weighted mean of checkpoints
               mapped.py     arrays that are mapped instead of read
               folder_cache.py  what is made of them once, in the user's cache folder
               int8.py       matrices in 8 bits     smoothing.py   what evens out their inputs
for others     export.py     in the layouts that others read
               onnx_graph.py                 for ONNX Runtime
               sentence_transformers_layout.py
"""
