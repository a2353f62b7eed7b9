"""A file or folder that cannot be used ends every command with one line, `error: ...`, and status 2."""

import json

import numpy as np
import pytest
from PIL import Image

from denserc import cli
from denserc.construction import Construction, DenseEncoder, DenseModel, save_checkpoint
from denserc.encoders import build_clip

pytestmark = pytest.mark.usefixtures("forget_registered")

# Command lines in which @ takes the place of one file or folder. Words in braces are files that can be used.
LINES = """
distill --config-file @ DATASETS.TEST ()
distill --config-file distill_denserc MODEL.DEVICE cpu OUTPUT_DIR {out} DATASETS.REGISTER ('@',) DATASETS.TEST ()
distill --config-file distill_denserc OUTPUT_DIR {out} DATASETS.TRAIN () DATASETS.TEST () DISTILL.SOURCES ('folder:@',)
distill --config-file distill_denserc MODEL.DEVICE cpu OUTPUT_DIR {out} MODEL.ENCODER.CHECKPOINT @ DATASETS.TEST ()
train --config-file @
train --config-file fvit MODEL.DEVICE cpu OUTPUT_DIR {out} DATASETS.REGISTER ('@',)
eval --config-file @ MODEL.WEIGHTS {detector}
eval --data-set @ --predictions {results}
eval --data-set {set} --predictions @
eval --data-set {set} --proposals @
eval --data-set birds_val --register @ --predictions {results}
eval llava --benchmark gqa --answers @ --annotations {gqa}
eval llava --benchmark gqa --answers {results} --annotations @
eval llava --benchmark textvqa --answers {results} --annotations @
eval llava --benchmark pope --answers {results} --annotations @
eval llava --benchmark mme --answers {results} --annotations @
answer --model {photos} --questions @ --images {photos} --answers {out}/answers.jsonl
answer --model @ --questions {questions} --images {photos} --answers {out}/answers.jsonl
describe @
describe {encoder} --images @
detect @ --model {detector} --names cat --output {out}
detect {photos} --model @ --names cat --output {out}
detect {photos} --model {detector} --names-file @ --output {out}
show --detector @ --images {photos} --names cat --output {out}
show --detector {detector} --images @ --names cat --output {out}
show --detector {detector} --data-set @ --output {out}
segment @ --names cat,dog --checkpoint {encoder} --output {out}
segment {photos} --names cat,dog --checkpoint @ --output {out}
segment {photos} --names cat,dog --model @ --output {out}
segment --data-set @ --checkpoint {encoder} --output {out}
segment {photos} --names cat,dog --labels @ --checkpoint {encoder} --output {out}
doctor @
doctor {set} --embeddings @
doctor {set} --checkpoint @
embed --checkpoint @ --names cat --output {out}/e.safetensors
embed --checkpoint {encoder} --names-file @ --output {out}/e.safetensors
embed --checkpoint {encoder} --data-sets @ --output {out}/e.safetensors
embed --checkpoint {encoder} --compare @
embed --encoder EVA02-B-16 --weights @ --names cat --output {out}/e.safetensors
dataset new birds --annotations @ --images {photos} --output {out}
dataset new birds --annotations {truth} --images @ --output {out}
dataset new birds --labels @ --classes cat,dog --images {photos} --output {out}
dataset new birds --panoptic @ --masks {photos} --images {photos} --output {out}
dataset new birds --instances @ --images {photos} --output {out}
convert clip @ {out}/c.safetensors --encoder EVA02-B-16 --construction clipself
convert fvit @ {out}/d.pth --clip {encoder} --construction clipself
convert catseg @ {out}/d.pth
convert catseg {encoder} {out}/d.pth --config @
export @ {out}/d.pt2
export portable @ {out}/d.safetensors
export vision-tower @ {out}/tower
export llava @ {encoder} {out}/llava
lab ablate --table 11 --config-file @ --output {out}
lab interference --checkpoint @ --images {photos} --annotations {truth} --output {out}
lab interference --weights @ --images {photos} --annotations {truth} --output {out}
lab interference --images {photos} --annotations @ --output {out}
lab interference --images @ --annotations {truth} --output {out}
configs @
"""
WITHOUT_FILES = {"demo", "check-env", "bench", "dataset miniature", "lab train-clip", "lab package-miniature"}


@pytest.fixture(scope="module")
def files(tmp_path_factory, detector) -> dict[str, str]:
    """Files that can be used, by name."""
    root = tmp_path_factory.mktemp("files")
    (root / "photos").mkdir()
    for i in range(2):
        Image.fromarray(np.full((40, 40, 3), 90 * i, dtype=np.uint8)).save(root / "photos" / f"{i}.png")
    images = [{"id": i, "file_name": f"{i}.png", "height": 40, "width": 40} for i in range(2)]
    box = {"image_id": 0, "category_id": 1, "bbox": [2, 2, 20, 20]}
    truth = {"images": images, "annotations": [{**box, "id": 1, "area": 400, "iscrowd": 0}]}
    truth["categories"] = [{"id": 1, "name": "cat"}]
    (root / "truth.json").write_text(json.dumps(truth))
    (root / "results.json").write_text(json.dumps([{**box, "score": 0.5}]))
    (root / "set.yaml").write_text("name: birds\nbase: [cat]\nval: {annotations: truth.json, images: photos}\n")
    (root / "gqa.json").write_text(
        json.dumps({"1": {"question": "?", "answer": "cat", "types": {"structural": "query"}}})
    )
    (root / "questions.jsonl").write_text(json.dumps({"question_id": 1, "image": "0.png", "text": "?"}) + "\n")
    clip = build_clip("DenseRC-Miniature")
    model = DenseModel(DenseEncoder(clip.image, Construction()), clip.text, clip.logit_scale)
    save_checkpoint(root / "encoder.safetensors", model)
    names = ("photos", "truth.json", "results.json", "set.yaml", "gqa.json", "questions.jsonl", "encoder.safetensors")
    return {name.partition(".")[0]: str(root / name) for name in names} | {"detector": str(detector)}


@pytest.fixture
def wrong(tmp_path) -> dict[str, str]:
    """Paths of what cannot be used, by kind."""
    (tmp_path / "empty.pth").touch()
    (tmp_path / "junk.pth").write_bytes(b"\x93junk\x00\xff" * 9)
    return {kind: str(tmp_path / name) for kind, name in
            {"absent": "absent.pth", "empty": "empty.pth", "junk": "junk.pth"}.items()}  # fmt: skip


def test_every_command_with_files_is_here():
    lines = [line for line in LINES.splitlines() if line]
    named = {name for name in cli.COMMANDS if any(line.startswith(f"{name} ") for line in lines)}
    assert named | WITHOUT_FILES == set(cli.COMMANDS)


@pytest.mark.parametrize("kind", ["absent", "empty", "junk"])
@pytest.mark.parametrize("line", [line for line in LINES.splitlines() if line])
def test_a_wrong_file_is_one_line_and_status_2(line, kind, files, wrong, tmp_path, monkeypatch, capsys):
    if line.startswith(("answer", "export llava", "export vision-tower")):
        pytest.importorskip("transformers", reason="needs denserc[llava]")
    monkeypatch.chdir(tmp_path)
    words = line.format(out=tmp_path / "out", **files).replace("@", wrong[kind]).split()
    try:
        status = cli.main(words)
    except SystemExit as end:  # argparse
        status = end.code
    errors = capsys.readouterr().err
    if line.startswith("doctor @") or "--embeddings @" in line:
        assert status == 1  # a finding of the doctor
        return
    assert status == 2, errors
    message = f"\n{errors}".rpartition("\nerror: ")[2]
    assert f"{kind}.pth" in message, errors
