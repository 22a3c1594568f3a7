"""Jobs of a sweep are composed as Hydra composes each of them: it is asked itself."""

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf

from pipeline.settings import CONF, register_schema
from pipeline.sweeps.composing import Composer


@pytest.fixture(scope="module")
def loader():
    register_schema()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


@pytest.fixture
def composed(loader, monkeypatch):
    """A composer, and how often it asks Hydra."""

    def begin(*hydra_words):
        master = loader.load_configuration("config", list(hydra_words), RunMode.MULTIRUN)
        assert master.hydra.sweep.dir  # what is resolved once stays: the time of the sweep
        asked = []
        genuine = loader.load_sweep_config
        monkeypatch.setattr(
            loader, "load_sweep_config", lambda *words: asked.append(words) or genuine(*words)
        )
        return Composer(loader, master).compose, lambda words: genuine(master, list(words)), asked

    return begin


def same(one, two):
    return OmegaConf.to_yaml(one) == OmegaConf.to_yaml(two) and one == two


SWEPT = [
    ["job=gradient", "function=ackley", "grid.count=6", "dtype=float32"],
    ["grid.count=8", "job=gradient", "output_dir='${function} here'", "batch=null"],
    ["job=hessian", "grid=random", "grid.lower=[-1,1]", "masses=[1,2.5]", "memory='a=b, c'"],
    ["function_params={b:1,a:2}", "function_params.b=3", "job=gradient"],
    ["+function_params.b=3", "seed=1", "~experiment", "++function_params.c=[1]"],
    ["executor={name:none}", "store.compression=gzip", "hydra.job.chdir=true", "seed=3"],
    [],
]


def test_it_is_what_hydra_composes(composed):
    compose, by_hydra, _ = composed("hydra/launcher=local", "hydra.launcher.workers=3")
    configs = [compose(words) for words in SWEPT]
    for words, config in zip(SWEPT, configs, strict=True):
        assert same(config, by_hydra(words)), words
        assert OmegaConf.is_struct(config)


def test_hydra_is_asked_once_for_each_choice_of_groups(composed):
    compose, _, asked = composed()
    for job in ("gradient", "hessian"):
        for b in range(5):
            config = compose([f"job={job}", "function_params.b=" + str(b), "seed=1"])
            assert (config.hydra.runtime.choices.job, config.function_params.b) == (job, b)
    assert [list(words) for _, words in asked] == [["job=gradient"], ["job=hessian"]]


@pytest.mark.parametrize(
    "words",
    [["seed=x"], ["grid.cuont=3", "seed=1"], ["seed=1", "job=gradeint"], ["nothing.of.it=3"]],
)
def test_what_cannot_be_composed_is_said_in_the_words_of_hydra(composed, words):
    compose, by_hydra, _ = composed()
    with pytest.raises(HydraException) as ours:
        compose(words)
    with pytest.raises(HydraException) as theirs:
        by_hydra(words)
    assert (type(ours.value), str(ours.value)) == (type(theirs.value), str(theirs.value))


def test_groups_from_elsewhere_are_left_to_hydra(composed, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "fast.yaml").write_text("# @package _global_\nseed: 9\n")
    compose, by_hydra, asked = composed(f"hydra.searchpath=[{tmp_path}]")
    words = ["+site=fast", "batch=3"]
    assert same(compose(words), by_hydra(words))
    assert compose(words).seed == 9
    assert len(asked) == 2
