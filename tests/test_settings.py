"""From a composed configuration to a job."""

import pytest
from hydra import compose, initialize_config_dir

from pipeline.settings import CONF, register_schema, to_job

NAMES = {
    "job=hessian": "hessian",
    "job=all": "all",
    "job=modes": "modes",
    "job=normal_modes": "normal_modes",
    "job.operators=[gradient,laplacian]": "gradient_laplacian",
    "job=modes job.operators=[gradient]": "gradient",
    "job=all job.operators=[hvp] job.name=mine": "mine",
    "job.operators=divergence": "divergence",
    "experiment=lj13_modes": "lj13_modes",
}


@pytest.mark.parametrize("line", NAMES)
def test_results_lie_under_what_was_asked_or_under_a_name_that_was_given(line):
    register_schema()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert to_job(compose("config", overrides=line.split())).name == NAMES[line]


def test_every_option_of_job_is_its_own_name():
    register_schema()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for file in (CONF / "job").glob("*.yaml"):
            job = to_job(compose("config", overrides=[f"job={file.stem}"]))
            assert job.name == file.stem
