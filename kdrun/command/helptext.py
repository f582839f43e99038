"""Help written for people. Plain text, so that --help answers without importing anything."""

from __future__ import annotations

ALL = """\
kdrun: knowledge distillation experiments, compared so that the answer can be trusted.

  kdrun train teacher         train the large network, or find it in the store
  kdrun train baseline        train the small network alone
  kdrun distill               teacher, baseline and student, and their comparison
  kdrun evaluate RUN          measure a finished run again from its weights
  kdrun export RUN            the student as a file of its own: safetensors, ONNX or torch.export, checked
  kdrun predict RUN IMAGES    classify image files, by a run or by an exported file
  kdrun report [PATHS]        put any runs and sweeps into one table
  kdrun runs [A B]            what lies under outputs/; with two names, how they differ
  kdrun store list|show|verify|prune
                              the trained networks that commands find again: what is there, damaged, useless
  kdrun models | datasets | losses
                              what can be chosen, with sizes and one line each

  kdrun distill T=4 alpha=0.9                     settings are KEY=VALUE
  kdrun distill -m T=1,2,4,8                      -m: a sweep, and its table
  kdrun distill dataset=fashion_mnist seeds=6     the data set brings its usual networks
  kdrun distill plan=true                         what would be trained, and what is found

kdrun VERB --help explains a verb's settings. Results lie under outputs/ (outputs=DIR or KDRUN_OUTPUTS moves
them); outputs/latest is the newest. Exit codes: 0 done, 2 bad input, 3 a run failed, 75 interrupted (the same
command resumes), 130 stopped at once."""

_SEEDS = """\
  seed=0              of the first training, from 0
  seeds=3             that many trainings, with seed, seed+1, … (6 or more for a verdict)"""

_COMMON = """\
  dataset=digits      mnist, fashion_mnist, cifar10, cifar100, folder, synthetic      (kdrun datasets)
      dataset.val_fraction=0.1    held out for selection, in [0, 1)
      dataset.split_seed=0        which they are
      dataset.crop_padding=2  dataset.flip=true    augmentation: shifted by up to so many pixels, mirrored
      dataset.root=DIR            where the files lie; KDRUN_DATA sets it for all commands
  device=auto         cpu, cuda, cuda:1
  precision=fp32      tf32 (a GPU's short cut), bf16, auto (bf16 where the hardware has it)
  compile=false       true compiles teacher and student (torch.compile): on a CPU no faster, and minutes to start
  outputs=outputs     where results go
  force=false         true trains anew, once per command, what the store already has
  plan=false          true prints what would be trained and what is found, and trains nothing; time: how long, too
  verbose=false       true prints every epoch, and the table of every cell of a sweep (KDRUN_VERBOSE=true: always);
                      kdrun.log has it all; quiet=true prints verdict, table and folder alone
  tracker=auto        tensorboard, mlflow, none; auto: tensorboard where it is installed (docs/tracking.md)
  workers=2           processes, from 0, that decode images of sets too large for memory
  data_timeout=60     seconds without a batch from them (or ten times the slowest so far) until the command gives up
  checkpoint_every=auto       5epochs, 200steps, 2min; auto: every epoch's end, and a minute after the last within one
  experiment=NAME     temperature, missing_three, three_percent, s1_robust, s4_fashion, cifar100/PAIR: published
                      questions with one command each; some are sweeps of their own (docs/results.md)
  budget=full|quick   quick: a short try of anything; of an experiment in less than two minutes"""

_RECIPE = """\
      {0}epochs=40  {0}batch_size=64    from 1 and from 2
      {0}lr=0.005  {0}weight_decay=0    above 0; from 0
      {0}optimizer=sgd|adam|adamw       sgd: {0}momentum in [0, 1), {0}nesterov
      {0}schedule=constant|multistep|cosine|onecycle    with {0}warmup_epochs,
          '{0}milestones=[15,25]' and {0}gamma in (0, 1]
      {0}label_smoothing in [0, 1)  {0}clip_norm
      {0}ema_decay in (0, 1)            of the average of weights; auto: a tenth of the training; null: none
      {0}class_weights=balanced         every class counts the same in the labels' loss
      {0}select=accuracy|balanced       what chooses the epoch; balanced: the mean over classes
      {0}patience=N                     stop after N epochs without improvement (null: never)
      {0}protocol=heldout|paper         paper: trains on everything, measures test every epoch"""

_HYDRA = """\
All of Hydra works: -m sweeps, --cfg job --resolve shows the composed configuration, --info explains it,
--config-dir DIR and a folder ./conf add choices of your own. Sweeps can run beside or elsewhere, and search:
  -m hydra/launcher=gpus|slurm   -m hydra/sweeper=optuna   (docs/clusters.md; each is an extra to install)
One training on several GPUs: torchrun --nproc-per-node 4 -m kdrun distill …
For completion in bash:
  eval "$(kdrun -sc install=bash)\""""

VERBS = {
    "distill": f"""\
kdrun distill: train teacher, baseline and student, and compare the three.

The student and the baseline are the same network from the same initial weights on the same batches; only the
student hears the teacher. Trainings that the store already has are found, not repeated.

  T=4.0               temperature of teacher and student, above 0
  alpha=0.9           weight of the teacher in [0, 1]; the labels weigh 1 - alpha
  teacher=NAME        the large network; student=NAME the small one                  (kdrun models)
      teacher.from=RUN|FILE       use that one instead of training it; teacher.trust=true even if it is at chance
      student=external student.target=package.module:Class      a network of your own
      'teachers=[a,b]'            several: averaged, or combine=sum for a term each; teachers.a.recipe.epochs=60,
                                  teachers.a.weight, .seed, .from; the same once more, from another seed:
                                  +teachers@teachers.b2=b teachers.b2.seed=1
      'students=[a,b]'            several students of one teacher, each with its own baseline
      'assistants=[a,b]'          a chain from the teacher to the student, and the direct student beside it
      generations=3               born again: the teacher's own network, each generation taught by the last
  loss=kd             one of kdrun losses, or several: 'loss=[kd,crd]'; loss=dml: students teach each other
      loss.NAME.weight=W          of each (kd: alpha); loss.ce.weight: of the labels (null: 1 - alpha)
      loss.kd.teacher_T=4 loss.kd.student_T=1 loss.kd.T_squared=false loss.kd.standardize=true
      'loss.at.student_layers=[stage2,stage3]' 'loss.at.teacher_layers=[…]'      by name (kdrun models NAME)
{_SEEDS}
{_COMMON}
  recipe=quick        fashion, cifar_240, cosine, folder, finetune: of baseline and student; recipe@teacher.recipe=NAME
{_RECIPE.format("recipe.")}
      teacher.recipe.epochs=60 …       the teacher's own
  transfer.fraction=1.0            what baseline and student learn from: a part of the training images, (0, 1]
      transfer.omit_classes=[3]  transfer.labels=false  transfer.extra=FOLDER  transfer.seed=0
  robustness=none     standard, quick: corrupted and attacked test images too      (kdrun evaluate --help)
  'columns=[cost]'    cost, nll, ece, balanced, f1, top5, kl, to90, to95, to99, swing: more columns in the tables
  'examples=[0,7]'    test images, by number, whose softened targets the page shows (default: it chooses)
  report=true         false draws no page (KDRUN_REPORT=false: never)

Examples
  kdrun distill T=4 alpha=0.9
  kdrun distill -m T=1,2,4,8
  kdrun distill -m 'loss=kd,dkd,[kd,crd]'
  kdrun distill experiment=temperature budget=quick
  kdrun distill experiment=cifar100/resnet32x4_resnet8x4 loss=dkd
  kdrun distill -m teacher=resnet56,resnet110 T=2,4 dataset=cifar100
  kdrun distill dataset=folder dataset.root=my_images dataset.size=64 student=resnet8 teacher=resnet56

{_HYDRA}""",
    "train_teacher": f"""\
kdrun train teacher: train the large network alone, or find it in the store.

  teacher=NAME        which network (kdrun models); teacher.seed=0
{_COMMON}
  recipe@teacher.recipe=NAME       quick, fashion, cifar_240, cosine, folder, finetune
{_RECIPE.format("teacher.recipe.")}

Examples
  kdrun train teacher teacher.recipe.epochs=60
  kdrun train teacher -m teacher=resnet20,resnet56 dataset=cifar100

{_HYDRA}""",
    "train_baseline": f"""\
kdrun train baseline: train the small network alone, as distill does for its comparison.

  student=NAME        which network (kdrun models)
{_SEEDS}
{_COMMON}
  recipe=NAME         quick, fashion, cifar_240, cosine, folder, finetune
{_RECIPE.format("recipe.")}
  transfer.fraction=1.0 …          as under distill

Examples
  kdrun train baseline recipe.epochs=60 seeds=6
  kdrun train baseline -m recipe.lr=0.01,0.05,0.1

{_HYDRA}""",
    "evaluate": f"""\
kdrun evaluate RUN: measure every network of a finished run again from its weights.

RUN is a run's folder, its name, or latest (kdrun runs lists them); of a sweep its best cell is measured.
  dataset.root=DIR    where the run's images lie now, if they have moved; they are held against its record
  device=auto         cpu, cuda, cuda:1
  batch_size=256      images per forward pass
  outputs=outputs     where runs lie, and where the table goes
  robustness=none     standard, quick: on corrupted images, and under FGSM and PGD attacks
      'robustness.corruptions=[blur,jpeg]'  'robustness.severities=[1,3,5]'
      'robustness.fgsm=[1,2,4,8]' 'robustness.pgd=[1,2,4,8]'     ε of 255; [] leaves an attack out
      robustness.pgd_steps=20  robustness.pgd_step=S             null: 2.5·ε/steps
      robustness.images=N  robustness.attack_images=1000         null: all; robustness.seed=0
  cost=false          true: operations, latency at batch 1 and 128, memory (device=auto: on GPU and CPU)
  force=false         true measures anew what is kept of earlier evaluations
  verbose=false       true prints all that goes into kdrun.log; quiet=true the tables and the folder alone

Examples
  kdrun evaluate latest
  kdrun evaluate latest robustness=standard cost=true

{_HYDRA}""",
    "export": f"""\
kdrun export RUN: write the student as a file of its own, and hold the file against it.

RUN is a run's folder, its name, a network's fingerprint, a sweep (of which the cell chosen on validation is
taken), or latest. The file takes raw pixels, uint8 (N, C, H, W), of any number of images, and gives logits:
the normalisation is inside. Classes, preprocessing and a model card lie beside it.
  format=safetensors  weights, which kdrun.load opens; onnx: a graph for ONNX Runtime and others
                      (pip install 'kdrun[onnx]'); torch_export: a graph for torch, without kdrun
  role=student        or what else the run's table names: teacher, baseline, generation 2, …
  seed=null           null: the seed with the highest validation accuracy
  to=null             an empty or new folder; null: the folder of this command below outputs/runs/export
  check=true          read the file back, and compare it with the network on all test images: logits, classes,
                      accuracy, latency. A file that differs is moved to failed/, and the exit code is 3
  dataset.root=DIR    where the run's images lie now, if they have moved
  device=cpu          where both are run for that; cuda, cuda:1 (format=onnx: the CPU alone)
  batch_size=256      images per forward pass
  outputs=outputs     where runs lie, and where the files go
  quiet=false         true prints the check, the file and its folder alone (verbose=true: all of kdrun.log)

Examples
  kdrun export latest format=onnx to=shipped
  kdrun export latest role=teacher format=torch_export

{_HYDRA}""",
    "predict": """\
kdrun predict RUN|FILE|FOLDER IMAGES… [--role student] [--seed N] [--top 3] [--json] [--outputs DIR]

Classify image files. The network is that of a run, a sweep, a fingerprint or latest, or an exported file
(.onnx, .pt2, .safetensors) or its folder; --role and --seed choose of a run's networks as under kdrun export.
IMAGES are PNG, JPEG, WebP, BMP, TIFF or GIF files, and folders and .zip archives of them. They are turned
upright by their EXIF tag and brought to the size and the channels of the training images just as kdrun reads a
data set. --top N names so many classes of each; --json prints them for a program. A file that cannot be read
costs only itself: it is named at the end, with exit code 2. A .pt2 file can run code when it is opened: open
only those whose origin you trust.

Examples
  kdrun predict latest a.png photos/
  kdrun predict shipped/model.onnx photos/ --top 5 --json""",
    "report": """\
kdrun report [PATHS] [--to DIR] [--outputs DIR] [--wide]: collect runs and sweeps into one table.

PATHS are run folders, sweep folders or names of runs; without any, everything under outputs/. Reads result files
only, at any time: what is unfinished is marked. Writes report.md, .csv, .json and .tex to --to (outputs/report).
Columns that a narrow terminal has no room for are left out and named; --wide shows them.

Example
  kdrun report outputs/sweeps""",
    "runs": """\
kdrun runs [A B] [--outputs DIR] [--wide]: what lies under outputs/, newest first; with two runs, how they differ.

Example
  kdrun runs latest 2026-05-01_10-00-00-3f9c2a""",
    "store": """\
kdrun store list [KEY=VALUE…] [-n N] | show FINGERPRINT | verify [FINGERPRINT…] | prune [--yes]   [--outputs DIR]

The trainings under outputs/store, which every command finds again by their fingerprints. The first digits of a
fingerprint are enough.
  list                the newest last; role=, dataset=, model= and state= list some; -n 5 the last five
  show FINGERPRINT    its result, what it cost, its spec, and which runs and networks refer to it
  verify              read all files and compare them with their checksums; exit code 3 if one is damaged
  prune               remove what no run, sweep or network that is kept refers to, what was set aside as .corrupt, and
                      what kills left; shows it and asks first, unless --yes. What a running command holds stays

Example
  kdrun store list role=teacher dataset=digits
  kdrun store verify""",
    "models": """\
kdrun models [NAME]: the networks that teacher=NAME and student=NAME choose, with parameters and one line each;
with a name, its settings and the shapes of its stages. A file conf/model/NAME.yaml of your own adds one.

Example
  kdrun models resnet8x4""",
    "datasets": """\
kdrun datasets: the data sets that dataset=NAME chooses, with one line each. A file conf/dataset/NAME.yaml of your
own adds one.

Example
  kdrun datasets""",
    "losses": """\
kdrun losses [NAME]: the losses that loss=NAME chooses, with formula and source; with a name, its settings and
where their defaults come from. A file conf/loss/NAME.yaml of your own adds one.

Example
  kdrun losses dkd""",
}
