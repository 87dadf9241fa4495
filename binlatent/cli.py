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
    from binlatent.data.folder import open_folder_images
    from binlatent.data.loader import eval_batches
    from binlatent.pictures import ImageSink
    from binlatent.pipeline import Pipeline
    from binlatent.train.autoencoder import psnr, to_float

    model = Pipeline.load(args.workdir)
    model._autoencoder()
    options = config_lib.build_data(model.config)
    source = open_folder_images(args.images, options)
    scores = []
    with ImageSink(args.out, columns=2) as sink, tqdm.tqdm(total=len(source), unit="image") as bar:
        for batch in eval_batches(source, options, batch_size=model.batch_size):
            images = batch["image"][batch["mask"]]
            restored = model.reconstruct(images)
            scores.append(np.asarray(psnr(to_float(images), restored)))
            if args.out.endswith(".png"):  # originals on the left, reconstructions on the right
                restored = np.stack([to_float(images), restored], 1).reshape(-1, *images.shape[1:])
            sink.add(np.asarray(restored))
            bar.update(len(images))
    scores = np.concatenate(scores)
    print(f"{len(scores)} images: {args.out}\nPSNR {scores.mean():.2f} dB (lowest {scores.min():.2f}, highest {scores.max():.2f})")


def _info(args) -> None:
    from binlatent.info import describe

    print(describe(args.workdir))


def _experiment(args):
    from binlatent import config as config_lib
    from binlatent.experiment import Experiment

    _start_distributed(args)
    if args.config is None:
        if args.overrides:
            _fail(f"--config.{args.overrides[0]} needs a --config to override")
        return Experiment.open(args.workdir)
    return Experiment.open(args.workdir, config_lib.load(args.config, args.overrides))


def _start_distributed(args) -> None:
    if args.distributed:
        import jax

        jax.distributed.initialize()


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

    def command(name, function, help, *, config=False):
        sub = commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
        sub.set_defaults(function=function, takes_config=config)
        sub.add_argument("--workdir", required=True, metavar="DIR", help=WORKDIR)
        if config:
            sub.add_argument(
                "--config",
                metavar="C",
                help="path of a config, or a shipped one's name; any key is set as --config.prior.width=256. Needed the "
                "first time only: the work directory keeps it",
            )
            sub.add_argument(
                "--distributed", action="store_true", help="one of several processes (TPU pod, SLURM, Open MPI)"
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
        _fail(str(error))
    except KeyboardInterrupt:
        _fail("stopped; run the same command again to resume from the last checkpoint")
    except Exception as error:
        from binlatent.train.loop import Preempted

        if not isinstance(error, Preempted):
            raise
        print(error)


if __name__ == "__main__":
    main()
