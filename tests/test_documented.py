"""Every command and every setting that help texts, README and docs print is understood as it stands there."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest

from kdrun import cli, config
from kdrun.command import flags, groups, helptext, listings, overrides, preflight
from kdrun.plan import dry_run
from kdrun.sweeps import launcher
from kdrun.verbs import answers, losses, predict, store

ROOT = Path(__file__).parents[1]
PAGES = {path.name: path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
HELP = {"--help": helptext.ALL, **helptext.VERBS}
COMMAND = re.compile(r"(?:[A-Z_]+=\S+ )*(?:\S*/)?(?:kdrun|torchrun .*-m kdrun)(?: (.*))?")
# by the page's own steps, before it is typed
ADDED_FIRST = r"ray\b|loss=skew_kl|loss=kd_soft|cosine\b(?!,)|=tiny|=spectra|submitit_local"
PYTHON = r"(weights_only|inplace|reduction)="  # arguments of torch's
NO_COMMAND = ("VERB DATASET", "predict", "export", "evaluate", "losses check")  # named in a sentence
MEANT = [  # what a placeholder may stand for
    (r" …$|…(?= )|\bdataset=…", ""),
    (r"…", "x"),
    (r"\bRUN\|FILE\b|\bRUN\b", "latest"),
    (r"\bVERB\b", "distill"),
    (r"\blist\|show\|verify\|prune\b", "list"),
    (r"\bFINGERPRINT\b", "3f9c"),
    (r"\bPAIR\b", "vgg13_vgg8"),
    (r"\bMODULE\b", "fc"),
    (r"\b(FILE|FOLDER|DIR)\b", "my_images"),
    (r"=[KNW]\b", "=3"),
    (r"=S\b", "=0.5"),
    (r"\b(dataset|recipe|experiment|tracker|teacher|student|augment)=NAME", r"\1=ONE"),
    (r"dataset=ONE", "dataset=cifar10"),
    (r"recipe=ONE", "recipe=cosine"),
    (r"experiment=ONE", "experiment=temperature"),
    (r"tracker=ONE", "tracker=none"),
    (r"augment=NAME|augment=ONE", "augment=mixup"),
    (r"=ONE", "=resnet8"),
    (r"\bNAME\.KEY=VALUE", "crd.weight=0.8"),
    (r"\bNAME\.standardize", "kd.standardize"),
    (r"\bNAME\b", "crd"),
    (r"\[a,b(,c)?\]", "[resnet8,resnet20]"),
    (r"teachers\.a\.", "teachers.resnet8."),
    (r"teachers\.b2=b\b", "teachers.b2=resnet20"),
]


def meant(text):
    for placeholder, value in MEANT:
        text = re.sub(placeholder, value, text)
    return text


def spans(page):
    """The words of a page that are set as code within a line."""
    matches = re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", page, flags=re.S))
    return [" ".join(span.split()) for span in matches]


def lines():
    """Every line that may be a command, and where it stands."""
    for name, page in PAGES.items():
        blocks = "\n".join(re.findall(r"```sh\n(.*?)```", page, re.S)).replace("\\\n", " ")
        for line in (*blocks.splitlines(), *spans(page)):
            yield from ((part.strip(), name) for part in line.split("&&"))
    for name, text in HELP.items():
        for line in re.findall(r"^ +(kdrun .*)", text, re.M):
            sentence = re.split(r" {2,}", line)[0]
            yield from ((f"kdrun {part.removeprefix('kdrun ')}", name) for part in sentence.split(" | "))


def commands():
    """Every documented command, as words behind kdrun."""
    result = {}
    for line, name in lines():
        typed = COMMAND.fullmatch(re.split(r"\s+# ", line)[0].strip())
        if typed and typed[1] and typed[1] not in NO_COMMAND and not re.search(ADDED_FIRST, line):
            result.setdefault(tuple(shlex.split(meant(re.sub(r"\[[A-Z ]+\]", "", typed[1])))), f"{name}: {line}")
    return result


def settings():
    """Every setting that stands by itself, with those of its line: the verb, its words, and where it stands."""
    result = {}
    for name, page in PAGES.items():
        for span in spans(page):
            words = [w for w in _split(meant(span)) if w != "-m"]
            ours = not re.search(f"{ADDED_FIRST}|{PYTHON}", span)
            if words and ours and all(re.fullmatch(SETTING, word) for word in words):
                result.setdefault((_read_by(words[0]), *words), f"{name}: `{span}`")
    for verb in ("distill", "train_teacher", "train_baseline", "evaluate", "export"):
        for line in helptext.VERBS[verb].partition("Examples")[0].splitlines():
            typed = re.findall(r"(?<![\w'(])(?:'[^' ]+=[^' ]+'|\+?[a-z][\w./@]*=[^\s;)]+)", line)
            words = [shlex.split(meant(word.rstrip(",.:")))[0] for word in typed]
            for word in words:  # alternatives, each with what stands beside them
                for one in word.partition("=")[2].split("|"):
                    beside = [w for w in words if w.partition("=")[0] != word.partition("=")[0] and "|" not in w]
                    alone = word.partition("=")[0] + "=" + one
                    result.setdefault((verb, alone, *beside), f"kdrun {verb} --help: {line.strip()}")
    return result


SETTING = r"\+?[a-z][\w./@]*=\S+|(T|alpha)=\S+"


def _split(text):
    try:
        return shlex.split(text)
    except ValueError:  # an apostrophe
        return []


def _read_by(word):
    key = re.split(r"[.=@]", word.lstrip("+"))[0]
    return next((verb for verb, schema in VERBS.items() if hasattr(schema, key)), "distill")


VERBS = {"distill": config.Root(), "evaluate": config.Evaluate(), "export": config.Export()}
READ_WITH = [  # what a setting stands beside where it is not read alone; {} is what its key begins with
    (r"dataset\.(root|size|on_bad_image|max_resident_gb|test_fraction)=", ["dataset=folder"]),
    (r"dataset\.(file|\w+_column)=", ["dataset=table"]),
    (r"(.*)recipe\.milestones=", ["{}recipe.schedule=multistep"]),
    (r"(.*)recipe\.schedule=multistep", ["{}recipe.milestones=[15,25]"]),
    (r"loss\.(at|crd|sem_ckd)\.", ["loss={}"]),
    (r"student\.input_size", ["student=torchvision", "student.arch=vit_b_16"]),
    (r"\+student\.arguments|student\.(embedding|features)", ["student=external", "student.target=my.nets:Tiny"]),
    (r"transfer\.seed=", ["transfer.fraction=0.5"]),
    (r"robustness\.", ["robustness=standard"]),
    (r"teachers\.resnet8\.|combine=", ["teachers=[resnet8,resnet20]"]),
    (r"hydra\.launcher\.n_jobs", ["hydra/launcher=gpus"]),
    (r"hydra\.launcher\.gpus_per_node", ["hydra/launcher=slurm"]),
    (r"hydra/sweeper/sampler", ["hydra/sweeper=optuna"]),
    (r"teacher\.trust=", ["teacher.from=w.pt"]),
    (r"force=", ["cost=true"]),
]


def _beside(verb, words):
    """What else must be typed, so that these words are read."""
    keys = {word.partition("=")[0] for word in words}
    keys |= {"dataset"} if verb in config.MEASURING else {"cost"}
    for setting, others in READ_WITH:
        for match in (match for word in words if (match := re.match(setting, word))):
            typed = [other.format(*match.groups()) for other in others]
            yield from (word for word in typed if word.partition("=")[0] not in keys)


def typed():
    """Everything documented, as one command each: its verb, its words, and where it stands."""
    for words, where in commands().items():
        if "--help" not in words:
            verb, rest = cli._verb(list(words))
            yield verb, rest, where
    for (verb, *words), where in settings().items():
        words += [*dict.fromkeys(_beside(verb, words))]
        yield verb, ["run=latest", *words] if verb in config.MEASURING else words, where


def cells(verb, rest):
    """The cells of a command that show all its words: each sweep's first value, and of choices the others in turn."""
    words = flags.flags_first(flags.with_run(verb, rest) if verb in config.MEASURING else rest)
    read = [overrides.parse(word) for word in flags.parsed(verb, words).overrides]
    assert not [wrong for wrong in read if isinstance(wrong, str)], words
    values = [
        [f"{o.get_key_element()}={v}" for v in o.sweep_string_iterator()][: None if overrides.is_choice(o) else 1]
        if o.is_sweep_override() and o.is_discrete_sweep()
        else [o.input_line]
        for o in read
    ]
    first = [own[0] for own in values]
    return [first, *([*first[:i], one, *first[i + 1 :]] for i, own in enumerate(values) for one in own[1:])]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with what the documents name, and what Hydra has to know."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.pt").touch()
    dirs = groups.user_dirs()
    groups.register(dirs)
    launcher.register()
    return dirs


@pytest.mark.parametrize("front", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_every_documented_command_and_setting_is_understood(here, front):
    wrong = [line for pack in packed(front=front) for line in refused(pack, here)]
    assert not wrong, "\n".join(wrong)


FRONT = ("README.md", "--help", "kdrun", *helptext.VERBS)  # the other pages are for the slow tests


@dataclass
class Pack:
    """Documented cells of one verb that can be typed as one command, since composing each would take a minute."""

    verb: str
    cells: list[tuple[list[str], str]]
    claimed: dict[str, str]  # what the cells set, and what they leave to be as it is

    @property
    def words(self):
        return list(dict.fromkeys(word for cell, _ in self.cells for word in cell))


def claims(cell):
    """What a cell sets, and what else must not be set beside it."""
    own = dict(word.partition("=")[::2] for word in cell)
    text = " ".join(cell)
    if re.search(r"(^| )(T|alpha|loss\.)", text):
        own.setdefault("loss", "kd")
    for setting, others in CONTRADICTS.items():
        if re.search(setting, text):
            own |= {key: "" for key in others if key not in own}
    return own


CONTRADICTS = {  # words, and what cannot be set beside them
    r"": ["experiment", "hydra/sweeper", "hydra/launcher"],  # which change everything else
    r"generations=": ["student", "students", "assistants", "teachers", "teachers@teachers.b2"],
    r"teachers=|\+teachers": ["teacher", "teacher.from", "generations"],
    r"students=": ["student"],
    r"teacher.from=": ["teacher", "teachers"],
    r"loss=dml": ["teacher", "teachers", "teacher.from", "generations", "assistants"],
    r"loss\.\w+\.(teacher_|student_)?T=": ["T"],
    r"loss\.kd\.weight=": ["alpha"],
    r"transfer.labels=false": ["loss.ce.weight"],
    r"protocol=": ["dataset.val_fraction"],
    r"onecycle": ["dataset", "recipe", "recipe@teacher.recipe"],  # the warm-up of other recipes
}


def packed(*, front):
    """All that some pages, or else the others, document, in as few commands as may be."""
    packs = []
    for verb, rest, where in typed():
        wanted = verb not in cli.LISTING and where.startswith(FRONT) == front
        for cell in cells(verb, rest) if wanted else ():
            own = claims(cell)
            pack = next((p for p in packs if p.verb == verb and own | p.claimed == p.claimed | own), None)
            if pack is None:
                packs.append(pack := Pack(verb, [], {}))
            pack.cells.append((cell, where))
            pack.claimed |= own
    return packs


def refused(pack, dirs):
    """Return which of a pack's cells are refused: what is refused together is typed in two halves, down to one cell."""
    wrong = problems(pack.verb, pack.words, dirs)
    if not wrong or len(pack.cells) == 1:
        return [f"{pack.cells[0][1]}\n    {'; '.join(wrong)}"] if wrong else []
    middle = len(pack.cells) // 2
    halves = (Pack(pack.verb, half, {}) for half in (pack.cells[:middle], pack.cells[middle:]))
    return [line for half in halves for line in refused(half, dirs)]


def problems(verb, words, dirs):
    checked = preflight.check(verb, words, sweep="hydra/sweeper=optuna" in words, dirs=dirs)
    wrong = checked.problems
    if verb == "distill" and not wrong:
        wrong += dry_run.problems(verb, checked.cells, losses=True, networks=False)
    return wrong


def test_every_documented_word_of_a_listing_is_understood():
    for words in commands():
        verb, rest = cli._verb(list(words)) if "--help" not in words else ("", [])
        if verb == "predict":
            predict._words(rest)
        elif verb == "answers":
            assert answers._words(rest).to
        elif verb == "store":
            store._words(rest)
        elif rest[:1] == ["check"]:
            assert losses._words(rest[1:])
        elif verb in cli.LISTING:
            names = {
                "runs": ["names"],
                "report": ["paths"],
                "models": ["name"],
                "losses": ["name"],
                "datasets": ["name"],
            }.get(verb, [])
            listings.words(verb, rest, *names, outputs=verb in ("runs", "report"))


def test_every_test_that_a_page_names_exists():
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    named = [name for page in PAGES.values() for name in re.findall(r"`(test_\w+)`", page)]
    assert len(named) > 60 and [name for name in named if f"def {name}(" not in tests] == []
