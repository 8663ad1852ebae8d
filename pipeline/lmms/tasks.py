"""Task files with which lmms-eval reads a benchmark from this machine's disk, without the hub.

A task of lmms-eval names a data set on the hub and a folder below HF_HOME. The files written here keep everything of
that task but these two: rows come from DATA, and HF_HOME/<folder> leads to DATA.
"""

from importlib.util import find_spec
from pathlib import Path

import yaml

from pipeline.errors import UsageError
from pipeline.public_benchmarks.benchmark import Question
from pipeline.public_benchmarks.registry import BENCHMARKS
from pipeline.public_benchmarks.rows import need_files

_FILES = {
    "videomme": ("videomme.yaml", "test", ("videomme/test-*.parquet", "test-*.parquet")),
    "mlvu_dev": ("mlvu_dev.yaml", "test", ("mlvu/test-*.parquet", "test-*.parquet")),
    "longvideobench_val_v": (
        "longvideobench_val_v.yaml",
        "validation",
        ("validation-*.parquet", "data/validation-*.parquet"),
    ),
    "egoschema_subset": ("egoschema_subset.yaml", "test", ("Subset/test-*.parquet", "test-*.parquet")),
    "nextqa_mc_test": ("nextqa_mc_test.yaml", "test", ("MC/test-*.parquet", "test-*.parquet")),
    "tempcompass_multi_choice": ("tempcompass_mc.yaml", "test", ("multi-choice/test-*.parquet",)),
    "tempcompass_yes_no": ("tempcompass_yes_no.yaml", "test", ("yes_no/test-*.parquet",)),
    "tempcompass_caption_matching": ("tempcompass_caption_matching.yaml", "test", ("caption_matching/test-*.parquet",)),
}
"""Task -> its file in lmms-eval, its split, and where its rows lie in DATA. MVBench's twenty are made alike below."""

_CACHE = {
    "videomme": "videomme", "mlvu": "mlvu", "longvideobench": "datasets/longvideobench", "mvbench": "mvbench_video",
    "egoschema": "egoschema", "nextqa": "nextqa", "tempcompass": "tempcompass",
}  # fmt: skip
SUFFIX = "_local"


def write_tasks(benchmark: str, data: Path, folder: Path, is_llava_video: bool = False) -> list[str]:
    """Write one file per task into `folder` and lead `folder`/hf there; the tasks' names. Raises UsageError."""
    lmms = find_spec("lmms_eval")
    if lmms is None or not lmms.submodule_search_locations:
        raise UsageError("lmms_eval is not installed here; expected it beside this package (docs/reproduce.md)")
    theirs = Path(lmms.submodule_search_locations[0]) / "tasks" / benchmark
    questions = BENCHMARKS[benchmark].load(data, "default").questions
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / "hf" / _CACHE[benchmark]
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(data.absolute(), target_is_directory=True)
    names = []
    for task in dict.fromkeys(question.task for question in questions):
        config = _config(task, theirs, data, questions, is_llava_video)
        (folder / f"{task}{SUFFIX}.yaml").write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
        names.append(task + SUFFIX)
    return names


def _config(
    task: str, theirs: Path, data: Path, questions: tuple[Question, ...], is_llava_video: bool
) -> dict[str, object]:
    if task.startswith("mvbench_"):
        files = need_files("MVBench", data, f"json/{task.removeprefix('mvbench_')}.json")
        name, split, kind = f"{task}.yaml", "train", "json"
    else:
        name, split, patterns = _FILES[task]
        files, kind = need_files(task, data, *patterns), "parquet"
    config: dict[str, object] = {
        "include": str(theirs / name),
        "task": task + SUFFIX,
        "dataset_path": kind,
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {split: [str(file.absolute()) for file in files]}},
    }
    if is_llava_video and task == "videomme":  # lmms-eval chooses prompts by the name of --model, and ours is adatp
        config["lmms_eval_specific_kwargs"] = {"default": {"pre_prompt": "", "post_prompt": "The best answer is:"}}
    return config
