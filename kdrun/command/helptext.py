"""Help texts of the verbs. Plain strings, so that --help prints without importing anything else."""

from __future__ import annotations

ALL = """\
kdrun: run knowledge distillation experiments and compare them with sound statistics.

  kdrun train teacher         train the large network, or reuse it from the store
  kdrun train baseline        train the small network without a teacher
  kdrun distill               train teacher, baseline and student, and compare them
  kdrun evaluate RUN          measure a finished run again from its weights
  kdrun export RUN            export the student to safetensors, ONNX or torch.export, and check the file
  kdrun predict RUN IMAGES    classify image files with a run or an exported file
  kdrun answers RUN --to FILE
                              write a network's answers to its training images, for teacher=answers
  kdrun report [PATHS]        collect runs and sweeps into one table
  kdrun runs [KEY=VALUE]      list the runs in outputs/, one line each; with two names, compare them
  kdrun store list|show|verify|prune
                              the store of trained networks: list, show, verify, remove what is unused
  kdrun models | datasets | losses
                              list the available models, data sets or losses

  kdrun distill T=4 alpha=0.9                     settings are KEY=VALUE
  kdrun distill -m T=1,2,4,8                      -m: a sweep, with one table
  kdrun distill dataset=fashion_mnist seeds=6     the data set selects its default networks
  kdrun distill plan=true                         show what would be trained and what is reused

kdrun VERB --help explains a verb's settings. Results go to outputs/ (outputs=DIR or KDRUN_OUTPUTS
changes this); outputs/latest is the newest. Exit codes: 0 done, 2 bad input, 3 a run failed, 75 interrupted (the same
command resumes), 130 stopped by a second Ctrl-C."""

_SEEDS = """\
  seed=0              seed of the first training, 0 or above
  seeds=3             number of trainings, with seed, seed+1, … (p < 0.05 needs 6 or more)"""

_COMMON = """\
  dataset=digits      mnist, fashion_mnist, cifar10, cifar100, folder, table, synthetic      (kdrun datasets)
      dataset.val_fraction=0.1    fraction held out for validation, in [0, 1)
      dataset.split_seed=0        which images are held out
      dataset.crop_padding=2  dataset.flip=true    of augment=crop_flip: shifts of up to N pixels, mirroring
      dataset.root=DIR            folder of the data; KDRUN_DATA sets it for all commands
      dataset.file=labels.csv     of dataset=table: paths, labels and split of your images
  device=auto         cpu, cuda, cuda:1
  precision=fp32      tf32 (GPUs only), bf16, auto (bf16 if the hardware supports it)
  compile=false       true compiles teacher and student (torch.compile): takes minutes to start, no gain on a CPU
  outputs=outputs     folder for results
  force=false         true retrains, once per command, what the store already has
  plan=false          true prints what would be trained or reused, and trains nothing; time: also how long it would take
  verbose=false       true prints every epoch, and the table of each cell of a sweep; kdrun.log always has them
                      (KDRUN_VERBOSE=true: for all commands)
  quiet=false         true prints the verdict, the table and the folder alone
  tracker=auto        tensorboard, mlflow, wandb, none, or package.module:Class of your own; auto: tensorboard where
                      it is installed (docs/tracking.md)
  workers=2           processes that decode images of sets too large for memory; 0: decode in the main process
  data_timeout=60     stop after this many seconds without a batch from them (or ten times the slowest so far)
  checkpoint_every=auto       5epochs, 200steps, 2min; auto: after every epoch, and every minute within one
  experiment=NAME     temperature, missing_three, three_percent, function_matching, patience, s1_robust, s4_fashion,
                      cifar100/PAIR: published experiments, ready to run; some are sweeps (docs/results.md)
  budget=full|quick   quick: a short trial run; an experiment takes less than two minutes"""

_AUGMENT = """\
  augment=crop_flip   or none, resized_crop, randaugment, trivial, erasing, mixup, cutmix, function_matching (crop_flip
                      and mixup of every image) in its place; several: 'augment=[crop_flip,mixup]'. For baseline and
                      student; the student's teacher sees the same augmented images (docs/augmentation.md)
      augment.views=K             each epoch shows one of K fixed views of an image: the teacher's logits are computed
                                  once and kept for later commands; null: new views in every epoch. With few views the
                                  student overfits after about K epochs. augment.seed=0: seed of the views"""

_OF_TEACHER = """\
  augment@teacher.augment=NAME     the augmentation with which the teacher is trained (docs/augmentation.md)"""

_RECIPE = """\
      {0}epochs=40  {0}batch_size=64    epochs at least 1, batch_size at least 2
      {0}lr=0.005  {0}weight_decay=0    lr above 0, weight_decay at least 0
      {0}optimizer=sgd|adam|adamw       sgd: {0}momentum in [0, 1), {0}nesterov
      {0}schedule=constant|multistep|cosine|onecycle    with {0}warmup_epochs,
          '{0}milestones=[15,25]' and {0}gamma in (0, 1]
      {0}label_smoothing in [0, 1)  {0}clip_norm
      {0}ema_decay in (0, 1)            EMA of the weights; auto: over a tenth of the training; null: none
      {0}class_weights=balanced         all classes weigh the same in the loss on the labels
      {0}select=accuracy|balanced       measure that chooses the epoch; balanced: mean over classes
      {0}patience=N                     stop after N epochs without improvement (null: never)
      {0}protocol=heldout|paper         paper: trains on everything, measures test every epoch"""

_HYDRA = """\
All features of Hydra work: -m sweeps, --cfg job --resolve shows the composed configuration, --info explains it,
--config-dir DIR and a folder ./conf add your own options. Sweeps can run in parallel, on a cluster, or search:
  -m hydra/launcher=gpus|slurm   -m hydra/sweeper=optuna   (docs/clusters.md; each is an extra to install)
One training on several GPUs: torchrun --nproc-per-node 4 -m kdrun distill …
Completion in bash:
  eval "$(kdrun -sc install=bash)\""""

VERBS = {
    "distill": f"""\
kdrun distill: train teacher, baseline and student, and compare the three.

The student and the baseline are the same network from the same initial weights on the same batches; only the
student learns from the teacher. Trainings that are already in the store are reused.

  T=4.0               temperature of teacher and student, above 0
  alpha=0.9           weight of the teacher's term, in [0, 1]; the labels' term has 1 - alpha
  teacher=NAME        the large network; student=NAME the small one                  (kdrun models)
      teacher.from=RUN|FILE       use it instead of training one; teacher.trust=true: even if it is at chance
      student=external student.target=package.module:Class      a network of your own
      teacher=answers teacher.file=FILE teacher.fixed=false     another model's answers to the training images
                                  (docs/own-data.md); chooses augment=none; fixed allows another one
      'teachers=[a,b]'            several: averaged, or combine=sum for one term each; teachers.a.recipe.epochs=60,
                                  teachers.a.weight, .seed, .from; the same network again, with another seed:
                                  +teachers@teachers.b2=b teachers.b2.seed=1
      'students=[a,b]'            several students of one teacher, each with its own baseline
      'assistants=[a,b]'          a chain from the teacher to the student, compared with the direct student
      generations=3               born-again: the teacher's architecture, each generation taught by the one before
  loss=kd             see kdrun losses; several: 'loss=[kd,crd]'; loss=dml: students teach each other
      loss.NAME.weight=W          its weight (kd: alpha); loss.ce.weight: that of the labels (null: 1 - alpha)
      loss.kd.teacher_T=4 loss.kd.student_T=1 loss.kd.T_squared=false loss.kd.standardize=true
      'loss.at.student_layers=[stage2,stage3]' 'loss.at.teacher_layers=[…]'      by name (kdrun models NAME)
{_SEEDS}
{_COMMON}
{_AUGMENT}
      teacher.bank.dtype=float16  teacher.bank.top_k=3      with augment.views: keep the teacher's answers in half
                                  precision, or the 3 largest logits alone, and learn from these
{_OF_TEACHER}
  recipe=quick        fashion, cifar_240, cosine, folder, finetune, long: for baseline and student;
                      recipe@teacher.recipe=NAME; recipe=patient: long, with loss=kl augment=function_matching
{_RECIPE.format("recipe.")}
      teacher.recipe.epochs=60 …       the teacher's recipe
  transfer.fraction=1.0            fraction of the training images for baseline and student, in (0, 1]
      transfer.omit_classes=[3]  transfer.labels=false  transfer.extra=FOLDER  transfer.seed=0
  robustness=none     standard, quick: also test on corrupted and attacked images      (kdrun evaluate --help)
  'columns=[cost]'    cost, nll, ece, balanced, f1, top5, kl, to90, to95, to99, swing: more columns in the tables
  'examples=[0,7]'    numbers of the test images whose softened targets the page shows (default: automatic)
  report=true         png: its pictures as PNG too; false: no report.html (KDRUN_REPORT=…: for all commands)

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
kdrun train teacher: train the large network, or reuse it from the store.

  teacher=NAME        which network (kdrun models); teacher.seed=0
{_COMMON}
{_OF_TEACHER}
  recipe@teacher.recipe=NAME       quick, fashion, cifar_240, cosine, folder, finetune, long
{_RECIPE.format("teacher.recipe.")}

Examples
  kdrun train teacher teacher.recipe.epochs=60
  kdrun train teacher -m teacher=resnet20,resnet56 dataset=cifar100

{_HYDRA}""",
    "train_baseline": f"""\
kdrun train baseline: train the small network without a teacher, as distill does for its comparison.

  student=NAME        which network (kdrun models)
{_SEEDS}
{_COMMON}
{_AUGMENT}
  recipe=NAME         quick, fashion, cifar_240, cosine, folder, finetune, long
{_RECIPE.format("recipe.")}
  transfer.fraction=1.0 …          as in distill

Examples
  kdrun train baseline recipe.epochs=60 seeds=6
  kdrun train baseline -m recipe.lr=0.01,0.05,0.1

{_HYDRA}""",
    "evaluate": f"""\
kdrun evaluate RUN: measure every network of a finished run again from its weights.

RUN is a run's folder, its name, or latest (kdrun runs lists them); for a sweep, its best cell is measured.
  dataset.root=DIR    where the run's images are now, if they have moved; they are compared with its record
  dataset.file=FILE   the same for a table of images
  device=auto         cpu, cuda, cuda:1
  batch_size=256      images per forward pass
  outputs=outputs     folder of the runs, and of the table
  robustness=none     standard, quick: on corrupted images, and under FGSM and PGD attacks
      'robustness.corruptions=[blur,jpeg]'  'robustness.severities=[1,3,5]'
      'robustness.fgsm=[1,2,4,8]' 'robustness.pgd=[1,2,4,8]'     ε in 1/255; [] leaves out an attack
      robustness.pgd_steps=20  robustness.pgd_step=S             null: 2.5·ε/steps
      robustness.images=N  robustness.attack_images=1000         null: all; robustness.seed=0
  cost=false          true: operations, latency at batch 1 and 128, memory (device=auto: on GPU and CPU)
  force=false         true repeats measurements that are already stored
  verbose=false       true prints all that goes into kdrun.log; quiet=true the tables and the folder alone

Examples
  kdrun evaluate latest
  kdrun evaluate latest robustness=standard cost=true

{_HYDRA}""",
    "export": f"""\
kdrun export RUN: export the student to a file, and check the file against the network.

RUN is a run's folder, its name, a network's fingerprint, a sweep (its cell chosen on validation is used), or
latest. The file takes raw pixels, uint8 (N, C, H, W), for any N, and returns logits: the normalisation is
included. Classes, preprocessing and a model card are written beside it.
  format=safetensors  weights, which kdrun.load opens; onnx: a graph for ONNX Runtime and others
                      (pip install 'kdrun[onnx]'); torch_export: a graph for torch, without kdrun
  role=student        or another role in the run's table: teacher, baseline, generation 2, …
  seed=null           null: the seed with the highest validation accuracy
  to=null             an empty or new folder; null: this command's folder in outputs/runs/export
  check=true          read the file back, and compare it with the network on all test images: logits, classes,
                      accuracy, latency. A file that differs is moved to failed/, and the exit code is 3
  dataset.root=DIR    where the run's images are now, if they have moved; dataset.file=FILE: a table of them
  device=cpu          device of this check; cuda, cuda:1 (format=onnx: CPU only)
  batch_size=256      images per forward pass
  outputs=outputs     folder of the runs, and of the files
  quiet=false         true prints the check, the file and its folder alone (verbose=true: all of kdrun.log)

Examples
  kdrun export latest format=onnx to=shipped
  kdrun export latest role=teacher format=torch_export

{_HYDRA}""",
    "predict": """\
kdrun predict RUN|FILE|FOLDER IMAGES… [--role student] [--seed N] [--top 3] [--json] [--outputs DIR]

Classify image files. The network comes from a run, a sweep, a fingerprint or latest, or from an exported file
(.onnx, .pt2, .safetensors) or its folder; --role and --seed choose among a run's networks as in kdrun export.
IMAGES are PNG, JPEG, WebP, BMP, TIFF or GIF files, and folders and .zip archives of them. They are rotated
upright by their EXIF tag and converted to the size and channels of the training images, exactly as kdrun reads
a data set. --top N prints the N most probable classes; --json prints JSON. A file that cannot be read is skipped
and named at the end; the exit code is then 2. A .pt2 file can run code when it is opened: open
only those whose origin you trust.

Examples
  kdrun predict latest a.png photos/
  kdrun predict shipped/model.onnx photos/ --top 5 --json""",
    "answers": """\
kdrun answers RUN --to FILE [--role teacher] [--seed N] [--device auto] [--batch_size N] [--outputs DIR]

Write the logits of a network of a run for all its training images, those held out for validation included, as they
are stored, without augmentation. kdrun distill teacher=answers teacher.file=FILE learns from them, on any machine.
RUN is a run, a sweep, a fingerprint or latest; --role and --seed choose among its networks as in kdrun export. The
ending of FILE chooses the format: .safetensors, .npz, .csv or .parquet. Images are identified by name, if they have
files, and by index. --batch_size is by default that of the run's recipe: on a CPU a student then learns, bit for bit,
what it would learn from the network itself. dataset.root=DIR and dataset.file=FILE say where the images lie now.
docs/own-data.md shows how such a file is made from the answers of any other model.

Examples
  kdrun answers latest --to answers.safetensors
  kdrun distill teacher=answers teacher.file=answers.safetensors""",
    "report": """\
kdrun report [PATHS | --all] [--to DIR] [--outputs DIR] [--wide]: collect runs and sweeps into one table.

PATHS are run folders, sweep folders or names of runs; without any, everything under outputs/. Reads result files
only, at any time: unfinished runs are marked. Writes report.md, .csv, .json and .tex to --to (outputs/report).
Columns that do not fit the terminal are left out and named; --wide shows them.
--all writes outputs/index.html instead: every run in any state, to sort and to search, with a link to its page.

Examples
  kdrun report outputs/sweeps
  kdrun report --all""",
    "runs": """\
kdrun runs [KEY=VALUE…] [-n N] [--outputs DIR] [--wide]: list the runs in outputs/, one line each, newest last.
kdrun runs A B: compare two runs.

Any setting is a filter: dataset=, loss=, teacher=, T=, recipe.lr=, also verb= and status=; a sweep is listed if one
of its cells fits. -n 5 lists the last five. Settings that all runs share are shown above the list. The name of a run
is its last six digits.

Example
  kdrun runs dataset=digits loss=dkd
  kdrun runs latest 2026-05-01_10-00-00-3f9c2a""",
    "store": """\
kdrun store list [KEY=VALUE…] [-n N] | show FINGERPRINT | verify [FINGERPRINT…] | prune [--yes]   [--outputs DIR]

The trainings in outputs/store, which every command reuses by their fingerprints. The first digits of a
fingerprint are enough.
  list                newest last; role=, dataset=, model= and state= filter the list; -n 5 lists the last five
  show FINGERPRINT    its result, cost and spec, and the runs and networks that use it
  verify              read all files and compare them with their checksums; exit code 3 if one is damaged
  prune               remove what no run, sweep or kept network uses, what was set aside as .corrupt, and files that
                      killed commands left; lists it and asks first, unless --yes. What a running command uses is kept

Example
  kdrun store list role=teacher dataset=digits
  kdrun store verify""",
    "models": """\
kdrun models [NAME]: list the networks for teacher=NAME and student=NAME, with their numbers of parameters;
with a name, its settings and the shapes of its stages. A file conf/model/NAME.yaml adds your own.

Example
  kdrun models resnet8x4""",
    "datasets": """\
kdrun datasets [NAME]: the data sets that dataset=NAME chooses, with one line each; with a name, its split, source,
usual networks and recipe, and its settings. A file conf/dataset/NAME.yaml of your own adds one.

Example
  kdrun datasets cifar100""",
    "losses": """\
kdrun losses [NAME]: list the losses for loss=NAME, with formula and source; with a name, its settings and
where their defaults come from. A file conf/loss/NAME.yaml of your own adds one (docs/adding-a-method.md).

kdrun losses check NAME|package.module:Class [KEY=VALUE]: run the checks that every loss must pass (gradients, types,
labels, state), one line each; exit code 2 if one fails.

Examples
  kdrun losses dkd
  kdrun losses check dkd""",
}
