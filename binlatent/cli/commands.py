"""What each command does; `cli` reads the command line and calls these.

Every heavy import waits until its command runs, so that `--help` answers at once.
"""

import sys


def run(args) -> None:
    experiment = _experiment(args)
    experiment.run()


def train(args) -> None:
    profile = _steps(args.profile) if args.profile else None
    _experiment(args).train(args.stage, init_from=args.init_from, profile=profile)


def encode(args) -> None:
    manifest = _experiment(args).encode()
    counts = ", ".join(f"{manifest.count(split)} {split}" for split in manifest.shards)
    print(f"codes: {counts}, {manifest.spec.record.itemsize} bytes each, in {args.workdir}/codes")


def sample(args) -> None:
    import numpy as np
    import tqdm
    from etils import epath

    from binlatent.errors import UserError
    from binlatent.images import ImageSink
    from binlatent.pipeline import Pipeline

    model = Pipeline.load(args.workdir, batch_size=args.batch_size)
    try:
        labels = [int(label) for label in args.labels.split(",")] if args.labels else None
    except ValueError:
        raise UserError(f"--labels {args.labels}: whole numbers with commas between are expected, as 0,3,7") from None
    out = args.out or epath.Path(args.workdir) / "samples" / f"seed{args.seed}.png"
    options = {name: getattr(args, name) for name in ("steps", "guidance", "temperature", "posterior", "last_step")}
    model.options(**options)  # a wrong value is found before anything is written
    batches = model.sample_batches(seed=args.seed, num=args.num, labels=labels, **options)
    columns = len(labels) if labels and len(labels) <= 16 else None
    model._autoencoder()
    done = 0
    with ImageSink(out, columns=columns) as sink, tqdm.tqdm(total=args.num, desc="sample", unit="image") as bar:
        for part in batches:
            count = len(part.images)
            sink.add(part.images, None if labels is None else np.resize(labels, done + count)[done:])
            done += count
            bar.update(count)
    print(f"{args.num} images: {out}")


def reconstruct(args) -> None:
    import numpy as np
    import tqdm

    from binlatent import config as config_lib
    from binlatent.data.loader import eval_batches
    from binlatent.data.sources.folder import open_images
    from binlatent.images import ImageSink, psnr, to_float
    from binlatent.pipeline import Pipeline

    model = Pipeline.load(args.workdir)
    model._autoencoder()
    options = config_lib.build_data(model.config)
    source = open_images(args.images, options)
    scores = []
    with ImageSink(args.out, columns=2) as sink, tqdm.tqdm(total=len(source), unit="image") as bar:
        for batch in eval_batches(source, options, batch_size=model.batch_size):
            images = batch["image"][batch["mask"]]
            restored = model.reconstruct(images)
            scores.append(np.asarray(psnr(images, restored)))
            if args.out.endswith(".png"):  # originals on the left, reconstructions on the right
                restored = np.stack([to_float(images), restored], 1).reshape(-1, *images.shape[1:])
            sink.add(np.asarray(restored))
            bar.update(len(images))
    scores = np.concatenate(scores)
    print(f"{len(scores)} images: {args.out}")
    print(f"PSNR {scores.mean():.2f} dB (lowest {scores.min():.2f}, highest {scores.max():.2f})")


def edit(args) -> None:
    """Inpainting, variations and interpolations of a person's own images."""
    import numpy as np

    from binlatent import config as config_lib
    from binlatent.data.loader import eval_batches
    from binlatent.data.sources.folder import open_images
    from binlatent.errors import UserError
    from binlatent.images import ImageSink
    from binlatent.pipeline import Pipeline
    from binlatent.sampling.editing import box

    model = Pipeline.load(args.workdir)
    options = config_lib.build_data(model.config)
    source = open_images(args.images, options)
    labels = None if args.label is None else [args.label]
    walk = {"seed": args.seed, "labels": labels, "steps": args.steps, "guidance": args.guidance}
    with ImageSink(args.out, columns=args.num if args.how == "interpolate" else args.num + 1) as sink:
        previous = None
        for batch in eval_batches(source, options, batch_size=1):
            if not batch["mask"][0]:
                continue
            code = model.encode(batch["image"])
            if args.how == "interpolate":
                if previous is not None:
                    sink.add(model.decode(model.interpolate(previous[0], code[0], args.num, seed=args.seed)))
                previous = code
                continue
            many = np.repeat(code, args.num, axis=0)
            if args.how == "inpaint":
                try:
                    known = ~np.broadcast_to(box(args.box, model.code_shape), many.shape)
                except ValueError as error:
                    raise UserError(f"--box: {error}") from error
                edited = model.edit(many, known=known, clamp=args.clamp, **walk)
            else:
                edited = model.edit(many, start=args.start, **walk)
            sink.add(np.concatenate([model.decode(code), model.decode(edited)]))
    if previous is not None and len(source) < 2:
        raise UserError(f"{args.images} holds one image: an interpolation needs at least two")
    print(f"{args.how}: {args.out}")


def convert(args) -> None:
    from binlatent.convert.workdir import to_workdir

    files = {"autoencoder": args.autoencoder, "denoiser": args.denoiser, "hparams": args.hparams}
    print("\n".join(to_workdir(workdir=args.workdir, **files, overrides=args.overrides)))
    print(f"{args.workdir} is ready: see `binlatent info --workdir {args.workdir}`")


def convert_features(args) -> None:
    from binlatent.convert.features import convert_features

    print(f"{args.name}: {convert_features(args.name, args.files)}")


def plan(args) -> None:
    import jax

    from binlatent import config as config_lib
    from binlatent.machines import plan

    jax.config.update("jax_platforms", "cpu")  # nothing is run: virtual devices serve as well
    jax.config.update("jax_num_cpu_devices", args.devices)
    text = plan.table(args.configs or list(config_lib.shipped()), args.devices, compiled=args.compile)
    print(text if args.out is None else args.out)
    if args.out is not None:
        plan.write(args.out, text, args.devices)


def bench(args) -> None:
    from binlatent import config as config_lib
    from binlatent.machines import bench, plan

    name = "digits" if args.tiny else args.config
    config = config_lib.load(name, args.overrides)
    data = {"num_classes": plan.CLASSES.get(name, 0), "condition_shape": plan.CONDITIONS.get(name, ())}
    seconds, batch_size = (0.5, args.batch_size or 16) if args.tiny else (args.seconds, args.batch_size)
    print(f"{name}, made-up data and weights")
    print(bench.table(bench.bench(config, batch_size=batch_size, seconds=seconds, data=data)))


def info(args) -> None:
    from binlatent.cli.info import describe

    print(describe(args.workdir))


def _evaluation(args):
    from binlatent.evaluate.evaluation import Evaluation
    from binlatent.evaluate.options import EvaluationOptions

    features = args.features.split(",") if args.features else ()
    evaluation = Evaluation.open(
        args.workdir, features=features, batch_size=args.batch_size, reference=getattr(args, "reference", None)
    )
    sampling = {
        name: getattr(args, name, None) for name in ("steps", "guidance", "temperature", "posterior", "last_step")
    }
    likelihood = {name: getattr(args, name) for name in ("likelihood_num", "likelihood_steps") if hasattr(args, name)}
    options = EvaluationOptions(
        num=getattr(args, "num", 1),
        seed=getattr(args, "seed", 0),
        reference_split=args.reference_split,
        reference_num=args.reference_num,
        sampling={
            name: value for name, value in sampling.items() if value is not None and not isinstance(value, tuple)
        },
        **likelihood,
    )
    return evaluation, options


def evaluate(args) -> None:
    from binlatent.evaluate.report.sections import write_report
    from binlatent.evaluate.result import print_parts

    evaluation, options = _evaluation(args)
    only = [name for name in (args.only or "").split(",") if name]
    if only != ["report"]:
        parts = evaluation.run([name for name in only if name != "report"], options, again=args.again)
        print_parts(parts, evaluation.refused)
        print(f"scores: {evaluation.scores_file}")
    print(f"report: {write_report(evaluation, seed=options.seed)}")


def reference(args) -> None:
    from binlatent.errors import UserError

    evaluation, options = _evaluation(args)
    if not evaluation.networks:
        raise UserError("; ".join(evaluation.refused.values()))
    if args.out and len(evaluation.networks) > 1:
        raise UserError(
            "--out names one file: choose one of --features " + ", ".join(n.name for n in evaluation.networks)
        )
    for network in evaluation.networks:
        reference = evaluation.reference(network, options)
        if args.out:
            reference.save(args.out)
        images, split = reference.description["images"], reference.description["split"]
        print(
            f"reference {reference.hash}: {images} {split} images under {network.name}, {args.out or evaluation.folder}"
        )


def sweep(args) -> None:
    from binlatent.evaluate.report.sections import write_report
    from binlatent.evaluate.sweep import AXES, Grid, print_rows, sweep

    evaluation, options = _evaluation(args)
    given = {axis: getattr(args, axis) for axis in AXES if getattr(args, axis)}
    rows = sweep(evaluation, Grid(**given), options)
    print_rows(rows)
    print(
        f"table: {evaluation.experiment.workdir / 'sweep.json'}\nreport: {write_report(evaluation, seed=options.seed)}"
    )


def train_features(args) -> None:
    from binlatent.evaluate.classifier import train_features

    train_features(args.workdir, num_steps=args.num_steps, batch_size=args.batch_size, seed=args.seed)


def list_of(kind):
    """A parser of values with commas between, for argparse."""

    def parse(text: str) -> tuple:
        return tuple(kind(item) for item in text.split(","))

    parse.__name__ = f"list of {kind.__name__}"
    return parse


def _experiment(args):
    from binlatent import config as config_lib
    from binlatent.experiment import Experiment

    _start_distributed(args)
    if args.config is None:
        experiment = Experiment.open(args.workdir)
        if not args.overrides:
            return experiment
        return Experiment.open(args.workdir, config_lib.override(experiment.config, args.overrides))
    return Experiment.open(args.workdir, config_lib.load(args.config, args.overrides))


def _steps(text: str) -> tuple[int, int]:
    """`FIRST:LAST` as two steps."""
    from binlatent.errors import UserError

    first, _, last = text.partition(":")
    if not (first.isdigit() and last.isdigit() and int(first) <= int(last)):
        raise UserError(f"--profile {text}: FIRST:LAST is expected, two steps, as 100:110")
    return int(first), int(last)


def _start_distributed(args) -> None:
    if args.distributed or args.coordinator or args.num_processes is not None or args.process_id is not None:
        from binlatent.cli import distributed

        distributed.start(
            coordinator=args.coordinator,
            num_processes=args.num_processes,
            process_id=args.process_id,
            timeout=args.start_timeout,
        )


def fail(message: str):
    print(f"binlatent: {message}", file=sys.stderr)
    sys.exit(2)
