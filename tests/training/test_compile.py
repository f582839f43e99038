"""compile=true: what is compiled, what is not, and that the training stays the one that was asked for."""

import dataclasses
import math

import pytest
import safetensors.torch
import torch
from omegaconf import OmegaConf

from kdrun import models
from kdrun.config import CONF
from kdrun.files import RunFailed
from kdrun.results.networks import StoredNetwork
from kdrun.signals import Interrupted
from kdrun.training import cohort, compiled
from kdrun.training.networks import build_model, load_model
from tests.training.conftest import HELPED, STUDENT, TEACHER, weights

CPU = torch.device("cpu")
DIGITS = {"num_classes": 10, "in_channels": 1, "image_size": (8, 8), "mean": (0.5,), "std": (0.2,), "seed": 0}


def with_compiler(request):
    return dataclasses.replace(request, spec=dataclasses.replace(request.spec, compiled=True))


def losses(artifact):
    rows = [line.split(",") for line in (artifact.folder / "history.csv").read_text().splitlines()]
    return [float(row[rows[0].index("loss")]) for row in rows[1:]]


@pytest.fixture
def graphs(monkeypatch):
    """Real torch.compile, whose backend runs what was traced as it stands; gives what was traced."""
    traced = []

    def as_it_stands(graph, inputs):
        traced.append([tuple(x.shape) for x in inputs if isinstance(x, torch.Tensor)])
        return graph.forward

    torch._dynamo.reset()
    monkeypatch.setattr(compiled, "BACKEND", as_it_stands)
    yield traced
    torch._dynamo.reset()


def test_teacher_and_student_are_compiled_at_the_trainings_batch_shapes_and_nothing_else_is(
    request_for, new_obtainer, trained_teacher, graphs, digits
):
    fingerprint = trained_teacher.spec.fingerprint
    wanted = [request_for(), request_for("student", objective=HELPED, teachers=[fingerprint])]
    obtainer = new_obtainer()
    plain = obtainer.obtain(wanted)
    assert not graphs
    fast = obtainer.obtain([with_compiler(request) for request in wanted])
    assert len(digits.train) % 32 == 1  # so that the last batch has 33; the teacher's is filled up
    images = [shape for shapes in graphs for shape in shapes if shape[1:] == (1, 8, 8)]
    assert sorted(images) == [(32, 1, 8, 8), (32, 1, 8, 8), (33, 1, 8, 8)]
    for a, b in zip(plain, fast, strict=True):
        assert a.fingerprint != b.fingerprint
        assert weights(a).keys() == weights(b).keys()
        for key, value in weights(a).items():  # dropout, too, draws the same: the backend computes as eager does
            assert torch.equal(value, weights(b)[key]), key
        assert (a.result["compiled"], b.result["compiled"]) == (False, True)
    assert StoredNetwork.read(fast[0].folder).environment().endswith("fp32, compiled")
    assert StoredNetwork.read(plain[0].folder).environment().endswith("fp32")


def test_only_the_call_is_compiled_and_no_name_changes(request_for, graphs):
    plain, fast = (build_model(request_for().spec, seed=0) for _ in range(2))
    compiled.compile_forward(fast)
    assert fast.state_dict().keys() == plain.state_dict().keys()
    images = torch.rand(4, 1, 8, 8)
    fast.eval().forward(images)
    assert not graphs
    fast(images)
    assert len(graphs) == 1


def test_more_batch_shapes_and_networks_than_torch_would_keep_by_itself_stay_compiled(graphs):
    for width in range(1, 12):
        network = models.build("mlp.Mlp", **DIGITS, hidden=[width], dropout=0.0).eval()
        compiled.compile_forward(network)
        network(torch.rand(2, 1, 8, 8))
    assert len(graphs) == 11


@pytest.mark.parametrize("name", ["resnet8", "vgg8", "wrn_16_1", "mobilenetv2", "shufflenetv1", "shufflenetv2"])
def test_every_family_of_networks_is_one_graph(name, graphs):
    node = OmegaConf.to_container(OmegaConf.load(CONF / "model" / f"{name}.yaml"))
    given = {"in_channels": 3, "image_size": (32, 32), "mean": (0.5,) * 3, "std": (0.2,) * 3}
    network = models.build(**node, **(DIGITS | given))
    compiled.compile_forward(network)
    outputs = network(torch.rand(2, 3, 32, 32))
    assert len(graphs) == 1
    assert outputs._fields == ("logits", "features", "preactivations", "embedding", "strong")


@pytest.mark.parametrize(
    ("variables", "answer"),
    [
        ({"CXX": "no-such-compiler"}, "needs a C++ compiler, and CXX=no-such-compiler does not exist"),
        ({"PATH": "/nowhere"}, "needs a C++ compiler, and there is no g++: install g++"),
    ],
)
def test_a_machine_without_a_compiler_is_told_what_is_missing(variables, answer, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    compiled.check(CPU)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=r"compile=true: torch.compile .*or leave compile out") as error:
        compiled.check(CPU)
    assert answer in str(error.value)


def test_what_fails_in_the_compiler_is_said_with_what_to_type(request_for, new_obtainer, monkeypatch):
    def broken(graph, inputs):
        raise NotImplementedError("no such kernel")

    torch._dynamo.reset()
    monkeypatch.setattr(compiled, "BACKEND", broken)
    with pytest.raises(RunFailed, match=r"torch\.compile failed \(BackendCompilerFailed: .*type compile=false"):
        new_obtainer().obtain([with_compiler(request_for())])
    with pytest.raises(ZeroDivisionError), compiled.report_compilation(True):
        _ = 1 / 0


@pytest.mark.slow
@pytest.mark.parametrize("ema", [None, 0.9])
def test_a_compiled_training_is_the_eager_one_to_rounding_resumes_has_mates_and_loads(
    request_for, new_obtainer, trained_teacher, ema, monkeypatch
):
    fingerprint = trained_teacher.spec.fingerprint
    still = {**STUDENT, "arguments": {**STUDENT["arguments"], "dropout": 0.0}}  # its draws are the compiler's own

    def student(model):
        return request_for("student", model, HELPED, teachers=[fingerprint], ema_decay=ema)

    obtainer = new_obtainer()
    for model in (still, TEACHER):
        (eager,), (fast,) = (obtainer.obtain([request]) for request in (student(model), with_compiler(student(model))))
        for a, b in zip(losses(eager), losses(fast), strict=True):
            assert math.isclose(a, b, rel_tol=1e-5), (a, b)
        stored = safetensors.torch.load_file(fast.folder / "logits.safetensors")["test"]
        network = load_model(fast).eval()
        assert network.state_dict().keys() == weights(fast).keys() == weights(eager).keys()
        assert stored.isfinite().all()

    request = with_compiler(student(STUDENT))  # with dropout
    (whole,) = obtainer.obtain([request])
    other = new_obtainer("other")
    other.obtain([trained_teacher])
    steps = 0

    def reach(site):
        nonlocal steps
        steps += site == "after_batch"
        other.stop.raised = steps == 8

    with monkeypatch.context() as patched:
        patched.setattr(cohort.faults, "reach", reach)
        with pytest.raises(Interrupted):
            other.obtain([request])
    other.stop.raised = False
    torch._dynamo.reset()  # as a new process would have it
    (resumed,) = other.obtain([request])
    beside = new_obtainer("beside")
    beside.obtain([trained_teacher])
    mate, _ = beside.obtain([request, with_compiler(request_for())])  # a cohort
    for again in (resumed, mate):
        for key, value in weights(whole).items():
            assert torch.equal(value, weights(again)[key]), key
