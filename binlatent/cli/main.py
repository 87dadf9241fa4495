"""`binlatent <command>`: the command line; what the commands do is in `commands`."""

import argparse
import os

from binlatent import __version__
from binlatent.cli import commands

WORKDIR = "the run's folder: config, checkpoints, codes, pictures"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="binlatent",
        description="Binary Latent Diffusion: images to bits, a diffusion model of the bits, new images.",
        epilog="Start with `binlatent run --config digits --workdir runs/digits`.",
    )
    parser.add_argument("--version", action="version", version=f"binlatent {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="command")

    def command(name, function, help, *, config=False, workdir=True):
        sub = subparsers.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
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
                "--start_timeout",
                type=int,
                default=300,
                metavar="S",
                help="seconds to wait for the others (%(default)s)",
            )
        return sub

    command(
        "run",
        commands.run,
        "train both stages and show samples; what is done is skipped, the rest resumed",
        config=True,
    )
    sub = command("train", commands.train, "train one stage, or resume it", config=True)
    sub.add_argument("--stage", required=True, choices=("autoencoder", "prior"))
    sub.add_argument("--init_from", metavar="DIR", help="work directory whose parameters a fresh run starts from")
    sub.add_argument("--profile", metavar="FIRST:LAST", help="trace these steps for TensorBoard's profiler")
    command("encode", commands.encode, "turn the data set into packed codes", config=True)

    sub = command("sample", commands.sample, "make new images")
    sub.add_argument("--num", type=int, default=64, help="how many (default: %(default)s)")
    sub.add_argument("--out", help=".npz (images uint8, labels), .png (one grid) or a folder of PNGs")
    sub.add_argument("--labels", metavar="0,3,7", help="classes, cycled over the images (default: no condition)")
    sub.add_argument("--steps", type=int, help="network calls from noise to a code (default: the config's)")
    sub.add_argument("--guidance", type=float, help="classifier-free weight w; 0 for none (default: the config's)")
    sub.add_argument("--temperature", type=float, help="below 1 sharpens (default: the config's)")
    sub.add_argument("--posterior", choices=("mixture", "plugin"), help="reverse step: exact, or the release's")
    sub.add_argument("--last_step", choices=("argmax", "sample"), help="how the last step takes its bits")
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument(
        "--batch_size", type=int, default=64, help="images at a time; does not change them (default: %(default)s)"
    )

    sub = command("reconstruct", commands.reconstruct, "encode and decode your own images; prints their PSNR")
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
            parse = commands.list_of(kind) if many else kind
            sub.add_argument(f"--{name}", type=parse, help=f"of sampling{', with commas' * many} (default: {default})")
        sub.add_argument("--last_step", choices=("argmax", "sample"), help="how the last step takes its bits")
        sub.add_argument("--seed", type=int, default=0)
        sub.add_argument(
            "--reference", metavar="FILE", help="a file of `binlatent reference` (default: made from the data)"
        )

    sub = scored("evaluate", commands.evaluate, "score a trained work directory: scores.json and report.html")
    sub.add_argument(
        "--only", metavar="P,P", help="of reconstruction, code, likelihood, generation, report (default: all)"
    )
    sub.add_argument("--num", type=int, default=10_000, help="samples (default: %(default)s)")
    axes(sub, many=False)
    sub.add_argument("--likelihood_num", type=int, default=1024, help="validation images scored (default: %(default)s)")
    sub.add_argument("--likelihood_steps", type=int, default=256, help="T of the bound (default: %(default)s)")
    sub.add_argument("--again", action="store_true", help="score even what is done")

    sub = scored("sweep", commands.sweep, "score samples over steps × guidance × temperature × posterior")
    sub.add_argument("--num", type=int, default=2000, help="samples of each cell (default: %(default)s)")
    axes(sub, many=True)

    sub = scored("reference", commands.reference, "make the statistics of real images that samples are held against")
    sub.add_argument("--out", metavar="FILE", help=".npz to write as well (default: the work directory keeps it)")

    sub = command(
        "train-features", commands.train_features, "train a small classifier whose features score samples offline"
    )
    sub.add_argument("--num_steps", type=int, default=2000, help="(default: %(default)s)")
    sub.add_argument("--batch_size", type=int, default=128, help="(default: %(default)s)")
    sub.add_argument("--seed", type=int, default=0)

    sub = command("convert", commands.convert, "turn checkpoints of the 2023 release into a work directory")
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
        commands.convert_features,
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

    sub = command(
        "plan", commands.plan, "what configs cost: parameters, bits, operations, memory; nothing is run", workdir=False
    )
    sub.add_argument("configs", nargs="*", metavar="C", help="names or paths (default: all that are shipped)")
    sub.add_argument("--devices", type=int, default=8, help="of the mesh (default: %(default)s)")
    sub.add_argument("--compile", action="store_true", help="compile the training steps as well; minutes")
    sub.add_argument("--out", metavar="FILE", help="write the table there, as markdown")

    sub = command("bench", commands.bench, "measure training and sampling on this machine's devices", workdir=False)
    sub.set_defaults(takes_config=True)  # only to change keys
    sub.add_argument(
        "--config", default="lsun_churches_256", metavar="C", help="what to measure (default: %(default)s)"
    )
    sub.add_argument("--batch_size", type=int, default=0, help="examples of a call (default: what fills the devices)")
    sub.add_argument("--seconds", type=float, default=10.0, help="of each measurement (default: %(default)s)")
    sub.add_argument("--tiny", action="store_true", help="the digits config, half a second each: a test of the command")

    sub = command("edit", commands.edit, "inpaint, vary or interpolate your own images")
    sub.add_argument("how", choices=("inpaint", "vary", "interpolate"))
    sub.add_argument("--images", required=True, metavar="DIR", help="a folder of images")
    sub.add_argument("--out", required=True, help=".png (the original first in each row), .npz or a folder")
    sub.add_argument("--num", type=int, default=4, help="results an image (default: %(default)s)")
    sub.add_argument("--box", default="0.25,0.25,0.75,0.75", metavar="TOP,LEFT,BOTTOM,RIGHT",
                     help="what to paint anew, in parts of the image (default: %(default)s)")  # fmt: skip
    sub.add_argument("--clamp", choices=("noised", "code"), default="noised", help="how known bits are held")
    sub.add_argument(
        "--start", type=float, default=0.5, help="how far a variation goes back, to 1 (default: %(default)s)"
    )
    sub.add_argument("--label", type=int, help="class to sample with")
    sub.add_argument("--steps", type=int)
    sub.add_argument("--guidance", type=float)
    sub.add_argument("--seed", type=int, default=0)

    command("info", commands.info, "tell what a work directory holds: parameters, steps, bits per image, stages done")
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
        commands.fail(str(error))
    except KeyboardInterrupt:
        commands.fail("stopped; run the same command again to resume from the last checkpoint")
    except OSError as error:  # a full disk, a place that cannot be written
        _leave_others(args, error, 2)
        commands.fail(f"{error}; checkpoints are kept, run the same command again to resume")
    except Exception as error:
        from binlatent.train.preemption import Preempted

        if not isinstance(error, Preempted):
            _leave_others(args, error, 1)
            raise
        print(error)


def _leave_others(args, error: Exception, status: int) -> None:
    from binlatent.cli import distributed

    if args.takes_config and distributed.started():
        distributed.leave(error, status)


if __name__ == "__main__":
    main()
