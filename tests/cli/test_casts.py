"""Commands with more than one teacher and one student, typed as a user types them, on digits."""

import json

import pytest

from tests import warm

SHORT = ["recipe.epochs=2", "teacher.recipe.epochs=2", "device=cpu", "seeds=1"]


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """An empty folder to work in; what one command trains the next one finds."""
    return tmp_path_factory.mktemp("desk")


def type_(desk, *words, code=0):
    """Type a distillation and give what it said."""
    short = SHORT if "loss=dml" not in words else [word for word in SHORT if "teacher" not in word]
    done = warm.type_(desk, "distill", *short, *words)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


def comparison(desk):
    return json.loads((desk / "outputs" / "latest" / "comparison.json").read_text())


def rows(desk):
    return [(row["label"], row["model"], row["lane"], row["n"]) for row in comparison(desk)["rows"]]


def test_several_teachers_have_a_row_each_and_one_for_their_ensemble(desk):
    output = type_(desk, "teachers=[digits_teacher,mlp]", "teachers.mlp.recipe.epochs=3")
    assert [row[:2] for row in rows(desk)] == [
        ("teacher", "digits_teacher"),
        ("teacher", "mlp"),
        ("ensemble", "2 teachers"),
        ("baseline", "digits_student"),
        ("student", "digits_student"),
    ]
    assert "teacher mlp: training" in output
    assert comparison(desk)["rows"][2]["test_accuracy"]["n"] == 1


def test_a_sum_over_teachers_is_a_term_for_each_and_another_training(desk):
    output = type_(
        desk, "teachers=[digits_teacher,mlp]", "teachers.mlp.recipe.epochs=3", "teachers.mlp.weight=3", "combine=sum"
    )
    assert "teacher mlp: found" in output
    assert comparison(desk)["formula"] == ("0.1·CE(y, p_s) + 0.225·4²·KL(p_t ‖ p_s; T=4) + 0.675·4²·KL(p_t ‖ p_s; T=4)")
    assert "kd_digits_teacher" in output and "kd_mlp" in output  # each in the history under its name


@pytest.mark.parametrize(
    ("words", "learners"),
    [
        (["teachers=[digits_teacher,mlp]"], {"baseline", "student"}),
        (["assistants=[mlp]"], {"baseline", "assistant", "student"}),
        (["generations=1"], {"baseline", "student"}),
        (["loss=dml"], {"baseline", "peer"}),
    ],
)
def test_whoever_learns_beside_the_teacher_learns_from_mixed_images_and_the_teacher_from_its_own(desk, words, learners):
    outputs = desk / words[0].partition("=")[0]
    output = type_(desk, *words, f"outputs={outputs}", "augment=function_matching", "dataset.flip=true", "report=false")
    assert "\naugmentation: crop_flip, mixup\nrunning train accuracy counts a mixed image by the label" in output
    mixed = {}
    for file in (outputs / "store").glob("*/spec.json"):
        role = file.parent.name.partition("-")[0]
        mixed[role] = "mixup" in json.loads(file.read_text())["data"].get("augment", {}) or mixed.get(role, False)
    assert mixed.pop("teacher", False) is False
    assert mixed == dict.fromkeys(learners, True)


def test_several_students_share_the_teacher_and_each_has_its_baseline(desk):
    output = type_(desk, "students=[digits_student,mlp]", "+students@students.second=mlp")
    assert [row[:3] for row in rows(desk)][1:] == [
        (role, model, lane)
        for lane, model in (("digits_student", "digits_student"), ("mlp", "mlp"), ("second", "mlp"))
        for role in ("baseline", "student")
    ]
    data = comparison(desk)
    assert [lane["name"] for lane in data["lanes"]] == ["digits_student", "mlp", "second"]
    numbers = [row["test_nll"]["mean"] for row in data["rows"] if row["lane"] in ("mlp", "second")]
    assert len(set(numbers)) == 4  # the same network twice starts from other weights
    assert output.count("seed 0: training") == 6 - output.count("seed 0: found")


def test_assistants_make_a_chain_with_the_direct_student_beside_it(desk):
    output = type_(desk, "assistants=[mlp]", "assistants.mlp.recipe.epochs=3")
    assert [row[:2] for row in rows(desk)] == [
        ("teacher", "digits_teacher"),
        ("assistant", "mlp"),
        ("baseline", "digits_student"),
        ("direct", "digits_student"),
        ("student", "digits_student"),
    ]
    data = comparison(desk)
    taught_by = {row["label"]: row["points"][0]["folder"] for row in data["rows"]}
    spec = json.loads((desk / "outputs" / "store" / taught_by["student"] / "spec.json").read_text())
    assert taught_by["assistant"].endswith(spec["teachers"][0])
    assert "more than the network it learns from" in output  # it is the larger one here


def test_generations_are_born_again_and_end_in_an_ensemble(desk):
    type_(desk, "generations=2")
    assert rows(desk) == [
        ("teacher", "digits_teacher", "", 1),
        ("baseline", "digits_teacher", "", 1),
        ("generation 1", "digits_teacher", "", 1),
        ("generation 2", "digits_teacher", "", 1),
        ("ensemble", "2 generations", "", 1),
    ]
    output = type_(desk, "generations=3")
    assert output.count("generation 2 digits_teacher seed 0: found") == 1  # the second command goes on from the first


def test_peers_have_no_teacher_and_a_row_and_a_baseline_each(desk):
    output = type_(desk, "loss=dml")
    assert "teacher" not in output.replace("digits_teacher", "")
    assert [row[:3] for row in rows(desk)] == [
        ("baseline", "digits_student", "digits_student"),
        ("peer", "digits_student", "digits_student"),
        ("baseline", "digits_student", "twin"),
        ("peer", "digits_student", "twin"),
    ]
    accuracies = [row["test_nll"]["mean"] for row in comparison(desk)["rows"]]
    assert len(set(accuracies)) == 4
    output = type_(desk, "loss=dml", "students=[digits_student,mlp]")
    assert {row[2] for row in rows(desk)} == {"digits_student", "mlp"}


def test_terms_add_up_and_sweep_over_methods(desk):
    output = type_(desk, "-m", "loss=kd,dkd,[kd,crd]", "loss.ce.weight=1")
    sweep = json.loads((desk / "outputs" / "latest" / "sweep.json").read_text())
    assert [cell["status"] for cell in sweep["cells"]] == ["done"] * 3
    assert "0.9·4²·KL(p_t ‖ p_s; T=4) + 0.8·CRD" in sweep["cells"][2]["formula"]
    assert all(name in output for name in ("kd", "dkd", "[kd,crd]"))


@pytest.mark.parametrize(
    "words, says",
    [
        (["loss=dml", "teacher=mlp"], "teach each other and have no teacher"),
        (["loss=[dml,kd]"], "which kd needs"),
        (["loss=dml", "students=[mlp]"], "one network has no peers"),
        (["generations=2", "student=mlp"], "the student is the teacher's own network"),
        (["generations=2", "assistants=[mlp]"], "leave assistants out"),
        (["combine=sum"], "'teachers=[NAME,NAME]'"),
        (["teachers=[mlp,digits_teacher]", "teacher=mlp"], "replaces it"),
        (["teachers=[mlp]", "+teachers@teachers.b=mlp"], "teachers.b.seed=1 trains another"),
        (["teachers.mlp.seed=3"], "'teachers=[mlp,…]' chooses it"),
        (["teachers=[nope]"], "there is no such teacher. Available: digits_student,"),
        (["assistants=[mlp,mlp]"], "is listed twice; for a second copy, type +assistants@assistants.mlp2=mlp"),
        (["students=[mlp]", "student.dropout=0.1"], "type students.mlp.dropout"),
        (
            ["teachers=[mlp,digits_teacher]", "teachers.mlp.recipe.epochs=0"],
            "teachers.mlp.recipe.epochs=0: must lie in",
        ),
        (["teachers=[mlp,digits_teacher]", "teachers.mlp.recipe.epochs=x"], "needs a whole number"),
        (["teachers=[mlp,digits_teacher]", "teachers.mlp.weight=0"], "teachers.mlp.weight=0: must lie in (0, inf)"),
        (["loss=null"], "choose one of abkd, at, ca_mkd"),
        (["loss=[nope]"], "there is no such loss. Available: abkd, at,"),
        (["loss=[kd,kd]"], "for a second copy, type +loss@loss.kd2=kd"),
        (  # the teachers' augmentation is read, so that the refused setting is another one
            ["teachers=[mlp]", "augment@teacher.augment=mixup", "loss=at", "loss.at.student_layers=[stage9]"],
            "has no layer stage9",
        ),
        (["loss=at", "student=external", "student.target=torch.nn:Identity"], "student=external"),
    ],
)
def test_a_cast_that_cannot_be_is_refused_with_what_to_type(desk, words, says):
    output = type_(desk, *words, code=2)
    assert says in " ".join(output.split()), output
