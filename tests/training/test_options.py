"""The commands' options: every one is described, has its field's default and takes the official name."""

import click
import pytest

from polc_training import PLANS, Plan
from polc_training.cli import COMMANDS, program
from polc_training.cli.options import descriptions
from polc_training.jobs.codec import AdversarialTraining


@pytest.mark.parametrize("stage", COMMANDS)
def test_every_option_is_described_and_has_the_methods_default(stage):
    command = program.get_command(click.Context(program), stage)
    options = {option.name: option for option in command.params}
    assert all(option.help for option in options.values())
    given = ["-d", "x"]
    if "family" in options:
        given += ["--family", options["family"].type.choices[0]]
    values = command.make_context(stage, given).params
    for name, value in vars(PLANS[stage]).items():
        assert values[name] == value
    assert options["seed"].help == "Seed of everything random."


def test_descriptions_of_a_class_are_its_own_and_its_parents():
    found = dict(descriptions(AdversarialTraining))
    assert found["discriminator_learning_rate"] == "learning rate of the discriminators."
    assert found["pretrained"] == "checkpoint to start from."
    assert found["init"].endswith('"pca" for principal components of training images.')


@pytest.mark.parametrize(
    ("given", "field", "value"),
    [
        (["--batch_size", "3"], "batch_size", 3),
        (["--batch-size", "3"], "batch_size", 3),
        (["-lr", "0.5"], "learning_rate", 0.5),
        (["--milestones", "3,5"], "milestones", (3, 5)),
        (["--milestones", ""], "milestones", ()),
        ([], "milestones", Plan().milestones),
        (["-n", "4"], "num_workers", 4),
        (["--stratified"], "stratified", True),
        ([], "stratified", False),
        (["-d", "b"], "dataset", ("a", "b")),
    ],
)
def test_options_fill_the_fields_of_their_names(given, field, value):
    command = program.get_command(click.Context(program), "stage1")
    values = command.make_context("stage1", ["-d", "a", *given]).params
    found = tuple(map(str, values[field])) if field == "dataset" else values[field]
    assert found == value
