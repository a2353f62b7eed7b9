"""The export command, in a process that has neither Detectron2 nor DenseRC."""

import subprocess
import sys

from denserc.commands.export import main

USE = """
import sys, torch, torchvision
from safetensors.torch import load_file
detector = torch.export.load(sys.argv[1]).module()
vectors = load_file(sys.argv[2])["vectors"]
boxes, scores = detector(torch.rand(3, 64, 64) * 255, torch.tensor([40, 64]), vectors, torch.full((len(vectors),), 0.2))
assert boxes.ndim == 2 and scores.shape == (len(boxes), 3) and boxes[:, 1::2].max() <= 40 and scores.max() > 0
assert not {"detectron2", "denserc"} & set(sys.modules)
"""


def test_the_program_stands_alone(detector, tmp_path):
    program = tmp_path / "out" / "detector.pt2"
    main([str(detector), str(program), "--side", "64", "--names", "red heart, kite, blue ring"])
    files = [str(program), str(program.with_suffix(".text_embeddings.safetensors"))]
    done = subprocess.run([sys.executable, "-c", USE, *files], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in program.parent.iterdir()) == [
        "detector.pt2",
        "detector.text_embeddings.safetensors",
    ]
