"""A CUDA card that is not there, twice: ``Sim`` counts at full size, ``Card`` computes at tiny sizes.

**Sim** (``sim.simulate``) is a dispatch mode over fake tensors. ``cuda:0`` and the weights are fake at
their full published size (``models.py`` takes names and shapes from the manifests), schedules, positions
and pictures are real. The project's own ``load.set_up`` and ``session.generate`` work on it (``jobs.py``), on
one card or as one of several ranks (``ranks.py``). ``python -m benchmarks.simulate`` prints what it counts.

It proves: no operator mixes devices or dtypes; how much memory is live in every phase, and whether a job
fits; FLOPs, traffic and number of kernels, by part and by place (``roofline.py``); which attention kernel
PyTorch takes; what is copied between host and card, pinned or not, on a side stream or not; where the host
waits for the card; what ranks send one another.

**Card** (``card.py``) is a pretend ``cuda:0`` with real numbers in RAM, on which
``tests/runtime/test_gpu.py`` runs.
It proves that everything is where it belongs, that float8 weights leave and come back, that results
are those of the CPU, and that whoever uses what is copied on a side stream waits for it: until then it is
NaN.

**Neither sees** how exact and how fast kernels are, fragmentation of the allocator, workspaces of cuDNN and
cuBLAS, the CUDA context (0.5-0.8 GB), buffers of NCCL, and what ``torch.compile`` makes (it does nothing on
both). That is what ``benchmarks/first_hour.sh`` is for.

How Sim counts, where PyTorch leaves a choice:

* One call of an operator is one kernel. A convolution includes its bias, padding its fill; operators of
  ``torch.ops.videogen`` read their inputs and write their outputs once, and what they change in place is
  both.
* Memory is rounded up to 512 bytes, as the allocator does, and freed when the last reference goes.
* cuDNN's convolutions answer in channels-last order where the picture or the weight is in it; a picture in
  another order is copied first, and the copy is live beside the result.
* Fakes of up to 256 K numbers keep them beside their shape, so decisions are the real ones. Where a larger
  one is asked for a number, a guess is given and noted; where a shape depends on it, that is an error.
* Copies of pageable memory make the host wait, except non-blocking ones to the card of up to 64 KB.

What is replaced in PyTorch, diffusers and the project, and why, stands where it is done: ``guard.cpp`` (a
device guard, which stays loaded; everything else is put back), ``cuda.py``, ``shims.py``, ``attention.py``,
``models.py``, ``jobs.py``, ``ranks.py``, and for Card ``card.py`` and ``card_tensor.py``. ``test_sim.py``
and ``test_card.py`` test the simulators themselves, and that nothing is left behind.
"""
