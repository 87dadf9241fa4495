"""Invalid input on the command line: the exit status, and words of the message.

A case is (arguments, words, whether its status is 2). In the arguments `{trained}` is a trained work directory, `{new}` a
folder that does not exist and must not exist afterwards, `{tmp}` a folder with the files that `place` makes.
"""

import json
import shlex

import numpy as np
import pytest
from PIL import Image

from binlatent.cli.main import main, parse
from binlatent.errors import UserError
from tests import tiny

SAMPLE = "sample --workdir {trained} --steps 2 --num 2"
EDIT = "edit inpaint --workdir {trained} --images {tmp}/mine --out {tmp}/e.png --steps 2"
# short, so that what is accepted by mistake ends soon
RUN = (
    "run --config digits --workdir {new} --config.autoencoder_training.num_steps=1 --config.prior_training.num_steps=1"
)
FOLDER = "run --config image_folder --workdir {new}"

# (name, arguments, words that the message must have)
REFUSED = [
    # which command, which flag
    ("no command", "", ["command"]),
    ("unknown command", "sampel", ["'sampel'", "sample"]),
    ("mistyped flag", SAMPLE + " --nmu 3", ["'--nmu'", "--num"]),
    ("flag of another command", "info --workdir {trained} --steps 3", ["'--steps'"]),
    ("shortened flag", SAMPLE + " --temp 1", ["'--temp'", "--temperature"]),
    ("flag without its value", "sample --workdir", ["--workdir", "expected one argument"]),
    ("no work directory named", "sample", ["--workdir", "required"]),
    ("empty work directory name", "sample --workdir ''", ["--workdir", "empty"]),
    ("a config where none is taken", "info --workdir {trained} --config.prior.width=3", ["--config.prior.width"]),
    ("no stage", "train --config digits --workdir {new}", ["--stage"]),
    ("unknown stage", "train --stage ae --config digits --workdir {new}", ["'ae'", "autoencoder", "prior"]),
    ("bench has no --tiny", "bench --tiny", ["'--tiny'"]),
    # numbers
    ("num 0", "sample --workdir {trained} --num 0", ["--num", "0", "from 1 to"]),
    ("num −1", "sample --workdir {trained} --num -1", ["--num", "-1", "from 1 to"]),
    ("num of two thousand million", "sample --workdir {trained} --num 2000000000", ["--num", "to 10,000,000"]),
    ("num no number", "sample --workdir {trained} --num many", ["--num", "'many'", "an integer"]),
    ("num not an integer", "sample --workdir {trained} --num 2.5", ["--num", "'2.5'", "an integer"]),
    ("num empty", "sample --workdir {trained} --num ''", ["--num", "an integer"]),
    ("batch size 0", SAMPLE + " --batch_size 0", ["--batch_size", "0", "from 1 to"]),
    ("batch size −1", SAMPLE + " --batch_size -1", ["--batch_size", "-1", "from 1 to"]),
    ("batch size of a million million", SAMPLE + " --batch_size 1000000000000", ["--batch_size", "65,536"]),
    ("seed −1", SAMPLE + " --seed -1", ["--seed", "-1", "from 0 to 4,294,967,295"]),
    ("seed 2^32", SAMPLE + " --seed 4294967296", ["--seed", "from 0 to 4,294,967,295"]),
    ("seed 2^70", SAMPLE + " --seed 1180591620717411303424", ["--seed", "from 0 to"]),
    ("seed no number", SAMPLE + " --seed random", ["--seed", "'random'", "an integer"]),
    ("steps 0", "sample --workdir {trained} --steps 0", ["--steps", "0", "from 1 to"]),
    ("steps −4", "sample --workdir {trained} --steps -4", ["--steps", "-4", "from 1 to"]),
    ("steps 1e9", "sample --workdir {trained} --steps 1000000000", ["--steps", "1,000,000"]),
    ("guidance nan", SAMPLE + " --guidance nan", ["--guidance", "nan", "finite number"]),
    ("guidance inf", SAMPLE + " --guidance inf", ["--guidance", "inf", "finite number"]),
    ("guidance −inf", SAMPLE + " --guidance=-inf", ["--guidance", "-inf", "finite number"]),
    ("guidance a word", SAMPLE + " --guidance strong", ["--guidance", "'strong'", "finite number"]),
    ("temperature nan", SAMPLE + " --temperature nan", ["--temperature", "nan", "finite number"]),
    ("temperature 0", SAMPLE + " --temperature 0", ["--temperature", "finite number from"]),
    ("temperature −1", SAMPLE + " --temperature -1", ["--temperature", "-1", "finite number from"]),
    ("posterior", SAMPLE + " --posterior exact", ["exact", "mixture", "plugin"]),
    ("last step", SAMPLE + " --last_step none", ["none", "argmax", "sample"]),
    ("interval of one", SAMPLE + " --guidance_interval 0.5", ["--guidance_interval", "2 comma-separated values"]),
    ("interval of words", SAMPLE + " --guidance_interval a,b", ["--guidance_interval", "'a'", "finite number"]),
    ("sweep over a word", "sweep --workdir {trained} --steps 4,eight", ["--steps", "'eight'", "an integer"]),
    ("sweep over 0 steps", "sweep --workdir {trained} --steps 4,0", ["--steps", "0", "from 1 to"]),
    ("sweep with a gap", "sweep --workdir {trained} --steps 4,,8", ["--steps", "''", "an integer"]),
    ("evaluate num 0", "evaluate --workdir {trained} --num 0", ["--num", "from 1 to"]),
    ("evaluate unknown part", "evaluate --workdir {trained} --only fid", ["fid", "reconstruction", "generation"]),
    ("evaluate seed", "evaluate --workdir {trained} --seed -1", ["--seed", "from 0 to"]),
    (
        "evaluate reference split",
        "evaluate --workdir {trained} --reference_split test",
        ["test", "train", "validation"],
    ),
    ("classifier steps 0", "train-classifier --workdir {trained} --num_steps 0", ["--num_steps", "from 1 to"]),
    ("profile", "train --stage prior --config digits --workdir {new} --profile 10", ["--profile", "FIRST:LAST"]),
    (
        "profile reversed",
        "train --stage prior --config digits --workdir {new} --profile 9:3",
        ["--profile", "FIRST:LAST"],
    ),
    ("plan of no devices", "plan --devices 0 digits", ["--devices", "from 1 to"]),
    ("plan of no topology", "plan digits --topology v9z:2x2", ["'v9z:2x2'", "v5e, v5p, v6e", "v5e:2x4"]),
    ("plan of no program", "plan digits --topology v5e:2x4 --programs training", ["'training'", "prior", "sampling"]),
    ("bench no time", "bench --seconds nan", ["--seconds", "finite number"]),
    ("feature network", "convert-features vgg", ["'vgg'", "inception", "lpips"]),
    # labels
    ("label out of range", SAMPLE + " --labels 0,5", ["'5'", "from 0 to 2"]),
    ("label −1", SAMPLE + " --labels=-1", ["'-1'", "from 0 to 2"]),
    ("label no class", SAMPLE + " --labels cat", ["'cat'", "integers from 0 to 2"]),
    ("label not an integer", SAMPLE + " --labels 1.0", ["'1.0'", "integers"]),
    ("label with a gap", SAMPLE + " --labels 0,,1", ["''", "integers"]),
    ("label an Arabic digit", SAMPLE + " --labels ١", ["integers"]),
    ("label of 5,000 digits", SAMPLE + " --labels " + "9" * 5000, ["from 0 to 2"]),
    ("labels empty", SAMPLE + " --labels ''", ["--labels", "empty"]),
    ("edit's label", EDIT + " --label 7", ["'7'", "from 0 to 2"]),
    # places
    ("a work directory that is not there", "sample --workdir {new}", ["config.json", "binlatent run"]),
    ("a folder that is no work directory", "sample --workdir {tmp}", ["config.json"]),
    ("info of nothing", "info --workdir {new}", ["config.json"]),
    ("out of another kind", SAMPLE + " --out {tmp}/a.gif", [".gif", ".npz", ".png"]),
    ("out .bmp, capitals", SAMPLE + " --out {tmp}/a.BMP", [".bmp", ".npz", ".png"]),
    ("out .npy", SAMPLE + " --out {tmp}/a.npy", [".npy", ".npz"]),
    ("out an existing folder with a file's ending", SAMPLE + " --out {tmp}/folder.png", ["folder.png", "is a folder"]),
    ("out an existing file without ending", SAMPLE + " --out {tmp}/file", ["{tmp}/file", "is a file"]),
    ("out below a file", SAMPLE + " --out {tmp}/file/a.png", ["{tmp}/file", "cannot be written"]),
    ("out a folder with images", SAMPLE + " --out {tmp}/mine", ["holds 2 images", "remove", "another folder"]),
    ("out a name too long", SAMPLE + " --out {tmp}/" + "a" * 300 + "/b.png", ["cannot be written", "too long"]),
    ("out empty", SAMPLE + " --out ''", ["--out", "empty"]),
    ("a picture too large", "sample --workdir {trained} --num 9000000 --out {tmp}/a.png", ["9,000,000", "pixels"]),
    ("a webp too wide", "sample --workdir {trained} --num 4000000 --out {tmp}/a.webp", ["pixels", ".webp", "folder"]),
    ("no images there", "reconstruct --workdir {trained} --images {new} --out {tmp}/r", ["new", "no such folder"]),
    (
        "a folder without images",
        "reconstruct --workdir {trained} --images {tmp}/empty --out {tmp}/r",
        ["no image files"],
    ),
    ("a file that is no image", "reconstruct --workdir {trained} --images {tmp}/file --out {tmp}/r", ["{tmp}/file"]),
    (
        "out among the images",
        "reconstruct --workdir {trained} --images {tmp}/mine --out {tmp}/mine",
        ["holds 2 images"],
    ),
    # editing
    ("how", "edit paint --workdir {trained} --images {tmp}/mine --out {tmp}/e", ["'paint'", "inpaint", "vary"]),
    ("box of words", EDIT + " --box left", ["--box", "'left'", "four comma-separated numbers"]),
    ("box of three", EDIT + " --box 0,0,1", ["--box", "four comma-separated numbers"]),
    ("box upside down", EDIT + " --box 1,0,0,1", ["--box", "top < bottom"]),
    ("box of nan", EDIT + " --box nan,0,1,1", ["--box", "top < bottom"]),
    ("edit num 0", EDIT + " --num 0", ["--num", "from 1 to"]),
    ("a start to inpaint", EDIT + " --start 0.3", ["--start is for vary: inpaint does not use it"]),
    ("a mask to vary", EDIT.replace("inpaint", "vary") + " --mask {tmp}/file", ["--mask is for inpaint"]),
    (
        "passes to interpolate",
        EDIT.replace("inpaint", "interpolate") + " --passes 3",
        ["--passes is for inpaint and outpaint"],
    ),
    (
        "prompts to interpolate",
        EDIT.replace("inpaint", "interpolate") + " --prompt x",
        ["interpolate takes no prompts"],
    ),
    ("a mask and a box", EDIT + " --mask {tmp}/file --box 0,0,1,0.5", ["--mask and --box"]),
    ("more labels than results", EDIT + " --num 2 --label 0,1,2", ["3 prompts or labels", "give --num 3"]),
    ("start −1", EDIT.replace("inpaint", "vary") + " --start -1", ["--start", "-1", "from 0 to 1"]),
    ("start 2", EDIT.replace("inpaint", "vary") + " --start 2", ["--start", "2", "from 0 to 1"]),
    ("start nan", EDIT.replace("inpaint", "vary") + " --start nan", ["--start", "finite number"]),
    ("clamp", EDIT + " --clamp hard", ["'hard'", "noised", "code"]),
    ("no such mask", EDIT + " --mask {new}.png", ["--mask", "new.png", "No such file"]),
    ("a mask that is no image", EDIT + " --mask {tmp}/file", ["--mask", "not an image"]),
    ("passes 0", EDIT + " --passes 0", ["--passes", "from 1 to"]),
    ("feather −1", EDIT + " --feather -1", ["feather is -1"]),
    ("no margins", EDIT.replace("inpaint", "outpaint"), ["--margins", "four comma-separated numbers"]),
    ("margins of words", EDIT.replace("inpaint", "outpaint") + " --margins a,b,c,d", ["--margins", "a,b,c,d"]),
    ("margins 0", EDIT.replace("inpaint", "outpaint") + " --margins 0,0,0,0", ["margins", "not all 0"]),
    # a model for others
    ("export nothing", "export --workdir {new} --out {tmp}/x", ["new", "no config.json"]),
    ("export into a full folder", "export --workdir {trained} --out {tmp}/mine", ["{tmp}/mine", "new or empty folder"]),
    ("export into a file", "export --workdir {trained} --out {tmp}/file", ["{tmp}/file is a file"]),
    ("export below a file", "export --workdir {trained} --out {tmp}/file/x", ["{tmp}/file/x", "cannot be written"]),
    ("export 0 steps", "export --workdir {trained} --out {tmp}/x --steps 0", ["--steps", "from 1 to"]),
    ("export nowhere", "export --workdir {trained}", ["--out", "required"]),
    ("pack of another kind", "pack --workdir {trained} --out {tmp}/model.zip", ["model.zip", ".safetensors"]),
    ("pack below a file", "pack --workdir {trained} --out {tmp}/file/m.safetensors", ["{tmp}/file"]),
    ("pack nothing", "pack --workdir {tmp} --out {tmp}/m.safetensors", ["no config.json"]),
    ("a pack that is not there", "sample --workdir {tmp}/m.safetensors", ["no file {tmp}/m.safetensors"]),
    ("a pack on no hub", "sample --workdir hf://me", ["hf://OWNER/NAME/FILE"]),
    ("demo of nothing", "demo --workdir {new}", ["new", "no config.json"]),
    ("demo on port −1", "demo --workdir {trained} --port -1", ["--port", "from 0 to 65,535"]),
    ("demo on no host", "demo --workdir {trained} --host nowhere.invalid", ["nowhere.invalid", "--host"]),
    (
        "interpolating one image",
        "edit interpolate --workdir {trained} --images {tmp}/mine/a.png --out {tmp}/e",
        ["one image", "at least two"],
    ),
    (
        "interpolating by one",
        "edit interpolate --workdir {trained} --images {tmp}/mine --out {tmp}/e --num 1",
        ["--num 1", "at least 2"],
    ),
    (
        "edits of 0 at a time",
        "edit vary --workdir {trained} --images {tmp}/mine --out {tmp}/e --batch_size 0",
        ["--batch_size", "from 1 to"],
    ),
    # configs
    ("no config", "run --workdir {new}", ["config.json", "--config"]),
    ("unknown config", "run --config nonsense --workdir {new}", ["'nonsense'", "digits"]),
    ("unknown key", RUN + " --config.prior.widht=3", ["'prior.widht'", "prior.width"]),
    ("key without a value", RUN + " --config.prior.width", ["--config.prior.width=VALUE"]),
    (
        "key without a value before a flag",
        RUN + " --config.prior.width --start_timeout 9",
        ["--config.prior.width=VALUE"],
    ),
    ("value of another type", RUN + " --config.prior.width=wide", ["--config.prior.width=wide", "is expected"]),
    ("mesh that does not fit", RUN + " --config.mesh.fsdp=3", ["does not fit 8 devices", "--config.mesh"]),
    ("another config's work directory", "run --config digits --workdir {trained}", ["another config", "prior.width"]),
    ("a config that fails", "run --config {tmp}/fails.py --workdir {new}", ["fails.py", "ZeroDivisionError"]),
    ("a config that exits", "run --config {tmp}/exits.py --workdir {new}", ["exits.py", "SystemExit"]),
    ("a config that returns nothing", "run --config {tmp}/nothing.py --workdir {new}", ["nothing.py", "NoneType"]),
    ("a config without get_config", "run --config {tmp}/empty.py --workdir {new}", ["empty.py", "get_config"]),
    ("a config that is no Python", "run --config {tmp}/words.py --workdir {new}", ["words.py", "SyntaxError"]),
    ("an empty config.json", "sample --workdir {tmp}/w_empty", ["config.json", "cannot be read"]),
    ("a broken config.json", "info --workdir {tmp}/w_broken", ["config.json", "cannot be read"]),
    ("a list as config.json", "sample --workdir {tmp}/w_list", ["config.json", "list"]),
    ("a config.json of version 0.1", "info --workdir {tmp}/w_old", ["config.json", "0.1"]),
    ("a config.json of bytes", "run --workdir {tmp}/w_bytes", ["config.json", "cannot be read"]),
    # configs: numbers that cannot be, each key by its name
    ("33 pixels", FOLDER.replace("folder ", "folder:33 "), ["33×33 pixels", "multiple of 16, such as 32"]),
    ("34 pixels", FOLDER.replace("folder ", "folder:34 "), ["34×34 pixels", "multiple of 16, such as 32"]),
    ("50 pixels", FOLDER.replace("folder ", "folder:50 "), ["50×50 pixels", "multiple of 16, such as 48"]),
    ("66 pixels", FOLDER.replace("folder ", "folder:66 "), ["66×66 pixels", "multiple of 16, such as 64"]),
    ("0 pixels", FOLDER.replace("folder ", "folder:0 "), ["0×0 pixels", "multiple of 16"]),
    ("−32 pixels", FOLDER.replace("folder ", "folder:-32 "), ["image_folder:-32", "the resolution in pixels"]),
    (
        "a word for pixels",
        FOLDER.replace("folder ", "folder:large "),
        ["image_folder:large", "the resolution in pixels"],
    ),
    ("an unknown variant", FOLDER.replace("folder ", "folder:32,tiny "), ["image_folder:32,tiny", "',small'"]),
    ("an argument that is not taken", "run --config digits:5 --workdir {new}", ["takes no argument", ":5"]),
    ("no data path", "run --config image_folder --workdir {new}", ["data.path"]),
    ("a data path that is not there", FOLDER + " --config.data.path {tmp}/none", ["{tmp}/none", "no such folder"]),
    ("a data path that is a file", FOLDER + " --config.data.path {tmp}/file", ["{tmp}/file"]),
    ("an empty data folder", FOLDER + " --config.data.path {tmp}/empty", ["{tmp}/empty", "no image files"]),
    ("two images", FOLDER + " --config.data.path {tmp}/mine", ["training examples"]),
    ("an unknown source", RUN + " --config.data.source=web", ["'web'", "folder"]),
    ("a section as a key", RUN + " --config.prior=3", ["'prior'"]),
    ("a key without a name", RUN + " --config.=3", ["no config key ''"]),
    ("heads that do not divide", RUN + " --config.prior.heads=5", ["heads", "5"]),
    ("no bits", RUN + " --config.autoencoder.code_bits=0", ["code_bits", "0"]),
    ("no channels", RUN + " --config.autoencoder.channels=0", ["channels", "0"]),
    ("an average that grows", RUN + " --config.prior_optimizer.ema_decay=1.5", ["ema_decay is 1.5", "below 1"]),
    ("no heads", RUN + " --config.prior.heads=0", ["heads is 0", "at least 1"]),
    ("no layers", RUN + " --config.prior.depth=0", ["depth", "0"]),
    ("no components", RUN + " --config.prior.components=0", ["components", "0"]),
    ("7 pixels for a patch of 2", RUN + " --config.data.resolution=7", ["resolution", "7"]),
    ("a learning rate of nan", RUN + " --config.prior_optimizer.learning_rate=nan", ["learning_rate", "nan"]),
    ("a learning rate of −1", RUN + " --config.prior_optimizer.learning_rate=-1.0", ["learning_rate", "-1.0"]),
    ("an unknown schedule of noise", RUN + " --config.prior_objective.schedule=quadratic", ["'quadratic'", "cosine"]),
    ("an unknown schedule of the rate", RUN + " --config.prior_optimizer.schedule=linear", ["'linear'", "cosine"]),
    ("negative warm-up", RUN + " --config.autoencoder_optimizer.warmup_steps=-5", ["warmup_steps", "-5"]),
    ("no steps", RUN + " --config.autoencoder_training.num_steps=0", ["num_steps is 0", "at least 1"]),
    (
        "steps a call that do not divide",
        RUN + " --config.prior_training.steps_per_call=7",
        ["multiple of steps_per_call 7"],
    ),
    ("weights that are not there", RUN + " --config.autoencoder_loss.lpips.weight=1.0", ["lpips", "convert-features"]),
    ("the balanced loss of a mixture", RUN + " --config.prior_objective.weighting=balanced", ["prior.components to 1"]),
    ("a seed that is not whole", RUN + " --config.seed=1.5", ["seed", "1.5"]),
    ("flips that are no answer", RUN + " --config.codes.flips=maybe", ["flips", "maybe"]),
    ("no views", RUN + " --config.codes.views=0", ["codes.views=0", "from 1"]),
    ("half a view", RUN + " --config.codes.views=1.5", ["views", "an integer"]),
    ("no devices along an axis", RUN + " --config.mesh.data=0", ["mesh", "positive"]),
    ("an interval of one number", RUN + " --config.sampling.guidance_interval=0.5", ["guidance_interval", "tuple"]),
    ("a work directory that is a file", "run --config digits --workdir {tmp}/file", ["{tmp}/file"]),
    ("a work directory below a file", "run --config digits --workdir {tmp}/file/w", ["{tmp}/file"]),
    ("a folder as config", "run --config {tmp} --workdir {new}", ["no config"]),
    (
        "the prior before the autoencoder",
        "train --stage prior --config digits --workdir {new}",
        ["no checkpoint", "train"],
    ),
    (
        "the decoder before the autoencoder",
        "train --stage decoder --config digits --workdir {new}",
        ["no checkpoint", "autoencoder", "train"],
    ),
    ("a rate that is no probability", RUN + " --config.decoder.flip_rate=0.7", ["flip_rate is 0.7", "0 to 0.5"]),
    ("a wrong term of the decoder", RUN + " --config.decoder_loss.batch_entropy.weight=1", ["decoder_loss", "mean"]),
    ("codes before the autoencoder", RUN.replace("run", "encode", 1), ["no checkpoint", "train"]),
    (
        "a start from nothing",
        RUN.replace("run", "train --stage autoencoder --init_from {tmp}/empty", 1),
        ["{tmp}/empty", "no checkpoint"],
    ),
    ("samples without a prior", "sample --workdir {tmp}/half --num 2", ["prior"]),
    (
        "a width that the checkpoint does not have",
        "sample --workdir {tmp}/wide --num 2",
        ["prior.width = 32", "trained with 16", "restore config.json"],
    ),
    ("a broken image", "reconstruct --workdir {trained} --images {tmp}/broken --out {tmp}/r", ["{tmp}/broken"]),
    ("a link to itself", "reconstruct --workdir {trained} --images {tmp}/loop --out {tmp}/r", ["{tmp}/loop"]),
    ("a feature network that is not there", "evaluate --workdir {trained} --features {tmp}/no.py", ["{tmp}/no.py"]),
    (
        "a feature network that fails",
        "evaluate --workdir {trained} --features {tmp}/exits.py",
        ["exits.py", "SystemExit"],
    ),
    ("features of a file that is not there", "convert-features inception {tmp}/no.pth", ["{tmp}/no.pth"]),
    ("info of a file", "info --workdir {tmp}/file", ["{tmp}/file"]),
    ("no processes", RUN + " --coordinator a:1 --num_processes 0 --process_id 0", ["--num_processes", "from 1 to"]),
    ("nothing to convert", "convert --workdir {new}", ["--autoencoder", "--denoiser"]),
    ("convert what is not there", "convert --workdir {new} --autoencoder {tmp}/no.th", ["no.th"]),
    ("convert what is no checkpoint", "convert --workdir {new} --autoencoder {tmp}/file", ["{tmp}/file"]),
]

# (name, arguments, words on standard output or error)
TAKEN = [
    (
        "labels none",
        SAMPLE + " --labels none --guidance 1.5 --out {tmp}/n.npz",
        ["guidance 1.5 has no effect", "2 images"],
    ),
    ("an upper-case ending", SAMPLE + " --out {tmp}/up.PNG", ["2 images: {tmp}/up.PNG"]),
    ("a jpg", SAMPLE + " --out {tmp}/a.jpg", ["2 images"]),
    ("a webp", SAMPLE + " --out {tmp}/a.webp", ["2 images"]),
    ("a folder with a dot", SAMPLE + " --out {tmp}/run_v0.5", ["2 images: {tmp}/run_v0.5"]),
    ("the largest seed", SAMPLE + " --seed 4294967295 --out {tmp}/l.png", ["2 images"]),
    ("the largest seed's file", "sample --workdir {trained} --num 1 --steps 1 --out {tmp}/é.png", ["é.png"]),
    (
        "one file to reconstruct",
        "reconstruct --workdir {trained} --images {tmp}/mine/a.png --out {tmp}/one",
        ["PSNR", "a.png"],
    ),
    ("one file to edit", EDIT.replace("/mine ", "/mine/b.PNG ") + " --num 2", ["inpaint: {tmp}/e.png"]),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory, trained):
    """A folder with two images, a file that is not an image, an empty folder, one with a file's suffix, one with a broken
    image, a link to itself, and two work directories: without a prior, and with another width than was trained."""
    folder = tmp_path_factory.mktemp("bad_input")
    for name in ("mine", "empty", "folder.png"):
        (folder / name).mkdir()
    for name, image in zip(("a.png", "b.PNG"), tiny.images(2), strict=True):
        Image.fromarray(image[..., 0]).save(folder / "mine" / name)
    (folder / "file").write_text("no image")
    programs = {
        "fails": "def get_config(): return 1 / 0",
        "exits": "raise SystemExit(0)",
        "nothing": "def get_config(): pass",
        "empty": "",
        "words": "not a program",
    }
    for name, text in programs.items():
        (folder / f"{name}.py").write_text(text)
    for name, content in {
        "empty": b"",
        "broken": b'{"seed":',
        "list": b"[]",
        "old": b'{"seed": 0}',
        "bytes": b"\xff",
    }.items():
        (folder / f"w_{name}").mkdir()
        (folder / f"w_{name}" / "config.json").write_bytes(content)
    (folder / "broken").mkdir()
    (folder / "broken" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (folder / "loop").symlink_to("loop")
    config = json.loads((trained / "config.json").read_text())
    for name, stages, width in (("half", ["autoencoder"], 16), ("wide", ["autoencoder", "prior"], 32)):
        (folder / name).mkdir()
        config["prior"]["width"] = width
        (folder / name / "config.json").write_text(json.dumps(config))
        for stage in stages:
            (folder / name / stage).symlink_to(trained / stage)
    return folder


def arguments(text, place, trained):
    return [part.format(tmp=place, trained=trained, new=place / "new") for part in shlex.split(text)]


@pytest.mark.parametrize(("text", "words"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_invalid_input_is_refused(place, trained, capsys, text, words):
    before = sorted(place.rglob("*"))
    with pytest.raises(SystemExit) as stopped:
        main(arguments(text, place, trained))
    printed = capsys.readouterr().err
    assert stopped.value.code == 2, printed
    assert not [word for word in words if word.format(tmp=place) not in printed], printed
    assert printed.count("\n") <= 25 and "Traceback" not in printed
    assert "last checkpoint" not in printed  # nothing was trained, so nothing resumes
    assert sorted(place.rglob("*")) == before, "a refused command left something behind"


@pytest.mark.parametrize(("text", "words"), [case[1:] for case in TAKEN], ids=[case[0] for case in TAKEN])
def test_valid_input_is_accepted(place, trained, capsys, text, words):
    main(arguments(text, place, trained))
    printed = "".join(capsys.readouterr())
    assert not [word for word in words if word.format(tmp=place) not in printed], printed


def test_reconstructions_are_named_after_their_files_with_a_table(place, trained, tmp_path, capsys):
    main(arguments(f"reconstruct --workdir {{trained}} --images {{tmp}}/mine --out {tmp_path}/r", place, trained))
    assert sorted(path.name for path in (tmp_path / "r").iterdir()) == ["a.png", "b.png", "psnr.csv"]
    rows = [line.split(",") for line in (tmp_path / "r/psnr.csv").read_text().splitlines()]
    assert rows[0] == ["file", "psnr_db"] and [row[0] for row in rows[1:]] == ["a.png", "b.PNG"]
    original, restored = (
        np.asarray(Image.open(folder / "a.png"), float) for folder in (place / "mine", tmp_path / "r")
    )
    psnr = 10 * np.log10(255**2 / np.square(original - restored).mean())
    assert abs(float(rows[1][1]) - psnr) < 0.1
    assert f"a.png: {float(rows[1][1]):.2f} dB" in capsys.readouterr().out


def test_edits_name_what_is_known_as_such(place, trained, tmp_path):
    main(arguments(EDIT.replace("{tmp}/e.png", f"{tmp_path}/e") + " --num 2", place, trained))
    names = [f"{stem}-{what}.png" for stem in "ab" for what in ("1", "2", "known")]
    assert sorted(path.name for path in (tmp_path / "e").iterdir()) == names


def test_all_classes_come_in_turn_unless_labels_are_given(place, trained, tmp_path):
    main(arguments(f"sample --workdir {{trained}} --steps 2 --num 5 --out {tmp_path}/a.npz", place, trained))
    assert np.load(tmp_path / "a.npz")["labels"].tolist() == [0, 1, 2, 0, 1]
    main(
        arguments(
            f"sample --workdir {{trained}} --steps 2 --num 5 --labels none --out {tmp_path}/b.npz", place, trained
        )
    )
    assert "labels" not in np.load(tmp_path / "b.npz")


PIECES = (
    *("sample", "sweep", "edit", "evaluate", "run", "plan", "inpaint", "--workdir", "--num", "--steps", "--labels", "--seed"),
    *("--guidance", "--config.prior.width", "--config.", "--config", "--", "-", "=", "", ",", "1,2", "nan", "-1", "1e400"),
    *("--help=3", "--num=", "--steps=4,8", "\udcff", "\0", "%s", "%(prog)s", "{}", "'", "0x10", "١", "1_000", "@file", "…"),
)  # fmt: skip


def test_no_command_line_breaks_the_parser(capsys):
    """Random command lines either become a command or end with a message and status 2."""
    random = np.random.default_rng(0)
    made = 0
    starts = (["plan"], [], *([name, "--workdir", "w"] for name in ("sample", "sweep", "evaluate", "run", "convert")))
    for _ in range(500):
        pieces = [PIECES[i] for i in random.integers(len(PIECES), size=random.integers(4))]
        argv = [*starts[random.integers(len(starts))], *pieces]
        try:
            parse(argv)
            made += 1
        except SystemExit as stopped:
            assert stopped.code == 2, argv
        except UserError as error:
            assert str(error)
        printed = capsys.readouterr().err
        assert printed.count("\n") <= 2 and "<lambda>" not in printed, (argv, printed)
    assert 50 < made < 450
