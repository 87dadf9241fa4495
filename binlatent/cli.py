"""`binlatent <command>`: thin. Every heavy import waits until its command runs, so that `--help` answers at once."""

import argparse
import os
import sys

from binlatent import __version__

WORKDIR = "the run's folder: config, checkpoints, codes, pictures"


def _run(args) -> None:
    experiment = _experiment(args)
    experiment.run()


def _train(args) -> None:
    profile = tuple(int(step) for step in args.profile.split(":")) if args.profile else None
    _experiment(args).train(args.stage, init_from=args.init_from, profile=profile)


def _encode(args) -> None:
    manifest = _experiment(args).encode()
    counts = ", ".join(f"{manifest.count(split)} {split}" for split in manifest.shards)
    print(f"codes: {counts}, {manifest.spec.record.itemsize} bytes each, in {args.workdir}/codes")


def _sample(args) -> None:
    import numpy as np
    import tqdm
    from etils import epath

    from binlatent.errors import UserError
    from binlatent.pictures import ImageSink
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


def _reconstruct(args) -> None:
    import numpy as np
    import tqdm

    from binlatent import config as config_lib
    from binlatent.data.folder import open_images
    from binlatent.data.loader import eval_batches
    from binlatent.evaluate.images import psnr, to_float
    from binlatent.pictures import ImageSink
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


def _convert(args) -> None:
    from binlatent.convert.workdir import to_workdir

    files = {"autoencoder": args.autoencoder, "denoiser": args.denoiser, "hparams": args.hparams}
    print("\n".join(to_workdir(workdir=args.workdir, **files, overrides=args.overrides)))
    print(f"{args.workdir} is ready: see `binlatent info --workdir {args.workdir}`")


def _convert_features(args) -> None:
    from binlatent.convert.features import convert_features

    print(f"{args.name}: {convert_features(args.name, args.files)}")


def _plan(args) -> None:
    import jax

    from binlatent import config as config_lib
    from binlatent import plan

    jax.config.update("jax_platforms", "cpu")  # nothing is run: virtual devices serve as well
    jax.config.update("jax_num_cpu_devices", args.devices)
    text = plan.table(args.configs or list(config_lib.shipped()), args.devices, compiled=args.compile)
    print(text if args.out is None else args.out)
    if args.out is not None:
        plan.write(args.out, text, args.devices)


def _bench(args) -> None:
    from binlatent import bench, plan
    from binlatent import config as config_lib

    name = "digits" if args.tiny else args.config
    config = config_lib.load(name, args.overrides)
    data = {"num_classes": plan.CLASSES.get(name, 0), "condition_shape": plan.CONDITIONS.get(name, ())}
    seconds, batch_size = (0.5, args.batch_size or 16) if args.tiny else (args.seconds, args.batch_size)
    print(f"{name}, made-up data and weights")
    print(bench.table(bench.bench(config, batch_size=batch_size, seconds=seconds, data=data)))


def _info(args) -> None:
    from binlatent.info import describe

    print(describe(args.workdir))


def _evaluation(args):
    from binlatent.evaluation import Evaluation, EvaluationOptions

    features = args.features.split(",") if args.features else ()
    evaluation = Evaluation.open(
        args.workdir, features=features, batch_size=args.batch_size, reference=getattr(args, "reference", None)
    )
    sampling = {name: getattr(args, name, None) for name in ("steps", "guidance", "temperature", "posterior", "last_step")}
    likelihood = {name: getattr(args, name) for name in ("likelihood_num", "likelihood_steps") if hasattr(args, name)}
    options = EvaluationOptions(
        num=getattr(args, "num", 1),
        seed=getattr(args, "seed", 0),
        reference_split=args.reference_split,
        reference_num=args.reference_num,
        sampling={name: value for name, value in sampling.items() if value is not None and not isinstance(value, tuple)},
        **likelihood,
    )
    return evaluation, options


def _evaluate(args) -> None:
    from binlatent.evaluation import print_parts
    from binlatent.report import write_report

    evaluation, options = _evaluation(args)
    only = [name for name in (args.only or "").split(",") if name]
    if only != ["report"]:
        parts = evaluation.run([name for name in only if name != "report"], options, again=args.again)
        print_parts(parts, evaluation.refused)
        print(f"scores: {evaluation.scores_file}")
    print(f"report: {write_report(evaluation, seed=options.seed)}")


def _reference(args) -> None:
    from binlatent.errors import UserError

    evaluation, options = _evaluation(args)
    if not evaluation.networks:
        raise UserError("; ".join(evaluation.refused.values()))
    if args.out and len(evaluation.networks) > 1:
        raise UserError("--out names one file: choose one of --features " + ", ".join(n.name for n in evaluation.networks))
    for network in evaluation.networks:
        reference = evaluation.reference(network, options)
        if args.out:
            reference.save(args.out)
        images, split = reference.description["images"], reference.description["split"]
        print(f"reference {reference.hash}: {images} {split} images under {network.name}, {args.out or evaluation.folder}")


def _sweep(args) -> None:
    from binlatent.report import write_report
    from binlatent.sweep import AXES, Grid, print_rows, sweep

    evaluation, options = _evaluation(args)
    given = {axis: getattr(args, axis) for axis in AXES if getattr(args, axis)}
    rows = sweep(evaluation, Grid(**given), options)
    print_rows(rows)
    print(f"table: {evaluation.experiment.workdir / 'sweep.json'}\nreport: {write_report(evaluation, seed=options.seed)}")


def _train_features(args) -> None:
    from binlatent.evaluation import train_features

    train_features(args.workdir, num_steps=args.num_steps, batch_size=args.batch_size, seed=args.seed)


def _list_of(kind):
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


def _start_distributed(args) -> None:
    if args.distributed or args.coordinator or args.num_processes is not None or args.process_id is not None:
        from binlatent import distributed

        distributed.start(
            coordinator=args.coordinator,
            num_processes=args.num_processes,
            process_id=args.process_id,
            timeout=args.start_timeout,
        )


def _fail(message: str):
    print(f"binlatent: {message}", file=sys.stderr)
    sys.exit(2)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="binlatent",
        description="Binary Latent Diffusion: images to bits, a diffusion model of the bits, new images.",
        epilog="Start with `binlatent run --config digits --workdir runs/digits`.",
    )
    parser.add_argument("--version", action="version", version=f"binlatent {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    def command(name, function, help, *, config=False, workdir=True):
        sub = commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
        sub.set_defaults(function=function, takes_config=config)
        if workdir:
            sub.add_argument("--workdir", required=True, metavar="DIR", help=WORKDIR)
        if config:
            sub.add_argument(
                "--config",
                metavar="C",
                help="path of a config, a shipped one's name, or another work directory; any key is set as "
                "--config.prior.width=256. Needed the first time only: the work directory keeps it",
            )
            several = sub.add_argument_group("one of several processes")
            several.add_argument(
                "--distributed", action="store_true", help="the others are detected (TPU pod, SLURM, Open MPI)"
            )
            several.add_argument("--coordinator", metavar="HOST:PORT", help="otherwise: where process 0 listens")
            several.add_argument("--num_processes", type=int, metavar="N", help="how many processes there are")
            several.add_argument("--process_id", type=int, metavar="I", help="which one this is, from 0")
            several.add_argument(
                "--start_timeout", type=int, default=300, metavar="S", help="seconds to wait for the others (%(default)s)"
            )
        return sub

    command("run", _run, "train both stages and show samples; what is done is skipped, the rest resumed", config=True)
    sub = command("train", _train, "train one stage, or resume it", config=True)
    sub.add_argument("--stage", required=True, choices=("autoencoder", "prior"))
    sub.add_argument("--init_from", metavar="DIR", help="work directory whose parameters a fresh run starts from")
    sub.add_argument("--profile", metavar="FIRST:LAST", help="trace these steps for TensorBoard's profiler")
    command("encode", _encode, "turn the data set into packed codes", config=True)

    sub = command("sample", _sample, "make new images")
    sub.add_argument("--num", type=int, default=64, help="how many (default: %(default)s)")
    sub.add_argument("--out", help=".npz (images uint8, labels), .png (one grid) or a folder of PNGs")
    sub.add_argument("--labels", metavar="0,3,7", help="classes, cycled over the images (default: no condition)")
    sub.add_argument("--steps", type=int, help="network calls from noise to a code (default: the config's)")
    sub.add_argument("--guidance", type=float, help="classifier-free weight w; 0 for none (default: the config's)")
    sub.add_argument("--temperature", type=float, help="below 1 sharpens (default: the config's)")
    sub.add_argument("--posterior", choices=("mixture", "plugin"), help="reverse step: exact, or the release's")
    sub.add_argument("--last_step", choices=("argmax", "sample"), help="how the last step takes its bits")
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--batch_size", type=int, default=64, help="images at a time; does not change them (default: %(default)s)")

    sub = command("reconstruct", _reconstruct, "encode and decode your own images; prints their PSNR")
    sub.add_argument("--images", required=True, metavar="DIR", help="a folder of images")
    sub.add_argument("--out", required=True, help=".png (originals beside reconstructions), .npz or a folder")

    def scored(name, function, help):
        sub = command(name, function, help)
        sub.add_argument(
            "--features",
            metavar="N,N",
            help="feature networks: inception, inception-pytorch-fid, classifier, or .py files with features(images) "
            "(default: inception where its weights are, classifier where one was trained)",
        )
        sub.add_argument("--reference_split", choices=("train", "validation"), default="train", help="real images")
        sub.add_argument("--reference_num", type=int, help="the first so many of them (default: all)")
        sub.add_argument("--batch_size", type=int, default=64, help="images at a time (default: %(default)s)")
        return sub

    def axes(sub, many):
        kinds = {"steps": int, "guidance": float, "temperature": float, "posterior": str}
        for name, kind in kinds.items():
            default = "4,8,16,32,64" if many and name == "steps" else "the config's"
            parse = _list_of(kind) if many else kind
            sub.add_argument(f"--{name}", type=parse, help=f"of sampling{', with commas' * many} (default: {default})")
        sub.add_argument("--last_step", choices=("argmax", "sample"), help="how the last step takes its bits")
        sub.add_argument("--seed", type=int, default=0)
        sub.add_argument("--reference", metavar="FILE", help="a file of `binlatent reference` (default: made from the data)")

    sub = scored("evaluate", _evaluate, "score a trained work directory: scores.json and report.html")
    sub.add_argument("--only", metavar="P,P", help="of reconstruction, code, likelihood, generation, report (default: all)")
    sub.add_argument("--num", type=int, default=10_000, help="samples (default: %(default)s)")
    axes(sub, many=False)
    sub.add_argument("--likelihood_num", type=int, default=1024, help="validation images scored (default: %(default)s)")
    sub.add_argument("--likelihood_steps", type=int, default=256, help="T of the bound (default: %(default)s)")
    sub.add_argument("--again", action="store_true", help="score even what is done")

    sub = scored("sweep", _sweep, "score samples over steps × guidance × temperature × posterior")
    sub.add_argument("--num", type=int, default=2000, help="samples of each cell (default: %(default)s)")
    axes(sub, many=True)

    sub = scored("reference", _reference, "make the statistics of real images that samples are held against")
    sub.add_argument("--out", metavar="FILE", help=".npz to write as well (default: the work directory keeps it)")

    sub = command("train-features", _train_features, "train a small classifier whose features score samples offline")
    sub.add_argument("--num_steps", type=int, default=2000, help="(default: %(default)s)")
    sub.add_argument("--batch_size", type=int, default=128, help="(default: %(default)s)")
    sub.add_argument("--seed", type=int, default=0)

    sub = command("convert", _convert, "turn checkpoints of the 2023 release into a work directory")
    sub.set_defaults(takes_config=True)  # only to change keys
    sub.add_argument("--autoencoder", metavar="F.th", help="binaryae_*.th or binaryae_ema_*.th")
    sub.add_argument("--denoiser", metavar="F.th", help="bld_*.th or bld_ema_*.th; either file alone is enough")
    sub.add_argument(
        "--hparams",
        metavar="H.json",
        help="the release's hyper-parameters by its own names; what the tensors say need not be given. The work "
        "directory's config is changed as --config.data.path=photos",
    )

    sub = command(
        "convert-features",
        _convert_features,
        "download and convert the weights of a feature network, once for a machine",
        workdir=False,
    )
    sub.add_argument("name", choices=("inception", "lpips", "resnet50"), help="the network")
    sub.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="local copies of its published files, for a machine without a network: inception takes "
        "pt_inception-2015-12-05-6726825d.pth, lpips takes vgg16-397923af.pth and lpips's weights/v0.1/vgg.pth, resnet50 "
        "takes resnet50-0676ba61.pth",
    )

    sub = command("plan", _plan, "what configs cost: parameters, bits, operations, memory; nothing is run", workdir=False)
    sub.add_argument("configs", nargs="*", metavar="C", help="names or paths (default: all that are shipped)")
    sub.add_argument("--devices", type=int, default=8, help="of the mesh (default: %(default)s)")
    sub.add_argument("--compile", action="store_true", help="compile the training steps as well; minutes")
    sub.add_argument("--out", metavar="FILE", help="write the table there, as markdown")

    sub = command("bench", _bench, "measure training and sampling on this machine's devices", workdir=False)
    sub.set_defaults(takes_config=True)  # only to change keys
    sub.add_argument("--config", default="lsun_churches_256", metavar="C", help="what to measure (default: %(default)s)")
    sub.add_argument("--batch_size", type=int, default=0, help="examples of a call (default: what fills the devices)")
    sub.add_argument("--seconds", type=float, default=10.0, help="of each measurement (default: %(default)s)")
    sub.add_argument("--tiny", action="store_true", help="the digits config, half a second each: a test of the command")

    command("info", _info, "tell what a work directory holds: parameters, steps, bits per image, stages done")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Runs a command. A problem that a person can solve is one message and exit status 2, not a traceback."""
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    overrides = [item.removeprefix("--config.") for item in rest if item.startswith("--config.")]
    unknown = [item for item in rest if not item.startswith("--config.")]
    if unknown or (overrides and not args.takes_config):
        parser.error(f"unknown argument {(unknown or rest)[0]!r}; see `binlatent {args.command} --help`")
    args.overrides = overrides

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from binlatent.errors import UserError

    try:
        args.function(args)
    except UserError as error:
        _leave_others(args, error, 2)
        _fail(str(error))
    except KeyboardInterrupt:
        _fail("stopped; run the same command again to resume from the last checkpoint")
    except Exception as error:
        from binlatent.train.loop import Preempted

        if not isinstance(error, Preempted):
            _leave_others(args, error, 1)
            raise
        print(error)


def _leave_others(args, error: Exception, status: int) -> None:
    from binlatent import distributed

    if args.takes_config and distributed.started():
        distributed.leave(error, status)


if __name__ == "__main__":
    main()
