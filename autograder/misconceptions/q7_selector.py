"""Question 7: how people think a backend is chosen, wrong and right. Functions are answers as learners write them."""

from autograder.registry import Misconception, RightVariant
from course.candidates import CONFIGURATIONS, deployment_of
from course.vllm.rules import priorities, refusals, select


# The solution, in which the mistakes below are made; source/02_trace.py walks through it.
def q7_predict(configuration):
    deployment = deployment_of(configuration)
    named = configuration["attention_backend"]
    if named is not None and named.lower() != "auto":
        return "none" if refusals(named.upper(), deployment) else named.upper()
    for backend in priorities(deployment):
        if not refusals(backend, deployment):
            return backend
    return "none"


_INPUTS = {"attn_type", "block_size", "dtype", "has_sink", "head_size", "kv_cache_dtype", "use_mla"}
TRUTH = {"q7_inputs": _INPUTS, "q7_predict": q7_predict, "q7_override": "--attention-backend"}


def _reads_the_environment(configuration):
    deployment = deployment_of(configuration)
    named = configuration["attention_backend"] or configuration["environment"].get("VLLM_ATTENTION_BACKEND")
    if named is not None and named.lower() != "auto":
        return "none" if refusals(named.upper(), deployment) else named.upper()
    return select(deployment)


def _falls_back(configuration):
    deployment = deployment_of(configuration)
    named = (configuration["attention_backend"] or "auto").upper()
    if named != "AUTO" and not refusals(named, deployment):
        return named
    return select(deployment)


def _obeys(configuration):
    named = (configuration["attention_backend"] or "auto").upper()
    return select(deployment_of(configuration)) if named == "AUTO" else named


def _ignores_the_user(configuration):
    return select(deployment_of(configuration))


def _takes_auto_for_a_name(configuration):
    deployment = deployment_of(configuration)
    named = configuration["attention_backend"]
    if named is None:
        return select(deployment)
    if named.upper() not in priorities(deployment) or refusals(named.upper(), deployment):
        return "none"
    return named.upper()


def _knows_capital_letters_only(configuration):
    deployment = deployment_of(configuration)
    named = configuration["attention_backend"]
    if named is None or named == "auto":
        return select(deployment)
    if named not in priorities(deployment) or refusals(named, deployment):
        return "none"
    return named


def _takes_the_first_of_the_list(configuration):
    deployment = deployment_of(configuration)
    named = (configuration["attention_backend"] or "auto").upper()
    if named != "AUTO":
        return "none" if refusals(named, deployment) else named
    return priorities(deployment)[0]


def _window_wants_triton(configuration):
    deployment = deployment_of(configuration)
    named = (configuration["attention_backend"] or "auto").upper()
    if named != "AUTO":
        return "none" if refusals(named, deployment) else named
    return "TRITON_ATTN" if configuration["sliding_window"] else select(deployment)


MISCONCEPTIONS = (
    Misconception(
        "window-is-an-input",
        "the sliding window is counted among the inputs. It is no field of AttentionSelectorConfig: the impl gets it "
        "afterwards from the layer, as sliding_window (layers/attention/attention.py:379).",
        {"q7_inputs": _INPUTS | {"sliding_window"}},
    ),
    Misconception(
        "traffic-is-an-input",
        "the traffic is counted among the inputs. The choice is made while the model is being built, and holds for every "
        "batch that will ever come.",
        {"q7_inputs": _INPUTS | {"batch_size", "is_prefill", "seq_lens"}},
    ),
    Misconception(
        "lengths-are-an-input",
        "the length that sequences may reach is counted among the inputs. It decides how many blocks a request may get, "
        "and no kernel is refused for it.",
        {"q7_inputs": _INPUTS | {"max_model_len"}},
    ),
    Misconception(
        "shapes-only",
        "only shapes and number formats are counted. What kind of attention it is comes first of all: MLA has a list of "
        "its own, sinks and the attention type are vetoes.",
        {"q7_inputs": {"block_size", "dtype", "head_size", "kv_cache_dtype"}},
    ),
    Misconception(
        "environment-variable",
        "the environment variable of older releases is named. At 0.22.1 validate_environ (vllm/envs.py:2051) logs one warning "
        "that the variable is unknown, and vLLM starts with its default.",
        {"q7_override": "VLLM_ATTENTION_BACKEND=TRITON_ATTN"},
    ),
    Misconception(
        "flag-without-attention",
        "the flag is called --backend. vLLM has several kinds of backends, and its flags say which kind.",
        {"q7_override": "--backend TRITON_ATTN"},
    ),
    Misconception(
        "abbreviated-flag",
        "the flag is abbreviated to --attn-backend: the flag has the word in full.",
        {"q7_override": "--attn-backend TRITON_ATTN"},
    ),
    Misconception(
        "reads-the-environment",
        "VLLM_ATTENTION_BACKEND is obeyed. At 0.22.1 nobody reads it.",
        {"q7_predict": _reads_the_environment},
    ),
    Misconception(
        "falls-back",
        "vLLM is expected to go on to the next backend when the one that the user names refuses. It stops instead, with a "
        "ValueError (platforms/cuda.py:313): whoever named it is to know.",
        {"q7_predict": _falls_back},
    ),
    Misconception(
        "the-user-is-always-obeyed",
        "whatever the user names is taken without asking it. It is asked like any other, and a refusal stops vLLM.",
        {"q7_predict": _obeys},
    ),
    Misconception(
        "the-user-is-ignored",
        "--attention-backend is overlooked: the default is taken in every case.",
        {"q7_predict": _ignores_the_user},
    ),
    Misconception(
        "auto-is-a-backend",
        '"auto" is taken for the name of a backend. It is the same as naming none: validate_backend_before '
        "(config/attention.py:93).",
        {"q7_predict": _takes_auto_for_a_name},
    ),
    Misconception(
        "capital-letters-only",
        "a backend in small letters is taken for an unknown one. vLLM makes them capitals in "
        "validate_backend_before (config/attention.py:93).",
        {"q7_predict": _knows_capital_letters_only},
    ),
    Misconception(
        "first-of-the-list",
        "where the user names none, the first backend of the priority list is taken without asking it. The list is the "
        "order of asking; each may refuse.",
        {"q7_predict": _takes_the_first_of_the_list},
    ),
    Misconception(
        "the-window-decides",
        "a sliding window is taken for a reason to choose Triton's backend. The selector never hears of the window.",
        {"q7_predict": _window_wants_triton},
    ),
)

_TABLE = {name: q7_predict(configuration) for name, configuration in CONFIGURATIONS.items()}


def _through_the_rules(configuration):
    wanted = configuration["attention_backend"] or "AUTO"
    if wanted.upper() == "AUTO":
        return select(deployment_of(configuration)).lower()
    return wanted if not refusals(wanted.upper(), deployment_of(configuration)) else "None"


RIGHT_VARIANTS = (
    RightVariant(
        "a-table-and-an-argument",
        {
            "q7_inputs": sorted(_INPUTS),
            "q7_predict": _TABLE,
            "q7_override": 'LLM(model, attention_backend="TRITON_ATTN")',
        },
    ),
    RightVariant(
        "small-letters-and-a-command",
        {"q7_predict": _through_the_rules, "q7_override": "vllm serve MODEL --attention-backend=TRITON_ATTN"},
    ),
    RightVariant("the-config", {"q7_override": "--attention-config.backend FLASHINFER"}),
    RightVariant("the-config-as-json", {"q7_override": """-ac '{"backend": "FLASHINFER"}'"""}),
    RightVariant("the-config-class", {"q7_override": 'AttentionConfig(backend="FLASHINFER")'}),
    RightVariant("the-argument-alone", {"q7_override": "attention_backend"}),
)
