# %% title [markdown]
# # Lesson 2: Tracing one call
#
# A model says `self.attn(q, k, v)`, and somewhere a kernel finds the right blocks of the right request. Nothing in that
# line says how. This lesson follows the call, in two code bases: a small one of ours that runs here, and the
# real one, vLLM 0.22.1, which you read.
#
# It answers four questions of the course:
#
# 4. In `Attention.forward`, what does the model pass, and what does it not know about the kernel?
# 5. What are the three base classes of a backend, and what is the job of each?
# 6. Where is the cache written, where is it read, and how do slot mapping and block table get there?
# 7. What does the selector look at, and how does a user have a say?
#
# **After it you can**
# - find your way through a code base that you have never seen: predict, run, then read;
# - name the files and functions between a model's layer and the kernel, and say what each is for;
# - tell where the metadata of lesson 1 comes from at the moment a kernel needs it;
# - force a backend, and notice when a text about vLLM is older than vLLM.
#
# | part | what you do | time | difficulty |
# | --- | --- | --- | --- |
# | 0 | set up, and how to trace | 7 min | |
# | 1 | question 4: what the model does not know | 25 min | ●●○ |
# | 2 | question 5: three classes | 23 min | ●●○ |
# | 3 | question 6: the write and the read | 32 min | ●●● |
# | 4 | question 7: the selector, and the user's word | 25 min | ●●○ |
# | 5 | self-grading, what to remember | 8 min | ●●○ |

# %% how-to-trace [markdown]
# ## Part 0: How to trace
#
# A large code base is not read from the top. It is asked questions, and each question has three steps:
#
# 1. **Predict.** Who should do this? What would it have to be told? Write it down.
# 2. **Run.** Watch one call in something small enough to watch whole. The tracer of this course prints every
#    function that was called, with file and line.
# 3. **Read.** Go to the large code base, look for the same roles, and look most carefully where they differ.
#
# The small thing is `kernels.backends`: vLLM's division of labour with vLLM's names, in a few hundred
# lines. The large thing is vLLM 0.22.1 itself: the cell below brings the released package once (a download of 261 MB, of
# which 6 MB of Python files are kept; nothing is installed). Without a network the lesson works too: it knows where every
# definition stands, what it takes and whom it calls, and shows you that in place of the text.
#
# Places in vLLM are written `file:line`, with the path cut short where it is clear. `show(...)` shows a passage. `vllm_index`
# answers questions: `where("Attention.forward")` says where a name stands, `describe("FILE:LINE")` what stands in a line,
# `members("AttentionType")` what a class defines, `callees(...)` whom a function calls.
#
# Cells that need your answer stop with `NotImplementedError` until you have given one. That is expected. No GPU is
# needed.

# %% setup nbgrader={"locked": true}
import inspect

import torch

import autograder
import kernels  # before anything that loads triton: without a GPU, this turns its interpreter on
from course import candidates, one_step, widgets
from course.deployments import walk
from course.trace import trace
from course.vllm import index as vllm_index
from course.vllm import rules as vllm_rules
from course.vllm import source as vllm_source
from course.vllm.show import show
from kernels import backends

print("torch", torch.__version__)
print("Triton kernels run on:", kernels.describe())
missing = show("models/llama.py", "LlamaAttention").missing  # the first look brings vLLM's source
if missing:
    print(f"vLLM's own source is not here, and the lesson goes on without it. {missing}")
else:
    print("vLLM's own source:", vllm_source.cache_folder())

# %% q4-read [markdown]
# ## Part 1: Question 4. What the model does not know
#
# *25 minutes, ●●○, 3 points for the answers, 3 for the explanation.*
#
# vLLM runs hundreds of models, and a dozen backends on NVIDIA GPUs alone. Nobody writes every model for every
# backend, so between them lies one narrow call. In Llama's attention it is this line:
# `vllm/model_executor/models/llama.py:231` (`attn_output = self.attn(q, k, v)`).
#
# The whole method is five lines: project, split, rotate by position, attend, project.

# %% q4-show-llama
show("models/llama.py", "LlamaAttention.forward", mark=["self.attn(q, k, v)"])

# %% q4-think [markdown]
# Recall lesson 1. To attend over a paged cache a kernel needs a block table, a slot mapping, sequence lengths and the
# places where each request's queries begin. None of them is in this line.

# %% predict-metadata
# Predict: how do they get from here to the kernel? One sentence.
prediction_metadata = None  # for example "as attributes of q"

# %% q4-ours-read [markdown]
# ### Run: one step of a small model
#
# `course.one_step` has a model's attention like Llama's (without rotation), on top of our own layer, and a function that
# does what vLLM's model runner does around a model. One step: a request that decodes its 19th token, and one that brings
# a prompt of 5. Read the model first.

# %% q4-ours-model
print(inspect.getsource(one_step.SmallAttention))

# %% q4-ours-runner-read [markdown]
# Now the other side. `run_step` knows requests and blocks, and nothing of projections. Look for the line in which the
# model is called, and for what is put where just before it.

# %% q4-ours-runner
print(inspect.getsource(one_step.run_step))

# %% q4-trace
model = one_step.SmallAttention(backend="PAGED_TORCH")
step = trace(one_step.run_step, model, packages=("course.one_step", "kernels.backends"))
step

# %% q4-trace-read [markdown]
# Read it from the outside in. `run_step` asks the backend for the cache's shape and for a builder, has the builder
# make the metadata, puts it into the **forward context** (`set_forward_context`), and only then calls the model. The model
# calls `Attention.forward` with three tensors. Two levels further down, `get_attention_context` takes the metadata out of
# the context again, by the layer's name.
#
# So the metadata goes around the model. Take the context away, and the layer says what it misses:

# %% q4-outside
tokens = torch.randn(2, model.qkv_proj.in_features, device=kernels.device())
print("You predicted:", prediction_metadata)
try:
    model(tokens)
except RuntimeError as error:
    print("outside of a step:", error)

# %% predict-swap
# Predict: the same model over Triton kernels in place of torch. Which lines of SmallAttention change?
prediction_swap = None

# %% q4-swap
other = one_step.SmallAttention(backend="TRITON_ATTN")
swapped = trace(one_step.run_step, other, packages=("course.one_step", "kernels.backends"))


def of_the_layer(traced):
    """The edges that begin in the model or in the layer's file."""
    return {
        edge
        for edge in traced.edges()
        if edge[0].startswith(("course.one_step:Small", "kernels.backends.layer:"))
    }


print("You predicted:", prediction_swap)
print(f"largest difference of the outputs: {(step.result - swapped.result).abs().max().item():.1e}")
for caller, callee in sorted(of_the_layer(step) ^ of_the_layer(swapped)):
    which = "PAGED_TORCH" if (caller, callee) in step.edges() else "TRITON_ATTN"
    print(f"only with {which}: {caller.partition(':')[2]} -> {callee}")

# %% q4-swap-remark [markdown]
# Two edges differ, and both begin in the layer's file, at `layer.impl`. Nothing in the model changed: it cannot even tell.
#
# ### Read: the same in vLLM
#
# The layer's constructor and its forward. Compare the parameters of the two. What is said once, and what with every call?

# %% q4-show-init
show("layers/attention/attention.py", "Attention.__init__", last=211)

# %% q4-show-forward
show("layers/attention/attention.py", "Attention.forward", mark=[439, 440, 441, "get_forward_context"])

# %% q4-show-context
show("layers/attention/attention.py", "get_attention_context")

# %% q4-where [markdown]
# And who fills the context? The model runner, once a step:
# `vllm/v1/worker/gpu_model_runner.py:2380` (`builder.build`) makes the metadata for each group of layers, and
# `vllm/v1/worker/gpu_model_runner.py:4214` (`set_forward_context`) puts it, and the slot mapping beside it, where the layers
# find it while the model runs.
#
# Note what the context holds: `vllm/forward_context.py:132` (`attn_metadata`) and, as a field of its own,
# `vllm/forward_context.py:133` (`slot_mapping`). You will need that in question 6.
#
# ### Exercise
#
# Here are sixteen things that have to do with attention. Some the model hands over with every call of the layer
# (`q4_passed`). Some it never learns (`q4_unknown`): they are neither in its own code nor in anything that it is given.
# Some are neither: the model knows them, but says them once, or keeps them to itself.
#
# The third answer is a place in **vLLM's** source, as `"module:qualname"`, for example
# `"vllm.v1.attention.selector:get_attn_backend"`: where does a layer get this step's metadata from?

# %% q4-candidates
candidates.model()

# %% q4-forward-code nbgrader={"solution": true}
q4_passed = set()  # for example {"kernel", "scale"}
q4_unknown = set()
q4_metadata_source = ""  # "module:qualname"
### BEGIN SOLUTION
# Attention.forward(self, query, key, value, output_shape=None)
q4_passed = {"query", "key", "value"}
# Whatever depends on the batch, and whatever depends on the backend.
q4_unknown = {"block_table", "slot_mapping", "seq_lens", "query_start_loc"} | {
    "kv_cache",
    "cache_layout",
    "kernel",
}
# get_attention_context asks it; the runner has filled it.
q4_metadata_source = "vllm.forward_context:get_forward_context"
### END SOLUTION

# %% q4-forward nbgrader={"grade": true, "points": 3}
autograder.check("q4_forward", (q4_passed, q4_unknown, q4_metadata_source))
### BEGIN HIDDEN TESTS
autograder.check("q4_forward", (q4_passed, q4_unknown, q4_metadata_source), suite="hidden")
### END HIDDEN TESTS

# %% q4-hints [markdown]
# <details><summary>Hint: where do I start?</summary>
#
# With the two parameter lists above. Whatever is in the constructor's list, the model has said before the first request came.
#
# </details>
#
# <details><summary>Hint: the model surely knows how long its sequences are?</summary>
#
# It knows the <b>position</b> of each token, for the rotation. Look at <code>LlamaAttention.forward</code> again: is there
# anything in it that says where one request ends and the next begins?
#
# </details>
#
# <details><summary>Hint: the cache is an attribute of the layer, so is it known?</summary>
#
# Of the layer, yes: <code>self.kv_cache</code>. The question is about the model. Does any line of Llama's attention mention
# it?
#
# </details>
#
# More: `autograder.hint("q4_forward")`.

# %% q4-explain-read [markdown]
# **In your own words** (3 points, graded by hand; five sentences are enough). What does the model pass to
# `Attention.forward`, and what does it not know? How does the rest reach the kernel? And what would become harder if the
# model passed the metadata along itself?

# %% q4-explain [markdown] nbgrader={"grade": true, "solution": true, "points": 3}
# ### BEGIN SOLUTION
# **Model answer.** The model passes the query, key and value of this step's tokens, all requests behind one another, and
# nothing else; heads, scale and window it said once, when it built the layer. It knows neither the blocks, slots and lengths of the
# batch nor the kernel, the cache and its layout. These go around the model: before each step the runner has the
# builder make the metadata and puts it into the forward context, and the layer's operators take it out by the layer's
# name. If models passed it themselves, every one of some hundred models would have to know about paging, and would
# have to change whenever a backend needs one more tensor; torch.compile would see metadata in the
# model's graph, where now it sees one opaque call.
#
# **Rubric, 1 point each**
# - *Passed and not*: query, key, value of this step; at least one thing of the batch (block table, slots, lengths) **and** one of the
#   backend (kernel, layout, cache) named as unknown.
# - *The way around*: forward context named, filled by the runner before the model runs, read by the layer (or its
#   operators). Half a point if who fills it is missing.
# - *What would be harder*: models and backends could no longer change independently, in whatever words; compilation counts too.
# ### END SOLUTION

# %% q5-read [markdown]
# ## Part 2: Question 5. Three classes
#
# *23 minutes, ●●○, 6 points for the answers, 3 for the explanation.*
#
# Below the layer begins the backend. It is not one object, because three different moments need three different things:
#
# | moment | what is needed | who |
# | --- | --- | --- |
# | before there is a layer | names, shapes, yes or no: does this fit? | the **backend** |
# | once a step, before the model runs | this batch, in the form the kernels want | the **metadata builder** |
# | in every layer of every step | the computation itself | the **impl** |
#
# The backend is never made: it is a class that answers questions, and two of its answers are the other two classes.

# %% predict-calls
# Predict: a model of 32 layers, one step, nothing out of the ordinary. How often is each called?
prediction_builds = None  # AttentionMetadataBuilder.build
prediction_forwards = None  # AttentionImpl.forward
prediction_validations = None  # AttentionBackend.validate_configuration

# %% q5-ours
print(inspect.getsource(backends.AttentionBackend.get_impl_cls))
for name in ("AttentionBackend", "AttentionMetadataBuilder", "AttentionImpl"):
    cls = getattr(backends, name)
    own = [member for member in vars(cls) if inspect.isroutine(inspect.getattr_static(cls, member))]
    print(f"{name}:\n    " + ", ".join(member for member in own if not member.startswith("_")))

# %% q5-roles-read [markdown]
# You saw all three at work in the trace above. Here are their calls once more, with what they were given. Whose method
# was called first?

# %% q5-calls
for call in step.calls():
    if any(word in call.qualname for word in ("Backend.", "Builder.", "Impl.")):
        given = ", ".join(
            f"{name}: {value}" for name, value in call.arguments.items() if name not in ("self", "cls")
        )
        print(f"{call.qualname}({given})")

# %% q5-counts [markdown]
# <details><summary>After your prediction: how often?</summary>
#
# One <code>build</code>, 32 <code>forward</code>s, no <code>validate_configuration</code>. The layers of a group share
# one metadata object: the runner builds it and enters it under each layer's name
# (`vllm/v1/worker/gpu_model_runner.py:2395` (`for layer_name in attn_group.layer_names`)). Validation was over before the first
# request: it happens when the layer is made. (A model with two kinds of layers has two groups, and two builds. Our
# <code>run_step</code> makes a builder for each layer, because it has only one.)
#
# That is why the builder is worth having: what it computes, 32 layers do not compute again. The first calls were the
# backend's, on the class: no object of it was ever made.
#
# </details>

# %% q5-show-read [markdown]
# ### Read: the same in vLLM
#
# All three base classes are in one file, `vllm/v1/attention/backend.py`, and so is what a builder starts from: the batch, the
# same for every backend. You know its tensors from lesson 1.

# %% q5-show-common
show("attention/backend.py", "CommonAttentionMetadata", last=381, mark=["block_table_tensor", "slot_mapping"])

# %% q5-show-empty-read [markdown]
# And this is all that the metadata of two backends have in common. Each builder makes a class of its own, and only
# the impl of the same backend ever looks into it:

# %% q5-show-empty
show("attention/backend.py", "AttentionMetadata")

# %% q5-show-flash-read [markdown]
# How a backend names the other two:

# %% q5-show-flash
names_the_others = ["return FlashAttentionImpl", "return FlashAttentionMetadataBuilder"]
show("backends/flash_attn.py", "FlashAttentionBackend", first=104, last=137, mark=names_the_others)

# %% q5-exercise [markdown]
# ### Exercise
#
# Sixteen methods and functions. Which are the job of `AttentionBackend`, which of `AttentionImpl`, which of
# `AttentionMetadataBuilder`? Some belong to none of the three. A method counts as a class's job if the class declares it,
# inherits it, or if the backends' own versions of that class bring it along.
#
# Then, for each class, where it begins: `"file:line"`, the path as short as you like. Page through the file with
# `show("attention/backend.py", first=1, last=80)` and so on, or ask for a class by name.

# %% q5-candidates
candidates.methods()

# %% q5-classes-code nbgrader={"solution": true}
q5_roles = {
    "AttentionBackend": set(),  # for example {"build", "forward"}
    "AttentionImpl": set(),
    "AttentionMetadataBuilder": set(),
}
q5_lines = {
    "AttentionBackend": "",  # "file:line"
    "AttentionImpl": "",
    "AttentionMetadataBuilder": "",
}
### BEGIN SOLUTION
q5_roles = {
    # Names, shapes, and what speaks against it. All of it is asked of the class.
    "AttentionBackend": {"get_name", "get_impl_cls", "get_builder_cls", "get_kv_cache_shape"}
    | {"supports_head_size", "validate_configuration"},
    # do_kv_cache_update is not declared in AttentionImpl, but every impl whose forward does not write has it.
    "AttentionImpl": {"forward", "do_kv_cache_update", "process_weights_after_loading"},
    # Graphs too: whether one can be replayed depends on whether the metadata's tensors stay where they are.
    "AttentionMetadataBuilder": {
        "build",
        "build_for_cudagraph_capture",
        "get_cudagraph_support",
        "update_block_table",
    },
}
file = "vllm/v1/attention/backend.py"
q5_lines = {
    "AttentionBackend": f"{file}:55",
    "AttentionImpl": f"{file}:763",
    "AttentionMetadataBuilder": f"{file}:516",
}
### END SOLUTION

# %% q5-classes nbgrader={"grade": true, "points": 6}
autograder.check("q5_classes", (q5_roles, q5_lines))
### BEGIN HIDDEN TESTS
autograder.check("q5_classes", (q5_roles, q5_lines), suite="hidden")
### END HIDDEN TESTS

# %% q5-hints [markdown]
# <details><summary>Hint: I am not sure about a method</summary>
#
# Ask <code>vllm_index.find("update_block_table")</code>: it lists every definition of that name. The class before the dot is
# one of the three, or derives from one: <code>vllm_index.where("FlashAttentionImpl").bases</code>.
#
# </details>
#
# <details><summary>Hint: who knows about CUDA graphs?</summary>
#
# A CUDA graph replays the very same kernels on the very same addresses. Which of the three owns the tensors that differ
# from step to step?
#
# </details>
#
# <details><summary>Hint: there are two classes called ...Impl... in that file</summary>
#
# Four, even. One is the common root of the others and has no <code>forward</code>; two are for latent attention.
#
# </details>
#
# More: `autograder.hint("q5_classes")`.

# %% q5-explain-read [markdown]
# **In your own words** (3 points, graded by hand). Name the three base classes and say in one sentence each what it is
# for and when it is called. Why is the metadata built by a class of its own and not by the impl?

# %% q5-explain [markdown] nbgrader={"grade": true, "solution": true, "points": 3}
# ### BEGIN SOLUTION
# **Model answer.** `AttentionBackend` describes: its name, the shape of its cache, which configurations it supports, and the two
# other classes; it is asked as a class, while the model is built. `AttentionMetadataBuilder` turns
# the batch that is the same for all (`CommonAttentionMetadata`) into what this backend's kernels want, once a step, before
# the model runs. `AttentionImpl` is one layer's computation: it gets query, key, value, cache and metadata and calls the
# kernels. Building is a class of its own because it is done once for all layers of a group, not in each; because it may
# do work on the CPU that must be over before the layers run (plans, schedules); and because a CUDA graph needs metadata that
# stays in place while the impl is replayed.
#
# **Rubric, 1 point each**
# - *Backend and impl*: describes or validates, as a class, before; computes, per layer, in every step.
# - *Builder*: batch to backend's own metadata, once a step.
# - *Why apart*: shared by layers (not repeated), or CPU work and CUDA graphs. One good reason is enough.
# ### END SOLUTION

# %% q6-read [markdown]
# ## Part 3: Question 6. The write and the read
#
# *32 minutes, ●●●, 4 points for the answers, 4 for the explanation.*
#
# Here is the question as it goes around:
#
# > In `FlashAttentionImpl.forward` (`flash_attn.py`, line 592), find the KV write (slot_mapping) and the paged read (block
# > table).
#
# Take it at its word. What stands in line 592, and what is in `forward`?

# %% q6-at-its-word
file = "backends/flash_attn.py"
print(vllm_index.describe(f"{file}:592"))
forward = vllm_index.where("FlashAttentionImpl.forward")
print(
    f"{forward.qualname} is in lines {forward.first} to {forward.last} and takes {', '.join(forward.parameters[1:])}"
)
print("it calls " + ", ".join(name.partition(":")[2] for name in forward.calls))

# %% predict-write
# Predict: which of these functions writes this step's keys into the cache?
prediction_write = None

# %% q6-who-gets-slots
print("You predicted:", prediction_write)
for name in forward.calls:
    for symbol in vllm_index.find(name):
        gets = [address for address in ("slot_mapping", "block_table") if address in symbol.parameters]
        print(f"{symbol.qualname} gets {' and '.join(gets) or 'neither'}")

# %% q6-out-of-date [markdown]
# None of them: to write, a function must be told the slots. At 0.22.1 line 592 is the class, `forward` begins at
# `backends/flash_attn.py:667` (`FlashAttentionImpl.forward`), and there is no slot mapping in it from its first line to its
# last. The block table is there: `backends/flash_attn.py:763` (`block_table = attn_metadata.block_table`).
#
# The question describes an impl whose `forward` writes first and then reads. The base class still allows for that, as you will
# see, but FlashAttention's has moved on, and the text has not. That happens to every text about a code base, this one included, and it is the reason for the
# `file:line` that you find all over this course: a test holds each of them against the release, and fails when one goes stale.
#
# So: where is the write?

# %% q6-ours-read [markdown]
# ### Run: in our layer
#
# Our layer has the same division. This time the functions that touch the cache are traced too.

# %% q6-trace
step = trace(
    one_step.run_step,
    one_step.SmallAttention(backend="PAGED_TORCH"),
    packages=("course.one_step", "kernels.backends", "kernels.reference"),
)
for goal in ("reshape_and_cache", "paged_attention"):
    print(f"to {goal}:")
    for name in step.path(goal):
        (call, *_) = step.find(name)
        print(f"    {call.file}:{call.line}  {call.qualname}")

# %% q6-trace-remark [markdown]
# Two paths that part in the layer's forward and meet nowhere again: one goes through `unified_kv_cache_update` to the write,
# the other through `unified_attention_with_output` to the read. Which runs first is decided by the order of two lines.
#
# What does each of them carry? Look at the arguments of the two impl methods.

# %% q6-arguments-ours
for name in ("PagedTorchImpl.do_kv_cache_update", "PagedTorchImpl.forward"):
    (call,) = step.find(name)
    print(f"{call.qualname}:")
    for argument, value in call.arguments.items():
        print(f"    {argument}: {value}")

# %% predict-forgotten
# Predict: somebody forgets to hand the slot mapping to the forward context. What happens in this step?
prediction_forgotten = None  # "an error", "the same output", "another output"

# %% q6-forgotten
right = one_step.run_step(model)
wrong = one_step.run_step(model, with_slots=False)
print("You predicted:", prediction_forgotten)
for request, tokens_of in (("the decode", slice(0, 1)), ("the prompt", slice(1, None))):
    difference = (right[tokens_of] - wrong[tokens_of]).abs().max().item()
    print(
        f"{request}: outputs of size {right[tokens_of].abs().max().item():.2f} differ by up to {difference:.2f}"
    )

# %% q6-forgotten-remark [markdown]
# No error. The write does not happen, the read finds what was in those slots before (here zeros; on a busy server another request's
# tokens), and the model goes on. vLLM does the same: `layers/attention/attention.py:702` (`if layer_slot_mapping is not None`).
#
# ### Read: the same in vLLM
#
# The second half of the layer's forward. The `if` and the `else` do the same: on CUDA the two functions are called as torch
# operators (`torch.ops.vllm...`), so that `torch.compile` sees two opaque calls and no more.

# %% q6-show-forward
the_two = ["unified_kv_cache_update", "unified_attention_with_output"]
show("layers/attention/attention.py", "Attention.forward", first=489, mark=[493, 513, *the_two])

# %% q6-show-write-operator
show("layers/attention/attention.py", "unified_kv_cache_update", mark=["do_kv_cache_update"])

# %% q6-show-read-operator
show("layers/attention/attention.py", "unified_attention_with_output", mark=["self.impl.forward"])

# %% q6-flag [markdown]
# The flag in lines 493 and 513 decides whether there is a write here at all. It is the backend's:
# `vllm/v1/attention/backend.py:66` (`forward_includes_kv_cache_update: bool = True`) is the default, and
# `backends/flash_attn.py:96` (`forward_includes_kv_cache_update: bool = False`) says otherwise, as do
# `backends/triton_attn.py:298` (`forward_includes_kv_cache_update: bool = False`) and
# `backends/flashinfer.py:436` (`forward_includes_kv_cache_update: bool = False`).
#
# Why was the write taken out of forward? An operator of its own can be fused with what comes before it: the rotation and the
# write in one kernel, for one (`vllm/v1/attention/backend.py:823` (`AttentionImpl.do_rope_and_kv_cache_update`)). It has a price:
# nothing in the arguments of the second operator would say that the first must come before it. So the first returns an empty
# tensor that the second takes and throws away, `layers/attention/attention.py:747` (`del kv_cache_dummy_dep`): for a
# compiler, a data dependency.

# %% q6-show-update
show("backends/flash_attn.py", "FlashAttentionImpl.do_kv_cache_update", mark=["slot_mapping: torch", 879])

# %% q6-show-read
both = ["block_table = attn_metadata.block_table", "block_table=block_table"]
show("backends/flash_attn.py", "FlashAttentionImpl.forward", first=758, last=819, mark=both)

# %% q6-exercise [markdown]
# ### Exercise
#
# For **vLLM 0.22.1 with FLASH_ATTN**, two call paths: from `Attention.forward` to the function that writes the cache, and to
# the function that reads it. Each step is called by the one before it. Write names as `"module:qualname"`; a path for the
# module, or less of it, will do.
#
# Then, for each of the two addresses: in which **parameter** of `FlashAttentionImpl`'s method does it arrive?
#
# `vllm_index.callees("unified_kv_cache_update")` lists what a function calls. Where the text does not say of which class an
# object is (`attn_layer.impl`), it names the base class: which class it is with FLASH_ATTN is for you to say.

# %% q6-paths-code nbgrader={"solution": true}
q6_write = []  # for example ["attention.py:Attention.forward", ...]
q6_read = []
q6_arguments = {"slot_mapping": "", "block_table": ""}
### BEGIN SOLUTION
layer = "vllm.model_executor.layers.attention.attention"
flash = "vllm.v1.attention.backends.flash_attn"
q6_write = [
    f"{layer}:Attention.forward",
    # Only because forward_includes_kv_cache_update is False.
    f"{layer}:unified_kv_cache_update",
    f"{flash}:FlashAttentionImpl.do_kv_cache_update",
    "vllm._custom_ops:reshape_and_cache_flash",
]
q6_read = [
    f"{layer}:Attention.forward",
    f"{layer}:unified_attention_with_output",
    f"{flash}:FlashAttentionImpl.forward",
    "vllm.vllm_flash_attn.flash_attn_interface:flash_attn_varlen_func",
]
# The slots are an argument of their own; the block table arrives inside of the metadata.
q6_arguments = {"slot_mapping": "slot_mapping", "block_table": "attn_metadata"}
### END SOLUTION

# %% q6-paths nbgrader={"grade": true, "points": 4}
autograder.check("q6_paths", (q6_write, q6_read, q6_arguments))
### BEGIN HIDDEN TESTS
autograder.check("q6_paths", (q6_write, q6_read, q6_arguments), suite="hidden")
### END HIDDEN TESTS

# %% q6-hints [markdown]
# <details><summary>Hint: how many steps?</summary>
#
# Four functions each: layer, operator, impl, and the function that touches the cache. The traced path of our own layer has
# the same four.
#
# </details>
#
# <details><summary>Hint: the write is not where I look</summary>
#
# Do not begin at the impl; begin at the layer. In lines 490 to 528 it calls two things. Only one of them gets a query.
#
# </details>
#
# <details><summary>Hint: where does the last function stand?</summary>
#
# Where <code>FlashAttentionImpl</code>'s file imports it from, and where that file imports it from. Any of these modules will do;
# <code>vllm_index.callees("FlashAttentionImpl.do_kv_cache_update")</code> follows the imports to the end.
#
# </details>
#
# <details><summary>Hint: there is a slot_mapping in the metadata as well</summary>
#
# There is: a field of <code>FlashAttentionMetadata</code>. Who reads it? Look at what
# <code>unified_kv_cache_update</code> hands to the impl, and at what <code>get_attention_context</code> returns.
#
# </details>
#
# More: `autograder.hint("q6_paths")`.

# %% q6-explain-read [markdown]
# **In your own words** (4 points, graded by hand). The question as it goes around asks you to find both, write and read, in
# `FlashAttentionImpl.forward`. Answer it for 0.22.1: where is each, how do slot mapping and block table get there,
# and which line of the backend's class makes the difference? Map both to lesson 1: what do you do with
# `block_table`, what with `slot_mapping`? And say how you would have found out that the question is out of date without this
# lesson.

# %% q6-explain [markdown] nbgrader={"grade": true, "solution": true, "points": 4}
# ### BEGIN SOLUTION
# **Model answer.** Line 592 is the class; its `forward` begins at 667 and only reads: it takes the block table out of
# `attn_metadata` and hands it to `flash_attn_varlen_func`. The write is `do_kv_cache_update` (850), which gets the slot mapping as
# an argument and calls `reshape_and_cache_flash`. The layer has it called by an operator of its own,
# `unified_kv_cache_update`, before `unified_attention_with_output`, because `forward_includes_kv_cache_update` is `False`
# (line 96). Both addresses come out of the forward context by the layer's name: the metadata with the block table, and
# `slot_mapping`, a field of its own. As in lesson 1, `slot_mapping` says for each new token where to write, and
# `block_table` for each request where to read. That the question is out of date shows as soon as one opens the file at the
# line that it names, or searches `forward` for `slot_mapping`: read at the tag that one runs, not at the one that the text was written for.
#
# **Rubric, 1 point each**
# - *The write*: `do_kv_cache_update`, through `unified_kv_cache_update`, not in `forward`; the flag named.
# - *The read*: in `forward`, block table out of `attn_metadata`.
# - *How they get there, and lesson 1*: forward context; write by slot, read by block table.
# - *How to notice*: looked at the named line or searched the method, at the right release; or ran a trace. "The text says
#   so" earns nothing.
# ### END SOLUTION

# %% q7-read [markdown]
# ## Part 4: Question 7. The selector, and the user's word
#
# *25 minutes, ●●○, 12 points for the answers, 4 for the explanation.*
#
# In lesson 1 you predicted the default: an ordered list and vetoes. Now you see it run, in our code and in vLLM's, and
# find out how a user has a say. First ours: the CPU, or the GPU of this machine, with a head size of 96.

# %% q7-trace
selection = trace(
    backends.get_attn_backend,
    head_size=96,
    dtype=torch.float32,
    packages=("kernels.backends.selector", "kernels.backends.backend"),
)
print("taken:", selection.result.get_name())
for call in selection.find("validate_configuration"):
    print(f"{call.arguments['cls']} answers {call.returned}")

# %% q7-ours-reasons [markdown]
# Every candidate is asked, and answers with its reasons against itself; the first in the order of preference that has none is
# taken. A user can also name one. Then only that one is asked, and its reasons are final:

# %% q7-ours-forced
for wanted in ("PAGED_TORCH", "paged_torch", "TRITON_MLA"):
    try:
        print(f"{wanted}: {backends.get_attn_backend(96, torch.float32, backend=wanted).get_name()}")
    except ValueError as error:
        print(f"{wanted}: {error}")

# %% predict-environment
# Predict: an H100, vLLM 0.22.1, Llama in bfloat16. Somebody sets VLLM_ATTENTION_BACKEND=TRITON_ATTN and starts the server.
prediction_environment = None  # the backend's name

# %% q7-vllm-read [markdown]
# ### Read: the same in vLLM
#
# What the selector is told, and nothing else:

# %% q7-show-config
show("v1/attention/selector.py", "AttentionSelectorConfig", last=33)

# %% q7-show-selector
show("v1/attention/selector.py", "get_attn_backend", mark=[78, 99])

# %% q7-show-cuda
show("platforms/cuda.py", "CudaPlatformBase.get_attn_backend_cls", last=345, mark=[303, 313, 323, 341])

# %% q7-window [markdown]
# There is no sliding window among the fields, and nothing about the traffic. (A question that goes around asks for "three inputs
# that `get_attn_backend` uses", and lists that accompany it sometimes name the window.) The window does reach the impl, later: the layer hands it to the
# constructor, `layers/attention/attention.py:379` (`sliding_window`).
#
# Line 99 of the selector is where the user's word comes in: `vllm/v1/attention/selector.py:99`
# (`backend=vllm_config.attention_config.backend`). It is the field
# `vllm/config/attention.py:17` (`AttentionConfig.backend`). Three ways lead there:
#
# - on the command line `vllm/engine/arg_utils.py:900` (`"--attention-backend"`);
# - in Python the argument of the same name, `vllm/engine/arg_utils.py:668` (`EngineArgs.attention_backend`), so
#   `LLM(model, attention_backend="TRITON_ATTN")`;
# - the whole configuration, `vllm/engine/arg_utils.py:1479` (`"--attention-config"`), of which it is one field. Both at once
#   is an error: `vllm/engine/arg_utils.py:2097` (`are mutually exclusive`).
#
# A name is written in capitals for you, and "auto" is no name: `vllm/config/attention.py:93`
# (`AttentionConfig.validate_backend_before`).

# %% q7-environment
plain = vllm_rules.Deployment(capability=(9, 0), dtype="bfloat16", head_size=128)
print("You predicted:", prediction_environment)
print("vLLM picks:   ", vllm_rules.select(plain))
walk(plain)

# %% q7-environment-remark [markdown]
# The environment variable `VLLM_ATTENTION_BACKEND` is gone. It is in no file of the release; older releases read it, and so do
# many texts, scripts and Dockerfiles. What happens to those who still set it? Every variable that vLLM knows stands in
# `vllm/envs.py`. For one that begins with `VLLM_` and does not stand there it logs `vllm/envs.py:2057`
# (`Unknown vLLM environment variable detected`), one warning among the hundreds of lines of a starting server. Then it
# picks its default. Only with `vllm/engine/arg_utils.py:714` (`fail_on_environ_validation`) does it refuse to start.
#
# Whoever compares two backends this way measures one backend twice. What the server really took, it logs:
# `vllm/platforms/cuda.py:318` (`Using %s backend.`) when it was named, `vllm/platforms/cuda.py:379`
# (`Using %s attention backend out of potential backends`) when it was found. Trust that line and nothing else.
#
# ### Exercise
#
# Three answers. `q7_inputs`: which of these thirteen are fields of `AttentionSelectorConfig`?

# %% q7-candidates
candidates.inputs()

# %% q7-override-read [markdown]
# `q7_override`: what does a user of 0.22.1 write to force a backend? A flag, an argument, or a whole command will do.

# %% q7-inputs-code nbgrader={"solution": true}
q7_inputs = set()  # for example {"num_layers", "seq_lens"}
q7_override = ""
### BEGIN SOLUTION
# The fields of AttentionSelectorConfig. Nothing of the traffic, and no window.
q7_inputs = {"attn_type", "block_size", "dtype", "has_sink", "head_size", "kv_cache_dtype", "use_mla"}
q7_override = "--attention-backend TRITON_ATTN"
### END SOLUTION

# %% q7-configurations-read [markdown]
# And `q7_predict`: write the selector. It gets one configuration, a dict, and returns the name of the backend that vLLM 0.22.1
# arrives at, or `"none"` where it stops instead. Here are ten; `q7_predict` must be right about each, and about others in
# grading.

# %% q7-configurations
candidates.configurations()

# %% q7-tools [markdown]
# What you need is there: `candidates.deployment_of(configuration)` makes a deployment of the fields that the selector
# takes; `vllm_rules.priorities(deployment)` is the list in vLLM's order; `vllm_rules.refusals(backend, deployment)` are one
# backend's reasons against a deployment, an empty list where it has none.

# %% q7-tools-shown
example = candidates.CONFIGURATIONS["turing-flag"]
deployment = candidates.deployment_of(example)
print("attention_backend:", example["attention_backend"])
print("environment:", example["environment"])
print("order:", vllm_rules.priorities(deployment))
print("FLASHINFER refuses:", vllm_rules.refusals("FLASHINFER", deployment))


# %% q7-predict-code nbgrader={"solution": true}
def q7_predict(configuration):
    """The backend that vLLM 0.22.1 arrives at for this configuration, or "none" where it stops."""
    deployment = candidates.deployment_of(configuration)
    ### BEGIN SOLUTION
    named = configuration["attention_backend"]
    if named is not None and named.lower() != "auto":
        # Only the one that is named is asked. If it refuses, vLLM stops: there is no fallback.
        return "none" if vllm_rules.refusals(named.upper(), deployment) else named.upper()
    for backend in vllm_rules.priorities(deployment):
        if not vllm_rules.refusals(backend, deployment):
            return backend
    return "none"
    ### END SOLUTION


# %% q7-selector nbgrader={"grade": true, "points": 12}
autograder.check("q7_selector", (q7_inputs, q7_predict, q7_override))
### BEGIN HIDDEN TESTS
autograder.check("q7_selector", (q7_inputs, q7_predict, q7_override), suite="hidden")
### END HIDDEN TESTS

# %% q7-hints [markdown]
# <details><summary>Hint: where do I start with q7_predict?</summary>
#
# With `vllm/platforms/cuda.py:303` (`if selected_backend is not None:`): two cases, somebody named a backend or nobody
# did. Write the second first; it is lesson 1's "first without a reason".
#
# </details>
#
# <details><summary>Hint: what if the named backend refuses?</summary>
#
# `vllm/platforms/cuda.py:313` (`raise ValueError`). It does not go on to the list.
#
# </details>
#
# <details><summary>Hint: "auto" and small letters</summary>
#
# `vllm/config/attention.py:93` (`AttentionConfig.validate_backend_before`), the validator of the field, has both.
#
# </details>
#
# More: `autograder.hint("q7_selector")`.

# %% q7-explain-read [markdown]
# **In your own words** (4 points, graded by hand). A colleague reports: "With `VLLM_ATTENTION_BACKEND=TRITON_ATTN` and with the
# default the throughput is the same to three digits, so the backends are equally fast." They run 0.22.1 on an H100.
# What did they measure? How do you prove it from the server's log, how do they force the backend, and what may happen
# when they do, that did not happen before? Name one thing about their workload that the selector did not look at.

# %% q7-explain [markdown] nbgrader={"grade": true, "solution": true, "points": 4}
# ### BEGIN SOLUTION
# **Model answer.** They measured FLASH_ATTN twice. 0.22.1 does not know the variable: it warns that it is unknown and picks its
# default, which on an H100 is FLASH_ATTN for a usual model. The log proves it: "Using FLASH_ATTN attention backend out of potential
# backends", in both runs, and in one of them the warning. They force a backend with `--attention-backend TRITON_ATTN`
# (or `attention_backend=` in Python); the log then says "Using ... backend." Now vLLM asks only this backend, and if it has a reason
# against the configuration the server does not start: a user's word has no fallback. The selector looked at
# no traffic: not at batch sizes, lengths, or whether the steps are prefills or decodes (nor at a sliding window).
#
# **Rubric, 1 point each**
# - *What was measured*: the default twice; variable unknown at this release, ignored with a warning.
# - *Proof*: the log line with the backend's name (or the warning), not a guess from the numbers.
# - *Force, and what may happen*: a right way, and that a refusal stops the server.
# - *Not looked at*: batch, lengths, prefill or decode, window: one of them.
# ### END SOLUTION

# %% self-read [markdown]
# ## Part 5: Self-grading
#
# *5 minutes, ●●○, 7 points.* Could you draw the way from the layer through the impl to the kernel, and name the files? Close the
# cells above and try it on paper first. Then hand your drawing in as a list of edges `(caller, callee)`, each end with its file:
# `"attention.py:Attention.forward"`. Draw the write and the read. Any backend's drawing is right, and so is the one of our own
# code. More edges than needed are fine, as long as they are there.
#
# Type the list, or **draw it in the view below the next cell**: run that cell empty, draw, press *Copy* and paste the text over it.
# Only the text is handed in. A drawing lives in your kernel, and where notebooks are graded nobody draws.

# %% self-path-code nbgrader={"solution": true}
q_path = []  # for example [("llama.py:LlamaAttention.forward", "attention.py:Attention.forward")]
### BEGIN SOLUTION
q_path = [
    ("attention.py:Attention.forward", "attention.py:unified_kv_cache_update"),
    ("attention.py:unified_kv_cache_update", "flash_attn.py:FlashAttentionImpl.do_kv_cache_update"),
    ("flash_attn.py:FlashAttentionImpl.do_kv_cache_update", "_custom_ops.py:reshape_and_cache_flash"),
    ("attention.py:Attention.forward", "attention.py:unified_attention_with_output"),
    ("attention.py:unified_attention_with_output", "flash_attn.py:FlashAttentionImpl.forward"),
    ("flash_attn.py:FlashAttentionImpl.forward", "flash_attn_interface.py:flash_attn_varlen_func"),
]
### END SOLUTION

# %% self-draw-read [markdown]
# On offer are seventeen functions of vLLM: the stations of two backends, and some that lie beside the way. Begin with the layer. Does
# your picture fork in the row that you expected? What do the two branches have in common, and where do they meet again?

# %% self-draw
path = widgets.CallPath(candidates.STATIONS, edges=q_path)
path

# %% self-path nbgrader={"grade": true, "points": 7}
autograder.check("self_path", q_path)
### BEGIN HIDDEN TESTS
autograder.check("self_path", q_path, suite="hidden")
### END HIDDEN TESTS

# %% self-hints [markdown]
# <details><summary>Hint: I have five edges and no sixth</summary>
#
# The write and the read each have three edges: layer to operator, operator to impl, impl to kernel. Nothing but the layer
# is on both ways.
#
# </details>
#
# More: `autograder.hint("self_path")`.

# %% self-branches [markdown]
# <details><summary>After your drawing: what do the branches have in common?</summary>
#
# They part below the layer, in the row of the operators. Both have the layer above them, and both operators ask
# <code>get_attention_context</code>, if you drew it. No call brings them together again: they meet only in the cache.
#
# </details>

# %% remember [markdown]
# ### What to remember
#
# - **A model passes query, key and value. The rest goes around it**, through the forward context, by the layer's name.
# - **Backend describes, builder prepares, impl computes**: as a class and before, once a step, in every layer.
# - **The write and the read are two ways.** `slot_mapping` goes to `do_kv_cache_update` as an argument; the block table goes to
#   `forward` inside of `attn_metadata`. `forward_includes_kv_cache_update` says whether it is so.
# - **Forgotten metadata raises no error.** It produces other text.
# - **`--attention-backend` asks one backend and takes no for an answer.** The environment variable is gone. The log says
#   what was taken.
# - **Texts about code go stale; lines go first.** Open the file at the tag that you run.
#
# **Where this lives.** In this course: `kernels/backends/layer.py`, `forward_context.py`, `backend.py`, `selector.py`. In
# vLLM 0.22.1:
#
# | role | place |
# | --- | --- |
# | the call in a model | `vllm/model_executor/models/llama.py:231` (`self.attn(q, k, v)`) |
# | the layer | `vllm/model_executor/layers/attention/attention.py:177` (`Attention`) |
# | the operators | `layers/attention/attention.py:691` (`unified_kv_cache_update`), `layers/attention/attention.py:734` (`unified_attention_with_output`) |
# | the context | `vllm/forward_context.py:129` (`ForwardContext`) |
# | who fills it | `vllm/v1/worker/gpu_model_runner.py:415` (`GPUModelRunner`) |
# | the three classes | `vllm/v1/attention/backend.py:55` (`AttentionBackend`), `vllm/v1/attention/backend.py:516` (`AttentionMetadataBuilder`), `vllm/v1/attention/backend.py:763` (`AttentionImpl`) |
# | one backend | `backends/flash_attn.py:68` (`FlashAttentionBackend`) |
# | who chooses | `vllm/v1/attention/selector.py:52` (`get_attn_backend`), `vllm/platforms/cuda.py:293` (`CudaPlatformBase.get_attn_backend_cls`) |
#
# ### Next
#
# In lesson 3 you write what stands at the end of both paths: a paged attention kernel, first in torch, then in Triton.
#
# Before you hand in: **Kernel → Restart Kernel and Run All Cells**, then **Validate**.
