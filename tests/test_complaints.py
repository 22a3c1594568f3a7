"""Hydra's own errors as a user reads them: wrong command lines, without starting a process for each."""

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from pipeline.complaints import remark, spell
from pipeline.errors import ConfigurationError, PipelineError
from pipeline.settings import CONF, register_schema, require_single_options, to_job

WRONG = {
    "functoin=ackley": "configuration key 'functoin' is unknown. Did you mean 'function'",
    "grid.cuont=3": "configuration key 'grid.cuont' is unknown with grid=linspace. Did you mean 'count'",
    "scramble=true": "configuration key 'scramble' is unknown. Did you mean grid.scramble?",
    "executor.workers=3": "is unknown with executor=none. It belongs to executor=dask or executor=local",
    "grid=sobol grid.distribution=normal": "is unknown with grid=sobol. It belongs to grid=random",
    "job=hesian": "job=hesian is unknown. Did you mean 'hessian'? Known: all, derivative",
    "grid=circle": "A plugin's kind: grid=plugin grid.name=…",
    "hydra/sweeper=optna": "For optuna: pip install 'pipeline-derivatives[optuna]'",
    "job=": "job= is unknown. Known: all",
    "experiment=lj12_modes": "experiment=lj12_modes is unknown. Did you mean 'lj13_modes'",
    "job": "expected key=value, got 'job'; write job=…",
    "hessian": "expected key=value, got 'hessian'; did you mean job=hessian?",
    "words": "expected key=value, got 'words'; quote a value that holds spaces",
    "=hessian": "expected key=value, got a word that begins with =; name the key",
    "grid.lower=[-1,1": "the brackets in 'grid.lower=[-1,1' do not match; write a list as 'grid.lower=[1,2]'",
    "grid.lower=[-1,1]]": "the brackets in 'grid.lower=[-1,1]]' do not match",
    "function='ackley": 'the value of function cannot be read: "\'ackley"; quote it',
    "function=[a,b]": "function is the name of one function, got function=[a,b]; write function=ackley",
    "function.name=ackley": "and its parameters as function_params.…=",
    "function_params=3": "function_params: expected keys below it, as in function_params.b=10, got '3'",
    "plugins=./mine.py": "plugins: expected a list, as in 'plugins=[./mine.py]', got './mine.py'",
    "order=2.5": "order: expected a whole number or null, got '2.5'",
    "batch=many": "batch: expected a whole number or null, got 'many'",
    "dry_run=maybe": "dry_run: expected true or false, got 'maybe'",
    "+job=gradient": "job is chosen already; leave the + out: job=…",
    "++job=gradient": "job is chosen already; leave the + out: job=…",
    "+seed=3": "seed has a value already; leave the + out: seed=…",
    "~function": "function has no value; give function=…",
    "~grid": "grid has no value; give grid=…",
    "job.operators=[]": "job.operators has no value; give job.operators=…",
    "job.operators=3": "job.operators: expected a list of names, got 3",
    "job.name=../up": "job.name: expected letters, digits, _, - and ., got '../up'",
    "grid=plugin": "grid.name has no value; give grid.name=…",
    "function=???": "function has no value; give function=…",
    "function=${foo}": "refers to 'foo', which is not there; correct the name or set it",
    "function=${oc.env:NOT_THERE}": "refers to 'NOT_THERE', which is not there",
    "memory=lots": "memory: expected a size such as 8GiB, got 'lots'",
    "memory=1e300GiB": "memory: expected a size such as 8GiB, got '1e300GiB'",
}


def complaint(words):
    register_schema()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            to_job(compose("config", overrides=words))
    except (PipelineError, HydraException, OmegaConfBaseException) as error:
        return spell(error, words)
    return "nothing is wrong"


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_word_gets_one_message_with_the_right_one(line):
    said = complaint(line.split(" "))
    assert WRONG[line] in said
    assert "\n" not in said
    assert "object_type" not in said


def test_several_values_without_a_sweep(cli):
    said = cli("grid.lower=-1,1").stderr  # only the program itself asks for -m
    assert "write one list as 'grid.lower=[-1,1]', or a sweep over them with -m" in said


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("job=[gradient,hessian]", "one job with all is 'job.operators=[gradient,hessian]', and a sweep"),
        ("job=gradient,hessian", "one job with all is 'job.operators=[gradient,hessian]', and a sweep"),
        ("grid=[sobol, random]", "choose one, and a sweep over them python -m pipeline -m grid=sobol,random"),
    ],
)  # fmt: skip
def test_several_options_of_a_group_are_never_one_of_them(cli, tmp_path, word, said):
    done = cli(word, "grid.count=3")
    assert done.returncode == 1
    assert f"{word[: word.index('=')]}: expected one option, got " in done.stderr
    assert said in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("word", ["store=[plain,compact]", "pipeline/job@derivatives.job=[hvp]"])
def test_lists_of_options_are_found_in_any_application(word):
    with pytest.raises(ConfigurationError, match="(job|store): expected one option, got"):
        require_single_options(["seed=1", "wrt=[0,1]", word])
    require_single_options(["seed=1", "wrt=[0,1]", "job.operators=[hvp]", "experiment=[a,b]"])


def test_an_error_of_ours_inside_of_one_of_hydra_is_ours():
    error = HydraException("Error in call to target")
    error.__cause__ = ConfigurationError(["install it"])
    assert spell(error, []) == "install it"


def test_settings_are_written_without_dashes(cli):
    assert remark(["--job=hessian"]) == "settings are written without dashes: job=hessian"
    assert remark(["--grid.count=3", "x"]) == "settings are written without dashes: grid.count=3"
    assert not remark(["--cfg=job", "job=hessian"])
    done = cli("--job=hessian")
    assert done.returncode == 2
    assert "settings are written without dashes: job=hessian" in done.stderr


def test_what_nobody_knows_keeps_its_own_words():
    assert spell(HydraException("something new\n    object_type=Schema"), []) == "something new"
