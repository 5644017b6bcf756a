"""Mistakes in a config, an option or a name, through the tools: a message with its place, and no more."""

from pathlib import Path

import pytest
from mmengine.logging import MMLogger

TINY = Path(__file__).resolve().parents[1] / "engine" / "tiny.py"
OPTIMISER = "optim_wrapper.optimizer"
CHECKPOINT = "default_hooks.checkpoint"
TRAIN = "train_dataloader"
STEP = f"{TRAIN}.dataset.pipeline"

# An option; the message names its key.
OPTIONS = [
    *(f"{name}=3" for name in ("visualizer", "log_processor", "env_cfg", "randomness", "auto_scale_lr")),
    *(f"{name}='x'" for name in ("visualizer", "log_processor", "env_cfg", "randomness", "auto_scale_lr")),
    *(f"{name}=[]" for name in ("visualizer", "log_processor", "env_cfg", "default_scope", "log_level")),
    *("env_cfg=None", "log_level=None", "default_hooks=None", "default_hooks=3"),
    *("work_dir=3", "load_from=3", "load_from=[]", "load_from={}", "recompute=3", "recompute=[3]"),
    *("compile=3", "compile='x'", "resume='x'", "experiment_name=3", "model_wrapper_cfg=3", "tta_model=3"),
    *(f"{name}=3" for name in ("model", TRAIN, "val_dataloader", "train_cfg", "val_cfg", "optim_wrapper")),
    *("param_scheduler='x'", "custom_hooks=3", "val_evaluator='x'"),
    *("default_hooks.timer=3", "default_hooks.timer='x'", "visualizer.vis_backends=3"),
    *(f"{TRAIN}.batch_size={value}" for value in ("0", "-1", "'a'", "1.5", "None", "[]")),
    *(f"{TRAIN}.num_workers={value}" for value in ("-1", "'a'", "1.5", "[]")),
    *(f"{TRAIN}.{rest}" for rest in ("pin_memory='x'", "sampler={'type':'Nope'}", "nope=1", "timeout='x'")),
    *(f"{TRAIN}.dataset.{rest}" for rest in ("type='Nope'", "nope=1", "pipeline=3", "serialize_data='x'")),
    *(f"{TRAIN}.{key}=3" for key in ("sampler", "batch_sampler", "collate_fn", "dataset")),
    *(f"{TRAIN}.dataset.{rest}" for rest in ("pipeline=[]", "pipeline=None", "data_root=3")),
    *(f"{STEP}.0.{rest}" for rest in ("type='Nope'", "nope=3", "to_float32='x'")),
    *(f"train_cfg.max_iters={value}" for value in ("0", "-1", "1.5", "'x'", "[]")),
    *(f"train_cfg.val_interval={value}" for value in ("0", "'x'")),
    *(
        f"train_cfg.{rest}"
        for rest in ("val_begin='x'", "val_begin=[]", "type='Nope'", "dynamic_intervals=3")
    ),
    "val_cfg.fp16='x'",
    *(f"{OPTIMISER}.lr={value}" for value in ("-1", "'x'", "nan", "[]", "1e400")),
    *(f"{OPTIMISER}.momentum={value}" for value in ("2", "1", "-1", "'x'")),
    *(f"{OPTIMISER}.{rest}" for rest in ("weight_decay=-1", "type='Nope'", "nope=1")),
    *(f"{OPTIMISER}={value}" for value in ("3", "[]", "None")),
    *("optim_wrapper.accumulative_counts=0", "optim_wrapper.clip_grad=3", "optim_wrapper.paramwise_cfg=3"),
    *("optim_wrapper.paramwise_cfg={'nope':1}", "optim_wrapper.type='Nope'"),
    *("param_scheduler.0.type='Nope'", "param_scheduler.0.nope=1", "param_scheduler.0.power='x'"),
    *(f"{CHECKPOINT}.{rest}" for rest in ("max_keep_ckpts='x'", "save_begin='x'")),
    *(f"{CHECKPOINT}.{rest}" for rest in ("type='Nope'", "nope=1", "save_best='nope'", "interval='x'")),
    *(f"{CHECKPOINT}.priority={value}" for value in ("'x'", "1000", "[]")),
    *("default_hooks.logger.interval='x'", "default_hooks.logger.ignore_last=3"),
    *(f"{CHECKPOINT}.filename_tmpl={value}" for value in ("'x'", "'{}/{}'", "'a/{}.pth'")),
    *(f"optim_wrapper.clip_grad.{rest}" for rest in ("nope=1", "max_norm='x'", "max_norm=0", "type='x'")),
    *(f"optim_wrapper.paramwise_cfg.custom_keys{rest}" for rest in ("=3", ".a=3", ".a.lr_mult='x'")),
    *(f"{TRAIN}.dataset.{rest}" for rest in ("img_suffix=3", "seg_map_suffix=3")),
    *(f"{STEP}.3.crop_size={value}" for value in ("(1,2,3)", "(0,0)")),
    *(f"{STEP}.2.{rest}" for rest in ("scale=(0,0)", "ratio_range=(2,0.5)", "ratio_range=(1,)")),
    *(f"{STEP}.4.prob=2", "model.pretrained=''", "model.pretrained=3", "model.backbone.pretrained=3"),
    *(f"model.decode_head.{rest}" for rest in ("dropout_ratio=1", "channels=0")),
    *("visualizer.type='Nope'", "visualizer.nope=1", "val_evaluator.type='Nope'", "default_scope='nope'"),
    *("model.type='Nope'", "model.decode_head.type='Nope'", "model.decode_head.num_classes='x'"),
]


@pytest.fixture
def message(tool, tmp_path, capsys):
    """The message of a tool that must fail, and must have written nothing."""
    MMLogger.get_instance(tmp_path.name)  # whose output is that of this test

    def run(name, *arguments):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(SystemExit) as ended:
            tool(name).main(list(map(str, arguments)))
        said = capsys.readouterr().err
        assert ended.value.code == 1, said
        assert "error: " in said and "Traceback" not in said
        assert sorted(tmp_path.rglob("*")) == before
        return said[said.index("error: ") :]

    return run


@pytest.mark.parametrize(("key", "value"), [("nope", 1), ("momentum", 2), ("momentum", "x")])
def test_what_a_hook_hands_on_is_named(key, value, message, tmp_path):
    hooks = f"custom_hooks=[{{'type':'EMAHook',{key!r}:{value!r}}}]"
    said = message("train", TINY, "--work-dir", tmp_path / "work", "--cfg-options", hooks)
    assert f"custom_hooks.0.{key}" in said


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_is_named(option, message, tmp_path):
    said = message("train", TINY, "--work-dir", tmp_path / "work", "--cfg-options", option)
    place = option.partition("=")[0]
    assert place in said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "model"),
        ("model = None", "model"),
        ("model = dict(", "cannot be read: SyntaxError"),
        ("1 / 0", "cannot be read: ZeroDivisionError"),
        ("import nowhere_to_be_found", "nowhere_to_be_found"),
        ("_base_ = 'nowhere.py'", "nowhere.py"),
        ("_base_ = 3", "_base_"),
        (f"_base_ = {str(TINY)!r}\nmodel = None", "model"),
        (f"_base_ = {str(TINY)!r}\ntrain_dataloader = None", "train_dataloader"),
        (f"_base_ = {str(TINY)!r}\nval_dataloader = None", "val_dataloader"),
        (f"_base_ = {str(TINY)!r}\ntrain_dataloader = 3", "train_dataloader"),
        (f"_base_ = {str(TINY)!r}\ndefault_hooks = []", "default_hooks"),
        (f"_base_ = {str(TINY)!r}\ncustom_imports = dict(imports=['nowhere'])", "nowhere"),
    ],
    ids=lambda value: repr(value)[-40:],
)
@pytest.mark.parametrize("name", ["train", "test", "predict", "browse", "check_dataset"])
def test_a_config_is_named(name, text, words, message, tmp_path):
    config = tmp_path / "mistaken.py"
    config.write_text(text)
    rest = {
        "train": ("--work-dir", tmp_path / "work"),
        "test": (tmp_path / "weights.pth", "--work-dir", tmp_path / "work"),
        "predict": (tmp_path / "weights.pth", tmp_path / "street.png", "--out", tmp_path / "out"),
        "browse": ("--out", tmp_path / "sheet.png"),
        "check_dataset": (),
    }[name]
    said = message(name, config, *rest)
    if name == "train":
        assert words in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--cfg-options", "model"), "key=value"),
        (("--cfg-options", "=3"), "key=value"),
        (("--cfg-options", "model..x=3"), "key=value"),
        (("--cfg-options", "modle.x=3"), "model"),
        (("--seed", "-1"), "seed"),
        (("--seed", str(2**40)), "seed"),
        (("--launcher", "pytorch"), "torchrun"),
        (("--launcher", "slurm"), "srun"),
        (("--work-dir", "x" * 300), "File name too long"),
        (("--work-dir", "a\0b"), "zero byte"),
        (("--work-dir", "b\udcffd"), "not UTF-8"),
        (("--work-dir", "/dev/null/x"), "/dev/null/x"),
    ],
)
def test_an_argument_is_named(arguments, words, message, tmp_path, monkeypatch, rendered_root):
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path(rendered_root).parent / "cache"))
    data = ("--cfg-options", f"data_root={rendered_root}")
    assert words in message("train", TINY, *data, *arguments)


NAMES = ["x" * 300, "a\0b", "b\udcffd", "loop", "loop/x", "/dev/null/x", "nowhere/x", "a\nb"]
READERS = {
    "config": ("train", "{name}"),
    "printed config": ("print_config", "{name}"),
    "weights": ("predict", TINY, "{name}", "i.png", "--out", "out"),
    "tested weights": ("test", TINY, "{name}", "--work-dir", "out"),
    "predictions": ("evaluate", "{name}", ".", "--dataset", "camvid", "--workers", "1"),
    "labels": ("evaluate", ".", "{name}", "--dataset", "camvid", "--workers", "1"),
    "cityscapes": ("prepare_dataset", "cityscapes", "{name}"),
    "ade20k": ("prepare_dataset", "ade20k", "{name}", "out"),
    "camvid": ("prepare_dataset", "camvid", "{name}", "out"),
}


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name)[:20])
@pytest.mark.parametrize("what", READERS)
def test_a_name_of_nothing_is_answered(what, name, message, tmp_path, monkeypatch):
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.chdir(tmp_path)
    message(*(str(one).replace("{name}", name) for one in READERS[what]))
