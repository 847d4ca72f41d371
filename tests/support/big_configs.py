"""Configs of realistic size, as fine-tuning libraries have them."""

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from configs import Color, Config, DeepLora, Doubling, Frozen, Lora, Point
from orbiter.train import TrainConfig

LOOKALIKES = [
    *("1", "1.0", "-0", "1e5", "007", "0x10", "1_000", "+1", ".5", "5.", "NaN", "Infinity"),
    *("true", "True", "no", "off", "null", "None", "~", "", " ", "\t", "\n", "2024-01-01"),
    *("2024-01-01T00:00:00Z", "12:30", "12:30:45.5", "{}", "[]", "[1, 2]", '{"a": 1}', '"x"'),
    *("'x'", "{'a': 1}", "(1, 2)", "<none>", "$tuple", '{"$tuple": [1]}', "${a.b}", "%(x)s"),
    *(
        "a: b",
        "- a",
        "# no comment",
        "!!int 3",
        "&a",
        "*a",
        "|",
        ">",
        "@x",
        "`x`",
        "\\n",
        "\\u0041",
    ),
]
UNICODE = {
    "emoji": "🚀 going up 📈, 👩🏽‍🚀 with 👨‍👩‍👧 and 🏳️‍🌈",
    "scripts": "Größe, naïve, Ελληνικά, кириллица, हिन्दी, العربية, עברית, 日本語, 한국어, ไทย",
    "combining": "e\u0301 is not é; \u200bzero\u200dwidth\ufeff; \u202eright to left\u202c",
    "controls": "bell \x07, escape \x1b[31m, del \x7f, nul \x00, next line \x85, ls \u2028",
    "surrogates": "\ud83d\udc00 alone: \udc00 \ud800",
    "mathematical": "∑ᵢ xᵢ² ≤ ∞, \U0001d518\U0001d52b beyond the basic plane",
}


def prompt(length: int = 50_000) -> str:
    """A system prompt of this length, with everything that prompts contain."""
    rule = (
        "{n}. When the user asks for `{tool}`, answer with JSON such as\n"
        '   {{"tool": "{tool}", "arguments": {{"n": {n}, "ok": true, "note": null}}}}\n'
        "   and nothing else — no “quotes”, no ```fences```, never {{{{ braces }}}} ✅.\r\n"
        "\tCost: $0.{n:03d}; see https://example.org/docs?page={n}#rules\n"
        "\tand <b>mind</b> the 'gap' & the rest.\n\n"
    )
    tools = ("search", "calculator", "browser.open", "sql/query", "Übersetzer")
    text, n = "You are a careful assistant.\n\n", 0
    while len(text) < length:
        n += 1
        text += rule.format(n=n, tool=tools[n % len(tools)])
    return text[:length]


def _reward(name: str, weight: float) -> dict[str, Any]:
    return {
        "name": name,
        "weight": weight,
        "clip": [-5.0, 5.0],
        "normalize": name != "format",
        "source": "${data.root}/rewards/" + name,
        "schedule": {"kind": "linear", "from": 0.0, "to": weight, "steps": None},
        "args": {"temperature": 0.0, "judge": None, "cases": 3, "timeout.s": 12.5},
    }


def _environment(number: int) -> dict[str, Any]:
    return {
        "id": f"gridworld/maze-v{number}",
        "seed": 1000 + number,
        "max_steps": 128 * (number + 1),
        "time_limit": None if number % 3 else 30.0,
        "obs": {"shape": [84, 84, number % 4 + 1], "dtype": "uint8", "stack": 4, "scale": 1 / 255},
        "action": {"kind": "discrete", "n": 6 + number, "repeat": [1, 2, 4], "noise": 0.0},
        "start/goal": {"distance": [1, 5], "resample": number % 2 == 0},
        "curriculum": {"level": number, "threshold": 0.8, "next": f"${{envs.{number + 1}.id}}"},
    }


def rl_config() -> dict[str, Any]:
    """A nested reinforcement-learning config of more than 400 leaves."""
    layers = {
        f"block_{n}": {
            "hidden": 1024 * (n % 4 + 1),
            "heads": 16,
            "dropout": 0.0 if n < 6 else 0.1,
            "norm": "rmsnorm",
            "rope": {"theta": 1e6, "scaling": None},
            "frozen": n < 4,
            "lr_scale": 0.9**n,
        }
        for n in range(12)
    }
    rewards = ("correct", "format", "length", "language", "tool_use", "safety")
    return {
        "trainer": {
            "algorithm": "grpo",
            "nodes": 4,
            "gpus_per_node": 8,
            "total_epochs": 15,
            "resume": None,
            "val_before_train": True,
            "project": "${oc.env:PROJECT,maze}",
            "run_name": "${trainer.algorithm}-${now:%Y-%m-%d}",
            "checkpoint": {"every": 50, "keep": 3, "path": "${trainer.root}/ckpt", "async": True},
            "root": "/data/runs/${trainer.project}",
        },
        "algorithm": {
            "gamma": 1.0,
            "lam": 0.95,
            "kl": {"coef": 1e-3, "target": None, "horizon": 10_000, "penalty": "k3"},
            "clip": {"low": 0.2, "high": 0.28, "value": None},
            "group_size": 16,
            "advantage": {"normalize": True, "eps": 1e-8, "baseline": "mean"},
        },
        "actor": {
            "model": {"path": "org/model-7b", "dtype": "bfloat16", "layers": layers},
            "optim": {
                "name": "adamw",
                "lr": 1e-6,
                "betas": [0.9, 0.95],
                "eps": 1e-8,
                "weight.decay": 0.1,
                "no_decay": ["bias", "norm.weight", "embed/positions"],
                "warmup": {"steps": 0, "ratio": 0.03},
            },
            "fsdp": {"wrap": {"min_params": 0}, "offload": False, "prefetch": None, "size": -1},
            "micro_batch": {"train": 4, "infer": 16},
        },
        "rollout": {
            "engine": "vllm",
            "temperature": 1.0,
            "top_p": 1.0,
            "top_k": -1,
            "stop": ["</answer>", "\n\nUser:", "<|eot|>"],
            "max_tokens": 4096,
            "tensor_parallel": 2,
            "gpu_memory": 0.6,
            "sampling": {"n": "${algorithm.group_size}", "seed": None, "logprobs": True},
        },
        "rewards": {name: _reward(name, 1.0 / (n + 1)) for n, name in enumerate(rewards)},
        "envs": {str(number): _environment(number) for number in range(12)},
        "data": {
            "root": "/data/sets",
            "train": ["${data.root}/a.parquet", "${data.root}/b.parquet"],
            "val": None,
            "columns": {"prompt/text": "question", "answer.gold": "answer", "meta": None},
            "weights": [0.7, 0.2, 0.1],
            "filters": {"min_len": 1, "max_len": 2048, "languages": ["en", "de", "日本語"]},
            "empty": {},
            "none": [],
        },
        "logging": {"every": 10, "keys": ["loss", "kl"], "samples": 8, "tags": {}},
        "bins": {"length": [2**n for n in range(12)], "reward": [n / 10 for n in range(-10, 11)]},
        "matrix": [[1.0, 0.0], [0.0, 1.0]],
        "debug": None,
    }


def leaves(value: Any) -> int:
    """The number of values that are no mappings."""
    return sum(map(leaves, value.values())) if isinstance(value, dict) and value else 1


class Precision(StrEnum):
    BF16 = "bf16"
    FP32 = "fp32"


@dataclass(frozen=True, slots=True)
class Schedule:
    kind: Literal["constant", "cosine", "linear"] = "cosine"
    warmup: int | float = 0.03
    floor: float = 0.1
    cycles: tuple[int, ...] = (1,)


@dataclass
class Adapter:
    rank: int = 16
    alpha: float = 32.0
    targets: list[str] = field(default_factory=lambda: ["q_proj", "v_proj"])
    schedule: Schedule = Schedule()


@dataclass(slots=True)
class WideConfig(TrainConfig):
    """Like the arguments of a fine-tuning library: one flat class with many fields."""

    model: str = "org/model-7b"
    revision: str | None = None
    tokenizer: str | None = None
    trust_code: bool = False
    precision: Precision = Precision.BF16
    attention: Literal["eager", "flash", "sdpa"] = "flash"
    max_length: int = 8192
    packing: bool = True
    padding_free: bool = False
    pad_multiple: int | None = None
    chat_template: str | None = None
    system_prompt: str = ""
    data: Path = Path("/data/train.jsonl")
    data_eval: Path | None = None
    data_format: Literal["chat", "text", "preference"] = "chat"
    data_splits: dict[str, float] = field(default_factory=lambda: {"train": 0.98, "val": 0.02})
    data_weights: list[float] = field(default_factory=list)
    data_seed: int = 42
    data_workers: int = 8
    data_prefetch: int | None = 2
    data_pin: bool = True
    data_drop_last: bool = True
    data_shuffle_buffer: int = 10_000
    data_since: date | None = None
    columns: tuple[str, ...] = ("prompt", "answer")
    ignore_columns: set[str] = field(default_factory=set)
    max_samples: int | None = None
    optimizer: str = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    max_grad_norm: float | None = 1.0
    schedule: Schedule = field(default_factory=Schedule)
    lr_embeddings: float | None = None
    lr_head: float | None = None
    lr_by_layer: dict[int, float] = field(default_factory=dict)
    accumulate: int = 1
    max_steps: int = -1
    eval_batch_size: int = 8
    eval_every: int | float = 0.1
    eval_first: bool = False
    eval_metrics: list[str] = field(default_factory=lambda: ["loss", "exact_match"])
    eval_generate: bool = False
    save_every: int | float = 0.1
    save_keep: int | None = 3
    save_best: str | None = "eval/loss"
    save_lower_is_better: bool = True
    save_optimizer: bool = True
    save_format: Literal["safetensors", "torch"] = "safetensors"
    resume: bool | Path = False
    log_every: int = 10
    log_first: bool = True
    log_gradients: bool = False
    log_tokens: bool = True
    log_level: Literal["debug", "info", "warning"] = "info"
    tags: frozenset[str] = frozenset({"sft"})
    notes: str = ""
    seed: int = 0
    deterministic: bool = False
    compile: bool = False
    compile_mode: str | None = None
    tf32: bool | None = None
    checkpointing: bool = True
    checkpointing_args: dict[str, Any] = field(default_factory=lambda: {"use_reentrant": False})
    offload: bool = False
    fsdp: list[str] = field(default_factory=list)
    fsdp_min_params: int = 0
    deepspeed: dict[str, Any] | Path | None = None
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    context_parallel: int = 1
    expert_parallel: int = 1
    ddp_bucket_mb: int = 25
    ddp_unused: bool | None = None
    ddp_timeout: timedelta = timedelta(minutes=30)
    adapter: Adapter | None = None
    adapters: dict[str, Adapter] = field(default_factory=dict)
    quantize: Literal["nf4", "int8"] | None = None
    quantize_double: bool = True
    quantize_storage: str = "uint8"
    freeze: list[str] = field(default_factory=list)
    unfreeze_after: dict[str, int] = field(default_factory=dict)
    dropout: float = 0.0
    label_smoothing: float = 0.0
    neftune_alpha: float | None = None
    loss: Literal["nll", "dft"] = "nll"
    loss_on_prompt: bool = False
    z_loss: float = 0.0
    kl_coef: float = 0.05
    kl_target: float | None = None
    gamma: float = 1.0
    lam: float = 0.95
    clip_low: float = 0.2
    clip_high: float = 0.2
    value_coef: float = 0.5
    entropy_coef: float = 0.0
    group_size: int = 8
    whiten: bool = True
    reward_model: str | None = None
    reward_weights: list[float] = field(default_factory=list)
    reward_clip: tuple[float, float] | None = None
    rollout_engine: str = "vllm"
    rollout_temperature: float = 1.0
    rollout_top_p: float = 1.0
    rollout_top_k: int = -1
    rollout_min_p: float | None = None
    rollout_max_tokens: int = 1024
    rollout_stop: list[str] = field(default_factory=list)
    rollout_seed: int | None = None
    rollout_memory: float = 0.5
    rollout_sync_every: int = 1
    beta: float = 0.1
    beta_schedule: Schedule | None = None
    reference: str | None = None
    reference_sync: tuple[int, float] = (512, 0.6)
    ema: float | None = None
    early_stop: int | None = None
    early_stop_threshold: float = 0.0
    budget: Decimal | None = None
    deadline: datetime | None = None
    stages: list[Schedule] = field(default_factory=list)
    hooks: dict[str, list[str]] = field(default_factory=dict)
    limits: dict[str, int | float | None] = field(default_factory=dict)
    run_group: str | None = None
    push: bool = False
    push_private: bool = True
    push_strategy: Literal["end", "every_save"] = "end"


def wide_config() -> WideConfig:
    """A wide config with values of every kind; some break their annotations."""
    return WideConfig(
        learning_rate=2,  # an int in a float field
        epochs=True,
        system_prompt=prompt(9_000),
        data_eval=Path("eval set/größe.jsonl"),
        data_since=date(2024, 2, 29),
        ignore_columns={"id", "meta.source"},
        lr_by_layer={0: 1e-6, 11: 1e-5},
        columns=["prompt"],  # type: ignore[arg-type]  # it breaks its annotation
        betas=(0, 1),
        resume=Path("/ckpt/last"),
        tf32=None,
        precision="fp32",  # type: ignore[arg-type]  # it breaks its annotation
        adapter=Adapter(8, schedule=Schedule("linear", 10)),
        adapters={"de": Adapter(), "zh-Hant": Adapter(4, targets=[]), "a/b": Adapter(2)},
        deepspeed={"zero": {"stage": 3, "offload.optimizer": {"device": "cpu"}}, "x": None},
        reward_clip=(float("-inf"), 5.0),
        reward_weights=[1.0, 0.5, float("nan")],
        budget=Decimal("1250.50"),
        deadline=datetime(2025, 1, 31, 23, 59, tzinfo=UTC),
        stages=[Schedule(), Schedule("constant", 0, 0.0, ())],
        hooks={"on_step": ["log", "check"], "on_end": []},
        limits={"tokens": 10**12, "hours": 47.5, "none": None},
        notes="line one\nline two\n",
        early_stop=None,
        run_group="1e5",
    )


OF_EVERY_TYPE = Config(
    epochs=True,
    learning_rate=1,
    maybe=DeepLora(3),
    frozen=Frozen(Path("a b"), Lora(), datetime(2024, 1, 1, tzinfo=UTC)),
    doubling=Doubling(0.1),
    either=Frozen(),
    color=Color.ONE,
    betas=(0.0, float("inf")),
    names={"on", "off", "1e-05"},
    wait=timedelta(days=-1, microseconds=1),
    exact=Decimal("1.50"),
    by_epoch={1: 0.5, 2: float("nan")},
    paths={"a": Path("/x"), "a.b": Path("y")},
    loras=[Lora(targets=()), DeepLora(1)],
    point=Point(1.0, (None,)),
    extra={
        "plain": {"deep": {"r": 16, "t": (1, [2, {3}]), "e": [Color.RED, b"\x00\xff"]}},
        "bytes": b"\x80",
        "huge": 1 << 3000,
        "long": 10**400,
        "negative zero": -0.0,
        "empty": [{}, [], (), set(), "", None],
        "$tuple": [1],
        "no string": {3: "a key"},
        "lookalikes": dict(zip(map(str, range(99)), LOOKALIKES, strict=False)),
        "keys": dict.fromkeys(LOOKALIKES, 1),
        "lines": "first\n  second\n\nlast\n",
        "odd lines": ["\n x", "a \nb", "a\r\nb", "a\n\n", "\ta\n", "a\x85b\u2028c", "# a\n# b"],
        "unicode": "größe \U0001f600 \ud800 \u202e \ufeff \x1b[31m '''\\",
        "x" * 300: {"y" * 100: {"z" * 100: {"w" * 60: 1}}},
    },
)
